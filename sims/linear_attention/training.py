"""One replicate: its start, its training by the kernel that its params ask for, and its test on fresh prompts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine import Monitor, generator
from . import descent, finite, kernels, prompts, sampled
from .lab import STREAMS, LinearAttentionParams

Array = NDArray[np.float64]

NEGLIGIBLE = 1e-9  # share of the loss below which its even part is not drawn in a test
CHUNK = 64  # prompts added to a growing set between two looks at the cancel flag
TRAINING = ("task", "chi_square", "noise", "covariate", "query", "label_noise", "teacher_sign")
TESTING = ("test_task", "test_chi_square", "test_noise", "test_covariate", "test_label_noise", "test_teacher_sign")


class Trained(NamedTuple):
    """A layer after training; its blocks act on prompts of the length of training, the attention's factor included."""

    blocks: Array  # (d*d + 3d + 1,), [u, c, A, b, h]
    stack: Array  # (layers, d, d) of stacked layers, else (0, d, d)
    Q: Array  # (d, d), effective on X^T y; of stacked layers the sum of their matrices
    start: Array  # (2,): c and tr(A)/sqrt(d) at the start, the attention's factor left out
    layer_steps: Array  # (layers,): mean diagonals, ascending
    stop_step: int  # at which it diverged, or -1


def train(
    params: LinearAttentionParams,
    replicate: int,
    step: NDArray[np.int64],
    frame_step: NDArray[np.int64],
    diagonal: Array,
    frames: Array,
    monitor: Monitor,
) -> Trained:
    """Train one replicate; diagonal and frames are written as `kernels.descend` says."""
    if params.training == "finite_prompts":
        return _least_squares(params, replicate, step, frame_step, diagonal, frames, monitor)
    law = params.law
    lam, t = np.array(law.spectrum), np.array(law.task)
    if params.commuting:
        return _commuting(params, step, frame_step, diagonal, frames, monitor)
    theta = start(params, replicate)
    chart = kernels.CHARTS[params.model]
    skip = params.skip or params.model == "literal"
    first = np.zeros(0) if params.stacked else blocks_of(params, theta)
    recording = (step, frame_step, diagonal, frames)
    if params.training == "exact_gradient":
        training = (
            skip, lam, t, law.n, law.noise_var, params.attention_scale, theta, params.learning_rate, params.steps,
            *recording, *monitor,
        )  # fmt: skip
        if params.in_lanes:
            status, last = descent.descend_full(*training)
        else:
            status, last = kernels.descend(chart, *training)
    else:
        status, last = sampled.train_on_batches(
            chart, skip, params.layers if params.stacked else 1, params.training == "adam",
            not params.moments_known, prompts.TEACHERS[params.teacher], width(params),
            prompts.COVARIATES[params.covariates], params.degrees_of_freedom, params.population, lam, t,
            params.prior_mean, law.n, law.noise_var, params.attention_scale, theta, params.learning_rate, params.steps,
            params.batch, *recording, *_generators(params, replicate, TRAINING), *monitor,
        )  # fmt: skip
    stop = last if status == kernels.STATUS["diverged"] else -1
    if params.stacked:
        return trained_stack(params, theta, stop)
    return trained(params, blocks_of(params, theta), first, stop)


def start(params: LinearAttentionParams, replicate: int) -> Array:
    """The flat weights at the start, in the chart of the model (see `kernels`); of stacked layers their matrices."""
    d, size = params.dim, params.init_scale
    normal = generator(params.seed, STREAMS["init"], replicate)
    if params.stacked:
        return size * normal.standard_normal(params.layers * d * d)
    chart = kernels.CHARTS[params.model]
    if params.init == "balanced":
        return _balanced(params)
    theta = size * normal.standard_normal(kernels.theta_size(chart, d))
    if params.model == "full":
        theta[:d] *= params.harmful_init
        theta[d + 1 + d * d :] *= params.harmful_init
        if not params.skip:
            theta[-d:] = 0.0
    return theta


def _balanced(params: LinearAttentionParams) -> Array:
    """c = sqrt(d) and A = I, or key = query = 1, times the scale of the start; or matrices of a layer with these."""
    d, size = params.dim, params.init_scale
    c, A = np.sqrt(d) * size, size * np.eye(d)
    if params.model == "separate_key_query":
        return np.concatenate([[c], np.full(2 * d, size)])
    if params.model == "reduced":
        return np.concatenate([[c], A.ravel()])
    if params.model == "full":
        return np.concatenate([np.zeros(d), [c], A.ravel(), np.zeros(2 * d)])
    key, value, h = np.zeros((d + 1, d + 1)), np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    key[:d, :d] = np.sqrt(size) * np.eye(d)
    value[d, d] = h[d] = np.sqrt(c)
    return np.concatenate([key.ravel(), key.ravel(), value.ravel(), h])


def _commuting(
    params: LinearAttentionParams,
    step: NDArray[np.int64],
    frame_step: NDArray[np.int64],
    diagonal: Array,
    frames: Array,
    monitor: Monitor,
) -> Trained:
    """Population gradient from a balanced start, in the d + 1 numbers that ever move."""
    law, d = params.law, params.dim
    separate = params.model == "separate_key_query"
    k = np.full(d, params.init_scale)
    status, last, c = kernels.descend_commuting(
        separate, np.array(law.spectrum), np.array(law.task), law.n, law.noise_var, params.attention_scale,
        float(np.sqrt(d) * params.init_scale), k, params.learning_rate, params.steps, step, frame_step, diagonal,
        frames, *monitor,
    )  # fmt: skip
    blocks = np.zeros(d * d + 3 * d + 1)
    blocks[d] = c
    blocks[d + 1 : d + 1 + d * d] = params.attention_scale * np.diag(k * k if separate else k).ravel()
    return trained(
        params, blocks, blocks_of(params, _balanced(params)), last if status == kernels.STATUS["diverged"] else -1
    )


def blocks_of(params: LinearAttentionParams, theta: Array) -> Array:
    """The flat blocks [u, c, A, b, h] of the flat weights `theta`, the attention's factor included."""
    d = params.dim
    blocks = np.empty(d * d + 3 * d + 1)
    kernels.unpack(kernels.CHARTS[params.model], theta, params.attention_scale, blocks)
    return blocks


def trained(params: LinearAttentionParams, blocks: Array, first: Array, stop: int) -> Trained:
    """A layer with these blocks, which started with the blocks `first`."""
    d = params.dim
    Q = np.empty((d, d))
    kernels.effective(blocks, Q)
    A = first[d + 1 : d + 1 + d * d].reshape(d, d) / params.attention_scale
    at_start = np.array([first[d], np.trace(A) / np.sqrt(d)])
    return Trained(blocks, np.zeros((0, d, d)), Q, at_start, np.array([np.trace(Q) / d]), stop)


def trained_stack(params: LinearAttentionParams, theta: Array, stop: int) -> Trained:
    """Stacked layers with the flat matrices `theta`."""
    d = params.dim
    stack = params.attention_scale * theta.reshape(-1, d, d)
    steps = np.sort(np.trace(stack, axis1=1, axis2=2) / d)
    return Trained(np.zeros(d * d + 3 * d + 1), stack, stack.sum(axis=0), np.full(2, np.nan), steps, stop)


def fitted(params: LinearAttentionParams, Q: Array) -> Trained:
    """A layer with u = b = h = 0 whose matrix Q (d, d) was fitted to a finite set."""
    d = params.dim
    blocks = np.zeros(d * d + 3 * d + 1)
    blocks[d], blocks[d + 1 : d + 1 + d * d] = 1.0, Q.T.ravel()
    return Trained(blocks, np.zeros((0, d, d)), Q, np.full(2, np.nan), np.array([np.trace(Q) / d]), -1)


def _least_squares(
    params: LinearAttentionParams,
    replicate: int,
    step: NDArray[np.int64],
    frame_step: NDArray[np.int64],
    diagonal: Array,
    frames: Array,
    monitor: Monitor,
) -> Trained:
    law, d, most = params.law, params.dim, params.n_prompts
    lam, t = np.array(law.spectrum), np.array(law.task)
    G, X, y = np.empty((most, d)), np.empty((most, d)), np.empty(most)
    streams = _generators(params, replicate, ("task", "chi_square", "noise", "query", "label_noise"))
    sampled.draw_training_set(lam, t, law.n, law.noise_var, most, *streams, G, X, y)
    seen = finite.GrowingSet(d)
    found, gradient, work = fitted(params, np.zeros((d, d))), np.empty(d * d + 3 * d + 1), np.empty((8, d))
    scratch = np.empty((d, d))
    monitor.records[:] = np.nan
    at = framed = 0
    while at < len(step) and not monitor.cancel[0]:
        before = monitor.progress[0] if at else 0
        upto = min(before + CHUNK, step[at])
        if upto > before:
            seen.add(G[before:upto], X[before:upto], y[before:upto])
        monitor.progress[0] = upto
        if upto == step[at]:
            found = fitted(params, seen.solve())
            losses = kernels.gradient_diagonal(lam, t, law.n, law.noise_var, False, found.blocks, gradient, work)
            frame = framed < len(frame_step) and frame_step[framed] == upto
            kernels.record(
                found.blocks, scratch, losses, at, framed if frame else -1, monitor.records, diagonal, frames
            )
            at, framed = at + 1, framed + frame
    return found


# -- test --------------------------------------------------------------------------------------------------------


def test(params: LinearAttentionParams, replicate: int, found: Trained, monitor: Monitor) -> dict[str, float]:
    """Mean error on fresh prompts, its standard error, and the plain step that fits those prompts best."""
    law, d = params.test_law, params.dim
    lam, t = np.array(law.spectrum), np.array(law.task)
    blocks, stack = found.blocks.copy(), params.test_factor * found.stack
    blocks[d + 1 : 2 * d + 1 + d * d] *= params.test_factor
    if found.stop_step >= 0 or monitor.cancel[0]:  # of a stopped run not even the kernel is loaded
        return measured(None, params.n_test)
    even = tested_whole(params, blocks)
    sums = np.empty(sampled.SUMS)
    finished = sampled.test_layer(
        even, not params.moments_known, prompts.TEACHERS[params.teacher], width(params),
        prompts.COVARIATES[params.covariates], params.degrees_of_freedom, lam, t, params.prior_mean, law.n,
        law.noise_var, params.n_test, blocks, stack, *_generators(params, replicate, TESTING), monitor.cancel, sums,
    )  # fmt: skip
    return measured(sums if finished else None, params.n_test)


def tested_whole(params: LinearAttentionParams, blocks: Array) -> bool:
    """Whether u, b and h are drawn in the test of a layer with these blocks, the factor of the test included."""
    law = params.test_law
    lam, t, work = np.array(law.spectrum), np.array(law.task), np.empty((8, params.dim))
    odd, even = kernels.gradient_diagonal(lam, t, law.n, law.noise_var, True, blocks, np.empty_like(blocks), work)
    return params.has_even_blocks and (not params.population or even > NEGLIGIBLE * (odd + even))


def measured(sums: Array | None, count: int) -> dict[str, float]:
    """What the sums of `sampled.test_layer` over `count` prompts say; NaN where there are none."""
    names = ("test_loss", "test_loss_se", "regressed_step_size", "regressed_step_size_se")
    if sums is None:
        return dict.fromkeys(names, np.nan)
    e, ee, p, q, pp, qq, pq = sums / count
    eta = p / q if q > 0 else np.nan
    spread = max(pp - 2.0 * eta * pq + eta * eta * qq, 0.0) if q > 0 else np.nan
    values = (e, np.sqrt(max(ee - e * e, 0.0) / count), eta, np.sqrt(spread / count) / q if q > 0 else np.nan)
    return dict(zip(names, map(float, values), strict=True))


def why_diverged(params: LinearAttentionParams) -> str:
    """Why a replicate stopped, with the learning rate and how large it may be."""
    words = f"the loss grew beyond {kernels.LOSS_LIMIT:g} times that of the start at learning rate "
    words += f"{params.learning_rate:g}"
    if params.training != "exact_gradient":
        return words
    bound = edge(params)
    return f"{words}; near the balanced minimum gradient descent is stable up to {bound:.3g}"


def edge(params: LinearAttentionParams) -> float:
    """Largest learning rate at which gradient descent is stable at the balanced minimum of the model.

    Two over the largest curvature of the population loss there, taken by differences of the simulated gradient along
    the directions in which it is largest: power iteration. Of the literal layer it is that of `full`, in whose blocks
    its curvature depends on how its matrices share them.
    """
    law, d = params.law, params.dim
    lam, t = np.array(law.spectrum), np.array(law.task)
    model = "full" if params.model == "literal" else params.model
    chart = kernels.CHARTS[model]
    scale = params.attention_scale
    v1 = float(lam @ t) + law.noise_var
    q = t / ((law.n + 1.0) * lam * t + v1) / scale
    if model == "separate_key_query":
        c = np.sum(q) ** (1.0 / 3.0)
        theta = np.concatenate([[c], np.sqrt(q / c), np.sqrt(q / c)])
    else:
        c = np.sqrt(np.linalg.norm(q))
        blocks = np.concatenate([np.zeros(d), [c], np.diag(q / c).ravel(), np.zeros(2 * d)])
        theta = blocks if model == "full" else blocks[d : d + 1 + d * d]
    blocks, out, work = np.empty(d * d + 3 * d + 1), np.empty(d * d + 3 * d + 1), np.empty((8, d))

    def slope(at: Array) -> Array:
        kernels.unpack(chart, at, scale, blocks)
        kernels.gradient_diagonal(lam, t, law.n, law.noise_var, model == "full", blocks, out, work)
        move = np.empty(len(at))
        kernels.pull(chart, params.skip, at, scale, out, move)
        return move

    direction = 1.0 + np.cos(np.arange(len(theta)))
    curvature, small = 0.0, 1e-5 * float(np.linalg.norm(theta))
    for _ in range(300):
        direction /= np.linalg.norm(direction)
        bent = (slope(theta + small * direction) - slope(theta - small * direction)) / (2.0 * small)
        curvature, direction = float(np.linalg.norm(bent)), bent
    return 2.0 / curvature


# -- parts -------------------------------------------------------------------------------------------------------


def width(params: LinearAttentionParams) -> int:
    """Hidden neurons of what gives the labels."""
    return params.teacher_width if params.teacher == "network" else 1


def _generators(
    params: LinearAttentionParams, replicate: int, names: tuple[str, ...]
) -> tuple[np.random.Generator, ...]:
    return tuple(generator(params.seed, STREAMS[name], replicate) for name in names)
