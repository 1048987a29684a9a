"""One point of a stored sweep: found by its run key, run again, and compared with the sweep's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadInput, UnknownName
from .execute import Run, execute
from .lab import Lab
from .params import Params
from .parquet import parquet_file, read_table
from .store import Store
from .sweep import Sweep, open_sweep
from .sweep_store import sweep_names


@dataclass(frozen=True)
class Point:
    """A point of a sweep as its table has it: a hash for each replicate, and the machine that computed it."""

    sweep: Sweep
    point: int
    key: str
    replicate_sha256: tuple[str, ...]
    fingerprint: Mapping[str, str]

    @property
    def lab(self) -> Lab:
        return self.sweep.lab

    @property
    def params(self) -> Params:
        """The params of its run, replicates included."""
        return self.sweep.design.params(self.point)


@dataclass(frozen=True)
class Checked:
    """A point's run beside the sweep's table. `grade` is what the machines promise: A equal bits, B agreement."""

    point: Point
    run: Run
    grade: Literal["A", "B"]
    same_bits: bool

    @property
    def agrees(self) -> bool:
        """Whether the run is what the table says, as far as hashes can tell: on another machine bits may differ."""
        return self.same_bits or self.grade == "B"

    @property
    def sentence(self) -> str:
        words = f"the sweep {self.point.sweep.name[:12]} has of point {self.point.point}"
        if self.same_bits:
            return f"Grade {self.grade}: bit for bit what {words}."
        if self.grade == "A":
            return f"Grade A: NOT the bits that {words}, on the same machine and libraries."
        return f"Grade B: another machine or other libraries, and other bits than {words}; none are promised there."

    def as_dict(self) -> dict[str, Any]:
        return {
            "sweep": self.point.sweep.name,
            "point": self.point.point,
            "grade": self.grade,
            "agrees": self.agrees,
            "same_bits": self.same_bits,
            "sentence": self.sentence,
        }


def find_point(key: str, store: Store | None = None) -> Point:
    """The point whose run key starts with `key` (at least 6 characters), in the latest sweep that has it.

    Raises:
        UnknownName: no stored sweep has such a point.
        BadInput: several have.
        DamagedRun: its part is damaged.
    """
    import pyarrow.compute as pc

    store = Store() if store is None else store
    matches: dict[str, tuple[str, int]] = {}
    for name in sweep_names(store) if len(key) >= 6 else []:
        for path in sorted((store.path / "sweeps" / name / "parts").glob("*.parquet")):
            file = parquet_file(path)
            if "replicate_sha256" not in file.schema_arrow.names:
                continue  # theory alone has no trace
            keys = read_table(file, ["key"]).column("key")
            for one in pc.unique(keys.filter(pc.starts_with(keys, key))).to_pylist():
                matches.setdefault(one, (name, int(path.name[:6])))
    if not matches:
        raise UnknownName("point of a stored sweep", key, [name[:12] for name in sweep_names(store)[:8]])
    if len(matches) > 1:
        raise BadInput(f"The key {key} fits {len(matches)} points of stored sweeps: write more of it.")
    ((full, (name, chunk)),) = matches.items()
    return _point(open_sweep(name, store), chunk, full)


def _point(sweep: Sweep, chunk: int, key: str) -> Point:
    rows = sweep.folder.read(chunk, ["point", "key", "replicate_sha256"])
    mine = [i for i, one in enumerate(rows.column("key").to_pylist()) if one == key]
    hashes = rows.column("replicate_sha256").to_pylist()
    return Point(
        sweep=sweep,
        point=rows.column("point")[mine[0]].as_py(),
        key=key,
        replicate_sha256=tuple(hashes[i] for i in mine),
        fingerprint=sweep.folder.meta(chunk)["fingerprint"],
    )


def check_point(
    point: Point, *, store: Store | None = None, on_progress: Callable[[float], None] | None = None
) -> Checked:
    """Run a point and compare its replicates with the table.

    A `store` keeps the run, and gives it back where it is kept already; without one it is computed.
    """
    run = execute(point.lab, point.params, store=store, on_progress=on_progress)
    same_machine = dict(point.fingerprint) == dict(run.provenance["fingerprint"])
    return Checked(
        point, run, "A" if same_machine else "B", tuple(run.trace.replicate_sha256) == point.replicate_sha256
    )
