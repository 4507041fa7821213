"""Coil maps beside other people's code: SigPy and BART."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from coil_scans import energy_kept, overlap, project, scan

import operators
from operators.mri import _fourier, coils

KSPACE = Path(__file__).parents[3] / "../shared/data/kspace"


def real_scan(name):
    h5py = pytest.importorskip("h5py")
    if not (KSPACE / name).exists():
        pytest.skip("the shared k-space data are not there")
    with h5py.File(KSPACE / name) as file:
        return torch.from_numpy(file["kspace"][()])


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    np.asarray(array, np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path):
    dims = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(dims, order="F")


def bart(tmp_path, *command):
    if shutil.which("bart") is None:
        pytest.skip("BART is not installed")
    subprocess.run(["bart", *map(str, command)], cwd=tmp_path, check=True, capture_output=True)


def bart_maps(tmp_path, kspace, sets):
    """Maps (M, N, H, W) of BART from k-space (1, N, H, W)."""
    count, height, width = kspace.shape[1:]
    write_cfl(tmp_path / "kspace", kspace[0].permute(1, 2, 0).reshape(height, width, 1, count).numpy())
    bart(tmp_path, "ecalib", "-m", sets, "-r", 24, "kspace", "maps")
    return torch.from_numpy(read_cfl(tmp_path / "maps").reshape(height, width, count, sets).copy()).permute(3, 2, 0, 1)


def head(kspace):
    magnitude = coils.rss(_fourier.ifft(kspace, (-2, -1)))[0]
    return magnitude > 0.1 * magnitude.max()


def test_agrees_with_sigpy():
    app = pytest.importorskip("sigpy.mri.app", reason="SigPy is not installed")
    kspace, _, inside = scan()
    expected = app.EspiritCalib(kspace[0].numpy(), calib_width=24, crop=0, show_pbar=False).run()
    got = operators.mri.espirit(kspace, threshold=0.02)
    assert overlap(got[0], torch.from_numpy(expected))[inside].min() > 1 - 1e-5


def test_agrees_with_bart_on_its_phantom(tmp_path):
    bart(tmp_path, "phantom", "-x", 96, "-k", "-s", 8, "phantom")
    kspace = torch.from_numpy(read_cfl(tmp_path / "phantom").reshape(96, 96, 8).copy()).permute(2, 0, 1)[None]
    theirs = bart_maps(tmp_path, kspace, 1)
    image = project(theirs, _fourier.ifft(kspace, (-2, -1))[0])
    assert energy_kept(operators.mri.espirit(kspace)[0][None], image, head(kspace)) > 0.999


@pytest.mark.parametrize("name", ["brain_t1_8ch.h5", "brain_gre_16ch_96.h5", "brain_undersampled_8ch.h5"])
def test_maps_of_a_brain_span_the_space_of_those_of_bart(name, tmp_path):
    kspace = real_scan(name)
    theirs = bart_maps(tmp_path, kspace, 1)
    image = _fourier.ifft(kspace, (-2, -1))[0]
    inside = head(kspace) & (theirs[0].abs().sum(0) > 0)
    ours = operators.mri.espirit(kspace)
    assert energy_kept(ours, project(theirs, image), inside) > 0.999
    if name == "brain_t1_8ch.h5":
        assert energy_kept(ours, image, inside) > 0.99  # of the coil images themselves


def test_a_small_field_of_view_needs_two_sets_and_they_are_those_of_bart(tmp_path):
    kspace = real_scan("brain_smallfov_8ch.h5")
    image, inside = _fourier.ifft(kspace, (-2, -1))[0], head(kspace)
    one, two = (operators.mri.espirit(kspace, sets=sets).reshape(1, sets, *kspace.shape[1:])[0] for sets in (1, 2))
    lost_by_one, lost_by_two = 1 - energy_kept(one, image, inside), 1 - energy_kept(two, image, inside)
    assert lost_by_two < 0.015
    assert lost_by_one > 2.5 * lost_by_two
    theirs = bart_maps(tmp_path, kspace, 2)
    assert energy_kept(two, project(theirs, image), inside & (theirs[0].abs().sum(0) > 0)) > 0.99
