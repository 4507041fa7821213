"""`invdiff figures`: pictures of the theory, drawn by the code they are about."""

from pathlib import Path
from typing import Annotated

import typer

from invdiff.errors import InputError
from invdiff.illustrations.captions import CAPTIONS


def figures(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help=f"{', '.join(CAPTIONS)} [default: all].")] = None,
    prior: Annotated[str | None, typer.Option(help="Of forward and reverse: shipped prior, .safetensors file, or FORMAT:WHAT "
                                                   "[default: a photo, a shipped prior].")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("figures"),
    format: Annotated[str, typer.Option(help="png, svg or png,svg.")] = "png",
    seed: Annotated[int | None, typer.Option(help="Random seed, 0 or larger; without it, each figure's own.")] = None,
) -> None:
    """Draw the theory of diffusion: forward and reverse process, score, paths, samplers, schedules, guidance, likelihood."""
    wanted = list(dict.fromkeys(names or CAPTIONS))
    if unknown := [name for name in wanted if name not in CAPTIONS]:
        raise InputError(f"figures: none is called {unknown[0]!r}; known are {', '.join(CAPTIONS)}")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"--seed: expected an integer of 0 or more, got {seed}")
    from invdiff.illustrations.gallery import draw
    from invdiff.illustrations.saving import make_folder, parse_formats, save
    from invdiff.priors import load_prior

    formats = parse_formats(format)
    loaded = None if prior is None else load_prior(prior)
    make_folder(output)
    for name in wanted:
        paths = save(draw(name, prior=loaded, seed=seed), output, name, formats)
        typer.echo(f"{', '.join(map(str, paths))}: {CAPTIONS[name]}")
