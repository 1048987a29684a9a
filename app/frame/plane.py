"""Nodes of classes and domains in a plane of their features, moving, with links and the border of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from .pictures import PALETTE, Picture, layered

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SHAPES = ("circle", "square", "triangle-up", "diamond")  # of the domains, the first one filled
MOST_COLOURS = 5  # of classes; further ones are drawn in ink
HEAVIEST, WIDEST = 0.3, 14.0  # weight from which a link is as wide as can be, and its pixels
OTHERS = "further classes"


@dataclass(frozen=True)
class Link:
    """A link between two nodes, of a weight, and what kind of link it is."""

    first: int
    second: int
    weight: float
    kind: str


@dataclass(frozen=True)
class Plane:
    """What is drawn: `nodes` (F, N, 2), NaN where there is none, `label` and `domain` (N,).

    `border` (F, 3) is where a classifier changes its mind, a + b x + c y = 0; NaN or b = c = 0 where it has none.
    """

    nodes: Array
    label: Integers
    domain: Integers
    domain_names: Sequence[str]
    axes: tuple[str, str]
    border: Array | None = None
    links: Sequence[Link] = ()


def plane(shown: Plane, *, id: str, title: str, said: str, note: str, steps: Integers) -> Picture:
    """The plane as a picture that moves with `steps`, the training steps of its frames; a single one stands still.

    Links of one kind share a colour and are as wide as they are heavy. Axes are the same for all frames, wide enough
    for nearly all nodes.
    """
    count, many = shown.nodes.shape[:2]
    finite = np.abs(shown.nodes[np.isfinite(shown.nodes)])
    reach = max(1.25 * float(np.quantile(finite, 0.995)) if finite.size else 1.0, 1e-6)
    names = [f"class {c + 1}" for c in range(min(int(shown.label.max()) + 1, MOST_COLOURS))]
    words = [names[c] if c < len(names) else OTHERS for c in shown.label]
    ticks = alt.Axis(grid=False, tickCount=5, format="~g")
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    x, y = (alt.X("x:Q", title=shown.axes[0], scale=scale, axis=ticks),
            alt.Y("y:Q", title=shown.axes[1], scale=scale, axis=ticks))  # fmt: skip
    tables: dict[str, dict[str, Any]] = {
        "nodes": {
            "frame": np.repeat(np.arange(count), many),
            "x": shown.nodes[:, :, 0].reshape(-1),
            "y": shown.nodes[:, :, 1].reshape(-1),
            "class": np.tile(np.array(words, dtype=object), count),
            "domain": np.tile(np.array([shown.domain_names[d] for d in shown.domain], dtype=object), count),
        }
    }
    layers: list[Any] = []
    if shown.links:
        tables["links"] = _links(shown)
        layers.append(_link_layer(x, y, list(dict.fromkeys(link.kind for link in shown.links))))
    if shown.border is not None:
        tables["border"] = _border(shown.border, 2.0 * reach)
        rule = alt.Chart(alt.NamedData("border")).mark_rule(strokeDash=[2, 3], strokeWidth=2, color="$text", clip=True)
        layers.append(rule.encode(x, y, alt.X2("x2:Q"), alt.Y2("y2:Q")))
    used = list(dict.fromkeys(words))
    hues = [PALETTE[names.index(name)] if name in names else "$muted" for name in used]
    layers += _node_layers(x, y, used, hues, list(shown.domain_names), many)
    moves = count > 1
    tables = {name: _finite(table) for name, table in tables.items()}
    still = {} if moves else {n: {c: v for c, v in table.items() if c != "frame"} for n, table in tables.items()}
    return Picture(
        id=id,
        title=title,
        spec=layered(*layers, color="independent", size="independent"),
        alt=said,
        data=still,
        frames=tables if moves else {},
        steps=steps if moves else None,
        note=note,
    )


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    places = [np.asarray(values) for name, values in table.items() if name in ("x", "y", "x2", "y2")]
    kept = np.all([np.isfinite(one) for one in places], axis=0)
    return {name: np.asarray(values)[kept] for name, values in table.items()}


def _links(shown: Plane) -> dict[str, Any]:
    count, many = len(shown.nodes), len(shown.links)
    ends = np.array([(link.first, link.second) for link in shown.links])
    first, second = shown.nodes[:, ends[:, 0]], shown.nodes[:, ends[:, 1]]
    return {
        "frame": np.repeat(np.arange(count), many),
        "x": first[:, :, 0].reshape(-1),
        "y": first[:, :, 1].reshape(-1),
        "x2": second[:, :, 0].reshape(-1),
        "y2": second[:, :, 1].reshape(-1),
        "weight": np.tile([link.weight for link in shown.links], count),
        "kind": np.tile(np.array([link.kind for link in shown.links], dtype=object), count),
    }


def _border(border: Array, reach: float) -> dict[str, Any]:
    """The piece of the line a + b x + c y = 0 around its point nearest to the middle, that long to both sides."""
    a, b, c = border.T
    with np.errstate(divide="ignore", invalid="ignore"):
        square = b**2 + c**2
        x, y = -a * b / square, -a * c / square
        along = np.sqrt(square)
        dx, dy = -c / along * reach, b / along * reach
    frame = np.arange(len(border))
    return {"frame": frame, "x": x - dx, "y": y - dy, "x2": x + dx, "y2": y + dy}


def _link_layer(x: alt.X, y: alt.Y, kinds: list[str]) -> Any:
    hues = [PALETTE[(4 + i) % len(PALETTE)] for i in range(len(kinds))]
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=1,
        labelLimit=300,
        symbolType="stroke",
        symbolSize=400,
        symbolStrokeWidth=4,
        symbolOpacity=1,
    )
    return (
        alt.Chart(alt.NamedData("links"))
        .mark_rule(opacity=0.55, strokeCap="round", clip=True)
        .encode(
            x,
            y,
            alt.X2("x2:Q"),
            alt.Y2("y2:Q"),
            alt.Color("kind:N", sort=kinds, scale=alt.Scale(domain=kinds, range=hues), legend=legend),
            alt.Size(  # of a rule it is the width, and unlike strokeWidth it outranks the theme
                "weight:Q",
                scale=alt.Scale(type="linear", domain=[0, HEAVIEST], range=[0.5, WIDEST], clamp=True),
                legend=None,
            ),
        )
    )


def _node_layers(x: alt.X, y: alt.Y, used: list[str], hues: list[str], domains: list[str], many: int) -> list[Any]:
    """Filled nodes of the first domain, hollow ones of the others."""
    size = 220 if many <= 20 else 60
    shapes = alt.Scale(domain=domains, range=[SHAPES[d % len(SHAPES)] for d in range(len(domains))])
    colours = alt.Scale(domain=used, range=hues)
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300, symbolSize=110, symbolOpacity=1)
    outline = alt.Legend(
        title=None, orient="top", columns=2, labelLimit=300, symbolSize=110, symbolFillColor="transparent"
    )
    encoded = {
        "x": x,
        "y": y,
        "shape": alt.Shape("domain:N", sort=domains, scale=shapes, legend=outline),
    }
    base = alt.Chart(alt.NamedData("nodes"))
    hue = alt.Color("class:N", sort=used, scale=colours, legend=legend)
    return [
        base.mark_point(filled=True, size=size, opacity=1, clip=True)
        .encode(**encoded, color=hue)
        .transform_filter(alt.datum.domain == domains[0]),
        base.mark_point(filled=False, size=size, strokeWidth=2.6, opacity=1, clip=True)
        .encode(**encoded, color=alt.Color("class:N", sort=used, scale=colours, legend=None))
        .transform_filter(alt.datum.domain != domains[0]),
    ]
