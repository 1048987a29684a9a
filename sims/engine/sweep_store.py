"""Sweeps on disk: a folder under the run store, with a sealed manifest and one Parquet part for each chunk.

A part is written aside, synced, and renamed to a name that holds its SHA-256, so that a part that is there is
whole and a damaged one is noticed. Only the submitting process writes, under a lock. `summary.parquet` follows
from the parts and is written when a session ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadInput, DamagedRun, Problem, StoreError, UnknownName
from .params import canonical_json
from .parquet import parquet_file, read_table
from .store import Store, seal, sync, unseal, why_not, write_synced

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SCHEMA = 1
_MANIFEST, _PARTS, _SUMMARY, _LOCK = "manifest.json", "parts", "summary.parquet", "lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PART = re.compile(r"(\d{6})-([0-9a-f]{64})\.parquet")
_META = b"chalkline"

PREDICTED, CLAIMED, VERDICT = "predicted_", "claimed_", "verdict_"
OF_POINTS = (PREDICTED, CLAIMED, VERDICT)  # last in a table: what all replicates of a point share
LEADING = ("point",)  # before the axes
IDENTITY = ("seed", "replicate", "key", "replicate_sha256", "trace_sha256", "stopped", "stopped_reason")  # after them


@dataclass(frozen=True)
class Part:
    """What a chunk came to: columns with a row for each point and replicate, and the points that failed.

    A column is an array of numbers, NaN where absent, or a list with None where absent, whose type is in `kinds`:
    `int`, `float` or `bool`, else text.
    """

    columns: Mapping[str, Any]
    kinds: Mapping[str, str]
    failures: Sequence[tuple[int, str]]
    fingerprint: Mapping[str, str]


@dataclass
class SweepFolder:
    """One sweep's folder. `names` gives the file of each chunk whose part lies there and is sound."""

    store: Store
    name: str
    manifest: dict[str, Any]
    names: dict[int, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    _failed: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # of parts, by their file

    @property
    def path(self) -> Path:
        return sweep_path(self.store, self.name)

    @cached_property
    def chunks(self) -> list[tuple[int, int]]:
        """First point of each chunk and the one after its last."""
        stops = [stop for stop, _ in self.manifest["chunks"]]
        return list(zip([0, *stops[:-1]], stops, strict=True))

    @cached_property
    def seconds(self) -> list[float]:
        """Estimated seconds of each chunk on one core."""
        return [seconds for _, seconds in self.manifest["chunks"]]

    @property
    def missing(self) -> list[int]:
        return [chunk for chunk in range(len(self.manifest["chunks"])) if chunk not in self.names]

    def look(self, repair: bool = False) -> None:
        """Find the sound parts; damaged ones are noticed, and with `repair` moved to the store's quarantine."""
        self.names, self.notices = {}, []
        for path in sorted((self.path / _PARTS).glob("*.parquet")):
            problem = self._problem(path)
            if problem is None:
                self.names[int(path.name[:6])] = path.name
                continue
            damage = f"The part {path.name[:12]} of the sweep {self.name} is damaged: {problem}"
            self.notices.append(f"{damage}. It is not used; the command of the sweep computes its points again.")
            if repair:
                self._set_aside(path)

    def _problem(self, path: Path) -> str | None:
        """What is wrong with a part; None if it is sound."""
        named = _PART.fullmatch(path.name)
        if named is None or int(named[1]) >= len(self.manifest["chunks"]):
            return "it is no part of this sweep"
        if int(named[1]) in self.names:
            return "its chunk has another part"
        try:
            content = path.read_bytes()
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        if hashlib.sha256(content).hexdigest() != named[2]:
            return "it does not match its SHA-256"
        if self.manifest["parts"].get(named[1], named[2]) != named[2]:
            return "it is not the part that the manifest names"
        if _meta(content)["sweep"] != self.manifest["key"]:
            return "it belongs to another sweep"
        return None

    def _set_aside(self, path: Path) -> None:
        target = self.store.path / "quarantine" / f"{self.name}-{path.name}-{time.time_ns()}"
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
            self.manifest["parts"].pop(path.name[:6], None)

    # -- writing ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep; the lock falls with the process. Raises BadInput while another process holds it."""
        with self._writing():
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BadInput(
                    f"Another process is computing the sweep {self.name}. Wait for it, stop it, or give another --name."
                ) from None
            yield
        finally:
            os.close(handle)

    def put(self, chunk: int, part: Part) -> None:
        """Keep the part of a chunk, synced. Raises StoreError."""
        content = _part_bytes(self.manifest["key"], chunk, part)
        name = f"{chunk:06d}-{hashlib.sha256(content).hexdigest()}.parquet"
        self._place(name, content, self.path / _PARTS)
        self.names[chunk], self._failed[name] = name, list(part.failures)

    def finish(self, summary: pa.Table) -> None:
        """Write the summary and, with the sums of all files that there are, the manifest."""
        content = table_bytes(summary)
        self.manifest["parts"] = {name[:6]: name[7:71] for name in self.names.values()}
        self.manifest["files"] = {_SUMMARY: hashlib.sha256(content).hexdigest()}
        self.manifest["state"] = "running" if self.missing else "complete"
        self._place(_SUMMARY, content, self.path)
        self._place(_MANIFEST, seal(self.manifest), self.path)

    def _place(self, name: str, content: bytes, folder: Path) -> None:
        with self._writing():
            self.store.aside.mkdir(parents=True, exist_ok=True)
            aside = self.store.aside / f"{uuid.uuid4().hex}-{name}"
            try:
                write_synced(aside, content)
                os.replace(aside, folder / name)
                sync(folder)
            finally:
                aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.store, self.name, len(self.names), len(self.manifest["chunks"]), error) from error

    # -- reading ---------------------------------------------------------------------------------------------

    def read(self, chunk: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The table of a chunk, its bytes checked. Raises DamagedRun."""
        name = self.names[chunk]
        try:
            content = (self.path / _PARTS / name).read_bytes()
        except OSError as error:
            raise self._damaged(name, f"cannot be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != name[7:71]:
            raise self._damaged(name, "does not match its SHA-256")
        return read_table(parquet_file(content), columns)

    def _damaged(self, name: str, what: str) -> DamagedRun:
        return DamagedRun(
            f"The part {name[:12]} of the sweep {self.name} {what}. It is not used; the command of the sweep "
            f"computes its points again."
        )

    def table(self) -> pa.Table:
        """Rows of all parts, in order of point and replicate; a column that a part lacks is null there."""
        import pyarrow as pa

        parts = [self.read(chunk).replace_schema_metadata(None) for chunk in sorted(self.names)]
        if not parts:
            return pa.table({})
        whole = pa.concat_tables(parts, promote_options="default")
        return whole.select(ordered(whole.column_names, self.manifest["design"]["axes"]))

    def failures(self) -> list[tuple[int, str]]:
        """The points that failed, with the reason."""
        found = []
        for chunk, name in sorted(self.names.items()):
            if name not in self._failed:
                self._failed[name] = [(point, reason) for point, reason in self.meta(chunk)["failures"]]
            found += self._failed[name]
        return found

    def meta(self, chunk: int) -> dict[str, Any]:
        """What a part says about itself: its sweep, its failures, the fingerprint of the worker."""
        return _meta((self.path / _PARTS / self.names[chunk]).read_bytes())

    def finished(self) -> bool:
        """Whether the last session computed everything and left a sound summary."""
        return self.manifest["state"] == "complete" and self._summarized()

    def _summarized(self) -> bool:
        path, expected = self.path / _SUMMARY, self.manifest["files"].get(_SUMMARY)
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected

    def verify(self) -> list[str]:
        """What is wrong with the files of this sweep; damaged parts are moved to quarantine, as far as possible."""
        with self.locked():
            self.look(repair=True)
        found = list(self.notices)
        if self.manifest["files"] and not self._summarized():
            found.append(f"{_SUMMARY} of the sweep {self.name} is damaged; the command of the sweep writes it again.")
        for number in self.manifest["parts"]:
            if int(number) not in self.names:
                found.append(f"The part {number} of the sweep {self.name} is gone; its command computes it again.")
        return found


def ordered(names: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Column names in the order of every table: point, axes, identity, metrics, predictions, verdicts."""
    first = [*LEADING, *axes, *(name for name in IDENTITY if name not in axes)]
    others = [name for name in names if name not in first]
    return [name for name in first if name in names] + sorted(
        others, key=lambda name: next((i for i, one in enumerate(OF_POINTS, 1) if name.startswith(one)), 0)
    )


# -- folders -------------------------------------------------------------------------------------------------------


def sweep_path(store: Store, name: str) -> Path:
    """The folder of the sweep of that name. Raises BadInput for what is no name."""
    if not _NAME.fullmatch(name):
        allowed = "a name has at most 100 letters, digits, dots, dashes and underscores, the first a letter or digit"
        raise BadInput(Problem("name", name, allowed, "Leave it out: a sweep is then named by its key."))
    return store.path / "sweeps" / name


def sweep_names(store: Store) -> list[str]:
    """The names of all sweeps in the store, the latest first."""
    found = [path.parent for path in (store.path / "sweeps").glob(f"*/{_MANIFEST}")]
    found = [path for path in found if _NAME.fullmatch(path.name)]
    return [path.name for path in sorted(found, key=lambda path: (-path.stat().st_ctime_ns, path.name))]


def open_folder(store: Store, name: str, repair: bool = False) -> SweepFolder:
    """A sweep's folder with its parts checked.

    Raises:
        UnknownName: there is no sweep of that name.
        DamagedRun: its manifest is not sound.
    """
    path = sweep_path(store, name)
    if not (path / _MANIFEST).is_file():
        known = [one[:12] if len(one) == 64 else one for one in sweep_names(store)[:8]]
        raise UnknownName("stored sweep", name, known)
    try:
        manifest = unseal((path / _MANIFEST).read_bytes())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedRun(
            f"The manifest of the sweep {name} is not sound ({error}). Remove its folder {path}, or give the command "
            f"another --name."
        ) from None
    if manifest["schema"] != SCHEMA:
        raise StoreError(
            f"The sweep {name} has the form {manifest['schema']}, and this software reads form {SCHEMA}: read it with "
            f"the version that wrote it."
        )
    folder = SweepFolder(store, name, manifest)
    folder.look(repair)
    return folder


def verify_sweeps(store: Store) -> dict[str, list[str]]:
    """What is wrong with each stored sweep; damaged parts are moved to quarantine."""
    report: dict[str, list[str]] = {}
    for name in sweep_names(store):
        try:
            report[name] = open_folder(store, name).verify()
        except (BadInput, StoreError) as problem:
            report[name] = [str(problem)]
    return report


def create_folder(store: Store, name: str, manifest: Mapping[str, Any]) -> SweepFolder:
    """A new sweep's folder, in place with its manifest at once. Raises StoreError."""
    path = sweep_path(store, name)
    content = {"schema": SCHEMA, **manifest, "state": "running", "parts": {}, "files": {}}
    store.sweep()
    try:
        store.aside.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=store.aside))
        try:
            (aside / _PARTS).mkdir()
            write_synced(aside / _MANIFEST, seal(content))
            sync(aside)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(aside, 0o755)
            os.rename(aside, path)
            sync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise _unwritable(store, name, 0, len(content["chunks"]), error) from error
    return open_folder(store, name)


def _unwritable(store: Store, name: str, kept: int, chunks: int, error: OSError) -> StoreError:
    return StoreError(
        f"The sweep {name} cannot be written to {store.path} ({why_not(error)}); {kept} of its {chunks} parts are "
        f"kept. Make room, or set CHALKLINE_STORE to a writable folder with free space; the same command resumes."
    )


# -- tables --------------------------------------------------------------------------------------------------------


def arrow(columns: Mapping[str, Any], kinds: Mapping[str, str] | None = None) -> pa.Table:
    """Columns as a table. Of numbers NaN becomes null; lists are texts unless `kinds` says `int`, `float` or `bool`."""
    import pyarrow as pa

    built = [_array(values, (kinds or {}).get(name, "")) for name, values in columns.items()]
    return pa.Table.from_arrays(built, names=list(columns))


def _array(values: Any, kind: str) -> Any:
    """pa.array would import pandas, to ask whether it is handed one of its series."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        absent = np.isnan(values) if values.dtype == np.float64 else np.zeros(len(values), dtype=bool)
        numbers = np.ascontiguousarray(values)
        type_ = pa.float64() if values.dtype == np.float64 else pa.int64()
        return pa.Array.from_buffers(type_, len(values), [_present(absent), pa.py_buffer(numbers)])
    absent = np.zeros(len(values), dtype=bool)
    if None in values:
        absent[:] = [value is None for value in values]
    if kind in ("int", "float"):
        dtype, type_ = (np.int64, pa.int64()) if kind == "int" else (np.float64, pa.float64())
        numbers = np.array([0 if value is None else value for value in values], dtype=dtype)
        return pa.Array.from_buffers(type_, len(values), [_present(absent), pa.py_buffer(numbers)])
    if kind == "bool":
        bits = np.packbits(np.array([bool(value) for value in values], dtype=bool), bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [_present(absent), pa.py_buffer(bits)])
    texts = [b"" if value is None else str(value).encode() for value in values]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int32)]).astype(np.int32)
    buffers = [_present(absent), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _present(absent: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(~absent, bitorder="little")) if absent.any() else None


def numbers(column: Any) -> NDArray[np.float64]:
    """A numeric column as floats, NaN where it is null; `to_numpy` would import pandas."""
    found = []
    for chunk in column.chunks:
        dtype = np.float64 if str(chunk.type) == "double" else np.int64
        present, data = chunk.buffers()
        values = np.frombuffer(data, dtype, len(chunk), chunk.offset * 8).astype(np.float64)
        if present is not None and len(chunk):
            bits = np.unpackbits(np.frombuffer(present, np.uint8), bitorder="little")
            values[bits[chunk.offset : chunk.offset + len(chunk)] == 0] = np.nan
        found.append(values)
    return np.concatenate(found) if found else np.zeros(0)


def table_bytes(table: pa.Table, meta: Mapping[str, Any] | None = None) -> bytes:
    """The table as Parquet: Snappy, whose compressor takes nothing to set up for each of dozens of short columns."""
    import pyarrow.parquet as pq

    if meta is not None:
        table = table.replace_schema_metadata({_META: canonical_json(meta).encode()})
    sink = io.BytesIO()
    texts = [field.name for field in table.schema if str(field.type) == "string"]
    pq.write_table(table, sink, compression="snappy", use_dictionary=texts)
    return sink.getvalue()


def _part_bytes(key: str, chunk: int, part: Part) -> bytes:
    meta = {"sweep": key, "chunk": chunk, "failures": list(part.failures), "fingerprint": dict(part.fingerprint)}
    return table_bytes(arrow(part.columns, part.kinds), meta)


def _meta(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(parquet_file(content).schema_arrow.metadata[_META])
    return found
