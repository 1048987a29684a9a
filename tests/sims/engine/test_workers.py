"""Processes that compute replicates: the same bits, watched, stopped, limited, replaced, and none left behind."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from sims.engine import Cancelled, ChalklineError, TooLarge, compiled, confine, execute
from sims.engine import jobs as jobs_module
from sims.engine import workers as workers_module
from sims.engine.budget import Budget
from sims.engine.execute import RunMonitor
from sims.engine.jobs import Jobs
from sims.engine.workers import Workers, _Worker
from tests.sims.engine import greedy
from tests.sims.engine.watched import assert_computed, until


@pytest.fixture(scope="module")
def workers():
    hired = Workers(2)
    yield hired
    hired.close()
    assert multiprocessing.active_children() == []


@pytest.fixture
def jobs(store, workers):
    staffed = Jobs(store)
    staffed.hire(workers)
    return staffed


def processes(workers):
    """Of the workers that are idle, their processes."""
    found = [workers._idle.get() for _ in range(workers._idle.qsize())]
    for one in found:
        workers._idle.put(one)
    return [one.process for one in found]


def test_a_run_from_workers_is_that_of_threads(lab, small, made, jobs, store):
    job = jobs.submit(lab, small)
    assert_computed(jobs, job, made, store)
    assert job.monitor.meter.seconds > 0.0


def test_nothing_is_simulated_in_the_process_that_asks(lab, small, made, jobs):
    def simulate(params, replicate, monitor):
        raise AssertionError("a replicate was computed by the server itself")

    run = jobs.submit(dataclasses.replace(lab, simulate=simulate), small).result(120)
    assert run.trace_sha256 == made.trace_sha256


def test_a_run_is_watched_and_stopped_while_workers_compute_it(lab, endless, small, jobs, monkeypatch, workers):
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 1e9)
    before = processes(workers)
    job = jobs.submit(lab, endless, "anna", "focus")
    until(lambda: np.all(job.monitor.progress > 0) and np.isfinite(job.monitor.records[:, :, 0]).any())
    assert 0.0 < job.progress < 1.0 and job.monitor.meter.seconds > 0.0
    second = jobs.submit(lab, small, "anna", "focus")
    with pytest.raises(Cancelled, match="nothing of it was kept"):
        job.result(60)
    assert second.result(60).key == second.key
    assert {one.pid for one in processes(workers)} == {one.pid for one in before}, "they go on"


def test_a_worker_that_is_killed_fails_its_run_alone_and_is_replaced(lab, endless, small, made, jobs, workers):
    monitor = RunMonitor.allocate(lab, endless.replace(replicates=1))
    errors = []

    def work():
        with pytest.raises(ChalklineError, match=r"ended early \(exit code -9\).*Run it again") as error:
            execute(lab, endless.replace(replicates=1), monitor=monitor, workers=1, compute=workers.compute)
        errors.append(error)

    thread = threading.Thread(target=work)
    before = {one.pid for one in processes(workers)}
    thread.start()
    until(lambda: monitor.progress.any())
    (busy,) = before - {one.pid for one in processes(workers)}
    os.kill(busy, signal.SIGKILL)
    thread.join()
    assert len(errors) == 1 and monitor.meter.seconds >= 0.0
    for _ in range(2):
        assert execute(lab, small, compute=workers.compute).trace_sha256 == made.trace_sha256
    after = {one.pid for one in processes(workers)}
    assert len(after) == 2 and busy not in after and len(after & before) == 1


def test_an_idle_worker_that_is_killed_is_replaced_before_it_is_asked(lab, small, made, workers):
    for one in processes(workers):
        os.kill(one.pid, signal.SIGKILL)
        until(lambda one=one: not one.is_alive())
    assert execute(lab, small, compute=workers.compute).trace_sha256 == made.trace_sha256


def test_a_run_that_outlives_its_estimate_is_stopped_in_its_worker(lab, endless, jobs, monkeypatch, workers):
    monkeypatch.setattr(jobs_module, "estimate", lambda lab, params: Budget(0.01, 0.01, 1e6))
    monkeypatch.setattr(confine, "START_SECONDS", 0.0)
    with pytest.raises(TooLarge, match=r"estimated at 10 ms .* more than 5 times that"):
        jobs.submit(lab, endless).result(120)
    until(lambda: len(processes(workers)) == 2)


@contextlib.contextmanager
def one_worker(monkeypatch, serve):
    monkeypatch.setattr(workers_module, "_serve", serve)
    hired = Workers(1)
    try:
        yield hired
    finally:
        hired.close()


def test_a_worker_that_wants_too_much_memory_is_refused_it_and_goes_on(lab, small, monkeypatch):
    with one_worker(monkeypatch, greedy.serve) as hired:
        (before,) = processes(hired)
        for _ in range(2):
            with pytest.raises(TooLarge, match=r"more than 2 times the .* of its estimate\. .*python -m sims run"):
                execute(lab, small.replace(replicates=1), workers=1, compute=hired.compute)
        assert [one.pid for one in processes(hired)] == [before.pid]


def test_what_fails_in_a_worker_is_said_in_one_line(lab, small, monkeypatch):
    with one_worker(monkeypatch, greedy.serve_failing) as hired:
        said = r"The run failed \(KeyError: 'no such thing in replicate 0'\)\. Nothing of it was kept\."
        with pytest.raises(ChalklineError, match=f"^{said}$") as error:
            execute(lab, small.replace(replicates=1), workers=1, compute=hired.compute)
        assert type(error.value) is ChalklineError


def test_a_worker_that_does_not_stop_when_asked_is_killed(lab, small, store, monkeypatch):
    """What waits for it ends as any run that was stopped, and the next one has another process."""
    monkeypatch.setattr(workers_module, "DEAF_SECONDS", 0.05)
    with one_worker(monkeypatch, greedy.serve_deaf) as hired:
        (deaf,) = processes(hired)
        jobs = Jobs(store)
        jobs.hire(hired)
        job = jobs.submit(lab, small.replace(replicates=1), "anna")
        until(lambda: job.monitor.progress.any())
        jobs.release("anna")
        with pytest.raises(Cancelled):
            job.result(60)
        assert job.state == "cancelled" and not deaf.is_alive() and store.keys() == []


def test_a_long_run_of_a_staffed_server_has_a_process_of_its_own(lab, small, made, jobs, monkeypatch):
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 0.0)
    before = {one.pid for one in multiprocessing.active_children()}
    assert jobs.submit(lab, small).result(120).trace_sha256 == made.trace_sha256
    assert {one.pid for one in multiprocessing.active_children()} == before


def test_what_comes_back_of_many_threads_is_each_its_own(lab, small, workers):
    wanted = [small.replace(seed=seed) for seed in range(12)]
    found = {}

    def ask(params):
        found[params.seed] = execute(lab, params, compute=workers.compute).trace_sha256

    threads = [threading.Thread(target=ask, args=(params,)) for params in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {params.seed: execute(lab, params).trace_sha256 for params in wanted}


ORPHANS = """
import time
from sims.engine import get_lab, jobs, workers
lab = get_lab("label_noise")
params = lab.params.make(steps=10**9, n_train=5, dim=8, sparsity=2, replicates=1)
jobs.THREAD_SECONDS = 1e9
hired = workers.Workers(2)
mine = jobs.Jobs(None)
mine.hire(hired)
job = mine.submit(lab, params)
while not job.monitor.progress.any():
    time.sleep(0.01)
import multiprocessing
from multiprocessing.forkserver import _forkserver
print(*(child.pid for child in multiprocessing.active_children()), _forkserver._forkserver_pid or "", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_asked_for_them(how):
    """One that computes, one that waits, and the process that both were forked from."""
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=compiled.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        theirs = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(theirs) == (3 if sys.platform == "linux" else 2)
        process.send_signal(how)
        assert psutil.wait_procs(theirs, timeout=60)[1] == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are spawned")
def test_a_worker_has_loaded_every_lab_before_it_is_asked(workers):
    """Forked, not spawned: its parent is the process that has them."""
    from multiprocessing.forkserver import _forkserver

    fresh = _Worker(workers.context)
    try:
        assert psutil.Process(fresh.process.pid).ppid() == _forkserver._forkserver_pid
    finally:
        fresh.end()
