"""The spec of an overlay, written out: it depends on what is drawn, hardly on its numbers, and costs no time to build.

Tables: `lines` (run, x, median, low, high), `one` (run, x, value: a replicate that stands out), `strands` (run, strand,
x, value), `marks` (run, x, value: symbols along the lines), `theory` (run, kind, group, x, value) and the moving `now`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .specs import Spec

PALETTE = tuple(f"$run{number}" for number in range(1, 8))  # the run in focus comes first
CLAIMED, UNCLAIMED, THIN, FLOOR = (
    "theory",
    "theory, unclaimed",
    "slow limit alone",
    "floor of the noise",
)
DASHES = {CLAIMED: [7, 4], UNCLAIMED: [3, 4], THIN: [2, 3], FLOOR: [1, 4]}
_INKS = {CLAIMED: "$text", UNCLAIMED: "$muted", THIN: "$muted", FLOOR: "$muted"}
_WIDTHS = {CLAIMED: 2.2, UNCLAIMED: 1.4, THIN: 1.1, FLOOR: 1.4}
STYLES = ([1, 0], [14, 3], [14, 3, 2, 3])  # of simulated lines, where colour does not tell them apart; theory is ink
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, its range, and its ticks as Vega-Lite wants them."""

    title: str
    log: bool
    domain: tuple[float, float]
    ticks: Mapping[str, Any] = field(default_factory=dict)

    def of(self, column: str) -> Spec:
        """The encoding of a column on this axis."""
        scale = {"type": "log" if self.log else "linear", "domain": list(self.domain), "nice": False}
        return {
            "field": column,
            "type": "quantitative",
            "title": self.title,
            "scale": scale,
            "axis": dict(self.ticks),
        }


@dataclass(frozen=True)
class Line:
    """How one line is drawn: its name, and the number of its colour and of its style."""

    label: str
    hue: int
    style: int

    @property
    def colour(self) -> str:
        return PALETTE[self.hue % len(PALETTE)]


def overlay_spec(
    x: Axis, y: Axis, lines: Sequence[Line], kinds: Sequence[str], tables: Sequence[str], note: str
) -> Spec:
    """Simulated lines with their bands under their chalk lines; layers of tables that there are none of are left out.

    Args:
        kinds: the kinds of chalk line that are drawn.
        tables: which of `one`, `strands` and `marks` there are.
        note: what stands below the picture, in it.
    """
    labels, hues = [line.label for line in lines], [line.colour for line in lines]
    told_by_symbol = "marks" in tables
    colour = {
        "field": "run",
        "type": "nominal",
        "title": None,
        "scale": {"domain": labels, "range": hues},
        "legend": legend(labels, symbols=told_by_symbol),
    }
    # Where lines have styles these share a scale with the dashes of theory, and the legend of the latter names those
    # that colour does not tell apart.
    styles = {line.label: STYLES[line.style % len(STYLES)] for line in lines if any(one.style for one in lines)}
    dashed = styles | {kind: DASHES[kind] for kind in kinds}
    told = (list(kinds) if len(set(hues)) == len(hues) else list(dashed)) if styles else None
    named = None if told == [] else legend(list(dashed) if told is None else told, "bottom", told)
    dash = {"type": "nominal", "scale": {"domain": list(dashed), "range": list(dashed.values())}, "legend": named}
    style = {"strokeDash": {"field": "run", **dash}} if styles else {}
    layers: list[Spec] = [
        _layer(
            "lines",
            {"type": "area", "opacity": 0.18},
            {"x": x.of("x"), "y": y.of("low"), "y2": {"field": "high"}, "color": colour},
        ),
        _layer(
            "lines",
            {"type": "line", "strokeWidth": 2.2},
            {"x": x.of("x"), "y": y.of("median"), "color": colour, **style},
        ),
    ]
    place = {"x": x.of("x"), "y": y.of("value")}
    if "strands" in tables:
        strand = {"field": "strand", "type": "nominal"}
        layers.append(
            _layer(
                "strands",
                {"type": "line", "strokeWidth": 0.8, "opacity": 0.45},
                {**place, "color": colour, "detail": strand},
            )
        )
    if "one" in tables:
        layers.append(_layer("one", {"type": "line", "strokeWidth": 1}, {**place, "color": colour}))
    if told_by_symbol:
        shapes = [SHAPES[line.hue % len(SHAPES)] for line in lines]
        shape = {**colour, "scale": {"domain": labels, "range": shapes}}
        mark = {"type": "point", "filled": True, "size": 60, "opacity": 1}
        layers.append(_layer("marks", mark, {**place, "color": colour, "shape": shape}))
    if kinds:
        kind = {"field": "kind", "type": "nominal", "legend": None}
        layers.append(
            _layer(
                "theory",
                {"type": "line"},
                {
                    **place,
                    "strokeDash": {"field": "kind", **dash},
                    "detail": {"field": "group", "type": "nominal"},
                    "stroke": {**kind, "scale": {"domain": list(kinds), "range": [_INKS[k] for k in kinds]}},
                    # Said to be ordinal: the default for a width is a scale of points, which has no value for a
                    # single one.
                    "strokeWidth": {
                        **kind,
                        "type": "ordinal",
                        "scale": {"type": "ordinal", "domain": list(kinds), "range": [_WIDTHS[k] for k in kinds]},
                    },
                },
            )
        )
    layers.append(_layer("now", {"type": "point", "filled": True, "size": 70}, {**place, "color": colour}))
    return {
        "layer": layers,
        "resolve": {"scale": {"color": "shared", "stroke": "independent", "strokeWidth": "independent"}},
        "title": below(note),
    }


def _layer(table: str, mark: Spec, encoding: Spec) -> Spec:
    return {"data": {"name": table}, "mark": {**mark, "clip": True}, "encoding": encoding}


def legend(
    words: Sequence[str],
    orient: Literal["top", "bottom"] = "top",
    values: Sequence[str] | None = None,
    symbols: bool = False,
) -> Spec:
    """A legend above or below the picture, of strokes (or `symbols`) that can be told apart, in two columns if a phone
    has room.

    `words` are those that it may show; `values`, if given, those that it shows alone.
    """
    stroke = {"symbolType": "stroke", "symbolSize": 700, "symbolStrokeWidth": 2.4, "symbolStrokeColor": "$muted"}
    return {
        "title": None,
        "orient": orient,
        "columns": columns(words),
        "symbolOpacity": 1,
        "labelLimit": 300,
        **({"symbolSize": 90} if symbols else stroke),
        **({} if values is None else {"values": list(values)}),
    }


def columns(words: Sequence[str]) -> int:
    """How many columns of a legend a phone has room for, two at most."""
    widths = [max(map(len, words[start::2]), default=0) for start in (0, 1)]
    return 2 if sum(widths) <= 36 else 1


def below(words: str) -> Spec:
    """The title of a spec as a note below the picture: it is part of the figure wherever that is taken."""
    return {
        "text": wrapped(words),
        "orient": "bottom",
        "anchor": "start",
        "fontSize": 11,
        "fontWeight": "normal",
        "color": "$muted",
        "offset": 6,
    }


def wrapped(words: str, signs: int = 56) -> list[str]:
    """Lines of about equal length, as many as are needed on a phone."""
    count = -(-len(words) // signs)
    return textwrap.wrap(words, max(-(-len(words) // max(1, count)) + 6, 20)) or [""]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten inside a range, thinned to at most eight."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    return [float(10.0**k) for k in range(first, last + 1, max(1, (last - first) // 8 + 1))]


def rounds(low: float, high: float) -> list[float]:
    """Round numbers inside a range for a log axis: powers of ten, with 2 and 5 of each where these are few."""
    found = decades(low, high)
    if len(found) > 2 or not 1e-3 <= low < high <= 1e4:
        return found
    tens = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [tick for k in tens for m in (1, 2, 5) if low <= (tick := m * 10.0**k) <= high]


def powers(ticks: Sequence[float]) -> Spec:
    """An axis with these powers of ten: written out while they are short, else all as powers."""
    if all(1e-3 <= tick <= 1e4 for tick in ticks):
        return {"values": list(ticks), "format": "~g"}
    return {"values": list(ticks), "labelExpr": _POWER}


def _raised(expression: str) -> str:
    """The Vega expression that writes a whole number raised, sign by sign."""
    for plain, raised in zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True):
        expression = f"replace({expression}, regexp('{plain}', 'g'), '{raised}')"
    return expression


# d3 writes a minus sign, not a hyphen, hence a number made into text by itself.
_POWER = "'10' + " + _raised("'' + round(log(datum.value) / LN10)")
