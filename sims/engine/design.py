"""Designs: which points of a lab's parameter space a sweep visits.

A design is a grid, the product of its axes, or any list of points. A value that its field does not allow is
refused; a combination of allowed values that is not possible (more nonzero weights than weights, say) is a point
that fails with its reason, unless no point is possible.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import BadInput, Problem, UnknownName
from .lab import Lab
from .params import Field, Params, Value, format_value

MOST_POINTS = 100_000
NOT_AXES = ("replicates", "first_replicate")
_RANGE = "LOW:HIGH:NUMBER or LOW:HIGH:NUMBER:log"


@dataclass(frozen=True)
class Design:
    """The points of a sweep: `base` with other values on the axes.

    Of `levels` (a grid: for each axis its values, the last axis running fastest) and `rows` (a list: the fields
    that each point sets) one is given.
    """

    lab: Lab
    base: Params
    levels: Mapping[str, tuple[Value, ...]] | None = None
    rows: tuple[Mapping[str, Value], ...] | None = None

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The fields that differ between points, in the order in which they were named."""
        if self.levels is not None:
            return tuple(self.levels)
        return tuple(dict.fromkeys(name for row in self.rows or () for name in row))

    def __len__(self) -> int:
        return len(self.rows or ()) if self.levels is None else math.prod(map(len, self.levels.values()))

    def values(self, point: int) -> Mapping[str, Value]:
        """The fields that a point sets."""
        if self.levels is None:
            assert self.rows is not None
            return self.rows[point]
        found: dict[str, Value] = {}
        for name in reversed(self.axes):
            point, index = divmod(point, len(self.levels[name]))
            found[name] = self.levels[name][index]
        return {name: found[name] for name in self.axes}

    def params(self, point: int) -> Params:
        """The params of a point. Raises BadInput where the combination is not possible."""
        values = self.values(point)
        try:  # a fast way to what `replace` returns unless a field of the base loses its meaning
            return self.base.make({**self._kept, **values})
        except BadInput:
            return self.base.replace(**values)

    @cached_property
    def _kept(self) -> Mapping[str, Value]:
        return self.base.changed()

    def as_dict(self) -> dict[str, Any]:
        """The design as the manifest of a sweep holds it."""
        shape: dict[str, Any] = {"points": self.rows} if self.levels is None else {"grid": dict(self.levels)}
        return {"base": self.base.active(), "axes": list(self.axes), **shape}

    @staticmethod
    def restore(lab: Lab, content: Mapping[str, Any]) -> Design:
        """The design that `as_dict` wrote."""
        fields = lab.params.fields()

        def plain(name: str, value: Any) -> Value:
            return tuple(value) if fields[name].kind == "floats" else value

        base = lab.params.make({name: plain(name, value) for name, value in content["base"].items()})
        if "grid" in content:
            levels = {name: tuple(plain(name, one) for one in content["grid"][name]) for name in content["axes"]}
            return Design(lab, base, levels=levels)
        rows = tuple({name: plain(name, value) for name, value in row.items()} for row in content["points"])
        return Design(lab, base, rows=rows)


def grid_design(lab: Lab, base: Params, grid: Mapping[str, Sequence[Any]]) -> Design:
    """The product of the axes of `grid`.

    Raises:
        BadInput: no axis, an unknown one, one that is no axis, an empty one, a value twice or not allowed.
    """
    if not grid:
        raise BadInput("A sweep needs an axis: give at least one field with its values.")
    levels = {}
    for name, values in grid.items():
        field = _axis(lab, name)
        if isinstance(values, str) or not len(values):
            raise BadInput(Problem(name, list(values), "an axis needs values", "List at least one, or leave it out."))
        levels[name] = tuple(_allowed(field, value) for value in values)
        seen: set[Value] = set()
        for value in levels[name]:
            if value in seen:
                allowed = "an axis holds each value once"
                raise BadInput(Problem(name, format_value(value), allowed, "Leave the second one out."))
            seen.add(value)
    return Design(lab, base, levels=levels)


def points_design(lab: Lab, base: Params, points: Sequence[Mapping[str, Any]]) -> Design:
    """A design of any points, each a mapping from fields to values.

    Raises:
        BadInput: no points, unknown fields, a value that is not allowed, the same point twice.
    """
    if not points:
        raise BadInput("A design needs at least one point.")
    fields = {name: _axis(lab, name) for name in dict.fromkeys(name for point in points for name in point)}
    if not fields:
        raise BadInput("A sweep needs an axis: the points set no field.")
    rows: list[dict[str, Value]] = []
    seen: dict[tuple[tuple[str, Value], ...], int] = {}
    for number, point in enumerate(points, 1):
        row = {name: _allowed(fields[name], value) for name, value in point.items()}
        first = seen.setdefault(tuple(sorted(row.items())), number)
        if first != number:
            raise BadInput(f"Points {first} and {number} of the design are the same. Leave one of them out.")
        rows.append(row)
    return Design(lab, base, rows=tuple(rows))


def choose_design(
    lab: Lab, base: Params, grid: Mapping[str, Sequence[Any]] | None, points: Any, given: Collection[str] = ()
) -> Design:
    """The design of a grid, or of points: a list of mappings, a pandas frame, or the path of a CSV file.

    `given` names the fields that were set for all points, none of which may be an axis. Raises BadInput.
    """
    if grid is not None and points is not None:
        raise BadInput("Give a grid or points, not both.")
    if grid is not None:
        design = grid_design(lab, base, grid)
    else:
        listed = read_points(lab, str(points)) if isinstance(points, str | os.PathLike) else _plain_points(points)
        design = points_design(lab, base, listed)
    for name in design.axes:
        if name in given:
            allowed = "it is an axis and set for all points"
            raise BadInput(Problem(name, format_value(getattr(base, name)), allowed, "Leave one of both out."))
    return design


def parse_axis(lab: Lab, text: str) -> tuple[str, tuple[Value, ...]]:
    """The axis written as `field=a,b,c`, `field=low:high:number` or `field=low:high:number:log`.

    The values of a list field are separated by semicolons. Raises BadInput.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise BadInput(Problem("grid", text, "it must be FIELD=VALUES", f"Write FIELD=A,B,C, or FIELD={_RANGE}."))
    field = _axis(lab, name)
    if ":" in written:
        return name, _spread(field, written)
    parts = written.split(";" if field.kind == "floats" else ",") if written else []
    if not parts:
        raise BadInput(Problem(name, written, "an axis needs values", "List at least one, or leave it out."))
    return name, tuple(field.parse(part) for part in parts)


def _spread(field: Field, text: str) -> tuple[Value, ...]:
    """Evenly spaced values, ends included; of a whole-number field rounded, of another to 12 digits."""
    import numpy as np

    parts = text.split(":")
    if field.kind not in ("int", "float"):
        raise BadInput(Problem(field.name, text, "only numbers have ranges", "List the values, with commas between."))
    if not (len(parts) == 3 or (len(parts) == 4 and parts[3] == "log")) or not parts[2].isdecimal():
        raise BadInput(Problem(field.name, text, f"a range is {_RANGE}", "Or list the values, with commas between."))
    low, high = (float(str(field.parse(part))) for part in parts[:2])
    number = int(parts[2][:12])
    if not (low < high and number >= 2):
        raise BadInput(Problem(field.name, text, "a range rises, in 2 steps or more", f"Write {_RANGE}."))
    if number > MOST_POINTS:
        raise BadInput(Problem(field.name, text, f"an axis has at most {MOST_POINTS:,} values", "Take fewer."))
    if len(parts) == 4 and low <= 0:
        raise BadInput(Problem(field.name, text, "a logarithmic range begins above 0", "Raise its lower end."))
    inner = (np.geomspace if len(parts) == 4 else np.linspace)(low, high, number)[1:-1].tolist()
    if field.kind == "int":
        whole = [int(low), *map(round, inner), int(high)]
        if len(set(whole)) < number:
            allowed = f"only {len(set(whole))} different whole numbers result"
            raise BadInput(Problem(field.name, text, allowed, "Ask for fewer values, or list them."))
        return tuple(whole)
    return (low, *(float(f"{value:.12g}") for value in inner), high)


def read_points(lab: Lab, path: str) -> list[dict[str, Value]]:
    """The points of a CSV file: a header of fields, a row for each point; an empty cell leaves its field alone.

    Raises:
        BadInput: the file cannot be read or is not such a table.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, cells) for reader in [csv.reader(file)] for cells in reader if any(cells)]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(Problem("points", path, f"it cannot be read ({reason})", "Name a CSV file.")) from None
    if not lines:
        raise BadInput(Problem("points", path, "it is empty", "Give it a header of fields and a row for each point."))
    names = [name.strip() for name in lines[0][1]]
    for name in names:
        _axis(lab, name)
        if names.count(name) > 1:
            raise BadInput(Problem("points", path, f"the column {name} occurs twice", "Leave one of them out."))
    fields = lab.params.fields()
    found: list[dict[str, Value]] = []
    for number, cells in lines[1:]:
        if len(cells) != len(names):
            allowed = f"line {number} has {len(cells)} cells for {len(names)} columns"
            raise BadInput(Problem("points", path, allowed, "Quote cells that contain commas."))
        pairs = zip(names, map(str.strip, cells), strict=True)
        found.append({name: fields[name].parse(cell) for name, cell in pairs if cell})
    if not found:
        raise BadInput(Problem("points", path, "it has a header and no points", "Add a row for each point."))
    return found


def _plain_points(points: Any) -> list[dict[str, Any]]:
    """Points as mappings; missing entries are left out."""
    if hasattr(points, "to_dict"):
        points = points.to_dict("records")
    return [{str(name): value for name, value in dict(point).items() if not _missing(value)} for point in points]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _axis(lab: Lab, name: str) -> Field:
    fields = lab.params.fields()
    if name not in fields:
        raise UnknownName(f"parameter of {lab.id}", name, list(fields))
    if name in NOT_AXES:
        allowed = "it is the same for all points of a sweep"
        raise BadInput(Problem("axis", name, allowed, f"Set it once, with --{name.replace('_', '-')}."))
    return fields[name]


def _allowed(field: Field, value: Any) -> Value:
    """The value as its field holds it: what its text reads as."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    found = field.parse(plain if isinstance(plain, str) else format_value(plain))
    if not field.contains(found):
        raise BadInput(Problem(field.name, format_value(found), f"it must be {field.allowed}", field.advice))
    return found
