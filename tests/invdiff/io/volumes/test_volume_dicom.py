"""DICOM series, read back by pydicom, and beside the NIfTI file of the same scan."""

import nibabel
import numpy as np
import pydicom
import pytest

from invdiff.errors import InputError
from invdiff.io.scans.scan import Header
from invdiff.io.volumes.dicom import Labels, write_dicom
from invdiff.io.volumes.nifti import write_nifti

VOLUME = (1000 * np.random.default_rng(0).random((3, 7, 5))).astype(np.float32)


def oblique():
    """Columns to the left, rows to the back and down, slices up and to the front, as of a tilted head."""
    tilt, turn = np.deg2rad([20, -8])
    a = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    b = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = a @ b @ np.diag([-0.7, -0.9, 3.3])
    affine[:3, 3] = 83.123456, 101.5, -47.25
    return affine


def read(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def pixels(dataset):
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def position(dataset, row, column):
    """Of a pixel, in LPS: PS3.3, C.7.6.2.1.1, written down again."""
    along, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, dataset.PixelSpacing)
    return np.array(dataset.ImagePositionPatient, float) + along * between_columns * column + down * between_rows * row


@pytest.mark.parametrize("offset", [0.0, -400.0])
def test_round_trip_to_half_a_step(offset, tmp_path):
    assert write_dicom(tmp_path / "s", iter(VOLUME + offset), VOLUME.shape, Header(oblique())) == 1
    series = read(tmp_path / "s")
    assert [d.InstanceNumber for d in series] == [1, 2, 3]
    assert len({(d.RescaleSlope, d.RescaleIntercept, d.WindowCenter, d.WindowWidth) for d in series}) == 1
    for dataset, wanted in zip(series, VOLUME + offset, strict=True):
        assert np.abs(pixels(dataset) - wanted).max() <= 0.501 * float(dataset.RescaleSlope)
    top, bottom = (float(series[0].WindowCenter) + s * float(series[0].WindowWidth) / 2 for s in (1, -1))
    assert bottom == pytest.approx(min(0, (VOLUME + offset).min()), abs=1e-3)
    assert top == pytest.approx(max(np.percentile(a, 99.5) for a in VOLUME + offset), rel=1e-5)


@pytest.mark.parametrize(("scale", "factor"), [(1e-8, 1e9), (1.0, 1.0), (1e5, 1e-4)])
def test_peaks_viewers_cannot_show_are_scaled_by_a_power_of_ten_that_is_told(scale, factor, tmp_path):
    told = write_dicom(tmp_path / "s", iter(VOLUME * np.float32(scale)), VOLUME.shape)
    assert told == pytest.approx(factor)    # the peak, 1000 times the scale, is just below a power of ten
    first = read(tmp_path / "s")[0]
    np.testing.assert_allclose(pixels(first), VOLUME[0] * scale * told, atol=0.6 * float(first.RescaleSlope))
    assert float(first.WindowWidth) >= 1
    assert (f"times {told:g}" in first.ImageComments) == (scale != 1)
    assert first.SeriesDescription.endswith(f" x{told:g}") == (scale != 1)


def test_zeros_are_written(tmp_path):
    write_dicom(tmp_path / "s", iter(np.zeros((2, 4, 4), np.float32)), (2, 4, 4))
    assert not any(pixels(d).any() for d in read(tmp_path / "s"))


def test_nifti_and_dicom_put_each_voxel_in_the_same_place(tmp_path):
    affine = oblique()
    volume = np.zeros((3, 7, 5), np.float32)
    volume[2, 1, 4] = 1000    # nothing is symmetric here
    volume[0, 6, 0] = 500
    write_dicom(tmp_path / "s", iter(volume), volume.shape, Header(affine))
    write_nifti(tmp_path / "v.nii", iter(volume), volume.shape, Header(affine))
    image = nibabel.load(tmp_path / "v.nii")
    data = np.asarray(image.dataobj)
    for value in (1000, 500):
        voxel = np.argwhere(data == value)[0]
        dataset = next(d for d in read(tmp_path / "s") if np.isclose(pixels(d), value, atol=0.1).any())
        row, column = np.argwhere(np.isclose(pixels(dataset), value, atol=0.1))[0]
        lps = position(dataset, row, column)
        np.testing.assert_allclose((image.affine @ [*voxel, 1])[:3], lps * [-1, -1, 1], atol=1e-4)
    first, second, _ = read(tmp_path / "s")
    np.testing.assert_allclose(position(second, 6, 4) * [-1, -1, 1], (affine @ [4, 6, 1, 1])[:3], atol=1e-4)
    assert float(first.SpacingBetweenSlices) == pytest.approx(3.3)
    assert first.SliceThickness is None                     # an affine knows of no gaps
    write_dicom(tmp_path / "t", iter(volume), volume.shape, Header(affine, {"SliceThickness": 2.5}))
    first = read(tmp_path / "t")[0]
    assert (first.SliceThickness, float(first.SpacingBetweenSlices)) == (2.5, pytest.approx(3.3))


def test_the_default_geometry_is_axial_and_told_to_be_assumed(tmp_path):
    write_dicom(tmp_path / "s", iter(VOLUME), VOLUME.shape)
    first, second, _ = read(tmp_path / "s")
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert second.ImagePositionPatient[2] - first.ImagePositionPatient[2] == 1
    assert "not known" in first.ImageComments
    write_dicom(tmp_path / "t", iter(VOLUME), VOLUME.shape, Header(oblique(), oriented=False))      # of a template
    assert "orientation are not those of the scanner" in read(tmp_path / "t")[0].ImageComments


def test_the_series_is_marked_as_derived_anonymous_and_not_for_diagnosis(tmp_path):
    metadata = {"EchoTime": 95.5, "RepetitionTime": 3200.0, "InversionTime": 100.0, "FlipAngle": 140.0,
                "MagneticFieldStrength": 2.8936, "Manufacturer": "ACME", "PatientPosition": "HFS", "PatientName": "never",
                "AcquisitionType": "AXT2", "SequenceName": "too long for its tag, by far", "EchoTrainLength": "many"}
    write_dicom(tmp_path / "s", iter(VOLUME), VOLUME.shape, Header(oblique(), metadata), Labels("posterior mean", "By hand."))
    first, second, _ = read(tmp_path / "s")
    assert first.file_meta.MediaStorageSOPClassUID == pydicom.uid.MRImageStorage
    assert first.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert first.SeriesDescription == "NOT FOR DIAGNOSTIC USE: posterior mean"
    assert "NOT FOR DIAGNOSTIC USE" in first.ImageComments
    assert first.DerivationDescription.startswith("By hand.")
    assert (first.PatientName, first.PatientID, first.PatientIdentityRemoved) == ("Anonymous", "", "YES")
    assert first.DeidentificationMethod
    assert (first.BurnedInAnnotation, first.EchoTime, first.MagneticFieldStrength) == ("NO", 95.5, 2.8936)
    assert (first.FlipAngle, first.InversionTime, first.Manufacturer) == (140, 100, "ACME")
    assert "SequenceName" not in first
    assert "AcquisitionType" not in first
    assert first.EchoTrainLength is None    # what DICOM does not take is left out
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.StudyInstanceUID.is_valid


def test_identity_is_kept_with_the_flag_and_the_series_joins_its_study(tmp_path):
    identity = {"PatientName": "Панса^Санчо", "PatientID": "7", "StudyDate": "20010203", "StudyInstanceUID": "1.2.3",
                "FrameOfReferenceUID": "1.2.4", "SeriesInstanceUID": "1.2.5", "PatientWeight": "81.5"}
    write_dicom(tmp_path / "s", iter(VOLUME), VOLUME.shape, Header(None, {}, identity), identity=True)
    first = read(tmp_path / "s")[0]
    assert str(first.PatientName) == "Панса^Санчо"
    assert (first.PatientID, first.StudyDate, first.StudyInstanceUID) == ("7", "20010203", "1.2.3")
    assert (first.FrameOfReferenceUID, first.PatientWeight, first.PatientIdentityRemoved) == ("1.2.4", 81.5, "NO")
    assert first.SeriesInstanceUID != "1.2.5"
    for keyword, value in (("StudyDate", "3 February"), ("NoSuchKeyword", "x"), ("StudyInstanceUID", "none")):
        with pytest.raises(InputError, match=f"^{keyword}: DICOM does not take"):
            write_dicom(tmp_path / "t", iter(VOLUME), VOLUME.shape, Header(None, {}, {keyword: value}), identity=True)
    assert not (tmp_path / "t").exists()


def test_equal_seeds_give_equal_files_and_one_study(tmp_path):
    for name, labels in (("a", Labels(seed="run 1")), ("b", Labels(seed="run 1")), ("c", Labels("std", number=2, seed="run 1")),
                         ("d", Labels(seed="run 2")), ("e", Labels()), ("f", Labels())):
        write_dicom(tmp_path / name, iter(VOLUME), VOLUME.shape, labels=labels)
    a, c, d, e, f = (read(tmp_path / name)[0] for name in "acdef")
    assert (tmp_path / "a" / "0002.dcm").read_bytes() == (tmp_path / "b" / "0002.dcm").read_bytes()
    assert a.StudyInstanceUID == c.StudyInstanceUID
    assert a.FrameOfReferenceUID == c.FrameOfReferenceUID
    assert a.SeriesInstanceUID != c.SeriesInstanceUID
    assert a.SOPInstanceUID != c.SOPInstanceUID
    assert len({x.StudyInstanceUID for x in (a, d, e, f)}) == 4


def test_a_sheared_slice_is_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    with pytest.raises(InputError, match="not at right angles"):
        write_dicom(tmp_path / "s", iter(VOLUME), VOLUME.shape, Header(affine))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        write_dicom(tmp_path, iter(VOLUME), VOLUME.shape)
