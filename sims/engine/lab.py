"""A lab is a value: its words, its parameters, and a handful of functions."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .errors import BadInput, Problem, UnknownName
from .params import Params, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .claims import Claim
    from .trace import Monitor, Replicate, Trace

    Series = NDArray[np.float64]

_LAST_STEP = int(np.iinfo(np.int64).max)

Kind = Literal["exact", "limit", "bound", "heuristic", "sampled"]
Expected = Literal["holds", "fails", "outside", "undecided"]


@dataclass(frozen=True)
class Paper:
    """Where a lab's theorem stands."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str
    bibtex: str


@dataclass(frozen=True)
class Quantity:
    """A number that a lab records, derives or predicts, as labels and tables show it."""

    label: str
    symbol: str = ""
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True)
class Preset:
    """A named regime: the run in focus and the runs drawn beside it.

    `beside` maps a label to the fields that differ from the focus; `expect` maps a claim's id to its expected
    verdict, `holds` where silent.
    """

    id: str
    title: str
    notice: str
    label: str
    params: Mapping[str, Value] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    expect: Mapping[str, Expected] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One version of a lab: what changed, and how older params translate (None: they cannot)."""

    version: int
    summary: str
    migrate: Callable[[dict[str, str]], dict[str, str]] | None = None


@dataclass(frozen=True)
class About:
    """What a predicted value is worth.

    `error` is 0 unless the value was sampled. The value is claimed on recorded steps from `valid_from_step`
    to `valid_to_step` (None: without limit); elsewhere it is drawn grey, with `reason`.
    """

    kind: Kind
    source: str
    error: float = 0.0
    valid_from_step: int | None = None
    valid_to_step: int | None = None
    reason: str = ""

    @property
    def valid_steps(self) -> tuple[int, int]:
        """The first and the last step at which the value may be claimed."""
        low = 0 if self.valid_from_step is None else self.valid_from_step
        return low, _LAST_STEP if self.valid_to_step is None else self.valid_to_step


@dataclass(frozen=True)
class Prediction:
    """The chalk line: for each name a number, a series on `step` (T,), or None where the theory is silent."""

    step: NDArray[np.int64]
    prediction: Mapping[str, float | Series | None]
    about: Mapping[str, About]

    def claimed(self, name: str) -> NDArray[np.bool_]:
        """(T,) True on the recorded steps at which `name` is claimed."""
        low, high = self.about[name].valid_steps
        return (self.step >= low) & (self.step <= high)

    def ends(self) -> dict[str, End]:
        """A number for each name: of a series its end, as a metric is."""
        found, last = {}, int(self.step[-1])
        for name, value in self.prediction.items():
            number = math.nan if value is None else float(value[-1] if isinstance(value, np.ndarray) else value)
            low, high = self.about[name].valid_steps
            found[name] = End(number, not math.isnan(number) and low <= last <= high)
        return found


class End(NamedTuple):
    """What the theory says of the end of a run, NaN where it is silent, and whether it claims that."""

    value: float
    claimed: bool


@dataclass(frozen=True)
class Work:
    """What a run costs, in counts that the lab's probes turn into seconds.

    `per_replicate` and `once` map the name of a probe to a count of its units; `bytes` is the peak memory.
    `ends` is what `predict_ends` takes for a run among many, by default what `once` says. What the probes in `serial`
    count is done by the interpreter, which does it for one replicate at a time.
    """

    per_replicate: Mapping[str, float]
    once: Mapping[str, float]
    bytes: float
    ends: Mapping[str, float] | None = None
    serial: Collection[str] = ()


@dataclass(frozen=True)
class Tolerance:
    """How closely another machine must repeat the recorded series: relative, up to a share of the steps."""

    relative: float
    absolute: float = 0.0


@dataclass(frozen=True)
class Lab:
    """One toy model.

    Functions (everything heavy is imported inside them):
        recorded_steps(params) -> (T,) int64; at most 400, first and last included
        simulate(params, replicate, monitor) -> Replicate
        predict(params) -> Prediction, on the recorded steps
        derive(params, trace, prediction) -> {name: (R,)}, the metrics that need the theory
        work(params) -> Work
        probes() -> {name: function that does some work and returns its count}
        predict_ends(many params) -> of each its Prediction on the last recorded step alone, equal to `predict` there
            within 1e-6 (1e-9 absolute); for sweeps of the theory, in which many runs share what is dear. May be left
            out: `predict` is asked then. One that raises is asked again for fewer, so that it names no culprit.
    """

    id: str
    version: int
    title: str
    sentence: str
    theme: str
    paper: Paper
    params: type[Params]
    streams: Mapping[str, int]
    series: Mapping[str, Quantity]
    metrics: Mapping[str, Quantity]
    presets: tuple[Preset, ...]
    recorded_steps: Callable[[Any], NDArray[np.int64]]
    simulate: Callable[[Any, int, Monitor], Replicate]
    predict: Callable[[Any], Prediction]
    derive: Callable[[Any, Trace, Prediction], Mapping[str, Series]]
    work: Callable[[Any], Work]
    probes: Callable[[], Mapping[str, Callable[[], float]]]
    grade_b: Tolerance
    changes: tuple[Change, ...]
    predict_ends: Callable[[Sequence[Any]], Sequence[Prediction]] | None = None

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The paper's sentences, from the lab's `claims.py`."""
        return importlib.import_module(f"sims.{self.id}.claims").CLAIMS

    def preset(self, preset_id: str) -> Preset:
        """The preset with that id. Raises UnknownName."""
        for preset in self.presets:
            if preset.id == preset_id:
                return preset
        raise UnknownName(f"preset of {self.id}", preset_id, [preset.id for preset in self.presets])

    def focus(self, preset: Preset) -> Params:
        """The params of the run a preset puts in focus."""
        return self.params.make(preset.params)

    def runs(self, preset: Preset) -> dict[str, Params]:
        """All runs of a preset by label, the one in focus first."""
        focus = self.focus(preset)
        return {
            preset.label: focus,
            **{label: focus.replace(**changes) for label, changes in preset.beside.items()},
        }

    def quantity(self, name: str) -> Quantity:
        """How to label a series or a metric."""
        return self.series.get(name) or self.metrics[name]

    def migrate(self, texts: Mapping[str, str], version: int) -> dict[str, str]:
        """Parameter texts of an older version as this version writes them.

        Raises:
            BadInput: the version is unknown or cannot be translated.
        """
        first = min(change.version for change in self.changes)
        if not first <= version <= self.version:
            allowed = f"versions of {self.id} run from {first} to {self.version}"
            raise BadInput(Problem("version", version, allowed, "Leave it out to use the present one."))
        translated = dict(texts)
        for change in sorted(self.changes, key=lambda change: change.version):
            if change.version > version:
                if change.migrate is None:
                    allowed = f"version {change.version} of {self.id} ({change.summary}) cannot read it"
                    raise BadInput(Problem("version", version, allowed, "Set the parameters again by hand."))
                translated = change.migrate(translated)
        return translated


def stream_table(*names: str) -> Mapping[str, int]:
    """Stream indices in the order of the names. Append new names only: an index is part of the version."""
    return {name: index for index, name in enumerate(names)}


__all__ = [
    "About",
    "Change",
    "End",
    "Expected",
    "Lab",
    "Paper",
    "Prediction",
    "Preset",
    "Quantity",
    "Sequence",
    "Tolerance",
    "Work",
    "stream_table",
]
