"""One replicate: an encoder is trained or solved for, and what its features know is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate, Stop, generator, thin
from ..graphs import network, spectrum
from . import encoders, kernels
from .lab import STREAMS, InductiveBiasParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]

KEPT = 512  # eigenvalues of the class that a run keeps
UNIT = 1e-6  # distance from 1 within which an eigenvalue counts as 1
ADVICE = "an output grew beyond every bound; a learning_rate of 0.05 is usual, 0.01 for adam"

Look = Callable[[Array], tuple[float, float, float]]  # theta -> loss, R^2, accuracy


def simulate(params: InductiveBiasParams, replicate: int, monitor: Monitor) -> Replicate:
    step = recorded_steps(params)
    frame_step = step[:0]
    if replicate == params.first_replicate:
        frame_step = thin(step) if params.training != "minimiser" else step[-1:]
    grams = np.full((len(frame_step), params.dim, params.dim), np.nan)
    values, basis = _pairs(params, replicate)
    theta = basis if params.training == "minimiser" else start_of(params, replicate)
    advance, look = _advance(params, replicate, theta, monitor), _look(params, replicate)
    status, at, framed = kernels.DONE, 0, 0
    row = np.zeros(0)
    for index, wanted in enumerate(step):
        if wanted > at:
            status, at = advance(at, int(wanted))
            if status != kernels.DONE:
                break
        if params.training != "minimiser" or index == 0:
            row = np.array([*look(theta), style_norm(params, theta), _time(params, int(wanted))])
        monitor.records[:, index] = row
        if framed < len(frame_step) and frame_step[framed] == wanted:
            grams[framed] = gram(params, replicate, theta)
            framed += 1
    diverged = status == kernels.DIVERGED
    end = np.full_like(theta, np.nan) if diverged else theta
    return Replicate(
        finals=_finals(params, replicate, values, end),
        frame_step=frame_step,
        frames={"gram": grams},
        stopped=Stop(at, ADVICE) if diverged else None,
    )


def start_of(params: InductiveBiasParams, replicate: int) -> Array:
    """theta at the start: (k, p), of a table F (N, k), of a network its parameters (size,)."""
    rng = generator(params.seed, STREAMS["init"], replicate)
    if params.encoder == "mlp":
        return network.start(_layers(params), rng)
    if params.encoder == "table":
        scale = params.init_scale / math.sqrt(params.functions)
        return scale * rng.standard_normal((params.functions, params.n_features))
    return params.init_scale * rng.standard_normal((params.n_features, params.functions))


def outputs(params: InductiveBiasParams, replicate: int, theta: Array) -> Array:
    """(P, k) outputs of an encoder, not a network, at all views."""
    if params.encoder == "table":
        return math.sqrt(params.functions) * theta
    return encoders.moments(params, replicate).phi @ theta.T


def loss(params: InductiveBiasParams, replicate: int, theta: Array) -> float:
    """Population loss -2 tr(T C_plus) + tr(T C T C), T = Theta^T Theta, of an encoder that is not a network."""
    if params.encoder == "table":
        seen = spectrum.by_modes(encoders.flip_modes(params, 2), theta)
        return float(-2.0 * np.sum(theta * seen) + np.sum((theta.T @ theta) ** 2))
    here = encoders.moments(params, replicate)
    return float(-2.0 * np.sum(theta * (theta @ here.C_plus)) + np.sum((theta @ here.C @ theta.T) ** 2))


def pairs_loss(z1: Array, z2: Array) -> float:
    """The batch form of the loss on outputs (n, k) of n pairs: off-diagonal products through the moments."""
    n, own = len(z1), np.sum(z1 * z2, axis=1)
    every = np.sum((z1.T @ z1) * (z2.T @ z2))
    return float((every - np.sum(own**2)) / (n * (n - 1.0)) - 2.0 * np.mean(own))


def gram(params: InductiveBiasParams, replicate: int, theta: Array) -> Array:
    """(d, d) U^T U of a linear encoder; of others A^T A, A = E[f(x) bits^T], their part that is linear in the bits."""
    if params.encoder == "linear":
        return theta.T @ theta
    if params.encoder == "mlp":
        bits = encoders.patterns(params.dim)
        A = network.forward(_layers(params), theta, bits)[1].T @ bits / len(bits)
    else:
        seen = encoders.views(params)
        bits = encoders.patterns(params.dim)[seen.of]
        A = (seen.weight[:, None] * outputs(params, replicate, theta)).T @ bits
    return A.T @ A


def style_norm(params: InductiveBiasParams, theta: Array) -> float:
    """Frobenius norm of the style columns of a linear encoder; NaN for others and without style."""
    if params.encoder != "linear" or params.content == params.dim:
        return math.nan
    return float(np.linalg.norm(theta[:, params.content :]))


def _time(params: InductiveBiasParams, step: int) -> float:
    """Sum of the learning rates before a step; NaN for Adam and for minimisers."""
    if params.training == "sgd":
        return params.learning_rate * step * (1.0 - (step - 1) / (2.0 * params.steps))
    return params.learning_rate * step if params.training == "descent" else math.nan


def _layers(params: InductiveBiasParams) -> NDArray[np.int64]:
    return np.array([params.dim, params.width, params.width, params.n_features], dtype=np.int64)


def _pairs(params: InductiveBiasParams, replicate: int) -> tuple[Array, Array]:
    """Eigenvalues of the class (m,), and the minimiser if one is wanted: theta from a random basis."""
    k = params.n_features
    rng = generator(params.seed, STREAMS["basis"], replicate)
    wanted = params.training == "minimiser"
    if params.encoder == "table":
        values, vectors = encoders.table_pairs(params)
        if not wanted:
            return values, np.zeros((0, 0))
        kept = min(k, len(values))
        F = np.zeros((params.functions, k))
        F[:, :kept] = encoders.random_basis(values, vectors, kept, rng) * np.sqrt(values[:kept])
        return values, F
    if params.encoder == "mlp":
        return np.full(1, np.nan), np.zeros((0, 0))
    if wanted and params.n_pairs:
        C, C_plus = encoders.sampled_moments(params, replicate)
    else:
        here = encoders.moments(params, replicate)
        C, C_plus = here.C, here.C_plus
    values, vectors = encoders.solved(C, C_plus)
    if not wanted:
        return values, np.zeros((0, 0))
    kept = min(k, len(values))
    theta = np.zeros((k, params.functions))
    theta[:kept] = (encoders.random_basis(values, vectors, kept, rng) * np.sqrt(values[:kept])).T
    return values, theta


def _advance(
    params: InductiveBiasParams, replicate: int, theta: Array, monitor: Monitor
) -> Callable[[int, int], tuple[int, int]]:
    """A function that trains theta, in place, from a step to a step, and returns status and the step it ended at."""
    watched = (monitor.cancel, monitor.progress)
    if params.training == "minimiser":

        def rest(first: int, last: int) -> tuple[int, int]:
            monitor.progress[0] = last
            return kernels.DONE if monitor.cancel[0] == 0 else kernels.CANCELLED, last

        return rest
    if params.training == "descent":
        if params.encoder == "table":
            modes = encoders.flip_modes(params, 2) if params.augmentation == "flip" else ()
            flat = spectrum.flat_modes(modes)
            return lambda first, last: kernels.descend_table(*flat, params.learning_rate, theta, first, last, *watched)
        here = encoders.moments(params, replicate)
        return lambda first, last: kernels.descend(
            here.C, here.C_plus, params.learning_rate, theta, first, last, *watched
        )
    streams = [generator(params.seed, STREAMS[name], replicate) for name in ("bits", "first", "second")]
    flat_theta = theta.reshape(-1)
    mean, square = np.zeros_like(flat_theta), np.zeros_like(flat_theta)
    fixed = (
        *encoders.augmentation(params), *encoders.arguments(params, replicate), _layers(params), params.n_features,
        kernels.OPTIMISERS[params.training], params.learning_rate, params.steps, params.batch, flat_theta, mean, square,
    )  # fmt: skip
    return lambda first, last: kernels.train(*fixed, first, last, *streams, *watched)


def _look(params: InductiveBiasParams, replicate: int) -> Look:
    """A function that measures an encoder: exactly, or a network on fresh examples, the same at every step."""
    if params.encoder == "table":
        seen = encoders.views(params)

        def at_all_views(theta: Array) -> tuple[float, float, float]:
            Z = outputs(params, replicate, theta)
            found = encoders.whole_probe(Z, seen.weight, seen.targets, params.intercept)
            return loss(params, replicate, theta), *found

        return at_all_views
    if params.encoder != "mlp":
        frame = encoders.frame(params, replicate)
        return lambda theta: (loss(params, replicate, theta), *encoders.framed_probe(frame, theta))
    n, layers = params.n_test, _layers(params)
    first, second, bits = encoders.draw(params, replicate, 2 * n, "fresh_")
    targets = encoders.labels(params, bits)

    def sampled(theta: Array) -> tuple[float, float, float]:
        fit, one, two = (network.forward(layers, theta, x)[1] for x in (first[:n], first[n:], second[n:]))
        found = encoders.held_out_probe(fit, targets[:n], one, targets[n:], params.intercept)
        return pairs_loss(one, two), *found

    return sampled


def _finals(params: InductiveBiasParams, replicate: int, values: Array, theta: Array) -> Mapping[str, Any]:
    finite = bool(np.all(np.isfinite(theta)))
    k = params.n_features
    r2, right = np.full(k, np.nan), np.full(k, np.nan)
    if params.training == "minimiser":
        seen = encoders.views(params)
        Z = outputs(params, replicate, theta)
        r2, right = encoders.nested_probe(Z, seen.weight, seen.targets, params.intercept)
    shape = (params.dim, params.dim)
    known = params.encoder != "mlp"
    return {
        "eigenvalues": values[:KEPT],
        "units": float(np.sum(values > 1.0 - UNIT)) if known else math.nan,
        "r2_by_k": r2,
        "accuracy_by_k": right,
        "gram": gram(params, replicate, theta) if finite else np.full(shape, np.nan),
    }


# -- budget ------------------------------------------------------------------------------------------------------


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each kind of work: batches, exact descent, network passes, measuring."""
    from ..engine import RunMonitor
    from .lab import LAB, look_work, network_work, work

    def trained(name: str, **changes: Any) -> Callable[[], float]:
        params = InductiveBiasParams.make(replicates=1, **changes)
        network = params.encoder == "mlp"
        count = params.steps * network_work(params) if network else work(params).per_replicate[name]

        def probe_once() -> float:
            monitor = RunMonitor.allocate(LAB, params).of(0)
            _advance(params, 0, start_of(params, 0), monitor)(0, params.steps)
            return count

        return probe_once

    def measure() -> float:
        params = InductiveBiasParams.make()
        theta, look = start_of(params, 0), _look(params, 0)
        for _ in range(10):
            look(theta)
        return 10.0 * look_work(params.views, min(params.n_features, params.views))

    return {
        "batch": trained("batch", steps=200),
        "descend": trained("descend", training="descent", steps=2000),
        "network": trained("network", encoder="mlp", training="adam", steps=20),
        "measure": measure,
    }
