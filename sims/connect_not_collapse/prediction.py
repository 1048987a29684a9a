"""The chalk lines of a run, and the metrics that need the theory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from theory import connect_not_collapse as theory
from theory import domains
from theory.domains import Answer, BlockModel

from ..engine import About, Prediction, Trace
from ..graphs.block_prediction import Chalk, distance_ratio, of_blocks, setting_of
from .experiment import WIDTH
from .lab import ConnectNotCollapseParams, recorded_steps

Array = NDArray[np.float64]

_GAIN = "class contrast on the target over that on the source"
_DISCREPANCY = "distances of the blocks"
_CHANCE = "the start treats all classes alike, so that no matching is preferred"
_ALIGNED = "a matching of the classes has no discrepancy"


def model_of(params: ConnectNotCollapseParams) -> BlockModel:
    """The block model of these params."""
    return BlockModel(params.classes, params.domains, *params.weights)


def chalk_of(params: ConnectNotCollapseParams) -> Chalk:
    """All predictions of contrastive features but the steps at which they stand."""
    model, k = model_of(params), params.n_features
    chalk = of_blocks(model, k, setting_of(params))
    chalk.add("gain", domains.head_gain(model, k), _GAIN)
    apart, reason = domains.squared_distances(model, k)
    if params.graph == "random":
        answer = Answer(None, "nodes of a block scatter, by how much no closed form says")
    elif apart is None:
        answer = Answer(None, reason)
    else:
        answer = Answer(theory.discrepancy(apart, params.classes, WIDTH))
    chalk.add("discrepancy", answer, _DISCREPANCY)
    return chalk


def predict(params: ConnectNotCollapseParams) -> Prediction:
    step = recorded_steps(params)
    if params.method == "contrastive":
        chalk = chalk_of(params)
        return Prediction(step, chalk.values, chalk.about)
    chance, _ = theory.matching_accuracy(params.classes)
    exact, late = About("exact", _CHANCE), About("limit", _ALIGNED, 0.0, params.steps, None, "before that it is moving")
    return Prediction(
        step,
        {
            "loss": 0.0,
            "target_accuracy": chance,
            "source_accuracy": 1.0,
            "domain_accuracy": 0.5,
            "discrepancy": 0.0,
            "gain": None,
            "matched": 1.0,
        },
        {
            "loss": late,
            "target_accuracy": exact,
            "source_accuracy": About("exact", "each class has a feature of its own"),
            "domain_accuracy": late,
            "discrepancy": late,
            "gain": About("exact", _GAIN, reason="aligned features have no head but the nearest one of the source"),
            "matched": late,
        },
    )


def derive(params: ConnectNotCollapseParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) how alike the domains are, for contrastive features."""
    return {"distance_ratio": distance_ratio(trace)}
