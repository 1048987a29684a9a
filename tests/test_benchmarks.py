"""Benchmarks are found by their lab, and measure nothing that was remembered."""

from functools import lru_cache

from benchmarks import __main__ as bench
from benchmarks import full_scale, sweep, waiting
from sims.engine import execute, get_lab, lab_ids


def test_benchmarks_of_labs_are_found():
    found = {module.__name__.removeprefix("benchmarks.") for module in bench.of_labs()}
    assert {"label_noise", "xor_grokking"} <= found <= set(lab_ids())
    assert all(callable(module.main) for module in bench.of_labs())


def test_a_missed_goal_fails_the_whole(monkeypatch):
    class Met:
        main = staticmethod(lambda: True)

    class Missed:
        main = staticmethod(lambda: False)

    monkeypatch.setattr(waiting, "main", lambda: True)
    monkeypatch.setattr(sweep, "main", lambda: True)
    monkeypatch.setattr(full_scale, "main", lambda: True)
    for modules, code in (([Met], 0), ([Met, Missed], 1)):
        monkeypatch.setattr(bench, "of_labs", lambda modules=modules: modules)
        assert bench.main() == code
    monkeypatch.setattr(bench, "of_labs", lambda: [Met])
    monkeypatch.setattr(sweep, "main", lambda: False)
    assert bench.main() == 1


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
