"""Libraries that contenders are written in, and which of them are here.

JAX is in `requirements-bench.txt`, so that nobody else installs it. It computes in float64, on one thread.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

NO_JAX = "JAX is not installed (`pip install -r requirements-bench.txt`): its rows were not run."
NO_COMPILER = "No C++ compiler was found: torch was not compiled."


def __getattr__(name: str) -> ModuleType:
    """`rivals.jax`, imported when it is first asked for."""
    if name != "jax":
        raise AttributeError(name)
    import jax
    import jax.numpy

    return jax


def has_jax() -> bool:
    return importlib.util.find_spec("jax") is not None


def has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "c++", "clang++") if name)


def available(contenders: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The contenders that can run here; for each library that is missing a note is added, once."""
    found = {}
    for name, make in contenders.items():
        missing = None
        if name.startswith("JAX") and not has_jax():
            missing = NO_JAX
        elif name.startswith("torch, compiled") and not has_compiler():
            missing = NO_COMPILER
        if missing is None:
            found[name] = make
        elif missing not in notes:
            notes.append(missing)
    return found
