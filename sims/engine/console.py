"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import shorten


def print_json(value: Any) -> None:
    """One JSON value, and nothing else."""
    from .export import plain

    print(json.dumps(plain(value), allow_nan=False))


def say(text: str) -> None:
    """A line on standard error, where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)


def progress(label: str) -> Callable[[float], None]:
    """A progress line on stderr: redrawn in place on a terminal, one line per tenth elsewhere."""
    last = [-1]

    def show(fraction: float) -> None:
        percent = int(100 * fraction)
        if sys.stderr.isatty():
            end = "\n" if percent >= 100 else ""
            print(f"\r{label}: {percent:3d} %", end=end, file=sys.stderr, flush=True)
        elif percent // 10 > last[0]:
            last[0] = percent // 10
            say(f"{label}: {percent} %")

    return show


def print_run(run: Any) -> None:
    """A run: its key, its metrics, its verdicts."""
    cached = " (stored)" if run.cached else ""
    print(f"{run.lab} version {run.version}, key {run.key}{cached}")
    made = run.provenance
    where = "" if made["backend"] == "numba" else f" ({made['backend']}, {made['device']}, {made['dtype']})"
    print(f"trace {run.trace_sha256}, grade {made['grade']}{where}, {run.wall_s:.3g} s")
    if run.diverged:
        steps = sorted(stop.step for stop in run.trace.stopped if stop is not None)
        print(f"{run.diverged} of {run.trace.replicates} replicates diverged, the first at step {steps[0]}.")
    print_metrics({name: {"mean": m.mean, "se": m.se, "n": m.n} for name, m in run.metrics.items()})
    if run.claims:
        print()
        columns = ("id", "predicted", "measured", "error", "tolerance", "verdict", "reason")
        print_table([{name: getattr(verdict, name) for name in columns} for verdict in run.claims])


def print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each metric."""
    print_table([{"metric": name, **metric} for name, metric in metrics.items()])


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows under their names, in columns."""
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([short(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def short(value: Any) -> str:
    """A cell of a table: five digits of a number, a dash for none; what steers a terminal is made visible."""
    if value is None:
        return "-"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else shorten(text, len(text))


def tupled(value: Any) -> Any:
    """A list as the tuple that a field holds."""
    return tuple(value) if isinstance(value, list) else value
