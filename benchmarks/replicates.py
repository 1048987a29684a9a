"""Replicates on two threads against one: the same bits, and how much sooner.

    python -m benchmarks.replicates

Eight replicates of each core lab are simulated by one thread and by two, in turns, theory left out; ratios are medians
over rounds.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

from sims.engine import RunMonitor, get_lab
from sims.engine.provenance import cores, single_threaded_blas

from .contest import Different
from .report import Goal, Measure, Section, run_alone

ROUNDS, REPLICATES, LEAST = 4, 8, 1.9
RUNS = {
    "label_noise": {"steps": 40_000},
    "xor_grokking": {"steps": 60, "n_test": 500},
    "linear_attention": {"training": "sgd", "steps": 400},
    "augmentation_graph": {"training": "sgd", "steps": 15_000},
}
WHY = "The two cores of this machine may be one processor's two threads, which share its vector units and its cache."


def simulated(lab, params, threads):
    """(seconds, the bytes of every record)."""
    monitor = RunMonitor.allocate(lab, params)
    with ThreadPoolExecutor(threads) as pool:
        start = perf_counter()
        list(pool.map(lambda r: lab.simulate(params, r, monitor.of(r)), range(params.replicates)))
        return perf_counter() - start, monitor.records.tobytes()


def measure():
    """A row for each lab."""
    section = Section("Replicates on two cores", __doc__.split("\n\n", 2)[2].strip())
    if cores() < 2:
        section.notes.append("This machine has one core.")
        return section
    section.notes.append(
        "Runs of the augmentation graph as short as 1500 steps gain nothing from a second thread: what they record is "
        "measured in Python between the stretches of the kernel, a hundred times a run."
    )
    single_threaded_blas()
    for lab_id, changes in RUNS.items():
        lab = get_lab(lab_id)
        params = lab.params.make(**changes, replicates=REPLICATES)
        simulated(lab, params, 2)
        ratios = []
        for _ in range(ROUNDS):
            (alone, first), (shared, second) = simulated(lab, params, 1), simulated(lab, params, 2)
            if first != second:
                raise Different(f"{lab_id}: two threads recorded other bits than one")
            ratios.append(alone / shared)
        section.measures.append(Measure(f"{lab.title}: one thread", 1e3 * alone, "ms"))
        section.goals.append(Goal(f"{lab.title}: times as fast on two, bit for bit", median(ratios), LEAST, reason=WHY))
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
