"""Processes that are kept warm for the replicates of short runs.

The interpreter of a server belongs to its pages. Kernels hold no lock of it, but the NumPy around them takes it a
thousand times in a run, and waits for it wherever a page is drawn meanwhile. In a process of its own a replicate does
neither: it writes what it records into memory that both see, and sends what it returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import queue
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from . import confine
from .errors import Cancelled, ChalklineError, TooLarge
from .execute import RunMonitor
from .lab import Lab
from .params import Params
from .provenance import cores
from .recording import MOST_STEPS
from .registry import all_labs, get_lab
from .spawned import AnyContext, forking
from .trace import Monitor, Replicate

LOOK_SECONDS = 0.02  # how often a worker at work is looked at
NICENESS = 15  # who draws a page goes first, and does not hold the interpreter while a replicate has its core
DEAF_SECONDS = 3.0  # so long after it was asked to stop a worker is killed
END_SECONDS = 1.0

logger = logging.getLogger("chalkline.workers")


class Workers:
    """So many processes, one for each core by default, each of which computes one replicate at a time.

    `compute` is what `execute` takes in place of its own; it may be called by any number of threads. A process that
    dies fails the run that it was at, and is replaced for the next one; one that does not stop when asked to is killed.
    """

    def __init__(self, count: int | None = None) -> None:
        self.context = forking()
        self._count = cores() if count is None else count
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(self._count):
            self._idle.put(_Worker(self.context))

    def compute(self, lab: Lab, params: Params, number: int, monitor: RunMonitor, index: int) -> Replicate:
        """Replicate `number`, with the monitor's views at `index`, as the lab's `simulate` returns it.

        Raises:
            Cancelled: the monitor's cancel flag was set.
            TooLarge: it wanted more memory than a worker may have.
            ChalklineError: it failed, or its process died.
        """
        with self._taken() as worker, monitor.meter.running(worker.seconds):
            return worker.compute(lab, params, number, monitor.of(index))

    @contextlib.contextmanager
    def _taken(self) -> Iterator[_Worker]:
        worker = self._idle.get()
        try:
            if not worker.process.is_alive():
                worker.end()
                worker = _Worker(self.context)
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes, when nothing is computed any more."""
        for _ in range(self._count):
            self._idle.get().end()


class _Worker:
    """One process, and the memory that it shares with this one."""

    def __init__(self, context: AnyContext) -> None:
        cells = MOST_STEPS * max(len(lab.series) for lab in all_labs())
        self._shared = context.RawArray("q", 2), context.RawArray("d", cells)
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, *self._shared)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self._clock = _clock(self.process.pid or 0)
        self._seconds = 0.0

    def seconds(self) -> float:
        """Of processor time that it has taken."""
        with contextlib.suppress(OSError):  # it has died: what was read last
            self._seconds = time.clock_gettime(self._clock)
        return self._seconds

    def compute(self, lab: Lab, params: Params, number: int, own: Monitor) -> Replicate:
        theirs = _monitor(*self._shared, own.records.shape)
        theirs.cancel[:], theirs.progress[:], theirs.records[:] = own.cancel, own.progress, own.records
        try:
            self._pipe.send((lab.id, params, number, own.records.shape))
            asked = math.inf
            while not self._pipe.poll(LOOK_SECONDS):
                theirs.cancel[:] = own.cancel
                _copy(theirs, own)
                if own.cancel[0]:
                    asked = min(asked, time.monotonic())
                    if time.monotonic() - asked > DEAF_SECONDS:
                        self.process.kill()  # which ends the wait for its answer
            outcome: Replicate | ChalklineError = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join(END_SECONDS)
            if own.cancel[0]:
                raise Cancelled("The run was stopped before it ended.") from None
            raise ChalklineError(
                f"The worker that computed this run ended early (exit code {self.process.exitcode}): too little "
                f"memory, perhaps. Run it again."
            ) from None
        _copy(theirs, own)
        if isinstance(outcome, ChalklineError):
            raise outcome
        return outcome

    def end(self) -> None:
        self._pipe.close()
        self.process.kill()
        self.process.join()


def _copy(theirs: Monitor, own: Monitor) -> None:
    own.progress[:], own.records[:] = theirs.progress, theirs.records


def _monitor(flags: Any, cells: Any, shape: tuple[int, ...]) -> Monitor:
    """Views of the shared memory: cancel flag, progress, and records of that shape."""
    whole = np.frombuffer(flags, np.int64)
    records = np.frombuffer(cells, np.float64)[: int(np.prod(shape))].reshape(shape)
    return Monitor(whole[:1].view(np.uint8)[:1], whole[1:], records)


def _clock(process: int) -> int:
    """The clock of a process's processor time; where the system has none, one that counts its waiting too."""
    of_process = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "clock_getcpuclockid", None)
    clock = ctypes.c_int()
    if of_process is None or of_process(process, ctypes.byref(clock)) != 0:
        return time.CLOCK_MONOTONIC
    return clock.value


def told(error: Exception) -> ChalklineError:
    """What a worker sends of an exception: a sentence, and of a kind that can be read wherever it came from."""
    if isinstance(error, ChalklineError | ArithmeticError):
        kind = type(error) if isinstance(error, Cancelled | TooLarge) else ChalklineError
        return kind(str(error) or type(error).__name__)
    logger.exception("A run failed.", exc_info=error)
    return ChalklineError(f"The run failed ({type(error).__name__}: {error}). Nothing of it was kept.")


def _serve(pipe: Connection, flags: Any, cells: Any) -> None:
    """Entry point of the process: answer requests until the other end is closed."""
    confine.begin()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    with contextlib.suppress(EOFError):
        while True:
            lab_id, params, number, shape = pipe.recv()
            lab = get_lab(lab_id)
            try:
                with confine.limited_memory(lab, params, alone=True):
                    outcome: Replicate | ChalklineError = lab.simulate(params, number, _monitor(flags, cells, shape))
            except Exception as error:  # told to the process that waits for it, which reports it
                outcome = told(error)
            pipe.send(outcome)
