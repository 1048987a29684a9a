"""The page of linear attention: its derivation and its pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from app.frame.confirmed import Experiment, LaidOver, Points
from app.frame.formula import Formula
from app.frame.page import Story
from app.frame.pictures import HIGH, LOW, PALETTE, Curve, Picture, below, interval_words, layered, legend, overlay, x_of
from app.frame.runs import View
from app.frame.specs import fill
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.linear_attention.lab import Law, LinearAttentionParams

Array = NDArray[np.float64]

WHY = r"""
**The model.** A prompt shows $n$ examples $(x_i, y_i)$ with $y_i = \langle w, x_i\rangle + \varepsilon_i$ and a query
$x$. The task $w \sim N(0, T)$ is new in every prompt, $x_i, x \sim N(0, \Sigma)$, and the noise has variance
$\sigma^2$. Linear attention takes the examples as tokens $v_i = (x_i, y_i)$, the query as $(x, 0)$, and answers
$$\hat y = h \cdot \Big( v_q + \sum_i W_V v_i\, \langle W_K v_i, W_Q v_q\rangle \Big).$$ It is trained on the squared
error of $\hat y$ against the query's own noisy label.

**1. What of the matrices matters.** Write $W_V^\top h = (u, c)$, and let $A$ and $b^\top$ be the first $d$ columns of
$W_K^\top W_Q$. With $g = \sum_i y_i x_i$ and $S = \sum_i x_i x_i^\top$ $$\hat y = \Big\langle x,\; \underbrace{(c
A^\top + b u^\top)}_{Q}\, g + A^\top S u + c\,|y|^2\, b + h_x \Big\rangle .$$ Change the sign of all labels: the first
term follows, the others do not. The target follows too, so the others are uncorrelated with it. They only add to the
loss, $L = L_{\rm odd}(Q) + L_{\rm even}$ with $L_{\rm even} \ge 0$.

**2. The best layer.** $g$ has covariance $n R$, with $R = (n+1)\,\Sigma T \Sigma + v\,\Sigma$ and $v =
\mathrm{tr}(T\Sigma) + \sigma^2$. Hence $$L_{\rm odd} = v - 2n\,\mathrm{tr}(\Sigma Q \Sigma T) + n\,\mathrm{tr}(\Sigma
Q R Q^\top),$$ a convex quadratic. Setting its gradient to zero: $$Q^* = \big[(n+1)\,\Sigma + v\,T^{-1}\big]^{-1}.$$ So
the best layer has $u = b = h_x = 0$ and predicts with the weight vector $Q^* g$. That is one gradient step from zero
on the prompt's own least-squares loss, preconditioned by $Q^*$. With $\Sigma = I$, $T = \tau^2 I$ it is a plain step
$\eta^* = 1/(n + d + 1 + \sigma^2/\tau^2)$.

**3. How good that is.** With $m_i$ the eigenvalues of $T^{1/2}\Sigma T^{1/2}$, $$L^* = \sigma^2 + \sum_i
\frac{m_i\,(m_i + v)}{(n+1)\,m_i + v}.$$ Ridge regression, which inverts $S + \sigma^2 T^{-1}$ for each prompt anew,
does better: one layer applies one and the same matrix to all prompts.

**4. Why the loss waits.** Near zero the pair $(c, A)$ grows at rate $2n\,|\Sigma T\Sigma|_F$, from whatever small
component it starts with, and $(b, u)$ at rate $2n\,|\Sigma T\Sigma|_{\rm op}$ only. For isotropic prompts the first is
$\sqrt d$ times the second; with $c^2 = |A|^2$, which the flow keeps, $Q = qI$ follows a logistic curve: $$q(t) =
\frac{q^*}{1 + (q^*/q_0 - 1)\,e^{-4 n \sqrt d\,\tau^2 t}}.$$ With a spread spectrum the two rates nearly tie. Then the
harmful pair can win, and training ends in a local minimum. The theorem speaks of the global one.

**5. Other questions, other steps.** If the labels come from a random function whose law is invariant under rotations
and under change of sign, only three numbers matter: $a = |\mathbb E f x|^2$, $P = \mathbb E f^2$ and $K = \mathbb E
f^2|x|^2$. The layer takes the plain step $\eta^* = a/(K + (n-1)\,a + \sigma^2 d)$. A cubic Hermite polynomial has $a =
0$ and teaches nothing. Covariates with kurtosis $k$ have $\eta^* = 1/(n + d + k - 2 + \sigma^2/\tau^2)$.

**6. Other lengths.** Attention that sums applies the same $Q$ to a $g$ that grows with the prompt: on $n'$ examples
its loss grows as $n'^2$. Attention that averages has $Q\,n/n'$ instead, and its loss tends to $d\tau^2(1-n\eta^*)^2 +
\sigma^2$ in the isotropic case. Both are worse than a layer retrained at $n'$, and that one worse than ridge.

**7. More layers.** $k$ layers of one matrix each take $k$ steps: $1 - S q(S) = \prod_j (1 - a_j S)$ for plain steps
$a_j$. The loss is a quadratic in the coefficients of $q$, its moments are those of a Wishart matrix, and so each $k$
has a line of its own.

**8. Few prompts.** On $N$ prompts $Q$ is fitted by least squares with $d^2$ unknowns. Where $N = d^2$ the fit just
passes through every noisy label, and it is at its worst.

**Why no prompt is drawn.** $L$ is a polynomial in the blocks, so that its gradient over infinitely many prompts is a
handful of products of $d \times d$ matrices. Where prompts are drawn, their examples are not: given $w$, the label
vector has independent normal entries of variance $v_w$, and $g$ is $\chi^2_n$ times $w$ and normals across. That is $d$
numbers instead of $n d$, exactly in law.
"""

LENGTHS = (5, 10, 40, 80, 160)
_LENGTH_GRID = tuple(int(n) for n in np.unique(np.rint(np.geomspace(2, 400, 33))))
_LENGTH_NAMES = ("sum", "mean", "retrained", "ridge", "ridge, limit")
_RIDGE_GRID = (2, 3, 5, 7, 10, 14, 20, 30, 50, 100, 200, 400)
_LEVELS = 4
_TEACHERS = {
    "linear": "linear",
    "relu": "ReLU",
    "network": "network",
    "sign": "sign",
    "tanh": "tanh",
    "cubic": "cubic",
    "hermite3": "Hermite",
}
_TEACHER_LENGTHS = (5, 20)
_CHALK = {"strokeDash": [7, 4], "color": "$text", "strokeWidth": 2.2}


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, LinearAttentionParams)
    if params.training == "finite_prompts":
        return f"{params.n_prompts} prompts, n = {params.context_length}, d = {params.dim}"
    kind = "" if params.teacher == "linear" else f"{_TEACHERS[params.teacher]}, "
    layers = f"{params.layers} layers, " if params.stacked else ""
    return f"{kind}{layers}n = {params.context_length}, d = {params.dim}"


def pictures(view: View) -> list[Picture]:
    """The loss with its lines, the matrix, what dies out, and what the layer does elsewhere."""
    params = _params(view.focus)
    if params.training == "finite_prompts":
        return [double_descent(view), matrices(view)]
    drawn = [loss(view), matrices(view)]
    if params.prior_mean == 0 and any(_params(run).has_even_blocks for run in view.runs.values()):
        drawn.append(harmful(view))
    if any(_params(run).stacked for run in view.runs.values()):
        drawn.append(layer_steps(view))
    if len(set(params.law.spectrum)) > 1:
        drawn.append(spectrum(view))
    if params.moments_known and params.prior_mean == 0 and not params.stacked:
        drawn.append(lengths(view))
    return [*drawn, steps(view)] if not params.stacked and params.prior_mean == 0 else drawn


def _params(run: Run) -> LinearAttentionParams:
    assert isinstance(run.params, LinearAttentionParams)
    return run.params


# -- training ----------------------------------------------------------------------------------------------------


def loss(view: View) -> Picture:
    """The loss of every run over its chalk line, with the optimum of the layer and the loss of ridge regression."""
    if len({_params(run).teacher for run in view.runs.values()}) > 1:
        return relative_loss(view)
    drawn = overlay(view, "loss", id="loss", title="A plateau, a drop, and a floor", y_title="loss L")
    made = view.focus.prediction.prediction
    best = "these layers at their best" if _params(view.focus).stacked else "one layer at its best"
    named = (("optimal_loss", best), ("bayes_loss", "ridge regression"))
    levels = [(float(value), words) for name, words in named if (value := made[name]) is not None]
    spec = _with_levels(drawn, levels)
    said = " ".join(f"{words[0].upper()}{words[1:]}: {value:.4g}." for value, words in levels)
    return replace(
        drawn,
        spec=spec,
        alt=f"{drawn.alt} {said}",
        # Of a run that diverged at its first step there is no line on a log axis.
        data={**drawn.data, "levels": _levels(levels, float(min(drawn.data["lines"]["x"], default=1.0)))},
        note="Dotted: the least loss of the layer, and that of ridge regression, for the run in focus. Dashed: "
        "gradient flow from the same starts, or where its clock does not apply the least loss, grey until the end.",
    )


def relative_loss(view: View) -> Picture:
    """The loss of several teachers, each against what it costs to answer nothing."""
    from theory.linear_attention import teacher_moments

    runs = {}
    for words, run in view.runs.items():
        params = _params(run)
        nothing = float(np.dot(params.law.spectrum, params.law.task)) + params.noise_var
        if params.teacher != "linear":
            nothing = teacher_moments(params.teacher, params.dim).P2 + params.noise_var
        series = {**run.trace.series, "loss": run.trace.series["loss"] / nothing}
        line = run.prediction.prediction["loss"]
        made = {**run.prediction.prediction, "loss": None if line is None else np.asarray(line) / nothing}
        runs[words] = replace(
            run, trace=replace(run.trace, series=series), prediction=replace(run.prediction, prediction=made)
        )
    drawn = overlay(
        replace(view, runs=runs),
        "loss",
        id="loss",
        title="How linear is the question?",
        y_title="loss, of that of answering 0",
        note="Each loss is divided by the mean square of the labels, and is a mean over the batches since the last "
        "point. Dashed: the least loss of the layer, grey until the end.",
    )
    return drawn


def _levels(levels: Sequence[tuple[float, str]], left: float) -> dict[str, Any]:
    """Horizontal lines and their names, which begin at `left`."""
    return {
        "x": np.full(len(levels), left),
        "level": np.array([value for value, _ in levels]),
        "words": np.array([words for _, words in levels], dtype=object),
        "below": np.array([value < max(inside for inside, _ in levels) for value, _ in levels], dtype=object),
    }


def _with_levels(drawn: Picture, levels: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """The spec of an overlay with horizontal lines, and its vertical range widened to hold them."""
    spec = dict(drawn.spec)
    scale = spec["layer"][0]["encoding"]["y"]["scale"]
    low, high = scale["domain"]
    inside = [value for value, _ in levels] or [low]
    room = 0.06 * (high - low)
    domain = [min(low, min(inside) - room), max(high, max(inside) + room)]
    spec["layer"] = [_rescaled(layer, domain) for layer in spec["layer"]]
    y = {"field": "level", "type": "quantitative", "scale": {**scale, "domain": domain}}
    x = spec["layer"][1]["encoding"]["x"]
    line = {"type": "rule", "color": "$muted", "strokeDash": [1, 3], "strokeWidth": 1.6}
    words = {"type": "text", "align": "left", "dx": 4, "fontSize": 12, "color": "$muted"}
    close = len(levels) > 1 and abs(levels[0][0] - levels[1][0]) < 0.08 * (domain[1] - domain[0])
    lower = "datum.below" if close else "false"
    places = [{**words, "baseline": "bottom", "dy": -2}, {**words, "baseline": "top", "dy": 3}]
    spec["layer"] += [
        {"data": {"name": "levels"}, "mark": line, "encoding": {"y": y}},
        *(
            {
                "data": {"name": "levels"},
                "transform": [{"filter": test}],
                "mark": mark,
                "encoding": {"y": y, "x": x, "text": {"field": "words", "type": "nominal"}},
            }
            for mark, test in zip(places, (f"!({lower})", lower), strict=True)
        ),
    ]
    return spec


def _rescaled(layer: dict[str, Any], domain: list[float]) -> dict[str, Any]:
    """A layer of an overlay on another vertical range."""
    encoding = layer["encoding"]
    y = {**encoding["y"], "scale": {**encoding["y"]["scale"], "domain": domain}}
    return {**layer, "encoding": {**encoding, "y": y}}


def matrices(view: View) -> Picture:
    """The effective matrix as it is trained, beside the optimal one, in one scale of colours."""
    from sims.linear_attention.prediction import optimum

    run = view.focus
    Q = run.trace.frames["preconditioner"]
    count, size = len(Q), Q.shape[1]
    best = optimum(_params(run)).Q
    shown = None if best is None else best[:size, :size]
    ends = Q[-1] if shown is None else shown
    largest = 1.2 * float(np.nanmax(np.abs(ends), initial=0.0)) or 1.0
    tick = float(f"{0.7 * largest:.1g}")
    left, right = _cells(size, 0.0), _cells(size, 1.2 * size)
    cells = {
        "frame": np.repeat(np.arange(count), size * size),
        **{name: np.tile(values, count) for name, values in left.items()},
        "value": Q.reshape(-1),
    }
    frames = {"matrix": _known(cells, "value")}
    data: dict[str, Any] = {
        "names": {"x": [size / 2, 1.7 * size], "y": [-0.12 * size] * 2, "words": ["Q, trained", "Q*, optimal"]}
    }
    if shown is not None:
        data["optimum"] = {**right, "value": shown.reshape(-1)}
    else:
        data["names"] = {name: values[:1] for name, values in data["names"].items()}
    error = run.metrics["preconditioner_error"].mean
    near = "" if error is None else f" The distance between them is {100 * error:.2g} % of the size of Q*."
    off = Q[-1][~np.eye(size, dtype=bool)]
    return Picture(
        id="matrix",
        title=f"The layer's matrix: {view.focus_label}",
        spec=fill(_matrix_spec(size, shown is not None), {"hues": [-largest, 0, largest], "entries": [-tick, 0, tick]}),
        alt=f"At the end the diagonal of Q runs from {np.diag(Q[-1]).max():.3g} to {np.diag(Q[-1]).min():.3g}, and the "
        f"largest entry beside it is {np.abs(off).max(initial=0.0):.2g}.{near}"
        if np.all(np.isfinite(Q[-1]))
        else "The training diverged; of Q nothing is left.",
        data=data,
        frames=frames,
        steps=run.trace.frame_step,
        note="Left: what the layer applies to the sum of label times covariate, first replicate"
        + (f", the leading {size} rows and columns" if _params(run).dim > size else "")
        + (", all layers added" if _params(run).stacked else "")
        + (". Right: the optimum in the same colours, which end a little above it." if shown is not None else "."),
    )


@cache
def _matrix_spec(size: int, optimum: bool) -> dict[str, Any]:
    """The spec of one matrix or two: `hues` and `entries` are to be filled in."""
    x = alt.X("x:Q", title=None, axis=None, scale=alt.Scale(domain=[-0.05 * size, 2.25 * size], nice=False))
    y = alt.Y("y:Q", title=None, axis=None, scale=alt.Scale(domain=[1.05 * size, -0.3 * size], nice=False))
    hues = alt.Scale(
        domain=alt.ExprRef("hues"),
        range=[PALETTE[1], "$background", PALETTE[0]],
        interpolate="rgb",
        clamp=True,
    )
    key = alt.Legend(title="entry", orient="bottom", format="~g", values=alt.ExprRef("entries"), gradientLength=220)
    layers = [
        alt.Chart(alt.NamedData(name))
        .mark_rect(stroke="$grid", strokeWidth=1)
        .encode(x, y, alt.X2("x2:Q"), alt.Y2("y2:Q"), alt.Color("value:Q", scale=hues, legend=key))
        for name in ("matrix", *(("optimum",) if optimum else ()))
    ]
    names = alt.Chart(alt.NamedData("names")).mark_text(fontSize=13, color="$text").encode(x, y, alt.Text("words:N"))
    return {**layered(*layers, names), "view": {"stroke": None}}


def _known(table: dict[str, Array], name: str) -> dict[str, Array]:
    """The rows of a table at which that column is a number: where training has diverged nothing is drawn."""
    kept = np.isfinite(table[name])
    return {column: values[kept] for column, values in table.items()}


def _cells(size: int, offset: float) -> dict[str, Array]:
    """Corners of the cells of a matrix, row by row, drawn from the top."""
    row, column = np.divmod(np.arange(size * size), size)
    return {"x": offset + column, "x2": offset + column + 1.0, "y": 1.0 * row, "y2": row + 1.0}


def harmful(view: View) -> Picture:
    """The blocks that can only harm, and what they cost, on a log axis."""
    name, run = next((words, run) for words, run in view.runs.items() if _params(run).has_even_blocks)
    names = {"u_norm": "|u|", "b_norm": "|b|", "even_loss": "even part of the loss"}
    curves = [
        Curve(words, run, series, None, hue)
        for hue, (series, words) in enumerate(names.items())
        if np.any(run.trace.series[series] > 0)
    ]
    drawn = overlay(
        view,
        curves or [Curve("|u|", run, "u_norm", None)],
        id="harmful",
        title=f"What can only harm: {name}",
        y_title="size",
        note="The blocks u and b of the layer, and the part of the loss that does not change with the sign of the "
        "labels: on the way to the optimum they rise a little, and die.",
    )
    ends = {words: run.metrics["even_loss"].mean for words, run in view.runs.items()}
    said = " ".join(
        f"{words}: the even part of the loss ends at {value:.2g}."
        if value is not None
        else f"{words}: the even part of the loss is not known."
        for words, value in ends.items()
    )
    return replace(drawn, alt=f"{said} {drawn.alt}")


def layer_steps(view: View) -> Picture:
    """The steps of stacked layers, sorted, against those that theory gives."""
    from theory.linear_attention import stacked_layers

    table: dict[str, list[Any]] = {name: [] for name in ("rank", "step", "run")}
    chalk: dict[str, list[Any]] = {name: [] for name in ("rank", "step", "run")}
    sentences = []
    for words, run in view.runs.items():
        params = _params(run)
        found = run.trace.finals["layer_steps"]
        for values in found:
            table["rank"] += [float(rank) for rank in range(1, len(values) + 1)]
            table["step"] += values.tolist()
            table["run"] += [words] * len(values)
        law = params.law
        if params.population or (params.stacked and len(set(law.spectrum)) == len(set(law.task)) == 1):
            expected = stacked_layers(params.layers if params.stacked else 1, law.n, params.dim, law.noise_var).steps
            chalk["rank"] += [float(rank) for rank in range(1, len(expected) + 1)]
            chalk["step"] += expected.tolist()
            chalk["run"] += [words] * len(expected)
            pairs = ", ".join(f"{a:.3g} ({b:.3g})" for a, b in zip(np.mean(found, axis=0), expected, strict=True))
            sentences.append(f"{words}: {pairs}.")
    names = list(view.runs)
    most = max(table["step"])
    return Picture(
        id="layer_steps",
        title="One step for each layer",
        spec=fill(
            _layer_step_spec(len(names)),
            {
                "x": [0.7, max(table["rank"]) + 0.3],
                "ranks": sorted(set(table["rank"])),
                "y": [0, 1.15 * most],
                "names": names,
            },
        ),
        alt="Steps found, and in brackets predicted, from the smallest to the largest. " + " ".join(sentences),
        data={"steps": _columns(table), "theory": _columns(chalk)},
        note="Mean diagonals of the layers' matrices, sorted. Dashed: the steps of the best polynomial.",
    )


@cache
def _layer_step_spec(count: int) -> dict[str, Any]:
    """The spec of the layers' steps in so many runs: `x`, `ranks`, `y` and `names` are to be filled in."""
    x = alt.X(
        "rank:Q",
        title="layer, from the smallest step to the largest",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(values=alt.ExprRef("ranks"), format="d", grid=False),
    )
    y = alt.Y("step:Q", title="step of the layer", scale=alt.Scale(domain=alt.ExprRef("y"), nice=False))
    hue = alt.Color(
        "run:N",
        scale=alt.Scale(domain=alt.ExprRef("names"), range=list(PALETTE[:count])),
        legend=alt.Legend(title=None, orient="top", columns=2),
    )
    layers = [
        alt.Chart(alt.NamedData("theory")).mark_line(**_CHALK).encode(x, y, alt.Detail("run:N")),
        alt.Chart(alt.NamedData("steps")).mark_point(filled=True, size=110, opacity=1).encode(x, y, hue),
    ]
    return layered(*layers)


def _columns(table: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: np.array(values, dtype=object if name in _TEXTS else float) for name, values in table.items()}


_TEXTS = ("run", "kind", "words", "teacher", "group")


def double_descent(view: View) -> Picture:
    """The loss of least squares against the number of prompts, on log axes: the peak at d^2."""
    table: dict[str, list[Any]] = {name: [] for name in ("n", "median", "low", "high", "run")}
    sentences, peaks = [], []
    for words, run in view.runs.items():
        sizes, values = run.trace.step, run.trace.series["loss"]
        low, median, high = (np.quantile(values, q, axis=0) for q in (LOW, 0.5, HIGH))
        kept = sizes > 0
        for name, column in (("n", sizes), ("median", median), ("low", low), ("high", high)):
            table[name] += column[kept].tolist()
        table["run"] += [words] * int(kept.sum())
        worst = int(np.argmax(np.where(kept, median, 0)))
        peaks.append(float(_params(run).dim ** 2))
        sentences.append(
            f"{words}: the median loss is highest, {median[worst]:.3g}, at {sizes[worst]} prompts, and ends at "
            f"{median[-1]:.4g} with {sizes[-1]}."
        )
    best = view.focus.prediction.prediction["optimal_loss"]
    assert isinstance(best, float)
    names = list(view.runs)
    top = 1.3 * max(table["high"])
    return Picture(
        id="double_descent",
        title="As many prompts as unknowns",
        spec=fill(
            _double_descent_spec(tuple(names)), {"x": [1, max(table["n"])], "y": [best / 1.5, top], "names": names}
        )
        | {"title": below(interval_words(list(view.runs.values())))},
        alt=" ".join(sentences) + f" The least loss of the layer is {best:.4g}.",
        data={
            "sets": _columns(table),
            "optimum": {"median": [best]},
            "peaks": {"n": sorted(set(peaks)), "words": [f"d² = {value:g}" for value in sorted(set(peaks))]},
        },
        note="Least squares on prompts that are added one by one. "
        "Dashed: what infinitely many prompts teach. Dotted: as many prompts as the matrix has entries.",
    )


@cache
def _double_descent_spec(names: tuple[str, ...]) -> dict[str, Any]:
    """The spec of the loss over numbers of prompts: `x`, `y` and `names` are to be filled in."""
    x = alt.X(
        "n:Q",
        title="prompts in the training set",
        scale=alt.Scale(type="log", domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(values=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000], format="~s", grid=False),
    )
    scale = alt.Scale(type="log", domain=alt.ExprRef("y"), nice=False)
    y = alt.Y(
        "median:Q",
        title="loss L",
        scale=scale,
        axis=alt.Axis(values=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000], format="~g"),
    )
    hue = alt.Color(
        "run:N",
        scale=alt.Scale(domain=alt.ExprRef("names"), range=list(PALETTE[: len(names)])),
        legend=legend(names),
    )
    sets = alt.Chart(alt.NamedData("sets"))
    peak = alt.Chart(alt.NamedData("peaks"))
    layers = [
        sets.mark_area(opacity=0.18).encode(x, alt.Y("low:Q", scale=scale, title="loss L"), alt.Y2("high:Q"), hue),
        sets.mark_line(strokeWidth=2.2).encode(x, y, hue),
        alt.Chart(alt.NamedData("optimum")).mark_rule(**_CHALK).encode(alt.Y("median:Q", scale=scale)),
        peak.mark_rule(strokeDash=[1, 3], strokeWidth=1.6, color="$muted").encode(x),
        peak.mark_text(align="left", dx=5, baseline="top", fontSize=12, color="$muted").encode(
            x, alt.Text("words:N"), y=alt.YValue(4)
        ),
    ]
    return layered(*layers)


# -- elsewhere ---------------------------------------------------------------------------------------------------


def spectrum(view: View) -> Picture:
    """The diagonal of Q against the variances of the covariates, over training."""
    from sims.linear_attention.prediction import optimum

    run, params = view.focus, _params(view.focus)
    count = len(run.trace.frame_step)
    at = np.searchsorted(run.trace.step, run.trace.frame_step)
    diagonal = run.trace.finals["diagonal"][0][at]
    shown = diagonal.shape[1]
    lam = np.array(params.law.spectrum[:shown])
    floor = 1e-3 * np.nanmax(np.abs(diagonal))
    points = {
        "frame": np.repeat(np.arange(count), shown),
        "lam": np.tile(lam, count),
        "q": np.maximum(diagonal, floor).reshape(-1),
    }
    frames = {"trained": _known(points, "q")}
    best = optimum(params).Q
    order = np.argsort(lam)
    chalk = {"lam": lam[order], "q": lam[order] * 0 + floor if best is None else np.diag(best)[:shown][order]}
    inverse = {"lam": lam[order], "q": chalk["q"][-1] * lam[order][-1] / lam[order]}
    top = 1.6 * max(float(np.nanmax(diagonal)), float(chalk["q"].max()))
    said = ", ".join(
        f"{a:g}: {f'{q:.3g}' if np.isfinite(q) else 'lost, the training diverged'}"
        for a, q in zip(lam, diagonal[-1], strict=True)
    )
    return Picture(
        id="spectrum",
        title=f"Small variances get large steps: {view.focus_label}",
        spec=fill(
            _spectrum_spec(),
            {
                "x": [lam.min() / 1.4, lam.max() * 1.4],
                "x_ticks": _ticks(lam.min() / 1.4, lam.max() * 1.4),
                "y": [floor, top],
                "y_ticks": _ticks(floor, top),
            },
        ),
        alt=f"Diagonal of Q at the end, by variance of the covariate: {said}.",
        data={"chalk": chalk, "inverse": inverse},
        frames=frames,
        steps=run.trace.frame_step,
        note="First replicate. Dashed: the optimum, the damped inverse of the variances. Dotted: the inverse itself, "
        "through the largest variance.",
    )


@cache
def _spectrum_spec() -> dict[str, Any]:
    """The spec of the diagonal: `x`, `y` and their ticks are to be filled in."""
    x = alt.X(
        "lam:Q",
        title="variance of the covariate",
        scale=alt.Scale(type="log", domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(values=alt.ExprRef("x_ticks"), format="~g", grid=False),
    )
    y = alt.Y(
        "q:Q",
        title="entry on the diagonal of Q",
        scale=alt.Scale(type="log", domain=alt.ExprRef("y"), nice=False),
        axis=alt.Axis(values=alt.ExprRef("y_ticks"), format="~g"),
    )
    layers = [
        alt.Chart(alt.NamedData("inverse"))
        .mark_line(strokeDash=[1, 3], color="$muted", strokeWidth=1.6, clip=True)
        .encode(x, y),
        alt.Chart(alt.NamedData("chalk")).mark_line(**_CHALK).encode(x, y),
        alt.Chart(alt.NamedData("trained")).mark_point(filled=True, size=100, opacity=1, color=PALETTE[0]).encode(x, y),
    ]
    return layered(*layers)


def _ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 of every decade of a log axis, or at its powers of ten where these are many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1, 2, 5) if high < 1e3 * low else (1,)
    values = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return [value for value in values if low <= value <= high]


def lengths(view: View) -> Picture:
    """Loss against the length of the prompt: trained once, retrained at each length, and ridge regression."""
    focus = _params(view.focus)
    law = focus.law
    once = {
        words: [_shifted(law, n, attention) for n in _LENGTH_GRID]
        for words, attention in (("sum", "sum"), ("mean", "mean"))
    }
    again = [_shifted(law._replace(n=n), n, "sum") for n in _LENGTH_GRID]
    ridge = [_ridge(law._replace(n=n)) for n in _RIDGE_GRID]
    equivalent = [_equivalent(law._replace(n=n)) for n in _LENGTH_GRID]
    names = _LENGTH_NAMES
    rows: list[tuple[float, float, str]] = []
    for words, values in (*once.items(), (names[2], again), (names[4], equivalent)):
        rows += [(float(n), value, words) for n, value in zip(_LENGTH_GRID, values, strict=True)]
    rows += [(float(n), mean, names[3]) for n, (mean, _) in zip(_RIDGE_GRID, ridge, strict=True)]
    rows = [row for row in rows if row[1] > 0]
    band = [(float(n), m - 2 * e, m + 2 * e) for n, (m, e) in zip(_RIDGE_GRID, ridge, strict=True) if m - 2 * e > 0]
    wanted = length_runs(focus)
    runs = [run for params in wanted if (run := view.at_hand(params)) is not None]
    runs += [run for run in view.runs.values() if _same_but_length(focus, _params(run))]
    measured = [_measured(run) for run in runs]
    measured = [one for one in measured if one is not None]
    least = min(value for _, value, _ in rows)
    top = 40.0 * law.noise_var + 12.0 * max(again)
    bottom = max(least / 1.3, 1e-4 * top)
    at = _LENGTH_GRID[-1]
    ends = "; ".join(f"{words} {values[-1]:.3g}" for words, values in (*once.items(), ("retrained there", again)))
    dots = " ".join(f"Measured with {kind} at {n:g}: {value:.3g}." for n, value, kind in measured)
    return Picture(
        id="lengths",
        title="Longer prompts than trained",
        spec=fill(_length_spec(), {"y": [bottom, top], "y_ticks": _ticks(bottom, top)}),
        alt=f"Loss with {at} examples, trained with {law.n}: {ends}; ridge regression {ridge[-1][0]:.3g}. {dots}",
        data={
            "curves": _columns({name: [row[i] for row in rows] for i, name in enumerate(("n", "loss", "kind"))}),
            "band": {name: [row[i] for row in band] for i, name in enumerate(("n", "low", "high"))},
            "measured": _columns({name: [one[i] for one in measured] for i, name in enumerate(("n", "loss", "kind"))}),
            "trained": {"n": [float(law.n)], "words": [f"trained on {law.n}"]},
        },
        needs=wanted,
        note="Dashed: the layer trained once, whether it sums or averages, and retrained at each length; closed forms. "
        "Solid: ridge regression by draws, within two standard errors; dotted its limit of large sizes. Points: layers "
        "of this page, tested on fresh prompts.",
    )


@cache
def _length_spec() -> dict[str, Any]:
    """The spec of the losses at other lengths: `y` and `y_ticks` are to be filled in."""
    names = list(_LENGTH_NAMES)
    hues = [PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3], "$muted"]
    dashes = [[7, 4], [7, 4], [7, 4], [1, 0], [1, 3]]
    x = alt.X(
        "n:Q",
        title="examples in the prompt",
        scale=alt.Scale(type="log", domain=[_LENGTH_GRID[0], _LENGTH_GRID[-1]], nice=False),
        axis=alt.Axis(values=[2, 5, 10, 20, 50, 100, 200, 400], format="~g", grid=False),
    )
    scale = alt.Scale(type="log", domain=alt.ExprRef("y"), nice=False)
    y = alt.Y("loss:Q", title="loss L", scale=scale, axis=alt.Axis(values=alt.ExprRef("y_ticks"), format="~g"))
    key = alt.Legend(title=None, orient="top", columns=2, labelLimit=240, symbolType="stroke", symbolSize=500)
    hue = alt.Color("kind:N", sort=names, scale=alt.Scale(domain=names, range=hues), legend=key)
    dash = alt.StrokeDash("kind:N", sort=names, scale=alt.Scale(domain=names, range=dashes), legend=key)
    here = alt.Chart(alt.NamedData("trained"))
    layers = [
        alt.Chart(alt.NamedData("band"))
        .mark_area(opacity=0.25, color=PALETTE[3])
        .encode(x, alt.Y("low:Q", scale=scale, title="loss L"), alt.Y2("high:Q")),
        alt.Chart(alt.NamedData("curves")).mark_line(strokeWidth=2.2, clip=True).encode(x, y, hue, dash),
        alt.Chart(alt.NamedData("measured")).mark_point(filled=True, size=80, opacity=1, clip=True).encode(x, y, hue),
        here.mark_rule(strokeDash=[1, 3], color="$muted", strokeWidth=1.6).encode(x),
        here.mark_text(align="left", dx=5, baseline="bottom", fontSize=12, color="$muted").encode(
            x, alt.Text("words:N"), y=alt.YValue(alt.expr("height - 4"))
        ),
    ]
    return layered(*layers)


def length_runs(focus: LinearAttentionParams) -> list[Params]:
    """The focus's layer, with sum and with mean, tested at other lengths; none where training takes long."""
    if focus.training != "exact_gradient" or focus.model == "literal":
        return []
    law = focus.law
    spectrum = law.spectrum[:1] if len(set(law.spectrum)) == 1 else law.spectrum
    found: list[Params] = []
    for attention in ("sum", "mean"):
        # Averaging slows all steps down by n, which the rate makes up for.
        rate = focus.learning_rate
        if attention != focus.attention:
            rate = rate * law.n if attention == "mean" else rate / law.n
        for n in LENGTHS:
            changes = {"test_prompts": "shifted", "test_context_length": n, "test_spectrum": spectrum}
            changes |= {"test_noise_var": law.noise_var, "attention": attention, "learning_rate": min(rate, 10.0)}
            found.append(focus.replace(**changes, replicates=1))
    return found


def _same_but_length(focus: LinearAttentionParams, other: LinearAttentionParams) -> bool:
    """Whether a run on the page belongs among those of `lengths`."""
    law = other.test_law
    return (
        other.population
        and other.training != "finite_prompts"
        and other.law == focus.law
        and law._replace(n=focus.law.n) == focus.law
    )


def _measured(run: Run) -> tuple[float, float, str] | None:
    value = run.metrics["test_loss"].mean
    params = _params(run)
    return None if value is None else (float(params.test_law.n), value, params.attention)


@lru_cache(maxsize=4096)
def _shifted(trained: Law, n: int, attention: str) -> float:
    from sims.linear_attention.prediction import prompts_of
    from theory.linear_attention import shifted_loss

    return shifted_loss(prompts_of(trained), prompts_of(trained._replace(n=n)), attention)  # type: ignore[arg-type]


def _ridge(law: Law) -> tuple[float, float]:
    from sims.linear_attention.prediction import bayes

    mean, error, _ = bayes(law)
    return mean, error


@lru_cache(maxsize=4096)
def _equivalent(law: Law) -> float:
    from theory.ridge import bayes_equivalent

    return bayes_equivalent(np.array(law.spectrum) * np.array(law.task), law.n, law.noise_var)


# -- teachers ----------------------------------------------------------------------------------------------------


def steps(view: View) -> Picture:
    """Steps learned against steps predicted, for every teacher and several lengths: a line at 45 degrees."""
    wanted = teacher_runs()
    runs = [run for params in wanted if (run := view.at_hand(params)) is not None]
    runs += [run for run in view.runs.values() if _params(run).teacher != "linear" or not _params(run).moments_known]
    runs += [view.focus] if view.focus not in runs else []
    table: dict[str, list[Any]] = {name: [] for name in ("predicted", "learned", "low", "high", "teacher", "n")}
    for run in runs:
        predicted, metric = run.prediction.prediction.get("optimal_step_size"), run.metrics["step_size"]
        if not isinstance(predicted, float) or metric.mean is None:
            continue
        spread = 2.0 * (metric.se or 0.0)
        params = _params(run)
        name = _TEACHERS[params.teacher]
        if params.teacher == "linear" and params.covariates != "gaussian":
            name = "linear, other covariates"
        row = (predicted, metric.mean, metric.mean - spread, metric.mean + spread, name, float(params.context_length))
        for column, value in zip(table, row, strict=True):
            table[column].append(value)
    names = [*_TEACHERS.values(), "linear, other covariates"]
    present = [name for name in names if name in table["teacher"]]
    reach = 1.15 * max([*table["predicted"], *table["high"], 0.01])
    columns = zip(table["teacher"], table["n"], table["learned"], table["predicted"], strict=True)
    said = "; ".join(f"{name}, n = {n:g}: {learned:.3g} ({predicted:.3g})" for name, n, learned, predicted in columns)
    return Picture(
        id="steps",
        title="Whatever the question, one step",
        spec=fill(_step_spec(tuple(names), tuple(present)), {"reach": [-0.06 * reach, reach]}),
        alt=f"Steps learned, and in brackets predicted. {said or 'The theory gives none for this run; 0 are drawn.'}",
        data={"learned": _columns(table), "diagonal": {"predicted": [0.0, reach], "learned": [0.0, reach]}},
        needs=wanted,
        note="A point for each teacher and length of prompt, trained on fresh prompts; the bar is two standard errors "
        "either way. Dashed: learned as predicted.",
    )


@cache
def _step_spec(names: tuple[str, ...], present: tuple[str, ...]) -> dict[str, Any]:
    """The spec of learned against predicted steps: `reach` is to be filled in."""
    scale = alt.Scale(domain=alt.ExprRef("reach"), nice=False)
    x = alt.X("predicted:Q", title="step predicted", scale=scale, axis=alt.Axis(format="~g", tickCount=6, grid=False))
    y = alt.Y("learned:Q", title="step learned", scale=scale, axis=alt.Axis(format="~g", tickCount=6))
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke"]
    hues = alt.Scale(domain=list(names), range=[*PALETTE, "$text"])
    marks = alt.Scale(domain=list(names), range=shapes)
    key = alt.Legend(title=None, orient="top", columns=4, labelLimit=220, values=list(present), symbolSize=90)
    points = alt.Chart(alt.NamedData("learned"))
    layers = [
        alt.Chart(alt.NamedData("diagonal")).mark_line(**_CHALK).encode(x, y),
        points.mark_rule(strokeWidth=1.4, color="$muted").encode(x, alt.Y("low:Q", scale=scale), alt.Y2("high:Q")),
        points.mark_point(filled=False, size=90, strokeWidth=2.2).encode(
            x,
            y,
            alt.Color("teacher:N", sort=list(names), scale=hues, legend=key),
            alt.Shape("teacher:N", sort=list(names), scale=marks, legend=key),
        ),
    ]
    return layered(*layers)


def teacher_runs() -> list[Params]:
    """Short training runs of every teacher, at several lengths."""
    common = {"training": "adam", "model": "reduced", "learning_rate": 0.02, "init_scale": 0.05, "noise_var": 0.1}
    return [
        LinearAttentionParams.make(
            **common, teacher=teacher, context_length=n, batch=128, steps=400, replicates=2, n_test=1000
        )
        for teacher in _TEACHERS
        for n in _TEACHER_LENGTHS
    ]


# -- formulas ----------------------------------------------------------------------------------------------------


def _is_solved(params: LinearAttentionParams) -> bool:
    """Whether the optimum is that of one layer, linear labels and tasks without a mean."""
    return params.teacher == "linear" and params.prior_mean == 0 and not params.stacked


def _is_plain(params: LinearAttentionParams) -> bool:
    """Whether all variances are 1, so that one step size is all there is."""
    return _is_solved(params) and set(params.law.spectrum) == {1.0} and len(set(params.law.task)) == 1


def _kurtosis(run: Run) -> dict[str, float]:
    from theory.linear_attention import kurtosis_of

    params = _params(run)
    return {"k4": kurtosis_of(params.covariates, params.degrees_of_freedom)}


def _moments(run: Run) -> dict[str, float]:
    from theory.linear_attention import teacher_moments

    moments = teacher_moments(_params(run).teacher, _params(run).dim)
    return {"a": moments.A1, "K": moments.K}


def _signals(run: Run) -> dict[str, float]:
    """The largest and the smallest product of variances, and what the sum over all of them comes to."""
    law = _params(run).law
    m, n = np.array(law.spectrum) * np.array(law.task), law.n
    v = float(np.sum(m)) + law.noise_var
    return {"v": v, "sum": float(np.sum(m * (m + v) / ((n + 1) * m + v)))}


FORMULAS = (
    Formula(
        says="The best layer is one step of gradient descent, of this size.",
        left=r"\eta^*",
        right=r"\frac{1}{<context_length> + <dim> + 1 + <noise_var>/<task_var>}",
        value=lambda n: 1.0 / (n["context_length"] + n["dim"] + 1.0 + n["noise_var"] / n["task_var"]),
        predicts="optimal_step_size",
        when=lambda params: _is_plain(params) and params.covariates == "gaussian",
    ),
    Formula(
        says="The best step, with covariates of another kurtosis k.",
        left=r"\eta^*",
        right=r"\frac{1}{<context_length> + <dim> + <k4> - 2 + <noise_var>/<task_var>}",
        value=lambda n: 1.0 / (n["context_length"] + n["dim"] + n["k4"] - 2.0 + n["noise_var"] / n["task_var"]),
        predicts="optimal_step_size",
        numbers=_kurtosis,
        symbols={"k4": "k"},
        when=lambda params: _is_plain(params) and params.covariates != "gaussian",
    ),
    Formula(
        says="Of the question that the labels answer only two numbers matter for the step.",
        left=r"\eta^*",
        right=r"\frac{<a>}{<K> + (<context_length> - 1) <*> <a> + <noise_var> <*> <dim>}",
        value=lambda n: n["a"] / (n["K"] + (n["context_length"] - 1.0) * n["a"] + n["noise_var"] * n["dim"]),
        predicts="optimal_step_size",
        numbers=_moments,
        symbols={"a": "a", "K": "K"},
        when=lambda params: params.teacher != "linear" and not params.stacked and params.covariates == "gaussian",
    ),
    Formula(
        says="The least loss of one layer: noise, and what it cannot know of each direction, of variance m.",
        left="L^*",
        right=r"<noise_var> + \sum_{i=1}^{<dim>} \frac{m_i (m_i + v)}{(<context_length> + 1) m_i + v}",
        value=lambda n: n["noise_var"] + n["sum"],
        predicts="optimal_loss",
        numbers=_signals,
        when=lambda params: _is_solved(params) and params.covariates == "gaussian",
    ),
)

STORY = Story(why=WHY, label=label, metric="loss", x="log_step", formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """Where the least loss that one layer can reach has the same value, over lengths of prompt and label noise."""
    if y is None or {x.name, y.name} != {"context_length", "noise_var"}:
        return None
    lengths, noises = (x, y) if x.name == "context_length" else (y, x)
    low, high = lengths.span
    grid = np.unique(np.round(np.geomspace(max(1.0, low), high, 20))).astype(int)
    variances = np.linspace(max(0.0, noises.span[0]), noises.span[1], 10)
    losses = np.array([[_least_loss(base, int(n), float(v)) for v in variances] for n in grid])
    lines = []
    for level in np.geomspace(losses.min(), losses.max(), _LEVELS + 2)[1:-1]:
        inside = (losses[:, 0] <= level) & (level <= losses[:, -1])
        if np.sum(inside) > 1:
            at = [float(np.interp(level, row, variances)) for row in losses[inside]]
            points = (grid[inside].astype(float).tolist(), at)
            words = "least loss of one layer, at the values written"
            lines.append(ChalkLine(*(points if lengths is x else points[::-1]), words, mark=f"{level:.2g}"))
    return lines


def _least_loss(base: Params, length: int, noise: float) -> float:
    from sims.linear_attention.prediction import optimum

    changed = base.replace(context_length=length, noise_var=noise)
    assert isinstance(changed, LinearAttentionParams)
    found = optimum(changed).loss
    return math.nan if found is None else float(found)


def literal_points(view: View, experiment: Experiment) -> Points | None:
    """The final loss of the literal layer over its own optimum, drawn late, over the optimum of the run in focus."""
    best = view.focus.prediction.prediction["optimal_loss"]
    if not isinstance(best, float) or len({_params(run).teacher for run in view.runs.values()}) > 1:
        return None
    settings = experiment["settings"]
    (measured,) = [one["measured"] for one in experiment["verdicts"] if one["id"] == "lands"]
    late = 0.7 * float(x_of(view, view.focus)[-1])  # where the whole mark has room
    words = (
        f"the literal layer in {settings['dim']} dimensions after {settings['steps']:,} steps of Adam, "
        f"{measured:.4g} times the least loss, shown as that of the least loss here"
    )
    return Points([late], [measured * best], words)


CONFIRMED = (LaidOver("literal_layer", "loss", literal_points),)

SWEEP = SweepStory(
    x="context_length",
    x_range="4,6,9,14,20,30,45,64",
    y="noise_var",
    y_range="0:2:6",
    metric="loss",
    base={"n_test": 1000, "replicates": 2},
    notice="Training ends on the least loss that the theorem promises, whatever the length and the noise: a cell has "
    "the value of the lines around it.",
    boundary=boundary,
)
