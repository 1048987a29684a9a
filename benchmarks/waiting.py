"""What a user waits for: a page's runs, a command, a stored run.

    python -m benchmarks.waiting

Times are medians over rounds, in a process that is warm where the goal says warm.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .report import Goal, Measure, Section, run_alone

ROUNDS = 7
PAGE_GOAL = 1.0  # seconds; a lab's benchmark may set itself a lower one


def median_seconds(action, rounds=ROUNDS):
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def default_page(lab):
    """Simulation and theory of every run of the lab's default page on one core, nothing cached but compiled code."""
    from sims.engine import execute

    runs = list(lab.runs(lab.presets[0]).values())

    def compute():
        forget(lab)
        for params in runs:
            _ = execute(lab, params, workers=1).metrics

    compute()
    return median_seconds(compute)


def forget(lab):
    """Empty whatever the lab's own modules remember between calls."""
    ours = f"sims.{lab.id}."
    for module in [module for name, module in sys.modules.items() if name.startswith((ours, f"theory.{lab.id}"))]:
        for value in list(vars(module).values()):
            # A kernel's compiled code is no result; dispatchers have no such method.
            if callable(clear := getattr(value, "cache_clear", None)):
                clear()


def page_goal(lab):
    """The default page against the lab's own goal, at most a second."""
    import importlib.util

    name = f"benchmarks.{lab.id}"
    own = importlib.import_module(name) if importlib.util.find_spec(name) else None
    goal = min(getattr(own, "PAGE_GOAL", PAGE_GOAL), PAGE_GOAL)
    what = f"{lab.title}: the default page's runs and theory, warm, one core: seconds"
    return Goal(what, default_page(lab), goal, at_most=True, reason=getattr(own, "PAGE_REASON", ""))


def command(*arguments):
    environment = dict(os.environ, CHALKLINE_STORE=tempfile.mkdtemp(prefix="chalkline-bench-"))

    def run():
        subprocess.run(
            [sys.executable, "-m", "sims", *arguments], env=environment, check=True, capture_output=True, timeout=120
        )

    run()
    return median_seconds(run, rounds=5)


def store_times(lab):
    """Seconds to keep the default run (synced to disk) and to read it back, checked."""
    from dataclasses import replace

    from sims.engine import execute
    from sims.engine.store import Store

    run = execute(lab, lab.params.make())
    _ = run.metrics, run.trace_sha256
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        keys = iter(f"{i:064x}" for i in range(1000))
        write = median_seconds(lambda: store.put(replace(run, key=next(keys))))
        read = median_seconds(lambda: store.find(f"{0:064x}"))
    return write, read


def measure():
    """Default pages, commands and the store."""
    from sims.engine import all_labs, get_lab

    section = Section("What a user waits for", __doc__.split("\n\n", 2)[2].strip())
    commands = [
        ("python -m sims list", command("list"), 0.5),
        ("python -m sims --help", command("--help"), 0.5),
        ("python -m sims run label_noise, compiled before", command("run", "label_noise", "--fresh"), 2.0),
    ]
    section.goals = [page_goal(lab) for lab in all_labs()]
    section.goals += [Goal(f"{what}: seconds", seconds, goal, at_most=True) for what, seconds, goal in commands]
    write, read = store_times(get_lab("label_noise"))
    section.measures += [
        Measure("store: keep one run", 1e3 * write, "ms"),
        Measure("store: read one run, checked", 1e3 * read, "ms"),
    ]
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
