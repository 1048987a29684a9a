"""Killed without warning, at moments drawn at random: nothing that was acknowledged is lost, nothing damaged is served.

200 kills of processes that compute and store runs, 40 interruptions of one sweep, and 12 of the workers that compute
others; each with a stated seed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from sims.engine import compiled
from sims.engine import sweep as sweep_module
from sims.engine.design import grid_design
from sims.engine.store import STALE_SECONDS, Store
from sims.engine.sweep import open_sweep, plan_sweep, run_sweep
from sims.engine.sweep_store import verify_sweeps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def program(name, *arguments):
    command = [sys.executable, "-m", f"tests.faults.{name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=compiled.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("writers", "kills"), [(2, 66), (3, 66), (4, 68)])
def test_two_hundred_killed_writers_lose_no_run_that_they_acknowledged(store, made, writers, kills):
    """Of the same params and of different ones, some computing anew what is stored already."""
    found = program("nursery", writers, kills, writers)
    assert found["killed"] >= kills and len(found["told"]) >= 20
    assert found["left"] >= kills / 20, "kills that fall into no write prove nothing"
    assert set(store.verify().values()) == {None}, "none is unreadable"
    for key, trace in found["told"].items():
        assert store.find(key).trace.sha256 == trace
    assert {row["key"] for row in store.rows()} == set(store.keys()) >= found["told"].keys()
    long_ago = time.time() - STALE_SECONDS - 60
    for left in store.aside.iterdir():
        os.utime(left, (long_ago, long_ago))
    store.put(made[0])
    assert list(store.aside.iterdir()) == [], "the next writer, an hour later, clears up"


def test_a_sweep_of_a_thousand_points_interrupted_forty_times_is_the_uninterrupted_one(store, tmp_path):
    """SIGKILL and SIGTERM in turn; a part that lies there is never computed again."""
    from tests.faults import sweeper

    turns = program("sweeper", 14, 1000)
    ended = [turn["code"] for turn in turns]
    assert len(turns) == 41 and ended[-1] == 0
    assert ended.count(-signal.SIGKILL) == 20 and ended.count(130) >= 5
    assert set(ended) <= {0, 130, -signal.SIGKILL, -signal.SIGTERM}
    for turn in turns:
        assert turn["before"].items() <= turn["after"].items(), "no part was written twice, none was lost"
        assert "Traceback" not in turn["said"]
        if turn["code"] == 130:
            assert "The same command goes on." in turn["said"] or "nothing half-written" in turn["said"]
    assert sum(turn["before"] != turn["after"] for turn in turns) >= 5, "it was interrupted on its way"
    found = open_sweep(sweeper.NAME, store)
    assert found.complete and len(found.summary) == 1000 and len(found.table) == 2000
    assert verify_sweeps(store) == {sweeper.NAME: []}
    alone = run_sweep(plan_sweep(found.design), store=Store(tmp_path / "alone"), workers=1)
    pd.testing.assert_frame_equal(found.table, alone.table, check_exact=True)


# -- workers -------------------------------------------------------------------------------------------------------

POINTS = 120


@pytest.fixture
def design(lab, monkeypatch):
    """Points of some milliseconds, a chunk for each."""
    monkeypatch.setattr(sweep_module, "CHUNK_SECONDS", 1e-9)
    values = [float(f"{value:.12g}") for value in np.linspace(0.1, 2.0, POINTS)]
    return grid_design(lab, lab.params.make(steps=20_000, replicates=2), {"noise_std": values})


@pytest.fixture
def alone(design, tmp_path):
    return run_sweep(plan_sweep(design), store=Store(tmp_path / "alone"), workers=1).table


class Killer(threading.Thread):
    """Kills a process of `victims()` at random moments until told to stop, or so many times; `born` follows each."""

    def __init__(self, victims, most, seconds, born=lambda: None):
        super().__init__(daemon=True)
        self.victims, self.most, self.seconds, self.born = victims, most, seconds, born
        self.killed, self.stop, self.rng = 0, threading.Event(), random.Random(9)

    def run(self):
        while self.killed < self.most and not self.stop.wait(self.rng.uniform(0.0, self.seconds)):
            alive = self.victims()
            if alive:
                self.rng.choice(alive).kill()
                self.killed += 1
                self.born()


def test_killed_worker_processes_cost_a_sweep_nothing_but_time(design, store, alone, monkeypatch):
    """Eight kills among two workers; a chunk may be met more often than is put up with, so that is put up."""
    monkeypatch.setattr("sims.engine.lanes.Lane.attempts", 100)

    def workers():
        return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]

    killer = Killer(workers, 8, 4.0)
    killer.start()
    try:
        found = run_sweep(plan_sweep(design), store=store, workers=2)
    finally:
        killer.stop.set()
        killer.join()
    assert killer.killed >= 2 and found.complete and found.failures == [] and found.computed == POINTS
    pd.testing.assert_frame_equal(found.table, alone, check_exact=True)


def test_killed_workers_of_a_cluster_cost_a_sweep_nothing_but_time(design, store, alone, tmp_path):
    """Four kills; another worker takes the place of each, as a nanny or a queue would have it."""
    import distributed

    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    path = os.pathsep.join([str(compiled.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet["env"] = {**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "20"}
    flags = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    started = [subprocess.Popen([sys.executable, "-m", "dask", "scheduler", *flags], **quiet)]

    def another():
        flags = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        flags += ["--local-directory", str(tmp_path)]
        started.append(subprocess.Popen([sys.executable, "-m", "dask", "worker", *flags], **quiet))

    killer = Killer(lambda: [one for one in started[1:] if one.poll() is None], 4, 3.0, another)
    try:
        while not (file.is_file() and file.stat().st_size):
            assert started[0].poll() is None
            time.sleep(0.02)
        another()
        another()
        address = json.loads(file.read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        killer.start()
        found = run_sweep(plan_sweep(design), store=store, scheduler=address)
    finally:
        killer.stop.set()
        for process in started:
            process.kill()
            process.wait()
    assert killer.killed >= 1 and found.complete and found.failures == [] and found.computed == POINTS
    pd.testing.assert_frame_equal(found.table, alone, check_exact=True)
