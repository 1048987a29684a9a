r"""Deep linear encoders trained by the spectral contrastive loss: how much weight each layer gives each feature.

d independent features: clean ``x_j = phi_j e_j`` with random signs e, and a view adds ``nu_j N(0, 1)``. With
``p = phi^2`` (moment across views), ``q = phi^2 + nu^2`` (moment of a view), ``P = diag(p)``, ``Q = diag(q)`` and
``E = W_L ... W_1`` the loss is ``-2 tr(E P E^T) + tr((E Q E^T)^2)``. Layers are balanced where
``W_{l+1}^T W_{l+1} = W_l W_l^T``; gradient flow keeps the difference, weight decay wd shrinks it as exp(-2 wd t).

Source: Xue, Gan, Ni, Joshi, Mirzasoleiman, "Investigating the Benefits of Projection Head for Representation
Learning", ICLR 2024, arXiv 2403.11391; the diagonal Gaussian model and its closed forms are derived here. Exact, but
for :func:`downstream_mse`, a deterministic equivalent.
"""

import math

import numpy as np
from jaxtyping import Float

BISECTIONS = 70  # to the last bit of a double, whatever the bracket here


def moments(
    strengths: Float[np.ndarray, " d"], noises: Float[np.ndarray, " d"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """p = phi^2 and q = phi^2 + nu^2. Raises ValueError unless phi > 0 and nu >= 0."""
    phi, nu = np.asarray(strengths, dtype=np.float64), np.asarray(noises, dtype=np.float64)
    if not ((phi > 0.0).all() and (nu >= 0.0).all()):
        raise ValueError("strengths must be positive and noises not negative")
    return phi**2, phi**2 + nu**2


def minimiser_gram(p: Float[np.ndarray, " d"], q: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """M = p/q^2, the diagonal of E^T E at the minimum, if E has at least d outputs."""
    return np.asarray(p / q**2)


def min_loss(p: Float[np.ndarray, " d"], q: Float[np.ndarray, " d"], outputs: int) -> float:
    """Least loss of k outputs, -sum of the k largest (p_j/q_j)^2: only those features are kept."""
    return -float(np.sum(np.sort((p / q) ** 2)[::-1][:outputs]))


def layer_weights(gram: Float[np.ndarray, " d"], layers: int) -> Float[np.ndarray, "layers+1 d"]:
    """g_l = M^(l/2L), l = 0..L: balanced layers take equal shares of the log-gain of each feature."""
    share = np.arange(layers + 1)[:, None] / (2.0 * layers)
    return np.asarray(np.asarray(gram)[None, :] ** share)


# -- weight decay ------------------------------------------------------------------------------------------------------


def decayed_gram(p: float, q: float, weight_decay: float, layers: int) -> float:
    """Largest root m of 4 (p - q^2 m) m^(1-1/L) = wd, the diagonal of E^T E under weight decay; 0 where none is."""
    if weight_decay == 0.0:
        return p / q**2
    peak, power = _peak(p, q, layers), 1.0 - 1.0 / layers
    if _pull(p, q, peak, power) < weight_decay:
        return 0.0
    return _root(p, q, weight_decay, power, p / q**2, peak)


def smallest_start(p: float, q: float, weight_decay: float, layers: int) -> float:
    """Balanced gain of each layer from which on the feature grows under weight decay; below it, it dies.

    The smaller root of the same equation, to the power 1/2L; about (wd/4p)^(1/2) for two layers. 0 without decay and
    for a single layer, infinite where the feature always dies.
    """
    if weight_decay == 0.0 or layers == 1:
        return 0.0 if decayed_gram(p, q, weight_decay, layers) > 0.0 else math.inf
    peak, power = _peak(p, q, layers), 1.0 - 1.0 / layers
    if _pull(p, q, peak, power) < weight_decay:
        return math.inf
    return _root(p, q, weight_decay, power, 0.0, peak) ** (1.0 / (2.0 * layers))


def largest_decay(p: float, q: float) -> float:
    """8 p^(3/2)/(3 sqrt(3) q), beyond which a feature dies in two layers from every start."""
    return 8.0 * p**1.5 / (3.0 * math.sqrt(3.0) * q)


def _peak(p: float, q: float, layers: int) -> float:
    """Where 4 (p - q^2 m) m^(1-1/L) is largest."""
    return p / q**2 * (layers - 1.0) / (2.0 * layers - 1.0)


def _pull(p: float, q: float, m: float, power: float) -> float:
    return 4.0 * (p - q**2 * m) * (m**power if power > 0.0 else 1.0)


def _root(p: float, q: float, weight_decay: float, power: float, outside: float, inside: float) -> float:
    """Bisection between `outside`, where the pull is below the decay, and `inside`, where it is not."""
    for _ in range(BISECTIONS):
        middle = 0.5 * (outside + inside)
        if _pull(p, q, middle, power) < weight_decay:
            outside = middle
        else:
            inside = middle
    return 0.5 * (outside + inside)


# -- dynamics ----------------------------------------------------------------------------------------------------------


def half_time(p: float, q: float, start: float, layers: int) -> float:
    """When E^T E reaches half of p/q^2 from balanced layers of gain `start`; NaN where it starts above. Exact.

    ln(M/m0 - 1)/(8 p) for one layer, (1/8p) [1/x0 - 1/x1 + (artanh(x1/r) - artanh(x0/r))/r] for two, with x0 = start^2,
    x1 = (M/2)^(1/2), r = M^(1/2); else by quadrature.
    """
    gram = p / q**2
    if start ** (2 * layers) >= 0.5 * gram:
        return math.nan
    if layers == 1:
        return math.log(gram / start**2 - 1.0) / (8.0 * p)
    if layers == 2:
        return float(_two_layer_time(p, math.sqrt(gram), start**2, np.array(math.sqrt(0.5 * gram))))
    from scipy.integrate import quad

    low, high = math.log(start), math.log(0.5 * gram) / (2.0 * layers)
    slope = lambda u: 1.0 / (4.0 * (p - q**2 * math.exp(2 * layers * u)) * math.exp((2 * layers - 2) * u))  # noqa: E731
    return float(quad(slope, low, high, epsrel=1e-11, limit=200)[0])


def _two_layer_time(p: float, r: float, x0: float, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """When the output gain of two balanced layers has grown from x0 to x < r."""
    return np.asarray((1.0 / x0 - 1.0 / x + (np.arctanh(x / r) - math.atanh(x0 / r)) / r) / (8.0 * p))


def layer_gain(
    p: float, q: float, start: float, layers: int, weight_decay: float, times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    """a(t), the gain of each of L balanced layers: da/dt = 4 (p - q^2 a^2L) a^(2L-1) - wd a. Exact.

    Logistic in a^2 for one layer; for two without decay the inverse of :func:`half_time`'s formula; else integrated to
    1e-9 in the logarithm of a. `times` must not decrease.
    """
    t = np.asarray(times, dtype=np.float64)
    if layers == 1:
        pull, m0 = p - weight_decay / 4.0, start**2
        if abs(pull) < 1e-300:
            return np.asarray(np.sqrt(m0 / (1.0 + 8.0 * q**2 * m0 * t)))
        limit = pull / q**2
        return np.asarray(np.sqrt(limit / (1.0 + (limit / m0 - 1.0) * np.exp(np.clip(-8.0 * pull * t, -700, 700)))))
    r = math.sqrt(p) / q
    if layers == 2 and weight_decay == 0.0 and start**2 < r:
        low, high = np.full(t.shape, start**2), np.full(t.shape, r * (1.0 - 1e-15))
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            early = _two_layer_time(p, r, start**2, middle) < t
            low, high = np.where(early, middle, low), np.where(early, high, middle)
        return np.asarray(np.sqrt(0.5 * (low + high)))
    from scipy.integrate import solve_ivp

    def slope(_: float, u: Float[np.ndarray, "1"]) -> Float[np.ndarray, "1"]:
        return 4.0 * (p - q**2 * np.exp(2 * layers * u)) * np.exp((2 * layers - 2) * u) - weight_decay

    found = solve_ivp(
        slope, (0.0, max(float(t[-1]), 1e-12)), [math.log(start)], "LSODA", t_eval=t, rtol=1e-11, atol=1e-12
    )
    return np.asarray(np.exp(found.y[0]))


def imbalance_decay(weight_decay: float, times: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    """Imbalance over that at the start, exp(-2 wd t); 1 without decay."""
    return np.asarray(np.exp(-2.0 * weight_decay * np.asarray(times, dtype=np.float64)))


def step_limit(p: Float[np.ndarray, " d"], q: Float[np.ndarray, " d"], layers: int) -> float:
    """Largest stable step at the balanced minimum, 1/(4 L max_j mu_j^2 M_j^(-1/L))."""
    gram = minimiser_gram(p, q)
    return 1.0 / (4.0 * layers * float(np.max((p / q) ** 2 * gram ** (-1.0 / layers))))


# -- downstream --------------------------------------------------------------------------------------------------------


def effective_ridge(power: Float[np.ndarray, " d"], n: int, ridge: float) -> float:
    """kappa with sum_j s_j/(s_j + kappa) + ridge/kappa = n; 0 where ridge = 0 and n is at least the rank."""
    s = np.asarray(power, dtype=np.float64)
    s = s[s > 0.0]
    if ridge == 0.0 and n >= len(s):
        return 0.0

    def excess(kappa: float) -> float:
        return float(np.sum(s / (s + kappa))) + ridge / kappa - n

    low, high = math.log(1e-300), math.log((float(np.sum(s)) + ridge) / n + 1.0)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(math.exp(middle)) > 0.0 else (low, middle)
    return math.exp(0.5 * (low + high))


def downstream_mse(amplitudes: Float[np.ndarray, " d"], relevant: int, n: int, ridge: float) -> float:
    """Test error E(z.b - e_i)^2 of ridge regression on n clean examples with features z_j = amplitude_j e_j.

    A deterministic equivalent: (1 - L_i)^2/(1 - sum L_j^2/n), L_j = s_j/(s_j + kappa), s = amplitude^2; within 1 % of
    the mean over draws where it was tried (d = 60, n = 20), 3 % high where it is 0.05. 0 where n determines the target.
    """
    s = np.asarray(amplitudes, dtype=np.float64) ** 2
    kappa = effective_ridge(s, n, ridge)
    if s[relevant] == 0.0:
        return 1.0
    learned = s / (s + kappa) if kappa > 0.0 else (s > 0.0).astype(np.float64)
    spare = 1.0 - float(np.sum(learned**2)) / n
    missed = (1.0 - float(learned[relevant])) ** 2
    return missed / spare if missed > 0.0 else 0.0
