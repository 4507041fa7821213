"""The problem that a config describes: images degraded, measurements in files, and the operators that fit them."""

import json

import numpy as np
import pytest
import torch
from deepinv.physics import LinearPhysics
from scipy.fft import next_fast_len

import operators
from invdiff.config import OPERATORS, build_operator
from invdiff.errors import InputError
from invdiff.io.images import load_image, sample_image, save_image
from invdiff.posing import as_image, pose, with_fast_sides
from invdiff.resolving import run_config
from invdiff.simulation import simulate


def posed(task, *assignments):
    return pose(run_config(task, None, assignments))[:2]


def test_without_input_or_truth_a_bundled_photo_is_degraded():
    problem, truth = posed("deblur")
    assert truth.shape == (1, 3, 256, 256)
    noise = problem.y - problem.physics.A(truth)
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)
    assert problem.sigma_y == pytest.approx(0.02)


def test_the_seed_decides_the_noise(photo):
    y, again, other = (posed("denoise", f"truth={photo}", f"seed={seed}")[0].y for seed in (0, 0, 1))
    assert torch.equal(y, again)
    assert not torch.equal(y, other)


def test_sigma_y_zero_is_noiseless(photo):
    problem, truth = posed("deblur", f"truth={photo}", "sigma_y=0")
    assert torch.equal(problem.y, problem.physics.A(truth))


def test_missing_pixels_stay_zero(photo):
    problem, _ = posed("inpaint", f"truth={photo}")
    assert (problem.y == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_grey_truth_is_a_colour_image_where_the_operator_is_for_those_alone(tmp_path):
    save_image(tmp_path / "grey.png", torch.rand(1, 16, 16))
    posed = pose(run_config("denoise", None, ["operator=colorization", f"truth={tmp_path / 'grey.png'}"]))
    assert posed.truth.shape == (1, 3, 16, 16)
    assert posed.problem.y.shape == (1, 1, 16, 16)


def test_a_truth_is_cropped_to_whole_blocks(photo):
    problem, truth = posed("sr", f"truth={photo}", "operator.factor=4")
    assert truth.shape == (1, 3, 20, 32)
    assert problem.y.shape == (1, 3, 5, 8)
    assert torch.equal(truth, load_image(photo)[..., :20, :32])


def test_a_measurement_is_restored_at_factor_times_its_size(photo):
    problem, truth = posed("sr", f"input={photo}", "sigma_y=0.01", "operator.factor=3")
    assert truth is None
    assert problem.image_shape == (3, 63, 105)
    assert torch.equal(problem.y, load_image(photo))


def test_a_truth_smaller_than_a_block_is_refused(photo):
    with pytest.raises(InputError, match="smaller than one block of 32 x 32"):
        posed("sr", f"truth={photo}", "operator.factor=32")


def test_an_array_of_counts_is_refused(tmp_path):
    np.save(tmp_path / "counts.npy", np.full((16, 16), 200.0))
    with pytest.raises(InputError, match="values reach 200; expected white to be 1"):
        posed("deblur", f"input={tmp_path / 'counts.npy'}", "sigma_y=0.1")


def test_what_is_no_image_wants_its_size_said_and_an_image_may_have_it(photo, tmp_path):
    y, _ = posed("cs", f"truth={photo}", "operator.name=gaussian_sensing", "operator.rate=0.1")
    np.save(tmp_path / "sums.npy", 10 * y.y[0].numpy())
    given = [f"input={tmp_path / 'sums.npy'}", "sigma_y=0.1", "operator.name=gaussian_sensing", "operator.rate=0.1"]
    with pytest.raises(InputError, match=r"say the image's size, --set size=\[H,W\]"):
        posed("cs", *given)
    assert posed("cs", *given, f"size=[{y.image_shape[1]},{y.image_shape[2]}]")[0].image_shape == y.image_shape
    height, width = load_image(photo).shape[-2:]
    for size in ((), (f"size=[{height + 16},{width + 16}]",)):         # which is found without a word
        larger, _ = posed("deblur", f"input={photo}", "sigma_y=0.1", "operator.boundary=valid", *size)
        assert larger.image_shape == (3, height + 16, width + 16)
        assert torch.equal(larger.y, load_image(photo))


@pytest.mark.parametrize("boundary", ["valid", "auto"])
def test_a_measurement_may_be_smaller_than_its_kernel(boundary, photo):
    given = [f"input={photo}", "sigma_y=0.1", f"operator.boundary={boundary}", "operator.sigma=5"]
    y, _ = posed("deblur", *given)
    height, width = load_image(photo).shape[-2:]
    border = y.image_shape[1] - height
    assert border >= height
    fast = next_fast_len(width + border, real=True) if boundary == "auto" else width + border
    assert y.image_shape == (3, height + border, fast)


def test_a_refusal_says_what_helps(photo, tmp_path):
    save_image(tmp_path / "mask.png", torch.ones(1, 8, 8))
    given = [f"input={photo}", "sigma_y=0.1"]
    for task, more in (("deblur", ["operator.boundary=circular", "operator.sigma=5"]),
                       ("inpaint", ["operator.name=mask_inpainting", f"operator.mask={tmp_path / 'mask.png'}"])):
        with pytest.raises(InputError, match=r"kernel|mask") as refused:
            posed(task, *given, *more)
        assert "size=" not in str(refused.value)
    height, width = load_image(photo).shape[-2:]
    for task, more, fitting in (("deblur", ["operator.boundary=valid"], (height + 16, width + 16)),
                                ("sr", ["operator.factor=2"], (2 * height, 2 * width))):
        with pytest.raises(InputError, match=rf"--set size=\[{fitting[0]},{fitting[1]}\] would fit"):
            posed(task, *given, *more, "size=[48,64]")
    np.save(tmp_path / "y.npy", np.full((1, 3, 200), 0.2))
    with pytest.raises(InputError, match=r"holds \(1, 3, 200\), which .* if it is no image, .*, --set size"):
        posed("cs", f"input={tmp_path / 'y.npy'}", "sigma_y=0.1")


def test_what_was_not_measured_is_not_shown(photo, tmp_path):
    """A photograph with nothing missing, and a mask."""
    mask = torch.ones(1, *load_image(photo).shape[-2:])
    mask[..., :10] = 0
    save_image(tmp_path / "mask.png", mask)
    problem, _ = posed("inpaint", f"input={photo}", "sigma_y=0.1", "operator.name=mask_inpainting",
                       f"operator.mask={tmp_path / 'mask.png'}")
    assert torch.equal(as_image(problem), load_image(photo) * mask)
    assert torch.equal(problem.y, as_image(problem))


def test_a_grey_image_stays_grey(tmp_path):
    np.save(tmp_path / "grey.npy", np.full((16, 20), 0.25))
    problem, truth = posed("denoise", f"truth={tmp_path / 'grey.npy'}")
    assert truth.shape == problem.y.shape == (1, 1, 16, 20)


def test_noise_that_cannot_be_estimated_is_to_be_given(tmp_path):
    save_image(tmp_path / "tiny.png", sample_image(size=16)[..., :12, :])
    with pytest.raises(InputError, match=r"sigma_y: auto .* at least 16, got \(1, 3, 12, 16\)\); give a number"):
        posed("denoise", f"input={tmp_path / 'tiny.png'}", "sigma_y=auto")


class Luma(LinearPhysics):
    """The mean of three channels, by one who minds no size and tells none of the measurement."""

    weights = torch.full((3, 1, 1), 1 / 3)

    def __init__(self, size, factor: float = 1.0):
        super().__init__(img_size=tuple(size))
        self.gain = factor

    def A(self, x, **kwargs):
        return self.gain * (x * self.weights).sum(1, keepdim=True)

    def A_adjoint(self, y, **kwargs):
        return self.gain * y * self.weights


class Sums(LinearPhysics):
    """Of columns and of rows, (B, C, 2, W) of a square image: as a sinogram, of an image's shape."""

    measures_images = False

    def __init__(self, img_size):
        super().__init__(img_size=tuple(img_size))

    def A(self, x, **kwargs):
        return torch.stack([x.mean(-2), x.mean(-1)], -2)

    def A_adjoint(self, y, **kwargs):
        rows, columns = y.unbind(-2)
        return (rows[..., None, :] + columns[..., None]) / y.shape[-1]


@pytest.fixture
def own(monkeypatch):
    for name, make in (("luma", Luma), ("sums", Sums)):
        monkeypatch.setitem(OPERATORS, name, make)


@pytest.mark.usefixtures("own")
def test_a_grey_measurement_of_one_who_minds_no_size_is_a_colour_image_s(photo, tmp_path):
    y, truth = posed("denoise", f"truth={photo}", "operator.name=luma", "operator.factor=0.5")
    assert truth.shape == (1, 3, 21, 35)                # factor is this operator's own, and divides no image
    np.save(tmp_path / "y.npy", y.y[0].numpy())
    again, _ = posed("denoise", f"input={tmp_path / 'y.npy'}", "sigma_y=0.1", "operator.name=luma")
    assert again.image_shape == (3, 21, 35)
    assert torch.equal(again.y, y.y)


def test_an_operator_of_one_s_own_may_call_anything_its_border(tmp_path, monkeypatch):
    class Framed(operators.Denoising):
        def __init__(self, size, border: int = 5):
            super().__init__(size)
            self.border = border

    monkeypatch.setitem(OPERATORS, "framed", Framed)
    np.save(tmp_path / "grey.npy", np.full((16, 20), 0.25))
    problem, _ = posed("denoise", f"truth={tmp_path / 'grey.npy'}", "operator.name=framed", "sigma_y=0.1")
    assert as_image(problem).shape == (1, 1, 16, 20)
    np.save(tmp_path / "y.npy", problem.y[0].numpy())
    assert posed("denoise", f"input={tmp_path / 'y.npy'}", "operator.name=framed", "sigma_y=0.1")[0].size == (16, 20)


def test_an_operator_that_cannot_measure_the_image_says_so(tmp_path, monkeypatch):
    class Mixing(Luma):
        def A(self, x, **kwargs):
            return (torch.eye(3) @ x.flatten(2)).unflatten(2, x.shape[2:])

    monkeypatch.setitem(OPERATORS, "mixing", Mixing)
    np.save(tmp_path / "grey.npy", np.full((16, 20), 0.25))
    with pytest.raises(InputError, match=r"operator mixing: measures no image of \(1, 16, 20\): "):
        posed("denoise", f"truth={tmp_path / 'grey.npy'}", "operator.name=mixing")
    with pytest.raises(InputError, match=r"holds \(1, 16, 20\), which mixing does not give"):
        posed("denoise", f"input={tmp_path / 'grey.npy'}", "operator.name=mixing", "sigma_y=0.1")


@pytest.mark.usefixtures("own")
def test_what_only_looks_like_an_image_is_none(tmp_path):
    np.save(tmp_path / "square.npy", np.full((16, 16), 0.25))
    problem, _ = posed("denoise", f"truth={tmp_path / 'square.npy'}", "operator.name=sums")
    assert problem.y.shape == (1, 1, 2, 16)
    assert as_image(problem).shape == (1, 1, 16, 16)
    np.save(tmp_path / "y.npy", problem.y[0].numpy())
    given = ["denoise", f"input={tmp_path / 'y.npy'}", "operator.name=sums"]
    with pytest.raises(InputError, match=r"what sums measures does not tell the image's size; say it, --set size=\[H,W\]"):
        posed(*given, "sigma_y=0.1")
    assert posed(*given, "sigma_y=0.1", "size=[16,16]")[0].image_shape == (1, 16, 16)
    with pytest.raises(InputError, match="sigma_y: auto needs a measurement that is an image"):
        posed(*given, "sigma_y=auto", "size=[16,16]")


@pytest.fixture(scope="module")
def scene():
    return sample_image(size=160)


KERNELS = {"gaussian_blur": {"sigma": 1.6}, "motion_blur": {"size": 15, "seed": 1}, "defocus_blur": {"radius": 3.0}}


@pytest.mark.parametrize("sigma_y", [0.0, 0.02])
@pytest.mark.parametrize("boundary", ["circular", "valid", "replicate"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_measurement_tells_whether_its_blur_wraps_around(name, boundary, sigma_y, scene, tmp_path):
    spec = {"name": name, **KERNELS[name]}
    y = simulate(build_operator(spec | {"boundary": boundary}, scene.shape[1:]), scene, sigma_y).y
    save_image(tmp_path / "y.png", y[0])
    given = [f"operator={json.dumps(spec)}", f"input={tmp_path / 'y.png'}", f"sigma_y={sigma_y}"]
    found = pose(run_config("deblur", None, given))
    assert found.operator["boundary"] == ("circular" if boundary == "circular" else "valid")
    spare = [sum(margin) for margin in found.spare]
    sides = found.problem.image_shape[1:]
    assert boundary == "circular" or tuple(sides) == tuple(next_fast_len(n, real=True) for n in sides)
    assert found.problem.image_shape == (3, y.shape[-2] + spare[0], y.shape[-1] + spare[1])
    assert (sum(spare) == 0) == (boundary == "circular")


@pytest.mark.parametrize("size", [(37, 46), (38, 43), (36, 48)])
@pytest.mark.parametrize("kernel", [(5, 5), (4, 4), (5, 4), (3, 8)])
def test_an_image_with_fast_sides_has_the_same_measurement(kernel, size):
    generator = torch.Generator().manual_seed(0)
    plain = operators.blur((2, *size), torch.rand(kernel, generator=generator), "valid")
    larger = with_fast_sides(plain)
    assert larger.img_size[1:] == (40 if size[0] > 36 else 36, 48 if size[1] != 43 else 45)
    x = torch.rand(1, *larger.img_size, generator=generator)
    top, left = (more - less for (more, _), (less, _) in zip(larger.border, plain.border, strict=True))
    torch.testing.assert_close(larger.A(x), plain.A(x[..., top : top + size[0], left : left + size[1]]))


def test_a_boundary_is_found_unless_it_is_said(photo):
    given = [f"input={photo}", "sigma_y=0.02"]
    assert run_config("deblur", None, given).operator["boundary"] == "auto"
    assert run_config("deblur", None, [*given, "operator.boundary=reflect"]).operator["boundary"] == "reflect"
    for simulated in ([], [f"truth={photo}"], ["operator.boundary=auto"]):
        assert run_config("deblur", None, simulated).operator["boundary"] == "circular"
    y, _ = posed("deblur", *given, "operator.sigma=0.3", "size=[25,39]")        # 21 x 35, and nothing else gives that
    assert y.image_shape == (3, 25, 39)
    same = pose(run_config("deblur", None, [*given, "operator.sigma=0.3", "size=[21,35]"]))
    assert (same.operator["boundary"], same.spare) == ("circular", [(0, 0), (0, 0)])


def test_a_boundary_of_other_words_is_its_operator_s(photo, monkeypatch):
    def own(size, boundary: str = "nearest"):
        return operators.blur(size, operators.gaussian_kernel(0.3), {"nearest": "replicate"}[boundary])

    monkeypatch.setitem(OPERATORS, "own", own)
    found = pose(run_config("deblur", None, [f"input={photo}", "sigma_y=0.02", "operator.name=own"]))
    assert found.operator == {"name": "own", "boundary": "nearest"}


@pytest.mark.parametrize("shape", [(16, 16), (7, 40), (5, 9)])
def test_a_measurement_without_anything_on_it_meets_at_its_sides(shape, tmp_path):
    np.save(tmp_path / "grey.npy", np.full(shape, 0.25))
    found = pose(run_config("deblur", None, [f"input={tmp_path / 'grey.npy'}", "sigma_y=0", "operator.sigma=0.3"]))
    assert found.operator["boundary"] == "circular"
