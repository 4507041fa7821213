"""restore() when memory is short, when it is stopped or killed, and when it goes on; and where chains begin."""

import shutil
from typing import ClassVar

import pytest
import torch
from deepinv.models import Denoiser
from test_restore import SIZE, prior, problem

import operators
from invdiff import Stop
from invdiff.config import build_sampler
from invdiff.diffusion.integrators import Step
from invdiff.errors import InputError
from invdiff.io.partial import remove_partial
from invdiff.posterior import DDRM, DPS, DiffPIR, MomentMatching, PiGDM, Sampler
from invdiff.problem import Problem, simulate
from invdiff.restoration import restore

QUICK = MomentMatching(steps=4)


class Limited(Denoiser):
    """A prior for which memory ends at so many images; it notes the batches that fitted."""

    def __init__(self, most, fail):
        super().__init__()
        self.most, self.fail, self.batches = most, fail, []

    def forward(self, x, sigma, **kwargs):
        if len(x) > self.most:
            self.fail()
        self.batches.append(len(x))
        return prior()(x, sigma)


def cuda():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def cpu():
    torch.empty(2**60, dtype=torch.uint8)       # the allocator's own words


class Herd(Sampler):
    """A population that notes what it is asked for: all of its chains are the mean of their noise."""

    population: ClassVar[bool] = True
    calls: ClassVar[list] = []

    def steps(self, prior, problem, seeds):
        self.calls.append((len(problem.y), len(seeds)))
        noise = torch.stack([torch.randn(problem.image_shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        x = prior(noise.mean(0, keepdim=True).expand(len(seeds), *problem.image_shape), 0.1)
        for k in range(self.num_steps):
            yield Step(0.0, x, x, {"number": k, "evidence": float(problem.y[0].mean())})


# memory

@pytest.mark.parametrize("fail", [cuda, cpu])
def test_short_of_memory_the_chunk_is_halved_and_the_samples_are_the_same(fail):
    posed, limited = problem(count=2), Limited(2, fail)
    seen = []
    short = restore(posed, limited, QUICK, samples=5, batch_size=8, on_step=seen.append)
    ample = restore(posed, Limited(2, fail), QUICK, samples=5, batch_size=2)
    assert set(limited.batches) == {2}
    assert torch.equal(short.samples, ample.samples)
    for name in ("network_calls", "operator_calls"):                  # of the samples, not of what was tried
        assert short.report[name] == ample.report[name]
    assert (seen[-1].done, seen[-1].total) == (20, 20)


@pytest.mark.parametrize("fail", [cuda, cpu])
def test_a_chain_too_large_for_memory_is_one_sentence(fail):
    with pytest.raises(InputError, match="memory: a single chain does not fit; take a smaller image"):
        restore(problem(), Limited(0, fail), QUICK, samples=3, batch_size=2)


def test_a_population_too_large_for_memory_is_one_sentence():
    with pytest.raises(InputError, match="memory: 6 chains do not fit, and Herd needs all samples of a measurement at once"):
        restore(problem(), Limited(5, cuda), Herd(steps=1), samples=6)


def test_other_runtime_errors_are_let_through():
    def other():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        restore(problem(), Limited(1, other), QUICK, samples=2, batch_size=2)


# populations

def test_a_population_gets_all_chains_of_one_measurement_and_its_info_is_reported():
    Herd.calls.clear()
    posed = problem(count=3)
    result = restore(posed, prior(), Herd(steps=2), samples=5, batch_size=2)
    assert Herd.calls == [(5, 5)] * 3
    assert [info["evidence"] for info in result.report["info"]] == pytest.approx(posed.y.flatten(1).mean(1).tolist())
    assert {info["number"] for info in result.report["info"]} == {1}          # the last step's
    assert restore(problem(), prior(), Herd(steps=2)).report["info"]["number"] == 1
    assert "info" not in restore(problem(), prior(), QUICK).report


def test_a_population_refuses_an_operator_with_parameters_for_each_measurement():
    physics = operators.Inpainting(SIZE, torch.stack([operators.random_mask(SIZE, keep) for keep in (0.25, 0.75)]))
    posed = simulate(physics, torch.full((2, *SIZE), 0.5), 0.1)
    with pytest.raises(InputError, match="Herd takes one measurement at a time, and this Inpainting"):
        restore(posed, prior(), Herd(steps=1))


# early stop

def stop_at(done):
    def on_step(progress):
        if progress.done == done:
            raise Stop

    return on_step


@pytest.mark.parametrize(("done", "finished"), [(8, 1), (11, 1), (16, 2), (23, 2)])
def test_stopped_early_what_every_measurement_has_is_returned(done, finished):
    """Two measurements, chain by chain in 4 steps: sample 0 of both takes 8."""
    posed = problem(count=2)
    result = restore(posed, prior(), QUICK, samples=4, on_step=stop_at(done))
    whole = restore(posed, prior(), QUICK, samples=4)
    assert torch.equal(result.samples, whole.samples[:, :finished])
    assert (result.report["samples"], result.report["samples_asked"]) == (finished, 4)
    assert result.report["network_calls"] == whole.report["network_calls"]
    assert (whole.report["samples"], whole.report["samples_asked"]) == (4, 4)


def test_stopped_before_anything_is_finished_there_is_no_result():
    with pytest.raises(Stop):
        restore(problem(count=2), prior(), QUICK, on_step=stop_at(7))


# checkpoints

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
    arguments = {"problem": problem(), "prior": prior(), "sampler": QUICK, "checkpoint": tmp_path / "run"}
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

def test_from_an_estimate_the_chain_begins_at_its_level():
    """With a level far above the estimate's error, the samples have the posterior's moments; from one far below it, they
    keep the estimate's error."""
    posed = problem(0.2)
    mean, cov = prior().posterior(posed)
    arguments = {"samples": 400, "batch_size": 400, "start": torch.full(SIZE, 0.8)}
    seen = []
    high = restore(posed, prior(), MomentMatching(steps=40, start_sigma=2.5), on_step=seen.append, **arguments)
    assert 1.5 < seen[0].step.sigma < 2.5
    assert len(seen) == 40
    deviation = cov.trace().div(400).sqrt()
    assert (high.mean[0] - mean).norm() < 3 * deviation
    low = restore(posed, prior(), MomentMatching(steps=40, start_sigma=0.05), **arguments)
    assert (low.mean[0] - mean).norm() > 0.5 * (torch.full(SIZE, 0.8) - mean).norm()
    assert high.report["network_calls"] == 40                        # the estimate costs none


def test_without_an_estimate_a_guided_call_from_noise_makes_one():
    posed = problem(0.2)
    mean, _ = prior().posterior(posed)
    result = restore(posed, prior(), MomentMatching(steps=20, start_sigma=0.4), samples=400, batch_size=400)
    assert result.report["network_calls"] == 21
    assert (result.mean[0] - mean).square().mean().sqrt() < 0.02
    config = {"name": "moment_matching", "steps": 20, "start_sigma": 0.4}
    assert build_sampler(config) == MomentMatching(steps=20, start_sigma=0.4)


def test_samplers_that_begin_from_noise_alone_say_so():
    with pytest.raises(ValueError, match="DPS cannot begin from an estimate"):
        DPS(steps=2, start_sigma=0.5)
    with pytest.raises(InputError, match="DDRM cannot begin from an estimate"):
        restore(problem(), prior(), DDRM(steps=2), start=torch.zeros(SIZE))
    with pytest.raises(ValueError, match=r"start_sigma: expected a level above sigma_min = 0.01 and up to sigma_max = 5"):
        MomentMatching(start_sigma=6.0)
    with pytest.raises(InputError, match=r"start: expected finite estimates \(1, 1, 8, 8\) or \(1, 8, 8\), got \(8, 8\)"):
        restore(problem(), prior(), QUICK, start=torch.zeros(8, 8))


# counting

@pytest.mark.parametrize(("sampler", "gradients"), [(QUICK, 0), (PiGDM(steps=4), 5), (DPS(steps=4, strength=1.0), 4),
                                                    (MomentMatching(steps=4, covariance="low-rank", rank=2), 10)])
def test_jacobian_products_are_counted(sampler, gradients):
    report = restore(problem(count=2), prior(), sampler, samples=3, batch_size=2).report
    assert report["network_gradients"] == gradients


def test_products_with_the_jacobian_count_forwards_and_backwards():
    """The exact covariance, by conjugate gradients: one J^T u to linearise, and a J v and a J^T v for each iteration."""
    physics = operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.75))
    posed = simulate(physics, torch.full((1, *SIZE), 0.5), 0.05)
    sampler = MomentMatching(steps=2, covariance="exact", cg_iterations=1, cg_tolerance=1e-9)
    gradients = restore(posed, prior(), sampler).report["network_gradients"]
    assert gradients == 3 * (1 + 2 + 2) + 2 * 2         # 3 solves and their last product; 2 begin with that of a start
