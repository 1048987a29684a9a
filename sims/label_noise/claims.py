"""The paper's sentences about label noise, and the sentences that are false on purpose, as executable claims.

Errors are one standard error over replicates; that of a median is 1.2533 sd/sqrt(R), its value for normal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import Check, farthest, first_broken, mean_se

if TYPE_CHECKING:
    from ..engine import Run
    from .lab import LabelNoiseParams
    from .prediction import Chalk

Array = NDArray[np.float64]

_PAPER = "HaoChen et al. 2021"
_FLOW = "Li, Wang & Arora 2022, the limiting flow in closed form"
_MIRROR = "multiplicative updates as mirror descent; Woodworth et al. 2020"
_CORRECTION = "next order in the learning rate"
_WINDOW = 0.5  # of slow time
# Learning rate times curvature up to which corrections of the next order are below 3 %: of the label noise's clock,
# and of the residual under spherical noise, where the curvature grows during the run.
_SMALL, _TINY = 0.25, 0.1
_MEDIAN = 1.2533


# -- numbers from runs ---------------------------------------------------------------------------------------


def _median(values: Array) -> tuple[float, float | None]:
    """Median and its standard error over the finite entries."""
    finite = values[np.isfinite(values)]
    _, error = mean_se(finite)
    return (float(np.median(finite)) if len(finite) else math.nan), None if error is None else _MEDIAN * error


def _chalk(params: LabelNoiseParams, replicate: int = 0) -> Chalk:
    from .prediction import chalk

    return chalk(params, params.data_number(params.first_replicate + replicate))


def _chalks(run: Run) -> list[Chalk]:
    """The theory of each replicate's data."""
    return [_chalk(run.params, r) for r in range(run.trace.replicates)]


def _nearest(run: Run, times: Sequence[float]) -> NDArray[np.int64]:
    """Indices of the recorded steps nearest to the given slow times, without those beyond the run's end."""
    clock = _chalk(run.params).slow_times
    spacing = float(np.max(np.diff(clock)))
    return np.array([np.argmin(np.abs(clock - T)) for T in times if clock[-1] > T - spacing], dtype=np.int64)


def _ratios(
    run: Run, name: str, theory: Callable[[Chalk], Array], times: Sequence[float]
) -> list[tuple[float, float | None]]:
    """For each slow time, recorded over predicted: mean over replicates, and its standard error."""
    at = _nearest(run, times)
    predicted = np.array([theory(one)[at] for one in _chalks(run)])
    return [mean_se(column) for column in (run.trace.series[name][:, at] / predicted).T]


def _slow_flow_error(one: Chalk) -> Array:
    return one.error(one.path)


def _slow_flow_norm(one: Chalk) -> Array:
    return np.asarray(np.abs(one.path) @ one.data.c)


def _clocked_error(one: Chalk) -> Array:
    path = one.clocked_path
    return np.full(len(one.step), math.nan) if path is None else one.error(path)


def _slow_time_end(params: LabelNoiseParams) -> float:
    from .prediction import slow_time

    return float(slow_time(params, np.array([params.steps]))[0])


# -- kinds of run --------------------------------------------------------------------------------------------


def _drawn(p: LabelNoiseParams) -> bool:
    return p.covariates != "planar"


def _label_noise(p: LabelNoiseParams) -> bool:
    return p.algorithm == "gd_label_noise" and p.noise_std > 0


def _schedule(p: LabelNoiseParams) -> str:
    return p.noise_schedule if p.is_active("noise_schedule") else "constant"


def _batch_one(p: LabelNoiseParams) -> bool:
    return p.algorithm == "sgd_label_noise" and p.noise_std > 0 and not p.signed and _drawn(p)


def _descent(p: LabelNoiseParams) -> bool:
    return p.algorithm == "gd" and not p.signed and _drawn(p)


def _spherical(p: LabelNoiseParams) -> bool:
    return p.algorithm == "gaussian_noise" and p.noise_std > 0 and not p.signed and _drawn(p)


def _published_size(p: LabelNoiseParams) -> bool:
    """The paper's model, which the studies over many runs keep: d = 100, r = 5, Gaussian rows, square."""
    return p.covariates == "gaussian" and not p.signed and (p.dim, p.sparsity) == (100, 5)


# -- assumptions ---------------------------------------------------------------------------------------------


def _constant_noise(p: LabelNoiseParams) -> str | None:
    if _schedule(p) == "constant":
        return None
    return "The noise must stay constant: fading noise leaves the slow flow once the error is down at the floor."


def _steps_below(limit: float) -> Check:
    def check(p: LabelNoiseParams) -> str | None:
        if p.learning_rate * _chalk(p).curvature < limit:
            return None
        return f"The learning rate must be small: below {limit:g} over the largest eigenvalue of the Hessian."

    return check


_stable, _small_steps, _tiny_steps = _steps_below(1.0), _steps_below(_SMALL), _steps_below(_TINY)


def _under_half(p: LabelNoiseParams) -> str | None:
    if not _drawn(p) or p.signed or 2 * p.n_train < p.dim:
        return None
    return (
        "There must be fewer samples than d/2: beyond, the nonnegative interpolators are bounded, often to one point."
    )


def _above_threshold(p: LabelNoiseParams) -> str | None:
    from theory.label_noise import recovery_threshold

    threshold = recovery_threshold(p.dim, p.sparsity, signed=p.signed)
    if p.n_train > threshold:
        return None
    return f"There must be more samples than the recovery threshold, {threshold:.1f}."


def _long_enough(p: LabelNoiseParams) -> str | None:
    one = _chalk(p)
    if one.error(one.path[-1]) < one.recovery_level / 2:
        return None
    return "The run must be long enough: the slow flow itself has not reached the truth by its end."


def _settled(p: LabelNoiseParams) -> str | None:
    from .prediction import TRANSIENT_FLOW_TIME, TRANSIENT_SLOW_TIME

    flow_time = p.learning_rate * p.steps * p.init_scale**2
    if flow_time >= TRANSIENT_FLOW_TIME and (p.algorithm == "gd" or _slow_time_end(p) > TRANSIENT_SLOW_TIME):
        return None
    return "The run must be long enough for the fall along gradient flow to be over."


def _clock_exists(p: LabelNoiseParams) -> str | None:
    one = _chalk(p)
    c = one.data.c
    if p.learning_rate * max(float(c @ one.gradient_flow), p.init_scale**2 * float(np.sum(c))) < 1.0:
        return None
    return "The learning rate times the weighted l1 norm must stay below 1: here the corrected clock diverges."


# -- the slow flow -------------------------------------------------------------------------------------------


def _judge_slow_flow(runs: Sequence[Run]) -> Measured:
    """Mean log ratio to the chalk line, over the claimed steps in the worst window of slow time."""
    (run,) = runs
    line = np.array([one.error(one.path) + one.floor for one in _chalks(run)])
    measured_error = np.maximum(run.trace.series["test_error"], np.finfo(float).tiny)  # weights underflow to 0
    log_ratio = np.log(measured_error / line)
    claimed = run.prediction.claimed("test_error")
    window = np.floor(_chalk(run.params).slow_times / _WINDOW)
    found = [mean_se(np.mean(log_ratio[:, claimed & (window == w)], axis=1)) for w in np.unique(window[claimed])]
    measured, error = farthest(found, 0.0) if found else (math.nan, None)
    return Measured(
        0.0, measured, error, math.log(2.0), f"The largest deviation is a factor of {math.exp(measured):.3g}."
    )


def _until(params: LabelNoiseParams, slow_time: float, share: float = 1.0, **changes: Any) -> LabelNoiseParams:
    """The same run at a share of the learning rate, under constant noise, stopped at a slow time.

    Where a limit of a parameter forbids that, the nearest run that can be made.
    """
    rate, most = params.fields()["learning_rate"], params.fields()["steps"].le
    allowed = float(np.clip(share * params.learning_rate, rate.ge, rate.le))
    changed = params.replace(learning_rate=allowed, **changes)
    steps = math.ceil(slow_time / (changed.learning_rate * changed.noise_std) ** 2 * (1 - 1e-12))
    return changed.replace(steps=min(max(1, steps), int(most or steps)))


def _forty(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [_until(params, 4.0, replicates=40)]


def _judge_trace_hessian(runs: Sequence[Run]) -> Measured:
    times = (1.0, 2.0, 4.0)
    return Measured(1.0, *farthest(_ratios(runs[0], "weighted_l1", _slow_flow_norm, times), 1.0), 0.03)


def _judge_early(runs: Sequence[Run]) -> Measured:
    return Measured(
        1.0, *farthest(_ratios(runs[0], "test_error", _slow_flow_error, (0.5, 1.0, 1.5, 2.0, 2.5)), 1.0), 0.05
    )


def _judge_late(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *farthest(_ratios(runs[0], "test_error", _slow_flow_error, (3.0, 4.0)), 1.0), 0.2)


def _halved(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [_until(params, 4.0, share, replicates=16) for share in (1.0, 0.5)]


def _excess(run: Run) -> tuple[float, float]:
    """Mean of the error above the slow flow, over slow times from 3 to 4."""
    late = _chalk(run.params).slow_times >= 3.0
    above = [
        series[late] - one.error(one.path)[late]
        for series, one in zip(run.trace.series["test_error"], _chalks(run), strict=True)
    ]
    mean, error = mean_se(np.mean(above, axis=1))
    return mean, math.nan if error is None else error


def _judge_excess(runs: Sequence[Run]) -> Measured:
    (whole, whole_error), (half, half_error) = map(_excess, runs)
    ratio = half / whole
    return Measured(0.5, ratio, abs(ratio) * math.hypot(whole_error / whole, half_error / half), 0.25)


# -- where the other algorithms end --------------------------------------------------------------------------


def _judge_gradient_flow(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    limits = np.array([float(one.error(one.gradient_flow)) for one in _chalks(run)])
    ratios = run.values["test_error"] / limits
    return Measured(1.0, farthest([(float(ratio), 0.0) for ratio in ratios], 1.0)[0], 0.0, 0.005)


_SCALES = ((2.0, 0.0025, 100_000), (1.0, 0.01, 50_000), (0.5, 0.01, 50_000), (0.3, 0.01, 50_000))


def _six_data_sets(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    many = params.replace(fresh_data=True, data_seed=0, replicates=6)
    return [many.replace(init_scale=scale, learning_rate=rate, steps=steps) for scale, rate, steps in _SCALES]


def _judge_scales(runs: Sequence[Run]) -> Measured:
    ratios = []
    for run in runs:
        limit = float(np.mean([float(one.error(one.gradient_flow)) for one in _chalks(run)]))
        ratios.append((float(np.mean(run.values["test_error"])) / limit, 0.0))
    return Measured(1.0, farthest(ratios, 1.0)[0], 0.0, 0.02)


def _three_scales(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    one = params.replace(replicates=1, steps=20_000)
    return [one.replace(init_scale=scale, learning_rate=0.01 / scale**2) for scale in (1.0, 2.0, 3.0)]


def _judge_fourth_power(runs: Sequence[Run]) -> Measured:
    scales = [run.params.init_scale for run in runs]
    errors = [float(np.mean(run.values["test_error"])) for run in runs]
    return Measured(4.0, float(np.polyfit(np.log(scales), np.log(errors), 1)[0]), 0.0, 0.1)


def _judge_misses(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return Measured(0.0, float(np.mean(run.values["recovered"])), 0.0, 0.1)


def _judge_sinh(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    apart = [
        np.max(np.abs(beta - one.gradient_flow))
        for beta, one in zip(run.trace.finals["beta"], _chalks(run), strict=True)
    ]
    return Measured(0.0, float(np.max(apart)), 0.0, 1e-3)


# -- where label noise ends ----------------------------------------------------------------------------------


def _judge_recovery(runs: Sequence[Run]) -> Measured:
    """Median over replicates of the error over the last tenth of the run, as a share of the truth's l1 norm."""
    (run,) = runs
    last = run.trace.step >= 0.9 * run.trace.step[-1]
    size = [float(np.sum(np.abs(one.data.beta_star))) for one in _chalks(run)]
    return Measured(0.0, *_median(np.mean(run.trace.series["test_error"][:, last], axis=1) / size), 0.02)


def _at_the_floor(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [_until(params, 12.0, share, data_seed=0, fresh_data=True, replicates=4) for share in (1.0, 0.3)]


def _judge_floor(runs: Sequence[Run]) -> Measured:
    """Error above the slow flow over its floor, averaged over the second half of slow time."""
    found = []
    for run in runs:
        ratios = []
        for series, one in zip(run.trace.series["test_error"], _chalks(run), strict=True):
            late = one.slow_times >= 0.5 * one.slow_times[-1]
            ratios.append(np.mean((series - one.error(one.path))[late] / one.floor[late]))
        found.append(mean_se(np.array(ratios)))
    return Measured(1.0, *farthest(found, 1.0), 0.15)


def _published_schedule(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [params.replace(data_seed=0, fresh_data=True, replicates=10)]


def _judge_published(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    predicted = float(np.median([float(one.error(one.path[-1])) + one.floor[-1] for one in _chalks(run)]))
    return Measured(predicted, *_median(run.values["test_error"]), 3e-3 - predicted)


def _fast_schedule(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    from .lab import annealed

    return [params.make(annealed(0.1, 6000, 18.0), data_seed=0, fresh_data=True, replicates=10)]


def _judge_truth(runs: Sequence[Run]) -> Measured:
    return Measured(0.0, *_median(runs[0].values["test_error"]), 2e-4)


def _any_scale(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    from .lab import annealed

    rates = {0.3: 0.1, 1.0: 0.1, 2.0: 0.025, 3.0: 0.0111}
    return [params.make(annealed(rate, 6000, 18.0), init_scale=scale, replicates=40) for scale, rate in rates.items()]


def _judge_any_scale(runs: Sequence[Run]) -> Measured:
    return Measured(0.0, *farthest([_median(run.values["test_error"]) for run in runs], 0.0), 0.1)


def _many_sizes(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    from .lab import annealed

    runs = []
    for n in (12, 16, 20, 24, 30, 40):
        rate = min(0.1, 0.5 / (1.0 + math.sqrt(100 / n)) ** 2)
        study = annealed(float(f"{rate:.3g}"), 6000, 20.0)
        runs.append(params.make(study, n_train=n, data_seed=0, fresh_data=True, replicates=40))
    return runs


def _judge_rate(runs: Sequence[Run]) -> Measured:
    """Recovered minus predicted by the slow flow, paired by data set; the size with the largest difference counts."""
    found = [mean_se(run.values["recovered"] - run.values["slow_flow_recovered"]) for run in runs]
    rates = "/".join(f"{np.nanmean(run.values['recovered']):.3g}" for run in runs)
    return Measured(0.0, *farthest(found, 0.0), 0.12, f"Rates for 12/16/20/24/30/40 samples: {rates}.")


def _forty_seeds(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [params.replace(replicates=40)]


def _judge_least_norm(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    predicted = np.array([_slow_flow_norm(one)[-1] for one in _chalks(run)])
    return Measured(1.0, *mean_se(run.values["weighted_l1"] / predicted), 0.01)


# -- mini-batch noise ----------------------------------------------------------------------------------------


def _three_algorithms(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    many = {"data_seed": 0, "fresh_data": True, "replicates": 10}
    return [
        params.make(many, algorithm="gd", steps=20_000),
        params.make(many, algorithm="minibatch_noise", steps=300_000),
        params.make(many, noise_schedule="stairs", steps=300_000),
    ]


def _judge_order(runs: Sequence[Run]) -> Measured:
    """Where log median error of mini-batch noise lies between label noise (0) and gradient descent (1).

    The error is the standard deviation over 1000 bootstrap resamples of the finite runs (seed 0).
    """
    descent, middle, label = (run.values["test_error"][np.isfinite(run.values["test_error"])] for run in runs)

    def place(d: Array, m: Array, q: Array) -> float:
        top, low = np.log(np.median(d)), np.log(np.median(q))
        return float((np.log(np.median(m)) - low) / (top - low))

    rng = np.random.default_rng(0)
    again = [place(*(rng.choice(values, len(values)) for values in (descent, middle, label))) for _ in range(1000)]
    note = f"{runs[1].diverged} of {runs[1].trace.replicates} runs with mini-batch noise diverged and are left out."
    return Measured(0.5, place(descent, middle, label), float(np.std(again)), 0.5, note)


def _three_data_sets(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    brief = params.replace(steps=1000, replicates=100, fresh_data=False)
    return [brief.replace(data_seed=seed) for seed in (123, 0, 1)]


def _judge_diverged(runs: Sequence[Run]) -> Measured:
    gone = np.concatenate([run.values["diverged"] for run in runs])
    latest = max((stop.step for run in runs for stop in run.trace.stopped if stop is not None), default=0)
    return Measured(0.175, *mean_se(gone), 0.055, f"The last to diverge did so at step {latest}.")


# -- clocks and identities -----------------------------------------------------------------------------------


def _judge_conserved(runs: Sequence[Run]) -> Measured:
    found = runs[0].values["conserved_mismatch"]
    finite = found[np.isfinite(found)]
    return Measured(0.0, float(np.max(finite)) if len(finite) else math.nan, 0.0, 1e-8)


def _clock_ratios(run: Run) -> Array:
    """(R,) mean over coordinates of -shrink_j/(c_j T)."""
    found = []
    for r, one in enumerate(_chalks(run)):
        shrink = run.trace.finals["log_scale"][r] + 2.0 * run.trace.finals["linear_drift"][r]
        found.append(float(np.mean(-shrink / (one.data.c * one.slow_times[-1]))))
    return np.array(found)


def _judge_shrink(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *mean_se(_clock_ratios(runs[0])), 0.03)


def _judge_clock(runs: Sequence[Run]) -> Measured:
    from theory.label_noise import clock_ratio

    from .prediction import schedule

    (run,) = runs
    kurtosis = 1.5 if run.params.covariates == "rademacher" else 4.5
    predicted = []
    for one in _chalks(run) if run.params.fresh_data else _chalks(run)[:1]:
        X, y, c, _ = one.data
        rate, noise = schedule(run.params, one.step)
        ratios = clock_ratio(X, y, c, run.params.init_scale, one.slow_times, rate, noise, kurtosis=kurtosis)
        predicted.append(ratios[-1])
    return Measured(float(np.mean(predicted)), *mean_se(_clock_ratios(run)), 0.03)


def _judge_signed_shrink(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    at = _nearest(run, (4.0,))
    ratios = [
        -series[at] / (np.mean(one.data.c) * one.slow_times[at])
        for series, one in zip(run.trace.series["mean_shrink"], _chalks(run), strict=True)
    ]
    return Measured(1.0, *mean_se(np.ravel(ratios)), 0.04)


def _judge_batch_one(runs: Sequence[Run]) -> Measured:
    found = [pair for run in runs for pair in _ratios(run, "test_error", _clocked_error, (1.0, 2.0))]
    return Measured(1.0, *farthest(found, 1.0), 0.025)


def _four_rates(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    rates = [_until(params, 1.0, share) for share in (1 / 3, 1.0, 5 / 3)]
    return [*rates, _until(params, 1.0, noise_std=params.noise_std / 2)]


def _judge_naive(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *farthest(_ratios(runs[0], "test_error", _slow_flow_error, (0.5,)), 1.0), 0.1)


# -- spherical noise and the plane ---------------------------------------------------------------------------


def _thirty_two(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [params.replace(replicates=32)]


def _judge_growth(share: float) -> Callable[[Sequence[Run]], Measured]:
    """Growth of the squared norm within a share of d, which is the growth without any data."""

    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        predicted = run.prediction.prediction["norm_growth"]
        value = math.nan if predicted is None else float(predicted)
        return Measured(value, *mean_se(run.values["norm_growth"]), share * run.params.dim)

    return judge


def _judge_equipartition(runs: Sequence[Run]) -> Measured:
    return Measured(1.0, *mean_se(runs[0].values["equipartition"]), 0.03)


def _two_hundred(params: LabelNoiseParams) -> list[LabelNoiseParams]:
    return [params.replace(replicates=200)]


def _judge_planar(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    large = int(np.argmax(_chalk(run.params).path[-1]))
    predicted = float(_chalk(run.params).path[-1][large])
    return Measured(predicted, *mean_se(run.trace.finals["beta"][:, large]), 0.03)


def _judge_planar_small(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    small = int(np.argmin(_chalk(run.params).path[-1]))
    predicted = float(_chalk(run.params).path[-1][small])
    mean, error = mean_se(run.trace.finals["beta"][:, small])
    return Measured(1.0, mean / predicted, None if error is None else error / predicted, 0.2)


def _judge_spread(runs: Sequence[Run]) -> Measured:
    """The error of a standard deviation from R normal numbers is sd/sqrt(2R)."""
    (run,) = runs
    p, beta = run.params, run.trace.finals["beta"]
    large = int(np.argmax(_chalk(p).path[-1]))
    spread = float(np.std(beta[:, large], ddof=1)) if len(beta) > 1 else math.nan
    predicted = p.noise_std * math.sqrt(p.learning_rate * _chalk(p).path[-1][large])
    return Measured(predicted, spread, spread / math.sqrt(2 * len(beta)), 0.15 * predicted)


CLAIMS = (
    Claim(
        "slow_flow",
        "Under constant label noise the error stays within a factor of two of slow flow plus floor, from T = 0.2 on.",
        f"{_FLOW}; {_CORRECTION} for the floor",
        about=lambda p: _label_noise(p) and _drawn(p),
        assumes=first_broken(_constant_noise, _stable, _settled),
        judge=_judge_slow_flow,
    ),
    Claim(
        "trace_hessian",
        "Half the trace of the Hessian, sum c_j |beta_j|, is that of the slow flow at T = 1, 2 and 4, within 3 %.",
        _FLOW,
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed,
        assumes=first_broken(_constant_noise, _small_steps, _under_half),
        over=_forty,
        judge=_judge_trace_hessian,
    ),
    Claim(
        "slow_flow_error_early",
        "While beta is dense, up to T = 2.5, the mean error over noise seeds is that of the slow flow within 5 %.",
        _FLOW,
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed and _schedule(p) == "constant",
        assumes=first_broken(_small_steps, _under_half),
        over=_forty,
        judge=_judge_early,
    ),
    Claim(
        "slow_flow_error_late",
        "Later, at T = 3 and 4, the mean error over noise seeds is that of the slow flow within 20 %.",
        _FLOW,
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed and _schedule(p) == "constant",
        assumes=first_broken(_small_steps, _under_half),
        over=_forty,
        judge=_judge_late,
    ),
    Claim(
        "excess_halves",
        "The error exceeds the slow flow in proportion to the learning rate: half the rate, half the excess.",
        _CORRECTION,
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed and _schedule(p) == "constant",
        assumes=first_broken(_small_steps, _under_half),
        over=_halved,
        judge=_judge_excess,
    ),
    Claim(
        "gradient_flow_limit",
        "Gradient descent without noise ends where gradient flow does: at the entropy projection of its start.",
        "Woodworth et al. 2020",
        about=lambda p: p.algorithm == "gd" and _drawn(p),
        assumes=first_broken(_stable, _settled, _under_half),
        judge=_judge_gradient_flow,
    ),
    Claim(
        "gradient_flow_scales",
        "From starting scales of 0.3 to 2 gradient descent's mean error is gradient flow's, within 2 %.",
        "Woodworth et al. 2020",
        about=_descent,
        assumes=_under_half,
        over=_six_data_sets,
        judge=_judge_scales,
    ),
    Claim(
        "alpha_fourth",
        "From starting scales of 1 and more, gradient descent's error grows as the fourth power of the scale.",
        "Woodworth et al. 2020, entropy projection of a large start",
        about=_descent,
        assumes=_under_half,
        over=_three_scales,
        judge=_judge_fourth_power,
    ),
    Claim(
        "gradient_descent_misses",
        "Without noise, training does not find the sparse truth.",
        _PAPER,
        about=lambda p: p.algorithm == "gd" and _drawn(p),
        judge=_judge_misses,
    ),
    Claim(
        "sparse_recovery",
        "With label noise, training finds the sparse truth: the error ends below 2 % of its l1 norm.",
        f"{_PAPER}; Donoho & Tanner for the number of samples",
        about=lambda p: _label_noise(p) and _drawn(p),
        assumes=first_broken(_above_threshold, _long_enough),
        judge=_judge_recovery,
    ),
    Claim(
        "floor",
        "Constant label noise leaves an error of learning_rate * noise_std^2 times the truth's l1 norm, within 15 %.",
        "stationary covariance of the residual, to leading order in the learning rate",
        about=lambda p: _label_noise(p) and _published_size(p) and _schedule(p) == "constant",
        assumes=first_broken(_small_steps, _above_threshold),
        over=_at_the_floor,
        judge=_judge_floor,
    ),
    Claim(
        "authors_schedule",
        "The published schedule brings the median error over ten data sets below 0.003.",
        f"{_PAPER}, experiments",
        about=lambda p: _label_noise(p) and _published_size(p) and _schedule(p) == "stairs",
        over=_published_schedule,
        judge=_judge_published,
    ),
    Claim(
        "shrinks_exponentially",
        "Label noise shrinks the effective start of coordinate j as exp(-c_j T), on average within 3 %.",
        f"{_MIRROR}; {_FLOW}",
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed,
        assumes=_small_steps,
        judge=_judge_shrink,
    ),
    Claim(
        "label_noise_clock",
        "With larger steps the start shrinks faster than exp(-c_j T), by the factor of the next order, within 3 %.",
        _CORRECTION,
        about=lambda p: _label_noise(p) and _drawn(p) and not p.signed,
        assumes=_under_half,
        judge=_judge_clock,
    ),
    Claim(
        "annealed_reaches_truth",
        "Large steps and fading noise reach the truth: the median error over ten data sets is below 0.0002.",
        _PAPER,
        about=lambda p: _label_noise(p) and _published_size(p) and _schedule(p) == "anneal" and p.n_train == 40,
        over=_fast_schedule,
        judge=_judge_truth,
    ),
    Claim(
        "forgets_initialisation",
        "From every starting scale between 0.3 and 3 label noise ends at the truth: the median error is below 0.1.",
        _PAPER,
        about=lambda p: _label_noise(p) and _published_size(p) and _schedule(p) == "anneal" and p.n_train == 40,
        over=_any_scale,
        judge=_judge_any_scale,
    ),
    Claim(
        "recovery_rate",
        "For 12 to 40 samples, label noise recovers the truth as often as the slow flow does by then, within 0.12.",
        f"{_FLOW}; {_PAPER}",
        about=lambda p: _label_noise(p) and _published_size(p) and _schedule(p) == "anneal",
        over=_many_sizes,
        judge=_judge_rate,
    ),
    Claim(
        "least_norm_not_truth",
        "Below the threshold label noise still ends at the weighted l1 norm of the slow flow, within 1 %.",
        f"{_FLOW}; its end is the linear program of least weighted l1 norm",
        about=lambda p: (
            _label_noise(p) and _published_size(p) and _above_threshold(p) is not None and _schedule(p) == "anneal"
        ),
        over=_forty_seeds,
        judge=_judge_least_norm,
    ),
    Claim(
        "noise_order",
        "Mini-batch noise ends between gradient descent and label noise, in the median over ten data sets.",
        f"{_PAPER}, experiments",
        about=lambda p: p.algorithm == "minibatch_noise" and _published_size(p) and p.n_train == 40,
        over=_three_algorithms,
        judge=_judge_order,
    ),
    Claim(
        "edge_of_divergence",
        "At the published step size 12 to 23 % of the runs with mini-batch noise diverge at once.",
        f"{_PAPER}, the published code run again",
        about=lambda p: (
            p.algorithm == "minibatch_noise" and _published_size(p) and (p.learning_rate, p.n_train) == (0.01, 40)
        ),
        over=_three_data_sets,
        judge=_judge_diverged,
    ),
    Claim(
        "conserved",
        "At the end of every run beta is the entropy projection of its own shrunken start, exactly.",
        _MIRROR,
        about=lambda p: p.algorithm != "gaussian_noise",
        judge=_judge_conserved,
    ),
    Claim(
        "signed_sinh",
        "With both signs gradient descent ends at 2 alpha^2 sinh of a vector in the row space, within 0.001.",
        "Woodworth et al. 2020, hyperbolic entropy",
        about=lambda p: p.algorithm == "gd" and p.signed and _drawn(p),
        assumes=first_broken(_stable, _settled),
        judge=_judge_sinh,
    ),
    Claim(
        "signed_shrink",
        "With both signs label noise shrinks each product u_j w_j as exp(-c_j T), at T = 4 within 4 %.",
        f"{_FLOW}, signed weights",
        about=lambda p: _label_noise(p) and p.signed and _drawn(p) and _slow_time_end(p) >= 4.0,
        assumes=_small_steps,
        judge=_judge_signed_shrink,
    ),
    Claim(
        "batch_one_clock",
        "Batch-one label noise follows the slow flow on a clock sped up by its own residual, within 2.5 %.",
        f"{_CORRECTION}: noise of the residual and of the start",
        about=lambda p: _batch_one(p) and _schedule(p) == "constant" and _slow_time_end(p) >= 0.95,
        assumes=first_broken(_clock_exists, _under_half),
        judge=_judge_batch_one,
    ),
    Claim(
        "batch_one_clock_rates",
        "The same clock is right at a third and at five thirds of the learning rate, and at half the noise.",
        f"{_CORRECTION}: noise of the residual and of the start",
        about=lambda p: _batch_one(p) and _schedule(p) == "constant",
        assumes=first_broken(_clock_exists, _under_half),
        over=_four_rates,
        judge=_judge_batch_one,
    ),
    Claim(
        "slow_flow_naive",
        "Batch-one label noise follows the slow flow on the plain clock T (at T = 0.5, within 10 %).",
        "false on purpose: the limit of small learning rates, applied where it is not small",
        about=lambda p: _batch_one(p) and _schedule(p) == "constant" and _slow_time_end(p) >= 0.5,
        judge=_judge_naive,
    ),
    Claim(
        "norm_growth",
        "Under spherical noise the squared norm grows at the rate of the curved zero-loss set, within 2 % of d.",
        "Ito correction on the zero-loss set",
        about=_spherical,
        assumes=first_broken(_under_half, _tiny_steps),
        over=_thirty_two,
        judge=_judge_growth(0.02),
    ),
    Claim(
        "norm_growth_any_n",
        "Under spherical noise it grows at that rate for any number of samples, within 5 % of d.",
        "false on purpose: with n > d/2 the weights of the start are at zero, where the formula is singular",
        about=lambda p: _spherical(p) and _tiny_steps(p) is None,
        over=_thirty_two,
        judge=_judge_growth(0.05),
    ),
    Claim(
        "equipartition",
        "Under spherical noise each residual has the same mean square, n learning_rate noise_std^2, within 3 %.",
        "equipartition of the stationary residual",
        about=_spherical,
        assumes=first_broken(_under_half, _tiny_steps),
        judge=_judge_equipartition,
    ),
    Claim(
        "planar",
        "In the plane label noise slides to the predicted point of the segment, within 0.03 over 200 runs.",
        f"{_FLOW}, one sample",
        about=lambda p: _label_noise(p) and not _drawn(p) and not p.signed,
        assumes=_constant_noise,
        over=_two_hundred,
        judge=_judge_planar,
    ),
    Claim(
        "planar_small",
        "The coordinate that is driven out follows the slow flow too, up to a bias of 20 % at this learning rate.",
        f"{_FLOW}, one sample",
        about=lambda p: _label_noise(p) and not _drawn(p) and not p.signed,
        assumes=_constant_noise,
        over=_two_hundred,
        judge=_judge_planar_small,
    ),
    Claim(
        "planar_spread",
        "In the plane the runs scatter by noise_std * sqrt(learning_rate * beta) around that point, within 15 %.",
        "stationary covariance of the residual, to leading order in the learning rate",
        about=lambda p: _label_noise(p) and not _drawn(p) and not p.signed,
        assumes=_constant_noise,
        over=_two_hundred,
        judge=_judge_spread,
    ),
)
