"""The page of grokking on XOR clusters: its derivation, its pictures, and a race against brute force."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import altair as alt
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.frame.confirmed import Experiment, LaidOver, Points
from app.frame.formula import Formula
from app.frame.page import Story
from app.frame.pictures import CLAIMED, PALETTE, UNCLAIMED, Curve, Picture, layered, overlay, several
from app.frame.runs import View
from app.frame.specs import fill
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.xor_grokking.lab import CLUSTERS, MAP_EXTENT, MAP_POINTS, XorGrokkingParams, map_grid, recorded_steps

Array = NDArray[np.float64]

WHY = r"""
**The model.** Four Gaussian clouds in $\mathbb{R}^p$ sit at $\pm\mu_1$ (label $+1$) and $\pm\mu_2$ (label $-1$),
$\mu_1 \perp \mu_2$, both of norm $\mu$: an XOR. A share $\eta$ of the $n$ training labels $y_i$ is flipped. The
network $f(x) = \sum_{j=1}^m a_j\,\mathrm{relu}\langle w_j, x\rangle$ has fixed $a_j = \pm 1/\sqrt m$; full-batch
gradient descent on the mean logistic loss moves only the $w_j$: $$w_j \leftarrow w_j + \frac{\alpha}{n}\, a_j
\sum_i g_i\, y_i\, \mathbf{1}[\langle w_j, x_i\rangle > 0]\, x_i, \qquad g_i = \frac{1}{1 + e^{y_i f(x_i)}}.$$ The
strength of the signal is $\mu^2/\sqrt p$.

**1. The first step is linear.** From a tiny start every $g_i = \frac12$, and a neuron fires on a given point with
probability $\frac12$, whatever the point. After the step its product with a new point $x$ is $a_j u_j\sqrt m$, where
$u_j = \frac{\alpha}{2n\sqrt m}\sum_i y_i \mathbf{1}_{ji}\langle x_i, x\rangle$. Neurons of positive output
contribute $\mathrm{relu}(u_j)/\sqrt m$, those of negative output $-\mathrm{relu}(-u_j)/\sqrt m$, and there are equally
many of both on average. Since $\mathrm{relu}(u) - \mathrm{relu}(-u) = u$, the kink cancels: $$\mathbb{E} f(x) =
\frac{\sqrt m}{2}\,\mathbb{E}\,u_j = \frac{\alpha}{8n} \sum_i y_i \langle x_i, x\rangle .$$ This is exact for every
$n$, $p$, $m$. The network has learned the linear classifier $v = \sum_i y_i x_i$, up to fluctuations that shrink with
the number of neurons.

**2. It fits every label.** At a training point the sum has one large term, its own, $y_k\|x_k\|^2 \approx y_k p$. The
others add up to noise of size $\sqrt{np}$ and a little more. So long as $p \gg n$ the own term wins, for true labels
and flipped ones alike: each point remembers its label along a direction of its own.

**3. It understands nothing.** A linear classifier's output on the cloud at $s\mu_c$ is Gaussian, and with $b_c =
\langle v, \mu_c\rangle/\|v\|$ the four accuracies are $\Phi(b_1), \Phi(-b_1), \Phi(-b_2), \Phi(b_2)$. What is won on
one cloud is lost on its mirror image: the mean is exactly one half. This is the diamond at step one.

**4. The clock of the small steps.** While all outputs are small, $g_i = \frac12$ and $w_j$ holds each point a whole
number $N_{ji}$ of times: how often neuron $j$ has fired on it. Take $a_j > 0$ and nearly orthogonal points. A point
with $y_i = +1$ pushes the neuron towards itself and fires for ever after. A point with $y_i = -1$ pushes it away,
once, and is silent from then on.

**5. Symmetry breaks.** So a positive neuron collects points of label $+1$ only. Most of them lie at $\pm\mu_1$; let
$D_1 = \sum_{i \in \pm\mu_1} s_i y_i N_{ji}$ count those at $+\mu_1$ minus those at $-\mu_1$. A silent point at
$s\mu_1$ wakes when $s\mu^2 D_1$ beats noise of size $\sqrt{p \sum_k N_{jk}^2}$, so whichever side is ahead gains, and
the other falls asleep. Positive neurons turn to $+\mu_1$ or $-\mu_1$, negative ones to $\pm\mu_2$: the blob becomes a
cross, and four kinds of neuron are what XOR needs.

**6. The angle stays small.** At strong signal and after long training $$|\cos(w_j, \mu)| \to \frac{\mu (1-\eta)
n/8}{\sqrt{p\,n\,(3(1-\eta)+4\eta)/8 + \mu^2(1-\eta)^2n^2/64}},$$ a few hundredths as a rule: most of a neuron is
memory. The memory of $n$ points is nearly orthogonal to a fresh one, and so it costs nothing: overfitting is *benign*.

**7. What goes wrong with few samples.** If labels are drawn at random, the clouds differ in size and in flips. Let
$\pi$ be the share of neurons that choose the side $s$ of $\mu_c$. The cloud is won in the end if $$\pi\,\Big(N^{\rm
true}_{s} - \tfrac12 N^{\rm true}_{-s}\Big) > \max\big(N^{\rm flipped}_{s} - N^{\rm flipped}_{-s},\, 0\big),$$ else it
is wrong for ever. Only counts enter. The rule was found in simulations; it agrees with 9 of 10 clouds.

**8. How well it ends.** For equal clouds the late test error is close to $\Phi(-c\sqrt n)$ at signals of 1 to 1.4,
with $c$ growing as the square of the signal below 1 and in proportion to it above 2. This is a *fit* to simulations,
kept as a table for 40 to 640 samples, and no theorem. The theorem promises a vanishing error for $\mu^2 \ge C
n^{0.51}\sqrt p$ and $p \ge C n^2\mu^2$: sufficient, and far from sharp, as the phase diagram shows.

**Why a billion dimensions cost nothing.** Every update is a sum of training points, $w_j(t) = w_j(0) + \sum_i C_{ji}
x_i$. With $H = W X^\top$ and $K = X X^\top$ a step is $C \mathrel{+}= D$, $H \mathrel{+}= D K$: an exact identity in
which $p$ does not occur. Nor is it needed to draw the data: rotated into their own span, the points form a triangle of
normals with chi-square variables of $p-2, p-3, \dots$ degrees of freedom on its diagonal, exactly in law.
"""

EACH_CLUSTER = "each_cluster"  # the detail that splits the test accuracy
ACCURACIES = {
    "test_accuracy": "fresh test points",
    "train_accuracy": "training labels",
    "flipped_label_accuracy": "flipped labels",
}
PHASE_N = (40, 80, 160, 320)
PHASE_SIGNAL = (0.5, 0.8, 1.4, 2.4, 4.0)
PHASE_RATIO = 0.1  # n mu^2/p of the phase diagram
PHASE_STEPS = 100
_SIGNALS, _SIZES = (0.25, 40.0), (20.0, 1000.0)
_CONTOURS = (0.6, 0.75, 0.9, 0.97)
_ZONES = {"catastrophic": PALETTE[1], "in between": PALETTE[4], "benign": PALETTE[2]}
_REST = {"not memorised in one step": PALETTE[3], "classical": PALETTE[5]}
_SHOWN = {"plus_mu1": "+μ₁", "minus_mu1": "−μ₁", "plus_mu2": "+μ₂", "minus_mu2": "−μ₂"}


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, XorGrokkingParams)
    kind = "" if params.label_sampler == "stratified" else ", random labels"
    return f"signal {params.signal:g}, {params.n_train} samples{kind}"


def pictures(view: View) -> list[Picture]:
    """Accuracies, the neurons, the decision map, whole clusters where labels are random, and the phase diagram."""
    params = view.focus.params
    assert isinstance(params, XorGrokkingParams)
    random_labels = [clusters(view)] if params.label_sampler == "iid" else []
    return [accuracies(view), neurons(view), decision_map(view), *random_labels, phases(view)]


def accuracies(view: View) -> Picture:
    """Memorising and understanding: what is fitted, what of it is wrong, and what is right on fresh points."""
    alone = replace(view, runs={view.focus_label: view.focus})
    curves = [
        replace(curve, label=words, chalk=curve.chalk if curve.metric == "test_accuracy" else None)
        for curve, words in zip(several(alone, list(ACCURACIES)), ACCURACIES.values(), strict=True)
    ]
    each = EACH_CLUSTER in view.details
    if each:
        for hue, (name, words) in enumerate(_SHOWN.items(), len(curves)):
            curves.append(Curve(words, view.focus, f"{name}_accuracy", None, hue))
    else:
        for hue, (words, run) in enumerate(list(view.runs.items())[1:], len(curves)):
            curves.append(Curve(f"{words}: test points", run, "test_accuracy", "test_accuracy", hue))
    drawn = overlay(
        view,
        curves,
        id="accuracy",
        title="Memorised at once, understood later",
        y_title="share right",
        note="Diamond: after one step the test accuracy is one half, exactly on average, whatever the data. Dashed: "
        "the late accuracy, grey where nothing is claimed."
        + (" Squares: what the linear classifier of the first step gets on each cluster." if each else ""),
    )
    one = int(np.searchsorted(view.focus.trace.step, 1))
    spec, data = dict(drawn.spec), {**drawn.data, "half": {"x": [1.0], "value": [0.5]}}
    place = {
        "x": {**spec["layer"][1]["encoding"]["x"], "field": "x"},
        "y": {**spec["layer"][1]["encoding"]["y"], "field": "value"},
    }
    mark = {"type": "point", "shape": "diamond", "filled": False, "size": 190, "color": "$text", "strokeWidth": 2.2}
    spec["layer"] = [*spec["layer"], {"data": {"name": "half"}, "mark": mark, "encoding": place}]
    if each:
        data["linear"] = _linear_clusters(view.focus)
        mark = {"type": "point", "shape": "square", "filled": False, "size": 110, "strokeWidth": 2.2}
        coloured = {**place, "color": spec["layer"][1]["encoding"]["color"]}
        spec["layer"].append({"data": {"name": "linear"}, "mark": mark, "encoding": coloured})
    medians = {name: float(np.median(view.focus.trace.series[name][:, one])) for name in ACCURACIES}
    said = (
        f"{view.focus_label}: after one step {100 * medians['train_accuracy']:.0f} % of the training labels are "
        f"fitted, {100 * medians['flipped_label_accuracy']:.0f} % of the flipped ones, and "
        f"{100 * medians['test_accuracy']:.0f} % of the test points are right, where theory expects 50 %."
    )
    return replace(drawn, spec=spec, alt=f"{said} {drawn.alt}", data=data)


def brute_points(view: View, experiment: Experiment) -> Points:
    """Accuracies of networks trained with all their weights in all dimensions: means, at about a dozen steps."""
    settings = experiment["settings"]
    runs = [part["series"] for name, part in experiment["parts"].items() if name != "sampled"]
    step = recorded_steps(XorGrokkingParams.make(steps=settings["steps"]))
    at = np.unique(np.searchsorted(step, np.rint(np.geomspace(1, settings["steps"], 12))))
    shown = {name: ACCURACIES[name] for name in ("train_accuracy", "test_accuracy")}
    means = [np.mean([run[name] for run in runs], axis=0)[at] for name in shown]
    words = (
        f"brute force in {settings['dim']:,} dimensions, signal {settings['signal']:g}, {settings['n_train']} samples"
    )
    return Points(np.tile(step[at], 2), np.concatenate(means), words, np.repeat(list(shown.values()), len(at)))


CONFIRMED = (LaidOver("brute_force", "accuracy", brute_points),)


def _linear_clusters(run: Run) -> dict[str, Any]:
    """The share of each cluster that the linear classifier of the first step gets right: median over replicates."""
    from theory.xor_grokking import linear_cluster_accuracies

    shares = [linear_cluster_accuracies(offsets) for offsets in run.trace.finals["linear_offsets"]]
    return {"run": list(_SHOWN.values()), "x": [1.0] * len(CLUSTERS), "value": np.median(shares, axis=0).tolist()}


# -- the plane of the means --------------------------------------------------------------------------------------


def neurons(view: View) -> Picture:
    """The neurons' projections on the two means: a blob that becomes a cross."""
    run = view.focus
    weights = run.trace.frames["neurons"]
    sign = run.trace.finals["neuron_signs"][0]
    count, shown = weights.shape[:2]
    largest = np.abs(weights).max(axis=(1, 2))
    scaled = weights / np.where(largest > 0, largest, 1.0)[:, None, None]
    kind = np.where(sign > 0, "output +", "output −").astype(object)
    frames = {
        "neurons": {
            "frame": np.repeat(np.arange(count), shown),
            "x": scaled[:, :, 0].reshape(-1),
            "y": scaled[:, :, 1].reshape(-1),
            "kind": np.tile(kind, count),
        },
        "size": {
            "frame": np.arange(count),
            "words": np.array([f"largest projection {value:.2g}" for value in largest], dtype=object),
        },
    }
    claimed = _is_theorem(view)
    cross = {"x": [-1.0, 1.0, 0.0, 0.0], "y": [0.0, 0.0, -1.0, 1.0], "arm": ["+", "+", "−", "−"]}
    first, last = _along_own(weights[0], sign), _along_own(weights[-1], sign)
    return Picture(
        id="neurons",
        title=f"The neurons: {view.focus_label}",
        spec=_neuron_spec(claimed),
        alt=f"{100 * first:.0f} % of the neurons point rather at a mean of their own sign than at one of the other "
        f"sign at the start, {100 * last:.0f} % at the end. The largest projection grows from {largest[0]:.2g} to "
        f"{largest[-1]:.2g}.",
        data={"cross": cross},
        frames=frames,
        steps=run.trace.frame_step,
        note="Neurons of the first replicate, each frame scaled by its largest projection. Dashed: the cross that "
        "theory predicts, neurons of positive output along μ₁, of negative output along μ₂"
        + ("." if claimed else "; grey, because the theorem assumes what does not hold here."),
    )


@cache
def _neuron_spec(claimed: bool) -> dict[str, Any]:
    reach = 1.12
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    axis = alt.Axis(values=[-1, 0, 1], grid=False)
    x = alt.X("x:Q", title="projection on μ₁, of the largest", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="projection on μ₂, of the largest", scale=scale, axis=axis)
    names = ["output +", "output −"]
    legend = alt.Legend(title=None, orient="top", symbolSize=110, symbolFillColor=None)
    layers = [
        alt.Chart(alt.NamedData("cross"))
        .mark_line(strokeWidth=2.2, **_chalk(claimed))
        .encode(x, y, alt.Detail("arm:N")),
        alt.Chart(alt.NamedData("neurons"))
        .mark_point(filled=False, size=46, strokeWidth=1.7, clip=True)
        .encode(
            x,
            y,
            alt.Color("kind:N", sort=names, scale=alt.Scale(domain=names, range=list(PALETTE[:2])), legend=legend),
            alt.Shape("kind:N", sort=names, scale=alt.Scale(domain=names, range=["cross", "circle"]), legend=legend),
        ),
        alt.Chart(alt.NamedData("size"))
        .mark_text(align="right", baseline="top", fontSize=12, color="$muted")
        .encode(x=alt.XValue(alt.expr("width - 4")), y=alt.YValue(4), text=alt.Text("words:N")),
    ]
    return layered(*layers)


def _is_theorem(view: View) -> bool:
    """Whether the run in focus meets the theorem's assumptions, as far as the claim `groks` knows them."""
    claim = next(claim for claim in view.lab.claims if claim.id == "groks")
    return claim.assumes(view.focus.params) is None


def _chalk(claimed: bool) -> dict[str, Any]:
    """The look of a chalk line that is drawn whole."""
    return {"strokeDash": [7, 4], "color": "$text"} if claimed else {"strokeDash": [3, 4], "color": "$muted"}


def _along_own(weights: Array, sign: Array) -> float:
    """Share of neurons nearer to the axis of their own mean."""
    own, other = np.where(sign > 0, weights.T, weights.T[::-1])
    return float(np.mean(np.abs(own) > np.abs(other)))


def decision_map(view: View) -> Picture:
    """The network's output in the plane of the means, averaged over the noise in all other directions."""
    run = view.focus
    values = run.trace.frames["decision_map"]
    count = len(values)
    largest = np.abs(values).max(axis=(1, 2))
    scaled = values / np.where(largest > 0, largest, 1.0)[:, None, None]
    grid = map_grid(1.0)
    half = (grid[1] - grid[0]) / 2.0
    gx, gy = np.meshgrid(grid, grid)
    cells = MAP_POINTS**2
    frames = {
        "map": {
            "frame": np.repeat(np.arange(count), cells),
            "x": np.tile(gx.reshape(-1) - half, count),
            "x2": np.tile(gx.reshape(-1) + half, count),
            "y": np.tile(gy.reshape(-1) - half, count),
            "y2": np.tile(gy.reshape(-1) + half, count),
            "output": scaled.reshape(-1),
        }
    }
    edge = MAP_EXTENT + half
    boundary = {"x": [-edge, edge, -edge, edge], "y": [-edge, edge, edge, -edge], "arm": ["up", "up", "down", "down"]}
    means = {
        "x": [1.0, -1.0, 0.0, 0.0],
        "y": [0.0, 0.0, 1.0, -1.0],
        "mean": list(_SHOWN.values()),
        "sign": ["+", "+", "−", "−"],
    }
    at_means = zip(_SHOWN.values(), _nearest_means(grid), strict=True)
    said = ", ".join(f"{name} {scaled[-1][cell]:+.2f}" for name, cell in at_means)
    return Picture(
        id="decision_map",
        title=f"What it says in the plane of the means: {view.focus_label}",
        spec=_map_spec(edge),
        alt=f"The mean output near the four means at the end, of the largest one: {said}. The labels are +, +, −, −.",
        data={"boundary": boundary, "means": means},
        frames=frames,
        steps=run.trace.frame_step,
        note="Mean output over the noise of all other dimensions, first replicate, each frame scaled by its largest "
        "value; after one step a half-plane, later four lobes. Dashed: the boundary of XOR.",
    )


@cache
def _map_spec(edge: float) -> dict[str, Any]:
    scale = alt.Scale(domain=[-edge, edge], nice=False)
    axis = alt.Axis(values=[-2, -1, 0, 1, 2], grid=False)
    x = alt.X("x:Q", title="along μ₁, in units of μ", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="along μ₂, in units of μ", scale=scale, axis=axis)
    hues = alt.Scale(domain=[-1, 0, 1], range=[PALETTE[1], "$background", PALETTE[0]], interpolate="rgb")
    legend = alt.Legend(title="output, of the largest", orient="top", titleLimit=300, values=[-1, 0, 1])
    points = alt.Chart(alt.NamedData("means"))
    layers = [
        alt.Chart(alt.NamedData("map"))
        .mark_rect(strokeWidth=0)
        .encode(x, y, alt.X2("x2:Q"), alt.Y2("y2:Q"), alt.Color("output:Q", scale=hues, legend=legend)),
        alt.Chart(alt.NamedData("boundary"))
        .mark_line(strokeDash=[7, 4], color="$text", strokeWidth=2.2, clip=True)
        .encode(x, y, alt.Detail("arm:N")),
        points.mark_point(filled=True, size=60, color="$text", opacity=1).encode(
            x, y, alt.Shape("sign:N", scale=alt.Scale(domain=["+", "−"], range=["cross", "circle"]), legend=None)
        ),
        points.mark_text(dx=9, dy=-9, align="left", fontSize=13, color="$text").encode(x, y, alt.Text("mean:N")),
    ]
    return layered(*layers)


def _nearest_means(grid: Array) -> list[tuple[int, int]]:
    """Grid cells, (row, column), nearest to the four means."""
    one, minus, zero = (int(np.argmin(np.abs(grid - value))) for value in (1.0, -1.0, 0.0))
    return [(zero, one), (zero, minus), (one, zero), (minus, zero)]


# -- random labels -----------------------------------------------------------------------------------------------


def clusters(view: View) -> Picture:
    """Every cluster of every replicate: how it ends, against what the count of its labels says."""
    from theory.xor_grokking import cluster_margins

    run = view.focus
    counts = run.trace.finals["counts"]
    margins = np.stack([cluster_margins(each) for each in counts]) / run.params.n_train  # type: ignore[attr-defined]
    ends = np.stack([run.trace.series[f"{name}_accuracy"][:, -1] for name in CLUSTERS], axis=1)
    reach = 1.1 * float(np.max(np.abs(margins), initial=1e-3))
    table = {
        "margin": margins.reshape(-1),
        "accuracy": ends.reshape(-1),
        "cluster": np.tile(np.array(list(_SHOWN.values()), dtype=object), len(counts)),
        "replicate": np.repeat(np.arange(len(counts)) + run.params.first_replicate, len(CLUSTERS)),
    }
    claimed = bool(run.prediction.claimed("clusters_right")[-1])
    rule = {"margin": [-reach, 0.0, 0.0, reach], "accuracy": [0.0, 0.0, 1.0, 1.0], "order": [0, 1, 2, 3]}
    wrong = int(np.sum(ends <= 0.5))
    agree = int(np.sum((ends > 0.5) == (margins > 0)))
    return Picture(
        id="clusters",
        title="Which clusters are lost?",
        spec=fill(_cluster_spec(claimed), {"x": [-reach, reach]}),
        alt=f"{wrong} of {ends.size} clusters in {len(counts)} replicates end mostly wrong; the counting rule is right "
        f"about {agree} of {ends.size}.",
        data={"clusters": table, "rule": rule},
        note="A point for each cluster of each replicate. Dashed: the counting rule, wrong left of 0 and right beyond"
        + ("." if claimed else "; grey, because it is not claimed here."),
    )


@cache
def _cluster_spec(claimed: bool) -> dict[str, Any]:
    """The spec of the clusters: `x` is to be filled in."""
    x = alt.X(
        "margin:Q",
        title="margin by the counting rule, of all samples",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(format="~g"),
    )
    y = alt.Y("accuracy:Q", title="late accuracy of the cluster", scale=alt.Scale(domain=[-0.05, 1.05], nice=False))
    names = list(_SHOWN.values())
    shapes = alt.Scale(domain=names, range=["circle", "square", "triangle-up", "diamond"])
    hues = alt.Scale(domain=names, range=list(PALETTE[:4]))
    legend = alt.Legend(title=None, orient="top")
    layers = [
        alt.Chart(alt.NamedData("rule"))
        .mark_line(strokeWidth=2.2, **_chalk(claimed))
        .encode(x, y, alt.Order("order:Q")),
        alt.Chart(alt.NamedData("clusters"))
        .mark_point(filled=False, size=70, strokeWidth=1.8)
        .encode(
            x,
            y,
            alt.Color("cluster:N", sort=names, scale=hues, legend=legend),
            alt.Shape("cluster:N", sort=names, scale=shapes, legend=legend),
        ),
    ]
    return layered(*layers)


# -- the phase diagram -------------------------------------------------------------------------------------------


def phases(view: View) -> Picture:
    """Zones of the theory over signal and number of samples, with simulated cells and the theorem's own region."""
    own = view.focus.params
    assert isinstance(own, XorGrokkingParams)
    wanted = phase_runs()
    cells = [(params, run) for params in wanted if (run := view.at_hand(params)) is not None]
    zones, contours = _phase_theory()
    accuracy = [run.metrics["late_test_accuracy"].mean for _, run in cells]
    table = {
        "signal": [params.signal for params, _ in cells],
        "n": [float(params.n_train) for params, _ in cells],
        "accuracy": [float("nan") if value is None else value for value in accuracy],
        "words": np.array([_percent(value) for value in accuracy], dtype=object),
    }
    edge = np.geomspace(_SIZES[0], _SIZES[1], 30)
    theorem = {"n": edge, "signal": np.clip(edge**0.51, *_SIGNALS), "end": np.full(len(edge), _SIGNALS[1])}
    here = {"signal": [float(np.clip(own.signal, *_SIGNALS))], "n": [float(np.clip(own.n_train, *_SIZES))]}
    corner = {"signal": [_SIGNALS[1] / 1.05], "n": [27.0], "words": ["the theorem's region"]}
    present = tuple(name for name in (*_ZONES, *_REST) if name in set(zones["zone"]))
    said = "; ".join(
        f"{params.n_train} samples, signal {params.signal:g}: {_percent(run.metrics['late_test_accuracy'].mean)} %"
        for params, run in cells
    )
    return Picture(
        id="phases",
        title="When is memorising harmless?",
        spec=_phase_spec(present),
        alt=f"Late test accuracy grows with the signal and with the number of samples. Simulated: "
        f"{said or 'not computed yet'}. This run: signal {own.signal:g}, {own.n_train} samples.",
        data={
            "zones": zones,
            "contours": contours,
            "named": _contour_names(contours),
            "theorem": theorem,
            "cells": table,
            "corner": corner,
            "here": here,
        },
        needs=wanted,
        note=f"Phase diagram at n μ²/p = {PHASE_RATIO:g} with 10 % of the labels flipped; numbers are simulated late "
        f"test accuracies in percent, lines those of the fitted table. Shaded: μ² ≥ n^0.51 √p, the theorem's condition "
        f"with its unknown constant set to 1. It asks for p ≥ n²μ² besides, which nothing on this diagram meets: what "
        f"is proved lies far beyond what works. Diamond: this run, at n μ²/p = {_ratio(own):.2g}.",
    )


@cache
def _phase_spec(present: tuple[str, ...]) -> dict[str, Any]:
    x = alt.X(
        "signal:Q",
        title="signal μ²/√p",
        scale=alt.Scale(type="log", domain=list(_SIGNALS), nice=False),
        axis=alt.Axis(values=[0.25, 0.5, 1, 2, 4, 8, 16, 32], format="~g", grid=False),
    )
    y = alt.Y(
        "n:Q",
        title="training samples n",
        scale=alt.Scale(type="log", domain=list(_SIZES), nice=False),
        axis=alt.Axis(values=[20, 50, 100, 200, 500, 1000], format="~g", grid=False),
    )
    hues = alt.Scale(domain=list(present), range=[(_ZONES | _REST)[name] for name in present])
    legend = alt.Legend(title=None, orient="top", symbolOpacity=0.5, labelLimit=300)
    dashes = alt.Scale(domain=[CLAIMED, UNCLAIMED], range=[[7, 4], [3, 4]])
    inks = alt.Scale(domain=[CLAIMED, UNCLAIMED], range=["$text", "$muted"])
    kinds = alt.Legend(title=None, orient="bottom", symbolType="stroke", symbolSize=700, labelLimit=300)
    dots, lines = alt.Chart(alt.NamedData("cells")), alt.Chart(alt.NamedData("contours"))
    layers = [
        alt.Chart(alt.NamedData("zones"))
        .mark_rect(opacity=0.3, strokeWidth=0)
        .encode(x, y, alt.X2("signal2:Q"), alt.Y2("n2:Q"), alt.Color("zone:N", scale=hues, legend=legend)),
        alt.Chart(alt.NamedData("theorem"))
        .mark_area(orient="horizontal", color="$text", opacity=0.2, line={"color": "$text", "strokeWidth": 1.4})
        .encode(x, alt.X2("end:Q"), y),
        lines.mark_line(strokeWidth=1.8).encode(
            x,
            y,
            alt.Detail("stretch:N"),
            alt.Order("n:Q"),
            alt.StrokeDash("kind:N", scale=dashes, legend=kinds),
            stroke=alt.Stroke("kind:N", scale=inks, legend=None),
        ),
        alt.Chart(alt.NamedData("named"))
        .mark_text(fontSize=11, align="left", baseline="top", dx=4, dy=2, color="$text")
        .encode(x, y, alt.Text("words:N")),
        dots.mark_circle(size=560, color="$background", opacity=0.85).encode(x, y),
        dots.mark_text(fontSize=11, fontWeight="bold", color="$text").encode(x, y, alt.Text("words:N")),
        alt.Chart(alt.NamedData("corner"))
        .mark_text(align="right", fontSize=12, color="$text")
        .encode(x, y, alt.Text("words:N")),
        alt.Chart(alt.NamedData("here"))
        .mark_point(shape="diamond", filled=False, size=260, strokeWidth=2.6, color="$text")
        .encode(x, y),
    ]
    return layered(*layers, stroke="independent")


def phase_runs() -> Sequence[Params]:
    """The cells of the phase diagram."""
    from theory.xor_grokking import dim_at

    return [
        XorGrokkingParams.make(
            n_train=n, signal=signal, dim=round(dim_at(n, signal, PHASE_RATIO)), steps=PHASE_STEPS, n_test=1000
        )
        for n in PHASE_N
        for signal in PHASE_SIGNAL
    ]


def _ratio(params: XorGrokkingParams) -> float:
    from theory.xor_grokking import regime

    return regime(params.n_train, params.signal, params.dim)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}" if not 0.99 < value < 0.9995 else f"{100 * value:.1f}"


@lru_cache(maxsize=1)
def _phase_theory() -> tuple[dict[str, Any], dict[str, Any]]:
    """Zones as cells of a grid, and the lines of equal fitted accuracy, cut where the table ends."""
    from scipy.special import ndtri

    from theory.xor_grokking import FIT_LABEL_NOISE, dim_at, fitted_quantile, nearest_quantile, zone

    default = XorGrokkingParams.make()
    signals, sizes = np.geomspace(*_SIGNALS, 91), np.geomspace(*_SIZES, 41)
    middle_s, middle_n = np.sqrt(signals[1:] * signals[:-1]), np.sqrt(sizes[1:] * sizes[:-1])
    rows = []
    for n0, n1, n in zip(sizes[:-1], sizes[1:], middle_n, strict=True):
        dims = [round(dim_at(n, s, PHASE_RATIO)) for s in middle_s]
        kinds = [zone(round(n), s, dim, default.width, FIT_LABEL_NOISE) for s, dim in zip(middle_s, dims, strict=True)]
        ends = [i for i in range(1, len(kinds) + 1) if i == len(kinds) or kinds[i] != kinds[i - 1]]
        # One rectangle for each zone of a row: between many small ones the paper would show through.
        rows += [(signals[i], signals[k], n0, n1, kinds[i]) for i, k in zip([0, *ends[:-1]], ends, strict=True)]
    names = ("signal", "signal2", "n", "n2", "zone")
    zones = {
        name: np.array([row[i] for row in rows], dtype=object if name == "zone" else float)
        for i, name in enumerate(names)
    }
    fine = np.geomspace(0.3, 12.0, 40)
    heights = np.geomspace(*_SIZES, 40)
    quantiles = [np.array([nearest_quantile(float(n), float(s)) for s in fine]) for n in heights]
    lines: dict[str, list[Any]] = {name: [] for name in ("signal", "n", "kind", "stretch", "accuracy")}
    for accuracy in _CONTOURS:
        before, stretch = "", 0
        for n, z in zip(heights, quantiles, strict=True):
            at = float(np.exp(np.interp(ndtri(accuracy), z, np.log(fine), left=np.nan, right=np.nan)))
            if not np.isfinite(at):
                continue
            kind = CLAIMED if np.isfinite(fitted_quantile(float(n), at)) else UNCLAIMED
            if kind != before and before:
                # The new stretch begins where the last one ends, so that the line has no gap.
                stretch += 1
                for name in ("signal", "n", "accuracy"):
                    lines[name].append(lines[name][-1])
                lines["kind"].append(kind)
                lines["stretch"].append(f"{accuracy} {stretch}")
            before = kind
            for name, value in zip(lines, (at, float(n), kind, f"{accuracy} {stretch}", accuracy), strict=True):
                lines[name].append(value)
    contours = {
        name: np.array(values, dtype=object if name in ("kind", "stretch") else float) for name, values in lines.items()
    }
    return zones, contours


def _contour_names(contours: dict[str, Any]) -> dict[str, Any]:
    """A name at the upper end of each line."""
    accuracy, signal, n = (np.asarray(contours[name]) for name in ("accuracy", "signal", "n"))
    tops = [int(np.flatnonzero(accuracy == value)[np.argmax(n[accuracy == value])]) for value in np.unique(accuracy)]
    return {
        "signal": signal[tops],
        "n": n[tops],
        "words": np.array([f"{100 * accuracy[i]:g}" for i in tops], dtype=object),
    }


# -- sweeps ------------------------------------------------------------------------------------------------------


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """Lines of equal late accuracy by the fitted table over signal and samples, and the theorem's condition."""
    if y is None or {x.name, y.name} != {"signal", "n_train"}:
        return None
    assert isinstance(base, XorGrokkingParams)
    _, contours = _phase_theory()
    reason = _not_fitted(base)
    lines = []
    for stretch in dict.fromkeys(contours["stretch"].tolist()):
        of = contours["stretch"] == stretch
        claimed = contours["kind"][of][0] == CLAIMED and not reason
        words = (
            "late test accuracy, fitted" if claimed else f"late test accuracy ({reason or 'beyond the fitted table'})"
        )
        last = stretch.endswith(" 1") or f"{stretch.split()[0]} 1" not in contours["stretch"]
        mark = f"{100 * contours['accuracy'][of][0]:g} %" if last else ""
        lines.append(ChalkLine(*_placed(x, contours["signal"][of], contours["n"][of]), words, claimed, mark))
    sizes = np.geomspace(*_SIZES, 60)
    theorem = "theorem: μ² ≥ n^0.51 √p, unknown constant set to 1"
    return [*lines, ChalkLine(*_placed(x, sizes**0.51, sizes), theorem, claimed=False, mark="theorem")]


def _placed(x: Axis, signal: Array, n: Array) -> tuple[list[float], list[float]]:
    """Points of a line as (x, y), whichever of the two axes the signal is on."""
    return (signal.tolist(), n.tolist()) if x.name == "signal" else (n.tolist(), signal.tolist())


def _not_fitted(params: XorGrokkingParams) -> str:
    """Why the fitted table does not speak of runs with these other parameters."""
    from theory.xor_grokking import FIT_LABEL_NOISE

    if params.label_sampler != "stratified":
        return "fitted for equal clusters"
    if abs(params.label_flip_prob - FIT_LABEL_NOISE) > 0.025:
        return "fitted for 10 % of flipped labels"
    return ""


SWEEP = SweepStory(
    x="signal",
    x_range="0.5:4:7:log",
    y="n_train",
    y_range="40,80,160,320",
    metric="late_test_accuracy",
    base={"dim": 10**8, "steps": PHASE_STEPS, "n_test": 1000, "replicates": 2},
    notice="Every run here fits all of its labels, the wrong ones too; whether it also understands depends on signal "
    "and number of samples. The dashed lines are those of the fitted table.",
    boundary=boundary,
)


# -- time it -----------------------------------------------------------------------------------------------------

_RACE = threading.Lock()
_RACE_DIMS = (10_000, 100_000, 10**9)
_RACE_SIZES = {"n_train": 100, "width": 100}


def race(view: View) -> None:
    """A button that times brute force against Gram space on this machine, now."""
    st.subheader("Time it")
    st.markdown(
        "The same network on the same 100 points, with 100 neurons: plain NumPy on the weights in all $p$ dimensions, "
        "beside the space of inner products in which this page trains. The two are the same to the last digits."
    )
    if not st.button("Time both on this machine", key="race", icon=":material/timer:"):
        return
    if not _RACE.acquire(blocking=False):
        st.info("Somebody else is timing on this machine; try again in a few seconds.")
        return
    try:
        with st.spinner("Taking turns: a step in all dimensions, forty steps in Gram space"):
            rows = [_race_row(dim) for dim in _RACE_DIMS]
    finally:
        _RACE.release()
    st.table(rows, border="horizontal")
    st.caption(
        "Milliseconds for one training step, medians of three rounds on one thread. A Gram step takes 2 m n² "
        "operations; the dimension does not occur in it. A billion dimensions would need 800 GB for the points alone."
    )


def _race_row(dim: int) -> dict[str, str]:
    from sims.xor_grokking import timing

    row = timing.side_by_side(XorGrokkingParams.make(**_RACE_SIZES, dim=dim))
    fits = row.brute_ms is not None and row.ratio is not None and row.difference is not None
    return {
        "dimension p": f"{dim:,}",
        "brute force, ms": f"{row.brute_ms:.3g}" if fits else "does not fit",
        "Gram space, ms": f"{row.gram_ms:.3g}",
        "times faster": f"{row.ratio:,.0f}" if fits else "–",
        "outputs differ by": f"{row.difference:.0e}" if fits else "–",
    }


# -- formulas ----------------------------------------------------------------------------------------------------


def _offsets(run: Run) -> dict[str, float]:
    """The linear classifier of the first step against the two means, first replicate."""
    b1, b2 = run.trace.finals["linear_offsets"][0]
    return {"b_1": float(b1), "b_2": float(b2)}


def _half_of_xor(n: Mapping[str, float]) -> float:
    from scipy.special import ndtr

    return float(np.mean(ndtr([n["b_1"], -n["b_1"], -n["b_2"], n["b_2"]])))


def _means(run: Run) -> dict[str, float]:
    params = run.params
    assert isinstance(params, XorGrokkingParams)
    return {"mu": params.mu, "flipped": params.label_noise}


def _plateau(n: Mapping[str, float]) -> float:
    aligned = n["mu"] * (1.0 - n["flipped"]) * n["n_train"] / 8.0
    memory = n["dim"] * n["n_train"] * (3.0 * (1.0 - n["flipped"]) + 4.0 * n["flipped"]) / 8.0
    return float(aligned / np.sqrt(memory + aligned**2))


def _regime(run: Run) -> float:
    assert isinstance(run.params, XorGrokkingParams)
    return _ratio(run.params)


FORMULAS = (
    Formula(
        says="After one step: what the linear classifier wins on one cloud it loses on its mirror image.",
        left=r"\Pr(\mathrm{right})",
        right=r"\frac{\Phi(<b_1>) + \Phi(-<b_1>) + \Phi(-<b_2>) + \Phi(<b_2>)}{4}",
        value=_half_of_xor,
        predicts="step_one_test_accuracy",
        numbers=_offsets,
        symbols={"b_1": "b_1", "b_2": "b_2"},
    ),
    Formula(
        says="Late in training most of a neuron is memory: its angle to its own mean stays this small.",
        left=r"|\cos(w_j, \mu)|",
        right=r"\frac{<mu> <*> (1-<flipped>) <*> <n_train>/8}{\sqrt{<dim> <*> <n_train> <*> "
        r"(3(1-<flipped>)+4 <*> <flipped>)/8 + <mu>^2 <*> (1-<flipped>)^2 <*> <n_train>^2/64}}",
        value=_plateau,
        predicts="alignment_plateau",
        relation=r"\to",
        numbers=_means,
        symbols={"mu": r"\mu", "flipped": r"\eta"},
        when=lambda params: params.label_sampler == "stratified",
    ),
    Formula(
        says="How far the points are from being orthogonal: well below 1 the memory of one is no trouble to another.",
        left=r"\frac{n\mu^2}{p}",
        right=r"\frac{<n_train> <*> <signal>}{\sqrt{<dim>}}",
        value=lambda n: n["n_train"] * n["signal"] / n["dim"] ** 0.5,
        predicts=_regime,
        symbols={"signal": r"(\mu^2/\sqrt{p})"},
    ),
)

STORY = Story(
    why=WHY,
    label=label,
    metric="test_accuracy",
    x="log_step",
    formulas=FORMULAS,
    experiment=race,
    details={EACH_CLUSTER: "Each cluster on its own"},
)
