"""The summary of a sweep: what follows from its rows, one row for each point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .design import Design
from .execute import summarize
from .params import format_value
from .sweep_store import IDENTITY, LEADING, OF_POINTS, arrow, numbers

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def summary_table(rows: pa.Table, design: Design, failures: Sequence[tuple[int, str]]) -> pa.Table:
    """One row for each point that was computed or failed.

    Columns: point, axes, seed, key, trace hash; `stopped`, how many replicates stopped early; of each metric
    `_mean`, `_se` and `_n` over the finite ones; predictions, and whether they are claimed; verdicts; `failed`, the
    reason where a point failed.
    """
    names = rows.column_names
    point = numbers(rows.column("point")).astype(np.int64) if "point" in names else np.zeros(0, np.int64)
    starts = np.flatnonzero(np.diff(point, prepend=-1))
    reasons = dict(failures)
    points = np.array(sorted({*point[starts].tolist(), *reasons}), dtype=np.int64)
    place = np.searchsorted(points, point[starts])
    columns: dict[str, Any] = {"point": points}
    kinds: dict[str, str] = {}
    for name in design.axes:
        columns[name], kinds[name] = _axis(design, name, points.tolist())
    shared = [name for name in ("seed", "key", "trace_sha256") if name in names and name not in design.axes]
    shared += [name for name in names if name.startswith(OF_POINTS)]
    metrics = [name for name in names if name not in (*LEADING, *design.axes, *IDENTITY, *shared)]
    before = [name for name in shared if not name.startswith(OF_POINTS)]
    for name in before:
        columns[name], kinds[name] = _first(rows.column(name), starts, place, len(points))
    if "stopped" in names:
        stops = np.isfinite(numbers(rows.column("stopped")))
        columns["stopped"] = np.zeros(len(points), dtype=np.int64)
        columns["stopped"][place] = np.add.reduceat(stops.astype(np.int64), starts) if len(starts) else []
    for name in metrics:
        for suffix, values in zip(("mean", "se", "n"), _summaries(numbers(rows.column(name)), starts), strict=True):
            columns[f"{name}_{suffix}"] = np.full(len(points), math.nan if suffix != "n" else 0, dtype=values.dtype)
            columns[f"{name}_{suffix}"][place] = values
    for name in shared[len(before) :]:
        columns[name], kinds[name] = _first(rows.column(name), starts, place, len(points))
    columns["failed"] = [reasons.get(one) for one in points.tolist()]
    return arrow(columns, kinds)


def _axis(design: Design, name: str, points: Sequence[int]) -> tuple[list[Any], str]:
    """The values that the points set on an axis, those of the base where a point is silent."""
    kind = design.lab.params.fields()[name].kind
    values = [_value(design, name, one) for one in points]
    if kind in ("int", "float", "bool"):
        return values, kind
    return [None if value is None else format_value(value) for value in values], "text"


def _value(design: Design, name: str, point: int) -> Any:
    values = design.values(point)
    if name in values:
        return values[name]
    params = design.params(point)
    return getattr(params, name) if params.is_active(name) else None


def _first(column: Any, starts: NDArray[np.int64], place: NDArray[np.int64], points: int) -> tuple[Any, str]:
    """The first entry of each point: a number, a text, or yes or no."""
    if str(column.type) not in ("string", "bool"):
        found = np.full(points, np.nan)
        found[place] = numbers(column)[starts]
        if str(column.type) == "int64":
            exact = [None] * points
            whole = column.combine_chunks()
            for to, start in zip(place.tolist(), starts.tolist(), strict=True):
                exact[to] = whole[start].as_py()
            return exact, "int"
        return found, ""
    others: list[Any] = [None] * points
    listed = column.to_pylist()
    for to, start in zip(place.tolist(), starts.tolist(), strict=True):
        others[to] = listed[start]
    return others, "bool" if str(column.type) == "bool" else "text"


def _summaries(
    values: NDArray[np.float64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean, standard error and count over the finite values of each point, bit for bit those of `summarize`."""
    edges = np.append(starts, len(values))
    counts = np.diff(edges)
    mean, error, n = np.full(len(starts), np.nan), np.full(len(starts), np.nan), np.zeros(len(starts), dtype=np.int64)
    if len(starts) and np.all(counts == counts[0]):
        table = values.reshape(len(starts), -1)
        whole = np.all(np.isfinite(table), axis=1)
        replicates = table.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            mean[whole], n[whole] = np.mean(table[whole], axis=1), replicates
            if replicates > 1:
                error[whole] = np.std(table[whole], axis=1, ddof=1) / math.sqrt(replicates)
        left = np.flatnonzero(~(whole & np.isfinite(mean)))
    else:
        left = np.arange(len(starts))
    for i in left.tolist():
        found = summarize(values[edges[i] : edges[i + 1]])
        mean[i] = math.nan if found.mean is None else found.mean
        error[i] = math.nan if found.se is None else found.se
        n[i] = found.n
    return mean, error, n
