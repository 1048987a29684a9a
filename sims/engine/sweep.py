"""Sweeps: many points of a lab's parameter space, on one core, on all, or on a cluster.

Points travel to the workers in chunks of at least half a second of estimated work. A worker returns arrays; the
submitting process alone writes, one part for each chunk, so that a cluster needs no shared disk and an
interrupted sweep goes on where it stopped. Every point is computed by `execute`: its bits are those of a run.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .budget import describe_seconds, estimate, lab_rates
from .confine import limited_memory
from .design import MOST_POINTS, Design
from .errors import BadInput, Cancelled, ChalklineError, Paused, Problem, TooLarge
from .keys import NUMBA, run_key
from .lab import End, Lab
from .lanes import Lane, Stop, chosen_scheduler, open_lanes
from .params import Params, Value, canonical_json, format_value
from .parquet import to_frame
from .provenance import fingerprint, provenance, source_digest
from .registry import get_lab
from .store import Store
from .sweep_store import (
    CLAIMED,
    PREDICTED,
    VERDICT,
    Part,
    SweepFolder,
    create_folder,
    open_folder,
    sweep_names,
    sweep_path,
)
from .sweep_tables import summary_table

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

CHUNK_SECONDS = 0.5
GRACE_SECONDS = 3.0
_TICK = 0.25


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: points done (those kept from earlier sessions included), failed, and seconds left."""

    points: int
    done: int
    failed: int
    fraction: float
    seconds_left: float | None


@dataclass(frozen=True)
class Failure:
    """A point that has no rows, and why."""

    point: int
    values: Mapping[str, Value]
    reason: str


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts: its design, whether claims are judged, and what it will take.

    `seconds` is the estimate on one core, `bytes` the largest memory of one point.
    """

    design: Design
    claims: bool
    theory_only: bool
    chunks: tuple[tuple[int, float], ...]  # the point after the last of each chunk, and its estimated seconds
    bytes: float

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.chunks)

    @cached_property
    def key(self) -> str:
        return sweep_key(self.design, self.claims, self.theory_only)


def sweep_key(design: Design, claims: bool, theory_only: bool) -> str:
    """SHA-256 (hex) of the canonical JSON of lab, version, backend, design, and what is asked of each point."""
    identity = {
        "lab": design.lab.id,
        "version": design.lab.version,
        "backend": [NUMBA.name, NUMBA.device, NUMBA.dtype],
        "design": design.as_dict(),
        "claims": claims,
        "theory_only": theory_only,
    }
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def plan_sweep(design: Design, claims: bool = False, theory_only: bool = False) -> Plan:
    """Estimate a sweep and cut it into chunks.

    Raises:
        TooLarge: more than MOST_POINTS points, with the estimate.
        BadInput: no point of it is possible.
    """
    if claims and theory_only:
        raise BadInput(Problem("claims", "true", "they are judged on simulations", "Leave out claims, or theory only."))
    rates, points = lab_rates(design.lab), len(design)
    if points > MOST_POINTS:
        some = _cost(design, np.linspace(0, points - 1, 50).astype(int).tolist(), rates, theory_only)
        total = points * float(np.mean([seconds for seconds, _ in some.values()] or [0.0]))
        raise TooLarge(
            f"This sweep has {points:,} points and would take about {describe_seconds(total)} on one core; at most "
            f"{MOST_POINTS:,} points are allowed. Take fewer values on an axis, or choose the points in a file."
        )
    costs = _cost(design, range(points), rates, theory_only)
    if not costs:
        design.params(0)  # says why
    return Plan(design, claims, theory_only, _chunks(costs, points), max(size for _, size in costs.values()))


def _cost(
    design: Design, points: Sequence[int], rates: Mapping[str, float], theory_only: bool
) -> dict[int, tuple[float, float]]:
    """Estimated seconds on one core and bytes of those of the points that are possible."""
    found = {}
    for point in points:
        try:
            params = design.params(point)
        except BadInput:
            continue
        if theory_only:
            work = design.lab.work(params)
            counts = work.once if work.ends is None else work.ends
            found[point] = (sum(count * rates[name] for name, count in counts.items()), work.bytes)
        else:
            budget = estimate(design.lab, params, rates=rates)
            found[point] = (budget.cpu_seconds, budget.bytes)
    return found


def _chunks(costs: Mapping[int, tuple[float, float]], points: int) -> tuple[tuple[int, float], ...]:
    """Consecutive points until each chunk has CHUNK_SECONDS of work; what is left over goes to the last."""
    found: list[tuple[int, float]] = []
    total = 0.0
    for point in range(points):
        total += costs.get(point, (0.0, 0.0))[0]
        if total >= CHUNK_SECONDS:
            found.append((point + 1, total))
            total = 0.0
    if not found:
        return ((points, total),)
    found[-1] = (points, found[-1][1] + total) if found[-1][0] < points else found[-1]
    return tuple(found)


# -- in a worker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A chunk on its way to a worker: points `start`, `start + 1`, ... set the fields of `rows`."""

    lab: str
    version: int
    source: str
    base: Mapping[str, Value]
    axes: tuple[str, ...]
    start: int
    rows: tuple[Mapping[str, Value], ...]
    claims: bool
    theory_only: bool


def compute_chunk(task: Task, stop: Stop | None = None) -> Part:
    """All points of a chunk; a point that raises has failed, and the others go on.

    Raises:
        Cancelled: `stop`, which the submitter holds where both are one process, was set.
        ChalklineError: this worker runs other code than the submitter.
    """
    lab = get_lab(task.lab)
    if (lab.version, source_digest()) != (task.version, task.source):
        raise ChalklineError(
            f"A worker runs other code of {lab.id} than this process. Give every worker the same version of the "
            f"software, and start them again."
        )
    design = Design(lab, lab.params.make(task.base), rows=task.rows)
    asked: list[tuple[int, Params]] = []
    points: list[_Point] = []
    failures: list[tuple[int, str]] = []
    for index in range(len(task.rows)):
        try:
            asked.append((task.start + index, design.params(index)))
        except BadInput as error:
            failures.append((task.start + index, str(error)))
    if task.theory_only:
        _predict(lab, asked, stop, points, failures)
    else:
        for point, params in asked:
            try:
                points.append(_compute(lab, params, task, point, stop))
            except Cancelled:
                raise
            except Exception as error:  # a point that fails is a row of the report; the others are kept
                failures.append((point, _reason(error)))
    columns, kinds = _columns(lab, task, sorted(points, key=lambda one: one.point))
    return Part(columns, kinds, sorted(failures), fingerprint())


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ChalklineError) else f"{type(error).__name__}: {error}"


def _predict(
    lab: Lab,
    asked: Sequence[tuple[int, Params]],
    stop: Stop | None,
    points: list[_Point],
    failures: list[tuple[int, str]],
) -> None:
    """The theory of many points at once; where that raises, of either half, down to the points that fail."""
    from .execute import predict_ends

    if stop is not None:
        stop.check()
    try:
        found = predict_ends(lab, [params for _, params in asked])
    except Exception as error:  # one point that fails must not take the others with it
        if len(asked) <= 1:
            failures += [(point, _reason(error)) for point, _ in asked]
            return
        middle = len(asked) // 2
        for half in (asked[:middle], asked[middle:]):
            _predict(lab, half, stop, points, failures)
        return
    for (point, params), prediction in zip(asked, found, strict=True):
        points.append(_Point(point, params, run_key(lab, params), 1, {}, prediction.ends(), {}, {}))


@dataclass(frozen=True)
class _Point:
    """What a worker keeps of a point: R rows, the metrics (R,), numbers and words that all rows share."""

    point: int
    params: Params
    key: str
    replicates: int
    metrics: Mapping[str, NDArray[np.float64]]
    predicted: Mapping[str, End]
    verdicts: Mapping[str, str]
    identity: Mapping[str, Sequence[Any]]


def _compute(lab: Lab, params: Params, task: Task, point: int, stop: Stop | None) -> _Point:
    from .execute import RunMonitor, execute

    monitor = RunMonitor.allocate(lab, params)
    if stop is not None:
        stop.begin(monitor)
    with limited_memory(lab, params):
        run = execute(lab, params, workers=1, monitor=monitor, alone=True)
    trace = run.trace
    return _Point(
        point,
        params,
        run.key,
        trace.replicates,
        run.values,
        run.prediction.ends(),
        {verdict.id: verdict.verdict for verdict in run.claims} if task.claims else {},
        {
            "replicate": range(params.first_replicate, params.first_replicate + trace.replicates),
            "replicate_sha256": trace.replicate_sha256,
            "trace_sha256": [trace.sha256] * trace.replicates,
            "stopped": [None if stop is None else stop.step for stop in trace.stopped],
            "stopped_reason": [None if stop is None else stop.reason for stop in trace.stopped],
        },
    )


def _columns(lab: Lab, task: Task, points: Sequence[_Point]) -> tuple[dict[str, Any], dict[str, str]]:
    """The rows of the points as columns, and the types of those that are lists."""
    counts = [one.replicates for one in points]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)

    def repeated(values: Sequence[Any]) -> list[Any]:
        return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]

    def gathered(group: Callable[[_Point], Mapping[str, Any]], prefix: str) -> dict[str, Any]:
        names = dict.fromkeys(name for one in points for name in group(one))
        found = {prefix + name: np.full(starts[-1], np.nan) for name in names}
        for i, one in enumerate(points):
            for name, values in group(one).items():
                found[prefix + name][starts[i] : starts[i + 1]] = values
        return found

    columns: dict[str, Any] = {"point": np.repeat([one.point for one in points], counts).astype(np.int64)}
    fields, kinds = lab.params.fields(), {"stopped": "int"}
    for name in task.axes:
        kind = fields[name].kind
        kinds[name] = kind if kind in ("int", "float", "bool") else "text"
        values = [getattr(one.params, name) if one.params.is_active(name) else None for one in points]
        texts = [None if value is None else format_value(value) for value in values]
        columns[name] = repeated(texts if kinds[name] == "text" else values)
    if "seed" not in task.axes:
        columns["seed"] = np.repeat([one.params.seed for one in points], counts).astype(np.int64)
    columns["key"] = repeated([one.key for one in points])
    if not task.theory_only:
        for name in ("replicate", "replicate_sha256", "trace_sha256", "stopped", "stopped_reason"):
            columns[name] = [value for one in points for value in one.identity[name]]
        columns["replicate"] = np.array(columns["replicate"], dtype=np.int64)
    columns |= gathered(lambda one: one.metrics, "")
    columns |= gathered(lambda one: {name: end.value for name, end in one.predicted.items()}, PREDICTED)
    for name in dict.fromkeys(name for one in points for name in one.predicted):
        ends = (one.predicted.get(name) for one in points)
        columns[CLAIMED + name] = repeated([None if end is None else end.claimed for end in ends])
        kinds[CLAIMED + name] = "bool"
    for name in dict.fromkeys(name for one in points for name in one.verdicts):
        columns[VERDICT + name] = repeated([one.verdicts.get(name) for one in points])
    return columns, kinds


# -- the submitting process ----------------------------------------------------------------------------------------


@dataclass
class Sweep:
    """A sweep as it lies in the store, complete or not.

    `computed` counts the chunks that this session computed, `lost` holds failures of this session that a later one
    tries again: points whose worker died with them.
    """

    folder: SweepFolder
    design: Design
    computed: int = 0
    lost: Sequence[Failure] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def key(self) -> str:
        return str(self.folder.manifest["key"])

    @property
    def lab(self) -> Lab:
        return self.design.lab

    @property
    def theory_only(self) -> bool:
        return bool(self.folder.manifest["theory_only"])

    @property
    def complete(self) -> bool:
        """Whether every chunk has its part."""
        return not self.folder.missing

    @property
    def notices(self) -> list[str]:
        """What was found damaged."""
        return self.folder.notices

    @cached_property
    def failures(self) -> list[Failure]:
        """The points that have no rows although they were tried, with the reason."""
        kept = [Failure(point, self.design.values(point), why) for point, why in self.folder.failures()]
        return sorted([*kept, *self.lost], key=lambda failure: failure.point)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each point and replicate: axes, seed, replicate, key, hashes, metrics, predictions, verdicts."""
        return to_frame(self.folder.table())

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each point: mean, standard error and count of each metric, predictions, verdicts, failure."""
        return to_frame(self.arrow_summary())

    def arrow_summary(self) -> Any:
        """The summary as an Arrow table."""
        return summary_table(self.folder.table(), self.design, [(one.point, one.reason) for one in self.failures])


def open_sweep(name: str, store: Store | None = None) -> Sweep:
    """A stored sweep by its name, or by the first characters (6 or more) of the key that it is named by.

    Raises:
        UnknownName: there is no such sweep.
        DamagedRun: its manifest is not sound.
    """
    store = Store() if store is None else store
    folder = open_folder(store, resolve_name(name, store))
    return Sweep(folder, _design_of(folder))


def resolve_name(name: str, store: Store) -> str:
    """The full name of a stored sweep: `name` itself, or the one key that begins so."""
    known = sweep_names(store)
    found = [one for one in known if one.startswith(name)] if name not in known and len(name) >= 6 else []
    return found[0] if len(found) == 1 and len(found[0]) == 64 else name


def sweep_rows(store: Store | None = None) -> list[dict[str, Any]]:
    """The stored sweeps, the latest first; of each name, lab, version, date, axes, points, points done, state."""
    store = Store() if store is None else store
    found = []
    for name in sweep_names(store):
        folder = open_folder(store, name)
        manifest, chunks = folder.manifest, folder.chunks
        found.append(
            {
                "name": name,
                "lab": manifest["lab"],
                "version": manifest["version"],
                "created": manifest["created"],
                "axes": ",".join(manifest["design"]["axes"]),
                "points": chunks[-1][1],
                "done": sum(chunks[chunk][1] - chunks[chunk][0] for chunk in folder.names),
                "theory_only": manifest["theory_only"],
            }
        )
    return found


def _design_of(folder: SweepFolder) -> Design:
    manifest = folder.manifest
    lab = get_lab(manifest["lab"])
    if manifest["version"] != lab.version:
        allowed = f"{lab.id} is now at version {lab.version}, whose numbers differ"
        advice = "Sweep again, or check out the software of that time; the Parquet files can be read by any program."
        raise BadInput(Problem("version", manifest["version"], allowed, advice))
    return Design.restore(lab, manifest["design"])


def run_sweep(
    plan: Plan | None,
    *,
    store: Store | None = None,
    name: str | None = None,
    lab: Lab | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Sweep:
    """Compute what is missing of a sweep.

    Args:
        plan: what to compute; None resumes the sweep of that name.
        store: the store under which the sweep is kept.
        name: its folder's name, by default its key.
        lab: the lab that a resumed sweep must be of.
        workers: processes; by default one for each core, and 1 computes in this process.
        scheduler: address of a Dask scheduler whose workers compute instead.
        on_progress: called in this thread when it starts, after each chunk, and a few times a second.
        cancel: set by another thread to pause the sweep.

    Raises:
        Paused: it was cancelled or interrupted; complete parts are kept, and the same call goes on.
        BadInput: the name holds another sweep, another process computes it, or the scheduler cannot be reached.
        StoreError: the store cannot be written; complete parts are kept.
        ChalklineError: the workers run other code, or were lost.
    """
    store = Store() if store is None else store
    scheduler = chosen_scheduler(workers, scheduler)
    folder = _folder(plan, store, name, lab)
    sweep = Sweep(folder, _design_of(folder) if plan is None else plan.design)
    if sweep.complete and folder.finished():
        return sweep
    with folder.locked():
        folder.look(repair=True)
        lanes = open_lanes(workers, scheduler, len(folder.missing), alone=sweep.theory_only)
        try:
            _Session(sweep, lanes, on_progress, cancel).run()
        finally:
            for lane in lanes:
                lane.close()
            folder.finish(sweep.arrow_summary())
    return sweep


def _folder(plan: Plan | None, store: Store, name: str | None, lab: Lab | None) -> SweepFolder:
    """The folder to continue, or a new one."""
    if plan is None:
        if name is None:
            raise BadInput("A sweep needs an axis, or the name of the stored sweep that is to go on.")
        folder = open_folder(store, resolve_name(name, store))
        if lab is not None and folder.manifest["lab"] != lab.id:
            allowed = f"the sweep of that name is of {folder.manifest['lab']}, not of {lab.id}"
            raise BadInput(Problem("name", name, allowed, "Name the other lab, or another sweep."))
        return folder
    name = plan.key if name is None else name
    if not (sweep_path(store, name) / "manifest.json").is_file():
        design = plan.design
        made = provenance(design.lab, design.base, NUMBA)
        manifest = {
            "key": plan.key,
            "lab": design.lab.id,
            "version": design.lab.version,
            "created": made["created"],
            "design": design.as_dict(),
            "claims": plan.claims,
            "theory_only": plan.theory_only,
            "chunks": [[stop, float(f"{seconds:.4g}")] for stop, seconds in plan.chunks],
            "provenance": made,
        }
        return create_folder(store, name, manifest)
    folder = open_folder(store, name)
    if folder.manifest["key"] != plan.key:
        raise BadInput(Problem("name", name, _other(folder.manifest, plan), "Choose another name, or leave it out."))
    return folder


def _other(manifest: Mapping[str, Any], plan: Plan) -> str:
    """How a stored sweep differs from a planned one, in words."""
    theirs, ours = manifest["design"], plan.design.as_dict()
    compared = {
        "lab": (manifest["lab"], plan.design.lab.id),
        "version": (manifest["version"], plan.design.lab.version),
        "claims": (manifest["claims"], plan.claims),
        "theory only": (manifest["theory_only"], plan.theory_only),
        "axes": (theirs["axes"], ours["axes"]),
    }
    for what, (stored, asked) in compared.items():
        if stored != asked:
            return f"the sweep of that name has {what} {stored}, not {asked}"
    for field_ in sorted(set(theirs["base"]) | set(ours["base"])):
        stored, asked = theirs["base"].get(field_), ours["base"].get(field_)
        if canonical_json(stored) != canonical_json(asked):
            return f"the sweep of that name has {field_} = {stored}, not {asked}"
    return "the sweep of that name has other points"


@dataclass
class _Session:
    """One session of a sweep: hands out the missing chunks and keeps what comes back."""

    sweep: Sweep
    lanes: Sequence[Lane]
    on_progress: Callable[[Progress], None] | None
    cancel: threading.Event | None
    flying: dict[Future[Part], tuple[int, Lane]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    lost: list[Failure] = field(default_factory=list)

    def run(self) -> None:
        folder = self.sweep.folder
        seconds = folder.seconds
        self.waiting = deque(sorted(folder.missing, key=lambda chunk: -seconds[chunk]))  # the longest first
        chunks = folder.chunks
        self.started, self.total = time.monotonic(), sum(seconds)
        self.worked = self.at_start = sum(seconds[chunk] for chunk in folder.names)
        self.done = sum(chunks[chunk][1] - chunks[chunk][0] for chunk in folder.names)
        self.source = source_digest()
        self._report()
        try:
            while self.waiting or self.flying:
                self._submit()
                self._collect(_TICK)
                self._report()
                if self.cancel is not None and self.cancel.is_set():
                    self._pause()
        except KeyboardInterrupt:
            self._pause()
        finally:
            self.sweep.lost = tuple(self.lost)
            for future in self.flying:
                future.cancel()

    def _submit(self) -> None:
        for lane in self.lanes:
            while self.waiting and sum(other is lane for _, other in self.flying.values()) < lane.capacity():
                chunk = self.waiting.popleft()
                try:
                    future = lane.submit(compute_chunk, self._task(chunk))
                except lane.deaths:  # its worker died just now; the chunks that it held come back with the next look
                    self.waiting.appendleft(chunk)
                    if not any(other is lane for _, other in self.flying.values()):
                        lane.renew()
                    break
                self.flying[future] = (chunk, lane)

    def _task(self, chunk: int) -> Task:
        design, manifest = self.sweep.design, self.sweep.folder.manifest
        start, stop = self.sweep.folder.chunks[chunk]
        return Task(
            lab=design.lab.id,
            version=design.lab.version,
            source=self.source,
            base=design.base.active(),
            axes=design.axes,
            start=start,
            rows=tuple(dict(design.values(point)) for point in range(start, stop)),
            claims=manifest["claims"],
            theory_only=manifest["theory_only"],
        )

    def _collect(self, timeout: float) -> None:
        """Keep the parts that have come back within the time; what a dead worker held is handed out again."""
        done, _ = wait(list(self.flying), timeout=timeout, return_when=FIRST_COMPLETED)
        broken: list[Lane] = []
        for future in [future for future in self.flying if future in done]:  # in the order of submission
            chunk, lane = self.flying.pop(future)
            try:
                part = future.result()
            except lane.deaths as death:
                self._died(chunk, charged=lane not in broken, death=death, most=lane.attempts)
                broken.append(lane)
                continue
            except (ChalklineError, KeyboardInterrupt):
                raise
            except (Exception, CancelledError) as error:
                raise ChalklineError(
                    f"The workers failed ({type(error).__name__}: {error}). Complete parts are kept: put the workers "
                    f"right, and the same command resumes."
                ) from error
            self._keep(chunk, part)
        for lane in dict.fromkeys(one for one in broken if one.breaks):
            for future in [future for future, (_, other) in self.flying.items() if other is lane]:
                self.waiting.appendleft(self.flying.pop(future)[0])
            lane.renew()

    def _keep(self, chunk: int, part: Part) -> None:
        folder = self.sweep.folder
        folder.put(chunk, part)
        start, stop = folder.chunks[chunk]
        self.sweep.computed += 1
        self.done += stop - start
        self.worked += folder.seconds[chunk]

    def _died(self, chunk: int, charged: bool, death: BaseException, most: int) -> None:
        """A worker died; the oldest chunk that it held is the one that it was computing."""
        self.attempts[chunk] = self.attempts.get(chunk, 0) + charged
        if self.attempts[chunk] < most:
            self.waiting.appendleft(chunk)
            return
        times = {1: "once", 2: "twice"}.get(most, f"{most} times")
        why = f"The worker that computed it ended early, {times} ({death}): too little memory, perhaps."
        start, stop = self.sweep.folder.chunks[chunk]
        self.lost += [Failure(point, self.sweep.design.values(point), why) for point in range(start, stop)]

    def _pause(self) -> None:
        """Keep what comes back within a few seconds, then stop. Raises Paused unless that was all."""
        self.waiting.clear()
        for future in list(self.flying):
            if future.cancel():
                del self.flying[future]
        deadline = time.monotonic() + GRACE_SECONDS
        while self.flying and time.monotonic() < deadline:
            self._collect(min(_TICK, GRACE_SECONDS))
            self.waiting.clear()
        if not (self.sweep.folder.missing or self.lost):
            return
        raise Paused(
            f"Paused: {self.done} of {len(self.sweep.design)} points are kept in {self.sweep.path}. "
            f"The same command goes on."
        ) from None

    def _report(self) -> None:
        if self.on_progress is None:
            return
        points, since = len(self.sweep.design), self.worked - self.at_start
        spent = time.monotonic() - self.started
        left = spent / since * max(0.0, self.total - self.worked) if since > 0 else None
        fraction = min(1.0, self.worked / self.total) if self.total > 0 else self.done / points
        self.on_progress(Progress(points, self.done, len(self.lost), fraction, left))
