"""Confirmations: a lab's theorem checked by independent experiments, at full size or shrunk to a processor.

An experiment is a list of parts. A part that is done is kept, and a long one keeps its state, so that a run that was
killed goes on where it was. What comes of it is a report in `docs/confirmations`, as JSON, as Markdown, and with a
figure for each experiment. Nothing here imports torch: reports can be read by anybody.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .backends import device_name, free_memory, full_scale, require_device, versions
from .budget import describe_bytes, describe_seconds
from .claims import Measured, Verdict, judge, weigh
from .compiled import ROOT, digest
from .errors import ChalklineError, TooLarge, UnknownName
from .execute import Run
from .figure import Figure
from .lab import Lab, Prediction
from .params import Params, canonical_json
from .provenance import commit
from .trace import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scale = Literal["small", "full"]
Settings = Mapping[str, Any]
Numbers = Mapping[str, Mapping[str, Any]]

SCALES: tuple[Scale, ...] = ("small", "full")
FOLDER = ROOT / "docs" / "confirmations"
KEEP_SECONDS = 20.0  # between two states kept within a part
_DONE, _STATE = "parts.json", "state.pt"


# -- what a lab brings -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a part found.

    Args:
        numbers: JSON values, by name; what judges and figures are made of.
        samples: how many training samples were seen.
        flops: multiplications and additions of the matrix products.
        bytes: bytes that these products had to read and write.
        working_set: bytes of the arrays gone through again and again; the bandwidth is measured at that size.
        dtype: float64 or float32.
    """

    numbers: Mapping[str, Any]
    samples: int
    flops: float
    bytes: float
    working_set: float
    dtype: str = "float64"


@dataclass(frozen=True)
class Confirmation:
    """An experiment at one scale.

    Args:
        id: short name; a lab may have one of each id and scale.
        title: what is compared with what, in one sentence.
        scale: `full` for a GPU, `small` for a minute or so of a processor.
        settings: sizes, seeds and precision, as JSON values; the only thing that parts, bytes and judges look at.
        parts: settings -> names of the parts, in order; each has a generator of its own, so that order is free.
        run: (settings, part, place) -> Result; computes on `place.device`.
        bytes: settings -> bytes needed on the device at once.
        resize: the setting that is lowered to say what would fit.
        judge: (settings, numbers by part) -> verdicts.
        figure: (settings, numbers by part) -> Figure.
    """

    id: str
    title: str
    scale: Scale
    settings: Settings
    parts: Callable[[Settings], Sequence[str]]
    run: Callable[[Settings, str, Place], Result]
    bytes: Callable[[Settings], float]
    resize: str
    judge: Callable[[Settings, Numbers], Sequence[Verdict]]
    figure: Callable[[Settings, Numbers], Figure]


@dataclass
class Place:
    """Where a part is computed: its device, and where its state is kept while it is under way."""

    device: str
    path: Path | None = None  # of the state; None keeps none
    identity: str = ""  # of the part: a state of another one is not taken up
    keep_seconds: float = KEEP_SECONDS
    _kept: float = field(default_factory=time.monotonic)

    def begun(self) -> Mapping[str, Any] | None:
        """The state that an interrupted run kept of this part, on the device; None where there is none."""
        if self.path is None or not self.path.is_file():
            return None
        import torch

        state = torch.load(self.path, map_location=self.device, weights_only=True)
        return state["state"] if state["identity"] == self.identity else None

    def keep(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep a state (tensors and numbers by name) if the last one is some time ago."""
        if self.path is None or time.monotonic() - self._kept < self.keep_seconds:
            return
        import torch

        aside = self.path.with_suffix(".aside")
        torch.save({"identity": self.identity, "state": dict(state())}, aside)
        os.replace(aside, self.path)
        self._kept = time.monotonic()


@dataclass(frozen=True)
class Sentence:
    """The words of a verdict that is no claim of the lab's."""

    id: str
    statement: str
    source: str


def verdict(id: str, statement: str, source: str, found: Measured, replicates: int) -> Verdict:
    """A verdict by the rule of all claims on a sentence of the confirmation's own."""
    return weigh(Sentence(id, statement, source), found, replicates)


def judged(lab: Lab, claim_id: str, runs: Sequence[Run], statement: str | None = None) -> Verdict:
    """The verdict of a claim of the lab on runs that `observed` made; `statement` says it in other sizes."""
    from dataclasses import replace

    claim = next(claim for claim in lab.claims if claim.id == claim_id)
    return judge(claim if statement is None else replace(claim, statement=statement), runs)


def observed(
    lab: Lab,
    params: Params,
    step: Sequence[int],
    series: Mapping[str, NDArray[np.float64]],
    derived: Mapping[str, NDArray[np.float64]],
    predicted: Mapping[str, float | NDArray[np.float64]] | None = None,
    finals: Mapping[str, NDArray[np.float64]] | None = None,
) -> Run:
    """What an independent experiment recorded, in the form that the lab's claims are judged on.

    Shapes: `step` (T,), each series (R, T), each derived metric (R,), each final (R, ...). `params` are those of the
    run of the lab that has the same law.
    """
    replicates = len(next(iter([*series.values(), *derived.values()])))
    steps = np.asarray(step, dtype=np.int64)
    trace = Trace(steps, dict(series), dict(finals or {}), steps[:0], {}, (None,) * replicates)
    prediction = Prediction(steps, dict(predicted or {}), {})
    return Run(lab.id, lab.version, params, "", "", False, trace, prediction, dict(derived), {}, 0.0)


# -- running ---------------------------------------------------------------------------------------------------


def confirm(
    lab: Lab, scale: str, device: str, out: Path = FOLDER, say: Callable[[str], None] = lambda words: None
) -> dict[str, Any]:
    """Run a lab's confirmations at one scale, write its report, and return it.

    Raises:
        BadInput: the lab has no full scale, no such scale, or the device is not here.
        TooLarge: an experiment does not fit into the memory of the device.
    """
    if scale not in SCALES:
        raise UnknownName("scale", scale, SCALES)
    module = full_scale(lab)
    require_device(device)
    chosen = [one for one in module.CONFIRMATIONS if one.scale == scale]
    for one in chosen:
        require_room(lab, one, device)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{lab.id}-{scale}-{device.split(':')[0]}"
    partial = out / f".{name}.partial"
    _forget_peak(device)
    experiments = [_experiment(lab, one, device, partial, say) for one in chosen]
    report = _report(lab, scale, device, experiments)
    _write(out, name, report)
    shutil.rmtree(partial, ignore_errors=True)
    return report


def require_room(lab: Lab, one: Confirmation, device: str) -> None:
    """Raises TooLarge, with what is needed and the largest size that fits, where the memory is too small."""
    needed, free = one.bytes(one.settings), free_memory(device)
    if needed <= free:
        return
    low, high = 0, int(one.settings[one.resize])
    while high - low > 1:  # bytes grow with the size
        middle = (low + high) // 2
        fits = one.bytes({**one.settings, one.resize: middle}) <= free
        low, high = (middle, high) if fits else (low, middle)
    way_out = f"The largest {one.resize} that fits is {low}." if low else f"No {one.resize} fits."
    raise TooLarge(
        f"{one.id} of {lab.id} at the scale {one.scale} takes {describe_bytes(needed)} on {device}, where "
        f"{describe_bytes(free)} may be used. {way_out} Run it on a larger device, or with --scale small."
    )


def _experiment(lab: Lab, one: Confirmation, device: str, partial: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All parts of an experiment, those kept by an interrupted run among them."""
    folder = partial / one.id
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(lab, one, device)
    done = _kept(folder / _DONE, identity)
    if done:
        say(f"{lab.id} / {one.id}: {len(done)} parts were done before it was interrupted; going on.")
    for part in one.parts(one.settings):
        if part in done:
            continue
        say(f"{lab.id} / {one.id}: {part}")
        place = Place(device, folder / _STATE, f"{identity}/{part}", KEEP_SECONDS)
        resumed = place.begun() is not None
        start = time.perf_counter()
        found = one.run(one.settings, part, place)
        _finish(device)
        seconds = time.perf_counter() - start
        measured = {name: getattr(found, name) for name in ("samples", "flops", "bytes", "working_set", "dtype")}
        done[part] = {**measured, "numbers": dict(found.numbers), "seconds": seconds, "resumed": resumed}
        _replace(folder / _DONE, json.dumps({"identity": identity, "parts": done}))
        (folder / _STATE).unlink(missing_ok=True)
    return {"confirmation": one, "parts": done, "limits": _limits(done.values(), device)}


def _identity(lab: Lab, one: Confirmation, device: str) -> str:
    """What the parts of an experiment depend on: kept ones of anything else are not taken up."""
    import hashlib

    source = ROOT / "sims" / lab.id / "full_scale.py"
    parts = [lab.id, lab.version, one.id, one.scale, one.settings, versions(device), digest(source)]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _kept(path: Path, identity: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return dict(content["parts"]) if content["identity"] == identity else {}


def _finish(device: str) -> None:
    from .on_device import finish

    finish(device)


def _limits(parts: Any, device: str) -> dict[str, Any]:
    """How near the whole came to the device's limit, which is measured now: products bound by memory or by arithmetic.

    A resumed part has no time of its own and is left out.
    """
    from .on_device import bandwidth, matmul_rate

    whole = [part for part in parts if not part["resumed"]]
    if not whole:
        return {"fraction": None, "bandwidth": None, "matmul_rate": {}}
    read = bandwidth(device, max(part["working_set"] for part in whole))
    rates = {dtype: matmul_rate(device, dtype) for dtype in sorted({part["dtype"] for part in whole})}
    needed = sum(max(part["bytes"] / read, part["flops"] / rates[part["dtype"]]) for part in whole)
    return {
        "bandwidth": read,
        "matmul_rate": rates,
        "fraction": needed / sum(part["seconds"] for part in whole),
    }


# -- reports ---------------------------------------------------------------------------------------------------


def _report(lab: Lab, scale: str, device: str, experiments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for one in experiments:
        made: Confirmation = one["confirmation"]
        numbers = {part: content["numbers"] for part, content in one["parts"].items()}
        verdicts = [found.as_dict() for found in made.judge(made.settings, numbers)]
        rows.append(
            {
                "id": made.id,
                "title": made.title,
                "settings": dict(made.settings),
                "seconds": sum(part["seconds"] for part in one["parts"].values()),
                "resumed": sum(bool(part["resumed"]) for part in one["parts"].values()),
                "needed_bytes": made.bytes(made.settings),
                "samples": sum(part["samples"] for part in one["parts"].values()),
                "limits": one["limits"],
                "verdicts": verdicts,
                "figure": made.figure(made.settings, numbers).as_dict(),
                "parts": {
                    part: {"seconds": content["seconds"], **content["numbers"]}
                    for part, content in one["parts"].items()
                },
            }
        )
    return {
        "lab": lab.id,
        "version": lab.version,
        "scale": scale,
        "device": device.split(":")[0],
        "device_name": device_name(device),
        "grade": "C",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "software": {
            **{name: text for name, text in versions(device).items() if name != "torch_device"},
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "seconds": sum(row["seconds"] for row in rows),
        "peak_bytes": _peak_bytes(device),
        "samples": sum(row["samples"] for row in rows),
        "experiments": rows,
    }


def _forget_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: str) -> float:
    """The most memory that was taken: by torch on a GPU, else by this process."""
    if device == "cpu":
        import resource

        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import torch

    return float(torch.cuda.max_memory_allocated(device))


def _write(out: Path, name: str, report: Mapping[str, Any]) -> None:
    """The figures first and the JSON last: a report that can be read is whole."""
    for row in report["experiments"]:
        _replace(out / f"{name}-{row['id']}.svg", Figure.of(row["figure"]).svg())
    _replace(out / f"{name}.md", markdown(name, report))
    _replace(out / f"{name}.json", json.dumps(_plain(report), indent=1, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _plain(value: Any) -> Any:
    from .export import plain

    return plain(value)


def markdown(name: str, report: Mapping[str, Any]) -> str:
    """A report as a page."""
    software = ", ".join(f"{library} {version}" for library, version in report["software"].items())
    lines = [
        f"# {report['lab']}: confirmation at the scale {report['scale']}",
        "",
        f"Lab version {report['version']}, on {report['device_name']} ({report['device']}), {software}; "
        f"{report['created'][:10]}. Grade C: the noise is the device's own, the claims are the same.",
        "",
        f"{describe_seconds(report['seconds'])} in all, {describe_bytes(report['peak_bytes'])} of memory at most, "
        f"{report['samples']:,} training samples.",
    ]
    for row in report["experiments"]:
        limits = row["limits"]
        lines += ["", f"## {row['id']}", "", row["title"], "", f"![{row['title']}]({name}-{row['id']}.svg)", ""]
        lines += ["| claim | predicted | measured | tolerance | verdict |", "| --- | --- | --- | --- | --- |"]
        for one in row["verdicts"]:
            error = f" ± {one['error']:.2g}" if one["error"] else ""
            numbers = f"{_short(one['predicted'])} | {_short(one['measured'])}{error} | {_short(one['tolerance'])}"
            lines.append(f"| {one['statement']} | {numbers} | {one['verdict']}: {one['reason']} |")
        lines += ["", f"Settings: {', '.join(f'{key} = {_listed(value)}' for key, value in row['settings'].items())}."]
        lines += ["", f"{describe_seconds(row['seconds'])}, {describe_bytes(row['needed_bytes'])} needed at once."]
        if limits["fraction"] is not None:
            rates = ", ".join(f"{rate / 1e9:.3g} GFlop/s in {name}" for name, rate in limits["matmul_rate"].items())
            lines[-1] += (
                f" Of the device's limit, measured in the same run ({limits['bandwidth'] / 1e9:.3g} GB/s at this size; "
                f"products of matrices {rates}), {100 * limits['fraction']:.0f} % was reached."
            )
    return "\n".join([*lines, ""])


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _listed(value: Any) -> str:
    return "/".join(map(_listed, value)) if isinstance(value, list | tuple) else str(value)


def reports(lab_id: str | None = None, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The stored reports, newest first; of one lab, or of all.

    Raises:
        ChalklineError: a report is damaged.
    """
    found = [_read(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.json"))]
    chosen = [report for report in found if lab_id is None or report["lab"] == lab_id]
    return sorted(chosen, key=lambda report: report["created"], reverse=True)


@lru_cache(maxsize=64)
def _read(path: Path, stamp: int) -> dict[str, Any]:
    """A report, read once for each time that it was written."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        for row in report["experiments"]:
            Figure.of(row["figure"])
        return {**report, "lab": str(report["lab"]), "created": str(report["created"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ChalklineError(
            f"The report {path} is damaged ({error!r}). Remove it: python -m sims confirm writes it anew."
        ) from None


def newest(lab_id: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The newest stored report of a lab, None where there is none; nothing heavy is imported."""
    return next(iter(reports(lab_id, folder)), None)


def made_by(report: Mapping[str, Any], experiment: str | None = None) -> str:
    """What a report, or one experiment of it, was made by: scale, device, versions, seeds and date."""
    rows = [row for row in report["experiments"] if experiment in (None, row["id"])]
    seeds = sorted({row["settings"]["seed"] for row in rows})
    software = ", ".join(f"{library} {version}" for library, version in report["software"].items())
    return (
        f"{report['scale']} scale, {report['device_name']} ({report['device']}), version {report['version']} of the "
        f"lab, {software}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, {report['created'][:10]}"
    )


def sentence(report: Mapping[str, Any]) -> str:
    """A report in one line: what it was made by, and its verdicts."""
    verdicts = [one["verdict"] for row in report["experiments"] for one in row["verdicts"]]
    held = verdicts.count("holds")
    made = made_by(report)
    return f"Newest confirmation by independent experiments: {made}: {held} of {len(verdicts)} claims hold."


__all__ = [
    "FOLDER",
    "SCALES",
    "Confirmation",
    "Measured",
    "Place",
    "Result",
    "confirm",
    "judged",
    "made_by",
    "markdown",
    "newest",
    "observed",
    "reports",
    "require_room",
    "sentence",
    "verdict",
]
