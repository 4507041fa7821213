"""Files of every format, small, and written with the format's own library."""

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from invdiff.errors import InputError


def normal(*shape, seed=0):
    """complex64, standard normal"""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def fft_np(x, axes):
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho"), axes)


def ifft_np(x, axes):
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho"), axes)


def mrd_xml(encoded=(8, 6, 1), recon=None, fov=(240.0, 180.0, 5.0), recon_fov=None, centre=None, trajectory="cartesian",
            more=""):
    """An ISMRMRD header; matrices and fields of view are (x, y, z)."""
    recon, recon_fov = recon or encoded, recon_fov or fov
    centre = centre if centre is not None else (encoded[1] // 2, encoded[2] // 2)

    def space(name, matrix, length):
        sides = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", matrix, strict=True))
        mm = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", length, strict=True))
        return f"<{name}><matrixSize>{sides}</matrixSize><fieldOfView_mm>{mm}</fieldOfView_mm></{name}>"

    limits = "".join(f"<kspace_encoding_step_{i + 1}><minimum>0</minimum><maximum>{encoded[i + 1] - 1}</maximum>"
                     f"<center>{c}</center></kspace_encoding_step_{i + 1}>" for i, c in enumerate(centre))
    return ('<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">' + more
            + "<experimentalConditions><H1resonanceFrequency_Hz>127000000</H1resonanceFrequency_Hz></experimentalConditions>"
            + "<encoding>" + space("encodedSpace", encoded, fov) + space("reconSpace", recon, recon_fov)
            + f"<encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>")


def line(data, step=0, flags=(), traj=None, counters=None, **head):
    """An acquisition of data (N, samples) at a phase-encoding step; counters: of idx, by name."""
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64), *([] if traj is None else [traj]))
    acquisition.idx.kspace_encode_step_1 = int(step)
    for name, value in (counters or {}).items():
        setattr(acquisition.idx, name, int(value))
    defaults = {"center_sample": data.shape[1] // 2, "sample_time_us": 5.0,
                "read_dir": (0, 1, 0), "phase_dir": (1, 0, 0), "slice_dir": (0, 0, 1)}
    for name, value in {**defaults, **head}.items():
        setattr(acquisition, name, tuple(value) if np.ndim(value) else value)
    for flag in flags:
        acquisition.setFlag(flag)
    return acquisition


def lines_of(kspace, steps=None, **head):
    """Acquisitions of (N, x, y), one a column; steps: those that are measured."""
    return [line(kspace[:, :, step], step, **head) for step in (range(kspace.shape[2]) if steps is None else steps)]


def phantom(coils, rows, columns, seed=0):
    """Smooth images (N, rows, columns) with no symmetry that could hide a flip or a shift."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    body = ((x / 0.5) ** 2 + ((y - 0.1) / 0.6) ** 2 < 1) + 2.0 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.03)
    weights = normal(coils, 3, seed=seed)
    flat, along_x, along_y = weights.T[..., None, None]
    return (body * (flat + along_x * x + along_y * y)).astype(np.complex64)


def write_mrd(path, lines, xml):
    with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
        file.write_xml_header(xml.encode())
        for acquisition in lines:
            file.append_acquisition(acquisition)
    return path


def write_cfl(stem, array):
    """array with up to 16 axes, in BART's order."""
    dims = array.shape + (1,) * (16 - array.ndim)
    Path(f"{stem}.hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n")
    Path(f"{stem}.cfl").write_bytes(np.asarray(array, "<c8").tobytes(order="F"))
    return stem


def write_dicom(path, pixels, **elements):
    """pixels: uint16 (H, W), or (N, H, W) for many frames; an element of None is left out."""
    item = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = MRImageStorage
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = generate_uid()
    item.Rows, item.Columns = pixels.shape[-2:]
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
    item.PixelData = pixels.astype("<u2").tobytes()
    for name, value in {"SeriesInstanceUID": "1.2.3", "PixelSpacing": [2.0, 3.0], "SliceThickness": 4.0,
                        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0], **elements}.items():
        if value is not None:
            setattr(item, name, value)
    item.save_as(path, enforce_file_format=True)
    return path


def macros(**found):
    """A functional group of DICOM: the macros by name, each with its elements."""
    group = pydicom.Dataset()
    for name, elements in found.items():
        item = pydicom.Dataset()
        for key, value in elements.items():
            setattr(item, key, value)
        setattr(group, name, [item])
    return group


def write_enhanced(path, pixels, places, slopes=None, **elements):
    """An enhanced DICOM file of frames (N, H, W), uint16, at `places` (N, 3)."""
    own = [macros(PlanePositionSequence={"ImagePositionPatient": list(place)},
                  **({"PixelValueTransformationSequence": {"RescaleSlope": str(slopes[k]), "RescaleIntercept": "0"}}
                     if slopes else {})) for k, place in enumerate(places)]
    shared = macros(PixelMeasuresSequence={"PixelSpacing": [2.0, 3.0], "SliceThickness": 4.0},
                    PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
                    MREchoSequence={"EffectiveEchoTime": 12.5})
    absent = dict.fromkeys(("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"))
    return write_dicom(path, pixels, NumberOfFrames=len(pixels), PerFrameFunctionalGroupsSequence=own,
                       SharedFunctionalGroupsSequence=[shared], **absent, **elements)


def _fastmri(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["kspace"] = normal(2, 3, 8, 6)
        file["ismrmrd_header"] = mrd_xml()
    return folder / "a.h5"


def _mrd(folder):
    lines = [line(normal(2, 8, seed=i), i % 6, counters={"slice": i // 6}) for i in range(12)]
    return write_mrd(folder / "a.mrd", lines, mrd_xml())


def _npy(folder):
    np.save(folder / "a.npy", normal(2, 3, 8, 6))
    return folder / "a.npy"


def _npz(folder):
    np.savez_compressed(folder / "a.npz", kspace=normal(2, 3, 8, 6), mask=np.ones((8, 6)))
    return folder / "a.npz"


def _mat5(folder):
    scipy.io.savemat(folder / "a.mat", {"kspace": normal(8, 6, 3, 2)}, do_compression=True)
    return folder / "a.mat"


def write_mat73(path, **arrays):
    """As MATLAB -v7.3 does: axes reversed, complex as pairs, a header of 512 bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            flipped = np.ascontiguousarray(array.T)
            if array.dtype.kind == "c":
                part = flipped.real.dtype
                flipped = flipped.view([("real", part), ("imag", part)])
            file[name] = flipped
            file[name].attrs["MATLAB_class"] = np.bytes_("single" if array.dtype.itemsize in (4, 8) else "double")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def _nifti(folder):
    nibabel.save(nibabel.Nifti1Image(np.arange(48, dtype=np.int16).reshape(6, 4, 2), np.diag([2.0, 3, 4, 1])), folder / "a.nii")
    return folder / "a.nii"


def _nifti_gz(folder):
    nibabel.save(nibabel.Nifti1Image(np.arange(48, dtype=np.float32).reshape(6, 4, 2), np.eye(4)), folder / "a.nii.gz")
    return folder / "a.nii.gz"


SCANS: dict[str, Callable] = {
    "fastMRI": _fastmri,
    "ISMRMRD": _mrd,
    "BART": lambda folder: Path(f"{write_cfl(folder / 'a', normal(8, 6, 1, 3))}.cfl"),
    "npy": _npy,
    "npz": _npz,
    "mat5": _mat5,
    "mat73": lambda folder: write_mat73(folder / "a.mat", kspace=normal(8, 6, 3, 2)),
}
IMAGES: dict[str, Callable] = {
    "NIfTI": _nifti,
    "NIfTI.gz": _nifti_gz,
    "DICOM": lambda folder: write_dicom(folder / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6)),
}


def exactly(tensor, array):
    """The same values, type and shape."""
    return tensor.numpy().dtype == array.dtype and np.array_equal(tensor.numpy(), array)


def error_of(call, *arguments, **options):
    """The message of the InputError, one line; warnings would be errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def read_all(opened):
    return [opened.read(number) for number in range(opened.slices)]
