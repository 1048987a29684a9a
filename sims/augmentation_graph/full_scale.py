"""The augmentation graph with torch: all replicates of a run at once, on any device, and its confirmations.

The backend trains what `training` trains, with a batch axis. The graph, the eigenpairs that an embedding is compared
with, and all noise are those of the lab: a basis of an eigenspace is a choice, like a seed. The confirmations have
solvers, graphs and noise of their own; see `full_scale_cube`, `full_scale_blocks` and `full_scale_glyphs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Replicate, RunMonitor, Stop, generator, thin
from ..engine.on_device import array, tensor
from ..graphs import network, on_device, spectrum
from . import kernels
from .full_scale_blocks import CONFIRMATIONS as _BLOCKS
from .full_scale_cube import CONFIRMATIONS as _CUBE
from .full_scale_glyphs import CONFIRMATIONS as _GLYPHS
from .lab import BATCHED, LEVELS, STREAMS, AugmentationGraphParams, recorded_steps
from .training import SHOWN_AXES, Setting, advice, finals, layers_of, placed, setting, shown_nodes, start_of

Array = NDArray[np.float64]

BLOCK_NUMBERS = 2**20  # uniform numbers drawn ahead
CONFIRMATIONS = (*_CUBE, *_BLOCKS, *_GLYPHS)

Look = Callable[[], torch.Tensor]  # F (R, N, k) now, in float64
Step = Callable[[int], torch.Tensor]  # take step number t; (R,) whether an embedding is out of bounds


class Task(NamedTuple):
    """What is trained: the params, the graph with its eigenpairs, which replicates, and where."""

    params: AugmentationGraphParams
    here: Setting
    replicates: range
    device: str
    dtype: str

    def tensor(self, values: NDArray[np.floating]) -> torch.Tensor:
        return tensor(values, self.device, self.dtype)

    def stack(self, each: Callable[[int], Array]) -> torch.Tensor:
        """(R, ...) what `each` says of every replicate."""
        return self.tensor(np.stack([each(r) for r in self.replicates]))


def batch_bytes(params: AugmentationGraphParams, replicates: int, dtype: str) -> float:
    """Bytes on the device: embeddings and what a step and a measurement compute of them, the kernel of views, pairs."""
    size = {"float64": 8.0, "float32": 4.0}[dtype]
    nodes, k, R = float(params.nodes), float(params.n_features), float(replicates)
    batched = params.training in BATCHED
    entries = float(params.entries) * (48.0 if params.training != "eigen" else 16.0)
    most = R * nodes * k * (8.0 * size + 8.0 * 8.0) + R * nodes * params.n_classes * 24.0
    if batched:
        most += R * params.batch * (12.0 * k * size + 120.0) + 120.0 * max(BLOCK_NUMBERS, R * params.batch)
    if params.training == "network":
        inputs = 100.0 * params.colours if params.graph == "glyphs" else 64.0
        weights = params.width * (inputs + params.width + k)
        rows = min(nodes, 2.0 * params.batch)
        most += R * size * (6.0 * weights + rows * (inputs + 6.0 * params.width)) + 8.0 * nodes * inputs * R
    pairs = 8.0 * nodes * 2.0 * max(20.0, k + 8.0)  # eigenpairs, on the processor too
    return most + min(entries, 48.0 * 1e7) + pairs


def simulate_batch(
    params: AugmentationGraphParams, replicates: range, monitor: RunMonitor, device: str, dtype: str
) -> list[Replicate]:
    """All replicates at once; see `engine.backends`. What is recorded at step t is measured after t updates.

    A replicate whose embedding has left all bounds goes on unheeded: it shares no sum with the others.
    """
    here, step = setting(params), recorded_steps(params)
    task = Task(params, here, replicates, device, dtype)
    bases = [spectrum.turned(here.pairs, generator(params.seed, STREAMS["basis"], r)) for r in replicates]
    advance, look = _eigen(task, bases) if params.training == "eigen" else _TRAINING[params.training](task)
    measure = Measure(here, device)
    frame_step = thin(step) if params.training != "eigen" else step[-1:]
    framed = {int(t): i for i, t in enumerate(frame_step)}
    frames = np.full((len(frame_step), len(shown_nodes(here.graph)), min(here.k, SHOWN_AXES)), np.nan)
    stopped = torch.full((len(replicates),), -1, dtype=torch.int64, device=device)
    alive, at = np.arange(len(replicates)), 0
    for index, wanted in enumerate(step):
        for t in range(at, int(wanted)):
            monitor.progress[:] = t
            if monitor.cancel[0]:
                return []
            outside = advance(t)
            stopped = torch.where((stopped < 0) & outside, t + 1, stopped)
        at = int(wanted)
        alive = np.flatnonzero(array(stopped) < 0)
        if not len(alive):
            break
        if params.training != "eigen" or index == 0:
            F = look()
            rows = measure(F[tensor(alive, device)], at * params.time_step)
        monitor.records[alive, :, index] = rows
        if at in framed and alive[0] == 0:
            frames[framed[at]] = placed(here, array(F[0]))
    monitor.progress[:] = params.steps
    F = array(F)
    F[array(stopped) >= 0] = np.nan
    return [
        Replicate(
            finals=finals(here, basis, F[r]),
            frame_step=frame_step if r == 0 else step[:0],
            frames={"embedding": frames if r == 0 else frames[:0]},
            stopped=None if end < 0 else Stop(int(end), advice(params, here)),
        )
        for r, (basis, end) in enumerate(zip(bases, array(stopped).astype(int), strict=True))
    ]


class Measure:
    """The recorded series of embeddings, in float64 whatever they were trained in; see `training.measured`."""

    def __init__(self, here: Setting, device: str):
        graph = here.graph
        self.here = here
        self.apply = on_device.operator_of(graph, device, "float64")
        self.label, self.w = tensor(graph.label, device), tensor(graph.w, device)
        self.targets, self.vectors = tensor(here.targets, device), tensor(here.pairs.vectors, device)
        level = np.arange(here.shown_levels)[:, None] == here.level
        self.level = tensor(level / here.kept[: here.shown_levels, None], device)

    def __call__(self, F: torch.Tensor, time: float) -> Array:
        """(R, series) in the order of the lab's series, of F (R, N, k) at that time of the flow."""
        basis, _ = on_device.span(F)
        mse, wrong = on_device.probe_errors(basis, self.targets, self.label, self.w)
        angle = torch.full_like(mse, math.nan)
        if not self.here.degenerate:
            angle = on_device.tangent(basis, self.vectors[:, : self.here.k])
        mass = torch.matmul(torch.sum(torch.matmul(self.vectors.T, F) ** 2, dim=2), self.level.T)
        absent = torch.full((len(F), LEVELS - mass.shape[1]), math.nan, dtype=F.dtype, device=F.device)
        columns = [on_device.loss(self.apply, F), mse, wrong, angle, torch.full_like(mse, time)]
        return array(torch.cat([torch.stack(columns, dim=1), mass, absent], dim=1))


# -- training --------------------------------------------------------------------------------------------------------


def _eigen(task: Task, bases: list[spectrum.Pairs]) -> tuple[Step, Look]:
    """The minimiser, from each replicate's basis of the eigenspaces; there is nothing to train."""
    k = task.here.k
    F = task.tensor(np.stack([basis.vectors[:, :k] * np.sqrt(basis.values[:k]) for basis in bases]))
    inside = torch.zeros(len(bases), dtype=torch.bool, device=task.device)
    return lambda t: inside, lambda: F.double()


def _gradient_flow(task: Task) -> tuple[Step, Look]:
    params, apply = task.params, on_device.operator_of(task.here.graph, task.device, task.dtype)
    F = task.stack(lambda r: start_of(params, r, task.here))
    bound = kernels.LIMIT * torch.sqrt(task.tensor(task.here.graph.w))[:, None]
    move = {"rk4": on_device.runge_kutta, "euler": on_device.euler}[params.integrator]

    def advance(t: int) -> torch.Tensor:
        move(apply, F, params.time_step)
        return ~torch.all((torch.abs(F) <= bound).flatten(1), dim=1)

    return advance, lambda: F.double()


def _sgd(task: Task) -> tuple[Step, Look]:
    params, graph = task.params, task.here.graph
    root = np.sqrt(graph.w)[:, None]
    f = task.stack(lambda r: start_of(params, r, task.here) / root)
    rate = task.tensor(-params.learning_rate / (graph.nodes * graph.w))
    flat, noise = f.flatten(0, 1), StreamPairs(task)
    own = torch.arange(len(f), device=task.device)[:, None, None] * graph.nodes

    def advance(t: int) -> torch.Tensor:
        nodes = noise.at(t)
        rows = (nodes + own).flatten()
        moved = on_device.batch_slopes(flat[rows].unflatten(0, nodes.shape), params.clip_norm)
        moved *= rate[nodes][..., None]
        flat.index_put_((rows,), moved.flatten(0, 2), accumulate=True)  # in a fixed order, on a GPU too
        return _outside(flat[rows].unflatten(0, nodes.shape))

    scale = tensor(root, task.device)
    return advance, lambda: f.double() * scale


def _network(task: Task) -> tuple[Step, Look]:
    """Whichever is less goes through the network: every node once, or the rows of the batch as they come."""
    params, graph = task.params, task.here.graph
    assert graph.inputs is not None
    layers, R = layers_of(params, graph).tolist(), len(task.replicates)
    theta = task.stack(lambda r: network.start(layers, generator(params.seed, STREAMS["weights"], r)))
    mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
    inputs, noise = task.tensor(graph.inputs), StreamPairs(task)
    every = inputs.expand(R, -1, -1)
    whole = graph.nodes <= 2 * params.batch
    own = torch.arange(R, device=task.device)[:, None, None] * graph.nodes

    def advance(t: int) -> torch.Tensor:
        nodes = noise.at(t)
        seen = every if whole else inputs[nodes.flatten(1)]
        made = on_device.forward(layers, theta, seen)
        rows = (nodes + own).flatten()
        z = (made[-1].flatten(0, 1)[rows] if whole else made[-1]).reshape(*nodes.shape, -1)
        pull = on_device.batch_slopes(z, params.clip_norm)
        if whole:
            total = torch.zeros_like(made[-1])
            total.view(-1, total.shape[2]).index_put_((rows,), pull.flatten(0, 2), accumulate=True)
        else:
            total = pull.flatten(1, 2)
        gradient = on_device.backward(layers, theta, seen, made, total)
        rate = 0.5 * params.learning_rate * (1.0 + math.cos(math.pi * t / params.steps))
        on_device.adam(theta, gradient, mean, square, rate, t + 1)
        return _outside(z)

    root = tensor(np.sqrt(graph.w)[:, None], task.device)
    return advance, lambda: on_device.forward(layers, theta.double(), every.double())[-1] * root


_TRAINING = {"gradient_flow": _gradient_flow, "sgd": _sgd, "network": _network}


def _outside(z: torch.Tensor) -> torch.Tensor:
    """(R,) whether an embedding of z (R, 2, B, k) is beyond the limit, or no number."""
    return ~torch.all((torch.abs(z) <= kernels.LIMIT).flatten(1), dim=1)


class StreamPairs:
    """The pairs of views of the lab's streams, block by block: those that the kernel draws one by one."""

    def __init__(self, task: Task):
        params, here = task.params, task.here
        kernel = here.graph.kernel
        self.views = on_device.Views(
            here.nat_cumulative, kernel.indptr, kernel.indices, here.view_cumulative, task.device
        )
        self.streams = [
            [generator(params.seed, STREAMS[name], r) for r in task.replicates]
            for name in ("natural", "first_view", "second_view")
        ]
        self.batch, self.steps, self.device = params.batch, params.steps, task.device
        self.block = max(1, min(4096, BLOCK_NUMBERS // (3 * params.batch * len(task.replicates))))
        self.drawn: Iterator[torch.Tensor] = iter(())

    def at(self, t: int) -> torch.Tensor:
        """(R, 2, B) nodes of the pairs of step t; steps are asked for in order."""
        if t % self.block == 0:
            shape = (min(self.block, self.steps - t), self.batch)
            uniform = [
                tensor(np.stack([rng.random(shape) for rng in stream], axis=1), self.device) for stream in self.streams
            ]
            self.drawn = iter(self.views.pairs(*uniform))
        return next(self.drawn)
