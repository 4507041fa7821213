"""Cartesian MRI: the Fourier transform written out, sets, volumes, series, pieces and gradients."""


import numpy as np
import pytest
import torch
from draws import assert_close, randc, randn, random_mask

import operators
from operators.mri import _cartesian, _fourier, multicoil

GRIDS = [((6, 8), 2), ((7, 5), 2), ((4, 9), 2), ((3, 4, 5), 3), ((3, 5, 6), 2)]  # the last is a series of 3 frames


def smooth_maps(coils, height, width, sets=1):
    """Maps (M, N, H, W) of coils around the image, the sum of squares of each set normalised to 1."""
    rows = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    columns = torch.linspace(-1, 1, width, dtype=torch.float64)
    angles = 2 * torch.pi * torch.arange(sets * coils, dtype=torch.float64).reshape(sets, coils, 1, 1) / coils
    distance = (rows - 1.2 * angles.sin()) ** 2 + (columns - 1.2 * angles.cos()) ** 2
    maps = torch.polar(1 / (0.4 + distance), angles * 2 + rows * columns * torch.arange(1.0, sets + 1)[:, None, None, None])
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def centred_dft(x, axes):
    """The sum that defines the transform, axis by axis, index n // 2 the origin on both sides."""
    for axis in axes:
        n = x.shape[axis]
        place = torch.arange(n, dtype=torch.float64) - n // 2
        matrix = torch.exp(-2j * torch.pi * torch.outer(place, place) / n) / n**0.5
        x = (x.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return x


def sense(x, mask, maps, spatial_dims):
    """The definition, of x (B, M, *grid) and maps (B, M, N, *spatial): (B, N, *grid)."""
    maps = maps if x.ndim - 2 == spatial_dims else maps.unsqueeze(3)
    return centred_dft((maps * x[:, :, None]).sum(1), range(-spatial_dims, 0)) * mask


def set_channels(x):
    """Complex (B, M, ...) to channels (B, 2 M, ...)."""
    return torch.view_as_real(x).movedim(-1, 2).flatten(1, 2)


def assert_adjoint(physics, batch):
    x, y = randn(batch, *physics.img_size), randn(batch, *physics.measurement_size, seed=1)
    ax = physics.A(x)
    assert abs((ax * y).sum() - (x * physics.A_adjoint(y)).sum()) <= 1e-12 * ax.norm() * y.norm()
    assert_close(physics.A_adjoint_A(x), physics.A_adjoint(ax))


@pytest.mark.parametrize("sizes", [(1,), (2,), (7,), (6, 9), (3, 4, 5)])
def test_two_ramps_centre_the_transform(sizes):
    axes = range(-len(sizes), 0)
    x = randc(2, *sizes)
    assert_close(_fourier.fft(x, axes), centred_dft(x, axes))
    ramp, constant = _fourier.centring(sizes)
    assert_close(constant * ramp * torch.fft.fftn(ramp * x, dim=list(axes), norm="ortho"), centred_dft(x, axes))


@pytest.mark.parametrize(("grid", "dims"), GRIDS)
def test_single_coil_is_the_sampled_transform(grid, dims):
    x = randc(2, *grid)
    for mask in (random_mask(*grid), random_mask(2, 1, *grid), random_mask(*grid[-dims:])):
        physics = operators.MRI((2, *grid), mask, spatial_dims=dims).to(torch.float64)
        expected = centred_dft(x, range(-dims, 0)) * (mask[:, 0] if mask.ndim == len(grid) + 2 else mask)
        assert_close(physics.A(_fourier.to_channels(x)), _fourier.to_channels(expected))
        assert_adjoint(physics, 2)
        y = randn(2, *physics.measurement_size)
        assert_close(physics.A_dagger(y), physics.A_adjoint(y))
        z, gamma = randn(2, *physics.img_size, seed=3), torch.tensor([0.2, 3.0], dtype=torch.float64)
        for given in (gamma, gamma[:, None, None, None]):
            got = physics.prox_l2(z, y, given)
            weight = gamma.reshape(-1, *[1] * (z.ndim - 1))
            assert_close(weight * physics.A_adjoint_A(got) + got, weight * physics.A_adjoint(y) + z)


@pytest.mark.parametrize("batch_of_masks", [1, 3])
@pytest.mark.parametrize(("batch_of_maps", "sets"), [(1, 1), (3, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize(("grid", "dims"), GRIDS)
def test_every_coil_sees_its_own_image(grid, dims, batch_of_maps, sets, batch_of_masks):
    x, maps = randc(3, sets, *grid), randc(batch_of_maps, sets, 4, *grid[-dims:], seed=1)
    mask = random_mask(batch_of_masks, 1, *grid)
    physics = operators.MultiCoilMRI(mask, maps, img_size=(2 * sets, *grid), spatial_dims=dims)
    assert physics.measurement_size == (2, 4, *grid)
    assert_close(physics.A(set_channels(x)), _fourier.to_channels(sense(x, mask, maps, dims)))
    assert_adjoint(physics, 3)


@pytest.mark.parametrize(("grid", "dims"), GRIDS)
def test_weights_multiply_k_space(grid, dims):
    maps, mask, x = randc(4, *grid[-dims:]), random_mask(*grid), randn(2, 2, *grid)
    weights = torch.rand(grid[-dims:], generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    plain, weighted = (operators.MultiCoilMRI(mask, maps, img_size=(2, *grid), spatial_dims=dims, weights=w)
                       for w in (None, weights))
    assert_close(weighted.A(x), weights * plain.A(x))
    assert_close(weighted.A_adjoint_A(x), plain.A_adjoint(weights.square() * plain.A(x)))
    assert_adjoint(weighted, 2)
    again = operators.MultiCoilMRI(weighted.mask, maps, img_size=(2, *grid), spatial_dims=dims, weights=weighted.weights)
    assert_close(again.A(x), weighted.A(x))


@pytest.mark.parametrize("most", [1, 7, 20, 60, 300])
@pytest.mark.parametrize(("grid", "dims"), GRIDS)
def test_the_pieces_that_are_worked_on_at_a_time_leave_no_mark(monkeypatch, grid, dims, most):
    maps, x = randc(2, 2, 5, *grid[-dims:]), randn(2, 4, *grid)
    for axis in (None, -1, -2):
        mask = random_mask(*grid)
        if axis is not None:
            mask = mask.narrow(axis, 0, 1).expand(grid)
        physics = operators.MultiCoilMRI(mask, maps, img_size=(4, *grid), spatial_dims=dims)
        y = physics.A(x)
        whole = y, physics.A_adjoint(y), physics.A_adjoint_A(x)
        monkeypatch.setattr(multicoil, "CPU_CHUNK", most)
        for got, expected in zip((physics.A(x), physics.A_adjoint(y), physics.A_adjoint_A(x)), whole, strict=True):
            assert_close(got, expected)
        monkeypatch.undo()


@pytest.mark.parametrize("most", [1, 30, 10**6])
@pytest.mark.parametrize("axes", [(-1,), (-3, -2, -1), (-3, -1), (-2, -1)])
def test_blocks_cover_everything_once_and_keep_transformed_axes_whole(axes, most):
    seen = torch.zeros(3, 4, 5, 6, 7)
    for item, coil, row in _cartesian.blocks(3, 4, (5, 6, 7), axes, most):
        seen[item, coil, row] += 1
        assert seen[item, coil, row].numel() <= max(most, 5 * 6 * 7 if -3 in axes else 6 * 7)
        assert -3 not in axes or seen[item, coil, row].shape[2] == 5
    assert (seen == 1).all()


@pytest.mark.parametrize("constant", [(), (-1,), (-2,), (-3,), (-3, -1), (-3, -2, -1)])
@pytest.mark.parametrize("make", ["mri", "multicoil"])
def test_the_normal_operator_transforms_only_where_the_mask_varies(monkeypatch, make, constant):
    grid = (4, 5, 6)
    mask = random_mask(*grid) if constant != (-3, -2, -1) else torch.ones(grid, dtype=torch.bool)
    for axis in constant:
        mask = mask.narrow(axis, 0, 1).expand(grid)
    if make == "mri":
        physics = operators.MRI((2, *grid), mask).to(torch.float64)
    else:
        physics = operators.MultiCoilMRI(mask, randc(3, *grid), spatial_dims=3)
    assert_adjoint(physics, 2)
    fftn, calls = torch.fft.fftn, []
    monkeypatch.setattr(torch.fft, "fftn", lambda z, dim, **kw: (calls.append(tuple(dim)), fftn(z, dim=dim, **kw))[1])
    physics.A_adjoint_A(randn(2, *physics.img_size))
    assert set(calls) <= {tuple(axis for axis in (-3, -2, -1) if axis not in constant)}


def test_image_sizes_are_those_of_the_maps():
    mask, maps = random_mask(6, 7), randc(4, 6, 7).to(torch.complex64)
    assert operators.MultiCoilMRI(mask=mask, coil_maps=maps).img_size == (2, 6, 7)
    assert operators.MultiCoilMRI(mask, maps.numpy()).measurement_size == (2, 4, 6, 7)
    assert operators.MultiCoilMRI(mask, maps[None]).img_size == (2, 6, 7)
    assert operators.MultiCoilMRI(mask, randc(1, 3, 4, 6, 7)).img_size == (6, 6, 7)
    assert operators.MultiCoilMRI(random_mask(5, 6, 7), randc(4, 5, 6, 7), spatial_dims=3).img_size == (2, 5, 6, 7)
    assert operators.MultiCoilMRI(random_mask(5, 6, 7), randc(4, 5, 6, 7), img_size=(2, 5, 6, 7)).spatial_dims == 3


def test_orthonormal_maps_and_all_samples_change_nothing():
    physics = operators.MultiCoilMRI(torch.ones(6, 7), smooth_maps(4, 6, 7)[0])
    x = randn(2, 2, 6, 7)
    assert_close(physics.A_adjoint_A(x), x)
    assert_close(physics.A_dagger(physics.A(x)), x, 1e-10)


@pytest.mark.parametrize(("grid", "dims"), GRIDS)
def test_sense_gives_back_what_enough_coils_have_seen(grid, dims):
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[..., ::2] = True
    maps = randc(2, 8, *grid[-dims:])
    physics = operators.MultiCoilMRI(mask, maps, img_size=(2, *grid), spatial_dims=dims, tol=1e-12, max_iter=500)
    x, z = randn(2, 2, *grid), randn(2, 2, *grid, seed=1)
    y = physics.A(x)
    assert_close(physics.A_dagger(y), x, 1e-9)
    for gamma in (0.7, torch.tensor([0.1, 20.0]), torch.tensor([0.1, 20.0])[:, None, None, None]):
        got = physics.prox_l2(z, y, gamma)
        weight = torch.as_tensor(gamma, dtype=torch.float64).reshape(-1, *[1] * (z.ndim - 1))
        assert_close(weight * physics.A_adjoint_A(got) + got, weight * physics.A_adjoint(y) + z, 1e-10)


def test_sets_combine_to_the_root_of_their_sum_of_squares():
    x = randc(2, 3, 4, 5)
    assert_close(operators.mri.combine_sets(set_channels(x)), x.abs().square().sum(1, keepdim=True).sqrt())


@pytest.mark.parametrize("method", ["A", "A_adjoint", "A_adjoint_A"])
@pytest.mark.parametrize("make", ["mri", "multicoil"])
def test_gradients_of_every_order_and_kind(make, method):
    mask = random_mask(2, 3)
    if make == "mri":
        physics = operators.MRI((2, 2, 3), mask).to(torch.float64)
    else:
        physics = operators.MultiCoilMRI(mask, randc(1, 2, 2, 2, 3))
    apply = getattr(physics, method)
    x = randn(2, *(physics.measurement_size if method == "A_adjoint" else physics.img_size)).requires_grad_()
    assert torch.autograd.gradcheck(apply, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v: apply(v).square(), x)
    jacobian = torch.func.jacrev(apply)(x.detach())  # by vmap over the rows
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(apply, x.detach()))
    stacked = torch.func.vmap(apply, in_dims=1)(torch.stack([x.detach(), 2 * x.detach()], dim=1))
    torch.testing.assert_close(stacked, torch.stack([apply(x), 2 * apply(x)]).detach())


def test_nothing_is_kept_for_the_gradient():
    physics = operators.MultiCoilMRI(random_mask(8, 9), randc(16, 8, 9))
    x = randn(1, 2, 8, 9).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        physics.A_adjoint_A(physics.A_adjoint(physics.A(x))).sum().backward()
    assert not kept


def test_precision_is_the_maps_and_half_precision_is_computed_in_single():
    mask, maps = random_mask(6, 7), randc(4, 6, 7)
    double, single = operators.MultiCoilMRI(mask, maps), operators.MultiCoilMRI(mask, maps.to(torch.complex64))
    x = randn(1, 2, 6, 7)
    assert single.A(x.float()).dtype == torch.float32
    assert double.A(x.float()).dtype == single.A(x).dtype == torch.float64
    assert_close(single.A(x), double.A(x), 1e-6)
    for physics in (single, operators.MRI((2, 6, 7), mask)):
        for dtype in (torch.bfloat16, torch.float16):
            got = physics.A(x.to(dtype))
            assert got.dtype == torch.float32
            assert_close(got, physics.A(x.to(dtype).float()))
    before = single.A_adjoint_A(x.float())
    stored = single.to(torch.bfloat16)
    assert stored.coil_maps.dtype == torch.bfloat16
    assert stored.A(x.float()).dtype == torch.float32
    assert_close(stored.A_adjoint_A(x.float()), before, 2**-7)  # what rounding the maps does, and no more


@pytest.mark.parametrize("make", [lambda mask, scale: operators.MRI((2, 6, 7), mask),
                                  lambda mask, scale: operators.MultiCoilMRI(mask, scale * randc(4, 6, 7))])
def test_a_state_of_another_kind_of_mask_is_taken(make):
    lines = torch.arange(7).expand(6, 7) % 3 == 0
    for first, second in ((lines, random_mask(6, 7)), (random_mask(6, 7), lines)):
        wanted, x = make(first, 2), randn(1, 2, 6, 7)
        whole = {**wanted.state_dict(), **{name: getattr(wanted, name) for name in ("_before", "_after", "_spectrum")}}
        for state in (wanted.state_dict(), whole):                    # states once held what is derived, too
            physics = torch.nn.Sequential(make(second, 1))
            physics.load_state_dict({f"0.{name}": value for name, value in state.items()})
            for call in ("A", "A_adjoint_A"):
                torch.testing.assert_close(getattr(physics[0], call)(x), getattr(wanted, call)(x), rtol=0, atol=0)


def test_operators_of_a_batch_are_known_by_their_first_axis():
    # what invdiff.restoration goes by, to take the rows of a batch one at a time
    def own(physics):
        return any(b.ndim >= 4 and b.shape[0] == 3 for b in physics.buffers())

    for mask in (random_mask(6, 7), random_mask(3, 1, 6, 7)):
        assert own(operators.MRI((2, 6, 7), mask)) == (mask.ndim == 4)
        for maps in (randc(3, 6, 7), randc(3, 4, 6, 7)):
            assert own(operators.MultiCoilMRI(mask, maps)) == (4 in (mask.ndim, maps.ndim))
    assert not own(operators.MRI((2, 3, 6, 7), random_mask(3, 6, 7)))
    assert not own(operators.MultiCoilMRI(random_mask(3, 6, 7), randc(3, 3, 6, 7), spatial_dims=3))


def test_what_the_caller_writes_later_does_not_reach_the_operator():
    mask, maps = np.ones((6, 7)), randc(4, 6, 7)
    physics = operators.MultiCoilMRI(mask, maps)
    x = randn(1, 2, 6, 7)
    before = physics.A(x)
    mask[:], maps[:] = 0, 0
    torch.testing.assert_close(physics.A(x), before, rtol=0, atol=0)
