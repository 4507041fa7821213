"""Sampling masks: fastMRI's bit for bit, densities, distances and accelerations that hold exactly."""

import hashlib
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.mri import sampling

FASTMRI = {
    "random_lines": "RandomMaskFunc",
    "equispaced_lines": "EquiSpacedMaskFunc",
    "equispaced_fraction_lines": "EquispacedMaskFractionFunc",
    "magic_lines": "MagicMaskFunc",
}
SEEDS = (0, 1, 42, 2**32 - 1, tuple(map(ord, "file1000000.h5")))
WIDTHS = (320, 368, 372, 33)
GOLDEN = {  # by fastmri 0.3.0: the beginning of the SHA-256 of the masks of all SEEDS, packed, for each of WIDTHS
    ("random_lines", 4, 0.08): ["4ea12028837b", "c96cb4864424", "525cb331f24c", "38020297c60b"],
    ("random_lines", 8, 0.04): ["6e0bedd113b8", "3b27e89cb11a", "f509ac2a131b", "78b0e46e45fb"],
    ("equispaced_lines", 4, 0.08): ["dbf18a17c744", "2f1f76b7a4e7", "b9e91bcbad0a", "10950232bfa0"],
    ("equispaced_lines", 8, 0.04): ["1beaba6d8f87", "1c9be1d199e1", "fa3df905004b", "3ab3365a2744"],
    ("equispaced_fraction_lines", 4, 0.08): ["b65a8fd54637", "c9452492648e", "5968198d8867", "2eb36ae5b9cd"],
    ("equispaced_fraction_lines", 8, 0.04): ["cc0be80dd965", "9ea660c96c61", "0afdb272a845", "85713e93be29"],
    ("magic_lines", 4, 0.08): ["6d2402bc9cd3", "2c98d3a2b0fa", "678edc789af9", "e538c3477910"],
    ("magic_lines", 8, 0.04): ["fde9c895a9e1", "e6c3cfcb3aae", "3ab19e45e1c0", "e8e3d6078a26"],
}
GOLDEN_COLUMNS = {  # by fastmri 0.3.0: width 33, acceleration 4, center_fraction 0.08, seed 42
    "random_lines": [4, 5, 6, 10, 15, 16, 17, 21, 29, 31, 32],
    "equispaced_lines": [2, 6, 10, 14, 15, 16, 17, 18, 22, 26, 30],
    "equispaced_fraction_lines": [3, 9, 14, 15, 16, 17, 20, 26, 32],
    "magic_lines": [3, 7, 11, 15, 16, 17, 19, 23, 27, 31],
}
SEEDED = {  # every function that draws, on a grid (H, W)
    **{name: getattr(sampling, name) for name in [*FASTMRI, "gaussian_lines"]},
    "gaussian_points": partial(sampling.gaussian_points, calib=4),
    "poisson_disc": partial(sampling.poisson_disc, calib=4),
    "radial_lines": partial(sampling.radial_lines, spokes=7),
    "radial_lines, acceleration": partial(sampling.radial_lines, acceleration=4, golden=False),
}
ALL = SEEDED | {
    "partial_fourier": sampling.partial_fourier,
    "caipi": partial(sampling.caipi, calib=3),
    "center_block": partial(sampling.center_block, calib=1),
}
SIZES = [(32, 40), (33, 41), (40, 33), (17, 64)]


def columns(mask):
    return np.flatnonzero(mask[0].numpy()).tolist()


def offsets(n):
    return np.arange(n) - n // 2


@pytest.mark.parametrize(("name", "acceleration", "fraction"), GOLDEN)
def test_masks_are_those_that_fastmri_made(name, acceleration, fraction):
    for width, digest in zip(WIDTHS, GOLDEN[name, acceleration, fraction], strict=True):
        masks = [getattr(sampling, name)((2, width), acceleration, fraction, seed)[1].numpy() for seed in SEEDS]
        assert hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()[:12] == digest, width


@pytest.mark.parametrize("name", GOLDEN_COLUMNS)
def test_columns_are_those_that_fastmri_chose(name):
    mask = getattr(sampling, name)((5, 33), 4, 0.08, 42)
    assert columns(mask) == GOLDEN_COLUMNS[name]
    assert (mask == mask[0]).all()


@pytest.mark.parametrize("name", FASTMRI)
def test_masks_are_those_of_the_fastmri_package(name):
    rules = pytest.importorskip("fastmri.data.subsample", reason="the package fastmri is not installed")
    for width in (*WIDTHS, 17, 64):
        for acceleration, fraction in [(2, 0.16), (4, 0.08), (5, 0.0), (8, 0.04)]:
            rule = getattr(rules, FASTMRI[name])([fraction], [acceleration])
            for seed in SEEDS:
                for offset in [{}] if name == "random_lines" else [{}, {"offset": 0}, {"offset": 1}]:
                    theirs, lines = rule((3, width, 2), seed=seed, **offset)
                    ours = getattr(sampling, name)((3, width), acceleration, fraction, seed, **offset)
                    assert columns(ours) == np.flatnonzero(theirs.flatten().numpy()).tolist()
                    assert sampling.report(ours)["center"][1] >= lines


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ALL)
def test_a_mask_is_bool_and_holds_the_origin(name, size):
    mask = ALL[name](size)
    assert mask.shape == size
    assert mask.dtype == torch.bool
    assert mask.is_contiguous()
    assert mask[size[0] // 2, size[1] // 2]
    assert torch.equal(mask, ALL[name](size))
    mask[:] = False  # memory of its own, row by row
    assert ALL[name](size).any()


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_alone_decides(name):
    draw = partial(SEEDED[name], (33, 40))
    masks = [draw(seed=seed) for seed in range(8)]
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(draw(seed=0), draw())
    assert all(torch.equal(draw(seed=seed), mask) for seed, mask in enumerate(masks))
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert len({mask.numpy().tobytes() for mask in masks}) > 1


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_the_block_in_the_middle_is_as_even_as_can_be(height, width, data):
    calib = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    block = sampling.center_block((height, width), calib)
    assert sampling.report(block) == {
        "acceleration": height * width / math.prod(calib), "kept": math.prod(calib), "total": height * width, "center": calib,
    }  # fmt: skip
    assert block[height // 2, width // 2]
    for axis, n in enumerate((height, width)):
        kept = np.flatnonzero(block.any(1 - axis).numpy()) - n // 2
        assert kept[-1] - kept[0] + 1 == calib[axis]
        assert abs(kept[-1] + kept[0]) <= 1


@given(st.integers(8, 48), st.integers(8, 48), st.floats(1.3, 12), st.integers(0, 5), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_densities_meet_the_acceleration_exactly(height, width, acceleration, calib, seed):
    count = round(height * width / acceleration)
    if calib**2 <= count:
        block = sampling.center_block((height, width), calib)
        for mask in [
            sampling.gaussian_points((height, width), acceleration, calib, seed),
            sampling.poisson_disc((height, width), acceleration, calib, seed, corners=True),
        ]:
            assert mask.sum() == count
            assert mask[block].all()
    lines = sampling.gaussian_lines((height, width), acceleration, 0.08, seed)
    assert len(columns(lines)) == round(width / acceleration)
    assert (lines == lines[0]).all()


@pytest.mark.parametrize("acceleration", [4, 6, 8])
def test_lines_that_pay_for_the_centre_meet_the_acceleration(acceleration):
    def mean(function):
        return np.mean([len(columns(function((1, 320), acceleration, 0.08, seed))) for seed in range(400)])

    spread = math.sqrt(320 / acceleration)  # above the standard deviation of the number of columns
    assert abs(mean(sampling.random_lines) - 320 / acceleration) < 4 * spread / math.sqrt(400)
    assert mean(sampling.equispaced_fraction_lines) == pytest.approx(320 / acceleration, rel=0.05)
    assert sampling.report(sampling.random_lines((2, 320), acceleration, 0.08))["center"][1] >= 26


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_a_gaussian_draw_has_gaussian_probabilities(spread):
    draws, n = 3000, 15
    weights = np.exp(-0.5 * (offsets(n) / (spread * n)) ** 2)
    expected = draws * weights / weights.sum()
    seen = sum(sampling.gaussian_lines((1, n), n, 0.0, seed, spread)[0].numpy() for seed in range(draws))
    common = expected > 5
    chi_squared = ((seen - expected)[common] ** 2 / expected[common]).sum()
    assert chi_squared < common.sum() + 4 * math.sqrt(2 * common.sum())
    assert seen[~common].sum() < expected[~common].sum() + 4 * math.sqrt(expected[~common].sum() + 1)


@pytest.mark.parametrize("shape", [(64, 64), (65, 48)])
def test_a_spoke_is_a_thin_line_through_the_origin(shape):
    first, two = (sampling.radial_lines(shape, spokes=n, seed=3).numpy() for n in (1, 2))
    assert first[two].sum() == first.sum()  # golden angles: a spoke more leaves the others where they are
    angles = []
    for mask in (first, two & ~first):
        y, x = (np.argwhere(mask) - [n // 2 for n in shape]).T
        angle = math.atan2(*np.linalg.svd(np.stack([y / shape[0], x / shape[1]]))[0][:, 0])  # in units of the field of view
        off = np.abs(np.sin(angle) * shape[0] * x - np.cos(angle) * shape[1] * y)
        assert (off <= 0.6 * max(abs(np.sin(angle)) * shape[0], abs(np.cos(angle)) * shape[1])).all()  # 0.5, and the fit
        assert np.hypot(y / shape[0], x / shape[1]).max() == pytest.approx(0.5, abs=0.02)
        assert len(y) <= max(shape)
        angles.append(math.degrees(angle))
    assert (angles[1] - angles[0]) % 180 == pytest.approx(111.25, abs=1.5)


@pytest.mark.parametrize("golden", [True, False])
@pytest.mark.parametrize("acceleration", [1.5, 4, 10.0])
def test_spokes_come_as_near_to_the_acceleration_as_one_spoke_can(acceleration, golden):
    for shape in [(128, 128), (97, 120)]:
        mask = sampling.radial_lines(shape, acceleration, golden=golden)
        assert abs(int(mask.sum()) - math.prod(shape) / acceleration) <= max(shape) / 2
        inner = mask[1:, 1:] if shape[0] % 2 == 0 else mask[:, 1:]  # without the frequencies that have no mirror image
        assert torch.equal(inner, inner.flip(0, 1))


def test_spokes_end_at_the_ellipse_or_run_to_the_corners():
    assert sampling.radial_lines((32, 32), 1.0, corners=True).all()
    y, x = np.ix_(offsets(32), offsets(32))
    assert np.array_equal(sampling.radial_lines((32, 32), spokes=256).numpy(), np.hypot(y, x) <= 16)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("reverse", [False, True])
def test_partial_fourier_keeps_one_of_each_conjugate_pair(size, axis, reverse):
    mask = sampling.partial_fourier(size, 0.7, axis, reverse)
    lines = mask.movedim(axis, 0)
    n = size[axis]
    assert (lines == lines[:, :1]).all()
    assert lines[:, 0].sum() == round(0.7 * n)
    assert lines[n - 1, 0] == reverse
    assert lines[0, 0] != reverse
    mirror = [(2 * (n // 2) - i) % n for i in range(n)]
    assert (lines | lines[mirror])[reverse and n % 2 == 0 :].all()  # -n / 2, which has no mirror image, is the last to go


@pytest.mark.parametrize(("factors", "shift"), [((2, 2), 1), ((3, 3), 1), ((2, 4), 2), ((1, 3), 2), ((2, 2), 0)])
def test_caipi_folds_the_image_onto_shifted_copies(factors, shift):
    ry, rz = factors
    shape = 12 * ry, 12 * rz
    mask = sampling.caipi(shape, factors, shift, calib=0)
    assert sampling.achieved_acceleration(mask) == ry * rz
    spread = torch.fft.fft2(torch.fft.ifftshift(mask.double())).abs() / mask.sum()  # the point spread function
    peaks = {tuple(peak) for peak in (spread > 1e-9).nonzero().tolist()}
    expected = set()  # Breuer et al. 2006: kz aliases lie at m / rz, moved along y by m · shift / (ry · rz)
    for m in range(rz):
        for j in range(ry):
            y = shape[0] * (j / ry - m * shift / (ry * rz))
            expected.add((round(y) % shape[0], shape[1] * m // rz))
    assert peaks == expected
    block = sampling.center_block(shape, (5, 6))
    assert torch.equal(sampling.caipi(shape, factors, shift, calib=(5, 6)), mask | block)


@pytest.mark.parametrize("function", [sampling.equispaced_lines, sampling.equispaced_fraction_lines])
def test_interleaved_frames_cover_k_space_together(function):
    masks = sampling.dynamic(partial(function, (3, 37), 4, 0.0), frames=9, interleave=True)
    assert masks.shape == (9, 3, 37)
    for t in range(6):
        covered = masks[t : t + 4, 0, :-1].sum(0)  # the fraction's rule may leave the last column out
        assert (covered == 1).all()


def test_frames_have_seeds_of_their_own():
    draw = partial(sampling.gaussian_points, (20, 24), 3, 4)
    masks = sampling.dynamic(draw, frames=6, seed=1)
    assert len({mask.numpy().tobytes() for mask in masks}) == 6
    assert torch.equal(sampling.dynamic(draw, frames=3, seed=1), masks[:3])
    assert not torch.equal(sampling.dynamic(draw, frames=6, seed=0), masks)
    assert sampling.achieved_acceleration(masks) == pytest.approx(3)
    report = sampling.report(masks)
    assert report["total"] == 6 * 480
    assert report["center"] >= (4, 4)
    with pytest.raises(TypeError, match="offset"):
        sampling.dynamic(draw, frames=2, interleave=True)


def test_the_report_finds_the_block_that_is_whole():
    mask = sampling.equispaced_lines((6, 40), 4, 0.1, offset=1)
    assert columns(mask) == [1, 5, 9, 13, 17, 18, 19, 20, 21, 25, 29, 33, 37]
    assert sampling.report(mask) == {"acceleration": 40 / 13, "kept": 78, "total": 240, "center": (6, 4)}
    assert sampling.report(mask.T)["center"] == (4, 6)
    mask[3, 20] = False
    assert sampling.report(mask)["center"] == (0, 0)
    assert sampling.report(mask.float())["kept"] == 77


def test_the_whole_of_k_space_may_be_asked_for():
    for name in ("random_lines", "equispaced_lines", "gaussian_lines"):
        assert getattr(sampling, name)((3, 16), 1, 0.1).all()
    assert sampling.random_lines((3, 16), 1, 1.0).all()
    assert sampling.gaussian_points((6, 5), 1, 2).all()
    assert sampling.poisson_disc((6, 5), 1, 2, corners=True).all()
    assert sampling.poisson_disc((6, 5), 30 / 4, 2).sum() == 4  # and nothing but the block
    assert sampling.poisson_disc((1, 1), 1, 0).all()
    assert sampling.equispaced_fraction_lines((2, 100), 10, 0.1).sum() == 20  # the same, where fastMRI divides by zero
