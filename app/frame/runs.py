"""The runs of a page: asked for, waited for briefly, watched when they take longer, cancelled when given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_run_context import get_run_yield_check

from app.house import present_house
from sims.engine import ChalklineError, Lab, Params, Run, TooLarge
from sims.engine.budget import Budget, command_line, describe_bytes, describe_seconds, estimate, require
from sims.engine.jobs import Job, Jobs
from sims.engine.keys import run_key
from sims.engine.store import Store

from .limits import FREE_BYTES, LIVE_BYTES, LIVE_SECONDS, QUEUE_SECONDS, SESSION_BYTES, SESSION_SECONDS
from .stage import STAGE
from .state import PageState
from .words import escape

PATIENCE_SECONDS = 1.5  # a rerun waits this long before it shows a progress bar instead
AHEAD = 4  # of the runs that a picture needs, so many are under way at once
LOOK_SECONDS = 0.1  # so often it looks meanwhile whether anybody still waits for it
WARM_UP, CARDS = OWN_SESSIONS = ("warm-up", "cards")  # of the server itself: no tab has them, and none closes them
# What a run may end in that is told in a sentence: the last is a theory's solver that did not converge.
FAILURES = (ChalklineError, ArithmeticError)


@dataclass(frozen=True)
class View:
    """What a lab's pictures are drawn from: the finished runs by label, the one in focus first."""

    lab: Lab
    state: PageState
    runs: Mapping[str, Run]
    x: str = "step"
    present: bool = False
    fetched: Mapping[str, Run] = field(default_factory=dict)
    details: frozenset[str] = frozenset()
    spaghetti: bool = False

    @property
    def focus(self) -> Run:
        return next(iter(self.runs.values()))

    @property
    def focus_label(self) -> str:
        return next(iter(self.runs))

    def at_hand(self, params: Params) -> Run | None:
        """A run that a picture needs besides the page's own, if it has been computed before."""
        return self.fetched.get(run_key(self.lab, params))


@cache
def server_jobs() -> Jobs:
    """The jobs of this server process."""
    return Jobs(Store(), leave_free=FREE_BYTES)


def release_absent(awaited: Collection[str] = ()) -> None:
    """Give up the jobs of tabs that have been closed: what nobody waits for any more is cancelled.

    Of the sessions in `awaited` only the network is gone, and they are expected back.
    """
    for session in server_jobs().sessions().difference(awaited, OWN_SESSIONS):
        if not runtime.get_instance().is_active_session(session):
            server_jobs().release(session)


def session_id() -> str:
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def submit(lab: Lab, wanted: Mapping[str, Params], keep: Sequence[str] = ()) -> dict[str, Job]:
    """Start the runs of a page, each in the slot of its label; the session's other jobs are given up.

    Raises:
        TooLarge: one of them is beyond what a page may ask for; nothing is started then.
    """
    jobs, session = server_jobs(), session_id()
    lacking = [params for params in wanted.values() if not _is_at_hand(run_key(lab, params))]
    require_live(lab, lacking)
    for params in lacking:
        if not jobs.on_its_way(run_key(lab, params)):
            _require_turn(lab, params, estimate(lab, params))
    jobs.release(session, keep={f"{lab.id}/{label}" for label in (*wanted, *keep)})
    found = {label: jobs.submit(lab, params, session, f"{lab.id}/{label}") for label, params in wanted.items()}
    _give_up_if_gone(session)
    return found


def _give_up_if_gone(session: str) -> None:
    """Give up what a script has just asked for whose tab was closed meanwhile: who looks for that has been here."""
    house = present_house()
    if house is None or not runtime.exists() or runtime.get_instance().is_active_session(session):
        return
    if session not in house.awaited():
        server_jobs().release(session)


def require_live(lab: Lab, wanted: Sequence[Params]) -> None:
    """Raises TooLarge where one of these runs, or all of them together, are beyond what a page may ask for."""
    budgets = [require(lab, params, seconds=LIVE_SECONDS, bytes=LIVE_BYTES) for params in wanted]
    seconds, size = sum(budget.seconds for budget in budgets), sum(budget.bytes for budget in budgets)
    if seconds > SESSION_SECONDS or size > SESSION_BYTES:
        commands = "; ".join(command_line(lab, params) for params in wanted)
        raise TooLarge(
            f"The runs that this page lacks ({len(budgets)}) would take about {describe_seconds(seconds)} and "
            f"{describe_bytes(size)} together; the limit of one tab is {describe_seconds(SESSION_SECONDS)} of "
            f"computing and {describe_bytes(SESSION_BYTES)} of memory. Draw fewer of them, or run them elsewhere: "
            f"{commands}"
        )


def _is_at_hand(key: str) -> bool:
    """Whether a run of that key need not be computed."""
    jobs = server_jobs()
    return jobs.recall(key) is not None or (jobs.store is not None and jobs.store.holds(key))


def _require_turn(lab: Lab, params: Params, budget: Budget) -> None:
    """Raises TooLarge, with the command line, where a run would have to wait too long for its turn."""
    _, waiting, seconds = server_jobs().outlook(budget.seconds)
    if seconds > QUEUE_SECONDS:
        raise TooLarge(
            f"The server is busy: {waiting} runs are waiting, and this one, of {budget}, would begin in about "
            f"{describe_seconds(seconds)}. Ask again later, choose smaller sizes, or run it elsewhere: "
            f"{command_line(lab, params)}"
        )


def wait_for(jobs: Mapping[str, Job], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether all have ended before that time is up."""
    deadline = time.monotonic() + seconds
    return all(_ended(job, deadline) for job in jobs.values())


def _ended(job: Job, deadline: float) -> bool:
    """Whether it ends before that time; a script whose tab is closed, or asks for another page, stops here."""
    if job.finished():
        return True
    stop_if_told = get_run_yield_check() or (lambda: None)
    with STAGE.aside():
        while not job.ends_within(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
            stop_if_told()
    return True


def results(jobs: Mapping[str, Job]) -> dict[str, Run]:
    """The runs that ended well; for each of the others its message is shown."""
    found = {}
    for label, job in jobs.items():
        if job.notice:
            st.warning(escape(job.notice))
        try:
            found[label] = job.result(0)
        except FAILURES as error:
            st.error(escape(f"{label}: {error}"))
    return found


def watch(jobs: Mapping[str, Job], preview: Callable[[Mapping[str, Job]], None]) -> None:
    """A progress bar, what is recorded so far, and a stop button, until all runs have ended."""

    @st.fragment(run_every=_look_every(jobs))
    def progress() -> None:
        if all(job.finished() for job in jobs.values()):
            st.rerun()
        running = {label: job for label, job in jobs.items() if not job.finished()}
        for label, job in running.items():
            st.progress(job.progress, text=f"{label}: {_how_far(job)}")
        if st.button("Stop", icon=":material/stop_circle:", shortcut="Escape"):
            st.session_state["stopped"] = {job.key for job in running.values()}
            for job in running.values():
                job.cancel()
            st.rerun()
        preview(jobs)

    progress()


def _look_every(jobs: Mapping[str, Job]) -> float:
    """Seconds between two looks at runs under way: a twentieth of what they are expected to take, from 0.5 to 3.

    A class that waits in a queue must not keep the server busy with asking.
    """
    left = [job.ahead[1] + (job.budget.seconds if job.budget else 0.0) for job in jobs.values() if not job.finished()]
    return min(3.0, max(0.5, max(left, default=0.0) / 20))


def _how_far(job: Job) -> str:
    """How much of a run is done, or its place in the line, and how long it takes."""
    expected = f", about {describe_seconds(job.budget.seconds)} in all" if job.budget else ""
    if job.state != "waiting":
        return f"{100 * job.progress:.0f} %{expected}"
    before, seconds = job.ahead
    return f"number {before + 1} in the queue, begins in about {describe_seconds(seconds)}{expected}"


def is_given_up(lab: Lab, wanted: Sequence[Params]) -> bool:
    """Whether the visitor stopped one of these runs."""
    return bool(_given_up(lab, wanted))


def _given_up(lab: Lab, wanted: Sequence[Params]) -> set[str]:
    stopped: set[str] = st.session_state.get("stopped", set())
    return stopped and stopped & {run_key(lab, params) for params in wanted}


def given_up(lab: Lab, wanted: Sequence[Params]) -> None:
    """Say that a run was stopped; it waits to be asked for again."""
    stopped = _given_up(lab, wanted)
    st.info("The run was stopped before it ended; nothing of it was kept.")
    st.button(
        "Run it again",
        icon=":material/play_arrow:",
        on_click=lambda: st.session_state["stopped"].difference_update(stopped),
    )


def fetch(
    lab: Lab,
    wanted: Sequence[Params],
    compute: bool = False,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> tuple[dict[str, Run], list[Params]]:
    """Runs that a picture needs, by key, and those that are missing.

    Only what has been computed before is fetched, unless `compute` asks for the rest, a few at a time. Of one that
    fails its message is shown, as is why the rest is too much for a page.
    """
    jobs, session = server_jobs(), session_id()
    found: dict[str, Run] = {}
    missing = []
    if compute:
        try:
            require_live(lab, [params for params in wanted if not _is_at_hand(run_key(lab, params))])
        except TooLarge as refusal:
            st.error(escape(str(refusal)))
            compute = False
    asked: dict[str, Job] = {}
    coming = iter(wanted)

    def ask(params: Params) -> None:
        """Start the run, or the reading of it, if it may be and is not in memory."""
        key = run_key(lab, params)
        if key in asked or jobs.recall(key) is not None:
            return
        if compute or (jobs.store is not None and jobs.store.holds(key)):
            asked[key] = jobs.submit(lab, params, session, f"{lab.id}/picture/{key}")
            _give_up_if_gone(session)

    for index, params in enumerate(wanted):
        for soon in islice(coming, 1 if index else AHEAD):
            ask(soon)
        key = run_key(lab, params)
        run = jobs.recall(key)
        if run is None:
            ask(params)  # once more: it may have been forgotten meanwhile
        if run is None and key in asked:
            while not wait_for({key: asked[key]}, 0.2):
                on_progress((index + asked[key].progress) / len(wanted))
            try:
                run = asked[key].result(0)
            except FAILURES as error:
                st.error(escape(str(error)))
        if run is None:
            missing.append(params)
        else:
            found[key] = run
    return found, missing


def cost(lab: Lab, wanted: Sequence[Params]) -> float:
    """Estimated seconds of computing these runs one after the other."""
    return sum(estimate(lab, params).seconds for params in wanted)
