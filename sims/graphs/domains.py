"""Graphs whose nodes have a class and a domain, features of them, and heads that are trained on one domain alone.

There are blocks of equally many nodes, one for each class in each domain, the domain fastest; domain 0 is the source.
An edge weighs a positive pair: the weight depends on whether its ends share class and domain (`within`), the class
only (`across_domains`), the domain only (`across_classes`), or nothing (`across_both`). A graph is either the
population, one node a block, or sampled: edges drawn with these weights as probabilities.

Whatever is measured of features f (N, k) does not depend on their rotation, and nothing here knows what to expect.
Source of the setting: HaoChen, Wei, Kumar, Ma, NeurIPS 2022; Shen, Jones, Kumar, Xie, HaoChen, Ma, Liang, ICML 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from . import descent, probe, spectrum
from .follow import Advance, Look
from .spectrum import Pairs

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

CONSTANT, CLASS, DOMAIN, INTERACTION = GROUPS = ("constant", "class", "domain", "interaction")
AXES = GROUPS[1:]  # of functions of class and domain, those that are not constant
DENSE_NODES = 200  # up to which all eigenpairs are solved for
RCOND = 1e-10  # relative size below which a direction of the features counts as absent
SAME = 1e-9  # outputs closer than this, relative to the largest, are a tie
DOMAIN_SAME = 1e-3  # so close to 0 the output of the classifier of domains, of labels +-1, says nothing


@dataclass(frozen=True)
class DomainGraph:
    """`abar` (N, N), sparse, is normalised by the nodes' weights `w` (N,), which sum to 1; `label`, `domain` (N,).

    `lonely` nodes drew no edge and have one to themselves.
    """

    classes: int
    domains: int
    w: Array
    abar: sparse.csr_array
    lonely: int = 0

    @property
    def nodes(self) -> int:
        return len(self.w)

    @property
    def per_block(self) -> int:
        return self.nodes // (self.classes * self.domains)

    @cached_property
    def label(self) -> Integers:
        return np.repeat(np.arange(self.classes), self.domains * self.per_block)

    @cached_property
    def domain(self) -> Integers:
        return np.tile(np.repeat(np.arange(self.domains), self.per_block), self.classes)

    @cached_property
    def source(self) -> NDArray[np.bool_]:
        return self.domain == 0

    @cached_property
    def contrasts(self) -> Array:
        """(N, r) centred one-hot labels."""
        return (self.label[:, None] == np.arange(self.classes)) - 1.0 / self.classes

    @cached_property
    def sides(self) -> Array:
        """(N, m) centred one-hot domains."""
        return (self.domain[:, None] == np.arange(self.domains)) - 1.0 / self.domains

    @cached_property
    def functions(self) -> Array:
        """(N, 3): the first class against the second, the source against the targets, and their product."""
        first = (self.label == 0).astype(np.float64) - (self.label == 1)
        side = np.where(self.source, 1.0, -1.0 / (self.domains - 1))
        return np.stack([first, side, first * side], axis=1)

    @cached_property
    def edges(self) -> tuple[NDArray[Any], ...]:
        """The tables that `kernels.draw_edges` reads."""
        root = np.sqrt(self.w)
        rows = np.repeat(1.0 / root, np.diff(self.abar.indptr)) * self.abar.data * root[self.abar.indices]
        indptr = self.abar.indptr
        return descent.tables(np.cumsum(self.w), indptr, self.abar.indices, descent.row_sums(indptr, rows))

    def loss(self, F: Array) -> float:
        """Population spectral contrastive loss of F = sqrt(w) f (N, k): -2 tr(F^T Abar F) + |F^T F|^2."""
        return float(-2.0 * np.sum(F * (self.abar @ F)) + np.sum((F.T @ F) ** 2))


def block_weights(
    classes: int, domains: int, within: float, across_domains: float, across_classes: float, across_both: float
) -> Array:
    """(r m, r m) weight of a pair of blocks, the domain fastest."""
    block = np.arange(classes * domains)
    same_class = (block[:, None] // domains) == (block // domains)
    same_domain = (block[:, None] % domains) == (block % domains)
    return np.where(
        same_class,
        np.where(same_domain, within, across_domains),
        np.where(same_domain, across_classes, across_both),
    )


def population(classes: int, domains: int, *weights: float) -> DomainGraph:
    """One node a block, every two joined; `weights` as of `block_weights`, not all 0."""
    A = block_weights(classes, domains, *weights)
    even = np.full(len(A), 1.0 / len(A))
    return DomainGraph(classes, domains, even, _row_form(sparse.csr_array(A / A[0].sum())))


def sampled(classes: int, domains: int, nodes_per_block: int, rng: np.random.Generator, *weights: float) -> DomainGraph:
    """Edges drawn independently, with the weights as probabilities; none from a node to itself.

    A node that drew none has one to itself, so that it has a weight, and is counted.
    """
    P, n = block_weights(classes, domains, *weights), nodes_per_block
    rows, columns = [], []
    for a in range(len(P)):
        for b in range(a, len(P)):
            drawn = rng.random((n, n)) < P[a, b]
            i, j = np.nonzero(np.triu(drawn, 1) if a == b else drawn)
            rows.append(a * n + i)
            columns.append(b * n + j)
    i, j = np.concatenate(rows), np.concatenate(columns)
    N = len(P) * n
    lonely = np.flatnonzero(np.bincount(i, minlength=N) + np.bincount(j, minlength=N) == 0)
    ends = np.concatenate([i, j, lonely]), np.concatenate([j, i, lonely])
    degree = np.bincount(ends[0], minlength=N).astype(np.float64)
    values = 1.0 / np.sqrt(degree[ends[0]] * degree[ends[1]])
    abar = _row_form(sparse.csr_array((values, ends), shape=(N, N)))
    return DomainGraph(classes, domains, degree / degree.sum(), abar, len(lonely))


def _row_form(matrix: sparse.csr_array) -> sparse.csr_array:
    """Sorted, with indices of four bytes, as the kernels are compiled for."""
    matrix.sort_indices()
    places, rows = (index.astype(np.int32) for index in (matrix.indices, matrix.indptr))
    return sparse.csr_array((matrix.data, places, rows), shape=matrix.shape)


# -- eigenpairs and features -------------------------------------------------------------------------------------


def solve(graph: DomainGraph, count: int) -> Pairs:
    """The `count` largest eigenpairs of Abar, falling; of up to DENSE_NODES nodes all of them. They may be negative."""
    if graph.nodes <= DENSE_NODES:
        values, vectors = np.linalg.eigh(graph.abar.toarray())
        return Pairs(values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1]))

    def lazy(X: Array) -> Array:
        """(1 + Abar)/2, which is positive as the check of the iteration asks."""
        return 0.5 * (X + graph.abar @ X)

    pairs = spectrum.verified(lazy, graph.nodes, min(count, graph.nodes - 1), np.random.Generator(np.random.Philox(0)))
    return Pairs(2.0 * pairs.values - 1.0, pairs.vectors)


def minimiser(pairs: Pairs, k: int) -> Array:
    """F (N, k) = V_k diag(lam)^1/2, negative eigenvalues as 0: the minimiser of the spectral contrastive loss."""
    values = pairs.values[:k]
    return pairs.vectors[:, :k] * np.sqrt(np.where(values > spectrum.ZERO, values, 0.0))


def group_energies(graph: DomainGraph, V: Array) -> Array:
    """(4, q) energy of the columns of V (N, q) in constant, class, domain and interaction, functions of the block."""
    r, m, n = graph.classes, graph.domains, graph.per_block
    B = V.reshape(r, m, n, -1).sum(axis=2) / math.sqrt(n)
    constant = B.sum(axis=(0, 1)) ** 2 / (r * m)
    cls = np.sum(B.sum(axis=1) ** 2, axis=0) / m - constant
    dom = np.sum(B.sum(axis=0) ** 2, axis=0) / r - constant
    return np.stack([constant, cls, dom, np.sum(B**2, axis=(0, 1)) - constant - cls - dom])


def mixed_groups(graph: DomainGraph, pairs: Pairs, k: int) -> frozenset[str]:
    """The groups that share an eigenvalue which the cut at k goes through: of them nothing is defined. Else none."""
    values = pairs.values
    if k >= len(values) or values[k - 1] - values[k] > spectrum.SAME or values[k] <= spectrum.ZERO:
        return frozenset()
    shared = np.abs(values - values[k]) <= spectrum.SAME
    dimensions = np.sum(group_energies(graph, pairs.vectors[:, shared]), axis=1)
    found = frozenset(group for group, count in zip(GROUPS, dimensions, strict=True) if count > 0.5)
    return found if len(found) > 1 else frozenset()


def kept_shares(graph: DomainGraph, F: Array) -> Array:
    """(3,) share of the class, domain and interaction functions that the span of F (N, k) holds."""
    r, m = graph.classes, graph.domains
    dimensions = np.array([r - 1, m - 1, (r - 1) * (m - 1)])
    return np.sum(group_energies(graph, probe.span(F)), axis=1)[1:] / dimensions


def group_values(graph: DomainGraph) -> Array:
    """(3,) Rayleigh quotients of Abar on all class contrasts, domain contrasts and interactions, weighed by sqrt(w)."""
    root = np.sqrt(graph.w)[:, None]
    both = (graph.contrasts[:, :, None] * graph.sides[:, None, :]).reshape(graph.nodes, -1)
    return np.array(
        [
            np.sum(one * (graph.abar @ one)) / np.sum(one**2)
            for one in (root * graph.contrasts, root * graph.sides, root * both)
        ]
    )


# -- training ----------------------------------------------------------------------------------------------------


class Descent(NamedTuple):
    """Settings of the descent on the table f, by batches of fresh positive pairs."""

    learning_rate: float
    batch: int
    init_scale: float


def descend(
    graph: DomainGraph,
    k: int,
    settings: Descent,
    rng_of: Callable[[str], np.random.Generator],
    monitor: Monitor,
) -> tuple[Advance, Look]:
    """Train f (N, k) from normal entries, of which F = sqrt(w) f is looked at; streams init, first_end, second_end."""
    f = settings.init_scale * rng_of("init").standard_normal((graph.nodes, k))
    rate = settings.learning_rate / (graph.nodes * graph.w)
    root = np.sqrt(graph.w)[:, None]
    first_end, second_end = rng_of("first_end"), rng_of("second_end")

    def advance(first: int, last: int) -> tuple[int, int]:
        return descent.sgd(
            descent.EDGES, *graph.edges, rate, settings.batch, 0.0, f, first, last,
            first_end, first_end, second_end, monitor.cancel, monitor.progress,
        )  # fmt: skip

    return advance, lambda: f * root


# -- heads -------------------------------------------------------------------------------------------------------


class Transfer(NamedTuple):
    """How a head does: its accuracy on the target and on the source, and target over source class contrast."""

    target: float
    source: float
    gain: float


def least_squares(graph: DomainGraph, f: Array, ridge: float = 0.0) -> Array:
    """(k, r) least squares on the source's centred one-hots: mean squared error plus ridge |W|^2, or of least norm."""
    X, Y = f[graph.source], graph.contrasts[graph.source]
    if ridge > 0.0:
        moment = X.T @ X / len(X) + ridge * np.eye(X.shape[1])
        return np.linalg.solve(moment, X.T @ Y / len(X))
    return np.linalg.lstsq(X, Y, rcond=RCOND)[0]


def averaged(graph: DomainGraph, f: Array, power: int) -> Array:
    """(k, r) preconditioned means of the source's classes, Sigma^(power-1) mean f, with Sigma = sum_x w f f^T."""
    r = graph.classes
    means = f[graph.source].reshape(r, -1, f.shape[1]).mean(axis=1).T
    moment = (f * graph.w[:, None]).T @ f
    return np.linalg.matrix_power(moment, power - 1) @ means


def transfer(graph: DomainGraph, scores: Array) -> Transfer:
    """What the scores (N, r) of a head say; a gain of NaN where the source itself has no class contrast."""
    source, Y = graph.source, graph.contrasts
    along = np.sum(scores * Y, axis=1)
    on_target, on_source = float(np.mean(along[~source])), float(np.mean(along[source]))
    known = on_source > SAME * float(np.max(np.abs(scores), initial=1e-300))
    return Transfer(
        accuracy(scores[~source], graph.label[~source]),
        accuracy(scores[source], graph.label[source]),
        on_target / on_source if known else math.nan,
    )


def accuracy(scores: Array, label: Integers, same: float | None = None) -> float:
    """Share of rows whose largest score is that of their label; among j tied ones it counts 1/j."""
    close = SAME * float(np.max(np.abs(scores), initial=0.0)) if same is None else same
    best = scores >= scores.max(axis=1, keepdims=True) - close
    return float(np.mean(best[np.arange(len(label)), label] / best.sum(axis=1)))


def domain_accuracy(graph: DomainGraph, f: Array) -> float:
    """Share of all nodes whose domain least squares on f, over all of them, tells; where it says nothing, chance."""
    scores = f @ np.linalg.lstsq(f, graph.sides, rcond=RCOND)[0]
    return accuracy(scores, graph.domain, DOMAIN_SAME)


# -- geometry ----------------------------------------------------------------------------------------------------


def squared_distances(graph: DomainGraph, f: Array) -> tuple[float, float]:
    """Mean squared distance of block means: of one class in two domains, and of two classes in one domain."""
    M = f.reshape(graph.classes, graph.domains, graph.per_block, -1).mean(axis=2)
    found = []
    for one in (M, M.swapaxes(0, 1)):  # pairs along the second axis
        count = one.shape[1]
        total = 2.0 * count * np.sum(one**2) - 2.0 * np.sum(one.sum(axis=1) ** 2)
        found.append(float(total / (one.shape[0] * count * (count - 1))))
    return found[0], found[1]


def shown_nodes(graph: DomainGraph, most: int) -> Integers:
    """At most so many nodes, evenly spaced."""
    return np.unique(np.linspace(0, graph.nodes - 1, min(most, graph.nodes)).astype(np.int64))


def placed(graph: DomainGraph, f: Array, head: Array, nodes: Integers) -> Mapping[str, Array]:
    """Where nodes lie along class, domain and interaction, and where the head is undecided between two classes.

    `nodes` (shown, 3): coordinates along the directions of feature space that go with the first class against the
    second, source against target, and their product; 0 along one that the features lack. `line` (4,): the first
    class's score less the second's as a constant plus its parts along the three, fitted to the nodes of both.
    """
    along = (f * graph.w[:, None]).T @ graph.functions
    size = np.linalg.norm(along, axis=0)
    there = size > 1e-9 * max(float(np.max(size)), 1e-300)
    coordinates = f @ np.where(there, along / np.where(there, size, 1.0), 0.0)
    two = graph.label < 2
    design = np.column_stack([np.ones(int(two.sum())), coordinates[two]])
    line = np.linalg.lstsq(design, f[two] @ (head[:, 0] - head[:, 1]), rcond=RCOND)[0]
    return {"nodes": coordinates[nodes], "line": line}
