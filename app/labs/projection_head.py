"""The page of the projection head: its derivation and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np

from app.frame.formula import Formula, Numbers
from app.frame.page import Story
from app.frame.pictures import Curve, Picture, hues, joined, layered, overlay, point_legend, rounds, shapes
from app.frame.runs import View
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.projection_head.lab import KINDS, ProjectionHeadParams
from sims.projection_head.prediction import (
    balanced,
    bottleneck,
    downstream,
    final_gram,
    half_times,
    kinds_of,
    not_converged,
)
from theory.projection_head import effective_ridge, half_time, imbalance_decay, layer_weights

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


def _at(params: ProjectionHeadParams) -> int:
    """The kind of the feature that is the task's label, from 0: the one that the formulas speak of."""
    return params.relevant - 1


def _feature(run: Run) -> Numbers:
    """Its size and noise; the outputs of the head."""
    params, at = _params(run), _at(_params(run))
    return {"strengths": params.phi[at], "noises": params.nu[at], "outputs": params.outputs}


def _gram(run: Run) -> float:
    """Its squared weight after the head in the end, by the lab's theory."""
    return final_gram(_params(run))[_at(_params(run))]


def _ends_at_minimum(params: ProjectionHeadParams) -> bool:
    return params.weight_decay == 0.0 and bottleneck(params) is None


def _waits(params: ProjectionHeadParams) -> bool:
    """Balanced layers without decay, of a feature that starts far below its end."""
    end = final_gram(params)[_at(params)] if params.weight_decay == 0.0 else 0.0
    return balanced(params) and params.init_scale**2 < 0.1 * np.sqrt(end)


def _lives(params: ProjectionHeadParams) -> bool:
    """Whether weight decay lets the feature grow."""
    return params.weight_decay > 0.0 and bottleneck(params) is None and final_gram(params)[_at(params)] > 0.0


def _is_unequal(params: ProjectionHeadParams) -> bool:
    """A known imbalance that training keeps."""
    kept = params.training == "descent" and params.weight_decay == 0.0
    return kept and params.layers > 1 and params.init == "aligned" and params.head_ratio != 1.0


def _has_task(params: ProjectionHeadParams) -> bool:
    many = params.features > params.n_labelled and params.weight_decay == 0.0
    return many and bottleneck(params) is None and not_converged(params) is None


def _kept(run: Run) -> Numbers:
    """The outputs of the head, and the squared alignments that it holds."""
    params = _params(run)
    p, q = kinds_of(params)
    every = np.repeat((p / q) ** 2, params.counts)
    return {"outputs": params.outputs, "sum": float(np.sum(np.sort(every)[::-1][: params.outputs]))}


def _of_probe(before: int) -> Callable[[Run], Numbers]:
    """How much of the label the probe on that many layers before the output learns, and of everything together."""

    def numbers(run: Run) -> Numbers:
        params = _params(run)
        weight = layer_weights(np.array(final_gram(params)), params.layers)[params.layers - before]
        power = np.repeat((weight * np.array(params.phi)) ** 2, params.counts)
        learned = power / (power + effective_ridge(power, params.n_labelled, params.ridge))
        own = learned[int(sum(params.counts[: _at(params)]))]
        return {"learned": float(own), "all": float(np.sum(learned**2))}

    return numbers


_SIZES = {"strengths": r"\phi", "noises": r"\nu", "outputs": "k"}
_SHARE = r"\frac{<strengths>}{<strengths>^2 + <noises>^2}"
_PROBES = {"learned": "L_i", "all": r"\textstyle\sum_j L_j^2"}
_ERROR = r"\frac{(1 - <learned>)^2}{1 - <all>/<n_labelled>}"


def _share(n: Numbers) -> float:
    return n["strengths"] / (n["strengths"] ** 2 + n["noises"] ** 2)


def _error(n: Numbers) -> float:
    return (1.0 - n["learned"]) ** 2 / (1.0 - n["all"] / n["n_labelled"])


FORMULAS = (
    Formula(
        says="The weight of the relevant feature after the head, in the end: the noise of views counts more than "
        "strength.",
        left=r"g_L",
        right=_SHARE,
        value=_share,
        predicts=lambda run: float(np.sqrt(_gram(run))),
        numbers=_feature,
        symbols=_SIZES,
        when=_ends_at_minimum,
    ),
    Formula(
        says="Its weight before the head: each of the layers has taken an equal share of the log-gain.",
        left=r"g_{L-1}",
        right=rf"\left({_SHARE}\right)^{{(<layers>-1)/<layers>}}",
        value=lambda n: _share(n) ** ((n["layers"] - 1.0) / n["layers"]),
        predicts=lambda run: float(_gram(run) ** ((_params(run).layers - 1.0) / (2.0 * _params(run).layers))),
        numbers=_feature,
        symbols=_SIZES,
        when=lambda params: _ends_at_minimum(params) and params.layers > 1,
    ),
    Formula(
        says="When the relevant feature is half grown, in time of gradient flow: strength decides, and a small start "
        "costs dearly.",
        left="t_{1/2}",
        right=r"\frac{1}{8 <*> <strengths>^2 <*> <init_scale>^2}",
        value=lambda n: 1.0 / (8.0 * n["strengths"] ** 2 * n["init_scale"] ** 2),
        predicts=lambda run: half_times(_params(run))[_at(_params(run))],
        relation=r"\approx",
        numbers=_feature,
        symbols=_SIZES,
        when=lambda params: params.layers == 2 and _waits(params),
        tolerance=0.1,
    ),
    Formula(
        says="When the relevant feature is half grown, in time of gradient flow: of a single layer even a small start "
        "grows at once.",
        left="t_{1/2}",
        right=r"\frac{1}{8 <*> <strengths>^2} <*> "
        r"\ln\left(\left(\frac{<strengths>}{(<strengths>^2 + <noises>^2) <*> <init_scale>}\right)^2 - 1\right)",
        value=lambda n: float(np.log((_share(n) / n["init_scale"]) ** 2 - 1.0)) / (8.0 * n["strengths"] ** 2),
        predicts=lambda run: half_times(_params(run))[_at(_params(run))],
        numbers=_feature,
        symbols=_SIZES,
        when=lambda params: params.layers == 1 and _waits(params),
    ),
    Formula(
        says="The least loss: the squared alignments of the features that the outputs of the head can hold.",
        left=r"L_{\min}",
        right=r"-\sum_{j=1}^{<outputs>} \frac{\phi_j^4}{(\phi_j^2+\nu_j^2)^2}",
        value=lambda n: -n["sum"],
        predicts="min_loss",
        numbers=_kept,
        symbols=_SIZES,
    ),
    Formula(
        says="Where weight decay ends: with m, the squared weight of the relevant feature after the head, the pull of "
        "the loss equals it.",
        left=r"\lambda",
        right=r"4 <*> \left(<strengths>^2 - (<strengths>^2+<noises>^2)^2 <*> <m>\right) <*> <m>^{1-1/<layers>}",
        value=lambda n: (
            4.0
            * (n["strengths"] ** 2 - (n["strengths"] ** 2 + n["noises"] ** 2) ** 2 * n["m"])
            * n["m"] ** (1.0 - 1.0 / n["layers"])
        ),
        predicts=lambda run: _params(run).weight_decay,
        numbers=lambda run: {**_feature(run), "m": _gram(run)},
        symbols={**_SIZES, "m": "m"},
        when=_lives,
        tolerance=1e-6,
    ),
    Formula(
        says="What weight decay leaves of the imbalance of the layers: its share at the end of training.",
        left=r"\frac{\mathrm{imbalance}(t)}{\mathrm{imbalance}(0)}",
        right=r"e^{-2 <*> <weight_decay> <*> <learning_rate> <*> <steps>}",
        value=lambda n: float(np.exp(-2.0 * n["weight_decay"] * n["learning_rate"] * n["steps"])),
        predicts=lambda run: float(imbalance_decay(_params(run).weight_decay, np.array([_params(run).time]))[0]),
        symbols={"steps": "K"},
        when=lambda params: params.weight_decay > 0.0 and params.training == "descent" and params.layers > 1,
    ),
    Formula(
        says="The imbalance of the layers, which gradient flow keeps.",
        left=r"\|W_2^\top W_2 - W_1 W_1^\top\|",
        right=r"\sqrt{<features>} <*> <init_scale>^2 <*> \left|<head_ratio>^2 - 1\right|",
        value=lambda n: np.sqrt(n["features"]) * n["init_scale"] ** 2 * abs(n["head_ratio"] ** 2 - 1.0),
        predicts="imbalance",
        numbers=lambda run: {"features": _params(run).features},
        symbols={"features": "d", "head_ratio": r"\rho"},
        when=_is_unequal,
    ),
    Formula(
        says="The test error of a probe before the head; L is the share that few labels teach of each feature.",
        left=r"\mathrm{MSE}_{L-1}",
        right=_ERROR,
        value=_error,
        predicts="mse_pre",
        relation=r"\approx",
        numbers=_of_probe(1),
        symbols=_PROBES,
        when=_has_task,
    ),
    Formula(
        says="The same after the head, whose weights are further apart.",
        left=r"\mathrm{MSE}_L",
        right=_ERROR,
        value=_error,
        predicts="mse_post",
        relation=r"\approx",
        numbers=_of_probe(0),
        symbols=_PROBES,
        when=_has_task,
    ),
)

STORY = Story(why=WHY, label=label, metric="loss", x_axes=("time",), formulas=FORMULAS)


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
        axis=alt.Axis(format="~g", values=rounds(low, high)),
    )
    told = point_legend([*names, ""])
    hue = alt.Color("kind:N", sort=names, scale=hues(names), legend=told)
    shape = alt.Shape("kind:N", sort=names, scale=shapes(names), legend=told)
    now = alt.Chart(alt.NamedData("now"))
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text", clip=True)
    layers: list[Any] = [
        chalk.encode(x, y, alt.Detail("kind:N")),
        now.mark_line(strokeWidth=1.8, clip=True).encode(x, y, hue),
        now.mark_point(filled=True, size=80, opacity=1, clip=True).encode(x, y, hue, shape),
    ]
    said = "; ".join(
        f"{name}: before the head {end[-2, i]:.3g}, after it {end[-1, i]:.3g}"
        + (f" (theory {exact[-2, i]:.3g} and {exact[-1, i]:.3g})" if gram[i] > 0 else " (theory: it dies)")
        for i, name in enumerate(names)
    )
    return Picture(
        id="weights",
        title=f"Weights layer by layer: {view.focus_label}",
        spec=layered(*layers),
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
    shape = alt.Shape("run:N", sort=names, scale=shapes(names), legend=point_legend(names))
    points = alt.Chart(alt.NamedData("dots"))
    chalk = alt.Chart(alt.NamedData("theory")).mark_line(strokeDash=[7, 4], strokeWidth=2.2, color="$text")
    empty = {"run": names[0], "depth": np.zeros(0), "value": np.zeros(0), "low": np.zeros(0), "high": np.zeros(0)}
    return Picture(
        id="errors",
        title="Which layer to keep",
        spec=layered(
            chalk.encode(x, y, alt.Detail("run:N")),
            points.mark_rule(strokeWidth=2).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), hue),
            points.mark_point(filled=True, size=90, opacity=1).encode(x, y, hue, shape),
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
