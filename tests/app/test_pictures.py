"""Pictures: the chalk line is where it is claimed, nothing is drawn that has no place, and words state the numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import altair as alt
import numpy as np
import pytest
import vl_convert

from app.frame.page import lab_module
from app.frame.pictures import (
    CLAIMED,
    FLOOR,
    PALETTE,
    STYLES,
    THIN,
    UNCLAIMED,
    Curve,
    band_words,
    overlay,
    overlay_preview,
    rounds,
)
from app.frame.player import PAPER, pack
from app.frame.runs import View
from app.frame.state import PageState, of_preset
from sims.engine import all_labs, get_lab
from tests.app.samples import FIRST_PRESETS, PRESETS, pictures_of, preset_view, run_of, view_of

LAB = get_lab("label_noise")


def rows(table, **where):
    """The rows of a table, as a dictionary of columns, in which the named columns have these values."""
    chosen = np.ones(len(next(iter(table.values()))), dtype=bool)
    for name, value in where.items():
        chosen &= np.asarray(table[name]) == value
    return {name: np.asarray(column)[chosen] for name, column in table.items()}


def is_log(picture):
    return picture.spec["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"


def packed(pictures):
    """The bytes of every player of a page, one for each clock."""
    clocks = {}
    for picture in pictures:
        clocks.setdefault(None if picture.steps is None else tuple(picture.steps.tolist()), []).append(picture)
    return [
        pack([picture.for_player() for picture in group], steps=clock, step_label="step", key="k")
        for clock, group in clocks.items()
    ]


def colours(node):
    if isinstance(node, dict):
        return {found for value in node.values() for found in colours(value)}
    if isinstance(node, list | tuple):
        return {found for value in node for found in colours(value)}
    return {node} if isinstance(node, str) and node.startswith("$") else set()


# -- every picture of every preset ------------------------------------------------------------------------------


@pytest.mark.parametrize(("lab_id", "preset"), PRESETS)
def test_every_picture_is_a_valid_spec_and_renders(lab_id, preset):
    view, details = preset_view(lab_id, preset), frozenset(lab_module(lab_id).STORY.details)
    for picture in [*pictures_of(view), *(pictures_of(replace(view, details=details)) if details else [])]:
        assert colours(picture.spec) <= set(PAPER), "a colour name that no theme has would be drawn black"
        assert colours(picture.spec), "a picture follows the theme"
        paper = picture.on_paper("caption & <key>")
        svg = vl_convert.vegalite_to_svg(paper)
        assert svg.startswith("<svg") and "caption &amp; &lt;key&gt;" in svg
        assert "NaN" not in svg and "undefined" not in svg


@pytest.mark.parametrize(("lab_id", "preset"), FIRST_PRESETS)
def test_every_axis_can_be_drawn_and_no_log_table_holds_what_has_no_logarithm(lab_id, preset):
    view = preset_view(lab_id, preset)
    for x in ("log_step", *lab_module(lab_id).STORY.x_axes):
        other = View(view.lab, view.state, view.runs, x, fetched=view.fetched)
        pictures = pictures_of(other)
        for picture in pictures:
            if "lines" not in picture.data:
                continue
            for table in (*picture.data.values(), *picture.frames.values()):
                place = np.asarray(table.get("x", []))  # a level that crosses the whole picture has none
                assert np.all(np.isfinite(place))
                assert x != "log_step" or np.all(place > 0), "step 0 is not on a log axis"
                for name in {"median", "low", "high", "value"} & set(table):
                    assert np.all(np.isfinite(table[name]))
                    assert not is_log(picture) or np.all(np.asarray(table[name]) > 0)
        assert all(len(message) > 100 for message in packed(pictures))


@pytest.mark.parametrize(("lab_id", "preset"), PRESETS)
def test_words_state_the_result_in_numbers(lab_id, preset):
    view = preset_view(lab_id, preset)
    pictures = pictures_of(view)
    assert len({picture.id for picture in pictures}) == len(pictures)
    for picture in pictures:
        assert picture.title
        assert picture.needs or re.search(r"\d", picture.alt), f"{picture.id}: {picture.alt}"
        if "lines" in picture.data:
            assert all(f"{label}:" in picture.alt for label in view.runs)
    counts = sorted({run.trace.replicates for run in view.runs.values()})
    assert re.search(rf"median of {counts[0]}( to {counts[-1]})? replicates", band_words(view))
    assert "10 to 90 percent" in band_words(view)


@pytest.mark.parametrize("x", ["log_step", "slow_time"])
def test_the_other_axes_render(x):
    for picture in pictures_of(preset_view("label_noise", "shape_matters", x)):
        assert vl_convert.vegalite_to_svg(picture.on_paper("")).startswith("<svg")


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
def test_the_specs_of_the_default_page_obey_the_schema(lab):
    for picture in pictures_of(preset_view(lab.id, lab.presets[0].id)):
        tables = {name: [] for name in (*picture.data, *picture.frames)}  # rows are not the schema's affair, and slow
        alt.Chart.from_dict({**picture.on_paper("caption"), "datasets": tables}, validate=True)


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
def test_the_default_page_is_under_a_megabyte(lab):
    messages = packed(pictures_of(preset_view(lab.id, lab.presets[0].id)))
    assert sum(map(len, messages)) < 1_000_000


def test_every_run_that_is_drawn_is_in_the_legend_in_its_own_colour():
    view = preset_view("label_noise", "shape_matters")
    for picture in pictures_of(view):
        if "lines" in picture.data:
            text = str(picture.spec)
            assert all(label in text for label in view.runs)
            assert all(colour in text for colour in PALETTE[: len(view.runs)])


# -- the overlay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["shape_matters", "all_the_way", "authors_run", "too_few_samples"])
def test_the_chalk_line_is_there_where_it_is_claimed_and_grey_exactly_elsewhere(preset):
    view = preset_view("label_noise", preset)
    drawn = overlay(view, "test_error", id="e", title="t")
    theory = drawn.data["theory"]
    for label, run in view.runs.items():
        predicted = run.prediction.prediction["test_error"]
        mine = rows(theory, run=label)
        if predicted is None:
            assert not len(mine["x"])
            continue
        claimed = run.prediction.claimed("test_error")
        dashed, grey = rows(mine, kind=CLAIMED), rows(mine, kind=UNCLAIMED)
        np.testing.assert_array_equal(dashed["step"], run.trace.step[claimed])
        np.testing.assert_array_equal(dashed["value"], np.broadcast_to(predicted, claimed.shape)[claimed])
        # Grey reaches to the first claimed point on either side, so that the line has no hole.
        edge = np.convolve(~claimed, [1, 1, 1], "same") > 0
        positive = np.broadcast_to(predicted, edge.shape) > 0
        np.testing.assert_array_equal(grey["step"], run.trace.step[edge & positive])


def test_two_grey_stretches_are_two_lines():
    """Joined into one they would draw a grey stroke across the claimed part."""
    view = preset_view("label_noise", "all_the_way")
    claimed = view.focus.prediction.claimed("test_error")
    assert not claimed[0] and claimed.any() and not claimed[-1]
    grey = rows(overlay(view, "test_error", id="e", title="t").data["theory"], kind=UNCLAIMED)
    first, second = (grey["step"][grey["group"] == group] for group in dict.fromkeys(grey["group"]))
    inside = view.focus.trace.step[claimed]
    assert first.max() == inside[0] and second.min() == inside[-1]


def test_thin_and_dotted_lines_belong_to_the_run_in_focus():
    view = preset_view("label_noise", "shape_matters")
    drawn = overlay(view, "test_error", id="e", title="t", thin="slow_flow_test_error", floor="noise_floor")
    theory = drawn.data["theory"]
    for kind in (THIN, FLOOR):
        assert set(rows(theory, kind=kind)["run"]) == {view.focus_label}
    np.testing.assert_array_equal(
        rows(theory, kind=THIN)["value"], view.focus.prediction.prediction["slow_flow_test_error"]
    )


def test_lines_beside_the_theory_do_not_squeeze_the_picture():
    """The limit without its floor falls decades more; the axis follows the simulation and shows one of them."""
    view = preset_view("label_noise", "all_the_way")
    drawn = overlay(view, "test_error", id="e", title="t", thin="slow_flow_test_error")
    low, high = next(layer["encoding"]["y"]["scale"]["domain"] for layer in drawn.spec["layer"])
    assert np.min(drawn.data["theory"]["value"]) < 0.1 * low
    assert low >= np.min(drawn.data["lines"]["low"]) / 14
    assert high >= np.max(drawn.data["lines"]["high"])


def test_the_median_and_the_band_are_those_of_the_replicates():
    view = preset_view("label_noise", "too_few_samples")
    lines = overlay(view, "test_error", id="e", title="t").data["lines"]
    series = view.focus.trace.series["test_error"]
    np.testing.assert_array_equal(lines["step"], view.focus.trace.step)
    np.testing.assert_array_equal(lines["median"], np.quantile(series, 0.5, axis=0))
    np.testing.assert_array_equal(lines["low"], np.quantile(series, 0.1, axis=0))
    np.testing.assert_array_equal(lines["high"], np.quantile(series, 0.9, axis=0))


def test_diverged_replicates_leave_the_band_and_are_counted():
    view = preset_view("label_noise", "edge")
    run = view.focus
    stopped = np.array([stop is not None for stop in run.trace.stopped])
    assert 0 < stopped.sum() < len(stopped)
    lines = overlay(view, "test_error", id="e", title="t").data["lines"]
    end = run.trace.series["test_error"][~stopped, -1]
    assert lines["median"][-1] == pytest.approx(np.median(end), rel=1e-12)
    assert lines["step"][-1] == run.trace.step[-1]
    assert f"{stopped.sum()} of {len(stopped)} ({view.focus_label})" in band_words(view)


RATED = [lab.id for lab in all_labs() if "learning_rate" in lab.params.make().active()]


@pytest.mark.parametrize("lab_id", RATED)
def test_words_about_a_run_at_the_largest_rate_hold_no_nan(lab_id):
    """In most labs every replicate diverges there, and no picture has an end to tell."""
    lab = get_lab(lab_id)
    params = lab.params.make(learning_rate=lab.params.fields()["learning_rate"].le, steps=300)
    words = [
        f"{picture.title} {picture.alt} {picture.note}"
        for picture in pictures_of(view_of(lab_id, PageState(lab.presets[0].id, params)))
    ]
    assert words and not [one for one in words if re.search(r"\b(nan|inf)\b", one, re.IGNORECASE)]


def test_a_run_of_which_nothing_is_left_ends_where_it_diverged():
    params = LAB.params.make(algorithm="minibatch_noise", learning_rate=0.05, steps=2000)
    view = view_of("label_noise", PageState("edge", params))
    assert view.focus.diverged == params.replicates
    last = max(stop.step for stop in view.focus.trace.stopped)
    for picture in pictures_of(view):
        assert vl_convert.vegalite_to_svg(picture.on_paper("")).startswith("<svg")
        if "lines" in picture.data:
            steps = picture.data["lines"]["step"]
            assert len(steps) and steps.max() <= last
    assert f"{params.replicates} of {params.replicates}" in band_words(view)
    assert packed(pictures_of(view))


def test_of_a_matrix_that_diverged_nothing_is_drawn():
    lab = get_lab("linear_attention")
    params = lab.params.make(covariate_spectrum="custom", learning_rate=0.01, init_scale=0.3, steps=300)
    view = view_of(lab.id, PageState(lab.presets[0].id, params))
    end = view.focus.trace.stopped[0]
    assert end is not None
    drawn = {one.id: one for one in pictures_of(view) if one.id in ("matrix", "spectrum")}
    assert len(drawn) == 2
    for one in drawn.values():
        (table,) = one.frames.values()
        steps = np.asarray(one.steps)[table["frame"]]
        assert len(steps) and steps.max() < end.step < one.steps[-1]


def test_a_layer_that_diverges_at_once_is_a_page_on_either_axis():
    lab = get_lab("linear_attention")
    params = lab.params.make(covariate_spectrum="custom", learning_rate=0.01, init_scale=0.3, steps=300)
    for axis in ("step", "log_step"):
        assert packed(pictures_of(view_of(lab.id, PageState(lab.presets[0].id, params), x=axis)))


def test_of_a_run_beside_that_diverged_no_coefficients_are_drawn():
    state = of_preset(LAB, "edge")
    beyond = state.focus.replace(learning_rate=0.05)
    view = view_of("label_noise", replace(state, beside={"beyond": beyond}))
    run = view.runs["beyond"]
    lost = replace(run.trace, finals=run.trace.finals | {"beta": np.full_like(run.trace.finals["beta"], np.nan)})
    view = replace(view, runs=dict(view.runs) | {"beyond": replace(run, trace=lost)})
    (stems,) = (one for one in pictures_of(view) if one.id == "weights")
    assert set(stems.data["still"]["run"]) == {"truth"}


def test_a_floor_of_zero_has_no_place_on_a_log_axis():
    state = of_preset(LAB, "shape_matters")
    view = view_of("label_noise", PageState(state.preset, state.beside["gradient descent"]))
    assert not np.any(view.focus.prediction.prediction["noise_floor"])
    drawn = overlay(view, "test_error", id="e", title="t", floor="noise_floor")
    assert is_log(drawn)
    assert set(drawn.data["theory"]["kind"]) == {CLAIMED, UNCLAIMED}


def test_an_overlay_without_any_theory_is_drawn_without_one():
    view = preset_view("label_noise", "spherical")
    drawn = overlay(view, "test_error", id="e", title="t")
    assert set(drawn.data) == {"lines", "one"}
    pack([drawn.for_player()], steps=drawn.steps.tolist(), step_label="step", key="k")


def test_moving_points_lie_on_their_lines_and_wait_at_the_end_of_shorter_runs():
    view = preset_view("label_noise", "shape_matters")
    drawn = overlay(view, "test_error", id="e", title="t")
    now, lines = drawn.frames["now"], drawn.data["lines"]
    for label, run in view.runs.items():
        mine, line = rows(now, run=label), rows(lines, run=label)
        assert len(mine["frame"]) == len(drawn.steps)
        assert set(zip(mine["x"], mine["value"], strict=True)) <= set(zip(line["x"], line["median"], strict=True))
        assert mine["x"][-1] == run.trace.step[-1]


def test_small_and_large_axes_have_legible_ticks():
    view = preset_view("label_noise", "all_the_way")
    drawn = overlay(view, "test_error", id="e", title="t", thin="slow_flow_test_error")
    svg = vl_convert.vegalite_to_svg(drawn.on_paper(""))
    assert "10⁻⁴" in svg and "0.0001" not in svg and "1e-" not in svg


@pytest.mark.parametrize(
    ("span", "ticks"),
    [
        ((0.03, 2.7), [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]),
        ((1.2, 40.0), [2.0, 5.0, 10.0, 20.0]),
        ((0.003, 2000.0), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]),
        ((1e-9, 3e-8), [1e-9, 1e-8]),
    ],
)
def test_a_short_log_axis_has_ticks_between_the_powers_of_ten(span, ticks):
    assert rounds(*span) == pytest.approx(ticks)


def test_what_is_recorded_so_far_can_be_drawn_from_the_first_moment():
    step = LAB.recorded_steps(LAB.params.make(steps=100))
    empty = {name: np.full((2, len(step)), np.nan) for name in LAB.series}
    half = {name: np.where(step < 50, 1.0, np.nan) * np.ones((2, 1)) for name in LAB.series}
    for partial, count in ((empty, 0), (half, int(np.sum(step < 50)))):
        spec, table = overlay_preview(LAB, "test_error", {"a": (step, partial), "b": (step, empty)})
        assert len(table["value"]) == count
        values = [dict(zip(table, row, strict=True)) for row in zip(*(v.tolist() for v in table.values()), strict=True)]
        assert vl_convert.vegalite_to_svg({**spec, "data": {"values": values}}).startswith("<svg")


def test_several_series_are_told_apart_by_colour_and_style():
    alone = preset_view("label_noise", "too_few_samples")
    drawn = overlay(alone, ["test_error", "train_loss"], id="e", title="t", y_title="both")
    names = [LAB.quantity(name).label for name in ("test_error", "train_loss")]
    for name, metric in zip(names, ("test_error", "train_loss"), strict=True):
        line = rows(drawn.data["lines"], run=name)
        kept = np.isin(alone.focus.trace.step, line["step"])
        median = np.quantile(alone.focus.trace.series[metric], 0.5, axis=0)
        np.testing.assert_array_equal(line["median"], median[kept])
    text = str(drawn.spec)
    assert PALETTE[0] in text and PALETTE[1] in text and str(STYLES[1]) in text and "both" in text
    assert vl_convert.vegalite_to_svg(drawn.on_paper("")).startswith("<svg")

    many = preset_view("label_noise", "shape_matters")
    drawn = overlay(many, ["test_error", "train_loss"], id="e", title="t")
    assert len(set(drawn.data["lines"]["run"])) == 2 * len(many.runs)
    (scale,) = {str(layer["encoding"]["color"]["scale"]["range"]) for layer in drawn.spec["layer"][:2]}
    assert scale == str([hue for hue in PALETTE[: len(many.runs)] for _ in range(2)])


def test_a_curve_is_drawn_with_its_own_chalk_or_none():
    view = preset_view("label_noise", "too_few_samples")
    bare = overlay(view, [Curve("bare", view.focus, "test_error", None)], id="e", title="t")
    assert set(bare.data) == {"lines", "one"} and "theory" not in bare.alt
    chalked = overlay(view, [Curve("chalked", view.focus, "test_error", "test_error")], id="e", title="t")
    assert len(chalked.data["theory"]["value"]) > 0
    assert str(STYLES[1]) not in str(chalked.spec), "one style alone needs no mention"


# -- label noise ------------------------------------------------------------------------------------------------


def test_the_weights_of_another_run_wear_its_colour():
    state = of_preset(LAB, "shape_matters")
    beside = {"another problem": state.focus.replace(data_seed=5), "gradient descent": state.beside["gradient descent"]}
    view = view_of("label_noise", PageState(state.preset, state.focus, beside))
    weights = next(picture for picture in pictures_of(view) if picture.id == "weights")
    text = str(weights.spec)
    assert "gradient descent, end" in text and "another problem" not in text
    assert PALETTE[2] in text and PALETTE[1] not in text


def test_the_plane_shows_the_run_in_focus_when_it_is_planar():
    view = preset_view("label_noise", "planar")
    plane = next(picture for picture in pictures_of(view) if picture.id == "plane")
    assert not plane.needs
    point = plane.frames["point"]
    np.testing.assert_array_equal(point["beta_1"], view.focus.trace.frames["beta"][:, 0])
    # The noise never pushes along the segment of perfect fits, b_1 + a b_2 = 2.
    ends = np.stack([plane.frames["noise"][name].reshape(-1, 2) for name in ("beta_1", "beta_2")], axis=-1)
    middle = ends.mean(axis=1)
    np.testing.assert_allclose(middle, view.focus.trace.frames["beta"], rtol=1e-12)


@pytest.mark.slow
def test_the_recovery_curve_is_drawn_from_its_own_runs():
    view = preset_view("label_noise", "shape_matters")
    wanted = next(picture.needs for picture in pictures_of(view) if picture.id == "recovery")
    runs = {run_of("label_noise", params).key: run_of("label_noise", params) for params in wanted}
    full = View(view.lab, view.state, view.runs, fetched={**view.fetched, **runs})
    recovery = next(picture for picture in pictures_of(full) if picture.id == "recovery")
    dots = rows(recovery.data["dots"], kind="simulated")
    assert dots["n"].tolist() == [params.n_train for params in wanted]
    assert dots["rate"].tolist() == [run.metrics["recovered"].mean for run in runs.values()]
    assert np.all((dots["low"] <= dots["rate"]) & (dots["rate"] <= dots["high"]))
    assert vl_convert.vegalite_to_svg(recovery.on_paper("")).startswith("<svg")


# -- XOR clusters -----------------------------------------------------------------------------------------------


def picture(view, name):
    return next(picture for picture in pictures_of(view) if picture.id == name)


def test_one_half_after_one_step_is_marked_where_it_is_predicted():
    view = preset_view("xor_grokking", "textbook", "log_step")
    drawn = picture(view, "accuracy")
    assert drawn.data["half"] == {"x": [1.0], "value": [view.focus.prediction.prediction["step_one_test_accuracy"]]}
    assert set(drawn.data["lines"]["run"]) == {"fresh test points", "training labels", "flipped labels"}
    assert "after one step 100 % of the training labels are fitted, 100 % of the flipped ones" in drawn.alt


def test_each_cluster_is_drawn_on_demand_with_what_its_linear_classifier_gets():
    view = replace(preset_view("xor_grokking", "bad_luck", "log_step"), details=frozenset({"each_cluster"}))
    drawn = picture(view, "accuracy")
    clusters = ["+μ₁", "−μ₁", "+μ₂", "−μ₂"]
    assert set(clusters) < set(drawn.data["lines"]["run"])
    squares = drawn.data["linear"]
    assert squares["run"] == clusters
    first = [float(rows(drawn.data["lines"], run=cluster, step=1)["median"][0]) for cluster in clusters]
    assert squares["value"] == pytest.approx(first, abs=0.15)
    plain = picture(replace(view, details=frozenset()), "accuracy")
    assert "linear" not in plain.data and not set(clusters) & set(plain.data["lines"]["run"])


def test_the_test_accuracy_of_other_runs_is_drawn_beside():
    state = of_preset(get_lab("xor_grokking"), "textbook")
    other = state.focus.replace(n_train=40, n_test=400, steps=20)
    view = view_of("xor_grokking", PageState(state.preset, state.focus, {"forty samples": other}))
    drawn = picture(view, "accuracy")
    line = rows(drawn.data["lines"], run="forty samples: test points")
    median = np.median(view.runs["forty samples"].trace.series["test_accuracy"], axis=0)
    np.testing.assert_array_equal(line["median"], median)


def test_neurons_and_map_fill_their_pictures_at_every_step_and_keep_their_signs():
    view = preset_view("xor_grokking", "textbook")
    run = view.focus
    frames = picture(view, "neurons").frames["neurons"]
    count = len(run.trace.frame_step)
    both = np.stack([frames["x"], frames["y"]], axis=-1).reshape(count, -1, 2)
    np.testing.assert_allclose(np.abs(both).max(axis=(1, 2)), 1.0, rtol=1e-12)
    true = run.trace.frames["neurons"]
    assert np.array_equal(np.sign(both), np.sign(true))
    positive = run.trace.finals["neuron_signs"][0] > 0
    assert np.array_equal(frames["kind"].reshape(count, -1)[-1] == "output +", positive)
    cells = picture(view, "decision_map").frames["map"]
    last = rows(cells, frame=count - 1)
    corner = np.argmin(last["x"] + last["y"])
    assert np.sign(last["output"][corner]) == np.sign(run.trace.frames["decision_map"][-1, 0, 0])
    at_mean = np.hypot((last["x"] + last["x2"]) / 2 - 1.0, (last["y"] + last["y2"]) / 2) < 1e-9
    assert last["output"][at_mean][0] > 0, "the first mean has label +1"


def test_the_cross_is_grey_where_the_theorem_assumes_what_is_not_so():
    for preset, ink in (("textbook", "$text"), ("lazy_init", "$muted")):
        drawn = picture(preset_view("xor_grokking", preset), "neurons")
        assert drawn.spec["layer"][0]["mark"]["color"] == ink
        assert ("grey" in drawn.note) == (ink == "$muted")


def test_clusters_of_random_labels_are_drawn_with_their_margins():
    view = preset_view("xor_grokking", "bad_luck")
    drawn = picture(view, "clusters")
    table, run = drawn.data["clusters"], view.focus
    assert len(table["margin"]) == 4 * run.trace.replicates
    agree = np.mean((table["accuracy"] > 0.5) == (table["margin"] > 0))
    assert agree == pytest.approx(run.metrics["rule_agreement"].mean)
    assert all(p.id != "clusters" for p in pictures_of(preset_view("xor_grokking", "textbook")))


def test_zones_and_contours_of_the_phase_diagram_agree():
    """Left of the line of 75 percent no zone is benign, right of that of 97 percent hardly any is catastrophic."""
    drawn = picture(preset_view("xor_grokking", "textbook"), "phases")
    zones, lines = drawn.data["zones"], drawn.data["contours"]
    middle = {name: np.sqrt(zones[name] * zones[f"{name}2"]) for name in ("signal", "n")}
    for accuracy, forbidden, side in ((0.75, "benign", -1), (0.97, "catastrophic", 1)):
        line = {name: lines[name][lines["accuracy"] == accuracy] for name in ("n", "signal")}
        order = np.argsort(line["n"], kind="stable")
        at = np.interp(middle["n"], line["n"][order], line["signal"][order])
        beyond = side * (middle["signal"] - at) > 0
        assert beyond.any() and forbidden not in set(zones["zone"][beyond])
    assert set(lines["kind"]) == {CLAIMED, UNCLAIMED}


@pytest.mark.slow
def test_the_phase_diagram_is_filled_with_its_own_runs():
    view = preset_view("xor_grokking", "textbook")
    wanted = picture(view, "phases").needs
    runs = {run_of("xor_grokking", params).key: run_of("xor_grokking", params) for params in wanted}
    full = View(view.lab, view.state, view.runs, fetched={**view.fetched, **runs})
    drawn = picture(full, "phases")
    assert len(drawn.data["cells"]["accuracy"]) == len(wanted) == 20
    weak = rows(drawn.data["cells"], signal=0.5)["accuracy"]
    strong = rows(drawn.data["cells"], signal=4.0)["accuracy"]
    assert np.all(strong > 0.97) and np.all(weak < 0.65)
    assert vl_convert.vegalite_to_svg(drawn.on_paper("")).startswith("<svg")
