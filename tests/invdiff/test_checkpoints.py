"""restore() with a checkpoint: killed and called again it goes on, and with no run but its own."""

import shutil

import pytest
import torch
from deepinv.models import Denoiser
from test_long_runs import QUICK, Herd
from test_restore import SIZE, prior, problem

import operators
from invdiff.diffusion.integrators import DDIM
from invdiff.errors import InputError
from invdiff.io.partial import remove_partial
from invdiff.posterior import DiffPIR, MomentMatching
from invdiff.problem import Problem
from invdiff.restoration import restore


def kill_at(done):
    def on_step(progress):
        if progress.done == done:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("sampler", [QUICK, Herd(steps=4)], ids=["chains", "population"])
def test_killed_and_called_again_the_bytes_are_those_of_an_unbroken_run(sampler, tmp_path):
    posed, place = problem(count=3), tmp_path / "deep" / "run"
    unbroken = restore(posed, prior(), sampler, samples=5, batch_size=4, checkpoint=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        restore(posed, prior(), sampler, samples=5, batch_size=4, on_step=kill_at(6), checkpoint=place)
    seen = []
    result = restore(posed, prior(), sampler, samples=5, batch_size=4, on_step=seen.append, checkpoint=place)
    assert torch.equal(result.samples, unbroken.samples)
    assert len(seen) == 4 * ((4 if sampler is QUICK else 3) - 1)      # one chunk was there
    same = ("network_calls", "operator_calls", "residual", "samples", "sampler", "error_spectrum", "info")
    assert {k: result.report.get(k) for k in same} == {k: unbroken.report.get(k) for k in same}
    again = []
    assert torch.equal(restore(posed, prior(), sampler, samples=5, on_step=again.append, checkpoint=place).samples,
                       unbroken.samples)
    assert not again                                                  # nothing was left to do


def test_killed_before_a_chunk_is_finished_nothing_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(problem(), prior(), QUICK, on_step=kill_at(3), checkpoint=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_more_samples_can_be_asked_for_later(tmp_path):
    restore(problem(), prior(), QUICK, samples=2, checkpoint=tmp_path / "run")
    seen = []
    more = restore(problem(), prior(), QUICK, samples=3, checkpoint=tmp_path / "run", on_step=seen.append)
    assert torch.equal(more.samples, restore(problem(), prior(), QUICK, samples=3).samples)
    assert len(seen) == 4
    assert restore(problem(), prior(), QUICK, samples=1, checkpoint=tmp_path / "run").samples.shape[1] == 1


@pytest.mark.parametrize(("change", "said"), [
    ({"sampler": MomentMatching(steps=5)}, "sampler.steps was 4, now 5"),
    ({"sampler": DiffPIR(steps=4)}, "sampler.name was MomentMatching, now DiffPIR"),
    ({"sampler": MomentMatching(steps=4, integrator=DDIM(eta=1.0))}, "sampler.integrator.name was DPMSolverPP, now DDIM"),
    ({"seed": 1}, "seed was 0, now 1"),
    ({"precision": "bf16"}, "precision was fp32, now bf16"),
    ({"prior": prior(0.3)}, "the prior differs"),
    ({"problem": problem(0.05, count=2)}, "the measurement differs"),
    ({"problem": problem(0.06)}, "sigma_y was 0.05, now 0.06"),
    ({"problem": Problem(operators.GaussianBlur(SIZE, sigma=0.5), problem().y, 0.05)}, "the operator differs"),
    ({"start": torch.zeros(SIZE)}, "the start differs"),
])
def test_a_checkpoint_of_another_run_is_refused_and_kept(change, said, tmp_path):
    place = tmp_path / "run"
    arguments = {"problem": problem(), "prior": prior(), "sampler": QUICK}
    restore(**arguments, checkpoint=place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(InputError, match=f"run: holds 1 finished parts of another run .*{said}"):
        restore(**{**arguments, **change}, checkpoint=place)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


class Surer(Denoiser):
    """The prior with another word on its errors."""

    def __init__(self):
        super().__init__()
        self.prior = prior()

    def forward(self, x, sigma, **kwargs):
        return self.prior(x, sigma)

    def error_spectrum(self, channels):
        known = self.prior.error_spectrum(channels)
        return type("Halved", (), {"source": "", "at": lambda self, *where: known.at(*where) / 2})()


@pytest.mark.parametrize(("before", "now", "said"), [
    ({"start": torch.zeros(SIZE)}, {}, "the start differs"),
    ({}, {"prior": Surer()}, "the error spectrum differs"),
])
def test_a_run_does_not_go_on_by_another_law(before, now, said, tmp_path):
    sampler = QUICK.model_copy(update={"start_sigma": 0.5})
    arguments = {"problem": problem(), "prior": prior(), "sampler": sampler, "checkpoint": tmp_path / "run"}
    restore(**arguments, **before)
    with pytest.raises(InputError, match=said):
        restore(**{**arguments, **now}, samples=2)


def test_the_number_of_samples_is_part_of_a_population(tmp_path):
    restore(problem(), prior(), Herd(steps=1), samples=2, checkpoint=tmp_path / "run")
    with pytest.raises(InputError, match="samples was 2, now 3"):
        restore(problem(), prior(), Herd(steps=1), samples=3, checkpoint=tmp_path / "run")


@pytest.mark.parametrize("name", ["run.safetensors", "part-000000.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no such file", None])
def test_a_damaged_checkpoint_is_refused(name, content, tmp_path):
    place = tmp_path / "run"
    restore(problem(), prior(), QUICK, checkpoint=place)
    (place / name).write_bytes((place / name).read_bytes()[:-5] if content is None else content)
    with pytest.raises(InputError, match=f"{name}: is no part of a run under way, or damaged"):
        restore(problem(), prior(), QUICK, checkpoint=place)


def test_other_files_are_no_checkpoint_and_are_kept(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").write_bytes(b"x")
    (tmp_path / "notes").write_text("keep me")
    for name in ("photos", "notes"):
        with pytest.raises(InputError, match=f"{name}.*: is no part of a run under way"):
            restore(problem(), prior(), QUICK, checkpoint=tmp_path / name)
        remove_partial(tmp_path / name)
    assert (tmp_path / "photos" / "holiday.png").exists()
    assert (tmp_path / "notes").exists()


def test_a_checkpoint_that_was_killed_while_it_was_written_serves_and_goes_away(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / ".run.safetensors.17-ab").write_bytes(b"half")
    restore(problem(), prior(), QUICK, checkpoint=place)
    shutil.copy(place / "run.safetensors", place / ".part-000001.safetensors.18-cd")
    remove_partial(place)
    remove_partial(place)
    assert not place.exists()


# warm start
