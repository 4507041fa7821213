"""Files that a user gives to the page that restores an image: measured, scaled, cut from volumes, or refused."""

import io

import h5py
import numpy as np
import pytest
from app_pages import command, finished, page, png, quick, upload
from invdiff_app import text
from PIL import Image

from invdiff.paths import bundled


def noise(height=48, width=52):
    """A PNG in which there is detail everywhere."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_upload_is_measured_or_degraded():
    at = upload(page(), "me.png", png())
    assert command(at) == "invdiff restore --task deblur --truth me.png"
    at.radio(key="kind").set_value("input").run()
    assert command(at) == "invdiff restore --task deblur --input me.png --set sigma_y=0.02"
    assert not at.error


def test_a_large_clean_image_is_scaled_down_and_a_large_measurement_refused():
    at = upload(page(), "me.png", png((900, 600)))
    assert at.session_state["_preview"][1].truth.shape[:2] == (341, 512)
    assert any("Scaled down from 900 × 600" in caption.value for caption in at.caption)
    at.radio(key="kind").set_value("input").run()
    assert "512 × 512 at most" in at.columns[1].error[0].value          # where the button and the preview would be


def test_what_is_transparent_is_said_to_be_laid_over_white():
    at = upload(page(), "me.png", png(mode="RGBA"))
    assert any(text.TRANSPARENT in caption.value for caption in at.caption)
    at.file_uploader(key="file").set_value(("me.png", png(), "image/png")).run()
    assert not any(text.TRANSPARENT in caption.value for caption in at.caption)


def test_the_name_of_a_file_is_no_markdown():
    at = upload(page(), "[x](y) $a_b$ `c`.png", png())
    assert any(caption.value == r"It needs \[x\](y) \$a\_b\$ \`c\`.png." for caption in at.caption)


def test_a_measurement_that_no_image_can_be_is_for_the_command_line():
    at = upload(page(), "me.png", png(), kind="input")
    at.selectbox(key="task").set_value("cs").run()
    assert [box.value for box in at.columns[1].error] == [text.NO_PICTURE]


def test_k_space_in_an_array_is_sent_to_its_page_with_no_other_advice():
    buffer = io.BytesIO()
    np.savez(buffer, kspace=np.ones((4, 32, 32), np.complex64))
    (box,) = upload(page(), "ks.npz", buffer.getvalue()).error
    assert box.value.endswith("; open it on the page MRI")
    assert "convert" not in box.value


def test_k_space_is_sent_to_its_page():
    at = upload(page(), "scan.h5", bundled("data", "samples", "phantom.h5").read_bytes())
    assert [box.value for box in at.error] == ["The file: holds k-space (fastMRI), not images; open it on the page MRI"]


@pytest.mark.parametrize(("name", "content"), [
    ("empty.png", b""), ("cut.png", png()[:60]), ("page.png", b"<script>alert(1)</script>" * 9),
    ("../../etc/passwd", b"root:x:0:0"), ("nan.npy", None), ("pickle.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"),
])
def test_a_hostile_upload_is_refused_with_a_sentence(name, content):
    if content is None:
        buffer = io.BytesIO()
        np.save(buffer, np.full((8, 8), np.nan, np.float32))
        content = buffer.getvalue()
    at = upload(page(), name, content)
    assert len(at.error) == 1
    said = at.error[0].value
    assert not any(bad in said for bad in ("Traceback", "/tmp", "<script", text.WENT_WRONG))
    assert not at.exception


def test_a_slice_of_a_volume_is_taken_for_an_image(tmp_path):
    import nibabel

    volume = np.zeros((30, 40, 3), np.float32)
    volume[5:20, 5:20, 1], volume[..., 2] = 700.0, 1.0
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "head.nii.gz")
    at = upload(page(), "head.nii.gz", (tmp_path / "head.nii.gz").read_bytes())
    assert not at.exception
    assert "--truth head-slice1.npy" in command(at)
    at.slider(key="volume_slice").set_value(0).run()
    assert any("slice 0 is empty" in block.value.lower() for block in at.error)
    at.slider(key="volume_slice").set_value(2).run()
    assert "--truth head-slice2.npy" in command(at)
    with h5py.File(tmp_path / "file1.h5", "w") as file:
        file["reconstruction_rss"] = volume.T
    assert "--truth file1-slice1.npy" in command(upload(page(), "file1.h5", (tmp_path / "file1.h5").read_bytes()))
    assert not upload(page(), "bad.nii.gz", b"\x1f\x8bno volume").exception


def test_a_slice_with_values_below_0_is_shifted_and_not_folded(tmp_path):
    import nibabel

    volume = np.full((30, 40, 1), -1000.0, np.float32)
    volume[5:20, 5:20], volume[10:15, 10:15] = 40.0, 1000.0                 # air, tissue, bone
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ct.nii.gz")
    at = upload(page(), "ct.nii.gz", (tmp_path / "ct.nii.gz").read_bytes())
    seen = at.session_state["_preview"][1].truth
    assert (seen[0, 0], seen[7, 7], seen[12, 12]) == (0, 133, 255)
    assert any(text.SHIFTED.format(-1000, 1000) in caption.value for caption in at.caption)


def test_an_upload_is_decoded_once_for_all_settings(monkeypatch):
    from invdiff_app import choosing

    read, seen = choosing.read_picture, []
    monkeypatch.setattr(choosing, "read_picture", lambda path: (seen.append(path), read(path))[1])
    at = upload(page(), "me.png", png((900, 600)))
    at.slider(key="gaussian_blur_sigma").set_value(4.0).run()
    assert (len(seen), "--truth me-512x341.npy" in command(at)) == (1, True)
    at.file_uploader(key="file").set_value(("it.png", png((100, 80)), "image/png")).run()
    assert (len(seen), "--truth it.png" in command(at)) == (2, True)


def test_the_noise_is_not_estimated_where_pixels_are_missing():
    at = upload(page(), "me.png", png(), kind="input")
    at.checkbox(key="auto").check().run()
    assert "sigma_y=auto" in command(at)
    at.selectbox(key="task").set_value("inpaint").run()
    assert not any(box.key == "auto" for box in at.checkbox)
    assert (len(at.error), "sigma_y=0.02" in command(at)) == (0, True)


def test_a_measurement_may_tell_the_width_of_its_blur():
    at = upload(page(), "me.png", png((60, 48)))
    assert not any(box.key == "gaussian_blur_sigma_auto" for box in at.checkbox)        # of a clean image there is none
    at.radio(key="kind").set_value("input").run()
    at.checkbox(key="gaussian_blur_sigma_auto").check().run()
    assert command(at) == "invdiff restore --task deblur --input me.png --set sigma_y=0.02 --set operator.sigma=auto"
    assert not at.error


@pytest.mark.parametrize("linked", [False, True])
def test_a_width_that_was_found_is_taken_from_then_on(linked, monkeypatch):
    """Where the slider was there before, and where it was not, as the link had the box ticked."""
    monkeypatch.setattr("invdiff.blind.find_width", lambda *among, **options: 1.8349)
    if linked:
        link = {"source": "A file of yours", "kind": "a measurement, to restore", "gaussian_blur_sigma_auto": "true"}
        at = upload(page(samples="1", moment_matching_steps="2", **link), "me.png", noise(), kind="input")
        assert at.checkbox(key="gaussian_blur_sigma_auto").value
    else:
        at = upload(quick(page()), "me.png", noise(), kind="input")
        at.checkbox(key="gaussian_blur_sigma_auto").check().run()
    at.button(key="start").click().run()
    job = finished(at)
    at.run()
    assert any("sigma = 1.83 pixels" in block.value for block in at.markdown)
    at.button(key=f"width_{job.id}").click().run()
    assert (at.checkbox(key="gaussian_blur_sigma_auto").value, at.slider(key="gaussian_blur_sigma").value) == (False, 1.83)
    assert "--set operator.sigma=1.83" in [block.value for block in at.code if block.value.startswith("invdiff")][-1]
    assert at.query_params["gaussian_blur_sigma"] in ("1.83", ["1.83"])
    assert not any(button.key == f"width_{job.id}" for button in at.button)
    assert not at.error


@pytest.mark.parametrize(("size", "refused"), [((20, 60), True), ((48, 60), False)])
def test_an_image_too_small_to_tell_its_blur_is_refused_before_a_run_in_the_page_s_words(size, refused):
    at = upload(page(), "me.png", png(size), kind="input")
    at.checkbox(key="gaussian_blur_sigma_auto").check().run()
    assert [box.value for box in at.columns[1].error] == [text.WIDTH_TOO_SMALL.format(48, *size)] * refused
    assert text.WIDTH_AUTO in text.WIDTH_TOO_SMALL
    assert any(button.key == "start" for button in at.button) != refused


@pytest.mark.parametrize("kind", ["truth", "input"])
def test_a_measurement_may_be_smaller_than_its_image_by_the_border(kind):
    at = upload(quick(page()), "me.png", png((64, 48)), kind)
    at.slider(key="gaussian_blur_sigma").set_value(1.0)
    at.selectbox(key="gaussian_blur_boundary").set_value("valid").run()
    seen = at.session_state["_preview"][1]
    assert (len(at.error), seen.is_image) == (0, True)
    at.button(key="start").click().run()
    result = finished(at).result
    at.run()
    assert not at.error
    smaller, larger = ((38, 54), (48, 64)) if kind == "truth" else ((48, 64), (58, 74))
    assert (result.result.measurement.shape[-2:], result.result.mean.shape[-2:]) == (smaller, larger)
    assert ("restored" in result.report["metrics"]) == (kind == "truth")
