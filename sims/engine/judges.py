"""What judges of many labs share: means with their errors, and a metric against a number or a prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .claims import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .execute import Run

Check = Callable[[Any], str | None]


def first_broken(*checks: Check) -> Check:
    """The first assumption of `checks` that params break, as a claim's `assumes` names it."""
    return lambda params: next(filter(None, (check(params) for check in checks)), None)


def mean_se(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Mean of (R,) `values` and its standard error, None where there is but one.

    One value that is not finite makes the mean so: a judge that leaves runs out must say which.
    """
    count = len(values)
    if count == 0:
        return math.nan, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else None


def farthest(found: Sequence[tuple[float, float | None]], predicted: float) -> tuple[float, float | None]:
    """The pair (measured, error) farthest from what is predicted; one that is not finite is the farthest."""
    return max(found, key=lambda pair: abs(pair[0] - predicted) if math.isfinite(pair[0]) else math.inf)


def predicted_value(run: Run, name: str) -> float:
    """The predicted number of that name; NaN where the theory is silent."""
    found = run.prediction.prediction[name]
    return math.nan if found is None else float(found)


def final(name: str, predicted: float, tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    """A judge: the mean of a metric of the one run against a number."""

    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        return Measured(predicted, *mean_se(run.values[name]), tolerance)

    return judge


def predicted(name: str, tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    """A judge: the runs' metric against the prediction of the same name, where they are farthest apart."""

    def judge(runs: Sequence[Run]) -> Measured:
        found = [(predicted_value(run, name), *mean_se(run.values[name])) for run in runs]
        return Measured(*max(found, key=_gap), tolerance)

    return judge


def _gap(one: tuple[float, float, float | None]) -> float:
    gap = abs(one[1] - one[0])
    return gap if math.isfinite(gap) else math.inf
