"""`execute`: the only way a simulation is run, by a page, the command line, a script or a test alike."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import claims as _claims
from .backends import full_scale, require_memory
from .errors import Cancelled, DamagedRun
from .keys import NUMBA, Backend, family_key, run_key
from .lab import Lab, Prediction
from .params import Params
from .provenance import cores, provenance, single_threaded_blas
from .recording import MOST_FRAMES, MOST_STEPS
from .trace import Monitor, Replicate, Trace, assemble

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

    from .store import Store, Stored


@dataclass(frozen=True)
class Metric:
    """Mean over the replicates that ended with a finite value, its standard error, and how many those are."""

    mean: float | None
    se: float | None
    n: int


class Meter:
    """Processor seconds of a simulation: of the threads that compute it now, and of those that have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = 0.0
        self._running: dict[int, tuple[Callable[[], float], float]] = {}  # of each thread its clock, and what that said

    @contextlib.contextmanager
    def running(self, clock: Callable[[], float] | None = None) -> Iterator[None]:
        """The calling thread computes, or waits for who does: the clock counts the processor seconds of that one."""
        thread = threading.get_ident()
        clock = _thread_clock(thread) if clock is None else clock
        with self._lock:
            self._running[thread] = clock, clock()
        try:
            yield
        finally:
            with self._lock:
                clock, begun = self._running.pop(thread)
                self._ended += clock() - begun

    @property
    def seconds(self) -> float:
        with self._lock:  # no thread ends meanwhile, so that each clock exists
            return self._ended + sum(clock() - begun for clock, begun in self._running.values())


def _thread_clock(thread: int) -> Callable[[], float]:
    """The clock of a thread's processor time; where the system has none, one that counts its waiting too."""
    of_thread = getattr(time, "pthread_getcpuclockid", None)
    return partial(time.clock_gettime, time.CLOCK_MONOTONIC if of_thread is None else int(of_thread(thread)))


@dataclass(frozen=True)
class RunMonitor:
    """The monitors of all replicates of a run, in arrays that may lie in shared memory; `meter` is this process's."""

    cancel: NDArray[np.uint8]  # (1,)
    progress: NDArray[np.int64]  # (R,)
    records: NDArray[np.float64]  # (R, n_series, T)
    meter: Meter = field(default_factory=Meter, compare=False)

    @staticmethod
    def allocate(lab: Lab, params: Params) -> RunMonitor:
        """Fresh arrays of this run's shapes."""
        shape = (params.replicates, len(lab.series), len(lab.recorded_steps(params)))
        progress = np.zeros(params.replicates, dtype=np.int64)
        return RunMonitor(np.zeros(1, dtype=np.uint8), progress, np.full(shape, np.nan))

    def of(self, index: int) -> Monitor:
        """The monitor of one replicate: views, not copies."""
        return Monitor(self.cancel, self.progress[index : index + 1], self.records[index])


Compute = Callable[[Lab, Params, int, RunMonitor, int], Replicate]  # see `compute_here`


@dataclass(frozen=True)
class Run:
    """A trace with everything that follows from it and everything it rests on."""

    lab: str
    version: int
    params: Params
    key: str
    family: str
    cached: bool
    trace: Trace
    prediction: Prediction
    derived: Mapping[str, NDArray[np.float64]]
    provenance: Mapping[str, Any]
    wall_s: float

    @property
    def trace_sha256(self) -> str:
        return self.trace.sha256

    @cached_property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """(R,) for each metric: ends of the series, scalar finals, and derived metrics."""
        found = {name: series[:, -1] for name, series in self.trace.series.items()}
        found |= {name: a.astype(np.float64) for name, a in self.trace.finals.items() if a.ndim == 1}
        return found | {name: np.asarray(values, dtype=np.float64) for name, values in self.derived.items()}

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        return {name: summarize(values) for name, values in self.values.items()}

    @cached_property
    def claims(self) -> list[_claims.Verdict]:
        """The verdicts of the claims that speak of this kind of run."""
        from .ledger import verdicts

        return verdicts(self)

    @property
    def diverged(self) -> int:
        """How many replicates stopped before their last step."""
        return sum(stop is not None for stop in self.trace.stopped)

    def as_dict(self) -> dict[str, Any]:
        """The run as one JSON value: no NaN, absent numbers are None."""
        return {
            "lab": self.lab,
            "version": self.version,
            "params": dict(self.params.active()),
            "key": self.key,
            "cached": self.cached,
            "trace_sha256": self.trace_sha256,
            "metrics": {name: {"mean": m.mean, "se": m.se, "n": m.n} for name, m in self.metrics.items()},
            "stopped": [
                None if stop is None else {"step": stop.step, "reason": stop.reason} for stop in self.trace.stopped
            ],
            "claims": [verdict.as_dict() for verdict in self.claims],
            "provenance": dict(self.provenance),
            "wall_s": self.wall_s,
        }


def summarize(values: NDArray[np.float64]) -> Metric:
    """Mean and standard error over the finite entries of (R,) `values`."""
    finite = values[np.isfinite(values)]
    n = len(finite)
    if n == 0:
        return Metric(None, None, 0)
    mean = float(np.mean(finite))
    return Metric(
        mean if math.isfinite(mean) else None,
        float(np.std(finite, ddof=1) / math.sqrt(n)) if n > 1 else None,
        n,
    )


def execute(
    lab: Lab,
    params: Params,
    *,
    store: Store | None = None,
    fresh: bool = False,
    workers: int | None = None,
    monitor: RunMonitor | None = None,
    on_progress: Callable[[float], None] | None = None,
    backend: Backend = NUMBA,
    alone: bool = False,
    pool: ThreadPoolExecutor | None = None,
    compute: Compute | None = None,
) -> Run:
    """Run a lab, or fetch the stored run of the same key.

    Args:
        lab, params: what to run.
        store: where runs are kept; None keeps nothing.
        fresh: compute even if the run is stored (the stored one is then compared, not replaced).
        workers: threads that replicates are spread over; by default the process-wide pool of one per core.
        monitor: arrays through which the run is watched and cancelled.
        on_progress: called about ten times a second with the fraction done.
        backend: what it is computed with; `backends.choose` makes one of words.
        alone: compute the theory after the simulation instead of beside it, as where every core has a run.
        pool: threads that replicates are spread over instead of the process-wide ones.
        compute: what computes a replicate in its thread's stead, such as a process of `Workers`.

    Raises:
        BadInput: the lab has no full scale, or the backend's device is not here.
        Cancelled: the monitor's cancel flag was set.
        StoreError: the store cannot be written, or holds a different trace under this key.
    """
    key = run_key(lab, params, backend)
    if store is not None and not fresh:
        found = store.find(key)
        if found is not None:
            return restored(lab, params, found, backend)
    if store is not None:
        store.require_writable()
    if backend.name != NUMBA.name:
        require_memory(lab, params, backend)
    single_threaded_blas()
    start = time.perf_counter()
    monitor = RunMonitor.allocate(lab, params) if monitor is None else monitor
    if alone:
        trace = _simulate(lab, params, monitor, workers, pool, on_progress, backend, compute or compute_here)
        theory = predict(lab, params)
    else:
        aside = _aside()
        predicting = aside.submit(predict, lab, params)  # the theory works while the kernels do
        aside.shutdown(wait=False)
        trace = _simulate(lab, params, monitor, workers, pool, on_progress, backend, compute or compute_here)
        theory = predicting.result()
    wall = time.perf_counter() - start
    made = provenance(lab, params, backend)
    run = _complete(lab, params, trace, theory, key, provenance=made, wall_s=wall, cached=False, backend=backend)
    if store is not None:
        store.put(run)
    return run


def restored(lab: Lab, params: Params, stored: Stored, backend: Backend = NUMBA) -> Run:
    """The run of a stored trace, with what the present theory says of it.

    Raises:
        DamagedRun: the trace is not what the lab records of these params.
    """
    trace = stored.trace
    if (
        trace.replicates != params.replicates
        or trace.series.keys() != lab.series.keys()
        or not np.array_equal(trace.step, lab.recorded_steps(params))
    ):
        raise DamagedRun(
            f"The stored run {str(stored.manifest['key'])[:12]} is damaged: its trace is not one of {lab.id} with "
            f"these params. It is not used; remove its folder, and it is computed again."
        )
    key, theory, made, wall = str(stored.manifest["key"]), predict(lab, params), stored.provenance, stored.wall_s
    return _complete(lab, params, stored.trace, theory, key, provenance=made, wall_s=wall, cached=True, backend=backend)


def _complete(
    lab: Lab,
    params: Params,
    trace: Trace,
    prediction: Prediction,
    key: str,
    *,
    provenance: Mapping[str, Any],
    wall_s: float,
    cached: bool,
    backend: Backend,
) -> Run:
    """A trace with the prediction and the derived metrics of the present theory."""
    derived = lab.derive(params, trace, prediction)
    return Run(
        lab=lab.id,
        version=lab.version,
        params=params,
        key=key,
        family=family_key(lab, params, backend),
        cached=cached,
        trace=trace,
        prediction=prediction,
        derived=derived,
        provenance=provenance,
        wall_s=wall_s,
    )


def predict(lab: Lab, params: Params) -> Prediction:
    """The theory's prediction on the steps that a run of `params` records; nothing is simulated."""
    single_threaded_blas()
    return lab.predict(params)


def predict_ends(lab: Lab, points: Sequence[Params]) -> list[Prediction]:
    """The theory's prediction on the last recorded step (or on more) of each of many runs: what a sweep's table has.

    Equal to that of `predict` within the lab's promise, and where the lab has a way of its own cheaper by far.
    """
    single_threaded_blas()
    return [lab.predict(params) for params in points] if lab.predict_ends is None else list(lab.predict_ends(points))


def _simulate(
    lab: Lab,
    params: Params,
    monitor: RunMonitor,
    workers: int | None,
    pool: ThreadPoolExecutor | None,
    on_progress: Callable[[float], None] | None,
    backend: Backend,
    compute: Compute,
) -> Trace:
    from concurrent.futures import ThreadPoolExecutor, wait

    step = lab.recorded_steps(params)
    if len(step) > MOST_STEPS or step[0] != 0:
        raise ValueError(
            f"{lab.id} records {len(step)} steps from {step[0]}: at most {MOST_STEPS}, from 0, are allowed"
        )
    own = None if workers is None else ThreadPoolExecutor(workers)
    pool = own or pool or shared_pool()
    try:
        futures = _submit(pool, lab, params, monitor, backend, compute)
        try:
            replicates = _gather(futures, monitor, float(step[-1]), on_progress)
        except BaseException:
            monitor.cancel[0] = 1  # the kernels still running stop at their next poll
            for future in futures:
                future.cancel()
            wait(futures)
            raise
    finally:
        if own is not None:
            own.shutdown()
    if monitor.cancel[0]:
        raise stopped(lab)
    if any(len(one.frame_step) > MOST_FRAMES for one in replicates if one.frame_step is not None):
        raise ValueError(f"{lab.id} returns more than {MOST_FRAMES} frames")
    return assemble(step, list(lab.series), monitor.records, replicates)


def stopped(lab: Lab) -> Cancelled:
    return Cancelled(f"The run of {lab.id} was stopped before it ended; nothing of it was kept.")


def compute_here(lab: Lab, params: Params, number: int, monitor: RunMonitor, index: int) -> Replicate:
    """Replicate `number` in the calling thread, with the monitor's views at `index`."""
    with monitor.meter.running():
        return lab.simulate(params, number, monitor.of(index))


def _submit(
    pool: ThreadPoolExecutor, lab: Lab, params: Params, monitor: RunMonitor, backend: Backend, compute: Compute
) -> list[Future[list[Replicate]]]:
    """A task for each replicate, or one for all where the backend computes them at once."""
    numbers = range(params.first_replicate, params.first_replicate + params.replicates)
    if backend.name != NUMBA.name:
        batch = full_scale(lab).simulate_batch
        return [pool.submit(batch, params, numbers, monitor, backend.device, backend.dtype)]

    def one(index: int, number: int) -> list[Replicate]:
        if monitor.cancel[0]:  # of hundreds of replicates that wait in line none is set up
            raise stopped(lab)
        return [compute(lab, params, number, monitor, index)]

    return [pool.submit(one, index, number) for index, number in enumerate(numbers)]


def _gather(
    futures: list[Future[list[Replicate]]],
    monitor: RunMonitor,
    last_step: float,
    on_progress: Callable[[float], None] | None,
) -> list[Replicate]:
    from concurrent.futures import FIRST_EXCEPTION, wait

    pending: set[Future[list[Replicate]]] = set(futures)
    while pending:
        done, pending = wait(pending, timeout=None if on_progress is None else 0.1, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        if on_progress is not None:
            on_progress(float(np.sum(monitor.progress)) / max(1.0, last_step * monitor.progress.size))
    return [one for future in futures for one in future.result()]


def _aside() -> ThreadPoolExecutor:
    """One thread apart from the pool, which replicates may fill."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, thread_name_prefix="chalkline-theory")


@cache
def shared_pool() -> ThreadPoolExecutor:
    """The process-wide pool: one thread per core, shared by all who compute here."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(cores(), thread_name_prefix="chalkline")
