"""Jobs: runs in the background of a server, behind one face for threads and processes.

A run estimated under two seconds is computed by a pool of threads, or in a server by the warm processes that these
look after; a longer one by a worker process of its own, which can be killed. Either way a job can be watched (its
records fill while it runs) and cancelled, a later job of the same session and slot replaces an earlier one, and equal
runs asked for at the same time are computed once. Sessions take turns: short runs stand in one line, long ones in
another. A run that outlives its estimate five times is stopped, and not tried again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from cachetools import LRUCache

from . import confine
from .budget import Budget, estimate
from .errors import Cancelled, ChalklineError, DamagedRun, StoreError, TooLarge
from .execute import Compute, Run, RunMonitor, execute, restored
from .keys import run_key
from .lab import Lab
from .params import Params
from .provenance import cores
from .registry import get_lab
from .spawned import AnyContext, Context
from .store import Store
from .turns import Ticket, Turns
from .workers import Workers, told

THREAD_SECONDS = 2.0
LOOK_SECONDS = 0.01  # how often a worker process is looked after
SETTLE_SECONDS = 0.1  # so long a run of two seconds or more waits before a process is started for it
NICENESS = 19  # of the processes of long runs: a short run of somebody else comes first
THREAD_NICENESS = 5  # of the threads of kernels: what a page does beside them comes first
HUNG = 10.0  # times what a worker may compute, and one that does not compute either is stopped
REMEMBERED_BYTES = 96e6  # of finished runs' traces: those of all presets, 40 MB, and what a class asks for beside them
_STOPPED = 128  # of the runs that took more than they may

logger = logging.getLogger("chalkline.runs")


@dataclass
class Job:
    """A run on its way: `state` is `running`, `waiting` (for its turn), `done`, `failed` or `cancelled`."""

    lab: Lab
    params: Params
    key: str
    budget: Budget | None
    monitor: RunMonitor
    state: str = "running"
    notice: str = ""
    _run: Run | None = None
    _error: BaseException | None = None
    _finished: threading.Event = field(default_factory=threading.Event)
    _owners: set[tuple[str, str]] = field(default_factory=set)
    _turns: Turns | None = None
    _ticket: Ticket | None = None

    @property
    def wanted(self) -> bool:
        """Whether it has a result, or is on its way to one."""
        return self.state == "done" or (self.state in ("running", "waiting") and not self.monitor.cancel[0])

    @property
    def sessions(self) -> tuple[str, ...]:
        """Who waits for it."""
        return tuple(session for session, _ in tuple(self._owners))

    @property
    def ahead(self) -> tuple[int, float]:
        """While it waits, how many runs come before it, and about how many seconds until its turn."""
        return (0, 0.0) if self._turns is None or self._ticket is None else self._turns.ahead(self._ticket)

    @property
    def progress(self) -> float:
        """Fraction of all steps done, 0 to 1."""
        if self.state == "done":
            return 1.0
        steps = float(self.lab.recorded_steps(self.params)[-1]) * self.params.replicates
        return min(1.0, float(np.sum(self.monitor.progress)) / max(1.0, steps))

    def partial(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The recorded steps (T,) and series (R, T) so far; NaN where nothing is recorded yet."""
        records = self.monitor.records.copy()
        return self.lab.recorded_steps(self.params), {n: records[:, i] for i, n in enumerate(self.lab.series)}

    def cancel(self) -> None:
        """Ask the run to stop; `state` becomes `cancelled` when it has."""
        self.monitor.cancel[0] = 1
        if self._ticket is not None:
            self._ticket.called.set()  # it need not wait for its turn to hear of it

    def result(self, timeout: float | None = None) -> Run:
        """The run, when it has ended.

        Raises:
            TimeoutError: it has not ended yet.
            Cancelled: it was stopped.
            ChalklineError: it failed.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"the run {self.key[:12]} has not ended yet")
        if self._error is not None:
            raise self._error
        assert self._run is not None
        return self._run

    def finished(self) -> bool:
        return self._finished.is_set()

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended, well or not."""
        return self._finished.wait(seconds)


class Jobs:
    """The jobs of one server process.

    Args:
        store: where runs are kept and found; a store that cannot be written is read all the same, and the
            job's `notice` says that its result was not kept.
        remember: bytes of finished runs' traces that stay in memory, least recently used first out.
        leave_free: bytes of the store's disk that visitors' runs do not fill; what comes then is not kept.
        short, long: how many runs are computed at once in threads, and in processes.
    """

    def __init__(
        self,
        store: Store | None,
        remember: float = REMEMBERED_BYTES,
        leave_free: float = 0.0,
        short: int | None = None,
        long: int | None = None,
    ):
        self.store = store
        self.leave_free = leave_free
        self._short = Turns(cores() + 1 if short is None else short)  # one of them may be writing its result
        self._long = Turns(max(2, cores() // 2) if long is None else long)
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="chalkline-jobs", initializer=_step_back)
        self._workers: Workers | None = None
        self.computed = 0  # runs that were neither remembered nor stored
        self._lock = threading.Lock()
        self._recent: LRUCache[str, Run] = LRUCache(remember, getsizeof=lambda run: run.trace.nbytes)
        self._stopped: LRUCache[str, str] = LRUCache(_STOPPED)  # what was said of runs that took more than they may
        self._running: dict[str, Job] = {}
        self._slots: dict[tuple[str, str], Job] = {}

    def hire(self, workers: Workers) -> None:
        """From now on short runs are computed by these processes, and long ones by further ones of their kind."""
        self._workers = workers

    def submit(self, lab: Lab, params: Params, session: str = "", slot: str = "") -> Job:
        """Start a run, or join the one that is under way, or hand out the one that is remembered.

        The job that `session` had in `slot` before is given up, and cancelled if nobody else waits for it.
        """
        key = run_key(lab, params)
        owner = (session, slot)
        with self._lock:
            current = self._slots.get(owner)
            if current is not None and current.key == key and current.wanted:
                return current
            self._give_up(owner)
            job = self._running.get(key)
            if job is None or not job.wanted:
                job = self._start(lab, params, key, owner)
            job._owners.add(owner)
            self._slots[owner] = job
            return job

    def recall(self, key: str) -> Run | None:
        """The finished run of that key, if it is still in memory."""
        with self._lock:
            return self._recent.get(key)

    def on_its_way(self, key: str) -> bool:
        """Whether the run of that key is remembered, or somebody waits for it."""
        with self._lock:
            job = self._running.get(key)
            return key in self._recent or (job is not None and job.wanted)

    def outlook(self, seconds: float) -> tuple[int, int, float]:
        """For a run of that estimate: how many of its kind run, how many wait, about how many seconds it would."""
        return self._turns_for(seconds).outlook()

    def lines(self) -> dict[str, tuple[int, int, float]]:
        """The same for short and for long runs."""
        return {"short": self._short.outlook(), "long": self._long.outlook()}

    def sessions(self) -> set[str]:
        """The sessions that hold jobs."""
        with self._lock:
            return {session for session, _ in self._slots}

    def release(self, session: str, keep: set[str] | None = None) -> None:
        """Give up the session's jobs, but for those in the slots of `keep`."""
        with self._lock:
            for owner in [owner for owner in self._slots if owner[0] == session and owner[1] not in (keep or ())]:
                self._give_up(owner)

    def _give_up(self, owner: tuple[str, str]) -> None:
        job = self._slots.pop(owner, None)
        if job is not None:
            job._owners.discard(owner)
            if not job._owners:
                job.cancel()

    def _start(self, lab: Lab, params: Params, key: str, owner: tuple[str, str]) -> Job:
        run = self._recent.get(key)
        if run is not None:
            job = Job(lab, params, key, None, RunMonitor.allocate(lab, params))
            self._finish(job, run, None)
            return job
        job = Job(lab, params, key, None, RunMonitor.allocate(lab, params))
        job._owners.add(owner)  # before it joins a line, where its session's turns are counted
        self._running[key] = job
        threading.Thread(target=self._work, args=(job,), name=f"job-{key[:8]}", daemon=True).start()
        return job

    def _work(self, job: Job) -> None:
        start = time.monotonic()
        try:
            run = self._find(job) or self._compute(job)
            if run.trace.nbytes <= self._recent.maxsize:
                with self._lock:
                    self._recent[job.key] = run
            self._finish(job, run, None)
        except Exception as error:  # handed to whoever asks for the result
            if isinstance(error, TooLarge):
                with self._lock:
                    self._stopped[job.key] = str(error)
            elif not isinstance(error, ChalklineError | ArithmeticError):  # the latter by a theory's solver
                error = told(error)
            self._finish(job, None, error)
        finally:
            with self._lock:
                if self._running.get(job.key) is job:
                    del self._running[job.key]
        if logger.isEnabledFor(logging.INFO):
            logger.info(_line(job, time.monotonic() - start))

    def _find(self, job: Job) -> Run | None:
        if self.store is None:
            return None
        try:
            found = self.store.find(job.key)
            return None if found is None else restored(job.lab, job.params, found)
        except DamagedRun as damage:
            job.notice = f"{damage} It was computed again."  # storing it sets the damaged one aside
            return None

    def _compute(self, job: Job) -> Run:
        with self._lock:
            stopped = self._stopped.get(job.key)
        if stopped is not None:
            raise TooLarge(stopped)
        budget = job.budget = estimate(job.lab, job.params)
        with self._turn(job):
            with self._lock:
                self.computed += 1
            if budget.seconds < THREAD_SECONDS:
                compute = None if self._workers is None else self._workers.compute
                run = run_in_thread(job.lab, job.params, job.monitor, budget, self._pool, compute)
            else:
                context = None if self._workers is None else self._workers.context
                run = run_in_process(job.lab, job.params, job.monitor, budget, context)
        if self.store is not None:
            try:
                self.store.require_free(self.leave_free)
                self.store.put(run)
            except StoreError as error:
                job.notice = str(error)
        return run

    def _turns_for(self, seconds: float) -> Turns:
        return self._short if seconds < THREAD_SECONDS else self._long

    @contextlib.contextmanager
    def _turn(self, job: Job) -> Iterator[None]:
        """Wait for the job's turn, and hold it. Raises Cancelled if it is given up before."""
        assert job.budget is not None
        turns = self._turns_for(job.budget.seconds)
        ticket = turns.join(lambda: job.sessions, job.budget.seconds)
        try:
            job._turns, job._ticket, job.state = turns, ticket, "waiting"
            while not (turns.has_turn(ticket) or job.monitor.cancel[0]):
                ticket.called.wait()
            if job.monitor.cancel[0]:
                raise Cancelled("The run was stopped before its turn had come.")
            job.state = "running"
            yield
        finally:
            turns.leave(ticket)

    @staticmethod
    def _finish(job: Job, run: Run | None, error: BaseException | None) -> None:
        job._run, job._error = run, error
        job.state = "done" if run is not None else "cancelled" if isinstance(error, Cancelled) else "failed"
        job._finished.set()


def _line(job: Job, seconds: float) -> str:
    """The log's line on a job that has ended, as JSON: what was run and what came of it, nothing on who asked."""
    run = job._run
    found: dict[str, Any] = {"event": "run", "lab": job.lab.id, "key": job.key, "state": job.state}
    found |= {"seconds": round(seconds, 3), "cached": run is not None and run.cached}
    if run is not None:
        found["verdicts"] = {verdict.id: verdict.verdict for verdict in run.claims}
    elif job.state == "failed":
        found["error"] = type(job._error).__name__
    return json.dumps(found)


def _step_back() -> None:
    """A thread of kernels lets those go first that answer tabs; where the system gives each thread a niceness."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, own + THREAD_NICENESS))


def run_in_thread(
    lab: Lab,
    params: Params,
    monitor: RunMonitor,
    budget: Budget,
    pool: ThreadPoolExecutor | None = None,
    compute: Compute | None = None,
) -> Run:
    """Execute a run in the threads of a pool, by default the one that all share, or by what computes in their stead.

    Raises:
        TooLarge: it outlived its estimate.
        Cancelled: the monitor's cancel flag was set.
        ChalklineError: it failed.
    """
    most = confine.allowed_seconds(budget)

    def check(fraction: float) -> None:
        if monitor.meter.seconds > most:
            raise confine.outlived(lab, params, budget)

    return execute(lab, params, monitor=monitor, on_progress=check, pool=pool, compute=compute)


def run_in_process(
    lab: Lab, params: Params, monitor: RunMonitor, budget: Budget, context: AnyContext | None = None
) -> Run:
    """Execute a run in a worker of its own, by default a spawned one, that shares its monitor and can be killed.

    Raises:
        TooLarge: it outlived its estimate, or wanted more memory than a worker may have.
        Cancelled: the monitor's cancel flag was set; the worker, of which nothing is kept, is killed.
        ChalklineError: the worker failed or died.
    """
    _settle(monitor)
    context = Context() if context is None else context
    sizes = (monitor.cancel.nbytes, monitor.progress.nbytes, monitor.records.nbytes)
    names = [f"chalkline-{os.getpid()}-{secrets.token_hex(6)}" for _ in sizes]  # to tell whose they are
    blocks = [SharedMemory(name, create=True, size=size) for name, size in zip(names, sizes, strict=True)]
    shared = _monitor_over(blocks, monitor.records.shape)
    shared.cancel[:], shared.progress[:] = monitor.cancel, monitor.progress
    shared.records[...] = monitor.records
    receiver, sender = context.Pipe(duplex=False)
    most = confine.allowed_seconds(budget)
    arguments = (lab.id, params.active(), names, sender, most)
    worker = context.Process(target=_worker, args=arguments, daemon=True)
    try:
        worker.start()
        sender.close()
        outcome = _watch(worker, receiver, monitor, shared, time.monotonic() + HUNG * most)
    finally:
        if worker.pid is not None:
            worker.kill()
            worker.join()
        receiver.close()
        del shared
        for block in blocks:
            block.close()
            block.unlink()
    if outcome is None:
        raise confine.outlived(lab, params, budget)
    return outcome


def _settle(monitor: RunMonitor) -> None:
    """Wait a moment: of a slider's many runs, each of which replaces the last, none is worth a process. Cancelled."""
    begun = time.monotonic()
    while time.monotonic() < begun + SETTLE_SECONDS:
        if monitor.cancel[0]:
            raise Cancelled("The run was stopped before it began.")
        time.sleep(LOOK_SECONDS)


def _watch(worker: Any, receiver: Connection, monitor: RunMonitor, shared: RunMonitor, deadline: float) -> Run | None:
    """What the worker sends; None where it outlived its estimate."""
    looks = 0
    while not receiver.poll(LOOK_SECONDS):
        if monitor.cancel[0]:
            raise Cancelled("The run was stopped before it ended; nothing of it was kept.")
        if looks % 5 == 0:  # records may be large, the flag is not
            monitor.progress[:] = shared.progress
            monitor.records[...] = shared.records
        looks += 1
        if time.monotonic() > deadline:
            return None
    try:
        outcome: Run | ChalklineError = receiver.recv()
    except (EOFError, OSError):  # it died before it answered, or while it did
        worker.join()
        if worker.exitcode == -signal.SIGXCPU:
            return None
        raise ChalklineError(
            f"The worker that computed this run ended early (exit code {worker.exitcode}): too little memory, "
            f"perhaps. Run it again."
        ) from None
    if isinstance(outcome, ChalklineError):
        raise outcome
    monitor.progress[:] = shared.progress
    monitor.records[...] = shared.records
    return outcome


def _monitor_over(blocks: list[SharedMemory], shape: tuple[int, ...]) -> RunMonitor:
    """The monitor of a run whose records have that shape, (R, n_series, T), in shared memory."""
    cancel, progress, records = (block.buf for block in blocks)
    return RunMonitor(
        np.ndarray((1,), np.uint8, buffer=cancel),
        np.ndarray((shape[0],), np.int64, buffer=progress),
        np.ndarray(shape, np.float64, buffer=records),
    )


def _worker(lab_id: str, active: dict[str, Any], names: list[str], sender: Connection, most: float) -> None:
    """Entry point of the spawned process, which may take `most` seconds of processor time once it is warm."""
    confine.begin()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    lab = get_lab(lab_id)
    params = lab.params.make(active)
    blocks = [SharedMemory(name=name) for name in names]
    monitor = _monitor_over(blocks, (params.replicates, len(lab.series), len(lab.recorded_steps(params))))
    try:
        with confine.limited_memory(lab, params):
            confine.limit_processor(most)
            outcome: Run | ChalklineError = execute(lab, params, monitor=monitor)
    except Exception as error:  # told to the process that waits for it, which reports it
        outcome = told(error)
    sender.send(outcome)
    sender.close()
    del monitor
    for block in blocks:
        block.close()
