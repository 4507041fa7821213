"""Time and memory of an operator's calls by several implementations that take turns."""

import ctypes
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from deepinv.physics import LinearPhysics

Call = Callable[[], object]
Result = TypeVar("Result")
Calls = dict[str, Call]                         # by operation
OPERATIONS = ("A", "A_adjoint", "A_adjoint_A", "prox_l2", "espirit")
OURS = "invdiff"


@dataclass(frozen=True)
class Case:
    """One operator at one size, by several implementations: name -> what makes the calls to be timed."""

    name: str
    make: Mapping[str, Callable[[], Calls]]


@dataclass(frozen=True)
class Cost:
    """Median seconds of a call, and bytes above what was in use before it."""

    seconds: float
    memory: int


def calls_of(physics: LinearPhysics, seed: int = 0) -> Calls:
    """The four operations of a deepinv physics, on one white image; the proximal step for data and image of equal weight."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, *physics.img_size, generator=generator)
    y, v = physics.A(x), x
    for _ in range(5):      # power iterations: implementations differ in the scale of A, and CG's work grows with gamma |A|^2
        v = physics.A_adjoint_A(v / v.norm())
    gamma = 1 / float(v.norm())
    return {"A": lambda: physics.A(x), "A_adjoint": lambda: physics.A_adjoint(y),
            "A_adjoint_A": lambda: physics.A_adjoint_A(x), "prox_l2": lambda: physics.prox_l2(x, y, gamma)}


def measure(case: Case, seconds: float = 1.0) -> dict[str, dict[str, Cost]]:
    """{implementation: {operation: cost}}, about `seconds` for each of them."""
    made = {name: make() for name, make in case.make.items()}
    costs: dict[str, dict[str, Cost]] = {name: {} for name in made}
    for operation in OPERATIONS:
        calls = {name: calls[operation] for name, calls in made.items() if operation in calls}
        memory = {name: peak_memory(call) for name, call in calls.items()}      # also warms up
        times: dict[str, list[float]] = {name: [] for name in calls}
        end = time.perf_counter() + seconds * len(calls)
        order = random.Random(0)
        while any(len(t) < 3 for t in times.values()) or time.perf_counter() < end:
            for name in order.sample(list(calls), len(calls)):      # what ran before has left the caches as they are
                times[name].append(_timed(calls[name]))
        for name in calls:
            costs[name][operation] = Cost(statistics.median(times[name]), memory[name])
    return costs


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory(call: Call) -> int:
    """Bytes of resident memory that a call adds at its peak, after one to warm up. Linux only; 0 elsewhere."""
    call()
    return with_peak_memory(call)[1] or 0


def with_peak_memory(call: Callable[[], Result]) -> tuple[Result, int | None]:
    """What a call returns, and the bytes of resident memory that it adds at its peak; None where that cannot be told.

    Of an old process it may be too little: what malloc has kept of memory freed earlier is not counted again.
    """
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")       # the peak starts anew
    except OSError:                                         # no Linux, or a container that does not let us
        return call(), None
    ctypes.CDLL("libc.so.6").malloc_trim(0)                 # or the call would live on what others have freed
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes(status, "VmRSS")
    result = call()
    return result, max(0, _kilobytes(status, "VmHWM") - before) * 1024


def _kilobytes(status: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), flags=re.MULTILINE)
    return int(found.group(1)) if found else 0
