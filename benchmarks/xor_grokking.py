"""A training step on XOR clusters in Gram space beside brute force in R^p, and what the dimension costs.

    python -m benchmarks.xor_grokking

Contenders take turns, round after round, on one thread; ratios are medians over rounds of the ratio within a round.
The brute force is plain NumPy, two matrix products a step, with the large arrays preallocated; both train on the same
points from the same start, and their outputs are compared.
"""

import sys
from statistics import median
from time import perf_counter

from benchmarks.waiting import page_row
from sims import get_lab
from sims.engine import execute
from sims.xor_grokking import timing
from sims.xor_grokking.lab import XorGrokkingParams, flops

DIMS = (10_000, 100_000, 10**9)
FAR_APART = (10**4, 10**12)
ROUNDS = 11
LEAST_RATIO, AT = 1000.0, 100_000
SAME = 0.2
AGREE = 1e-10
PAGE_GOAL = 1.0  # seconds, with its four replicates, on one core


def steps():
    """`Timing` of 100 points and 200 neurons at each dimension."""
    params = XorGrokkingParams.make(n_train=100, width=200)
    return [timing.side_by_side(params.replace(dim=dim), rounds=5) for dim in DIMS]


def whole_runs():
    """Median seconds of whole runs of one replicate, drawing and testing included, at two dimensions far apart."""
    lab = get_lab("xor_grokking")
    runs = [XorGrokkingParams.make(n_train=100, width=200, replicates=1, dim=dim) for dim in FAR_APART]
    taken = {params: [] for params in runs}
    for round_ in range(ROUNDS + 1):
        for seed, params in enumerate(runs):
            start = perf_counter()
            execute(lab, params.replace(seed=2 * round_ + seed), workers=1)  # nothing drawn before is used again
            if round_:
                taken[params].append(perf_counter() - start)
    return {params: median(seconds) for params, seconds in taken.items()}


def verdict(met, goal):
    return f"goal {goal}: {'met' if met else 'MISSED'}"


def main():
    """Print the rows; returns whether every goal was met."""
    goals = []
    print(f"{'p':>8} {'brute ms/step':>14} {'Gram ms/step':>13} {'ratio':>8} {'outputs differ':>15}")
    for row in steps():
        if row.brute_ms is None:
            print(f"{row.dim:8.0e} {'does not fit':>14} {row.gram_ms:13.3f}")
            continue
        words = []
        if row.dim == AT:
            goals.append(row.ratio >= LEAST_RATIO)
            words.append(verdict(goals[-1], f"at least {LEAST_RATIO:.0f}x"))
        goals.append(row.difference < AGREE)
        words.append("" if goals[-1] else verdict(False, f"outputs within {AGREE:g}"))
        print(
            f"{row.dim:8.0e} {row.brute_ms:14.1f} {row.gram_ms:13.3f} {row.ratio:7.0f}x {row.difference:15.1e}  "
            f"{' '.join(words)}"
        )
    taken = whole_runs()
    counted = [flops(params) for params in taken]
    goals.append(all(count == counted[0] for count in counted))
    same = verdict(goals[-1], "equal at every p")
    print(f"operations of a whole run: {', '.join(f'{sum(c.values()):.6g}' for c in counted)}  {same}")
    for params, seconds in taken.items():
        print(f"{params.dim:8.0e} {1e3 * seconds:14.0f} ms a run, median of {ROUNDS}")
    goals.append(max(taken.values()) <= (1 + SAME) * min(taken.values()))
    ratio = max(taken.values()) / min(taken.values())
    print(f"slower over faster: {ratio:.3f}  {verdict(goals[-1], f'within {100 * SAME:.0f} %')}")
    what, seconds, goal = page_row(get_lab("xor_grokking"))
    goals.append(seconds < goal)
    print(f"{what}: {1e3 * seconds:.0f} ms  {verdict(goals[-1], f'< {goal:g} s')}")
    return all(goals)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
