"""Contrastive learning on augmentation graphs with torch, many embeddings at once, on any device.

What `kernels`, `network` and `probe` do for one embedding, with a batch axis: an embedding or its scaled table is
(R, N, k) for R replicates. Nothing here asks the device for a number, so that the loops that call it never wait.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.on_device import tensor
from . import network, probe
from .generators import Graph

MOST_SIDE = 32  # of the matrices that a Kronecker product is gathered into


# -- operators -------------------------------------------------------------------------------------------------------


class Operator(Protocol):
    """Abar on embeddings (R, N, k); `flops` and `bytes` count one product for one of their R k columns."""

    flops: float
    bytes: float

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        """Abar X."""

    def add(self, total: torch.Tensor, X: torch.Tensor, scale: float) -> torch.Tensor:
        """total + scale Abar X, in `total` where its memory allows."""


class Kronecker:
    """A Kronecker product of small matrices: the butterflies of a fast transform, some of them at a time.

    Neighbouring matrices are multiplied out while their side stays within `most_side`, since what a product costs is
    one pass over the embedding: four of them instead of twenty where N = 2^20.
    """

    def __init__(self, modes: Sequence[NDArray[np.float64]], device: str, dtype: str, most_side: int = MOST_SIDE):
        gathered = [np.ones((1, 1))]
        for mode in modes:
            if len(gathered[-1]) * len(mode) <= most_side:
                gathered[-1] = np.kron(gathered[-1], mode)
            else:
                gathered.append(mode)
        self.matrices = [tensor(one, device, dtype) for one in gathered]
        sides = [len(one) for one in gathered]
        self.nodes = math.prod(sides)
        self.flops = 2.0 * self.nodes * sum(sides)
        self.bytes = 2.0 * self.matrices[0].element_size() * self.nodes * len(sides)

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        shape, outer = X.shape, len(X)
        for matrix in self.matrices:
            X, outer = self._factor(matrix, X, outer), outer * len(matrix)
        return X.reshape(shape)

    def add(self, total: torch.Tensor, X: torch.Tensor, scale: float) -> torch.Tensor:
        shape, outer = X.shape, len(X)
        for matrix in self.matrices[:-1]:
            X, outer = self._factor(matrix, X, outer), outer * len(matrix)
        last = self.matrices[-1]
        parts = total.reshape(outer, len(last), -1)
        parts.baddbmm_(last.expand(outer, -1, -1), X.reshape(parts.shape), alpha=scale)
        return parts.reshape(shape)

    @staticmethod
    def _factor(matrix: torch.Tensor, X: torch.Tensor, outer: int) -> torch.Tensor:
        return torch.bmm(matrix.expand(outer, -1, -1), X.reshape(outer, len(matrix), -1))


class Factor:
    """X -> B^T (B X) for a sparse B (n, N): two products, each by rows, so that no sum is scattered.

    `factor` and `transposed` are B and its transpose as sparse matrices by rows; see `by_rows`.
    """

    def __init__(self, factor: torch.Tensor, transposed: torch.Tensor):
        self.factor, self.transposed = factor, transposed
        n, N = factor.shape
        entries, size = factor.values().numel(), factor.values().element_size()
        self.flops, self.bytes = 4.0 * entries, 2.0 * size * (entries + n) + size * N

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        return self._stacked(self.transposed @ (self.factor @ self._beside(X)), X)

    def add(self, total: torch.Tensor, X: torch.Tensor, scale: float) -> torch.Tensor:
        beside = self._beside(X)
        moved = torch.addmm(self._beside(total), self.transposed, self.factor @ beside, alpha=scale)
        return self._stacked(moved, X)

    @staticmethod
    def _beside(X: torch.Tensor) -> torch.Tensor:
        """(N, R k) of (R, N, k)."""
        return X[0] if len(X) == 1 else X.permute(1, 0, 2).flatten(1)

    @staticmethod
    def _stacked(flat: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        return flat[None] if len(X) == 1 else flat.unflatten(1, (X.shape[0], X.shape[2])).permute(1, 0, 2)


def by_rows(start: torch.Tensor, index: torch.Tensor, values: torch.Tensor, columns: int) -> torch.Tensor:
    """A sparse matrix from the entries of its rows, one row after the other; `start` (rows + 1,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(start, index, values, (len(start) - 1, columns), check_invariants=False)


def operator_of(graph: Graph, device: str, dtype: str) -> Operator:
    """Abar of a graph, by its modes where it has some."""
    if graph.modes:
        return Kronecker(graph.modes, device, dtype)
    sides = (graph.factor, graph.factor.T.tocsr())
    return Factor(
        *(
            by_rows(
                *(tensor(part, device) for part in (one.indptr, one.indices)), tensor(one.data, device, dtype), width
            )
            for one, width in zip(sides, (graph.nodes, len(graph.p_nat)), strict=True)
        )
    )


# -- gradient flow ---------------------------------------------------------------------------------------------------


def slope(apply: Operator, F: torch.Tensor) -> torch.Tensor:
    """4 (Abar F - F F^T F), (R, N, k)."""
    pushed = torch.bmm(F, torch.bmm(F.transpose(1, 2), F).mul_(-4.0))
    return apply.add(pushed, F, 4.0)


def euler(apply: Operator, F: torch.Tensor, dt: float) -> None:
    """One step of explicit Euler, in place."""
    F.add_(slope(apply, F), alpha=dt)


def runge_kutta(apply: Operator, F: torch.Tensor, dt: float) -> None:
    """One step of the classical Runge-Kutta method of fourth order, in place."""
    total = slope(apply, F)
    step = slope(apply, torch.add(F, total, alpha=0.5 * dt))
    total.add_(step, alpha=2.0)
    step = slope(apply, torch.add(F, step, alpha=0.5 * dt))
    total.add_(step, alpha=2.0)
    total.add_(slope(apply, torch.add(F, step, alpha=dt)))
    F.add_(total, alpha=dt / 6.0)


# -- batches of pairs ------------------------------------------------------------------------------------------------


def places(
    cumulative: torch.Tensor, first: torch.Tensor, last: torch.Tensor, u: torch.Tensor, longest: int
) -> torch.Tensor:
    """Elementwise the first index in [first, last) whose running sum exceeds u, the last one at most; by bisection.

    `longest` bounds last - first, so that nobody has to ask.
    """
    low, high = first, last - 1
    for _ in range(longest.bit_length()):
        middle = (low + high) // 2
        above = cumulative[middle] > u
        open_ = low < high
        high = torch.where(open_ & above, middle, high)
        low = torch.where(open_ & ~above, middle + 1, low)
    return low


class Views:
    """The kernel of views on a device: uniform numbers in, nodes out; always in float64, whatever is trained with."""

    def __init__(
        self, nat_cumulative: NDArray[np.float64], indptr: NDArray[np.int32], indices: NDArray[np.int32],
        view_cumulative: NDArray[np.float64], device: str,
    ):  # fmt: skip
        self.naturals = tensor(nat_cumulative, device)
        self.indptr = tensor(np.asarray(indptr, dtype=np.int64), device)
        self.indices = tensor(np.asarray(indices, dtype=np.int64), device)
        self.views = tensor(view_cumulative, device)
        self.longest = int(np.max(np.diff(indptr)))

    def pairs(self, natural: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """(..., 2, B) nodes of the two views of each example, from uniform numbers (..., B) of the three draws."""
        count = len(self.naturals)
        example = torch.searchsorted(self.naturals, natural.contiguous(), right=True).clamp_max(count - 1)
        row = self.indptr[example], self.indptr[example + 1]
        found = [self.indices[places(self.views, *row, u, self.longest)] for u in (first, second)]
        return torch.stack(found, dim=-2)


def batch_slopes(z: torch.Tensor, clip_norm: float = 0.0) -> torch.Tensor:
    """Gradients of the batch loss L_B (see `kernels`) at the pairs of embeddings z (R, 2, B, k), of the same shape.

    The B x B matrix of inner products is not formed: G z2 = z1 (z2^T z2) but for its diagonal. Rows longer than
    `clip_norm` > 0 enter scaled down to it, and the gradients are those before scaling.
    """
    B = z.shape[2]
    factor = None
    if clip_norm > 0.0:
        length = torch.linalg.vector_norm(z, dim=3, keepdim=True)
        factor = torch.where(length > clip_norm, clip_norm / length, 1.0)
        z = z * factor
    other = z.flip(1)
    attract, repel = 2.0 / B, 2.0 / (B * (B - 1.0))
    own = torch.sum(z[:, :1] * z[:, 1:], dim=3, keepdim=True)  # the diagonal of G
    found = torch.matmul(z, torch.matmul(other.transpose(2, 3), other).mul_(repel))
    found.sub_(other * own.mul(repel).add_(attract))
    if factor is None:
        return found
    along = torch.sum(found * z, dim=3, keepdim=True) / clip_norm**2
    return torch.where(factor < 1.0, factor * (found - along * z), found)


# -- the network -----------------------------------------------------------------------------------------------------


def unpacked(layers: Sequence[int], theta: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight (R, outputs, inputs) and bias (R, 1, outputs) of each layer: views of theta (R, parameters)."""
    found, offset = [], 0
    for inputs, outputs in pairwise(layers):
        weight = theta[:, offset : offset + inputs * outputs].unflatten(1, (outputs, inputs))
        offset += inputs * outputs
        found.append((weight, theta[:, offset : offset + outputs].unflatten(1, (1, outputs))))
        offset += outputs
    return found


def forward(layers: Sequence[int], theta: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Activations of each hidden layer (R, rows, width), and last the outputs (R, rows, k); inputs (R, rows, p)."""
    found: list[torch.Tensor] = []
    for weight, bias in unpacked(layers, theta):
        below = torch.relu_(found[-1]) if found else inputs
        found.append(torch.baddbmm(bias, below, weight.transpose(1, 2)))
    return found


def backward(
    layers: Sequence[int], theta: torch.Tensor, inputs: torch.Tensor, made: list[torch.Tensor], pull: torch.Tensor
) -> torch.Tensor:
    """Gradient (R, parameters) of a loss whose gradient at the outputs is `pull` (R, rows, k); `made` by `forward`."""
    gradient = torch.empty_like(theta)
    slots = unpacked(layers, gradient)
    weights = unpacked(layers, theta)
    for layer in range(len(slots) - 1, -1, -1):
        below = made[layer - 1] if layer else inputs
        slots[layer][0].copy_(torch.bmm(pull.transpose(1, 2), below))
        slots[layer][1].copy_(torch.sum(pull, dim=1, keepdim=True))
        if layer:
            pull = torch.bmm(pull, weights[layer][0]).mul_(below > 0.0)
    return gradient


def adam(
    theta: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, rate: float, step: int
) -> None:
    """One Adam step, number `step` from 1, in place; see `network.adam`."""
    mean.mul_(network.FIRST).add_(gradient, alpha=1.0 - network.FIRST)
    square.mul_(network.SECOND).addcmul_(gradient, gradient, value=1.0 - network.SECOND)
    size = torch.sqrt(square / (1.0 - network.SECOND**step)).add_(network.EPSILON)
    theta.addcdiv_(mean, size, value=-rate / (1.0 - network.FIRST**step))


# -- probes ----------------------------------------------------------------------------------------------------------


def span(F: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal bases (R, N, k) of the columns of F, and whether each direction is there (R, k).

    Weak directions, see `probe.SINGULAR`, are columns of zeros.
    """
    Q, small = torch.linalg.qr(F)
    left, size, _ = torch.linalg.svd(small)
    strong = size > probe.SINGULAR * size[:, :1].clamp_min(torch.finfo(F.dtype).tiny)
    return torch.bmm(Q, left * strong[:, None, :]), strong


def tangent(Q: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """(R,) tangents of the largest principal angle between the columns of V (N, k) and those of Q (R, N, k).

    Infinite where some direction of V is orthogonal to all of Q.
    """
    inside = torch.matmul(V.T, Q)
    _, size, right = torch.linalg.svd(inside)
    least = torch.amin(size, dim=1)
    outside = torch.matmul(Q - torch.matmul(V, inside), right.transpose(1, 2)) / size.clamp_min(1e-14)[:, None, :]
    most = torch.linalg.eigvalsh(torch.bmm(outside.transpose(1, 2), outside))[:, -1]
    return torch.where(least < 1e-14, math.inf, torch.sqrt(most.clamp_min(0.0)))


def probe_errors(
    Q: torch.Tensor, targets: torch.Tensor, label: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R,) mean squared and argmax error of the best linear probe on bases Q (R, N, k); see `probe.error_on`."""
    fitted = torch.matmul(Q, torch.matmul(Q.transpose(1, 2), targets))
    mse = torch.sum((targets - fitted) ** 2, dim=(1, 2))
    chosen = torch.argmax(torch.round(fitted / torch.sqrt(w)[:, None], decimals=9), dim=2)
    return mse, torch.sum(torch.where(chosen != label, w, 0.0), dim=1)


def loss(apply: Operator, F: torch.Tensor) -> torch.Tensor:
    """(R,) population losses -2 tr(F^T Abar F) + |F^T F|^2."""
    gram = torch.bmm(F.transpose(1, 2), F)
    return torch.sum(gram * gram, dim=(1, 2)) - 2.0 * torch.sum(F * apply(F), dim=(1, 2))


def nested_probe(
    V: torch.Tensor, targets: torch.Tensor, label: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(m,) mean squared and argmax error of the probe on the first 1, 2, ..., m orthonormal columns of V (N, m)."""
    part = V.T @ targets
    mse = (torch.sum(targets**2) - torch.cumsum(torch.sum(part**2, dim=1), dim=0)).clamp_min(0.0)
    root, outputs, wrong = torch.rsqrt(w)[:, None], torch.zeros_like(targets), []
    for j in range(len(part)):
        outputs.addr_(V[:, j], part[j])
        chosen = torch.argmax(torch.round(outputs * root, decimals=9), dim=1)
        wrong.append(torch.sum(torch.where(chosen != label, w, 0.0)))
    return mse, torch.stack(wrong)
