"""Gradients against finite differences, and what is measured against the definition."""

import math

import numpy as np
import pytest

from sims.contrastive_temperature import kernels, training
from sims.contrastive_temperature.lab import LAB, STREAMS
from sims.engine import execute, generator
from sims.engine.provenance import single_threaded_blas

make = LAB.params.make
SMALL = {"classes": 3, "per_class": 2, "replicates": 1}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    single_threaded_blas()


def naive_loss(S, T, tau, own=True):
    """Mean over i of -sum_j T_ij s_ij/tau + log sum_k exp(s_ik/tau)."""
    total = 0.0
    for i in range(len(S)):
        others = [S[i, k] for k in range(len(S)) if own or k != i]
        total += math.log(sum(math.exp(s / tau) for s in others)) - sum(T[i] * S[i]) / tau
    return total / len(S)


def test_the_force_on_each_similarity_is_its_softmax():
    """n = 6, tau = 0.3: finite differences of the summed loss, to five digits."""
    S, tau, P = np.random.default_rng(0).uniform(-1, 1, (6, 6)), 0.3, np.empty((6, 6))
    kernels.softmax(S, tau, True, P)
    for i in range(6):
        for j in range(6):
            h = np.zeros((6, 6))
            h[i, j] = 1e-6
            slope = 6 * (naive_loss(S + h, np.eye(6), tau) - naive_loss(S - h, np.eye(6), tau)) / 2e-6
            expected = P[i, j] / tau if i != j else -(1 - P[i, i]) / tau
            assert slope == pytest.approx(expected, abs=1e-5)
        pushed = np.sum(P[i]) - P[i, i]
        assert pushed == pytest.approx(1 - P[i, i], rel=1e-12), "all forces together equal that on the positive"


@pytest.mark.parametrize("own", [True, False])
def test_the_softmax_is_the_definition_and_holds_at_low_temperatures(own):
    S = np.random.default_rng(1).uniform(-1, 1, (5, 5))
    for tau in (0.3, 0.005):
        P = np.empty((5, 5))
        loss = kernels.softmax(S, tau, own, P)
        np.testing.assert_allclose(P.sum(axis=1), 1.0)
        assert own or np.all(np.diag(P) == 0)
        if tau > 0.1:
            assert loss == pytest.approx(naive_loss(S, np.zeros((5, 5)), tau, own), rel=1e-12)
    assert np.all(np.isfinite(P))


def built(params, theta):
    """First and second views (N, D) at an angle, from the drawn directions."""
    label, N, D, a = training.labels(params), params.examples, params.feature_dim, params.overlap
    drawn = {name: generator(params.seed, STREAMS[name], 0) for name in ("classes", "instances", "views")}
    u = np.linalg.qr(drawn["classes"].standard_normal((D, params.classes)))[0].T[label]
    v, w = (drawn[name].standard_normal((N, D)) for name in ("instances", "views"))
    v, w = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v, w))
    f = math.sin(theta) * u + math.cos(theta) * v
    g = math.sin(theta) * u + math.cos(theta) * (a * v + math.sqrt(1 - a * a) * w)
    return (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f, g))


@pytest.mark.parametrize("theta", [0.0, 0.4, 1.2, math.pi / 2])
def test_products_of_directions_give_the_features(theta):
    params = make({**SMALL, "feature_dim": 20})
    here = training.directions(params, 0)
    f, g = built(params, theta)
    S, slope, P = (np.empty((6, 6)) for _ in range(3))
    loss, turn = kernels.share_loss(theta, 0.3, *here.of_pairs, S, slope, P)
    np.testing.assert_allclose(S, f @ g.T, atol=1e-12)
    np.testing.assert_allclose(training.one_view(here, theta), f @ f.T, atol=1e-12)
    assert loss == pytest.approx(naive_loss(f @ g.T, np.eye(6), 0.3), rel=1e-12)
    sides = []
    for side in (1, -1):
        one, two = built(params, theta + side * 1e-6)
        sides.append(naive_loss(one @ two.T, np.eye(6), 0.3))
    assert turn == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-6)


def test_the_share_is_where_the_loss_is_least():
    run = execute(LAB, make({**SMALL, "feature_dim": 40, "steps": 50, "temperature": 0.4}))
    share = run.values["share"][0]
    losses = []
    for c in np.linspace(0, 1, 401):
        f, g = built(run.params, math.asin(math.sqrt(c)))
        losses.append(naive_loss(f @ g.T, np.eye(6), 0.4))
    assert share == pytest.approx(np.argmin(losses) / 400, abs=0.003)
    assert run.values["loss"][0] <= min(losses) + 1e-12


@pytest.mark.parametrize("tau", [0.05, 0.4, 5.0])
def test_a_bracket_is_halved_at_every_step_until_it_moves_no_more(tau):
    """Against a plain loop over all 120 steps; 0.05 and 5 end at a side of the quarter turn."""
    params = make({**SMALL, "feature_dim": 40})
    here = training.directions(params, 0)
    scratch = [np.empty((6, 6)) for _ in range(3)]
    low, high, brackets = 0.0, training.HALF_TURN, []
    for _ in range(120):
        middle = 0.5 * (low + high)
        turn = kernels.share_loss(middle, tau, *here.of_pairs, *scratch)[1]
        low, high = (middle, high) if turn < 0.0 else (low, middle)
        brackets.append((low, high))
    assert brackets[-1] == brackets[80] != brackets[20]
    for last in (0, 1, 30, 70, 120):
        bracket, progress = np.array([0.0, training.HALF_TURN]), np.zeros(1, np.int64)
        watched = (np.zeros(1, np.uint8), progress)
        assert kernels.narrow(bracket, tau, *here.of_pairs, 0, last // 2, *watched)[0] == kernels.DONE
        assert kernels.narrow(bracket, tau, *here.of_pairs, last // 2, last, *watched) == (kernels.DONE, last)
        assert tuple(bracket) == ([(0.0, training.HALF_TURN), *brackets][last]) and progress[0] == last


@pytest.mark.parametrize("own", [True, False])
def test_a_table_steps_against_the_summed_loss_on_the_sphere(own):
    params = make({**SMALL, "model": "table", "swap": 0.4, "own_in_denominator": own, "sphere_dim": 4})
    T, tau, rate = training.positives(params), 0.3, 1e-4
    rng = np.random.default_rng(0)
    f = rng.standard_normal((6, 4))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    slope = np.zeros_like(f)
    for index in np.ndindex(f.shape):
        h = np.zeros_like(f)
        h[index] = 1e-6
        slope[index] = 6 * sum(s * naive_loss((f + s * h) @ (f + s * h).T, T, tau, own) for s in (1, -1)) / 2e-6
    # own similarities are 1 on the sphere, whatever f is: their part of the slope points along f and is projected out
    slope -= np.sum(slope * f, axis=1, keepdims=True) * f
    expected = f - rate * tau * slope
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    S, P, moved = np.empty((6, 6)), np.empty((6, 6)), f.copy()
    loss = kernels.table_step(moved, T, tau, rate, own, S, P)
    assert loss == pytest.approx(naive_loss(f @ f.T, T, tau, own), rel=1e-12)
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_positives_are_probabilities():
    T = training.positives(make({**SMALL, "model": "table", "swap": 0.4, "per_class": 3}))
    np.testing.assert_allclose(T.sum(axis=1), 1.0)
    assert T[0, 0] == pytest.approx(0.6) and T[0, 1] == T[0, 2] == pytest.approx(0.2) and T[0, 3] == 0


def test_annealing_moves_the_temperature_by_one_factor_a_step():
    params = make({**SMALL, "model": "table", "schedule": "anneal", "temperature": 0.1, "steps": 40})
    run = execute(LAB, params)
    np.testing.assert_allclose(run.trace.series["tau_now"][0], 0.1 ** (run.trace.step / 40))
    f = generator(0, STREAMS["init"], 0).standard_normal((6, 3))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    S, P = np.empty((6, 6)), np.empty((6, 6))
    for step in range(40):
        kernels.table_step(f, training.positives(params), 0.1 ** (step / 40), 0.5, True, S, P)
    assert run.values["tolerance"][0] == pytest.approx(training.tolerance(f @ f.T, training.labels(params)), abs=1e-12)


def test_measures_are_their_definitions():
    f = np.random.default_rng(2).standard_normal((6, 3))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    gram, label = f @ f.T, np.array([0, 0, 1, 1, 2, 2])
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    assert training.tolerance(gram, label) == pytest.approx(
        np.mean([gram[i, j] for i, j in pairs if label[i] == label[j]])
    )
    far = np.mean([math.exp(-2 * np.sum((f[i] - f[j]) ** 2)) for i, j in pairs])
    assert training.uniformity(gram) == pytest.approx(math.log(far))
    near = [max((gram[i, j], label[j] == label[i]) for j in range(6) if j != i)[1] for i in range(6)]
    assert training.class_accuracy(gram, label) == np.mean(near)
    assert training.retrieval(gram) == 1.0
    assert training.retrieval(np.ones((4, 4))) == 0.25, "of ties the first counts"
    mean, entropy = training.force(gram, 0.5)
    weights = [np.array([math.exp(gram[i, j] / 0.5) for j in range(6) if j != i]) for i in range(6)]
    shares = [w / w.sum() for w in weights]
    assert entropy == pytest.approx(np.mean([-np.sum(r * np.log(r)) for r in shares]) - math.log(5))
    others = [np.array([gram[i, j] for j in range(6) if j != i]) for i in range(6)]
    assert mean == pytest.approx(np.mean([r @ s for r, s in zip(shares, others, strict=True)]))


def test_negatives_are_uniform_on_the_sphere():
    """10^5 negatives in 5 dimensions against explicit points, seed 0: means of s^2 and exp within 5 standard errors."""
    params = make(model="sphere", sphere_dim=5, temperature=1.0, negatives=1000, steps=100, replicates=1)
    run = execute(LAB, params)
    points = np.random.default_rng(0).standard_normal((100_000, 5))
    s = points[:, 0] / np.linalg.norm(points, axis=1)
    weight = np.exp(s - 1)
    error = 5 * math.sqrt(2) * np.std(weight) / math.sqrt(1e5)
    assert math.exp(run.values["log_mean_exp"][0]) == pytest.approx(np.mean(weight), abs=error)
    assert np.sum(run.trace.finals["force_by_angle"][0]) * math.pi / 60 == pytest.approx(1.0)
