"""What a run of contrastive features of classes in domains costs, in units of probes that labs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..engine import Lab, RunMonitor, Work

LANCZOS_STEPS = 60.0  # of a sampled graph, or so
SETUP_LOOKS = 1.3  # what is done before the first step and after the last, in looks


def work(params: Any, recorded: int) -> Work:
    """Batches of descent, measuring, drawing and solving a graph, and the theory."""
    N, k, r = float(params.nodes), float(params.n_features), float(params.classes)
    sampled, trained = params.graph == "random", params.training == "sgd"
    density = _density(params) if sampled else 1.0
    edges = density * N * N
    batches = params.steps * float(params.batch) * (params.batch * k + 30.0) if trained else 0.0
    looks = SETUP_LOOKS + (recorded if trained else 1.0)
    solving = 0.5 * N * N + edges + LANCZOS_STEPS * (2.0 * edges + 10.0 * N * k) if sampled else N**3
    return Work(
        per_replicate={
            "pair": batches,
            "measure": looks * (20_000.0 + N * (k + r) ** 2 + edges),
            "draw": solving,
        },
        once={"predict": 1.0},
        bytes=8.0 * (6.5 * edges + 20.0 * N * (k + r) + params.replicates * 10.0 * recorded + 1e6),
        serial=("measure",),
    )


def _density(params: Any) -> float:
    """Mean chance of an edge."""
    r, m = params.classes, params.domains
    rho, al, be, ga = params.weights
    return float(rho + (m - 1) * al + (r - 1) * be + (r - 1) * (m - 1) * ga) / (r * m)


def probes(lab: Lab) -> Mapping[str, Callable[[], float]]:
    """How long each kind of work takes: `work` of short runs of the lab itself."""

    def timed(name: str, **changes: Any) -> Callable[[], float]:
        params = lab.params.make(replicates=1, **changes)

        def once() -> float:
            lab.simulate(params, 0, RunMonitor.allocate(lab, params).of(0))
            return lab.work(params).per_replicate[name]

        return once

    def predicted() -> float:
        lab.predict(lab.params.make(replicates=1))
        return 1.0

    return {
        "pair": timed("pair", steps=400, batch=256),
        "measure": timed("measure", training="eigen", steps=1),
        "draw": timed("draw", graph="random", nodes_per_block=200, training="eigen", steps=1),
        "predict": predicted,
    }
