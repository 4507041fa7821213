"""invdiff: image restoration from degraded or incomplete measurements, with diffusion priors.

    problem = invdiff.Problem(physics, y, sigma_y=0.02)
    prior = invdiff.load_prior("natural")
    result = invdiff.restore(problem, prior, MomentMatching(), samples=8)

Names load on first use, and modules such as `invdiff.interop`, so that importing the package stays cheap.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invdiff.assessing import assess
    from invdiff.errors import InputError
    from invdiff.priors import load_prior
    from invdiff.problem import Problem
    from invdiff.restoration import Stop, restore
    from invdiff.result import Result
    from invdiff.simulation import simulate

__version__ = "0.7.0"
__all__ = ["InputError", "Problem", "Result", "Stop", "assess", "load_prior", "restore", "simulate"]

_HOME = {"assess": "assessing", "InputError": "errors", "Problem": "problem", "Result": "result", "load_prior": "priors",
         "Stop": "restoration", "restore": "restoration", "simulate": "simulation"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"invdiff.{_HOME[name]}"), name)
    if not name.startswith("_") and find_spec(f"invdiff.{name}"):
        return import_module(f"invdiff.{name}")
    raise AttributeError(f"module 'invdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
