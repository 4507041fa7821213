"""Priors: what images look like, as a denoiser."""

from pathlib import Path

from deepinv.models import Denoiser

from invdiff.errors import InputError
from invdiff.paths import bundled
from invdiff.priors.checkpoint import load_checkpoint, read_format
from invdiff.priors.conditional import ClassifierGuided, Guided, with_class
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.foreign import FORMATS, is_foreign, load_foreign
from invdiff.priors.latent import FORMAT as LATENT_FORMAT
from invdiff.priors.latent import LatentPrior, load_latent_prior
from invdiff.priors.names import check, join, split
from invdiff.priors.spectrum_records import calibrate, find_record, given_record, with_spectrum

__all__ = ["FORMATS", "ClassifierGuided", "EDMDenoiser", "Guided", "LatentPrior", "calibrate", "load_prior", "shipped_priors"]


def shipped_priors() -> dict[str, Path]:
    """The priors that travel with invdiff, by name."""
    return {path.stem: path for path in sorted(bundled("data", "priors").glob("*.safetensors"))}


def load_prior(name: str | Path) -> Denoiser:
    """A denoiser with a `.card`: a shipped prior by name, a file that `invdiff train` wrote, or a checkpoint of others.

    Those of others are named by format, such as "deepinv:drunet" or "guided-diffusion:ffhq_10m.pt"; docs/priors.md has them
    all. Whichever it is, the denoiser takes images in [0, 1] and sigma in the same units. An error spectrum that
    `invdiff priors calibrate` stored for this name goes with it; "NAME?spectrum=FILE" takes one from a file. A prior of
    images of several classes is one of a class as "NAME?class=3", and "&guidance=2" makes it guided.

    Raises:
        InputError: no such name or file, or a file that is no prior.
    """
    plain, options = split(str(name))
    spectrum = options.pop("spectrum", None)
    ours = plain in shipped_priors() or not is_foreign(plain)
    told: dict[str, str] = {key: options.pop(key) for key in ("class", "guidance") if ours and key in options}
    denoiser = _load(plain, options)
    record = given_record(spectrum, plain, denoiser) if spectrum else find_record(join(plain, options), denoiser)
    return with_class(with_spectrum(denoiser, record), told, plain)


def _load(plain: str, options: dict[str, str]) -> Denoiser:
    shipped = shipped_priors()
    if plain not in shipped and is_foreign(plain):
        return load_foreign(plain, options)
    check(options, ("spectrum", "class", "guidance"), plain)
    if plain in shipped or Path(plain).suffix == ".safetensors":
        path = shipped.get(plain, Path(plain))
        return load_latent_prior(path) if read_format(path) == LATENT_FORMAT else load_checkpoint(path)
    raise InputError(f"prior: no prior is called {plain!r}; shipped are {', '.join(shipped) or 'none'}, or give the path of a "
                     f".safetensors file, or a checkpoint of others as FORMAT:WHAT, such as deepinv:drunet, with one of the "
                     f"formats {', '.join(FORMATS)}")
