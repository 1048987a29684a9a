"""XOR clusters: one gradient step memorises every label, flipped ones included; understanding follows.

A two-layer ReLU network on four Gaussian clusters whose labels no linear function can tell apart, after Xu, Wang,
Frei, Vardi & Hu 2024.
"""

from __future__ import annotations

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
    stream_table,
    thin,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from . import gram

STREAMS = stream_table(
    "cluster",  # iid labels: cluster of each training point
    "flip",  # iid labels: whether its label is flipped
    "signal",  # noise of the training points along the two means
    "noise",  # their other normal coordinates
    "radius",  # chi-square diagonal of their triangle
    "output_sign",  # iid output signs
    "init",  # the network's start
    "test",  # noise of the test points
    "start_noise",  # the start outside the span of the training points: its triangle below the diagonal
    "start_radius",  # and on it
    "test_rest",  # noise of the test points along the directions of that triangle
)
CLUSTERS = ("plus_mu1", "minus_mu1", "plus_mu2", "minus_mu2")
DIRECT_NUMBERS = 20_000_000  # most entries of a training matrix that is formed in R^p
SATURATED = 0.05  # of twice the largest pull after one step
FRAME_NEURONS = 400
MAP_POINTS, MAP_EXTENT = 21, 2.0  # of the decision map: points a side, and half its side in units of mu
_MANTISSAS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.3, 8.0)


class XorGrokkingParams(Params):
    """Parameters of one training run."""

    n_train: int = param(
        200, ge=8, le=1000, symbol="n", unit="samples", scale="log", live=(20, 400), help="Number of training samples."
    )
    dim: int = param(
        30_000,
        ge=3,
        le=10**15,
        symbol="p",
        unit="coordinates",
        scale="log",
        live=(1000, 10**9),
        help="Input dimension; what is sampled does not grow with it.",
    )
    width: int = param(
        100, ge=2, le=20_000, symbol="m", unit="neurons", scale="log", live=(10, 400), help="Number of hidden neurons."
    )
    signal: float = param(
        4.0, ge=0.0, le=100.0, symbol=r"\mu^2/\sqrt{p}", live=(0.0, 10.0), help="Strength of the signal."
    )
    label_flip_prob: float = param(
        0.1,
        ge=0.0,
        le=0.45,
        symbol=r"\eta",
        live=(0.0, 0.4),
        help="Share of flipped training labels; stratified, the nearest whole number of flips in each cluster.",
    )
    first_step_margin: float = param(
        0.05,
        ge=1e-6,
        le=10.0,
        symbol=r"\alpha p/8n",
        scale="log",
        live=(0.005, 10.0),
        help="Step size, as the margin of the training points after the first step.",
    )
    init_ratio: float = param(
        1e-6,
        ge=1e-12,
        le=100.0,
        symbol="R",
        scale="log",
        live=(1e-6, 100.0),
        help="Size of the start against that of the first step; a start of exactly 0 would never move.",
    )
    label_sampler: Literal["stratified", "iid"] = param(
        "stratified", help="stratified: equal clusters with equal flips; iid: both at random, as in the paper."
    )
    data_mode: Literal["sampled", "direct"] = param(
        "sampled", help="sampled: inner products drawn exactly in law; direct: formed from points in all dimensions."
    )
    output_signs: Literal["balanced", "iid"] = param(
        "balanced", help="Signs of the output weights: half and half, or at random."
    )
    steps: int = param(
        200,
        ge=1,
        le=100_000,
        symbol="t",
        unit="steps",
        scale="log",
        live=(20, 1000),
        help="Number of full-batch updates.",
    )
    n_test: int = param(
        2000, ge=4, le=20_000, unit="samples", scale="log", live=(400, 4000), help="Number of fresh test points."
    )

    def rules(self) -> Iterator[Problem]:
        n, p = self.n_train, self.dim
        if self.label_sampler == "stratified" and n % 4:
            allowed = "four equal clusters need a multiple of 4"
            yield Problem("n_train", n, allowed, f"Set n_train to {max(8, 4 * round(n / 4))}, or label_sampler to iid.")
        if self.n_test % 4:
            allowed = "the four clusters are tested equally, on a multiple of 4"
            yield Problem("n_test", self.n_test, allowed, f"Set n_test to {4 * (self.n_test // 4 + 1)}.")
        if self.output_signs == "balanced" and self.width % 2:
            allowed = "balanced signs need an even number of neurons"
            yield Problem("width", self.width, allowed, f"Set width to {self.width + 1}, or output_signs to iid.")
        if self.data_mode == "direct" and n * p > DIRECT_NUMBERS:
            allowed = f"direct mode forms n_train times dim numbers, at most {DIRECT_NUMBERS}"
            yield Problem("dim", p, allowed, f"Set data_mode to sampled, or dim to {DIRECT_NUMBERS // n} or less.")
        if self.data_mode == "sampled" and p < n + 2:
            allowed = "sampled mode needs two dimensions and one more for each training sample"
            yield Problem("dim", p, allowed, f"Set data_mode to direct, or dim to {n + 2} or more.")

    @property
    def mu(self) -> float:
        """Norm of the means."""
        return math.sqrt(self.signal * math.sqrt(self.dim))

    @property
    def learning_rate(self) -> float:
        """alpha."""
        return 8.0 * self.n_train * self.first_step_margin / self.dim

    @property
    def init_std(self) -> float:
        """omega, standard deviation of every weight of the start."""
        return 4.0 * self.init_ratio * self.first_step_margin / math.sqrt(self.width * self.dim)

    @property
    def flips_per_cluster(self) -> int:
        """Flipped labels in each stratified cluster; 0 with iid labels, where it is random."""
        return round(self.label_flip_prob * self.n_train / 4) if self.label_sampler == "stratified" else 0

    @property
    def label_noise(self) -> float:
        """Share of flipped labels: as realised if stratified, else as expected."""
        if self.label_sampler == "stratified":
            return 4.0 * self.flips_per_cluster / self.n_train
        return self.label_flip_prob


def recorded_steps(params: XorGrokkingParams) -> NDArray[np.int64]:
    """Every step up to ten, then ten a decade: with 1, 2, 5, 10, 20, 50, ... and 300 among them."""
    import numpy as np

    decades = range(1, len(str(params.steps)))
    later = [round(mantissa * 10**k) for k in decades for mantissa in _MANTISSAS]
    return np.array(sorted({t for t in [*range(11), *later, params.steps] if t <= params.steps}), dtype=np.int64)


def map_grid(mu: float) -> NDArray[np.float64]:
    """(MAP_POINTS,) places of the decision map along either mean, to the last bit symmetric about 0."""
    import numpy as np

    half = mu * np.linspace(0.0, MAP_EXTENT, MAP_POINTS // 2 + 1)
    return np.concatenate([-half[:0:-1], half])


def simulate(params: XorGrokkingParams, replicate: int, monitor: Monitor) -> Replicate:
    import numpy as np

    from . import gram, kernels

    found = gram.by_label(gram.problem(params, replicate, monitor.cancel))
    points = found.points
    flipped = points.label != points.clean
    step = recorded_steps(params)
    # Frames are kept of the first replicate only, and so drawn for no other.
    frame_step = thin(step) if replicate == params.first_replicate else step[:0]
    shown = min(params.width, FRAME_NEURONS)
    neurons = np.empty((len(frame_step), shown, 2))
    maps = np.empty((len(frame_step), MAP_POINTS, MAP_POINTS))
    grid = map_grid(params.mu)
    _, largest = kernels.simulate(
        found.output,
        points.label,
        flipped,
        points.gram,
        points.factor,
        found.start,
        np.zeros_like(found.start),
        found.cross,
        found.test_start,
        found.quadrant,
        points.plane,
        found.start_plane,
        found.start_norm_sq,
        params.learning_rate / params.n_train,
        params.mu,
        params.steps,
        step,
        frame_step,
        neurons,
        grid,
        maps,
        *monitor,
    )
    return ended(params, found, largest, frame_step, neurons, maps)


def ended(
    params: XorGrokkingParams,
    found: gram.Problem,
    largest: float,
    frame_step: NDArray[np.int64],
    neurons: NDArray[np.float64],
    maps: NDArray[np.float64],
) -> Replicate:
    """A replicate from what it was trained on, the largest pull after one step, and its frames."""
    import numpy as np

    from . import kernels

    points = found.points
    along = points.label @ points.plane
    return Replicate(
        finals={
            "flip_fraction": float(np.mean(points.label != points.clean)),
            "counts": points.counts,
            "linear_offsets": params.mu * along / np.sqrt(points.label @ points.gram @ points.label),
            "neuron_signs": np.sign(found.output[: min(params.width, FRAME_NEURONS)]),
            "largest_pull_step_one": largest,
            "saturated": float(2.0 * largest < SATURATED),
            "dead_sign": float(kernels.dead_sign(found.output, found.start)),
        },
        frame_step=frame_step,
        frames={"neurons": neurons, "decision_map": maps},
    )


def predict(params: XorGrokkingParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def predict_ends(points: Sequence[XorGrokkingParams]) -> list[Prediction]:
    from . import prediction

    return prediction.predict_ends(points)


def derive(params: XorGrokkingParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace)


def flops(params: XorGrokkingParams) -> dict[str, float]:
    """Multiplications and additions of one replicate by part; only `draw` and only in direct mode knows dim."""
    n, m, n_test = params.n_train, params.width, params.n_test
    direct = params.data_mode == "direct"
    rank = float(params.dim if direct else 2 + n)
    rest = 0.0 if direct else float(min(m, params.dim - 2 - n))
    thin_factor = direct and 2 * params.dim < n
    return {
        "train": params.steps * (4.0 * m * n * rank if thin_factor else 2.0 * m * n * n),
        "neuron": params.steps * 1.0 * m * n,
        "test": len(recorded_steps(params)) * 2.0 * m * n * n_test,
        "product": 2.0 * rank * (n * n + m * n + n_test * (n + m)) + 2.0 * m * rest * n_test,
        "draw": rank * (n_test + m + (n if direct else n / 2.0)) + rest * (m / 2.0 + n_test),
    }


def work(params: XorGrokkingParams) -> Work:
    n, m, n_test = params.n_train, params.width, params.n_test
    count = flops(params)
    recorded = len(recorded_steps(params))
    columns = float(min(4096, params.dim) if params.data_mode == "direct" else 2 + n)
    # A step multiplies half of the columns and adds strays; a test output is in float32.
    trained = count["train"] * (1.0 if params.data_mode == "direct" else 0.65)
    numbers = 3.0 * m * n + 4.0 * n * n + (2.0 * m + n + 4.0) * n_test + (n + m + n_test) * columns
    return Work(
        per_replicate={
            "product": trained + 0.6 * count["test"] + count["product"],
            "neuron": count["neuron"] + recorded * (2.0 * m * n_test + 4.0 * m * n),
            "draw": count["draw"],
            "replicate": 1.0,
        },
        once={
            "map": 1.0 * recorded * m * MAP_POINTS**2,
            "product": 2.0 * params.replicates * n**3,
            "replicate": 1.0 * params.replicates,
            # The limit of aligned neurons, where the prediction speaks of it.
            "strong_signal": float(params.label_sampler == "stratified" and params.signal > 0),
        },
        ends={
            "draw": 1.0 * params.replicates * n * (params.dim if params.data_mode == "direct" else n),
            "strong_signal": 1.0,
        },
        bytes=8.0
        * (
            min(params.replicates, 8) * (numbers + 2.0 * n * n)
            + params.replicates * len(LAB.series) * recorded
            + recorded * (2.0 * min(m, FRAME_NEURONS) + MAP_POINTS**2)
            + 4e6
        ),
    )


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each kind of work: matrix products, loops over neurons, normals, maps, fixed costs."""
    import numpy as np

    from ..engine import RunMonitor
    from . import kernels

    def product() -> float:
        rng = np.random.Generator(np.random.Philox(0))
        A, K = rng.standard_normal((kernels.NEURONS, 200)), rng.standard_normal((200, 200))
        for _ in range(20):
            A @ K
        return 20 * 2.0 * A.size * 200

    def neuron() -> float:
        H, f = np.full((100, 200), 0.5), np.empty(200)
        a, y, pull = np.full(100, 0.1), np.ones(200), np.empty(200)
        for _ in range(20):
            kernels.outputs(a, H, f)
            kernels.pulls(y, f, pull)
            kernels.norms_sq(H, H, H, a, np.empty(100))
        return 20.0 * H.size

    def draw() -> float:
        return float(np.random.Generator(np.random.Philox(0)).standard_normal(100_000).size)

    def draw_map() -> float:
        weights, values = np.full((100, 2), 0.1), np.empty((MAP_POINTS, MAP_POINTS))
        grid = map_grid(0.5)
        kernels.decision_map(np.full(100, 0.1), weights, np.full(100, 2.0), grid, values)
        return 100.0 * values.size

    def replicate() -> float:
        params = XorGrokkingParams.make(n_train=8, width=2, n_test=4, steps=1, replicates=1)
        simulate(params, 1, RunMonitor.allocate(LAB, params).of(0))
        return 1.0

    def strong_signal() -> float:
        from theory.xor_grokking import strong_signal_error

        strong_signal_error(200, 4.0, 0.1)
        return 1.0

    return {
        "product": product,
        "neuron": neuron,
        "draw": draw,
        "map": draw_map,
        "replicate": replicate,
        "strong_signal": strong_signal,
    }


_HUGE = 10**9

PRESETS = (
    Preset(
        id="textbook",
        title="The textbook run",
        notice="After one step every training label is fitted and the test accuracy is one half; a few steps later the "
        "test points are right as well, and the flipped labels stay fitted.",
        label="signal 4",
    ),
    Preset(
        id="slow_grok",
        title="A slow climb",
        notice="At half the signal understanding takes a hundred steps, and ends near 98 %, not at 100 %.",
        label="signal 2",
        params={"signal": 2.0},
        expect={"groks": "fails"},
    ),
    Preset(
        id="billion_dims",
        title="A billion dimensions",
        notice="The same curves in the same time: only mu^2/sqrt(p) and n matter, not the dimension.",
        label="a billion dimensions",
        params={"dim": _HUGE},
    ),
    Preset(
        id="bad_luck",
        title="Bad luck",
        notice="With few random labels whole clusters stay wrong for ever, and counting the flipped labels says which.",
        label="48 random labels",
        params={
            "label_sampler": "iid",
            "n_train": 48,
            "label_flip_prob": 0.3,
            "dim": _HUGE,
            "signal": 8.0,
            "replicates": 8,
        },
        expect={"groks": "outside", "groks_anyway": "fails"},
    ),
    Preset(
        id="too_quiet",
        title="Too quiet",
        notice="A weak signal is memorised just as fast and hardly ever understood: catastrophic overfitting.",
        label="signal 0.5",
        params={"signal": 0.5},
        expect={"groks": "fails"},
    ),
    Preset(
        id="lazy_init",
        title="A lazy start",
        notice="From a large start the network memorises without moving its features: the test accuracy stays at one "
        "half.",
        label="start of size 10",
        params={"n_train": 160, "dim": 1_000_000, "signal": 2.0, "init_ratio": 10.0},
        expect={
            "memorises_in_one_step": "outside",
            "never_unfits": "outside",
            "linear_after_one_step": "outside",
            "step_one_share": "outside",
            "step_one_share_given_the_points": "outside",
            "groks": "outside",
            "groks_anyway": "fails",
        },
    ),
    Preset(
        id="classical",
        title="Fewer dimensions than samples",
        notice="Here the flipped labels are fitted late, and the test accuracy falls as they are: memorising hurts.",
        label="60 dimensions",
        params={
            "label_sampler": "iid",
            "n_train": 400,
            "dim": 60,
            "data_mode": "direct",
            "steps": 800,
            "n_test": 1000,
            "replicates": 2,
        },
        expect={
            "memorises_in_one_step": "outside",
            "never_unfits": "outside",
            "groks": "outside",
            "groks_anyway": "fails",
            "benign": "fails",
        },
    ),
)

_STEP_ONE = {f"step_one_{name}_accuracy": Quantity(f"accuracy on {name} after one step") for name in CLUSTERS}

LAB = Lab(
    id="xor_grokking",
    version=3,
    title="Grokking on XOR clusters",
    sentence="One gradient step memorises every label, the wrong ones too; a few more steps and the network "
    "understands, without unlearning what it memorised.",
    theme="benign overfitting",
    paper=Paper(
        title="Benign Overfitting and Grokking in ReLU Networks for XOR Cluster Data",
        authors="Zhiwei Xu, Yutong Wang, Spencer Frei, Gal Vardi, Wei Hu",
        venue="ICLR",
        year=2024,
        arxiv="2310.02541",
        bibtex="""@inproceedings{xu2024benign,
  title     = {Benign Overfitting and Grokking in {ReLU} Networks for {XOR} Cluster Data},
  author    = {Xu, Zhiwei and Wang, Yutong and Frei, Spencer and Vardi, Gal and Hu, Wei},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
}""",
    ),
    params=XorGrokkingParams,
    streams=STREAMS,
    series={
        "train_accuracy": Quantity("training accuracy"),
        "test_accuracy": Quantity("test accuracy, clean labels"),
        "flipped_label_accuracy": Quantity("flipped labels fitted"),
        "worst_cluster_accuracy": Quantity("accuracy on the worst cluster"),
        "plus_mu1_accuracy": Quantity("accuracy on the first cluster", r"+\mu_1"),
        "minus_mu1_accuracy": Quantity("accuracy on its mirror image", r"-\mu_1"),
        "plus_mu2_accuracy": Quantity("accuracy on the second cluster", r"+\mu_2"),
        "minus_mu2_accuracy": Quantity("accuracy on its mirror image", r"-\mu_2"),
        "own_alignment": Quantity("alignment with the own mean", r"|\cos|"),
        "cross_alignment": Quantity("alignment with the other mean", r"|\cos|"),
        "train_loss": Quantity("training loss", "L", scale="log"),
    },
    metrics={
        "flip_fraction": Quantity("flipped labels"),
        "largest_pull_step_one": Quantity("largest pull after one step", "g", scale="log"),
        "saturated": Quantity("saturated: the loss dies before features form"),
        "dead_sign": Quantity("all neurons of one sign are dead"),
        "step_one_train_accuracy": Quantity("training accuracy after one step"),
        "step_one_train_conditional": Quantity("the same, predicted from the points drawn"),
        "step_one_test_accuracy": Quantity("test accuracy after one step"),
        **_STEP_ONE,
        "late_test_accuracy": Quantity("late test accuracy"),
        "late_test_error": Quantity("late test error", scale="log"),
        "alignment_plateau": Quantity("late alignment with the own mean", r"|\cos|"),
        "strong_signal_test_accuracy": Quantity("late test accuracy, strong-signal limit"),
        "clusters_right": Quantity("share of clusters that end right"),
        "rule_agreement": Quantity("clusters that end as the counting rule says"),
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
        Change(2, "larger blocks of neurons in products with many points", dict),
        Change(3, "products with the points of a neuron's own label, the others added one by one", dict),
    ),
)
