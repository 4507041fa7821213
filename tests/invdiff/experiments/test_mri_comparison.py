import json
import shutil

import h5py
import numpy as np
import pytest
import torch

import operators
from invdiff.baselines.mri import tuned
from invdiff.experiments.mri_comparison import magnitude, main, psnr
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.networks import build_network
from invdiff.simulation import simulate
from operators.mri import birdcage_maps, sampling


def disc(size=64):
    """A bright disc with a dark one in it and a slow phase, (1, 2, size, size)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    magnitude = (x**2 + y**2 < 0.6).float() - 0.6 * ((x - 0.2) ** 2 + y**2 < 0.1).float()
    phase = 0.7 * x + 0.3 * y**2
    return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()])[None]


@pytest.mark.parametrize("name", [
    "l1_wavelet", pytest.param("bart_l1_wavelet", marks=pytest.mark.skipif(not shutil.which("bart"), reason="no BART"))])
def test_l1_wavelet_removes_what_undersampling_folds(name):
    truth, maps = disc(), birdcage_maps((64, 64), 4)
    physics = operators.MultiCoilMRI(sampling.gaussian_points((64, 64), 4, calib=12), maps)
    problem = simulate(physics, truth, 0.01)

    def score(x):
        return psnr(magnitude(x), magnitude(truth))

    best, weight = tuned(name, problem, score, (1e-3, 3e-3, 1.0))
    assert weight < 1.0
    assert score(best) > score(physics.A_adjoint(problem.y)) + 4
    torch.testing.assert_close(best, truth, rtol=0, atol=0.5)           # of the same scale and phase


def test_the_command_writes_a_table_and_a_record(tmp_path, capsys):
    torch.manual_seed(0)
    architecture = {"channels": 2, "widths": [8], "depths": [1], "embedding": 8}
    card = {"name": "tiny", "architecture": architecture, "preconditioning": {"sigma_data": 0.3, "centre": 0.0}}
    save_prior(tmp_path / "tiny.safetensors", EDMDenoiser(build_network(architecture), 2), card)
    with h5py.File(tmp_path / "slices.h5", "w") as file:
        file["test"] = np.repeat(disc().numpy(), 3, 0).astype(np.float32)
    arguments = ["--images", str(tmp_path / "slices.h5"), "--prior", str(tmp_path / "tiny.safetensors"), "--count", "2",
                 "--coils", "2", "--steps", "2", "--samples", "2", "--output", str(tmp_path / "new" / "table.md")]
    assert main(arguments) == 0
    record = json.loads((tmp_path / "new" / "table.json").read_text())
    assert record["made"]["images"] == "slices.h5 (test), slices 0, 2"
    for scores in record["denoising"].values():
        assert scores["brain"] == pytest.approx(scores["noisy"], abs=1)
    for scores in record["reconstruction"].values():
        assert scores["l1-wavelet, tuned"] > scores["zero-filled"]
    page = (tmp_path / "new" / "table.md").read_text()
    assert "| l1-wavelet, tuned |" in page
    assert main([*arguments[:-1], str(tmp_path / "slices.h5" / "table.md")]) == 2           # said before hours of work
    assert "choose a folder" in " ".join(capsys.readouterr().err.split())
    assert "lines 8×" in page
    assert main([*arguments[:1], str(tmp_path / "none.h5"), *arguments[2:]]) == 2
    assert "error:" in capsys.readouterr().err
