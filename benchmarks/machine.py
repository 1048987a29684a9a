"""What this machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contest import Limit, rate_of


@cache
def dgemm(size: int = 1000) -> float:
    """Floating-point operations a second of a product of two square matrices on one core."""
    a = np.random.default_rng(0).standard_normal((size, size))
    out = np.empty_like(a)

    def run(count: int) -> NDArray[np.float64]:
        for _ in range(count):
            np.dot(a, a, out=out)
        return out

    return 2.0 * size**3 * rate_of(run)


@cache
def copy(size: int = 2**23) -> float:
    """Bytes a second read and written by a copy of so many float64 numbers on one core."""
    source, target = np.ones(size), np.zeros(size)

    def run(count: int) -> NDArray[np.float64]:
        for _ in range(count):
            np.copyto(target, source)
        return target

    return 2.0 * source.nbytes * rate_of(run)


_COUNTING = """
import time
end, count = time.perf_counter() + 1.0, 0
while time.perf_counter() < end:
    count += sum(i & 7 for i in range(10_000))
print(count)
"""


def at_once(processes: int) -> float:
    """How many times the work of one process so many do at once: cores may be one's two threads, or busy for others."""

    def work(count: int) -> float:
        started = [
            subprocess.Popen([sys.executable, "-c", _COUNTING], stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return sum(float(one.communicate()[0]) for one in started)

    alone = work(1)
    return work(processes) / alone


def products(count: float) -> Limit:
    """The limit of work whose unit has so many floating-point operations in matrix products."""
    return Limit("dgemm", dgemm() / count)


def describe(shared: float) -> dict[str, Any]:
    """Processor, software, load and limits, for the head of a report; `shared` is `at_once` of all cores.

    Measures the limits: call it on one core.
    """
    from sims.engine.provenance import fingerprint

    found, cores = fingerprint(), os.cpu_count() or 1
    limits = f"One core: dgemm {dgemm() / 1e9:.1f} GFLOP/s, copy {copy() / 1e9:.1f} GB/s read and written"
    return {
        "date": date.today().isoformat(),
        "cpu": found["cpu"],
        "cores": cores,
        "software": ", ".join(f"{name} {found[name]}" for name in ("numpy", "numba", "llvmlite") if name in found),
        "load": os.getloadavg()[0],
        "dgemm_flops": dgemm(),
        "copy_bytes_per_s": copy(),
        "limits": f"{limits}; {cores} processes at once do {shared:.2f} times the work of one",
    }
