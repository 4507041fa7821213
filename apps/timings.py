"""How long a visitor of the app waits: `python apps/timings.py`, with Playwright and a Chromium, on an idle machine."""

import sys
import time
from typing import Any

from screenshots import SECONDS, served

MOVES = ("Missing pixels", "Too few pixels", "Noise alone", "Blur")       # each brings widgets of its own
WIDGETS = ("Share that is kept", "Factor", "Noise (standard deviation, white is 1)", "Width of the blur, pixels")


def main() -> None:
    with served() as (browser, address):
        say("The first page can be used after {:.1f} s, the next visitor's after {:.1f} s.".format(
            *(first_page(browser, address) for _ in range(2))))
        page = opened(browser, address)
        say(f"A 256 x 256 deblur shows its first estimate {first_estimate(page):.1f} s after the button.")
        waits = [change(page, *move) for move in zip(MOVES, WIDGETS, strict=True)]
        say(f"While it runs, another task has its widgets on the page after {min(waits):.2f} to {max(waits):.2f} s.")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def opened(browser: Any, address: str) -> Any:
    """A new visitor's page, once its button can be pressed."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.goto(address)
    page.get_by_role("button", name="Restore", exact=True).wait_for()
    return page


def first_page(browser: Any, address: str) -> float:
    began = time.monotonic()
    opened(browser, address)
    return time.monotonic() - began


def first_estimate(page: Any) -> float:
    began = time.monotonic()
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_role("img", name="The estimate so far").wait_for()
    return time.monotonic() - began


def change(page: Any, task: str, widget: str) -> float:
    """Choose a task; until its widget is there."""
    page.get_by_role("combobox", name="What happened to it").click()
    began = time.monotonic()
    page.get_by_role("option", name=task, exact=True).click()
    page.get_by_text(widget, exact=True).first.wait_for()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
