"""Top eigenpairs of Abar with torch, by block iteration: never a copy short, and checked for it.

The method is that of `spectrum.iterated`, on a device and in either precision: a block of vectors, larger than what is
asked for, is multiplied by a Chebyshev polynomial of Abar and projected. The device is asked for numbers once a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..engine.confirmations import Place
from .on_device import Operator
from .spectrum import NotConverged

CHUNK = 2**15  # rows whose inner products are added up in the precision of the vectors
POWER_STEPS, POWER_VECTORS = 30, 4  # of the search for what was missed


@dataclass
class Tally:
    """Multiplications and additions, and bytes read or written, of the products so far."""

    flops: float = 0.0
    bytes: float = 0.0

    def apply(self, operator: Operator, columns: float) -> None:
        """Abar on so many columns."""
        self.flops += columns * operator.flops
        self.bytes += columns * operator.bytes

    def dense(self, size: float, rows: float, left: float, right: float) -> None:
        """A product of rows x left with left x right, or its transpose with rows x right; `size` bytes a number."""
        self.flops += 2.0 * rows * left * right
        self.bytes += size * rows * (left + right)


class Solved(NamedTuple):
    """The largest eigenvalues (block,), falling, in float64, and their vectors (N, block); the first are wanted."""

    values: torch.Tensor
    vectors: torch.Tensor
    residual: float  # the largest |Abar v - lam v| of those wanted
    rounds: int


def iterated(
    apply: Operator, block: torch.Tensor, count: int, tolerance: float, place: Place, tally: Tally,
    degree: int = 8, most_rounds: int = 200,
) -> Solved:  # fmt: skip
    """The `count` largest eigenpairs of Abar from a block (N, more than count) of random vectors, which is overwritten.

    It ends when every wanted residual is below `tolerance`. The block is kept at the place now and then.

    Raises:
        NotConverged: after `most_rounds` polynomials.
    """
    N, b = block.shape
    size, first = block.element_size(), 0
    begun = place.begun() or {}
    if "block" in begun:
        X, first = begun["block"], int(begun["round"])
    else:
        X = torch.linalg.qr(block)[0]
    for round_ in range(first, most_rounds):
        Y = apply(X[None])[0]
        values, turn = torch.linalg.eigh(gram(X, Y))
        values, turn = values.flip(0), turn.flip(1).to(X.dtype)
        X, Y = X @ turn, Y @ turn
        miss = Y[:, :count] - X[:, :count] * values[:count].to(X.dtype)
        residual = float(torch.amax(torch.linalg.vector_norm(miss, dim=0)))
        tally.apply(apply, degree * b)
        for _ in range(5):  # inner products, two rotations, and the two products of an orthogonalisation
            tally.dense(size, N, b, b)
        if residual <= tolerance:
            return Solved(values.clamp_min(0.0), X, residual, round_ + 1)
        least, wanted = (float(value) for value in values[[b - 1, count - 1]])
        # Copies of one eigenvalue may fill the block: then only what lies clearly below it can be damped.
        cut = max(min(least, 0.99 * wanted), 1e-3)
        X = torch.linalg.qr(filtered(apply, X, Y, cut, degree))[0]
        place.keep(lambda: {"block": X, "round": round_ + 1})  # noqa: B023
    raise NotConverged(
        f"After {most_rounds} rounds the largest residual is {residual:.1e}, not {tolerance:.1e}; the eigenvalues "
        "asked for lie too close to the next ones. Ask for a number of them that ends at a gap."
    )


def filtered(apply: Operator, X: torch.Tensor, Y: torch.Tensor, cut: float, degree: int) -> torch.Tensor:
    """T_degree((2 Abar - cut)/cut) X over its value at the eigenvalue 1; X and Y = Abar X are overwritten.

    The three-term recursion is scaled (Zhou & Saad 2007), so that nothing overflows and nothing has to be measured.
    """
    half = 0.5 * cut
    one = scale = half / (1.0 - half)
    before, now = X, Y.mul_(scale / half).sub_(X, alpha=scale)
    for _ in range(degree - 1):
        after = 1.0 / (2.0 / one - scale)
        total = before.mul_(-scale * after).add_(now, alpha=-2.0 * after)
        before, now = now, apply.add(total[None], now[None], 2.0 * after / half)[0]
        scale = after
    return now


def gram(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """X^T Y in float64, symmetrised, for X, Y (N, columns) of any precision: added up in pieces."""
    whole = len(X) // CHUNK * CHUNK
    pieces = [one[:whole].unflatten(0, (whole // CHUNK, CHUNK)) for one in (X, Y)]
    total = torch.sum(torch.bmm(pieces[0].transpose(1, 2), pieces[1]).double(), dim=0)
    total += (X[whole:].T @ Y[whole:]).double()
    return 0.5 * (total + total.T)


def beyond(apply: Operator, X: torch.Tensor, generator: torch.Generator) -> float:
    """The largest Rayleigh quotient that power iteration meets outside the span of orthonormal X (N, columns).

    If X lacks a copy of one of its eigenvalues, that copy is what it meets; see `spectrum.complement`.
    """
    shape = (len(X), POWER_VECTORS)
    v = torch.randn(shape, generator=generator, device=X.device, dtype=X.dtype)
    met = torch.zeros((), dtype=torch.float64, device=X.device)
    for _ in range(POWER_STEPS):
        for _ in range(2):  # once more, for what rounding has left
            v = v - X @ (X.T @ v)
        v = torch.linalg.qr(v)[0]
        moved = apply(v[None])[0]
        met = torch.maximum(met, torch.linalg.eigvalsh(gram(v, moved))[-1])
        v = moved
    return float(met)
