"""Training against loops over the definition, and gains against the matrices that they stand for."""

import math

import numpy as np
import pytest

from sims.engine import execute, generator
from sims.engine.provenance import single_threaded_blas
from sims.projection_head import kernels, training
from sims.projection_head.lab import LAB, STREAMS

make = LAB.params.make
SMALL = {"steps": 40, "replicates": 1, "learning_rate": 0.01}
RANDOM = {**SMALL, "init": "gaussian", "width": 5, "n_outputs": 3, "init_scale": 0.5}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    single_threaded_blas()


def chain(W):
    """The product of the layers, last one first."""
    out = np.eye(W[0].shape[1])
    for one in W:
        out = one @ out
    return out


def naive_loss(W, p, q):
    E = chain(W)
    return -2 * np.trace(E @ np.diag(p) @ E.T) + np.sum((E @ np.diag(q) @ E.T) ** 2)


def naive_gradient(W, slope):
    """Gradients of the layers from that of their product."""
    return [
        chain([np.eye(len(W[i])), *W[i + 1 :]]).T @ slope @ chain([np.eye(W[0].shape[1]), *W[:i]]).T
        for i in range(len(W))
    ]


def cut(params, theta):
    """The layers of a padded array at their own sizes."""
    sizes = [params.features, *[params.width] * (params.layers - 1), params.outputs]
    return [theta[i, : sizes[i + 1], : sizes[i]].copy() for i in range(params.layers)]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_descent_on_matrices_is_the_gradient(layers, decay):
    params = make({**RANDOM, "layers": layers, "weight_decay": decay})
    W, (p, q) = cut(params, training.start_of(params, 0)), training.moments(params)
    for _ in range(params.steps):
        E = chain(W)
        slope = 4 * (E @ np.diag(q) @ E.T @ E @ np.diag(q) - E @ np.diag(p))
        W = [one - params.learning_rate * (g + decay * one) for one, g in zip(W, naive_gradient(W, slope), strict=True)]
    run = execute(LAB, params)
    assert run.values["loss"][0] == pytest.approx(naive_loss(W, p, q), rel=1e-9)
    assert run.values["parts"][0] == params.steps, "no step was halved"
    norms = [np.linalg.norm(chain([np.eye(4), *W[:layer]]), axis=0) for layer in range(layers + 1)]
    np.testing.assert_allclose(run.trace.finals["weights"][0], norms, rtol=1e-9)
    expected = math.sqrt(sum(np.sum((W[i + 1].T @ W[i + 1] - W[i] @ W[i].T) ** 2) for i in range(layers - 1)))
    assert layers == 1 or run.values["imbalance"][0] == pytest.approx(expected, rel=1e-9)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    W, (p, q) = [rng.standard_normal((5, 4)), rng.standard_normal((3, 5))], training.moments(make(RANDOM))
    E = chain(W)
    slope = 4 * (E @ np.diag(q) @ E.T @ E @ np.diag(q) - E @ np.diag(p))
    for layer, found in enumerate(naive_gradient(W, slope)):
        for index in [(0, 0), (2, 3)]:
            h = np.zeros_like(W[layer])
            h[index] = 1e-6
            up, down = ([*W[:layer], W[layer] + s * h, *W[layer + 1 :]] for s in (1, -1))
            assert found[index] == pytest.approx((naive_loss(up, p, q) - naive_loss(down, p, q)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 3, "init_scale": 0.5},
        {"head_ratio": 3.0, "weight_decay": 0.2},
        {"learning_rate": 0.05, "head_ratio": 8.0},
    ],
    ids=["two layers", "three layers", "unbalanced with decay", "steps that are halved"],
)
def test_gains_are_the_matrices_of_aligned_layers(changes):
    """W_l = a_l U_l U_{l-1}^T with random orthogonal U: every recorded number is the same."""
    params = make({**SMALL, "copies": (1.0, 2.0), **changes})
    run = execute(LAB, params)
    d, L = params.features, params.layers
    rng = np.random.default_rng(0)
    U = [np.eye(d), *(np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(L))]
    scale = np.full(L, params.init_scale)
    scale[-1] *= params.head_ratio
    W = np.stack([scale[i] * U[i + 1] @ U[i].T for i in range(L)])
    p, q = (np.repeat(one, params.counts) for one in training.moments(params))
    reached, state = np.full(d, np.nan), np.zeros(3, dtype=np.int64)
    cancel, progress = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    kernels.descend(
        p,
        q,
        params.weight_decay,
        params.learning_rate,
        W,
        0.5 * p / q**2,
        reached,
        state,
        0,
        params.steps,
        cancel,
        progress,
    )
    norms = np.sqrt(np.sum(np.stack([chain([np.eye(d), *W[:i]]) for i in range(L + 1)]) ** 2, axis=1))
    np.testing.assert_allclose(run.trace.finals["weights"][0], training.of_kinds(params, norms), rtol=1e-8)
    assert run.values["parts"][0] == state[2]
    times = [run.values[f"half_time_{i}"][0] for i in range(1, 5)]
    np.testing.assert_allclose(times, training.of_kinds(params, reached), rtol=1e-8)
    balance = sum(np.sum((W[i + 1].T @ W[i + 1] - W[i] @ W[i].T) ** 2) for i in range(L - 1))
    assert run.values["imbalance"][0] == pytest.approx(math.sqrt(balance), abs=1e-9)


@pytest.mark.parametrize("init", [{"init": "aligned"}, {"init": "gaussian", "width": 5, "n_outputs": 3}])
def test_sgd_is_the_batch_loss_followed_pair_by_pair(init):
    params = make({**SMALL, **init, "training": "sgd", "batch": 6, "init_scale": 0.4})
    theta = training.start_of(params, 0)
    W = cut(params, theta) if params.init == "gaussian" else list(theta.copy())
    phi, nu = np.array(params.strengths), np.array(params.noises)
    shape = (params.steps, params.batch, 4)
    signs, first, second = (generator(0, STREAMS[name], 0) for name in ("signs", "first", "second"))
    e = np.where(signs.random(shape) < 0.5, 1.0, -1.0)
    views = (phi * e + nu * noise.standard_normal(shape) for noise in (first, second))
    for step, (v1, v2) in enumerate(zip(*views, strict=True)):
        z1, z2 = v1 @ chain(W).T, v2 @ chain(W).T
        B = params.batch
        G = z1 @ z2.T * (1 - np.eye(B))
        g1, g2 = 2 / (B * (B - 1)) * G @ z2 - 2 / B * z2, 2 / (B * (B - 1)) * G.T @ z1 - 2 / B * z1
        rate = params.learning_rate * (1 - step / params.steps)
        W = [one - rate * g for one, g in zip(W, naive_gradient(W, g1.T @ v1 + g2.T @ v2), strict=True)]
    run = execute(LAB, params)
    p, q = phi**2, phi**2 + nu**2
    assert run.values["loss"][0] == pytest.approx(naive_loss(W, p, q), rel=1e-9)


def test_steps_that_are_too_large_are_halved_and_end_where_small_ones_do():
    big, small = (
        execute(LAB, make(init_scale=2.0, learning_rate=rate, steps=steps, replicates=1))
        for rate, steps in ((0.03, 400), (0.0003, 40_000))
    )
    assert big.values["parts"][0] > 400 and small.values["parts"][0] == 40_000
    np.testing.assert_allclose(big.trace.finals["weights"], small.trace.finals["weights"], rtol=1e-4)


def test_what_never_settles_is_told():
    run = execute(LAB, make(init_scale=10.0, head_ratio=10.0, layers=6, learning_rate=1.0, steps=50, replicates=1))
    (stop,) = run.trace.stopped
    assert stop is not None and "learning_rate" in stop.reason
    assert np.isnan(run.trace.series["loss"][0, run.trace.step >= stop.step]).all()


def test_the_task_downstream_is_ridge_regression():
    params = make(strengths=(2.0, 1.0), noises=(1.0, 0.5), copies=(1.0, 11.0), n_labelled=6, ridge=0.3, relevant=2)
    g = np.random.default_rng(0).uniform(0.2, 1.5, (1, 12))
    (mse,), (wrong,) = training.downstream(params, 0, g)
    e = np.where(generator(0, STREAMS["labelled"], 0).random((6, 12)) < 0.5, 1.0, -1.0)
    phi = np.r_[2.0, np.ones(11)]
    Z = e * g[0] * phi
    b = np.linalg.solve(Z.T @ Z + 0.3 * np.eye(12), Z.T @ e[:, 1])
    assert mse == pytest.approx(np.sum((g[0] * phi * b - np.eye(12)[1]) ** 2), rel=1e-10)
    fresh = np.where(generator(0, STREAMS["test"], 0).random((2000, 12)) < 0.5, 1.0, -1.0)
    assert wrong == np.mean(np.sign(fresh * g[0] * phi @ b) != fresh[:, 1])
    least = training.ridge_weights(Z, e[:, 1], 0.0)
    np.testing.assert_allclose(least, np.linalg.pinv(Z) @ e[:, 1], atol=1e-12)
