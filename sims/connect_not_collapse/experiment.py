"""One replicate: contrastive features of a graph, or target features that are aligned with the source's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate, generator, thin
from ..graphs import domain_runs, domains
from ..graphs.domains import DOMAIN_SAME, DomainGraph
from ..graphs.follow import follow
from . import kernels
from .lab import STREAMS, ConnectNotCollapseParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]

WIDTH = 1.0  # of the kernel by which domains are compared, whatever they were trained with
COMPARED = 200  # nodes of each domain that are compared, at most
_OF_GRAPH = ("lam_class", "lam_domain", "lam_interaction", "kept_class", "kept_domain", "kept_interaction",
             "domain_distance", "class_distance", "lonely", "n_nodes")  # fmt: skip


def simulate(params: ConnectNotCollapseParams, replicate: int, monitor: Monitor) -> Replicate:
    if params.method == "alignment":
        return _aligned(params, replicate, monitor)
    case = domain_runs.case_of(params, replicate, STREAMS)
    graph = case.graph
    outcome = domain_runs.run(
        params,
        case,
        lambda f: domains.least_squares(graph, f),
        recorded_steps(params),
        monitor,
        lambda f: [discrepancy(graph, f)],
    )
    return outcome.replicate({"residual": np.nan, "matched": np.nan})


def discrepancy(graph: DomainGraph, f: Array) -> float:
    """Squared maximum mean discrepancy of the features of the two domains, of evenly spaced nodes of each."""
    sides = [f[graph.domain == d] for d in range(2)]
    few = [x[np.unique(np.linspace(0, len(x) - 1, min(len(x), COMPARED)).astype(np.int64))] for x in sides]
    return float(kernels.discrepancy(few[0], few[1], WIDTH))


# -- alignment ---------------------------------------------------------------------------------------------------


def source_features(params: ConnectNotCollapseParams) -> Array:
    """S (r, r), one feature a class, on the axes."""
    return params.separation * np.eye(params.classes)


def start_of(params: ConnectNotCollapseParams, replicate: int) -> Array:
    """T (r, r) at the start, normal around the middle of the source's features."""
    S = source_features(params)
    rng = generator(params.seed, STREAMS["target"], replicate)
    return S.mean(axis=0) + params.start_spread * rng.standard_normal(S.shape)


def _aligned(params: ConnectNotCollapseParams, replicate: int, monitor: Monitor) -> Replicate:
    step = recorded_steps(params)
    S, T = source_features(params), start_of(params, replicate)
    widths = np.array(params.widths)
    found = np.empty(6)

    def advance(first: int, last: int) -> tuple[int, int]:
        return kernels.align(
            S, widths, params.step_scale, params.steps, T, first, last, monitor.cancel, monitor.progress
        )

    def row(now: Array, at: int) -> Array:
        kernels.measure(S, now, WIDTH, DOMAIN_SAME, found)
        width = widths[min(at * len(widths) // params.steps, len(widths) - 1)]
        return np.array([kernels.discrepancy(S, now, width), *found[1:4], np.nan, found[0]])

    frame_step = thin(step) if replicate == params.first_replicate else step[:0]
    end = follow(step, frame_step, advance, lambda: T, row, lambda now: {"target": now}, monitor)
    kernels.measure(S, T, WIDTH, DOMAIN_SAME, found)
    finals: Mapping[str, Any] = {name: np.nan for name in _OF_GRAPH}
    return Replicate(
        finals={**finals, "residual": float(found[4]), "matched": float(found[5])},
        frame_step=frame_step,
        frames=end.frames,
    )
