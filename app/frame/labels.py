"""Names on the lines, where a room reads them, instead of in a legend.

A name goes beside its own line, where it covers no other line and no other name. What is not a line (points, areas)
keeps its legend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture
from .specs import Spec, is_composed, units

Array = NDArray[np.float64]

FONT = 12.0  # as a spec says it; a projector's is 1.6 times as large
_GROWN = 1.6 * FONT
_SIGN, _HEIGHT = 0.62 * _GROWN, 1.25 * _GROWN  # pixels of a sign and of a line of text
WIDTH, TALL = 520.0, 360.0  # of the plotting area on a projector, in pixels
_TRIES = 30  # places along a line
_TOLD = ("color", "strokeDash", "stroke", "shape")  # channels whose legend names lines


@dataclass(frozen=True)
class _Named:
    """A line to be named: its parts in pixels from the upper left corner, and the colour of its name."""

    words: str
    parts: tuple[Array, ...]
    ink: str


def on_lines(picture: Picture) -> Picture:
    """The picture with the names of its lines beside them, and without the legends that are told so."""
    if is_composed(picture.spec):
        return picture
    axes = _axes(picture.spec)
    if axes is None:
        return picture
    lines: dict[str, _Named] = {}
    told: dict[str, set[str]] = {}
    drawn: list[Array] = []
    for unit in units(picture.spec):
        if not _is_thin(unit):
            drawn += [_dense(points) for _, points in _parts(unit, picture, axes, None)]
        for field, names in _legends(unit).items():
            parts: dict[str, list[Array]] = {}
            for name, points in _parts(unit, picture, axes, field):
                parts.setdefault(name, []).append(points)
            for name in names:
                told.setdefault(field, set()).add(name)
                if name in parts and name not in lines:
                    lines[name] = _Named(name, tuple(parts[name]), _ink(unit, field, name))
    fields = {field for field, names in told.items() if names <= lines.keys() and _is_told(picture, field, names)}
    wanted = [line for name, line in lines.items() if any(name in told[field] for field in fields)]
    if not wanted:
        return picture
    places = _places(wanted, drawn)
    table = {
        "x": np.array([_back(x / WIDTH, axes[0]) for x, _ in places]),
        "y": np.array([_back(1.0 - y / TALL, axes[1]) for _, y in places]),
        "words": np.array([line.words for line in wanted], dtype=object),
        "number": np.arange(len(wanted)),
    }
    spec = dict(_without_legends(picture.spec, fields))
    layers = list(spec.pop("layer", ())) or [
        {name: spec.pop(name) for name in ("data", "mark", "encoding", "transform") if name in spec}
    ]
    first = next(unit for unit in units(picture.spec) if all(_domain(unit, along) for along in ("x", "y")))
    x, y = ({**first["encoding"][along], "field": along} for along in ("x", "y"))
    place = {"x": x, "y": y, "text": {"field": "words", "type": "nominal"}}
    source = {"data": {"name": "on_lines"}}
    halo = {"type": "text", "fontSize": FONT, "fontWeight": 600, "stroke": "$background", "strokeWidth": 3}
    layers.append({**source, "mark": {**halo, "color": "$background"}, "encoding": place})
    for number, line in enumerate(wanted):
        mark = {"type": "text", "fontSize": FONT, "fontWeight": 600, "color": line.ink}
        layers.append(
            {**source, "transform": [{"filter": f"datum.number === {number}"}], "mark": mark, "encoding": place}
        )
    return replace(picture, spec={**spec, "layer": layers}, data={**picture.data, "on_lines": table})


# -- what is drawn -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool


def _axes(spec: Mapping[str, Any]) -> tuple[_Axis, _Axis] | None:
    """The two axes, if every layer is drawn on the same ones."""
    found: list[_Axis] = []
    for along in ("x", "y"):
        ends = set()
        for unit in units(spec):
            if domain := _domain(unit, along):
                ends.add((*domain, unit["encoding"][along]["scale"].get("type") == "log"))
        if len(ends) != 1:
            return None
        (one,) = ends
        if len(one) != 3 or not all(isinstance(end, int | float) for end in one):
            return None
        found.append(_Axis(*one))
    return found[0], found[1]


def _domain(unit: Mapping[str, Any], along: str) -> list[Any] | None:
    """The ends of a layer's axis; None where it has none, as a rule across the picture or a text at its edge."""
    scale = unit.get("encoding", {}).get(along, {}).get("scale")
    domain = scale.get("domain") if isinstance(scale, Mapping) else None
    return domain if isinstance(domain, list) else None


def _is_line(unit: Mapping[str, Any]) -> bool:
    mark = unit.get("mark")
    return (mark.get("type") if isinstance(mark, Mapping) else mark) == "line"


def _is_thin(unit: Mapping[str, Any]) -> bool:
    """Whether a layer's lines are so thin that a name may cross them."""
    mark = unit.get("mark")
    return isinstance(mark, Mapping) and mark.get("strokeWidth", 2) <= 1


def _legends(unit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of a layer of lines: each field that a legend tells, with what it tells of it."""
    found: dict[str, list[str]] = {}
    if _is_line(unit):
        for channel in _TOLD:
            told = unit["encoding"].get(channel)
            if isinstance(told, Mapping) and "field" in told and told.get("legend", {}) is not None:
                names = (told.get("legend") or {}).get("values") or (told.get("scale") or {}).get("domain")
                if isinstance(names, list) and all(isinstance(name, str) for name in names):
                    known = found.setdefault(told["field"], [])
                    known += [name for name in names if name not in known]
    return found


def _is_told(picture: Picture, field: str, names: set[str]) -> bool:
    """Whether whatever a field tells apart, points and areas too, goes by a name that stands on a line."""
    tables = {**picture.data, **picture.frames}
    found: set[str] = set()
    for unit in units(picture.spec):
        table = tables.get(unit.get("data", {}).get("name"), {})
        if field in _fields(unit) and field in table:
            found |= set(np.asarray(table[field]).tolist())
    return found <= names


def _fields(unit: Mapping[str, Any]) -> set[str]:
    return {
        told["field"]
        for channel in _TOLD
        if isinstance(told := unit.get("encoding", {}).get(channel), Mapping) and "field" in told
    }


def _ink(unit: Mapping[str, Any], field: str, name: str) -> str:
    """The colour of a line in its scale."""
    for channel in ("color", "stroke"):
        told = unit["encoding"].get(channel)
        if isinstance(told, Mapping) and told.get("field") == field:
            scale = told.get("scale") or {}
            if name in scale.get("domain", ()) and isinstance(scale.get("range"), list):
                return str(scale["range"][scale["domain"].index(name) % len(scale["range"])])
    return str(unit["mark"].get("color", "$text")) if isinstance(unit["mark"], Mapping) else "$text"


def _parts(
    unit: Mapping[str, Any], picture: Picture, axes: tuple[_Axis, _Axis], field: str | None
) -> Iterator[tuple[str, Array]]:
    """The lines of a layer that stands still, each with its value of `field`, as points in pixels."""
    encoding, name = unit.get("encoding", {}), unit.get("data", {}).get("name")
    if not _is_line(unit) or name not in picture.data or "transform" in unit:
        return
    table = {column: np.asarray(values) for column, values in picture.data[name].items()}
    x, y = (encoding.get(along, {}).get("field") for along in ("x", "y"))
    if x not in table or y not in table:
        return
    apart = [
        told["field"]
        for channel in (*_TOLD, "detail")
        if isinstance(told := encoding.get(channel), Mapping) and told.get("field") in table
    ]
    keys = list(zip(*(table[column].tolist() for column in apart), strict=True)) if apart else [()] * len(table[x])
    order = encoding.get("order", {}).get("field")
    points = np.stack([_to(table[x], axes[0]) * WIDTH, (1.0 - _to(table[y], axes[1])) * TALL], axis=1)
    for key in dict.fromkeys(keys):
        own = np.array([one == key for one in keys])
        sorted_by = np.argsort(table[order or x][own], kind="stable")
        line = points[own][sorted_by]
        line = line[np.isfinite(line).all(axis=1)]
        if len(line):
            yield (str(table[field][own][0]) if field in table else ""), line


def _to(values: Any, axis: _Axis) -> Array:
    """Places on an axis, 0 to 1."""
    values = np.asarray(values, dtype=np.float64)
    if not axis.log:
        return np.asarray((values - axis.low) / (axis.high - axis.low))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values / axis.low) / np.log(axis.high / axis.low))


def _back(place: float, axis: _Axis) -> float:
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** place)
    return axis.low + place * (axis.high - axis.low)


# -- where names go ----------------------------------------------------------------------------------------------


def _dense(line: Array) -> Array:
    """Points along a line, a few pixels apart, so that none of it is missed by a box."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0.0, length[-1], int(np.clip(length[-1] / 4.0, 2, 500)))
    return np.stack([np.interp(at, length, line[:, 0]), np.interp(at, length, line[:, 1])], axis=1)


def _places(lines: Sequence[_Named], drawn: Sequence[Array]) -> list[tuple[float, float]]:
    """The middle of each name, in pixels."""
    everything = np.concatenate(drawn)
    taken: list[tuple[float, float, float, float]] = []
    found = []
    for line in lines:
        wide = _SIGN * len(line.words) / 2.0
        tries = [
            (*_inside(x, y, wide), extra + 3.0 * _outside(x, y, wide))
            for part in line.parts
            for x, y, extra in _beside(_dense(part), wide)
        ]
        others = [_dense(part) for other in lines if other is not line for part in other.parts]
        near = np.concatenate(others) if others else np.zeros((0, 2))
        costs = [
            extra + _cost(x, y, wide, everything, taken) + 0.1 * _within(near, x, y, wide, 2.0 * _HEIGHT)
            for x, y, extra in tries
        ]
        x, y, _ = tries[int(np.argmin(costs))]
        taken.append((x - wide, x + wide, y - _HEIGHT / 2.0, y + _HEIGHT / 2.0))
        found.append((x, y))
    return found


def _beside(dense: Array, wide: float) -> Iterator[tuple[float, float, float]]:
    """Places for a name, around its line and behind its end, each with what it costs to be read there."""
    left, right = max(float(dense[:, 0].min()), 0.0), min(float(dense[:, 0].max()), WIDTH)
    for middle in np.linspace(left, right, _TRIES):
        x = float(np.clip(middle, wide + 2.0, max(WIDTH - wide - 2.0, wide + 2.0)))
        under = dense[np.abs(dense[:, 0] - middle) <= min(wide, 0.5 * _HEIGHT), 1]
        if len(under):
            for side, edge in ((-1.0, under.min()), (1.0, under.max())):
                for away in range(4):
                    y = float(edge) + side * _HEIGHT * (0.6 + away)
                    yield x, y, 0.01 * abs(x - middle) + 0.002 * (WIDTH - x) + 8.0 * away
    for x, y in dense[:: max(1, len(dense) // _TRIES)].tolist():
        for side in (-1.0, 1.0):
            yield x + side * (wide + 8.0), y, 2.0 + 0.002 * (WIDTH - x)
    end = dense[np.argmax(dense[:, 0])]
    for lift in (0.0, -1.0, 1.0):
        yield float(end[0]) + wide + 8.0, float(end[1]) + lift * _HEIGHT, 1.0 + 3.0 * abs(lift)


def _cost(
    x: float, y: float, wide: float, everything: Array, taken: Sequence[tuple[float, float, float, float]]
) -> float:
    """How much a name would hide there: points of lines, and pixels of names."""
    tall = _HEIGHT / 2.0
    hidden = _within(everything, x, y, wide + 3.0, tall - 1.0)
    over = sum(
        max(0.0, min(x + wide, right) - max(x - wide, left)) * max(0.0, min(y + tall, low) - max(y - tall, top))
        for left, right, top, low in taken
    )
    return hidden + over


def _inside(x: float, y: float, wide: float) -> tuple[float, float]:
    """The place, moved as far as it takes for the name to be inside the picture."""
    tall = _HEIGHT / 2.0
    return float(np.clip(x, wide, max(WIDTH - wide, wide))), float(np.clip(y, tall, TALL - tall))


def _outside(x: float, y: float, wide: float) -> float:
    """How far a name would reach beyond the edges."""
    tall = _HEIGHT / 2.0
    return max(0.0, tall - y) + max(0.0, y + tall - TALL) + max(0.0, wide - x) + max(0.0, x + wide - WIDTH)


def _within(points: Array, x: float, y: float, wide: float, tall: float) -> float:
    """How many points lie in a box around (x, y)."""
    return float(np.sum((np.abs(points[:, 0] - x) < wide) & (np.abs(points[:, 1] - y) < tall)))


def _without_legends(node: Any, fields: set[str]) -> Any:
    """A copy of a spec in which no legend tells these fields."""
    if isinstance(node, list):
        return [_without_legends(item, fields) for item in node]
    if not isinstance(node, Mapping):
        return node
    bare: Spec = {name: _without_legends(value, fields) for name, value in node.items()}
    if bare.get("field") in fields and "scale" in bare:
        bare["legend"] = None
    return bare
