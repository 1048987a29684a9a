"""Training in the space of inner products against gradient descent in R^p, and the law of what is sampled."""

import math
import threading

import numpy as np
import pytest

from sims.engine import RunMonitor, execute, get_lab
from sims.engine.provenance import single_threaded_blas
from sims.xor_grokking import gram, kernels
from sims.xor_grokking.kernels import SERIES, STATUS
from sims.xor_grokking.lab import CLUSTERS, XorGrokkingParams, recorded_steps, simulate

LAB = get_lab("xor_grokking")
make = XorGrokkingParams.make


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    single_threaded_blas()


def in_full(params, replicate):
    """The direct mode's points, start and test points as matrices with p columns, drawn at once."""
    p, m, n = params, params.width, params.n_train
    found = gram.problem(p, replicate)

    def draw(name):
        return gram.generator(p.seed, gram.STREAMS[name], replicate)

    assert p.dim - 2 <= gram.COLUMNS, "beyond, the columns come in blocks"
    X = np.hstack([found.points.plane, draw("noise").standard_normal((n, p.dim - 2))])
    init, test = draw("init"), draw("test")
    W = np.hstack([init.standard_normal((m, 2)), init.standard_normal((m, p.dim - 2))]) * p.init_std
    Q = np.hstack([test.standard_normal((p.n_test, 2)), test.standard_normal((p.n_test, p.dim - 2))])
    Q[:, :2] += gram.centres(found.quadrant, p.mu)
    return found, X, W, Q


def brute(params, found, X, W, Q):
    """Gradient descent on W by the definition; the series, and the outputs at each recorded step."""
    y, a, n = found.points.label, found.output, params.n_train
    clean = np.where(found.quadrant < 2, 1.0, -1.0)
    flipped = y != found.points.clean
    own = np.where(a > 0, 0, 1)
    rows, outputs, weights = [], [], []
    at = set(recorded_steps(params).tolist())
    W = W.copy()
    for t in range(params.steps + 1):
        H = W @ X.T
        f = a @ np.maximum(H, 0)
        if t in at:
            f_test = a @ np.maximum(W @ Q.T, 0)
            right = f_test * clean > 0
            each = [right[found.quadrant == q].mean() for q in range(4)]
            cos = np.abs(W[:, :2]) / np.linalg.norm(W, axis=1)[:, None]
            rows.append([
                (y * f > 0).mean(), right.mean(), (y * f > 0)[flipped].mean() if flipped.any() else 1.0,
                min(each), *each,
                cos[np.arange(len(a)), own].mean(), cos[np.arange(len(a)), 1 - own].mean(),
                np.log(1 + np.exp(-y * f)).mean(),
            ])  # fmt: skip
            outputs.append((f, f_test))
            weights.append(W.copy())
        g = 1 / (1 + np.exp(y * f))
        W += params.learning_rate / n * a[:, None] * ((H > 0) * (g * y)) @ X
    return np.array(rows).T, outputs, weights


def outputs_of(params, found, steps):
    """Training outputs, test outputs and H of the kernel after some steps."""
    m, n, n_test = params.width, params.n_train, params.n_test
    H, C, records = found.start.copy(), np.zeros((m, n)), np.empty((len(SERIES), 1))
    train(params, found, H, C, steps, np.array([steps]), records)
    f, f_test = np.empty(n), np.empty(n_test)
    kernels.outputs(found.output, H, f)
    kernels.test_outputs(found.output, C, found.cross, found.test_start, f_test)
    return f, f_test, H


def train(params, found, H, C, steps, record_at, records, cancel=None, frames=0):
    grid = np.linspace(-1.0, 1.0, 3)
    return kernels.simulate(
        found.output, found.points.label, found.points.label != found.points.clean, found.points.gram,
        found.points.factor, H, C, found.cross, found.test_start, found.quadrant, found.points.plane,
        found.start_plane, found.start_norm_sq, params.learning_rate / params.n_train, params.mu, steps, record_at,
        np.arange(frames), np.empty((frames, 2, 2)), grid, np.empty((frames, 3, 3)),
        np.zeros(1, np.uint8) if cancel is None else cancel, np.zeros(1, np.int64), records,
    )  # fmt: skip


# -- exact identities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 4000, "n_train": 60, "width": 40, "steps": 200},
        {"dim": 900, "n_train": 30, "width": 71, "steps": 40, "label_sampler": "iid", "output_signs": "iid",
         "init_ratio": 0.3},
        {"dim": 12, "n_train": 40, "width": 66, "steps": 30, "init_ratio": 1.0, "label_flip_prob": 0.0},
        {"dim": 30, "n_train": 40, "width": 10, "steps": 30, "first_step_margin": 8.0, "signal": 0.0},
    ],
)  # fmt: skip
def test_gram_space_is_gradient_descent(changes):
    """Outputs, weights, norms and every series agree to 1e-10, on the same data."""
    params = make(**changes, data_mode="direct", n_test=600, replicates=1)
    found, X, W, Q = in_full(params, 0)
    assert (found.points.factor.shape[1] > 0) == (2 * params.dim < params.n_train)
    series, outputs, weights = brute(params, found, X, W, Q)
    assert np.allclose(found.points.gram, X @ X.T, rtol=1e-12, atol=1e-9)
    for t, (f, f_test) in zip(recorded_steps(params), outputs, strict=True):
        if t in (0, 1, 5, params.steps):
            ours, ours_test, _ = outputs_of(params, found, int(t))
            scale = max(np.abs(f).max(), np.abs(f_test).max())
            assert np.max(np.abs(ours - f)) < 1e-10 * scale and np.max(np.abs(ours_test - f_test)) < 1e-10 * scale
    monitor = RunMonitor.allocate(LAB, params)
    one = simulate(params, 0, monitor.of(0))
    assert np.allclose(monitor.records[0], series, rtol=1e-10, atol=1e-10)
    projections = params.mu * np.array(weights)[:, :, :2]
    assert np.allclose(one.frames["neurons"], projections, rtol=1e-9, atol=1e-12 * (1 + np.abs(projections).max()))


def test_columns_drawn_in_blocks_are_the_same_points():
    """Beyond COLUMNS coordinates: Gram matrix, start and test products from the blocks put side by side."""
    params = make(dim=2 * gram.COLUMNS + 100, n_train=8, width=4, n_test=4, data_mode="direct", init_ratio=1.0)
    found = gram.problem(params, 3)
    blocks = {}
    for name, rows in (("noise", 8), ("init", 4), ("test", 4)):
        rng = gram.generator(params.seed, gram.STREAMS[name], 3)
        first = [] if name == "noise" else [rng.standard_normal((rows, 2))]
        widths = [gram.COLUMNS, gram.COLUMNS, 98]
        blocks[name] = np.hstack([*first, *(rng.standard_normal((rows, width)) for width in widths)])
    X, W, Q = np.hstack([found.points.plane, blocks["noise"]]), params.init_std * blocks["init"], blocks["test"]
    Q[:, :2] += gram.centres(found.quadrant, params.mu)
    for ours, full in [(found.points.gram, X @ X.T), (found.start, W @ X.T), (found.cross, Q @ X.T),
                       (found.test_start, W @ Q.T), (found.start_norm_sq, (W**2).sum(1))]:  # fmt: skip
        assert np.allclose(ours, full, rtol=1e-10, atol=1e-10 * np.abs(full).max())


def test_decision_map_is_the_mean_over_noise():
    """40,000 noise vectors, seed 0: within five standard errors at each of nine points."""
    rng = np.random.default_rng(0)
    W, a = rng.standard_normal((6, 12)) * 0.4, np.tile([1.0, -1.0], 3) / math.sqrt(6)
    W[5, 2:] = 0.0  # a neuron within the plane
    grid, values, mirrored = np.array([-3.0, 0.0, 2.0]), np.empty((3, 3)), np.empty((4, 4))
    kernels.decision_map(a, W[:, :2].copy(), (W**2).sum(1), grid, values)
    both, every = np.array([-3.0, -2.0, 2.0, 3.0]), np.empty((5, 5))
    kernels.decision_map(a, W[:, :2].copy(), (W**2).sum(1), both, mirrored)
    kernels.decision_map(a, W[:, :2].copy(), (W**2).sum(1), np.append(both, 4.0), every)
    assert np.allclose(mirrored, every[:4, :4], rtol=0, atol=1e-13), "half of a symmetric grid tells the other half"
    noise = rng.standard_normal((40_000, 10)) @ W[:, 2:].T
    for k in range(3):
        for col in range(3):
            f = np.maximum(noise + W[:, :2] @ np.array([grid[col], grid[k]]), 0) @ a
            assert abs(f.mean() - values[k, col]) < 5 * f.std() / 200


@pytest.mark.parametrize("margin", [0.0, 1e-8, -30.0, 30.0, 800.0, -800.0])
def test_pulls_and_loss_do_not_overflow(margin):
    y, f, pull = np.array([1.0, -1.0]), np.array([margin, -margin]), np.empty(2)
    largest = kernels.pulls(y, f, pull)
    loss = kernels.mean_loss(y, f)
    exact = margin if margin > 700 else math.log1p(math.exp(margin)) if margin < 700 else 0.0
    assert largest == pytest.approx(0.0 if margin > 700 else 1.0 / (1.0 + math.exp(margin)), rel=1e-14)
    assert np.array_equal(pull, [largest, -largest])
    assert loss == pytest.approx(-margin if margin < -700 else 0.0 if margin > 700 else exact - margin, rel=1e-7)


def test_a_silent_neuron_never_moves_and_dead_signs_are_seen():
    a = np.array([0.5, -0.5])
    H, C, f = np.array([[0.0, -1.0], [1.0, 2.0]]), np.zeros((2, 2)), np.empty(2)
    kernels.outputs(a, H, f)
    scratch, sides = np.empty((2, 4)), (np.array([0]), np.array([1]))
    bounds = np.array([1, 1, 1])
    args = (np.eye(2), np.empty((2, 0)), np.array([0.5, -0.5]), bounds, 1.0, *scratch, f, np.zeros(1, np.uint8))
    assert kernels.update(H, C, a, sides, *args)
    assert np.array_equal(H[0], [0.0, -1.0]) and np.array_equal(C[0], [0.0, 0.0]), "relu'(0) = 0"
    assert np.array_equal(C[1], [-0.25, 0.25]) and np.array_equal(H[1], [0.75, 2.25])
    assert kernels.dead_sign(a, H) and not kernels.dead_sign(a, np.abs(H)) and kernels.dead_sign(np.abs(a), np.abs(H))


@pytest.mark.parametrize("m, n", [(5, 3), (64, 40), (200, 100), (70, 255), (300, 256), (513, 300)])
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("strays", [(0.0, 0.0), (0.05, 0.05), (0.05, 0.4), (0.5, 0.0)])
@pytest.mark.parametrize("in_order", [True, False])
def test_a_step_in_blocks_is_the_whole_step_and_its_outputs_are_those_of_all_neurons(m, n, factored, strays, in_order):
    """Few or many neurons active on points of the other label, clean and flipped, and points in whatever order."""
    rng = np.random.default_rng(m)
    a, pull = rng.choice([-1.0, 1.0], m) / math.sqrt(m), rng.standard_normal(n)
    y, flipped = rng.choice([-1.0, 1.0], n), rng.random(n) < 0.2
    order = gram.in_order(y, flipped)
    y, flipped = y[order], flipped[order]
    H, C, f = rng.standard_normal((m, n)), rng.standard_normal((m, n)), np.empty(n)
    other = np.sign(a)[:, None] != y
    silent = other & (rng.random((m, n)) >= np.where(flipped, strays[1], strays[0]))
    H = np.where(silent, -np.abs(H), np.where(other, np.abs(H), H))
    sides, bounds = (np.nonzero(a > 0)[0], np.nonzero(a < 0)[0]), kernels.bounds_of(y, flipped)
    if not in_order:
        H = H[:, rng.permutation(n)].copy()
    factor = rng.standard_normal((n, 2)) if factored else np.empty((n, 0))
    K = factor @ factor.T if factored else rng.standard_normal((n, n))
    D = 0.1 * a[:, None] * (H > 0.0) * pull
    wanted_H, wanted_C = H + D @ K, C + D
    block = kernels.block_of(m, n)
    assert 1 <= block <= m and (block == m or 2.0 * block * n**2 <= 4e8)
    scratch = np.empty((2, block * n))
    args = (sides, K, factor, pull, bounds, 0.1, *scratch, f)
    assert kernels.update(H, C, a, *args, np.zeros(1, np.uint8))
    assert np.allclose(H, wanted_H, rtol=0, atol=1e-12) and np.allclose(C, wanted_C, rtol=0, atol=1e-15)
    again = np.empty(n)
    kernels.outputs(a, H, again)
    assert np.allclose(f, again, rtol=0, atol=1e-12)
    assert not kernels.update(H, C, a, *args, np.ones(1, np.uint8))


def test_points_in_order_have_their_bounds():
    y, flipped = np.array([-1.0, 1.0, -1.0, 1.0, 1.0, -1.0]), np.array([0, 1, 1, 0, 0, 0], bool)
    order = gram.in_order(y, flipped)
    assert order.tolist() == [3, 4, 1, 2, 0, 5]
    assert kernels.bounds_of(y[order], flipped[order]).tolist() == [2, 3, 4]
    H = np.array([[-1.0, 1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, -1.0]])
    assert kernels.many(H, np.array([0, 1]), 1, 3) and not kernels.many(H, np.array([0, 1]), 3, 4)


@pytest.mark.parametrize("scale", [1.0, 1e12, 1e-12])
def test_signs_of_test_outputs_are_exact_where_float32_cannot_tell(scale):
    """A few outputs, or all of them in reach, are a billionth of their terms: the signs are those of float64."""
    rng = np.random.default_rng(5)
    m, n, points = 30, 50, 2 * kernels.POINTS + 7
    a, C = rng.choice([-1.0, 1.0], m) / math.sqrt(m), scale * rng.standard_normal((m, n))
    cross, T0 = rng.standard_normal((points, n)), np.zeros((m, points))
    f, exact = np.empty(points), np.empty(points)
    kernels.test_outputs(a, C, cross, T0, exact)
    # Some are moved to where float32 has no digit left, through the neurons that are active on them.
    near = rng.permutation(points)[:20] if scale == 1.0 else rng.permutation(points)
    offset = rng.choice([-1e-9, 1e-9], len(near)) * scale
    lifted = np.where(C @ cross[near].T > 0.0, offset - exact[near], 0.0) * a[:, None]
    T0[:, near] = lifted / (np.sum((C @ cross[near].T > 0.0) * a[:, None] ** 2, axis=0))
    kernels.test_outputs(a, C, cross, T0, exact)
    single = kernels.in_single(a, cross, T0, 1.0 / scale)
    assert kernels.test_signs(a, C, cross, T0, *single, 1.0 / scale, f, np.zeros(1, np.uint8))
    assert np.array_equal(np.sign(f), np.sign(exact)) and np.all(f != 0.0)
    rounded = a.astype(np.float32) @ np.maximum((C / scale).astype(np.float32) @ cross.T.astype(np.float32)
                                                + (T0 / scale).astype(np.float32), np.float32(0))  # fmt: skip
    assert np.sum(np.sign(rounded) != np.sign(exact)) >= 3, "float32 alone is wrong"
    assert not kernels.test_signs(a, C, cross, T0, *single, 1.0 / scale, f, np.ones(1, np.uint8))


@pytest.mark.parametrize("n, block", [(255, 64), (256, 256), (800, 256), (1000, 192), (1500, 64), (20_000, 64)])
def test_a_block_is_some_milliseconds_of_work(n, block):
    assert kernels.block_of(10_000, n) == block and kernels.block_of(10, n) == 10


# -- the law of sampled inner products -------------------------------------------------------------------------


def statistics(f, f_test, right_of, y, clean, margin):
    """Six numbers of one run at one step."""
    train, test = y * f / margin, clean * f_test / margin
    return [np.mean(train > 0), np.mean(test > 0), right_of.mean(), np.mean(train), np.mean(f_test**2) / margin**2,
            np.mean(train**2)]  # fmt: skip


def many(params, seeds, at, full):
    """(seeds, 6*len(at)) statistics of the kernel on sampled products, or of gradient descent in R^p."""
    found_stats = []
    for r in range(seeds):
        if full:
            rows = fresh_brute(params, r, at)
        else:
            found = gram.problem(params, r)
            clean = np.where(found.quadrant < 2, 1.0, -1.0)
            rows = []
            for t in at:
                f, f_test, _ = outputs_of(params, found, t)
                right = (f_test * clean > 0)[found.quadrant == 0]
                rows.append(statistics(f, f_test, right, found.points.label, clean, params.first_step_margin))
        found_stats.append(np.ravel(rows))
    return np.array(found_stats)


def fresh_brute(params, r, at):
    """Gradient descent in R^p on data of its own random numbers, written from the definition."""
    rng = np.random.default_rng([77, r])
    n, m, p = params.n_train, params.width, params.dim
    cluster = np.repeat(np.arange(4), n // 4) if params.label_sampler == "stratified" else rng.integers(0, 4, n)
    if params.label_sampler == "stratified":
        flip = np.arange(n) % (n // 4) < params.flips_per_cluster
    else:
        flip = rng.random(n) < params.label_flip_prob
    quadrant = np.repeat(np.arange(4), params.n_test // 4)
    X, Q = rng.standard_normal((n, p)), rng.standard_normal((params.n_test, p))
    for points, where in ((X, cluster), (Q, quadrant)):
        points[np.arange(len(where)), where // 2] += params.mu * (1 - 2 * (where % 2))
    y = np.where(cluster < 2, 1.0, -1.0) * np.where(flip, -1.0, 1.0)
    clean = np.where(quadrant < 2, 1.0, -1.0)
    a = (2.0 * rng.integers(0, 2, m) - 1 if params.output_signs == "iid" else (-1.0) ** np.arange(m)) / math.sqrt(m)
    W = params.init_std * rng.standard_normal((m, p))
    rows = []
    for t in range(max(at) + 1):
        H = W @ X.T
        f = a @ np.maximum(H, 0)
        if t in at:
            f_test = a @ np.maximum(W @ Q.T, 0)
            rows.append(statistics(f, f_test, (f_test * clean > 0)[quadrant == 0], y, clean, params.first_step_margin))
        W += params.learning_rate / n * a[:, None] * ((H > 0) * (y / (1 + np.exp(y * f)))) @ X
    return rows


def compare(params, seeds, limit):
    """Largest |z| over 18 statistics, their means and their mean squares, of two independent batches."""
    at = (1, 3, 15)
    ours, full = many(params, seeds, at, False), many(params, seeds, at, True)
    for power in (1, 2):
        one, two = ours**power, full**power
        z = (one.mean(0) - two.mean(0)) / np.sqrt((one.var(0) + two.var(0)) / seeds + 1e-30)
        assert np.max(np.abs(z)) < limit, (power, np.round(z, 2))


LARGE_START = {"dim": 120, "n_train": 24, "width": 16, "steps": 15, "n_test": 40, "init_ratio": 0.22,
               "first_step_margin": 0.3, "signal": 1.5, "label_flip_prob": 0.15}  # fmt: skip
# 46 directions are left for 8 neurons; in the last one 4 are left for 20, so the start's triangle is a trapezoid.
LAWS = [
    LARGE_START | {"label_sampler": "iid"},
    {"dim": 70, "n_train": 24, "width": 8, "steps": 15, "n_test": 40, "init_ratio": 3.0, "label_sampler": "iid"},
    {"dim": 30, "n_train": 24, "width": 20, "steps": 15, "n_test": 40, "init_ratio": 1.0, "output_signs": "iid"},
]


@pytest.mark.parametrize("changes", LAWS)
def test_sampled_products_have_the_law_of_gradient_descent(changes):
    """400 seeds a side: 36 correlated z below 4 (a difference of a fifth of a standard deviation is seen)."""
    compare(make(**changes), 400, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize("changes", LAWS)
def test_sampled_products_have_that_law_over_ten_thousand_seeds(changes):
    """10,000 seeds a side: 36 correlated z below 4."""
    compare(make(**changes), 10_000, 4.0)


def test_bartlett_triangle_has_the_moments_of_a_wishart_matrix():
    """4000 draws, seed 8, with more rows than directions: entries of T T^T against dof*I, |z| < 4.5 over 21."""
    rng = np.random.default_rng(8)
    draws = []
    for _ in range(4000):
        T = gram.bartlett(6, 4, rng, rng)
        assert T.shape == (6, 4)
        draws.append((T @ T.T)[np.tril_indices(6)])
    draws = np.array(draws)
    mean = (4.0 * np.eye(6))[np.tril_indices(6)]
    variance = (4.0 * (1 + np.eye(6)))[np.tril_indices(6)]
    assert np.max(np.abs(draws.mean(0) - mean) / np.sqrt(variance / 4000)) < 4.5
    assert np.allclose(draws.var(0), variance, rtol=0.25)


def test_replacing_the_remainder_by_nothing_would_look_like_learning():
    """Without the start's products with the test points' own directions a lazy network seems to learn."""
    params = make(n_train=80, dim=10**6, signal=2.0, init_ratio=10.0, steps=200, n_test=400)
    found = gram.problem(params, 0)
    clean = np.where(found.quadrant < 2, 1.0, -1.0)
    _, whole, _ = outputs_of(params, found, 200)
    signal_only = found.start_plane @ gram.centres(found.quadrant, params.mu).T
    _, cut, _ = outputs_of(params, found._replace(test_start=signal_only), 200)
    assert abs(np.mean(whole * clean > 0) - 0.5) < 0.1 < np.mean(cut * clean > 0) - 0.5


# -- contracts -------------------------------------------------------------------------------------------------


def test_the_dimension_costs_nothing():
    """Shapes and counts of operations are equal at a hundred thousand and at 10^15 dimensions."""
    from sims.xor_grokking.lab import flops

    small, huge = make(dim=100_000, n_train=20, width=6), make(dim=10**15, n_train=20, width=6)
    assert flops(small) == flops(huge)
    shapes = [[a.shape for a in gram.problem(p, 0) if isinstance(a, np.ndarray)] for p in (small, huge)]
    assert shapes[0] == shapes[1]
    assert [a.shape for a in gram.points(small, 0)] == [a.shape for a in gram.points(huge, 0)]


def test_largest_dimension_keeps_its_digits():
    """At p = 10^15 the diagonal is p and the means, sqrt(p) long, are still seen: the run groks."""
    run = execute(LAB, make(dim=10**15, steps=20, replicates=1))
    assert run.values["test_accuracy"][0] > 0.995
    K = gram.points(run.params, 0).gram
    assert np.allclose(np.diag(K), 1e15, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"init_ratio": 1.0, "label_sampler": "iid", "output_signs": "iid"},
                                     {"dim": 30, "data_mode": "direct"}])  # fmt: skip
def test_same_params_same_bits(changes):
    params = make(n_train=40, width=70, n_test=300, steps=30, replicates=3, **changes)
    first, again = execute(LAB, params, workers=1), execute(LAB, params, workers=3)
    assert first.trace_sha256 == again.trace_sha256
    later = execute(LAB, params.replace(first_replicate=2, replicates=1))
    assert later.trace.replicate_sha256[0] == first.trace.replicate_sha256[2]
    gram._points.cache_clear()
    assert execute(LAB, params).trace_sha256 == first.trace_sha256


def test_a_set_flag_stops_before_the_first_step():
    params = make(n_train=8, width=4, n_test=4, steps=50)
    found = gram.problem(params, 0)
    H, records = found.start.copy(), np.zeros((len(SERIES), 1))
    status, _ = train(params, found, H, np.zeros_like(H), 50, np.array([0]), records, cancel=np.ones(1, np.uint8))
    assert status == STATUS["cancelled"] and np.array_equal(H, found.start) and np.all(np.isnan(records))


def test_the_flag_is_seen_while_training():
    """The kernel runs without the lock: another thread sets the flag of a run of hours."""
    params = make(n_train=40, width=20, n_test=40, steps=100_000, replicates=1)
    found = gram.problem(params, 0)
    cancel, records = np.zeros(1, np.uint8), np.empty((len(SERIES), 1))
    H = found.start.copy()
    timer = threading.Timer(0.2, lambda: cancel.__setitem__(0, 1))
    timer.start()
    status, _ = train(params, found, H, np.zeros_like(H), 10**9, np.array([0]), records, cancel=cancel)
    assert status == STATUS["cancelled"] and not np.array_equal(H, found.start)


@pytest.mark.parametrize("changes", [{}, {"dim": 20_000, "data_mode": "direct"}])
def test_the_flag_is_seen_while_drawing(changes):
    """No product with a test point's own directions is taken once the flag is set."""
    params = make(n_train=40, width=20, n_test=40, init_ratio=1.0, **changes)
    whole, stopped = gram.problem(params, 0), gram.problem(params, 0, np.ones(1, np.uint8))
    assert np.abs(stopped.test_start).max() < 0.5 * np.abs(whole.test_start).max()
    assert np.array_equal(gram.problem(params, 0, np.zeros(1, np.uint8)).test_start, whole.test_start)


def test_series_are_in_the_order_of_the_kernel():
    assert tuple(LAB.series) == SERIES
    assert tuple(f"{name}_accuracy" for name in CLUSTERS) == SERIES[4:8]


def test_blocks_of_neurons_and_points_do_not_matter(monkeypatch):
    """63, 64 and 65 neurons, 255 to 257 test points: against plain products."""
    rng = np.random.default_rng(9)
    for m, points in ((63, 255), (64, 256), (65, 257), (1, 1), (130, 600)):
        a, C = rng.standard_normal(m), rng.standard_normal((m, 12))
        cross, T0, f = rng.standard_normal((points, 12)), rng.standard_normal((m, points)), np.empty(points)
        wanted = a @ np.maximum(T0 + C @ cross.T, 0)
        kernels.test_outputs(a, C, cross, T0, f)
        assert np.allclose(f, wanted, rtol=1e-11, atol=1e-11)
        single = kernels.in_single(a, cross, T0, 2.0)
        assert kernels.test_signs(a, C, cross, T0, *single, 2.0, f, np.zeros(1, np.uint8))
        assert np.array_equal(np.sign(f), np.sign(wanted))
