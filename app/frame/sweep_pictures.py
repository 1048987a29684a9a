"""Pictures of sweeps: a heat map over two axes, or a curve with standard errors over one, with the theory's lines.

The chalk line is dashed; where it is not claimed it is grey. Each cell is a link to the run that it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from sims.engine import Lab
from sims.engine.sweep import Plan
from sims.engine.sweep_store import CLAIMED as CLAIMED_COLUMN
from sims.engine.sweep_store import PREDICTED, VERDICT

from .pictures import CLAIMED, PALETTE, UNCLAIMED, Picture, layered, legend
from .sweep_jobs import Outcome, possible
from .sweep_state import CLAIM, VIEWS, SweepState, axes_of, point_link, sweep_story
from .sweep_story import Axis, ChalkLine
from .verdicts import MARKS

_VERDICTS = {"holds": "$run3", "fails": "$run2", "outside": "$run5", "undecided": "$muted"}
_DASHES = {CLAIMED: [7, 4], UNCLAIMED: [3, 4]}
_INKS = {CLAIMED: "$text", UNCLAIMED: "$muted"}
_MARK = {"dy": 9, "fontSize": 12, "fontWeight": "bold", "color": "$text"}
_EDGE = {"stroke": "$background", "strokeWidth": 3, "strokeOpacity": 0.85}
_SIDES = {"left": 6, "right": -6}
_NEW_TAB = {"embedOptions": {"loader": {"target": "_blank", "rel": "noopener"}}}
_FAILURE = "$run2"
_IS_FAILED = "datum.state === 'failed'"
_WAITING, _FAILED, _EMPTY = "not computed yet", "failed", "no finite value"
_UNKNOWN = "Whether the theory is claimed was not kept with this sweep; the page of a run says it."
_SIGNS = {_WAITING: "", _FAILED: "✕", _EMPTY: "–"}


@dataclass(frozen=True)
class Points:
    """What is drawn of each point of a sweep, in the order of its design.

    `value` (P,) is what `show` asks for, `mean`, `error` and `n` the simulation, `theory` the prediction, `verdict`
    the words of a claim; `state` says why a point without a value has none. `claimed` says whether the theory claims
    what it predicts there: yes, no, or nothing where that is not known. `links` open the runs.
    """

    value: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    n: NDArray[np.float64]
    theory: NDArray[np.float64]
    verdict: list[str]
    state: list[str]
    reason: list[str]
    links: list[str]
    claimed: list[str]

    def __len__(self) -> int:
        return len(self.state)


def points_of(state: SweepState, plan: Plan, outcome: Outcome | None, present: bool = False) -> Points:
    """The numbers of every point of the design; NaN where there are none."""
    count = len(plan.design)
    columns: dict[str, NDArray[np.float64]] = {}
    verdict, status, reason, claimed = [""] * count, [_WAITING] * count, [""] * count, [""] * count
    name = state.metric.removeprefix(CLAIM)
    wanted = {"mean": f"{name}_mean", "error": f"{name}_se", "n": f"{name}_n", "theory": f"{PREDICTED}{name}"}
    for column in wanted:
        columns[column] = np.full(count, np.nan)
    if outcome is not None:
        at = np.array(outcome.table.column("point").to_pylist(), dtype=np.int64)
        for column, stored in wanted.items():
            if stored in outcome.table.column_names:
                columns[column][at] = [math.nan if v is None else v for v in outcome.table.column(stored).to_pylist()]
        for point in at.tolist():
            status[point] = _EMPTY
        if VERDICT + name in outcome.table.column_names:
            for point, word in zip(at.tolist(), outcome.table.column(VERDICT + name).to_pylist(), strict=True):
                verdict[point] = word or ""
        if CLAIMED_COLUMN + name in outcome.table.column_names:
            known = outcome.table.column(CLAIMED_COLUMN + name).to_pylist()
            for point, yes in zip(at.tolist(), known, strict=True):
                if yes is not None and np.isfinite(columns["theory"][point]):
                    claimed[point] = "yes" if yes else "no"
        for failure in outcome.failures:
            status[failure.point], reason[failure.point] = _FAILED, failure.reason
    view = "theory" if state.theory_only else state.show
    measured, theory = columns["mean"], columns["theory"]
    value = {"measured": measured, "theory": theory, "difference": measured - theory}[view]
    for point in range(count):
        if verdict[point] if state.claims else np.isfinite(value[point]):
            status[point] = ""
    params = [possible(plan.design, point) for point in range(count)]
    links = ["" if one is None else point_link(state, one, present) for one in params]
    return Points(value, measured, columns["error"], columns["n"], theory, verdict, status, reason, links, claimed)


def sweep_picture(
    lab: Lab, state: SweepState, plan: Plan, outcome: Outcome | None, options: Mapping[str, str], present: bool = False
) -> Picture:
    """The heat map of two axes or the curve of one, with what there is so far."""
    axes = axes_of(state)
    points = points_of(state, plan, outcome, present)
    lines = _lines(lab, state, axes)
    label = options.get(state.metric, state.metric)
    view = "theory" if state.theory_only else state.show
    title = label if state.claims or view == "measured" else f"{label}: {VIEWS[view]}"
    words = describe_points(label, axes, points, lines)
    if len(axes) == 2:
        spec, data = _heat_map(lab, state, axes, points, lines, title)
        note = _heat_note(lines, points, state)
    else:
        spec, data, note = _curve(lab, state, axes[0], points, lines, title)
    return Picture(id="sweep", title=title, spec={**spec, "usermeta": _NEW_TAB}, alt=words, data=data, note=note)


def _lines(lab: Lab, state: SweepState, axes: Sequence[Axis]) -> list[ChalkLine]:
    """The lab's lines of theory on these axes, where both are drawn to scale."""
    boundary = sweep_story(lab).boundary
    if boundary is None or not all(axis.numeric for axis in axes):
        return []
    return list(boundary(state.base, axes[0], axes[1] if len(axes) == 2 else None) or ())


def _heat_note(lines: Sequence[ChalkLine], points: Points, state: SweepState) -> str:
    parts = ["A click on a cell opens its run."]
    if lines:
        grey = ", grey where it is not claimed" if any(not line.claimed for line in lines) else ""
        parts.append(f"Dashed: theory{grey}.")
    if _FAILED in points.state:
        parts.append(_failed_note(points))
    if _EMPTY in points.state:
        silent = (
            "the theory says nothing there"
            if state.show != "measured" or state.theory_only
            else "no replicate ended with a finite value"
        )
        parts.append(f"–: {silent}.")
    if draws_theory(state):
        if "no" in points.claimed:
            parts.append("Grey: theory that is not claimed there.")
        elif "yes" not in points.claimed and np.isfinite(points.value).any():
            parts.append(_UNKNOWN)
    return " ".join(parts)


def draws_theory(state: SweepState) -> bool:
    """Whether what is drawn of a point rests on its prediction."""
    return not state.claims and (state.theory_only or state.show != "measured")


def describe_points(label: str, axes: Sequence[Axis], points: Points, lines: Sequence[ChalkLine]) -> str:
    """The result of a sweep in numbers."""
    along = " and ".join(axis.title for axis in axes)
    done = len(points) - points.state.count(_WAITING)
    parts = [f"{label} over {along}: {done} of {len(points)} points computed."]
    failed = points.state.count(_FAILED)
    if failed:
        parts.append(f"{failed} failed.")
    if any(points.verdict):
        counts = {word: points.verdict.count(word) for word in _VERDICTS}
        parts.append("; ".join(f"{MARKS[word]} at {count}" for word, count in counts.items() if count) + ".")
    finite = np.flatnonzero(np.isfinite(points.value))
    if len(finite):
        shape = [len(axis.values) for axis in axes]
        for word, at in (
            ("lowest", finite[np.argmin(points.value[finite])]),
            ("highest", finite[np.argmax(points.value[finite])]),
        ):
            place = np.unravel_index(int(at), shape)
            where = ", ".join(f"{axis.name} = {axis.texts[i]}" for axis, i in zip(axes, place, strict=True))
            parts.append(f"The {word}, {points.value[at]:.3g}, is at {where}.")
    if lines:
        parts.append("Theory: " + "; ".join(dict.fromkeys(line.words for line in lines)) + ".")
    return " ".join(parts)


# -- two axes ------------------------------------------------------------------------------------------------------


def _heat_map(
    lab: Lab, state: SweepState, axes: Sequence[Axis], points: Points, lines: Sequence[ChalkLine], title: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    x_axis, y_axis = axes
    column = np.tile(np.arange(len(y_axis.values)), len(x_axis.values))  # the last axis runs fastest
    row = np.repeat(np.arange(len(x_axis.values)), len(y_axis.values))
    cells: dict[str, Any] = {**_places(x_axis, "x", row), **_places(y_axis, "y", column)}
    cells |= {"value": points.value, "mean": points.mean, "error": points.error, "theory": points.theory}
    cells |= {name: np.array(getattr(points, name), dtype=object) for name in ("verdict", "state", "reason", "claimed")}
    cells["link"] = np.array(points.links, dtype=object)
    log = _is_log(lab, state, points.value)
    there = np.array([one == "" for one in points.state]) & (points.value > 0 if log else True)
    grey = there & (np.array(points.claimed) == "no") & draws_theory(state)
    shown = {name: values[there & ~grey] for name, values in cells.items()}
    absent = {name: values[~there] for name, values in cells.items()}
    absent["sign"] = np.array([_SIGNS.get(one, "–") for one in absent["state"]], dtype=object)
    x, y = _encoding(x_axis, "x"), _encoding(y_axis, "y")
    tips = _tooltips(axes, state)
    table = alt.Chart(alt.NamedData("cells"))
    frame = alt.Chart(alt.NamedData("absent"))
    rect = {"strokeWidth": 0.6, "stroke": "$background", "cursor": "pointer", "clip": True}
    layers: list[Any] = [
        frame.mark_rect(stroke="$background", strokeWidth=0.6).encode(
            **x,
            **y,
            fill=alt.condition(_IS_FAILED, alt.value(_FAILURE), alt.value("$grid")),
            fillOpacity=alt.condition(_IS_FAILED, alt.value(0.25), alt.value(0.35)),
            tooltip=[*tips[:2], alt.Tooltip("state:N", title="point"), alt.Tooltip("reason:N", title="reason")],
        ),
        table.mark_rect(**rect).encode(
            **x, **y, color=_colour(lab, state, points, title, log), href=alt.Href("link:N"), tooltip=tips
        ),
        frame.mark_text(fontSize=13, fontWeight="bold").encode(
            **_middle(x_axis, "x"),
            **_middle(y_axis, "y"),
            text=alt.Text("sign:N"),
            color=alt.condition(_IS_FAILED, alt.value(_FAILURE), alt.value("$text")),
        ),
    ]
    data: dict[str, Any] = {"cells": shown, "absent": absent}
    if grey.any():
        data["unclaimed"] = {name: values[grey] for name, values in cells.items()}
        colour = _colour(lab, state, points, title, log, grey=True)
        unclaimed = alt.Chart(alt.NamedData("unclaimed")).mark_rect(**rect)
        layers.append(unclaimed.encode(**x, **y, color=colour, href=alt.Href("link:N"), tooltip=tips))
    drawn = _drawn_lines(lines, x_axis, y_axis)
    if drawn is not None:
        data |= {"lines": drawn[0], "marks": drawn[1]}
        layers += _chalk(drawn[0])
    return layered(*layers, color="independent", stroke="independent"), data


def _places(axis: Axis, name: str, index: NDArray[np.int64]) -> dict[str, Any]:
    """Where each point lies on an axis: the ends of its cell, its middle, and its words."""
    words = {f"{name}_text": np.array(axis.texts, dtype=object)[index]}
    if not axis.numeric:
        return words
    low, high = axis.edges
    return {**words, name: low[index], f"{name}2": high[index], f"{name}_at": axis.numbers[index]}


def _encoding(axis: Axis, name: str) -> dict[str, Any]:
    """The channels of a cell along one axis."""
    channel, second = (alt.X, alt.X2) if name == "x" else (alt.Y, alt.Y2)
    if not axis.numeric:
        return {name: channel(f"{name}_text:N", sort=axis.texts, title=axis.title, axis=alt.Axis(labelAngle=0))}
    return {
        name: channel(f"{name}:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis)),
        f"{name}2": second(f"{name}2:Q"),
    }


def _middle(axis: Axis, name: str) -> dict[str, Any]:
    channel = alt.X if name == "x" else alt.Y
    if not axis.numeric:
        return {name: channel(f"{name}_text:N", sort=axis.texts, title=axis.title)}
    return {name: channel(f"{name}_at:Q", title=axis.title, scale=_scale(axis))}


def _scale(axis: Axis) -> alt.Scale:
    return alt.Scale(type="log" if axis.log else "linear", domain=list(axis.span), nice=False)


def _ticks(axis: Axis) -> alt.Axis:
    """The swept values themselves where they are few, else at most eight of them."""
    shown = axis.numbers[:: -(-len(axis.values) // 8)].tolist()
    # A config's tickCount would thin out given values as well.
    return alt.Axis(
        values=shown, tickCount=len(shown), format=".3~g" if axis.field.kind == "float" else ",d", grid=False
    )


def _is_log(lab: Lab, state: SweepState, values: NDArray[np.float64]) -> bool:
    if state.claims or (state.show == "difference" and not state.theory_only):
        return False
    return lab.quantity(state.metric).scale == "log" and bool(np.any(values > 0))


def _colour(lab: Lab, state: SweepState, points: Points, title: str, log: bool, grey: bool = False) -> alt.Color:
    """The colour of a cell by its value, or with the same ends in `grey`, without a legend of its own."""
    if state.claims:
        names = list(_VERDICTS)
        shown = alt.Legend(title=None, orient="top", symbolType="square", labelExpr=_marks_expression())
        return alt.Color(
            "verdict:N", sort=names, scale=alt.Scale(domain=names, range=list(_VERDICTS.values())), legend=shown
        )
    bar = None if grey else alt.Legend(title=None, orient="top", gradientLength=220, format="~g")
    if state.show == "difference" and not state.theory_only:
        reach = float(np.nanmax(np.abs(points.value), initial=1e-12))
        ends = ["$muted", "$muted"] if grey else [PALETTE[1], PALETTE[0]]
        scale = alt.Scale(domain=[-reach, 0, reach], range=[ends[0], "$background", ends[1]], interpolate="rgb")
        return alt.Color("value:Q", scale=scale, legend=bar)
    drawn = points.value[np.isfinite(points.value) & (points.value > 0 if log else True)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0)  # numbers from the start
    scale = alt.Scale(scheme="greys" if grey else "viridis", type="log" if log else "linear", domain=[low, high])
    return alt.Color("value:Q", scale=scale, legend=bar)


def _marks_expression() -> str:
    pairs = ", ".join(f"'{word}': '{mark}'" for word, mark in MARKS.items())
    return f"({{{pairs}}})[datum.label]"


def _tooltips(axes: Sequence[Axis], state: SweepState) -> list[alt.Tooltip]:
    tips = [alt.Tooltip(f"{name}_text:N", title=axis.title) for name, axis in zip(("x", "y"), axes, strict=False)]
    if state.claims:
        return [*tips, alt.Tooltip("verdict:N", title="verdict")]
    if not state.theory_only:
        tips += [
            alt.Tooltip("mean:Q", title="mean", format=".4~g"),
            alt.Tooltip("error:Q", title="standard error", format=".2~g"),
        ]
    tips.append(alt.Tooltip("theory:Q", title="theory", format=".4~g"))
    return [*tips, alt.Tooltip("claimed:N", title="theory claimed there")]


def _drawn_lines(
    lines: Sequence[ChalkLine], x_axis: Axis, y_axis: Axis
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The lines as one table, cut at the edges of the picture, and their marks."""
    rows: list[tuple[Any, ...]] = []
    marks: list[tuple[Any, ...]] = []
    for number, line in enumerate(sorted(lines, key=lambda line: not line.claimed)):
        xs, ys = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
        kept = np.isfinite(xs) & np.isfinite(ys)
        kept &= (xs > 0 if x_axis.log else True) & (ys > 0 if y_axis.log else True)
        seen = kept & (xs >= x_axis.span[0]) & (xs <= x_axis.span[1]) & (ys >= y_axis.span[0]) & (ys <= y_axis.span[1])
        if not seen.any():
            continue
        kind = CLAIMED if line.claimed else UNCLAIMED
        points = enumerate(zip(xs[kept], ys[kept], strict=True))
        rows += [(x, y, line.words, kind, f"line {number}", order) for order, (x, y) in points]
        if line.mark:
            last = int(np.flatnonzero(seen)[-1])
            marks.append((xs[last], ys[last], line.mark, "left" if _place(x_axis, xs[last]) < 0.7 else "right"))
    if not rows:
        return None
    return _columns(("x", "y", "words", "kind", "line", "order"), rows), _columns(("x", "y", "mark", "side"), marks)


def _place(axis: Axis, value: float) -> float:
    """How far along the axis a value lies, from 0 to 1."""
    low, high, at = (math.log(v) if axis.log else v for v in (*axis.span, value))
    return (at - low) / (high - low)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    numbers = ("x", "y", "x_at", "value", "order")
    return {n: np.array([row[i] for row in rows], dtype=float if n in numbers else object) for i, n in enumerate(names)}


def _chalk(table: Mapping[str, Any]) -> list[Any]:
    """Layers of the lines: a light edge, so that they show on any colour, then the dashes, then their marks."""
    lines, marks = alt.Chart(alt.NamedData("lines")), alt.Chart(alt.NamedData("marks"))
    words = dict(zip(table["words"].tolist(), table["kind"].tolist(), strict=True))
    x, y = alt.X("x:Q"), alt.Y("y:Q")
    common = [x, y, alt.Detail("line:N"), alt.Order("order:Q")]
    return [
        lines.mark_line(clip=True, strokeWidth=5.5, stroke="$background", opacity=0.85).encode(*common),
        lines.mark_line(clip=True, strokeWidth=2.4).encode(*common, *_dashed("words:N", words)),
        *(
            marks.mark_text(**_MARK, **look, align=side, dx=dx)
            .encode(x, y, text=alt.Text("mark:N"))
            .transform_filter(f"datum.side === '{side}'")
            for look in (_EDGE, {})
            for side, dx in _SIDES.items()
        ),
    ]


def _unlimited(words: Sequence[str]) -> dict[str, Any]:
    """A legend below the picture that shows all of its words."""
    return {**legend(words, "bottom"), "labelLimit": 0, "columns": 1}


# -- one axis ------------------------------------------------------------------------------------------------------


def _curve(
    lab: Lab, state: SweepState, axis: Axis, points: Points, lines: Sequence[ChalkLine], title: str
) -> tuple[dict[str, Any], dict[str, Any], str]:
    if state.claims:
        return _verdict_strip(state, axis, points)
    index = np.arange(len(axis.values))
    places = _places(axis, "x", index)
    at = {"x_at": places["x_at"]} if axis.numeric else {}
    there = np.array([one == "" for one in points.state])
    log = _is_log(lab, state, np.where(there, points.value, np.nan))
    there &= points.value > 0 if log else np.isfinite(points.value)
    simulated = there if not state.theory_only and state.show != "theory" else np.zeros_like(there)
    low, high = points.value - np.nan_to_num(points.error), points.value + np.nan_to_num(points.error)
    floor = 1e-3 * np.abs(points.value) if log else np.full(len(index), -np.inf)
    dots: dict[str, Any] = {
        "x_text": places["x_text"],
        **at,
        "value": points.value,
        "low": np.maximum(low, floor),
        "high": high,
    }
    dots |= {
        "mean": points.mean,
        "error": points.error,
        "theory": points.theory,
        "claimed": np.array(points.claimed, dtype=object),
        "link": np.array(points.links, dtype=object),
    }
    dots = {name: values[simulated] for name, values in dots.items()}
    chalk, reason = _chalk_points(state, axis, points, log)
    upright = [line for line in lines if not len(line.y)]
    along = [line for line in lines if len(line.y)]
    values = [dots["low"], dots["high"], chalk["value"], *(np.asarray(line.y, dtype=float) for line in along)]
    upwards = _span(values, log)
    y = alt.Y("value:Q", title=title, scale=upwards, axis=alt.Axis(format="~g"))
    x = alt.X("x_at:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis)) if axis.numeric else alt.X(
        "x_text:N", sort=axis.texts, title=axis.title, axis=alt.Axis(labelAngle=0)
    )  # fmt: skip
    table, theory = alt.Chart(alt.NamedData("dots")), alt.Chart(alt.NamedData("chalk"))
    layers: list[Any] = []
    data: dict[str, Any] = {"dots": dots}
    kinds = [kind for kind in (CLAIMED, UNCLAIMED) if kind in set(chalk["kind"])]
    ruled = _ruled(upright, along)
    words = {word: kind for word, kind in zip(ruled["words"], ruled["kind"], strict=True)} | {
        kind: kind for kind in kinds
    }
    if ruled["words"].size:
        data["lines"] = ruled
        layers += _rules(x, y, words)
    if kinds:
        data["chalk"] = chalk
        mark = (
            theory.mark_line(strokeWidth=2.2, clip=True) if axis.numeric else theory.mark_tick(thickness=2.4, size=34)
        )
        layers.append(mark.encode(x, y, alt.Detail("group:N"), *_dashed("kind:N", words)))
    if axis.numeric:
        layers.append(table.mark_line(color=PALETTE[0], strokeWidth=1.2, opacity=0.6, clip=True).encode(x, y))
    tips = _tooltips([axis], state)
    layers += [
        table.mark_rule(color=PALETTE[0], strokeWidth=2, clip=True).encode(
            x, alt.Y("low:Q", title=title, scale=upwards), alt.Y2("high:Q")
        ),
        table.mark_point(filled=True, size=110, color=PALETTE[0], cursor="pointer", clip=True).encode(
            x, y, href=alt.Href("link:N"), tooltip=tips
        ),
    ]
    alone = state.theory_only or state.show == "theory"
    if alone and kinds:
        data["ends"] = _theory_ends(axis, points, log)
        ink = alt.condition("datum.claimed === 'yes'", alt.value("$text"), alt.value("$muted"))
        ends = alt.Chart(alt.NamedData("ends")).mark_point(filled=True, size=60, cursor="pointer", clip=True)
        layers.append(ends.encode(x, y, color=ink, href=alt.Href("link:N"), tooltip=tips))
    layers += _failed_marks(axis, x, points, data)
    spec = layered(*layers, stroke="independent")
    note = "Dots: mean over replicates, with one standard error; a click on one opens its run."
    if alone:
        ends_note = "Theory alone, at the end of each run; a click on a dot opens it."
        note = ends_note if kinds else "The theory has no number for this here."
    return spec, data, " ".join(part for part in (note, reason, _failed_note(points)) if part)


def _theory_ends(axis: Axis, points: Points, log: bool) -> dict[str, Any]:
    """The prediction of each run, as a dot that opens it."""
    there = np.isfinite(points.theory) & (points.theory > 0 if log else True)
    columns = {**_places(axis, "x", np.arange(len(axis.values))), "value": points.theory, "theory": points.theory}
    columns |= {"claimed": np.array(points.claimed, dtype=object), "link": np.array(points.links, dtype=object)}
    return {name: values[there] for name, values in columns.items()}


def _failed_marks(axis: Axis, x: alt.X, points: Points, data: dict[str, Any]) -> list[Any]:
    """A red cross at the foot of the picture for each point of a sweep over one axis that failed."""
    failed = np.array([one == _FAILED for one in points.state])
    if not failed.any():
        return []
    columns = _places(axis, "x", np.arange(len(axis.values))) | {"reason": np.array(points.reason, dtype=object)}
    data["failed"] = {name: values[failed] for name, values in columns.items()}
    tips = [alt.Tooltip("x_text:N", title=axis.title), alt.Tooltip("reason:N", title="failed")]
    look = {"text": "✕", "color": _FAILURE, "fontSize": 16, "fontWeight": "bold", "dy": -9}
    return [alt.Chart(alt.NamedData("failed")).mark_text(**look).encode(x, y=alt.YValue("height"), tooltip=tips)]


def _failed_note(points: Points) -> str:
    failed = points.state.count(_FAILED)
    return f"✕ in red: {failed} points failed; the reasons are listed below." if failed else ""


def _chalk_points(state: SweepState, axis: Axis, points: Points, log: bool) -> tuple[dict[str, Any], str]:
    """The prediction of the metric along the axis, in stretches that are claimed or not, and a word on the latter."""
    finite = np.isfinite(points.theory) & (points.theory > 0 if log else True)
    if state.show == "difference" and not state.theory_only:
        finite = np.zeros_like(finite)
    at = np.flatnonzero(finite)
    claimed = np.array([points.claimed[point] == "yes" for point in at.tolist()], dtype=bool)
    order = np.argsort(axis.numbers[at]) if axis.numeric else np.arange(len(at))
    at, claimed = at[order], claimed[order]
    rows: list[tuple[Any, ...]] = []
    for kind, mask in ((CLAIMED, claimed), (UNCLAIMED, ~claimed)):
        drawn = mask | _beside(mask) if kind == UNCLAIMED and axis.numeric else mask
        stretch = np.cumsum(np.diff(drawn.astype(int), prepend=0) == 1)
        rows += [
            (point, kind, f"{kind} {part}")
            for point, part in zip(at[drawn].tolist(), stretch[drawn].tolist(), strict=True)
        ]
    index = np.array([row[0] for row in rows], dtype=int)
    table: dict[str, Any] = {
        "x_text": np.array(axis.texts, dtype=object)[index],
        "value": points.theory[index],
        "kind": np.array([row[1] for row in rows], dtype=object),
        "group": np.array([row[2] for row in rows], dtype=object),
    }
    if axis.numeric:
        table["x_at"] = axis.numbers[index]
    if any(points.claimed[point] == "" for point in at.tolist()):
        return table, f"Grey: {_UNKNOWN[0].lower()}{_UNKNOWN[1:]}"
    return table, "Grey: theory that is not claimed there." if len(claimed) and not claimed.all() else ""


def _beside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Neighbours of a stretch, so that a grey one meets the claimed one."""
    near = np.zeros_like(mask)
    near[1:] |= mask[:-1]
    near[:-1] |= mask[1:]
    return near


def _span(columns: Sequence[NDArray[np.float64]], log: bool) -> alt.Scale:
    values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns])
    values = values[np.isfinite(values) & (values > 0 if log else True)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.1, 1.0)
    if log:
        return alt.Scale(type="log", domain=[low / 1.3, high * 1.3], nice=False)
    room = 0.06 * (high - low or abs(high) or 1.0)
    return alt.Scale(domain=[low - room, high + room], nice=False)


def _ruled(upright: Sequence[ChalkLine], along: Sequence[ChalkLine]) -> dict[str, Any]:
    rows: list[tuple[Any, ...]] = []
    for number, line in enumerate((*upright, *along)):
        kind = CLAIMED if line.claimed else UNCLAIMED
        ys = line.y if len(line.y) else [math.nan] * len(line.x)
        rows += [(x, y, line.words, kind, f"line {number}", not len(line.y)) for x, y in zip(line.x, ys, strict=True)]
    return _columns(("x_at", "value", "words", "kind", "line", "upright"), rows)


def _rules(x: alt.X, y: alt.Y, words: Mapping[str, str]) -> list[Any]:
    """Lines of theory in a sweep over one axis: upright ones, and curves."""
    lines = alt.Chart(alt.NamedData("lines"))
    dashed = _dashed("words:N", words)
    return [
        lines.mark_rule(strokeWidth=1.8, clip=True).encode(x, *dashed).transform_filter("datum.upright"),
        lines.mark_line(strokeWidth=2.2, clip=True)
        .encode(x, y, alt.Detail("line:N"), *dashed)
        .transform_filter("!datum.upright"),
    ]


def _dashed(field: str, words: Mapping[str, str]) -> list[Any]:
    """The look of theory: dashes and ink by its words, each with whether it is claimed; one legend for all layers."""
    names = list(words)
    dashes = alt.Scale(domain=names, range=[_DASHES[kind] for kind in words.values()])
    inks = alt.Scale(domain=names, range=[_INKS[kind] for kind in words.values()])
    return [
        alt.StrokeDash(field, sort=names, scale=dashes, legend=_unlimited(names)),
        alt.Stroke(field, sort=names, scale=inks, legend=None),
    ]


def _verdict_strip(state: SweepState, axis: Axis, points: Points) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The verdicts of a claim along one axis."""
    there = np.array([one == "" for one in points.state])
    places = _places(axis, "x", np.arange(len(axis.values)))
    table = {
        "x_text": places["x_text"][there],
        "verdict": np.array([MARKS.get(word, word) for word in points.verdict], dtype=object)[there],
        "link": np.array(points.links, dtype=object)[there],
    } | ({"x_at": places["x_at"][there]} if axis.numeric else {})
    names = [MARKS[word] for word in _VERDICTS]
    x = alt.X("x_at:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis)) if axis.numeric else alt.X(
        "x_text:N", sort=axis.texts, title=axis.title
    )  # fmt: skip
    marks = alt.Chart(alt.NamedData("dots")).mark_point(filled=True, size=140, cursor="pointer").encode(
        x,
        alt.Y("verdict:N", sort=names, scale=alt.Scale(domain=names), title=None),
        alt.Color("verdict:N", scale=alt.Scale(domain=names, range=list(_VERDICTS.values())), legend=None),
        href=alt.Href("link:N"),
        tooltip=[alt.Tooltip("x_text:N", title=axis.title), alt.Tooltip("verdict:N", title="verdict")],
    )  # fmt: skip
    data: dict[str, Any] = {"dots": table}
    layers = [marks, *_failed_marks(axis, x, points, data)]
    note = f"A click on a dot opens its run. {_failed_note(points)}".strip()
    return layered(*layers), data, note
