"""Priors told a class: guidance against the closed form of a mixture, and what a name may say."""

import pytest
import torch

from invdiff import InputError
from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.diffusion.schedules import Karras
from invdiff.priors import ClassifierGuided, EDMDenoiser, Guided, load_prior
from invdiff.priors.analytic import GaussianPrior, MixturePrior
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.conditional import class_number
from invdiff.priors.counted import Counted
from invdiff.priors.dit import DiT
from invdiff.priors.spectrum import measure_spectrum
from invdiff.priors.unet import UNet
from invdiff.sampling import sample

MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).reshape(2, 1, 1, 2)
VARIANCE = 0.3


class TwoClasses(torch.nn.Module):
    """The exact denoiser of a mixture of two Gaussians, which are its classes."""

    def __init__(self):
        super().__init__()
        self.card = {"classes": ["left", "right"]}
        self.free = MixturePrior(torch.ones(2), MEANS, VARIANCE)
        self.each = [GaussianPrior(mean, VARIANCE * torch.eye(2)) for mean in MEANS]

    def forward(self, x, sigma, classes=None):
        classes = torch.full((len(x),), -1) if classes is None else classes
        table = torch.stack([*(prior(x, sigma) for prior in self.each), self.free(x, sigma)])
        return table[classes, torch.arange(len(x))]


@pytest.fixture
def points():
    return torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(0))


def test_guidance_extrapolates_from_the_unconditional_to_the_conditional(points):
    prior, sigma = TwoClasses(), torch.tensor([0.1, 0.5, 1.0, 2.0, 9.0])
    classes = torch.tensor([0, 1, 1, 0, 1])
    conditional, free = prior(points, sigma, classes), prior(points, sigma)
    torch.testing.assert_close(Guided(prior, classes)(points, sigma), conditional)
    torch.testing.assert_close(Guided(prior, classes, 0.0)(points, sigma), free)
    torch.testing.assert_close(Guided(prior, classes, 2.5)(points, sigma), free + 2.5 * (conditional - free))
    limited = Guided(prior, classes, 2.5, interval=(0.3, 3.0))(points, sigma)
    acts = torch.tensor([False, True, True, True, False]).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(limited, torch.where(acts, free + 2.5 * (conditional - free), conditional))


def test_classifier_guidance_of_strength_one_is_bayes_rule(points):
    """With the exact p(class | x, sigma), the guided denoiser is that of the class."""
    prior = TwoClasses()

    def log_probs(x, sigma):
        total = VARIANCE + sigma.square()[:, None]
        distance = (x.flatten(1)[:, None] - MEANS.flatten(1)).square().sum(2)
        return (-distance / (2 * total)).log_softmax(1)

    for sigma in (0.1, 0.7, 3.0):
        guided = ClassifierGuided(prior.free, log_probs, torch.tensor([0, 1, 0, 1, 1]))(points, sigma)
        torch.testing.assert_close(guided, prior(points, sigma, torch.tensor([0, 1, 0, 1, 1])), rtol=1e-4, atol=1e-5)


def test_a_prior_guided_by_a_classifier_is_one_as_any_other(file):
    """It says of itself what the prior does; only the variance of a step it cannot tell."""
    prior = load_prior(file)
    prior.card["sigma_range"], prior.card["image_size"] = [0.01, 20.0], [8, 16]
    prior.card["spectrum"] = measure_spectrum(prior, list(torch.rand(2, 1, 16, 16)), (0.1, 1.0), "a test").to_dict()
    guided = ClassifierGuided(prior, lambda x, sigma: x.flatten(1)[:, :2].log_softmax(1), 1)
    drawn = sample(guided, 4, DPMSolverPP(), steps=2, device="cpu")
    assert drawn.images.shape == (4, 1, 8, 16)
    assert drawn.report["sigma_max"] == pytest.approx(20.0)
    assert (guided.channels, guided.centre, guided.classes) == (1, 0.3, 0)
    assert guided.error_spectrum(1).source == "a test"
    assert guided.with_variance(drawn.images, 0.5)[1] is None


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_calls_are_counted_as_the_prior_is_asked(points, scale):
    """Twice for the images on which guidance acts, and once for others."""
    class Asked(TwoClasses):
        images = 0

        def forward(self, x, sigma, classes=None):
            self.images += len(x)
            return super().forward(x, sigma, classes)

    prior = Asked()
    counted = Counted(Guided(prior, 1, scale, interval=(0.3, 3.0)), "fp32", points.device)
    for sigma in (0.1, 1.0, 9.0, torch.tensor([0.1, 0.5, 1.0, 2.0, 9.0])):
        counted(points, sigma)
        counted.with_variance(points, sigma)
    assert counted.calls == prior.images == (40 if scale == 1 else 56)


def test_other_numbers_of_classes_than_of_images_are_refused(points):
    prior = TwoClasses()
    for guided in (Guided(prior, [0, 1, 1, 0], 2.0), ClassifierGuided(prior.free, lambda x, sigma: x.flatten(1), [0, 1, 1, 0])):
        assert guided(points[:4], 1.0).shape == (4, 1, 1, 2)
        for call in (guided, guided.with_variance):
            with pytest.raises(InputError, match=r"4 were chosen, and 5 images are denoised together; .*batch_size be 4"):
                call(points, 1.0)
    with pytest.raises(InputError, match="4 were chosen, and 2 images"):
        sample(Guided(prior, [0, 1, 1, 0]), 4, DPMSolverPP(), steps=2, size=(1, 2), channels=1, batch_size=2, device="cpu")


def test_samples_of_a_class_are_of_it_and_more_so_with_guidance():
    prior, generator = TwoClasses(), torch.Generator().manual_seed(1)
    means = []
    for scale in (1.0, 3.0):
        x = 20.0 * torch.randn(2000, 1, 1, 2, generator=generator)
        for step in DPMSolverPP()(Guided(prior, 1, scale), Karras()(40, 0.01, 20.0), x, lambda: None):
            x = step.x
        means.append(x.mean(0).flatten())
    assert torch.allclose(means[0], MEANS[1].flatten(), atol=4 * (VARIANCE / 2000) ** 0.5)
    assert means[1][0] > means[0][0] + 0.1


@pytest.mark.parametrize("network", [UNet(1, (16, 16), (1, 1), 16, classes=3), DiT(1, 4, 16, 1, 2, classes=3)],
                         ids=["unet", "dit"])
def test_a_network_tells_classes_apart_and_none_is_any(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    denoiser, x = EDMDenoiser(network, channels=1), torch.rand(4, 1, 8, 8)
    classes = torch.tensor([0, 1, 2, -1])
    together = denoiser(x, 0.5, classes)
    for i, each in enumerate(classes.tolist()):
        torch.testing.assert_close(together[i : i + 1], denoiser(x[i : i + 1], 0.5, torch.tensor([each])))
    torch.testing.assert_close(together[3:], denoiser(x[3:], 0.5))
    assert not torch.allclose(denoiser(x[:1], 0.5, torch.tensor([1])), together[:1])
    with pytest.raises(ValueError, match="below 3, got 7"):
        denoiser(x, 0.5, torch.full((4,), 7))
    with pytest.raises(ValueError, match="knows none"):
        EDMDenoiser(UNet(1, (16, 16), (1, 1), 16), channels=1)(x, 0.5, classes)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    architecture = {"channels": 1, "widths": [16, 16], "depths": [1, 1], "embedding": 16, "classes": 2}
    network = UNet(**architecture)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("prior") / "two.safetensors"
    preconditioning = {"sigma_data": 0.3, "centre": 0.3}
    card = {"architecture": architecture, "preconditioning": preconditioning, "data": "none", "licence": "none",
            "classes": ["left", "right"]}
    save_prior(path, EDMDenoiser(network, channels=1, **preconditioning), card)
    return path


def test_a_name_may_tell_the_class_and_the_guidance(file):
    x = torch.rand(2, 1, 8, 8)
    plain, named = load_prior(file), load_prior(f"{file}?class=right&guidance=2")
    torch.testing.assert_close(named(x, 0.3), Guided(plain, 1, 2.0)(x, 0.3))
    torch.testing.assert_close(load_prior(f"{file}?class=1")(x, 0.3), plain(x, 0.3, torch.tensor([1, 1])))
    assert named.card["classes"] == ["left", "right"]


def test_classes_without_names_are_listed_by_their_numbers():
    prior = TwoClasses()
    prior.card = {"classes": ["0", "1"]}
    with pytest.raises(InputError, match="class: expected one of 0, 1, got '2'"):
        class_number(prior, "2", "mine")


@pytest.mark.parametrize(("options", "words"), [("class=2", "expected one of 0 left, 1 right, got '2'"),
                                                ("class=up", "expected one of 0 left, 1 right, got 'up'"),
                                                ("guidance=2", "guidance needs a class"),
                                                ("class=0&guidance=much", "guidance: expected a number"),
                                                ("klass=0", "unknown option 'klass'")])
def test_a_name_that_makes_no_sense_is_refused(file, options, words):
    with pytest.raises(InputError, match=words):
        load_prior(f"{file}?{options}")


def test_a_prior_without_classes_is_refused_one(tiny_prior):
    with pytest.raises(InputError, match="knows no classes"):
        load_prior(f"{tiny_prior(3, 0.5)}?class=0")
