"""The dress of a report: one file, no network, light and dark, wide and narrow."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --paper: #ffffff; --card: #f5f7f9; --line: #d5dbe1;
        --best: #d9f2e3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b0; --paper: #14181c; --card: #1c2228; --line: #39424b; --best: #1d4a33; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; } p { margin: 0.4rem 0; max-width: 60rem; }
.soft { color: var(--soft); font-size: 0.88rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0.6rem 0; font-size: 0.92rem; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.9em; }
nav a { margin-right: 0.9rem; } a { color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; width: 100%; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); min-width: 12rem; }
th { color: var(--soft); font-weight: 600; } td small { display: block; color: var(--soft); }
td.best { background: var(--best); font-weight: 700; } td.said { text-align: left; color: var(--soft); }
.dot { display: inline-block; min-width: 1.35rem; height: 1.35rem; line-height: 1.35rem; flex: none;
       border-radius: 0.7rem; text-align: center; color: #ffffff; font-size: 0.75rem; font-weight: 700; }
.named { display: flex; gap: 0.4rem; align-items: start; }
ul { list-style: none; padding: 0; } li { margin: 0.5rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
           margin-top: 0.6rem; }
.figures figure { background: var(--card); border-radius: 0.5rem; padding: 0.5rem; }
.figures svg { width: 100%; height: auto; display: block; }
figure { margin: 0; } figcaption { font-size: 0.8rem; color: var(--soft); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 0.7rem; }
.images img { width: 100%; max-width: 16rem; display: block; border-radius: 0.25rem; image-rendering: auto; }
@media (max-width: 32rem) {
  body { padding: 0.7rem; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.4rem; }
  th:first-child, td:first-child { min-width: 8.5rem; max-width: 9.5rem; overflow-wrap: anywhere; }
  th, td { padding: 0.3rem 0.4rem; } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"        # nothing is fetched, nothing runs


def page(title: str, body: str) -> str:
    """A whole HTML file. Both are HTML already."""
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n'
            "</body>\n</html>\n")
