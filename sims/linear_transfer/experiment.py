"""One replicate: the graph, its features solved for or trained, the head, and what is measured on the way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate
from ..graphs import domain_runs, domains
from ..graphs.domains import DomainGraph
from . import kernels
from .lab import STREAMS, LinearTransferParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]


def head_of(params: LinearTransferParams, graph: DomainGraph, f: Array) -> Array:
    """(k, r) the head on features f."""
    if params.head == "averaging":
        return domains.averaged(graph, f, params.walk_steps)
    return domains.least_squares(graph, f, params.ridge)


def spread_labels(graph: DomainGraph, walk_steps: int) -> Array:
    """(N, r) what a walk of so many steps says: a source node of class i is worth 1/(its count of nodes, its weight).

    These are the scores of averaged features, if all features are kept and no eigenvalue is negative.
    """
    indptr, indices = graph.abar.indptr, graph.abar.indices
    chances = graph.abar.data * np.repeat(1.0 / np.sqrt(graph.w), np.diff(indptr)) * np.sqrt(graph.w)[indices]
    labelled = (graph.label[:, None] == np.arange(graph.classes)) & graph.source[:, None]
    values = labelled / labelled.sum(axis=0) / graph.w[:, None]
    kernels.spread(indptr, indices, chances, walk_steps, values)
    return values


def simulate(params: LinearTransferParams, replicate: int, monitor: Monitor) -> Replicate:
    case = domain_runs.case_of(params, replicate, STREAMS)
    graph = case.graph
    outcome = domain_runs.run(
        params,
        case,
        lambda f: head_of(params, graph, f),
        recorded_steps(params),
        monitor,
    )
    return outcome.replicate(_walk(params, graph, outcome.features))


def _walk(params: LinearTransferParams, graph: DomainGraph, f: Array) -> dict[str, float]:
    """How labels do that spread over the graph itself, and how far their scores are from those of the features."""
    if params.head != "averaging":
        return {"walk_accuracy": math.nan, "walk_error": math.nan}
    walked = spread_labels(graph, params.walk_steps)
    scores = f @ head_of(params, graph, f)
    return {
        "walk_accuracy": domains.transfer(graph, walked).target,
        "walk_error": float(np.max(np.abs(walked - scores))),
    }
