"""Compared runs: what the other runs of a picture differ by from the one in focus, step by step, with its theory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import Curve, drawable, is_shown, quantile, value_range, x_of
from .overlays import CLAIMED, UNCLAIMED, Axis, Line, decades, overlay_spec, powers
from .pictures import HIGH, LOW, Picture, horizontal
from .runs import View

Array = NDArray[np.float64]
DIFFERENCE_ID = "_difference"  # how the id of its picture ends


def difference(view: View, picture: Picture) -> Picture | None:
    """The difference (on a log axis the ratio) of a picture's other runs and the one in focus; none without others.

    Where two runs draw the same random numbers, replicate for replicate, it is that of each pair, with its median and
    band; else it is that of the medians. Between recorded steps runs are continued by straight lines.
    """
    focus = {curve.metric: curve for curve in picture.curves if curve.run.key == view.focus.key}
    pairs = [
        (curve, focus[curve.metric])
        for curve in picture.curves
        if curve.run.key != view.focus.key and curve.metric in focus
    ]
    if not pairs:
        return None
    quantity = view.lab.quantity(pairs[0][0].metric)
    ratio = quantity.scale == "log"
    parts = [_compared(view, curve, own, ratio) for curve, own in pairs]
    lines = _joined([part["lines"] for part in parts], "median", view, ratio)
    theory = _joined([part["theory"] for part in parts], "value", view, ratio)
    now = _joined([part["now"] for part in parts], "value", view, ratio)
    level = 1.0 if ratio else 0.0
    low, high = value_range([lines["median"], lines["low"], lines["high"], [level]], theory["value"], ratio)
    y_ticks = powers(decades(low, high)) if ratio and high / low > 30 else {"tickCount": 6, "format": "~g"}
    kinds = [kind for kind in (CLAIMED, UNCLAIMED) if kind in set(theory["kind"])]
    verb = "ratio" if ratio else "difference"
    x = horizontal(view, [lines["x"] if len(lines["x"]) else np.array([1e-9])])
    y = Axis(f"{verb}: {quantity.label}", ratio, (low, high), y_ticks)
    drawn = [Line(curve.label, curve.hue, curve.style) for curve, _ in pairs]
    spec = overlay_spec(x, y, drawn, kinds, [], _words(pairs, verb))
    mark = {"type": "rule", "color": "$muted", "strokeWidth": 1}
    spec["layer"].append({"data": {"name": "equal"}, "mark": mark, "encoding": {"y": y.of("value")}})
    said = " ".join(part["said"] for part in parts)
    return Picture(
        id=f"{picture.id}{DIFFERENCE_ID}",
        title=f"{picture.title}: {verb} to {view.focus_label}",
        spec=spec,
        alt=said,
        data={"lines": lines, **({"theory": theory} if kinds else {}), "equal": {"value": [level]}},
        frames={"now": now},
        steps=view.focus.trace.frame_step,
        note=f"Each other run {'divided by' if ratio else 'minus'} the run in focus at the same step, as far as both "
        "go. Dashed: the same of their chalk lines.",
    )


def is_paired(curve: Curve, own: Curve) -> bool:
    """Whether replicates of two runs draw from the same streams."""
    one, other = curve.run.params, own.run.params
    return (one.seed, one.first_replicate) == (other.seed, other.first_replicate)


def _words(pairs: list[tuple[Curve, Curve]], verb: str) -> str:
    counts = sorted({_count(curve, own) for curve, own in pairs if is_paired(curve, own)})
    words = []
    if counts:
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        words.append(f"Line: median {verb} of {many} pairs with the same random numbers; band: 10 to 90\u00a0%.")
    if not all(is_paired(curve, own) for curve, own in pairs):
        words.append(f"{'Other runs' if counts else 'Line'}: {verb} of medians, no band.")
    return " ".join(words)


def _count(curve: Curve, own: Curve) -> int:
    return min(curve.run.trace.replicates, own.run.trace.replicates)


def _compared(view: View, curve: Curve, own: Curve, ratio: bool) -> dict[str, Any]:
    """The tables of one pair of runs, and its end in words."""
    step = own.run.trace.step
    step = step[step <= curve.run.trace.step[-1]]
    kept = slice(0, len(step))
    x = x_of(view, own.run)[kept]
    mine, other = own.run.trace.series[own.metric][:, kept], curve.run.trace.series[curve.metric]
    if is_paired(curve, own):
        count = _count(curve, own)
        mine, other = mine[:count], other[:count]
    else:
        mine, other = (quantile(values, 0.5)[None, :] for values in (mine, other))
    at = curve.run.trace.step
    with np.errstate(divide="ignore", invalid="ignore"):
        other = np.stack([np.interp(step, at, values) for values in other])
        apart = other / mine if ratio else other - mine
    low, median, high = (quantile(apart, q) for q in (LOW, 0.5, HIGH))
    name = np.full(len(step), curve.label, dtype=object)
    lines = {"run": name, "step": step, "x": x, "median": median, "low": low, "high": high}
    frames = view.focus.trace.frame_step
    where = np.minimum(np.searchsorted(step, frames, side="right") - 1, len(step) - 1)
    now = {
        "frame": np.arange(len(frames)),
        "run": np.full(len(frames), curve.label, dtype=object),
        "x": x[where],
        "value": median[where],
    }
    finite = np.flatnonzero(np.isfinite(median))
    said = f"{curve.label}: not comparable."
    if len(finite):
        last = finite[-1]
        how = f"is {median[last]:.3g} times" if ratio else f"differs by {median[last]:.3g} from"
        what = f"at step {step[last]:,} its {view.lab.quantity(curve.metric).label}"
        said = f"{curve.label}: {what} {how} that of {own.label}."
    return {"lines": lines, "theory": _theory(curve, own, step, x, ratio), "now": now, "said": said}


def _theory(curve: Curve, own: Curve, step: NDArray[np.int64], x: Array, ratio: bool) -> dict[str, Any]:
    """The chalk lines of two runs compared in the same way, claimed where both are."""
    names = ("run", "kind", "group", "x", "value")
    made = [one.run.prediction.prediction.get(one.chalk or "") for one in (curve, own)]
    if curve.chalk is None or own.chalk is None or any(value is None for value in made):
        return {name: np.zeros(0, dtype=float if name in ("x", "value") else object) for name in names}
    values, claimed = [], np.ones(len(step), dtype=bool)
    for one, value in zip((curve, own), made, strict=True):
        at = one.run.trace.step
        values.append(np.interp(step, at, np.broadcast_to(np.asarray(value, dtype=np.float64), at.shape)))
        nearest = np.clip(np.searchsorted(at, step), 0, len(at) - 1)
        claimed &= one.run.prediction.claimed(one.chalk or "")[nearest]
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = values[0] / values[1] if ratio else values[0] - values[1]
    kind = np.where(claimed, CLAIMED, UNCLAIMED).astype(object)
    stretch = np.cumsum(np.diff(claimed.astype(int), prepend=int(claimed[0]) if len(claimed) else 0) != 0)
    group = np.array([f"{curve.label}/{number}" for number in stretch], dtype=object)
    run = np.full(len(step), curve.label, dtype=object)
    return {"run": run, "kind": kind, "group": group, "x": x, "value": apart}


def _joined(parts: list[dict[str, Any]], name: str, view: View, log: bool) -> dict[str, Any]:
    """One table of several, without what has no place on the axes."""
    table = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    kept = is_shown(view, table["x"])
    return drawable({column: values[kept] for column, values in table.items()}, name, log)
