"""What the files of a restored scan say: the unit, the place, and not who was scanned."""

import gzip

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from mri_scans import COILS, MASKED, arrays_of, kspace, names, noise, report_of, write_fastmri, write_mrd
from PIL import Image


def test_the_result_is_in_the_unit_of_the_scan(restore, work):
    unit = 2.0**10                                          # rounds nothing, and conjugate gradients enlarge rounding
    for factor in (1, unit):
        write_fastmri("scan.h5", factor * kspace())
        assert restore("--input", "scan.h5", *MASKED, output=f"by{factor}")[0] == 0
    one, many = (arrays_of(work / f"by{factor}") for factor in (1, unit))
    assert np.allclose(one.pop("measured"), many["measured"], atol=1e-5)         # a share
    for name in one:
        assert np.abs(unit * one[name] - many[name]).max() <= 1e-5 * np.abs(many[name]).max(), name
    levels = [report_of(work / f"by{factor}")["slices"][0]["sigma_y"]["used"] for factor in (1, unit)]
    assert levels[1] == pytest.approx(unit * levels[0], rel=1e-6)


# who was scanned

SECRETS = ("DOE^JANE", "PID-7741", "19700102", "Hospital Nowhere", "Referrer^Rita", "20200304")
PERSON = ("<subjectInformation><patientName>DOE^JANE</patientName><patientID>PID-7741</patientID>"
          "<patientBirthdate>1970-01-02</patientBirthdate></subjectInformation>"
          "<studyInformation><studyDate>2020-03-04</studyDate><referringPhysicianName>Referrer^Rita</referringPhysicianName>"
          "</studyInformation><acquisitionSystemInformation><institutionName>Hospital Nowhere</institutionName>"
          "</acquisitionSystemInformation>")
ALL = ("--set", "write=[nifti,dicom,complex,fastmri,montage]")


def texts(folder):
    """All that a file holds, by name, unpacked."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        yield path.name, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                yield path.name, repr(dict(file.attrs)).encode()
                for item in file.values():
                    yield path.name, repr(dict(item.attrs)).encode()


def test_nobody_is_named_unless_the_user_asks_for_it(restore, work):
    write_mrd("scan.mrd", kspace(2), noise_scan=noise(COILS, 500), person=PERSON)
    code, _, err = restore("--input", "scan.mrd", *ALL)
    assert code == 0, err
    secrets = (*SECRETS, "1970-01-02", "2020-03-04")
    variants = [text.encode() for secret in secrets for text in (secret, secret.lower())]
    for name, data in texts(work / "out"):
        assert not [text for text in variants if text in data], name
    code, _, err = restore("--input", "scan.mrd", *ALL, "--keep-identity", output="kept")
    assert code == 0, err
    kept = report_of(work / "kept")["scan"]["identity"]
    dicom = pydicom.dcmread("kept/dicom-magnitude/0001.dcm")
    assert kept["PatientName"] == dicom.PatientName == "DOE^JANE"
    assert kept["PatientID"] == dicom.PatientID == "PID-7741"
    assert dicom.PatientBirthDate == "19700102"


def test_an_identity_that_dicom_does_not_take_is_told_before_the_work(restore, work, monkeypatch):
    write_mrd("scan.mrd", kspace(), noise_scan=noise(COILS, 500), person=PERSON.replace("1970-01-02", "in May"))
    monkeypatch.setattr("invdiff.mri.job.restore_slices", lambda *_: pytest.fail("restored in vain"))
    code, _, err = restore("--input", "scan.mrd", *ALL, "--keep-identity")
    assert code == 2
    assert "PatientBirthDate: DICOM does not take 'in May'" in err


def test_slices_of_a_part_lie_where_the_whole_has_them(restore, work):
    write_mrd("scan.mrd", kspace(3), noise_scan=noise(COILS, 500))
    for output, more in (("whole", ()), ("part", ("--set", "slices=[1,2]"))):
        assert restore("--input", "scan.mrd", "--set", "write=[nifti,dicom]", *more, output=output)[0] == 0
    whole, part = (nibabel.load(f"{name}/magnitude.nii.gz") for name in ("whole", "part"))
    for number in (0, 1):
        assert np.allclose(part.affine @ [5, 6, number, 1], whole.affine @ [5, 6, number + 1, 1])
        assert np.allclose(part.get_fdata()[..., number], whole.get_fdata()[..., number + 1])
        at = [pydicom.dcmread(f"{name}/dicom-magnitude/000{n}.dcm").ImagePositionPatient
              for name, n in (("part", number + 1), ("whole", number + 2))]
        assert np.allclose(np.array(at[0], float), np.array(at[1], float))
    assert np.allclose(np.array(at[0], float) - np.array(pydicom.dcmread("whole/dicom-magnitude/0001.dcm").ImagePositionPatient,
                                                         float), [0, 0, 12])
    assert report_of(work / "part")["scan"]["slices"] == [1, 2]
    assert [one["slice"] for one in report_of(work / "part")["slices"]] == [1, 2]


def test_two_scans_of_one_name_do_not_share_dicom_s_identifiers(restore, work):
    found = []
    for number in (0, 1, 0):
        write_fastmri("scan.h5", kspace(2)[number:number + 1])
        assert restore("--input", "scan.h5", *MASKED, "--set", "write=[dicom]", output=f"out{len(found)}")[0] == 0
        dicom = pydicom.dcmread(f"out{len(found)}/dicom-magnitude/0001.dcm")
        found.append([dicom.StudyInstanceUID, dicom.SeriesInstanceUID, dicom.SOPInstanceUID, dicom.FrameOfReferenceUID])
    assert not set(found[0]) & set(found[1])
    assert found[0] == found[2]


# a single sample

def test_a_single_sample_has_no_spread_in_any_file(restore, work):
    write_fastmri("scan.h5", kspace(2))
    code, out, err = restore("--input", "scan.h5", *MASKED, *ALL, samples=1)
    assert code == 0, err
    assert "A single sample has no spread, so there is neither std nor interval; take more with --samples." in out
    assert names(work / "out") == {
        "result.h5", "report.json", "config.yaml", "comparison.png", "magnitude.nii.gz", "montage.png", "dicom-magnitude",
        "complex.nii.gz", "reconstruction.h5"}
    assert not {"std", "magnitude_std", "lower", "upper"} & set(arrays_of(work / "out"))
    assert report_of(work / "out")["interval"]["source"] == "a single sample has none"
    assert restore("--input", "scan.h5", *MASKED, samples=2, output="two")[0] == 0
    assert {"std", "magnitude_std", "lower", "upper"} <= set(arrays_of(work / "two"))
    one, two = (Image.open(f"{folder}/comparison.png").size[0] for folder in ("out", "two"))
    assert one < two                                                   # a panel less
