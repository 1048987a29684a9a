"""Gradient descent on the population loss of one layer of linear self-attention, without a single prompt.

A prompt holds n pairs (x_i, y_i) with y_i = <w, x_i> + noise, and a query x. With g = X^T y, S = X^T X and s = |y|^2
the layer predicts

    <x, (c A^T + b u^T) g + A^T S u + c s b + h>,

where (u, c) = W_V^T h_full, [A; b^T] are the first d columns of W_K^T W_Q, and h is the skip vector. The first term is
odd in the labels, with the effective matrix Q = c A^T + b u^T, the others are even and can only harm. For Gaussian x
and w the mean squared error is a polynomial in the blocks, and so training needs no sampling at all. The gradient
for any covariances is in `population.py`; here both are diagonal, which costs d^2 operations a step instead of d^3.

*Charts* say which numbers are trained: the blocks themselves (full), A and c alone (reduced), a diagonal
A = diag(key * query) whose two factors are trained (separate_key_query), or the matrices of the layer (literal). All
are flat vectors `theta`, turned into the flat `blocks` [u, c, A, b, h] of length d^2 + 3d + 1.
Model: Mahankali, Hashimoto, Ma 2024; Ahn et al. 2023; Zhang, Singh, Latham, Saxe 2025 for separate keys.
"""

import math

import numpy as np
from numba import njit

SERIES = ("loss", "even_loss", "step_size", "u_norm", "b_norm")
CHARTS = {"full": 0, "reduced": 1, "separate_key_query": 2, "literal": 3}
STATUS = {"done": 0, "cancelled": 1, "diverged": 2}
LOSS_LIMIT = 1e3  # of the loss at the start, above which a run has diverged

FULL = CHARTS["full"]
REDUCED = CHARTS["reduced"]
SEPARATE = CHARTS["separate_key_query"]
LITERAL = CHARTS["literal"]
DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]


def theta_size(chart, d):
    """How many numbers a chart trains in d dimensions (the skip vector of `full` included)."""
    return (d * d + 3 * d + 1, d * d + 1, 2 * d + 1, 3 * (d + 1) ** 2 + d + 1)[chart]


@njit(nogil=True, cache=True, error_model="numpy")
def unpack(chart, theta, scale, blocks):
    """The blocks [u, c, A, b, h] of theta; A and b carry the factor `scale` of the attention (1, or 1/n)."""
    size = blocks.size
    d = (int(math.sqrt(5.0 + 4.0 * size)) - 3) // 2
    b_at = d + 1 + d * d
    if chart == FULL:
        blocks[:] = theta
    elif chart == REDUCED:
        blocks[:] = 0.0
        blocks[d:b_at] = theta
    elif chart == SEPARATE:
        blocks[:] = 0.0
        blocks[d] = theta[0]
        for i in range(d):
            blocks[d + 1 + i * (d + 1)] = theta[1 + i] * theta[1 + d + i]
    else:
        e = d + 1
        K, Q, V = theta[: e * e].reshape(e, e), theta[e * e : 2 * e * e].reshape(e, e), theta[2 * e * e : 3 * e * e]
        h = theta[3 * e * e :]
        for j in range(e):
            total = 0.0
            for i in range(e):
                total += V[i * e + j] * h[i]
            blocks[j] = total
        for i in range(e):
            for j in range(d):
                total = 0.0
                for k in range(e):
                    total += K[k, i] * Q[k, j]
                blocks[d + 1 + i * d + j] = total
        blocks[b_at + d :] = h[:d]
    for i in range(d + 1, b_at + d):
        blocks[i] *= scale


@njit(nogil=True, cache=True, error_model="numpy")
def pull(chart, skip, theta, scale, gradient, out):
    """out = gradient of the loss in theta, from `gradient`, that in the blocks (its A and b are overwritten)."""
    size = gradient.size
    d = (int(math.sqrt(5.0 + 4.0 * size)) - 3) // 2
    b_at = d + 1 + d * d
    for i in range(d + 1, b_at + d):
        gradient[i] *= scale
    if chart == FULL:
        out[:] = gradient
        if not skip:
            out[b_at + d :] = 0.0
    elif chart == REDUCED:
        out[:] = gradient[d:b_at]
    elif chart == SEPARATE:
        out[0] = gradient[d]
        for i in range(d):
            out[1 + i] = theta[1 + d + i] * gradient[d + 1 + i * (d + 1)]
            out[1 + d + i] = theta[1 + i] * gradient[d + 1 + i * (d + 1)]
    else:
        e = d + 1
        K, Q = theta[: e * e].reshape(e, e), theta[e * e : 2 * e * e].reshape(e, e)
        V, h = theta[2 * e * e : 3 * e * e].reshape(e, e), theta[3 * e * e :]
        dK, dQ = out[: e * e].reshape(e, e), out[e * e : 2 * e * e].reshape(e, e)
        dV, dh = out[2 * e * e : 3 * e * e].reshape(e, e), out[3 * e * e :]
        dM = gradient[d + 1 : b_at + d].reshape(e, d)  # the last column of M meets the query's zero label
        for k in range(e):
            for i in range(e):
                total = 0.0
                for j in range(d):
                    total += Q[k, j] * dM[i, j]
                dK[k, i] = total
            for j in range(d):
                total = 0.0
                for i in range(e):
                    total += K[k, i] * dM[i, j]
                dQ[k, j] = total
            dQ[k, d] = 0.0
        for i in range(e):
            total = gradient[b_at + d + i] if i < d else 0.0
            for j in range(e):
                dV[i, j] = h[i] * gradient[j]
                total += V[i, j] * gradient[j]
            dh[i] = total


@njit(nogil=True, cache=True, error_model="numpy")
def effective(blocks, Q):
    """Q (d, d) = c A^T + b u^T."""
    d = Q.shape[0]
    u, c, b = blocks[:d], blocks[d], blocks[d + 1 + d * d :]
    for i in range(d):
        for j in range(d):
            Q[i, j] = c * blocks[d + 1 + j * d + i] + b[i] * u[j]


@njit(nogil=True, cache=True, error_model="numpy")
def gradient_diagonal(lam, t, n, s2, even, blocks, out, work):
    """The two parts of the population loss and its gradient in the blocks, covariances diag(lam) and diag(t).

    n is the number of pairs in a prompt, s2 the variance of the noise on the labels. out, like blocks, is
    [u, c, A, b, h]; work (8, d) is scratch. Where `even` is False u, b and h are taken as 0, and their gradients,
    which are then 0 as well, are not computed. Returns (odd part, noise of the target included; even part).
    """
    d = lam.size
    a_at, b_at = d + 1, d + 1 + d * d
    u, c, b, h = blocks[:d], blocks[d], blocks[b_at : b_at + d], blocks[b_at + d :]
    v1, trace_sq = s2, 0.0
    for i in range(d):
        v1 += t[i] * lam[i]
        trace_sq += (t[i] * lam[i]) ** 2
    R, p, Cu, r, w, lp = work[0], work[1], work[2], work[3], work[4], work[5]
    odd, dc = v1, 0.0
    for i in range(d):
        R[i] = (n + 1.0) * lam[i] * lam[i] * t[i] + v1 * lam[i]
    if not even:
        out[:] = 0.0
        for j in range(d):
            for i in range(d):
                a = blocks[a_at + j * d + i]
                q = c * a
                G = 2.0 * n * lam[i] * R[j] * q
                odd += 0.5 * G * q
                if i == j:
                    G -= 2.0 * n * lam[i] * lam[i] * t[i]
                    odd -= 2.0 * n * lam[i] * lam[i] * t[i] * q
                out[a_at + j * d + i] = c * G
                dc += G * a
        out[d] = dc
        return odd, 0.0

    for i in range(d):
        out[i] = 0.0
        out[b_at + i] = 0.0
        p[i] = 0.0
        r[i] = 0.0
        Cu[i] = (n * n * v1 * lam[i] + 2.0 * n * lam[i] * lam[i] * t[i]) * u[i]
    size_u, bSb, trace_H, bACu = 0.0, 0.0, 0.0, 0.0
    for i in range(d):
        size_u += lam[i] * u[i] * u[i]
        bSb += lam[i] * b[i] * b[i]
    # The odd part, and the products with A that the even one needs.
    for j in range(d):
        su, cu, uj = lam[j] * u[j], Cu[j], u[j]
        row = blocks[a_at + j * d : a_at + (j + 1) * d]
        to = out[a_at + j * d : a_at + (j + 1) * d]
        du, wj, tj = 0.0, 0.0, 0.0
        for i in range(d):
            a = row[i]
            q = c * a + b[i] * uj
            G = 2.0 * n * lam[i] * R[j] * q
            odd += 0.5 * G * q
            if i == j:
                G -= 2.0 * n * lam[i] * lam[i] * t[i]
                odd -= 2.0 * n * lam[i] * lam[i] * t[i] * q
            to[i] = c * G
            dc += G * a
            out[b_at + i] += G * uj
            du += G * b[i]
            p[i] += a * su
            r[i] += a * cu
            wj += a * lam[i] * b[i]
            tj += a * a * lam[i]
        out[j] = du
        w[j] = wj
        trace_H += lam[j] * tj
        bACu += wj * cu
    even_loss = n * trace_H * size_u + 2.0 * c * bACu
    kurtosis = n * (n + 2.0) * (v1 * v1 + 2.0 * trace_sq)
    even_loss += c * c * kurtosis * bSb
    dc += 2.0 * bACu + 2.0 * c * kurtosis * bSb
    for i in range(d):
        lp[i] = lam[i] * ((n + 1.0) * p[i] + h[i])  # of A Sig ((n+1) A^T Sig u + h)
        even_loss += lam[i] * (n * (n + 1.0) * p[i] * p[i] + h[i] * h[i])
        even_loss += 2.0 * n * lam[i] * h[i] * (p[i] + c * v1 * b[i])
        out[b_at + i] += 2.0 * c * lam[i] * (r[i] + c * kurtosis * b[i] + n * v1 * h[i])
        out[b_at + d + i] = 2.0 * lam[i] * (h[i] + n * p[i] + c * n * v1 * b[i])
        dc += 2.0 * n * v1 * lam[i] * h[i] * b[i]
    for j in range(d):
        row = blocks[a_at + j * d : a_at + (j + 1) * d]
        to = out[a_at + j * d : a_at + (j + 1) * d]
        su, cu, both = 2.0 * n * lam[j] * u[j], 2.0 * c * Cu[j], 2.0 * n * size_u * lam[j]
        total = 0.0
        for i in range(d):
            to[i] += su * lp[i] + (both * row[i] + cu * b[i]) * lam[i]
            total += row[i] * lp[i]
        out[j] += 2.0 * n * lam[j] * (total + trace_H * u[j])
        out[j] += 2.0 * c * (n * n * v1 * lam[j] + 2.0 * n * lam[j] * lam[j] * t[j]) * w[j]
    out[d] = dc
    return odd, even_loss


@njit(nogil=True, cache=True, error_model="numpy")
def blank(records, diagonal, frames):
    """NaN wherever a run may record: what it does not come to stays so."""
    records[:, :] = np.nan
    diagonal[:, :] = np.nan
    frames[:, :, :] = np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def record(blocks, Q, losses, at, framed, records, diagonal, frames):
    """Write what is recorded of the blocks into column `at` of the records, and frame `framed` if it is not -1."""
    d = Q.shape[0]
    u, b = blocks[:d], blocks[d + 1 + d * d : 2 * d + 1 + d * d]
    effective(blocks, Q)
    trace, size_u, size_b = 0.0, 0.0, 0.0
    for i in range(d):
        trace += Q[i, i]
        size_u += u[i] * u[i]
        size_b += b[i] * b[i]
    records[0, at] = losses[0] + losses[1]
    records[1, at] = losses[1]
    records[2, at] = trace / d
    records[3, at] = math.sqrt(size_u)
    records[4, at] = math.sqrt(size_b)
    for i in range(diagonal.shape[1]):
        diagonal[at, i] = Q[i, i]
    if framed >= 0:
        shown = frames.shape[1]
        for i in range(shown):
            for j in range(shown):
                frames[framed, i, j] = Q[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def descend(
    chart, skip, lam, t, n, s2, scale, theta, learning_rate, steps, record_at, frame_at, diagonal, frames,
    cancel, progress, records,
):  # fmt: skip
    """Gradient descent on the population loss; theta is overwritten. Returns (status, step it stopped at).

    chart, skip            see CHARTS; whether the chart `full` trains its skip vector
    lam, t (d,)            diagonals of the two covariances
    n, s2, scale           pairs in a prompt; variance of the noise on labels; factor of the attention
    record_at (T,), frame_at (F,)  increasing steps, frames among the recorded ones
    diagonal (T, m)        first entries of the diagonal of Q at the recorded steps, out
    frames (F, k, k)       leading part of Q, out
    cancel, progress       uint8[1] in, int64[1] out; records (5, T): the rows are SERIES, out

    What is recorded at step k is measured after k updates. The run has diverged when the loss is not finite or
    above LOSS_LIMIT times that of the start; then, and when cancelled, the rest of the records stays NaN.
    """
    d = lam.size
    even = chart in (FULL, LITERAL)
    blocks, gradient = np.empty(d * d + 3 * d + 1), np.empty(d * d + 3 * d + 1)
    move, work, Q = np.empty(theta.size), np.empty((8, d)), np.empty((d, d))
    recorded, framed, limit = 0, 0, np.inf
    blank(records, diagonal, frames)
    for k in range(steps + 1):
        progress[0] = k
        if cancel[0] != 0:
            return CANCELLED, k
        unpack(chart, theta, scale, blocks)
        losses = gradient_diagonal(lam, t, n, s2, even, blocks, gradient, work)
        if k == 0:
            limit = LOSS_LIMIT * (losses[0] + losses[1])
        if not losses[0] + losses[1] <= limit:
            return DIVERGED, k
        if recorded < record_at.size and record_at[recorded] == k:
            frame = framed < frame_at.size and frame_at[framed] == k
            record(blocks, Q, losses, recorded, framed if frame else -1, records, diagonal, frames)
            recorded += 1
            framed += frame
        if k < steps:
            pull(chart, skip, theta, scale, gradient, move)
            for i in range(theta.size):
                theta[i] -= learning_rate * move[i]
    return DONE, steps


@njit(nogil=True, cache=True, error_model="numpy")
def descend_commuting(
    separate, lam, t, n, s2, scale, c, k, learning_rate, steps, record_at, frame_at, diagonal, frames,
    cancel, progress, records,
):  # fmt: skip
    """What `descend` does where u = b = h = 0 and A starts diagonal, in 8d operations a step: A stays diagonal.

    k (d,), overwritten, is the diagonal of A or, where `separate`, key and query, which start alike. Returns (status,
    step it stopped at, c).
    """
    d = lam.size
    v1 = s2
    for i in range(d):
        v1 += lam[i] * t[i]
    recorded, framed, limit = 0, 0, np.inf
    blank(records, diagonal, frames)
    for step in range(steps + 1):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step, c
        loss, dc, trace, old = v1, 0.0, 0.0, c
        recording = recorded < record_at.size and record_at[recorded] == step
        framing = recording and framed < frame_at.size and frame_at[framed] == step
        if framing:
            frames[framed, :, :] = 0.0
        for i in range(d):
            a = k[i] * k[i] if separate else k[i]
            q, pull_i = scale * old * a, lam[i] * lam[i] * t[i]
            G = 2.0 * n * lam[i] * ((n + 1.0) * pull_i + v1 * lam[i]) * q
            loss += 0.5 * G * q - 2.0 * n * pull_i * q
            G -= 2.0 * n * pull_i
            trace += q
            if recording and i < diagonal.shape[1]:
                diagonal[recorded, i] = q
            if framing and i < frames.shape[1]:
                frames[framed, i, i] = q
            if step < steps:
                dc += scale * G * a
                slope = scale * old * G
                k[i] -= learning_rate * (k[i] * slope if separate else slope)
        if step == 0:
            limit = LOSS_LIMIT * loss
        if not loss <= limit:
            if recording:
                diagonal[recorded, :] = np.nan
            if framing:
                frames[framed, :, :] = np.nan
            return DIVERGED, step, old
        if recording:
            records[0, recorded] = loss
            records[1, recorded] = 0.0
            records[2, recorded] = trace / d
            records[3, recorded] = 0.0
            records[4, recorded] = 0.0
            recorded += 1
            framed += framing
        if step < steps:
            c -= learning_rate * dc
    return DONE, steps, c
