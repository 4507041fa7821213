"""The tools behind docs/operator-costs.md."""

import itertools
import subprocess
import sys

import pytest

import operators
from invdiff.evaluation.costs import OPERATIONS, OURS, Case, Cost, calls_of, measure
from invdiff.experiments.operator_costs import cases, to_markdown


def test_costs_are_medians_of_the_time_that_a_call_takes(monkeypatch):
    now = 0.0

    def takes(*seconds):
        turns = itertools.cycle(seconds)

        def call():
            nonlocal now
            now += next(turns)

        return call

    monkeypatch.setattr("invdiff.evaluation.costs.time.perf_counter", lambda: now)
    monkeypatch.setattr("invdiff.evaluation.costs.peak_memory", lambda call: 0)
    case = Case("x", {OURS: lambda: {"A": takes(2, 2, 9)}, "other": lambda: {"A": takes(6), "prox_l2": takes(1)}})
    costs = measure(case, seconds=30)
    assert costs == {OURS: {"A": Cost(2, 0)}, "other": {"A": Cost(6, 0), "prox_l2": Cost(1, 0)}}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_peak_memory_is_what_a_call_needs_in_between():
    """In a process of its own: where others have left much free memory that malloc keeps, a call may live on that."""
    script = ("import torch; from invdiff.evaluation.costs import peak_memory; "
              "print(peak_memory(lambda: torch.ones(2**22).double().sum()), peak_memory(lambda: None))")
    # 16 MiB, then 32 more
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    between, nothing = map(int, done.stdout.split())
    assert 40 * 2**20 < between < 60 * 2**20
    assert nothing < 2**20


def test_the_four_operations_of_a_physics():
    calls = calls_of(operators.GaussianBlur((1, 8, 8), sigma=0.5))
    assert tuple(calls) == OPERATIONS[:4]
    assert calls["prox_l2"]().shape == (1, 1, 8, 8)


def test_the_page_has_ratios_to_the_fastest_other():
    cost = {"A": Cost(0.002, 2**20), "prox_l2": Cost(0.004, 0)}
    page = to_markdown({"blur": {OURS: cost, "b": {"A": Cost(0.004, 0)}, "c": {"A": Cost(0.008, 0)}}}, "a machine", "torch 2")
    assert "| blur | 0.50 |  |  |  |  |" in page
    assert "| blur | invdiff | 2 |  |  | 4 |  |" in page
    assert "| blur | invdiff | 1 |  |  | 0 |  |" in page


def test_every_case_names_ours_and_another():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names) >= 10
    assert all(OURS in case.make and len(case.make) > 1 for case in cases())
