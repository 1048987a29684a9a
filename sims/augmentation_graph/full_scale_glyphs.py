"""Confirmation on pictures: an encoder sees rendered glyphs, nothing else, and learns the eigenvectors of their graph.

Pictures are drawn from strokes on the device, pairs of views drawn factor by factor, and the encoder is trained by
automatic differentiation of the batch loss. That the graph is a Kronecker product is used afterwards
only, to say which eigenvectors should have been learned.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, Run
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, judged, observed, verdict
from ..engine.figure import Figure, Line
from ..engine.judges import mean_se
from ..engine.on_device import device_generator, tensor
from ..graphs import glyphs, on_device, spectrum
from ..graphs.generators import ROTATION_KERNEL, SHIFT_KERNEL, circulant_matrix, swap_matrix
from ..graphs.on_device import Kronecker
from .lab import LAB, AugmentationGraphParams

Array = NDArray[np.float64]

LOOKS = 24  # at the features of all pictures, while training
ROWS = 1024  # pictures that go through the encoder at once when it is looked at
_PAPER = "HaoChen et al. 2021"


# -- pictures and pairs ----------------------------------------------------------------------------------------------


def render(settings: Settings, device: str) -> torch.Tensor:
    """(glyph * rotation * shift, side, side) grey values, drawn stroke by stroke; see `graphs.glyphs.draw`."""
    side, R, S = settings["side"], settings["rotations"], settings["shifts"]
    centre = (torch.arange(side, device=device, dtype=torch.float64) + 0.5) / side * 2.0 - 1.0
    point = torch.stack([centre.expand(side, side), -centre[:, None].expand(side, side)], dim=-1)  # (side, side, 2)
    turn = 2.0 * math.pi * torch.arange(R, device=device, dtype=torch.float64) / R
    rotation = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], dim=-1).view(R, 2, 2)
    found = []
    for strokes in glyphs.strokes(settings["glyphs"]):
        ends = tensor(np.array(strokes), device).view(-1, 2, 2) @ rotation[:, None]  # (R, strokes, ends, 2)
        start, along = ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]
        apart = point[:, :, None, None] - start  # (side, side, R, strokes, 2)
        share = (torch.sum(apart * along, dim=-1) / torch.sum(along**2, dim=-1)).clamp(0.0, 1.0)
        distance = torch.linalg.vector_norm(apart - share[..., None] * along, dim=-1).amin(dim=-1)
        grey = (1.0 - (distance - glyphs.HALF_WIDTH) * side / 2.0).clamp(0.0, 1.0).permute(2, 0, 1)
        found.append(torch.stack([torch.roll(grey, s * side // S, dims=2) for s in range(S)], dim=1))
    return torch.stack(found).flatten(0, 2).float()


class Pictures(NamedTuple):
    """All pictures of a graph: node = ((glyph * R + rotation) * S + shift) * colours + colour."""

    grey: torch.Tensor  # (G R S, side, side) float32
    colours: int
    mean: float  # of the pixels of all channels, and their standard deviation: what enters is standardised
    spread: float

    @property
    def nodes(self) -> int:
        return len(self.grey) * self.colours

    def of(self, node: torch.Tensor) -> torch.Tensor:
        """(rows, colours, side, side) pixels of nodes (rows,)."""
        channel = torch.nn.functional.one_hot(node % self.colours, self.colours).to(self.grey.dtype)
        pixels = self.grey[node // self.colours][:, None] * channel[:, :, None, None]
        return (pixels - self.mean) / self.spread


def all_pictures(settings: Settings, device: str) -> Pictures:
    grey, colours = render(settings, device), settings["colours"]
    mean, square = float(torch.mean(grey)) / colours, float(torch.mean(grey**2)) / colours
    return Pictures(grey, colours, mean, math.sqrt(square - mean**2))


def draw_pairs(settings: Settings, batch: int, noise: torch.Generator) -> torch.Tensor:
    """(2, batch) nodes of positive pairs: a natural picture, and twice what augmentation makes of it."""
    device = noise.device
    G, R, S, C = (settings[name] for name in ("glyphs", "rotations", "shifts", "colours"))

    def below(bound: int, *shape: int) -> torch.Tensor:
        return torch.randint(bound, shape, generator=noise, device=device)

    def uniform() -> torch.Tensor:
        return torch.rand((2, batch), generator=noise, device=device)

    def swapped(kind: torch.Tensor, kinds: int, probability: float) -> torch.Tensor:
        if kinds == 1:
            return kind.expand(2, batch)
        return torch.where(uniform() < probability, (kind + 1 + below(kinds - 1, 2, batch)) % kinds, kind)

    def moved(place: torch.Tensor, places: int, kernel: tuple[float, float, float]) -> torch.Tensor:
        u = uniform()
        step = torch.where(u < kernel[0], 0, torch.where(u < kernel[0] + kernel[1], 1, -1))
        return (place + step) % places

    glyph = swapped(below(G, batch), G, settings["glyph_swap"])
    rotation = moved(below(R, batch), R, ROTATION_KERNEL)
    shift = moved(below(S, batch), S, SHIFT_KERNEL)
    colour = swapped(below(C, batch), C, settings["colour_swap"])
    return ((glyph * R + rotation) * S + shift) * C + colour


# -- the encoder -----------------------------------------------------------------------------------------------------


def encoder(kind: str, settings: Settings, noise: torch.Generator) -> torch.nn.Module:
    """A ReLU network from pixels to features: `mlp`, or `conv` with a halving of the side after each layer.

    Every weight and bias is uniform on +-1/sqrt(its inputs), drawn from `noise`.
    """
    from torch import nn

    def made(module: type[nn.Module], *arguments: Any, **options: Any) -> nn.Module:
        found = nn.utils.skip_init(module, *arguments, device=noise.device, **options)
        bound = 1.0 / math.sqrt(found.weight[0].numel())
        for parameter in (found.weight, found.bias):
            parameter.data.uniform_(-bound, bound, generator=noise)
        return found

    side, channels, width = settings["side"], settings["colours"], settings["width"]
    layers: list[nn.Module] = []
    if kind == "conv":
        for more in settings["channels"]:
            layers += [made(nn.Conv2d, channels, more, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels, side = more, side // 2
    layers += [nn.Flatten(), made(nn.Linear, channels * side * side, width), nn.ReLU()]
    if kind == "mlp":
        layers += [made(nn.Linear, width, width), nn.ReLU()]
    return nn.Sequential(*layers, made(nn.Linear, width, settings["n_features"]))


def batch_loss(z: torch.Tensor) -> torch.Tensor:
    """L_B of pairs of embeddings z (2, B, k): the squares of all inner products follow from two Gram matrices."""
    B = z.shape[1]
    own = torch.sum(z[0] * z[1], dim=1)
    squares = torch.sum((z[0].T @ z[0]) * (z[1].T @ z[1]))
    return (squares - torch.sum(own**2)) / (B * (B - 1.0)) - 2.0 * torch.mean(own)


def rate_at(settings: Settings, t: int) -> float:
    """Adam's rate: constant, so that saddles are left, then half a cosine down to 0 over the last 30 % of the steps."""
    late = max(0.0, (t / settings["steps"] - 0.7) / 0.3)
    return 0.5 * float(settings["learning_rate"]) * (1.0 + math.cos(math.pi * late))


def forward_flops(kind: str, settings: Settings) -> float:
    """Multiplications and additions of one picture on its way through the encoder."""
    side, channels, width = settings["side"], settings["colours"], settings["width"]
    total = 0.0
    if kind == "conv":
        for more in settings["channels"]:
            total += 2.0 * 9.0 * channels * more * side * side
            channels, side = more, side // 2
    total += 2.0 * channels * side * side * width + 2.0 * width * settings["n_features"]
    return total + (2.0 * width * width if kind == "mlp" else 0.0)


def run_encoder(settings: Settings, part: str, place: Place) -> Result:
    """One encoder from its start to the end, and what its features span."""
    kind, number = part.split(" ")
    device, steps, B = place.device, settings["steps"], settings["batch"]
    noise = device_generator(device, settings["seed"], settings["encoders"].index(kind), int(number))
    pictures = all_pictures(settings, device)
    model = encoder(kind, settings, noise)
    adam = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"], fused=device != "cpu")
    look, seen, first = Look(settings, device), [], 0
    begun = place.begun()
    if begun is not None:
        model.load_state_dict(begun["model"])
        adam.load_state_dict(begun["adam"])
        noise.set_state(begun["noise"].cpu())
        first, seen = int(begun["step"]), begun["seen"]
    whole = pictures.nodes <= 2 * B  # each picture once is less than the pictures of the batch as they come
    every = pictures.of(torch.arange(pictures.nodes, device=device)) if whole else None
    looks = set(np.linspace(0, steps, LOOKS + 1).astype(int).tolist())
    for t in range(first, steps + 1):
        if t in looks:
            F = features(model, pictures)
            seen.append([t, *look.progress(F)])
        if t < steps:
            adam.param_groups[0]["lr"] = rate_at(settings, t)
            nodes = draw_pairs(settings, B, noise)
            adam.zero_grad()
            z = model(every)[nodes] if whole else model(pictures.of(nodes.flatten())).unflatten(0, (2, B))
            batch_loss(z).backward()
            adam.step()

        def state(t: int = t) -> dict[str, Any]:
            return {
                "model": model.state_dict(),
                "adam": adam.state_dict(),
                "noise": noise.get_state(),
                "step": t + 1,
                "seen": seen,
            }

        place.keep(state)
    numbers = {
        name: list(column) for name, column in zip(("step", "loss", "worst"), zip(*seen, strict=True), strict=True)
    }
    rows = pictures.nodes if whole else 2 * B
    passes = 3.0 * rows * steps + 1.0 * pictures.nodes * len(seen)  # backward is twice the work of forward
    return Result(
        {**numbers, **look.end(F)},
        samples=2 * B * steps,
        flops=forward_flops(kind, settings) * passes,
        bytes=0.0,
        working_set=4.0 * rows * settings["colours"] * settings["side"] ** 2,
        dtype="float32",
    )


def features(model: torch.nn.Module, pictures: Pictures) -> torch.Tensor:
    """F (1, N, k) = sqrt(w) f of all pictures, in float64."""
    node = torch.arange(pictures.nodes, device=pictures.grey.device)
    with torch.no_grad():
        f = torch.cat([model(pictures.of(some)) for some in node.split(ROWS)])
    return f.double()[None] / math.sqrt(pictures.nodes)


class Look:
    """What the features of all pictures have to do with the eigenvectors of their graph."""

    def __init__(self, settings: Settings, device: str):
        sizes = [settings[name] for name in ("glyphs", "rotations", "shifts", "colours")]
        kernels = (
            swap_matrix(settings["glyph_swap"], sizes[0]),
            circulant_matrix(ROTATION_KERNEL, sizes[1]),
            circulant_matrix(SHIFT_KERNEL, sizes[2]),
            swap_matrix(settings["colour_swap"], sizes[3]),
        )
        modes = tuple(one @ one.T for one in kernels)
        self.k, self.nodes = settings["n_features"], math.prod(sizes)
        self.apply = Kronecker(modes, device, "float64")
        pairs = spectrum.of_modes(modes, min(self.nodes, 4 * self.k))
        level = spectrum.levels(pairs.values)
        after = int(level[self.k - 1]) + 1  # the first eigenspace that should not be learned
        self.vectors = tensor(pairs.vectors[:, level <= after], device)
        glyph = torch.arange(sizes[0], device=device).repeat_interleave(self.nodes // sizes[0])
        self.label, self.w = glyph, torch.full((self.nodes,), 1.0 / self.nodes, dtype=torch.float64, device=device)
        self.targets = torch.nn.functional.one_hot(glyph, sizes[0]).double() / math.sqrt(self.nodes)

    def inside(self, F: torch.Tensor) -> torch.Tensor:
        """Share of each eigenvector, of those to be learned and of the next eigenspace, in the span of the features."""
        Q, _ = on_device.span(F)
        return torch.sum((Q[0].T @ self.vectors) ** 2, dim=0)

    def progress(self, F: torch.Tensor) -> tuple[float, float]:
        """The population loss, and the least share of an eigenvector that should be learned."""
        return float(on_device.loss(self.apply, F)[0]), float(torch.amin(self.inside(F)[: self.k]))

    def end(self, F: torch.Tensor) -> dict[str, object]:
        """End values: shares, sizes of the features, and what a linear probe makes of them."""
        Q, _ = on_device.span(F)
        mse, wrong = on_device.probe_errors(Q, self.targets, self.label, self.w)
        return {
            "mode_r2": self.inside(F).tolist(),
            "feature_eigenvalues": torch.linalg.eigvalsh(F[0].T @ F[0]).flip(0).tolist(),
            "probe_mse": float(mse[0]),
            "probe_error": float(wrong[0]),
        }


# -- the report ------------------------------------------------------------------------------------------------------


def glyph_params(settings: Settings, replicates: int) -> AugmentationGraphParams:
    """The run of the lab on the same graph."""
    names = ("glyphs", "rotations", "shifts", "colours", "glyph_swap", "colour_swap", "n_features")
    return AugmentationGraphParams.make(
        {name: settings[name] for name in names}, graph="glyphs", training="eigen", replicates=replicates
    )


def encoder_run(settings: Settings, numbers: Numbers) -> Run:
    """All encoders as replicates of a run of the lab."""
    from .prediction import predict

    parts = list(numbers.values())
    params = glyph_params(settings, len(parts))
    predicted = predict(params).prediction
    least = predicted["min_loss"]
    assert isinstance(least, float)
    series = {"loss": np.array([one["loss"] for one in parts])}
    finals = {name: np.array([one[name] for one in parts]) for name in ("mode_r2", "feature_eigenvalues")}
    return observed(LAB, params, parts[0]["step"], series, {"min_loss": np.full(len(parts), least)}, predicted, finals)


def judge(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """The loss, the span, the sizes of the features and the probe, against the spectrum in closed form."""
    run, k = encoder_run(settings, numbers), settings["n_features"]
    inside, count = run.trace.finals["mode_r2"], len(numbers)
    least = float(run.values["min_loss"][0])
    kept, after = inside[:, :k], inside[:, k:]
    worst, most = int(np.argmin(np.mean(kept, axis=0))), int(np.argmax(np.mean(after, axis=0)))
    wrong = np.array([one["probe_error"] for one in numbers.values()])
    found = []
    for id, statement, predicted, values, tolerance in (
        (
            "encoder_loss",
            f"Encoders that see pictures reach the least loss of any {k} features within 1 %.",
            1.0,
            run.values["loss"] / least,
            0.01,
        ),
        (
            "encoder_span",
            "Each eigenvector that should be learned lies in the span of their features (R^2 above 0.95).",
            1.0,
            kept[:, worst],
            0.05,
        ),
        (
            "encoder_nothing_more",
            "No eigenvector of the next eigenvalue does (R^2 below 0.05).",
            0.0,
            after[:, most],
            0.05,
        ),
        (
            "encoder_probe",
            "As many features as glyphs are enough: a linear probe names the glyph on every picture (within 1 %).",
            0.0,
            wrong,
            0.01,
        ),
    ):
        measured = Measured(predicted, *mean_se(values), tolerance)
        found.append(verdict(id, statement, f"{_PAPER}: minimisers are the top eigenvectors", measured, count))
    sizes = (
        "Features of pictures have the sizes of the minimiser: the eigenvalues of F^T F are the graph's, within 0.015."
    )
    return [*found, judged(LAB, "network_sizes", [run], sizes), judged(LAB, "never_below", [run])]


def draw(settings: Settings, numbers: Numbers) -> Figure:
    """The loss while encoders are trained, the least possible one dashed."""
    least = float(encoder_run(settings, numbers).values["min_loss"][0])
    lines = [Line(part, one["step"], one["loss"], i) for i, (part, one) in enumerate(numbers.items())]
    ends = [0.0, float(settings["steps"])]
    lines.append(Line("least possible", ends, [least, least], 6, dashed=True))
    return Figure("Encoders of rendered glyphs", "step", "population loss", lines)


def needed_bytes(settings: Settings) -> float:
    """Pictures, their way through the encoder there and back, features, and the eigenvectors compared with."""
    side, colours, k = settings["side"], settings["colours"], settings["n_features"]
    nodes = settings["glyphs"] * settings["rotations"] * settings["shifts"] * colours
    rows, pixels = min(nodes, 2 * settings["batch"]), 1.0 * side * side
    layers = sum(pixels * wide / 4.0**depth for depth, wide in enumerate(settings["channels"]))
    through = rows * (2.0 * pixels * colours + 3.0 * layers + 8.0 * settings["width"])
    return 4.0 * (through + nodes * pixels) + 8.0 * nodes * 10.0 * k + 40.0 * settings["batch"] * (k + 8.0)


_GLYPHS = {"learning_rate": 5e-3, "seed": 3}
_SMALL = {
    "glyphs": 6, "rotations": 8, "shifts": 4, "colours": 3, "side": 8, "glyph_swap": 0.06, "colour_swap": 0.3,
    "n_features": 6, "encoders": ["mlp"], "runs": 2, "width": 128, "channels": [16, 32], "batch": 8192, "steps": 5000,
}  # fmt: skip
_FULL = {
    "glyphs": 20, "rotations": 16, "shifts": 9, "colours": 4, "side": 36, "glyph_swap": 0.01, "colour_swap": 0.3,
    "n_features": 20, "encoders": ["conv"], "runs": 2, "width": 256, "channels": [32, 64, 128], "batch": 65536,
    "steps": 4000,
}  # fmt: skip

CONFIRMATIONS = tuple(
    Confirmation(
        id="glyph_encoder",
        title="Encoders trained on pairs of rendered pictures, and the eigenvectors of the graph of these pictures.",
        scale=scale,
        settings={**_GLYPHS, **sizes},
        parts=lambda settings: [f"{kind} {n}" for kind in settings["encoders"] for n in range(settings["runs"])],
        run=run_encoder,
        bytes=needed_bytes,
        resize="batch",
        judge=judge,
        figure=draw,
    )
    for scale, sizes in (("small", _SMALL), ("full", _FULL))
)
