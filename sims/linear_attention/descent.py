"""`kernels.descend` for a whole layer in many dimensions, eight numbers at a time and bit for bit the same.

The gradient has sums over both indices of A: p, r and the gradient in b add up its rows j, the gradient in u and what
comes with it add up its columns i. A sum in a fixed order is no faster for eight at a time, but eight of them side by
side are: the first kind runs along the rows of A, the second along those of its transpose. That is trained beside A by
the same operations on the same numbers, which costs less than to transpose A at each step. Two sums over all of A, the
loss and the gradient in c, remain one number at a time.

Vectors are padded with zeros to whole `Lanes`, and so are the rows of both matrices.
"""

import numpy as np
from numba import njit

from ..engine.simd import WIDTH, aligned, load, spread, store
from .kernels import CANCELLED, DIVERGED, DONE, FULL, LOSS_LIMIT, blank, record, unpack


@njit(nogil=True, cache=True, error_model="numpy")
def pack(u, c, A, b, h, theta):
    """theta (d*d + 3d + 1,) = [u, c, A, b, h] without the padding of the vectors and of the rows of A."""
    d, wide = A.size // u.size, u.size
    b_at = d + 1 + d * d
    theta[d] = c
    for i in range(d):
        theta[i], theta[b_at + i], theta[b_at + d + i] = u[i], b[i], h[i]
        for j in range(d):
            theta[d + 1 + i * d + j] = A[i * wide + j]


@njit(nogil=True, cache=True, error_model="numpy")
def descend_full(
    skip, lam, t, n, s2, scale, theta, learning_rate, steps, record_at, frame_at, diagonal, frames,
    cancel, progress, records,
):  # fmt: skip
    """`kernels.descend` of the chart `full`, whose arguments and results these are. Returns (status, last step)."""
    d = lam.size
    wide, b_at = -(-d // WIDTH) * WIDTH, d + 1 + d * d
    zero, half, rate, factor = spread(0.0), spread(0.5), spread(learning_rate), spread(scale)
    variance, R, twice, C = aligned(wide), aligned(wide), aligned(wide), aligned(wide)
    u, b, h, trained_b = aligned(wide), aligned(wide), aligned(wide), aligned(wide)
    Cu, su = aligned(wide), aligned(wide)
    du, db, p, r, w, squares, total = (
        aligned(wide), aligned(wide), aligned(wide), aligned(wide), aligned(wide), aligned(wide), aligned(wide),
    )  # fmt: skip
    lp, su2, cu2, own = aligned(wide), aligned(wide), aligned(wide), aligned(wide)
    # Of one row: what each entry adds to the loss, and to the gradient in c.
    lost, felt = aligned(wide), aligned(wide)
    A, G, target = aligned(d * wide), aligned(d * wide), aligned(d * wide)
    A_turned, G_turned = aligned(d * wide), aligned(d * wide)
    blocks, Q = np.empty(theta.size), np.empty((d, d))
    v1, trace_sq = s2, 0.0
    for i in range(d):
        v1 += t[i] * lam[i]
        trace_sq += (t[i] * lam[i]) ** 2
    kurtosis = n * (n + 2.0) * (v1 * v1 + 2.0 * trace_sq)
    for i in range(d):
        variance[i], twice[i] = lam[i], 2.0 * n * lam[i]
        R[i] = (n + 1.0) * lam[i] * lam[i] * t[i] + v1 * lam[i]
        C[i] = n * n * v1 * lam[i] + 2.0 * n * lam[i] * lam[i] * t[i]
        target[i * wide + i] = 2.0 * n * lam[i] * lam[i] * t[i]
        u[i], trained_b[i], h[i] = theta[i], theta[b_at + i], theta[b_at + d + i]
        for j in range(d):
            A[i * wide + j] = A_turned[j * wide + i] = theta[d + 1 + i * d + j]
    c = theta[d]
    recorded, framed, limit, status, last = 0, 0, np.inf, DONE, steps
    blank(records, diagonal, frames)

    for k in range(steps + 1):
        progress[0] = k
        if cancel[0] != 0:
            status, last = CANCELLED, k
            break
        for i in range(0, wide, WIDTH):
            for sums in (du, db, p, r, w, squares, total):
                store(sums, i, zero)
            store(b, i, load(trained_b, i) * factor)
            store(su, i, load(variance, i) * load(u, i))
            store(Cu, i, load(C, i) * load(u, i))
        size_u, bSb, trace_H, bACu = 0.0, 0.0, 0.0, 0.0
        for i in range(d):
            size_u += su[i] * u[i]
            bSb += lam[i] * b[i] * b[i]

        # The odd part, and the products with A that the even one needs.
        odd, dc, gain = v1, 0.0, spread(c)
        for j in range(d):
            at = j * wide
            uj, Rj, suj, cuj = spread(u[j]), spread(R[j]), spread(su[j]), spread(Cu[j])
            for i in range(0, wide, WIDTH):
                a = load(A, at + i) * factor
                q = gain * a + load(b, i) * uj
                g = load(twice, i) * Rj * q
                store(lost, i, half * g * q)
                g = g - load(target, at + i)
                store(felt, i, g * a)
                store(G, at + i, gain * g)
                store(db, i, load(db, i) + g * uj)
                store(p, i, load(p, i) + a * suj)
                store(r, i, load(r, i) + a * cuj)
            for i in range(d):
                odd += lost[i]
                dc += felt[i]
                if i == j:
                    odd -= target[at + j] * (c * (A[at + j] * scale) + b[j] * u[j])
        for i in range(d):
            at = i * wide
            bi, variance_i, twice_i = spread(b[i]), spread(lam[i]), spread(twice[i])
            for j in range(0, wide, WIDTH):
                a = load(A_turned, at + j) * factor
                g = twice_i * load(R, j) * (gain * a + bi * load(u, j)) - load(target, at + j)
                store(G_turned, at + j, gain * g)
                store(du, j, load(du, j) + g * bi)
                store(w, j, load(w, j) + a * variance_i * bi)
                store(squares, j, load(squares, j) + a * a * variance_i)

        for j in range(d):
            trace_H += lam[j] * squares[j]
            bACu += w[j] * Cu[j]
        even = n * trace_H * size_u + 2.0 * c * bACu
        even += c * c * kurtosis * bSb
        dc += 2.0 * bACu + 2.0 * c * kurtosis * bSb
        for i in range(d):
            lp[i] = lam[i] * ((n + 1.0) * p[i] + h[i])
            even += lam[i] * (n * (n + 1.0) * p[i] * p[i] + h[i] * h[i])
            even += 2.0 * n * lam[i] * h[i] * (p[i] + c * v1 * b[i])
            db[i] += 2.0 * c * lam[i] * (r[i] + c * kurtosis * b[i] + n * v1 * h[i])
            dc += 2.0 * n * v1 * lam[i] * h[i] * b[i]
        if k == 0:
            limit = LOSS_LIMIT * (odd + even)
        if not odd + even <= limit:
            status, last = DIVERGED, k
            break
        if recorded < record_at.size and record_at[recorded] == k:
            frame = framed < frame_at.size and frame_at[framed] == k
            pack(u, c, A, trained_b, h, theta)
            unpack(FULL, theta, scale, blocks)
            record(blocks, Q, (odd, even), recorded, framed if frame else -1, records, diagonal, frames)
            recorded += 1
            framed += frame
        if k == steps:
            break

        for j in range(d):
            su2[j], cu2[j], own[j] = 2.0 * n * lam[j] * u[j], 2.0 * c * Cu[j], 2.0 * n * size_u * lam[j]
        for j in range(d):
            at = j * wide
            suj, cuj, both = spread(su2[j]), spread(cu2[j]), spread(own[j])
            for i in range(0, wide, WIDTH):
                a = load(A, at + i)
                more = suj * load(lp, i) + (both * (a * factor) + cuj * load(b, i)) * load(variance, i)
                store(A, at + i, a - rate * ((load(G, at + i) + more) * factor))
        for i in range(d):
            at = i * wide
            bi, variance_i, lpi = spread(b[i]), spread(lam[i]), spread(lp[i])
            for j in range(0, wide, WIDTH):
                a = load(A_turned, at + j)
                more = load(su2, j) * lpi + (load(own, j) * (a * factor) + load(cu2, j) * bi) * variance_i
                store(total, j, load(total, j) + a * factor * lpi)
                store(A_turned, at + j, a - rate * ((load(G_turned, at + j) + more) * factor))
        for j in range(d):
            if skip:
                h[j] -= learning_rate * (2.0 * lam[j] * (h[j] + n * p[j] + c * n * v1 * b[j]))
            du[j] += 2.0 * n * lam[j] * (total[j] + trace_H * u[j])
            du[j] += 2.0 * c * C[j] * w[j]
            u[j] -= learning_rate * du[j]
            trained_b[j] -= learning_rate * (db[j] * scale)
        c -= learning_rate * dc

    pack(u, c, A, trained_b, h, theta)
    return status, last
