"""Turns: which of the waiting runs is computed next.

Whoever asks for many runs does not get ahead of those who ask for one: a session's second run waits until every
other session's first has begun, and so on. A run that several sessions wait for has the best of their places.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Ticket:
    """A run's place in the line: who waits for it, its estimate in seconds, and whether it has been called."""

    sessions: Callable[[], Iterable[str]]
    seconds: float
    number: int
    called: threading.Event = field(default_factory=threading.Event)


class Turns:
    """A line before `at_once` places where runs are computed; of equals the one served longest ago is next."""

    def __init__(self, at_once: int):
        self.at_once = at_once
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[Ticket] = []  # in order of arrival
        self._running: list[Ticket] = []
        self._served: dict[str, int] = {}  # when each session last had a turn, until the place is empty

    def join(self, sessions: Callable[[], Iterable[str]], seconds: float) -> Ticket:
        """A ticket, whose event is set as soon as its turn has come. Whoever has joined must `leave`."""
        with self._lock:
            ticket = Ticket(sessions, seconds, next(self._numbers))
            self._waiting.append(ticket)
            self._call()
            return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up the ticket, before its turn or after it; the next one is called."""
        with self._lock:
            for line in (self._waiting, self._running):
                if ticket in line:
                    line.remove(ticket)
            self._call()

    def has_turn(self, ticket: Ticket) -> bool:
        with self._lock:
            return ticket in self._running

    def ahead(self, ticket: Ticket) -> tuple[int, float]:
        """How many waiting runs come before it, and about how many seconds until its turn."""
        with self._lock:
            if ticket not in self._waiting:
                return 0, 0.0
            order = self._order()
            before = order[: order.index(ticket)]
            return len(before), self._seconds(before)

    def outlook(self) -> tuple[int, int, float]:
        """How many run, how many wait, and about how many seconds until all that wait have begun."""
        with self._lock:
            return len(self._running), len(self._waiting), self._seconds(self._waiting)

    def _seconds(self, before: list[Ticket]) -> float:
        """Of those that run now half is taken to be over; with a free place there is nothing to wait for."""
        if len(self._running) < self.at_once:
            return 0.0
        work = 0.5 * sum(ticket.seconds for ticket in self._running) + sum(ticket.seconds for ticket in before)
        return work / self.at_once

    def _order(self) -> list[Ticket]:
        taken = Counter(session for ticket in self._running for session in ticket.sessions())
        rank = {}
        for ticket in self._waiting:
            sessions = tuple(ticket.sessions())
            places = [(taken[session], self._served.get(session, -1)) for session in sessions]
            rank[ticket] = (*min(places, default=(0, -1)), ticket.number)
            taken.update(sessions)
        return sorted(self._waiting, key=rank.__getitem__)

    def _call(self) -> None:
        while self._waiting and len(self._running) < self.at_once:
            ticket = self._order()[0]
            self._waiting.remove(ticket)
            self._running.append(ticket)
            self._served |= dict.fromkeys(ticket.sessions(), next(self._numbers))
            ticket.called.set()
        if not self._running:
            self._served.clear()
