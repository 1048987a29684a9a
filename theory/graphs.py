r"""Augmentation graphs whose spectrum is known in closed form.

A graph has one node per augmented example. Natural examples n come with probability ``p_nat[n]``, a view of n is
node x with probability ``aug[n, x]``, and two nodes are joined by ``W = aug^T diag(p_nat) aug``, the probability that
they are two views of one natural example. With ``w = W 1`` the normalised matrix
``Abar = W/sqrt(w w^T)`` is positive semidefinite with largest eigenvalue 1 and eigenvector sqrt(w).

Nodes carry a label, naturals too. ``phi`` is the probability that the two views of a positive pair differ in label,
``alpha`` that a view's label differs from its natural example's; phi <= 2 alpha. The label's energy in an eigenspace
with projector P is ``sum_c |P u_c|^2``, ``u_c = sqrt(w) 1[label = c]``; over all eigenspaces it adds up to 1.

All generators return the one value :class:`Spectrum`, so that what follows from a spectrum needs no generator.

Source of the object: HaoChen, Wei, Gaidon, Ma, "Provable Guarantees for Self-Supervised Deep Learning with Spectral
Contrastive Loss", NeurIPS 2021, arXiv 2106.04156. Every spectrum here is exact, unless its docstring says otherwise.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, owens_t

TIE = 1e-12  # eigenvalues closer than this are one eigenvalue
ZERO = 1e-15  # eigenvalues below this are 0
MAX_COORDINATES = 62  # 2^d nodes must be countable


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of Abar with multiplicities, and how the labels lie in the eigenspaces.

    Attributes:
        eigenvalues: the distinct eigenvalues, decreasing from 1; all of them, or the largest ones.
        multiplicities: the dimension of each eigenspace.
        energies: for each eigenspace the positive eigenvalues, decreasing, of the label form
            ``v -> sum_c <v, u_c>^2`` on it. They say how the energy of the space is spread over its directions.
        phi: P(labels of the two views of a positive pair differ).
        alpha: P(label of a view is not that of its natural example).
        class_probabilities: P(c), the weight of the nodes of each class.
        size: the number of eigenvalues in all, which is the number of nodes; None where it is infinite.
    """

    eigenvalues: Float[np.ndarray, " groups"]
    multiplicities: Int[np.ndarray, " groups"]
    energies: tuple[Float[np.ndarray, " _"], ...]
    phi: float
    alpha: float
    class_probabilities: Float[np.ndarray, " classes"]
    size: int | None

    @cached_property
    def energy(self) -> Float[np.ndarray, " groups"]:
        """The label energy that each eigenspace carries."""
        return np.array([float(np.sum(one)) for one in self.energies])

    @cached_property
    def last(self) -> Int[np.ndarray, " groups"]:
        """The number, counted from 1, of the last copy of each eigenvalue."""
        return np.cumsum(self.multiplicities)

    @property
    def listed(self) -> int:
        """How many eigenvalues are known, counted with multiplicity."""
        return int(self.last[-1])

    @property
    def complete(self) -> bool:
        """Whether all eigenvalues are known."""
        return self.size is not None and self.listed == self.size

    @property
    def rank(self) -> int:
        """How many known eigenvalues are positive, counted with multiplicity."""
        return int(np.sum(self.multiplicities[self.eigenvalues > 0.0]))

    def group(self, i: int) -> int:
        """Index of the eigenspace that holds the i-th largest eigenvalue, i counted from 1.

        Raises ValueError for i below 1, beyond the number of nodes, or beyond a list that is not complete.
        """
        if not 1 <= i <= self.listed:
            known = (
                f"the graph has {self.size} eigenvalues" if self.complete else f"{self.listed} eigenvalues are listed"
            )
            raise ValueError(f"there is no eigenvalue number {i}: {known}")
        return int(np.searchsorted(self.last, i))

    def eigenvalue(self, i: int) -> float:
        """The i-th largest eigenvalue, i counted from 1; 0 beyond the number of nodes. Raises as :meth:`group`."""
        if self.complete and i > self.listed:
            return 0.0
        return float(self.eigenvalues[self.group(i)])

    def top(self, k: int) -> Float[np.ndarray, " k"]:
        """The k largest eigenvalues with repeats, decreasing; 0 beyond the number of nodes."""
        found = np.repeat(self.eigenvalues, np.minimum(self.multiplicities, k))[:k]
        if len(found) < k and not self.complete:
            raise ValueError(f"{k} eigenvalues are wanted, but {self.listed} are listed")
        return np.concatenate([found, np.zeros(k - len(found))])

    def degenerate_cut(self, k: int) -> bool:
        """Whether eigenvalues k and k+1 are equal, so that the top-k eigenspace is not unique."""
        if self.complete and k >= self.listed:
            return False
        return self.group(k) == self.group(k + 1)


# -- nested blocks -------------------------------------------------------------------------------------------------


def nested_blocks(classes: int, subclusters: int, nodes: int, a1: float, a2: float) -> Spectrum:
    """C classes of s sub-clusters of m nodes each: the nested block model.

    A natural example is a sub-cluster, uniform. Its view stays in the sub-cluster with probability 1-a1-a2, goes to
    another one of the same class with probability a1 and to another class with probability a2, uniform over the
    sub-clusters there; then it is uniform over the nodes. Eigenvalues: 1, ``(1 - a2 C/(C-1))^2`` for the
    C-1 differences of classes, ``(1 - a1 - a2 - a1/(s-1))^2`` for the C(s-1) differences of sub-clusters, else 0.
    Raises ValueError where a1 or a2 is no probability or has nowhere to go.
    """
    C, s = classes, subclusters
    if C < 1 or s < 1 or nodes < 1:
        raise ValueError(f"classes, subclusters and nodes must be positive, not {C}, {s}, {nodes}")
    if not (a1 >= 0.0 and a2 >= 0.0 and a1 + a2 <= 1.0 + TIE):
        raise ValueError(f"a1 and a2 must be nonnegative with a1 + a2 <= 1, not {a1:g} and {a2:g}")
    if s == 1 and a1 != 0.0:
        raise ValueError(f"a1 must be 0 with one sub-cluster a class, not {a1:g}")
    if C == 1 and a2 != 0.0:
        raise ValueError(f"a2 must be 0 with one class, not {a2:g}")
    cls, sub = block_eigenvalues(C, s, a1, a2)
    values, counts = [1.0, cls, sub, 0.0], [1, C - 1, C * (s - 1), C * s * (nodes - 1)]
    mode = np.minimum(np.arange(C), 1)
    phi = (1.0 - cls) * (C - 1) / C
    return _collect(
        values, counts, mode, np.arange(C), np.full(C, 1.0 / C), phi, a2, np.full(C, 1.0 / C), C * s * nodes
    )


def block_eigenvalues(classes: int, subclusters: int, a1: float, a2: float) -> tuple[float, float]:
    """The eigenvalues of :func:`nested_blocks` for differences of classes and of sub-clusters; 0 where there are none.

    With both brackets nonnegative, classes lead while a2 < a1 s (C-1)/(s-1).
    """
    cls = (1.0 - a2 * classes / (classes - 1)) ** 2 if classes > 1 else 0.0
    sub = (1.0 - a1 - a2 - a1 / (subclusters - 1)) ** 2 if subclusters > 1 else 0.0
    return cls, sub


def unequal_blocks(
    p_nat: Float[np.ndarray, " naturals"],
    transition: Float[np.ndarray, "naturals blocks"],
    nodes: Int[np.ndarray, " blocks"],
    block_labels: Int[np.ndarray, " blocks"],
    natural_labels: Int[np.ndarray, " naturals"],
) -> Spectrum:
    """Blocks of any sizes: natural n sends its view to block b with ``transition[n, b]``, then to any of its nodes.

    The positive spectrum is that of the small matrix ``D^-1/2 T^T diag(p_nat) T D^-1/2``, D the blocks' probabilities;
    the graph over the nodes is never formed. Blocks that no view reaches hold no nodes of the graph.
    Raises ValueError where p_nat or a row of the transition is no distribution.
    """
    T = np.asarray(transition, dtype=np.float64)
    p = np.asarray(p_nat, dtype=np.float64)
    for name, rows in (("p_nat", p[None]), ("transition", T)):
        if not (rows >= 0.0).all() or np.abs(np.sum(rows, axis=1) - 1.0).max() > 1e-9:
            raise ValueError(f"every row of {name} must be nonnegative and add up to 1")
    if not (np.asarray(nodes) >= 1).all():
        raise ValueError("every block must hold at least one node")
    weight = p @ T
    on = weight > 0.0
    weight, labels, size = weight[on], np.asarray(block_labels)[on], int(np.sum(np.asarray(nodes)[on]))
    factor = np.sqrt(p)[:, None] * T[:, on] / np.sqrt(weight)
    quotient = factor.T @ factor
    values, vectors = np.linalg.eigh(quotient)
    n_classes = int(max(np.max(labels), np.max(natural_labels))) + 1
    U = np.sqrt(weight)[:, None] * (labels[:, None] == np.arange(n_classes))
    phi = 1.0 - float(np.sum(U * (quotient @ U)))
    alpha = float(np.sum(p[:, None] * T[:, on] * (np.asarray(natural_labels)[:, None] != labels)))
    groups, distinct = _ties(values)
    energies = tuple(
        _positive(np.linalg.eigvalsh(part @ part.T) if len(part) <= n_classes else np.linalg.eigvalsh(part.T @ part))
        for part in (vectors[:, groups == g].T @ U for g in range(len(distinct)))
    )
    counts = np.bincount(groups)
    if size > len(weight):
        if distinct[-1] == 0.0:
            counts[-1] += size - len(weight)
        else:
            distinct, counts = np.append(distinct, 0.0), np.append(counts, size - len(weight))
            energies = (*energies, np.empty(0))
    return Spectrum(distinct, counts, energies, phi, alpha, np.sum(U**2, axis=0), size)


def sampled_eigenvalue(eigenvalue: float, views: int, degree: float) -> float:
    """Eigenvalue of a graph of few views of each natural example, from that of the population; a heuristic.

    Of each natural example ``views`` views are drawn once, so that a node is a view of ``degree`` examples on average,
    and positive pairs are of these views. For a block model whose population has eigenvalue lam the large graph has
    ``((a-1)(b-1) lam + a + b - 2 + 1/lam)/(a b)`` with a views and b examples a node: the bipartite Ihara-Bass identity
    on a tree of those degrees (Brito, Dumitriu & Harris 2022), on which labels are remembered if
    ``lam^2 (a-1)(b-1) > 1``. Degrees that are only so on average agree with it as far as was measured.
    Raises ValueError where labels are forgotten.
    """
    a, b = views, degree
    if not eigenvalue**2 * (a - 1.0) * (b - 1.0) > 1.0:
        raise ValueError(f"{a:g} views and {b:g} examples a node do not show an eigenvalue of {eigenvalue:g}")
    return ((a - 1.0) * (b - 1.0) * eigenvalue + a + b - 2.0 + 1.0 / eigenvalue) / (a * b)


def population_eigenvalue(sampled: float, views: int, degree: float) -> float:
    """The eigenvalue that :func:`sampled_eigenvalue` makes ``sampled`` of; NaN if no remembered label has it."""
    a, b = views, degree
    product, middle = (a - 1.0) * (b - 1.0), a * b * sampled - a - b + 2.0
    inside = middle * middle - 4.0 * product
    return (middle + math.sqrt(inside)) / (2.0 * product) if inside > 0.0 and middle > 0.0 else math.nan


# -- ring ----------------------------------------------------------------------------------------------------------


def ring_kernel(n: int, weights: Sequence[float]) -> Float[np.ndarray, " n"]:
    """A kernel on Z_n from the list h(0), h(+1), h(-1), h(+2), h(-2), ...; shifts that meet add up.

    Raises ValueError where the weights are no distribution.
    """
    h = np.asarray(weights, dtype=np.float64)
    if not (h >= 0.0).all() or abs(float(np.sum(h)) - 1.0) > 1e-9:
        raise ValueError(f"the weights of a kernel must be nonnegative and add up to 1, not {tuple(weights)}")
    index = np.arange(len(h))
    shift = (index + 1) // 2 * np.where(index % 2, 1, -1)
    return np.bincount(shift % n, weights=h, minlength=n)


def window_kernel(n: int, half_width: int) -> Float[np.ndarray, " n"]:
    """Uniform over the shifts -r..r of Z_n, r the half-width; ValueError unless 0 <= 2r < n."""
    if not 0 <= 2 * half_width < n:
        raise ValueError(f"half_width must satisfy 0 <= 2 half_width < {n}, not {half_width}")
    shifts = np.arange(-half_width, half_width + 1)
    return np.bincount(shifts % n, minlength=n) / len(shifts)


def window_transform(n: int, half_width: int) -> Float[np.ndarray, " n"]:
    """The Fourier transform of :func:`window_kernel`, sin(pi j (2r+1)/n)/((2r+1) sin(pi j/n)); 1 at j = 0."""
    width = 2 * half_width + 1
    angle = np.pi * np.arange(1, n) / n
    return np.concatenate([[1.0], np.sin(width * angle) / (width * np.sin(angle))])


def wrapped_gaussian_kernel(n: int, noise_std: float) -> Float[np.ndarray, " n"]:
    """The wrapped Gaussian of the given standard deviation in radians, at the n points, renormalised to sum 1."""
    return np.real(np.fft.ifft(wrapped_gaussian_transform(n, noise_std)))


def wrapped_gaussian_transform(n: int, noise_std: float) -> Float[np.ndarray, " n"]:
    """The Fourier transform of :func:`wrapped_gaussian_kernel`: exp(-noise_std^2 j^2/2) with its aliases j + m n.

    Without aliases, that is for noise_std n well above 1, the eigenvalues are exp(-noise_std^2 j^2). Raises ValueError
    unless noise_std is positive.
    """
    if not noise_std > 0.0:
        raise ValueError(f"noise_std must be positive, not {noise_std:g}")
    reach = math.ceil(39.0 / (noise_std * n)) + 1  # exp(-39^2/2) is the smallest double
    alias = n * np.arange(-reach, reach + 1)[:, None]
    total = np.sum(np.exp(-0.5 * (noise_std * (np.arange(n) + alias)) ** 2), axis=0)
    return total / total[0]


def ring(kernel: Float[np.ndarray, " n"], arcs: int) -> Spectrum:
    """Views of node i are i + shift on Z_n, shift drawn from the kernel; labels are C arcs of equal length.

    Abar is circulant: lam_j = |DFT(kernel)_j|^2, and j and -j share it. The labels' energy at frequency j is
    :func:`arc_energy`; phi and alpha are exact for any kernel. Raises ValueError unless C divides n.
    """
    return _ring(np.fft.fft(np.asarray(kernel, dtype=np.float64)), arcs)


def window_ring(n: int, half_width: int, arcs: int) -> Spectrum:
    """:func:`ring` with the window kernel, from its closed transform."""
    window_kernel(n, half_width)
    return _ring(window_transform(n, half_width).astype(np.complex128), arcs)


def wrapped_gaussian_ring(n: int, noise_std: float, arcs: int) -> Spectrum:
    """:func:`ring` with the wrapped Gaussian kernel, from its closed transform."""
    return _ring(wrapped_gaussian_transform(n, noise_std).astype(np.complex128), arcs)


def arc_energy(n: int, arcs: int) -> Float[np.ndarray, " n"]:
    """Energy of the labels at each frequency of Z_n, C arcs of length l = n/C; adds up to 1.

    e_j = (C/n^2) sin^2(pi j l/n)/sin^2(pi j/n), e_0 = 1/C; zero at the other multiples of C.
    """
    if arcs < 1 or n % arcs:
        raise ValueError(f"arcs must divide the number of nodes {n}, not {arcs}")
    j = np.arange(1, n)
    energy = arcs / n**2 * (np.sin(np.pi * (j % arcs) / arcs) / np.sin(np.pi * j / n)) ** 2
    return np.concatenate([[1.0 / arcs], energy])


def arc_crossing(kernel: Float[np.ndarray, " n"], arcs: int) -> tuple[float, float]:
    """phi and alpha of C arcs by counting the border crossings: C E|d|/n and C E|shift|/n, d = shift - shift'.

    Exact while the shifts are at most n/C, for phi while their differences are; beyond, too large or too small.
    """
    n = len(kernel)
    distance = np.minimum(np.arange(n), n - np.arange(n))
    difference = np.real(np.fft.ifft(np.abs(np.fft.fft(kernel)) ** 2))
    return arcs * float(difference @ distance) / n, arcs * float(np.asarray(kernel) @ distance) / n


def arc_partition_cost(kernel: Float[np.ndarray, " n"], parts: int) -> float:
    """rho_m of the ring, m E|d|/n: the cheapest m-partition is m equal arcs.

    Confirmed by brute force on 12 nodes, m = 2, 3, 4; needs m to divide n and differences of shifts at most n/m.
    """
    return arc_crossing(kernel, parts)[0]


# -- hypercube -----------------------------------------------------------------------------------------------------


def hypercube(
    flip: Float[np.ndarray, " d"], support: Sequence[int], truth: Float[np.ndarray, " 2^m"], at_least: int
) -> Spectrum:
    """{+-1}^d with coordinate i flipped with probability flip[i]; the label is a Boolean function of m coordinates.

    Eigenvectors are the characters chi_S, lam_S = prod_{i in S} (1 - 2 flip_i)^2. ``truth`` lists the label, +-1, for
    the 2^m signs of the coordinates in ``support``, first coordinate slowest, +1 before -1 (:func:`parity_truth`,
    :func:`majority_truth`). At least ``at_least`` eigenvalues are listed, complete eigenspaces, found best first
    without the other 2^d. phi = 1/2 - sum yhat_S^2 lam_S/2, alpha the same with the root of lam_S (signed).
    Raises ValueError where flip is no probability, d exceeds 62, or truth does not fit the support.
    """
    q = _flips(flip)
    truth, support = np.asarray(truth, dtype=np.float64), tuple(support)
    if len(set(support)) < len(support) or any(not 0 <= i < len(q) for i in support):
        raise ValueError(f"the label's coordinates must be distinct and among 0..{len(q) - 1}, not {support}")
    if truth.shape != (2 ** len(support),) or not np.isin(truth, (-1.0, 1.0)).all():
        raise ValueError(f"the truth table of {len(support)} coordinates must list {2 ** len(support)} values of +-1")
    shrink = 1.0 - 2.0 * q
    owner, distinct = _ties(shrink**2)  # coordinates of one flip probability are exchangeable
    copies = np.bincount(owner, minlength=len(distinct)).tolist()
    live = [a for a in range(len(distinct)) if distinct[a] > 0.0]
    most = [copies[a] for a in live]
    modes, values, counts, whole = _best_first(
        distinct[live], most, lambda one: math.prod(map(math.comb, most, one)), at_least
    )
    size = 2 ** len(q)
    if whole and sum(counts) < size:
        values, counts = [*values, 0.0], [*counts, size - sum(counts)]
    coefficients = walsh_coefficients(truth)
    subsets = [
        tuple(i for b, i in enumerate(support) if (code >> (len(support) - 1 - b)) & 1) for code in range(len(truth))
    ]
    leak = np.array([math.prod(shrink[list(one)]) for one in subsets])
    phi, alpha = (0.5 - 0.5 * float(coefficients**2 @ factor) for factor in (leak**2, leak))
    where = {one: place for place, one in enumerate(modes)}
    part_mode, part_energy = [], []
    for subset, coefficient in zip(subsets, coefficients, strict=True):
        held = [sum(int(owner[i] == a) for i in subset) for a in live]
        place = where.get(tuple(held)) if sum(held) == len(subset) else None
        if place is None and whole:
            place = len(values) - 1  # of the eigenvalue 0
        if place is not None and coefficient != 0.0:
            part_mode.append(place)
            part_energy.append(0.5 * float(coefficient) ** 2)
    plus = 0.5 * (1.0 + float(coefficients[0]))
    found = _collect(
        values, counts, np.array(part_mode, dtype=int), np.ones(len(part_mode), dtype=int), np.array(part_energy),
        phi, alpha, np.array([plus, 1.0 - plus]), size,
    )  # fmt: skip
    inside = float(np.sum(found.energies[0]))  # the label's own energy at eigenvalue 1; the constant joins it
    cross = 0.5 * float(coefficients[0])
    first = _positive(np.linalg.eigvalsh(np.array([[0.5, cross], [cross, inside]])))
    return Spectrum(
        found.eigenvalues, found.multiplicities, (first, *found.energies[1:]), phi, alpha,
        found.class_probabilities, size,
    )  # fmt: skip


def parity_truth(m: int) -> Float[np.ndarray, " 2^m"]:
    """The truth table of the product of m signs."""
    return np.array([(-1.0) ** code.bit_count() for code in range(2**m)])


def majority_truth(m: int) -> Float[np.ndarray, " 2^m"]:
    """The truth table of the majority of m signs; ValueError unless m is odd."""
    if m % 2 == 0:
        raise ValueError(f"a majority needs an odd number of coordinates, not {m}")
    return np.array([1.0 if 2 * code.bit_count() < m else -1.0 for code in range(2**m)])


def walsh_coefficients(truth: Float[np.ndarray, " 2^m"]) -> Float[np.ndarray, " 2^m"]:
    """yhat_S = E[y chi_S] for all S; bit m-1-b of the index says whether the b-th coordinate is in S."""
    values = np.array(truth, dtype=np.float64)
    half = 1
    while half < len(values):
        pair = values.reshape(-1, 2, half)
        values = np.stack([pair[:, 0] + pair[:, 1], pair[:, 0] - pair[:, 1]], axis=1).reshape(-1)
        half *= 2
    return values / len(values)


def top_characters(flip: Float[np.ndarray, " d"], count: int) -> list[tuple[float, tuple[int, ...]]]:
    """The characters of largest eigenvalue: (lam_S, S), decreasing; equal ones by size, then by coordinates.

    Best first, without listing all 2^d. Characters of eigenvalue 0 are left out.
    """
    q = _flips(flip)
    factor = (1.0 - 2.0 * q) ** 2
    order = [int(i) for i in np.lexsort((np.arange(len(q)), -factor)) if factor[i] > ZERO]
    found: list[tuple[float, tuple[int, ...]]] = []
    modes, values, _, _ = _best_first(factor[order], [1] * len(order), lambda counts: 1, count)
    for counts, value in zip(modes, values, strict=True):
        found.append((value, tuple(sorted(order[place] for place in np.flatnonzero(counts)))))
    groups, distinct = _ties(np.array([value for value, _ in found]))
    ranked = sorted(zip(groups.tolist(), found, strict=True), key=lambda one: (one[0], len(one[1][1]), one[1][1]))
    return [(float(distinct[group]), subset) for group, (_, subset) in ranked][:count]


# -- Gaussian ------------------------------------------------------------------------------------------------------


def gaussian(
    natural_std: Float[np.ndarray, " d"], noise_std: Float[np.ndarray, " d"], at_least: int, coordinate: int = 0
) -> Spectrum:
    """N(0, tau^2) naturals with views x + sig xi, independent coordinates; the label is the sign of one coordinate.

    Mehler: per coordinate lam_j = r^j, r = tau^2/(tau^2 + sig^2), with Hermite eigenfunctions, and independent
    coordinates multiply. phi = arccos(r)/pi, alpha = arccos(sqrt r)/pi with the r of the label's coordinate. At least
    ``at_least`` of the infinitely many eigenvalues are listed, those below 1e-15 as 0. Raises ValueError unless both
    deviations are positive.
    """
    tau, sig = np.atleast_1d(np.asarray(natural_std, float)), np.atleast_1d(np.asarray(noise_std, float))
    if not ((tau > 0.0).all() and (sig > 0.0).all() and tau.shape == sig.shape):
        raise ValueError("natural_std and noise_std must be positive and of one length")
    r = tau**2 / (tau**2 + sig**2)
    owner, distinct = _ties(r)
    copies = np.bincount(owner).tolist()
    modes, values, counts, whole = _best_first(
        distinct,
        [None] * len(distinct),
        lambda counts: math.prod(math.comb(n + j - 1, j) for n, j in zip(copies, counts, strict=True)),
        at_least,
    )
    if whole and sum(counts) < at_least:
        values, counts = [*values, 0.0], [*counts, at_least - sum(counts)]
    where, axis = {one: place for place, one in enumerate(modes)}, int(owner[coordinate])
    part_mode, part_channel, part_energy = [0], [0], [0.5]
    for degree in range(1, 2 * len(modes), 2):
        place = where.get(tuple(degree if a == axis else 0 for a in range(len(distinct))))
        if place is None:
            break
        part_mode.append(place)
        part_channel.append(1)
        part_energy.append(0.5 * hermite_sign_weight(degree))
    phi, alpha = (math.acos(x) / math.pi for x in (float(r[coordinate]), math.sqrt(float(r[coordinate]))))
    return _collect(
        values, counts, np.array(part_mode), np.array(part_channel), np.array(part_energy),
        phi, alpha, np.array([0.5, 0.5]), None,
    )  # fmt: skip


def hermite_sign_weight(degree: int) -> float:
    """E[sign(z) h_j(z)]^2 with the normalised Hermite polynomial of degree j: 0 for even j; adds up to 1."""
    if degree % 2 == 0:
        return 0.0
    return 2.0 / math.pi * (math.comb(degree - 1, (degree - 1) // 2) / 2 ** (degree - 1)) / degree


def mixture_crossing(mean: float, natural_std: float, noise_std: float) -> tuple[float, float]:
    """phi and alpha of the label sign(x) for naturals at +-mean (equal weights, component deviation natural_std).

    No spectrum is known in closed form, but 1 - lam_2 <= 2 phi. phi by Owen's T function, alpha by quadrature.
    """
    from scipy.integrate import quad

    total = math.hypot(natural_std, noise_std)
    r = (natural_std / total) ** 2
    phi = 4.0 * float(owens_t(mean / total, math.sqrt((1.0 - r) / (1.0 + r))))

    def crossing(z: float) -> float:
        x = mean + natural_std * z
        return float(ndtr(-abs(x) / noise_std)) * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)

    middle = min(max(-mean / natural_std, -40.0), 40.0)
    alpha = sum(
        quad(crossing, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in ((-40.0, middle), (middle, 40.0))
    )
    return phi, float(alpha)


# -- glyph manifold ------------------------------------------------------------------------------------------------


def swap_eigenvalue(kinds: int, swap: float) -> float:
    """(1 - swap K/(K-1))^2: eigenvalue of the K-1 differences when a view is one of the K-1 others with that chance.

    Raises ValueError where swap is no probability, or positive with nothing to swap to.
    """
    if not 0.0 <= swap <= 1.0:
        raise ValueError(f"a swap probability must lie in 0..1, not {swap:g}")
    if kinds < 2:
        if swap > 0.0:
            raise ValueError("one kind alone cannot be swapped: the swap probability must be 0")
        return 1.0
    return (1.0 - swap * kinds / (kinds - 1)) ** 2


def glyph_manifold(
    symmetries: Sequence[int],
    rotation_kernel: Float[np.ndarray, " rotations"],
    shift_kernel: Float[np.ndarray, " shifts"],
    colours: int,
    glyph_swap: float,
    colour_swap: float,
    label: Literal["glyph", "colour"] = "glyph",
) -> Spectrum:
    """Nodes (glyph, rotation, shift, colour), each augmented on its own: the spectrum is all products of the factors.

    ``symmetries[g]`` is the order of the rotation symmetry of glyph g: 1 for none; it must divide the number of
    rotations. Equal images of a symmetric glyph are one node, its natural label tuples stay separate, and the product
    breaks: at rotation frequency j, with G_j the glyphs whose symmetry divides j, the glyph factor is lam_glyph
    (G_j - 1 times) and lam_glyph + (1 - lam_glyph) G_j/G (once, if G_j > 0). Labels: the glyph or the colour.
    Raises ValueError where a symmetry does not divide, or where swapping has nothing to swap to.
    """
    G, R = len(symmetries), len(rotation_kernel)
    if any(one < 1 or R % one for one in symmetries):
        raise ValueError(f"every symmetry must divide the {R} rotations, not {tuple(symmetries)}")
    lam_glyph, lam_colour = swap_eigenvalue(G, glyph_swap), swap_eigenvalue(colours, colour_swap)
    lam_rotation, lam_shift = (np.abs(np.fft.fft(h)) ** 2 for h in (rotation_kernel, shift_kernel))
    values: list[float] = []
    counts: list[int] = []
    modes: dict[tuple[int, int, int, int], int] = {}  # glyph difference?, rotation, shift, colour difference?
    for j in range(R):
        kept = sum(j % one == 0 for one in symmetries)
        if kept == 0:
            continue
        for differs, glyph, glyphs in ((0, lam_glyph + (1.0 - lam_glyph) * kept / G, 1), (1, lam_glyph, kept - 1)):
            for s in range(len(shift_kernel)):
                for other, colour, many in ((0, 1.0, 1), (1, lam_colour, colours - 1)):
                    if glyphs * many:
                        modes[differs, j, s, other] = len(values)
                        values.append(glyph * float(lam_rotation[j]) * float(lam_shift[s]) * colour)
                        counts.append(glyphs * many)
    kinds, own, swap = (G, lam_glyph, glyph_swap) if label == "glyph" else (colours, lam_colour, colour_swap)
    difference = (1, 0, 0, 0) if label == "glyph" else (0, 0, 0, 1)
    mode = np.array([modes[0, 0, 0, 0]] + [modes[difference]] * (kinds - 1) if kinds > 1 else [modes[0, 0, 0, 0]])
    each = np.full(kinds, 1.0 / kinds)
    phi = (1.0 - own) * (kinds - 1) / kinds
    return _collect(values, counts, mode, np.arange(kinds), each, phi, swap, each, sum(counts))


def colour_crossing(glyphs: int, glyph_swap: float, colours: int) -> float:
    """The colour swap at which lam_col = lam_glyph: above it identity is the second eigenvector, below it colour."""
    return glyph_swap * glyphs / (glyphs - 1) * (colours - 1) / colours


# -- parts ---------------------------------------------------------------------------------------------------------


def _ties(values: Float[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " groups"]]:
    """For each value the index of its group, and the groups' values, decreasing; nearly equal values are one."""
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    ranked = np.where(ranked <= ZERO, 0.0, ranked)
    starts = np.concatenate([[True], ranked[:-1] - ranked[1:] > TIE * ranked[:-1] + ZERO])
    groups = np.empty(len(values), dtype=int)
    groups[order] = np.cumsum(starts) - 1
    return groups, ranked[starts]


def _positive(energies: Float[np.ndarray, " n"]) -> Float[np.ndarray, " _"]:
    return np.sort(energies[energies > ZERO])[::-1]


def _collect(
    values: Sequence[float] | Float[np.ndarray, " modes"],
    counts: Sequence[int] | Int[np.ndarray, " modes"],
    part_mode: Int[np.ndarray, " parts"],
    part_channel: Int[np.ndarray, " parts"],
    part_energy: Float[np.ndarray, " parts"],
    phi: float,
    alpha: float,
    class_probabilities: Float[np.ndarray, " classes"],
    size: int | None,
) -> Spectrum:
    """Merge modes of one eigenvalue. A part is label energy of a mode along one of orthogonal label directions.

    Parts of one eigenspace add up where they share the direction, for then the labels meet one vector of that space.
    """
    counts = np.asarray(counts, dtype=np.int64)
    held = counts > 0
    place = np.cumsum(held) - 1
    groups, distinct = _ties(np.asarray(values, dtype=np.float64)[held])
    multiplicities = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(multiplicities, groups, counts[held])
    own = groups[place[part_mode]]
    keys, inverse = np.unique(np.stack([own, part_channel]), axis=1, return_inverse=True)
    totals = np.bincount(inverse.reshape(-1), weights=part_energy, minlength=keys.shape[1])
    order = np.lexsort((-totals, keys[0]))
    order = order[totals[order] > ZERO]
    cuts = np.searchsorted(keys[0][order], np.arange(1, len(distinct)))
    energies = tuple(np.split(totals[order], cuts))
    return Spectrum(distinct, multiplicities, energies, phi, alpha, class_probabilities, size)


def _ring(transform: np.ndarray, arcs: int) -> Spectrum:
    n = len(transform)
    energy = arc_energy(n, arcs)
    values = np.abs(transform) ** 2
    j = np.arange(n)
    phi, alpha = 1.0 - float(values @ energy), 1.0 - float(np.real(transform) @ energy)
    return _collect(values, np.ones(n, dtype=int), j, j % arcs, energy, phi, alpha, np.full(arcs, 1.0 / arcs), n)


def _flips(flip: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    q = np.atleast_1d(np.asarray(flip, dtype=np.float64))
    if not ((q >= 0.0) & (q <= 1.0)).all():
        raise ValueError("every flip probability must lie in 0..1")
    if len(q) > MAX_COORDINATES:
        raise ValueError(f"at most {MAX_COORDINATES} coordinates, not {len(q)}")
    return q


def _best_first(
    factors: Float[np.ndarray, " d"],
    most: Sequence[int | None],
    multiplicity: Callable[[tuple[int, ...]], int],
    at_least: int,
) -> tuple[list[tuple[int, ...]], list[float], list[int], bool]:
    """Products prod_a factors[a]^counts[a], counts[a] <= most[a], decreasing: counts, products, multiplicities.

    Stops when ``at_least`` are out, counted with multiplicity, and the eigenspace of the last one is whole; or when
    all positive products are out, which the last value says.
    """
    modes: list[tuple[int, ...]] = []
    values: list[float] = []
    copies: list[int] = []
    heap, seen = [(-1.0, (0,) * len(factors))], 0
    while heap and -heap[0][0] > ZERO:
        negative, counts = heapq.heappop(heap)
        if seen >= at_least and values[-1] + negative > TIE * values[-1] + ZERO:
            return modes, values, copies, False
        modes.append(counts)
        values.append(-negative)
        copies.append(multiplicity(counts))
        seen += copies[-1]
        newest = max((a for a, count in enumerate(counts) if count), default=0)
        for a in range(newest, len(factors)):  # each vector of counts is reached once, by its last coordinate
            limit = most[a]
            if limit is None or counts[a] < limit:
                heapq.heappush(heap, (negative * float(factors[a]), (*counts[:a], counts[a] + 1, *counts[a + 1 :])))
    return modes, values, copies, True
