"""Confirmation on a sampled graph: every natural example is seen through a few views only, over millions of nodes.

The population is the lab's nested blocks. Of each natural example a handful of views is drawn once, as a data set
would have them, and the graph of these views has no closed form: its top eigenvectors are found by block iteration
on the factor, in both precisions, and by contrastive training of a table of all nodes on pairs of the views.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, Run
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, judged, observed, verdict
from ..engine.figure import Figure, Line
from ..engine.on_device import DTYPES, device_generator
from ..graphs import on_device
from ..graphs.on_device import Factor, by_rows
from ..graphs.solver_on_device import Tally, beyond, iterated
from .lab import LAB, AugmentationGraphParams

Array = NDArray[np.float64]

SIZES = {"float64": 8.0, "float32": 4.0}
CLAIMS = ("bounds", "cheap_cut", "never_below")
LOSSES = 64  # batches of pairs that the loss of the minimiser is averaged over
LOOKS = 60  # at a table while it is trained
_PAPER = "HaoChen et al. 2021"


class Sampled(NamedTuple):
    """A sampled graph: n natural examples with V views each, of N nodes in blocks of equal size."""

    views: torch.Tensor  # (n, V) int32 nodes
    home: torch.Tensor  # (n,) int64 block of each natural example
    degree: torch.Tensor  # (N,) how many views a node is
    block_size: int

    @property
    def w(self) -> torch.Tensor:
        """(N,) weight of the nodes, float64."""
        return self.degree.double() / self.views.numel()


def draw_graph(settings: Settings, device: str) -> Sampled:
    """Views from the nested blocks: at home, in another block of the class, or in another class; there any node."""
    C, s, V = settings["classes"], settings["subclusters"], settings["views"]
    size = settings["nodes"] // (C * s)
    n = size * C * s * settings["degree"] // V
    noise = device_generator(device, settings["seed"], 0)

    def below(bound: int, *shape: int) -> torch.Tensor:
        return torch.randint(bound, shape, generator=noise, device=device, dtype=torch.int32)

    home = below(C * s, n)
    block = home[:, None].expand(n, V)
    goes = torch.rand((n, V), generator=noise, device=device)
    near = block - block % s + (block + 1 + below(s - 1, n, V)) % s
    far = (block // s + 1 + below(C - 1, n, V)) % C * s + below(s, n, V)
    block = torch.where(goes < settings["leak"], far, block)
    block = torch.where((goes >= settings["leak"]) & (goes < settings["leak"] + settings["leak_within"]), near, block)
    views = block * size + below(size, n, V)
    degree = torch.bincount(views.flatten(), minlength=size * C * s)
    return Sampled(views, home.long(), degree, size)


def operator(graph: Sampled, dtype: str) -> Factor:
    """Abar = B^T B of a sampled graph. A node that is no view of anything weighs nothing: its row is zero."""
    n, V = graph.views.shape
    view, N = graph.views.flatten(), len(graph.degree)
    value = torch.rsqrt(graph.degree.clamp_min(1).double() * V).to(DTYPES[dtype])
    order = torch.argsort(view)
    ends = torch.nn.functional.pad(torch.cumsum(graph.degree, 0), (1, 0)).int()
    starts = torch.arange(0, n * V + 1, V, device=view.device, dtype=torch.int32)
    return Factor(
        by_rows(starts, view, value[view], N),
        by_rows(ends, (order // V).int(), value.repeat_interleave(graph.degree), n),
    )


def draw_pairs(graph: Sampled, batch: int, noise: torch.Generator) -> torch.Tensor:
    """(2, batch) nodes of positive pairs: an example, and twice one of its views."""
    n, V = graph.views.shape
    device = graph.views.device
    example = torch.randint(n, (batch,), generator=noise, device=device)
    which = torch.randint(V, (2, batch), generator=noise, device=device)
    return graph.views.view(-1)[example * V + which].long()


def batch_losses(f: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """The loss L_B of each batch of pairs (M, 2, B) of a table f (N, k): unbiased for the population loss."""
    z = f[pairs].double()
    B = z.shape[2]
    own = torch.sum(z[:, 0] * z[:, 1], dim=2)
    grams = torch.matmul(z.transpose(2, 3), z)
    all_pairs = torch.sum(grams[:, 0] * grams[:, 1], dim=(1, 2))
    return (all_pairs - torch.sum(own**2, dim=1)) / (B * (B - 1.0)) - 2.0 * torch.mean(own, dim=1)


# -- parts -----------------------------------------------------------------------------------------------------------


def run_part(settings: Settings, part: str, place: Place) -> Result:
    """The top eigenvectors in one precision; in float32 also a table trained on pairs, beside them."""
    device = place.device
    graph = draw_graph(settings, device)
    apply, tally = operator(graph, part), Tally()
    noise = device_generator(device, settings["seed"], 1, list(SIZES).index(part))
    count, N = settings["count"], len(graph.degree)
    block = torch.randn((N, count + settings["extra"]), generator=noise, device=device, dtype=DTYPES[part])
    solved = iterated(apply, block, count, settings["tolerance"][part], place, tally)
    V, values = solved.vectors[:, :count], solved.values[: count + 1]
    numbers = {
        "eigenvalues": values.tolist(),
        "residual": solved.residual,
        "rounds": solved.rounds,
        "beyond": beyond(apply, V, noise),
    }
    samples = graph.views.numel()
    if part == "float64":
        numbers |= read_off(settings, graph, apply, V, values, noise)
        samples += settings["loss_batch"] * LOSSES
    else:
        numbers |= train(settings, graph, apply, V, place, tally)
        samples += settings["pairs_per_node"] * N
    return Result(numbers, samples, tally.flops, tally.bytes, SIZES[part] * block.numel(), part)


def read_off(
    settings: Settings, graph: Sampled, apply: Factor, V: torch.Tensor, values: torch.Tensor, noise: torch.Generator
) -> dict[str, object]:
    """What a linear probe makes of the eigenvectors, how often labels differ, and the loss on fresh pairs."""
    C, s, k, w = settings["classes"], settings["subclusters"], settings["n_features"], graph.w
    N, n_views = len(w), graph.views.shape[1]
    label = torch.arange(N, device=w.device) // (graph.block_size * s)
    own = graph.home // s
    targets = torch.nn.functional.one_hot(label, C) * torch.sqrt(w)[:, None]
    mse, wrong = on_device.nested_probe(V, targets, label, w)
    fitted = V[:, :k] @ (V[:, :k].T @ targets)
    chosen = torch.argmax(fitted * torch.rsqrt(w.clamp_min(1e-300))[:, None], dim=1)
    votes = torch.zeros((len(own), C), device=w.device)
    leaves = torch.zeros((), dtype=torch.float64, device=w.device)
    one = torch.ones((len(own), 1), device=w.device)
    for view in range(n_views):
        votes.scatter_add_(1, chosen[graph.views[:, view].long()][:, None], one)
        leaves += torch.mean((label[graph.views[:, view].long()] != own).double())
    f = V[:, :k] * torch.sqrt(values[:k]) * torch.rsqrt(w.clamp_min(1e-300))[:, None]
    losses = torch.cat([batch_losses(f, draw_pairs(graph, settings["loss_batch"], noise)[None]) for _ in range(LOSSES)])
    return {
        "probe_mse_by_k": mse.tolist(),
        "probe_error_by_k": wrong.tolist(),
        "vote_error": float(torch.mean((torch.argmax(votes, dim=1) != own).double())),
        "phi": 1.0 - float(torch.sum(targets * apply(targets[None])[0])),
        "alpha": float(leaves) / n_views,
        "losses": losses.tolist(),
    }


def train(
    settings: Settings, graph: Sampled, apply: Factor, V: torch.Tensor, place: Place, tally: Tally
) -> dict[str, object]:
    """SGD on the table of all nodes, on pairs drawn from the views; the rate falls to 0 along half a cosine."""
    k, B, w = settings["n_features"], settings["batch"], graph.w.float()
    N, device = len(w), w.device
    steps = settings["pairs_per_node"] * N // B
    noise = device_generator(place.device, settings["seed"], 2)
    f = settings["init_scale"] * torch.randn((N, k), generator=noise, device=device)
    rate = -settings["rate_per_pair"] * B / (N * w.clamp_min(1.0 / graph.views.numel()))
    root, first, time = torch.sqrt(w)[:, None], 0, 0.0
    seen: list[list[float]] = []
    begun = place.begun() or {}
    if "f" in begun:
        f, first, time, seen = begun["f"], int(begun["step"]), float(begun["time"]), begun["seen"]
        noise.set_state(begun["noise"].cpu())
    looks = set(np.linspace(0, steps, LOOKS + 1).astype(int).tolist())
    for t in range(first, steps + 1):
        if t in looks:
            F = f * root
            seen.append([time, float(on_device.loss(apply, F[None])[0]), float(alignment(F, V[:, :k]))])
        if t < steps:
            fall = 0.5 * (1.0 + math.cos(math.pi * t / steps))
            nodes = draw_pairs(graph, B, noise)
            moved = on_device.batch_slopes(f[nodes][None])[0]
            moved *= (rate * fall)[nodes][..., None]
            f.index_put_((nodes.flatten(),), moved.flatten(0, 1), accumulate=True)
            time += fall * settings["rate_per_pair"] * B / N
        place.keep(lambda: {"f": f, "noise": noise.get_state(), "step": t + 1, "time": time, "seen": seen})  # noqa: B023
    tally.flops += 8.0 * k * k * steps * B
    tally.bytes += 4.0 * (3.0 * k + 1.0) * 2.0 * steps * B  # rows that a pair reads and adds to, and their rates
    Q, _ = on_device.span((f * root)[None])
    targets = torch.nn.functional.one_hot(
        torch.arange(N, device=device) // (graph.block_size * settings["subclusters"])
    )
    mse, wrong = on_device.probe_errors(Q, targets * root, targets.argmax(1), w.clamp_min(1e-30))
    columns = ("time", "loss", "alignment")
    return {
        **{name: column for name, column in zip(columns, map(list, zip(*seen, strict=True)), strict=True)},
        "inside": torch.sum((Q[0].T @ V) ** 2, dim=0).tolist(),
        "probe_mse": float(mse[0]),
        "probe_error": float(wrong[0]),
    }


def alignment(F: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """The squared cosine of the largest angle between the span of F (N, k) and that of orthonormal V (N, k)."""
    Q, _ = on_device.span(F[None])
    return torch.amin(torch.linalg.svdvals(V.T @ Q[0])) ** 2


# -- the report ------------------------------------------------------------------------------------------------------


def sampled_run(settings: Settings, numbers: Numbers) -> Run:
    """Eigenvectors, probe, and training, as a run of the lab with the blocks of the population."""
    found, trained = numbers["float64"], numbers["float32"]
    k = settings["n_features"]
    names = ("classes", "subclusters", "leak_within", "leak", "n_features")
    params = AugmentationGraphParams.make({name: settings[name] for name in names}, training="eigen", replicates=1)
    size = settings["nodes"] // (settings["classes"] * settings["subclusters"])
    params = params.model_copy(update={"nodes_per_block": size})
    finals = {name: np.array([found[name]]) for name in ("eigenvalues", "probe_mse_by_k", "probe_error_by_k")}
    finals |= {name: np.array([found[name]]) for name in ("phi", "alpha", "vote_error")}
    errors = np.full((1, len(trained["loss"])), found["probe_error_by_k"][k - 1])
    series = {"loss": np.array([trained["loss"]]), "time": np.array([trained["time"]]), "probe_error": errors}
    derived = {"min_loss": np.array([least_loss(settings, numbers)])}
    return observed(LAB, params, range(len(trained["loss"])), series, derived, finals=finals)


def least_loss(settings: Settings, numbers: Numbers) -> float:
    """Minus the sum of the squares of the largest eigenvalues, as many as features."""
    return -float(np.sum(np.array(numbers["float64"]["eigenvalues"])[: settings["n_features"]] ** 2))


def plateaus(settings: Settings) -> dict[str, slice]:
    """Where the eigenvalues of classes and those of sub-clusters are in the list of all."""
    C, s = settings["classes"], settings["subclusters"]
    return {"classes": slice(1, C), "subclusters": slice(C, C * s)}


def predicted_plateaus(settings: Settings) -> dict[str, float]:
    """What the tree says of the two, see `theory.graphs.sampled_eigenvalue`."""
    from theory.graphs import block_eigenvalues, sampled_eigenvalue

    C, s = settings["classes"], settings["subclusters"]
    population = block_eigenvalues(C, s, settings["leak_within"], settings["leak"])
    found = [sampled_eigenvalue(value, settings["views"], settings["degree"]) for value in population]
    return dict(zip(plateaus(settings), found, strict=True))


def judge(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """Eigenvalues against the tree and the other precision, the probe, the loss on pairs, and what training finds."""
    exact, single = numbers["float64"], numbers["float32"]
    C, k, nodes = settings["classes"], settings["n_features"], settings["nodes"]
    values, run = np.array(exact["eigenvalues"]), sampled_run(settings, numbers)
    least = least_loss(settings, numbers)
    found = []

    def say(id: str, statement: str, source: str, measured: Measured) -> None:
        found.append(verdict(id, statement, source, measured, 1))

    for name, predicted in predicted_plateaus(settings).items():
        copies = values[plateaus(settings)[name]]
        error = float(np.std(copies, ddof=1)) / math.sqrt(len(copies))
        say(
            f"plateau_of_{name}",
            f"With {settings['views']} views of each natural example the eigenvalues of {name} rise to what a tree of "
            f"these degrees says (mean of {len(copies)}, within 0.003).",
            "bipartite Ihara-Bass identity on the nested blocks; a heuristic",
            Measured(predicted, float(np.mean(copies)), error, 0.003),
        )
    apart = float(np.max(np.abs(np.array(single["eigenvalues"]) - values)[: settings["count"]]))
    say(
        "precision",
        "Solved in float32 and in float64 from different starts, the eigenvalues agree (to 1e-4).",
        "the same graph",
        Measured(0.0, apart, 0.0, 1e-4),
    )
    for name, part in numbers.items():
        missed = max(0.0, part["beyond"] - min(part["eigenvalues"][: settings["count"]]))
        say(
            f"nothing_missed_{name}",
            f"Outside the {settings['count']} vectors found in {name} there is no larger eigenvalue (to 1e-6).",
            "power iteration on the complement",
            Measured(0.0, missed, 0.0, 1e-6),
        )
    losses = np.array(exact["losses"])
    say(
        "loss_on_pairs",
        f"On fresh pairs of views the loss of {k} scaled eigenvectors is minus the sum of their squared eigenvalues "
        "(within 0.01).",
        f"{_PAPER}: the loss is a low-rank factorisation of the normalised adjacency matrix",
        Measured(least, float(np.mean(losses)), float(np.std(losses, ddof=1)) / math.sqrt(len(losses)), 0.01),
    )
    gaps = np.array(exact["probe_mse_by_k"][:C]) - (1.0 - np.arange(1, C + 1) / C)
    say(
        "cliff",
        "The squared error of the probe falls by 1/C with each eigenvector and ends at 0 with as many as classes "
        "(within 0.02).",
        "exact for the population; views that were drawn add their noise",
        Measured(0.0, float(gaps[np.argmax(np.abs(gaps))]), 0.0, 0.02),
    )
    say(
        "trained_loss",
        f"A table of {nodes:,} nodes trained on pairs reaches the least loss of any {k} features within 1 %.",
        f"{_PAPER}: minimisers are the top eigenvectors",
        Measured(1.0, single["loss"][-1] / least, 0.0, 0.01),
    )
    say(
        "trained_span",
        f"It spans the top {k} eigenvectors: the squared cosine of the largest angle to them is 1 (within 0.02).",
        f"{_PAPER}: minimisers are the top eigenvectors",
        Measured(1.0, single["alignment"][-1], 0.0, 0.02),
    )
    say(
        "trained_probe",
        "A linear probe on it tells the classes of all nodes (within 1 %).",
        "as many features as classes, and classes lead",
        Measured(0.0, single["probe_error"], 0.0, 0.01),
    )
    own = f"{nodes:,} nodes, {settings['views']} views of each natural example: "
    for name in CLAIMS:
        one = judged(LAB, name, [run])
        found.append(replace(one, statement=own + one.statement))
    return found


def draw(settings: Settings, numbers: Numbers) -> Figure:
    """The loss of the table over the time of the flow, the least possible one dashed."""
    trained = numbers["float32"]
    time, least = trained["time"], least_loss(settings, numbers)
    return Figure(
        f"Contrastive training of {settings['nodes']:,} nodes",
        "time of gradient flow",
        "population loss",
        [
            Line("SGD on pairs", time, trained["loss"], 0),
            Line("least possible", [time[0], time[-1]], [least, least], 0, dashed=True),
        ],
    )


def needed_bytes(settings: Settings) -> float:
    """Views drawn, the factor by rows and by columns, six blocks of vectors, and their images among the examples."""
    N = settings["nodes"]
    entries, columns = 1.0 * N * settings["degree"], settings["count"] + settings["extra"]
    examples = entries / settings["views"]
    pairs = max(settings["batch"], settings["loss_batch"]) * settings["n_features"] * 80.0
    return 48.0 * entries + 8.0 * columns * (7.0 * N + 2.0 * examples) + 8.0 * examples * settings["classes"] + pairs


_BLOCKS = {
    "classes": 4,
    "subclusters": 3,
    "leak_within": 0.1,
    "leak": 0.04,
    "views": 8,
    "degree": 16,
    "n_features": 4,
    "count": 12,
    "extra": 6,
    "tolerance": {"float64": 1e-9, "float32": 3e-5},
    "loss_batch": 100_000,
    "rate_per_pair": 0.1,
    "init_scale": 0.1,
    "seed": 2,
}

CONFIRMATIONS = tuple(
    Confirmation(
        id="block_graph",
        title="The top eigenvectors of a large graph of sampled views, in both precisions, and a table of all its "
        "nodes trained on pairs of those views.",
        scale=scale,
        settings={**_BLOCKS, **sizes},
        parts=lambda settings: list(SIZES),
        run=run_part,
        bytes=needed_bytes,
        resize="nodes",
        judge=judge,
        figure=draw,
    )
    for scale, sizes in (
        ("small", {"nodes": 120_000, "batch": 12_000, "pairs_per_node": 200}),
        ("full", {"nodes": 12_000_000, "batch": 1_200_000, "pairs_per_node": 320}),
    )
)
