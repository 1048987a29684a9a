"""Gradient descent on the hidden layer of a ReLU network, in the space of inner products.

The network ``f(x) = sum_j a_j relu(<w_j, x>)`` is trained by full-batch gradient descent on the mean logistic
loss. Every update is a sum of training points, so that ``w_j(t) = w_j(0) + sum_i C_ji x_i`` and nothing of the
p-dimensional weights is needed beyond ``H = W X^T`` and C:

    f = a relu(H),    g_i = 1/(1 + exp(y_i f_i)),    D_ji = (alpha/n) a_j 1[H_ji > 0] y_i g_i,
    C += D,    H += D K,    K = X X^T,

an exact identity: 2 m n^2 operations a step, none that grows with p. After a few steps a neuron with a_j > 0 is
silent on nearly all points with y_i = -1, and one with a_j < 0 on those with y_i = +1: a step then multiplies the
columns of one label and adds the few others one by one, in about half of the time. A test point's output is
``a relu(T0 + C Kx)`` with its own inner products T0 with the start and Kx with the training points; only its sign is
looked at, which float32 settles for all but a few points.
Model: Xu, Wang, Frei, Vardi, Hu, "Benign Overfitting and Grokking in ReLU Networks for XOR Cluster Data",
ICLR 2024.
"""

import math

import numpy as np
from numba import njit

SERIES = (
    "train_accuracy",
    "test_accuracy",
    "flipped_label_accuracy",
    "worst_cluster_accuracy",
    "plus_mu1_accuracy",
    "minus_mu1_accuracy",
    "plus_mu2_accuracy",
    "minus_mu2_accuracy",
    "own_alignment",
    "cross_alignment",
    "train_loss",
)
STATUS = {"done": 0, "cancelled": 1}
# Neurons updated, and test points evaluated, between two looks at the cancel flag. A product lays out K anew for each
# block, which costs a large K a quarter of the time where blocks are small; those of a small K stay in the cache.
NEURONS, POINTS = 64, 256
LARGE_N, LARGE_NEURONS, BLOCK_OPERATIONS = 256, 256, 4e8
SPARSE = 0.2  # share of active pairs (neuron, point of the other label) up to which they are added one by one
DOUBTFUL = 16  # test points of a block whose signs are settled one by one; with more of them the block is done again
HALF_ULP = 2.0**-24  # of float32, relative

DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]


@njit(nogil=True, cache=True, error_model="numpy")
def outputs(a, H, f):
    """f_i = sum_j a_j relu(H_ji), added neuron by neuron."""
    m, n = H.shape
    for i in range(n):
        f[i] = 0.0
    for j in range(m):
        sign, row = a[j], H[j]
        for i in range(n):
            f[i] += sign * (row[i] if row[i] > 0.0 else 0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def pulls(y, f, pull):
    """pull_i = y_i g_i with g_i = 1/(1 + exp(y_i f_i)), without overflow; return the largest g_i."""
    largest = 0.0
    for i in range(y.size):
        margin = y[i] * f[i]
        if margin >= 0.0:
            small = math.exp(-margin)
            g = small / (1.0 + small)
        else:
            g = 1.0 / (1.0 + math.exp(margin))
        pull[i] = y[i] * g
        largest = max(largest, g)
    return largest


@njit(nogil=True, cache=True, error_model="numpy")
def mean_loss(y, f):
    """Mean of log(1 + exp(-y_i f_i)), without overflow."""
    total = 0.0
    for i in range(y.size):
        margin = y[i] * f[i]
        total += math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
    return total / y.size


@njit(nogil=True, cache=True, error_model="numpy")
def block_of(m, n):
    """How many of m neurons are updated at once with n training points: some milliseconds of work at most."""
    size = NEURONS
    if n >= LARGE_N:
        size = min(LARGE_NEURONS, max(NEURONS, int(BLOCK_OPERATIONS / (2.0 * n * n)) // NEURONS * NEURONS))
    return min(size, m)


@njit(nogil=True, cache=True, error_model="numpy")
def update(H, C, a, sides, K, factor, pull, bounds, rate, D, moved, f, cancel):
    """One step of C and H, a block of neurons at a time, and the outputs f after it; False if the flag was seen.

    sides holds the neurons with a_j > 0 and those with a_j < 0, two arrays of indices. `bounds` are three places in
    the order of the points, which is meant to be: label +1, of these the flipped ones from bounds[0]; label -1 from
    bounds[1], the flipped ones up to bounds[2]. Where the neurons of a block are silent on most points of the other
    label, flipped ones or not, the product is without those. The result is the same in whatever order the points come.
    D and moved (block * n,) are scratch, see `block_of`; a neuron's step depends on its own row alone, so blocks are
    free. Where a factor (n, k) of K = factor factor^T is given (k > 0), it is used instead. The outputs are those of
    `outputs` but for rounding, from rows that are still in the cache.
    """
    n = H.shape[1]
    block = D.size // n
    for i in range(n):
        f[i] = 0.0
    for side in range(2):
        neurons = sides[side]
        for start in range(0, neurons.size, block):
            if cancel[0] != 0:
                return False
            some = neurons[start : start + block]
            first, last = (0, n) if factor.shape[1] > 0 else multiplied(H, some, side, bounds)
            width = last - first
            pulled = D[: some.size * width].reshape(some.size, width)
            shift = moved[: some.size * n].reshape(some.size, n)
            for q in range(some.size):
                scale, d = rate * a[some[q]], pulled[q]
                h, c, points = H[some[q], first:last], C[some[q], first:last], pull[first:last]
                for i in range(width):
                    d[i] = scale * points[i] if h[i] > 0.0 else 0.0
                    c[i] += d[i]
            if factor.shape[1] > 0:
                np.dot(np.dot(pulled, factor), factor.T, shift)
            else:
                np.dot(pulled, K[first:last], shift)
            for q in range(some.size):
                sign, row, h, c = a[some[q]], shift[q], H[some[q]], C[some[q]]
                for stray_first, stray_last in ((0, first), (last, n)):
                    for i in range(stray_first, stray_last):
                        if h[i] > 0.0:
                            step = rate * sign * pull[i]
                            c[i] += step
                            for k in range(n):
                                row[k] += step * K[i, k]
                for i in range(n):
                    h[i] += row[i]
                    f[i] += sign * (h[i] if h[i] > 0.0 else 0.0)
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def multiplied(H, neurons, side, bounds):
    """The points, from first to last, with which a block of neurons of one sign (0 for +) is multiplied."""
    n = H.shape[1]
    if side == 0:
        last = bounds[2] if many(H, neurons, bounds[1], bounds[2]) else bounds[1]
        return 0, n if many(H, neurons, last, n) else last
    first = bounds[0] if many(H, neurons, bounds[0], bounds[1]) else bounds[1]
    return 0 if many(H, neurons, 0, first) else first, n


@njit(nogil=True, cache=True, error_model="numpy")
def sides_of(a):
    """The neurons with a_j > 0, and the others."""
    return np.nonzero(a > 0.0)[0], np.nonzero(a <= 0.0)[0]


@njit(nogil=True, cache=True, error_model="numpy")
def bounds_of(y, flipped):
    """(3,) places of `update`: where the flipped points of label +1 begin, label -1 begins, its flipped ones end."""
    found = np.zeros(3, np.int64)
    for i in range(y.size):
        found[0] += y[i] > 0.0 and not flipped[i]
        found[1] += y[i] > 0.0
        found[2] += y[i] > 0.0 or flipped[i]
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def many(H, neurons, first, last):
    """Whether so many of these neurons are active on the points from first to last that a product is cheaper."""
    count = 0
    for j in neurons:
        row = H[j]
        for i in range(first, last):
            count += row[i] > 0.0
    return count > SPARSE * neurons.size * (last - first)


@njit(nogil=True, cache=True, error_model="numpy")
def test_outputs(a, C, cross, T0, f):
    """f = a relu(T0 + C cross^T) at the test points, in float64.

    cross (points, n) and T0 (m, points): inner products with the training points and with the start.
    """
    grown = np.dot(C, cross.T)
    for i in range(f.size):
        f[i] = 0.0
    for j in range(a.size):
        sign, row, start = a[j], grown[j], T0[j]
        for i in range(f.size):
            h = start[i] + row[i]
            f[i] += sign * (h if h > 0.0 else 0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def in_single(a, cross, T0, scale):
    """The inner products of test points in float32, those with the start times `scale`, and their magnitudes.

    The magnitudes (2, points) are the norm of a row of cross, and sum_j |a_j| scale |T0_ji|.
    """
    points = cross.shape[0]
    single, start, magnitude = cross.astype(np.float32), np.empty(T0.shape, np.float32), np.zeros((2, points))
    for i in range(points):
        magnitude[0, i] = np.linalg.norm(cross[i])
    for j in range(a.size):
        for i in range(points):
            h = scale * T0[j, i]
            start[j, i] = h
            magnitude[1, i] += abs(a[j] * h)
    return single, start, magnitude


@njit(nogil=True, cache=True, error_model="numpy")
def test_signs(a, C, cross, T0, single, start, magnitude, scale, f, cancel):
    """Numbers f with the signs of `test_outputs`; return False if the cancel flag was seen.

    single, start and magnitude are those of `in_single`. In float32 a sum of n products and then m terms, each of
    them rounded on the way, is wrong by at most (n + m + 8) u times the sum of the absolute values (Higham, "Accuracy
    and Stability of Numerical Algorithms", 2nd edition, section 3.1), which is bounded by Cauchy and Schwarz. A
    test point whose float32 output is nearer to zero than twice that is computed in float64.
    """
    m, n = C.shape
    small_C, small_a, reach = np.empty((m, n), np.float32), a.astype(np.float32), np.zeros(n)
    for j in range(m):
        for i in range(n):
            c = scale * C[j, i]
            small_C[j, i] = c
            reach[i] += abs(a[j] * c)
    bound, length = 2.0 * (n + m + 8) * HALF_ULP, np.linalg.norm(reach)
    total, doubtful = np.empty(POINTS, np.float32), np.empty(POINTS, np.int64)
    for first in range(0, f.size, POINTS):
        if cancel[0] != 0:
            return False
        last = min(first + POINTS, f.size)
        grown = np.dot(small_C, single[first:last].T)
        total[:] = 0.0
        for j in range(m):
            sign, row, begun = small_a[j], grown[j], start[j, first:last]
            for i in range(last - first):
                h = begun[i] + row[i]
                total[i] += sign * max(h, np.float32(0.0))
        count = 0
        for i in range(last - first):
            f[first + i] = total[i]
            # Not <=: a NaN is settled in float64 as well.
            if not abs(f[first + i]) > bound * (length * magnitude[0, first + i] + magnitude[1, first + i]):
                doubtful[count] = first + i
                count += 1
        if count > DOUBTFUL:
            test_outputs(a, C, cross[first:last], T0[:, first:last], f[first:last])
        else:
            for i in doubtful[:count]:
                test_outputs(a, C, cross[i : i + 1], T0[:, i : i + 1], f[i : i + 1])
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def in_plane(C, plane, start_plane, weights):
    """weights (m, 2) = coordinates of the neurons along the two means: the start's plus C times the points'."""
    m, n = C.shape
    for j in range(m):
        along1, along2 = start_plane[j, 0], start_plane[j, 1]
        for i in range(n):
            along1 += C[j, i] * plane[i, 0]
            along2 += C[j, i] * plane[i, 1]
        weights[j, 0] = along1
        weights[j, 1] = along2


@njit(nogil=True, cache=True, error_model="numpy")
def norms_sq(C, H, H0, start_norm_sq, found):
    """|w_j|^2 = |w_j(0)|^2 + <C_j, H0_j + H_j>, since H - H0 = C K."""
    m, n = C.shape
    for j in range(m):
        total = start_norm_sq[j]
        for i in range(n):
            total += C[j, i] * (H0[j, i] + H[j, i])
        found[j] = total


@njit(nogil=True, cache=True, error_model="numpy")
def alignments(a, weights, norm_sq):
    """Mean |cos| of the neurons with their own mean (mu1 for a_j > 0, else mu2) and with the other one."""
    own, cross = 0.0, 0.0
    for j in range(a.size):
        length = math.sqrt(norm_sq[j])
        mine = 0 if a[j] > 0.0 else 1
        own += abs(weights[j, mine]) / length
        cross += abs(weights[j, 1 - mine]) / length
    return own / a.size, cross / a.size


@njit(nogil=True, cache=True, error_model="numpy")
def decision_map(a, weights, norm_sq, grid, values):
    """values[k, l] = E f at (grid[l], grid[k]) along the two means, over the noise in all other directions.

    A neuron's part is E relu(N(b, s^2)) = b Phi(b/s) + s phi(b/s), with s the norm of its part outside the plane. That
    at -b is less by b, so that of a grid symmetric about 0 half is computed.
    """
    size = grid.size
    mirrored = True
    for k in range(size):
        mirrored = mirrored and grid[k] == -grid[size - 1 - k]
    count = (size * size + 1) // 2 if mirrored else size * size
    flat, total1, total2 = values.reshape(size * size), 0.0, 0.0
    flat[:] = 0.0
    for j in range(a.size):
        along1, along2 = weights[j, 0], weights[j, 1]
        total1 += a[j] * along1
        total2 += a[j] * along2
        s = math.sqrt(max(norm_sq[j] - along1 * along1 - along2 * along2, 0.0))
        for q in range(count):
            b = along1 * grid[q % size] + along2 * grid[q // size]
            if s > 0.0:
                z = b / s
                density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
                flat[q] += a[j] * (0.5 * b * math.erfc(-z / math.sqrt(2.0)) + s * density)
            else:
                flat[q] += a[j] * max(b, 0.0)
    for q in range(size * size - count):
        flat[size * size - 1 - q] = flat[q] - (total1 * grid[q % size] + total2 * grid[q // size])


@njit(nogil=True, cache=True, error_model="numpy")
def dead_sign(a, H):
    """Whether all neurons of one output sign are silent on every training point, and so never move again."""
    alive_plus, alive_minus = False, False
    for j in range(a.size):
        for i in range(H.shape[1]):
            if H[j, i] > 0.0:
                if a[j] > 0.0:
                    alive_plus = True
                else:
                    alive_minus = True
                break
    return not (alive_plus and alive_minus)


@njit(nogil=True, cache=True, error_model="numpy")
def simulate(
    a, y, flipped, K, factor, H, C, cross, T0, quadrant, plane, start_plane, start_norm_sq, rate, mu, steps,
    record_at, frame_at, neurons, grid, maps, cancel, progress, records,
):  # fmt: skip
    """Train for ``steps`` steps; return (status, largest g at step one).

    a (m,)               output weights +-1/sqrt(m)
    y, flipped (n,)      observed labels +-1; whether they differ from the clean ones; fastest in the order of `update`
    K (n, n)             inner products of the training points; factor (n, k): of K, or k = 0
    H, C (m, n)          W(0) X^T and zeros in, the last ones out
    cross (points, n), T0 (m, points)  inner products of the test points with training points and with W(0)
    quadrant (points,)   cluster of each test point: 0, 1 have label +1, 2, 3 label -1
    plane (n, 2), start_plane (m, 2)   coordinates along the two means of the points and of W(0)
    start_norm_sq (m,)   |w_j(0)|^2
    rate                 alpha/n; mu: norm of the means
    record_at (T,), frame_at (F,)  increasing steps; records (11, T): the rows are SERIES, out
    neurons (F, k, 2)    <w_j, mu_c> of the first k neurons, out; maps (F, size, size): see decision_map, out
    cancel, progress     uint8[1] in, int64[1] out

    What is recorded at step t is measured after t updates. Where no label is flipped flipped_label_accuracy is 1,
    where a cluster has no test points its accuracy is 1. A cancelled run leaves NaN in what it did not reach.
    """
    m, n = H.shape
    H0 = H.copy()
    f, pull = np.empty(n), np.empty(n)
    block = block_of(m, n)
    D, moved = np.empty(block * n), np.empty(block * n)
    sides, bounds = sides_of(a), bounds_of(y, flipped)
    f_test = np.empty(cross.shape[0])
    scale = 1.0 / (rate * np.max(np.abs(a)))  # the largest step of C is half of its inverse
    single, start, magnitude = in_single(a, cross, T0, scale)
    weights, norm_sq = np.empty((m, 2)), np.empty(m)
    recorded, framed, largest = 0, 0, 0.5
    records[:, :] = np.nan
    neurons[:, :, :] = np.nan
    maps[:, :, :] = np.nan

    outputs(a, H, f)
    for t in range(steps + 1):
        progress[0] = t
        if cancel[0] != 0:
            return CANCELLED, largest
        g = pulls(y, f, pull)
        if t == 1:
            largest = g

        record = recorded < record_at.size and record_at[recorded] == t
        frame = framed < frame_at.size and frame_at[framed] == t
        if record or frame:
            in_plane(C, plane, start_plane, weights)
            norms_sq(C, H, H0, start_norm_sq, norm_sq)
        if frame:
            for j in range(neurons.shape[1]):
                neurons[framed, j, 0] = mu * weights[j, 0]
                neurons[framed, j, 1] = mu * weights[j, 1]
            decision_map(a, weights, norm_sq, grid, maps[framed])
            framed += 1
        if record:
            if not test_signs(a, C, cross, T0, single, start, magnitude, scale, f_test, cancel):
                return CANCELLED, largest
            _record(y, f, flipped, f_test, quadrant, records[:, recorded])
            records[8, recorded], records[9, recorded] = alignments(a, weights, norm_sq)
            recorded += 1
        if t < steps and not update(H, C, a, sides, K, factor, pull, bounds, rate, D, moved, f, cancel):
            return CANCELLED, largest
    return DONE, largest


@njit(nogil=True, cache=True, error_model="numpy")
def _record(y, f, flipped, f_test, quadrant, row):
    """Write the accuracies and the loss of one step into its column of the records."""
    n = y.size
    fitted, flips, kept = 0, 0, 0
    for i in range(n):
        right = y[i] * f[i] > 0.0
        fitted += right
        flips += flipped[i]
        kept += right and flipped[i]
    count, hits = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for i in range(f_test.size):
        q = quadrant[i]
        count[q] += 1
        hits[q] += f_test[i] > 0.0 if q < 2 else f_test[i] < 0.0
    row[0] = fitted / n
    row[1] = np.sum(hits) / f_test.size
    row[2] = kept / flips if flips > 0 else 1.0
    row[3] = 1.0
    for q in range(4):
        row[4 + q] = hits[q] / count[q] if count[q] > 0 else 1.0
        row[3] = min(row[3], row[4 + q])
    row[10] = mean_loss(y, f)
