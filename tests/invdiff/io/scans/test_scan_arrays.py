import h5py
import numpy as np
import pytest
import scipy.io
from scan_files import error_of, exactly, normal, read_all, write_mat73

from invdiff.io.scans import open_images, open_scan


def save(path, **arrays):
    """MATLAB 5, MATLAB 7.3 or .npz, by the ending."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    else:
        write_mat73(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, ">c8"])
def test_npy(tmp_path, dtype):
    kspace = normal(3, 2, 8, 6)
    np.save(tmp_path / "a.npy", kspace.astype(dtype))
    scan = open_scan(tmp_path / "a.npy")
    assert (scan.format, scan.slices, scan.coils, scan.size, scan.crop) == ("NumPy", 3, 2, (8, 6), (8, 6))
    assert all(exactly(read.kspace, kspace[i]) for i, read in enumerate(read_all(scan)))
    np.save(tmp_path / "b.npy", kspace[0])
    assert open_scan(tmp_path / "b.npy").slices == 1
    assert exactly(open_scan(tmp_path / "b.npy").read(0).kspace, kspace[0])
    assert "coils of one slice; several slices are (slices, coils, rows, columns)" in open_scan(tmp_path / "b.npy").notes[0]
    assert not scan.notes


def test_a_slice_of_npy_is_read_alone(tmp_path):
    kspace = normal(3, 2, 8, 6)
    kspace[::2] = np.nan
    np.save(tmp_path / "a.npy", kspace)
    assert exactly(open_scan(tmp_path / "a.npy").read(1).kspace, kspace[1])
    assert "slice 0 holds 96 NaN" in error_of(open_scan(tmp_path / "a.npy").read, 0)


def test_matlab_s_header_is_enough(tmp_path):
    """Without the attributes that MATLAB gives each variable."""
    kspace = normal(3, 2, 8, 6)
    path = write_mat73(tmp_path / "a.mat", kspace=kspace.transpose(2, 3, 1, 0))
    with h5py.File(path, "r+") as file:
        del file["kspace"].attrs["MATLAB_class"]
    assert exactly(read_all(open_scan(path))[1].kspace, kspace[1])


@pytest.mark.parametrize("ending", [".npz", ".mat", ".mat73"])
@pytest.mark.parametrize("name", ["kspace", "KSP", "raw", "anything"])
@pytest.mark.parametrize("slices", [1, 3])
def test_archives(tmp_path, ending, name, slices):
    """NumPy has slices first, MATLAB last."""
    kspace, noise, mask = normal(slices, 2, 8, 6), normal(2, 30, seed=1), np.arange(48).reshape(8, 6) % 3 > 0
    stored = kspace if ending == ".npz" else kspace.transpose(2, 3, 1, 0)
    if slices == 1:
        stored = stored[0] if ending == ".npz" else stored[..., 0]
    scan = open_scan(save(tmp_path / f"a{ending}", **{name: stored}, noise=noise, mask=mask, comment=np.ones(3)))
    assert (scan.format, scan.slices, scan.coils) == ("NumPy" if ending == ".npz" else "MATLAB", slices, 2)
    assert scan.size == (8, 6)
    assert exactly(scan.noise, noise)
    for i, read in enumerate(read_all(scan)):
        assert exactly(read.kspace, np.where(mask, kspace[i], 0))
        assert exactly(read.mask, mask)


@pytest.mark.parametrize("ending", [".mat", ".mat73"])
def test_matlab_drops_the_axis_of_a_single_coil_and_makes_rows_of_vectors(tmp_path, ending):
    kspace = normal(8, 6)
    scan = open_scan(save(tmp_path / f"a{ending}", kspace=kspace, mask=np.array([[1, 0, 1, 1, 1, 1]])))
    assert (scan.coils, scan.size) == (1, (8, 6))
    assert exactly(scan.read(0).kspace[0], np.where([1, 0, 1, 1, 1, 1], kspace, 0))


@pytest.mark.parametrize("ending", [".npz", ".mat", ".mat73"])
def test_trajectories(tmp_path, ending):
    points = np.random.default_rng(0).uniform(-8, 8, (4, 10, 2))
    points[0, 0] = 8, 5.5
    points[..., 1] *= 0.8
    kspace = normal(3, 40)
    scan = open_scan(save(tmp_path / f"a{ending}", kspace=kspace, traj=points))
    assert (scan.slices, scan.coils, scan.size) == (1, 3, (16, 14))
    read = scan.read(0)
    assert read.mask is None
    assert exactly(read.kspace, kspace)
    assert exactly(read.trajectory, points.reshape(40, 2).astype(np.float32))
    assert scan.notes == ["image size 16 x 14 estimated from the trajectory, even; give size for another"]
    given = open_scan(tmp_path / f"a{ending}", size=(17, 13))
    assert (given.size, given.crop, given.notes) == ((17, 13), (17, 13), ["image size 17 x 13 as given"])
    assert "reaches 8 and" in error_of(open_scan, tmp_path / f"a{ending}", size=(15, 13))
    assert "to 8192 x 8192" in error_of(open_scan, tmp_path / f"a{ending}", size=(17, 8193))


@pytest.mark.parametrize("shape", [(3, 40), (3, 4, 10), (2, 3, 40), (2, 3, 4, 10)])
def test_a_trajectory_in_a_file_of_its_own(tmp_path, shape):
    points = np.random.default_rng(0).uniform(-8, 8, (4, 10, 2)).astype(np.float32)
    kspace = normal(*shape)
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "t.npy", points)
    scan = open_scan(tmp_path / "k.npy", trajectory=tmp_path / "t.npy")
    assert scan.slices == (2 if shape[0] == 2 else 1)
    assert exactly(read_all(scan)[-1].kspace, kspace.reshape(-1, 3, 40)[-1])
    assert exactly(scan.read(0).trajectory, points.reshape(40, 2))


@pytest.mark.parametrize(("arrays", "expected"), [
    ({"kspace": normal(0, 8, 6)}, "none of them empty"),
    ({"kspace": normal(8, 6)}, "expected (coils, rows, columns)"),
    ({"kspace": np.ones((2, 8, 6))}, "expected complex"),
    ({"a": normal(2, 8, 6), "b": normal(2, 8, 6)}, "a (2, 8, 6) complex64, b (2, 8, 6)"),
    ({"a": np.ones((2, 8, 6))}, "single complex array"),
    ({"kspace": normal(2, 8, 6), "mask": np.zeros((8, 6))}, "keeps no sample"),
    ({"kspace": normal(2, 8, 6), "mask": np.ones((6, 8))}, "(H, W) = (8, 6)"),
    ({"kspace": normal(2, 8, 6), "mask": np.full((8, 6), "a")}, "0 and 1"),
    ({"kspace": normal(2, 8, 6), "noise": normal(3, 9)}, "(coils, samples) with 2 coils"),
    ({"kspace": normal(2, 8, 6), "noise": np.ones((2, 9))}, "noise is float64"),
    ({"kspace": normal(2, 8, 6), "noise": normal(2, 9) * np.nan}, "noise holds 18 NaN"),
    ({"kspace": normal(2, 40), "traj": np.ones((40, 3))}, "expected real (..., 2)"),
    ({"kspace": normal(2, 40), "traj": np.full((39, 2), 4.0)}, "expected (coils, 39)"),
    ({"kspace": normal(2, 40), "traj": np.full((40, 2), 0.5)}, "multiply coordinates"),
    ({"kspace": normal(2, 40), "traj": np.full((40, 2), np.pi)}, "radians by that over 2 pi"),
    ({"kspace": np.fft.fft2(np.ones((2, 24, 20))) + normal(2, 24, 20)}, "is at row 0 and column 0 of 24 x 20; expected it in"),
    ({"kspace": normal(2, 8, 6) * np.inf}, "NaN or infinite"),
    ({"kspace": 0 * normal(2, 8, 6)}, "zero everywhere"),
    ({"kspace": 1e20 * normal(2, 8, 6)}, "expected 1e-12 to 1e+12; multiply all values"),
    ({"kspace": 1e-20 * normal(2, 8, 6)}, "expected 1e-12 to 1e+12; multiply all values"),
    ({"kspace": 1e60 * normal(2, 8, 6).astype(complex)}, "NaN or infinite"),
])
def test_what_is_wrong_is_said(tmp_path, arrays, expected):
    path = save(tmp_path / "a.npz", **arrays)
    with np.errstate(invalid="ignore"):
        message = error_of(lambda: read_all(open_scan(path)))
    assert expected in message
    assert str(path) in message


def test_no_code_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in the file was run",))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", kspace=np.array([Trap()], dtype=object), allow_pickle=True)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        assert str(path) in error_of(open_scan, path)
        assert str(path) in error_of(open_images, path)


def test_other_things_in_a_matlab_file_are_passed_over(tmp_path):
    others = {"info": {"a": 1}, "text": "b", "cells": np.array([1, "c"], object)}
    scipy.io.savemat(tmp_path / "a.mat", {**others, "k": normal(4, 3, 2)})
    assert open_scan(tmp_path / "a.mat").coils == 2
    write_mat73(tmp_path / "b.mat", k=normal(4, 3, 2))
    with h5py.File(tmp_path / "b.mat", "a") as file:
        file.create_group("#refs#")
        file["text"] = np.array([[98]], np.uint16)
    assert open_scan(tmp_path / "b.mat").coils == 2


@pytest.mark.parametrize("ending", [".npz", ".mat", ".mat73"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.uint16])
def test_images(tmp_path, ending, dtype):
    images = (100 * np.abs(normal(3, 8, 6))).astype(dtype)
    found = open_images(save(tmp_path / f"a{ending}", img=images if ending == ".npz" else images.transpose(1, 2, 0)))
    assert (found.slices, found.size) == (3, (8, 6))
    for i, image in enumerate(read_all(found)):
        assert exactly(image, images[i].astype(np.complex64 if dtype is np.complex64 else np.float32))
    one = open_images(save(tmp_path / f"b{ending}", anything=images[0]))
    assert (one.slices, one.size) == (1, (8, 6))
    assert exactly(one.read(0).real, images[0].real.astype(np.float32))


def test_an_npy_of_images(tmp_path):
    images = normal(3, 8, 6)
    np.save(tmp_path / "a.npy", images)
    assert exactly(open_images(tmp_path / "a.npy").read(2), images[2])
    np.save(tmp_path / "b.npy", normal(2, 3, 8, 6))
    assert "expected (H, W)" in error_of(open_images, tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.full((2, 8, 6), np.nan))
    assert "slice 1 holds" in error_of(open_images(tmp_path / "c.npy").read, 1)
    assert "k-space" in error_of(open_images, save(tmp_path / "d.npz", kspace=normal(2, 8, 6)))
