"""What restore() refuses of a problem before it begins."""

import warnings

import pytest
import torch
from deepinv.models import Reconstructor
from deepinv.physics import Blur, DecomposablePhysics, Downsampling, Inpainting, LinearPhysics, Tomography
from test_restore import SIZE, prior

import operators
from invdiff.checks import check_operator
from invdiff.errors import InputError
from invdiff.interop import DeepinvSampler
from invdiff.posterior import DPS, MomentMatching
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate


def plain():
    return Problem(operators.Denoising(SIZE), torch.zeros(1, *SIZE), 0.1)


@pytest.mark.parametrize(("arguments", "said"), [
    ((plain(), "natural", DPS()), "prior: expected a Denoiser, such as load_prior('natural'), got 'natural'"),
    ((plain(), "mine.safetensors", DPS()), "prior: expected a Denoiser, such as load_prior('mine.safetensors'), got 'mine"),
    ((plain(), torch.nn.Identity(), DPS()), "prior: expected a Denoiser, such as load_prior('natural'), got Identity"),
    ((plain(), prior(), "dps"), "sampler: expected a Sampler, such as MomentMatching() of invdiff.posterior, got 'dps'"),
    ((plain(), prior(), DPS), "sampler: expected a Sampler, such as DPS() of invdiff.posterior, got the class DPS"),
    ((prior(), plain(), DPS()), "problem: expected a Problem, such as Problem(physics, y, sigma_y), got "),
    ((plain().physics, prior(), DPS()), "got Denoising; the order is restore(problem, prior, sampler)"),
])
def test_an_argument_of_another_kind_is_told(arguments, said):
    with pytest.raises(InputError) as caught:
        restore(*arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 6])
def test_parameters_for_another_number_of_measurements_are_refused(count):
    masks = torch.stack([operators.random_mask(SIZE, keep) for keep in (0.25, 0.5, 0.75)]).float()
    physics = Inpainting(SIZE, mask=masks)
    with pytest.raises(InputError, match=f"y: expected 3 measurements, as Inpainting has parameters of its own .* got {count}"):
        restore(Problem(physics, torch.zeros(count, *SIZE), 0.1), prior(), MomentMatching(steps=2))
    assert restore(Problem(physics, torch.zeros(3, *SIZE), 0.1), prior(), MomentMatching(steps=2)).samples.isfinite().all()


def test_a_measurement_that_would_broadcast_is_refused():
    physics = Blur(filter=torch.ones(1, 1, 3, 3) / 9, padding="circular", img_size=SIZE)
    with pytest.raises(InputError, match=r"y: expected \(B, \*\(1, 8, 8\)\), as Blur makes .* got \(1, 3, 8, 8\)"):
        restore(Problem(physics, torch.zeros(1, 3, 8, 8), 0.1), prior(), MomentMatching(steps=2))


class Thinned(LinearPhysics):
    """Every other column, after a shift that a wrong transpose forgets."""

    def __init__(self, right, size):
        super().__init__(img_size=size)
        self.right = right

    def A(self, x, **kwargs):
        return x.roll(1, -1)[..., ::2]

    def A_adjoint(self, y, **kwargs):
        filled = torch.stack([y, torch.zeros_like(y)], -1).flatten(-2)
        return filled.roll(-1, -1) if self.right else filled


@pytest.mark.parametrize("size", [SIZE, (3, 256, 256)])
def test_a_transpose_that_is_none_is_refused(size):
    """However large the image is; and the test leaves no trace."""
    wrong, right = (simulate(Thinned(kind, size), torch.rand(2, *size), 0.1) for kind in (False, True))
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="Thinned: its A_adjoint is not the transpose of its A"):
        check_operator(wrong, True)
    check_operator(right, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert wrong.calls.operator == right.calls.operator == 0


def test_restore_tests_the_transpose():
    with pytest.raises(InputError, match="Thinned: its A_adjoint"):
        restore(simulate(Thinned(False, SIZE), torch.rand(1, *SIZE), 0.1), prior(), MomentMatching(steps=2))


def test_a_transpose_of_another_shape_is_refused():
    physics = LinearPhysics(A=lambda x, **kw: x[..., ::2], A_adjoint=lambda y, **kw: y, img_size=SIZE)
    with pytest.raises(InputError, match=r"expected A_adjoint to give images \(1, 1, 8, 8\), got \(1, 1, 8, 4\)"):
        restore(Problem(physics, torch.zeros(1, 1, 8, 4), 0.1), prior(), MomentMatching(steps=2))


def test_a_transpose_that_is_nearly_one_will_do_with_a_warning():
    """deepinv's tomography, by filtered back-projection's: 1 % off, means were off by up to 0.4 of the posterior's spread."""
    physics = Tomography(8, 8, normalize=True, adjoint_via_backprop=False)
    with pytest.warns(UserWarning, match=r"Tomography: its A_adjoint is 0\.1% off the transpose of its A, .* leave"):
        check_operator(simulate(physics, torch.rand(1, *SIZE), 0.1), True)


@pytest.mark.parametrize("off", [2e-4, 2e-3, 0.05])
def test_a_warning_begins_where_rounding_ends(off):
    """Which leaves 1e-7 of exact ones, whatever the size."""
    physics = LinearPhysics(A=lambda x, **kw: 2 * x, A_adjoint=lambda y, **kw: 2 * (1 - off) * y, img_size=SIZE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_operator(Problem(physics, torch.ones(1, *SIZE), 0.1), True)
    assert len(said) == (off > 1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [
    lambda: Tomography(60, 96, normalize=True), lambda: Downsampling((1, 96, 96), filter="bicubic", factor=4),
    lambda: Blur(filter=torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0)) / 40, padding="reflect"),
    lambda: operators.CompressedSensing((1, 96, 96), 0.25)])
def test_exact_transposes_are_not_warned_of(make):
    check_operator(simulate(make(), torch.rand(1, 1, 96, 96), 0.1), True)


def test_what_is_said_of_a_wrong_transpose_helps():
    """For any number of chains, where deepinv's adjoint_function is for the number it was made for."""
    wrong = simulate(Thinned(False, SIZE), torch.rand(1, *SIZE), 0.1)
    with pytest.raises(InputError, match=r"leave A_adjoint out: deepinv\.physics\.LinearPhysics\(A=physics\.A, i") as caught:
        restore(wrong, prior(), MomentMatching(steps=2))
    assert "adjoint_function" not in str(caught.value)
    mended = Problem(LinearPhysics(A=wrong.physics.A, img_size=SIZE), wrong.y, 0.1)
    assert restore(mended, prior(), MomentMatching(steps=2), samples=3, batch_size=3).samples.isfinite().all()


def test_a_transpose_that_fails_is_told():
    def refuse(y, **kwargs):
        raise RuntimeError("it is\nlong")

    physics = LinearPhysics(A=lambda x, **kw: x[..., ::2], A_adjoint=refuse, img_size=SIZE)
    with pytest.raises(InputError, match=r"take what its A makes, \(1, 1, 8, 4\) of torch\.float32 \(it is\); leave A_adjoint"):
        restore(Problem(physics, torch.zeros(1, 1, 8, 4), 0.1), prior(), MomentMatching(steps=2))


def test_a_sampler_that_asks_for_no_transpose_takes_any():
    posed = simulate(Thinned(False, SIZE), torch.rand(1, *SIZE), 0.1)

    class Doubled(Reconstructor):
        def forward(self, y, physics, **kwargs):
            return y.repeat_interleave(2, -1)

    assert restore(posed, prior(), DeepinvSampler(build=lambda prior, sigma_y: Doubled())).samples.shape == (1, 1, *SIZE)


def test_complex_measurements_are_two_channels():
    physics = LinearPhysics(A=lambda x, **kw: torch.fft.fft2(x, norm="ortho"), img_size=SIZE,
                            A_adjoint=lambda y, **kw: torch.fft.ifft2(y, norm="ortho").real)
    with pytest.raises(InputError, match="LinearPhysics: makes complex numbers; expected real ones"):
        restore(Problem(physics, torch.zeros(1, *SIZE), 0.1), prior(), MomentMatching(steps=2))


def test_a_linear_operator_has_no_offset():
    """A(x) = 2 x + 0.3 passes the test of its transpose, on white noise of many pixels."""
    physics = LinearPhysics(A=lambda x, **kw: 2 * x + 0.3, A_adjoint=lambda y, **kw: 2 * y, img_size=SIZE)
    with pytest.raises(InputError, match=r"LinearPhysics: .* its A\(0\) has values up to 0.3; .* subtract A\(0\) from y"):
        restore(Problem(physics, torch.ones(1, *SIZE), 0.1), prior(), MomentMatching(steps=2))


def test_singular_values_are_no_less_than_zero():
    mask = torch.ones(SIZE)
    mask[..., 0] = -0.5
    with pytest.raises(InputError, match=r"DecomposablePhysics: its singular values, in mask, go down to -0\.5; expected >= 0"):
        restore(Problem(DecomposablePhysics(mask=mask, img_size=SIZE), torch.zeros(1, *SIZE), 0.1), prior(),
                MomentMatching(steps=2))


def test_noise_that_is_not_gaussian_is_warned_of():
    physics = operators.Denoising(SIZE, noise_model=operators.PoissonNoise(0.1))
    with pytest.warns(UserWarning, match="Denoising: has PoissonNoise, which is taken for white Gaussian noise of sigma_y"):
        restore(Problem(physics, torch.ones(1, *SIZE), 0.1), prior(), MomentMatching(steps=2))


def test_a_noise_level_that_is_not_the_stack_s_is_told():
    parts = [operators.Denoising(SIZE), operators.Denoising(SIZE)]
    y = torch.zeros(1, 2 * torch.Size(SIZE).numel())
    with pytest.warns(UserWarning, match=r"sigma_y: 0\.15, and the stack .* noise of 0\.01, 0\.15, all scaled to 0\.01"):
        check_operator(Problem(operators.stack(*parts, noise=(0.01, 0.15)), y, 0.15), False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_operator(Problem(operators.stack(*parts, noise=(0.01, 0.15)), y, 0.01), False)
        check_operator(Problem(operators.stack(*parts), y, 0.15), False)
