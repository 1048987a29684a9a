"""How pictures are looked at: replicates, differences, kept axes, names on lines, and specs that outlast runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from app.frame.axes import ranges_of, with_ranges
from app.frame.curves import MOST_STRANDS, quantile
from app.frame.difference import difference
from app.frame.labels import on_lines
from app.frame.options import MOST_RANGES, SHOWN, Options, decode_options, encode_options
from app.frame.page import axes, lab_module
from app.frame.pictures import CLAIMED, overlay
from app.frame.player import pack
from app.frame.specs import fill, lift, units
from app.frame.state import PageState, of_preset
from app.frame.views import looked_at, unmet
from sims.engine import all_labs, get_lab
from tests.app.samples import FIRST_PRESETS, pictures_of, preset_view, view_of

LABS = all_labs()
LAB = get_lab("label_noise")
SMALL = {"steps": 400, "n_train": 5, "dim": 8, "sparsity": 2}


def small_view(beside=None, **changes):
    focus = LAB.params.make({**SMALL, **changes})
    others = {label: focus.replace(**fields) for label, fields in (beside or {}).items()}
    return view_of("label_noise", PageState("shape_matters", focus, others))


def drawn(view):
    return overlay(view, "test_error", id="error", title="Error")


def svg_of(picture):
    svg = vl_convert.vegalite_to_svg(picture.on_paper("caption"))
    assert "NaN" not in svg and "undefined" not in svg
    return svg


def rows(table, **where):
    chosen = np.ones(len(next(iter(table.values()))), dtype=bool)
    for name, value in where.items():
        chosen &= np.asarray(table[name]) == value
    return {name: np.asarray(column)[chosen] for name, column in table.items()}


# -- replicates ----------------------------------------------------------------------------------------------------


def test_one_replicate_stands_out_over_the_median_and_band_of_all():
    view = small_view(replicates=5)
    series = view.focus.trace.series["test_error"]
    picture = drawn(view)
    np.testing.assert_array_equal(picture.data["one"]["value"], series[0])
    np.testing.assert_array_equal(picture.data["lines"]["median"], quantile(series, 0.5))
    assert "strands" not in picture.data
    words = " ".join(picture.spec["title"]["text"])
    assert words == "Line: median of 5 replicates; band: 10 to 90\u00a0% of them. Thin: replicate 0."


def test_the_replicate_that_stands_out_stays_inside_the_picture():
    view = preset_view("linear_transfer", "four_nodes")
    picture = next(p for p in pictures_of(view) if p.id == "training")
    low, high = ranges_of(picture.spec)["y"]
    assert np.min(picture.data["one"]["value"]) < np.min(picture.data["lines"]["low"]), "or it shows nothing"
    assert low <= np.min(picture.data["one"]["value"]) and np.max(picture.data["one"]["value"]) <= high


def test_a_single_replicate_has_no_band_and_the_figure_says_so():
    picture = drawn(small_view(replicates=1))
    assert not {"one", "strands"} & set(picture.data)
    np.testing.assert_array_equal(picture.data["lines"]["low"], picture.data["lines"]["high"])
    assert picture.spec["title"]["text"] == ["Line: one replicate, hence no band."]


def test_spaghetti_is_every_replicate_on_demand():
    view = replace(small_view(replicates=5), spaghetti=True)
    picture = drawn(view)
    for number, series in enumerate(view.focus.trace.series["test_error"]):
        np.testing.assert_array_equal(rows(picture.data["strands"], strand=number)["value"], series)
    assert "Thin: each replicate." in " ".join(picture.spec["title"]["text"])


def test_spaghetti_is_bounded_and_says_how_many_are_left_out():
    view = replace(small_view({"other": {"learning_rate": 0.02}}, replicates=80), spaghetti=True)
    picture = drawn(view)
    table = picture.data["strands"]
    for label in view.runs:
        assert set(rows(table, run=label)["strand"]) == set(range(MOST_STRANDS // 2))
    assert f"the first {MOST_STRANDS // 2} of a run" in " ".join(picture.spec["title"]["text"])


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_the_number_of_replicates_and_the_interval_are_in_every_overlay_also_when_it_is_exported(lab):
    view = replace(preset_view(lab.id, lab.presets[0].id, lab_module(lab.id).STORY.x), spaghetti=True)
    overlays = [picture for picture in pictures_of(view) if picture.curves]
    assert overlays or lab.id not in ("label_noise", "xor_grokking", "linear_attention", "augmentation_graph")
    for picture in overlays:
        counts = {curve.run.trace.replicates for curve in picture.curves}
        words = " ".join(picture.spec["title"]["text"])
        assert (f"{max(counts)} replicates" in words and "10 to 90" in words) or counts == {1}
        assert words in picture.on_paper("caption")["title"]["subtitle"][0]
        assert words.split()[1] in svg_of(picture)


def test_runs_are_told_apart_by_symbols_where_there_is_only_colour():
    picture = drawn(small_view({"a": {"learning_rate": 0.02}, "b": {"learning_rate": 0.005}}))
    marks = next(unit for unit in units(picture.spec) if unit["data"]["name"] == "marks")
    shapes = marks["encoding"]["shape"]["scale"]["range"]
    assert len(set(shapes)) == len(shapes) == 3
    for label in ("in focus", "a", "b"):
        line, own = (rows(picture.data[name], run=label) for name in ("lines", "marks"))
        points = set(zip(line["x"], line["median"], strict=True))
        assert len(own["x"]) >= 3 and set(zip(own["x"], own["value"], strict=True)) <= points
    assert "marks" not in drawn(small_view()).data


# -- differences ---------------------------------------------------------------------------------------------------


def test_paired_replicates_are_compared_one_by_one():
    view = small_view({"faster": {"learning_rate": 0.02}}, replicates=5)
    compared = difference(view, drawn(view))
    mine, other = (run.trace.series["test_error"] for run in view.runs.values())
    assert LAB.quantity("test_error").scale == "log"
    ratio = other / mine
    line = rows(compared.data["lines"], run="faster")
    for name, q in (("median", 0.5), ("low", 0.1), ("high", 0.9)):
        np.testing.assert_allclose(line[name], np.quantile(ratio, q, axis=0), rtol=1e-12)
    assert "5 pairs with the same random numbers" in " ".join(compared.spec["title"]["text"])
    assert f"is {np.median(ratio[:, -1]):.3g} times that of in focus" in compared.alt
    assert compared.data["equal"]["value"] == [1.0]
    svg_of(compared)


def test_runs_that_are_not_paired_are_compared_by_their_medians():
    view = small_view({"elsewhere": {"seed": 9}}, replicates=5)
    compared = difference(view, drawn(view))
    mine, other = (np.median(run.trace.series["test_error"], axis=0) for run in view.runs.values())
    line = rows(compared.data["lines"], run="elsewhere")
    np.testing.assert_allclose(line["median"], other / mine, rtol=1e-12)
    np.testing.assert_array_equal(line["low"], line["high"])
    assert "no band" in " ".join(compared.spec["title"]["text"])


def test_a_shorter_run_is_compared_as_far_as_it_goes():
    view = small_view({"short": {"steps": 100}})
    line = rows(difference(view, drawn(view)).data["lines"], run="short")
    assert 0 < line["step"].max() <= 100


def test_the_chalk_lines_are_compared_too_and_claimed_where_both_are():
    view = preset_view("label_noise", "shape_matters")
    compared = difference(view, next(p for p in pictures_of(view) if p.id == "error"))
    line = rows(compared.data["theory"], run="gradient descent", kind=CLAIMED)
    other = view.runs["gradient descent"].prediction
    own, step = view.focus.prediction, view.focus.trace.step
    at = np.searchsorted(step * 1.0, line["x"])
    predicted = np.interp(line["x"], other.step, np.broadcast_to(other.prediction["test_error"], other.step.shape))
    np.testing.assert_allclose(line["value"], predicted / own.prediction["test_error"][at], rtol=1e-9)


def test_there_is_no_difference_of_one_run():
    view = small_view()
    assert difference(view, drawn(view)) is None
    options = Options("step", frozenset({"difference"}))
    assert [p.id for p in looked_at(pictures_of(view), view, options)] == [p.id for p in pictures_of(view)]


@pytest.mark.parametrize(("lab_id", "preset"), FIRST_PRESETS)
def test_every_preset_can_be_compared(lab_id, preset):
    view = preset_view(lab_id, preset, "log_step")
    found = looked_at(pictures_of(view), view, Options("log_step", frozenset({"difference"})))
    assert len({picture.id for picture in found}) == len(found)
    for picture in found:
        if picture.id.endswith("_difference"):
            assert all(np.all(np.isfinite(picture.data["lines"][name])) for name in ("x", "median"))
            svg_of(picture)


# -- axes that stand still -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lab_id", "preset"), FIRST_PRESETS)
def test_axes_that_are_kept_are_those_that_were_seen(lab_id, preset):
    view = preset_view(lab_id, preset)
    for picture in pictures_of(view):
        ranges = ranges_of(picture.spec)
        same, refused = with_ranges(picture.spec, ranges)
        assert refused == [] and ranges_of(same) == ranges
        wider = {
            along: (low - 0.5 * (high - low) if low <= 0 else low / 2, 2 * high)
            for along, (low, high) in ranges.items()
            if high > 0
        }
        moved, refused = with_ranges(picture.spec, wider)
        assert refused == [] and {along: ranges_of(moved)[along] for along in wider} == wider
        svg_of(replace(picture, spec=moved))


def test_another_run_is_drawn_on_the_kept_axes():
    options = Options("step", ranges={"error": ranges_of(drawn(small_view()).spec)})
    faster = small_view(learning_rate=0.05)
    (kept,) = looked_at([drawn(faster)], faster, options)
    assert ranges_of(kept.spec) == dict(options.ranges["error"]) != ranges_of(drawn(faster).spec)


def test_a_range_that_an_axis_has_no_room_for_is_named():
    picture = drawn(small_view())
    assert "does not fit" in unmet([picture], Options("step", ranges={"error": {"y": (-1.0, 1.0)}}))[0]
    assert "not on this page" in unmet([picture], Options("step", ranges={"ghost": {"y": (1.0, 2.0)}}))[0]
    assert unmet([picture], Options("step", ranges={"error": {"y": (1.0, 2.0)}})) == []
    assert "could be drawn" in unmet([picture], Options("step", shown=frozenset({"difference"})))[0]


# -- names on the lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lab_id", "preset"), FIRST_PRESETS)
def test_for_a_room_every_line_of_an_overlay_has_its_name_beside_it(lab_id, preset):
    for picture in pictures_of(preset_view(lab_id, preset)):
        named = on_lines(picture)
        svg_of(named)
        names = [unit["encoding"] for unit in units(named.spec) if unit.get("data", {}).get("name") == "on_lines"]
        assert all("domain" in name[along]["scale"] for name in names for along in ("x", "y")), "on the lines' own axes"
        if not picture.curves:
            continue
        (words,) = {tuple(named.data["on_lines"]["words"])}
        assert {curve.label for curve in picture.curves} <= set(words)
        legends = [
            channel.get("legend")
            for unit in units(named.spec)
            for channel in unit["encoding"].values()
            if isinstance(channel, dict) and channel.get("field") in ("run", "kind") and "scale" in channel
        ]
        assert all(legend is None for legend in legends), "a name on a line needs no legend"
        (low_x, high_x), (low_y, high_y) = (ranges_of(named.spec)[along] for along in ("x", "y"))
        assert all(low_x <= x <= high_x for x in named.data["on_lines"]["x"])
        assert all(low_y <= y <= high_y for y in named.data["on_lines"]["y"])


def test_names_cover_neither_each_other_nor_what_is_easily_avoided():
    from app.frame.labels import _HEIGHT, _SIGN, TALL, WIDTH, _axes, _to

    view = preset_view("label_noise", "shape_matters")
    named = on_lines(next(p for p in pictures_of(view) if p.id == "error"))
    table = named.data["on_lines"]
    x_axis, y_axis = _axes(named.spec)
    x, y = WIDTH * _to(table["x"], x_axis), TALL * (1 - _to(table["y"], y_axis))
    boxes = [
        (a - _SIGN * len(w) / 2, a + _SIGN * len(w) / 2, b - _HEIGHT / 2, b + _HEIGHT / 2)
        for a, b, w in zip(x, y, table["words"], strict=True)
    ]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            across = min(one[1], other[1]) - max(one[0], other[0])
            down = min(one[3], other[3]) - max(one[2], other[2])
            assert across <= 1 or down <= 0.2 * _HEIGHT, (table["words"][i], across, down)


# -- specs that outlast their numbers ------------------------------------------------------------------------------


def lifted(picture):
    return json.dumps(lift(picture.spec)[0], sort_keys=True)


def test_a_slider_sends_numbers_and_no_new_drawing():
    """The specs of two runs of one kind are the same text; what differs are values and tables."""
    before, after = small_view(learning_rate=0.01), small_view(learning_rate=0.02)
    for one, other in zip(pictures_of(before), pictures_of(after), strict=True):
        assert lifted(one) == lifted(other), one.id
    assert lift(drawn(before).spec)[1] != lift(drawn(after).spec)[1]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_what_is_lifted_out_and_filled_in_again_is_the_same(lab):
    for picture in pictures_of(preset_view(lab.id, lab.presets[0].id)):
        spec, values = lift(picture.spec)
        again, back = lift(fill(spec, values))
        assert (again, back) == (spec, values)
        assert all(name.split("_")[0] in ("domain", "names", "ticks", "note") for name in values)
        pack(
            [picture.for_player()],
            steps=None if picture.steps is None else picture.steps.tolist(),
            step_label="step",
            key="k",
        )


def test_a_spec_with_its_values_beside_it_is_drawn_the_same():
    for picture in pictures_of(preset_view("label_noise", "shape_matters")):
        spec, values = lift(picture.spec)
        params = [{"name": name, "value": value} for name, value in values.items()]
        texts = []
        for one in (picture.spec, {**spec, "params": params}):
            svg = vl_convert.vegalite_to_svg(
                {**replace(picture, spec=one, title="t").on_paper("")}
                if "title" not in one
                else {**one, "datasets": picture.tables(), "width": 300, "height": 200}
            )
            texts.append(sorted(set(json.dumps(svg.count(mark)) + mark for mark in ("<path", "<text", "<line"))))
        assert texts[0] == texts[1]


# -- the address ---------------------------------------------------------------------------------------------------

IDS = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=12)
ENDS = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(
    lambda pair: (pair[0], pair[0] + abs(pair[1]) + abs(pair[0]) * 1e-3)
)


@given(
    axis=st.sampled_from(["step", "log_step"]),
    shown=st.frozensets(st.sampled_from(sorted(SHOWN))),
    ranges=st.dictionaries(IDS, st.dictionaries(st.sampled_from("xy"), ENDS, min_size=1), max_size=MOST_RANGES),
)
def test_any_options_come_back_from_the_address(axis, shown, ranges):
    options = Options(axis, shown, ranges)
    found, notices = decode_options(encode_options(options, "step"), "step", ["step", "log_step"], SHOWN)
    assert notices == []
    assert (found.axis, found.shown) == (axis, shown)
    assert found.ranges.keys() == ranges.keys()
    for name, own in ranges.items():
        for along, ends in own.items():
            np.testing.assert_allclose(found.ranges[name][along], ends, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"axis": ["sideways"]}, "sideways"),
        ({"axis": ["step", "log_step"]}, "axis is written 2 times"),
        ({"show": ["ghosts", "replicates"]}, "ghosts"),
        ({"range": ["error"]}, "error"),
        ({"range": ["error~x:1"]}, "error~x:1"),
        ({"range": ["error~x:2,1"]}, "error~x:2,1"),
        ({"range": ["error~x:0,nan"]}, "error~x:0,nan"),
        ({"range": ["error~x:0,inf"]}, "error~x:0,inf"),
        ({"range": ["error~z:0,1"]}, "error~z:0,1"),
        ({"range": [f"p{i}~x:0,1" for i in range(MOST_RANGES + 5)]}, f"{MOST_RANGES + 5} pictures"),
    ],
    ids=str,
)
def test_a_part_of_the_options_that_is_not_understood_is_named(query, named):
    options, notices = decode_options(query, "step", ["step", "log_step"], SHOWN)
    assert len(notices) == 1 and named in notices[0]
    assert len(options.ranges) <= MOST_RANGES


def test_no_lab_calls_a_detail_as_every_page_calls_one():
    for lab in LABS:
        story = lab_module(lab.id).STORY
        assert not set(SHOWN) & set(story.details)
        assert story.x in axes(story)


def test_a_view_of_a_preset_is_cached_under_what_it_shows():
    from app.frame.page import _identity

    view = preset_view("label_noise", "shape_matters")
    plain = Options("step")
    others = [
        replace(plain, axis="log_step"),
        plain.switched("replicates", True),
        replace(plain, ranges={"error": {"y": (1.0, 2.0)}}),
    ]
    identities = {_identity(view, options) for options in (plain, *others)}
    assert len(identities) == 4
    assert of_preset(LAB, "shape_matters") == view.state
