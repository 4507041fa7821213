"""restore() when memory is short and when it is stopped; where chains begin, and what of them is counted."""

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
from invdiff.posterior import DDRM, DPS, MomentMatching, PiGDM, Sampler
from invdiff.restoration import restore
from invdiff.simulation import simulate

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
    with pytest.raises(InputError, match=r"take sampler.covariance=local, which .* gradients .*, a smaller image"):
        restore(problem(), Limited(0, fail), MomentMatching(steps=2, covariance="low-rank"))


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


class Miscounting(Sampler):
    """Gives `given` steps, whatever it is asked for."""

    given: int

    def steps(self, prior, problem, seeds):
        x = problem.A_adjoint(problem.y)
        for _ in range(self.given):
            yield Step(0.0, x, x)


@pytest.mark.parametrize(("given", "said"), [(0, "0"), (3, "3"), (9, "more")])
def test_a_sampler_of_another_number_of_steps_than_it_says_is_named(given, said):
    seen = []
    with pytest.raises(InputError, match=rf"Miscounting\.steps gave {said} steps; expected .* its num_steps, 4"):
        restore(problem(), prior(), Miscounting(steps=4, given=given), on_step=seen.append)
    assert len(seen) == min(given, 4)


# checkpoints

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
    with pytest.raises(InputError, match=r"start: has no effect from the highest level; .*start_sigma=0.5"):
        restore(problem(), prior(), QUICK, start=torch.zeros(SIZE))
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
