"""Second-order guidance with the Jacobian's covariance, on Gaussian priors of no symmetry."""

import pytest
import torch
from deepinv.models import Denoiser
from gaussians import LINEAR, SPREAD, linear, rough_prior
from toys import assert_moments_close, draw, natural_prior, pose, sample, tweedie

import operators
from invdiff.diffusion.integrators import DPMSolverPP
from invdiff.io.images import sample_image
from invdiff.posterior import MomentMatching
from invdiff.posterior.covariance import StationaryCovariance
from invdiff.posterior.low_rank import Conditioning, ImageConditioning, LowRankCovariance
from invdiff.posterior.tweedie import DenoiserAt, Rows
from invdiff.priors import load_prior
from invdiff.priors.analytic import operator_matrix
from invdiff.problem import Problem

EXACT_CG = {"cg_tolerance": 1e-5, "cg_iterations": 300}
NOISES = [0.01 * SPREAD, 0.2 * SPREAD, SPREAD]


class Linear(Denoiser):
    """D(x) = M x for a matrix of no symmetry."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x, sigma, **kwargs):
        return (x.flatten(1) @ self.matrix.T).reshape(x.shape)


@pytest.mark.parametrize("sigma", [5.0, 0.5, 0.05])
def test_what_is_no_covariance_explains_no_more_than_the_residual(sigma):
    """A Jacobian with eigenvalues of either sign, as a network's may have."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(48, 48, generator=generator)
    x, y = torch.randn(2, 1, 3, 4, 4, generator=generator)
    prior, problem = Linear(matrix + matrix.T), Problem(operators.Denoising((3, 4, 4)), y, 0.5 * sigma)
    x0 = prior(x, sigma)
    moved = MomentMatching(covariance="exact").posterior_denoiser(prior, problem)(x, sigma) - x0
    assert 0 < moved.norm() < (1 + 1e-5) * (y - x0).norm()


def test_products_with_the_covariance_are_those_of_the_jacobian():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator)
    x, v = torch.randn(2, 3, 1, 2, 3, generator=generator)
    at = DenoiserAt(Linear(matrix), x, 0.5)
    torch.testing.assert_close(at.x0.flatten(1), x.flatten(1) @ matrix.T)
    torch.testing.assert_close(at.transposed(v).flatten(1), 0.25 * v.flatten(1) @ matrix)
    torch.testing.assert_close(at.symmetric(v).flatten(1), 0.125 * v.flatten(1) @ (matrix + matrix.T))
    assert not at.x0.requires_grad


def test_a_prior_without_a_gradient_is_refused():
    class Detached(Linear):
        def forward(self, x, sigma, **kwargs):
            return super().forward(x, sigma).detach()

    with pytest.raises(ValueError, match=r"Detached gives no gradient by x.*covariance spectral needs none"):
        DenoiserAt(Detached(torch.eye(6)), torch.zeros(1, 1, 2, 3), 0.5)


@pytest.mark.parametrize("operator", LINEAR)
def test_rows_are_the_operator_and_their_root_the_covariance_it_sees(operator):
    """A = U diag(s) V^T on what it reaches, and R R^T V = C V, with C = cov - cov (cov + sigma^2)^-1 cov."""
    physics, size = linear(operator)
    prior = rough_prior(size)
    problem = pose(physics, prior, 0.1)
    rows = Rows.of(problem)
    a = operator_matrix(problem, prior.mean)
    torch.testing.assert_close((rows.left * rows.scale[:, None] @ rows.basis.mT)[0], a, rtol=1e-5, atol=1e-5)
    residual = rows.residual(problem, prior.mean[None])
    torch.testing.assert_close(rows.left[0] @ residual[0], rows.left[0] @ rows.left[0].T @ (
        problem.y.flatten().double() - a @ prior.mean.flatten().double()), rtol=1e-4, atol=1e-5)
    cov, sigma = prior.cov.double(), 0.3
    c = cov - cov @ torch.linalg.inv(cov + sigma**2 * torch.eye(len(cov))) @ cov
    root = rows.root(DenoiserAt(prior, draw(prior, 2), sigma))
    basis = rows.basis[0]
    for r in root:
        assert (r @ (r.T @ basis) - c @ basis).norm() < 1e-4 * (c @ basis).norm()


@pytest.mark.parametrize("sigma_y", NOISES)
@pytest.mark.parametrize("operator", LINEAR)
def test_the_exact_form_is_tweedie_with_a_measurement(operator, sigma_y, monkeypatch):
    """For every Gaussian prior, stationary or not; directly, and by conjugate gradients."""
    physics, size = linear(operator)
    prior = rough_prior(size)
    problem = pose(physics, prior, sigma_y)
    problem = problem.rows(torch.zeros(2, dtype=torch.long))
    for few in (1000, 0):
        monkeypatch.setattr("invdiff.posterior.guidance.FEW_VALUES", few)
        rule = MomentMatching(covariance="exact", **EXACT_CG).posterior_denoiser(prior, problem)
        for sigma in (5.0, 0.3, 0.02):
            x = draw(prior, 2, 5) + sigma * torch.randn(2, *size, generator=torch.Generator().manual_seed(7))
            exact = tweedie(prior, problem, x, sigma)
            moved = (exact - prior(x, sigma)).norm()
            assert moved > 1e-4
            assert (rule(x, sigma) - exact).norm() < 5e-3 * moved + 1e-4


@pytest.mark.parametrize("sigma_y", [NOISES[0], NOISES[2]])
@pytest.mark.parametrize("operator", ["random", "mask", "multi-coil mri"])
def test_the_low_rank_form_is_exact_with_as_many_directions_as_it_sees(operator, sigma_y):
    """Each direction is one more along which C is exact, so that a few of them do most, and all do all."""
    physics, size = linear(operator)
    prior = rough_prior(size)
    problem = pose(physics, prior, sigma_y)
    x, sigma = draw(prior, 1, 5) + 0.3 * torch.randn(1, *size, generator=torch.Generator().manual_seed(7)), 0.3
    exact = tweedie(prior, problem, x, sigma)
    moved = (exact - prior(x, sigma)).norm()
    count = Rows.of(problem).scale.shape[1]

    def error(rank):
        rule = MomentMatching(covariance="low-rank", rank=rank, **EXACT_CG).posterior_denoiser(prior, problem)
        return (rule(x, sigma) - exact).norm() / moved

    spectral = (MomentMatching(**EXACT_CG).posterior_denoiser(prior, problem)(x, sigma) - exact).norm() / moved
    # the prior is not stationary, so there is something to mend; less of it where coils see every pixel twice
    assert spectral > (0.005 if operator == "multi-coil mri" else 0.02)
    assert error(2 * count) < min(0.01, spectral / 3)
    assert error(count // 2) < spectral


def test_the_low_rank_form_leaves_an_exact_spectrum_alone():
    prior = natural_prior()
    problem = pose("blur", prior, 0.05)
    x = draw(prior, 1, 5)
    rule = MomentMatching(covariance="low-rank", rank=4, **EXACT_CG).posterior_denoiser(prior, problem)
    torch.testing.assert_close(rule(x, 0.3).double(), tweedie(prior, problem, x, 0.3), rtol=0, atol=1e-3)


def updated(count=3, directions=3):
    """A stationary covariance made exact along random directions of a dense one, (4, 6) images, float64."""
    generator = torch.Generator().manual_seed(0)
    c = rough_prior().cov.double()
    power = natural_prior((1, 4, 6)).power.double()
    base = StationaryCovariance(power * (torch.linalg.eigvalsh(c)[-1] / power.max()), (4, 6))         # its largest is that of c
    covariance = LowRankCovariance(base, count)
    vectors = torch.randn(directions, count, 1, 4, 6, generator=generator, dtype=torch.float64)
    for v in vectors:
        covariance.update(v, lambda u: (u.flatten(1) @ c).reshape(u.shape))
    return covariance, c, vectors


def dense(covariance, count=3):
    """C of each item, (count, 24, 24)."""
    eye = torch.eye(24, dtype=torch.float64).reshape(24, 1, 1, 4, 6)
    return torch.stack([covariance(e.expand(count, -1, -1, -1)).flatten(1) for e in eye], 2)


def test_an_updated_covariance_is_exact_along_its_directions_and_positive():
    covariance, c, vectors = updated()
    matrix = dense(covariance)
    torch.testing.assert_close(matrix, matrix.mT)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    for v in vectors:
        torch.testing.assert_close(covariance(v).flatten(1), v.flatten(1) @ c)
    before = dense(covariance)
    covariance.update(vectors[0] + vectors[1], lambda u: (u.flatten(1) @ c).reshape(u.shape))
    torch.testing.assert_close(dense(covariance), before)                                      # nothing new along there
    index = torch.tensor([2, 0])
    torch.testing.assert_close(dense(covariance.at(index), 2), before[index])


@pytest.mark.parametrize("scale", [1.01, 100.0])
def test_more_variance_than_the_largest_there_is_is_not_believed(scale):
    covariance, c, vectors = updated(directions=1)
    before, largest = dense(covariance), torch.linalg.eigvalsh(c)[-1]
    assert not covariance.update(vectors[0].flip(-1), lambda u: scale * largest * u)
    pushed = vectors[0].flip(-2) * 100                       # a product that leads somewhere else, as of a Jacobian gone wrong
    assert not covariance.update(vectors[0].flip(-1), lambda u: 0.5 * largest * u + pushed * scale * largest)
    torch.testing.assert_close(dense(covariance), before)
    assert covariance.update(vectors[0].flip(-1), lambda u: 0.5 * largest * u)


def test_the_low_rank_form_does_not_run_away_with_a_network():
    photo, prior = sample_image(size=64), load_prior("natural")
    physics = operators.Inpainting((3, 64, 64), operators.random_mask((3, 64, 64), keep=0.5))
    problem = Problem(physics, physics.A(photo), 0.02)
    one, other = ((sample(MomentMatching(covariance=covariance, steps=8), prior, problem, 1) - photo).square().mean()
                  for covariance in ("low-rank", "spectral"))
    assert one < other


def test_photos_with_missing_pixels_and_no_noise_gain_by_the_low_rank_form():
    photo, prior = sample_image("chelsea", size=64), load_prior("natural")
    physics = operators.Inpainting((3, 64, 64), operators.random_mask((3, 64, 64), keep=0.5))
    problem = Problem(physics, physics.A(photo), 0.0)
    one, other = ((sample(MomentMatching(covariance=covariance, steps=8, **rank), prior, problem, 1) - photo).square().mean()
                  for covariance, rank in (("low-rank", {"rank": 1}), ("spectral", {})))
    assert one < other


def test_what_is_left_of_a_covariance_that_was_seen_through_noise():
    covariance, _, _ = updated()
    matrix, eye = dense(covariance), torch.eye(24, dtype=torch.float64)
    expected = torch.linalg.inv(torch.linalg.inv(matrix) + 30.0 * eye)
    torch.testing.assert_close(dense(covariance.observed(30.0)), expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("seen", [False, True])
def test_solutions_and_determinants_of_an_updated_covariance(seen):
    """With A C A^T + sigma_y^2 I, by dense algebra; also after x was seen through noise."""
    covariance, _, _ = updated()
    covariance = covariance.observed(30.0) if seen else covariance
    physics = linear("random")[0].double()
    problem = Problem(physics, torch.randn(3, *physics.measurement_size, dtype=torch.float64), 0.1)
    a = operator_matrix(problem, torch.zeros(1, 4, 6, dtype=torch.float64))

    def gram(matrix):
        return a @ matrix @ a.T + 0.01 * torch.eye(len(a), dtype=torch.float64)

    whole, base = gram(dense(covariance)), gram(dense(LowRankCovariance(covariance.base, 3)))
    conditioning = Conditioning(problem, covariance, (1e-10, 200))
    weights = conditioning.correct(conditioning.base(problem.y)).flatten(1)
    torch.testing.assert_close(weights, torch.linalg.solve(whole, problem.y.flatten(1)), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(conditioning.log_determinant_ratio(), whole.logdet() - base.logdet(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [Conditioning, ImageConditioning])
def test_solutions_for_some_of_the_particles_are_theirs(kind):
    covariance, _, _ = updated()
    physics = linear("random")[0].double()
    problem = Problem(physics, torch.randn(3, *physics.measurement_size, dtype=torch.float64), 0.1)
    solves, some = kind(problem, covariance, (1e-10, 200)), torch.tensor([2, 0])
    r = solves.residual(torch.zeros(3, 1, 4, 6, dtype=torch.float64))
    weights = solves.correct(solves.base(r))
    chosen = solves.at(some, covariance.at(some))
    torch.testing.assert_close(chosen.correct(chosen.base(r[some])), weights[some], rtol=1e-6, atol=1e-8)


def test_draws_have_the_updated_covariance():
    """20,000 of them: the sample covariance is off by sqrt((tr(C)^2 + |C|^2) / n) in the Frobenius norm."""
    one, _, _ = updated(count=1)
    covariance = one.at(torch.zeros(20_000, dtype=torch.long))
    generator = torch.Generator().manual_seed(1)
    x = covariance.sample((1, 4, 6), lambda shape: torch.randn(20_000, *shape, generator=generator, dtype=torch.float64))
    assert_moments_close(x, torch.zeros(24, dtype=torch.float64), dense(one, 1)[0], discretisation=0)


@pytest.mark.parametrize(("operator", "sigma_y"), [("random", NOISES[0]), ("blur", NOISES[1]), ("mask", NOISES[2]),
                                                   ("mri", NOISES[0])])
def test_the_exact_form_samples_the_posterior(operator, sigma_y):
    """500 chains along the flow; 40 steps of second order and an end at 0.002 cost up to 4 % of a variance."""
    physics, size = linear(operator)
    prior = rough_prior(size)
    problem = pose(physics, prior, sigma_y)
    sampler = MomentMatching(steps=40, sigma_min=0.002, integrator=DPMSolverPP(), covariance="exact", **EXACT_CG)
    assert_moments_close(sample(sampler, prior, problem, 500), *prior.posterior(problem), discretisation=0.04)
