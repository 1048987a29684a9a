"""Confirmation on the hypercube: a million nodes, their top eigenspace by block iteration, and the flow that finds it.

Characters are known one by one, so that each vector found is checked by a Walsh-Hadamard transform, and the exact flow
of all nodes follows from the Gram matrices of its start on the levels of the cube.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, Run, spread_steps
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, judged, observed, verdict
from ..engine.figure import Figure, Line
from ..engine.on_device import array, device_generator, tensor
from ..graphs import on_device
from ..graphs.on_device import Kronecker
from ..graphs.solver_on_device import Tally, beyond, gram, iterated
from .lab import LAB, LEVELS, AugmentationGraphParams

Array = NDArray[np.float64]

WORDS = {"distinct": "with flip probabilities that differ", "equal": "with equal flip probabilities"}
SPECTRUM_CLAIMS = ("spectrum", "crossings", "least_loss", "probe_staircase", "bounds", "cheap_cut")
FLOW_CLAIMS = ("flow_in_closed_form", "power_iteration", "angle_bound", "never_below")
SAME = 1e-6  # characters whose eigenvalues are closer count as one eigenspace


def flip_probs(settings: Settings, part: str) -> Array:
    """(dim,) flip probability of each bit."""
    if part == "distinct":
        return np.linspace(*settings["flips"], settings["dim"])
    return np.full(settings["dim"], settings["flip"])


def cube(flips: Array, device: str) -> Kronecker:
    """Abar of a hypercube."""
    kernels = [np.array([[1.0 - q, q], [q, 1.0 - q]]) for q in flips]
    return Kronecker([one @ one for one in kernels], device, "float64")


def walsh(dim: int, device: str) -> Kronecker:
    """The orthonormal Walsh-Hadamard transform; place S of its output is the coefficient of the character of S."""
    return Kronecker([np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0)] * dim, device, "float64")


def over_subsets(each: Sequence[float], device: str, multiply: bool) -> torch.Tensor:
    """(2^d,) the product, or the sum, of the numbers of the bits in S, for every S."""
    found = tensor(np.array([1.0 if multiply else 0.0]), device)
    for one in each:
        other = found * one if multiply else found + one
        found = torch.stack([found, other], dim=1).flatten()
    return found


# -- the top eigenspace ----------------------------------------------------------------------------------------------


def run_part(settings: Settings, part: str, place: Place) -> Result:
    return run_flow(settings, place) if part == "flow" else run_spectrum(settings, part, place)


def run_spectrum(settings: Settings, part: str, place: Place) -> Result:
    """The top eigenvectors of a cube from random vectors, what they are, and what a linear probe reads from them."""
    device, flips, count = place.device, flip_probs(settings, part), settings["count"]
    nodes, apply, tally = 2 ** settings["dim"], cube(flips, device), Tally()
    noise = device_generator(device, settings["seed"], list(WORDS).index(part))
    shape = (nodes, count + settings["extra"])
    block = torch.randn(shape, generator=noise, device=device, dtype=torch.float64)
    solved = iterated(apply, block, count, settings["tolerance"], place, tally)
    V, values = solved.vectors[:, :count], solved.values[:count]
    minus = over_subsets([float(bit in settings["label_bits"]) for bit in range(len(flips))], device, False)
    label = minus.long() % 2
    targets = torch.nn.functional.one_hot(label, 2).double() / math.sqrt(nodes)
    mse, wrong = on_device.nested_probe(V, targets, label, torch.full_like(minus, 1.0 / nodes))
    coefficients = walsh(settings["dim"], device)(V[None])[0]
    eigenvalue = over_subsets(((1.0 - 2.0 * flips) ** 2).tolist(), device, True)
    own = [torch.sum(c[torch.abs(eigenvalue - v) < SAME] ** 2) for c, v in zip(coefficients.T, values, strict=True)]
    numbers = {
        "eigenvalues": values.tolist(),
        "residual": solved.residual,
        "rounds": solved.rounds,
        "beyond": beyond(apply, V, noise),
        "characters": torch.stack(own).tolist(),
        "loss": float(on_device.loss(apply, (V * torch.sqrt(values))[None])[0]),
        "phi": 1.0 - float(torch.sum(targets * apply(targets[None])[0])),
        "probe_mse_by_k": mse.tolist(),
        "probe_error_by_k": wrong.tolist(),
    }
    return Result(numbers, samples=nodes, flops=tally.flops, bytes=tally.bytes, working_set=8.0 * math.prod(shape))


def spectrum_run(settings: Settings, part: str, numbers: Numbers) -> Run:
    """What was found of one cube, as a run of the lab."""
    from .prediction import predict

    found = numbers[part]
    params = _params(settings, part, settings["count"])
    nothing = np.array([math.nan])
    vectors = ("eigenvalues", "probe_mse_by_k", "probe_error_by_k")
    finals = {name: np.array([found[name]]) for name in vectors}
    finals |= {"phi": np.array([found["phi"]]), "alpha": nothing, "vote_error": nothing}
    series = {"loss": np.array([[found["loss"]]]), "probe_error": finals["probe_error_by_k"][:, -1:]}
    return observed(LAB, params, [0], series, {}, predict(params).prediction, finals)


def _params(settings: Settings, part: str, k: int) -> AugmentationGraphParams:
    return AugmentationGraphParams.make(
        graph="hypercube", cube_dim=settings["dim"], flip_probs=tuple(flip_probs(settings, part).tolist()),
        label_bits=tuple(map(float, settings["label_bits"])), n_features=k, training="eigen", steps=1, replicates=1,
    )  # fmt: skip


# -- the flow --------------------------------------------------------------------------------------------------------


def flow_steps(settings: Settings) -> NDArray[np.int64]:
    """The steps at which the flow is looked at."""
    return spread_steps(settings["flow_steps"], 40, 20)


def run_flow(settings: Settings, place: Place) -> Result:
    """Gradient flow of a table of all nodes from a random start, and the closed form from the same start.

    Equal flip probabilities, as many features as the constant and the bits: all copies of the second eigenvalue.
    """
    from theory import augmentation_graph as theory

    device, dim, dt = place.device, settings["dim"], settings["time_step"]
    nodes, k = 2**dim, dim + 1
    apply, tally, step = cube(flip_probs(settings, "flow"), device), Tally(), flow_steps(settings)
    look = Levels(settings, device)
    noise = device_generator(device, settings["seed"], len(WORDS))
    F = torch.randn((1, nodes, k), generator=noise, device=device, dtype=torch.float64)
    F *= settings["start_size"] / math.sqrt(nodes)
    values, rows = look.reduced(F)
    seen = torch.zeros((len(step), 2 + dim + 1), dtype=torch.float64, device=device)
    begun, first = place.begun(), 0
    if begun is not None:
        F, seen, first = begun["F"], begun["seen"], int(begun["step"])
    recorded = {int(t): i for i, t in enumerate(step)}
    for t in range(first, settings["flow_steps"] + 1):
        if t in recorded:
            seen[recorded[t]] = look(apply, F)
        if t < settings["flow_steps"]:
            on_device.runge_kutta(apply, F, dt)
        place.keep(lambda: {"F": F, "seen": seen, "step": t + 1})  # noqa: B023
    for _ in range(4):
        tally.apply(apply, k * settings["flow_steps"])
        for _ in range(2):
            tally.dense(8.0, nodes * settings["flow_steps"], k, k)
    path = theory.gradient_flow(values, rows, step * dt)
    mass = theory.mode_masses(path)
    bounds = np.searchsorted(-values, -np.unique(values)[::-1])
    numbers = {
        "loss": seen[:, 0].tolist(),
        "subspace_tan": seen[:, 1].tolist(),
        "level_mass": seen[:, 2:].tolist(),
        "predicted_loss": theory.factor_loss(values, path).tolist(),
        "predicted_subspace_tan": theory.subspace_tangent(values, rows, step * dt).tolist(),
        "predicted_level_mass": np.add.reduceat(mass, bounds, axis=1).tolist(),
    }
    return Result(numbers, samples=nodes, flops=tally.flops, bytes=tally.bytes, working_set=8.0 * nodes * k)


class Levels:
    """Looks at a table on the levels of a cube of equal flip probabilities: all characters of as many bits."""

    def __init__(self, settings: Settings, device: str):
        self.dim, self.flip, self.walsh = settings["dim"], settings["flip"], walsh(settings["dim"], device)
        self.level = over_subsets([1.0] * self.dim, device, False).long()

    def __call__(self, apply: Kronecker, F: torch.Tensor) -> torch.Tensor:
        """(2 + levels,) loss, tangent to the first two levels, and the mass on each level."""
        A = self.walsh(F)[0]
        mass = torch.zeros(self.dim + 1, dtype=A.dtype, device=A.device)
        mass.index_add_(0, self.level, torch.sum(A * A, dim=1))
        inside = A[self.level <= 1]
        outside = torch.where(self.level[:, None] <= 1, 0.0, A)
        turned = torch.linalg.solve(inside.T, torch.linalg.solve(inside.T, gram(outside, outside)).T)
        angle = torch.sqrt(torch.linalg.eigvalsh(0.5 * (turned + turned.T))[-1:])
        return torch.cat([on_device.loss(apply, F), angle, mass])

    def reduced(self, F: torch.Tensor) -> tuple[Array, Array]:
        """Eigenvalues, and rows of the start with the same Gram matrix on every level: at most k of them each."""
        A, values, rows = self.walsh(F)[0], [], []
        for j in range(self.dim + 1):
            part = A[self.level == j]
            part = torch.linalg.qr(part, mode="r")[1] if len(part) > part.shape[1] else part
            values.append(np.full(len(part), (1.0 - 2.0 * self.flip) ** (2 * j)))
            rows.append(array(part))
        return np.concatenate(values), np.concatenate(rows)


def flow_run(settings: Settings, numbers: Numbers) -> Run:
    """What was seen of the flow, as a run of the lab; masses are a copy's, as the lab records them."""
    found, dim, k = numbers["flow"], settings["dim"], settings["dim"] + 1
    step = flow_steps(settings)
    plain = _params(settings, "flow", k)
    flow = {"training": "gradient_flow", "learning_rate": settings["time_step"] * plain.nodes}
    params = plain.model_copy(update=flow | {"steps": settings["flow_steps"]})
    copies = np.array([math.comb(dim, j) for j in range(dim + 1)])
    series = {name: np.array([found[name]]) for name in ("loss", "subspace_tan")}
    series["time"] = (step * settings["time_step"])[None]
    predicted: dict[str, Any] = {name: np.array(found[f"predicted_{name}"]) for name in ("loss", "subspace_tan")}
    measured, line = (np.array(found[name]) / copies for name in ("level_mass", "predicted_level_mass"))
    for i in range(1, LEVELS + 1):
        series[f"mode_mass_{i}"], predicted[f"mode_mass_{i}"] = measured[None, :, i - 1], line[:, i - 1]
    second = (1.0 - 2.0 * settings["flip"]) ** 2
    derived = {
        "gap": np.array([second - second**2]),
        "min_loss": np.array([-1.0 - dim * second**2]),
    }
    return observed(LAB, params, step, series, derived, predicted)


# -- the report ------------------------------------------------------------------------------------------------------


def judge(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """The lab's own claims on each cube and on the flow; that no copy is missing, and that vectors are characters."""
    found = []
    nodes = 2 ** settings["dim"]
    for part, words in WORDS.items():
        run, here = spectrum_run(settings, part, numbers), numbers[part]
        for name in SPECTRUM_CLAIMS:
            one = judged(LAB, name, [run])
            found.append(replace(one, id=f"{name}_{part}", statement=f"{nodes:,} nodes {words}: {one.statement}"))
        least = min(here["eigenvalues"])
        found.append(
            verdict(
                f"nothing_missed_{part}",
                f"{nodes:,} nodes {words}: outside the {settings['count']} vectors found there is no larger eigenvalue "
                "(to 1e-6).",
                "power iteration on the complement",
                Measured(0.0, max(0.0, here["beyond"] - least), 0.0, 1e-6),
                1,
            )
        )
        found.append(
            verdict(
                f"characters_{part}",
                f"{nodes:,} nodes {words}: every vector found lies in the span of the characters of its eigenvalue "
                "(all but a millionth of it).",
                "products of signs are the eigenvectors of independent flips",
                Measured(1.0, min(here["characters"]), 0.0, 1e-6),
                1,
            )
        )
    run = flow_run(settings, numbers)
    return [*found, *(judged(LAB, name, [run], _of_flow(name, nodes)) for name in FLOW_CLAIMS)]


def _of_flow(name: str, nodes: int) -> str:
    statement = next(claim.statement for claim in LAB.claims if claim.id == name)
    return f"Gradient flow on {nodes:,} nodes: {statement}"


def draw(settings: Settings, numbers: Numbers) -> Figure:
    """Eigenvalues over their number, theory dashed."""
    from .prediction import spectrum_of

    lines = []
    number = list(range(1, settings["count"] + 1))
    for colour, (part, words) in enumerate(WORDS.items()):
        known, _ = spectrum_of(_params(settings, part, settings["count"]))
        assert known is not None
        lines.append(Line(words, number, numbers[part]["eigenvalues"], colour))
        lines.append(Line("characters", number, known.top(settings["count"]).tolist(), colour, dashed=True))
    title = f"Hypercube of {2 ** settings['dim']:,} nodes"
    return Figure(title, "number of the eigenvalue", "eigenvalue", lines)


def needed_bytes(settings: Settings) -> float:
    """Eight blocks of vectors, or nine tables of the flow, in float64."""
    columns = max(8 * (settings["count"] + settings["extra"]), 9 * (settings["dim"] + 1))
    return 8.0 * 2 ** settings["dim"] * (columns + 12)


_CUBE = {
    "flips": [0.02, 0.4],
    "flip": 0.1,
    "label_bits": [0, 1],
    "tolerance": 1e-10,
    "flow_steps": 1300,
    "time_step": 0.0095,
    "start_size": 0.1,
    "seed": 1,
}

CONFIRMATIONS = tuple(
    Confirmation(
        id="hypercube",
        title="The top eigenvectors of a large hypercube by block iteration, character by character, and the flow of a "
        "table of all its nodes beside its closed form.",
        scale=scale,
        settings={**_CUBE, **sizes},
        parts=lambda settings: [*WORDS, "flow"],
        run=run_part,
        bytes=needed_bytes,
        resize="dim",
        judge=judge,
        figure=draw,
    )
    for scale, sizes in (
        ("small", {"dim": 12, "count": 24, "extra": 8}),
        ("full", {"dim": 20, "count": 64, "extra": 16}),
    )
)
