"""What the terminal shows of a run under way."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from invdiff.blind import Trial
from invdiff.cli import saved_run
from invdiff.cli.options import progress_bar
from invdiff.resolving import run_config


@pytest.mark.parametrize("name", [None, "1/3 y.png"])
def test_the_bar_of_a_run_counts_the_widths_that_are_tried_and_then_the_steps(name, monkeypatch):
    bars, seen = [], []

    def shown():
        task = bars[0].tasks[0]
        seen.append((task.description, task.fields["unit"], task.completed, task.total))

    def run(config, on_step, partial, on_width):
        for call, progress in ((on_width, Trial(3, 11, 0.5)), (on_step, SimpleNamespace(done=1, total=60))):
            call(progress)
            shown()

    monkeypatch.setattr("invdiff.job.run", run)
    monkeypatch.setattr(saved_run, "progress_bar", lambda unit: bars.append(progress_bar(unit)) or bars[0])
    config = run_config("deblur", None, ["input=y.png", "sigma_y=0.03", "operator.sigma=auto"])
    saved_run.run_with_progress(config, Path("out.partial"), name)
    assert seen == [(f"{name}: estimating the blur" if name else "estimating the blur", "widths", 2.5, 11),
                    (name or "moment_matching", "steps", 1, 60)]
