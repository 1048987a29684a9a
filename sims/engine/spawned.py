"""Worker processes that do not run the script that asked for them again.

A new process imports its parent's main script, of which a worker needs nothing: a plain script without a guard
would start over, and a page's script would run outside of its session.

A worker is spawned, and loads what it needs by itself; or, on Linux, forked within milliseconds from a process that
has loaded every lab (`forking`), which is for servers.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any, TypeAlias

from .compiled import cache_root

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

AnyContext: TypeAlias = "SpawnContext | ForkServerContext"
LOADED = "sims.engine.loaded"  # the module that loads every lab when it is imported

_LOCK = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A process that is started meanwhile does not import its parent's main script."""
    with _LOCK:
        usual = spawn.get_preparation_data
        spawn.get_preparation_data = lambda name: {
            key: value for key, value in usual(name).items() if not key.startswith("init_main")
        }
        try:
            yield
        finally:
            spawn.get_preparation_data = usual


class Worker(SpawnProcess):
    """A spawned process without its parent's main script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_main():
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]


class Context(SpawnContext):
    """Spawns such workers, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Worker] = []

    def Process(self, *args: Any, **named: Any) -> Worker:  # type: ignore[override]
        self.started.append(Worker(*args, **named))
        return self.started[-1]


if sys.platform == "linux":  # system libraries of macOS do not bear a fork, and Windows has none
    from multiprocessing import forkserver
    from multiprocessing.context import ForkServerContext, ForkServerProcess

    class Fork(ForkServerProcess):
        """A forked process without its parent's main script."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            with _without_main():
                return ForkServerProcess._Popen(process_obj)  # type: ignore[attr-defined]

    class Forking(ForkServerContext):
        """Forks such workers from the process that has loaded every lab."""

        Process = Fork  # type: ignore[assignment]

    def forking() -> AnyContext:
        """A context whose workers are forked with every lab loaded.

        The process that they are forked from is started at once, loads while this one goes on, and ends with it.
        """
        cache_root()  # where it cannot be written, they all share the one that takes its place
        forkserver.set_forkserver_preload([LOADED])
        forkserver.ensure_running()
        return Forking()

else:

    def forking() -> AnyContext:
        """A context whose workers are spawned, and load what they need by themselves."""
        return Context()
