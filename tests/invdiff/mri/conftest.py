"""What tests of scans share: a tiny prior of complex images, and a command line that uses it."""

import pytest


@pytest.fixture(scope="session")
def complex_prior(tiny_prior):
    """A tiny untrained prior of complex images."""
    return tiny_prior(channels=2, centre=0.0)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def restore(invdiff, complex_prior, work):
    """`invdiff restore --task mri` in an empty working folder, 2 steps and 1 sample on the scan's grid unless told
    otherwise."""
    def run(*arguments, steps=2, samples=1, output="out"):
        return invdiff("restore", "--task", "mri", "--prior", complex_prior, "--steps", steps, "--samples", samples,
                       "--output", output, "--set", "operator.grid=0", *arguments)
    return run
