"""Cartesian MRI beside other people's code: SigPy, deepinv and BART."""

import shutil
import subprocess

import deepinv
import numpy as np
import pytest
import torch
from draws import assert_close, randc, randn, random_mask

import operators
from operators.mri import _fourier


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("grid", [(24, 20), (15, 18), (6, 7, 9)])
def test_sigpy_agrees(grid, lines):
    linop = pytest.importorskip("sigpy.mri").linop
    maps, x = randc(4, *grid).to(torch.complex64), randc(*grid, seed=1).to(torch.complex64)
    mask = random_mask(*grid)
    mask = mask[..., :1, :].expand(grid) if lines else mask
    theirs = linop.Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
    ours = operators.MultiCoilMRI(mask, maps, spatial_dims=len(grid))
    channels = _fourier.to_channels(x[None])
    y = ours.A(channels)
    assert_close(_fourier.to_complex(y)[0], torch.from_numpy(theirs(x.numpy())), 1e-5)
    k = randc(4, *grid, seed=2).to(torch.complex64)
    back = ours.A_adjoint(_fourier.to_channels(k[None]))
    assert_close(_fourier.to_complex(back)[0], torch.from_numpy(theirs.H(k.numpy())), 1e-5)
    twice = ours.A_adjoint_A(channels)
    assert_close(_fourier.to_complex(twice)[0], torch.from_numpy(theirs.N(x.numpy())), 1e-5)


@pytest.mark.parametrize("three_d", [False, True])
def test_deepinv_agrees(three_d):
    grid = (5, 6, 7) if three_d else (6, 7)
    mask, maps, x = random_mask(*grid), randc(1, 4, *grid).to(torch.complex64), randn(1, 2, *grid).float()
    theirs = deepinv.physics.MultiCoilMRI(mask=mask.float(), coil_maps=maps, img_size=(2, *grid), three_d=three_d)
    ours = operators.MultiCoilMRI(mask, maps, img_size=(2, *grid))
    assert_close(ours.A(x), theirs.A(x), 1e-6)
    assert_close(ours.A_adjoint(ours.A(x)), theirs.A_adjoint(theirs.A(x)), 1e-6)
    single = deepinv.physics.MRI(mask=mask.float(), img_size=(2, *grid), three_d=three_d)
    assert_close(operators.MRI((2, *grid), mask).A(x), single.A(x), 1e-6)


class Bart:
    """BART's commands on complex arrays, through files in `folder`."""

    def __init__(self, folder):
        if shutil.which("bart") is None:
            pytest.skip("bart is not installed")
        self.folder = folder

    def __call__(self, command, *arrays):
        for i, array in enumerate(arrays):
            shape = " ".join(map(str, array.shape))
            (self.folder / f"in{i}.hdr").write_text(f"# Dimensions\n{shape}\n")
            np.asarray(array, np.complex64).ravel(order="F").tofile(self.folder / f"in{i}.cfl")
        names = [f"in{i}" for i in range(len(arrays))]
        subprocess.run(["bart", *command.split(), *names, "out"], cwd=self.folder, check=True, capture_output=True)
        shape = [int(n) for n in (self.folder / "out.hdr").read_text().splitlines()[1].split()]
        out = np.fromfile(self.folder / "out.cfl", np.complex64).reshape(shape, order="F")
        return torch.from_numpy(np.ascontiguousarray(out.squeeze()))


@pytest.fixture
def bart(tmp_path):
    return Bart(tmp_path)


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (5, 8)])
def test_barts_unitary_fft_agrees(bart, size):
    x = randc(*size)
    ours = operators.MRI((2, *size), torch.ones(size)).to(torch.float64).A(_fourier.to_channels(x[None]))
    assert_close(_fourier.to_complex(ours)[0], bart("fft -u 3", x.numpy()).to(torch.complex128), 1e-5)


@pytest.mark.parametrize("strength", [0.003, 0.1])
def test_barts_regularised_sense_agrees_on_its_phantom(bart, strength):
    k = bart("phantom -k -s 8 -x 48").movedim(-1, 0).to(torch.complex128)  # (8, 48, 48), analytic
    maps = bart("phantom -S 8 -x 48").movedim(-1, 0).to(torch.complex128)
    maps = maps / maps.abs().square().sum(0).sqrt()
    mask = torch.zeros(48, 48, dtype=torch.bool)
    mask[:, ::3] = mask[:, 20:28] = True
    k = k / k.abs().max() * mask
    arrays = (v.movedim(0, -1)[:, :, None].numpy() for v in (k, maps))  # BART has coils fourth
    theirs = bart(f"pics -l2 -r {strength} -i 300 -S", *arrays)
    ours = operators.MultiCoilMRI(mask, maps, tol=1e-10, max_iter=500).prox_l2(0.0, _fourier.to_channels(k[None]), 1 / strength)
    ours = _fourier.to_complex(ours)[0]
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_sense_recovers_barts_phantom_from_every_second_line(bart):
    k = bart("phantom -k -s 8 -x 64").movedim(-1, 0).to(torch.complex128)
    maps = bart("phantom -S 8 -x 64").movedim(-1, 0).to(torch.complex128)
    y = _fourier.to_channels(k[None])
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, ::2] = mask[:, 28:36] = True
    whole = operators.MultiCoilMRI(torch.ones(64, 64), maps, tol=1e-8).A_dagger(y)
    sense = operators.MultiCoilMRI(mask, maps, tol=1e-8, max_iter=300)
    assert (sense.A_dagger(y * mask) - whole).norm() < 0.05 * whole.norm()  # the phantom is analytic: k-space is cut off
    assert (sense.A_adjoint(y * mask) / sense.A_adjoint_A(whole).norm() * whole.norm() - whole).norm() > 0.2 * whole.norm()
