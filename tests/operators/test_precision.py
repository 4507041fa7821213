"""The precision of the arithmetic is that of the tensors: not autocast's, and the wider one where two meet."""

import numpy as np
import pytest
import torch
from operator_cases import OPERATORS, allowed, coil_maps, randn

import operators
from operators.compressed_sensing import _small_hadamard

NONLINEAR = {
    "jpeg": operators.JPEG,
    "nonlinear-blur": lambda s: operators.NonlinearBlur(s, operators.blur(s, np.ones((2, 2)) / 4, "zero")),
    "phase-retrieval": operators.PhaseRetrieval,
    "coded-phase-retrieval": operators.CodedPhaseRetrieval,
    "high-dynamic-range": operators.HighDynamicRange,
    "quantization": operators.Quantization,
}


def make(name, channels=3):
    return OPERATORS[name].make((channels, allowed(name, 6), allowed(name, 9)))


def results(physics, x, y):
    """Of every method, in order; three iterations where it iterates."""
    yield from (physics.A(x), physics.A_dagger(y, max_iter=3))
    if hasattr(physics, "A_adjoint"):
        yield from (physics.A_adjoint(y), physics.A_adjoint_A(x), physics.A_A_adjoint(y))
        yield physics.prox_l2(x, y, 1000.0, max_iter=3)
    if hasattr(physics, "V"):
        yield from (physics.V(x), physics.V_adjoint(x), physics.U(x), physics.U_adjoint(y))
    if hasattr(physics, "solve_stationary"):
        yield physics.solve_stationary(torch.tensor(2.0), y, 0.1)


@pytest.mark.parametrize("name", [*OPERATORS, *NONLINEAR])
def test_autocast_changes_nothing(name):
    physics = NONLINEAR[name]((3, 6, 9)) if name in NONLINEAR else make(name)
    x, y = torch.rand(2, *physics.img_size), torch.rand(2, *physics.measurement_size)
    expected = list(results(physics, x, y))
    with torch.autocast("cpu", torch.bfloat16):
        got = list(results(physics, x, y))
        assert all(r.isfinite().all() for r in results(physics, x.bfloat16(), y.bfloat16()))  # as of a network
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert {g.dtype for g in got} == {torch.float32}


def test_autocast_does_not_change_estimate_sigma():
    y = torch.rand(1, 1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got = operators.estimate_sigma(y)
    torch.testing.assert_close(got, operators.estimate_sigma(y), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_wider_dtype_wins(name):
    single, double = make(name), make(name).to(torch.float64)
    x, y = randn(2, *single.img_size), randn(2, *single.measurement_size)
    expected = list(results(double, x, y))
    scale = max(e.abs().max().item() for e in expected)
    for physics, dtype in ((single, torch.float64), (double, torch.float32)):
        got = list(results(physics, x.to(dtype), y.to(dtype)))
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g.double(), e, rtol=1e-3, atol=1e-4 * scale)
        assert physics is double or {g.dtype for g in got} == {torch.float64}  # some have no numbers of their own


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_pass_after_a_call_in_inference_mode(name):
    _small_hadamard.cache_clear()
    physics = make(name)
    x, y = torch.rand(2, *physics.img_size), torch.rand(2, *physics.measurement_size)
    with torch.inference_mode():
        list(results(physics, x, y))
    sum(r.square().sum() for r in results(physics, x.requires_grad_(), y.requires_grad_())).backward()
    assert x.grad.isfinite().all()


def test_the_phantom_made_in_inference_mode_is_an_ordinary_one():
    from operators.mri import phantom

    phantom._series.cache_clear()
    with torch.inference_mode():
        phantom._series(2, True)
    assert not phantom._series(2, True).is_inference()


@pytest.mark.parametrize("order", "<>")
def test_arrays_of_either_byte_order_are_taken(order):
    k = np.arange(9.0).reshape(3, 3)
    got = operators.Blur((1, 6, 8), k.astype(f"{order}f4"))
    torch.testing.assert_close(got.kernel, torch.from_numpy(k).float())
    maps = coil_maps(2, 6, 8)
    got = operators.MultiCoilMRI(np.ones((6, 8), f"{order}i2"), maps.astype(f"{order}c8"))
    torch.testing.assert_close(torch.view_as_complex(got.coil_maps), torch.from_numpy(maps))
