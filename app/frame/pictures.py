"""Pictures: what a lab declares, and the overlay of theory and simulation that most of them are.

A picture is data: a Vega-Lite spec with named tables, drawn by the player in the browser, exported by the same
spec, and shown as a table on request. The chalk line is dashed; where it is not claimed it is grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from sims.engine import Lab, Params
from sims.engine.lab import Quantity

from .curves import (
    HIGH,
    LOW,
    X_AXES,
    Curve,
    chosen,
    drawable,
    every_run,
    highlight_table,
    interval_words,
    line_table,
    mark_table,
    now_table,
    quantile,
    replicate_words,
    several,
    strand_table,
    theory_table,
    value_range,
    x_axis,
    x_of,
)
from .overlays import (
    CLAIMED,
    DASHES,
    FLOOR,
    PALETTE,
    SHAPES,
    STYLES,
    THIN,
    UNCLAIMED,
    Axis,
    Line,
    below,
    columns,
    decades,
    legend,
    overlay_spec,
    powers,
    rounds,
)
from .player import PAPER, Columns, on_paper
from .player import Picture as PlayerPicture
from .runs import View
from .specs import is_composed

# What the pages of the labs draw with.
__all__ = [
    "CLAIMED",
    "FLOOR",
    "HIGH",
    "LOW",
    "PALETTE",
    "STYLES",
    "THIN",
    "UNCLAIMED",
    "X_AXES",
    "Curve",
    "Picture",
    "band_words",
    "below",
    "by_clock",
    "every_run",
    "finish",
    "horizontal",
    "hues",
    "interval_words",
    "is_composed",
    "joined",
    "layered",
    "legend",
    "overlay",
    "overlay_preview",
    "point_legend",
    "rounds",
    "several",
    "shapes",
    "x_axis",
    "x_of",
]

PAPER_WIDTH, PAPER_HEIGHT = 560, 350  # pixels of a figure on paper, its axes and legends included
CAPTION_SIGNS = 120  # of a line
FIT = {"type": "fit", "contains": "padding"}


@dataclass(frozen=True)
class Picture:
    """One picture of a lab page.

    `data` are tables drawn always, `frames` tables drawn one frame at a time (integer column `frame`); `alt`
    states the result in words and numbers; `note` says what to look at. `steps` are the training steps of the
    frames; pictures with the same ones move together. With `needs`, the picture also wants those runs: the page
    offers to compute the ones that are missing. `curves` are what an overlay was drawn from. `source` says what else
    is drawn than the runs of the page, or, if the picture is `alone`, what it is drawn from instead.
    """

    id: str
    title: str
    spec: Mapping[str, Any]
    alt: str
    data: Mapping[str, Columns] = field(default_factory=dict)
    frames: Mapping[str, Columns] = field(default_factory=dict)
    note: str = ""
    needs: Sequence[Params] = ()
    steps: NDArray[np.int64] | None = None
    source: str = ""
    alone: bool = False
    curves: Sequence[Curve] = ()

    def for_player(self, notes: bool = True) -> PlayerPicture:
        """The picture for the browser, with or without its note."""
        return PlayerPicture(
            id=self.id,
            title=self.title,
            spec=self.spec,
            alt=self.alt,
            note=self.note if notes else "",
            data=self.data,
            frames=self.frames or None,
        )

    def on_paper(self, caption: str) -> dict[str, Any]:
        """A self-contained spec for an export: tables inside, last frame shown, caption below the title.

        `caption` says what the runs of the page are.
        """
        caption = self.source if self.alone else f"{caption} {self.source}".strip()
        told = [" ".join(self.spec["title"]["text"])] if "title" in self.spec else []
        lines = told + textwrap.wrap(caption, CAPTION_SIGNS, break_long_words=False, break_on_hyphens=False)
        title = {"text": self.title, "subtitle": lines, "anchor": "start", "fontSize": 13, "subtitleFontSize": 9}
        spec = {
            **self.spec,
            "title": title,
            "datasets": self.tables(),
            "background": "#ffffff",
        }
        if not is_composed(spec):
            spec |= {"width": PAPER_WIDTH, "height": PAPER_HEIGHT + 11 * len(lines), "autosize": FIT}
        return dict(on_paper(spec))

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of every table; of what moves, those of the last frame."""
        rows = {name: _rows(columns) for name, columns in self.data.items()}
        last = 0 if self.steps is None else len(self.steps) - 1
        return rows | {
            name: [row for row in _rows(columns) if row["frame"] == last] for name, columns in self.frames.items()
        }


def overlay(
    view: View,
    metric: str | Sequence[str] | Sequence[Curve],
    *,
    id: str,
    title: str,
    y_title: str | None = None,
    chalk: str | None = None,
    thin: str | None = None,
    floor: str | None = None,
    note: str = "",
) -> Picture:
    """Recorded series over training, with their chalk lines on the same axes.

    Args:
        metric: the recorded series, of every run, or several of them, or the curves to draw; each is drawn as the
            median over replicates with its 10 to 90 percent band.
        y_title: what the vertical axis shows (by default the first series).
        chalk: name of the prediction to draw dashed (by default that of the metric).
        thin: a second prediction, drawn thin, of the run in focus.
        floor: a third one, dotted, of the run in focus.
    """
    curves = chosen(view, metric, chalk)
    quantity = view.lab.quantity(curves[0].metric)
    log_y = quantity.scale == "log"
    lines, theory, now = (
        drawable(table, name, log_y)
        for table, name in (
            (line_table(view, curves), "median"),
            (theory_table(view, curves, thin, floor), "value"),
            (now_table(view, curves), "value"),
        )
    )
    claimed = theory["value"][theory["kind"] == CLAIMED]
    optional = {
        "one": highlight_table(view, curves),
        "strands": strand_table(view, curves) if view.spaghetti else {},
        "marks": mark_table(view, curves),
    }
    thin_lines = {name: drawable(table, "value", log_y) for name, table in optional.items() if table}
    thin_lines = {name: table for name, table in thin_lines.items() if len(table["value"])}
    # On a log axis one replicate may dip by decades, which would squeeze all the rest.
    one = thin_lines["one"]["value"] if "one" in thin_lines and not log_y else np.zeros(0)
    aside = np.concatenate([theory["value"], one])
    span = value_range([lines["median"], lines["high"], lines["low"], claimed], aside, log_y)
    if log_y:
        lines["low"] = np.maximum(lines["low"], span[0])
    kinds = sorted(set(theory["kind"]), key=list(DASHES).index)
    spec = overlay_spec(
        horizontal(view, [x_of(view, curve.run) for curve in curves]),
        _vertical(quantity, y_title or quantity.label, span),
        [Line(curve.label, curve.hue, curve.style) for curve in curves],
        kinds,
        list(thin_lines),
        replicate_words(view, curves),
    )
    return Picture(
        id=id,
        title=title,
        spec=spec,
        alt=describe(view, curves),
        data={"lines": lines, **thin_lines, **({"theory": theory} if kinds else {})},
        frames={"now": now},
        steps=view.focus.trace.frame_step,
        note=note,
        curves=curves,
    )


def horizontal(view: View, xs: Sequence[NDArray[np.float64]]) -> Axis:
    """The axis of training, wide enough for all of these places."""
    words, log = x_axis(view)
    start = min(float(np.min(x[x > 0], initial=np.inf)) for x in xs) if log else 0.0
    end = max(max(float(np.nanmax(x)) for x in xs), start * 1.01, 1e-9)
    ticks = {"values": decades(start, end)} if log else {"tickCount": 6}
    return Axis(words, log, (start, end), {"format": ",.0f" if view.x in X_AXES else "~g", **ticks})


def _vertical(quantity: Quantity, title: str, span: tuple[float, float]) -> Axis:
    log = quantity.scale == "log"
    ticks = rounds(*span) if log else []
    return Axis(title, log, span, powers(ticks) if len(ticks) > 1 else {"tickCount": 6, "format": "~g"})


def overlay_preview(
    lab: Lab, metric: str, partial: Mapping[str, tuple[NDArray[np.int64], Mapping[str, NDArray[np.float64]]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spec and a table of what runs have recorded of a series so far: the median over replicates."""
    parts = []
    for label, (step, series) in partial.items():
        median = quantile(series[metric], 0.5)
        known = np.isfinite(median)
        parts.append((np.full(known.sum(), label, dtype=object), step[known], median[known]))
    table = dict(zip(("run", "step", "value"), map(np.concatenate, zip(*parts, strict=True)), strict=True))
    quantity = lab.quantity(metric)
    scale = alt.Scale(type="log") if quantity.scale == "log" else alt.Scale()
    end = max(int(step[-1]) for step, _ in partial.values())
    chart = (
        alt.Chart(alt.NamedData("table"))
        .mark_line()
        .encode(
            alt.X("step:Q", title="training step", scale=alt.Scale(domain=[0, end])),
            alt.Y("value:Q", title=quantity.label, scale=scale),
            alt.Color(
                "run:N",
                title=None,
                sort=list(partial),
                scale=alt.Scale(domain=list(partial), range=[PAPER[colour] for colour in PALETTE][: len(partial)]),
            ),
        )
    )
    spec = finish(chart)
    spec.pop("data", None)
    return spec, table


def band_words(view: View) -> str:
    """Number of replicates and kind of interval, for the figure; how many diverged, where some did."""
    counts = {run.trace.replicates for run in view.runs.values()}
    many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    words = f"Solid: median of {many} replicates, band from 10 to 90 percent. Dashed: theory."
    diverged = [
        f"{run.diverged} of {run.trace.replicates} ({label})" for label, run in view.runs.items() if run.diverged
    ]
    return words + (f" Diverged and left out from there on: {', '.join(diverged)}." if diverged else "")


def describe(view: View, curves: Sequence[Curve]) -> str:
    """The result of an overlay in numbers, one sentence for each curve."""
    sentences = []
    for curve in curves:
        label, run = curve.label, curve.run
        name = view.lab.quantity(curve.metric).label
        series = quantile(run.trace.series[curve.metric], 0.5)
        finite = np.flatnonzero(np.isfinite(series))
        if not len(finite):
            sentences.append(f"{label}: every replicate diverged.")
            continue
        first, last = finite[0], finite[-1]
        predicted = run.prediction.prediction.get(curve.chalk or "")
        theory = ""
        if predicted is not None and curve.chalk is not None:
            end = predicted if isinstance(predicted, float) else float(predicted[last])
            claimed = run.prediction.claimed(curve.chalk)[last]
            theory = f"; theory {end:.3g}" + ("" if claimed else ", not claimed there")
        moves = "falls" if series[last] < series[first] else "grows"
        ends = f"from {series[first]:.3g} to {series[last]:.3g} at step {run.trace.step[last]:,}"
        sentences.append(f"{label}: the median {name} {moves} {ends}{theory}.")
    return " ".join(sentences)


def by_clock(pictures: Sequence[Picture]) -> dict[tuple[int, ...], list[Picture]]:
    """The pictures that share a clock, by its steps; a still picture joins those before it."""
    groups: dict[tuple[int, ...], list[Picture]] = {}
    for picture in pictures:
        moves = picture.steps is not None and bool(picture.frames)
        clock = tuple(picture.steps.tolist()) if moves else next(reversed(groups), ())
        groups.setdefault(clock, []).append(picture)
    return groups


def finish(chart: Any) -> dict[str, Any]:
    """The chart as a plain spec for the player, without the theme and the sizes that the page decides."""
    spec: dict[str, Any] = chart.to_dict(validate=False)
    for name in ("config", "$schema", "datasets"):
        spec.pop(name, None)
    return spec


def layered(*layers: Any, **scales: str) -> dict[str, Any]:
    """Charts on top of each other as one plain spec; `scales` are those that they do not share, as "independent".

    As `finish(alt.layer(...))`, which copies every chart twice before it makes the spec.
    """
    spec: dict[str, Any] = {"layer": [layer if isinstance(layer, dict) else finish(layer) for layer in layers]}
    return {**spec, "resolve": {"scale": scales}} if scales else spec


def point_legend(words: Sequence[str]) -> alt.Legend | None:
    """A legend of points above the picture; none where there is nothing to tell apart."""
    if len(words) < 2:
        return None
    return alt.Legend(title=None, orient="top", columns=columns(words), labelLimit=300, symbolOpacity=1, symbolSize=90)


def hues(names: Sequence[str]) -> alt.Scale:
    """A colour for each name, that of the run in focus first."""
    return alt.Scale(domain=list(names), range=[PALETTE[i % len(PALETTE)] for i in range(len(names))])


def shapes(names: Sequence[str]) -> alt.Scale:
    """A symbol for each name, so that colour is not all that tells them apart."""
    return alt.Scale(domain=list(names), range=[SHAPES[i % len(SHAPES)] for i in range(len(names))])


def joined(parts: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    """Tables with the same columns, one below the other; what is one value for all rows of a part is repeated."""
    sizes = [max(np.size(column) for column in part.values() if np.ndim(column)) for part in parts]
    return {
        name: np.concatenate(
            [
                np.asarray(part[name]) if np.ndim(part[name]) else np.full(size, part[name], dtype=_kind(part[name]))
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
        for name in parts[0]
    }


def _kind(value: Any) -> Any:
    return object if isinstance(value, str) else None


def _rows(columns: Columns) -> list[dict[str, Any]]:
    arrays = {name: np.asarray(values).tolist() for name, values in columns.items()}
    rows = [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]
    return [
        {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in row.items()} for row in rows
    ]
