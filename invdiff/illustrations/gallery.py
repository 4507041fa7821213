"""All figures by name."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from deepinv.models import Denoiser
from matplotlib.figure import Figure

from invdiff.illustrations.convergence import convergence
from invdiff.illustrations.flow_map import flow_map
from invdiff.illustrations.forward import forward
from invdiff.illustrations.guidance import guidance
from invdiff.illustrations.likelihood import likelihood
from invdiff.illustrations.losses import losses
from invdiff.illustrations.parametrisations import parametrisations
from invdiff.illustrations.reverse import reverse
from invdiff.illustrations.samplers import samplers
from invdiff.illustrations.schedules import schedules
from invdiff.illustrations.score_field import score_field
from invdiff.illustrations.sde_and_ode import sde_and_ode
from invdiff.priors import load_prior, shipped_priors

FIGURES: dict[str, Callable[..., Figure]] = {
    "forward": forward, "reverse": reverse, "score_field": score_field, "sde_and_ode": sde_and_ode, "samplers": samplers,
    "convergence": convergence, "schedules": schedules, "parametrisations": parametrisations, "losses": losses,
    "guidance": guidance, "likelihood": likelihood, "flow_map": flow_map}

_PREFERRED = ("fashion", "natural")         # of the shipped priors, for samples: whole images before patches


def draw(name: str, **options: Any) -> Figure:
    """A figure with those of the options that it takes and that are not None. "reverse" takes a shipped prior without one."""
    figure = FIGURES[name]
    given = {key: value for key, value in options.items() if value is not None and key in signature(figure).parameters}
    if name == "reverse" and "prior" not in given:
        given["prior"] = default_prior()
    return figure(**given)


def default_prior() -> Denoiser:
    """The shipped prior whose samples show most."""
    return load_prior(next(name for name in _PREFERRED if name in shipped_priors()))
