from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scan_files import error_of, exactly, fft_np, ifft_np, mrd_xml, normal

from invdiff.io.scans import open_images, open_scan

DATA = Path(__file__).parents[4] / "../shared/data/kspace"


def write(path, **items):
    with h5py.File(path, "w") as file:
        for name, value in items.items():
            file[name] = value
    return path


def test_kspace_comes_back_as_it_is(tmp_path):
    kspace = normal(3, 4, 10, 7)
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace))
    assert (scan.format, scan.slices, scan.coils, scan.size, scan.crop) == ("fastMRI", 3, 4, (10, 7), (10, 7))
    assert scan.noise is None
    assert scan.header.affine is None
    for i in range(3):
        assert exactly(scan.read(i).kspace, kspace[i])
        assert scan.read(i).mask.all()


def test_one_coil(tmp_path):
    kspace = normal(3, 10, 7).astype(np.complex128)
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace))
    assert (scan.slices, scan.coils, scan.size) == (3, 1, (10, 7))
    assert exactly(scan.read(2).kspace, kspace[2:].astype(np.complex64))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (1, 1, 1, 7), (10, 7), (10, 1)])
def test_a_mask_is_broadcast_and_kspace_is_zero_elsewhere(tmp_path, dtype, shape):
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    kspace = normal(1, 2, 10, 7)
    read = open_scan(write(tmp_path / "a.h5", kspace=kspace, mask=mask)).read(0)
    expected = np.broadcast_to(mask.reshape(mask.shape[-2:]).astype(bool), (10, 7))
    assert exactly(read.mask, np.array(expected))
    assert exactly(read.kspace, np.where(expected, kspace[0], 0))


def test_without_a_mask_what_is_not_zero_was_sampled(tmp_path):
    kspace = normal(2, 2, 10, 7)
    kspace[:, :, :, 3] = 0
    kspace[0, 0, 2, 2] = 0      # one coil alone does not tell
    kspace[1, :, 2, 2] = 0
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace))
    assert exactly(scan.read(0).mask, np.broadcast_to(np.arange(7) != 3, (10, 7)))
    assert not scan.read(1).mask[2, 2]


@pytest.mark.parametrize(("rows", "wanted"), [(16, 8), (15, 8), (16, 7), (15, 7)])
def test_readout_oversampling_is_cropped_in_image_space(tmp_path, rows, wanted):
    """The image is the middle of the whole one, centre on centre, and columns are kept."""
    kspace = normal(2, 3, rows, 6)
    mask = np.array([1, 0, 1, 1, 1, 0])
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace, mask=mask, reconstruction_rss=np.ones((2, wanted, 4), np.float32)))
    assert (scan.size, scan.crop) == ((wanted, 6), (wanted, 4))
    assert len(scan.notes) == 1
    whole = ifft_np(kspace[1] * mask, (1, 2))
    start = rows // 2 - wanted // 2
    read = scan.read(1)
    assert exactly(read.mask, np.broadcast_to(mask.astype(bool), (wanted, 6)))
    assert np.allclose(ifft_np(read.kspace.numpy(), (1, 2)), whole[:, start:start + wanted], atol=1e-6)


def test_rows_with_gaps_are_kept(tmp_path):
    kspace = normal(1, 3, 16, 6)
    kspace[:, :, :5] = 0        # an asymmetric echo
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace, reconstruction_rss=np.ones((1, 8, 6), np.float32)))
    assert (scan.size, scan.crop) == ((16, 6), (8, 6))
    assert exactly(scan.read(0).kspace, kspace[0])


def test_a_slice_with_other_gaps_than_the_rest_is_refused(tmp_path):
    kspace = normal(3, 3, 16, 6)
    kspace[2, :, :5] = 0
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace, reconstruction_rss=np.ones((3, 8, 6), np.float32)))
    assert scan.read(0).kspace.shape == (3, 8, 6)
    assert "slice 2" in error_of(scan.read, 2)


def test_the_header_gives_size_spacing_and_facts(tmp_path):
    more = ("<subjectInformation><patientName>A^B</patientName><patientBirthdate>1970-01-02</patientBirthdate>"
            "</subjectInformation><acquisitionSystemInformation><systemVendor>Acme</systemVendor><systemFieldStrength_T>2.89"
            "</systemFieldStrength_T></acquisitionSystemInformation><sequenceParameters><TR>2200</TR><TE>12.5</TE>"
            "</sequenceParameters>")
    xml = mrd_xml((16, 6, 1), (8, 5, 1), (440, 220, 4.5), (220, 200, 4.5), more=more)
    path = write(tmp_path / "a.h5", kspace=normal(1, 2, 16, 6), ismrmrd_header=xml, reconstruction_rss=np.ones((1, 9, 9)))
    with h5py.File(path, "a") as file:
        file.attrs["acquisition"], file.attrs["patient_id"] = "AXT2", "0beb"
    scan = open_scan(path)
    assert (scan.size, scan.crop) == ((8, 6), (8, 5))
    assert np.allclose(np.abs(np.diag(scan.header.affine)), [220 / 6, 27.5, 4.5, 1])        # of what was encoded, as it is kept
    assert np.allclose(scan.header.affine @ [2, 4, 0, 1], [0, 0, 0, 1])
    assert not scan.header.oriented
    images = open_images(path)
    assert np.allclose(np.abs(np.diag(images.header.affine)), [40, 27.5, 4.5, 1])           # of what was reconstructed
    assert images.header.metadata == scan.header.metadata
    assert scan.header.metadata == {"RepetitionTime": 2200, "EchoTime": 12.5, "Manufacturer": "Acme",
                                    "MagneticFieldStrength": 2.89, "AcquisitionType": "AXT2", "SliceThickness": 4.5,
                                    "ImagingFrequency": 127}
    assert scan.header.identity == {"PatientName": "A^B", "PatientBirthDate": "19700102", "PatientID": "0beb"}


@pytest.mark.parametrize("wanted", [16, 8])
@pytest.mark.parametrize("shape", [(6,), (16, 6)])
def test_columns_of_zeros_are_not_measured_whatever_the_mask_says(tmp_path, wanted, shape):
    kspace = normal(3, 2, 16, 6)
    kspace[..., :2] = 0
    kspace[0] = 0                                                     # an empty slice tells nothing
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace, mask=np.ones(shape),
                           reconstruction_rss=np.ones((3, wanted, 6), np.float32)))
    for number in (1, 2):
        assert exactly(scan.read(number).mask, np.broadcast_to(np.arange(6) >= 2, (wanted, 6)))
    assert [note for note in scan.notes if "2 of the columns in the mask hold nothing but zeros" in note]
    scan = open_scan(write(tmp_path / "b.h5", kspace=kspace, mask=np.arange(6) >= 2))
    assert scan.notes == ()


def test_a_slice_is_read_alone(tmp_path):
    kspace = normal(3, 2, 16, 6)
    kspace[::2] = np.nan
    scan = open_scan(write(tmp_path / "a.h5", kspace=kspace, reconstruction_rss=np.ones((3, 8, 6), np.float32)))
    assert scan.read(1).kspace.isfinite().all()
    assert "slice 2 holds" in error_of(scan.read, 2)


@pytest.mark.parametrize(("items", "expected"), [
    ({"kspace": normal(0, 2, 4, 4)}, "no slices"),
    ({"kspace": normal(2, 0, 4, 4)}, "at least one coil"),
    ({"kspace": normal(2, 4)}, "(slices, coils, rows, columns)"),
    ({"kspace": np.ones((2, 3, 4, 4), np.float32)}, "expected complex"),
    ({"kspace": normal(1, 2, 4, 5), "mask": np.zeros(5)}, "keeps no sample"),
    ({"kspace": normal(1, 2, 4, 5), "mask": np.ones(4)}, "(H, W) = (4, 5)"),
    ({"kspace": normal(1, 2, 4, 5), "mask": np.ones((2, 4, 5))}, "(H, W) = (4, 5)"),
    ({"kspace": normal(1, 2, 4, 5), "mask": np.full(5, 2)}, "other values than 0 and 1"),
    ({"kspace": normal(1, 2, 4, 5), "mask": np.full(5, np.nan)}, "other values than 0 and 1"),
    ({"kspace": normal(1, 2, 4, 5), "ismrmrd_header": "<a>"}, "XML header is damaged"),
    ({"kspace": normal(1, 2, 4, 5), "ismrmrd_header": 3.0}, "expected an XML header"),
    ({"kspace": normal(1, 2, 4, 5), "ismrmrd_header": mrd_xml((0, 6, 1))}, "expected 1 to"),
    ({"kspace": normal(1, 2, 4, 5), "ismrmrd_header": mrd_xml(("a", 6, 1), (8, 6, 1), centre=(3, 0))}, "'a'"),
    ({"kspace": normal(1, 2, 4, 5), "ismrmrd_header": '<!DOCTYPE a [<!ENTITY b "c">]>' + mrd_xml()}, "DOCTYPE"),
])
def test_what_is_wrong_is_said(tmp_path, items, expected):
    path = write(tmp_path / "a.h5", **items)
    message = error_of(open_scan, path)
    assert expected in message
    assert str(path) in message


def test_a_slice_of_zeros_is_refused(tmp_path):
    scan = open_scan(write(tmp_path / "a.h5", kspace=np.zeros((1, 2, 4, 5), np.complex64)))
    assert "zero everywhere" in error_of(scan.read, 0)
    assert "slices 0 to 0" in error_of(scan.read, 1)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared k-space files are not there")
def test_real_kspace_gives_the_image_that_comes_with_it():
    for path in sorted(DATA.glob("*.h5")):
        scan = open_scan(path)
        read = scan.read(0)
        with h5py.File(path) as file:
            expected = file["reconstruction_rss"][0]
            assert exactly(read.kspace, file["kspace"][0])
        image = np.sqrt((np.abs(ifft_np(read.kspace.numpy(), (1, 2))) ** 2).sum(axis=0))
        assert scan.size == scan.crop == expected.shape
        assert np.abs(image - expected).max() < 1e-4
        assert read.mask.dtype == torch.bool


def test_the_helper_transforms_are_inverse():
    x = normal(3, 5, 6)
    assert np.allclose(ifft_np(fft_np(x, (1, 2)), (1, 2)), x, atol=1e-6)
