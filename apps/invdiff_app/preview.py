"""The measurement as the settings make it, drawn at once."""

from dataclasses import dataclass

import numpy as np

from invdiff.config import RunConfig
from invdiff.errors import InputError
from invdiff_app import text
from invdiff_app.choosing import require_size
from invdiff_app.session import remembered


@dataclass(frozen=True)
class Preview:
    """truth and measurement as pictures, uint8; the mask of an inpainting; values: how many were measured; sigma_y."""

    truth: np.ndarray | None
    measurement: np.ndarray
    mask: np.ndarray | None
    is_image: bool
    values: int
    sigma_y: float


def preview_of(config: RunConfig) -> Preview:
    """Posed anew only when operator, noise, seed or file have changed. Raises InputError."""
    about = config.model_dump_json(include={"operator", "sigma_y", "seed", "input", "truth"})
    return remembered("_preview", about, lambda: _posed(config))


def _posed(config: RunConfig) -> Preview:
    from invdiff.config import unknown_width
    from invdiff.evaluation.metrics import enlarged
    from invdiff.posing import NOTHING, as_image, pose
    from invdiff_app.pictures import shown

    if config.task == "cs" and config.input is not None:
        raise InputError(text.NO_PICTURE)
    if key := unknown_width(config.operator):           # which changes nothing of what is shown
        _require_detail(config)
        config = config.model_copy(update={"operator": config.operator | {key: 1.0}})
    posed = pose(config)
    problem, truth = posed.problem, posed.truth
    require_size(problem.image_shape)
    picture = as_image(problem) if posed.spare == NOTHING else problem.y
    mask = getattr(problem.physics, "mask", None) if "inpainting" in config.operator["name"] else None
    grid = enlarged(picture, problem.image_shape[-2:]) if config.operator["name"].endswith("super_resolution") else picture
    return Preview(None if truth is None else shown(truth), shown(grid), None if mask is None else shown(mask.float()),
                   problem.y.ndim == picture.ndim, int(problem.observed().sum()), problem.sigma_y)


def _require_detail(config: RunConfig) -> None:
    """Raises InputError for an image that is too small to tell the width of its blur."""
    from invdiff.blind import LEAST_SIDE
    from invdiff.posing import photo

    height, width = photo(config.input or "").shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(text.WIDTH_TOO_SMALL.format(LEAST_SIDE, width, height))


def show(preview: Preview) -> None:
    from invdiff_app.components import panels

    measured = text.MEASURED if preview.is_image else text.BACK_PROJECTED
    pictures = {} if preview.truth is None else {text.CLEAN: preview.truth}
    pictures[measured] = preview.measurement
    if preview.mask is not None:
        pictures[text.MASK] = preview.mask
    captions = {measured: text.VALUES.format(f"{preview.values:,}", preview.sigma_y), text.MASK: text.MASK_CAPTION}
    panels(pictures, "preview", captions, least=220)
