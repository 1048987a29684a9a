r"""XOR clusters: what a two-layer ReLU network knows after one gradient step, and after many.

Model: ``x_i = s_i mu e_{c_i} + N(0, I_p)``, observed label ``y_i``, ``n`` points; the network is
``f(x) = sum_j a_j relu(<w_j, x>)`` with fixed ``a_j = +-1/sqrt(m)``, trained by full-batch gradient descent of
step size alpha on the mean logistic loss from a start of vanishing size. The one knob of the signal is
``signal = mu^2/sqrt(p)``. A cluster is (c, s): c = 0 for +-mu1 (clean label +1), c = 1 for +-mu2 (clean label -1);
arrays over clusters are ordered +mu1, -mu1, +mu2, -mu2.

Source of the model and of the theorem: Xu, Wang, Frei, Vardi, Hu, "Benign Overfitting and Grokking in ReLU
Networks for XOR Cluster Data", ICLR 2024, arXiv 2310.02541. Each docstring says whether a result is exact, a
limit, a heuristic, or a fit to simulations.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

Sampler = Literal["stratified", "iid"]
Zone = Literal["benign", "in between", "catastrophic", "not memorised in one step", "classical"]

# Measured quantiles -Phi^{-1}(test error)/sqrt(n) of late training: label noise 0.1, stratified labels, step 100.
FIT_SIGNAL = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
FIT_N = (40, 80, 160, 320, 640)
FIT_QUANTILE = (
    (0.0060, 0.0193, 0.0460, 0.0877, 0.1525, 0.2396, 0.367),
    (0.0074, 0.0204, 0.0462, 0.0841, 0.1431, 0.2222, 0.337),
    (0.0081, 0.0218, 0.0470, 0.0827, 0.1370, 0.2096, 0.31),
    (0.0111, 0.0261, 0.0509, 0.0852, 0.1390, 0.2144, math.nan),
    (0.0126, 0.0273, 0.0505, 0.0807, 0.1280, math.nan, math.nan),
)
FIT_LABEL_NOISE = 0.1
RULE_OF_THUMB = (0.010, 0.024, 0.048, 0.083, 0.14, 0.215, 0.35)  # error ~ Phi(-c sqrt(n)), at FIT_SIGNAL
MEMORISED = 0.99
QUADRATURE_STEP = 0.4  # standard deviations between the nodes of the strong-signal limit
NEWTON_STEPS = 2  # from an inverse table of 200 entries


def mean_norm(signal: float, dim: int) -> float:
    """mu, the norm of both means: sqrt(signal*sqrt(p))."""
    return math.sqrt(signal * math.sqrt(dim))


def regime(n_train: int, signal: float, dim: int) -> float:
    """r = n mu^2/p: below 1 the noise parts of the points are nearly orthogonal, as the theorem assumes."""
    return n_train * mean_norm(signal, dim) ** 2 / dim


def dim_at(n_train: int, signal: float, r: float) -> float:
    """The dimension p at which n mu^2/p = r."""
    return (n_train * signal / r) ** 2


# -- step one ------------------------------------------------------------------------------------------------


def step_one_mean(
    cross: Float[np.ndarray, "n points"], y: Float[np.ndarray, " n"], learning_rate: float
) -> Float[np.ndarray, " points"]:
    """E f(x; W(1)) = alpha S(x)/(8n), S(x) = sum_i y_i <x_i, x>: a linear classifier. Exact as the start vanishes.

    ``cross`` holds <x_i, x>. The expectation is over the start, and holds for iid and for balanced output signs.
    """
    return learning_rate / (8.0 * len(y)) * (y @ cross)


def step_one_variance(
    cross: Float[np.ndarray, "n points"],
    y: Float[np.ndarray, " n"],
    gram: Float[np.ndarray, "n n"],
    width: int,
    learning_rate: float,
    *,
    balanced: bool,
) -> Float[np.ndarray, " points"]:
    """Var f(x; W(1)) over the start and the output signs, as the start vanishes.

    Exact for iid signs. Balanced signs take away the part that the count of signs adds, about half; their formula
    treats the sum over the points that fire as Gaussian (heuristic, right within a few per cent).
    """
    root = np.sqrt(np.diag(gram))
    together = np.arcsin(np.clip(gram / np.outer(root, root), -1.0, 1.0)) / (2.0 * math.pi)
    V = y[:, None] * cross
    spread = np.sum(V * (together @ V), axis=0)
    total = np.sum(V, axis=0)
    unit = (learning_rate / (2.0 * len(y))) ** 2 / width
    if not balanced:
        return unit * (total**2 / 16.0 + spread / 2.0)
    plus, minus = _mean_relu(total / 2.0, spread), _mean_relu(-total / 2.0, spread)
    return unit * np.maximum((spread + total**2 / 4.0) / 2.0 - (plus**2 + minus**2) / 2.0, 0.0)


def conditional_step_one_train_accuracy(
    gram: Float[np.ndarray, "n n"], y: Float[np.ndarray, " n"], width: int, *, balanced: bool
) -> float:
    """Expected share of fitted training labels after step one, given the Gram matrix of the points.

    Mean over points of Phi(y_i E f_i / sd f_i): a limit (the output of many neurons is Gaussian).
    """
    mean = y * step_one_mean(gram, y, 1.0)
    sd = np.sqrt(step_one_variance(gram, y, gram, width, 1.0, balanced=balanced))
    with np.errstate(divide="ignore"):
        return float(np.mean(ndtr(np.where(sd > 0, mean / np.where(sd > 0, sd, 1.0), np.sign(mean) * np.inf))))


def step_one_train_accuracy(
    n_train: int, dim: int, width: int, signal: float, label_noise: float, sampler: Sampler
) -> float:
    """Share of training labels fitted after step one, without knowing the points (heuristic).

    Each point's own term p + mu^2 against the fluctuation of the others. With iid labels the class counts
    fluctuate; with stratified labels neurons that fire for whole clusters do. Regime: width of 20 and more.
    """
    mu2 = mean_norm(signal, dim) ** 2
    own = dim + mu2
    variance = n_train * (dim + 2.0 * mu2) + 3.0 / width * float(dim) ** 2
    if sampler == "iid":
        variance += n_train * mu2**2 / 2.0
    else:
        clusters = (n_train * (1.0 - 2.0 * label_noise)) ** 2 * mu2**2
        variance += clusters * math.asin(mu2 / own) / (math.pi * width)
    return float(ndtr(own / math.sqrt(variance)))


def linear_offsets(along: Float[np.ndarray, " 2"], norm_sq: float, mu: float) -> Float[np.ndarray, " 2"]:
    """b_c = mu v_c/|v| of the linear classifier v = sum_i y_i x_i: ``along`` holds v_c, ``norm_sq`` is |v|^2."""
    return mu * along / math.sqrt(norm_sq)


def linear_cluster_accuracies(offsets: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 4"]:
    """Accuracies of a linear classifier on +mu1, -mu1, +mu2, -mu2: exact, and their mean is one half."""
    b1, b2 = float(offsets[0]), float(offsets[1])
    return np.asarray(ndtr(np.array([b1, -b1, -b2, b2])))


def offset_variance(signal: float, dim: int, sampler: Sampler) -> float:
    """Var b_c over data sets, for large n: sig^2/2 + mu^2/p with iid labels, mu^2/p stratified (limit).

    Both over 1 + mu^2/p, the part of |v|^2 that the means add.
    """
    share = mean_norm(signal, dim) ** 2 / dim
    return ((signal**2 / 2.0 if sampler == "iid" else 0.0) + share) / (1.0 + share)


# -- late training -------------------------------------------------------------------------------------------


def alignment_plateau(n_train: int, signal: float, dim: int, label_noise: float) -> float:
    """|cos| of a neuron with its own mean, late in training (limit: signal >> 1, p >> n mu^2, stratified labels)."""
    mu2, clean = mean_norm(signal, dim) ** 2, 1.0 - label_noise
    aligned = math.sqrt(mu2) * clean * n_train / 8.0
    scattered = dim * n_train * (3.0 * clean + 4.0 * label_noise) / 8.0
    return aligned / math.sqrt(scattered + aligned**2)


def cluster_margins(counts: Int[np.ndarray, "2 2 2"]) -> Float[np.ndarray, " 4"]:
    """How far each cluster is from being wrong for ever, in points (heuristic: signal >> 1, p >> n mu^2).

    ``counts[c, s, l]`` is the number of training points with mean c, sign + (s = 0) or -, and observed label
    +1 (l = 0) or -1. Positive: the cluster ends about 100 % right, else about 0 %. It wins if the neurons of its
    class that choose its sign, a share pi, outweigh the flipped points that the other class gathers there.
    """
    margins = np.empty(4)
    for c in (0, 1):
        own, other = c, 1 - c  # index of the clean label of +-mu_c among the observed labels
        in_pair = float(np.sum(counts[c]))
        for s in (0, 1):
            here, there = counts[c, s].astype(float), counts[c, 1 - s].astype(float)
            surplus = (here[own] - here[other]) - (there[own] - there[other])
            chosen = float(ndtr(surplus / math.sqrt(in_pair))) if in_pair > 0 else 0.5
            margins[2 * c + s] = chosen * (here[own] - there[own] / 2.0) - max(here[other] - there[other], 0.0)
    return margins


def clusters_survive(counts: Int[np.ndarray, "2 2 2"]) -> Bool[np.ndarray, " 4"]:
    """Which clusters end right, by the sign of :func:`cluster_margins`."""
    return cluster_margins(counts) > 0.0


def fitted_quantile(n_train: float, signal: float) -> float:
    """z = -Phi^{-1}(late test error), interpolated in a table of simulations (a fit, no theorem).

    Linear in log n and log signal of the quantile over sqrt(n). NaN where the table is silent: signal outside
    0.5 to 4, n outside 40 to 640, or next to a cell that was not measured.
    """
    if not (FIT_SIGNAL[0] <= signal <= FIT_SIGNAL[-1] and FIT_N[0] <= n_train <= FIT_N[-1]):
        return math.nan
    column, along = _cell(np.log(FIT_SIGNAL), math.log(signal))
    row, down = _cell(np.log(FIT_N), math.log(n_train))
    value = 0.0
    for i, weight_n in ((row, 1.0 - down), (row + 1, down)):
        for k, weight_signal in ((column, 1.0 - along), (column + 1, along)):
            if weight_n * weight_signal > 0.0:
                value += weight_n * weight_signal * FIT_QUANTILE[i][k]
    return value * math.sqrt(n_train)


def late_test_error(n_train: float, signal: float) -> float:
    """Late test error Phi(-z) from :func:`fitted_quantile`; NaN where the table is silent."""
    return float(ndtr(-fitted_quantile(n_train, signal)))


def rule_of_thumb(n_train: float, signal: float) -> float:
    """Late test error Phi(-c(signal) sqrt(n)), the one-line law; right in n only for signals of 1 to 1.4."""
    c = np.interp(math.log(signal), np.log(FIT_SIGNAL), RULE_OF_THUMB)
    return float(ndtr(-float(c) * math.sqrt(n_train)))


def strong_signal_outputs(
    n_train: int, signal: float, label_noise: float, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Draws of the output F on a fresh point of +mu1, late in training, in units of sqrt(p).

    Mean-field limit of signal >> 1, p >> n mu^2, stratified labels: every neuron is aligned, and the output sums
    the expected ReLU over the four kinds of neuron. A limit, not a bound: too optimistic for signal <= 2.
    """
    clean = 1.0 - label_noise
    v = n_train * clean / 16.0
    A, B, G, H = math.sqrt(n_train * clean / 4.0) * rng.standard_normal((4, draws))
    N1, N2 = math.sqrt(n_train * label_noise / 2.0) * rng.standard_normal((2, draws))
    M = signal * clean * n_train / 8.0
    right = _mean_relu(M + A + B / 2.0 + N2, v) + _mean_relu(-M + A / 2.0 + B + N2, v)
    wrong = _mean_relu(G + H / 2.0 + N1, v) + _mean_relu(H + G / 2.0 + N1, v)
    return np.asarray(right - wrong)


def strong_signal_error(n_train: int, signal: float, label_noise: float) -> float:
    """P(F < 0) of :func:`strong_signal_outputs`, by quadrature, within 2e-5 of its exact value.

    In units of sqrt(n) F = R(p, q) - W(p', q'): one function, ``h(M + (p+q)/sqrt 2) + h((p-q)/sqrt 2 - M)``, at M and
    at M = 0, of independent normals. It increases in p, so that P(F < 0) is the mean over q, p' and q' of
    Phi(p*/sd p), p* solving R(p*, q) = W(p', q'): Newton's method in log R, which is concave. W is even in q'.
    """
    clean = 1.0 - label_noise
    sd, M = math.sqrt(clean) / 4.0, signal * clean * math.sqrt(n_train) / 8.0
    sd_p, sd_q = math.sqrt(2.25 * clean / 4.0 + label_noise), math.sqrt(clean / 32.0)
    z = QUADRATURE_STEP * np.arange(-20.0, 21.0)
    weight_p = np.exp(-0.5 * z * z) * QUADRATURE_STEP / math.sqrt(2.0 * math.pi)
    nodes, weight_q = _normal_nodes()
    p, q, half = sd_p * z, sd_q * nodes, len(nodes) // 2

    def sum_and_slope(p: np.ndarray, q: np.ndarray, M: float) -> tuple[np.ndarray, np.ndarray]:
        a, b = (M + p / math.sqrt(2.0) + q) / sd, (p / math.sqrt(2.0) - q - M) / sd
        below_a, below_b = ndtr(a), ndtr(b)
        density = (np.exp(-0.5 * a * a) + np.exp(-0.5 * b * b)) / math.sqrt(2.0 * math.pi)
        return sd * (a * below_a + b * below_b + density), (below_a + below_b) / math.sqrt(2.0)

    wrong = np.log(sum_and_slope(p[:, None], q[half:], 0.0)[0]).ravel()
    weight = (weight_p[:, None] * 2.0 * weight_q[half:]).ravel()
    table = np.linspace(-math.sqrt(2.0) * M - 13.0 * sd_p, 13.0 * sd_p, 200)
    right = np.log(np.maximum(sum_and_slope(table[:, None], q, M)[0], 1e-300))
    at = np.stack([np.interp(wrong, column, table) for column in right.T], axis=1)
    for _ in range(NEWTON_STEPS):
        value, slope = sum_and_slope(at, q, M)
        with np.errstate(divide="ignore", invalid="ignore"):  # where nothing is left of R the normal tail is 0 anyway
            step = (np.log(value) - wrong[:, None]) * value / slope
        at = at - np.where(np.isfinite(step), step, 0.0)
    return float(weight @ ndtr(at / sd_p) @ weight_q)


@lru_cache(maxsize=1)
def _normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Hermite quadrature for a standard normal; even in number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    return nodes, weights / math.sqrt(2.0 * math.pi)


# -- the whole picture ---------------------------------------------------------------------------------------


def zone(n_train: int, signal: float, dim: int, width: int, label_noise: float) -> Zone:
    """The regime of a stratified run, from the step-one formula and the fitted late error (heuristic).

    Beyond the fitted table the nearest of its entries stands in for the missing one.
    """
    if dim < n_train:
        return "classical"
    if step_one_train_accuracy(n_train, dim, width, signal, label_noise, "stratified") < MEMORISED:
        return "not memorised in one step"
    z = nearest_quantile(n_train, signal)
    return "benign" if z > 2.0 else "catastrophic" if z < 1.0 else "in between"


def nearest_quantile(n_train: float, signal: float) -> float:
    """:func:`fitted_quantile` continued beyond its table: n and signal move to the nearest entry, z keeps sqrt(n)."""
    inside = min(max(signal, FIT_SIGNAL[0]), FIT_SIGNAL[-1])
    for most in FIT_N[::-1]:
        n = min(max(n_train, FIT_N[0]), most)
        z = fitted_quantile(n, inside)
        if math.isfinite(z):
            break
    scale = (signal / inside) ** (2.0 if signal < inside else 1.0)
    return z * math.sqrt(n_train / n) * scale


def _cell(knots: Float[np.ndarray, " k"], x: float) -> tuple[int, float]:
    """Index of the interval of ``knots`` that holds x, and how far along it x is."""
    i = int(np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2))
    along = float((x - knots[i]) / (knots[i + 1] - knots[i]))
    return i, round(along, 12)


def _mean_relu(mean: Float[np.ndarray, "..."], variance: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """E relu(N(mean, variance))."""
    sd = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(sd > 0, mean / sd, 0.0)
    smooth = mean * ndtr(ratio) + sd * np.exp(-0.5 * ratio**2) / math.sqrt(2.0 * math.pi)
    return np.asarray(np.where(sd > 0, smooth, np.maximum(mean, 0.0)))
