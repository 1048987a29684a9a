r"""Two classes in two domains as four nodes, and features of two domains that were made alike.

**Four nodes.** Node (c, d) with c, d = +-1, the source d = +1, links as in :mod:`theory.domains`. The eigenvalues of
c, d and c d are ``(rho - (al+be+ga) + 2x)/Z`` with x = al, be, ga: three features keep the constant and drop the group
of the smallest of the three weights.

**Alignment.** Features of the r classes of the target are moved until no kernel can tell their set from that of the
source. Any matching of the target's classes to those of the source is a minimum, and labels have no say in which is
reached; if all r! are equally likely, the classes that are matched rightly are the fixed points of a random
permutation: 1 on average, with a variance of 1.

Source: Shen, Jones, Kumar, Xie, HaoChen, Ma, Liang, "Connect, Not Collapse: Explaining Contrastive Learning for
Unsupervised Domain Adaptation", ICML 2022, arXiv 2204.00570. Its theorem: on a sampled block graph with rho > max(al,
be), min(al, be) > ga and enough nodes, the target error of the source's head on r+m-1 features tends to 0. What
stands here is exact, and was derived here.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from theory.domains import CLASS, DOMAIN, INTERACTION, BlockModel, Distances, gain

TIE = 1e-12  # weights closer than this are equal


class Rule(NamedTuple):
    """What three features of four nodes keep, and how a head of the source does on the target."""

    dropped: str
    gain: float
    target_accuracy: float
    domain_accuracy: float


def four_node_rule(model: BlockModel) -> Rule | None:
    """The rule of the smallest of al, be, ga for two classes and domains; None where the two smallest tie. Exact.

    ga dropped: gain 1. al dropped: gain -1, source right, target wrong. be dropped: gain (al-ga)/(rho-be), and no
    linear classifier sees the domain, for d = c times c d. Where ga exceeds rho one more eigenvalue may be negative;
    its feature is 0. Raises ValueError for other numbers of classes or domains, or unless rho > max(al, be).
    """
    if (model.classes, model.domains) != (2, 2):
        raise ValueError(f"the rule is for two classes in two domains, not {model.classes} in {model.domains}")
    rho, al, be, ga = model.within, model.across_domains, model.across_classes, model.across_both
    if not rho > max(al, be):
        raise ValueError(f"rho must exceed al and be, not {rho:g} against {al:g} and {be:g}")
    least, next_one, _ = sorted((al, be, ga))
    if next_one - least <= TIE:
        return None
    dropped = {ga: INTERACTION, be: DOMAIN, al: CLASS}[least]
    values = {group: max(value, 0.0) for group, value in four_node_eigenvalues(model).items()} | {dropped: 0.0}
    found = gain(values[CLASS], values[INTERACTION], 2)
    right = 0.5 if abs(found) <= TIE else float(found > 0.0)
    return Rule(dropped, found, right, 1.0 if values[DOMAIN] > 0.0 else 0.5)


def four_node_eigenvalues(model: BlockModel) -> dict[str, float]:
    """(rho - (al+be+ga) + 2x)/Z for the groups of c, d and c d, x = al, be, ga. Exact, for two classes and domains."""
    al, be, ga = model.across_domains, model.across_classes, model.across_both
    rest = model.within - (al + be + ga)
    return {group: (rest + 2 * x) / model.total for group, x in ((CLASS, al), (DOMAIN, be), (INTERACTION, ga))}


def discrepancy(apart: Distances, classes: int, width: float) -> float:
    """Squared maximum mean discrepancy of two domains, of one node a class, whose squared distances are given. Exact.

    r^-2 sum_ij [K(S_i, S_j) + K(T_i, T_j) - 2 K(S_i, T_j)] with K = exp(-|x-y|^2/(2 width^2)), i = j included.
    """
    alike, other, neither = (math.exp(-d / (2.0 * width**2)) for d in (apart.domains, apart.classes, apart.both))
    return 2.0 / classes * (1.0 + (classes - 1) * other - alike - (classes - 1) * neither)


def matching_accuracy(classes: int) -> tuple[float, float]:
    """Mean and standard deviation of the share of classes that a random permutation leaves in place: 1/r both. Exact.

    For two classes or more.
    """
    return 1.0 / classes, 1.0 / classes


def matching_distribution(classes: int) -> Float[np.ndarray, " classes_plus_1"]:
    """P(j fixed points), j = 0..r, of a random permutation of r: (1/j!) sum_{i <= r-j} (-1)^i/i!. Exact."""
    return np.array(
        [
            sum((-1) ** i / math.factorial(i) for i in range(classes - j + 1)) / math.factorial(j)
            for j in range(classes + 1)
        ]
    )
