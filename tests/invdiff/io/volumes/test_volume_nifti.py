"""NIfTI files, read back by nibabel."""

import nibabel
import numpy as np
import pytest

from invdiff.errors import InputError
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.nifti import DESCRIPTION, write_nifti

VOLUME = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)
OBLIQUE = np.array([[-0.69, 0.11, 0.5, 80.2], [-0.13, -0.88, 0.4, 95.1], [0.2, -0.3, 3.1, -40.7], [0, 0, 0, 1]])


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_round_trip(name, dtype, tmp_path):
    volume = (VOLUME * (1 + 2j)).astype(dtype) if dtype == np.complex64 else VOLUME
    write_nifti(tmp_path / name, iter(volume), volume.shape, Header(OBLIQUE), dtype=dtype)
    image = nibabel.load(tmp_path / name)
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.header.get_zooms(), np.linalg.norm(OBLIQUE[:3, :3], axis=0), rtol=1e-5)
    assert image.header["descrip"].item().decode() == DESCRIPTION
    nibabel.save(image, tmp_path / "again.nii")
    plain = (tmp_path / "again.nii").stat().st_size
    assert plain == 352 + volume.nbytes


def test_the_qform_is_the_affine_where_it_has_no_shear(tmp_path):
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = q * [0.7, 0.8, 3], (-90, 20, 5.5)
    write_nifti(tmp_path / "v.nii", iter(VOLUME), VOLUME.shape, Header(affine))
    np.testing.assert_allclose(nibabel.load(tmp_path / "v.nii").get_qform(), affine, atol=1e-4)


def test_spacings_alone_are_not_taken_for_the_scanner_s_axes(tmp_path):
    write_nifti(tmp_path / "v.nii", iter(VOLUME), VOLUME.shape, Header(OBLIQUE, oriented=False))
    header = nibabel.load(tmp_path / "v.nii").header
    assert header["sform_code"] == header["qform_code"] == 2
    np.testing.assert_allclose(header.get_zooms(), np.linalg.norm(OBLIQUE[:3, :3], axis=0), rtol=1e-5)


def test_without_an_affine_the_slices_display_as_they_are(tmp_path):
    write_nifti(tmp_path / "v.nii", iter(VOLUME), VOLUME.shape)
    image = nibabel.load(tmp_path / "v.nii")
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")    # columns to the left of the patient: right of the screen
    np.testing.assert_allclose(image.affine @ [5 // 2, 7 // 2, 3 // 2, 1], [0, 0, 0, 1])
    assert image.header["sform_code"] == 2


def test_equal_volumes_are_equal_files(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, iter(VOLUME), VOLUME.shape)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match=r"v\.img: expected a name that ends in \.nii or \.nii\.gz"):
        write_nifti(tmp_path / "v.img", iter(VOLUME), VOLUME.shape)
    with pytest.raises(ValueError, match=r"^description: expected at most 79 bytes, got 90"):
        write_nifti(tmp_path / "v.nii", iter(VOLUME), VOLUME.shape, description="é" * 45)
    with pytest.raises(ValueError, match=r"^dtype: expected float32 or complex64, got int16"):
        write_nifti(tmp_path / "v.nii", iter(VOLUME), VOLUME.shape, dtype=np.int16)
    with pytest.raises(ValueError, match=r"^shape: expected sides of at most 32767"):
        write_nifti(tmp_path / "v.nii", iter(VOLUME), (40_000, 7, 5))
    assert not list(tmp_path.iterdir())
