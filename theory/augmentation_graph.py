r"""Contrastive learning as spectral clustering: what follows from the spectrum of an augmentation graph.

Model: a table f (N nodes, k coordinates) trained on the population spectral contrastive loss
``L(f) = -2 E_{positive pair}[f(x).f(x+)] + E_{independent x, x'}[(f(x).f(x'))^2]``. With ``F = sqrt(w)[:, None]*f`` it
is ``|Abar - F F^T|^2 - |Abar|^2`` (Frobenius norms), so that its minimisers are ``F = V_k diag(lam)^1/2 Q``, Q any
rotation. The graph enters through a :class:`theory.graphs.Spectrum` alone.

Main source: HaoChen, Wei, Gaidon, Ma, "Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive
Loss", NeurIPS 2021, arXiv 2106.04156. The bounds are of its technique, with constants derived here. The gradient flow
is the matrix Riccati (Oja) flow, whose solution in closed form is classical. Each docstring says whether a result is
exact, a bound or sampled.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from theory.graphs import Spectrum

SAME = 1e-9  # difference of eigenvalues below which they count as one
HEALTHY = 1e-3  # of the largest entry, above which no pivot needs a search for a better one
NOTHING = 1e-12  # of a start, below which it has nothing of an eigenspace
BATCH_ENTRIES = 2**20  # of the scores that are held at once
EULER_LIMIT = 0.25  # explicit Euler on F is stable below 1/(4 lam_1), lam_1 = 1


# -- the loss ------------------------------------------------------------------------------------------------------


def min_loss(spectrum: Spectrum, k: int) -> float:
    """Least loss of a k-dimensional table: -sum of the k largest squared eigenvalues. Exact."""
    return -float(np.sum(spectrum.top(k) ** 2))


def scaled_minimiser_loss(spectrum: Spectrum, k: int, scale: float) -> float:
    """Loss of ``scale`` times a minimiser: (scale^4 - 2 scale^2) sum_{i <= k} lam_i^2. Exact."""
    return -(scale**4 - 2.0 * scale**2) * min_loss(spectrum, k)


def factor_loss(
    eigenvalues: Float[np.ndarray, " n"], factor: Float[np.ndarray, "*times n k"]
) -> Float[np.ndarray, "*times"]:
    """Loss of F given in coordinates of the eigenvectors: -2 tr(F^T Lam F) + |F^T F|^2. Exact."""
    aligned = np.sum(eigenvalues[:, None] * factor**2, axis=(-2, -1))
    return np.asarray(np.sum((np.swapaxes(factor, -1, -2) @ factor) ** 2, axis=(-2, -1)) - 2.0 * aligned)


# -- the linear probe ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeError:
    """Mean squared error of the best linear probe on the top-k eigenvectors.

    ``value`` is None where the cut runs through an eigenspace whose directions carry unequal label energy: then the
    error depends on the basis chosen there, between ``low`` and ``high``, and ``reason`` says so.
    """

    value: float | None
    low: float
    high: float
    reason: str


def probe_mse(spectrum: Spectrum, k: int) -> ProbeError:
    """Least-squares error on one-hot labels of a linear probe, weights w, on a minimiser with k coordinates. Exact.

    1 minus the label energy of the k eigenvectors kept. Coordinates beyond the rank of the graph are zero and add
    nothing. Raises ValueError if k exceeds an incomplete list of eigenvalues.
    """
    if k < 1:
        raise ValueError(f"a representation needs at least 1 coordinate, not {k}")
    if not spectrum.complete and k > spectrum.listed:
        raise ValueError(f"{k} eigenvalues are wanted, but {spectrum.listed} are listed")
    kept = min(k, spectrum.rank)
    last = spectrum.group(kept)
    whole = 1.0 - float(np.sum(spectrum.energy[:last]))
    taken = kept - int(np.sum(spectrum.multiplicities[:last]))
    multiplicity, energies = int(spectrum.multiplicities[last]), spectrum.energies[last]
    most = float(np.sum(energies[:taken]))
    least = float(np.sum(energies[max(multiplicity - taken, 0) :]))  # the empty directions are taken first
    low, high = max(whole - most, 0.0), max(whole - least, 0.0)
    if high - low < 1e-12:
        return ProbeError(low, low, high, "")
    reason = (
        f"Eigenvalue {spectrum.eigenvalues[last]:.6g} has {multiplicity} eigenvectors, of which k = {k} keeps {taken}; "
        "they carry unequal label energy, so that the error depends on which are kept."
    )
    return ProbeError(None, low, high, reason)


def probe_mse_bound(spectrum: Spectrum, k: int) -> float:
    """phi/(1 - lam_{k+1}), a bound on :func:`probe_mse`: few crossings, and no more than k cheap pieces.

    Infinite where lam_{k+1} = 1 and labels cross; 0 where no labels cross at all.
    """
    gap = 1.0 - spectrum.eigenvalue(k + 1)
    phi = max(spectrum.phi, 0.0)
    return phi / gap if gap > 0.0 else math.inf


def node_error_bound(mse: float) -> float:
    """Bound 2 mse on the share of nodes (weights w) that the probe's argmax gets wrong."""
    return 2.0 * mse


def natural_error_bound(node_error: float, alpha: float) -> float:
    """Bound 2 (node_error + alpha) on the share of natural examples that the majority of their views gets wrong."""
    return 2.0 * (node_error + alpha)


def constant_probe(class_probabilities: Float[np.ndarray, " classes"]) -> tuple[float, float]:
    """Squared and 0-1 error of the probe that knows the class probabilities alone: 1 - sum P^2 and 1 - max P."""
    P = np.asarray(class_probabilities)
    return 1.0 - float(np.sum(P**2)), 1.0 - float(np.max(P))


def mse_bound_is_vacuous(bound: float, class_probabilities: Float[np.ndarray, " classes"]) -> bool:
    """Whether a bound on the squared error promises no more than the constant probe delivers."""
    return bound >= constant_probe(class_probabilities)[0] - 1e-12


def error_bound_is_vacuous(mse_bound: float, class_probabilities: Float[np.ndarray, " classes"]) -> bool:
    """Whether twice a bound on the squared error promises no more 0-1 error than the constant probe has."""
    return node_error_bound(mse_bound) >= constant_probe(class_probabilities)[1] - 1e-12


def partition_cost_bound(spectrum: Spectrum, parts: int) -> float:
    """(1 - lam_m)/2 <= rho_m, the dearest part of the cheapest m-partition: the easy side of Cheeger's inequality."""
    return 0.5 * (1.0 - spectrum.eigenvalue(parts))


# -- the 0-1 error, of which no theorem speaks ---------------------------------------------------------------------


def haar_argmax_error(classes: int, k: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Mean 0-1 error over classes, and its standard error, of the probe on a random top-k basis of the class space.

    The constant and k-1 Haar-random directions of the C-1 others are kept; argmax, ties to the first class. Sampled:
    where classes are equal, symmetric and lead the spectrum, as in nested blocks, this is what a solver returns.
    """
    if k >= classes:
        return 0.0, 0.0
    C = classes
    contrast = np.linalg.qr(np.column_stack([np.ones(C), np.eye(C)[:, 1:]]))[0][:, 1:]
    errors = np.empty(draws)
    batch = max(BATCH_ENTRIES // C**2, 1)
    for first in range(0, draws, batch):
        count = min(batch, draws - first)
        basis = contrast @ np.linalg.qr(rng.standard_normal((count, C - 1, k - 1)))[0]
        scores = basis @ np.swapaxes(basis, 1, 2)  # the constant adds the same to every class
        wrong = np.argmax(np.round(scores, 12), axis=2) != np.arange(C)
        errors[first : first + count] = np.mean(wrong, axis=1)
    return float(np.mean(errors)), float(np.std(errors, ddof=1)) / math.sqrt(draws) if draws > 1 else math.nan


def ring_argmax_error(n: int, arcs: int, frequencies: int) -> float:
    """0-1 error of the probe on all Fourier modes of the ring up to ``frequencies``, that is k = 2 frequencies + 1.

    Exact, ties to the first class; for kernels that keep frequencies in order.
    """
    j = np.arange(1, frequencies + 1)
    lags = np.arange(n)
    kernel = (1.0 + 2.0 * np.sum(np.cos(2.0 * np.pi * np.outer(lags, j) / n), axis=1)) / n
    home = np.arange(n) // (n // arcs)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([kernel, kernel]))])
    starts = (np.arange(arcs)[None] * (n // arcs) - np.arange(n)[:, None]) % n
    scores = sums[starts + n // arcs] - sums[starts]
    return float(np.mean(np.argmax(np.round(scores, 12), axis=1) != home))


# -- dynamics ------------------------------------------------------------------------------------------------------


def gradient_flow(
    eigenvalues: Float[np.ndarray, " n"], start: Float[np.ndarray, "*starts n k"], times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "*starts times n k"]:
    """F(t) of dF/dt = 4 (Abar F - F F^T F), up to a rotation of its columns, in coordinates of the eigenvectors. Exact.

    ``start`` is V^T F(0), one or several. The rows of one eigenspace may be replaced by any k of them with the same
    Gram matrix, such as the R of their QR factorisation. ``times`` must not decrease. F F^T = E S^-1 E^T with
    E = exp(4 Lam t) start and S = I + start^T [(exp(8 Lam t) - I)/Lam] start: the flow has no memory. Raises
    ValueError where times decrease or are negative.

    With D^2 = (exp(8 Lam t) - I)/Lam and B = D start it is g B (I + B^T B)^-1 B^T g, g = exp(4 Lam t)/D. Eigenspaces
    grow apart by factors that no double holds; a rotation of the columns makes ``start`` a staircase, whose column j
    begins with eigenspace p(j), and in units of D_p(j) the columns of B then stay of order one for all times.
    """
    lam, given = np.asarray(eigenvalues, dtype=np.float64), np.asarray(start, dtype=np.float64)
    wanted = np.asarray(times, dtype=np.float64)
    if wanted.size and (wanted[0] < 0.0 or (np.diff(wanted) < 0.0).any()):
        raise ValueError("times must be nonnegative and not decrease")
    order = np.argsort(-lam, kind="stable")
    starts = given.reshape(-1, *given.shape[-2:])
    path = np.zeros((len(starts), len(wanted), *starts.shape[1:]))
    path[:, wanted == 0.0] = starts[:, None]
    later = np.flatnonzero(wanted > 0.0)
    for which, step, L, pivot in _staircases(lam[order], starts[:, order]):
        many = max(BATCH_ENTRIES // max(L.size, 1), 1)
        for first in range(0, len(later), many):
            some = later[first : first + many]
            found = _grown(lam[order], step, L, pivot, wanted[some])
            path[np.ix_(which, some, order, np.arange(len(step)))] = found
    return path.reshape(*given.shape[:-2], *path.shape[1:])


def _grown(
    lam: Float[np.ndarray, " n"],
    step: Int[np.ndarray, " r"],
    L: Float[np.ndarray, "starts n r"],
    pivot: Float[np.ndarray, "starts r"],
    times: Float[np.ndarray, " times"],
) -> Float[np.ndarray, "starts times n r"]:
    """g B (I + B^T B)^-1/2 of :func:`gradient_flow` at positive times, from staircases."""
    log_D = _log_growth(lam, times)
    unit = log_D[:, step]
    apart = np.exp(np.where(np.arange(len(lam))[:, None] >= step, log_D[:, :, None] - unit[:, None], 0.0))
    M = (L / pivot[:, None])[:, None] * apart
    rest = (np.exp(-unit) / pivot[:, None])[..., None] * np.eye(len(step))
    R = np.linalg.qr(np.concatenate([M, rest], axis=2), mode="r")
    top = np.swapaxes(np.linalg.solve(np.swapaxes(R, 2, 3), np.swapaxes(M, 2, 3)), 2, 3)
    return np.asarray(np.exp(4.0 * np.outer(times, lam) - log_D)[..., None] * top)


def _staircases(
    lam: Float[np.ndarray, " n"], starts: Float[np.ndarray, "starts n k"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Numbers of starts, `step` (r,), and of each start the staircase L (n, r) and its pivots (r,).

    L is the start after a rotation of its columns, r its rank: column j is zero before row step[j], where its
    eigenspace begins, and the pivot is its norm within that eigenspace. Eigenvalues decrease.
    """
    _, n, k = starts.shape
    left = np.arange(len(starts))
    if n >= k:  # as a rule the first k rows will do, as if each were an eigenspace
        L = np.tril(starts @ np.linalg.qr(np.swapaxes(starts[:, :k], 1, 2))[0])
        pivot = np.abs(np.diagonal(L, axis1=1, axis2=2))
        sound = np.min(pivot, axis=1) > HEALTHY * np.max(np.abs(L), axis=(1, 2))
        if sound.any():
            yield left[sound], np.arange(k), L[sound], pivot[sound]
        left = left[~sound]
    for i in left:
        step, L, pivot = _staircase(lam, starts[i])
        if len(step):
            yield left[left == i], step, L[None], pivot[None]


def _staircase(
    lam: Float[np.ndarray, " n"], start: Float[np.ndarray, "n k"]
) -> tuple[Int[np.ndarray, " r"], Float[np.ndarray, "n r"], Float[np.ndarray, " r"]]:
    """step, L and pivots of one start, eigenspace by eigenspace."""
    k = start.shape[1]
    basis, steps, pivots = np.zeros((k, 0)), [], []
    first, least = 0, NOTHING * float(np.linalg.norm(start))
    for last in [*(np.flatnonzero(-np.diff(lam) > SAME) + 1), len(lam)]:
        rest = start[first:last] - start[first:last] @ basis @ basis.T
        rest -= rest @ basis @ basis.T
        _, sizes, directions = np.linalg.svd(rest, full_matrices=False)
        new = directions[sizes > least][: k - basis.shape[1]]
        basis = np.hstack([basis, new.T])
        steps += [first] * len(new)
        pivots += sizes[: len(new)].tolist()
        if basis.shape[1] == k:
            break
        first = last
    step = np.array(steps, dtype=np.int64)
    return step, np.where(np.arange(len(lam))[:, None] >= step, start @ basis, 0.0), np.array(pivots)


def _log_growth(lam: Float[np.ndarray, " n"], times: Float[np.ndarray, " times"]) -> Float[np.ndarray, "times n"]:
    """log D of :func:`gradient_flow`, D^2 = (exp(8 lam t) - 1)/lam, at positive times."""
    x = 8.0 * np.outer(times, lam)
    small = np.abs(x) < 1e-9
    safe = np.where(small, 1.0, np.minimum(x, 30.0))
    ratio = np.where(small, 0.0, np.log(np.expm1(safe) / safe))
    return 0.5 * (np.log(8.0 * times)[:, None] + np.where(x > 30.0, x - np.log(np.maximum(x, 30.0)), ratio))


def gradient_flow_gram(
    Abar: Float[np.ndarray, "n n"], start: Float[np.ndarray, "n k"], times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "times n n"]:
    """M(t) = F F^T of :func:`gradient_flow` for any symmetric positive semidefinite Abar and any F(0). Exact."""
    eigenvalues, vectors = np.linalg.eigh(Abar)
    path = vectors @ gradient_flow(np.maximum(eigenvalues, 0.0), vectors.T @ start, times)
    return np.asarray(path @ np.swapaxes(path, -1, -2))


def mode_masses(factor: Float[np.ndarray, "*times n k"]) -> Float[np.ndarray, "*times n"]:
    """m_i = (V^T F F^T V)_ii, for F in coordinates of the eigenvectors."""
    return np.asarray(np.sum(np.asarray(factor) ** 2, axis=-1))


def aligned_mode_mass(
    eigenvalue: Float[np.ndarray, "*modes"] | float,
    start: float,
    times: Float[np.ndarray, " times"],
) -> Float[np.ndarray, "*modes times"]:
    """m_i(t) = lam_i/(1 + (lam_i/m0 - 1) exp(-8 lam_i t)) from F(0) = sqrt(m0) V_k: each mode grows alone. Exact."""
    lam = np.asarray(eigenvalue, dtype=np.float64)[..., None]
    return np.asarray(lam / (1.0 + (lam / start - 1.0) * np.exp(-8.0 * lam * np.asarray(times))))


def half_time(eigenvalue: Float[np.ndarray, "*modes"] | float, start: float) -> Float[np.ndarray, "*modes"]:
    """When :func:`aligned_mode_mass` is half its limit: ln(lam/m0 - 1)/(8 lam). NaN unless lam > 2 m0. Exact."""
    lam = np.asarray(eigenvalue, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(lam > 2.0 * start, np.log(lam / start - 1.0) / (8.0 * lam), math.nan))


def subspace_tangent(
    eigenvalues: Float[np.ndarray, " n"], start: Float[np.ndarray, "*starts n k"], times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "*starts times"]:
    """Tangent of the largest principal angle between the span of F(t) and the top-k eigenspace. Exact, for any F(0).

    ``eigenvalues`` decreasing and ``start`` = V^T F(0) in their order: the span of F(t) is that of exp(4 Lam t) start,
    continuous power iteration. NaN where eigenvalues k and k+1 tie, for then the top-k eigenspace is not unique;
    infinite where the start misses a direction of that space. Raises ValueError where eigenvalues increase.
    """
    lam, given = np.asarray(eigenvalues, dtype=np.float64), np.asarray(start, dtype=np.float64)
    n, k = given.shape[-2:]
    if (np.diff(lam) > 1e-12).any():
        raise ValueError("eigenvalues must decrease")
    wanted, A = np.asarray(times, dtype=np.float64), given.reshape(-1, n, k)
    if k < n and lam[k - 1] - lam[k] <= 1e-12:
        return np.full((*given.shape[:-2], len(wanted)), math.nan)
    found = np.full((len(A), len(wanted)), math.inf)
    whole = np.linalg.matrix_rank(A[:, :k]) == k if n >= k else np.zeros(len(A), dtype=bool)
    head, tail = A[whole, :k], A[whole, k:]
    slopes = np.swapaxes(np.linalg.solve(np.swapaxes(head, 1, 2), np.swapaxes(tail, 1, 2)), 1, 2)
    rates = 4.0 * (lam[k:, None] - lam[None, :k])
    for i, t in enumerate(wanted):
        found[whole, i] = np.linalg.norm(slopes * np.exp(rates * t), 2, axis=(1, 2)) if n > k else 0.0
    return found.reshape(*given.shape[:-2], len(wanted))


def subspace_tangent_bound(
    spectrum: Spectrum, k: int, start: float, times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    """exp(-4 (lam_k - lam_{k+1}) t) tan Theta_k(0), a bound on :func:`subspace_tangent` from the same start."""
    gap = spectrum.eigenvalue(k) - spectrum.eigenvalue(k + 1)
    return np.asarray(start * np.exp(-4.0 * gap * np.asarray(times, dtype=np.float64)))


def table_time(learning_rate: float, steps: Float[np.ndarray, "*k"] | float, nodes: int) -> Float[np.ndarray, "*k"]:
    """Flow time of ``steps`` steps on the table f of the batch-mean loss: learning_rate steps/N, if w = 1/N."""
    return np.asarray(learning_rate * np.asarray(steps, dtype=np.float64) / nodes)


def table_rate_limit(nodes: int, eigenvalue: float = 1.0) -> float:
    """Largest stable learning rate on the table without noise, N/(4 lam_1), if w = 1/N."""
    return EULER_LIMIT * nodes / eigenvalue
