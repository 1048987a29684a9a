"""The page of the augmentation graph: its derivation and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from app.frame.confirmed import Experiment, LaidOver, Points
from app.frame.formula import Formula
from app.frame.page import Story
from app.frame.pictures import (
    CLAIMED,
    PALETTE,
    UNCLAIMED,
    Curve,
    Picture,
    hues,
    joined,
    layered,
    overlay,
    point_legend,
)
from app.frame.runs import View
from app.frame.specs import fill
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.augmentation_graph.lab import LEVELS, TABLE, AugmentationGraphParams
from sims.augmentation_graph.prediction import spectrum_of
from sims.augmentation_graph.training import graph_of, shown_nodes
from sims.engine import Params, Run
from sims.graphs import glyphs
from theory import augmentation_graph as theory

Array = NDArray[np.float64]

WHY = r"""
**The graph.** A natural example $\bar x$ has probability $p(\bar x)$, and a view of it is the node $x$ with
probability $A(x|\bar x)$. Two nodes are joined by the probability that they are two views of one example, $W_{xx'} =
\sum_{\bar x} p(\bar x) A(x|\bar x) A(x'|\bar x)$. With $w_x = \sum_{x'} W_{xx'}$ the normalised graph is $\bar
A_{xx'} = W_{xx'}/\sqrt{w_x w_{x'}}$: positive semidefinite, with largest eigenvalue $1$ and eigenvector $\sqrt w$.
Let its eigenvalues be $1 = \lambda_1 \ge \lambda_2 \ge \dots$, with eigenvectors $v_i$.

**1. The loss is a factorisation.** Contrastive training pulls together the views $x, x^+$ of a positive pair and
pushes apart independent nodes: $$L(f) = -2\,\mathbb{E}\,f(x)^\top f(x^+) + \mathbb{E}\,\big(f(x)^\top f(x')\big)^2
.$$ Put $F_x = \sqrt{w_x}\,f(x)$, an $N \times k$ matrix. The first term is $-2\,\mathrm{tr}\,F^\top \bar A F$, the
second is $\|F F^\top\|^2$, so that $$L(f) = \|\bar A - F F^\top\|^2 - \|\bar A\|^2 .$$ The best $F F^\top$ of rank
$k$ is known: keep the $k$ largest eigenvalues. Hence $F = V_k\,\mathrm{diag}(\lambda)^{1/2} Q$ with any rotation $Q$,
and $L_{\min} = -\sum_{i \le k}\lambda_i^2$.

**2. What a linear probe can read.** Let $u_c$ be $\sqrt w$ on the nodes of class $c$ and $0$ elsewhere. Least squares
on one-hot labels leaves the energy of the labels outside the span of the features: $\mathrm{mse}_k = \sum_c \|u_c -
P_k u_c\|^2$. For classes of sub-clusters it falls by $1/C$ with each feature and is exactly $0$ at $k = C$, provided
that classes are the larger eigenvalue.

**3. A bound, and when it is empty.** Let $\phi$ be the probability that a positive pair crosses classes. Each $u_c$
has energy $\langle u_c, (1-\bar A) u_c\rangle$, together $\phi$; whatever lies beyond the $k$-th eigenvector has at
least $1-\lambda_{k+1}$ a unit. Hence $$\mathrm{mse}_k \le \frac{\phi}{1-\lambda_{k+1}} .$$ The argmax is wrong on at
most $2\,\mathrm{mse}_k$ of the nodes, and a vote among the views of an example on at most twice that and the leak
$\alpha$. A bound that is no better than the probe which knows only how common the classes are says nothing, and its
zone is hatched. The theorem of the paper is this with $1-\lambda_{k+1}$ replaced by how well the graph can be cut
into $k/2$ parts.

**4. Training is a power iteration.** Gradient flow on $F$ is $\dot F = 4(\bar A F - F F^\top F)$. Its last term only
mixes the columns, so that the span moves as $e^{4\bar A t} F(0)$: each direction grows at its own rate, and the angle
to the top eigenspace obeys $\tan\Theta_k(t) \le e^{-4(\lambda_k-\lambda_{k+1})t}\tan\Theta_k(0)$. Even $F F^\top$ has
a closed form, $E S^{-1} E^\top$ with $E = e^{4\bar A t}F(0)$ and $S = 1 + F(0)^\top (e^{8\bar A t}-1)\bar
A^{-1}F(0)$: it is the dashed line. From the start $F(0) = \sqrt{m_0}\,V_k$ each mode follows a logistic curve of its
own, $$m_i(t) = \frac{\lambda_i}{1 + (\lambda_i/m_0 - 1)\,e^{-8\lambda_i t}},$$ half grown at
$\ln(\lambda_i/m_0-1)/8\lambda_i$. A step of size $\eta$ on the table of $N$ equally likely nodes advances $t$ by
$\eta/N$.

**5. What no theorem says.** The sharp end at $k = C$ is one of the *squared* error. The argmax is often right long
before, since a few random directions are enough to tell the largest of $C$ outputs: for ten equal classes it is wrong
on a third of the nodes at $k = 4$, and on hardly any at $k = 8$. And nothing says that classes come first: where
sub-clusters are better separated than classes, features are spent on sub-clusters.
"""

LOG_ERROR = "log_error"
MSE, WRONG = "squared error", "nodes wrong (argmax)"
LEAKS = (0.0, 0.04, 0.08, 0.12, 0.2, 0.28, 0.36, 0.44, 0.46, 0.5)
SHOWN_LEVELS = 6
_GRAPHS = {"blocks": "blocks", "ring": "ring", "hypercube": "cube", "gaussian": "Gaussian", "glyphs": "glyphs"}
_TRAINING = {"eigen": "eigenvectors", "gradient_flow": "gradient flow", "sgd": "SGD", "network": "network"}
_GLYPH_NOTE = (
    "An upright, unshifted image is drawn as what it shows, its colours side by side; dots are turned copies. "
)


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, AugmentationGraphParams)
    return f"{_GRAPHS[params.graph]}, {_TRAINING[params.training]}, {params.n_features} features"


def _block_eigenvalue(run: Run, at: int) -> float:
    from theory.graphs import block_eigenvalues

    params = _params(run)
    return block_eigenvalues(params.classes, params.subclusters, params.leak_within, params.leak)[at]


def _of_cut(run: Run) -> dict[str, float]:
    """What the bound on the probe is made of."""
    found, _ = spectrum_of(_params(run))
    assert found is not None
    return {"phi": found.phi, "next": found.eigenvalue(_params(run).n_features + 1)}


def _kept(run: Run) -> dict[str, float]:
    """The largest and the smallest eigenvalue kept, and the sum of the squares of all that are."""
    params = _params(run)
    found, _ = spectrum_of(params)
    assert found is not None
    return {"sum": float(np.sum(found.top(params.n_features) ** 2))}


def _has_spectrum(params: AugmentationGraphParams) -> bool:
    return spectrum_of(params)[0] is not None


def _is_planted(params: AugmentationGraphParams) -> bool:
    """Whether the constant mode starts alone and below half of its final mass."""
    return params.is_active("start") and params.start == "planted" and params.init_scale**2 < 0.5


FORMULAS = (
    Formula(
        says="How strongly views of one class belong together: the eigenvalue of the differences between classes.",
        left=r"\lambda_{\mathrm{class}}",
        right=r"\left(1 - <leak> <*> \frac{<classes>}{<classes>-1}\right)^2",
        value=lambda n: (1.0 - n["leak"] * n["classes"] / (n["classes"] - 1.0)) ** 2,
        predicts=lambda run: _block_eigenvalue(run, 0),
        when=lambda params: params.graph == "blocks" and params.classes > 1,
    ),
    Formula(
        says="The eigenvalue of differences between the clusters of a class; the larger of the two is learned first.",
        left=r"\lambda_{\mathrm{cluster}}",
        right=r"\left(1 - <leak> - <leak_within> <*> \frac{<subclusters>}{<subclusters>-1}\right)^2",
        value=lambda n: (1.0 - n["leak"] - n["leak_within"] * n["subclusters"] / (n["subclusters"] - 1.0)) ** 2,
        predicts=lambda run: _block_eigenvalue(run, 1),
        when=lambda params: params.graph == "blocks" and params.subclusters > 1,
    ),
    Formula(
        says="What a linear probe on the k features gets wrong at most, in the square.",
        left=r"\mathrm{mse}_k",
        right=r"\frac{<phi>}{1 - <next>}",
        value=lambda n: n["phi"] / (1.0 - n["next"]) if n["next"] < 1.0 else np.inf,
        predicts="probe_bound",
        relation=r"\le",
        numbers=_of_cut,
        symbols={"phi": r"\phi", "next": r"\lambda_{k+1}"},
        when=_has_spectrum,
    ),
    Formula(
        says="The least loss: the eigenvalues that k features can hold, squared.",
        left=r"L_{\min}",
        right=r"-\sum_{i=1}^{<n_features>} \lambda_i^2",
        value=lambda n: -n["sum"],
        predicts="min_loss",
        numbers=_kept,
        when=_has_spectrum,
    ),
    Formula(
        says="When the first mode has grown half: its eigenvalue is 1, and it starts with the mass of the others.",
        left="t_1",
        right=r"\frac{1}{8} <*> \ln\left(\frac{1}{<init_scale>^2} - 1\right)",
        value=lambda n: float(np.log(1.0 / n["init_scale"] ** 2 - 1.0)) / 8.0,
        predicts="half_time_1",
        symbols={"init_scale": r"\sqrt{m_0}"},
        when=_is_planted,
    ),
)

STORY = Story(why=WHY, label=label, metric="loss", formulas=FORMULAS, details={LOG_ERROR: "Errors on a log scale"})


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """The least number of features with which a linear probe makes no error, over the leak between classes."""
    assert isinstance(base, AugmentationGraphParams)
    if y is None or {x.name, y.name} != {"leak", "n_features"} or base.graph != "blocks":
        return None
    swept = x if x.name == "leak" else y
    low, high = swept.span
    leaked = np.linspace(max(0.0, low), min(high, 1.0 - base.leak_within), 120)
    enough = [(float(leak), _features_needed(base, float(leak))) for leak in leaked]
    known = [(leak, float(count)) for leak, count in enough if count is not None]
    if not known:
        return None
    points = tuple(map(list, zip(*known, strict=True)))
    words = "features needed for a probe without error"
    return [ChalkLine(*(points if swept is x else points[::-1]), words)]


def _features_needed(base: AugmentationGraphParams, leak: float) -> int | None:
    """The least k at which the probe's squared error is 0; None where none is."""
    from theory.augmentation_graph import probe_mse
    from theory.graphs import nested_blocks

    spectrum = nested_blocks(base.classes, base.subclusters, base.nodes_per_block, base.leak_within, leak)
    errors = ((k, probe_mse(spectrum, k).value) for k in range(1, spectrum.rank + 1))
    return next((k for k, error in errors if error is not None and error < 1e-9), None)


SWEEP = SweepStory(
    x="leak",
    x_range="0:0.75:11",
    y="n_features",
    y_range="1:14:14",
    metric="probe_mse",
    base={"leak_within": 0.1, "training": "eigen"},
    notice="As many features as classes are enough, until views leave their class more readily than their cluster: "
    "from there every cluster costs a feature of its own.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """The spectrum, the probe, and of a run that is trained its modes, its angle and its embedding."""
    params = _params(view.focus)
    drawn = [eigenvalues(view), probe_errors(view)]
    if params.training != "eigen":
        drawn.append(masses(view))
        if _has_angle(view.focus):
            drawn.append(angle(view))
    elif params.graph == "blocks" and params.n_features <= 2 * params.classes * params.subclusters:
        drawn.append(leaks(view))
    if view.focus.trace.frames["embedding"].shape[2] > 1:
        drawn.append(embedding(view))
    return drawn


def sampled_points(view: View, experiment: Experiment) -> Points | None:
    """Eigenvalues of a graph of sampled views, with what the few views of each example add counted out."""
    from theory.graphs import population_eigenvalue

    settings, params = experiment["settings"], _params(view.focus)
    shared = ("classes", "subclusters", "leak_within", "leak")
    if params.graph != "blocks" or any(getattr(params, name) != settings[name] for name in shared):
        return None
    values = experiment["parts"]["float64"]["eigenvalues"][: settings["count"]]
    found = [population_eigenvalue(value, settings["views"], settings["degree"]) for value in values]
    words = (
        f"a graph of {settings['nodes']:,} nodes and {settings['views']} views of each natural example, which are "
        "counted out"
    )
    return Points(np.arange(1, len(found) + 1), found, words)


def encoder_points(view: View, experiment: Experiment) -> Points | None:
    """Sizes of the features of encoders of pictures, where the graph shown swaps as many glyphs as often."""
    settings, params = experiment["settings"], _params(view.focus)
    shared = ("glyphs", "glyph_swap", "colour_swap")
    if params.graph != "glyphs" or params.glyph_set != "distinct":
        return None
    if any(getattr(params, name) != settings[name] for name in shared):
        return None
    sizes = np.mean([part["feature_eigenvalues"] for part in experiment["parts"].values()], axis=0)
    words = f"sizes of the features of encoders that see pictures of {settings['side']} x {settings['side']} pixels"
    return Points(np.arange(1, len(sizes) + 1), sizes, words)


CONFIRMED = (
    LaidOver("block_graph", "eigenvalues", sampled_points),
    LaidOver("glyph_encoder", "eigenvalues", encoder_points),
)


def _params(run: Run) -> AugmentationGraphParams:
    assert isinstance(run.params, AugmentationGraphParams)
    return run.params


def _words(count: int, text: str) -> NDArray[Any]:
    return np.full(count, text, dtype=object)


def _colours(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


# -- the spectrum ------------------------------------------------------------------------------------------------


def eigenvalues(view: View) -> Picture:
    """Eigenvalues as stems, the closed form as ticks, and the cut at k."""
    run = view.focus
    params = _params(run)
    values = run.trace.finals["eigenvalues"][0]
    count = len(values)
    others = {name: other for name, other in view.runs.items() if other is not run and _other_graph(other, run)}
    names = [view.focus_label, *others]
    table = joined(
        [
            {
                "run": _words(len(own), name),
                "focus": _words(len(own), "yes" if other is run else "no"),
                "index": np.arange(1, len(own) + 1),
                "value": own,
            }
            for name, other in {view.focus_label: run, **others}.items()
            for own in [other.trace.finals["eigenvalues"][0][:count]]
        ]
    )
    found, silent = spectrum_of(params)
    known = np.zeros(0) if found is None else found.top(count if found.complete else min(count, found.listed))
    ticks = {"index": np.arange(1, len(known) + 1), "value": known}
    k = params.n_features
    cut = {"index": [k + 0.5], "value": [1.04], "words": [f"k = {k}"]}
    data: dict[str, Any] = {"values": table, "cut": cut}
    if len(known):
        data["theory"] = ticks
    gap = values[k - 1] - (values[k] if k < count else 0.0)
    tied = gap < 1e-9
    where = (
        "The cut goes through equal eigenvalues: which of their eigenvectors are kept is chance."
        if tied
        else f"The gap at the cut is {gap:.3g}."
    )
    beyond = _beyond(params)
    return Picture(
        id="eigenvalues",
        title="The spectrum of the graph",
        spec=fill(_eigenvalue_spec(tuple(names), bool(len(known))), {"x": [0.4, count + 0.6], "names": names}),
        alt=f"{view.focus_label}: the first eigenvalues are {', '.join(f'{v:.3g}' for v in values[: min(8, count)])}. "
        f"{where}",
        data=data,
        note=f"Stems: eigenvalues found by the solver. Ticks: the closed form. {where}{beyond}"
        if len(known)
        else f"Stems: eigenvalues found by the solver. No ticks: {silent}. {where}",
    )


@cache
def _eigenvalue_spec(names: tuple[str, ...], known: bool) -> dict[str, Any]:
    """The spec of the stems: `x` and `names` are to be filled in."""
    x = alt.X(
        "index:Q",
        title="number of the eigenvalue",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    y = alt.Y("value:Q", title="eigenvalue", scale=alt.Scale(domain=[0, 1.1], nice=False))
    hue = alt.Color(
        "run:N", scale=alt.Scale(domain=alt.ExprRef("names"), range=_colours(len(names))), legend=point_legend(names)
    )
    points, marks = alt.Chart(alt.NamedData("values")), alt.Chart(alt.NamedData("cut"))
    layers: list[Any] = [
        points.mark_rule(strokeWidth=2, color=PALETTE[0])
        .encode(x, y, alt.Y2(datum=0))
        .transform_filter(alt.datum.focus == "yes"),
        points.mark_point(filled=True, size=60, opacity=1).encode(x, y, hue),
        marks.mark_rule(strokeDash=[2, 3], strokeWidth=1.6, color="$muted").encode(x),
        marks.mark_text(align="left", dx=5, fontSize=13, color="$text").encode(x, y, text=alt.Text("words:N")),
    ]
    if known:
        tick = alt.Chart(alt.NamedData("theory")).mark_tick(color="$text", size=12, thickness=2.2, orient="horizontal")
        layers.insert(2, tick.encode(x, y))
    return layered(*layers)


def _beyond(params: AugmentationGraphParams) -> str:
    """What to say of leaks so strong that classes repel."""
    if params.graph == "blocks" and params.leak > (params.classes - 1) / params.classes + 1e-12:
        return (
            " The leak is so large that a view is rather of another class: classes repel, and their eigenvalue rises."
        )
    return ""


def _other_graph(other: Run, run: Run) -> bool:
    """Whether two runs are of different graphs."""
    return graph_of(_params(other)) is not graph_of(_params(run))


# -- the probe ---------------------------------------------------------------------------------------------------


def probe_errors(view: View) -> Picture:
    """Errors of the probe on the first 1, 2, ... eigenvectors, the bounds, and the zone in which they say nothing."""
    run = view.focus
    params = _params(run)
    log = LOG_ERROR in view.details
    mse, wrong = (np.mean(run.trace.finals[f"{name}_by_k"], axis=0) for name in ("probe_mse", "probe_error"))
    count, k = len(mse), params.n_features
    index = np.arange(1, count + 1)
    low, top = (_lowest(mse, wrong) if log else 0.0), 1.05
    shares = _class_shares(run)
    guess = {"mse": 1.0 - float(np.sum(shares**2)), "argmax": 1.0 - float(np.max(shares))}
    values, phi = run.trace.finals["eigenvalues"][0], float(run.trace.finals["phi"][0])
    with np.errstate(divide="ignore"):
        bound = np.where(values[1:] < 1.0 - 1e-12, phi / np.maximum(1.0 - values[1:], 1e-300), np.inf)
    found, silent = spectrum_of(params)
    exact = [] if found is None else [theory.probe_mse(found, int(i)) for i in index if i <= found.listed]
    errors = joined(
        [
            {"k": index, "kind": _words(count, MSE), "value": mse},
            {"k": index, "kind": _words(count, WRONG), "value": wrong},
        ]
    )
    bounds = joined([_bound_lines(bound, guess["mse"], MSE), _bound_lines(2.0 * bound, guess["argmax"], WRONG)])
    chalk = {"k": index[: len(exact)], "value": np.array([np.nan if e.value is None else e.value for e in exact])}
    errors, bounds, chalk = (_within(one, low if log else -1.0, top) for one in (errors, bounds, chalk))
    cut = {"k": [k + 0.5]}
    span = (0.4, count + 0.6)
    at = bound[k - 1] if k - 1 < len(bound) else np.nan
    return Picture(
        id="probe",
        title="What a linear probe can read",
        spec=fill(_probe_spec(log), {"x": list(span), "y": [low, top], "y_ticks": _error_ticks(low)}),
        alt=f"{view.focus_label}: at k = {k} the squared error is {_number(mse[k - 1])}, the argmax is wrong on "
        f"{_number(100 * wrong[k - 1])} % of the nodes. {_said_of_bound(at, guess['mse'])} Guessing has a squared "
        f"error of {guess['mse']:.3g}.",
        data={
            "errors": errors,
            "bound": bounds,
            "chalk": chalk,
            "cut": cut,
            **_zone("k", span, guess["mse"], (low, top), log),
        },
        note=f"Mean over random bases of equal eigenvalues, one a replicate ({run.trace.replicates}). "
        + (f"No ticks: {silent}. " if silent else "Ticks: the squared error in closed form. ")
        + "Dashed: the bound on the squared error and, above, twice that, the bound on the argmax; grey in the hatched "
        "zone, where they promise no more than a probe that knows nothing but how common the classes are. No theorem "
        "gives the argmax a cliff: it is often right before the squared error is small.",
    )


@cache
def _probe_spec(log: bool) -> dict[str, Any]:
    """The spec of the errors over k: `x`, `y` and `y_ticks` are to be filled in."""
    x = alt.X(
        "k:Q",
        title="features k",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    rule = alt.Chart(alt.NamedData("cut")).mark_rule(strokeDash=[2, 3], strokeWidth=1.6, color="$muted").encode(x)
    return _error_spec([rule, *_error_layers(x, "k", log)])


def _number(value: float) -> str:
    """Three digits, and rounding errors as 0."""
    return f"{value:.3g}" if abs(value) > 1e-10 else "0"


def _said_of_bound(bound: float, guess: float) -> str:
    if not np.isfinite(bound):
        return "There is no bound."
    return f"The bound on the squared error is {_number(bound)}" + (
        " and says nothing." if _empty(bound, guess) else "."
    )


def _empty(bound: Any, guess: float) -> Any:
    """Where a bound promises no more than guessing."""
    return bound >= guess - 1e-12


def _lowest(*errors: Array) -> float:
    """Where a logarithmic axis begins: a third of the smallest error that is not a rounding error."""
    positive = np.concatenate(errors)
    return float(np.min(positive[positive > 1e-9], initial=0.1)) / 3.0


def _bound_lines(bound: Array, guess: float, of: str, at: Array | None = None) -> dict[str, Any]:
    """The bound at k = 1, 2, ... (or `at`), in stretches that are claimed and stretches that are empty."""
    where = np.arange(1, len(bound) + 1) if at is None else at
    empty, parts = _empty(bound, guess), []
    for kind, mask in ((CLAIMED, ~empty), (UNCLAIMED, empty)):
        touching = mask.copy()
        if kind == UNCLAIMED:  # grey stretches reach as far as the claimed ones
            touching[1:] |= mask[:-1]
            touching[:-1] |= mask[1:]
        drawn = touching & np.isfinite(bound)
        stretch = np.cumsum(np.diff(touching.astype(int), prepend=0) == 1)[drawn]
        parts.append(
            {
                "k": where[drawn],
                "kind": _words(int(drawn.sum()), kind),
                "of": _words(int(drawn.sum()), of),
                "group": np.array([f"{of}/{kind}/{s}" for s in stretch], dtype=object),
                "value": bound[drawn],
            }
        )
    return joined(parts)


def _error_ticks(low: float) -> list[float]:
    """Powers of ten from a log axis's lower end to 1."""
    return [10.0**-power for power in range(10) if 10.0**-power >= low]


def _error_layers(x: alt.X, field: str, log: bool) -> list[Any]:
    """Layers of the tables errors, bound, chalk and of `_zone`; `y` and on a log axis `y_ticks` are to be filled in."""
    scale = alt.Scale(type="log" if log else "linear", domain=alt.ExprRef("y"), nice=False)
    ticks: dict[str, Any] = {"values": alt.ExprRef("y_ticks")} if log else {"tickCount": 6}
    y = alt.Y("value:Q", title="error", scale=scale, axis=alt.Axis(format="~g", **ticks))
    kinds, bounds = [MSE, WRONG], [CLAIMED, UNCLAIMED]
    hues = alt.Scale(domain=kinds, range=[PALETTE[0], PALETTE[1]])
    shapes = alt.Scale(domain=kinds, range=["circle", "square"])
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300, symbolOpacity=1, symbolSize=90)
    colour = alt.Color("kind:N", sort=kinds, scale=hues, legend=legend)
    points = alt.Chart(alt.NamedData("errors"))
    return [
        alt.Chart(alt.NamedData("hatch"))
        .mark_rule(strokeWidth=0.8, color="$muted", opacity=0.45, clip=True)
        .encode(x, y, alt.X2(f"{field}2:Q"), alt.Y2("value2:Q")),
        alt.Chart(alt.NamedData("bound"))
        .mark_line(clip=True)
        .encode(
            x,
            y,
            alt.Detail("group:N"),
            alt.StrokeDash("kind:N", scale=alt.Scale(domain=bounds, range=[[7, 4], [3, 4]]), legend=None),
            stroke=alt.Stroke("kind:N", scale=alt.Scale(domain=bounds, range=["$text", "$muted"]), legend=None),
            strokeWidth=alt.StrokeWidth(
                "of:N", sort=kinds, scale=alt.Scale(type="ordinal", domain=kinds, range=[2.2, 1.1]), legend=None
            ),
        ),
        points.mark_line(strokeWidth=2.2, clip=True).encode(x, y, colour),
        points.mark_point(filled=True, size=60, opacity=1, clip=True).encode(
            x, y, colour, alt.Shape("kind:N", sort=kinds, scale=shapes, legend=legend)
        ),
        alt.Chart(alt.NamedData("chalk"))
        .mark_tick(color="$text", size=12, thickness=2.2, orient="horizontal", clip=True)
        .encode(x, y),
        alt.Chart(alt.NamedData("zone"))
        .mark_text(align="right", baseline="top", dx=-4, dy=4, fontSize=12, color="$text")
        .encode(x, y, text=alt.Text("words:N")),
    ]


def _zone(
    field: str, span: tuple[float, float], guess: float, domain: tuple[float, float], log: bool
) -> dict[str, Any]:
    """The tables of the hatched zone above `guess`, and of its name."""
    top = domain[1]
    zone = {field: [span[1]], "value": [top], "words": ["here a bound says nothing"]}
    return {"hatch": _hatch(field, span, (guess, top), log), "zone": zone}


def _error_spec(layers: Sequence[Any]) -> dict[str, Any]:
    return layered(*layers, stroke="independent", strokeDash="independent", strokeWidth="independent")


def _class_shares(run: Run) -> Array:
    graph = graph_of(_params(run))
    return np.bincount(graph.label, weights=graph.w, minlength=graph.classes)


def _within(table: dict[str, Any], low: float, top: float) -> dict[str, Any]:
    """The rows that the axis has room for; what lies above is drawn at its upper edge."""
    values = np.asarray(table["value"], dtype=np.float64)
    kept = np.isfinite(values) & (values > low)
    found = {name: np.asarray(column)[kept] for name, column in table.items()}
    return {**found, "value": np.minimum(values[kept], 1.5 * top)}


def _hatch(field: str, span: tuple[float, float], zone: tuple[float, float], log: bool) -> dict[str, Array]:
    """Slanted lines over the whole width between two heights, as steep in a tall zone as in a flat one."""
    (left, right), (low, top) = span, zone
    height = np.log(top / low) if log else top - low
    slant = (right - left) * height / (12.0 if log else 2.4)
    start = np.arange(left - slant, right, (right - left) / 60.0)
    first, last = np.clip(start, left, right), np.clip(start + slant, left, right)

    def at(x: Array) -> Array:
        share = (x - start) / slant
        return low * (top / low) ** share if log else low + (top - low) * share

    return {field: first, "value": at(first), f"{field}2": last, "value2": at(last)}


# -- leaks -------------------------------------------------------------------------------------------------------


def leaks(view: View) -> Picture:
    """The same k while the leak between classes grows: the bound gives up long before the probe does."""
    run = view.focus
    params = _params(run)
    wanted = leak_runs(params)
    runs = [found for one in wanted if (found := view.at_hand(one)) is not None]
    at = np.array([_params(one).leak for one in runs])
    mse, wrong = (np.array([np.mean(one.values[name]) for one in runs]) for name in ("probe_mse", "probe_error"))
    most = min(LEAKS[-1], 1.0 - params.leak_within)
    fine = np.linspace(0.0, most, 251)
    spectra = [spectrum_of(params.replace(leak=float(leak)))[0] for leak in fine]
    guess = 1.0 - 1.0 / params.classes
    bound = np.array([theory.probe_mse_bound(one, params.n_features) for one in spectra if one is not None])
    exact = [theory.probe_mse(one, params.n_features).value for one in spectra if one is not None]
    top = 1.05
    errors = joined(
        [
            {"leak": at, "kind": _words(len(at), MSE), "value": mse},
            {"leak": at, "kind": _words(len(at), WRONG), "value": wrong},
        ]
    )
    lines = joined([_bound_lines(bound, guess, MSE, fine), _bound_lines(2.0 * bound, guess, WRONG, fine)])
    lines = _within({**lines, "leak": lines.pop("k")}, -1.0, top)
    here = {"leak": [min(params.leak, most)]}
    chalk = {"leak": fine[::5], "value": np.array([np.nan if e is None else e for e in exact])[::5]}
    gone = fine[np.argmax(_empty(2.0 * bound, guess))] if np.any(_empty(2.0 * bound, guess)) else np.nan
    lost = [leak for leak, e in zip(fine, exact, strict=True) if e is not None and e > exact[1] + 1e-9]  # type: ignore[operator]
    said = (f"the bound on the argmax says nothing from a leak of {gone:.3f} on" if np.isfinite(gone) else "") + (
        f"; the squared error itself rises at {lost[0]:.3f}" if lost else ""
    )
    return Picture(
        id="leaks",
        title=f"More and more leaks, k = {params.n_features}",
        spec=fill(_leak_spec(), {"x": [0, most], "y": [0.0, top]}),
        alt=f"With {params.n_features} features {said or 'no bound is empty'}. {len(runs)} of {len(wanted)} computed.",
        data={"errors": errors, "bound": lines, "chalk": _within(chalk, -1.0, top), "here": here}
        | _zone("leak", (0.0, most), guess, (0.0, top), False),
        needs=wanted,
        note="Points: the probe on the eigenvectors. Small ticks: the closed form. Dashed: the bound on the squared "
        "error and, above, on the argmax, grey where they say nothing.",
    )


@cache
def _leak_spec() -> dict[str, Any]:
    """The spec of the errors over the leak: `x` and `y` are to be filled in."""
    x = alt.X(
        "leak:Q",
        title="leak to other classes",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(format="~g", grid=False),
    )
    layers = _error_layers(x, "leak", False)
    rule = alt.Chart(alt.NamedData("here")).mark_rule(strokeDash=[2, 3], strokeWidth=1.6, color="$muted").encode(x)
    layers[4] = (
        alt.Chart(alt.NamedData("chalk"))
        .mark_point(shape="stroke", size=40, color="$text", strokeWidth=1.6, clip=True)
        .encode(x, alt.Y("value:Q"))
    )
    return _error_spec([rule, *layers])


def leak_runs(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    """The graphs of the sweep: as `params`, with few nodes, one for each leak that is possible."""
    base = params.replace(training="eigen", replicates=1, nodes_per_block=2, steps=1, seed=0, first_replicate=0)
    return [base.replace(leak=leak) for leak in LEAKS if leak + params.leak_within <= 1.0]


# -- training ----------------------------------------------------------------------------------------------------


def masses(view: View) -> Picture:
    """The mass of each eigenvalue over training; for planted starts the times at which each is half grown."""
    run = view.focus
    params = _params(run)
    values = run.trace.finals["eigenvalues"][0]
    distinct, copies = _distinct(values)
    series = run.trace.series
    shown = [
        i
        for i in range(1, min(LEVELS, SHOWN_LEVELS, len(distinct)) + 1)
        if np.any(np.isfinite(series[f"mode_mass_{i}"]))
    ]
    curves = [
        Curve(_level_words(distinct[i - 1], copies[i - 1]), run, f"mode_mass_{i}", f"mode_mass_{i}", hue)
        for hue, i in enumerate(shown)
    ]
    drawn = overlay(
        view,
        curves,
        id="masses",
        title=f"Modes switch on: {view.focus_label}",
        y_title="mass, per copy kept",
        note=_mass_note(params),
    )
    times = {i: run.prediction.prediction[f"half_time_{i}"] for i in shown}
    clocks = [(float(t) / params.time_step, distinct[i - 1] / 2) for i, t in times.items() if t is not None]  # type: ignore[arg-type]
    ends = {i: series[f"mode_mass_{i}"][:, -1] for i in shown}
    said = "; ".join(
        f"eigenvalue {distinct[i - 1]:.3g} "
        + (f"ends at {np.nanmedian(end):.3g}" if np.any(np.isfinite(end)) else "is lost as the training diverges")
        for i, end in ends.items()
    )
    spec = dict(drawn.spec)
    data = dict(drawn.data)
    if clocks:
        encoding = spec["layer"][1]["encoding"]
        mark = {"type": "point", "shape": "diamond", "filled": False, "size": 170, "color": "$text", "strokeWidth": 2.2}
        x, y = {**encoding["x"], "field": "x"}, {**encoding["y"], "field": "value"}
        spec["layer"] = [
            *spec["layer"],
            {"data": {"name": "clocks"}, "mark": {**mark, "clip": True}, "encoding": {"x": x, "y": y}},
        ]
        data["clocks"] = {"x": [x for x, _ in clocks], "value": [value for _, value in clocks]}
    words = f"{view.focus_label}: {said}. {drawn.alt}{_of_others(view, [view.focus_label])}"
    return replace(drawn, spec=spec, data=data, alt=words)


def _of_others(view: View, drawn: Sequence[str]) -> str:
    """What the words of a picture say of the runs that it does not draw."""
    return "".join(f" {name}: not drawn here." for name in view.runs if name not in drawn)


def _mass_note(params: AugmentationGraphParams) -> str:
    if params.training == "network":
        return "Mass of the network's features on each eigenspace. Dashed: where the minimiser has it."
    clock = f"A step advances the time of the flow by {params.time_step:.3g}."
    if params.start == "planted":
        return f"Dashed: the logistic curves of gradient flow; diamonds: when each is half grown. {clock}"
    return f"Dashed: gradient flow from the same start, in closed form. {clock}"


def _distinct(values: Array) -> tuple[Array, NDArray[np.int64]]:
    """Distinct eigenvalues, falling, and their numbers of copies."""
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) < -1e-9]))
    return values[starts], np.diff(np.append(starts, len(values)))


def _level_words(value: float, copies: int) -> str:
    return f"λ = {value:.4g}" + (f" ×{copies}" if copies > 1 else "")


def angle(view: View) -> Picture:
    """Tangent of the angle to the top eigenspace, with the slope that the gap gives."""
    trained = {name: run for name, run in view.runs.items() if _has_angle(run)}
    alone = replace(view, runs=trained)
    run = view.focus
    params = _params(run)
    flow = params.training in TABLE
    drawn = overlay(
        alone,
        "subspace_tan",
        id="angle",
        title="The angle to the top eigenspace",
        note="Dashed: gradient flow from the same start is a power iteration. Dotted: its slope, four times the gap."
        if flow
        else "The network has no closed form; the angle is to the eigenspace that the table would learn.",
    )
    drawn = replace(drawn, alt=drawn.alt + _of_others(view, list(trained)))
    start = float(np.median(run.trace.series["subspace_tan"][:, 0]))  # at the start no replicate has diverged
    if not (flow and np.isfinite(start) and start > 1e-12):
        return drawn
    spec, data = dict(drawn.spec), dict(drawn.data)
    encoding = spec["layer"][1]["encoding"]
    low = float(encoding["y"]["scale"]["domain"][0])
    line = start * np.exp(-4.0 * float(run.trace.finals["gap"][0]) * params.time_step * run.trace.step)
    kept = (line >= low) & ((run.trace.step > 0) | (view.x != "log_step"))
    x, y = {**encoding["x"], "field": "x"}, {**encoding["y"], "field": "value"}
    mark = {"type": "line", "strokeDash": [1, 4], "color": "$muted", "strokeWidth": 1.8, "clip": True}
    spec["layer"] = [*spec["layer"], {"data": {"name": "slope"}, "mark": mark, "encoding": {"x": x, "y": y}}]
    data["slope"] = {"x": run.trace.step[kept].astype(np.float64), "value": line[kept]}
    return replace(drawn, spec=spec, data=data)


def _has_angle(run: Run) -> bool:
    tangent = run.trace.series["subspace_tan"]
    return _params(run).training != "eigen" and bool(np.any(np.isfinite(tangent) & (tangent > 1e-9)))


# -- the embedding -----------------------------------------------------------------------------------------------


def embedding(view: View) -> Picture:
    """Two learned coordinates of the nodes, turned onto the eigenvectors; the nodes of glyphs are glyphs."""
    run = view.focus
    params = _params(run)
    graph = graph_of(params)
    nodes = shown_nodes(graph)
    frames = run.trace.frames["embedding"]
    axes = _axes(run, graph.label[nodes])
    points = frames[:, :, axes]
    finite = points[np.isfinite(points)]
    reach = 1.12 * float(np.quantile(np.abs(finite), 0.998)) if finite.size else 1.0
    reach = max(reach, 1e-6) * (1.25 if graph.places is not None else 1.0)
    if graph.places is not None:
        columns = _glyph_columns(params, graph.places[nodes], reach)
        template = _glyph_spec(params.glyphs, params.glyph_set, params.colours, axes)
    else:
        columns = {"class": np.array([f"class {c + 1}" for c in graph.label[nodes]], dtype=object)}
        template = _dot_spec(graph.classes, axes)
    count, many = points.shape[:2]
    shift = np.asarray(columns.pop("shift", np.zeros(many)), dtype=np.float64)
    table = {
        "x": (points[:, :, 0] + shift).reshape(-1),
        "y": points[:, :, 1].reshape(-1),
        **{name: np.tile(column, count) for name, column in columns.items()},
    }
    moving = count > 1
    if moving:
        table["frame"] = np.repeat(np.arange(count), many)
    last = points[-1] if np.all(np.isfinite(points[-1])) else points[0]
    spread = _separation(last, graph.label[nodes])
    return Picture(
        id="embedding",
        title=f"The embedding: {view.focus_label}",
        spec=fill(template, {"reach": [-reach, reach]}),
        alt=f"{many} nodes in two of {params.n_features} coordinates, at the end. {_said_of_spread(spread)}",
        data={} if moving else {"nodes": table},
        frames={"nodes": table} if moving else {},
        steps=run.trace.frame_step if moving else None,
        note=(_GLYPH_NOTE if graph.places is not None else "Colours are classes. ")
        + "First replicate, turned as a whole to lie on the eigenvectors"
        + ("; the first coordinate is the same for all nodes." if axes[0] > 0 else "."),
    )


def _separation(points: Array, classes: NDArray[np.int64]) -> float:
    """Root mean square distance of class centres from the middle over that of nodes from their centre."""
    centres = np.zeros_like(points)
    for c in np.unique(classes):
        centres[classes == c] = points[classes == c].mean(axis=0)
    within = float(np.sqrt(np.mean((points - centres) ** 2)))
    between = float(np.sqrt(np.mean((centres - points.mean(axis=0)) ** 2)))
    return between / within if within > 1e-9 else np.inf


def _said_of_spread(spread: float) -> str:
    if np.isinf(spread):
        return "In these two, the nodes of one class coincide."
    times = _number(spread) if spread > 1e-3 else "0"
    return f"In these two, the classes differ by {times} times as much as the nodes of one class."


def _axes(run: Run, classes: NDArray[np.int64]) -> tuple[int, int]:
    """The two coordinates to show: the second and third, or of their eigenspaces the two in which classes are apart."""
    frames = run.trace.frames["embedding"]
    if frames.shape[2] < 3:
        return 0, 1
    values = run.trace.finals["eigenvalues"][0]
    like = [j for j in range(1, frames.shape[2]) if min(abs(values[j] - values[i]) for i in (1, 2)) < 1e-9]
    last = frames[-1] if np.all(np.isfinite(frames[-1])) else frames[0]
    centres = np.stack([last[classes == c].mean(axis=0) for c in np.unique(classes)])

    def nearest(pair: tuple[int, int]) -> float:
        apart = np.linalg.norm(centres[:, None, list(pair)] - centres[None, :, list(pair)], axis=2)
        return round(float(np.min(apart[np.triu_indices(len(centres), 1)], initial=np.inf)), 6)

    return max(((i, j) for i in like for j in like if i < j), key=nearest, default=(1, 2))


def _plane_of(layers: Sequence[Any], axes: tuple[int, int]) -> dict[str, Any]:
    """A spec of layers of nodes in two of their coordinates: `reach` is to be filled in."""
    scale = alt.Scale(domain=alt.ExprRef("reach"), nice=False)
    axis = alt.Axis(grid=False, tickCount=5, format="~g")
    x = alt.X("x:Q", title=f"coordinate {axes[0] + 1}", scale=scale, axis=axis)
    y = alt.Y("y:Q", title=f"coordinate {axes[1] + 1}", scale=scale, axis=axis)
    return layered(*(layer.encode(x, y) for layer in layers))


@cache
def _dot_spec(many: int, axes: tuple[int, int]) -> dict[str, Any]:
    names = [f"class {c + 1}" for c in range(many)]
    legend = None
    if many <= 8:
        legend = alt.Legend(title=None, orient="top", columns=4, labelLimit=300, symbolSize=90, symbolFillColor=None)
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
    layer = (
        alt.Chart(alt.NamedData("nodes"))
        .mark_point(filled=False, size=52, strokeWidth=1.7, clip=True)
        .encode(
            color=alt.Color("class:N", sort=names, scale=hues(names), legend=legend),
            shape=alt.Shape(
                "class:N",
                sort=names,
                scale=alt.Scale(domain=names, range=[shapes[c % len(shapes)] for c in range(many)]),
                legend=legend,
            ),
        )
    )
    return _plane_of([layer], axes)


@cache
def _glyph_spec(count: int, glyph_set: str, colours: int, axes: tuple[int, int]) -> dict[str, Any]:
    names = [f"glyph {g + 1}" for g in range(count)]
    paths = [_path(strokes) for strokes in glyphs.strokes(count, glyph_set)]
    inks = [f"colour {c + 1}" for c in range(colours)]
    hue = alt.Color("colour:N", sort=inks, scale=hues(inks), legend=point_legend(inks))
    base = alt.Chart(alt.NamedData("nodes"))
    layers = [
        base.mark_point(filled=True, size=16, opacity=0.5, clip=True)
        .encode(color=hue)
        .transform_filter(alt.datum.upright == "no"),
        base.mark_point(filled=False, size=1100, strokeWidth=2.2, opacity=1, clip=True)
        .encode(color=hue, shape=alt.Shape("glyph:N", scale=alt.Scale(domain=names, range=paths), legend=None))
        .transform_filter(alt.datum.upright == "yes"),
    ]
    return _plane_of(layers, axes)


def _glyph_columns(params: AugmentationGraphParams, places: NDArray[np.int64], reach: float) -> dict[str, Any]:
    """What is drawn of each node, and how far beside its place."""
    upright = places[:, 1] == 0
    return {
        "glyph": np.array([f"glyph {g + 1}" for g in places[:, 0]], dtype=object),
        "colour": np.array([f"colour {c + 1}" for c in places[:, 3]], dtype=object),
        "upright": np.where(upright, "yes", "no").astype(object),
        "shift": np.where(upright, places[:, 3] - (params.colours - 1) / 2.0, 0.0) * 0.09 * reach,
    }


def _path(strokes: Sequence[glyphs.Stroke]) -> str:
    """The strokes as a path of a point's shape, y down."""
    return "".join(f"M{x0:g},{-y0:g}L{x1:g},{-y1:g}" for x0, y0, x1, y1 in strokes)
