"""What a user may say about a scan: the `operator` of a config whose name is mri."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from invdiff.errors import InputError
from operators.mri import sampling

CENTER = 24         # lines, or side of the block, that a retrospective mask keeps in the middle
FEWEST = 11         # lines in the middle that coil maps want
LEAST = 7           # and without which there are none
COILS = 16          # more are compressed to so many

Pattern = Literal["equispaced", "random", "gaussian", "gaussian_points", "poisson_disc"]


class ScanSettings(BaseModel):
    """How a scan is taken apart, and which mask is put over it.

    acceleration, pattern, center, mask_seed: a retrospective mask; none without an acceleration. rows: undersample along the
    rows' direction, not the columns'. coils: virtual coils to compress to; None takes COILS at most, and draws samples with
    the fewest that hold 99.5 % of the energy; of a simulated scan, how many there are. sets: of coil maps, 2 for a field of
    view smaller than the head; None finds out. calib: side, or sides, of the calibration region; None takes what is fully
    sampled, up to 24 x 24. noise: where the noise covariance comes from; None takes the noise scan where there is one, else
    what the coil maps leave of k-space, else its border. trajectory: a file, where the scan's does not hold it. size: (H, W)
    of the image, where a trajectory does not tell it; None takes the smallest even sides that it asks for. frame: which of
    several repetitions, contrasts, phases or sets; of images, volumes of a series, or echoes at a position. grid: where a
    Cartesian scan's grid is coarser, samples are drawn on one of about grid x grid pixels, where heads are as large as those
    the prior knows; 0 draws on the scan's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    acceleration: float | None = Field(None, ge=1)
    pattern: Pattern = "equispaced"
    center: int | None = Field(None, ge=0)
    mask_seed: int = Field(0, ge=0)
    rows: bool = False
    coils: PositiveInt | None = None
    sets: Literal[1, 2] | None = None
    calib: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    noise: Literal["scan", "residual", "border", "none"] | None = None
    trajectory: str | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    grid: int = Field(256, ge=0, le=1024)
    frame: int = Field(0, ge=0)

    @classmethod
    def of(cls, operator: Mapping[str, Any]) -> "ScanSettings":
        """Those in the `operator` of a config."""
        return cls(**{key: value for key, value in operator.items() if key != "name"})


def retrospective_mask(settings: ScanSettings, size: tuple[int, int]) -> Tensor:
    """The mask (H, W) that the settings ask for. Raises InputError where it cannot be met."""
    assert settings.acceleration is not None
    shape = size[::-1] if settings.rows else size
    make: dict[str, Callable[..., Tensor]] = {
        "equispaced": sampling.equispaced_fraction_lines, "random": sampling.random_lines, "gaussian": sampling.gaussian_lines,
        "gaussian_points": sampling.gaussian_points, "poisson_disc": sampling.poisson_disc}
    if settings.pattern in ("gaussian_points", "poisson_disc"):
        middle: dict[str, Any] = {"calib": CENTER if settings.center is None else settings.center}
    else:                                                   # half of what may be kept, of a small or much undersampled scan
        half = max(int(shape[-1] / settings.acceleration / 2), FEWEST)
        middle = {"center_fraction": min((min(CENTER, half) if settings.center is None else settings.center) / shape[-1], 1.0)}
    try:
        mask = make[settings.pattern](shape, settings.acceleration, seed=settings.mask_seed, **middle)
    except ValueError as error:
        raise InputError(_too_fast(settings, shape, middle) or f"operator.acceleration={settings.acceleration:g}: "
                         f"{error}") from error
    return mask.T if settings.rows else mask


def _too_fast(settings: ScanSettings, shape: tuple[int, int], middle: dict[str, Any]) -> str | None:
    """What is wrong where an acceleration leaves less than is kept in the middle."""
    assert settings.acceleration is not None
    if "calib" in middle:
        side, what, total = middle["calib"], "points", shape[0] * shape[1]
        kept, least = min(side, shape[0]) * min(side, shape[1]), LEAST**2
    else:
        side, what, total = round(shape[1] * middle["center_fraction"]), "lines", shape[1]
        kept, least = side, LEAST
    if kept <= total / settings.acceleration:
        return None
    most, more = (math.floor(100 * total / count) / 100 for count in (kept, least))
    smaller = f", or up to {more:g} with --set operator.center={LEAST}" if side > LEAST else ""
    default = " by default" if settings.center is None else ""
    return (f"operator.acceleration={settings.acceleration:g} leaves {int(total / settings.acceleration)} of {total} {what}, "
            f"and operator.center={side}{default} keeps {kept} in the middle; expected an acceleration of at most {most:g}"
            f"{smaller}")
