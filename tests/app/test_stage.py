"""One script at a time: order, stepping aside, and nobody stuck behind one that never ends."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.frame import export, runs
from app.frame.stage import STAGE, Stage
from app.room import frame
from sims.engine import get_lab
from sims.engine.jobs import Jobs

LAB = get_lab("label_noise")
SMALL = LAB.params.make(steps=60, n_train=5, dim=8, sparsity=2, replicates=1)


def test_one_script_at_a_time_draws() -> None:
    stage, at_once, most = Stage(60.0), [0], [0]

    def script() -> None:
        with stage.taken():
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            time.sleep(0.002)
            at_once[0] -= 1

    threads = [threading.Thread(target=script) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and stage.is_free()


def test_a_script_that_waits_steps_aside_and_comes_back() -> None:
    stage = Stage(60.0)
    with stage.taken():
        assert not stage.is_free()
        with stage.aside():
            assert stage.is_free()
            with stage.aside():
                assert stage.is_free()
            assert stage.is_free()
        assert not stage.is_free()
    assert stage.is_free()


def test_what_never_had_a_place_waits_without_one() -> None:
    stage = Stage(60.0)
    with stage.aside():
        assert stage.is_free()
    assert stage.is_free()


def test_a_script_that_fails_or_is_stopped_leaves_its_place() -> None:
    class Stopped(BaseException):
        """As Streamlit stops a script."""

    stage = Stage(60.0)
    for where in (contextlib.nullcontext, stage.aside):
        with pytest.raises(Stopped), stage.taken(), where():
            raise Stopped
    assert stage.is_free()


def test_scripts_draw_in_the_order_in_which_they_came() -> None:
    stage, drawn = Stage(60.0), []

    def script(number: int) -> None:
        with stage.taken():
            drawn.append(number)

    threads = []
    with stage.taken():
        for number in range(8):
            threads.append(threading.Thread(target=script, args=(number,)))
            threads[-1].start()
            while len(stage._line) <= number:
                time.sleep(0.001)
        with stage.aside():
            for thread in threads:
                thread.join()
            assert drawn == list(range(8))
    assert stage.is_free()


def test_a_script_that_draws_for_long_goes_on_beside_the_next() -> None:
    """Whoever took its place has it, and gives it on: that the slow one ends frees nothing twice."""
    stage, at, go_on = Stage(0.01), [], threading.Event()

    def script() -> None:
        with stage.taken():
            at.append("drawing")
            go_on.wait()

    with stage.taken():
        thread = threading.Thread(target=script)
        thread.start()
        while not at:
            time.sleep(0.001)
    assert not stage.is_free(), "the place is the second one's now"
    go_on.set()
    thread.join()
    assert stage.is_free()
    with stage.taken():
        assert not stage.is_free()


def test_the_apps_script_draws_with_the_place_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(frame, "run", lambda *pages: seen.append(STAGE.is_free()))
    script = Path(__file__).parents[2] / "app" / "main.py"
    shown = AppTest.from_file(str(script), default_timeout=60).run()
    assert not shown.exception and seen == [False] and STAGE.is_free()


def test_a_page_that_waits_for_a_run_lets_others_draw() -> None:
    job = Jobs(None).submit(LAB, SMALL.replace(steps=10**9))
    seen: list[bool] = []

    def script() -> None:
        with STAGE.taken():
            seen.append(runs.wait_for({"a": job}, 60.0))

    thread = threading.Thread(target=script)
    thread.start()
    while not job.monitor.progress.any():
        time.sleep(0.005)
    assert STAGE.is_free()
    job.cancel()
    thread.join()
    assert seen == [True] and STAGE.is_free()


def test_a_page_whose_runs_are_there_does_not_step_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Jobs(None).submit(LAB, SMALL)
    job.result(60)
    monkeypatch.setattr(Stage, "aside", lambda stage: pytest.fail("it had nothing to wait for"))
    with STAGE.taken():
        assert runs.wait_for({"a": job}, 60.0)


def test_a_figure_is_rendered_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def rendered(*command: object, **options: object) -> object:
        seen.append(STAGE.is_free())
        return type("Done", (), {"stdout": b"<svg/>"})

    monkeypatch.setattr(export.subprocess, "run", rendered)  # type: ignore[attr-defined]
    with STAGE.taken():
        assert export.drawn({}, "svg") == b"<svg/>"
    assert seen == [True]
