"""What a visitor waits for in a browser: the first page, a warm page, a slider's answer, playing.

    python -m benchmarks.pages

A server of its own, and one visitor in Chromium, on the same two cores. The first comes as soon as `/health` is green
after `python -m sims warm`, as in a fresh container. A page counts as there when its pictures are drawn: for a browser
that was never here, and, as a lecturer's or a student's is after the first page, for one that has the app's scripts in
its cache. A slider's answer is from the key press to the new drawing, back and forth along the slider, so that half of
the answers are computed and half are at hand; the bytes are the websocket's. While a run plays, the browser's own
frames are counted, and how many positions of training it drew: a run has so many.
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
ROUNDS = 4
PRESSES = 30
PLAYING_SECONDS = 3.0
FIRST_GOAL, PAGE_GOAL, SLIDER_GOAL, BYTES_GOAL, FRAMES_GOAL = 3.0, 2.0, 0.5, 1e6, 50.0
IS_QUIET = '[data-testid="stApp"][data-test-script-state="notRunning"]'
# Frames of the browser, positions drawn, and seconds, until playing ends or the time is up.
PLAYED = """(root, most) => new Promise((done) => {
    const start = performance.now(), before = Number(root.dataset.drawn || 0);
    let frames = 0;
    const look = (now) => {
        frames += 1;
        if (root.dataset.playing === "true" && now - start < most) requestAnimationFrame(look);
        else done([frames, Number(root.dataset.drawn) - before, (now - start) / 1e3]);
    };
    requestAnimationFrame(look);
})"""
FASTEST = "4"  # of the player's speeds
WHY_FIRST = (
    "Profiled: the result is with the browser after half of the time; the rest is its first compilation of Streamlit's "
    "and Vega's scripts, 5 MB, drawn in software on the cores that also serve."
)
WHY_SLIDER = (
    "Profiled: for each answer the browser works 0.3 to 0.5 s, most of it React's update of some seventy elements, "
    "on the two hardware threads that also compute; towards the end of its slider a run of linear attention is a third "
    "of a second of processor time, and its drawing three quarters of a megabyte. What is at hand is drawn in 0.2 to "
    "0.3 s."
)


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

    def slide(self, forward):
        """Move the slider that has the focus by a step: seconds until another drawing is there, and its bytes."""
        before, bytes_ = self.page.evaluate(SHOWN), self.bytes
        start = perf_counter()
        self.page.keyboard.press("ArrowRight" if forward else "ArrowLeft")
        self.page.wait_for_function(f"before => ({SHOWN})() !== before", arg=before, polling="raf", timeout=120_000)
        seconds = perf_counter() - start
        self.page.locator(IS_QUIET).wait_for()
        return seconds, self.bytes - bytes_

    def frames(self):
        """Of a second of playing the browser's frames and the positions drawn, and all messages of the server."""
        root = next(
            one for one in self.page.locator(PLAYER).all() if one.get_by_role("button", name="Play").is_visible()
        )
        root.get_by_label("Playback speed").select_option(FASTEST)
        messages = self.messages
        root.get_by_role("button", name="Play").click()
        frames, drawn, seconds = root.evaluate(PLAYED, 1e3 * PLAYING_SECONDS)
        return frames / seconds, drawn / seconds, self.messages - messages

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
        house = House(Path(folder))
        try:
            house.warm()
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

    def goal(what, value, bound, at_most=True, reason=""):
        section.goals.append(Goal(what, value, bound, at_most=at_most, reason=reason))

    visitor = Visitor(browser)
    goal(
        "the first visitor after /health is green, label_noise: seconds",
        visitor.open(f"{house.url}/label_noise"),
        FIRST_GOAL,
        reason=WHY_FIRST,
    )
    visitor.close()
    for lab in map(get_lab, CORE):
        visitor = Visitor(browser)
        first, *spent = (visitor.open(f"{house.url}/{lab.id}") for _ in range(1 + ROUNDS))
        section.measures.append(Measure(f"{lab.title}: the page, for a browser that was never here", first, "s"))
        goal(f"{lab.title}: from the address to the drawn page, seconds", float(np.median(spent)), PAGE_GOAL)
        slider, name = chromium.a_slider(visitor.page, lab)
        slider.focus()
        answers, forward = [], True
        for _ in range(PRESSES):
            at, least, most = slider.evaluate("one => [one.value, one.min, one.max].map(Number)")
            forward = at < most and (forward or at <= least)
            answers.append(visitor.slide(forward))
        seconds, sizes = map(np.array, zip(*answers, strict=True))
        worst = float(np.quantile(seconds, 0.95))
        section.measures.append(
            Measure(f"{lab.title}: a slider's answer, median", 1e3 * float(np.median(seconds)), "ms")
        )
        goal(f"{lab.title}: {name} to the new drawing, 95 of 100 within seconds", worst, SLIDER_GOAL, reason=WHY_SLIDER)
        goal(f"{lab.title}: bytes of a result, at most", float(sizes.max()), BYTES_GOAL)
        frames, drawn, messages = visitor.frames()
        section.measures.append(Measure(f"{lab.title}: positions of training drawn in a second", drawn, ""))
        goal(f"{lab.title}: frames a second while it plays", frames, FRAMES_GOAL, at_most=False)
        goal(f"{lab.title}: messages from the server while it plays", messages, 0)
        visitor.close()


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
