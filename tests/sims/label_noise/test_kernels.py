"""The training loop against the definitions, and the contracts every kernel keeps."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from time import monotonic, sleep

import numpy as np
import pytest

from sims.engine.simd import WIDTH
from sims.label_noise import kernels
from sims.label_noise.kernels import ALGORITHMS, SCHEDULES, SERIES, STATUS, log_walk, poll_interval, simulate
from tests.simd import lane_total, rounded_once
from theory.mirror import projection


def generators(seed):
    """The index, sign and normal streams."""
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(s,)))) for s in range(3)]


def instance(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    beta_star = rng.random(d)
    u = 0.5 + 0.5 * rng.random(d)
    return X, X @ beta_star, beta_star, u


def train(
    algorithm, X, y, beta_star, u, w=None, *, learning_rate, steps, noise_std=0.0, schedule="constant",
    seed=0, rngs=None, record_at=None, frame_at=(), cancel=None, progress=None,
):  # fmt: skip
    """Run the kernel on copies of its inputs; return everything that came out, by name."""
    d = u.size
    record_at = np.array([0, steps] if record_at is None else record_at)
    frame_at = np.array(frame_at, dtype=np.int64)
    out = {
        "u": u.copy(),
        "w": np.zeros(d) if w is None else w.copy(),
        "drift": np.zeros(d),
        "frames": np.zeros((frame_at.size, d)),
        "records": np.zeros((len(SERIES), record_at.size)),
        "progress": np.zeros(1, np.int64) if progress is None else progress,
        "rngs": generators(seed) if rngs is None else rngs,
    }
    out["status"], out["stop_step"], out["flips"] = simulate(
        ALGORITHMS[algorithm], w is not None, X, y, (X**2).mean(0), beta_star, out["u"], out["w"],
        out["drift"], learning_rate, noise_std, SCHEDULES[schedule], steps, record_at, frame_at,
        out["frames"], *out["rngs"], np.zeros(1, np.uint8) if cancel is None else cancel, out["progress"],
        out["records"],
    )  # fmt: skip
    return out


def by_definition(algorithm, X, y, beta_star, u, w, *, learning_rate, steps, noise_std, schedule, seed):
    """The same run step by step from the definitions, with noise drawn in blocks before the loop."""
    n, d = X.shape
    signed = w is not None
    v0 = u.copy(), (w.copy() if signed else np.zeros(d))
    u, w = v0[0].copy(), v0[1].copy()
    index_rng, sign_rng, normal_rng = generators(seed)
    first, second = index_rng.integers(0, n, (steps, 2)).T if algorithm == "minibatch_noise" else (None, None)
    if algorithm in ("gd_label_noise", "sgd_label_noise", "sgd"):
        first = index_rng.integers(0, n, steps)
    signs = 2 * sign_rng.integers(0, 2, steps) - 1
    xi = normal_rng.standard_normal(steps) if algorithm == "gd_label_noise" else None
    N = normal_rng.standard_normal((steps, 2 if signed else 1, d)) if algorithm == "gaussian_noise" else None

    c = (X**2).mean(0)
    drift, slow_time, noise_work, flips = np.zeros(d), 0.0, 0.0, 0
    records, betas = [], []
    for k in range(steps + 1):
        beta = u * u - w * w
        res = X @ beta - y
        if signed:
            shrink = np.log(np.abs(u * w / (v0[0] * v0[1]))).mean()
        else:
            shrink = (2 * np.log(np.abs(u / v0[0])) + 2 * drift).mean()
        records.append(
            [
                (res @ res) / (4 * n),
                ((beta - beta_star) ** 2).sum(),
                c @ np.abs(beta),
                slow_time,
                u @ u + w @ w,
                shrink,
                noise_work,
            ]
        )
        betas.append(beta)
        if k == steps:
            break
        eta = learning_rate
        if schedule == "stairs":
            eta = learning_rate / 10 ** ((k >= steps // 3) + (k >= 2 * steps // 3))
        delta = noise_std * (1 - k / steps) ** 2 if schedule == "anneal" else noise_std
        g = X.T @ res / n
        if algorithm in ("gd", "gaussian_noise"):
            G = g
        elif algorithm == "gd_label_noise":
            G = g - delta * xi[k] * X[first[k]]
        elif algorithm == "sgd_label_noise":
            G = (X[first[k]] @ beta - y[first[k]] - delta * signs[k]) * X[first[k]]
        elif algorithm == "minibatch_noise":
            G = g + delta * (res[first[k]] * X[first[k]] - res[second[k]] * X[second[k]])
        elif algorithm == "sgd":
            G = res[first[k]] * X[first[k]]
        if algorithm not in ("gd", "sgd"):
            slow_time += eta**2 * delta**2
        drift = drift + eta * G
        if algorithm == "gaussian_noise":
            noise_work += -2 * eta * delta * (u @ N[k, 0] + (w @ N[k, 1] if signed else 0.0))
            u = u - eta * (g * u + delta * N[k, 0])
            w = w - eta * (-g * w + delta * N[k, 1]) if signed else w
        else:
            flips += (eta * G > 1).sum() + (signed * (eta * G < -1)).sum()
            u, w = u * (1 - eta * G), w * (1 + eta * G)
    return np.array(records).T, np.array(betas), u, w, drift, flips


@pytest.mark.parametrize("signed", [False, True], ids=["square", "signed"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_rule_follows_its_definition(algorithm, schedule, signed):
    steps = 200
    for n, d in ((5, 11), (8, 11), (1, 3), (7, 1)):
        X, y, beta_star, u = instance(n, d, seed=n)
        setting = dict(learning_rate=0.03, steps=steps, noise_std=0.3, schedule=schedule, seed=4)
        w = u[::-1].copy() if signed else None
        records, betas, u_end, w_end, drift, flips = by_definition(algorithm, X, y, beta_star, u, w, **setting)
        record_at, frame_at = [0, 1, 2, 66, 67, 133, 134, 199, 200], [0, 3, 66, 67, 200]
        run = train(algorithm, X, y, beta_star, u, w, **setting, record_at=record_at, frame_at=frame_at)
        assert (run["status"], run["stop_step"], run["flips"]) == (STATUS["done"], steps, flips)
        assert run["progress"][0] == steps
        np.testing.assert_allclose(run["records"], records[:, record_at], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(run["frames"], betas[frame_at], rtol=1e-10, atol=1e-10)
        for name, expected in (("u", u_end), ("w", w_end), ("drift", drift)):
            np.testing.assert_allclose(run[name], expected, rtol=1e-10, atol=1e-10)


def test_the_rules_differ_from_each_other():
    X, y, beta_star, u = instance(6, 11)
    ends = [train(a, X, y, beta_star, u, learning_rate=0.03, steps=50, noise_std=0.3)["u"] for a in ALGORITHMS]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(ends) for b in ends[:i])


def test_gd_and_sgd_take_no_noise():
    X, y, beta_star, u = instance(6, 11)
    for algorithm in ("gd", "sgd"):
        quiet, loud = (
            train(algorithm, X, y, beta_star, u, learning_rate=0.03, steps=50, noise_std=s) for s in (0.0, 9.0)
        )
        assert np.array_equal(quiet["records"], loud["records"])
        assert loud["records"][SERIES.index("slow_time"), -1] == 0.0


DRAWS = {
    "gd": (0, 0, 0),
    "gd_label_noise": (1, 0, 1),
    "sgd_label_noise": (1, 1, 0),
    "minibatch_noise": (2, 0, 0),
    "sgd": (1, 0, 0),
    "gaussian_noise": (0, 0, 11),
}


@pytest.mark.parametrize("signed", [False, True], ids=["square", "signed"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_stream_is_left_where_one_block_draw_leaves_it(algorithm, signed):
    """Also across the kernel's own blocks, and for one sample, where NumPy draws no integer at all."""
    for n, steps in ((5, 1), (5, 1300), (1, 600)):
        X, y, beta_star, u = instance(n, 11)
        w = 0.5 * u if signed else None
        run = train(algorithm, X, y, beta_star, u, w, learning_rate=1e-3, steps=steps, noise_std=0.1, seed=8)
        assert run["status"] == STATUS["done"]
        indices, signs, normals = (count * steps for count in DRAWS[algorithm])
        index_rng, sign_rng, normal_rng = generators(8)
        index_rng.integers(0, n, indices)
        sign_rng.integers(0, 2, signs)
        normal_rng.standard_normal(normals * (2 if signed and algorithm == "gaussian_noise" else 1))
        for left, expected in zip(run["rngs"], (index_rng, sign_rng, normal_rng), strict=True):
            assert np.array_equal(left.integers(0, 2**60, 5), expected.integers(0, 2**60, 5))


def same(a, b):
    arrays = ("u", "w", "drift", "frames", "records")
    counts = ("status", "stop_step", "flips")
    return all(np.array_equal(a[k], b[k], equal_nan=True) for k in arrays) and all(a[k] == b[k] for k in counts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_has_the_same_bits_again_in_threads_and_at_any_alignment(algorithm):
    X, y, beta_star, u = instance(13, 27)
    setting = dict(learning_rate=0.01, steps=2000, noise_std=0.2, record_at=range(0, 2001, 50), frame_at=[7])
    first = train(algorithm, X, y, beta_star, u, **setting)
    shifted = np.empty(X.size + 1)[1:].reshape(X.shape)
    shifted[:] = X
    assert same(first, train(algorithm, shifted, y, beta_star, u, **setting))
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(train, algorithm, X, y, beta_star, u, **setting) for _ in range(8)]
        assert all(same(first, job.result()) for job in jobs)


def test_recording_does_not_change_the_run():
    X, y, beta_star, u = instance(6, 11)
    setting = dict(learning_rate=0.02, steps=100, noise_std=0.2)
    few = train("gd_label_noise", X, y, beta_star, u, **setting)
    many = train("gd_label_noise", X, y, beta_star, u, **setting, record_at=range(101), frame_at=range(101))
    assert np.array_equal(few["u"], many["u"])
    assert np.array_equal(few["records"], many["records"][:, [0, 100]])


def test_a_flag_set_beforehand_stops_before_the_first_step():
    X, y, beta_star, u = instance(6, 11)
    run = train("gd", X, y, beta_star, u, learning_rate=0.01, steps=10, frame_at=[0], cancel=np.ones(1, np.uint8))
    assert (run["status"], run["stop_step"], run["progress"][0]) == (STATUS["cancelled"], 0, 0)
    assert np.isnan(run["records"]).all() and np.isnan(run["frames"]).all()
    assert np.array_equal(run["u"], u)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cancel_stops_within_one_poll_interval_and_does_not_hold_the_gil(algorithm):
    """The run is far too long to end by itself; if it held the GIL this thread could not set the flag."""
    n, d, steps = 20, 50, 10**11
    X, y, beta_star, u = instance(n, d)
    interval = poll_interval(ALGORITHMS[algorithm], n, d)
    cancel, progress = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(
            train, algorithm, X, y, beta_star, u, learning_rate=1e-4, steps=steps, noise_std=0.01,
            cancel=cancel, progress=progress,
        )  # fmt: skip
        patience = monotonic() + 60
        while progress[0] < 3 * interval and monotonic() < patience and not job.done():
            sleep(0.001)
        cancel[0] = 1
        seen = int(progress[0])
        run = job.result(timeout=60)
    assert run["status"] == STATUS["cancelled"]
    assert 3 * interval <= run["stop_step"] <= seen + 2 * interval
    assert run["stop_step"] == progress[0] and run["stop_step"] % interval == 0
    assert np.isfinite(run["records"][:, 0]).all() and np.isnan(run["records"][:, 1]).all()


@pytest.mark.parametrize("signed", [False, True], ids=["square", "signed"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_divergence_is_reported_at_its_first_step_with_nan_from_there_on(algorithm, signed):
    X, y, beta_star, u = instance(6, 11)
    w = u.copy() if signed else None
    setting = dict(learning_rate=3.0, noise_std=3.0, seed=2)
    record_at = np.arange(501)
    run = train(algorithm, X, y, beta_star, u, w, steps=500, **setting, record_at=record_at, frame_at=record_at)
    stop = run["stop_step"]
    assert run["status"] == STATUS["diverged"] and 0 < stop < 500
    assert np.isfinite(run["records"][:, :stop]).all() and np.isnan(run["records"][:, stop:]).all()
    assert np.isfinite(run["frames"][:stop]).all() and np.isnan(run["frames"][stop:]).all()
    assert (run["records"][SERIES.index("norm_sq"), :stop] <= kernels.NORM_SQ_LIMIT).all()
    assert not run["u"] @ run["u"] + run["w"] @ run["w"] <= kernels.NORM_SQ_LIMIT
    before = train(algorithm, X, y, beta_star, u, w, steps=stop - 1, **setting)
    at = train(algorithm, X, y, beta_star, u, w, steps=stop, **setting)
    assert (before["status"], at["status"]) == (STATUS["done"], STATUS["diverged"])
    assert at["stop_step"] == stop


def test_the_norm_limit_is_on_the_sum_of_squares():
    """A coordinate above its equal share is no divergence; a sum just above the limit is."""
    X, y, beta_star, _ = instance(3, 4)
    near = np.array([999.0, 1.0, 1.0, 1.0])
    even = np.full(4, 500.0)
    for u, w, status in (
        (near, None, "done"),
        (np.array([999.0, 50.0, 1.0, 1.0]), None, "diverged"),
        (even, None, "done"),
        (np.nextafter(even, 501) * (1 + 1e-12), None, "diverged"),
        (even / np.sqrt(2), even / np.sqrt(2) * (1 - 1e-12), "done"),
        (even, even, "diverged"),
        (np.array([np.nan, 1.0, 1.0, 1.0]), None, "diverged"),
        (np.array([np.inf, 1.0, 1.0, 1.0]), None, "diverged"),
        (np.ones(4), np.array([1.0, 1.0, np.nan, 1.0]), "diverged"),
    ):
        run = train("gd", X, y, beta_star, u, w, learning_rate=0.0, steps=1)
        assert (run["status"], run["stop_step"]) == (STATUS[status], 1 if status == "done" else 0)


def test_stairs_of_the_published_run_have_slow_time_10_101():
    """eta = 0.01, delta = 1 and 300 000 steps: 1e5 * (1e-4 + 1e-6 + 1e-8)."""
    X, y, beta_star, u = instance(2, 2)
    record_at = [0, 100_000, 100_001, 200_000, 200_001, 300_000]
    run = train(
        "sgd_label_noise", X, y, beta_star, u, learning_rate=0.01, noise_std=1.0, schedule="stairs",
        steps=300_000, record_at=record_at,
    )  # fmt: skip
    expected = [0.0, 10.0, 10.0 + 1e-6, 10.1, 10.1 + 1e-8, 10.101]
    np.testing.assert_allclose(run["records"][SERIES.index("slow_time")], expected, rtol=0, atol=1e-9)


def test_annealed_noise_adds_up_to_a_fifth_of_the_constant_slow_time():
    """sum (1 - k/K)^4 = K/5 + 1/2 + 1/(3K) - 1/(30 K^3)."""
    X, y, beta_star, u = instance(2, 2)
    K = 1000
    run = train("gd_label_noise", X, y, beta_star, u, learning_rate=0.01, noise_std=1.0, schedule="anneal", steps=K)
    expected = 1e-4 * (K / 5 + 1 / 2 + 1 / (3 * K) - 1 / (30 * K**3))
    assert run["records"][SERIES.index("slow_time"), -1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "gaussian_noise"])
def test_every_multiplicative_iterate_is_an_exact_kl_projection(algorithm):
    """With shrink = 2 log|v/alpha| + 2 drift, v*v minimises KL(. || alpha^2 exp(shrink)) on its own X beta.

    No limit is taken: it holds in the middle of the noise, at any rate.
    """
    X, _, _, _ = instance(40, 100, seed=123)
    beta_star = (np.arange(100) < 5).astype(float)
    rate = 0.002 if algorithm in ("sgd", "sgd_label_noise") else 0.005
    alpha = 1.0
    run = train(
        algorithm,
        X,
        X @ beta_star,
        beta_star,
        np.full(100, alpha),
        learning_rate=rate,
        noise_std=1.0,
        steps=3000,
    )
    assert run["status"] == STATUS["done"]
    shrink = 2 * np.log(np.abs(run["u"]) / alpha) + 2 * run["drift"]
    beta = run["u"] ** 2
    projected = projection(X, X @ beta, 2 * np.log(alpha) + shrink).beta
    assert np.abs(projected - beta).max() < 1e-8
    assert run["records"][SERIES.index("mean_shrink"), -1] == pytest.approx(shrink.mean(), abs=1e-12)
    without = projection(X, X @ beta, np.full(100, 2 * np.log(alpha))).beta
    if algorithm != "gd":
        assert np.abs(without - beta).max() > 1e-3


def test_spherical_noise_breaks_the_identity():
    X, _, _, _ = instance(40, 100, seed=123)
    beta_star = (np.arange(100) < 5).astype(float)
    run = train(
        "gaussian_noise",
        X,
        X @ beta_star,
        beta_star,
        np.ones(100),
        learning_rate=0.002,
        noise_std=1.0,
        steps=3000,
    )
    gap = X @ run["u"] ** 2
    assert np.abs(projection(X, gap, np.zeros(100)).beta - run["u"] ** 2).max() > 1e-3


def test_two_halves_make_a_whole():
    """State and drift go in and out, so a run can be carried on."""
    X, y, beta_star, u = instance(6, 11)
    setting = dict(learning_rate=0.02, noise_std=0.2)
    whole = train("gd_label_noise", X, y, beta_star, u, steps=100, **setting)
    half = train("gd_label_noise", X, y, beta_star, u, steps=50, **setting)
    rest = train("gd_label_noise", X, y, beta_star, half["u"], steps=50, rngs=half["rngs"], **setting)
    assert np.array_equal(whole["u"], rest["u"])
    np.testing.assert_allclose(whole["drift"], half["drift"] + rest["drift"], rtol=0, atol=1e-14)


def test_a_dot_product_of_every_length():
    rng = np.random.default_rng(0)
    for d in range(1, 200):
        x, b = rng.standard_normal((2, d))
        padded = kernels.padded(x), kernels.padded(b)
        assert all(len(v) % WIDTH == 0 and len(v) - d in range(WIDTH) and not v[d:].any() for v in padded)
        assert kernels.dot(*padded) == pytest.approx(x @ b, abs=1e-12)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("algorithm", ["gd_label_noise", "minibatch_noise", "sgd", "sgd_label_noise"])
def test_what_is_told_of_weights_with_subnormal_squares_is_exact(algorithm, signed):
    """Half of the weights are so small that their squares are subnormal: records and frames have these squares."""
    n, d, steps = 6, 24, 40
    X, y, beta_star, u = instance(n, d)
    w = u[::-1].copy() if signed else None
    u[::2] = np.geomspace(1e-162, 1e-154, d // 2)
    if signed:
        w[::2] = u[::2][::-1]
    beta_star[::2] = 0.0
    case = {"learning_rate": 0.01, "steps": steps, "noise_std": 0.3, "schedule": "constant", "seed": 3}
    out = train(algorithm, X, y, beta_star, u, w, record_at=range(steps + 1), frame_at=range(steps + 1), **case)
    records, betas, u_end, *_ = by_definition(algorithm, X, y, beta_star, u, w, **case)
    beta = out["u"] ** 2 - out["w"] ** 2
    np.testing.assert_array_equal(out["frames"][-1], beta)
    assert np.any((beta != 0) & (np.abs(beta) < np.finfo(float).tiny))
    # The definition of the signed shrinking multiplies u and w, whose product is subnormal too.
    exact = [i for i, name in enumerate(SERIES) if not (signed and name == "mean_shrink")]
    np.testing.assert_allclose(out["records"][exact], records[exact], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(out["frames"], betas, rtol=1e-9, atol=1e-320)
    np.testing.assert_allclose(out["u"], u_end, rtol=1e-9)


@pytest.mark.parametrize(("n", "d"), list(product((1, 2, 3, 4, 5, 9), (1, 2, 4, 7, 8, 9, 16, 27))))
def test_both_products_have_their_values_and_their_order(n, d):
    """Bit for bit in the stated order, which neither the compiler nor the processor may change."""
    rng = np.random.default_rng(n * d)
    X, y = rng.standard_normal((n, d)), rng.random(n)
    wide, long = kernels.padded_data(X, y)
    assert wide.shape[0] - n in range(kernels.ROWS) and wide.shape[1] - d in range(WIDTH)
    assert wide.shape[0] % kernels.ROWS == wide.shape[1] % WIDTH == 0
    assert np.array_equal(wide[:n, :d], X) and np.array_equal(long[:n], y)
    assert not wide[n:].any() and not wide[:, d:].any() and not long[n:].any()
    beta, pull = np.zeros(wide.shape[1]), np.zeros(long.size)
    beta[:d], pull[:n] = rng.random(d), rng.random(n)
    res, G = np.full(long.size, np.nan), np.full(beta.size, np.nan)
    kernels.residual(wide, long, beta, res)
    kernels.pull_back(wide, pull, G)
    np.testing.assert_allclose(res[:n], X @ beta[:d] - y, rtol=0, atol=1e-13)
    np.testing.assert_allclose(G[:d], X.T @ pull[:n], rtol=0, atol=1e-13)
    assert not res[n:].any() and not G[d:].any()

    assert np.array_equal(res, [lane_total(row, beta) for row in wide] - long)
    expected = np.zeros(beta.size)
    for i in range(wide.shape[0] - kernels.ROWS, -1, -kernels.ROWS):
        for row in range(i, i + kernels.ROWS):
            expected = rounded_once(pull[row], wide[row], expected)
    assert np.array_equal(G, expected)


def test_log_walk_is_the_product_of_its_factors():
    x, steps, walks = 0.3, 37, 5
    out = np.empty(walks)
    log_walk(x, steps, walks, generators(3)[1], out)
    signs = 2 * generators(3)[1].integers(0, 2, (walks, steps)) - 1
    np.testing.assert_allclose(out, np.log(np.prod(1 + x * signs, axis=1)) / steps, rtol=1e-12)


def test_log_walk_passes_through_zero_for_a_large_step():
    """Beyond x = 1 the weight changes sign at each step down; only its size is followed."""
    out = np.empty(4)
    log_walk(1.5, 100, 4, generators(1)[1], out)
    assert np.isfinite(out).all() and (out < np.log(2.5)).all() and (out > np.log(0.5)).all()


def test_other_threads_run_during_a_kernel():
    """A second thread counts while the kernel works; holding the GIL would leave the count where it was."""
    X, y, beta_star, u = instance(20, 50)
    cancel, progress = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    train("gd", X, y, beta_star, u, learning_rate=1e-4, steps=1)
    counted = []

    def stop_from_aside():
        while progress[0] == 0:
            sleep(0)
        counted.append(int(progress[0]))
        cancel[0] = 1

    aside = threading.Thread(target=stop_from_aside)
    aside.start()
    run = train("gd", X, y, beta_star, u, learning_rate=1e-4, steps=10**11, cancel=cancel, progress=progress)
    aside.join()
    assert run["status"] == STATUS["cancelled"] and 0 < counted[0] <= run["stop_step"]


def test_kernels_are_compiled_without_the_gil_and_cached():
    jitted = [f for f in vars(kernels).values() if hasattr(f, "targetoptions")]
    assert {"simulate", "log_walk"} <= {f.__name__ for f in jitted}
    for f in jitted:
        assert f.targetoptions["nogil"] and f.targetoptions["error_model"] == "numpy"
        assert not f.targetoptions.get("fastmath") and not f.targetoptions.get("parallel")
        assert type(f._cache).__name__ != "NullCache"
