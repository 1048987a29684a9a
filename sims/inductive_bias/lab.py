"""The same contrastive loss, useful or useless features: the class of encoders decides.

Encoders of sign vectors trained by the spectral contrastive loss, after Saunshi et al. 2022 and HaoChen & Ma 2023.
"""

from __future__ import annotations

import math
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
    "bits",  # signs of the examples
    "first",  # scale or flips of the first view
    "second",
    "init",  # the start of the encoder
    "basis",  # a basis of each eigenspace of several dimensions
    "features",  # weights and biases of random ReLU features
    "fresh_bits",  # the same three for the views that a network is scored on
    "fresh_first",
    "fresh_second",
)
SCALES = 16  # points of the quadrature over scales
MOST_ENTRIES = 10_000_000  # features at all views that are held at once
CLASSES = ("linear", "polynomial", "relu")  # of the form Theta phi(x)
SOLVABLE = (*CLASSES, "table")
_RESCALE, _FLIP = {"augmentation": ("rescale",)}, {"augmentation": ("flip",)}
_TRAINED = ("sgd", "adam", "descent")


class InductiveBiasParams(Params):
    """Parameters of one augmentation, one class of encoders, and how an encoder is found."""

    dim: int = param(8, ge=2, le=12, symbol="d", unit="bits", live=(4, 10), help="Bits of an example.")
    content: int = param(
        3, ge=1, le=12, symbol="s", unit="bits", live=(1, 5), help="Bits that are content; the others are style."
    )
    augmentation: Literal["rescale", "flip"] = param(
        "rescale", help="rescale: all style bits of a view times one random scale; flip: each bit may change its sign."
    )
    scale_low: float = param(
        0.0, ge=0.0, le=1.0, symbol=r"\tau_{lo}", live=(0.0, 1.0), only_if=_RESCALE, help="Smallest scale of style."
    )
    scale_high: float = param(
        1.0, ge=0.01, le=10.0, symbol=r"\tau_{hi}", live=(0.5, 2.0), only_if=_RESCALE, help="Largest scale of style."
    )
    flip_content: float = param(
        0.0, ge=0.0, le=0.5, symbol="q_c", live=(0.0, 0.5), only_if=_FLIP, help="Probability that a content bit flips."
    )
    flip_style: float = param(
        0.2, ge=0.0, le=0.5, symbol="q_s", live=(0.0, 0.5), only_if=_FLIP, help="Probability that a style bit flips."
    )
    encoder: Literal["linear", "polynomial", "relu", "table", "mlp"] = param(
        "linear",
        help="linear maps, polynomials of the bits, linear maps of random ReLU features, a free table of sign "
        "patterns, or a ReLU network of two hidden layers.",
    )
    degree: int = param(
        2, ge=1, le=12, symbol="D", live=(1, 4), only_if={"encoder": ("polynomial",)}, help="Largest degree."
    )
    relu_features: int = param(
        20, ge=1, le=300, symbol="p", live=(5, 100), only_if={"encoder": ("relu",)}, help="Random ReLU features."
    )
    width: int = param(
        64,
        ge=1,
        le=1024,
        unit="neurons",
        scale="log",
        live=(8, 256),
        only_if={"encoder": ("mlp",)},
        help="Neurons in each of the two hidden layers.",
    )
    n_features: int = param(3, ge=1, le=512, symbol="k", unit="features", live=(1, 16), help="Outputs of the encoder.")
    training: Literal["sgd", "adam", "descent", "minimiser"] = param(
        "sgd",
        help="sgd: fresh batches, the rate falls linearly to 0; adam: the same, along half a cosine; descent: of the "
        "exact loss, at a constant rate; minimiser: solved for, a random one where there are many.",
    )
    learning_rate: float = param(
        0.05,
        ge=1e-6,
        le=10.0,
        symbol=r"\eta",
        scale="log",
        live=(0.001, 0.5),
        only_if={"training": _TRAINED},
        help="Step size of the first step.",
    )
    batch: int = param(
        64,
        ge=2,
        le=2048,
        symbol="B",
        unit="pairs",
        scale="log",
        live=(8, 256),
        only_if={"training": ("sgd", "adam")},
        help="Fresh pairs of views at each step.",
    )
    steps: int = param(
        800,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(100, 10_000),
        help="Updates; a minimiser needs none.",
    )
    init_scale: float = param(
        0.1,
        ge=1e-9,
        le=10.0,
        scale="log",
        live=(1e-3, 1.0),
        only_if={"training": _TRAINED, "encoder": SOLVABLE},
        help="Standard deviation of the entries at the start; of a table, of its outputs.",
    )
    n_pairs: int = param(
        0,
        ge=0,
        le=1_000_000,
        unit="pairs",
        scale="linear",
        live=(0, 200_000),
        only_if={"training": ("minimiser",), "encoder": CLASSES},
        help="Sampled pairs that the moments are estimated from; 0: the exact moments.",
    )
    n_test: int = param(
        2000,
        ge=100,
        le=20_000,
        unit="pairs",
        scale="log",
        live=(500, 8000),
        only_if={"encoder": ("mlp",)},
        help="Fresh examples that a network's probe is fitted to, and as many that it and the loss are scored on.",
    )
    label: Literal["bits", "majority"] = param(
        "bits", help="What is probed for: each content bit, or the majority of them."
    )
    intercept: bool = param(True, help="Whether the probe has a constant of its own.")

    def rules(self) -> Iterator[Problem]:
        if self.content > self.dim:
            yield Problem("content", self.content, f"there are {self.dim} bits", f"Set content to {self.dim} or less.")
            return
        if self.label == "majority" and self.content % 2 == 0:
            yield Problem("content", self.content, "a majority needs an odd number of bits", "Add a bit, or drop one.")
        if self.augmentation == "rescale" and self.scale_low > self.scale_high:
            allowed = f"it must not exceed scale_high = {self.scale_high:g}"
            yield Problem("scale_low", self.scale_low, allowed, "Lower it, or raise scale_high.")
        if self.encoder == "polynomial" and self.degree > self.dim:
            yield Problem("degree", self.degree, f"there are {self.dim} bits", f"Set degree to {self.dim} or less.")
            return
        if self.encoder == "mlp" and self.training not in ("sgd", "adam"):
            allowed = "a network has neither exact moments nor a minimiser in closed form"
            yield Problem("training", self.training, allowed, "Set training to adam or sgd.")
        if self.encoder in CLASSES and self.views * self.functions > MOST_ENTRIES:
            allowed = f"{self.functions} functions at {self.views} views exceed {MOST_ENTRIES} numbers"
            yield Problem("dim", self.dim, allowed, "Lower dim, or the size of the class.")
        if self.encoder == "table" and self.training == "minimiser" and self.n_features * 4**self.dim > 2e9:
            allowed = f"a basis of {2**self.dim} patterns is too large for so many features"
            yield Problem("n_features", self.n_features, allowed, "Lower n_features, or dim.")

    @property
    def functions(self) -> int:
        """p, the number of functions of the class; of a table, its patterns."""
        if self.encoder == "polynomial":
            return sum(math.comb(self.dim, size) for size in range(min(self.degree, self.dim) + 1))
        return {"linear": self.dim, "relu": self.relu_features}.get(self.encoder, 2**self.dim)

    @property
    def views(self) -> int:
        """Number of views that are evaluated: sign patterns, times scales where these matter."""
        return 2**self.dim * (SCALES if self.augmentation == "rescale" and self.encoder != "table" else 1)

    @property
    def time(self) -> float:
        """Sum of the learning rates of all steps: the time of gradient flow; NaN for Adam and minimisers."""
        return {"descent": self.learning_rate * self.steps, "sgd": 0.5 * self.learning_rate * (self.steps + 1)}.get(
            self.training, math.nan
        )


def recorded_steps(params: InductiveBiasParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, *((20, 0) if params.encoder == "mlp" else (60, 30)))


def simulate(params: InductiveBiasParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import training

    return training.simulate(params, replicate, monitor)


def predict(params: InductiveBiasParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def derive(params: InductiveBiasParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: InductiveBiasParams) -> Work:
    k, p, P = float(params.n_features), float(params.functions), float(params.views)
    B = float(params.batch)
    recorded = float(len(recorded_steps(params)))
    looks = 1.0 if params.training == "minimiser" else recorded
    steps: dict[str, float] = {}
    draws = B * params.dim * 3.0 + B * B * k
    if params.encoder == "mlp":
        weights = params.width * (params.dim + params.width + k)
        steps["network"] = params.steps * network_work(params)
        steps["network"] += looks * 6.0 * params.n_test * (weights + 50.0 * k)
        looks = 0.0
    elif params.training in ("sgd", "adam"):
        dense = 4.0 * p * k if params.encoder == "table" else 4.0 * B * p * k + 4.0 * p * k
        steps["batch"] = params.steps * (draws + dense + 300.0)
    elif params.training == "descent":
        product = 8.0 * p * k * (params.dim + k) if params.encoder == "table" else 6.0 * p * p * k + 4.0 * p * k * k
        steps["descend"] = params.steps * (product + 300.0)
    kept = min(k, P)
    solved = 2.0 * P * kept * kept + P * kept * 16.0 + 4e6
    if params.training == "minimiser" and params.encoder == "table":
        solved += 2.0 * P * P * kept
    elif params.training == "minimiser":
        solved += 20.0 * p**3 + params.n_pairs * (p + 3.0 * params.dim) * 10.0
    steps["measure"] = 1.4 * looks * look_work(P, kept) + solved  # what surrounds a look included
    own = P * p * p if params.encoder == "relu" else 0.0
    steps["measure"] += own
    once = P * p * p if params.encoder in CLASSES else 0.0
    return Work(
        per_replicate=steps,
        once={"measure": once + 1e5},
        bytes=8.0 * (3.0 * P * (p if params.encoder in CLASSES else kept) + 4.0 * P * kept + 2.0 * p * p * (p < 4096))
        + 8.0 * (20.0 * params.n_pairs * p + params.replicates * 6.0 * recorded + 4e5),
        serial=("measure",),
    )


def look_work(views: float, kept: float) -> float:
    """A probe of the outputs at all views; of few views most of it is the interpreter's."""
    return views * (kept + 6.0) ** 2 + 2.5e5


def network_work(params: InductiveBiasParams) -> float:
    """Multiplications and additions of one step of the network, forth and back."""
    weights = params.width * (params.dim + params.width + params.n_features)
    return 12.0 * params.batch * weights + 20.0 * weights


def probes() -> Mapping[str, Callable[[], float]]:
    from . import training

    return training.probes()


_EIGHT = {"augmentation": "flip", "training": "minimiser", "steps": 1, "n_features": 8}

PRESETS = (
    Preset(
        id="same_loss",
        title="Same loss",
        notice="Both encoders reach the least loss there is, minus three; the linear one knows every content bit, the "
        "table next to nothing.",
        label="linear",
        beside={"table": {"encoder": "table", "training": "descent"}},
        expect={"same_loss_same_use": "fails"},
    ),
    Preset(
        id="how_many",
        title="How many features?",
        notice="A linear encoder needs as many features as content bits, polynomials nearly two to that power, and so "
        "does the table.",
        label="linear",
        params={**_EIGHT, "replicates": 50},
        beside={
            "degree 2": {"encoder": "polynomial"},
            "table": {"encoder": "table"},
        },
    ),
    Preset(
        id="many_pieces",
        title="Very many pieces",
        notice="Rescaling leaves every sign pattern a piece of its own: the table would need all 256 of them for what "
        "the linear encoder does with three.",
        label="table",
        params={"encoder": "table", "training": "minimiser", "steps": 1, "n_features": 256, "replicates": 10},
        beside={"linear": {"encoder": "linear", "n_features": 8}},
    ),
    Preset(
        id="almost_invariant",
        title="Almost invariant style",
        notice="Where style is nearly invariant too, a linear encoder reaches nearly the least loss long before it has "
        "told content from style.",
        label="not long enough",
        params={"scale_low": 0.8, "steps": 3000},
        expect={"content_learned": "outside", "learned_gram": "outside", "least_loss": "fails"},
    ),
    Preset(
        id="patience",
        title="Patience",
        notice="The same encoder, trained seven times as long, has forgotten style: the loss gained a hundredth, the "
        "probe everything.",
        label="long enough",
        params={"scale_low": 0.8, "steps": 20_000, "replicates": 2},
    ),
    Preset(
        id="dirty_content",
        title="Dirty content",
        notice="Where views change content more than style, the linear encoder keeps style, the probe knows nothing.",
        label="content flipped 0.3",
        params={"augmentation": "flip", "flip_content": 0.3, "flip_style": 0.05},
        beside={"content flipped 0.4": {"flip_content": 0.4}},
        expect={"content_learned": "outside", "learned_gram": "outside"},
    ),
    Preset(
        id="network",
        title="A network in between",
        notice="Networks from different starts reach the same loss within hundredths, and probes on them differ: the "
        "loss does not rank encoders.",
        label="network",
        params={
            "encoder": "mlp",
            "training": "adam",
            "learning_rate": 0.004,
            "batch": 128,
            "width": 64,
            "steps": 800,
            "replicates": 4,
        },
        beside={"linear": {"encoder": "linear", "training": "adam", "learning_rate": 0.01}},
    ),
)

LAB = Lab(
    id="inductive_bias",
    version=2,
    title="Inductive bias",
    sentence="One contrastive loss, perfect or useless features: an unrestricted encoder can reach its minimum and "
    "know nothing of the label, a restricted one cannot.",
    theme="self-supervised learning",
    paper=Paper(
        title="Understanding Contrastive Learning Requires Incorporating Inductive Biases",
        authors="Nikunj Saunshi, Jordan T. Ash, Surbhi Goel, Dipendra Misra, Cyril Zhang, Sanjeev Arora, Sham Kakade, "
        "Akshay Krishnamurthy",
        venue="ICML",
        year=2022,
        arxiv="2202.14037",
        bibtex="""@inproceedings{saunshi2022understanding,
  title     = {Understanding Contrastive Learning Requires Incorporating Inductive Biases},
  author    = {Saunshi, Nikunj and Ash, Jordan and Goel, Surbhi and Misra, Dipendra and Zhang, Cyril and
               Arora, Sanjeev and Kakade, Sham and Krishnamurthy, Akshay},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
}""",
    ),
    params=InductiveBiasParams,
    streams=STREAMS,
    series={
        "loss": Quantity("contrastive loss", "L"),
        "probe_r2": Quantity("R² of the probe", "R^2"),
        "probe_accuracy": Quantity("accuracy of the probe"),
        "style_norm": Quantity("size of the style columns", r"\|U_{style}\|", scale="log"),
        "time": Quantity("time of gradient flow", "t"),
    },
    metrics={
        "units": Quantity("directions that the class can make invariant"),
        "min_loss": Quantity("least possible loss", r"L_{\min}"),
        "excess_loss": Quantity("loss above the least possible", scale="log"),
        "separation_rate": Quantity("rate at which style is forgotten", r"4\,\mathrm{Var}\,\tau"),
        "content_gram": Quantity("mean entry of UᵀU on a content bit"),
        "style_gram": Quantity("mean entry of UᵀU on a style bit"),
    },
    presets=PRESETS,
    recorded_steps=recorded_steps,
    simulate=simulate,
    predict=predict,
    derive=derive,
    work=work,
    probes=probes,
    grade_b=Tolerance(relative=1e-5, absolute=1e-8),
    changes=(
        Change(1, "first version"),
        Change(2, "gradients of a batch from its moments, probes in the coordinates of the class", dict),
    ),
)
