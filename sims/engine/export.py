"""A run as a file for other programs: exactly the recorded series, its end values, and how to repeat it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import UnknownName
from .store import Stored, _array_bytes, _series_bytes

FORMATS = ("parquet", "csv", "json", "npz")


def export(run: Stored, format: str) -> bytes:
    """The run in one of FORMATS. Raises UnknownName.

    parquet, csv: one row per replicate and recorded step, a column per series (absent numbers are empty).
    json: manifest, series and finals, readable by `python -m sims rerun`.
    npz: every array of the trace under its name (`series/...`, `finals/...`, `frames/...`).
    """
    if format not in FORMATS:
        raise UnknownName("export format", format, FORMATS)
    return {"parquet": _parquet, "csv": _csv, "json": _json, "npz": _npz}[format](run)


def _parquet(run: Stored) -> bytes:
    return _series_bytes(run.trace)


def _csv(run: Stored) -> bytes:
    trace, sink = run.trace, io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["replicate", "step", *trace.series])
    for r in range(trace.replicates):
        for t, step in enumerate(trace.step):
            values = (series[r, t] for series in trace.series.values())
            writer.writerow([r, step, *(repr(float(value)) if math.isfinite(value) else "" for value in values)])
    return sink.getvalue().encode()


def _json(run: Stored) -> bytes:
    trace = run.trace
    content = {
        **run.manifest,
        "step": trace.step.tolist(),
        "series": {name: plain(values) for name, values in trace.series.items()},
        "finals": {name: plain(values) for name, values in trace.finals.items()},
    }
    return json.dumps(content, allow_nan=False, indent=1).encode() + b"\n"


def _npz(run: Stored) -> bytes:
    with np.load(io.BytesIO(_array_bytes(run.trace)), allow_pickle=False) as loaded:
        arrays: dict[str, Any] = {name: loaded[name] for name in loaded.files}
    arrays |= {"step": run.trace.step, **{f"series/{name}": a for name, a in run.trace.series.items()}}
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def plain(value: Any) -> Any:
    """Arrays and numbers as JSON holds them: lists and floats, None for what is not finite."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
