"""The pages on MRI, on samplers side by side, and on diffusion itself."""

import io
import zipfile
from dataclasses import dataclass
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from app_pages import finished, page
from invdiff_app import comparing, scan_outcome, spec, text, text_compare, text_explained, text_mri
from invdiff_app.explaining import drawn, repeated
from invdiff_app.jobs import Job
from invdiff_app.pictures import png
from PIL import Image
from streamlit.testing.v1 import AppTest

from invdiff.diffusion.schedules import Karras
from invdiff.diffusion.sdes import VP
from invdiff.evaluation.mixtures import sliced_wasserstein
from invdiff.illustrations.gallery import FIGURES
from invdiff.illustrations.samplers import COMPARED, samples_of
from invdiff.illustrations.targets import exact_draws, moons
from invdiff.paths import bundled


def commands(at):
    return [block.value for block in at.code if block.value.startswith("invdiff")]


def upload_scan(at, name, content):
    at.selectbox(key="scan").set_value("upload").run()
    return at.file_uploader(key="scan_file").set_value((name, content, "application/x-hdf5")).run()


def quick_scan(at, samples=2):
    at.slider(key="mri_steps").set_value(2)
    at.selectbox(key="baseline").set_value("zero_filled")
    return at.slider(key="mri_samples").set_value(samples).run()


def test_the_scan_page_says_what_it_is_not_for_and_shows_k_space():
    at = page("mri")
    assert at.warning[0].value == text_mri.NOTICE
    assert not at.error
    assert commands(at)[0].startswith("invdiff restore --task mri")
    at.slider(key="acceleration").set_value(8.0).run()
    assert "operator.acceleration=8.0" in commands(at)[0]
    assert not at.error


def test_a_scan_is_reconstructed_and_comes_as_nifti_dicom_and_hdf5():
    at = quick_scan(page("mri"))
    at.button(key="reconstruct").click().run()
    job = finished(at)
    at.run()
    assert (job.state, job.message) == ("done", "")
    assert [at.subheader[0].value, len(at.info)] == ["Phantom of ellipses, slice 0: acceleration 4, equispaced lines", 0]
    at.slider(key="mask_seed").set_value(1).run()
    assert [box.value for box in at.info] == [text.OTHERWISE]
    assert any("residual" in block.value for block in at.markdown)
    at.slider(key="overlay").set_value(0.5).run()
    assert not at.error
    assert scan_outcome._one(job.result, "magnitude.nii.gz")[:2] == b"\x1f\x8b"
    assert scan_outcome._one(job.result, "result.h5")[:4] == b"\x89HDF"
    with zipfile.ZipFile(io.BytesIO(scan_outcome._series(job.result))) as file:
        assert {name.split("/")[0] for name in file.namelist()} == {"dicom-magnitude", "dicom-std"}


def test_a_single_sample_of_a_scan_has_no_spread_to_lay_over_it():
    at = quick_scan(page("mri"), samples=1)
    at.button(key="reconstruct").click().run()
    assert (finished(at).state, len(at.error)) == ("done", 0)
    at.run()
    assert not at.error
    assert [slider.key for slider in at.slider if slider.key in ("window", "overlay")] == ["window"]
    assert "sample" not in scan_outcome._titles({}, several=False)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 99, b"GIF89a", b"#!/bin/sh"])
def test_a_hostile_scan_is_refused_with_a_sentence(content):
    at = upload_scan(page("mri"), "scan.h5", content)
    assert len(at.error) == 1
    assert not any(bad in at.error[0].value for bad in ("Traceback", "/tmp", text.WENT_WRONG))


def test_a_scan_that_is_undersampled_already_is_taken_as_it_is(tmp_path):
    kspace = np.random.default_rng(0).normal(size=(1, 4, 64, 64)).astype(np.complex64)
    for name, step in (("full.h5", 1), ("half.h5", 2)):
        with h5py.File(tmp_path / name, "w") as file:
            file["kspace"] = np.where(np.arange(64) % step == 0, kspace, 0)
    at = upload_scan(page("mri"), "half.h5", (tmp_path / "half.h5").read_bytes())
    assert not at.error
    assert [(box.value, box.disabled) for box in at.checkbox] == [(True, True)]
    assert any(caption.value == text_mri.UNDERSAMPLED.format(0.5) for caption in at.caption)
    assert "acceleration" not in commands(at)[0]
    at.file_uploader(key="scan_file").set_value(("full.h5", (tmp_path / "full.h5").read_bytes(), "application/x-hdf5")).run()
    assert [(box.value, box.disabled) for box in at.checkbox] == [(False, False)]
    assert "acceleration=4" in commands(at)[0]


def test_values_that_happen_to_be_zero_do_not_undersample_a_scan(tmp_path):
    kspace = np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype(np.complex64)
    kspace[..., [3, 20, 40], [7, 50, 9]] = 0
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["kspace"] = kspace
    at = upload_scan(page("mri"), "one.h5", (tmp_path / "one.h5").read_bytes())
    assert [(box.value, box.disabled) for box in at.checkbox] == [(False, False)]
    assert (len(at.error), "acceleration=4" in commands(at)[0]) == (0, True)


def test_the_head_that_comes_with_the_app_is_given_away_with_the_result(monkeypatch):
    monkeypatch.setattr("invdiff_app.scanning._run", lambda job, config, names: None)
    at = page("mri")
    at.selectbox(key="scan").set_value("head").run()
    assert "--input head.h5 " in commands(at)[0]
    at.button(key="reconstruct").click().run()
    assert finished(at).about["given"] == {"head.h5": bundled("data", "samples", "head.h5").read_bytes()}


def test_the_zip_of_a_scan_has_the_files_that_are_not_the_user_s(monkeypatch):
    seen = {}
    monkeypatch.setattr(scan_outcome, "archive", lambda made, given: given)
    monkeypatch.setattr(scan_outcome.st, "download_button", lambda label, make, name, *_, **__: seen.setdefault(name, make))
    scan_outcome._downloads(SimpleNamespace(id="a", about={"given": {"head.h5": b"it"}}), None)
    assert seen["mri.zip"]() == {"head.h5": b"it"}


def test_few_steps_of_a_scan_have_the_covariance_that_is_nearer():
    at = page("mri")
    assert not any(box.key == "local" for box in at.checkbox)
    at.slider(key="mri_steps").set_value(9).run()
    assert " --set sampler.covariance=local" in commands(at)[0]
    at.checkbox(key="local").uncheck().run()
    assert "covariance" not in commands(at)[0]


def test_a_picture_is_sent_to_its_page_and_the_settings_outlive_it(tmp_path):
    at = page("mri")
    at.selectbox(key="scan").set_value("upload").run()
    at.selectbox(key="pattern").set_value("random").run()
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    at.file_uploader(key="scan_file").set_value(("x.png", (tmp_path / "x.png").read_bytes(), "image/png")).run()
    assert [box.value for box in at.error] == ["The file: holds images (photo), not k-space; images are for the page Restore"]
    assert at.selectbox(key="pattern").value == "random"


def test_the_compared_commands_come_with_their_files():
    at = page("compare")
    at.select_slider(key="size").set_value(128).run()
    assert "--truth astronaut-128.png" in commands(at)[0]
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


def test_a_stopped_comparison_leaves_out_what_is_not_whole_and_says_so(monkeypatch):
    """The second of three runs is stopped with two samples of four. A population takes its steps together."""
    def run(config, on_step):
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


def test_every_figure_has_its_words():
    assert set(text_explained.IDEAS) == set(FIGURES)


def test_the_ratio_of_image_to_noise_is_the_library_s():
    snr = float(VP().log_snr(VP().time(0.1)))
    assert np.exp(snr) == pytest.approx(1 / (2 * 0.1) ** 2, rel=1e-4)
    assert any(r"\frac{1}{(2\sigma(t))^2}" in part for part in text_explained.IDEAS["schedules"].parts)
    assert all("u_0 = 2 x_0 - 1" in " ".join(text_explained.IDEAS[idea].parts) for idea in ("forward", "schedules"))


def test_what_is_said_of_samplers_is_what_their_figure_shows():
    """With five calls: the two second-order ones that remember are the nearest, and Heun's method is the farthest."""
    prior = moons()
    exact = exact_draws(prior, 300, 2).reshape(300, 2).float()
    distance = {name: sliced_wasserstein(samples_of(integrator, prior, 5, 300, 0, Karras()), exact, 20)
                for name, integrator in COMPARED.items()}
    ranked = sorted(distance, key=distance.get)
    assert set(ranked[:2]) == {"DPM-Solver++(2M)", "DPM-Solver++(SDE)"}
    assert ranked[-1] == "Heun"


@pytest.mark.parametrize("idea", ["forward", "reverse", "score_field", "sde_and_ode", "samplers", "guidance"])
def test_a_figure_is_at_first_that_of_the_command_line(idea, monkeypatch):
    monkeypatch.setattr("invdiff_app.explaining.drawn", lambda idea, **options: png(np.zeros((8, 8), np.uint8)))
    at = page("explained")
    at.selectbox(key="idea").set_value(idea).run()
    assert commands(at) == [f"invdiff figures {idea}"]


def test_the_command_under_a_figure_draws_it():
    assert repeated("sde_and_ode", {"paths": 10, "seed": 3}) == ("invdiff figures sde_and_ode --seed 3", "bash")
    said, language = repeated("sde_and_ode", {"paths": 4, "seed": 3})
    assert language == "python"
    assert said.endswith('save(draw(\'sde_and_ode\', paths=4, seed=3), "figures", "sde_and_ode")')


@pytest.mark.parametrize("idea", ["forward", "score_field"])
def test_an_idea_is_drawn_with_its_equation(idea):
    at = page("explained")
    at.selectbox(key="idea").set_value(idea).run()
    assert at.latex
    assert not at.error
    first = drawn(idea, sigmas=(0.2, 0.1))
    assert first[:4] == b"\x89PNG"
    assert first != drawn(idea, sigmas=(0.4, 0.2))
