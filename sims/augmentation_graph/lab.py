"""Contrastive learning is spectral clustering: the augmentation graph decides which features are learned.

An embedding of augmented examples trained by the spectral contrastive loss, and the eigenvectors of the graph that
joins two views of one example, after HaoChen, Wei, Gaidon & Ma 2021.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ..engine import (
    Change,
    Lab,
    Monitor,
    Paper,
    Params,
    Prediction,
    Preset,
    Problem,
    Quantity,
    Replicate,
    Tolerance,
    Trace,
    Work,
    param,
    spread_steps,
    stream_table,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STREAMS = stream_table(
    "natural",  # which natural example a pair of views is of
    "first_view",
    "second_view",
    "init",  # the start of the embedding table
    "basis",  # a basis of each eigenspace of several dimensions
    "weights",  # the start of the network
)
TRAINED = ("gradient_flow", "sgd", "network")
TABLE = ("gradient_flow", "sgd")
BATCHED = ("sgd", "network")
LEVELS = 8  # distinct eigenvalues whose masses are recorded
MOST_ENTRIES = 10_000_000  # of the kernel of views that training draws from
LEAST_PAIRS, MOST_PAIRS = 16, 600  # eigenpairs that an embedding is compared with
GLYPH_SYMMETRY = {"distinct": (), "one_symmetric": ((4, 2),), "two_symmetric": ((4, 4), (5, 2))}
_BLOCKS, _RING, _CUBE = {"graph": ("blocks",)}, {"graph": ("ring",)}, {"graph": ("hypercube",)}
_GAUSSIAN, _GLYPHS = {"graph": ("gaussian",)}, {"graph": ("glyphs",)}


class AugmentationGraphParams(Params):
    """Parameters of one graph and one embedding of its nodes."""

    graph: Literal["blocks", "ring", "hypercube", "gaussian", "glyphs"] = param(
        "blocks", help="Family of graphs: what is a natural example, and what its views."
    )
    classes: int = param(
        4, ge=2, le=50, symbol="C", live=(2, 10), only_if=_BLOCKS, help="Number of classes of sub-clusters."
    )
    subclusters: int = param(
        3, ge=1, le=50, symbol="s", live=(1, 8), only_if=_BLOCKS, help="Sub-clusters in each class."
    )
    nodes_per_block: int = param(
        10, ge=1, le=1000, symbol="m", live=(1, 40), scale="log", only_if=_BLOCKS, help="Nodes in each sub-cluster."
    )
    leak_within: float = param(
        0.1,
        ge=0.0,
        le=1.0,
        symbol="a_1",
        live=(0.0, 0.5),
        only_if=_BLOCKS,
        help="Probability that a view falls into another sub-cluster of its class.",
    )
    leak: float = param(
        0.04,
        ge=0.0,
        le=1.0,
        symbol="a_2",
        live=(0.0, 0.5),
        only_if=_BLOCKS,
        help="Probability that a view falls into another class.",
    )
    ring_nodes: int = param(
        240, ge=3, le=100_000, symbol="N", live=(24, 480), only_if=_RING, help="Number of nodes on the circle."
    )
    window: int = param(
        4, ge=0, le=1000, symbol="r", live=(1, 20), only_if=_RING, help="A view is at most so many nodes away."
    )
    arcs: int = param(6, ge=2, le=50, symbol="C", live=(2, 12), only_if=_RING, help="Classes: arcs of equal length.")
    cube_dim: int = param(8, ge=1, le=20, symbol="d", unit="bits", live=(2, 10), only_if=_CUBE, help="Number of bits.")
    flip_probs: tuple[float, ...] = param(
        (0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35),
        ge=0.0,
        le=1.0,
        symbol="q_i",
        only_if=_CUBE,
        help="Probability that a view flips each bit; a list of fewer than cube_dim is repeated in turn.",
    )
    label_bits: tuple[float, ...] = param(
        (0.0,), ge=0, le=19, symbol="S", only_if=_CUBE, help="Bits that decide the label, counted from 0."
    )
    cube_label: Literal["parity", "majority"] = param(
        "parity", only_if=_CUBE, help="Label: the product of the signs of those bits, or the sign of most of them."
    )
    signal_std: float = param(
        1.5,
        ge=0.05,
        le=20.0,
        symbol=r"\tau",
        live=(0.5, 3.0),
        only_if=_GAUSSIAN,
        help="Standard deviation of the natural examples (of each component).",
    )
    noise_std: float = param(
        0.8, ge=0.05, le=20.0, symbol=r"\sigma", live=(0.2, 3.0), only_if=_GAUSSIAN, help="Noise of a view."
    )
    separation: float = param(
        0.0,
        ge=0.0,
        le=50.0,
        symbol=r"\mu",
        live=(0.0, 4.0),
        only_if=_GAUSSIAN,
        help="Natural examples are centred at plus and minus this, half each.",
    )
    grid_points: int = param(
        600, ge=50, le=2000, symbol="N", live=(100, 600), only_if=_GAUSSIAN, help="Points of the grid on the line."
    )
    glyphs: int = param(6, ge=2, le=20, symbol="G", live=(2, 10), only_if=_GLYPHS, help="Number of glyphs.")
    glyph_set: Literal["distinct", "one_symmetric", "two_symmetric"] = param(
        "distinct",
        only_if=_GLYPHS,
        help="Letters without rotation symmetry, one that looks the same upside down, or also one that does after a "
        "quarter turn.",
    )
    rotations: int = param(8, ge=1, le=16, symbol="R", live=(2, 12), only_if=_GLYPHS, help="Rotations of a glyph.")
    shifts: int = param(5, ge=1, le=9, symbol="S", live=(1, 6), only_if=_GLYPHS, help="Cyclic shifts of a glyph.")
    colours: int = param(3, ge=1, le=4, live=(1, 4), only_if=_GLYPHS, help="Colours of a glyph.")
    glyph_swap: float = param(
        0.06,
        ge=0.0,
        le=1.0,
        symbol=r"\epsilon",
        live=(0.0, 0.5),
        only_if=_GLYPHS,
        help="Probability that a view shows another glyph, as a severe crop would.",
    )
    colour_swap: float = param(
        0.3,
        ge=0.0,
        le=1.0,
        symbol=r"\epsilon_{col}",
        live=(0.0, 0.6),
        only_if=_GLYPHS,
        help="Probability that a view has another colour.",
    )
    glyph_label: Literal["glyph", "colour"] = param("glyph", only_if=_GLYPHS, help="What is to be told apart.")
    n_features: int = param(
        4, ge=1, le=64, symbol="k", unit="features", live=(1, 16), help="Dimension of the embedding."
    )
    training: Literal["eigen", "gradient_flow", "sgd", "network"] = param(
        "sgd",
        help="eigen: the minimiser, solved for; gradient_flow and sgd train a table of all nodes, network a ReLU "
        "network on what the nodes look like.",
    )
    learning_rate: float = param(
        1.0,
        ge=1e-6,
        le=1e4,
        symbol=r"\eta",
        scale="log",
        live=(0.001, 50.0),
        only_if={"training": TRAINED},
        help="Step size: of the table, so that a step advances time by it over the number of nodes; of Adam for the "
        "network.",
    )
    integrator: Literal["rk4", "euler"] = param(
        "rk4", only_if={"training": ("gradient_flow",)}, help="How a step of gradient flow is taken."
    )
    batch: int = param(
        64,
        ge=2,
        le=4096,
        symbol="B",
        unit="pairs",
        scale="log",
        live=(8, 256),
        only_if={"training": BATCHED},
        help="Fresh pairs of views at each step.",
    )
    steps: int = param(
        4000,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(200, 10_000),
        help="Number of updates; the eigenvectors need none, and stay what they are.",
    )
    start: Literal["random", "planted"] = param(
        "random",
        only_if={"training": TABLE},
        help="random: independent normal entries; planted: the top eigenvectors, all of one small size.",
    )
    init_scale: float = param(
        0.1,
        ge=1e-12,
        le=10.0,
        scale="log",
        live=(1e-4, 1.0),
        only_if={"training": TABLE},
        help="Size of the start: of an entry of the table (sgd), of F = sqrt(w) f (gradient_flow), or of a planted "
        "eigenvector.",
    )
    clip_norm: float = param(
        0.0,
        ge=0.0,
        le=1000.0,
        symbol=r"\sqrt{\mu}",
        live=(0.0, 10.0),
        only_if={"training": BATCHED},
        help="Longest embedding that the batch loss sees, longer ones are scaled down; 0: none is.",
    )
    width: int = param(
        128,
        ge=1,
        le=2048,
        unit="neurons",
        scale="log",
        live=(16, 256),
        only_if={"training": ("network",)},
        help="Neurons in each of the two hidden layers.",
    )

    def rules(self) -> Iterator[Problem]:
        yield from getattr(self, f"_rules_of_{self.graph}")()
        k, nodes = self.n_features, self.nodes
        if k > nodes:
            yield Problem("n_features", k, f"the graph has {nodes} nodes", f"Set n_features to {nodes} or less.")
        if self.training != "eigen" and self.entries > MOST_ENTRIES:
            allowed = f"training draws views from a table of at most {MOST_ENTRIES} probabilities, not {self.entries}"
            yield Problem("training", self.training, allowed, "Set training to eigen, or choose a smaller graph.")

    def _rules_of_blocks(self) -> Iterator[Problem]:
        if self.leak_within + self.leak > 1.0 + 1e-12:
            allowed = f"the two leaks are probabilities, and leak = {self.leak:g} leaves {1.0 - self.leak:g}"
            yield Problem("leak_within", self.leak_within, allowed, "Lower one of the two.")
        if self.subclusters == 1 and self.leak_within > 0:
            allowed = "a class of one sub-cluster has no other one to leak to"
            yield Problem(
                "leak_within", self.leak_within, allowed, "Set leak_within to 0, or subclusters to 2 or more."
            )

    def _rules_of_ring(self) -> Iterator[Problem]:
        N = self.ring_nodes
        if N % self.arcs:
            below = max((d for d in range(2, self.arcs) if N % d == 0), default=0)
            advice = f"Set arcs to {below}, or ring_nodes" if below else "Set ring_nodes"
            allowed = f"arcs of equal length must divide the {N} nodes of the ring"
            yield Problem("arcs", self.arcs, allowed, f"{advice} to {self.arcs * max(1, round(N / self.arcs))}.")
        if 2 * self.window + 1 > N:
            allowed = f"2*window + 1 different shifts must fit on {N} nodes"
            yield Problem("window", self.window, allowed, f"Set window to {(N - 1) // 2} or less.")

    def _rules_of_hypercube(self) -> Iterator[Problem]:
        d, bits = self.cube_dim, self.label_bits
        if not 1 <= len(self.flip_probs) <= d:
            allowed = f"there must be one for each of the {d} bits, or fewer"
            yield Problem("flip_probs", self.flip_probs, allowed, f"Leave some out, or set cube_dim to {d}.")
        if not bits or len(set(bits)) < len(bits) or any(bit != int(bit) or bit >= d for bit in bits):
            allowed = f"it must name different bits, whole numbers from 0 to {d - 1}"
            yield Problem("label_bits", bits, allowed, "Set label_bits to 0.")
        elif self.cube_label == "majority" and len(bits) % 2 == 0:
            yield Problem("label_bits", bits, "a majority needs an odd number of bits", "Add a bit, or drop one.")

    def _rules_of_gaussian(self) -> Iterator[Problem]:
        spacing = 2.0 * self.reach / (self.grid_points - 1)
        if min(self.noise_std, self.signal_std) < spacing:
            name = "noise_std" if self.noise_std <= self.signal_std else "signal_std"
            allowed = f"the grid has a spacing of {spacing:.3g}, and cannot show anything narrower"
            advice = f"Raise {name} above {spacing:.3g}, or grid_points."
            yield Problem(name, getattr(self, name), allowed, advice)

    def _rules_of_glyphs(self) -> Iterator[Problem]:
        needed = 1 + max((number for number, _ in GLYPH_SYMMETRY[self.glyph_set]), default=0)
        if self.glyphs < needed:
            allowed = f"the symmetric glyphs of this set are among the first {needed}"
            advice = f"Set glyphs to {needed} or more, or glyph_set to distinct."
            yield Problem("glyphs", self.glyphs, allowed, advice)
        if self.glyph_label == "colour" and self.colours == 1:
            advice = "Set colours to 2 or more, or glyph_label to glyph."
            yield Problem("colours", self.colours, "one colour cannot be told apart", advice)
        if self.colours == 1 and self.colour_swap > 0:
            allowed = "one colour has no other to swap for"
            yield Problem("colour_swap", self.colour_swap, allowed, "Set colour_swap to 0, or colours to 2 or more.")

    @property
    def reach(self) -> float:
        """Half the length of the Gaussian grid."""
        view_std = math.hypot(self.signal_std, self.noise_std)
        return self.separation + max(8.0 * self.signal_std, 6.0 * view_std)

    @property
    def flips(self) -> tuple[float, ...]:
        """Flip probability of every bit."""
        given = self.flip_probs
        return tuple(given[i % len(given)] for i in range(self.cube_dim))

    @property
    def symmetry(self) -> tuple[int, ...]:
        """Order of the rotation symmetry of each glyph, among the rotations that there are."""
        known = dict(GLYPH_SYMMETRY[self.glyph_set])
        return tuple(math.gcd(known.get(g, 1), self.rotations) for g in range(self.glyphs))

    @property
    def nodes(self) -> int:
        """Number of nodes; on a Gaussian grid, before those that weigh nothing are left out."""
        return {
            "blocks": self.classes * self.subclusters * self.nodes_per_block,
            "ring": self.ring_nodes,
            "hypercube": 2**self.cube_dim,
            "gaussian": self.grid_points,
            "glyphs": sum(self.rotations // order for order in self.symmetry) * self.shifts * self.colours,
        }[self.graph]

    @property
    def entries(self) -> int:
        """Number of entries of the kernel of views."""
        views = self.glyphs * min(3, self.rotations) * min(3, self.shifts) * self.colours
        return {
            "blocks": self.nodes * self.classes * self.subclusters,
            "ring": self.nodes * (2 * self.window + 1),
            "hypercube": 4**self.cube_dim,
            "gaussian": self.nodes**2,
            "glyphs": self.glyphs * self.rotations * self.shifts * self.colours * views,
        }[self.graph]

    @property
    def n_classes(self) -> int:
        """Number of classes of the label."""
        of_glyphs = self.glyphs if self.glyph_label == "glyph" else self.colours
        return {"blocks": self.classes, "ring": self.arcs, "glyphs": of_glyphs}.get(self.graph, 2)

    @property
    def time_step(self) -> float:
        """What a step of a table advances the time of gradient flow by."""
        return self.learning_rate / self.nodes if self.training in TABLE else math.nan


def recorded_steps(params: AugmentationGraphParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, 80, 30)


def simulate(params: AugmentationGraphParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import training

    return training.simulate(params, replicate, monitor)


def predict(params: AugmentationGraphParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def predict_ends(points: Sequence[AugmentationGraphParams]) -> list[Prediction]:
    from . import prediction

    return prediction.predict_ends(points)


def derive(params: AugmentationGraphParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: AugmentationGraphParams) -> Work:
    k, N, nnz = float(params.n_features), float(params.nodes), float(min(params.entries, MOST_ENTRIES))
    recorded = float(len(recorded_steps(params)))
    measured = (recorded if params.training != "eigen" else 1.0) + 4.0  # what surrounds the steps is four looks
    modes = params.graph in ("hypercube", "glyphs") and not any(order > 1 for order in params.symmetry)
    product = N * k * (2.0 * params.cube_dim if params.graph == "hypercube" else 24.0) if modes else 2.0 * nnz * k
    steps = {
        "eigen": {},
        "gradient_flow": {
            "flow": params.steps * (4.0 if params.integrator == "rk4" else 1.0) * (product + 2 * N * k * k)
        },
        "sgd": {"pair": params.steps * float(params.batch) * (params.batch * k + 20.0)},
        "network": {
            "pair": params.steps * float(params.batch) * params.batch * k,
            "network": params.steps * _passes(params),
        },
    }[params.training]
    dense = N**3 if params.graph in ("gaussian",) or (params.graph == "glyphs" and not modes) else 0.0
    count = float(max(LEAST_PAIRS, k + 4.0))
    solved = dense + N * count * 30.0 + nnz
    held = _eigenpairs(params, int(count))
    turned = 0.1 * held**2 * (N + held) + held * (2.0 * N * params.n_classes + 1e4)
    return Work(
        per_replicate={**steps, "measure": measured * (N * ((k + 12.0) ** 2 + 0.1 * held * k) + 4e4) + turned},
        once={
            "solve": solved,
            "predict": 1.0 + (recorded * params.replicates * (N + 500.0) / 1e5 if params.training in TABLE else 0.0),
        },
        bytes=8.0 * (N * (6.0 * count + 3.0 * held + 24.0 * k) + 3.5 * nnz + params.replicates * 20.0 * recorded + 4e6)
        + 8.0 * (3.0 * N * N if dense else 0.0),
        ends={
            "solve": dense + 30.0 * N * min(N, 1200.0) + nnz if params.training in TABLE else 0.0,
            "predict": 0.3 + (params.replicates * (N + 500.0) * k / 2e4 if params.training in TABLE else 0.0),
        },
        serial=("measure",),
    )


def _eigenpairs(params: AugmentationGraphParams, wanted: int) -> float:
    """About how many eigenpairs a run holds, turns and probes: so many as are wanted, to the end of an eigenspace."""
    whole = wanted + 2
    if params.graph == "blocks":
        ends = (
            1 if params.leak > 0 else 0,
            params.classes if params.leak_within > 0 else 0,
            params.classes * params.subclusters,
        )
        whole = min((end for end in ends if end >= wanted), default=whole)
    elif params.graph == "ring" and params.window == 0:
        whole = params.nodes
    elif params.graph == "hypercube":
        size = [round(abs(1.0 - 2.0 * flip), 9) for flip in params.flips]
        fixed, moving = size.count(1.0), [one for one in size if one < 1.0]
        whole = wanted * 2**fixed
        if len(set(moving)) == 1:
            ends = itertools.accumulate(2**fixed * math.comb(len(moving), j) for j in range(len(moving) + 1))
            whole = min((end for end in ends if end >= wanted), default=params.nodes)
    return float(min(whole, params.nodes, MOST_PAIRS))


def _passes(params: AugmentationGraphParams) -> float:
    """Multiplications and additions of one step of the network, forth and back."""
    inputs = {
        "blocks": params.classes * params.subclusters,
        "ring": 8,
        "hypercube": params.cube_dim,
        "gaussian": 1,
        "glyphs": 100 * params.colours,
    }[params.graph]
    weights = params.width * (inputs + params.width + params.n_features)
    return 6.0 * min(params.nodes, 2 * params.batch) * weights + 20.0 * weights


def probes() -> Mapping[str, Callable[[], float]]:
    from . import training

    return training.probes()


_STAIRCASE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
_DISTINCT = (0.02, 0.05, 0.05, 0.1, 0.25, 0.3, 0.35, 0.4)

PRESETS = (
    Preset(
        id="two_plateaus",
        title="Two plateaus",
        notice="Eigenvalues come in plateaus, one of classes and one of sub-clusters; with as many features as classes "
        "the probe has no error left.",
        label="SGD",
        beside={"eigenvectors": {"training": "eigen"}},
        expect={"argmax_cliff": "fails"},
    ),
    Preset(
        id="staircase",
        title="Staircase training",
        notice="From a small start one mode after the other switches on, each at a time close to two over its "
        "eigenvalue.",
        label="six bits",
        params={
            "graph": "hypercube",
            "cube_dim": 6,
            "flip_probs": _STAIRCASE,
            "n_features": 6,
            "training": "gradient_flow",
            "start": "planted",
            "init_scale": 1e-3,
            "learning_rate": 0.32,
            "steps": 800,
            "replicates": 1,
        },
    ),
    Preset(
        id="ring",
        title="Ring",
        notice="Waves appear in pairs of a sine and a cosine, the error falls smoothly, and a wave that has the period "
        "of the arcs does not help.",
        label="ring of six arcs",
        params={
            "graph": "ring",
            "n_features": 7,
            "training": "gradient_flow",
            "init_scale": 0.01,
            "learning_rate": 2.4,
            "steps": 2000,
            "replicates": 1,
        },
    ),
    Preset(
        id="wrong_order",
        title="Wrong order",
        notice="Where sub-clusters are better separated than classes, features go to sub-clusters first: with nine the "
        "probe knows no class, with twelve all of them.",
        label="9 features",
        params={"leak_within": 0.005, "leak": 0.1, "n_features": 9, "training": "eigen"},
        beside={
            "4 features": {"n_features": 4},
            "10 features": {"n_features": 10},
            "12 features": {"n_features": 12},
        },
        expect={"cliff_anyway": "fails"},
    ),
    Preset(
        id="leaky",
        title="Leaky augmentation",
        notice="The bound on the error says nothing from a leak of 0.081 on; what it bounds stays zero until 0.45, "
        "where classes sink below sub-clusters.",
        label="leak 0.1",
        params={"leak": 0.1, "training": "eigen"},
        beside={"leak 0.04": {"leak": 0.04}, "leak 0.4": {"leak": 0.4}, "leak 0.5": {"leak": 0.5}},
        expect={"argmax_cliff": "fails", "cliff_anyway": "fails"},
    ),
    Preset(
        id="glyphs",
        title="Glyphs",
        notice="Colour is often changed, so identity is learned and colour is not; change it rarely and colour comes "
        "first.",
        label="colour swapped 0.3",
        params={"graph": "glyphs", "n_features": 6, "training": "eigen"},
        beside={"colour swapped 0.02": {"colour_swap": 0.02}},
    ),
    Preset(
        id="too_large",
        title="Too large a step",
        notice="Steps beyond a third of the number of nodes overshoot: the loss never settles, and the flow that "
        "theory describes is left.",
        label="rate 50",
        params={"training": "gradient_flow", "init_scale": 0.01, "learning_rate": 50.0, "steps": 200},
        beside={"rate 30": {"learning_rate": 30.0}},
        expect={"flow_in_closed_form": "outside", "power_iteration": "outside", "angle_bound": "outside"},
    ),
    Preset(
        id="network",
        title="A network",
        notice="A small ReLU network that sees only sign vectors finds the same six eigenvectors as the table, and "
        "nothing of the seventh.",
        label="ReLU network",
        params={
            "graph": "hypercube",
            "flip_probs": _DISTINCT,
            "n_features": 6,
            "training": "network",
            "learning_rate": 2e-3,
            "batch": 256,
            "steps": 3000,
            "replicates": 1,
        },
    ),
)

LAB = Lab(
    id="augmentation_graph",
    version=2,
    title="The augmentation graph",
    sentence="Contrastive learning finds the top eigenvectors of the graph that joins two views of one example: what "
    "augmentations connect, features cannot tell apart.",
    theme="self-supervised learning",
    paper=Paper(
        title="Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss",
        authors="Jeff Z. HaoChen, Colin Wei, Adrien Gaidon, Tengyu Ma",
        venue="NeurIPS",
        year=2021,
        arxiv="2106.04156",
        bibtex="""@inproceedings{haochen2021provable,
  title     = {Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss},
  author    = {HaoChen, Jeff Z. and Wei, Colin and Gaidon, Adrien and Ma, Tengyu},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021},
}""",
    ),
    params=AugmentationGraphParams,
    streams=STREAMS,
    series={
        "loss": Quantity("population loss", "L"),
        "probe_mse": Quantity("mean squared error of the probe", r"\mathrm{mse}_k"),
        "probe_error": Quantity("nodes that the probe gets wrong"),
        "subspace_tan": Quantity("tangent to the top eigenspace", r"\tan\Theta_k", scale="log"),
        "time": Quantity("time of gradient flow", "t"),
        **{f"mode_mass_{i}": Quantity(f"mass of eigenvalue {i}", f"m_{i}") for i in range(1, LEVELS + 1)},
    },
    metrics={
        "vote_error": Quantity("natural examples that a vote of their views gets wrong"),
        "gap": Quantity("gap below the last feature kept", r"\lambda_k-\lambda_{k+1}"),
        "phi": Quantity("pairs of views across classes", r"\phi"),
        "alpha": Quantity("views that leave their class", r"\alpha"),
        "n_nodes": Quantity("nodes"),
        "min_loss": Quantity("least possible loss", r"L_{\min}"),
        "excess_loss": Quantity("loss above the least possible", scale="log"),
        "late_excess_loss": Quantity("loss above the least possible, mean of the second half", scale="log"),
        "subspace_sine": Quantity("sine of the angle to the top eigenspace", r"\sin\Theta_k"),
        "late_subspace_sine": Quantity("the same, mean of the second half", r"\sin\Theta_k"),
        "probe_bound": Quantity("bound on the mean squared error", r"\phi/(1-\lambda_{k+1})"),
        "eigenvalue_error": Quantity("largest error of the first k+1 eigenvalues", scale="log"),
        **{f"half_time_{i}": Quantity(f"half time of eigenvalue {i}", f"t_{i}") for i in range(1, LEVELS + 1)},
    },
    presets=PRESETS,
    recorded_steps=recorded_steps,
    simulate=simulate,
    predict=predict,
    predict_ends=predict_ends,
    derive=derive,
    work=work,
    probes=probes,
    grade_b=Tolerance(relative=1e-6, absolute=1e-9),
    changes=(
        Change(1, "first version"),
        Change(2, "gradients of a batch from its moments", dict),
    ),
)
