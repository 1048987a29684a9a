"""Why throw the head away: weights of features get more unequal with depth.

Deep linear encoders of independent features, trained by the spectral contrastive loss, after Xue et al. 2024.
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
    "init",  # the start of the layers
    "signs",  # signs of the examples of SGD
    "first",  # noise of the first view
    "second",
    "labelled",  # signs of the labelled examples downstream
    "test",  # signs of the examples that errors are counted on
)
KINDS = 4  # kinds of features whose weights are recorded along training
MOST_FEATURES = 200


class ProjectionHeadParams(Params):
    """Parameters of the features, of a deep linear encoder, and of a task that one feature decides."""

    strengths: tuple[float, ...] = param(
        (2.0, 1.0, 1.0, 0.5),
        ge=0.01,
        le=10.0,
        symbol=r"\phi",
        help="Size of each kind of feature; kinds beyond the list have the last one.",
    )
    noises: tuple[float, ...] = param(
        (0.5, 0.1, 1.0, 0.05),
        ge=0.0,
        le=10.0,
        symbol=r"\nu",
        help="Noise that a view adds to each kind of feature; kinds beyond the list have the last one.",
    )
    copies: tuple[float, ...] = param(
        (1.0,), ge=1, le=MOST_FEATURES, help="How many features there are of each kind; kinds beyond the list have one."
    )
    layers: int = param(2, ge=1, le=6, symbol="L", live=(1, 6), help="Layers of the encoder, the head included.")
    init: Literal["aligned", "gaussian"] = param(
        "aligned",
        help="aligned: every layer init_scale times an orthogonal matrix, so that layers are balanced; gaussian: "
        "independent entries of deviation init_scale over the root of the width.",
    )
    init_scale: float = param(
        0.2, ge=1e-3, le=10.0, symbol="a_0", scale="log", live=(0.05, 1.5), help="Size of every layer at the start."
    )
    head_ratio: float = param(
        1.0,
        ge=0.1,
        le=10.0,
        scale="log",
        live=(0.25, 4.0),
        help="How much larger the last layer starts than the others.",
    )
    width: int = param(
        8, ge=1, le=200, symbol="h", live=(4, 16), only_if={"init": ("gaussian",)}, help="Width of the hidden layers."
    )
    n_outputs: int = param(
        4, ge=1, le=200, symbol="k", live=(1, 16), only_if={"init": ("gaussian",)}, help="Outputs of the head."
    )
    weight_decay: float = param(0.0, ge=0.0, le=10.0, symbol=r"\lambda", live=(0.0, 0.2), help="Weight decay.")
    training: Literal["descent", "sgd"] = param(
        "descent", help="descent: on the exact loss; sgd: on fresh views, with a rate that falls linearly to 0."
    )
    learning_rate: float = param(
        0.004, ge=1e-6, le=1.0, symbol=r"\eta", scale="log", live=(1e-4, 0.05), help="Step size."
    )
    steps: int = param(
        20_000, ge=1, le=100_000_000, unit="steps", scale="log", live=(1000, 100_000), help="Number of updates."
    )
    batch: int = param(
        128,
        ge=2,
        le=2048,
        symbol="B",
        unit="pairs",
        scale="log",
        live=(8, 256),
        only_if={"training": ("sgd",)},
        help="Fresh pairs of views at each step.",
    )
    relevant: int = param(
        1,
        ge=1,
        le=MOST_FEATURES,
        live=(1, 4),
        help="The kind, counted from 1, of the feature that is the task's label.",
    )
    n_labelled: int = param(
        20, ge=2, le=2000, symbol="n", unit="examples", scale="log", live=(5, 100), help="Clean labelled examples."
    )
    ridge: float = param(
        1e-6, ge=0.0, le=1000.0, symbol=r"\delta", help="Ridge penalty of the probe on the summed squared error."
    )

    def rules(self) -> Iterator[Problem]:
        kinds = len(self.phi)
        if any(count != int(count) for count in self.copies) or len(self.copies) > kinds:
            allowed = f"it must list whole numbers, at most {kinds} of them"
            yield Problem("copies", self.copies, allowed, "Set copies to 1.")
            return
        if self.features > MOST_FEATURES:
            allowed = f"together they make {self.features} features, {MOST_FEATURES} are possible"
            yield Problem("copies", self.copies, allowed, "Lower some of them.")
        if self.relevant > kinds:
            yield Problem("relevant", self.relevant, f"there are {kinds} kinds", f"Set relevant to {kinds} or less.")
        if self.init == "gaussian" and self.layers > 1 and self.width < self.features:
            allowed = f"hidden layers must be as wide as there are features, {self.features}"
            yield Problem("width", self.width, allowed, f"Set width to {self.features} or more.")

    @property
    def phi(self) -> tuple[float, ...]:
        """Strength of each kind; kinds beyond the list have the last one."""
        return self.strengths + (self.strengths[-1],) * (len(self.noises) - len(self.strengths))

    @property
    def nu(self) -> tuple[float, ...]:
        """Noise of each kind; kinds beyond the list have the last one."""
        return self.noises + (self.noises[-1],) * (len(self.strengths) - len(self.noises))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of features of each kind."""
        given = tuple(int(count) for count in self.copies)
        return given + (1,) * (len(self.phi) - len(given))

    @property
    def features(self) -> int:
        """d, the number of features."""
        return sum(self.counts)

    @property
    def outputs(self) -> int:
        """k, the outputs of the head."""
        return self.n_outputs if self.init == "gaussian" else self.features

    @property
    def in_full(self) -> bool:
        """Whether matrices are trained; else each feature by itself, which is the same."""
        return self.init == "gaussian" or self.training == "sgd"

    @property
    def time(self) -> float:
        """Sum of the learning rates of all steps: the time of gradient flow."""
        return self.learning_rate * (self.steps if self.training == "descent" else 0.5 * (self.steps + 1))


def recorded_steps(params: ProjectionHeadParams) -> NDArray[np.int64]:
    return spread_steps(params.steps, 110, 40)


def simulate(params: ProjectionHeadParams, replicate: int, monitor: Monitor) -> Replicate:
    from . import training

    return training.simulate(params, replicate, monitor)


def predict(params: ProjectionHeadParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def derive(params: ProjectionHeadParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace, predicted)


def work(params: ProjectionHeadParams) -> Work:
    d, L = float(params.features), float(params.layers)
    recorded = float(len(recorded_steps(params)))
    m = float(max(params.features, params.width if params.init == "gaussian" else 1, params.outputs))
    n = float(min(params.n_labelled, 2000))
    steps: dict[str, float] = {}
    if params.training == "sgd":
        steps["sgd"] = params.steps * (
            params.batch * (3.0 * d + params.batch * 0.3 * params.outputs) + L * m**3 + 2000.0
        )
    elif params.in_full:
        steps["matrices"] = params.steps * (4.0 * L * m * m * d + 2000.0 * L)
    else:
        steps["gains"] = params.steps * len(params.phi) * L * (L + 8.0)
    steps["downstream"] = 4000.0 * d + (L + 1.0) * (n * d * min(n, d) + 400.0 * d + 2e4)
    around = 1.1  # looks that a step of the loop around each takes
    steps["look"] = recorded * (around + (2.0 + L * (m / 20.0) ** 3 if params.in_full else 1.0))
    return Work(
        per_replicate=steps,
        once={"chalk": len(params.phi) * (10.0 if params.weight_decay > 0 or L > 2 else 1.0)},
        bytes=8.0 * (6.0 * L * m * m + (L + 2.0) * n * d + 4000.0 * d + params.replicates * 14.0 * recorded + 2e5),
        serial=("downstream", "look"),
    )


def probes() -> Mapping[str, Callable[[], float]]:
    from . import training

    return training.probes()


_TASK = {"strengths": (3.0, 1.0), "noises": (3.0, 0.7), "copies": (1.0, 59.0), "replicates": 40}
_TASK |= {"init_scale": 0.4, "learning_rate": 0.01, "steps": 3000}
_RANDOM = {"init": "gaussian", "learning_rate": 0.004, "steps": 20_000}

PRESETS = (
    Preset(
        id="shares",
        title="Equal shares",
        notice="Both layers take half of the log-gain of every feature, so that before the head the weights are the "
        "square roots of those after it.",
        label="two layers",
        beside={"one layer": {"layers": 1}},
        expect={"always_discard": "outside"},
    ),
    Preset(
        id="augmented_away",
        title="Augmented away",
        notice="The label is a strong feature that views drown in noise: the head suppresses it, and the raw input is "
        "best.",
        label="suppressed feature",
        params=_TASK,
        beside={"in between": {"strengths": (1.5, 1.0), "noises": (1.0, 0.7)}},
    ),
    Preset(
        id="weak_clean",
        title="Weak but clean",
        notice="The label is a weak feature that views leave alone: the head lifts it above the others, and "
        "throwing it away doubles the error.",
        label="favoured feature",
        params={**_TASK, "strengths": (0.6, 1.0), "noises": (0.1, 0.7)},
        expect={"always_discard": "fails"},
    ),
    Preset(
        id="interior",
        title="An interior layer",
        notice="Loud noisy features above, faint clean ones below: neither the input nor the output is best, but the "
        "third layer of four.",
        label="four layers",
        params={
            "strengths": (1.0, 3.0, 0.3),
            "noises": (0.5, 5.0, 0.15),
            "copies": (1.0, 29.0, 30.0),
            "layers": 4,
            "init_scale": 0.6,
            "learning_rate": 0.005,
            "steps": 16_000,
            "replicates": 40,
        },
    ),
    Preset(
        id="undertrained",
        title="Undertrained",
        notice="From a small start features wait, each a time that its strength alone decides: the faint one, to "
        "be the heaviest, has not begun.",
        label="small start",
        params={"init_scale": 0.05},
        expect={"post_weights": "outside", "pre_is_root": "outside", "always_discard": "outside"},
    ),
    Preset(
        id="unbalanced",
        title="Unbalanced layers",
        notice="From a large random start the output is what theory says, and the layer before it is not; weight decay "
        "restores the balance.",
        label="large start",
        params={**_RANDOM, "init_scale": 1.0},
        beside={"head four times as large": {"head_ratio": 4.0, "replicates": 1}},
        expect={"pre_is_root": "fails", "always_discard": "outside"},
    ),
    Preset(
        id="decay",
        title="Weight decay",
        notice="Weight decay shrinks the imbalance at a known rate, and what is left is a square root again.",
        label="weight decay",
        params={**_RANDOM, "init_scale": 1.0, "weight_decay": 0.05},
        expect={"always_discard": "outside"},
    ),
    Preset(
        id="narrow",
        title="No width to spare",
        notice="With hidden layers just as wide as there are features, some starts nearly miss a direction, which then "
        "escapes late.",
        label="width 4",
        params={**_RANDOM, "init_scale": 0.3, "width": 4, "replicates": 20},
        expect={"post_weights": "fails", "pre_is_root": "fails", "always_discard": "outside"},
    ),
    Preset(
        id="bottleneck",
        title="Bottleneck",
        notice="With two outputs the loss wants features 2 and 4; training takes the strong feature 1 first, and keeps "
        "it.",
        label="two outputs",
        params={**_RANDOM, "init_scale": 0.1, "n_outputs": 2},
        expect={"keeps_best": "fails", "always_discard": "outside"},
    ),
)

LAB = Lab(
    id="projection_head",
    version=2,
    title="The projection head",
    sentence="Each layer takes an equal share of every feature's log-gain: the layer before the head is more even than "
    "the head's output, which helps a suppressed feature and hurts a favoured one.",
    theme="self-supervised learning",
    paper=Paper(
        title="Investigating the Benefits of Projection Head for Representation Learning",
        authors="Yihao Xue, Eric Gan, Jiayi Ni, Siddharth Joshi, Baharan Mirzasoleiman",
        venue="ICLR",
        year=2024,
        arxiv="2403.11391",
        bibtex="""@inproceedings{xue2024investigating,
  title     = {Investigating the Benefits of Projection Head for Representation Learning},
  author    = {Xue, Yihao and Gan, Eric and Ni, Jiayi and Joshi, Siddharth and Mirzasoleiman, Baharan},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
}""",
    ),
    params=ProjectionHeadParams,
    streams=STREAMS,
    series={
        "loss": Quantity("contrastive loss", "L"),
        "imbalance": Quantity("imbalance of the layers", r"\|W_{l+1}^\top W_{l+1}-W_lW_l^\top\|", scale="log"),
        "time": Quantity("time of gradient flow", "t"),
        **{f"post_{i}": Quantity(f"weight of feature {i} after the head") for i in range(1, KINDS + 1)},
        **{f"pre_{i}": Quantity(f"weight of feature {i} before the head") for i in range(1, KINDS + 1)},
    },
    metrics={
        "min_loss": Quantity("least possible loss", r"L_{\min}"),
        "unconverged": Quantity("kinds of features whose gradient has not vanished"),
        "parts": Quantity("steps taken, halved ones counted"),
        "mse_input": Quantity("test error on the input"),
        "mse_pre": Quantity("test error before the head"),
        "mse_post": Quantity("test error after the head"),
        "error_input": Quantity("wrong signs on the input"),
        "error_pre": Quantity("wrong signs before the head"),
        "error_post": Quantity("wrong signs after the head"),
        "best_layer": Quantity("layer with the least test error"),
        **{f"half_time_{i}": Quantity(f"half time of feature {i}", f"t_{i}") for i in range(1, KINDS + 1)},
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
        Change(2, "gradients of a batch from its moments", dict),
    ),
)
