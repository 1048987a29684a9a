"""Jitted parts of contrastive learning on a graph of augmentations.

A graph is a row-stochastic kernel ``aug`` from natural examples to nodes, with probabilities ``p_nat`` of the
examples. ``W = aug^T diag(p_nat) aug`` weighs the pairs of nodes that are two views of one example, ``w`` holds its
row sums, and ``Abar = diag(w)^-1/2 W diag(w)^-1/2 = B^T B`` with ``B = diag(p_nat)^1/2 aug diag(w)^-1/2``.

The batch form of the spectral contrastive loss on B pairs of views is

    L_B = -(2/B) sum_i z1_i.z2_i + 1/(B(B-1)) sum_{i != j} (z1_i.z2_j)^2,

unbiased for ``-2 E f(x).f(x+) + E (f(x).f(x'))^2``. Source: HaoChen, Wei, Gaidon, Ma, "Provable Guarantees for
Self-Supervised Deep Learning with Spectral Contrastive Loss", NeurIPS 2021, and the code published with it.
"""

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def apply_factor(indptr, indices, data, X, Y):
    """Y = B^T (B X) for a sparse B (n, N) in row form; X, Y (N, k).

    Row by row: what a row gathers it scatters again, so that neither B X nor B^T B is ever stored.
    """
    k = X.shape[1]
    Y[:, :] = 0.0
    held = np.empty(k)
    for i in range(indptr.size - 1):
        first, last = indptr[i], indptr[i + 1]
        for c in range(k):
            held[c] = 0.0
        for e in range(first, last):
            weight, row = data[e], X[indices[e]]
            for c in range(k):
                held[c] += weight * row[c]
        for e in range(first, last):
            weight, row = data[e], Y[indices[e]]
            for c in range(k):
                row[c] += weight * held[c]


@njit(nogil=True, cache=True, error_model="numpy")
def apply_modes(sizes, mats, X, Y):
    """Y = (M_1 x M_2 x ... ) X for a Kronecker product of small matrices, one mode after the other.

    sizes (d,) int64: sides of the matrices; mats: their entries, row by row, one matrix after the other.
    X, Y (N, k), C-contiguous, with N the product of the sizes; the last mode varies fastest. Matrices of side 2 are the
    butterflies of a fast Walsh-Hadamard transform; two that follow each other are applied in one pass over Y, which is
    what such a transform spends its time on. Costs N k times the sum of the sizes.
    """
    N, k = X.shape
    flat = Y.reshape(N * k)
    flat[:] = X.reshape(N * k)
    largest = 0
    for mode in range(sizes.size):
        largest = max(largest, sizes[mode])
    held = np.empty((largest, k))
    outer, offset, mode = 1, 0, 0
    while mode < sizes.size:
        size = sizes[mode]
        if size == 2 and mode + 1 < sizes.size and sizes[mode + 1] == 2:
            two_butterflies(mats[offset : offset + 8], outer, flat)
            outer *= 4
            offset += 8
            mode += 2
            continue
        inner = N // (outer * size)
        for o in range(outer):
            for i in range(inner):
                base = o * size * inner + i
                for a in range(size):
                    row = Y[base + a * inner]
                    for c in range(k):
                        held[a, c] = row[c]
                for a in range(size):
                    row = Y[base + a * inner]
                    for c in range(k):
                        row[c] = 0.0
                    for b in range(size):
                        weight = mats[offset + a * size + b]
                        if weight != 0.0:
                            for c in range(k):
                                row[c] += weight * held[b, c]
        outer *= size
        offset += size * size
        mode += 1


@njit(nogil=True, cache=True, error_model="numpy")
def two_butterflies(mats, outer, flat):
    """Two modes of side 2 on `flat`, in place: mats holds their entries; `outer` is the product of the sides before.

    Sums start from zero, as those of any other mode do: the bits are those of one mode after the other.
    """
    a00, a01, a10, a11, b00, b01, b10, b11 = mats
    width = flat.size // (4 * outer)
    if width == 1:  # four neighbours at once: as slices of one number each they would cost ten times as much
        for o in range(0, flat.size, 4):
            p0, p1, p2, p3 = flat[o], flat[o + 1], flat[o + 2], flat[o + 3]
            q0, q2 = (0.0 + a00 * p0) + a01 * p2, (0.0 + a10 * p0) + a11 * p2
            q1, q3 = (0.0 + a00 * p1) + a01 * p3, (0.0 + a10 * p1) + a11 * p3
            flat[o], flat[o + 1] = (0.0 + b00 * q0) + b01 * q1, (0.0 + b10 * q0) + b11 * q1
            flat[o + 2], flat[o + 3] = (0.0 + b00 * q2) + b01 * q3, (0.0 + b10 * q2) + b11 * q3
        return
    for o in range(outer):
        first = 4 * o * width
        x0, x1 = flat[first : first + width], flat[first + width : first + 2 * width]
        x2, x3 = flat[first + 2 * width : first + 3 * width], flat[first + 3 * width : first + 4 * width]
        for j in range(width):
            p0, p1, p2, p3 = x0[j], x1[j], x2[j], x3[j]
            q0, q2 = (0.0 + a00 * p0) + a01 * p2, (0.0 + a10 * p0) + a11 * p2
            q1, q3 = (0.0 + a00 * p1) + a01 * p3, (0.0 + a10 * p1) + a11 * p3
            x0[j], x1[j] = (0.0 + b00 * q0) + b01 * q1, (0.0 + b10 * q0) + b11 * q1
            x2[j], x3[j] = (0.0 + b00 * q2) + b01 * q3, (0.0 + b10 * q2) + b11 * q3


@njit(nogil=True, cache=True, error_model="numpy")
def guide(indptr, cumulative):
    """(entries,) int32: for each row of n running sums the place of u = 0, 1/n, ..., (n - 1)/n, see `place`."""
    found = np.empty(cumulative.size, np.int32)
    for x in range(indptr.size - 1):
        first, last = indptr[x], indptr[x + 1]
        at = first
        for j in range(last - first):
            while at < last - 1 and cumulative[at] <= j / (last - first):
                at += 1
            found[first + j] = at
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def place(cumulative, guides, first, last, u):
    """The first index in [first, last) whose running sum exceeds u in [0, 1), the last one at most.

    A row's guide says where to begin, a step or two from there: a bisection mispredicts half of its branches.
    """
    at = guides[first + min(int(u * (last - first)), last - first - 1)]
    while at > first and cumulative[at - 1] > u:
        at -= 1
    while at < last - 1 and cumulative[at] <= u:
        at += 1
    return at


@njit(nogil=True, cache=True, error_model="numpy")
def draw_pairs(
    nat_cumulative, nat_guide, indptr, indices, view_cumulative, view_guide, nat_rng, first_rng, second_rng,
    first, second,
):  # fmt: skip
    """Fill first, second (B,) with the nodes of B positive pairs.

    An example is drawn from `nat_cumulative` (n,), running sums of p_nat; then its two views, independently, from its
    row of `view_cumulative`, running sums within each row of aug; each with its `guide`. Each kind of draw has its own
    generator.
    """
    n = nat_cumulative.size
    for i in range(first.size):
        x = place(nat_cumulative, nat_guide, 0, n, nat_rng.random())
        start, stop = indptr[x], indptr[x + 1]
        first[i] = indices[place(view_cumulative, view_guide, start, stop, first_rng.random())]
        second[i] = indices[place(view_cumulative, view_guide, start, stop, second_rng.random())]


@njit(nogil=True, cache=True, error_model="numpy")
def draw_edges(
    node_cumulative, node_guide, indptr, indices, edge_cumulative, edge_guide, node_rng, other_rng, first, second
):
    """Fill first, second (B,) with the ends of B edges of a weighted graph, drawn with their weights.

    The one end is drawn from `node_cumulative` (N,), running sums of the nodes' weights; the other from its row of
    `edge_cumulative`, running sums within each row of the weights of its edges over their sum; each with its `guide`.
    """
    N = node_cumulative.size
    for i in range(first.size):
        x = place(node_cumulative, node_guide, 0, N, node_rng.random())
        first[i] = x
        second[i] = indices[place(edge_cumulative, edge_guide, indptr[x], indptr[x + 1], other_rng.random())]


@njit(nogil=True, cache=True, error_model="numpy")
def clipped(z, clip_norm, factor):
    """Scale the rows of z (B, k) that are longer than clip_norm > 0 down to it, in place; factor (B,) out.

    With clip_norm = 0 nothing is scaled. The direction of a scaled row still carries gradient: see `unclip`.
    """
    for i in range(z.shape[0]):
        factor[i] = 1.0
        if clip_norm > 0.0:
            total = 0.0
            for c in range(z.shape[1]):
                total += z[i, c] * z[i, c]
            length = math.sqrt(total)
            if length > clip_norm:
                factor[i] = clip_norm / length
                for c in range(z.shape[1]):
                    z[i, c] *= factor[i]


@njit(nogil=True, cache=True, error_model="numpy")
def unclip(z, clip_norm, factor, g):
    """Turn gradients g (B, k) at clipped rows into those at the rows before, in place.

    The clipped row is z = clip_norm f/|f|, so that its gradient loses its part along z and shrinks by `factor`.
    """
    for i in range(z.shape[0]):
        if factor[i] < 1.0:
            along = 0.0
            for c in range(z.shape[1]):
                along += g[i, c] * z[i, c]
            along /= clip_norm * clip_norm
            for c in range(z.shape[1]):
                g[i, c] = factor[i] * (g[i, c] - along * z[i, c])


@njit(nogil=True, cache=True, error_model="numpy")
def batch_gradients(z1, z2, g1, g2):
    """Gradients g1, g2 (B, k) of L_B at the embeddings z1, z2 (B, k) of B pairs, out.

    The other pairs repel a row by sum_{j != i} (z1_i . z2_j) z2_j = (Z2^T Z2) z1_i - (z1_i . z2_i) z2_i: moments of
    k^2 numbers, or where the batch is smaller than k the B^2 products.
    """
    B, k = z1.shape
    attract, repel = 2.0 / B, 2.0 / (B * (B - 1.0))
    if k <= B:
        np.dot(z1, np.dot(z2.T, z2), g1)
        np.dot(z2, np.dot(z1.T, z1), g2)
    else:
        G = np.dot(z1, z2.T)
        np.dot(G, z2, g1)
        np.dot(G.T, z1, g2)
    for i in range(B):
        own = 0.0
        for c in range(k):
            own += z1[i, c] * z2[i, c]
        pull = attract + repel * own
        for c in range(k):
            g1[i, c] = repel * g1[i, c] - pull * z2[i, c]
            g2[i, c] = repel * g2[i, c] - pull * z1[i, c]


@njit(nogil=True, cache=True, error_model="numpy")
def batch_loss(z1, z2):
    """L_B of the embeddings z1, z2 (B, k) of B pairs."""
    B = z1.shape[0]
    G = np.dot(z1, z2.T)
    positive, negative = 0.0, 0.0
    for i in range(B):
        for j in range(B):
            if i == j:
                positive += G[i, i]
            else:
                negative += G[i, j] * G[i, j]
    return negative / (B * (B - 1.0)) - 2.0 / B * positive


@njit(nogil=True, cache=True, error_model="numpy")
def sampled_losses(
    f, nat_cumulative, nat_guide, indptr, indices, view_cumulative, view_guide, nat_rng, first_rng, second_rng, batch,
    losses,
):  # fmt: skip
    """losses (M,): L_B of M fresh batches of a fixed table f (N, k), out."""
    k = f.shape[1]
    first, second = np.empty(batch, np.int64), np.empty(batch, np.int64)
    z1, z2 = np.empty((batch, k)), np.empty((batch, k))
    for m in range(losses.size):
        draw_pairs(
            nat_cumulative, nat_guide, indptr, indices, view_cumulative, view_guide, nat_rng, first_rng, second_rng,
            first, second,
        )  # fmt: skip
        for i in range(batch):
            for c in range(k):
                z1[i, c] = f[first[i], c]
                z2[i, c] = f[second[i], c]
        losses[m] = batch_loss(z1, z2)


@njit(nogil=True, cache=True, error_model="numpy")
def flow(kind, indptr, indices, data, sizes, mats, F, slope):
    """slope = 4 (Abar F - F F^T F), the negative gradient of ||Abar - F F^T||^2; F, slope (N, k).

    `kind` says which operator Abar is: 0 a sparse factor, 1 a Kronecker product (see `apply_factor`, `apply_modes`).
    """
    N, k = F.shape
    if kind == 0:
        apply_factor(indptr, indices, data, F, slope)
    else:
        apply_modes(sizes, mats, F, slope)
    gram = np.zeros((k, k))
    for x in range(N):
        for a in range(k):
            value = F[x, a]
            for b in range(k):
                gram[a, b] += value * F[x, b]
    for x in range(N):
        for b in range(k):
            pushed = 0.0
            for a in range(k):
                pushed += F[x, a] * gram[a, b]
            slope[x, b] = 4.0 * (slope[x, b] - pushed)
