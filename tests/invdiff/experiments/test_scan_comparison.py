"""The comparison on scans: the record grows case by case, the table has the gain."""

import json

import h5py
import pytest

from invdiff.experiments import scan_comparison
from operators.mri import phantom


@pytest.fixture
def prior(tiny_prior):
    return tiny_prior(channels=2, centre=0.0)


def test_the_comparison_of_a_scan(tmp_path, prior, capsys):
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["kspace"] = phantom.kspace((48, 48), coils=4, sigma=0.01).numpy()
    options = ["--scans", str(tmp_path), "--names", "head", "--prior", str(prior), "--steps", "2", "--samples", "2",
               "--output", str(tmp_path / "new" / "page.md"), "--masks"]
    assert scan_comparison.main([*options, "random 4×"]) == 0
    first = json.loads((tmp_path / "new" / "page.json").read_text())["cases"]
    assert scan_comparison.main([*options, "random 4×", "equispaced 4×"]) == 0
    cases = json.loads((tmp_path / "new" / "page.json").read_text())["cases"]
    assert cases["head, random 4×"] == first["head, random 4×"]             # not measured again: the time would differ
    found = cases["head, equispaced 4×"]
    gain = found["invdiff"]["psnr"] - max(found[name]["psnr"] for name in scan_comparison.CLASSICAL if name in found)
    assert f"{gain:+.2f}" in (tmp_path / "new" / "page.md").read_text()
    assert found["total_variation"]["psnr"] > found["zero_filled"]["psnr"]
    kept = (tmp_path / "new" / "page.json").read_bytes()
    assert scan_comparison.main([*options, "random 4×", "--steps", "3"]) == 2
    assert "made otherwise" in " ".join(capsys.readouterr().err.split())
    assert scan_comparison.main([*options, "random 4×", "--parameters", "{"]) == 2
    assert "expected a JSON object" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "new" / "page.json").read_bytes() == kept
    assert scan_comparison.main([*options[:3], "nobody", *options[4:], "random 4×"]) == 2
    assert "nobody.h5" in capsys.readouterr().err
