"""Contenders at the same work: checked against ours, timed in turns on one core, their memory watched."""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sims.engine.provenance import single_threaded_blas

from .report import Growth, Row

Array = NDArray[np.float64]
Work = Callable[[int], Array]  # does so many units of work from the start, and returns what came of them

OURS = "ours"
ROUNDS = 7
SECONDS = 0.08  # of one contender in one round


@dataclass(frozen=True)
class Limit:
    """What the machine could do at most, in the contest's unit."""

    words: str
    throughput: float


class Different(Exception):
    """A contender did not compute the same thing."""


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Pin this process to one core, and every library in it to one thread, which they keep afterwards.

    A limit that ended with the block would give BLAS its threads back under what is measured next.
    """
    import torch  # noqa: F401

    before = os.sched_getaffinity(0)
    single_threaded_blas()
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory(name: str) -> int:
    """Bytes of this process: VmRSS, resident now, or VmHWM, at the peak (rusage would tell a parent's peak as well)."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", text)[1])  # type: ignore[index]


def memory_growth(action: Callable[[], object]) -> tuple[object, float]:
    """What a call returns, and by how many bytes the resident memory grew at its peak."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before = memory("VmRSS")
    found = action()
    return found, float(max(0, memory("VmHWM") - before))


def contest(
    work: str,
    unit: str,
    contenders: Mapping[str, Callable[[], Work]],
    *,
    check: int,
    tolerance: float,
    scale: float = 1.0,
    limits: Mapping[str, Limit] | Limit | None = None,
    against: Mapping[str, str] | None = None,
    single: bool = False,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> list[Row]:
    """Rows of all contenders, ours (which is named so) first.

    Args:
        work, unit: what is done, and what is counted a second.
        contenders: name -> a function that makes the work ready; `check` units of it are compared with ours.
        tolerance: largest difference from ours, relative to the largest value of ours.
        scale: units a call with 1 does.
        limits: the machine's limit, for all or by contender.
        against: contenders that draw other numbers than ours by the same law, and the contender that they are compared
            with instead.
        single: a unit takes long enough to be timed alone.

    Raises:
        Different: a contender computed something else.
    """
    ready: dict[str, Work] = {}
    answers, grown = {}, {}
    for name, make in contenders.items():

        def first(name: str = name, make: Callable[[], Work] = make) -> Array:
            ready[name] = make()
            return np.array(ready[name](check))

        answers[name], grown[name] = memory_growth(first)
    references = {name: (against or {}).get(name, OURS) for name in ready}
    differences = {name: _difference(answers[name], answers[reference]) for name, reference in references.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:
            other = references[name]
            raise Different(f"{work}: {name} differs from {other} by {difference:.3g}, more than {tolerance:g}")
    counts = {name: 1 if single else _count(run, seconds) for name, run in ready.items()}
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, run in ready.items():
            start = perf_counter()
            run(counts[name])
            taken[name].append((perf_counter() - start) / counts[name])
    rows = []
    for name, spent in taken.items():
        rate = scale / min(spent)
        limit = limits.get(name) if isinstance(limits, Mapping) else limits
        rows.append(
            Row(
                work=work,
                contender=name,
                throughput=rate,
                unit=unit,
                ratio=1.0 if name == OURS else median(a / b for a, b in zip(spent, taken[OURS], strict=True)),
                difference=None if name == references[name] else differences[name],
                limit=limit.words if limit else "",
                fraction=rate / limit.throughput if limit else None,
                bytes=grown[name],
            )
        )
    return rows


def _difference(answer: Array, reference: Array) -> float:
    return float(np.max(np.abs(answer - reference)) / np.max(np.abs(reference)))


def _count(run: Work, seconds: float) -> int:
    """How many units take about that long; the first calls also warm the contender up."""
    count = 2
    run(count)
    while True:
        start = perf_counter()
        run(count)
        spent = perf_counter() - start
        if spent >= seconds / 10:
            return max(1, round(count * seconds / spent))
        count *= 4


def rate_of(run: Work, rounds: int = ROUNDS, seconds: float = SECONDS) -> float:
    """Units a second of one piece of work, the best of rounds."""
    count = _count(run, seconds)
    return max(count / _timed(run, count) for _ in range(rounds))


def _timed(run: Work, count: int) -> float:
    start = perf_counter()
    run(count)
    return perf_counter() - start


def find(rows: Sequence[Row], work: str, contender: str = OURS) -> Row:
    """The row of a contender at a piece of work."""
    return next(row for row in rows if row.work == work and row.contender == contender)


def best_ratio(rows: Sequence[Row], work: str, prefix: str) -> float:
    """The smallest ratio among the contenders whose name starts so: the fastest of a library's variants."""
    return min(row.ratio or 0.0 for row in rows if row.work == work and row.contender.startswith(prefix))


def growth(
    work: str, size: str, values: Sequence[int], predicted: float, make: Callable[[int], Work], rounds: int = 5
) -> Growth:
    """The exponent with which the time of a unit grows with one size: a least-squares line through the logarithms."""
    seconds = [1.0 / rate_of(make(value), rounds, SECONDS / 2) for value in values]
    slope = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
    return Growth(work, size, list(values), seconds, slope, predicted)
