"""The activities for a class: which there are for a lab, and how long each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).resolve().parents[1] / "activities"
_FENCE = "---\n"


@dataclass(frozen=True)
class Activity:
    """What stands at the head of an activity's file."""

    title: str
    lab: str
    minutes: int


@cache
def activities() -> Mapping[str, tuple[Activity, ...]]:
    """The activities of each lab, in order of their file names."""
    found: dict[str, tuple[Activity, ...]] = {}
    for path in sorted(FOLDER.glob("*.md")):
        one = read(path.read_text(encoding="utf-8"))
        found[one.lab] = (*found.get(one.lab, ()), one)
    return MappingProxyType(found)


def read(text: str) -> Activity:
    """The head of an activity. Raises ValueError for one without title, lab and minutes."""
    start, head, body = text.partition(_FENCE)
    head, end, body = body.partition(_FENCE) if not start and head else ("", "", "")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not end or not {"title", "lab", "minutes"} <= fields.keys() or not fields["minutes"].isdecimal():
        raise ValueError("an activity begins with title, lab and minutes between two lines of three dashes")
    return Activity(fields["title"], fields["lab"], int(fields["minutes"]))
