"""The page of the projection head: its derivation and its pictures."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from app.frame.page import Story
from app.frame.pictures import Curve, Picture, finish, hues, joined, overlay, point_legend
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.projection_head.lab import KINDS, ProjectionHeadParams
from sims.projection_head.prediction import downstream, final_gram
from theory.projection_head import half_time, layer_weights

WHY = r"""
**The model.** Feature $j$ is a random sign $e_j$ of size $\varphi_j$, and a view adds noise of size $\nu_j$. Across the
two views of an example it has the moment $p = \varphi^2$, within one $q = \varphi^2 + \nu^2$. A deep linear encoder
$E = W_L \cdots W_1$ minimises $$L = -2\,\mathrm{tr}\,E P E^\top + \mathrm{tr}\,(E Q E^\top)^2 .$$

**1. What comes out.** Only $M = E^\top E$ enters, and the best one is diagonal, $M_j = p_j/q_j^2$. A feature that views
drown in noise gets little weight, a clean one much: after the head feature $j$ has the weight $\sqrt{p_j}/q_j$.

**2. What each layer adds.** Under gradient flow $W_{l+1}^\top W_{l+1} - W_l W_l^\top$ never changes. From a small start
it is nearly zero, and weight decay shrinks it as $e^{-2\lambda t}$. Then all layers share their singular values, each
takes the same share of every feature's log-gain, and after $l$ layers $$g_l = M_j^{\,l/2L} .$$ Before the head of two
layers the weights are square roots: the same order, more even.

**3. Which layer to use.** Fit $n$ labelled examples on features of amplitude $g_l\varphi_j$. With $s_j$ its square,
choose $\kappa$ with $\sum_j s_j/(s_j+\kappa) + \delta/\kappa = n$; with $L_j = s_j/(s_j+\kappa)$ the test error is
close to $$\frac{(1-L_i)^2}{1 - \sum_j L_j^2/n} .$$ What counts is the share of the relevant feature $i$ in all of
$s$. If the head suppresses it, an earlier layer is better; if the head favours it, throwing it away hurts. With loud
noisy features above it and faint clean ones below, a layer in between is best.

**4. What is learned first.** From balanced layers each feature has an equation of its own, $\dot a = 4\,(p -
q^2a^{2L})\,a^{2L-1}$ for the gain of a layer. With two layers it waits about $1/(8 p\,a_0^2)$: the order is that of
strength, not of the final weight, so that a faint clean feature, in the end the heaviest, comes last.

**5. Where it ends.** From a large random start the output is the same, but the layers are not balanced and the weights
before the head are no square roots. Weight decay $\lambda$ restores the balance and moves the end to the root of
$4(p-q^2m)\sqrt m = \lambda$. It also makes zero attractive: what starts with $4 p\,a_0^2 < \lambda$ dies.
"""

_INIT = {"aligned": "balanced", "gaussian": "random"}


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, ProjectionHeadParams)
    decay = f", decay {params.weight_decay:g}" if params.weight_decay else ""
    return f"{params.layers} layers, {_INIT[params.init]} start {params.init_scale:g}{decay}"


STORY = Story(why=WHY, label=label, metric="loss")


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """Steps after which the slowest feature is half grown, over sizes of the start."""
    assert isinstance(base, ProjectionHeadParams)
    if y is None or {x.name, y.name} != {"init_scale", "steps"} or base.training != "descent":
        return None
    swept = x if x.name == "init_scale" else y
    phi, nu = np.array(base.phi), np.array(base.nu)
    p, q = phi**2, phi**2 + nu**2
    starts = np.geomspace(*swept.span, 40)
    times = [max((half_time(a, b, s, base.layers) for a, b in zip(p, q, strict=True)), default=np.nan) for s in starts]
    kept = np.isfinite(times)
    points = (starts[kept].tolist(), (np.array(times)[kept] / base.learning_rate).tolist())
    return [ChalkLine(*(points if swept is x else points[::-1]), "the slowest feature is half grown")]


SWEEP = SweepStory(
    x="init_scale",
    x_range="0.03,0.05,0.08,0.12,0.2,0.3",
    y="steps",
    y_range="1000,2000,4000,8000,16000,32000",
    metric="post_4",
    base={"learning_rate": 0.01, "replicates": 1},
    notice="The heaviest feature is the last to be learned: below the line it has no weight yet.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """Weights layer by layer, the task downstream, and how weights and imbalance get there."""
    p = _params(view.focus)
    drawn = [weights(view)]
    if p.features > p.n_labelled:
        drawn.append(errors(view))
    drawn.append(course(view))
    if p.layers > 1 and np.any(view.focus.trace.series["imbalance"] > 1e-9):
        drawn.append(imbalance(view))
    return drawn


def _params(run: Run) -> ProjectionHeadParams:
    assert isinstance(run.params, ProjectionHeadParams)
    return run.params


def _kind_names(params: ProjectionHeadParams) -> list[str]:
    """What to call the kinds of features in a legend."""
    names = []
    for i, (size, noise, count) in enumerate(zip(params.phi, params.nu, params.counts, strict=True)):
        words = "relevant" if i + 1 == params.relevant and params.features > params.n_labelled else f"feature {i + 1}"
        many = f"{count} features" if count > 1 else words
        names.append(f"{many}, φ = {size:g}, ν = {noise:g}")
    return (
        list(dict.fromkeys(names)) if len(set(names)) == len(names) else [f"{i + 1}: {n}" for i, n in enumerate(names)]
    )


# -- layers ----------------------------------------------------------------------------------------------------------


def weights(view: View) -> Picture:
    """The weight of each kind of feature after 0, 1, ..., L layers, and the straight lines of equal shares."""
    run = view.focus
    p = _params(run)
    names = _kind_names(p)
    frames = run.trace.frames["weights"]
    count, depth, kinds = frames.shape
    end = frames[-1] if np.all(np.isfinite(frames[-1])) else frames[0]
    gram = np.array(final_gram(p))
    exact = layer_weights(np.where(gram > 0, gram, np.nan), p.layers)
    positive = np.concatenate([frames[np.isfinite(frames) & (frames > 0)], exact[np.isfinite(exact)], [0.5, 1.5]])
    low, high = max(float(positive.min()), 1e-3) / 1.3, float(positive.max()) * 1.3
    layer = np.tile(np.repeat(np.arange(depth), kinds), count)
    moved = {
        "layer": layer,
        "kind": np.tile(np.array(names, dtype=object), count * depth),
        "value": np.clip(frames.reshape(-1), low, high),
        "frame": np.repeat(np.arange(count), depth * kinds),
    }
    finite = np.isfinite(moved["value"])
    lines = {
        "layer": np.repeat(np.arange(depth), kinds),
        "kind": np.tile(np.array(names, dtype=object), depth),
        "value": exact.reshape(-1),
    }
    drawn = np.isfinite(lines["value"])
    axis = alt.Axis(values=list(range(depth)), format="d", grid=False)
    x = alt.X("layer:Q", title="layers passed", scale=alt.Scale(domain=[-0.15, depth - 0.85], nice=False), axis=axis)
    y = alt.Y(
        "value:Q",
        title="weight of a feature",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format="~g", tickCount=6),
    )
    hue = alt.Color("kind:N", sort=names, scale=hues(names), legend=point_legend([*names, ""]))
    now = alt.Chart(alt.NamedData("now"))
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True)
    layers: list[Any] = [
        chalk.encode(x, y, alt.Detail("kind:N")),
        now.mark_line(strokeWidth=1.8, clip=True).encode(x, y, hue),
        now.mark_point(filled=True, size=80, opacity=1, clip=True).encode(x, y, hue),
    ]
    said = "; ".join(
        f"{name}: before the head {end[-2, i]:.3g}, after it {end[-1, i]:.3g}"
        + (f" (theory {exact[-2, i]:.3g} and {exact[-1, i]:.3g})" if gram[i] > 0 else " (theory: it dies)")
        for i, name in enumerate(names)
    )
    return Picture(
        id="weights",
        title=f"Weights layer by layer: {view.focus_label}",
        spec=finish(alt.layer(*layers)),
        alt=f"{view.focus_label}, at the end. {said}.",
        data={"theory": {name: column[drawn] for name, column in lines.items()}},
        frames={"now": {name: column[finite] for name, column in moved.items()}},
        steps=run.trace.frame_step,
        note="First replicate. Dashed: equal shares of the log-gain, straight lines on this axis.",
    )


# -- downstream ------------------------------------------------------------------------------------------------------


def errors(view: View) -> Picture:
    """Test error of a probe on few labels against the layer it is put on, measured and expected."""
    names = list(view.runs)
    dots, lines, said = [], [], []
    for name, run in view.runs.items():
        p = _params(run)
        found = run.trace.finals["mse_by_layer"]
        if not np.any(np.isfinite(found)):
            said.append(f"{name}: all {len(found)} diverged.")
            continue
        mean = np.nanmean(found, axis=0)
        spread = np.nanstd(found, axis=0) / max(np.sqrt(len(found)), 1.0)
        share = np.arange(len(mean)) / p.layers
        dots.append({"run": name, "depth": share, "value": mean, "low": mean - spread, "high": mean + spread})
        lines.append({"run": name, "depth": share, "value": downstream(p)})
        best = int(np.argmin(mean))
        said.append(f"{name}: {', '.join(f'{v:.3g}' for v in mean)} from input to output, least after {best} layers.")
    x = alt.X(
        "depth:Q",
        title="depth of the probe: 0 input, 1 output of the head",
        scale=alt.Scale(domain=[-0.05, 1.05], nice=False),
        axis=alt.Axis(format="~g", tickCount=5, grid=False),
    )
    top = max([1.0, *(float(np.max(one["high"])) for one in dots)])
    y = alt.Y("value:Q", title="test error", scale=alt.Scale(domain=[0, 1.05 * top], nice=False))
    hue = alt.Color("run:N", sort=names, scale=hues(names), legend=point_legend(names))
    points = alt.Chart(alt.NamedData("dots"))
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text")
    empty = {"run": names[0], "depth": np.zeros(0), "value": np.zeros(0), "low": np.zeros(0), "high": np.zeros(0)}
    return Picture(
        id="errors",
        title="Which layer to keep",
        spec=finish(
            alt.layer(
                chalk.encode(x, y, alt.Detail("run:N")),
                points.mark_rule(strokeWidth=2).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), hue),
                points.mark_point(filled=True, size=90, opacity=1).encode(x, y, hue),
            )
        ),
        alt=" ".join(said),
        data={"dots": joined(dots or [empty]), "theory": joined(lines or [empty])},
        note=f"A linear probe on {_params(view.focus).n_labelled} labelled examples: mean over draws, one a replicate, "
        "with its standard error. Dashed: the deterministic equivalent.",
    )


# -- training --------------------------------------------------------------------------------------------------------


def course(view: View) -> Picture:
    """The weight of each kind after the head while it is trained."""
    run = view.focus
    names = _kind_names(_params(run))[:KINDS]
    curves = [Curve(name, run, f"post_{i + 1}", f"post_{i + 1}", i) for i, name in enumerate(names)]
    drawn = overlay(
        view,
        curves,
        id="course",
        title=f"Features are learned one by one: {view.focus_label}",
        y_title="weight after the head",
        note="Dashed: the equation of each feature from balanced layers; from other starts its end.",
    )
    others = "".join(f" {name}: not drawn here." for name in view.runs if name != view.focus_label)
    words = f"{view.focus_label}: {drawn.alt}{others}"
    return Picture(
        drawn.id, drawn.title, drawn.spec, words, drawn.data, drawn.frames, drawn.note, drawn.needs, drawn.steps
    )


def imbalance(view: View) -> Picture:
    """How unequal the layers are, while they are trained."""
    return overlay(
        view,
        "imbalance",
        id="imbalance",
        title="Imbalance of the layers",
        note="Gradient flow keeps it; weight decay shrinks it.",
    )
