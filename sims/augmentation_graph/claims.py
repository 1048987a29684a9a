"""Sentences about augmentation graphs, executable: the spectrum, the probe, the bounds, the dynamics, and two myths.

What is deterministic has no standard error; what is not, one over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import farthest, mean_se
from .lab import LEVELS, TABLE

if TYPE_CHECKING:
    from theory.graphs import Spectrum

    from ..engine import Run
    from .lab import AugmentationGraphParams

Array = NDArray[np.float64]
Judge = Callable[["Sequence[Run]"], Measured]
Runs = Callable[["AugmentationGraphParams"], "list[AugmentationGraphParams]"]

_PAPER = "HaoChen et al. 2021"
_FACTORISATION = f"{_PAPER}: the loss is a low-rank factorisation of the normalised adjacency matrix"
_MEASURED = "found in simulations, no theorem"
DISTINCT = 1e-9  # eigenvalues closer than this are one eigenvalue
GRID_VALUES = 6  # eigenvalues of a Gaussian on a grid that are compared
CUBE = (0.02, 0.05, 0.05, 0.1, 0.25, 0.3, 0.35, 0.4)  # flip probabilities of the network's cube
SMALL_BLOCKS = {"graph": "blocks", "classes": 4, "subclusters": 3, "nodes_per_block": 5}
LEAKS = (0.08, 0.082, 0.133, 0.1342)  # around the two places where the bound on the error turns empty


def _exact(measured: float, tolerance: float, predicted: float = 0.0) -> Measured:
    """A deterministic finding; what must not be positive is reported as 0 where it is not."""
    return Measured(predicted, measured, 0.0, tolerance)


def _excess(values: Array | Sequence[float], tolerance: float = 1e-9) -> Measured:
    """By how much an inequality is violated, at worst."""
    return _exact(float(np.max(np.maximum(values, 0.0))), tolerance)


def _spectrum(params: AugmentationGraphParams) -> Spectrum | None:
    from .prediction import spectrum_of

    return spectrum_of(params)[0]


# -- kinds of run and assumptions ------------------------------------------------------------------------------


def _closed(p: AugmentationGraphParams) -> bool:
    return not (p.graph == "gaussian" and p.separation > 0)


def _no_grid(p: AugmentationGraphParams) -> bool:
    return p.graph != "gaussian"


def _classes_over_subclusters(p: AugmentationGraphParams) -> float:
    """By how much the class eigenvalue exceeds that of sub-clusters."""
    from theory.graphs import block_eigenvalues

    cls, sub = block_eigenvalues(p.classes, p.subclusters, p.leak_within, p.leak)
    return cls - sub


def _classes_lead(p: AugmentationGraphParams) -> bool:
    return p.graph == "blocks" and _classes_over_subclusters(p) > DISTINCT


def _sub_leads(p: AugmentationGraphParams) -> bool:
    """Whether sub-clusters are learned before classes, and both by embeddings of a width that is allowed."""
    from theory.graphs import block_eigenvalues

    if p.graph != "blocks" or p.classes * p.subclusters > 64 or _classes_over_subclusters(p) >= -DISTINCT:
        return False
    return block_eigenvalues(p.classes, p.subclusters, p.leak_within, p.leak)[0] > DISTINCT


def _waves_in_order(p: AugmentationGraphParams) -> bool:
    """Whether the first waves of a ring, up to one more than arcs, have the largest eigenvalues."""
    ordered = p.graph == "ring" and p.window > 0 and (2 * p.window + 1) * (p.arcs + 1) < p.ring_nodes
    return ordered and p.arcs <= 31


def _flow_known(p: AugmentationGraphParams) -> bool:
    from .prediction import ALL_PAIRS

    return p.training == "gradient_flow" and p.nodes <= ALL_PAIRS


def _turning(p: AugmentationGraphParams) -> bool:
    """A random start whose angle to the top eigenspace is defined and known."""
    known = _spectrum(p)
    if known is None or not _flow_known(p) or p.start != "random":
        return False
    return known.eigenvalue(p.n_features) - known.eigenvalue(p.n_features + 1) > DISTINCT


def _table_of_blocks(p: AugmentationGraphParams) -> bool:
    return p.graph == "blocks" and p.training in TABLE


def _fine_steps(p: AugmentationGraphParams) -> str | None:
    if p.time_step <= 0.01:
        return None
    return f"Steps must be short: a step advances time by {p.time_step:.3g}, not by at most 0.01."


def _published_blocks(p: AugmentationGraphParams) -> bool:
    return p.graph == "blocks" and (p.classes, p.subclusters, p.leak_within) == (4, 3, 0.1)


# -- judges: the spectrum and the probe --------------------------------------------------------------------------


def _judge_spectrum(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    known = _spectrum(run.params)
    assert known is not None
    grid = run.params.graph == "gaussian"
    found = run.trace.finals["eigenvalues"]
    count = min(found.shape[1], GRID_VALUES if grid else known.size if known.complete else known.listed)
    gap = float(np.max(np.abs(found[:, :count] - known.top(count))))
    return _exact(gap, 1e-5 if grid else 1e-10)


def _judge_crossings(runs: Sequence[Run]) -> Measured:
    """phi, and alpha where the kernel of views was formed."""
    (run,) = runs
    gaps = [np.abs(run.values[name] - float(run.prediction.prediction[name])) for name in ("phi", "alpha")]
    both = np.concatenate([gaps[0], gaps[1][~np.isnan(gaps[1])]])
    return _exact(float(np.max(both)), 1e-3 if run.params.graph == "gaussian" else 1e-10)


def _judge_least_loss(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    least = float(run.prediction.prediction["min_loss"])
    measured = farthest([(float(value), 0.0) for value in run.values["loss"]], least)[0]
    return _exact(measured, 1e-8, least)


def _judge_staircase(runs: Sequence[Run]) -> Measured:
    """The probe on the first k eigenvectors, for every k at which theory has one answer, in every random basis."""
    from theory.augmentation_graph import probe_mse

    (run,) = runs
    known, found = _spectrum(run.params), run.trace.finals["probe_mse_by_k"]
    assert known is not None
    grid = run.params.graph == "gaussian"
    most = min(found.shape[1], GRID_VALUES if grid else found.shape[1] if known.complete else known.listed)
    gaps = [0.0]
    for k in range(1, most + 1):
        expected = probe_mse(known, k).value
        if expected is not None:
            gaps.append(float(np.max(np.abs(found[:, k - 1] - expected))))
    return _exact(max(gaps), 1e-3 if grid else 1e-9)


def _judge_bounds(runs: Sequence[Run]) -> Measured:
    """mse <= phi/(1 - next eigenvalue), error <= 2 mse for every k; vote <= 2 (error + alpha) for the features."""
    (run,) = runs
    finals = run.trace.finals
    mse, error, lam = finals["probe_mse_by_k"], finals["probe_error_by_k"], finals["eigenvalues"]
    gap = 1.0 - lam[:, 1:]
    open_ = gap > 1e-12
    bound = np.where(open_, finals["phi"][:, None] / np.where(open_, gap, 1.0), np.inf)
    excess = [np.max(mse[:, : bound.shape[1]] - bound, initial=0.0), np.max(error - 2.0 * mse)]
    vote = finals["vote_error"] - 2.0 * (run.values["probe_error"] + finals["alpha"])
    return _excess([float(one) for one in (*excess, *vote[~np.isnan(vote)])])


def _judge_cheap_cut(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    lam = run.trace.finals["eigenvalues"][:, run.params.n_classes - 1]
    return _excess((1.0 - lam) / 2.0 - run.values["phi"])


def _judge_never_below(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return _excess([float(np.max(run.values["min_loss"][:, None] - run.trace.series["loss"]))])


def _judge_cliff(runs: Sequence[Run]) -> Measured:
    """One feature less than classes leaves 1/C, as many leave nothing."""
    gaps = [
        abs(float(value) - max(0.0, 1.0 - run.params.n_features / run.params.classes))
        for run in runs
        for value in run.values["probe_mse"]
    ]
    return _exact(max(gaps), 1e-9)


def _judge_wasted(runs: Sequence[Run]) -> Measured:
    """1 - 1/C while sub-clusters are learned, 1/C less with each feature after them."""
    gaps = []
    for run in runs:
        p = run.params
        useful = p.n_features - (1 + p.classes * (p.subclusters - 1))
        gaps.append(np.max(np.abs(run.values["probe_mse"] - (1.0 - (1 + useful) / p.classes))))
    return _exact(float(max(gaps)), 1e-9)


def _judge_all_suffices(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return _exact(float(np.max(run.values["probe_mse"])), 0.01)


def _judge_argmax_haar(runs: Sequence[Run]) -> Measured:
    from theory.augmentation_graph import haar_argmax_error

    (run,) = runs
    C, errors = run.params.classes, run.trace.finals["probe_error_by_k"]
    rng, found = np.random.Generator(np.random.Philox(run.params.seed)), []
    for k in range(1, C + 1):
        expected, sampled = haar_argmax_error(C, k, 4000, rng)
        mean, error = mean_se(errors[:, k - 1])
        found.append((expected, mean, math.hypot(sampled, error) if error is not None else None))
    return Measured(*max(found, key=lambda one: abs(one[1] - one[0])), 0.03)


def _judge_argmax_cliff(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    C, errors = run.params.classes, run.trace.finals["probe_error_by_k"]
    k = C // 2
    return Measured(1.0 - k / C, *mean_se(errors[:, k - 1]), 0.05)


def _judge_flat(runs: Sequence[Run]) -> Measured:
    before, after = (run.values["probe_mse"] for run in runs)
    return _exact(float(np.max(np.abs(before - after))), 1e-9)


def _judge_empty_bound(runs: Sequence[Run]) -> Measured:
    """Leaks at which twice the bound passes the constant probe's error, and 1, between the runs beside them."""
    from scipy.optimize import brentq

    from theory.augmentation_graph import constant_probe, probe_mse_bound

    leaks = [run.params.leak for run in runs]
    promised = [2.0 * float(run.values["probe_bound"][0]) for run in runs]
    known = _spectrum(runs[0].params)
    assert known is not None
    found = []
    for i, level in ((0, constant_probe(known.class_probabilities)[1]), (2, 1.0)):
        share = (level - promised[i]) / (promised[i + 1] - promised[i])
        measured = leaks[i] + share * (leaks[i + 1] - leaks[i]) if 0.0 <= share <= 1.0 else math.nan

        def above(leak: float, run: Run = runs[0], level: float = level) -> float:
            there = _spectrum(run.params.replace(leak=leak))
            assert there is not None
            return 2.0 * probe_mse_bound(there, run.params.n_features) - level

        found.append((float(brentq(above, 1e-6, 0.44)), measured, 0.0, 1e-4))
    return Measured(*max(found, key=lambda one: abs(one[1] - one[0]) if math.isfinite(one[1]) else math.inf))


def _judge_jump(runs: Sequence[Run]) -> Measured:
    below, above = (run.values["probe_mse"] for run in runs)
    return _exact(float(np.min(above) - np.max(below)), 1e-9, 0.75)


def _judge_colour(runs: Sequence[Run]) -> Measured:
    below, above = (run.values["probe_mse"] for run in runs)
    return _exact(float(np.min(above) - np.max(below)), 1e-9, 1.0 - 1.0 / runs[0].params.colours)


# -- judges: dynamics ---------------------------------------------------------------------------------------------


def _judge_flow(runs: Sequence[Run]) -> Measured:
    """Loss and masses along the run against the closed form from the same starts: means over replicates."""
    (run,) = runs
    gaps = [0.0]
    for name in ("loss", *(f"mode_mass_{i}" for i in range(1, LEVELS + 1))):
        expected = run.prediction.prediction[name]
        if expected is not None:
            gaps.append(float(np.max(np.abs(_mean_series(run, name) - expected))))
    return _exact(max(gaps), 1e-6)


def _mean_series(run: Run, name: str) -> Array:
    shared = run.params.start == "planted"  # one start, so that the prediction is of one replicate
    return np.mean(run.trace.series[name][: 1 if shared else None], axis=0)


def _judge_half_times(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    ratios = [1.0]
    for i in range(1, LEVELS + 1):
        expected = run.prediction.prediction[f"half_time_{i}"]
        if expected is not None and expected < run.params.steps * run.params.time_step:
            ratios.append(float(run.values[f"half_time_{i}"][0]) / float(expected))
    return _exact(farthest([(one, 0.0) for one in ratios], 1.0)[0], 0.005, 1.0)


def _judge_angle(tolerance: float) -> Judge:
    """The mean tangent against the span formula for the same starts, while it is well above rounding."""

    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        expected = np.asarray(run.prediction.prediction["subspace_tan"])
        seen = (expected > 1e-5) & np.isfinite(expected)
        ratio = np.mean(run.trace.series["subspace_tan"], axis=0)[seen] / expected[seen]
        return _exact(farthest([(float(one), 0.0) for one in ratio], 1.0)[0], tolerance, 1.0)

    return judge


def _judge_angle_bound(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    tangent, time = run.trace.series["subspace_tan"], run.trace.series["time"]
    bound = tangent[:, :1] * np.exp(-4.0 * run.values["gap"][:, None] * time)
    seen = tangent > 1e-9
    return _excess((tangent[seen] / bound[seen] - 1.0) if seen.any() else [0.0], 1e-6)


def _judge_rate(runs: Sequence[Run]) -> Measured:
    """Fall of the tangent in the second half of the run, over 4 gap: the slowest pair of modes is left."""
    (run,) = runs
    tangent, time = run.trace.series["subspace_tan"], run.trace.series["time"]
    half = int(np.argmin(np.abs(time[0] - 5.0)))
    rate = np.log(tangent[:, half] / tangent[:, -1]) / (time[:, -1] - time[:, half])
    return Measured(1.0, *mean_se(rate / (4.0 * run.values["gap"])), 0.01)


def _judge_noise(name: str, predicted: float, tolerance: float) -> Judge:
    """Ratio of a stationary mean at learning rate 1 to that at 0.5."""

    def judge(runs: Sequence[Run]) -> Measured:
        (high, high_error), (low, low_error) = (mean_se(run.values[name]) for run in runs)
        if high_error is None or low_error is None:
            return Measured(predicted, high / low, None, tolerance)
        error = high / low * math.hypot(high_error / high, low_error / low)
        return Measured(predicted, high / low, error, tolerance)

    return judge


def _judge_network_loss(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return Measured(float(run.prediction.prediction["min_loss"]), *mean_se(run.values["loss"]), 0.01)


def _judge_network_span(runs: Sequence[Run]) -> Measured:
    """Share of each of the first k + 1 eigenvectors that lies in the span of the features: 1, ..., 1, 0."""
    (run,) = runs
    k, inside = run.params.n_features, run.trace.finals["mode_r2"]
    wrong = np.abs(inside[:, : k + 1] - (np.arange(k + 1) < k))
    worst = int(np.argmax(np.mean(wrong, axis=0)))
    return Measured(0.0, *mean_se(wrong[:, worst]), 0.01)


def _judge_network_sizes(runs: Sequence[Run]) -> Measured:
    """Eigenvalues of F^T F against those of the graph, the one farthest off."""
    (run,) = runs
    known = _spectrum(run.params)
    assert known is not None
    gaps = run.trace.finals["feature_eigenvalues"] - known.top(run.params.n_features)
    worst = int(np.argmax(np.abs(np.mean(gaps, axis=0))))
    return Measured(0.0, *mean_se(gaps[:, worst]), 0.015)


# -- over which runs -----------------------------------------------------------------------------------------------


def _solved(*changes: dict[str, Any]) -> Runs:
    """The same graph, solved, with other changes a run; two random bases each."""

    def over(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
        plain = params.replace(training="eigen", replicates=2, steps=1)
        return [plain.replace(**one) for one in changes]

    return over


def _around_the_cliff(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return _solved(*({"n_features": k} for k in (params.classes - 1, params.classes)))(params)


def _all_classes(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return _solved({"n_features": params.classes})(params)


def _wasted(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    last = 1 + params.classes * (params.subclusters - 1)
    return _solved(*({"n_features": k} for k in range(last, last + params.classes)))(params)


def _ten_classes(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    changes = {"graph": "blocks", "classes": 10, "subclusters": 2, "nodes_per_block": 2, "leak_within": 0.1}
    return [
        params.make(**changes, leak=0.04, n_features=10, training="eigen", steps=1, replicates=300, seed=params.seed)
    ]


def _multiple_of_arcs(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return _solved(*({"n_features": 2 * params.arcs + more} for more in (-1, 1)))(params)


def _leaks(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return _solved(*({"n_features": params.classes, "leak": leak} for leak in LEAKS))(params)


def _around_the_jump(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return _solved(*({"n_features": params.classes, "leak": leak} for leak in (0.4495, 0.4505)))(params)


def _around_the_crossing(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    """Six glyphs that are swapped with probability 0.06: colour crosses identity at 0.048."""
    return [
        params.make(
            graph="glyphs",
            glyph_label="colour",
            colour_swap=swap,
            n_features=3,
            training="eigen",
            steps=1,
            replicates=2,
        )
        for swap in (0.0475, 0.0485)
    ]


def _small_flow(integrator: str, time_step: float, **changes: Any) -> Runs:
    """60 nodes up to time 6, eight starts of size 0.001."""

    def over(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
        common = {"training": "gradient_flow", "integrator": integrator, "learning_rate": 60 * time_step}
        start = {"init_scale": 1e-3, "steps": round(6 / time_step), "replicates": 8, "seed": params.seed}
        return [params.make(SMALL_BLOCKS | common | start | changes)]

    return over


def _two_rates(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    """60 nodes up to time 267."""
    return [
        params.make(
            SMALL_BLOCKS,
            training="sgd",
            learning_rate=rate,
            steps=round(267 * 60 / rate),
            replicates=8,
            seed=params.seed,
        )
        for rate in (1.0, 0.5)
    ]


def _cube_network(params: AugmentationGraphParams) -> list[AugmentationGraphParams]:
    return [
        params.make(
            graph="hypercube",
            cube_dim=8,
            flip_probs=CUBE,
            training="network",
            n_features=6,
            width=128,
            learning_rate=2e-3,
            batch=256,
            steps=3000,
            replicates=4,
            seed=params.seed,
        )
    ]


CLAIMS = (
    Claim(
        "spectrum",
        "The solver finds the eigenvalues of the closed form, every copy (to 1e-10; Gaussian: the first six to 1e-5).",
        "circulant, product, block and Mehler spectra",
        about=_closed,
        judge=_judge_spectrum,
    ),
    Claim(
        "crossings",
        "Views leave their class, and pairs cross classes, as often as predicted (to 1e-10; on a grid to 0.001).",
        "P(crossing) = 1 minus the labels' energies weighted by the eigenvalues",
        about=lambda p: True,
        judge=_judge_crossings,
    ),
    Claim(
        "least_loss",
        "The loss of the top-k spectral embedding is minus the sum of its squared eigenvalues (to 1e-8).",
        _FACTORISATION,
        about=lambda p: p.training == "eigen" and _no_grid(p),
        judge=_judge_least_loss,
    ),
    Claim(
        "never_below",
        "No embedding of k features ever has a smaller loss than the top-k spectral embedding.",
        _FACTORISATION,
        about=lambda p: p.training != "eigen",
        judge=_judge_never_below,
    ),
    Claim(
        "probe_staircase",
        "The probe's squared error on the first k eigenvectors is the label energy outside them, in every basis.",
        "projection of the one-hot labels",
        about=_closed,
        judge=_judge_staircase,
    ),
    Claim(
        "bounds",
        "Squared error <= phi/(1 - lam_{k+1}), wrong nodes <= 2 squared error, wrong votes <= 2 (wrong nodes + alpha).",
        f"{_PAPER}, its technique with constants of our own",
        about=lambda p: True,
        judge=_judge_bounds,
    ),
    Claim(
        "cheap_cut",
        "C classes that views rarely leave force C large eigenvalues: (1 - lam_C)/2 <= phi.",
        "the easy side of the higher-order Cheeger inequality",
        about=lambda p: p.n_classes <= 16,
        judge=_judge_cheap_cut,
    ),
    Claim(
        "cliff",
        "With one feature less than classes the squared error is 1/C, with as many it is 0: exactly, in every basis.",
        "each direction of the class space carries 1/C of the labels' energy",
        about=_classes_lead,
        over=_around_the_cliff,
        judge=_judge_cliff,
    ),
    Claim(
        "cliff_anyway",
        "As many features as classes leave no squared error even where sub-clusters are better separated than classes.",
        "false on purpose: the features are spent on sub-clusters",
        about=_sub_leads,
        over=_all_classes,
        judge=_judge_all_suffices,
    ),
    Claim(
        "wasted_features",
        "Where sub-clusters lead, the squared error waits at 1 - 1/C for k = 1 + C(s-1), then falls by 1/C a feature.",
        "order of the eigenvalues",
        about=_sub_leads,
        over=_wasted,
        judge=_judge_wasted,
    ),
    Claim(
        "argmax_is_early",
        "With 10 classes the 0-1 error falls long before the cliff, as for random directions of the class space.",
        f"{_MEASURED}; the class space has no preferred basis",
        about=lambda p: p.training == "eigen" and _classes_lead(p),
        over=_ten_classes,
        judge=_judge_argmax_haar,
    ),
    Claim(
        "argmax_cliff",
        "The 0-1 error falls like the squared error: with 5 features half of 10 classes are wrong (within 0.05).",
        "false on purpose: the theorem speaks of the squared error",
        about=lambda p: p.training == "eigen" and _classes_lead(p),
        over=_ten_classes,
        judge=_judge_argmax_cliff,
    ),
    Claim(
        "flat_at_multiples",
        "On the ring the waves whose frequency is the number of arcs tell nothing about the arcs.",
        "Fourier coefficients of equal arcs",
        about=_waves_in_order,
        over=_multiple_of_arcs,
        judge=_judge_flat,
    ),
    Claim(
        "empty_bound",
        "The bound on the error promises less than guessing from a leak of 0.0810 on, and exceeds 1 from 0.1336 on.",
        "twice phi/(1 - lam_5) against 1 - 1/C, and against 1",
        about=_published_blocks,
        over=_leaks,
        judge=_judge_empty_bound,
    ),
    Claim(
        "jump",
        "At a leak of 0.45 classes fall behind sub-clusters, and the squared error of 4 features jumps from 0 to 0.75.",
        "order of the eigenvalues",
        about=_published_blocks,
        over=_around_the_jump,
        judge=_judge_jump,
    ),
    Claim(
        "colour_or_identity",
        "Three features tell colours apart below a colour swap of 0.048 and know nothing of them above.",
        "order of the eigenvalues: they cross where eps_col col/(col-1) = eps G/(G-1)",
        about=lambda p: p.graph == "glyphs",
        over=_around_the_crossing,
        judge=_judge_colour,
    ),
    Claim(
        "flow_in_closed_form",
        "Loss and masses of the modes follow the closed form of the gradient flow from the same start (to 1e-6).",
        "matrix Riccati equation",
        about=lambda p: _flow_known(p) and p.integrator == "rk4",
        assumes=_fine_steps,
        judge=_judge_flow,
    ),
    Claim(
        "half_times",
        "Planted modes switch on one after the other, at ln(lam/m0 - 1)/(8 lam) (within 0.5 %).",
        "logistic growth of a mode that starts alone",
        about=lambda p: _flow_known(p) and p.start == "planted",
        assumes=_fine_steps,
        judge=_judge_half_times,
    ),
    Claim(
        "power_iteration",
        "The span of the features turns as in continuous power iteration from the same start (to 1e-6, relative).",
        "the nonlinear part of the flow acts within the span",
        about=lambda p: _turning(p) and p.integrator == "rk4",
        assumes=_fine_steps,
        judge=_judge_angle(1e-6),
    ),
    Claim(
        "angle_bound",
        "The tangent of the angle to the top-k eigenspace is at most its start times exp(-4 (lam_k - lam_{k+1}) t).",
        "continuous power iteration",
        about=lambda p: _turning(p) and p.integrator == "rk4",
        assumes=_fine_steps,
        judge=_judge_angle_bound,
    ),
    Claim(
        "angle_rate",
        "From time 5 to 6 the tangent falls at the rate 4 (lam_k - lam_{k+1}), within 1 %.",
        "continuous power iteration, once the slowest pair of modes is left",
        about=_table_of_blocks,
        over=_small_flow("rk4", 0.005),
        judge=_judge_rate,
    ),
    Claim(
        "euler_angle",
        "Explicit Euler with steps of 0.001 keeps the tangent within 1 % of the flow's up to time 6.",
        "continuous power iteration",
        about=_table_of_blocks,
        over=_small_flow("euler", 0.001),
        judge=_judge_angle(0.01),
    ),
    Claim(
        "noise_floor_angle",
        "The angle at which SGD settles goes like the root of the learning rate: ratio 1.41 for a factor 2 (+-0.1).",
        _MEASURED,
        about=lambda p: p.training == "sgd",
        over=_two_rates,
        judge=_judge_noise("late_subspace_sine", math.sqrt(2.0), 0.1),
    ),
    Claim(
        "noise_floor_loss",
        "The excess loss at which SGD settles goes like the learning rate: ratio 2 for a factor 2 (+-0.3).",
        _MEASURED,
        about=lambda p: p.training == "sgd",
        over=_two_rates,
        judge=_judge_noise("late_excess_loss", 2.0, 0.3),
    ),
    Claim(
        "network_loss",
        "A small ReLU network on the cube reaches the least loss of any 6 features within 0.01.",
        f"{_MEASURED}: the network can represent the characters",
        about=lambda p: p.training == "network" and p.graph == "hypercube",
        over=_cube_network,
        judge=_judge_network_loss,
    ),
    Claim(
        "network_span",
        "Its features span the six characters of largest eigenvalue, and nothing of the seventh (R^2 within 0.01).",
        _FACTORISATION,
        about=lambda p: p.training == "network" and p.graph == "hypercube",
        over=_cube_network,
        judge=_judge_network_span,
    ),
    Claim(
        "network_sizes",
        "Its features have the sizes of the minimiser: the eigenvalues of F^T F are the graph's within 0.015.",
        _FACTORISATION,
        about=lambda p: p.training == "network" and p.graph == "hypercube",
        over=_cube_network,
        judge=_judge_network_sizes,
    ),
)
