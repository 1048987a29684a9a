"""`python -m sims sweep`, and `show` of a point of a sweep."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .budget import available_memory, describe_bytes, describe_seconds
from .cli import CheckFailed, given, params_of
from .console import print_json, print_run, print_table, progress, say
from .design import choose_design, parse_axis
from .errors import BadInput, Problem, TooLarge, UnknownName
from .lab import Lab
from .params import Value, format_value
from .provenance import cores

if TYPE_CHECKING:
    from .store import Store
    from .sweep import Plan, Progress, Sweep

MOST_PRINTED = 40
_BAR = 24


def sweep(lab: Lab, options: Any) -> None:
    """Compute a sweep and print what it came to. Raises CheckFailed where points failed."""
    from .sweep import plan_sweep, run_sweep

    workers = _workers(options.workers)
    plan = None
    if options.grid or options.points is not None:
        design = choose_design(
            lab, params_of(lab, options), _grid(lab, options.grid), options.points, given(lab, options)
        )
        plan = plan_sweep(design, claims=options.claims, theory_only=options.theory_only)
        _require_memory(plan, workers, options.scheduler)
        if not options.json:
            chunks = f"{len(plan.chunks)} chunk{'s' if len(plan.chunks) > 1 else ''}"
            say(f"{len(design)} points in {chunks}: about {describe_seconds(plan.seconds)} on one core.")
    elif options.name is None or given(lab, options) or options.preset or options.claims or options.theory_only:
        raise BadInput(
            "A sweep needs an axis: --grid FIELD=A,B,C or --points FILE.csv. A --name alone goes on with the stored "
            "sweep of that name."
        )
    with _terminated_like_interrupted():
        found = run_sweep(
            plan,
            lab=lab,
            name=options.name,
            workers=workers,
            scheduler=options.scheduler,
            on_progress=None if options.json else _bar(),
        )
    for notice in found.notices:
        say(notice)
    if options.json:
        print_json(_content(found))
    else:
        _print_sweep(found)
    if found.failures:
        lines = [f"{len(found.failures)} of {len(found.design)} points failed; the others are kept."]
        for failure in found.failures:
            values = ", ".join(f"{name} = {format_value(value)}" for name, value in failure.values.items())
            lines.append(f"point {failure.point} ({values}): {failure.reason}")
        raise CheckFailed("\n".join(lines))


def _grid(lab: Lab, texts: tuple[str, ...]) -> dict[str, tuple[Value, ...]] | None:
    found: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, values = parse_axis(lab, text)
        if name in found:
            raise BadInput(Problem("grid", text, f"{name} is an axis already", "Give each axis once."))
        found[name] = values
    return found or None


def _workers(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text[:6]) <= 10_000:
        problem = Problem(
            "workers", text, "it must be a whole number from 1 to 10000", "Leave it out: one for each core."
        )
        raise BadInput(problem)
    return int(text)


def _require_memory(plan: Plan, workers: int | None, scheduler: str | None) -> None:
    """Raises TooLarge where this machine has not the memory for as many of the largest point as it has workers."""
    count = min(workers or cores(), len(plan.chunks))
    if not scheduler and plan.bytes * count > available_memory():
        raise TooLarge(
            f"The largest point takes {describe_bytes(plan.bytes)}, and {count} workers have "
            f"{describe_bytes(available_memory())} together. Take fewer with --workers, or smaller sizes."
        )


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM pauses as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        usual = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # only the main thread may; elsewhere the signal keeps its meaning
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _bar() -> Callable[[Progress], None]:
    """A progress bar on stderr: redrawn in place on a terminal, a line for each tenth elsewhere."""
    last = [-1]

    def show(progress: Progress) -> None:
        percent = int(100 * progress.fraction + 1e-9)
        left = progress.seconds_left if percent < 100 else None
        time = "" if left is None else f", {describe_seconds(left)} left"
        failed = f", {progress.failed} failed" if progress.failed else ""
        text = f"{percent:3d} %  {progress.done} of {progress.points} points{failed}{time}"
        if sys.stderr.isatty():
            full = _BAR * percent // 100
            end = "\n" if percent >= 100 > last[0] else ""
            print(f"\r[{'#' * full}{'.' * (_BAR - full)}] {text}\x1b[K", end=end, file=sys.stderr, flush=True)
            last[0] = percent
        elif percent // 10 > last[0]:
            last[0] = percent // 10
            say(text)

    return show


def _content(found: Sweep) -> dict[str, Any]:
    """The sweep as one JSON value."""
    design = found.design.as_dict()
    return {
        "name": found.name,
        "key": found.key,
        "lab": found.lab.id,
        "version": found.folder.manifest["version"],
        "path": str(found.path),
        "base": design["base"],
        "axes": design["axes"],
        "points": len(found.design),
        "chunks": len(found.folder.chunks),
        "computed_chunks": found.computed,
        "failures": [
            {"point": failure.point, "values": dict(failure.values), "reason": failure.reason}
            for failure in found.failures
        ],
        "notices": found.notices,
        "summary": found.arrow_summary().to_pylist(),
    }


def _print_sweep(found: Sweep) -> None:
    print(f"{found.lab.id} version {found.folder.manifest['version']}, sweep {found.name}")
    stored = "" if found.computed else " (stored)"
    print(f"{len(found.design)} points, {len(found.failures)} failed{stored}; tables in {found.path}")
    rows = found.arrow_summary().to_pylist()
    if not rows or len(rows) > MOST_PRINTED:
        return
    ends = [f"predicted_{name}" if found.theory_only else f"{name}_mean" for name in found.lab.series]
    wanted = ["point", *found.design.axes, *(name for name in ends if name in rows[0])]
    wanted += [name for name in rows[0] if name.startswith("verdict_")]
    print_table([{name.removesuffix("_mean"): row[name] for name in wanted} for row in rows])


def show_point(key: str, store: Store, as_json: bool) -> bool:
    """Run the point of that key again and compare; False where no sweep has one. Raises CheckFailed."""
    from .sweep_points import check_point, find_point

    try:
        point = find_point(key, store)
    except UnknownName:
        return False
    checked = check_point(point, on_progress=None if as_json else progress(point.key[:12]))
    if as_json:
        print_json({**checked.run.as_dict(), "sweep": checked.as_dict()})
    else:
        print_run(checked.run)
        print(checked.sentence)
    if not checked.agrees:
        raise CheckFailed("The point differs from the table of its sweep.")
    return True
