import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from scan_files import error_of, exactly, read_all, write_dicom, write_enhanced

from invdiff.io.scans import open_images, open_scan
from invdiff.io.volumes.dicom import write_dicom as write_series


def turned(seed=0):
    """A right-handed frame, its axes the rows."""
    frame = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return frame * np.sign(np.linalg.det(frame))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".data"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, np.complex64])
def test_nifti(tmp_path, kind, ending, dtype):
    """Told by content; the affine is the file's, and slice k is data[:, :, k], transposed."""
    data = np.random.default_rng(0).integers(0, 200, (6, 4, 3)).astype(dtype)
    affine = np.eye(4)
    affine[:3] = np.hstack([turned() * [2, 3, 4], [[-10], [20], [5]]])
    written = tmp_path / ("b.nii.gz" if ending == ".nii.gz" else "b.nii")
    nibabel.save(kind(data, affine), written)
    path = written.rename(tmp_path / f"a{ending}")
    images = open_images(path)
    assert (images.format, images.slices, images.size) == ("NIfTI", 3, (4, 6))
    assert np.allclose(images.header.affine, affine, atol=1e-6)
    for k, image in enumerate(read_all(images)):
        assert exactly(image, data[:, :, k].T.astype(np.complex64 if dtype is np.complex64 else np.float32))


def test_nifti_written_again_is_the_same_volume(tmp_path):
    affine = np.diag([2.0, -3, 4, 1])
    affine[:3, 3] = 1, 2, 3
    nibabel.save(nibabel.Nifti1Image(np.arange(72, dtype=np.float32).reshape(6, 4, 3), affine), tmp_path / "a.nii")
    images = open_images(tmp_path / "a.nii")
    data = np.stack([image.numpy().T for image in read_all(images)], axis=2)
    nibabel.save(nibabel.Nifti1Image(data, images.header.affine), tmp_path / "b.nii")
    first, second = (nibabel.load(tmp_path / name) for name in ("a.nii", "b.nii"))
    assert np.array_equal(first.get_fdata(), second.get_fdata())
    assert np.array_equal(first.affine, second.affine)
    assert nibabel.aff2axcodes(second.affine) == nibabel.aff2axcodes(first.affine)


def test_niftis_units_are_brought_to_millimetres(tmp_path):
    image = nibabel.Nifti1Image(np.ones((6, 4, 3), np.float32), np.diag([2.0, 3, 4, 1]))
    for unit, millimetres in (("meter", 1000), ("mm", 1), ("micron", 1e-3), ("unknown", 1)):
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "a.nii")
        assert np.allclose(open_images(tmp_path / "a.nii").header.affine, np.diag([*millimetres * np.array([2, 3, 4]), 1]))


@pytest.mark.parametrize(("sform", "qform", "oriented"), [(1, 0, True), (0, 1, True), (4, 1, True), (4, 2, False),
                                                          (2, 0, False), (0, 0, False)])
def test_niftis_coordinates_are_those_of_the_scanner_where_it_says_so(tmp_path, sform, qform, oriented):
    image = nibabel.Nifti1Image(np.ones((6, 4, 3), np.float32), None)
    image.set_sform(np.diag([2.0, 3, 4, 1]), sform)
    image.set_qform(np.diag([2.0, 3, 4, 1]), qform)
    nibabel.save(image, tmp_path / "a.nii")
    images = open_images(tmp_path / "a.nii")
    assert images.header.oriented == oriented
    assert np.allclose(np.abs(images.header.affine[:3, :3]), np.diag([2, 3, 4]))
    assert len(images.notes) == (0 if oriented else 1)


@pytest.mark.parametrize(("sform", "qform", "taken"), [(4, 1, 20), (1, 1, 2), (1, 4, 2), (4, 2, 2), (0, 1, 20)])
def test_niftis_form_of_the_scanner_is_taken_else_sform(tmp_path, sform, qform, taken):
    image = nibabel.Nifti1Image(np.ones((6, 4, 3), np.float32), None)
    image.set_qform(np.diag([20.0, 3, 4, 1]), qform)
    image.set_sform(np.diag([2.0, 3, 4, 1]), sform)
    nibabel.save(image, tmp_path / "a.nii")
    header = open_images(tmp_path / "a.nii").header
    assert header.affine[0, 0] == pytest.approx(taken)
    assert header.oriented == (1 in (sform, qform))


def test_niftis_slope_and_intercept_are_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float64).reshape(4, 3, 2) / 7, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert np.allclose(open_images(tmp_path / "a.nii").read(1), expected[:, :, 1].T, rtol=1e-6)


def test_niftis_of_two_to_five_dimensions(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 4), np.float32), np.eye(4)), tmp_path / "a.nii")
    assert open_images(tmp_path / "a.nii").read(0).shape == (4, 6)
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 4, 3, 1), np.float32), np.eye(4)), tmp_path / "b.nii")
    assert len(read_all(open_images(tmp_path / "b.nii"))) == 3
    series = np.random.default_rng(0).random((6, 4, 3, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(series, np.eye(4)), tmp_path / "c.nii")
    for frame in (0, 1):
        images = open_images(tmp_path / "c.nii", frame=frame)
        assert [exactly(image, series[:, :, k, frame].T) for k, image in enumerate(read_all(images))] == [True] * 3
        assert images.notes[-1] == f"frame {frame} of 2; the others are left out"
    assert "frames 0 to 1, not 2" in error_of(open_images, tmp_path / "c.nii", frame=2)
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 4, 3, 2, 2), np.float32), np.eye(4)), tmp_path / "e.nii")
    assert "or a series (columns, rows, slices, frames)" in error_of(open_images, tmp_path / "e.nii")
    rgb = np.zeros((6, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "d.nii")
    assert "grey values" in error_of(open_images, tmp_path / "d.nii")


def test_a_slice_of_nifti_is_read_alone(tmp_path):
    data = np.ones((6, 4, 3), np.float32)
    data[:, :, ::2] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    images = open_images(tmp_path / "a.nii")
    assert images.read(1).isfinite().all()
    assert "slice 2 holds" in error_of(images.read, 2)


def test_a_dicom_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (5, 7)).astype(np.uint16)
    path = write_dicom(tmp_path / "a", pixels, RescaleSlope="0.5", RescaleIntercept="-3", EchoTime="12.5", PatientName="A^B",
                       PatientID="7", Manufacturer="Acme", StudyDate="20200102", SpacingBetweenSlices="5.5",
                       ImagePositionPatient=[10, 20, 30])
    images = open_images(path)
    assert (images.format, images.slices, images.size) == ("DICOM", 1, (5, 7))
    assert exactly(images.read(0), (pixels * 0.5 - 3).astype(np.float32))
    assert np.array_equal(images.header.affine, [[-3, 0, 0, -10], [0, -2, 0, -20], [0, 0, 5.5, 30], [0, 0, 0, 1]])
    assert images.header.metadata == {"EchoTime": 12.5, "Manufacturer": "Acme", "SliceThickness": 4}
    assert images.header.identity == {"PatientName": "A^B", "PatientID": "7", "StudyDate": "20200102",
                                      "SeriesInstanceUID": "1.2.3"}


def test_how_a_dicom_series_was_made_is_written_again(tmp_path):
    made = {"ScanningSequence": ["SE", "IR"], "SequenceVariant": ["SK", "SP"], "ScanOptions": "FS", "MRAcquisitionType": "2D",
            "EchoTrainLength": 7, "NumberOfAverages": "2", "PixelBandwidth": "130", "ImagingFrequency": "123.2"}
    write_dicom(tmp_path / "a", np.ones((5, 7), np.uint16), **made)
    header = open_images(tmp_path / "a").header
    assert header.metadata["ScanningSequence"] == "SE\\IR"
    write_series(tmp_path / "again", iter(np.ones((1, 5, 7), np.float32)), (1, 5, 7), header)
    first, again = (pydicom.dcmread(path) for path in (tmp_path / "a", *(tmp_path / "again").iterdir()))
    assert {name: again[name].value for name in made} == {name: first[name].value for name in made}


def test_a_dicom_series_is_in_the_order_of_its_positions(tmp_path):
    frame = turned(1)
    pixels = np.random.default_rng(0).integers(0, 4000, (4, 5, 7)).astype(np.uint16)
    places = [np.array([10, 20, 30]) + 6 * k * np.cross(frame[0], frame[1]) for k in range(4)]
    for name, k in enumerate((2, 0, 3, 1)):
        write_dicom(tmp_path / f"{name}.dcm", pixels[k], ImagePositionPatient=[f"{x:.10g}" for x in places[k]],
                    ImageOrientationPatient=[f"{x:.10g}" for x in (*frame[0], *frame[1])], InstanceNumber=k + 1)
    (tmp_path / "notes.txt").write_text("not DICOM")
    images = open_images(tmp_path)
    assert [exactly(image, pixels[k].astype(np.float32)) for k, image in enumerate(read_all(images))] == [True] * 4
    ras = np.diag([-1, -1, 1])
    for k in range(4):
        assert np.allclose(images.header.affine[:3] @ [0, 0, k, 1], ras @ places[k], atol=1e-6)
    # a column further is 3 mm along the first direction, a row further 2 mm along the second: PixelSpacing is [2, 3]
    assert np.allclose(images.header.affine[:3] @ [1, 1, 0, 0], ras @ (3 * frame[0] + 2 * frame[1]), atol=1e-6)
    (tmp_path / "0.dcm").unlink()
    assert "not equally spaced" in open_images(tmp_path).notes[0]


def test_the_frames_of_an_enhanced_dicom_file_are_a_series(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 5, 7)).astype(np.uint16)
    path = write_enhanced(tmp_path / "a", pixels, [(10, 20, 35), (10, 20, 25), (10, 20, 30)], slopes=(1, 2, 3),
                          Manufacturer="Acme")
    images = open_images(path)
    assert (images.format, images.slices, images.size, list(images.notes)) == ("DICOM", 3, (5, 7), [])
    for image, k in zip(read_all(images), (1, 2, 0), strict=True):                   # in the order of the positions
        assert exactly(image, (pixels[k] * (1.0 + k)).astype(np.float32))
    assert np.array_equal(images.header.affine, [[-3, 0, 0, -10], [0, -2, 0, -20], [0, 0, 5, 25], [0, 0, 0, 1]])
    assert images.header.metadata == {"EchoTime": 12.5, "Manufacturer": "Acme", "SliceThickness": 4}
    path = write_enhanced(tmp_path / "b", pixels, [(0, 0, 0)] * 2)
    assert "declares 3 frames and describes 2" in error_of(open_images, path)
    path = write_dicom(tmp_path / "c", pixels, NumberOfFrames=3, PixelSpacing=None)  # nothing tells where they lie
    assert [exactly(image, pixels[k].astype(np.float32)) for k, image in enumerate(read_all(open_images(path)))] == [True] * 3
    assert open_images(path).header.affine is None


def test_of_several_dicom_images_at_each_position_one_is_chosen(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (4, 5, 7)).astype(np.uint16)
    places = [(0, 0, 0), (0, 0, 0), (0, 0, 2), (0, 0, 2)]
    path = write_enhanced(tmp_path / "a", pixels, places)
    (tmp_path / "series").mkdir()
    for name, k in enumerate((3, 0, 2, 1)):
        write_dicom(tmp_path / "series" / f"{name}.dcm", pixels[k], ImagePositionPatient=list(places[k]), InstanceNumber=k + 1)
    for source in (path, tmp_path / "series"):
        for frame in (0, 1):
            images = open_images(source, frame=frame)
            expected = pixels[frame::2].astype(np.float32)
            assert all(exactly(found, wanted) for found, wanted in zip(read_all(images), expected, strict=True))
            assert "of the 2 images at each position" in images.notes[0]
        assert "frames 0 to 1, not 2" in error_of(open_images, source, frame=2)


def test_a_slice_of_dicom_is_read_alone(tmp_path):
    for k in range(3):
        path = write_dicom(tmp_path / f"{k}.dcm", np.full((4, 6), k, np.uint16), ImagePositionPatient=[0, 0, k])
        if k != 1:
            path.write_bytes(path.read_bytes()[:-20])
    images = open_images(tmp_path)
    assert (images.read(1) == 1).all()
    assert "0.dcm" in error_of(images.read, 0)


def test_what_is_wrong_with_dicom_is_said(tmp_path):
    def folder(name, *elements, shapes=((4, 6), (4, 6))):
        (tmp_path / name).mkdir()
        for k, (element, shape) in enumerate(zip(elements, shapes, strict=False)):
            write_dicom(tmp_path / name / f"{k}.dcm", np.ones(shape, np.uint16), **element)
        return tmp_path / name

    first = {"SeriesInstanceUID": "1.2", "SeriesNumber": 3, "SeriesDescription": "T1 ax"}
    message = error_of(open_images, folder("series", first, {"SeriesInstanceUID": "1.3", "SeriesNumber": 4}))
    assert "2 series: 3 T1 ax (1 images), 4 (1 images)" in message
    assert "several images at some positions and fewer at others" in error_of(
        open_images, folder("echoes", {}, {}, {"ImagePositionPatient": [0, 0, 1]}, shapes=((4, 6),) * 3))
    turned_by_90 = folder("turned", {}, {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]})
    assert "several orientations" in error_of(open_images, turned_by_90)
    assert "sizes" in error_of(open_images, folder("sizes", {}, {"ImagePositionPatient": [0, 0, 1]}, shapes=((4, 6), (6, 4))))
    assert "no DICOM file" in error_of(open_images, folder("empty"))
    assert "colour" in error_of(open_images, folder("colour", {"SamplesPerPixel": 3}))
    assert "declares 1000000 frames" in error_of(open_images, folder("frames", {"NumberOfFrames": 10**6}))
    nowhere = folder("nowhere", *({"ImagePositionPatient": None, "InstanceNumber": n} for n in (2, 1)))
    images = open_images(nowhere)
    assert np.allclose(np.abs(images.header.affine[:3, :3]), np.diag([3, 2, 4]))
    assert not images.header.oriented
    assert "spacing only" in images.notes[-1]


def test_the_images_beside_fastmris_k_space_and_in_results_for_it(tmp_path):
    image = np.random.default_rng(0).random((3, 8, 6)).astype(np.float32)
    for name, content in (("a.h5", {"kspace": np.ones((3, 2, 8, 6), np.complex64), "reconstruction_rss": image}),
                          ("b.h5", {"reconstruction": image})):
        with h5py.File(tmp_path / name, "w") as file:
            file.update(content)
        images = open_images(tmp_path / name)
        assert (images.format, images.slices, images.size) == ("fastMRI", 3, (8, 6))
        assert all(exactly(found, expected) for found, expected in zip(read_all(images), image, strict=True))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["kspace"] = np.ones((3, 2, 8, 6), np.complex64)
    assert "holds k-space" in error_of(open_images, tmp_path / "c.h5")
    assert "holds reconstruction; expected k-space" in error_of(open_scan, tmp_path / "b.h5")
