"""The exact population loss of many layers at once with torch, and gradient descent on it.

In coordinates in which covariates have unit variance, write M = [A; b'; h'] and p = (u, c, 1), so that the layer
answers <x, M' G p> with G = sum_i v_i v_i' over its tokens v = (x, y), bordered by a one for the skip vector. Then

    dL/dM = 2 (E[G p p' G] M - E[G p w']),    dL/dp = 2 (E[G M M' G] p - E[G M w]),

and E[G S G], for a symmetric S, is S entry by entry with factors of its own, plus sums of its diagonal on the diagonal.
Matrices M and p, the latter as the first column of a matrix as large, are the halves of one array beside the products
M M' and p p'. A step is then three calls for all layers together: a product, a linear map that also swaps the halves,
and a product that is added. While the array is small that map is one matrix, else it is written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.on_device import DTYPES, array, tensor
from .lab import Law

Array = NDArray[np.float64]

DENSE_NUMBERS = 320  # of one layer's array, up to which its linear map is one matrix
HISTORY_NUMBERS = 2**21  # of the states that are kept between two looks at the loss
MOST_STEPS = 512  # between them


class Blocks(NamedTuple):
    """The blocks of B layers on covariates of unit variance; A and b with the attention's factor."""

    u: torch.Tensor  # (B, d)
    c: torch.Tensor  # (B,)
    A: torch.Tensor  # (B, d, d)
    b: torch.Tensor  # (B, d)
    h: torch.Tensor  # (B, d)

    @property
    def Q(self) -> torch.Tensor:
        """(B, d, d) the effective matrix c A' + b u'."""
        return self.c[:, None, None] * self.A.transpose(1, 2) + self.b[:, :, None] * self.u[:, None, :]


class Landscape:
    """The loss of a layer on Gaussian prompts of one law with linear labels.

    Args:
        law: the prompts; scale: the attention's factor.
    """

    def __init__(self, law: Law, scale: float, device: str, dtype: str):
        self.n, self.s2, self.scale, self.device, self.dtype = law.n, law.noise_var, scale, device, dtype
        self.d = len(law.spectrum)
        self.lam = tensor(np.array(law.spectrum), device, dtype)
        self.root = tensor(np.sqrt(law.spectrum), device, dtype)
        self.m = tensor(np.array(law.spectrum) * np.array(law.task), device, dtype)
        signal = float(np.dot(law.spectrum, law.task))
        self.v1 = signal + law.noise_var
        self.v2 = self.v1**2 + 2.0 * float(np.sum((np.array(law.spectrum) * np.array(law.task)) ** 2))

    # -- coordinates -------------------------------------------------------------------------------------------

    def whitened(self, blocks: Array) -> Blocks:
        """Flat blocks (B, d*d + 3d + 1) on covariates as they are, in unit coordinates."""
        d, flat = self.d, tensor(blocks, self.device, self.dtype)
        root, square = self.root, self.root[:, None] * self.root
        A = flat[:, d + 1 : d + 1 + d * d].reshape(-1, d, d)
        u, b, h = flat[:, :d], flat[:, d + 1 + d * d : 2 * d + 1 + d * d], flat[:, 2 * d + 1 + d * d :]
        return Blocks(root * u, flat[:, d], square * A, root * b, root * h)

    def as_they_are(self, blocks: Blocks) -> Array:
        """The flat blocks (B, d*d + 3d + 1) on covariates as they are, on the processor."""
        root, square = self.root, self.root[:, None] * self.root
        parts = [blocks.u / root, blocks.c[:, None], (blocks.A / square).flatten(1), blocks.b / root, blocks.h / root]
        return array(torch.cat(parts, dim=1))

    # -- the loss ----------------------------------------------------------------------------------------------

    def losses(self, at: Blocks, whole: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) the part of the loss that is odd in the labels, with the noise of the target, and the even one.

        Where not `whole`, u, b and h are zero.
        """
        n, m, v1, c = self.n, self.m, self.v1, at.c
        curve = n * ((n + 1.0) * m + v1)
        rows = torch.sum(at.A * at.A, dim=2)  # of A A', its diagonal
        odd = c * c * (rows @ curve) - 2.0 * n * c * (at.A.diagonal(dim1=1, dim2=2) @ m) + v1
        if not whole:
            return odd, torch.zeros_like(odd)
        uu, bb = at.u * at.u, torch.sum(at.b * at.b, dim=1)
        on = torch.stack([at.u, self._C * at.u], dim=2)
        p, r = torch.bmm(at.A.transpose(1, 2), on).unbind(2)
        Ab = torch.bmm(at.A, at.b[:, :, None])[:, :, 0]
        odd = odd + 2.0 * c * ((at.u * Ab) @ curve) + bb * (uu @ curve) - 2.0 * n * ((at.u * at.b) @ m)
        even = n * torch.sum(rows, dim=1) * torch.sum(uu, dim=1) + c * c * (n * (n + 2.0) * self.v2) * bb
        even = even + 2.0 * c * torch.sum(at.b * r, dim=1) + n * (n + 1.0) * torch.sum(p * p, dim=1)
        even = even + torch.sum(at.h * (at.h + 2.0 * n * (p + (c * v1)[:, None] * at.b)), dim=1)
        return odd, even

    def at_most(self, at: Blocks) -> torch.Tensor:
        """(B,) bounds of the loss from above, for less work than the loss.

        By Minkowski's inequality sqrt(loss) <= sqrt(E<x, M' G p>^2) + sqrt(v1), where E<x, M' G p>^2 =
        tr(M' E[G p p' G] M) is at most |M|^2 |p|^2 times the largest eigenvalue of E[G G], which is diagonal.
        """
        M = sum(torch.sum(block * block, dim=(*range(1, block.dim()),)) for block in (at.A, at.b, at.h))
        p = torch.sum(at.u * at.u, dim=1) + at.c * at.c + 1.0
        return (torch.sqrt(self._steepest * M * p) + math.sqrt(self.v1)) ** 2

    @cached_property
    def _steepest(self) -> float:
        one = torch.eye(self.d + 2, device=self.device, dtype=DTYPES[self.dtype])
        return float(torch.amax(self._spread(one[None]).diagonal(dim1=1, dim2=2)))

    @property
    def _C(self) -> torch.Tensor:
        return self.n**2 * self.v1 + 2.0 * self.n * self.m

    def recorded(self, at: Blocks, entries: int) -> tuple[Array, Array]:
        """(B, 3) step size, |u| and |b|, and (B, entries) of the diagonal of Q, on covariates as they are."""
        diagonal = at.Q.diagonal(dim1=1, dim2=2) / self.lam
        sizes = [torch.linalg.norm(block / self.root, dim=1) for block in (at.u, at.b)]
        return array(torch.stack([diagonal.mean(dim=1), *sizes], dim=1)), array(diagonal[:, :entries])

    def matrix(self, at: Blocks, size: int) -> Array:
        """(B, size, size) the leading part of Q on covariates as they are."""
        Q = at.Q / (self.root[:, None] * self.root)
        return array(Q[:, :size, :size])

    # -- the step ----------------------------------------------------------------------------------------------

    def halves(self, at: Blocks, skip: bool) -> torch.Tensor:
        """(B, 2, top, d): M and p of the blocks, with top = d + 1, and one more for the skip vector."""
        top = self.d + 1 + skip
        made = torch.zeros((len(at.c), 2, top, self.d), device=self.device, dtype=DTYPES[self.dtype])
        made[:, 0, : self.d], made[:, 0, self.d] = at.A, at.b
        made[:, 1, : self.d, 0], made[:, 1, self.d, 0] = at.u, at.c
        if skip:
            made[:, 0, self.d + 1], made[:, 1, self.d + 1, 0] = at.h, 1.0
        return made

    def blocks(self, halves: torch.Tensor) -> Blocks:
        """The blocks of halves (B, 2, top, d)."""
        d, (M, p) = self.d, (halves[:, 0], halves[:, 1, :, 0])
        h = M[:, d + 1] if M.shape[1] > d + 1 else torch.zeros_like(M[:, d])
        return Blocks(p[:, :d], p[:, d], M[:, :d], M[:, d], h)

    def factors(self, skip: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """(2, top) and (2, d): rows and columns by which a gradient in the halves becomes a step of the weights.

        Each weight's own factor enters twice, once on the way to these coordinates and once on the way back. What is
        no weight has the factor zero.
        """
        one = torch.ones_like(self.lam[:1])
        M, p = [self.scale**2 * self.lam, self.scale**2 * one, one], [self.lam, one, 0.0 * one]
        rows = torch.stack([torch.cat(half[: 2 + skip]) for half in (M, p)])
        return rows, torch.stack([self.lam, torch.ones_like(self.lam)])

    def moved(
        self, S: torch.Tensor, T: torch.Tensor, E: torch.Tensor, L: torch.Tensor, rate: float, rows: torch.Tensor,
        columns: torch.Tensor, keep: float = 1.0,
    ) -> None:  # fmt: skip
        """The linear map of a step: of S = T T' (B, 2, top, top) and the halves T (B, 2, top, d), into E and L.

        L + E (T * columns) is then keep * T - rate * rows * gradient * columns.
        """
        d, n, m = self.d, self.n, self.m
        for half in (0, 1):
            E[:, half] = -2.0 * rate * rows[half, :, None] * self._spread(S[:, 1 - half])
        L[:] = keep * T
        by = 2.0 * rate * n
        u, c, b = T[:, 1, :d, 0], T[:, 1, d, :1], T[:, 0, d]
        L[:, 0, :d].diagonal(dim1=1, dim2=2).add_(by * rows[0, :d] * columns[0] * m * c)
        L[:, 0, d] += by * rows[0, d] * columns[0] * m * u
        L[:, 1, :d, 0] += by * rows[1, :d] * m * b
        L[:, 1, d, 0] += by * rows[1, d] * torch.sum(m * T[:, 0, :d].diagonal(dim1=1, dim2=2), dim=1)

    def gradient(self, at: Blocks) -> Blocks:
        """The gradient of the loss in these blocks, that of the skip vector included."""
        T = self.halves(at, True)
        rows, columns = torch.ones_like(T[0, :, :, 0]), torch.ones_like(T[0, :, 0])
        S = T @ T.transpose(2, 3)
        E, L = torch.empty_like(S), torch.empty_like(T)
        self.moved(S, T, E, L, -1.0, rows, columns, keep=0.0)
        return self.blocks(L + E @ T)

    def _spread(self, S: torch.Tensor) -> torch.Tensor:
        """E[G S G] for symmetric S (B, top, top)."""
        d, n, m, v1 = self.d, self.n, self.m, self.v1
        x, y = slice(0, d), d
        out = torch.empty_like(S)
        diagonal = S[:, x, x].diagonal(dim1=1, dim2=2)
        yy = S[:, y, y]
        out[:, x, x] = n * (n + 1.0) * S[:, x, x]
        own = out[:, x, x].diagonal(dim1=1, dim2=2)
        own += n * torch.sum(diagonal, dim=1)[:, None] + yy[:, None] * (n * (n + 1.0) * m + n * v1)
        mixed = n * ((n + 1.0) * v1 + (n + 3.0) * m)
        out[:, x, y], out[:, y, x] = mixed * S[:, x, y], mixed * S[:, y, x]
        out[:, y, y] = torch.sum(n * ((n + 1.0) * m + v1) * diagonal, dim=1) + n * (n + 2.0) * self.v2 * yy
        if S.shape[1] > d + 1:
            h = d + 1
            out[:, x, h], out[:, h, x] = n * S[:, x, h], n * S[:, h, x]
            out[:, y, h], out[:, h, y] = n * v1 * S[:, y, h], n * v1 * S[:, h, y]
            out[:, h, h] = S[:, h, h]
        return out


class Chart:
    """Which numbers are trained (see `kernels.CHARTS`): flat weights theta (B, P) to blocks, and gradients back."""

    def __init__(self, model: str, landscape: Landscape, skip: bool):
        self.model, self.landscape, self.skip = model, landscape, skip
        self.square = landscape.root[:, None] * landscape.root

    def unpack(self, theta: torch.Tensor) -> Blocks:
        """The blocks of the weights."""
        d, root, scale = self.landscape.d, self.landscape.root, self.landscape.scale
        zero = torch.zeros_like(theta[:, :d])
        if self.model == "full":
            A = theta[:, d + 1 : d + 1 + d * d].reshape(-1, d, d)
            u, b, h = theta[:, :d], theta[:, d + 1 + d * d : 2 * d + 1 + d * d], theta[:, 2 * d + 1 + d * d :]
            return Blocks(root * u, theta[:, d], scale * self.square * A, scale * root * b, root * h)
        if self.model == "reduced":
            return Blocks(zero, theta[:, 0], scale * self.square * theta[:, 1:].reshape(-1, d, d), zero, zero)
        if self.model == "separate_key_query":
            diagonal = scale * self.landscape.lam * theta[:, 1 : d + 1] * theta[:, d + 1 :]
            return Blocks(zero, theta[:, 0], torch.diag_embed(diagonal), zero, zero)
        K, Q, V, h = self._matrices(theta)
        p, M = (h[:, None] @ V)[:, 0], K.transpose(1, 2) @ Q[:, :, :d]
        M = scale * M * root
        return Blocks(root * p[:, :d], p[:, d], root[:, None] * M[:, :d], M[:, d], root * h[:, :d])

    def pull(self, theta: torch.Tensor, slope: Blocks) -> torch.Tensor:
        """The gradient in the weights, from that in the blocks."""
        d, root, scale = self.landscape.d, self.landscape.root, self.landscape.scale
        u, c, h = root * slope.u, slope.c[:, None], root * slope.h
        A, b = scale * self.square * slope.A, scale * root * slope.b
        if self.model == "full":
            return torch.cat([u, c, A.flatten(1), b, h if self.skip else torch.zeros_like(h)], dim=1)
        if self.model == "reduced":
            return torch.cat([c, A.flatten(1)], dim=1)
        if self.model == "separate_key_query":
            diagonal = A.diagonal(dim1=1, dim2=2)
            return torch.cat([c, theta[:, d + 1 :] * diagonal, theta[:, 1 : d + 1] * diagonal], dim=1)
        K, Q, V, out = self._matrices(theta)
        M, p = torch.cat([A, b[:, None]], dim=1), torch.cat([u, c], dim=1)
        dQ = torch.zeros_like(Q)  # the last column meets the query's zero label
        dQ[:, :, :d] = K @ M
        dh = (V @ p[:, :, None])[:, :, 0]
        dh[:, :d] += h
        dV = out[:, :, None] * p[:, None]
        return torch.cat([(Q[:, :, :d] @ M.transpose(1, 2)).flatten(1), dQ.flatten(1), dV.flatten(1), dh], dim=1)

    def _matrices(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        e = self.landscape.d + 1
        K, Q, V = (theta[:, k * e * e : (k + 1) * e * e].reshape(-1, e, e) for k in range(3))
        return K, Q, V, theta[:, 3 * e * e :]


def states_kept(numbers: int) -> int:
    """How many steps are taken between two looks, where a state has so many numbers."""
    return max(1, min(MOST_STEPS, HISTORY_NUMBERS // numbers))


class BlockDescent:
    """Descent of layers whose blocks are trained, all of them or, where u = b = h = 0, the useful ones alone.

    A state is S and T of `Landscape.moved`, one half after the other, T column by column: what its second half has
    beyond p is zero, and comes last.
    """

    def __init__(self, landscape: Landscape, first: Blocks, skip: bool, rate: float):
        self.landscape, self.rate = landscape, rate
        halves = landscape.halves(first, skip)
        B, _, self.top, d = halves.shape
        numbers = 2 * self.top * (self.top + d)
        used = numbers - self.top * (d - 1)
        self.steps = states_kept(B * numbers)
        self.states = halves.new_zeros((self.steps + 1, B, numbers))
        S, T = self._parts(self.states)
        T[0], self.factors = halves, landscape.factors(skip)
        self.map = None
        if numbers <= DENSE_NUMBERS:
            units = torch.eye(numbers, device=halves.device, dtype=halves.dtype)[:used]
            mapped = torch.zeros_like(units)
            self._moved(*self._parts(units), *self._parts(mapped))
            self.map = mapped[:, :used].contiguous()
        # Made once: a view costs as much as a product of small matrices.
        flat, products, matrices = self.states[..., :used], S.flatten(1, 2), T.flatten(1, 2)
        self.views = [
            (flat[k], flat[k + 1], products[k], products[k + 1], matrices[k], matrices[k].transpose(1, 2),
             matrices[k + 1], (S[k], T[k], S[k + 1], T[k + 1]))
            for k in range(self.steps)
        ]  # fmt: skip
        plain = bool(torch.all(landscape.lam == 1.0))
        self.columns = None if plain else self.factors[1].expand(B, 2, d).reshape(2 * B, 1, d)
        self.scaled = torch.empty_like(matrices[0])

    def _parts(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of S (..., 2, top, top) and T (..., 2, top, d) in states (..., numbers)."""
        halves, top = flat.unflatten(-1, (2, -1)), self.top
        S, T = halves[..., : top * top], halves[..., top * top :]
        return S.unflatten(-1, (top, top)), T.unflatten(-1, (self.landscape.d, top)).transpose(-1, -2)

    def _moved(self, S: torch.Tensor, T: torch.Tensor, E: torch.Tensor, L: torch.Tensor) -> None:
        self.landscape.moved(S, T, E, L, self.rate, *self.factors)

    def advance(self, steps: int) -> None:
        """States 1 to `steps` from state 0."""
        bmm, mm, mul, columns, scaled, dense = torch.bmm, torch.mm, torch.mul, self.columns, self.scaled, self.map
        for flat, flat_after, S, S_after, T, T_turned, T_after, parts in self.views[:steps]:
            bmm(T, T_turned, out=S)
            if dense is None:
                self._moved(*parts)
            else:
                mm(flat, dense, out=flat_after)
            T_after.baddbmm_(S_after, T if columns is None else mul(T, columns, out=scaled))

    def restart(self, step: int) -> None:
        """Make state `step` state 0."""
        self.states[0] = self.states[step]

    def blocks(self, which: Sequence[int] | slice) -> Blocks:
        """The blocks of the layers at these states, one after the other."""
        return self.landscape.blocks(self._parts(self.states[which])[1].flatten(0, 1))


class FactoredDescent:
    """Descent where A is diagonal, the product of a key and a query that are both trained, beside c."""

    def __init__(self, landscape: Landscape, theta: Array, rate: float):
        self.landscape, self.rate = landscape, rate
        first = tensor(theta, landscape.device, landscape.dtype)
        self.steps = states_kept(first.numel())
        self.states = first.new_zeros((self.steps + 1, *first.shape))
        self.states[0] = first
        one = landscape
        self.pull = -2.0 * one.n * one.lam * one.m
        self.curve = 2.0 * one.n * one.lam * ((one.n + 1.0) * one.lam * one.m + one.v1 * one.lam) * one.scale

    def advance(self, steps: int) -> None:
        """States 1 to `steps` from state 0."""
        d, by = self.landscape.d, self.rate * self.landscape.scale
        for k in range(steps):
            now, after = self.states[k], self.states[k + 1]
            c, key, query = now[:, :1], now[:, 1 : d + 1], now[:, d + 1 :]
            a = key * query
            slope = torch.addcmul(self.pull, self.curve, a * c)
            after[:, :1] = c - by * torch.sum(slope * a, dim=1, keepdim=True)
            slope *= by * c
            torch.addcmul(key, slope, query, value=-1.0, out=after[:, 1 : d + 1])
            torch.addcmul(query, slope, key, value=-1.0, out=after[:, d + 1 :])

    def restart(self, step: int) -> None:
        """Make state `step` state 0."""
        self.states[0] = self.states[step]

    def blocks(self, which: Sequence[int] | slice) -> Blocks:
        """The blocks of the layers at these states, one after the other."""
        d, at = self.landscape.d, self.states[which].flatten(0, 1)
        diagonal = self.landscape.scale * self.landscape.lam * at[:, 1 : d + 1] * at[:, d + 1 :]
        zero = torch.zeros_like(diagonal)
        return Blocks(zero, at[:, 0], torch.diag_embed(diagonal), zero, zero)


class LiteralDescent:
    """Descent of the matrices of the layer: keys, queries, values and output."""

    def __init__(self, landscape: Landscape, theta: Array, rate: float):
        self.landscape, self.chart = landscape, Chart("literal", landscape, skip=True)
        self.rate = rate
        first = tensor(theta, landscape.device, landscape.dtype)
        self.steps = states_kept(4 * first.numel())
        self.states = first.new_zeros((self.steps + 1, *first.shape))
        self.states[0] = first

    def advance(self, steps: int) -> None:
        """States 1 to `steps` from state 0."""
        for k in range(steps):
            theta = self.states[k]
            slope = self.chart.pull(theta, self.landscape.gradient(self.chart.unpack(theta)))
            torch.add(theta, slope, alpha=-self.rate, out=self.states[k + 1])

    def restart(self, step: int) -> None:
        """Make state `step` state 0."""
        self.states[0] = self.states[step]

    def blocks(self, which: Sequence[int] | slice) -> Blocks:
        """The blocks of the layers at these states, one after the other."""
        return self.chart.unpack(self.states[which].flatten(0, 1))
