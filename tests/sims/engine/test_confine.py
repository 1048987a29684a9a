"""What a run may take: processor time in threads and processes, memory in a worker, and no life after its parent."""

import dataclasses
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from sims.engine import TooLarge, compiled, confine, execute
from sims.engine import jobs as jobs_module
from sims.engine.budget import Budget, estimate
from sims.engine.execute import Meter, RunMonitor
from sims.engine.jobs import Jobs
from tests.sims.engine import greedy


def busy(seconds):
    """Compute for so many seconds of this thread's processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_meter_counts_what_threads_compute_while_they_do_and_afterwards():
    meter, inside, go_on = Meter(), threading.Barrier(3), threading.Event()

    def work():
        with meter.running():
            busy(0.05)
            inside.wait()
            go_on.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    running = meter.seconds
    go_on.set()
    for thread in threads:
        thread.join()
    assert 0.1 <= running <= meter.seconds
    busy(0.05)
    assert meter.seconds - running < 0.05, "who does not compute for it is not counted"


def test_a_simulation_is_metered(lab, small):
    execute(lab, small)  # the kernel is loaded
    params = small.replace(steps=200_000, replicates=2)
    monitor = RunMonitor.allocate(lab, params)
    start = time.process_time()
    execute(lab, params, monitor=monitor)
    assert 0.0 < monitor.meter.seconds <= time.process_time() - start


@pytest.fixture
def underestimated(monkeypatch):
    """Every run is estimated at ten milliseconds, and nothing is granted for the start; (limit) -> where it runs."""
    monkeypatch.setattr(jobs_module, "estimate", lambda lab, params: Budget(0.01, 0.01, 1e6))
    monkeypatch.setattr(confine, "START_SECONDS", 0.0)
    return lambda limit: monkeypatch.setattr(jobs_module, "THREAD_SECONDS", limit)


@pytest.mark.parametrize("limit", [1e9, 0.0])
def test_a_run_that_outlives_its_estimate_five_times_is_stopped_and_not_tried_again(
    lab, endless, store, underestimated, monkeypatch, limit
):
    underestimated(limit)
    monkeypatch.setattr(jobs_module, "HUNG", math.inf)
    jobs = Jobs(store)
    job = jobs.submit(lab, endless)
    with pytest.raises(TooLarge, match=r"estimated at 10 ms .* more than 5 times that\..*: python -m sims run"):
        job.result(120)
    assert job.state == "failed" and store.keys() == [] and multiprocessing.active_children() == []
    with pytest.raises(TooLarge, match="more than 5 times"):
        jobs.submit(lab, endless, "another tab").result(60)
    assert jobs.computed == 1


def test_a_worker_that_does_not_even_compute_is_given_up(lab, endless, underestimated, monkeypatch):
    underestimated(0.0)
    monkeypatch.setattr(jobs_module, "HUNG", 0.0)
    with pytest.raises(TooLarge, match="was stopped"):
        Jobs(None).submit(lab, endless).result(120)
    assert multiprocessing.active_children() == []


def test_a_worker_that_wants_more_memory_than_twice_its_estimate_is_refused_it(lab, small, store, monkeypatch):
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 0.0)
    monkeypatch.setattr(jobs_module, "_worker", greedy.worker)
    job = Jobs(store).submit(lab, small.replace(replicates=1))
    with pytest.raises(TooLarge, match=r"more than 2 times the .* of its estimate\. .*python -m sims run") as error:
        job.result(120)
    assert "\n" not in str(error.value) and store.keys() == []


@pytest.mark.slow
def test_a_worker_with_what_its_estimate_says_is_not_refused(lab, small, made, monkeypatch):
    """The same worker, whose lab says how much it takes."""
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", 0.0)
    monkeypatch.setattr(jobs_module, "_worker", greedy.honest_worker)
    monkeypatch.setattr(confine, "START_SECONDS", 1e3)
    assert Jobs(None).submit(lab, small).result(120).trace_sha256 == made.trace_sha256


def test_outside_of_a_worker_no_memory_is_limited(lab, small):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with confine.limited_memory(lab, small):
        assert resource.getrlimit(resource.RLIMIT_AS) == before


ORPHAN = """
import sys, threading, time
from sims.engine import get_lab, jobs
lab = get_lab("label_noise")
jobs.THREAD_SECONDS = 0.0
params = lab.params.make(steps=10**9, n_train=5, dim=8, sparsity=2, replicates=1)
job = jobs.Jobs(None).submit(lab, params)
while not job.monitor.progress.any():
    time.sleep(0.01)
import multiprocessing
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_ends_with_the_process_that_asked_for_it():
    process = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=compiled.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        (worker,) = map(psutil.Process, map(int, process.stdout.readline().split()))
        process.send_signal(signal.SIGKILL)
        assert psutil.wait_procs([worker], timeout=60)[1] == []
    finally:
        process.kill()
        process.communicate()
    theirs = f"chalkline-{process.pid}-"
    while os.path.isdir("/dev/shm") and any(name.startswith(theirs) for name in os.listdir("/dev/shm")):
        time.sleep(0.05)  # the tracker of the killed process clears up behind it; the test's own timeout is the bound


def test_the_estimate_counts_every_core(lab, small):
    """What is allowed is processor time: the estimate of all replicates, however many cores share them."""
    budget = estimate(lab, small.replace(replicates=64), workers=32)
    assert budget.cpu_seconds > budget.seconds
    allowed = confine.allowed_seconds(budget)
    assert allowed == pytest.approx(5 * budget.cpu_seconds + confine.START_SECONDS)
    assert confine.allowed_seconds(dataclasses.replace(budget, seconds=0.0)) == allowed
