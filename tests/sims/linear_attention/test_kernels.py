"""Every kernel against the brute force that it replaces: differences, whole prompts, plain NumPy.

Statistical tests have fixed seeds; their bounds are given in standard errors of what is compared.
"""

import numpy as np
import pytest
from scipy import stats

from sims.engine.simd import WIDTH
from sims.linear_attention import descent, finite, kernels, population, prompts, sampled
from sims.linear_attention.lab import LANES

GAUSSIAN, LINEAR = prompts.COVARIATES["gaussian"], prompts.TEACHERS["linear"]


def size(d):
    return d * d + 3 * d + 1


def drawn(seed, d):
    """Covariances that do not commute, and blocks far from any minimum."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((2, d, d)) / np.sqrt(d)
    Sig, T = (m @ m.T + 0.3 * np.eye(d) for m in half)
    return Sig, T, 0.4 * rng.standard_normal(size(d))


def dense(Sig, T, n, s2, blocks):
    out = np.empty_like(blocks)
    return sum(population.gradient(Sig, T, n, s2, blocks, out)), out


def diagonal(lam, t, n, s2, blocks, even=True):
    out = np.empty_like(blocks)
    return sum(kernels.gradient_diagonal(lam, t, n, s2, even, blocks, out, np.empty((8, len(lam))))), out


def differences(function, at, step=1e-4):
    """Fourth-order differences of a scalar function of a vector."""
    found = np.empty_like(at)
    for i in range(len(at)):
        move = np.zeros_like(at)
        move[i] = step
        near, far = function(at + move) - function(at - move), function(at + 2 * move) - function(at - 2 * move)
        found[i] = (8 * near - far) / (12 * step)
    return found


def generators(seed, count):
    return [np.random.Generator(np.random.Philox([seed, i])) for i in range(count)]


def apart(blocks, d):
    u, c, A, b, h = np.split(blocks, [d, d + 1, d + 1 + d * d, d * d + 2 * d + 1])
    return u, c[0], A.reshape(d, d), b, h


# -- the population loss -----------------------------------------------------------------------------------------


def test_the_worked_instance():
    """An instance with every block, computed once independently of this code."""
    i, j = np.indices((3, 3))
    Sig, T = 0.5 ** np.abs(i - j), np.diag([0.5, 1.0, 1.5])
    T[0, 1] = T[1, 0] = 0.25
    A = 0.1 * np.eye(3) + 0.05 * (i - j)
    blocks = np.concatenate([[0.1, 0.2, 0.3], [0.3], A.ravel(), [0.05, -0.05, 0.1], np.zeros(3)])
    out = np.empty_like(blocks)
    assert population.gradient(Sig, T, 7, 0.25, blocks, out) == pytest.approx((2.15884375, 2.9059078125), rel=1e-12)
    sizes = [out[3], *(np.linalg.norm(part) for part in (out[4:13], out[:3], out[13:16]))]
    assert sizes == pytest.approx([12.2085468750, 19.4161061201, 6.8230469430, 43.1024899534], rel=1e-10)
    blocks[-3:] = (0.2, 0.0, -0.2)
    assert population.gradient(Sig, T, 7, 0.25, blocks, out)[1] == pytest.approx(3.0551578125, rel=1e-12)
    sizes = [out[3], np.linalg.norm(out[4:13]), np.linalg.norm(out[16:])]
    assert sizes == pytest.approx([11.8410468750, 20.1394931972, 3.4505318883], rel=1e-10)


@pytest.mark.parametrize(("seed", "d", "n"), [(0, 1, 1), (1, 2, 3), (2, 4, 7), (3, 6, 20)])
def test_the_population_gradient_is_that_of_its_loss(seed, d, n):
    Sig, T, blocks = drawn(seed, d)
    found = dense(Sig, T, n, 0.3, blocks)[1]
    expected = differences(lambda at: dense(Sig, T, n, 0.3, at)[0], blocks)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize("seed", range(4))
def test_diagonal_covariances_are_a_special_case(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 8))
    lam, t, blocks = rng.uniform(0.1, 3, d), rng.uniform(0.1, 3, d), rng.standard_normal(size(d))
    whole, quick = dense(np.diag(lam), np.diag(t), 9, 0.2, blocks), diagonal(lam, t, 9, 0.2, blocks)
    assert quick[0] == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(quick[1], whole[1], rtol=1e-11, atol=1e-11 * np.abs(whole[1]).max())
    blocks[:d] = blocks[-2 * d :] = 0.0
    whole, quick = dense(np.diag(lam), np.diag(t), 9, 0.2, blocks), diagonal(lam, t, 9, 0.2, blocks, even=False)
    assert quick[0] == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(quick[1], whole[1], rtol=1e-11, atol=1e-11 * np.abs(whole[1]).max())


def test_the_population_loss_is_the_mean_over_whole_prompts():
    """60 000 prompts of seed 5 through the blocks; loss within 4 standard errors, about 1 %."""
    d, n, s2 = 3, 5, 0.3
    Sig, T, blocks = drawn(5, d)
    u, c, A, b, h = apart(0.3 * blocks, d)
    _, X, y, x, target = prompts.draw_prompts(Sig, T, n, s2, 60_000, np.random.default_rng(5))
    g, Su, s = np.einsum("pnd,pn->pd", X, y), np.einsum("pnd,pn->pd", X, X @ u), np.sum(y * y, axis=1)
    what = g @ (c * A.T + np.outer(b, u)).T + Su @ A + c * s[:, None] * b + h
    error = (np.sum(what * x, axis=1) - target) ** 2
    se = error.std() / np.sqrt(len(error))
    assert se < 0.02 * error.mean()
    assert abs(error.mean() - dense(Sig, T, n, s2, 0.3 * blocks)[0]) < 4 * se


# -- charts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", kernels.CHARTS)
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_a_chart_pulls_the_gradient_back(chart, scale):
    rng, d = np.random.default_rng(7), 3
    lam, t, code = rng.uniform(0.5, 2, d), rng.uniform(0.5, 2, d), kernels.CHARTS[chart]
    theta = 0.5 * rng.standard_normal(kernels.theta_size(code, d))

    def loss(at):
        blocks = np.empty(size(d))
        kernels.unpack(code, at, scale, blocks)
        return diagonal(lam, t, 6, 0.2, blocks)[0]

    blocks, found = np.empty(size(d)), np.empty_like(theta)
    kernels.unpack(code, theta, scale, blocks)
    kernels.pull(code, True, theta, scale, diagonal(lam, t, 6, 0.2, blocks)[1], found)
    expected = differences(loss, theta)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8 * np.abs(found).max())


def test_without_the_skip_vector_it_stays():
    blocks = np.arange(1.0, 1.0 + size(2))
    found = np.empty_like(blocks)
    kernels.pull(kernels.FULL, False, blocks, 1.0, blocks.copy(), found)
    assert not found[-2:].any() and found[:-2].all()


@pytest.mark.parametrize(("d", "n"), [(1, 1), (3, 6)])
def test_the_literal_layer_is_its_blocks_and_its_gradient_that_of_its_error(d, n):
    rng, e = np.random.default_rng(n), d + 1
    theta = 0.6 * rng.standard_normal(3 * e * e + e)
    X, y, x, target = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d), 0.7

    def layer(at):
        K, Q, V = at[: 3 * e * e].reshape(3, e, e)
        gradients = [np.zeros((e, e)), np.zeros((e, e)), np.zeros((e, e)), np.zeros(e)]
        value = prompts.literal_layer(K.copy(), Q.copy(), V.copy(), at[3 * e * e :].copy(), X, y, x, target, *gradients)
        return value, np.concatenate([part.ravel() for part in gradients])

    K, Q, V = theta[: 3 * e * e].reshape(3, e, e)
    tokens, query = np.column_stack([X, y]), np.append(x, 0.0)
    attention = (tokens @ K.T) @ (Q @ query)  # keys times query, token by token
    by_hand = theta[3 * e * e :] @ (query + (tokens @ V.T).T @ attention)
    value, gradient = layer(theta)
    assert value == pytest.approx(by_hand, rel=1e-12)
    blocks = np.empty(size(d))
    kernels.unpack(kernels.LITERAL, theta, 1.0, blocks)
    u, c, A, b, h = apart(blocks, d)
    g, S = X.T @ y, X.T @ X
    effective = np.empty((d, d))
    kernels.effective(blocks, effective)
    assert value == pytest.approx(x @ (effective @ g + A.T @ S @ u + c * (y @ y) * b + h), rel=1e-12)
    expected = differences(lambda at: (layer(at)[0] - target) ** 2, theta)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())


# -- descent -----------------------------------------------------------------------------------------------------


def descend(chart, lam, t, theta, rate, steps, n=6, s2=0.2, scale=1.0, skip=False, cancel=0):
    d, at = len(lam), np.arange(0, steps + 1, max(1, steps // 5))
    diag, frames, records = np.empty((len(at), d)), np.empty((2, d, d)), np.empty((5, len(at)))
    flags = np.array([cancel], np.uint8), np.zeros(1, np.int64)
    done = kernels.descend(
        kernels.CHARTS[chart], skip, lam, t, n, s2, scale, theta, rate, steps, at, at[:2], diag, frames, *flags, records
    )
    return done, records, diag, frames, at


@pytest.mark.parametrize("chart", kernels.CHARTS)
def test_descent_is_the_plain_loop(chart):
    rng, d, steps = np.random.default_rng(2), 3, 40
    lam, t = rng.uniform(0.5, 2, d), rng.uniform(0.5, 2, d)
    code = kernels.CHARTS[chart]
    theta = 0.2 * rng.standard_normal(kernels.theta_size(code, d))
    if chart == "full":
        theta[-d:] = 0.0
    plain, losses = theta.copy(), []
    for _ in range(steps + 1):
        blocks, move = np.empty(size(d)), np.empty_like(theta)
        kernels.unpack(code, plain, 1.0, blocks)
        loss, gradient = dense(np.diag(lam), np.diag(t), 6, 0.2, blocks)
        losses.append(loss)
        kernels.pull(code, chart == "literal", plain, 1.0, gradient, move)
        plain -= 1e-3 * move
    (status, last), records, diag, frames, at = descend(chart, lam, t, theta, 1e-3, steps, skip=chart == "literal")
    assert (status, last) == (kernels.DONE, steps)
    np.testing.assert_allclose(records[0], np.array(losses)[at], rtol=1e-11)
    Q = np.empty((d, d))
    kernels.effective(blocks, Q)
    assert records[2, -1] == pytest.approx(np.trace(Q) / d, rel=1e-10)
    assert records[3, -1] == pytest.approx(np.linalg.norm(blocks[:d]), rel=1e-10, abs=1e-14)
    assert records[4, -1] == pytest.approx(np.linalg.norm(blocks[-2 * d : -d]), rel=1e-10, abs=1e-14)
    np.testing.assert_allclose(diag[-1], np.diag(Q), rtol=1e-9)
    np.testing.assert_array_equal(np.diagonal(frames, axis1=1, axis2=2), diag[:2])


@pytest.mark.parametrize(
    ("skip", "scale", "rate", "steps", "cancel"),
    [
        (False, 1.0, 1e-4, 300, 0),
        (True, 0.05, 1e-3, 300, 0),
        (True, 1.0, 3e-2, 300, 0),  # diverges
        (False, 1.0, 1e-4, 300, 1),
    ],
)
@pytest.mark.parametrize("d", [1, 5, 8, 9, 16, 21])
def test_in_lanes_a_descent_is_the_same_to_the_bit(d, skip, scale, rate, steps, cancel):
    rng = np.random.default_rng(d)
    lam, t = rng.uniform(0.5, 2, d), rng.uniform(0.5, 2, d)
    theta = 0.1 * rng.standard_normal(size(d))
    if not skip:
        theta[-d:] = 0.0
    expected, found = theta.copy(), theta.copy()
    plain = descend("full", lam, t, expected, rate, steps, scale=scale, skip=skip, cancel=cancel)
    at, flags = plain[-1], (np.full(1, cancel, np.uint8), np.zeros(1, np.int64))
    own = np.empty((5, len(at))), np.empty((len(at), d)), np.empty((2, d, d))
    records, diag, frames = own
    done = descent.descend_full(
        skip, lam, t, 6, 0.2, scale, found, rate, steps, at, at[:2], diag, frames, *flags, records
    )
    assert done == plain[0] and done[0] == (
        kernels.CANCELLED if cancel else kernels.DIVERGED if rate > 1e-2 else kernels.DONE
    )
    assert flags[1][0] == done[1]
    for one, other in zip((found, *own), (expected, *plain[1:4]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lanes_are_as_wide_as_the_front_door_says():
    assert LANES == WIDTH


@pytest.mark.parametrize("separate", [False, True])
def test_the_commuting_path_is_the_whole_descent_from_a_diagonal_start(separate):
    lam, t, k = np.array([2.0, 1.0, 0.5]), np.array([0.7, 1.0, 1.9]), np.array([0.05, 0.1, 0.2])
    chart = "separate_key_query" if separate else "full"
    blocks = np.concatenate([np.zeros(3), [0.3], np.diag(k).ravel(), np.zeros(6)])
    theta = np.concatenate([[0.3], k, k]) if separate else blocks
    whole, records, diag, frames, at = descend(chart, lam, t, theta, 2e-3, 300, scale=0.5)
    own, own_diag, own_frames = np.empty_like(records), np.empty_like(diag), np.empty_like(frames)
    flags = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    status, last, c = kernels.descend_commuting(
        separate, lam, t, 6, 0.2, 0.5, 0.3, k, 2e-3, 300, at, at[:2], own_diag, own_frames, *flags, own
    )
    assert (status, last) == whole and c == pytest.approx(theta[0 if separate else 3], rel=1e-11)
    for found, expected in ((own, records), (own_diag, diag), (own_frames, frames)):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_the_flow_is_the_logistic_curve_to_eight_digits():
    """Runge-Kutta on the simulated gradient from the balanced start q0 = 1e-4: n = 20, d = 5, noise 0.25."""
    d, h = 5, 2e-5
    lam = np.ones(d)
    theta = np.concatenate([[np.sqrt(1e-4 * np.sqrt(d))], np.sqrt(1e-4 / np.sqrt(d)) * np.eye(d).ravel()])

    def slope(at):
        blocks, move = np.empty(size(d)), np.empty_like(at)
        kernels.unpack(kernels.REDUCED, at, 1.0, blocks)
        kernels.pull(kernels.REDUCED, False, at, 1.0, diagonal(lam, lam, 20, 0.25, blocks, even=False)[1], move)
        return -move

    found = {}
    for k in range(2000):
        one = slope(theta)
        two = slope(theta + h / 2 * one)
        three = slope(theta + h / 2 * two)
        theta = theta + h / 6 * (one + 2 * two + 2 * three + slope(theta + h * three))
        found[k + 1] = theta[0] * theta[1]
    assert found[1500] == pytest.approx(0.01373080, abs=1e-8)
    assert found[2000] == pytest.approx(0.02938088, abs=1e-8)


@pytest.mark.parametrize("chart", ["full", "reduced"])
def test_divergence_and_cancelling_end_a_descent(chart):
    lam = np.ones(2)
    theta = 0.5 * np.ones(kernels.theta_size(kernels.CHARTS[chart], 2))
    (status, last), records, diag, _, at = descend(chart, lam, lam, theta.copy(), 1.0, 50)
    assert status == kernels.DIVERGED and 0 < last < 50
    assert np.isnan(records[:, at >= last]).all() and np.isnan(diag[at >= last]).all()
    assert np.isfinite(records[0, at < last]).all()
    (status, last), records, *_ = descend(chart, lam, lam, theta, 1e-3, 50, cancel=1)
    assert (status, last) == (kernels.CANCELLED, 0) and np.isnan(records).all()


# -- prompts in few numbers --------------------------------------------------------------------------------------

LEAST_P = 1e-3  # of each two-sample test; the seeds are fixed


def whole_moments(w, u, a, n, s2, count, seed):
    """[g, S u, S a] (count, 3, d) and s (count,) from whole prompts with the given task."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((count, n, len(w)))
    y = X @ w + np.sqrt(s2) * rng.standard_normal((count, n))
    g, Su, Sa = (np.einsum("pnd,pn->pd", X, one) for one in (y, X @ u, X @ a))
    return np.stack([g, Su, Sa], axis=1), np.sum(y * y, axis=1)


def alike(one, other):
    """Smallest p-value over coordinates of two samples (count, k), and over their pairwise products."""
    k = one.shape[1]
    columns = [(one[:, i], other[:, i]) for i in range(k)]
    columns += [(one[:, i] * one[:, j], other[:, i] * other[:, j]) for i in range(k) for j in range(i)]
    return min(stats.ks_2samp(a, b).pvalue for a, b in columns)


@pytest.mark.parametrize(("d", "n", "s2"), [(1, 1, 0.5), (2, 3, 0.0), (5, 20, 0.25)])
def test_the_useful_part_has_the_law_of_whole_prompts(d, n, s2):
    """20 000 draws a side, seed 1: Kolmogorov-Smirnov of all coordinates and products."""
    w = np.linspace(0.5, 1.5, d)
    chi, noise = generators(1, 2)
    found = np.empty((20_000, d))
    for row in found:
        prompts.useful_moments(w, n, s2, chi, noise, row)
    whole, _ = whole_moments(w, w, w, n, s2, 20_000, 11)
    assert alike(found, whole[:, 0]) > LEAST_P


def test_a_task_of_length_zero_is_no_exception():
    chi, noise = generators(2, 2)
    found = np.empty((20_000, 2))
    for row in found:
        prompts.useful_moments(np.zeros(2), 3, 0.5, chi, noise, row)
    assert alike(found, whole_moments(np.zeros(2), np.zeros(2), np.zeros(2), 3, 0.5, 20_000, 12)[0][:, 0]) > LEAST_P


@pytest.mark.parametrize(
    ("d", "n", "kind"), [(5, 20, "random"), (4, 7, "u is zero"), (4, 2, "random"), (2, 5, "random"), (1, 3, "random")]
)
def test_all_blocks_have_the_law_of_whole_prompts(d, n, kind):
    """12 000 draws a side, seed 3; also where u is zero, n < 4 or d < 3, in which directions are dependent."""
    rng = np.random.default_rng(d)
    w, u, a = rng.standard_normal((3, d))
    u *= kind == "random"
    chi, noise = generators(3, 2)
    found, s = np.empty((12_000, 3, d)), np.empty(12_000)
    scratch, E = np.empty((15, 4)), np.empty((3, d))
    for p in range(len(s)):
        s[p] = prompts.all_moments(w, u, a, n, 0.4, chi, noise, scratch, E, found[p])
    whole, whole_s = whole_moments(w, u, a, n, 0.4, 12_000, 13)
    if kind != "random":
        assert np.abs(found[:, 1]).max() < 1e-12
        found, whole = found[:, [0, 2]], whole[:, [0, 2]]
    assert (
        alike(*(np.column_stack([one.reshape(12_000, -1), v]) for one, v in ((found, s), (whole, whole_s)))) > LEAST_P
    )


@pytest.mark.parametrize(("d", "n"), [(3, 8), (4, 2), (1, 5)])
def test_the_gram_matrix_has_the_law_of_whole_prompts(d, n):
    """15 000 draws a side, seed 4; for n < d as well, where it is singular."""
    w = np.linspace(1.0, 0.4, d)
    chi, noise = generators(4, 2)
    S, g, L = np.empty((15_000, d, d)), np.empty((15_000, d)), np.empty((d, d))
    for p in range(len(S)):
        prompts.gram_moments(w, n, 0.3, chi, noise, L, S[p], g[p])
    rng = np.random.default_rng(14)
    X = rng.standard_normal((15_000, n, d))
    y = X @ w + np.sqrt(0.3) * rng.standard_normal((15_000, n))
    lower = np.tril_indices(d)
    whole = np.column_stack([(X.transpose(0, 2, 1) @ X)[:, *lower], np.einsum("pnd,pn->pd", X, y)])
    assert alike(np.column_stack([S[:, *lower], g]), whole) > LEAST_P


def test_other_covariances_are_reached_by_whitening():
    """Nine mixed moments under a covariance with correlations, 40 000 draws a side, seed 5, within 4 s.e."""
    d, n, s2, count = 3, 6, 0.3, 40_000
    Sig, T, blocks = drawn(8, d)
    rng = np.random.default_rng(15)
    w, X, y, _, _ = prompts.draw_prompts(Sig, T, n, s2, count, rng)
    u, a = blocks[:d], rng.standard_normal(d)
    whole = [np.einsum("pnd,pn->pd", X, y), np.einsum("pnd,pn->pd", X, X @ u), np.einsum("pnd,pn->pd", X, X @ a)]
    root = prompts._root(Sig)
    chi, noise = generators(5, 2)
    found, scratch, E = np.empty((count, 3, d)), np.empty((15, 4)), np.empty((3, d))
    for p in range(count):
        prompts.all_moments(root @ w[p], root @ u, root @ a, n, s2, chi, noise, scratch, E, found[p])
    mine = [found[:, k] @ root for k in range(3)]
    for i in range(3):
        for k in range(3):
            one, other = (np.sum(m[i] * (m[k] + w), axis=1) for m in (mine, whole))
            se = np.hypot(one.std(), other.std()) / np.sqrt(count)
            assert abs(one.mean() - other.mean()) < 4 * se, (i, k)


def test_whitening_is_a_change_of_variables():
    Sig, T, blocks = drawn(9, 4)
    root = prompts._root(Sig)
    loss, gradient = dense(Sig, T, 6, 0.2, blocks)
    white = prompts.whiten(root, blocks)
    white_loss, white_gradient = dense(np.eye(4), root @ T @ root, 6, 0.2, white)
    assert white_loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(prompts.whiten(root, white_gradient), gradient, rtol=1e-10, atol=1e-10)
    lam = np.array([0.5, 1.0, 2.0, 3.0])
    out = np.empty_like(blocks)
    prompts.whiten_diagonal(np.sqrt(lam), blocks, out)
    np.testing.assert_allclose(out, prompts.whiten(np.sqrt(lam), blocks), rtol=1e-15)


@pytest.mark.parametrize(("kind", "kurtosis"), [("gaussian", 3.0), ("rademacher", 1.0), ("uniform", 1.8)])
def test_covariates_have_unit_variance_and_their_kurtosis(kind, kurtosis):
    """100 000 draws, seed 6: within 4 standard errors."""
    x = np.empty(100_000)
    prompts.covariate(prompts.COVARIATES[kind], 8.0, *generators(6, 2), x)
    for power, expected in ((1, 0.0), (2, 1.0), (4, kurtosis)):
        assert abs(np.mean(x**power) - expected) <= 4 * np.std(x**power) / np.sqrt(x.size)


def test_student_covariates_are_student():
    x = np.empty(20_000)
    prompts.covariate(prompts.COVARIATES["student_t"], 8.0, *generators(6, 2), x)
    assert stats.kstest(x / np.sqrt(6.0 / 8.0), stats.t(8).cdf).pvalue > LEAST_P


def test_teachers_are_what_their_names_say():
    x, one = np.array([0.6, -0.8]), np.array([[1.0, 0.5]])
    z = float(one[0] @ x)
    expected = {"linear": z, "cubic": z**3, "relu": max(z, 0), "sign": np.sign(z), "tanh": np.tanh(3 * z)}
    expected["hermite3"] = (z**3 - 3 * z) / np.sqrt(6)
    for name, value in expected.items():
        for sign in (1.0, -1.0):
            found = prompts.label(prompts.TEACHERS[name], one, np.array([sign]), x)
            assert found == pytest.approx(sign * value, rel=1e-14), name
    W, signs = np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]), np.array([1.0, -1.0, 1.0])
    assert prompts.label(prompts.NETWORK, W, signs, x) == pytest.approx((0.6 - 0.8) / np.sqrt(3), rel=1e-14)


def test_nonlinear_teachers_are_unit_vectors_of_either_sign():
    W, signs, root = np.empty((2000, 3)), np.empty(2000), np.array([1.0, 2.0, 0.5])
    prompts.draw_teacher(prompts.NETWORK, root, root, 0.0, *generators(7, 2), W, signs)
    np.testing.assert_allclose(np.linalg.norm(W / root, axis=1), 1.0, rtol=1e-12)
    assert abs(signs.mean()) < 4 / np.sqrt(2000) and set(signs) == {1.0, -1.0}
    assert abs((W / root).mean(axis=0)).max() < 4 / np.sqrt(3 * 2000)
    prompts.draw_teacher(LINEAR, root, np.array([0.0, 0.0, 0.0]), 1.5, *generators(7, 2), W[:1], signs)
    assert W[0].tolist() == [1.5, 0.0, 0.0] and signs[0] == 1.0


# -- batches -----------------------------------------------------------------------------------------------------


def batch(even, explicit, blocks, seed, count, d, n=6, s2=0.3, teacher="linear", kind="gaussian", mean=0.0, t=None):
    gradient = np.empty(size(d))
    t = np.ones(d) if t is None else t
    loss = sampled.batch_gradient(
        even, explicit, prompts.TEACHERS[teacher], 1, prompts.COVARIATES[kind], 8.0, np.ones(d), np.sqrt(t), mean, n,
        s2, count, blocks, *generators(seed, 7), np.zeros(1, np.uint8), gradient, np.empty((count, d)),
        np.empty((count, d)),
    )  # fmt: skip
    return loss, gradient


@pytest.mark.parametrize(("teacher", "kind"), [("linear", "gaussian"), ("relu", "rademacher"), ("cubic", "student_t")])
def test_the_gradient_of_a_batch_is_that_of_its_loss(teacher, kind):
    """On the same explicit prompts; the examples do not depend on the weights."""
    d, blocks = 3, drawn(10, 3)[2]

    def loss(at):
        return batch(True, True, at, 8, 5, d, teacher=teacher, kind=kind, mean=0.7 * (teacher == "linear"))[0]

    found = batch(True, True, blocks, 8, 5, d, teacher=teacher, kind=kind, mean=0.7 * (teacher == "linear"))[1]
    np.testing.assert_allclose(found, differences(loss, blocks), rtol=1e-6, atol=1e-8 * np.abs(found).max())


def test_the_useful_gradient_of_a_batch_is_that_of_its_loss():
    d, blocks = 3, drawn(11, 3)[2]
    blocks[:d] = blocks[-2 * d :] = 0.0
    found = batch(False, False, blocks, 9, 6, d)[1]
    expected = differences(lambda at: batch(False, False, at, 9, 6, d)[0], blocks)
    useful = slice(d, d + 1 + d * d)
    np.testing.assert_allclose(found[useful], expected[useful], rtol=1e-7, atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize(("even", "explicit"), [(True, False), (False, False), (True, True)])
def test_batches_estimate_the_population_gradient(even, explicit):
    """400 batches of 50, seeds 100-499: every entry within 4.5 standard errors of its mean."""
    d = 2
    t, blocks = np.array([0.6, 1.4]), 0.1 * drawn(12, 2)[2]
    if not even:
        blocks[:d] = blocks[-2 * d :] = 0.0
    drawn_ = [batch(even, explicit, blocks, 100 + r, 50, d, t=t) for r in range(400)]
    loss, gradient = diagonal(np.ones(d), t, 6, 0.3, blocks)
    losses, gradients = np.array([one[0] for one in drawn_]), np.array([one[1] for one in drawn_])
    assert abs(losses.mean() - loss) < 4.5 * losses.std() / 20
    se = gradients.std(axis=0) / 20
    shown = se > 0
    assert (np.abs(gradients.mean(axis=0) - gradient)[shown] < 4.5 * se[shown]).all()
    assert shown.sum() == (size(d) if even else d * d + 1)


@pytest.mark.parametrize("explicit", [False, True])
def test_the_gradient_of_stacked_layers_is_that_of_their_loss(explicit):
    d, n, rng = 3, 5, np.random.default_rng(13)
    A = 0.1 * rng.standard_normal((3, d, d))

    def run(at):
        out, ones = np.empty_like(A), np.ones(d)
        loss = sampled.stack_gradient(
            explicit, LINEAR, 1, GAUSSIAN, 8.0, ones, ones, 0.4, n, 0.3, 4, at.reshape(A.shape), *generators(10, 7),
            np.zeros(1, np.uint8), out,
        )  # fmt: skip
        return loss, out

    found = run(A)[1].ravel()
    expected = differences(lambda at: run(at)[0], A.ravel())
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8 * np.abs(found).max())


def train(theta, steps, at, *, chart="reduced", layers=1, adam=True, seed=20, d=2, lam=None, rate=0.01, cancel=0, n=6):
    lam = np.ones(d) if lam is None else lam
    diag, frames, records = np.empty((len(at), d)), np.empty((1, d, d)), np.empty((5, len(at)))
    done = sampled.train_on_batches(
        kernels.CHARTS[chart], False, layers, adam, False, LINEAR, 1, GAUSSIAN, 8.0, layers == 1, lam, np.ones(d), 0.0,
        n, 0.3, 1.0, theta, rate, steps, 4, at, at[:1], diag, frames, *generators(seed, 7),
        np.array([cancel], np.uint8), np.zeros(1, np.int64), records,
    )  # fmt: skip
    return done, records, diag


@pytest.mark.parametrize("adam", [False, True])
def test_training_on_batches_is_the_plain_loop(adam):
    """The same draws block by block through NumPy: streams hold one kind of draw each."""
    d, n, s2, steps, lam = 2, 6, 0.3, 5, np.array([2.0, 0.5])
    theta = np.array([0.4, 0.3, -0.2, 0.1, 0.25])
    plain, first, second, at = theta.copy(), 0.0, 0.0, np.array([0, steps])
    task, chi, noise, _, query, label_noise, _ = generators(20, 7)
    for k in range(steps):
        x = query.standard_normal((4, d))
        c, A, gradient = plain[0], plain[1:].reshape(d, d), np.zeros(5)
        white = np.sqrt(np.outer(lam, lam)) * A
        for p in range(4):
            w, g = np.sqrt(lam) * task.standard_normal(d), np.empty(d)
            target = w @ x[p] + np.sqrt(s2) * label_noise.standard_normal()
            prompts.useful_moments(w, n, s2, chi, noise, g)
            e = 2 * (c * g @ white @ x[p] - target) / 4
            gradient[0] += e * g @ white @ x[p]
            gradient[1:] += (e * c * np.sqrt(np.outer(lam, lam)) * np.outer(g, x[p])).ravel()
        if adam:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            shown = (first / (1 - 0.9 ** (k + 1))) / (np.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
            plain -= 0.01 * 0.5 * (1 + np.cos(np.pi * k / steps)) * shown
        else:
            plain -= 1e-4 * gradient
    done, records, _ = train(theta, steps, at, adam=adam, lam=lam, rate=0.01 if adam else 1e-4)
    assert done == (kernels.DONE, steps)
    np.testing.assert_allclose(theta, plain, rtol=1e-10)
    blocks = np.concatenate([np.zeros(d), theta, np.zeros(2 * d)])
    assert records[0, -1] == pytest.approx(diagonal(lam, np.ones(d), n, s2, blocks)[0], rel=1e-12)


def test_stacked_training_records_the_mean_of_its_batches():
    at, theta = np.array([0, 1, 3]), 0.05 * np.random.default_rng(0).standard_normal(8)
    plain, streams = theta.copy(), generators(20, 7)
    losses = []
    for _ in range(4):
        out, ones = np.empty((2, 2, 2)), np.ones(2)
        loss = sampled.stack_gradient(
            False, LINEAR, 1, GAUSSIAN, 8.0, ones, ones, 0.0, 6, 0.3, 4, plain.reshape(2, 2, 2), *streams,
            np.zeros(1, np.uint8), out,
        )  # fmt: skip
        losses.append(loss)
        plain -= 1e-4 * out.ravel()
    _, records, diag = train(theta, 3, at, layers=2, adam=False, rate=1e-4)
    np.testing.assert_allclose(records[0], [losses[0], losses[1], (losses[2] + losses[3]) / 2], rtol=1e-12)
    assert np.isnan(records[1]).all()
    np.testing.assert_allclose(diag[-1], np.diag(theta.reshape(2, 2, 2).sum(axis=0)), rtol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
def test_divergence_and_cancelling_end_training_on_batches(layers):
    at = np.array([0, 30])
    theta = 0.3 * np.random.default_rng(1).standard_normal(5 if layers == 1 else 8)
    (status, last), records, _ = train(theta.copy(), 30, at, adam=False, rate=3.0, layers=layers)
    assert status == kernels.DIVERGED and 0 < last <= 30 and np.isnan(records[0, -1])
    (status, last), records, _ = train(theta, 30, at, cancel=1, layers=layers)
    assert (status, last) == (kernels.CANCELLED, 0) and np.isnan(records).all()


# -- tests on fresh prompts --------------------------------------------------------------------------------------


def evaluate(blocks, A, count, seed, d, even, explicit=False, lam=None, n=6, cancel=0):
    sums, lam = np.empty(sampled.SUMS), np.ones(d) if lam is None else lam
    finished = sampled.test_layer(
        even, explicit, LINEAR, 1, GAUSSIAN, 8.0, lam, np.ones(d), 0.0, n, 0.3, count, blocks, A,
        *generators(seed, 6), np.array([cancel], np.uint8), sums,
    )  # fmt: skip
    return finished, sums / count


@pytest.mark.parametrize(("even", "explicit"), [(True, False), (False, False), (True, True), (False, True)])
def test_the_test_loss_estimates_the_population_loss(even, explicit):
    """20 000 prompts, seed 30: within 4 standard errors; the best plain step likewise."""
    d, lam = 3, np.array([2.0, 1.0, 0.5])
    blocks = 0.15 * drawn(14, d)[2]
    if not even:
        blocks[:d] = blocks[-2 * d :] = 0.0
    _, (e, ee, p, q, pp, qq, pq) = evaluate(blocks, np.zeros((0, d, d)), 20_000, 30, d, even, explicit, lam)
    expected = diagonal(lam, np.ones(d), 6, 0.3, blocks)[0]
    assert abs(e - expected) < 4 * np.sqrt((ee - e * e) / 20_000)
    v1 = lam.sum() + 0.3
    eta = np.sum(lam**2) / np.sum(lam * (7 * lam**2 + v1 * lam))
    assert abs(p / q - eta) < 4 * np.sqrt((pp - 2 * eta * pq + eta**2 * qq) / 20_000) / q


def test_averaging_over_the_query_halves_the_standard_error():
    blocks = np.concatenate([np.zeros(3), [1.0], 0.1 * np.eye(3).ravel(), np.zeros(6)])
    averaged, sampled_ = (
        evaluate(blocks, np.zeros((0, 3, 3)), 20_000, 31, 3, False, kind)[1] for kind in (False, True)
    )
    assert averaged[1] - averaged[0] ** 2 < (sampled_[1] - sampled_[0] ** 2) / 3


@pytest.mark.parametrize("explicit", [False, True])
def test_stacked_layers_are_tested_as_they_are_trained(explicit):
    """Two layers by brute force, 20 000 prompts of seed 32 a side: within 4 standard errors."""
    d, n, lam, rng = 2, 6, np.array([2.0, 0.5]), np.random.default_rng(32)
    A = 0.05 * np.eye(d) + 0.02 * rng.standard_normal((2, d, d))
    _, X, y, x, target = prompts.draw_prompts(np.diag(lam), np.eye(d), n, 0.3, 20_000, rng)
    g, S, what = np.einsum("pnd,pn->pd", X, y), X.transpose(0, 2, 1) @ X, 0.0
    for one in A:
        step = g @ one.T
        what, g = what + step, g - np.einsum("pij,pj->pi", S, step)
    error = (np.sum(x * what, axis=1) - target) ** 2
    _, (e, ee, *_) = evaluate(np.zeros(size(d)), A, 20_000, 33, d, False, explicit, lam, n)
    assert abs(e - error.mean()) < 4 * np.hypot(error.std(), np.sqrt(ee - e * e)) / np.sqrt(20_000)


def test_a_cancelled_test_says_so():
    assert not evaluate(np.zeros(size(2)), np.zeros((0, 2, 2)), 100, 0, 2, False, cancel=1)[0]


# -- a finite set ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 30])
def test_a_growing_set_is_solved_as_the_whole(count):
    """Least norm below d^2 = 4 prompts, least squares above, in batches of any size."""
    rng, d = np.random.default_rng(count), 2
    G, X, y = rng.standard_normal((count, d)), rng.standard_normal((count, d)), rng.standard_normal(count)
    seen = finite.GrowingSet(d)
    for part in np.array_split(np.arange(count), 3):
        seen.add(G[part], X[part], y[part])
    features = np.stack([np.outer(x, g).ravel() for x, g in zip(X, G, strict=True)]) if count else np.zeros((0, 4))
    expected = np.linalg.pinv(features) @ y
    np.testing.assert_allclose(seen.solve().ravel(), expected, rtol=1e-8, atol=1e-9)


def test_a_training_set_has_the_law_of_whole_prompts():
    """8 000 prompts a side, seed 40, covariates of unequal variance."""
    lam, t, count = np.array([2.0, 0.5]), np.array([0.5, 1.5]), 8000
    G, X, y = np.empty((count, 2)), np.empty((count, 2)), np.empty(count)
    sampled.draw_training_set(lam, t, 5, 0.3, count, *generators(40, 5), G, X, y)
    _, whole_X, labels, query, target = prompts.draw_prompts(
        np.diag(lam), np.diag(t), 5, 0.3, count, np.random.default_rng(41)
    )
    whole = np.column_stack([np.einsum("pnd,pn->pd", whole_X, labels), query, target])
    assert alike(np.column_stack([G, X, y]), whole) > LEAST_P
