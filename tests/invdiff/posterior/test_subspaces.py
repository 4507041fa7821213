"""Operators with singular values of 0 and 1 whose range is a subspace across the entries of y: what is beside it is noise."""

import pytest
import torch
from deepinv.physics import DecomposablePhysics
from gaussians import log_evidence, rough_prior
from toys import assert_moments_close, natural_prior, pose

import operators
from invdiff.io.images import sample_image
from invdiff.posterior import DAPS, MomentMatching, TwistedSMC
from invdiff.posterior.covariance import StationaryCovariance, condition, solve, within_range
from invdiff.priors import load_prior
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from operators.mri.sampling import random_lines

SIZE = (1, 8, 8)


def cosines(n):
    """The orthonormal DCT-II, (n, n)."""
    k = torch.arange(n)
    matrix = torch.cos(torch.pi * (k[None] + 0.5) * k[:, None] / n) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def low_pass(size=SIZE, kept=3):
    """The lowest cosines of an image, written back as an image."""
    rows, columns = cosines(size[1]), cosines(size[2])
    mask = torch.zeros(size[1:])
    mask[:kept, :kept] = 1

    def to(x):
        return rows @ x @ columns.T

    def back(c):
        return rows.T @ c @ columns

    return DecomposablePhysics(U=back, U_adjoint=to, V_adjoint=to, V=back, mask=mask, img_size=size)


def dense(problem, covariance):
    """A and A C A^T + sigma_y^2 I of images (1, 8, 8), in float64."""
    eye = torch.eye(64).reshape(64, *SIZE)
    a, cov = (f(eye).flatten(1).double().T for f in (problem.physics.A, covariance))
    return a, cov, a @ cov @ a.T + problem.sigma_y**2 * torch.eye(64, dtype=torch.float64)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("sigma_y", [0.02, 0.3])
def test_solves_and_corrections_are_those_of_dense_algebra(sigma_y, started):
    """Off the range the system is sigma_y^2 I; a preconditioner by A and A^T is zero there, and the noise of y is not."""
    prior = natural_prior(SIZE)
    problem, covariance = pose(low_pass(), prior, sigma_y, count=2), StationaryCovariance(prior.power, SIZE[1:])
    x0, accuracy = prior.mean.expand(2, *SIZE), {"tolerance": 1e-6, "iterations": 200}
    a, cov, gram = dense(problem, covariance)
    r = problem.y - problem.physics.A(x0)
    weights = torch.linalg.solve(gram, r.flatten(1).double().T).T
    start = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0)) if started else None
    got = solve(problem, covariance, r, start, **accuracy).flatten(1)
    assert (got - weights).norm() < 1e-4 * weights.norm()
    begun = None if start is None else problem.physics.A(start)          # as an earlier solution is
    correction, _ = condition(problem, covariance, x0, begun, **accuracy)
    expected = weights @ a @ cov
    assert (correction.flatten(1) - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("sampler", [MomentMatching(steps=40, covariance="spectral"), DAPS(steps=40),
                                     MomentMatching(steps=40, covariance="low-rank", rank=2)], ids=lambda s: s.about[:4])
def test_samples_are_those_of_the_posterior(sampler):
    prior = natural_prior(SIZE)
    problem = pose(low_pass(), prior, 0.1)
    samples = restore(problem, prior, sampler, samples=500, batch_size=500).samples[0]
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.1)


@pytest.mark.parametrize("make", [rough_prior, natural_prior])
def test_the_exact_covariance_with_a_preconditioner_and_without(make):
    """A prior of no symmetry has no spectrum to prepare solves by."""
    prior = make((1, 6, 8))
    problem = pose(low_pass((1, 6, 8)), prior, 0.01)
    samples = restore(problem, prior, MomentMatching(steps=60, covariance="exact"), samples=500, batch_size=500).samples[0]
    assert_moments_close(samples, *prior.posterior(problem), discretisation=0.1)


@pytest.mark.parametrize("covariance", ["spectral", "low-rank"])
def test_the_evidence_counts_the_noise_beside_the_range(covariance):
    prior = natural_prior(SIZE)
    problem = pose(low_pass(), prior, 0.1)
    sampler = TwistedSMC(steps=3, covariance=covariance, rank=2, cg_tolerance=1e-6, cg_iterations=200)
    *_, last = sampler.steps(prior, problem, range(50))
    assert abs(last.info["log_evidence"] - log_evidence(prior, problem)) < 0.05
    assert last.info["effective_share"] > 0.98


@pytest.mark.parametrize("sampler", [MomentMatching(covariance="spectral", steps=12), DAPS(steps=8)], ids=["spectral", "daps"])
def test_a_photo_through_an_ideal_low_pass_is_restored(sampler):
    """A 64th of the cosines and much noise: it ended in values that are not finite."""
    physics, x = low_pass((3, 32, 32), 4), sample_image(size=32)
    result = restore(simulate(physics, x, 0.2), load_prior("natural"), sampler)
    assert (result.mean - x).square().mean().sqrt() < 0.3
    assert result.report["residual"]["value"] == pytest.approx(1, abs=0.05)


def test_a_selection_written_to_entries_is_not_projected():
    """So it costs no operator calls, and nothing changes by rounding."""
    lines = random_lines((8, 8), 2, seed=0)
    for physics in (operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5)), operators.CompressedSensing(SIZE, 0.5),
                    operators.MRI((2, 8, 8), lines), operators.Denoising(SIZE), operators.GaussianBlur(SIZE, sigma=0.5)):
        problem = simulate(physics, torch.rand(2, *physics.img_size), 0.1)
        assert within_range(problem, problem.y) is problem.y
        assert problem.of(problem.y + 1).__dict__["reaches_entries"] is True        # which is not asked again
        assert problem.calls.operator == 0
    problem = simulate(low_pass(), torch.rand(2, *SIZE), 0.1)
    inside = within_range(problem, problem.y)
    torch.testing.assert_close(within_range(problem, inside), inside)
    assert (problem.y - inside).norm() > 0.5 * 0.1 * (2 * 55) ** 0.5


def test_masks_for_each_measurement_are_entries():
    masks = torch.stack([operators.random_mask(SIZE, keep) for keep in (0.3, 0.7)])
    assert Problem(operators.Inpainting(SIZE, masks), torch.zeros(2, *SIZE), 0.1).reaches_entries
