"""Connect, not collapse: domain adaptation without domains that look alike.

Contrastive features of classes in a source and a target, beside features of the target that are aligned with those of
the source, after Shen, Jones, Kumar, Xie, HaoChen, Ma & Liang 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    "edges",  # of a sampled graph
    "basis",  # a basis of each eigenspace of several dimensions
    "init",  # the start of the embedding table
    "first_end",  # of the edges of a batch
    "second_end",
    "target",  # the start of features that are aligned
)
MOST_WIDTHS = 8
_CONTRASTIVE, _ALIGNMENT = {"method": ("contrastive",)}, {"method": ("alignment",)}
_RANDOM, _SGD = {"graph": ("random",)}, {"training": ("sgd",)}


class ConnectNotCollapseParams(Params):
    """Parameters of features of a source and a target: contrastive ones of a graph, or ones that are aligned."""

    method: Literal["contrastive", "alignment"] = param(
        "contrastive",
        help="Features that are learned from positive pairs, or target features that are moved until no kernel tells "
        "them from the source's.",
    )
    graph: Literal["population", "random"] = param(
        "population",
        only_if=_CONTRASTIVE,
        help="All positive pairs with their weights, or edges drawn with these as probabilities.",
    )
    classes: int = param(2, ge=2, le=10, symbol="r", live=(2, 6), help="Number of classes; there are two domains.")
    nodes_per_block: int = param(
        40,
        ge=1,
        le=1000,
        symbol="n",
        live=(5, 200),
        scale="log",
        only_if=_RANDOM,
        help="Nodes of a class in a domain.",
    )
    within: float = param(
        0.8,
        ge=0.0,
        le=1.0,
        symbol=r"\rho",
        live=(0.35, 1.0),
        only_if=_CONTRASTIVE,
        help="Weight of a positive pair of one class in one domain; the largest.",
    )
    across_domains: float = param(
        0.1,
        ge=0.0,
        le=1.0,
        symbol=r"\alpha",
        live=(0.0, 0.3),
        only_if=_CONTRASTIVE,
        help="Weight of a positive pair of one class in two domains.",
    )
    across_classes: float = param(
        0.08,
        ge=0.0,
        le=1.0,
        symbol=r"\beta",
        live=(0.0, 0.3),
        only_if=_CONTRASTIVE,
        help="Weight of a positive pair of two classes in one domain.",
    )
    across_both: float = param(
        0.02,
        ge=0.0,
        le=1.0,
        symbol=r"\gamma",
        live=(0.0, 0.3),
        only_if=_CONTRASTIVE,
        help="Weight of a positive pair of two classes in two domains.",
    )
    n_features: int = param(
        3,
        ge=1,
        le=64,
        symbol="k",
        unit="features",
        live=(1, 12),
        scale="log",
        only_if=_CONTRASTIVE,
        help="Dimension of the features; classes + 1 hold what class and domain are told by.",
    )
    training: Literal["eigen", "sgd"] = param(
        "sgd",
        only_if=_CONTRASTIVE,
        help="eigen: the minimiser of the contrastive loss, solved for; sgd trains a table of all nodes.",
    )
    learning_rate: float = param(
        0.05,
        ge=1e-6,
        le=1e4,
        symbol=r"\eta",
        scale="log",
        live=(0.005, 0.5),
        only_if=_SGD,
        help="Step size: a step advances the time of gradient flow by it over the number of nodes.",
    )
    batch: int = param(
        64,
        ge=2,
        le=4096,
        symbol="B",
        unit="pairs",
        scale="log",
        live=(8, 256),
        only_if=_SGD,
        help="Fresh positive pairs at each step.",
    )
    init_scale: float = param(
        0.1, ge=1e-12, le=10.0, scale="log", live=(0.001, 1.0), only_if=_SGD, help="Size of an entry at the start."
    )
    separation: float = param(
        3.0,
        ge=0.01,
        le=100.0,
        live=(0.5, 6.0),
        only_if=_ALIGNMENT,
        help="The source's feature of class c is so many times the c-th unit vector.",
    )
    start_spread: float = param(
        1.5,
        ge=0.01,
        le=100.0,
        live=(0.1, 4.0),
        only_if=_ALIGNMENT,
        help="Standard deviation of the target's features at the start, around the middle of the source's.",
    )
    widths: tuple[float, ...] = param(
        (4.0, 2.0, 1.0),
        ge=0.05,
        le=1000.0,
        symbol="h",
        only_if=_ALIGNMENT,
        help="Widths of the kernel, one after the other, each for its share of the steps.",
    )
    step_scale: float = param(
        0.5,
        ge=1e-4,
        le=10.0,
        scale="log",
        live=(0.01, 2.0),
        only_if=_ALIGNMENT,
        help="Step size, in units of the classes times the squared width.",
    )
    steps: int = param(
        1800,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(200, 10_000),
        help="Number of updates; eigenvectors need none, and stay what they are.",
    )

    def rules(self) -> Iterator[Problem]:
        from ..graphs import domain_rules

        if self.method == "alignment":
            if not 1 <= len(self.widths) <= MOST_WIDTHS:
                allowed = f"there must be from 1 to {MOST_WIDTHS} of them"
                yield Problem("widths", self.widths, allowed, "Set widths to 4,2,1.")
            return
        largest = max(self.across_domains, self.across_classes)
        if not self.within > largest:
            allowed = f"it must exceed across_domains and across_classes, of which one is {largest:g}"
            yield Problem("within", self.within, allowed, f"Raise within above {largest:g}, or lower the other.")
        yield from domain_rules.sizes(self)

    @property
    def domains(self) -> int:
        """A source and a target."""
        return 2

    @property
    def nodes(self) -> int:
        """Number of nodes of the graph."""
        return self.classes * self.domains * (self.nodes_per_block if self.graph == "random" else 1)

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """The weights in the order in which the block model has them."""
        return self.within, self.across_domains, self.across_classes, self.across_both

    @property
    def four_nodes(self) -> bool:
        """Two classes in two domains, of which the rule of the smallest weight speaks."""
        return self.method == "contrastive" and self.graph == "population" and self.classes == 2


def recorded_steps(params: ConnectNotCollapseParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, 60, 20)


def simulate(params: ConnectNotCollapseParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import experiment

    return experiment.simulate(params, replicate, monitor)


def predict(params: ConnectNotCollapseParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def derive(params: ConnectNotCollapseParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: ConnectNotCollapseParams) -> Work:
    from ..graphs import domain_work

    recorded = len(recorded_steps(params))
    if params.method == "contrastive":
        return domain_work.work(params, recorded)
    pairs = float(params.classes) ** 2 * (params.classes + 10.0)
    return Work(
        per_replicate={"align": params.steps * pairs + recorded * (3000.0 + 2.0 * pairs)},
        once={"predict": 1.0},
        bytes=8.0 * (params.replicates * recorded * 10.0 + 1e6),
        serial=("align",),
    )


def probes() -> Mapping[str, Callable[[], float]]:
    from ..engine import RunMonitor
    from ..graphs import domain_work

    params = ConnectNotCollapseParams.make(method="alignment", classes=5, steps=1000, replicates=1)

    def align() -> float:
        simulate(params, 0, RunMonitor.allocate(LAB, params).of(0))
        return work(params).per_replicate["align"]

    return {**domain_work.probes(LAB), "align": align}


_LINKS = {
    "graph": "random",
    "classes": 5,
    "nodes_per_block": 100,
    "within": 0.5,
    "across_domains": 0.09,
    "across_classes": 0.15,
    "across_both": 0.05,
    "n_features": 6,
    "training": "eigen",
    "replicates": 5,
}

PRESETS = (
    Preset(
        id="four_nodes",
        title="Four nodes",
        notice="Contrastive features keep the two domains apart, along an axis of their own, and the source's head is "
        "right on the target; features that were made alike are right only by chance.",
        label="contrastive",
        beside={"aligned": {"method": "alignment", "replicates": 100}},
        expect={"alike_is_enough": "fails"},
    ),
    Preset(
        id="wrong_wiring",
        title="Wrong wiring",
        notice="The weight of one class in two domains is the smallest: class is what three features drop, its product "
        "with the domain is kept, and the head is wrong on the whole target.",
        label="contrastive",
        params={"across_domains": 0.02, "across_classes": 0.08, "across_both": 0.1},
        beside={"eigenvectors": {"training": "eigen"}},
        expect={"perfect_picture": "outside", "told_domains_transfer": "fails"},
    ),
    Preset(
        id="class_survives",
        title="Class survives, domain does not",
        notice="The weight of two classes in one domain is the smallest: no linear classifier sees the domain, and the "
        "target is right or wrong by a small margin, as alpha or gamma is larger.",
        label="alpha above gamma",
        params={"across_classes": 0.02, "across_both": 0.05, "training": "eigen"},
        beside={"gamma above alpha": {"across_domains": 0.06, "across_both": 0.1}, "all features": {"n_features": 4}},
        expect={"perfect_picture": "outside"},
    ),
    Preset(
        id="alike",
        title="Alike is not enough",
        notice="Moved until no kernel can tell them from the source's, the target's features lie on them exactly, each "
        "on some class: which, the labels had no say in, and one in as many as there are classes is right.",
        label="3 classes, aligned",
        params={"method": "alignment", "classes": 3, "replicates": 100},
        beside={"5 classes, aligned": {"classes": 5}},
        expect={"alike_is_enough": "fails"},
    ),
    Preset(
        id="sampled_links",
        title="Sampled links",
        notice="Graphs of a thousand nodes drawn at random do as the four nodes do: the target is right or wrong as "
        "links across domains or across both are the likelier ones, and domains are told apart in either case.",
        label="alpha above gamma",
        params=_LINKS,
        beside={"gamma above alpha": {"across_domains": 0.03}},
    ),
)

LAB = Lab(
    id="connect_not_collapse",
    version=2,
    title="Connect, not collapse",
    sentence="Contrastive features adapt to a new domain without making it look like the old one: what counts is how "
    "the domains are connected, and domains that were made alike may be matched in any order.",
    theme="self-supervised learning",
    paper=Paper(
        title="Connect, Not Collapse: Explaining Contrastive Learning for Unsupervised Domain Adaptation",
        authors="Kendrick Shen, Robbie Jones, Ananya Kumar, Sang Michael Xie, Jeff Z. HaoChen, Tengyu Ma, Percy Liang",
        venue="ICML",
        year=2022,
        arxiv="2204.00570",
        bibtex="""@inproceedings{shen2022connect,
  title     = {Connect, Not Collapse: Explaining Contrastive Learning for Unsupervised Domain Adaptation},
  author    = {Shen, Kendrick and Jones, Robbie M. and Kumar, Ananya and Xie, Sang Michael and HaoChen, Jeff Z. and
               Ma, Tengyu and Liang, Percy},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
}""",
    ),
    params=ConnectNotCollapseParams,
    streams=STREAMS,
    series={
        "loss": Quantity("loss that is minimised", "L"),
        "target_accuracy": Quantity("accuracy on the target"),
        "source_accuracy": Quantity("accuracy on the source"),
        "domain_accuracy": Quantity("accuracy on the domain"),
        "gain": Quantity("class contrast, target over source"),
        "discrepancy": Quantity("discrepancy of the domains", r"\mathrm{MMD}^2"),
    },
    metrics={
        "lam_class": Quantity("eigenvalue of class contrasts", r"\lambda_{\mathrm{cls}}"),
        "lam_domain": Quantity("eigenvalue of the domain contrast", r"\lambda_{\mathrm{dom}}"),
        "lam_interaction": Quantity("eigenvalue of interactions", r"\lambda_{\mathrm{int}}"),
        "kept_class": Quantity("share of class contrasts in the features"),
        "kept_domain": Quantity("share of the domain contrast in the features"),
        "kept_interaction": Quantity("share of interactions in the features"),
        "domain_distance": Quantity("squared distance of one class in two domains"),
        "class_distance": Quantity("squared distance of two classes in one domain"),
        "distance_ratio": Quantity("distance of domains over that of classes, squared"),
        "residual": Quantity("largest distance of a target feature from the source's", scale="log"),
        "matched": Quantity("runs that end in a matching of classes"),
        "lonely": Quantity("nodes without an edge"),
        "n_nodes": Quantity("nodes"),
    },
    presets=PRESETS,
    recorded_steps=recorded_steps,
    simulate=simulate,
    predict=predict,
    derive=derive,
    work=work,
    probes=probes,
    grade_b=Tolerance(relative=1e-6, absolute=1e-9),
    changes=(
        Change(1, "first version"),
        Change(2, "gradients of a batch from its moments", dict),
    ),
)
