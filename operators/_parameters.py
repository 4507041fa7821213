"""Parameters of an operator in a call, physics(x, mask=m), as deepinv passes them: they hold for that call alone."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from deepinv.physics import Physics

C = TypeVar("C", bound=type[Physics])
T = TypeVar("T")
_METHODS = ("forward", "A", "A_adjoint", "A_adjoint_A", "A_A_adjoint", "A_dagger", "prox_l2", "noise", "U_adjoint", "V")


def also_in_calls(cls: C) -> C:
    """`cls`, whose methods, and those of classes derived from it, take by keyword what `update_parameters` names, too.

    The call is then that of an updated copy, so the operator stays what it was. Without keywords it costs next to nothing.
    """

    def init_subclass(derived: type, **kwargs: Any) -> None:
        super(cls, derived).__init_subclass__(**kwargs)  # type: ignore[arg-type]
        _wrap(derived, vars(derived))

    _wrap(cls, dir(cls))
    cls.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment]
    return cls


def _wrap(cls: type, names: Iterable[str]) -> None:
    for name in set(_METHODS).intersection(names):
        method = inspect.getattr_static(cls, name)
        if inspect.isfunction(method) and not hasattr(method, "takes_parameters"):
            setattr(cls, name, _taking_parameters(method))


def _taking_parameters(method: Callable) -> Callable:
    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if kwargs:
            self, kwargs = _updated(self, kwargs)
        return method(self, *args, **kwargs)

    call.takes_parameters = True  # type: ignore[attr-defined]
    return call


def _updated(physics: Physics, kwargs: dict[str, Any]) -> tuple[Physics, dict[str, Any]]:
    """A copy with the parameters among `kwargs`, or `physics` itself if all of them are None; and the other kwargs."""
    known = names(physics)
    given = {name: value for name, value in kwargs.items() if name in known and value is not None}
    if given:
        noise = physics.noise_model  # shared, as a copied generator would draw the same noise in each call
        buffers = {id(buffer): buffer.clone() for buffer in physics.buffers()}
        physics = copy.deepcopy(physics, {id(noise): noise, **buffers})
        physics.update_parameters(**given)
    return physics, {name: value for name, value in kwargs.items() if name not in known}


def names(physics: Physics) -> frozenset[str]:
    """The parameters that its `update_parameters` names, and those of a physics that it contains."""
    kinds = {cls for part in physics.modules() if isinstance(part, Physics) for cls in type(part).__mro__}
    return frozenset().union(*(_named(vars(cls)["update_parameters"]) for cls in kinds if "update_parameters" in vars(cls)))


@functools.cache
def _named(function: Callable) -> frozenset[str]:
    _, *parameters = inspect.signature(function).parameters.values()  # without self
    return frozenset(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)


def either_name(kernel: T | None, filter: T | None) -> T | None:
    """`kernel`, or `filter`, deepinv's name of it, whichever is not None. Raises ValueError on both."""
    if kernel is not None and filter is not None:
        raise ValueError("filter: expected None beside kernel, of which it is another name, got both")
    return filter if kernel is None else kernel
