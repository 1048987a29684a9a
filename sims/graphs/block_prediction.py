"""What the block model of classes in domains predicts of a run, by the names under which runs record it.

Of the population it is exact where features are solved for, and a limit where they are trained, claimed once training
can be expected to be over. Of sampled graphs it is the limit of many nodes a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from theory import domains
from theory.domains import Answer, BlockModel

from ..engine import About, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.lab import Kind

SPECTRUM = "eigenvalues of the block model"
_HEAD = "the k largest eigenvalues, and a head on one domain"
_GEOMETRY = "coordinates of the blocks in the kept eigenspaces"
_UNSETTLED = "before that the features are still turning"
_SAMPLING = "edges are drawn: the limit of many nodes a block"


@dataclass(frozen=True)
class Setting:
    """How features come about: from the population or a sampled graph; by descent of so many steps, or none.

    A step advances the time of gradient flow by `time_step`; entries start with a size of `start`.
    """

    sampled: bool
    steps: int
    time_step: float | None = None
    start: float = 1.0

    @property
    def kind(self) -> Kind:
        return "limit" if self.sampled or self.time_step is not None else "exact"

    def settled(self, model: BlockModel, k: int) -> int | None:
        """The step from which training counts as over: the last one at most; None where nothing is trained."""
        if self.time_step is None:
            return None
        steps = domains.settling_time(model, k, self.start) / self.time_step
        return self.steps if not math.isfinite(steps) else min(self.steps, math.ceil(steps))


def setting_of(params: Any) -> Setting:
    """How the features of these params come about."""
    sampled = params.graph == "random"
    if params.training == "eigen":
        return Setting(sampled, params.steps)
    return Setting(sampled, params.steps, params.learning_rate / params.nodes, params.init_scale)


@dataclass
class Chalk:
    """Predictions as they are added: numbers with what they are worth."""

    setting: Setting
    model: BlockModel
    k: int
    values: dict[str, float | NDArray[np.float64] | None] = field(default_factory=dict)
    about: dict[str, About] = field(default_factory=dict)

    def add(self, name: str, answer: Answer | float, source: str, of_features: bool = True) -> None:
        """A number, or why there is none; `of_features` that are trained it is claimed once they have settled."""
        value, reason = answer if isinstance(answer, Answer) else (answer, "")
        if value is None:
            self.values[name], self.about[name] = None, About(self.setting.kind, source, reason=reason)
            return
        start = self.setting.settled(self.model, self.k) if of_features else None
        late = _UNSETTLED if start is not None else _SAMPLING if self.setting.sampled else ""
        kind: Kind = self.setting.kind if of_features or self.setting.sampled else "exact"
        self.values[name], self.about[name] = value, About(kind, source, 0.0, start, None, late)

    def settles_within(self, steps: int) -> bool:
        """Whether descent of so many steps has the time to find features of which gain and accuracy are known."""
        start = self.setting.settled(self.model, self.k)
        known = all(self.values[name] is not None for name in ("gain", "target_accuracy"))
        return start is not None and start < steps and known


def of_blocks(model: BlockModel, k: int, setting: Setting, fits: bool = True) -> Chalk:
    """Loss, accuracies, distances and eigenvalues; `fits` as in `theory.domains.source_accuracy`."""
    chalk = Chalk(setting, model, k)
    chalk.add("loss", domains.least_loss(model, k), "minus the sum of the k largest squared eigenvalues")
    chalk.add("target_accuracy", domains.target_accuracy(model, k), _HEAD)
    chalk.add("source_accuracy", domains.source_accuracy(model, k, fits), _HEAD)
    chalk.add("domain_accuracy", domains.domain_accuracy(model, k), "whether the contrasts of domains are kept")
    apart, reason = domains.squared_distances(model, k)
    for name, value in (("domain_distance", apart and apart.domains), ("class_distance", apart and apart.classes)):
        chalk.add(name, Answer(value, reason), _GEOMETRY)
    for group in (domains.CLASS, domains.DOMAIN, domains.INTERACTION):
        chalk.add(f"lam_{group}", model.eigenvalues[group], SPECTRUM, of_features=False)
    return chalk


def distance_ratio(trace: Trace) -> NDArray[np.float64]:
    """(R,) the squared distance of one class in two domains over that of two classes in one; NaN where this is 0."""
    apart, classes = trace.finals["domain_distance"], trace.finals["class_distance"]
    return np.where(classes > 0.0, apart / np.where(classes > 0.0, classes, 1.0), math.nan)
