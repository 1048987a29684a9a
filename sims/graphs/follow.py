"""From one recorded step of a training to the next: measured on the way, framed now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .descent import DIVERGED, DONE

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

Advance = Callable[[int, int], tuple[int, int]]  # from a step to a step: status, and the step it ended at
Look = Callable[[], Array]  # what is trained, as it is now


class End(NamedTuple):
    """Where a training ended: what was trained, its frames, the last step, and whether it diverged there.

    Frames after a divergence are NaN.
    """

    trained: Array
    frames: Mapping[str, Array]
    step: int
    diverged: bool


def follow(
    step: Integers,
    frame_step: Integers,
    advance: Advance,
    look: Look,
    measure: Callable[[Array, int], Array],
    picture: Callable[[Array], Mapping[str, Array]],
    monitor: Monitor,
    moves: bool = True,
) -> End:
    """Train through `step` (T,), writing `measure` (series,) of what is trained into the records at each of them.

    `picture` is what frames hold, at the steps `frame_step` (F,), a part of `step`. What does not move is measured
    once.
    """
    status, at, trained, row = DONE, 0, look(), np.zeros(0)
    still = picture(trained)
    frames = {name: np.full((len(frame_step), *np.shape(one)), np.nan) for name, one in still.items()}
    framed = 0
    for index, wanted in enumerate(step):
        if wanted > at:
            status, at = advance(at, int(wanted))
            if status != DONE:
                break
        if moves or index == 0:
            trained = look()
            row = measure(trained, at)
        monitor.records[:, index] = row
        if framed < len(frame_step) and frame_step[framed] == wanted:
            for name, one in (picture(trained) if moves else still).items():
                frames[name][framed] = one
            framed += 1
    return End(trained, frames, at, status == DIVERGED)


def resting(monitor: Monitor) -> Advance:
    """The training of what is solved for: it passes through all steps at once."""

    def advance(first: int, last: int) -> tuple[int, int]:
        monitor.progress[0] = last
        return DONE, last

    return advance
