"""What every sampler promises, one table row each."""

import deepinv
import pytest
import torch
from deepinv.models import DRUNet
from linear_latents import suited
from pydantic import ValidationError
from toys import KERNEL, OPERATORS, draw, natural_prior, pose

import operators
from invdiff.errors import InputError
from invdiff.posterior import (
    DAPS,
    DDNM,
    DDRM,
    DDS,
    DPS,
    ILVR,
    PSLD,
    AnnealedLangevin,
    DiffPIR,
    MomentMatching,
    PiGDM,
    REDDiff,
    ReSample,
    SplitGibbs,
    TwistedSMC,
)
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate
from operators import mri

SAMPLERS = [MomentMatching(steps=6), PiGDM(steps=6), DiffPIR(steps=6), DDRM(steps=6), DPS(steps=6), DDNM(steps=6),
            DDS(steps=6), ILVR(steps=6), DAPS(steps=6, langevin_steps=5), SplitGibbs(steps=6, langevin_steps=5),
            REDDiff(steps=6), AnnealedLangevin(steps=6), TwistedSMC(steps=6), PSLD(steps=6), ReSample(steps=6)]
NEED_SVD = (DDRM, DDNM, ILVR)                       # the last two for noisy data alone
SERVE_NONLINEAR = (DPS, DAPS, SplitGibbs, REDDiff, AnnealedLangevin, PSLD, ReSample)
pytestmark = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)


def skip_population(sampler):
    if sampler.population:
        pytest.skip("its samples are one population, by design: they depend on how many there are")


def last(sampler, prior, problem, seeds):
    *_, step = sampler.steps(prior, problem, seeds)
    return step.x0


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_chain_alone_is_the_chain_in_a_batch(sampler, operator):
    """To rounding: batched FFTs and matrix products may add in another order."""
    skip_population(sampler)
    prior = suited(sampler, natural_prior())
    problem = pose(operator, prior, 0.05)
    batch = last(sampler, prior, problem, range(8))
    assert (batch[0] - batch[1]).abs().max() > 0.01 or operator == "denoising"
    for seed in (0, 5):
        torch.testing.assert_close(last(sampler, prior, problem, [seed])[0], batch[seed], rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma_y", [0.0, 0.05])
def test_samples_depend_on_their_seed_alone(sampler, sigma_y):
    """Through restore: bitwise whatever is drawn beside on a CPU, and to rounding whatever the batch size is."""
    skip_population(sampler)
    prior = suited(sampler, natural_prior())
    problem = pose("inpainting", prior, sigma_y, count=2)
    default = restore(problem, prior, sampler, samples=3, device="cpu").samples
    assert torch.equal(restore(problem, prior, sampler, samples=3, device="cpu", batch_size=1).samples, default)
    assert torch.equal(restore(problem, prior, sampler, samples=1, device="cpu").samples, default[:, :1])
    second = Problem(problem.physics, problem.y[1:], sigma_y)
    assert not torch.equal(restore(second, prior, sampler, device="cpu").samples[0, 0], default[1, 0])  # measurement 0 now
    torch.testing.assert_close(restore(problem, prior, sampler, samples=3, batch_size=4).samples, default, rtol=0, atol=1e-4)


def test_what_a_measurement_holds_where_nothing_was_measured_does_not_matter(sampler):
    """A photo whose holes were painted white, say."""
    prior = suited(sampler, natural_prior())
    problem = pose("inpainting", prior, 0.05)
    painted = Problem(problem.physics, torch.where(problem.observed(), problem.y, 1.0), 0.05)
    assert not torch.equal(painted.y, problem.y)
    assert torch.equal(last(sampler, prior, painted, [0, 1]), last(sampler, prior, problem, [0, 1]))


def test_seed_zero_is_a_seed(sampler):
    prior = suited(sampler, natural_prior())
    problem = pose("inpainting", prior, 0.05)
    zero, again, one = (restore(problem, prior, sampler, seed=s).samples for s in (0, 0, 1))
    assert torch.equal(zero, again)
    assert not torch.equal(zero, one)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_noiseless_measurement_is_legal(sampler, operator):
    prior = suited(sampler, natural_prior())
    problem = pose(operator, prior, 0.0)
    for step in sampler.steps(prior, problem, [0, 1]):
        assert step.x.isfinite().all()
        assert step.x0.isfinite().all()


def test_steps_are_float32_fall_to_zero_and_leave_no_graph(sampler):
    prior = suited(sampler, natural_prior())
    problem = pose("blur", prior, 0.05)
    before = problem.y.clone()
    steps = list(sampler.steps(prior, problem, [0, 1]))
    assert len(steps) == 6
    assert [s.sigma for s in steps] == sorted((s.sigma for s in steps), reverse=True)
    assert steps[-1].sigma == 0
    for step in steps:
        assert step.x.shape == step.x0.shape == (2, 1, 8, 8)
        assert step.x.dtype == step.x0.dtype == torch.float32
        assert not step.x.requires_grad
        assert not step.x0.requires_grad
    assert torch.equal(problem.y, before)


def test_as_many_seeds_as_measurements(sampler):
    prior = suited(sampler, natural_prior())
    problem = pose("blur", prior, 0.05, count=2)
    with pytest.raises(ValueError, match="seeds: expected 2, one for each measurement, got 3"):
        next(sampler.steps(prior, problem, [0, 1, 2]))


def test_parameters_are_frozen_and_known(sampler):
    with pytest.raises(ValidationError):
        type(sampler)(step=30)
    with pytest.raises(ValidationError):
        type(sampler)(steps=0)
    with pytest.raises(ValidationError):
        type(sampler)(sigma_max=-1.0)
    with pytest.raises(ValidationError):
        sampler.num_steps = 3


def rows(x, **kwargs):
    return x[..., ::2, :]


def rows_transposed(y, **kwargs):
    return torch.stack([y, torch.zeros_like(y)], -2).flatten(-3, -2)


FOREIGN = {
    "Inpainting": lambda: deepinv.physics.Inpainting((1, 8, 8), mask=operators.random_mask((1, 8, 8), 0.5).float()),
    "Denoising": lambda: deepinv.physics.Denoising(),
    "BlurFFT": lambda: deepinv.physics.BlurFFT((1, 8, 8), filter=KERNEL[None, None]),
    "LinearPhysics": lambda: deepinv.physics.LinearPhysics(A=rows, A_adjoint=rows_transposed),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_deepinv_physics_serves(sampler, name):
    physics, prior = FOREIGN[name](), suited(sampler, natural_prior())
    problem = simulate(physics, draw(prior), 0.05)
    if isinstance(sampler, NEED_SVD) and name in ("BlurFFT", "LinearPhysics"):
        wanted = rf"{type(sampler).__name__}.* needs .* {name} .*would work: .*moment_matching, pigdm, diffpir, dps"
        with pytest.raises(ValueError, match=wanted):
            restore(problem, prior, sampler)
        return
    samples = restore(problem, prior, sampler, samples=2).samples
    assert samples.shape == (1, 2, 1, 8, 8)
    assert samples.isfinite().all()
    ours = {"Inpainting": "inpainting", "Denoising": "denoising"}.get(name)
    if ours:
        same = Problem(OPERATORS[ours]((1, 8, 8)), problem.y, 0.05)
        torch.testing.assert_close(restore(same, prior, sampler, samples=2).samples, samples, rtol=0, atol=0.01)


def foreign_denoiser(channels=1):
    torch.manual_seed(0)
    return DRUNet(in_channels=channels, out_channels=channels, nc=[4, 4, 4, 4], nb=1, pretrained=None).eval()


def test_any_deepinv_denoiser_serves(sampler):
    """Without a card the error's spectrum is modelled, and the report says so."""
    size = (1, 16, 16)
    problem = simulate(operators.Inpainting(size, operators.random_mask(size, 0.5)), torch.rand(1, *size), 0.05)
    result = restore(problem, suited(sampler, foreign_denoiser()), sampler, samples=2)
    assert result.samples.isfinite().all()
    if sampler.uses_spectrum:
        assert "model" in result.report["error_spectrum"]
    else:
        assert "error_spectrum" not in result.report
    prior = suited(sampler, natural_prior())
    known = restore(pose("blur", prior, 0.05), prior, sampler)
    assert "exact" in known.report.get("error_spectrum", "exact")


def test_a_modelled_spectrum_belongs_to_its_own_measurement(sampler):
    """What is beside a measurement in the batch does not matter for a prior without a card, either."""
    size = (1, 16, 16)
    x = torch.rand(2, *size)
    x[1] = 0.5 + 0.02 * x[1]                                            # a flat picture beside a rough one
    problem = simulate(operators.Inpainting(size, operators.random_mask(size, 0.5)), x, 0.05)
    alone, together = (restore(problem, suited(sampler, foreign_denoiser()), sampler, batch_size=b).samples for b in (1, 2))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


class Rows(deepinv.physics.LinearPhysics):
    """Measurements (B, m): half as many sums as there are pixels."""

    matrix = torch.randn(128, 256, generator=torch.Generator().manual_seed(0)) / 16

    def A(self, x, **kwargs):
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y, **kwargs):
        return (y @ self.matrix).reshape(-1, *self.img_size)


ROWS = Rows(img_size=(1, 16, 16))
COILS = operators.MultiCoilMRI(mri.sampling.random_lines((16, 16), 2, 0.2), mri.birdcage_maps((16, 16), 3))


@pytest.mark.parametrize("physics", [ROWS, COILS], ids=["vectors", "coils"])
def test_a_chain_alone_whatever_the_measurement_s_shape(sampler, physics):
    """And a modelled spectrum, of which each measurement has its own."""
    skip_population(sampler)
    if isinstance(sampler, NEED_SVD):
        pytest.skip("for operators with singular values")
    channels = physics.img_size[0]
    x = torch.rand(2, *physics.img_size, generator=torch.Generator().manual_seed(0))
    x[1] *= 0.1
    problem, prior = simulate(physics, x, 0.05), suited(sampler, foreign_denoiser(channels), channels)
    alone, together = (restore(problem, prior, sampler, samples=2, batch_size=size).samples for size in (1, 3))
    size = alone.abs().max()
    assert size < 10
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3 * float(size))


def test_a_nonlinear_operator_is_refused_or_served(sampler):
    class Squared(deepinv.physics.Physics):
        img_size = (1, 8, 8)

        def A(self, x, **kwargs):
            return x.square()

    prior = suited(sampler, natural_prior())
    problem = Problem(Squared(), draw(prior).square(), 0.05)
    if isinstance(sampler, SERVE_NONLINEAR):
        for known in (prior, suited(sampler, foreign_denoiser())):         # which has no card, as the operator has no A_dagger
            assert restore(problem, known, sampler).samples.isfinite().all()
    else:
        with pytest.raises(ValueError, match=f"{type(sampler).__name__}.* needs .*Squared .*dps"):
            restore(problem, prior, sampler)


def test_a_nonlinear_operator_without_a_gradient_is_refused(sampler):
    if not isinstance(sampler, SERVE_NONLINEAR):
        pytest.skip("for linear operators")

    class Detached(deepinv.physics.Physics):
        img_size = (1, 8, 8)

        def A(self, x, **kwargs):
            return x.detach()

    prior = suited(sampler, natural_prior())
    with pytest.raises(InputError, match=r"(Detached|Decoded) gives no gradient"):
        restore(Problem(Detached(), draw(prior), 0.05), prior, sampler)


def test_an_svd_of_deepinv_s_whose_coefficients_have_another_shape(sampler):
    """A modelled spectrum is one for each measurement, and their half planes are (B, C, H, W // 2 + 1, 2)."""
    if sampler.latents or isinstance(sampler, NEED_SVD) or sampler.population:
        pytest.skip("for images, or for operators with real singular values")
    kernel = deepinv.physics.functional.blur.gaussian_blur(sigma=(0.8, 0.8))
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[1] = 0.5 + 0.02 * x[1]
    problem, prior = simulate(deepinv.physics.BlurFFT((3, 16, 16), filter=kernel), x, 0.05), foreign_denoiser(3)
    alone, together = (restore(problem, prior, sampler, batch_size=size).samples for size in (1, 3))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3 * float(alone.abs().max()))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_for_each_measurement(sampler, channels):
    """(B, 1, H, W) masks: measurement j as if it were alone with its mask, on the streams of measurement j."""
    size = (channels, 8, 8)
    prior = suited(sampler, natural_prior(size))
    skip_population(sampler)                # takes one measurement at a time; restore() says so
    masks = torch.stack([operators.random_mask(size, 0.5, s) for s in (0, 1)])
    problem = simulate(operators.Inpainting(size, masks), draw(prior, 2), 0.05)
    together = restore(problem, prior, sampler, samples=2).samples
    for j in range(2):
        repeated = Problem(operators.Inpainting(size, masks[j]), problem.y[[j, j]], 0.05)
        torch.testing.assert_close(restore(repeated, prior, sampler, samples=2).samples[j], together[j], rtol=0, atol=1e-4)
