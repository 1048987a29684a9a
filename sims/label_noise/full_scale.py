"""Label noise with torch: all replicates of a run at once, on any device, and the recovery curve at full size.

The backend is the loop of `kernels.simulate` with a batch axis. Replicates that have diverged are held where they
are, since a device is not asked at every step whether any has. Its noise comes from the lab's streams; that of the
confirmations is drawn on the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, Replicate, RunMonitor, generator, thin
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, verdict
from ..engine.figure import Figure, Line
from ..engine.normals import normals
from ..engine.on_device import array, device_generator, tensor
from . import kernels
from .lab import BATCH_ONE, LAB, LabelNoiseParams, annealed, data_numbered, ended, recorded_steps

Array = NDArray[np.float64]

LOOK = 64  # steps between two looks at the cancel flag
BLOCK_NUMBERS = 2**22  # noise drawn ahead, in numbers
NOISELESS = ("gd", "sgd")


# -- the step --------------------------------------------------------------------------------------------------


class Problems(NamedTuple):
    """Regression problems; P is the number of replicates, or 1 where all share one."""

    X: torch.Tensor  # (P, n, d)
    y: torch.Tensor  # (P, n)
    c: torch.Tensor  # (P, d)
    beta_star: torch.Tensor  # (P, d)


class Draw(NamedTuple):
    """The noise of one step; what the algorithm does not draw is None."""

    index: torch.Tensor | None  # (B,), mini-batch noise (B, 2)
    sign: torch.Tensor | None  # (B,) +-1
    normal: torch.Tensor | None  # (B,), spherical noise (B, d), signed (B, 2d)


@dataclass
class State:
    """Where training stands; B replicates."""

    u: torch.Tensor  # (B, d)
    w: torch.Tensor | None  # (B, d) if signed
    drift: torch.Tensor  # (B, d)
    flips: torch.Tensor  # (B,) int64
    alive: torch.Tensor  # (B,) bool
    stopped: torch.Tensor  # (B,) int64: the step at which a replicate diverged, -1 if it has not
    work: torch.Tensor  # (B,) of the noise on the squared norm

    @property
    def beta(self) -> torch.Tensor:
        """(B, d) the linear predictors."""
        return self.u * self.u if self.w is None else self.u * self.u - self.w * self.w

    @property
    def norm_sq(self) -> torch.Tensor:
        """(B,) |u|^2 + |w|^2."""
        total = torch.sum(self.u * self.u, dim=1)
        return total if self.w is None else total + torch.sum(self.w * self.w, dim=1)


def start(params: LabelNoiseParams, replicates: int, device: str, dtype: str) -> State:
    """Every weight at its starting value."""
    u = torch.full((replicates, params.shape[1]), params.init_scale, device=device, dtype=getattr(torch, dtype))
    zeros = torch.zeros(replicates, dtype=torch.int64, device=device)
    return State(
        u=u,
        w=u.clone() if params.signed else None,
        drift=torch.zeros_like(u),
        flips=zeros,
        alive=torch.ones_like(zeros, dtype=torch.bool),
        stopped=zeros - 1,
        work=torch.zeros_like(u[:, 0]),
    )


def residual(problems: Problems, beta: torch.Tensor) -> torch.Tensor:
    """(B, n) X beta - y."""
    if len(problems.X) == 1:
        return beta @ problems.X[0].T - problems.y
    return torch.bmm(problems.X, beta[:, :, None])[:, :, 0] - problems.y


def pull_back(problems: Problems, pull: torch.Tensor) -> torch.Tensor:
    """(B, d) X^T pull."""
    if len(problems.X) == 1:
        return pull @ problems.X[0]
    return torch.bmm(pull[:, None, :], problems.X)[:, 0, :]


def mark(state: State, k: int) -> None:
    """Hold the replicates whose weights are out of bounds before step k."""
    inside = state.norm_sq <= kernels.NORM_SQ_LIMIT
    state.stopped = torch.where(state.alive & ~inside, k, state.stopped)
    state.alive = state.alive & inside


def advance(problems: Problems, state: State, algorithm: str, rate: float, noise: float, draw: Draw) -> None:
    """One step of those alive."""
    n = problems.X.shape[1]
    if algorithm in BATCH_ONE:
        G = _one_sample(problems, state.beta, noise, draw)
    else:
        res = residual(problems, state.beta)
        pull = res * (1.0 / n)
        if algorithm == "gd_label_noise":
            pull.scatter_add_(1, draw.index[:, None], -noise * draw.normal[:, None])
        elif algorithm == "minibatch_noise":
            plus, minus = draw.index[:, :1], draw.index[:, 1:]
            pull.scatter_add_(1, plus, noise * res.gather(1, plus))
            pull.scatter_add_(1, minus, -noise * res.gather(1, minus))
        G = pull_back(problems, pull)
    alive = state.alive[:, None]
    move = torch.where(alive, rate * G, 0.0)
    state.drift += move
    if algorithm == "gaussian_noise":
        kick = torch.where(alive, rate * noise * draw.normal, 0.0)
        d = state.u.shape[1]
        work = torch.sum(state.u * kick[:, :d], dim=1)
        state.u -= move * state.u + kick[:, :d]
        if state.w is not None:
            work += torch.sum(state.w * kick[:, d:], dim=1)
            state.w += move * state.w - kick[:, d:]
        state.work -= 2.0 * work
        return
    shrink = 1.0 - move
    state.flips = state.flips + torch.sum(shrink < 0.0, dim=1)
    state.u *= shrink
    if state.w is not None:
        grow = 1.0 + move
        state.flips = state.flips + torch.sum(grow < 0.0, dim=1)
        state.w *= grow


def _one_sample(problems: Problems, beta: torch.Tensor, noise: float, draw: Draw) -> torch.Tensor:
    """(B, d) the gradient factor of one sample a replicate."""
    which = torch.arange(len(beta), device=beta.device) if len(problems.X) > 1 else 0
    row, label = problems.X[which, draw.index], problems.y[which, draw.index]
    pull = torch.sum(row * beta, dim=1) - label
    if draw.sign is not None:
        pull = pull - noise * draw.sign
    return pull[:, None] * row


# -- the backend -----------------------------------------------------------------------------------------------


class StreamNoise:
    """The draws of the lab's streams, block by block: those that the kernel makes one by one."""

    def __init__(self, params: LabelNoiseParams, replicates: range, device: str, dtype: str):
        self.params, self.device, self.dtype = params, device, dtype
        algorithm, (self.n, d) = params.algorithm, params.shape
        self.indices = {"gd": 0, "gaussian_noise": 0, "minibatch_noise": 2}.get(algorithm, 1)
        self.signs = algorithm == "sgd_label_noise"
        spherical = (2 * d if params.signed else d) if algorithm == "gaussian_noise" else 0
        self.normals = spherical or int(algorithm == "gd_label_noise")
        self.streams = {
            name: [generator(params.seed, LAB.streams[name], r) for r in replicates]
            for name in ("index", "sign", "normal")
        }
        self.block = max(1, min(4096, BLOCK_NUMBERS // (len(replicates) * max(1, self.normals, self.indices))))
        self.drawn = (torch.empty(0), torch.empty(0), torch.empty(0))

    def at(self, k: int) -> Draw:
        """The draws of step k; steps are asked for in order."""
        b = k % self.block
        if b == 0:
            self._draw(min(self.block, self.params.steps - k))
        index, sign, normal = self.drawn
        return Draw(
            (index[b] if self.indices == 2 else index[b, :, 0]) if self.indices else None,
            sign[b] if self.signs else None,
            (normal[b] if self.normals > 1 else normal[b, :, 0]) if self.normals else None,
        )

    def _draw(self, steps: int) -> None:
        def stack(drawn: list[NDArray[Any]], dtype: str | None = None) -> torch.Tensor:
            return tensor(np.stack(drawn, axis=1), self.device, dtype)

        index, sign, normal = self.drawn
        if self.indices:
            shape = (steps, self.indices)
            index = stack([rng.integers(0, self.n, shape) for rng in self.streams["index"]])
        if self.signs:
            sign = stack([2 * rng.integers(0, 2, steps) - 1 for rng in self.streams["sign"]], self.dtype)
        if self.normals:
            shape = (steps, self.normals)
            normal = stack([normals(rng, shape) for rng in self.streams["normal"]], self.dtype)
        self.drawn = (index, sign, normal)


def batch_bytes(params: LabelNoiseParams, replicates: int, dtype: str) -> float:
    """Bytes on the device: data, ten vectors a replicate, the noise of a block, and the products of a step."""
    n, d = params.shape
    size = 8.0 if dtype == "float64" else 4.0
    problems = replicates if params.fresh_data else 1
    spherical = (2 * d if params.signed else d) if params.algorithm == "gaussian_noise" else 2
    noise = min(4096.0 * replicates * spherical, max(1.0 * BLOCK_NUMBERS, 1.0 * replicates * spherical))
    # On the processor the data also stay in float64, up to the sixteen sets that are remembered.
    return (size + 8.0) * problems * n * d + size * replicates * (12.0 * d + 4.0 * n) + 3.0 * 8.0 * noise


def simulate_batch(
    params: LabelNoiseParams, replicates: range, monitor: RunMonitor, device: str, dtype: str
) -> list[Replicate]:
    """All replicates at once; see `engine.backends`. What is recorded at step k is measured before update k."""
    step = recorded_steps(params)
    recorded = {int(k): i for i, k in enumerate(step)}
    frame_step = thin(step)
    framed = {int(k): i for i, k in enumerate(frame_step)}
    numbers = [params.data_number(r) for r in replicates]
    data = [data_numbered(params, number) for number in numbers]
    parts = zip(*(data if len(set(numbers)) > 1 else data[:1]), strict=True)
    problems = Problems(*(tensor(np.stack(part), device, dtype) for part in parts))
    state = start(params, len(data), device, dtype)
    noise = StreamNoise(params, replicates, device, dtype)
    planned, quiet = kernels.SCHEDULES[params.noise_schedule], params.algorithm in NOISELESS
    frames = np.full((len(frame_step), params.shape[1]), np.nan)
    slow_time = 0.0
    for k in range(params.steps + 1):
        mark(state, k)
        if k in framed and bool(state.alive[0]):
            frames[framed[k]] = array(state.beta[0])
        if k in recorded:
            monitor.records[:, :, recorded[k]] = _measure(params, problems, state, slow_time)
        if k == params.steps:
            break
        if k % LOOK == 0:
            monitor.progress[:] = k
            if monitor.cancel[0]:
                return []
        rate = kernels.rate_at(planned, params.learning_rate, k, params.steps)
        deviation = 0.0 if quiet else kernels.noise_at(planned, params.noise_std, k, params.steps)
        slow_time += (rate * deviation) ** 2
        advance(problems, state, params.algorithm, rate, deviation, noise.at(k))
    monitor.progress[:] = params.steps
    u, drift = array(state.u), array(state.drift)
    w = np.zeros_like(u) if state.w is None else array(state.w)
    stopped, flips = state.stopped.tolist(), state.flips.tolist()
    return [
        ended(params, one, u[r], w[r], drift[r], flips[r], None if at < 0 else at, frame_step, frames)
        for r, (one, at) in enumerate(zip(data, stopped, strict=True))
    ]


def _measure(params: LabelNoiseParams, problems: Problems, state: State, slow_time: float) -> Array:
    """(B, 7) the series at this step, in the order of `kernels.SERIES`; NaN of those that have stopped."""
    beta, n = state.beta, params.shape[0]
    loss = torch.sum(residual(problems, beta) ** 2, dim=1) / (4 * n)
    error = torch.sum((beta - problems.beta_star) ** 2, dim=1)
    weighted = torch.sum(problems.c * torch.abs(beta), dim=1)
    log = torch.log(torch.abs(state.u / params.init_scale))
    if state.w is None:
        shrink = torch.mean(2.0 * log + 2.0 * state.drift, dim=1)
    else:
        shrink = torch.mean(log + torch.log(torch.abs(state.w / params.init_scale)), dim=1)
    clock = torch.full_like(loss, slow_time)
    found = torch.stack([loss, error, weighted, clock, state.norm_sq, shrink, state.work], dim=1)
    measured = array(torch.where(state.alive[:, None], found, math.nan))
    measured[:, 3] = np.where(np.isnan(measured[:, 3]), np.nan, slow_time)
    return measured


# -- confirmations ---------------------------------------------------------------------------------------------

RECOVERED = 0.02  # of the truth's l1 norm
BLOCK = 500  # steps whose noise is drawn at once, between two states kept


def curve_params(settings: Settings, n: int, sparsity: int) -> LabelNoiseParams:
    """The run of the lab that has the law of one size: fresh data a replicate, annealed label noise."""
    d, steps = settings["dim"], settings["steps"]
    # The inverse of the curvature at the start is stable everywhere.
    stable = 0.5 / (1.0 + math.sqrt(d / n)) ** 2
    rate = float(f"{min(settings['most_rate'], stable):.3g}")
    schedule = annealed(rate, steps, settings["slow_time"])
    sizes = {"n_train": n, "dim": d, "sparsity": sparsity}
    return LabelNoiseParams.make(schedule, **sizes, fresh_data=True, replicates=settings["instances"])


def train_instances(params: LabelNoiseParams, settings: Settings, place: Place, path: Sequence[int]) -> State:
    """Every instance trained to the end on data and noise drawn on the device; (seed, path) says which."""
    B, steps = params.replicates, params.steps
    problems = draw_problems(params, settings, place.device, path)
    noise = device_generator(place.device, settings["seed"], *path, 1)
    state, first = start(params, B, place.device, settings["dtype"]), 0
    begun = place.begun()
    if begun is not None:
        state, first = replace(state, **{f.name: begun[f.name] for f in fields(state)}), int(begun["step"])
        noise.set_state(begun["noise"].cpu())
    code = kernels.SCHEDULES[params.noise_schedule]
    for k0 in range(first, steps, BLOCK):
        block = min(BLOCK, steps - k0)
        index = torch.randint(params.n_train, (block, B), generator=noise, device=place.device)
        normal = torch.randn((block, B), generator=noise, device=place.device, dtype=state.u.dtype)
        for b in range(block):
            rate = kernels.rate_at(code, params.learning_rate, k0 + b, steps)
            deviation = kernels.noise_at(code, params.noise_std, k0 + b, steps)
            mark(state, k0 + b)
            advance(problems, state, params.algorithm, rate, deviation, Draw(index[b], None, normal[b]))
        place.keep(lambda: {**vars(state), "noise": noise.get_state(), "step": k0 + block})  # noqa: B023
    mark(state, steps)
    return state


def draw_problems(params: LabelNoiseParams, settings: Settings, device: str, path: Sequence[int]) -> Problems:
    """Regression problems drawn on the device, one an instance, from the recorded seed."""
    n, d = params.shape
    data = device_generator(device, settings["seed"], *path, 0)
    dtype = getattr(torch, settings["dtype"])
    X = torch.randn((params.replicates, n, d), generator=data, device=device, dtype=dtype)
    beta_star = (torch.arange(d, device=device) < params.sparsity).to(dtype)[None, :]
    return Problems(X, torch.sum(X[:, :, : params.sparsity], dim=2), torch.mean(X * X, dim=1), beta_star)


def _errors(state: State, problems: Problems) -> Array:
    """(B,) squared distance from the truth; NaN where training diverged."""
    error = torch.sum((state.beta - problems.beta_star) ** 2, dim=1)
    return array(torch.where(state.alive, error, math.nan))


def _work(params: LabelNoiseParams, size: float) -> dict[str, float]:
    """Counts of the two products of every step."""
    n, d = params.shape
    numbers = float(params.replicates * n * d)
    return {
        "flops": 4.0 * params.steps * numbers,
        "bytes": 2.0 * size * params.steps * numbers,
        "working_set": size * numbers,
    }


def slow_flow_ends(params: LabelNoiseParams, settings: Settings, device: str, path: Sequence[int]) -> Array:
    """(B,) squared error of the slow flow at the slow time where training ends, on the same data, by the theory."""
    from concurrent.futures import ThreadPoolExecutor

    from theory.mirror import projection

    from ..engine.provenance import cores

    problems = draw_problems(params, settings, device, path)

    def end(r: int) -> float:
        X = array(problems.X[r])
        y, c = np.sum(X[:, : params.sparsity], axis=1), np.mean(X**2, axis=0)
        beta = projection(X, y, -c * settings["slow_time"] + 2.0 * math.log(params.init_scale)).beta
        beta[: params.sparsity] -= 1.0
        return float(np.sum(beta**2))

    with ThreadPoolExecutor(cores()) as pool:
        return np.array(list(pool.map(end, range(params.replicates))))


def run_size(settings: Settings, part: str, place: Place) -> Result:
    """One number of samples: all instances trained, and what the slow flow says of each."""
    n = int(part.removeprefix("n="))
    params = curve_params(settings, n, settings["sparsity"])
    state = train_instances(params, settings, place, [n])
    errors = _errors(state, draw_problems(params, settings, place.device, [n]))
    predicted = slow_flow_ends(params, settings, place.device, [n])
    level = RECOVERED * params.sparsity
    size = 8.0 if settings["dtype"] == "float64" else 4.0
    numbers = {
        "learning_rate": params.learning_rate,
        "noise_std": params.noise_std,
        "errors": errors.tolist(),
        "recovered": (errors < level).astype(float).tolist(),
        "slow_flow_errors": predicted.tolist(),
        "slow_flow_recovered": (predicted < level).astype(float).tolist(),
        "diverged": int(torch.sum(~state.alive)),
        "sign_flips": float(torch.mean(state.flips.to(torch.float64))),
    }
    return Result(numbers, samples=params.replicates * n, dtype=settings["dtype"], **_work(params, size))


def judge_curve(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """Where the curve crosses one half: against the slow flow on the same data, and against the threshold.

    The lab's claim on the rates themselves, at 100 dimensions, does not carry over: the curve steepens with the
    dimension, so that a shift by the same share of n* is a larger difference in rate. The shift is judged instead, and
    the largest difference in rate is told beside it.
    """
    from theory.label_noise import recovery_threshold

    sizes = settings["sizes"]
    threshold = recovery_threshold(settings["dim"], settings["sparsity"])
    rates = np.array([[*numbers[f"n={n}"]["recovered"]] for n in sizes])
    lines = np.array([[*numbers[f"n={n}"]["slow_flow_recovered"]] for n in sizes])
    rng = np.random.Generator(np.random.Philox(settings["seed"]))
    picks = rng.integers(0, rates.shape[1], (1000, *rates.shape))
    spread = [crossing(sizes, np.take_along_axis(rates, pick, 1).mean(1)) for pick in picks]
    error = float(np.nanstd(spread)) / threshold
    found = crossing(sizes, rates.mean(1)) / threshold
    limit = crossing(sizes, lines.mean(1)) / threshold
    many = rates.size
    apart = np.mean(rates - lines, axis=1)
    worst = int(np.argmax(np.abs(apart)))
    se = float(np.std(rates[worst] - lines[worst], ddof=1)) / math.sqrt(rates.shape[1])
    beside = (
        f"In units of the threshold. The rates themselves differ most at n = {sizes[worst]}: "
        f"{np.mean(rates[worst]):.3g} recovered, {np.mean(lines[worst]):.3g} by the slow flow, "
        f"a difference of {apart[worst]:.2g} with a standard error of {se:.2g}."
    )
    return [
        verdict(
            "crossing",
            "Half of the instances are recovered at as many samples as the slow flow needs for half of them, within "
            "10 % of the threshold.",
            "Li, Wang & Arora 2022, the limiting flow in closed form, at the end of the schedule",
            Measured(limit, found, error, 0.1, beside),
            many,
        ),
        verdict(
            "threshold",
            f"The recovery curve crosses one half above n* = {threshold:.1f}, by at most a quarter: the slack that the "
            "decay leaves at the end of the schedule.",
            "Donoho & Tanner; statistical dimension of the descent cone",
            Measured(1.125, found, error, 0.125, "In units of the threshold."),
            many,
        ),
    ]


def crossing(sizes: Sequence[int], rates: Array) -> float:
    """Where a curve of rates crosses one half, linear between sizes; beyond the ends it is the end."""
    rising = np.maximum.accumulate(rates)
    if rising[0] >= 0.5 or rising[-1] < 0.5:
        return float(sizes[0] if rising[0] >= 0.5 else sizes[-1])
    after = int(np.argmax(rising >= 0.5))
    low, high = rising[after - 1], rising[after]
    return float(sizes[after - 1] + (0.5 - low) / (high - low) * (sizes[after] - sizes[after - 1]))


def draw_curve(settings: Settings, numbers: Numbers) -> Figure:
    """Recovery rate against the number of samples, the slow flow dashed, the threshold upright."""
    from theory.label_noise import recovery_threshold

    sizes = list(settings["sizes"])
    threshold = recovery_threshold(settings["dim"], settings["sparsity"])

    def rates(name: str) -> list[float]:
        return [float(np.mean(numbers[f"n={n}"][name])) for n in sizes]

    return Figure(
        f"Recovery in {settings['dim']} dimensions, {settings['sparsity']} of them true",
        "training samples n",
        "share of instances recovered",
        [
            Line("label noise", sizes, rates("recovered"), 0),
            Line("slow flow", sizes, rates("slow_flow_recovered"), 0, dashed=True),
            Line(f"n* = {threshold:.1f}", [threshold, threshold], [0.0, 1.0], 1, dashed=True),
        ],
    )


def curve_bytes(settings: Settings) -> float:
    """Data of the largest size, twelve vectors an instance; on the way the squares of the data."""
    size = 8.0 if settings["dtype"] == "float64" else 4.0
    n, d, B = max(settings["sizes"]), settings["dim"], settings["instances"]
    return size * B * (2.0 * n * d + 14.0 * d + 4.0 * n) + 16.0 * BLOCK * B + 8.0 * 4.0 * n * d


def map_bytes(settings: Settings) -> float:
    """As for the curve, at the largest number of samples of the map."""
    return curve_bytes({**settings, "sizes": settings["samples"]})


def run_sparsity(settings: Settings, part: str, place: Place) -> Result:
    """One row of the map: the mean final error and the share recovered at every number of samples."""
    r = int(part.removeprefix("r="))
    counts, rows = {"flops": 0.0, "bytes": 0.0, "working_set": 0.0}, []
    size = 8.0 if settings["dtype"] == "float64" else 4.0
    for n in settings["samples"]:
        params = curve_params(settings, n, r)
        state = train_instances(params, settings, replace(place, path=None), [n, r])
        rows.append(_errors(state, draw_problems(params, settings, place.device, [n, r])))
        work = _work(params, size)
        counts = {
            "flops": counts["flops"] + work["flops"],
            "bytes": counts["bytes"] + work["bytes"],
            "working_set": max(counts["working_set"], work["working_set"]),
        }
    errors = np.array(rows)
    numbers = {"error": np.mean(errors, axis=1).tolist(), "recovered": np.mean(errors < RECOVERED * r, axis=1).tolist()}
    samples = settings["instances"] * sum(settings["samples"])
    return Result(numbers, samples=samples, dtype=settings["dtype"], **counts)


def judge_map(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """Cells well below the threshold are not recovered, cells well above are."""
    from theory.label_noise import recovery_threshold

    cells = []
    for r in settings["sparsities"]:
        threshold = recovery_threshold(settings["dim"], r)
        for n, share in zip(settings["samples"], numbers[f"r={r}"]["recovered"], strict=True):
            if n < 0.85 * threshold or n > 1.5 * threshold:
                cells.append(float((share > 0.5) == (n > threshold)))
    share = float(np.mean(cells))
    error = math.sqrt(share * (1.0 - share) / len(cells))
    return [
        verdict(
            "map",
            "Over numbers of samples and of true coordinates, what is below 0.85 n* is not recovered and what is above "
            "1.5 n* is (19 cells of 20).",
            "Donoho & Tanner; statistical dimension of the descent cone",
            Measured(1.0, share, error, 0.05, f"{len(cells)} cells."),
            len(cells),
        )
    ]


def draw_map(settings: Settings, numbers: Numbers) -> Figure:
    """Mean final error against n over n*, one line a sparsity: they should fall together."""
    from theory.label_noise import recovery_threshold

    lines = []
    for colour, r in enumerate(settings["sparsities"]):
        threshold = recovery_threshold(settings["dim"], r)
        relative = [n / threshold for n in settings["samples"]]
        lines.append(Line(f"r = {r}", relative, [e / r for e in numbers[f"r={r}"]["error"]], colour))
    ends = [min(y for line in lines for y in line.y), max(y for line in lines for y in line.y)]
    lines.append(Line("n = n*", [1.0, 1.0], ends, 6, dashed=True))
    title = f"Final error over the true coordinates, {settings['dim']} dimensions"
    return Figure(title, "samples over the threshold, n/n*", "squared error / r", lines, log_y=True)


_CURVE: Mapping[str, Any] = {"steps": 6000, "slow_time": 18.0, "seed": 1, "dtype": "float32"}
_SMALL_CURVE = {"dim": 400, "sparsity": 20, "sizes": [53, 60, 66, 73, 80, 93], "instances": 24, "most_rate": 0.05}
_FULL_CURVE = {"dim": 10_000, "sparsity": 50, "sizes": [200, 250, 300, 350, 400], "instances": 32, "most_rate": 0.1}
_SMALL_MAP = {"dim": 100, "sparsities": [2, 5, 10], "samples": [6, 12, 18, 26, 36, 48], "instances": 10}
_FULL_MAP = {"dim": 2000, "sparsities": [5, 10, 20, 40, 80, 160], "instances": 16}

CONFIRMATIONS = tuple(
    Confirmation(
        id="recovery_curve",
        title="How often fading label noise finds the sparse truth, against the number of samples; data and noise are "
        "drawn on the device.",
        scale=scale,
        settings={**_CURVE, **sizes},
        parts=lambda settings: [f"n={n}" for n in settings["sizes"]],
        run=run_size,
        bytes=curve_bytes,
        resize="instances",
        judge=judge_curve,
        figure=draw_curve,
    )
    for scale, sizes in (("small", _SMALL_CURVE), ("full", _FULL_CURVE))
) + tuple(
    Confirmation(
        id="recovery_map",
        title="The error that fading label noise ends with, over numbers of samples and of true coordinates.",
        scale=scale,
        settings={**_CURVE, "most_rate": 0.1, **sizes},
        parts=lambda settings: [f"r={r}" for r in settings["sparsities"]],
        run=run_sparsity,
        bytes=map_bytes,
        resize="instances",
        judge=judge_map,
        figure=draw_map,
    )
    for scale, sizes in (
        ("small", _SMALL_MAP),
        ("full", {**_FULL_MAP, "samples": [20, 40, 60, 90, 130, 180, 250, 350, 500, 700]}),
    )
)
