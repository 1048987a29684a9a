"""A head trained on one domain works on another: when, and why.

Contrastive features of classes in several domains, and a linear head on the labels of the first, after HaoChen, Wei,
Kumar & Ma 2022.
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
)
_RANDOM, _SGD = {"graph": ("random",)}, {"training": ("sgd",)}


class LinearTransferParams(Params):
    """Parameters of one graph of classes in domains, its features, and a head that is trained on the first domain."""

    graph: Literal["population", "random"] = param(
        "population", help="All positive pairs with their weights, or edges drawn with these as probabilities."
    )
    classes: int = param(2, ge=2, le=20, symbol="r", live=(2, 8), help="Number of classes.")
    domains: int = param(2, ge=2, le=10, symbol="m", live=(2, 4), help="Number of domains; the first is the source.")
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
        live=(0.05, 1.0),
        help="Weight of a positive pair of one class in one domain.",
    )
    across_domains: float = param(
        0.1,
        ge=0.0,
        le=1.0,
        symbol=r"\alpha",
        live=(0.0, 0.3),
        help="Weight of a positive pair of one class in two domains.",
    )
    across_classes: float = param(
        0.08,
        ge=0.0,
        le=1.0,
        symbol=r"\beta",
        live=(0.0, 0.3),
        help="Weight of a positive pair of two classes in one domain.",
    )
    across_both: float = param(
        0.02,
        ge=0.0,
        le=1.0,
        symbol=r"\gamma",
        live=(0.0, 0.3),
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
        help="Dimension of the features; classes + domains - 1 hold what both are told by.",
    )
    head: Literal["least_squares", "averaging"] = param(
        "least_squares",
        help="Least squares on the labels of the source, or its classes' mean features, preconditioned.",
    )
    ridge: float = param(
        0.0,
        ge=0.0,
        le=10.0,
        live=(0.0, 1.0),
        only_if={"head": ("least_squares",)},
        help="Penalty on the squared size of the head; 0: of the heads that fit, the smallest.",
    )
    walk_steps: int = param(
        1,
        ge=1,
        le=50,
        symbol="t",
        unit="steps",
        live=(1, 16),
        only_if={"head": ("averaging",)},
        help="Power of averaged features: their labels spread over so many steps of a random walk.",
    )
    training: Literal["eigen", "sgd"] = param(
        "sgd", help="eigen: the minimiser of the contrastive loss, solved for; sgd trains a table of all nodes."
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
    steps: int = param(
        2000,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(200, 10_000),
        help="Number of updates; the eigenvectors need none, and stay what they are.",
    )

    def rules(self) -> Iterator[Problem]:
        from ..graphs import domain_rules

        if self.within == self.across_domains == self.across_classes == self.across_both == 0.0:
            yield Problem("within", self.within, "some positive pair must have a weight", "Raise within above 0.")
        yield from domain_rules.sizes(self)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.classes * self.domains * (self.nodes_per_block if self.graph == "random" else 1)

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """The weights in the order in which the block model has them."""
        return self.within, self.across_domains, self.across_classes, self.across_both

    @property
    def both(self) -> int:
        """As many features as hold the contrasts of classes and of domains, with the constant."""
        return self.classes + self.domains - 1


def recorded_steps(params: LinearTransferParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, 60, 20)


def simulate(params: LinearTransferParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import experiment

    return experiment.simulate(params, replicate, monitor)


def predict(params: LinearTransferParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def derive(params: LinearTransferParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: LinearTransferParams) -> Work:
    from ..graphs import domain_work

    return domain_work.work(params, len(recorded_steps(params)))


def probes() -> Mapping[str, Callable[[], float]]:
    from ..graphs import domain_work

    return domain_work.probes(LAB)


_FIVE = {"classes": 5, "within": 0.6, "across_domains": 0.1, "across_classes": 0.05, "across_both": 0.02}
_WRONG = {"classes": 5, "within": 0.6, "across_domains": 0.02, "across_classes": 0.05, "across_both": 0.1}
_LINKS = {
    "graph": "random",
    "nodes_per_block": 10,
    "classes": 5,
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
        notice="Class and domain take perpendicular directions, so that the line between the source's classes also "
        "parts the target's; raise the weight of pairs across both above that across domains, and the target flips.",
        label="SGD",
        beside={"eigenvectors": {"training": "eigen"}},
        expect={"needs_invariance": "fails"},
    ),
    Preset(
        id="not_invariant",
        title="Not invariant, still transfers",
        notice="A linear classifier tells the two domains apart without a mistake, and the source's head is as right "
        "on the target as on the source.",
        label="five classes",
        params={**_FIVE, "n_features": 6, "training": "eigen"},
        beside={"three domains": {"domains": 3, "n_features": 7}},
        expect={"needs_invariance": "fails"},
    ),
    Preset(
        id="wrong_wiring",
        title="Wrong wiring",
        notice="Where two classes in two domains are more strongly linked than one class in two domains, the head is "
        "right on the whole source and wrong on the whole target.",
        label="four nodes, SGD",
        params={"across_domains": 0.02, "across_classes": 0.08, "across_both": 0.1},
        beside={
            "five classes, 6 features": {**_WRONG, "n_features": 6, "training": "eigen"},
            "five classes, 10 features": {**_WRONG, "n_features": 10, "training": "eigen"},
        },
        expect={"perfect_transfer": "outside", "source_tells_target": "fails"},
    ),
    Preset(
        id="few_nodes",
        title="Few nodes",
        notice="Links are drawn at random: with ten nodes a block those that matter drown in the noise, and the target "
        "suffers first; with many its accuracy jumps from none to all where the weights cross.",
        label="10 nodes a block",
        params=_LINKS,
        beside={"40 nodes a block": {"nodes_per_block": 40}, "160 nodes a block": {"nodes_per_block": 160}},
        expect={"limit_with_ten_nodes": "fails"},
    ),
    Preset(
        id="too_many_features",
        title="Keep too many features",
        notice="With a feature for every block the head still points the right way on the target, but with a margin of "
        "0.145 instead of 1; labels that spread over many steps of a walk win it back.",
        label="10 features",
        params={**_FIVE, "n_features": 10, "training": "eigen"},
        beside={"6 features": {"n_features": 6}, "10 features, averaged": {"head": "averaging", "walk_steps": 16}},
        expect={"needs_invariance": "fails"},
    ),
)

LAB = Lab(
    id="linear_transfer",
    version=2,
    title="Transfer between domains",
    sentence="A linear head trained on one domain works on another if positive pairs link a class across domains more "
    "than they link two classes across domains; the domains need not look alike.",
    theme="self-supervised learning",
    paper=Paper(
        title="Beyond Separability: Analyzing the Linear Transferability of Contrastive Representations to Related "
        "Subpopulations",
        authors="Jeff Z. HaoChen, Colin Wei, Ananya Kumar, Tengyu Ma",
        venue="NeurIPS",
        year=2022,
        arxiv="2204.02683",
        bibtex="""@inproceedings{haochen2022beyond,
  title     = {Beyond Separability: Analyzing the Linear Transferability of Contrastive Representations to Related
               Subpopulations},
  author    = {HaoChen, Jeff Z. and Wei, Colin and Kumar, Ananya and Ma, Tengyu},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
}""",
    ),
    params=LinearTransferParams,
    streams=STREAMS,
    series={
        "loss": Quantity("population loss", "L"),
        "target_accuracy": Quantity("accuracy on the target"),
        "source_accuracy": Quantity("accuracy on the source"),
        "domain_accuracy": Quantity("accuracy on the domain"),
        "gain": Quantity("class contrast, target over source"),
    },
    metrics={
        "lam_class": Quantity("eigenvalue of class contrasts", r"\lambda_{\mathrm{cls}}"),
        "lam_domain": Quantity("eigenvalue of domain contrasts", r"\lambda_{\mathrm{dom}}"),
        "lam_interaction": Quantity("eigenvalue of interactions", r"\lambda_{\mathrm{int}}"),
        "kept_class": Quantity("share of class contrasts in the features"),
        "kept_domain": Quantity("share of domain contrasts in the features"),
        "kept_interaction": Quantity("share of interactions in the features"),
        "domain_distance": Quantity("squared distance of one class in two domains"),
        "class_distance": Quantity("squared distance of two classes in one domain"),
        "distance_ratio": Quantity("distance of domains over that of classes, squared"),
        "walk_accuracy": Quantity("accuracy of labels that spread over the graph itself"),
        "walk_error": Quantity("largest difference between the two scores", scale="log"),
        "visibility": Quantity("links that matter, over the noise of sampling"),
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
