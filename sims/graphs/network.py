"""A small ReLU network, its gradient by hand, and Adam.

The parameters are one vector: for each layer its weight (outputs x inputs, row by row), then its bias. Layers between
first and last are followed by a ReLU, whose slope at 0 is 0.
"""

import math
from itertools import pairwise

import numpy as np
from numba import njit

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants


def size(layers):
    """How many parameters a network of these widths, from inputs to outputs, has."""
    return sum(outputs * (inputs + 1) for inputs, outputs in pairwise(layers))


def start(layers, rng):
    """Every weight and bias of a layer uniform on +-1/sqrt(its inputs), drawn in order: a common default start."""
    parts = []
    for inputs, outputs in pairwise(layers):
        bound = 1.0 / math.sqrt(inputs)
        parts.append(rng.uniform(-bound, bound, outputs * inputs))
        parts.append(rng.uniform(-bound, bound, outputs))
    return np.concatenate(parts)


@njit(nogil=True, cache=True, error_model="numpy")
def forward(layers, theta, inputs):
    """(hidden, outputs): activations of the hidden layers side by side (rows, sum of widths), and outputs (rows, k)."""
    rows = inputs.shape[0]
    total = 0
    for layer in range(1, layers.size - 1):
        total += layers[layer]
    hidden = np.empty((rows, total))
    current = inputs
    offset, column = 0, 0
    for layer in range(layers.size - 1):
        fan_in, fan_out = layers[layer], layers[layer + 1]
        weight = theta[offset : offset + fan_in * fan_out].reshape((fan_out, fan_in))
        bias = theta[offset + fan_in * fan_out : offset + (fan_in + 1) * fan_out]
        offset += (fan_in + 1) * fan_out
        made = np.dot(current, weight.T)
        last = layer == layers.size - 2
        for i in range(rows):
            for j in range(fan_out):
                value = made[i, j] + bias[j]
                made[i, j] = value if last or value > 0.0 else 0.0
        if not last:
            hidden[:, column : column + fan_out] = made
            column += fan_out
        current = made
    return hidden, current


@njit(nogil=True, cache=True, error_model="numpy")
def backward(layers, theta, inputs, hidden, slope):
    """Gradient (size,) of a loss whose gradient at the outputs is `slope` (rows, k)."""
    gradient = np.empty(theta.size)
    rows = inputs.shape[0]
    offset, column = theta.size, hidden.shape[1]
    passed = slope
    for layer in range(layers.size - 2, -1, -1):
        fan_in, fan_out = layers[layer], layers[layer + 1]
        offset -= (fan_in + 1) * fan_out
        if layer > 0:
            column -= fan_in
            below = hidden[:, column : column + fan_in].copy()
        else:
            below = inputs
        weight = theta[offset : offset + fan_in * fan_out].reshape((fan_out, fan_in))
        gradient[offset : offset + fan_in * fan_out] = np.dot(passed.T, below).reshape(fan_in * fan_out)
        bias = gradient[offset + fan_in * fan_out : offset + (fan_in + 1) * fan_out]
        for j in range(fan_out):
            bias[j] = 0.0
        for i in range(rows):
            for j in range(fan_out):
                bias[j] += passed[i, j]
        if layer > 0:
            pulled = np.dot(passed, weight)
            for i in range(rows):
                for j in range(fan_in):
                    if below[i, j] <= 0.0:
                        pulled[i, j] = 0.0
            passed = pulled
    return gradient


@njit(nogil=True, cache=True, error_model="numpy")
def adam(theta, gradient, mean, square, rate, step):
    """One Adam step, number `step` from 1, on theta, in place; mean, square: the running moments, in place."""
    mean_scale, square_scale = 1.0 - FIRST**step, 1.0 - SECOND**step
    for i in range(theta.size):
        mean[i] = FIRST * mean[i] + (1.0 - FIRST) * gradient[i]
        square[i] = SECOND * square[i] + (1.0 - SECOND) * gradient[i] * gradient[i]
        theta[i] -= rate * (mean[i] / mean_scale) / (math.sqrt(square[i] / square_scale) + EPSILON)
