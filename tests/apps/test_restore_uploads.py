"""Files and strokes that a user gives to the page that restores an image: measured, scaled, cut from volumes, or refused."""

import io

import h5py
import numpy as np
import pytest
from app_pages import command, finished, page, png, quick, upload
from invdiff_app import text

from invdiff.paths import bundled


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


@pytest.mark.parametrize("points", [[[0.2, 0.5], [0.8, 0.5]], [[0.2 + 0.037 * i, 0.503] for i in range(17)]])
@pytest.mark.parametrize("pixels", [18, 17, 4])
def test_a_straight_stroke_is_as_wide_everywhere(points, pixels):
    from invdiff_app.pictures import without

    missing = without([{"width": pixels / 128, "points": points}], (128, 128)) == 0
    assert set(missing.sum(0)[40:88]) == {pixels}


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


def test_a_mask_of_many_strokes_drives_no_other_file_away():
    at = upload(page(), "me.png", png())
    at.selectbox(key="task").set_value("inpaint").run()
    at.selectbox(key="inpaint_kind").set_value("mask_inpainting").run()
    for count in range(1, 11):
        at.session_state["_strokes"] = [{"width": 0.1, "points": [[0.05 * i, 0.5]]} for i in range(count)]
        at.run()
        assert not at.error
    assert "drawn-mask.png" in command(at)


def test_the_noise_is_not_estimated_where_pixels_are_missing():
    at = upload(page(), "me.png", png(), kind="input")
    at.checkbox(key="auto").check().run()
    assert "sigma_y=auto" in command(at)
    at.selectbox(key="task").set_value("inpaint").run()
    assert not any(box.key == "auto" for box in at.checkbox)
    assert (len(at.error), "sigma_y=0.02" in command(at)) == (0, True)


def test_a_measurement_may_tell_the_width_of_its_blur():
    at = upload(page(), "me.png", png())
    assert not any(box.key == "gaussian_blur_sigma_auto" for box in at.checkbox)        # of a clean image there is none
    at.radio(key="kind").set_value("input").run()
    at.checkbox(key="gaussian_blur_sigma_auto").check().run()
    assert command(at) == "invdiff restore --task deblur --input me.png --set sigma_y=0.02 --set operator.sigma=auto"
    assert not at.error


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


@pytest.mark.parametrize("stroke", [{"width": 1e6, "points": [[0.5, 0.5]]}, {"width": float("nan"), "points": [[0.5, 0.5]]},
                                    {"width": -3, "points": [[0.5, 0.5]]}, {"width": 0.1, "points": [[1e12, float("inf")]]}])
def test_numbers_that_no_brush_makes_neither_fail_nor_take_long(stroke):
    """A mask of 8 x 8 pixels; a brush as wide as the picture covers the places around."""
    from invdiff_app.pictures import without

    mask = without([stroke], (8, 8))
    assert mask.shape == (8, 8)
    assert (mask == 0).sum() > 40 if stroke["width"] == 1e6 else (mask == 255).sum() > 40
