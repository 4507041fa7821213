"""Pictures of the app's pages: `python apps/screenshots.py FOLDER [NAME ...]`, with Playwright and a Chromium."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SECONDS = 600               # patience, on a busy machine
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]         # as containers need them
Act = Callable[[Any], None]


def _pressed(button: str, until: str) -> Act:
    def act(page: Any) -> None:
        page.get_by_role("button", name=button, exact=True).click()
        page.get_by_text(until).first.wait_for()

    return act


def _seen(what: str) -> Act:
    return lambda page: page.get_by_role("img", name=what).first.wait_for()


# name: address, what happens before the picture, height
PAGES: dict[str, tuple[str, Act, int]] = {
    "app": ("?deblur_noise=0.02&moment_matching_steps=20", _pressed("Restore", "residual is"), 900),
    "app-compare": ("compare?size=128", _pressed("Compare", "Quality against"), 1100),
    "app-mri": ("mri?mri_steps=10&mri_samples=4", _pressed("Reconstruct", "residual is"), 1120),
    "app-explained": ("explained?idea=The%20score", _seen("A density of three modes"), 760),
}


def main() -> None:
    folder, *names = sys.argv[1:] or ["docs/images"]
    with served() as (browser, address):
        for name in names or PAGES:
            _take(browser, address, Path(folder) / f"{name}.png", *PAGES[name])


@contextmanager
def served() -> Iterator[tuple[Any, str]]:
    """A browser, and the address of an app of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from invdiff.cli.main import main; main()", "app", "--port", str(port), "--no-browser"]
    with sync_playwright() as driver, subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            browser.new_page().close()
            _wait_for(port, server)
            yield browser, f"http://localhost:{port}/"
        finally:
            server.terminate()


def _wait_for(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=5)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not come up")


def _take(browser: Any, address: str, path: Path, place: str, act: Act, height: int) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": height})
    page.set_default_timeout(1000 * SECONDS)
    page.goto(address + place)
    page.get_by_role("heading", level=1).wait_for()
    act(page)
    page.wait_for_timeout(3000)
    page.screenshot(path=path, animations="disabled")
    page.close()
    shrink(path)


def shrink(path: Path) -> None:
    """128 colours, which halves the file."""
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
