"""The app in a real browser, on a server of its own: uploads, downloads, drawing, reloads, two visits, phones, and access."""

import io
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser: chromium is not installed")

PATIENCE = float(os.environ.get("INVDIFF_BROWSER_SECONDS", "60"))
QUICK = "?size=128&samples=1&moment_matching_steps=3"
SLOW = "?size=256&samples=4&moment_matching_steps=200"


@pytest.fixture(scope="module")
def place():
    """A browser, and the address of an app."""
    from screenshots import served

    with served() as found:
        yield found


@pytest.fixture
def visit(place):
    """Opens a page as a new visitor; what the console complains of fails the test."""
    (browser, address), contexts, complaints = place, [], []

    def opened(path="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda said: complaints.append((said.text, said.location["url"])) if ours(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + path)
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def ours(said):
    """An error, and not Streamlit's own look for its server below a page's address."""
    return said.type == "error" and "_stcore" not in said.location["url"]


def press(page, name):
    page.get_by_test_id("stMain").get_by_role("button", name=name, exact=True).click()      # Streamlit has a Stop of its own


def test_from_upload_to_download(visit, tmp_path):
    photo = tmp_path / "me.png"
    Image.effect_mandelbrot((64, 48), (-2, -1.2, 1, 1.2), 40).convert("RGB").save(photo)
    page = visit(QUICK + "&source=A+file+of+yours")
    page.locator("input[type=file]").set_input_files(photo)
    page.get_by_text("--truth me.png").first.wait_for()
    press(page, "Restore")
    page.get_by_text("residual is").wait_for()
    with page.expect_download() as download:
        press(page, "Everything (.zip)")
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as file:
        assert {"restored.png", "result.h5", "config.yaml"} <= set(file.namelist())
        assert Image.open(io.BytesIO(file.read("restored.png"))).size == (64, 48)


def test_a_job_outlives_a_reload_and_stops_when_asked(visit):
    page = visit(SLOW)
    page.route("**/media/**", lambda route: (time.sleep(1.5), route.continue_()))       # a slow line
    press(page, "Restore")
    began = time.monotonic()
    page.get_by_role("img", name="The estimate so far").wait_for()
    print(f"first estimate after {time.monotonic() - began:.1f} s")
    assert "job=" in page.url
    page.reload()
    page.get_by_role("img", name="The estimate so far").wait_for()
    page.get_by_role("progressbar").first.wait_for()
    press(page, "Stop")
    page.get_by_text("Stopped.").wait_for()


def test_two_visits_take_turns(visit):
    first, second = visit(SLOW), visit(QUICK)
    press(first, "Restore")
    first.get_by_role("img", name="The estimate so far").wait_for()
    press(second, "Restore")
    second.get_by_text("Waiting: 1 before this one.").wait_for()
    press(first, "Stop")
    second.get_by_text("residual is").wait_for()


def test_a_mask_is_drawn_with_the_mouse(visit):
    page = visit(QUICK + "&task=Missing+pixels&inpaint_kind=a+mask")
    canvas = page.get_by_role("img", name="Paint with the pointer").last
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    page.get_by_role("img", name="Mask").wait_for()
    page.get_by_text("drawn-mask.png").first.wait_for()
    press(page, "Restore")
    page.get_by_text("residual is").wait_for()
    canvas = page.get_by_role("img", name="Paint with the pointer").last.element_handle()
    page.wait_for_function("canvas => canvas.getContext('2d').getImageData(0, 0, 128, 128).data.some(v => v)", arg=canvas)


def test_back_and_forward_bring_a_page_with_its_settings(visit):
    page = visit("?photo=Cat&size=128&gaussian_blur_sigma=2.5&samples=1")
    page.get_by_text("--truth chelsea-128.png --samples 1 --set operator.sigma=2.5").wait_for()
    page.get_by_role("link", name="Compare").first.click()
    page.get_by_role("button", name="Compare", exact=True).wait_for()
    page.wait_for_timeout(2000)
    page.go_back()
    page.get_by_role("heading", name="Restore", level=1).wait_for()
    page.get_by_text("--truth chelsea-128.png --samples 1 --set operator.sigma=2.5").wait_for()
    page.go_forward()
    page.get_by_role("heading", name="Compare", level=1).wait_for()
    page.get_by_text("The same on the command line").click()
    page.get_by_text("--truth chelsea-128.png").first.wait_for()


def test_a_hostile_upload_is_one_sentence(visit, tmp_path):
    bad = tmp_path / "x.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n<script>alert(1)</script>")
    page = visit("?source=A+file+of+yours")
    page.locator("input[type=file]").set_input_files(bad)
    page.get_by_role("alert").wait_for()
    assert "Traceback" not in page.inner_text("body")


@pytest.mark.parametrize("path", ["", "compare", "mri", "explained"])
def test_a_phone_has_no_sideways_scrolling_and_axe_finds_nothing_serious(visit, path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = visit(path, viewport={"width": 390, "height": 844})
    page.get_by_role("group", name="Zoom").or_(page.get_by_role("button", name="Figure (.png)")).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = axe.Axe().run(page, context={"include": [["[data-testid=stMain]"]]}).response["violations"]
    serious = [(v["id"], node["target"], node["html"][:120]) for v in found if v["impact"] in ("serious", "critical")
               for node in v["nodes"]]
    assert not serious
