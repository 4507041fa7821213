import json

import pytest
import torch
from deepinv.models import Denoiser

from invdiff.baselines.namesakes import namesake, sample_with_deepinv
from invdiff.benchmark.exact import SPREAD, Plan, draw_gaussian, gaussian_prior, gaussians, moment_errors
from invdiff.benchmark.exact_tables import save, tables, to_markdown
from invdiff.cli.main import program
from invdiff.errors import InputError
from invdiff.evaluation.mixtures import SCALE, mixture_case, sliced_wasserstein

RECORD = {
    "made": {"command": "invdiff benchmark exact", "samples": 10, "problems": 2, "versions": {"invdiff": "0"}},
    "gaussian": {"exact draws": {"prior": "stationary", "steps": None, "blur, 0.1": [0.1, 0.26]},
                 "ddrm": {"prior": "rough", "steps": 20, "blur, 0.1": [0.5, 1.0]}},
    "mixtures": {"prior": {"8,1": [9.0, 11.0], "80,4": [14.0, 14.0]}},
}


@pytest.mark.parametrize("kind", ["white", "stationary", "rough"])
def test_the_priors_have_the_spread(kind):
    prior = gaussian_prior(kind, (2, 3, 4))
    assert abs(float(prior.cov.diagonal().mean()) - SPREAD**2) < 1e-6
    assert (prior.power is None) == (kind == "rough")


def test_errors_of_moments():
    """Of exact draws: sqrt(1 / n) and sqrt((tr(C)^2 + |C|^2) / n) / |C|; and 1 and 3 of a mean off by its spread, and 4 C."""
    prior = gaussian_prior("rough", (1, 3, 4))
    mean, cov = prior.mean.double(), prior.cov.double()
    x = draw_gaussian(prior.mean, prior.cov, 20_000, torch.Generator().manual_seed(0))
    expected = float(((cov.trace() ** 2 + cov.norm() ** 2) / 20_000).sqrt() / cov.norm())
    error = moment_errors(x, mean, cov)
    assert 0.3 * 20_000**-0.5 < error[0] < 2 * 20_000**-0.5
    assert 0.5 * expected < error[1] < 1.5 * expected
    shifted = mean.flatten() + 2 * (x - mean.flatten()) + (cov.trace() / 12).sqrt()
    error = moment_errors(shifted, mean, cov)
    assert abs(error[0] - 1) < 0.05
    assert abs(error[1] - 3) < 4 * 1.5 * expected


def test_exact_samplers_are_as_good_as_exact_draws():
    """TwistedSMC on its row's prior: a mean within three standard errors, and 15 % of a covariance for 40 steps."""
    record = {}
    assert "Gaussian, exact draws" in list(gaussians(Plan(["twisted_smc"], samples=200, steps=40, noises=(0.1,)), record))
    floor, ours = record["exact draws"], record["twisted_smc (exact)"]
    for key in ("random, 0.1", "blur, 0.1", "mask, 0.1", "MRI, 0.1"):
        assert ours[key][0] < 3 / 200**0.5
        assert ours[key][1] < 1.5 * floor[key][1] + 0.15


@pytest.mark.parametrize("name", ["ddrm", "diffpir", "dps"])
def test_deepinv_s_samplers_run_beside_ours(name):
    """From the prior towards the data, with the global generator left as it was, and the same draws for a seed, 0 too."""
    case = mixture_case(8, 4, 0)
    before = torch.get_rng_state()
    x = sample_with_deepinv(name, case.prior, case.problem, 50, seed=0, steps=50)
    assert torch.equal(torch.get_rng_state(), before)
    assert x.shape == (50, 1, 1, 8)
    assert x.isfinite().all()
    assert torch.equal(sample_with_deepinv(name, case.prior, case.problem, 50, seed=0, steps=50), x)
    assert not torch.equal(sample_with_deepinv(name, case.prior, case.problem, 50, seed=1, steps=50), x)
    exact = case.prior.sample_posterior(case.problem, 50, torch.Generator().manual_seed(0))[0].flatten(1) * SCALE
    assert sliced_wasserstein(x.flatten(1) * SCALE, exact) > 0.3


def test_the_tables_say_what_the_record_does():
    gaussian, distances = tables(RECORD)
    assert gaussian.title == "Gaussian priors: blur"
    assert gaussian.note.startswith("In 20 steps, to a last level of 0.0005, ")
    assert gaussian.head == ["sampler", "mean 0.1", "cov 0.1"]
    assert gaussian.rows == [["exact draws", "0.10", "0.26"], ["ddrm, rough", "0.50", "1.00"]]
    assert distances.head == ["sampler", "(8,1)", "(80,4)"]
    assert distances.rows == [["prior", "10.00 (1.00)", "14.00 (0.00)"]]
    text = to_markdown(RECORD)
    assert "| ddrm, rough | 0.50 | 1.00 |" in text


def command(*assignments, output):
    return program(["benchmark", "exact", *(part for one in assignments for part in ("--set", one)), "--output", str(output)],
                   standalone_mode=False)


def test_the_command_prints_and_saves(tmp_path, capsys):
    command("quick=true", "samplers=[moment_matching, ddrm]", output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "sliced Wasserstein" in printed
    record = json.loads((tmp_path / "out" / "exact.json").read_text(encoding="utf-8"))
    assert set(record["mixtures"]) == {"exact draws (floor)", "prior", "moment_matching (exact), 10 steps",
                                       "moment_matching (exact), eta 5, 10 steps", "ddrm, 10 steps", "deepinv ddrm, 10 steps"}
    assert "invdiff benchmark exact --set quick=true" in (tmp_path / "out" / "exact.md").read_text(encoding="utf-8")


def test_a_stopped_run_goes_on_and_another_plan_s_is_refused(tmp_path, capsys):
    settings = ("quick=true", "samplers=[moment_matching, ddrm]")
    command(*settings, output=tmp_path)
    whole = json.loads((tmp_path / "exact.json").read_text(encoding="utf-8"))
    part = json.loads(json.dumps(whole))
    del part["gaussian"]["ddrm"]
    for row in part["mixtures"].values():
        del row["8,2"]
    part["gaussian"]["exact draws"]["random, 0.1"] = [7.0, 7.0]             # kept, and so not drawn anew
    save(part, tmp_path / "exact.json")
    capsys.readouterr()
    command(*settings, output=tmp_path)
    done = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": done")]
    assert done == ["Gaussian, ddrm: done", "mixture, d = 8, m = 2: done"]
    whole["gaussian"]["exact draws"]["random, 0.1"] = [7.0, 7.0]
    assert json.loads((tmp_path / "exact.json").read_text(encoding="utf-8")) == whole
    with pytest.raises(InputError, match=r"exact\.json: holds the results of another benchmark"):
        command(*settings, "samples=50", output=tmp_path)
    with pytest.raises(InputError, match=r"exact\.json: holds the results of another benchmark"):       # not quick, as small
        command("problems=1", "samples=100", "steps=10", settings[1], output=tmp_path)
    (tmp_path / "exact.json").write_text("{}")
    with pytest.raises(InputError, match=r"exact\.json: is no record of a benchmark"):
        command(*settings, output=tmp_path)


@pytest.mark.parametrize(("assignment", "said"), [
    ("problems=0", "problems"), ("samples=1", "samples"), ("steps=0", "steps"), ("samplers=[]", "samplers"),
    ("samplers=[ddrm, drrm]", r"unknown name 'drrm'.*ddrm"),
    ("samplers=[ddrm, psld]", "psld draws latents"), ("sample=10", "unknown key 'sample'; did you mean 'samples'")])
def test_the_command_s_settings_are_checked_first(assignment, said, tmp_path):
    with pytest.raises(InputError, match=said):
        command(assignment, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_takes_no_images_no_workers_and_no_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        command(output=tmp_path / "file")
    with pytest.raises(InputError, match="takes no images"):
        program(["benchmark", "exact", "--data", str(tmp_path)], standalone_mode=False)
    with pytest.raises(InputError, match="--workers: the benchmark exact runs in one process"):
        program(["benchmark", "exact", "--workers", "2", "-o", str(tmp_path / "out")], standalone_mode=False)


def test_dps_keeps_its_noise_levels_where_the_denoiser_is():
    model = namesake("dps", Away(), 0.1, 5)
    assert {model.solver.timesteps.device, torch.device(model.sde.device)} == {torch.device("meta")}


class Away(Denoiser):
    """On a device that is not the default one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))
