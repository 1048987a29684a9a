"""The lab's parameters and limits, the spread of labels, and what is undefined."""

import math

import numpy as np
import pytest

from sims.engine import BadInput, budget, execute
from sims.graphs import domain_runs, domains
from sims.linear_transfer import experiment
from sims.linear_transfer.lab import LAB, STREAMS

make = LAB.params.make
EIGEN = {"training": "eigen", "steps": 1, "replicates": 1}
FIVE = {"classes": 5, "within": 0.6, "across_domains": 0.1, "across_classes": 0.05, "across_both": 0.02}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"within": -0.1}, ["within = -0.1", "from 0 to 1"]),
        ({"across_both": 1.1}, ["across_both = 1.1", "from 0 to 1"]),
        (
            {"within": 0.0, "across_domains": 0.0, "across_classes": 0.0, "across_both": 0.0},
            ["within = 0", "some positive pair", "above 0"],
        ),
        ({"graph": "random", "classes": 5, "nodes_per_block": 401}, ["nodes_per_block = 401", "4010 nodes", "to 400"]),
        ({"n_features": 5}, ["n_features = 5", "4 nodes", "to 4 or less"]),
        ({"nodes_per_block": 10}, ["nodes_per_block = 10", "only when graph is random"]),
        ({"ridge": 0.1, "head": "averaging"}, ["ridge = 0.1", "only when head is least_squares"]),
        ({"walk_steps": 2}, ["walk_steps = 2", "only when head is averaging"]),
        ({"training": "eigen", "batch": 8}, ["batch = 8", "only when training is sgd"]),
        ({"classes": 1}, ["classes = 1", "from 2 to 20"]),
        ({"within": float("nan")}, ["within"]),
    ],
)
def test_bad_input_is_refused_with_a_way_out(changes, words):
    with pytest.raises(BadInput) as refusal:
        make(changes)
    for word in words:
        assert word in str(refusal.value)


def test_the_advice_is_accepted():
    assert make(graph="random", classes=5, nodes_per_block=400).nodes == 4000
    assert make(n_features=4).both == 3 and make(classes=5, domains=3, n_features=7).both == 7


def test_the_graph_has_as_many_nodes_as_the_params_say():
    for changes in ({}, {"classes": 3, "domains": 4}, {"graph": "random", "nodes_per_block": 7}):
        params = make(changes)
        assert domain_runs.case_of(params, 0, STREAMS).graph.nodes == params.nodes


def test_a_long_run_and_a_large_graph_are_announced():
    default, large = (budget.estimate(LAB, make(changes), workers=1) for changes in ({}, {"steps": 10_000_000}))
    assert large.seconds > 300 * default.seconds and default.bytes < 1e8
    small, many = (make(EIGEN, graph="random", nodes_per_block=n) for n in (10, 1000))
    assert budget.estimate(LAB, many).bytes > 50 * budget.estimate(LAB, small).bytes - 1e9


# -- labels that spread ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 4])
def test_labels_spread_as_the_powers_of_the_walk(t):
    params = make(EIGEN, graph="random", classes=3, nodes_per_block=8, head="averaging", walk_steps=t)
    graph = domain_runs.case_of(params, 0, STREAMS).graph
    root = np.sqrt(graph.w)
    P = graph.abar.toarray() * root[None, :] / root[:, None]
    np.testing.assert_allclose(P.sum(axis=1), 1.0, atol=1e-12)
    expected = np.zeros((graph.nodes, 3))
    for c in range(3):
        labelled = (graph.label == c) & (graph.domain == 0)
        expected[:, c] = np.linalg.matrix_power(P, t)[:, labelled] @ (1.0 / graph.w[labelled]) / labelled.sum()
    np.testing.assert_allclose(experiment.spread_labels(graph, t), expected, rtol=1e-11)


def test_averaged_features_of_few_dimensions_are_no_walk():
    few, all_ = (execute(LAB, make(EIGEN, **FIVE, head="averaging", n_features=k)) for k in (6, 10))
    assert few.values["walk_error"][0] > 0.1 and all_.values["walk_error"][0] < 1e-12
    assert few.values["walk_accuracy"][0] == 1.0
    other = execute(LAB, make(EIGEN))
    assert math.isnan(other.values["walk_error"][0]) and other.prediction.about["walk_accuracy"].reason


# -- what is undefined -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", ["eigen", "sgd"])
def test_equal_weights_give_no_number_but_a_reason(training):
    run = execute(LAB, make(across_domains=0.05, across_both=0.05, training=training, steps=20, replicates=2))
    for name in ("target_accuracy", "source_accuracy", "gain"):
        assert np.isnan(run.values[name]).all()
        assert run.prediction.prediction[name] is None
        assert run.prediction.about[name].reason.startswith("undefined: the features kept go through")
    assert np.isnan(run.values["domain_distance"]).all() and np.isfinite(run.values["loss"]).all()
    assert run.prediction.prediction["domain_accuracy"] == 1.0 and np.isfinite(run.values["domain_accuracy"]).all()


def test_equal_weights_do_not_matter_with_all_features():
    run = execute(LAB, make(EIGEN, across_domains=0.05, across_both=0.05, n_features=4))
    assert abs(run.values["gain"][0]) < 1e-12 and run.values["target_accuracy"][0] == 0.5


def test_a_cut_inside_a_group_gives_other_features_in_every_replicate():
    run = execute(LAB, make(EIGEN, **FIVE, n_features=3).replace(replicates=4))
    assert run.prediction.prediction["target_accuracy"] is None
    assert "2 of 4 directions of class" in run.prediction.about["target_accuracy"].reason
    assert len({hash for hash in run.trace.replicate_sha256}) == 4 and run.values["kept_class"] == pytest.approx(0.5)


def test_trained_features_are_claimed_once_they_have_settled():
    run = execute(LAB, make(replicates=1))
    claimed = run.prediction.claimed("target_accuracy")
    assert not claimed[0] and claimed[-1] and "turning" in run.prediction.about["target_accuracy"].reason
    early = execute(LAB, make(steps=30, replicates=1)).prediction
    assert early.claimed("target_accuracy").tolist() == [False] * 30 + [True]


def test_too_large_a_rate_is_a_result():
    run = execute(LAB, make(learning_rate=400.0, steps=50, replicates=1))
    assert run.diverged == 1 and "below a quarter of the number of nodes, 1" in run.trace.stopped[0].reason
    assert math.isnan(run.values["target_accuracy"][0]) and math.isnan(run.values["class_distance"][0])


def test_frames_hold_the_nodes_and_the_border():
    run = execute(LAB, make(steps=30, replicates=2))
    count = len(run.trace.frame_step)
    assert run.trace.frames["nodes"].shape == (count, 4, 3) and run.trace.frames["line"].shape == (count, 4)
    still = execute(LAB, make(EIGEN, graph="random", nodes_per_block=200))
    assert still.trace.frames["nodes"].shape == (1, domain_runs.SHOWN_NODES, 3)


def test_a_lonely_node_is_counted():
    run = execute(LAB, make(EIGEN, graph="random", nodes_per_block=3, within=0.1, across_domains=0.02))
    graph = domain_runs.case_of(run.params, 0, STREAMS).graph
    assert run.values["lonely"][0] == graph.lonely > 0


def test_a_ridge_changes_the_source_but_hardly_the_ratio():
    plain, shrunk = (execute(LAB, make(EIGEN, n_features=4, ridge=ridge)) for ridge in (0.0, 1.0))
    assert shrunk.values["gain"][0] == pytest.approx(plain.values["gain"][0], abs=1e-12)
    f = domains.minimiser(domain_runs.case_of(plain.params, 0, STREAMS).pairs, 4) * 2.0
    graph = domain_runs.case_of(plain.params, 0, STREAMS).graph
    fitted = f @ domains.least_squares(graph, f, 1.0)
    lam = domains.group_values(graph)
    assert fitted[0, 0] == pytest.approx(0.5 * (lam[0] + lam[2]) / (lam[0] + lam[2] + 1.0), abs=1e-12)
