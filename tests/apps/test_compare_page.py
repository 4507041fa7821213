"""The page that sets samplers side by side."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from app_pages import commands, finished, page, upload
from invdiff_app import comparing, spec, text_compare
from invdiff_app.jobs import Job
from invdiff_app.pictures import png
from streamlit.testing.v1 import AppTest

from invdiff.blind import Trial


def test_the_compared_commands_come_with_their_files():
    at = page("compare")
    at.select_slider(key="size").set_value(128).run()
    assert "--truth astronaut-128.png" in commands(at)[0]
    assert all(block.proto.wrap_lines for block in at.code)
    assert [button.label for button in at.get("download_button")] == [text_compare.FILE.format("astronaut-128.png")]


def test_samplers_are_compared_and_one_that_cannot_is_left_out():
    at = page("compare")
    at.select_slider(key="size").set_value(128)
    at.selectbox(key="task").set_value("motion-deblur").run()
    at.selectbox(key="motion_blur_boundary").set_value("replicate")     # without an SVD, which DDRM wants
    at.multiselect(key="samplers").set_value(["moment_matching", "ddrm"])
    at.slider(key="motion-deblur_noise").set_value(0.0)
    assert at.slider(key="compare_samples").value == 2                  # a pair, whose mean is what one wants
    at.slider(key="compare_samples").set_value(1)
    at.multiselect(key="compare_steps").set_value([5]).run()
    assert len(commands(at)) == 1
    assert [line.partition(" --output ")[2] for line in commands(at)[0].splitlines()] == [
        "restored/motion-deblur-moment_matching-5", "restored/motion-deblur-ddrm-5"]
    at.button(key="compare").click().run()
    job = finished(at)
    at.run()
    assert list(job.result.outcomes) == ["Moment matching, 5 steps"]
    assert list(job.result.refused) == ["DDRM, 5 steps"]
    assert len(at.table) == 1
    assert not at.error
    assert at.subheader[-2].value == "astronaut-128.png: Camera shake"
    assert len(at.get("download_button")) == 2              # the result's and the settings'
    said = [caption.value for caption in at.caption]
    assert text_compare.SCORED_ONE in said
    assert text_compare.RESIDUAL_NOISELESS in said


@dataclass(frozen=True)
class Ran:
    report: dict
    config: object = None


def test_the_width_of_a_blur_is_estimated_once_for_all_that_are_compared(monkeypatch):
    told = []

    def found(*among, on_width, **options):
        told.append(on_width)
        return 1.8312

    monkeypatch.setattr("invdiff.blind.find_width", found)
    at = upload(page("compare"), "me.png", png(np.random.default_rng(0).integers(0, 255, (48, 52, 3), np.uint8)), "input")
    at.checkbox(key="gaussian_blur_sigma_auto").check()
    at.slider(key="compare_samples").set_value(1)
    at.multiselect(key="samplers").set_value(["moment_matching"])
    at.multiselect(key="compare_steps").set_value([5, 10]).run()
    at.button(key="compare").click().run()
    job = finished(at)
    at.run()
    assert (job.state, told, at.error.len) == ("done", [job.on_width], 0)
    assert [outcome.config.operator["sigma"] for outcome in job.result.outcomes.values()] == [1.8312] * 2
    assert "sigma = 1.83 pixels" in at.markdown[0].value
    at.button(key=f"width_{job.id}").click().run()
    assert (at.slider(key="gaussian_blur_sigma").value, not at.error) == (1.83, True)


def test_a_comparison_is_stopped_while_a_width_is_estimated(monkeypatch):
    """Nothing is run, and no more of it is tried than the step at which it was asked for."""
    def found(*among, on_width, **options):
        job.stop_asked = True
        on_width(Trial(3, 11, 0.5))

    job, config = Job("me", lambda job: None, {}), spec.resolve("deblur", {"input": "me.png", "sigma_y": 0.02,
                                                                           "operator.sigma": "auto"})
    monkeypatch.setattr("invdiff.blind.find_width", found)
    monkeypatch.setattr("invdiff.blind.photo", lambda path: torch.zeros(1, 3, 64, 64))
    made = comparing.run_all(job, [config], {})
    assert (made.outcomes, made.missing) == ({}, ["Moment matching, 30 steps"])


def test_a_stopped_comparison_leaves_out_what_is_not_whole_and_says_so(monkeypatch):
    """The second of three runs is stopped with two samples of four. A population takes its steps together."""
    def run(config, on_step, load):
        steps = 5 if config.sampler["name"] == "twisted_smc" else 20
        on_step(SimpleNamespace(done=1, total=steps, step=SimpleNamespace(x0=torch.zeros(1, 3, 8, 8))))
        totals.append(job.total)
        if config.sampler["name"] == "diffpir":
            job.stop_asked = True
            return Ran({"samples": 2})
        job.done = job.done - 1 + steps
        return Ran({"samples": 4})

    job, totals = Job("me", lambda job: None, {}), []
    monkeypatch.setattr("invdiff.job.run", run)
    configs = [spec.resolve("deblur", {"sampler.name": name, "sampler.steps": 5, "samples": 4})
               for name in ("twisted_smc", "diffpir", "ddrm")]
    made = comparing.run_all(job, configs, {})
    assert (list(made.outcomes), made.missing) == (["Twisted SMC, 5 steps"], ["DiffPIR, 5 steps", "DDRM, 5 steps"])
    assert totals == [45, 45]

    def shown():
        from invdiff_app.comparing import Comparison, _show

        _show(None, Comparison(missing=["DiffPIR, 5 steps", "DDRM, 5 steps"]))

    (box,) = AppTest.from_function(shown).run().info
    assert box.value.startswith("Stopped. ")
    assert box.value.endswith("DiffPIR, 5 steps; DDRM, 5 steps.")


@pytest.mark.parametrize(("value", "shown"), [(1.02, "1.02"), (0.25, "0.25"), (1.2e-7, "1e-07")])
def test_a_small_residual_is_not_zero(value, shown):
    report = {"metrics": {}, "network_calls": 5, "network_gradients": 0, "seconds": 1.0, "residual": {"value": value}}
    assert comparing._row(Ran(report, spec.resolve("deblur", {})))[-1] == shown


@pytest.mark.parametrize(("gradients", "shown"), [(11.0, "11 + 11"), (0.0, "11")])
def test_gradients_of_the_network_are_counted(gradients, shown):
    report = {"metrics": {}, "network_calls": 11.0, "network_gradients": gradients, "seconds": 1.0, "residual": {"value": 1.0}}
    assert comparing._row(Ran(report, spec.resolve("deblur", {})))[2] == shown


@pytest.mark.parametrize("name", ["red_diff", "dps"])
def test_a_point_estimate_is_no_sample_and_said_to_be_none(name):
    ran = SimpleNamespace(report={"residual": {"expected": 1.0}}, config=spec.resolve("deblur", {"sampler.name": name}),
                          truth=None)
    notes = comparing._notes(comparing.Comparison({"it": ran}))
    assert (text_compare.POINT in notes) == (name == "red_diff")


def test_too_many_runs_are_not_begun():
    at = page("compare")
    at.multiselect(key="compare_steps").set_value([5, 10, 20, 30]).run()
    assert any(text_compare.TOO_MANY.format(8, 6) == box.value for box in at.info)
    assert not any(button.key == "compare" for button in at.button)
