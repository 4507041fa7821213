"""PSLD and ReSample against closed forms: a linear autoencoder makes the posterior Gaussian."""

import pytest
import torch
from linear_latents import LinearAutoencoder, Same, latent_prior
from torch import nn
from toys import OPERATORS, assert_moments_close, draw, natural_prior, pose, sample

import operators
from invdiff import InputError
from invdiff.diffusion.integrators import RK45
from invdiff.posterior import DPS, PSLD, MomentMatching, ReSample
from invdiff.posterior.latents import image_of, in_latents, most_likely
from invdiff.posterior.likelihood import Linearised
from invdiff.posterior.psld import glue_pull
from invdiff.posterior.sampler import for_chains
from invdiff.priors import Guided
from invdiff.priors.latent import LatentPrior
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.02, 0.2])
def test_resample_draws_the_posterior_of_a_linear_autoencoder(operator, sigma_y):
    """Each step leaves the exact law at its level, but for the first, which takes noise alone for the state."""
    latents, images = latent_prior()
    problem = pose(operator, images, sigma_y)
    samples = sample(ReSample(steps=15), latents, problem, 500)
    assert_moments_close(samples, *images.posterior(problem), discretisation=0.02)


def test_resample_works_in_single_precision_whatever_the_default_is():
    latents, images = latent_prior()
    latents.card["autoencoder"] = {"psnr": {"mean": 30.0}}         # the image's own error is drawn, too
    problem = pose("inpainting", images, 0.2)
    expected = sample(ReSample(steps=2), latents, problem, 1)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(sample(ReSample(steps=2), latents, problem, 1), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_resample_without_draws_spreads_too_little():
    """The mean is right; an estimate in the place of a draw takes variance away."""
    latents, images = latent_prior()
    problem = pose("inpainting", images, 0.2)
    samples = sample(ReSample(steps=15, draw=False), latents, problem, 500).flatten(1).double()
    mean, cov = images.posterior(problem)
    assert (samples.mean(0) - mean.flatten()).norm() < 0.2 * cov.trace().sqrt()
    assert torch.cov(samples.T).trace() < 0.8 * cov.trace()


@pytest.mark.parametrize("gamma", [1e-9, 40.0, 1e9])
def test_their_state_is_the_product_of_two_gaussians(gamma):
    """N(z0, after^2) and N(z', s^2), s^2 = gamma after^2 (sigma^2 - after^2): from z' alone to z0 alone."""
    sigma, after = 0.7, 0.3
    z, free, z0, n = torch.randn(4, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = ReSample(gamma=gamma)._state(z, free, z0, sigma, after, n)
    ddim, wide = free + after / sigma * (z - free), gamma * after**2 * (sigma**2 - after**2)
    mean = (wide * z0 + after**2 * ddim) / (wide + after**2)
    torch.testing.assert_close(got, mean + (wide * after**2 / (wide + after**2)) ** 0.5 * n)


@pytest.mark.parametrize("glue", [0.0, 3.0])
@pytest.mark.parametrize("sigma_y", [0.05, 0.2])
def test_psld_is_exact_where_a_residual_has_one_component(glue, sigma_y):
    """As dps is, to 5 %, whatever the glue: with columns of W orthonormal it pulls along A, too."""
    latents, images = latent_prior()
    mask = torch.zeros(1, 8, 8)
    mask[0, 3, 4] = 1
    problem = pose(operators.Inpainting((1, 8, 8), mask), images, sigma_y)
    samples, (mean, cov) = sample(PSLD(steps=60, glue=glue), latents, problem, 500), images.posterior(problem)
    assert_moments_close(samples, mean, cov, discretisation=0.05)
    seen, number = samples[:, 0, 3, 4].double(), 3 * 8 + 4
    assert abs(seen.mean() - mean.flatten()[number]) < 0.25 * cov[number, number].sqrt()
    assert abs(seen.var() / cov[number, number] - 1) < 0.05 + 4 * (2 / 500) ** 0.5


def test_psld_without_glue_is_dps_in_latents():
    """With the identity for an autoencoder it is dps itself."""
    prior = natural_prior()
    problem = pose("blur", prior, 0.05)
    same = LatentPrior(prior, Same())
    alone = sample(DPS(steps=10, sigma_max=20.0, sigma_min=0.02), prior, problem, 2)
    torch.testing.assert_close(sample(PSLD(steps=10, glue=0), same, problem, 2), alone, rtol=0, atol=1e-4)


def test_psld_with_adaptive_steps_draws_each_chain_for_itself():
    """Two chains, as many as the latents are wide: levels of theirs must not be taken for columns."""
    latents, images = latent_prior()
    problem = pose("blur", images, 0.05)
    adaptive = PSLD(steps=4, integrator=RK45())
    *_, both = adaptive.steps(latents, problem, [0, 1])
    *_, alone = adaptive.steps(latents, problem, [1])
    torch.testing.assert_close(both.x0[1:], alone.x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_psld_is_near_the_posterior(operator):
    """Biased by design: one number cannot be right for components that A passes unalike. The mean is off by 0.6 of the
    posterior's spread at most, and its variance by a factor of three; the prior's would be off by 2.8 and 5.7 or more."""
    latents, images = latent_prior()
    problem = pose(operator, images, 0.05)
    samples = sample(PSLD(steps=60), latents, problem, 200).flatten(1).double()
    mean, cov = images.posterior(problem)
    assert (samples.mean(0) - mean.flatten()).norm() < 0.6 * cov.trace().sqrt()
    assert 1 / 3 < torch.cov(samples.T).trace() / cov.trace() < 3


def test_the_glue_s_gradient():
    """Of |z - W^T (x + A^T (y - A x) / size - 0.5)|^2 / 2 at x = 0.5 + W z. With W^T W = I and M = W^T A^T A W / size, what
    is squared is M z - W^T A^T (y - A 0.5) / size, and the gradient M^T of that."""
    latents, images = latent_prior()
    problem, coder = pose("blur", images, 0.05), latents.autoencoder
    z, size = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1)), 1.7
    a = problem.physics.A(torch.eye(64).reshape(64, 1, 8, 8)).flatten(1).T
    aw = a @ coder.basis
    m = aw.T @ aw / size
    b = aw.T @ (problem.y - problem.physics.A(torch.full((1, 1, 8, 8), 0.5))).flatten() / size
    wanted = -m.T @ (m @ z.flatten() - b)
    torch.testing.assert_close(glue_pull(latents, problem, z, torch.tensor(size)).flatten(), wanted, rtol=1e-3, atol=1e-5)


class Curved(nn.Module):
    """decode(z) = tanh(W z): an autoencoder that is not linear."""

    def __init__(self):
        super().__init__()
        self.linear = LinearAutoencoder()
        self.channels, self.latent_channels, self.factor = 1, 4, 4

    def encode(self, x):
        return self.linear.encode(x)

    def decode(self, z):
        return (self.linear.decode(z) - 0.5).tanh() + 0.5


def curved_problem(sigma_y=0.05):
    prior = LatentPrior(latent_prior()[0].denoiser, Curved())
    physics = OPERATORS["blur"]((1, 8, 8))
    z = 1.5 * torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    return prior, simulate(physics, prior.decode(z), sigma_y)


def test_the_linearisation_has_the_decoder_s_jacobian():
    prior, problem = curved_problem()
    _, hidden = in_latents(prior, problem, "any")
    z, v = torch.randn(2, 2, 4, 2, 2, generator=torch.Generator().manual_seed(4))
    at = Linearised(hidden, z)
    dense = torch.autograd.functional.jacobian(lambda one: hidden.physics.A(one[None])[0], z[1]).reshape(64, 16)
    torch.testing.assert_close(at.push(v)[1].flatten(), dense @ v[1].flatten(), rtol=1e-4, atol=1e-5)
    w = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(at.pull(w)[1].flatten(), dense.T @ w[1].flatten(), rtol=1e-4, atol=1e-5)


def test_consistent_latents_are_the_most_likely():
    """The gradient of what is minimised is zero there, and a Gauss-Newton step alone falls short of it."""
    prior, problem = curved_problem()
    _, hidden = in_latents(prior, problem, "any")
    mean, power = torch.zeros(2, 4, 2, 2), torch.full((1, 2, 2), 0.5)

    def slope(steps):
        z = most_likely(hidden, mean, power, steps, tolerance=1e-6).requires_grad_()
        loss = (problem.y - hidden.A(z)).square().sum() / (2 * 0.05**2) + z.square().sum() / (2 * 0.5)
        return torch.autograd.grad(loss, z)[0].norm()

    assert slope(8) < 1e-2 * slope(1)


def test_what_the_autoencoder_loses_is_noise_of_the_data_and_put_back_at_the_end():
    """x = decode(z) + e, e white of the prior's error: mean and variance given y, by dense algebra."""
    latents, images = latent_prior({"autoencoder": {"psnr": {"mean": 20.0}}})
    problem = pose("inpainting", images, 0.05)
    latent, hidden = in_latents(latents, problem, "any")
    assert hidden.sigma_y == pytest.approx((0.05**2 + 0.1**2) ** 0.5, rel=0.2)        # as one random image shows it
    z = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(6))
    x, seen = latent.decode(z), problem.observed()
    wanted = x + seen * 0.1**2 / (0.1**2 + 0.05**2) * (problem.y - x)
    torch.testing.assert_close(image_of(latent, problem, z, None), wanted)
    generator, many = torch.Generator().manual_seed(7), for_chains(problem, range(2000))
    drawn = image_of(latent, many, z.expand(2000, -1, -1, -1), lambda shape: torch.randn(2000, *shape, generator=generator))
    variance = torch.where(seen, 0.1**2 * 0.05**2 / (0.1**2 + 0.05**2), 0.1**2)
    assert ((drawn.mean(0) - wanted[0]) / (variance[0] / 2000).sqrt()).abs().max() < 4.5            # 64 pixels
    assert (drawn.var(0) / variance[0] - 1).abs().max() < 4.5 * (2 / 2000) ** 0.5


def test_a_sample_leaves_the_noise_of_its_measurement():
    """Where the autoencoder loses five times the noise, too: with the mean of what it lost, a fifth of the noise was left."""
    latents, images = latent_prior({"autoencoder": {"psnr": {"mean": 20.0}}})
    problem = pose("inpainting", images, 0.02)
    lost = 0.1 * torch.randn(problem.y.shape, generator=torch.Generator().manual_seed(8))
    problem = Problem(problem.physics, problem.y + problem.observed() * lost, 0.02)
    report = restore(problem, latents, ReSample(), samples=8, device="cpu").report
    assert report["residual"]["value"] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("sampler", [PSLD(), ReSample()], ids=lambda s: type(s).__name__)
def test_a_prior_of_images_is_refused(sampler):
    prior = natural_prior()
    problem = pose("blur", prior, 0.05)
    with pytest.raises(InputError, match=f"{type(sampler).__name__} draws latents, and needs a prior of them"):
        restore(problem, prior, sampler)


def test_a_prior_of_latents_is_refused_by_the_others_and_for_other_images():
    latents, images = latent_prior()
    problem = pose("blur", images, 0.05)
    with pytest.raises(InputError, match=r"no denoiser of images .MomentMatching was to use it as one.*psld, resample"):
        restore(problem, latents, MomentMatching())
    with pytest.raises(InputError, match=r"no denoiser of images .an image of 1 channels"):
        latents(draw(images), 0.1)
    colour = simulate(operators.Denoising((3, 8, 8)), torch.rand(1, 3, 8, 8), 0.05)
    with pytest.raises(InputError, match="images of 1 channels, and the problem's have 3"):
        restore(colour, latents, PSLD())
    odd = simulate(operators.Denoising((1, 8, 10)), torch.rand(1, 1, 8, 10), 0.05)
    with pytest.raises(InputError, match="multiples of 4, got 8 x 10"):
        restore(odd, latents, PSLD())


def test_guidance_reaches_the_latents():
    class Known(nn.Module):
        classes = 2

        def forward(self, z, sigma, classes=None, **kwargs):
            return torch.zeros_like(z) + (0 if classes is None else classes.reshape(-1, 1, 1, 1) + 1)

    prior = Guided(LatentPrior(Known(), LinearAutoencoder()), 1)
    z = torch.zeros(3, 4, 2, 2)
    assert torch.equal(prior(z, 1.0), torch.full_like(z, 2.0))
    problem = Problem(operators.Denoising((1, 8, 8)), torch.rand(1, 1, 8, 8), 0.5)
    assert restore(problem, prior, ReSample(steps=3), samples=2).samples.isfinite().all()


def test_finished_chains_are_kept(tmp_path):
    """What the prior makes of a picture's latents tells it from others."""
    latents, images = latent_prior()
    problem = pose("blur", images, 0.05)
    whole = restore(problem, latents, ReSample(steps=3), samples=2, checkpoint=tmp_path / "part")
    again = restore(problem, latents, ReSample(steps=3), samples=2, checkpoint=tmp_path / "part")
    assert torch.equal(whole.samples, again.samples)
