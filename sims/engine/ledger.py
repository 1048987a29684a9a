"""The ledger: every claim of every preset, with the verdict it last had."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .budget import estimate
from .claims import Claim, Verdict, judge, unjudged
from .compiled import ROOT
from .errors import BadInput, ChalklineError
from .keys import run_key
from .lab import Expected, Lab, Preset
from .params import Params

if TYPE_CHECKING:
    from .execute import Run

PATH = ROOT / "docs" / "ledger.json"
QUICK_SECONDS = 2.0


@dataclass(frozen=True)
class Entry:
    """A claim to judge: on which runs, for which preset, with which verdict expected.

    `about` is the run of the preset that the claim speaks of, and `label` what the preset calls it.
    """

    lab: Lab
    preset: Preset
    claim: Claim
    runs: tuple[Params, ...]
    expected: Expected
    label: str
    about: Params

    @property
    def run(self) -> str:
        """Which run of the preset is judged, or how many of its own the claim is judged on."""
        return self.label if self.claim.over is None else _own_runs(len(self.runs))

    @property
    def seconds(self) -> float:
        """Predicted seconds for all its runs."""
        return sum(estimate(self.lab, params).seconds for params in self.runs)


def entries(lab: Lab) -> list[Entry]:
    """The claims of every preset of a lab, each once per distinct set of runs."""
    found: list[Entry] = []
    for preset in lab.presets:
        seen: set[tuple[str, str]] = set()
        for label, params in lab.runs(preset).items():
            for claim in lab.claims:
                if not claim.about(params):
                    continue
                runs = claim_runs(claim, params)
                identity = (claim.id, _digest(lab, runs))
                if identity not in seen:
                    seen.add(identity)
                    expected = preset.expect.get(claim.id, "holds")
                    found.append(Entry(lab, preset, claim, runs, expected, label, params))
    return found


def claim_runs(claim: Claim, params: Params) -> tuple[Params, ...]:
    """The runs that a claim about `params` is judged on."""
    return (params,) if claim.over is None else tuple(claim.over(params))


def check(
    chosen: Sequence[Entry],
    execute: Callable[[Lab, Params], Run],
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> list[dict[str, Any]]:
    """Recompute entries of the ledger; one row each, as `docs/ledger.json` holds them."""
    rows: list[dict[str, Any]] = []
    judged: dict[tuple[str, str, str], tuple[Verdict, Run | None]] = {}
    for entry in chosen:
        on_entry(entry)
        identity = (entry.lab.id, entry.claim.id, _digest(entry.lab, entry.runs))
        if identity not in judged:
            broken = next(filter(None, map(entry.claim.assumes, entry.runs)), None)
            if broken:
                judged[identity] = (unjudged(entry.claim, "outside", broken), None)
            else:
                runs = [execute(entry.lab, params) for params in entry.runs]
                judged[identity] = (judge(entry.claim, runs), runs[0])
        verdict, run = judged[identity]
        rows.append(
            {
                **verdict.as_dict(),
                "lab": entry.lab.id,
                "preset": entry.preset.id,
                "expected": entry.expected,
                "version": entry.lab.version,
                "key": run_key(entry.lab, entry.runs[0]),
                "runs": len(entry.runs),
                "runs_sha256": identity[2],
                "replicates": entry.runs[0].replicates,
                "scale": "toy",
                "device": "cpu"
                if run is None
                else f"{run.provenance['device']}: {run.provenance['fingerprint']['cpu']}",
                "date": datetime.now(UTC).date().isoformat(),
            }
        )
    return rows


def verdicts(run: Run) -> list[Verdict]:
    """The claims about a run: judged now where it alone decides, else with the verdict last recorded."""
    from .registry import get_lab

    lab = get_lab(run.lab)
    found = []
    for claim in lab.claims:
        if not claim.about(run.params):
            continue
        if claim.over is None:
            found.append(judge(claim, [run]))
            continue
        try:
            runs = claim_runs(claim, run.params)
        except BadInput as problem:  # a hundred times as many steps, say, as a run may have
            found.append(unjudged(claim, "outside", f"It is judged on runs that are not possible here. {problem}"))
            continue
        broken = next(filter(None, map(claim.assumes, runs)), None)
        if broken:
            found.append(unjudged(claim, "outside", broken))
        else:
            found.append(_recorded(lab, claim, runs))
    return found


def _recorded(lab: Lab, claim: Claim, runs: tuple[Params, ...]) -> Verdict:
    digest = _digest(lab, runs)
    for row in read():
        found = (row["lab"], row["id"], row["version"], row["runs_sha256"])
        if found == (lab.id, claim.id, lab.version, digest):
            return Verdict(
                id=claim.id,
                statement=claim.statement,
                source=claim.source,
                predicted=row["predicted"],
                measured=row["measured"],
                error=row["error"],
                tolerance=row["tolerance"],
                verdict=row["verdict"],
                reason=f"Judged on {_own_runs(row['runs'])} on {row['date']}: {row['reason']}",
            )
    advice = f"Judged on {_own_runs(len(runs))}, not made yet: python -m sims ledger {lab.id}"
    return unjudged(claim, "undecided", advice)


def _own_runs(count: int) -> str:
    return "a run of its own" if count == 1 else f"{count} runs of its own"


def audit(lab: Lab, path: Path = PATH) -> list[dict[str, Any]]:
    """Every claim of a lab's presets with the row that the ledger holds of it, and rows that outlived their claim.

    Each has `stale`: why it does not speak of the present lab, empty where it does; and `run` and `about`, as an Entry
    has them (empty and None where no preset asks for it any more). A claim without a row is `undecided`, with neither
    date nor device.
    """
    toy = {(row["preset"], row["id"], row["runs_sha256"]): row for row in _blank_rows(lab.id)}
    found: list[dict[str, Any]] = []
    for row in read(path):
        if row["lab"] != lab.id:
            continue
        blank = toy.pop((row["preset"], row["id"], row["runs_sha256"]), None)
        if blank is None:
            changed = "No preset asks for this claim on these runs any more." if row["scale"] == "toy" else ""
        else:
            changed = "" if row["statement"] == blank["statement"] else "The claim is worded differently now."
        told = {"run": "", "about": None} if blank is None else {name: blank[name] for name in ("run", "about")}
        found.append({**row, **told, "stale": outdated(row, lab) or changed})
    return found + [dict(row) for row in toy.values()]


def outdated(row: Mapping[str, Any], lab: Lab) -> str:
    """Whether a verdict is of another version of its lab, in a sentence; empty where it is not."""
    if row["version"] == lab.version:
        return ""
    return f"Judged by version {row['version']} of the lab, which is now at version {lab.version}."


@lru_cache(maxsize=256)
def _blank_rows(lab_id: str) -> tuple[dict[str, Any], ...]:
    """For each entry of a lab the row of a claim that was never judged."""
    from .registry import get_lab

    lab, advice = get_lab(lab_id), f"Not judged yet: python -m sims ledger {lab_id}"
    return tuple(
        {
            **unjudged(entry.claim, "undecided", advice).as_dict(),
            "lab": lab.id,
            "preset": entry.preset.id,
            "expected": entry.expected,
            "version": lab.version,
            "key": run_key(lab, entry.runs[0]),
            "runs": len(entry.runs),
            "runs_sha256": _digest(lab, entry.runs),
            "replicates": entry.runs[0].replicates,
            "scale": "toy",
            "device": "",
            "date": "",
            "stale": "Not judged yet.",
            "run": entry.run,
            "about": entry.about,
        }
        for entry in entries(lab)
    )


def read(path: Path = PATH) -> list[dict[str, Any]]:
    """The rows of the last ledger; none where there is no ledger yet."""
    try:
        stamp = path.stat().st_mtime_ns
    except FileNotFoundError:
        return []
    return _read(path, stamp)


def confirmed(lab_id: str | None = None) -> list[dict[str, Any]]:
    """One row for each verdict of the newest confirmations, by lab, scale and device; of one lab or of all.

    They are read from the reports beside the ledger, and have its columns where those make sense.
    """
    from .confirmations import reports

    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for report in reports(lab_id):
        newest.setdefault((report["lab"], report["scale"], report["device"]), report)
    return [
        {
            **verdict,
            "lab": report["lab"],
            "experiment": experiment["id"],
            "version": report["version"],
            "scale": report["scale"],
            "device": f"{report['device']}: {report['device_name']}",
            "date": report["created"][:10],
        }
        for _, report in sorted(newest.items())
        for experiment in report["experiments"]
        for verdict in experiment["verdicts"]
    ]


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ChalklineError(
            f"The ledger {path} is damaged ({error}). Remove it: python -m sims ledger writes it anew."
        ) from None
    return rows


def write(rows: Iterable[dict[str, Any]], path: Path = PATH) -> None:
    """Put rows into the ledger in place of the earlier rows of the same claims and presets."""
    new = {(row["lab"], row["preset"], row["id"], row["runs_sha256"]): row for row in rows}
    current = {_identity for lab in {row["lab"] for row in new.values()} for _identity in _present(lab)}
    kept = [
        row
        for row in read(path)
        if (row["lab"], row["preset"], row["id"], row["runs_sha256"]) not in new
        and (
            row["lab"] not in {key[0] for key in new}
            or (row["lab"], row["preset"], row["id"], row["runs_sha256"]) in current
        )
    ]
    ordered = sorted([*kept, *new.values()], key=lambda row: (row["lab"], row["preset"], row["id"], row["runs_sha256"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".ledger-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(ordered, file, indent=1, allow_nan=False)
        file.write("\n")
    os.chmod(name, 0o644)
    os.replace(name, path)


def _present(lab_id: str) -> set[tuple[str, str, str, str]]:
    from .registry import get_lab

    lab = get_lab(lab_id)
    return {(lab.id, entry.preset.id, entry.claim.id, _digest(lab, entry.runs)) for entry in entries(lab)}


def _digest(lab: Lab, runs: Sequence[Params]) -> str:
    return hashlib.sha256("".join(run_key(lab, params) for params in runs).encode()).hexdigest()[:16]
