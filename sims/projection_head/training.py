"""One replicate: layers are trained, their weights measured on the way, and each is tried on a task downstream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate, Stop, generator, thin
from . import kernels
from .lab import KINDS, STREAMS, ProjectionHeadParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]

STILL_MOVING = 0.05  # relative gradient of a feature from which on it counts as not converged
N_TEST = 2000  # examples that wrong signs are counted on
ADVICE = "steps halved ten times still raise the loss; lower learning_rate or init_scale"


def per_feature(params: ProjectionHeadParams, values: Any) -> Array:
    """(d,) a value of each kind, repeated for its features."""
    return np.repeat(np.asarray(values, dtype=np.float64), params.counts)


def of_kinds(params: ProjectionHeadParams, values: Array) -> Array:
    """(..., kinds) means over the features of each kind of values (..., d)."""
    ends = np.cumsum(params.counts)
    parts = zip(ends - np.array(params.counts), ends, strict=True)
    return np.stack([np.mean(values[..., a:b], axis=-1) for a, b in parts], axis=-1)


def moments(params: ProjectionHeadParams) -> tuple[Array, Array]:
    """p and q: moments across views and within one, of each feature (d,), or of each kind where kinds are trained."""
    phi, nu = np.array(params.phi), np.array(params.nu)
    if params.in_full:
        phi, nu = per_feature(params, phi), per_feature(params, nu)
    return phi**2, phi**2 + nu**2


def counts(params: ProjectionHeadParams) -> Array:
    """(kinds,) features of each kind."""
    return np.array(params.counts, dtype=np.float64)


def start_of(params: ProjectionHeadParams, replicate: int) -> Array:
    """Gains a (L, kinds) of aligned layers, or matrices W (L, m, m), zero beyond their sizes."""
    d, L = params.features, params.layers
    scale = np.full(L, params.init_scale)
    scale[-1] *= params.head_ratio
    if not params.in_full:
        return np.tile(scale[:, None], (1, len(params.phi)))
    if params.init == "aligned":
        return scale[:, None, None] * np.eye(d)
    sizes = [d, *[params.width] * (L - 1), params.n_outputs]
    W = np.zeros((L, max(sizes), max(sizes)))
    rng = generator(params.seed, STREAMS["init"], replicate)
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        entries = rng.standard_normal((outputs, inputs)) / math.sqrt(params.width)
        W[layer, :outputs, :inputs] = scale[layer] * entries
    return W


def kind_weights(params: ProjectionHeadParams, theta: Array) -> Array:
    """(L + 1, kinds) weights of each kind of feature, means over its features."""
    if params.in_full:
        return of_kinds(params, weights(params, theta))
    return np.concatenate([np.ones((1, theta.shape[1])), np.cumprod(np.abs(theta), axis=0)])


def weights(params: ProjectionHeadParams, theta: Array) -> Array:
    """g (L + 1, d): norm of each feature's column after 0, 1, ..., L layers."""
    if not params.in_full:
        return np.repeat(kind_weights(params, theta), params.counts, axis=1)
    prefix = np.empty((params.layers + 1, theta.shape[1], params.features))
    kernels.product(theta, prefix)
    return np.sqrt(np.sum(prefix**2, axis=1))


def loss(params: ProjectionHeadParams, theta: Array) -> float:
    """The contrastive loss, without decay."""
    p, q = moments(params)
    if not params.in_full:
        return float(kernels.gain_objective(p, q, counts(params), 0.0, theta))
    prefix = np.empty((params.layers + 1, theta.shape[1], params.features))
    return float(kernels.objective(p, q, 0.0, theta, prefix))


def imbalance(params: ProjectionHeadParams, theta: Array) -> float:
    """Root of the summed squares of all W_{l+1}^T W_{l+1} - W_l W_l^T; NaN for one layer."""
    if params.layers == 1:
        return math.nan
    if not params.in_full:
        return float(np.sqrt(np.sum(counts(params) * np.diff(theta**2, axis=0) ** 2)))
    inner = [theta[i + 1].T @ theta[i + 1] - theta[i] @ theta[i].T for i in range(params.layers - 1)]
    return float(np.sqrt(np.sum(np.square(inner))))


def relative_gradient(params: ProjectionHeadParams, theta: Array) -> Array:
    """(kinds,) length of the gradient of each column of E over 4 p times that of the column: 0 learned, 1 not.

    Without decay, which moves the minimum.
    """
    p, q = moments(params)
    if not params.in_full:
        return np.abs(p - q**2 * np.prod(theta, axis=0) ** 2) / p
    prefix = np.empty((params.layers + 1, theta.shape[1], params.features))
    kernels.product(theta, prefix)
    E = prefix[-1]
    slope = (E * q) @ E.T @ (E * q) - E * p
    return of_kinds(params, np.linalg.norm(slope, axis=0) / (p * np.maximum(np.linalg.norm(E, axis=0), 1e-300)))


def simulate(params: ProjectionHeadParams, replicate: int, monitor: Monitor) -> Replicate:
    step = recorded_steps(params)
    frame_step = thin(step) if replicate == params.first_replicate else step[:0]
    kinds = len(params.phi)
    frames = np.full((len(frame_step), params.layers + 1, kinds), np.nan)
    theta = start_of(params, replicate)
    p, q = moments(params)
    halves, reached = 0.5 * p / q**2, np.full(len(p), np.nan)  # of what minimises q^2 m^2 - 2 p m
    state = np.zeros(3, dtype=np.int64)
    advance = _advance(params, replicate, theta, halves, reached, state, monitor)
    status, at, framed = kernels.DONE, 0, 0
    for index, wanted in enumerate(step):
        if wanted > at:
            status, at = advance(at, int(wanted))
            if status != kernels.DONE:
                break
        g = kind_weights(params, theta)
        shown = np.full((2, KINDS), np.nan)
        shown[:, : min(kinds, KINDS)] = g[[-1, -2], :KINDS]
        past = loss(params, theta), imbalance(params, theta), _time(params, int(wanted))
        monitor.records[:, index] = (*past, *shown[0], *shown[1])
        if framed < len(frame_step) and frame_step[framed] == wanted:
            frames[framed] = g
            framed += 1
    diverged = status == kernels.DIVERGED
    return Replicate(
        finals=_finals(params, replicate, theta if not diverged else np.full_like(theta, np.nan), reached, state),
        frame_step=frame_step,
        frames={"weights": frames},
        stopped=Stop(at, ADVICE) if diverged else None,
    )


def _time(params: ProjectionHeadParams, step: int) -> float:
    slower = 1.0 - (step - 1) / (2.0 * params.steps) if params.training == "sgd" else 1.0
    return params.learning_rate * step * slower


def _advance(
    params: ProjectionHeadParams,
    replicate: int,
    theta: Array,
    halves: Array,
    reached: Array,
    state: NDArray[np.int64],
    monitor: Monitor,
) -> Callable[[int, int], tuple[int, int]]:
    """A function that trains theta, in place, from a step to a step, and returns status and the step it ended at."""
    p, q = moments(params)
    watched = (monitor.cancel, monitor.progress)
    if params.training == "sgd":
        phi, nu = per_feature(params, params.phi), per_feature(params, params.nu)
        streams = [generator(params.seed, STREAMS[name], replicate) for name in ("signs", "first", "second")]
        fixed = (phi, nu, params.weight_decay, params.learning_rate, params.steps, params.batch, params.outputs, theta)
        return lambda first, last: kernels.sgd(*fixed, first, last, *streams, *watched)
    rest = (params.weight_decay, params.learning_rate, theta, halves, reached, state)
    if params.in_full:
        return lambda first, last: kernels.descend(p, q, *rest, first, last, *watched)
    many = counts(params)
    return lambda first, last: kernels.descend_gains(p, q, many, *rest, first, last, *watched)


def _finals(
    params: ProjectionHeadParams, replicate: int, theta: Array, reached: Array, state: NDArray[np.int64]
) -> Mapping[str, Any]:
    finite = bool(np.all(np.isfinite(theta)))
    g = weights(params, theta) if finite else np.full((params.layers + 1, params.features), np.nan)
    mse, wrong = downstream(params, replicate, g)
    moving = relative_gradient(params, theta) if finite else np.full(len(params.phi), np.nan)
    times = np.full(KINDS, np.nan)
    known = (of_kinds(params, reached) if params.in_full else reached)[:KINDS]
    times[: len(known)] = known
    return {
        "weights": of_kinds(params, g),
        "mse_by_layer": mse,
        "error_by_layer": wrong,
        "relative_gradient": moving,
        "unconverged": float(np.sum(moving > STILL_MOVING)) if finite else math.nan,
        "parts": float(state[2]),
        **{f"half_time_{i + 1}": times[i] for i in range(KINDS)},
    }


def downstream(params: ProjectionHeadParams, replicate: int, g: Array) -> tuple[Array, Array]:
    """(L + 1,) test error and share of wrong signs of ridge regression on each layer of weights g (L + 1, d).

    n labelled examples, the label the sign of the first feature of the relevant kind; no intercept. The squared error
    is that over all signs, wrong signs are counted on fresh ones.
    """
    n, d = params.n_labelled, params.features
    signs = _signs(params, replicate, "labelled", n)
    fresh = _signs(params, replicate, "test", N_TEST)
    phi = per_feature(params, params.phi)
    target = int(sum(params.counts[: params.relevant - 1]))
    one = (np.arange(d) == target).astype(np.float64)
    mse, wrong = np.full(len(g), np.nan), np.full(len(g), np.nan)
    for layer, size in enumerate(g):
        if not np.all(np.isfinite(size)):
            continue
        found = size * phi * ridge_weights(signs * (size * phi), signs[:, target], params.ridge)
        mse[layer] = float(np.sum((found - one) ** 2))
        wrong[layer] = float(np.mean(np.sign(fresh @ found) != fresh[:, target]))
    return mse, wrong


def _signs(params: ProjectionHeadParams, replicate: int, stream: str, count: int) -> Array:
    rng = generator(params.seed, STREAMS[stream], replicate)
    return np.where(rng.random((count, params.features)) < 0.5, 1.0, -1.0)


def ridge_weights(Z: Array, y: Array, ridge: float) -> Array:
    """(d,) minimiser of |Z b - y|^2 + ridge |b|^2; of least norm where there are many."""
    left, size, right = np.linalg.svd(Z, full_matrices=False)
    kept = size > 1e-12 * max(float(size[0]), 1e-300)
    shrunk = np.where(kept, size, 0.0) / np.where(kept, size**2 + ridge, 1.0)
    return np.asarray(right.T @ (shrunk * (left.T @ y)))


# -- budget ------------------------------------------------------------------------------------------------------


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each kind of work: gains, matrices, batches, and the task downstream."""
    from ..engine import RunMonitor
    from .lab import LAB, work

    def trained(name: str, **changes: Any) -> Callable[[], float]:
        params = ProjectionHeadParams.make(replicates=1, **changes)

        def probe_once() -> float:
            monitor = RunMonitor.allocate(LAB, params).of(0)
            p, q = moments(params)
            noted = 0.5 * p / q**2, np.full(len(p), np.nan), np.zeros(3, dtype=np.int64)
            _advance(params, 0, start_of(params, 0), *noted, monitor)(0, params.steps)
            return work(params).per_replicate[name]

        return probe_once

    def look() -> float:
        params = ProjectionHeadParams.make()
        theta = start_of(params, 0)
        for _ in range(50):
            kind_weights(params, theta), loss(params, theta), imbalance(params, theta)
        return 50.0

    def chalk() -> float:
        from . import prediction

        prediction._paths.cache_clear()
        prediction.predict(ProjectionHeadParams.make())
        return 4.0

    def task() -> float:
        params = ProjectionHeadParams.make(strengths=(3.0, 1.0), noises=(1.0, 1.0), copies=(1.0, 59.0))
        downstream(params, 0, weights(params, start_of(params, 0)))
        return work(params).per_replicate["downstream"]

    return {
        "gains": trained("gains", steps=20_000),
        "matrices": trained("matrices", init="gaussian", steps=2000),
        "sgd": trained("sgd", training="sgd", steps=100),
        "downstream": task,
        "look": look,
        "chalk": chalk,
    }
