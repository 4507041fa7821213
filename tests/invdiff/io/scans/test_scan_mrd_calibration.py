"""ISMRMRD: lines that coil maps are made of, apart from those of the image, among them, or of another matrix."""

import ismrmrd
import numpy as np
import pytest
from scan_files import exactly, fft_np, ifft_np, line, lines_of, mrd_xml, normal, phantom, read_all, write_mrd

from invdiff.io.scans import open_scan


def test_calibration_lines_are_apart_or_in_both(tmp_path):
    kspace, separate = normal(2, 8, 9), normal(2, 8, 9, seed=1)
    both = [line(kspace[:, :, 4], 4, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING])]
    lines = [*lines_of(kspace, [0, 2, 6, 8]), *both,
             *lines_of(separate, [3, 4, 5, 6], flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])]
    read = open_scan(write_mrd(tmp_path / "a.h5", lines, mrd_xml((8, 9, 1)))).read(0)
    assert exactly(read.mask[0], np.isin(np.arange(9), [0, 2, 4, 6, 8]))
    assert exactly(read.kspace[:, :, 4], kspace[:, :, 4])
    assert exactly(read.calibration, separate[:, :, 3:6])      # three around the centre, line 4; the fourth has no partner


CALIBRATION = {"flags": [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]}


BOTH = {"flags": [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING]}


def integrated(kspace, **head):
    """Every second line, and all of those from 4 to 8."""
    return [*lines_of(kspace, [0, 2, 10], **head), *lines_of(kspace, [4, 6, 8], **BOTH, **head),
            *lines_of(kspace, [5, 7], **CALIBRATION, **head)]


def test_calibration_lines_among_those_of_the_image_are_k_space(tmp_path):
    kspace = normal(2, 2, 8, 12)
    first, later = integrated(kspace[0]), lines_of(kspace[1], range(0, 12, 2), counters={"repetition": 1})
    path = write_mrd(tmp_path / "a.h5", [*first, *later], mrd_xml((8, 12, 1)))
    assert "2 calibration lines, measured along with the image" in open_scan(path).notes[1]
    read, measured = open_scan(path).read(0), np.isin(np.arange(12), [0, 2, 4, 5, 6, 7, 8, 10])
    assert exactly(read.mask[0], measured)
    assert exactly(read.kspace, kspace[0] * measured)
    assert read.calibration is None
    read = open_scan(path, frame=1).read(0)             # has no lines of its own
    assert exactly(read.mask[0], np.arange(12) % 2 == 0)
    assert exactly(read.calibration, kspace[0, :, :, 4:9])
    complete = lines_of(kspace[1], counters={"repetition": 1})      # has all of those, and more
    path = write_mrd(tmp_path / "c.h5", [*first, *complete], mrd_xml((8, 12, 1)))
    assert open_scan(path, frame=1).read(0).calibration is None
    apart = lines_of(kspace[1], [5, 6, 7], counters={"set": 1}, **CALIBRATION)
    read = open_scan(write_mrd(tmp_path / "b.h5", [*first, *apart], mrd_xml((8, 12, 1)))).read(0)
    assert exactly(read.mask[0], measured)
    assert exactly(read.calibration, kspace[1, :, :, 5:8])


def in_spaces(*headers):
    """One header with the encoding spaces of several."""
    encodings = "".join(xml.partition("<encoding>")[2].partition("</encoding>")[0].join(("<encoding>", "</encoding>"))
                        for xml in headers)
    return headers[0].partition("<encoding>")[0] + encodings + "</ismrmrdHeader>"


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_calibration_scan_of_fewer_pixels(tmp_path, oversampling):
    """Its k-space is the middle of that of the image, in the same units, over the same field of view."""
    images = phantom(3, 16, 12)
    wide = np.pad(images, ((0, 0), (8 * (oversampling - 1),) * 2, (0, 0)))
    kspace, rows = fft_np(wide, (1, 2)), 16 * oversampling
    middle = kspace[:, rows // 4:rows - rows // 4, 3:9]
    lines = [*lines_of(kspace, [0, 2, 4, 6, 8, 10]), *lines_of(middle, encoding_space_ref=1, **CALIBRATION)]
    fov, recon_fov = (160 * oversampling, 120, 5), (160, 120, 5)
    image, low = (mrd_xml(encoded, recon, fov, recon_fov) for encoded, recon in
                  (((rows, 12, 1), (16, 12, 1)), ((rows // 2, 6, 1), (8, 6, 1))))
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, in_spaces(image, low)))
    assert scan.size == (16, 12)
    expected = ifft_np(middle, (1,))[:, rows // 4 - 4:rows // 4 + 4]
    assert np.allclose(scan.read(0).calibration, fft_np(expected, (1,)), atol=1e-5)
    other = mrd_xml((rows // 2, 6, 1), fov=(320 * oversampling, 120, 5))
    scan = open_scan(write_mrd(tmp_path / "b.h5", lines, in_spaces(image, other)))
    assert scan.read(0).calibration is None
    assert f"6 calibration lines left out: they cover {320 * oversampling} x 120 x 5 mm with" in scan.notes[0]
    lost = [*lines, line(middle[:, :, 0], encoding_space_ref=2, **CALIBRATION)]
    scan = open_scan(write_mrd(tmp_path / "c.h5", lost, in_spaces(image, low)))
    assert "1 calibration lines left out: the XML header lacks their encoding space, 2" in scan.notes[0]


def test_a_calibration_scan_leaves_the_image_as_it_is(tmp_path):
    """One of an asymmetric echo gives its middle; one that is not as its header says is left out."""
    kspace = fft_np(phantom(2, 32, 12), (1, 2))
    xml = in_spaces(mrd_xml((32, 12, 1), (16, 12, 1), (320, 120, 5), (160, 120, 5)),
                    mrd_xml((16, 6, 1), (8, 6, 1), (320, 120, 5), (160, 120, 5)))

    def opened(values, **head):
        lines = [*lines_of(kspace), *lines_of(values, encoding_space_ref=1, **CALIBRATION, **head)]
        return open_scan(write_mrd(tmp_path / "a.h5", lines, xml))

    alone = open_scan(write_mrd(tmp_path / "b.h5", lines_of(kspace), xml)).read(0).kspace
    scan = opened(kspace[:, 11:24, 3:9], center_sample=5)
    assert scan.notes == ("readout oversampling removed: 16 of 32 pixels kept",)
    assert exactly(scan.read(0).kspace, alone.numpy())
    eleven = np.pad(kspace[:, 11:22, 3:9], ((0, 0), (1, 0), (0, 0)))        # on the twelve that can be halved
    expected = fft_np(ifft_np(eleven, (1,))[:, 3:9], (1,))[:, 1:6]
    assert np.allclose(scan.read(0).calibration, expected, atol=1e-5)
    scan = opened(kspace[:, :, 3:9])
    assert "6 calibration lines left out: they do not fit" in scan.notes[0]
    assert exactly(scan.read(0).kspace, alone.numpy())
    assert scan.read(0).calibration is None


def test_a_calibration_scan_of_odd_oversampling_keeps_the_field_of_view(tmp_path):
    """24 samples are 9.375 after a crop from 512 to 200: those within are as of all 512."""
    images = np.pad(phantom(2, 100, 12), ((0, 0), (206, 206), (0, 0)))
    kspace = fft_np(images, (1, 2))
    lines = [*lines_of(kspace), *lines_of(kspace[:, 244:268, 3:9], encoding_space_ref=1, **CALIBRATION)]
    xml = in_spaces(mrd_xml((512, 12, 1), (200, 12, 1), (512, 120, 5), (200, 120, 5)), mrd_xml((24, 6, 1), fov=(512, 120, 5)))
    read = open_scan(write_mrd(tmp_path / "a.h5", lines, xml)).read(0)
    padded = np.zeros((2, 512, 6), np.complex64)
    padded[:, 244:268] = kspace[:, 244:268, 3:9]
    expected = fft_np(ifft_np(padded, (1,))[:, 156:356], (1,))[:, 96:105]
    error = np.linalg.norm(read.calibration.numpy() - expected) / np.linalg.norm(expected)
    assert error < 0.03         # of the Gibbs ringing that the crop cuts


def test_a_calibration_scan_of_fewer_points_of_a_volume(tmp_path):
    kspace = fft_np(phantom(2, 8, 6)[..., None] * np.arange(1, 5), (1, 2, 3))
    middle = kspace[:, 2:6, 1:5, 1:3]

    def lines(values, **head):
        places = np.ndindex(values.shape[2:])
        return [line(values[:, :, y, z], y, counters={"kspace_encode_step_2": z}, **head) for y, z in places]

    xml = in_spaces(mrd_xml((8, 6, 4), (4, 6, 4), (80, 60, 40), (40, 60, 40)), mrd_xml((4, 4, 2), fov=(80, 60, 40)))
    scan = open_scan(write_mrd(tmp_path / "a.h5", [*lines(kspace), *lines(middle, encoding_space_ref=1, **CALIBRATION)], xml))
    padded = np.zeros((2, 8, 4, 2), np.complex64)
    padded[:, 2:6] = middle
    expected = ifft_np(padded, (1,))[:, 2:6] * 2**0.5                   # orthonormal over 8 samples, and over 4
    for number, read in enumerate(read_all(scan)):
        assert np.allclose(read.calibration, expected[:, number], atol=1e-5)
    for values, why in ((middle[:, 1:], "their readout is sampled partially, in a 3D encoding"), (kspace, "they do not fit")):
        apart = lines(values, encoding_space_ref=1, center_sample=values.shape[1] // 2, **CALIBRATION)
        left = open_scan(write_mrd(tmp_path / "b.h5", [*lines(kspace), *apart], xml))
        assert why in left.notes[0]
        assert left.read(1).calibration is None
        assert exactly(left.read(1).kspace, scan.read(1).kspace.numpy())


def test_calibration_of_even_width_has_its_centre_at_half_the_width(tmp_path):
    kspace, separate = normal(2, 8, 10), normal(2, 8, 10, seed=1)
    lines = [*lines_of(kspace), *lines_of(separate, [3, 4, 5, 6], flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])]
    read = open_scan(write_mrd(tmp_path / "a.h5", lines, mrd_xml((8, 10, 1)))).read(0)
    assert exactly(read.calibration, separate[:, :, 3:7])      # 5 is the centre of 10, and the third of these four
    off = [*lines_of(kspace), *lines_of(separate, [0, 1], flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])]
    assert open_scan(write_mrd(tmp_path / "b.h5", off, mrd_xml((8, 10, 1)))).read(0).calibration is None
