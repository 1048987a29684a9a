"""Training a default run with torch on the processor beside the kernels, in the same process, in turns.

    python -m benchmarks.full_scale

Both train the same four replicates from the same streams; theory is left out. One thread each: torch has one by law,
and the kernels are given one. The kernels on every core, one replicate a thread, are shown beside. Ratios are medians
over rounds of the ratio within a round.
"""

import sys
from statistics import median
from time import perf_counter

from sims.engine import RunMonitor, all_labs
from sims.engine.backends import full_scale, has_full_scale
from sims.engine.execute import shared_pool
from sims.engine.provenance import cores, single_threaded_blas

from .report import Goal, Row, Section, run_alone

ROUNDS = 7
GOALS = {"xor_grokking": 3.0}  # times as long as the kernels, at most
STEPS = {"label_noise": 2000}  # of its hundred thousand


def contenders(lab):
    """Three ways to simulate the default run: name -> function of a fresh monitor."""
    params = lab.params.make()
    if lab.id in STEPS:
        params = params.replace(steps=STEPS[lab.id])
    numbers = range(params.replicates)
    batch = full_scale(lab).simulate_batch
    single_threaded_blas()

    def kernels():
        monitor = RunMonitor.allocate(lab, params)
        for r in numbers:
            lab.simulate(params, r, monitor.of(r))

    def spread():
        monitor = RunMonitor.allocate(lab, params)
        list(shared_pool().map(lambda r: lab.simulate(params, r, monitor.of(r)), numbers))

    def torch(dtype):
        return lambda: batch(params, numbers, RunMonitor.allocate(lab, params), "cpu", dtype)

    return {
        "numba, one thread": kernels,
        f"numba, {cores()} threads": spread,
        "torch float64, one thread": torch("float64"),
        "torch float32, one thread": torch("float32"),
    }


def measured(lab):
    """Seconds of each contender, a list over rounds; the first round, untimed, warms up."""
    taken = {name: [] for name in contenders(lab)}
    for round_ in range(ROUNDS + 1):
        for name, run in contenders(lab).items():
            start = perf_counter()
            run()
            if round_:
                taken[name].append(perf_counter() - start)
    return taken


def measure():
    """Times of every lab with a full scale."""
    section = Section("Torch on the processor", __doc__.split("\n\n", 2)[2].strip())
    for lab in all_labs():
        if not has_full_scale(lab):
            continue
        taken = measured(lab)
        base = taken["numba, one thread"]
        for name, seconds in taken.items():
            ratio = median(one / numba for one, numba in zip(seconds, base, strict=True))
            section.rows.append(Row(f"{lab.title}, the default run", name, 1 / median(seconds), "runs/s", ratio, None))
            if lab.id in GOALS and name == "torch float64, one thread":
                words = f"{lab.title}: time of torch over Numba's"
                section.goals.append(Goal(words, ratio, GOALS[lab.id], at_most=True))
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
