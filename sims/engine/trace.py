"""What a simulation leaves behind: recorded series, end values, frames, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Stop(NamedTuple):
    """Why and when a replicate ended before its last step."""

    step: int
    reason: str


class Monitor(NamedTuple):
    """The three arrays through which a running replicate is watched and stopped.

    They may lie in shared memory: a kernel reads `cancel` and writes the other two, anybody may look.
    """

    cancel: NDArray[np.uint8]  # (1,): nonzero asks the kernel to stop
    progress: NDArray[np.int64]  # (1,): steps done
    records: NDArray[np.float64]  # (n_series, T): recorded so far, NaN elsewhere


@dataclass(frozen=True)
class Replicate:
    """What `simulate` returns for one replicate; the recorded series are in the monitor's records."""

    finals: Mapping[str, Array | float | int]
    frame_step: NDArray[np.int64] | None = None
    frames: Mapping[str, Array] = field(default_factory=dict)
    stopped: Stop | None = None


@dataclass(frozen=True)
class Trace:
    """The recorded outcome of a run.

    Shapes: `step` (T,); each series (R, T); each final (R, ...); `frame_step` (F,); each frame (F, ...), of
    the first replicate. After the step at which a replicate stopped its series are NaN.
    """

    step: NDArray[np.int64]
    series: Mapping[str, NDArray[np.float64]]
    finals: Mapping[str, Array]
    frame_step: NDArray[np.int64]
    frames: Mapping[str, Array]
    stopped: tuple[Stop | None, ...]

    @property
    def replicates(self) -> int:
        return len(self.stopped)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        kept = (self.step, self.frame_step, *self.series.values(), *self.finals.values(), *self.frames.values())
        return sum(one.nbytes for one in kept)

    @cached_property
    def replicate_sha256(self) -> tuple[str, ...]:
        """One hash for each replicate: equal in a run of one and as a part of a run of many."""
        return tuple(self._replicate_hash(r) for r in range(self.replicates))

    @cached_property
    def sha256(self) -> str:
        """The hash of the whole trace: that of its replicates and of the frames."""
        frames = [
            ("frame_step", self.frame_step),
            *((f"frames/{name}", a) for name, a in self.frames.items()),
        ]
        return _digest(frames, seed="".join(self.replicate_sha256))

    def _replicate_hash(self, r: int) -> str:
        stop = self.stopped[r]
        parts: list[tuple[str, Array]] = [("step", self.step)]
        parts += [(f"series/{name}", values[r]) for name, values in self.series.items()]
        parts += [(f"finals/{name}", np.asarray(values[r])) for name, values in self.finals.items()]
        parts += [("stopped", np.array([-1 if stop is None else stop.step], dtype=np.int64))]
        return _digest(parts, seed="" if stop is None else stop.reason)


def assemble(
    step: NDArray[np.int64],
    names: Sequence[str],
    records: NDArray[np.float64],
    replicates: Sequence[Replicate],
) -> Trace:
    """The trace of replicates that were simulated separately; `records` is (R, n_series, T).

    A replicate of which a series is no number from some step to the end, and that does not say so, stopped there.
    """
    first = replicates[0]
    stopped = [one.stopped for one in replicates]
    for r, turned in enumerate(_turned_nan(records)):
        if turned is not None and stopped[r] is None:
            name, t = names[turned[0]], turned[1]
            stopped[r] = Stop(int(step[t]), f"{name} is not a number from here on")
            records = records.copy()
            records[r, :, t:] = np.nan
    series = {name: np.ascontiguousarray(records[:, i, :]) for i, name in enumerate(names)}
    finals = {name: np.stack([np.asarray(one.finals[name]) for one in replicates]) for name in first.finals}
    return Trace(
        step=np.asarray(step, dtype=np.int64),
        series=series,
        finals=finals,
        frame_step=np.zeros(0, dtype=np.int64) if first.frame_step is None else first.frame_step,
        frames=dict(first.frames),
        stopped=tuple(stopped),
    )


def _turned_nan(records: NDArray[np.float64]) -> list[tuple[int, int] | None]:
    """For each replicate of (R, n_series, T) the first series that turns NaN and stays so, with the index where."""
    absent = np.isnan(records)
    until_end = np.logical_and.accumulate(absent[..., ::-1], axis=-1)[..., ::-1]
    turns = until_end & ~np.concatenate([absent[..., :1] | True, absent[..., :-1]], axis=-1)
    found: list[tuple[int, int] | None] = []
    for one in turns:
        places = np.argwhere(one.T)  # by step, then by series
        found.append((int(places[0][1]), int(places[0][0])) if len(places) else None)
    return found


def _digest(parts: Iterable[tuple[str, Array]], seed: str) -> str:
    """SHA-256 over (name, dtype, shape, little-endian bytes) in name order; one pattern for every NaN."""
    total = hashlib.sha256(seed.encode())
    for name, values in sorted(parts, key=lambda part: part[0]):
        values = np.ascontiguousarray(values)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        total.update(f"{name}|{little.dtype.str}|{values.shape}|".encode())
        total.update(little.tobytes())
    return total.hexdigest()
