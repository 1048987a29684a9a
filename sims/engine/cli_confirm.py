"""The command `confirm`: independent experiments on a lab's theorem, and their reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .backends import choose, has_full_scale
from .errors import BadInput, Cancelled, Problem
from .registry import all_labs, get_lab


def confirm(command: Any, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The reports of the labs asked for, of all that have a full scale where none is named.

    Raises:
        BadInput: a lab without a full scale, an unknown scale, a device that is not here, a folder that cannot be
            written.
        TooLarge: an experiment does not fit into the memory of the device.
        Cancelled: it was interrupted; the same command goes on.
    """
    from .confirmations import FOLDER
    from .confirmations import confirm as run

    device = choose("torch", command.device).device
    labs = [get_lab(lab_id) for lab_id in dict.fromkeys(command.labs)]
    for lab in labs:
        if not has_full_scale(lab):
            allowed = f"{lab.id} has no full scale"
            raise BadInput(Problem("labs", lab.id, allowed, "Name others, or none for all that have one."))
    if not labs:
        labs = [lab for lab in all_labs() if has_full_scale(lab)]
        for lab in all_labs():
            if lab not in labs:
                say(f"{lab.id}: no full scale")
    out = Path(command.out) if command.out else FOLDER
    try:
        return [run(lab, command.scale or "small", device, out, say) for lab in labs]
    except OSError as error:
        problem = Problem("out", str(out), f"it cannot be written ({error.strerror})", "Name a writable folder.")
        raise BadInput(problem) from None
    except KeyboardInterrupt:
        say(f"What is done lies in {out}: the same command goes on from there.")
        raise Cancelled("The confirmation was interrupted.") from None


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdicts of a report as a table."""
    columns = ("id", "predicted", "measured", "error", "tolerance", "verdict")
    return [
        {"lab": report["lab"], "experiment": one["id"], **{name: row[name] for name in columns}}
        for one in report["experiments"]
        for row in one["verdicts"]
    ]


def surprises(reports: list[dict[str, Any]]) -> list[str]:
    """What did not hold, one line each."""
    return [
        f"{report['lab']}/{one['id']}/{row['id']}: {row['verdict']}. {row['reason']}"
        for report in reports
        for one in report["experiments"]
        for row in one["verdicts"]
        if row["verdict"] != "holds"
    ]
