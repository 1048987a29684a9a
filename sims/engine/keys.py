"""Keys: what makes two runs the same run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from .lab import Lab
from .params import Params, canonical_json


@dataclass(frozen=True)
class Backend:
    """What a run is computed with; part of its key, since bits depend on it.

    `device` is cpu, cuda or cuda:1 and the like; which of several equal devices is no part of the key.
    """

    name: str = "numba"
    device: str = "cpu"
    dtype: str = "float64"

    @property
    def kind(self) -> str:
        """The kind of device: cpu or cuda."""
        return self.device.split(":")[0]


NUMBA = Backend()


def run_key(lab: Lab, params: Params, backend: Backend = NUMBA, version: int | None = None) -> str:
    """SHA-256 (hex) of the canonical JSON of lab, version, backend, device kind, dtype and active params."""
    return _run_key(lab.id, lab.version if version is None else version, params, backend)


@lru_cache(maxsize=4096)  # a page asks for the keys of all that it shows each time that it is drawn
def _run_key(lab_id: str, version: int, params: Params, backend: Backend) -> str:
    return _hash(lab_id, version, params.active(), backend)


def family_key(lab: Lab, params: Params, backend: Backend = NUMBA) -> str:
    """The key without `first_replicate` and `replicates`: runs of one family pool replicate by replicate."""
    active = {k: v for k, v in params.active().items() if k not in ("first_replicate", "replicates")}
    return _hash(lab.id, lab.version, active, backend)


def _hash(lab_id: str, version: int, active: Mapping[str, object], backend: Backend) -> str:
    identity = {
        "lab": lab_id,
        "version": version,
        "backend": backend.name,
        "device": backend.kind,
        "dtype": backend.dtype,
        "params": active,
    }
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()
