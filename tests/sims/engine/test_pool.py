"""Pools: replicates stored in many runs are the trace of one run, and two that differ are noticed."""

from dataclasses import replace

import numpy as np
import pytest

from sims.engine import execute
from sims.engine.errors import ReproducibilityAlarm
from sims.engine.execute import Run
from sims.engine.pool import Family


def one_of(lab, small, number, replicates=1):
    return small.replace(first_replicate=number, replicates=replicates)


@pytest.fixture
def apart(lab, small, store):
    """Replicates 0 to 4, each in a stored run of its own but for 2 and 3, in no order."""
    for number, replicates in ((4, 1), (0, 1), (2, 2), (1, 1)):
        execute(lab, one_of(lab, small, number, replicates), store=store)
    return store


def altered(run: Run) -> Run:
    """The run as a machine that computes wrongly would hand it in."""
    series = {name: values.copy() for name, values in run.trace.series.items()}
    next(iter(series.values()))[0, -1] += 1e-12
    return replace(run, trace=replace(run.trace, series=series))


def test_a_pool_is_bit_for_bit_the_one_run_that_holds_all_of_it(lab, small, apart):
    pool = Family(apart, lab, small).pool()
    together = execute(lab, one_of(lab, small, 0, 5))
    assert pool.numbers == (0, 1, 2, 3, 4) and pool.is_gapless
    assert pool.as_one == together.params
    assert pool.trace.sha256 == together.trace_sha256
    assert pool.trace.replicate_sha256 == together.trace.replicate_sha256
    found = pool.run()
    assert found.key == together.key and found.metrics == together.metrics
    assert [claim.as_dict() for claim in found.claims] == [claim.as_dict() for claim in together.claims]


def test_a_pool_takes_in_what_is_stored_later(lab, small, apart):
    family = Family(apart, lab, small)
    first = family.pool()
    assert family.pool() is first, "nothing new, nothing done"
    execute(lab, one_of(lab, small, 7), store=apart)
    later = family.pool(catch_up=False)
    assert later.numbers == (0, 1, 2, 3, 4, 7) and not later.is_gapless
    with pytest.raises(ValueError, match="gaps"):
        later.run()
    np.testing.assert_array_equal(
        later.trace.series["train_loss"][5], execute(lab, one_of(lab, small, 7)).trace.series["train_loss"][0]
    )


def test_runs_of_other_families_stay_out(lab, small, store):
    execute(lab, small.replace(seed=small.seed + 1), store=store)
    execute(lab, small.replace(steps=small.steps + 1), store=store)
    assert Family(store, lab, small).pool() is None


def test_the_lowest_numbers_are_pooled_where_there_are_too_many(lab, small, apart):
    assert Family(apart, lab, small, most=3).pool().numbers == (0, 1, 2)


def test_the_index_may_be_deleted_meanwhile(lab, small, apart):
    family = Family(apart, lab, small)
    family.pool()
    for file in apart.path.glob("index.sqlite*"):
        file.unlink()
    assert len(family.pool(catch_up=False).numbers) == 5
    assert len(Family(apart, lab, small).pool().numbers) == 5


def test_a_replicate_computed_twice_is_counted_once(lab, small, apart):
    execute(lab, one_of(lab, small, 1, 2), store=apart)
    assert Family(apart, lab, small).pool().numbers == (0, 1, 2, 3, 4)


def test_a_replicate_that_differs_raises_the_alarm(lab, small, apart):
    apart.put(altered(execute(lab, one_of(lab, small, 1, 3))))
    with pytest.raises(ReproducibilityAlarm, match="Replicate 1 was computed twice"):
        Family(apart, lab, small).pool()


def test_another_machine_may_differ_and_the_first_replicate_stays(lab, small, apart):
    run = altered(execute(lab, one_of(lab, small, 1, 3)))
    elsewhere = {**run.provenance, "fingerprint": {**run.provenance["fingerprint"], "cpu": "another one"}}
    apart.put(replace(run, provenance=elsewhere))
    assert Family(apart, lab, small).pool().numbers == (0, 1, 2, 3, 4)


def test_a_damaged_run_is_left_out(lab, small, apart):
    key = execute(lab, one_of(lab, small, 4)).key
    (apart.path / "runs" / key[:2] / key / "series.parquet").write_bytes(b"broken")
    assert Family(apart, lab, small).pool().numbers == (0, 1, 2, 3)
