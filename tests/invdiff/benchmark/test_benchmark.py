import csv
import json
import re
import subprocess
import sys

import deepinv
import numpy as np
import pytest
import torch
from PIL import Image

import operators
from invdiff.baselines.classical import WaveletSparsity
from invdiff.baselines.wavelets import Wavelets
from invdiff.benchmark.cells import LEVELS, cells, coverage
from invdiff.benchmark.images import clean_images, sample_crops
from invdiff.benchmark.methods import make_method, resolved
from invdiff.benchmark.run import run, usable_metrics
from invdiff.benchmark.settings import BenchmarkConfig, ExactConfig, benchmark_config, benchmarks
from invdiff.cli.main import program
from invdiff.config import build_operator
from invdiff.errors import InputError
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.simulation import simulate


def table(folder):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TIMES = ("seconds", "seconds_per_call", "memory_mib", "run")


def numbers(rows):
    """The rows without what differs from run to run; text as it is, numbers as such."""
    kept = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    return [{name: float(v) if re.fullmatch(r"-?[\d.e-]+", v) else v for name, v in row.items()} for row in kept]


def test_a_row_for_each_task_method_and_image_and_what_failed_is_said(config, tmp_path):
    record = run(config, tmp_path / "out", command="invdiff benchmark <mine>")
    rows = table(tmp_path / "out")
    assert len(rows) == 2 * 5 * 2 == len(cells(config))
    by_method = {row["method"]: row for row in rows if row["task"] == "deblur"}
    ours = by_method["moment_matching"]
    assert ours["status"] == "done"
    assert (float(ours["samples"]), float(ours["network_calls"])) == (4, 3)
    assert float(ours["psnr"]) > 15
    assert float(ours["psnr_sample"]) < float(ours["psnr"])
    assert 0 < float(ours["coverage_50"]) < float(ours["coverage_95"]) <= 1
    assert float(ours["seconds_per_call"]) > 0
    broken = by_method["broken <b>"]
    assert (broken["status"], broken["psnr"]) == ("failed", "")
    assert broken["reason"].startswith("RuntimeError: <script>")
    assert (by_method["tv"]["prior"], by_method["tv"]["samples"], by_method["tv"]["coverage_50"]) == ("none", "1", "")
    assert by_method["python:own_parts:scaled"]["samples"] == "4"
    (made,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["runs"]
    assert made["command"] == "invdiff benchmark <mine>"
    assert made["versions"]["deepinv"] == deepinv.__version__
    assert record.sorted()[0]["psnr"] == float(rows[0]["psnr"])


def test_after_a_kill_the_same_call_goes_on(config, tmp_path):
    whole = run(config, tmp_path / "whole")
    script = ("import os, signal\nfrom invdiff.benchmark.run import run\n"
              "from invdiff.benchmark.settings import benchmark_config\n"
              "die = lambda n, *_: n == 3 and os.kill(os.getpid(), signal.SIGKILL)\n"
              "run(benchmark_config('mine.yaml'), 'out', on_cell=die)")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    left = table(tmp_path / "out")
    assert len(left) == 3
    seen = []
    run(config, tmp_path / "out", on_cell=lambda done, total, row: seen.append(done))
    assert seen == list(range(4, 21))
    assert table(tmp_path / "out")[:3] == left
    assert numbers(table(tmp_path / "out")) == numbers(table(tmp_path / "whole"))
    again = []
    run(config, tmp_path / "out", on_cell=lambda done, total, row: again.append(row["method"]))
    assert again == ["broken <b>"] * 4          # what failed is tried anew
    assert len(whole.sorted()) == 20


def test_two_workers_find_what_one_finds(config, tmp_path):
    small = config.model_copy(update={"tasks": config.tasks[:1]})
    run(small, tmp_path / "one")
    run(small, tmp_path / "two", workers=2)
    for one, two in zip(numbers(table(tmp_path / "one")), numbers(table(tmp_path / "two")), strict=True):
        assert one == {name: pytest.approx(v, rel=1e-4) if isinstance(v, float) else v for name, v in two.items()}
    assert (tmp_path / "two" / "pictures" / "task1-prior1-method1-1.png").is_file()


@pytest.mark.parametrize(("assignment", "said"), [
    ("metod=[tv]", "unknown key 'metod'; did you mean 'methods'"),
    ("kind=imags", "unknown kind 'imags'; did you mean 'images'"),
    ("tasks=[deblurr]", "unknown task 'deblurr'; did you mean 'deblur'"),
    ("tasks=[]", "tasks: "),
    ("tasks=[deblur, deblur]", "'deblur' is there twice"),
    ("tasks=[{name: deblur, sigma: 1}]", "unknown key 'sigma'"),
    ("tasks=[{name: x, operator: gausian_blur, sigma_y: 0.1}]", "unknown name 'gausian_blur'"),
    ("tasks=[{name: x, operator: denoising, sigma_y: -1}]", "sigma_y"),
    ("tasks=[{name: sr, operator: {factor: 3}}]", "multiple of the factor 3"),
    ("tasks=[mri]", "scans are compared by"),
    ("methods=[deepinv_dsp]", "unknown name 'deepinv_dsp'; did you mean 'deepinv_dps'"),
    ("methods=[{name: tv, wieght: 1}]", "unknown key 'wieght'; did you mean 'weight'"),
    ("methods=[tv, tv]", "'tv' is there twice"),
    ("methods=[{name: dps, steps: 0}]", "steps"),
    ("methods=[{name: tv, samples: 0}]", "samples of 1 and more"),
    ("methods=['python:no_such_module:f']", "no module 'no_such_module'"),
    ("methods=['python:own_parts:MODULE_']", "MODULE_"),
    ("methods=[{name: 'python:own_parts:scaled', strenth: 2}]", "python:own_parts:scaled: got an unexpected keyword argument "
     "'strenth'; it takes (denoiser, sigma_y, factor=1.0), of which the first two are given"),
    ("methods=[{name: 'python:own_parts:Pulled', gama: 2}]", "methods: python:own_parts:Pulled: unknown key 'gama'; did"),
    ("methods=[{name: 'python:own_parts:scaled', sigma_y: 2}]", "multiple values for argument 'sigma_y'"),
    ("metrics=[psrn]", "unknown name 'psrn'; did you mean 'psnr'"),
    ("size=8", "size"),
])
def test_a_config_s_faults_are_one_sentence(config, assignment, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        benchmark_config("mine.yaml", [assignment])
    assert "\n" not in str(error.value)
    assert "mine.yaml" not in str(error.value)          # which is right


def test_a_fault_of_the_file_names_it(config, tmp_path):
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text + "\nsampels: 2\n")
    with pytest.raises(InputError, match=r"^mine\.yaml: unknown key 'sampels'; did you mean 'samples'\?$"):
        benchmark_config("mine.yaml", ["seed=1"])


def test_bundled_benchmarks_are_valid():
    assert {"default", "quick", "photos", "exact"} <= set(benchmarks())
    for name in benchmarks():
        config = benchmark_config(name, data="nowhere" if name == "photos" else None)
        assert isinstance(config, ExactConfig if name == "exact" else BenchmarkConfig)
    with pytest.raises(InputError, match="did you mean 'quick'"):
        benchmark_config("quik")


def test_a_benchmark_of_photos_of_one_s_own_asks_for_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photos: this benchmark is on images of your own; give a folder .* with --data"):
        benchmark_config("photos")
    for config in (benchmark_config("photos", data="photos"), benchmark_config("photos", ["images=photos"])):
        assert config.images == "photos"
    program(["benchmark", "--help"], standalone_mode=False)
    said = capsys.readouterr().out
    assert not [name for name in benchmarks() if name not in said]


def test_methods_have_labels_and_all_their_parameters(config):
    full = resolved(["dps", {"name": "tv", "weight": 0.3}, {"name": "tv"}, {"name": "deepinv_dpir", "samples": 3}])
    assert [spec["label"] for spec in full] == ["dps", "tv, weight 0.3", "tv", "deepinv_dpir"]
    assert full[0]["steps"] == make_method(full[0]).sampler.num_steps
    assert (full[1]["weight"], full[1]["iterations"], full[2]["weight"]) == (0.3, 200, 0.15)
    assert make_method(full[3]).samples == 1        # it has no randomness: one estimate, whatever was asked for
    assert not make_method(full[2]).prior
    two = resolved([{"name": "dps", "steps": 9}, {"name": "dps", "steps": 5, "label": "added"}])
    assert [spec["label"] for spec in two] == ["dps", "added"]      # the first keeps its name, and so its rows


def test_a_method_that_cannot_is_no_failure(config, tmp_path, monkeypatch):
    """deepinv's DDRM, and ours, without an SVD."""
    physics = deepinv.physics.Blur(torch.full((1, 1, 3, 3), 1 / 9), padding="circular")
    physics.img_size = (3, 32, 32)
    monkeypatch.setattr("invdiff.benchmark.cells.build_operator", lambda spec, size: physics)
    methods = tuple(resolved([{"name": "deepinv_ddrm", "steps": 2}, {"name": "ddrm", "steps": 2}]))
    run(config.model_copy(update={"tasks": config.tasks[:1], "methods": methods, "count": 1}), tmp_path / "out")
    for row in table(tmp_path / "out"):
        assert row["status"] == "not possible"
        assert "needs an operator with an SVD" in row["reason"]


@pytest.mark.parametrize("name", ["deepinv_diffpir", "deepinv_dpir"])
def test_a_method_for_linear_operators_says_so(name):
    posed = simulate(operators.HighDynamicRange((3, 16, 16)), torch.rand(1, 3, 16, 16), 0.1)
    with pytest.raises(InputError, match=f"{name} needs a linear operator, and HighDynamicRange is none"):
        make_method(resolved([name])[0]).check(posed)


def test_a_prior_that_cannot_leaves_the_others_their_rows(config, tmp_path):
    """One of grey images, and one whose first call fails, being for images of 32 pixels."""
    settings = ["size=48", "count=1", "priors=[fashion, 'python:own_parts:prior', natural]", "tasks=[denoise]",
                "methods=[{name: dps, steps: 2}, {name: tv, iterations: 2}]"]
    run(benchmark_config("mine.yaml", settings), tmp_path / "out")
    rows = {row["prior"]: row for row in table(tmp_path / "out")}
    assert {prior: row["status"] for prior, row in rows.items()} == {
        "fashion": "not possible", "python:own_parts:prior": "failed", "natural": "done", "none": "done"}
    assert "for images of 1 channels, and the problem's have 3" in rows["fashion"]["reason"]


@pytest.mark.parametrize("count", [4, 20])
def test_intervals_of_samples_that_are_right_cover_what_they_promise(count):
    """Truth and samples from the same Gaussians: 250,000 pixels, so within four standard errors, 0.004."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 500, 500)
    mean, spread = torch.rand(shape, generator=generator), 0.1 + torch.rand(shape, generator=generator)
    drawn = mean + spread * torch.randn((count + 1, *shape), generator=generator)
    for level, share in coverage(drawn[1:], drawn[0]).items():
        assert share == pytest.approx(level, abs=0.004)
    narrow = coverage(drawn[0] + 0 * mean + 0.5 * (drawn[1:] - drawn[0]), drawn[0])
    assert set(narrow) == set(LEVELS)


def test_pairs_have_another_mean_of_the_same_first_sample(config, tmp_path):
    """A method that cannot mirror its noise draws as before."""
    pairs = config.model_copy(update={"tasks": config.tasks[:1], "antithetic": True, "count": 1})
    alone = pairs.model_copy(update={"antithetic": False})
    for number, each in enumerate((pairs, alone)):
        run(each, tmp_path / str(number))
    one, other = table(tmp_path / "0"), table(tmp_path / "1")
    assert one[0]["psnr_sample"] == other[0]["psnr_sample"]
    assert one[0]["psnr"] != other[0]["psnr"]
    assert [row["psnr"] for row in one[1:]] == [row["psnr"] for row in other[1:]]
    assert "in antithetic pairs where a method can" in (tmp_path / "0" / "report.md").read_text()


def test_wavelet_sparsity_is_the_minimiser_where_that_is_known():
    """Denoising with a weight of 0 returns the data, and one of infinity nothing; between, the objective is below both's."""
    x = sample_crops(1, 32)["chelsea 1"][None]
    problem = simulate(build_operator({"name": "denoising"}, (3, 32, 32)), x, 0.1, seed=0)
    y, wavelets = problem.y, Wavelets((32, 32), x)

    def objective(z):
        return float((z - y).square().sum() / 2 + 0.02 * wavelets.forward(z).abs().sum())

    torch.testing.assert_close(WaveletSparsity(0.1, 1e-9, 20)(y, problem.physics), y, atol=1e-4, rtol=0)
    assert float(WaveletSparsity(0.1, 1e9, 20)(y, problem.physics).abs().max()) == 0
    found = WaveletSparsity(0.1, 0.2, 60)(y, problem.physics)
    assert objective(found) < min(objective(y), objective(torch.zeros_like(y)))
    strong = WaveletSparsity(0.1, 1.0, 60)(y, problem.physics)
    assert float((strong - x).square().mean()) < 0.6 * float((y - x).square().mean())


def test_sample_crops_are_different_pictures():
    crops = sample_crops(8, 48)
    assert list(crops)[3:6] == ["rocket 1", "chelsea 2", "astronaut 2"]
    assert all(crop.shape == (3, 48, 48) and crop.min() >= 0 and crop.max() <= 1 for crop in crops.values())
    assert len({crop.numpy().tobytes() for crop in crops.values()}) == 8
    for count, size in ((17, 32), (1, 152)):
        with pytest.raises(InputError, match="--data"):
            sample_crops(count, size)


@pytest.mark.parametrize("images", ["sample", "photos"])
def test_a_prior_for_grey_images_is_given_such(config, tmp_path, images, monkeypatch):
    monkeypatch.setattr("invdiff.benchmark.images.load_prior", lambda name: ForeignDenoiser(
        lambda x, sigma: x, {"name": name, "channels": {"grey": 1, "colour": 3}.get(name)}))
    if images == "photos":
        (tmp_path / "photos").mkdir()
        for i in range(2):
            Image.fromarray(np.full((36, 36, 3), (10, 200, 30), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    for priors, channels in ((("grey", "any"), 1), (("grey", "colour"), 3), (("any",), 3)):
        found = clean_images(config.model_copy(update={"images": images, "priors": priors}))
        assert [image.shape for image in found.values()] == [(channels, 32, 32)] * 2


def test_a_metric_that_cannot_be_had_is_left_out_and_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    usable, notes = usable_metrics(["psnr", "lpips", "haarpsi"], 32)
    assert usable == ["psnr", "haarpsi"]
    assert len(notes) == 1
    assert "alexnet-owt-7be5be79.pth" in notes[0]


def test_the_command_takes_a_folder_of_images(config, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    options = ["--set", "methods=[{name: tv, iterations: 2}]", "--set", "tasks=[denoise]", "--data", "photos", "-o", "out"]
    program(["benchmark", "mine.yaml", *options], standalone_mode=False)
    said = capsys.readouterr().out
    assert "denoise, tv, image 2: PSNR" in said
    assert "report.html" in said
    (made,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["runs"]
    assert "--data photos" in made["command"]
    with pytest.raises(InputError, match="expected 3 images"):
        program(["benchmark", "mine.yaml", *options[:-1], "more", "--set", "count=3"], standalone_mode=False)


def test_where_nothing_worked_the_command_fails(config, tmp_path, invdiff):
    broken = ["--set", "methods=['python:own_parts:broken']", "--set", "count=1"]
    code, _, err = invdiff("benchmark", "mine.yaml", *broken, "-o", "out")
    assert (code, "Nothing worked" in err) == (1, True)
    assert len(table(tmp_path / "out")) == 2
