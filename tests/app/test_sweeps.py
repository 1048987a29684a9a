"""The page of sweeps: its link, its refusals, its lines of theory, and the runs that its cells open."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.frame import sweep_jobs
from app.frame.player import pack
from app.frame.state import decode
from app.frame.sweep_jobs import Sweeps, require_few, require_live, server_sweeps
from app.frame.sweep_pictures import points_of, sweep_picture
from app.frame.sweep_state import (
    OWN_KEYS,
    SweepState,
    axes_of,
    axis_text,
    decode_sweep,
    default_state,
    design_of,
    encode_sweep,
    metric_options,
    plan_of,
    point_link,
    sweep_command,
    sweep_link,
    sweep_snippet,
    sweep_story,
)
from app.frame.sweep_story import Axis, ChalkLine
from app.sweeps import layout
from sims.engine import BadInput, TooLarge, all_labs, execute, get_lab, predict
from sims.engine.cli import main as command
from sims.engine.keys import run_key
from sims.engine.store import Store
from sims.engine.sweep import compute_chunk, run_sweep

LABS = all_labs()
LAB = get_lab("label_noise")
TINY = {"steps": 40, "dim": 8, "sparsity": 2, "n_train": 5, "replicates": 2}


def tiny(*grid, metric="test_error", **more):
    """A sweep of a moment; `base` among `more` changes its base."""
    base = LAB.params.make({**TINY, **more.pop("base", {})})
    return SweepState("label_noise", "shape_matters", base, grid or ("n_train=4,5,6", "sparsity=1,2"), metric, **more)


def query_of(state):
    return {name: list(values) for name, values in encode_sweep(state).items()}


def script():
    from app.sweeps import sweeps

    sweeps()


def opened(query=None, **more):
    app = AppTest.from_function(script, default_timeout=60)
    for name, value in {**(query or {}), **more}.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def finished(app):
    """The page after its sweep has ended."""
    deadline = time.monotonic() + 120
    while any(button.key == "sweep/pause" for button in app.button):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        app.run()
    assert not app.exception
    assert not app.error, [box.value for box in app.error]
    return app


def plain(text):
    return text.replace("\\", "")


@pytest.fixture(autouse=True)
def own_server(own_store):
    """Each test has sweeps of its own, in its own store."""
    server_sweeps.cache_clear()
    st.cache_resource.clear()
    yield
    server_sweeps.cache_clear()
    st.cache_resource.clear()


# -- the link ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_the_sweep_that_a_lab_opens_with_is_possible_short_and_has_a_link(lab):
    state = default_state(lab)
    assert decode_sweep(query_of(state)) == (state, [])
    assert decode_sweep({"lab": [lab.id]}) == (state, [])
    plan = plan_of(state)
    require_live(plan, "")
    assert 1 < len(plan.design) <= 400
    assert state.metric in metric_options(lab, state.base)
    assert not set(OWN_KEYS) & set(lab.params.fields()), "a field would be taken for a part of the link"


@pytest.mark.parametrize(
    "state",
    [
        tiny(),
        tiny("learning_rate=0.001:0.1:5:log"),
        tiny("algorithm=gd,sgd", "fresh_data=false,true", show="difference"),
        tiny(metric="claim:conserved"),
        tiny(theory_only=True),
        tiny(base={"learning_rate": 0.02, "replicates": 1}),
    ],
    ids=["two", "range", "words", "claim", "theory", "base"],
)
def test_a_link_holds_the_whole_state(state):
    found, notices = decode_sweep(query_of(state))
    assert notices == []
    assert found == state
    assert plan_of(found).key == plan_of(state).key


def test_a_base_of_defaults_is_not_taken_for_its_preset():
    state = replace(tiny(), preset="too_few_samples", base=LAB.params.make())
    assert LAB.focus(LAB.preset("too_few_samples")) != state.base
    assert decode_sweep(query_of(state)) == (state, [])


def test_a_lab_page_links_to_a_sweep_around_its_run():
    base = LAB.params.make(TINY)
    state, notices = decode_sweep(sweep_link(LAB, "edge", base))
    assert notices == []
    assert (state.preset, state.base) == ("edge", base)
    assert state.grid == default_state(LAB).grid


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_the_sweep_around_any_run_of_a_preset_has_points(lab):
    """Its axes are fields that mean something for that run: of the planar sample n_train does not."""
    for preset in lab.presets:
        for base in lab.runs(preset).values():
            state, notices = decode_sweep(sweep_link(lab, preset.id, base))
            assert notices == [] and (state.preset, state.base) == (preset.id, base)
            assert all(base.is_active(name) for name in state.names), (preset.id, state.names)
            assert len(plan_of(state).design) > 1
            assert state.metric in metric_options(lab, base)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"lab": ["nonsense"]}, "nonsense"),
        ({"grid": ["n_train"]}, "it must be FIELD=VALUES"),
        ({"grid": ["colour=1,2"]}, "colour"),
        ({"grid": ["n_train=5:40"]}, "a range is LOW:HIGH:NUMBER"),
        ({"grid": ["n_train=4,5", "n_train=6,7"]}, "n_train is an axis already"),
        ({"grid": ["n_train=4,4"]}, "an axis holds each value once"),
        ({"grid": ["n_train=4,5", "dim=8,9", "sparsity=1,2"]}, "a page shows one or two axes"),
        ({"grid": ["replicates=1,2"]}, "it is the same for all points"),
        ({"metric": ["beauty"]}, "has no metric beauty"),
        ({"metric": ["claim:recovery_rate"]}, "has no metric claim:recovery_rate"),
        ({"theory_only": ["maybe"]}, "theory_only is true or false"),
        ({"show": ["everything"]}, "show is one of"),
        ({"metric": ["claim:conserved"], "theory_only": ["true"]}, "Claims are judged on simulations"),
        ({"v": [str(LAB.version)], "learning_rate": ["fast"]}, "learning_rate"),
        ({"v": [str(LAB.version)], "wings": ["2"]}, "wings"),
    ],
    ids=lambda value: next(iter(value.items())).__repr__()[:40] if isinstance(value, dict) else "",
)
def test_a_part_of_a_link_that_is_not_understood_is_named(query, said):
    state, notices = decode_sweep({"lab": ["label_noise"], **query})
    assert len(notices) == 1
    assert said in notices[0]
    plan_of(state)


def test_the_page_tells_of_a_bad_link_and_sets_the_address_right():
    app = opened({**query_of(tiny()), "grid": ["n_train=4,5", "![i](http://x/i.png)=1"]})
    (box,) = app.warning
    assert "![i](" not in box.value and "![i](" in plain(box.value)
    held = app.session_state["state/sweeps"]
    assert held.grid == ("n_train=4,5",)
    found = {name: [v] if isinstance(v, str) else list(v) for name, v in app.query_params.items()}
    assert found == encode_sweep(held)


# -- axes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_every_slider_can_be_an_axis(lab):
    base = lab.focus(lab.presets[0])
    for name, field in base.fields().items():
        if field.live is None or name == "replicates" or not base.is_active(name):
            continue
        state = SweepState(lab.id, lab.presets[0].id, base, (axis_text(base, name),), "")
        (axis,) = axes_of(state)
        assert 2 <= len(axis.values) <= 8
        for value in axis.values:
            base.replace(**{name: value})
        low, high = axis.edges
        assert np.all(low < axis.numbers) and np.all(axis.numbers < high)
        assert np.allclose(high[:-1], low[1:])


def test_an_axis_keeps_to_the_whole_numbers_that_are_possible():
    base = get_lab("xor_grokking").params.make()
    text = axis_text(base, "n_train", 6, 20, 400)
    values = [int(part) for part in text.partition("=")[2].split(",")]
    assert len(values) == 6 and all(value % 4 == 0 for value in values)
    assert (values[0], values[-1]) == (20, 400)


def test_values_that_grow_by_one_factor_are_drawn_on_a_logarithmic_axis():
    fields = get_lab("xor_grokking").params.fields()
    assert fields["signal"].scale == "linear"
    assert Axis(fields["signal"], (0.5, 1.0, 2.0, 4.0)).log
    assert not Axis(fields["signal"], (0.5, 1.0, 1.5, 2.0)).log
    assert not Axis(fields["signal"], (0.0, 1.0, 2.0)).log


# -- the same elsewhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [tiny("n_train=4:6:3"), tiny("algorithm=gd,sgd", theory_only=True)], ids=["run", "theory"]
)
def test_the_command_and_the_snippet_make_the_sweep_of_the_page(state, own_store, capsys):
    words = sweep_command(state).split()
    assert words[:3] == ["python", "-m", "sims"]
    assert command([*words[3:], "--json", "--workers", "1"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"] == plan_of(state).key
    assert Sweeps(Store()).stored(plan_of(state).key).complete, "the page finds it"
    scope: dict = {}
    exec(sweep_snippet(state).replace("print(found.summary)", ""), scope)
    assert scope["found"].key == made["key"] and scope["found"].computed == 0


# -- cells ------------------------------------------------------------------------------------------------------


def test_every_cell_opens_the_run_that_it_stands_for():
    state = tiny("algorithm=gd,gd_label_noise", "sparsity=1,2,9", base={"noise_std": 2.0})
    plan = plan_of(state)
    sweep = run_sweep(plan, store=Store(), workers=1)
    outcome = Sweeps(Store()).stored(plan.key)
    points = points_of(state, plan, outcome)
    keys = dict(zip(sweep.summary["point"], sweep.summary["key"], strict=True))
    for point in range(len(plan.design)):
        if plan.design.values(point)["sparsity"] == 9:
            assert points.state[point] == "failed" and "sparsity = 9 is not possible" in points.reason[point]
            assert points.links[point] == ""
            continue
        link = urlsplit(points.links[point])
        assert link.path == "label_noise"
        page, notices = decode(LAB, parse_qs(link.query, keep_blank_values=True))
        assert notices == [], "such as a noise_std that gradient descent does not have"
        assert not page.beside
        assert run_key(LAB, page.focus) == keys[point]
        run = execute(LAB, page.focus)
        assert points.value[point] == run.metrics["test_error"].mean
        assert points.error[point] == run.metrics["test_error"].se


def test_the_link_of_a_cell_keeps_the_projector_mode():
    assert point_link(tiny(), LAB.params.make(), present=True).endswith("present=1")


def test_the_table_is_laid_out_as_the_picture_is():
    state = tiny()
    plan = plan_of(state)
    run_sweep(plan, store=Store(), workers=1)
    points = points_of(state, plan, Sweeps(Store()).stored(plan.key))
    table = layout(state, points)
    assert table.columns.tolist() == ["4", "5", "6"]
    assert table.index.tolist() == ["2", "1"], "sparsity grows upwards"
    at = next(p for p in range(6) if dict(plan.design.values(p)) == {"n_train": 5, "sparsity": 2})
    assert table.loc["2", "5"] == f"[{points.value[at]:.3g} ± {points.error[at]:.1g}]({points.links[at]})"


VIEWS = [
    tiny(),
    tiny(show="difference"),
    tiny(show="theory"),
    tiny(theory_only=True),
    tiny("n_train=4,5,6"),
    tiny("n_train=4,5,6", theory_only=True),
    tiny("algorithm=gd,gaussian_noise"),
    tiny("algorithm=gd,gaussian_noise", "n_train=4,5"),
    tiny(metric="claim:conserved"),
    tiny("n_train=4,5,6", metric="claim:conserved"),
    tiny("dim=1,2,8", "n_train=4,5"),
]


@pytest.mark.parametrize("state", VIEWS, ids=lambda state: f"{'+'.join(state.names)}-{state.metric}-{state.show}")
def test_every_view_can_be_drawn_before_between_and_after(state):
    plan = plan_of(state)
    sweeps = Sweeps(Store())
    run_sweep(plan, store=sweeps.store, workers=1)
    whole = sweeps.stored(plan.key)
    half = replace(whole, table=whole.table.slice(0, len(plan.design) // 2), complete=False)
    for outcome in (None, half, whole):
        picture = sweep_picture(LAB, state, plan, outcome, metric_options(LAB, state.base))
        pack([picture.for_player()], steps=None, step_label="step", key="x")
        json.dumps(picture.on_paper("caption"), allow_nan=False)
        done = 0 if outcome is None else outcome.points
        assert f"{done} of {len(plan.design)} points computed" in picture.alt


@pytest.fixture(params=[False, True], ids=["simulated", "theory"])
def half_claimed(request):
    """A sweep of four points, and whether the theory claims the end of each: that of a short run it does not yet."""
    state = tiny("n_train=4,5", "steps=40,5000", show="measured" if request.param else "theory", base={"steps": 1000})
    state = replace(state, theory_only=request.param)
    plan = plan_of(state)
    run_sweep(plan, store=Store(), workers=1)
    asked = [predict(LAB, plan.design.params(point)).claimed("test_error")[-1] for point in range(4)]
    assert asked == [False, True, False, True]
    return state, plan, Sweeps(Store()).stored(plan.key), asked


def test_cells_of_theory_that_is_not_claimed_are_grey_in_brackets_and_open_their_runs(half_claimed):
    state, plan, outcome, asked = half_claimed
    points = points_of(state, plan, outcome)
    assert points.claimed == ["yes" if yes else "no" for yes in asked]
    assert outcome.table.column("claimed_test_error").to_pylist() == asked
    picture = sweep_picture(LAB, state, plan, outcome, {})
    drawn = {name: sorted(picture.data[name]["link"]) for name in ("cells", "unclaimed")}
    for name, yes in (("cells", True), ("unclaimed", False)):
        assert drawn[name] == sorted(points.links[i] for i in range(4) if asked[i] == yes)
    assert "Grey: theory that is not claimed there." in picture.note
    greys = [layer for layer in picture.spec["layer"] if layer.get("data", {}).get("name") == "unclaimed"]
    assert [layer["encoding"]["color"]["scale"]["scheme"] for layer in greys] == ["greys"]
    table = layout(state, points)
    assert [table.loc[steps, "4"].startswith("[(") for steps in ("40", "5000")] == [True, False]
    measured = replace(state, theory_only=False, show="measured")
    assert "unclaimed" not in sweep_picture(LAB, measured, plan, outcome, {}).data, "what was measured needs no theory"


def test_a_line_of_theory_is_grey_where_it_is_not_claimed_and_its_dots_open_runs():
    state = tiny("steps=40,4000,5000", theory_only=True, base={"steps": 1000, "replicates": 1})
    plan = plan_of(state)
    run_sweep(plan, store=Store(), workers=1)
    outcome = Sweeps(Store()).stored(plan.key)
    picture = sweep_picture(LAB, state, plan, outcome, {})
    assert set(picture.data["chalk"]["kind"]) == {"theory", "theory, unclaimed"}
    assert list(picture.data["ends"]["claimed"]) == ["no", "yes", "yes"]
    assert list(picture.data["ends"]["link"]) == points_of(state, plan, outcome).links
    kept = replace(outcome, table=outcome.table.drop_columns(["claimed_test_error"]))
    assert "was not kept with this sweep" in sweep_picture(LAB, state, plan, kept, {}).note


@pytest.mark.parametrize(
    "state",
    [tiny("sparsity=1,2,9"), tiny("sparsity=1,2,9", metric="claim:conserved"), tiny("sparsity=1,9", "n_train=4,5")],
    ids=["curve", "claim", "map"],
)
def test_failed_points_are_marked_in_red_whatever_is_drawn(state):
    plan = plan_of(state)
    run_sweep(plan, store=Store(), workers=1)
    outcome = Sweeps(Store()).stored(plan.key)
    picture = sweep_picture(LAB, state, plan, outcome, metric_options(LAB, state.base))
    failed = len(outcome.failures)
    assert failed and f"✕ in red: {failed} points failed" in picture.note
    marks = picture.data["failed"] if "failed" in picture.data else picture.data["absent"]
    assert sum("sparsity = 9 is not possible" in reason for reason in marks["reason"]) == failed
    crosses = [layer for layer in picture.spec["layer"] if layer.get("data", {}).get("name") in ("failed", "absent")]
    assert any("$run2" in json.dumps(layer) for layer in crosses)
    cells = layout(state, points_of(state, plan, outcome)).to_numpy().ravel()
    assert sum(plain(cell).startswith("✕ failed") for cell in cells) == failed


# -- lines of theory --------------------------------------------------------------------------------------------


def lines_of(state):
    axes = axes_of(state)
    return sweep_story(get_lab(state.lab)).boundary(state.base, axes[0], axes[1] if len(axes) == 2 else None)


def test_the_recovery_line_is_the_threshold_of_the_theory():
    from theory.label_noise import recovery_threshold

    state = default_state(LAB)
    assert state.names == ("n_train", "sparsity")
    (line,) = lines_of(state)
    assert line.claimed
    assert list(line.x) == [recovery_threshold(state.base.dim, int(r)) for r in line.y]
    turned = replace(state, grid=state.grid[::-1])
    (other,) = lines_of(turned)
    assert (list(other.x), list(other.y)) == (list(line.y), list(line.x))
    (upright,) = lines_of(replace(state, grid=state.grid[:1]))
    assert list(upright.x) == [recovery_threshold(state.base.dim, state.base.sparsity)] and not len(upright.y)
    (dims,) = lines_of(replace(state, grid=("dim=20:200:4", "n_train=6:40:4")))
    assert list(dims.y) == [recovery_threshold(int(d), state.base.sparsity) for d in dims.x]


def test_the_recovery_line_is_grey_where_the_theorem_is_silent():
    state = default_state(LAB)
    plain_descent = LAB.params.make(algorithm="gd")
    (line,) = lines_of(replace(state, base=plain_descent))
    assert not line.claimed and "gradient descent" in line.words
    assert (
        lines_of(replace(state, base=LAB.params.make(covariates="planar"), grid=("learning_rate=0.01,0.02",))) is None
    )
    assert lines_of(replace(state, grid=("learning_rate=0.01,0.02", "sparsity=1,2"))) is None


def test_the_contours_are_those_of_the_fitted_table():
    from theory.xor_grokking import fitted_quantile, late_test_error

    state = default_state(get_lab("xor_grokking"))
    assert state.names == ("signal", "n_train")
    checked = 0
    for line in lines_of(state):
        assert isinstance(line, ChalkLine)
        if not line.claimed:
            continue
        values = [1.0 - late_test_error(n, signal) for signal, n in zip(line.x, line.y, strict=True)]
        inside = [np.isfinite(fitted_quantile(n, signal)) for signal, n in zip(line.x, line.y, strict=True)]
        level = min((0.6, 0.75, 0.9, 0.97), key=lambda level: abs(level - np.nanmedian(values)))
        off = [abs(value - level) for value, kept in zip(values, inside, strict=True) if kept]
        assert max(off) < 0.01, "between two rows of a grid the line is interpolated"
        checked += len(off)
    assert checked > 50
    iid = replace(state, base=state.base.replace(label_sampler="iid"))
    assert not any(line.claimed for line in lines_of(iid))


def test_a_lab_without_a_story_has_defaults_and_no_line(monkeypatch):
    from app.frame import sweep_state

    monkeypatch.setattr(sweep_state, "sweep_story", lambda lab: sweep_state.SweepStory())
    sweep_state._default.cache_clear()
    try:
        for lab in LABS:
            state = default_state(lab)
            assert 1 <= len(state.grid) <= 2
            assert plan_of(state).seconds <= sweep_state.DEFAULT_SECONDS
            assert decode_sweep(query_of(state)) == (state, [])
    finally:
        sweep_state._default.cache_clear()


# -- what is refused --------------------------------------------------------------------------------------------


def test_a_sweep_too_long_for_a_page_is_refused_with_its_command(monkeypatch):
    state = tiny("n_train=4:40:30", "learning_rate=0.0001:0.01:40:log", base={"steps": 10_000_000, "dim": 100})
    monkeypatch.delenv("CHALKLINE_SCHEDULER", raising=False)
    app = opened(query_of(state))
    (box,) = app.error
    words = plain(box.value)
    assert "This sweep of 1200 points would take about" in words and "the limit here is 60 s of computing" in words
    assert "python -m sims sweep label_noise --steps 10000000" in words
    assert "--grid n_train=4:40:30 --grid learning_rate=0.0001:0.01:40:log" in words
    assert not any(button.key == "sweep/start" for button in app.button)
    assert not server_sweeps().sessions()


def test_a_cluster_may_be_asked_for_more(monkeypatch):
    plan = replace(plan_of(tiny()), chunks=((6, 10 * sweep_jobs.LIVE_SECONDS),))
    monkeypatch.delenv("CHALKLINE_SCHEDULER", raising=False)
    with pytest.raises(TooLarge):
        require_live(plan, "")
    monkeypatch.setenv("CHALKLINE_SCHEDULER", "tcp://127.0.0.1:1")
    require_live(plan, "")
    with pytest.raises(TooLarge, match="run it elsewhere: here"):
        require_live(replace(plan, chunks=((6, 100 * sweep_jobs.LIVE_SECONDS),)), "here")
    with pytest.raises(TooLarge, match="for one point"):
        require_live(replace(plan, bytes=1e12), "")


def test_more_points_than_a_page_can_show_are_refused_before_they_are_planned(monkeypatch):
    state = tiny("n_train=1:20000:5000", "learning_rate=0.0001:0.1:5000:log")
    with pytest.raises(TooLarge, match=r"25,000,000 points, about .* a page shows at most 1,600.*--grid"):
        require_few(design_of(state), False, False, 1600, sweep_command(state))
    app = opened(query_of(state))
    assert "25,000,000 points" in plain(app.error[0].value)


def test_a_sweep_without_a_possible_point_says_why():
    app = opened(query_of(tiny("sparsity=9,10")))
    assert "sparsity = 9 is not possible" in plain(app.error[0].value)


# -- the page ---------------------------------------------------------------------------------------------------


def test_a_sweep_is_started_watched_and_found_again():
    state = tiny("n_train=4,5,6", "sparsity=1,2,9")
    app = opened(query_of(state))
    assert any("9 points of 2 replicates: about" in text.value for text in app.markdown)
    app.button(key="sweep/start").click().run()
    finished(app)
    assert not any(button.key == "sweep/start" for button in app.button)
    assert any(expander.label == "3 points failed" for expander in app.expander)
    assert server_sweeps().computed == 1
    again = opened(query_of(state))
    assert not any(button.key in ("sweep/start", "sweep/pause") for button in again.button), "it is shown at once"
    assert server_sweeps().computed == 1
    points = points_of(state, plan_of(state), server_sweeps().stored(plan_of(state).key))
    (table,) = [table.value for table in again.table if table.value.index.name and "sparsity" in table.value.index.name]
    assert table.to_numpy().tolist() == layout(state, points).to_numpy().tolist()


def test_another_metric_of_a_finished_sweep_needs_nothing_computed():
    state = tiny()
    run_sweep(plan_of(state), store=Store(), workers=1)
    app = opened(query_of(state))
    app.selectbox(key="sweep/metric").set_value("weighted_l1").run()
    finished(app)
    assert app.query_params["metric"] in ("weighted_l1", ["weighted_l1"])
    assert server_sweeps().computed == 0


def test_widgets_change_the_sweep_and_its_address():
    app = opened(query_of(tiny("n_train=4,5,6")))
    app.selectbox(key="sweep/axis/1").set_value("learning_rate").run()
    held = app.session_state["state/sweeps"]
    assert held.names == ("n_train", "learning_rate") and held.grid[1].endswith(":log")
    app.number_input(key="sweep/axis/1/points/learning_rate").set_value(4).run()
    assert len(axes_of(app.session_state["state/sweeps"])[1].values) == 4
    app.number_input(key="sweep/axis/0/to/n_train").set_value(8).run()
    assert axes_of(app.session_state["state/sweeps"])[0].values[-1] == 8
    app.number_input(key="sweep/replicates").set_value(3).run()
    app.toggle(key="sweep/theory").set_value(True).run()
    app.toggle(key="sweep/exact").set_value(True).run()
    app.text_input(key="sweep/axis/0/text").set_value("5,7").run()
    held = app.session_state["state/sweeps"]
    assert held.grid[0] == "n_train=5,7" and held.base.replicates == 3 and held.theory_only
    app.text_input(key="sweep/axis/0/text").set_value("5,x").run()
    assert "n_train = 5,x" in plain(app.error[0].value) or "n_train = x" in plain(app.error[0].value)
    assert app.session_state["state/sweeps"].grid[0] == "n_train=5,7"
    again = opened({name: values for name, values in app.query_params.items()})
    assert again.session_state["state/sweeps"] == app.session_state["state/sweeps"]
    app.selectbox(key="sweep/lab").set_value("xor_grokking").run()
    assert not app.exception
    assert app.session_state["state/sweeps"] == default_state(get_lab("xor_grokking"))


# -- the line ---------------------------------------------------------------------------------------------------


def held_up(monkeypatch):
    """Sweeps that begin and wait for the event."""
    go, begun = threading.Event(), []

    def slowly(plan, *, store, workers, on_progress, cancel):
        begun.append(plan.key)
        while not go.is_set() and not cancel.is_set():
            time.sleep(0.01)
        if cancel.is_set():
            raise sweep_jobs.Paused("paused")
        return run_sweep(plan, store=store, workers=1, on_progress=on_progress)

    monkeypatch.setattr(sweep_jobs, "run_sweep", slowly)
    return go, begun


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sweeps_stand_in_line_and_equal_ones_are_computed_once(monkeypatch):
    go, begun = held_up(monkeypatch)
    sweeps = Sweeps(Store())
    one, two = plan_of(tiny("n_train=4,5")), plan_of(tiny("n_train=5,6"))
    first, second = sweeps.submit(one, "anna"), sweeps.submit(two, "ben")
    assert sweeps.submit(one, "carla") is first
    until(lambda: begun == [one.key])
    assert [sweeps.place(first), sweeps.place(second)] == [0, 1]
    sweeps.release("anna")
    assert first.alive, "carla still waits for it"
    go.set()
    assert first.ended.wait(60) and second.ended.wait(60)
    assert begun == [one.key, two.key]
    assert [first.state, second.state] == ["done", "done"]
    assert first.outcome.complete and first.outcome.points == 2


def test_the_latest_sweep_of_a_session_wins_and_an_absent_one_is_paused(monkeypatch):
    go, begun = held_up(monkeypatch)
    sweeps = Sweeps(Store())
    plans = [plan_of(tiny(f"n_train=4,{n}")) for n in (5, 6, 7)]
    first = sweeps.submit(plans[0], "anna")
    until(lambda: begun == [plans[0].key])
    second = sweeps.submit(plans[1], "anna")
    assert first.ended.wait(60) and first.state == "paused"
    assert sweeps.of("anna") is second
    until(lambda: len(begun) == 2)
    waiting = sweeps.submit(plans[2], "ben")
    sweeps.release("ben")
    sweeps.release("anna")
    assert second.ended.wait(60) and waiting.ended.wait(60)
    assert [second.state, waiting.state] == ["paused", "paused"]
    assert begun == [plan.key for plan in plans[:2]], "what was given up in line is never begun"
    go.set()
    assert sweeps.submit(plans[0], "anna").ended.wait(60), "and the next one is computed"
    assert sweeps.of("anna").state == "done"


def test_what_comes_in_is_seen_before_the_end(monkeypatch):
    """Each part as it is stored, the failed points among them; here a part is begun when the one before is seen."""
    state = tiny("n_train=4,5,6", "sparsity=1,2,9")
    plan = replace(plan_of(state), chunks=((3, 1.0), (6, 1.0), (9, 1.0)))
    job = sweep_jobs.SweepJob(plan, plan.key)
    store, seen = Store(), []

    def in_turn(task, stop=None):
        until(lambda: seen and seen[-1][0] >= task.start)
        return compute_chunk(task, stop)

    monkeypatch.setattr("sims.engine.sweep.compute_chunk", in_turn)

    def watch(progress):
        job.seen(store, progress)
        seen.append((0 if job.outcome is None else job.outcome.points, progress.done))

    sweep = run_sweep(plan, store=store, workers=1, on_progress=watch)
    assert [shown for shown, _ in seen] == [done for _, done in seen]
    assert {shown for shown, _ in seen} == {0, 3, 6, 9}
    assert [failure.point for failure in job.outcome.failures] == [2, 5, 8]
    rows = {row["point"]: row for row in job.outcome.table.to_pylist()}
    assert rows == {row["point"]: row for row in sweep.arrow_summary().to_pylist()}


def test_a_sweep_that_fails_says_so_and_the_line_goes_on(monkeypatch):
    def broken(plan, **more):
        raise BadInput("Another process is computing it.") if len(plan.design) == 2 else RuntimeError("no")

    monkeypatch.setattr(sweep_jobs, "run_sweep", broken)
    sweeps = Sweeps(Store())
    jobs = [sweeps.submit(plan_of(tiny("n_train=4,5")), "anna"), sweeps.submit(plan_of(tiny("n_train=4,5,6")), "ben")]
    assert all(job.ended.wait(60) for job in jobs)
    assert [job.state for job in jobs] == ["failed", "failed"]
    assert [job.error for job in jobs] == ["Another process is computing it.", "The sweep failed (RuntimeError: no)."]


def test_a_paused_sweep_shows_what_it_has_and_goes_on(monkeypatch):
    go, _ = held_up(monkeypatch)
    app = opened(query_of(tiny()))
    app.button(key="sweep/start").click().run()
    app.button(key="sweep/pause").click().run()
    until(lambda: not server_sweeps().on_its_way(plan_of(tiny()).key))
    app.run()
    assert app.button(key="sweep/start").label == "Start", "nothing was kept"
    go.set()
    app.button(key="sweep/start").click().run()
    finished(app)
    assert server_sweeps().stored(plan_of(tiny()).key).complete
