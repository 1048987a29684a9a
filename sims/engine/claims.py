"""Claims: the paper's sentences, judged on runs.

A claim says what kind of run it speaks of (`about`), what the theorem assumes (`assumes`), on which runs it
is judged (`over`), and how (`judge`). The verdict follows from four numbers by one rule, the same for every
lab.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from .execute import Run


@dataclass(frozen=True)
class Measured:
    """What a judge found: `error` is one standard error of `measured`, 0 if exact, None if it has none."""

    predicted: float
    measured: float
    error: float | None
    tolerance: float
    note: str = ""


class Sentence(Protocol):
    """The words of a claim."""

    @property
    def id(self) -> str: ...
    @property
    def statement(self) -> str: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True)
class Claim:
    """One sentence of the theory, executable.

    Args:
        id: short name, unique in the lab.
        statement: the sentence, as a reader should test it.
        source: theorem, proposition or derivation it comes from.
        about: whether a run with these params is the kind of run that the claim speaks of.
        judge: runs -> Measured.
        assumes: the name of the assumption that these params break, or None.
        over: the runs that it is judged on; by default the one at hand.
    """

    id: str
    statement: str
    source: str
    about: Callable[[Any], bool]
    judge: Callable[[Sequence[Run]], Measured]
    assumes: Callable[[Any], str | None] = lambda params: None
    over: Callable[[Any], Sequence[Any]] | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim with its four numbers, the verdict, and why."""

    id: str
    statement: str
    source: str
    predicted: float | None
    measured: float | None
    error: float | None
    tolerance: float | None
    verdict: Literal["holds", "fails", "outside", "undecided"]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(claim: Claim, runs: Sequence[Run]) -> Verdict:
    """The verdict of a claim on its runs.

    `outside` when an assumption is broken; `undecided` when the standard error exceeds half the tolerance
    (the reason says how many replicates would decide); else `holds` or `fails`.
    """
    for run in runs:
        broken = claim.assumes(run.params)
        if broken:
            return unjudged(claim, "outside", broken)
    return weigh(claim, claim.judge(runs), min(run.trace.replicates for run in runs))


def weigh(claim: Sentence, found: Measured, replicates: int) -> Verdict:
    """The verdict that follows from what a judge found on so many replicates."""
    gap = abs(found.measured - found.predicted)
    note = f" {found.note}" if found.note else ""

    def verdict(word: Literal["holds", "fails", "undecided"], reason: str) -> Verdict:
        return Verdict(
            id=claim.id,
            statement=claim.statement,
            source=claim.source,
            predicted=_finite(found.predicted),
            measured=_finite(found.measured),
            error=_finite(found.error),
            tolerance=_finite(found.tolerance),
            verdict=word,
            reason=reason + note,
        )

    if not math.isfinite(gap):
        return verdict("fails", "No finite number was measured.")
    if found.error is None or not math.isfinite(found.error):
        return verdict("undecided", "One replicate has no standard error: run at least 4.")
    if found.error > found.tolerance / 2:
        ratio = 2 * found.error / found.tolerance if found.tolerance > 0 else math.inf
        enough = f"about {math.ceil(replicates * ratio**2)}" if ratio < 1e6 else "no number of"
        return verdict("undecided", f"The standard error exceeds half the tolerance: {enough} replicates would decide.")
    if gap <= found.tolerance:
        return verdict("holds", f"Measured and predicted differ by {gap:.3g}, within {found.tolerance:.3g}.")
    return verdict("fails", f"Measured and predicted differ by {gap:.3g}, beyond {found.tolerance:.3g}.")


def unjudged(claim: Sentence, word: Literal["outside", "undecided"], reason: str) -> Verdict:
    """A verdict without numbers."""
    return Verdict(claim.id, claim.statement, claim.source, None, None, None, None, word, reason)


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
