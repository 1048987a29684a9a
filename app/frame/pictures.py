"""Pictures: what a lab declares, and the overlay of theory and simulation that most of them are.

A picture is data: a Vega-Lite spec with named tables, drawn by the player in the browser, exported by the same
spec, and shown as a table on request. The chalk line is dashed; where it is not claimed it is grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import altair as alt
import numpy as np
from numpy.typing import NDArray

from sims.engine import Lab, Params, Run
from sims.engine.lab import Quantity

from .player import PAPER, Columns, on_paper
from .player import Picture as PlayerPicture
from .runs import View

PALETTE = tuple(f"$run{number}" for number in range(1, 8))  # the run in focus comes first
CLAIMED, UNCLAIMED, THIN, FLOOR = (
    "theory",
    "theory, unclaimed",
    "slow limit alone",
    "floor of the noise",
)
_DASHES = {CLAIMED: [7, 4], UNCLAIMED: [3, 4], THIN: [2, 3], FLOOR: [1, 4]}
_INKS = {CLAIMED: "$text", UNCLAIMED: "$muted", THIN: "$muted", FLOOR: "$muted"}
_WIDTHS = {CLAIMED: 2.2, UNCLAIMED: 1.4, THIN: 1.1, FLOOR: 1.4}
STYLES = ([1, 0], [14, 3], [14, 3, 2, 3])  # of simulated lines, where colour does not tell them apart; theory is ink
LOW, HIGH = 0.1, 0.9
PAPER_WIDTH, PAPER_HEIGHT = 560, 350  # pixels of a figure on paper, its axes and legends included
CAPTION_SIGNS = 120  # of a line
FIT = {"type": "fit", "contains": "padding"}
X_AXES = {"step": ("training step", False), "log_step": ("training step (log)", True)}


@dataclass(frozen=True)
class Picture:
    """One picture of a lab page.

    `data` are tables drawn always, `frames` tables drawn one frame at a time (integer column `frame`); `alt`
    states the result in words and numbers; `note` says what to look at. `steps` are the training steps of the
    frames; pictures with the same ones move together. With `needs`, the picture also wants those runs: the page
    offers to compute the ones that are missing. `source` says what else is drawn than the runs of the page, or, if
    the picture is `alone`, what it is drawn from instead.
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

    def for_player(self) -> PlayerPicture:
        return PlayerPicture(
            id=self.id,
            title=self.title,
            spec=self.spec,
            alt=self.alt,
            data=self.data,
            frames=self.frames or None,
        )

    def on_paper(self, caption: str) -> dict[str, Any]:
        """A self-contained spec for an export: tables inside, last frame shown, caption below the title.

        `caption` says what the runs of the page are.
        """
        caption = self.source if self.alone else f"{caption} {self.source}".strip()
        lines = textwrap.wrap(caption, CAPTION_SIGNS, break_long_words=False, break_on_hyphens=False)
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


@dataclass(frozen=True)
class Curve:
    """One line of an overlay: a recorded series of a run, called `label`, with the prediction `chalk` if there is one.

    `hue` counts colours and `style` line styles: two curves of one colour differ in style.
    """

    label: str
    run: Run
    metric: str
    chalk: str | None
    hue: int = 0
    style: int = 0


def every_run(view: View, metric: str, chalk: str | None = None) -> list[Curve]:
    """One series of every run: a colour each."""
    return [Curve(label, run, metric, chalk or metric, hue) for hue, (label, run) in enumerate(view.runs.items())]


def several(view: View, metrics: Sequence[str]) -> list[Curve]:
    """Several series of every run: a colour for each run, a style for each series; of a single run, both for each."""
    alone = len(view.runs) == 1
    return [
        Curve(
            view.lab.quantity(metric).label if alone else f"{label}: {view.lab.quantity(metric).label}",
            run,
            metric,
            metric,
            style if alone else hue,
            style,
        )
        for hue, (label, run) in enumerate(view.runs.items())
        for style, metric in enumerate(metrics)
    ]


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
    curves = _curves(view, metric, chalk)
    quantity = view.lab.quantity(curves[0].metric)
    lines = _lines(view, curves)
    theory = _theory(view, curves, thin, floor)
    now = _now(view, curves)
    log_y = quantity.scale == "log"
    lines, theory, now = (
        _drawable(table, name, log_y) for table, name in ((lines, "median"), (theory, "value"), (now, "value"))
    )
    claimed = theory["value"][theory["kind"] == CLAIMED]
    domain = _domain([lines["median"], lines["high"], lines["low"], claimed], theory["value"], log_y)
    if log_y:
        lines["low"] = np.maximum(lines["low"], domain[0])
    kinds = sorted(set(theory["kind"]), key=list(_DASHES).index)
    spec = _overlay_spec(view, quantity, y_title or quantity.label, domain, curves, kinds)
    return Picture(
        id=id,
        title=title,
        spec=spec,
        alt=describe(view, curves),
        data={"lines": lines, "theory": theory} if kinds else {"lines": lines},
        frames={"now": now},
        steps=view.focus.trace.frame_step,
        note=note,
    )


def overlay_preview(
    lab: Lab, metric: str, partial: Mapping[str, tuple[NDArray[np.int64], Mapping[str, NDArray[np.float64]]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spec and a table of what runs have recorded of a series so far: the median over replicates."""
    parts = []
    for label, (step, series) in partial.items():
        median = _quantile(series[metric], 0.5)
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
                scale=_named(list(partial), [PAPER[colour] for colour in PALETTE]),
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
        series = _quantile(run.trace.series[curve.metric], 0.5)
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


def x_axis(view: View) -> tuple[str, bool]:
    """Title and log scale of the horizontal axis."""
    return X_AXES[view.x] if view.x in X_AXES else (view.lab.series[view.x].label, False)


def x_of(view: View, run: Run) -> NDArray[np.float64]:
    """(T,) horizontal coordinate of a run's recorded steps."""
    return run.trace.step.astype(np.float64) if view.x in X_AXES else _quantile(run.trace.series[view.x], 0.5)


def _curves(view: View, given: str | Sequence[str] | Sequence[Curve], chalk: str | None) -> list[Curve]:
    if isinstance(given, str):
        return every_run(view, given, chalk)
    curves = [one for one in given if isinstance(one, Curve)]
    return curves or several(view, [one for one in given if isinstance(one, str)])


def _lines(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    parts = []
    for curve in curves:
        run = curve.run
        x, values = x_of(view, run), run.trace.series[curve.metric]
        shown = _shown(view, x)
        columns = [_quantile(values, q)[shown] for q in (0.5, LOW, HIGH)]
        parts.append((np.full(shown.sum(), curve.label, dtype=object), run.trace.step[shown], x[shown], *columns))
    return dict(
        zip(
            ("run", "step", "x", "median", "low", "high"),
            map(np.concatenate, zip(*parts, strict=True)),
            strict=True,
        )
    )


def _theory(view: View, curves: Sequence[Curve], thin: str | None, floor: str | None) -> dict[str, Any]:
    parts: list[tuple[Any, ...]] = []
    for index, curve in enumerate(curves):
        label, run = curve.label, curve.run
        wanted = [(curve.chalk, None), *(((thin, THIN), (floor, FLOOR)) if index == 0 else ())]
        for name, kind in wanted:
            value = run.prediction.prediction.get(name) if name else None
            if value is None or name is None:
                continue
            x = x_of(view, run)
            shown = _shown(view, x)
            series = np.broadcast_to(np.asarray(value, dtype=np.float64), x.shape)
            claimed = run.prediction.claimed(name)
            for words, mask in (
                ((CLAIMED, claimed), (UNCLAIMED, ~claimed)) if kind is None else ((kind, np.ones_like(claimed)),)
            ):
                drawn = mask | _neighbours(mask) if words == UNCLAIMED else mask
                kept = shown & drawn
                if np.any(kept):
                    stretch = np.cumsum(np.diff(drawn.astype(int), prepend=0) == 1)
                    group = [f"{label}/{words}/{s}" for s in stretch[kept]]
                    fixed = [np.full(kept.sum(), text, dtype=object) for text in (label, words)]
                    parts.append((*fixed, np.array(group, dtype=object), run.trace.step[kept], x[kept], series[kept]))
    names = ("run", "kind", "group", "step", "x", "value")
    if not parts:
        return {name: np.zeros(0, dtype=object if name in ("run", "kind", "group") else float) for name in names}
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def _neighbours(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a point touches a stretch of the mask, so that a grey stretch meets the claimed one."""
    touching = np.zeros_like(mask)
    touching[1:] |= mask[:-1]
    touching[:-1] |= mask[1:]
    return touching


def _now(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    """The point of each curve at each frame of the run in focus (runs that are shorter wait at their end)."""
    frames = view.focus.trace.frame_step
    parts = []
    for curve in curves:
        run = curve.run
        at = np.searchsorted(run.trace.step, np.minimum(frames, run.trace.step[-1]), side="right") - 1
        x = x_of(view, run)[at]
        value = np.where(_shown(view, x), _quantile(run.trace.series[curve.metric], 0.5)[at], np.nan)
        parts.append(
            (
                np.arange(len(frames)),
                np.full(len(frames), curve.label, dtype=object),
                np.where(np.isnan(value), np.nan, x),
                value,
            )
        )
    return dict(zip(("frame", "run", "x", "value"), map(np.concatenate, zip(*parts, strict=True)), strict=True))


def _shown(view: View, x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A log axis has no room for step 0."""
    return x > 0 if x_axis(view)[1] else np.isfinite(x)


def _overlay_spec(
    view: View,
    quantity: Quantity,
    y_title: str,
    domain: tuple[float, float],
    curves: Sequence[Curve],
    kinds: list[str],
) -> dict[str, Any]:
    words, log_x = x_axis(view)
    labels = [curve.label for curve in curves]
    xs = [x_of(view, curve.run) for curve in curves]
    start = min(float(np.min(x[x > 0], initial=np.inf)) for x in xs) if log_x else 0.0
    end = max(float(np.nanmax(x)) for x in xs)
    log_y = quantity.scale == "log"
    x_scale = alt.Scale(type="log" if log_x else "linear", domain=[start, max(end, start * 1.01, 1e-9)], nice=False)
    y_scale = alt.Scale(type="log" if log_y else "linear", domain=list(domain), nice=False)
    x_ticks: dict[str, Any] = {"values": _decades(start, end)} if log_x else {"tickCount": 6}
    y_ticks = _powers(_decades(*domain)) if log_y else {"tickCount": 6, "format": "~g"}
    x = alt.X("x:Q", title=words, scale=x_scale, axis=alt.Axis(format=",.0f" if view.x in X_AXES else "~g", **x_ticks))
    y = {"scale": y_scale, "axis": alt.Axis(**y_ticks), "title": y_title}
    hues = [PALETTE[curve.hue % len(PALETTE)] for curve in curves]
    colour = alt.Color("run:N", sort=labels, scale=_named(labels, hues), legend=legend(labels))
    # Where lines have styles these share a scale with the dashes of theory, and the legend of the latter names those
    # that colour does not tell apart.
    styles = {curve.label: STYLES[curve.style % len(STYLES)] for curve in curves if any(c.style for c in curves)}
    dashed = styles | {kind: _DASHES[kind] for kind in kinds}
    told = (kinds if len(set(hues)) == len(hues) else list(dashed)) if styles else None
    named = None if told == [] else legend(list(dashed) if told is None else told, "bottom", told)
    dashes = {"sort": list(dashed), "scale": _named(list(dashed), list(dashed.values())), "legend": named}
    style = (alt.StrokeDash("run:N", **dashes),) if styles else ()
    dash = alt.StrokeDash("kind:N", **dashes)
    inks = _named(kinds, [_INKS[k] for k in kinds])
    # Said to be ordinal: the default for a width is a scale of points, which has no value for a single one.
    widths = alt.Scale(type="ordinal", domain=kinds, range=[_WIDTHS[k] for k in kinds])
    lines, theory, now = (alt.Chart(alt.NamedData(name)) for name in ("lines", "theory", "now"))
    layers = [
        lines.mark_area(opacity=0.18, clip=True).encode(x, alt.Y("low:Q", **y), alt.Y2("high:Q"), colour),
        lines.mark_line(strokeWidth=2.2, clip=True).encode(x, alt.Y("median:Q", **y), colour, *style),
    ]
    if kinds:
        layers.append(
            theory.mark_line(clip=True).encode(
                x,
                alt.Y("value:Q", **y),
                dash,
                alt.Detail("group:N"),
                stroke=alt.Stroke("kind:N", sort=kinds, scale=inks, legend=None),
                strokeWidth=alt.StrokeWidth("kind:N", sort=kinds, scale=widths, legend=None),
            )
        )
    layers.append(now.mark_point(filled=True, size=70, clip=True).encode(x, alt.Y("value:Q", **y), colour))
    chart = alt.layer(*layers).resolve_scale(color="shared", stroke="independent", strokeWidth="independent")
    return finish(chart)


def legend(
    words: Sequence[str], orient: Literal["top", "bottom"] = "top", values: Sequence[str] | None = None
) -> alt.Legend:
    """A legend above or below the picture, of strokes that can be told apart, in two columns if a phone has room.

    `words` are those that it may show; `values`, if given, those that it shows alone.
    """
    widths = [max(map(len, words[start::2]), default=0) for start in (0, 1)]
    return alt.Legend(
        values=alt.Undefined if values is None else list(values),
        title=None,
        orient=orient,
        columns=2 if sum(widths) <= 36 else 1,
        symbolType="stroke",
        symbolOpacity=1,
        symbolSize=700,
        symbolStrokeWidth=2.4,
        symbolStrokeColor="$muted",
        labelLimit=300,
    )


def point_legend(words: Sequence[str]) -> alt.Legend | None:
    """A legend of points above the picture; none where there is nothing to tell apart."""
    if len(words) < 2:
        return None
    return alt.Legend(title=None, orient="top", columns=2, labelLimit=300, symbolOpacity=1, symbolSize=90)


def hues(names: Sequence[str]) -> alt.Scale:
    """A colour for each name, that of the run in focus first."""
    return alt.Scale(domain=list(names), range=[PALETTE[i % len(PALETTE)] for i in range(len(names))])


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


def _named(names: Sequence[str], values: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=list(values)[: len(names)])


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten inside a range, thinned to at most eight."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    return [float(10.0**k) for k in range(first, last + 1, max(1, (last - first) // 8 + 1))]


def _powers(ticks: Sequence[float]) -> dict[str, Any]:
    """An axis with these powers of ten: written out while they are short, else all as powers."""
    if all(1e-3 <= tick <= 1e4 for tick in ticks):
        return {"values": list(ticks), "format": "~g"}
    signs = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    powers = [round(np.log10(tick)) for tick in ticks]
    named = ", ".join(f"'{power}': '10{str(power).translate(signs)}'" for power in powers)
    return {"values": list(ticks), "labelExpr": f"({{{named}}})[round(log(datum.value) / LN10)]"}


def is_composed(spec: Mapping[str, Any]) -> bool:
    """Whether a spec is of several views side by side, whose sizes are its own affair."""
    outer = ("hconcat", "vconcat", "concat", "facet", "repeat")
    return any(name in spec for name in outer) or any(
        name in spec.get("encoding", {}) for name in ("row", "column", "facet")
    )


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


def _drawable(table: Columns, name: str, log: bool) -> dict[str, NDArray[Any]]:
    """The rows whose column `name` has a place on the axis: finite, and positive on a log axis."""
    values = np.asarray(table[name], dtype=np.float64)
    kept = np.isfinite(values) & (values > 0 if log else True)
    return {column: np.asarray(array)[kept] for column, array in table.items()}


def _domain(columns: Sequence[Any], aside: NDArray[np.float64], log: bool) -> tuple[float, float]:
    """The vertical range: all of `columns`; of what lies `aside` a decade more, or half the range more."""
    values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns])
    values = values[np.isfinite(values) & (values > 0 if log else True)]
    if not len(values):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    least, most = float(aside.min(initial=low)), float(aside.max(initial=high))
    if log:
        low = max(low, high * 1e-9)
        return min(low, max(least, low / 10)) / 1.3, max(high, min(most, high * 10)) * 1.3
    span = high - low or abs(high) or 1.0
    low, high = min(low, max(least, low - span / 2)), max(high, min(most, high + span / 2))
    return low - 0.05 * span, high + 0.05 * span


def _quantile(values: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """(T,) quantile over the replicates that are still finite; NaN where none is."""
    finite = np.isfinite(values)
    if finite.all():
        return np.asarray(np.quantile(values, q, axis=0))
    alive = finite.any(axis=0)
    result = np.full(values.shape[1], np.nan)
    if alive.any():
        result[alive] = np.nanquantile(np.where(finite, values, np.nan)[:, alive], q, axis=0)
    return result


def _rows(columns: Columns) -> list[dict[str, Any]]:
    arrays = {name: np.asarray(values).tolist() for name, values in columns.items()}
    rows = [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]
    return [
        {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in row.items()} for row in rows
    ]
