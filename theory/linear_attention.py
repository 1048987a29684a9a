r"""Linear self-attention on prompts of linear regression: its population loss, and why one gradient step is optimal.

Model. A prompt has a task vector ``w ~ N(0, T)``, covariates ``x_1..x_n, x_q ~ N(0, Sig)``, labels
``y_i = w.x_i + N(0, s2)``; the label of the query, ``y_q``, is as noisy as the others, so that every loss here
contains ``s2``. One layer of linear attention reads the tokens ``(x_i, y_i)`` and the query ``(x_q, 0)``:

    yhat = x_q . [ Q g + A' S u + c |y|^2 b + h ],   g = X'y,  S = X'X,   Q = c A' + b u'.

``(u, c) = W_V'h``, ``[A; b'] = `` the first d columns of ``W_K'W_Q``, and the ``h`` here is the first d entries of
the output vector, the skip from the query. ``Q g`` is odd in y, the rest is even and only adds loss. With ``mean``
attention the sum over tokens is divided by n. Loss: ``L = E (yhat - y_q)^2``, without a factor 1/2.

Source of the theorem: Mahankali, Hashimoto, Ma, "One Step of Gradient Descent is Provably the Optimal In-Context
Learner with One Layer of Linear Self-Attention", ICLR 2024, arXiv 2307.03576. Everything is exact at finite n and d
unless a docstring says otherwise. Arrays are float64; bad input raises ValueError.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad

from theory.ridge import wishart_trace_moments

Attention = Literal["sum", "mean"]
Covariates = Literal["gaussian", "uniform", "rademacher", "student_t"]
Teacher = Literal["linear", "cubic", "relu", "sign", "tanh", "hermite3", "network"]

NEGATIVE = 1e-10  # eigenvalues of a covariance down to minus this, relative to the largest entry, count as rounding
ASYMMETRIC = 1e-8  # as do differences between a covariance and its transpose


class Weights(NamedTuple):
    """What matters of a layer's weights: u (d,), c, A (d, d), b (d,), and the skip vector h (d,)."""

    u: Float[np.ndarray, " d"]
    c: float
    A: Float[np.ndarray, "d d"]
    b: Float[np.ndarray, " d"]
    h: Float[np.ndarray, " d"]


@dataclass(frozen=True, eq=False)
class Prompts:
    """The law of the prompts: context length n, covariances Sig of x and T of w (d, d), noise variance s2.

    Sig and T are symmetrised where they differ from their transposes by rounding; both may be singular and need
    not commute.

    Raises:
        ValueError: n < 1 or not whole, s2 < 0, a matrix that is not square, finite, symmetric and positive
            semidefinite (eigenvalues above -1e-10 of its largest entry), or labels that are all zero.
    """

    n: int
    Sig: Float[np.ndarray, "d d"]
    T: Float[np.ndarray, "d d"]
    s2: float

    def __post_init__(self) -> None:
        check_length(self.n)
        check_variance("s2", self.s2)
        object.__setattr__(self, "Sig", covariance("Sig", self.Sig))
        object.__setattr__(self, "T", covariance("T", self.T))
        if self.Sig.shape != self.T.shape:
            raise ValueError(f"Sig {self.Sig.shape} and T {self.T.shape} must have one shape")
        if not self.v1 > 0:
            raise ValueError("every label is zero: tr(T Sig) + s2 must be positive")

    @staticmethod
    def isotropic(n: int, d: int, s2: float, tau2: float = 1.0) -> "Prompts":
        """Sig = I, T = tau2 I."""
        return Prompts(n, np.eye(check_dimension(d)), tau2 * np.eye(d), s2)

    @staticmethod
    def commuting(n: int, lam: Float[np.ndarray, " d"], t: Float[np.ndarray, " d"], s2: float) -> "Prompts":
        """Sig = diag(lam), T = diag(t)."""
        return Prompts(n, np.diag(np.asarray(lam, dtype=float)), np.diag(np.asarray(t, dtype=float)), s2)

    @property
    def d(self) -> int:
        """Number of coordinates of a covariate."""
        return len(self.Sig)

    @cached_property
    def v1(self) -> float:
        """E y_i^2 = tr(T Sig) + s2."""
        return float(np.sum(self.T * self.Sig)) + self.s2

    @cached_property
    def Ev2(self) -> float:
        """E (w'Sig w + s2)^2 = v1^2 + 2 tr((T Sig)^2)."""
        product = self.T @ self.Sig
        return self.v1**2 + 2.0 * float(np.sum(product * product.T))

    @cached_property
    def R(self) -> Float[np.ndarray, "d d"]:
        """E g g'/n = (n+1) Sig T Sig + v1 Sig."""
        return (self.n + 1) * self.Sig @ self.T @ self.Sig + self.v1 * self.Sig

    @cached_property
    def C(self) -> Float[np.ndarray, "d d"]:
        """E |y|^2 S = n^2 v1 Sig + 2n Sig T Sig."""
        return self.n**2 * self.v1 * self.Sig + 2.0 * self.n * self.Sig @ self.T @ self.Sig


# -- loss and gradient -----------------------------------------------------------------------------------------


def effective_matrix(weights: Weights) -> Float[np.ndarray, "d d"]:
    """Q = c A' + b u': the matrix that the layer applies to X'y."""
    return weights.c * weights.A.T + np.outer(weights.b, weights.u)


def odd_loss(prompts: Prompts, Q: Float[np.ndarray, "*batch d d"]) -> Float[np.ndarray, "*batch"]:
    """Loss of predicting with the weight vector Q X'y, for one Q or many: a convex quadratic in Q (s2 included)."""
    p, SigQ = prompts, prompts.Sig @ Q
    linear = np.einsum("...ij,ji->...", SigQ, p.Sig @ p.T)
    quadratic = np.einsum("...ij,...ij->...", SigQ @ p.R, Q)
    return np.asarray(p.v1 - 2.0 * p.n * linear + p.n * quadratic)


def even_loss(prompts: Prompts, weights: Weights) -> float:
    """What the even part of the layer adds to the loss: E |A' S u + c |y|^2 b + h|^2 in the norm of Sig, >= 0."""
    p, (u, c, A, b, h) = prompts, weights
    H, Su, Sb = A @ p.Sig @ A.T, p.Sig @ u, p.Sig @ b
    value = p.n * (p.n + 1) * Su @ H @ Su + p.n * np.sum(H * p.Sig) * (u @ Su)
    value += 2.0 * c * Sb @ A.T @ p.C @ u + c**2 * p.n * (p.n + 2) * p.Ev2 * (b @ Sb)
    value += h @ p.Sig @ h + 2.0 * h @ p.Sig @ (p.n * A.T @ Su + c * p.n * p.v1 * b)
    return float(value)


def loss(prompts: Prompts, weights: Weights) -> float:
    """L = E (yhat - y_q)^2 of a layer, all blocks, any Sig and T."""
    return float(odd_loss(prompts, effective_matrix(weights))) + even_loss(prompts, weights)


def gradient(prompts: Prompts, weights: Weights) -> Weights:
    """dL/du, dL/dc, dL/dA, dL/db, dL/dh: a gradient over infinitely many prompts in O(d^3)."""
    p, (u, c, A, b, h) = prompts, weights
    n, Sig, C = p.n, p.Sig, p.C
    GQ = -2.0 * n * Sig @ p.T @ Sig + 2.0 * n * Sig @ effective_matrix(weights) @ p.R
    ASig, Su, Sb, Sh = A @ Sig, Sig @ u, Sig @ b, Sig @ h
    H, quartic = ASig @ A.T, n * (n + 2) * p.Ev2
    mixed = A.T @ C @ u
    du = GQ.T @ b + 2.0 * n * (n + 1) * Sig @ H @ Su + 2.0 * n * np.sum(H * Sig) * Su + 2.0 * c * C.T @ A @ Sb
    du += 2.0 * n * Sig @ A @ Sh
    dc = np.sum(GQ * A.T) + 2.0 * Sb @ mixed + 2.0 * c * quartic * (b @ Sb) + 2.0 * n * p.v1 * (h @ Sb)
    dA = c * GQ.T + 2.0 * n * (n + 1) * np.outer(Su, Su) @ ASig + 2.0 * n * (u @ Su) * Sig @ ASig
    dA += 2.0 * c * np.outer(C @ u, Sb) + 2.0 * n * np.outer(Su, Sh)
    db = GQ @ u + 2.0 * c * Sig @ mixed + 2.0 * c**2 * quartic * Sb + 2.0 * c * n * p.v1 * Sh
    dh = 2.0 * Sh + 2.0 * Sig @ (n * A.T @ Su + c * n * p.v1 * b)
    return Weights(du, float(dc), dA, db, dh)


def at_length(weights: Weights, trained: int, tested: int, attention: Attention) -> Weights:
    """The sum-attention weights that act on prompts of ``tested`` tokens as a layer trained on ``trained`` does.

    Of ``mean`` attention the sum over tokens shrinks by trained/tested; ``weights`` are those of the equivalent sum
    at the length of training.
    """
    factor = length_factor(trained, tested, attention)
    return weights._replace(u=factor * weights.u, c=factor * weights.c)


# -- the optimum -----------------------------------------------------------------------------------------------


def optimal_preconditioner(prompts: Prompts) -> Float[np.ndarray, "d d"]:
    """Q* = T [(n+1) Sig T + v1 I]^(-1), the matrix of the one step of preconditioned gradient descent. Symmetric.

    T may be singular; for regular T it equals [(n+1) Sig + v1 T^(-1)]^(-1). With u = b = h = 0 and c A' = Q* it is
    the global minimum over all weights of the layer.
    """
    p = prompts
    Q = np.linalg.solve((p.n + 1) * p.T @ p.Sig + p.v1 * np.eye(p.d), p.T)
    return (Q + Q.T) / 2.0


def balanced_minimum(prompts: Prompts) -> Weights:
    """The global minimum that gradient flow ends in from a small start: c A' = Q*, c^2 = |A|^2, u = b = h = 0."""
    Q = optimal_preconditioner(prompts)
    c, zero = math.sqrt(float(np.linalg.norm(Q))), np.zeros(prompts.d)
    return Weights(zero, c, Q / c if c > 0 else Q, zero, zero)


def task_spectrum(prompts: Prompts) -> Float[np.ndarray, " d"]:
    """m_i, the eigenvalues of T^(1/2) Sig T^(1/2), descending: all that optimal and Bayes loss depend on."""
    values, vectors = np.linalg.eigh(prompts.T)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return np.maximum(np.linalg.eigvalsh(root @ prompts.Sig @ root)[::-1], 0.0)


def optimal_loss(prompts: Prompts) -> float:
    """L* = s2 + sum_i m_i (m_i + v1)/((n+1) m_i + v1), the least loss of one layer."""
    m, v1 = task_spectrum(prompts), prompts.v1
    return prompts.s2 + float(np.sum(m * (m + v1) / ((prompts.n + 1) * m + v1)))


def optimal_step(n: int, d: int, s2: float, tau2: float = 1.0, kurtosis: float = 3.0, variance: float = 1.0) -> float:
    """eta* = 1/(n + d + k4 - 2 + s2/tau2), the step on iid coordinates of this kurtosis (3: Gaussian), T = tau2 I.

    Coordinates of variance v: tau2 becomes v tau2, and eta is divided by v.
    """
    _check_coordinates(n, d, s2, tau2, kurtosis, variance)
    return 1.0 / (n + d + kurtosis - 2.0 + s2 / (variance * tau2)) / variance


def step_loss(
    eta: Float[np.ndarray, "*batch"] | float,
    n: int,
    d: int,
    s2: float,
    tau2: float = 1.0,
    kurtosis: float = 3.0,
    variance: float = 1.0,
) -> Float[np.ndarray, "*batch"]:
    """Loss of a plain step eta on iid coordinates: L* + n d v^2 tau2 (eta - eta*)^2/(v eta*), least at eta*."""
    best = variance * optimal_step(n, d, s2, tau2, kurtosis, variance)
    signal, step = variance * tau2 * d, variance * np.asarray(eta)
    return np.asarray(s2 + signal * (1.0 - n * best) + n * signal * (step - best) ** 2 / best)


def kurtosis_of(covariates: Covariates, degrees: float = 8.0) -> float:
    """E x^4/(E x^2)^2 of one coordinate: Gaussian 3, uniform 9/5, Rademacher 1, Student t 3 + 6/(degrees - 4)."""
    if covariates == "student_t":
        if not degrees > 4:
            raise ValueError(f"a t distribution has a fourth moment for more than 4 degrees of freedom, not {degrees}")
        return 3.0 + 6.0 / (degrees - 4.0)
    known = {"gaussian": 3.0, "uniform": 1.8, "rademacher": 1.0}
    if covariates not in known:
        raise ValueError(f"covariates must be one of {', '.join([*known, 'student_t'])}, not {covariates!r}")
    return known[covariates]


# -- nonlinear teachers ----------------------------------------------------------------------------------------


class TeacherMoments(NamedTuple):
    """Of a random target f and x ~ N(0, I): A1 = E_f |E_x f x|^2, P2 = E f^2, K = E f^2 |x|^2."""

    A1: float
    P2: float
    K: float


def single_index_moments(phi: Callable[[float], float], d: int) -> TeacherMoments:
    """Moments of f = r phi(w.x), w uniform on the unit sphere, r = +-1, by quadrature on both sides of a kink at 0."""
    check_dimension(d)

    def moment(power: int, of: int) -> float:
        def integrand(z: float) -> float:
            return float(z**power * phi(z) ** of * math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi))

        halves = (quad(integrand, *side, epsabs=1e-13, epsrel=1e-12, limit=200) for side in ((-14, 0), (0, 14)))
        return float(sum(half[0] for half in halves))

    P2 = moment(0, 2)
    return TeacherMoments(moment(1, 1) ** 2, P2, moment(2, 2) + (d - 1) * P2)


def teacher_moments(
    teacher: Teacher, d: int, *, gain: float = 3.0, tau2: float = 1.0, activation: Teacher = "relu"
) -> TeacherMoments:
    """Moments of a family of targets whose law is invariant under rotations and under f -> -f.

    ``linear``: w.x, w ~ N(0, tau2 I). Single index, w on the unit sphere, z = w.x: ``cubic`` z^3, ``relu``, ``sign``,
    ``tanh`` of gain z, ``hermite3`` (z^3 - 3z)/sqrt 6. ``network``: m^(-1/2) sum_k a_k phi(w_k.x) with random signs
    a_k, which has the moments of its ``activation`` at every width m.
    """
    check_dimension(d)
    if teacher == "network":
        if activation in ("linear", "network"):
            raise ValueError(f"the activation of a network must be a single-index function, not {activation!r}")
        return teacher_moments(activation, d, gain=gain)
    if teacher == "linear":
        check_variance("tau2", tau2)
        return TeacherMoments(tau2 * d, tau2 * d, tau2 * d * (d + 2))
    if teacher == "tanh":
        if not math.isfinite(gain):
            raise ValueError(f"gain must be finite, not {gain}")
        return single_index_moments(lambda z: math.tanh(gain * z), d)
    closed = {
        "cubic": TeacherMoments(9.0, 15.0, 15.0 * d + 90.0),
        "relu": TeacherMoments(0.25, 0.5, d / 2.0 + 1.0),
        "sign": TeacherMoments(2.0 / math.pi, 1.0, float(d)),
        "hermite3": TeacherMoments(0.0, 1.0, d + 6.0),
    }
    if teacher not in closed:
        raise ValueError(f"teacher must be one of linear, {', '.join(closed)}, tanh or network, not {teacher!r}")
    return closed[teacher]


def teacher_step(moments: TeacherMoments, n: int, d: int, s2: float) -> float:
    """eta* = A1/(K + (n-1) A1 + s2 d): the plain step that one layer learns from these targets on x ~ N(0, I)."""
    check_length(n)
    check_variance("s2", s2)
    return moments.A1 / (moments.K + (n - 1) * moments.A1 + s2 * check_dimension(d))


def teacher_loss(
    moments: TeacherMoments, n: int, d: int, s2: float, eta: Float[np.ndarray, "*batch"] | float | None = None
) -> Float[np.ndarray, "*batch"]:
    """Loss of a step eta, by default the best one, on a noisy query: P2 + s2 - 2n eta A1 + n eta^2 E |x|^2-terms."""
    best = teacher_step(moments, n, d, s2)
    step = best if eta is None else np.asarray(eta)
    curvature = moments.K + (n - 1) * moments.A1 + s2 * d
    return np.asarray(moments.P2 + s2 - 2.0 * n * step * moments.A1 + n * step**2 * curvature)


# -- tested elsewhere ------------------------------------------------------------------------------------------


def length_factor(trained: int, tested: int, attention: Attention) -> float:
    """What multiplies the effective matrix at another context length: 1 for ``sum``, trained/tested for ``mean``."""
    if attention not in ("sum", "mean"):
        raise ValueError(f"attention must be sum or mean, not {attention!r}")
    ratio = check_length(trained) / check_length(tested)
    return ratio if attention == "mean" else 1.0


def shifted_loss(trained: Prompts, tested: Prompts, attention: Attention = "sum") -> float:
    """Loss on other prompts (n, Sig, T, s2) of the layer that is optimal for the ``trained`` ones, u = b = h = 0."""
    factor = length_factor(trained.n, tested.n, attention)
    return float(odd_loss(tested, factor * optimal_preconditioner(trained)))


def long_mean_limit(trained: Prompts, tested: Prompts | None = None) -> float:
    """Loss of trained ``mean`` attention on endless prompts of the ``tested`` law: its bias stays (limit n' -> oo).

    Isotropic: d tau2 (1 - n eta*)^2 + s2.
    """
    p = trained if tested is None else tested
    bias = np.eye(p.d) - trained.n * optimal_preconditioner(trained) @ p.Sig
    return float(np.sum((p.Sig @ bias) * (bias @ p.T))) + p.s2


def long_sum_growth(trained: Prompts, tested: Prompts | None = None) -> float:
    """Loss/n'^2 of trained ``sum`` attention as the prompts become endless (limit); isotropic d tau2 eta*^2."""
    p = trained if tested is None else tested
    Q = optimal_preconditioner(trained) @ p.Sig
    return float(np.sum((p.Sig @ Q) * (Q @ p.T)))


# -- a task vector with a mean ---------------------------------------------------------------------------------


def prior_mean_weights(prompts: Prompts, w0: Float[np.ndarray, " d"]) -> Weights:
    """One preconditioned step from w0, for w ~ N(w0, T): c A' = Q*, u = -c w0, b = 0, h = w0. Its loss is L*(T)."""
    start = _vector("w0", w0, prompts.d)
    best = balanced_minimum(prompts)
    return best._replace(u=-best.c * start, h=start)


def prior_mean_loss(prompts: Prompts, w0: Float[np.ndarray, " d"]) -> float:
    """Least loss with u = b = h = 0 for w ~ N(w0, T): L*(T + w0 w0'), a mean counts as more spread."""
    start = _vector("w0", w0, prompts.d)
    return optimal_loss(Prompts(prompts.n, prompts.Sig, prompts.T + np.outer(start, start), prompts.s2))


# -- stacked layers --------------------------------------------------------------------------------------------


class Stack(NamedTuple):
    """Least loss of k layers, the coefficients beta (k,) of the polynomial they form, and the steps (k,) ascending."""

    loss: float
    beta: Float[np.ndarray, " k"]
    steps: Float[np.ndarray, " k"]


def stacked_layers(k: int, n: int, d: int, s2: float, tau2: float = 1.0) -> Stack:
    """k stacked layers that each apply a plain step, on isotropic prompts: k steps of gradient descent, exactly.

    They predict with the weight vector q(S) X'y, where 1 - S q(S) = prod_j (1 - a_j S), so that the loss is a
    quadratic in the coefficients of q, given by E tr S^j. It is symmetric in the steps a_j: which layer takes which
    of them is open. That full matrices in place of steps do no better is measured, not proven.

    Raises:
        ArithmeticError: if the best polynomial has complex roots, so that no real steps form it.
    """
    if k != int(k) or k < 1:
        raise ValueError(f"the number of layers must be a whole number of at least 1, not {k}")
    check_variance("s2", s2)
    check_variance("tau2", tau2)
    if not tau2 > 0:
        raise ValueError("tau2 must be positive: there is nothing to learn")
    mu = [Fraction(moment) for moment in wishart_trace_moments(check_dimension(d), check_length(n), 2 * k)]
    signal, noise = Fraction(tau2), Fraction(s2)
    scale = [Fraction(n) ** -(i + 1) for i in range(k)]  # of S/n, so that the floats below are of order one
    G = [[(signal * mu[i + j + 2] + noise * mu[i + j + 1]) * scale[i] * scale[j] for j in range(k)] for i in range(k)]
    v = [signal * mu[i + 1] * scale[i] for i in range(k)]
    solved = _solve(G, v)
    least = signal * d + noise - sum((a * b for a, b in zip(v, solved, strict=True)), Fraction(0))
    beta = np.array([float(x) for x in solved])
    roots = np.roots(np.append(-beta[::-1], 1.0))
    if np.any(np.abs(roots.imag) > 1e-7 * np.abs(roots)):
        raise ArithmeticError(f"the best polynomial of degree {k} has complex roots: no real steps form it")
    return Stack(float(least), beta * np.array([float(x) for x in scale]), np.sort(1.0 / (n * roots.real)))


# -- checks ----------------------------------------------------------------------------------------------------


def check_length(n: int) -> int:
    """n, if it is a whole number of at least 1."""
    if not (math.isfinite(n) and n == int(n) and n >= 1):
        raise ValueError(f"n must be a whole number of at least 1, not {n}")
    return int(n)


def check_dimension(d: int) -> int:
    """d, if it is a whole number of at least 1."""
    if not (math.isfinite(d) and d == int(d) and d >= 1):
        raise ValueError(f"d must be a whole number of at least 1, not {d}")
    return int(d)


def check_variance(name: str, value: float) -> float:
    """The value, if it is finite and not negative."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, not {value}")
    return float(value)


def covariance(name: str, matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The matrix, symmetrised, if it is a covariance up to rounding."""
    M = np.asarray(matrix, dtype=float)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not M.size:
        raise ValueError(f"{name} must be a square matrix, not of shape {M.shape}")
    if not np.all(np.isfinite(M)):
        raise ValueError(f"{name} must be finite")
    size = float(np.max(np.abs(M)))
    if np.max(np.abs(M - M.T)) > ASYMMETRIC * size:
        raise ValueError(f"{name} must be symmetric: it differs from its transpose by {np.max(np.abs(M - M.T)):.3g}")
    M = (M + M.T) / 2.0
    least = float(np.linalg.eigvalsh(M)[0])
    if least < -NEGATIVE * size:
        raise ValueError(f"{name} must be positive semidefinite: its least eigenvalue is {least:.3g}")
    return M


def _check_coordinates(n: int, d: int, s2: float, tau2: float, kurtosis: float, variance: float) -> None:
    check_length(n)
    check_dimension(d)
    check_variance("s2", s2)
    if not (math.isfinite(tau2) and tau2 > 0 and math.isfinite(variance) and variance > 0):
        raise ValueError(f"tau2 and variance must be finite and positive, not {tau2} and {variance}")
    if not (math.isfinite(kurtosis) and kurtosis >= 1):
        raise ValueError(f"a kurtosis is at least 1, not {kurtosis}")


def _vector(name: str, values: Float[np.ndarray, " d"], d: int) -> Float[np.ndarray, " d"]:
    vector = np.asarray(values, dtype=float)
    if vector.shape != (d,) or not np.all(np.isfinite(vector)):
        raise ValueError(f"{name} must be {d} finite numbers")
    return vector


def _solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Gaussian elimination in exact arithmetic; the matrix is positive definite, so no pivot is zero."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        for j in range(size):
            if j != i:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return [rows[i][size] / rows[i][i] for i in range(size)]
