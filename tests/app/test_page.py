"""A lab page without a browser: what it shows, refuses, and survives."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import time
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.frame import cards, confirmed, look, page
from app.frame.runs import server_jobs
from app.frame.share import qr_code
from app.frame.state import VIEW_KEYS, decode, encode, of_preset
from app.server import SCRIPT
from sims.engine import all_labs, confirmations, execute, get_lab
from sims.engine.budget import command_line, estimate
from sims.engine.jobs import Jobs
from sims.engine.keys import run_key
from sims.engine.store import Store
from sims.engine.warm import warm
from tests.app.samples import PRESETS

LABS = all_labs()
LAB = get_lab("label_noise")
SMALL = {"v": "2", "preset": "shape_matters", "steps": "60", "n_train": "5", "dim": "8", "sparsity": "2"}


def lab_script(lab_id):
    from app.frame.page import lab_page

    lab_page(lab_id)


def opened(lab_id="label_noise", expect=True, wait=True, **query):
    """The page of a lab, once its runs have ended."""
    app = AppTest.from_function(lab_script, kwargs={"lab_id": lab_id}, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    for fold in ("runs", "why", "rerun"):
        app.session_state[f"fold/{fold}"] = True
    app.run()
    while wait and any(button.label == "Stop" for button in app.button):  # a busy machine shows its progress meanwhile
        time.sleep(0.2)
        app.run()
    if expect:
        assert_sound(app)
    return app


def assert_sound(app):
    assert not app.exception
    assert not app.error, [box.value for box in app.error]


def preset_query(lab, preset):
    return {"preset": preset} if preset != lab.presets[0].id else {}


def shown_key(app):
    """The key that the page shows, at the length it shows."""
    return re.search(r"Key `([0-9a-f]{16})`, trace `([0-9a-f]{16})`", " ".join(c.value for c in app.caption)).groups()


def held(app, lab_id="label_noise"):
    return app.session_state[f"state/{lab_id}"]


def address(app):
    """The query, each name with the list of its values."""
    return {name: [v] if isinstance(v, str) else list(v) for name, v in app.query_params.items()}


def unescaped(text):
    return text.replace("\\", "")


def player_labels(app, lab):
    """The run labels in the table of end values."""
    tables = [table.value for table in app.table]
    label = lab.quantity(next(iter(lab.series))).label
    return next(list(table.columns) for table in tables if label in table.index)


@pytest.fixture(autouse=True)
def own_server(monkeypatch):
    """Each test has a server of its own: its jobs, which no gallery's pictures are drawn with, and a store."""
    monkeypatch.setattr(cards, "draw_missing", lambda labs: None)
    server_jobs.cache_clear()
    st.cache_resource.clear()
    yield
    server_jobs.cache_clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def warmed(tmp_path_factory):
    """A store after `python -m sims warm`."""
    store = Store(tmp_path_factory.mktemp("warmed") / "store")
    warm(store)
    return store.path


@pytest.fixture
def warm_store(warmed, own_store):
    shutil.copytree(warmed, own_store)
    return own_store


# -- pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lab_id", "preset"), PRESETS)
def test_every_preset_opens(lab_id, preset):
    lab = get_lab(lab_id)
    app = opened(lab_id, **preset_query(lab, preset))
    assert not app.warning
    assert app.title[0].value == lab.title
    assert player_labels(app, lab) == [lab.preset(preset).label, *lab.preset(preset).beside]
    assert any(lab.preset(preset).notice in text.value for text in app.markdown)
    assert shown_key(app)[0] == run_key(lab, lab.focus(lab.preset(preset)))[:16]


def test_the_default_page_is_served_from_the_warmed_store(warm_store):
    app = opened()
    assert player_labels(app, LAB) == ["label noise", "gradient descent", "mini-batch noise", "Gaussian noise"]
    wanted = {run_key(LAB, params) for params in LAB.runs(LAB.presets[0]).values()}
    assert all(server_jobs().recall(key).cached for key in wanted)
    # What its pictures need besides is computed once, and stored.
    assert server_jobs().computed <= 1
    server_jobs.cache_clear()
    opened()
    assert server_jobs().computed == 0


def test_home_leads_to_every_lab_and_the_app_navigates():
    app = AppTest.from_file(SCRIPT, default_timeout=60).run()
    assert_sound(app)
    assert app.title[0].value == "Chalkline"
    assert {lab.title for lab in LABS} == {header.value for header in app.header}


def test_the_page_shows_the_run_that_python_computes():
    app = opened(**SMALL)
    params = held(app).focus
    assert params.changed() == {"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2}
    run = execute(LAB, params)
    assert shown_key(app) == (run.key[:16], run.trace_sha256[:16])


def test_a_page_is_rerun_without_computing_drawing_or_packing_again(monkeypatch):
    player = sys.modules["app.frame.player"]
    packed, pack = [], player.pack

    def counted(pictures, **looks):
        packed.append(looks["key"])
        return pack(pictures, **looks)

    monkeypatch.setattr(player, "pack", counted)
    app = opened(**{**SMALL, "seed": "271828"})
    before, first = server_jobs().computed, list(packed)
    assert any(key.startswith(f"player/{LAB.id}/") for key in first)
    app.run()
    assert_sound(app)
    assert server_jobs().computed == before
    assert packed == first, "the messages of the pictures were made anew"


# -- widgets ----------------------------------------------------------------------------------------------------


def test_a_slider_changes_the_run_and_the_address():
    app = opened(**SMALL)
    before = shown_key(app)
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02).run()
    assert_sound(app)
    assert shown_key(app) != before
    assert held(app).focus.learning_rate == 0.02
    assert address(app)["learning_rate"] == ["0.02"]
    assert address(app)["v"] == [str(LAB.version)]
    again = opened(**{name: values for name, values in address(app).items() if name != "learning_rate"})
    assert shown_key(again) == before


def test_two_changes_that_arrive_together_both_count():
    """A visitor may move a second slider before the page has answered the first."""
    app = opened(**SMALL)
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02)
    app.slider(key="form/label_noise/n_train/widget").set_value(7)
    app.run()
    assert_sound(app)
    assert held(app).focus.changed() == {"learning_rate": 0.02, "n_train": 7, "steps": 60, "dim": 8, "sparsity": 2}


def test_a_refused_change_is_one_sentence_and_keeps_the_state():
    app = opened(**SMALL)
    before = shown_key(app)
    app.toggle(key="form/label_noise/exact").set_value(True).run()
    app.text_input(key="form/label_noise/sparsity/text").set_value("9").run()
    assert not app.exception
    assert len(app.error) == 1
    assert "sparsity = 9 is not possible" in unescaped(app.error[0].value)
    assert shown_key(app) == before
    assert app.text_input(key="form/label_noise/sparsity/text").value == "2"


def test_inactive_widgets_go_with_the_algorithm():
    app = opened(**SMALL)
    assert any(slider.key == "form/label_noise/noise_std/widget" for slider in app.slider)
    app.selectbox(key="form/label_noise/algorithm/widget").set_value("gd").run()
    assert_sound(app)
    assert not any(slider.key == "form/label_noise/noise_std/widget" for slider in app.slider)
    assert "noise_std" not in app.query_params


def test_a_preset_is_chosen_and_replaces_everything():
    app = opened(**SMALL)
    app.button_group(key="preset/label_noise").set_value("too_few_samples").run()
    assert_sound(app)
    assert held(app) == of_preset(LAB, "too_few_samples")
    assert address(app) == encode(LAB, of_preset(LAB, "too_few_samples"))
    app.button_group(key="preset/label_noise").set_value("shape_matters").run()
    assert_sound(app)
    assert address(app) == {}, "the default page has a bare address"


def test_a_run_is_kept_for_comparison_and_removed_again():
    app = opened(**SMALL)
    first = shown_key(app)
    app.button(key="pin").click().run()
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02).run()
    assert_sound(app)
    (label,) = held(app).beside
    assert run_key(LAB, held(app).beside[label])[:16] == first[0]
    assert shown_key(app) != first
    assert len(player_labels(app, LAB)) == 2
    assert address(app)["beside"][0].startswith(f"{label}~")
    again = opened(**address(app))
    assert shown_key(again) == shown_key(app)
    assert held(again) == held(app)
    app.button(key=f"unpin/{label}").click().run()
    assert_sound(app)
    assert not held(app).beside
    assert "beside" not in app.query_params


def test_one_comparison_too_many_is_refused():
    app = opened(**SMALL)
    for _ in range(7):
        app.button(key="pin").click().run()
    assert_sound(app)
    assert len(held(app).beside) == 6
    assert [toast for toast in app.toast if "At most 6 runs" in toast.value]


@pytest.mark.parametrize("x", ["log_step", "slow_time"])
def test_the_horizontal_axis_can_be_changed(x):
    app = opened(**SMALL)
    app.button_group(key="x/label_noise").set_value(x).run()
    assert_sound(app)


def test_the_projector_mode_comes_from_the_address_and_has_a_way_out():
    app = opened(present="1", **SMALL)
    assert app.button(key="projector").label == "Leave projector mode"
    app.selectbox(key="preset/label_noise").set_value("too_few_samples").run()
    assert_sound(app)
    assert held(app).preset == "too_few_samples"
    assert address(app)["present"] == ["1"]
    app.button(key="projector").click().run()
    assert_sound(app)
    assert "present" not in app.query_params
    assert held(app).preset == "too_few_samples"
    assert app.button(key="projector").label == "Projector mode"


# -- a lecture ---------------------------------------------------------------------------------------------------


def test_the_tour_leads_through_every_preset_and_back():
    app = opened(preset="too_few_samples")
    ids = [preset.id for preset in LAB.presets]
    at = ids.index("too_few_samples")
    app.button(key="tour/Next").click().run()
    assert_sound(app)
    assert held(app) == of_preset(LAB, ids[at + 1])
    for _ in range(2):
        app.button(key="tour/Previous").click().run()
    assert_sound(app)
    assert held(app) == of_preset(LAB, ids[at - 1])


@pytest.mark.parametrize(("end", "button"), [(0, "Previous"), (-1, "Next")])
def test_the_tour_ends_at_the_first_and_at_the_last_preset(end, button):
    app = opened(**({"preset": LAB.presets[end].id} if end else {}))
    assert app.button(key=f"tour/{button}").disabled
    assert not app.button(key=f"tour/{'Next' if button == 'Previous' else 'Previous'}").disabled


def test_the_keys_of_the_tour_are_those_of_a_clicker_on_a_projector():
    for query, keys in (({}, ["B", "N"]), ({"present": "1"}, ["PageUp", "PageDown"])):
        app = opened(**SMALL, **query)
        shown = [app.button(key=f"tour/{name}").proto.shortcut for name in ("Previous", "Next")]
        assert shown == [key.lower() for key in keys]


def test_runs_side_by_side_are_compared_field_by_field():
    app = opened(**SMALL)
    assert not any("parameter" in (table.value.index.name or "") for table in app.table), "nothing to compare"
    app.button(key="pin").click().run()
    app.selectbox(key="form/label_noise/algorithm/widget").set_value("gd").run()
    assert_sound(app)
    (table,) = [table.value for table in app.table if table.value.index.name == "parameter"]
    focus, beside = held(app).focus.active(), next(iter(held(app).beside.values())).active()
    differing = [name for name in LAB.params.fields() if focus.get(name) != beside.get(name)]
    assert len(table) == len(differing) > 1
    assert table.loc["algorithm"].tolist() == ["gd", "gd_label_noise"]
    assert "–" in table.iloc[:, 0].tolist(), "a field without a meaning for this run"


def test_equal_runs_differ_in_nothing():
    app = opened(**SMALL)
    app.button(key="pin").click().run()
    assert_sound(app)
    assert any("same parameters" in caption.value for caption in app.caption)


# -- links to give away ------------------------------------------------------------------------------------------


def link_shown(app):
    """The link that the dialog shows, as query names and values; the page's own, without options, is shorter."""
    links = [code.value for code in app.code if code.value.startswith("?")]
    assert len(links) == 2
    return parse_qs(max(links, key=len).removeprefix("?"))


def test_every_option_of_a_link_is_a_control():
    app = opened(**SMALL)
    app.button_group(key="x/label_noise").set_value("log_step").run()
    app.toggle(key="detail/label_noise/replicates").set_value(True).run()
    app.button(key="link").click().run()
    assert_sound(app)
    state = {**encode(LAB, held(app)), "axis": ["log_step"], "show": ["replicates"]}
    assert address(app) == state, "the address holds what is looked at"
    # A run of the whole page closes the dialog, whose controls rerun it alone in a browser: hence the button each time.
    for change in (
        lambda: (app.toggle(key="link/present").set_value(True), app.toggle(key="link/embed").set_value(True)),
        lambda: app.button_group(key="link/theme").set_value("dark_theme"),
    ):
        change()
        app.button(key="link").click().run()
        assert_sound(app)
    view = {"present": ["1"], "embed": ["true"], "embed_options": ["dark_theme"]}
    assert link_shown(app) == {**state, **view}
    assert any("<iframe" in code.value and "embed=true&amp;" in code.value for code in app.code)
    assert len(app.get("image")) == 1
    again = opened(**{**state, **view})
    assert held(again) == held(app)
    assert again.button_group(key="x/label_noise").value == "log_step"
    assert again.toggle(key="detail/label_noise/replicates").value


def test_a_link_to_the_default_page_says_which_runs_these_are():
    """Its address is bare and follows the lab; a link that is given away means the same when a default changes."""
    app = opened()
    assert address(app) == {}
    app.button(key="link").click().run()
    (link,) = {code.value for code in app.code if code.value.startswith("?")}
    query = parse_qs(link.removeprefix("?"), keep_blank_values=True)
    assert query["v"] == [str(LAB.version)] and len(query["beside"]) == len(LAB.presets[0].beside)
    assert decode(LAB, query) == (held(app), [])


def test_a_link_is_drawn_as_a_code_that_says_the_same():
    link = "http://127.0.0.1:8501/label_noise?v=1&preset=shape_matters&steps=60"
    assert qr_code(link).startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert qr_code(link) != qr_code(link + "1")
    assert qr_code("x" * 4000) is None


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"axis": "sideways"}, "the axis sideways"),
        ({"show": "ghosts"}, "switches on ghosts"),
        ({"range": "error~x:3,1"}, "error~x:3,1"),
    ],
)
def test_an_option_that_is_not_there_is_named_and_the_rest_kept(part, named):
    app = opened(**part, **SMALL)
    assert app.button_group(key="x/label_noise").value == "step"
    assert held(app).focus.steps == 60
    assert [box for box in app.warning if named in unescaped(box.value) and "gnored" in box.value]
    assert not set(part) & set(app.query_params), "the address says what is shown"


def test_no_lab_has_a_field_of_the_name_of_an_option():
    for lab in LABS:
        assert not {*VIEW_KEYS, "v", "preset", "beside"} & lab.params.fields().keys()


def test_inside_a_slide_there_are_title_and_pictures_alone(monkeypatch):
    monkeypatch.setattr(look, "embedded", lambda: True)
    app = opened(**SMALL)
    assert app.title[0].value == LAB.title
    assert app.get("bidi_component"), "the player"
    for kind in ("button", "slider", "select_slider", "selectbox", "button_group", "table", "caption", "expander"):
        assert not app.get(kind), kind
    assert not app.sidebar.children


def test_the_race_of_the_xor_page_is_run_when_asked_for(monkeypatch):
    from app.labs import xor_grokking

    monkeypatch.setattr(xor_grokking, "_RACE_DIMS", (2000, 10**9))
    app = opened("xor_grokking", v="1", preset="textbook", n_train="40", n_test="40", steps="20")
    assert app.button_group(key="x/xor_grokking").value == "log_step", "the axis that its page opens with"
    before = len(app.table)
    app.button(key="race").click().run()
    assert_sound(app)
    assert len(app.table) == before + 1
    (race,) = [table.value for table in app.table if "dimension p" in table.value.columns]
    assert race["dimension p"].tolist() == ["2,000", "1,000,000,000"]
    assert race["brute force, ms"].tolist()[1] == "does not fit" and float(race["Gram space, ms"][0]) > 0
    with xor_grokking._RACE:
        app.button(key="race").click().run()
        assert any("Somebody else is timing" in box.value for box in app.info)


# -- what can go wrong ------------------------------------------------------------------------------------------


def test_the_newest_confirmation_has_a_section_below_the_verdicts(monkeypatch):
    report = confirmations.newest(LAB.id)
    said = confirmations.sentence(report)
    assert report["device_name"] in said and report["created"][:10] in said

    def headings(app):
        return [header.value for header in app.header]

    drawings = []
    real = page.player
    for module in (page, confirmed):
        monkeypatch.setattr(module, "player", lambda drawn, **how: (drawings.extend(drawn), real(drawn, **how)))
    app = opened(**SMALL)
    wanted = ["Pictures", "Does the theory hold here?", "Confirmed by independent experiments"]
    assert [heading for heading in headings(app) if heading in wanted] == wanted
    captions = [unescaped(one.value) for one in app.caption]
    assert captions.count(said) == 1
    for row in report["experiments"]:
        assert any(row["title"] in one.get("note", "") for one in drawings)
    with_triangles = [one for one in drawings if "Triangles, confirmed: " in one.get("note", "")]
    assert len(with_triangles) == 1 and report["device_name"] in with_triangles[0]["note"]
    assert "confirmed" in with_triangles[0]["data"], "points are in the tables"
    monkeypatch.setattr(confirmations, "newest", lambda lab_id: None)
    without = opened(**SMALL)
    assert [heading for heading in headings(without) if heading in wanted] == wanted[:2]
    assert not any("onfirmed" in one.value for one in without.caption)


def test_a_garbled_address_says_what_was_ignored_and_works():
    nonsense = {"colour": "red", "learning_rate": "fast", "beside": ["a~steps:60~x", "![i](http://x/y.png)~steps:60"]}
    app = opened(**SMALL, **nonsense)
    notices = [unescaped(box.value) for box in app.warning]
    assert len(notices) == 3
    for name in ("colour", "learning_rate", "x in the run a"):
        assert any(name in notice for notice in notices)
    assert held(app).focus.changed() == {"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2}
    assert set(app.query_params) == {*SMALL, "beside"}, "the address is set right"
    app.run()
    assert not app.warning, "a notice is shown once"


def test_a_notice_cannot_fetch_a_picture():
    app = opened(**SMALL, **{"![i](http://example.com/i.png)": "1"})
    assert "![i](" not in app.warning[0].value
    assert "![i](http" in unescaped(app.warning[0].value)


def test_a_request_too_large_is_refused_with_its_estimate_and_the_way_out():
    app = opened(expect=False, v="2", preset="shape_matters", n_train="20000", dim="20000")
    assert not app.exception
    (box,) = app.error
    words = unescaped(box.value)
    assert re.search(r"would take about .+ and .+ GB; the limit here is", words)
    assert "python -m sims run label_noise --n-train 20000 --dim 20000" in words
    assert server_jobs().computed == 0
    app.slider(key="form/label_noise/n_train/widget").set_value(5)
    app.slider(key="form/label_noise/dim/widget").set_value(20)
    app.select_slider(key="form/label_noise/steps/widget").set_value(1000).run()
    assert_sound(app)


def test_runs_that_are_too_much_together_are_refused_and_nothing_is_computed(monkeypatch):
    """Each of them alone would pass; the second limit is that of a tab."""
    runs = sys.modules["app.frame.runs"]
    beside = [f"run {n}~steps:{n}00000~n_train:5~dim:8~sparsity:2" for n in range(1, 4)]
    state, _ = decode(LAB, {name: [text] for name, text in SMALL.items()} | {"beside": beside})
    seconds = sum(estimate(LAB, params).seconds for params in (state.focus, *state.beside.values()))
    monkeypatch.setattr(runs, "SESSION_SECONDS", 0.9 * seconds)
    app = opened(expect=False, **SMALL, beside=beside)
    assert not app.exception
    (box,) = app.error
    words = unescaped(box.value)
    assert re.search(r"runs that this page lacks \(4\) would take about .+ together; the limit of one tab is", words)
    assert words.count("python -m sims run label_noise") == 4 and server_jobs().computed == 0
    opened(**SMALL, beside=beside[:1])


def test_a_picture_that_needs_too_much_says_so(monkeypatch):
    runs = sys.modules["app.frame.runs"]
    monkeypatch.setattr(runs, "LIVE_SECONDS", 1e-9)
    shown = []
    monkeypatch.setattr(st, "error", shown.append)
    small = LAB.params.make(steps=60, n_train=5, dim=8, sparsity=2)
    found, missing = runs.fetch(LAB, [small], compute=True)
    assert found == {} and missing == [small] and server_jobs().computed == 0
    assert "would take about" in shown[0]


def test_a_picture_s_runs_are_under_way_a_few_at_a_time(monkeypatch):
    runs, jobs = sys.modules["app.frame.runs"], server_jobs()
    wanted = [LAB.params.make(steps=60, n_train=5, dim=8, sparsity=2, seed=seed) for seed in range(30, 40)]
    keys = [run_key(LAB, params) for params in wanted]
    submit, wait_for = jobs.submit, runs.wait_for
    asked, when_waited = [], {}

    def waited(waiting, seconds):
        (key,) = waiting
        when_waited.setdefault(key, len(asked))
        return wait_for(waiting, seconds)

    monkeypatch.setattr(jobs, "submit", lambda lab, params, *who: asked.append(params) or submit(lab, params, *who))
    monkeypatch.setattr(jobs, "recall", lambda key: None)  # else one that has ended is not waited for
    monkeypatch.setattr(runs, "wait_for", waited)
    found, missing = runs.fetch(LAB, wanted, compute=True)
    assert missing == [] and list(found) == keys and asked == wanted
    assert when_waited == {key: min(len(keys), at + runs.AHEAD) for at, key in enumerate(keys)}


def test_diverged_replicates_are_counted_and_no_error():
    app = opened(preset="edge")
    run = server_jobs().recall(run_key(LAB, held(app).focus))
    assert 0 < run.diverged < run.trace.replicates
    words = f"{run.diverged} of {run.trace.replicates} (mini-batch noise)"
    assert any(words in caption.value for caption in app.caption)


def test_a_run_that_diverged_altogether_is_a_page_too():
    app = opened(v="2", preset="edge", algorithm="minibatch_noise", learning_rate="0.05", steps="2000")
    assert any("4 of 4" in caption.value for caption in app.caption)


def test_a_damaged_stored_run_is_reported_and_computed_again(own_store):
    app = opened(**SMALL)
    key, trace = run_key(LAB, held(app).focus), shown_key(app)
    manifest = Store(own_store)._folder(key) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"lab"', '"LAB"'))
    server_jobs.cache_clear()
    again = opened(**SMALL)
    assert any("is damaged" in box.value for box in again.warning)
    assert shown_key(again) == trace
    assert server_jobs().computed == 1
    assert Store(own_store).verify([key]) == {key: None}


def test_a_store_that_cannot_be_written_costs_a_notice_and_no_result(own_store):
    own_store.parent.mkdir(exist_ok=True)
    own_store.write_text("a file where the folder should be")  # root may write anywhere, but not through this
    app = opened(**SMALL)
    assert any("cannot be written" in box.value for box in app.warning)
    assert shown_key(app)[0] == run_key(LAB, held(app).focus)[:16]
    assert os.path.isfile(own_store)


def test_a_long_run_is_watched_and_stopped_for_good(monkeypatch):
    """Computed in a thread here: a worker process would first run this test's own script."""
    monkeypatch.setattr(sys.modules["sims.engine.jobs"], "THREAD_SECONDS", math.inf)
    for limit in ("LIVE_SECONDS", "SESSION_SECONDS"):
        monkeypatch.setattr(sys.modules["app.frame.runs"], limit, math.inf)
    app = opened(wait=False, v="2", preset="planar", n_train="60", dim="200", steps="1000000000", replicates="1")
    (stop,) = [button for button in app.button if button.label == "Stop"]
    assert re.search(r"about .+ in all", app.get("progress")[0].proto.text)
    stop.click().run()
    for _ in range(2):
        assert_sound(app)
        assert "stopped before it ended" in app.info[0].value
        app.run()
    assert server_jobs().recall(run_key(LAB, held(app).focus)) is None
    app.select_slider(key="form/label_noise/steps/widget").set_value(1000).run()
    assert_sound(app)
    assert not app.info


def test_a_run_in_the_queue_shows_its_place_and_one_for_which_there_is_no_time_its_command(monkeypatch):
    monkeypatch.setattr(sys.modules["sims.engine.jobs"], "THREAD_SECONDS", math.inf)
    monkeypatch.setattr(sys.modules["app.frame.runs"], "PATIENCE_SECONDS", 0.05)
    runs = sys.modules["app.frame.runs"]
    jobs = Jobs(Store(), short=1)
    monkeypatch.setattr(runs, "server_jobs", lambda: jobs)
    endless = LAB.params.make(n_train=5, dim=8, sparsity=2, steps=10**9, replicates=1)
    blockers = [jobs.submit(LAB, endless.replace(seed=seed), f"neighbour {seed}") for seed in (1, 2)]
    while {job.state for job in blockers} != {"running", "waiting"}:
        time.sleep(0.01)
    app = opened(wait=False, **SMALL)
    while not any("number 2 in the queue" in bar.proto.text for bar in app.get("progress")):
        app.run()
    assert re.search(r"begins in about .+, about .+ in all", app.get("progress")[0].proto.text)

    monkeypatch.setattr(runs, "QUEUE_SECONDS", 0.0)
    app.run()
    assert_sound(app)
    assert app.get("progress"), "a run that stands in the queue already stays there"
    other = opened(expect=False, wait=False, **{**SMALL, "steps": "61"})
    said = other.error[0].value
    assert "server is busy" in said and unescaped(said).endswith(command_line(LAB, held(other).focus))
    for job in blockers:
        job.cancel()


def test_a_long_wait_is_looked_at_less_often():
    look_every = sys.modules["app.frame.runs"]._look_every

    def job(ahead, seconds, finished=False):
        budget = None if seconds is None else SimpleNamespace(seconds=seconds)
        return SimpleNamespace(ahead=(1, ahead), budget=budget, finished=lambda: finished)

    assert look_every({"a": job(0.0, None)}) == look_every({"a": job(0.0, 1.0)}) == 0.5
    assert look_every({"a": job(20.0, 2.0), "b": job(0.0, 1.0)}) == pytest.approx(1.1)
    assert look_every({"a": job(500.0, 2.0, finished=True)}) == 0.5
    assert look_every({"a": job(500.0, 2.0)}) == 3.0


def test_a_theory_that_cannot_be_computed_is_a_sentence(monkeypatch):
    def give_up(*_):
        raise ArithmeticError("the projection did not converge")

    monkeypatch.setattr(sys.modules["sims.engine.execute"], "predict", give_up)
    app = opened(expect=False, **SMALL)
    assert not app.exception
    assert any("did not converge" in box.value for box in app.error)
