"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import contrastive_temperature as theory

from ..engine import About, Prediction, Trace
from .lab import ContrastiveTemperatureParams, recorded_steps

Array = NDArray[np.float64]

_SHARE = "tau ln[(1-a) n_d/(a n_s)], from 0 to 1: minimum of the two-level loss"
_BESSEL = "Bessel functions of the uniform law on the sphere"
_COSINES = "two similarities with Gaussian cosines"
_BLIND = "mean similarity of points that add up to zero"
_NO_FORM = "a free table with classmates as positives has no closed form"
CONVERGED = 40  # halvings after which the share is known


def share_of(params: ContrastiveTemperatureParams) -> float:
    """The share of class in the features: given, or that of the minimum."""
    if params.fit == "fixed":
        return params.class_share
    return theory.best_share(params.temperature, params.overlap, params.classes, params.per_class)


def dimension(params: ContrastiveTemperatureParams) -> float:
    """Dimension of the two-level features; infinite where all directions are orthogonal."""
    return float(params.feature_dim) if params.geometry == "random" else math.inf


def predict(params: ContrastiveTemperatureParams) -> Prediction:
    values: dict[str, float | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | None, note: About) -> None:
        values[name], about[name] = value, note

    def silent(names: tuple[str, ...], source: str, reason: str) -> None:
        for name in names:
            add(name, None, About("exact", source, reason=reason))

    p = params
    if p.model == "two_level":
        c = share_of(p)
        kind: Any = "exact" if p.geometry == "ideal" else "limit"
        late = None if p.fit == "fixed" else min(p.steps, CONVERGED)
        note = About(kind, _SHARE, 0.0, late, None, "the interval is still being halved")
        add("share", c, note)
        add("tolerance", c, note)
        even = theory.uniformity(c, p.classes, p.per_class, dimension(p))
        add("uniformity", even, About("limit", _COSINES, 0.0, late, None, "the interval is still being halved"))
        add("retrieval", theory.retrieval(c, p.per_class), About("limit", "collapse of classes"))
        add("class_accuracy", 1.0 if c == 1.0 else None, About("exact", "collapse of classes", reason="no closed form"))
        limit = theory.collapse_temperature(p.overlap, p.classes, p.per_class)
        words = "" if math.isfinite(limit) else "instances are so stable that classes never collapse"
        add("collapse_temperature", limit if math.isfinite(limit) else None, About("exact", _SHARE, reason=words))
        silent(("mean_similarity", "log_mean_exp", "force_entropy"), _BESSEL, "for uniform negatives only")
        silent(("small_temperature_similarity",), _BESSEL, "for uniform negatives only")
    elif p.model == "sphere":
        d, tau = p.sphere_dim, p.temperature
        add("mean_similarity", theory.mean_similarity(d, tau), About("exact", _BESSEL))
        add("log_mean_exp", theory.log_mean_exp(d, tau), About("exact", _BESSEL))
        add("force_entropy", theory.force_entropy(d, tau), About("exact", _BESSEL))
        limit = theory.small_temperature_similarity(d, tau)
        add("small_temperature_similarity", limit, About("limit", "tau times dimension small"))
        silent(("share", "tolerance", "uniformity", "retrieval", "class_accuracy"), _SHARE, "there are no classes")
        silent(("collapse_temperature",), _SHARE, "there are no classes")
    else:
        blind = theory.class_blind_similarity(p.examples) if p.swap == 0.0 else None
        add("tolerance", blind, About("limit", _BLIND, 0.0, p.steps, None, _NO_FORM if blind is None else "spreading"))
        silent(("share", "uniformity", "retrieval", "class_accuracy"), _BLIND, _NO_FORM)
        silent(("mean_similarity", "log_mean_exp", "force_entropy"), _BESSEL, _NO_FORM)
        silent(("collapse_temperature", "small_temperature_similarity"), _SHARE, _NO_FORM)
    return Prediction(step=recorded_steps(params), prediction=values, about=about)


def derive(params: ContrastiveTemperatureParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) the temperature of collapse and the limit of small temperatures, which belong to the params alone."""
    found = {}
    for name in ("collapse_temperature", "small_temperature_similarity"):
        value = predicted.prediction[name]
        found[name] = np.full(trace.replicates, math.nan if value is None else float(np.asarray(value)))
    return found
