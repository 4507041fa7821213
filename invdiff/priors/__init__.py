"""Priors: what images look like, as a denoiser."""

from pathlib import Path

from invdiff.errors import InputError
from invdiff.paths import bundled
from invdiff.priors.calibrated import calibrate
from invdiff.priors.checkpoint import load_checkpoint
from invdiff.priors.denoiser import EDMDenoiser

__all__ = ["EDMDenoiser", "calibrate", "load_prior", "shipped_priors"]


def shipped_priors() -> dict[str, Path]:
    """The priors that travel with invdiff, by name."""
    return {path.stem: path for path in sorted(bundled("data", "priors").glob("*.safetensors"))}


def load_prior(name: str | Path) -> EDMDenoiser:
    """A denoiser with a `.card`: a shipped prior by name, or a file that `invdiff train` wrote.

    Raises:
        InputError: no such name or file, or a file that is no prior.
    """
    shipped = shipped_priors()
    if str(name) in shipped:
        return load_checkpoint(shipped[str(name)])
    if Path(name).suffix == ".safetensors":
        return load_checkpoint(name)
    raise InputError(f"prior: no prior is called {str(name)!r}; shipped are {', '.join(shipped) or 'none'}, "
                     "or give the path of a .safetensors file")
