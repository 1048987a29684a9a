"""The command line: `python -m sims COMMAND`, its flags generated from the labs' params.

Exit codes: 0 done, 1 a check failed, 2 bad input (one message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Annotated, Any

import tyro

from .errors import (
    BadInput,
    Cancelled,
    ChalklineError,
    DamagedRun,
    Problem,
    ReproducibilityAlarm,
    UnknownName,
)
from .lab import Lab
from .params import Params, format_value
from .registry import all_labs, get_lab, lab_ids

PROGRAM = "python -m sims"
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class CheckFailed(ChalklineError):
    """A comparison that the user asked for came out different."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(arguments)
        sys.stdout.flush()
        return 0
    except SystemExit as stop:  # tyro has printed help (0) or what it could not parse (2)
        return int(stop.code or 0)
    except (KeyboardInterrupt, Cancelled):
        _say("Interrupted; nothing half-written was kept.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CheckFailed, DamagedRun, ReproducibilityAlarm) as failure:
        _say(str(failure))
        return FAILED
    except ChalklineError as error:
        _say(str(error))
        return BAD_INPUT


# -- commands ------------------------------------------------------------------------------------------------


def _text(metavar: str) -> Any:
    """An option whose value is taken as it is written; tyro would read the word None as no value."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    )


_JSON = Annotated[bool, tyro.conf.arg(help="Print one JSON value and nothing else.")]


@dataclass(frozen=True)
class List:
    """List the labs."""

    json: _JSON = False


@dataclass(frozen=True)
class Runs:
    """List the stored runs."""

    lab: Annotated[str | None, _text("LAB"), tyro.conf.arg(help="Only runs of this lab.")] = None
    json: _JSON = False


@dataclass(frozen=True)
class Show:
    """Show one stored run."""

    key: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="Its key, or the first characters of it.")]
    json: _JSON = False


@dataclass(frozen=True)
class Rerun:
    """Run again from a stored run's provenance."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="A key, a manifest, or an exported JSON file.")]
    check: Annotated[bool, tyro.conf.arg(help="Compare with what was stored; exit 1 on a difference.")] = False
    json: _JSON = False


@dataclass(frozen=True)
class Export:
    """Write a stored run as files for other programs."""

    key: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="Its key, or the first characters of it.")]
    format: Annotated[str, tyro.conf.arg(help="One or more of parquet,csv,json,npz.")]
    out: Annotated[Path, tyro.conf.arg(help="Folder to write into.")] = Path(".")


@dataclass(frozen=True)
class Verify:
    """Check stored runs against their manifests; the damaged are set aside and the exit code is 1."""

    keys: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="Keys; all runs where none is given.")
    ] = ()
    json: _JSON = False


@dataclass(frozen=True)
class Ledger:
    """Judge the claims of every preset anew, write docs/ledger.json; exit 1 where a verdict is unexpected."""

    labs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="Labs; all where none is given.")] = ()
    quick: Annotated[bool, tyro.conf.arg(help="Only claims estimated under 2 s.")] = False
    json: _JSON = False


@dataclass(frozen=True)
class Warm:
    """Compile every kernel for this processor, measure its rates, and compute each lab's default page."""


def _list(command: List) -> None:
    rows = [
        {
            "lab": lab.id,
            "title": lab.title,
            "paper": f"{lab.paper.authors.split(',')[0]} et al. {lab.paper.year}, arXiv {lab.paper.arxiv}",
            "claims": len(lab.claims),
            "presets": len(lab.presets),
        }
        for lab in all_labs()
    ]
    if command.json:
        _print_json(rows)
    else:
        _print_table(rows)


def _runs(command: Runs) -> None:
    from .store import Store

    lab = get_lab(command.lab).id if command.lab else None
    rows = Store().rows(lab)
    if command.json:
        _print_json(rows)
    elif rows:
        short = ("key", "lab", "version", "created", "replicates", "wall_s")
        _print_table([{name: row[name][:12] if name == "key" else row[name] for name in short} for row in rows])
    else:
        _say(f"No runs are stored yet in {Store().path}.")


def _show(command: Show) -> None:
    from .store import Store

    manifest = Store().load(command.key).manifest
    current = get_lab(manifest["lab"]).version
    if command.json:
        _print_json({**manifest, "current_version": current})
        return
    print(f"{manifest['lab']} version {manifest['version']}, {manifest['created']}, key {manifest['key']}")
    if manifest["version"] != current:
        print(f"This run is of version {manifest['version']}; the lab is now at version {current}.")
    print(
        "params: " + ", ".join(f"{name}={format_value(_tupled(value))}" for name, value in manifest["params"].items())
    )
    print(f"trace {manifest['trace_sha256']} (grade {manifest['provenance']['grade']})")
    _print_metrics(manifest["metrics"])


def _export(command: Export) -> None:
    from .export import export
    from .store import Store

    store = Store()
    key = store.resolve(command.key)
    run = store.load(key)
    wanted = [name.strip() for name in command.format.split(",")]
    contents = {name: export(run, name) for name in wanted}
    try:
        command.out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            target = command.out / f"{run.manifest['lab']}-{key[:12]}.{name}"
            target.write_bytes(content)
            print(target)
    except OSError as error:
        problem = Problem(
            "out", str(command.out), f"it cannot be written ({error.strerror})", "Name a writable folder."
        )
        raise BadInput(problem) from None


def _verify(command: Verify) -> None:
    from .store import Store

    report = Store().verify(command.keys or None)
    if command.json:
        _print_json(report)
    damaged = [problem for problem in report.values() if problem]
    if not command.json:
        print(f"{len(report) - len(damaged)} runs sound, {len(damaged)} damaged and moved to quarantine.")
    if damaged:
        raise CheckFailed("\n".join(damaged))


def _rerun(command: Rerun) -> None:
    from .rerun import rerun

    outcome = rerun(command.source, on_progress=None if command.json else _progress("rerun"))
    if command.json:
        _print_json({**outcome.run.as_dict(), "comparison": outcome.as_dict()})
    else:
        _print_run(outcome.run)
        print(outcome.sentence)
    if command.check and not outcome.agrees:
        raise CheckFailed("The rerun differs from the stored run beyond what its grade allows.")


def _ledger(command: Ledger) -> None:
    from . import ledger
    from .execute import Run, execute
    from .store import Store

    labs = [get_lab(lab_id) for lab_id in command.labs] or list(all_labs())
    chosen = [entry for lab in labs for entry in ledger.entries(lab)]
    if command.quick:
        chosen = [entry for entry in chosen if entry.seconds < ledger.QUICK_SECONDS]

    def compute(lab: Lab, params: Params) -> Run:
        return execute(lab, params, store=Store())

    def announce(entry: ledger.Entry) -> None:
        _say(f"{entry.lab.id} / {entry.preset.id}: {entry.claim.id}")

    rows = ledger.check(chosen, compute, announce)
    ledger.write(rows)
    surprising = [row for row in rows if row["verdict"] != row["expected"]]
    if command.json:
        _print_json(rows)
    else:
        columns = (
            "lab",
            "preset",
            "id",
            "predicted",
            "measured",
            "error",
            "tolerance",
            "verdict",
            "expected",
        )
        _print_table([{name: row[name] for name in columns} for row in rows])
    if surprising:
        lines = [
            f"{r['lab']}/{r['preset']}/{r['id']}: {r['verdict']}, expected {r['expected']}. {r['reason']}"
            for r in surprising
        ]
        raise CheckFailed("\n".join(lines))


def _warm(command: Warm) -> None:
    from .warm import warm

    warm(report=_say)


_PLAIN: dict[str, tuple[type, Callable[[Any], None]]] = {
    "list": (List, _list),
    "runs": (Runs, _runs),
    "show": (Show, _show),
    "rerun": (Rerun, _rerun),
    "export": (Export, _export),
    "verify": (Verify, _verify),
    "ledger": (Ledger, _ledger),
    "warm": (Warm, _warm),
}


# -- commands about one lab: their flags are the lab's params -----------------------------------------------


def _describe(lab: Lab, options: Any) -> None:
    from .describe import describe

    described = describe(lab)
    if options.json:
        _print_json(described)
        return
    paper = lab.paper
    print(f"{lab.title}. {lab.sentence}\n{paper.authors}: {paper.title} ({paper.venue} {paper.year})\n")
    _print_table(
        [
            {k: row[k] for k in ("name", "symbol", "default", "allowed", "active_when", "help")}
            for row in described["params"]
        ]
    )
    print("\nPresets")
    _print_table([{k: row[k] for k in ("id", "title", "notice")} for row in described["presets"]])
    print("\nClaims")
    _print_table([{k: row[k] for k in ("id", "statement", "source")} for row in described["claims"]])


def _predict(lab: Lab, options: Any) -> None:
    from .describe import prediction_dict
    from .execute import predict
    from .export import plain

    params = _params(lab, options)
    content = plain(prediction_dict(lab, params, predict(lab, params)))
    if options.json:
        _print_json(content)
        return
    rows = []
    for name, value in content["prediction"].items():
        about = content["about"][name]
        shown = "at the end " + _short(value[-1]) if isinstance(value, list) else _short(value)
        rows.append({"name": name, "prediction": shown, "kind": about["kind"], "source": about["source"]})
    _print_table(rows)


def _run(lab: Lab, options: Any) -> None:
    from .budget import describe_bytes, require
    from .execute import execute
    from .keys import run_key
    from .store import Store

    base = _params(lab, options)
    chosen = {"": base}
    if options.beside:
        if options.preset is None:
            raise BadInput(Problem("beside", "set", "it draws the runs of a preset", "Name one with --preset."))
        chosen = {
            label: params.replace(**_given(lab, options))
            for label, params in lab.runs(lab.preset(options.preset)).items()
        }
    store = None if options.no_store else Store()
    results = {}
    for label, params in chosen.items():
        if store is None or options.fresh or not store.holds(run_key(lab, params)):
            budget = require(lab, params, bytes=_available_memory())
            if not options.json:
                _say(f"{label or lab.id}: {budget} expected, {describe_bytes(budget.bytes)} of memory")
        progress = None if options.json else _progress(label or lab.id)
        results[label] = execute(lab, params, store=store, fresh=options.fresh, on_progress=progress)
    if options.json:
        contents = {label: run.as_dict() for label, run in results.items()}
        _print_json(contents if options.beside else contents[""])
        return
    for label, run in results.items():
        if label:
            print(f"== {label}")
        _print_run(run)


_ABOUT_LAB: dict[str, tuple[str, Callable[[Lab, Any], None]]] = {
    "describe": ("Describe a lab: params, presets, claims.", _describe),
    "predict": ("The theory's prediction; nothing is simulated.", _predict),
    "run": ("Run a lab, keep the result, and judge its claims.", _run),
}
_OPTIONS: dict[str, list[tuple[str, Any, Any]]] = {
    "describe": [("json", _JSON, False)],
    "predict": [
        ("preset", Annotated[str | None, _text("ID"), tyro.conf.arg(help="Start from this preset.")], None),
        ("json", _JSON, False),
    ],
    "run": [
        ("preset", Annotated[str | None, _text("ID"), tyro.conf.arg(help="Start from this preset.")], None),
        (
            "beside",
            Annotated[bool, tyro.conf.arg(help="Run what the preset draws beside its focus, too.")],
            False,
        ),
        ("fresh", Annotated[bool, tyro.conf.arg(help="Compute even if the run is stored.")], False),
        ("no_store", Annotated[bool, tyro.conf.arg(help="Keep nothing and look nothing up.")], False),
        ("json", _JSON, False),
    ],
}


def _dispatch(arguments: list[str]) -> None:
    command = arguments[0] if arguments else "--help"
    if command in _ABOUT_LAB:
        summary, act = _ABOUT_LAB[command]
        if len(arguments) < 2 or arguments[1] in ("-h", "--help"):
            print(f"usage: {PROGRAM} {command} LAB [--help]\n\n{summary}\n\nLabs: {', '.join(lab_ids())}")
            raise SystemExit(0 if len(arguments) > 1 else BAD_INPUT)
        lab = get_lab(arguments[1])
        act(lab, _parse(_lab_options(command, lab), f"{command} {lab.id}", summary, arguments[2:]))
    elif command in _PLAIN:
        shape, act_plain = _PLAIN[command]
        act_plain(_parse(shape, command, shape.__doc__ or "", arguments[1:]))
    elif command in ("-h", "--help"):
        print(_overview())
    else:
        raise UnknownName("command", command, [*_ABOUT_LAB, *_PLAIN])


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} COMMAND [--help]",
        "",
        "Toy models of deep learning: the theorem, the simulation, the verdict.",
        "",
    ]
    rows = [(f"{name} LAB", summary) for name, (summary, _) in _ABOUT_LAB.items()]
    rows += [(name, (shape.__doc__ or "").strip()) for name, (shape, _) in _PLAIN.items()]
    return "\n".join(lines + [f"  {name:<14} {summary}" for name, summary in rows])


def _parse(shape: Any, command: str, summary: str, arguments: list[str]) -> Any:
    config = (tyro.conf.FlagCreatePairsOff,)
    prog = f"{PROGRAM} {command}"
    found, unknown = tyro.cli(
        shape, prog=prog, description=summary, args=arguments, config=config, return_unknown_args=True
    )
    if unknown:
        raise UnknownName(f"option of {prog}", unknown[0], ["--" + f.name.replace("_", "-") for f in fields(shape)])
    return found


def _lab_options(command: str, lab: Lab) -> type:
    """The options of a command about one lab: its own, then each field of the params as text."""
    shape: list[Any] = [(name, kind, dataclass_field(default=default)) for name, kind, default in _OPTIONS[command]]
    if command != "describe":
        for field in lab.params.fields().values():
            metavar = (
                "|".join(field.choices) if field.choices else {"floats": "X,X,..."}.get(field.kind, field.kind.upper())
            )
            when = f" Only when {field.condition}." if field.only_if else ""
            text = f"{field.help} Must be {field.allowed}; default {format_value(field.default)}.{when}"
            kind = Annotated[str | None, _text(metavar), tyro.conf.arg(help=text, help_behavior_hint="")]
            shape.append((field.name, kind, dataclass_field(default=None)))
    return make_dataclass(command, shape)


def _given(lab: Lab, options: Any) -> dict[str, Any]:
    """The params set on the command line, parsed."""
    declared = lab.params.fields()
    texts = {f.name: getattr(options, f.name) for f in fields(options) if f.name in declared}
    return {name: declared[name].parse(text) for name, text in texts.items() if text is not None}


def _params(lab: Lab, options: Any) -> Params:
    base = lab.focus(lab.preset(options.preset)) if options.preset is not None else lab.params.make()
    return base.replace(**_given(lab, options))


# -- output --------------------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    from .export import plain

    print(json.dumps(plain(value), allow_nan=False))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(label: str) -> Callable[[float], None]:
    """A progress line on stderr: redrawn in place on a terminal, one line per tenth elsewhere."""
    last = [-1]

    def show(fraction: float) -> None:
        percent = int(100 * fraction)
        if sys.stderr.isatty():
            end = "\n" if percent >= 100 else ""
            print(f"\r{label}: {percent:3d} %", end=end, file=sys.stderr, flush=True)
        elif percent // 10 > last[0]:
            last[0] = percent // 10
            _say(f"{label}: {percent} %")

    return show


def _print_run(run: Any) -> None:
    cached = " (stored)" if run.cached else ""
    print(f"{run.lab} version {run.version}, key {run.key}{cached}")
    print(f"trace {run.trace_sha256}, grade {run.provenance['grade']}, {run.wall_s:.3g} s")
    if run.diverged:
        steps = sorted(stop.step for stop in run.trace.stopped if stop is not None)
        print(f"{run.diverged} of {run.trace.replicates} replicates diverged, the first at step {steps[0]}.")
    _print_metrics({name: {"mean": m.mean, "se": m.se, "n": m.n} for name, m in run.metrics.items()})
    if run.claims:
        print()
        columns = ("id", "predicted", "measured", "error", "tolerance", "verdict", "reason")
        _print_table([{name: getattr(verdict, name) for name in columns} for verdict in run.claims])


def _print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    _print_table([{"metric": name, **metric} for name, metric in metrics.items()])


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([_short(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _available_memory() -> float:
    """Bytes that a run may take: four fifths of what is free now; unlimited where that cannot be read."""
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable"):
                return 0.8 * 1024 * float(line.split()[1])
    return float("inf")
