"""Jobs: from a config to a problem, and from samples to scores."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deepinv.physics import Physics
from PIL import Image

from invdiff.config import OPERATORS, build_operator
from invdiff.errors import InputError
from invdiff.evaluation.metrics import enlarged
from invdiff.io.images import load_image, sample_image, save_image, to_uint8
from invdiff.io.results import load_arrays
from invdiff.job import Outcome, run, score
from invdiff.posing import as_image, pose
from invdiff.resolving import run_config
from invdiff.restoration import Stop
from invdiff.result import Result
from invdiff.simulation import simulate


def result_of(samples, y, metrics=None):
    return Result(samples, y, {"metrics": metrics or {}})


def test_an_estimate_to_start_from_is_cropped_as_the_truth_is(photo, tiny_prior):
    given = [f"truth={photo}", "operator.factor=4", f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=1",
             "sampler.steps=2", "sampler.start_sigma=0.1"]
    whole = run(run_config("sr", None, [*given, f"start={photo}"])).result
    blocks = photo.with_name("blocks.png")
    save_image(blocks, load_image(photo)[0, :, :20, :32])
    assert torch.equal(whole.samples, run(run_config("sr", None, [*given, f"start={blocks}"])).result.samples)


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
    problem, truth, *_ = pose(run_config("deblur", None, given))
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
    small = pose(run_config("sr", None, [f"truth={photo}"])).problem
    assert as_image(small) is small.y


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


def test_what_is_no_image_and_has_no_inverse_is_seen_by_an_estimate(photo, tiny_prior, monkeypatch):
    monkeypatch.setitem(OPERATORS, "buckets", Buckets)
    given = ["operator.name=buckets", f"truth={photo}", f"prior={tiny_prior(channels=3, centre=0.5)}", "sampler.name=dps",
             "sampler.steps=2", "samples=1"]
    outcome = run(run_config("denoise", None, given))
    assert outcome.picture.shape == (1, 3, 21, 35)
    assert outcome.picture.isfinite().all()


def test_a_photograph_that_was_blurred_is_restored_at_its_own_size(tiny_prior, tmp_path):
    """What its borders took in is restored and cut off; taken for a circle's, there is ringing at its sides."""
    x = sample_image(size=128)
    spec = {"name": "gaussian_blur", "sigma": 1.6, "angle": 0.0, "boundary": "valid"}
    y = simulate(build_operator(spec, x.shape[1:]), x, 0.01).y
    np.save(tmp_path / "y.npy", y[0].numpy())
    save_image(tmp_path / "start.png", y[0])
    given = [f"input={tmp_path / 'y.npy'}", "sigma_y=0.01", f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=2"]
    errors = {}
    for name, more in (("auto", [f"start={tmp_path / 'start.png'}", "sampler.start_sigma=1"]),
                       ("circular", ["operator.boundary=circular"])):
        outcome = run(run_config("deblur", None, [*given, *more, "sampler.steps=5"]))
        assert {tuple(image.shape[-2:]) for image in (outcome.picture, outcome.result.samples, outcome.provenance.prior,
                                                      outcome.provenance.measured, *outcome.bounds)} == {(112, 112)}
        errors[name] = float((outcome.result.mean - x[..., 8:-8, 8:-8]).square().mean().sqrt())
        assert ("boundary" in outcome.report) == (name == "auto")
        if name == "auto":
            assert outcome.report["boundary"]["found"] == "valid"
            assert outcome.report["provenance"]["prior"] == outcome.provenance.shares["prior"]
            lower, upper = outcome.bounds
            assert outcome.report["interval"]["half_width"] == pytest.approx(float((upper - lower).mean() / 2), rel=1e-4)
            outcome.save(tmp_path / "out")
            assert run_config(None, tmp_path / "out" / "config.yaml").operator["boundary"] == "auto"
    assert 2 * errors["auto"] < errors["circular"]


def save_in_colour(path, size=24):
    """A grey photo in three equal channels."""
    grey = to_uint8(sample_image(size=size).mean(1, keepdim=True))
    Image.fromarray(np.stack([grey] * 3, -1)).save(path)
    return path


def test_a_grey_photo_stored_in_colour_is_restored_as_the_grey_one(tmp_path, tiny_prior):
    colour, grey = save_in_colour(tmp_path / "scan.png"), tmp_path / "grey.png"
    Image.open(colour).convert("L").save(grey)
    given = [f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=2", "sampler.steps=2"]
    for key, more in (("truth", []), ("input", ["sigma_y=0.1"])):
        with pytest.warns(UserWarning, match=r"scan.png: its three channels are equal, so it is taken for grey"):
            got = run(run_config("denoise", None, [*given, *more, f"{key}={colour}"]))
        assert got.result.samples.shape == (1, 2, 1, 24, 24)
        same = run(run_config("denoise", None, [*given, *more, f"{key}={grey}"]))
        assert torch.equal(got.result.samples, same.result.samples)
        assert (got.truth is None) == (key == "input")


@pytest.mark.filterwarnings("ignore:.*three channels are equal")
def test_an_estimate_in_equal_channels_starts_a_colour_image(photo, tmp_path, tiny_prior):
    start = tmp_path / "start.png"
    Image.fromarray(np.full((21, 35, 3), 128, np.uint8)).save(start)
    given = [f"truth={photo}", f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=1", "sampler.steps=1",
             "sampler.start_sigma=0.1", f"start={start}"]
    assert run(run_config("denoise", None, given)).result.samples.shape[2] == 3


@pytest.mark.parametrize(("task", "assumed"), [("denoise", "the noise is"), ("inpaint", "the operator and the noise are")])
def test_the_words_of_an_interval_are_as_good_as_what_was_said(task, assumed, photo, tiny_prior):
    """Of a measurement; of a simulation it is known."""
    given = [f"prior={tiny_prior(channels=3, centre=0.5)}", "samples=2", "sampler.steps=2", "sigma_y=0.5"]
    for key in ("truth", "input"):
        said = run(run_config(task, None, [*given, f"{key}={photo}"])).report["interval"]["source"]
        assert (f"or {assumed} not as assumed" in said) == (key == "input")


def test_a_run_is_stopped_while_its_blur_is_estimated(tmp_path, tiny_prior):
    save_image(tmp_path / "y.png", sample_image(size=64))
    given = [f"input={tmp_path / 'y.png'}", "sigma_y=0.02", "operator.sigma=auto", "samples=1",
             f"prior={tiny_prior(channels=3, centre=0.5)}"]
    seen = []

    def stop(trial):
        seen.append(trial.number)
        if trial.number == 2:
            raise Stop

    with pytest.raises(Stop):
        run(run_config("deblur", None, given), lambda progress: pytest.fail("it went on"), on_width=stop)
    assert seen == 15 * [1] + [2]
