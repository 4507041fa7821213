"""The pages on MRI, and on diffusion itself."""

import io
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from app_pages import commands, finished, page
from invdiff_app import scan_outcome, text, text_explained, text_mri
from invdiff_app.explaining import drawn, repeated
from invdiff_app.pictures import png
from PIL import Image

from invdiff.diffusion.schedules import Karras
from invdiff.diffusion.sdes import VP
from invdiff.evaluation.mixtures import sliced_wasserstein
from invdiff.illustrations.gallery import FIGURES
from invdiff.illustrations.samplers import COMPARED, samples_of
from invdiff.illustrations.targets import exact_draws, moons
from invdiff.paths import bundled


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
