"""Benchmarks compare only what is equal, say which goals are missed, and measure nothing that was remembered."""

import importlib.util
import json
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import contest, machine, report, rivals, waiting
from benchmarks.contest import OURS, Different, Limit
from benchmarks.report import Goal, Measure, Row, Section
from sims.engine import execute, get_lab, lab_ids


def counting(found, value=1.0):
    """Work that notes how many units were asked for."""

    def run(count):
        found.append(count)
        return np.full(3, value)

    return run


def test_benchmarks_of_labs_are_found():
    assert {"label_noise", "xor_grokking", "linear_attention", "augmentation_graph"} <= set(bench.of_labs())
    assert set(bench.of_labs()) <= set(lab_ids())
    assert all(callable(bench.module(name).measure) for name in (*bench.of_labs(), *bench.COMMON))


def test_contenders_are_checked_before_they_are_timed():
    calls = []
    with pytest.raises(Different, match="rival differs from ours by"):
        makers = {OURS: lambda: counting([], 2.0), "rival": lambda: counting(calls)}
        contest.contest("work", "steps/s", makers, check=7, tolerance=0.1)
    assert calls == [7], "nothing but the units of the check was computed"


def test_what_draws_other_numbers_is_compared_with_its_own_kind():
    makers = {
        OURS: lambda: counting([], 2.0),
        "ours, otherwise": lambda: counting([], 5.0),
        "rival": lambda: counting([], 5.0),
    }
    against = {"ours, otherwise": "ours, otherwise", "rival": "ours, otherwise"}
    rows = contest.contest(
        "work", "steps/s", makers, check=1, tolerance=0.1, against=against, single=True, rounds=2,
        limits=Limit("what there is", 1e9),
    )  # fmt: skip
    assert [row.difference for row in rows] == [None, None, 0.0]
    assert all(row.throughput > 0 and 0 < row.fraction < 1 and row.bytes >= 0 for row in rows)
    assert rows[0].ratio == 1.0 and contest.best_ratio(rows, "work", "rival") == rows[2].ratio


def test_the_growth_of_memory_is_that_of_the_peak():
    """In a process of its own: a long-lived one may hold free memory enough."""
    code = """
import numpy as np
from benchmarks.contest import memory_growth
print(memory_growth(lambda: np.ones(8_000_000).sum())[1], memory_growth(lambda: None)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=report.ROOT, check=True, capture_output=True, text=True)
    grown, nothing = map(float, done.stdout.split())
    assert grown >= 0.9 * 64e6
    assert nothing < 4e6, "what was used before is forgotten"


def test_one_core_is_given_back():
    import os

    before = os.sched_getaffinity(0)
    with contest.one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_the_exponent_is_that_of_the_cost(monkeypatch):
    monkeypatch.setattr(contest, "rate_of", lambda run, *_: run)
    found = contest.growth("work", "n", (10, 20, 40), 3, lambda n: 1.0 / (0.5 * n**3))
    assert found.exponent == pytest.approx(3.0)


def test_a_library_that_is_missing_is_named_once(monkeypatch):
    monkeypatch.setattr(rivals, "has_jax", lambda: False)
    monkeypatch.setattr(rivals, "has_compiler", lambda: False)
    notes = []
    makers = {"NumPy": 1, "torch": 2, "torch, compiled": 3, "JAX, n-free": 4}
    for _ in range(2):
        assert set(rivals.available(makers, notes)) == {"NumPy", "torch"}
    assert notes == [rivals.NO_COMPILER, rivals.NO_JAX]


def test_jax_alone_is_left_to_those_who_measure():
    """Nobody else installs it: it is in no other list, and importing the benchmarks does not need it."""
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-cluster.txt", "requirements-image.lock"):
        assert not any(line.startswith("jax==") for line in (report.ROOT / name).read_text().splitlines())
    if importlib.util.find_spec("jax") is None:
        with pytest.raises(ModuleNotFoundError):
            _ = rivals.jax


def section(*goals):
    row = Row("a step", "rival", 12345.6, "steps/s", 2.5, 1e-12, "dgemm", 0.25, 3e6)
    return Section("A lab", "About it.", [row], [], [Measure("seen", 3.0, "s")], list(goals), ["A note."])


def test_a_missed_goal_fails_the_whole_and_says_why(monkeypatch, capsys):
    met, missed = Goal("fast", 9.0, 8.0), Goal("small", 9.0, 8.0, at_most=True, reason="Profiled: it is large.")
    for name in bench.COMMON:
        monkeypatch.setattr(bench.module(name), "measure", lambda: section(met))
    monkeypatch.setattr(bench, "of_labs", lambda: [])
    written = []
    monkeypatch.setattr(report, "write", lambda sections, found: written.append(len(sections)))
    monkeypatch.setattr(machine, "at_once", lambda processes: 1.5)
    monkeypatch.setattr(machine, "describe", lambda shared: {"cpu": "a processor", "limits": "none"})
    assert bench.main() == 0
    monkeypatch.setattr(waiting, "measure", lambda: section(met, missed))
    assert bench.main() == 1
    assert "**missed**. Profiled: it is large." in capsys.readouterr().out
    assert written == [len(bench.COMMON)] * 2
    assert bench.main(["waiting"]) == 1 and len(written) == 2, "a part is printed, not written"
    assert bench.main(["nothing"]) == 2
    assert "there are: replicates" in capsys.readouterr().err


def test_the_report_is_for_people_and_for_programs(tmp_path):
    head = {"date": "2026-01-01", "cpu": "a processor", "cores": 2, "software": "numpy", "load": 0.5, "limits": "None"}
    page = tmp_path / "benchmarks.md"
    report.write([section(Goal("fast", 9.0, 8.0))], head, page)
    text = page.read_text(encoding="utf-8")
    for words in ("**1 of 1 goals met.**", "## A lab", "12,346 steps/s", "2.5 ×", "25 % of dgemm", "A note."):
        assert words in text
    found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert found["sections"][0]["goals"] == [
        {"what": "fast", "value": 9.0, "bound": 8.0, "at_most": False, "reason": "", "met": True}
    ]


def test_contenders_of_every_lab_compute_the_same_thing():
    """At the smallest sizes, and without the libraries that take long to load."""
    from benchmarks import label_noise, linear_attention, xor_grokking

    for rule, (rivals_of, _) in label_noise.RULES.items():
        ours = label_noise.kernel(rule, 4, 9)(20)
        np.testing.assert_allclose(rivals_of["NumPy"](4, 9)(20), ours, rtol=1e-10)
    size = (6, 3, 8)
    pairs = [(linear_attention.n_free, False), (linear_attention.whole_prompts, True)]
    for draw, explicit in pairs:
        ours = linear_attention.kernel(*size, explicit=explicit)(4)
        np.testing.assert_allclose(linear_attention.numpy_loop(draw, *size)(4), ours, rtol=1e-10)
    np.testing.assert_allclose(xor_grokking.numpy_gram(8, 6)(3), xor_grokking.kernel(8, 6)(3), rtol=1e-10)


def test_what_a_lab_remembers_is_forgotten():
    from sims.xor_grokking import gram, prediction

    lab = get_lab("xor_grokking")
    _ = execute(lab, lab.params.make(n_train=8, width=2, n_test=4, steps=1, replicates=1)).metrics
    caches = [gram._points, prediction._strong_signal]
    assert all(cache.cache_info().currsize for cache in caches)
    waiting.forget(lab)
    assert not any(cache.cache_info().currsize for cache in caches)


def test_other_things_of_a_module_are_left_alone(monkeypatch):
    from sims.xor_grokking import prediction

    @lru_cache
    def remembered(x):
        return x

    remembered(1)
    monkeypatch.setattr(prediction, "remembered", remembered, raising=False)
    waiting.forget(get_lab("label_noise"))
    assert remembered.cache_info().currsize == 1
    waiting.forget(get_lab("xor_grokking"))
    assert remembered.cache_info().currsize == 0
