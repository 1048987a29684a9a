"""A training step on XOR clusters in the space of inner products: rivals, brute force, and what the dimension costs.

    python -m benchmarks.xor_grokking

All take full-batch steps on the same points from the same start, and their outputs on the training points are compared.
The rivals use the same identity as the kernel, so that none of them knows the dimension; *brute force* trains all
weights in R^p by two products a step, with what is large preallocated. The limit of a step is its one product of
2 m n² operations by dgemm; the kernel does not multiply what it knows to be zero, and so may be above it.
"""

import sys
from statistics import median
from time import perf_counter

import numpy as np

from sims import get_lab
from sims.engine import execute
from sims.xor_grokking import timing
from sims.xor_grokking.lab import XorGrokkingParams, flops

from .contest import OURS, best_ratio, contest, find, growth, one_core
from .machine import products
from .report import Goal, Measure, Section, run_alone

SIZES = ((100, 200), (400, 1000))  # n, m
BRUTE_DIMS = (10_000, 100_000)
FAR_APART = (10**4, 10**12)
ROUNDS = 11
LEAST_BRUTE, AT = 1000.0, 100_000
LEAST_SHARE = 0.8  # of the rate of dgemm, at the larger size
SAME = 1.2  # slowest over fastest of whole runs at dimensions far apart
CHECKED, AGREE = 5, 1e-10
PAGE_GOAL = 1.0  # seconds, with its four replicates, on one core
WHY_SHARE = (
    "Profiled: the product itself takes four fifths of a step, in blocks so that a run hears a cancellation within "
    "milliseconds; the rest reads and writes H and C, 3 MB each. Larger blocks and outputs summed while a block is in "
    "the cache raised the share from two thirds."
)


def problem(n, m):
    """K (n, n), H (m, n), labels, output weights and the rate of a problem of that size in ten thousand dimensions."""
    params = XorGrokkingParams.make(n_train=n, width=m, dim=10_000, replicates=1)
    X, W, y, a = timing.in_full(params)
    return params, X @ X.T, W @ X.T, y, a


def kernel(n, m):
    params, K, H, y, a = problem(n, m)
    return lambda steps: timing.gram_steps(params, K, H, y, a)(steps)


def numpy_gram(n, m):
    """The same step in plain NumPy, with everything preallocated; C is kept, as a trained network needs it."""
    params, K, start, y, a = problem(n, m)
    scaled = (params.learning_rate / n * a)[:, None]
    D, moved = np.empty((m, n)), np.empty((m, n))

    def run(steps):
        H, C = start.copy(), np.zeros((m, n))
        for _ in range(steps):
            np.maximum(H, 0.0, out=D)
            f = a @ D
            pull = y / (1.0 + np.exp(y * f))
            np.multiply(scaled, H > 0.0, out=D)
            np.multiply(D, pull, out=D)
            np.add(C, D, out=C)
            np.dot(D, K, out=moved)
            np.add(H, moved, out=H)
        return f

    return run


def torch_gram(compiled):
    def make(n, m):
        import torch

        params, K, start, y, a = problem(n, m)
        K, start, y, a = (torch.from_numpy(array) for array in (K, start, y, a))
        scaled = (params.learning_rate / n * a)[:, None]

        def one(H, C):
            f = a @ torch.relu(H)
            D = scaled * (H > 0.0) * (y * torch.sigmoid(-y * f))
            return H + D @ K, C + D, f

        step = torch.compile(one, dynamic=False) if compiled else one

        @torch.no_grad()
        def run(steps):
            H, C = start, torch.zeros_like(start)
            for _ in range(steps):
                H, C, f = step(H, C)
            return f.numpy()

        return run

    return make


def jax_gram(n, m):
    from .rivals import jax

    jnp = jax.numpy
    params, K, start, y, a = problem(n, m)
    K, start, y, a = (jnp.asarray(array) for array in (K, start, y, a))
    scaled = (params.learning_rate / n * a)[:, None]

    def step(_, state):
        H, C, _ = state
        f = a @ jnp.maximum(H, 0.0)
        D = scaled * (H > 0.0) * (y * jax.nn.sigmoid(-y * f))
        return H + D @ K, C + D, f

    several = jax.jit(lambda H, steps: jax.lax.fori_loop(0, steps, step, (H, jnp.zeros_like(H), jnp.zeros(n))))
    return lambda steps: np.asarray(several(start, steps)[2])


RIVALS = {
    "NumPy": numpy_gram,
    "torch": torch_gram(False),
    "torch, compiled": torch_gram(True),
    "JAX": jax_gram,
}


def brute(section):
    """Brute force in R^p, one step against many, at each dimension."""
    for dim in BRUTE_DIMS:
        row = timing.side_by_side(XorGrokkingParams.make(n_train=100, width=200, dim=dim), rounds=5)
        words = f"brute force at p = {dim:,}, n = 100, m = 200: times the kernel's"
        section.measures.append(Measure(words, row.ratio, "×"))
        section.goals.append(Goal(f"p = {dim:,}: outputs differ from brute force by", row.difference, AGREE, True))
        if dim == AT:
            section.goals.append(Goal(f"p = {dim:,}: times as fast as brute force", row.ratio, LEAST_BRUTE))


def any_dimension(section):
    """Whole runs of one replicate, drawing and testing included, at two dimensions far apart."""
    lab = get_lab("xor_grokking")
    runs = [XorGrokkingParams.make(n_train=100, width=200, replicates=1, dim=dim) for dim in FAR_APART]
    taken = {params: [] for params in runs}
    for round_ in range(ROUNDS + 1):
        for seed, params in enumerate(runs):
            start = perf_counter()
            execute(lab, params.replace(seed=2 * round_ + seed), workers=1)  # nothing drawn before is used again
            if round_:
                taken[params].append(perf_counter() - start)
    times = {params.dim: median(seconds) for params, seconds in taken.items()}
    counts = [sum(flops(params).values()) for params in runs]
    section.measures += [Measure(f"a whole run at p = {dim:.0e}", 1e3 * spent, "ms") for dim, spent in times.items()]
    section.goals += [
        Goal("operations of a whole run at p = 1e12 over those at 1e4", counts[1] / counts[0], 1.0, at_most=True),
        Goal("its time, slower over faster", max(times.values()) / min(times.values()), SAME, at_most=True),
    ]


def measure():
    """The section of this lab."""
    from .rivals import available

    section = Section("Grokking on XOR clusters", __doc__.split("\n\n", 2)[2].strip())
    for n, m in SIZES:
        rivals = available(RIVALS, section.notes)
        makers = {OURS: lambda n=n, m=m: kernel(n, m)}
        makers |= {name: lambda make=make, n=n, m=m: make(n, m) for name, make in rivals.items()}
        limit = products(2.0 * m * n * n)
        section.rows += contest(work(n, m), "steps/s", makers, check=CHECKED, tolerance=AGREE, limits=limit)
    section.growth = [
        growth("a step", "n, at m = 400", (100, 200, 400, 800), 2, lambda n: kernel(n, 400)),
        growth("a step", "m, at n = 200", (250, 500, 1000, 2000), 1, lambda m: kernel(200, m)),
    ]
    share = find(section.rows, work(*SIZES[-1])).fraction
    section.goals.append(Goal(f"{work(*SIZES[-1])}: share of the rate of dgemm", share, LEAST_SHARE, reason=WHY_SHARE))
    for name in ("NumPy", "torch", "JAX"):
        if any(row.contender == name for row in section.rows):
            words = f"{work(*SIZES[0])}: times as fast as {name}"
            section.measures.append(Measure(words, best_ratio(section.rows, work(*SIZES[0]), name), "×"))
    brute(section)
    any_dimension(section)
    return section


def work(n, m):
    return f"a step, n = {n}, m = {m}"


if __name__ == "__main__":
    with one_core():
        sys.exit(run_alone(measure()))
