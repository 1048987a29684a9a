"""Chalkline's own server in a process that a test may stop and start again at the same address."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0

# As `python -m app.server` does, but for the warm-up: the test's own runs load what they need.
LAUNCH = """
import sys
from app import server

server.warm_up = lambda: None
sys.exit(server.main(sys.argv[1:]))
"""


class Serving:
    """A running server; `url` stays the same when it is restarted."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None):
        self.store = folder / "store"
        self._log = folder / "log.txt"
        self._environment = {**os.environ, "CHALKLINE_STORE": str(self.store), "CI": "1", **(environment or {})}
        self.url = ""
        self.start()

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, "--port", port],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            found = re.search(r"http://127\.0\.0\.1:\d+", self.log)
            if found and _is_healthy(found[0]):
                self.url = found[0]
                return
            assert self._process.poll() is None and time.monotonic() < deadline, f"it did not start:\n{self.log}"
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def runs(self) -> list[dict[str, Any]]:
        """What the log says of the runs since the last start, one after the other."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith('{"event": "run"')]

    def stop(self, how: int = signal.SIGTERM) -> None:
        self._process.send_signal(how)
        self._process.wait(30)

    def restart(self, how: int = signal.SIGTERM) -> None:
        self.stop(how)
        self.start()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
