"""Chalkline's own server in a process of its own, as `make run` starts it, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0


class House:
    """A server with a store of its own below `folder`; warmed up before it is started the first time."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "CHALKLINE_STORE": str(folder / "store"), "CI": "1", **environment}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def warm(self) -> None:
        command = [sys.executable, "-m", "sims", "warm"]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True)

    def start(self) -> None:
        """Start, at the same port as before where there was one, and wait until it is healthy."""
        self._starts += 1
        command = [sys.executable, "-m", "app.server", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")
            if not self.port:
                found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text(errors="replace"))
                self.port = int(found[1]) if found else 0
            time.sleep(0.05)

    @property
    def log(self) -> Path:
        return self.folder / f"server-{self._starts}.log"

    def healthy(self) -> bool:
        return bool(self.port) and self.get("/health")[0] == 200

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a plain request; status 0 where nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode(errors="replace")
        except (urllib.error.URLError, OSError):
            return 0, ""

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    # -- what can be seen ----------------------------------------------------------------------------------------

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def resident(self) -> float:
        """Resident memory of the server in bytes, its workers not counted."""
        return float(self.process.memory_info().rss)

    def processor_seconds(self) -> float:
        """Processor time of the server and of the workers that it has now."""
        total = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def threads(self) -> int:
        return int(self.process.num_threads())

    def runs(self) -> list[dict[str, Any]]:
        """The runs that this server has told in its log, the earliest first."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"event": "run"')]

    def tracebacks(self) -> int:
        """In the present log, but for those of Streamlit on messages that are none, which it closes the channel for."""
        text = self.log.read_text(errors="replace")
        expected = ("Error deserializing back message", "WebSocket text frames are not supported")
        return max(0, text.count("Traceback (most recent call last)") - sum(map(text.count, expected)))
