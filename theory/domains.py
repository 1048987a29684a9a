r"""The (class, domain) block model of two or more domains: its spectrum, and what linear heads make of its features.

There are r classes in m domains. A positive pair joins two examples with a weight that depends on whether they are of
one class and of one domain: rho (both), al (one class, two domains), be (two classes, one domain), ga (neither). As a
matrix over (class, domain), the domain fastest,

    A = (rho-al-be+ga) I_r(x)I_m + (al-ga) I_r(x)J_m + (be-ga) J_r(x)I_m + ga J_r(x)J_m,

with row sum Z, and Abar = A/Z. Its eigenspaces are four groups: the constant, the contrasts of classes, those of
domains, and their products, the interactions. Blocks of n nodes each have the same nonzero spectrum.

The features are the minimiser of the spectral contrastive loss, ``f = V_k diag(lam)^1/2/sqrt(w)`` with the k largest
eigenvalues; negative ones count as 0. A head is trained on the labels of domain 0, the source, and used on the
others, the target. Everything here is exact. Where k cuts an eigenspace, an answer that depends on the basis taken
there is not given, and the reason is.

Sources of the model: HaoChen, Wei, Kumar, Ma, NeurIPS 2022, arXiv 2204.02683; Shen, Jones, Kumar, Xie, HaoChen, Ma,
Liang, ICML 2022, arXiv 2204.00570. The formulas were derived here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

TIE = 1e-12  # eigenvalues closer than this are one eigenvalue
CONSTANT, CLASS, DOMAIN, INTERACTION = GROUPS = ("constant", "class", "domain", "interaction")


class Answer(NamedTuple):
    """A number, or None and why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class BlockModel:
    """Weights of positive pairs of `classes` in `domains`.

    Raises ValueError unless there are two of each at least, no weight is negative, and some are positive.
    """

    classes: int
    domains: int
    within: float
    across_domains: float
    across_classes: float
    across_both: float

    def __post_init__(self) -> None:
        if self.classes < 2 or self.domains < 2:
            raise ValueError(f"there must be two classes and two domains, not {self.classes} and {self.domains}")
        weights = (self.within, self.across_domains, self.across_classes, self.across_both)
        if not min(weights) >= 0.0 or not self.total > 0.0:
            raise ValueError(f"weights must be nonnegative and not all 0, not {weights}")

    @cached_property
    def total(self) -> float:
        """Z, the row sum of A."""
        r, m = self.classes, self.domains
        return (
            self.within
            + (m - 1) * self.across_domains
            + (r - 1) * self.across_classes
            + (r - 1) * (m - 1) * self.across_both
        )

    @cached_property
    def eigenvalues(self) -> Mapping[str, float]:
        """The eigenvalue of each group; those of interactions, and others, may be negative.

        lam_class - lam_interaction = m (al-ga)/Z and lam_domain - lam_interaction = r (be-ga)/Z.
        """
        r, m, Z = self.classes, self.domains, self.total
        rho, al, be, ga = self.within, self.across_domains, self.across_classes, self.across_both
        return {
            CONSTANT: 1.0,
            CLASS: (rho - be + (m - 1) * (al - ga)) / Z,
            DOMAIN: (rho - al + (r - 1) * (be - ga)) / Z,
            INTERACTION: (rho - al - be + ga) / Z,
        }

    @cached_property
    def multiplicities(self) -> Mapping[str, int]:
        """The dimension of each group."""
        r, m = self.classes, self.domains
        return {CONSTANT: 1, CLASS: r - 1, DOMAIN: m - 1, INTERACTION: (r - 1) * (m - 1)}

    @cached_property
    def spectrum(self) -> Float[np.ndarray, " blocks"]:
        """All r m eigenvalues with their copies, falling."""
        copies = [np.full(self.multiplicities[group], self.eigenvalues[group]) for group in GROUPS]
        return np.sort(np.concatenate(copies))[::-1]


# -- what the largest eigenvalues keep -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """How many directions of each group the k largest eigenvalues keep, and with which eigenvalue.

    `counts[group]` is None where the cut goes through an eigenvalue that several groups share: which of their
    directions are kept depends on the basis. What has no positive eigenvalue is not kept: its feature is 0.
    """

    model: BlockModel
    counts: Mapping[str, int | None]

    def value(self, group: str) -> float:
        """The eigenvalue of the group's kept directions; 0 where none is kept."""
        return self.model.eigenvalues[group] if self.counts[group] else 0.0

    def whole(self, group: str) -> bool:
        """Whether all directions of the group are kept, or none."""
        return self.counts[group] in (0, self.model.multiplicities[group])

    def undecided(self, *groups: str) -> str:
        """Why it is not known what is kept of these groups; empty where it is."""
        tied = [group for group in GROUPS if self.counts[group] is None]
        if not set(groups) & set(tied):
            return ""
        return f"undefined: the features kept go through the one eigenvalue of {' and '.join(tied)}"


def kept(model: BlockModel, k: int) -> Kept:
    """What the k largest eigenvalues keep. Raises ValueError unless 1 <= k."""
    if k < 1:
        raise ValueError(f"a representation needs at least 1 feature, not {k}")
    counts: dict[str, int | None] = {group: 0 for group in GROUPS}
    left = k
    for tied in _levels(model):
        copies = {group: model.multiplicities[group] for group in tied}
        if left <= 0 or model.eigenvalues[tied[0]] <= 0.0:
            break
        if left >= sum(copies.values()):
            counts |= copies
        elif len(tied) == 1:
            counts[tied[0]] = left
        else:
            counts |= dict.fromkeys(tied)
        left -= sum(copies.values())
    return Kept(model, counts)


def _levels(model: BlockModel) -> list[list[str]]:
    """The groups by falling eigenvalue, those of one eigenvalue together."""
    levels: list[list[str]] = []
    for group in sorted(GROUPS, key=lambda one: -model.eigenvalues[one]):
        if levels and model.eigenvalues[levels[-1][0]] - model.eigenvalues[group] <= TIE:
            levels[-1].append(group)
        else:
            levels.append([group])
    return levels


def least_loss(model: BlockModel, k: int) -> float:
    """The least spectral contrastive loss of k features: minus the sum of the k largest squared eigenvalues."""
    return -float(np.sum(np.maximum(model.spectrum[:k], 0.0) ** 2))


def settling_time(model: BlockModel, k: int, start: float, left: float = 1e-3) -> float:
    """Time of the gradient flow from entries of size `start` until its features count as the minimiser's. Heuristic.

    The smallest kept eigenvalue lam grows its mass from start^2 as exp(8 lam t), and the next one is left behind as
    exp(-4 gap t), down to `left`. Infinite where the two are equal.
    """
    values = np.append(np.maximum(model.spectrum, 0.0), 0.0)
    last = min(k, int(np.sum(values > 0.0))) - 1
    lam, gap = float(values[last]), float(values[last] - values[last + 1])
    grown = max(0.0, math.log(lam / start**2)) / (8.0 * lam)
    return grown + math.log(1.0 / left) / (4.0 * gap) if gap > TIE else math.inf


# -- heads ---------------------------------------------------------------------------------------------------------


def gain(lam_class: float, lam_interaction: float, domains: int) -> float:
    """Target over source class contrast of the least-norm head, (lc-li)/(lc+(m-1) li), for kept eigenvalues.

    1 where interactions are dropped, -1/(m-1) where classes are; NaN where both are. With both kept it is
    (al-ga)/(rho-be).
    """
    down = lam_class + (domains - 1) * lam_interaction
    return (lam_class - lam_interaction) / down if down > 0.0 else float("nan")


def head_gain(model: BlockModel, k: int, ridge: float = 0.0) -> Answer:
    """Target over source class contrast, each a mean over contrasts, of least squares on the source's centred one-hots.

    The head minimises the mean squared error on the source plus `ridge` |W|^2 (0: the solution of least norm). A
    contrast with eigenvalues lc and li has K = lc + (m-1) li on the source: there it is fitted by K/(K+ridge), and on
    the target by (lc-li)/(K+ridge).
    """
    m, found = model.domains, kept(model, k)

    def outputs(lc: float, li: float) -> tuple[float, float]:
        down = lc + (m - 1) * li
        return ((lc - li) / (down + ridge), down / (down + ridge)) if down > 0.0 else (0.0, 0.0)

    return mean_gain(found, outputs)


def mean_gain(found: Kept, outputs: Callable[[float, float], tuple[float, float]]) -> Answer:
    """Sum over class contrasts of the target's outputs over that of the source's.

    `outputs(lc, li)` gives both for a contrast with these kept eigenvalues. Contrasts of which only the class
    direction, or only the interaction, is kept are counted apart; of three domains or more a contrast may keep its
    interactions in part, and then the sum is open.
    """
    contrasts, reason = found.model.classes - 1, found.undecided(CLASS, INTERACTION)
    if not reason and found.model.domains > 2 and not found.whole(INTERACTION):
        reason = _in_part(found, INTERACTION)
    if reason:
        return Answer(None, reason)
    lc, li = found.value(CLASS), found.value(INTERACTION)
    of_class, of_interaction = found.counts[CLASS] or 0, min(found.counts[INTERACTION] or 0, contrasts)
    both = min(of_class, of_interaction)
    parts = [(both, outputs(lc, li)), (of_class - both, outputs(lc, 0.0)), (of_interaction - both, outputs(0.0, li))]
    target, source = (sum(count * pair[side] for count, pair in parts) for side in (0, 1))
    return Answer(target / source) if source > 0.0 else Answer(None, "no feature tells classes apart")


def target_accuracy(model: BlockModel, k: int) -> Answer:
    """Share of target nodes that a head of the source gets right: least squares or averaged features, any ridge.

    1 where the class contrasts keep their sign, 0 where all turn it, 1/r, chance, where the head says nothing.
    """
    found = kept(model, k)
    reason = found.undecided(CLASS, INTERACTION)
    if reason:
        return Answer(None, reason)
    lc, li = found.value(CLASS), found.value(INTERACTION)
    if found.whole(CLASS) and found.whole(INTERACTION):
        if abs(lc - li) <= TIE:
            return Answer(1.0 / model.classes)
        return Answer(1.0 if lc > li else 0.0)
    if found.whole(INTERACTION) and li > lc + TIE:
        return Answer(0.0)  # every contrast is turned, in whatever basis: no node's own class has the largest score
    return Answer(None, _in_part(found, CLASS if found.whole(INTERACTION) else INTERACTION))


def _in_part(found: Kept, group: str) -> str:
    have, of = found.counts[group], found.model.multiplicities[group]
    return f"it depends on the basis: {have} of {of} directions of {group} are kept"


def source_accuracy(model: BlockModel, k: int, fits: bool = True) -> Answer:
    """Share of source nodes that the head gets right: 1 where it tells every class contrast, 1/r where none.

    `fits` says that the head fits what it can exactly, as least squares without a ridge does; another one weighs
    contrasts unequally where a group is kept in part.
    """
    found = kept(model, k)
    reason = found.undecided(CLASS, INTERACTION)
    if reason:
        return Answer(None, reason)
    every = any(found.counts[group] == model.multiplicities[group] for group in (CLASS, INTERACTION))
    whole = found.whole(CLASS) and found.whole(INTERACTION)
    if every and (fits or whole):
        return Answer(1.0)
    if whole:
        return Answer(1.0 / model.classes)
    return Answer(None, _in_part(found, INTERACTION if found.whole(CLASS) else CLASS))


def domain_accuracy(model: BlockModel, k: int) -> Answer:
    """Share of all nodes whose domain a linear classifier (least squares on all of them) tells: 1, or chance, 1/m."""
    found = kept(model, k)
    reason = found.undecided(DOMAIN)
    if reason:
        return Answer(None, reason)
    if not found.whole(DOMAIN):
        return Answer(None, _in_part(found, DOMAIN))
    return Answer(1.0 if found.counts[DOMAIN] else 1.0 / model.domains)


# -- geometry ------------------------------------------------------------------------------------------------------


class Distances(NamedTuple):
    """Squared distances of features: of one class in two domains, of two classes in one domain, and of neither."""

    domains: float
    classes: float
    both: float


def squared_distances(model: BlockModel, k: int) -> tuple[Distances | None, str]:
    """Squared distances between the features of blocks, or None and why: a group that is kept in part has no one.

    2m lam_domain + 2m (r-1) lam_interaction, 2r lam_class + 2r (m-1) lam_interaction, and 2r lam_class +
    2m lam_domain + 2 (rm-r-m) lam_interaction, with 0 for what is dropped.
    """
    found, r, m = kept(model, k), model.classes, model.domains
    reason = found.undecided(CLASS, DOMAIN, INTERACTION)
    for group in (CLASS, DOMAIN, INTERACTION):
        if not reason and not found.whole(group):
            reason = _in_part(found, group)
    if reason:
        return None, reason
    lc, ld, li = (found.value(group) for group in (CLASS, DOMAIN, INTERACTION))
    apart = Distances(
        2 * m * ld + 2 * m * (r - 1) * li,
        2 * r * lc + 2 * r * (m - 1) * li,
        2 * r * lc + 2 * m * ld + 2 * (r * m - r - m) * li,
    )
    return apart, ""
