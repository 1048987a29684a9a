"""Sentences about deep linear encoders, executable: weights of layers, their dynamics, and which layer to use.

What is deterministic has no standard error; of random starts the worst replicate is judged, of draws
downstream the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import first_broken, mean_se
from .lab import KINDS

if TYPE_CHECKING:
    from ..engine import Run
    from .lab import ProjectionHeadParams

Array = NDArray[np.float64]
Runs = Callable[["ProjectionHeadParams"], "list[ProjectionHeadParams]"]

_PAPER = "Xue et al. 2024"
_SHARES = f"{_PAPER}, linear theory: balanced layers take equal shares of the log-gain"
_FLOW = "gradient flow of one feature in balanced layers"
_RIDGE = "deterministic equivalent of ridge regression"
FEW = 20  # features below which the equivalent of many is not claimed


def _exact(measured: float, tolerance: float, predicted: float = 0.0) -> Measured:
    return Measured(predicted, measured, 0.0, tolerance)


def _worst_ratio(found: Array, expected: Array, tolerance: float) -> Measured:
    """The ratio of found to expected that is farthest from 1; where 0 is expected, 1 plus what is found."""
    ratio = np.where(expected > 0.0, found / np.where(expected > 0.0, expected, 1.0), 1.0 + found).reshape(-1)
    worst = int(np.argmax(np.where(np.isfinite(ratio), np.abs(ratio - 1.0), np.inf)))
    return _exact(float(ratio[worst]), tolerance, 1.0)


# -- kinds of run and assumptions ------------------------------------------------------------------------------------


def _converged(p: ProjectionHeadParams) -> str | None:
    from .prediction import not_converged

    return not_converged(p)


def _wide(p: ProjectionHeadParams) -> str | None:
    from .prediction import bottleneck

    return bottleneck(p)


def _many(p: ProjectionHeadParams) -> str | None:
    if p.features >= FEW and p.n_labelled >= 10 and p.features > p.n_labelled:
        return None
    return f"There must be many features, {FEW} or more, and more than labelled examples, of which 10 are needed."


def _balanced(p: ProjectionHeadParams) -> bool:
    from .prediction import balanced

    return balanced(p)


def _is_task(p: ProjectionHeadParams) -> bool:
    return _many(p) is None and p.layers > 1 and p.weight_decay == 0.0 and _balanced(p)


def _random_start(p: ProjectionHeadParams) -> bool:
    return p.init == "gaussian" and p.training == "descent" and p.layers > 1


def _gram(p: ProjectionHeadParams) -> Array:
    from .prediction import final_gram

    return np.array(final_gram(p))


# -- judges ----------------------------------------------------------------------------------------------------------


def _judge_layer(before_head: bool, tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    """Weights of all kinds, in every replicate, at the last layer or before it, over M^(l/2L)."""

    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        L = run.params.layers
        layer = L - 1 if before_head else L
        found = run.trace.finals["weights"][:, layer]
        return _worst_ratio(found, np.broadcast_to(_gram(run.params) ** (layer / (2.0 * L)), found.shape), tolerance)

    return judge


def _judge_never_below(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    below = run.values["min_loss"][:, None] - run.trace.series["loss"]
    return _exact(float(np.nanmax(np.maximum(below, 0.0), initial=0.0)), 1e-9)


def _judge_dynamics(runs: Sequence[Run]) -> Measured:
    """Largest distance of the weights before and after the head from their course, in every kind and step."""
    (run,) = runs
    gaps = [0.0]
    for name in (f"{place}_{i}" for place in ("post", "pre") for i in range(1, KINDS + 1)):
        expected = run.prediction.prediction[name]
        if expected is not None:
            gaps.append(float(np.nanmax(np.abs(run.trace.series[name] - expected))))
    return _exact(max(gaps), 0.05)


def _judge_half_times(tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    def judge(runs: Sequence[Run]) -> Measured:
        pairs = [
            (float(run.values[f"half_time_{i}"][0]), float(expected))
            for run in runs
            for i in range(1, KINDS + 1)
            if (expected := run.prediction.prediction[f"half_time_{i}"]) is not None
        ]
        found, expected = np.array(pairs).T
        return _worst_ratio(found, expected, tolerance)

    return judge


def _judge_order(runs: Sequence[Run]) -> Measured:
    """Number of pairs of kinds of which the stronger one is learned later."""
    (run,) = runs
    times = [float(run.values[f"half_time_{i + 1}"][0]) for i in range(min(KINDS, len(run.params.phi)))]
    times = [math.inf if math.isnan(t) else t for t in times]
    phi = run.params.phi
    wrong = sum(phi[i] > phi[j] and times[i] > times[j] for i in range(len(times)) for j in range(len(times)))
    return _exact(float(wrong), 1e-9)


def _judge_kept(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    series = run.trace.series["imbalance"]
    return _worst_ratio(series[:, -1] / series[:, 0], np.ones(len(series)), 0.05)


def _judge_decay(runs: Sequence[Run]) -> Measured:
    """Imbalance over that at the start, over exp(-2 wd t), wherever that is above a hundredth."""
    from theory.projection_head import imbalance_decay

    (run,) = runs
    series, times = run.trace.series["imbalance"], run.trace.series["time"]
    expected = imbalance_decay(run.params.weight_decay, times)
    seen = expected > 0.01
    return _worst_ratio((series / series[:, :1])[seen], expected[seen], 0.01)


def _judge_deaths(runs: Sequence[Run]) -> Measured:
    """Largest distance of a weight after the head from what theory says, 0 for features that die."""
    gaps = [np.max(np.abs(run.trace.finals["weights"][:, -1] - np.sqrt(_gram(run.params)))) for run in runs]
    return _exact(float(max(gaps)), 1e-3)


def _judge_sgd(before_head: bool, tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    """Mean weights over replicates against M^(l/2L), the kind farthest off, as a ratio."""

    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        L = run.params.layers
        layer = L - 1 if before_head else L
        ratio = run.trace.finals["weights"][:, layer] / _gram(run.params) ** (layer / (2.0 * L))
        worst = int(np.argmax(np.abs(np.mean(ratio, axis=0) - 1.0)))
        return Measured(1.0, *mean_se(ratio[:, worst]), tolerance)

    return judge


def _judge_fast(runs: Sequence[Run]) -> Measured:
    """Least over most: the weight of the strongest kind over that at its minimum, in the worst replicate."""
    (run,) = runs
    fastest = int(np.argmax(run.params.phi))
    found = run.trace.finals["weights"][:, -1, fastest]
    return _worst_ratio(found, np.full(len(found), math.sqrt(_gram(run.params)[fastest])), 0.01)


def _judge_best(runs: Sequence[Run]) -> Measured:
    """Weight of the kind of largest alignment over that at the minimum, in the worst replicate."""
    from .prediction import kinds_of

    (run,) = runs
    p, q = kinds_of(run.params)
    kept = np.argsort(-(p / q), kind="stable")[: run.params.outputs]
    found = run.trace.finals["weights"][:, -1, kept]
    return _worst_ratio(found, np.broadcast_to(np.sqrt(_gram(run.params)[kept]), found.shape), 0.05)


def _errors(run: Run) -> tuple[Array, list[tuple[float, float | None]]]:
    """Expected test error of each layer, and what was measured: mean and standard error."""
    from .prediction import downstream

    found = run.trace.finals["mse_by_layer"]
    return downstream(run.params), [mean_se(found[:, layer]) for layer in range(found.shape[1])]


def _judge_downstream(runs: Sequence[Run]) -> Measured:
    """The layer whose error is farthest from expectation, in units of its tolerance."""
    (run,) = runs
    times, more = (4.0, 0.01) if run.params.layers <= 2 else (5.0, 0.03)
    rows = []
    for expected, (mean, error) in zip(*_errors(run), strict=True):
        allowed = times * (error or 0.0) + more
        rows.append((abs(mean - float(expected)) / allowed, Measured(float(expected), mean, error, allowed)))
    return max(rows, key=lambda row: row[0])[1]


def _judge_gain(runs: Sequence[Run]) -> Measured:
    """Error after the head minus that before it: what throwing it away gains."""
    (run,) = runs
    expected, _ = _errors(run)
    gain, error = mean_se(run.values["mse_post"] - run.values["mse_pre"])
    return Measured(float(expected[-1] - expected[-2]), gain, error, 4.0 * (error or 0.0) + 0.02)


def _judge_discard(runs: Sequence[Run]) -> Measured:
    """By how much the error before the head exceeds that after it."""
    (run,) = runs
    return _exact(max(0.0, float(np.mean(run.values["mse_pre"] - run.values["mse_post"]))), 0.01)


def _judge_best_layer(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    expected, found = _errors(run)
    return _exact(float(np.argmin([mean for mean, _ in found])), 1e-9, float(np.argmin(expected)))


# -- over which runs -------------------------------------------------------------------------------------------------


def _fresh(*changes: dict[str, Any]) -> Runs:
    """Runs of these fields alone, with the seed at hand."""
    return lambda params: [params.make(one, seed=params.seed) for one in changes]


def _each_kind(layers: int, times: Sequence[float]) -> Runs:
    """The four standard features in small steps from a small start, for so long."""
    fine = {"layers": layers, "init_scale": 0.05, "learning_rate": 2e-4, "replicates": 2}
    return _fresh(*({**fine, "steps": round(time / 2e-4)} for time in times))


_LARGE = {"init": "gaussian", "learning_rate": 0.004, "weight_decay": 0.01}
_DEATHS = {"weight_decay": 0.01, "learning_rate": 0.004, "steps": 200_000, "replicates": 2}
_SGD = {"training": "sgd", "init_scale": 0.3, "learning_rate": 0.004, "steps": 20_000, "replicates": 4}


CLAIMS = (
    Claim(
        "post_weights",
        "After the head the weight of a feature is sqrt(p)/q, whatever the layers: in every replicate within 0.1 %.",
        "minimum of the loss",
        about=lambda p: p.training == "descent" and p.weight_decay == 0.0 and p.outputs >= p.features,
        assumes=_converged,
        judge=_judge_layer(False, 1e-3),
    ),
    Claim(
        "pre_is_root",
        "Before the head it is that to the power (L-1)/L, the square root for two layers: every replicate within 8 %.",
        _SHARES,
        about=lambda p: p.training == "descent" and p.weight_decay == 0.0 and p.outputs >= p.features and p.layers > 1,
        assumes=_converged,
        judge=_judge_layer(True, 0.08),
    ),
    Claim(
        "never_below",
        "No encoder has a smaller loss than minus the sum of the k largest squared alignments p/q.",
        "low-rank approximation",
        about=lambda p: True,
        judge=_judge_never_below,
    ),
    Claim(
        "course",
        "From balanced layers all weights follow their equation over the whole of training (within 0.05).",
        _FLOW,
        about=_balanced,
        judge=_judge_dynamics,
    ),
    Claim(
        "half_times_one_layer",
        "In one layer a feature is half grown at ln(M/m0 - 1)/(8p) (within 1 %).",
        _FLOW,
        about=lambda p: _balanced(p) and p.weight_decay == 0.0 and p.layers == 1,
        over=_each_kind(1, (6.0,)),
        judge=_judge_half_times(0.01),
    ),
    Claim(
        "half_times_two_layers",
        "In two layers it waits much longer, close to 1/(8 p a0^2), as the closed form says (within 0.1 %).",
        _FLOW,
        about=lambda p: _balanced(p) and p.weight_decay == 0.0 and p.layers == 2 and p.features < FEW,
        over=_each_kind(2, (210.0,)),
        judge=_judge_half_times(1e-3),
    ),
    Claim(
        "strength_decides",
        "Of two features of different strength the stronger one is learned first, whatever their noise.",
        _FLOW,
        about=lambda p: _balanced(p) and p.weight_decay == 0.0 and p.layers == 2 and p.features < FEW,
        judge=_judge_order,
    ),
    Claim(
        "imbalance_kept",
        "Without decay the imbalance of the layers stays what it was at the start (within 5 %).",
        "conserved by gradient flow",
        about=lambda p: _random_start(p) and p.weight_decay == 0.0 and p.head_ratio == 1.0,
        judge=_judge_kept,
    ),
    Claim(
        "decayed_post",
        "Under weight decay the weight after the head is the root of 4 (p - q^2 m) m^(1/2) = wd (within 0.1 %).",
        "stationary points with decay",
        about=lambda p: _random_start(p) and p.weight_decay > 0.0,
        over=_fresh({**_LARGE, "init_scale": 0.6, "steps": 100_000}),
        judge=_judge_layer(False, 1e-3),
    ),
    Claim(
        "decayed_pre",
        "And before the head its square root, for the imbalance has gone (within 0.1 %).",
        _SHARES,
        about=lambda p: _random_start(p) and p.weight_decay > 0.0,
        over=_fresh({**_LARGE, "init_scale": 0.6, "steps": 100_000}),
        judge=_judge_layer(True, 1e-3),
    ),
    Claim(
        "imbalance_decays",
        "Weight decay shrinks the imbalance as exp(-2 wd t), here until 0.01 is left (within 1 %).",
        "exact for gradient flow",
        about=lambda p: _random_start(p) and p.weight_decay > 0.0,
        over=_fresh({**_LARGE, "init_scale": 0.6, "learning_rate": 0.001, "steps": 200_000, "replicates": 2}),
        judge=_judge_decay,
    ),
    Claim(
        "small_start_dies",
        "Under a decay of 0.01 starts of 0.02, 0.04, 0.06 and 0.12 keep 0, 1, 3 and 4 features: where 4p a0^2 > wd.",
        "zero attracts, up to the smaller root",
        about=lambda p: _random_start(p) and p.weight_decay > 0.0,
        over=_fresh(*({**_DEATHS, "init_scale": scale} for scale in (0.02, 0.04, 0.06, 0.12))),
        judge=_judge_deaths,
    ),
    Claim(
        "sgd_post",
        "SGD on fresh views ends with the same weights after the head (within 0.5 %).",
        "minimum of the loss",
        about=lambda p: _balanced(p) and p.features < FEW and p.layers == 2,
        over=_fresh(_SGD),
        judge=_judge_sgd(False, 0.005),
    ),
    Claim(
        "sgd_pre",
        "And with nearly their roots before it: the noise shifts the balance, always the same way (within 4 %).",
        _SHARES,
        about=lambda p: _balanced(p) and p.features < FEW and p.layers == 2,
        over=_fresh(_SGD),
        judge=_judge_sgd(True, 0.04),
    ),
    Claim(
        "keeps_fast",
        "With fewer outputs than features training fills the head with the strongest first (within 1 % of its end).",
        "order of the half times",
        about=lambda p: p.outputs < p.features and p.training == "descent",
        judge=_judge_fast,
    ),
    Claim(
        "keeps_best",
        "And it keeps the k features of largest alignment p/q, as the minimum does (within 5 %).",
        "false in finite time: strength decides, not alignment",
        about=lambda p: p.outputs < p.features and p.training == "descent",
        judge=_judge_best,
    ),
    Claim(
        "downstream",
        "At every layer the test error is that of its weights (two layers: 4 s.e. + 0.01; more: 5 s.e. + 0.03).",
        _RIDGE,
        about=_is_task,
        assumes=_converged,
        judge=_judge_downstream,
    ),
    Claim(
        "discard_gain",
        "Throwing the head away changes the test error by as much as predicted (4 s.e. + 0.02).",
        _RIDGE,
        about=_is_task,
        assumes=_converged,
        judge=_judge_gain,
    ),
    Claim(
        "best_layer",
        "The layer with the least mean test error is the predicted one.",
        _RIDGE,
        about=_is_task,
        assumes=_converged,
        judge=_judge_best_layer,
    ),
    Claim(
        "always_discard",
        "The layer before the head is never worse than the head (by more than 0.01).",
        "a common rule; false for features that the head favours",
        about=lambda p: p.layers > 1,
        assumes=first_broken(_many, _wide, _converged),
        judge=_judge_discard,
    ),
)
