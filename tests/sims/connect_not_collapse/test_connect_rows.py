"""What must be seen, setting by setting, and the verdicts that the presets expect."""

import dataclasses
import math
import random
from functools import cache

import numpy as np
import pytest

from sims.connect_not_collapse import experiment, kernels
from sims.connect_not_collapse.lab import LAB
from sims.engine import BadInput, execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, entries
from tests.claims import assert_they_answer
from tests.test_contracts import draw_params

make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))
CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = list({(entry.claim.id, entry.runs): entry for entry in entries(LAB)}.values())
EIGEN = {"training": "eigen", "steps": 1, "replicates": 1}
WEIGHTS = ("within", "across_domains", "across_classes", "across_both")
LINKS = {"graph": "random", "classes": 5, "nodes_per_block": 100, "within": 0.5, "across_classes": 0.15,
         "across_both": 0.05, "n_features": 6, "training": "eigen", "steps": 1, "replicates": 5}  # fmt: skip


def four(*weights, **changes):
    run = run_of(make(EIGEN, **dict(zip(WEIGHTS, weights, strict=True)), **changes))
    return run, {name: metric.mean for name, metric in run.metrics.items()}


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"across_both": -0.1}, ["across_both = -0.1", "from 0 to 1"]),
        ({"within": 0.1}, ["within = 0.1", "must exceed across_domains and across_classes", "above 0.1"]),
        ({"across_classes": 0.9}, ["within = 0.8", "0.9"]),
        ({"n_features": 5}, ["n_features = 5", "4 nodes", "to 4 or less"]),
        ({"graph": "random", "nodes_per_block": 1000, "classes": 3}, ["6000 nodes", "to 666 or less"]),
        ({"method": "alignment", "within": 0.5}, ["within = 0.5", "only when method is contrastive"]),
        ({"method": "alignment", "widths": ()}, ["widths", "from 1 to 8"]),
        ({"separation": 2.0}, ["separation = 2", "only when method is alignment"]),
    ],
)
def test_bad_input_is_refused_with_a_way_out(changes, words):
    with pytest.raises(BadInput) as refusal:
        make(changes)
    for word in words:
        assert word in str(refusal.value)


def test_of_any_params_the_theory_says_a_number_or_why_there_is_none():
    rng = random.Random(17)
    for params in [draw_params(LAB, rng) for _ in range(300)]:
        found = LAB.predict(params)
        for name, value in found.prediction.items():
            assert value is not None or found.about[name].reason, (name, params.changed())
            assert value is None or np.all(np.isfinite(value)), (name, params.changed())
            assert found.claimed(name).dtype == bool


@pytest.mark.parametrize("weights", [(0.8, 0.1, 0.05, 0.05), (0.8, 0.05, 0.05, 0.1), (0.8, 0.05, 0.1, 0.05)])
def test_two_equal_smallest_weights_are_undefined(weights):
    run, end = four(*weights, n_features=3)
    undefined = [name for name in ("gain", "domain_accuracy") if end[name] is None]
    assert undefined
    for name in undefined:
        assert run.prediction.prediction[name] is None and "undefined" in run.prediction.about[name].reason


# -- rows ------------------------------------------------------------------------------------------------------------


def test_gamma_smallest_is_the_perfect_picture():
    run, end = four(0.8, 0.1, 0.08, 0.02)
    np.testing.assert_allclose(run.trace.finals["eigenvalues"][0], [1.0, 0.8, 0.76, 0.64], atol=1e-10)
    assert end["gain"] == pytest.approx(1.0, abs=1e-10) and end["target_accuracy"] == 1.0
    assert (end["domain_distance"], end["class_distance"]) == pytest.approx((3.04, 3.20), abs=1e-10)
    assert four(0.8, 0.1, 0.08, 0.02, n_features=4)[1]["gain"] == pytest.approx(1 / 9, abs=1e-10)


@pytest.mark.parametrize(
    ("weights", "gain", "target", "domain"),
    [
        ((0.8, 0.1, 0.02, 0.05), 0.05 / 0.78, 1.0, 0.5),
        ((0.8, 0.02, 0.08, 0.1), -1.0, 0.0, 1.0),
        ((0.8, 0.06, 0.02, 0.1), -0.04 / 0.78, 0.0, 0.5),
    ],
)
def test_beta_and_alpha_smallest(weights, gain, target, domain):
    _, end = four(*weights)
    assert end["gain"] == pytest.approx(gain, abs=1e-9) and end["source_accuracy"] == 1.0
    assert (end["target_accuracy"], end["domain_accuracy"]) == (target, domain)


def test_eigenvalues_of_the_published_rows():
    lam = four(0.8, 0.1, 0.02, 0.05)[1]
    for name, value in (("class", 0.855670), ("domain", 0.690722), ("interaction", 0.752577)):
        assert lam[f"lam_{name}"] == pytest.approx(value, abs=1e-6)
    lam = four(0.8, 0.02, 0.08, 0.1)[1]
    assert [lam[f"lam_{name}"] for name in ("class", "domain", "interaction")] == pytest.approx([0.64, 0.76, 0.8])


@pytest.mark.slow
def test_sampled_links():
    """Seed 0, 5 draws: 0, 1, 1 within 0.02; at the transition 0.15 (s.e. 0.06) within 3 joint errors, source 0.92."""
    for weight, target in ((0.03, 0.0), (0.05, None), (0.07, 1.0), (0.09, 1.0)):
        run = run_of(make(LINKS, across_domains=weight))
        accuracy, means = run.values["target_accuracy"], run.metrics
        if target is None:
            error = np.std(accuracy, ddof=1) / math.sqrt(5)
            assert abs(np.mean(accuracy) - 0.15) < 3 * math.hypot(0.06, error)
            assert means["source_accuracy"].mean == pytest.approx(0.92, abs=0.06)
        else:
            assert np.mean(accuracy) == pytest.approx(target, abs=0.02)
            assert means["source_accuracy"].mean == pytest.approx(1.0, abs=0.02)
        assert means["domain_accuracy"].mean == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(("r", "published"), [(2, 0.41), (3, 0.28), (5, 0.212)])
def test_alignment_is_a_random_matching(r, published):
    """Seed 0, 100 runs: 1/r within 3 standard errors of 1/(10 r), and within 3 joint ones of the published means."""
    run = run_of(make(method="alignment", classes=r, replicates=100))
    accuracy = run.values["target_accuracy"].mean()
    assert abs(accuracy - 1 / r) < 3 / (10 * r) and abs(accuracy - published) < 3 * math.sqrt(2) / (10 * r)
    assert np.all(run.values["matched"] == 1.0) and np.median(run.values["residual"]) < 1e-6


# -- the kernel ------------------------------------------------------------------------------------------------------


def test_alignment_descends_the_discrepancy_step_by_step():
    params = make(method="alignment", classes=3, steps=30, replicates=1)
    S, T = experiment.source_features(params), experiment.start_of(params, 0)

    def loss(T, width):
        def mean(x, y):
            return np.mean(np.exp(-np.sum((x[:, None] - y[None]) ** 2, axis=2) / (2 * width**2)))

        return mean(S, S) + mean(T, T) - 2 * mean(S, T)

    moved = T.copy()
    cancel, progress = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    kernels.align(S, np.array(params.widths), 0.5, 30, moved, 0, 30, cancel, progress)
    for step in range(30):
        width, gradient = params.widths[step // 10], np.empty_like(T)
        for index in np.ndindex(T.shape):
            up, down = T.copy(), T.copy()
            up[index] += 1e-5
            down[index] -= 1e-5
            gradient[index] = (loss(up, width) - loss(down, width)) / 2e-5
        T = T - 0.5 * 3 * width**2 * gradient
    np.testing.assert_allclose(moved, T, atol=1e-6)
    assert kernels.discrepancy(S, T, 1.0) == pytest.approx(loss(T, 1.0), abs=1e-12)


def test_what_is_measured_of_aligned_features():
    S, row = 3.0 * np.eye(3), np.empty(6)
    kernels.measure(S, S[[1, 0, 2]] + 1e-9, 1.0, 1e-3, row)
    np.testing.assert_allclose(row, [0.0, 1 / 3, 1.0, 0.5, math.sqrt(3) * 1e-9, 1.0], atol=1e-12)
    kernels.measure(S, S[[0, 0, 2]] - 5.0, 1.0, 1e-3, row)
    assert row[5] == 0.0 and row[3] > 0.5


# -- claims ----------------------------------------------------------------------------------------------------------


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}"


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS)) for e in ENTRIES]
)
def test_claims_of_the_presets(entry):
    broken = next(filter(None, map(entry.claim.assumes, entry.runs)), None)
    if broken:
        assert entry.expected == "outside"
    else:
        assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in ENTRIES} == set(CLAIMS)
    assert {e.claim.id for e in ENTRIES if e.expected == "fails"} == {"told_domains_transfer", "alike_is_enough"}


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 3},
        {"across_domains": 0.02, "training": "eigen"},
        {"within": 0.1, "across_domains": 0.0, "across_classes": 0.0, "across_both": 1.0, "training": "eigen"},
        {"within": 1.0, "across_domains": 0.0, "across_classes": 0.0, "across_both": 0.0, "n_features": 4, "steps": 9},
        {"across_domains": 0.08, "across_both": 0.08, "training": "eigen"},
        {"classes": 10, "training": "eigen", "n_features": 20},
        {"n_features": 1, "training": "eigen"},
        {**LINKS, "nodes_per_block": 2},
        {"graph": "random", "nodes_per_block": 1, "n_features": 4, "steps": 5},
        {"learning_rate": 4000.0, "steps": 50},
        {"method": "alignment", "classes": 10, "steps": 4, "widths": (0.05,) * 8},
        {"method": "alignment", "separation": 100.0, "start_spread": 0.01, "step_scale": 10.0, "steps": 40},
    ],
)
def test_claims_answer_for_any_params(changes):
    """No claim raises for a run that can be made, and the runs that it is judged on are valid and more than one."""
    assert_they_answer(LAB, run_of(make({**changes, "replicates": 2}, seed=7)), ("holds", "fails", "undecided"))


def as_if(run, **changes):
    """The trace of one graph under the params of another."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


@pytest.mark.parametrize(
    ("claim_id", "other"),
    [
        ("eigenvalues", {"across_both": 0.021}),
        ("smallest_is_dropped", {"across_domains": 0.01}),
        ("rule", {"across_domains": 0.01}),
        ("verdicts", {"across_classes": 0.01}),
        ("distances", {"within": 0.81}),
        ("full_gain", {}),
    ],
)
def test_another_graph_is_told_apart(claim_id, other):
    run = run_of(make(EIGEN))
    claim = dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None)
    assert judge(claim, [run]).verdict == ("holds" if other else "fails")
    assert judge(claim, [as_if(run, **other)]).verdict == "fails"


def test_alignment_cut_short_is_told_apart():
    short = run_of(make(method="alignment", classes=3, steps=30, replicates=100))
    for claim_id in ("always_a_matching", "aligned_exactly"):
        assert judge(CLAIMS[claim_id], [short]).verdict == "fails"
    right = run_of(make({**EIGEN, "replicates": 100}))
    assert judge(CLAIMS["alike_is_enough"], [right]).verdict == "holds"
    assert judge(CLAIMS["alignment_is_a_guess"], [right]).verdict == "fails"
