"""Encoder classes and the moments that their loss consists of, from all sign patterns and all scales.

Nothing here knows the closed forms: characters, ReLU features and tables are evaluated on every sign pattern, scales
of style are integrated by Gauss-Legendre quadrature (exact for characters, whose moments are polynomials of the scale),
and the generalised eigenproblem is solved numerically.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import generator
from ..graphs import probe, spectrum
from . import kernels
from .lab import SCALES, STREAMS, InductiveBiasParams

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MODEL_FIELDS = (
    "dim", "content", "augmentation", "scale_low", "scale_high", "flip_content", "flip_style", "encoder", "degree",
    "relu_features", "label", "seed",
)  # fmt: skip
DEAD = 1e-10  # relative size below which a direction of the features counts as absent


@dataclass(frozen=True)
class Views:
    """All views: x (P, d) with weights (P,), which sign pattern (P,) each is of, and the labels (P, targets)."""

    x: Array
    weight: Array
    of: Integers
    targets: Array


@dataclass(frozen=True)
class Moments:
    """A class f = Theta phi(x): phi (P, p) at all views, C and C_plus (p, p)."""

    views: Views
    phi: Array
    C: Array
    C_plus: Array


@dataclass(frozen=True)
class Frame:
    """All that a probe on any member of a class sees: an orthonormal basis (P, r) of sqrt(weight) phi, centred or not.

    `outputs` is that basis over sqrt(weight), `upper` (r, p) holds phi in it, `part` (r, targets) the targets.
    """

    views: Views
    outputs: Array
    upper: Array
    part: Array


def patterns(dim: int) -> Array:
    """(2^d, d) all sign vectors; number n has bit i equal to -1 where `(n >> (d - 1 - i)) & 1`."""
    number = np.arange(2**dim)[:, None]
    return 1.0 - 2.0 * ((number >> np.arange(dim - 1, -1, -1)) & 1)


def labels(params: InductiveBiasParams, bits: Array) -> Array:
    """(P, targets) what is probed for: each content bit, or the majority of them."""
    content = bits[:, : params.content]
    return content if params.label == "bits" else np.sign(np.sum(content, axis=1, keepdims=True))


def flips(params: InductiveBiasParams) -> Array:
    """(d,) probability that a view flips each bit; none where it rescales."""
    if params.augmentation == "rescale":
        return np.zeros(params.dim)
    return np.where(np.arange(params.dim) < params.content, params.flip_content, params.flip_style)


def flip_modes(params: InductiveBiasParams, views: int) -> tuple[Array, ...]:
    """(2, 2) kernels of the bits whose Kronecker product leads from patterns to one view, or over two to a pair."""
    once = [np.array([[1.0 - q, q], [q, 1.0 - q]]) for q in flips(params)]
    return tuple(np.linalg.matrix_power(one, views) for one in once)


def characters(params: InductiveBiasParams) -> Integers:
    """(p, D) the bits of each character of the class, padded with -1."""
    least, most = (1, 1) if params.encoder == "linear" else (0, params.degree)
    members = [subset for size in range(least, most + 1) for subset in combinations(range(params.dim), size)]
    found = np.full((len(members), most), -1)
    for row, subset in enumerate(members):
        found[row, : len(subset)] = subset
    return found


def arguments(params: InductiveBiasParams, replicate: int) -> tuple[Any, ...]:
    """The encoder as the kernels take it: kind, members, weight, bias."""
    nothing, none = np.full((1, 1), -1), np.zeros((1, 1))
    if params.encoder in ("linear", "polynomial"):
        return kernels.CHARACTERS, characters(params), none, none[0]
    if params.encoder == "relu":
        rng = generator(params.seed, STREAMS["features"], replicate)
        weight = rng.standard_normal((params.dim, params.relu_features)) / np.sqrt(params.dim)
        return kernels.RELU, nothing, weight, 0.5 * rng.standard_normal(params.relu_features)
    return kernels.ENCODERS[params.encoder], nothing, none, none[0]


def features(params: InductiveBiasParams, replicate: int, x: Array) -> Array:
    """phi (P, p) at views x (P, d)."""
    kind, members, weight, bias = arguments(params, replicate)
    phi = np.empty((len(x), params.functions))
    kernels.features(kind, members, weight, bias, np.ascontiguousarray(x), phi)
    return phi


@lru_cache(maxsize=8)
def _views(fields: tuple[tuple[str, Any], ...]) -> Views:
    params = InductiveBiasParams.make(dict(fields))
    bits = patterns(params.dim)
    number = np.arange(len(bits))
    if params.augmentation == "flip" or params.encoder == "table":
        return Views(bits, np.full(len(bits), 1.0 / len(bits)), number, labels(params, bits))
    node, share = np.polynomial.legendre.leggauss(SCALES)
    tau = params.scale_low + (params.scale_high - params.scale_low) * 0.5 * (node + 1.0)
    x = np.repeat(bits[:, None, :], SCALES, axis=1)
    x[:, :, params.content :] *= tau[None, :, None]
    weight = np.tile(0.5 * share, len(bits)) / len(bits)
    return Views(
        x.reshape(-1, params.dim), weight, np.repeat(number, SCALES), np.repeat(labels(params, bits), SCALES, 0)
    )


def _fields(params: InductiveBiasParams) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in params.active().items() if name in MODEL_FIELDS)


def views(params: InductiveBiasParams) -> Views:
    """All views of these params; shared, read-only."""
    return _views(_fields(params))


def moments(params: InductiveBiasParams, replicate: int) -> Moments:
    """The class with its moments over all views; shared by replicates where nothing of it is drawn."""
    return _moments(_fields(params), replicate if params.encoder == "relu" else 0)


@lru_cache(maxsize=16)
def _moments(fields: tuple[tuple[str, Any], ...], replicate: int) -> Moments:
    params = InductiveBiasParams.make(dict(fields))
    seen = _views(fields)
    phi = features(params, replicate, seen.x)
    C = phi.T @ (seen.weight[:, None] * phi)
    if params.augmentation == "flip":
        mean = spectrum.by_modes(flip_modes(params, 1), phi)
    else:
        each = (2**params.dim * seen.weight)[:, None] * phi
        mean = each.reshape(2**params.dim, SCALES, -1).sum(axis=1)
    return Moments(seen, phi, C, mean.T @ mean / len(mean))


def frame(params: InductiveBiasParams, replicate: int) -> Frame:
    """What probes on the class see; shared by replicates where nothing of it is drawn."""
    return _frame(_fields(params), replicate if params.encoder == "relu" else 0, params.intercept)


@lru_cache(maxsize=16)
def _frame(fields: tuple[tuple[str, Any], ...], replicate: int, intercept: bool) -> Frame:
    here = _moments(fields, replicate)
    weight = here.views.weight
    root = np.sqrt(weight)[:, None]
    basis, upper = np.linalg.qr(root * (here.phi - weight @ here.phi if intercept else here.phi))
    return Frame(here.views, basis / root, upper, basis.T @ (root * here.views.targets))


def sampled_moments(params: InductiveBiasParams, replicate: int) -> tuple[Array, Array]:
    """C, pooled over both views, and C_plus, symmetrised, of `n_pairs` sampled pairs."""
    first, second, _ = draw(params, replicate, params.n_pairs, "")
    one, two = features(params, replicate, first), features(params, replicate, second)
    cross = one.T @ two
    return (one.T @ one + two.T @ two) / (2 * params.n_pairs), (cross + cross.T) / (2 * params.n_pairs)


def draw(params: InductiveBiasParams, replicate: int, count: int, fresh: str) -> tuple[Array, Array, Array]:
    """Two views (count, d) of `count` fresh examples, and the examples; `fresh` begins the names of the streams."""
    streams = [generator(params.seed, STREAMS[f"{fresh}{name}"], replicate) for name in ("bits", "first", "second")]
    bits, first, second = (np.empty((count, params.dim)) for _ in range(3))
    kernels.draw_views(*augmentation(params), *streams, bits, first, second)
    return first, second, bits


def augmentation(params: InductiveBiasParams) -> tuple[Any, ...]:
    """The augmentation as the kernels take it: kind, content bits, scales, flips."""
    low, high = (params.scale_low, params.scale_high) if params.augmentation == "rescale" else (1.0, 1.0)
    return kernels.AUGMENTATIONS[params.augmentation], params.content, low, high, flips(params)


# -- minimisers ----------------------------------------------------------------------------------------------------


def solved(C: Array, C_plus: Array) -> tuple[Array, Array]:
    """Generalised eigenvalues (p,), falling, and vectors V (p, p) with V^T C V = 1; 0 where C is singular."""
    size, turn = np.linalg.eigh(C)
    alive = size > DEAD * size[-1]
    white = turn[:, alive] / np.sqrt(size[alive])
    values, inner = np.linalg.eigh(white.T @ C_plus @ white)
    found, vectors = np.zeros(len(C)), np.zeros_like(C)
    found[: len(values)] = np.clip(values[::-1], 0.0, None)
    vectors[:, : len(values)] = white @ inner[:, ::-1]
    return found, vectors


def table_pairs(params: InductiveBiasParams) -> tuple[Array, Array | None]:
    """Eigenvalues (m,) of a table, falling, whole eigenspaces that hold the first k, and their vectors (N, m).

    None instead of vectors where all eigenvalues are 1: then every basis is one of eigenvectors.
    """
    modes = flip_modes(params, 2)
    values = np.ones(1)
    for mode in modes:
        values = np.multiply.outer(values, [1.0, mode[0, 0] - mode[0, 1]]).reshape(-1)
    values = np.sort(values)[::-1]
    if values[-1] > 1.0 - spectrum.SAME:
        return values, None
    cut = values[min(params.n_features, len(values)) - 1]
    pairs = spectrum.of_modes(modes, int(np.sum(values >= cut - spectrum.SAME)))
    return pairs.values, pairs.vectors


def random_basis(values: Array, vectors: Array | None, k: int, rng: np.random.Generator) -> Array:
    """k columns of the eigenvectors: a uniformly random basis of each eigenspace, of the last one as much as fits."""
    level = spectrum.levels(values)
    kept: list[Array] = []
    for one in range(int(level[min(k, len(level)) - 1]) + 1):
        copies = np.flatnonzero(level == one)
        taken = min(len(copies), k - sum(part.shape[1] for part in kept))
        turn, upper = np.linalg.qr(rng.standard_normal((len(copies), taken)))
        turn = turn * np.sign(np.diag(upper))
        kept.append(turn if vectors is None else vectors[:, copies] @ turn)
    return np.concatenate(kept, axis=1)


# -- the probe -----------------------------------------------------------------------------------------------------


def nested_probe(Z: Array, weight: Array, targets: Array, intercept: bool) -> tuple[Array, Array]:
    """(k,) R^2 and accuracy of the best linear probe on the first 1, 2, ..., k of outputs Z (P, k), means over targets.

    Targets are +-1 and balanced; a prediction of 0 counts half. Outputs that depend on earlier ones add nothing.
    """
    root = np.sqrt(weight)[:, None]
    basis, upper = np.linalg.qr(root * (Z - weight @ Z if intercept else Z))
    size = np.abs(np.diag(upper))
    basis = basis[:, : len(size)] * (size > DEAD * max(float(np.max(np.abs(upper), initial=0.0)), 1e-300))
    part = basis.T @ (root * targets)
    r2 = np.cumsum(np.mean(part**2, axis=1))
    right, outputs = np.empty(len(part)), np.zeros_like(targets)
    for j in range(len(part)):
        outputs += np.outer(basis[:, j], part[j])
        right[j] = accuracy(outputs / root, weight, targets)
    missing = Z.shape[1] - len(part)  # columns beyond the number of views are dependent
    return np.concatenate([r2, np.repeat(r2[-1:], missing)]), np.concatenate([right, np.repeat(right[-1:], missing)])


def whole_probe(Z: Array, weight: Array, targets: Array, intercept: bool) -> tuple[float, float]:
    """R^2 and accuracy of the best linear probe on all of Z (P, k)."""
    root = np.sqrt(weight)[:, None]
    basis = probe.span(root * (Z - weight @ Z if intercept else Z))
    part = basis.T @ (root * targets)
    return float(np.mean(np.sum(part**2, axis=0))), accuracy(basis @ part / root, weight, targets)


def framed_probe(seen: Frame, theta: Array) -> tuple[float, float]:
    """The same of f = Theta phi, from its r coordinates instead of its P outputs."""
    basis = probe.span(seen.upper @ theta.T)
    part = basis.T @ seen.part
    predicted = seen.outputs @ (basis @ part)
    return float(np.mean(np.sum(part**2, axis=0))), accuracy(predicted, seen.views.weight, seen.views.targets)


def accuracy(predicted: Array, weight: Array, targets: Array) -> float:
    """Share of right signs, mean over targets; predictions that differ from 0 by rounding errors count half."""
    score = np.sign(np.round(predicted, 9)) * targets
    return float(np.mean(weight @ (0.5 + 0.5 * score)))


def held_out_probe(fit: Array, fit_targets: Array, Z: Array, targets: Array, intercept: bool) -> tuple[float, float]:
    """R^2 and accuracy on outputs Z (n, k) of a probe fitted to others; R^2 is 1 - squared error, below 0 if worse."""
    ones = np.ones((len(fit), 1)) if intercept else np.zeros((len(fit), 0))
    found = np.linalg.lstsq(np.hstack([fit, ones]), fit_targets)[0]
    predicted = np.hstack([Z, ones[: len(Z)]]) @ found
    error = np.mean((predicted - targets) ** 2, axis=0)
    return float(np.mean(1.0 - error)), accuracy(predicted, np.full(len(Z), 1.0 / len(Z)), targets)
