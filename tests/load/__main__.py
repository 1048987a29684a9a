"""`python -m tests.load`: a real server, real websockets, a class of a hundred; `make load` on an idle machine.

Prints every figure beside its limit as it is measured, writes them into docs/reliability.md when the whole was measured
at full size, and exits with 1 where a limit is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import at_once
from sims.engine.provenance import cores, fingerprint
from tests.house import ROOT, House

from .scenarios import SCENARIOS, Class, Figure

REPORT = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    options = arguments(argv)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="chalkline-load-") as folder:
        house = House(Path(folder))
        room = Class(house, options.tabs, options.think, options.minutes, options.scale)
        try:
            say("compiling and starting a server")
            house.warm()
            house.start()
            for name in options.only or SCENARIOS:
                start = time.monotonic()
                found = asyncio.run(SCENARIOS[name](room))
                for figure in found:
                    say(line(figure))
                say(f"{name} took {time.monotonic() - start:.0f} s")
                figures += found
            figures.append(Figure("server", "tracebacks in its log", house.tracebacks(), "", 0))
            say(line(figures[-1]))
        finally:
            house.stop()
    whole = not options.only and options.scale == 1.0 and options.tabs == 100 and options.minutes >= 10
    if whole:
        write(figures)
    missed = [figure for figure in figures if not figure.met]
    say(f"{len(figures)} figures, {len(missed)} beyond their limit" + ("" if whole else "; not written: not the whole"))
    return 1 if missed else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="A class at work, measured.")
    parser.add_argument("only", nargs="*", metavar="SCENARIO", help=f"one or more of {', '.join(SCENARIOS)}")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the lesson; 60 before a release")
    parser.add_argument("--tabs", type=int, default=100)
    parser.add_argument("--think", type=float, default=5.0, help="seconds between a tab's requests")
    parser.add_argument("--scale", type=float, default=1.0, help="length of the other scenarios, 1 being the full one")
    options = parser.parse_args(argv)
    for name in options.only:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}: choose from {', '.join(SCENARIOS)}")
    return options


def say(text: str) -> None:
    print(text, flush=True)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def line(figure: Figure) -> str:
    limit = "" if figure.limit is None else f"  ({'at least' if figure.least else 'at most'} {number(figure.limit)})"
    mark = "" if figure.met else "  MISSED"
    return f"  {figure.scenario:<11} {figure.what}: {number(figure.value)} {figure.unit}{limit}{mark}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as Markdown, with the machine and the day."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    machine = f"{fingerprint()['cpu']}, {cores()} cores, Python {platform.python_version()}"
    shared = f"{cores()} processes at once did {at_once(cores()):.2f} times the work of one after it"
    load = f"load of the machine before it {os.getloadavg()[2]:.1f}"
    rows = [f"Measured on {now} by `make load`: {machine}; {load}; {shared}.", ""]
    rows += ["| scenario | what | measured | limit | |", "| --- | --- | --- | --- | --- |"]
    for one in figures:
        limit = "" if one.limit is None else f"{'≥' if one.least else '≤'} {number(one.limit)} {one.unit}"
        mark = "" if one.limit is None else "met" if one.met else "**missed**"
        rows.append(f"| {one.scenario} | {one.what} | {number(one.value)} {one.unit} | {limit} | {mark} |")
    return "\n".join(rows) + "\n"


def write(figures: Sequence[Figure]) -> None:
    text = REPORT.read_text(encoding="utf-8")
    REPORT.write_text(BLOCK.sub(lambda _: table(figures), text), encoding="utf-8")
    say(f"written into {REPORT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
