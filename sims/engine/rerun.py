"""Reruns: the same params again, with the same backend, compared with what was stored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .backends import choose
from .errors import BadInput, Problem
from .execute import Metric, Run, execute
from .lab import Lab, Tolerance
from .registry import get_lab
from .store import Store

Grade = Literal["A", "B", "C"]

BANDS = 2.0  # standard errors to either side: where such bands overlap, grade C agrees
ROUNDED = 1e-3  # relative, of means without a standard error


@dataclass(frozen=True)
class Outcome:
    """A rerun beside its original. `grade` is what the machines promise, `largest` the difference."""

    run: Run
    grade: Grade
    agrees: bool
    largest: float | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "grade": self.grade,
            "agrees": self.agrees,
            "largest_difference": self.largest,
            "sentence": self.sentence,
        }


def rerun(source: str, store: Store | None = None, on_progress: Callable[[float], None] | None = None) -> Outcome:
    """Run again what a key, a manifest file or an exported JSON file describes, without touching the store.

    Raises:
        BadInput: the source cannot be read, is of another version of the lab, or was computed on a device that is not
            here.
        DamagedRun: the stored run does not match its manifest.
    """
    store = Store() if store is None else store
    manifest, series = _original(source, store)
    lab = get_lab(str(manifest["lab"]))
    if manifest["version"] != lab.version:
        allowed = f"{lab.id} is now at version {lab.version}, whose numbers differ"
        advice = f"Check out the software of that time ({manifest['provenance'].get('commit')}) to repeat it."
        raise BadInput(Problem("version", manifest["version"], allowed, advice))
    if series is not None and series.keys() != lab.series.keys():
        raise _unreadable(source)
    made = manifest["provenance"]
    backend = choose(made.get("backend"), made.get("device"), made.get("dtype"))
    run = execute(lab, lab.params.make(manifest["params"]), on_progress=on_progress, backend=backend)
    return _compare(lab, run, manifest, series)


def _original(source: str, store: Store) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    if not os.path.isfile(source):  # unlike Path.is_file, False for a name that is too long
        stored = store.load(source)
        return stored.manifest, stored.trace.series
    try:
        return _from_file(Path(source).resolve(), store)
    except (OSError, ValueError, TypeError, LookupError):
        raise _unreadable(source) from None


def _unreadable(source: str) -> BadInput:
    allowed = "it must be a key, a manifest, or a JSON file written by export"
    return BadInput(Problem("source", source, allowed, "List the keys with: python -m sims runs"))


def _from_file(path: Path, store: Store) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """A manifest with its series, if they are in the file, in `store`, or in the store that the file lies in."""
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = (content["params"], content["provenance"], content["provenance"]["fingerprint"])
    if not (all(isinstance(part, dict) for part in parts) and {"lab", "version", "trace_sha256"} <= content.keys()):
        raise TypeError("not a manifest")
    if "series" in content:
        return content, {name: np.array(a, dtype=float) for name, a in dict(content["series"]).items()}
    for place in (store, *map(Store, path.parents[3:4])):
        found = place.find(content["key"])
        if found is not None:
            return content, found.trace.series
    return content, None


def _compare(lab: Lab, run: Run, manifest: Mapping[str, Any], series: Mapping[str, Any] | None) -> Outcome:
    same_machine = manifest["provenance"]["fingerprint"] == dict(run.provenance["fingerprint"])
    same_bits = run.trace_sha256 == manifest["trace_sha256"]
    if (
        same_bits
        and series is not None
        and not all(_equal(run.trace.series[n], values) for n, values in series.items())
    ):
        return Outcome(
            run,
            "A" if same_machine else "B",
            False,
            None,
            "The stored series are NOT those of the stored hash.",
        )
    if run.provenance["grade"] == "C":
        return _compare_bands(run, manifest, same_bits)
    if same_machine:
        words = "bit for bit the same" if same_bits else "NOT the same bits, on the same machine and libraries"
        return Outcome(run, "A", same_bits, 0.0 if same_bits else None, f"Grade A: {words}.")
    if same_bits:
        return Outcome(run, "B", True, 0.0, "Grade B: another machine or other libraries, and yet the same bits.")
    if series is None:
        raise BadInput(
            "The stored series is not at hand, and bits are not comparable across machines: "
            "export the run as JSON there."
        )
    largest = max(_excess(run.trace.series[name], values, lab.grade_b) for name, values in series.items())
    agrees = largest <= 1.0
    words = "agree with" if agrees else "differ from"
    sentence = (
        f"Grade B: another machine or other libraries; the series {words} the stored ones within the lab's "
        f"tolerance ({lab.grade_b.relative:g} relative): largest difference {largest:.3g} of it."
    )
    return Outcome(run, "B", agrees, largest, sentence)


def _compare_bands(run: Run, manifest: Mapping[str, Any], same_bits: bool) -> Outcome:
    """Grade C promises overlapping bands: each metric's mean within two standard errors, of either run, of the other.

    Where there is none, because there is one replicate or all agree, the means may differ by rounding.
    """
    made = run.provenance
    words = f"{made['backend']} on {made['device']}, {made['dtype']}"
    if same_bits:
        return Outcome(run, "C", True, 0.0, f"Grade C ({words}): and yet bit for bit the same.")
    largest = max(
        (
            _apart(run.metrics[name], metric)
            for name, metric in manifest.get("metrics", {}).items()
            if name in run.metrics
        ),
        default=float("inf"),
    )
    agrees = largest <= 1.0
    overlap = "overlap" if agrees else "do NOT overlap"
    sentence = (
        f"Grade C ({words}): the bands of the metrics, {BANDS:g} standard errors to either side, {overlap}; "
        f"largest distance {largest:.3g} of what that allows."
    )
    return Outcome(run, "C", agrees, largest, sentence)


def _apart(ours: Metric, theirs: Mapping[str, Any]) -> float:
    """Distance of two means in units of what their bands allow; infinite where only one of them exists."""
    if ours.mean is None or theirs["mean"] is None:
        return 0.0 if ours.mean is None and theirs["mean"] is None else float("inf")
    allowed = BANDS * ((ours.se or 0.0) + (theirs["se"] or 0.0)) + ROUNDED * max(abs(ours.mean), abs(theirs["mean"]))
    gap = abs(ours.mean - theirs["mean"])
    return gap / allowed if allowed > 0 else 0.0 if gap == 0 else float("inf")


def _equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the series are equal, as far as JSON can hold them: what is not finite is absent there."""
    return ours.shape == theirs.shape and bool(np.all((ours == theirs) | (~np.isfinite(ours) & ~np.isfinite(theirs))))


def _excess(ours: np.ndarray, theirs: np.ndarray, tolerance: Tolerance) -> float:
    """Largest difference in units of the tolerance; infinite where one is missing and the other is not."""
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    allowed = tolerance.absolute + tolerance.relative * np.abs(theirs)
    return float(np.nanmax(np.abs(ours - theirs) / allowed, initial=0.0))
