"""How claims about classes in domains are judged: what several labs measure alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import Measured
from ..engine.judges import farthest, mean_se

if TYPE_CHECKING:
    from ..engine import Run

Judge = Callable[["Sequence[Run]"], Measured]

TRAINED = 0.2  # how far the gain of trained features may be from that of the minimiser


def exact(measured: float, tolerance: float, predicted: float = 0.0) -> Measured:
    """A deterministic finding."""
    return Measured(predicted, measured, 0.0, tolerance)


def linked_across_domains(params: Any) -> str | None:
    """What is missing of one class in two domains being linked more than neither, or None."""
    return None if params.across_domains > params.across_both else "across_domains must exceed across_both."


def linked_across_classes(params: Any) -> str | None:
    """What is missing of two classes in one domain being linked more than neither, or None."""
    return None if params.across_classes > params.across_both else "across_classes must exceed across_both."


def largest_gap(names: Sequence[str], tolerance: float) -> Judge:
    """The runs' metrics against the predictions of the same names, where they are farthest apart in any replicate."""

    def judge(runs: Sequence[Run]) -> Measured:
        gaps = [
            np.max(np.abs(run.values[name] - float(run.prediction.prediction[name])))
            for run in runs
            for name in names
            if run.prediction.prediction[name] is not None
        ]
        return exact(float(np.max(gaps, initial=0.0)), tolerance)

    return judge


def everywhere(names: Sequence[str], predicted: float, tolerance: float) -> Judge:
    """These metrics against one number, where they are farthest from it in any replicate of any run."""

    def judge(runs: Sequence[Run]) -> Measured:
        found = [(float(value), 0.0) for run in runs for name in names for value in run.values[name]]
        return exact(farthest(found, predicted)[0], tolerance, predicted)

    return judge


def mean_of(name: str, predicted: float, tolerance: float) -> Judge:
    """The mean of a metric against one number, in the run where it is farthest from it."""

    def judge(runs: Sequence[Run]) -> Measured:
        return Measured(predicted, *farthest([mean_se(run.values[name]) for run in runs], predicted), tolerance)

    return judge


def source_tells(runs: Sequence[Run]) -> Measured:
    """Accuracy on the target against that on the source."""
    (run,) = runs
    return Measured(float(np.mean(run.values["source_accuracy"])), *mean_se(run.values["target_accuracy"]), 0.1)


def like_the_minimiser(runs: Sequence[Run]) -> Measured:
    """Gain and accuracy on the target, the one that is farther from what is predicted of the minimiser."""
    (run,) = runs
    found = [
        (float(run.prediction.prediction[name]), *mean_se(run.values[name])) for name in ("gain", "target_accuracy")
    ]
    return Measured(*max(found, key=lambda one: abs(one[1] - one[0])), TRAINED)


def never_below(runs: Sequence[Run]) -> Measured:
    """By how much the loss ever fell below the least one."""
    (run,) = runs
    least = float(run.prediction.prediction["loss"])
    return exact(max(0.0, least - float(np.nanmin(run.trace.series["loss"]))), 1e-9)


def jump(tolerance: float) -> Judge:
    """Accuracy on the target 0 where pairs across both are the likelier ones, 1 where pairs across domains are."""

    def judge(runs: Sequence[Run]) -> Measured:
        found = []
        for run in runs:
            above = run.params.across_domains > run.params.across_both
            found.append((float(above), *mean_se(run.values["target_accuracy"])))
        return Measured(*max(found, key=lambda one: abs(one[1] - one[0])), tolerance)

    return judge
