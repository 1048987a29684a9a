r"""Temperature in the softmax contrastive loss: how hard the nearest negatives are pushed, and the price.

``L_i = -s_ii/tau + log sum_k exp(s_ik/tau)`` with similarities s of unit features. A negative is pushed in proportion
to ``exp(s_ik/tau)``. Two models have closed forms: negatives that are uniform on a sphere, and an encoder that divides
every feature between its class and its instance, ``f = sqrt(c) u_class + sqrt(1-c) v_instance``.

Source of the loss and of its limits: Wang, Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, arXiv
2012.09740. The two-level encoder and its optimum are derived here. Exact unless a docstring says otherwise.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, hyp0f1, ive


def _temperature(tau: float) -> None:
    if not tau > 0.0:
        raise ValueError(f"the temperature must be positive, not {tau:g}")


# -- uniform negatives on a sphere -------------------------------------------------------------------------------------


def log_mean_exp(dim: int, tau: float) -> float:
    """log E exp((s - 1)/tau) for the similarity s to a point of uniform points on the sphere of R^dim.

    gammaln(d/2) + (d/2 - 1) log(2 tau) + log I_{d/2-1}(1/tau) - 1/tau, by the scaled Bessel function, and where that
    would underflow, 1/tau < d, by the equal confluent series 0F1. Raises ValueError unless tau > 0 and dim >= 2.
    """
    _temperature(tau)
    if dim < 2:
        raise ValueError(f"a sphere needs 2 dimensions or more, not {dim}")
    z, half = 1.0 / tau, 0.5 * dim
    if z < dim:
        return math.log(float(hyp0f1(half, 0.25 * z * z))) - z
    return float(gammaln(half)) + (half - 1.0) * math.log(2.0 * tau) + math.log(float(ive(half - 1.0, z)))


def mean_similarity(dim: int, tau: float) -> float:
    """Mean similarity of uniform negatives, weighted by the force exp(s/tau): I_{d/2}(1/tau)/I_{d/2-1}(1/tau)."""
    _temperature(tau)
    z, half = 1.0 / tau, 0.5 * dim
    if z < dim:
        return z / dim * float(hyp0f1(half + 1.0, 0.25 * z * z)) / float(hyp0f1(half, 0.25 * z * z))
    return float(ive(half, z) / ive(half - 1.0, z))


def force_entropy(dim: int, tau: float) -> float:
    """Entropy of the force over uniform negatives, relative to that of equal forces: 0 flat, towards -inf hard."""
    return log_mean_exp(dim, tau) + (1.0 - mean_similarity(dim, tau)) / tau


def small_temperature_similarity(dim: int, tau: float) -> float:
    """1 - tau (d - 1)/2, the limit of :func:`mean_similarity` where tau d is small."""
    return 1.0 - 0.5 * tau * (dim - 1.0)


def force_density(dim: int, tau: float, angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Density over the angle, 0 to pi, of the force on uniform negatives: exp(cos/tau) sin^(d-2), normalised."""
    log_all = log_mean_exp(dim, tau)
    log_area = 0.5 * math.log(math.pi) + float(gammaln(0.5 * (dim - 1)) - gammaln(0.5 * dim))
    with np.errstate(divide="ignore"):
        bare = (dim - 2.0) * np.log(np.sin(angle)) if dim > 2 else np.zeros_like(angle)
    return np.asarray(np.exp((np.cos(angle) - 1.0) / tau + bare - log_all - log_area))


# -- limits of the loss ------------------------------------------------------------------------------------------------


def small_temperature_loss(similarity: Float[np.ndarray, "n n"], tau: float) -> Float[np.ndarray, " n"]:
    """max(0, max_{k != i} s_ik - s_ii)/tau, a triplet loss without margin: the limit of L_i for tau -> 0."""
    own = np.diag(similarity)
    others = np.where(np.eye(len(similarity), dtype=bool), -np.inf, similarity)
    return np.asarray(np.maximum(np.max(others, axis=1) - own, 0.0) / tau)


def large_temperature_loss(similarity: Float[np.ndarray, "n n"], tau: float) -> Float[np.ndarray, " n"]:
    """log N - (N-1)/(N tau) s_ii + sum_{k != i} s_ik/(N tau): the limit of L_i for tau -> inf.

    What is left is Var_k(s_ik)/(2 tau^2) to leading order.
    """
    n, own = len(similarity), np.diag(similarity)
    others = np.sum(similarity, axis=1) - own
    return np.asarray(math.log(n) - (n - 1.0) / (n * tau) * own + others / (n * tau))


# -- the two-level encoder ---------------------------------------------------------------------------------------------


def two_level_loss(share: float, tau: float, overlap: float, classes: int, per_class: int) -> float:
    """Loss where classmates have similarity c, strangers 0, and the own positive a + (1 - a) c; convex in c."""
    positive = overlap + (1.0 - overlap) * share
    same, others = per_class - 1, (classes - 1) * per_class
    terms = np.array([positive / tau, share / tau + math.log(same), math.log(others)])
    top = float(np.max(terms))
    return top + math.log(float(np.sum(np.exp(terms - top)))) - positive / tau


def log_odds(overlap: float, classes: int, per_class: int) -> float:
    """ln[(1 - a) n_d/(a n_s)], n_s = n - 1 classmates and n_d = (C - 1) n strangers: what a share of class is worth.

    Raises ValueError unless 0 < a < 1 and there are two classes of two or more.
    """
    if not 0.0 < overlap < 1.0:
        raise ValueError(f"the overlap of instances must lie between 0 and 1, not {overlap:g}")
    if classes < 2 or per_class < 2:
        raise ValueError(f"two classes of two examples are needed, not {classes} of {per_class}")
    return math.log((1.0 - overlap) * (classes - 1) * per_class / (overlap * (per_class - 1)))


def best_share(tau: float, overlap: float, classes: int, per_class: int) -> float:
    """c* = tau ln[(1 - a) n_d/(a n_s)], between 0 and 1: the share of class that minimises :func:`two_level_loss`."""
    _temperature(tau)
    return min(max(tau * log_odds(overlap, classes, per_class), 0.0), 1.0)


def collapse_temperature(overlap: float, classes: int, per_class: int) -> float:
    """1/ln[(1 - a) n_d/(a n_s)], from which on classes collapse; infinite where nothing rewards class structure."""
    odds = log_odds(overlap, classes, per_class)
    return 1.0 / odds if odds > 0.0 else math.inf


def uniformity(share: float, classes: int, per_class: int, dim: float = math.inf) -> float:
    """log mean exp(-2 |f_i - f_j|^2) over pairs i != j at a share c.

    Classmates at similarity c and strangers at 0; in `dim` dimensions with the spread of Gaussian cosines of variances
    (1-c)^2 (1 + 2c(1-c))/D and (1-c^2)/D, an approximation that needs D well above 8.
    """
    c, same, others = share, per_class - 1, (classes - 1) * per_class
    within = -4.0 * (1.0 - c) + 8.0 * (1.0 - c) ** 2 * (1.0 + 2.0 * c * (1.0 - c)) / dim
    across = -4.0 + 8.0 * (1.0 - c**2) / dim
    return math.log((same * math.exp(within) + others * math.exp(across)) / (same + others))


def retrieval(share: float, per_class: int) -> float:
    """Share of positive views that find their own example: 1, but 1/n once classes have collapsed."""
    return 1.0 if share < 1.0 else 1.0 / per_class


def class_blind_similarity(examples: int) -> float:
    """-1/(N - 1), the mean similarity of pairs of N unit features that add up to zero."""
    return -1.0 / (examples - 1)
