"""Every claim gives the verdict that its preset expects, and can give another one."""

from functools import cache

import pytest

from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import claim_runs, entries
from sims.linear_attention.lab import LAB

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = entries(LAB)
SLOW = ("wrong_turn", "nonlinear_teachers", "more_layers", "too_few_prompts", "other_covariates", "tasks_with_a_mean")
make = LAB.params.make


@cache
def run_of(params):
    """A run that several claims are judged on."""
    return execute(LAB, params)


def verdict(claim_id, *params):
    """The claim's verdict on these runs as they are, whatever its assumptions."""
    found = CLAIMS[claim_id].judge([execute(LAB, one) for one in params])
    if not abs(found.measured - found.predicted) <= found.tolerance:
        return "fails"
    return "holds" if found.error is not None and found.error <= found.tolerance / 2 else "undecided"


def preset(name):
    (found,) = [one for one in LAB.presets if one.id == name]
    return found


def judged(name):
    """Every claim that is judged on the runs of a preset alone, with its verdict and what the preset expects."""
    for params in LAB.runs(preset(name)).values():
        run = run_of(params)
        for claim in LAB.claims:
            if claim.about(params) and claim.over is None:
                yield claim.id, judge(claim, [run]).verdict, preset(name).expect.get(claim.id, "holds")


def test_expectations_name_claims_about_the_preset():
    for one in LAB.presets:
        about = {claim.id for params in LAB.runs(one).values() for claim in LAB.claims if claim.about(params)}
        assert set(one.expect) <= about, one.id


def test_every_claim_is_judged_and_those_false_on_purpose_fail():
    assert {entry.claim.id for entry in ENTRIES} == set(CLAIMS)
    failing = {(entry.preset.id, entry.claim.id) for entry in ENTRIES if entry.expected == "fails"}
    assert failing == {
        ("wrong_turn", "wins_from_any_start"),
        ("longer_prompts", "as_good_as_retrained"),
        ("other_covariates", "gaussian_step_anyway"),
        ("tasks_with_a_mean", "zero_is_a_good_start"),
        ("over_the_edge", "lands_at_any_rate"),
    }
    on_purpose = {claim.id for claim in LAB.claims if claim.source.startswith("false on purpose")}
    assert on_purpose == {claim_id for _, claim_id in failing}


@pytest.mark.parametrize("name", [one.id for one in LAB.presets if one.id not in SLOW])
def test_claims_on_the_runs_at_hand(name):
    for claim_id, found, expected in judged(name):
        assert found == expected, claim_id


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_claims_on_the_runs_at_hand_of_slow_presets(name):
    for claim_id, found, expected in judged(name):
        assert found == expected, claim_id


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.claim.over], ids=lambda e: f"{e.preset.id}-{e.claim.id}")
def test_claims_over_many_runs(entry):
    assert judge(entry.claim, [run_of(params) for params in entry.runs]).verdict == entry.expected


def test_studies_can_be_made_from_any_run():
    """Whatever run is at hand, claims can be asked about it, and the runs they are judged on are valid."""
    odd = [
        make(dim=1, context_length=1, noise_var=0.0),
        make(dim=64, context_length=2000, noise_var=100.0, covariate_spectrum="power_law", replicates=1),
        make(model="literal", init_scale=0.3, attention="mean", test_prompts="shifted"),
        make(training="sgd", covariates="student_t", degrees_of_freedom=5.0, prior_mean=3.0, skip=True),
        make(training="adam", teacher="network", teacher_width=2, steps=1),
        make(training="adam", model="reduced", layers=4, task_var=2.0, first_replicate=10**6),
        make(training="finite_prompts", dim=1, n_prompts=1),
        make(model="separate_key_query", init="balanced", covariate_spectrum="power_law", learning_rate=10.0),
        make(model="reduced", init="balanced", learning_rate=0.0115, dim=5, replicates=1),
    ]
    for params in odd:
        for claim in LAB.claims:
            if claim.about(params):
                runs = claim_runs(claim, params)
                assert all(isinstance(broken, str | None) for broken in map(claim.assumes, runs))


def test_claims_fail_where_they_should():
    """The same judges on runs that break what they say."""
    few = {"n_test": 1000, "replicates": 4}
    short = make(steps=500, **few)
    assert "long" in CLAIMS["lands_on_the_optimum"].assumes(short)
    assert verdict("lands_on_the_optimum", short) == "fails"
    assert verdict("learns_the_preconditioner", short) == "fails"
    large = make(init_scale=0.3, harmful_init=3.0, learning_rate=1e-5, steps=20, **few)
    assert verdict("even_part_dies", large) == "fails"
    assert CLAIMS["half_time"].assumes(large) and CLAIMS["even_part_dies"].assumes(large)
    uneven = make(training="adam", model="reduced", covariates="rademacher", steps=1, batch=1, n_test=20_000)
    assert verdict("test_agrees", uneven) == "fails", "nothing is trained in one step"
    assert verdict("gaussian_step_anyway", uneven) == "fails"


def test_clocks_fail_in_large_steps():
    coarse = make(model="reduced", init="balanced", init_scale=0.0067, learning_rate=2e-3, steps=40, replicates=1)
    assert verdict("logistic_clock", coarse) == "fails"
    spread = {"covariate_spectrum": "custom", "init": "balanced", "replicates": 1, "n_test": 100}
    merged = make(**spread, model="reduced", learning_rate=5e-4, steps=4000)
    assert verdict("mode_half_times", merged) == "fails"
    assert verdict("inverts_the_spectrum", merged.replace(steps=1000)) == "fails"
    early = make(**spread, model="separate_key_query", init_scale=0.2, learning_rate=1e-4, steps=80_000)
    assert verdict("stairs", early) == "fails", "a large start has no plateaus"


def test_the_layer_cannot_be_called_optimal_by_its_own_loss():
    """The claim that nothing lies below the optimum compares with the theory, so a wrong theory shows."""
    from dataclasses import replace

    run = execute(LAB, make(steps=3000, n_test=100, replicates=2))
    claim = CLAIMS["never_below_the_optimum"]
    assert judge(claim, [run]).verdict == "holds"
    higher = {**run.prediction.prediction, "optimal_loss": 1.001 * run.prediction.prediction["optimal_loss"]}
    wrong = replace(run, prediction=replace(run.prediction, prediction=higher))
    assert judge(claim, [wrong]).verdict == "fails"


def test_a_claim_whose_other_runs_are_not_possible_is_outside():
    """At a learning rate of 1e-9 the race of the two paths would take 12,000,000,000 steps."""
    base = LAB.focus(LAB.preset("wrong_turn"))
    found = execute(LAB, base.replace(steps=10, replicates=1, n_test=100, learning_rate=1e-9))
    refused = [one for one in found.claims if "not possible here" in one.reason]
    assert refused and {one.verdict for one in refused} == {"outside"}
    assert all("steps = " in one.reason for one in refused)
