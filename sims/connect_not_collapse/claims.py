"""Sentences about domains that are connected and domains that are alike: what transfers, and two that are false.

What is deterministic has no standard error; what is drawn has one over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import Claim, Measured
from ..engine.judges import first_broken, mean_se
from ..graphs.domain_judges import (
    everywhere,
    exact,
    jump,
    largest_gap,
    like_the_minimiser,
    linked_across_classes,
    linked_across_domains,
    mean_of,
    never_below,
    source_tells,
)

if TYPE_CHECKING:
    from theory.connect_not_collapse import Rule

    from ..engine import Run
    from .lab import ConnectNotCollapseParams

Runs = Callable[["ConnectNotCollapseParams"], "list[ConnectNotCollapseParams]"]

_PAPER = "Shen et al. 2022"
_FOUR = "eigenvalues of four nodes"
_BLOCKS = "eigenspaces of the block model"
_SYMMETRY = "the start treats all classes alike"
LINKS = {"graph": "random", "classes": 5, "within": 0.5, "across_classes": 0.15, "across_both": 0.05}
ALIGNED_CLASSES = (2, 3, 5)
ALIGNED_RUNS = 100


# -- kinds of run and assumptions ----------------------------------------------------------------------------------


def _population(p: ConnectNotCollapseParams) -> bool:
    return p.method == "contrastive" and p.graph == "population"


def _solved(p: ConnectNotCollapseParams) -> bool:
    return _population(p) and p.training == "eigen"


def _alignment(p: ConnectNotCollapseParams) -> bool:
    return p.method == "alignment"


def _rule(p: ConnectNotCollapseParams) -> Rule | None:
    """The rule of the smallest weight, for three features of four nodes that are solved for."""
    from theory.connect_not_collapse import four_node_rule

    from .prediction import model_of

    return four_node_rule(model_of(p)) if p.four_nodes and _solved(p) and p.n_features == 3 else None


def _ruled(p: ConnectNotCollapseParams) -> bool:
    return _rule(p) is not None


def _predicts(*names: str) -> Callable[[ConnectNotCollapseParams], bool]:
    """A solved population of which theory knows one of these numbers at least."""

    def about(p: ConnectNotCollapseParams) -> bool:
        from .prediction import chalk_of

        return _solved(p) and any(chalk_of(p).values[name] is not None for name in names)

    return about


def _full(p: ConnectNotCollapseParams) -> bool:
    from .prediction import model_of

    return _population(p) and min(model_of(p).eigenvalues.values()) > 1e-9


def _trained(p: ConnectNotCollapseParams) -> bool:
    """Features that descent has had the time to find, where theory says what they do."""
    from .prediction import chalk_of

    return _population(p) and chalk_of(p).settles_within(p.steps)


def _told_apart(p: ConnectNotCollapseParams) -> bool:
    """Of the population, right on the source, with domains told apart, and a known answer on the target."""
    from .prediction import chalk_of

    if not _population(p):
        return False
    values = chalk_of(p).values
    return values["source_accuracy"] == values["domain_accuracy"] == 1.0 and values["target_accuracy"] is not None


def _links(p: ConnectNotCollapseParams) -> bool:
    return p.method == "contrastive" and all(getattr(p, name) == value for name, value in LINKS.items())


# -- judges --------------------------------------------------------------------------------------------------------


def _judge_eigenvalues(runs: Sequence[Run]) -> Measured:
    """Of the closed form, and those of the solver, sorted."""
    from theory.connect_not_collapse import four_node_eigenvalues

    from .prediction import model_of

    (run,) = runs
    values = four_node_eigenvalues(model_of(run.params))
    gaps = [np.abs(run.values[f"lam_{group}"] - value) for group, value in values.items()]
    solved = run.trace.finals["eigenvalues"] - np.sort([1.0, *values.values()])[::-1]
    return exact(float(max(np.max(gaps), np.max(np.abs(solved)))), 1e-10)


def _judge_dropped(runs: Sequence[Run]) -> Measured:
    """The share of each group in the features against 1, or 0 for the group that the rule says is dropped."""
    (run,) = runs
    rule = _rule(run.params)
    assert rule is not None
    shares = {group: run.values[f"kept_{group}"] for group in ("class", "domain", "interaction")}
    gaps = [np.abs(share - (group != rule.dropped)) for group, share in shares.items()]
    return exact(float(np.max(gaps)), 1e-9)


def _judge_rule(runs: Sequence[Run]) -> Measured:
    """Gain and accuracies against those of the rule."""
    (run,) = runs
    rule = _rule(run.params)
    assert rule is not None
    gaps = [
        np.max(np.abs(run.values[name] - expected))
        for name, expected in (
            ("gain", rule.gain),
            ("target_accuracy", rule.target_accuracy),
            ("domain_accuracy", rule.domain_accuracy),
        )
    ]
    return exact(float(np.max(gaps)), 1e-9)


def _judge_full(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    p = run.params
    expected = (p.across_domains - p.across_both) / (p.within - p.across_classes)
    return exact(float(np.max(np.abs(run.values["gain"] - expected))), 1e-9)


def _judge_guess(runs: Sequence[Run]) -> Measured:
    """Classes that are matched rightly, the number of them in a run: 1 on average, with a standard deviation of 1."""
    found = [mean_se(run.params.classes * run.values["target_accuracy"]) for run in runs]
    mean, error = max(found, key=lambda one: abs(one[0] - 1.0))
    return Measured(1.0, mean, error, 3.0 / math.sqrt(runs[0].trace.replicates))


def _judge_residual(runs: Sequence[Run]) -> Measured:
    return exact(max(float(np.median(run.values["residual"])) for run in runs), 1e-6)


def _judge_alike(runs: Sequence[Run]) -> Measured:
    """Accuracy on the target against that on the source, which is 1."""
    (run,) = runs
    return Measured(float(np.mean(run.values["source_accuracy"])), *mean_se(run.values["target_accuracy"]), 0.2)


# -- over which runs -----------------------------------------------------------------------------------------------


def _together(params: ConnectNotCollapseParams) -> list[ConnectNotCollapseParams]:
    """The same weights, solved, with the features of classes and domains together."""
    return [params.replace(training="eigen", steps=1, replicates=2, n_features=params.classes + 1)]


def _all_features(params: ConnectNotCollapseParams) -> list[ConnectNotCollapseParams]:
    return [params.replace(training="eigen", steps=1, replicates=2, n_features=2 * params.classes)]


def _aligned(params: ConnectNotCollapseParams) -> list[ConnectNotCollapseParams]:
    """The published alignment, a hundred starts each."""
    common = {"method": "alignment", "replicates": ALIGNED_RUNS, "seed": params.seed}
    return [params.make(common, classes=r) for r in ALIGNED_CLASSES]


def _sampled(*weights: float) -> Runs:
    """The published sampled graphs, five draws each."""

    def over(params: ConnectNotCollapseParams) -> list[ConnectNotCollapseParams]:
        base: dict[str, Any] = {
            **LINKS,
            "nodes_per_block": 100,
            "n_features": 6,
            "training": "eigen",
            "steps": 1,
            "replicates": 5,
            "seed": params.seed,
        }
        return [params.make(base, across_domains=weight) for weight in weights]

    return over


CLAIMS = (
    Claim(
        "eigenvalues",
        "Beside 1 the eigenvalues are (rho - (alpha + beta + gamma) + 2x)/Z with x = alpha, beta, gamma (to 1e-10).",
        _FOUR,
        about=lambda p: p.four_nodes,
        judge=_judge_eigenvalues,
    ),
    Claim(
        "smallest_is_dropped",
        "Three features drop the direction of the smallest of alpha, beta, gamma: class, domain or their product.",
        _FOUR,
        about=_ruled,
        judge=_judge_dropped,
    ),
    Claim(
        "rule",
        "Gain and accuracies are those of the rule of the smallest weight: 1; (alpha-gamma)/(rho-beta); or -1.",
        f"{_FOUR}, and a head on the source alone",
        about=_ruled,
        judge=_judge_rule,
    ),
    Claim(
        "verdicts",
        "Gain and accuracies on target, source and domain are those of the groups that are kept (to 1e-9).",
        _BLOCKS,
        about=_predicts("gain", "target_accuracy", "source_accuracy", "domain_accuracy"),
        judge=largest_gap(("gain", "target_accuracy", "source_accuracy", "domain_accuracy"), 1e-9),
    ),
    Claim(
        "full_gain",
        "With a feature for every block the gain is (alpha - gamma)/(rho - beta), whichever weight is smallest.",
        _BLOCKS,
        about=_full,
        over=_all_features,
        judge=_judge_full,
    ),
    Claim(
        "perfect_picture",
        "Classes + 1 features put class and domain on perpendicular axes: gain 1, target and domain without a mistake.",
        f"{_PAPER}, for the population",
        about=_population,
        assumes=first_broken(linked_across_domains, linked_across_classes),
        over=_together,
        judge=everywhere(("gain", "target_accuracy", "domain_accuracy"), 1.0, 1e-9),
    ),
    Claim(
        "distances",
        "Squared distances, and the discrepancy of the domains, are those of the kept eigenvalues (to 1e-9).",
        _BLOCKS,
        about=_predicts("domain_distance", "discrepancy"),
        judge=largest_gap(("domain_distance", "class_distance", "discrepancy"), 1e-9),
    ),
    Claim(
        "told_domains_transfer",
        "A head that is right on the source is right on the target as soon as domains have a direction of their own.",
        "false on purpose: it depends on how the domains are linked",
        about=_told_apart,
        judge=source_tells,
    ),
    Claim(
        "alike_is_enough",
        "Where no kernel tells the domains apart, a head that is right on the source is right on the target.",
        f"false on purpose: {_PAPER} says that alike is neither needed nor enough",
        about=_alignment,
        judge=_judge_alike,
    ),
    Claim(
        "alignment_is_a_guess",
        "Aligned features match one class rightly on average, for 2, 3 and 5 classes (within 3 standard errors).",
        f"{_SYMMETRY}: a random permutation has one fixed point on average",
        about=_alignment,
        over=_aligned,
        judge=_judge_guess,
    ),
    Claim(
        "always_a_matching",
        "Alignment ends in a matching of the classes in every one of 100 runs, for 2, 3 and 5 classes.",
        "each of the r! matchings is a minimum of the discrepancy; found in simulations",
        about=_alignment,
        over=_aligned,
        judge=everywhere(("matched",), 1.0, 1e-9),
    ),
    Claim(
        "aligned_exactly",
        "The target's features end on those of the source: the median over runs of the largest distance is below 1e-6.",
        "each of the r! matchings has no discrepancy",
        about=_alignment,
        over=_aligned,
        judge=_judge_residual,
    ),
    Claim(
        "trained_transfer",
        "Trained by descent, features transfer as the minimiser's do: gain and target accuracy within 0.2.",
        "the loss is a low-rank factorisation; small steps",
        about=_trained,
        judge=like_the_minimiser,
    ),
    Claim(
        "never_below",
        "No features that are trained ever have a smaller loss than the minimiser.",
        "the loss is a low-rank factorisation of the normalised weights",
        about=lambda p: _population(p) and p.training == "sgd",
        judge=never_below,
    ),
    Claim(
        "sampled_rule",
        "On sampled links (gamma 0.05) the target is wrong throughout at alpha = 0.03, right at 0.07 and 0.09.",
        f"{_PAPER}: enough nodes; {_BLOCKS} below",
        about=_links,
        over=_sampled(0.03, 0.07, 0.09),
        judge=jump(0.02),
    ),
    Claim(
        "sampled_domains",
        "On these graphs, and at alpha = gamma, a linear classifier tells the domains apart without a mistake.",
        f"{_BLOCKS}: the contrast of domains is kept throughout",
        about=_links,
        over=_sampled(0.03, 0.05, 0.07, 0.09),
        judge=mean_of("domain_accuracy", 1.0, 0.02),
    ),
    Claim(
        "sampled_source",
        "On these graphs the head is right on the source, where the target is right and where it is wrong.",
        _BLOCKS,
        about=_links,
        over=_sampled(0.03, 0.07, 0.09),
        judge=mean_of("source_accuracy", 1.0, 0.02),
    ),
)
