"""The page of domains that are connected and domains that are alike: its derivation and its pictures."""

from __future__ import annotations

from math import factorial
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from app.frame.domain_formulas import block_formulas
from app.frame.domains import class_domain_plane
from app.frame.formula import Formula
from app.frame.meters import meters
from app.frame.page import Story
from app.frame.pictures import PALETTE, Picture, layered, overlay
from app.frame.plane import Link, Plane, plane
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.connect_not_collapse.experiment import source_features
from sims.connect_not_collapse.lab import ConnectNotCollapseParams
from sims.connect_not_collapse.prediction import model_of
from sims.engine import Params, Run
from theory import domains as theory
from theory.connect_not_collapse import four_node_rule, matching_accuracy, matching_distribution

Array = NDArray[np.float64]

WHY = r"""
**Four nodes.** A node has a class $c = \pm 1$ and a domain $d = \pm 1$, the source being $d = +1$. A positive pair
joins a node to itself with weight $\rho$, to its class in the other domain with $\alpha$, to the other class in its
domain with $\beta$, and to the other class in the other domain with $\gamma$. Every row has the sum $Z =
\rho+\alpha+\beta+\gamma$.

**1. One rule.** The eigenvectors are $1$, $c$, $d$ and $cd$. Beside $1$ their eigenvalues are $$\lambda =
\frac{\rho-(\alpha+\beta+\gamma)+2x}{Z}, \qquad x = \alpha \text{ for } c,\quad \beta \text{ for } d,\quad \gamma
\text{ for } cd.$$ So three features keep the constant and drop the direction of the *smallest* of the three weights.

**2. Three cases.** The head fits the labels $c/2$ of the two source nodes, with least norm.

- $\gamma$ is smallest. Kept are $c\sqrt{\lambda_{\rm cls}}$ and $d\sqrt{\lambda_{\rm dom}}$, perpendicular axes. The
head looks along the class alone, and does on the target what it does on the source: its gain is $1$.
- $\beta$ is smallest. Kept are $c$ and $cd$. On the source they are one and the same, the head leans on both, and on
the target one has turned: the gain is $(\lambda_{\rm cls}-\lambda_{\rm int})/(\lambda_{\rm cls}+\lambda_{\rm int}) =
(\alpha-\gamma)/(\rho-\beta)$. The domain is the product of the two features, which no linear classifier sees.
- $\alpha$ is smallest. Kept are $cd$ and $d$. On the source $cd$ passes for the class, and the head is right there; on
the target it is wrong throughout, with a gain of $-1$.

With all four features the gain is $(\alpha-\gamma)/(\rho-\beta)$ in each case. If the two smallest weights are equal,
any mixture of two directions may be dropped, and nothing is defined.

**3. Domains need not look alike.** In the first case the two domains are at a squared distance of $4\lambda_{\rm
dom}$, about as far apart as two classes, $4\lambda_{\rm cls}$; a linear classifier tells them apart without a mistake.
With $r$ classes and sampled links the same holds for $r+1$ features: if $\rho > \max(\alpha,\beta)$ and
$\min(\alpha,\beta) > \gamma$, the target error of the source's head tends to $0$ as the nodes become many.

**4. Looking alike is not enough.** Put the source's feature of class $c$ at $S_c = 3e_c$, and move the target's
features $T_c$ against the gradient of the discrepancy $$\mathrm{MMD}^2 = \frac1{r^2}\sum_{ij}\big[K(S_i,S_j) +
K(T_i,T_j) - 2K(S_i,T_j)\big], \qquad K(x,y) = e^{-|x-y|^2/2h^2} .$$ It is $0$ as soon as the two *sets* agree,
whichever $T_c$ lies on whichever $S_j$: each of the $r!$ matchings is a minimum. The source makes no mistake in any of
them. Nothing in the start prefers one: the $T_c$ are drawn independently from one law, so that exchanging two of them
changes no probability. Hence every matching is equally likely, and the number of classes that are matched rightly is
that of the fixed points of a random permutation, $1$ on average, with a variance of $1$. The accuracy on the target is
$1/r$, which is what guessing has.
"""

_GROUPS = {"class": ("class", "α"), "domain": ("domain", "β"), "interaction": ("class × domain", "γ")}
KEPT, DROPPED = "kept", "dropped"


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, ConnectNotCollapseParams)
    if params.method == "alignment":
        return f"{params.classes} classes, aligned"
    weights = f"α {params.across_domains:g}, β {params.across_classes:g}, γ {params.across_both:g}"
    return f"{params.classes} classes, {params.n_features} features, {weights}"


def _is_contrastive(params: ConnectNotCollapseParams) -> bool:
    return params.method == "contrastive"


def _is_aligned(params: ConnectNotCollapseParams) -> bool:
    return params.method == "alignment"


FORMULAS = (
    *block_formulas(model_of, about=_is_contrastive),
    Formula(
        says="Features that were made alike lie on some class each, with every matching as likely: the share of "
        "classes that end on their own is that of guessing.",
        left=r"\mathbb{E}\,\mathrm{accuracy}",
        right=r"\frac{1}{<classes>}",
        value=lambda n: 1.0 / n["classes"],
        predicts="target_accuracy",
        when=_is_aligned,
    ),
    Formula(
        says="How likely it is that alignment puts every class where it belongs: one matching out of all.",
        left=r"P(\text{all right})",
        right=r"\frac{1}{<classes>!}",
        value=lambda n: 1.0 / factorial(int(n["classes"])),
        predicts=lambda run: float(matching_distribution(_params(run).classes)[-1]),
        when=_is_aligned,
    ),
)

STORY = Story(why=WHY, label=label, metric="target_accuracy", formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """Where the smallest of the three weights changes, over those across domains and across classes."""
    assert isinstance(base, ConnectNotCollapseParams)
    if base.method != "contrastive" or y is None or {x.name, y.name} != {"across_domains", "across_classes"}:
        return None
    at, low = base.across_both, min(x.span[0], y.span[0])
    upright, level = (
        ChalkLine([at, at], [max(at, y.span[0]), y.span[1]], f"γ and {_sign(x)} are the smallest"),
        ChalkLine([max(at, x.span[0]), x.span[1]], [at, at], f"γ and {_sign(y)} are the smallest"),
    )
    return [upright, level, ChalkLine([low, at], [low, at], "α and β are the smallest")]


def _sign(axis: Axis) -> str:
    return "α" if axis.name == "across_domains" else "β"


SWEEP = SweepStory(
    x="across_domains",
    x_range="0.01:0.19:10",
    y="across_classes",
    y_range="0.02:0.2:10",
    metric="gain",
    base={"across_both": 0.105, "training": "eigen", "steps": 1, "replicates": 1},
    notice="Three regions, one for each weight that is the smallest: gain 1 where it is gamma, -1 where it is alpha, "
    "and a small one of either sign where it is beta.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """The nodes and their rule, the accuracies, and what becomes of features that are made alike."""
    graphs = [(name, run) for name, run in view.runs.items() if _params(run).method == "contrastive"]
    moved = [(name, run) for name, run in view.runs.items() if _params(run).method == "alignment"]
    of_graphs = [nodes(*graphs[0]), rule(*graphs[0])] if graphs else []
    of_moved = [aligned(*moved[0]), matchings(view, *moved[0])] if moved else []
    alignment_first = _params(view.focus).method == "alignment"
    drawn = [*of_moved, accuracies(view), *of_graphs] if alignment_first else [*of_graphs, accuracies(view), *of_moved]
    if moved or any(len(run.trace.frame_step) > 1 for _, run in graphs):
        drawn.append(alike(view))
    return drawn


def _params(run: Run) -> ConnectNotCollapseParams:
    assert isinstance(run.params, ConnectNotCollapseParams)
    return run.params


# -- contrastive features ------------------------------------------------------------------------------------------


def nodes(name: str, run: Run) -> Picture:
    """The nodes along what the features keep of class, domain and their product."""
    params = _params(run)
    return class_domain_plane(run, params.classes, params.domains, params.weights, params.n_features, name)


def rule(name: str, run: Run) -> Picture:
    """The eigenvalues of class, domain and their product, with the weight of each, and which of them are kept."""
    params, model = _params(run), model_of(_params(run))
    rows = []
    for group, (words, sign) in _GROUPS.items():
        weight = {"α": params.across_domains, "β": params.across_classes, "γ": params.across_both}[sign]
        share, value = run.metrics[f"kept_{group}"].mean, run.metrics[f"lam_{group}"].mean
        assert value is not None
        fate = "undefined" if share is None else KEPT if share > 0.5 else DROPPED
        rows.append((f"{words}, {sign} = {weight:g}: {fate}", value, model.eigenvalues[group], fate))
    order = [row[0] for row in rows]
    fates = list(dict.fromkeys(row[3] for row in rows))
    low = min(0.0, *(min(row[1], row[2]) for row in rows))
    x = alt.X(
        "value:Q",
        title="eigenvalue",
        scale=alt.Scale(domain=[low, max(1.0, *(row[1] for row in rows))], nice=False),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    y = alt.Y(
        "group:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labelLimit=200, labelExpr="split(datum.label, ', ')", ticks=False, domain=False),
    )
    hues = {KEPT: PALETTE[0], DROPPED: "$grid", "undefined": "$muted"}
    colour = alt.Color(
        "fate:N",
        sort=fates,
        scale=alt.Scale(domain=fates, range=[hues[fate] for fate in fates]),
        legend=alt.Legend(title=None, orient="top", symbolSize=110),
    )
    bars = alt.Chart(alt.NamedData("bars"))
    layers = [
        bars.mark_bar(clip=True).encode(x, y, colour),
        alt.Chart(alt.NamedData("ticks"))
        .mark_tick(color="$text", thickness=3, orient="vertical", bandSize=40)
        .encode(x, y),
    ]
    said = "; ".join(f"{group} at {value:.4g}" for group, value, _, _ in rows)
    return Picture(
        id="rule",
        title=f"What {params.n_features} features keep: {name}",
        spec=layered(*layers),
        alt=f"{name}: eigenvalues of {said}. {_told(params)}",
        data={
            "bars": {"group": order, "value": [row[1] for row in rows], "fate": [row[3] for row in rows]},
            "ticks": {"group": order, "value": [row[2] for row in rows]},
        },
        note=f"Bars: eigenvalues, each with its weight. Ticks: the closed form. {_told(params)}",
    )


def _told(params: ConnectNotCollapseParams) -> str:
    """The rule in words, with the gain."""
    model, k = model_of(params), params.n_features
    gain = theory.head_gain(model, k)
    if gain.value is None:
        return f"The gain is not defined: {gain.reason.removeprefix('undefined: ')}."
    told = f"The gain is {gain.value:.3g}."
    if params.four_nodes and k == 3:
        found = four_node_rule(model)
        if found is not None:
            words, sign = _GROUPS[found.dropped]
            return f"{sign} is the smallest weight, and {words} is dropped. {told}"
    return told


# -- accuracies ----------------------------------------------------------------------------------------------------


def accuracies(view: View) -> Picture:
    """Accuracy on the target beside that of a linear classifier of domains."""
    return meters(
        view,
        {"target_accuracy": "target", "domain_accuracy": "domain", "source_accuracy": "source"},
        id="accuracies",
        title="Right on the target, and right about the domain",
        note="Bars: accuracy on the target, of a linear classifier of domains, and on the source; one half is what "
        "guessing the domain has. Ticks: theory.",
    )


# -- features that are made alike ----------------------------------------------------------------------------------


def aligned(name: str, run: Run) -> Picture:
    """The features of the target on their way to those of the source, first replicate."""
    params = _params(run)
    r, moving = params.classes, run.trace.frames["target"]
    fixed = np.broadcast_to(source_features(params), moving.shape)
    turn = _flat(r)
    points = np.concatenate([fixed, moving], axis=1) @ turn
    right = run.trace.series["target_accuracy"][0, -1]
    shown = Plane(
        nodes=points,
        label=np.tile(np.arange(r), 2),
        domain=np.repeat([0, 1], r),
        domain_names=["source", "target"],
        axes=("feature 1", "feature 2") if r == 2 else ("across the features", "and across again"),
        links=[Link(c, r + c, 0.03, "where it belongs") for c in range(r)],
    )
    return plane(
        shown,
        id="aligned",
        title=f"Made alike: {name}",
        said=f"In the first run {100 * right:.0f} % of the {r} classes of the target end on their own class of the "
        f"source; the others on another one. The largest distance left is {run.trace.finals['residual'][0]:.2g}.",
        note="Features of the source, filled, and of the target, hollow, first run. The lines lead from each class of "
        "the target to where it belongs; those that are left in the end are wrong matches."
        + ("" if r == 2 else " Seen along the diagonal of the features, so that classes lie on a circle."),
        steps=run.trace.frame_step,
    )


def _flat(classes: int) -> Array:
    """(r, 2) what shows r features in the plane: themselves, or axes evenly spread over a circle."""
    if classes == 2:
        return np.eye(2)
    angle = 2.0 * np.pi * np.arange(classes) / classes
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def matchings(view: View, name: str, run: Run) -> Picture:
    """How many classes of the target runs get right: aligned features, and those of the graph."""
    r = _params(run).classes
    names = [f"{j} of {r}" for j in range(r + 1)]
    found: dict[str, list[Any]] = {"run": [], "right": [], "share": []}
    alike_runs = {
        other: one
        for other, one in view.runs.items()
        if one is run or _params(one).method == "contrastive" or _params(one).classes == r
    }
    for other, one in alike_runs.items():
        accuracy = one.values["target_accuracy"]
        accuracy = accuracy[np.isfinite(accuracy)]
        bins = np.bincount(np.rint(accuracy * r).astype(int), minlength=r + 1) / max(len(accuracy), 1)
        found["run"] += [other] * (r + 1)
        found["right"] += names
        found["share"] += bins.tolist()
    labels = list(alike_runs)
    x = alt.X("right:N", sort=names, title="classes of the target that are right", scale=alt.Scale(domain=names))
    x = x.axis(labelAngle=0)
    y = alt.Y(
        "share:Q",
        title="share of the runs",
        scale=alt.Scale(domain=[0, 1.03], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format="~%"),
    )
    hues = [PALETTE[list(view.runs).index(one) % len(PALETTE)] for one in labels]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300, symbolSize=110)
    layers = [
        alt.Chart(alt.NamedData("bars"))
        .mark_bar()
        .encode(
            x,
            y,
            alt.XOffset("run:N", sort=labels, scale=alt.Scale(domain=labels)),
            alt.Color("run:N", sort=labels, scale=alt.Scale(domain=labels, range=hues), legend=legend),
        ),
        alt.Chart(alt.NamedData("chalk"))
        .mark_tick(color="$text", thickness=3, orient="horizontal", bandSize=46)
        .encode(x, y),
    ]
    mean, chance = run.metrics["target_accuracy"].mean, matching_accuracy(r)[0]
    return Picture(
        id="matchings",
        title="How many classes end where they belong",
        spec=layered(*layers),
        alt=f"{name}: accuracy {mean:.3g} on average over {run.trace.replicates} runs; a random matching has "
        f"{chance:.3g}.",
        data={"bars": found, "chalk": {"right": names, "share": matching_distribution(r)}},
        note=f"Bars: share of the runs. Ticks: the fixed points of a random permutation of {r}, one on average."
        + (" Sampled graphs are rounded to the nearest number of classes." if len(labels) > 1 else ""),
    )


def alike(view: View) -> Picture:
    """The discrepancy of the two domains over training."""
    return overlay(
        view,
        "discrepancy",
        id="alike",
        title="How different the domains look",
        note="Squared maximum mean discrepancy with a kernel of width 1. Dashed: theory, grey until training can be "
        "expected to be over.",
    )
