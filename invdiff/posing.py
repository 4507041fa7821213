"""The problem that a config describes: a clean image degraded, or a measurement in a file with the operator that made it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from deepinv.physics import LinearPhysics, Physics
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

import operators
from invdiff.config import FOUND, RunConfig, block_side, build_operator, faults_told, known_operators
from invdiff.errors import InputError
from invdiff.io.images import load_array, load_image, sample_image
from invdiff.noise_level import NoiseLevel, noise_level
from invdiff.physics import NOTHING, Margins, border
from invdiff.problem import Problem
from invdiff.simulation import simulate

Size = tuple[int, ...]

TORN = 2.0          # energy at a measurement's sides, relative to the strongest of its other rows, see `wraps_around`
SOME_NOISE = 0.02   # below which edges of the image stand out as much as its sides
ROOM = 512          # pixels that an image has more than a measurement smaller than its kernel


class Posed(NamedTuple):
    """The problem, the clean image (1, C, H, W) if it is simulated, and the operator's spec with the boundary that was found.

    spare: rows (above, below) and columns (left, right) of the image beyond the measurement that come of it, and that nobody
    asked for. noise: its level, where that was estimated.
    """

    problem: Problem
    truth: Tensor | None
    operator: dict[str, Any]
    spare: Margins = NOTHING
    noise: NoiseLevel | None = None

    def inner(self, x: Tensor) -> Tensor:
        """The image x (..., H, W) without what is spare."""
        (top, bottom), (left, right) = self.spare
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right].contiguous()


def pose(config: RunConfig) -> Posed:
    """The problem that a config describes. Raises InputError."""
    block = block_side(config.operator)
    if config.input is not None:
        return _measured(config, config.input, block)
    truth = sample_image() if config.truth is None else photo(config.truth)
    if min(truth.shape[-2:]) < block:
        raise InputError(f"{config.truth}: is smaller than one block of {block} x {block} pixels; give a larger image")
    return pose_image(config, truth, config.seed)


def pose_image(config: RunConfig, image: Tensor, seed: int, *, within: bool = False) -> Posed:
    """The problem that a config makes of a clean image (1, C, H, W), cut to whole blocks, with noise of a seed. within: what
    the measurement does not reach is spare, as it is of one in a file. Raises InputError."""
    truth = in_blocks(image, config.operator)
    truth, physics = _of_grey_or_colour(config, truth)
    with faults_told(f"operator {config.operator['name']}: measures no image of {tuple(truth.shape[1:])}"):
        problem = simulate(physics, truth, float(config.sigma_y or 0), seed)
    return Posed(problem, truth, config.operator, border(physics) if within else NOTHING)


def _of_grey_or_colour(config: RunConfig, truth: Tensor) -> tuple[Tensor, Physics]:
    """The operator for a clean image; and that, in three channels if it is grey and the operator is for colour images alone."""
    try:
        return truth, build_operator(config.operator, truth.shape[1:])
    except InputError:
        if truth.shape[1] == 1:
            with suppress(InputError):
                return truth.expand(-1, 3, -1, -1), build_operator(config.operator, (3, *truth.shape[2:]))
        raise


def in_blocks(image: Tensor, operator: dict[str, Any]) -> Tensor:
    """As much of an image (..., H, W) as is whole blocks of an operator's spec."""
    block = block_side(operator)
    height, width = (n // block * block for n in image.shape[-2:])
    return image[..., :height, :width]


def _measured(config: RunConfig, path: str, block: int) -> Posed:
    """The problem of a measurement in a file, for an image of the size that it, or else `size`, tells."""
    name = config.operator["name"]
    if config.size is None and not getattr(known_operators(name)[name], "measures_images", True):
        raise InputError(f"{path}: what {name} measures does not tell the image's size; say it, --set size=[H,W]")
    sums = "" if config.size else "; of what is no image, such as sums of pixels, say the image's size, --set size=[H,W]"
    y = load_array(path) if config.size and Path(path).suffix.lower() == ".npy" else photo(path, sums)
    if config.size is not None:
        sizes = [(channels, *config.size) for channels in (3, 1)]
    else:                   # a grey measurement may be of a colour image
        channels, height, width = y.shape[1:]
        sizes = [(number, height * block, width * block) for number in ((1, 3) if channels == 1 else (channels,))]
    refusals = []
    candidates = [(size, operator) for size in sizes for operator in _candidates(config.operator)]
    for size, operator in candidates:
        try:
            physics = _built(operator, size, y, block, fixed=config.size is not None)
        except InputError as error:
            refusals.append(error)
            continue
        if physics is not None:
            found = _noise_level(config, physics, y)
            problem = Problem(physics, y, found.sigma if found else float(config.sigma_y or 0)).measured()     # for all to see
            if operator == config.operator or config.size is not None:      # for which one boundary alone gives y
                return Posed(problem, None, operator, noise=found)
            if operator["boundary"] == "circular" and wraps_around(problem):
                return Posed(problem, None, operator, noise=found)
            if operator["boundary"] != "circular":
                if isinstance(physics, (operators.PaddedBlur, operators.SeparableBlur)):
                    physics = with_fast_sides(physics)
                    problem = Problem(physics, y, problem.sigma_y).measured()
                return Posed(problem, None, operator, border(physics), found)
    if len(refusals) == len(candidates):
        raise refusals[0]
    advice = (_fitting(candidates, y, block) if config.size else
              "if it is no image, or that of one of another size, say the image's size, --set size=[H,W]")
    raise InputError(f"{path}: holds {tuple(y.shape[1:])}, which {name} does not give for an image of {sizes[0]}; {advice}")


def _candidates(operator: dict[str, Any]) -> list[dict[str, Any]]:
    """The operator's spec, in one way or another where its boundary is to be found."""
    if operator.get("boundary") != FOUND:
        return [operator]
    return [operator | {"boundary": boundary} for boundary in ("circular", "valid")]


def _built(operator: dict[str, Any], size: Size, y: Tensor, block: int, *, fixed: bool) -> Physics | None:
    """The operator for an image of a size (C, H, W), or, unless that is fixed, for one that is larger by what its measurement
    lacks of y: a border that no measurement speaks of. None where it makes other measurements than y. Raises InputError."""
    try:
        physics = build_operator(operator, size)
    except InputError:
        roomy = (size[0], size[1] + ROOM * block, size[2] + ROOM * block)       # a kernel may be larger than y
        with suppress(InputError):
            if not fixed and (grown := _size_for(y, build_operator(operator, roomy), roomy, block)) != size:
                return _built(operator, grown, y, block, fixed=True)
        raise
    if not fixed and (grown := _size_for(y, physics, size, block)) != size:
        return _built(operator, grown, y, block, fixed=True)
    with faults_told(f"operator {operator['name']}: measures no image of {size}"):
        x = y.new_full((1, *size), 0.5)     # one that minds no size gives something for each
        fits = physics.A(x).shape == y.shape
        fits = fits and (not isinstance(physics, LinearPhysics) or physics.A_adjoint(y).shape == x.shape)
    return physics if fits else None


def _size_for(y: Tensor, physics: Physics, size: Size, block: int) -> Size:
    """The size of the image that y is of, by what an operator for images of `size` measures; that, where it does not tell."""
    measured = getattr(physics, "measurement_size", ())
    if len(measured) != 3:
        return size
    return (size[0], *(n + (k - m) * block for n, k, m in zip(size[1:], y.shape[-2:], measured[-2:], strict=True)))


def _fitting(candidates: Sequence[tuple[Size, dict[str, Any]]], y: Tensor, block: int) -> str:
    """What sizes of images y may be of, where it is of none of the candidates'."""
    found = set()
    for size, operator in candidates:
        with suppress(InputError):
            other = _size_for(y, build_operator(operator, size), size, block)
            if _built(operator, other, y, block, fixed=True) is not None:
                found.add(f"size=[{other[1]},{other[2]}]")
    return f"--set {' or '.join(sorted(found))} would fit" if found else "give the size of the image that it is of"


def with_fast_sides(physics: operators.PaddedBlur | operators.SeparableBlur) -> Physics:
    """The blur within borders, of an image whose sides Fourier transforms are fast for, up to three times as fast: it is
    somewhat larger, and the kernel has zeros around it."""
    more = [next_fast_len(n, real=True) - n for n in physics.img_size[1:]]
    before = [(m + k % 2) // 2 for m, k in zip(more, physics.kernel.shape, strict=True)]     # keeps the centre, k // 2
    (top, left), (bottom, right) = before, [m - b for m, b in zip(more, before, strict=True)]
    kernel = functional.pad(physics.kernel, (left, right, top, bottom))
    size = [physics.img_size[0], *(n + m for n, m in zip(physics.img_size[1:], more, strict=True))]
    return operators.blur(size, kernel, "valid", noise_model=physics.noise_model) if any(more) else physics


def wraps_around(problem: Problem) -> bool:
    """Does a measurement (1, C, H, W) look like a circular blur's, which takes an image's left for what is beyond its right?

    That of a photograph has other sides, and a jump from one to the other that no blurred image has. So with the covariance
    K of what the blur makes of images with spectrum 1 / |f|^2, plus noise, the energy of K^-1 y in the rows and columns at
    the sides is far above that in others. It is not where the blur or the noise leave nothing to see of it: of 15 pictures of
    scikit-image, three blurs and sigma_y of 0, 0.02 and 0.05, 15 of 135 that do not wrap around are taken to, mostly textures
    with noise, and 4 of 135 that do are not.
    """
    if not hasattr(problem.physics, "solve_stationary"):
        return True
    y = problem.y - problem.y.mean((-2, -1), keepdim=True)
    height, width = y.shape[-2:]
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    power = 1 / (down.square() + across.square()).clamp_min(1 / max(height, width) ** 2)
    power = (power * y.var() / power.mean()).to(y)
    energy = problem.physics.solve_stationary(power, y, max(problem.sigma_y, SOME_NOISE)).square().mean((0, 1))
    lines = [energy.mean(1), energy.mean(0)]
    return not any(len(e) > 8 and e[[0, -1]].mean() > TORN * e[2:-2].quantile(0.98) for e in lines)


def _noise_level(config: RunConfig, physics: Physics, y: Tensor) -> NoiseLevel | None:
    if config.sigma_y != "auto":
        return None
    if not _is_image(physics, y) or not bool(Problem(physics, y, 0.0).observed().all()):
        raise InputError("sigma_y: auto needs a measurement that is an image without missing pixels; give a number")
    try:
        return noise_level(y, not isinstance(physics, operators.Denoising), config.input)
    except ValueError as error:
        raise InputError(f"sigma_y: auto cannot estimate the noise ({error}); give a number") from error


def _is_image(physics: Physics, y: Tensor) -> bool:
    """A sinogram has the shape of one: the class of its operator has `measures_images = False`."""
    return y.ndim == 4 and getattr(physics, "measures_images", True)


def as_image(problem: Problem) -> Tensor:
    """The measurement to look at, (B, C, h, w): itself where it is an image, its edges repeated up to (H, W) where it is of the
    inner part; else its back-projection."""
    y, (channels, height, width) = problem.y, problem.image_shape
    if _is_image(problem.physics, y) and y.shape[1] in {1, channels} and y.shape[2] <= height and y.shape[3] <= width:
        rows, columns = border(problem.physics)
        return functional.pad(y, (*columns, *rows), mode="replicate") if any((*rows, *columns)) else y
    return problem.estimate()


def photo(path: str, otherwise: str = "") -> Tensor:
    """An image file, (1, C, H, W). Raises InputError, also for values far from [0, 1], with the words `otherwise`."""
    image = load_image(path)
    if float(image.abs().max()) > 4:
        raise InputError(f"{path}: values reach {float(image.abs().max()):g}; expected white to be 1, so divide by the white "
                         f"level{otherwise}")
    return image


