"""Small images of strokes, turned and shifted: what the nodes of the glyph graph look like.

A glyph is a list of strokes (x0, y0, x1, y1) in the square [-1, 1]^2, y up. It is turned by moving the ends of its
strokes before anything is drawn, so that no image is ever interpolated; it is shifted by rolling columns, so that
the side of the image must be a multiple of the number of shifts. A colour is a channel.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..engine import BadInput, Problem

Array = NDArray[np.float64]
Stroke = tuple[float, float, float, float]

HALF_WIDTH = 0.08  # of a stroke
DECIMALS = 6  # two images are equal when they agree after rounding to so many
_P: tuple[Stroke, ...] = (
    (-0.4, -0.7, -0.4, 0.7),
    (-0.4, 0.7, 0.4, 0.6),
    (0.4, 0.6, 0.4, 0.1),
    (0.4, 0.1, -0.4, 0.0),
)
STROKES: dict[str, tuple[Stroke, ...]] = {
    "F": ((-0.4, -0.7, -0.4, 0.7), (-0.4, 0.7, 0.5, 0.7), (-0.4, 0.05, 0.3, 0.05)),
    "J": ((0.3, 0.7, 0.3, -0.4), (0.3, -0.4, 0.0, -0.7), (0.0, -0.7, -0.4, -0.4)),
    "P": _P,
    "R": (*_P, (-0.1, 0.0, 0.5, -0.7)),
    "T": ((0.0, -0.7, 0.0, 0.7), (-0.6, 0.7, 0.6, 0.7)),
    "Y": ((0.0, -0.7, 0.0, 0.0), (0.0, 0.0, -0.5, 0.7), (0.0, 0.0, 0.5, 0.7)),
    "Z": ((-0.5, 0.6, 0.5, 0.6), (0.5, 0.6, -0.5, -0.6), (-0.5, -0.6, 0.5, -0.6)),
    "X": ((-0.6, -0.6, 0.6, 0.6), (-0.6, 0.6, 0.6, -0.6)),
}
SETS = {  # the first six glyphs of each; Z looks the same after half a turn, X after a quarter
    "distinct": ("F", "J", "P", "R", "T", "Y"),
    "one_symmetric": ("F", "J", "P", "R", "Z", "Y"),
    "two_symmetric": ("F", "J", "P", "R", "X", "Z"),
}


def strokes(count: int, chosen: str = "distinct") -> tuple[tuple[Stroke, ...], ...]:
    """The strokes of `count` glyphs: letters first, then polylines through four points drawn from the number."""
    letters = [STROKES[name] for name in SETS[chosen]]
    return tuple(letters[g] if g < len(letters) else _polyline(g) for g in range(count))


def _polyline(number: int) -> tuple[Stroke, ...]:
    points = np.random.Generator(np.random.Philox(number)).uniform(-0.7, 0.7, (4, 2))
    return tuple((*map(float, a), *map(float, b)) for a, b in pairwise(points))  # type: ignore[misc]


def draw(glyph: tuple[Stroke, ...], turn: float, side: int) -> Array:
    """(side, side) grey values of a glyph turned by `turn` radians, the first row on top.

    A pixel is 1 within the stroke and falls to 0 over one pixel from its edge.
    """
    centre = (np.arange(side) + 0.5) / side * 2.0 - 1.0
    x, y = np.meshgrid(centre, -centre)
    c, s = np.cos(turn), np.sin(turn)
    nearest = np.full((side, side), np.inf)
    for x0, y0, x1, y1 in glyph:
        ax, ay, bx, by = c * x0 - s * y0, s * x0 + c * y0, c * x1 - s * y1, s * x1 + c * y1
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return np.clip(1.0 - (nearest - HALF_WIDTH) * side / 2.0, 0.0, 1.0)


def images(glyphs: tuple[tuple[Stroke, ...], ...], rotations: int, shifts: int, colours: int, side: int) -> Array:
    """(G, R, S, colours, side, side, colours) pixels of every glyph, rotation, shift and colour.

    Raises BadInput where a shift would not be a whole number of columns.
    """
    if side % shifts:
        allowed = f"a shift rolls by side/shifts columns, and the images have {side}"
        raise BadInput(Problem("shifts", shifts, allowed, "Choose a divisor of the side of the images."))
    found = np.zeros((len(glyphs), rotations, shifts, colours, side, side, colours))
    for g, glyph in enumerate(glyphs):
        for r in range(rotations):
            grey = draw(glyph, 2.0 * np.pi * r / rotations, side)
            for s in range(shifts):
                rolled = np.roll(grey, s * side // shifts, axis=1)
                for colour in range(colours):
                    found[g, r, s, colour, :, :, colour] = rolled
    return found


def side_for(shifts: int) -> int:
    """The side of the images: the multiple of `shifts` nearest to 10 from 8 up."""
    return min(
        (side for side in range(8, 8 + 2 * shifts) if side % shifts == 0), key=lambda side: (abs(side - 10), side)
    )


def merged(pixels: Array, glyphs: int) -> NDArray[np.int64]:
    """(M,) node of each image, in the order of first appearance: equal images are one node.

    pixels (M, ...) with the glyph as the slowest index. Raises BadInput where two glyphs have an equal image.
    """
    flat = np.round(pixels.reshape(len(pixels), -1), DECIMALS) + 0.0
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    node = order[inverse.reshape(-1)].astype(np.int64)
    of_glyph = np.arange(len(pixels)) // (len(pixels) // glyphs)
    owner = np.full(len(first), -1)
    owner[node[::-1]] = of_glyph[::-1]
    clash = np.flatnonzero(owner[node] != of_glyph)
    if len(clash):
        pair = f"glyphs {owner[node[clash[0]]]} and {of_glyph[clash[0]]} have an equal image"
        raise BadInput(Problem("glyphs", glyphs, f"different glyphs must differ, but {pair}", "Leave one of them out."))
    return node
