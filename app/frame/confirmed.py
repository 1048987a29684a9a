"""The newest confirmation of a lab on its page: points over the lab's own pictures, figures below the verdicts.

A lab's module may declare `CONFIRMED`, which of its experiments lie on which of its pictures. Every figure of the
report is drawn besides, whether it is declared or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from sims.engine import ChalklineError, Lab, confirmations
from sims.engine.figure import Figure

from .pictures import PALETTE, Picture, layered, legend
from .player import player
from .runs import View
from .words import escape

Numbers = Sequence[float] | NDArray[np.float64]
Experiment = Mapping[str, Any]  # an entry of a report's experiments: settings, parts, verdicts, figure

TABLE = "confirmed"  # of the points, in a picture
LEGEND = "confirmed"
_DASHES = ([7, 4], [2, 3], [12, 3, 2, 3], [1, 4])  # of theory, line by line
_SHAPE = "triangle-up"


@dataclass(frozen=True)
class Points:
    """An experiment in numbers on the axes of a picture.

    Args:
        x, y: where the points are; one that is not finite is left out.
        words: what they are, for the note below the picture; what was scaled to lie on these axes is said here.
        series: for each point the name of the picture's coloured line that it belongs to; empty where they are ink.
    """

    x: Numbers
    y: Numbers
    words: str
    series: Sequence[str] | NDArray[np.str_] = ()


@dataclass(frozen=True)
class LaidOver:
    """An experiment of the lab's confirmation that lies on one of the lab's pictures.

    Args:
        experiment: its id in the report.
        picture: the id of the picture.
        points: (view, experiment) -> its points, None where the picture of this view is about something else.
    """

    experiment: str
    picture: str
    points: Callable[[View, Experiment], Points | None]


def newest(lab: Lab) -> dict[str, Any] | None:
    """The lab's newest report; where one is damaged that is said on the page, and there is none."""
    try:
        return confirmations.newest(lab.id)
    except ChalklineError as error:
        st.warning(escape(str(error)), icon=":material/report:")
        return None


def lay_over(module: object, view: View, pictures: Sequence[Picture], report: Mapping[str, Any]) -> list[Picture]:
    """The pictures, with the points of the report on those that the module declares."""
    rows = {row["id"]: row for row in report["experiments"]}
    found = list(pictures)
    for one in getattr(module, "CONFIRMED", ()):
        if one.experiment not in rows:
            continue
        made = confirmations.made_by(report, one.experiment)
        for index, picture in enumerate(found):
            if picture.id == one.picture and (points := one.points(view, rows[one.experiment])) is not None:
                found[index] = with_points(picture, points, made)
    return found


def with_points(picture: Picture, points: Points, made: str) -> Picture:
    """A picture with points over it, on the axes of its first layer that has both; `made` says by what.

    Points that lie there already are joined. Raises ValueError where no layer has two axes, where the picture has a
    legend of opacities already, or where of two experiments one has series and the other none.
    """
    x, y = np.asarray(points.x, dtype=float), np.asarray(points.y, dtype=float)
    kept = np.isfinite(x) & np.isfinite(y)
    if not np.any(kept):
        return picture
    table: dict[str, Any] = {"x": x[kept], "y": y[kept], "source": np.full(kept.sum(), LEGEND, dtype=object)}
    if len(points.series):
        table["series"] = np.array(points.series, dtype=object)[kept]

    there = picture.data.get(TABLE)
    if there is not None:
        if there.keys() != table.keys():
            raise ValueError(f"two experiments on picture {picture.id!r} must be both with series or both without")
        table = {name: np.concatenate([there[name], values]) for name, values in table.items()}

    def layer(beside: Mapping[str, Any]) -> dict[str, Any]:
        encoding = {
            "x": {**beside["encoding"]["x"], "field": "x"},
            "y": {**beside["encoding"]["y"], "field": "y"},
            # The legend is that of an opacity: shapes may tell the picture's own points apart.
            "opacity": {
                "field": "source",
                "type": "nominal",
                "scale": {"type": "ordinal", "domain": [LEGEND], "range": [1]},
                "legend": {
                    "title": None,
                    "orient": "bottom",
                    "symbolType": _SHAPE,
                    "symbolSize": 110,
                    "symbolStrokeColor": "$text",
                    "symbolFillColor": "transparent",
                    "symbolStrokeWidth": 2,
                    "labelLimit": 0,
                },
            },
        }
        mark = {"type": "point", "shape": _SHAPE, "filled": False, "size": 110, "strokeWidth": 2, "clip": True}
        if len(points.series):
            encoding["color"] = {**beside["encoding"]["color"], "field": "series"}
        else:
            mark["color"] = "$text"
        return {"data": {"name": TABLE}, "mark": mark, "encoding": encoding}

    needed = ("x", "y", "color") if len(points.series) else ("x", "y")
    spec = dict(picture.spec) if there is not None else _beside(picture.spec, layer, needed)
    if spec is None:
        raise ValueError(f"picture {picture.id!r} has no layer with both axes for points to lie on")
    source = f"Confirmed: {points.words} ({made})."
    return replace(
        picture,
        spec=spec,
        data={**picture.data, TABLE: table},
        alt=f"{picture.alt} {source} {_said(x[kept], y[kept])}",
        note=f"{picture.note} Triangles, {source[0].lower()}{source[1:]}".strip(),
        source=f"{picture.source} {source}".strip(),
    )


def _said(x: np.ndarray, y: np.ndarray) -> str:
    """A handful of points in words."""
    shown = range(len(x)) if len(x) <= 8 else sorted({round(i) for i in np.linspace(0, len(x) - 1, 6)})
    return "Points: " + ", ".join(f"({x[i]:.3g}, {y[i]:.3g})" for i in shown) + "."


def _beside(
    spec: Mapping[str, Any], layer: Callable[[Mapping[str, Any]], Mapping[str, Any]], needed: Sequence[str]
) -> dict[str, Any] | None:
    """The spec with a layer on top of those of its innermost group whose first one fits; None where none does."""
    layers = list(spec.get("layer", ()))
    for index, one in enumerate(layers):
        if "layer" in one:
            inner = _beside(one, layer, needed)
            if inner is not None:
                return {**spec, "layer": [*layers[:index], inner, *layers[index + 1 :]]}
        elif all("field" in one.get("encoding", {}).get(name, {}) for name in needed):
            if any("opacity" in other.get("encoding", {}) for other in layers):
                raise ValueError("points cannot lie on a picture that tells its own by their opacity")
            return {**spec, "layer": [*layers, layer(one)]}
    return None


# -- figures -------------------------------------------------------------------------------------------------


@st.cache_resource(max_entries=64, show_spinner=False)
def figures(lab_id: str, created: str, _report: Mapping[str, Any]) -> list[Picture]:
    """The figures of a report as pictures of the page, remembered."""
    return [drawn(row, confirmations.made_by(_report, row["id"])) for row in _report["experiments"]]


def drawn(row: Experiment, made: str) -> Picture:
    """The figure of an experiment in the page's own style: dots joined by lines, theory dashed."""
    figure = Figure.of(row["figure"])
    parts: list[tuple[Any, ...]] = []
    for number, line in enumerate(figure.lines):
        points = figure.drawable(line)
        if points:
            x, y = zip(*points, strict=True)
            words = [np.full(len(x), text, dtype=object) for text in (f"{number}", line.label)]
            parts.append((*words, np.full(len(x), line.dashed), np.arange(len(x)), np.array(x), np.array(y)))
    names = ("line", "label", "dashed", "order", "x", "y")
    table = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    dashed = table.pop("dashed").astype(bool)
    split = {
        "measured": {name: values[~dashed] for name, values in table.items()},
        "theory": {name: values[dashed] for name, values in table.items()},
    }
    data = {name: columns for name, columns in split.items() if len(columns["x"])}
    held = [one["verdict"] for one in row["verdicts"]]
    return Picture(
        id=f"confirmed-{row['id']}",
        title=figure.title,
        spec=_spec(figure, data, table),
        alt=f"{row['title']} {held.count('holds')} of {len(held)} claims hold. "
        + " ".join(f"{one['statement']} {one['verdict'].capitalize()}: {one['reason']}" for one in row["verdicts"]),
        data=data,
        note=f"{row['title']} {held.count('holds')} of {len(held)} claims hold.",
        source=f"{made[0].upper()}{made[1:]}.",
        alone=True,
    )


def _spec(figure: Figure, data: Mapping[str, Any], table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    x = alt.X("x:Q", title=figure.x, scale=_scale(table["x"], figure.log_x), axis=_axis(table["x"], figure.log_x))
    y = alt.Y("y:Q", title=figure.y, scale=_scale(table["y"], figure.log_y), axis=_axis(table["y"], figure.log_y))
    solid = [line for line in figure.lines if not line.dashed]
    labels = list(dict.fromkeys(line.label for line in solid))
    kinds = list(dict.fromkeys(line.label for line in figure.lines if line.dashed))
    ids = [f"{number}" for number, _ in enumerate(figure.lines)]
    hues = [PALETTE[line.colour % len(PALETTE)] for line in figure.lines]
    own = {line.label: PALETTE[line.colour % len(PALETTE)] for line in solid}
    layers = []
    if "theory" in data:
        dashes = alt.Scale(domain=kinds, range=[_DASHES[k % len(_DASHES)] for k in range(len(kinds))])
        layers.append(
            alt.Chart(alt.NamedData("theory"))
            .mark_line(strokeWidth=2.2, clip=True)
            .encode(
                x, y, alt.Detail("line:N"), alt.Order("order:Q"),
                alt.StrokeDash("label:N", scale=dashes, legend=legend(kinds, "bottom")),
                stroke=alt.Stroke("line:N", scale=alt.Scale(domain=ids, range=hues), legend=None),
            )
        )  # fmt: skip
    if "measured" in data:
        colours = alt.Scale(domain=labels, range=[own[label] for label in labels])
        hue = alt.Color("label:N", scale=colours, legend=legend(labels))
        measured = alt.Chart(alt.NamedData("measured"))
        layers.append(
            measured.mark_line(strokeWidth=2.2, clip=True).encode(x, y, hue, alt.Detail("line:N"), alt.Order("order:Q"))
        )
        layers.append(measured.mark_point(filled=True, size=46, clip=True).encode(x, y, hue))
    return layered(*layers, stroke="independent")


def _scale(values: np.ndarray, log: bool) -> alt.Scale:
    """All values, with some room at the ends."""
    low, high = float(np.min(values)), float(np.max(values))
    if log:
        room = 1.03 * max((high / low) ** 0.02, 1.001)
        return alt.Scale(type="log", domain=[low / room, high * room], nice=False)
    room = 0.04 * ((high - low) or abs(high) or 1.0)
    return alt.Scale(domain=[low - room, high + room], nice=False, zero=False)


def _axis(values: np.ndarray, log: bool) -> alt.Axis:
    """Few round ticks; on a short log axis those between the powers of ten, too."""
    if not log:
        return alt.Axis(tickCount=6, format=",.6~g")  # of its own, a tick's format may be as short as 6e+1
    low, high = math.log10(float(np.min(values))), math.log10(float(np.max(values)))
    decades = range(math.floor(low), math.ceil(high) + 1)
    mantissas = (1, 2, 5) if high - low <= 2.5 else (1,)
    ticks = [m * 10.0**k for k in decades for m in mantissas]
    return alt.Axis(values=[tick for tick in ticks if low - 0.02 <= math.log10(tick) <= high + 0.02], format="~g")


def show(view: View, report: Mapping[str, Any], pictures: Sequence[Picture]) -> None:
    """The section of the page: what the report rests on, and its figures."""
    st.header("Confirmed by independent experiments")
    st.caption(escape(confirmations.sentence(report)))
    drawings = [picture.for_player() for picture in pictures]
    player(
        drawings,
        steps=None,
        step_label="step",
        key=f"confirmed/{view.lab.id}",
        present=view.present,
        identity=report["created"],
    )
