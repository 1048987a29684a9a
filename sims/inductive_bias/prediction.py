"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from theory import inductive_bias as theory

from ..engine import About, Prediction, Trace
from .lab import InductiveBiasParams, recorded_steps

Array = NDArray[np.float64]

E_FOLDS = 5.0  # of forgetting style, after which content and style count as separated

_SPECTRUM = "products of the eigenvalues of single bits"
_LEAST = "minus the sum of the k largest squared eigenvalues of the class"
_PROBE = "share of the label's eigenspace that a random minimiser keeps"
_RATE = "linearised gradient flow at the minimiser"


@lru_cache(maxsize=64)
def spectrum_of(params: InductiveBiasParams) -> theory.ClassSpectrum | None:
    """The eigenvalues of the class in closed form; None for random features and networks."""
    p = params
    if p.encoder in ("relu", "mlp"):
        return None
    least, most = {"linear": (1, 1), "polynomial": (0, p.degree)}.get(p.encoder, (0, p.dim))
    if p.augmentation == "flip":
        factor = theory.flip_factor(p.flip_content, p.flip_style)
    elif p.encoder == "table":
        factor = theory.flip_factor(0.0, 0.0)  # signs are kept, and a table sees nothing but signs
    else:
        factor = theory.rescale_factor(p.scale_low, p.scale_high)
    return theory.class_spectrum(p.dim, p.content, factor, least, most)


def style_moment(params: InductiveBiasParams) -> float:
    """E x_j^2 of a style bit over views."""
    if params.augmentation == "flip":
        return 1.0
    return theory.rescale_moment(params.scale_low, params.scale_high, 2)


def eigenvalues_of_bits(params: InductiveBiasParams) -> tuple[float, float]:
    """Eigenvalues of a content bit and of a style bit."""
    p = params
    if p.augmentation == "flip":
        factor = theory.flip_factor(p.flip_content, p.flip_style)
    else:
        factor = theory.rescale_factor(p.scale_low, p.scale_high)
    return factor(1, 0), factor(0, 1)


def rate_of_separation(params: InductiveBiasParams) -> float:
    """How fast a linear encoder of as many features as content bits forgets style; 0 where style is invariant."""
    content, style = eigenvalues_of_bits(params)
    if params.content == params.dim or style >= content:
        return 0.0
    if params.augmentation == "flip":  # two directions of eigenvalues content and style: 4 (content - style)
        return 4.0 * (content - style)
    return theory.separation_rate(style, style_moment(params))


def not_separated(params: InductiveBiasParams) -> str | None:
    """What keeps a linear encoder from holding content alone, or None."""
    content, style = eigenvalues_of_bits(params)
    if params.content < params.dim and style > content - 1e-9:
        return "Views must change style more than content."
    if params.training == "minimiser" or params.content == params.dim:
        return None
    if math.isnan(params.time):
        return None
    folds = rate_of_separation(params) * params.time
    if folds < E_FOLDS:
        return f"Not separated: training lasts {folds:.2g} times that of forgetting style, {E_FOLDS:g} are needed."
    return None


def predict(params: InductiveBiasParams) -> Prediction:
    step = recorded_steps(params)
    values: dict[str, float | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | None, note: About) -> None:
        values[name], about[name] = value, note

    found = spectrum_of(params)
    k = params.n_features
    silent = {"relu": "random features have no closed form", "mlp": "a network has no closed form"}.get(
        params.encoder, ""
    )
    least = found.min_loss(k) if found is not None else None
    late = None if params.training == "minimiser" else params.steps
    add("loss", least, About("exact" if late is None else "limit", _LEAST, 0.0, late, None, silent or "being trained"))
    add("min_loss", least, About("exact", _LEAST, reason=silent))
    add("units", None if found is None else float(found.units), About("exact", _SPECTRUM, reason=silent))
    energy = theory.label_energy(params.content, params.label)
    r2 = None if found is None else theory.expected_r2(found, energy, k, params.intercept)
    unknown = silent or "of the minimiser, which is only reached at the end"
    add("probe_r2", r2, About("exact" if late is None else "limit", _PROBE, 0.0, late, None, unknown))
    sure = 1.0 if r2 is not None and r2 > 1.0 - 1e-12 else None
    words = silent or "no closed form unless the label is linear in the features"
    add("probe_accuracy", sure, About("limit", "signs of an exact fit", 0.0, late, None, words))
    rate, reason = None, "for linear encoders of as many features as content bits, trained by plain descent"
    if params.encoder == "linear" and k == params.content and params.training == "descent":
        rate = rate_of_separation(params) or None
        reason = "style is as invariant as content" if rate is None else ""
    add("separation_rate", rate, About("limit", _RATE, reason=reason))
    return Prediction(step=step, prediction=values, about=about)


def derive(params: InductiveBiasParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) metrics: distance from the minimum, how fast style was forgotten, and what is left of it."""
    own = np.zeros((trace.replicates, params.n_features))
    values = trace.finals["eigenvalues"]
    count = min(params.n_features, values.shape[1])
    own[:, :count] = values[:, :count]
    if params.encoder == "mlp":
        own[:, :] = np.nan
    least = -np.sum(own**2, axis=1)
    known = predicted.prediction["min_loss"]
    if known is not None:
        least = np.full(trace.replicates, float(np.asarray(known)))
    gram = np.diagonal(trace.finals["gram"], axis1=1, axis2=2)
    content, style = gram[:, : params.content], gram[:, params.content :]
    falls = zip(trace.series["time"], trace.series["style_norm"], strict=True)
    return {
        "min_loss": least,
        "excess_loss": trace.series["loss"][:, -1] - least,
        "separation_rate": np.array([_fall(time, size) for time, size in falls]),
        "content_gram": np.mean(content, axis=1),
        "style_gram": np.mean(style, axis=1) if style.shape[1] else np.zeros(len(gram)),
    }


def _fall(time: Array, size: Array) -> float:
    """Exponent of a fall, by least squares of its logarithm over the second half of the time, above rounding."""
    late = (time >= 0.5 * time[-1]) & (size > 1e-9)
    if np.sum(late) < 3:
        return math.nan
    return -float(np.polyfit(time[late], np.log(size[late]), 1)[0])
