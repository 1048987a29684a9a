"""Axes that stand still while runs change: the ranges of a picture, and the picture with other ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Range, Ranges
from .overlays import decades, powers
from .specs import Spec, is_composed, units


def ranges_of(spec: Mapping[str, Any]) -> dict[str, Range]:
    """The range of each axis of a picture; none of one of several views, or of an axis without numbers."""
    return {} if is_composed(spec) else {along: found[0] for along in ("x", "y") if (found := _first(spec, along))}


def with_ranges(spec: Mapping[str, Any], ranges: Ranges) -> tuple[Spec, list[str]]:
    """The spec with its axes at these ranges, and the names of those that cannot have theirs (0 on a log axis)."""
    spec, refused = dict(spec), []
    for along, (low, high) in ranges.items():
        found = None if is_composed(spec) else _first(spec, along)
        if found is None or (found[1] and low <= 0):
            refused.append(along)
        else:
            spec = _moved(spec, along, found[0], (low, high))
    return spec, refused


def _first(spec: Mapping[str, Any], along: str) -> tuple[Range, bool] | None:
    """The range of the first scale along an axis, and whether it is logarithmic."""
    for unit in units(spec):
        scale = unit.get("encoding", {}).get(along, {}).get("scale")
        domain = scale.get("domain") if isinstance(scale, Mapping) else None
        if isinstance(domain, list) and len(domain) == 2 and all(isinstance(end, int | float) for end in domain):
            if domain[0] >= domain[1]:
                return None  # upside down: of a matrix, whose place is no number
            return (domain[0], domain[1]), scale.get("type") == "log"
    return None


def _moved(spec: Mapping[str, Any], along: str, before: Range, now: Range) -> Spec:
    """The spec with the scales that had one range at another; what has a range of its own keeps it."""
    moved = dict(spec)
    if "layer" in spec:
        moved["layer"] = [_moved(layer, along, before, now) for layer in spec["layer"]]
    channel = spec.get("encoding", {}).get(along)
    if isinstance(channel, Mapping) and (channel.get("scale") or {}).get("domain") == list(before):
        scale, axis = {**channel["scale"], "domain": list(now)}, channel.get("axis")
        changed = {**channel, "scale": scale}
        if isinstance(axis, Mapping) and "values" in axis:
            changed["axis"] = _ticks(axis, scale)
        moved["encoding"] = {**spec["encoding"], along: changed}
    return moved


def _ticks(axis: Mapping[str, Any], scale: Mapping[str, Any]) -> Spec:
    """An axis that named its ticks, for the range that its scale has now."""
    if scale.get("type") != "log":
        return {name: value for name, value in axis.items() if name != "values"}
    ticks = decades(*scale["domain"])
    return {**axis, **(powers(ticks) if "labelExpr" in axis or axis.get("format") == "~g" else {"values": ticks})}
