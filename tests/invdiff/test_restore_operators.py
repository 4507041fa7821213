"""restore() with operators of others: of no image size, or with parameters for each measurement."""

import pytest
import torch
from deepinv.physics import Blur, LinearPhysics
from toy_priors import SIZE, prior

import operators
from invdiff.errors import InputError
from invdiff.posterior import DPS, MomentMatching, TwistedSMC
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate


def test_a_kernel_for_each_measurement_that_refuses_in_its_own_way():
    """deepinv's Blur asserts that there are as many kernels as images."""
    kernels = torch.stack([torch.eye(3)[None] / 3, torch.ones(1, 3, 3) / 9])
    posed = simulate(Blur(filter=kernels, padding="circular", img_size=SIZE), torch.full((2, *SIZE), 0.5), 0.05)
    assert restore(posed, prior(), DPS(steps=3), samples=2, batch_size=1).samples.isfinite().all()


@pytest.mark.parametrize(("operator", "image"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_an_operator_without_an_image_size_may_be_of_another_precision_than_y(operator, image):
    physics = Blur(filter=torch.ones(1, 1, 3, 3) / 9, padding="circular")
    posed = simulate(physics, torch.full((2, *SIZE), 0.5), 0.05)
    single = restore(posed, prior(), MomentMatching(steps=2)).samples
    mixed = Problem(physics.to(operator), posed.y.to(image), 0.05)
    torch.testing.assert_close(restore(mixed, prior(), MomentMatching(steps=2)).samples, single)


def test_an_operator_without_an_image_size_may_have_kernels_of_their_own():
    kernels = torch.stack([torch.eye(3)[None] / 3, torch.ones(1, 3, 3) / 9])
    physics = Blur(filter=kernels, padding="circular")
    posed = Problem(physics, physics.A(torch.full((2, *SIZE), 0.5)), 0.05)
    assert restore(posed, prior(), MomentMatching(steps=3), samples=2).samples.isfinite().all()


def test_a_parameter_for_each_measurement_may_hide_anywhere():
    """Even in a closure: what makes two measurements of one image takes both together."""
    gain = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1)
    each = LinearPhysics(A=lambda x, **kw: gain * x, A_adjoint=lambda y, **kw: gain * y, img_size=SIZE)
    posed = simulate(each, 0.5 + 0.2 * torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0)), 0.001)
    assert restore(posed, prior(), MomentMatching(steps=3), samples=2, batch_size=1).report["residual"]["value"] < 2
    with pytest.raises(InputError, match="TwistedSMC takes one measurement at a time"):
        restore(posed, prior(), TwistedSMC(steps=2), samples=2)
    shared = LinearPhysics(A=lambda x, **kw: x, A_adjoint=lambda y, **kw: y, img_size=SIZE)
    shared.register_buffer("of_as_many", torch.zeros(2, *SIZE))         # but not one for each
    posed = Problem(shared, posed.y, 0.1)
    assert restore(posed, prior(), TwistedSMC(steps=2), samples=2).samples.isfinite().all()


def test_volumes_are_refused():
    physics = operators.MRI((2, 4, 8, 10), torch.ones(4, 8, 10))
    posed = Problem(physics, torch.zeros(1, 2, 4, 8, 10), 0.1)
    with pytest.raises(InputError, match=r"problem: expected images \(C, H, W\), got \(2, 4, 8, 10\) of MRI"):
        restore(posed, prior(), DPS(steps=2))
