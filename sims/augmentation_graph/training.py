"""One replicate: the graph of the params, its eigenpairs, the training, and what is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import BadInput, Problem, Replicate, Stop, generator, thin
from ..graphs import descent, generators, glyphs, network, probe, spectrum
from ..graphs.follow import Advance, Look, follow, resting
from ..graphs.generators import Graph
from ..graphs.spectrum import ZERO, Pairs
from . import kernels
from .lab import LEAST_PAIRS, LEVELS, MOST_PAIRS, STREAMS, AugmentationGraphParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
GraphFields = tuple[tuple[str, Any], ...]

SHOWN_NODES, SHOWN_AXES = 400, 6  # of the embedding in the frames
GRAPH_FIELDS = (
    "graph", "classes", "subclusters", "nodes_per_block", "leak_within", "leak", "ring_nodes", "window", "arcs",
    "cube_dim", "flip_probs", "label_bits", "cube_label", "signal_std", "noise_std", "separation", "grid_points",
    "glyphs", "glyph_set", "rotations", "shifts", "colours", "glyph_swap", "colour_swap", "glyph_label",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A graph and the eigenpairs that an embedding of k features is compared with; shared, its arrays read-only.

    `pairs` holds whole eigenspaces, the k-th eigenvalue among them; `level` (m,) numbers them from 0.
    """

    graph: Graph
    pairs: Pairs
    level: Integers
    k: int

    @property
    def next_value(self) -> float:
        """lam_{k+1}; 0 beyond the last node."""
        return float(self.pairs.values[self.k]) if self.k < len(self.pairs.values) else 0.0

    @property
    def gap(self) -> float:
        """lam_k - lam_{k+1}."""
        return float(self.pairs.values[self.k - 1]) - self.next_value

    @property
    def degenerate(self) -> bool:
        """Whether the cut splits an eigenspace, so that no top-k eigenspace exists."""
        return self.k < len(self.level) and bool(self.level[self.k - 1] == self.level[self.k])

    @cached_property
    def kept(self) -> Integers:
        """How many copies of each level are among the first k eigenvalues; all copies where none is."""
        copies = np.bincount(self.level)
        inside = np.bincount(self.level[: self.k], minlength=len(copies))
        return np.where(inside > 0, inside, copies)

    @cached_property
    def shown_levels(self) -> int:
        """How many levels have their mass recorded: positive eigenvalues, for of 0 not all copies are held."""
        return min(LEVELS, int(np.max(self.level[self.pairs.values > ZERO])) + 1)

    @cached_property
    def targets(self) -> Array:
        """One-hot labels of the nodes times sqrt(w)."""
        return probe.targets(self.graph.label, self.graph.classes, self.graph.w)

    @cached_property
    def nat_cumulative(self) -> Array:
        return np.cumsum(self.graph.p_nat)

    @cached_property
    def view_cumulative(self) -> Array:
        """Running sums within each row of the kernel."""
        return descent.row_sums(self.graph.kernel.indptr, self.graph.kernel.data)

    @cached_property
    def sampler(self) -> tuple[NDArray[Any], ...]:
        """The tables that `kernels.draw_pairs` reads."""
        kernel = self.graph.kernel
        return descent.tables(self.nat_cumulative, kernel.indptr, kernel.indices, self.view_cumulative)

    @cached_property
    def operator(self) -> tuple[Any, ...]:
        """Abar as the kernels take it: kind, sparse factor, modes."""
        if self.graph.modes:
            nothing = np.zeros(1, dtype=np.int32)
            return (kernels.OPERATORS["modes"], nothing, nothing, np.zeros(0), *spectrum.flat_modes(self.graph.modes))
        factor = self.graph.factor
        nothing = np.zeros(0, dtype=np.int64)
        return (kernels.OPERATORS["factor"], factor.indptr, factor.indices, factor.data, nothing, np.zeros(0))

    def apply(self, F: Array) -> Array:
        """Abar F (N, k)."""
        if self.graph.modes:
            return spectrum.by_modes(self.graph.modes, F)
        return spectrum.by_factor(self.graph.factor, F)


def graph_of(params: AugmentationGraphParams) -> Graph:
    """The graph of these params; shared, its arrays read-only."""
    return _graph(graph_fields(params))


def graph_fields(params: AugmentationGraphParams) -> GraphFields:
    """What the graph depends on."""
    return tuple((name, value) for name, value in params.active().items() if name in GRAPH_FIELDS)


def params_of(fields: GraphFields) -> AugmentationGraphParams:
    """Params of that graph, the others at their defaults."""
    return AugmentationGraphParams.make(dict(fields) | {"training": "eigen", "n_features": 1})


@lru_cache(maxsize=8)
def _graph(fields: GraphFields) -> Graph:
    p = params_of(fields)
    if p.graph == "blocks":
        return generators.blocks(p.classes, p.subclusters, p.nodes_per_block, p.leak_within, p.leak)
    if p.graph == "ring":
        return generators.ring(generators.window_kernel(p.ring_nodes, p.window), p.arcs)
    if p.graph == "hypercube":
        return generators.hypercube(p.flips, [int(bit) for bit in p.label_bits], p.cube_label)
    if p.graph == "gaussian":
        return generators.gaussian(p.signal_std, p.noise_std, p.separation, p.grid_points)
    strokes = glyphs.strokes(p.glyphs, p.glyph_set)
    return generators.glyph_images(
        strokes, p.rotations, p.shifts, p.colours, p.glyph_swap, p.colour_swap, p.glyph_label
    )


def setting(params: AugmentationGraphParams) -> Setting:
    """The graph with its eigenpairs.

    Raises BadInput where k exceeds the nodes that weigh anything, or splits an eigenspace of very many copies.
    """
    return _setting(graph_fields(params), params.n_features)


@lru_cache(maxsize=8)
def _setting(fields: GraphFields, k: int) -> Setting:
    graph = _graph(fields)
    return setting_among(graph, k, lambda asked: spectrum.top(graph, asked, np.random.Generator(np.random.Philox(0))))


def setting_among(graph: Graph, k: int, top: Callable[[int], Pairs]) -> Setting:
    """The graph with the eigenpairs that k features are compared with; `top` finds so many. Raises BadInput."""
    if k > graph.nodes:
        allowed = f"only {graph.nodes} nodes weigh more than {generators.LEAST_WEIGHT:g}"
        raise BadInput(Problem("n_features", k, allowed, f"Set n_features to {graph.nodes} or less."))
    wanted = max(LEAST_PAIRS, k + 4)
    asked = wanted + 1
    while True:
        pairs = top(asked)
        level = spectrum.levels(pairs.values)
        complete = len(level) == graph.nodes
        ends = np.flatnonzero(np.diff(level) > 0) + 1  # an eigenspace is known to be whole when the next one begins
        ends = np.append(ends, len(level)) if complete or pairs.values[-1] <= ZERO else ends
        enough = ends[ends >= min(wanted, graph.nodes)]
        if len(enough) or asked >= MOST_PAIRS:
            break
        asked = min(2 * asked, MOST_PAIRS)
    whole = int(enough[0]) if len(enough) else int(ends[-1]) if len(ends) else 0
    if whole < k:
        allowed = f"it splits an eigenvalue that has more than {MOST_PAIRS - whole} copies"
        raise BadInput(Problem("n_features", k, allowed, f"Set n_features to {max(1, whole)} or less, at a gap."))
    return Setting(graph, Pairs(pairs.values[:whole], pairs.vectors[:, :whole]), level[:whole], k)


def start_of(params: AugmentationGraphParams, replicate: int, here: Setting) -> Array:
    """F (N, k) = sqrt(w) f at the start of training a table."""
    if params.start == "planted":
        return params.init_scale * here.pairs.vectors[:, : here.k]
    rng = generator(params.seed, STREAMS["init"], replicate)
    entries = params.init_scale * rng.standard_normal((here.graph.nodes, here.k))
    return entries if params.training == "gradient_flow" else entries * np.sqrt(here.graph.w)[:, None]


# -- measuring ---------------------------------------------------------------------------------------------------


def loss(here: Setting, F: Array) -> float:
    """Population loss -2 tr(F^T Abar F) + |F^T F|^2."""
    return float(-2.0 * np.sum(F * here.apply(F)) + np.sum((F.T @ F) ** 2))


def level_masses(here: Setting, F: Array) -> Array:
    """(LEVELS,) mass of F F^T on each positive eigenspace, per copy among the first k; NaN where there are fewer."""
    parts = np.bincount(here.level, weights=np.sum((here.pairs.vectors.T @ F) ** 2, axis=1)) / here.kept
    found = np.full(LEVELS, np.nan)
    found[: here.shown_levels] = parts[: here.shown_levels]
    return found


def measured(here: Setting, F: Array, time: float) -> Array:
    """What is recorded of F (N, k), in the order of the lab's series."""
    graph, basis = here.graph, probe.span(F)
    mse, wrong = probe.error_on(basis, here.targets, graph.label, graph.w)
    tangent = math.nan if here.degenerate else probe.basis_tangent(basis, here.pairs.vectors[:, : here.k])
    return np.array([loss(here, F), mse, wrong, tangent, time, *level_masses(here, F)])


def shown_nodes(graph: Graph) -> Integers:
    """The nodes whose embedding is shown: all, or evenly spaced ones; of images first those that are not shifted."""
    nodes = np.arange(graph.nodes)
    if graph.places is not None and graph.nodes > SHOWN_NODES:
        nodes = np.flatnonzero(graph.places[:, 2] == 0)
    return nodes[np.unique(np.linspace(0, len(nodes) - 1, min(SHOWN_NODES, len(nodes))).astype(np.int64))]


def placed(here: Setting, F: Array) -> Array:
    """(shown, <= SHOWN_AXES) coordinates of the shown nodes, after the rotation nearest to the minimiser."""
    target = here.pairs.vectors[:, : here.k] * np.sqrt(here.pairs.values[: here.k])
    nodes = shown_nodes(here.graph)
    return probe.aligned(F, target)[nodes, :SHOWN_AXES] / np.sqrt(here.graph.w[nodes])[:, None]


# -- training ----------------------------------------------------------------------------------------------------


def simulate(params: AugmentationGraphParams, replicate: int, monitor: Monitor) -> Replicate:
    here = setting(params)
    step = recorded_steps(params)
    basis = spectrum.turned(here.pairs, generator(params.seed, STREAMS["basis"], replicate))
    frames_wanted = replicate == params.first_replicate
    frame_step = (thin(step) if params.training != "eigen" else step[-1:]) if frames_wanted else step[:0]
    advance, look = _TRAINING[params.training](params, here, basis, replicate, monitor)
    end = follow(
        step,
        frame_step,
        advance,
        look,
        lambda F, at: measured(here, F, at * params.time_step),
        lambda F: {"embedding": placed(here, F)},
        monitor,
        moves=params.training != "eigen",
    )
    return Replicate(
        finals=finals(here, basis, np.full_like(end.trained, np.nan) if end.diverged else end.trained),
        frame_step=frame_step,
        frames=end.frames,
        stopped=Stop(end.step, advice(params, here)) if end.diverged else None,
    )


def advice(params: AugmentationGraphParams, here: Setting) -> str:
    """Why a replicate that diverged has stopped, and what to do."""
    beyond = f"an embedding grew beyond {descent.LIMIT:g}"
    if params.training == "network":
        return f"{beyond}; a learning_rate of 0.002 is usual"
    return f"{beyond}; lower learning_rate below a quarter of the number of nodes, {here.graph.nodes / 4:g}"


def finals(here: Setting, basis: Pairs, F: Array) -> Mapping[str, Any]:
    """End values: the spectrum, the probe on its first 1, 2, ... eigenvectors, and what of it the features span."""
    graph = here.graph
    features = np.where(basis.values > ZERO, basis.vectors, 0.0)
    mse, wrong = probe.nested(features, graph.label, graph.classes, graph.w)
    finite = bool(np.all(np.isfinite(F)))
    own = np.linalg.eigvalsh(F.T @ F)[::-1] if finite else np.full(here.k, np.nan)
    inside = np.sum((probe.span(F).T @ here.pairs.vectors) ** 2, axis=0) if finite else np.full(len(mse), np.nan)
    vote = math.nan
    if finite and graph.aug is not None:
        vote = probe.vote_error(F, graph.label, graph.classes, graph.w, graph.aug, graph.p_nat, graph.nat_label)
    return {
        "eigenvalues": here.pairs.values,
        "probe_mse_by_k": mse,
        "probe_error_by_k": wrong,
        "feature_eigenvalues": own,
        "mode_r2": inside,
        "vote_error": vote,
        "gap": here.gap,
        "phi": _crossing_pairs(here),
        "alpha": _crossing_views(graph),
        "n_nodes": float(graph.nodes),
    }


def _crossing_pairs(here: Setting) -> float:
    """phi: probability that the two views of a pair differ in label, 1 - sum_c u_c^T Abar u_c."""
    return max(0.0, 1.0 - float(np.sum(here.targets * here.apply(here.targets))))


def _crossing_views(graph: Graph) -> float:
    """alpha: probability that a view differs in label from its natural example; NaN without a kernel of entries."""
    if graph.aug is None:
        return math.nan
    stays = graph.aug @ (graph.label[:, None] == np.arange(graph.classes)).astype(np.float64)
    return max(0.0, 1.0 - float(graph.p_nat @ stays[np.arange(len(stays)), graph.nat_label]))


def _eigen(
    params: AugmentationGraphParams, here: Setting, basis: Pairs, replicate: int, monitor: Monitor
) -> tuple[Advance, Look]:
    """The minimiser V diag(lam)^1/2, from a random basis of each eigenspace."""
    F = basis.vectors[:, : here.k] * np.sqrt(basis.values[: here.k])
    return resting(monitor), lambda: F


def _gradient_flow(
    params: AugmentationGraphParams, here: Setting, basis: Pairs, replicate: int, monitor: Monitor
) -> tuple[Advance, Look]:
    F = np.ascontiguousarray(start_of(params, replicate, here))
    root = np.sqrt(here.graph.w)
    integrator = kernels.INTEGRATORS[params.integrator]

    def advance(first: int, last: int) -> tuple[int, int]:
        return kernels.gradient_flow(
            integrator, *here.operator, root, params.time_step, F, first, last, monitor.cancel, monitor.progress
        )

    return advance, lambda: F


def _streams(params: AugmentationGraphParams, replicate: int) -> list[np.random.Generator]:
    names = ("natural", "first_view", "second_view")
    return [generator(params.seed, STREAMS[name], replicate) for name in names]


def _sgd(
    params: AugmentationGraphParams, here: Setting, basis: Pairs, replicate: int, monitor: Monitor
) -> tuple[Advance, Look]:
    graph = here.graph
    root = np.sqrt(graph.w)[:, None]
    f = np.ascontiguousarray(start_of(params, replicate, here) / root)
    rate = params.learning_rate / (graph.nodes * graph.w)
    streams = _streams(params, replicate)

    def advance(first: int, last: int) -> tuple[int, int]:
        return descent.sgd(
            descent.VIEWS, *here.sampler, rate, params.batch, params.clip_norm, f, first, last, *streams,
            monitor.cancel, monitor.progress,
        )  # fmt: skip

    return advance, lambda: f * root


def layers_of(params: AugmentationGraphParams, graph: Graph) -> Integers:
    """Widths of the network, from its inputs to the features."""
    assert graph.inputs is not None
    return np.array([graph.inputs.shape[1], params.width, params.width, params.n_features], dtype=np.int64)


def _network(
    params: AugmentationGraphParams, here: Setting, basis: Pairs, replicate: int, monitor: Monitor
) -> tuple[Advance, Look]:
    graph = here.graph
    assert graph.inputs is not None
    layers, inputs = layers_of(params, graph), np.ascontiguousarray(graph.inputs)
    theta = network.start(layers, generator(params.seed, STREAMS["weights"], replicate))
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    streams = _streams(params, replicate)
    root = np.sqrt(graph.w)[:, None]

    def advance(first: int, last: int) -> tuple[int, int]:
        return kernels.adam_network(
            *here.sampler, inputs, layers, theta, mean, square, params.learning_rate, params.steps, params.batch,
            params.clip_norm, first, last, *streams, monitor.cancel, monitor.progress,
        )  # fmt: skip

    return advance, lambda: network.forward(layers, theta, inputs)[1] * root


_TRAINING = {"eigen": _eigen, "gradient_flow": _gradient_flow, "sgd": _sgd, "network": _network}


# -- budget ------------------------------------------------------------------------------------------------------


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each kind of work: batches, matrix flow, network passes, measuring, eigenpairs, predicting."""
    from ..engine import RunMonitor
    from . import prediction
    from .lab import LAB, work

    def trained(name: str, **changes: Any) -> Callable[[], float]:
        params = AugmentationGraphParams.make(replicates=1, **changes)

        def probe_once() -> float:
            here = setting(params)
            monitor = RunMonitor.allocate(LAB, params).of(0)
            advance, _ = _TRAINING[params.training](params, here, here.pairs, 0, monitor)
            advance(0, params.steps)
            return work(params).per_replicate[name]

        return probe_once

    def measure() -> float:
        params = AugmentationGraphParams.make()
        here = setting(params)
        F = here.pairs.vectors[:, :4] * 0.9
        for _ in range(10):
            measured(here, F, 0.0)
        return 10.0 * (here.graph.nodes * (here.k + 12.0) ** 2 + 4e4)

    def solve() -> float:
        graph = generators.gaussian(1.5, 0.8, 0.0, 200)
        spectrum.dense(graph, 20)
        return float(graph.nodes) ** 3

    def predict() -> float:
        params = AugmentationGraphParams.make(replicates=1)
        prediction.predict(params)
        return work(params).once["predict"]

    return {
        "pair": trained("pair", steps=200),
        "flow": trained("flow", training="gradient_flow", steps=100),
        "network": trained("network", training="network", graph="hypercube", steps=4, learning_rate=0.001),
        "measure": measure,
        "solve": solve,
        "predict": predict,
    }
