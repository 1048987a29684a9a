"""The page of inductive bias: its derivation and its pictures."""

from __future__ import annotations

from math import comb
from typing import Any

import altair as alt
import numpy as np

from app.frame.formula import Formula, Numbers
from app.frame.page import Story
from app.frame.pictures import Picture, hues, joined, layered, overlay, point_legend, shapes
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.inductive_bias.lab import InductiveBiasParams
from sims.inductive_bias.prediction import E_FOLDS, eigenvalues_of_bits, rate_of_separation, spectrum_of
from theory.inductive_bias import TIE, expected_r2, label_energy

WHY = r"""
**The data.** An example is a vector of $d$ random signs. The first $s$ are content, and what we want to know; the rest
is style. A view multiplies all style bits by one random $\tau$, or flips bits. Contrastive learning sees pairs of views
and minimises $$L(f) = -2\,\mathbb{E}\,f(x)^\top f(x^+) + \mathbb{E}\,\big(f(x)^\top f(x')\big)^2 .$$

**1. A class of encoders has a spectrum of its own.** Let $f = \Theta\,\varphi(x)$ with fixed functions $\varphi$, and
let $C = \mathbb{E}\,\varphi\varphi^\top$ over views, $C_+ = \mathbb{E}\,\varphi(x)\varphi(x^+)^\top$ over pairs. With
$T = \Theta^\top\Theta$ the loss is $-2\,\mathrm{tr}\,T C_+ + \mathrm{tr}\,T C T C$. In the metric of $C$ this is the
distance of $T$ from $C_+$, hence the best $k$ features keep the $k$ largest solutions of $$C_+ v = \mu\, C v, \qquad
L_{\min} = -\sum_{i \le k} \mu_i^2 .$$ An eigenvalue of $1$ belongs to a function that views never change. A smaller
class has smaller eigenvalues, one by one.

**2. What is invariant depends on who looks.** Rescaling never changes a sign. A table that sees every sign pattern
separately has the eigenvalue $1$ for each of $2^d$ patterns. A linear map sees $\tau x_i$, so that a style bit has
$$\mu_{\rm style} = \frac{(\mathbb{E}\tau)^2}{\mathbb{E}\tau^2} < 1,$$ $3/4$ for $\tau$ between $0$ and $1$, and only
the $s$ content bits have $1$.

**3. One loss, two outcomes.** With $k \le s$ features both classes reach exactly $-k$. The linear minimiser lies among
content bits, and knows $k/s$ of them. The table may choose any $k$ of the functions of $2^d$ patterns, and a random
choice explains $k/(2^d-1)$ of a label, next to nothing. Gradient descent does not choose better: the operator of the
table is the identity, so that training scales the span it starts with and never turns it.

**4. How long it takes.** Near the minimiser the style columns of the linear map decay as
$e^{-4\,\mathrm{Var}(\tau)\,t}$, with $t$ the sum of the learning rates. The loss is nearly at its minimum long before
that: style of eigenvalue $0.99$ is a nearly perfect substitute for content.

**5. Networks.** A small ReLU network lies in between. Trained to the same loss, its probe is better than that of a
table and worse than that of a linear map, and differs from start to start. That an unrestricted encoder *can* be
useless is a statement of existence; training has a bias too.
"""

_NAMES = {"linear": "linear", "polynomial": "polynomial", "relu": "ReLU features", "table": "table", "mlp": "network"}
SHOWN = 16  # eigenvalues in the picture
MOST_LINES = 400  # values of k along a line


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, InductiveBiasParams)
    name = f"degree {params.degree}" if params.encoder == "polynomial" else _NAMES[params.encoder]
    return f"{name}, {params.n_features} features, {params.training}"


def _sees_sizes(params: InductiveBiasParams) -> bool:
    """Whether a rescaled style bit is told from its sign: by all encoders but the table."""
    return params.augmentation == "rescale" and params.encoder != "table" and params.content < params.dim


def _flips(params: InductiveBiasParams) -> bool:
    return params.augmentation == "flip"


def _forgets(params: InductiveBiasParams) -> bool:
    """A linear encoder of as many features as content bits, trained by plain descent, where style is less invariant."""
    content, style = eigenvalues_of_bits(params)
    plain = params.encoder == "linear" and params.training in ("sgd", "descent")
    return plain and params.n_features == params.content < params.dim and style < content


def _linear_bits(params: InductiveBiasParams) -> bool:
    content, style = eigenvalues_of_bits(params)
    below = params.content == params.dim or style < content - TIE
    return params.encoder == "linear" and params.label == "bits" and below and content > TIE


def _all_patterns(params: InductiveBiasParams) -> bool:
    """A table of sign patterns that views never change."""
    return params.encoder == "table" and params.augmentation == "rescale"


def _clean_polynomials(params: InductiveBiasParams) -> bool:
    """Polynomials of bits of which views never change the content, and always the style."""
    if params.encoder != "polynomial" or params.content == params.dim:
        return params.encoder == "polynomial" and eigenvalues_of_bits(params)[0] == 1.0
    content, style = eigenvalues_of_bits(params)
    return content == 1.0 and style < 1.0 - TIE


def _kept(run: Run) -> Numbers:
    found = spectrum_of(_params(run))
    assert found is not None
    return {"sum": float(np.sum(found.top(_params(run).n_features) ** 2))}


def _time(run: Run) -> Numbers:
    return {"time": _params(run).time}


_VARIANCE = r"\frac{(<scale_high> - <scale_low>)^2}{3}"
_TIME = {"time": "t"}

FORMULAS = (
    Formula(
        says="How invariant a style bit is to an encoder that sees its size; 1 would be never changed. A sign, which a "
        "table sees alone, does not change at all.",
        left=r"\mu_{\mathrm{style}} = \frac{(\mathbb{E}\tau)^2}{\mathbb{E}\tau^2}",
        right=r"\frac{3}{4} <*> \frac{\left(<scale_low> + <scale_high>\right)^2}"
        r"{<scale_low>^2 + <scale_low> <*> <scale_high> + <scale_high>^2}",
        value=lambda n: (
            0.75
            * (n["scale_low"] + n["scale_high"]) ** 2
            / (n["scale_low"] ** 2 + n["scale_low"] * n["scale_high"] + n["scale_high"] ** 2)
        ),
        predicts=lambda run: eigenvalues_of_bits(_params(run))[1],
        when=_sees_sizes,
    ),
    Formula(
        says="How invariant a content bit is. What views flip more often is kept last.",
        left=r"\mu_{\mathrm{content}}",
        right=r"\left(1 - 2 <*> <flip_content>\right)^2",
        value=lambda n: (1.0 - 2.0 * n["flip_content"]) ** 2,
        predicts=lambda run: eigenvalues_of_bits(_params(run))[0],
        when=_flips,
    ),
    Formula(
        says="How invariant a style bit is.",
        left=r"\mu_{\mathrm{style}}",
        right=r"\left(1 - 2 <*> <flip_style>\right)^2",
        value=lambda n: (1.0 - 2.0 * n["flip_style"]) ** 2,
        predicts=lambda run: eigenvalues_of_bits(_params(run))[1],
        when=lambda params: _flips(params) and params.content < params.dim,
    ),
    Formula(
        says="The least loss of the class: the eigenvalues that k features can hold, squared.",
        left=r"L_{\min}",
        right=r"-\sum_{i=1}^{<n_features>} \mu_i^2",
        value=lambda n: -n["sum"],
        predicts="min_loss",
        numbers=_kept,
        when=lambda params: spectrum_of(params) is not None,
    ),
    Formula(
        says="What a probe knows of the content: a linear encoder's minimiser holds content bits, and nothing else.",
        left="R^2",
        right=r"\min\left(1, \frac{<n_features>}{<content>}\right)",
        value=lambda n: min(1.0, n["n_features"] / n["content"]),
        predicts="probe_r2",
        when=_linear_bits,
    ),
    Formula(
        says="What a probe knows of the label: the table may hold any of the functions of all sign patterns.",
        left="R^2",
        right=r"\min\left(1, \frac{<n_features>}{2^{<dim>} - 1}\right)",
        value=lambda n: min(1.0, n["n_features"] / (2.0 ** n["dim"] - 1.0)),
        predicts="probe_r2",
        when=lambda params: _all_patterns(params) and params.intercept,
    ),
    Formula(
        says="How many directions the table can make invariant: a piece for each sign pattern.",
        left=r"\#\{\mu_i = 1\}",
        right=r"2^{<dim>}",
        value=lambda n: 2.0 ** n["dim"],
        predicts="units",
        when=_all_patterns,
    ),
    Formula(
        says="How many directions polynomials can make invariant: the products of content bits up to their degree.",
        left=r"\#\{\mu_i = 1\}",
        right=r"\sum_{j=0}^{<degree>} \binom{<content>}{j}",
        value=lambda n: float(sum(comb(int(n["content"]), j) for j in range(int(n["degree"]) + 1))),
        predicts="units",
        when=_clean_polynomials,
    ),
    Formula(
        says="The rate at which style is forgotten near the minimum, per time of gradient flow.",
        left=r"4\,\mathrm{Var}\,\tau",
        right=_VARIANCE,
        value=lambda n: (n["scale_high"] - n["scale_low"]) ** 2 / 3.0,
        predicts=lambda run: rate_of_separation(_params(run)),
        when=lambda params: _forgets(params) and params.augmentation == "rescale",
    ),
    Formula(
        says="How many times over style could be forgotten until the end of training, t being the sum of the learning "
        f"rates; {E_FOLDS:g} are needed.",
        left=r"4\,\mathrm{Var}(\tau)\,t",
        right=rf"{_VARIANCE} <*> <time>",
        value=lambda n: (n["scale_high"] - n["scale_low"]) ** 2 / 3.0 * n["time"],
        predicts=lambda run: rate_of_separation(_params(run)) * float(run.trace.series["time"][0, -1]),
        numbers=_time,
        symbols=_TIME,
        when=lambda params: _forgets(params) and params.augmentation == "rescale",
    ),
    Formula(
        says="The rate at which style is forgotten near the minimum, per time of gradient flow.",
        left=r"4\,(\mu_{\mathrm{content}} - \mu_{\mathrm{style}})",
        right=r"4 <*> \left(\left(1 - 2 <*> <flip_content>\right)^2 - \left(1 - 2 <*> <flip_style>\right)^2\right)",
        value=lambda n: 4.0 * ((1.0 - 2.0 * n["flip_content"]) ** 2 - (1.0 - 2.0 * n["flip_style"]) ** 2),
        predicts=lambda run: rate_of_separation(_params(run)),
        when=lambda params: _forgets(params) and _flips(params),
    ),
)

STORY = Story(why=WHY, label=label, metric="loss", formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """How long linear training must last until style is forgotten, over scales and steps."""
    assert isinstance(base, InductiveBiasParams)
    if y is None or {x.name, y.name} != {"scale_low", "steps"} or base.encoder != "linear":
        return None
    if base.augmentation != "rescale" or base.training not in ("sgd", "descent"):
        return None
    swept = x if x.name == "scale_low" else y
    low = np.linspace(max(0.0, swept.span[0]), min(swept.span[1], base.scale_high - 1e-3), 80)
    share = 0.5 if base.training == "sgd" else 1.0
    needed = 5.0 / ((base.scale_high - low) ** 2 / 3.0) / (share * base.learning_rate)
    points = (low.tolist(), needed.tolist())
    return [ChalkLine(*(points if swept is x else points[::-1]), "steps to forget style, five times 1/(4 Var τ)")]


SWEEP = SweepStory(
    x="scale_low",
    x_range="0:0.8:9",
    y="steps",
    y_range="100,200,400,800,1600,3200",
    metric="probe_r2",
    base={"replicates": 2},
    notice="The loss is nearly the same everywhere; the probe knows content only above the line, where training has "
    "lasted long enough to forget style.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """What is invariant, what a probe knows of how many features, loss against use, and how training gets there."""
    drawn = [known(view), spectra(view), loss_and_use(view)]
    if _params(view.focus).training != "minimiser":
        drawn.append(training(view))
    return [*drawn, gram(view)]


def _params(run: Run) -> InductiveBiasParams:
    assert isinstance(run.params, InductiveBiasParams)
    return run.params


def _points(names: list[str]) -> dict[str, Any]:
    """Colour, shape and legend of points that stand for runs."""
    told = point_legend(names)
    return {
        "color": alt.Color("run:N", sort=names, scale=hues(names), legend=told),
        "shape": alt.Shape("run:N", sort=names, scale=shapes(names), legend=told),
    }


# -- the spectrum ----------------------------------------------------------------------------------------------------


def spectra(view: View) -> Picture:
    """The largest eigenvalues of each run's class side by side, with ticks of the closed form."""
    names = list(view.runs)
    tables, ticks, said = [], [], []
    for place, (name, run) in enumerate(view.runs.items()):
        values = run.trace.finals["eigenvalues"][0][:SHOWN]
        if not np.all(np.isfinite(values)):
            said.append(f"{name}: no spectrum, for it is no linear class.")
            continue
        at = np.arange(1, len(values) + 1) + 0.6 * ((place + 0.5) / len(names) - 0.5)
        tables.append({"run": name, "at": at, "value": values})
        exact = spectrum_of(_params(run))
        if exact is not None:
            ticks.append({"at": at, "value": exact.top(len(values))})
        units = int(run.trace.finals["units"][0])
        after = f", the next is {values[units]:.3g}" if units < len(values) else ""
        said.append(f"{name}: {units} eigenvalue{'s are' if units != 1 else ' is'} 1{after}.")
    if not tables:
        tables = [{"run": names[0], "at": np.zeros(0), "value": np.zeros(0)}]
    count = max(max(float(np.max(t["at"], initial=1.0)) for t in tables), 2.0)
    x = alt.X(
        "at:Q",
        title="number of the eigenvalue",
        scale=alt.Scale(domain=[0.4, count + 0.6], nice=False),
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
    )
    y = alt.Y("value:Q", title="eigenvalue of the class", scale=alt.Scale(domain=[0, 1.1], nice=False))
    stems = alt.Chart(alt.NamedData("values"))
    layers: list[Any] = [
        stems.mark_rule(strokeWidth=2).encode(x, y, alt.Y2(datum=0), _points(names)["color"]),
        stems.mark_point(filled=True, size=60, opacity=1).encode(x, y, **_points(names)),
    ]
    data: dict[str, Any] = {"values": joined(tables)}
    if ticks:
        tick = alt.Chart(alt.NamedData("theory")).mark_tick(color="$text", size=12, thickness=2.2, orient="horizontal")
        layers.append(tick.encode(x, y))
        data["theory"] = joined(ticks)
    return Picture(
        id="spectra",
        title="What the class can make invariant",
        spec=layered(*layers),
        alt=" ".join(said),
        data=data,
        note="Stems: eigenvalues of each class, from its moments over all views. Ticks: the closed form. An eigenvalue "
        "of 1 is a function that views never change.",
    )


# -- what the probe knows --------------------------------------------------------------------------------------------


def known(view: View) -> Picture:
    """R^2 of the probe against the number of features: the expectation for each class, and the runs."""
    names = list(view.runs)
    most = max(8, *(min(2 * _params(run).n_features, 512) for run in view.runs.values()))
    most = min(most, max(max(run.trace.finals["r2_by_k"].shape[1] for run in view.runs.values()), 8))
    lines, dots, said = [], [], []
    for name, run in view.runs.items():
        p = _params(run)
        exact = spectrum_of(p)
        if exact is not None:
            ks = np.unique(np.rint(np.linspace(1, most, min(most, MOST_LINES))).astype(int))
            energy = label_energy(p.content, p.label)
            values = np.array([expected_r2(exact, energy, int(k), p.intercept) for k in ks])
            lines.append({"run": name, "k": np.concatenate([[0], ks]), "value": np.concatenate([[0.0], values])})
        r2 = np.mean(run.trace.finals["r2_by_k"], axis=0)
        if p.training == "minimiser":
            shown = np.unique(np.rint(np.geomspace(1, len(r2), 24)).astype(int))
            dots.append({"run": name, "k": shown, "value": r2[shown - 1]})
        else:
            end = run.trace.series["probe_r2"][:, -1]
            dots.append({"run": name, "k": np.full(len(end), p.n_features), "value": end})
        theory = run.prediction.prediction["probe_r2"]
        measured = run.metrics["probe_r2"].mean
        found = "unknown, for no replicate ended," if measured is None else f"{measured:.3g}"
        words = f", expected {theory:.3g}" if theory is not None else ""
        said.append(f"{name}: R² is {found} with {p.n_features} features{words}.")
    x = alt.X("k:Q", title="features k", scale=alt.Scale(domain=[0, most + 0.5], nice=False), axis=alt.Axis(grid=False))
    y = alt.Y("value:Q", title="R² of the probe", scale=alt.Scale(domain=[-0.02, 1.05], nice=False))
    layers: list[Any] = []
    data: dict[str, Any] = {"dots": _finite(joined(dots))}
    if lines:
        chalk = alt.Chart(alt.NamedData("theory")).mark_line(
            strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True
        )
        layers.append(chalk.encode(x, y, alt.Detail("run:N")))
        data["theory"] = joined(lines)
    points = alt.Chart(alt.NamedData("dots")).mark_point(filled=True, size=80, opacity=0.9)
    layers.append(points.encode(x, y, **_points(names)))
    return Picture(
        id="known",
        title="What a linear probe knows of the label",
        spec=layered(*layers),
        alt=" ".join(said),
        data=data,
        note="Dashed: expectation over the minimisers of each class. Points: of minimisers the mean over random ones, "
        "of trained encoders each replicate.",
    )


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    kept = np.all([np.isfinite(column) for column in table.values() if column.dtype != object], axis=0)
    return {name: column[kept] for name, column in table.items()}


# -- loss and use ----------------------------------------------------------------------------------------------------


def loss_and_use(view: View) -> Picture:
    """Final loss against accuracy, a point for each replicate."""
    names = list(view.runs)
    wanted = _full_size(view)
    at_hand = [found for one in wanted if (found := view.at_hand(one)) is not None]
    extra = dict(zip(["full size"], at_hand, strict=False))
    shown = {**view.runs, **extra}
    dots = [
        {"run": name, "loss": run.values["loss"] / _params(run).n_features, "accuracy": run.values["probe_accuracy"]}
        for name, run in shown.items()
    ]
    table = _finite(joined(dots))
    names = [*names, *extra]
    low, high = (float(f(table["loss"], initial=-1.0)) for f in (np.min, np.max))
    room = max(0.1 * (high - low), 0.002)
    x = alt.X(
        "loss:Q",
        title="loss for each feature",
        scale=alt.Scale(domain=[low - room, high + room], nice=False),
        axis=alt.Axis(format="~g", tickCount=4, grid=False),
    )
    y = alt.Y("accuracy:Q", title="accuracy of the probe", scale=alt.Scale(domain=[0.45, 1.03], nice=False))
    points = alt.Chart(alt.NamedData("dots")).mark_point(filled=False, size=110, strokeWidth=2.2, clip=True)
    said = [
        f"{name}: losses {np.nanmin(one['loss']):.4f} to {np.nanmax(one['loss']):.4f} for each feature, accuracies "
        f"{np.nanmin(one['accuracy']):.3f} to {np.nanmax(one['accuracy']):.3f}."
        if np.any(np.isfinite(one["loss"]))
        else f"{name}: all 0 of {len(one['loss'])} ended."
        for name, one in zip(shown, dots, strict=True)
    ]
    return Picture(
        id="loss_and_use",
        title="The loss does not rank encoders",
        spec=layered(points.encode(x, y, **_points(names))),
        alt=" ".join(said),
        data={"dots": table},
        needs=wanted,
        note="A point for each replicate. The least possible is minus the mean of the squared eigenvalues kept.",
    )


def _full_size(view: View) -> list[Params]:
    """The network at the size at which the claims are judged, offered beside a smaller one."""
    p = _params(view.focus)
    if p.encoder != "mlp" or p.width >= 256:
        return []
    return [p.replace(dim=10, width=256, batch=256, steps=1500, learning_rate=0.002, n_test=8000, replicates=4)]


# -- training --------------------------------------------------------------------------------------------------------


def training(view: View) -> Picture:
    """What the probe knows while training goes on."""
    return overlay(
        view,
        "probe_r2",
        id="training",
        title="Content is learned while the loss hardly moves",
        note="Dashed: expectation for the minimiser, claimed at the end of training.",
    )


def gram(view: View) -> Picture:
    """U^T U of the run in focus, bit by bit, while it is trained."""
    run = view.focus
    p = _params(run)
    frames = run.trace.frames["gram"]
    count, d = len(frames), p.dim
    rows, columns = (index.reshape(-1) for index in np.meshgrid(np.arange(d), np.arange(d), indexing="ij"))
    names = [f"c{i + 1}" if i < p.content else f"s{i + 1 - p.content}" for i in range(d)]
    finite = frames[np.isfinite(frames)]
    reach = max(float(np.quantile(np.abs(finite), 0.995)) if finite.size else 1.0, 1e-9)
    words = np.array(names, dtype=object)
    table = {
        "row": np.tile(words[rows], count),
        "column": np.tile(words[columns], count),
        "value": np.clip(frames.reshape(-1), -reach, reach),
    }
    hue = alt.Color(
        "value:Q",
        title=None,
        scale=alt.Scale(domain=[-reach, 0, reach], range=["$run2", "$background", "$run1"], interpolate="lab"),
        legend=alt.Legend(orient="right", format="~g", padding=8),
    )
    axis = alt.Axis(labelAngle=0, title=None, grid=False, domain=False, ticks=False)
    x = alt.X("column:N", sort=names, axis=axis, scale=alt.Scale(domain=names, paddingInner=0.06))
    y = alt.Y("row:N", sort=names, axis=axis, scale=alt.Scale(domain=names, paddingInner=0.06))
    moving = count > 1
    if moving:
        table["frame"] = np.repeat(np.arange(count), d * d)
    spec = layered(alt.Chart(alt.NamedData("cells")).mark_rect().encode(x, y, hue))
    end = frames[-1] if np.all(np.isfinite(frames[-1])) else frames[0]
    diagonal = np.diag(end)
    style = f"{np.max(diagonal[p.content :]):.3g}" if p.content < d else "none"
    what = "UᵀU" if p.encoder == "linear" else "What is linear in the bits"
    return Picture(
        id="gram",
        title=f"{what}: {view.focus_label}",
        spec=spec,
        alt=f"{view.focus_label}, at the end: on content bits from {np.min(diagonal[: p.content]):.3g} to "
        f"{np.max(diagonal[: p.content]):.3g}, on style bits at most {style}.",
        data={} if moving else {"cells": table},
        frames={"cells": table} if moving else {},
        steps=run.trace.frame_step if moving else None,
        note="First replicate. Rows and columns are bits, c content and s style: a bit that the features use has a "
        "dark diagonal cell.",
    )
