"""Jobs: threads and processes behind one face, joined, replaced, cancelled, and never lost."""

import dataclasses
import json
import logging
import multiprocessing
import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from sims.engine import BadInput, Cancelled, ChalklineError, execute
from sims.engine import jobs as jobs_module
from sims.engine.errors import DamagedRun
from sims.engine.jobs import THREAD_NICENESS, Jobs
from sims.engine.keys import run_key
from sims.engine.store import Store
from tests.sims.engine.watched import assert_computed, until

IN_THREAD, IN_PROCESS = 1e9, 0.0


@pytest.fixture
def place(monkeypatch):
    """Send every run to a thread or to a process, whatever it is estimated at."""

    def choose(limit):
        monkeypatch.setattr(jobs_module, "THREAD_SECONDS", limit)

    return choose


def blocks_in_shared_memory():
    """Those of this process: other tests may run beside this one."""
    mine = f"chalkline-{os.getpid()}-"
    return {name for name in os.listdir("/dev/shm") if name.startswith(mine)} if Path("/dev/shm").is_dir() else set()


@pytest.mark.parametrize("limit", [IN_THREAD, IN_PROCESS])
def test_a_job_gives_the_same_run_from_a_thread_and_from_a_process(lab, small, store, made, place, limit):
    place(limit)
    before = blocks_in_shared_memory()
    jobs = Jobs(store)
    job = jobs.submit(lab, small)
    assert_computed(jobs, job, made, store)
    assert blocks_in_shared_memory() <= before


def test_a_process_does_not_run_the_script_that_asked_for_it(lab, small, made, place, monkeypatch, tmp_path):
    place(IN_PROCESS)
    script = tmp_path / "page.py"
    script.write_text("raise SystemExit('the page ran outside of its session')")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert Jobs(None).submit(lab, small).result(120).trace_sha256 == made.trace_sha256


def test_equal_requests_are_computed_once(lab, store, small):
    params = small.replace(steps=200_000)
    jobs, together = Jobs(store), threading.Barrier(8)

    def ask(number):
        together.wait()
        found[number] = jobs.submit(lab, params, session=str(number)).result(60)

    found: dict[int, object] = {}
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({run.trace_sha256 for run in found.values()}) == 1
    assert jobs.computed == 1
    assert jobs.submit(lab, params, session="late").result(60) is jobs.submit(lab, params, session="later").result(60)
    assert jobs.computed == 1
    elsewhere = Jobs(store)
    assert elsewhere.submit(lab, params).result(60).cached and elsewhere.computed == 0


def test_finished_runs_are_forgotten_least_recently_used_first(lab, small):
    jobs = Jobs(None, remember=2 * execute(lab, small).trace.nbytes)
    one, two, three = (small.replace(seed=seed) for seed in range(3))
    for params in (one, two, one, three, one):
        jobs.submit(lab, params, session=str(params.seed), slot=str(jobs.computed)).result(60)
    assert jobs.computed == 3
    jobs.submit(lab, two).result(60)
    assert jobs.computed == 4


def test_a_run_that_is_too_large_to_be_remembered_is_handed_out_all_the_same(lab, small):
    jobs = Jobs(None, remember=10.0)
    assert jobs.submit(lab, small).result(60).trace.nbytes > 10
    assert jobs.recall(run_key(lab, small)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no niceness of its own here")
def test_kernels_step_back_behind_the_threads_that_answer(lab, small):
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    seen = []

    def simulate(params, replicate, monitor):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return lab.simulate(params, replicate, monitor)

    Jobs(None).submit(dataclasses.replace(lab, simulate=simulate), small).result(60)
    assert len(seen) == small.replicates and set(seen) == {min(19, own + THREAD_NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


@pytest.mark.parametrize("limit", [IN_THREAD, IN_PROCESS])
def test_the_latest_run_of_a_slot_wins(lab, small, endless, store, place, limit):
    place(limit)
    jobs = Jobs(store)
    first = jobs.submit(lab, endless, "anna", "focus")
    until(lambda: np.any(first.monitor.progress))
    second = jobs.submit(lab, small, "anna", "focus")
    with pytest.raises(Cancelled, match="nothing of it was kept"):
        first.result(60)
    assert first.state == "cancelled" and second.result(60).key == second.key
    assert store.keys() == [second.key] and multiprocessing.active_children() == []


def test_a_run_goes_on_while_anybody_waits_for_it(lab, endless, small):
    jobs = Jobs(None)
    anna, bert = jobs.submit(lab, endless, "anna"), jobs.submit(lab, endless, "bert")
    assert anna is bert
    jobs.release("anna")
    until(lambda: np.any(bert.monitor.progress))
    assert not bert.monitor.cancel[0] and bert.state == "running"
    jobs.release("bert", keep={""})
    assert not bert.monitor.cancel[0]
    jobs.release("bert")
    with pytest.raises(Cancelled):
        bert.result(60)


def test_slots_of_one_session_do_not_disturb_each_other(lab, small, endless):
    jobs = Jobs(None)
    long = jobs.submit(lab, endless, "anna", "focus")
    jobs.submit(lab, small, "anna", "beside").result(60)
    assert long.state == "running" and not long.monitor.cancel[0]
    jobs.release("anna")


def test_a_cancelled_run_can_be_asked_for_again_at_once(lab, endless):
    jobs = Jobs(None)
    first = jobs.submit(lab, endless, "anna")
    first.cancel()
    again = jobs.submit(lab, endless, "anna")
    assert again is not first and not again.monitor.cancel[0]
    jobs.release("anna")
    for job in (first, again):
        with pytest.raises(Cancelled):
            job.result(60)


def test_cancelling_ends_the_worker(lab, endless, place):
    place(IN_PROCESS)
    before = blocks_in_shared_memory()
    job = Jobs(None).submit(lab, endless)
    until(lambda: np.any(job.monitor.progress))
    (worker,) = multiprocessing.active_children()
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(60)
    assert job.state == "cancelled" and not worker.is_alive() and np.all(job.monitor.progress < endless.steps)
    assert blocks_in_shared_memory() <= before


def test_a_run_that_is_replaced_at_once_starts_no_process(lab, endless, place, monkeypatch):
    """Fifty moves of a slider, each of which gives the run before up."""
    place(IN_PROCESS)
    started, real = [], jobs_module.Context
    monkeypatch.setattr(jobs_module, "Context", lambda: started.append(1) or real())
    monkeypatch.setattr(jobs_module, "SETTLE_SECONDS", 60.0)
    jobs = Jobs(None)
    moved = [jobs.submit(lab, endless.replace(seed=seed), "anna") for seed in range(50)]
    jobs.release("anna")
    for job in moved:
        with pytest.raises(Cancelled):
            job.result(60)
    assert started == []


def test_a_worker_that_dies_is_reported(lab, endless, place, store):
    place(IN_PROCESS)
    job = Jobs(store).submit(lab, endless)
    until(lambda: np.any(job.monitor.progress))
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(ChalklineError, match=r"ended early \(exit code -9\)"):
        job.result(60)
    assert job.state == "failed" and store.keys() == []


@pytest.mark.parametrize("limit", [IN_THREAD, IN_PROCESS])
def test_the_series_fill_while_the_run_goes_on(lab, small, place, limit):
    place(limit)
    params = small.replace(steps=10**8, replicates=1)
    jobs = Jobs(None)
    job = jobs.submit(lab, params, "anna")

    def filled():
        return int(np.sum(np.isfinite(job.partial()[1]["train_loss"])))

    until(lambda: filled() > 0 and np.any(job.monitor.progress))
    early, done = filled(), job.progress
    until(lambda: filled() > early and job.progress > done)
    assert job.state == "running" and job.progress < 1.0
    with pytest.raises(TimeoutError):
        job.result(0.0)
    jobs.release("anna")
    with pytest.raises(Cancelled):
        job.result(60)


def test_a_store_that_cannot_be_written_is_said_and_the_run_is_had(lab, small, made):
    job = Jobs(Store("/proc/chalkline/store")).submit(lab, small)
    assert job.result(60).trace_sha256 == made.trace_sha256
    assert "cannot be written" in job.notice


def test_visitors_do_not_fill_the_disk(lab, small, store, made):
    job = Jobs(store, leave_free=1e30).submit(lab, small)
    assert job.result(60).trace_sha256 == made.trace_sha256 and store.keys() == []
    assert "nearly full; this run was not kept" in job.notice
    assert Jobs(store, leave_free=1.0).submit(lab, small).result(60) and store.keys() == [made.key]


def test_a_damaged_stored_run_is_computed_again_and_replaced(lab, small, store, made):
    folder = store.put(made)
    (folder / "arrays.npz").write_bytes(b"broken")
    jobs = Jobs(store)
    job = jobs.submit(lab, small)
    assert job.result(60).trace_sha256 == made.trace_sha256 and jobs.computed == 1
    assert "is damaged" in job.notice and store.find(made.key) is not None


def test_a_sound_run_of_other_params_under_a_key_is_not_served(lab, small, store, made):
    """Somebody filed it there; the page computes its own, and the alarm is the notice."""
    longer = execute(lab, small.replace(steps=80))
    store.put(dataclasses.replace(longer, key=made.key))
    job = Jobs(store).submit(lab, small)
    assert job.result(60).trace_sha256 == made.trace_sha256 and not job.result(60).cached
    assert "gave another trace" in job.notice
    with pytest.raises(DamagedRun, match="not one of label_noise with these params"):
        execute(lab, small, store=store)


def test_the_log_has_one_line_for_each_run_and_no_word_on_who_asked(lab, small, endless, store, caplog):
    small, endless = small.replace(seed=77), endless.replace(seed=77)  # no late line of another test is taken for these
    made = execute(lab, small)
    caplog.set_level(logging.INFO, "chalkline.runs")
    jobs = Jobs(store)
    jobs.submit(lab, small, "anna", "focus").result(60)
    jobs.submit(lab, small, "bert", "focus").result(60)  # remembered: nothing is computed or read
    Jobs(store).submit(lab, small, "carl", "focus").result(60)
    stopped = jobs.submit(lab, endless, "anna", "focus")
    jobs.release("anna")
    with pytest.raises(Cancelled):
        stopped.result(60)

    def lines():
        found = [json.loads(message) for message in caplog.messages]
        return [line for line in found if line["key"] in (made.key, stopped.key)]

    until(lambda: len(lines()) >= 3)
    by_outcome = {(line["state"], line["cached"]): line for line in lines()}  # each is written behind its answer
    done, read, cancelled = (by_outcome[one] for one in (("done", False), ("done", True), ("cancelled", False)))
    assert done.keys() == {"event", "lab", "key", "state", "seconds", "cached", "verdicts"}
    assert (done["lab"], done["key"], done["state"], done["cached"]) == (lab.id, made.key, "done", False)
    assert done["verdicts"] == {verdict.id: verdict.verdict for verdict in made.claims} and done["seconds"] > 0
    assert read["cached"] and read["key"] == made.key
    assert (cancelled["state"], cancelled["key"]) == ("cancelled", stopped.key)
    assert not any(name in caplog.text for name in ("anna", "bert", "carl", "focus"))


@pytest.mark.parametrize("limit", [IN_THREAD, IN_PROCESS])
def test_a_failing_run_fails_its_job_and_can_be_tried_again(lab, small, store, place, monkeypatch, limit):
    place(limit)
    jobs = Jobs(store)
    with monkeypatch.context() as broken:
        broken.setattr(jobs_module, "run_in_process", failing)
        broken.setattr(jobs_module, "execute", failing)
        job = jobs.submit(lab, small)
        with pytest.raises(BadInput, match="no"):
            job.result(60)
    assert job.state == "failed"
    assert jobs.submit(lab, small).result(60).key == job.key


def failing(*args, **kwargs):
    raise BadInput("no")
