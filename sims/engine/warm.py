"""Warming up: compile, measure and compute ahead, so that no user waits."""

from __future__ import annotations

from collections.abc import Callable

from .budget import describe_seconds, lab_rates
from .compiled import cache_root, sweep_stale
from .errors import StoreError
from .execute import execute
from .registry import all_labs
from .store import Store


def warm(store: Store | None = None, report: Callable[[str], None] = lambda line: None) -> None:
    """For every lab: compile its kernels for this processor, measure its rates, store its default page."""
    import time

    store = Store() if store is None else store
    for lab in all_labs():
        start = time.perf_counter()
        lab_rates(lab)
        try:
            for params in lab.runs(lab.presets[0]).values():
                execute(lab, params, store=store)
            kept = ""
        except StoreError as error:
            kept = f" {error}"
        report(f"{lab.id}: warm in {describe_seconds(time.perf_counter() - start)}.{kept}")
    sweep_stale()
    report(f"Compiled kernels and rates are in {cache_root()}.")
