"""`update`, by which deepinv's Trainer changes an operator from batch to batch: the result is the operator made so at once."""

from functools import partial

import numpy as np
import pytest
import torch
from deepinv.physics import generator
from operator_cases import OPERATORS, build, coil_maps, kernel, lines, masks, noncartesian, randn, symmetric_kernel

import operators

SIZE = (2, 6, 8)
MASK, OTHER = masks(2, 1, *SIZE[1:])
FOUR = coil_maps(4, *SIZE[1:])
FIELD = {"mask": MASK, "weights": np.ones(SIZE[1:]), "coil_maps": FOUR}
SAME_SIZE = {"boundary": "valid", "kernel": symmetric_kernel(3, 3)}


def phase_constrained(mask, phase):
    return operators.mri.PhaseConstrained(operators.MultiCoilMRI(mask, FOUR), phase)


UPDATES = {  # constructor, its first parameters, the new ones
    "inpainting": (partial(operators.Inpainting, SIZE), {"mask": MASK}, {"mask": masks(3, 2, *SIZE[1:])}),
    "mri": (partial(operators.MRI, SIZE), {"mask": MASK}, {"mask": lines(*SIZE[1:])}),
    "mri-batch": (partial(operators.MRI, SIZE), {"mask": MASK}, {"mask": masks(3, 1, *SIZE[1:])}),
    "multicoil-mask": (operators.MultiCoilMRI, FIELD, {"mask": lines(*SIZE[1:])}),
    "multicoil-weights": (operators.MultiCoilMRI, FIELD, {"weights": np.linspace(1, 2, 48).reshape(6, 8)}),
    "multicoil-maps": (operators.MultiCoilMRI, FIELD, {"coil_maps": FOUR.conj() * 2j}),
    "multicoil-both": (operators.MultiCoilMRI, FIELD, {"mask": masks(3, 1, 6, 8), "coil_maps": FOUR.repeat(3, axis=0)}),
    "phase": (phase_constrained, {"mask": MASK, "phase": randn(6, 8)}, {"phase": randn(6, 8, seed=1), "mask": OTHER}),
    "blur": (partial(operators.Blur, SIZE), {"kernel": kernel(3, 5)}, {"kernel": kernel(4, 2)}),
    "reflect": (partial(operators.ReflectBlur, SIZE), {"kernel": symmetric_kernel(5, 3)}, {"kernel": symmetric_kernel(3, 5)}),
    "padded": (partial(operators.PaddedBlur, SIZE), {"kernel": kernel(3, 5)}, {"kernel": kernel(4, 2)}),
    "padded-valid": (partial(operators.PaddedBlur, SIZE), SAME_SIZE, {"kernel": kernel(3, 3)}),
    "separable-blur": (partial(operators.SeparableBlur, SIZE), {"kernel": np.ones((3, 2))}, {"kernel": np.ones((2, 5))}),
    "separable": (partial(operators.Separable, SIZE), {"rows": kernel(5, 6), "columns": kernel(2, 8)}, {"rows": np.eye(5, 6)}),
    "colorization": (partial(operators.Colorization, (3, 6, 8)), {}, {"weights": torch.tensor([-0.5, 0.0, 2.0])}),
    "nonlinear-blur": (partial(operators.NonlinearBlur, SIZE), {"kernel": kernel(3, 5) ** 2}, {"kernel": np.ones((2, 2))}),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_updated_operator_is_the_one_made_so(name, dtype):
    make, first, new = UPDATES[name]
    physics, expected = make(**first).to(dtype), make(**{**first, **new}).to(dtype)
    physics.update(**new, unknown=torch.ones(3), sigma=None)
    state, wanted = physics.state_dict(), expected.state_dict()
    assert {key: b.dtype for key, b in state.items()} == {key: b.dtype for key, b in wanted.items()}
    x = torch.rand(3, *physics.img_size, dtype=dtype)
    torch.testing.assert_close(physics.A(x), expected.A(x), rtol=1e-5, atol=1e-5)  # new values may have float32's rounding
    if hasattr(physics, "A_adjoint"):
        torch.testing.assert_close(physics.A_adjoint_A(x), expected.A_adjoint_A(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(physics.A_adjoint_A(x), physics.A_adjoint(physics.A(x)), rtol=1e-5, atol=1e-5)
    if hasattr(physics, "V"):
        torch.testing.assert_close(physics.U(physics.mask * physics.V_adjoint(x)), physics.A(x), rtol=1e-5, atol=1e-5)
    if dtype == torch.float32:
        torch.testing.assert_close(dict(state), dict(wanted), rtol=0, atol=0)


def test_a_new_trajectory_is_followed():
    pytest.importorskip("mrinufft")
    physics, x = noncartesian(6, 8), randn(1, 2, 6, 8).float()
    moved, maps = physics.trajectory * 0.9, coil_maps(2, 6, 8) * 1j
    physics.A(x)
    physics.update(trajectory=moved, coil_maps=maps, density=torch.ones(48))
    expected = operators.NonCartesianMRI(moved, (6, 8), maps, torch.ones(48))
    for call in ("A", "A_adjoint_A"):
        torch.testing.assert_close(getattr(physics, call)(x), getattr(expected, call)(x), rtol=0, atol=0)
    torch.testing.assert_close(physics.gridding(physics.A(x)), expected.gridding(physics.A(x)))
    physics.update(trajectory=physics.trajectory)
    assert physics.density is None  # it was that of the trajectory before
    for wrong in ({"trajectory": moved[1:]}, {"coil_maps": coil_maps(3, 6, 8)}, {"density": torch.ones(3)}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected .* got"):
            physics.update(**wrong)


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("inpainting", {"mask": 0.5 * MASK}, "mask: expected bool, or only 0 and 1"),
        ("inpainting", {"mask": MASK[..., 1:]}, r"mask: expected \(H, W\) = \(6, 8\)"),
        ("mri", {"mask": 0 * MASK}, "mask: expected at least one sampled place"),
        ("mri", {"mask": masks(3, 2, *SIZE[1:])}, r"mask: expected \(6, 8\), or .* got \(3, 2, 6, 8\)"),
        ("multicoil-mask", {"coil_maps": FOUR[:, :, :3]}, "coil_maps: expected 4 coils, as before, got 3"),
        ("multicoil-both", {"weights": np.ones((6, 8)), "coil_maps": FOUR.real}, "coil_maps: expected complex64"),
        ("phase", {"phase": randn(6, 8), "mask": 2 * MASK}, "mask: expected bool, or only 0 and 1"),
        ("blur", {"kernel": kernel(7, 3)}, r"kernel: expected at most \(H, W\)"),
        ("reflect", {"kernel": kernel(3, 3)}, "kernel: expected the same values when mirrored"),
        ("padded-valid", {"kernel": kernel(2, 3)}, r"kernel: expected \(3, 3\), so that .* got \(2, 3\)"),
        ("separable-blur", {"kernel": kernel(3, 3)}, "kernel: expected an outer product"),
        ("blur", {"kernel": kernel(3, 3), "filter": torch.ones(3, 3)}, "filter: expected None beside kernel"),
        ("padded", {"filter": torch.ones(2, 1, 3, 3)}, r"got \(2, 1, 3, 3\); use batch_size=1, or deepinv.physics.BlurFFT"),
        ("separable", {"columns": kernel(2, 8), "rows": kernel(4, 6)}, r"rows: expected a matrix \(5, 6\), got \(4, 6\)"),
        ("colorization", {"weights": torch.zeros(3)}, "weights: expected three finite numbers, not all zero"),
    ],
)
def test_a_value_that_the_constructor_would_refuse_or_of_another_size_changes_nothing(name, new, message):
    make, first, _ = UPDATES[name]
    physics = make(**first)
    before = {key: value.clone() for key, value in physics.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        physics.update(**new)
    torch.testing.assert_close(dict(physics.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in OPERATORS if not OPERATORS[n].masked])
def test_what_is_no_parameter_is_ignored(name):
    physics = build(name, 2, 6, 6)
    before = {key: value.clone() for key, value in physics.state_dict().items()}
    physics.update(mask=torch.ones(1, 1, 6, 6), matrix=torch.ones(2, 2), down=torch.ones(1), kernel=None, weights=None)
    torch.testing.assert_close(dict(physics.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("make", [generator.RandomMaskGenerator, generator.GaussianMaskGenerator])
@pytest.mark.parametrize("size", [(2, 16, 20), (2, 3, 16, 20)])
def test_the_masks_of_deepinvs_generators_are_taken(make, size):
    mask = make(size, acceleration=2).step(batch_size=3)["mask"]  # (B, 2, *)
    maps = torch.from_numpy(coil_maps(4, 16, 20))
    single = operators.MRI(size, torch.ones(16, 20), spatial_dims=2)
    several = operators.MultiCoilMRI(torch.ones(16, 20), maps, img_size=size, spatial_dims=2)
    x = torch.rand(3, *size)
    for physics in (single, several):
        physics.update(mask=mask)
        seen = physics.A(torch.randn_like(x)) != 0
        assert torch.equal(seen, (mask if physics is single else mask[:, :, None]).bool().expand_as(seen))
        torch.testing.assert_close(physics.A_adjoint_A(x), physics.A_adjoint(physics.A(x)), rtol=1e-5, atol=1e-5)
