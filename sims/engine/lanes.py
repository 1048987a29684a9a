"""Lanes: where the chunks of a sweep are computed, each behind `concurrent.futures.Executor`.

In this process (one thread), in spawned processes (one lane for each, so that a dead one breaks no other), or on
the workers of a Dask scheduler (one lane in all).
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .confine import begin
from .errors import BadInput, Cancelled, Problem, shorten
from .provenance import cores
from .spawned import Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .execute import RunMonitor

ATTEMPTS = 3  # how often a chunk is tried whose worker dies
CONNECT_SECONDS = 4
_ADDRESS = re.compile(r"t(?:cp|ls)://(\[[0-9a-fA-F:]+\]|[^\s:/]+):([0-9]{1,5})")


class Lane:
    """An executor, how many chunks it takes at a time, and which exceptions mean that a worker died.

    `breaks`: with the worker the executor is gone, and all chunks that it held.
    """

    deaths: tuple[type[BaseException], ...] = ()
    attempts = ATTEMPTS
    breaks = True

    def __init__(self) -> None:
        self.executor = self._open()

    def _open(self) -> Executor:
        raise AssertionError("a lane has an executor")

    def capacity(self) -> int:
        """Chunks in flight: one that is computed, and one that waits beside it."""
        return 2

    def submit(self, function: Callable[..., Any], task: Any) -> Future[Any]:
        return self.executor.submit(function, task)

    def renew(self) -> None:
        """Go on after a worker died."""

    def close(self) -> None:
        """Stop at once; what is in flight is given up."""


class Stop:
    """How the thread of a sweep is asked to stop: between points, or through the monitor of the run that it is at."""

    def __init__(self) -> None:
        self.asked = False
        self._at: NDArray[np.uint8] | None = None

    def check(self) -> None:
        """Raises Cancelled where it has been asked to stop."""
        if self.asked:
            raise Cancelled("The sweep was stopped.")

    def begin(self, monitor: RunMonitor) -> None:
        """The run of this monitor begins. Raises Cancelled where it shall not."""
        self._at = monitor.cancel
        self.check()

    def set(self) -> None:
        self.asked = True
        if self._at is not None:
            self._at[0] = 1  # the kernel stops at its next poll


class Here(Lane):
    """Threads of this process: one for simulations, several for theory alone."""

    def __init__(self, threads: int = 1) -> None:
        self.threads, self.stop = threads, Stop()
        super().__init__()

    def capacity(self) -> int:
        return 2 * self.threads

    def _open(self) -> Executor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="chalkline-sweep")

    def submit(self, function: Callable[..., Any], task: Any) -> Future[Any]:
        return self.executor.submit(function, task, self.stop)

    def close(self) -> None:
        self.stop.set()
        self.executor.shutdown(cancel_futures=True)


class OneProcess(Lane):
    """A spawned worker process of its own."""

    deaths = (BrokenExecutor,)

    def _open(self) -> Executor:
        self.context = Context()
        return ProcessPoolExecutor(1, mp_context=self.context, initializer=begin)

    def renew(self) -> None:
        self.close()
        self.executor = self._open()

    def close(self) -> None:
        for process in self.context.started:
            if process.pid is not None:
                process.kill()
        self.executor.shutdown(cancel_futures=True)


class Cluster(Lane):
    """The workers of a Dask scheduler, which itself gives a dead worker's chunks to others."""

    attempts = 1
    breaks = False

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            advice = "Install it: pip install -r requirements-cluster.txt"
            raise BadInput(Problem("scheduler", address, "this environment has no Dask", advice)) from None
        self.deaths = (distributed.scheduler.KilledWorker,)
        try:
            self.client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # what else may listen there answers anything, and Dask fails in any way
            raise _no_scheduler(address, str(error) or type(error).__name__) from None
        try:
            self.client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            self.client.close()
            advice = f"Start one on each machine: dask worker {shorten(address)} --nthreads 1 --nworkers -1"
            raise BadInput(Problem("scheduler", address, "it has no workers", advice)) from None
        self.threads, self.asked = 1, -math.inf
        super().__init__()

    def _open(self) -> Executor:
        executor: Executor = self.client.get_executor(pure=False)
        return executor

    def capacity(self) -> int:
        """Twice the threads of the workers that there are now, asked for once a second."""
        if time.monotonic() - self.asked > 1.0:
            self.threads = self.client.scheduler_info(0)["total_threads"]
            self.asked = time.monotonic()
        return 2 * max(1, self.threads)

    def close(self) -> None:
        self.executor.shutdown(wait=False)
        self.client.close()


def _no_scheduler(address: str, why: str) -> BadInput:
    advice = "Start one: dask scheduler --port 8786"
    return BadInput(Problem("scheduler", address, f"no scheduler answers there ({shorten(why)})", advice))


def chosen_scheduler(workers: int | None, scheduler: str | None) -> str | None:
    """The scheduler to use, by default that of the environment; None for this machine.

    Raises:
        BadInput: workers below 1 or together with a scheduler, or an address at which nobody listens.
    """
    if workers is not None and workers < 1:
        raise BadInput(Problem("workers", workers, "it must be at least 1", "Leave it out for one on each core."))
    if workers is not None and scheduler:
        raise BadInput(Problem("workers", workers, "the workers of a cluster are its own", "Leave one of both out."))
    address = scheduler or (None if workers is not None else os.environ.get("CHALKLINE_SCHEDULER"))
    if not address:
        return None
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise BadInput(Problem("scheduler", address, "it must be tcp://HOST:PORT or tls://HOST:PORT", "Correct it."))
    try:  # Dask would go on trying for its whole timeout
        with socket.create_connection((parts[1].strip("[]"), int(parts[2])), timeout=CONNECT_SECONDS):
            return address
    except (OSError, OverflowError) as error:
        raise _no_scheduler(address, getattr(error, "strerror", None) or str(error)) from None


def open_lanes(workers: int | None, scheduler: str | None, chunks: int, alone: bool) -> Sequence[Lane]:
    """The lanes for that many chunks; `alone` asks for none but threads of this process. Raises BadInput."""
    if chunks == 0:
        return ()
    if scheduler and not alone:
        return (Cluster(scheduler),)
    count = min(cores() if workers is None else workers, chunks)
    return (Here(count if alone else 1),) if count == 1 or alone else tuple(OneProcess() for _ in range(count))
