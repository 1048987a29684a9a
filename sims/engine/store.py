"""The run store: one directory per run, named by its key; an index that can be thrown away.

A run is written aside, synced, and renamed into place with a manifest that holds the SHA-256 of every file.
The manifest is checked on reading, so a damaged run is reported and never half read. The SQLite index only
speeds up listings: it is rebuilt from the directories whenever it is missing, damaged, or behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadInput, DamagedRun, ReproducibilityAlarm, StoreError, UnknownName
from .params import canonical_json
from .parquet import parquet_file, read_table
from .trace import Stop, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .execute import Run

SCHEMA = 1
STALE_SECONDS = 3600.0
_HEXADECIMAL = frozenset("0123456789abcdef")
_SERIES, _ARRAYS, _MANIFEST = "series.parquet", "arrays.npz", "manifest.json"
COLUMNS = (  # of the index
    "key",
    "family",
    "lab",
    "version",
    "created",
    "replicates",
    "trace_sha256",
    "wall_s",
    "params",
    "metrics",
)
_TEXTS = {"params", "metrics"}  # those of them that are kept as JSON


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 200


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_stop(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str)
    )


# What every reader may rely on, whoever wrote the manifest: a seal says only that nothing was altered afterwards.
_PARTS: Mapping[str, Callable[[Any], bool]] = {
    "schema": lambda value: value == SCHEMA,
    "key": _is_word,
    "family": _is_word,
    "lab": _is_word,
    "version": _is_count,
    "created": _is_word,
    "replicates": _is_count,
    "params": lambda value: isinstance(value, dict),
    "trace_sha256": _is_word,
    "stopped": lambda value: isinstance(value, list) and all(map(_is_stop, value)),
    "metrics": lambda value: (
        isinstance(value, dict)
        and all(isinstance(one, dict) and {"mean", "se", "n"} <= one.keys() for one in value.values())
    ),
    "provenance": lambda value: isinstance(value, dict) and isinstance(value.get("fingerprint"), dict),
    "wall_s": _is_number,
    "files": lambda value: isinstance(value, dict) and value.keys() == {_SERIES, _ARRAYS},  # and none elsewhere
}


@dataclass(frozen=True)
class Stored:
    """A run as it lies in the store: its manifest and, checked against it, its trace."""

    manifest: Mapping[str, Any]
    trace: Trace

    @property
    def provenance(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest["provenance"]
        return found

    @property
    def wall_s(self) -> float:
        return float(self.manifest["wall_s"])


def default_path() -> Path:
    """`CHALKLINE_STORE`, else a folder in the user's data directory."""
    import platformdirs

    return Path(os.environ.get("CHALKLINE_STORE") or Path(platformdirs.user_data_dir("chalkline")) / "store")


class Store:
    """A folder of runs. Opening it creates nothing; several processes may share it."""

    def __init__(self, path: Path | str | None = None):
        self.path = default_path() if path is None else Path(path)

    # -- reading ---------------------------------------------------------------------------------------------

    def find(self, key: str) -> Stored | None:
        """The run of that key, or None.

        Raises:
            DamagedRun: the run is there but does not match its manifest.
        """
        folder = self._folder(key)
        return self._read(folder) if folder.is_dir() else None

    def holds(self, key: str) -> bool:
        """Whether a run of that key lies here, sound or not."""
        return self._folder(key).is_dir()

    def load(self, key: str) -> Stored:
        """The run whose key starts with `key`.

        Raises:
            UnknownName: no run, or several, of that key.
            DamagedRun: the run does not match its manifest.
        """
        return self._read(self._folder(self.resolve(key)))

    def resolve(self, key: str) -> str:
        """The full key of the one run whose key starts with `key` (at least 6 characters)."""
        if len(key) >= 6 and set(key) <= _HEXADECIMAL:
            matches = [name for name in self.keys() if name.startswith(key)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise BadInput(f"The key {key} fits {len(matches)} stored runs: write more of it.")
        raise UnknownName("stored run", key, [name[:12] for name in self.keys()[:8]])

    def keys(self) -> list[str]:
        """The keys of all runs in the store, sorted."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._runs) as shelves:
            for shelf in shelves:
                with contextlib.suppress(OSError), os.scandir(shelf.path) as folders:
                    found += [folder.name for folder in folders if _is_key(folder.name)]
        return sorted(found)

    def rows(self, lab: str | None = None, columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
        """One row per run with those of the `COLUMNS` that are asked for, newest first, from the index.

        The metrics of a run are a hundred numbers: who lists runs by their keys and dates does not ask for them.
        """
        try:
            return self._select(lab, columns)
        except (sqlite3.DatabaseError, ValueError):  # damaged beyond what opening it can see
            self._drop_index()
            return self._select(lab, columns)

    def of_family(self, family: str, catch_up: bool = True) -> list[str]:
        """The keys of the stored runs of a family.

        Without `catch_up` the directories are not looked through for runs that the index has not been told of.
        """
        sql = "SELECT key FROM runs WHERE family = ? ORDER BY key"
        try:
            with self._index(catch_up) as index:
                return [key for (key,) in index.execute(sql, (family,))]
        except sqlite3.DatabaseError:  # damaged beyond what opening it can see
            self._drop_index()
            with self._index() as index:
                return [key for (key,) in index.execute(sql, (family,))]

    def verify(self, keys: Sequence[str] | None = None) -> dict[str, str | None]:
        """Check runs against their manifests; the damaged are moved to `quarantine/` if that can be written.

        Returns:
            for each key None if it is sound, else what is wrong with it.
        """
        report: dict[str, str | None] = {}
        for key in self.keys() if keys is None else map(self.resolve, keys):
            try:
                self._read(self._folder(key))
                report[key] = None
            except DamagedRun as damage:
                report[key] = str(damage)
                try:
                    self._quarantine(key)
                except StoreError as error:
                    report[key] = f"{damage} It could not be moved: {error}"
        return report

    # -- writing ---------------------------------------------------------------------------------------------

    def require_writable(self) -> None:
        """Raises StoreError, with the way out, unless runs can be written here."""
        try:
            self.aside.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.aside):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def require_free(self, size: float) -> None:
        """Raises StoreError where the store's disk has less than `size` bytes left."""
        place = next((folder for folder in (self.path, *self.path.parents) if folder.is_dir()), None)
        if size and place is not None and shutil.disk_usage(place).free < size:
            raise StoreError(
                f"The disk of the run store {self.path} is nearly full; this run was not kept. Make room there, or set "
                f"CHALKLINE_STORE to a folder with free space."
            )

    def put(self, run: Run) -> Path:
        """Keep a run; returns its folder. A run of the same key that is already there stays.

        Raises:
            ReproducibilityAlarm: the stored run of this key has another trace.
            StoreError: the store cannot be written (read-only, disk full).
        """
        self.sweep()
        final = self._folder(run.key)
        aside: str | None = None
        try:
            self.aside.mkdir(parents=True, exist_ok=True)
            aside = tempfile.mkdtemp(dir=self.aside)
            manifest = self._write(Path(aside), run)
            final.parent.mkdir(parents=True, exist_ok=True)
            self._into_place(Path(aside), final, run)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)
        with (
            contextlib.suppress(sqlite3.Error),
            self._index(catch_up=False) as index,
        ):  # the next listing catches up
            _insert(index, manifest)
        return final

    def sweep(self) -> None:
        """Remove what a writer left behind more than an hour ago."""
        for left in self.aside.glob("*"):
            with contextlib.suppress(OSError):  # another process may sweep too
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def rebuild(self) -> int:
        """Build the index anew from the directories; returns the number of runs in it."""
        self._drop_index()
        with self._index() as index:
            return int(index.execute("SELECT count(*) FROM runs").fetchone()[0])

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _runs(self) -> Path:
        return self.path / "runs"

    @property
    def aside(self) -> Path:
        """Where files are written before they are renamed into place; `sweep` clears it."""
        return self.path / "aside"

    @property
    def _index_path(self) -> Path:
        return self.path / "index.sqlite"

    def _folder(self, key: str) -> Path:
        if not _is_key(key):
            raise UnknownName("stored run", key, [])
        return self._runs / key[:2] / key

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"The run store {self.path} cannot be written ({why_not(error)}); nothing stored was changed. Set "
            f"CHALKLINE_STORE to a writable folder with free space, or keep nothing with --no-store."
        )

    def _write(self, folder: Path, run: Run) -> dict[str, Any]:
        files = {_SERIES: _series_bytes(run.trace), _ARRAYS: _array_bytes(run.trace)}
        for name, content in files.items():
            write_synced(folder / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        manifest = {**manifest_of(run), "files": sums}
        write_synced(folder / _MANIFEST, seal(manifest))
        sync(folder)
        return manifest

    def _into_place(self, aside: Path, final: Path, run: Run) -> None:
        """Rename a written run to its key; where a run lies already it stays, unless it is damaged."""
        for _ in range(2):
            try:
                os.rename(aside, final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                try:
                    self._compare(run)
                    return
                except DamagedRun:
                    self._quarantine(run.key)
            else:
                sync(final.parent)
                sync(self._runs)
                return

    def _read(self, folder: Path) -> Stored:
        manifest = self._manifest(folder)
        contents = {}
        for name, expected in manifest["files"].items():
            try:
                contents[name] = (folder / name).read_bytes()
            except OSError as error:
                raise self._damaged(folder, f"{name} cannot be read ({error.strerror})") from None
            if hashlib.sha256(contents[name]).hexdigest() != expected:
                raise self._damaged(folder, f"{name} does not match its SHA-256")
        try:
            trace = _trace(manifest, contents[_SERIES], contents[_ARRAYS])
        except Exception as error:  # a sealed run whose files are no series and arrays: its decoders fail in any way
            raise self._damaged(folder, f"its files are not a trace ({type(error).__name__})") from None
        if trace.sha256 != manifest["trace_sha256"]:
            raise self._damaged(folder, "the trace does not match its hash")
        return Stored(manifest, trace)

    def _manifest(self, folder: Path) -> dict[str, Any]:
        try:
            manifest = unseal((folder / _MANIFEST).read_bytes())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._damaged(folder, f"the manifest is not sound ({error})") from None
        form = manifest.get("schema")
        if isinstance(form, int) and form != SCHEMA:
            raise StoreError(
                f"The stored run {folder.name[:12]} has the form {form}, and this software reads form {SCHEMA}: "
                f"read it with the version that wrote it."
            )
        wrong = [name for name, sound in _PARTS.items() if not sound(manifest.get(name))]
        if wrong:
            raise self._damaged(folder, f"the manifest has no sound {wrong[0]}")
        if manifest["key"] != folder.name:
            raise self._damaged(folder, "the manifest belongs to another run")
        return manifest

    def _damaged(self, folder: Path, what: str) -> DamagedRun:
        return DamagedRun(
            f"The stored run {folder.name[:12]} is damaged: {what}. It is not used; `python -m sims verify` "
            f"moves it to quarantine, and running it again replaces it."
        )

    def _quarantine(self, key: str) -> None:
        target = self.path / "quarantine" / f"{key}-{time.time_ns()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self._folder(key), target)
        except FileNotFoundError:
            return  # another process has moved it
        except OSError as error:
            raise self._unwritable(error) from error
        with contextlib.suppress(sqlite3.Error), self._index(catch_up=False) as index:
            index.execute("DELETE FROM runs WHERE key = ?", (key,))

    def _compare(self, run: Run) -> None:
        stored = self._read(self._folder(run.key))
        if stored.trace.sha256 == run.trace_sha256:
            return
        if stored.provenance["fingerprint"] != run.provenance["fingerprint"]:
            return  # another machine: equal bits are not promised, the first stays
        if run.provenance["device"] != "cpu":
            return  # nor are they by a GPU, whose sums may be taken in any order
        raise ReproducibilityAlarm(
            f"The run {run.key[:12]} was computed again on the same machine and gave another trace "
            f"({run.trace_sha256[:12]} instead of {stored.trace.sha256[:12]}). The stored one was kept; "
            f"please report this."
        )

    @contextlib.contextmanager
    def _index(self, catch_up: bool = True) -> Iterator[sqlite3.Connection]:
        """The index; with `catch_up` in step with the directories."""
        connection = self._open_index(catch_up)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def _open_index(self, catch_up: bool) -> sqlite3.Connection:
        """The index on disk, made anew where it is damaged; in memory where it cannot be written."""
        for _ in range(2):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                connection = _create(sqlite3.connect(self._index_path, timeout=30))
                if catch_up:
                    self._catch_up(connection)
                return connection
            except (OSError, sqlite3.OperationalError):
                break  # read-only or locked: serve the listing from memory
            except sqlite3.DatabaseError:
                self._drop_index()
        connection = _create(sqlite3.connect(":memory:"))
        self._catch_up(connection)
        return connection

    def _select(self, lab: str | None, columns: Sequence[str]) -> list[dict[str, Any]]:
        where, values = ("WHERE lab = ?", (lab,)) if lab else ("", ())
        sql = f"SELECT {', '.join(columns)} FROM runs {where} ORDER BY created DESC, key"
        with self._index() as index:
            found = [dict(zip(columns, row, strict=True)) for row in index.execute(sql, values)]
        for column in _TEXTS & set(columns):
            for row in found:
                row[column] = json.loads(row[column])
        return found

    def _drop_index(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._index_path}{suffix}").unlink(missing_ok=True)

    def _catch_up(self, index: sqlite3.Connection) -> None:
        present = set(self.keys())
        indexed = {row[0] for row in index.execute("SELECT key FROM runs")}
        with index:
            index.executemany("DELETE FROM runs WHERE key = ?", [(key,) for key in indexed - present])
            for key in present - indexed:
                with contextlib.suppress(DamagedRun):
                    _insert(index, self._manifest(self._folder(key)))


def manifest_of(run: Run) -> dict[str, Any]:
    """What the store keeps about a run besides its arrays."""
    trace = run.trace
    return {
        "schema": SCHEMA,
        "key": run.key,
        "family": run.family,
        "lab": run.lab,
        "version": run.version,
        "created": run.provenance["created"],
        "replicates": trace.replicates,
        "params": dict(run.params.active()),
        "trace_sha256": trace.sha256,
        "replicate_sha256": list(trace.replicate_sha256),
        "stopped": [None if stop is None else [stop.step, stop.reason] for stop in trace.stopped],
        "metrics": {name: {"mean": m.mean, "se": m.se, "n": m.n} for name, m in run.metrics.items()},
        "provenance": dict(run.provenance),
        "wall_s": run.wall_s,
    }


def as_stored(run: Run) -> Stored:
    """A run in the form that the store returns, without storing it."""
    return Stored(manifest_of(run), run.trace)


def why_not(error: OSError) -> str:
    """Why something could not be written, in words."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return "the disk is full" if full else error.strerror or str(error)


def seal(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as it is written: canonical JSON with its own SHA-256."""
    own = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
    return canonical_json({**manifest, "manifest_sha256": own}).encode()


def unseal(content: bytes) -> dict[str, Any]:
    """The manifest that was sealed. Raises ValueError, KeyError, AttributeError or TypeError where it is not sound."""
    manifest: dict[str, Any] = json.loads(content)
    own = manifest.pop("manifest_sha256")
    if hashlib.sha256(canonical_json(manifest).encode()).hexdigest() != own:
        raise ValueError("its own hash differs")
    if seal(manifest) != content:
        raise ValueError("its text is not as it was written")  # 1E-05 for 1e-05 reads as the same number
    return manifest


def _is_key(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEXADECIMAL


def _create(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    types = ["key TEXT PRIMARY KEY", "version INTEGER", "replicates INTEGER", "wall_s REAL"]
    typed = {column.split()[0]: column for column in types}
    columns = ", ".join(typed.get(name, f"{name} TEXT") for name in COLUMNS)
    connection.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
    connection.execute("CREATE INDEX IF NOT EXISTS by_lab ON runs (lab, created)")
    connection.execute("CREATE INDEX IF NOT EXISTS by_family ON runs (family)")
    return connection


def _insert(index: sqlite3.Connection, manifest: Mapping[str, Any]) -> None:
    values = [canonical_json(manifest[n]) if n in _TEXTS else manifest[n] for n in COLUMNS]
    index.execute(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(COLUMNS))})", values)


def _series_bytes(trace: Trace) -> bytes:
    """Parquet (zstd), one row per replicate and recorded step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "replicate": np.repeat(np.arange(trace.replicates), len(trace.step)),
        "step": np.tile(trace.step, trace.replicates),
        **{name: values.reshape(-1) for name, values in trace.series.items()},
    }

    def column(values: NDArray[Any]) -> Any:
        # pa.array would import pandas to ask whether it is handed one of its series
        kind = pa.float64() if values.dtype == np.float64 else pa.int64()
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])

    table = pa.Table.from_arrays([column(values) for values in columns.values()], names=list(columns))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _array_bytes(trace: Trace) -> bytes:
    """NPZ, stored as they are: of what is trained zlib would take a tenth, for a seventh of the time of a run."""
    sink = io.BytesIO()
    arrays = {f"finals/{name}": values for name, values in trace.finals.items()}
    arrays |= {f"frames/{name}": values for name, values in trace.frames.items()}
    np.savez(sink, frame_step=trace.frame_step, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def _trace(manifest: Mapping[str, Any], series: bytes, arrays: bytes) -> Trace:
    table = read_table(parquet_file(series))
    replicates = manifest["replicates"]
    columns = {name: _values(table.column(name).combine_chunks()) for name in table.column_names}
    step = columns["step"].reshape(replicates, -1)[0]
    with np.load(io.BytesIO(arrays), allow_pickle=False) as loaded:
        content = {name: loaded[name] for name in loaded.files}
    return Trace(
        step=np.ascontiguousarray(step, dtype=np.int64),
        series={n: c.reshape(replicates, -1) for n, c in columns.items() if n not in ("replicate", "step")},
        finals={n.removeprefix("finals/"): a for n, a in content.items() if n.startswith("finals/")},
        frame_step=content["frame_step"],
        frames={n.removeprefix("frames/"): a for n, a in content.items() if n.startswith("frames/")},
        stopped=tuple(None if stop is None else Stop(*stop) for stop in manifest["stopped"]),
    )


def _values(column: Any) -> NDArray[Any]:
    """A column without nulls as an array; `to_numpy` would import pandas."""
    dtype = np.float64 if str(column.type) == "double" else np.int64
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * 8)


def write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
