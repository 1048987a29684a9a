"""XOR clusters with torch: all replicates at once in the space of inner products, and brute force in all dimensions.

The backend is the loop of `kernels.simulate` with a batch axis, on the inner products that `gram` draws. The
confirmations draw their own data on the device: once as points and weights with all p coordinates, trained without
any of the lab's identities, and once as sampled inner products, for a whole phase diagram.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, Replicate, RunMonitor, execute, thin
from ..engine.backends import choose
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, judged, observed, verdict
from ..engine.figure import Figure, Line
from ..engine.on_device import array, chi_square, device_generator, tensor
from . import gram, kernels
from .lab import (
    CLUSTERS,
    FRAME_NEURONS,
    LAB,
    MAP_POINTS,
    XorGrokkingParams,
    ended,
    map_grid,
    recorded_steps,
)

Array = NDArray[np.float64]

POINTS = 512  # test points evaluated at once
SIZES = {"float64": 8.0, "float32": 4.0}


# -- the step --------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """B networks with what they are trained and tested on, all as inner products; see `kernels.simulate`."""

    a: torch.Tensor  # (B, m)
    y: torch.Tensor  # (B, n)
    flipped: torch.Tensor  # (B, n) bool
    K: torch.Tensor  # (B, n, n)
    factor: torch.Tensor | None  # (B, n, k) where products with it are cheaper
    H0: torch.Tensor  # (B, m, n)
    cross: torch.Tensor  # (B, points, n)
    T0: torch.Tensor  # (B, m, points)
    quadrant: torch.Tensor  # (points,)
    plane: torch.Tensor  # (B, n, 2)
    start_plane: torch.Tensor  # (B, m, 2)
    start_norm_sq: torch.Tensor  # (B, m)


class Buffers(NamedTuple):
    """What training moves, and scratch of the same size."""

    H: torch.Tensor  # (B, m, n)
    C: torch.Tensor  # (B, m, n)
    D: torch.Tensor  # (B, m, n)
    dead: torch.Tensor  # (B, m, n) bool


def buffers(H0: torch.Tensor) -> Buffers:
    """A start at H0."""
    return Buffers(H0.clone(), torch.zeros_like(H0), torch.empty_like(H0), torch.empty_like(H0, dtype=torch.bool))


def outputs(a: torch.Tensor, H: torch.Tensor, scratch: torch.Tensor | None = None) -> torch.Tensor:
    """(B, points) sum_j a_j relu(H_j)."""
    positive = torch.clamp_min(H, 0.0, out=scratch) if scratch is not None else torch.clamp_min(H, 0.0)
    return torch.bmm(a[:, None, :], positive)[:, 0, :]


def advance(
    a: torch.Tensor, y: torch.Tensor, K: torch.Tensor, factor: torch.Tensor | None, f: torch.Tensor, rate: float,
    moving: Buffers,
) -> None:  # fmt: skip
    """One step of C and H from the outputs f: D = rate a 1[H > 0] y g, C += D, H += D K."""
    H, C, D, dead = moving
    pull = rate * y * torch.sigmoid(-y * f)
    torch.mul(a[:, :, None], pull[:, None, :], out=D)
    torch.le(H, 0.0, out=dead)
    D.masked_fill_(dead, 0.0)
    C += D
    if factor is None:
        H.baddbmm_(D, K)
    else:
        H.baddbmm_(torch.bmm(D, factor), factor.transpose(1, 2))


# -- the backend -----------------------------------------------------------------------------------------------


def batch_bytes(params: XorGrokkingParams, replicates: int, dtype: str) -> float:
    """Bytes on the device: inner products, five arrays of neurons by samples, and the outputs at test points."""
    n, m, n_test, size = params.n_train, params.width, params.n_test, SIZES[dtype]
    one = n * n + 5.0 * m * n + n_test * (n + m) + 3.0 * m * min(n_test, POINTS)
    # They are drawn in float64 by the processor, one replicate after the other.
    drawn = 8.0 * (2.0 * n * n + 2.0 * (m + n_test) * (n + 2.0) + 3.0 * m * n_test)
    return replicates * (size * one + 8.0 * (n * n + m * n + n_test * (n + m))) + drawn


def simulate_batch(
    params: XorGrokkingParams, replicates: range, monitor: RunMonitor, device: str, dtype: str
) -> list[Replicate]:
    """All replicates at once; see `engine.backends`. What is recorded at step t is measured after t updates."""
    problems = []
    for r in replicates:
        problems.append(gram.problem(params, r, monitor.cancel))
        if monitor.cancel[0]:
            return []
    batch = _batch(problems, device, dtype)
    moving = buffers(batch.H0)
    step = recorded_steps(params)
    recorded = {int(t): i for i, t in enumerate(step)}
    frame_step = thin(step)
    framed = {int(t): i for i, t in enumerate(frame_step)}
    neurons = np.full((len(frame_step), min(params.width, FRAME_NEURONS), 2), np.nan)
    maps = np.full((len(frame_step), MAP_POINTS, MAP_POINTS), np.nan)
    rate = params.learning_rate / params.n_train
    largest = np.full(len(problems), 0.5)
    for t in range(params.steps + 1):
        monitor.progress[:] = t
        if monitor.cancel[0]:
            return []
        f = outputs(batch.a, moving.H, moving.D)
        if t == 1:
            largest = array(torch.amax(torch.sigmoid(-batch.y * f), dim=1))
        if t in recorded or t in framed:
            weights = batch.start_plane + torch.bmm(moving.C, batch.plane)
            norm_sq = batch.start_norm_sq + torch.sum(moving.C * (batch.H0 + moving.H), dim=2)
        if t in framed:
            neurons[framed[t]] = params.mu * array(weights[0, : neurons.shape[1]])
            maps[framed[t]] = decision_map(params.mu, array(batch.a[0]), array(weights[0]), array(norm_sq[0]))
        if t in recorded:
            f_test = test_outputs(batch, moving.C)
            monitor.records[:, :8, recorded[t]] = accuracies(batch.y, batch.flipped, batch.quadrant, f, f_test)
            monitor.records[:, 8:10, recorded[t]] = alignments(batch.a, weights, norm_sq)
            loss = torch.mean(torch.nn.functional.softplus(-batch.y * f, threshold=100.0), dim=1)
            monitor.records[:, 10, recorded[t]] = array(loss)
        if t < params.steps:
            advance(batch.a, batch.y, batch.K, batch.factor, f, rate, moving)
    kept = [(frame_step, neurons, maps), *[(step[:0], neurons[:0], maps[:0])] * (len(problems) - 1)]
    return [ended(params, one, float(g), *frames) for one, g, frames in zip(problems, largest, kept, strict=True)]


def _batch(problems: list[gram.Problem], device: str, dtype: str) -> Batch:
    def stack(arrays: list[NDArray[Any]]) -> torch.Tensor:
        return tensor(np.stack(arrays), device, dtype)

    points = [one.points for one in problems]
    return Batch(
        a=stack([one.output for one in problems]),
        y=stack([one.label for one in points]),
        flipped=tensor(np.stack([one.label != one.clean for one in points]), device),
        K=stack([one.gram for one in points]),
        factor=stack([one.factor for one in points]) if points[0].factor.shape[1] else None,
        H0=stack([one.start for one in problems]),
        cross=stack([one.cross for one in problems]),
        T0=stack([one.test_start for one in problems]),
        quadrant=tensor(problems[0].quadrant, device),
        plane=stack([one.plane for one in points]),
        start_plane=stack([one.start_plane for one in problems]),
        start_norm_sq=stack([one.start_norm_sq for one in problems]),
    )


def test_outputs(batch: Batch, C: torch.Tensor) -> torch.Tensor:
    """(B, points) a relu(T0 + C cross^T), some points at a time."""
    parts = []
    for first in range(0, batch.T0.shape[2], POINTS):
        some = slice(first, first + POINTS)
        grown = torch.baddbmm(batch.T0[:, :, some], C, batch.cross[:, some].transpose(1, 2))
        parts.append(outputs(batch.a, grown))
    return torch.cat(parts, dim=1)


def accuracies(
    y: torch.Tensor, flipped: torch.Tensor, quadrant: torch.Tensor, f: torch.Tensor, f_test: torch.Tensor
) -> Array:
    """(B, 8) the first eight series of `kernels.SERIES`; a cluster without test points counts as right."""
    fitted = y * f > 0.0
    flips = torch.sum(flipped, dim=1, dtype=torch.float64)
    kept = torch.where(flips > 0, torch.sum(fitted & flipped, dim=1) / flips.clamp_min(1.0), 1.0)
    hit = torch.where(quadrant < 2, f_test > 0.0, f_test < 0.0)
    clusters = torch.stack(
        [
            torch.mean(hit[:, quadrant == q].to(torch.float64), dim=1)
            if bool(torch.any(quadrant == q))
            else torch.ones(len(y), dtype=torch.float64, device=y.device)
            for q in range(4)
        ],
        dim=1,
    )
    columns = [
        torch.mean(fitted.to(torch.float64), dim=1),
        torch.mean(hit.to(torch.float64), dim=1),
        kept,
        torch.amin(clusters, dim=1),
    ]
    return array(torch.cat([torch.stack(columns, dim=1), clusters], dim=1))


def alignments(a: torch.Tensor, weights: torch.Tensor, norm_sq: torch.Tensor) -> Array:
    """(B, 2) mean |cos| of the neurons with their own mean and with the other one."""
    along = torch.abs(weights) / torch.sqrt(norm_sq)[:, :, None]
    positive = a > 0.0
    own = torch.where(positive, along[:, :, 0], along[:, :, 1])
    cross = torch.where(positive, along[:, :, 1], along[:, :, 0])
    return array(torch.stack([torch.mean(own, dim=1), torch.mean(cross, dim=1)], dim=1))


def decision_map(mu: float, a: Array, weights: Array, norm_sq: Array) -> Array:
    """The first network's map of E f over the noise, as the kernel draws it; small, and so drawn by the kernel."""
    grid = map_grid(mu)
    values = np.empty((MAP_POINTS, MAP_POINTS))
    kernels.decision_map(a, weights, norm_sq, grid, values)
    return values


# -- confirmation: brute force in all dimensions ---------------------------------------------------------------


def brute_params(settings: Settings, replicates: int) -> XorGrokkingParams:
    """The run of the lab that has the law of the brute force."""
    names = ("n_train", "dim", "width", "signal", "steps", "n_test", "seed")
    return XorGrokkingParams.make({name: settings[name] for name in names}, replicates=replicates)


def stratified(params: XorGrokkingParams, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) cluster 0..3 of each training point, and its observed label."""
    n = params.n_train
    cluster = torch.arange(4, device=device).repeat_interleave(n // 4)
    wrong = torch.arange(n, device=device) % (n // 4) < params.flips_per_cluster
    clean = torch.where(cluster < 2, 1.0, -1.0).to(dtype)
    return cluster, torch.where(wrong, -clean, clean)


def add_means(X: torch.Tensor, cluster: torch.Tensor, mu: float) -> torch.Tensor:
    """X (..., points, p) with its clusters' means added, in place."""
    signs = torch.where(cluster % 2 == 0, mu, -mu).to(X.dtype)
    X[..., 0] += torch.where(cluster < 2, signs, 0.0)
    X[..., 1] += torch.where(cluster < 2, 0.0, signs)
    return X


def run_brute(settings: Settings, part: str, place: Place) -> Result:
    """One data set and one network in R^p, trained on its weights; beside it the same in the space of inner products.

    Nothing of the lab's identities is used for the weights: every step is two products with the points. The inner
    products are taken from the same points, in float64, and the outputs on the training points are compared.
    """
    dtype, number = part.split(" ")
    params, device = brute_params(settings, 1), place.device
    real, n, m = getattr(torch, dtype), params.n_train, params.width
    path = (int(number), int(dtype == "float64"))
    drawn = device_generator(device, settings["seed"], *path)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn((rows, params.dim), generator=drawn, device=device, dtype=real)

    cluster, y = stratified(params, device, real)
    quadrant = torch.arange(4, device=device).repeat_interleave(params.n_test // 4)
    X = add_means(normal(n), cluster, params.mu)
    W = normal(m) * params.init_std
    tested = add_means(normal(params.n_test), quadrant, params.mu)
    a = torch.where(torch.arange(m, device=device) % 2 == 0, 1.0, -1.0).to(real) / math.sqrt(m)
    flipped = (y != torch.where(cluster < 2, 1.0, -1.0))[None, :]

    inner = [_inner(left, X) for left in (X, W)]
    small_a, small_y = a.to(torch.float64)[None], y.to(torch.float64)[None]
    moving = buffers(inner[1][None])
    rate = params.learning_rate / n
    step = recorded_steps(params)
    series: list[Array] = []
    difference = largest = 0.0
    for t in range(params.steps + 1):
        H = W @ X.T
        f = a @ torch.clamp_min(H, 0.0)
        g = outputs(small_a, moving.H, moving.D)
        if t in step:
            f_test = (a @ torch.clamp_min(W @ tested.T, 0.0))[None]
            weights, norm_sq = W[None, :, :2], torch.sum(W * W, dim=1)[None]
            found = accuracies(y[None], flipped, quadrant, f[None], f_test)[0]
            series.append(np.concatenate([found, alignments(a[None], weights, norm_sq)[0]]))
            difference = max(difference, float(torch.max(torch.abs(f.to(torch.float64) - g[0]))))
            largest = max(largest, float(torch.max(torch.abs(g))))
        if t < params.steps:
            pull = y * torch.sigmoid(-y * f)
            W.addmm_((rate * a)[:, None] * (H > 0.0) * pull, X)
            advance(small_a, small_y, inner[0][None], None, g, rate, moving)
    columns = np.array(series).T
    size, steps, recorded = SIZES[dtype], params.steps, len(step)
    return Result(
        {
            "series": {name: column.tolist() for name, column in zip(kernels.SERIES, columns, strict=False)},
            "difference": difference / largest,
        },
        samples=n * steps,
        flops=4.0 * m * n * params.dim * steps + 2.0 * m * params.n_test * params.dim * recorded,
        bytes=size * params.dim * (steps * (3.0 * m + 2.0 * n) + recorded * (m + params.n_test)),
        working_set=size * params.dim * (m + n),
        dtype=dtype,
    )


def _inner(left: torch.Tensor, right: torch.Tensor, columns: int = 8192) -> torch.Tensor:
    """left right^T in float64, some columns at a time."""
    total = torch.zeros((len(left), len(right)), dtype=torch.float64, device=left.device)
    for first in range(0, left.shape[1], columns):
        some = slice(first, first + columns)
        total += left[:, some].to(torch.float64) @ right[:, some].to(torch.float64).T
    return total


def run_band(settings: Settings, part: str, place: Place) -> Result:
    """The lab's own run of the same law, by sampled inner products; its data are drawn by NumPy."""
    params = brute_params(settings, settings["band_seeds"])
    run = execute(LAB, params, backend=choose("torch", place.device, "float64"))
    size = SIZES["float64"]
    numbers = params.replicates * params.steps * 1.0
    m, n = params.width, params.n_train
    return Result(
        {"series": {name: run.trace.series[name].tolist() for name in (*kernels.SERIES[:10],)}},
        samples=n * params.steps * params.replicates,
        flops=2.0 * m * n * n * numbers,
        bytes=size * numbers * (n * n + 5.0 * m * n),
        working_set=size * params.replicates * (n * n + 3.0 * m * n),
    )


def run_part(settings: Settings, part: str, place: Place) -> Result:
    """A brute-force run, or the band that it is compared with."""
    return run_band(settings, part, place) if part == "sampled" else run_brute(settings, part, place)


def brute_parts(settings: Settings) -> list[str]:
    """The sampled band, then brute-force runs by precision and number."""
    counts = {"float32": settings["float32_runs"], "float64": settings["float64_runs"]}
    return ["sampled", *(f"{dtype} {number}" for dtype, count in counts.items() for number in range(count))]


def brute_bytes(settings: Settings) -> float:
    """Points, weights and test points with all coordinates, and the inner products of one network or of the band."""
    size = SIZES["float64" if settings["float64_runs"] else "float32"]
    n, m, n_test, p = (settings[name] for name in ("n_train", "width", "n_test", "dim"))
    one = size * (p * (n + m + n_test) + 3.0 * m * (n + n_test)) + 8.0 * (n * n + 5.0 * m * n + 3.0 * 8192 * m)
    # Normals are scaled into a second array, and squares for the norms are a third.
    return max(one + size * p * m, batch_bytes(brute_params(settings, 1), settings["band_seeds"], "float64"))


# Of twenty sampled curves and a further one, the further one is within the range of the others 19 times of 21.
_CURVES = ("test_accuracy", "own_alignment", "cross_alignment", "plus_mu1_accuracy", "minus_mu2_accuracy")


def _brute_runs(settings: Settings, numbers: Numbers) -> dict[str, Array]:
    """(R, T) each series over the brute-force runs."""
    parts = [part for part in brute_parts(settings) if part != "sampled"]
    names = numbers[parts[0]]["series"].keys()
    return {name: np.array([numbers[part]["series"][name] for part in parts]) for name in names}


def judge_brute(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """The identity, the law, and the lab's own claims, on networks that were trained in all dimensions."""
    found = []
    for dtype, tolerance in (("float32", 1e-3), ("float64", 1e-9)):
        parts = [f"{dtype} {number}" for number in range(settings[f"{dtype}_runs"])]
        if parts:
            worst = max(numbers[part]["difference"] for part in parts)
            found.append(
                verdict(
                    f"same_in_gram_space_{dtype}",
                    f"On the same data, training in the space of inner products gives the outputs of training in all "
                    f"{settings['dim']:,} dimensions ({dtype}, every recorded step, within {tolerance:g} of the "
                    "largest).",
                    "every update is a sum of training points: an exact identity",
                    Measured(0.0, worst, 0.0, tolerance),
                    len(parts),
                )
            )
    series = _brute_runs(settings, numbers)
    band = {name: np.array(values) for name, values in numbers["sampled"]["series"].items()}
    inside = np.stack(
        [
            (series[name] >= np.min(band[name], axis=0)) & (series[name] <= np.max(band[name], axis=0))
            for name in _CURVES
        ]
    )[:, :, 1:]
    shares = np.mean(inside, axis=(0, 2))
    count = len(shares)
    expected = (settings["band_seeds"] - 1.0) / (settings["band_seeds"] + 1.0)
    error = float(np.std(shares, ddof=1)) / math.sqrt(count) if count > 1 else None
    found.append(
        verdict(
            "within_the_sampled_band",
            f"Curves trained in all dimensions lie within the range of {settings['band_seeds']} curves from sampled "
            "inner products as often as one more of those would.",
            "sampled inner products have the exact joint law",
            Measured(expected, float(np.mean(shares)), error, 0.15),
            count,
        )
    )
    params = brute_params(settings, count)
    step = recorded_steps(params)
    one = int(np.searchsorted(step, 1))
    derived = {
        "step_one_train_accuracy": series["train_accuracy"][:, one],
        "step_one_test_accuracy": series["test_accuracy"][:, one],
        **{f"step_one_{name}_accuracy": series[f"{name}_accuracy"][:, one] for name in CLUSTERS},
        "late_test_accuracy": series["test_accuracy"][:, -1],
        "late_test_error": 1.0 - series["test_accuracy"][:, -1],
        "alignment_plateau": series["own_alignment"][:, -1],
    }
    run = observed(LAB, params, step, series, derived)
    return [*found, *(judged(LAB, name, [run]) for name in settings["claims"])]


def draw_brute(settings: Settings, numbers: Numbers) -> Figure:
    """Training and test accuracy: brute force solid, the range of the sampled runs dashed."""
    step = recorded_steps(brute_params(settings, 1))
    series = _brute_runs(settings, numbers)
    band = {name: np.array(values) for name, values in numbers["sampled"]["series"].items()}
    at = step >= 1

    def line(label: str, values: Array, colour: int, dashed: bool = False) -> Line:
        return Line(label, step[at].tolist(), values[at].tolist(), colour, dashed)

    return Figure(
        f"Brute force in {settings['dim']:,} dimensions",
        "step",
        "accuracy",
        [
            line("training, brute force", np.mean(series["train_accuracy"], axis=0), 1),
            line("test, brute force", np.mean(series["test_accuracy"], axis=0), 0),
            line("test, sampled, least", np.min(band["test_accuracy"], axis=0), 0, dashed=True),
            line("test, sampled, most", np.max(band["test_accuracy"], axis=0), 0, dashed=True),
        ],
        log_x=True,
    )


# -- confirmation: the phase diagram ---------------------------------------------------------------------------


class Cell(NamedTuple):
    """One cell of the diagram: as many samples, and a signal; the dimension follows from n mu^2/p = 1/10."""

    n_train: int
    signal: float

    @property
    def dim(self) -> int:
        return round((10.0 * self.n_train * self.signal) ** 2)


def run_row(settings: Settings, part: str, place: Place) -> Result:
    """One number of samples: all seeds of a cell at once, signal after signal."""
    n = int(part.removeprefix("n="))
    rows: dict[str, list[list[float]]] = {"train_one": [], "late_error": []}
    for index, signal in enumerate(settings["signals"]):
        train, error = run_cell(Cell(n, signal), settings, place.device, (n, index))
        rows["train_one"].append(train.tolist())
        rows["late_error"].append(error.tolist())
    seeds, m, steps = settings["seeds"], settings["width"], settings["steps"]
    cells = float(len(settings["signals"]) * seeds)
    size = SIZES[settings["dtype"]]
    products = 2.0 * n * n * (n + m) + 2.0 * m * n * n * steps + 2.0 * m * (n + 2.0) * settings["n_test"]
    return Result(
        rows,
        samples=int(n * cells),
        flops=cells * products,
        bytes=cells * size * steps * (n * n + 5.0 * m * n),
        working_set=size * seeds * (n * n + 3.0 * m * n),
        dtype=settings["dtype"],
    )


def run_cell(cell: Cell, settings: Settings, device: str, path: tuple[int, int]) -> tuple[Array, Array]:
    """(seeds,) training accuracy after one step and late test error of one cell, inner products drawn on the device.

    The start is so small that test points are told apart by the growth of the weights and the start in the span of
    the training points; what is left out is a millionth of that.
    """
    n, B, m = cell.n_train, settings["seeds"], settings["width"]
    params = _cell_params(cell, settings)
    real = getattr(torch, settings["dtype"])
    drawn = device_generator(device, settings["seed"], *path)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=drawn, device=device, dtype=real)

    cluster, y = stratified(params, device, real)
    y = y[None].expand(B, n)
    Z = torch.zeros((B, n, 2 + n), dtype=real, device=device)
    Z[:, :, :2] = normal(B, n, 2)
    add_means(Z, cluster, params.mu)
    Z[:, :, 2:] = torch.tril(normal(B, n, n), diagonal=-1)
    dof = (cell.dim - 2.0 - torch.arange(n, dtype=torch.float64, device=device)).expand(B, n).contiguous()
    Z[:, :, 2:].diagonal(dim1=1, dim2=2).copy_(torch.sqrt(chi_square(dof, drawn)).to(real))
    W = params.init_std * normal(B, m, 2 + n)
    a = (torch.where(torch.arange(m, device=device) % 2 == 0, 1.0, -1.0).to(real) / math.sqrt(m)).expand(B, m)
    K = torch.bmm(Z, Z.transpose(1, 2))
    moving = buffers(torch.bmm(W, Z.transpose(1, 2)))
    train = torch.empty(B)
    for t in range(settings["steps"]):
        f = outputs(a, moving.H, moving.D)
        if t == 1:
            train = torch.mean((y * f > 0.0).to(torch.float64), dim=1)
        advance(a, y, K, None, f, params.learning_rate / n, moving)
    W = torch.baddbmm(W, moving.C, Z)
    del K, Z, moving
    quadrant = torch.arange(4, device=device).repeat_interleave(settings["n_test"] // 4)
    wrong = torch.zeros(B, dtype=torch.float64, device=device)
    for first in range(0, settings["n_test"], POINTS):
        some = quadrant[first : first + POINTS]
        tested = add_means(normal(B, len(some), 2 + n), some, params.mu)
        f = outputs(a, torch.bmm(W, tested.transpose(1, 2)))
        hit = torch.where(some < 2, f > 0.0, f < 0.0)
        wrong += torch.sum(~hit, dim=1)
    return array(train), array(wrong / settings["n_test"])


def _cell_params(cell: Cell, settings: Settings) -> XorGrokkingParams:
    """The run of the lab with the law of a cell; beyond its largest n only the derived sizes are used."""
    sizes = {"dim": cell.dim, "signal": cell.signal, "width": settings["width"], "n_test": settings["n_test"]}
    made = XorGrokkingParams.make(sizes, steps=settings["steps"], n_train=min(cell.n_train, 1000),
                                  replicates=settings["seeds"])  # fmt: skip
    return made if made.n_train == cell.n_train else made.model_copy(update={"n_train": cell.n_train})


def row_bytes(settings: Settings) -> float:
    """Coordinates, inner products, and four arrays of neurons by samples, of the largest row."""
    n, m, size = max(settings["sizes"]), settings["width"], SIZES[settings["dtype"]]
    return settings["seeds"] * (size * (4.0 * n * n + 5.0 * m * n + POINTS * (n + m)) + 32.0 * n)


def judge_diagram(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """The lab's own table, and the zones of the theory against those of the cells."""
    from scipy.special import ndtri

    from theory import xor_grokking as theory

    fitted, zones = [], []
    farthest = (0.0, 0.0, 0.0, "")
    for n in settings["sizes"]:
        row = numbers[f"n={n}"]
        for signal, train, errors in zip(settings["signals"], row["train_one"], row["late_error"], strict=True):
            cell, mean = Cell(n, signal), float(np.mean(errors))
            se = float(np.std(errors, ddof=1)) / math.sqrt(len(errors))
            if n in (40, 80, 160) and signal in (1.4, 2.0):
                values = {"late_test_error": np.array(errors)}
                params = _cell_params(cell, settings)
                line = {"late_test_error": theory.late_test_error(n, signal)}
                fitted.append(observed(LAB, params, [0], {}, values, line))
            if math.isfinite(theory.fitted_quantile(n, signal)):
                gap = mean - theory.late_test_error(n, signal)
                if abs(gap) >= abs(farthest[0]):
                    farthest = (gap, se, mean, f"At n = {n}, signal {signal:g}.")
            z = -float(ndtri(min(max(mean, 1e-12), 1.0 - 1e-12)))
            memorised = float(np.mean(train)) > theory.MEMORISED
            seen = "benign" if z > 2.0 else "catastrophic" if z < 1.0 else "in between"
            seen = seen if memorised else "not memorised in one step"
            noise = 4.0 * round(0.1 * n / 4) / n
            zones.append(float(seen == theory.zone(n, signal, cell.dim, settings["width"], noise)))
    share = float(np.mean(zones))
    found = [judged(LAB, "late_error_table", fitted)] if fitted else []
    return [
        *found,
        verdict(
            "whole_table",
            "Wherever the fitted table speaks, the late test error of fresh seeds is within 0.04 of it.",
            "a fit to simulations, judged on fresh seeds drawn on the device",
            Measured(0.0, farthest[0], farthest[1], 0.04, farthest[3]),
            settings["seeds"],
        ),
        verdict(
            "zones",
            "Cells of the phase diagram are memorised, benign or catastrophic as the formulas say (17 of 20).",
            "step-one share of the labels; late test error, fitted and continued beyond its table",
            Measured(1.0, share, math.sqrt(share * (1.0 - share) / len(zones)), 0.15, f"{len(zones)} cells."),
            len(zones),
        ),
    ]


def draw_diagram(settings: Settings, numbers: Numbers) -> Figure:
    """Late test error against n, a line a signal (at most six), the fitted table dashed."""
    from theory import xor_grokking as theory

    sizes, signals = list(settings["sizes"]), list(settings["signals"])
    chosen = [signal for signal in (0.5, 1.0, 1.4, 2.0, 2.8, 4.0) if signal in signals]
    lines = []
    for colour, signal in enumerate(chosen):
        at = signals.index(signal)
        means = [float(np.mean(numbers[f"n={n}"]["late_error"][at])) for n in sizes]
        lines.append(Line(f"signal {signal:g}", sizes, means, colour))
        table = [theory.late_test_error(n, signal) for n in sizes]
        lines.append(Line("fitted", sizes, table, colour, dashed=True))
    title = f"Late test error, {settings['seeds']} seeds a cell, n mu^2/p = 0.1"
    return Figure(title, "training samples n", "late test error", lines, log_x=True)


_BRUTE: Mapping[str, Any] = {"signal": 3.0, "steps": 200, "seed": 1, "band_seeds": 20}
_SMALL_BRUTE = {"n_train": 100, "dim": 20_000, "width": 100, "n_test": 400, "float32_runs": 4, "float64_runs": 2}
_FULL_BRUTE = {"n_train": 400, "dim": 400_000, "width": 1000, "n_test": 2000, "float32_runs": 6, "float64_runs": 2}
_CLAIMS = ["memorises_in_one_step", "never_unfits", "groks", "benign"]

_DIAGRAM: Mapping[str, Any] = {"width": 100, "steps": 100, "seed": 2, "dtype": "float32"}
_SMALL_DIAGRAM = {
    "sizes": [20, 40, 60, 80, 120, 160],
    "signals": [0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0],
    "seeds": 24,
    "n_test": 1000,
}
_FULL_DIAGRAM = {
    "sizes": [40, 80, 160, 320, 640, 1280, 3200],
    "signals": sorted({0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, *(round(0.26 * 1.18**k, 4) for k in range(25))}),
    "seeds": 64,
    "n_test": 4096,
}

CONFIRMATIONS = tuple(
    Confirmation(
        id="brute_force",
        title="Networks trained with all coordinates of their weights, beside the same training on inner products, and "
        "within the range of training on sampled ones.",
        scale=scale,
        settings={**_BRUTE, **sizes, "claims": _CLAIMS},
        parts=brute_parts,
        run=run_part,
        bytes=brute_bytes,
        resize="dim",
        judge=judge_brute,
        figure=draw_brute,
    )
    for scale, sizes in (("small", _SMALL_BRUTE), ("full", _FULL_BRUTE))
) + tuple(
    Confirmation(
        id="phase_diagram",
        title="Late test error over numbers of samples and signals, from inner products sampled on the device.",
        scale=scale,
        settings={**_DIAGRAM, **sizes},
        parts=lambda settings: [f"n={n}" for n in settings["sizes"]],
        run=run_row,
        bytes=row_bytes,
        resize="seeds",
        judge=judge_diagram,
        figure=draw_diagram,
    )
    for scale, sizes in (("small", _SMALL_DIAGRAM), ("full", _FULL_DIAGRAM))
)
