"""Several operators as one."""

import deepinv
import pytest
import torch

import operators

SIZE = (3, 6, 8)


def parts():
    return operators.GaussianBlur(SIZE, sigma=0.4), operators.SuperResolution(SIZE, factor=2)


def test_it_is_deepinv_s_stack_in_one_tensor():
    theirs, ours = deepinv.physics.stack(*parts()), operators.stack(*parts())
    assert isinstance(ours, operators.Stacked)
    x = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    y = theirs.A(x)
    assert torch.equal(ours.A(x), torch.cat([part.flatten(1) for part in y.x], 1))
    assert torch.equal(ours.parts.join(y.x), ours.A(x))
    torch.testing.assert_close(ours.A_adjoint(ours.A(x)), theirs.A_adjoint(y))
    assert [part.shape for part in ours.parts.split(ours.A(x))] == [part.shape for part in y.x]


def test_noise_becomes_white_of_the_least_level():
    blur, few = (torch.as_tensor(0.1), torch.as_tensor(0.4))
    ours = operators.stack(*parts(), noise=(float(few), float(blur)))
    n = torch.randn(200, *SIZE, generator=torch.Generator().manual_seed(0))
    noise = ours.parts.join([few * n, blur * n[:, :, ::2, ::2]])
    for part in noise.split([144, 36], 1):
        assert float(part.std()) == pytest.approx(0.1, rel=4 / part.numel() ** 0.5)
    back = ours.parts.split(noise)
    torch.testing.assert_close(back[0], few * n)
    torch.testing.assert_close(back[1], blur * n[:, :, ::2, ::2])


def test_a_call_adds_each_one_s_noise_and_passes_parameters_on():
    blur = operators.GaussianBlur(SIZE, sigma=0.4, noise_model=deepinv.physics.GaussianNoise(0.1))
    ours = operators.stack(blur, operators.Inpainting(SIZE, torch.ones(SIZE)))
    x, mask = torch.zeros(1, *SIZE), torch.zeros(1, *SIZE)
    mask[..., 0] = 1
    blurred, pixels = ours.parts.split(ours(x))
    assert float(blurred.std()) == pytest.approx(0.1, rel=0.3)
    assert not pixels.any()
    assert torch.equal(ours.parts.split(ours.A(x + 1, mask=mask))[1], mask)
    assert ours.parts.split(ours.A(x + 1))[1].all()
    ours.update(mask=mask)
    assert torch.equal(ours.parts.split(ours.A(x + 1))[1], mask)


def test_one_that_is_not_linear_has_the_gradient_of_finite_differences():
    ours = operators.stack(operators.HighDynamicRange(SIZE), operators.Denoising(SIZE), noise=(0.2, 0.1)).double()
    assert isinstance(ours, operators.StackedNonlinear)
    x, direction, v = (torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
                       for i, shape in enumerate([(2, *SIZE), (2, *SIZE), (2, *ours.measurement_size)]))
    slope = (ours.A(x + 1e-6 * direction) - ours.A(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((ours.A_vjp(x, v) * direction).sum(), (v * slope).sum(), rtol=1e-6, atol=0)


def test_what_cannot_be_stacked_is_refused():
    blur, _ = parts()
    with pytest.raises(ValueError, match="physics: expected one operator or more, got none"):
        operators.stack()
    with pytest.raises(ValueError, match="expected linear operators, got HighDynamicRange; StackedNonlinear takes any"):
        operators.Stacked([blur, operators.HighDynamicRange(SIZE)])
    with pytest.raises(ValueError, match=r"of one size, got \(3, 6, 8\) and \(3, 6, 6\)"):
        operators.stack(blur, operators.Denoising((3, 6, 6)))
    with pytest.raises(ValueError, match="img_size: no operator knows the image's size"):
        operators.stack(deepinv.physics.Denoising())
    with pytest.raises(ValueError, match="noise: expected one level for each of 2 operators, got 1"):
        operators.stack(*parts(), noise=(0.1,))
    with pytest.raises(ValueError, match=r"noise: expected a number in \(0, inf\), got 0"):
        operators.stack(*parts(), noise=(0, 0.1))
    y = operators.stack(*parts()).parts
    with pytest.raises(ValueError, match=r"expected tensors \(B, 3, 6, 8\), \(B, 3, 3, 4\), got \(1, 3, 6, 8\), list"):
        y.join([torch.zeros(1, *SIZE), [0.0]])
    with pytest.raises(ValueError, match=r"y: expected \(B, 180\), got \(1, 144\)"):
        y.split(torch.zeros(1, 144))
