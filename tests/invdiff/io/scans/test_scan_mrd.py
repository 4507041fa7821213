import ismrmrd
import numpy as np
import pytest
from scan_files import error_of, exactly, fft_np, ifft_np, line, lines_of, mrd_xml, normal, phantom, read_all, write_mrd

from invdiff.io.scans import open_scan


def test_lines_come_back_as_they_are(tmp_path):
    kspace = normal(2, 3, 8, 6)
    path = write_mrd(tmp_path / "a.h5", [a for i in range(2) for a in lines_of(kspace[i], counters={"slice": i})], mrd_xml())
    scan = open_scan(path)
    assert (scan.format, scan.slices, scan.coils, scan.size, scan.crop) == ("ISMRMRD", 2, 3, (8, 6), (8, 6))
    for i, read in enumerate(read_all(scan)):
        assert exactly(read.kspace, kspace[i])
        assert read.mask.all()
        assert read.calibration is None
        assert read.trajectory is None
    assert scan.noise is None
    assert scan.notes == ()


def test_an_image_end_to_end(tmp_path):
    """Oversampled readout, phase oversampling, partial Fourier with the centre off the middle: the image comes back."""
    images = phantom(3, 32, 20)
    images[:, :8] = images[:, 24:] = 0          # what oversampling brings in is cropped
    kspace = fft_np(images, (1, 2))
    steps = range(6, 20)                        # grid columns; the centre, 10, is step 4
    lines = [line(kspace[:, :, column], column - 6) for column in steps]
    xml = mrd_xml((32, 20, 1), (16, 16, 1), (400, 250, 5), (200, 200, 5), centre=(4, 0))
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, xml))
    assert (scan.size, scan.crop) == ((16, 20), (16, 16))
    read = scan.read(0)
    assert exactly(read.mask, np.broadcast_to(np.arange(20) >= 6, (16, 20)))
    kept = kspace.copy()
    kept[:, :, :6] = 0
    assert np.abs(ifft_np(read.kspace.numpy(), (1, 2)) - ifft_np(kept, (1, 2))[:, 8:24]).max() < 1e-5
    everything = open_scan(write_mrd(tmp_path / "b.h5", lines_of(kspace), mrd_xml((32, 20, 1), (16, 16, 1), (400, 250, 5),
                                                                                  (200, 200, 5)))).read(0)
    assert np.abs(ifft_np(everything.kspace.numpy(), (1, 2)) - images[:, 8:24]).max() < 1e-5


def test_an_asymmetric_echo_is_placed_by_its_centre(tmp_path):
    kspace = normal(2, 16, 6)
    lines = [line(kspace[:, 5:, step], step, center_sample=3) for step in range(6)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, mrd_xml((16, 6, 1), (8, 6, 1), (400, 180, 5), (200, 180, 5))))
    assert (scan.size, scan.crop) == ((16, 6), (8, 6))
    read = scan.read(0)
    assert exactly(read.mask, np.broadcast_to(np.arange(16)[:, None] >= 5, (16, 6)))
    assert exactly(read.kspace[:, 5:], kspace[:, 5:])
    assert any("asymmetric" in note for note in scan.notes)


def test_discarded_samples_and_a_centre_that_was_never_set(tmp_path):
    kspace = normal(2, 8, 6)
    padded = np.concatenate([normal(2, 2, 6, seed=1), kspace, normal(2, 1, 6, seed=2)], axis=1)
    discard = [line(padded[:, :, s], s, discard_pre=2, discard_post=1, center_sample=6) for s in range(6)]
    unset = [line(kspace[:, :, s], s, center_sample=0) for s in range(6)]
    for number, lines in enumerate([discard, unset]):
        assert exactly(open_scan(write_mrd(tmp_path / f"{number}.h5", lines, mrd_xml())).read(0).kspace, kspace)


def test_averages_are_averaged_by_how_often_a_line_was_measured(tmp_path):
    kspace = normal(3, 2, 8, 6)
    twice = [a for i in range(2) for a in lines_of(kspace[i], counters={"average": i})]
    noise = line(normal(2, 8), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    scan = open_scan(write_mrd(tmp_path / "a.h5", [noise, *twice], mrd_xml()))
    assert np.allclose(scan.read(0).kspace, kspace[:2].mean(axis=0), atol=1e-6)
    assert np.allclose(scan.noise, noise.data / np.sqrt(2))
    assert "2 measurements" in scan.notes[0]
    third = lines_of(kspace[2], steps=[1, 4], counters={"average": 2})
    scan = open_scan(write_mrd(tmp_path / "b.h5", [*twice, *third], mrd_xml()))
    assert np.allclose(scan.read(0).kspace[:, :, 4], kspace[:, :, :, 4].mean(axis=0), atol=1e-6)
    assert np.allclose(scan.read(0).kspace[:, :, 0], kspace[:2, :, :, 0].mean(axis=0), atol=1e-6)
    assert "2 to 3 times" in scan.notes[0]


def test_noise_is_brought_to_the_bandwidth_of_the_image(tmp_path):
    """Variance goes with bandwidth, that is with 1 / dwell time."""
    noise = [line(normal(2, 50, seed=i), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], sample_time_us=2.0) for i in range(3)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", [*noise, *lines_of(normal(2, 8, 6), sample_time_us=8.0)], mrd_xml()))
    assert scan.noise.shape == (2, 150)
    assert np.allclose(scan.noise[:, 50:100], noise[1].data / 2)
    assert scan.read(0).mask.all()


@pytest.mark.parametrize(("told", "share"), [("0.793", 0.793), ("1", 1), ("0", 1), ("all", 1)])
def test_noise_that_the_receiver_dampens_is_as_strong_as_it_was(tmp_path, told, share):
    noise = line(normal(2, 50), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    system = f"<relativeReceiverNoiseBandwidth>{told}</relativeReceiverNoiseBandwidth>"
    xml = mrd_xml(more=f"<acquisitionSystemInformation>{system}</acquisitionSystemInformation>")
    scan = open_scan(write_mrd(tmp_path / "a.h5", [noise, *lines_of(normal(2, 8, 6))], xml))
    assert np.allclose(scan.noise, noise.data / np.sqrt(share))


@pytest.mark.parametrize("counter", ["contrast", "phase", "repetition", "set"])
def test_a_frame_is_picked_and_the_others_are_named(tmp_path, counter):
    kspace = normal(3, 2, 8, 6)
    lines = [a for i in range(3) for a in lines_of(kspace[i], counters={counter: 2 * i})]
    path = write_mrd(tmp_path / "a.h5", lines, mrd_xml(more="<sequenceParameters><TE>5</TE><TE>6</TE><TE>7</TE>"
                                                            "</sequenceParameters>"))
    for i in range(3):
        scan = open_scan(path, frame=i)
        assert exactly(scan.read(0).kspace, kspace[i])
        assert f"frame {i} of 3" in scan.notes[0]
        assert f"{counter} {2 * i}" in scan.notes[0]
    assert open_scan(path, frame=1).header.metadata["EchoTime"] == (7 if counter == "contrast" else 5)
    assert "frames 0 to 2" in error_of(open_scan, path, frame=3)


def test_lines_that_are_no_image_are_left_out(tmp_path):
    kspace = normal(2, 8, 6)
    other = [line(normal(2, 8, seed=flag), 3, flags=[flag]) for flag in (
        ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_PHASECORR_DATA, ismrmrd.ACQ_IS_DUMMYSCAN_DATA)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", [*other, *lines_of(kspace)], mrd_xml()))
    assert exactly(scan.read(0).kspace, kspace)
    assert "3 navigator" in scan.notes[0]


def test_geometry(tmp_path):
    """The affine takes the centre pixel of a slice to the position in the file, turned from LPS to RAS."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    read, phase, normals = turn
    xml = mrd_xml((16, 12, 1), (8, 10, 1), (320, 240, 6), (160, 200, 6))
    places = [np.array([10, 20, 30]) + 7.5 * k * normals for k in (2, 0, 1)]     # acquired out of order
    frame = {"read_dir": read, "phase_dir": phase, "slice_dir": normals}
    kspace = normal(3, 2, 16, 12)
    lines = [a for k in range(3) for a in lines_of(kspace[k], counters={"slice": k}, position=places[k], **frame)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, xml))
    affine, lps = scan.header.affine, np.diag([-1, -1, 1])
    assert scan.crop == (8, 10)
    for number, k in enumerate((1, 2, 0)):
        assert np.allclose(affine[:3] @ [5, 4, number, 1], lps @ places[k], atol=1e-4)
    assert np.allclose(affine[:3, 0], lps @ phase * 20, atol=1e-4)
    assert scan.header.metadata["SliceThickness"] == 6                 # and 1.5 mm between slices
    assert np.allclose(affine[:3, 1], lps @ read * 20, atol=1e-4)
    assert "order of their positions" in scan.notes[0]
    kept = ifft_np(kspace[2], (1,))[:, 4:12]
    assert np.allclose(ifft_np(scan.read(1).kspace.numpy(), (1,)), kept, atol=1e-5)
    assert not any("equally spaced" in note for note in scan.notes)
    uneven = [a for k in (0, 2) for a in lines[12 * k:12 * k + 12]]
    far = lines_of(kspace[1], counters={"slice": 1}, position=places[1] + 100 * normals, **frame)
    assert "equally spaced" in open_scan(write_mrd(tmp_path / "d.h5", [*uneven, *far], xml)).notes[-1]
    alone = open_scan(write_mrd(tmp_path / "b.h5", lines[:12], xml))
    assert np.allclose(alone.header.affine[:3, 2], lps @ normals * 6, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 5])
def test_without_directions_the_spacings_are_kept(tmp_path, depth):
    lines = [line(normal(2, 8), y, counters={"kspace_encode_step_2": z}, slice_dir=(0, 0, 0)) for y in range(6)
             for z in range(depth)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, mrd_xml((8, 6, depth), fov=(160, 180, 6))))
    row, column, step = (20, 30, 6) if depth == 1 else (30, 6 / 5, 20)
    assert np.allclose(np.abs(scan.header.affine[:3, :3]), np.diag([column, row, step]))
    assert not scan.header.oriented
    assert "spacing only" in scan.notes[-1]
    unsaid = open_scan(write_mrd(tmp_path / "b.h5", lines, mrd_xml((8, 6, depth), fov=(160, 180, 0))))
    assert unsaid.header.affine is None


def test_identity_and_metadata(tmp_path):
    more = ("<subjectInformation><patientName>Doe^J</patientName><patientID>7</patientID></subjectInformation>"
            "<studyInformation><studyDate>2020-02-03</studyDate><studyInstanceUID>1.2</studyInstanceUID><bodyPartExamined>KNEE"
            "</bodyPartExamined></studyInformation><acquisitionSystemInformation><systemVendor>Acme</systemVendor><systemModel>X"
            "</systemModel><institutionName>Here</institutionName></acquisitionSystemInformation><sequenceParameters><TR>500</TR>"
            "<TE>10</TE><TI>100</TI><flipAngle_deg>30</flipAngle_deg><sequence_type>GRE</sequence_type></sequenceParameters>")
    header = open_scan(write_mrd(tmp_path / "a.h5", lines_of(normal(1, 8, 6)), mrd_xml(more=more))).header
    assert header.identity == {"PatientName": "Doe^J", "PatientID": "7", "StudyDate": "20200203", "StudyInstanceUID": "1.2",
                               "InstitutionName": "Here"}
    assert header.metadata == {"RepetitionTime": 500, "EchoTime": 10, "InversionTime": 100, "FlipAngle": 30,
                               "SequenceName": "GRE", "Manufacturer": "Acme", "ManufacturerModelName": "X",
                               "BodyPartExamined": "KNEE", "SliceThickness": 5, "ImagingFrequency": 127}


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_trajectory_comes_in_cycles_per_field_of_view(tmp_path, normalised, dimensions):
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (2, 3, 20, dimensions)).astype(np.float32)      # slices, spokes
    kspace = normal(2, 3, 4, 20)
    scale = np.array([16, 12, 1][:dimensions], np.float32)
    stored = points if normalised else points * scale
    lines = [line(kspace[s, i], i, traj=stored[s, i], counters={"slice": s}) for s in range(2) for i in range(3)]
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, mrd_xml((16, 12, 1), (8, 12, 1), (400, 300, 5), (200, 300, 5),
                                                                 trajectory="radial")))
    assert (scan.size, scan.crop, scan.coils) == ((16, 12), (8, 12), 4)
    read = scan.read(1)
    assert read.mask is None
    assert exactly(read.kspace, kspace[1].transpose(1, 0, 2).reshape(4, 60))
    assert np.allclose(read.trajectory, points[1, ..., :2].reshape(60, 2) * [16, 12], atol=1e-5)


def test_a_trajectory_in_radians_is_refused(tmp_path):
    points = np.random.default_rng(0).uniform(-np.pi, np.pi, (3, 20, 2)).astype(np.float32)
    lines = [line(normal(4, 20), i, traj=points[i]) for i in range(3)]
    refused(tmp_path, lines, mrd_xml((64, 64, 1), trajectory="radial"), "divide radians by 2 pi")


def test_a_volume_is_read_as_slices_along_its_readout(tmp_path):
    kspace = normal(2, 8, 6, 5)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    frame = {"read_dir": turn[0], "phase_dir": turn[1], "slice_dir": turn[2], "position": (1, 2, 3)}
    sampled = np.random.default_rng(0).random((6, 5)) < 0.7
    lines = [line(kspace[:, :, y, z], y, counters={"kspace_encode_step_2": z}, **frame) for y, z in np.argwhere(sampled)]
    xml = mrd_xml((8, 6, 5), (4, 6, 5), (80, 60, 50), (40, 60, 50))
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines, xml))
    assert (scan.slices, scan.size, scan.crop) == (4, (6, 5), (6, 5))
    expected = ifft_np(kspace * sampled, (1,))[:, 2:6]
    for number, read in enumerate(read_all(scan)):
        assert np.allclose(read.kspace, expected[:, number], atol=1e-5)
        assert exactly(read.mask, sampled)
    assert np.allclose(scan.header.affine[:3] @ [2, 3, 2, 1], [-1, -2, 3], atol=1e-4)


def test_a_volume_with_calibration_lines_and_averages(tmp_path):
    kspace, separate = normal(2, 2, 8, 6, 5), normal(2, 8, 6, 5, seed=1)
    places = [(y, z) for y in range(6) for z in range(5)]
    lines = [line(kspace[a, :, :, y, z], y, counters={"kspace_encode_step_2": z, "average": a})
             for a in range(2) for y, z in places]
    apart = [line(separate[:, :, y, z], y, counters={"kspace_encode_step_2": z}, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
             for y, z in places if 2 <= y <= 3 and 1 <= z <= 3]
    scan = open_scan(write_mrd(tmp_path / "a.h5", [*lines, *apart], mrd_xml((8, 6, 5))))
    read = scan.read(3)
    assert np.allclose(read.kspace, ifft_np(kspace.mean(axis=0), (1,))[:, 3], atol=1e-5)
    assert np.allclose(read.calibration, ifft_np(separate, (1,))[:, 3, 2:4, 1:4], atol=1e-5)


def test_a_slice_is_read_alone(tmp_path):
    kspace = normal(3, 2, 8, 6)
    kspace[::2] = np.nan
    path = write_mrd(tmp_path / "a.h5", [a for i in range(3) for a in lines_of(kspace[i], counters={"slice": i})], mrd_xml())
    scan = open_scan(path)
    assert exactly(scan.read(1).kspace, kspace[1])
    assert "slice 0 holds" in error_of(scan.read, 0)


def test_the_image_keeps_the_encoded_resolution(tmp_path):
    """A reconSpace of the same field of view and another matrix asks for interpolation, which is left to others."""
    scan = open_scan(write_mrd(tmp_path / "a.h5", lines_of(normal(1, 8, 6)), mrd_xml((8, 6, 1), (16, 12, 1))))
    assert (scan.size, scan.crop) == ((8, 6), (8, 6))
    assert "8 x 6 pixels, where the header asks for 16 x 12" in scan.notes[0]


def refused(tmp_path, lines, xml=None, expected=""):
    path = write_mrd(tmp_path / "a.h5", lines, xml or mrd_xml())
    message = error_of(lambda: read_all(open_scan(path)))
    assert expected in message
    assert str(path) in message


def test_what_is_wrong_is_said(tmp_path):
    kspace = normal(2, 8, 6)
    lines = lines_of(kspace)
    refused(tmp_path, [*lines, line(normal(3, 8))], expected="[2, 3] coils")
    refused(tmp_path, [line(np.zeros((0, 8)))], expected="[0] coils")
    refused(tmp_path, [line(kspace[:, :, 0], flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])], expected="none of its 1")
    refused(tmp_path, [*lines, line(kspace[:, :, 0], 6)], expected="does not fit the encoded matrix")
    refused(tmp_path, [*lines, line(normal(2, 9), 2)], expected="does not fit the encoded matrix")
    refused(tmp_path, [*lines, line(kspace[:, :, 0], encoding_space_ref=1)][-1:], expected="encoding space 1")
    refused(tmp_path, [*lines, line(kspace[:, :, 0], 1, flags=[ismrmrd.ACQ_IS_REVERSE])], expected="reverse")
    refused(tmp_path, lines, mrd_xml(trajectory="spiral"), "spiral")
    refused(tmp_path, lines, '<!DOCTYPE a [<!ENTITY b "c">]>' + mrd_xml(), "DOCTYPE")
    refused(tmp_path, lines, "<a>", "XML header is damaged")
    refused(tmp_path, lines, "<a/>", "no encoding")
    refused(tmp_path, lines_of(0 * kspace), expected="zero everywhere")
    refused(tmp_path, [line(kspace[:, 2:, 0], 0, center_sample=2)], mrd_xml((8, 6, 4)), "partially sampled readout")
    refused(tmp_path, [line(kspace[:, :, 0], traj=np.zeros((8, 1), np.float32))], expected="[1] dimensions")
    refused(tmp_path, [line(kspace[:, :, 0], traj=np.full((8, 2), np.nan, np.float32))], expected="NaN")
    noise = line(np.full((2, 8), np.nan), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    refused(tmp_path, [noise, *lines], expected="noise measurement holds")
