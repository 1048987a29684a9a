"""What the gate, the janitor, the health check and the teacher's panel know of the running server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SESSIONS = 300  # browser tabs at once, unless CHALKLINE_SESSIONS says otherwise


@dataclass
class House:
    """The state of this server process."""

    public: tuple[str, ...] = ()  # names under which a proxy shows us
    limit: int = SESSIONS
    sessions: int = 0
    left: Callable[[], None] = lambda: None  # runs, in a thread of its own, a little after a tab has gone
    last_message: float = 0.0
    state: str = "starting"  # "ok" once everything is warm
    lost: dict[str, float] = field(default_factory=dict)  # by session: until when its return is waited for

    def awaited(self) -> set[str]:
        """The sessions whose network has gone a moment ago, without a goodbye: they are expected back."""
        now = time.monotonic()
        for session, until in list(self.lost.items()):
            if until <= now:
                self.lost.pop(session, None)
        return set(self.lost)


_built: list[House] = []


def built(house: House) -> House:
    """Note the house of the server that has been built."""
    _built.append(house)
    return house


def present_house() -> House | None:
    """The house of this process's server; none where a page runs without one, as in a test."""
    return _built[-1] if _built else None
