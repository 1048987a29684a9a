"""What benchmarks find, as rows and goals, printed and written to `docs/benchmarks.md` and `docs/benchmarks.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One contender at one piece of work, its answer checked against ours.

    `ratio` is its time over ours, a median over rounds; `limit` what the machine could do at most, and `fraction` the
    part of it that was reached; `bytes` the growth of the resident memory at its peak, while it was made and first run.
    """

    work: str
    contender: str
    throughput: float
    unit: str
    ratio: float | None
    difference: float | None
    limit: str = ""
    fraction: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Growth:
    """How the time of our code grows with one size: the exponent fitted to the times, and the one its cost has."""

    work: str
    size: str
    values: Sequence[int]
    seconds: Sequence[float]
    exponent: float
    predicted: float


@dataclass(frozen=True)
class Measure:
    """A number on its own."""

    what: str
    value: float
    unit: str


@dataclass(frozen=True)
class Goal:
    """Whether a measured number is where it should be; `reason`, told where it is not, says what stands in the way."""

    what: str
    value: float
    bound: float
    at_most: bool = False
    reason: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    @property
    def words(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"


@dataclass
class Section:
    """What one module measured."""

    title: str
    about: str = ""
    rows: list[Row] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        return all(goal.met for goal in self.goals)


def shown(value: float | None, unit: str = "") -> str:
    """Three digits and the unit; a dash for what was not measured."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.3g}" if size < 1e3 or size >= 1e6 else f"{value:,.0f}"
    return f"{text} {unit}".rstrip()


def bytes_shown(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} MB"


def tables(section: Section) -> list[tuple[list[str], list[list[str]]]]:
    """The section's tables: heads and rows of text."""
    found = []
    if section.rows:
        heads = ["work", "contender", "throughput", "its time over ours", "of the limit", "memory", "differs by"]
        found.append(
            (
                heads,
                [
                    [
                        row.work,
                        row.contender,
                        shown(row.throughput, row.unit),
                        "–" if row.ratio is None else f"{row.ratio:.3g} ×",
                        "–" if row.fraction is None else f"{100 * row.fraction:.3g} % of {row.limit}",
                        bytes_shown(row.bytes),
                        "–" if row.difference is None else f"{row.difference:.1e}",
                    ]
                    for row in section.rows
                ],
            )
        )
    if section.growth:
        heads = ["work", "grows with", "at", "fitted exponent", "of its cost"]
        found.append(
            (
                heads,
                [
                    [g.work, g.size, ", ".join(f"{v:,}" for v in g.values), f"{g.exponent:.2f}", f"{g.predicted:g}"]
                    for g in section.growth
                ],
            )
        )
    if section.measures:
        found.append((["measured", "value"], [[m.what, shown(m.value, m.unit)] for m in section.measures]))
    if section.goals:
        heads = ["goal", "wanted", "measured", "verdict"]
        found.append(
            (
                heads,
                [
                    [g.what, g.words, shown(g.value), "met" if g.met else f"**missed**. {g.reason}".rstrip()]
                    for g in section.goals
                ],
            )
        )
    return found


def show(section: Section) -> None:
    """Print a section."""
    print(f"== {section.title}")
    for heads, body in tables(section):
        widths = [max(len(line[i]) for line in [heads, *body]) for i in range(len(heads))]
        widths[-1] = 0
        for line in [heads, *body]:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in section.notes:
        print(f"  {note}")
    print(flush=True)


def run_alone(section: Section) -> int:
    """What `python -m benchmarks.<module>` does: print, and tell by the exit code whether every goal was met."""
    show(section)
    return 0 if section.met else 1


def markdown(sections: Sequence[Section], machine: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    goals = [goal for section in sections for goal in section.goals]
    lines = [
        "# Benchmarks",
        "",
        "`make bench` wrote this page, and `benchmarks.json` beside it. Contenders take turns, round after round, each"
        " pinned to one core unless a row says otherwise; ratios are medians over rounds of the ratio within a round."
        " Every row was checked first: its contender had computed the same thing, but for rounding.",
        "",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['software']}. Average load when it"
        f" began: {machine['load']:.2f}. {machine['limits']}.",
        "",
        f"**{sum(goal.met for goal in goals)} of {len(goals)} goals met.**",
    ]
    for section in sections:
        lines += ["", f"## {section.title}"]
        if section.about:
            lines += ["", section.about]
        for heads, body in tables(section):
            lines += ["", f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in body]
        for note in section.notes:
            lines += ["", note]
    return "\n".join(lines) + "\n"


def write(sections: Sequence[Section], machine: dict[str, Any], page: Path = PAGE) -> None:
    """Write the report, for people and for programs."""
    page.write_text(markdown(sections, machine), encoding="utf-8")
    found = []
    for section in sections:
        value = asdict(section)
        value["goals"] = [asdict(goal) | {"met": goal.met} for goal in section.goals]
        found.append(value)
    text = json.dumps({"machine": machine, "sections": found}, indent=1, ensure_ascii=False)
    page.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
