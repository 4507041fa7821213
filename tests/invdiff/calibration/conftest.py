"""A prior that is known, images of its law, and a cache of their own."""


import pytest
import torch
from gaussian_runs import SIZE

import invdiff.calibration.measuring
from invdiff.benchmark.exact import draw_gaussian, gaussian_prior
from invdiff.calibration.known import Known

IMAGES = 48


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gaussian(monkeypatch):
    """A prior that is known, under the name natural, and images of its own law."""
    prior = gaussian_prior("stationary", SIZE)
    monkeypatch.setattr(invdiff.calibration.measuring, "load_prior", lambda name: prior)
    images = draw_gaussian(prior.mean, prior.cov, IMAGES, torch.Generator().manual_seed(0)).float().reshape(-1, *SIZE)
    return Known(list(images), None, "draws of the prior")
