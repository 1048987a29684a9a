"""The chalk lines of a run, and the metrics that need the theory."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from theory import domains
from theory import linear_transfer as theory
from theory.domains import Answer, BlockModel

from ..engine import Prediction, Trace
from ..graphs.block_prediction import Chalk, distance_ratio, of_blocks, setting_of
from .lab import LinearTransferParams, recorded_steps

Array = NDArray[np.float64]

_GAIN = "class contrast on the target over that on the source"
_WALK = "labels that spread over t steps of a random walk"


def model_of(params: LinearTransferParams) -> BlockModel:
    """The block model of these params."""
    return BlockModel(params.classes, params.domains, *params.weights)


def gain_of(params: LinearTransferParams) -> Answer:
    """The gain of the head of these params."""
    model, k = model_of(params), params.n_features
    if params.head == "averaging":
        return theory.averaging_gain(model, k, params.walk_steps)
    return domains.head_gain(model, k, params.ridge)


def chalk_of(params: LinearTransferParams) -> Chalk:
    """All predictions but the steps at which they stand."""
    model = model_of(params)
    exact = params.head == "least_squares" and params.ridge == 0.0
    chalk = of_blocks(model, params.n_features, setting_of(params), fits=exact)
    chalk.add("gain", gain_of(params), _GAIN)
    walked = domains.target_accuracy(model, params.classes * params.domains)
    spread = params.head == "averaging" and min(model.eigenvalues.values()) >= 0.0
    silent = Answer(None, "the head is no average" if params.head != "averaging" else "an eigenvalue is negative")
    chalk.add("walk_accuracy", walked if spread else silent, _WALK, of_features=False)
    return chalk


def predict(params: LinearTransferParams) -> Prediction:
    chalk = chalk_of(params)
    return Prediction(recorded_steps(params), chalk.values, chalk.about)


def derive(params: LinearTransferParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) metrics: how alike the domains are, and how far the links that matter stand out of the noise."""
    seen = theory.visibility(model_of(params), params.nodes_per_block) if params.graph == "random" else math.inf
    return {"distance_ratio": distance_ratio(trace), "visibility": np.full(trace.replicates, seen)}
