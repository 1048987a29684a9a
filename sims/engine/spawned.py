"""Worker processes that do not run the script that asked for them again.

A spawned process imports its parent's main script, of which a worker needs nothing: a plain script without a guard
would start over, and a page's script would run outside of its session.
"""

from __future__ import annotations

import threading
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_LOCK = threading.Lock()


class Worker(SpawnProcess):
    """A spawned process without its parent's main script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _LOCK:
            usual = spawn.get_preparation_data

            def without_main(name: str) -> dict[str, Any]:
                return {key: value for key, value in usual(name).items() if not key.startswith("init_main")}

            spawn.get_preparation_data = without_main
            try:
                return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]
            finally:
                spawn.get_preparation_data = usual


class Context(SpawnContext):
    """Spawns such workers, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Worker] = []

    def Process(self, *args: Any, **named: Any) -> Worker:  # type: ignore[override]
        self.started.append(Worker(*args, **named))
        return self.started[-1]
