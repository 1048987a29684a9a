"""The page of transfer between domains: its derivation and its pictures."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from app.frame.domain_formulas import block_formulas
from app.frame.domains import class_domain_plane
from app.frame.formula import Formula
from app.frame.meters import meters
from app.frame.page import Story
from app.frame.pictures import Picture, hues, layered, overlay, point_legend, shapes
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.linear_transfer.lab import LinearTransferParams
from sims.linear_transfer.prediction import gain_of, model_of
from theory import domains as theory
from theory.linear_transfer import enough_nodes, visibility

Array = NDArray[np.float64]

WHY = r"""
**The graph.** There are $r$ classes in $m$ domains, and a positive pair joins two examples with a weight that depends
on what they share: $\rho$ class and domain, $\alpha$ the class only, $\beta$ the domain only, $\gamma$ neither. Over
(class, domain) this is $$A = (\rho-\alpha-\beta+\gamma)\, I\otimes I + (\alpha-\gamma)\, I\otimes J + (\beta-\gamma)\,
J\otimes I + \gamma\, J\otimes J,$$ with $J$ all ones. Every row has the sum $Z = \rho + (m-1)\alpha + (r-1)\beta +
(r-1)(m-1)\gamma$.

**1. Four groups of eigenvectors.** $\bar A = A/Z$ has the constant with eigenvalue $1$, the contrasts of classes, those
of domains, and their products, the interactions: $$\lambda_{\rm cls} = \frac{\rho-\beta+(m-1)(\alpha-\gamma)}{Z}, \quad
\lambda_{\rm dom} = \frac{\rho-\alpha+(r-1)(\beta-\gamma)}{Z}, \quad \lambda_{\rm int} =
\frac{\rho-\alpha-\beta+\gamma}{Z}.$$ Hence $\lambda_{\rm cls}-\lambda_{\rm int} = m(\alpha-\gamma)/Z$ and
$\lambda_{\rm dom}-\lambda_{\rm int} = r(\beta-\gamma)/Z$. If both $\alpha$ and $\beta$ exceed $\gamma$, the $r+m-1$
largest eigenvalues are those of constant, classes and domains.

**2. Features.** The contrastive loss is least for $f = V_k\,\mathrm{diag}(\lambda)^{1/2}/\sqrt w$. With $k = r+m-1$
features are then a sum of a class part and a domain part, in perpendicular directions. The same class in two domains
is at a squared distance of $2m\,\lambda_{\rm dom}$: as far apart, nearly, as two classes of one domain, $2r\,
\lambda_{\rm cls}$. Domains are not made alike, and a linear classifier tells them apart.

**3. The head.** Least squares on the source fits the class part; of all heads that do, the one of least norm does not
look at the domain. Where interactions are kept as well it looks at both parts of a class contrast, and on the target
one of them has turned: $$\text{gain} = \frac{\lambda_{\rm cls}-\lambda_{\rm int}}{\lambda_{\rm cls}+(m-1)\lambda_{\rm
int}},$$ with $0$ for what is dropped. That is $1$ where interactions are dropped; $-1/(m-1)$ where class contrasts are,
so that the target is wrong throughout; and with all $r m$ features $(\alpha-\gamma)/(\rho-\beta)$.

**4. Averaged features.** Instead of a fit, take the mean feature of each class of the source, multiplied by a power of
the second moment $\Sigma = \sum_x w_x f f^\top = \mathrm{diag}(\lambda)$. The score of a node is then that of $V_k
\Lambda^t V_k^\top$: labels that spread over $t$ steps of a random walk. The gain is $(\lambda_{\rm cls}^t-\lambda_{\rm
int}^t)/(\lambda_{\rm cls}^t+(m-1)\lambda_{\rm int}^t)$, and tends to $1$ with $t$ if $\alpha > \gamma$.

**5. Sampled links.** Draw each edge with its weight as a probability, $n$ nodes a block. The eigenvalues of the noise
reach to $2\sqrt{N p(1-p)}$, $N = rmn$, while classes and interactions differ by $n m (\alpha-\gamma)$. With many nodes
the accuracy on the target is the step function of $\alpha - \gamma$ that the population has; with few the step is
washed out. The theorems of the two papers are of this kind: enough nodes, links in the right order, and the source's
head is right on the target.

**6. What is undefined.** At $\alpha = \gamma$ classes and interactions have one eigenvalue. If the cut at $k$ goes
through it, any mixture may be kept, and there is no answer to give.
"""

GRID = 9
COUNTS = (10, 100)
_GROUPS = {"class": "class contrasts", "domain": "domain contrasts", "interaction": "interactions"}
_GROUP_DASHES = ([7, 4], [12, 3], [2, 3])  # of theory, group by group
_TARGET, _DOMAIN = "target", "domain classifier"


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, LinearTransferParams)
    many = f"{params.classes} classes, {params.domains} domains, {params.n_features} features"
    sampled = f", {params.nodes_per_block} nodes a block" if params.graph == "random" else ""
    return many + sampled + (", SGD" if params.training == "sgd" else "")


def _fits(params: LinearTransferParams) -> bool:
    return params.head == "least_squares"


def _of_walk(run: Run) -> dict[str, float]:
    """The eigenvalues of classes and interactions that the features keep, 0 for what they drop."""
    found = theory.kept(model_of(_params(run)), _params(run).n_features)
    values = {"cls": found.value(theory.CLASS), "int": found.value(theory.INTERACTION)}
    return {**values, "domains": _params(run).domains}


def _averages_whole(params: LinearTransferParams) -> bool:
    """Whether averaged features have one gain: classes and interactions are each kept or dropped as a whole."""
    if params.head != "averaging" or gain_of(params).value is None:
        return False
    found = theory.kept(model_of(params), params.n_features)
    return all(found.whole(group) for group in (theory.CLASS, theory.INTERACTION))


def _of_noise(run: Run) -> dict[str, float]:
    """The number of nodes, and the mean weight of a pair."""
    params = _params(run)
    return {"nodes": params.nodes, "p": model_of(params).total / (params.classes * params.domains)}


FORMULAS = (
    *block_formulas(model_of, fitted=_fits),
    Formula(
        says="The gain of averaged features: each step of the walk damps interactions more than class contrasts, if "
        "these have the larger eigenvalue.",
        left=r"\mathrm{gain}",
        right=r"\frac{<cls>^{<walk_steps>} - <int>^{<walk_steps>}}"
        r"{<cls>^{<walk_steps>} + (<domains>-1) <*> <int>^{<walk_steps>}}",
        value=lambda n: (
            (n["cls"] ** n["walk_steps"] - n["int"] ** n["walk_steps"])
            / (n["cls"] ** n["walk_steps"] + (n["domains"] - 1) * n["int"] ** n["walk_steps"])
        ),
        predicts="gain",
        numbers=_of_walk,
        symbols={"cls": r"\lambda_{\mathrm{cls}}", "int": r"\lambda_{\mathrm{int}}"},
        when=_averages_whole,
    ),
    Formula(
        says="How far the links that matter stand out of the noise of sampling, p being the mean weight of a pair: a "
        "rule of thumb. Around 0.2 the source's head begins to be right on the target.",
        left=r"\frac{\text{signal}}{\text{noise}}",
        right=r"\frac{<nodes_per_block> <*> <domains> <*> |<across_domains> - <across_both>|}"
        r"{2 \sqrt{<nodes> <*> <p> <*> (1 - <p>)}}",
        value=lambda n: (
            n["nodes_per_block"]
            * n["domains"]
            * abs(n["across_domains"] - n["across_both"])
            / (2.0 * np.sqrt(n["nodes"] * n["p"] * (1.0 - n["p"])))
        ),
        predicts=lambda run: visibility(model_of(_params(run)), _params(run).nodes_per_block),
        numbers=_of_noise,
        symbols={"nodes": "N", "p": "p"},
        when=lambda params: params.graph == "random" and 0.0 < model_of(params).total < params.classes * params.domains,
    ),
)

STORY = Story(why=WHY, label=label, metric="target_accuracy", formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """Where pairs across domains are as likely as pairs across both, and where sampling begins to hide it."""
    assert isinstance(base, LinearTransferParams)
    if x.name != "across_domains":
        return None
    at = base.across_both
    if y is None:
        return [ChalkLine([at], [], "as many links across domains as across both")]
    low, high = y.span
    if y.name == "across_both":
        first, last = max(low, x.span[0]), min(high, x.span[1])
        return [ChalkLine([first, last], [first, last], "as many links across domains as across both")]
    lines = [ChalkLine([at, at], [low, high], "as many links across domains as across both")]
    if y.name == "nodes_per_block" and base.graph == "random":
        weights = np.linspace(at, x.span[1], 60)[1:]
        counts = [VISIBLE**2 * enough_nodes(model_of(base.replace(across_domains=float(one)))) for one in weights]
        kept = [(float(a), n) for a, n in zip(weights, counts, strict=True) if low <= n <= high]
        if len(kept) > 1:
            xs, ys = map(list, zip(*kept, strict=True))
            words = f"links that matter, at {VISIBLE:g} of the noise: a rule of thumb"
            lines.append(ChalkLine(xs, ys, words, claimed=False))
    return lines


VISIBLE = 0.2  # of the edge of the bulk, around which transfer was seen to set in

SWEEP = SweepStory(
    x="across_domains",
    x_range="0.01,0.03,0.045,0.055,0.07,0.09,0.12,0.16,0.2",
    y="nodes_per_block",
    y_range="5,10,20,40,80,160",
    metric="target_accuracy",
    preset="few_nodes",
    base={"replicates": 4, "steps": 1},
    notice="The target flips where links across domains outnumber those across both; with few nodes the step is washed "
    "out, and to the left of it more nodes make the head wrong with more certainty.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """The nodes, the accuracies, training where there is any, and both over the weight across domains."""
    drawn = [nodes(view), accuracies(view)]
    if any(_params(run).training == "sgd" for run in view.runs.values()):
        drawn.append(training(view))
    if any(_params(run).head == "averaging" for run in view.runs.values()):
        drawn.append(powers(view))
    return [*drawn, eigenvalues(view), transition(view)]


def _params(run: Run) -> LinearTransferParams:
    assert isinstance(run.params, LinearTransferParams)
    return run.params


def nodes(view: View) -> Picture:
    """The nodes of the run in focus along class and domain, or along what of them is kept."""
    params = _params(view.focus)
    return class_domain_plane(
        view.focus, params.classes, params.domains, params.weights, params.n_features, view.focus_label
    )


def accuracies(view: View) -> Picture:
    """Accuracy on the target, on the source, and of a linear classifier of domains, and the target's contrast."""
    measured = [run.metrics["gain"] for run in view.runs.values()]
    ends = [one.mean + sign * (one.se or 0.0) for one in measured if one.mean is not None for sign in (-1.0, 1.0)]
    return meters(
        view,
        {
            "target_accuracy": "target",
            "source_accuracy": "source",
            "domain_accuracy": "domain",
            "gain": "contrast",
        },
        id="accuracies",
        title="Accuracy, and how much contrast is left",
        note="Bars: accuracy on the target, on the source, and of a linear classifier of domains, whose full bar says "
        "that domains are not alike; last, the class contrast on the target over that on the source. Ticks: theory.",
        domain=(min(0.0, *ends), max(1.0, *ends)) if ends else (0.0, 1.0),
    )


def training(view: View) -> Picture:
    """Accuracy on the target over training."""
    return overlay(
        view,
        "target_accuracy",
        id="training",
        title="Features turn until the head transfers",
        note="Dashed: the accuracy of the minimiser, grey until training can be expected to be over.",
    )


# -- over the weight across domains --------------------------------------------------------------------------------


def weights_of(params: LinearTransferParams) -> list[float]:
    """Weights across domains around that across both, none equal to it."""
    top = min(1.0, max(0.1, 2.2 * params.across_both, 1.15 * params.across_domains))
    found = [round(top * (i + 0.5) / GRID, 4) for i in range(GRID)]
    return [one + 0.001 if abs(one - params.across_both) < 5e-4 else one for one in found]


def weight_runs(params: LinearTransferParams) -> list[LinearTransferParams]:
    """Features solved for at each of these weights; of sampled graphs for several numbers of nodes a block."""
    base = _theory_alone(params)
    if params.graph == "population":
        return [base.replace(across_domains=one) for one in weights_of(params)]
    counts = sorted({*COUNTS, params.nodes_per_block})
    return [
        base.replace(across_domains=one, nodes_per_block=n, replicates=5)
        for n in counts
        if n * params.classes * params.domains >= params.n_features
        for one in weights_of(params)
    ]


def _at_hand(view: View) -> tuple[list[LinearTransferParams], list[Run]]:
    wanted = weight_runs(_params(view.focus))
    return wanted, [found for one in wanted if (found := view.at_hand(one)) is not None]


def _x_axis(params: LinearTransferParams) -> tuple[alt.X, float]:
    top = 1.06 * max(*weights_of(params), params.across_domains)
    scale = alt.Scale(domain=[0, top], nice=False)
    return alt.X("weight:Q", title="weight across domains, α", scale=scale, axis=alt.Axis(format="~g", grid=False)), top


def _marks(params: LinearTransferParams, x: alt.X, top: float) -> tuple[list[Any], dict[str, Any]]:
    """Upright rules at the weight across both, where things change, and at that of the run in focus."""
    layers: list[Any] = []
    tables = {}
    for name, weight, words, dash in (
        ("change", params.across_both, "γ", [1, 0]),
        ("here", params.across_domains, "this run", [2, 3]),
    ):
        right = weight > 0.7 * top
        base = alt.Chart(alt.NamedData(name))
        text = base.mark_text(
            align="right" if right else "left", baseline="bottom", dx=-3 if right else 3, fontSize=13, color="$text"
        )
        layers += [
            base.mark_rule(strokeWidth=1.4, strokeDash=dash, color="$muted").encode(x),
            text.encode(x, y=alt.YValue(alt.expr("height - 4")), text=alt.Text("words:N")),
        ]
        tables[name] = {"weight": [weight], "words": [words]}
    return layers, tables


def eigenvalues(view: View) -> Picture:
    """The eigenvalues of the three groups over the weight across domains, which cross at that across both."""
    params = _params(view.focus)
    wanted, runs = _at_hand(view)
    x, top = _x_axis(params)
    chalk = _eigenvalue_lines(_theory_alone(params), min(top, 1.0))
    shown = [run for run in runs if _params(run).nodes_per_block == params.nodes_per_block or _is_population(run)]
    found = {
        "weight": np.repeat([_params(run).across_domains for run in shown], 3),
        "value": np.array([run.metrics[f"lam_{group}"].mean for run in shown for group in _GROUPS], dtype=float),
        "group": np.tile(np.array(list(_GROUPS.values()), dtype=object), len(shown)),
    }
    values = np.concatenate([chalk["value"], found["value"]])
    low, high = float(np.min(values)), float(np.max(values))
    pad = 0.08 * max(high - low, 1e-3)
    scale = alt.Scale(domain=[low - 2.5 * pad, min(high + pad, 1.05)], nice=False)
    y = alt.Y("value:Q", title="eigenvalue", scale=scale, axis=alt.Axis(format="~g", tickCount=6))
    order = list(_GROUPS.values())
    hue = alt.Color("group:N", sort=order, scale=hues(order), legend=point_legend(order))
    shape = alt.Shape("group:N", sort=order, scale=shapes(order), legend=point_legend(order))
    dashes = alt.Scale(domain=order, range=_GROUP_DASHES)
    dash = alt.StrokeDash("group:N", sort=order, scale=dashes, legend=point_legend(order))
    marks, tables = _marks(params, x, top)
    layers = [
        *marks,
        alt.Chart(alt.NamedData("chalk")).mark_line(strokeWidth=2.2, clip=True).encode(x, y, hue, dash),
    ]
    if shown:
        points = alt.Chart(alt.NamedData("found")).mark_point(filled=True, size=60, opacity=1, clip=True)
        layers.append(points.encode(x, y, hue, shape))
    model = model_of(params)
    here = ", ".join(f"{name} {model.eigenvalues[group]:.4g}" for group, name in _GROUPS.items())
    return Picture(
        id="eigenvalues",
        title="What the weights decide",
        spec=layered(*layers),
        alt=f"Eigenvalues at α = {params.across_domains:g}: {here}. Class contrasts and interactions cross at "
        f"γ = {params.across_both:g}. {len(runs)} of {len(wanted)} runs computed.",
        data={"chalk": chalk, **({"found": found} if shown else {}), **tables},
        needs=wanted if _is_population(view.focus) else (),  # else they are those of the next picture
        note="Dashed: the closed form. Points: "
        + ("of the graph. " if _is_population(view.focus) else "means of 5 sampled graphs, once these are computed. ")
        + "Class contrasts and interactions cross where pairs across domains are as heavy as pairs across both, γ.",
    )


def _theory_alone(params: LinearTransferParams) -> LinearTransferParams:
    """What the theory looks at: params that differ in the rest share their chalk lines."""
    return params.replace(training="eigen", steps=1, seed=0, first_replicate=0, replicates=1)


@lru_cache(maxsize=128)
def _eigenvalue_lines(params: LinearTransferParams, top: float) -> dict[str, Any]:
    """The eigenvalues of the groups over weights across domains up to `top`."""
    fine = np.linspace(0.0, top, 81)
    models = [model_of(params.replace(across_domains=float(one))) for one in fine]
    return {
        "weight": np.tile(fine, 3),
        "value": np.concatenate([[one.eigenvalues[group] for one in models] for group in _GROUPS]),
        "group": np.repeat(np.array(list(_GROUPS.values()), dtype=object), len(fine)),
    }


def _is_population(run: Run) -> bool:
    return _params(run).graph == "population"


def transition(view: View) -> Picture:
    """Accuracy on the target over the weight across domains, with that of the classifier of domains."""
    params = _params(view.focus)
    wanted, runs = _at_hand(view)
    x, top = _x_axis(params)
    population = params.graph == "population"
    parts = []
    for run in runs:
        of, n = _params(run), _params(run).nodes_per_block
        name = _TARGET if population else f"{_TARGET}, {n} nodes a block"
        both = [(name, run.metrics["target_accuracy"])]
        if population or n == params.nodes_per_block:
            both.append((_DOMAIN, run.metrics["domain_accuracy"]))
        parts += [
            {"weight": of.across_domains, "kind": kind, "value": m.mean, "se": m.se or 0.0}
            for kind, m in both
            if m.mean is not None
        ]
    kinds = _kinds(params)
    points = {name: [part[name] for part in parts] for name in ("weight", "kind", "value")}
    points["low"] = [part["value"] - part["se"] for part in parts]
    points["high"] = [part["value"] + part["se"] for part in parts]
    chalk = _step_line(_theory_alone(params), min(top, 1.0))
    y = alt.Y(
        "value:Q",
        title="accuracy",
        scale=alt.Scale(domain=[-0.16, 1.08], nice=False),
        axis=alt.Axis(values=[0, 0.5, 1], format="~g"),
    )
    hue = alt.Color("kind:N", sort=kinds, scale=hues(kinds), legend=point_legend(kinds))
    shape = alt.Shape("kind:N", sort=kinds, scale=shapes(kinds), legend=point_legend(kinds))
    marks, tables = _marks(params, x, top)
    base = alt.Chart(alt.NamedData("found"))
    layers = [
        *marks,
        alt.Chart(alt.NamedData("chalk"))
        .mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True)
        .encode(x, y, alt.Detail("piece:N")),
    ]
    if parts:
        layers += [
            base.mark_rule(strokeWidth=1.6, clip=True).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), hue),
            base.mark_line(strokeWidth=1.8, clip=True).encode(x, y, hue),
            base.mark_point(filled=True, size=60, opacity=1, clip=True).encode(x, y, hue, shape),
        ]
    ends = sorted(runs, key=lambda run: _params(run).across_domains)
    said = "; ".join(
        f"α = {_params(run).across_domains:g}: {mean:.3g}"
        for run in ends
        if (population or _params(run).nodes_per_block == params.nodes_per_block)
        and (mean := run.metrics["target_accuracy"].mean) is not None
    )
    return Picture(
        id="transition",
        title="Where the target flips",
        spec=layered(*layers),
        alt=f"Accuracy on the target: {said or 'not computed yet'}. Theory changes at γ = {params.across_both:g}. "
        f"{len(runs)} of {len(wanted)} runs computed.",
        data={**({"found": points} if parts else {}), "chalk": chalk, **tables},
        needs=wanted,
        note="Dashed: the population, which is wrong to the left of γ and right beyond"
        + (
            "."
            if params.n_features in (params.both, params.classes * params.domains)
            else ", where theory has one answer."
        )
        + (" Points: means of 5 sampled graphs with their standard errors." if not population else ""),
    )


def _kinds(params: LinearTransferParams) -> list[str]:
    if params.graph == "population":
        return [_TARGET, _DOMAIN]
    return [f"{_TARGET}, {n} nodes a block" for n in sorted({*COUNTS, params.nodes_per_block})] + [_DOMAIN]


@lru_cache(maxsize=128)
def _step_line(params: LinearTransferParams, top: float) -> dict[str, Any]:
    """The population's accuracy on the target, piece by piece; no piece where theory has no one answer."""
    fine = np.unique(
        np.concatenate([np.linspace(0.0, top, 161), [params.across_both - 1e-9, params.across_both + 1e-9]])
    )
    fine = fine[(fine >= 0.0) & (fine <= 1.0)]
    answers = [
        theory.target_accuracy(model_of(params.replace(across_domains=float(one))), params.n_features).value
        for one in fine
    ]
    known = np.array([answer is not None for answer in answers])
    piece = np.cumsum(np.diff(known.astype(int), prepend=0) != 0)
    return {
        "weight": fine[known],
        "value": np.array([answer for answer in answers if answer is not None], dtype=float),
        "piece": np.array([f"piece {p}" for p in piece[known]], dtype=object),
    }


# -- averaged features ---------------------------------------------------------------------------------------------


def powers(view: View) -> Picture:
    """The gain of averaged features over their power."""
    averaged = {name: run for name, run in view.runs.items() if _params(run).head == "averaging"}
    params = _params(next(iter(averaged.values())))
    last = max(16, *(_params(run).walk_steps for run in averaged.values()))
    steps = np.arange(1, last + 1)
    gains = [gain_of(params.replace(walk_steps=int(t))).value for t in steps]
    chalk = {
        "t": [int(t) for t, one in zip(steps, gains, strict=True) if one is not None],
        "value": [one for one in gains if one is not None],
    }
    rows = [
        (name, _params(run).walk_steps, run.metrics["gain"].mean)
        for name, run in averaged.items()
        if run.metrics["gain"].mean is not None
    ]
    found = {"run": [r[0] for r in rows], "t": [r[1] for r in rows], "value": [r[2] for r in rows]}
    names = [row[0] for row in rows]
    values = np.array([*chalk["value"], *found["value"], 0.0, 1.0], dtype=float)
    scale = alt.Scale(domain=[float(values.min()) - 0.06, float(values.max()) + 0.06], nice=False)
    x = alt.X(
        "t:Q",
        title="power t, steps of the walk",
        scale=alt.Scale(domain=[0.5, last + 0.5], nice=False),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    y = alt.Y("value:Q", title="class contrast, target over source", scale=scale, axis=alt.Axis(format="~g"))
    hue = alt.Color("run:N", sort=names, scale=hues(names), legend=point_legend(names))
    shape = alt.Shape("run:N", sort=names, scale=shapes(names), legend=point_legend(names))
    layers = [
        alt.Chart(alt.NamedData("chalk")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text").encode(x, y),
        alt.Chart(alt.NamedData("runs")).mark_point(filled=True, size=90, opacity=1).encode(x, y, hue, shape),
    ]
    said = "; ".join(f"{name}: {value:.3g}" for name, _, value in rows)
    return Picture(
        id="powers",
        title="Averaged features: each step damps the interactions",
        spec=layered(*layers),
        alt=f"Class contrast on the target over that on the source: {said}.",
        data={"chalk": chalk, "runs": found},
        note="Dashed: the class contrast of averaged features in closed form. Points: the runs that have them.",
    )
