"""What a worker process may take: it ends with its parent, at five times its estimate, and at a limit of memory."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .budget import Budget, command_line, describe_bytes, describe_seconds
from .errors import TooLarge
from .lab import Lab
from .params import Params
from .provenance import single_threaded_blas

OUTLIVES = 5.0  # times its estimate, and a run is stopped
START_SECONDS = 2.0  # processor time that no estimate counts: loading what is not warm yet
TWICE = 2.0  # the estimate of a run's memory, and a worker is refused more
SPARE_BYTES = 256 * 2**20  # for what a library maps on its own account

_limited = False
_loaded: set[str] = set()  # labs of which nothing is left to load; a process that is forked inherits them
_threads = False


def begin() -> None:
    """First act of a worker: leave interrupts to its parent, end when that ends, however it ends, and be limited."""
    global _limited
    _limited = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="chalkline-parent", daemon=True).start()


@contextlib.contextmanager
def limited_memory(lab: Lab, params: Params, alone: bool = False) -> Iterator[None]:
    """In a worker process, at most what it has mapped before the run, twice the run's estimate, and 256 MB.

    Elsewhere, and where the system counts no address space, nothing is limited. `alone` says that the calling thread
    computes it without the others.

    Raises:
        TooLarge: the run wanted more.
    """
    if not _limited or not (status := Path("/proc/self/statm")).is_file():
        yield
        return
    import resource

    load(lab)
    if not alone:
        _start_threads()
    mapped = int(status.read_text().split()[0]) * resource.getpagesize()
    wanted = lab.work(params).bytes
    most = mapped + int(TWICE * wanted) + SPARE_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        raise TooLarge(
            f"The run was stopped: it wanted more than {TWICE:g} times the {describe_bytes(wanted)} of its estimate. "
            f"Make it smaller, or run it where it has more memory: {command_line(lab, params)}"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load(lab: Lab) -> None:
    """Load what any run of the lab loads: what that maps is no run's."""
    from .provenance import fingerprint

    if lab.id not in _loaded:
        single_threaded_blas()
        fingerprint()
        for probe in lab.probes().values():
            probe()
        _loaded.add(lab.id)


def _start_threads() -> None:
    """Start the threads that compute replicates, whose stacks are no run's either."""
    global _threads
    from .execute import shared_pool
    from .provenance import cores

    if not _threads:
        together = threading.Barrier(cores())
        list(shared_pool().map(lambda _: together.wait(60), range(cores())))
        _threads = True


def limit_processor(seconds: float) -> None:
    """The system ends this process with SIGXCPU when it has taken so many more seconds of processor time."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    most, (_, hard) = math.ceil(time.process_time() + seconds), resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def allowed_seconds(budget: Budget) -> float:
    """Processor seconds after which a run of that estimate is stopped."""
    return OUTLIVES * budget.cpu_seconds + START_SECONDS


def outlived(lab: Lab, params: Params, budget: Budget) -> TooLarge:
    """What is said of a run that was stopped because it outlived its estimate."""
    return TooLarge(
        f"The run was stopped: it was estimated at {describe_seconds(budget.cpu_seconds)} of processor time and has "
        f"taken more than {OUTLIVES:g} times that. Make it smaller, or run it elsewhere: {command_line(lab, params)}"
    )
