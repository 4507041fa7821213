"""`invdiff priors`: what there is, what is known of one, and how far one errs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import plain_console, progress_bar
from invdiff.errors import InputError

program = typer.Typer(rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="A shipped prior, a .safetensors file, or FORMAT:WHAT.")]


@program.callback(invoke_without_command=True)
def priors(context: typer.Context) -> None:
    """List the priors: those that are shipped, and the formats of others that can be loaded."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Column, Table

    from invdiff.priors import FORMATS, shipped_priors
    from invdiff.priors.checkpoint import read_card
    from invdiff.priors.foreign.deepinv_models import CHECKPOINTS

    table = Table(*(Column(title, no_wrap=True) for title in ("prior", "MB", "images", "sigma")), "licence")
    for name, path in shipped_priors().items():
        card = read_card(path)
        table.add_row(name, f"{path.stat().st_size / 1e6:.1f}", _images(card["architecture"]["channels"]),
                      _range(card.get("sigma_range")), card["licence"])
    console = plain_console()
    console.print(table)
    console.print("`invdiff priors show NAME`: what one was trained on, and how well it denoises\n")
    table = Table(Column("checkpoints of others", no_wrap=True), "what")
    for kind in FORMATS.values():
        table.add_row(kind.example, kind.about)
    console.print(table)
    console.print(f"deepinv: {', '.join(CHECKPOINTS)}")


@program.command()
def show(name: Name) -> None:
    """Print what is known of a prior: its card."""
    from rich.table import Table

    from invdiff.priors import load_prior, shipped_priors

    prior = load_prior(name)
    table = Table("", name, show_lines=False)
    for key, value in prior.card.items():
        if key != "samples":
            table.add_row(key.replace("_", " "), _shown(key, value))
    picture = Path(shipped_priors().get(name, name)).with_suffix(".png")
    if picture.is_file():
        table.add_row("samples", str(picture))
    table.add_row("parameters", f"{sum(p.numel() for p in prior.parameters()):,}")
    if not any(key in prior.card for key in ("spectrum", "spectrum_grey")):
        table.add_row("error spectrum", f"not measured; `invdiff priors calibrate {name} --data IMAGES` does")
    plain_console().print(table)


@program.command()
def calibrate(
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder of clean images, or an HDF5 file, that the prior was not trained on.")],
    key: Annotated[str | None, typer.Option(help="Dataset of an HDF5 file; train_jpeg, for complex priors test.")] = None,
    images: Annotated[int, typer.Option(help="How many, spread over the data.")] = 24,
    size: Annotated[int, typer.Option(help="Height and width of the central crops, pixels.")] = 128,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here, and not where the name finds it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
) -> None:
    """Measure a prior's error spectrum, which the default sampler goes by, and keep it for this name.

    Complex priors take a dataset (N, 2, H, W), real and imaginary part, or pictures, which are magnitudes then.
    """
    from invdiff.datasets.crops import crops_for
    from invdiff.io.results import check_kept
    from invdiff.machine import find_device
    from invdiff.priors import load_prior, spectrum_records
    from invdiff.priors.facts import channels_of
    from invdiff.priors.names import file_of, split

    for option, value, least in (("images", images, 1), ("size", size, 16)):
        if value < least:
            raise InputError(f"--{option}: expected at least {least}, got {value}")
    if "spectrum" in split(name)[1]:
        raise InputError(f"{name}: leave ?spectrum=... out, to measure one")
    if output:
        check_kept(output, [file_of(name), data])
    where = find_device(device)
    prior = load_prior(name)
    crops = crops_for(channels_of(prior), data, key, images, size)
    total = spectrum_records.calls(name, prior, crops)
    source = f"measured on {len(crops)} images of {size} x {size} from {data.name}"
    with progress_bar("calls") as bar:
        line = bar.add_task(f"{name} on {len(crops)} images", total=total)
        record = spectrum_records.measure(name, prior, crops, source, where, lambda: bar.advance(line))
    path = output or spectrum_records.place(name)
    spectrum_records.write_record(path, record)
    _summary(record, size)
    mark = "&" if "?" in name else "?"
    typer.echo(f"{path}: the error spectrum; " + (f"use it with --prior '{name}{mark}spectrum={path}'" if output else
                                                  f"--prior '{name}' now finds it"))


def _summary(record: dict[str, Any], size: int) -> None:
    """The error by noise level: of a pixel, and of one frequency where it is coarse and where it is fine."""
    from rich.table import Table

    from invdiff.priors.spectrum import ErrorSpectrum

    spectrum = ErrorSpectrum.from_dict(record["spectrum"])
    table = Table("noise level", "error of a pixel", "coarsest structure", "finest",
                  title=f"{record['prior']}: {spectrum.source}",
                  caption="root mean square, white is 1; the noise itself is the level")
    for sigma in spectrum.sigmas[::2].tolist():
        power = spectrum.at(sigma, (size, size)).mean(0)            # (H, W // 2 + 1)
        values = (power.mean(), power[0, 0], power[size // 2, -1])
        table.add_row(f"{sigma:.3g}", *(f"{float(v) ** 0.5:.3g}" for v in values))
    plain_console().print(table)


def _images(channels: int | None) -> str:
    return {1: "grey", 2: "complex", 3: "colour, grey", None: "any"}.get(channels, f"{channels} channels")


def _range(limits: Sequence[float | None] | None) -> str:
    if limits is None:
        return "any"
    low, high = limits
    return f"{low or 0:.3g} and more" if high is None else f"{low or 0:.3g} to {high:.3g}"


def _shown(key: str, value: Any) -> str:
    """A value of a card in a few words."""
    if isinstance(value, dict) and "power" in value:
        levels = value["sigmas"]
        return f"{value['source']}, {len(levels)} noise levels from {levels[0]:.3g} to {levels[-1]:.3g}"
    if key == "sigma_range":
        return _range(value)
    if key == "channels":
        return _images(value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown('', v)}" if not isinstance(v, dict | list) or len(str(v)) < 60 else f"{k} ..."
                         for k, v in value.items())
    if isinstance(value, list) and len(str(value)) > 60:
        return f"{len(value)} entries"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
