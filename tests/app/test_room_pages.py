"""What stands around a lab's page, without a browser: the activity beside it, the room's bar, everyone's ensemble."""

from __future__ import annotations

import sys
import time

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.frame.runs import server_jobs
from app.room import ensemble, me
from app.room.store import Guess, Question
from app.server import SCRIPT
from sims.engine import get_lab
from sims.engine.keys import run_key
from sims.engine.pool import Family

LAB = get_lab("label_noise")
FIELDS = {"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2}
SMALL = {"v": str(LAB.version), "preset": "shape_matters", **{name: str(value) for name, value in FIELDS.items()}}
PARAMS = LAB.params.make(FIELDS)


@pytest.fixture(autouse=True)
def own_server():
    """Each test has a server of its own: its jobs, its pools and its rooms."""
    for cached in (server_jobs, ensemble.server_pools, me.rooms):
        cached.cache_clear()
    st.cache_resource.clear()
    yield
    for cached in (server_jobs, ensemble.server_pools, me.rooms):
        cached.cache_clear()
    st.cache_resource.clear()


def front(**query):
    """The app's front page."""
    app = AppTest.from_file(str(SCRIPT), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def lab_script(lab_id):
    """A lab's page with what stands around it."""
    from types import SimpleNamespace

    from app.frame.page import lab_page
    from app.room import frame

    page = SimpleNamespace(url_path=lab_id, run=lambda: lab_page(lab_id, frame.asked_instead))
    frame.run(page, {lab_id: page}, None)


def opened(**query):
    app = AppTest.from_function(lab_script, kwargs={"lab_id": LAB.id}, default_timeout=60)
    for name, value in {**SMALL, **query}.items():
        app.query_params[name] = value
    return settled(app.run())


def settled(app):
    """The page once its runs have ended; a busy machine shows their progress meanwhile."""
    while any(button.label == "Stop" for button in app.button):
        time.sleep(0.2)
        app.run()
    assert not app.exception and not app.error
    return app


def test_rooms_can_be_switched_off(monkeypatch, own_store):
    monkeypatch.setenv("CHALKLINE_ROOMS", "off")
    app = front(room="KXQZ")
    assert not app.exception and "room" not in app.query_params
    assert any("Rooms are switched off" in box.value for box in app.warning)
    assert not own_store.with_name("rooms.sqlite").exists()


def panel_script():
    from app.room.panel import room_page

    room_page({}, "room")


def test_a_file_that_cannot_be_used_is_told_where_rooms_are_opened(own_store):
    own_store.parent.mkdir(parents=True, exist_ok=True)
    own_store.with_name("rooms.sqlite").write_bytes(b"this is no database" * 100)
    app = AppTest.from_function(panel_script, default_timeout=60).run()
    (told,) = [box.value for box in app.warning]
    assert "is damaged, and was set aside" in told
    settled(button(app, "Open a room").click().run())
    assert told in [box.value for box in app.warning] and app.title[0].value.startswith("Room ")


def texts(app):
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.info, *app.warning])


def button(app, words):
    (found,) = [one for one in app.button if one.label == words]
    return found


# -- beside the lab ----------------------------------------------------------------------------------------------------


def test_an_activity_is_worked_through_step_by_step_beside_the_lab():
    app = opened(guide="label_noise")
    assert any("Step 1 of 6" in bar.proto.text for bar in app.get("progress"))
    settled(button(app, "Next step").click().run())
    assert app.query_params["at"] in ("2", ["2"]), "a reload goes on here"
    assert "How far from the truth does it end" in texts(app)
    app.radio[0].set_value(0)
    settled(app.run())
    assert "Not that one" in texts(app)
    app.radio[0].set_value(1)
    settled(app.run())
    assert "✓ Yes." in texts(app)
    assert "Gradient descent without noise stops" in "\n".join(
        one.value for fold in app.expander for one in fold.markdown
    )
    settled(button(app, "Show: The lab as it starts").click().run())
    assert app.session_state[f"state/{LAB.id}"].focus == LAB.params.make(), "the page is at the state of the link"


def test_a_sheet_is_shown_whole():
    app = opened(guide="label_noise-sheet")
    text = texts(app)
    assert all(f"{number}. " in text for number in range(1, 6)) and not app.get("progress")


def test_a_strangers_activity_brings_words_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("CHALKLINE_ACTIVITIES", str(tmp_path))
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)> **bold** [run](javascript:alert(1))"
    head = f"---\ntitle: <b>x</b> ![a](b)\nlab: {LAB.id}\nminutes: 1\n---\n"
    (tmp_path / "evil.md").write_text(
        f"{head}{evil}\n\n- [ ] {evil}\n- [ ] no\n\n<details><summary>{evil}</summary>{evil}"
    )
    app = opened(guide="evil")
    written = [one.proto for one in app.markdown if "alert" in one.value]
    assert written and not any(proto.allow_html for proto in written)
    assert not [one for one in app.get("html") if "alert" in one.proto.body]
    assert "javascript:" not in texts(app)


def test_an_activity_or_step_that_is_not_there_opens_nothing():
    app = opened(guide="../../etc/passwd", at="99")
    assert not [bar for bar in app.get("progress") if "Step" in bar.proto.text]
    app = opened(guide="label_noise", at="99")
    assert any("Step 6 of 6" in bar.proto.text for bar in app.get("progress"))


def test_controls_can_be_hidden_by_link():
    assert any(one.label == "Next" for one in opened().button)
    bare = opened(controls="off")
    assert not bare.sidebar.button and not any(one.label == "Next" for one in bare.button)
    assert bare.title[0].value == LAB.title and "controls" in bare.query_params


# -- in a room ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def room():
    """A room whose teacher shows the small page."""
    rooms = me.rooms()
    room, _ = rooms.open(seed=77)
    return rooms.show(room.code, LAB.id, {name: [value] for name, value in SMALL.items()})


def test_a_student_runs_a_replicate_of_the_rooms_seed(room):
    for number in range(3):
        app = opened(room=room.code)
        focus = app.session_state[f"state/{LAB.id}"].focus
        assert focus == PARAMS.replace(seed=77, first_replicate=number, replicates=1)
        assert f"your replicate: {number}" in texts(app)
        time.sleep(ensemble.FRESH_SECONDS)  # for so long everybody is shown what was found last
        assert f"{number + 1} of {number + 1} computed" in texts(app.run())
    found = Family(server_jobs().store, LAB, PARAMS.replace(seed=77)).pool()
    assert found.numbers == (0, 1, 2)


def test_without_an_ensemble_a_student_has_the_teachers_own_run(room):
    me.rooms().set(room.code, ensemble=False)
    app = opened(room=room.code)
    assert app.session_state[f"state/{LAB.id}"].focus == PARAMS
    assert not [one for one in app.toggle if one.label == "Everyone's ensemble"]


def test_the_teacher_may_take_the_controls_from_those_who_follow(room):
    me.rooms().set(room.code, controls=False)
    assert not any(one.label == "Next" for one in opened(room=room.code).button)
    assert any(one.label == "Next" for one in opened(room=room.code, detached="1").button)


@pytest.mark.parametrize("hides", ["theory", "simulation", "both"])
def test_while_the_class_guesses_nothing_gives_the_answer_away(room, hides):
    me.rooms().ask(room.code, Question("Up?", LAB.id, choices=("yes", "no"), right=1, hides=hides))
    app = opened(room=room.code)
    assert "until the answer is revealed" in texts(app) and "**Up?**" in texts(app)
    assert not app.header and not app.table and not app.get("download_button"), "no verdict, no number, no file"
    assert LAB.presets[0].notice not in texts(app)
    app.radio[0].set_value(1)
    app.run()
    assert me.rooms().guesses(room.code, 1)[0].choice == 1 and "Your guess is in" in texts(app)
    me.rooms().reveal(room.code)
    settled(app.run())
    assert "Does the theory hold here?" in [head.value for head in app.header]
    assert any("1 of 1 · your guess **✓ the outcome**" in bar.proto.text for bar in app.get("progress"))


def test_what_is_hidden_is_not_shown_while_it_is_computed(room, monkeypatch):
    """A long run is drawn as it goes on; not while the class is to guess it."""
    monkeypatch.setattr(sys.modules["app.frame.runs"], "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys.modules["sims.engine.jobs"], "THREAD_SECONDS", 1e9)
    long = {**SMALL, "steps": "100000000", "replicates": "1"}
    monkeypatch.setattr(sys.modules["app.frame.runs"], "LIVE_SECONDS", 1e9)
    me.rooms().show(room.code, LAB.id, {name: [value] for name, value in long.items()})
    me.rooms().ask(room.code, Question("Up?", LAB.id, choices=("yes", "no"), hides="simulation"))
    app = AppTest.from_function(lab_script, kwargs={"lab_id": LAB.id}, default_timeout=60)
    app.query_params["room"] = room.code
    app.run()
    assert any(one.label == "Stop" for one in app.button) and not app.get("vega_lite_chart")
    me.rooms().reveal(room.code)
    app.run()
    assert app.get("vega_lite_chart")
    button(app, "Stop").click().run()


def test_the_classs_screen_shows_the_way_in_and_then_what_the_class_is_asked(room):
    rooms = me.rooms()
    empty, _ = rooms.open()
    waiting = AppTest.from_function(panel_script, default_timeout=60)
    for name, value in {"room": empty.code, "screen": "1"}.items():
        waiting.query_params[name] = value
    settled(waiting.run())
    assert [one for one in waiting.code if f"room={empty.code}" in one.value]
    assert not waiting.button, "it has no controls"

    def has_band(app):
        return any(one.label == "Everyone's ensemble" for one in app.toggle)

    assert has_band(opened(room=room.code, screen="1"))
    rooms.ask(room.code, Question("Where?", LAB.id, kind="point", hides="simulation"))
    rooms.guess(room.code, rooms.join(room.code).token, 1, Guess(x=30.0, y=1.0))
    rooms.reveal(room.code)
    app = opened(room=room.code, screen="1")
    assert "**Where?**" in texts(app) and not has_band(app), "the guesses are not pushed off the screen"


def test_who_has_guessed_and_left_is_counted_without_nonsense(room):
    rooms = me.rooms()
    rooms.ask(room.code, Question("Up?", LAB.id, choices=("yes", "no")))
    for _ in range(3):
        rooms.guess(room.code, rooms.join(room.code).token, 1, Guess(choice=0))
    assert "3 have guessed." in texts(opened(room=room.code))


def test_two_runs_that_disagree_raise_the_alarm_on_the_page(room, monkeypatch):
    monkeypatch.setattr(ensemble.Pools, "look", lambda self, lab, params: (None, "Replicate 1 was computed twice"))
    app = opened(room=room.code)
    app.toggle(key="room/band").set_value(True).run()
    assert any("computed twice" in box.value for box in app.error)


def test_outside_of_a_room_all_that_is_stored_can_be_pooled_too():
    for first in (0, 4):
        server_jobs().submit(LAB, PARAMS.replace(first_replicate=first), "x", str(first)).result(60)
    app = opened()
    app.session_state["fold/ensemble"] = True
    app.run()
    assert "8 computed" in texts(app) and "--replicates 8" in texts(app)
    assert not server_jobs().store.holds(run_key(LAB, PARAMS.replace(replicates=8))), "nothing was computed for it"
