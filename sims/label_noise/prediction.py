"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from theory import label_noise as theory
from theory.mirror import projection

from ..engine import About, Prediction, Trace
from .lab import Data, LabelNoiseParams, data_numbered, recorded_steps

Array = NDArray[np.float64]

CACHE_BYTES = 256e6  # of theory kept in memory, least recently used first out
TRANSIENT_FLOW_TIME = 10.0  # gradient-flow time eta*k*alpha^2 after which the loss has settled
TRANSIENT_SLOW_TIME = 0.2
RECOVERED = 0.02  # of the truth's l1 norm
LP_RECOVERED = 1e-4

_PAPER = "HaoChen et al. 2021"
_FLOW = "entropy projection that solves the slow flow of Li, Wang & Arora 2022"
_FLOOR = "stationary covariance of the residual, to leading order in the learning rate"


@dataclass(frozen=True)
class Chalk:
    """What the theory says about one data set; everything is computed when first asked for."""

    params: LabelNoiseParams
    number: int
    data: Data
    step: NDArray[np.int64]

    @property
    def bytes(self) -> int:
        """What its arrays take when all of them have been asked for."""
        return 8 * len(self.step) * (2 * self.data.c.size + 8)

    @cached_property
    def slow_times(self) -> Array:
        """(T,) slow time of each recorded step."""
        p = self.params
        return slow_time(p, self.step)

    @cached_property
    def clock(self) -> Array:
        """(T,) slow times as the algorithm's own clock shows them: batch-one residuals add to the noise."""
        p, data = self.params, self.data
        if p.algorithm != "sgd_label_noise" or p.signed:
            return self.slow_times
        return theory.batch_one_clock(data.X, data.y, data.c, p.init_scale, p.learning_rate, self.slow_times)

    @cached_property
    def path(self) -> Array:
        """(T, d) the slow flow at the recorded steps."""
        p, data = self.params, self.data
        return theory.slow_flow(data.X, data.y, data.c, p.init_scale, self.slow_times, signed=p.signed)

    @cached_property
    def clocked_path(self) -> Array | None:
        """(T, d) the slow flow on the algorithm's own clock; None where that clock does not exist."""
        p, data = self.params, self.data
        if self.clock is self.slow_times:
            return self.path
        if not np.all(np.isfinite(self.clock)):
            return None
        return theory.slow_flow(data.X, data.y, data.c, p.init_scale, self.clock, signed=p.signed)

    @cached_property
    def gradient_flow(self) -> Array:
        """(d,) where gradient flow ends."""
        return theory.gradient_flow_limit(self.data.X, self.data.y, self.params.init_scale, signed=self.params.signed)

    @property
    def least_norm(self) -> Array:
        """(d,) the interpolator of least weighted l1 norm, where the slow flow ends."""
        return end_point(self.params.problem, self.number)[0]

    @property
    def decay_rate(self) -> float:
        """The rate at which the slow flow approaches that end."""
        return end_point(self.params.problem, self.number)[1]

    @cached_property
    def floor(self) -> Array:
        """(T,) eta_k delta_k^2 |beta*|_1: what constant noise leaves of the error."""
        rate, noise = schedule(self.params, self.step)
        return np.asarray(theory.stationary_floor(rate, noise, float(np.sum(np.abs(self.data.beta_star)))))

    @cached_property
    def floor_loss(self) -> Array:
        """(T,) mean loss of the stationary residual along the slow flow: eta delta^2 sum_j c_j |beta_j| / 4."""
        rate, noise = schedule(self.params, self.step)
        return np.asarray(rate * noise**2 * (np.abs(self.path) @ self.data.c) / 4.0)

    @cached_property
    def curvature(self) -> float:
        """The largest eigenvalue of the Hessian at the start or at the truth, whichever is larger."""
        data, start = self.data, np.full(self.data.c.size, self.params.init_scale**2)
        points = (start * (2.0 if self.params.signed else 1.0), np.abs(data.beta_star))
        norms = [float(np.linalg.norm(data.X * np.sqrt(beta), 2)) for beta in points]
        return 2.0 * max(norms) ** 2 / data.X.shape[0]

    def error(self, beta: Array) -> Array:
        """Squared distance from the truth, over the last axis."""
        return np.asarray(np.sum((beta - self.data.beta_star) ** 2, axis=-1))

    @property
    def recovery_level(self) -> float:
        return RECOVERED * float(np.sum(np.abs(self.data.beta_star)))


@cached(LRUCache(CACHE_BYTES, getsizeof=lambda made: made.bytes), lock=threading.Lock())
def chalk(params: LabelNoiseParams, number: int) -> Chalk:
    """The theory of the data set of that number, for a run with these params."""
    return Chalk(params, number, data_numbered(params, number), recorded_steps(params))


@lru_cache(maxsize=256)
def end_point(problem: LabelNoiseParams, number: int) -> tuple[Array, float]:
    """Where the slow flow on a data set ends, and at what rate; the same for every way to train on it."""
    data = data_numbered(problem, number)
    beta = theory.min_weighted_l1(data.X, data.y, data.c, signed=problem.signed)
    beta.flags.writeable = False
    return beta, float(theory.decay_rate(data.X, beta, data.c, signed=problem.signed))


def chalks(params: LabelNoiseParams) -> list[Chalk]:
    """One for each data set of the run: one in all, or with fresh data one per replicate."""
    last = params.first_replicate + (params.replicates if params.fresh_data else 1)
    return [chalk(params, params.data_number(r)) for r in range(params.first_replicate, last)]


def predict(params: LabelNoiseParams) -> Prediction:
    """The chalk lines; over fresh data, their mean over the run's data sets."""
    every = chalks(params)
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, found: list[float] | list[Array] | None, note: About) -> None:
        mean = None if found is None else np.mean(np.array(found), axis=0)
        values[name] = None if mean is None else float(mean) if mean.ndim == 0 else mean
        about[name] = note

    first = every[0]
    claimed = _claimed(params, first)
    clock = _clock_note(params)
    silent = _silence(params, every)
    paths = None if silent else [path for one in every if (path := one.clocked_path) is not None]
    floors = [one.floor if params.algorithm == "gd_label_noise" else np.zeros(len(one.step)) for one in every]

    add(
        "test_error",
        None
        if paths is None
        else [one.error(path) + floor for one, path, floor in zip(every, paths, floors, strict=True)],
        About("limit", f"{_FLOW}{clock}; plus {_FLOOR}", 0.0, *claimed[:2], silent or claimed[2]),
    )
    flows = [one.error(one.path) for one in every] if _follows(params) else None
    add("slow_flow_test_error", flows, About("limit", _FLOW, 0.0, claimed[0], None, silent or claimed[2]))
    weighted = None if paths is None else [np.abs(path) @ one.data.c for one, path in zip(every, paths, strict=True)]
    add("weighted_l1", weighted, About("limit", f"{_FLOW}{clock}", 0.0, *claimed[:2], silent or claimed[2]))
    add("slow_time", [one.slow_times for one in every], About("exact", "sum of (eta*delta)^2 over the steps taken"))
    label_noise = params.algorithm == "gd_label_noise"
    losses = [one.floor_loss for one in every] if label_noise else None
    add(
        "train_loss", losses, About("limit", _FLOOR, 0.0, *claimed[:2], claimed[2] or "only for full-batch label noise")
    )
    add("noise_floor", [one.floor for one in every], About("limit", _FLOOR))
    quiet = silent or ("" if params.delta > 0 else "there is no noise to shrink the weights")
    shrinks = None if quiet else [-np.mean(one.data.c) * one.clock for one in every]
    source = f"{_PAPER}; weights shrink at rate c_j on the slow clock{clock}"
    add("mean_shrink", shrinks, About("limit", source, reason=quiet))
    add(
        "gradient_flow_test_error",
        [float(one.error(one.gradient_flow)) for one in every],
        About("exact", "entropy projection of the start (Woodworth et al. 2020)"),
    )
    add(
        "lp_test_error",
        [float(one.error(one.least_norm)) for one in every],
        About("limit", "linear program of least weighted l1 norm"),
    )
    rates = [one.decay_rate for one in every]
    finite = bool(np.all(np.isfinite(rates)))
    pinned = "" if finite else "the constraints alone fix the solution: nothing is left to decay"
    about_rate = About("limit", "best dual slack of that linear program", reason=pinned)
    add("decay_rate", rates if finite else None, about_rate)
    if params.covariates == "planar":
        values["recovery_threshold"] = None
        about["recovery_threshold"] = About("limit", "statistical dimension", reason="the planar model has one sample")
    else:
        threshold = theory.recovery_threshold(params.dim, params.sparsity, signed=params.signed)
        add(
            "recovery_threshold",
            [threshold],
            About("limit", "Donoho & Tanner; statistical dimension of the descent cone"),
        )
    spherical = params.algorithm == "gaussian_noise" and not params.signed
    growth = [theory.norm_growth(one.data.X, one.data.y, one.gradient_flow) for one in every] if spherical else None
    if growth is not None and not np.all(np.isfinite(growth)):
        growth = None
    note = "" if spherical else "only for Gaussian noise on the square parametrisation"
    add(
        "norm_growth",
        growth,
        About("limit", "Ito correction on the zero-loss set, at the limit of gradient flow", reason=note),
    )
    norms = None
    if growth is not None:
        pairs = zip(every, growth, strict=True)
        norms = [np.sum(one.gradient_flow) + slope * one.slow_times for one, slope in pairs]
    add("norm_sq", norms, _norm_note(params, first, note))
    add("equipartition", [1.0] if spherical else None, About("limit", "equipartition of the residual", reason=note))
    return Prediction(step=first.step, prediction=values, about=about)


def _norm_note(params: LabelNoiseParams, one: Chalk, silent: str) -> About:
    """Where the growth of the squared norm is claimed: from a dense limit of gradient flow on."""
    source = "limit of gradient flow, then growth at the rate of the Ito correction"
    n, d = params.shape
    if silent or 2 * n >= d:
        reason = silent or "with d/2 samples or more gradient flow ends where weights vanish, and the formula fails"
        return About("limit", source, 0.0, params.steps + 1, None, reason)
    start = _first(one.step, _settled(params, one.step))
    return About("limit", source, 0.0, start, None, "before that the loss is still falling along gradient flow")


def derive(params: LabelNoiseParams, trace: Trace) -> Mapping[str, Array]:
    """(R,) metrics that need the theory."""
    every = chalks(params) if params.fresh_data else chalks(params) * params.replicates
    found = {
        "conserved_mismatch": np.array([_mismatch(params, one, trace, r) for r, one in enumerate(every)]),
        "lp_recovered": np.array([one.error(one.least_norm) < LP_RECOVERED for one in every], dtype=float),
    }
    if _follows(params):
        reached = [one.error(one.path[-1]) < one.recovery_level for one in every]
        found["slow_flow_recovered"] = np.array(reached, dtype=float)
    if params.algorithm == "gaussian_noise" and not params.signed:
        found |= _spherical(params, trace)
    return found


def schedule(params: LabelNoiseParams, step: NDArray[np.int64]) -> tuple[Array, Array]:
    """(T,) learning rate and noise standard deviation at the given zero-based steps."""
    rate = np.full(len(step), params.learning_rate)
    noise = np.full(len(step), params.delta)
    kind = params.noise_schedule if params.is_active("noise_schedule") else "constant"
    if kind == "anneal":
        noise *= (1.0 - step / params.steps) ** 2
    if kind == "stairs":
        thirds = (step >= params.steps // 3).astype(int) + (step >= 2 * params.steps // 3)
        rate /= 10.0**thirds
    return rate, noise


def slow_time(params: LabelNoiseParams, step: NDArray[np.int64]) -> Array:
    """(T,) sum of (eta_k delta_k)^2 over the steps before each given one, in closed form."""
    unit = (params.learning_rate * params.delta) ** 2
    kind = params.noise_schedule if params.is_active("noise_schedule") else "constant"
    k, total = step.astype(np.float64), float(params.steps)
    if kind == "anneal":
        return np.asarray(unit * (_fourth_powers(total) - _fourth_powers(total - k)) / total**4)
    if kind == "stairs":
        ends = np.array([params.steps // 3, 2 * params.steps // 3], dtype=np.float64)
        first, second = np.minimum(k, ends[0]), np.clip(k - ends[0], 0.0, ends[1] - ends[0])
        return np.asarray(unit * (first + second / 100.0 + np.maximum(k - ends[1], 0.0) / 10_000.0))
    return np.asarray(unit * k)


def _fourth_powers(m: float | Array) -> float | Array:
    """1^4 + 2^4 + ... + m^4 (Faulhaber)."""
    return m * (m + 1) * (2 * m + 1) * (3 * m * m + 3 * m - 1) / 30.0


def _claimed(params: LabelNoiseParams, one: Chalk) -> tuple[int | None, int | None, str]:
    """First and last step on which the chalk line of the error is claimed, and why not elsewhere."""
    settled = _settled(params, one.step)
    if params.algorithm == "gd":
        return _first(one.step, settled), None, "gradient flow has not settled yet"
    start = _first(one.step, settled & (one.slow_times >= TRANSIENT_SLOW_TIME))
    reason = "before that the loss is still falling along gradient flow"
    kind = params.noise_schedule if params.is_active("noise_schedule") else "constant"
    if kind == "stairs":
        return start, 2 * params.steps // 3, f"{reason}; after the second drop of the rate slow modes stay half relaxed"
    if kind == "anneal" and _follows(params):
        above = one.error(one.path) > one.floor
        below = np.flatnonzero(~above)
        last = int(one.step[max(below[0] - 1, 0)]) if len(below) else None
        return (
            start,
            last,
            f"{reason}; once the slow flow is below the floor of the noise, fading noise no longer follows it",
        )
    return start, None, reason


def _settled(params: LabelNoiseParams, step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(T,) whether gradient flow has had the time to bring the loss down."""
    rate, _ = schedule(params, step)
    return np.cumsum(np.diff(step, prepend=0) * rate) * params.init_scale**2 >= TRANSIENT_FLOW_TIME


def _first(step: NDArray[np.int64], condition: NDArray[np.bool_]) -> int:
    """The first step at which a condition holds; beyond the end where it never does."""
    return int(step[np.argmax(condition)]) if np.any(condition) else int(step[-1]) + 1


def _follows(params: LabelNoiseParams) -> bool:
    """Whether the slow flow is about this algorithm: label noise, or none (the flow then stays at its start)."""
    return params.algorithm in ("gd", "gd_label_noise", "sgd_label_noise")


def _clock_note(params: LabelNoiseParams) -> str:
    return ", on the clock that the batch-one residual speeds up" if params.algorithm == "sgd_label_noise" else ""


def _silence(params: LabelNoiseParams, every: list[Chalk]) -> str:
    """Why no chalk line of the error is drawn at all; empty where it is."""
    if params.algorithm in ("minibatch_noise", "sgd"):
        return "mini-batch noise dies out with the loss: the theory gives no end point, only one between the others"
    if params.algorithm == "gaussian_noise":
        return "spherical noise has no stationary path: the norm grows"
    if params.algorithm == "sgd_label_noise" and params.signed:
        return "the batch-one clock is derived for the square parametrisation only"
    if any(one.clocked_path is None for one in every):
        return "the learning rate times the weighted l1 norm reaches 1: the batch-one clock diverges"
    return ""


def _mismatch(params: LabelNoiseParams, one: Chalk, trace: Trace, r: int) -> float:
    """Distance of the last iterate from the projection that the conserved quantity predicts, relative to its size.

    Every update lies in the row space of X, so that the iterate is the entropy projection of its own shrunken
    start onto {X beta = X beta_K}: an identity for every algorithm but additive noise.
    """
    if params.algorithm == "gaussian_noise" or trace.stopped[r] is not None:
        return float("nan")
    beta, drift = trace.finals["beta"][r], trace.finals["linear_drift"][r]
    shrink, asymmetry = trace.finals["log_scale"][r], trace.finals["log_asymmetry"][r]
    log_scale = 2.0 * np.log(params.init_scale) + shrink + (0.0 if params.signed else 2.0 * drift)
    shift = asymmetry + 2.0 * drift if params.signed else None
    if not (np.all(np.isfinite(log_scale)) and np.all(np.isfinite(beta))):
        return float("nan")
    X = one.data.X
    found = projection(X, X @ beta, log_scale, shift, signed=params.signed).beta
    return float(np.max(np.abs(found - beta)) / max(1.0, np.max(np.abs(beta))))


def _spherical(params: LabelNoiseParams, trace: Trace) -> dict[str, Array]:
    """Growth of |v|^2 on the slow clock (its martingale part taken off) and the residual against equipartition."""
    n, _ = params.shape
    level = theory.equipartition_level(n, params.learning_rate, params.noise_std)
    clock = trace.series["slow_time"]
    start = np.searchsorted(trace.step * params.learning_rate * params.init_scale**2, TRANSIENT_FLOW_TIME)
    start = min(int(start), len(trace.step) - 2)
    drift = trace.series["norm_sq"] - trace.series["noise_work"]
    late = np.diff(trace.step, prepend=0) >= np.max(np.diff(trace.step)) // 2  # the even grid
    late[:start] = False
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = (drift[:, -1] - drift[:, start]) / (clock[:, -1] - clock[:, start])
        squares = 4.0 * n * np.mean(trace.series["train_loss"][:, late], axis=1)
    return {"norm_growth": growth, "equipartition": squares / level}
