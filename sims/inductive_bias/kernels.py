"""Training of encoders on views of sign vectors by the spectral contrastive loss.

Parameters are one vector theta, whatever the encoder: for a class f = Theta phi(x) the matrix Theta (k, p) row by row,
for a table F (2^d, k) with f = 2^(d/2) F[pattern], for a network its layers as in `graphs.network`. A step goes from
`first` to `last` on arrays that it overwrites, so that whatever is measured in between is measured outside.

Source of the loss and of its batch form: HaoChen, Wei, Gaidon, Ma, NeurIPS 2021.
"""

import math

import numpy as np
from numba import njit

from ..graphs import network as net
from ..graphs.kernels import batch_gradients, flow

STATUS = {"done": 0, "cancelled": 1, "diverged": 2}
AUGMENTATIONS = {"rescale": 0, "flip": 1}
ENCODERS = {"characters": 0, "relu": 1, "table": 2, "mlp": 3}
OPTIMISERS = {"sgd": 0, "adam": 1}
LIMIT = 1e4  # of an output: beyond it training has diverged

DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]
RESCALE = AUGMENTATIONS["rescale"]
CHARACTERS = ENCODERS["characters"]
RELU = ENCODERS["relu"]
TABLE = ENCODERS["table"]
ADAM = OPTIMISERS["adam"]


@njit(nogil=True, cache=True, error_model="numpy")
def draw_views(augmentation, content, low, high, flips, bits_rng, first_rng, second_rng, bits, first, second):
    """Fill bits (B, d) with uniform signs, and first and second (B, d) with two views of each row.

    rescale: the bits from `content` on times one tau, uniform on low..high and new for each view; flip: bit i changes
    its sign with probability flips[i]. Each kind of draw has its own generator.
    """
    B, d = bits.shape
    for i in range(B):
        for j in range(d):
            bits[i, j] = 1.0 if bits_rng.random() < 0.5 else -1.0
        if augmentation == RESCALE:
            one = low + (high - low) * first_rng.random()
            two = low + (high - low) * second_rng.random()
            for j in range(d):
                first[i, j] = bits[i, j] * (one if j >= content else 1.0)
                second[i, j] = bits[i, j] * (two if j >= content else 1.0)
        else:
            for j in range(d):
                first[i, j] = -bits[i, j] if first_rng.random() < flips[j] else bits[i, j]
                second[i, j] = -bits[i, j] if second_rng.random() < flips[j] else bits[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def features(encoder, members, weight, bias, x, phi):
    """phi (B, p) of views x (B, d): products of the bits in members (p, D), -1 for none; or relu(x weight + bias)."""
    B, p = phi.shape
    if encoder == CHARACTERS:
        for i in range(B):
            for m in range(p):
                product = 1.0
                for c in range(members.shape[1]):
                    if members[m, c] >= 0:
                        product *= x[i, members[m, c]]
                phi[i, m] = product
    else:
        np.dot(x, weight, phi)
        for i in range(B):
            for m in range(p):
                phi[i, m] = max(phi[i, m] + bias[m], 0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def pattern(x):
    """Number of the sign pattern of a view x (d,), the first bit the highest, 0 for +1; a 0 counts as +1."""
    found = 0
    for j in range(x.size):
        found = 2 * found + (1 if x[j] < 0.0 else 0)
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def train(
    augmentation, content, low, high, flips, encoder, members, weight, bias, layers, k, optimiser, learning_rate, total,
    batch, theta, mean, square, first, last, bits_rng, first_rng, second_rng, cancel, progress,
):  # fmt: skip
    """Take the steps first, ..., last - 1 of a run of `total`; return (status, step it ended at).

    sgd: the rate falls linearly from learning_rate to 0; adam: along half a cosine; mean, square: Adam's moments.
    """
    d = flips.size
    bits, x = np.empty((batch, d)), np.empty((2 * batch, d))
    x1, x2 = x[:batch], x[batch:]
    z1, z2 = np.empty((batch, k)), np.empty((batch, k))
    g = np.empty((2 * batch, k))
    g1, g2 = g[:batch], g[batch:]
    p = theta.size // k if encoder in (CHARACTERS, RELU) else 1
    phi = np.empty((2 * batch, p))
    height = 2.0 ** (0.5 * d)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        draw_views(augmentation, content, low, high, flips, bits_rng, first_rng, second_rng, bits, x1, x2)
        if encoder == TABLE:
            table = theta.reshape((theta.size // k, k))
            for i in range(batch):
                a, b = pattern(x1[i]), pattern(x2[i])
                for c in range(k):
                    z1[i, c] = height * table[a, c]
                    z2[i, c] = height * table[b, c]
            batch_gradients(z1, z2, g1, g2)
            gradient = np.zeros(theta.size)
            for i in range(2 * batch):
                at = k * pattern(x[i])
                for c in range(k):
                    gradient[at + c] += height * g[i, c]
        elif encoder in (CHARACTERS, RELU):
            features(encoder, members, weight, bias, x, phi)
            z = np.dot(phi, theta.reshape((k, p)).T)
            z1[:, :] = z[:batch]
            z2[:, :] = z[batch:]
            batch_gradients(z1, z2, g1, g2)
            gradient = np.dot(g.T, phi).reshape(theta.size)
        else:
            hidden, z = net.forward(layers, theta, x)
            z1[:, :] = z[:batch]
            z2[:, :] = z[batch:]
            batch_gradients(z1, z2, g1, g2)
            gradient = net.backward(layers, theta, x, hidden, g)
        if optimiser == ADAM:
            rate = 0.5 * learning_rate * (1.0 + math.cos(math.pi * step / total))
            net.adam(theta, gradient, mean, square, rate, step + 1)
        else:
            rate = learning_rate * (1.0 - step / total)
            for i in range(theta.size):
                theta[i] -= rate * gradient[i]
        for i in range(batch):
            for c in range(k):
                if not (abs(z1[i, c]) <= LIMIT and abs(z2[i, c]) <= LIMIT):
                    return DIVERGED, step + 1
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def descend(C, C_plus, learning_rate, theta, first, last, cancel, progress):
    """Noiseless descent Theta += 4 rate (Theta C_plus - Theta C Theta^T Theta C); theta (k, p), as `train`."""
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        seen = np.dot(theta, C)
        slope = np.dot(theta, C_plus) - np.dot(np.dot(seen, theta.T), seen)
        for a in range(theta.shape[0]):
            for m in range(theta.shape[1]):
                theta[a, m] += 4.0 * learning_rate * slope[a, m]
                if not abs(theta[a, m]) <= LIMIT:
                    return DIVERGED, step + 1
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def descend_table(sizes, mats, learning_rate, F, first, last, cancel, progress):
    """The same for a table F (N, k), whose C is 1 and whose C_plus is the Kronecker product of `mats`."""
    nothing, none = np.zeros(1, np.int32), np.zeros(0)
    slope = np.empty(F.shape)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        flow(1, nothing, nothing, none, sizes, mats, F, slope)
        for x in range(F.shape[0]):
            for c in range(F.shape[1]):
                F[x, c] += learning_rate * slope[x, c]
                if not abs(F[x, c]) <= LIMIT:
                    return DIVERGED, step + 1
    progress[0] = last
    return DONE, last
