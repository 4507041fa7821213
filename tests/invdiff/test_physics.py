"""What is asked of deepinv's own operators, which know less of themselves than ours do."""

import copy
import threading

import deepinv
import pytest
import torch
from deepinv.physics import CompressedSensing, Downsampling, LinearPhysics, MultiCoilMRI, SequentialMRI
from test_restore import SIZE, prior

import operators
from invdiff.errors import InputError
from invdiff.physics import copied, in_single
from invdiff.posterior import DDRM, DPS, MomentMatching, PiGDM
from invdiff.priors.analytic import GaussianPrior
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate

CPU = torch.device("cpu")


def scan():
    """A mask (H, W) and coil maps (1, N, H, W)."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 3, 8, 6, dtype=torch.complex64, generator=generator)
    return (torch.rand(8, 6, generator=generator) > 0.5).float(), maps / maps.abs().square().sum(1, True).sqrt()


def complex_prior(size=(2, 8, 6)):
    return GaussianPrior(torch.full(size, 0.3), 0.04 * torch.eye(size[0] * size[1] * size[2]))


def frames():
    """Which of three frames measures a place of k-space, if one does; (2, T, H, W)."""
    which = torch.randint(0, 5, (8, 6), generator=torch.Generator().manual_seed(0))
    return torch.stack([(which == t).float() for t in range(3)]).expand(2, 3, 8, 6)


@pytest.mark.parametrize("size", [None, (1, 2, 8, 6), (8, 6), (2, 8, 6)])
def test_the_images_of_deepinv_s_coils_are_known_from_a_measurement(size):
    """Its img_size is (320, 320) where none is said, or whatever is, until it is called."""
    mask, maps = scan()

    def make():
        return MultiCoilMRI(mask=mask, coil_maps=maps, **({} if size is None else {"img_size": size}))

    y = simulate(make(), torch.rand(2, 2, 8, 6), 0.05).y
    assert Problem(make(), y, 0.05).image_shape == (2, 8, 6)
    assert restore(Problem(make(), y, 0.05), complex_prior(), MomentMatching(steps=2)).samples.shape == (2, 1, 2, 8, 6)


def test_a_size_of_three_numbers_is_taken_as_it_is():
    def unasked(y, **kwargs):
        raise AssertionError

    theirs = LinearPhysics(A=lambda x: x, A_adjoint=unasked, img_size=SIZE)
    assert Problem(theirs, torch.zeros(1, *SIZE), 0.1).image_shape == SIZE
    volume = operators.MRI((2, 4, 8, 6), torch.ones(4, 8, 6))
    volume.A_adjoint = unasked
    assert Problem(volume, torch.zeros(1, 2, 4, 8, 6), 0.1).image_shape == (2, 4, 8, 6)


def test_a_measurement_that_an_operator_refuses_is_told():
    physics = Downsampling(img_size=(1, 8, 8), filter="bicubic", factor=2)
    with pytest.raises(ValueError, match=r"y: Downsampling.A_adjoint takes none of \(1, 1, 8, 8\) \(The expanded size .*; set "
                                         r"physics.img_size = \(C, H, W\) to be told their shape"):
        restore(Problem(physics, torch.zeros(1, 1, 8, 8), 0.1), prior(), MomentMatching(steps=2))
    physics.img_size = (1, 8, 8)
    with pytest.raises(InputError, match=r"y: expected \(B, \*\(1, 4, 4\)\), as Downsampling makes of images \(1, 8, 8\)"):
        restore(Problem(physics, torch.zeros(1, 1, 8, 8), 0.1), prior(), MomentMatching(steps=2))


# frames of one image

def test_deepinv_s_sequential_mri_is_one_selection_of_k_space():
    """The same posterior as of all frames at once, and no SVD: that which it inherits is of another operator."""
    shown, mask = complex_prior(), frames()
    problem = simulate(SequentialMRI(mask=mask), torch.rand(1, 2, 8, 6), 0.05)
    at_once = Problem(operators.MRI((2, 8, 6), mask[0].sum(0)), problem.y.sum(2), 0.05)
    for got, expected in zip(shown.posterior(problem), shown.posterior(at_once), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    mean, cov = shown.posterior(at_once)
    for sampler in (MomentMatching(steps=8), PiGDM(steps=8)):
        problem = Problem(SequentialMRI(mask=mask), problem.y, 0.05)
        found = restore(problem, shown, sampler, samples=8, batch_size=1).mean
        assert (found - mean).norm() < 2 * (cov.trace() / 8).sqrt()
    with pytest.raises(InputError, match=r"DDRM needs an operator with an SVD .* and that of SequentialMRI is no such one"):
        restore(problem, shown, DDRM(steps=2))


def test_an_operator_for_one_image_at_a_time_is_told_of():
    """Two chains of one measurement, or two measurements."""
    mask = frames()
    y = simulate(SequentialMRI(mask=mask), torch.rand(1, 2, 8, 6), 0.05).y
    with pytest.raises(InputError, match=r"SequentialMRI: its A takes one image at a time \(The expanded .* with batch_size=1"):
        restore(Problem(SequentialMRI(mask=mask), y, 0.05), complex_prior(), MomentMatching(steps=2), samples=2, batch_size=2)
    several = Problem(SequentialMRI(mask=mask), torch.cat([y, y]), 0.05)
    several.physics.img_size = (2, 8, 6)
    with pytest.raises(InputError, match=r"SequentialMRI: its A takes no images \(2, 2, 8, 6\) of float32 \(The expanded"):
        restore(several, complex_prior(), MomentMatching(steps=2))


def test_an_operator_on_complex_images_is_told_of():
    physics = deepinv.physics.RandomPhaseRetrieval(m=200, img_size=(1, 8, 8))
    y = physics.A(torch.rand(1, 1, 8, 8) + 0j)
    with pytest.raises(InputError, match=r"RandomPhaseRetrieval: its A takes no images \(1, 1, 8, 8\) of float32 \(expected "
                                         "scalar type ComplexFloat but found Float.* on real images"):
        restore(Problem(physics, y, 0.1), prior(), DPS(steps=2))


# copies

class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((), 2.0, dtype=torch.float64))
        self.register_buffer("shift", torch.ones(3, dtype=torch.complex128))
        self.register_buffer("count", torch.arange(3))
        self.kind = torch.complex128


class Planned(LinearPhysics):
    """Holds what cannot be copied, as a plan of an FFT library cannot."""

    def __init__(self):
        super().__init__(img_size=SIZE)
        self.inner, self.plan, self.dtype, self.unset = Inner(), threading.Lock(), torch.float64, None
        self.register_buffer("mask", torch.ones(SIZE, dtype=torch.float64))

    def A(self, x, **kwargs):
        return self.inner.gain * self.mask * x


def test_an_operator_is_copied_in_single_precision_with_what_cannot_be_copied():
    physics = Planned()
    with pytest.raises(TypeError, match="pickle"):
        copy.deepcopy(physics)
    single = in_single(physics, CPU)
    assert single.plan is physics.plan
    assert (single.mask.dtype, single.inner.gain.dtype, single.inner.shift.dtype, single.inner.count.dtype) == (
        torch.float32, torch.float32, torch.complex64, torch.int64)
    assert (single.dtype, single.inner.kind) == (torch.float32, torch.complex64)
    assert (physics.mask.dtype, physics.inner.gain.dtype, physics.inner.shift.dtype) == (
        torch.float64, torch.float64, torch.complex128)
    assert (physics.dtype, physics.inner.kind) == (torch.float64, torch.complex128)
    assert in_single(single, CPU) is single
    assert single.A(torch.ones(1, *SIZE)).dtype == torch.float32


def test_a_copy_shares_tensors_until_they_are_replaced():
    physics = Planned()
    other = copied(physics)
    assert other.mask is physics.mask
    assert other.inner is not physics.inner
    other.mask, other.inner.shift = torch.zeros(SIZE), torch.zeros(3)
    other.inner.gain.data = torch.zeros(())
    assert physics.mask.all()
    assert physics.inner.shift.all()
    assert physics.inner.gain == 2


def test_deepinv_s_compressed_sensing_in_double_precision_is_restored():
    """It casts measurements to the dtype it was made with."""
    double = CompressedSensing(m=30, img_size=SIZE, dtype=torch.float64, rng=torch.Generator().manual_seed(0))
    posed = simulate(double, torch.rand(1, *SIZE, dtype=torch.float64), 0.05)
    single = copy.deepcopy(double).float()
    single.dtype = torch.float32
    got, expected = (restore(Problem(physics, posed.y, 0.05), prior(), MomentMatching(steps=3)).samples
                     for physics in (double, single))
    torch.testing.assert_close(got, expected)
    assert double.dtype == double.A_adjoint(posed.y).dtype == torch.float64


def test_deepinv_s_non_cartesian_mri_is_restored():
    """Its plan holds pointers, and its density is in double precision."""
    pytest.importorskip("mrinufft")
    physics = deepinv.physics.NonCartesianMRI((16, 16), num_shots=10, num_samples_per_shot=32)
    x = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    posed, sampler = simulate(physics, x, 0.05), MomentMatching(steps=3)
    got = restore(posed, complex_prior((2, 16, 16)), sampler).samples
    assert physics.density.dtype == torch.float64
    physics.density = physics.density.float()
    assert torch.equal(got, restore(posed, complex_prior((2, 16, 16)), sampler).samples)
