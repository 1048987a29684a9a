"""Training against loops over the definition, and what is measured against brute force."""

import itertools
import math

import numpy as np
import pytest

from sims.engine import execute, generator
from sims.engine.provenance import single_threaded_blas
from sims.graphs import network
from sims.inductive_bias import encoders, kernels, training
from sims.inductive_bias.lab import LAB, STREAMS

make = LAB.params.make
TINY = {"dim": 4, "content": 2, "steps": 30, "replicates": 1, "n_features": 3}
SMALL = {**TINY, "batch": 5, "learning_rate": 0.02}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    single_threaded_blas()


def naive_views(params):
    """Both views (steps, B, d), drawn one kind of draw at a time."""
    d, shape = params.dim, (params.steps, params.batch)
    rngs = {name: generator(params.seed, STREAMS[name], 0) for name in ("bits", "first", "second")}
    bits = np.where(rngs["bits"].random((*shape, d)) < 0.5, 1.0, -1.0)
    if params.augmentation == "flip":
        q = encoders.flips(params)
        return tuple(np.where(rngs[name].random((*shape, d)) < q, -bits, bits) for name in ("first", "second"))
    style = np.arange(d) >= params.content
    span = params.scale_high - params.scale_low
    scales = (params.scale_low + span * rngs[name].random(shape) for name in ("first", "second"))
    return tuple(np.where(style, bits * tau[..., None], bits) for tau in scales)


def naive_phi(params, x):
    if params.encoder == "table":
        index = ((x < 0) @ (2 ** np.arange(params.dim)[::-1])).astype(int)
        return math.sqrt(2**params.dim) * np.eye(2**params.dim)[index]
    if params.encoder == "linear":
        return x
    if params.encoder == "polynomial":
        sizes = range(params.degree + 1)
        subsets = [s for size in sizes for s in itertools.combinations(range(params.dim), size)]
        return np.stack([np.prod(x[:, list(s)], axis=1) for s in subsets], axis=1)
    _, _, weight, bias = encoders.arguments(params, 0)
    return np.maximum(x @ weight + bias, 0.0)


def naive_gradients(z1, z2):
    B = len(z1)
    G = z1 @ z2.T * (1 - np.eye(B))
    return 2 / (B * (B - 1)) * G @ z2 - 2 / B * z2, 2 / (B * (B - 1)) * G.T @ z1 - 2 / B * z1


@pytest.mark.parametrize("augmentation", ["rescale", "flip"])
@pytest.mark.parametrize("encoder", ["linear", "polynomial", "relu", "table"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_training_is_the_batch_loss_followed_pair_by_pair(augmentation, encoder, optimiser):
    params = make({**SMALL, "augmentation": augmentation, "encoder": encoder, "training": optimiser})
    theta = training.start_of(params, 0)
    theta = theta.T.copy() if encoder == "table" else theta
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    for step, (x1, x2) in enumerate(zip(*naive_views(params), strict=True)):
        phi1, phi2 = naive_phi(params, x1), naive_phi(params, x2)
        g1, g2 = naive_gradients(phi1 @ theta.T, phi2 @ theta.T)
        gradient = g1.T @ phi1 + g2.T @ phi2
        if optimiser == "sgd":
            theta = theta - params.learning_rate * (1 - step / params.steps) * gradient
        else:
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            rate = 0.5 * params.learning_rate * (1 + math.cos(math.pi * step / params.steps))
            unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
            theta = theta - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    run = execute(LAB, params)
    expected = training.loss(params, 0, theta.T.copy() if encoder == "table" else theta)
    assert run.values["loss"][0] == pytest.approx(expected, rel=1e-8)


def test_a_network_takes_steps_against_the_gradient_of_its_batch():
    """One step of 0.001: the loss of that very batch falls by the squared gradient, to first order."""
    params = make({**SMALL, "encoder": "mlp", "training": "sgd", "steps": 1, "learning_rate": 1e-3, "width": 6})
    layers, theta = training._layers(params), training.start_of(params, 0)
    (x1,), (x2,) = naive_views(params)

    def batch_loss(theta):
        return training.pairs_loss(network.forward(layers, theta, x1)[1], network.forward(layers, theta, x2)[1])

    slope = np.array(
        [(batch_loss(theta + h) - batch_loss(theta - h)) / 2e-6 for h in 1e-6 * np.eye(len(theta))]
    )  # fmt: skip
    run = execute(LAB, params)
    moved = theta - 1e-3 * slope
    bits = encoders.patterns(4)
    A = network.forward(layers, moved, bits)[1].T @ bits / 16
    np.testing.assert_allclose(run.trace.finals["gram"][0], A.T @ A, atol=1e-8)


@pytest.mark.parametrize("augmentation", ["rescale", "flip"])
@pytest.mark.parametrize("encoder", ["linear", "polynomial", "relu", "table"])
def test_moments_and_losses_are_those_of_sampled_pairs(augmentation, encoder):
    """200 000 pairs, seed 3: standard error of the loss below 0.01, bound 0.04."""
    params = make({**SMALL, "augmentation": augmentation, "encoder": encoder, "seed": 3})
    theta = 0.4 * training.start_of(params, 0) / params.init_scale
    first, second, _ = encoders.draw(params, 0, 200_000, "")
    flat = theta.T if encoder == "table" else theta
    z1, z2 = (naive_phi(params, x) @ flat.T for x in (first, second))
    assert training.loss(params, 0, theta) == pytest.approx(training.pairs_loss(z1, z2), abs=0.04)


def test_the_loss_of_pairs_is_the_double_sum():
    z1, z2 = np.random.default_rng(0).standard_normal((2, 7, 3))
    G = z1 @ z2.T
    expected = (np.sum(G**2) - np.sum(np.diag(G) ** 2)) / 42 - 2 * np.mean(np.diag(G))
    assert training.pairs_loss(z1, z2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("encoder", ["linear", "polynomial", "relu", "table"])
@pytest.mark.parametrize("augmentation", ["rescale", "flip"])
def test_the_minimiser_cannot_be_improved(encoder, augmentation):
    """Its loss is -sum mu^2, the gradient vanishes, and random neighbours are no better."""
    params = make({**TINY, "encoder": encoder, "augmentation": augmentation, "training": "minimiser", "steps": 1})
    values, theta = training._pairs(params, 0)
    least = training.loss(params, 0, theta)
    assert least == pytest.approx(-np.sum(values[:3] ** 2), abs=1e-9)
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(20):
            assert training.loss(params, 0, theta + scale * rng.standard_normal(theta.shape)) >= least - 1e-9


def test_descent_steps_against_the_exact_gradient():
    for encoder in ("linear", "table"):
        params = make({**TINY, "encoder": encoder, "augmentation": "flip", "training": "descent", "steps": 1})
        theta = training.start_of(params, 0)
        slope = np.zeros_like(theta)
        for index in np.ndindex(theta.shape):
            h = np.zeros_like(theta)
            h[index] = 1e-6
            slope[index] = (training.loss(params, 0, theta + h) - training.loss(params, 0, theta - h)) / 2e-6
        run = execute(LAB, params)
        expected = training.loss(params, 0, theta - params.learning_rate * slope)
        assert run.values["loss"][0] == pytest.approx(expected, abs=1e-8)


def test_probes_are_least_squares():
    rng = np.random.default_rng(1)
    bits = encoders.patterns(5)
    Z = np.column_stack([rng.standard_normal((32, 3)), np.zeros(32)])
    Z[:, 3] = Z[:, 0] - Z[:, 1]  # depends on the others
    weight, targets = np.full(32, 1 / 32), bits[:, :2]
    for intercept in (True, False):
        nested = encoders.nested_probe(Z, weight, targets, intercept)
        for k in (1, 2, 3, 4):
            X = np.column_stack([Z[:, :k], np.ones(32)]) if intercept else Z[:, :k]
            fitted = X @ np.linalg.lstsq(X, targets, rcond=1e-9)[0]
            r2, right = 1 - np.mean((targets - fitted) ** 2), np.mean(np.sign(fitted) == targets)
            assert encoders.whole_probe(Z[:, :k], weight, targets, intercept) == pytest.approx((r2, right))
            assert (nested[0][k - 1], nested[1][k - 1]) == pytest.approx((r2, right))
        assert encoders.held_out_probe(Z, targets, Z, targets, intercept) == pytest.approx((r2, right))
    assert encoders.accuracy(np.zeros((32, 2)), weight, targets) == 0.5, "a prediction of 0 counts half"


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("encoder", ["linear", "polynomial", "relu"])
def test_a_probe_in_the_coordinates_of_the_class_is_that_on_all_views(encoder, intercept):
    """Of random members of the class, of dependent outputs, of one that is nearly constant, and of none."""
    params = make(encoder=encoder, training="minimiser", intercept=intercept, n_features=3)
    seen, frame = encoders.views(params), encoders.frame(params, 2)
    theta = np.random.default_rng(1).standard_normal((3, params.functions))
    cases = [theta, theta[[0, 0, 1]], np.vstack([theta[:2], 1e-7 * theta[2:]]), 0.0 * theta]
    for one in cases:
        Z = encoders.moments(params, 2).phi @ one.T
        wanted = encoders.whole_probe(Z, seen.weight, seen.targets, intercept)
        assert encoders.framed_probe(frame, one) == pytest.approx(wanted, rel=1e-8, abs=1e-12)


def test_cancelling_and_divergence_are_told():
    run = execute(LAB, make({**SMALL, "learning_rate": 5.0, "steps": 2000}))
    (stop,) = run.trace.stopped
    assert stop is not None and "learning_rate" in stop.reason
    assert np.isnan(run.trace.series["loss"][0, run.trace.step >= stop.step]).all()
    params = make({**TINY, "encoder": "table", "training": "descent", "learning_rate": 5.0})
    assert execute(LAB, params).diverged == 1
    theta, cancel, progress = np.ones((2, 2)), np.ones(1, np.uint8), np.zeros(1, np.int64)
    assert kernels.descend(np.eye(2), np.eye(2), 0.1, theta, 3, 9, cancel, progress) == (kernels.CANCELLED, 3)
