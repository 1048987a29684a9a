"""`execute`: what it returns, what it refuses, and that stopping it leaves nothing behind."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from sims.engine import Cancelled, Metric, RunMonitor, execute, predict
from sims.engine.execute import summarize
from sims.engine.keys import run_key


def test_a_run_carries_what_it_rests_on(lab, small, made):
    assert (made.lab, made.version, made.key, made.cached) == (lab.id, lab.version, run_key(lab, small), False)
    assert made.trace_sha256 == made.trace.sha256 and made.provenance["params"] == small.active()
    assert made.diverged == 0 and made.wall_s > 0
    assert made.metrics["train_loss"].n == small.replicates
    for name, series in made.trace.series.items():
        assert made.metrics[name].mean == pytest.approx(np.mean(series[:, -1]), rel=1e-12)


def test_the_stored_run_comes_back_as_it_was(lab, small, store, made):
    first = execute(lab, small, store=store)
    again = execute(lab, small, store=store)
    assert (first.cached, again.cached) == (False, True)
    assert again.trace_sha256 == first.trace_sha256 == made.trace_sha256
    assert again.metrics == first.metrics and again.provenance == first.provenance
    assert execute(lab, small, store=store, fresh=True).cached is False
    assert store.keys() == [first.key]


def test_the_prediction_alone_is_that_of_the_run(lab, small, made):
    alone = predict(lab, small)
    assert alone.prediction.keys() == made.prediction.prediction.keys()
    for name, value in alone.prediction.items():
        np.testing.assert_array_equal(
            np.array(value, dtype=float), np.array(made.prediction.prediction[name], dtype=float)
        )


@pytest.mark.parametrize(
    ("values", "metric"),
    [
        ([1.0, 3.0], Metric(2.0, 1.0, 2)),
        ([1.0, np.nan, 3.0, np.inf], Metric(2.0, 1.0, 2)),
        ([5.0], Metric(5.0, None, 1)),
        ([np.nan], Metric(None, None, 0)),
    ],
)
def test_a_metric_is_the_mean_over_what_is_finite(values, metric):
    assert summarize(np.array(values)) == metric


def test_progress_ends_at_one(lab, small):
    seen: list[float] = []
    execute(lab, small, on_progress=seen.append)
    assert seen[-1] == 1.0 and seen == sorted(seen)


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_a_cancelled_run_is_stopped_and_not_kept(lab, endless, store, workers):
    monitor = RunMonitor.allocate(lab, endless)
    failures: list[BaseException] = []

    def work():
        try:
            execute(lab, endless, store=store, workers=workers, monitor=monitor)
        except Cancelled as stopped:
            failures.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    while not np.any(monitor.progress):
        time.sleep(0.002)
    monitor.cancel[0] = 1
    thread.join()
    assert len(failures) == 1 and "nothing of it was kept" in str(failures[0])
    assert np.all(monitor.progress < endless.steps) and store.keys() == []


def test_a_monitor_already_cancelled_computes_nothing(lab, endless):
    monitor = RunMonitor.allocate(lab, endless)
    monitor.cancel[0] = 1
    with pytest.raises(Cancelled):
        execute(lab, endless, monitor=monitor)
    assert not np.any(monitor.progress)


def test_the_replicates_that_wait_are_not_begun_once_a_run_is_cancelled(lab, small):
    params = small.replace(replicates=50)
    monitor, begun = RunMonitor.allocate(lab, params), []

    def simulate(params, replicate, one):
        begun.append(replicate)
        one.cancel[0] = 1
        return lab.simulate(params, replicate, one)

    with pytest.raises(Cancelled, match="nothing of it was kept"):
        execute(dataclasses.replace(lab, simulate=simulate), params, monitor=monitor, workers=1)
    assert begun == [0]


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failure_in_one_replicate_stops_the_others(lab, endless, store, failure):
    monitor = RunMonitor.allocate(lab, endless)

    def simulate(params, replicate, one):
        if replicate == 1:
            while not monitor.progress[0]:
                time.sleep(0.002)
            raise failure
        return lab.simulate(params, replicate, one)

    with pytest.raises(type(failure)):
        execute(dataclasses.replace(lab, simulate=simulate), endless, store=store, workers=2, monitor=monitor)
    assert 0 < monitor.progress[0] < endless.steps and store.keys() == []


@pytest.mark.parametrize("steps", [np.arange(401), np.arange(1, 10)])
def test_a_lab_that_records_too_much_or_not_the_start_is_refused(lab, small, steps):
    with pytest.raises(ValueError, match="at most 400, from 0"):
        execute(dataclasses.replace(lab, recorded_steps=lambda params: steps), small)


def test_a_lab_that_returns_too_many_frames_is_refused(lab, small):
    def simulate(params, replicate, monitor):
        return dataclasses.replace(lab.simulate(params, replicate, monitor), frame_step=np.arange(121))

    with pytest.raises(ValueError, match="more than 120 frames"):
        execute(dataclasses.replace(lab, simulate=simulate), small)


def test_a_bug_in_the_theory_does_not_reach_the_trace(lab, small, made):
    other = dataclasses.replace(lab, derive=lambda params, trace, prediction: {"decay_rate": np.zeros(3)})
    assert execute(other, small).trace_sha256 == made.trace_sha256
