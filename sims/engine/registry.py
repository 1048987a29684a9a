"""Labs are found, not listed: a folder of `sims` that holds a `lab.py` is a lab."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from .errors import UnknownName
from .lab import Lab

_SIMS = Path(__file__).resolve().parent.parent


@cache
def lab_ids() -> tuple[str, ...]:
    """The ids of all labs, sorted."""
    return tuple(sorted(path.parent.name for path in _SIMS.glob("*/lab.py") if path.parent.name != "engine"))


def get_lab(lab_id: str) -> Lab:
    """The lab with that id. Raises UnknownName."""
    if lab_id not in lab_ids():
        raise UnknownName("lab", lab_id, lab_ids())
    return _load(lab_id)


def all_labs() -> tuple[Lab, ...]:
    """Every lab, in order of id."""
    return tuple(_load(lab_id) for lab_id in lab_ids())


@cache
def _load(lab_id: str) -> Lab:
    lab: Lab = importlib.import_module(f"sims.{lab_id}.lab").LAB
    if lab.id != lab_id:
        raise ValueError(f"the lab in sims/{lab_id} calls itself {lab.id!r}")
    lab.params.lab_id = lab_id
    return lab
