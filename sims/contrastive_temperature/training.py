"""One replicate: the share of class is found, a table is trained, or the force on uniform negatives is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Replicate, generator, thin
from ..engine.normals import normals
from . import kernels
from .lab import BINS, STREAMS, ContrastiveTemperatureParams, recorded_steps

if TYPE_CHECKING:
    from ..engine import Monitor

Array = NDArray[np.float64]
SERIES = ("share", "tolerance", "uniformity", "loss", "mean_similarity", "log_mean_exp", "force_entropy", "tau_now")
SHOWN_AXES = 3  # of the points in the frames
HALF_TURN = 0.5 * math.pi


@dataclass(frozen=True)
class Directions:
    """u (N, D) of each example's class, v and v' (N, D) of its instance in both views; or their products alone."""

    uu: Array  # u_i.u_j
    uv: Array  # u_i.v'_j
    vu: Array  # v_i.u_j
    vv: Array  # v_i.v'_j
    same: Array  # v_i.v_j
    f_cross: Array  # u_i.v_i
    g_cross: Array  # u_i.v'_i
    g_own: Array  # |v'_i|^2

    @property
    def of_pairs(self) -> tuple[Array, ...]:
        """What the kernels take."""
        return self.uu, self.uv, self.vu, self.vv, self.f_cross, self.g_cross, self.g_own


def labels(params: ContrastiveTemperatureParams) -> NDArray[np.int64]:
    """(N,) class of each example."""
    return np.repeat(np.arange(params.classes), params.per_class)


def directions(params: ContrastiveTemperatureParams, replicate: int) -> Directions:
    """Orthonormal classes and random instances, v' = a v + sqrt(1 - a^2) w; or all as orthogonal as can be."""
    label, N, a = labels(params), params.examples, params.overlap
    mates = (label[:, None] == label).astype(np.float64)
    if params.geometry == "ideal":
        none, flat = np.zeros((N, N)), np.zeros(N)
        return Directions(mates, none, none, a * np.eye(N), np.eye(N), flat, flat, np.ones(N))
    D = params.feature_dim
    basis = np.linalg.qr(generator(params.seed, STREAMS["classes"], replicate).standard_normal((D, params.classes)))[0]
    v, w = (_units(generator(params.seed, STREAMS[name], replicate), N, D) for name in ("instances", "views"))
    other = a * v + math.sqrt(1.0 - a * a) * w
    u = np.ascontiguousarray(basis.T[label])
    return Directions(
        mates, u @ other.T, v @ u.T, v @ other.T, v @ v.T,
        np.sum(u * v, axis=1), np.sum(u * other, axis=1), np.sum(other**2, axis=1),
    )  # fmt: skip


def _units(rng: np.random.Generator, count: int, dim: int) -> Array:
    found = normals(rng, (count, dim))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def one_view(here: Directions, theta: float) -> Array:
    """f_i.f_j (N, N) of the first views at a share sin(theta)^2."""
    s, c = math.sin(theta), math.cos(theta)
    size = np.sqrt(1.0 + 2.0 * s * c * here.f_cross)
    mixed = here.vu + here.vu.T
    return np.asarray((s * s * here.uu + s * c * mixed + c * c * here.same) / np.outer(size, size))


def positives(params: ContrastiveTemperatureParams) -> Array:
    """T (N, N): the chance that j is the positive of i."""
    label, N = labels(params), params.examples
    mates = (label[:, None] == label) & ~np.eye(N, dtype=bool)
    return (1.0 - params.swap) * np.eye(N) + params.swap / (params.per_class - 1) * mates


# -- measuring ---------------------------------------------------------------------------------------------------


def tolerance(gram: Array, label: NDArray[np.int64]) -> float:
    """Mean similarity of two different examples of one class."""
    mates = (label[:, None] == label) & ~np.eye(len(label), dtype=bool)
    return float(np.mean(gram[mates]))


def uniformity(gram: Array) -> float:
    """log mean exp(-2 |f_i - f_j|^2) over pairs of different examples."""
    N = len(gram)
    force = np.exp(-4.0 * (1.0 - gram))
    return math.log((float(np.sum(force)) - float(np.trace(force))) / (N * (N - 1)))


def force(S: Array, tau: float) -> tuple[float, float]:
    """Mean over examples of the force-weighted similarity and of the entropy of the force, relative to equal forces."""
    N = len(S)
    P = np.empty_like(S)
    kernels.softmax(np.ascontiguousarray(S), tau, False, P)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.sum(np.where(P > 0.0, P * np.log(P), 0.0), axis=1)
    return float(np.mean(np.sum(P * S, axis=1))), float(np.mean(entropy)) - math.log(N - 1)


def class_accuracy(gram: Array, label: NDArray[np.int64]) -> float:
    """Share of examples whose nearest neighbour among the others is of their class."""
    others = np.where(np.eye(len(gram), dtype=bool), -np.inf, np.round(gram, 9))
    return float(np.mean(label[np.argmax(others, axis=1)] == label))


def retrieval(S: Array) -> float:
    """Share of second views whose nearest first view is their own; S_ij = f_i.g_j, of ties the first counts."""
    return float(np.mean(np.argmax(np.round(S, 9), axis=0) == np.arange(len(S))))


# -- one replicate -----------------------------------------------------------------------------------------------

Advance = Callable[[int, int], tuple[int, int]]
Look = Callable[[int], Mapping[str, float]]


def simulate(params: ContrastiveTemperatureParams, replicate: int, monitor: Monitor) -> Replicate:
    step = recorded_steps(params)
    moving = params.model == "table" and replicate == params.first_replicate
    frame_step = thin(step) if replicate == params.first_replicate else step[:0]
    advance, look, finish, points = _MODELS[params.model](params, replicate, monitor)
    axes = min(params.sphere_dim, SHOWN_AXES) if moving else 1
    frames = np.zeros((len(frame_step), params.examples if moving else 1, axes))
    status, at, framed = kernels.DONE, 0, 0
    for index, wanted in enumerate(step):
        if wanted > at:
            status, at = advance(at, int(wanted))
            if status != kernels.DONE:
                break
        row = look(int(wanted))
        monitor.records[:, index] = [row.get(name, math.nan) for name in SERIES]
        if framed < len(frame_step) and frame_step[framed] == wanted:
            frames[framed] = points()[:, :axes]
            framed += 1
    return Replicate(finals=finish(), frame_step=frame_step, frames={"points": frames})


Parts = tuple[Advance, Look, Callable[[], Mapping[str, Any]], Callable[[], Array]]


def _nowhere() -> Array:
    return np.zeros((1, 1))


def _two_level(params: ContrastiveTemperatureParams, replicate: int, monitor: Monitor) -> Parts:
    here, label, N = directions(params, replicate), labels(params), params.examples
    fixed = params.fit == "fixed"
    angle = math.asin(math.sqrt(params.class_share)) if fixed else 0.0
    bracket = np.array([angle, angle]) if fixed else np.array([0.0, HALF_TURN])
    S, slope, P = (np.empty((N, N)) for _ in range(3))

    def advance(first: int, last: int) -> tuple[int, int]:
        if fixed:
            monitor.progress[0] = last
            return kernels.DONE if monitor.cancel[0] == 0 else kernels.CANCELLED, last
        watched = (monitor.cancel, monitor.progress)
        return kernels.narrow(bracket, params.temperature, *here.of_pairs, first, last, *watched)

    def theta() -> float:
        return 0.5 * float(bracket[0] + bracket[1])

    @lru_cache(maxsize=1)  # a bracket that does not move any more is looked at once
    def seen(theta: float) -> Mapping[str, float]:
        loss, _ = kernels.share_loss(theta, params.temperature, *here.of_pairs, S, slope, P)
        gram = one_view(here, theta)
        mean, entropy = force(S, params.temperature)
        return {
            "share": math.sin(theta) ** 2,
            "tolerance": tolerance(gram, label),
            "uniformity": uniformity(gram),
            "loss": loss,
            "mean_similarity": mean,
            "force_entropy": entropy,
            "tau_now": params.temperature,
        }

    def look(step: int) -> Mapping[str, float]:
        return seen(theta())

    def finish() -> Mapping[str, Any]:
        kernels.share_loss(theta(), params.temperature, *here.of_pairs, S, slope, P)
        return {
            "class_accuracy": class_accuracy(one_view(here, theta()), label),
            "retrieval": retrieval(S),
            "force_by_angle": np.full(BINS, np.nan),
        }

    return advance, look, finish, _nowhere


def _temperature(params: ContrastiveTemperatureParams, step: int) -> float:
    if params.schedule == "constant":
        return params.temperature
    return params.start_temperature * (params.temperature / params.start_temperature) ** (step / params.steps)


def _table(params: ContrastiveTemperatureParams, replicate: int, monitor: Monitor) -> Parts:
    label, T = labels(params), positives(params)
    f = _units(generator(params.seed, STREAMS["init"], replicate), params.examples, params.sphere_dim)
    ends = _temperature(params, 0), params.temperature
    S, P = (np.empty((params.examples, params.examples)) for _ in range(2))

    def advance(first: int, last: int) -> tuple[int, int]:
        rest = (params.steps, params.learning_rate, params.own_in_denominator, first, last)
        return kernels.train_table(f, T, *ends, *rest, monitor.cancel, monitor.progress)

    def look(step: int) -> Mapping[str, float]:
        tau, gram = _temperature(params, step), f @ f.T
        mean, entropy = force(gram, tau)
        loss = kernels.table_step(f.copy(), T, tau, 0.0, params.own_in_denominator, S, P)
        return {
            "tolerance": tolerance(gram, label),
            "uniformity": uniformity(gram),
            "loss": loss,
            "mean_similarity": mean,
            "force_entropy": entropy,
            "tau_now": tau,
        }

    def finish() -> Mapping[str, Any]:
        gram = f @ f.T
        return {
            "class_accuracy": class_accuracy(gram, label),
            "retrieval": retrieval(gram),
            "force_by_angle": np.full(BINS, np.nan),
        }

    return advance, look, finish, lambda: f


def _sphere(params: ContrastiveTemperatureParams, replicate: int, monitor: Monitor) -> Parts:
    sums, bins = np.zeros(3), np.zeros(BINS)
    streams = [generator(params.seed, STREAMS[name], replicate) for name in ("normal", "chisquare")]

    def advance(first: int, last: int) -> tuple[int, int]:
        rest = (params.negatives, sums, bins, first, last, *streams, monitor.cancel, monitor.progress)
        return kernels.draw_negatives(float(params.sphere_dim), params.temperature, *rest)

    def look(step: int) -> Mapping[str, float]:
        if sums[0] <= 0.0:
            return {"tau_now": params.temperature}
        mean, total = sums[1] / sums[0], math.log(sums[0] / sums[2])
        return {
            "mean_similarity": mean,
            "log_mean_exp": total,
            "force_entropy": total + (1.0 - mean) / params.temperature,
            "tau_now": params.temperature,
        }

    def finish() -> Mapping[str, Any]:
        whole = float(np.sum(bins))
        density = bins / (whole * math.pi / BINS) if whole > 0.0 else np.full(BINS, np.nan)
        return {"class_accuracy": math.nan, "retrieval": math.nan, "force_by_angle": density}

    return advance, look, finish, _nowhere


_MODELS = {"two_level": _two_level, "table": _table, "sphere": _sphere}


# -- budget ------------------------------------------------------------------------------------------------------


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each kind of work: halvings, directions, steps of a table, uniform negatives."""
    from ..engine import RunMonitor
    from .lab import LAB, work

    def advanced(per_step: float, **changes: Any) -> Callable[[], float]:
        params = ContrastiveTemperatureParams.make(replicates=1, **changes)

        def probe_once() -> float:
            monitor = RunMonitor.allocate(LAB, params).of(0)
            _MODELS[params.model](params, 0, monitor)[0](0, params.steps)
            return params.steps * per_step

        return probe_once

    def draw() -> float:
        params = ContrastiveTemperatureParams.make()
        directions(params, 0)
        return work(params).per_replicate["directions"]

    return {
        "share": advanced(1e4, geometry="ideal", steps=20),
        "directions": draw,
        "table": advanced(1e4 * 1.3 + 300.0, model="table", steps=50),
        "negatives": advanced(1000.0, model="sphere", steps=20),
    }
