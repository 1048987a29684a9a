"""Pools: all stored replicates of one family as a single trace.

Runs of a family differ in nothing but the numbers of their replicates. A replicate is the same bits whether it was
run alone or in company, so that thirty stored runs of one replicate are the trace of one run of thirty; and where
two runs hold the same replicate, their hashes must be equal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DamagedRun, ReproducibilityAlarm
from .keys import family_key, run_key
from .lab import Lab
from .params import Params
from .store import Store, Stored
from .trace import Trace

if TYPE_CHECKING:
    from .execute import Run

MOST_REPLICATES = 2000


@dataclass(frozen=True)
class Pool:
    """Replicates of one family: `numbers` (N,) in ascending order, and the trace (N replicates) in that order."""

    lab: Lab
    params: Params
    numbers: tuple[int, ...]
    trace: Trace
    fingerprint: Mapping[str, str]
    wall_s: float

    @property
    def is_gapless(self) -> bool:
        """Whether the numbers follow one another, so that one run could hold them all."""
        return self.numbers[-1] - self.numbers[0] + 1 == len(self.numbers)

    @property
    def as_one(self) -> Params:
        """The params of the run that would hold these replicates, and those in the gaps between them."""
        count = self.numbers[-1] - self.numbers[0] + 1
        return self.params.replace(first_replicate=self.numbers[0], replicates=count)

    def run(self) -> Run:
        """The pool as a run, with theory, metrics and claims. Raises ValueError where numbers are missing."""
        from .execute import restored

        if not self.is_gapless:
            raise ValueError(f"{len(self.numbers)} replicates from {self.numbers[0]} to {self.numbers[-1]} have gaps")
        made = {"fingerprint": self.fingerprint, "device": "cpu"}
        manifest = {"key": run_key(self.lab, self.as_one), "provenance": made, "wall_s": self.wall_s}
        return restored(self.lab, self.as_one, Stored(manifest, self.trace))


class Family:
    """The stored replicates of a run's family, read as they come in.

    Args:
        store: where runs are looked for; `fetch` may know a quicker way to one of them (None: it does not).
        most: how many replicates are pooled; those of the lowest numbers.
    """

    def __init__(
        self,
        store: Store,
        lab: Lab,
        params: Params,
        fetch: Callable[[str], Stored | None] = lambda key: None,
        most: int = MOST_REPLICATES,
    ):
        self.lab = lab
        self.params = params
        self.key = family_key(lab, params)
        self._store = store
        self._fetch = fetch
        self._most = most
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._held: dict[int, tuple[Stored, int]] = {}  # number -> the run that holds it, and where in it
        self._pool: Pool | None = None

    def pool(self, catch_up: bool = True) -> Pool | None:
        """All that is stored now; None where nothing is. `catch_up` as in `Store.of_family`.

        Raises:
            ReproducibilityAlarm: two runs of the same machine hold different traces of one replicate.
        """
        with self._lock:
            new = [key for key in self._store.of_family(self.key, catch_up) if key not in self._known]
            for key in new:
                try:
                    stored = self._fetch(key) or self._store.find(key)
                except DamagedRun:
                    stored = None  # `verify` reports it; what it held is computed again when it is asked for
                if stored is not None:
                    self._take(stored)
                self._known.add(key)
            if new and self._held:
                self._pool = self._assemble()
            return self._pool

    def _take(self, stored: Stored) -> None:
        first = int(stored.manifest["params"]["first_replicate"])
        for at, own in enumerate(stored.trace.replicate_sha256):
            held = self._held.get(first + at)
            if held is None:
                self._held[first + at] = stored, at
            elif held[0].trace.replicate_sha256[held[1]] != own:
                _alarm_unless_elsewhere(first + at, held[0], stored)

    def _assemble(self) -> Pool:
        numbers = sorted(self._held)[: self._most]
        pieces = [self._held[number] for number in numbers]
        first, at = pieces[0]
        frames = first.trace if at == 0 else None  # a run keeps the frames of its first replicate alone

        def rows(kind: str, name: str) -> Any:
            own = [getattr(stored.trace, kind)[name][at] for stored, at in pieces]
            return np.ascontiguousarray(np.stack(own))

        trace = Trace(
            step=first.trace.step,
            series={name: rows("series", name) for name in first.trace.series},
            finals={name: rows("finals", name) for name in first.trace.finals},
            frame_step=np.zeros(0, dtype=np.int64) if frames is None else frames.frame_step,
            frames={} if frames is None else frames.frames,
            stopped=tuple(stored.trace.stopped[at] for stored, at in pieces),
        )
        runs = {id(stored): stored.wall_s for stored, _ in pieces}
        return Pool(self.lab, self.params, tuple(numbers), trace, first.provenance["fingerprint"], sum(runs.values()))


def _alarm_unless_elsewhere(number: int, one: Stored, other: Stored) -> None:
    """Equal bits are promised on one machine: on another one, and by a GPU, the first replicate stays."""
    if one.provenance["fingerprint"] != other.provenance["fingerprint"]:
        return
    if {one.provenance["device"], other.provenance["device"]} != {"cpu"}:
        return
    keys = " and ".join(stored.manifest["key"][:12] for stored in (one, other))
    raise ReproducibilityAlarm(
        f"Replicate {number} was computed twice on the same machine, and the runs {keys} hold different traces of it. "
        f"Both were kept; please report this."
    )
