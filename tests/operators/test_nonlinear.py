"""Nonlinear operators: what all of them must satisfy, and the pointwise ones. Adding one is a row in NONLINEAR."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from deepinv.physics import Blur, GaussianNoise, Physics, PoissonNoise

import operators


class Case(NamedTuple):
    make: object
    smooth: bool = True  # its gradient is that of A, and not of something smoother
    exact: bool = True  # A_dagger is a right inverse on the range of A


KERNEL = np.random.default_rng(0).dirichlet(np.ones(15)).reshape(3, 5)
NONLINEAR = {
    "hdr": Case(operators.HighDynamicRange),
    "hdr-pivot": Case(lambda s: operators.HighDynamicRange(s, gain=1.7, pivot=0.5)),
    "quantization": Case(operators.Quantization, smooth=False),
    "blur": Case(lambda s: operators.NonlinearBlur(s, KERNEL), exact=False),
    "blur-encoded": Case(lambda s: operators.NonlinearBlur(s, KERNEL, 1.8, True), exact=False),
    "phase": Case(operators.PhaseRetrieval, exact=False),
    "phase-1.3": Case(lambda s: operators.PhaseRetrieval(s, 1.3), exact=False),
    "coded": Case(operators.CodedPhaseRetrieval, exact=False),
    "jpeg": Case(operators.JPEG, smooth=False, exact=False),
    "jpeg-444": Case(lambda s: operators.JPEG(s, 60, False), smooth=False, exact=False),
    "jpeg-real": Case(lambda s: operators.JPEG(s, real=True), smooth=False, exact=False),
}
SIZES = [(3, 7, 9), (1, 8, 6), (3, 17, 5)]
every_name = pytest.mark.parametrize("name", NONLINEAR)
every_case = pytest.mark.parametrize(("name", "size"), [pytest.param(n, s, id=f"{n}-{s}") for n in NONLINEAR for s in SIZES])


def build(name, *size):
    return NONLINEAR[name].make(size).to(torch.float64)


def rand(*shape, seed=0):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_case
def test_shapes_are_as_announced_and_images_do_not_mix(name, size):
    physics = build(name, *size)
    assert isinstance(physics, Physics)
    x = rand(3, *size)
    y = physics.A(x)
    assert y.shape == (3, *physics.measurement_size)
    assert y.dtype == torch.float64
    estimate = physics.A_dagger(y)
    assert estimate.shape == x.shape
    assert estimate.isfinite().all()
    few = physics.A_dagger(y, max_iter=3)  # hybrid input-output is chaotic: more iterations blow rounding up
    for i in range(3):
        torch.testing.assert_close(physics.A(x[i : i + 1]), y[i : i + 1], rtol=0, atol=1e-12)
        torch.testing.assert_close(physics.A_dagger(y[i : i + 1], max_iter=3), few[i : i + 1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [n for n in NONLINEAR if NONLINEAR[n].smooth])
def test_the_gradient_is_that_of_finite_differences(name, size):
    physics = build(name, *size)
    x, direction = 0.05 + 0.9 * rand(2, *size), rand(2, *size, seed=1) - 0.5
    v = rand(2, *physics.measurement_size, seed=2) - 0.5
    step = 1e-6
    slope = (physics.A(x + step * direction) - physics.A(x - step * direction)) / (2 * step)
    got = (physics.A_vjp(x, v) * direction).sum()
    torch.testing.assert_close(got, (v * slope).sum(), rtol=1e-6, atol=1e-7)
    x.requires_grad_()
    (by_autograd,) = torch.autograd.grad((physics.A(x) * v).sum(), x)
    torch.testing.assert_close((by_autograd * direction).sum(), got)


@every_name
def test_gradients_are_finite_at_black_white_and_beyond(name):
    physics = build(name, 3, 8, 6)
    for level in (0.0, 1.0, -0.5, 1.5):
        x = torch.full((2, 3, 8, 6), level, dtype=torch.float64)
        assert physics.A(x).isfinite().all()
        assert physics.A_vjp(x, torch.ones(2, *physics.measurement_size, dtype=torch.float64)).isfinite().all()
        x.requires_grad_()
        (gradient,) = torch.autograd.grad((physics.A(x) - 0.3).square().sum(), x)
        assert gradient.isfinite().all()


@every_name
def test_a_dagger_lets_gradients_through(name):
    physics = build(name, 3, 8, 6)
    y = physics.A(rand(1, 3, 8, 6)).requires_grad_()
    (gradient,) = torch.autograd.grad(physics.A_dagger(y).sum(), y)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [n for n in NONLINEAR if NONLINEAR[n].exact])
def test_a_dagger_explains_the_measurement(name):
    physics = build(name, 3, 7, 9)
    y = physics.A(2 * rand(2, 3, 7, 9) - 0.5)
    torch.testing.assert_close(physics.A(physics.A_dagger(y)), y)


@every_name
def test_calls_never_change_the_operator(name):
    physics = build(name, 3, 8, 6)
    x = rand(2, 3, 8, 6)
    y = physics.A(x)
    inputs = x.clone(), y.clone()
    state = {key: value.clone() for key, value in physics.named_buffers()}
    attributes = {key: value for key, value in vars(physics).items() if key not in ("_buffers", "_modules")}
    before = physics(x), physics.A_dagger(y), physics.A_vjp(x, y)
    other = {"mask": torch.zeros(3, 3), "weights": torch.ones(1, 1, 3, 3), "sigma": 0.3, "gain": 3.0, "kernel": None}
    for call, argument in [(physics, x), (physics.A, x), (physics.A_dagger, y)]:
        torch.testing.assert_close(call(argument, **other), call(argument), rtol=0, atol=0)
        call(argument).zero_()
    torch.testing.assert_close((physics(x), physics.A_dagger(y), physics.A_vjp(x, y)), before, rtol=0, atol=0)
    torch.testing.assert_close((x, y), inputs, rtol=0, atol=0)
    torch.testing.assert_close(dict(physics.named_buffers()), state, rtol=0, atol=0)
    assert {key: value for key, value in vars(physics).items() if key not in ("_buffers", "_modules")} == attributes


@every_name
def test_noise_models_are_deepinvs(name):
    physics = NONLINEAR[name].make((3, 32, 33))
    x = rand(4, 3, 32, 33).float()
    torch.testing.assert_close(physics(x), physics.A(x), rtol=0, atol=0)
    physics.set_noise_model(GaussianNoise(0.1, rng=torch.Generator().manual_seed(0)))
    noise = physics(x) - physics.A(x)
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)
    physics.set_noise_model(PoissonNoise(0.01, clip_positive=True, rng=torch.Generator().manual_seed(0)))
    noise = physics(x) - physics.A(x)
    assert noise.square().mean().item() == pytest.approx(0.01 * physics.A(x).mean().item(), rel=0.1)


@pytest.mark.parametrize("kind", sorted({type(case.make((3, 8, 6))) for case in NONLINEAR.values()}, key=str))
def test_constructors_take_a_noise_model_and_nothing_unknown(kind):
    arguments = ((3, 8, 6), np.ones((1, 1))) if kind is operators.NonlinearBlur else ((3, 8, 6),)
    model = GaussianNoise(0.1)
    assert kind(*arguments, noise_model=model, device="cpu").noise_model is model
    with pytest.raises(TypeError, match="sigm"):
        kind(*arguments, sigm=1)


@every_name
def test_moving_to_float64_and_back_keeps_the_operator(name):
    physics = NONLINEAR[name].make((3, 8, 6))
    x = (rand(2, 3, 8, 6) * 255).round().float() / 255
    before = physics.A(x)
    assert before.dtype == torch.float32
    assert physics.A_dagger(before).dtype == torch.float32
    torch.testing.assert_close(physics.to(torch.float64).A(x.double()).float(), before)
    own = [b for _, b in physics.named_buffers() if b.is_floating_point()]
    assert own
    assert all(b.dtype == torch.float64 for b in own)
    torch.testing.assert_close(physics.float().A(x), before, rtol=0, atol=0)
    copy = NONLINEAR[name].make((3, 8, 6))
    copy.load_state_dict(physics.state_dict())
    torch.testing.assert_close(copy.A(x), before, rtol=0, atol=0)
    if "blur" not in name:  # Blur computes its spectrum anew on the way
        on_meta = NONLINEAR[name].make((3, 8, 6)).to("meta")
        assert {b.device.type for b in on_meta.buffers()} == {"meta"}


@every_name
def test_tensors_of_another_size_or_type_are_refused(name):
    physics = build(name, 3, 8, 6)
    x, y = rand(2, 3, 8, 6), rand(2, *physics.measurement_size)
    for method, argument in {"A": x, "A_dagger": y}.items():
        with pytest.raises(ValueError, match=r"^[xy]: expected .* got \(2, [\d, ]+\)$"):
            getattr(physics, method)(argument[..., :-1])
        with pytest.raises(ValueError, match=r"expected a real floating-point tensor, got torch\.int64"):
            getattr(physics, method)(argument.long())
        with pytest.raises(ValueError, match=r"^[xy]: expected a tensor on cpu, .* got one on meta$"):
            getattr(physics, method)(argument.to("meta"))


@pytest.mark.parametrize("img_size", [(6, 6), (1, 0, 6), (1, 6, 6.5), 6, (2, 1, 6, 6)])
@every_name
def test_img_size_is_checked(name, img_size):
    constructor = (lambda s: operators.NonlinearBlur(s, KERNEL)) if "blur" in name else NONLINEAR[name].make
    with pytest.raises(ValueError, match=r"img_size: expected .* got "):
        constructor(img_size)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: operators.HighDynamicRange(s, gain=0.0), r"gain: expected a number in \(0, inf\), got 0"),
        (lambda s: operators.HighDynamicRange(s, gain=np.nan), "gain: expected"),
        (lambda s: operators.HighDynamicRange(s, pivot=1.5), r"pivot: expected a number in \[0, 1\], got 1\.5"),
        (lambda s: operators.Quantization(s, bits=0), "bits: expected an integer >= 1, got 0"),
        (lambda s: operators.Quantization(s, bits=17), "bits: expected at most 16, got 17"),
        (lambda s: operators.NonlinearBlur(s, KERNEL, gamma=0.5), "gamma: expected .* got 0.5"),
        (lambda s: operators.NonlinearBlur(s, np.zeros((3, 3))), "kernel: expected"),
        (lambda s: operators.NonlinearBlur(s, operators.Denoising((3, 9, 9))), r"kernel: expected .* \(3, 8, 6\), got"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make((3, 8, 6))


def test_a_nonlinear_blur_refuses_a_nonlinear_physics():
    with pytest.raises(TypeError, match=r"kernel: expected .* a linear physics, got Quantization"):
        operators.NonlinearBlur((3, 8, 6), operators.Quantization((3, 8, 6)))


def test_hdr_clips_the_highlights_and_with_a_pivot_the_shadows_too():
    x = torch.tensor([-0.1, 0.0, 0.2, 0.5, 0.6, 1.0, 1.2]).reshape(1, 1, 1, 7)
    y = operators.HighDynamicRange((1, 1, 7)).A(x)
    torch.testing.assert_close(y.flatten(), torch.tensor([0, 0, 0.4, 1, 1, 1, 1]))
    symmetric = (2 * (2 * x - 1)).clamp(-1, 1)  # of images in [-1, 1]
    y = operators.HighDynamicRange((1, 1, 7), pivot=0.5).A(x)
    torch.testing.assert_close(2 * y - 1, symmetric)
    gradient = operators.HighDynamicRange((1, 1, 7), 3.0).A_vjp(x + 0.01, torch.ones_like(x))
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.0, 3, 3, 0, 0, 0, 0]))


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_quantization_has_its_levels_and_is_idempotent(bits):
    physics = operators.Quantization((1, 16, 16), bits).to(torch.float64)
    x = 1.4 * rand(50, 1, 16, 16) - 0.2
    y = physics.A(x)
    most = 2**bits - 1
    if bits <= 8:
        np.testing.assert_allclose(np.unique(y), np.arange(most + 1) / most, rtol=1e-15)
    assert (y - x.clamp(0, 1)).abs().max() <= 0.5 / most + 1e-15
    torch.testing.assert_close(physics.A(y), y, rtol=0, atol=0)
    torch.testing.assert_close(physics.A_vjp(x, y), y * ((x >= 0) & (x <= 1)), rtol=0, atol=0)


def test_a_nonlinear_blur_is_the_linear_one_of_the_light():
    size = (3, 9, 8)
    x, blur = rand(2, *size), operators.Blur(size, KERNEL).to(torch.float64)
    linear = build("blur", *size)
    torch.testing.assert_close(linear.A(x), blur.A(x**2.2))
    torch.testing.assert_close(build("blur-encoded", *size).A(x), blur.A(x**1.8) ** (1 / 1.8))
    torch.testing.assert_close(operators.NonlinearBlur(size, blur, gamma=1.0).A(x), blur.A(x))
    torch.testing.assert_close(operators.NonlinearBlur(size, blur).A(x), linear.A(x), rtol=1e-6, atol=1e-6)
    white = torch.ones(1, *size, dtype=torch.float64)
    torch.testing.assert_close(build("blur-encoded", *size).A(white), white)
    assert not linear.A(-x).any()


def test_a_nonlinear_blur_takes_a_copy_of_any_linear_physics():
    deepinvs = Blur(torch.ones(1, 1, 3, 3) / 9, padding="valid", noise_model=GaussianNoise(1.0))
    physics = operators.NonlinearBlur((3, 9, 8), deepinvs).to(torch.float64)
    assert deepinvs.filter.dtype == torch.float32
    assert physics.measurement_size == (3, 7, 6)
    x = rand(2, 3, 9, 8)
    torch.testing.assert_close(physics(x), torch.nn.functional.avg_pool2d(x**2.2, 3, 1), rtol=1e-6, atol=1e-6)
    assert physics.A_dagger(physics.A(x)).shape == x.shape
    torch.testing.assert_close(physics.clone()(x), physics(x), rtol=0, atol=0)


@pytest.mark.parametrize("encode", [False, True])
def test_the_estimate_of_a_nonlinear_blur_is_closer_and_bears_noise(encode):
    size = (1, 32, 32)
    kernel = operators.gaussian_kernel(1.0)
    physics = operators.NonlinearBlur(size, kernel, encode=encode).to(torch.float64)
    wave = torch.sin(2 * torch.pi / 8 * torch.arange(32, dtype=torch.float64))
    x = (0.5 + 0.15 * wave[:, None] + 0.15 * wave)[None, None]
    y = physics.A(x)
    blurred = y if encode else y ** (1 / 2.2)
    error = (physics.A_dagger(y) - x).norm()
    assert error < 0.3 * (blurred - x).norm()
    noise = 0.01 * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (physics.A_dagger(y + noise) - physics.A_dagger(y)).std() < 0.1
