"""Which pixels are missing: painted, in a file, or transparent in the picture."""

import io
import zipfile

import numpy as np
import pytest
from app_pages import command, finished, page, png, quick, upload
from invdiff_app import text
from invdiff_app.outcome import archive
from PIL import Image


@pytest.mark.parametrize("points", [[[0.2, 0.5], [0.8, 0.5]], [[0.2 + 0.037 * i, 0.503] for i in range(17)]])
@pytest.mark.parametrize("pixels", [18, 17, 4])
def test_a_straight_stroke_is_as_wide_everywhere(points, pixels):
    from invdiff_app.pictures import without

    missing = without([{"width": pixels / 128, "points": points}], (128, 128)) == 0
    assert set(missing.sum(0)[40:88]) == {pixels}


def masked(at):
    at.selectbox(key="task").set_value("inpaint").run()
    return at.selectbox(key="inpaint_kind").set_value("mask_inpainting").run()


def upload_mask(at, name, size=(24, 20), black=(slice(2, 5), slice(3, 9))):
    pixels = np.full(size[::-1], 255, np.uint8)
    pixels[black] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return at.file_uploader(key="mask_file").set_value((name, buffer.getvalue(), "image/png")).run()


@pytest.mark.parametrize(("name", "called"), [("m.png", "m.png"), ("me.png", "my-me.png"), ("restored.png", "my-restored.png")])
def test_a_mask_is_taken_from_a_file_which_comes_with_the_result(name, called):
    at = masked(upload(quick(page()), "me.png", png()))
    at.radio(key="mask_from").set_value("file").run()
    assert [box.value for box in at.info] == [text.MASK_FIRST]
    upload_mask(at, name)
    seen = at.session_state["_preview"][1]
    assert (seen.values, np.argwhere(seen.mask == 0).tolist()) == (
        3 * (24 * 20 - 18), [[row, column] for row in range(2, 5) for column in range(3, 9)])
    assert f'"mask": "{called}"' in command(at)
    at.button(key="start").click().run()
    job = finished(at)
    at.run()
    assert (job.state, list(job.about["given"]), len(at.error)) == ("done", [called], 0)
    with zipfile.ZipFile(io.BytesIO(archive(job.result, job.about["given"]))) as file:
        assert len(set(file.namelist())) == len(file.namelist())
        assert np.asarray(Image.open(io.BytesIO(file.read(called))))[2, 3] == 0


@pytest.mark.parametrize(("size", "black", "said"), [
    ((20, 24), (0, 0), "The mask has 20 × 24 pixels, and the image to restore 24 × 20"),
    ((24, 20), (slice(None), slice(None)), "The mask: expected white where pixels are measured"),
])
def test_a_mask_that_does_not_fit_is_refused(size, black, said):
    at = masked(upload(page(), "me.png", png()))
    at.radio(key="mask_from").set_value("file").run()
    upload_mask(at, "m.png", size, black)
    assert len(at.error) == 1
    assert at.error[0].value.startswith(said)


def test_what_is_transparent_in_a_measurement_is_offered_as_what_is_missing():
    """With its rim, which is mixed with what it is laid over."""
    pixels = np.full((20, 24, 4), 200, np.uint8)
    pixels[..., 3], pixels[5:8, 5:8, 3], pixels[6, 6, 3] = 255, 250, 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    at = masked(upload(page(), "me.png", buffer.getvalue(), kind="input"))
    at.radio(key="mask_from").set_value("transparent").run()
    assert not at.error
    assert np.argwhere(at.session_state["_preview"][1].mask == 0).tolist() == [[i, j] for i in (5, 6, 7) for j in (5, 6, 7)]
    assert '"mask": "opaque-mask.png"' in command(at)
    for content, kind in ((png(), "input"), (buffer.getvalue(), "truth")):      # nothing is, or it is clean
        at = masked(upload(page(), "me.png", content, kind=kind))
        assert text.MASKS["transparent"] not in at.radio(key="mask_from").options


def test_a_mask_of_many_strokes_drives_no_other_file_away():
    at = upload(page(), "me.png", png())
    at.selectbox(key="task").set_value("inpaint").run()
    at.selectbox(key="inpaint_kind").set_value("mask_inpainting").run()
    for count in range(1, 11):
        at.session_state["_strokes"] = [{"width": 0.1, "points": [[0.05 * i, 0.5]]} for i in range(count)]
        at.run()
        assert not at.error
    assert "drawn-mask.png" in command(at)


@pytest.mark.parametrize("stroke", [{"width": 1e6, "points": [[0.5, 0.5]]}, {"width": float("nan"), "points": [[0.5, 0.5]]},
                                    {"width": -3, "points": [[0.5, 0.5]]}, {"width": 0.1, "points": [[1e12, float("inf")]]}])
def test_numbers_that_no_brush_makes_neither_fail_nor_take_long(stroke):
    """A mask of 8 x 8 pixels; a brush as wide as the picture covers the places around."""
    from invdiff_app.pictures import without

    mask = without([stroke], (8, 8))
    assert mask.shape == (8, 8)
    assert (mask == 0).sum() > 40 if stroke["width"] == 1e6 else (mask == 255).sum() > 40
