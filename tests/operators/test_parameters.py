"""Parameters in a call, physics(x, mask=m), as deepinv passes them: used for that call, and the operator stays what it was."""

import copy
from typing import Generic, TypeVar

import deepinv
import pytest
import torch
from deepinv.physics import GaussianNoise, generator
from operator_cases import randn
from test_update import UPDATES

import operators
from operators import _parameters
from operators.mri import sampling

T = TypeVar("T")
PIXELS = operators.random_mask((2, 16, 20), seed=1)
KERNEL = operators.uniform_kernel(3)
GENERATED = {  # an operator for (2, 16, 20), the deepinv generator of its parameters, how many images may share a batch
    "mri": (operators.MRI((2, 16, 20), sampling.random_lines((16, 20), 4)), generator.GaussianMaskGenerator((16, 20)), 2),
    "inpainting": (operators.Inpainting((2, 16, 20), PIXELS), generator.BernoulliSplittingMaskGenerator((2, 16, 20), 0.5), 2),
    "blur": (operators.Blur((2, 16, 20), KERNEL), generator.MotionBlurGenerator((5, 5)), 1),
    "padded": (operators.PaddedBlur((2, 16, 20), KERNEL), generator.GaussianBlurGenerator((5, 5)), 1),
}


def state_of(physics):
    return {key: value.clone() for key, value in physics.state_dict().items()}


@pytest.mark.parametrize("name", UPDATES)
def test_a_call_with_parameters_is_that_of_the_operator_made_so(name):
    make, first, new = UPDATES[name]
    physics, expected = make(**first), make(**{**first, **new})
    before = state_of(physics)
    x, y = torch.rand(3, *physics.img_size), torch.rand(3, *physics.measurement_size)
    calls = {"__call__": (x,), "A": (x,), "A_adjoint": (y,), "A_adjoint_A": (x,), "A_dagger": (y,), "prox_l2": (x, y, 0.5)}
    for call in calls if hasattr(physics, "prox_l2") else ("__call__", "A", "A_dagger"):
        got = getattr(physics, call)(*calls[call], **new, unknown=torch.ones(1), sigma=None)
        torch.testing.assert_close(got, getattr(expected, call)(*calls[call]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(physics.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", GENERATED)
def test_datasets_of_deepinv_hold_the_measurements_of_the_parameters_they_hold(name, tmp_path):
    physics, draw, batch = GENERATED[name]
    before = state_of(physics)
    path = deepinv.datasets.generate_dataset(
        list(torch.rand(4, 2, 16, 20)), physics, tmp_path, physics_generator=draw, batch_size=batch,
        save_physics_generator_params=True, verbose=False, show_progress_bar=False)  # fmt: skip
    data = deepinv.datasets.HDF5Dataset(path, split="train", load_physics_generator_params=True)
    for x, y, parameters in data:
        given = {key: value[None] for key, value in parameters.items()}
        physics_of_x = copy.deepcopy(physics)
        physics_of_x.update(**given)
        torch.testing.assert_close(physics_of_x.A(x[None])[0], y)
        assert not torch.allclose(physics.A(x[None])[0], y, atol=1e-2)
    torch.testing.assert_close(dict(physics.state_dict()), before, rtol=0, atol=0)


def test_noise_follows_the_mask_of_the_call_and_differs_from_call_to_call():
    noise = GaussianNoise(0.1, rng=torch.Generator().manual_seed(0))
    first, other = torch.zeros(16, 20), torch.zeros(1, 1, 16, 20)
    first[:, ::2], other[..., 1::2] = 1, 1
    for physics in (operators.MRI((2, 16, 20), first), operators.Inpainting((2, 16, 20), first)):
        physics.set_noise_model(noise)
        draws = [physics(torch.zeros(1, 2, 16, 20), mask=other) for _ in range(2)]
        assert all(torch.equal(draw != 0, other.bool().expand_as(draw)) for draw in draws)
        assert not torch.equal(*draws)
        assert physics(torch.zeros(1, 2, 16, 20), mask=other, sigma=2.0).std() > 1
        noise.update_parameters(sigma=0.1)
    assert physics.noise_model is noise


def test_a_call_that_raises_changes_nothing():
    physics, _, _ = GENERATED["mri"]
    before, x = state_of(physics), torch.rand(2, 2, 16, 20)
    for mask, message in ((torch.full((16, 20), 0.5), "only 0 and 1"), (torch.ones(3, 1, 16, 20), "batch of 3")):
        with pytest.raises(ValueError, match=message):
            physics(x, mask=mask)
    torch.testing.assert_close(dict(physics.state_dict()), before, rtol=0, atol=0)


def test_parameters_reach_an_operator_in_a_composition():
    physics, draw, _ = GENERATED["mri"]
    x, mask = torch.rand(2, 2, 16, 20), draw.step(2)["mask"]
    blur = operators.Blur((2, 16, 20), KERNEL)
    composed = deepinv.physics.compose(blur, physics)
    torch.testing.assert_close(composed(x, mask=mask), operators.MRI((2, 16, 20), mask)(blur(x)))


def test_a_network_of_deepinv_that_gives_masks_in_calls_does_the_same_as_with_its_physics():
    denoiser = deepinv.models.DnCNN(2, 2, depth=2, nf=4, pretrained=None)
    network = deepinv.models.VarNet(denoiser, num_cascades=2, mode="e2e-varnet")  # measures all of k-space in between
    mask = GENERATED["mri"][1].step(2)["mask"]
    ours, theirs = operators.MRI((2, 16, 20), mask), deepinv.physics.MRI(mask=mask, img_size=(2, 16, 20))
    y = ours(torch.rand(2, 2, 16, 20))
    torch.testing.assert_close(network(y, ours), network(y, theirs))


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (5, 2), (1, 1)])
@pytest.mark.parametrize("boundary", ["circular", "replicate"])
def test_a_filter_blurs_as_deepinvs_does(size, boundary):
    image, x = (2, 9, 10), randn(2, 2, 9, 10).float()
    psf = torch.rand(1, 1, *size)
    physics = operators.Blur(image, KERNEL) if boundary == "circular" else operators.PaddedBlur(image, KERNEL, boundary)
    theirs = deepinv.physics.BlurFFT(image, psf)(x) if boundary == "circular" else deepinv.physics.Blur(psf, boundary)(x)
    torch.testing.assert_close(physics(x, filter=psf), theirs)
    physics.update(filter=psf)
    torch.testing.assert_close(physics(x), theirs)
    assert torch.equal(physics.kernel, psf[0, 0])


@pytest.mark.parametrize("make", [operators.ReflectBlur, operators.SeparableBlur])
def test_a_symmetric_or_separable_filter_is_a_kernel_too(make):
    x, psf = torch.rand(1, 1, 9, 10), operators.gaussian_kernel(0.7, size=5).float()[None, None]
    physics = make((1, 9, 10), KERNEL)
    physics.update(filter=psf)
    torch.testing.assert_close(physics(x), make((1, 9, 10), psf)(x), rtol=1e-5, atol=1e-6)


def test_a_filter_for_each_image_is_refused():
    draws = generator.MotionBlurGenerator((5, 5)).step(batch_size=2)
    with pytest.raises(ValueError, match=r"got \(2, 1, 5, 5\); use batch_size=1"):
        operators.GaussianBlur((1, 32, 32))(torch.rand(2, 1, 32, 32), **draws)


class Louder(operators.Blur):
    """A user's own, which adds a parameter and methods."""

    gain = 1.0

    def update_parameters(self, gain=None, **kwargs):
        super().update_parameters(**kwargs)
        self.gain = self.gain if gain is None else gain

    def A(self, x, **kwargs):
        return self.gain * super().A(x, **kwargs)

    @torch.no_grad()  # which wraps it
    def A_adjoint(self, y, **kwargs):
        return self.gain * super().A_adjoint(y, **kwargs)


def test_a_class_of_ones_own_takes_its_parameters_and_those_it_inherits():
    physics, x, kernel = Louder((1, 9, 10), KERNEL), torch.rand(1, 1, 9, 10), torch.rand(5, 3)
    other = operators.Blur((1, 9, 10), kernel)
    for call, expected in ((physics, other), (physics.A, other.A), (physics.A_adjoint, other.A_adjoint)):
        torch.testing.assert_close(call(x, gain=3.0, kernel=kernel), 3 * expected(x))
    for name in ("U_adjoint", "V"):
        torch.testing.assert_close(getattr(physics, name)(x, kernel=kernel), getattr(other, name)(x))
    torch.testing.assert_close(physics(x), operators.Blur((1, 9, 10), KERNEL)(x))


class Registered:
    names: list[str] = []  # noqa: RUF012

    def __init_subclass__(cls, label="", **kwargs):
        super().__init_subclass__(**kwargs)
        Registered.names.append(label)


def test_a_derived_class_may_have_other_bases_and_keywords():
    class Labelled(operators.Blur, Registered, label="mine"):
        pass

    class Typed(operators.Blur, Generic[T]):
        pass

    assert Registered.names == ["mine"]
    assert Typed[int]((1, 9, 10), KERNEL).A(torch.ones(1, 1, 9, 10)).mean() == pytest.approx(1)
    with pytest.raises(TypeError, match="keyword"):
        type("Mistyped", (operators.Blur,), {}, typo=3)


@_parameters.also_in_calls
class Mixing(operators.IterativePhysics):
    """Another's, which writes into its buffers."""

    def __init__(self, img_size):
        super().__init__(img_size=img_size)
        self.register_buffer("matrix", torch.eye(3))
        self.register_buffer("gain", torch.ones(()))

    def update_parameters(self, matrix=None, **kwargs):
        self.matrix.copy_(matrix)
        self.gain.copy_(matrix.norm())

    def A(self, x, **kwargs):
        return self.gain * torch.einsum("ij,bjhw->bihw", self.matrix, x)


def test_a_call_leaves_the_operator_alone_that_updates_in_place():
    physics, x = Mixing((3, 4, 5)), torch.rand(2, 3, 4, 5)
    before = physics.A(x)
    assert not torch.equal(physics.A(x, matrix=torch.ones(3, 3)), before)
    assert torch.equal(physics.A(x), before)
