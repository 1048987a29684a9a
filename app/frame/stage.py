"""One script at a time: whoever draws a page has the interpreter to itself.

Of scripts that run side by side in one interpreter each takes as long as all of them together. One after the other,
the first is done at once and the last no later than before. A script that waits for something steps aside meanwhile,
and one that draws for long goes on beside the next.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

LONG_SECONDS = 0.5  # so long a script has the place to itself


class Stage:
    """A place that one script at a time has, in the order in which they came."""

    def __init__(self, long: float = LONG_SECONDS) -> None:
        self._long = long
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()  # who waits, each by the event that calls it
        self._has: threading.Event | None = None
        self._since = 0.0
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

    def is_free(self) -> bool:
        with self._lock:
            return self._has is None

    def _take(self) -> None:
        own = threading.Event()
        with self._lock:
            self._line.append(own)
            if self._has is None:
                self._next()
        while not own.wait(self._long):
            with self._lock:
                if self._line and self._line[0] is own and time.monotonic() - self._since >= self._long:
                    self._next()
        self._mine.place = own

    def _leave(self) -> bool:
        """Whether the calling thread had a place, or had it until it drew for too long."""
        own = getattr(self._mine, "place", None)
        self._mine.place = None
        with self._lock:
            if own is not None and self._has is own:
                self._has = None
                self._next()
        return own is not None

    def _next(self) -> None:
        if self._line:
            self._has, self._since = self._line.popleft(), time.monotonic()
            self._has.set()


STAGE = Stage()
