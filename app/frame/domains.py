"""The nodes of a graph of classes in domains along what features hold of class, domain and their product."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sims.engine import Run

from .pictures import Picture
from .plane import Link, Plane, plane

Array = NDArray[np.float64]

AXES = ("class", "domain", "interaction")  # as they are recorded
SHOWN = ("class", "interaction", "domain")  # what tells classes lies to the right
_TITLES = {"class": "along class", "domain": "along domain", "interaction": "along class × domain"}
KINDS = ("one class, two domains (α)", "two classes, one domain (β)", "neither (γ)")
_PLAIN = {
    ("class", "domain"): "Class and domain are perpendicular: a head that tells classes in the source does so in the "
    "target.",
    (
        "class",
        "interaction",
    ): "Along the product of class and domain the target's classes have changed sides: the head, "
    "which uses both directions, is torn.",
    ("interaction", "domain"): "What is kept is no class but its product with the domain: the target's classes have "
    "changed sides.",
}
MOST_LINKED = 12  # nodes up to which links are drawn


def chosen_axes(run: Run, n_features: int, blocks: int) -> tuple[str, str]:
    """The two axes that features hold most of, in the order of SHOWN; class and interaction where all are held.

    With all features a head uses the class and the interaction, and the domain does not matter to it.
    """
    shares = {axis: float(run.trace.finals[f"kept_{axis}"][0]) for axis in SHOWN}
    if not np.all(np.isfinite(list(shares.values()))):
        return "class", "domain"
    if n_features >= blocks:
        return "class", "interaction"
    first, second = sorted(sorted(SHOWN, key=lambda axis: -shares[axis])[:2], key=SHOWN.index)
    return first, second


def links_of(label: NDArray[np.int64], domain: NDArray[np.int64], weights: tuple[float, ...]) -> list[Link]:
    """The links between different nodes, one for every pair; `weights` within, across domains, classes and both."""
    found = []
    for i in range(len(label)):
        for j in range(i + 1, len(label)):
            same = (label[i] == label[j], domain[i] == domain[j])
            kind = 0 if same[0] else 1 if same[1] else 2
            if same != (True, True) and weights[1 + kind] > 0:
                found.append(Link(i, j, weights[1 + kind], KINDS[kind]))
    return found


def class_domain_plane(
    run: Run, classes: int, domains: int, weights: tuple[float, ...], n_features: int, name: str
) -> Picture:
    """The nodes of a run in the plane of the two axes that its features hold, with links where they are few.

    The run's frames are `nodes` (F, shown, 3) and `line` (F, 4), as `sims.graphs.domains.placed` has them.
    """
    first, second = axes = chosen_axes(run, n_features, classes * domains)
    columns = [AXES.index(axis) for axis in axes]
    points, line = run.trace.frames["nodes"][:, :, columns], run.trace.frames["line"]
    shown = points.shape[1]
    total = int(run.trace.finals["n_nodes"][0])
    node = np.unique(np.linspace(0, total - 1, shown).astype(np.int64))
    block = node // (total // (classes * domains))
    label, domain = block // domains, block % domains
    names = ["source", "target"] if domains == 2 else ["source", *(f"target {d}" for d in range(1, domains))]
    sampled = total > classes * domains
    links = links_of(label, domain, weights) if not sampled and shown <= MOST_LINKED else []
    ends = points[-1]
    drawn = Plane(
        nodes=points,
        label=label,
        domain=domain,
        domain_names=names,
        axes=(_TITLES[first], _TITLES[second]),
        border=line[:, [0, *(1 + column for column in columns)]],
        links=links,
    )
    return plane(
        drawn,
        id="nodes",
        title=f"The nodes: {name}",
        said=f"{name}, at the end, {_TITLES[first]} and {_TITLES[second]}: {_said(ends, label, domain, names)}",
        note=_note(axes, bool(links), classes),
        steps=run.trace.frame_step,
    )


def _said(points: Array, label: NDArray[np.int64], domain: NDArray[np.int64], names: list[str]) -> str:
    """Where the first two classes of each domain are."""
    if not np.all(np.isfinite(points)):
        return "nowhere, the training diverged."
    parts = []
    for c in (0, 1):
        for d, name in enumerate(names):
            x, y = np.mean(points[(label == c) & (domain == d)], axis=0)
            parts.append(f"class {c + 1} of the {name} at ({x:.3g}, {y:.3g})")
    return "; ".join(parts) + "."


def _note(axes: tuple[str, str], linked: bool, classes: int) -> str:
    plain = _PLAIN[axes]
    border = "Dotted: where a head trained on the source is undecided" + (
        "." if classes == 2 else " between classes 1 and 2; the axes are theirs."
    )
    return f"{plain} {border}" + (" Links are as wide as they are heavy." if linked else "")
