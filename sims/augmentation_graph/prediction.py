"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from theory import augmentation_graph as theory
from theory import graphs

from ..engine import About, Prediction, Trace
from ..graphs import spectrum as solver
from ..graphs.spectrum import Pairs
from .lab import LEVELS, TABLE, AugmentationGraphParams, recorded_steps
from .training import GraphFields, Setting, graph_fields, graph_of, params_of, setting_among, start_of

if TYPE_CHECKING:
    from theory.graphs import Spectrum

Array = NDArray[np.float64]

ALL_PAIRS = 1200  # nodes of a graph whose eigenvectors are all computed, for the exact flow
TOGETHER = 2**21  # numbers of the flows that are followed at once
SETTLED = 0.03  # tangent to the top eigenspace below which training counts as over

_LOSS = "minus the sum of the k largest squared eigenvalues"
_PROBE = "energy of the labels outside the k eigenvectors kept"
_BOUND = "pairs across classes over the gap to 1 of the next eigenvalue"
_FLOW = "closed form of the gradient flow from the same start"
_NO_GAP = "eigenvalues k and k+1 are equal: the top-k eigenspace is not unique, and no angle to it defined"


def spectrum_of(params: AugmentationGraphParams) -> tuple[Spectrum | None, str]:
    """The spectrum in closed form, or None and why there is none."""
    return _spectrum(graph_fields(params))


@lru_cache(maxsize=16)
def _spectrum(fields: GraphFields) -> tuple[Spectrum | None, str]:
    p = params_of(fields)
    if p.graph == "blocks":
        return graphs.nested_blocks(p.classes, p.subclusters, p.nodes_per_block, p.leak_within, p.leak), ""
    if p.graph == "ring":
        return graphs.window_ring(p.ring_nodes, p.window, p.arcs), ""
    if p.graph == "hypercube":
        bits = [int(bit) for bit in p.label_bits]
        truth = (graphs.parity_truth if p.cube_label == "parity" else graphs.majority_truth)(len(bits))
        return graphs.hypercube(np.array(p.flips), bits, truth, min(2**p.cube_dim, 4096)), ""
    if p.graph == "gaussian":
        if p.separation > 0:
            return None, "two Gaussians have no spectrum in closed form"
        return graphs.gaussian(np.array([p.signal_std]), np.array([p.noise_std]), 200), ""
    from ..graphs.generators import ROTATION_KERNEL, SHIFT_KERNEL

    return graphs.glyph_manifold(
        p.symmetry,
        graphs.ring_kernel(p.rotations, ROTATION_KERNEL),
        graphs.ring_kernel(p.shifts, SHIFT_KERNEL),
        p.colours,
        p.glyph_swap,
        p.colour_swap,
        p.glyph_label,
    ), ""


def predict(params: AugmentationGraphParams) -> Prediction:
    return _predict(params, recorded_steps(params))


def predict_ends(points: Sequence[AugmentationGraphParams]) -> list[Prediction]:
    """The lines on the last step of each run: the flow has no memory. Runs on one graph follow each other."""
    found = {i: graph_fields(points[i]) for i in range(len(points))}
    order = sorted(found, key=lambda i: str(found[i]))
    each = {i: _predict(points[i], recorded_steps(points[i])[-1:]) for i in order}
    return [each[i] for i in range(len(points))]


def _predict(params: AugmentationGraphParams, step: NDArray[np.int64]) -> Prediction:
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | Array | None, note: About) -> None:
        values[name], about[name] = value, note

    found, silent = spectrum_of(params)
    k = params.n_features
    exact: Any = "limit" if params.graph == "gaussian" else "exact"
    flow, no_flow = _flow(params, step) if params.training in TABLE else (None, "")
    over = _over_from(params, step, flow)
    unsettled = About(exact, _PROBE, 0.0, over, None, "before that the features are still turning")

    # What follows from the spectrum alone.
    for name, value, source in _of_spectrum(params, found):
        add(name, value, About("bound" if "bound" in name else exact, source, reason=silent))
    mse = values["probe_mse"]
    if mse is None and found is not None:
        about["probe_mse"] = About(exact, _PROBE, reason=theory.probe_mse(found, k).reason)
    elif mse is not None:
        about["probe_mse"] = unsettled
    _add_bounds(params, found, silent, add)

    # What training does.
    least = values["min_loss"]
    if params.training == "eigen":
        add("loss", least, About(exact, _LOSS, reason=silent))
    elif flow is not None:
        add("loss", flow["loss"], _about_flow(params))
    else:
        add("loss", least, About("bound", _LOSS, reason=silent or no_flow or "the least that training can reach"))
    for i in range(1, LEVELS + 1):
        add(f"mode_mass_{i}", *_mass(params, found, flow, i, over, silent or no_flow))
        add(f"half_time_{i}", *_half_time(params, found, i))
    if flow is not None:
        gap_reason = _NO_GAP if flow["degenerate"] else ""
        tangent = None if gap_reason else flow["tangent"]
        note = About("exact", _FLOW, reason=gap_reason) if gap_reason else _about_flow(params)
        add("subspace_tan", tangent, note)
    else:
        words = "solved for, not trained" if params.training == "eigen" else no_flow or "the network has no closed form"
        add("subspace_tan", None, About("exact", _FLOW, reason=words))
    return Prediction(step=step, prediction=values, about=about)


def _of_spectrum(params: AugmentationGraphParams, found: Spectrum | None) -> list[tuple[str, float | None, str]]:
    k = params.n_features
    if found is None:
        phi, alpha = graphs.mixture_crossing(params.separation, params.signal_std, params.noise_std)
        nothing = [("min_loss", None, _LOSS), ("probe_mse", None, _PROBE), ("gap", None, "eigenvalues")]
        return [*nothing, ("probe_bound", None, _BOUND), ("phi", phi, "Owen's T"), ("alpha", alpha, "quadrature")]
    return [
        ("min_loss", theory.min_loss(found, k), _LOSS),
        ("probe_mse", theory.probe_mse(found, k).value, _PROBE),
        ("gap", found.eigenvalue(k) - found.eigenvalue(k + 1), "eigenvalues in closed form"),
        ("probe_bound", theory.probe_mse_bound(found, k), _BOUND),
        ("phi", found.phi, "probability that a pair crosses classes"),
        ("alpha", found.alpha, "probability that a view leaves its class"),
    ]


def _add_bounds(params: AugmentationGraphParams, found: Spectrum | None, silent: str, add: Any) -> None:
    """Bounds on the 0-1 errors; claimed only where they say more than the constant probe does."""
    source = "twice the squared error; no theorem says more of the argmax"
    if found is None:
        add("probe_error", None, About("bound", source, reason=silent))
        add("vote_error", None, About("bound", source, reason=silent))
        return
    most = theory.probe_mse(found, params.n_features).high
    node = theory.node_error_bound(most)
    vacuous = theory.error_bound_is_vacuous(most, found.class_probabilities)
    late = "" if params.training == "eigen" else "of the minimiser, not of features that are still turning"
    reason = "vacuous: it promises no more than always naming the largest class" if vacuous else late
    nowhere = params.steps + 1 if vacuous else None if params.training == "eigen" else params.steps
    add("probe_error", node, About("bound", source, 0.0, nowhere, None, reason))
    vote = theory.natural_error_bound(node, found.alpha)
    empty = vote >= theory.constant_probe(found.class_probabilities)[1]
    reason = "vacuous: it promises no more than always naming the largest class" if empty else late
    add("vote_error", vote, About("bound", source, 0.0, params.steps + 1 if empty else nowhere, None, reason))


def _about_flow(params: AugmentationGraphParams) -> About:
    if params.training == "sgd":
        return About("limit", f"{_FLOW}; small steps, large batches")
    return About("exact", _FLOW)


def _over_from(
    params: AugmentationGraphParams, step: NDArray[np.int64], flow: Mapping[str, Array] | None
) -> int | None:
    """The first of the steps at which the minimiser is what training has reached; the last one where nobody knows."""
    if params.training == "eigen":
        return None
    if flow is None or not np.any(flow["tangent"] < SETTLED):
        return params.steps
    return int(step[np.argmax(flow["tangent"] < SETTLED)])


def _mass(
    params: AugmentationGraphParams,
    found: Spectrum | None,
    flow: Mapping[str, Any] | None,
    i: int,
    over: int | None,
    silent: str,
) -> tuple[float | Array | None, About]:
    if flow is not None:
        if i > flow["masses"].shape[1]:
            return None, About("exact", _FLOW, reason="the graph has fewer distinct eigenvalues")
        return flow["masses"][:, i - 1], _about_flow(params)
    if found is None or params.training in TABLE:
        return None, About("exact", _LOSS, reason=silent or "not drawn")
    if i > len(found.eigenvalues):
        return None, About("exact", _LOSS, reason="the graph has fewer distinct eigenvalues")
    before = int(np.sum(found.multiplicities[: i - 1]))
    value = float(found.eigenvalues[i - 1]) if before < params.n_features else 0.0
    return value, About("exact", "eigenvalues of the modes kept, 0 of others", 0.0, over, None, "still being learned")


def _half_time(params: AugmentationGraphParams, found: Spectrum | None, i: int) -> tuple[float | None, About]:
    source = "logistic growth of a mode that starts alone"
    if found is None or not (params.is_active("start") and params.start == "planted"):
        return None, About("exact", source, reason="the clock is for planted starts, in which modes do not mix")
    if i > len(found.eigenvalues) or int(np.sum(found.multiplicities[: i - 1])) >= params.n_features:
        return None, About("exact", source, reason="no feature is spent on this eigenvalue")
    time = float(theory.half_time(float(found.eigenvalues[i - 1]), params.init_scale**2))
    if not math.isfinite(time):
        return None, About("exact", source, reason="it starts above half of its final mass")
    return time, About("exact" if params.training == "gradient_flow" else "limit", source)


# -- the exact flow ----------------------------------------------------------------------------------------------


def _flow(params: AugmentationGraphParams, step: NDArray[np.int64]) -> tuple[Mapping[str, Any] | None, str]:
    """Loss (T,), masses (T, levels) and tangent (T,) of the exact flow, means over the replicates' own starts."""
    graph = graph_of(params)
    if graph.nodes > ALL_PAIRS:
        return None, f"the exact flow needs all eigenvectors, which are computed up to {ALL_PAIRS} nodes"
    everything = _all_pairs(graph_fields(params))
    here = setting_among(
        graph, params.n_features, lambda asked: Pairs(everything.values[:asked], everything.vectors[:, :asked])
    )
    first, last = params.first_replicate, params.first_replicate + params.replicates
    replicates = range(first, first + 1 if params.start == "planted" else last)
    level = solver.levels(everything.values)
    values = (np.bincount(level, everything.values) / np.bincount(level))[level]
    each, times = [], step * params.time_step
    together = max(1, TOGETHER // (len(times) * everything.vectors.shape[0] * params.n_features))
    for at in range(0, len(replicates), together):
        some = [start_of(params, r, here) for r in replicates[at : at + together]]
        starts = everything.vectors.T @ np.stack(some)
        each.append(_flow_from(here, values, level, starts, times))
    mean = {name: np.mean(np.concatenate([one[name] for one in each]), axis=0) for name in each[0]}
    return {**mean, "degenerate": here.degenerate}, ""


def _flow_from(
    here: Setting, values: Array, level: NDArray[np.int64], starts: Array, times: Array
) -> Mapping[str, Array]:
    """Loss, masses and tangent (R, T, ..) from F(0) = V starts (R, N, k), the eigenvalues (N,) numbered by `level`."""
    if len(times) > 1:
        values, level, starts = _reduced(values, level, starts)
    path = theory.gradient_flow(values, starts, times)
    shown, each = here.shown_levels, np.searchsorted(level, np.arange(level[-1] + 1))
    masses = np.add.reduceat(theory.mode_masses(path), each, axis=2)[:, :, :shown] / here.kept[:shown]
    tangent = np.full(path.shape[:2], math.nan)
    if not here.degenerate:
        tangent = theory.subspace_tangent(values, starts, times)
    return {"loss": theory.factor_loss(values, path), "masses": masses, "tangent": tangent}


def _reduced(values: Array, level: NDArray[np.int64], starts: Array) -> tuple[Array, NDArray[np.int64], Array]:
    """The same with as many rows of each level as matter.

    Of the rows of one eigenspace only the Gram matrix enters the flow, so that at most k are needed: the triangle of
    their QR decomposition.
    """
    k, parts = starts.shape[2], np.split(starts, np.flatnonzero(np.diff(level)) + 1, axis=1)
    rows = [np.linalg.qr(part, mode="r") if part.shape[1] > k else part for part in parts]
    number = np.repeat(np.arange(len(rows)), [part.shape[1] for part in rows])
    return values[np.searchsorted(level, number)], number, np.concatenate(rows, axis=1)


@lru_cache(maxsize=2)
def _all_pairs(fields: GraphFields) -> Pairs:
    graph = graph_of(params_of(fields))
    return solver.top(graph, graph.nodes, np.random.Generator(np.random.Philox(0)))


# -- metrics that need the theory --------------------------------------------------------------------------------


def derive(params: AugmentationGraphParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) metrics: distances from the minimum and its eigenspace, and half times, measured on the recorded series."""
    k, late = params.n_features, trace.step >= params.steps / 2.0
    own = np.zeros((trace.replicates, k))
    values = trace.finals["eigenvalues"]
    own[:, : min(k, values.shape[1])] = values[:, :k]
    least = -np.sum(own**2, axis=1)
    known = predicted.prediction["min_loss"]
    excess = trace.series["loss"] - (least[:, None] if known is None else float(np.asarray(known)))
    sine = _sine(trace.series["subspace_tan"])
    beyond = values[:, k] if values.shape[1] > k else np.zeros(trace.replicates)
    with np.errstate(divide="ignore"):
        bound = np.where(beyond < 1.0 - 1e-12, trace.finals["phi"] / np.maximum(1.0 - beyond, 1e-300), np.inf)
    found = {
        "min_loss": least,
        "excess_loss": excess[:, -1],
        "late_excess_loss": np.mean(excess[:, late], axis=1),
        "subspace_sine": sine[:, -1],
        "late_subspace_sine": np.mean(sine[:, late], axis=1),
        "probe_bound": bound,
        "eigenvalue_error": _eigenvalue_error(params, values),
    }
    levels = solver.levels(values[0])
    for i in range(1, LEVELS + 1):
        reached = np.full(trace.replicates, math.nan)
        at = np.flatnonzero(levels == i - 1)
        if len(at) and at[0] < k:
            reached = np.array(
                [
                    crossing(t, m, 0.5 * values[0, at[0]])
                    for t, m in zip(trace.series["time"], trace.series[f"mode_mass_{i}"], strict=True)
                ]
            )
        found[f"half_time_{i}"] = reached
    return found


def _sine(tangent: Array) -> Array:
    return np.where(np.isinf(tangent), 1.0, tangent / np.sqrt(1.0 + np.where(np.isinf(tangent), 0.0, tangent) ** 2))


def crossing(time: Array, mass: Array, level: float) -> float:
    """When a recorded mass first passes a level, interpolated in its logit; NaN if it does not or starts above."""
    above = np.flatnonzero(mass >= level)
    if not len(above) or above[0] == 0 or not np.isfinite(time[above[0]]):
        return math.nan
    i = int(above[0])
    limit = 2.0 * level
    low, high = (math.log(m / (limit - m)) if 0.0 < m < limit else math.nan for m in (mass[i - 1], mass[i]))
    share = (0.0 - low) / (high - low)
    if not math.isfinite(share):
        share = (level - mass[i - 1]) / (mass[i] - mass[i - 1])
    return float(time[i - 1] + share * (time[i] - time[i - 1]))


def _eigenvalue_error(params: AugmentationGraphParams, values: Array) -> Array:
    found, _ = spectrum_of(params)
    if found is None:
        return np.full(len(values), math.nan)
    known = min(values.shape[1], params.n_features + 1)
    return np.max(np.abs(values[:, :known] - found.top(known)), axis=1)
