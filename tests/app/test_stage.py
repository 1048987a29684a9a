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


def is_free(stage: Stage) -> bool:
    """Whether somebody else could draw now."""
    found: list[bool] = []

    def other() -> None:
        found.append(stage._place.acquire(blocking=False))
        if found[0]:
            stage._place.release()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return found[0]


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
    assert most == [1] and is_free(stage)


def test_a_script_that_waits_steps_aside_and_comes_back() -> None:
    stage = Stage(60.0)
    with stage.taken():
        assert not is_free(stage)
        with stage.aside():
            assert is_free(stage)
            with stage.aside():
                assert is_free(stage)
            assert is_free(stage)
        assert not is_free(stage)
    assert is_free(stage)


def test_what_never_had_a_place_waits_without_one() -> None:
    stage = Stage(60.0)
    with stage.aside():
        assert is_free(stage)
    assert is_free(stage)


def test_a_script_that_fails_or_is_stopped_leaves_its_place() -> None:
    class Stopped(BaseException):
        """As Streamlit stops a script."""

    stage = Stage(60.0)
    for where in (contextlib.nullcontext, stage.aside):
        with pytest.raises(Stopped), stage.taken(), where():
            raise Stopped
    assert is_free(stage)


def test_nobody_waits_for_ever_for_a_script_that_does_not_end() -> None:
    stage, drawn = Stage(0.01), threading.Event()

    def script() -> None:
        with stage.taken():
            drawn.set()

    with stage.taken():
        thread = threading.Thread(target=script)
        thread.start()
        thread.join()
        assert drawn.is_set() and not is_free(stage), "the place is still the first one's"
    assert is_free(stage)


def test_the_apps_script_draws_with_the_place_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(frame, "run", lambda *pages: seen.append(is_free(STAGE)))
    script = Path(__file__).parents[2] / "app" / "main.py"
    shown = AppTest.from_file(str(script), default_timeout=60).run()
    assert not shown.exception and seen == [False] and is_free(STAGE)


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
    assert is_free(STAGE)
    job.cancel()
    thread.join()
    assert seen == [True] and is_free(STAGE)


def test_a_page_whose_runs_are_there_does_not_step_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Jobs(None).submit(LAB, SMALL)
    job.result(60)
    monkeypatch.setattr(Stage, "aside", lambda stage: pytest.fail("it had nothing to wait for"))
    with STAGE.taken():
        assert runs.wait_for({"a": job}, 60.0)


def test_a_figure_is_rendered_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def rendered(*command: object, **options: object) -> object:
        seen.append(is_free(STAGE))
        return type("Done", (), {"stdout": b"<svg/>"})

    monkeypatch.setattr(export.subprocess, "run", rendered)  # type: ignore[attr-defined]
    with STAGE.taken():
        assert export.drawn({}, "svg") == b"<svg/>"
    assert seen == [True]
