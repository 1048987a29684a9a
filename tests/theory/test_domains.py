"""The block model against dense algebra: eigenvalues, what is kept, and every head by least squares in many bases."""

import numpy as np
import pytest

from theory import domains
from theory.augmentation_graph import gradient_flow, mode_masses, subspace_tangent
from theory.domains import CLASS, CONSTANT, DOMAIN, GROUPS, INTERACTION, BlockModel

PUBLISHED = [
    (BlockModel(2, 2, 0.8, 0.1, 0.08, 0.02), (1.0, 0.8, 0.76, 0.64), 1e-10),
    (BlockModel(5, 2, 0.6, 0.1, 0.05, 0.02), (1.0, 0.642857, 0.632653, 0.479592), 1e-6),
    (BlockModel(4, 3, 0.7, 0.06, 0.05, 0.02), (1.0, 0.6697, 0.6697, 0.5596), 1e-4),
    (BlockModel(5, 2, 0.6, 0.02, 0.05, 0.1), (1.0, 0.3852, 0.3115, 0.5164), 1e-4),
    (BlockModel(2, 2, 0.8, 0.02, 0.08, 0.1), (1.0, 0.64, 0.76, 0.8), 1e-10),
]


def matrix(model):
    """Abar (r m, r m), the domain fastest, entry by entry."""
    r, m = model.classes, model.domains
    A = np.empty((r * m, r * m))
    for i in range(r * m):
        for j in range(r * m):
            same = (i // m == j // m, i % m == j % m)
            A[i, j] = {
                (True, True): model.within,
                (True, False): model.across_domains,
                (False, True): model.across_classes,
                (False, False): model.across_both,
            }[same]
    assert np.allclose(A.sum(axis=1), model.total, atol=1e-12)
    return A / model.total


def features(model, k, rng=None):
    """f (r m, k) of the k largest eigenvalues; with `rng` in a random basis of every eigenspace."""
    values, vectors = np.linalg.eigh(matrix(model))
    values, vectors = values[::-1], vectors[:, ::-1]
    if rng is not None:
        level = np.concatenate([[0], np.cumsum(np.diff(values) < -1e-9)])
        for one in np.unique(level):
            columns = np.flatnonzero(level == one)
            turn = np.linalg.qr(rng.standard_normal((len(columns), len(columns))))[0]
            vectors[:, columns] = vectors[:, columns] @ turn
    return vectors[:, :k] * np.sqrt(np.maximum(values[:k], 0.0)) * np.sqrt(len(values))


def by_least_squares(model, f, ridge=0.0):
    """Gain, target and source accuracy (ties as chance) of the source's head, and accuracy on the domain."""
    r, m = model.classes, model.domains
    label, domain = np.arange(r * m) // m, np.arange(r * m) % m
    Y, source = np.eye(r)[label] - 1.0 / r, domain == 0
    if ridge:
        W = np.linalg.solve(f[source].T @ f[source] / r + ridge * np.eye(f.shape[1]), f[source].T @ Y[source] / r)
    else:
        W = np.linalg.lstsq(f[source], Y[source], rcond=1e-10)[0]
    D = np.eye(m)[domain] - 1.0 / m
    scores, of_domain = f @ W, f @ np.linalg.lstsq(f, D, rcond=1e-10)[0]
    contrast = [np.sum(scores[part] * Y[part]) / np.sum(Y[part] ** 2) for part in (~source, source)]
    gain = contrast[0] / contrast[1] if contrast[1] > 1e-9 else None
    return (
        gain,
        accuracy(scores[~source], label[~source]),
        accuracy(scores[source], label[source]),
        accuracy(of_domain, domain),
    )


def accuracy(scores, label):
    best = scores >= scores.max(axis=1, keepdims=True) - 1e-9
    return float(np.mean(best[np.arange(len(label)), label] / best.sum(axis=1)))


def random_model(rng):
    r, m = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    rho, al, be, ga = rng.random(4)
    return (
        BlockModel(r, m, max(rho, al, be) + 0.05, al, be, ga)
        if rng.random() < 0.7
        else BlockModel(r, m, *rng.random(4))
    )


# -- the spectrum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "values", "tolerance"), PUBLISHED)
def test_published_eigenvalues(model, values, tolerance):
    for group, value in zip(GROUPS, values, strict=True):
        assert model.eigenvalues[group] == pytest.approx(value, abs=tolerance)


def test_the_spectrum_is_that_of_the_matrix():
    rng = np.random.default_rng(1)
    for _ in range(100):
        model = random_model(rng)
        np.testing.assert_allclose(model.spectrum, np.linalg.eigvalsh(matrix(model))[::-1], atol=1e-12)
        kron = np.kron
        eye_r, eye_m = np.eye(model.classes), np.eye(model.domains)
        ones_r, ones_m = np.ones_like(eye_r), np.ones_like(eye_m)
        rho, al, be, ga = model.within, model.across_domains, model.across_classes, model.across_both
        A = (rho - al - be + ga) * kron(eye_r, eye_m) + (al - ga) * kron(eye_r, ones_m)
        A += (be - ga) * kron(ones_r, eye_m) + ga * kron(ones_r, ones_m)
        np.testing.assert_allclose(A / model.total, matrix(model), atol=1e-14)


def test_differences_of_eigenvalues_are_those_of_the_weights():
    rng = np.random.default_rng(2)
    for _ in range(50):
        model = random_model(rng)
        lam, r, m, Z = model.eigenvalues, model.classes, model.domains, model.total
        al, be, ga = model.across_domains, model.across_classes, model.across_both
        assert lam[CLASS] - lam[INTERACTION] == pytest.approx(m * (al - ga) / Z, abs=1e-13)
        assert lam[DOMAIN] - lam[INTERACTION] == pytest.approx(r * (be - ga) / Z, abs=1e-13)
        assert lam[CLASS] - lam[DOMAIN] == pytest.approx((m * al - r * be + (r - m) * ga) / Z, abs=1e-13)


@pytest.mark.parametrize("weights", [(1, 2, 1.0, 0.1, 0.1, 0.1), (2, 1, 1.0, 0.1, 0.1, 0.1), (2, 2, -0.1, 1, 1, 1)])
def test_no_model_without_two_of_each_and_positive_weights(weights):
    with pytest.raises(ValueError, match="must be"):
        BlockModel(*weights)
    with pytest.raises(ValueError, match="not all 0"):
        BlockModel(2, 2, 0.0, 0.0, 0.0, 0.0)


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "k", "counts"),
    [
        (PUBLISHED[0][0], 3, (1, 1, 1, 0)),
        (PUBLISHED[1][0], 6, (1, 4, 1, 0)),
        (PUBLISHED[1][0], 3, (1, 2, 0, 0)),
        (PUBLISHED[2][0], 6, (1, 3, 2, 0)),
        (PUBLISHED[2][0], 4, (1, None, None, 0)),
        (PUBLISHED[3][0], 6, (1, 1, 0, 4)),
        (PUBLISHED[4][0], 3, (1, 0, 1, 1)),
        (BlockModel(2, 2, 0.8, 0.05, 0.08, 0.05), 3, (1, None, 1, None)),
        (BlockModel(2, 2, 0.8, 0.05, 0.08, 0.05), 2, (1, 0, 1, 0)),
        (BlockModel(2, 2, 0.1, 0.8, 0.8, 0.1), 4, (1, 0, 0, 0)),
        (BlockModel(2, 3, 0.5, 0.0, 0.1, 0.0), 2, (None, 0, None, 0)),
    ],
)
def test_what_the_largest_eigenvalues_keep(model, k, counts):
    assert tuple(domains.kept(model, k).counts[group] for group in GROUPS) == counts


def test_fewer_than_one_feature_is_refused():
    with pytest.raises(ValueError, match="at least 1 feature"):
        domains.kept(PUBLISHED[0][0], 0)


def test_the_least_loss_is_that_of_the_features():
    rng = np.random.default_rng(3)
    for _ in range(50):
        model = random_model(rng)
        k = int(rng.integers(1, model.classes * model.domains + 1))
        F = features(model, k) / np.sqrt(model.classes * model.domains)
        loss = float(np.sum((matrix(model) - F @ F.T) ** 2) - np.sum(matrix(model) ** 2))
        assert domains.least_loss(model, k) == pytest.approx(loss, abs=1e-11)


@pytest.mark.parametrize("index", [0, 1, 2, 4])
def test_the_flow_has_settled_by_its_time(index):
    """The closed form of the gradient flow from normal entries of 0.1: the tangent to the top eigenspace is small."""
    model, rng = PUBLISHED[index][0], np.random.default_rng(7)
    k = model.classes + model.domains - 1
    time = domains.settling_time(model, k, 0.1)
    start = 0.1 * rng.standard_normal((len(model.spectrum), k))
    early, late = subspace_tangent(model.spectrum, start, np.array([time / 4, time]))
    assert late < 0.05 < early
    masses = mode_masses(gradient_flow(model.spectrum, start, np.array([time])))[0]
    np.testing.assert_allclose(masses[:k], model.spectrum[:k], atol=0.02)


def test_a_cut_through_an_eigenvalue_never_settles():
    assert domains.settling_time(PUBLISHED[1][0], 3, 0.1) == np.inf
    assert domains.settling_time(BlockModel(2, 2, 0.1, 0.8, 0.8, 0.1), 4, 0.1) < 20, "negative ones count as zero"


# -- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_answers_are_those_of_least_squares_in_every_basis(ridge):
    """100 random models, each in 3 random bases; where theory gives a number, all bases do, and it is the same."""
    rng, answered, silent = np.random.default_rng(4), 0, 0
    for _ in range(100):
        model = random_model(rng)
        k = int(rng.integers(1, model.classes * model.domains + 1))
        expected = (
            domains.head_gain(model, k, ridge),
            domains.target_accuracy(model, k),
            domains.source_accuracy(model, k, fits=ridge == 0.0),
            domains.domain_accuracy(model, k),
        )
        for _ in range(3):
            found = by_least_squares(model, features(model, k, rng), ridge)
            for answer, value in zip(expected, found, strict=True):
                if answer.value is None:
                    silent += 1
                    assert answer.reason
                else:
                    answered += 1
                    assert value == pytest.approx(answer.value, abs=1e-8), (model, k)
    assert answered > 750 and silent > 25


@pytest.mark.parametrize(
    ("model", "k", "gain"),
    [
        (PUBLISHED[0][0], 4, 1 / 9),
        (PUBLISHED[1][0], 10, 0.145455),
        (PUBLISHED[2][0], 12, 0.0615385),
        (PUBLISHED[3][0], 10, -0.145455),
        (PUBLISHED[4][0], 3, -1.0),
        (PUBLISHED[0][0], 3, 1.0),
    ],
)
def test_published_gains(model, k, gain):
    assert domains.head_gain(model, k).value == pytest.approx(gain, abs=1e-6)
    assert domains.target_accuracy(model, k).value == (1.0 if gain > 0 else 0.0)
    assert domains.source_accuracy(model, k).value == 1.0


def test_a_cut_through_the_class_group_leaves_the_target_wrong_in_every_basis():
    """200 random bases of the one class direction kept: the gain of a single contrast varies, the verdict does not."""
    model, rng, gains = PUBLISHED[3][0], np.random.default_rng(5), []
    assert domains.target_accuracy(model, 6).value == 0.0
    for _ in range(200):
        f = features(model, 6, rng)
        gain, target, source, _ = by_least_squares(model, f)
        assert target == 0.0 and source == 1.0
        assert gain == pytest.approx(domains.head_gain(model, 6).value, abs=1e-9), "the mean over contrasts"
        label, domain = np.arange(10) // 2, np.arange(10) % 2
        one = (label == 0).astype(float) - (label == 1)
        w = np.linalg.lstsq(f[domain == 0], one[domain == 0], rcond=1e-10)[0]
        gains.append(float((f @ w)[domain == 1] @ one[domain == 1]) / 2.0)
    assert np.ptp(gains) > 0.1 and max(gains) < 0.0


def test_ties_are_undefined_and_say_so():
    tied = BlockModel(2, 2, 0.8, 0.05, 0.08, 0.05)
    for answer in (domains.head_gain(tied, 3), domains.target_accuracy(tied, 3), domains.source_accuracy(tied, 3)):
        assert (
            answer.value is None and answer.reason.startswith("undefined") and "class and interaction" in answer.reason
        )
    assert domains.domain_accuracy(tied, 3).value == 1.0
    assert domains.head_gain(tied, 4).value == pytest.approx(0.0, abs=1e-12)
    assert domains.target_accuracy(tied, 4).value == 0.5, "no margin at all: chance"


# -- geometry --------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_the_features():
    rng, seen = np.random.default_rng(6), 0
    for _ in range(200):
        model = random_model(rng)
        r, m = model.classes, model.domains
        k = int(rng.integers(1, r * m + 1))
        apart, reason = domains.squared_distances(model, k)
        if apart is None:
            assert reason
            continue
        seen += 1
        f = features(model, k, rng).reshape(r, m, k)
        square = [np.sum((f[0, 0] - other) ** 2) for other in (f[0, 1], f[1, 0], f[1, 1])]
        np.testing.assert_allclose(square, apart, atol=1e-9)
    assert seen > 40


def test_published_distances():
    four, ten = (domains.squared_distances(model, k)[0] for model, k in ((PUBLISHED[0][0], 3), (PUBLISHED[1][0], 6)))
    assert four.domains == pytest.approx(3.04, abs=1e-10) and four.classes == pytest.approx(3.20, abs=1e-10)
    assert ten.domains == pytest.approx(2.530612, abs=1e-6) and ten.classes == pytest.approx(6.428571, abs=1e-6)


def test_constant_counts_as_the_first_group():
    assert GROUPS[0] == CONSTANT and domains.kept(PUBLISHED[0][0], 1).counts[CONSTANT] == 1
