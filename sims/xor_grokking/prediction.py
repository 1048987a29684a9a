"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from theory import xor_grokking as theory

from ..engine import About, Prediction, Trace
from ..engine.lab import Kind
from .gram import label_sum, labels, points
from .lab import CLUSTERS, XorGrokkingParams, recorded_steps

Array = NDArray[np.float64]

LATE = 50  # steps at the margin of 0.05 after which test accuracy and alignment hardly move
RIGHT = 0.5  # accuracy from which a cluster counts as right
STRONG, LEAST_SEPARATED = 8.0, 0.2  # signal >> 1; n mu^2/p << 1
FIT_SEPARATED, FIT_WIDTH, FIT_MARGIN, FIT_INIT = 1.0, 30, 0.1, 1e-2

_PAPER = "Xu et al. 2024"
_LINEAR = "one step is linear in expectation, and a linear classifier is right on half of XOR"
_OWN_TERM = "Gaussian fluctuation against each point's own term"
_FIT = "interpolated in a table of simulations"
_COUNTS = "counting rule for whole clusters"
_ALIGNED = "linearised clock: clean points fire for ever, others once"


def predict(params: XorGrokkingParams) -> Prediction:
    return _predict(params, recorded_steps(params))


def predict_ends(points: Sequence[XorGrokkingParams]) -> list[Prediction]:
    """The lines on the last step of each run; what the points have in common is drawn and summed once."""
    return [_predict(params, recorded_steps(params)[-1:]) for params in points]


def _predict(params: XorGrokkingParams, step: NDArray[np.int64]) -> Prediction:
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | Array | None, note: About) -> None:
        values[name], about[name] = value, note

    def late(kind: Kind, source: str, silent: str) -> About:
        """A line about late training: claimed from step LATE on, or nowhere, with the reason."""
        start = LATE if not silent else params.steps + 1
        return About(kind, source, 0.0, start, None, silent or "before that neurons are still turning")

    n, signal, noise = params.n_train, params.signal, params.label_noise
    stratified = params.label_sampler == "stratified"
    train_one = theory.step_one_train_accuracy(n, params.dim, params.width, signal, noise, params.label_sampler)
    silent_one = _step_one_silence(params)
    first = About("heuristic", _OWN_TERM, 0.0, 1, 1, silent_one or "only step one is a matter of one formula")
    nowhere = params.steps + 1 if silent_one else None
    if silent_one:
        first = About("heuristic", _OWN_TERM, 0.0, nowhere, None, silent_one)
    add("train_accuracy", _two_levels(step, 0, 0.5, train_one), first)
    add("step_one_train_accuracy", train_one, About("heuristic", _OWN_TERM, 0.0, nowhere, None, silent_one))

    offsets = [theory.linear_offsets(*label_sum(params, r), params.mu) for r in _replicates(params)]
    linear = np.mean([theory.linear_cluster_accuracies(b) for b in offsets], axis=0)
    survive = np.mean([_survivors(labels(params, r).counts.tobytes()) for r in _replicates(params)], axis=0)
    no_rule = _rule_silence(params)
    add("step_one_test_accuracy", 0.5, About("exact", _LINEAR))
    for name, at_one, at_end in zip(CLUSTERS, linear, survive, strict=True):
        add(f"step_one_{name}_accuracy", float(at_one), About("limit", f"{_LINEAR}; many neurons"))
        only_one = About("limit", _LINEAR, 0.0, 1, 1, f"later the counting rule speaks, but {no_rule}")
        note = only_one if no_rule else late("heuristic", _COUNTS, "")
        add(f"{name}_accuracy", _two_levels(step, 1, float(at_one), float(at_one if no_rule else at_end)), note)
    add("clusters_right", float(np.mean(survive)), late("heuristic", _COUNTS, no_rule))

    no_fit = _fit_silence(params)
    accuracy: float | None = None
    if stratified and signal > 0:
        accuracy = float(1.0 - _normal(-theory.nearest_quantile(n, signal)))
    end, note = accuracy, late("heuristic", f"{_FIT}: a fit, not a theorem", no_fit)
    if not stratified and not no_rule:
        end, note = float(np.mean(survive)), late("heuristic", _COUNTS, "")
    add("late_test_accuracy", end, note)
    add("late_test_error", None if end is None else 1.0 - end, note)
    if end is None or note.valid_from_step != LATE:
        note = About("exact", _LINEAR, 0.0, 1, 1, f"later: {note.reason or no_fit}")
    add("test_accuracy", _two_levels(step, 1, 0.5, 0.5 if end is None else end), note)

    plateau = theory.alignment_plateau(n, signal, params.dim, noise)
    no_plateau = _plateau_silence(params)
    add("alignment_plateau", plateau, late("limit", _ALIGNED, no_plateau))
    add("own_alignment", np.full(len(step), plateau), late("limit", _ALIGNED, no_plateau))
    add("cross_alignment", np.zeros(len(step)), late("limit", _ALIGNED, no_plateau))

    if stratified and signal > 0:
        strong = late("limit", "strong-signal limit of aligned neurons", _strong_silence(params))
        add("strong_signal_test_accuracy", 1.0 - _strong_signal(n, signal, noise), strong)
    else:
        why = "the strong-signal limit is derived for stratified labels and a signal"
        add("strong_signal_test_accuracy", None, About("limit", "strong-signal limit", reason=why))
    return Prediction(step=step, prediction=values, about=about)


def derive(params: XorGrokkingParams, trace: Trace) -> Mapping[str, Array]:
    """(R,) metrics: step one and the end under the names of their predictions, and the exact conditional form."""
    series = trace.series
    one = int(np.searchsorted(trace.step, 1))
    balanced = params.output_signs == "balanced"
    drawn = [points(params, r) for r in _replicates(params)]
    conditional = [
        theory.conditional_step_one_train_accuracy(each.gram, each.label, params.width, balanced=balanced)
        for each in drawn
    ]
    ends = np.stack([series[f"{name}_accuracy"][:, -1] > RIGHT for name in CLUSTERS], axis=1)
    rule = np.stack([theory.clusters_survive(counts) for counts in trace.finals["counts"]])
    return {
        "step_one_train_accuracy": series["train_accuracy"][:, one],
        "step_one_train_conditional": np.array(conditional),
        "step_one_test_accuracy": series["test_accuracy"][:, one],
        **{f"step_one_{name}_accuracy": series[f"{name}_accuracy"][:, one] for name in CLUSTERS},
        "late_test_accuracy": series["test_accuracy"][:, -1],
        "late_test_error": 1.0 - series["test_accuracy"][:, -1],
        "alignment_plateau": series["own_alignment"][:, -1],
        "clusters_right": np.mean(ends, axis=1),
        "rule_agreement": np.mean(ends == rule, axis=1),
    }


# -- where the theory speaks -----------------------------------------------------------------------------------


def _separation(params: XorGrokkingParams) -> float:
    return theory.regime(params.n_train, params.signal, params.dim)


def _step_one_silence(params: XorGrokkingParams) -> str:
    if params.width < 20:
        return "the formula takes sums over neurons as Gaussian, and these are fewer than 20"
    if params.init_ratio > FIT_INIT:
        return "the start is not small against the first step"
    return ""


def _rule_silence(params: XorGrokkingParams) -> str:
    if params.signal < STRONG:
        return f"the rule is for strong signals, {STRONG:g} and more"
    return _common_silence(params)


def _plateau_silence(params: XorGrokkingParams) -> str:
    if params.label_sampler != "stratified":
        return "the plateau is derived for stratified labels"
    if params.signal < STRONG:
        return f"the plateau is a limit of strong signals, {STRONG:g} and more"
    return _common_silence(params)


def _strong_silence(params: XorGrokkingParams) -> str:
    if params.signal < 4.0:
        return "too optimistic below a signal of 4, where not every neuron aligns"
    return _common_silence(params)


def _common_silence(params: XorGrokkingParams) -> str:
    """What the laws of late training share: nearly orthogonal points, a small start and step, neurons enough."""
    if _separation(params) > LEAST_SEPARATED:
        return f"n mu^2/p is {_separation(params):.2g}, and should be small: at most {LEAST_SEPARATED:g}"
    return _trained_silence(params)


def _trained_silence(params: XorGrokkingParams) -> str:
    if params.init_ratio > FIT_INIT:
        return "the start is not small against the first step"
    if params.first_step_margin > FIT_MARGIN:
        return f"the step is large: a margin above {FIT_MARGIN:g} lets the loss die before neurons have turned"
    if params.width < FIT_WIDTH:
        return f"the network is narrow: fewer than {FIT_WIDTH} neurons"
    return ""


def _fit_silence(params: XorGrokkingParams) -> str:
    if params.label_sampler != "stratified":
        return "the fit is for stratified labels"
    if abs(params.label_noise - theory.FIT_LABEL_NOISE) > 0.025:
        return f"the fit is for a share of flipped labels of 0.1, not {params.label_noise:.3g}"
    if _separation(params) > FIT_SEPARATED * (1.0 + 1e-6):
        return f"n mu^2/p is {_separation(params):.2g}, and the fit was made up to 1"
    if not np.isfinite(theory.fitted_quantile(params.n_train, params.signal)):
        return "outside the table that was fitted; drawn from its nearest entry"
    return _trained_silence(params)


# -- numbers ---------------------------------------------------------------------------------------------------


def _replicates(params: XorGrokkingParams) -> range:
    return range(params.first_replicate, params.first_replicate + params.replicates)


def _two_levels(step: NDArray[np.int64], until: int, before: float, after: float) -> Array:
    return np.where(step <= until, before, after)


def _normal(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(z))


@lru_cache(maxsize=1024)
def _strong_signal(n: int, signal: float, noise: float) -> float:
    return theory.strong_signal_error(n, signal, noise)


@lru_cache(maxsize=1024)
def _survivors(counts: bytes) -> NDArray[np.bool_]:
    return theory.clusters_survive(np.frombuffer(counts, dtype=np.int64).reshape(2, 2, 2))
