"""A replicate of contrastive features of classes in domains: solved for or trained, with a head on the source.

What several labs run alike. Their params name alike what is read here: graph, classes, domains, nodes_per_block,
weights, n_features, training, learning_rate, batch, init_scale, steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate, Stop, generator, thin
from . import descent, domains, spectrum
from .domains import CLASS, DOMAIN, INTERACTION, DomainGraph
from .follow import End, follow, resting
from .spectrum import Pairs

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SHOWN_NODES = 400


@dataclass(frozen=True)
class Case:
    """The graph of one replicate, its eigenpairs, and the groups of which nothing is defined."""

    graph: DomainGraph
    pairs: Pairs
    undefined: frozenset[str]
    number: int
    rng_of: Callable[[str], np.random.Generator]


def case_of(params: Any, replicate: int, streams: Mapping[str, int]) -> Case:
    """The graph of a replicate; of the population every eigenspace has a random basis."""

    def rng_of(name: str) -> np.random.Generator:
        return generator(params.seed, streams[name], replicate)

    if params.graph == "random":
        sizes = params.classes, params.domains, params.nodes_per_block
        graph = domains.sampled(*sizes, rng_of("edges"), *params.weights)
    else:
        graph = domains.population(params.classes, params.domains, *params.weights)
    pairs = domains.solve(
        graph, params.n_features
    )  # the next one of a sampled graph may lie in its bulk, and take long
    if params.graph != "random":
        pairs = spectrum.turned(pairs, rng_of("basis"))
    return Case(graph, pairs, domains.mixed_groups(graph, pairs, params.n_features), replicate, rng_of)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the features f (N, k), and what is told of it."""

    features: Array
    end: End
    frame_step: Integers
    finals: Mapping[str, Any]
    advice: str

    def replicate(self, more: Mapping[str, Any]) -> Replicate:
        """The replicate, with more end values."""
        return Replicate(
            finals={**self.finals, **more},
            frame_step=self.frame_step,
            frames=self.end.frames,
            stopped=Stop(self.end.step, self.advice) if self.end.diverged else None,
        )


def run(
    params: Any,
    case: Case,
    head: Callable[[Array], Array],
    step: Integers,
    monitor: Monitor,
    more: Callable[[Array], Sequence[float]] = lambda f: (),
) -> Outcome:
    """Solve or train, measuring at every recorded step; `head` makes (k, r) of features (N, k).

    Recorded are, in this order: loss, accuracy on the target and on the source, that of the classifier of domains,
    the gain, and whatever `more` makes of features. What is not defined is NaN.
    """
    graph, k = case.graph, params.n_features
    root = np.sqrt(graph.w)[:, None]
    nodes = domains.shown_nodes(graph, SHOWN_NODES)
    trained = params.training == "sgd"
    if trained:
        settings = domains.Descent(params.learning_rate, params.batch, params.init_scale)
        advance, look = domains.descend(graph, k, settings, case.rng_of, monitor)
    else:
        F = domains.minimiser(case.pairs, k)
        advance, look = resting(monitor), lambda: F
    wanted = (thin(step) if trained else step[-1:]) if case.number == params.first_replicate else step[:0]
    end = follow(
        step,
        wanted,
        advance,
        look,
        lambda F, at: np.array([*_measured(case, F, F / root, head), *more(F / root)]),
        lambda F: domains.placed(graph, F / root, head(F / root), nodes),
        monitor,
        moves=trained,
    )
    F = np.full_like(end.trained, np.nan) if end.diverged else end.trained
    beyond = f"an embedding grew beyond {descent.LIMIT:g}"
    advice = f"{beyond}; lower learning_rate below a quarter of the number of nodes, {graph.nodes / 4:g}"
    return Outcome(F / root, end, wanted, _finals(case, params, F, F / root), advice)


def _measured(case: Case, F: Array, f: Array, head: Callable[[Array], Array]) -> tuple[float, ...]:
    graph, undefined = case.graph, case.undefined
    target, source, gain = domains.transfer(graph, f @ head(f))
    told = domains.domain_accuracy(graph, f)
    if undefined & {CLASS, INTERACTION}:
        target = source = gain = np.nan
    return graph.loss(F), target, source, np.nan if DOMAIN in undefined else told, gain


def _finals(case: Case, params: Any, F: Array, f: Array) -> dict[str, Any]:
    graph = case.graph
    count = graph.classes * graph.domains if params.graph == "population" else params.n_features
    finite = bool(np.all(np.isfinite(F)))
    apart = domains.squared_distances(graph, f) if finite and not case.undefined else (np.nan, np.nan)
    kept = domains.kept_shares(graph, F) if finite and not case.undefined else np.full(3, np.nan)
    values = domains.group_values(graph)
    return {
        "eigenvalues": case.pairs.values[:count],
        **{f"lam_{group}": float(one) for group, one in zip(domains.AXES, values, strict=True)},
        **{f"kept_{group}": float(one) for group, one in zip(domains.AXES, kept, strict=True)},
        "domain_distance": apart[0],
        "class_distance": apart[1],
        "lonely": float(graph.lonely),
        "n_nodes": float(graph.nodes),
    }
