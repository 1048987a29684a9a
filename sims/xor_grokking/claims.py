"""The theorem's sentences about XOR clusters, the laws found beside it, and what is false on purpose, executable.

Errors are one standard error over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import farthest, final, first_broken, mean_se, predicted, predicted_value
from .lab import CLUSTERS

if TYPE_CHECKING:
    from ..engine import Run
    from .lab import XorGrokkingParams

Array = NDArray[np.float64]

_PAPER = "Xu et al. 2024"
_THEOREM = f"{_PAPER}, main theorem"
_LINEAR = "one step is linear in expectation"
_FOUND = "found in simulations, no theorem"
_BILLION = 10**9


# -- kinds of run and assumptions ------------------------------------------------------------------------------


def _stratified(p: XorGrokkingParams) -> bool:
    return p.label_sampler == "stratified"


def _small_start(p: XorGrokkingParams) -> str | None:
    if p.init_ratio <= 1e-2:
        return None
    return f"The start must be small against the first step: init_ratio is {p.init_ratio:g}, not below 0.01."


def _high_dim(p: XorGrokkingParams) -> str | None:
    return None if p.dim >= p.n_train else "There must be more dimensions than samples."


def _small_step(p: XorGrokkingParams) -> str | None:
    return None if p.first_step_margin <= 0.5 else "The step must be small: the first margin at most 0.5."


def _equal_clusters(p: XorGrokkingParams) -> str | None:
    if _stratified(p):
        return None
    return "The clusters must be equal, or the samples so many that they nearly are; here labels are drawn at random."


def _wide(p: XorGrokkingParams) -> str | None:
    return None if p.width >= 20 else "There must be 20 neurons or more."


def _separated(p: XorGrokkingParams) -> str | None:
    from theory.xor_grokking import MEMORISED, step_one_train_accuracy

    share = step_one_train_accuracy(p.n_train, p.dim, p.width, p.signal, p.label_noise, p.label_sampler)
    if share > MEMORISED:
        return None
    return f"The points must be nearly orthogonal: here one step is predicted to fit {100 * share:.0f} % of the labels."


_THEOREMS = first_broken(_small_start, _high_dim, _small_step, _wide, _separated)
_GROKS = first_broken(_THEOREMS, _equal_clusters)


# -- judges ----------------------------------------------------------------------------------------------------


def _judge_memorised(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *mean_se(runs[0].values["step_one_train_accuracy"]), 0.01)


def _judge_kept(runs: Sequence[Run]) -> Measured:
    """The least share of flipped labels fitted at any recorded step from the first on."""
    (run,) = runs
    least = np.min(run.trace.series["flipped_label_accuracy"][:, 1:], axis=1)
    return Measured(1.0, *mean_se(least), 0.02)


def _judge_conditional(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    gap = run.values["step_one_train_accuracy"] - run.values["step_one_train_conditional"]
    return Measured(0.0, *mean_se(gap), 0.05)


def _judge_clusters(runs: Sequence[Run]) -> Measured:
    """Mean distance of the clusters' accuracies from those of each replicate's own linear classifier."""
    from theory.xor_grokking import linear_cluster_accuracies

    (run,) = runs
    measured = np.stack([run.values[f"step_one_{name}_accuracy"] for name in CLUSTERS], axis=1)
    linear = np.stack([linear_cluster_accuracies(b) for b in run.trace.finals["linear_offsets"]])
    return Measured(0.0, *mean_se(np.mean(np.abs(measured - linear), axis=1)), 0.06)


def _judge_drop(runs: Sequence[Run]) -> Measured:
    """How far the mean test accuracy ends below its best."""
    (run,) = runs
    accuracy = run.trace.series["test_accuracy"]
    best = int(np.argmax(np.mean(accuracy, axis=0)))
    return Measured(0.0, *mean_se(accuracy[:, best] - accuracy[:, -1]), 0.03)


def _judge_plateau(runs: Sequence[Run]) -> Measured:
    ratios = [run.values["alignment_plateau"] / predicted_value(run, "alignment_plateau") for run in runs]
    found = [mean_se(ratio) for ratio in ratios]
    return Measured(1.0, *farthest(found, 1.0), 0.12)


def _judge_rule(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *mean_se(np.concatenate([run.values["rule_agreement"] for run in runs])), 0.1)


def _judge_dimension(runs: Sequence[Run]) -> Measured:
    (low, low_error), (high, high_error) = (mean_se(run.values["late_test_accuracy"]) for run in runs)
    known = low_error is not None and high_error is not None
    return Measured(low, high, math.hypot(low_error, high_error) if known else None, 0.02)


def _judge_strong(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    limit = 1.0 - predicted_value(run, "strong_signal_test_accuracy")
    return Measured(limit, *mean_se(run.values["late_test_error"]), 0.004)


# -- over which runs -------------------------------------------------------------------------------------------


def _one_step(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    return [params.replace(steps=1, replicates=64, n_test=400)]


def _sixteen(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    return [params.replace(replicates=16, n_test=1000)]


def _forty(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    return [params.replace(replicates=40, n_test=400)]


def _very_wide(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    changes: dict[str, Any] = {"width": 1600, "steps": 1, "replicates": 8, "dim": max(params.dim, 10**6)}
    return [params.replace(**changes, data_mode="sampled", n_train=min(params.n_train, 100), n_test=1600)]


def _table(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    """Six cells of the table on fresh seeds, at n mu^2/p = 0.1."""
    changes: dict[str, Any] = {"steps": 100, "replicates": 24, "n_test": 1000, "label_flip_prob": 0.1, "width": 100}
    return [
        params.make(**changes, n_train=n, signal=signal, dim=round((10 * n * signal) ** 2), seed=params.seed)
        for signal in (1.4, 2.0)
        for n in (40, 80, 160)
    ]


def _very_strong(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    changes: dict[str, Any] = {"signal": 20.0, "dim": 10**10, "n_test": 40, "seed": params.seed}
    return [
        params.make(**changes, n_train=100, label_flip_prob=0.0),
        params.make(**changes, n_train=200, label_flip_prob=0.1),
    ]


def _unequal(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    changes: dict[str, Any] = {"label_sampler": "iid", "dim": _BILLION, "n_test": 200, "replicates": 40}
    sizes = ((48, 0.3), (100, 0.1), (100, 0.2))
    return [params.make(**changes, signal=8.0, n_train=n, label_flip_prob=flip, seed=params.seed) for n, flip in sizes]


def _two_dimensions(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    return [params.replace(dim=dim, replicates=16, n_test=1000) for dim in (params.dim, _BILLION)]


def _few_strong(params: XorGrokkingParams) -> list[XorGrokkingParams]:
    changes: dict[str, Any] = {"n_train": 40, "signal": 4.0, "dim": 2_560_000, "steps": 100, "replicates": 80}
    return [params.make(**changes, n_test=2000, seed=params.seed)]


CLAIMS = (
    Claim(
        "memorises_in_one_step",
        "One gradient step fits every training label, flipped ones included (within 1 %).",
        _THEOREM,
        about=lambda p: True,
        assumes=_THEOREMS,
        judge=_judge_memorised,
    ),
    Claim(
        "never_unfits",
        "From the first step on the flipped labels stay fitted (within 2 %).",
        _THEOREM,
        about=lambda p: p.label_flip_prob > 0,
        assumes=_THEOREMS,
        judge=_judge_kept,
    ),
    Claim(
        "one_half_after_one_step",
        "After one step the test accuracy is one half, on average over starts and data (within 0.06).",
        f"{_THEOREM}; every linear classifier is right on half of XOR",
        about=lambda p: True,
        over=_one_step,
        judge=final("step_one_test_accuracy", 0.5, 0.06),
    ),
    Claim(
        "linear_after_one_step",
        "After one step a wide network's accuracy on each cluster is that of its data's linear classifier.",
        f"{_LINEAR}; many neurons",
        about=lambda p: _high_dim(p) is None,
        assumes=_small_start,
        over=_very_wide,
        judge=_judge_clusters,
    ),
    Claim(
        "step_one_share",
        "The share of labels fitted after one step is that of each point's own term against the others (within 0.06).",
        f"{_LINEAR}; Gaussian fluctuations",
        about=lambda p: True,
        assumes=first_broken(_small_start, _wide),
        over=_one_step,
        judge=predicted("step_one_train_accuracy", 0.06),
    ),
    Claim(
        "step_one_share_given_the_points",
        "Knowing the inner products of the points, the share fitted after one step follows within 0.05.",
        f"{_LINEAR}; its variance from the arcsine law",
        about=lambda p: True,
        assumes=first_broken(_small_start, _wide),
        over=_one_step,
        judge=_judge_conditional,
    ),
    Claim(
        "groks",
        "In the end nearly every fresh point is right: the test accuracy is 1 within 1.5 %.",
        _THEOREM,
        about=lambda p: True,
        assumes=_GROKS,
        over=_sixteen,
        judge=final("late_test_accuracy", 1.0, 0.015),
    ),
    Claim(
        "groks_anyway",
        "Even where an assumption is broken the test accuracy ends at 1 within 8 %.",
        "false on purpose: a large start, random labels, few dimensions or a large step",
        about=lambda p: _GROKS(p) is not None,
        over=_forty,
        judge=final("late_test_accuracy", 1.0, 0.08),
    ),
    Claim(
        "benign",
        "Memorising wrong labels costs nothing: the test accuracy ends within 3 % of its best.",
        _PAPER,
        about=lambda p: p.label_flip_prob > 0,
        judge=_judge_drop,
    ),
    Claim(
        "dimension_free",
        "Late test accuracy depends on mu^2/sqrt(p) and n, not on p: a billion dimensions give the same within 2 %.",
        f"{_FOUND}; the exact sampling shows p in degrees of freedom only",
        about=lambda p: _stratified(p) and _THEOREMS(p) is None and p.data_mode == "sampled" and p.dim != _BILLION,
        over=_two_dimensions,
        judge=_judge_dimension,
    ),
    Claim(
        "late_error_table",
        "Late test errors at signals 1.4 and 2, n = 40, 80 and 160, are those of the fitted table within 0.02.",
        f"{_FOUND}: a fit, judged on fresh seeds",
        about=lambda p: _stratified(p) and _small_start(p) is None,
        over=_table,
        judge=predicted("late_test_error", 0.02),
    ),
    Claim(
        "alignment_plateau",
        "At strong signal neurons align with their own mean up to the predicted small angle (within 12 %).",
        "linearised clock; limit of strong signals and nearly orthogonal points",
        about=lambda p: _stratified(p) and _small_start(p) is None,
        over=_very_strong,
        judge=_judge_plateau,
    ),
    Claim(
        "strong_signal_limit",
        "At signal 4 with 40 points the late test error is that of the limit of aligned neurons, within 0.004.",
        "linearised clock; mean field of aligned neurons, sampled",
        about=lambda p: _stratified(p) and p.signal >= 4 and _small_start(p) is None,
        over=_few_strong,
        judge=_judge_strong,
    ),
    Claim(
        "counting_rule",
        "With random labels, counting the flips says which clusters stay wrong for ever (9 of 10 clusters).",
        _FOUND,
        about=lambda p: p.label_sampler == "iid" and p.signal >= 8 and _small_start(p) is None,
        over=_unequal,
        judge=_judge_rule,
    ),
    Claim(
        "lazy_stays_at_half",
        "From a start ten times the first step, at signals up to 2, test accuracy stays at one half (within 3 %).",
        f"{_FOUND}: a large start trains without moving its features",
        about=lambda p: p.init_ratio >= 10 and p.signal <= 2,
        judge=final("late_test_accuracy", 0.5, 0.03),
    ),
)
