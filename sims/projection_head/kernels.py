"""Gradient descent on a deep linear encoder, in full or feature by feature, and SGD on sampled views.

The loss is -2 tr(E P E^T) + tr((E Q E^T)^2) + decay/2 sum_l |W_l|^2, E = W_L ... W_1, with diagonal P and Q. Matrices
are stored side by side in W (L, m, m), m the largest width, zero beyond their own size; what is zero there stays so.

Layers that share their singular vectors, W_l = U_l diag(a_l) U_{l-1}^T, U_0 = 1, keep them under this loss: then each
feature moves alone, and `descend_gains` is `descend` on a number for each layer and feature instead of matrices.

A step that raises the objective by more than a tenth is taken in halves; after a hundred good parts they are doubled
again. `state` (3,) holds the number of halvings, good parts since the last change, and parts taken in all.
"""

import math

import numpy as np
from numba import njit

from ..graphs.kernels import batch_gradients

STATUS = {"done": 0, "cancelled": 1, "diverged": 2}
MOST_HALVINGS = 10
PATIENCE = 100  # good parts before the parts are doubled
RISE = 0.1  # of the objective that a part may bring, relative

DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]


@njit(nogil=True, cache=True, error_model="numpy")
def accepted(before, after, state):
    """Whether a part is kept; `state` follows."""
    if after <= before + RISE * abs(before) + 1e-12:
        state[1] += 1
        state[2] += 1
        if state[1] >= PATIENCE and state[0] > 0:
            state[0] -= 1
            state[1] = 0
        return True
    state[0] += 1
    state[1] = 0
    return False


@njit(nogil=True, cache=True, error_model="numpy")
def gain_objective(p, q, counts, decay, a):
    """The objective of gains a (L, kinds), counts (kinds,) features of each kind."""
    total = 0.0
    for j in range(p.size):
        e, own = 1.0, 0.0
        for layer in range(a.shape[0]):
            e *= a[layer, j]
            own += 0.5 * decay * a[layer, j] ** 2
        total += counts[j] * (own + (q[j] * e * e) ** 2 - 2.0 * p[j] * e * e)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def descend_gains(p, q, counts, decay, rate, a, halves, reached, state, first, last, cancel, progress):
    """Take the steps first, ..., last - 1 on gains a (L, kinds), in place; return (status, step it ended at).

    Features of one kind start alike and stay alike. reached (kinds,), NaN at the start: time at which the squared
    output gain first passed halves (kinds,), in place.
    """
    L, d = a.shape
    whole = 1 << MOST_HALVINGS
    trial = np.empty((L, d))
    now = gain_objective(p, q, counts, decay, a)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        left = whole
        while left > 0:
            if state[0] > MOST_HALVINGS:
                return DIVERGED, step + 1
            part = min(whole >> state[0], left)
            move = rate * part / whole
            for j in range(d):
                e = 1.0
                for layer in range(L):
                    e *= a[layer, j]
                pull = 4.0 * (p[j] * e - q[j] * q[j] * e * e * e)
                for layer in range(L):
                    others = 1.0
                    for other in range(L):
                        if other != layer:
                            others *= a[other, j]
                    trial[layer, j] = a[layer, j] + move * (pull * others - decay * a[layer, j])
            after = gain_objective(p, q, counts, decay, trial)
            if accepted(now, after, state):
                for j in range(d):
                    old, new = 1.0, 1.0
                    for layer in range(L):
                        old *= a[layer, j]
                        new *= trial[layer, j]
                        a[layer, j] = trial[layer, j]
                    crossed(j, old * old, new * new, step + 1.0 - left / whole, part / whole, rate, halves, reached)
                now = after
                left -= part
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def crossed(j, old, new, begun, part, rate, halves, reached):
    """Note when feature j passes its level, between the ends of a part that begun at a step and lasted `part`."""
    if math.isnan(reached[j]) and old < halves[j] <= new:
        reached[j] = rate * (begun + part * (halves[j] - old) / (new - old))


@njit(nogil=True, cache=True, error_model="numpy")
def product(W, prefix):
    """prefix (L + 1, m, d): the products W_l ... W_1, the first of them 1, out."""
    prefix[0, :, :] = 0.0
    for j in range(prefix.shape[2]):
        prefix[0, j, j] = 1.0
    for layer in range(W.shape[0]):
        prefix[layer + 1] = np.dot(W[layer], prefix[layer])


@njit(nogil=True, cache=True, error_model="numpy")
def objective(p, q, decay, W, prefix):
    """The objective; prefix as `product` leaves it, out."""
    product(W, prefix)
    E = prefix[W.shape[0]]
    G = np.dot(E * q, E.T)
    total = 0.0
    for i in range(E.shape[0]):
        for j in range(E.shape[1]):
            total -= 2.0 * p[j] * E[i, j] * E[i, j]
        for j in range(E.shape[0]):
            total += G[i, j] * G[i, j]
    if decay > 0.0:
        total += 0.5 * decay * np.sum(W * W)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def back(W, prefix, slope, decay, gradient):
    """gradient (L, m, m) of the layers from that of E (m, d), out."""
    L = W.shape[0]
    passed = slope
    for layer in range(L - 1, -1, -1):
        pad = np.dot(passed, prefix[layer].T)
        gradient[layer] = pad + decay * W[layer]
        passed = np.dot(W[layer].T, passed)


@njit(nogil=True, cache=True, error_model="numpy")
def descend(p, q, decay, rate, W, halves, reached, state, first, last, cancel, progress):
    """The same as `descend_gains` on matrices W (L, m, m), in place."""
    L, m, d = W.shape[0], W.shape[1], p.size
    whole = 1 << MOST_HALVINGS
    prefix, there = np.empty((L + 1, m, d)), np.empty((L + 1, m, d))
    gradient = np.empty(W.shape)
    now = objective(p, q, decay, W, prefix)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        left = whole
        while left > 0:
            E = prefix[L]
            EQ = E * q
            back(W, prefix, 4.0 * (np.dot(np.dot(EQ, E.T), EQ) - E * p), decay, gradient)
            while True:
                if state[0] > MOST_HALVINGS:
                    return DIVERGED, step + 1
                part = min(whole >> state[0], left)
                trial = W - rate * part / whole * gradient
                after = objective(p, q, decay, trial, there)
                if accepted(now, after, state):
                    break
            for j in range(d):
                old, new = 0.0, 0.0
                for i in range(m):
                    old += prefix[L, i, j] ** 2
                    new += there[L, i, j] ** 2
                crossed(j, old, new, step + 1.0 - left / whole, part / whole, rate, halves, reached)
            W[:] = trial
            prefix, there = there, prefix
            now = after
            left -= part
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def sgd(
    phi, nu, decay, learning_rate, total, batch, outputs, W, first, last, sign_rng, first_rng, second_rng, cancel,
    progress,
):  # fmt: skip
    """Take the SGD steps first, ..., last - 1 of a run of `total` on W; return (status, step it ended at).

    Each step has `batch` fresh pairs of views phi e + nu N(0, 1); the rate falls linearly from learning_rate to 0.
    """
    L, m, d = W.shape[0], W.shape[1], phi.size
    prefix, gradient = np.empty((L + 1, m, d)), np.empty(W.shape)
    v1, v2 = np.empty((batch, d)), np.empty((batch, d))
    g1, g2 = np.empty((batch, outputs)), np.empty((batch, outputs))
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        for i in range(batch):
            for j in range(d):
                clean = phi[j] if sign_rng.random() < 0.5 else -phi[j]
                v1[i, j] = clean + nu[j] * first_rng.standard_normal()
                v2[i, j] = clean + nu[j] * second_rng.standard_normal()
        product(W, prefix)
        E = prefix[L][:outputs]
        batch_gradients(np.dot(v1, E.T), np.dot(v2, E.T), g1, g2)
        slope = np.zeros((m, d))
        slope[:outputs] = np.dot(g1.T, v1) + np.dot(g2.T, v2)
        back(W, prefix, slope, decay, gradient)
        W -= learning_rate * (1.0 - step / total) * gradient
        if not np.sum(W * W) < 1e12:
            return DIVERGED, step + 1
    progress[0] = last
    return DONE, last
