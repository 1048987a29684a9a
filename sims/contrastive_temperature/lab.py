"""Temperature as the hardness of a contrastive loss: uniformity against tolerance.

Features under the softmax contrastive loss, after Wang & Liu 2021, with an encoder whose optimum is known.
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
    "classes",  # directions of the classes
    "instances",  # directions of the instances
    "views",  # what a view adds to an instance
    "init",  # the start of the table
    "normal",  # similarities of uniform negatives
    "chisquare",
)
BINS = 60  # of the force over angles
MOST_EXAMPLES, MOST_ENTRIES = 1000, 4_000_000
_TWO_LEVEL, _TABLE, _SPHERE = {"model": ("two_level",)}, {"model": ("table",)}, {"model": ("sphere",)}
_EXAMPLES = {"model": ("two_level", "table")}


class ContrastiveTemperatureParams(Params):
    """Parameters of one temperature and of the features that it acts on."""

    model: Literal["two_level", "table", "sphere"] = param(
        "two_level",
        help="two_level: features divided between class and instance, one number to be found; table: free points on a "
        "sphere; sphere: uniform negatives, on which the force is measured.",
    )
    temperature: float = param(
        0.3, ge=0.005, le=100.0, symbol=r"\tau", scale="log", live=(0.02, 0.8), help="Temperature of the loss."
    )
    classes: int = param(10, ge=2, le=100, symbol="C", live=(2, 20), only_if=_EXAMPLES, help="Number of classes.")
    per_class: int = param(
        10, ge=2, le=100, symbol="n", live=(2, 20), only_if=_EXAMPLES, help="Examples of each class."
    )
    overlap: float = param(
        0.6,
        ge=0.001,
        le=0.999,
        symbol="a",
        live=(0.05, 0.98),
        only_if=_TWO_LEVEL,
        help="Similarity of the instance parts of two views of one example; 1: as stable as its class.",
    )
    geometry: Literal["random", "ideal"] = param(
        "random",
        only_if=_TWO_LEVEL,
        help="random: directions of instances are drawn; ideal: all directions are orthogonal.",
    )
    feature_dim: int = param(
        256,
        ge=3,
        le=8192,
        symbol="D",
        scale="log",
        live=(32, 1024),
        only_if={"model": ("two_level",), "geometry": ("random",)},
        help="Dimension of the features.",
    )
    fit: Literal["minimised", "fixed"] = param(
        "minimised", only_if=_TWO_LEVEL, help="minimised: the share of class minimises the loss; fixed: it is given."
    )
    class_share: float = param(
        0.5,
        ge=0.0,
        le=1.0,
        symbol="c",
        live=(0.0, 1.0),
        only_if={"model": ("two_level",), "fit": ("fixed",)},
        help="Share of class in the features.",
    )
    sphere_dim: int = param(
        3,
        ge=2,
        le=1024,
        symbol="d",
        scale="log",
        live=(2, 128),
        only_if={"model": ("table", "sphere")},
        help="Dimension of the space around the sphere.",
    )
    swap: float = param(
        0.3,
        ge=0.0,
        le=1.0,
        live=(0.0, 0.9),
        only_if=_TABLE,
        help="Probability that a positive is a classmate instead of the example itself.",
    )
    own_in_denominator: bool = param(
        True, only_if=_TABLE, help="Whether the example itself counts among those that the loss compares with."
    )
    schedule: Literal["constant", "anneal"] = param(
        "constant", only_if=_TABLE, help="Whether the temperature is the same all the time."
    )
    start_temperature: float = param(
        1.0,
        ge=0.005,
        le=100.0,
        scale="log",
        live=(0.02, 1.0),
        only_if={"model": ("table",), "schedule": ("anneal",)},
        help="Temperature at the first step, from which it moves to `temperature` by one factor a step.",
    )
    learning_rate: float = param(
        0.5,
        ge=1e-5,
        le=10.0,
        symbol=r"\eta/\tau",
        scale="log",
        live=(0.01, 1.0),
        only_if=_TABLE,
        help="Step size over the temperature, on the sum of the examples' losses.",
    )
    negatives: int = param(
        1000,
        ge=1,
        le=1_000_000,
        scale="log",
        live=(100, 10_000),
        only_if=_SPHERE,
        help="Uniform negatives that are drawn at each step.",
    )
    steps: int = param(
        200,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(20, 2000),
        help="two_level: halvings of the interval that holds the share; table: updates; sphere: batches of negatives.",
    )

    def rules(self) -> Iterator[Problem]:
        if self.model == "sphere":
            return
        if self.examples > MOST_EXAMPLES:
            allowed = f"with {self.classes} classes there are {self.examples} examples, {MOST_EXAMPLES} are possible"
            yield Problem("per_class", self.per_class, allowed, "Lower per_class, or classes.")
        if self.model == "two_level" and self.geometry == "random":
            if self.feature_dim < self.classes:
                allowed = f"{self.classes} classes need as many orthogonal directions"
                advice = f"Set feature_dim to {self.classes} or more."
                yield Problem("feature_dim", self.feature_dim, allowed, advice)
            if self.examples * self.feature_dim > MOST_ENTRIES:
                allowed = f"{self.examples} examples of this dimension exceed {MOST_ENTRIES} numbers"
                yield Problem("feature_dim", self.feature_dim, allowed, "Lower it, or the number of examples.")
        if self.model == "table" and self.examples * self.sphere_dim > MOST_ENTRIES:
            allowed = f"{self.examples} examples of this dimension exceed {MOST_ENTRIES} numbers"
            yield Problem("sphere_dim", self.sphere_dim, allowed, "Lower it, or the number of examples.")

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self.classes * self.per_class


def recorded_steps(params: ContrastiveTemperatureParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, 60, 30)


def simulate(params: ContrastiveTemperatureParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import training

    return training.simulate(params, replicate, monitor)


def predict(params: ContrastiveTemperatureParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def derive(
    params: ContrastiveTemperatureParams, trace: Trace, predicted: Prediction
) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: ContrastiveTemperatureParams) -> Work:
    N, recorded = float(params.examples), float(len(recorded_steps(params)))
    steps: dict[str, float]
    if params.model == "sphere":
        dear = 1.8 if params.sphere_dim == 2 else 1.0  # a chi-square of one degree takes longer than one of more
        steps, N, D = {"negatives": params.steps * float(params.negatives) * dear + 3000.0}, 1.0, 1.0
    elif params.model == "table":
        D = float(params.sphere_dim)
        steps = {"table": (params.steps + 2.0 * recorded) * (N * N * (1.0 + 0.1 * D) + 300.0)}
    else:
        D = float(params.feature_dim) if params.geometry == "random" else 1.0
        # A bracket moves 55 times, or 1076 times where the share falls to 0; what does not move is looked at once.
        looks = min(params.steps, 350.0) + 2.0 * recorded if params.fit == "minimised" else 3.0
        steps = {"share": looks * N * N, "directions": N * D * (6.0 + 0.3 * N) + 2e5}
    return Work(
        per_replicate=steps,
        once={"negatives": 1e4},
        bytes=8.0 * (14.0 * N * N + 6.0 * N * D + 120.0 * N * min(D, 3.0) + params.replicates * 12.0 * recorded + 2e5),
    )


def probes() -> Mapping[str, Callable[[], float]]:
    from . import training

    return training.probes()


_DIP = {"model": "table", "classes": 8, "per_class": 12, "steps": 600, "replicates": 3}

PRESETS = (
    Preset(
        id="linear_law",
        title="Tolerance is temperature",
        notice="The share of class in the best features grows in proportion to the temperature, until classes "
        "collapse.",
        label="temperature 0.3",
        beside={"temperature 0.1": {"temperature": 0.1}},
    ),
    Preset(
        id="wheel",
        title="Hardness wheel",
        notice="Negatives on a circle: at a low temperature the force is on the nearest ones, at a high one on all.",
        label="temperature 0.1",
        params={"model": "sphere", "sphere_dim": 2, "temperature": 0.1},
        beside={"temperature 0.3": {"temperature": 0.3}, "temperature 1": {"temperature": 1.0}},
        expect={"nearest_only": "outside"},
    ),
    Preset(
        id="hard",
        title="As hard as triplets",
        notice="At so low a temperature only negatives within a few degrees are pushed at all.",
        label="temperature 0.02",
        params={"model": "sphere", "sphere_dim": 2, "temperature": 0.02},
        beside={"temperature 0.01": {"temperature": 0.01}},
    ),
    Preset(
        id="collapse",
        title="Class collapse",
        notice="Beyond the temperature of collapse the instance is gone: classes are told apart, and no example finds "
        "its own view.",
        label="temperature 0.6",
        params={"temperature": 0.6, "geometry": "ideal", "replicates": 1},
        beside={"temperature 0.5": {"temperature": 0.5}, "random, 0.6": {"geometry": "random", "replicates": 4}},
    ),
    Preset(
        id="stable_instances",
        title="Stable instances",
        notice="Where views keep the instance as well as the class, nothing rewards the class, at any temperature.",
        label="temperature 0.3",
        params={"overlap": 0.97},
        beside={"temperature 0.8": {"temperature": 0.8}},
    ),
    Preset(
        id="high_dimension",
        title="High dimension",
        notice="In 128 dimensions even a temperature of 0.07 does not single out the nearest: the small-temperature "
        "law is far off.",
        label="128 dimensions",
        params={"model": "sphere", "sphere_dim": 128, "temperature": 0.07},
        beside={"16 dimensions": {"sphere_dim": 16}},
        expect={"small_temperature": "fails", "nearest_only": "outside"},
    ),
    Preset(
        id="dip",
        title="A dip",
        notice="Free points whose positive is sometimes a classmate: tolerance is least near a temperature of 0.1, and "
        "rises on both sides.",
        label="temperature 0.1",
        params={**_DIP, "temperature": 0.1},
        beside={"temperature 0.05": {"temperature": 0.05}, "temperature 0.3": {"temperature": 0.3}},
        expect={"rises_everywhere": "fails"},
    ),
    Preset(
        id="class_blind",
        title="Blind to classes",
        notice="Where no positive is a classmate the table knows no class: tolerance is that of any pair, at every "
        "temperature.",
        label="temperature 0.3",
        params={**_DIP, "swap": 0.0},
        beside={"temperature 0.1": {"temperature": 0.1}},
        expect={"tolerance_rises": "outside"},
    ),
    Preset(
        id="annealing",
        title="Annealing",
        notice="As the temperature falls from 1 to 0.05, collapsed classes open up again and spread over the sphere.",
        label="annealed",
        params={**_DIP, "schedule": "anneal", "temperature": 0.05, "replicates": 1},
        expect={"rises_everywhere": "fails"},
    ),
)

LAB = Lab(
    id="contrastive_temperature",
    version=1,
    title="Contrastive temperature",
    sentence="The temperature of a contrastive loss is a dial of hardness: low, it spreads all examples evenly and "
    "tears classmates apart; high, it tolerates them, until classes collapse.",
    theme="self-supervised learning",
    paper=Paper(
        title="Understanding the Behaviour of Contrastive Loss",
        authors="Feng Wang, Huaping Liu",
        venue="CVPR",
        year=2021,
        arxiv="2012.09740",
        bibtex="""@inproceedings{wang2021understanding,
  title     = {Understanding the Behaviour of Contrastive Loss},
  author    = {Wang, Feng and Liu, Huaping},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2021},
}""",
    ),
    params=ContrastiveTemperatureParams,
    streams=STREAMS,
    series={
        "share": Quantity("share of class", "c"),
        "tolerance": Quantity("mean similarity of classmates"),
        "uniformity": Quantity("uniformity (lower is more even)"),
        "loss": Quantity("contrastive loss", "L"),
        "mean_similarity": Quantity("similarity of what is pushed", "m"),
        "log_mean_exp": Quantity("log mean force", r"\log\mathbb{E}\,e^{(s-1)/\tau}"),
        "force_entropy": Quantity("entropy of the force over negatives", "H"),
        "tau_now": Quantity("temperature now", r"\tau", scale="log"),
    },
    metrics={
        "class_accuracy": Quantity("nearest neighbours of the same class"),
        "retrieval": Quantity("views that find their own example"),
        "collapse_temperature": Quantity("temperature of collapse", r"\tau_c"),
        "small_temperature_similarity": Quantity("mean similarity in the limit of small temperatures"),
    },
    presets=PRESETS,
    recorded_steps=recorded_steps,
    simulate=simulate,
    predict=predict,
    derive=derive,
    work=work,
    probes=probes,
    grade_b=Tolerance(relative=1e-6, absolute=1e-9),
    changes=(Change(1, "first version"),),
)
