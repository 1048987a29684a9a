"""What the tests of several labs ask of all their claims."""

from __future__ import annotations

from collections.abc import Collection

from sims.engine import Lab, Run
from sims.engine.claims import judge
from sims.engine.ledger import claim_runs


def assert_they_answer(lab: Lab, run: Run, verdicts: Collection[str]) -> None:
    """No claim raises for this run, and the runs that a claim is judged on are valid and of several replicates."""
    params = run.params
    for claim in lab.claims:
        assert claim.assumes(params) is None or isinstance(claim.assumes(params), str)
        if claim.about(params):
            assert all(one.replicates > 1 for one in claim_runs(claim, params))
            if claim.over is None:
                assert judge(claim, [run]).verdict in verdicts, claim.id
