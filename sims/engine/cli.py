"""The command line: `python -m sims COMMAND`, its flags generated from the labs' params.

Exit codes: 0 done, 1 a check failed, 2 bad input (one message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import print_json, print_metrics, print_run, print_table, progress, say, short, tupled
from .errors import (
    BadInput,
    Cancelled,
    ChalklineError,
    DamagedRun,
    Paused,
    Problem,
    ReproducibilityAlarm,
    UnknownName,
)
from .lab import Lab
from .options import Option, parse
from .params import Params, format_value
from .registry import all_labs, get_lab, lab_ids

PROGRAM = "python -m sims"
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
LISTED = ("key", "lab", "version", "created", "replicates", "wall_s")  # of each stored run


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
    except Paused as pause:
        say(str(pause))
        return INTERRUPTED
    except (KeyboardInterrupt, Cancelled):
        say("Interrupted; nothing half-written was kept.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CheckFailed, DamagedRun, ReproducibilityAlarm) as failure:
        say(str(failure))
        return FAILED
    except ChalklineError as error:
        say(str(error))
        return BAD_INPUT


# -- commands ------------------------------------------------------------------------------------------------


def _list(command: Any) -> None:
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
        print_json(rows)
    else:
        print_table(rows)


def _runs(command: Any) -> None:
    from .store import Store

    lab = get_lab(command.lab).id if command.lab else None
    if command.json:
        print_json(Store().rows(lab))
    elif rows := Store().rows(lab, LISTED):
        print_table([{**row, "key": row["key"][:12]} for row in rows])
    else:
        say(f"No runs are stored yet in {Store().path}.")


def _sweeps(command: Any) -> None:
    from .store import Store
    from .sweep import sweep_rows

    rows = sweep_rows()
    if command.json:
        print_json(rows)
    elif rows:
        names = ("name", "lab", "version", "created", "axes", "points", "done")
        print_table([{name: row[name] for name in names} | {"name": shown(row["name"])} for row in rows])
    else:
        say(f"No sweeps are stored yet in {Store().path}.")


def shown(name: str) -> str:
    """A sweep's name, or the beginning of the key that it is named by."""
    return name[:12] if len(name) == 64 else name


def _show(command: Any) -> None:
    from .store import Store

    store = Store()
    try:
        manifest = store.load(command.key).manifest
    except UnknownName as unknown:
        from .cli_sweep import show_point

        if not show_point(command.key, store, command.json):
            raise unknown from None
        return
    current = get_lab(manifest["lab"]).version
    if command.json:
        print_json({**manifest, "current_version": current})
        return
    print(f"{manifest['lab']} version {manifest['version']}, {manifest['created']}, key {manifest['key']}")
    if manifest["version"] != current:
        print(f"This run is of version {manifest['version']}; the lab is now at version {current}.")
    print("params: " + ", ".join(f"{name}={format_value(tupled(value))}" for name, value in manifest["params"].items()))
    print(f"trace {manifest['trace_sha256']} (grade {manifest['provenance']['grade']})")
    print_metrics(manifest["metrics"])


def _export(command: Any) -> None:
    from .export import export
    from .store import Store

    store = Store()
    key = store.resolve(command.key)
    run = store.load(key)
    wanted = [name.strip() for name in command.format.split(",")]
    contents = {name: export(run, name) for name in wanted}
    folder = Path(command.out or ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            target = folder / f"{run.manifest['lab']}-{key[:12]}.{name}"
            target.write_bytes(content)
            print(target)
    except OSError as error:
        problem = Problem("out", str(folder), f"it cannot be written ({error.strerror})", "Name a writable folder.")
        raise BadInput(problem) from None


def _verify(command: Any) -> None:
    from .store import Store
    from .sweep_store import verify_sweeps

    report = Store().verify(command.keys or None)
    sweeps = {} if command.keys else verify_sweeps(Store())
    if command.json:
        print_json({**report, **{f"sweeps/{name}": " ".join(problems) or None for name, problems in sweeps.items()}})
    damaged = [problem for problem in report.values() if problem]
    if not command.json:
        print(f"{len(report) - len(damaged)} runs sound, {len(damaged)} damaged and moved to quarantine.")
        if sweeps:
            print(f"{sum(not problems for problems in sweeps.values())} of {len(sweeps)} sweeps sound.")
    damaged += [problem for problems in sweeps.values() for problem in problems]
    if damaged:
        raise CheckFailed("\n".join(damaged))


def _rerun(command: Any) -> None:
    from .rerun import rerun

    outcome = rerun(command.source, on_progress=None if command.json else progress("rerun"))
    if command.json:
        print_json({**outcome.run.as_dict(), "comparison": outcome.as_dict()})
    else:
        print_run(outcome.run)
        print(outcome.sentence)
    if command.check and not outcome.agrees:
        raise CheckFailed("The rerun differs from the stored run beyond what its grade allows.")


def _ledger(command: Any) -> None:
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
        say(f"{entry.lab.id} / {entry.preset.id}: {entry.claim.id}")

    rows = ledger.check(chosen, compute, announce)
    ledger.write(rows)
    surprising = [row for row in rows if row["verdict"] != row["expected"]]
    if command.json:
        print_json(rows)
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
        print_table([{name: row[name] for name in columns} for row in rows])
        confirmed = [row for lab in labs for row in ledger.confirmed(lab.id)]
        if confirmed:
            print("\nNewest confirmations")
            columns = ("lab", "experiment", "id", "predicted", "measured", "verdict", "scale", "device", "date")
            print_table([{name: row[name] for name in columns} for row in confirmed])
    if surprising:
        lines = [
            f"{r['lab']}/{r['preset']}/{r['id']}: {r['verdict']}, expected {r['expected']}. {r['reason']}"
            for r in surprising
        ]
        raise CheckFailed("\n".join(lines))


def _confirm(command: Any) -> None:
    from .cli_confirm import confirm, rows, surprises

    reports = confirm(command, say)
    if command.json:
        print_json(reports)
    else:
        print_table([row for report in reports for row in rows(report)])
    if surprises(reports):
        raise CheckFailed("\n".join(surprises(reports)))


def _warm(command: Any) -> None:
    from .warm import warm

    warm(report=say)


@dataclass(frozen=True)
class Command:
    """A command: what it does in a sentence, how, and its options."""

    summary: str
    act: Callable[..., None]
    options: tuple[Option, ...] = ()


_JSON = Option("json", "Print one JSON value and nothing else.")
_KEY = Option("key", "Its key, or the first characters of it.", "word")

_PLAIN = {
    "list": Command("List the labs.", _list, (_JSON,)),
    "runs": Command("List the stored runs.", _runs, (Option("lab", "Only runs of this lab.", "text"), _JSON)),
    "show": Command("Show one stored run, or run a point of a sweep again and check it.", _show, (_KEY, _JSON)),
    "sweeps": Command("List the stored sweeps.", _sweeps, (_JSON,)),
    "rerun": Command(
        "Run again from a stored run's provenance.",
        _rerun,
        (
            Option("source", "A key, a manifest, or an exported JSON file.", "word"),
            Option("check", "Compare with what was stored; exit 1 on a difference."),
            _JSON,
        ),
    ),
    "export": Command(
        "Write a stored run as files for other programs.",
        _export,
        (
            _KEY,
            Option("format", "One or more of parquet,csv,json,npz.", "text", required=True),
            Option("out", "Folder to write into; by default this one.", "text"),
        ),
    ),
    "verify": Command(
        "Check stored runs against their manifests; the damaged are set aside and the exit code is 1.",
        _verify,
        (Option("keys", "Keys; all runs where none is given.", "words"), _JSON),
    ),
    "ledger": Command(
        "Judge the claims of every preset anew, write docs/ledger.json; exit 1 where a verdict is unexpected.",
        _ledger,
        (
            Option("labs", "Labs; all where none is given.", "words"),
            Option("quick", "Only claims estimated under 2 s."),
            _JSON,
        ),
    ),
    "confirm": Command(
        "Confirm labs by independent experiments, write docs/confirmations; exit 1 where a claim does not hold.",
        _confirm,
        (
            Option("labs", "Labs; all that have a full scale where none is given.", "words"),
            Option("scale", "small (minutes on a processor, the default) or full (a GPU).", "text"),
            Option("device", "cpu (the default), cuda, or cuda:1 and the like.", "text"),
            Option("out", "Folder of the reports; by default docs/confirmations.", "text"),
            _JSON,
        ),
    ),
    "warm": Command(
        "Compile every kernel for this processor, measure its rates, and compute each lab's default page.", _warm
    ),
}


# -- commands about one lab: their flags are the lab's params -----------------------------------------------


def _describe(lab: Lab, options: Any) -> None:
    from .describe import describe

    described = describe(lab)
    if options.json:
        print_json(described)
        return
    paper = lab.paper
    print(f"{lab.title}. {lab.sentence}\n{paper.authors}: {paper.title} ({paper.venue} {paper.year})\n")
    print_table(
        [
            {k: row[k] for k in ("name", "symbol", "default", "allowed", "active_when", "help")}
            for row in described["params"]
        ]
    )
    print("\nPresets")
    print_table([{k: row[k] for k in ("id", "title", "notice")} for row in described["presets"]])
    print("\nClaims")
    print_table([{k: row[k] for k in ("id", "statement", "source")} for row in described["claims"]])
    print(f"\n{paper.bibtex.strip()}")


def _predict(lab: Lab, options: Any) -> None:
    from .describe import prediction_dict
    from .execute import predict
    from .export import plain

    params = params_of(lab, options)
    content = plain(prediction_dict(lab, params, predict(lab, params)))
    if options.json:
        print_json(content)
        return
    rows = []
    for name, value in content["prediction"].items():
        about = content["about"][name]
        shown = "at the end " + short(value[-1]) if isinstance(value, list) else short(value)
        rows.append({"name": name, "prediction": shown, "kind": about["kind"], "source": about["source"]})
    print_table(rows)


def _run(lab: Lab, options: Any) -> None:
    from .backends import choose, require_memory
    from .budget import available_memory, describe_bytes, require
    from .execute import execute
    from .keys import NUMBA, run_key
    from .store import Store

    backend = choose(options.backend, options.device, options.dtype)
    base = params_of(lab, options)
    chosen = {"": base}
    if options.beside:
        if options.preset is None:
            raise BadInput(Problem("beside", "set", "it draws the runs of a preset", "Name one with --preset."))
        chosen = {
            label: params.replace(**given(lab, options))
            for label, params in lab.runs(lab.preset(options.preset)).items()
        }
    store = None if options.no_store else Store()
    results = {}
    for label, params in chosen.items():
        if store is None or options.fresh or not store.holds(run_key(lab, params, backend)):
            if backend == NUMBA:
                expected = str(require(lab, params, bytes=available_memory()))
            else:
                expected = f"{describe_bytes(require_memory(lab, params, backend))} on {backend.device}"
            if not options.json:
                say(f"{label or lab.id}: {expected} expected")
        shown = None if options.json else progress(label or lab.id)
        results[label] = execute(lab, params, store=store, fresh=options.fresh, on_progress=shown, backend=backend)
    if options.json:
        contents = {label: run.as_dict() for label, run in results.items()}
        print_json(contents if options.beside else contents[""])
        return
    for label, run in results.items():
        if label:
            print(f"== {label}")
        print_run(run)


def _sweep(lab: Lab, options: Any) -> None:
    from .cli_sweep import sweep

    sweep(lab, options)


_PRESET = Option("preset", "Start from this preset.", "text", "ID")

_ABOUT_LAB = {
    "describe": Command("Describe a lab: params, presets, claims.", _describe, (_JSON,)),
    "predict": Command("The theory's prediction; nothing is simulated.", _predict, (_PRESET, _JSON)),
    "run": Command(
        "Run a lab, keep the result, and judge its claims.",
        _run,
        (
            _PRESET,
            Option("beside", "Run what the preset draws beside its focus, too."),
            Option("fresh", "Compute even if the run is stored."),
            Option("no_store", "Keep nothing and look nothing up."),
            Option("backend", "What to compute with: numba, or torch where the lab has a full scale.", "text"),
            Option("device", "With torch: cpu, cuda, or cuda:1 and the like.", "text"),
            Option("dtype", "With torch: float64 or float32.", "text"),
            _JSON,
        ),
    ),
    "sweep": Command(
        "Run a lab at many points, keep their table, and go on where an earlier sweep of the same points stopped.",
        _sweep,
        (
            Option("grid", "An axis: FIELD=A,B,C, or FIELD=LOW:HIGH:NUMBER[:log].", "texts", "AXIS"),
            Option("points", "A CSV file of points instead: a column for each field.", "text", "FILE"),
            _PRESET,
            Option("claims", "Judge the claims of every point."),
            Option("theory_only", "Predictions alone; nothing is simulated."),
            Option("workers", "Processes; by default one for each core.", "text", "N"),
            Option("scheduler", "Compute on the workers of this Dask scheduler, tcp://HOST:PORT.", "text", "ADDRESS"),
            Option("name", "What to call it; alone, go on with the sweep of that name.", "text"),
            _JSON,
        ),
    ),
}


def _dispatch(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in _ABOUT_LAB:
        command = _ABOUT_LAB[name]
        if len(arguments) < 2 or arguments[1] in ("-h", "--help"):
            print(f"usage: {PROGRAM} {name} LAB [--help]\n\n{command.summary}\n\nLabs: {', '.join(lab_ids())}")
            raise SystemExit(0 if len(arguments) > 1 else BAD_INPUT)
        command.act(*about_lab(name, arguments[1:]))
    elif name in _PLAIN:
        command = _PLAIN[name]
        command.act(parse(f"{PROGRAM} {name}", command.summary, command.options, arguments[1:]))
    elif name in ("-h", "--help"):
        print(_overview())
    else:
        raise UnknownName("command", name, [*_ABOUT_LAB, *_PLAIN])


def about_lab(name: str, arguments: Sequence[str]) -> tuple[Lab, Any]:
    """The lab and the options of `NAME LAB --flags`. Raises BadInput, or SystemExit where tyro has said why."""
    lab, command = get_lab(arguments[0]), _ABOUT_LAB[name]
    options = [*command.options, *(() if name == "describe" else _lab_options(lab))]
    return lab, parse(f"{PROGRAM} {name} {lab.id}", command.summary, options, arguments[1:])


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} COMMAND [--help]",
        "",
        "Toy models of deep learning: the theorem, the simulation, the verdict.",
        "",
    ]
    rows = [(f"{name} LAB", command.summary) for name, command in _ABOUT_LAB.items()]
    rows += [(name, command.summary) for name, command in _PLAIN.items()]
    return "\n".join(lines + [f"  {name:<14} {summary}" for name, summary in rows])


def _lab_options(lab: Lab) -> list[Option]:
    """The lab's params as options, each with what it may be."""
    found = []
    for field in lab.params.fields().values():
        metavar = "|".join(field.choices) or {"floats": "X,X,..."}.get(field.kind, field.kind.upper())
        when = f" Only when {field.condition}." if field.only_if else ""
        text = f"{field.help} Must be {field.allowed}; default {format_value(field.default)}.{when}"
        found.append(Option(field.name, text, "text", metavar))
    return found


def given(lab: Lab, options: Any) -> dict[str, Any]:
    """The params set on the command line, parsed."""
    declared = lab.params.fields()
    texts = {name: getattr(options, name) for name in declared}
    return {name: declared[name].parse(text) for name, text in texts.items() if text is not None}


def params_of(lab: Lab, options: Any) -> Params:
    base = lab.focus(lab.preset(options.preset)) if options.preset is not None else lab.params.make()
    return base.replace(**given(lab, options))
