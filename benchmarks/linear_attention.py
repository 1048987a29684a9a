"""Training on fresh prompts beside NumPy, torch and JAX: what the mathematics saves, and what the compiled code does.

    python -m benchmarks.linear_attention

All train the useful blocks of one layer by Adam on batches of B fresh prompts of n examples in d dimensions. *Whole
prompts* draws every example and multiplies, as NumPy would without the theory; *n-free* draws the products that the
layer sees by their law, as the lab does. The first over the second is what the mathematics saves, the rest is the code.
Every contender draws by NumPy's generators from the lab's streams, inside the timed call, and ends in the same place as
the kernel that draws as it does.

The limit of an exact-gradient step for any two covariances is its seven products of d x d matrices.
"""

import sys

import numpy as np
from numpy.random import Generator, Philox

from sims.linear_attention import kernels, population, prompts, sampled

from .contest import OURS, best_ratio, contest, find, growth, one_core
from .machine import products
from .report import Goal, Measure, Section, run_alone

SIZES = ((20, 5, 512), (40, 20, 512), (100, 10, 512), (200, 50, 256))
GOALS = {(20, 5, 512): 8.0, (100, 10, 512): 30.0}  # over NumPy on whole prompts
LEAST_CODE = 1.5  # over the same algorithm elsewhere, at the sizes of the goals
CHECKED, AGREE = 5, 1e-9
NOISE_VAR, RATE = 0.25, 1e-3
STEP_MICROSECONDS, AT_DIM = 20.0, 256  # of an exact-gradient step at d = 5; where it is held to the limit of dgemm
PAGE_GOAL = 0.5  # seconds
WHY_DRAWS = "Profiled: nearly all of the time goes into drawing, by the same generators on both sides."


def start(d):
    return np.concatenate([[0.1], 0.1 * np.eye(d).ravel()])


def streams():
    """Task, chi-square, noise, covariate, query, label-noise and sign stream, from their beginning."""
    return [Generator(Philox(seed)) for seed in range(7)]


def adam(theta, steps):
    """Adam with a cosine in place, as NumPy writes it."""
    state = [0, np.zeros_like(theta), np.zeros_like(theta)]

    def move(gradient):
        k, first, second = state
        rate = RATE * 0.5 * (1.0 + np.cos(np.pi * k / steps))
        state[0] += 1
        first += (1.0 - sampled.BETA_1) * (gradient - first)
        second += (1.0 - sampled.BETA_2) * (gradient * gradient - second)
        grown_1, grown_2 = 1.0 - sampled.BETA_1 ** (k + 1), 1.0 - sampled.BETA_2 ** (k + 1)
        theta[:] -= rate * (first / grown_1) / (np.sqrt(second / grown_2) + sampled.EPSILON)

    return move


def whole_prompts(rngs, n, d, batch):
    """Query, target and g = X^T y of a batch whose examples are all drawn."""
    task, _, _, covariate, _, label_noise, _ = rngs
    x, w = covariate.standard_normal((batch, d)), task.standard_normal((batch, d))
    noise = np.sqrt(NOISE_VAR) * label_noise.standard_normal((batch, n + 1))
    X = covariate.standard_normal((batch, n, d))
    y = (X @ w[:, :, None])[:, :, 0] + noise[:, 1:]
    return x, np.einsum("pd,pd->p", w, x) + noise[:, 0], (y[:, None, :] @ X)[:, 0]


def drawn(rngs, n, d, batch):
    """What the n-free algorithm draws for a batch: queries, tasks, normals, label noise, chi-squares."""
    task, chi_square, noise, _, query, label_noise, _ = rngs
    return (
        query.standard_normal((batch, d)),
        task.standard_normal((batch, d)),
        noise.standard_normal((batch, d)),
        label_noise.standard_normal(batch),
        chi_square.chisquare(n, batch),
    )


def n_free(rngs, n, d, batch):
    """Query, target and g by the law of `prompts.useful_moments`, a batch at a time."""
    x, w, z, noise, chi = drawn(rngs, n, d, batch)
    r2, along = np.einsum("pd,pd->p", w, w), np.einsum("pd,pd->p", w, z)
    length = np.sqrt((r2 + NOISE_VAR) * chi)
    shift = chi + (np.sqrt(NOISE_VAR * chi) - length) * along / r2
    target = np.einsum("pd,pd->p", w, x) + np.sqrt(NOISE_VAR) * noise
    return x, target, length[:, None] * z + shift[:, None] * w


def numpy_loop(draw, n, d, batch):
    def run(steps):
        rngs, theta = streams(), start(d)
        move = adam(theta, steps)
        for _ in range(steps):
            x, target, g = draw(rngs, n, d, batch)
            along = np.einsum("pd,pd->p", g, x @ theta[1:].reshape(d, d).T)
            e = (2.0 / batch) * (theta[0] * along - target)
            move(np.concatenate([[e @ along], ((theta[0] * e)[:, None] * g).T.dot(x).ravel()]))
        return theta

    return run


def kernel(n, d, batch, explicit=False, chart="reduced"):
    ones, nowhere = np.ones(d), np.zeros(0, np.int64)
    monitor = np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((len(kernels.SERIES), 0))

    def run(steps):
        theta = start(d)
        if chart == "full":
            theta = np.concatenate([np.full(d, 1e-3), theta, np.full(d, 1e-3), np.zeros(d)])
        status, _ = sampled.train_on_batches(
            kernels.CHARTS[chart], False, 1, True, explicit, prompts.LINEAR, 1, prompts.COVARIATES["gaussian"], 8.0,
            True, ones, ones, 0.0, n, NOISE_VAR, 1.0, theta, RATE, steps, batch, nowhere, nowhere, np.zeros((0, d)),
            np.zeros((0, 1, 1)), *streams(), *monitor,
        )  # fmt: skip
        if status:
            raise RuntimeError("the benchmark run diverged")
        return theta

    return run


def jax_n_free(n, d, batch):
    """Draws by NumPy; law, gradient and Adam in one compiled call."""
    from .rivals import jax

    jnp = jax.numpy

    @jax.jit
    def step(theta, first, second, k, steps, x, w, z, noise, chi):
        r2, along = jnp.sum(w * w, 1), jnp.sum(w * z, 1)
        length = jnp.sqrt((r2 + NOISE_VAR) * chi)
        shift = chi + (jnp.sqrt(NOISE_VAR * chi) - length) * along / r2
        target = jnp.sum(w * x, 1) + jnp.sqrt(NOISE_VAR) * noise
        g = length[:, None] * z + shift[:, None] * w
        met = jnp.sum(g * (x @ theta[1:].reshape(d, d).T), 1)
        e = (2.0 / batch) * (theta[0] * met - target)
        gradient = jnp.concatenate([(e @ met)[None], (((theta[0] * e)[:, None] * g).T @ x).ravel()])
        rate = RATE * 0.5 * (1.0 + jnp.cos(jnp.pi * k / steps))
        first = first + (1.0 - sampled.BETA_1) * (gradient - first)
        second = second + (1.0 - sampled.BETA_2) * (gradient * gradient - second)
        mean, square = first / (1.0 - sampled.BETA_1 ** (k + 1.0)), second / (1.0 - sampled.BETA_2 ** (k + 1.0))
        return theta - rate * mean / (jnp.sqrt(square) + sampled.EPSILON), first, second

    def run(steps):
        rngs = streams()
        state = jnp.asarray(start(d)), jnp.zeros(d * d + 1), jnp.zeros(d * d + 1)
        for k in range(steps):
            state = step(*state, float(k), float(steps), *drawn(rngs, n, d, batch))
        return np.asarray(state[0])

    return run


def torch_n_free(compiled):
    def make(n, d, batch):
        import torch

        def gradient(theta, x, w, z, noise, chi):
            r2, along = (w * w).sum(1), (w * z).sum(1)
            length = torch.sqrt((r2 + NOISE_VAR) * chi)
            shift = chi + (torch.sqrt(NOISE_VAR * chi) - length) * along / r2
            target = (w * x).sum(1) + NOISE_VAR**0.5 * noise
            g = length[:, None] * z + shift[:, None] * w
            met = (g * (x @ theta[1:].reshape(d, d).T)).sum(1)
            e = (2.0 / batch) * (theta[0] * met - target)
            return torch.cat([(e @ met)[None], (((theta[0] * e)[:, None] * g).T @ x).ravel()])

        of_batch = torch.compile(gradient, dynamic=False) if compiled else gradient

        @torch.no_grad()
        def run(steps):
            rngs, theta = streams(), torch.from_numpy(start(d))
            first, second = torch.zeros_like(theta), torch.zeros_like(theta)
            for k in range(steps):
                moved = of_batch(theta, *(torch.from_numpy(a) for a in drawn(rngs, n, d, batch)))
                first.lerp_(moved, 1.0 - sampled.BETA_1)
                second.lerp_(moved * moved, 1.0 - sampled.BETA_2)
                rate = RATE * 0.5 * (1.0 + np.cos(np.pi * k / steps))
                grown_1, grown_2 = 1.0 - sampled.BETA_1 ** (k + 1), 1.0 - sampled.BETA_2 ** (k + 1)
                theta -= rate * (first / grown_1) / (torch.sqrt(second / grown_2) + sampled.EPSILON)
            return theta.numpy()

        return run

    return make


WHOLE, FREE = "NumPy, whole prompts", "NumPy, n-free"
OURS_WHOLE = "ours, whole prompts"
RIVALS = {
    FREE: lambda n, d, batch: numpy_loop(n_free, n, d, batch),
    "torch, n-free": torch_n_free(False),
    "torch, compiled, n-free": torch_n_free(True),
    "JAX, n-free": jax_n_free,
    OURS_WHOLE: lambda n, d, batch: kernel(n, d, batch, explicit=True),
    WHOLE: lambda n, d, batch: numpy_loop(whole_prompts, n, d, batch),
}


# -- the exact gradient ------------------------------------------------------------------------------------------


def covariances(d):
    """Two covariances that do not commute, of trace d."""
    found = []
    for seed in range(2):
        A = np.random.default_rng(seed).standard_normal((d, 2 * d))
        found.append(A @ A.T / (2 * d))
    return found


def population_work(gradient, d, n=20):
    """Gradients at the same blocks, over and over."""
    Sig, T = covariances(d)
    blocks = np.random.default_rng(2).standard_normal(d * d + 3 * d + 1) / d

    def run(steps):
        out = np.empty_like(blocks)
        for _ in range(steps):
            gradient(Sig, T, n, NOISE_VAR, blocks, out)
        return out

    return run


def by_autograd(Sig, T, n, s2, blocks, out):
    """The same gradient by finite formulas of torch, differentiated: the loss written as sums of traces."""
    import torch

    d = len(Sig)
    Sig, T = torch.from_numpy(Sig), torch.from_numpy(T)
    theta = torch.from_numpy(blocks).requires_grad_()
    u, c, A, b, h = torch.split(theta, [d, 1, d * d, d, d])
    A = A.reshape(d, d)
    TS = T @ Sig
    STS = Sig @ TS
    v1 = torch.trace(TS) + s2
    kurtosis = n * (n + 2.0) * (v1 * v1 + 2.0 * (TS * TS.T).sum())
    R = (n + 1.0) * STS + v1 * Sig
    Q = c * A.T + torch.outer(b, u)
    odd = v1 - 2.0 * n * (STS * Q).sum() + n * ((Sig @ Q @ R) * Q).sum()
    C = n * n * v1 * Sig + 2.0 * n * STS
    Su, Sb, Sh = Sig @ u, Sig @ b, Sig @ h
    H = A @ Sig @ A.T
    even = n * (n + 1.0) * (Su @ (H @ Su)) + n * (H * Sig).sum() * (u @ Su) + 2.0 * c * ((A @ Sb) @ (C @ u))
    even = even + c * c * kurtosis * (b @ Sb) + h @ Sh + 2.0 * n * (Sh @ (A.T @ Su + c * v1 * b))
    (gradient,) = torch.autograd.grad((odd + even).sum(), theta)
    out[:] = gradient.numpy()


def diagonal_work(d, n=20):
    """Steps of the lab's own descent on diagonal covariances, all blocks trained; d^2 operations and no product."""
    ones, nowhere = np.ones(d), np.zeros(0, np.int64)

    def run(steps):
        theta = np.concatenate([np.full(d, 1e-3), start(d), np.full(d, 1e-3), np.zeros(d)])
        monitor = np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((len(kernels.SERIES), 0))
        kernels.descend(
            kernels.CHARTS["full"], False, ones, ones, n, NOISE_VAR, 1.0 / n, theta, 1e-5, steps, nowhere, nowhere,
            np.zeros((0, d)), np.zeros((0, 1, 1)), *monitor,
        )  # fmt: skip
        return theta

    return run


def measure():
    """The section of this lab."""
    from .rivals import available

    section = Section("Linear attention", __doc__.split("\n\n", 2)[2].strip())
    for size in SIZES:
        rivals = available(RIVALS, section.notes)
        if size != SIZES[0]:
            rivals.pop("torch, compiled, n-free", None)  # tens of seconds of compiling each
        makers = {OURS: lambda size=size: kernel(*size)}
        makers |= {name: lambda make=make, size=size: make(*size) for name, make in rivals.items()}
        section.rows += contest(
            work(size), "prompts/s", makers, check=CHECKED, tolerance=AGREE, scale=size[2],
            against={OURS_WHOLE: OURS_WHOLE, WHOLE: OURS_WHOLE},
        )  # fmt: skip
        if size in GOALS:
            rows, words = section.rows, work(size)
            whole, free = (best_ratio(rows, words, name) for name in (WHOLE, FREE))
            section.goals += [
                Goal(f"{words}: times as fast as NumPy on whole prompts", whole, GOALS[size]),
                Goal(f"{words}: of that by the code, over NumPy, n-free", free, LEAST_CODE, reason=WHY_DRAWS),
            ]
            if "JAX, n-free" in rivals:
                jax = best_ratio(rows, words, "JAX")
                section.goals.append(Goal(f"{words}: times as fast as JAX, n-free", jax, LEAST_CODE, reason=WHY_DRAWS))
            section.measures.append(Measure(f"{words}: gain by the mathematics, in NumPy", whole / free, "×"))
    section.rows += contest(
        exact(AT_DIM), "steps/s",
        {
            OURS: lambda: population_work(population.gradient, AT_DIM),
            "NumPy": lambda: population_work(population.gradient.py_func, AT_DIM),
            "torch, autograd": lambda: population_work(by_autograd, AT_DIM),
        },
        check=1, tolerance=AGREE, limits=products(7 * 2.0 * AT_DIM**3), rounds=5,
    )  # fmt: skip
    section.rows += contest(
        exact(5), "steps/s", {OURS: lambda: diagonal_work(5)}, check=CHECKED, tolerance=AGREE, rounds=5
    )
    section.growth = [
        growth("Adam on prompts", "n, at d = 10", (50, 200, 800, 3200), 0, lambda n: kernel(n, 10, 256)),
        growth("Adam on prompts", "B, at d = 10", (128, 256, 512, 1024), 1, lambda batch: kernel(20, 10, batch)),
        growth("exact gradient, any covariances", "d", (64, 128, 256), 3,
               lambda d: population_work(population.gradient, d)),
        growth("exact gradient, diagonal", "d", (32, 64, 128, 256), 2, diagonal_work),
    ]  # fmt: skip
    step = 1e6 / find(section.rows, exact(5)).throughput
    share = find(section.rows, exact(AT_DIM)).fraction
    section.goals += [
        Goal(f"{exact(5)}: microseconds", step, STEP_MICROSECONDS, at_most=True),
        Goal(f"{exact(AT_DIM)}: share of the rate of its products by dgemm", share, 0.5),
    ]
    return section


def work(size):
    return "Adam, n = {}, d = {}, B = {}".format(*size)


def exact(d):
    return f"exact gradient, d = {d}"


if __name__ == "__main__":
    with one_core():
        sys.exit(run_alone(measure()))
