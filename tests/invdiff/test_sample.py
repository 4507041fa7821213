"""Images from a prior alone: their distribution, what they depend on, what is counted, and what is refused."""

from pathlib import Path

import pytest
import torch
from deepinv.models import DRUNet
from toy_priors import TwoGaussians

from invdiff import InputError, Stop, load_prior
from invdiff.diffusion.integrators import DDIM, DDPM, RK45, Consistency, DPMSolverPP, Heun
from invdiff.diffusion.schedules import Karras
from invdiff.priors import Guided
from invdiff.priors.analytic import GaussianPrior
from invdiff.priors.counted import Counted
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import UNet
from invdiff.sampling import sample


def test_samples_are_the_prior_s_and_of_the_class_asked_for():
    drawn = sample(TwoGaussians(), 2000, DPMSolverPP(), steps=40, classes=[0, 1] * 1000)
    assert drawn.images.shape == (2000, 1, 2, 3)
    for k, mean in ((0, 0.2), (1, 0.8)):
        mine = drawn.images[drawn.classes == k]
        assert mine.mean().item() == pytest.approx(mean, abs=0.005)       # the start's mean is 0.5
        assert mine.std().item() == pytest.approx(TwoGaussians.std, rel=0.03)
    free = sample(TwoGaussians(), 500, DPMSolverPP(), steps=40)
    assert free.report["classes"] is None
    free = free.images
    assert free.mean().item() == pytest.approx(0.5, abs=4 * 0.1 / 3000**0.5)


def test_an_image_depends_on_the_seed_its_number_and_its_class_alone():
    prior, options = TwoGaussians(), {"steps": 5, "classes": [0, 1, 1, 0, 1]}
    whole = sample(prior, 5, DPMSolverPP(eta=1.0), **options)
    parts = sample(prior, 5, DPMSolverPP(eta=1.0), batch_size=2, **options)
    torch.testing.assert_close(whole.images, parts.images)
    fewer = sample(prior, 2, DPMSolverPP(eta=1.0), steps=5, classes=[0, 1])
    torch.testing.assert_close(whole.images[:2], fewer.images)
    other = sample(prior, 5, DPMSolverPP(eta=1.0), seed=1, **options)
    assert not torch.allclose(whole.images, other.images)


def test_guidance_costs_a_second_call_only_at_the_levels_where_it_acts():
    options = {"steps": 8, "classes": [0], "sigma_min": 0.1, "sigma_max": 10.0, "guidance": 2.0}
    levels = Karras()(8, 0.1, 10.0)
    drawn = sample(TwoGaussians(), 3, DDIM(), guidance_interval=(0.5, 3.0), **options)
    assert drawn.report["network_calls"] == 8 + ((levels >= 0.5) & (levels <= 3.0)).sum()
    assert not torch.equal(drawn.images, sample(TwoGaussians(), 3, DDIM(), **options).images)
    nowhere = sample(TwoGaussians(), 3, DDIM(), guidance_interval=(20.0, 30.0), **options)
    assert torch.equal(nowhere.images, sample(TwoGaussians(), 3, DDIM(), **{**options, "guidance": 1.0}).images)


@pytest.mark.parametrize(("integrator", "guidance", "calls"), [(DDIM(), 1.0, 7), (Heun(), 1.0, 13), (DDIM(), 2.0, 14)])
def test_every_call_of_the_network_is_counted(integrator, guidance, calls):
    drawn = sample(TwoGaussians(), 3, integrator, steps=7, classes=[0], guidance=guidance)
    assert drawn.report["network_calls"] == calls
    assert drawn.report["guidance"] == guidance


class Telling(torch.nn.Module):
    """White images of standard deviation 0.5, whose steps have the upper variance; class 1 is told the lower one."""

    classes, channels = 2, 1

    def __init__(self):
        super().__init__()
        self.card = {"image_size": [2, 2], "sigma_range": [0.01, 10.0], "classes": ["upper", "lower"]}

    def with_variance(self, x, sigma, classes=None):
        share = torch.ones_like(x) if classes is None else 1 - 2.0 * classes.reshape(-1, 1, 1, 1).expand_as(x)
        return self(x, sigma), share

    def forward(self, x, sigma, classes=None):
        sigma = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
        return 0.5 + (x - 0.5) / (1 + 4 * sigma**2)


def test_ddpm_draws_with_the_variance_that_the_prior_tells():
    """In four steps the upper variance is exact for white images (Ho et al. 2020, Sec. 3.2), and the lower one too little."""
    options = {"steps": 4, "size": (2, 2)}
    free = sample(Telling(), 4000, DDPM(variance="learned"), **options)
    assert free.images.std().item() == pytest.approx(0.5, rel=0.03)
    assert free.report["network_calls"] == 4
    drawn = sample(Telling(), 4000, DDPM(variance="learned"), classes=[0, 1] * 2000, **options)
    assert drawn.images[drawn.classes == 0].std().item() == pytest.approx(0.5, rel=0.03)
    lower = sample(Telling(), 2000, DDPM(), **options).images.std().item()
    assert drawn.images[drawn.classes == 1].std().item() == pytest.approx(lower, rel=0.05)
    assert lower < 0.4
    for prior, classes, guidance in ((TwoGaussians(), None, 1.0), (TwoGaussians(), [0], 1.0), (Telling(), [0], 2.0)):
        with pytest.raises(InputError, match=r"solver\.variance: learned needs a prior that tells the variance"):
            sample(prior, 2, DDPM(variance="learned"), steps=4, classes=classes, guidance=guidance)


def test_levels_that_do_not_fall_draw_no_noise():
    for integrator in (DDPM(), DPMSolverPP()):
        drawn = sample(TwoGaussians(), 2, integrator, steps=3, sigma_min=1.0, sigma_max=1.0)
        assert drawn.images.isfinite().all()
        assert drawn.report["steps"] == 1


def test_a_trained_network_tells_the_variance_with_and_without_a_class():
    network = UNet(1, (8, 8), (1, 1), 16, classes=2, variance=True)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    prior = EDMDenoiser(network, 1, 0.3, 0.5)
    x = torch.rand(3, 1, 8, 8)
    for told in (prior, Guided(prior, 1), Counted(prior, "fp32", x.device), Guided(Counted(prior, "bf16", x.device), 0)):
        x0, share = told.with_variance(x, 0.5)
        assert x0.shape == share.shape == x.shape
        assert float(share.detach().std()) > 0
    assert sample(prior, 2, DDPM(variance="learned"), steps=3, size=(8, 8), classes=[0, 1]).images.isfinite().all()


def test_a_stop_keeps_what_is_finished():
    def after(steps):
        def stop(progress):
            if progress.done > steps:
                raise Stop
        return stop

    kept = sample(TwoGaussians(), 6, DDIM(), steps=4, batch_size=2, on_step=after(9))
    assert len(kept.images) == kept.report["count"] == 4
    assert kept.report["network_calls"] == 4
    with pytest.raises(Stop):
        sample(TwoGaussians(), 6, DDIM(), steps=4, batch_size=2, on_step=after(2))


def shrink(x, sigma):
    """E[x0 | x] of white images of unit variance."""
    return x / (1 + sigma**2)


def test_a_card_that_leaves_channels_and_levels_open(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    prior = load_prior("python:test_sample:shrink")
    assert (prior.channels, prior.card["sigma_range"]) == (None, [0.0, None])
    drawn = sample(prior, 1, DDIM(), steps=3, size=(8, 12))
    assert drawn.images.shape == (1, 3, 8, 12)
    assert drawn.report["sigma_min"] == pytest.approx(0.002)
    assert drawn.report["sigma_max"] == pytest.approx(40)


def test_priors_in_closed_form_and_denoisers_that_do_not_say_are_drawn_from():
    power = torch.rand(8, 5) + 0.5
    assert sample(GaussianPrior.stationary(torch.full((1, 8, 8), 0.5), power), 2, DDIM(), steps=3).images.shape == (2, 1, 8, 8)
    grey = DRUNet(in_channels=1, out_channels=1, nc=[4, 4, 4, 4], nb=1, pretrained=None)
    assert sample(grey, 1, DDIM(), steps=2, size=(16, 16), channels=1).images.shape == (1, 1, 16, 16)


def test_whatever_the_caller_s_modes_the_images_are_the_same():
    """A prior left in training mode, which would drop out; torch's inference mode; another default type."""
    class Dropping(TwoGaussians):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, x, sigma, classes=None):
            return self.drop(super().forward(x, sigma, classes))

    prior, expected = Dropping(), sample(TwoGaussians(), 2, DDIM(), steps=3).images
    assert torch.equal(sample(prior, 2, DDIM(), steps=3).images, expected)
    assert prior.training
    with torch.inference_mode():
        assert torch.equal(sample(prior, 2, DDIM(), steps=3).images, expected)
    torch.set_default_dtype(torch.float64)
    try:
        wide = sample(prior, 2, DDIM(), steps=3).images
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(wide, expected)


@pytest.mark.parametrize(("change", "words"), [
    ({"classes": [2]}, "classes: expected 4 numbers from -1, for any, to 1, got 1 from 2 to 2|got 4 from 2 to 2"),
    ({"classes": [0, 1]}, "got 2 from 0 to 1"), ({"guidance": 2.0}, "needs classes"), ({"steps": 0}, "steps"),
    ({"guidance_interval": (2.0, 1.0)}, "lowest noise level"),
    ({"classes": []}, "got 0$"), ({"classes": [0.5, 1, 1, 0]}, "classes: expected 4 whole numbers"),
    ({"classes": 1}, "classes: expected 4 whole numbers"), ({"sigma_min": 0.0}, "0 < sigma_min"),
    ({"sigma_max": 0.0}, "sigma_max"),
    ({"integrator": Consistency()}, "this prior is drawn from by dpmpp_2m, and consistency would make no images of it"),
    ({"sigma_min": 50.0}, "sigma_min"), ({"size": (0, 3)}, "size"), ({"precision": "fp16"}, "precision")])
def test_what_makes_no_sense_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        sample(TwoGaussians(), 4, **{"integrator": DDIM(), **change})


def test_an_adaptive_solver_integrates_whatever_the_steps():
    one, many = (sample(TwoGaussians(), 4, RK45(), steps=steps, classes=[0] * 4, device="cpu") for steps in (1, 20))
    assert torch.equal(one.images, many.images)
    assert one.images.std() > 0.01          # and not the mean of all
    assert one.report["steps"] is None


@pytest.mark.parametrize(("value", "channels", "warned"), [(9.0, 1, True), (-1.5, 3, True), (1.9, 3, False), (9.0, 2, False)])
def test_images_far_outside_their_range_are_warned_of_and_given(value, channels, warned):
    """As those of too few steps are; complex ones have another range."""
    class Constant(torch.nn.Module):
        def forward(self, x, sigma):
            return torch.full_like(x, value)

    drawn = sample(Constant(), 2, DDIM(), steps=2, size=(4, 4), channels=channels)
    assert drawn.images.shape == (2, channels, 4, 4)
    assert ("warning" in drawn.report) == warned
    if warned:
        assert f"from {value:g} to {value:g}, far outside [0, 1], " in drawn.report["warning"]


def test_images_that_are_not_finite_are_not_given_away():
    class Broken(TwoGaussians):
        def forward(self, x, sigma, classes=None):
            return torch.where(classes[:, None, None, None] == 1, torch.nan, super().forward(x, sigma, classes))

    with pytest.raises(InputError, match="2 of 3 images are not finite"):
        sample(Broken(), 3, DDIM(), steps=3, classes=[1, 0, 1])
