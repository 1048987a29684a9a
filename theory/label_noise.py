r"""Label noise picks the point of the zero-loss set: closed forms for quadratically parametrised regression.

Model: ``beta = v*v`` (``signed``: ``beta = u*u - w*w``), loss ``(1/4n) sum_i (<x_i, beta> - y_i)^2``, start
``v = u = w = init_scale``; X (n, d), y (n,), curvature weights ``c_j = (1/n) sum_i x_ij^2``. Slow time is
``T = sum_k (learning_rate_k noise_std_k)^2``, for noise of standard deviation noise_std on one label a step.

Main source: HaoChen, Wei, Lee, Ma, "Shape Matters", COLT 2021, arXiv 2006.08680. The limiting flow is the
theorem of Li, Wang and Arora, arXiv 2110.06914, specialised to this model; its closed form follows from
multiplicative updates (compare Pillaud-Vivien, Reygner and Flammarion, arXiv 2206.09841). Start and end
points: Woodworth et al. 2020, arXiv 2002.09277. Each docstring says whether a result is exact, a limit, or a
heuristic.
"""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from theory.linear_program import linear_program
from theory.mirror import Infeasible as Infeasible
from theory.mirror import Projection as Projection
from theory.mirror import projection as projection
from theory.mirror import projection_path

SUPPORT = 1e-7  # entries of an LP vertex below this fraction of the largest one are off its support
KNOTS = 48  # of the batch-one clock, per stretch of T_eff
CLOCK_STEP = 0.01  # the first knot is at CLOCK_STEP/max(c)
CLOCK_GROWTH = 1.05  # ratio of the distances of neighbouring knots


# ---- the path: limiting flow, start, end -------------------------------------------------------------------


def slow_flow(
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    init_scale: float,
    slow_times: Float[np.ndarray, " times"],
    *,
    signed: bool = False,
    find_zeros: bool = True,
) -> Float[np.ndarray, "times d"]:
    """beta(T) of label noise in the limit of small learning rate, at nondecreasing slow times.

    The entropy projection of ``init_scale^2 exp(-c T)`` on X beta = y: an exact solution of the limiting
    flow. Repeated times cost nothing. Raises Infeasible if no admissible beta interpolates. ``find_zeros``: see
    ``projection_path``.
    """
    c = np.asarray(c, dtype=np.float64)
    start = _log_start(init_scale, c.size)
    return projection_path(X, y, start, -c, slow_times, signed=signed, find_zeros=find_zeros)


def slow_flow_velocity(
    beta: Float[np.ndarray, " d"], X: Float[np.ndarray, "n d"], c: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " d"]:
    """d beta/dT of the limiting flow at a nonnegative interpolator; exact (Li, Wang and Arora 2022).

    ``-[B c - B X^T (X B X^T)^{-1} X B c]`` with B = diag(beta), as a least-squares residual (needs no
    inverse). The signed model is this one with features [X, -X] and beta = (u*u, w*w).
    """
    root = np.sqrt(beta)
    normals = (X * root).T
    force = root * c
    return -root * (force - normals @ np.linalg.lstsq(normals, force)[0])


def gradient_flow_limit(
    X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], init_scale: float, *, signed: bool = False
) -> Float[np.ndarray, " d"]:
    """Where gradient flow without noise converges; exact (Woodworth et al. 2020). Raises Infeasible."""
    return projection(X, y, _log_start(init_scale, X.shape[1]), signed=signed).beta


def min_weighted_l1(
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    *,
    signed: bool = False,
) -> Float[np.ndarray, " d"]:
    """The end point of the slow flow, T -> infinity: minimise sum_j c_j |beta_j| subject to X beta = y.

    beta is nonnegative unless ``signed``. A linear program; the limit is exact where its solution is unique.
    Raises Infeasible if nothing interpolates.
    """
    d = X.shape[1]
    columns = np.hstack([X, -X]) if signed else X
    cost = np.concatenate([c, c]) if signed else np.asarray(c)
    status, x = linear_program(cost, columns, y, y)
    if status == "infeasible":
        kind = "" if signed else "nonnegative "
        raise Infeasible(f"no interpolating {kind}beta: make y = X beta_star for an admissible beta_star")
    if status == "unbounded":
        raise ValueError("c must be nonnegative: the weighted l1 norm has no minimum")
    return x[:d] - x[d:] if signed else x


def decay_rate(
    X: Float[np.ndarray, "n d"],
    beta_lp: Float[np.ndarray, " d"],
    c: Float[np.ndarray, " d"],
    *,
    signed: bool = False,
) -> float:
    """gstar: beta(T) approaches the LP solution like exp(-gstar T), its squared error twice as fast; a limit.

    The largest slack g of a dual mu with ``X_S^T mu = c_S`` (``signed``: c_S sign beta_S) on the support S
    and ``X_j^T mu + g <= c_j`` (``|X_j^T mu| + g <= c_j``) off it. Infinite when beta_lp is pinned by the
    constraints alone; negative when beta_lp is not optimal; nan when no mu fits the support at all.

    A support of n entries leaves one mu. Otherwise g is the least cost of leaving beta_lp in a null direction w of X,
    ``c_S.w_S + sum_off c_j |w_j|`` at ``sum_off |w_j| = 1``: the dual linear program, half the work of the primal one.
    """
    n = X.shape[0]
    on = np.abs(beta_lp) > SUPPORT * np.abs(beta_lp).max()
    if on.all():
        return math.inf
    sign = np.sign(beta_lp[on]) if signed else 1.0
    off = np.hstack([X[:, ~on], -X[:, ~on]]) if signed else X[:, ~on]
    bound = np.tile(c[~on], 2) if signed else c[~on]
    fit = c[on] * sign
    if len(fit) == n and (mu := _only_dual(X[:, on], fit)) is not None:
        return float(np.min(bound - off.T @ mu))
    right = np.append(np.zeros(n), 1.0)
    status, w = linear_program(
        cost := np.append(fit, bound),
        np.block([[X[:, on], off], [np.zeros(len(fit)), np.ones(len(bound))]]),
        right,
        right,
        np.append(np.full(len(fit), -math.inf), np.zeros(len(bound))),
    )
    if status == "infeasible":
        return math.inf
    return float(cost @ w) if status == "optimal" else math.nan


def _only_dual(on: np.ndarray, fit: np.ndarray) -> np.ndarray | None:
    """The mu with on^T mu = fit for square ``on``; None where that is singular, or as good as."""
    try:
        mu = np.linalg.solve(on.T, fit)
    except np.linalg.LinAlgError:
        return None
    return mu if np.max(np.abs(on.T @ mu - fit)) <= 1e-10 * np.max(np.abs(fit)) else None


def time_to_error(eps: float, gstar: float, init_scale: float) -> float:
    """Slow time to squared error eps, heuristic: log(1/eps)/(2 gstar) + log(init_scale^2)/gstar."""
    return math.log(1.0 / eps) / (2.0 * gstar) + math.log(init_scale**2) / gstar


# ---- when the end point is the truth -----------------------------------------------------------------------


@lru_cache(maxsize=1024)
def recovery_threshold(dim: int, sparsity: int, *, signed: bool = False) -> float:
    """n_star: L1 recovers a sparse truth from more Gaussian rows than this; sharp in the limit of size.

    Statistical dimension of the descent cone (Donoho and Tanner 2005, 2009; Amelunxen, Lotz, McCoy and Tropp
    2014): ``d min_t rho (1+t^2) + (1-rho) m [(1+t^2) Q(t) - t phi(t)]``, rho = sparsity/dim, m = 1
    (nonnegative) or 2 (signed).
    """
    if not 1 <= sparsity <= dim:
        raise ValueError(f"sparsity must lie in 1..{dim}, not {sparsity}")
    rho, sides = sparsity / dim, 2.0 if signed else 1.0

    def tail(t: float) -> float:
        return 0.5 * math.erfc(t / math.sqrt(2.0))

    def density(t: float) -> float:
        return math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)

    low, high = 0.0, 40.0  # the derivative 2 rho t + (1-rho) m 2 [t Q - phi] increases; Q(40) underflows
    while low < (middle := 0.5 * (low + high)) < high:
        if rho * middle + (1.0 - rho) * sides * (middle * tail(middle) - density(middle)) < 0.0:
            low = middle
        else:
            high = middle
    return dim * (rho * (1.0 + low * low) + (1.0 - rho) * sides * ((1.0 + low * low) * tail(low) - low * density(low)))


def positive_null_vector_probability(n: int, d: int) -> float:
    """P(n Gaussian rows in d dimensions have a positive null vector) = P(Bin(d-1, 1/2) >= n); exact.

    Wendel 1962. Without such a vector the nonnegative interpolators are bounded, and so is gradient descent's
    error.
    """
    from scipy.special import bdtrc

    if n <= 0:
        return 1.0
    return float(bdtrc(n - 1, d - 1, 0.5)) if n <= d - 1 else 0.0


# ---- the regulariser and the corrections for a finite learning rate ----------------------------------------


def trace_hessian(beta: Float[np.ndarray, "*batch d"], c: Float[np.ndarray, " d"]) -> Float[np.ndarray, "*batch"]:
    """tr H = 2 sum_j c_j |beta_j| at an interpolator; exact for v*v, the least over the fibre if signed."""
    return 2.0 * (np.abs(beta) @ c)


def stationary_floor(
    learning_rate: Float[np.ndarray, "*k"] | float, noise_std: Float[np.ndarray, "*k"] | float, l1_norm: float
) -> Float[np.ndarray, "*k"] | float:
    """E|beta - beta_star|^2 at stationarity: learning_rate noise_std^2 |beta_star|_1.

    Full-batch gradient with label noise; leading order in the learning rate.
    """
    return learning_rate * noise_std**2 * l1_norm


def residual_covariance(
    X: Float[np.ndarray, "n d"], beta: Float[np.ndarray, " d"], learning_rate: float, noise_std: float
) -> Float[np.ndarray, "n n"]:
    """E[res res^T] = learning_rate noise_std^2 X B X^T, full batch with label noise; leading order."""
    return learning_rate * noise_std**2 * ((X * beta) @ X.T)


def gradient_flow_kl(beta0: Float[np.ndarray, " d"], init_scale: float) -> float:
    """KL(beta0 || init_scale^2); exact.

    Twice the integral over time of the mean squared residual along gradient flow from init_scale to beta0.
    """
    positive = beta0[beta0 > 0]
    scale = init_scale**2
    return float((positive * np.log(positive / scale)).sum() - beta0.sum() + scale * beta0.size)


def startup_time(learning_rate: float, kl: float) -> float:
    """Slow time that a batch-one run gains while its loss falls: learning_rate KL/2, whatever the noise.

    Leading order in the learning rate, with x_ij^2 replaced by its mean c_j (heuristic for Gaussian data).
    """
    return 0.5 * learning_rate * kl


class WeightedNorms:
    """c.beta(T) of the slow flow at the knots of the batch-one clock, followed as far as anybody asks.

    Many learning rates on one data set share it. ``start`` (d,) is beta(0).
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n d"],
        y: Float[np.ndarray, " n"],
        c: Float[np.ndarray, " d"],
        init_scale: float,
        *,
        find_zeros: bool = True,
    ) -> None:
        self.X, self.y, self.c, self.init_scale, self.find_zeros = X, y, c, init_scale, find_zeros
        self.start = gradient_flow_limit(X, y, init_scale)
        self._knots, self._norms = [np.zeros(1)], [np.atleast_1d(c @ self.start)]

    def stretches(self, number: int) -> tuple[Float[np.ndarray, " knots"], Float[np.ndarray, " knots"]]:
        """Knots and norms of so many stretches, each of KNOTS knots, after T = 0."""
        while len(self._knots) <= number:
            width = CLOCK_STEP / np.max(self.c) * CLOCK_GROWTH ** (KNOTS * (len(self._knots) - 1))
            stretch = self._knots[-1][-1] + np.cumsum(width * CLOCK_GROWTH ** np.arange(KNOTS))
            beta = slow_flow(self.X, self.y, self.c, self.init_scale, stretch, find_zeros=self.find_zeros)
            self._knots.append(stretch)
            self._norms.append(beta @ self.c)
        return np.concatenate(self._knots[: number + 1]), np.concatenate(self._norms[: number + 1])


def batch_one_clock(
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    init_scale: float,
    learning_rate: float,
    slow_times: Float[np.ndarray, " times"],
    startup: bool = True,
    norms: WeightedNorms | None = None,
) -> Float[np.ndarray, " times"]:
    """T_eff of batch-one steps with label noise at nominal slow times: the residual is noise too (heuristic).

    Solves ``T + T_0 = int_0^{T_eff} (1 - q)``, q = learning_rate sum_j c_j beta_j(T_eff) along the slow flow,
    T_0 the start-up time. q never grows along the flow. Where it is 1 or more there, or at the start of the
    run (learning_rate init_scale^2 sum c), the method diverges: no clock is claimed and every T_eff is inf. ``norms``
    are those of the same data and start, where many clocks are asked for.
    """
    from scipy.interpolate import CubicHermiteSpline, CubicSpline

    wanted = np.asarray(slow_times, dtype=np.float64)
    if (wanted < 0).any() or not np.isfinite(wanted).all():
        raise ValueError("slow_times must be finite and nonnegative")
    norms = WeightedNorms(X, y, c, init_scale) if norms is None else norms
    beta0 = norms.start
    if learning_rate * max(float(c @ beta0), init_scale**2 * float(np.sum(c))) >= 1.0:
        return np.full(wanted.shape, math.inf)
    if startup:
        wanted = wanted + startup_time(learning_rate, gradient_flow_kl(beta0, init_scale))
    elapsed, number = np.zeros(1), 0
    while wanted.size and elapsed[-1] <= wanted.max():
        number += 1
        knots, norm = norms.stretches(number)
        gain = 1.0 - learning_rate * norm
        elapsed = CubicSpline(knots, gain).antiderivative()(knots)
    return CubicHermiteSpline(elapsed, knots, 1.0 / gain)(wanted) if wanted.size else wanted


def label_noise_clock(
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    init_scale: float,
    slow_times: Float[np.ndarray, " times"],
    learning_rate: Float[np.ndarray, " times"] | float,
    noise_std: Float[np.ndarray, " times"] | float,
    *,
    kurtosis: float = 4.5,
) -> Float[np.ndarray, "times d"]:
    """-shrink_j: the drift of log beta_j made by each slow time; full-batch gradient with label noise.

    ``c_j int [1 + eta h_j + kurtosis eta^2 delta^2] dT``, ``h_j = x_.j^T X B X^T x_.j/(n^2 c_j)``: next order
    in the learning rate eta, from the stationary residual (heuristic). kurtosis is 4.5 for Gaussian label
    noise on Gaussian x, 1.5 on Rademacher x. learning_rate and noise_std are the schedule at the given
    (nondecreasing) times; the integral is a trapezoid over them, from T = 0 with the first values.
    """
    times = np.asarray(slow_times, dtype=np.float64)
    eta = np.broadcast_to(np.asarray(learning_rate, dtype=np.float64), times.shape)
    delta = np.broadcast_to(np.asarray(noise_std, dtype=np.float64), times.shape)
    if times.size == 0:
        return np.empty((0, X.shape[1]))
    if times[0] > 0:
        head = label_noise_clock(
            X, y, c, init_scale, np.append(0.0, times), np.append(eta[0], eta), np.append(delta[0], delta),
            kurtosis=kurtosis,
        )  # fmt: skip
        return head[1:]
    betas = slow_flow(X, y, c, init_scale, times)
    gram = X.T @ X / X.shape[0]
    rate = c * (1.0 + kurtosis * (eta * delta) ** 2)[:, None] + eta[:, None] * (betas @ gram**2)
    steps = 0.5 * (rate[1:] + rate[:-1]) * np.diff(times)[:, None]
    return np.vstack([np.zeros(X.shape[1]), np.cumsum(steps, axis=0)])


def clock_ratio(
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    c: Float[np.ndarray, " d"],
    init_scale: float,
    slow_times: Float[np.ndarray, " times"],
    learning_rate: Float[np.ndarray, " times"] | float,
    noise_std: Float[np.ndarray, " times"] | float,
    *,
    kurtosis: float = 4.5,
) -> Float[np.ndarray, " times"]:
    """Mean over j of -shrink_j/(c_j T) of ``label_noise_clock``: how much faster than T the clock ran.

    At T = 0 its limit, the ratio of the rates, is not formed: the entry is nan.
    """
    shrink = label_noise_clock(X, y, c, init_scale, slow_times, learning_rate, noise_std, kurtosis=kurtosis)
    times = np.asarray(slow_times, dtype=np.float64)
    safe = np.where(times > 0, times, math.nan)
    return (shrink / c).mean(axis=1) / safe


# ---- spherical Gaussian noise ------------------------------------------------------------------------------


def norm_growth(X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], beta: Float[np.ndarray, " d"]) -> float:
    """d E|v|^2/ds at an interpolator beta, s = sum (learning_rate noise_std)^2, additive noise; a limit.

    ``d - 2n - y^T A^{-1} X (1 - 2h)``, A = X B X^T, h_j = beta_j x_.j^T A^{-1} x_.j: tends to d - 2n for a
    large norm. It is true only with every beta_j well away from 0: judge ``beta.min()``. nan when A is
    exactly singular.
    """
    n, d = X.shape
    A = (X * beta) @ X.T
    try:
        solved = np.linalg.solve(A, np.column_stack([X, y]))
    except np.linalg.LinAlgError:
        return math.nan
    leverage = beta * np.einsum("ij,ij->j", X, solved[:, :d])
    return float(d - 2 * n - solved[:, d] @ X @ (1.0 - 2.0 * leverage))


def equipartition_level(n: int, learning_rate: float, noise_std: float) -> float:
    """E sum_i res_i^2 under stationary additive noise: n^2 learning_rate noise_std^2; leading order."""
    return n**2 * learning_rate * noise_std**2


# ---- cartoons ----------------------------------------------------------------------------------------------


def log_walk_drift(x: Float[np.ndarray, "*k"] | float) -> Float[np.ndarray, "*k"] | float:
    """E log|1 + x z|, z = +-1: (1/2) log(1 - x^2) < 0 though E (1 + x z)^2 > 1; exact for |x| < 1."""
    return 0.5 * np.log1p(-np.square(x))


def planar_end_point(a: float) -> tuple[float, float]:
    """End of the slow flow on beta_1 + a beta_2 = 2, a > 0: (2, 0) for a > 1, (0, 2/a) for a < 1.

    At a = 1 there is no drift and (1, 1), the start from equal weights, stays. Exact.
    """
    if not a > 0:
        raise ValueError(f"a must be positive, not {a}")
    if a == 1.0:
        return 1.0, 1.0
    return (2.0, 0.0) if a > 1.0 else (0.0, 2.0 / a)


def planar_flow(a: float, init_scale: float, slow_times: Float[np.ndarray, " times"]) -> Float[np.ndarray, "times 2"]:
    """The slow flow for one sample x = (1, a), y = 2, at nondecreasing slow times."""
    return slow_flow(np.array([[1.0, a]]), np.array([2.0]), np.array([1.0, a * a]), init_scale, slow_times)


def _log_start(init_scale: float, d: int) -> np.ndarray:
    """log(init_scale^2) for d weights; init_scale = 0 is a fixed point of the dynamics and refused."""
    scale = np.asarray(init_scale, dtype=np.float64)
    if not (np.isfinite(scale).all() and (scale != 0).all()):
        raise ValueError("init_scale must be finite and not 0 (weights at 0 never move)")
    return np.broadcast_to(2.0 * np.log(np.abs(scale)), (d,)).copy()
