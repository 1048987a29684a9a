"""`make bench`: kernels beside their rivals, then what a user waits for, each against its goal.

    python -m benchmarks [NAME ...]

Without names everything is measured, and the report written to `docs/benchmarks.md` and `docs/benchmarks.json`; with
names only those modules are, and nothing is written. Returns 1 if a goal was missed.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from types import ModuleType

from sims.engine import lab_ids

from . import contest, machine, report

COMMON = ("replicates", "sweep", "full_scale", "startup", "waiting", "pages")


def of_labs() -> list[str]:
    """Labs that have a module here."""
    here = Path(__file__).parent
    return [lab for lab in lab_ids() if (here / f"{lab}.py").exists()]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


def measured(name: str) -> report.Section:
    """What a module measures, shown with the seconds that it took."""
    start = perf_counter()
    section: report.Section = module(name).measure()
    report.show(section)
    print(f"Measured in {perf_counter() - start:.0f} s.\n", flush=True)
    return section


def main(names: Sequence[str] = ()) -> int:
    """Measure, print, and write the report where everything was measured."""
    known = [*of_labs(), *COMMON]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"No benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}.", file=sys.stderr)
        return 2
    sections = []
    shared = machine.at_once(os.cpu_count() or 1)
    with contest.one_core():
        found = machine.describe(shared)
        print(f"{found['cpu']}. {found['limits']}.\n", flush=True)
        for lab in of_labs():
            if not names or lab in names:
                sections.append(measured(lab))
    for name in COMMON:
        if not names or name in names:
            sections.append(measured(name))
    if not names:
        report.write(sections, found)
    return int(not all(section.met for section in sections))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
