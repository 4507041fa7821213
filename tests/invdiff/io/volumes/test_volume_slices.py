"""What all writers share: slices are read one at a time, and what does not fit leaves nothing behind."""

import numpy as np
import pytest

from invdiff.io.scans.scan import Header
from invdiff.io.volumes.dicom import Labels, write_dicom
from invdiff.io.volumes.fastmri import write_fastmri
from invdiff.io.volumes.montage import write_montage
from invdiff.io.volumes.nifti import write_nifti
from invdiff.io.volumes.slices import affine_of

SHAPE = (4, 6, 5)
WRITERS = [(write_nifti, "v.nii"), (write_nifti, "v.nii.gz"), (write_dicom, "series"), (write_fastmri, "v.h5"),
           (write_montage, "v.png")]
every_writer = pytest.mark.parametrize(("write", "name"), WRITERS, ids=[name for _, name in WRITERS])


def slices(count=SHAPE[0]):
    return (np.random.default_rng(i).random(SHAPE[1:]).astype(np.float32) for i in range(count))


@every_writer
def test_slices_are_read_one_at_a_time(write, name, tmp_path):
    alive = []

    class Slice(np.ndarray):
        def __del__(self):
            alive.remove(self.number)

    def stream():
        for number in range(40):
            item = np.ones((6, 5), np.float32).view(Slice)
            item.number = number
            alive.append(number)
            yield item
            del item
            assert len(alive) <= 1    # the writer may keep the last one, no more

    write(tmp_path / name, stream(), (40, 6, 5))
    assert (tmp_path / name).exists()


@every_writer
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_stream_leaves_nothing_behind(write, name, error, tmp_path):
    def stream():
        yield from slices(2)
        raise error("stop")

    with pytest.raises(error, match="stop"):
        write(tmp_path / name, stream(), SHAPE)
    assert not list(tmp_path.iterdir())


@every_writer
@pytest.mark.parametrize(("stream", "message"), [
    (lambda: slices(3), "expected 4, the first of the shape (4, 6, 5), got 3"),
    (lambda: slices(5), "expected 4, the first of the shape (4, 6, 5), got more"),
    (lambda: iter([np.ones((5, 6))] * 4), "expected (h, w) = (6, 5), got (5, 6) in slice 0"),
    (lambda: iter([np.ones((6, 5)), *[np.full((6, 5), np.nan)] * 3]), "NaN or infinity in slice 1"),
    (lambda: iter([np.ones((6, 5), np.complex64)] * 4), "expected real numbers"),
])
def test_what_was_not_announced_is_refused(write, name, stream, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        write(tmp_path / name, stream(), SHAPE)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@every_writer
def test_a_volume_needs_three_sides(write, name, tmp_path):
    for shape in ((6, 5), (0, 6, 5), (4, 6, 5.0)):
        with pytest.raises(ValueError, match=r"^shape: expected"):
            write(tmp_path / name, slices(), shape)


@pytest.mark.parametrize("affine", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4)), np.diag([1, 1, 0, 1.0]),
                                    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]])
def test_an_affine_must_be_one(affine):
    with pytest.raises(ValueError, match=r"^header.affine: expected"):
        affine_of(Header(affine), SHAPE)


def test_without_a_flag_no_file_tells_who_it_was(tmp_path):
    secrets = {"PatientName": "Quixote^Alonso", "PatientID": "ID-4711", "StudyDate": "20010203", "InstitutionName": "Toboso",
               "DeviceSerialNumber": "SN-998", "StudyInstanceUID": "1.2.3.44556677", "SeriesDescription": "windmill"}
    header = Header(np.diag([-1, -1, 2, 1.0]), {"EchoTime": 95.0, "Manufacturer": "ACME"}, secrets)
    write_nifti(tmp_path / "v.nii", slices(), SHAPE, header)
    write_fastmri(tmp_path / "v.h5", slices(), SHAPE, header)
    write_dicom(tmp_path / "series", slices(), SHAPE, header, Labels(seed="1"))
    write_dicom(tmp_path / "known", slices(), SHAPE, header, Labels(seed="1"), identity=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "known" not in path.parts]
    assert len(files) == 6
    for path in files:
        data = path.read_bytes()
        assert not [secret for secret in secrets.values() if secret.encode() in data], path
    kept = (tmp_path / "known" / "0001.dcm").read_bytes()
    assert [key for key, secret in secrets.items() if secret.encode() not in kept] == ["SeriesDescription"]    # ours instead
