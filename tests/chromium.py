"""The Chromium that tests, load and benchmarks drive, and what they look for on a lab's page."""

from __future__ import annotations

import os
import shutil
from typing import Any

from sims.engine import Lab

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PLAYER = ".player[data-shown]"
# What all players of the page show, as one text.
SHOWN = """() => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')]
    .map(box => box.shadowRoot?.querySelector('.player')?.dataset.shown).filter(Boolean).join()"""


def program() -> str | None:
    """The system's Chromium (CHALKLINE_BROWSER names another one); None where there is none."""
    return os.environ.get("CHALKLINE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def a_slider(page: Any, lab: Lab) -> tuple[Any, str]:
    """A slider of the lab's form whose move is another run, and its field."""
    for name in lab.focus(lab.presets[0]).active():
        box = page.locator(f".st-key-form-{lab.id}-{name}-widget")
        if box.count() and box.get_by_role("slider").count():
            return box.get_by_role("slider"), name
    raise AssertionError(f"the page of {lab.id} has no slider")
