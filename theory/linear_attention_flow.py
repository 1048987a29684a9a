r"""Training clocks of one layer of linear attention: gradient flow, edge of stability, the race of two paths.

Gradient flow is ``theta' = -grad L`` on the exact loss of :mod:`theory.linear_attention`; gradient descent with
learning rate lr has passed the time ``t = lr * steps``. The *good path* trains (c, A) with u = b = 0, where it stays
if it starts there; the *bad path* trains (u, b). ``mean`` attention divides the sum over tokens by n, which divides
every rate of this module by n, at weights whose effective matrix is n times as large.

Sources: Zhang, Frei, Bartlett 2024 (arXiv 2306.09927; convergence of gradient flow), Zhang, Singh, Latham, Saxe 2025
(arXiv 2501.16265; merged against separate key and query matrices). Bad input raises ValueError.
"""

import math
import typing
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy.integrate import odeint, solve_ivp
from scipy.optimize import root
from scipy.sparse.linalg import LinearOperator, eigsh

from theory.linear_attention import (
    Attention,
    Prompts,
    Weights,
    balanced_minimum,
    check_dimension,
    check_length,
    gradient,
    odd_loss,
    optimal_preconditioner,
    optimal_step,
)

RELATIVE = 1e-11  # error per step of the integrated clocks
MOST_STEPS = 1_000_000  # between two times
FLAT = 1e-11  # size of the gradient at which a stationary point counts as found, relative to the loss
SETTLED = 1e4  # e-foldings of the first growth after which the bad path is near its end
COMMUTING = 1e-10  # size of the commutator that counts as rounding


def rate_divisor(n: int, attention: Attention) -> int:
    """What the rates and curvatures of ``sum`` attention are divided by: 1 for ``sum``, n for ``mean``."""
    if attention not in ("sum", "mean"):
        raise ValueError(f"attention must be sum or mean, not {attention!r}")
    return check_length(n) if attention == "mean" else 1


# -- isotropic prompts: a logistic curve -----------------------------------------------------------------------


def small_start(weights: Weights) -> float:
    """q0 = amp^2/sqrt d, amp = (c + tr(A)/sqrt d)/2: where the logistic curve starts from small random weights.

    The other half, c - tr(A)/sqrt d, dies out (heuristic for u, b not 0 and A not a multiple of I).

    Raises:
        ValueError: amp = 0, a saddle from which nothing grows along the good path.
    """
    d = len(weights.A)
    amplitude = (weights.c + float(np.trace(weights.A)) / math.sqrt(d)) / 2.0
    if not (math.isfinite(amplitude) and amplitude != 0):
        raise ValueError("the start lies on a saddle: c + tr(A)/sqrt(d) is 0, and Q does not grow from it")
    return amplitude**2 / math.sqrt(d)


def logistic_rate(n: int, d: int, tau2: float = 1.0, attention: Attention = "sum") -> float:
    """4 n sqrt(d) tau2 (``mean``: 4 sqrt(d) tau2), the rate at which q grows on isotropic prompts."""
    if not (math.isfinite(tau2) and tau2 > 0):
        raise ValueError(f"tau2 must be finite and positive, not {tau2}")
    return 4.0 * math.sqrt(check_dimension(d)) * tau2 * check_length(n) / rate_divisor(n, attention)


def logistic_flow(
    times: Float[np.ndarray, " times"],
    q0: float,
    n: int,
    d: int,
    s2: float,
    tau2: float = 1.0,
    attention: Attention = "sum",
) -> Float[np.ndarray, " times"]:
    """q(t) = q*/(1 + (q*/q0 - 1) exp(-rate t)), c A' = q I, of a balanced start (c^2 = |A|^2) on isotropic prompts.

    With ``mean`` attention q, q0 and q* are n times those of the sum.
    """
    best = _best_q(q0, n, d, s2, tau2, attention)
    clock = logistic_rate(n, d, tau2, attention) * np.asarray(times, dtype=float)
    return np.asarray(best / (1.0 + (best / q0 - 1.0) * np.exp(-clock)))


def half_time(q0: float, n: int, d: int, s2: float, tau2: float = 1.0, attention: Attention = "sum") -> float:
    """Time at which :func:`logistic_flow` passes q*/2: ln(q*/q0 - 1)/rate; the loss is 3/4 of its way down."""
    best = _best_q(q0, n, d, s2, tau2, attention)
    if not q0 < best / 2.0:
        raise ValueError(f"q0 = {q0:g} is not below q*/2 = {best / 2:g}: the half time has passed")
    return math.log(best / q0 - 1.0) / logistic_rate(n, d, tau2, attention)


# -- commuting covariances: ordinary differential equations ------------------------------------------------------


class FlowPath(NamedTuple):
    """q (times, d), the diagonal of Q; the loss (times,); and half_times (d,) at which q_i = q_i*/2, inf if never."""

    q: Float[np.ndarray, "times d"]
    loss: Float[np.ndarray, " times"]
    half_times: Float[np.ndarray, " d"]


def merged_flow(
    times: Float[np.ndarray, " times"],
    lam: Float[np.ndarray, " d"],
    t: Float[np.ndarray, " d"],
    n: int,
    s2: float,
    a0: Float[np.ndarray, " d"],
    c0: float,
    *,
    timed: bool = True,
) -> FlowPath:
    """Flow of Q = c diag(a), Sig = diag(lam), T = diag(t), u = b = 0: one plateau, one drop, a slow tail.

    a_i' = 2n c lam_i^2 t_i (1 - q_i/q_i*),  c' = sum_i 2n a_i lam_i^2 t_i (1 - q_i/q_i*),  integrated numerically.
    Half times, most of the work, are NaN unless ``timed``.
    """
    return _commuting_flow(times, lam, t, n, s2, a0, c0, 1, timed)


def separate_flow(
    times: Float[np.ndarray, " times"],
    lam: Float[np.ndarray, " d"],
    t: Float[np.ndarray, " d"],
    n: int,
    s2: float,
    k0: Float[np.ndarray, " d"],
    c0: float,
    *,
    timed: bool = True,
) -> FlowPath:
    """As :func:`merged_flow` with equal, separate key and query, A = diag(k)^2: a staircase, one mode after another.

    k_i' = 2n c k_i lam_i^2 t_i (1 - q_i/q_i*),  c' = sum_i 2n k_i^2 lam_i^2 t_i (1 - q_i/q_i*),  q_i = c k_i^2.
    """
    return _commuting_flow(times, lam, t, n, s2, k0, c0, 2, timed)


def plateaus(lam: Float[np.ndarray, " d"], t: Float[np.ndarray, " d"], n: int, s2: float) -> Float[np.ndarray, " d+1"]:
    """L_0 > .. > L_d: the loss with the first k modes learnt and the others at zero, fastest (lam^2 t) first."""
    prompts = Prompts.commuting(n, lam, t, s2)
    best = np.diag(optimal_preconditioner(prompts))
    rate = np.diag(prompts.Sig) ** 2 * np.diag(prompts.T)
    learnt = np.zeros(prompts.d)
    levels = [float(odd_loss(prompts, np.diag(learnt)))]
    for i in np.argsort(-rate, kind="stable"):
        learnt[i] = best[i]
        levels.append(float(odd_loss(prompts, np.diag(learnt))))
    return np.array(levels)


# -- edge of stability -----------------------------------------------------------------------------------------


def good_path_learning_rate(n: int, d: int, tau2: float = 1.0, attention: Attention = "sum") -> float:
    """1/(2 n sqrt(d) tau2): the largest stable rate at the balanced isotropic minimum while u = b = 0."""
    return 2.0 / logistic_rate(n, d, tau2, attention)


def edge_oscillation(ratio: float) -> tuple[float, float]:
    """Where q/q* - 1 alternates beyond the edge, at ``ratio`` times :func:`good_path_learning_rate`, u = b = 0.

    The map z -> z (1 + s (1 - z))^2 of z = q/q*, s = ratio, has the two-cycle z = (1 + s - p)/s, p^(+-1), with
    p + 1/p = 1 + s; it attracts for 1 < s < sqrt(5) - 1. Exact for balanced starts on isotropic prompts.
    """
    if not 1.0 < ratio < math.sqrt(5.0) - 1.0:
        raise ValueError(f"a stable oscillation of period two needs a ratio between 1 and sqrt(5) - 1, not {ratio}")
    p = (1.0 + ratio - math.sqrt((1.0 + ratio) ** 2 - 4.0)) / 2.0
    return (1.0 - p) / ratio, (1.0 - 1.0 / p) / ratio


def isotropic_spectrum(n: int, d: int, s2: float, tau2: float = 1.0) -> list[tuple[float, int]]:
    """Eigenvalues, with multiplicities, of the Hessian in (u, c, A, b) at the balanced isotropic minimum.

    0 once (rescaling), 2n sqrt(d) tau2 d^2-1 times (shape of A), 4n sqrt(d) tau2 once (along the path), and two
    eigenvalues of u and b, d times each. The smaller of these is the slow tail of the even loss,
    exp(-2 * eigenvalue * t).
    """
    best, v1 = optimal_step(n, d, s2, tau2), tau2 * d + s2
    root, Ev2 = math.sqrt(d), v1**2 + 2.0 * tau2**2 * d
    mixed = best * (n**2 * v1 + 2.0 * n * tau2)
    block = 2.0 * np.array([[n * (n + 1 + d) * best / root, mixed], [mixed, root * best * n * (n + 2) * Ev2]])
    small, large = np.linalg.eigvalsh(block)
    found = [(0.0, 1), (float(small), d), (2.0 * n * root * tau2, d * d - 1), (4.0 * n * root * tau2, 1)]
    return sorted([(value, times) for value, times in [*found, (float(large), d)] if times])


def even_hessian(prompts: Prompts, weights: Weights, *, skip: bool = False) -> Float[np.ndarray, "k k"]:
    """Second derivatives of the even loss in (u, b), or (u, b, h) with ``skip``, where u = b = h = 0.

    That of the whole loss too wherever Q is optimal.
    """
    p, n, Sig = prompts, prompts.n, prompts.Sig
    A, c = weights.A, weights.c
    H = A @ Sig @ A.T
    uu = n * (n + 1) * Sig @ H @ Sig + n * np.sum(H * Sig) * Sig
    bu = c * Sig @ A.T @ p.C
    rows = [[uu, bu.T], [bu, c**2 * n * (n + 2) * p.Ev2 * Sig]]
    if skip:
        hu, hb = n * Sig @ A.T @ Sig, c * n * p.v1 * Sig
        rows = [[*rows[0], hu.T], [*rows[1], hb.T], [hu, hb, Sig]]
    return 2.0 * np.block(rows)


def good_path_sharpness(prompts: Prompts) -> float:
    """Largest eigenvalue of the Hessian in (c, A) at the balanced minimum; 4 n sqrt(d) tau2 for isotropic prompts.

    Where Sig and T are diagonal, entries of A off its diagonal are eigenvectors, and c with the diagonal is a block.
    """
    p, d = prompts, prompts.d
    minimum = balanced_minimum(p)
    if not (np.any(p.Sig - np.diag(np.diag(p.Sig))) or np.any(p.T - np.diag(np.diag(p.T)))):
        sig, r, a, c = np.diag(p.Sig), np.diag(p.R), np.diag(minimum.A), minimum.c
        block = np.zeros((d + 1, d + 1))
        block[0, 0] = np.sum(sig * r * a**2)
        block[0, 1:] = block[1:, 0] = c * sig * r * a
        block[1:, 1:] = c**2 * np.diag(sig * r)
        apart = c**2 * np.outer(sig, r)[~np.eye(d, dtype=bool)]
        return 2.0 * p.n * max(float(np.linalg.eigvalsh(block)[-1]), float(np.max(apart, initial=0.0)))

    def times(direction: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        dc, dA = direction[0], direction[1:].reshape(d, d)
        dQ = minimum.c * dA.T + dc * minimum.A.T
        dG = 2.0 * p.n * p.Sig @ dQ @ p.R
        return np.concatenate([[np.sum(dG * minimum.A.T)], (minimum.c * dG.T).ravel()])

    start = np.concatenate([[1.0], minimum.A.ravel()])
    if d == 1:
        return float(np.linalg.eigvalsh(np.stack([times(one) for one in np.eye(2)]))[-1])
    operator = LinearOperator((d * d + 1, d * d + 1), matvec=times, dtype=float)
    return float(eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)[0])


def largest_learning_rate(prompts: Prompts, attention: Attention = "sum", *, skip: bool = False) -> float:
    """2/top eigenvalue of the Hessian at the balanced minimum (c^2 = |A|^2): the edge of stability there.

    The sharpest directions are u and b (and h, with ``skip``). A local bound: above it descent can still find a
    flatter minimum (k c, A/k).
    """
    divisor = rate_divisor(prompts.n, attention)
    hessian = even_hessian(prompts, balanced_minimum(prompts), skip=skip)
    shrink = np.ones(len(hessian))
    shrink[: 2 * prompts.d] = divisor**-0.5  # u and b act through the attention, h does not
    top = float(np.linalg.eigvalsh(shrink[:, None] * hessian * shrink)[-1])
    return 2.0 / max(top, good_path_sharpness(prompts) / divisor)


# -- the other path --------------------------------------------------------------------------------------------


def growth_rates(prompts: Prompts) -> tuple[float, float]:
    """Rates at which (c, A) and (u, b) grow from zero: 2n |Sig T Sig|, in Frobenius and in operator norm.

    Their ratio says by how much the good path wins: sqrt(d) on isotropic prompts, near 1 on a steep spectrum.
    """
    product = prompts.Sig @ prompts.T @ prompts.Sig
    return 2.0 * prompts.n * float(np.linalg.norm(product)), 2.0 * prompts.n * float(np.linalg.norm(product, 2))


def rival_minimum(prompts: Prompts, *, skip: bool = False) -> Weights:
    """Where the bad path ends when Sig and T commute: u and b along the direction of the largest lam^2 t.

    By reflection symmetry gradient flow from there keeps A diagonal in the common eigenbasis. It ends in the global
    minimum or, on a steep spectrum, in a worse stationary point of the loss; that this is a minimum among all weights
    too is not checked here. Without ``skip`` h stays zero; with it the path was seen to reach the global minimum.
    Integrated numerically; unique up to rescaling (k u, k c, A/k, b/k) and signs.

    Raises:
        ValueError: if Sig and T do not commute.
        ArithmeticError: if the flow does not settle.
    """
    lam, t, basis = common_spectra(prompts)
    d, top = prompts.d, int(np.argmax(lam**2 * t))
    diagonal = Prompts.commuting(prompts.n, lam, t, prompts.s2)
    unit = np.eye(d)[top]

    def unpack(x: Float[np.ndarray, " k"]) -> Weights:
        return Weights(x[0] * unit, float(x[2]), np.diag(x[4:]), x[1] * unit, x[3] * unit)

    def slope(x: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        g = gradient(diagonal, unpack(x))
        return np.concatenate([[g.u[top], g.b[top], g.c, g.h[top] if skip else 0.0], np.diag(g.A)])

    scale = math.sqrt(float(np.max(np.diag(optimal_preconditioner(diagonal)))))
    start = scale * np.array([1e-2, 1e-2, 1e-5, 0.0, *np.full(d, 1e-5)])
    end = SETTLED / growth_rates(diagonal)[1]
    flow = solve_ivp(lambda _, x: -slope(x), (0.0, end), start, method="LSODA", rtol=1e-8, atol=1e-12 * scale)
    x = root(slope, flow.y[:, -1], method="lm", options={"xtol": 1e-15, "ftol": 1e-15}).x
    if not np.max(np.abs(slope(x))) * scale < FLAT * prompts.v1:
        raise ArithmeticError(f"the flow along the bad path did not settle: slope {np.max(np.abs(slope(x))):.3g}")
    u, c, A, b, h = unpack(x)
    return Weights(basis @ u, c, basis @ A @ basis.T, basis @ b, basis @ h)


def common_spectra(
    prompts: Prompts,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """lam, t and the orthogonal basis in which Sig = diag(lam) and T = diag(t), if the two commute."""
    Sig, T = prompts.Sig, prompts.T
    size = float(np.linalg.norm(Sig) * np.linalg.norm(T))
    if np.linalg.norm(Sig @ T - T @ Sig) > COMMUTING * size:
        raise ValueError("Sig and T do not commute: they have no common eigenvectors")
    if not (np.any(Sig - np.diag(np.diag(Sig))) or np.any(T - np.diag(np.diag(T)))):
        return np.diag(Sig).copy(), np.diag(T).copy(), np.eye(prompts.d)
    weight = math.sqrt(2.0) * np.linalg.norm(Sig) / max(float(np.linalg.norm(T)), 1e-300)
    _, basis = np.linalg.eigh(Sig + weight * T)
    return np.diag(basis.T @ Sig @ basis).copy(), np.diag(basis.T @ T @ basis).copy(), basis


# -- parts -----------------------------------------------------------------------------------------------------


def _best_q(q0: float, n: int, d: int, s2: float, tau2: float, attention: Attention) -> float:
    """q* of the logistic curve, after a look at its start."""
    if not (math.isfinite(q0) and q0 > 0):
        raise ValueError(f"q0 must be positive, not {q0}: nothing grows from a start of exactly zero")
    return optimal_step(n, d, s2, tau2) * rate_divisor(n, attention)


def _commuting_flow(
    times: Float[np.ndarray, " times"],
    lam: Float[np.ndarray, " d"],
    t: Float[np.ndarray, " d"],
    n: int,
    s2: float,
    start: Float[np.ndarray, " d"],
    c0: float,
    power: int,
    timed: bool,
) -> FlowPath:
    """Integrates x and c with q = c x^power: x' = 2n c lam^2 t (1 - q/q*) x^(power-1), c' = sum 2n x^power (..)."""
    prompts = Prompts.commuting(n, lam, t, s2)
    best = np.diag(optimal_preconditioner(prompts))
    at = np.asarray(times, dtype=float)
    if at.ndim != 1 or not len(at) or not np.all(np.isfinite(at)) or np.any(np.diff(at) < 0) or at[0] < 0:
        raise ValueError("times must be a vector of finite, nondecreasing numbers, none of them negative")
    x0 = np.asarray(start, dtype=float)
    if x0.shape != best.shape or not (np.all(np.isfinite(x0)) and math.isfinite(c0)):
        raise ValueError(f"the start must be {len(best)} finite numbers and a finite c0")
    if not (np.any(x0) and (c0 or power == 1)):
        raise ValueError("the start lies on a saddle: nothing grows from it")
    drive = 2.0 * n * np.diag(prompts.Sig) ** 2 * np.diag(prompts.T)
    inverse = np.divide(1.0, best, out=np.zeros_like(best), where=best > 0)
    first, parts, slope = np.append(x0, c0), (drive, inverse, power), typing.cast(typing.Any, _slope)
    half = np.full(len(best), math.inf if at[-1] == 0 else math.nan)
    distinct, back = np.unique(at, return_inverse=True)
    least = 1e-12 * float(np.min(np.abs(first[first != 0])))
    if at[-1] == 0:
        states = first[None]
    elif timed:
        crossings = [_crossing(i, best[i], power) for i in range(len(best))]
        span = (0.0, float(at[-1]))
        solved = solve_ivp(
            slope, span, first, "LSODA", distinct, events=crossings, args=parts, rtol=RELATIVE, atol=least
        )
        if not solved.success:
            raise ArithmeticError(f"the flow was not integrated: {solved.message}")
        states = solved.y.T
        half = np.array([found[0] if len(found) else math.inf for found in solved.t_events or ()])
    else:
        wanted = distinct if distinct[0] == 0 else np.append(0.0, distinct)
        states, told = odeint(
            slope, first, wanted, args=parts, tfirst=True, full_output=True,
            rtol=RELATIVE, atol=least, mxstep=MOST_STEPS,
        )  # fmt: skip
        if told["message"] != "Integration successful.":
            raise ArithmeticError(f"the flow was not integrated: {told['message']}")
        states = states[-len(distinct) :]
    q = (states[:, -1:] * states[:, :-1] ** power)[back]
    return FlowPath(q, odd_loss(prompts, q[:, :, None] * np.eye(len(best))), half)


@njit(nogil=True, cache=True, error_model="numpy")
def _slope(_, state, drive, inverse, power):
    """Derivatives (d + 1,) of x and c, for both flows: integrators ask for them in every step."""
    d, out = drive.size, np.empty(drive.size + 1)
    c, total = state[d], 0.0
    for i in range(d):
        x = state[i]
        grown = x if power == 1 else x * x
        pull = drive[i] * (1.0 - c * grown * inverse[i])
        out[i] = c * pull if power == 1 else c * pull * x
        total += pull * grown
    out[d] = total
    return out


def _crossing(i: int, best: float, power: int) -> Callable[[float, Float[np.ndarray, " k"]], float]:
    """The event q_i = q_i*/2 of :func:`solve_ivp`."""

    def height(_: float, state: Float[np.ndarray, " k"], *parts: object) -> float:
        return float(state[-1] * state[i] ** power - best / 2.0)

    return height
