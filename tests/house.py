"""Chalkline's own server in a process of its own, which may be stopped and started again, and what is seen of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS, STOP_SECONDS = 300.0, 20.0

AS_MAKE_RUN = ["-m", "app.server"]
# For tests that wait for nothing they do not need: their own runs load the kernels.
NOT_WARMED = """
import sys
from app import server

server.warm_up = lambda: None
sys.exit(server.main(sys.argv[1:]))
"""


class House:
    """A server with a store of its own below `folder`, and the same address whenever it is started.

    It is warm when it answers, as with `make run`; not so with `warming` off, where it answers at once.
    """

    def __init__(self, folder: Path, *, warming: bool = True, **environment: str) -> None:
        self.folder, self.store = folder, folder / "store"
        self.environment = {**os.environ, "CHALKLINE_STORE": str(self.store), "CI": "1", **environment}
        self.port = 0
        self._launch = AS_MAKE_RUN if warming else ["-c", NOT_WARMED]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def warm(self) -> None:
        """Compile and measure what the first start would else do before it answers."""
        command = [sys.executable, "-m", "sims", "warm"]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True)

    def start(self) -> None:
        """Start, and wait until it is healthy."""
        self._starts += 1
        command = [sys.executable, *self._launch, "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log[-4000:]}")
            if not self.port:
                found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log)
                self.port = int(found[1]) if found else 0
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _log(self) -> Path:
        return self.folder / f"server-{self._starts}.log"

    @property
    def log(self) -> str:
        """What it has said since its last start."""
        return self._log.read_text(errors="replace")

    def healthy(self) -> bool:
        return bool(self.port) and self.get("/health")[0] == 200

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a plain request; status 0 where nobody answers."""
        request = urllib.request.Request(f"{self.url}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode(errors="replace")
        except (urllib.error.URLError, OSError):
            return 0, ""

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Ask it to end, or with SIGKILL end it as a power cut would; nothing where it does not run."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self, how: int = signal.SIGTERM) -> None:
        self.stop(how)
        self.start()

    # -- what can be seen ----------------------------------------------------------------------------------------

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def resident(self) -> float:
        """Resident memory of the server in bytes, its workers not counted."""
        return float(self.process.memory_info().rss)

    def processor_seconds(self) -> float:
        """Processor time of the server and of the workers that it has or had."""
        total = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def threads(self) -> int:
        return int(self.process.num_threads())

    def runs(self) -> list[dict[str, Any]]:
        """The runs that it has told of since its last start, the earliest first."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith('{"event": "run"')]

    def tracebacks(self) -> int:
        """In all its logs, but for those of Streamlit on messages that are none, for which it closes the channel."""
        text = "".join(log.read_text(errors="replace") for log in self.folder.glob("server-*.log"))
        expected = ("Error deserializing back message", "WebSocket text frames are not supported")
        return max(0, text.count("Traceback (most recent call last)") - sum(map(text.count, expected)))
