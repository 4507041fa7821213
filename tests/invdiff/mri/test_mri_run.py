"""`invdiff restore --task mri`, from files of every format to files of every format, and what it refuses."""


import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
import yaml
from mri_scans import (
    COILS,
    MASKED,
    SIGMA,
    SIZE,
    arrays_of,
    folded,
    head,
    kspace,
    lines,
    names,
    noise,
    report_of,
    write_cfl,
    write_fastmri,
    write_mrd,
    write_radial,
)
from PIL import Image

from invdiff.evaluation.mri_metrics import head_mask, score
from operators import mri

FILES = {"result.h5", "report.json", "config.yaml", "comparison.png", "magnitude.nii.gz", "std.nii.gz", "montage.png"}


def close(image, truth):
    """Relative error of magnitudes."""
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


# formats in

def test_a_fastmri_file_of_three_slices_is_masked_restored_and_scored(restore, work):
    write_fastmri("scan.h5", kspace(3))
    code, out, err = restore("--input", "scan.h5", *MASKED, "--baseline", "sense", "--baseline", "total_variation", samples=2,
                             steps=5)
    assert code == 0, err
    assert "zero-filled" in out
    assert "total variation" in out
    assert names(work) == {"scan.h5", "out"}
    assert names(work / "out") == FILES
    report, arrays = report_of(work / "out"), arrays_of(work / "out")
    assert arrays["samples"].shape == (3, 2, 2, *SIZE)
    assert arrays["mean"].shape == arrays["std"].shape == (3, 2, *SIZE)
    for name in ("magnitude", "magnitude_std", "zero_filled", "truth", "sense", "total_variation"):
        assert arrays[name].shape == (3, 1, *SIZE), name
    assert [one["slice"] for one in report["slices"]] == [0, 1, 2]
    for one in report["slices"]:
        assert {"seconds", "residual", "noise", "coils", "sampling", "coil_maps", "scale", "sigma_y"} <= set(one)
        assert one["coil_maps"]["method"] == "ESPIRiT"
    assert (report["task"], report["samples"], report["sampler"], report["seed"]) == ("mri", 2, "moment_matching", 0)
    assert report["scan"]["format"] == "fastMRI"
    assert report["scan"]["slices"] == [0, 2]
    assert np.allclose(arrays["samples"].mean(1), arrays["mean"], atol=1e-6)
    assert np.allclose(np.linalg.norm(arrays["mean"], axis=1, keepdims=True), arrays["magnitude"], atol=1e-6)
    assert nibabel.load("out/magnitude.nii.gz").shape == (SIZE[1], SIZE[0], 3)
    assert np.allclose(nibabel.load("out/magnitude.nii.gz").get_fdata().T, arrays["magnitude"][:, 0], atol=1e-6)
    assert Image.open("out/comparison.png").size[0] > 500


def test_the_scores_are_those_of_the_arrays_and_restoring_helps(restore, work):
    write_fastmri("scan.h5", kspace(3, size=(64, 64)))
    assert restore("--input", "scan.h5", "--set", "operator.acceleration=2.5", "--set", "operator.noise=none", "--set",
                   "slices=[0,1]", "--baseline", "sense", "--prior", "brain", steps=6, samples=2)[0] == 0
    metrics, arrays = report_of(work / "out")["metrics"], arrays_of(work / "out")
    truth = arrays["truth"][:, 0]
    heads = head_mask(truth)
    sample = np.linalg.norm(arrays["samples"][:, 0], axis=1)
    for got, image in ((metrics["measurement"], arrays["zero_filled"][:, 0]), (metrics["restored"], arrays["magnitude"][:, 0]),
                       (metrics["sample"], sample), (metrics["baselines"]["sense"], arrays["sense"][:, 0])):
        assert got == pytest.approx(score(image, truth, heads), rel=1e-4)
    within = (arrays["lower"][:, 0] <= truth) & (truth <= arrays["upper"][:, 0])
    assert metrics["covered"] == pytest.approx(within[heads].mean(), abs=2e-3)        # result.h5 rounds to float32
    assert metrics["restored"]["psnr"] > metrics["measurement"]["psnr"] + 1
    full = mri.rss(mri.ifft(kspace(2, size=(64, 64)), (-2, -1))).numpy()
    assert close(truth * heads, full * heads) < 0.1                                   # in the unit of the scan


def test_an_ismrmrd_file_with_noise_and_separate_calibration(restore, work):
    columns = range(0, 40, 2)
    write_mrd("scan.mrd", kspace(2), columns, noise(COILS, 2000), range(8, 32))
    code, _, err = restore("--input", "scan.mrd", "--set", "write=[nifti,dicom,complex,fastmri,montage]",
                           "--baseline", "sense", samples=2)
    assert code == 0, err
    report = report_of(work / "out")
    for number, one in enumerate(report["slices"]):
        assert one["noise"] == "noise scan"
        assert one["coil_maps"]["source"] == "calibration lines"
        assert one["coil_maps"]["region"] == [24, 24]
        assert one["sampling"]["acceleration"] == pytest.approx(2)
        assert one["sigma_y"]["noise"] == pytest.approx(SIGMA, rel=0.05), number
    assert report["metrics"] == {}
    assert report["scan"]["format"] == "ISMRMRD"
    arrays = arrays_of(work / "out")
    assert "truth" not in arrays
    full = mri.rss(mri.ifft(kspace(2), (-2, -1))).numpy()
    assert close(arrays["sense"][:, 0], full) < 0.3
    series = [pydicom.dcmread(path) for path in sorted((work / "out" / "dicom-magnitude").iterdir())]
    assert len(series) == len(list((work / "out" / "dicom-std").iterdir())) == 2
    assert series[0].StudyInstanceUID == pydicom.dcmread("out/dicom-std/0001.dcm").StudyInstanceUID
    assert (series[0].SliceThickness, series[0].SpacingBetweenSlices) == (4, 6)         # with a gap between slices
    with h5py.File("out/reconstruction.h5") as file:
        assert np.allclose(file["reconstruction"], arrays["magnitude"][:, 0])
    mean = nibabel.load("out/complex.nii.gz")
    assert mean.get_data_dtype() == np.complex64
    assert np.allclose(np.asarray(mean.dataobj).T, arrays["mean"][:, 0] + 1j * arrays["mean"][:, 1])


@pytest.mark.parametrize("write", [lambda data: write_cfl("scan", data), lambda data: np.save("scan.npy", data) or "scan.npy"])
def test_arrays_of_numpy_and_bart_are_undersampled_where_they_are_zero(restore, work, write):
    path = write(kspace(2) * lines(center=20))
    code, _, err = restore("--input", path, "--set", "sigma_y=0.01", "--baseline", "sense")
    assert code == 0, err
    report = report_of(work / "out")
    assert report["slices"][0]["sampling"]["kept"] == int(lines(center=20).sum())
    assert report["slices"][0]["sigma_y"]["used"] == 0.01
    full = mri.rss(mri.ifft(kspace(2), (-2, -1))).numpy()
    assert close(arrays_of(work / "out")["sense"][:, 0], full) < 0.3


def test_a_radial_scan(restore, work):
    write_radial("scan.npz")
    code, _, err = restore("--input", "scan.npz", "--set", "sigma_y=0.01", "--baseline", "sense")
    assert code == 0, err
    report = report_of(work / "out")
    assert report["slices"][0]["coil_maps"]["source"] == "middle of the trajectory"
    assert "sampling" not in report["slices"][0]
    full = mri.rss(mri.ifft(kspace(size=(48, 48)), (-2, -1))).numpy()
    assert close(arrays_of(work / "out")["sense"][:, 0], full) < 0.3


def test_the_size_of_an_image_off_the_grid_may_be_given(restore, work):
    write_radial("scan.npz")
    code, _, err = restore("--input", "scan.npz", "--set", "sigma_y=0.01", "--set", "operator.size=[53,49]", "--baseline",
                           "sense")
    assert code == 0, err
    report = report_of(work / "out")
    assert report["scan"]["image"] == [53, 49]
    assert report["scan"]["notes"] == ["image size 53 x 49 as given"]
    whole = arrays_of(work / "out")["sense"][0, 0]                     # of the same field of view, in more pixels
    assert whole.shape == (53, 49)
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(whole)))[2:50, :48]
    smaller = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k)))) * (48 * 48 / (53 * 49))
    full = mri.rss(mri.ifft(kspace(size=(48, 48)), (-2, -1)))[0].numpy()
    assert np.corrcoef(smaller.ravel(), full.ravel())[0, 1] > 0.9


# truths

def test_a_truth_in_nifti_is_simulated_and_scored_against_itself(restore, work):
    affine = np.array([[0, 2.0, 0, 5], [-3.0, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])
    volume = np.stack([0 * head(), 100 * head(), 50 * head()]).T      # of a volume, the first slice is often empty
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), "head.nii.gz")
    code, _, err = restore("--truth", "head.nii.gz", "--set", "sigma_y=0.01", "--set", "operator.acceleration=2",
                           "--set", "slices=[1,2]", "--baseline", "sense")
    assert code == 0, err
    report, arrays = report_of(work / "out"), arrays_of(work / "out")
    assert np.allclose(arrays["truth"][:, 0], volume.T[1:])
    assert close(arrays["sense"][:, 0], volume.T[1:]) < 0.15
    assert report["metrics"]["baselines"]["sense"]["psnr"] > report["metrics"]["measurement"]["psnr"]
    assert report["slices"][0]["sigma_y"]["used"] == pytest.approx(1.0, rel=0.2)       # a hundredth of the peak, 100
    assert "simulated" in report["scan"]["format"]
    written = nibabel.load("out/magnitude.nii.gz").affine
    for slice_ in (0, 1):                                             # where the whole volume has them
        assert np.allclose(written @ [3, 4, slice_, 1], affine @ [3, 4, slice_ + 1, 1])


def test_a_truth_in_dicom_needs_no_mask_to_be_scored(restore, work):
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
    item, pixels = pydicom.Dataset(), (1000 * head()).astype("<u2")
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = MRImageStorage
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = generate_uid()
    item.Rows, item.Columns = pixels.shape
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelData = 16, 16, 15, pixels.tobytes()
    item.SeriesInstanceUID, item.PixelSpacing, item.SliceThickness = "1.2.3", [2.0, 3.0], 4.0
    item.ImageOrientationPatient, item.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    item.save_as("head.dcm", enforce_file_format=True)
    code, _, err = restore("--truth", "head.dcm", "--set", "sigma_y=0.01", "--set", "write=[dicom]", steps=10)
    assert code == 0, err
    assert pydicom.dcmread("out/dicom-magnitude/0001.dcm").SliceThickness == 4
    assert np.allclose(arrays_of(work / "out")["truth"][0, 0], pixels)
    assert report_of(work / "out")["metrics"]["restored"]["psnr"] > 30


# the same again

def test_config_yaml_repeats_the_run_and_the_seed_decides_it(restore, invdiff, work):
    write_fastmri("scan.h5", kspace(2))
    assert restore("--input", "scan.h5", *MASKED, samples=2)[0] == 0
    assert invdiff("restore", "--config", "out/config.yaml", "--output", "again")[0] == 0
    for name in FILES - {"report.json"}:
        assert (work / "out" / name).read_bytes() == (work / "again" / name).read_bytes(), name
    assert restore("--input", "scan.h5", *MASKED, "--set", "slices=[1,1]", output="one")[0] == 0
    assert np.array_equal(arrays_of(work / "one")["samples"][0, 0], arrays_of(work / "out")["samples"][1, 0])
    assert restore("--input", "scan.h5", *MASKED, "--seed", 1, output="other")[0] == 0
    assert not np.array_equal(arrays_of(work / "other")["samples"][:, 0], arrays_of(work / "out")["samples"][:, 0])


# what is legal

def test_a_noiseless_truth_is_legal(restore, work):
    np.save("truth.npy", head())
    code, _, err = restore("--truth", "truth.npy", "--set", "sigma_y=0", "--set", "operator.acceleration=2", steps=10)
    assert code == 0, err
    (made,) = report_of(work / "out")["slices"]
    assert made["noise"] == "not looked for"
    assert 0 < made["sigma_y"]["used"] <= made["sigma_y"]["misfit"] < 0.01         # what the maps leave
    assert yaml.safe_load((work / "out" / "config.yaml").read_text())["sigma_y"] == 0


def test_empty_slices_of_a_volume_keep_their_place(restore, work):
    data = kspace(3)
    data[1] = 0
    write_fastmri("scan.h5", data)
    code, _, err = restore("--input", "scan.h5", *MASKED, "--baseline", "sense", samples=2)
    assert code == 0, err
    report, arrays = report_of(work / "out"), arrays_of(work / "out")
    assert [one["slice"] for one in report["slices"]] == [0, 1, 2]
    assert report["slices"][1] == {"slice": 1, "empty": "scan.h5: the k-space of slice 1 is zero everywhere"}
    for name in ("magnitude", "magnitude_std", "truth", "sense", "zero_filled"):
        assert (arrays[name].reshape(3, -1).max(1) > 0).tolist() == [True, False, True], name
    write_fastmri("scan.h5", 0 * data)
    code, _, err = restore("--input", "scan.h5", output="none")
    assert (code, "all that were chosen are zero everywhere" in err) == (2, True)
    np.save("truth.npy", np.stack([0 * head(), head()]))
    assert restore("--truth", "truth.npy", "--set", "sigma_y=0", "--set", "operator.acceleration=2", output="made")[0] == 0
    assert report_of(work / "made")["slices"][0]["empty"] == "truth.npy: slice 0 is zero everywhere"


def test_the_slices_of_two_sets_and_of_one_are_kept_in_one_file(restore, work):
    write_fastmri("scan.h5", torch.cat([folded(), kspace(size=(64, 64), coils=8)]))
    code, _, err = restore("--input", "scan.h5", "--set", "operator.noise=none", "--set", "sampler.steps=3")
    assert code == 0, err
    assert [one["coil_maps"]["sets"] for one in report_of(work / "out")["slices"]] == [2, 1]
    arrays = arrays_of(work / "out")
    assert arrays["samples"].shape == (2, 1, 4, 64, 64)
    assert not arrays["samples"][1, :, 2:].any()
    assert arrays["samples"][0, :, 2:].any()
    assert np.allclose(np.linalg.norm(arrays["mean"], axis=1), arrays["magnitude"][:, 0], atol=1e-5)
