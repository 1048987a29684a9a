"""Sentences about heads that are trained on one domain: what transfers, what turns round, and two that are false.

What is deterministic has no standard error; what is drawn has one over replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import farthest, first_broken, mean_se
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
    from ..engine import Run
    from .lab import LinearTransferParams

Array = NDArray[np.float64]
Runs = Callable[["LinearTransferParams"], "list[LinearTransferParams]"]

_PAPER = "HaoChen et al. 2022"
_BLOCKS = "eigenspaces of the block model"
_MEASURED = "found in simulations, no theorem"
_ACCURACIES = ("target_accuracy", "source_accuracy", "domain_accuracy")
_DISTANCES = ("domain_distance", "class_distance")
LINKS = {"graph": "random", "classes": 5, "domains": 2, "within": 0.5, "across_classes": 0.15, "across_both": 0.05}
BELOW, ABOVE = (0.01, 0.03), (0.07, 0.09, 0.2)  # weights across domains on the two sides of that across both
FEATURES = 6  # of five classes in two domains, those of classes and of domains


def _answers(p: LinearTransferParams) -> tuple[float | None, float | None]:
    """Predicted gain and target accuracy."""
    from theory.domains import target_accuracy

    from .prediction import gain_of, model_of

    return gain_of(p).value, target_accuracy(model_of(p), p.n_features).value


# -- kinds of run and assumptions ----------------------------------------------------------------------------------


def _population(p: LinearTransferParams) -> bool:
    return p.graph == "population"


def _solved_population(p: LinearTransferParams) -> bool:
    return _population(p) and p.training == "eigen"


def _trained_population(p: LinearTransferParams) -> bool:
    """Features that descent has had the time to find, where theory says what they do."""
    from .prediction import chalk_of

    return _population(p) and chalk_of(p).settles_within(p.steps)


def _plain(p: LinearTransferParams) -> bool:
    return p.head == "least_squares" and p.ridge == 0.0


def _predicts(*names: str) -> Callable[[LinearTransferParams], bool]:
    """A solved population of which theory knows one of these numbers at least."""

    def about(p: LinearTransferParams) -> bool:
        from .prediction import chalk_of

        return _solved_population(p) and any(chalk_of(p).values[name] is not None for name in names)

    return about


def _all_positive(p: LinearTransferParams) -> bool:
    from .prediction import model_of

    return min(model_of(p).eigenvalues.values()) > 1e-9


def _full(p: LinearTransferParams) -> bool:
    return _population(p) and p.classes * p.domains <= 64 and _all_positive(p) and p.within > p.across_classes


def _turned(p: LinearTransferParams) -> bool:
    """Fewer links across domains than across both, so that k = classes + domains - 1 leaves every contrast turned."""
    return _population(p) and p.across_domains < p.across_both and _answers(_together(p))[1] == 0.0


def _known_transfer(p: LinearTransferParams) -> bool:
    """Of the population, with a known answer on the target, and a source that is told without a mistake."""
    from theory.domains import source_accuracy

    from .prediction import model_of

    known = _population(p) and _answers(p)[1] is not None
    return known and source_accuracy(model_of(p), p.n_features, _plain(p)).value == 1.0


def _transfers(p: LinearTransferParams) -> bool:
    """Of the population, where the head is predicted to be right on the target and domains to be told."""
    from theory.domains import domain_accuracy

    from .prediction import model_of

    return _population(p) and _answers(p)[1] == 1.0 and domain_accuracy(model_of(p), p.n_features).value == 1.0


def _links(p: LinearTransferParams) -> bool:
    return all(getattr(p, name) == value for name, value in LINKS.items())


# -- judges --------------------------------------------------------------------------------------------------------


def _judge_spectrum(runs: Sequence[Run]) -> Measured:
    from .prediction import model_of

    (run,) = runs
    found = run.trace.finals["eigenvalues"]
    return exact(float(np.max(np.abs(found - model_of(run.params).spectrum))), 1e-10)


def _judge_full(runs: Sequence[Run]) -> Measured:
    from theory.linear_transfer import full_gain

    from .prediction import model_of

    (run,) = runs
    expected = full_gain(model_of(run.params))
    return exact(farthest([(float(value), 0.0) for value in run.values["gain"]], expected)[0], 1e-9, expected)


def _judge_turned(runs: Sequence[Run]) -> Measured:
    """The target's largest accuracy in any basis."""
    (run,) = runs
    return exact(float(np.max(run.values["target_accuracy"])), 1e-9)


def _judge_invariance(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return Measured(1.0 / run.params.domains, *mean_se(run.values["domain_accuracy"]), 0.1)


def _judge_walk(runs: Sequence[Run]) -> Measured:
    return exact(float(max(np.max(run.values["walk_error"]) for run in runs)), 1e-9)


def _judge_soft(runs: Sequence[Run]) -> Measured:
    """By how much the mean accuracy is on the wrong side of one half, at worst, and how far from all or nothing."""
    wrong = []
    for run in runs:
        mean, above = float(np.mean(run.values["target_accuracy"])), run.params.across_domains > run.params.across_both
        wrong.append(0.5 - mean if above else mean - 0.5)
    return exact(max(0.0, *wrong), 1e-9)


# -- over which runs -----------------------------------------------------------------------------------------------


def _solved(**changes: Any) -> Runs:
    def over(params: LinearTransferParams) -> list[LinearTransferParams]:
        return [params.replace(**{"training": "eigen", "steps": 1, "replicates": 2, **changes})]

    return over


def _together(params: LinearTransferParams) -> LinearTransferParams:
    """The same weights, solved, with the features of classes and domains together; a head without a penalty."""
    return params.replace(
        training="eigen", steps=1, replicates=2, n_features=params.both, head="least_squares", ridge=0.0
    )


def _all_features(params: LinearTransferParams) -> list[LinearTransferParams]:
    return [_together(params).replace(n_features=params.classes * params.domains)]


def _many_bases(params: LinearTransferParams) -> list[LinearTransferParams]:
    return [_together(params).replace(replicates=200)]


def _powers(params: LinearTransferParams) -> list[LinearTransferParams]:
    every = _together(params).replace(n_features=params.classes * params.domains)
    return [every.replace(head="averaging", walk_steps=t) for t in (1, 2, 3)]


def _sampled(weights: Sequence[float], **changes: Any) -> Runs:
    """The published sampled graphs, five draws each."""

    def over(params: LinearTransferParams) -> list[LinearTransferParams]:
        base = {
            **LINKS,
            "nodes_per_block": 100,
            "n_features": FEATURES,
            "training": "eigen",
            "steps": 1,
            "replicates": 5,
        }
        return [params.make({**base, **changes}, across_domains=weight, seed=params.seed) for weight in weights]

    return over


CLAIMS = (
    Claim(
        "spectrum",
        "The solver finds 1 and the eigenvalues of class contrasts, domain contrasts and interactions, every copy.",
        _BLOCKS,
        about=_population,
        judge=_judge_spectrum,
    ),
    Claim(
        "gain_formula",
        "The source's class contrast reaches the target multiplied by the ratio of kept eigenvalues (to 1e-9).",
        f"{_BLOCKS}, and a head on the source alone",
        about=_predicts("gain"),
        judge=largest_gap(("gain",), 1e-9),
    ),
    Claim(
        "verdicts",
        "Accuracies on target, source and domains are those of the groups that are kept: all, none or chance.",
        _BLOCKS,
        about=_predicts(*_ACCURACIES),
        judge=largest_gap(_ACCURACIES, 1e-9),
    ),
    Claim(
        "distances",
        "Squared distances between classes and between domains are sums of kept eigenvalues (to 1e-9).",
        _BLOCKS,
        about=_predicts(*_DISTANCES),
        judge=largest_gap(_DISTANCES, 1e-9),
    ),
    Claim(
        "full_gain",
        "With a feature for every block the gain is (alpha - gamma)/(rho - beta): right in sign, and small.",
        _BLOCKS,
        about=_full,
        over=_all_features,
        judge=_judge_full,
    ),
    Claim(
        "perfect_transfer",
        "With classes + domains - 1 features the target's logits are the source's: gain 1, no mistake on the target.",
        f"{_PAPER} and Shen et al. 2022, for the population",
        about=_population,
        assumes=first_broken(linked_across_domains, linked_across_classes),
        over=lambda params: [_together(params)],
        judge=everywhere(("gain", "target_accuracy"), 1.0, 1e-9),
    ),
    Claim(
        "wrong_wiring",
        "Linked more across both than across domains, the target is wrong throughout, in each of 200 random bases.",
        f"{_BLOCKS}: interactions come before classes",
        about=_turned,
        over=_many_bases,
        judge=_judge_turned,
    ),
    Claim(
        "source_tells_target",
        "A head that is right on the source is as right on the target.",
        "false on purpose: it depends on how the domains are linked",
        about=_known_transfer,
        judge=source_tells,
    ),
    Claim(
        "needs_invariance",
        "A head transfers only if no linear classifier tells the domains apart.",
        f"false on purpose: {_PAPER} asks for no such thing",
        about=_transfers,
        judge=_judge_invariance,
    ),
    Claim(
        "trained_transfer",
        "Trained by descent, features transfer as the minimiser's do: gain and target accuracy within 0.2.",
        "the loss is a low-rank factorisation; small steps",
        about=_trained_population,
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
        "averaged_gain",
        "Averaged features of power t = 1, 2, 3 have the gain (lc^t - li^t)/(lc^t + (m-1) li^t) on all features.",
        f"{_PAPER}, its algorithm, on the block model",
        about=_full,
        over=_powers,
        judge=largest_gap(("gain",), 1e-9),
    ),
    Claim(
        "labels_spread",
        "Averaged features of power t give the scores of labels that take t steps of a random walk (to 1e-9).",
        f"{_PAPER}, its algorithm; the second moment of the features is diagonal",
        about=_full,
        over=_powers,
        judge=_judge_walk,
    ),
    Claim(
        "sampled_jump",
        "On sampled links accuracy on the target is 0 for alpha = 0.01, 0.03 and 1 for 0.07, 0.09, 0.2 (gamma 0.05).",
        f"Shen et al. 2022 for alpha > gamma; {_BLOCKS} below",
        about=_links,
        over=_sampled((*BELOW, *ABOVE)),
        judge=jump(0.02),
    ),
    Claim(
        "averages_jump",
        "Averaged features of power 2 jump there too (within 0.03).",
        _PAPER,
        about=_links,
        over=_sampled((*BELOW, *ABOVE), head="averaging", walk_steps=2),
        judge=jump(0.03),
    ),
    Claim(
        "domains_stay_apart",
        "A linear classifier of domains is right on all of these graphs, those that transfer and those that do not.",
        f"{_BLOCKS}: contrasts of domains are kept throughout",
        about=_links,
        over=_sampled((*BELOW, 0.05, *ABOVE)),
        judge=mean_of("domain_accuracy", 1.0, 0.02),
    ),
    Claim(
        "soft_margin",
        "With a feature for every block the target is on the same side of one half on each of these graphs.",
        f"{_BLOCKS}: the margin is small, its sign the same",
        about=_links,
        over=_sampled((*BELOW, *ABOVE), n_features=10),
        judge=_judge_soft,
    ),
    Claim(
        "enough_nodes",
        "At alpha = 0.09 and 160 nodes a block the target is right (within 0.02).",
        "Shen et al. 2022: enough nodes",
        about=_links,
        over=_sampled((0.09,), nodes_per_block=160),
        judge=mean_of("target_accuracy", 1.0, 0.02),
    ),
    Claim(
        "limit_with_ten_nodes",
        "At alpha = 0.09 ten nodes a block are enough for the target to be right (within 0.1).",
        "false on purpose: the theorem is one of many nodes",
        about=_links,
        over=_sampled((0.09,), nodes_per_block=10, replicates=40),
        judge=mean_of("target_accuracy", 1.0, 0.1),
    ),
)
