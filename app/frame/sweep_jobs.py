"""Sweeps of the pages: computed one at a time for the whole server, watched while they fill, found again later.

A class that presses Start together would ask for as many pools of workers as it has tabs; here sweeps stand in
line, equal ones are computed once, and each session has one place in it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from streamlit import runtime

from sims.engine import ChalklineError, Params, TooLarge, UnknownName
from sims.engine.budget import describe_bytes, describe_seconds
from sims.engine.design import Design, points_design
from sims.engine.errors import BadInput
from sims.engine.jobs import THREAD_SECONDS
from sims.engine.provenance import cores
from sims.engine.store import Store
from sims.engine.sweep import Failure, Paused, Plan, Progress, Sweep, open_sweep, plan_sweep, run_sweep
from sims.engine.sweep_store import SweepFolder, open_folder
from sims.engine.sweep_tables import summary_table

from .limits import LIVE_BYTES, LIVE_SECONDS

if TYPE_CHECKING:
    import pyarrow as pa

CLUSTER_LIVES = 60  # a scheduler's workers may take this many times the work
_REMEMBERED = 16
_SAMPLED = 40  # points of a very large design of which its cost is told

logger = logging.getLogger("chalkline.sweeps")


@dataclass(frozen=True)
class Outcome:
    """What there is of a sweep: a row for each point that was computed or failed, and whether that is all."""

    table: pa.Table
    failures: Sequence[Failure]
    complete: bool
    notices: Sequence[str] = ()

    @property
    def points(self) -> int:
        return int(self.table.num_rows)


@dataclass
class SweepJob:
    """A sweep on its way: `state` is `waiting`, `running`, `done`, `paused` or `failed`."""

    plan: Plan
    key: str
    state: str = "waiting"
    error: str = ""
    progress: Progress | None = None
    outcome: Outcome | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    owners: set[str] = field(default_factory=set)
    _folder: SweepFolder | None = None
    _parts: dict[int, pa.Table] = field(default_factory=dict)
    _failures: list[Failure] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it waits or runs, and nobody has stopped it."""
        return not self.ended.is_set() and not self.stop.is_set()

    def seen(self, store: Store, progress: Progress) -> None:
        """Take note of progress, and read the parts that are new."""
        if self._folder is None:
            self._folder = open_folder(store, self.key)
            new = list(self._folder.names)
        else:
            known = self._folder.names
            new = []
            for path in sorted((self._folder.path / "parts").glob("*.parquet")):
                if int(path.name[:6]) not in known:
                    known[int(path.name[:6])] = path.name
                    new.append(int(path.name[:6]))
        for chunk in new:
            failures = [(point, reason) for point, reason in self._folder.meta(chunk)["failures"]]
            rows = self._folder.read(chunk).replace_schema_metadata(None)
            self._parts[chunk] = summary_table(rows, self.plan.design, failures)
            self._failures += [Failure(point, self.plan.design.values(point), why) for point, why in failures]
        if new:
            parts = [self._parts[chunk] for chunk in sorted(self._parts)]
            self.outcome = Outcome(_together(parts), tuple(self._failures), False)
        self.progress = progress


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(parts, promote_options="permissive")


class Sweeps:
    """The sweeps of one server process, computed one at a time."""

    def __init__(self, store: Store):
        self.store = store
        self.computed = 0  # sweeps that were not whole in the store
        self._lock = threading.Lock()
        self._line: list[SweepJob] = []  # the first one is being computed
        self._slots: dict[str, SweepJob] = {}
        self._known: OrderedDict[str, Outcome] = OrderedDict()
        self._thread: threading.Thread | None = None

    def submit(self, plan: Plan, session: str) -> SweepJob:
        """Put a sweep in line, or join the one that is there. The session's other one is given up."""
        with self._lock:
            current = self._slots.get(session)
            if current is not None and (current.key != plan.key or not current.alive):
                self._give_up(session)
            job = self._find(plan.key)
            if job is None:
                job = SweepJob(plan, plan.key)
                self._line.append(job)
            job.owners.add(session)
            self._slots[session] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="chalkline-sweeps", daemon=True)
                self._thread.start()
            return job

    def of(self, session: str) -> SweepJob | None:
        """The session's sweep, on its way or ended."""
        with self._lock:
            return self._slots.get(session)

    def on_its_way(self, key: str) -> bool:
        """Whether somebody's sweep of that key waits or runs."""
        with self._lock:
            return self._find(key) is not None

    def place(self, job: SweepJob) -> int:
        """How many sweeps are computed before this one."""
        with self._lock:
            return self._line.index(job) if job in self._line else 0

    def length(self) -> int:
        """How many sweeps are computed or wait."""
        with self._lock:
            return len(self._line)

    def sessions(self) -> set[str]:
        """The sessions that have a sweep."""
        with self._lock:
            return set(self._slots)

    def release(self, session: str) -> None:
        """Give up the session's sweep: what nobody waits for any more is paused, its parts are kept."""
        with self._lock:
            self._give_up(session)

    def _give_up(self, session: str) -> None:
        job = self._slots.pop(session, None)
        if job is not None:
            job.owners.discard(session)
            if not job.owners:
                job.stop.set()

    def _find(self, key: str) -> SweepJob | None:
        return next((job for job in self._line if job.key == key and job.alive), None)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._line:
                    self._thread = None
                    return
                job = self._line[0]
            try:
                self._compute(job)
            finally:
                with self._lock:
                    self._line.remove(job)
                job.ended.set()

    def _compute(self, job: SweepJob) -> None:
        if job.stop.is_set():
            job.state = "paused"
            return
        job.state = "running"
        self.computed += 1
        try:
            sweep = run_sweep(
                job.plan,
                store=self.store,
                workers=_workers(job.plan),
                on_progress=lambda progress: job.seen(self.store, progress),
                cancel=job.stop,
            )
            job.outcome = self._remember(sweep)
            job.state = "done"
        except Paused:
            job.state = "paused"
        except ChalklineError as error:
            job.state, job.error = "failed", str(error)
        except Exception as error:  # told to whoever watches; the line goes on
            logger.exception("A sweep failed.")
            job.state, job.error = "failed", f"The sweep failed ({type(error).__name__}: {error})."

    def stored(self, key: str) -> Outcome | None:
        """What the store has of the sweep of that key. Raises ChalklineError where it is not sound."""
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        try:
            sweep = open_sweep(key, self.store)
        except UnknownName:
            return None
        return self._remember(sweep)

    def _remember(self, sweep: Sweep) -> Outcome:
        outcome = Outcome(
            sweep.arrow_summary(), sweep.failures, sweep.complete and not sweep.lost, tuple(sweep.notices)
        )
        if outcome.complete:
            with self._lock:
                self._known[sweep.key] = outcome
                self._known.move_to_end(sweep.key)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return outcome


@cache
def server_sweeps() -> Sweeps:
    """The sweeps of this server process."""
    return Sweeps(Store())


def release_absent(awaited: Collection[str] = ()) -> None:
    """Give up the sweeps of tabs that have been closed, but for the sessions in `awaited`."""
    sweeps = server_sweeps()
    for session in sweeps.sessions():
        if session not in awaited and not runtime.get_instance().is_active_session(session):
            sweeps.release(session)


# -- what a page may ask for ---------------------------------------------------------------------------------------


def _workers(plan: Plan) -> int | None:
    """Short sweeps are over before a worker process has started; a cluster is asked for all of them."""
    return 1 if plan.seconds < THREAD_SECONDS and not has_cluster() else None


def has_cluster() -> bool:
    return bool(os.environ.get("CHALKLINE_SCHEDULER"))


def wait_seconds(plan: Plan) -> float:
    """The estimate of how long a sweep takes: on this machine's cores, or for a cluster on one of its."""
    return plan.seconds if has_cluster() else plan.seconds / min(cores(), len(plan.chunks))


def require_live(plan: Plan, command: str) -> None:
    """Raises TooLarge, with the estimate and the command line, for what a page may not ask for."""
    limit = LIVE_SECONDS * (CLUSTER_LIVES if has_cluster() else 1)
    seconds = wait_seconds(plan)
    limits = []
    if seconds > limit:
        limits.append(f"{describe_seconds(limit)} of computing")
    if plan.bytes > LIVE_BYTES:
        limits.append(f"{describe_bytes(LIVE_BYTES)} for one point")
    if limits:
        raise TooLarge(
            f"This sweep of {len(plan.design)} points would take about {describe_seconds(seconds)} and "
            f"{describe_bytes(plan.bytes)} for its largest point; the limit here is {' and '.join(limits)}. Take fewer "
            f"points, or run it elsewhere: {command}"
        )


def require_few(design: Design, claims: bool, theory_only: bool, most: int, command: str) -> None:
    """Raises TooLarge for more points than a page can show, with an estimate from some of them."""
    if len(design) <= most:
        return
    chosen = range(0, len(design), max(1, len(design) // _SAMPLED))
    some = points_design(design.lab, design.base, [design.values(point) for point in chosen])
    seconds = plan_sweep(some, claims=claims, theory_only=theory_only).seconds * len(design) / len(some)
    raise TooLarge(
        f"This sweep has {len(design):,} points, about {describe_seconds(seconds)} on one core, and a page shows at "
        f"most {most:,}. Take fewer values on an axis, or run it elsewhere: {command}"
    )


def possible(design: Design, point: int) -> Params | None:
    """The params of a point; None where its combination of values is not possible."""
    try:
        return design.params(point)
    except BadInput:
        return None
