"""The softmax contrastive loss at a temperature: a share of class, a table on the sphere, uniform negatives.

    L_i = -sum_j T_ij s_ij/tau + log sum_k exp(s_ik/tau)

with similarities s of unit features, T the chance that j is the positive of i, and P_ij = softmax_j(s_ij/tau). Source:
Wang, Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021.
"""

import math

import numpy as np
from numba import njit

STATUS = {"done": 0, "cancelled": 1}
DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]


@njit(nogil=True, cache=True, error_model="numpy")
def softmax(S, tau, own, P):
    """P (N, N) = softmax of the rows of S/tau, out, its diagonal left out unless `own`; return mean log sum exp."""
    N = S.shape[0]
    total = 0.0
    for i in range(N):
        top = -np.inf
        for k in range(N):
            if own or k != i:
                top = max(top, S[i, k])
        mass = 0.0
        for k in range(N):
            P[i, k] = math.exp((S[i, k] - top) / tau) if own or k != i else 0.0
            mass += P[i, k]
        for k in range(N):
            P[i, k] /= mass
        total += top / tau + math.log(mass)
    return total / N


@njit(nogil=True, cache=True, error_model="numpy")
def similarities(theta, uu, uv, vu, vv, f_cross, g_cross, g_own, S, slope):
    """S (N, N), s_ij of f_i = sin u_i + cos v_i and g_j = sin u_j + cos v'_j, normalised, and dS/dtheta, out.

    uu, uv, vu, vv (N, N) are u_i.u_j, u_i.v'_j, v_i.u_j, v_i.v'_j; f_cross, g_cross (N,) u_i.v_i and u_j.v'_j;
    g_own (N,) |v'_j|^2. The share of class is sin(theta)^2.
    """
    N = S.shape[0]
    s, c = math.sin(theta), math.cos(theta)
    for i in range(N):
        f = 1.0 + 2.0 * s * c * f_cross[i]
        f_slope = (c * c - s * s) * f_cross[i] / f
        for j in range(N):
            g = s * s + 2.0 * s * c * g_cross[j] + c * c * g_own[j]
            g_slope = (s * c * (1.0 - g_own[j]) + (c * c - s * s) * g_cross[j]) / g
            size = math.sqrt(f * g)
            mixed = uv[i, j] + vu[i, j]
            S[i, j] = (s * s * uu[i, j] + s * c * mixed + c * c * vv[i, j]) / size
            turned = 2.0 * s * c * (uu[i, j] - vv[i, j]) + (c * c - s * s) * mixed
            slope[i, j] = turned / size - S[i, j] * (f_slope + g_slope)


@njit(nogil=True, cache=True, error_model="numpy")
def share_loss(theta, tau, uu, uv, vu, vv, f_cross, g_cross, g_own, S, slope, P):
    """The mean loss at theta and its derivative; S, slope, P (N, N) are left as `similarities` and `softmax` do."""
    N = S.shape[0]
    similarities(theta, uu, uv, vu, vv, f_cross, g_cross, g_own, S, slope)
    loss, turn = softmax(S, tau, True, P), 0.0
    for i in range(N):
        loss -= S[i, i] / (tau * N)
        turn -= slope[i, i]
        for j in range(N):
            turn += P[i, j] * slope[i, j]
    return loss, turn / (tau * N)


@njit(nogil=True, cache=True, error_model="numpy")
def narrow(bracket, tau, uu, uv, vu, vv, f_cross, g_cross, g_own, first, last, cancel, progress):
    """Halve the bracket (2,) of the minimising theta at each step, by the sign of the derivative, in place.

    A bracket that a step leaves as it was, of two neighbouring numbers at the latest, is left so by every later one.
    """
    N = uu.shape[0]
    S, slope, P = np.empty((N, N)), np.empty((N, N)), np.empty((N, N))
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        middle = 0.5 * (bracket[0] + bracket[1])
        _, turn = share_loss(middle, tau, uu, uv, vu, vv, f_cross, g_cross, g_own, S, slope, P)
        end = 0 if turn < 0.0 else 1
        if bracket[end] == middle:
            break
        bracket[end] = middle
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def table_step(f, T, tau, rate, own, S, P):
    """One step on the sphere of the table f (N, D), in place: against the gradient of the summed loss, times rate tau.

    Both views are rows of the one table, so that both arguments of every similarity move. Returns the mean loss before.
    """
    N, D = f.shape
    np.dot(f, f.T, S)
    loss = softmax(S, tau, own, P)
    for i in range(N):
        for j in range(N):
            loss -= T[i, j] * S[i, j] / (tau * N)
    for i in range(N):
        for j in range(N):
            P[i, j] -= T[i, j]
    g = np.dot(P, f) + np.dot(P.T, f)
    for i in range(N):
        along, size = 0.0, 0.0
        for c in range(D):
            along += g[i, c] * f[i, c]
        for c in range(D):
            f[i, c] -= rate * (g[i, c] - along * f[i, c])
            size += f[i, c] * f[i, c]
        size = math.sqrt(size)
        for c in range(D):
            f[i, c] /= size
    return loss


@njit(nogil=True, cache=True, error_model="numpy")
def train_table(f, T, start, end, total, rate, own, first, last, cancel, progress):
    """Take the steps first, ..., last - 1 of a run of `total`; the temperature goes from start to end by one factor."""
    N = f.shape[0]
    S, P = np.empty((N, N)), np.empty((N, N))
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        table_step(f, T, start * (end / start) ** (step / total), rate, own, S, P)
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def draw_negatives(dim, tau, count, sums, bins, first, last, normal_rng, chi_rng, cancel, progress):
    """Draw `count` uniform negatives on the sphere at each step; add exp((s-1)/tau) and s times that to sums (3,).

    The similarity s to a fixed point is z/sqrt(z^2 + chi), z normal, chi a chi-square of d - 1 degrees. bins (n,)
    collects the weights by angle, in even bins from 0 to pi; sums[2] counts.
    """
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        for _ in range(count):
            z = normal_rng.standard_normal()
            s = z / math.sqrt(z * z + chi_rng.chisquare(dim - 1.0))
            weight = math.exp((s - 1.0) / tau)
            sums[0] += weight
            sums[1] += weight * s
            sums[2] += 1.0
            place = int(math.acos(min(1.0, max(-1.0, s))) / math.pi * bins.size)
            bins[min(place, bins.size - 1)] += weight
    progress[0] = last
    return DONE, last
