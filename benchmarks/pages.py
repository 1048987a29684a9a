"""What a visitor waits for in a browser: the first page, a warm page, a slider's answer, playing.

    python -m benchmarks.pages

A server of its own, and one visitor in Chromium. The first comes as soon as `/health` is green, to a
machine whose caches were empty before `python -m sims warm`, as in a fresh container. A page counts as there when its
pictures are drawn; a slider's answer from the key press to the new drawing; the bytes are those of the websocket.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from tests import chromium
from tests.chromium import PLAYER, SHOWN
from tests.house import House

from .report import Goal, Measure, Section, run_alone

CORE = ("label_noise", "xor_grokking", "linear_attention", "augmentation_graph")
ROUNDS = 5
PRESSES = 40
PLAYING_SECONDS = 3.0
FIRST_GOAL, PAGE_GOAL, SLIDER_GOAL, BYTES_GOAL, FRAMES_GOAL = 3.0, 2.0, 0.5, 1e6, 50.0
IS_QUIET = '[data-testid="stApp"][data-test-script-state="notRunning"]'
# Frames drawn, and seconds, until playing ends or the time is up.
PLAYED = """(root, most) => new Promise((done) => {
    const start = performance.now(), before = Number(root.dataset.drawn || 0);
    const look = (now) => root.dataset.playing === "true" && now - start < most
        ? requestAnimationFrame(look) : done([Number(root.dataset.drawn) - before, (now - start) / 1e3]);
    requestAnimationFrame(look);
})"""
FASTEST = "4"  # of the player's speeds


class Visitor:
    """A tab of a fresh browser profile, and the bytes that its websocket has brought."""

    def __init__(self, browser):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page, self.bytes, self.messages = self.context.new_page(), 0, 0
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame):
        self.bytes += len(frame)
        self.messages += 1

    def open(self, url):
        """Seconds until the pictures of a page are drawn."""
        start = perf_counter()
        self.page.goto(url, wait_until="commit")
        self.page.locator(PLAYER).first.wait_for(timeout=120_000)
        seconds = perf_counter() - start
        self.page.locator(IS_QUIET).wait_for()
        return seconds

    def slide(self, key):
        """Press a key on the slider that has the focus: seconds until another drawing is there, and its bytes."""
        before, bytes_ = self.page.evaluate(SHOWN), self.bytes
        start = perf_counter()
        self.page.keyboard.press(key)
        self.page.wait_for_function(f"before => ({SHOWN})() !== before", arg=before, polling="raf", timeout=120_000)
        seconds = perf_counter() - start
        self.page.locator(IS_QUIET).wait_for()
        return seconds, self.bytes - bytes_

    def frames(self):
        """Frames drawn in a second of playing, and the messages that the server sent meanwhile."""
        root = next(
            one for one in self.page.locator(PLAYER).all() if one.get_by_role("button", name="Play").is_visible()
        )
        root.get_by_label("Playback speed").select_option(FASTEST)
        messages = self.messages
        root.get_by_role("button", name="Play").click()
        drawn, seconds = root.evaluate(PLAYED, 1e3 * PLAYING_SECONDS)
        return drawn / seconds, self.messages - messages

    def close(self):
        self.context.close()


def measure():
    """The first visitor, then each core lab's page."""
    section = Section("In the browser", __doc__.split("\n\n", 2)[2].strip())
    program = chromium.program()
    if program is None:
        section.notes.append("Not measured: no Chromium on the path.")
        return section
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="chalkline-bench-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=chromium.SWITCHES)
        house = House(Path(folder), CHALKLINE_CACHE=str(Path(folder) / "cache"))
        try:
            start = perf_counter()
            house.warm()
            section.measures.append(
                Measure("an empty machine: kernels compiled, machine measured", perf_counter() - start, "s")
            )
            start = perf_counter()
            house.start()
            section.measures.append(Measure("a warm machine: the server is healthy after", perf_counter() - start, "s"))
            look_at(section, house, browser)
        finally:
            house.stop()
            browser.close()
    return section


def look_at(section, house, browser):
    from sims.engine import get_lab

    def goal(what, value, bound, at_most=True):
        section.goals.append(Goal(what, value, bound, at_most=at_most))

    visitor = Visitor(browser)
    goal(
        "the first visitor after /health is green, label_noise: seconds",
        visitor.open(f"{house.url}/label_noise"),
        FIRST_GOAL,
    )
    visitor.close()
    for lab in map(get_lab, CORE):
        spent = []
        for _ in range(ROUNDS):
            visitor = Visitor(browser)
            spent.append(visitor.open(f"{house.url}/{lab.id}"))
            if len(spent) < ROUNDS:
                visitor.close()
        goal(f"{lab.title}: from the address to the drawn page, seconds", float(np.median(spent)), PAGE_GOAL)
        slider, name = chromium.a_slider(visitor.page, lab)
        slider.focus()
        answers = [visitor.slide("ArrowRight" if at < PRESSES / 2 else "ArrowLeft") for at in range(PRESSES)]
        seconds, sizes = map(np.array, zip(*answers, strict=True))
        worst = float(np.quantile(seconds, 0.95))
        section.measures.append(
            Measure(f"{lab.title}: a slider's answer, median", 1e3 * float(np.median(seconds)), "ms")
        )
        goal(f"{lab.title}: {name} to the new drawing, 95 of 100 within seconds", worst, SLIDER_GOAL)
        goal(f"{lab.title}: bytes of a result, at most", float(sizes.max()), BYTES_GOAL)
        frames, messages = visitor.frames()
        goal(f"{lab.title}: frames a second while it plays", frames, FRAMES_GOAL, at_most=False)
        goal(f"{lab.title}: messages from the server while it plays", messages, 0)
        visitor.close()


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
