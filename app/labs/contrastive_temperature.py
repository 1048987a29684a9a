"""The page of contrastive temperature: its derivation and its pictures."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
from scipy.special import ive

from app.frame.formula import Formula, Numbers
from app.frame.page import Story
from app.frame.pictures import (
    PALETTE,
    Picture,
    hues,
    joined,
    layered,
    legend,
    overlay,
    point_legend,
    shapes,
)
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.contrastive_temperature.lab import BINS, ContrastiveTemperatureParams
from sims.contrastive_temperature.prediction import dimension, share_of
from sims.contrastive_temperature.training import labels
from sims.engine import Params, Run
from theory import contrastive_temperature as theory

WHY = r"""
**The loss.** With similarities $s_{ij} = f_i^\top g_j$ of unit features, example $i$ pays $$L_i = -\log
\frac{e^{s_{ii}/\tau}}{\sum_k e^{s_{ik}/\tau}} .$$ The force on a negative is $\partial L_i/\partial s_{ik} =
P_{ik}/\tau$ with $P$ the softmax of $s/\tau$. All forces together equal that on the positive; the temperature decides
how they are shared out. For $\tau \to 0$ only the nearest negative is pushed, a triplet loss. For $\tau \to \infty$ all
are pushed alike. In between the entropy of the shares rises.

**1. Uniform negatives.** On the sphere of $\mathbb R^d$ the shares follow a von Mises-Fisher law, $e^{\cos\theta/\tau}
\sin^{d-2}\theta$, and the mean similarity of what is pushed is a ratio of Bessel functions, $$m =
\frac{I_{d/2}(1/\tau)}{I_{d/2-1}(1/\tau)} .$$ For $\tau d \ll 1$ it is $1 - \tau(d-1)/2$. In many dimensions that is
never so: nearly all negatives are at right angles, and there are too many of them.

**2. An encoder that can be solved.** Let $f = \sqrt c\,u_{\rm class} + \sqrt{1-c}\,v_{\rm instance}$, and let two views
of an example share the instance up to a similarity $a$. Then $s = a + (1-a)c$ for the positive, $c$ for $n_s = n-1$
classmates and $0$ for $n_d = (C-1)n$ strangers. The loss is convex in $c$, and its minimum is at $$c^* = \tau \,\ln
\frac{(1-a)\,n_d}{a\,n_s},$$ between $0$ and $1$. Tolerance of classmates is proportional to the temperature. At
$\tau_c = 1/\ln(\cdot)$ classes collapse: uniformity is lost, and no example finds its own view among its classmates. If
instances are so stable that $(1-a)n_d \le a n_s$, nothing rewards class structure at any temperature.

**3. A table.** Free points on a sphere know of classes only what positives tell them. Let the positive be a classmate
with probability $0.3$. At low temperatures a classmate repels only while it is near, but attracts at any distance, and
tolerance rises again as $\tau \to 0$: there is a dip near $0.1$. Where no positive is a classmate, tolerance is that of
any two points, $-1/(N-1)$: the trade-off needs an encoder, or views, that share class information.
"""

CURVE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
KINDS = ("share of class", "neighbours of the class", "views that find their own")


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, ContrastiveTemperatureParams)
    where = f"{params.sphere_dim} dimensions, " if params.model == "sphere" else ""
    return f"{where}temperature {params.temperature:g}"


_COUNTS = r"\frac{(1-<overlap>) <*> (<classes>-1) <*> <per_class>}{<overlap> <*> (<per_class>-1)}"


def _odds(n: Numbers) -> float:
    return (1.0 - n["overlap"]) * (n["classes"] - 1.0) * n["per_class"] / (n["overlap"] * (n["per_class"] - 1.0))


def _is_minimised(params: ContrastiveTemperatureParams) -> bool:
    return params.model == "two_level" and params.fit == "minimised"


def _collapses(params: ContrastiveTemperatureParams) -> bool:
    if params.model != "two_level":
        return False
    return bool(np.isfinite(theory.collapse_temperature(params.overlap, params.classes, params.per_class)))


def _is_sphere(params: ContrastiveTemperatureParams) -> bool:
    return params.model == "sphere"


def _of_share(run: Run) -> Numbers:
    return {"share": share_of(_params(run))}


def _evenness(n: Numbers) -> float:
    same, others = n["per_class"] - 1.0, (n["classes"] - 1.0) * n["per_class"]
    return float(np.log((same * np.exp(-4.0 * (1.0 - n["share"])) + others * np.exp(-4.0)) / (same + others)))


def _bessel_ratio(n: Numbers) -> float:
    order, z = n["sphere_dim"] / 2.0, 1.0 / n["temperature"]
    return float(ive(order, z) / ive(order - 1.0, z))


def _has_bessel(params: ContrastiveTemperatureParams) -> bool:
    """Whether the Bessel functions are numbers: in many dimensions both underflow."""
    return _is_sphere(params) and bool(ive(params.sphere_dim / 2.0, 1.0 / params.temperature) > 1e-280)


def _of_sphere(run: Run) -> Numbers:
    values = run.prediction.prediction
    return {name: float(np.asarray(values[name])) for name in ("mean_similarity", "log_mean_exp")}


FORMULAS = (
    Formula(
        says="The best share of class, between 0 and 1: proportional to the temperature, by what a share of class is "
        "worth against that of the instance.",
        left="c^*",
        right=rf"\left[<temperature> <*> \ln {_COUNTS}\right]_0^1",
        value=lambda n: min(max(n["temperature"] * float(np.log(_odds(n))), 0.0), 1.0),
        predicts="share",
        when=_is_minimised,
    ),
    Formula(
        says="The temperature from which on classes collapse.",
        left=r"\tau_c",
        right=rf"\left(\ln {_COUNTS}\right)^{{-1}}",
        value=lambda n: 1.0 / float(np.log(_odds(n))),
        predicts="collapse_temperature",
        when=_collapses,
    ),
    Formula(
        says="What tolerance is paid with: uniformity, of classmates at a similarity c and strangers at right angles.",
        left=r"\mathrm{uniformity}",
        right=r"\ln\frac{(<per_class>-1) <*> e^{-4 <*> (1-<share>)} + (<classes>-1) <*> <per_class> <*> e^{-4}}"
        r"{<classes> <*> <per_class> - 1}",
        value=_evenness,
        predicts="uniformity",
        numbers=_of_share,
        symbols={"share": "c"},
        when=lambda params: params.model == "two_level" and params.geometry == "ideal",
    ),
    Formula(
        says="The mean similarity of the negatives that are pushed, a ratio of Bessel functions.",
        left="m",
        right=r"\frac{I_{<sphere_dim>/2}(1/<temperature>)}{I_{<sphere_dim>/2-1}(1/<temperature>)}",
        value=_bessel_ratio,
        predicts="mean_similarity",
        when=_has_bessel,
    ),
    Formula(
        says="Its limit at small temperatures, good only while temperature times dimension is small.",
        left="m",
        right=r"1 - \frac{<temperature> <*> (<sphere_dim>-1)}{2}",
        value=lambda n: 1.0 - n["temperature"] * (n["sphere_dim"] - 1.0) / 2.0,
        predicts="small_temperature_similarity",
        relation=r"\to",
        when=_is_sphere,
    ),
    Formula(
        says="How evenly the force is shared out: 0 where all negatives are pushed alike, far below 0 where few are.",
        left="H",
        right=r"<log_mean_exp> + \frac{1 - <mean_similarity>}{<temperature>}",
        value=lambda n: n["log_mean_exp"] + (1.0 - n["mean_similarity"]) / n["temperature"],
        predicts="force_entropy",
        numbers=_of_sphere,
        symbols={"log_mean_exp": r"\ln\mathbb{E}\,e^{(s-1)/\tau}", "mean_similarity": "m"},
        when=_is_sphere,
    ),
    Formula(
        says="The tolerance of points that know no class: the mean similarity of any two of N that add up to zero.",
        left=r"\mathrm{tolerance}",
        right=r"-\frac{1}{<classes> <*> <per_class> - 1}",
        value=lambda n: -1.0 / (n["classes"] * n["per_class"] - 1.0),
        predicts="tolerance",
        when=lambda params: params.model == "table" and params.swap == 0.0,
    ),
    Formula(
        says="There is no closed form where positives are classmates; this is what tolerance would be if none were.",
        left=r"\mathrm{tolerance}_0",
        right=r"-\frac{1}{<classes> <*> <per_class> - 1}",
        value=lambda n: -1.0 / (n["classes"] * n["per_class"] - 1.0),
        predicts=lambda run: theory.class_blind_similarity(_params(run).examples),
        when=lambda params: params.model == "table" and params.swap > 0.0,
    ),
)

STORY = Story(why=WHY, label=label, metric="force_entropy", formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """The temperature of collapse over the overlap of instances."""
    assert isinstance(base, ContrastiveTemperatureParams)
    if y is None or {x.name, y.name} != {"overlap", "temperature"} or base.model != "two_level":
        return None
    swept, other = (x, y) if x.name == "overlap" else (y, x)
    at = np.linspace(max(swept.span[0], 0.002), min(swept.span[1], 0.998), 120)
    limits = np.array([theory.collapse_temperature(a, base.classes, base.per_class) for a in at])
    kept = np.isfinite(limits) & (limits < 1.2 * other.span[1])
    points = (at[kept].tolist(), limits[kept].tolist())
    return [ChalkLine(*(points if swept is x else points[::-1]), "classes collapse above")]


SWEEP = SweepStory(
    x="overlap",
    x_range="0.1:0.95:10",
    y="temperature",
    y_range="0.05:0.8:8",
    metric="share",
    base={"geometry": "ideal", "replicates": 1, "steps": 60},
    notice="The share of class grows with the temperature up to the line, beyond which it is 1; where instances are "
    "stable there is no line, and no class.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """What temperature does: to the share of class, to a table, or to the force on uniform negatives."""
    model = _params(view.focus).model
    if model == "two_level":
        return [law(view), evenness(view), course(view, "share", "The best share is found")]
    if model == "table":
        return [sphere(view), course(view, "tolerance", "Tolerance"), course(view, "uniformity", "Uniformity")]
    return [force(view), course(view, "mean_similarity", "Which negatives are pushed")]


def _params(run: Run) -> ContrastiveTemperatureParams:
    assert isinstance(run.params, ContrastiveTemperatureParams)
    return run.params


# -- the two-level encoder -------------------------------------------------------------------------------------------


def curve_runs(params: ContrastiveTemperatureParams) -> list[ContrastiveTemperatureParams]:
    """The same encoder at a grid of temperatures, one draw each."""
    base = params.replace(replicates=1, steps=24, seed=0, first_replicate=0)
    return [base.replace(temperature=tau) for tau in CURVE]


def law(view: View) -> Picture:
    """Share of class, and what neighbours know, against the temperature."""
    p = _params(view.focus)
    wanted = curve_runs(p) if p.fit == "minimised" else []
    runs = [run for one in wanted if (run := view.at_hand(one)) is not None] + list(view.runs.values())
    rows = [
        {
            "tau": np.full(3, _params(run).temperature),
            "kind": np.array(KINDS, dtype=object),
            "value": np.array([np.mean(run.values[name]) for name in ("share", "class_accuracy", "retrieval")]),
        }
        for run in runs
    ]
    most = max(0.8, *(1.1 * _params(run).temperature for run in view.runs.values()))
    fine = np.linspace(0.0, most, 200)[1:]
    line = np.array([theory.best_share(tau, p.overlap, p.classes, p.per_class) for tau in fine])
    limit = theory.collapse_temperature(p.overlap, p.classes, p.per_class)
    x = alt.X(
        "tau:Q",
        title="temperature",
        scale=alt.Scale(domain=[0, most], nice=False),
        axis=alt.Axis(format="~g", grid=False),
    )
    y = alt.Y("value:Q", title="share", scale=alt.Scale(domain=[-0.02, 1.06], nice=False))
    hue = {
        "color": alt.Color("kind:N", sort=list(KINDS), scale=hues(KINDS), legend=point_legend(KINDS)),
        "shape": alt.Shape("kind:N", sort=list(KINDS), scale=shapes(KINDS), legend=point_legend(KINDS)),
    }
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True)
    rule = alt.Chart(alt.NamedData("collapse")).mark_rule(strokeDash=[2, 3], strokeWidth=1.6, color="$muted")
    points = alt.Chart(alt.NamedData("points")).mark_point(filled=True, size=75, opacity=0.95, clip=True)
    ends = (
        f"Classes collapse at {limit:.3g}." if np.isfinite(limit) else "Classes never collapse: 0 is best everywhere."
    )
    exact = {name: run.prediction.prediction["share"] for name, run in view.runs.items()}
    said = "; ".join(
        f"{name}: share {np.mean(run.values['share']):.3g}, theory {exact[name]:.3g}" for name, run in view.runs.items()
    )
    return Picture(
        id="law",
        title="Temperature decides what is tolerated",
        spec=layered(rule.encode(x), chalk.encode(x, y), points.encode(x, y, **hue)),
        alt=f"{said}. {ends}",
        data={
            "points": joined(rows),
            "theory": {"tau": fine, "value": line},
            "collapse": {"tau": [limit] if limit < most else []},
        },
        needs=wanted,
        note=f"Dashed: the best share of class in closed form. Dotted: the temperature of collapse. {ends}",
    )


def evenness(view: View) -> Picture:
    """Uniformity against the temperature: what tolerance is paid with."""
    p = _params(view.focus)
    wanted = curve_runs(p) if p.fit == "minimised" else []
    runs = [run for one in wanted if (run := view.at_hand(one)) is not None] + list(view.runs.values())
    at = np.array([_params(run).temperature for run in runs])
    values = np.array([float(np.mean(run.values["uniformity"])) for run in runs])
    most = max(0.8, 1.1 * float(np.max(at)))
    fine = np.linspace(0.0, most, 200)[1:]
    line = np.array(
        [
            theory.uniformity(
                theory.best_share(tau, p.overlap, p.classes, p.per_class), p.classes, p.per_class, dimension(p)
            )
            for tau in fine
        ]
    )
    both = np.concatenate([values, line])
    room = 0.06 * max(float(np.ptp(both)), 0.1)
    x = alt.X(
        "tau:Q",
        title="temperature",
        scale=alt.Scale(domain=[0, most], nice=False),
        axis=alt.Axis(format="~g", grid=False),
    )
    y = alt.Y(
        "value:Q",
        title="uniformity (lower is more even)",
        scale=alt.Scale(domain=[float(both.min()) - room, float(both.max()) + room], nice=False),
        axis=alt.Axis(format="~g"),
    )
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True)
    points = alt.Chart(alt.NamedData("points")).mark_point(filled=True, size=75, color=PALETTE[0], clip=True)
    said = "; ".join(f"{name}: {np.mean(run.values['uniformity']):.3g}" for name, run in view.runs.items())
    return Picture(
        id="evenness",
        title="Tolerance is paid with uniformity",
        spec=layered(chalk.encode(x, y), points.encode(x, y)),
        alt=f"Uniformity, {said}; in closed form from {line[0]:.3g} to {line[-1]:.3g}.",
        data={"points": {"tau": at, "value": values}, "theory": {"tau": fine, "value": line}},
        needs=wanted,
        note="Dashed: at the best share, with the spread of random directions.",
    )


# -- a table ---------------------------------------------------------------------------------------------------------


def sphere(view: View) -> Picture:
    """Two coordinates of the points of the table while it is trained; a third is told by size."""
    run = view.focus
    p = _params(run)
    frames = run.trace.frames["points"]
    count, many, axes = frames.shape
    names = [f"class {c + 1}" for c in range(p.classes)]
    depth = frames[:, :, 2] if axes > 2 else np.zeros((count, many))
    table = {
        "x": frames[:, :, 0].reshape(-1),
        "y": frames[:, :, 1].reshape(-1),
        "side": np.where(depth.reshape(-1) >= 0, "front", "back").astype(object),
        "class": np.tile(np.array([names[c] for c in labels(p)], dtype=object), count),
        "frame": np.repeat(np.arange(count), many),
    }
    turn = np.linspace(0, 2 * np.pi, 120)
    circle = {"x": np.cos(turn), "y": np.sin(turn), "order": np.arange(120)}
    scale = alt.Scale(domain=[-1.15, 1.15], nice=False)
    axis = alt.Axis(grid=False, tickCount=5, format="~g")
    x, y = (
        alt.X("x:Q", title="first coordinate", scale=scale, axis=axis),
        alt.Y("y:Q", title="second coordinate", scale=scale, axis=axis),
    )
    sizes = alt.Size(
        "side:N", sort=["front", "back"], scale=alt.Scale(domain=["front", "back"], range=[75, 28]), legend=None
    )
    told = point_legend(names) if p.classes <= 8 else None
    signs = [SHAPES[c % len(SHAPES)] for c in range(p.classes)]
    points = alt.Chart(alt.NamedData("points")).mark_point(filled=True, opacity=0.85, clip=True)
    outline = alt.Chart(alt.NamedData("circle")).mark_line(color="$muted", strokeWidth=1)
    end = float(np.mean(run.values["tolerance"]))
    return Picture(
        id="sphere",
        title=f"Points on the sphere: {view.focus_label}",
        spec=layered(
            outline.encode(x, y, alt.Order("order:Q")),
            points.encode(
                x,
                y,
                sizes,
                alt.Color("class:N", sort=names, scale=hues(names), legend=told),
                alt.Shape("class:N", sort=names, scale=alt.Scale(domain=names, range=signs), legend=told),
            ),
        ),
        alt=f"{many} points of {p.classes} classes; classmates end at a mean similarity of {end:.3g}.",
        data={"circle": circle},
        frames={"points": table},
        steps=run.trace.frame_step,
        note="First replicate, seen from one side: small points are on the far side.",
    )


def course(view: View, metric: str, title: str) -> Picture:
    """A recorded series of all runs."""
    return overlay(view, metric, id=metric, title=title)


# -- uniform negatives -----------------------------------------------------------------------------------------------


def force(view: View) -> Picture:
    """Density over the angle of the force on uniform negatives, drawn and in closed form."""
    names = list(view.runs)
    middle = (np.arange(BINS) + 0.5) * 180.0 / BINS
    fine = np.linspace(0.0, np.pi, 241)[1:-1]
    bars, lines, marks, said = [], [], [], []
    for name, run in view.runs.items():
        p = _params(run)
        drawn = np.nanmean(run.trace.finals["force_by_angle"], axis=0) * np.pi / 180.0
        bars.append({"run": name, "angle": middle, "value": drawn})
        exact = theory.force_density(p.sphere_dim, p.temperature, fine) * np.pi / 180.0
        lines.append({"run": name, "angle": fine * 180.0 / np.pi, "value": exact})
        mean = float(np.mean(run.values["mean_similarity"]))
        angle = np.degrees(np.arccos(np.clip([mean], -1, 1)))
        marks.append({"run": name, "angle": angle, "value": np.interp(angle, fine * 180.0 / np.pi, exact)})
        said.append(f"{name}: the force is on negatives of similarity {mean:.3g} in the mean.")
    x = alt.X(
        "angle:Q",
        title="angle to the example (degrees)",
        scale=alt.Scale(domain=[0, 180], nice=False),
        axis=alt.Axis(values=[0, 45, 90, 135, 180], grid=False),
    )
    top = 1.08 * max(float(np.max(one["value"])) for one in bars)
    y = alt.Y("value:Q", title="force per degree", scale=alt.Scale(domain=[0, top], nice=False))
    told = legend(names, symbols=True) if len(names) > 1 else None
    hue: Any = alt.Color("run:N", sort=names, scale=hues(names), legend=told)
    shape: Any = alt.Shape("run:N", sort=names, scale=shapes(names), legend=told)
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.0, color="$text", clip=True)
    mark = alt.Chart(alt.NamedData("marks"))
    return Picture(
        id="force",
        title="Where the force goes",
        spec=layered(
            mark.mark_rule(strokeDash=[2, 3], strokeWidth=1.6).encode(x, y, alt.Y2(datum=0), hue),
            alt.Chart(alt.NamedData("drawn")).mark_line(strokeWidth=2.4, clip=True).encode(x, y, hue),
            chalk.encode(x, y, alt.Detail("run:N")),
            mark.mark_point(filled=True, size=110, opacity=1).encode(x, y, hue, shape),
        ),
        alt=" ".join(said),
        data={"drawn": joined(bars), "theory": joined(lines), "marks": joined(marks)},
        note="Solid: drawn negatives, each counted with its force. Dashed, in ink: closed form. Points: the mean.",
    )
