"""Training many replicates at once with torch: on the exact loss, on minibatches of prompts, or on a finite set.

The loops of `kernels.descend`, `sampled.train_on_batches` and `finite.GrowingSet` with a batch axis. A device is never
asked at every step how it fares: the exact gradient is looked at some hundred steps at a time, its losses where a bound
of them does not say enough, and replicates whose batches diverge are held where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import RunMonitor
from ..engine.on_device import array, tensor
from . import kernels, sampled, training
from .lab import LinearAttentionParams
from .torch_landscape import BlockDescent, Blocks, Chart, FactoredDescent, Landscape, LiteralDescent
from .torch_prompts import Drawn, Draws, Teachers, all_moments, examples, gram_moments, useful_moments

Array = NDArray[np.float64]

HELD = 64  # states to be recorded that are measured together


class Recorder:
    """What is recorded on the way: the monitor's series, diagonals of every replicate, and frames of the first."""

    def __init__(self, params: LinearAttentionParams, monitor: RunMonitor, step: NDArray[np.int64],
                 frame_step: NDArray[np.int64], diagonal: Array, frames: Array):  # fmt: skip
        self.params, self.monitor, self.step = params, monitor, step
        self.diagonal, self.frames = diagonal, frames
        self.at = {int(k): i for i, k in enumerate(step)}
        self.frame_at = {int(k): i for i, k in enumerate(frame_step)}
        monitor.records[:] = np.nan

    def write(self, steps: Sequence[int], landscape: Landscape, at: Blocks, losses: Sequence[Array],
              stopped: NDArray[np.int64]) -> None:  # fmt: skip
        """What is recorded at some steps, step after step of all B replicates: blocks (steps * B, ...), losses alike.

        `stopped` (B,) are the steps at which replicates diverged, -1 where they have not.
        """
        where, B = [self.at[k] for k in steps], len(stopped)
        alive = (stopped < 0) | (np.array(steps)[:, None] < stopped)
        sizes, diagonal = landscape.recorded(at, self.diagonal.shape[2])
        values = np.concatenate([np.stack(losses, axis=1), sizes], axis=1).reshape(len(steps), B, -1)
        diagonal = diagonal.reshape(len(steps), B, -1)
        self.monitor.records[:, :, where] = np.where(alive[..., None], values, np.nan).transpose(1, 2, 0)
        self.diagonal[:, where] = np.where(alive[..., None], diagonal, np.nan).transpose(1, 0, 2)
        framed = [i for i, k in enumerate(steps) if k in self.frame_at and alive[i, 0]]
        if framed:
            first = Blocks(*(block[[i * B for i in framed]] for block in at))
            self.frames[[self.frame_at[steps[i]] for i in framed]] = landscape.matrix(first, self.frames.shape[1])


# -- the exact gradient ----------------------------------------------------------------------------------------


def descend(
    params: LinearAttentionParams, replicates: range, recorder: Recorder, device: str, dtype: str
) -> list[training.Trained]:
    """Gradient descent on the population loss; none where the run is cancelled."""
    landscape = Landscape(params.law, params.attention_scale, device, dtype)
    theta = np.stack([training.start(params, r) for r in replicates])
    first = np.stack([training.blocks_of(params, one) for one in theta])
    model: BlockDescent | FactoredDescent | LiteralDescent
    if params.model == "separate_key_query":
        model = FactoredDescent(landscape, theta, params.learning_rate)
    elif params.model == "literal":
        model = LiteralDescent(landscape, theta, params.learning_rate)
    else:
        model = BlockDescent(landscape, landscape.whitened(first), params.skip, params.learning_rate)
    B, d, steps, monitor = len(replicates), params.dim, params.steps, recorder.monitor
    even = params.has_even_blocks
    stopped, ended = np.full(B, -1), np.empty_like(first)
    limit = np.full(B, np.inf)
    held: list[Blocks] = []
    held_steps: list[int] = []
    begin = 0
    while True:
        monitor.progress[:] = begin
        if monitor.cancel[0]:
            return []
        count = min(model.steps, steps - begin)
        model.advance(count)
        every = model.blocks(slice(0, count + 1))
        if begin == 0:
            limit = kernels.LOSS_LIMIT * _total(landscape, Blocks(*(block[:B] for block in every)), even)
        last = count if begin + count == steps else count - 1  # else it comes first in what is next
        far = torch.reshape(landscape.at_most(every), (count + 1, B))
        if not np.all(array(torch.amax(far, dim=0)) <= limit):  # only then may one have diverged
            total = np.reshape(_total(landscape, every, even), (count + 1, B))
            beyond = ~(total <= limit)[: last + 1] & (stopped < 0)
            for r in np.flatnonzero(np.any(beyond, axis=0)):
                late = int(np.argmax(beyond[:, r]))
                stopped[r], ended[r] = begin + late, landscape.as_they_are(model.blocks([late]))[r]
                if params.commuting and late < count:
                    # The kernel of commuting matrices has moved A, and not c, when it sees the loss.
                    after = landscape.as_they_are(model.blocks([late + 1]))[r]
                    ended[r, d + 1 : d + 1 + d * d] = after[d + 1 : d + 1 + d * d]
        chosen = [k for k in range(last + 1) if begin + k in recorder.at]
        if chosen:
            rows = np.add.outer(np.array(chosen) * B, np.arange(B)).ravel()
            held.append(Blocks(*(block[rows] for block in every)))
            held_steps += [begin + k for k in chosen]
        begin += count
        finished = begin == steps or bool(np.all(stopped >= 0))
        if held and (finished or len(held_steps) >= HELD):
            at = Blocks(*map(torch.cat, zip(*held, strict=True)))
            odd, own = (array(part) for part in landscape.losses(at, even))
            recorder.write(held_steps, landscape, at, (odd + own, own), stopped)
            held, held_steps = [], []
        if finished:
            break
        model.restart(count)
    monitor.progress[:] = begin
    final = landscape.as_they_are(model.blocks([count]))
    blocks = np.where((stopped < 0)[:, None], final, ended)
    return [training.trained(params, blocks[r], first[r], int(stopped[r])) for r in range(B)]


def _total(landscape: Landscape, at: Blocks, even: bool) -> Array:
    odd, own = landscape.losses(at, even)
    return array(odd + own)


# -- on batches ------------------------------------------------------------------------------------------------


def train_on_batches(
    params: LinearAttentionParams, replicates: range, recorder: Recorder, device: str, dtype: str
) -> list[training.Trained]:
    """SGD or Adam on minibatches of fresh prompts; none where the run is cancelled."""
    start = np.stack([training.start(params, r) for r in replicates])
    theta = tensor(start, device, dtype)
    landscape = Landscape(params.law, params.attention_scale, device, dtype)
    layer = _Stack(params, landscape) if params.stacked else _Layer(params, landscape)
    batches = Draws(params, params.law, replicates, params.has_even_blocks, False, device, dtype).batches(params.batch)
    moments = torch.zeros_like(theta), torch.zeros_like(theta)
    B, monitor = len(replicates), recorder.monitor
    nothing = theta.new_zeros(B)
    alive, stopped = torch.ones_like(nothing, dtype=torch.bool), torch.full_like(nothing, -1, dtype=torch.int64)
    largest, limit, seen, since = nothing, nothing, nothing, 0
    for k in range(params.steps + 1):
        monitor.progress[:] = k
        if monitor.cancel[0]:
            return []
        slope = theta
        if k < params.steps or not params.population:
            loss, slope = layer.gradient(theta, next(batches))
            if k * params.batch < sampled.SETTLING:
                largest = torch.maximum(largest, loss)
                limit = kernels.LOSS_LIMIT * largest
            inside = loss <= limit
            stopped = torch.where(alive & ~inside, k, stopped)
            alive = alive & inside
            seen, since = seen + loss, since + 1
        if k in recorder.at:
            at, ends = layer.effective(theta), stopped.cpu().numpy()
            if params.population:
                odd, even = landscape.losses(at, params.has_even_blocks)
                losses = array(odd + even), array(even)
            else:
                losses = array(seen / since), np.full(B, np.nan)
                seen, since = nothing, 0
            recorder.write([k], landscape, at, losses, ends)
            if np.all(ends >= 0):
                break
        if k < params.steps:
            moved = _updated(params, k, theta, slope, moments)
            theta = torch.where(alive[:, None], moved, theta)
    weights, stops = array(theta), stopped.tolist()
    if params.stacked:
        return [training.trained_stack(params, weights[r], stops[r]) for r in range(B)]
    return [
        training.trained(params, training.blocks_of(params, weights[r]), training.blocks_of(params, start[r]), stops[r])
        for r in range(B)
    ]


def _updated(
    params: LinearAttentionParams, k: int, theta: torch.Tensor, slope: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """`sampled.update`; the moments are changed."""
    if params.training == "sgd":
        return theta - params.learning_rate * slope
    first, second = moments
    first.mul_(sampled.BETA_1).add_(slope, alpha=1.0 - sampled.BETA_1)
    second.mul_(sampled.BETA_2).addcmul_(slope, slope, value=1.0 - sampled.BETA_2)
    rate = params.learning_rate * 0.5 * (1.0 + math.cos(math.pi * k / params.steps))
    grown_1, grown_2 = 1.0 - sampled.BETA_1 ** (k + 1), 1.0 - sampled.BETA_2 ** (k + 1)
    return theta - rate * (first / grown_1) / (torch.sqrt(second / grown_2) + sampled.EPSILON)


class _Layer:
    """One layer on a batch: `sampled.batch_gradient` and the chart that leads to it."""

    def __init__(self, params: LinearAttentionParams, landscape: Landscape):
        self.params, self.landscape = params, landscape
        self.chart = Chart(params.model, landscape, params.skip or params.model == "literal")
        self.teachers = Teachers(params, params.law, landscape.device, landscape.dtype)

    def effective(self, theta: torch.Tensor) -> Blocks:
        """The blocks, on covariates of unit variance."""
        return self.chart.unpack(theta)

    def gradient(self, theta: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) mean squared error, and (B, P) its gradient in the weights."""
        params, teachers, at = self.params, self.teachers, self.chart.unpack(theta)
        even, explicit, n = params.has_even_blocks, not params.moments_known, params.context_length
        X, W = drawn.query, teachers.weights(drawn)
        AX = X @ at.A.transpose(1, 2)
        if explicit:
            g, s, target = examples(teachers, W, drawn)
        else:
            w = W[..., 0, :]
            target = torch.sum(w * X, dim=2) + teachers.noise_std * drawn.label_noise[..., 0]
            if even:
                both, s = all_moments(w, at.u[:, None], AX, n, params.noise_var, drawn, self.landscape.dtype)
                g, Su, Sa = both.unbind(2)
            else:
                g = useful_moments(w, params.noise_var, drawn)
        if explicit and even:
            on = torch.stack([at.u[:, None].expand_as(AX), AX], dim=3)
            Su, Sa = (drawn.covariate.transpose(2, 3) @ (drawn.covariate @ on)).unbind(3)
        c, along = at.c[:, None], torch.sum(AX * g, dim=2)
        prediction = c * along
        if even:
            beta, ug = torch.sum(at.b[:, None] * X, dim=2), torch.sum(at.u[:, None] * g, dim=2)
            prediction = prediction + torch.sum(AX * Su + at.h[:, None] * X, dim=2) + beta * (ug + c * s)
        error = prediction - target
        e = error * (2.0 / params.batch)
        pulled, zero = c[..., None] * g, torch.zeros_like(at.u)
        du, dc, db, dh = zero, torch.sum(e * along, dim=1), zero, zero
        if even:
            pulled = pulled + Su
            dc = torch.sum(e * (along + s * beta), dim=1)
            du = torch.sum(e[..., None] * (beta[..., None] * g + Sa), dim=1)
            db, dh = (torch.sum((e * factor)[..., None] * X, dim=1) for factor in (ug + c * s, 1.0))
        dA = (e[..., None] * pulled).transpose(1, 2) @ X
        return torch.mean(error * error, dim=1), self.chart.pull(theta, Blocks(du, dc, dA, db, dh))


class _Stack:
    """Stacked layers of one matrix each on a batch: `sampled.stack_gradient`."""

    def __init__(self, params: LinearAttentionParams, landscape: Landscape):
        self.params, self.landscape = params, landscape
        self.square = params.attention_scale * landscape.root[:, None] * landscape.root
        self.teachers = Teachers(params, params.law, landscape.device, landscape.dtype)

    def matrices(self, theta: torch.Tensor) -> torch.Tensor:
        """(B, layers, d, d) on covariates of unit variance."""
        return self.square * theta.view(len(theta), self.params.layers, self.params.dim, self.params.dim)

    def effective(self, theta: torch.Tensor) -> Blocks:
        """All layers added, as if they were one: c = 1 and A' their sum."""
        total = torch.sum(self.matrices(theta), dim=1)
        zero = torch.zeros_like(total[:, 0])
        return Blocks(zero, torch.ones_like(zero[:, 0]), total.transpose(1, 2), zero, zero)

    def gradient(self, theta: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) mean squared error, and (B, P) its gradient in the weights."""
        A, X = self.matrices(theta), drawn.query
        S, g, target = stack_moments(self.params, self.teachers, self.params.context_length, drawn)
        felt, answer = [], torch.zeros_like(g)
        for j in range(self.params.layers):
            felt.append(g)
            step = g @ A[:, j].transpose(1, 2)
            answer, g = answer + step, g - (S @ step[..., None])[..., 0]
        error = torch.sum(X * answer, dim=2) - target
        e = error * (2.0 / self.params.batch)
        back, slopes = torch.zeros_like(g), []
        for j in reversed(range(self.params.layers)):
            pulled = e[..., None] * X - (S @ back[..., None])[..., 0]
            slopes.append(pulled.transpose(1, 2) @ felt[j])
            back = back + pulled @ A[:, j]
        slope = self.square * torch.stack(slopes[::-1], dim=1)
        return torch.mean(error * error, dim=1), slope.flatten(1)


def stack_moments(
    params: LinearAttentionParams, teachers: Teachers, n: int, drawn: Drawn
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, prompts, d, d) S = X'X, (B, prompts, d) g = X'y, and the targets where there are queries."""
    W = teachers.weights(drawn)
    if not params.moments_known:
        g, _, target = examples(teachers, W, drawn)
        return drawn.covariate.transpose(2, 3) @ drawn.covariate, g, target
    w = W[..., 0, :]
    S, g = gram_moments(w, n, teachers.noise_std**2, drawn)
    if not drawn.query.shape[2]:
        return S, g, g[..., 0]
    return S, g, torch.sum(w * drawn.query, dim=2) + teachers.noise_std * drawn.label_noise[..., 0]


# -- on a finite set -------------------------------------------------------------------------------------------


def least_squares(
    params: LinearAttentionParams, replicates: range, recorder: Recorder, device: str, dtype: str
) -> list[training.Trained]:
    """Least squares on a growing set of prompts; none where the run is cancelled.

    The set is drawn in the precision asked for and solved in float64, whatever that is: where it is as large as its
    unknowns their condition number takes all digits of float32.
    """
    law, most, R = params.law, params.n_prompts, len(replicates)
    draws = Draws(params, law, replicates, False, False, device, dtype)
    teachers = Teachers(params, law, device, dtype)
    root = teachers.root
    sets = [torch.empty((R, 0, size), device=device, dtype=torch.float64) for size in (params.dim**2 + 1,)]
    features = []
    for drawn in draws.parts(most):
        w = teachers.weights(drawn)[..., 0, :]
        g = useful_moments(w, law.noise_var, drawn) * root
        target = torch.sum(w * drawn.query, dim=2) + teachers.noise_std * drawn.label_noise[..., 0]
        products = ((root * drawn.query)[..., :, None] * g[..., None, :]).flatten(2)
        features.append(torch.cat([products, target[..., None]], dim=2).to(torch.float64))
    rows, seen = torch.cat(features, dim=1), sets[0]
    landscape = Landscape(law, 1.0, device, "float64")
    monitor, found = recorder.monitor, [training.fitted(params, np.zeros((params.dim, params.dim)))] * R
    before = 0
    for k in map(int, recorder.step):
        for begin in range(before, k, training.CHUNK):
            if monitor.cancel[0]:
                return []
            seen = torch.cat([seen, rows[:, begin : min(begin + training.CHUNK, k)]], dim=1)
            if seen.shape[1] > seen.shape[2]:
                seen = torch.linalg.qr(seen, mode="r").R
            monitor.progress[:] = min(begin + training.CHUNK, k)
        before = k
        Q = array(solved(seen)).reshape(R, params.dim, params.dim)
        found = [training.fitted(params, one) for one in Q]
        at = landscape.whitened(np.stack([one.blocks for one in found]))
        odd, even = landscape.losses(at, False)
        recorder.write([k], landscape, at, (array(odd + even), array(even)), np.full(R, -1))
    return found


def solved(rows: torch.Tensor) -> torch.Tensor:
    """(R, unknowns) least-squares solutions of least norm; rows (R, count, unknowns + 1), the right side last."""
    X, y = rows[..., :-1], rows[..., -1:]
    if not X.shape[1]:
        return torch.zeros_like(X.new_empty((len(X), X.shape[2])))
    U, size, V = torch.linalg.svd(X, full_matrices=False)
    kept = size > np.finfo(np.float64).eps * max(X.shape[1:]) * size[:, :1]
    share = torch.where(kept, (U.transpose(1, 2) @ y)[..., 0] / torch.where(kept, size, 1.0), 0.0)
    return (V.transpose(1, 2) @ share[..., None])[..., 0]


# -- test ------------------------------------------------------------------------------------------------------


def test(
    params: LinearAttentionParams, replicates: range, found: Sequence[training.Trained], monitor: RunMonitor,
    device: str, dtype: str,
) -> list[dict[str, float]]:  # fmt: skip
    """`training.test` of every replicate."""
    d, sums = params.dim, np.full((len(found), sampled.SUMS), np.nan)
    blocks = np.stack([one.blocks for one in found])
    blocks[:, d + 1 : 2 * d + 1 + d * d] *= params.test_factor
    whole = np.array([training.tested_whole(params, one) for one in blocks])
    ended = np.array([one.stop_step < 0 for one in found])
    for even in (False, True):
        chosen = np.flatnonzero((whole == even) & ended)
        if len(chosen):
            stacks = params.test_factor * np.stack([found[r].stack for r in chosen])
            numbers = [replicates[r] for r in chosen]
            sums[chosen] = _tested(params, numbers, even, blocks[chosen], stacks, monitor, device, dtype)
    return [training.measured(None if np.isnan(one).all() else one, params.n_test) for one in sums]


def _tested(
    params: LinearAttentionParams, numbers: Sequence[int], even: bool, blocks: Array, stacks: Array,
    monitor: RunMonitor, device: str, dtype: str,
) -> Array:  # fmt: skip
    """(replicates, SUMS) the sums of `sampled.test_layer`; NaN where the run is cancelled."""
    law, explicit, stacked = params.test_law, not params.moments_known, params.stacked
    landscape = Landscape(law, 1.0, device, dtype)
    at, teachers = landscape.whitened(blocks), Teachers(params, law, device, dtype)
    square = landscape.root[:, None] * landscape.root
    B = square * tensor(stacks, device, dtype)
    total = torch.zeros((len(numbers), sampled.SUMS), device=device, dtype=torch.float64)
    for drawn in _parts(params, numbers, even, device, dtype):
        if monitor.cancel[0]:
            return np.full(total.shape, np.nan)
        W = teachers.weights(drawn)
        w, s, target = W[..., 0, :], None, None
        if stacked:
            S, g, target = stack_moments(params, teachers, law.n, drawn)
        elif explicit:
            g, s, target = examples(teachers, W, drawn)
        elif even:
            u = at.u[:, None]
            both, s = all_moments(w, u, torch.zeros_like(w), law.n, law.noise_var, drawn, dtype)
            g, Su = both[:, :, 0], both[:, :, 1]
        else:
            g = useful_moments(w, law.noise_var, drawn)
        if explicit:
            met = torch.sum(landscape.lam * g * drawn.query, dim=2)
            along, size = met * target, met * met
        else:
            along = torch.sum(landscape.lam * g * w, dim=2)
            size = torch.sum((landscape.lam * g) ** 2, dim=2)
        if stacked:
            what = torch.zeros_like(g)
            for j in range(params.layers):
                step = g @ B[:, j].transpose(1, 2)
                what, g = what + step, g - (S @ step[..., None])[..., 0]
        else:
            felt = at.c[:, None, None] * g
            if even and explicit:
                X = drawn.covariate
                felt = felt + (X.transpose(2, 3) @ (X @ at.u[:, None, :, None]))[..., 0]
            elif even:
                felt = felt + Su
            what = felt @ at.A
            if even:
                ug = torch.sum(at.u[:, None] * g, dim=2)
                what = what + (ug + at.c[:, None] * s)[..., None] * at.b[:, None] + at.h[:, None]
        if explicit:
            error = (target - torch.sum(what * drawn.query, dim=2)) ** 2
        else:
            error = torch.sum((w - what) ** 2, dim=2) + law.noise_var
        e, p, q = error.to(torch.float64), along.to(torch.float64), size.to(torch.float64)
        total += torch.stack([torch.sum(x, dim=1) for x in (e, e * e, p, q, p * p, q * q, p * q)], dim=1)
    return array(total)


def _parts(
    params: LinearAttentionParams, numbers: Sequence[int], even: bool, device: str, dtype: str
) -> Iterator[Drawn]:
    return Draws(params, params.test_law, numbers, even, True, device, dtype).parts(params.n_test)
