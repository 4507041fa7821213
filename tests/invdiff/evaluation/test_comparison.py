import json

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.evaluation import comparison
from invdiff.evaluation.comparison import main
from invdiff.evaluation.namesakes import STEPS
from invdiff.posterior import DDRM, MomentMatching
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.unet import UNet


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two photographs of 70 x 66 with blocks, and a random prior."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(2):
        blocks = np.kron(rng.integers(0, 255, (7, 6, 3), dtype=np.uint8), np.ones((10, 11, 1), np.uint8))
        Image.fromarray(blocks).save(folder / "photos" / f"{i}.png")
    architecture = {"channels": 3, "widths": [8, 8], "depths": [1, 1], "embedding": 8}
    preconditioning = {"sigma_data": 0.25, "centre": 0.5}
    torch.manual_seed(0)
    denoiser = EDMDenoiser(UNet(**architecture), 3, **preconditioning)
    save_prior(folder / "tiny.safetensors", denoiser,
               {"name": "tiny", "architecture": architecture, "preconditioning": preconditioning})
    return folder


@pytest.fixture(autouse=True)
def few_weights(monkeypatch):
    monkeypatch.setattr(comparison, "TV_ITERATIONS", 20)


def arguments(inputs, output, *more):
    return ["--images", str(inputs / "photos"), "--prior", str(inputs / "tiny.safetensors"), "--count", "2", "--size", "64",
            "--samples", "2", "--steps", "2", "--precision", "fp32", "--device", "cpu", "--tasks", "sr",
            "--output", str(output), *more]


def test_the_table_and_the_record_say_the_same(inputs, tmp_path):
    output = tmp_path / "comparison.md"
    assert main(arguments(inputs, output)) == 0
    page, record = output.read_text(encoding="utf-8"), json.loads(output.with_suffix(".json").read_text())
    scores = record["tasks"]["sr"]
    assert list(scores) == ["measurement", "tv", "moment_matching"]
    for entry in (scores["measurement"], scores["tv"], scores["moment_matching"], scores["moment_matching"]["mean"]):
        assert f"{entry['psnr']:.2f} / {entry['ssim']:.3f}" in page
        assert 5 < entry["psnr"] < 60
        assert 0 < entry["ssim"] < 1
    assert scores["moment_matching"]["calls"] == pytest.approx(3)       # two steps, and the first estimate
    for words in ("prior tiny, ", "2 steps", "0.02", "mean of 2", "torch ", "Seconds for one estimate", "64 × 64"):
        assert words in page
    assert str(tmp_path) not in page
    assert str(inputs) not in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["comparison.json", "comparison.md"]


def test_a_stopped_run_goes_on_and_a_sampler_can_be_added(inputs, tmp_path, monkeypatch):
    output = tmp_path / "comparison.md"
    drawn, tuned = [], []
    restore, tune = comparison.restore, comparison.tuned_total_variation

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "tuned_total_variation", lambda *a: tuned.append(1) or tune(*a))
    monkeypatch.setattr(comparison, "restore", stop)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(inputs, output))
    assert "TV, tuned" in output.read_text(encoding="utf-8")
    monkeypatch.setattr(comparison, "restore", lambda *a, **k: drawn.append(type(a[2])) or restore(*a, **k))
    assert main(arguments(inputs, output)) == 0
    assert main(arguments(inputs, output, "--samplers", "moment_matching,ddrm")) == 0
    assert main(arguments(inputs, output, "--samplers", "moment_matching,ddrm")) == 0
    assert drawn == [MomentMatching, DDRM]
    assert tuned == [1]
    assert "DDRM, mean of 2" in output.read_text(encoding="utf-8")


def test_deepinvs_samplers_take_part(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(STEPS, "diffpir", 3)
    output = tmp_path / "theirs.md"
    assert main(arguments(inputs, output, "--samplers", "deepinv_diffpir", "--tasks", "cs")) == 0
    scores = json.loads(output.with_suffix(".json").read_text())["tasks"]["cs"]
    assert scores["deepinv_diffpir"]["calls"] == 3
    assert "deepinv DiffPIR, one sample (3 network calls)" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", comparison.DEFAULT_TASKS)
def test_measurements_are_images(task):
    x = torch.rand(1, 3, 32, 36, generator=torch.Generator().manual_seed(0))
    problem = comparison.simulate(comparison.TASKS[task]((3, 32, 36)), x, 0.0)
    assert comparison.enlarged(problem.y, x.shape[-2:]).shape == x.shape


def test_another_run_does_not_overwrite(inputs, tmp_path, capsys):
    output = tmp_path / "comparison.md"
    output.with_suffix(".json").write_text(json.dumps({"made": {"count": 3}, "tasks": {}}))
    assert main(arguments(inputs, output)) == 2
    assert "remove it or choose another --output" in capsys.readouterr().err
    output.with_suffix(".json").write_text("[]")
    assert main(arguments(inputs, output)) == 2
    assert "not a record" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "128"], "at least 128 x 128 pixels, found one of 66 x 70"),
        (["--count", "3"], "expected 3 images.*found 2"),
        (["--samplers", "magic"], "--samplers: expected some of .*got 'magic'"),
        (["--tasks", "sr,paint"], "--tasks: expected some of .*got 'paint'"),
        (["--samples", "0"], "--samples: expected at least 1, got 0"),
        (["--sigma-y", "nan"], "--sigma-y: expected at least 0, got nan"),
        (["--steps", "0"], "--steps: expected at least 1"),
        (["--prior", "nobody"], "no prior is called 'nobody'"),
        (["--output", "absent/comparison.md"], "existing folder"),
    ],
)
def test_bad_input_is_one_sentence(inputs, tmp_path, capsys, options, message):
    assert main(arguments(inputs, tmp_path / "c.md", *options)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert not list(tmp_path.iterdir())
