"""What visitors may ask of this server: for one run and for all that a tab waits for, by estimate; and of its disk."""

from __future__ import annotations

import os
import re


class BadSetting(ValueError):
    """A setting of the environment that is no positive number; the message is one sentence with the way out."""


def positive(name: str, text: str) -> float:
    """The number of that setting. Raises BadSetting."""
    if not re.fullmatch(r"[0-9]+\.?[0-9]*", text) or float(text) == 0.0:
        raise BadSetting(f"{name}={text} is not a positive number: give one such as 60, or leave it out.")
    return float(text)


LIVE_SECONDS = positive("CHALKLINE_LIVE_SECONDS", os.environ.get("CHALKLINE_LIVE_SECONDS", "60"))
LIVE_BYTES = 1e6 * positive("CHALKLINE_LIVE_MB", os.environ.get("CHALKLINE_LIVE_MB", "256"))
SESSION_SECONDS = positive(
    "CHALKLINE_SESSION_SECONDS", os.environ.get("CHALKLINE_SESSION_SECONDS", f"{3 * LIVE_SECONDS:f}")
)
SESSION_BYTES = 1e6 * positive(
    "CHALKLINE_SESSION_MB", os.environ.get("CHALKLINE_SESSION_MB", f"{4 * LIVE_BYTES / 1e6:f}")
)
FREE_BYTES = 1e6 * positive("CHALKLINE_FREE_MB", os.environ.get("CHALKLINE_FREE_MB", "1024"))
QUEUE_SECONDS = positive("CHALKLINE_QUEUE_SECONDS", os.environ.get("CHALKLINE_QUEUE_SECONDS", "300"))
