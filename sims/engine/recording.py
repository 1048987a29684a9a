"""Which steps of a run are recorded: a function of the params alone, whoever asks."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_STEPS = 400
MOST_FRAMES = 120


def spread_steps(steps: int, linear: int = 200, logarithmic: int = 60) -> NDArray[np.int64]:
    """Steps from 0 to `steps`, both included, at most `linear + logarithmic + 1` of them.

    An even grid of `linear` intervals carries what happens on the slow clock; `logarithmic` further steps,
    evenly spaced on a log axis, resolve the start.

    Raises:
        ValueError: more than 400 steps are asked for.
    """
    if linear + logarithmic + 1 > MOST_STEPS:
        raise ValueError(f"a run records at most {MOST_STEPS} steps, not {linear + logarithmic + 1}")
    return _spread(steps, linear, logarithmic).copy()  # kernels would be compiled anew for a read-only array


@lru_cache(maxsize=256)  # asked for many times in a run, and for every point of a sweep
def _spread(steps: int, linear: int, logarithmic: int) -> NDArray[np.int64]:
    even = np.linspace(0, steps, min(linear, steps) + 1)
    early = np.geomspace(1, steps, logarithmic) if logarithmic else even[:0]
    return np.unique(np.rint(np.concatenate([even, early])).astype(np.int64))


def thin(steps: NDArray[np.int64], most: int = MOST_FRAMES) -> NDArray[np.int64]:
    """At most `most` of the given steps, first and last included: the frames of a moving picture."""
    if len(steps) <= most:
        return steps
    return steps[np.unique(np.rint(np.linspace(0, len(steps) - 1, most)).astype(np.int64))]
