"""Every claim gives the verdict that its preset expects, and can give another one."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest

from sims.augmentation_graph.lab import LAB
from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, claim_runs, entries
from tests.claims import assert_they_answer

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = entries(LAB)
OVER = [entry for entry in ENTRIES if entry.claim.over]
OWN = [entry for entry in ENTRIES if not entry.claim.over]
make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))


def verdict(claim_id, *runs):
    """As the judge alone sees it, whatever the claim assumes."""
    return judge(dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None), runs).verdict


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}-{entry.runs[0].n_features}"


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_expectations_name_claims_about_the_preset():
    for preset in LAB.presets:
        about = {claim.id for params in LAB.runs(preset).values() for claim in LAB.claims if claim.about(params)}
        assert set(preset.expect) <= about, preset.id


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in ENTRIES} == set(CLAIMS) and len(CLAIMS) == len(LAB.claims)
    failing = {(entry.preset.id, entry.claim.id) for entry in ENTRIES if entry.expected == "fails"}
    assert {claim_id for _, claim_id in failing} == {"argmax_cliff", "cliff_anyway"}
    assert {preset for preset, claim_id in failing if claim_id == "cliff_anyway"} == {"wrong_order", "leaky"}


def speed(entries):
    return [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS)) for e in entries]


@pytest.mark.parametrize("entry", speed(OWN))
def test_claims_on_the_run_at_hand(entry):
    assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


@pytest.mark.parametrize("entry", speed({(e.claim.id, e.runs): e for e in OVER}.values()))
def test_claims_over_runs_of_their_own(entry):
    assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 3},
        {"classes": 2, "subclusters": 1, "leak_within": 0.0, "leak": 0.5, "n_features": 1, "training": "eigen"},
        {"classes": 50, "subclusters": 2, "nodes_per_block": 1, "n_features": 64, "training": "eigen"},
        {"classes": 3, "subclusters": 2, "leak_within": 0.0, "leak": 0.0, "n_features": 3, "training": "eigen"},
        {"leak": 0.75, "leak_within": 0.25, "n_features": 7, "training": "eigen"},
        {"leak": 0.9, "leak_within": 0.1, "training": "gradient_flow", "steps": 5},
        {"learning_rate": 4000.0, "steps": 50},
        {"training": "gradient_flow", "integrator": "euler", "learning_rate": 400.0, "steps": 50},
        {"training": "gradient_flow", "start": "planted", "init_scale": 2.0, "steps": 10},
        {"graph": "ring", "ring_nodes": 4, "arcs": 2, "window": 1, "n_features": 3, "training": "eigen"},
        {"graph": "ring", "ring_nodes": 62, "arcs": 31, "window": 0, "n_features": 64 - 2, "training": "eigen"},
        {"graph": "ring", "ring_nodes": 20_000, "window": 10, "arcs": 10, "training": "eigen", "n_features": 9},
        {"graph": "hypercube", "cube_dim": 1, "flip_probs": (0.5,), "n_features": 2, "training": "eigen"},
        {"graph": "hypercube", "cube_dim": 6, "flip_probs": (0.0, 1.0), "n_features": 4, "training": "eigen"},
        {"graph": "hypercube", "cube_label": "majority", "label_bits": (0, 3, 7), "n_features": 2, "steps": 5},
        {"graph": "gaussian", "separation": 3.0, "signal_std": 1.0, "n_features": 2, "training": "eigen"},
        {"graph": "gaussian", "signal_std": 0.3, "noise_std": 3.0, "n_features": 8, "training": "eigen"},
        {"graph": "glyphs", "rotations": 1, "shifts": 1, "colours": 1, "colour_swap": 0.0, "steps": 5},
        {"graph": "glyphs", "glyph_set": "two_symmetric", "glyph_label": "colour", "training": "eigen"},
        {"graph": "hypercube", "training": "network", "steps": 2, "learning_rate": 1e-3, "width": 4},
    ],
)
def test_claims_answer_for_any_params(changes):
    """No claim raises for a run that can be made, and the runs that it is judged on are valid and more than one."""
    assert_they_answer(LAB, run_of(make(changes, replicates=2, seed=7)), ("holds", "fails", "outside"))


# -- each can fail ---------------------------------------------------------------------------------------------------


def eigen(**changes):
    return run_of(make(training="eigen", replicates=2, **changes))


def as_if(run, **changes):
    """The trace of one graph under the params of another."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


def with_finals(run, **changes):
    trace = dataclasses.replace(run.trace, finals={**run.trace.finals, **changes})
    return dataclasses.replace(run, trace=trace)


def with_series(run, name, values):
    trace = dataclasses.replace(run.trace, series={**run.trace.series, name: values})
    return dataclasses.replace(run, trace=trace)


@pytest.mark.parametrize("claim_id", ["spectrum", "crossings", "least_loss", "probe_staircase"])
@pytest.mark.parametrize(
    ("graph", "other"),
    [
        ({"leak": 0.04, "n_features": 3}, {"leak": 0.03}),
        ({"graph": "ring", "n_features": 9}, {"window": 5, "arcs": 5}),
        ({"graph": "hypercube", "n_features": 3}, {"flip_probs": (0.03, 0.05, 0.02, 0.1, 0.2)}),
        ({"graph": "glyphs", "n_features": 9}, {"glyph_swap": 0.02, "glyph_label": "colour", "colour_swap": 0.01}),
        ({"graph": "gaussian", "n_features": 9}, {"noise_std": 0.9}),
    ],
)
def test_another_graph_is_told_apart(claim_id, graph, other):
    if claim_id == "probe_staircase" and graph.get("graph") in (None, "gaussian"):
        other = {"leak": 0.6} if "leak" in graph else None  # the staircase is the same until the order changes
    if other is None or not CLAIMS[claim_id].about(make(graph, training="eigen")):
        return
    run = eigen(**graph)
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, **other)) == "fails"


def test_a_wrong_probe_on_a_grid_is_told_apart():
    run = eigen(graph="gaussian", n_features=3)
    assert verdict("probe_staircase", run) == "holds"
    assert (
        verdict("probe_staircase", with_finals(run, probe_mse_by_k=run.trace.finals["probe_mse_by_k"] + 2e-3))
        == "fails"
    )


@pytest.mark.parametrize(
    ("name", "factor"), [("phi", 0.9), ("probe_error_by_k", 8.0), ("probe_mse_by_k", 1.01), ("probe_mse_by_k", 0.1)]
)
def test_a_broken_bound_is_noticed(name, factor):
    """Error of the leading eigenvector 0.75 = its bound; one half of it for three features of four classes."""
    run = eigen(n_features=3)
    assert verdict("bounds", run) == "holds"
    assert verdict("bounds", with_finals(run, **{name: factor * run.trace.finals[name]})) == "fails"


def test_a_broken_bound_on_votes_is_noticed():
    run = eigen(n_features=4)
    assert verdict("bounds", with_finals(run, vote_error=np.array([0.0, 0.09]))) == "fails"


def test_a_cut_too_dear_or_a_loss_too_small_is_noticed():
    run = eigen(n_features=3)
    assert verdict("cheap_cut", with_finals(run, phi=run.trace.finals["phi"] / 2)) == "fails"
    trained = run_of(make(steps=50, replicates=2))
    assert verdict("never_below", trained) == "holds"
    assert verdict("never_below", with_series(trained, "loss", trained.trace.series["loss"] - 5.0)) == "fails"


def test_orders_of_eigenvalues_are_told_apart():
    first, wrong = {"nodes_per_block": 2}, {"leak_within": 0.005, "leak": 0.1, "nodes_per_block": 2}
    assert verdict("cliff", *(eigen(n_features=k, **wrong) for k in (3, 4))) == "fails"
    assert verdict("cliff_anyway", eigen(n_features=4, **first)) == "holds"
    assert verdict("wasted_features", *(eigen(n_features=k, **first) for k in (9, 10))) == "fails"
    assert verdict("jump", *(eigen(n_features=4, leak=a2) for a2 in (0.30, 0.31))) == "fails"
    assert verdict("empty_bound", *(eigen(n_features=4, leak=a2) for a2 in (0.082, 0.083, 0.133, 0.1342))) == "fails"
    colours = {"graph": "glyphs", "glyph_label": "colour", "n_features": 3}
    assert verdict("colour_or_identity", *(eigen(colour_swap=swap, **colours) for swap in (0.05, 0.06))) == "fails"
    assert verdict("flat_at_multiples", *(eigen(n_features=k, graph="ring") for k in (9, 11))) == "fails"


def test_the_argmax_is_told_apart_from_that_of_other_directions():
    late = make(classes=10, subclusters=2, nodes_per_block=2, leak_within=0.0, leak=0.2, n_features=10)
    run = run_of(late.replace(training="eigen", replicates=40))
    assert verdict("argmax_is_early", run) == "fails", "features are spent on sub-clusters"
    straight = with_finals(run, probe_error_by_k=np.tile(1.0 - np.arange(1, 11) / 10.0, (40, 1)))
    assert verdict("argmax_cliff", straight) == "holds" and verdict("argmax_is_early", straight) == "fails"


def flow(**changes):
    common = {"training": "gradient_flow", "nodes_per_block": 5, "replicates": 2, "init_scale": 1e-3}
    return run_of(make(common | changes))


def test_steps_too_coarse_leave_the_closed_form():
    coarse = flow(learning_rate=9.0, steps=40)
    assert CLAIMS["flow_in_closed_form"].assumes(coarse.params)
    assert judge(CLAIMS["flow_in_closed_form"], [coarse]).verdict == "outside"
    assert verdict("flow_in_closed_form", coarse) == "fails" and verdict("power_iteration", coarse) == "fails"
    euler = flow(learning_rate=0.6, steps=600, integrator="euler")
    assert verdict("euler_angle", euler) == "fails"
    fine = flow(learning_rate=0.3, steps=1200)
    assert verdict("angle_bound", fine) == "holds"
    slow = fine.trace.series["subspace_tan"] ** 0.5
    assert verdict("angle_bound", with_series(fine, "subspace_tan", slow)) == "fails"
    planted = {"start": "planted", "n_features": 4, "integrator": "euler"}
    assert verdict("half_times", flow(learning_rate=3.0, steps=120, **planted)) == "fails"
    assert verdict("half_times", flow(learning_rate=0.06, steps=3000, **planted)) == "holds"


def test_another_rate_is_told_apart():
    run = flow(learning_rate=0.3, steps=1200, replicates=8)
    assert verdict("angle_rate", with_finals(run, gap=1.1 * run.trace.finals["gap"])) == "fails"


def test_noise_floors_of_equal_rates_are_equal():
    run = run_of(make(nodes_per_block=5, steps=4000, replicates=4))
    for claim_id in ("noise_floor_angle", "noise_floor_loss"):
        assert verdict(claim_id, run, run) == "fails"
        alone = dataclasses.replace(run, derived={name: values[:1] for name, values in run.derived.items()})
        assert verdict(claim_id, alone, alone) == "undecided"


def test_a_network_that_has_not_learned_is_told_apart():
    (params,) = claim_runs(CLAIMS["network_loss"], LAB.focus(LAB.preset("network")))
    run = run_of(params.replace(steps=20, width=16, batch=32, replicates=4))
    found = {claim_id: judge(CLAIMS[claim_id], [run]) for claim_id in ("network_loss", "network_span", "network_sizes")}
    for one in found.values():
        assert one.verdict in ("fails", "undecided") and abs(one.measured - one.predicted) > 10 * one.tolerance
    assert math.isfinite(found["network_loss"].measured)
