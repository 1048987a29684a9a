"""Steps per second of the label-noise kernel beside plain NumPy, torch and what the machine can do.

    python -m benchmarks.label_noise

Every contender trains the same problem by the same rule and draws its noise inside the timed call. They
take turns, round after round, so that a busy moment of the machine hits all of them. Ratios are the
contender's time over the kernel's: of the best times, and the median over rounds of the ratio within a round.
All run on one thread. The NumPy loop sums the linear drift and watches the norm, as the kernel does, but
counts no sign flips; the torch loops do none of the three.
"""

from statistics import median
from time import perf_counter

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sims.label_noise.kernels import ALGORITHMS, NORM_SQ_LIMIT, SCHEDULES, SERIES, simulate

SIZES = ((40, 100), (100, 400), (200, 1000))
ROUNDS = 7
SECONDS = 0.1
NOISE_STD = 0.1
PAGE_GOAL = 0.3  # seconds for the runs of the default page


def problem(n, d):
    """A Gaussian design, labels of five ones, and a rate that is stable from v = 1 for either batch size."""
    X = np.random.default_rng(0).standard_normal((n, d))
    beta_star = (np.arange(d) < 5).astype(float)
    return X, X @ beta_star, beta_star, 0.1 / d


def generators():
    return [np.random.Generator(np.random.Philox(seed)) for seed in range(3)]


def kernel_loop(algorithm, n, d):
    X, y, beta_star, rate = problem(n, d)
    c = (X**2).mean(0)
    u, w, drift = np.ones(d), np.zeros(d), np.zeros(d)
    rngs = generators()
    no_frames = np.zeros(0, np.int64), np.zeros((0, d))
    cancel, progress, records = np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((len(SERIES), 2))

    def run(steps):
        status, _, _ = simulate(
            ALGORITHMS[algorithm], False, X, y, c, beta_star, u, w, drift, rate, NOISE_STD,
            SCHEDULES["constant"], steps, np.array([0, steps]), *no_frames, *rngs, cancel, progress, records,
        )  # fmt: skip
        if status:
            raise RuntimeError("the benchmark run diverged")

    return run


def numpy_full(n, d):
    """Full-batch gradient with the noise of one label: everything preallocated, two products a step."""
    X, y, _, rate = problem(n, d)
    v, drift = np.ones(d), np.zeros(d)
    beta, res, G = np.empty(d), np.empty(n), np.empty(d)
    index_rng, _, normal_rng = generators()

    def run(steps):
        chosen = index_rng.integers(0, n, steps).tolist()
        kicks = (rate * NOISE_STD * normal_rng.standard_normal(steps)).tolist()
        scale = rate / n
        for i, kick in zip(chosen, kicks, strict=True):
            np.multiply(v, v, out=beta)
            np.dot(X, beta, out=res)
            np.subtract(res, y, out=res)
            np.multiply(res, scale, out=res)
            res[i] -= kick
            np.dot(res, X, out=G)
            np.add(drift, G, out=drift)
            np.subtract(1.0, G, out=G)
            np.multiply(v, G, out=v)
            if not np.dot(v, v) <= NORM_SQ_LIMIT:
                raise RuntimeError("the benchmark run diverged")

    return run


def numpy_batch_one(n, d):
    X, y, _, rate = problem(n, d)
    v, drift = np.ones(d), np.zeros(d)
    beta, G = np.empty(d), np.empty(d)
    index_rng, _, _ = generators()
    rows, labels = list(X), y.tolist()

    def run(steps):
        for i in index_rng.integers(0, n, steps).tolist():
            np.multiply(v, v, out=beta)
            np.multiply(rows[i], rate * (np.dot(rows[i], beta) - labels[i]), out=G)
            np.add(drift, G, out=drift)
            np.subtract(1.0, G, out=G)
            np.multiply(v, G, out=v)
            if not np.dot(v, v) <= NORM_SQ_LIMIT:
                raise RuntimeError("the benchmark run diverged")

    return run


def torch_noise(n, steps):
    index_rng, _, normal_rng = generators()
    return index_rng.integers(0, n, steps).tolist(), (NOISE_STD * normal_rng.standard_normal(steps)).tolist()


def torch_autograd(n, d):
    """The loss written once, vectorised over samples, and differentiated."""
    X, y, _, rate = problem(n, d)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    v = torch.ones(d, dtype=torch.float64, requires_grad=True)

    def run(steps):
        for i, xi in zip(*torch_noise(n, steps), strict=True):
            output = X @ (v * v)
            loss = (output - y).square().sum() / (4 * n) - 0.5 * xi * output[i]
            (gradient,) = torch.autograd.grad(loss, v)
            with torch.no_grad():
                v.sub_(gradient, alpha=rate)

    return run


@torch.no_grad()
def torch_by_hand(n, d):
    X, y, _, rate = problem(n, d)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    XT = X.T
    v = torch.ones(d, dtype=torch.float64)
    beta, res, G = torch.empty_like(v), torch.empty_like(y), torch.empty_like(v)

    def run(steps):
        for i, xi in zip(*torch_noise(n, steps), strict=True):
            torch.mul(v, v, out=beta)
            torch.mv(X, beta, out=res)
            res.sub_(y).div_(n)
            res[i] -= xi
            torch.mv(XT, res, out=G)
            v.addcmul_(v, G, value=-rate)

    return run


@torch.no_grad()
def torch_batch_one(n, d):
    X, y, _, rate = problem(n, d)
    rows, labels = list(torch.from_numpy(X)), y.tolist()
    v = torch.ones(d, dtype=torch.float64)

    def run(steps):
        for i in torch_noise(n, steps)[0]:
            pull = torch.dot(rows[i], v * v).item() - labels[i]
            v.addcmul_(v, rows[i], value=-rate * pull)

    return run


def product_pair(n, d):
    """The two matrix-vector products of a step and nothing else, by the BLAS."""
    X = problem(n, d)[0]
    beta, res, G = np.ones(d), np.empty(n), np.empty(d)

    def run(steps):
        for _ in range(steps):
            np.dot(X, beta, out=res)
            np.dot(res, X, out=G)

    return run


CONTENDERS = {
    "gd_label_noise": {
        "numba": lambda n, d: kernel_loop("gd_label_noise", n, d),
        "numpy": numpy_full,
        "torch autograd": torch_autograd,
        "torch by hand": torch_by_hand,
        "BLAS products alone": product_pair,
    },
    "sgd": {
        "numba": lambda n, d: kernel_loop("sgd", n, d),
        "numpy": numpy_batch_one,
        "torch by hand": torch_batch_one,
    },
}


def seconds(run, steps):
    start = perf_counter()
    run(steps)
    return perf_counter() - start


def steps_for(run):
    """How many steps take about SECONDS; the first calls also warm the contender up."""
    steps = 2
    run(steps)
    while (taken := seconds(run, steps)) < SECONDS / 10:
        steps *= 4
    return max(2, round(steps * SECONDS / taken))


def compare(algorithm, n, d):
    """One row a contender: steps/s, GFLOP/s spent on the two products, its time over the kernel's."""
    runs = {name: make(n, d) for name, make in CONTENDERS[algorithm].items()}
    steps = {name: steps_for(run) for name, run in runs.items()}
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds(run, steps[name]) / steps[name])
    flops = 4 * d * (1 if algorithm == "sgd" else n)
    return [
        {
            "algorithm": algorithm,
            "n": n,
            "d": d,
            "contender": name,
            "steps_per_s": 1 / min(taken),
            "steps_per_s_median": 1 / median(taken),
            "gflops": flops / min(taken) / 1e9,
            "numba_ratio": min(taken) / min(times["numba"]),
            "numba_ratio_median": median(t / k for t, k in zip(taken, times["numba"], strict=True)),
        }
        for name, taken in times.items()
    ]


def limits():
    """The machine on one thread: GFLOP/s of a large matrix product, GB/s read and written by a copy."""
    a = np.random.default_rng(0).standard_normal((1000, 1000))
    product = np.empty_like(a)
    source, target = np.ones(2**23), np.zeros(2**23)
    multiply = min(seconds(lambda _: np.dot(a, a, out=product), 1) for _ in range(ROUNDS))
    copy = min(seconds(lambda _: np.copyto(target, source), 1) for _ in range(ROUNDS))
    return {"dgemm_gflops": 2e9 / multiply / 1e9, "copy_gb_per_s": 2 * source.nbytes / copy / 1e9}


def rows():
    """All comparisons; every row also carries the machine's limits, measured in the same run."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        limit = limits()
        return [row | limit for algorithm in CONTENDERS for n, d in SIZES for row in compare(algorithm, n, d)]


def main():
    """Print the rows; no goal is set for them, so that none is missed."""
    table = rows()
    limit = table[0]
    print(f"one thread: dgemm {limit['dgemm_gflops']:.1f} GFLOP/s, copy {limit['copy_gb_per_s']:.1f} GB/s")
    print(
        f"{'rule':15} {'n x d':>9} {'contender':20} {'steps/s':>9} {'median':>9} {'GFLOP/s':>8} "
        f"{'numba is':>9} {'median':>7}"
    )
    for row in table:
        print(
            f"{row['algorithm']:15} {row['n']:>4}x{row['d']:<4} {row['contender']:20} "
            f"{row['steps_per_s']:9.3g} {row['steps_per_s_median']:9.3g} {row['gflops']:8.2f} "
            f"{row['numba_ratio']:8.2f}x {row['numba_ratio_median']:6.2f}x"
        )
    return True


if __name__ == "__main__":
    main()
