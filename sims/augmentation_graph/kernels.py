"""Two ways to train an embedding of the nodes of a graph by the spectral contrastive loss; a third is shared.

A step of each is resumable: it goes from step `first` to step `last` on arrays that it overwrites, so that whatever is
measured in between is measured outside. The embedding table f (N, k) and F = sqrt(w) f are two scalings of one thing:

    gradient flow   dF/dt = 4 (Abar F - F F^T F),    a step of size eta advances t by eta/N,
    SGD             see `graphs.descent`,            whose mean is the same flow,
    a ReLU network  f = net(inputs), Adam on dL_B.

Source: HaoChen, Wei, Gaidon, Ma, NeurIPS 2021; L_B as in the code published with it.
"""

import math

import numpy as np
from numba import njit

from ..graphs import network as net
from ..graphs.descent import CANCELLED, DIVERGED, DONE, LIMIT, batch_step
from ..graphs.kernels import draw_pairs, flow

OPERATORS = {"factor": 0, "modes": 1}
INTEGRATORS = {"rk4": 0, "euler": 1}

RK4 = INTEGRATORS["rk4"]


@njit(nogil=True, cache=True, error_model="numpy")
def gradient_flow(
    integrator, kind, indptr, indices, data, sizes, mats, root_w, dt, F, first, last, cancel, progress
):  # fmt: skip
    """Integrate F (N, k) from step first to last; return (status, step it ended at).

    The operator is described as in `graphs.kernels.flow`; root_w (N,) = sqrt(w), by which f = F/root_w is told to have
    diverged. A step of rk4 applies the operator four times, of euler once.
    """
    N, k = F.shape
    s1, s2, s3, s4 = np.empty((N, k)), np.empty((N, k)), np.empty((N, k)), np.empty((N, k))
    moved = np.empty((N, k))
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        flow(kind, indptr, indices, data, sizes, mats, F, s1)
        if integrator == RK4:
            for x in range(N):
                for c in range(k):
                    moved[x, c] = F[x, c] + 0.5 * dt * s1[x, c]
            flow(kind, indptr, indices, data, sizes, mats, moved, s2)
            for x in range(N):
                for c in range(k):
                    moved[x, c] = F[x, c] + 0.5 * dt * s2[x, c]
            flow(kind, indptr, indices, data, sizes, mats, moved, s3)
            for x in range(N):
                for c in range(k):
                    moved[x, c] = F[x, c] + dt * s3[x, c]
            flow(kind, indptr, indices, data, sizes, mats, moved, s4)
        within_limit = True
        for x in range(N):
            for c in range(k):
                if integrator == RK4:
                    F[x, c] += dt / 6.0 * (s1[x, c] + 2.0 * s2[x, c] + 2.0 * s3[x, c] + s4[x, c])
                else:
                    F[x, c] += dt * s1[x, c]
                within_limit = within_limit and abs(F[x, c]) <= LIMIT * root_w[x]
        if not within_limit:
            return DIVERGED, step + 1
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def adam_network(
    nat_cumulative, nat_guide, indptr, indices, view_cumulative, view_guide, inputs, layers, theta, mean, square,
    learning_rate, total, batch, clip_norm, first, last, nat_rng, first_rng, second_rng, cancel, progress,
):  # fmt: skip
    """Take the Adam steps first, ..., last - 1 of a run of `total` on a network; return (status, step it ended at).

    inputs (N, p) of the nodes; layers: widths from p to k; theta: the parameters, see `graphs.network`; mean, square:
    Adam's moments. The rate falls from learning_rate to 0 along half a cosine. Only the nodes that the batch holds
    go through the network, once each, however often they occur: an exact identity, cheaper where nodes are few.
    """
    N, k = inputs.shape[0], layers[layers.size - 1]
    x1, x2 = np.empty(batch, np.int64), np.empty(batch, np.int64)
    z1, z2 = np.empty((batch, k)), np.empty((batch, k))
    g1, g2 = np.empty((batch, k)), np.empty((batch, k))
    c1, c2 = np.empty(batch), np.empty(batch)
    place, held = np.full(N, -1), np.empty(min(N, 2 * batch), np.int64)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        draw_pairs(
            nat_cumulative, nat_guide, indptr, indices, view_cumulative, view_guide, nat_rng, first_rng, second_rng,
            x1, x2,
        )  # fmt: skip
        count = occurring(x1, x2, place, held)
        rows = np.empty((count, inputs.shape[1]))
        for i in range(count):
            rows[i] = inputs[held[i]]
        hidden, outputs = net.forward(layers, theta, rows)
        for i in range(batch):
            for c in range(k):
                z1[i, c] = outputs[place[x1[i]], c]
                z2[i, c] = outputs[place[x2[i]], c]
        batch_step(z1, z2, clip_norm, c1, c2, g1, g2)
        slope = np.zeros((count, k))
        for i in range(batch):
            for c in range(k):
                slope[place[x1[i]], c] += g1[i, c]
                slope[place[x2[i]], c] += g2[i, c]
        for i in range(count):
            place[held[i]] = -1
        gradient = net.backward(layers, theta, rows, hidden, slope)
        rate = 0.5 * learning_rate * (1.0 + math.cos(math.pi * step / total))
        net.adam(theta, gradient, mean, square, rate, step + 1)
        for i in range(count):
            for c in range(k):
                if not abs(outputs[i, c]) <= LIMIT:
                    return DIVERGED, step + 1
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def occurring(x1, x2, place, held):
    """Number the nodes of a batch in the order in which they first occur; return how many there are.

    place (N,) is -1 everywhere on entry, on return the number of each node that occurs; held: the nodes, out.
    """
    count = 0
    for i in range(x1.size):
        for x in (x1[i], x2[i]):
            if place[x] < 0:
                place[x] = count
                held[count] = x
                count += 1
    return count
