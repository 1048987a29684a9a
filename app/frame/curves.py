"""What an overlay draws, as tables: medians with their bands, replicates, chalk lines, and the point of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sims.engine import Run

from .overlays import CLAIMED, FLOOR, THIN, UNCLAIMED
from .player import Columns
from .runs import View

LOW, HIGH = 0.1, 0.9
X_AXES = {"step": ("training step", False), "log_step": ("training step (log)", True)}
MOST_STRANDS = 64  # replicates drawn one by one, of all curves of a picture together
MARKS = 6  # symbols along a line


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


def highlight_table(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    """The first replicate of the run in focus, where there are more: the one that moving pictures show."""
    parts = [
        (curve.label, x_of(view, curve.run), curve.run.trace.series[curve.metric][0])
        for curve in curves
        if curve.run is view.focus and curve.run.trace.replicates > 1
    ]
    return _stacked([(np.full(len(x), label, dtype=object), x, values) for label, x, values in parts], view, ("run",))


def strand_table(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    """Replicates one by one, the first of each curve, at most `MOST_STRANDS` together."""
    parts = []
    for curve in curves:
        values = curve.run.trace.series[curve.metric][: strands_of(curve, curves)]
        count, length = values.shape
        if count > 1:
            name, number = np.full(values.size, curve.label, dtype=object), np.repeat(np.arange(count), length)
            parts.append((name, number, np.tile(x_of(view, curve.run), count), values.reshape(-1)))
    return _stacked(parts, view, ("run", "strand"))


def strands_of(curve: Curve, curves: Sequence[Curve]) -> int:
    """How many replicates of a curve are drawn one by one."""
    return min(curve.run.trace.replicates, max(2, MOST_STRANDS // len(curves)))


def mark_table(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    """Symbols along the lines, staggered, so that colour is not all that tells runs apart; none for one colour."""
    if len({curve.hue for curve in curves}) < 2:
        return _stacked([], view, ("run",))
    parts = []
    for curve in curves:
        x, values = x_of(view, curve.run), quantile(curve.run.trace.series[curve.metric], 0.5)
        place = np.log(x, where=x > 0, out=np.full(len(x), -np.inf)) if x_axis(view)[1] else x
        known = np.flatnonzero(np.isfinite(place) & np.isfinite(values))
        if not len(known):
            continue
        low, high = place[known].min(), place[known].max()
        wanted = low + (high - low) * (np.arange(MARKS) + 0.5 + 0.3 * (curve.hue % 3 - 1)) / MARKS
        at = known[np.unique(np.abs(place[known, None] - wanted).argmin(axis=0))]
        parts.append((np.full(len(at), curve.label, dtype=object), x[at], values[at]))
    return _stacked(parts, view, ("run",))


def _stacked(parts: Sequence[tuple[Any, ...]], view: View, words: tuple[str, ...]) -> dict[str, Any]:
    """Parts one below the other, as columns of `words`, x and value, without what has no place on the axis."""
    names = (*words, "x", "value")
    if not parts:
        return {name: np.zeros(0, dtype=object if name == "run" else float) for name in names}
    table = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    kept = is_shown(view, table["x"])
    return {name: column[kept] for name, column in table.items()}


def interval_words(runs: Sequence[Run]) -> str:
    """What the line and the band of these runs are, of how many replicates."""
    counts = sorted({run.trace.replicates for run in runs})
    if counts[-1] == 1:
        return "Line: one replicate, hence no band."
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Line: median of {many} replicates; band: 10 to 90\u00a0% of them."


def replicate_words(view: View, curves: Sequence[Curve]) -> str:
    """What line and band are, of how many replicates: the words that stand in the figure."""
    words = interval_words([curve.run for curve in curves])
    drawn = sorted({strands_of(curve, curves) for curve in curves if curve.run.trace.replicates > 1})
    if not drawn:
        return words
    if view.spaghetti:
        every = all(strands_of(curve, curves) == curve.run.trace.replicates for curve in curves)
        return f"{words} Thin: {'each replicate' if every else f'the first {drawn[-1]} of a run'}."
    own = any(curve.run is view.focus and curve.run.trace.replicates > 1 for curve in curves)
    return words + (f" Thin: replicate {view.focus.params.first_replicate}." if own else "")


def x_axis(view: View) -> tuple[str, bool]:
    """Title and log scale of the horizontal axis."""
    return X_AXES[view.x] if view.x in X_AXES else (view.lab.series[view.x].label, False)


def x_of(view: View, run: Run) -> NDArray[np.float64]:
    """(T,) horizontal coordinate of a run's recorded steps."""
    return run.trace.step.astype(np.float64) if view.x in X_AXES else quantile(run.trace.series[view.x], 0.5)


def chosen(view: View, given: str | Sequence[str] | Sequence[Curve], chalk: str | None) -> list[Curve]:
    if isinstance(given, str):
        return every_run(view, given, chalk)
    curves = [one for one in given if isinstance(one, Curve)]
    return curves or several(view, [one for one in given if isinstance(one, str)])


def line_table(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    parts = []
    for curve in curves:
        run = curve.run
        x, values = x_of(view, run), run.trace.series[curve.metric]
        shown = is_shown(view, x)
        columns = [quantile(values, q)[shown] for q in (0.5, LOW, HIGH)]
        parts.append((np.full(shown.sum(), curve.label, dtype=object), run.trace.step[shown], x[shown], *columns))
    return dict(
        zip(
            ("run", "step", "x", "median", "low", "high"),
            map(np.concatenate, zip(*parts, strict=True)),
            strict=True,
        )
    )


def theory_table(view: View, curves: Sequence[Curve], thin: str | None, floor: str | None) -> dict[str, Any]:
    parts: list[tuple[Any, ...]] = []
    for index, curve in enumerate(curves):
        label, run = curve.label, curve.run
        wanted = [(curve.chalk, None), *(((thin, THIN), (floor, FLOOR)) if index == 0 else ())]
        for name, kind in wanted:
            value = run.prediction.prediction.get(name) if name else None
            if value is None or name is None:
                continue
            x = x_of(view, run)
            shown = is_shown(view, x)
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


def now_table(view: View, curves: Sequence[Curve]) -> dict[str, Any]:
    """The point of each curve at each frame of the run in focus (runs that are shorter wait at their end)."""
    frames = view.focus.trace.frame_step
    parts = []
    for curve in curves:
        run = curve.run
        at = np.searchsorted(run.trace.step, np.minimum(frames, run.trace.step[-1]), side="right") - 1
        x = x_of(view, run)[at]
        value = np.where(is_shown(view, x), quantile(run.trace.series[curve.metric], 0.5)[at], np.nan)
        parts.append(
            (
                np.arange(len(frames)),
                np.full(len(frames), curve.label, dtype=object),
                np.where(np.isnan(value), np.nan, x),
                value,
            )
        )
    return dict(zip(("frame", "run", "x", "value"), map(np.concatenate, zip(*parts, strict=True)), strict=True))


def is_shown(view: View, x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A log axis has no room for step 0."""
    return x > 0 if x_axis(view)[1] else np.isfinite(x)


def drawable(table: Columns, name: str, log: bool) -> dict[str, NDArray[Any]]:
    """The rows whose column `name` has a place on the axis: finite, and positive on a log axis."""
    values = np.asarray(table[name], dtype=np.float64)
    kept = np.isfinite(values) & (values > 0 if log else True)
    return {column: np.asarray(array)[kept] for column, array in table.items()}


def value_range(columns: Sequence[Any], aside: NDArray[np.float64], log: bool) -> tuple[float, float]:
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


def quantile(values: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """(T,) quantile over the replicates that are still finite; NaN where none is."""
    finite = np.isfinite(values)
    if finite.all():
        return np.asarray(np.quantile(values, q, axis=0))
    alive = finite.any(axis=0)
    result = np.full(values.shape[1], np.nan)
    if alive.any():
        result[alive] = np.nanquantile(np.where(finite, values, np.nan)[:, alive], q, axis=0)
    return result
