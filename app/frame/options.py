"""How a page is looked at: the axis, what is shown on demand, axes that stand still. The address holds it too.

/label_noise?axis=log_step&show=replicates&range=error~x:0,100000~y:0.003,200
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sims.engine.errors import shorten
from sims.engine.params import format_value

REPLICATES, DIFFERENCE = "replicates", "difference"
SHOWN = {REPLICATES: "Each replicate", DIFFERENCE: "Difference between runs"}  # on demand, on every page
OPTION_KEYS = ("axis", "show", "range")  # of a page's address
MOST_RANGES = 20

Range = tuple[float, float]
Ranges = Mapping[str, Range]  # by axis, "x" or "y"


@dataclass(frozen=True)
class Options:
    """What a page's address says besides its runs.

    Args:
        axis: the name of the horizontal axis.
        shown: names of what is shown on demand.
        ranges: axes that stand still, {id of the picture: {"x": (low, high), "y": (low, high)}}; empty while they
            follow the numbers.
    """

    axis: str
    shown: frozenset[str] = frozenset()
    ranges: Mapping[str, Ranges] = field(default_factory=dict)

    def switched(self, name: str, on: bool) -> Options:
        return replace(self, shown=self.shown | {name} if on else self.shown - {name})


def encode_options(options: Options, axis: str) -> dict[str, list[str]]:
    """The part of the address that holds the options; `axis` is the one that the page opens with."""
    query: dict[str, list[str]] = {}
    if options.axis != axis:
        query["axis"] = [options.axis]
    if options.shown:
        query["show"] = sorted(options.shown)
    if options.ranges:
        query["range"] = [
            "~".join([name, *(f"{along}:{_short(low)},{_short(high)}" for along, (low, high) in ranges.items())])
            for name, ranges in options.ranges.items()
        ]
    return query


def decode_options(
    query: Mapping[str, Sequence[str]], axis: str, axes: Sequence[str], shown: Iterable[str]
) -> tuple[Options, list[str]]:
    """The options that an address holds, and a sentence for each part of it that was not understood.

    Args:
        axis: the axis that the page opens with; `axes`, those that it has.
        shown: names of what it can show on demand.
    """
    notices: list[str] = []
    options = Options(axis)
    asked = query.get("axis", ())
    if len(asked) > 1:
        notices.append(f"axis is written {len(asked)} times; the last one counts.")
    if asked and asked[-1] in axes:
        options = replace(options, axis=asked[-1])
    elif asked:
        notices.append(
            f"The link asks for the axis {shorten(asked[-1])}, which this page does not have; it has "
            f"{', '.join(axes)}. It was ignored."
        )
    possible = set(shown)
    for name in dict.fromkeys(query.get("show", ())):
        if name in possible:
            options = options.switched(name, True)
        else:
            notices.append(
                f"The link switches on {shorten(name)}, which this page does not have; it has "
                f"{', '.join(sorted(possible))}. It was ignored."
            )
    entries = query.get("range", ())
    if len(entries) > MOST_RANGES:
        notices.append(f"The link holds the axes of {len(entries)} pictures; the first {MOST_RANGES} were read.")
    ranges: dict[str, Ranges] = {}
    for entry in entries[:MOST_RANGES]:
        picture, *texts = entry.split("~")
        found = {along: (low, high) for along, low, high in filter(None, map(_range, texts))}
        if not picture or len(found) != len(texts) or not found:
            notices.append(
                f"The axes {shorten(entry)} are not of the form picture~x:low,high~y:low,high; they were ignored."
            )
        else:
            ranges[picture] = found
    return replace(options, ranges=ranges), notices


def _range(text: str) -> tuple[str, float, float] | None:
    along, _, bounds = text.partition(":")
    try:
        low, high = map(float, bounds.split(","))
    except ValueError:
        return None
    sound = along in ("x", "y") and math.isfinite(low) and math.isfinite(high) and low < high
    return (along, low, high) if sound else None


def _short(value: float) -> str:
    """Six digits are more than a screen has pixels."""
    return format_value(float(f"{value:.6g}"))
