"""What a lab says of sweeps: which one to open with, and where its theory draws a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sims.engine import Params
from sims.engine.params import Field, Value, format_value


@dataclass(frozen=True)
class Axis:
    """A swept field with its values."""

    field: Field
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def numeric(self) -> bool:
        """Whether it is drawn to scale; else each value has a place of its own."""
        return self.field.kind in ("int", "float")

    @property
    def log(self) -> bool:
        """Whether it is logarithmic: where its slider is, or where the values grow by one factor."""
        if not self.numeric or min(self.numbers) <= 0:
            return False
        return self.field.scale == "log" or _is_geometric(np.sort(self.numbers))

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(values,) of a numeric axis."""
        return np.array(self.values, dtype=np.float64)

    @property
    def texts(self) -> list[str]:
        return [format_value(value) for value in self.values]

    @property
    def title(self) -> str:
        words = self.name.replace("_", " ")
        return f"{words} ({self.field.unit})" if self.field.unit else words

    @property
    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(values,) lower and upper ends of the cells of a numeric axis, halfway between neighbours."""
        numbers = np.log(self.numbers) if self.log else self.numbers
        order = np.argsort(numbers)
        rising = numbers[order]
        between = 0.5 * (rising[1:] + rising[:-1])
        wide = (rising[-1] - rising[0]) / (len(rising) - 1) if len(rising) > 1 else 1.0
        first, last = (between[0], between[-1]) if len(between) else (rising[0], rising[0])
        bounds = np.concatenate(
            [
                [min(2 * rising[0] - first, rising[0] - wide / 4)],
                between,
                [max(2 * rising[-1] - last, rising[-1] + wide / 4)],
            ]
        )
        low, high = np.empty_like(numbers), np.empty_like(numbers)
        low[order], high[order] = bounds[:-1], bounds[1:]
        return (np.exp(low), np.exp(high)) if self.log else (low, high)

    @property
    def span(self) -> tuple[float, float]:
        """From the lowest end of a cell to the highest."""
        low, high = self.edges
        return float(low.min()), float(high.max())


def _is_geometric(rising: NDArray[np.float64]) -> bool:
    if len(rising) < 3:
        return False
    factors = rising[1:] / rising[:-1]
    return bool(np.ptp(factors) < 0.01 * factors[0] and factors[0] > 1.1)


@dataclass(frozen=True)
class ChalkLine:
    """A line of the theory over the axes of a sweep.

    `x` and `y` are in the units of the axes. In a sweep over one axis `y` is the metric, and a line without `y`
    stands upright at its `x`. What is not claimed is drawn grey, and `words` should say why. `mark` is a short
    text at the end of the line.
    """

    x: Sequence[float]
    y: Sequence[float]
    words: str
    claimed: bool = True
    mark: str = ""


Boundary = Callable[[Params, Axis, Axis | None], Sequence[ChalkLine] | None]


@dataclass(frozen=True)
class SweepStory:
    """The sweep that a lab opens with, and its theory's lines on any sweep.

    A page module of a lab may declare one as `SWEEP`; all of it is optional.

    Args:
        x, y: the fields swept; `y` may be empty.
        x_range, y_range: their values as the command line writes them, such as `5:60:12` or `1,2,4`; by default
            the range of the slider.
        metric: what is shown of each run.
        preset: the preset whose run in focus is the base, by default the first; `base` are fields changed in it.
        notice: one sentence on what to look for.
        boundary: the lines of the theory for a base and two axes (the second None in a sweep over one), or None
            where it has none for them.
    """

    x: str = ""
    y: str = ""
    metric: str = ""
    x_range: str = ""
    y_range: str = ""
    preset: str = ""
    base: Mapping[str, Value] = field(default_factory=dict)
    notice: str = ""
    boundary: Boundary | None = None
