r"""Entropy projections on linear constraints: where multiplicative updates end.

Weights that are only ever multiplied by exp(row-space vector + drift) stay on one mirror-descent orbit, so
that the interpolator they reach is a Bregman projection, with a dual ``lam`` of one number per constraint:

* ``beta = v*v``: the Kullback-Leibler projection of ``p = exp(log_scale)``,

      beta = argmin_{beta >= 0, X beta = y} sum_j beta_j log(beta_j/p_j) - beta_j + p_j
           = exp(log_scale + X^T lam);

* ``beta = u*u - w*w`` (``signed``): the projection under hyperbolic entropy, ``u_j w_j = exp(log_scale_j)``,

      beta = 2 exp(log_scale) sinh(X^T lam + shift),   X beta = y.

Both are exact identities (Woodworth et al. 2020, arXiv 2002.09277; Gunasekar et al. 2018). Both
duals, ``sum_j beta_j - y.lam`` and ``sum_j 2 exp(log_scale_j) cosh(.) - y.lam``, are smooth and convex in
``lam``; they are minimised here by a damped Newton method whose loops have a fixed order of summation,
without BLAS.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numba import njit

from theory.linear_program import linear_program

EXPONENT_LIMIT = 300.0  # a trial step beyond exp(300) is refused: its square would still be finite
JITTER = 1e-14  # of the mean diagonal of the dual Hessian, which is singular for dependent rows of X
RANK_TOLERANCE = 1e-10  # singular values below this fraction of the largest count as zero
PINNED = 1e-6  # entries that no solution lets exceed this, in units of max|target|/max|X|, are pinned at 0
HELD = 3e4  # of max|velocity| t: beyond it exponents are known to 1e-11 at best
STAGE_ITERATIONS = 40  # Newton steps of one stage of a continuation before the stage is halved


class Infeasible(ValueError):
    """No admissible beta satisfies ``X beta = target``."""


class Projection(NamedTuple):
    """A projection: beta (d,), its dual (n,), ``max|X beta - target|`` and the Newton steps it took."""

    beta: Float[np.ndarray, " d"]
    dual: Float[np.ndarray, " n"]
    residual: float
    iterations: int


@njit(nogil=True, cache=True, error_model="numpy")
def _evaluate(log_scale, z, shift, signed, beta, curvature):
    """Fill beta and d beta/d z at z = X^T lam; return the potential with gradient beta (inf: refused)."""
    total = 0.0
    for j in range(z.size):
        if signed:
            s = z[j] + shift[j]
            if log_scale[j] + abs(s) > EXPONENT_LIMIT:
                return math.inf
            if abs(s) < 1.0:  # exp - exp would cancel
                a = 2.0 * math.exp(log_scale[j])
                beta[j] = a * math.sinh(s)
                curvature[j] = a * math.cosh(s)
            else:
                plus = math.exp(log_scale[j] + s)
                minus = math.exp(log_scale[j] - s)
                beta[j] = plus - minus
                curvature[j] = plus + minus
        else:
            exponent = log_scale[j] + z[j]
            if exponent > EXPONENT_LIMIT:
                return math.inf
            beta[j] = math.exp(exponent)
            curvature[j] = beta[j]
        total += curvature[j]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _transpose_times(X, vector, out):
    """out = X^T vector, row by row, four rows in one pass (an axpy keeps its order and still vectorises)."""
    n, d = X.shape
    out[:] = 0.0
    tiled = n - n % 4
    for i in range(0, tiled, 4):
        a0, a1, a2, a3 = vector[i], vector[i + 1], vector[i + 2], vector[i + 3]
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        for j in range(d):
            out[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
    for i in range(tiled, n):
        a0, x0 = vector[i], X[i]
        for j in range(d):
            out[j] += a0 * x0[j]


@njit(nogil=True, cache=True, error_model="numpy")
def _hessian(XT, curvature, H):
    """Lower half of H = X diag(curvature) X^T; returns its trace."""
    d, n = XT.shape
    H[:] = 0.0
    tiled = d - d % 4
    for j in range(0, tiled, 4):
        x0, x1, x2, x3 = XT[j], XT[j + 1], XT[j + 2], XT[j + 3]
        for a in range(n):
            w0 = curvature[j] * x0[a]
            w1 = curvature[j + 1] * x1[a]
            w2 = curvature[j + 2] * x2[a]
            w3 = curvature[j + 3] * x3[a]
            row = H[a]
            for b in range(a + 1):  # a range that starts at 0 vectorises, range(a, n) does not
                row[b] += w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]
    for j in range(tiled, d):
        x0 = XT[j]
        for a in range(n):
            w0 = curvature[j] * x0[a]
            row = H[a]
            for b in range(a + 1):
                row[b] += w0 * x0[b]
    trace = 0.0
    for a in range(n):
        trace += H[a, a]
    return trace


@njit(nogil=True, cache=True, error_model="numpy")
def _cholesky_solve(H, jitter, U, rhs, out):
    """Solve (H + jitter I) out = rhs through U^T U, from the lower half of H; False at a pivot not > 0."""
    n = rhs.size
    for a in range(n):
        for b in range(a + 1):
            U[b, a] = H[a, b]
        U[a, a] += jitter
        out[a] = rhs[a]
    for k in range(n):
        if not (U[k, k] > 0.0 and U[k, k] < math.inf):
            return False
        pivot = U[k, k:]
        inverse = 1.0 / math.sqrt(pivot[0])
        for b in range(n - k):
            pivot[b] *= inverse
        for a in range(1, n - k):
            factor = pivot[a]
            row, source = U[k + a, k + a :], pivot[a:]
            for b in range(n - k - a):
                row[b] -= factor * source[b]
        out[k] /= pivot[0]
        for b in range(1, n - k):
            out[k + b] -= out[k] * pivot[b]
    for k in range(n - 1, -1, -1):
        row = U[k]
        rest = out[k]
        for b in range(k + 1, n):
            rest -= row[b] * out[b]
        out[k] = rest / row[k]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _newton(X, XT, target, log_scale, shift, signed, tolerance, max_iter, dual, beta):
    """Minimise the dual from ``dual``, in place; returns (converged, iterations, residual).

    At least one step is taken unless the residual is at rounding level: a warm start that happens to meet the
    tolerance is thereby made as accurate as any other point. beta (d,) and dual (n,) hold the result.
    """
    n, d = X.shape
    z, dz, trial_z = np.empty(d), np.empty(d), np.empty(d)
    curvature, trial_beta, trial_curvature = np.empty(d), np.empty(d), np.empty(d)
    gap, step = np.empty(n), np.empty(n)
    H, U = np.empty((n, n)), np.empty((n, n))
    eps = 2.220446049250313e-16
    largest = 0.0
    for i in range(n):
        for j in range(d):
            largest = max(largest, abs(X[i, j]))
    _transpose_times(X, dual, z)
    total = _evaluate(log_scale, z, shift, signed, beta, curvature)
    if not total < math.inf:
        return False, 0, math.inf
    residual = math.inf
    for iteration in range(max_iter + 1):
        _transpose_times(XT, beta, gap)
        residual = 0.0
        inner, inner_size = 0.0, 0.0
        for i in range(n):
            gap[i] = target[i] - gap[i]
            residual = max(residual, abs(gap[i]))
            inner += target[i] * dual[i]
            inner_size += abs(target[i] * dual[i])
        size = 0.0
        for j in range(d):
            size += abs(beta[j])
        rounding = eps * largest * size  # no sum X beta is known better than this
        if residual <= rounding or (iteration > 0 and residual <= max(tolerance, 4.0 * rounding)):
            return True, iteration, residual
        if iteration == max_iter:
            break
        trace = _hessian(XT, curvature, H)
        jitter = JITTER * trace / n
        while not _cholesky_solve(H, jitter, U, gap, step):
            jitter *= 100.0
            if not (jitter > 0.0 and jitter < trace):
                return residual <= tolerance, iteration, residual
        slope = 0.0
        for i in range(n):
            slope += gap[i] * step[i]
        _transpose_times(X, step, dz)
        value = total - inner
        slack = 8.0 * eps * (total + inner_size)  # what the objective cannot resolve must not stop the step
        length = 1.0
        while True:
            for j in range(d):
                trial_z[j] = z[j] + length * dz[j]
            trial = _evaluate(log_scale, trial_z, shift, signed, trial_beta, trial_curvature)
            trial_inner = 0.0
            for i in range(n):
                trial_inner += target[i] * (dual[i] + length * step[i])
            if trial - trial_inner <= value - 1e-4 * length * slope + slack:
                break
            length *= 0.5
            if length < 1e-12:
                return residual <= tolerance, iteration, residual
        for i in range(n):
            dual[i] += length * step[i]
        _transpose_times(X, dual, z)
        total = _evaluate(log_scale, z, shift, signed, beta, curvature)
        if not total < math.inf:
            return False, iteration + 1, math.inf
    return False, max_iter, residual


@njit(nogil=True, cache=True, error_model="numpy")
def _line(X, XT, target, base, velocity, shift, signed, times, start, dual, tolerance, max_iter, betas):
    """Solve at log_scale = base + velocity*t for each t of times, from the solution ``dual`` at t = start.

    The dual is extrapolated through the last three solutions (linearly where the stage is more than twice the one
    before). Where Newton does not follow, it starts from the last dual itself, which matters once vanished beta_j
    leave directions of the dual undetermined: their noise must not be extrapolated. Else the stage is halved.
    Returns (number of times solved, Newton steps, last residual); betas (T, d) is filled, dual is that of the
    last time.
    """
    n, d = X.shape
    now, slope, bend, guess = start, np.zeros(n), np.zeros(n), np.empty(n)  # bend: second divided difference
    width, moves = 0.0, 0
    log_scale, beta = np.empty(d), np.empty(d)
    used, residual = 0, 0.0
    for s in range(times.size):
        if s > 0 and times[s] == now:
            betas[s] = betas[s - 1]
            continue
        stage = times[s] - now
        solved = False
        while not solved:
            last = now + stage >= times[s]
            then = times[s] if last else now + stage
            for j in range(d):
                log_scale[j] = base[j] + velocity[j] * then
            ahead = then - now
            linear = ahead if moves > 0 else 0.0
            curved = ahead * (ahead + width) if moves > 1 and ahead <= 2.0 * width else 0.0
            for i in range(n):
                guess[i] = dual[i] + slope[i] * linear + bend[i] * curved
            cap = min(max_iter, STAGE_ITERATIONS)
            converged, iterations, residual = _newton(
                X, XT, target, log_scale, shift, signed, tolerance, cap, guess, beta
            )
            used += iterations
            if not converged:
                guess[:] = dual
                moves = 0
                converged, iterations, residual = _newton(
                    X, XT, target, log_scale, shift, signed, tolerance, max_iter, guess, beta
                )
                used += iterations
            if not converged:
                stage *= 0.5
                if not stage > 1e-5 * (times[s] - start):
                    return s, used, residual
                continue
            if ahead > 0.0:
                for i in range(n):
                    latest = (guess[i] - dual[i]) / ahead
                    bend[i] = (latest - slope[i]) / (ahead + width)
                    slope[i] = latest
                width = ahead
                moves += 1
            for i in range(n):
                dual[i] = guess[i]
            now = then
            stage *= 2.0
            solved = last
        betas[s] = beta
    return times.size, used, residual


def projection(
    X: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, " n"],
    log_scale: Float[np.ndarray, " d"],
    shift: Float[np.ndarray, " d"] | None = None,
    *,
    signed: bool = False,
    dual: Float[np.ndarray, " n"] | None = None,
    tol: float = 1e-10,
    max_iter: int = 200,
) -> Projection:
    """Entropy projection of ``exp(log_scale)`` on ``X beta = target`` (see the module); an exact identity.

    ``shift`` (d,) is for ``signed`` only: half of log(u/w) that is not in the row space. ``dual`` (n,) is a
    warm start. ``tol`` bounds ``max|X beta - target|`` relative to ``max(1, max|target|)`` (or to the
    rounding error of ``X beta``, where that is larger). With n >= d independent columns beta is the one
    solution of the constraints and the dual is fitted to it. Where no nonnegative solution has a positive
    beta_j the dual has no finite optimum: Newton approaches such a beta to the tolerance; where it cannot, beta_j
    is exactly 0 and the dual is that of the other entries.

    Raises Infeasible when nothing admissible satisfies the constraints, ValueError for bad shapes or values,
    ArithmeticError if the Newton method fails on a feasible problem.
    """
    X, target, log_scale, shift = _checked(X, target, log_scale, shift, signed)
    if X.shape[0] >= X.shape[1]:
        return _overdetermined(X, target, log_scale, shift, signed, tol, max_iter)
    start = np.zeros(target.size) if dual is None else np.array(dual, dtype=np.float64)
    if start.shape != target.shape:
        raise ValueError(f"dual must have shape {target.shape}, not {start.shape}")
    return _solve(X, target, log_scale, shift, signed, start, tol, max_iter)


def projection_path(
    X: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, " n"],
    base: Float[np.ndarray, " d"],
    velocity: Float[np.ndarray, " d"],
    times: Float[np.ndarray, " times"],
    *,
    signed: bool = False,
    find_zeros: bool = True,
    tol: float = 1e-10,
    max_iter: int = 200,
) -> Float[np.ndarray, "times d"]:
    """The projections with ``log_scale = base + velocity*t`` at nondecreasing ``times``.

    Each starts from the ones before it. Repeated times cost nothing. Raises like ``projection``. Entries that the
    constraints alone hold at 0 are 0 at every time; without ``find_zeros``, which takes a linear program, they are as
    small as ``tol`` demands. Where ``max|velocity| t`` exceeds HELD the path is held at its
    value there: it approaches its end exponentially, and exponents of that size leave no digits for more.
    """
    times = np.ascontiguousarray(times, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError("times must be a vector of finite, nondecreasing numbers")
    X, target, base, shift = _checked(X, target, base, None, signed)
    velocity = np.array(velocity, dtype=np.float64)
    if velocity.shape != base.shape or not np.isfinite(velocity).all():
        raise ValueError(f"velocity must be {base.shape} finite numbers")
    betas = np.empty((times.size, X.shape[1]))
    if times.size == 0:
        return betas
    held = HELD / max(float(np.abs(velocity).max()), 1e-300)
    times = np.clip(times, -held, held)
    first = projection(X, target, base + velocity * times[0], signed=signed, tol=tol, max_iter=max_iter)
    betas[0] = first.beta
    basis = None if _independent_rows(X) else _row_basis(X)
    if basis is not None and basis.shape[1] == X.shape[1]:  # one solution for all times
        betas[:] = first.beta
        return betas
    suspect = find_zeros and not signed and first.beta.min() < PINNED * first.beta.max()
    if suspect and (pinned := _pinned_path(X, target, base, velocity, times, tol, max_iter)) is not None:
        return pinned
    if basis is not None and basis.shape[1] < X.shape[0]:
        X, target = np.ascontiguousarray(basis.T @ X), basis.T @ target
        first = first._replace(dual=basis.T @ first.dual)
    XT, bound, solved, dual = np.ascontiguousarray(X.T), _absolute(tol, target), 1, first.dual.copy()
    while solved < times.size:
        if times[solved] == times[solved - 1]:
            betas[solved] = betas[solved - 1]
            solved += 1
            continue
        solved += _line(
            X, XT, target, base, velocity, shift, signed, times[solved:], times[solved - 1], dual, bound,
            max_iter, betas[solved:],
        )[0]  # fmt: skip
        if solved < times.size:  # lost: that time from cold, and on from there
            cold = projection(X, target, base + velocity * times[solved], signed=signed, tol=tol, max_iter=max_iter)
            betas[solved], dual = cold.beta, cold.dual.copy()
            solved += 1
    return betas


def _checked(X, target, log_scale, shift, signed):
    """Contiguous, writable float64 copies (one type, so one compilation) of sound input; shift defaults to zero."""
    X = np.array(X, dtype=np.float64, order="C")
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must be a nonempty matrix of shape (n, d), not {X.shape}")
    n, d = X.shape
    if shift is not None and not signed:
        raise ValueError("shift belongs to the signed parametrisation; put it into log_scale instead")
    shift = np.zeros(d) if shift is None else shift
    checked = [X]
    for name, value, size in (("target", target, n), ("log_scale", log_scale, d), ("shift", shift, d)):
        vector = np.array(value, dtype=np.float64)
        if vector.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), not {vector.shape}")
        checked.append(vector)
    if not all(np.isfinite(array).all() for array in checked):
        raise ValueError("X, target, log_scale and shift must be finite")
    return checked


def _absolute(tol: float, target: np.ndarray) -> float:
    """The bound on the residual that a relative tolerance means."""
    return tol * max(1.0, float(np.abs(target).max()))


def _solve(X, target, log_scale, shift, signed, start, tol, max_iter) -> Projection:
    """Newton from ``start``; else continuation from log_scale = 0; else without the dependent rows of X."""
    XT = np.ascontiguousarray(X.T)
    bound = _absolute(tol, target)
    beta, dual = np.empty(X.shape[1]), start.copy()
    converged, used, residual = _newton(X, XT, target, log_scale, shift, signed, bound, max_iter, dual, beta)
    if converged:
        return Projection(beta, dual, residual, used)
    if not signed:
        pinned = _pinned(X, target, log_scale, tol, max_iter)
        if pinned is not None:
            return pinned
    betas, dual = np.empty((2, X.shape[1])), np.zeros(target.size)
    solved, more, residual = _line(
        X, XT, target, np.zeros_like(log_scale), log_scale, shift, signed, np.array([0.0, 1.0]), 0.0,
        dual, bound, max_iter, betas,
    )  # fmt: skip
    if solved == 2:
        return Projection(betas[1], dual, residual, used + more)
    basis = _row_basis(X)
    if basis.shape[1] < target.size:
        return _reduced(X, target, basis, log_scale, shift, signed, tol, max_iter)
    return _refuse(X, target, signed, residual, used + more)


def _row_basis(X: np.ndarray) -> np.ndarray:
    """Orthonormal columns spanning the column space of X: (n, rank)."""
    left, singular, _ = np.linalg.svd(X, full_matrices=False)
    return left[:, singular > RANK_TOLERANCE * singular[0]]


def _independent_rows(X: np.ndarray) -> bool:
    """Whether a QR factorisation, a tenth of the work of an SVD, shows by far that no row depends on others."""
    if X.shape[0] >= X.shape[1]:
        return False
    pivots = np.abs(np.diagonal(np.linalg.qr(X.T, mode="r")))
    return bool(pivots.min() > 1e5 * RANK_TOLERANCE * pivots.max())


def _reduced(X, target, basis, log_scale, shift, signed, tol, max_iter) -> Projection:
    """The same constraints without their dependent part; the dual is the one of least norm."""
    reduced = basis.T @ target
    if np.abs(basis @ reduced - target).max() > max(_absolute(tol, target), 1e-12 * np.abs(target).max()):
        raise Infeasible(_no_solution(signed, "the rows of X are dependent and target contradicts that"))
    rows, start = np.ascontiguousarray(basis.T @ X), np.zeros(reduced.size)
    solution = _solve(rows, reduced, log_scale, shift, signed, start, tol, max_iter)
    residual = float(np.abs(X @ solution.beta - target).max())
    return Projection(solution.beta, basis @ solution.dual, residual, solution.iterations)


def _overdetermined(X, target, log_scale, shift, signed, tol, max_iter) -> Projection:
    """n >= d: the only solution of the constraints, or the reduced problem if the columns are dependent."""
    basis = _row_basis(X)
    if basis.shape[1] < X.shape[1]:
        return _reduced(X, target, basis, log_scale, shift, signed, tol, max_iter)
    beta = np.linalg.lstsq(X, target)[0]
    residual = float(np.abs(X @ beta - target).max())
    size = max(1.0, float(np.abs(beta).max()))
    if residual > max(_absolute(tol, target), 1e-12 * size * np.abs(X).sum(axis=1).max()):
        raise Infeasible(_no_solution(signed, "n >= d, and no beta fits all samples"))
    if signed:
        exponent = np.arcsinh(0.5 * beta * np.exp(-log_scale)) - shift
    else:
        if beta.min() < -1e-8 * size:
            raise Infeasible(_no_solution(signed, "n >= d leaves one solution, and it has negative entries"))
        beta = np.maximum(beta, 0.0)
        exponent = np.log(np.maximum(beta, 1e-16 * size)) - log_scale
    return Projection(beta, np.linalg.lstsq(X.T, exponent)[0], residual, 0)


def _free(X: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(d,) bool: which entries some nonnegative solution of ``X beta = target`` makes positive.

    One linear program on the cone of the solutions, ``X (t + rest) = s target`` with 0 <= t <= 1: the largest sum
    of t has t_j = 1 where beta_j can be positive and 0 where no solution allows it (facial reduction). Entries
    that never exceed PINNED max|target|/max|X| count as zero.
    """
    d = X.shape[1]
    size = float(np.abs(target).max())
    unit = X / np.abs(X).max()
    rows = np.hstack([unit, unit, -(target / size if size > 0 else target)[:, None]])
    upper = np.concatenate([np.ones(d), np.full(d, math.inf), [1.0 / PINNED]])
    nothing = np.zeros(len(target))
    found = linear_program(np.append(np.full(d, -1.0), np.zeros(d + 1)), rows, nothing, nothing, 0.0, upper)
    return found.x[:d] > 0.5


def _pinned(X, target, log_scale, tol, max_iter) -> Projection | None:
    """The projection where the constraints alone hold some entries at 0; None if they do not.

    There the dual has no finite optimum. Without those columns it has, and beta is exact: 0 on them, and the
    projection on the others. The dual is the one of the others.
    """
    free = _free(X, target)
    if free.all():
        return None
    beta, dual, iterations = np.zeros(free.size), np.zeros(target.size), 0
    if free.any():
        try:
            found = projection(X[:, free], target, log_scale[free], tol=tol, max_iter=max_iter)
        except Infeasible:
            return None
        beta[free], dual, iterations = found.beta, found.dual, found.iterations
    residual = float(np.abs(X @ beta - target).max())
    return Projection(beta, dual, residual, iterations) if residual <= _resolved(X, target, beta, tol) else None


def _resolved(X, target, beta, tol: float) -> float:
    """The bound on the residual, or the rounding error of ``X beta`` where that is larger."""
    return max(_absolute(tol, target), 1e-15 * float(np.abs(X).max() * np.abs(beta).sum()))


def _pinned_path(X, target, base, velocity, times, tol, max_iter) -> np.ndarray | None:
    """``projection_path`` where the constraints alone hold some entries at 0; None if they do not."""
    free = _free(X, target)
    if free.all() or not free.any():
        return None
    betas = np.zeros((times.size, free.size))
    try:
        betas[:, free] = projection_path(
            X[:, free], target, base[free], velocity[free], times, tol=tol, max_iter=max_iter
        )
    except Infeasible:
        return None
    residual = np.abs(betas @ X.T - target).max()
    return betas if residual <= _resolved(X, target, np.abs(betas).max(axis=0), tol) else None


def _refuse(X, target, signed, residual, iterations):
    """Raise what is true of an unsolved projection: the constraints cannot be met, or Newton failed."""
    lower = -math.inf if signed else 0.0
    if linear_program(np.zeros(X.shape[1]), X, target, target, lower).status == "infeasible":
        raise Infeasible(_no_solution(signed, "target is outside the cone of the columns of X"))
    raise ArithmeticError(
        f"the entropy projection stopped at residual {residual:.1e} after {iterations} Newton steps; "
        "raise max_iter or loosen tol"
    )


def _no_solution(signed: bool, why: str) -> str:
    kind, advice = ("", "") if signed else ("nonnegative ", ", or use the signed parametrisation")
    return f"no interpolating {kind}beta: {why}; take target = X beta_star of an admissible beta_star{advice}"
