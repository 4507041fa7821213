"""What `invdiff restore --task mri` refuses: one sentence, and nothing left behind."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from mri_scans import (
    MASKED,
    head,
    kspace,
    lines,
    names,
    write_fastmri,
    write_radial,
)
from PIL import Image

# what is refused

def truncated():
    write_fastmri("scan.h5", kspace(3))
    data = Path("scan.h5").read_bytes()
    Path("scan.h5").write_bytes(data[: len(data) // 2])


def nan():
    data = kspace()
    data[0, 1, 3, 4] = float("nan")
    write_fastmri("scan.h5", data)


def linked():
    write_fastmri("other.h5", kspace())
    with h5py.File("scan.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "kspace")


def million():
    with h5py.File("scan.h5", "w") as file:
        file.create_dataset("kspace", (10**6, 4, 48, 40), np.complex64, chunks=(1, 4, 48, 40))


def mask_of_nothing():
    write_fastmri("scan.h5", kspace())
    with h5py.File("scan.h5", "a") as file:
        file["mask"] = np.zeros(40, np.uint8)


REFUSED = {
    "truncated": (truncated, (), "scan.h5"),
    "NaN": (nan, (), "NaN or infinite"),
    "no coils": (lambda: write_fastmri("scan.h5", kspace()[:, :0]), (), "holds no values"),
    "a mask of nothing": (mask_of_nothing, (), "the mask keeps no sample"),
    "a link": (linked, (), "is a link to elsewhere"),
    "a million slices": (million, (), "stores only"),
    "a photo": (lambda: Image.new("RGB", (64, 64)).save("scan.h5", format="PNG"), (), "not k-space"),
    "an unknown baseline": (lambda: write_fastmri("scan.h5", kspace()), ("--baseline", "sens"), "'sens'"),
    "a mask over a mask": (lambda: write_fastmri("scan.h5", kspace(), lines()), MASKED, "undersampled already"),
    "slices out of range": (lambda: write_fastmri("scan.h5", kspace(3)), ("--set", "slices=[1,3]"), "slices: expected"),
    "slices in reverse": (lambda: write_fastmri("scan.h5", kspace(3)), ("--set", "slices=[2,1]"), "slices: expected"),
    "too few lines": (lambda: write_fastmri("scan.h5", kspace(), lines(center=2)), MASKED[2:], "coil maps need"),
    "axes in another order": (lambda: write_fastmri("scan.h5", kspace(coils=96)[..., :4]), (),
                              "would have 96 coils and 48 x 4 samples"),
    "more than is left": (lambda: write_fastmri("scan.h5", kspace()), ("--set", "operator.acceleration=30"),
                          "leaves 1 of 40 lines, and operator.center=11 by default keeps 11 in the middle; expected an "
                          "acceleration of at most 3.63, or up to 5.71 with --set operator.center=7"),
    "more than is left of points": (lambda: write_fastmri("scan.h5", kspace()),
                                    ("--set", "operator.acceleration=4", "--set", "operator.pattern=poisson_disc"),
                                    "leaves 480 of 1920 points, and operator.center=24 by default keeps 576"),
    "a size on the grid": (lambda: write_fastmri("scan.h5", kspace()), ("--set", "operator.size=[48,44]"),
                           "has images of 48 x 40 pixels"),
    "a size that is too small": (lambda: write_radial("scan.h5"), ("--set", "operator.size=[48,40]"),
                                 "expected a size from 48 x 48 pixels"),
    "a folder of no DICOM": (lambda: Path("scan.h5").mkdir(), (), "is a folder with no DICOM file in it; expected k-space"),
    "zeros": (lambda: write_fastmri("scan.h5", 0 * kspace()), (), "zero everywhere"),
    "no such file": (lambda: None, (), "no such file"),
    "an unknown setting": (lambda: write_fastmri("scan.h5", kspace()), ("--set", "operator.accelerate=4"), "accelerate"),
    "no noise scan": (lambda: write_fastmri("scan.h5", kspace()), ("--set", "operator.noise=scan"), "holds no noise scan"),
    "a baseline that is not there": (lambda: write_radial("scan.h5"), ("--baseline", "bart_l1_wavelet"), "bart"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_input_at_fault_is_one_sentence_and_leaves_nothing_behind(what, restore, work):
    make, more, says = REFUSED[what]
    make()
    before = names(work)
    code, _, err = restore("--input", "scan.h5", *more)
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert says.lower() in err.lower()
    assert names(work) == before


def test_a_prior_of_photographs_is_refused_before_anything_is_computed(restore, work, monkeypatch):
    write_fastmri("scan.h5", kspace())
    monkeypatch.setattr("invdiff.mri.volume.prepare", None)
    code, _, err = restore("--input", "scan.h5", *MASKED, "--prior", "natural")
    assert code == 2
    assert err.count("\n") == 1
    assert "natural is for photographs" in err
    assert names(work) == {"scan.h5"}


def test_a_truth_without_its_noise_is_refused(restore, work):
    np.save("truth.npy", head())
    code, _, err = restore("--truth", "truth.npy")
    assert (code, err.count("\n")) == (2, 1)
    assert "--set sigma_y=0.01" in err
    np.save("truth.npy", 0 * head())
    code, _, err = restore("--truth", "truth.npy", "--set", "sigma_y=0.01")
    assert (code, err.count("\n")) == (2, 1)
    assert "empty" in err
    code, _, err = restore("--truth", "truth.npy", "--set", "sigma_y=0.01", "--set", "operator.size=[64,56]")
    assert (code, err.count("\n")) == (2, 1)
    assert "operator.size: belongs to k-space on a trajectory" in err
    assert names(work) == {"truth.npy"}
