"""What labs share that compute with torch: arrays there and back, recorded seeds, and the limits of a device.

Only `full_scale.py` of a lab imports this at its top: with it comes torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURED_SECONDS = 0.3
LEAST_ROUNDS = 20
MOST_BYTES = 2.0**30
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def tensor(values: Any, device: str, dtype: str | None = None) -> torch.Tensor:
    """An array on a device, as it is or in the given precision."""
    array = np.ascontiguousarray(values)
    if not array.flags.writeable:
        array = array.copy()  # torch warns of memory that it may not write
    return torch.from_numpy(array).to(device=device, dtype=None if dtype is None else DTYPES[dtype])


def array(values: torch.Tensor) -> NDArray[np.float64]:
    """A tensor as an array of float64 on the processor."""
    return np.asarray(values.detach().to("cpu", torch.float64).numpy())


def device_generator(device: str, seed: int, *path: int) -> torch.Generator:
    """The device's own generator, seeded from a recorded seed and a path such as (part, draw)."""
    state = np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(2, np.uint32)
    made = torch.Generator(device)
    made.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    return made


def finish(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def chi_square(dof: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Chi-square draws with `dof` degrees of freedom, elementwise, in float64."""
    return 2.0 * torch._standard_gamma(0.5 * dof.to(torch.float64), generator)


# -- limits of a device ----------------------------------------------------------------------------------------


def bandwidth(device: str, size: float) -> float:
    """Bytes per second that the device reads and writes while it copies arrays of `size` bytes in all.

    Small arrays stay in a cache and are faster: measure at the size that the work has, up to 1 GiB.
    """
    count = max(1024, int(min(size, MOST_BYTES) / 16))
    source = torch.zeros(count, dtype=torch.float64, device=device)
    target = torch.empty_like(source)
    return 16.0 * count / _seconds(lambda: target.copy_(source), device)


def matmul_rate(device: str, dtype: str) -> float:
    """Multiplications and additions per second of a product of square matrices."""
    side = 512 if device == "cpu" else 8192
    left = torch.ones((side, side), dtype=DTYPES[dtype], device=device)
    product = torch.empty_like(left)
    return 2.0 * side**3 / _seconds(lambda: torch.mm(left, left, out=product), device)


def _seconds(work: Callable[[], object], device: str) -> float:
    """The least seconds of a call, over at least LEAST_ROUNDS: others may use the device at the same time."""
    work()
    finish(device)
    best, begun, rounds = float("inf"), time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - begun < MEASURED_SECONDS:
        rounds += 1
        start = time.perf_counter()
        work()
        finish(device)
        best = min(best, time.perf_counter() - start)
    return best
