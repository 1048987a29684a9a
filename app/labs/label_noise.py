"""The page of label noise: its derivation and its four pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import altair as alt
import numpy as np

from app.frame.confirmed import Experiment, LaidOver, Points
from app.frame.formula import Formula
from app.frame.page import Story
from app.frame.pictures import CLAIMED, PALETTE, Picture, layered, overlay
from app.frame.runs import View
from app.frame.specs import fill
from app.frame.sweep_story import Axis, ChalkLine, SweepStory
from sims.engine import Params, Run
from sims.label_noise.lab import PRESETS, LabelNoiseParams, annealed
from sims.label_noise.prediction import chalk, chalks

MOST_COORDINATES = 100
_WORDS = {
    "gd": "gradient descent",
    "gd_label_noise": "label noise",
    "sgd_label_noise": "batch-one, label noise",
    "minibatch_noise": "mini-batch noise",
    "sgd": "batch-one, no label noise",
    "gaussian_noise": "Gaussian noise",
}

WHY = r"""
**The model.** A linear predictor $\beta = v \odot v$ is trained on $n < d$ samples with the loss $L(v) =
\frac1{4n}\sum_i (\langle x_i, \beta\rangle - y_i)^2$. Its gradient is $g \odot v$ with $g = \frac1n
X^\top(X\beta - y)$: every update multiplies each weight, so a weight that is small stays small and is hardly
noisy. There is a whole surface of perfect fits, $X\beta = y$; the question is which of them training finds.

**1. What label noise does.** Add $\xi \sim N(0,\delta^2)$ to one label at each step. The gradient then carries
the extra term $-\xi\, x_I \odot v$, which vanishes where weights vanish. Its covariance is $\frac{\delta^2}{2}
H$, proportional to the Hessian of the loss, so on the surface of perfect fits it never pushes *along* the
surface, only away from it and back.

**2. The drift.** Take logarithms: $\log|1 - \eta G_j| = -\eta G_j - \tfrac12\eta^2 G_j^2 - \dots$ The
first-order part only moves $\log\beta$ by a combination of the rows of $X$. The second-order part does not
cancel: on average it lowers $\log\beta_j$ by $\eta^2\delta^2 c_j$ a step, with $c_j = \frac1n\sum_i x_{ij}^2$.

**3. The slow clock.** Count time as $T = \sum_k \eta_k^2\delta_k^2$. For small $\eta$, $\log\beta_j$ is its
starting value, minus $c_j T$, plus a combination of the rows of $X$ that keeps $X\beta = y$. That is the
optimality condition of a projection: $$\beta(T) = \arg\min_{\beta \ge 0,\; X\beta = y} \;
\mathrm{KL}\left(\beta \,\|\, \alpha^2 e^{-cT}\right).$$ Label noise shrinks the *effective* initialisation,
$\alpha^2 \to \alpha^2 e^{-c_jT}$. This is the thin line; at $T = 0$ it is where gradient descent stops.

**4. The end.** As $T \to \infty$ the projection becomes the linear program $\min \sum_j c_j\beta_j$ over the
perfect fits: the least weighted $\ell_1$ norm, half the trace of the Hessian. It is the sparse truth when $n$
exceeds a threshold $n^*$ (about 16.7 samples for $d = 100$, $r = 5$). The paper's own condition, $n$ of order
$r^2$, is sufficient and not sharp.

**5. The floor.** With constant $\eta$ and $\delta$ the residual keeps jittering around zero, which leaves
$\mathbb{E}\,\|\beta - \beta^*\|^2 \approx \eta\delta^2\|\beta^*\|_1$. The chalk line is the slow flow plus this
floor.

**6. What the others do.** Gradient descent has no second-order drift to speak of and stays at $T = 0$: its
error grows as $\alpha^4$. Mini-batch noise is proportional to the residuals and dies out with them. Spherical
Gaussian noise is additive, pushes every weight away from zero alike, and makes $\|v\|^2$ grow at the rate $d -
2n$ when the norm is large.

**An identity without any limit.** Summing $\eta G$ along the run, every multiplicative algorithm satisfies
$v_K^2 = \arg\min\, \mathrm{KL}(\beta\,\|\,\alpha^2 e^{s})$ subject to $X\beta = X v_K^2$, with $s =
2\log|v_K/\alpha| + 2\sum_k \eta_k G_k$. The claim *conserved* checks it to many digits.
"""


def label(params: Params) -> str:
    """What to call a run in a legend."""
    assert isinstance(params, LabelNoiseParams)
    schedule = getattr(params, "noise_schedule", "constant") if params.is_active("noise_schedule") else "constant"
    return _WORDS[params.algorithm] + {"constant": "", "anneal": ", annealed", "stairs": ", stairs"}[schedule]


def _is_noisy(params: LabelNoiseParams, schedule: str) -> bool:
    return params.is_active("noise_schedule") and params.noise_schedule == schedule


def _c_mean(run: Run) -> dict[str, float]:
    """The mean second moment of the covariates, and the slow time of the run."""
    params = run.params
    assert isinstance(params, LabelNoiseParams)
    every = chalks(params)
    return {"c": float(np.mean([np.mean(one.data.c) for one in every])), "T": float(every[0].clock[-1])}


def _truth_norm(run: Run) -> dict[str, float]:
    params = run.params
    assert isinstance(params, LabelNoiseParams)
    return {"norm": float(np.mean([np.sum(np.abs(one.data.beta_star)) for one in chalks(params)]))}


_CLOCK = "The slow clock: what label noise does depends on the number of steps through this time alone."

FORMULAS = (
    Formula(
        says=_CLOCK,
        left="T",
        right=r"<steps> <*> <learning_rate>^2 <*> <noise_std>^2",
        value=lambda n: n["steps"] * n["learning_rate"] ** 2 * n["noise_std"] ** 2,
        predicts="slow_time",
        when=lambda params: _is_noisy(params, "constant"),
    ),
    Formula(
        says=f"{_CLOCK} Noise whose size fades as (1 - k/K)² makes it a fifth of that of constant noise.",
        left="T",
        right=r"\frac{<steps>}{5} <*> <learning_rate>^2 <*> <noise_std>^2",
        value=lambda n: n["steps"] / 5.0 * n["learning_rate"] ** 2 * n["noise_std"] ** 2,
        predicts="slow_time",
        relation=r"\approx",
        when=lambda params: _is_noisy(params, "anneal"),
        tolerance=0.1,
    ),
    Formula(
        says=f"{_CLOCK} With a rate that falls tenfold twice, hardly anything but the first third counts.",
        left="T",
        right=r"\frac{<steps>}{3} <*> <learning_rate>^2 <*> <noise_std>^2 \left(1 + 10^{-2} + 10^{-4}\right)",
        value=lambda n: n["steps"] / 3.0 * n["learning_rate"] ** 2 * n["noise_std"] ** 2 * 1.0101,
        predicts="slow_time",
        relation=r"\approx",
        when=lambda params: _is_noisy(params, "stairs"),
        tolerance=0.1,
    ),
    Formula(
        says="Label noise shrinks the effective start: the mean logarithm of what weights have been multiplied with.",
        left=r"\mathrm{mean}_j\,\log(\alpha_j^2(T)/\alpha^2)",
        right=r"-<c> <*> <T>",
        value=lambda n: -n["c"] * n["T"],
        predicts="mean_shrink",
        numbers=_c_mean,
        symbols={"c": r"\overline{c}", "T": "T"},
        when=lambda params: params.algorithm == "gd_label_noise" and params.delta > 0,
    ),
    Formula(
        says="The floor: what constant noise leaves of the error however long one trains.",
        left=r"\mathbb{E}\,\|\beta-\beta^*\|^2",
        right=r"<learning_rate> <*> <noise_std>^2 <*> <norm>",
        value=lambda n: n["learning_rate"] * n["noise_std"] ** 2 * n["norm"],
        predicts="noise_floor",
        relation=r"\approx",
        numbers=_truth_norm,
        symbols={"norm": r"\|\beta^*\|_1"},
        when=lambda params: params.algorithm == "gd_label_noise" and _is_noisy(params, "constant"),
    ),
)

STORY = Story(why=WHY, label=label, metric="test_error", x_axes=("slow_time",), formulas=FORMULAS)


def boundary(base: Params, x: Axis, y: Axis | None) -> list[ChalkLine] | None:
    """The number of samples beyond which the least norm is the truth, over samples and sparsity or dimension."""
    assert isinstance(base, LabelNoiseParams)
    axes = [x] if y is None else [x, y]
    names = [axis.name for axis in axes]
    if "n_train" not in names or base.covariates == "planar":
        return None
    reason = _no_recovery(base)
    words = "n*, sharp recovery threshold" + (f" ({reason})" if reason else "")
    if y is None:
        return [ChalkLine([_threshold(base)], [], words, claimed=not reason)]
    (other,) = [axis for axis in axes if axis.name != "n_train"]
    if other.name not in ("sparsity", "dim"):
        return [ChalkLine(*_along(x, [_threshold(base)] * 2, list(other.span)), words, claimed=not reason)]
    low, high = other.span
    whole = np.unique(np.round(np.linspace(max(1.0, low), high, 80)))
    possible = [int(v) for v in whole if (v <= base.dim if other.name == "sparsity" else v >= base.sparsity)]
    sizes = [_threshold(base, **{other.name: value}) for value in possible]
    return [ChalkLine(*_along(x, sizes, [float(value) for value in possible]), words, claimed=not reason)]


def _along(x: Axis, sizes: list[float], others: list[float]) -> tuple[list[float], list[float]]:
    """Points of a line as (x, y), whichever of the two axes the number of samples is on."""
    return (sizes, others) if x.name == "n_train" else (others, sizes)


def _no_recovery(params: LabelNoiseParams) -> str:
    """Why the threshold is not one of this algorithm, which then need not end at the least norm."""
    if params.algorithm not in ("gd_label_noise", "sgd_label_noise"):
        return f"of label noise, not of {_WORDS[params.algorithm]}"
    return "" if params.covariates == "gaussian" else "proved for Gaussian inputs"


SWEEP = SweepStory(
    x="n_train",
    x_range="6,10,14,18,22,28,34,40",
    y="sparsity",
    y_range="1,3,5,7,9,12",
    metric="recovered",
    base=dict(annealed(0.02, 20_000, 20.0)) | {"fresh_data": True, "replicates": 4},
    notice="More samples than the dashed line and label noise finds the sparse truth; fewer and the least norm is "
    "another vector. Near the line recovery is slow, so that it comes a little later than promised.",
    boundary=boundary,
)


def pictures(view: View) -> list[Picture]:
    """Error against training, the weights, the plane, and the recovery curve."""
    silent = view.focus.prediction.prediction["slow_flow_test_error"] is None
    error = overlay(
        view,
        "test_error",
        id="error",
        title="Distance from the truth",
        thin="slow_flow_test_error",
        floor=None if silent else "noise_floor",
    )
    drawn = [error, stems(view)]
    params = view.focus.params
    assert isinstance(params, LabelNoiseParams)
    if params.algorithm == "gaussian_noise":
        drawn.append(overlay(view, "norm_sq", id="norm", title="Squared norm of the weights"))
    return [*drawn, plane(view), recovery(view)]


def stems(view: View) -> Picture:
    """The learned coordinates of the run in focus, moving through training, beside the truth and the others' ends."""
    run = view.focus
    params = run.params
    assert isinstance(params, LabelNoiseParams)
    theory = chalk(params, params.data_number(params.first_replicate))
    beta = run.trace.frames["beta"][:, :MOST_COORDINATES]
    count, d = beta.shape
    at = np.searchsorted(run.trace.step, run.trace.frame_step)
    path = theory.clocked_path if run.prediction.prediction["test_error"] is not None else None
    coordinate = np.arange(1, d + 1)
    frames = {
        "frame": np.repeat(np.arange(count), d),
        "coordinate": np.tile(coordinate, count),
        "beta": beta.reshape(-1),
    }
    if path is not None:
        frames["theory"] = path[at][:, :d].reshape(-1)
    others = [(label, other) for label, other in view.runs.items() if other is not run and _same_problem(other, run)]
    columns: list[tuple[Any, ...]] = [(np.full(d, "truth", dtype=object), coordinate, theory.data.beta_star[:d])]
    for label, other in others[:1]:
        end = other.trace.finals["beta"][0][:d]
        known = np.isfinite(end)  # of a run that diverged nothing is drawn
        columns.append((np.full(np.sum(known), f"{label}, end", dtype=object), coordinate[known], end[known]))
    still = dict(zip(("run", "coordinate", "beta"), map(np.concatenate, zip(*columns, strict=True)), strict=True))
    names = ["truth", *(f"{label}, end" for label, _ in others[:1])]
    hues = tuple(PALETTE[list(view.runs).index(label)] for label, _ in others[:1])
    span = _span(beta, still["beta"], frames.get("theory", beta))
    words = view.focus_label
    return Picture(
        id="weights",
        title=f"The coefficients: {words}",
        spec=fill(_stem_spec(hues, path is not None), {"x": [0, d + 1], "y": list(span), "names": names}),
        alt=_stem_words(words, run, theory.data.beta_star),
        data={"still": still},
        frames={"weights": frames},
        steps=run.trace.frame_step,
        note="Stems: coefficients of the first replicate. "
        + ("Short ticks: the chalk line for each coefficient." if path is not None else ""),
    )


@cache
def _stem_spec(hues: tuple[str, ...], chalked: bool) -> dict[str, Any]:
    """The spec of the stems: `x`, `y` and `names` are to be filled in."""
    scale = alt.Scale(domain=alt.ExprRef("y"), nice=False)
    x = alt.X(
        "coordinate:Q",
        title="coordinate",
        scale=alt.Scale(domain=alt.ExprRef("x"), nice=False),
        axis=alt.Axis(tickCount=6, format="d"),
    )
    y = alt.Y("beta:Q", title="coefficient", scale=scale)
    moving, marks = alt.Chart(alt.NamedData("weights")), alt.Chart(alt.NamedData("still"))
    kinds = alt.Scale(domain=alt.ExprRef("names"), range=["$muted", *hues])
    shapes = alt.Scale(domain=alt.ExprRef("names"), range=["square", "circle"][: 1 + len(hues)])
    layers = [
        marks.mark_point(size=46, filled=False, strokeWidth=1.6, clip=True).encode(
            x,
            y,
            alt.Color("run:N", title=None, scale=kinds),
            alt.Shape("run:N", title=None, scale=shapes, legend=alt.Legend(orient="top", columns=2, labelLimit=300)),
        ),
        moving.mark_rule(strokeWidth=2, color=PALETTE[0], clip=True).encode(x, y, alt.Y2(datum=0)),
        moving.mark_point(filled=True, size=30, color=PALETTE[0], clip=True).encode(x, y),
    ]
    if chalked:
        tick = moving.mark_tick(color="$text", size=9, thickness=2, orient="horizontal", clip=True)
        layers.append(tick.encode(x, alt.Y("theory:Q", scale=scale)))
    return layered(*layers, color="independent", shape="independent")


def _same_problem(other: Run, run: Run) -> bool:
    fields = ("covariates", "n_train", "dim", "sparsity", "data_seed", "truth", "parametrization")
    return all(getattr(other.params, name) == getattr(run.params, name) for name in fields)


def _stem_words(words: str, run: Run, truth: np.ndarray) -> str:
    beta = run.trace.finals["beta"][0]
    support = truth != 0
    if not np.all(np.isfinite(beta)):
        return f"{words}: the first replicate diverged."
    inside = f"from {beta[support].min():.3g} to {beta[support].max():.3g} on the {support.sum()} true coordinates"
    outside = np.abs(beta[~support]).max(initial=0.0)
    return f"{words}: at the end the coefficients run {inside}, and the others are at most {outside:.2g} in size."


def _span(*arrays: np.ndarray) -> tuple[float, float]:
    finite = np.concatenate([a[np.isfinite(a)].reshape(-1) for a in arrays])
    low, high = float(min(finite.min(initial=0.0), 0.0)), float(finite.max(initial=1.0))
    return low * 1.05 - 0.02 * (high - low), high * 1.05


# -- the plane -----------------------------------------------------------------------------------------------


def plane(view: View) -> Picture:
    """One sample, two weights: the segment of perfect fits, the path along it, and the shape of the noise."""
    own = view.focus.params
    assert isinstance(own, LabelNoiseParams)
    planar = own if own.covariates == "planar" else _planar_params()
    run = view.focus if own.covariates == "planar" else view.at_hand(planar)
    a = planar.planar_slope
    beta_1 = np.linspace(0.0, 2.0, 81)
    segment = {"beta_1": beta_1, "beta_2": (2.0 - beta_1) / a, "trace": beta_1 + a * (2.0 - beta_1)}
    theory = chalk(planar, 0)
    flow = {"beta_1": theory.path[:, 0], "beta_2": theory.path[:, 1], "order": np.arange(len(theory.path))}
    data: dict[str, Any] = {"segment": segment, "flow": flow}
    frames: dict[str, Any] = {}
    words = "The segment of perfect fits; the dashed chalk line is the slow flow along it."
    if run is not None:
        point = run.trace.frames["beta"]
        count = len(point)
        reach = 40.0 * planar.learning_rate * planar.delta * point * np.array([1.0, a])
        ends = np.stack([point - reach, point + reach], axis=1)
        frames = {
            "point": {"frame": np.arange(count), "beta_1": point[:, 0], "beta_2": point[:, 1]},
            "noise": {
                "frame": np.repeat(np.arange(count), 2),
                "beta_1": ends[:, :, 0].reshape(-1),
                "beta_2": ends[:, :, 1].reshape(-1),
            },
        }
        end = run.trace.finals["beta"].mean(axis=0)
        goal = theory.path[-1]
        words += f" The mean of {run.trace.replicates} runs ends at ({end[0]:.3g}, {end[1]:.3g});"
        words += f" the chalk line at ({goal[0]:.3g}, {goal[1]:.2g})."
    return Picture(
        id="plane",
        title=f"Two weights, one sample (1, {a:g})",
        spec=fill(_plane_spec(run is not None), {"x": [-0.05, 2.45], "y": [-0.05, 2.3 / a]}),
        alt=words,
        data=data,
        frames=frames,
        steps=None if run is None else run.trace.frame_step,
        needs=() if own.covariates == "planar" else (planar,),
        note="Orange: the direction and size of the label noise at the present weights, magnified. It always points "
        "off the segment, never along it, and shrinks with the weights.",
    )


@cache
def _plane_spec(simulated: bool) -> dict[str, Any]:
    """The spec of the plane: `x` and `y` are to be filled in."""
    x = alt.X("beta_1:Q", title="first coefficient", scale=alt.Scale(domain=alt.ExprRef("x"), nice=False))
    y = alt.Y("beta_2:Q", title="second coefficient", scale=alt.Scale(domain=alt.ExprRef("y"), nice=False))
    hue = alt.Color(
        "trace:Q",
        title="half the trace of the Hessian",
        scale=alt.Scale(scheme="viridis"),
        legend=alt.Legend(orient="top", titleLimit=300),
    )
    layers: list[Any] = [
        alt.Chart(alt.NamedData("segment")).mark_circle(size=60).encode(x, y, hue),
        alt.Chart(alt.NamedData("flow"))
        .mark_line(strokeDash=[7, 4], color="$text", strokeWidth=2.2)
        .encode(x, y, alt.Order("order:Q")),
    ]
    if simulated:
        noise = alt.Chart(alt.NamedData("noise")).mark_line(color=PALETTE[1], strokeWidth=3, opacity=0.8, clip=True)
        point = alt.Chart(alt.NamedData("point")).mark_circle(color=PALETTE[0], size=130, clip=True)
        layers += [noise.encode(x, y), point.encode(x, y)]
    return layered(*layers)


def _planar_params() -> LabelNoiseParams:
    preset = next(preset for preset in PRESETS if preset.id == "planar")
    return LabelNoiseParams.make(preset.params)


# -- recovery ------------------------------------------------------------------------------------------------


def recovery(view: View) -> Picture:
    """How often label noise recovers the truth as samples are added, with the thresholds of the theory."""
    wanted = _recovery_runs(view)
    runs = [run for run in map(view.at_hand, wanted) if run is not None]
    params = wanted[0]
    assert isinstance(params, LabelNoiseParams)
    threshold = float(runs[0].prediction.prediction["recovery_threshold"]) if runs else _threshold(params)  # type: ignore[arg-type]
    marks = {
        "n": [threshold, float(params.sparsity**2)],
        "mark": [
            f"n* = {threshold:.1f} (sharp)",
            f"n = r² = {params.sparsity**2} (sufficient)",
        ],
    }
    ns = np.array([run.params.n_train for run in runs], dtype=float)  # type: ignore[attr-defined]
    rows: list[tuple[float, str, float, float, float]] = []
    for n, run in zip(ns, runs, strict=True):
        for name, kind in (("recovered", "simulated"), ("slow_flow_recovered", CLAIMED)):
            metric = run.metrics[name]
            mean, se = metric.mean or 0.0, metric.se or 0.0
            rows.append((n, kind, mean, max(0.0, mean - se), min(1.0, mean + se)))
    dots = {
        name: np.array([row[i] for row in rows], dtype=object if i == 1 else float)
        for i, name in enumerate(("n", "kind", "rate", "low", "high"))
    }
    slack = {
        "n": ns,
        "decay": np.array([run.prediction.prediction["decay_rate"] for run in runs], dtype=float),
    }
    low, high = min(p.n_train for p in wanted) - 2, max(p.n_train for p in wanted) + 2  # type: ignore[attr-defined]
    said = "; ".join(
        f"n = {n:.0f}: {_share(run, 'recovered')}, slow flow {_share(run, 'slow_flow_recovered')}"
        for n, run in zip(ns, runs, strict=True)
    )
    words = f"Share of data sets on which label noise recovers the truth. Threshold n* = {threshold:.1f}."
    return Picture(
        id="recovery",
        title="When is the least norm the truth?",
        spec=fill(_recovery_spec(), {"x": [low, high], "marks": marks["mark"]}),
        alt=f"{words} {said or 'Not computed yet'}.",
        data={"dots": dots, "marks": marks, "slack": slack},
        needs=wanted,
        note="Dots: share of data sets recovered, with one standard error. Dashed: the slow flow stopped at the same "
        "time T on the same data. Green: the decay rate g*, which vanishes at the threshold, so that recovery there "
        "needs ever longer training.",
    )


@cache
def _recovery_spec() -> dict[str, Any]:
    """The spec of the recovery curve: `x` and `marks` are to be filled in."""
    x = alt.X("n:Q", title="training samples n", scale=alt.Scale(domain=alt.ExprRef("x"), nice=False))
    y = alt.Y("rate:Q", title="share recovered", scale=alt.Scale(domain=[0, 1.02], nice=False))
    table, lines = alt.Chart(alt.NamedData("dots")), alt.Chart(alt.NamedData("marks"))
    simulated, chalked = alt.datum.kind == "simulated", alt.datum.kind == CLAIMED
    layers = [
        lines.mark_rule(strokeWidth=1.6).encode(
            x,
            alt.StrokeDash(
                "mark:N",
                scale=alt.Scale(domain=alt.ExprRef("marks"), range=[[7, 4], [2, 3]]),
                legend=alt.Legend(title=None, orient="top", columns=1, labelLimit=0),
            ),
            color=alt.ColorValue("$muted"),
        ),
        table.mark_line(strokeDash=[7, 4], color="$text", strokeWidth=2.2).encode(x, y).transform_filter(chalked),
        table.mark_rule(color=PALETTE[0], strokeWidth=2)
        .encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
        .transform_filter(simulated),
        table.mark_point(filled=True, size=80, color=PALETTE[0]).encode(x, y).transform_filter(simulated),
    ]
    right = alt.Y(
        "decay:Q",
        title="decay rate g*",
        axis=alt.Axis(orient="right", grid=False),
        scale=alt.Scale(domain=[0, 1], nice=False),
    )
    rate = alt.Chart(alt.NamedData("slack")).mark_line(color=PALETTE[2], strokeDash=[3, 2]).encode(x, right)
    return layered(layered(*layers), rate, y="independent")


def _share(run: Run, metric: str) -> str:
    mean = run.metrics[metric].mean
    return "unknown" if mean is None else f"{mean:.2f}"


def _recovery_runs(view: View) -> Sequence[Params]:
    claim = next(claim for claim in view.lab.claims if claim.id == "recovery_rate")
    assert claim.over is not None
    return claim.over(view.lab.params.make())


def curve_points(view: View, experiment: Experiment) -> Points:
    """Shares recovered in the dimensions of a confirmation, each number of samples scaled with the thresholds."""
    from theory.label_noise import recovery_threshold

    settings, params = experiment["settings"], _recovery_runs(view)[0]
    assert isinstance(params, LabelNoiseParams)
    ratio = _threshold(params) / recovery_threshold(settings["dim"], settings["sparsity"])
    shares = [float(np.mean(experiment["parts"][f"n={n}"]["recovered"])) for n in settings["sizes"]]
    words = f"{settings['dim']:,} dimensions, n scaled to the same n*"
    return Points([n * ratio for n in settings["sizes"]], shares, words)


CONFIRMED = (LaidOver("recovery_curve", "recovery", curve_points),)


def _threshold(params: LabelNoiseParams, **changes: int) -> float:
    from theory.label_noise import recovery_threshold

    sizes = {"dim": params.dim, "sparsity": params.sparsity} | changes
    return float(recovery_threshold(sizes["dim"], sizes["sparsity"], signed=params.signed))
