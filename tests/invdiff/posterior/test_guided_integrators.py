"""Every integrator that a config can name runs on a guided denoiser, and samples the posterior."""

import pytest
import torch
from deepinv.physics import LinearPhysics
from toys import assert_moments_close, natural_prior, pose, sample, white_prior

import operators
from invdiff.config import PARTS, SAMPLERS, build_sampler, describe
from invdiff.errors import InputError
from invdiff.posterior import DAPS, DDNM, DPS, ILVR, MomentMatching, PiGDM
from invdiff.problem import Problem
from invdiff.restoration import restore

NAMES = list(PARTS["integrator"])
# integrator, steps, what they leave of a covariance
ACCURATE = [("ddpm", 120, 0.12), ("heun", 30, 0.04), ("dpm_solver", 20, 0.04), ("dpmpp_2s", 30, 0.04), ("dpmpp_3m", 40, 0.04),
            ("edm_stochastic", 60, 0.06), ("euler_maruyama", 100, 0.1), ("predictor_corrector", 60, 0.1),
            ({"name": "langevin", "inner_steps": 8}, 50, 0.1)]


@pytest.mark.parametrize(("integrator", "steps", "discretisation"), ACCURATE)
def test_samples_the_posterior(integrator, steps, discretisation):
    prior = natural_prior()
    problem = pose("super-resolution", prior, 0.05)
    sampler = build_sampler({"name": "moment_matching", "steps": steps, "sigma_min": 0.003, "sigma_max": 2.0,
                             "integrator": integrator})
    assert_moments_close(sample(sampler, prior, problem, 500), *prior.posterior(problem), discretisation=discretisation)


@pytest.mark.parametrize("name", ["rk45", "dpm_solver_adaptive"])
def test_adaptive_steps_end_where_the_flow_does(name):
    """From the same start, to about ten times the tolerance."""
    prior = natural_prior()
    problem = pose("super-resolution", prior, 0.05)
    spec = {"name": "moment_matching", "steps": 100, "sigma_min": 0.003, "integrator": "heun"}
    fine = sample(build_sampler(spec), prior, problem, 3)
    adaptive = spec | {"steps": 2, "integrator": {"name": name, "rtol": 1e-3, "atol": 1e-3}}
    torch.testing.assert_close(sample(build_sampler(adaptive), prior, problem, 3), fine, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_names_it_and_restore_takes_it(name):
    """Bitwise whatever is drawn beside, and to rounding whatever the batch is."""
    sampler = build_sampler({"name": "moment_matching", "steps": 6, "integrator": name})
    assert build_sampler(describe(sampler)) == sampler
    prior = natural_prior()
    problem = pose("inpainting", prior, 0.05, count=2)
    three = restore(problem, prior, sampler, samples=3, device="cpu")
    assert three.samples.dtype == torch.float32
    assert torch.equal(restore(problem, prior, sampler, samples=3, device="cpu", batch_size=1).samples, three.samples)
    assert torch.equal(restore(problem, prior, sampler, samples=1, device="cpu").samples, three.samples[:, :1])
    four = restore(problem, prior, sampler, samples=3, batch_size=4)
    torch.testing.assert_close(four.samples, three.samples, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["rk45", "dpm_solver_adaptive"])
@pytest.mark.parametrize("kind", [MomentMatching, PiGDM, DDNM, DPS, DAPS, ILVR])
def test_adaptive_steps_with_every_kind_of_rule(kind, name):
    """Also those that need a level for the whole batch, and those that go one interval at a time."""
    integrator = PARTS["integrator"][name]()
    prior = white_prior()
    problem = pose("inpainting", prior, 0.0 if kind is DDNM else 0.05)
    *_, last = kind(steps=4, integrator=integrator).steps(prior, problem, [0, 1, 2])
    *_, alone = kind(steps=4, integrator=integrator).steps(prior, problem, [1])
    torch.testing.assert_close(alone.x0[0], last.x0[1], rtol=0, atol=1e-5)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", [name for name, kind in SAMPLERS.items() if not kind.latents])
def test_a_sampler_uses_the_integrator_that_it_takes(name, monkeypatch):
    """A wish that has no effect is refused."""
    spec = {"name": name, "steps": 3, "integrator": "heun"}
    if not SAMPLERS[name].integrates:
        with pytest.raises(InputError, match="goes from level to level in a way of its own; leave it out"):
            build_sampler(spec)
        return

    def used(*_):
        raise InterruptedError

    monkeypatch.setattr(PARTS["integrator"]["heun"], "__call__", used)
    problem = pose("inpainting", white_prior(), 0.0 if SAMPLERS[name] is DDNM else 0.05)
    with pytest.raises(InterruptedError):
        list(build_sampler(spec).steps(white_prior(), problem, [0]))


def test_ddnm_of_noisy_data_takes_no_integrator():
    problem = pose("inpainting", white_prior(), 0.1)
    with pytest.raises(InputError, match="integrator: DDNM with sigma_y > 0 goes from level to level in a way of its own"):
        next(build_sampler({"name": "ddnm", "integrator": "heun"}).steps(white_prior(), problem, [0]))


def test_adaptive_steps_take_no_operator_with_parameters_of_each():
    size = (1, 8, 8)
    masks = torch.stack([operators.random_mask(size, 0.5, s) for s in (0, 1)])
    posed = Problem(operators.Inpainting(size, masks), torch.rand(2, *size), 0.05)
    sampler = build_sampler({"name": "moment_matching", "integrator": {"name": "rk45"}})
    with pytest.raises(InputError, match="RK45 takes one measurement at a time, and this Inpainting has parameters of its own"):
        restore(posed, natural_prior(), sampler)


def test_adaptive_steps_take_as_many_chains_as_a_shared_filter_has_rows():
    physics = LinearPhysics(A=lambda x, **kwargs: x, A_adjoint=lambda y, **kwargs: y, img_size=(1, 8, 8))
    physics.register_buffer("filter", torch.ones(3, 3, 1, 1))
    posed = Problem(physics, torch.rand(1, 1, 8, 8), 0.05)
    sampler = build_sampler({"name": "moment_matching", "steps": 2, "integrator": {"name": "rk45"}})
    assert restore(posed, natural_prior(), sampler, samples=3, batch_size=3).samples.isfinite().all()


def test_network_calls_of_adaptive_steps_are_counted():
    prior, sampler = natural_prior(), build_sampler({"name": "moment_matching", "steps": 6, "integrator": "rk45"})
    report = restore(pose("blur", prior, 0.05), prior, sampler, samples=3, device="cpu", batch_size=3).report
    assert report["network_calls"] == pytest.approx(report["info"]["calls"] + 1)    # and the estimate that a chain begins with
