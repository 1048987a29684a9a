"""The budget of a run: seconds and bytes, predicted before it starts.

Each lab counts its work in units of its probes; a probe's rate is measured for a tenth of a second on this
machine and kept beside the compiled cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .compiled import ROOT, cache_root, digest
from .errors import TooLarge
from .keys import NUMBA, Backend
from .lab import Lab
from .params import Params, canonical_json
from .provenance import cores, fingerprint, single_threaded_blas

PROBE_SECONDS = 0.1
_LOCK = threading.Lock()
_rates: dict[str, dict[str, float]] = {}


@dataclass(frozen=True)
class Budget:
    """Predicted cost of a run: wall seconds on this machine, processor seconds, and peak bytes."""

    seconds: float
    cpu_seconds: float
    bytes: float

    def __str__(self) -> str:
        return f"about {describe_seconds(self.seconds)} and {describe_bytes(self.bytes)}"


def estimate(
    lab: Lab,
    params: Params,
    backend: Backend = NUMBA,
    workers: int | None = None,
    rates: Mapping[str, float] | None = None,
) -> Budget:
    """The budget of a run of `params` (theory included), right within a factor of 3.

    Who estimates many runs of a lab asks for its `rates` once.
    """
    work = lab.work(params)
    rates = lab_rates(lab) if rates is None else rates
    one = sum(count * rates[name] for name, count in work.per_replicate.items())
    serial = sum(work.per_replicate.get(name, 0.0) * rates[name] for name in work.serial)
    once = sum(count * rates[name] for name, count in work.once.items())
    rounds = math.ceil(params.replicates / (workers or cores()))
    return Budget(
        seconds=rounds * (one - serial) + params.replicates * serial + once,
        cpu_seconds=params.replicates * one + once,
        bytes=work.bytes,
    )


def require(lab: Lab, params: Params, seconds: float = math.inf, bytes: float = math.inf) -> Budget:
    """The estimate, if it is within the limits.

    Raises:
        TooLarge: with the estimate, the limits, and the command line that runs it elsewhere.
    """
    budget = estimate(lab, params)
    if budget.seconds <= seconds and budget.bytes <= bytes:
        return budget
    limits = []
    if budget.seconds > seconds:
        limits.append(f"{describe_seconds(seconds)} of computing")
    if budget.bytes > bytes:
        limits.append(f"{describe_bytes(bytes)} of memory")
    raise TooLarge(
        f"This run would take {budget}; the limit here is {' and '.join(limits)}. "
        f"Choose smaller sizes, or run it elsewhere: {command_line(lab, params)}"
    )


def available_memory() -> float:
    """Bytes that a run may take: four fifths of what is free now; unlimited where that cannot be read."""
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable"):
                return 0.8 * 1024 * float(line.split()[1])
    return math.inf


def command_line(lab: Lab, params: Params) -> str:
    """The command that repeats a run with these params."""
    flags = [f"--{name.replace('_', '-')} {text}" for name, text in params.texts().items()]
    return " ".join(["python -m sims run", lab.id, *flags])


def lab_rates(lab: Lab, measure_again: bool = False) -> dict[str, float]:
    """Seconds for one unit of each of the lab's probes, measured once per machine and version of the lab."""
    path = _path(lab)
    with _LOCK:
        if not measure_again:
            if str(path) in _rates:
                return _rates[str(path)]
            known = _read(path)
            if known is not None:
                return _rates.setdefault(str(path), known)
        rates = {name: _measure(probe) for name, probe in lab.probes().items()}
        _rates[str(path)] = rates = _write(path, rates, measure_again)
        return rates


def _measure(probe: object) -> float:
    assert callable(probe)
    single_threaded_blas()
    probe()  # compiled or loaded before the clock starts
    counts, start = 0.0, time.thread_time()  # of this thread alone: other work on the machine does not count
    while True:
        counts += probe()
        spent = time.thread_time() - start
        if spent >= PROBE_SECONDS:
            return spent / counts


def _path(lab: Lab) -> Path:
    return cache_root() / "rates" / _file_name(lab.id)


@cache
def _file_name(lab_id: str) -> str:
    """Of a lab's rates: its sources and the machine, read once; a page asks for estimates by the hundred."""
    machine = hashlib.sha256(canonical_json(fingerprint()).encode()).hexdigest()[:12]
    files = sorted([*(ROOT / "sims" / lab_id).glob("*.py"), ROOT / "theory" / f"{lab_id}.py"])
    content = hashlib.sha256("".join(digest(path) for path in files if path.is_file()).encode()).hexdigest()[:12]
    return f"{lab_id}-{content}-{machine}.json"


def _read(path: Path) -> dict[str, float] | None:
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return rates if isinstance(rates, dict) and all(isinstance(rate, float) for rate in rates.values()) else None


def _write(path: Path, rates: dict[str, float], instead: bool) -> dict[str, float]:
    """Keep the rates, `instead` of those that are kept; else those of who was first count, for all processes alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for older in path.parent.glob(f"{path.name.split('-')[0]}-*-{path.stem.rsplit('-', 1)[-1]}.json"):
        if older != path:
            older.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(rates, file)
    first = None if instead else _first(name, path)
    if first is None:
        os.replace(name, path)
        return rates
    os.unlink(name)
    return first


def _first(name: str, path: Path) -> dict[str, float] | None:
    """What is at `path` after `name` was put there if nothing was; none where that is damaged."""
    with contextlib.suppress(FileExistsError):
        os.link(name, path)  # unlike a replacement it fails where there is one
    return _read(path)


def describe_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{max(1, round(1000 * seconds))} ms"
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def describe_bytes(size: float) -> str:
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if size < 1000 * scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e12:,.3g} TB"
