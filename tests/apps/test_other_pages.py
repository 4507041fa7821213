"""The pages on MRI, on samplers side by side, and on diffusion itself."""

import io
import zipfile

import numpy as np
import pytest
from app_pages import finished, page
from invdiff_app import scan_outcome, text, text_compare, text_explained, text_mri
from invdiff_app.explaining import drawn, repeated
from invdiff_app.pictures import png
from PIL import Image

from invdiff.illustrations.gallery import FIGURES


def commands(at):
    return [block.value for block in at.code if block.value.startswith("invdiff")]


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
    at = page("mri")
    at.selectbox(key="scan").set_value("upload").run()
    at.file_uploader(key="scan_file").set_value(("scan.h5", content, "application/x-hdf5")).run()
    assert len(at.error) == 1
    assert not any(bad in at.error[0].value for bad in ("Traceback", "/tmp", text.WENT_WRONG))


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
    at.multiselect(key="compare_steps").set_value([5]).run()
    assert len(commands(at)) == 1
    at.button(key="compare").click().run()
    job = finished(at)
    at.run()
    assert list(job.result.outcomes) == ["Moment matching, 5 steps"]
    assert list(job.result.refused) == ["DDRM, 5 steps"]
    assert len(at.table) == 1
    assert not at.error
    assert len(at.get("download_button")) == 2              # the result's and the settings'


def test_too_many_runs_are_not_begun():
    at = page("compare")
    at.multiselect(key="compare_steps").set_value([5, 10, 20, 30]).run()
    assert any(text_compare.TOO_MANY.format(8, 6) == box.value for box in at.info)
    assert not any(button.key == "compare" for button in at.button)


def test_every_figure_has_its_words():
    assert set(text_explained.IDEAS) == set(FIGURES)


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
