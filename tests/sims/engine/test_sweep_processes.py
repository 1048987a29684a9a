"""Sweeps that are interrupted, killed, or computed by a Dask cluster: other processes, which these tests start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from sims.engine import sweep as sweep_module
from sims.engine.design import grid_design
from sims.engine.store import Store
from sims.engine.sweep import open_sweep, plan_sweep, run_sweep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
POINTS = 30
LONG = ["label_noise", "--steps", "10000", "--replicates", "2", "--grid", f"noise_std=0.1:2:{POINTS}"]
WORKERS = 2
SMALL_CHUNKS = "import sys; from sims.engine import cli, sweep; sweep.CHUNK_SECONDS = 1e-9; sys.exit(cli.main())"


@pytest.fixture(autouse=True)
def chunked(monkeypatch):
    """A chunk for each point, whatever the rates of this machine."""
    monkeypatch.setattr(sweep_module, "CHUNK_SECONDS", 1e-9)


@pytest.fixture
def design(lab):
    values = [float(f"{value:.12g}") for value in np.linspace(0.1, 2.0, POINTS)]
    return grid_design(lab, lab.params.make(steps=10_000, replicates=2), {"noise_std": values})


@pytest.fixture
def alone(design, tmp_path):
    """The table of the sweep computed in this process."""
    return run_sweep(plan_sweep(design), store=Store(tmp_path / "alone"), workers=1).table


def same(ours, theirs):
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    return True


def environment(**more):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **more}


def started(*arguments):
    """The command line in a process of its own, with a chunk for each point."""
    command = [sys.executable, "-c", SMALL_CHUNKS, "sweep", *LONG, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # deaf where started by `&`
    )  # fmt: skip


def parts(store):
    return {path.name: path.stat().st_mtime_ns for path in store.path.glob("sweeps/*/parts/*.parquet")}


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return found


# Chunks in flight are those that are computed and those that wait beside them.
IN_FLIGHT = 2 * WORKERS


def test_a_killed_submitter_leaves_no_worker_and_loses_only_what_was_in_flight(design, store, alone):
    process = started("--workers", str(WORKERS))
    try:
        wait_for(lambda: len(parts(store)) >= 3, process)
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.communicate()
    finally:
        process.kill()
    assert len(workers) >= WORKERS
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    before = parts(store)
    (name,) = (path.name for path in (store.path / "sweeps").iterdir())
    assert open_sweep(name, store).folder.chunks[-1] == (POINTS - 1, POINTS)
    assert 3 <= len(before) < POINTS
    found = run_sweep(plan_sweep(design), store=store, workers=1)
    assert found.computed == POINTS - len(before), "no chunk whose part lay there"
    assert {key: value for key, value in parts(store).items() if key in before} == before
    assert found.notices == [] and same(found.table, alone)


def test_no_more_than_the_chunks_in_flight_are_handed_out(design, store, monkeypatch):
    """What a killed submitter can lose: counted at every submission."""
    most = []
    real = sweep_module._Session._submit

    def counted(session):
        real(session)
        most.append(len(session.flying))

    monkeypatch.setattr(sweep_module._Session, "_submit", counted)
    assert run_sweep(plan_sweep(design), store=store, workers=WORKERS).complete
    assert max(most) == IN_FLIGHT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_pauses_and_the_same_command_goes_on(design, store, alone, number):
    process = started("--workers", str(WORKERS), "--name", "mine")
    try:
        wait_for(lambda: len(parts(store)) >= 3, process)
        workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
    finally:
        process.kill()
    assert f"of {POINTS} points are kept in" in err and "Traceback" not in err and out == ""
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    before = parts(store)
    sweep = open_sweep("mine", store)
    assert not sweep.complete and len(sweep.summary) == len(sweep.table) / 2
    process = started("--workers", "1", "--name", "mine")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    sweep = open_sweep("mine", store)
    assert sweep.complete and same(sweep.table, alone)
    assert {key: value for key, value in parts(store).items() if key in before} == before


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler with two workers, whose own store cannot be written: (address, scheduler, workers)."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    quiet["env"] = environment(CHALKLINE_STORE="/proc/chalkline", DASK_DISTRIBUTED__ADMIN__TICK__LIMIT="60s")
    flags = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([sys.executable, "-m", "dask", "scheduler", *flags], **quiet)
    workers = []
    try:
        wait_for(lambda: file.is_file() and file.stat().st_size, scheduler)
        address = json.loads(file.read_text())["address"]
        flags = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
        command = [sys.executable, "-m", "dask", "worker", *flags]
        workers += [subprocess.Popen(command, **quiet) for _ in range(2)]
        yield address, scheduler, workers
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()


def test_a_cluster_gives_the_same_bits_and_a_killed_worker_costs_its_chunks(design, store, alone, cluster):
    """One of the two is killed in the middle; tasks that end are counted by the scheduler."""
    import distributed

    address, _, workers = cluster
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)

        def kill(progress):
            if progress.done >= 5 and workers[0].poll() is None:
                workers[0].kill()
                workers[0].wait()

        found = run_sweep(plan_sweep(design), store=store, scheduler=address, on_progress=kill)
        log = client.run_on_scheduler(lambda dask_scheduler: [tuple(row)[:3] for row in dask_scheduler.transition_log])
    assert workers[0].poll() is not None and found.complete and found.failures == []
    assert found.computed == POINTS and same(found.table, alone)
    begun = [key for key, _, finish in log if finish == "processing" and key.startswith("compute_chunk")]
    assert len(set(begun)) == POINTS and len(begun) - POINTS <= IN_FLIGHT, "each once, but for those of the dead worker"


def test_a_cluster_that_is_lost_keeps_what_is_complete(design, store, cluster, monkeypatch):
    import dask
    import distributed

    from sims.engine import ChalklineError

    address, scheduler, _ = cluster
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)

    def kill(progress):
        if progress.done >= 5:
            scheduler.kill()

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        pytest.raises(ChalklineError, match=r"The workers failed .* Complete parts are kept"),
    ):
        run_sweep(plan_sweep(design), store=store, scheduler=address, on_progress=kill)
    kept = len(parts(store))
    found = run_sweep(plan_sweep(design), store=store, workers=1)
    assert kept >= 1 and found.computed == POINTS - kept


def test_a_scheduler_without_workers_is_one_sentence(lab, design, store, cluster):
    from sims.engine import BadInput

    address, _, workers = cluster
    for worker in workers:
        worker.kill()
        worker.wait()
    with pytest.raises(BadInput, match=r"it has no workers\. Start one on each machine: dask worker"):
        run_sweep(plan_sweep(design), store=store, scheduler=address)
