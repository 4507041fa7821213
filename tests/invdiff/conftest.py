"""What tests of the command line share."""

import sys

import pytest

from invdiff.cli.main import main
from invdiff.io.images import sample_image, save_image


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory):
    """Makes the file of a tiny untrained prior: D(x, sigma) is little more than x shrunk towards `centre`."""
    def make(channels, centre):
        import torch  # the tests that need no prior load no torch for it

        from invdiff.priors import EDMDenoiser
        from invdiff.priors.checkpoint import save_prior
        from invdiff.priors.unet import UNet

        torch.manual_seed(0)
        architecture = {"channels": channels, "widths": [16, 16], "depths": [1, 1], "embedding": 16}
        network = UNet(**architecture)
        torch.nn.init.normal_(network.head.weight, std=0.01)
        path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
        preconditioning = {"sigma_data": 0.25, "centre": centre}
        card = {"architecture": architecture, "preconditioning": preconditioning, "data": "none", "licence": "none"}
        save_prior(path, EDMDenoiser(network, channels=channels, **preconditioning), card)
        return path
    return make


@pytest.fixture
def invdiff(monkeypatch, capsys):
    """Runs a command line in this process; returns its exit code, its output and its complaints."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["invdiff", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return done.value.code or 0, captured.out, captured.err
    return run


@pytest.fixture(scope="session")
def prior(tiny_prior):
    """A tiny untrained prior of photographs."""
    return tiny_prior(channels=3, centre=0.5)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with a 64 x 64 photo, truth.png."""
    from invdiff.io.images import sample_image, save_image

    monkeypatch.chdir(tmp_path)
    save_image("truth.png", sample_image(size=64))
    return tmp_path


@pytest.fixture
def restore(invdiff, prior):
    def run(*arguments, output="out"):
        return invdiff("restore", *arguments, "--prior", prior, "--output", output)
    return run


@pytest.fixture
def photo(tmp_path):
    """A 3 x 21 x 35 photo."""
    path = tmp_path / "photo.png"
    save_image(path, sample_image(size=64)[..., :21, :35])
    return path
