"""What tests of jobs share: waiting for one, and a look at one that has ended."""

import time

import numpy as np


def until(condition):
    """Wait for something that must come; the test's own timeout is the bound."""
    while not condition():
        time.sleep(0.005)


def assert_computed(jobs, job, made, store):
    """The one job of these jobs ended as the run that was made: returned, watched and stored alike."""
    run = job.result(120)
    assert run.trace_sha256 == made.trace_sha256 and run.metrics == made.metrics
    assert (job.state, job.progress, job.notice, jobs.computed) == ("done", 1.0, "", 1)
    steps, series = job.partial()
    np.testing.assert_array_equal(steps, run.trace.step)
    for name, values in series.items():
        np.testing.assert_array_equal(values, run.trace.series[name])
    assert store.find(run.key).trace.sha256 == run.trace_sha256
