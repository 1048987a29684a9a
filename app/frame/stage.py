"""One script at a time: whoever draws a page has the interpreter to itself.

Of scripts that run side by side in one interpreter each takes as long as all of them together. One after the other,
the first is done at once and the last no later than before. A script that waits for something steps aside meanwhile,
and nobody waits longer than `PATIENCE_SECONDS` for one that does not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

PATIENCE_SECONDS = 2.0


class Stage:
    """A place that one script at a time has; a script that has none yet waits in line."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._place = threading.Semaphore()
        self._patience = patience
        self._mine = threading.local()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """The calling script draws."""
        self._take()
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The calling script waits for something; one that has no place, or fails at it, goes on without."""
        had = self._leave()
        yield
        if had:
            self._take()

    def _take(self) -> None:
        self._mine.held = self._place.acquire(timeout=self._patience)

    def _leave(self) -> bool:
        """Whether the calling thread had a place."""
        had = bool(getattr(self._mine, "held", False))
        if had:
            self._mine.held = False
            self._place.release()
        return had


STAGE = Stage()
