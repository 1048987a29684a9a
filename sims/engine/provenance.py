"""What a number rests on: the machine's fingerprint, the software, and BLAS held at one thread."""

from __future__ import annotations

import os
import platform
import sys
import threading
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from .compiled import ROOT
from .keys import Backend
from .lab import Lab
from .params import Params

_LOCK = threading.Lock()
_limited: set[str] = set()


def single_threaded_blas() -> None:
    """Hold every loaded BLAS and OpenMP library at one thread, for the life of the process.

    Bits of a matrix product depend on the number of threads. The limit is never lifted, since another run
    in the process may rely on it. SciPy brings a BLAS of its own and is loaded here, before a theory uses it;
    the check is repeated when torch has come in.
    """
    import scipy.linalg  # noqa: F401

    torch = sys.modules.get("torch")
    threads = getattr(torch, "set_num_threads", None)  # absent while another thread still imports it
    loaded = {"numpy", "torch"} if threads is not None else {"numpy"}
    if loaded <= _limited:
        return
    with _LOCK:
        import threadpoolctl

        threadpoolctl.threadpool_limits(limits=1)
        if threads is not None:
            threads(1)  # torch's own pool asks nobody else
        _limited.update(loaded)


@cache
def fingerprint() -> dict[str, str]:
    """What bits may depend on: processor and vector extensions, numpy, numba, llvmlite, and the BLAS builds.

    Equal fingerprints promise equal bits (grade A).
    """
    from importlib.metadata import version

    import llvmlite.binding as llvm
    import numpy as np
    import scipy.linalg  # noqa: F401  (its BLAS belongs to the fingerprint)
    import threadpoolctl

    features = sorted(name for name, on in llvm.get_host_cpu_features().items() if on)
    blas = sorted(
        f"{library['internal_api']} {library.get('version')} {library.get('architecture', '')}".strip()
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas" and "torch" not in library["filepath"]
    )
    return {
        "machine": platform.machine(),
        "cpu": f"{_cpu_model()} ({llvm.get_host_cpu_name()})",
        "cpu_features": " ".join(features),
        "numpy": np.__version__,
        "numba": version("numba"),
        "llvmlite": version("llvmlite"),
        "blas": "; ".join(dict.fromkeys(blas)),
    }


def provenance(lab: Lab, params: Params, backend: Backend) -> dict[str, Any]:
    """The record kept with every stored run: enough to rerun it and to judge whether bits should agree."""
    machine = dict(fingerprint())
    if backend.name == "torch":
        from .backends import versions

        machine |= versions(backend.device)
    return {
        "lab": lab.id,
        "version": lab.version,
        "params": dict(params.active()),
        "backend": backend.name,
        "device": backend.kind,
        "dtype": backend.dtype,
        "grade": "A" if backend.name == "numba" else "C",
        "streams": dict(lab.streams),
        "software": _software(),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "fingerprint": machine,
        "blas_threads": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit() -> str | None:
    """The checkout's commit, marked `-dirty` where files differ from it; None outside a checkout."""
    import subprocess

    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


@cache
def source_digest() -> str:
    """SHA-256 (hex) of the simulators and theories as they lie on this machine: what all workers must share."""
    import hashlib

    total = hashlib.sha256()
    for path in sorted([*(ROOT / "sims").rglob("*.py"), *(ROOT / "theory").rglob("*.py")]):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _software() -> str:
    import sims

    return f"chalkline {sims.__version__}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
