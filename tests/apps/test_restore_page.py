"""The page that restores an image: settings to measurement at once, a run to its end, stopped, reloaded; and bad uploads."""

import io
import time
import zipfile

import numpy as np
import pytest
from app_pages import APP, command, finished, job_of, page, png, quick, upload
from invdiff_app import outcome, text
from invdiff_app.outcome import archive
from invdiff_app.session import UNSET


@pytest.fixture(scope="module")
def done():
    """The page after a run: the job, and the page that showed it."""
    at = quick(page())
    at.button(key="start").click().run()
    job = finished(at)
    return job, at.run()


def test_the_page_opens_with_a_measurement_and_its_command():
    at = page()
    assert at.title[0].value == text.PAGES["restore"]
    assert command(at) == "invdiff restore --task deblur"
    assert not at.error


def test_a_setting_changes_the_measurement_and_the_command_at_once():
    at = page()
    before = at.session_state["_preview"][1].measurement
    at.slider(key="gaussian_blur_sigma").set_value(4.0).run()
    after = at.session_state["_preview"][1].measurement
    assert not np.array_equal(before, after)
    assert command(at) == "invdiff restore --task deblur --set operator.sigma=4.0"


@pytest.mark.parametrize("task", list(text.TASKS))
def test_every_task_makes_a_measurement(task):
    at = page()
    at.select_slider(key="size").set_value(128)
    at.selectbox(key="task").set_value(task).run()
    assert not at.error
    assert f"--task {task} " in command(at)


def test_a_run_ends_with_scores_and_says_what_its_residual_means(done):
    job, at = done
    assert (job.state, job.result.report["samples"]) == ("done", 1)
    assert any("residual is" in block.value for block in at.markdown)
    assert len(at.table) == 1
    assert not at.error


def test_the_download_is_the_command_line_s_folder_and_repeats_the_run(done):
    job, _ = done
    with zipfile.ZipFile(io.BytesIO(archive(job.result, job.about["given"]))) as file:
        assert {"restored.png", "result.h5", "report.json", "config.yaml", "astronaut-128.png"} <= set(file.namelist())
        assert "/tmp" not in file.read("config.yaml").decode() + file.read("report.json").decode()


def test_another_visit_with_the_same_address_sees_the_job(done):
    job, _ = done
    at = page(job=job.id)
    assert any("residual is" in block.value for block in at.markdown)


def test_an_address_of_a_job_that_is_gone_says_so():
    at = page(job="nothing")
    assert at.info[0].value == text.JOB_GONE
    assert "job" not in at.query_params


def test_the_other_pages_lose_no_job_and_offer_its_end():
    at = page()
    at.slider(key="moment_matching_steps").set_value(200).run()
    at.button(key="start").click().run()
    job = job_of(at)
    at.switch_page("views/compare.py").run()
    assert "job" not in at.query_params
    at.button(key="compare").click().run()
    assert at.error[0].value == text.ONE_JOB
    at.button(key=f"stop_{job.id}").click().run()
    assert job.stop_asked
    at.switch_page("views/restore.py").run()
    assert job_of(at) is job
    finished(at)
    at.run()
    assert any("Stopped." in box.value for box in at.info)


def test_a_result_says_what_it_is_of_and_whether_the_page_has_changed_since(done):
    job, _ = done
    at = quick(page(job=job.id))
    assert [at.subheader[2].value, len(at.info)] == ["astronaut-128.png: Blur (Gaussian)", 0]
    at.selectbox(key="task").set_value("inpaint").run()
    assert [at.subheader[2].value, at.info[0].value] == ["astronaut-128.png: Blur (Gaussian)", text.OTHERWISE]


def test_settings_of_a_link_go_along_to_another_page_and_into_its_address():
    """And of what no link can set, nothing: buttons and uploads."""
    at = page(gaussian_blur_sigma="2.1", deblur_noise="0.05", **dict.fromkeys(UNSET, "1"))
    for name in ("compare", "mri", "restore"):
        at.switch_page(f"views/{name}.py").run()
        assert not at.error
        assert {button.key for button in at.button} <= {*UNSET, None}
        assert at.query_params["gaussian_blur_sigma"] in ("2.1", ["2.1"])
        assert name == "mri" or "--set sigma_y=0.05 --set operator.sigma=2.1" in command(at)
    at.slider(key="gaussian_blur_sigma").set_value(1.6).run()
    at.switch_page("views/compare.py").run()
    assert "operator.sigma" not in command(at)


def test_a_single_sample_is_shown_once(done, monkeypatch):
    job, at = done
    shown = {}
    monkeypatch.setattr(outcome, "panels", lambda pictures, *_: shown.update(pictures))
    outcome._samples(job, job.result)
    assert "Restored" in shown
    assert text.SAMPLE.format(1) not in shown
    assert not any(name in at.table[0].value.to_string() for name in ("One sample", "mean"))
    assert any(caption.value == text.SINGLE for caption in at.caption)


def test_stop_ends_the_run_and_shows_how_far_it_came():
    at = page()
    at.select_slider(key="size").set_value(128)
    at.slider(key="moment_matching_steps").set_value(200).run()
    at.button(key="start").click().run()
    job = job_of(at)
    while job.picture is None and job.active:
        time.sleep(0.02)
    at.run()
    at.button(key=f"stop_{job.id}").click().run()
    finished(at)
    at.run()
    assert job.state == "stopped"
    assert any(text.STOPPED_NOTHING in box.value for box in at.info)


def test_the_settings_outlive_the_file(monkeypatch):
    at = upload(page(), "me.png", png())
    at.selectbox(key="task").set_value("inpaint").run()
    at.selectbox(key="inpaint_kind").set_value("box_inpainting").run()
    at.slider(key="box_inpainting_top_20").set_value(1).run()
    for content, complaints in ((None, 0), (png()[:60], 1), (png(mode="L"), 0)):        # taken away, broken, replaced
        at.file_uploader(key="file").set_value(content and ("it.png", content, "image/png")).run()
        assert (at.selectbox(key="task").value, at.slider(key="box_inpainting_top_20").value) == ("inpaint", 1)
        assert len(at.error) == complaints
    assert "--task inpaint --truth it.png" in command(at)


def test_a_box_is_within_an_image_that_is_not_square():
    at = upload(page(), "me.png", png((100, 20)))
    at.selectbox(key="task").set_value("inpaint").run()
    at.selectbox(key="inpaint_kind").set_value("box_inpainting").run()
    box = [at.slider(key=f"box_inpainting_{name}") for name in ("top_20", "left_100", "height_20", "width_100")]
    assert [(slider.min, slider.max) for slider in box] == [(0, 19), (0, 99), (1, 20), (1, 100)]
    mask = at.session_state["_preview"][1].mask
    assert (np.ptp(np.nonzero(mask == 0), axis=1) + 1).tolist() == [7, 37]
    box[1].set_value(90).run()
    at.file_uploader(key="file").set_value(("it.png", png((8, 8)), "image/png")).run()
    assert not at.error


def test_what_is_drawn_fits_every_size_and_is_kept_while_there_is_no_brush():
    at = page()
    at.session_state["_strokes"] = [{"width": 0.25, "points": [[0.5, 0.25], [0.75, 0.25]]}]
    at.select_slider(key="size").set_value(128)
    at.selectbox(key="task").set_value("inpaint").run()
    at.selectbox(key="inpaint_kind").set_value("mask_inpainting").run()
    first = at.session_state["_preview"][1].mask
    at.select_slider(key="size").set_value(256).run()
    assert not at.error
    assert "drawn-mask.png" in command(at)
    second = at.session_state["_preview"][1].mask
    assert (first == second[::2, ::2]).mean() > 0.98
    assert (first == 0).mean() == pytest.approx(0.25**2 * (1 + np.pi / 4), rel=0.05)


def test_what_is_measured_is_counted():
    at = page()
    at.selectbox(key="task").set_value("inpaint").run()
    at.slider(key="random_inpainting_keep").set_value(0.25).run()
    assert at.session_state["_preview"][1].values == 3 * 256 * 256 // 4


def test_a_size_that_a_factor_does_not_divide_is_cropped_like_on_the_command_line():
    at = upload(page(), "odd.png", png((33, 21)))
    at.selectbox(key="task").set_value("sr").run()
    assert at.session_state["_preview"][1].truth.shape[:2] == (20, 32)


def test_no_page_ever_shows_a_traceback(monkeypatch):
    import invdiff_app.preview

    def broken(config):
        raise RuntimeError("at /usr/lib/secret")

    monkeypatch.setattr(invdiff_app.preview, "_posed", broken)
    at = page()
    assert [box.value for box in at.error] == [text.WENT_WRONG]
    assert not at.exception


def test_the_app_s_script_is_where_the_wheel_looks():
    assert APP.is_file()
