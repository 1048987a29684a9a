"""What this machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import os
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


def products(count: float) -> Limit:
    """The limit of work whose unit has so many floating-point operations in matrix products."""
    return Limit("dgemm", dgemm() / count)


def describe() -> dict[str, Any]:
    """Processor, software, load and limits, for the head of a report. Measures the limits: call it on one core."""
    from sims.engine.provenance import fingerprint

    found = fingerprint()
    return {
        "date": date.today().isoformat(),
        "cpu": found["cpu"],
        "cores": os.cpu_count(),
        "software": ", ".join(f"{name} {found[name]}" for name in ("numpy", "numba", "llvmlite") if name in found),
        "load": os.getloadavg()[0],
        "dgemm_flops": dgemm(),
        "copy_bytes_per_s": copy(),
        "limits": f"One core: dgemm {dgemm() / 1e9:.1f} GFLOP/s, copy {copy() / 1e9:.1f} GB/s read and written",
    }
