"""How every linear operator behaves in use: immutable, movable, strict about what it is given."""

import copy
import math

import numpy as np
import pytest
import torch
from deepinv.physics import GaussianNoise
from operator_cases import OPERATORS, allowed, build, randn

import operators
from operators import _parameters


@pytest.mark.parametrize("name", OPERATORS)
def test_calls_never_change_the_operator(name):
    physics = build(name, 2, 6, 6)
    x, y = randn(2, *physics.img_size), randn(2, *physics.measurement_size)
    inputs = x.clone(), y.clone()
    state = {key: value.clone() for key, value in physics.state_dict().items()}
    attributes = {key: value for key, value in vars(physics).items() if not key.startswith("_")}
    before = physics(x), physics.A_adjoint(y), physics.A_dagger(y)
    other = {"mask": torch.full((1, 1, 6, 6), 0.5), "filter": torch.ones(1, 1, 3, 3), "kernel": torch.ones(3, 3)}
    other = {name: None if name in _parameters.names(physics) else value for name, value in other.items()}
    for call, argument in [(physics, x), (physics.A, x), (physics.A_adjoint_A, x), (physics.A_adjoint, y),
                           (physics.A_A_adjoint, y), (physics.A_dagger, y)]:  # fmt: skip
        torch.testing.assert_close(call(argument, **other), call(argument), rtol=0, atol=0)
        call(argument).zero_()
    physics.prox_l2(x, y, 0.5, max_iter=1, solver="lsqr").zero_()
    after = physics(x), physics.A_adjoint(y), physics.A_dagger(y)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close((x, y), inputs, rtol=0, atol=0)
    torch.testing.assert_close(dict(physics.state_dict()), state, rtol=0, atol=0)
    assert {key: value for key, value in vars(physics).items() if not key.startswith("_")} == attributes


@pytest.mark.parametrize("name", OPERATORS)
def test_a_deep_copy_and_a_state_make_the_same_operator(name):
    physics = build(name, 1, 6, 6)
    x, other = randn(1, *physics.img_size), build(name, 1, 6, 6)
    other.load_state_dict(physics.state_dict())
    for again in (copy.deepcopy(physics), other):
        torch.testing.assert_close(again.A(x), physics.A(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_noise_models_are_deepinvs(name):
    physics = build(name, 1, 64, 64)
    x = randn(4, *physics.img_size)
    torch.testing.assert_close(physics(x), physics.A(x), rtol=0, atol=0)
    physics.set_noise_model(GaussianNoise(0.1, rng=torch.Generator().manual_seed(0)))
    noise = physics(x) - physics.A(x)
    seen = physics.A(x) != 0 if OPERATORS[name].masked else torch.ones_like(noise, dtype=torch.bool)
    assert noise[seen].std().item() == pytest.approx(0.1, rel=0.1)
    assert not noise[~seen].any()


@pytest.mark.parametrize("name", OPERATORS)
def test_moving_to_float64_and_back_keeps_the_operator(name):
    size = (2, allowed(name, 6), allowed(name, 6))
    physics = OPERATORS[name].make(size)
    x = randn(2, *physics.img_size).float()
    before = physics.A(x)
    assert before.dtype == torch.float32
    torch.testing.assert_close(physics.to(torch.float64).A(x.double()).float(), before)
    own = [b for key, b in physics.named_buffers() if b.is_floating_point() and "device" not in key]
    assert all(b.dtype == torch.float64 for b in own)
    torch.testing.assert_close(physics.float().A(x), before, rtol=0, atol=0)
    copy = OPERATORS[name].make(size)
    copy.load_state_dict(physics.state_dict())
    torch.testing.assert_close(copy.A(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_tensors_of_another_size_or_type_are_refused(name):
    physics = build(name, 2, 6, 6)
    x, y = randn(2, *physics.img_size), randn(2, *physics.measurement_size)
    calls = {"A": x, "A_adjoint": y, "A_adjoint_A": x, "A_A_adjoint": y, "A_dagger": y}
    for method, argument in calls.items():
        with pytest.raises(ValueError, match=r"^[xy]: expected .* got \(2, [\d, ]+\)$"):
            getattr(physics, method)(argument[..., :-1])
        with pytest.raises(ValueError, match=r"expected a tensor \(B, .*\), got ndarray"):
            getattr(physics, method)(argument.numpy())
        with pytest.raises(ValueError, match=r"expected a real floating-point tensor, got torch\.int64"):
            getattr(physics, method)(argument.long())
        with pytest.raises(ValueError, match=r"^[xy]: expected a tensor on cpu, .* got one on meta$"):
            getattr(physics, method)(argument.to("meta"))
    with pytest.raises(ValueError, match="expected"):
        physics.prox_l2(x[..., :-1], y, 1.0)
    with pytest.raises(TypeError, match="sigm"):
        type(physics)((2, 32, 32), sigm=1)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_strength_that_is_none_is_refused(name):
    physics = build(name, 2, 6, 6)
    x, y = randn(2, *physics.img_size), randn(2, *physics.measurement_size)
    faults = ((-1.0, "a number >= 0, got -1"), (math.nan, "got nan"), (torch.ones(3), r"each of 2 images, got \(3,\)"),
              (torch.ones(2, 1, 6, 6), r"each of 2 images, got \(2, 1, 6, 6\)"))
    for gamma, said in faults:
        with pytest.raises(ValueError, match=f"^gamma or sigma: expected .*{said}"):
            physics.prox_l2(x, y, gamma)


@pytest.mark.parametrize("img_size", [(6, 6), (1, 0, 6), (1, 6, 6.5), 6, (2, 1, 6, 6)])
@pytest.mark.parametrize(
    "constructor",
    [
        operators.Denoising,
        operators.GaussianBlur,
        operators.MotionBlur,
        operators.SuperResolution,
        operators.BicubicSuperResolution,
        operators.GaussianSuperResolution,
        operators.Colorization,
        operators.CompressedSensing,
        operators.DCTSensing,
        operators.GaussianSensing,
        operators.random_mask,
        operators.row_mask,
        operators.half_mask,
        operators.box_mask,
        lambda s: operators.Blur(s, np.ones((1, 1))),
        lambda s: operators.Inpainting(s, np.ones((6, 6))),
    ],
)
def test_img_size_is_checked(constructor, img_size):
    with pytest.raises(ValueError, match=r"img_size: expected .* got "):
        constructor(img_size)
