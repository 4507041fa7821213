"""`invdiff tasks`: what there is."""

from invdiff.cli.options import plain_console


def tasks() -> None:
    """List the bundled tasks and the samplers."""
    from rich.table import Column, Table

    from invdiff.config import SAMPLERS
    from invdiff.resolving import tasks as bundled_tasks
    from invdiff.validation import read_yaml

    console = plain_console()
    table = Table(*(Column(name, overflow="fold") for name in ("task", "operator", "sigma_y", "sampler")))
    for name, path in bundled_tasks().items():
        data = read_yaml(path)
        operator, sampler = (", ".join(f"{v}" if k == "name" else f"{k}={v}" for k, v in data[part].items())
                             for part in ("operator", "sampler"))
        table.add_row(name, operator, f"{data['sigma_y']}", sampler)
    console.print(table)
    console.print(f"configs in {path.parent}", soft_wrap=True)
    table = Table(*(Column(name, overflow="fold") for name in ("sampler", "steps", "what it does")))
    for name, kind in SAMPLERS.items():
        table.add_row(name, str(kind().num_steps), kind.about)
    console.print(table)
