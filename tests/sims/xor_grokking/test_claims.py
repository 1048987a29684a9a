"""Every claim gives the verdict that its preset expects, and can give another one."""

from functools import cache

import pytest

from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import entries
from sims.xor_grokking.lab import LAB

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = entries(LAB)


@cache
def run_of(params):
    """A run that several claims are judged on."""
    return execute(LAB, params)


def verdict(claim_id, *params):
    return judge(CLAIMS[claim_id], [run_of(one) for one in params]).verdict


def test_expectations_name_claims_about_the_preset():
    for preset in LAB.presets:
        about = {claim.id for params in LAB.runs(preset).values() for claim in LAB.claims if claim.about(params)}
        assert set(preset.expect) <= about, preset.id


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in ENTRIES} == set(CLAIMS)
    failing = {entry.preset.id for entry in ENTRIES if entry.expected == "fails"}
    assert {"slow_grok", "bad_luck", "too_quiet", "lazy_init", "classical"} <= failing


@pytest.mark.parametrize("preset", LAB.presets, ids=lambda preset: preset.id)
def test_claims_on_the_run_at_hand(preset):
    params = LAB.focus(preset)
    run = run_of(params)
    for claim in LAB.claims:
        if claim.about(params) and claim.over is None:
            assert judge(claim, [run]).verdict == preset.expect.get(claim.id, "holds"), claim.id


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.claim.over], ids=lambda e: f"{e.preset.id}-{e.claim.id}")
def test_claims_over_many_runs(entry):
    assert verdict(entry.claim.id, *entry.runs) == entry.expected


def test_studies_can_be_made_from_any_run():
    """Whatever run is at hand, the runs that a claim about it is judged on are valid."""
    make = LAB.params.make
    odd = [
        make(n_train=9, label_sampler="iid", width=3, output_signs="iid", dim=12, data_mode="direct"),
        make(n_train=1000, dim=1002, width=4000, signal=0.0),
        make(n_train=8, dim=10, steps=1, n_test=4, init_ratio=100.0, signal=100.0, first_replicate=10**9),
        make(dim=10**15, signal=100.0, label_flip_prob=0.45, label_sampler="iid", replicates=1),
        make(n_train=204, dim=205, data_mode="direct"),
    ]
    for params in odd:
        for claim in LAB.claims:
            claim.assumes(params)
            if claim.about(params) and claim.over:
                assert all(run.replicates > 1 for run in claim.over(params))


def test_claims_fail_where_they_should():
    """The same judges on runs that break what they say."""
    make = LAB.params.make
    unfitted = make(n_train=100, dim=200, width=20, steps=20, n_test=40, signal=4.0)
    assert CLAIMS["memorises_in_one_step"].assumes(unfitted)
    found = CLAIMS["memorises_in_one_step"].judge([execute(LAB, unfitted)])
    assert found.predicted - found.measured > 0.05
    lively = make(n_train=100, signal=2.0, n_test=400, steps=50, replicates=16)
    assert verdict("lazy_stays_at_half", lively) == "fails"
    weak = [make(n_train=100, signal=8.0, dim=10**10, n_test=40, steps=steps) for steps in (2, 200)]
    assert verdict("alignment_plateau", weak[0], weak[1]) == "fails", "two steps are not late"
    iid = make(label_sampler="iid", n_train=48, signal=0.5, dim=10**9, n_test=200, replicates=40, steps=50)
    assert verdict("counting_rule", iid) == "fails", "a weak signal does not follow the counts"
