"""A sweep of label noise: 20 x 20 points of 8 replicates on two cores, and what the machinery of sweeps costs.

    python -m benchmarks.sweep

The speed-up is in points a second from the first chunk that comes back to the last; what two processes take to start,
a second or two however long the sweep, is a row of its own. The overhead is the processor time of
a sweep in one process that is not spent in `execute`, beside what is, on points so large that each takes this machine
10 ms. Both are read off the same run: between two runs this machine's pace changes by more than the share in question.
"""

import resource
import sys
import tempfile
import threading
from statistics import median
from time import clock_gettime, perf_counter, process_time, pthread_getcpuclockid

from sims.engine import execute, get_lab
from sims.engine.budget import lab_rates
from sims.engine.design import grid_design
from sims.engine.store import Store
from sims.engine.sweep import plan_sweep, run_sweep

from .report import Goal, Measure, Section, run_alone
from .waiting import forget

SECONDS_GOAL = 60.0  # for 20 x 20 points of 8 replicates, on two cores
POINT_SECONDS = 0.010
OVERHEAD_GOAL = 0.05  # of the time to compute points that take as long
SPEEDUP_GOAL = 1.8  # of two workers over one
ROUNDS = 4
WHY = (
    "Profiled: half of it is the thread that writes a synced part for every half second of points, the other half the "
    "params, the monitor and the theory's ends of each point."
)


def spread(low, high, number):
    return [low + (high - low) * i / (number - 1) for i in range(number)]


def large(lab):
    """Annealed label noise at d = 100, learning rate against noise."""
    base = lab.focus(lab.preset("all_the_way")).replace(steps=3000, replicates=8)
    grid = {"learning_rate": spread(0.02, 0.12, 20), "noise_std": spread(0.2, 1.6, 20)}
    return grid_design(lab, base, grid)


def small(lab, steps):
    """Two hundred small points of so many steps."""
    base = lab.params.make(algorithm="minibatch_noise", learning_rate=0.002, steps=steps, replicates=2)
    return grid_design(lab, base, {"learning_rate": spread(0.001, 0.003, 20), "noise_std": spread(0.2, 1.0, 10)})


def cpu():
    """Processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(action):
    """(wall seconds, processor seconds, result) of a call."""
    start, used = perf_counter(), cpu()
    result = action()
    return perf_counter() - start, cpu() - used, result


def swept(design, workers):
    """(seconds until the first chunk is back, points a second from then on)."""
    told = []
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        found = run_sweep(
            plan_sweep(design),
            store=store,
            workers=workers,
            on_progress=lambda progress: told.append((perf_counter() - start, progress.done)),
        )
        assert not found.failures and found.complete
    first = next((seconds, done) for seconds, done in told if done)
    last = next((seconds, done) for seconds, done in told if done == len(design))
    return first[0], (last[1] - first[1]) / max(last[0] - first[0], 1e-9)


def looped(design):
    for point in range(len(design)):
        run = execute(design.lab, design.params(point), workers=1, alone=True)
        _ = run.values, run.trace_sha256


def of_ten_milliseconds(lab):
    """The small points at which a plain loop takes this machine POINT_SECONDS for each."""
    few, many = 500, 4000
    spent = []
    for steps in (few, many):
        design = small(lab, steps)
        looped(design)
        spent.append(min(_after_forgetting(lab, looped, design) for _ in range(2)) / len(design))
    each = (spent[1] - spent[0]) / (many - few)
    return small(lab, round(few + max(0.0, POINT_SECONDS - spent[0]) / each))


def _after_forgetting(lab, action, *arguments):
    """Processor seconds of a call that finds nothing remembered."""
    forget(lab)
    return timed(lambda: action(*arguments))[1]


def overhead(lab):
    """(milliseconds that `execute` takes of a point, the share that a sweep adds): the median of the rounds.

    What every caller of `execute` asks for, its metrics and its hash, is counted with it.
    """
    design = of_ten_milliseconds(lab)
    swept(design, 1)
    rounds = [_shares(lab, design) for _ in range(ROUNDS)]
    return tuple(median(column) for column in zip(*rounds, strict=True))


def _shares(lab, design):
    """(milliseconds of a point in `execute`, the rest of the process over that), of one sweep."""
    module, inside = sys.modules["sims.engine.execute"], []
    plain, clock = module.execute, pthread_getcpuclockid(threading.get_ident())

    def used():
        """Processor seconds of all threads but the one that asked for the sweep, which writes while others compute."""
        return process_time() - clock_gettime(clock)

    def counted(lab, params, **how):
        start = used()
        run = plain(lab, params, **how)
        _ = run.values, run.trace_sha256
        inside.append(used() - start)
        return run

    forget(lab)
    module.execute = counted
    try:
        _, whole, _ = timed(lambda: swept(design, 1))
    finally:
        module.execute = plain
    assert len(inside) == len(design)
    return 1000 * sum(inside) / len(design), whole / sum(inside) - 1


def measure():
    """A large sweep with two workers and with one, and the overhead at small points."""
    section = Section("Sweeps", __doc__.split("\n\n", 2)[2].strip())
    lab = get_lab("label_noise")
    lab_rates(lab, measure_again=True)
    design = large(lab)
    two, two_cpu, (start, rate_of_two) = timed(lambda: swept(design, 2))
    one, one_cpu, (_, rate_of_one) = timed(lambda: swept(design, 1))
    per_point, share = overhead(lab)
    size = "20 x 20 points of 8 replicates"
    section.measures += [
        Measure(f"{size}, two workers: processor time", two_cpu, "s"),
        Measure(f"{size}, one worker", one, "s"),
        Measure(f"{size}, one worker: processor time", one_cpu, "s"),
        Measure("two workers: until the first chunk is back", start, "s"),
        Measure("a small point of a sweep: processor time of its run", per_point, "ms"),
    ]
    section.goals += [
        Goal(f"{size}, two workers: seconds", two, SECONDS_GOAL, at_most=True),
        Goal("two workers over one, from the first chunk on", rate_of_two / rate_of_one, SPEEDUP_GOAL),
        Goal("share that a sweep adds to small points", share, OVERHEAD_GOAL, at_most=True, reason=WHY),
    ]
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
