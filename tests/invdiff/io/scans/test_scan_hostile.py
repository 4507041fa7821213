"""Damaged, mislabelled and malicious files: one clear line each, whatever the format."""

import os
import subprocess
import sys
import warnings
import zipfile

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from scan_files import IMAGES, SCANS, error_of, mrd_xml, normal, read_all, write_cfl

from invdiff.errors import InputError
from invdiff.io.scans import open_images, open_scan

FORMATS = [*SCANS, *IMAGES]


def opener(name):
    return open_scan if name in SCANS else open_images


def survives(name, path):
    """Reads it, or says in one line what is wrong; returns which."""
    message = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_all(opener(name)(path))
    except InputError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 700
    return not message


@pytest.mark.parametrize("name", FORMATS)
def test_random_bytes_changed(tmp_path, name):
    """Fixed seeds; half of the changes in the first 1000 bytes, where most headers are."""
    path = {**SCANS, **IMAGES}[name](tmp_path)
    whole = path.read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole) if seed % 2 else min(1000, len(whole)), rng.integers(1, 9)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        survives(name, path)
    path.write_bytes(whole)
    assert survives(name, path)


@pytest.mark.parametrize("name", FORMATS)
def test_truncated(tmp_path, name):
    path = {**SCANS, **IMAGES}[name](tmp_path)
    whole = path.read_bytes()
    for kept in (0, 1, 100, 140, 360, len(whole) // 2, len(whole) * 3 // 4):
        kept = min(kept, len(whole) * 3 // 4)
        path.write_bytes(whole[:kept])
        assert not survives(name, path)


@pytest.mark.parametrize("name", FORMATS)
def test_given_as_the_other(tmp_path, name):
    path = {**SCANS, **IMAGES}[name](tmp_path)
    message = error_of(open_images if name in SCANS else open_scan, path)
    assert str(path) in message
    assert "expected" in message


def test_the_ending_does_not_matter(tmp_path):
    for name in ("fastMRI", "ISMRMRD", "npy", "npz", "mat5", "mat73", "NIfTI", "NIfTI.gz", "DICOM"):
        folder = tmp_path / name
        folder.mkdir()
        path = {**SCANS, **IMAGES}[name](folder).rename(folder / "scan")
        assert read_all(opener(name)(str(path)))


@pytest.mark.parametrize("call", [open_scan, open_images])
def test_what_is_no_scan_at_all(tmp_path, call):
    (tmp_path / "text.h5").write_text("this is text\n" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "gzip.nii.gz").write_bytes(b"\x1f\x8b" + b"\0" * 50)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photo.jpg")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.ones(3)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    expected = {"text.h5": "no known format", "empty.h5": "is empty", "gzip.nii.gz": "no known format", "photo.png": "photo",
                "photo.jpg": "photo", "other.h5": "weights", "folder": "DICOM", "pipe": "no regular file", "missing": "no such"}
    for name, words in expected.items():
        message = error_of(call, tmp_path / name)
        assert words in message
        assert str(tmp_path / name) in message
        if name != "folder" or call is open_images:
            assert ("fastMRI" if call is open_scan else "DICOM") in message


def test_a_trajectory_where_none_is_taken(tmp_path):
    assert "BART pairs and .npy only" in error_of(open_scan, SCANS["fastMRI"](tmp_path), trajectory=tmp_path / "t")
    assert "frames 0 to 0" in error_of(open_scan, tmp_path / "a.h5", frame=1)


# HDF5 that leads elsewhere, or promises what it does not hold


def secret(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kspace"] = normal(1, 2, 4, 4)
    (tmp_path / "secret.bin").write_bytes(normal(1, 2, 4, 4).tobytes())


def external_link(file):
    file["kspace"] = h5py.ExternalLink("secret.h5", "/kspace")


def soft_link(file):
    file["real"] = normal(1, 2, 4, 4)
    file["kspace"] = h5py.SoftLink("/real")


def hidden_link(file):
    file["kspace"] = normal(1, 2, 4, 4)
    file["a/b/c"] = h5py.ExternalLink("secret.h5", "/")


def virtual(file):
    layout = h5py.VirtualLayout((1, 2, 4, 4), np.complex64)
    layout[:] = h5py.VirtualSource("secret.h5", "kspace", (1, 2, 4, 4))
    file.create_virtual_dataset("kspace", layout)


def external_storage(file):
    file.create_dataset("kspace", (1, 2, 4, 4), np.complex64, external=[("secret.bin", 0, 256)])


@pytest.mark.parametrize("build", [external_link, soft_link, hidden_link, virtual, external_storage])
def test_hdf5_that_leads_elsewhere(tmp_path, build):
    secret(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        build(file)
    message = error_of(open_scan, tmp_path / "a.h5")
    assert "elsewhere" in message or "other files" in message


def test_hdf5_with_a_loop_is_walked_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = normal(1, 2, 4, 4)
        file["loop/again"] = file["/"]
    assert open_scan(tmp_path / "a.h5").coils == 2


@pytest.mark.parametrize("options", [{"chunks": (1, 1, 640, 372)}, {}, {"chunks": (1, 1, 640, 372), "compression": "gzip"}])
def test_hdf5_that_declares_a_million_slices(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", (1_000_000, 16, 640, 372), np.complex64, **options)
    assert (tmp_path / "a.h5").stat().st_size < 100_000
    assert "stores only 0 bytes" in error_of(open_scan, tmp_path / "a.h5")


def test_hdf5_of_which_the_end_was_never_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", (4, 2, 8, 6), np.complex64, chunks=(1, 2, 8, 6))[:3] = normal(3, 2, 8, 6)
    assert "not written to the end" in error_of(open_scan, tmp_path / "a.h5")


def test_ismrmrd_that_declares_a_million_acquisitions(tmp_path):
    kind = np.dtype([("head", [("flags", "<u8")]), ("data", h5py.special_dtype(vlen=np.dtype("f4")))])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("dataset/xml", data=[mrd_xml()], dtype=h5py.special_dtype(vlen=str))
        file.create_dataset("dataset/data", (1_000_000,), kind, chunks=(100,))
    assert "stores only" in error_of(open_scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["dataset/data"]
        file.create_dataset("dataset/data", data=np.ones(3))
    assert "no ISMRMRD acquisitions" in error_of(open_scan, tmp_path / "a.h5")


@pytest.mark.parametrize(("name", "base"), [("xml", "u1"), ("data", "f8")])
def test_ismrmrd_with_other_types_inside(tmp_path, name, base):
    """libhdf5 reads a list of numbers that claims to be text out of bounds."""
    path = SCANS["ISMRMRD"](tmp_path)
    with h5py.File(path, "a") as file:
        group, other = file["dataset"], h5py.vlen_dtype(np.dtype(base))
        kind = other if name == "xml" else np.dtype([("head", group["data"].dtype["head"]), ("traj", other), ("data", other)])
        del group[name]
        group.create_dataset(name, (1,), kind)
        group[name][0] = np.ones(3, base) if name == "xml" else group[name][0]
    assert "export it again" in error_of(open_scan, path)


def npy_header(path, shape):
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<c8", "fortran_order": False, "shape": shape})
        file.write(b"\0" * 64)
    return path


def test_a_compound_whose_fields_overlap(tmp_path):
    """libhdf5 corrupts its memory converting one; a changed byte in a file made it so."""
    kind = np.dtype({"names": ["head", "data"], "formats": ["<f8", "<f8"], "offsets": [0, 8]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dataset/data"] = np.zeros(5, kind)
        file["dataset/xml"] = mrd_xml()
    whole = (tmp_path / "a.h5").read_bytes()
    at = whole.index(b"data\0\0\0\0\x08")
    (tmp_path / "a.h5").write_bytes(whole[:at + 8] + b"\x04" + whole[at + 9:])
    assert "overlap" in error_of(open_scan, tmp_path / "a.h5")


def test_headers_that_declare_more_than_there_is(tmp_path):
    for shape in ((2, 2, 8, 8), (10**6, 16, 640, 640), (10**9, 10**9, 10**9)):
        assert "a.npy" in error_of(open_scan, npy_header(tmp_path / "a.npy", shape))
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.write(tmp_path / "a.npy", "kspace.npy")
        assert "holds only" in error_of(open_scan, tmp_path / "a.npz")
    write_cfl(tmp_path / "b", normal(4, 4, 1, 2))
    (tmp_path / "b.hdr").write_text("# Dimensions\n640 372 1 16 1 1 1 1 1 1 1 1 1 1000000\n")
    assert "asks for" in error_of(open_scan, tmp_path / "b")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((8000, 8000, 8000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "c.nii").write_bytes(header.binaryblock + b"\0" * 100)
    assert "fewer bytes" in error_of(open_images, tmp_path / "c.nii")


def test_a_zip_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("kspace.npy", bytes(20_000_000))
    assert "more than it can hold" in error_of(open_scan, tmp_path / "a.npz")


def test_the_package_does_not_import_the_readers():
    code = "import sys, invdiff; sys.exit(any(m in sys.modules for m in ('torch', 'ismrmrd', 'pydicom', 'invdiff.io.scans')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
