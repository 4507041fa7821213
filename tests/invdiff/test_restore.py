import json
import threading

import pytest
import torch
from deepinv.models import Denoiser
from toy_priors import SIZE, prior

import invdiff
import operators
from invdiff.errors import InputError
from invdiff.io.results import load_arrays
from invdiff.posterior import DAPS, DDRM, DPS, DiffPIR, MomentMatching, PiGDM, TwistedSMC
from invdiff.priors.running import in_single, in_use
from invdiff.problem import Problem
from invdiff.restoration import restore
from invdiff.simulation import simulate


def problem(sigma_y=0.05, count=1):
    physics = operators.Inpainting(SIZE, operators.random_mask(SIZE, 0.5))
    x = 0.5 + 0.2 * torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(0))
    return simulate(physics, x, sigma_y)


def test_shapes_moments_and_report():
    result = invdiff.restore(problem(count=2), prior(), MomentMatching(steps=4), samples=3, seed=5)
    assert result.samples.shape == (2, 3, *SIZE)
    assert result.samples.dtype == torch.float32
    torch.testing.assert_close(result.mean, result.samples.mean(1))
    torch.testing.assert_close(result.std, result.samples.std(1))
    levels = (0.0, 0.05, 0.5, 0.9, 1.0)
    expected = torch.quantile(result.samples, torch.tensor(levels), dim=1).movedim(0, 1)
    torch.testing.assert_close(result.quantiles(*levels), expected)
    for wrong in ((), (0.5, 1.1), (float("nan"),)):
        with pytest.raises(ValueError, match="levels from 0 to 1"):
            result.quantiles(*wrong)
    report = result.report
    assert {"sampler", "seed", "samples", "seconds", "network_calls", "operator_calls", "residual", "device", "precision",
            "versions", "error_spectrum"} <= report.keys()
    assert report["sampler"]["name"] == "MomentMatching"
    assert report["sampler"]["steps"] == 4
    assert (report["seed"], report["samples"], report["precision"]) == (5, 3, "fp32")
    assert report["residual"].keys() == {"value", "expected"}
    assert {"invdiff", "torch", "deepinv", "python"} <= report["versions"].keys()
    json.dumps(report)


@pytest.mark.parametrize(("sampler", "extra"), [(MomentMatching(steps=5), 1), (PiGDM(steps=5), 1), (DiffPIR(steps=5), 1),
                                                (DDRM(steps=5), 0), (DPS(steps=5, strength=1.0), 0)],
                         ids=lambda s: type(s).__name__)
def test_calls_are_counted_for_each_sample(sampler, extra):
    """One network call a step; those that guide a denoiser start from one estimate more."""
    seen = []

    class Spy(Denoiser):
        def forward(self, x, sigma, **kwargs):
            seen.append(len(x))
            return prior()(x, sigma)

    report = restore(problem(count=2), Spy(), sampler, samples=3, batch_size=4).report
    assert report["network_calls"] == 5 + extra == sum(seen) / 6
    assert report["operator_calls"] >= 5


def test_the_count_of_one_run_is_not_that_of_two():
    same = problem()
    first, second = (restore(same, prior(), MomentMatching(steps=4)).report["operator_calls"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("sampler", [MomentMatching(steps=3), PiGDM(steps=3), DPS(steps=3), DAPS(steps=3)],
                         ids=lambda s: type(s).__name__)
def test_how_torch_and_the_prior_are_set_changes_nothing(sampler):
    """Evaluation mode and gradients for the run, and afterwards all as it was; numbers are float32 whatever the default is."""
    class Trained(Denoiser):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5))
            self.layers[0].eval()

        def forward(self, x, sigma, **kwargs):
            return self.layers(x) / (1 + sigma**2)

    net = Trained()
    first = restore(problem(), net, sampler).samples
    posed = problem()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            second = restore(posed, net, sampler).samples
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first, second)
    assert (net.training, net.layers[0].training, net.layers[1].training) == (True, False, True)
    assert (net.layers[0].running_mean == 0).all()


def test_two_runs_at_a_time_leave_a_prior_in_evaluation_mode_until_the_last_has_ended():
    net, first_in, first_may_end, seen = torch.nn.Dropout(0.5), threading.Event(), threading.Event(), []

    def first():
        with in_use(net):
            first_in.set()
            first_may_end.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert first_in.wait(10)
    with in_use(net):
        first_may_end.set()
        thread.join(10)
        seen.append(net.training)
    assert (seen, net.training) == ([False], True)


def test_a_prior_in_double_precision_is_used_in_single_and_left_as_it_was():
    class Layers(Denoiser):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, sigma, **kwargs):
            return self.layer(x) / (1 + sigma**2)

    net = Layers()
    assert in_single(net) is net
    for known in (net, prior()):            # with parameters, with buffers alone
        single = restore(problem(), known, MomentMatching(steps=2)).samples
        double = restore(problem(), known.double(), MomentMatching(steps=2)).samples
        torch.testing.assert_close(double, single, rtol=0, atol=1e-5)
    assert net.layer.weight.dtype == torch.float64


def test_one_sample_has_no_spread():
    result = restore(problem(), prior(), MomentMatching(steps=3))
    assert result.std.shape == (1, *SIZE)
    assert (result.std == 0).all()
    torch.testing.assert_close(result.quantiles(0.1, 1.0), result.samples.expand(-1, 2, -1, -1, -1))


def test_the_residual_of_an_exact_posterior():
    """E|y - A x|^2 over samples: x = m + e, with |y - A m|^2 and tr A C A^T known. 300 samples of 32 pixels: 5 %."""
    posed = problem()
    mean, cov = prior().posterior(posed)
    seen = posed.observed().flatten()
    misfit = (posed.y - posed.physics.A(mean)).square().sum() + cov.diagonal()[seen].sum()
    exact = float((misfit / seen.sum()).sqrt()) / 0.05
    sampler = MomentMatching(steps=40, sigma_min=0.003)
    residual = restore(posed, prior(), sampler, samples=300, batch_size=300).report["residual"]
    assert residual["value"] == pytest.approx(exact, rel=0.05)
    assert residual["value"] == pytest.approx(1, abs=0.3)
    assert residual["expected"] == 1
    noiseless = restore(problem(0.0), prior(), sampler).report["residual"]
    assert noiseless["expected"] == 0
    assert noiseless["value"] < 1e-3


def test_the_residual_looks_at_what_was_measured_with_each_mask():
    masks = torch.stack([operators.random_mask(SIZE, keep) for keep in (0.25, 0.75)])
    physics = operators.Inpainting(SIZE, masks)
    y = physics.A(torch.full((2, *SIZE), 0.5))
    y[1] += 0.1 * masks[1]

    class Half(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return torch.full_like(x, 0.5) + 0 * x

    value = restore(Problem(physics, y, 0.1), Half(), DPS(steps=1), samples=2).report["residual"]["value"]
    assert value == pytest.approx((48 / (16 + 48)) ** 0.5, rel=1e-3)        # 48 pixels off by one sigma_y, 16 by none


@pytest.mark.parametrize("batch_size", [None, 2, 8])
def test_progress_counts_to_its_total(batch_size):
    seen = []
    result = restore(problem(count=3), prior(), DDRM(steps=4), samples=2, batch_size=batch_size, on_step=seen.append)
    chunks = {None: 6, 2: 3, 8: 1}[batch_size]
    assert [p.done for p in seen] == list(range(1, 4 * chunks + 1))
    assert {p.total for p in seen} == {4 * chunks}
    assert seen[-1].step.sigma == 0
    torch.testing.assert_close(seen[-1].step.x0[-1], result.samples[-1, -1])


def test_an_exception_in_on_step_ends_the_run():
    def cancel(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(problem(), prior(), DDRM(steps=4), on_step=cancel)


@pytest.mark.parametrize("bad", [{"samples": 0}, {"samples": 2.0}, {"seed": -1}, {"seed": "a"}, {"batch_size": 0},
                                 {"batch_size": 1.5}, {"precision": "fp16"}])
def test_values_out_of_range_are_input_errors(bad):
    ((name, value),) = bad.items()
    with pytest.raises(InputError, match=f"restore: expected .*{name}={value!r}"):
        restore(problem(), prior(), DDRM(steps=2), **bad)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense"])
def test_a_device_that_is_not_there_is_an_input_error(device):
    with pytest.raises(InputError, match=f"device: '{device}' is not available"):
        restore(problem(), prior(), DDRM(steps=2), device=device)


def test_values_that_are_not_finite_are_no_result():
    class Lost(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return x / 0.0

    with pytest.raises(InputError, match="MomentMatching came to values that are not finite"):
        restore(problem(), Lost(), MomentMatching(steps=2))


def test_half_precision_is_the_networks_alone():
    seen = []

    class Spy(Denoiser):
        def forward(self, x, sigma, **kwargs):
            out = torch.nn.functional.conv2d(x, torch.ones(1, 1, 1, 1))
            seen.append((x.dtype, out.dtype))
            return out

    result = restore(problem(), Spy(), DDRM(steps=2), precision="bf16", device="cpu")
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert result.samples.dtype == torch.float32
    assert result.report["precision"] == "bf16"


def test_a_result_is_saved_as_it_is(tmp_path):
    result = restore(problem(count=2), prior(), MomentMatching(steps=3), samples=2)
    result.save(tmp_path / "out")
    arrays = load_arrays(tmp_path / "out" / "result.h5")
    for name in ("samples", "mean", "std", "measurement"):
        assert torch.equal(arrays[name], getattr(result, name))
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(result.report))


def test_the_mean_of_an_antithetic_pair_is_the_posteriors_for_a_gaussian_prior():
    """Samples are affine in their noise then, and what is linear in it cancels."""
    same, sampler = problem(), MomentMatching(steps=12)
    result = restore(same, prior(), sampler, samples=4, antithetic=True, seed=1)
    first, second = result.samples[0, :2].mean(0), result.samples[0, 2:].mean(0)
    torch.testing.assert_close(first, second, atol=2e-6, rtol=0)
    assert (result.samples[0, 0] - first).std() > 0.05                      # and each is a sample all the same
    apart = restore(same, prior(), sampler, samples=2, seed=1)
    torch.testing.assert_close(result.samples[0, ::2], apart.samples[0])    # the first of each pair is one of the independent
    assert (result.report["antithetic"], apart.report["antithetic"]) == (True, False)
    alone = restore(same, prior(), sampler, samples=4, antithetic=True, seed=1, batch_size=1)
    torch.testing.assert_close(alone.samples, result.samples)
    spread = (result.samples[0] - first).square().mean(0).sqrt()
    torch.testing.assert_close(result.std[0], spread, atol=1e-5, rtol=0)


def test_a_population_has_no_pairs():
    report = restore(problem(), prior(), TwistedSMC(steps=4), samples=2, antithetic=True).report
    assert report["antithetic"] is False


@pytest.mark.parametrize("first", [True, False])
def test_a_run_in_pairs_goes_on_in_pairs_alone(tmp_path, first):
    restore(problem(), prior(), MomentMatching(steps=2), samples=2, antithetic=first, checkpoint=tmp_path / "kept")
    with pytest.raises(InputError, match="antithetic was"):
        restore(problem(), prior(), MomentMatching(steps=2), samples=4, antithetic=not first, checkpoint=tmp_path / "kept")
