"""Priors of few steps in restore: the documented use, with the shipped consistency model."""

import pytest
import torch

import operators
from invdiff.config import build_sampler
from invdiff.priors import load_prior
from invdiff.restoration import restore
from invdiff.sample_config import draw, sample_config
from invdiff.simulation import simulate


@pytest.mark.parametrize("prior", ["fashion-consistency", "fashion-consistency?class=bag"])
def test_daps_restores_with_a_consistency_model(prior):
    """Images that another prior drew, a quarter of their pixels measured: far nearer than the zero-filled ones, and the
    measurement is explained, in a call a step."""
    config, source = sample_config({"prior": "fashion", "class": "bag", "count": 4, "steps": 15})
    truth = draw(config, source).images.clamp(0, 1)
    mask = (torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.25).float()
    problem = simulate(operators.Inpainting((1, 28, 28), mask), truth, 0.02)
    result = restore(problem, load_prior(prior), build_sampler({"name": "daps", "steps": 4, "sigma_min": 0.1}), samples=1)
    assert result.report["network_calls"] == 4
    assert (result.mean - truth).square().mean() < 0.15 * truth.square().mean()
    assert 0.8 < result.report["residual"]["value"] < 1.2
