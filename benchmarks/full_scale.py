"""Training with torch on the processor beside the kernels, in the same process, in turns.

    python -m benchmarks.full_scale

Both train the same replicates from the same streams; theory is left out. One thread each: torch has one by law,
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

ROUNDS = 4
GOALS = {"xor_grokking": 3.0, "linear_attention": 3.0}  # times as long as the kernels, at most
DEFAULT = {"the default run": {}}
RUNS = {
    "label_noise": {"the default run, cut to 2,000 steps": {"steps": 2000}},
    "linear_attention": DEFAULT
    | {"Adam on batches": {"training": "adam", "learning_rate": 0.02, "init_scale": 0.02, "steps": 150}},
}
WHY = "Steps of some hundred numbers each: torch is as busy with its calls as with their arithmetic."


def contenders(lab, changes):
    """Ways to simulate a run: name -> function of a fresh monitor."""
    params = lab.params.make(changes)
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


def measured(lab, changes):
    """Seconds of each contender, a list over rounds; the first round, untimed, warms up."""
    taken = {name: [] for name in contenders(lab, changes)}
    for round_ in range(ROUNDS + 1):
        for name, run in contenders(lab, changes).items():
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
        for work, changes in RUNS.get(lab.id, DEFAULT).items():
            taken = measured(lab, changes)
            base = taken["numba, one thread"]
            for name, seconds in taken.items():
                ratio = median(one / numba for one, numba in zip(seconds, base, strict=True))
                section.rows.append(Row(f"{lab.title}, {work}", name, 1 / median(seconds), "runs/s", ratio, None))
                if lab.id in GOALS and name == "torch float64, one thread":
                    words = f"{lab.title}, {work}: time of torch over Numba's"
                    section.goals.append(Goal(words, ratio, GOALS[lab.id], at_most=True, reason=WHY))
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
