"""A kernel that raises, and one whose numbers turn to NaN midway: a sentence and a result, and nothing is lost."""

import dataclasses
import json

import numpy as np
import pytest

from sims.engine import ChalklineError, cli, execute
from sims.engine import jobs as jobs_module
from sims.engine.jobs import Jobs
from sims.engine.sweep import plan_sweep, run_sweep
from tests.faults import broken


@pytest.mark.parametrize("limit", [1e9, 0.0])
def test_a_kernel_that_raises_is_one_sentence_for_the_page_and_the_server_goes_on(
    lab, small, made, store, monkeypatch, limit
):
    """In a thread and in a process; what is stored stays, and the next run is computed."""
    monkeypatch.setattr(jobs_module, "THREAD_SECONDS", limit)
    monkeypatch.setattr(jobs_module, "_worker", broken.worker)
    store.put(made[1])
    jobs = Jobs(store)
    job = jobs.submit(broken.raising(lab), small)
    with pytest.raises(ChalklineError, match="index 3 is out of bounds") as error:
        job.result(120)
    assert "\n" not in str(error.value) and job.state == "failed"
    assert store.verify() == {made[1].key: None}
    monkeypatch.undo()
    assert jobs.submit(lab, small).result(60).trace_sha256 == made[0].trace_sha256


def test_a_kernel_that_raises_at_some_points_costs_a_sweep_these_points(lab, small, store, monkeypatch):
    from sims.engine import sweep
    from sims.engine.design import grid_design

    def at_two(params, replicate, monitor):
        if params.noise_std == 2.0:
            raise IndexError("index 3 is out of bounds")
        return lab.simulate(params, replicate, monitor)

    monkeypatch.setattr(sweep, "get_lab", lambda lab_id: dataclasses.replace(lab, simulate=at_two))
    found = run_sweep(plan_sweep(grid_design(lab, small, {"noise_std": [1.0, 2.0, 3.0]})), store=store, workers=1)
    assert [failure.point for failure in found.failures] == [1] and "IndexError" in found.failures[0].reason
    assert found.complete and set(found.table["point"]) == {0, 2}


TURNED = 25


@pytest.fixture
def turning(lab):
    """A lab of which the second replicate's loss is NaN from the 25th recorded step on, and it does not notice."""

    def simulate(params, replicate, monitor):
        found = lab.simulate(params, replicate, monitor)
        if replicate == 1:
            monitor.records[list(lab.series).index("train_loss"), TURNED:] = np.nan
        return found

    return dataclasses.replace(lab, simulate=simulate)


def test_numbers_that_turn_to_nan_midway_are_a_stop_and_never_a_number(turning, small, made, store):
    run = execute(turning, small, store=store)
    first, second = run.trace.stopped
    assert first is None and second.step == run.trace.step[TURNED]
    assert second.reason == "train_loss is not a number from here on"
    for values in run.trace.series.values():
        assert np.isnan(values[1, TURNED:]).all() and not np.isnan(values[0]).any()
    assert run.trace.replicate_sha256[0] == made[0].trace.replicate_sha256[0], "the other is what it was"
    assert run.diverged == 1 and run.metrics["train_loss"].n == 1
    json.loads(json.dumps(run.as_dict(), allow_nan=False))
    assert all(verdict.verdict in ("holds", "fails", "outside", "undecided") for verdict in run.claims)
    again = store.find(run.key)
    assert again.trace.stopped == run.trace.stopped and again.trace.sha256 == run.trace_sha256


def test_the_command_line_says_that_it_stopped(turning, small, monkeypatch, capsys):
    monkeypatch.setattr(cli, "get_lab", lambda lab_id: turning)
    words = [w for name, text in small.texts().items() for w in (f"--{name.replace('_', '-')}", text)]
    assert cli.main(["run", "label_noise", *words]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 replicates diverged, the first at step" in out and "nan" not in out.lower()


def test_a_series_that_is_absent_altogether_or_comes_later_is_no_stop(lab, small):
    """A quantity may have no value in a run, or none at its start."""

    def simulate(params, replicate, monitor):
        found = lab.simulate(params, replicate, monitor)
        names = list(lab.series)
        monitor.records[names.index("train_loss")] = np.nan
        monitor.records[names.index("test_error"), :TURNED] = np.nan
        monitor.records[names.index("test_error"), TURNED + 2] = np.nan
        return found

    assert execute(dataclasses.replace(lab, simulate=simulate), small).trace.stopped == (None, None)
