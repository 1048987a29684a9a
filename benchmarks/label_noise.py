"""Steps per second of the label-noise kernel beside NumPy, torch, JAX and what the machine can do.

    python -m benchmarks.label_noise

Every contender trains the same problem by the same rule from the same start, and draws its noise inside the timed call
by NumPy from the same streams, so that all end in the same place. The NumPy loop sums the linear drift and watches the
norm, as the kernel does, but counts no sign flips; those of torch and JAX do none of the three.

The limit of a full-batch step is its two matrix-vector products by the BLAS. That of a batch-one step is the chain of
its dependencies: a step needs the whole inner product of the one before. It is measured as the bare recurrence on the
same rows in order, compiled with the same vector lanes, with nothing drawn, counted, watched or recorded.
"""

import sys

import numpy as np
from numba import njit
from numpy.random import Generator, Philox

from sims.engine.simd import WIDTH, load, spread, store, store_totals
from sims.label_noise.kernels import ALGORITHMS, NORM_SQ_LIMIT, SCHEDULES, SERIES, simulate

from .contest import OURS, Limit, best_ratio, contest, find, growth, one_core, rate_of
from .report import Goal, Section, run_alone

SIZES = ((40, 100), (100, 400), (200, 1000))
NOISE_STD = 0.1
AGREE = 1e-9
CHECKED = 60  # steps after which the contenders are compared
PAGE_GOAL = 0.3  # seconds for the runs of the default page
PAGE_REASON = (
    "Profiled: of its four runs the one with label noise takes two thirds, four times 100,000 steps of half a "
    "microsecond; the theory of all four takes a tenth."
)
CHUNK = 1024  # steps of one call of what JAX compiles
UNROLLED = 8  # steps of one call of what torch compiles

WHY_WAITING = (
    "Profiled: at this size nearly all of the time is the product itself, whose rows do not stay in the first-level "
    "cache. Reading X to and fro, kept once, was the gain that there was."
)
WHY_JAX = (
    "Profiled: two thirds of a step are loads of X from the first-level cache, twice. Tried: rows at cache lines, "
    "fused multiply-add and lanes made a step 1.47 times as fast; eight rows in one pass instead of four made it a "
    "tenth slower; reading X once would need rows that stay in registers."
)
WHY_CHAIN = (
    "Profiled: the rest is drawing the row, the drift, and the watch on signs and norm, which the chain lacks. Tried: "
    "rows are drawn 512 at once, signs are looked at eight at a time by their bits, and steps between two events are a "
    "loop of their own."
)


def problem(n, d):
    """A Gaussian design, labels of five ones, and a rate that is stable from v = 1 for either batch size."""
    X = np.random.default_rng(0).standard_normal((n, d))
    beta_star = (np.arange(d) < 5).astype(float)
    return X, X @ beta_star, beta_star, 0.1 / d


def streams():
    """Index, sign and normal stream, from their beginning."""
    return [Generator(Philox(seed)) for seed in range(3)]


def drawn(n, rate, steps):
    """The samples of so many steps, and the kicks of their labels."""
    index, _, normal = streams()
    return index.integers(0, n, steps), rate * NOISE_STD * normal.standard_normal(steps)


def diverged(v):
    if not np.dot(v, v) <= NORM_SQ_LIMIT:
        raise RuntimeError("the benchmark run diverged")


def kernel(algorithm, n, d):
    X, y, beta_star, rate = problem(n, d)
    c = (X**2).mean(0)
    no_frames = np.zeros(0, np.int64), np.zeros((0, d))
    cancel, progress, records = np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((len(SERIES), 2))

    def run(steps):
        u, w, drift = np.ones(d), np.zeros(d), np.zeros(d)
        status, _, _ = simulate(
            ALGORITHMS[algorithm], False, X, y, c, beta_star, u, w, drift, rate, NOISE_STD,
            SCHEDULES["constant"], steps, np.array([0, steps]), *no_frames, *streams(), cancel, progress, records,
        )  # fmt: skip
        if status:
            raise RuntimeError("the benchmark run diverged")
        return u

    return run


def numpy_full(n, d):
    """Full-batch gradient with the noise of one label: everything preallocated, two products a step."""
    X, y, _, rate = problem(n, d)
    beta, res, G = np.empty(d), np.empty(n), np.empty(d)

    def run(steps):
        v, drift = np.ones(d), np.zeros(d)
        chosen, kicks = drawn(n, rate, steps)
        scale = rate / n
        for i, kick in zip(chosen.tolist(), kicks.tolist(), strict=True):
            np.multiply(v, v, out=beta)
            np.dot(X, beta, out=res)
            np.subtract(res, y, out=res)
            np.multiply(res, scale, out=res)
            res[i] -= kick
            np.dot(res, X, out=G)
            np.add(drift, G, out=drift)
            np.subtract(1.0, G, out=G)
            np.multiply(v, G, out=v)
            diverged(v)
        return v

    return run


def numpy_batch_one(n, d):
    X, y, _, rate = problem(n, d)
    beta, G = np.empty(d), np.empty(d)
    rows, labels = list(X), y.tolist()

    def run(steps):
        v, drift = np.ones(d), np.zeros(d)
        for i in drawn(n, rate, steps)[0].tolist():
            np.multiply(v, v, out=beta)
            np.multiply(rows[i], rate * (np.dot(rows[i], beta) - labels[i]), out=G)
            np.add(drift, G, out=drift)
            np.subtract(1.0, G, out=G)
            np.multiply(v, G, out=v)
            diverged(v)
        return v

    return run


def torch_autograd(n, d):
    """The loss written once, vectorised over samples, and differentiated."""
    import torch

    X, y, _, rate = problem(n, d)
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def run(steps):
        v = torch.ones(d, dtype=torch.float64, requires_grad=True)
        chosen, kicks = drawn(n, 1.0, steps)
        for i, kick in zip(chosen.tolist(), kicks.tolist(), strict=True):
            output = X @ (v * v)
            loss = (output - y).square().sum() / (4 * n) - 0.5 * kick * output[i]
            (gradient,) = torch.autograd.grad(loss, v)
            with torch.no_grad():
                v.sub_(gradient, alpha=rate)
        return v.detach().numpy()

    return run


def torch_by_hand(n, d):
    import torch

    X, y, _, rate = problem(n, d)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    XT = X.T
    beta, res, G = torch.empty(d, dtype=torch.float64), torch.empty_like(y), torch.empty(d, dtype=torch.float64)

    @torch.no_grad()
    def run(steps):
        v = torch.ones(d, dtype=torch.float64)
        chosen, kicks = drawn(n, 1.0, steps)
        for i, kick in zip(chosen.tolist(), kicks.tolist(), strict=True):
            torch.mul(v, v, out=beta)
            torch.mv(X, beta, out=res)
            res.sub_(y).div_(n)
            res[i] -= kick
            torch.mv(XT, res, out=G)
            v.addcmul_(v, G, value=-rate)
        return v.numpy()

    return run


def torch_compiled(n, d):
    """The same, several steps at a call, fused by torch's compiler."""
    import torch

    X, y, _, rate = problem(n, d)
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def few(v, chosen, kicks):
        for k in range(UNROLLED):
            res = (torch.mv(X, v * v) - y) / n
            res = res.index_add(0, chosen[k : k + 1], -kicks[k : k + 1])
            v = v * (1.0 - rate * torch.mv(X.T, res))
        return v

    step = torch.compile(few, dynamic=False)

    @torch.no_grad()
    def run(steps):
        v = torch.ones(d, dtype=torch.float64)
        whole = -(-steps // UNROLLED) * UNROLLED
        chosen, kicks = drawn(n, 1.0, steps)
        spare = whole - steps
        chosen, kicks = (torch.from_numpy(np.pad(a, (0, spare))) for a in (chosen, kicks))
        for first in range(0, whole - (UNROLLED if spare else 0), UNROLLED):
            v = step(v, chosen[first : first + UNROLLED], kicks[first : first + UNROLLED])
        for k in range(whole - UNROLLED, steps) if spare else ():
            res = (torch.mv(X, v * v) - y) / n
            res[chosen[k]] -= kicks[k]
            v = v * (1.0 - rate * torch.mv(X.T, res))
        return v.numpy()

    return run


def torch_batch_one(n, d):
    import torch

    X, y, _, rate = problem(n, d)
    rows, labels = list(torch.from_numpy(X)), y.tolist()

    @torch.no_grad()
    def run(steps):
        v = torch.ones(d, dtype=torch.float64)
        for i in drawn(n, rate, steps)[0].tolist():
            pull = torch.dot(rows[i], v * v).item() - labels[i]
            v.addcmul_(v, rows[i], value=-rate * pull)
        return v.numpy()

    return run


def jax_jitted(batch_one):
    """A loop of steps inside one compiled call, as many as CHUNK."""

    def make(n, d):
        from .rivals import jax

        X, y, _, rate = problem(n, d)
        X, y = jax.numpy.asarray(X), jax.numpy.asarray(y)

        def full(v, i, kick):
            res = (X @ (v * v) - y) * (rate / n)
            return v * (1.0 - res.at[i].add(-kick) @ X)

        def single(v, i, kick):
            x = X[i]
            return v * (1.0 - rate * (x @ (v * v) - y[i]) * x)

        step = single if batch_one else full

        @jax.jit
        def chunk(v, steps, chosen, kicks):
            return jax.lax.fori_loop(0, steps, lambda k, v: step(v, chosen[k], kicks[k]), v)

        def run(steps):
            v = jax.numpy.ones(d)
            whole = -(-steps // CHUNK) * CHUNK
            chosen, kicks = (np.pad(a, (0, whole - steps)) for a in drawn(n, rate, steps))
            for first in range(0, whole, CHUNK):
                part = slice(first, first + CHUNK)
                v = chunk(v, min(CHUNK, steps - first), chosen[part], kicks[part])
            return np.asarray(v)

        return run

    return make


@njit(nogil=True, cache=True, error_model="numpy")
def chain(X, y, rate, v, sums, steps):
    """The bare recurrence of batch-one SGD on rows padded to whole vectors, one after the other."""
    n, d = X.shape
    row, none = 0, spread(0.0)
    for _ in range(steps):
        x = X[row]
        total = more = spread(0.0)
        for j in range(0, d - WIDTH, 2 * WIDTH):
            a, b = load(v, j), load(v, j + WIDTH)
            total += load(x, j) * (a * a)
            more += load(x, j + WIDTH) * (b * b)
        store_totals(sums, 0, total + more, none, none, none)
        pull = spread(-rate * (sums[0] - y[row]))
        for j in range(0, d, WIDTH):
            a = load(v, j)
            store(v, j, a + a * (pull * load(x, j)))
        row = row + 1 if row + 1 < n else 0


def chain_limit(n, d):
    """Steps a second of the bare recurrence, checked against NumPy."""
    X, y, _, rate = problem(n, d)
    wide = np.zeros((n, -(-d // (2 * WIDTH)) * 2 * WIDTH))
    wide[:, :d] = X

    def run(steps):
        v, sums = np.ones(wide.shape[1]), np.zeros(8)
        chain(wide, y, rate, v, sums, steps)
        return v

    v = np.ones(d)
    for k in range(CHECKED):
        v *= 1.0 - rate * (X[k % n] @ (v * v) - y[k % n]) * X[k % n]
    np.testing.assert_allclose(run(CHECKED)[:d], v, rtol=1e-10)
    return Limit("its chain", rate_of(run))


def product_limit(n, d):
    """Steps a second of the two matrix-vector products of a full-batch step and nothing else, by the BLAS."""
    X = problem(n, d)[0]
    beta, res, G = np.ones(d), np.empty(n), np.empty(d)

    def run(steps):
        for _ in range(steps):
            np.dot(X, beta, out=res)
            np.dot(res, X, out=G)
        return G

    return Limit("a dgemv pair", rate_of(run))


FULL = {
    "NumPy": numpy_full,
    "torch, autograd": torch_autograd,
    "torch, by hand": torch_by_hand,
    "torch, compiled": torch_compiled,
    "JAX": jax_jitted(False),
}
ONE = {"NumPy": numpy_batch_one, "torch, by hand": torch_batch_one, "JAX": jax_jitted(True)}
RULES = {
    "gd_label_noise": (FULL, product_limit),
    "sgd": (ONE, chain_limit),
}


def work(rule, n, d):
    return f"{rule} {n} × {d}"


def measure():
    """The section of this lab."""
    from .rivals import available

    section = Section("Label noise", __doc__.split("\n\n", 2)[2].strip())
    for rule, (rivals, limit) in RULES.items():
        for n, d in SIZES:
            rivals_here = available(rivals, section.notes)
            if (n, d) != SIZES[0]:
                rivals_here.pop("torch, compiled", None)  # a minute of compiling each
            makers = {OURS: lambda rule=rule, n=n, d=d: kernel(rule, n, d)}
            makers |= {name: lambda make=make, n=n, d=d: make(n, d) for name, make in rivals_here.items()}
            bound = limit(n, d)
            section.rows += contest(work(rule, n, d), "steps/s", makers, check=CHECKED, tolerance=AGREE, limits=bound)
    section.growth = [
        growth("gd_label_noise", "n, at d = 400", (50, 100, 200, 400), 1, lambda n: kernel("gd_label_noise", n, 400)),
        growth("gd_label_noise", "d, at n = 100", (100, 200, 400, 800), 1, lambda d: kernel("gd_label_noise", 100, d)),
        growth("sgd", "n, at d = 400", (50, 100, 200, 400), 0, lambda n: kernel("sgd", n, 400)),
        growth("sgd", "d, at n = 40", (500, 1000, 2000, 4000), 1, lambda d: kernel("sgd", 40, d)),
    ]
    small, large = work("gd_label_noise", 40, 100), work("gd_label_noise", 200, 1000)
    rows = section.rows
    section.goals = [
        Goal(f"{small}: times as fast as NumPy", best_ratio(rows, small, "NumPy"), 8),
        Goal(f"{small}: times as fast as torch", best_ratio(rows, small, "torch, autograd"), 100),
        Goal(f"{large}: times as fast as NumPy", best_ratio(rows, large, "NumPy"), 1.2),
        Goal(f"{large}: share of the rate of a dgemv pair", find(rows, large).fraction, 0.5, reason=WHY_WAITING),
        *(
            Goal(f"{work('sgd', n, d)}: share of its chain's rate", find(rows, work("sgd", n, d)).fraction, 0.5,
                 reason=WHY_CHAIN)
            for n, d in SIZES
        ),
    ]  # fmt: skip
    if any(row.contender == "JAX" for row in rows):
        jax = best_ratio(rows, small, "JAX")
        section.goals.insert(1, Goal(f"{small}: times as fast as JAX", jax, 3, reason=WHY_JAX))
    return section


if __name__ == "__main__":
    with one_core():
        sys.exit(run_alone(measure()))
