"""The newest confirmation on a lab's page: its points over the lab's pictures, and its figures below them."""

from __future__ import annotations

import json

import altair as alt
import numpy as np
import pytest
import vl_convert

from app.frame import confirmed
from app.frame.confirmed import LaidOver, Points, drawn, lay_over, with_points
from app.frame.page import lab_module
from app.frame.pictures import Picture, finish
from app.frame.player import pack
from sims.engine import all_labs, confirmations
from sims.engine.figure import Figure, Line
from tests.app.samples import pictures_of, preset_view

REPORTS = [(lab, report) for lab in all_labs() if (report := confirmations.newest(lab.id))]
of_report = pytest.mark.parametrize(("lab", "report"), REPORTS, ids=[lab.id for lab, _ in REPORTS])
DECLARED = [(lab, report, one) for lab, report in REPORTS for one in getattr(lab_module(lab.id), "CONFIRMED", ())]


def page_view(lab):
    return preset_view(lab.id, lab.presets[0].id)


def plain(**changes):
    """A picture of one line."""
    x, y = alt.X("a:Q", scale=alt.Scale(domain=[0, 2])), alt.Y("b:Q", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(alt.NamedData("line"))
    inner = alt.layer(base.mark_line().encode(x, y, alt.Color("run:N")), base.mark_text().encode(text="run:N"))
    spec = finish(alt.layer(base.mark_rule().encode(y), inner))
    data = {"line": {"a": [0.0, 1.0], "b": [0.0, 1.0], "run": ["one", "one"]}}
    return Picture(
        **{"id": "p", "title": "t", "spec": spec, "alt": "A line.", "data": data, "note": "Look.", **changes}
    )


def player_draws(picture):
    """The player packs it, and the export renders it."""
    pack(
        [picture.for_player()],
        steps=None if picture.steps is None else picture.steps.tolist(),
        step_label="step",
        key="",
    )
    assert "<svg" in vl_convert.vegalite_to_svg(json.dumps(picture.on_paper("Made by a test.")))


# -- points over a picture -----------------------------------------------------------------------------------------


def test_points_lie_on_the_axes_of_the_first_layer_that_has_both():
    made = with_points(plain(), Points([1.0, np.nan, 2.0], [0.5, 0.1, np.inf], "elsewhere"), "a device")
    group = made.spec["layer"][1]["layer"]
    point, line = group[-1], group[0]
    for name in ("x", "y"):
        assert point["encoding"][name]["scale"] == line["encoding"][name]["scale"]
        assert point["encoding"][name]["field"] == name
    assert {name: list(values) for name, values in made.data["confirmed"].items()} == {
        "x": [1.0], "y": [0.5], "source": ["confirmed"]
    }, "what is not finite is left out"  # fmt: skip
    assert "Confirmed: elsewhere (a device)." in made.alt and "(1, 0.5)" in made.alt
    assert made.note == "Look. Triangles, confirmed: elsewhere (a device)."
    assert "a device" in json.dumps(made.on_paper("Runs.")["title"]), "an export says by what"
    player_draws(made)
    assert "confirmed" not in plain().data


def test_points_of_a_series_wear_the_colour_of_its_line():
    made = with_points(plain(), Points([1.0], [0.5], "elsewhere", ["one"]), "a device")
    point, line = made.spec["layer"][1]["layer"][-1], made.spec["layer"][1]["layer"][0]
    assert point["encoding"]["color"] == {**line["encoding"]["color"], "field": "series"}
    assert list(made.data["confirmed"]["series"]) == ["one"]
    player_draws(made)


def test_points_that_cannot_lie_there_are_a_mistake():
    bare = finish(alt.Chart(alt.NamedData("line")).mark_rule().encode(alt.Y("b:Q")))
    with pytest.raises(ValueError, match="no layer with both axes"):
        with_points(plain(spec={"layer": [bare]}), Points([1.0], [1.0], "w"), "d")
    shaped = alt.Chart(alt.NamedData("line")).mark_point().encode(alt.X("a:Q"), alt.Y("b:Q"), alt.Opacity("run:N"))
    with pytest.raises(ValueError, match="by their opacity"):
        with_points(plain(spec=finish(alt.layer(shaped))), Points([1.0], [1.0], "w"), "d")


def test_two_experiments_on_one_picture_are_one_table():
    once = with_points(plain(), Points([1.0], [0.5], "elsewhere"), "a device")
    twice = with_points(once, Points([2.0], [0.2], "in another place"), "a device")
    assert list(twice.data["confirmed"]["x"]) == [1.0, 2.0] and twice.spec == once.spec
    assert "elsewhere" in twice.note and "in another place" in twice.note and "in another place" in twice.source
    player_draws(twice)
    with pytest.raises(ValueError, match="both with series or both without"):
        with_points(once, Points([2.0], [0.2], "in another place", ["one"]), "a device")


def test_nothing_finite_leaves_the_picture_as_it_is():
    picture = plain()
    assert with_points(picture, Points([np.nan], [1.0], "w"), "d") is picture


def test_an_experiment_that_says_none_or_is_not_in_the_report_is_not_laid_over():
    lab, report = REPORTS[0]
    view = page_view(lab)

    class Module:
        CONFIRMED = (
            LaidOver(report["experiments"][0]["id"], "p", lambda view, experiment: None),
            LaidOver("never_made", "p", lambda view, experiment: 1 / 0),
        )

    picture = plain()
    assert lay_over(Module, view, [picture], report) == [picture]
    assert lay_over(object, view, [picture], report) == [picture]


@pytest.mark.parametrize(("lab", "report", "one"), DECLARED, ids=[f"{lab.id}-{o.picture}" for lab, _, o in DECLARED])
def test_what_a_lab_declares_lies_on_a_picture_of_its_page(lab, report, one):
    """Within the axes, and told with device, versions, seeds and date."""
    rows = {row["id"]: row for row in report["experiments"]}
    assert one.experiment in rows
    view = page_view(lab)
    before = {picture.id: picture for picture in pictures_of(view)}
    after = {picture.id: picture for picture in lay_over(lab_module(lab.id), view, list(before.values()), report)}
    assert list(after) == list(before) and one.picture in after
    if one.points(view, rows[one.experiment]) is None:
        assert any(o.experiment != one.experiment for _, _, o in DECLARED if o.picture == one.picture)
        return  # it speaks of another preset, and the picture of the first one has an experiment of its own
    made, table = after[one.picture], after[one.picture].data["confirmed"]
    layer = next(_layers(made.spec))
    for name in ("x", "y"):
        low, high = layer["encoding"][name]["scale"]["domain"]
        assert np.all(np.isfinite(table[name]))
        inside = (np.asarray(table[name]) >= low) & (np.asarray(table[name]) <= high)
        assert np.mean(inside) > 0.6, f"{name} of most points lies within the picture"
    told = [report["device_name"], f"torch {report['software']['torch']}", report["created"][:10]]
    for words in [*told, f"seed {rows[one.experiment]['settings']['seed']}"]:
        assert words in made.note and words in made.alt and words in made.source
    player_draws(made)


def _layers(spec):
    """The layers of a spec that draw the points of a confirmation."""
    for layer in spec.get("layer", ()):
        if layer.get("data", {}).get("name") == "confirmed":
            yield layer
        yield from _layers(layer)


# -- figures -------------------------------------------------------------------------------------------------------


@of_report
def test_every_figure_of_a_report_is_a_picture(lab, report):
    pictures = [drawn(row, confirmations.made_by(report, row["id"])) for row in report["experiments"]]
    assert len(pictures) == len(report["experiments"])
    for picture, row in zip(pictures, report["experiments"], strict=True):
        figure = Figure.of(row["figure"])
        points = sum(len(figure.drawable(line)) for line in figure.lines)
        assert points == sum(len(columns["x"]) for columns in picture.data.values())
        assert "theory" in picture.data and "measured" in picture.data
        for verdict in row["verdicts"]:
            assert verdict["statement"] in picture.alt and verdict["reason"] in picture.alt
        assert picture.alone and report["device_name"] in picture.source
        player_draws(picture)
        title = json.dumps(picture.on_paper("The runs of the page.")["title"])
        assert report["device_name"].split()[0] in title and "The runs of the page" not in title


@pytest.mark.parametrize("log", [False, True])
def test_a_figure_keeps_its_axes_and_leaves_out_what_cannot_be_drawn(log):
    lines = [
        Line("measured", [0.0, 1.0, 10.0, float("nan")], [1.0, 2.0, 3.0, 1.0], 2),
        Line("limit", [1.0, 10.0], [2.0, 2.0], 2, dashed=True),
        Line("nothing", [-1.0], [float("nan")], 3),
    ]
    content = json.loads(json.dumps(Figure("T", "time", "loss", lines, log_x=log).as_dict()).replace("NaN", "null"))
    picture = drawn({"id": "e", "title": "A.", "figure": content, "verdicts": []}, "device")
    assert list(picture.data["measured"]["x"]) == ([1.0, 10.0] if log else [0.0, 1.0, 10.0])
    encoding = picture.spec["layer"][0]["encoding"]
    assert encoding["x"]["title"] == "time" and encoding["x"]["scale"]["type" if log else "nice"] == (
        "log" if log else False
    )
    player_draws(picture)


def test_a_damaged_report_costs_a_warning_and_not_the_page(monkeypatch, tmp_path):
    lab, _ = REPORTS[0]
    (tmp_path / "report.json").write_text("{")
    monkeypatch.setattr(confirmations.newest, "__defaults__", (tmp_path,))
    said = []
    monkeypatch.setattr(confirmed.st, "warning", lambda words, **_: said.append(words))
    assert confirmed.newest(lab) is None and "is damaged" in said[0]
