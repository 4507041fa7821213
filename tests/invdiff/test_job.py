"""Jobs: from a config to a problem, and from samples to scores."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deepinv.physics import LinearPhysics, Physics

from invdiff.config import OPERATORS
from invdiff.errors import InputError
from invdiff.evaluation.metrics import enlarged
from invdiff.io.images import load_image, sample_image, save_image, to_uint8
from invdiff.io.results import load_arrays
from invdiff.job import Outcome, as_image, pose, run, score
from invdiff.resolving import run_config
from invdiff.restoration import Result


@pytest.fixture
def photo(tmp_path):
    """A 3 x 21 x 35 photo."""
    path = tmp_path / "photo.png"
    save_image(path, sample_image(size=64)[..., :21, :35])
    return path


def posed(task, *assignments):
    return pose(run_config(task, None, assignments))


def result_of(samples, y, metrics=None):
    return Result(samples, y, {"metrics": metrics or {}})


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


def test_a_truth_is_cropped_to_whole_blocks(photo):
    problem, truth = posed("sr", f"truth={photo}", "operator.factor=4")
    assert truth.shape == (1, 3, 20, 32)
    assert problem.y.shape == (1, 3, 5, 8)
    assert torch.equal(truth, load_image(photo)[..., :20, :32])


def test_an_estimate_to_start_from_is_cropped_as_the_truth_is(photo, tiny_prior):
    given = [f"truth={photo}", "operator.factor=4", f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=1",
             "sampler.steps=2", "sampler.start_sigma=0.1"]
    whole = run(run_config("sr", None, [*given, f"start={photo}"])).result
    blocks = photo.with_name("blocks.png")
    save_image(blocks, load_image(photo)[0, :, :20, :32])
    assert torch.equal(whole.samples, run(run_config("sr", None, [*given, f"start={blocks}"])).result.samples)


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


def test_a_measurement_smaller_than_its_kernel_wants_its_size_said(photo):
    with pytest.raises(InputError, match=r"kernel: expected at most .*; if .* another .*, say --set size=\[H,W\]"):
        posed("deblur", f"input={photo}", "sigma_y=0.1", "operator.boundary=valid", "operator.sigma=5")


def test_a_grey_image_stays_grey(tmp_path):
    np.save(tmp_path / "grey.npy", np.full((16, 20), 0.25))
    problem, truth = posed("denoise", f"truth={tmp_path / 'grey.npy'}")
    assert truth.shape == problem.y.shape == (1, 1, 16, 20)


def test_scores_tell_the_truth_apart():
    truth = sample_image(size=32)
    samples = torch.stack([truth[0], truth[0] + 0.02])[None]
    scores = score(result_of(samples, truth + 0.1), truth + 0.1, truth)
    assert scores["sample"]["psnr"] == float("inf")
    assert scores["restored"]["psnr"] == pytest.approx(40.0, abs=0.3)        # the mean is off by 0.01
    assert scores["measurement"]["psnr"] < 23
    assert scores["sample"]["ssim"] == pytest.approx(1.0)


def test_scores_are_empty_without_a_truth_and_lack_ssim_on_tiny_images():
    truth = sample_image(size=8)
    assert score(result_of(truth[None], truth), truth, None) == {}
    assert set(score(result_of(truth[None], truth), truth, truth)["restored"]) == {"psnr"}


def test_a_small_measurement_is_enlarged_where_its_pixels_lie():
    ramp = torch.linspace(0, 1, 64)
    truth = (ramp[:, None] + ramp[None] ** 2).expand(1, 3, 64, 64) / 2
    small = F.avg_pool2d(truth, 2)
    assert (enlarged(small, truth.shape[-2:]) - truth)[..., 4:-4, 4:-4].abs().max() < 3e-3      # half a pixel is at least 0.004
    assert enlarged(truth, truth.shape[-2:]) is truth


def test_a_measurement_of_the_inner_part_is_seen_where_it_lies(photo, tiny_prior, tmp_path):
    given = [f"truth={photo}", "operator.boundary=valid", "operator.sigma=0.3", "sigma_y=0"]
    problem, truth = posed("deblur", *given)
    margin = (truth.shape[-1] - problem.y.shape[-1]) // 2
    picture = as_image(problem)
    assert margin > 0
    assert picture.shape == truth.shape
    assert torch.equal(picture[..., margin:-margin, margin:-margin], problem.y)
    assert torch.equal(picture[..., 0, :], picture[..., margin, :])                 # the edge, repeated
    outcome = run(run_config("deblur", None, [*given, f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=1",
                                              "sampler.steps=1"]))
    outcome.save(tmp_path / "out")
    assert outcome.report["metrics"] == score(outcome.result, picture, truth)
    kept = load_image(tmp_path / "out" / "measurement.png")                         # to restore from, with nothing added
    assert np.array_equal(to_uint8(kept), to_uint8(problem.y))
    small, _ = posed("sr", f"truth={photo}")
    assert as_image(small) is small.y


def test_noise_that_cannot_be_estimated_is_to_be_given(tmp_path):
    save_image(tmp_path / "tiny.png", sample_image(size=16)[..., :12, :])
    with pytest.raises(InputError, match=r"sigma_y: auto .* at least 16, got \(1, 3, 12, 16\)\); give a number"):
        posed("denoise", f"input={tmp_path / 'tiny.png'}", "sigma_y=auto")


def test_a_figure_has_a_panel_more_with_a_truth():
    truth = sample_image(size=32)
    bare = Outcome(None, result_of(truth[None], truth), truth, None).figure()
    result = result_of(truth[None], truth)
    result.report["metrics"] = score(result, truth, truth)
    assert Outcome(None, result, truth, truth).figure().width > bare.width


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_has_no_spread_to_show(samples, photo, tiny_prior, tmp_path):
    """Zeros in its place would say that the image is certain."""
    config = run_config("denoise", None, [f"truth={photo}", f"prior={tiny_prior(channels=3, centre=0.5)}",
                                          f"samples={samples}", "sampler.steps=2"])
    run(config).save(tmp_path / "out")
    several = samples > 1
    assert (tmp_path / "out" / "std.png").exists() is several
    arrays = load_arrays(tmp_path / "out" / "result.h5")
    assert ({"std", "lower", "upper"} <= set(arrays)) is several
    assert ("std" in arrays) is several


def test_other_priors_tell_how_far_the_mean_is_the_priors(photo, tiny_prior):
    other = tiny_prior(channels=3, centre=-1.0)
    config = run_config("inpaint", None, [f"truth={photo}", f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=2",
                                          "sampler.steps=3", f"other_priors=[{other}]", "operator.keep=0.1"])
    shift = run(config).report["other_priors"][str(other)]
    assert shift["rms"] > 1.5 * shift["expected"] > 0
    sharp = run(config.model_copy(update={"operator": {"name": "denoising"}, "sigma_y": 0.001}))
    assert sharp.report["other_priors"][str(other)]["rms"] < 0.01                # the data leave nothing to it
    with pytest.raises(InputError, match="other_priors: belongs to images"):
        run_config("mri", None, ["other_priors=[natural]"])


class Buckets(Physics):
    """y = (g . x)^2: not linear, no image, and no inverse."""

    def __init__(self, img_size, count: int = 50):
        super().__init__()
        self.img_size, self.measurement_size = tuple(img_size), (count,)
        n = self.img_size[0] * self.img_size[1] * self.img_size[2]
        self.register_buffer("g", torch.randn(count, n, generator=torch.Generator().manual_seed(0)) / n**0.5)

    def A(self, x, **kwargs):
        return (x.flatten(1) @ self.g.T).square()


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
    for name, make in (("buckets", Buckets), ("luma", Luma), ("sums", Sums)):
        monkeypatch.setitem(OPERATORS, name, make)


@pytest.mark.usefixtures("own")
def test_what_is_no_image_and_has_no_inverse_is_seen_by_an_estimate(photo, tiny_prior):
    given = ["operator.name=buckets", f"truth={photo}", f"prior={tiny_prior(channels=3, centre=0.5)}", "sampler.name=dps",
             "sampler.steps=2", "samples=1"]
    outcome = run(run_config("denoise", None, given))
    assert outcome.picture.shape == (1, 3, 21, 35)
    assert outcome.picture.isfinite().all()


@pytest.mark.usefixtures("own")
def test_a_grey_measurement_of_one_who_minds_no_size_is_a_colour_image_s(photo, tmp_path):
    y, truth = posed("denoise", f"truth={photo}", "operator.name=luma", "operator.factor=0.5")
    assert truth.shape == (1, 3, 21, 35)                # factor is this operator's own, and divides no image
    np.save(tmp_path / "y.npy", y.y[0].numpy())
    again, _ = posed("denoise", f"input={tmp_path / 'y.npy'}", "sigma_y=0.1", "operator.name=luma")
    assert again.image_shape == (3, 21, 35)
    assert torch.equal(again.y, y.y)


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
