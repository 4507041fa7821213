import shutil
import subprocess

import numpy as np
import pytest
from scan_files import error_of, exactly, ifft_np, normal, read_all, write_cfl

from invdiff.io.scans import open_scan

needs_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")


def bart(folder, *arguments):
    subprocess.run(["bart", *map(str, arguments)], cwd=folder, check=True, capture_output=True)


def load(stem):
    """What BART wrote, in its order of axes."""
    dims = list(map(int, (stem.parent / f"{stem.name}.hdr").read_text().splitlines()[1].split()))
    return np.fromfile(f"{stem}.cfl", "<c8").reshape(dims, order="F")


@pytest.mark.parametrize("ending", ["", ".cfl", ".hdr"])
def test_kspace_comes_back_as_it_is(tmp_path, ending):
    kspace = normal(10, 7, 1, 4, 3)
    write_cfl(tmp_path / "scan.1", kspace.reshape(10, 7, 1, 4, *(1,) * 9, 3))
    scan = open_scan(f"{tmp_path}/scan.1{ending}")
    assert (scan.format, scan.slices, scan.coils, scan.size, scan.crop) == ("BART", 3, 4, (10, 7), (10, 7))
    for i, read in enumerate(read_all(scan)):
        assert exactly(read.kspace, kspace[:, :, 0, :, i].transpose(2, 0, 1))
        assert read.mask.all()


@pytest.mark.parametrize("shape", [(1, 10, 7), (10, 1, 7), (10, 7, 1)])
def test_the_grid_is_the_two_long_dimensions(tmp_path, shape):
    kspace = normal(10, 7, 4)
    kspace[:, 2] = 0
    scan = open_scan(write_cfl(tmp_path / "a", kspace.reshape(*shape, 4)))
    assert scan.size == (10, 7)
    assert exactly(scan.read(0).kspace, kspace.transpose(2, 0, 1))
    assert exactly(scan.read(0).mask, np.broadcast_to(np.arange(7) != 2, (10, 7)))


def test_a_frame_is_an_index_into_time(tmp_path):
    kspace = normal(6, 5, 2, 3)
    path = write_cfl(tmp_path / "a", kspace.reshape(6, 5, 1, 2, *(1,) * 6, 3))
    scan = open_scan(path, frame=2)
    assert exactly(scan.read(0).kspace, kspace[..., 2].transpose(2, 0, 1))
    assert "frame 2 of 3" in scan.notes[0]
    assert "frames 0 to 2" in error_of(open_scan, path, frame=3)


@pytest.mark.parametrize("readout", [8, 7])
def test_a_volume_is_read_as_slices_along_its_readout(tmp_path, readout):
    kspace = normal(readout, 6, 5, 2) * (np.random.default_rng(0).random((6, 5, 1)) < 0.7)
    scan = open_scan(write_cfl(tmp_path / "a", kspace))
    assert (scan.slices, scan.size) == (readout, (6, 5))
    expected = ifft_np(kspace, (0,)).transpose(0, 3, 1, 2)
    for i, read in enumerate(read_all(scan)):
        assert np.allclose(read.kspace, expected[i], atol=1e-5)
        assert exactly(read.mask, kspace[0].any(axis=-1))
    kspace[:4] = 0
    assert "has gaps" in error_of(open_scan(write_cfl(tmp_path / "b", kspace)).read, 0)


def test_a_slice_is_read_alone(tmp_path):
    kspace = normal(6, 5, 1, 2, 3)
    kspace[..., ::2] = np.nan
    scan = open_scan(write_cfl(tmp_path / "a", kspace.reshape(6, 5, 1, 2, *(1,) * 9, 3)))
    assert exactly(scan.read(1).kspace, kspace[:, :, 0, :, 1].transpose(2, 0, 1))
    assert "slice 2 holds" in error_of(scan.read, 2)


@needs_bart
def test_barts_own_fft_gives_the_same_image(tmp_path):
    bart(tmp_path, "phantom", "-k", "-s", 4, "-x", 32, "k")
    bart(tmp_path, "fft", "-u", "-i", 3, "k", "image")
    read = open_scan(tmp_path / "k").read(0)
    expected = load(tmp_path / "image").reshape(32, 32, 4).transpose(2, 0, 1)
    assert np.abs(ifft_np(read.kspace.numpy(), (1, 2)) - expected).max() < 1e-4 * np.abs(expected).max()


@needs_bart
def test_barts_trajectory_samples_the_same_kspace(tmp_path):
    """The phantom is known at any point of k-space: at (row, column) frequencies that lie on the grid, it is the grid's."""
    bart(tmp_path, "phantom", "-k", "-s", 3, "-x", 32, "grid")
    bart(tmp_path, "traj", "-x", 32, "-y", 32, "t")
    bart(tmp_path, "phantom", "-k", "-s", 3, "-t", "t", "points")
    scan = open_scan(tmp_path / "points", trajectory=tmp_path / "t")
    assert (scan.size, scan.coils) == ((32, 32), 3)
    read, grid = scan.read(0), open_scan(tmp_path / "grid").read(0).kspace
    rows, columns = (read.trajectory.round().int() + 16).T
    assert (read.trajectory - read.trajectory.round()).abs().max() == 0
    assert (read.kspace - grid[:, rows, columns]).abs().max() < 1e-4 * grid.abs().max()


@needs_bart
def test_a_radial_trajectory_asks_for_the_image_size(tmp_path):
    bart(tmp_path, "traj", "-r", "-x", 64, "-y", 5, "t")
    bart(tmp_path, "phantom", "-k", "-s", 2, "-t", "t", "k")
    scan = open_scan(tmp_path / "k.cfl", trajectory=tmp_path / "t.hdr")
    points = load(tmp_path / "t")
    read = scan.read(0)
    assert scan.size == (64, 64)
    assert read.kspace.shape == (2, 320)
    assert exactly(read.trajectory, points.reshape(3, -1).real[:2].T.astype(np.float32))
    assert exactly(read.kspace, load(tmp_path / "k")[0].reshape(320, 2).T)


def test_what_is_wrong_is_said(tmp_path):
    kspace = normal(6, 5, 1, 2)
    path = write_cfl(tmp_path / "a", kspace)
    (tmp_path / "a.cfl").write_bytes((tmp_path / "a.cfl").read_bytes()[:-8])
    assert "472 bytes" in error_of(open_scan, path)
    for text in ("", "# Dimensions", "# Dimensions\n6 5 x 2", "# Dimensions\n6 5 -1 2", "# Dimensions\n" + "1 " * 17):
        (tmp_path / "a.hdr").write_text(text)
        assert "expected a line" in error_of(open_scan, path)
    (tmp_path / "a.hdr").write_text("# Dimensions\n99999999999 99999999999 1 2\n")
    assert "incomplete" in error_of(open_scan, path)
    assert "dimension 4 (sets of maps)" in error_of(open_scan, write_cfl(tmp_path / "b", kspace.reshape(6, 5, 1, 1, 2)))
    assert "three dimensions each" in error_of(open_scan, write_cfl(tmp_path / "c", normal(2, 2, 2, 1, *(1,) * 9, 2)))
    (tmp_path / "d.hdr").write_text("# Dimensions\n6 5 1 0\n")
    (tmp_path / "d.cfl").write_bytes(b"")
    assert "holds 0 bytes" in error_of(open_scan, tmp_path / "d.cfl")
    assert "zero everywhere" in error_of(open_scan(write_cfl(tmp_path / "e", 0 * kspace)).read, 0)


def test_what_is_wrong_with_a_trajectory_is_said(tmp_path):
    kspace = write_cfl(tmp_path / "k", normal(1, 4, 5, 2))
    points = np.zeros((3, 4, 5), np.complex64)
    points[:2] = 8
    assert open_scan(kspace, trajectory=write_cfl(tmp_path / "t", points)).size == (16, 16)
    assert open_scan(kspace, trajectory=tmp_path / "t.cfl", size=(17, 19)).crop == (17, 19)
    assert "expected a size from 16 x 16" in error_of(open_scan, kspace, trajectory=tmp_path / "t.cfl", size=(16, 15))
    assert "expected (3, samples, spokes)" in error_of(open_scan, kspace, trajectory=write_cfl(tmp_path / "a", points[:2]))
    assert "samples and spokes (5, 4)" in error_of(open_scan, kspace,
                                                   trajectory=write_cfl(tmp_path / "b", points.transpose(0, 2, 1)))
    assert "leaves the plane" in error_of(open_scan, kspace, trajectory=write_cfl(tmp_path / "c", points + 1))
    assert "NaN" in error_of(open_scan, kspace, trajectory=write_cfl(tmp_path / "d", points * np.nan))
    assert "multiply coordinates" in error_of(open_scan, kspace, trajectory=write_cfl(tmp_path / "e", points / 16))
    assert "at most 4096" in error_of(open_scan, kspace, trajectory=write_cfl(tmp_path / "f", points * 1e4))
    assert "no pair" in error_of(open_scan, kspace, trajectory=tmp_path / "nothing")
