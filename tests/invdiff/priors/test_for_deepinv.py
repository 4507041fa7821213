import torch
from deepinv.models import Denoiser

from invdiff.priors import load_prior
from invdiff.priors.counted import Counted
from invdiff.priors.for_deepinv import ForDeepinv


def test_levels_below_the_card_s_are_raised_to_it():
    """The shipped network makes NaN of level 0, with which deepinv's DDRM ends."""
    prior, x = load_prior("natural"), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    adapted = ForDeepinv(Counted(prior, "fp32", torch.device("cpu")))
    with torch.no_grad():
        lowest = prior(x, prior.card["sigma_range"][0])
        for level in (0.0, 1e-4):
            torch.testing.assert_close(adapted(x, level), lowest)
        torch.testing.assert_close(adapted(x, 0.1), prior(x, 0.1))


def test_a_prior_without_a_card_is_asked_for_what_is_asked():
    class Echo(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return x + sigma.reshape(-1, 1, 1, 1)

    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    assert float(ForDeepinv(Echo())(x, 0.0).abs().max()) == 0
    assert ForDeepinv(Echo())(x, torch.tensor([0.5, 0.25]))[:, 0, 0, 0].tolist() == [0.5, 0.25]
