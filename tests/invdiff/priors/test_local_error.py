"""Where a denoiser errs: the fit finds the law it is made for, the weights are normalised, conditioning uses them rightly."""

import pytest
import torch
from deepinv.models import Denoiser

import operators
from invdiff.posterior.covariance import StationaryCovariance, condition
from invdiff.priors import local_error
from invdiff.priors.spectrum import ErrorSpectrum, measure_spectrum
from invdiff.simulation import simulate


def images(count=6, size=48, seed=0):
    """Left half: air. Right half: bright, with texture."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, size, size, generator=generator) * 0.4 + 0.3
    x[..., : size // 2] = 0.01
    return x


class ErrsWhereBright(Denoiser):
    """The clean image with an error of 0.2 sigma, ten times less on the left."""

    def __init__(self, clean):
        super().__init__()
        self.clean, self.calls = clean, 0

    def forward(self, x, sigma, **kwargs):
        clean = self.clean[self.calls % len(self.clean)]
        self.calls += 1
        size = torch.ones_like(clean)
        size[..., : clean.shape[-1] // 2] = 0.1
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(self.calls))
        return (clean + 0.2 * sigma * size * noise)[None]


def test_the_fit_recovers_a_log_linear_law():
    x = images(12)
    true = torch.tensor([-5.0, 0.4, 0.3])
    v = torch.einsum("bkhw,k->bhw", local_error.features(x), true).exp()[:, None]
    error = v.sqrt() * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(local_error.fit(x, error), true, atol=0.1)        # 28,000 values, whose neighbours share features


def test_the_fit_of_an_even_error_on_a_flat_image_is_a_constant():
    x = torch.full((4, 2, 32, 32), 0.5)
    error = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    total, scale = local_error.weights(x, local_error.fit(x, error))
    assert torch.allclose(total, torch.tensor(0.01), rtol=0.05)
    assert torch.allclose(scale, torch.ones(()), atol=1e-4)


def test_weights_follow_the_error_and_have_mean_square_one():
    clean = images()
    spectrum = measure_spectrum(ErrsWhereBright(clean), list(clean), (0.1, 1.0), "a test", bins=8)
    total, scale = local_error.weights(clean, spectrum.local.coefficients[0])
    assert torch.allclose(scale.square().mean((1, 2, 3)), torch.ones(len(clean)), atol=1e-5)
    assert float(scale[..., 30:].mean() / scale[..., :18].mean()) > 4
    assert torch.allclose(total.flatten(), torch.tensor(0.02**2 * (1 + 0.01) / 2), rtol=0.25)


def test_the_local_covariance_has_the_error_s_energy():
    clean = images()
    spectrum = measure_spectrum(ErrsWhereBright(clean), list(clean), (0.1, 1.0), "a test", bins=8)
    power, scale = spectrum.local_at(0.1, clean)
    variance = power.mean((1, 2, 3)) * scale.square().mean((1, 2, 3))
    assert torch.allclose(variance / local_error.SURPLUS, torch.tensor(0.02**2 * (1 + 0.01) / 2), rtol=0.25)
    assert bool((spectrum.local_at(0.001, clean)[0] <= 0.001**2 * (1 + 1e-6)).all())    # no denoiser need do worse


def test_it_travels_with_the_card_and_is_missed_where_it_is_not():
    clean = images()
    spectrum = measure_spectrum(ErrsWhereBright(clean), list(clean), (0.1, 1.0), "a test", bins=8)
    again = ErrorSpectrum.from_dict(spectrum.to_dict())
    for one, other in zip(spectrum.local_at(0.3, clean), again.local_at(0.3, clean), strict=True):
        assert torch.allclose(one, other, rtol=1e-4)
    plain = ErrorSpectrum(spectrum.sigmas, spectrum.frequencies, spectrum.power, "")
    with pytest.raises(ValueError, match="measured without it"):
        plain.local_at(0.3, clean)


@pytest.mark.parametrize("make", [
    lambda size: operators.MultiCoilMRI(operators.mri.sampling.random_lines(size, 2, seed=0),
                                        operators.mri.birdcage_maps(size, 3)),
    lambda size: operators.MRI((2, *size), operators.mri.sampling.random_lines(size, 2, seed=0)),
], ids=["coils, in image space", "one coil, orthonormal rows"])
def test_conditioning_agrees_with_dense_algebra(make):
    size = (9, 10)
    physics = make(size)
    x0 = images(1, 10)[..., :9, :]
    problem = simulate(physics, x0 + 0.05, 0.05, seed=0)
    scale = torch.linspace(0.2, 2.0, 90).reshape(1, 1, *size)
    power = torch.rand(2, 9, 6, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.001
    covariance = StationaryCovariance(power, size, scale)
    basis = torch.eye(180).reshape(180, 2, *size)
    c = torch.cat([covariance(b[None]).flatten(1) for b in basis]).double()
    a = torch.cat([physics.A(b[None]).flatten(1) for b in basis]).double().T
    r = (problem.y - physics.A(x0)).flatten().double()
    exact = c @ a.T @ torch.linalg.solve(a @ c @ a.T + 0.05**2 * torch.eye(len(r)), r)
    got, _ = condition(problem, covariance, x0, tolerance=1e-5, iterations=300)
    assert torch.allclose(c, c.T, atol=1e-8)
    assert torch.allclose(got.flatten().double(), exact, atol=1e-4 * float(exact.abs().max()))


def test_the_local_covariance_of_a_fixed_image():
    """By the equations, with the numbers that were chosen: two and a half times the error's variance that the fit expects, at
    weights whose contrast counts to the power of a half at least, and whose energy to half of the fitted power."""
    x0 = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    _, contrast, energy = local_error.features(x0)[0]
    a, b, c = -6.0, 0.2, 0.8
    where = local_error.LocalError(torch.tensor([[a, b, c]] * 2), torch.full((2, 1, 3), 1.5))
    spectrum = ErrorSpectrum(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.3, 0.8]), torch.ones(2, 1, 3), "", where)
    power, scale = spectrum.local_at(0.5, x0)
    expected = 2.5 * 1.5 * (a + b * contrast + c * energy).exp().mean()
    torch.testing.assert_close(power, expected.expand(1, 1, 9, 5))
    squared = contrast.exp() ** 0.5 * energy.exp() ** (0.5 * c)
    torch.testing.assert_close(scale[0, 0], (squared / squared.mean()).sqrt())
