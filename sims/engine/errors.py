"""The failures a user can meet, each with a sentence that says what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class ChalklineError(Exception):
    """Base of every failure that is reported as one clear message, never as a traceback."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: which parameter, what was given, what is allowed, the way out."""

    parameter: str
    value: Any
    allowed: str
    advice: str

    def __str__(self) -> str:
        return f"{self.parameter} = {shorten(self.value)} is not possible: {self.allowed}. {self.advice}"


class BadInput(ChalklineError, ValueError):
    """Input that cannot be run. `problems` lists what is wrong with it, each with its way out."""

    def __init__(self, *problems: Problem | str):
        self.problems = problems
        super().__init__(" ".join(str(problem) for problem in problems))


class UnknownName(BadInput):
    """A lab, preset, claim or key that does not exist."""

    def __init__(self, kind: str, name: object, known: Sequence[str]):
        from difflib import get_close_matches

        close = get_close_matches(str(name), known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        listing = ", ".join(known) if known else "none exist"
        super().__init__(f"There is no {kind} {shorten(name)!r}. {hint}Known: {listing}.")


class Cancelled(ChalklineError):
    """The run was stopped on request before it ended; nothing of it was kept."""


class Paused(Cancelled):
    """A sweep was stopped before it ended; its complete parts are kept, and it can go on."""


class TooLarge(ChalklineError):
    """The estimate of a run exceeds what this place allows."""


class StoreError(ChalklineError):
    """The run store cannot be read or written."""


class DamagedRun(StoreError):
    """A stored run does not match its manifest, so it is not served."""


class ReproducibilityAlarm(StoreError):
    """Two computations of one key disagree. The first one is kept."""


def shorten(value: object, limit: int = 60) -> str:
    """`value` as text of at most `limit` characters, control characters made visible."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # Python does not write out integers of more than 4300 digits
        text = "a number of very many digits"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."
