"""Linear attention: trained on regression prompts, one layer becomes one step of preconditioned gradient descent.

A layer of linear self-attention reads n noisy examples of a linear function and predicts a label for a query, after
Mahankali, Hashimoto & Ma 2024. Its population loss is a polynomial in the weights, so that it is trained exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

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
    Stop,
    Tolerance,
    Trace,
    Work,
    param,
    spread_steps,
    stream_table,
    thin,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .training import Trained

STREAMS = stream_table(
    "init",  # the layer's start
    "task",  # task vectors, and the hidden weights of a teacher network
    "chi_square",  # squared lengths: diagonals of triangles, and the scale of Student covariates
    "noise",  # normals of the sampler that never draws covariates
    "covariate",  # covariates of explicit prompts, their queries included
    "query",  # queries where covariates are not drawn
    "label_noise",  # noise on labels, that of the target included
    "teacher_sign",  # signs of nonlinear teachers
    "test_task",
    "test_chi_square",
    "test_noise",
    "test_covariate",
    "test_label_noise",
    "test_teacher_sign",
)
FRAME_SIZE = 16  # rows and columns of the effective matrix that are kept of each frame
DIAGONAL = 16  # entries of its diagonal that are kept of every recorded step
MOST_UNKNOWNS = 12  # coordinates of a finite training set solved by least squares, which has dim^2 unknowns
LANES = 8  # numbers that are trained at a time, in so many dimensions or more: the width of `engine.simd`
DENSE_UP_TO = 60  # sizes of finite training sets that are all recorded

_SAMPLED = {"training": ("sgd", "adam")}
_TRAINED = {"training": ("exact_gradient", "sgd", "adam")}
_LINEAR = {"teacher": ("linear",)}
_SHIFTED = {"test_prompts": ("shifted",)}


class LinearAttentionParams(Params):
    """Parameters of one training run."""

    dim: int = param(
        5, ge=1, le=64, symbol="d", unit="coordinates", scale="log", live=(1, 20), help="Dimension of the covariates."
    )
    context_length: int = param(
        20,
        ge=1,
        le=2000,
        symbol="n",
        unit="examples",
        scale="log",
        live=(2, 200),
        help="Labelled examples in a prompt.",
    )
    noise_var: float = param(
        0.25,
        ge=0.0,
        le=100.0,
        symbol=r"\sigma^2",
        live=(0.0, 2.0),
        help="Variance of the noise on every label, that of the query included.",
    )
    training: Literal["exact_gradient", "sgd", "adam", "finite_prompts"] = param(
        "exact_gradient",
        help="Gradient of the population loss; minibatches of fresh prompts; or least squares on a growing set.",
    )
    covariate_spectrum: Literal["isotropic", "power_law", "custom"] = param(
        "isotropic", help="Variances of the covariates: all 1, falling as a power of the index, or those listed."
    )
    power_law_exponent: float = param(
        1.0,
        ge=0.0,
        le=3.0,
        live=(0.0, 2.0),
        only_if={"covariate_spectrum": ("power_law",)},
        help="Covariate i has variance i to the power of minus this.",
    )
    spectrum: tuple[float, ...] = param(
        (4.0, 2.0, 1.0, 0.5, 0.25),
        ge=1e-4,
        le=1e4,
        symbol=r"\lambda",
        only_if={"covariate_spectrum": ("custom",)},
        help="Variances of the covariates, dim of them, or one for all.",
    )
    covariates: Literal["gaussian", "rademacher", "uniform", "student_t"] = param(
        "gaussian",
        only_if=_SAMPLED,
        help="Law of the covariates' independent coordinates, scaled to their variances.",
    )
    degrees_of_freedom: float = param(
        8.0,
        ge=5.0,
        le=1000.0,
        scale="log",
        live=(5.0, 100.0),
        only_if={"covariates": ("student_t",)},
        help="Degrees of freedom of Student covariates; fewer have heavier tails.",
    )
    teacher: Literal["linear", "cubic", "relu", "sign", "tanh", "hermite3", "network"] = param(
        "linear",
        only_if=_SAMPLED,
        help="What the labels are a function of: w.x, a function of it with w on the unit sphere, or a ReLU network.",
    )
    teacher_width: int = param(
        16,
        ge=1,
        le=256,
        symbol="m",
        unit="neurons",
        scale="log",
        live=(1, 64),
        only_if={"teacher": ("network",)},
        help="Hidden neurons of the network that labels.",
    )
    task_prior: Literal["identity", "inverse_covariance"] = param(
        "identity",
        help="Covariance of the task vector: the same in all directions, or the inverse of that of the covariates.",
    )
    task_var: float = param(
        1.0,
        ge=1e-4,
        le=1e4,
        symbol=r"\tau^2",
        scale="log",
        live=(0.1, 10.0),
        help="Factor of the covariance of the task vector.",
    )
    prior_mean: float = param(
        0.0,
        ge=0.0,
        le=100.0,
        symbol="|w_0|",
        live=(0.0, 4.0),
        only_if={**_LINEAR, **_SAMPLED},
        help="Length of the mean of the task vector, which lies along the first coordinate.",
    )
    model: Literal["full", "reduced", "separate_key_query", "literal"] = param(
        "full",
        only_if=_TRAINED,
        help="What is trained: all blocks that matter; the two useful ones; a diagonal key times query beside the "
        "output; or the four matrices of the layer.",
    )
    layers: int = param(
        1,
        ge=1,
        le=4,
        symbol="k",
        unit="layers",
        live=(1, 4),
        only_if={"model": ("reduced",), **_SAMPLED},
        help="Layers stacked on each other; from two on each has one matrix.",
    )
    skip: bool = param(
        False, only_if={"model": ("full",), **_TRAINED}, help="Train the direct connection from the query as well."
    )
    attention: Literal["sum", "mean"] = param(
        "sum", only_if=_TRAINED, help="Whether attention sums over the examples or averages them."
    )
    batch: int = param(
        512,
        ge=1,
        le=100_000,
        symbol="B",
        unit="prompts",
        scale="log",
        live=(16, 4096),
        only_if=_SAMPLED,
        help="Fresh prompts of every update.",
    )
    n_prompts: int = param(
        400,
        ge=1,
        le=20_000,
        symbol="N",
        unit="prompts",
        scale="log",
        live=(5, 4000),
        only_if={"training": ("finite_prompts",)},
        help="Prompts of the training set in the end; the recorded steps are its size as it grows.",
    )
    learning_rate: float = param(
        1e-4,
        ge=1e-12,
        le=10.0,
        scale="log",
        live=(1e-6, 0.05),
        only_if=_TRAINED,
        help="Step size of every update; with adam that of the first, from where it falls to zero as a cosine.",
    )
    steps: int = param(
        20_000,
        ge=1,
        le=100_000_000,
        unit="steps",
        scale="log",
        live=(500, 50_000),
        only_if=_TRAINED,
        help="Number of updates.",
    )
    init: Literal["normal", "balanced"] = param(
        "normal",
        only_if=_TRAINED,
        help="normal: independent normal entries; balanced: a multiple of the identity, the other blocks zero.",
    )
    init_scale: float = param(
        1e-3,
        ge=0.0,
        le=100.0,
        scale="log",
        live=(1e-4, 1.0),
        only_if=_TRAINED,
        help="Size of the entries at the start.",
    )
    harmful_init: float = param(
        1.0,
        ge=0.0,
        le=100.0,
        live=(0.0, 2.0),
        only_if={"model": ("full",), "init": ("normal",), **_TRAINED},
        help="Start of the blocks u, b and h against that of the useful ones, c and A.",
    )
    test_prompts: Literal["as_trained", "shifted"] = param(
        "as_trained",
        help="Prompts of the test: as in training, or as the three fields below say.",
    )
    test_context_length: int = param(
        40,
        ge=1,
        le=2000,
        symbol="n'",
        unit="examples",
        scale="log",
        live=(2, 200),
        only_if=_SHIFTED,
        help="Labelled examples in a test prompt.",
    )
    test_spectrum: tuple[float, ...] = param(
        (1.0,),
        ge=1e-4,
        le=1e4,
        symbol=r"\lambda'",
        only_if=_SHIFTED,
        help="Variances of the covariates of test prompts, dim of them, or one for all.",
    )
    test_noise_var: float = param(
        0.25, ge=0.0, le=100.0, symbol=r"\sigma'^2", live=(0.0, 2.0), only_if=_SHIFTED, help="Noise of test labels."
    )
    n_test: int = param(
        50_000,
        ge=100,
        le=2_000_000,
        unit="prompts",
        scale="log",
        live=(1000, 500_000),
        help="Fresh prompts that the trained layer is tested on.",
    )

    def rules(self) -> Iterator[Problem]:
        for name in ("spectrum", "test_spectrum"):
            values = getattr(self, name)
            if self.is_active(name) and len(values) not in (1, self.dim):
                allowed = f"it must be one variance for all coordinates, or dim = {self.dim} of them, not {len(values)}"
                yield Problem(name, ",".join(f"{v:g}" for v in values), allowed, f"List {self.dim}, or change dim.")
        if self.is_active("init_scale") and self.init_scale == 0:
            allowed = "a start of exactly zero is a saddle, from which nothing ever moves"
            yield Problem("init_scale", 0, allowed, "Set init_scale to 1e-3, say.")
        if self.stacked and self.init == "balanced":
            allowed = "layers that start alike stay alike for ever"
            yield Problem("init", "balanced", allowed, "Set init to normal, or layers to 1.")
        if self.teacher != "linear":
            allowed = "the tasks of a nonlinear teacher are unit vectors in all directions alike"
            for name in ("task_prior", "task_var"):
                field, value = self.fields()[name], getattr(self, name)
                if value != field.default:
                    yield Problem(name, value, allowed, f"Set {name} to {field.default}, or teacher to linear.")
        if self.training == "finite_prompts" and self.dim > MOST_UNKNOWNS:
            allowed = f"a finite training set determines dim^2 numbers, and dim is at most {MOST_UNKNOWNS} here"
            yield Problem("dim", self.dim, allowed, f"Set dim to {MOST_UNKNOWNS} or less, or training to adam.")

    @property
    def stacked(self) -> bool:
        """Whether there are several layers, of one matrix each."""
        return self.is_active("layers") and self.layers > 1

    @property
    def commuting(self) -> bool:
        """Whether the exact gradient starts with a diagonal A and no other block, and so keeps it diagonal."""
        return self.training == "exact_gradient" and self.init == "balanced" and self.model != "literal"

    @property
    def in_lanes(self) -> bool:
        """Whether the exact gradient trains a whole layer in so many dimensions that its rows fill lanes."""
        whole = self.training == "exact_gradient" and self.model == "full" and not self.commuting
        return whole and self.dim >= LANES

    @property
    def moments_known(self) -> bool:
        """Whether the prompts are Gaussian with linear labels, so that they need not be drawn one example at a time."""
        return self.teacher == "linear" and self.covariates == "gaussian"

    @property
    def population(self) -> bool:
        """Whether the recorded loss is that of the whole population, by its closed form."""
        return self.moments_known and self.prior_mean == 0 and not self.stacked

    @property
    def has_even_blocks(self) -> bool:
        """Whether the blocks u, b and h are trained."""
        return self.is_active("model") and self.model in ("full", "literal")

    @property
    def law(self) -> Law:
        """The prompts of training."""
        if self.covariate_spectrum == "isotropic":
            spectrum = (1.0,) * self.dim
        elif self.covariate_spectrum == "power_law":
            spectrum = tuple((i + 1.0) ** -self.power_law_exponent for i in range(self.dim))
        else:
            spectrum = self._whole(self.spectrum)
        if self.task_prior == "identity":
            task = (self.task_var,) * self.dim
        else:
            task = tuple(self.task_var / v for v in spectrum)
        return Law(self.context_length, spectrum, task, self.noise_var)

    @property
    def test_law(self) -> Law:
        """The prompts of the test; task vectors are those of training."""
        if self.test_prompts == "as_trained":
            return self.law
        return Law(self.test_context_length, self._whole(self.test_spectrum), self.law.task, self.test_noise_var)

    def _whole(self, values: tuple[float, ...]) -> tuple[float, ...]:
        return values * self.dim if len(values) == 1 else values

    @property
    def attention_scale(self) -> float:
        """Factor of the sum over examples in training."""
        return 1.0 / self.context_length if self.attention == "mean" else 1.0

    @property
    def test_factor(self) -> float:
        """By what the effective matrix on X^T y changes at the context length of the test."""
        return self.context_length / self.test_law.n if self.attention == "mean" else 1.0


class Law(NamedTuple):
    """What prompts are drawn from: context length, diagonals of the covariances of x and of w, noise variance."""

    n: int
    spectrum: tuple[float, ...]
    task: tuple[float, ...]
    noise_var: float


def recorded_steps(params: LinearAttentionParams) -> NDArray[np.int64]:
    """Evenly on a linear and on a log axis; for a growing training set every small size, and all near dim^2.

    Where the loss is that of batches it is recorded rarely, so that each record is the mean of many.
    """
    import numpy as np

    if params.training != "finite_prompts":
        return spread_steps(params.steps, *((180, 200) if params.population else (50, 25)))
    most, square = params.n_prompts, params.dim**2
    sizes = {*range(DENSE_UP_TO + 1), *range(square - 8, square + 9), most}
    sizes |= {round(x) for x in np.geomspace(1, most, 150)}
    return np.array(sorted(size for size in sizes if 0 <= size <= most), dtype=np.int64)


def simulate(params: LinearAttentionParams, replicate: int, monitor: Monitor) -> Replicate:
    import numpy as np

    from . import training

    step = recorded_steps(params)
    frame_step = thin(step) if replicate == params.first_replicate else step[:0]
    size = min(params.dim, FRAME_SIZE)
    frames = np.full((len(frame_step), size, size), np.nan)
    diagonal = np.full((len(step), min(params.dim, DIAGONAL)), np.nan)
    found = training.train(params, replicate, step, frame_step, diagonal, frames, monitor)
    tested = training.test(params, replicate, found, monitor)
    return ended(params, found, tested, diagonal, frame_step, frames)


def ended(
    params: LinearAttentionParams,
    found: Trained,
    tested: Mapping[str, float],
    diagonal: NDArray[np.float64],
    frame_step: NDArray[np.int64],
    frames: NDArray[np.float64],
) -> Replicate:
    """A replicate from the layer that it ended with and its test; diagonal and frames as recorded on the way."""
    from .training import why_diverged

    stopped = None
    if found.stop_step >= 0:
        stopped = Stop(found.stop_step, why_diverged(params))
    return Replicate(
        finals={
            "preconditioner": found.Q,
            "diagonal": diagonal,
            "start": found.start,
            "layer_steps": found.layer_steps,
            **tested,
        },
        frame_step=frame_step,
        frames={"preconditioner": frames},
        stopped=stopped,
    )


def predict(params: LinearAttentionParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def predict_ends(points: Sequence[LinearAttentionParams]) -> list[Prediction]:
    from . import prediction

    return prediction.predict_ends(points)


def derive(params: LinearAttentionParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace)


def counts(params: LinearAttentionParams) -> dict[str, float]:
    """Units of each probe in one replicate: see `probes`."""
    d, n, found = float(params.dim), params.context_length, dict.fromkeys(_PROBES, 0.0)
    tested_n = params.test_law.n
    recorded = len(recorded_steps(params))
    literal = d**3 + 10.0 * d * d if params.model == "literal" else 0.0
    if params.training == "exact_gradient":
        if params.in_lanes:
            found["lanes"] = params.steps * (d * math.ceil(d / LANES) + 4.0)
        elif params.commuting:
            found["exact"] = params.steps * (4.0 * d + 10)
        elif params.has_even_blocks:
            found["exact"] = params.steps * (6.0 * d * d + 20 * d + 40 + literal)
        else:
            found["exact"] = params.steps * (2.0 * d * d + 20 * d + 60)
    elif params.training == "finite_prompts":
        rows = d * d + params.n_prompts / recorded
        found["least_squares"] = recorded * (rows * d**4 + 20.0 * d**6 + 3e4) + params.n_prompts * d**4
        found["useful"] = 10.0 * params.n_prompts * (5.0 * d + 20)
    else:
        kind, unit = _draws(params, n, params.has_even_blocks)
        found[kind] += (params.steps + 1.0) * params.batch * unit
        found["exact"] += params.steps * (6.0 * d * d + literal + 100)
    kind, unit = _draws(params, tested_n, params.has_even_blocks and not params.population)
    found[kind] += params.n_test * unit
    return found


def _draws(params: LinearAttentionParams, n: int, even: bool) -> tuple[str, float]:
    """Which probe measures a prompt, and its units."""
    d = float(params.dim)
    layers = params.layers * 5.0 * d * d if params.stacked else 0.0
    if not params.moments_known:
        width = params.teacher_width if params.teacher == "network" else 1
        gram = (n + 1.0) * d * d if params.stacked else 0.0
        tails = 12.0 if params.covariates == "student_t" else 0.0
        return "explicit", 2.0 * (
            (n + 1.0) * (d * (3.7 + tails + 0.3 * width) + 5.0) + width * d + 2.0 * d * d + gram + layers
        )
    if params.stacked:
        return "stack", 10.0 * (d**3 / 3.0 + layers + 20.0 * d)
    if even:
        return "all_blocks", 10.0 * (10.0 * d + 60.0 + d * d / 2.0)
    return "useful", 10.0 * (5.0 * d + 20.0 + d * d / 20.0)


def work(params: LinearAttentionParams) -> Work:
    d, recorded = params.dim, len(recorded_steps(params))
    numbers = 20.0 * d * d + recorded * (len(LAB.series) + min(d, DIAGONAL))
    if params.is_active("batch"):
        numbers += 3.0 * params.batch * d
    if params.training == "finite_prompts":
        numbers += 3.0 * params.n_prompts * d + 4.0 * d**4
    flows, law = 0.0, params.law
    isotropic = len({*law.spectrum}) == len({*law.task}) == 1
    logistic = isotropic and params.model != "separate_key_query"
    if params.training == "exact_gradient" and params.model != "literal" and not logistic:
        flows = float(1 if params.init == "balanced" else min(params.replicates, MOST_FLOWS))
    return Work(
        per_replicate={**counts(params), "replicate": 1.0},
        once={"flow": flows * (1.0 + d / 10.0), "bayes": 1.0},
        bytes=8.0 * (params.replicates * numbers + recorded * min(d, FRAME_SIZE) ** 2 + 3e6),
        ends={"flow": flows * (1.0 + d / 10.0), "bayes": 0.2 if isotropic else 1.0},
    )


_PROBES = ("exact", "lanes", "useful", "all_blocks", "explicit", "stack", "least_squares")
MOST_FLOWS = 4  # starts from which a flow is integrated for the chalk line of the loss


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each way to train and to test, for the fixed costs, and for the two slow parts of the theory."""
    import numpy as np

    def run(name: str, **values: object) -> Callable[[], float]:
        from ..engine import RunMonitor

        params = LinearAttentionParams.make(replicates=1, **values)

        def probe() -> float:
            simulate(params, 1, RunMonitor.allocate(LAB, params).of(0))
            return counts(params)[name]

        return probe

    def flow() -> float:
        from theory.linear_attention_flow import merged_flow

        lam = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
        merged_flow(np.linspace(0.0, 1.0, 300), lam, np.ones(5), 20, 0.25, np.full(5, 1e-3), 2e-3, timed=False)
        return 1.5

    def bayes() -> float:
        from theory.ridge import bayes_isotropic

        bayes_isotropic(5, 20, 0.25, 20_000, np.random.default_rng(0))
        return 1.0

    few = {"n_test": 100}
    sampled = {"training": "adam", "batch": 256, "steps": 40, **few}
    return {
        "exact": run("exact", steps=20_000, **few),
        "lanes": run("lanes", dim=12, steps=10_000, **few),
        "useful": run("useful", model="reduced", **sampled),
        "all_blocks": run("all_blocks", **sampled),
        "explicit": run("explicit", model="reduced", covariates="rademacher", **sampled),
        "stack": run("stack", model="reduced", layers=2, **sampled),
        "least_squares": run("least_squares", training="finite_prompts", n_prompts=100, **few),
        "replicate": _one_replicate,
        "flow": flow,
        "bayes": bayes,
    }


def _one_replicate() -> float:
    from ..engine import RunMonitor

    params = LinearAttentionParams.make(steps=1, n_test=100, replicates=1)
    simulate(params, 1, RunMonitor.allocate(LAB, params).of(0))
    return 1.0


_SPREAD: Mapping[str, object] = {"covariate_spectrum": "custom"}
_ADAM: Mapping[str, object] = {"training": "adam", "model": "reduced", "learning_rate": 0.02, "init_scale": 0.02}

PRESETS = (
    Preset(
        id="one_step",
        title="One step of gradient descent",
        notice="The loss waits on a plateau, drops at once, and lands on the line that no layer can cross; the matrix "
        "becomes a multiple of the identity.",
        label="one layer",
    ),
    Preset(
        id="matrices_matter",
        title="Matrices matter",
        notice="With covariates of unequal variance the layer learns a preconditioner: the damped inverse of the "
        "covariance, or the inverse itself if the tasks are its match.",
        label="same tasks in all directions",
        params={**_SPREAD, "learning_rate": 2.5e-5, "steps": 27_000, "harmful_init": 0.01},  # type: ignore[dict-item]
        beside={
            "tasks of inverse covariance": {
                "task_prior": "inverse_covariance",
                "learning_rate": 4e-5,
                "steps": 8000,
            }
        },
    ),
    Preset(
        id="wrong_turn",
        title="A wrong turn",
        notice="The same layer started with all blocks alike: about four runs in ten end above the line, in a local "
        "minimum that the theorem about global ones does not forbid.",
        label="all blocks alike",
        params={**_SPREAD, "learning_rate": 2.6e-5, "steps": 40_000, "replicates": 16},  # type: ignore[dict-item]
        expect={
            "lands_on_the_optimum": "outside",
            "learns_the_preconditioner": "outside",
            "even_part_dies": "outside",
            "test_agrees": "outside",
            "wins_from_any_start": "fails",
        },
    ),
    Preset(
        id="nonlinear_teachers",
        title="Nonlinear teachers",
        notice="Whatever function gives the labels, the layer still takes one plain step; how low the loss gets says "
        "how linear the function is.",
        label="ReLU",
        params={
            **_ADAM,
            "teacher": "relu",
            "noise_var": 0.1,
            "batch": 128,
            "steps": 500,
            "replicates": 4,
            "n_test": 90_000,
        },  # type: ignore[dict-item]
        beside={
            "network of 16 ReLUs": {"teacher": "network"},
            "sign": {"teacher": "sign"},
            "tanh": {"teacher": "tanh"},
            "cubic": {"teacher": "cubic"},
            "cubic Hermite polynomial": {"teacher": "hermite3"},
        },
    ),
    Preset(
        id="longer_prompts",
        title="Longer prompts than trained",
        notice="On prompts of four times the length attention that sums overshoots and explodes; attention that "
        "averages improves, and stops above what ridge regression reaches.",
        label="sum",
        params={"test_prompts": "shifted", "test_context_length": 80},
        beside={"mean": {"attention": "mean", "learning_rate": 0.002}},
        expect={"as_good_as_retrained": "fails"},
    ),
    Preset(
        id="staircase",
        title="A staircase",
        notice="With separate keys and queries the directions are learnt one after the other, a plateau each; merged "
        "they are learnt in one drop.",
        label="separate key and query",
        params={
            **_SPREAD,  # type: ignore[dict-item]
            "model": "separate_key_query",
            "init": "balanced",
            "init_scale": 0.01,
            "learning_rate": 1e-4,
            "steps": 40_000,
            "replicates": 1,
        },
        beside={"merged": {"model": "reduced", "init_scale": 0.001}},
    ),
    Preset(
        id="more_layers",
        title="More layers",
        notice="Two layers make two steps, three make three, and each lands on a line of its own, closer to ridge.",
        label="two layers",
        params={**_ADAM, "layers": 2, "init_scale": 0.01, "batch": 256, "steps": 1500, "replicates": 1},  # type: ignore[dict-item]
        beside={"one layer": {"layers": 1}, "three layers": {"layers": 3}},
    ),
    Preset(
        id="too_few_prompts",
        title="Too few prompts",
        notice="Trained to the end on a finite set of prompts the layer is at its worst where the set is as large as "
        "the matrix: double descent, with its peak at dim^2 prompts.",
        label="least squares on the set",
        params={"training": "finite_prompts", "n_prompts": 4000, "replicates": 16},
    ),
    Preset(
        id="other_covariates",
        title="Covariates with other tails",
        notice="Signs instead of normals as covariates: the step is larger than the Gaussian formula says, and the "
        "kurtosis accounts for it.",
        label="Rademacher",
        params={**_ADAM, "covariates": "rademacher", "batch": 128, "steps": 800, "replicates": 2},  # type: ignore[dict-item]
        beside={"Student t": {"covariates": "student_t"}, "uniform": {"covariates": "uniform"}},
        expect={"gaussian_step_anyway": "fails"},
    ),
    Preset(
        id="tasks_with_a_mean",
        title="Tasks with a mean",
        notice="Where tasks scatter about a known vector the useful blocks alone cannot use it; with the direct "
        "connection the layer starts its step from there.",
        label="useful blocks",
        params={**_ADAM, "prior_mean": 2.0, "batch": 256, "steps": 1000, "replicates": 2},  # type: ignore[dict-item]
        beside={"with the direct connection": {"model": "full", "skip": True}},
        expect={"zero_is_a_good_start": "fails"},
    ),
    Preset(
        id="over_the_edge",
        title="Over the edge",
        notice="Five percent above the largest stable step the loss never settles: it jumps between two values for "
        "ever.",
        label="5 % over the edge",
        params={
            "model": "reduced",
            "init": "balanced",
            "init_scale": 0.01,
            "learning_rate": 0.01174,
            "steps": 400,
            "replicates": 1,
        },
        beside={"5 % below": {"learning_rate": 0.01062}},
        expect={"lands_at_any_rate": "fails"},
    ),
)

LAB = Lab(
    id="linear_attention",
    version=1,
    title="Linear attention",
    sentence="Trained on prompts of linear regression, one layer of linear attention becomes one step of "
    "preconditioned gradient descent, and nothing that one layer can do is better.",
    theme="in-context learning",
    paper=Paper(
        title="One Step of Gradient Descent is Provably the Optimal In-Context Learner with One Layer of Linear "
        "Self-Attention",
        authors="Arvind Mahankali, Tatsunori B. Hashimoto, Tengyu Ma",
        venue="ICLR",
        year=2024,
        arxiv="2307.03576",
        bibtex="""@inproceedings{mahankali2024one,
  title     = {One Step of Gradient Descent is Provably the Optimal In-Context Learner with One Layer of Linear
               Self-Attention},
  author    = {Mahankali, Arvind and Hashimoto, Tatsunori B. and Ma, Tengyu},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
}""",
    ),
    params=LinearAttentionParams,
    streams=STREAMS,
    series={
        "loss": Quantity("loss", "L"),
        "even_loss": Quantity("even part of the loss", r"L_{\mathrm{even}}", scale="log"),
        "step_size": Quantity("step size", r"\mathrm{tr}\,Q/d"),
        "u_norm": Quantity("harmful block u", "|u|", scale="log"),
        "b_norm": Quantity("harmful block b", "|b|", scale="log"),
    },
    metrics={
        "test_loss": Quantity("loss on test prompts"),
        "test_loss_se": Quantity("standard error of the test loss"),
        "regressed_step_size": Quantity("best plain step on the test prompts"),
        "regressed_step_size_se": Quantity("standard error of the best plain step"),
        "excess_loss": Quantity("loss above the optimum", r"L - L^*", scale="log"),
        "preconditioner_error": Quantity("distance from the optimal matrix", r"|Q-Q^*|/|Q^*|", scale="log"),
        "half_time": Quantity("time of the drop", "t"),
        "half_time_ratio": Quantity("time of the drop over its prediction"),
        "optimal_loss": Quantity("least loss of the layer", "L^*"),
        "optimal_step_size": Quantity("optimal step size", r"\eta^*"),
        "optimal_preconditioner": Quantity("size of the optimal matrix", "|Q^*|"),
        "bayes_loss": Quantity("Bayes loss (ridge regression)"),
        "learning_rate_bound": Quantity("largest stable learning rate"),
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
    changes=(Change(1, "first version"),),
)
