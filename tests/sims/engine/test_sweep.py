"""Sweeps: the same rows from one core, several processes or a cluster; nothing lost, nothing computed twice."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sims
from sims.engine import BadInput, ChalklineError, TooLarge, UnknownName, all_labs, cli, execute, predict
from sims.engine import sweep as sweep_module
from sims.engine import sweep_store as store_module
from sims.engine.design import choose_design, grid_design, points_design
from sims.engine.errors import DamagedRun, Paused, StoreError
from sims.engine.lanes import Here, Lane, OneProcess, open_lanes
from sims.engine.store import Store, seal, unseal
from sims.engine.sweep import CHUNK_SECONDS, _chunks, open_sweep, plan_sweep, run_sweep
from sims.engine.sweep_points import check_point, find_point
from sims.engine.sweep_store import IDENTITY, LEADING

ROOT = Path(__file__).resolve().parents[3]
GRID = {"noise_std": [0.5, 1.0], "n_train": [3, 4, 5]}


@pytest.fixture
def design(lab, small):
    return grid_design(lab, small, GRID)


@pytest.fixture
def chunked(monkeypatch):
    """A chunk for each point, though these take no half second."""
    monkeypatch.setattr(sweep_module, "CHUNK_SECONDS", 1e-9)


@pytest.fixture
def swept(design, store, chunked):
    """A complete sweep of six chunks."""
    return run_sweep(plan_sweep(design), store=store, workers=1)


def same(ours, theirs):
    """Whether two frames are equal to the last bit."""
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    return True


def parts(sweep):
    return sorted((sweep.path / "parts").iterdir())


def reseal(path, **changes):
    path.write_bytes(seal({**unseal(path.read_bytes()), **changes}))


# -- rows ------------------------------------------------------------------------------------------------------


def test_every_row_is_a_replicate_of_execute(lab, small, store):
    """Gradient descent has no noise_std, mini-batch noise at this rate diverges: absent numbers are among the rows."""
    points = [{"noise_std": 0.5}, {"algorithm": "gd"}, {"algorithm": "minibatch_noise", "learning_rate": 0.3},
              {"algorithm": "gaussian_noise"}]  # fmt: skip
    design = points_design(lab, small, points)
    sweep = run_sweep(plan_sweep(design), store=store, workers=1)
    table = sweep.table
    assert len(table) == 4 * 3 and list(table.columns[:4]) == ["point", "noise_std", "algorithm", "learning_rate"]
    stopped = 0
    for point in range(4):
        run = execute(lab, design.params(point))
        rows = table[table.point == point]
        assert list(rows.replicate) == [0, 1, 2] and list(rows.seed) == [0, 0, 0]
        assert set(rows.key) == {run.key} and set(rows.trace_sha256) == {run.trace_sha256}
        assert tuple(rows.replicate_sha256) == run.trace.replicate_sha256
        for name, values in run.values.items():
            np.testing.assert_array_equal(rows[name].to_numpy(), values, err_msg=name)
        for name, (value, claimed) in run.prediction.ends().items():
            np.testing.assert_array_equal(rows[f"predicted_{name}"].to_numpy(), np.full(3, value), err_msg=name)
            assert list(rows[f"claimed_{name}"]) == [claimed] * 3, name
        stops = run.trace.stopped
        np.testing.assert_array_equal(rows.stopped, [np.nan if stop is None else stop.step for stop in stops])
        assert [None if pd.isna(why) else why for why in rows.stopped_reason] == [
            stop and stop.reason for stop in stops
        ]
        stopped += run.diverged
        for name in table.columns.difference([*LEADING, *IDENTITY, *design.axes, *run.values]):
            assert name.startswith(("predicted_", "claimed_")) or rows[name].isna().all(), name
    assert 0 < stopped <= 3 and table.noise_std.isna().sum() == 3


def test_the_end_of_a_predicted_series_is_its_last_number(lab, small):
    found = predict(lab, small)
    ends = found.ends()
    assert ends["test_error"].value == found.prediction["test_error"][-1]
    assert ends["lp_test_error"].value == found.prediction["lp_test_error"] and ends["lp_test_error"].claimed
    assert np.isnan(ends["norm_growth"].value) and not ends["norm_growth"].claimed, "silent is not claimed"


def test_an_end_is_claimed_where_the_line_is_claimed_at_its_last_step(lab, small):
    for steps, claimed in ((60, False), (20_000, True)):
        found = predict(lab, small.replace(steps=steps))
        assert found.claimed("test_error")[-1] == found.ends()["test_error"].claimed == claimed


def test_the_summary_is_that_of_the_runs(lab, small, store, chunked):
    base = small.replace(algorithm="minibatch_noise", steps=200, replicates=8)
    design = grid_design(lab, base, {"learning_rate": [0.01, 0.04, 0.3]})
    sweep = run_sweep(plan_sweep(design, claims=True), store=store, workers=1)
    runs = [execute(lab, design.params(point)) for point in range(3)]
    assert any(0 < run.diverged < 8 for run in runs) or {run.diverged for run in runs} == {0, 8}
    for row, run in zip(sweep.summary.to_dict("records"), runs, strict=True):
        assert row["key"] == run.key and row["stopped"] == run.diverged and pd.isna(row["failed"])
        for name, metric in run.metrics.items():
            told = (row[f"{name}_mean"], row[f"{name}_se"], row[f"{name}_n"])
            expected = (np.nan if metric.mean is None else metric.mean, np.nan if metric.se is None else metric.se)
            np.testing.assert_array_equal(told, (*expected, metric.n), err_msg=name)
        assert {verdict.id: verdict.verdict for verdict in run.claims} == {
            name.removeprefix("verdict_"): word for name, word in row.items() if name.startswith("verdict_")
        }
    assert same(pd.read_parquet(sweep.path / "summary.parquet"), sweep.summary)


def test_names_of_columns_do_not_meet():
    """A metric of a lab is no field of it, and no flag of `sweep` is a field."""
    flags = {option.name for option in cli._ABOUT_LAB["sweep"].options}
    for lab in all_labs():
        fields = set(lab.params.fields())
        metrics = {*lab.series, *lab.metrics}
        assert not metrics & {*fields, *LEADING, *IDENTITY, "failed"}, lab.id
        assert not any(name.startswith(("predicted_", "claimed_", "verdict_")) for name in metrics), lab.id
        assert not flags & fields, lab.id


# -- chunks ----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_a_chunk_has_half_a_second_of_work(seconds, impossible):
    costs = {point: (one, 0.0) for point, one in enumerate(seconds) if point not in impossible}
    found = _chunks(costs, len(seconds))
    stops = [stop for stop, _ in found]
    assert stops == sorted(set(stops)) and stops[-1] == len(seconds)
    total = sum(one for one, _ in costs.values())
    assert sum(one for _, one in found) == pytest.approx(total)
    if total < CHUNK_SECONDS:
        assert len(found) == 1
    for start, (stop, told) in zip([0, *stops[:-1]], found, strict=True):
        inside = sum(costs[point][0] for point in range(start, stop) if point in costs)
        assert told == pytest.approx(inside) and (inside >= CHUNK_SECONDS - 1e-9 or len(found) == 1)


def test_a_plan_of_long_runs_has_one_chunk_a_point_and_of_short_ones_one_in_all(lab, small, endless, design):
    assert len(plan_sweep(design).chunks) == 1
    plan = plan_sweep(grid_design(lab, endless, {"n_train": [3, 4, 5]}))
    assert [stop for stop, _ in plan.chunks] == [1, 2, 3] and plan.seconds > 3 * CHUNK_SECONDS and plan.bytes > 0


def test_chunks_leave_no_mark_on_the_table(lab, small, store, monkeypatch):
    """Not even in the order of columns, though algorithms differ in what they measure."""
    design = grid_design(lab, small, {"algorithm": ["gd", "gaussian_noise", "gd_label_noise"], "n_train": [3, 5]})
    whole = run_sweep(plan_sweep(design, claims=True), store=store, name="whole", workers=1)
    monkeypatch.setattr(sweep_module, "CHUNK_SECONDS", 1e-9)
    pieces = run_sweep(plan_sweep(design, claims=True), store=store, name="pieces", workers=1)
    assert len(parts(whole)) == 1 and len(parts(pieces)) == 6 and whole.key == pieces.key
    assert same(whole.table, pieces.table) and same(whole.summary, pieces.summary)


def test_a_sweep_too_large_is_refused_with_its_estimate(lab, small):
    design = grid_design(lab, small, {"data_seed": range(4000), "seed": range(2500)})
    assert len(design) == 10**7
    with pytest.raises(TooLarge, match=r"10,000,000 points and would take about .* on one core; at most 100,000"):
        plan_sweep(design)


# -- where it runs ---------------------------------------------------------------------------------------------


def test_processes_give_the_same_bits_and_a_killed_one_costs_its_chunk(design, store, chunked, swept):
    """One of two workers is killed when the first chunk has come back: every chunk is computed, none is lost."""
    killed = []

    def kill(progress):
        if progress.done and not killed:
            killed.append(next(c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())))
            killed[0].kill()

    found = run_sweep(plan_sweep(design), store=store, name="processes", workers=2, on_progress=kill)
    assert killed and found.complete and found.computed == 6 and found.failures == []
    assert same(found.table, swept.table) and same(found.summary, swept.summary)
    assert [path.name for path in parts(found)] == [path.name for path in parts(swept)], "the files are the same, too"


def test_a_process_lane_tells_a_death_and_starts_again():
    lane = OneProcess()
    try:
        with pytest.raises(BrokenExecutor):
            lane.submit(os._exit, 3).result(60)
        lane.renew()
        assert lane.submit(abs, -3).result(60) == 3
    finally:
        lane.close()


class Deadly(Lane):
    """Computes in this thread, but for a chunk at whose task the worker dies."""

    deaths = (BrokenExecutor,)

    def __init__(self, fatal):
        self.fatal, self.tries, self.renewed = fatal, 0, 0

    def submit(self, function, task):
        future = Future()
        if task.start == self.fatal:
            self.tries += 1
            future.set_exception(BrokenExecutor("it is gone"))
        else:
            future.set_result(function(task))
        return future

    def renew(self):
        self.renewed += 1


class DeadAtTheDoor(Deadly):
    """A worker that is found dead when a chunk is handed to it: once while it holds another, once when it has none."""

    def __init__(self):
        super().__init__(fatal=None)
        self.handed = 0

    def submit(self, function, task):
        self.handed += 1
        if self.handed in (2, 5):
            raise BrokenExecutor("it is gone")
        return super().submit(function, task)


def test_a_worker_found_dead_when_it_is_handed_a_chunk_costs_nothing(design, store, chunked, swept, monkeypatch):
    lane = DeadAtTheDoor()
    monkeypatch.setattr(sweep_module, "open_lanes", lambda *_, **__: (lane,))
    found = run_sweep(plan_sweep(design), store=store, name="door")
    assert found.complete and found.failures == [] and found.computed == 6
    assert lane.renewed == 1, "the executor that still held a chunk was not thrown away with it"
    assert same(found.table, swept.table)


def test_a_chunk_that_kills_its_worker_is_given_up_after_three_tries(design, store, chunked, swept, monkeypatch):
    lane = Deadly(fatal=2)
    with monkeypatch.context() as patched:
        patched.setattr(sweep_module, "open_lanes", lambda *args, **named: (lane,))
        found = run_sweep(plan_sweep(design), store=store, name="deadly")
    assert lane.tries == lane.renewed == 3 and not found.complete and found.computed == 5
    (failure,) = found.failures
    assert failure.point == 2 and failure.values == {"noise_std": 0.5, "n_train": 5}
    assert "ended early, 3 times (it is gone)" in failure.reason
    assert list(found.summary.failed.notna()) == [False, False, True, False, False, False]
    again = run_sweep(plan_sweep(design), store=store, name="deadly", workers=1)
    assert again.complete and again.computed == 1 and again.failures == [] and same(again.table, swept.table)


def test_a_death_on_a_cluster_takes_no_other_chunk_with_it(design, store, chunked, monkeypatch):
    """The scheduler has tried others already: one attempt, and what else is in flight stays there."""
    lane = Deadly(fatal=0)
    lane.breaks, lane.attempts, submitted = False, 1, []
    real = lane.submit
    monkeypatch.setattr(lane, "submit", lambda function, task: submitted.append(task.start) or real(function, task))
    monkeypatch.setattr(sweep_module, "open_lanes", lambda *args, **named: (lane,))
    found = run_sweep(plan_sweep(design), store=store)
    assert sorted(submitted) == list(range(6)) and lane.renewed == 0
    assert [failure.point for failure in found.failures] == [0] and "once" in found.failures[0].reason


@pytest.mark.slow
def test_a_plain_script_without_a_guard_may_sweep(tmp_path):
    """Spawned workers do not import it again. (On the machine's own pool: more than one chunk, two workers.)"""
    script = tmp_path / "plain.py"
    script.write_text(
        textwrap.dedent(
            """
            import sims
            from sims.engine import sweep
            sweep.CHUNK_SECONDS = 1e-9
            found = sims.sweep("label_noise", {"n_train": [3, 4]}, steps=60, dim=8, sparsity=2, workers=2)
            print(len(found.table), found.computed)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=120
    )
    assert done.stdout.split() == ["8", "2"], done.stderr


def test_how_many_lanes_there_are(monkeypatch):
    assert open_lanes(3, None, 0, alone=False) == ()
    for workers, chunks, alone in ((1, 9, False), (4, 1, False), (4, 9, True)):
        (lane,) = open_lanes(workers, None, chunks, alone)
        assert isinstance(lane, Here) and lane.threads == (4 if alone else 1)
        lane.close()
    lanes = open_lanes(3, None, 2, alone=False)
    assert [type(lane) for lane in lanes] == [OneProcess, OneProcess]
    for lane in lanes:
        lane.close()


def test_workers_of_other_code_are_refused(design, store, monkeypatch):
    real = sweep_module._Session._task
    with monkeypatch.context() as patched:
        patched.setattr(sweep_module._Session, "_task", lambda self, chunk: replace(real(self, chunk), source="other"))
        with pytest.raises(ChalklineError, match="A worker runs other code of label_noise"):
            run_sweep(plan_sweep(design), store=store, workers=1)
    assert run_sweep(plan_sweep(design), store=store, workers=1).complete


# -- points that fail ------------------------------------------------------------------------------------------


def test_a_point_that_fails_is_listed_and_the_others_are_kept(lab, small, store, monkeypatch):
    real = lab.simulate

    def sick(params, replicate, monitor):
        if params.n_train == 4:
            raise ZeroDivisionError("no such inverse")
        return real(params, replicate, monitor)

    monkeypatch.setattr(sweep_module, "get_lab", lambda lab_id: replace(lab, simulate=sick))
    design = grid_design(lab, small, {"n_train": [3, 4, 5], "sparsity": [2, 9]})
    sweep = run_sweep(plan_sweep(design), store=store, workers=1)
    assert sweep.complete and [failure.point for failure in sweep.failures] == [1, 2, 3, 5]
    reasons = {failure.point: failure.reason for failure in sweep.failures}
    assert reasons[2] == "ZeroDivisionError: no such inverse" and "so sparsity is at most 8" in reasons[3]
    assert sorted(set(sweep.table.point)) == [0, 4]
    assert list(sweep.summary.failed.isna()) == [True, False, False, False, True, False]
    assert list(sweep.summary.n_train) == [3, 3, 4, 4, 5, 5] and sweep.summary.train_loss_n.tolist() == [
        3,
        0,
        0,
        0,
        3,
        0,
    ]
    assert open_sweep(sweep.name, store).failures == sweep.failures


def test_a_sweep_of_which_every_point_fails_has_an_empty_table(lab, small, store, monkeypatch):
    def sick(params, replicate, monitor):
        raise MemoryError

    monkeypatch.setattr(sweep_module, "get_lab", lambda lab_id: replace(lab, simulate=sick))
    sweep = run_sweep(plan_sweep(grid_design(lab, small, GRID)), store=store, workers=1)
    assert len(sweep.table) == 0 and len(sweep.failures) == len(sweep.summary) == 6


def test_a_design_of_which_no_point_is_possible_is_refused(lab, small):
    with pytest.raises(
        BadInput, match="planar_slope = 2 is not possible: it has a meaning only when covariates is planar"
    ):
        plan_sweep(grid_design(lab, small, {"planar_slope": [2.0, 3.0]}))


# -- the store -------------------------------------------------------------------------------------------------


def test_what_is_stored_is_not_computed_again(design, store, swept):
    before = {path.name: path.stat().st_mtime_ns for path in parts(swept)}
    again = run_sweep(plan_sweep(design), store=store, workers=1)
    assert swept.computed == 6 and again.computed == 0 and same(again.table, swept.table)
    (store.path / "sweeps" / swept.name / "parts" / parts(swept)[3].name).unlink()
    partly = run_sweep(plan_sweep(design), store=store, workers=1)
    assert partly.computed == 1 and same(partly.table, swept.table)
    after = {path.name: path.stat().st_mtime_ns for path in parts(partly)}
    assert before.keys() == after.keys() and sum(before[name] != after[name] for name in before) == 1


def test_only_parts_are_written_and_no_runs(store, swept):
    assert {path.name for path in store.path.iterdir()} <= {"sweeps", "aside"} and not list(store.aside.iterdir())
    assert {path.name for path in swept.path.iterdir()} == {"manifest.json", "parts", "summary.parquet", "lock"}
    manifest = unseal((swept.path / "manifest.json").read_bytes())
    for path in parts(swept):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem[7:] == manifest["parts"][path.name[:6]]
    summary = (swept.path / "summary.parquet").read_bytes()
    assert manifest["files"] == {"summary.parquet": hashlib.sha256(summary).hexdigest()}
    assert manifest["key"] == swept.key and manifest["version"] == swept.lab.version and manifest["state"] == "complete"
    assert manifest["provenance"]["fingerprint"] and manifest["design"]["axes"] == ["noise_std", "n_train"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def swap(path):
    """Another sound part in its place, under its name of the chunk."""
    other = next(one for one in sorted(path.parent.iterdir()) if one != path)
    (path.parent / f"{path.name[:6]}-{other.stem[7:]}.parquet").write_bytes(other.read_bytes())
    path.unlink()


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "swapped": swap,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_reported_and_its_chunk_computed_again(design, store, swept, damage):
    table = swept.table
    DAMAGES[damage](parts(swept)[1])
    hurt = open_sweep(swept.name, store)
    assert not hurt.complete and len(hurt.notices) == 1 and "The part 000001" in hurt.notices[0]
    assert "is damaged" in hurt.notices[0] and sorted(set(hurt.table.point)) == [0, 2, 3, 4, 5]
    healed = run_sweep(plan_sweep(design), store=store, workers=1)
    assert healed.computed == 1 and len(healed.notices) == 1 and same(healed.table, table)
    assert open_sweep(swept.name, store).notices == [] and len(list((store.path / "quarantine").iterdir())) == 1


def test_a_part_that_is_damaged_after_it_was_found_is_not_read(store, swept):
    found = open_sweep(swept.name, store)
    flip(parts(swept)[0])
    with pytest.raises(DamagedRun, match="does not match its SHA-256"):
        _ = found.table


def test_a_damaged_summary_is_written_again(design, store, swept):
    flip(swept.path / "summary.parquet")
    assert run_sweep(plan_sweep(design), store=store, workers=1).computed == 0
    assert same(pd.read_parquet(swept.path / "summary.parquet"), swept.summary)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"schema":1,"manifest_sha256":"0"}'])
def test_a_damaged_manifest_is_one_sentence(design, store, swept, content):
    (swept.path / "manifest.json").write_bytes(content)
    for act in (lambda: open_sweep(swept.name, store), lambda: run_sweep(plan_sweep(design), store=store)):
        with pytest.raises(DamagedRun, match=r"The manifest of the sweep .* is not sound"):
            act()


def test_a_form_of_another_time_is_not_read(store, swept):
    reseal(swept.path / "manifest.json", schema=99)
    with pytest.raises(StoreError, match="has the form 99, and this software reads form 1"):
        open_sweep(swept.name, store)


def test_a_sweep_of_an_older_version_says_so(store, swept):
    reseal(swept.path / "manifest.json", version=swept.lab.version - 1)
    with pytest.raises(BadInput, match="is now at version"):
        open_sweep(swept.name, store)


def test_a_full_disk_keeps_what_is_complete(design, store, chunked, monkeypatch):
    real, written = store_module.write_synced, []

    def filling(path, content):
        if path.suffix == ".parquet":
            written.append(path)
        if len(written) > 3:
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_synced", filling)
        with pytest.raises(
            StoreError, match=r"\(the disk is full\); 3 of its 6 parts are kept.*the same command resumes"
        ):
            run_sweep(plan_sweep(design), store=store, workers=1)
    found = run_sweep(plan_sweep(design), store=store, workers=1)
    assert found.computed == 3 and found.complete


def test_a_store_that_cannot_be_written_is_one_sentence(design):
    with pytest.raises(StoreError, match="cannot be written to /proc/chalkline"):
        run_sweep(plan_sweep(design), store=Store("/proc/chalkline"), workers=1)


# -- names -----------------------------------------------------------------------------------------------------


def test_a_name_goes_on_with_its_sweep_and_takes_no_other_design(lab, small, design, store, chunked):
    named = run_sweep(plan_sweep(design), store=store, name="first", workers=1)
    assert named.path == store.path / "sweeps" / "first"
    parts(named)[0].unlink()
    assert run_sweep(None, store=store, name="first", lab=lab, workers=1).computed == 1
    others = {
        "noise_schedule = constant, not anneal": choose_design(lab, small.replace(noise_schedule="anneal"), GRID, None),
        r"axes \['noise_std', 'n_train'\], not \['n_train'\]": grid_design(lab, small, {"n_train": [3]}),
        "has other points": grid_design(lab, small, {**GRID, "n_train": [3, 4, 6]}),
    }
    for words, other in others.items():
        with pytest.raises(BadInput, match=f"name = first is not possible: the sweep of that name .*{words}"):
            run_sweep(plan_sweep(other), store=store, name="first")
    with pytest.raises(BadInput, match="has claims False, not True"):
        run_sweep(plan_sweep(design, claims=True), store=store, name="first")


@pytest.mark.parametrize("name", ["", "../runs", "a/b", ".hidden", "a" * 101, "a b", "ä"])
def test_a_wrong_name_is_one_sentence(design, store, name):
    with pytest.raises(BadInput, match="at most 100 letters, digits, dots, dashes and underscores"):
        run_sweep(plan_sweep(design), store=store, name=name)


def test_an_unknown_name_lists_the_known(store, swept):
    with pytest.raises(UnknownName, match=f"There is no stored sweep 'other'. Known: {swept.name[:12]}"):
        run_sweep(None, store=store, name="other")
    assert open_sweep(swept.name[:8], store).name == swept.name


def test_two_processes_do_not_compute_one_sweep(design, store, swept):
    parts(swept)[0].unlink()
    with (
        open_sweep(swept.name, store).folder.locked(),
        pytest.raises(BadInput, match="Another process is computing the sweep"),
    ):
        run_sweep(plan_sweep(design), store=store, workers=1)
    assert run_sweep(plan_sweep(design), store=store, workers=1).computed == 1


# -- progress and pause ----------------------------------------------------------------------------------------


def test_progress_rises_to_the_end(design, store, chunked):
    told = []
    run_sweep(plan_sweep(design), store=store, workers=1, on_progress=told.append)
    assert told[0].done == 0 and told[0].seconds_left is None and {one.points for one in told} == {6}
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert told[-1].done == 6 and told[-1].fraction == pytest.approx(1) and told[-1].seconds_left == pytest.approx(0)


def test_a_sweep_is_paused_from_another_thread_and_goes_on(design, store, chunked, swept):
    cancel = threading.Event()

    def after_two(progress):
        if progress.done >= 2:
            cancel.set()

    with pytest.raises(Paused, match=r"Paused: [2-5] of 6 points are kept in .*other\. The same command goes on\."):
        run_sweep(plan_sweep(design), store=store, name="other", workers=1, on_progress=after_two, cancel=cancel)
    half = open_sweep("other", store)
    done = set(half.table.point)
    assert 2 <= len(done) < 6 and not half.complete and half.folder.manifest["state"] == "running"
    assert same(pd.read_parquet(half.path / "summary.parquet"), half.summary)
    whole = run_sweep(None, store=store, name="other", workers=1)
    assert whole.computed == 6 - len(done) and same(whole.table, swept.table)


def test_a_kernel_in_this_process_is_stopped_by_a_pause(lab, endless, store, monkeypatch):
    monkeypatch.setattr(sweep_module, "GRACE_SECONDS", 0.1)
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Paused, match="Paused: 0 of 2 points"):
        run_sweep(plan_sweep(grid_design(lab, endless, {"n_train": [3, 5]})), store=store, workers=1, cancel=cancel)
    assert not [one for one in threading.enumerate() if one.name.startswith("chalkline-sweep")]


# -- one point -------------------------------------------------------------------------------------------------


def test_a_point_is_found_by_its_key_and_run_again(lab, store, swept):
    row = swept.table.iloc[7]
    point = find_point(row.key[:10], store)
    assert (point.sweep.name, point.point, point.key) == (swept.name, row.point, row.key)
    assert point.params.noise_std == row.noise_std and point.params.n_train == row.n_train
    checked = check_point(point)
    assert checked.same_bits and checked.agrees and checked.grade == "A" and "bit for bit" in checked.sentence
    assert checked.run.trace.replicate_sha256[row.replicate] == row.replicate_sha256
    assert store.keys() == [] and check_point(point, store=store).same_bits and store.keys() == [row.key]


def test_a_point_that_differs_is_told(store, swept):
    point = find_point(swept.table.key[0], store)
    wrong = check_point(replace(point, replicate_sha256=("0" * 64,) * 3))
    assert not wrong.agrees and wrong.grade == "A" and "NOT the bits" in wrong.sentence
    elsewhere = check_point(replace(point, replicate_sha256=("0" * 64,) * 3, fingerprint={"cpu": "another"}))
    assert elsewhere.agrees and elsewhere.grade == "B" and not elsewhere.same_bits


@pytest.mark.parametrize("key", ["", "abc", "0" * 64, "not a key"])
def test_an_unknown_key_is_one_sentence(store, swept, key):
    with pytest.raises(UnknownName, match="There is no point of a stored sweep"):
        find_point(key, store)


# -- theory alone ----------------------------------------------------------------------------------------------


def test_predictions_alone_simulate_nothing(lab, design, store, monkeypatch):
    def never(*arguments):
        raise AssertionError("simulated")

    monkeypatch.setattr(sweep_module, "get_lab", lambda lab_id: replace(lab, simulate=never))
    monkeypatch.setattr(OneProcess, "_open", never)
    sweep = run_sweep(plan_sweep(design, theory_only=True), store=store, workers=4)
    assert sweep.failures == [] and len(sweep.table) == 6 and sweep.theory_only
    for row in sweep.table.to_dict("records"):
        ends = predict(lab, design.params(row["point"])).ends()
        told = [row[f"predicted_{name}"] for name in ends]
        np.testing.assert_allclose(told, [end.value for end in ends.values()], rtol=1e-6, atol=1e-9)
        assert [row[f"claimed_{name}"] for name in ends] == [end.claimed for end in ends.values()]
    assert list(sweep.summary.point) == list(range(6)) and "train_loss_mean" not in sweep.summary
    with pytest.raises(UnknownName):
        find_point(sweep.table.key[0], store)
    with pytest.raises(BadInput, match="judged on simulations"):
        plan_sweep(design, claims=True, theory_only=True)


def test_the_theory_of_many_points_is_asked_for_once_and_again_for_fewer_where_it_raises(
    lab, small, store, monkeypatch
):
    """Sixteen points of which one fails: all, then the halves that hold it; the others are kept."""
    asked = []

    def predict_ends(points):
        asked.append(len(points))
        if any(params.noise_std == 5.0 for params in points):
            raise ArithmeticError("no end")
        return lab.predict_ends(points)

    monkeypatch.setattr(sweep_module, "get_lab", lambda lab_id: replace(lab, predict_ends=predict_ends))
    design = grid_design(lab, small, {"noise_std": [float(i) for i in range(1, 17)]})
    sweep = run_sweep(plan_sweep(design, theory_only=True), store=store, workers=1)
    assert asked == [16, 8, 4, 4, 2, 1, 1, 2, 8]
    assert [(one.point, one.reason) for one in sweep.failures] == [(4, "ArithmeticError: no end")]
    assert list(sweep.table.point) == [point for point in range(16) if point != 4]


def test_a_lab_without_a_way_of_its_own_is_asked_run_by_run(lab, design, store, monkeypatch):
    plain = replace(lab, predict_ends=None)
    monkeypatch.setattr(sweep_module, "get_lab", lambda lab_id: plain)
    sweep = run_sweep(plan_sweep(replace(design, lab=plain), theory_only=True), store=store, workers=1)
    for row in sweep.table.to_dict("records"):
        for name, end in predict(lab, design.params(row["point"])).ends().items():
            np.testing.assert_array_equal(row[f"predicted_{name}"], end.value, err_msg=name)


# -- from Python and the command line --------------------------------------------------------------------------

SMALL = {"steps": 60, "dim": 8, "sparsity": 2}
FLAGS = ["label_noise", "--steps", "60", "--dim", "8", "--sparsity", "2", "--replicates", "3"]
AXES = ["--grid", "n_train=3,4,5", "--grid", "noise_std=0.5:1:2"]


def environment(**more):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        **more,
    }


def test_from_python(store):
    sweep = sims.sweep("label_noise", {"n_train": [3, 4]}, replicates=3, **SMALL)
    assert len(sweep.table) == 6 and len(sweep.summary) == 2 and sweep.path.parent == store.path / "sweeps"
    listed = sims.sweep("label_noise", points=[{"n_train": 3}, {"n_train": 4}], name="listed", replicates=3, **SMALL)
    assert same(listed.table, sweep.table) and sims.sweep("label_noise", name="listed").computed == 0
    assert sims.open_sweep("listed").complete and sims.sweep_point(sweep.table.key[0]).same_bits
    table = sims.sweeps()
    assert set(table.name) == {"listed", sweep.name} and set(table.points) == set(table.done) == {2}
    for wrong in ({}, {"name": "listed", "steps": 3}, {"name": "listed", "claims": True}):
        with pytest.raises(BadInput, match="A sweep needs an axis"):
            sims.sweep("label_noise", **wrong)
    with pytest.raises(BadInput, match="of label_noise, not of xor_grokking"):
        sims.sweep("xor_grokking", name="listed")


def test_the_command_line_and_python_mean_the_same(call, store):
    code, out, err = call("sweep", *FLAGS, *AXES)
    assert code == 0 and "6 points, 0 failed" in out and "6 points in 1 chunk: about" in err and "100 %" in err
    sweep = sims.sweep("label_noise", {"n_train": [3, 4, 5], "noise_std": [0.5, 1.0]}, replicates=3, **SMALL)
    assert sweep.computed == 0 and "(stored)" in call("sweep", *FLAGS, *AXES)[1]
    code, out, err = call("sweep", *FLAGS, *AXES, "--json", "--workers", "1")
    found = json.loads(out)
    assert code == 0 and err == "" and found["key"] == sweep.key and len(found["summary"]) == found["points"] == 6
    assert found["axes"] == ["n_train", "noise_std"] and found["failures"] == [] and found["computed_chunks"] == 0


def test_failed_points_are_listed_and_the_exit_code_is_1(call):
    code, out, err = call("sweep", "label_noise", "--steps", "60", "--dim", "8", "--grid", "sparsity=2,9")
    assert code == 1 and "2 points, 1 failed" in out
    assert "1 of 2 points failed; the others are kept.\npoint 1 (sparsity = 9): sparsity = 9 is not possible" in err
    code, out, _ = call("sweep", "label_noise", "--steps", "60", "--dim", "8", "--grid", "sparsity=2,9", "--json")
    assert code == 1 and [one["point"] for one in json.loads(out)["failures"]] == [1]


def test_points_from_a_file(call, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("n_train,noise_std\n3,0.5\n4,\n")
    code, out, _ = call("sweep", *FLAGS, "--points", path, "--name", "file", "--json")
    assert code == 0 and [row["noise_std"] for row in json.loads(out)["summary"]] == [0.5, 1.0]
    assert call("sweep", "label_noise", "--name", "file")[0] == 0


def test_predictions_and_verdicts_from_the_command_line(call):
    code, out, _ = call("sweep", *FLAGS, *AXES, "--theory-only")
    assert code == 0 and "predicted_test_error" in out
    code, out, _ = call("sweep", *FLAGS, *AXES, "--claims")
    assert code == 0 and "verdict_conserved" in out and "holds" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "A sweep needs an axis"),
        (("--grid", "n_trian=3"), "Did you mean 'n_train'"),
        (("--grid", "n_train="), "an axis needs values"),
        (("--grid", "n_train=3", "--grid", "n_train=4"), "n_train is an axis already"),
        (("--grid", "steps=60,70"), "it is an axis and set for all points"),
        (("--grid", "planar_slope=1,2"), "it has a meaning only when covariates is planar"),
        (("--grid", "data_seed=0:99999:10000", "--grid", "seed=1:1000:1000"), "10,000,000 points and would take about"),
        (("--grid", "n_train=3", "--points", "x.csv"), "a grid or points, not both"),
        (("--points", "missing.csv"), "it cannot be read (No such file or directory)"),
        (("--grid", "n_train=3", "--workers", "0"), "workers = 0 is not possible"),
        (("--grid", "n_train=3", "--workers", "two"), "it must be a whole number from 1"),
        (("--grid", "n_train=3", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "Leave one of both out"),
        (("--grid", "n_train=3", "--scheduler", "here"), "it must be tcp://HOST:PORT"),
        (
            ("--grid", "n_train=3", "--scheduler", "tcp://127.0.0.1:9"),
            "no scheduler answers there (Connection refused)",
        ),
        (("--grid", "n_train=3", "--name", "../up"), "at most 100 letters"),
        (("--grid", "n_train=3", "--preset", "none"), "There is no preset"),
        (("--name", "none"), "There is no stored sweep 'none'"),
        (("--grid", "n_train=3", "--claims", "--theory-only"), "judged on simulations"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(call, store, arguments, words):
    code, out, err = (
        call("sweep", *FLAGS, *arguments)
        if arguments != ("--name", "none")
        else call("sweep", "label_noise", *arguments)
    )
    assert code == 2 and out == "" and words in err and "Traceback" not in err and err.count("\n") <= 2
    assert not (store.path / "sweeps").exists()


def test_a_scheduler_in_the_environment_is_used(call, monkeypatch):
    monkeypatch.setenv("CHALKLINE_SCHEDULER", "tcp://127.0.0.1:9")
    assert "no scheduler answers there" in call("sweep", *FLAGS, *AXES)[2]
    assert call("sweep", *FLAGS, *AXES, "--workers", "1")[0] == 0


def test_show_runs_a_point_again(call, swept, store, made):
    code, out, _ = call("show", swept.table.key[0][:12])
    assert code == 0 and "bit for bit what the sweep" in out and swept.table.trace_sha256[0] in out
    code, out, err = call("show", swept.table.key[0], "--json")
    assert code == 0 and err == "" and json.loads(out)["sweep"]["agrees"] is True
    code, _, err = call("show", "0123456789")
    assert code == 2 and "There is no stored run" in err
    store.put(made)
    assert call("show", made.key)[0] == 0


def test_show_of_a_point_that_differs_has_exit_code_1(call, swept, monkeypatch):
    from sims.engine import sweep_points

    real = sweep_points.find_point
    monkeypatch.setattr(sweep_points, "find_point", lambda *a: replace(real(*a), replicate_sha256=("0" * 64,) * 3))
    code, out, err = call("show", swept.table.key[0])
    assert code == 1 and "NOT the bits" in out and "differs from the table" in err


def test_sweeps_are_listed_and_verified(call, swept):
    assert call("sweeps", "--json")[0] == 0 and swept.name[:12] in call("sweeps")[1]
    code, out, _ = call("verify")
    assert code == 0 and "1 of 1 sweeps sound." in out
    flip(parts(swept)[2])
    code, out, err = call("verify")
    assert code == 1 and "0 of 1 sweeps sound." in out and "The part 000002" in err
    code, out, err = call("verify", "--json")
    assert code == 1 and "is gone" in json.loads(out)[f"sweeps/{swept.name}"]


def test_no_sweeps_are_listed_as_none(call):
    assert call("sweeps")[:2] == (0, "") and json.loads(call("sweeps", "--json")[1]) == []
