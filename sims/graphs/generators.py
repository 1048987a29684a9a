"""Augmentation graphs as values: natural examples, the kernel that makes views of them, and labels.

Five families, whose spectra are known in closed form to whoever wants to compare; nothing here knows them:

- `blocks`: classes of sub-clusters of nodes; a view leaves its sub-cluster, or its class, now and then.
- `ring`: nodes on a circle, a view is a shift; classes are arcs.
- `hypercube`: vectors of signs, a view flips each with a probability of its own; the label is a sign function.
- `gaussian`: points on a grid with a Gaussian density, a view adds Gaussian noise; the label is the sign.
- `glyphs`: small images; a view turns, shifts, recolours and now and then replaces the glyph.

and two without structure, `sampled_blocks` (large) and `sparse_random` (small), for tests and benchmarks.
Source of the setting: HaoChen, Wei, Gaidon, Ma, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..engine import BadInput, Problem
from . import glyphs as _glyphs

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_ENTRIES = 10_000_000  # of a kernel that is formed entry by entry
LEAST_WEIGHT = 1e-14  # nodes of a density that weigh less are left out
ROTATION_KERNEL = (0.5, 0.25, 0.25)  # probabilities of shifts by 0, +1, -1
SHIFT_KERNEL = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class Graph:
    """An augmentation graph.

    `p_nat` (n,) and `aug` (n, N), sparse, rows summing to 1, say all; `w` (N,) is the weight of the nodes. `label`
    (N,) and `nat_label` (n,) count classes from 0. `inputs` (N, p) is what a network sees.

    Where the kernel has structure it is kept, because it is cheaper than the entries: `modes`, small matrices whose
    Kronecker product is Abar (N the product of their sides, the last one fastest); `circulant` (N,), the kernel of
    views on a circle; `block` (N,) and `transition` (K, K), where nodes of one block are alike and `transition` is
    what naturals, the blocks themselves, do. `aug` is then None where its entries would be too many. `pixels` (N, side,
    side, colours) and `places` (N, 4), glyph, rotation, shift and colour of a node, are those of images.
    """

    p_nat: Array
    w: Array
    label: Integers
    nat_label: Integers
    classes: int
    aug: sparse.csr_array | None
    inputs: Array | None = None
    modes: tuple[Array, ...] = ()
    circulant: Array | None = None
    block: Integers | None = None
    transition: Array | None = None
    pixels: Array | None = field(default=None, repr=False)
    places: Integers | None = field(default=None, repr=False)

    @property
    def nodes(self) -> int:
        return len(self.w)

    @cached_property
    def factor(self) -> sparse.csr_array:
        """B (n, N) with Abar = B^T B."""
        aug = self.kernel
        scale = np.repeat(np.sqrt(self.p_nat), np.diff(aug.indptr)) / np.sqrt(self.w[aug.indices])
        # Indices of four bytes: reading the factor is what a product with it costs.
        places, rows = (index.astype(np.int32) for index in (aug.indices, aug.indptr))
        return sparse.csr_array((aug.data * scale, places, rows), shape=aug.shape)

    @property
    def kernel(self) -> sparse.csr_array:
        """`aug`; raises BadInput where it was too large to be formed."""
        if self.aug is None:
            allowed = f"pairs of views are drawn from a kernel of at most {MOST_ENTRIES} entries"
            raise BadInput(Problem("nodes", self.nodes, allowed, "Solve for the spectrum only, or choose fewer nodes."))
        return self.aug

    def dense(self) -> tuple[Array, Array]:
        """W and Abar (N, N) by their definition; for small graphs."""
        aug = self.kernel.toarray()
        W = aug.T @ (self.p_nat[:, None] * aug)
        w = W.sum(axis=1)
        return W, W / np.sqrt(np.outer(w, w))


def from_kernel(
    p_nat: Array, aug: Array | sparse.csr_array, label: Integers, nat_label: Integers, classes: int
) -> tuple[Graph, Integers]:
    """The graph of a kernel (n, N), and the nodes (kept,) that it has: those that are nobody's view are left out.

    Raises BadInput where the rows are no probabilities.
    """
    aug = sparse.csr_array(aug)
    aug.sort_indices()
    if (aug.nnz and float(aug.data.min()) < 0) or not np.allclose(aug.sum(axis=1), 1.0, atol=1e-12):
        raise BadInput(Problem("aug", "these rows", "each must hold probabilities that sum to 1", "Normalise them."))
    w = np.asarray(p_nat @ aug).reshape(-1)
    kept = np.flatnonzero(w > 0)
    aug = sparse.csr_array(aug[:, kept])
    aug.sort_indices()
    graph = Graph(p_nat=p_nat, w=w[kept], label=label[kept], nat_label=nat_label, classes=classes, aug=aug)
    return graph, kept


# -- the five families -------------------------------------------------------------------------------------------


def blocks(classes: int, subclusters: int, nodes_per_block: int, leak_within: float, leak: float) -> Graph:
    """`classes` of `subclusters` of `nodes_per_block` nodes; naturals are the sub-clusters, equally likely.

    A view stays in its sub-cluster but for `leak_within`, to another one of its class, and `leak`, to one of another
    class; there it is any node. Raises BadInput for leaks that have nowhere to go or are no probabilities.
    """
    if leak_within + leak > 1.0 + 1e-12:
        allowed = f"with leak = {leak:g} at most {1.0 - leak:g} is left"
        raise BadInput(Problem("leak_within", leak_within, allowed, "Lower one of the two."))
    if subclusters == 1 and leak_within > 0:
        allowed = "a class of one sub-cluster has no other one to leak to"
        raise BadInput(Problem("leak_within", leak_within, allowed, "Set leak_within to 0, or subclusters to 2."))
    if classes == 1 and leak > 0:
        raise BadInput(Problem("leak", leak, "one class has no other to leak to", "Set leak to 0, or classes to 2."))
    K = classes * subclusters
    of_class = np.repeat(np.arange(classes), subclusters)
    same = of_class[:, None] == of_class[None, :]
    transition = np.where(same, 0.0, leak / max(1, K - subclusters))
    transition[same] = leak_within / max(1, subclusters - 1)
    np.fill_diagonal(transition, 1.0 - leak_within - leak)
    return unequal_blocks(np.full(K, 1.0 / K), transition, np.full(K, nodes_per_block), of_class)


def unequal_blocks(p_nat: Array, transition: Array, sizes: Integers, of_class: Integers) -> Graph:
    """Blocks of any sizes: natural a goes to block b with `transition[a, b]`, and there to any of its nodes."""
    sizes = np.asarray(sizes, dtype=np.int64)
    K, N = len(sizes), int(np.sum(sizes))
    block = np.repeat(np.arange(K), sizes)
    aug = None
    if K * N <= MOST_ENTRIES:
        aug = sparse.csr_array(transition[:, block] / sizes[block])
        aug.sort_indices()
    w = (p_nat @ transition / sizes)[block]
    if np.any(w <= 0):
        empty = f"no view ever falls on block {int(block[np.argmin(w)])}"
        raise BadInput(Problem("leak", "these", f"every node must be a view of something, but {empty}", "Change them."))
    return Graph(
        p_nat=p_nat,
        w=w,
        label=of_class[block],
        nat_label=of_class,
        classes=int(of_class.max()) + 1,
        aug=aug,
        inputs=np.eye(K)[block] if aug is not None else None,
        block=block,
        transition=transition,
    )


def window_kernel(nodes: int, window: int) -> Array:
    """(nodes,) even probabilities of shifts by at most `window` either way. Raises BadInput if they overlap."""
    if 2 * window + 1 > nodes:
        allowed = f"a window of 2*window + 1 shifts must fit on {nodes} nodes"
        raise BadInput(Problem("window", window, allowed, f"Set window to {(nodes - 1) // 2} or less."))
    kernel = np.zeros(nodes)
    kernel[np.arange(-window, window + 1) % nodes] = 1.0 / (2 * window + 1)
    return kernel


def ring(kernel: Array, arcs: int) -> Graph:
    """Nodes on a circle, naturals too; `kernel` (N,) holds the probability of each shift; classes are equal arcs.

    Raises BadInput where arcs of equal length are impossible.
    """
    N = len(kernel)
    if N % arcs:
        allowed = f"arcs of equal length must divide the {N} nodes (ring_nodes)"
        advice = f"Set arcs to {max(d for d in range(1, arcs) if N % d == 0)}, or ring_nodes to a multiple of {arcs}."
        raise BadInput(Problem("arcs", arcs, allowed, advice))
    shifts = np.flatnonzero(kernel)
    aug = None
    if N * len(shifts) <= MOST_ENTRIES:
        rows, columns = np.repeat(np.arange(N), len(shifts)), (np.arange(N)[:, None] + shifts).reshape(-1) % N
        aug = sparse.csr_array((np.tile(kernel[shifts], N), (rows, columns)), shape=(N, N))
        aug.sort_indices()
    label = np.arange(N) // (N // arcs)
    angle = 2.0 * np.pi * np.arange(N) / N
    turns = np.arange(1, min(4, (N + 1) // 2 - 1) + 1) if N > 2 else np.array([1])
    inputs = np.concatenate([np.cos(np.outer(angle, turns)), np.sin(np.outer(angle, turns))], axis=1)
    even = np.full(N, 1.0 / N)
    return Graph(even, even, label, label, arcs, aug, inputs=inputs, circulant=kernel)


def hypercube(flip_probs: Sequence[float], label_bits: Sequence[int], rule: str = "parity") -> Graph:
    """Vectors of signs, uniform; view i flips with its probability. Label: product or majority of some signs.

    Node number x has bit i set, hence sign i equal to -1, when `(x >> (d - 1 - i)) & 1`.
    """
    q, bits = np.asarray(flip_probs, dtype=np.float64), [int(bit) for bit in label_bits]
    d = len(q)
    if not bits or len(set(bits)) != len(bits) or min(bits) < 0 or max(bits) >= d:
        allowed = f"it must name different bits from 0 to {d - 1}"
        raise BadInput(Problem("label_bits", tuple(bits), allowed, "Set it to 0."))
    if rule == "majority" and len(bits) % 2 == 0:
        raise BadInput(Problem("label_bits", tuple(bits), "a majority needs an odd number of bits", "Add or drop one."))
    N = 2**d
    node = np.arange(N)
    modes, kernels = [], []
    for flip in q:
        one = np.array([[1.0 - flip, flip], [flip, 1.0 - flip]])
        kernels.append(one)
        modes.append(one @ one)
    aug = kronecker(kernels) if N * N <= MOST_ENTRIES else None
    minus = np.zeros(N, dtype=np.int64)
    for bit in bits:
        minus += (node >> (d - 1 - bit)) & 1
    label = minus % 2 if rule == "parity" else (2 * minus > len(bits)).astype(np.int64)
    inputs = None
    if d <= 12:
        inputs = 1.0 - 2.0 * ((node[:, None] >> (d - 1 - np.arange(d))) & 1)
    even = np.full(N, 1.0 / N)
    return Graph(even, even, label, label, 2, aug, inputs=inputs, modes=tuple(modes))


def kronecker(kernels: Sequence[Array]) -> sparse.csr_array:
    """The Kronecker product of small kernels, sparse."""
    product = sparse.csr_array(np.ones((1, 1)))
    for one in kernels:
        product = sparse.csr_array(sparse.kron(product, sparse.csr_array(one), format="csr"))
    product.sort_indices()
    return product


def gaussian(signal_std: float, noise_std: float, separation: float, grid_points: int) -> Graph:
    """A Gaussian density (or two, at plus and minus `separation`) and Gaussian noise on an even grid.

    Naturals and nodes share the grid; the density and every row of the kernel sum to 1 on it. The label is the sign.
    The grid reaches 8 `signal_std` beyond the centres, or 6 standard deviations of a view if that is more; a node
    that weighs less than 1e-14 is left out.
    """
    reach = separation + max(8.0 * signal_std, 6.0 * math.hypot(signal_std, noise_std))
    x = np.linspace(-reach, reach, grid_points)
    if noise_std < x[1] - x[0]:
        allowed = f"the grid has a spacing of {x[1] - x[0]:.3g} and cannot show less noise"
        least = math.ceil(2.0 * reach / noise_std) + 1
        raise BadInput(Problem("noise_std", noise_std, allowed, f"Raise noise_std, or grid_points to {least}."))
    density = np.exp(-0.5 * ((x - separation) / signal_std) ** 2)
    if separation > 0:
        density += np.exp(-0.5 * ((x + separation) / signal_std) ** 2)
    p_nat = density / np.sum(density)
    aug = np.exp(-0.5 * ((x[:, None] - x[None, :]) / noise_std) ** 2)
    aug /= aug.sum(axis=1, keepdims=True)
    w = p_nat @ aug
    kept, likely = np.flatnonzero(w >= LEAST_WEIGHT), np.flatnonzero(p_nat > 0)
    aug = aug[np.ix_(likely, kept)]
    p_nat = p_nat[likely]
    kernel = sparse.csr_array(aug / aug.sum(axis=1, keepdims=True))
    kernel.sort_indices()
    label, nat_label = (x[kept] > 0).astype(np.int64), (x[likely] > 0).astype(np.int64)
    graph, _ = from_kernel(p_nat / np.sum(p_nat), kernel, label, nat_label, 2)
    scale = math.hypot(signal_std, noise_std) + separation
    return replace(graph, inputs=(x[kept] / scale)[:, None])


def circulant_matrix(kernel: Sequence[float], size: int) -> Array:
    """(size, size) kernel of shifts by 0, +1, -1 with these probabilities on a circle; on a small one they add up."""
    found = np.zeros((size, size))
    for shift, probability in zip((0, 1, -1), kernel, strict=True):
        found[np.arange(size), (np.arange(size) + shift) % size] += probability
    return found


def swap_matrix(probability: float, size: int) -> Array:
    """(size, size) kernel that swaps for another one, any, with the given probability."""
    if size == 1:
        return np.ones((1, 1))
    return np.full((size, size), probability / (size - 1)) + np.eye(size) * (1.0 - probability * size / (size - 1))


def glyph_images(
    strokes: tuple[tuple[_glyphs.Stroke, ...], ...],
    rotations: int,
    shifts: int,
    colours: int,
    glyph_swap: float,
    colour_swap: float,
    label: str = "glyph",
    side: int | None = None,
) -> Graph:
    """Images of glyphs in every rotation, shift and colour; naturals are these labels, equally likely.

    Equal images are one node, so that a glyph with a rotation symmetry has fewer nodes, each heavier; the graph has
    modes only where there is none. `label` is glyph or colour. Raises BadInput where two glyphs have equal images.
    """
    G = len(strokes)
    sizes = (G, rotations, shifts, colours)
    kernels = (
        swap_matrix(glyph_swap, G),
        circulant_matrix(ROTATION_KERNEL, rotations),
        circulant_matrix(SHIFT_KERNEL, shifts),
        swap_matrix(colour_swap, colours),
    )
    drawn = _glyphs.images(strokes, rotations, shifts, colours, side or _glyphs.side_for(shifts))
    drawn = drawn.reshape(math.prod(sizes), *drawn.shape[4:])
    node = _glyphs.merged(drawn, G)
    N, M = int(node.max()) + 1, len(node)
    tuples = np.array(np.unravel_index(np.arange(M), sizes))
    nat_label = tuples[0] if label == "glyph" else tuples[3]
    full = kronecker(kernels)
    fold = sparse.csr_array((np.ones(M), (np.arange(M), node)), shape=(M, N))
    aug = full if N == M else sparse.csr_array(full @ fold)
    aug.sort_indices()
    of_node = np.empty(N, dtype=np.int64)
    of_node[node[::-1]] = np.arange(M)[::-1]
    p_nat = np.full(M, 1.0 / M)
    pixels = drawn[of_node]
    return Graph(
        p_nat=p_nat,
        w=np.asarray(p_nat @ aug).reshape(-1),
        label=nat_label[of_node],
        nat_label=nat_label,
        classes=G if label == "glyph" else colours,
        aug=aug,
        inputs=pixels.reshape(N, -1),
        modes=tuple(one @ one.T for one in kernels) if N == M else (),
        pixels=pixels,
        places=np.ascontiguousarray(tuples.T[of_node]),
    )


# -- graphs without structure ------------------------------------------------------------------------------------


def sampled_blocks(
    nodes: int, rng: np.random.Generator, clusters: int = 10, views: int = 8, stray: float = 0.15
) -> Graph:
    """2*nodes naturals, each with a home cluster and `views` equal views: uniform at home, or astray anywhere."""
    n, size = 2 * nodes, nodes // clusters
    home = rng.integers(0, clusters, n)
    at_home = home[:, None] * size + rng.integers(0, size, (n, views))
    view = np.where(rng.random((n, views)) < stray, rng.integers(0, size * clusters, (n, views)), at_home)
    rows = np.repeat(np.arange(n), views)
    aug = sparse.csr_array((np.full(n * views, 1.0 / views), (rows, view.reshape(-1))), shape=(n, size * clusters))
    aug.sum_duplicates()
    label = np.arange(size * clusters) // size
    return from_kernel(np.full(n, 1.0 / n), aug, label, home, clusters)[0]


def sparse_random(
    rng: np.random.Generator, naturals: int = 15, nodes: int = 40, classes: int = 3, least: int = 3, most: int = 8
) -> Graph:
    """A small sparse graph: a few views each with Dirichlet weights, Dirichlet(3) naturals, equal classes.

    A node's label is the class with the largest share of its weight.
    """
    p_nat = rng.dirichlet(np.full(naturals, 3.0))
    nat_label = np.arange(naturals) * classes // naturals
    aug = np.zeros((naturals, nodes))
    for x in range(naturals):
        views = rng.choice(nodes, int(rng.integers(least, most + 1)), replace=False)
        aug[x, views] = rng.dirichlet(np.ones(len(views)))
    mass = np.stack([(p_nat[nat_label == c, None] * aug[nat_label == c]).sum(axis=0) for c in range(classes)])
    return from_kernel(p_nat, aug, np.argmax(mass, axis=0), nat_label, classes)[0]


def empirical(graph: Graph, naturals: Integers) -> Graph:
    """The graph of drawn naturals (n,), repeated ones counted, with the exact kernel of their views.

    Nodes keep their places only if each is reached; others are left out, see `from_kernel`.
    """
    counts = np.bincount(naturals, minlength=len(graph.p_nat)).astype(np.float64)
    seen = np.flatnonzero(counts)
    p_nat = counts[seen] / counts.sum()
    aug = sparse.csr_array(graph.kernel[seen])
    return from_kernel(p_nat, aug, graph.label, graph.nat_label[seen], graph.classes)[0]
