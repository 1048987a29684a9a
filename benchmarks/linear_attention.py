"""Training on fresh prompts beside NumPy: what the mathematics saves, and what the compiled code does.

    python -m benchmarks.linear_attention

All train the useful blocks of one layer by Adam on batches of B fresh prompts of n examples in d dimensions. NumPy
draws every example and multiplies (*whole prompts*), or it draws the products that the layer sees by the same law as
the kernel (*products*): the ratio of these two is due to the mathematics, that of the second and the kernel to the
code. All draw from Philox generators, as the lab does. The contenders take turns, round after round, on one thread;
times are of the processor, and ratios are medians over rounds of the ratio within a round.
"""

import sys
from statistics import median
from time import process_time

import numpy as np

from benchmarks.waiting import page_row
from sims import get_lab
from sims.engine.provenance import single_threaded_blas
from sims.linear_attention import kernels, prompts, sampled

SIZES = ((20, 5, 512), (40, 20, 512), (100, 10, 512), (200, 50, 256))
GOALS = {(20, 5, 512): 8.0, (100, 10, 512): 30.0}  # over NumPy on whole prompts
LEAST_CODE = 1.5  # over NumPy on the products, at the sizes of the goals
EVEN_SIZE = (20, 5, 512)
ROUNDS = 7
SECONDS = 0.15
NOISE_VAR, RATE = 0.25, 1e-3
PAGE_GOAL = 0.5  # seconds


def start(d):
    return np.concatenate([[0.1], 0.1 * np.eye(d).ravel()])


def adam(theta):
    """Adam in place, as NumPy writes it."""
    state = [0, np.zeros_like(theta), np.zeros_like(theta)]

    def move(gradient):
        state[0] += 1
        k, first, second = state
        first += (1.0 - sampled.BETA_1) * (gradient - first)
        second += (1.0 - sampled.BETA_2) * (gradient * gradient - second)
        rate = RATE / (1.0 - sampled.BETA_1**k)
        theta[:] -= rate * first / (np.sqrt(second / (1.0 - sampled.BETA_2**k)) + sampled.EPSILON)

    return move


def numpy_loop(n, d, batch, draw):
    """Adam on batches whose products g = X^T y come from `draw(rng, w)`."""
    rng, theta = np.random.Generator(np.random.Philox(0)), start(d)
    move = adam(theta)

    def run(steps):
        for _ in range(steps):
            w, x = rng.standard_normal((batch, d)), rng.standard_normal((batch, d))
            target = np.einsum("pd,pd->p", w, x) + np.sqrt(NOISE_VAR) * rng.standard_normal(batch)
            g = draw(rng, w, n)
            A = theta[1:].reshape(d, d)
            along = np.einsum("pd,pd->p", g @ A, x)
            e = (2.0 / batch) * (theta[0] * along - target)
            move(np.concatenate([[e @ along], (theta[0] * (g * e[:, None]).T @ x).ravel()]))
        if not np.all(np.isfinite(theta)):
            raise RuntimeError("the benchmark run diverged")

    return run


def whole_prompts(rng, w, n):
    X = rng.standard_normal((len(w), n, w.shape[1]))
    y = (X @ w[:, :, None])[:, :, 0] + np.sqrt(NOISE_VAR) * rng.standard_normal((len(w), n))
    return (y[:, None, :] @ X)[:, 0]


def products(rng, w, n):
    """The law of `prompts.useful_moments`, a batch at a time."""
    r2, chi, z = np.einsum("pd,pd->p", w, w), rng.chisquare(n, len(w)), rng.standard_normal(w.shape)
    length, along = np.sqrt((r2 + NOISE_VAR) * chi), np.einsum("pd,pd->p", w, z)
    shift = chi + (np.sqrt(NOISE_VAR * chi) - length) * along / r2
    return length[:, None] * z + shift[:, None] * w


def kernel_loop(n, d, batch, chart="reduced", explicit=False):
    ones, theta = np.ones(d), start(d)
    if chart == "full":
        theta = np.concatenate([np.full(d, 1e-3), theta, np.full(d, 1e-3), np.zeros(d)])
    streams = [np.random.Generator(np.random.Philox(seed)) for seed in range(7)]
    nowhere = np.zeros(0, np.int64)
    monitor = np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((len(kernels.SERIES), 0))

    def run(steps):
        status, _ = sampled.train_on_batches(
            kernels.CHARTS[chart], False, 1, True, explicit, prompts.LINEAR, 1, prompts.COVARIATES["gaussian"], 8.0,
            True, ones, ones, 0.0, n, NOISE_VAR, 1.0, theta, RATE, steps, batch, nowhere, nowhere, np.zeros((0, d)),
            np.zeros((0, 1, 1)), *streams, *monitor,
        )  # fmt: skip
        if status:
            raise RuntimeError("the benchmark run diverged")

    return run


def side_by_side(contenders, batch):
    """Prompts per second of each contender: {name: [rate in each round]}; every one gets about SECONDS a round."""
    counts = {}
    for name, run in contenders.items():
        run(3)
        begin = process_time()
        run(10)
        counts[name] = max(3, round(10 * SECONDS / (process_time() - begin)))
    rates = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            begin = process_time()
            run(counts[name])
            rates[name].append(batch * counts[name] / (process_time() - begin))
    return rates


def ratio(rates, one, other):
    return median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def verdict(met, goal):
    return f"goal {goal}: {'met' if met else 'MISSED'}"


def main():
    """Print the rows; returns whether every goal was met."""
    met = []
    header = ("NumPy, whole", "NumPy, products", "kernel", "mathematics", "code", "both")
    print("prompts per second, and ratios by origin")
    print(f"{'n, d, B':>14} " + " ".join(f"{words:>15}" for words in header))
    single_threaded_blas()
    for n, d, batch in SIZES:
        contenders = {
            "whole": numpy_loop(n, d, batch, whole_prompts),
            "products": numpy_loop(n, d, batch, products),
            "kernel": kernel_loop(n, d, batch),
        }
        rates = side_by_side(contenders, batch)
        best = [f"{max(rates[name]):15.3g}" for name in contenders]
        pairs = (("products", "whole"), ("kernel", "products"), ("kernel", "whole"))
        mathematics, code, both = (ratio(rates, *pair) for pair in pairs)
        words = ""
        if (n, d, batch) in GOALS:
            goal = GOALS[n, d, batch]
            met += [both >= goal, code >= LEAST_CODE]
            words = f"{verdict(met[-2], f'{goal:g}x')}, code {verdict(met[-1], f'{LEAST_CODE:g}x')}"
        shown = " ".join(f"{value:14.1f}x" for value in (mathematics, code, both))
        print(f"{f'{n}, {d}, {batch}':>14} {' '.join(best)} {shown}  {words}")
    n, d, batch = EVEN_SIZE
    contenders = {
        "all blocks, products": kernel_loop(n, d, batch, "full"),
        "all blocks, whole prompts": kernel_loop(n, d, batch, "full", explicit=True),
        "useful blocks, products": kernel_loop(n, d, batch),
    }
    rates = side_by_side(contenders, batch)
    for name in contenders:
        print(f"kernel at {n}, {d}, {batch}: {name}: {max(rates[name]):.3g} prompts per second")
    what, seconds, goal = page_row(get_lab("linear_attention"))
    met.append(seconds < goal)
    print(f"{what}: {1e3 * seconds:.0f} ms  {verdict(met[-1], f'< {goal:g} s')}")
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
