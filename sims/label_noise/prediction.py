"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from theory import label_noise as theory
from theory.mirror import projection

from ..engine import About, Prediction, Trace
from .lab import Data, LabelNoiseParams, Regression, draw, recorded_steps

Array = NDArray[np.float64]

CACHE_BYTES = 256e6  # of theory kept in memory, least recently used first out
TRANSIENT_FLOW_TIME = 10.0  # gradient-flow time eta*k*alpha^2 after which the loss has settled
TRANSIENT_SLOW_TIME = 0.2
RECOVERED = 0.02  # of the truth's l1 norm
LP_RECOVERED = 1e-4
CROSSED = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # shares of a run left when fading noise is held against the flow

_PAPER = "HaoChen et al. 2021"
_FLOW = "entropy projection that solves the slow flow of Li, Wang & Arora 2022"
_FLOOR = "stationary covariance of the residual, to leading order in the learning rate"


@dataclass(frozen=True)
class Flow:
    """The slow flow on one data set from one start; what was followed once is known from then on.

    `find_zeros` as for `theory.slow_flow`.
    """

    regression: Regression
    number: int
    init_scale: float
    signed: bool
    find_zeros: bool = True
    known: dict[float, Array] = field(default_factory=dict)  # (d,) by slow time

    @cached_property
    def data(self) -> Data:
        return draw(self.regression, self.number)

    @cached_property
    def end(self) -> tuple[Array, float]:
        """(d,) where it ends, and at what rate."""
        return end_point(self.regression, self.signed, self.number)

    def at(self, times: Array) -> Array:
        """(T, d) at nondecreasing slow times."""
        wanted = times.tolist()
        if all(time in self.known for time in wanted):
            return np.array([self.known[time] for time in wanted])
        X, y, c, _ = self.data
        path = theory.slow_flow(X, y, c, self.init_scale, times, signed=self.signed, find_zeros=self.find_zeros)
        self.known.update(zip(wanted, path, strict=True))
        return path

    @cached_property
    def gradient_flow(self) -> Array:
        """(d,) where gradient flow ends, and the slow flow starts."""
        if 0.0 in self.known:
            return self.known[0.0]
        return theory.gradient_flow_limit(self.data.X, self.data.y, self.init_scale, signed=self.signed)

    @cached_property
    def norms(self) -> theory.WeightedNorms:
        """What the clocks of batch-one runs have in common."""
        X, y, c, _ = self.data
        return theory.WeightedNorms(X, y, c, self.init_scale, find_zeros=self.find_zeros)

    @cached_property
    def norm_growth(self) -> float:
        """Growth of the squared norm where gradient flow ends, under spherical noise."""
        return theory.norm_growth(self.data.X, self.data.y, self.gradient_flow)


@dataclass(frozen=True)
class Chalk:
    """What the theory says about one data set on some steps; everything is computed when first asked for."""

    params: LabelNoiseParams
    step: NDArray[np.int64]
    flow: Flow

    @property
    def data(self) -> Data:
        return self.flow.data

    @property
    def bytes(self) -> int:
        """What its arrays take when all of them have been asked for."""
        return 8 * len(self.step) * (2 * self.data.c.size + 8)

    @cached_property
    def slow_times(self) -> Array:
        """(T,) slow time of each step."""
        return slow_time(self.params, self.step)

    @cached_property
    def clock(self) -> Array:
        """(T,) slow times as the algorithm's own clock shows them: batch-one residuals add to the noise."""
        p, data = self.params, self.data
        if p.algorithm != "sgd_label_noise" or p.signed:
            return self.slow_times
        return theory.batch_one_clock(
            data.X, data.y, data.c, p.init_scale, p.learning_rate, self.slow_times, norms=self.flow.norms
        )

    @cached_property
    def path(self) -> Array:
        """(T, d) the slow flow at the steps."""
        return self.flow.at(self.slow_times)

    @cached_property
    def clocked_path(self) -> Array | None:
        """(T, d) the slow flow on the algorithm's own clock; None where that clock does not exist."""
        if self.clock is self.slow_times:
            return self.path
        return self.flow.at(self.clock) if np.all(np.isfinite(self.clock)) else None

    @property
    def gradient_flow(self) -> Array:
        """(d,) where gradient flow ends."""
        return self.flow.gradient_flow

    @property
    def least_norm(self) -> Array:
        """(d,) the interpolator of least weighted l1 norm, where the slow flow ends."""
        return self.flow.end[0]

    @property
    def decay_rate(self) -> float:
        """The rate at which the slow flow approaches that end."""
        return self.flow.end[1]

    @cached_property
    def floor(self) -> Array:
        """(T,) eta_k delta_k^2 |beta*|_1: what constant noise leaves of the error."""
        return self._floor(self.step)

    def _floor(self, step: NDArray[np.int64]) -> Array:
        rate, noise = schedule(self.params, step)
        return np.asarray(theory.stationary_floor(rate, noise, float(np.sum(np.abs(self.data.beta_star)))))

    @cached_property
    def looked_at(self) -> tuple[NDArray[np.int64], Array]:
        """Recorded steps, spread over the run, and slow times at which fading noise is held against the flow."""
        recorded = recorded_steps(self.params)
        wanted = np.rint(self.params.steps * (1.0 - np.array(CROSSED)))
        step = recorded[np.unique(np.searchsorted(recorded, wanted))]
        return step, slow_time(self.params, step)

    @property
    def crosses(self) -> bool:
        """Whether, at one of those steps, the slow flow is below the floor of the noise."""
        step, times = self.looked_at
        return bool(np.any(self.error(self.flow.at(times)) <= self._floor(step)))

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
    return Chalk(params, recorded_steps(params), Flow(params.regression, number, params.init_scale, params.signed))


@lru_cache(maxsize=256)
def end_point(regression: Regression, signed: bool, number: int) -> tuple[Array, float]:
    """Where the slow flow on a data set ends, and at what rate; the same for every way to train on it.

    Above the recovery threshold that is the truth as a rule, and then its dual slack, wanted anyway, is the proof.
    """
    X, y, c, truth = draw(regression, number)
    on = truth != 0.0
    if regression.n > _threshold(regression, signed) and np.linalg.matrix_rank(X[:, on]) == np.count_nonzero(on):
        rate = theory.decay_rate(X, truth, c, signed=signed)
        if rate > 0.0:
            return truth, float(rate)
    beta = theory.min_weighted_l1(X, y, c, signed=signed)
    beta.flags.writeable = False
    return beta, float(theory.decay_rate(X, beta, c, signed=signed))


def _threshold(regression: Regression, signed: bool) -> float:
    """Samples beyond which the truth is recovered; of the planar model, which has one sample, infinite."""
    if regression.covariates == "planar":
        return np.inf
    return theory.recovery_threshold(regression.d, regression.sparsity, signed=signed)


def numbers(params: LabelNoiseParams) -> list[int]:
    """The data sets of the run: one in all, or with fresh data one per replicate."""
    last = params.first_replicate + (params.replicates if params.fresh_data else 1)
    return [params.data_number(r) for r in range(params.first_replicate, last)]


def chalks(params: LabelNoiseParams) -> list[Chalk]:
    """One for each data set of the run."""
    return [chalk(params, number) for number in numbers(params)]


def predict(params: LabelNoiseParams) -> Prediction:
    """The chalk lines; over fresh data, their mean over the run's data sets."""
    return _predict(params, chalks(params))


def predict_ends(points: Sequence[LabelNoiseParams]) -> list[Prediction]:
    """The chalk lines on the last step of each run; the slow flow on a data set is followed once for all of them."""
    flows: dict[tuple[Regression, int, float, bool], Flow] = {}
    every: list[list[Chalk]] = []
    for params in points:
        regression, last = params.regression, recorded_steps(params)[-1:]
        every.append([])
        for number in numbers(params):
            identity = (regression, number, params.init_scale, params.signed)
            if identity not in flows:
                flows[identity] = flow = Flow(*identity, find_zeros=False)
                _ = flow.end  # while the data set is at hand
            every[-1].append(Chalk(params, last, flows[identity]))
    asked: dict[int, set[float]] = {}
    for one in (one for those in every for one in those):
        asked.setdefault(id(one.flow), {0.0}).update(_asked(one))
    for flow in flows.values():
        flow.at(np.array(sorted(asked[id(flow)])))
    return [_predict(params, those) for params, those in zip(points, every, strict=True)]


def _asked(one: Chalk) -> list[float]:
    """The slow times at which the prediction of the end asks for the slow flow."""
    if not _follows(one.params):
        return []
    times = [one.slow_times, one.clock[np.isfinite(one.clock)], one.looked_at[1] if _anneals(one.params) else []]
    return [float(time) for part in times for time in part]


def _predict(params: LabelNoiseParams, every: list[Chalk]) -> Prediction:
    """The chalk lines on the steps of `every`."""
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, found: list[float] | list[Array] | None, note: About) -> None:
        mean = None if found is None else found[0] if len(found) == 1 else np.mean(np.array(found), axis=0)
        values[name] = mean if isinstance(mean, np.ndarray) and mean.ndim else None if mean is None else float(mean)
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
    threshold = _threshold(params.regression, params.signed)
    planar = "the planar model has one sample" if params.covariates == "planar" else ""
    source = "Donoho & Tanner; statistical dimension of the descent cone"
    add("recovery_threshold", None if planar else [threshold], About("limit", source, reason=planar))
    spherical = params.algorithm == "gaussian_noise" and not params.signed
    growth = [one.flow.norm_growth for one in every] if spherical else None
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
    add("norm_sq", norms, _norm_note(params, note))
    add("equipartition", [1.0] if spherical else None, About("limit", "equipartition of the residual", reason=note))
    return Prediction(step=first.step, prediction=values, about=about)


def _norm_note(params: LabelNoiseParams, silent: str) -> About:
    """Where the growth of the squared norm is claimed: from a dense limit of gradient flow on."""
    source = "limit of gradient flow, then growth at the rate of the Ito correction"
    n, d = params.shape
    if silent or 2 * n >= d:
        reason = silent or "with d/2 samples or more gradient flow ends where weights vanish, and the formula fails"
        return About("limit", source, 0.0, params.steps + 1, None, reason)
    step = recorded_steps(params)
    start = _first(step, _settled(params, step))
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
    step = recorded_steps(params)
    settled = _settled(params, step)
    if params.algorithm == "gd":
        return _first(step, settled), None, "gradient flow has not settled yet"
    start = _first(step, settled & (slow_time(params, step) >= TRANSIENT_SLOW_TIME))
    reason = "before that the loss is still falling along gradient flow"
    kind = params.noise_schedule if params.is_active("noise_schedule") else "constant"
    if kind == "stairs":
        return start, 2 * params.steps // 3, f"{reason}; after the second drop of the rate slow modes stay half relaxed"
    if _anneals(params) and _follows(params):
        last = None
        if one.crosses:  # from the first of the steps at hand at which it does
            below = np.flatnonzero(one.error(one.path) <= one.floor)
            last = int(one.step[below[0] - 1]) if len(below) and below[0] > 0 else int(one.step[0]) - 1
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


def _anneals(params: LabelNoiseParams) -> bool:
    return params.is_active("noise_schedule") and params.noise_schedule == "anneal"


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
