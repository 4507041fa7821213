"""The pages that a benchmark writes."""

import re
from html.parser import HTMLParser

from invdiff.benchmark.markdown import to_markdown
from invdiff.benchmark.run import run


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_and_escapes_what_it_shows(config, tmp_path):
    run(config, tmp_path / "out", command="invdiff <x>")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.tags & {"script", "link", "i", "b", "x", "iframe", "object"}
    assert {"svg", "img", "table"} <= page.tags
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)", text)
    for said in ("<script>alert(1)</script> & http://example.org", "<i>half</i>", "broken <b>", "invdiff <x>"):
        assert said in page.text
    assert "http" not in text.replace("http://example.org", "").replace("http-equiv", "")
    assert page.text.count("Image chelsea 1") == 2
    names = [path.stem for path in (tmp_path / "out" / "pictures").iterdir()]
    shown = sum(link.startswith("data:image/jpeg") for link in page.links)
    assert shown == len(names) + sum(name.startswith("truth") for name in names)       # which both tasks show


def test_the_markdown_page_has_the_tables_and_how_they_were_made(config, tmp_path):
    record = run(config, tmp_path / "out", command="invdiff benchmark mine.yaml")
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# Benchmark\n\n````text\ninvdiff benchmark mine.yaml\n````\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## deblur", r"## \<i\>half\</i\>"]
    for said in ("- machine: ", "- commit: ", "- run: ", "- versions: ", "gaussian_blur",
                 r"RuntimeError: \<script\>", "(2 of 2 images)"):
        assert said in page
    table = [line for line in page[page.index("## deblur"):page.index(r"## \<i")].splitlines() if line.startswith("| ")]
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")] for line in table)}
    mean = {name: sum(row[name] for row in record.sorted() if (row["task"], row["method"]) == ("deblur", "moment_matching")) / 2
            for name in ("psnr", "psnr_sample", "coverage_90")}
    ours = rows["moment_matching"]
    assert (ours[2], ours[-2]) == ("4", f"{mean['coverage_90']:.0%}")
    assert f"{mean['psnr']:.2f}" in ours[3]
    assert f"({mean['psnr_sample']:.2f})" in ours[3]
    assert (rows["tv"][2], rows["tv"][-2]) == ("1", "")
    scored = [row for row in rows.values() if row[2] in ("1", "4")]
    best = max(scored, key=lambda row: float(re.search(r"[\d.]+", row[3]).group()))
    assert best[1] in [row[1] for row in scored if row[3].startswith("**")]
    assert all(re.fullmatch(r"(\*\*)?[\d.]+(\*\*)? ± [\d.]+( \([\d.]+\))?", row[3]) for row in scored)
    assert not any("±" in row[4] for row in scored)
    row = next(row for row in record.rows.values() if (row["task"], row["method"]) == ("deblur", best[1]))
    row |= {"status": "failed", "reason": "out of luck"}
    page = to_markdown(record, config)
    assert f"| {best[1]} (1 of 2 images) | " in page              # a mean over one image is no one's rival
    assert f"| {best[1]} (1 of 2 images) | {best[2]} | **" not in page
    record.rows.popitem()
    assert "1 of 20 cells are still to be run" in to_markdown(record, config)
