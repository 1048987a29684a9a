"""The chalk lines of a run, and the metrics that compare its trace with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import linear_attention as theory
from theory import linear_attention_flow as flow
from theory import ridge

from ..engine import About, Prediction, Trace
from . import kernels
from .lab import MOST_FLOWS, Law, LinearAttentionParams, recorded_steps
from .training import start

Array = NDArray[np.float64]

SMALL_START = 0.1  # of the optimal step, up to which a start counts as small
NEAR_TIE = 1.5  # ratio of the growth rates below which the harmful path may win the race
HARMFUL = 0.02  # size of the harmful blocks at the start against the useful ones, below which it does not
BAYES_DRAWS = 10_000

_OPTIMUM = "global minimum of the population loss"
_MOMENTS = "global minimum, by the moments of the teacher"
_KURTOSIS = "optimal step for independent coordinates, by their kurtosis"
_STACK = "stacked plain steps, by the moments of a Wishart matrix"
_LOGISTIC = "gradient flow from a small start: a logistic curve"
_NO_MATRIX = "several layers have no one matrix"
_FLOW = "gradient flow of commuting covariances, integrated"


class Optimum(NamedTuple):
    """The best that the model can do in training, where that is known: a loss and a matrix Q, or why not."""

    loss: float | None
    Q: Array | None
    about: About


def predict(params: LinearAttentionParams) -> Prediction:
    return _predict(params)


def predict_ends(points: Sequence[LinearAttentionParams]) -> list[Prediction]:
    """The lines of each run. Those at one context length follow each other, and share the draws of their ridge risk.

    The clock needs its whole curve, for the half time; what a run spends on it is little.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i].dim, points[i].context_length))
    found = {i: _predict(points[i]) for i in order}
    return [found[i] for i in range(len(points))]


def _predict(params: LinearAttentionParams) -> Prediction:
    step = recorded_steps(params)
    values: dict[str, float | Array | None] = {}
    about: dict[str, About] = {}

    def add(name: str, value: float | Array | None, note: About) -> None:
        values[name], about[name] = value, note

    best = optimum(params)
    add("optimal_loss", best.loss, best.about)
    no_matrix = About(
        best.about.kind, best.about.source, reason=best.about.reason or "several layers have no one matrix"
    )
    matrix = best.about if best.Q is not None else no_matrix
    add("optimal_step_size", None if best.Q is None else float(np.trace(best.Q)) / params.dim, matrix)
    add("optimal_preconditioner", None if best.Q is None else float(np.linalg.norm(best.Q)), matrix)
    add("bayes_loss", *_bayes(params))
    add("test_loss", *_test_loss(params, best))
    add("regressed_step_size", *_regressed(params))

    clock = _clock(params)
    end = best.loss if best.Q is None else (best.loss, float(np.trace(best.Q)) / params.dim)
    if clock is not None:
        levels, sizes, note = clock
        add("loss", levels, note)
        add("step_size", sizes, note)
        add("half_time", _drop_time(params.learning_rate * step, levels, best.loss), note)
    else:
        why = _no_clock(params)
        at_end = About(best.about.kind, best.about.source, 0.0, int(step[-1]), None, best.about.reason or why)
        flat = None if best.loss is None else np.full(len(step), best.loss)
        add("loss", flat, at_end)
        if isinstance(end, tuple):
            add("step_size", np.full(len(step), end[1]), at_end)
        add("half_time", None, About("limit", _FLOW, reason=why))
    if params.training == "exact_gradient":
        add("learning_rate_bound", *_bound(params))
    return Prediction(step=step, prediction=values, about=about)


def derive(params: LinearAttentionParams, trace: Trace) -> Mapping[str, Array]:
    """(R,) metrics: distance from the optimum in loss and in matrix, and when the loss dropped."""
    best, loss = optimum(params), trace.series["loss"]
    Q, nothing = trace.finals["preconditioner"], np.full(trace.replicates, np.nan)
    found = {name: nothing for name in ("excess_loss", "preconditioner_error", "half_time", "half_time_ratio")}
    if best.loss is not None:
        ends = loss[:, -1]
        if not params.population and params.test_prompts == "as_trained":
            ends = trace.finals["test_loss"]  # the loss recorded last is that of few batches
        found["excess_loss"] = ends - best.loss
    if best.Q is not None and np.any(best.Q):
        stopped = np.array([stop is not None for stop in trace.stopped])
        error = np.linalg.norm(Q - best.Q, axis=(1, 2)) / np.linalg.norm(best.Q)
        found["preconditioner_error"] = np.where(stopped, np.nan, error)
    if params.training == "exact_gradient" and best.loss is not None:
        times = params.learning_rate * trace.step
        found["half_time"] = np.array([_drop_time(times, levels, best.loss) for levels in loss])
        expected = [_own_half_time(params, c, a) for c, a in trace.finals["start"]]
        found["half_time_ratio"] = found["half_time"] / np.array(expected)
    return found


# -- the optimum -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def prompts_of(law: Law) -> theory.Prompts:
    """The law of the prompts as the theory takes it."""
    return theory.Prompts.commuting(law.n, np.array(law.spectrum), np.array(law.task), law.noise_var)


def isotropic(law: Law) -> bool:
    """Whether covariates and tasks have the same variance in all directions."""
    return len(set(law.spectrum)) == 1 and len(set(law.task)) == 1


def optimum(params: LinearAttentionParams) -> Optimum:
    """The least loss of the model on the prompts of training, and the matrix that attains it."""
    law, d = params.law, params.dim
    if params.teacher != "linear":
        if params.covariates != "gaussian" or set(law.spectrum) != {1.0}:
            return _silent(_MOMENTS, "nonlinear teachers are solved for covariates of one normal law in all directions")
        if params.stacked:
            return _silent(_MOMENTS, "nonlinear teachers are solved for one layer")
        moments = theory.teacher_moments(params.teacher, d)
        eta = theory.teacher_step(moments, law.n, d, law.noise_var)
        return Optimum(float(theory.teacher_loss(moments, law.n, d, law.noise_var)), eta * np.eye(d), _exact(_MOMENTS))
    if params.covariates != "gaussian":
        if not isotropic(law) or params.prior_mean > 0 or params.stacked:
            return _silent(_KURTOSIS, "solved for one layer, equal variances and tasks without a mean")
        k4 = theory.kurtosis_of(params.covariates, params.degrees_of_freedom)
        sizes = (law.n, d, law.noise_var, law.task[0], k4, law.spectrum[0])
        eta = theory.optimal_step(*sizes)
        return Optimum(float(theory.step_loss(eta, *sizes)), eta * np.eye(d), _exact(_KURTOSIS))
    if params.stacked:
        if not isotropic(law) or params.prior_mean > 0:
            return _silent(_STACK, "stacked layers are solved for equal variances and tasks without a mean")
        stack = theory.stacked_layers(params.layers, law.n, d, law.noise_var, law.spectrum[0] * law.task[0])
        return Optimum(stack.loss, None, About("exact", f"{_STACK}; that matrices do no better is measured"))
    prompts = prompts_of(law)
    if params.prior_mean > 0:
        w0 = np.zeros(d)
        w0[0] = params.prior_mean
        if params.model == "literal" or params.skip:
            return Optimum(theory.optimal_loss(prompts), theory.optimal_preconditioner(prompts), _exact(_OPTIMUM))
        if params.model == "full":
            return _silent(_OPTIMUM, "for tasks with a mean, all blocks without the direct connection are not solved")
        spread = theory.Prompts(prompts.n, prompts.Sig, prompts.T + np.outer(w0, w0), prompts.s2)
        return Optimum(theory.optimal_loss(spread), theory.optimal_preconditioner(spread), _exact(_OPTIMUM))
    return Optimum(theory.optimal_loss(prompts), theory.optimal_preconditioner(prompts), _exact(_OPTIMUM))


def _exact(source: str) -> About:
    return About("exact", source)


def _silent(source: str, reason: str) -> Optimum:
    return Optimum(None, None, About("exact", source, reason=reason))


def _test_loss(params: LinearAttentionParams, best: Optimum) -> tuple[float | None, About]:
    """Loss of the optimal layer on the test prompts."""
    if params.training == "finite_prompts":
        return None, About("exact", _OPTIMUM, reason="a layer fitted to few prompts is not the optimal one")
    if params.test_prompts == "as_trained":
        return best.loss, best.about
    if best.Q is None or not params.moments_known or params.prior_mean > 0:
        reason = best.about.reason or "elsewhere it is known for one layer, linear labels and normal covariates"
        return None, About("exact", _OPTIMUM, reason=reason)
    shifted = theory.shifted_loss(prompts_of(params.law), prompts_of(params.test_law), params.attention)
    return shifted, About("exact", "population loss of the optimal layer on other prompts")


def _regressed(params: LinearAttentionParams) -> tuple[float | None, About]:
    """The plain step that is best on the test prompts."""
    law, d = params.test_law, params.dim
    if params.teacher != "linear":
        if params.covariates != "gaussian" or set(law.spectrum) != {1.0}:
            return None, _silent(_MOMENTS, "nonlinear teachers are solved for unit normal covariates").about
        moments = theory.teacher_moments(params.teacher, d)
        return theory.teacher_step(moments, law.n, d, law.noise_var), _exact(_MOMENTS)
    if params.covariates != "gaussian" or params.prior_mean > 0:
        if params.covariates == "gaussian" or params.prior_mean > 0 or not isotropic(law):
            return None, _silent(_KURTOSIS, "solved for equal variances and tasks without a mean").about
        k4 = theory.kurtosis_of(params.covariates, params.degrees_of_freedom)
        eta = theory.optimal_step(law.n, d, law.noise_var, law.task[0], k4, law.spectrum[0])
        return eta, _exact(_KURTOSIS)
    p = prompts_of(law)
    return float(np.sum(p.Sig @ p.T * p.Sig) / np.sum(p.Sig * p.R)), _exact("least squares of labels on one step")


# -- the clock -------------------------------------------------------------------------------------------------


def _no_clock(params: LinearAttentionParams) -> str:
    if params.training == "finite_prompts":
        return "a finite set is worse than the optimum at every size"
    if params.training != "exact_gradient":
        return "the clock of gradient flow is that of small steps along the population gradient"
    return "the clock is known in the blocks, not in the matrices of the layer"


def _clock(params: LinearAttentionParams) -> tuple[Array, Array, About] | None:
    """Loss and step size on the recorded steps by gradient flow from the starts of the replicates: their medians."""
    if params.training != "exact_gradient" or params.model == "literal":
        return None
    law, d, step = params.law, params.dim, recorded_steps(params)
    times = params.learning_rate * step
    one_start = params.init == "balanced"
    count = 1 if one_start else params.replicates
    if isotropic(law) and params.model != "separate_key_query":
        starts = [_amplitude(params, params.first_replicate + r) for r in range(count)]
        q0 = np.array([c * c for c in starts]) / np.sqrt(d)
        best, m = params.law.n, law.spectrum[0] * law.task[0]
        tau2 = law.spectrum[0] ** 2 * law.task[0]  # rates see the signal through two covariates
        best = 1.0 / (law.n + d + 1.0 + law.noise_var / m) / law.spectrum[0] / params.attention_scale
        rate = flow.logistic_rate(law.n, d, tau2) * params.attention_scale
        growth = np.exp(-rate * times)
        path = best / (1.0 + (best / np.maximum(q0, 1e-300)[:, None] - 1.0) * growth)
        q = params.attention_scale * path
        levels = theory.step_loss(q, law.n, d, law.noise_var, law.task[0], 3.0, law.spectrum[0])
        note = _flow_note(params, float(np.median(q0)) / best, _LOGISTIC)
        return np.median(levels, axis=0), np.median(q, axis=0), note
    paths = [_path(params, params.first_replicate + r, times) for r in range(min(count, MOST_FLOWS))]
    levels, sizes = np.stack([p.loss for p in paths]), np.stack([p.q.mean(axis=1) for p in paths])
    top = float(np.linalg.norm(theory.optimal_preconditioner(prompts_of(law)), 2))
    note = _flow_note(params, float(np.max(np.abs(paths[0].q[0]))) / top, _FLOW)
    return np.median(levels, axis=0), np.median(sizes, axis=0), note


def _flow_note(params: LinearAttentionParams, q0_share: float, source: str) -> About:
    """A line about gradient flow: claimed for small starts and small steps, else grey with the reason."""
    reason = ""
    if params.init == "normal" and q0_share > SMALL_START:
        reason = "the start is not small against the optimum"
    good, bad = flow.growth_rates(prompts_of(params.law))
    if params.has_even_blocks and params.init == "normal" and params.harmful_init > HARMFUL and good < NEAR_TIE * bad:
        reason = "the harmful blocks grow nearly as fast as the useful ones, and may win"
    if params.learning_rate > _bound_of(params):
        reason = "the learning rate is beyond the largest stable one"
    until = params.steps + 1 if reason else None
    return About("limit", source, 0.0, until, None, reason or "")


def _amplitude(params: LinearAttentionParams, replicate: int) -> float:
    """(c + tr(A)/sqrt d)/2 at the start, of the fastest direction of growth."""
    if params.init == "balanced":
        return float(np.sqrt(params.dim)) * params.init_scale
    c, A = _start_blocks(params, replicate)
    return float(c + np.trace(A) / np.sqrt(params.dim)) / 2.0


def _start_blocks(params: LinearAttentionParams, replicate: int) -> tuple[float, Array]:
    """c and A at the start, the attention's factor left out."""
    d = params.dim
    blocks = np.empty(d * d + 3 * d + 1)
    kernels.unpack(kernels.CHARTS[params.model], start(params, replicate), 1.0, blocks)
    return float(blocks[d]), blocks[d + 1 : d + 1 + d * d].reshape(d, d)


def _path(params: LinearAttentionParams, replicate: int, times: Array) -> flow.FlowPath:
    """The flow from the start of one replicate; with averaging attention time and weights are rescaled."""
    law, scale = params.law, params.attention_scale
    lam, t = np.array(law.spectrum), np.array(law.task)
    c, A = _start_blocks(params, replicate)
    if params.model == "separate_key_query":
        third, k = scale ** (1.0 / 3.0), start(params, replicate)[1:].reshape(2, -1).mean(axis=0)
        return flow.separate_flow(third**2 * times, lam, t, law.n, law.noise_var, third * k, third * c, timed=False)
    root = np.sqrt(scale)
    return flow.merged_flow(scale * times, lam, t, law.n, law.noise_var, root * np.diag(A), root * c, timed=False)


def _own_half_time(params: LinearAttentionParams, c: float, a: float) -> float:
    """Predicted time of the drop from a start of its own (c, tr(A)/sqrt d), on isotropic prompts; NaN elsewhere."""
    law, d = params.law, params.dim
    if not isotropic(law) or params.model in ("separate_key_query", "literal"):
        return np.nan
    q0 = ((c + a) / 2.0) ** 2 / np.sqrt(d) * params.attention_scale
    best = float(theory.optimal_preconditioner(prompts_of(law))[0, 0])
    if not 0.0 < q0 < best / 2.0:
        return np.nan
    rate = flow.logistic_rate(law.n, d, law.spectrum[0] ** 2 * law.task[0]) * params.attention_scale
    return float(np.log(best / q0 - 1.0)) / rate


def _drop_time(times: Array, levels: Array, end: float | None) -> float:
    """When the loss has come three quarters of its way down to `end`, between recorded steps by interpolation."""
    if end is None:
        return np.nan
    excess = levels - end
    below = np.flatnonzero(excess < excess[0] / 4.0)
    if not len(below) or below[0] == 0:
        return np.nan
    i = below[0]
    high, low = np.log(np.maximum(excess[i - 1 : i + 1], 1e-300))
    share = (high - np.log(excess[0] / 4.0)) / (high - low)
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


def _bound(params: LinearAttentionParams) -> tuple[float | None, About]:
    if params.model == "literal":
        return None, About("exact", "curvature at the balanced minimum", reason="known in the blocks only")
    return _bound_of(params), About("exact", "two over the largest curvature at the balanced minimum")


@lru_cache(maxsize=256)
def _bound_of(params: LinearAttentionParams) -> float:
    prompts, n = prompts_of(params.law), params.law.n
    if params.model == "full":
        return flow.largest_learning_rate(prompts, params.attention, skip=params.skip)
    if params.model == "reduced":
        return 2.0 * flow.rate_divisor(n, params.attention) / flow.good_path_sharpness(prompts)
    return _separate_bound(params, prompts)


def _separate_bound(params: LinearAttentionParams, prompts: theory.Prompts) -> float:
    """Of q = scale c key query with |key| = |query| = c: near its minimum L is sum_i n lam_i R_i (q_i - q_i*)^2."""
    q = np.diag(theory.optimal_preconditioner(prompts))
    scale = params.attention_scale
    c = float((np.sum(q) / scale) ** (1.0 / 3.0))
    k = np.sqrt(q / (scale * c))
    weight = prompts.n * np.diag(prompts.Sig) * np.diag(prompts.R)
    of_one = scale * c * np.diag(k)
    slopes = np.concatenate([scale * (k**2)[:, None], of_one, of_one], axis=1)
    hessian = 2.0 * slopes.T @ (weight[:, None] * slopes)
    return 2.0 / float(np.linalg.eigvalsh(hessian)[-1])


# -- ridge -----------------------------------------------------------------------------------------------------


def _bayes(params: LinearAttentionParams) -> tuple[float | None, About]:
    """Loss of ridge regression on the prompts of training, and how it was obtained."""
    if params.teacher != "linear" or params.covariates != "gaussian":
        return None, About("sampled", "ridge regression", reason="ridge is Bayes for linear labels, normal covariates")
    law = params.law
    value, error, source = bayes(law)
    return value, About("sampled" if error > 0 else "exact", source, error)


@lru_cache(maxsize=32)
def _isotropic_draws(d: int, n: int) -> list[ridge.Tridiagonals]:
    """Matrices that the risks at every noise share."""
    draws = max(1000, BAYES_DRAWS * 5 // max(5, min(d, n)))
    return ridge.isotropic_draws(d, n, draws, np.random.default_rng(0))


@lru_cache(maxsize=256)
def bayes(law: Law) -> tuple[float, float, str]:
    """Loss of ridge regression, its standard error, and by which method."""
    d, m = len(law.spectrum), np.array(law.spectrum) * np.array(law.task)
    if d == 1:
        return ridge.bayes_scalar(law.n, law.noise_var, float(m[0])), 0.0, "ridge regression, by quadrature"
    rng = np.random.default_rng(0)
    if np.ptp(m) <= 1e-12 * m[0]:
        drawn = _isotropic_draws(d, law.n) if law.noise_var > 0 else ()
        found = ridge.bayes_isotropic(d, law.n, law.noise_var, 0, rng, float(m[0]), drawn)
        return found.mean, found.error, "ridge regression, by draws of a bidiagonal matrix"
    draws = int(np.clip(2e6 / d**3, 200, 4000))
    found = ridge.bayes_sampled(m, law.n, law.noise_var, draws, rng)
    return found.mean, found.error, "ridge regression, by draws of a Wishart matrix"
