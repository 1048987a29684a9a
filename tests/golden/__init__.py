"""Golden numbers: what a few short runs of each lab gave, and on which machine.

`tests/golden/<lab>.json` holds `version`, `fingerprint` and `runs`: for each its params, the trace hash and the
recorded end numbers. On an equal fingerprint the hashes must be equal; on another one the numbers agree within
the lab's grade-B tolerance.

    python -m tests.golden [LAB...]      write the files of labs whose version was raised; refuse the others
                                         if their numbers moved

A new lab starts with a file that holds nothing but the params of its three runs:
`{"runs": [{"params": {...}}, ...]}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sims.engine import Lab, Run, execute
from sims.engine.export import plain
from sims.engine.provenance import fingerprint

FOLDER = Path(__file__).parent


class VersionNotRaised(Exception):
    """Numbers moved and the lab's version did not."""


@dataclass(frozen=True)
class Checked:
    """One golden run, computed again: `grade` A compares bits, B numbers within the lab's tolerance."""

    params: dict[str, Any]
    grade: str
    agrees: bool
    difference: str


def path_of(lab: Lab) -> Path:
    return FOLDER / f"{lab.id}.json"


def read(lab: Lab, path: Path | None = None) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path or path_of(lab)).read_text(encoding="utf-8"))
    return content


def numbers(run: Run) -> dict[str, Any]:
    """The end of every series, and every final that is one number, of every replicate."""
    found = {name: values[:, -1] for name, values in run.trace.series.items()}
    found |= {name: values for name, values in run.trace.finals.items() if values.ndim == 1}
    return {name: plain(values) for name, values in found.items()}


def compute(lab: Lab, params: dict[str, Any]) -> dict[str, Any]:
    run = execute(lab, lab.params.make(params))
    return {"params": params, "trace_sha256": run.trace_sha256, "numbers": numbers(run)}


def check(lab: Lab, golden: dict[str, Any]) -> list[Checked]:
    """Compute the golden runs again and compare."""
    same_machine = golden["fingerprint"] == fingerprint()
    checked = []
    for old in golden["runs"]:
        new = compute(lab, old["params"])
        if same_machine:
            agrees = new["trace_sha256"] == old["trace_sha256"]
            agrees = agrees and new["numbers"] == old["numbers"]
            checked.append(Checked(old["params"], "A", agrees, "" if agrees else _worst(lab, old, new)))
        else:
            worst = _worst(lab, old, new)
            checked.append(Checked(old["params"], "B", not worst, worst))
    return checked


def _worst(lab: Lab, old: dict[str, Any], new: dict[str, Any]) -> str:
    """The names whose numbers differ by more than the grade-B tolerance; empty where none does."""
    if old["numbers"].keys() != new["numbers"].keys():
        return f"other names: {sorted(old['numbers'].keys() ^ new['numbers'].keys())}"
    beyond = []
    for name, expected in old["numbers"].items():
        theirs, ours = np.array(expected, dtype=float), np.array(new["numbers"][name], dtype=float)
        tolerance = lab.grade_b
        close = ours.shape == theirs.shape and np.allclose(
            ours, theirs, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
        )
        if not close:
            beyond.append(f"{name}: {plain(ours)} instead of {expected}")
    return "; ".join(beyond)


def regenerate(lab: Lab, path: Path | None = None) -> bool:
    """Write the lab's golden file; returns whether anything was written.

    Raises:
        VersionNotRaised: a recorded run gives other numbers, and the lab has the version that they are of.
    """
    path = path or path_of(lab)
    golden = read(lab, path)
    if golden.get("version") == lab.version:
        known = [run for run in golden["runs"] if "trace_sha256" in run]
        moved = [one for one in check(lab, {**golden, "runs": known}) if not one.agrees]
        if moved:
            raise VersionNotRaised(
                f"The numbers of {lab.id} moved and its version did not: raise `version` in sims/{lab.id}/lab.py and "
                f"say in CHANGES what changed. {moved[0].params}: {moved[0].difference}"
            )
        if len(known) == len(golden["runs"]):
            return False
    runs = [compute(lab, run["params"]) for run in golden["runs"]]
    content = {"lab": lab.id, "version": lab.version, "fingerprint": fingerprint(), "runs": runs}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return True
