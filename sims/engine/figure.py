"""A figure as SVG, for reports that are written where no plotting library is at hand: lines and dots on two axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 55
# Okabe & Ito: told apart by colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Line:
    """Points joined by a line: `dashed` for theory, solid with dots for what was measured; numbers beside `x`, `y`.

    `colour` is an index into COLOURS. Points that are not finite, or not positive on a log axis, are left out.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Figure:
    """Lines on the same axes."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The figure as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Figure:
        """The figure that `as_dict` wrote; numbers that JSON does not hold, None there, are NaN."""

        def numbers(values: Sequence[float | None]) -> list[float]:
            return [math.nan if value is None else float(value) for value in values]

        lines = [Line(**{**line, "x": numbers(line["x"]), "y": numbers(line["y"])}) for line in content["lines"]]
        return cls(**{**content, "lines": lines})

    def svg(self) -> str:
        """The figure as a file of SVG; the same bytes for the same numbers."""
        points = [(line, self.drawable(line)) for line in self.lines]
        xs = [self._to(x, self.log_x) for _, kept in points for x, _ in kept] or [0.0, 1.0]
        ys = [self._to(y, self.log_y) for _, kept in points for _, y in kept] or [0.0, 1.0]
        across = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, self.log_x)
        up = _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP, self.log_y)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="13" role="img">',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            _text(LEFT, 24, self.title, size=15),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.x, anchor="middle"),
            f'<text x="18" y="{(TOP + HEIGHT - BOTTOM) / 2:.1f}" text-anchor="middle" '
            f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})">{escape(self.y)}</text>',
        ]
        for value, place in across.ticks():
            parts.append(_rule(place, HEIGHT - BOTTOM, place, TOP, "#dddddd"))
            parts.append(_text(place, HEIGHT - BOTTOM + 18, f"{value:.4g}", anchor="middle"))
        for value, place in up.ticks():
            parts.append(_rule(LEFT, place, WIDTH - RIGHT, place, "#dddddd"))
            parts.append(_text(LEFT - 8, place + 4, f"{value:.4g}", anchor="end"))
        for number, (line, kept) in enumerate(points):
            colour = COLOURS[line.colour % len(COLOURS)]
            placed = [(across.place(self._to(x, self.log_x)), up.place(self._to(y, self.log_y))) for x, y in kept]
            dash = ' stroke-dasharray="6 4"' if line.dashed else ""
            path = " ".join(f"{x:.2f},{y:.2f}" for x, y in placed)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
            if not line.dashed:
                parts += [f'<circle cx="{x:.2f}" cy="{y:.2f}" r="3" fill="{colour}"/>' for x, y in placed]
            height = TOP + 10 + 18 * number
            across_from = WIDTH - RIGHT + 12
            parts.append(
                f'<line x1="{across_from}" y1="{height}" x2="{across_from + 24}" y2="{height}" stroke="{colour}" '
                f'stroke-width="2"{dash}/>'
            )
            parts.append(_text(across_from + 30, height + 4, line.label))
        return "\n".join([*parts, "</svg>", ""])

    def drawable(self, line: Line) -> list[tuple[float, float]]:
        """The points of a line that have a place on the axes."""
        pairs = [(float(x), float(y)) for x, y in zip(line.x, line.y, strict=True)]
        return [
            (x, y)
            for x, y in pairs
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.log_x) and (y > 0 or not self.log_y)
        ]

    @staticmethod
    def _to(value: float, log: bool) -> float:
        return math.log10(value) if log else value


@dataclass(frozen=True)
class _Axis:
    """From numbers (their logarithms, if `log`) to places on the page."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def place(self, value: float) -> float:
        span = self.high - self.low
        return (
            (self.start + self.end) / 2
            if span == 0
            else self.start + (value - self.low) / span * (self.end - self.start)
        )

    def ticks(self) -> list[tuple[float, float]]:
        """Round numbers within the range, with their places."""
        span = self.high - self.low
        if self.log:
            mantissas = (1, 2, 5) if span <= 2.5 else (1,)
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            if span > 8:
                decades = range(decades.start, decades.stop, math.ceil(span / 8))
            values = [m * 10.0**k for k in decades for m in mantissas]
            return [(v, self.place(math.log10(v))) for v in values if self._inside(math.log10(v))]
        if span == 0:
            return [(self.low, self.place(self.low))]
        rough = span / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        first = math.ceil(self.low / step - 1e-9)
        values = [round(k * step, 12) for k in range(first, first + 12)]
        return [(value, self.place(value)) for value in values if self._inside(value)]

    def _inside(self, value: float) -> bool:
        slack = 1e-9 * max(1.0, abs(self.high - self.low))
        return self.low - slack <= value <= self.high + slack


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
