"""Second-order guidance by the saddlepoint of p(y | x), on mixtures, where all of it is in closed form."""

import pytest
import torch
from deepinv.models import Denoiser

import operators
from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.evaluation.mixtures import SCALE, mixture_case, sliced_wasserstein
from invdiff.posterior import MomentMatching
from invdiff.posterior.saddlepoint import saddlepoint_rule
from invdiff.posterior.tweedie import DenoiserAt, Rows
from invdiff.priors.analytic import MixturePrior, operator_matrix
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.dit import DiT
from invdiff.problem import Problem

MEANS = torch.tensor([[0.1, 0.3, 0.2], [0.8, 0.2, 0.6], [0.5, 0.9, 0.4]]).reshape(3, 1, 1, 3)
PRIOR = MixturePrior(torch.tensor([1.0, 2.0, 1.5]), MEANS, torch.tensor([0.01, 0.02, 0.005]))
SIZE = (1, 1, 3)


def one_sum(y):
    """A problem of one sum of the three values, for each y."""
    physics = operators.Separable(SIZE, torch.ones(1, 1), torch.tensor([[0.6, 0.9, -0.4]]))
    return Problem(physics, torch.tensor(y).reshape(-1, 1, 1, 1), 0.05)


def given(prior, x, sigma):
    """x0 given one state x (1, C, H, W), again a mixture."""
    log_joint, total = prior._log_joint(x, sigma)
    keep = (prior.variance / total)[0]
    means = prior.means + keep.reshape(-1, 1, 1, 1) * (x - prior.means)
    return MixturePrior(log_joint.softmax(1)[0], means, keep * sigma**2)


def log_saddlepoint(problem, x, sigma):
    """log of the approximation of p(y | x) for one y, K in closed form and K'(l) = y by bisection."""
    mixture = given(PRIOR, x, sigma)
    a = operator_matrix(problem, MEANS[0])[0]
    y, noise = problem.y.double().squeeze(), problem.sigma_y**2
    centres, spread = mixture.means.flatten(1).double() @ a, mixture.variance.double() * a.square().sum()

    def cumulants(tilt):
        terms = mixture.weights.double().log() + tilt * centres + tilt**2 * spread / 2
        p, tilted = terms.softmax(0), centres + tilt * spread
        first = (p * tilted).sum()
        second = (p * (spread + tilted.square())).sum() - first.square()
        return terms.logsumexp(0) + noise * tilt**2 / 2, first + noise * tilt, second + noise

    low, high = torch.tensor(-1e4, dtype=torch.float64), torch.tensor(1e4, dtype=torch.float64)
    for _ in range(100):
        tilt = (low + high) / 2
        low, high = (tilt, high) if cumulants(tilt)[1] < y else (low, tilt)
    value, _, second = cumulants(tilt)
    return float(value - tilt * y - (2 * torch.pi * second).log() / 2)


@pytest.mark.parametrize("sigma", [2.0, 0.4, 0.1])
@pytest.mark.parametrize("y", [0.1, 0.7, 1.3])
def test_it_is_tweedie_with_the_saddlepoint_s_score(y, sigma, monkeypatch):
    """E[x0 | x, y] = D + sigma^2 grad log p(y | x), by differences."""
    for name, value in {"BEND": 1e9, "TOLERANCE": 1e-6, "TRIALS": 20}.items():
        monkeypatch.setattr(f"invdiff.posterior.saddlepoint.{name}", value)
    problem = one_sum([y])
    x = torch.tensor([0.3, 0.7, 0.1], dtype=torch.float64).reshape(1, *SIZE)
    h, score = 1e-4 * sigma, torch.zeros(3, dtype=torch.float64)
    for i, step in enumerate(h * torch.eye(3, dtype=torch.float64).reshape(3, 1, *SIZE)):
        score[i] = (log_saddlepoint(problem, x + step, sigma) - log_saddlepoint(problem, x - step, sigma)) / (2 * h)
    moved = saddlepoint_rule(PRIOR, problem)(x, sigma) - PRIOR(x, sigma)
    torch.testing.assert_close(moved.flatten(), sigma**2 * score, rtol=2e-3, atol=2e-5)


STATES = torch.tensor([[0.3, 0.7, 0.1], [0.9, 0.1, 0.5], [0.4, 0.4, 0.4]], dtype=torch.float64).reshape(3, *SIZE)


def test_chains_do_not_depend_on_those_beside_them():
    """Some need more of Newton's steps than others."""
    problem = one_sum([1.3, 0.1, 0.45])
    together = saddlepoint_rule(PRIOR, problem)(STATES, 0.4)
    for i in range(3):
        alone = saddlepoint_rule(PRIOR, problem.rows(torch.tensor([i])))(STATES[i : i + 1], 0.4)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)


def test_the_last_term_is_at_most_half_as_long_as_the_rest(monkeypatch):
    problem, x0 = one_sum([1.3, 0.1, 0.45]), PRIOR(STATES, 0.4)

    def moved(bend):
        monkeypatch.setattr("invdiff.posterior.saddlepoint.BEND", bend)
        return (saddlepoint_rule(PRIOR, problem)(STATES, 0.4) - x0).flatten(1)

    rest, whole, capped = moved(0.0), moved(1e9), moved(0.02)
    share = (whole - rest).norm(dim=1) / rest.norm(dim=1)
    assert (share > 0.02).any()
    torch.testing.assert_close((capped - rest).norm(dim=1) / rest.norm(dim=1), share.clamp_max(0.02))


def test_without_a_tilt_it_is_gaussian_conditioning(monkeypatch):
    """Where none of Newton's steps was taken."""
    monkeypatch.setattr("invdiff.posterior.saddlepoint.TRIALS", 0)
    problem, x = one_sum([1.3]), STATES[:1]
    a = operator_matrix(problem, MEANS[0])
    x0 = PRIOR(x, 0.4).flatten()
    c = 0.4**2 * torch.autograd.functional.jacobian(lambda z: PRIOR(z, 0.4), x).reshape(3, 3)
    weights = torch.linalg.solve(a @ c @ a.T + 0.05**2 * torch.eye(1), problem.y.double().flatten() - a @ x0)
    torch.testing.assert_close(saddlepoint_rule(PRIOR, problem)(x, 0.4).flatten(), x0 + c @ a.T @ weights)


def test_a_network_with_attention_is_differentiated_twice():
    """Of which its fused kernel knows nothing."""
    torch.manual_seed(0)
    network = DiT(channels=1, patch=2, width=16, depth=1, heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    physics = operators.GaussianSensing((1, 8, 8), rate=0.05)
    problem = Problem(physics, physics.A(torch.rand(1, 1, 8, 8)), 0.1)
    rule = MomentMatching(covariance="exact").posterior_denoiser(EDMDenoiser(network, 1), problem)
    assert torch.isfinite(rule(torch.randn(1, 1, 8, 8), 0.5)).all()


@pytest.mark.parametrize(("eta", "limit"), [(1, 1.2), (5, 0.3)])
def test_modes_get_their_weights(eta, limit):
    """Exact draws are 0.1 from each other, and those by Gaussian conditioning 1.7 from them; Langevin dynamics on the way
    mend what is left."""
    case = mixture_case(8, 2, 5)
    exact = case.prior.sample_posterior(case.problem, 500, torch.Generator().manual_seed(0))[0].flatten(1)
    sampler = MomentMatching(covariance="exact", steps=30, integrator=DPMSolverPP(eta=eta))
    *_, last = sampler.steps(case.prior, case.problem, range(500))
    assert sliced_wasserstein(last.x0.flatten(1) * SCALE, exact * SCALE) < limit


class Wild(Denoiser):
    """A Jacobian that is no covariance: it tells of hardly any variance of the first value, and 50 beside it."""

    def forward(self, x, sigma, **kwargs):
        return (x.flatten(1) @ torch.tensor([[1e-6, 0, 0], [50, 0, 0], [0, 0, 0]])).reshape(x.shape)


def test_a_direction_has_the_variance_that_its_product_tells_of():
    """|C v|^2 <= largest v^T C v. A correction of the first value went 50 million times as far beside it."""
    physics = operators.Separable(SIZE, torch.ones(1, 1), torch.tensor([[1.0, 0.0, 0.0]]))
    rows = Rows.of(Problem(physics, torch.ones(1, 1, 1, 1), 0.05))
    at = DenoiserAt(Wild(), torch.zeros(1, *SIZE), 1.0)
    inside, outside = rows.root(at)[0, :2, 0]
    assert outside.abs() > 1e4 * inside.abs()
    inside, outside = rows.root(at, largest=0.5)[0, :2, 0]
    assert float(outside**2) == pytest.approx(0.5)
    assert outside.abs() < inside.abs()
