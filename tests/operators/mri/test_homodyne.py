"""Partial Fourier with a known phase."""

import pytest
import torch

import operators
from operators.mri import PhaseConstrained, low_resolution_phase


def grid(height, width):
    rows = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    columns = torch.linspace(-1, 1, width, dtype=torch.float64)
    return rows, columns


def partial_mask(height, width, extra):
    """The left half of k-space, the centre, and `extra` columns to its right."""
    return (torch.arange(width) <= width // 2 + extra).expand(height, width)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_half_of_k_space_determines_a_real_image(size):
    x = torch.randn(1, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single = operators.MRI((2, *size), partial_mask(*size, extra=0)).to(torch.float64)
    physics = PhaseConstrained(single, torch.full(size, 0.4), tol=1e-12).to(torch.float64)
    torch.testing.assert_close(physics.A_dagger(physics.A(x)), x, rtol=0, atol=1e-10)
    without = torch.linalg.vector_norm(single.A_dagger(physics.A(x)), dim=1)
    assert (without - x[:, 0].abs()).abs().max() > 0.1


def test_the_phase_of_the_centre_serves_for_a_smooth_one():
    size = (48, 40)
    rows, columns = grid(*size)
    x = ((rows**2 + 1.2 * columns**2 < 0.7) * (1 + 0.5 * torch.cos(20 * rows + 11 * columns)))[None, None]
    phase = 0.8 * torch.sin(1.5 * rows) + 0.5 * columns
    channels = torch.cat([x * phase.cos(), x * phase.sin()], dim=1)
    single = operators.MRI((2, *size), partial_mask(*size, extra=6)).to(torch.float64)
    y = single.A(channels)
    estimate = low_resolution_phase(single, y, center=(48, 13))
    assert estimate.shape == (1, 1, *size)
    inside = x[0, 0] > 0
    assert torch.angle(torch.polar(torch.ones(()).double(), estimate[0, 0] - phase))[inside].abs().mean() < 0.1
    got = PhaseConstrained(single, estimate, max_iter=30).to(torch.float64).A_dagger(y)
    zero_filled = torch.linalg.vector_norm(single.A_adjoint(y), dim=1, keepdim=True)
    assert (got - x).norm() < 0.6 * (zero_filled - x).norm()


def test_series_and_batches_of_phases():
    phase = torch.rand(2, 1, 3, 5, 6)
    inner = operators.MRI((2, 3, 5, 6), torch.ones(3, 5, 6), spatial_dims=2)
    physics = PhaseConstrained(inner, phase)
    x = torch.rand(2, 1, 3, 5, 6)
    torch.testing.assert_close(physics.A(x), inner.A(torch.cat([x * phase.cos(), x * phase.sin()], dim=1)))
    torch.testing.assert_close(physics.A_dagger(physics.A(x)), x)
    gamma, z = torch.tensor([0.2, 3.0]), torch.rand(2, 1, 3, 5, 6)
    y = physics.A(x)
    for given in (gamma, gamma.reshape(2, 1, 1, 1)):
        got, weight = physics.prox_l2(z, y, given), gamma.reshape(2, 1, 1, 1, 1)
        torch.testing.assert_close(weight * physics.A_adjoint_A(got) + got, weight * physics.A_adjoint(y) + z)


def test_bad_arguments_are_refused():
    inner = operators.MRI((2, 5, 6), torch.ones(5, 6))
    for phase, message in [
        (torch.zeros(5, 7), r"phase: expected \(5, 6\) or .* got \(5, 7\)"),
        (torch.zeros(5, 6, dtype=torch.complex64), "phase: expected real radians, got torch.complex64"),
        (torch.full((5, 6), torch.nan), "phase: expected finite values"),
    ]:
        with pytest.raises(ValueError, match=message):
            PhaseConstrained(inner, phase)
    with pytest.raises(ValueError, match="physics: expected MRI, or MultiCoilMRI with one set of maps, got Denoising"):
        PhaseConstrained(operators.Denoising((2, 5, 6)), torch.zeros(5, 6))
    for center in [(5,), (5, 7), (0, 3)]:
        with pytest.raises(ValueError, match="center: expected"):
            low_resolution_phase(inner, torch.zeros(1, 2, 5, 6), center)
