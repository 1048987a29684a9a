"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import projection_head as theory

from ..engine import About, Prediction, Trace
from .lab import KINDS, ProjectionHeadParams, recorded_steps

Array = NDArray[np.float64]

PATIENCE = 1.6  # half times after which a feature counts as learned

_SHARES = "equal shares of the log-gain in balanced layers"
_FLOW = "gradient flow of one feature in balanced layers"
_POST = "the minimum of the loss, M = p/q^2 on each feature"
_KEPT = "gradient flow keeps the imbalance, decay shrinks it as exp(-2 wd t)"
_EQUIVALENT = "deterministic equivalent of ridge regression"


def kinds_of(params: ProjectionHeadParams) -> tuple[Array, Array]:
    """p and q of each kind."""
    return theory.moments(np.array(params.phi), np.array(params.nu))


def balanced(params: ProjectionHeadParams) -> bool:
    """Whether every feature obeys its own equation with the same gain in each layer."""
    return params.init == "aligned" and params.head_ratio == 1.0 and params.training == "descent"


def effective_start(params: ProjectionHeadParams) -> float:
    """Gain of each layer at the start, in the geometric mean; of random layers that of a typical column."""
    mean = params.init_scale * params.head_ratio ** (1.0 / params.layers)
    if params.init == "aligned":
        return mean
    return mean * (params.n_outputs / params.width) ** (0.5 / params.layers)


@lru_cache(maxsize=64)
def final_gram(params: ProjectionHeadParams) -> tuple[float, ...]:
    """Diagonal of E^T E of each kind in the end: the minimum, with decay the largest root, 0 for those that die."""
    p, q = kinds_of(params)
    wd, L, start = params.weight_decay, params.layers, effective_start(params)
    found = []
    for one, two in zip(p.tolist(), q.tolist(), strict=True):
        dies = start < theory.smallest_start(one, two, wd, L)
        found.append(0.0 if dies else theory.decayed_gram(one, two, wd, L))
    return tuple(found)


@lru_cache(maxsize=64)
def half_times(params: ProjectionHeadParams) -> tuple[float, ...]:
    """Half time of each kind from balanced layers of the same size, without decay; NaN for what starts above."""
    p, q = kinds_of(params)
    start = effective_start(params)
    return tuple(theory.half_time(a, b, start, params.layers) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def not_converged(params: ProjectionHeadParams) -> str | None:
    """The feature that needs longer than training lasts, in words, or None."""
    needed = [
        PATIENCE * t if m > 0 and t == t else 0.0 for t, m in zip(half_times(params), final_gram(params), strict=True)
    ]
    worst = int(np.argmax(needed))
    if needed[worst] <= params.time:
        return None
    lasts = f"training lasts {params.time:.3g}"
    return f"Not converged: feature {worst + 1} needs a time of about {needed[worst]:.3g}, {lasts}."


def bottleneck(params: ProjectionHeadParams) -> str | None:
    """That there are fewer outputs than features, in words, or None."""
    if params.outputs >= params.features:
        return None
    return f"The head must have as many outputs as features: {params.outputs} for {params.features}."


def predict(params: ProjectionHeadParams) -> Prediction:
    step = recorded_steps(params)
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | Array | None, note: About) -> None:
        values[name], about[name] = value, note

    p, q = kinds_of(params)
    L, wd = params.layers, params.weight_decay
    full_p, full_q = (np.repeat(one, params.counts) for one in (p, q))
    add("min_loss", theory.min_loss(full_p, full_q, params.outputs), About("exact", _POST))
    times = params.learning_rate * step
    path = _paths(params) if balanced(params) else None
    gram = np.array(final_gram(params))
    blocked = bottleneck(params) or not_converged(params)
    late = params.steps + 1 if blocked else params.steps
    end: Any = "exact" if params.training == "descent" else "limit"
    for i in range(KINDS):
        for name, power in (("post", L), ("pre", L - 1)):
            if i >= len(p):
                add(f"{name}_{i + 1}", None, About("exact", _FLOW, reason="there are fewer kinds of features"))
            elif path is not None:
                add(f"{name}_{i + 1}", path[i] ** power, About("exact", _FLOW))
            else:
                value = float(gram[i] ** (power / (2.0 * L)))
                kind: Any = end if name == "post" else "heuristic"
                words = blocked or "being learned"
                add(f"{name}_{i + 1}", value, About(kind, _POST if name == "post" else _SHARES, 0.0, late, None, words))
    if path is not None:
        out = np.repeat(path, params.counts, axis=0) ** (2 * L)
        total = np.sum((full_q[:, None] * out) ** 2 - 2.0 * full_p[:, None] * out, axis=0)
        add("loss", total, About("exact", _FLOW))
    else:
        add("loss", values["min_loss"], About("bound", _POST, reason="the least that training can reach"))
    add("imbalance", *_imbalance(params, times))
    for i in range(KINDS):
        clock = half_times(params)[i] if path is not None and wd == 0.0 and i < len(p) else math.nan
        words = "" if math.isfinite(clock) else "of features that start below half, from balanced layers without decay"
        add(f"half_time_{i + 1}", clock if math.isfinite(clock) else None, About("exact", _FLOW, reason=words))
    errors = downstream(params)
    words = blocked or ""
    for name, layer in (("mse_input", 0), ("mse_pre", L - 1), ("mse_post", L)):
        known = layer == 0 or not blocked
        add(name, float(errors[layer]) if known else None, About("limit", _EQUIVALENT, reason="" if known else words))
    add("best_layer", None if blocked else float(np.argmin(errors)), About("limit", _EQUIVALENT, reason=words))
    return Prediction(step=step, prediction=values, about=about)


@lru_cache(maxsize=16)
def _paths(params: ProjectionHeadParams) -> Array:
    """(kinds, T) gain of each layer along the recorded steps, from balanced layers."""
    p, q = kinds_of(params)
    times = params.learning_rate * recorded_steps(params)
    common = (params.init_scale, params.layers, params.weight_decay, times)
    return np.stack([theory.layer_gain(a, b, *common) for a, b in zip(p.tolist(), q.tolist(), strict=True)])


def _imbalance(params: ProjectionHeadParams, times: Array) -> tuple[float | Array | None, About]:
    if params.layers == 1:
        return None, About("exact", _KEPT, reason="one layer has none")
    if params.training == "sgd":
        return None, About("exact", _KEPT, reason="noisy steps move it")
    if params.init == "gaussian":
        return None, About("exact", _KEPT, reason="of a random start only its course is known, not its size")
    scale = params.init_scale**2
    start = math.sqrt(params.features) * scale * abs(params.head_ratio**2 - 1.0)
    return start * theory.imbalance_decay(params.weight_decay, times), About("exact", _KEPT)


def downstream(params: ProjectionHeadParams) -> Array:
    """(L + 1,) expected test error of each layer at the end of training, from balanced layers."""
    shares = theory.layer_weights(np.array(final_gram(params)), params.layers)
    amplitudes = np.repeat(shares * np.array(params.phi), params.counts, axis=1)
    target = int(sum(params.counts[: params.relevant - 1]))
    return np.array([theory.downstream_mse(one, target, params.n_labelled, params.ridge) for one in amplitudes])


def derive(params: ProjectionHeadParams, trace: Trace, predicted: Prediction) -> Mapping[str, Array]:
    """(R,) the task downstream at the input, before and after the head, and which layer did best."""
    found = {"min_loss": np.full(trace.replicates, float(np.asarray(predicted.prediction["min_loss"])))}
    for kind in ("mse", "error"):
        by_layer = trace.finals[f"{kind}_by_layer"]
        places = {"input": 0, "pre": params.layers - 1, "post": params.layers}
        found |= {f"{kind}_{name}": by_layer[:, layer] for name, layer in places.items()}
    mse = trace.finals["mse_by_layer"]
    whole = np.all(np.isfinite(mse), axis=1)
    found["best_layer"] = np.where(whole, np.argmin(np.where(whole[:, None], mse, 0.0), axis=1), np.nan)
    return found
