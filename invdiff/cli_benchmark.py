"""`invdiff benchmark`: what measures the samplers."""

from pathlib import Path
from typing import Annotated

import typer

from invdiff.errors import InputError

app = typer.Typer(rich_markup_mode=None, help="Measure the samplers.")

DEFAULT = "moment_matching,twisted_smc,pigdm,diffpir,dps,ddrm"


@app.callback()
def benchmark() -> None:
    """Measure the samplers."""


@app.command()
def exact(
    samplers: Annotated[str, typer.Option(help="Comma-separated names.")] = DEFAULT,
    problems: Annotated[int, typer.Option(help="Random mixture problems for each pair of dimensions.")] = 10,
    samples: Annotated[int, typer.Option(help="Samples of each posterior.")] = 1000,
    steps: Annotated[int | None, typer.Option(help="Of every sampler; without it, each one's own.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small part of it, to see that it runs.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The tables; the record is beside them, as .json.")]
    = Path("exact.md"),
) -> None:
    """Samplers against known posteriors, of Gaussian priors and of mixtures, beside those of deepinv of the same name."""
    from rich.console import Console
    from rich.table import Table

    from invdiff.evaluation import exact_tables
    from invdiff.evaluation.exact import Plan, quick_plan, run, sampler_names

    for name, value, least in (("problems", problems, 1), ("samples", samples, 2), ("steps", steps, 1)):
        if value is not None and value < least:
            raise InputError(f"--{name}: expected at least {least}, got {value}")
    if output.suffix == ".json" or not output.parent.is_dir():
        raise InputError(f"--output: expected a file in an existing folder, not called .json, got {output}")
    plan = Plan(sampler_names(samplers), problems, samples, steps)
    console = Console()
    record = run(quick_plan(plan) if quick else plan, lambda part: console.print(f"{part}: done", highlight=False))
    record["made"]["command"] = _command(samplers, problems, samples, steps, quick)
    exact_tables.save(record, output)
    for table in exact_tables.tables(record):
        shown = Table(*table.head, title=table.title, caption=table.note)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    typer.echo(f"{output}: the tables; {output.with_suffix('.json')}: the record")


def _command(samplers: str, problems: int, samples: int, steps: int | None, quick: bool) -> str:
    parts = ["invdiff benchmark exact", *([f"--samplers {samplers}"] if samplers != DEFAULT else []),
             f"--problems {problems} --samples {samples}", *([f"--steps {steps}"] if steps else []),
             *(["--quick"] if quick else [])]
    return " ".join(parts)
