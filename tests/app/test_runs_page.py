"""This tab's runs: what was drawn is listed, opens again, is compared, and is taken away whole."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
import zipfile

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.frame import seen
from app.frame.runs import View, server_jobs
from app.frame.seen import Seen
from app.frame.state import PageState, of_preset
from app.frame.thumbnail import HEIGHT, WIDTH, thumbnail
from sims.engine import execute, get_lab
from sims.engine.keys import run_key
from sims.engine.rerun import rerun
from sims.engine.store import Store

LAB = get_lab("label_noise")
SMALL = {"v": "2", "preset": "shape_matters", "steps": "60", "n_train": "5", "dim": "8", "sparsity": "2"}


def tab():
    import streamlit as st

    from app.frame.page import lab_page
    from app.runs import runs_page

    pages = {"label_noise": st.Page(lambda: lab_page("label_noise"), title="Lab", url_path="label_noise")}
    lab_page("label_noise")
    chosen = st.navigation([st.Page(lambda: runs_page(pages), title="Runs", default=True), *pages.values()])
    if chosen.title == "Runs":
        chosen.run()


def opened(**query):
    app = AppTest.from_function(tab, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def state(app):
    return app.session_state["state/label_noise"]


def titles(app):
    """The runs of the list, without the headings of the lab's page."""
    of_lab = (
        "Pictures",
        "What the theory says, in numbers",
        "Confirmed by independent experiments",
        "Does the theory hold here?",
    )
    return [head.value for head in app.header if head.value not in of_lab]


@pytest.fixture(autouse=True)
def own_server():
    server_jobs.cache_clear()
    st.cache_resource.clear()
    yield
    server_jobs.cache_clear()
    st.cache_resource.clear()


def test_a_tab_without_runs_says_how_to_get_some():
    def empty():
        from app.runs import runs_page

        runs_page({})

    app = AppTest.from_function(empty, default_timeout=30).run()
    assert not app.exception
    assert "open a lab" in app.info[0].value


def test_runs_are_listed_once_the_latest_first_and_said_to_be_computed_or_stored():
    app = opened(**SMALL)
    (first,) = titles(app)
    assert any("computed in" in caption.value for caption in app.caption)
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02).run()
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.01).run()
    assert not app.exception
    assert len(titles(app)) == 2 and titles(app)[1] == first
    assert any("learning\\_rate = 0.02" in text.value for text in app.markdown)
    server_jobs.cache_clear()
    again = opened(**SMALL)
    assert any("stored before" in caption.value for caption in again.caption)


def test_a_run_is_named_and_opened_again():
    app = opened(**SMALL)
    before = state(app).focus
    key = run_key(LAB, before)
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02).run()
    app.text_input(key=f"runs/name/{key}").set_value("  the *first*   one ").run()
    assert titles(app)[1] == "the \\*first\\* one"
    app.button(key=f"runs/open/{key}").click().run()
    assert not app.exception
    assert state(app) == PageState("shape_matters", before)
    assert "learning_rate" not in app.query_params


def test_a_run_is_drawn_beside_what_the_page_shows_under_its_name():
    app = opened(**SMALL)
    before = state(app).focus
    key = run_key(LAB, before)
    app.text_input(key=f"runs/name/{key}").set_value("the first one").run()
    app.select_slider(key="form/label_noise/learning_rate/widget").set_value(0.02).run()
    app.button(key=f"runs/beside/{key}").click().run()
    assert not app.exception
    assert state(app).beside == {"the first one": before}
    assert state(app).focus.learning_rate == 0.02


def test_a_seventh_run_beside_is_refused_in_a_sentence():
    app = opened(**SMALL)
    key = run_key(LAB, state(app).focus)
    for _ in range(6):
        app.button(key="pin").click().run()
    app.button(key=f"runs/beside/{key}").click().run()
    assert not app.exception
    assert len(state(app).beside) == 6
    assert any("At most 6 runs" in toast.value for toast in app.toast)


# -- what is taken away ------------------------------------------------------------------------------------------


def seen_run(name="", **changes):
    params = LAB.params.make(steps=60, n_train=5, dim=8, sparsity=2, **changes)
    run = execute(LAB, params, store=Store())
    metrics = {name: metric.mean for name, metric in run.metrics.items()}
    return Seen(LAB.id, "label", "shape_matters", params, run.key, 1, run.trace_sha256, metrics, run.wall_s, True, name)


def test_the_archive_holds_every_run_and_each_can_be_repeated(tmp_path):
    runs = [seen_run("../a name/with: signs"), seen_run("=1+1", seed=3)]
    with zipfile.ZipFile(io.BytesIO(seen.archive(runs))) as archive:
        names = archive.namelist()
        assert len(names) == 5 and all("/" not in name and not name.startswith(".") for name in names)
        overview = pd.read_csv(io.BytesIO(archive.read("runs.csv")))
        assert overview["key"].tolist() == [run.key for run in runs]
        assert overview["name"].tolist() == [runs[0].name, "'=1+1"]
        assert overview["seed"].tolist() == [0, 3]
        metric = next(iter(LAB.series))
        assert overview[f"mean of {metric}"].tolist() == pytest.approx([run.metrics[metric] for run in runs])
        for one in runs:
            (file,) = [name for name in names if one.key[:12] in name and name.endswith(".json")]
            assert json.loads(archive.read(file))["trace_sha256"] == one.trace_sha256
            (tmp_path / "run.json").write_bytes(archive.read(file))
            assert rerun(str(tmp_path / "run.json")).agrees


def test_a_run_that_is_gone_is_named_in_the_archive(own_store):
    one = seen_run()
    own_store.rename(own_store.with_name("elsewhere"))
    with zipfile.ZipFile(io.BytesIO(seen.archive([one]))) as archive:
        assert archive.namelist() == ["runs.csv", "not-at-hand.txt"]
        assert one.key in archive.read("not-at-hand.txt").decode()


def test_a_tab_keeps_the_newest_runs_and_those_with_a_name(monkeypatch):
    monkeypatch.setattr(seen, "MOST", 2)
    held = {}
    monkeypatch.setattr(seen.st, "session_state", {seen._HELD: held})

    runs = [execute(LAB, seen_run().params.replace(seed=seed)) for seed in range(4)]
    views = [View(LAB, of_preset(LAB, "shape_matters"), {"label": run}) for run in runs]
    seen.note(views[0], "test_error")
    seen.rename(runs[0].key, "kept")
    for view in views[1:]:
        seen.note(view, "test_error")
    assert list(held) == [runs[0].key, runs[3].key]


def test_a_run_is_shown_in_small_with_its_chalk_line():
    view = View(LAB, of_preset(LAB, "shape_matters"), {"label": execute(LAB, seen_run().params)})
    for log_x in (False, True):
        drawn = ET.fromstring(thumbnail(LAB, view.focus, "test_error", log_x))
        run, chalk = (
            [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
            for line in sorted(drawn, key=lambda line: line.get("stroke-dasharray") or "")
        )
        assert len(run) == len(chalk) > 10
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in (*run, *chalk))
        assert [x for x, _ in run] == sorted(x for x, _ in run)
    app = opened(**SMALL)
    assert len(app.get("image")) == len(titles(app))
