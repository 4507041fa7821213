"""`invdiff simulate`: a measurement of a clean image."""

from pathlib import Path
from typing import Annotated

import typer

from invdiff.cli.options import Assign, Config, Seed, Task, Truth, resolve
from invdiff.errors import InputError


def simulate(task: Task = None, config: Config = None, truth: Truth = None, assign: Assign = None, seed: Seed = None,
             output: Annotated[Path, typer.Option("--output", "-o", help="Measurement: .png (8 bit) or .npy (exact).")]
             = Path("measurement.png")) -> None:
    """Degrade a clean image as a task does, and write the measurement."""
    import numpy as np

    from invdiff.io.files import make_folder, replacing, unwritable
    from invdiff.io.images import save_image
    from invdiff.io.results import check_kept
    from invdiff.posing import pose

    resolved = resolve(task, config, assign, {"truth": truth, "seed": seed})
    if resolved.is_scan:
        raise InputError("simulate: gives measurements of images; a scan of a clean one is simulated and restored at once: "
                         f"invdiff restore --task {resolved.task} --truth FILE --set sigma_y=0.01")
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"{output}: expected a name that ends in .png or .npy")
    check_kept(output, resolved.files)
    problem = pose(resolved).problem
    if output.suffix == ".png" and (problem.y.ndim != 4 or problem.y.shape[1] not in (1, 3)):
        raise InputError(f"{output}: this measurement, {tuple(problem.y.shape[1:])}, is no image; expected a name that ends in "
                         ".npy")
    make_folder(output.parent)
    try:
        if output.suffix == ".npy":
            with replacing(output) as temporary, temporary.open("wb") as file:
                np.save(file, problem.y[0].numpy())
        else:
            save_image(output, problem.y[0])
    except OSError as error:
        raise unwritable(output, error) from error
    typer.echo(f"{output}: {' x '.join(map(str, problem.y.shape[1:]))} values, sigma_y = {problem.sigma_y:g}")
