"""What tests of scans share: a tiny prior of complex images, and a command line that uses it."""

import pytest
import torch

from invdiff.priors import EDMDenoiser
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.unet import UNet


@pytest.fixture(scope="session")
def complex_prior(tmp_path_factory):
    """A tiny untrained prior of complex images: D(x, sigma) is little more than x shrunk towards zero."""
    torch.manual_seed(0)
    architecture = {"channels": 2, "widths": [16, 16], "depths": [1, 1], "embedding": 16}
    network = UNet(**architecture)
    torch.nn.init.normal_(network.head.weight, std=0.01)
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    preconditioning = {"sigma_data": 0.25, "centre": 0.0}
    card = {"architecture": architecture, "preconditioning": preconditioning, "data": "none", "licence": "none"}
    save_prior(path, EDMDenoiser(network, **preconditioning), card)
    return path


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def restore(invdiff, complex_prior, work):
    """`invdiff restore --task mri` in an empty working folder, 2 steps and 1 sample unless told otherwise."""
    def run(*arguments, steps=2, samples=1, output="out"):
        return invdiff("restore", "--task", "mri", "--prior", complex_prior, "--steps", steps, "--samples", samples,
                       "--output", output, *arguments)
    return run
