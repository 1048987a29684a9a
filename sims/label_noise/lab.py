"""Label noise: the shape of the gradient noise decides which interpolating solution is found.

Quadratically parametrised regression, `beta = v*v` (or, signed, `u*u - w*w`), after HaoChen, Wei, Lee & Ma 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
    generator,
    param,
    spread_steps,
    stream_table,
    thin,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOISY = ("gd_label_noise", "sgd_label_noise", "minibatch_noise", "gaussian_noise")
BATCH_ONE = ("sgd_label_noise", "sgd")
_DRAWN = {"covariates": ("gaussian", "rademacher")}
_NOISY = {"algorithm": NOISY}
FRAME_COORDINATES = 200


class LabelNoiseParams(Params):
    """Parameters of one training run."""

    algorithm: Literal["gd", "gd_label_noise", "sgd_label_noise", "minibatch_noise", "sgd", "gaussian_noise"] = param(
        "gd_label_noise", help="Which gradient, and which noise on it."
    )
    learning_rate: float = param(
        0.01, ge=1e-7, le=10.0, symbol=r"\eta", scale="log", live=(1e-4, 0.2), help="Step size of every update."
    )
    noise_std: float = param(
        1.0,
        ge=0.0,
        le=100.0,
        symbol=r"\delta",
        live=(0.0, 4.0),
        only_if=_NOISY,
        help="Standard deviation of the noise.",
    )
    noise_schedule: Literal["constant", "anneal", "stairs"] = param(
        "constant",
        only_if=_NOISY,
        help="anneal: noise_std falls as (1 - k/steps)^2; stairs: learning_rate falls tenfold after each third.",
    )
    steps: int = param(
        100_000,
        ge=1,
        le=1_000_000_000,
        symbol="K",
        unit="steps",
        scale="log",
        live=(1000, 300_000),
        help="Number of updates.",
    )
    init_scale: float = param(
        1.0,
        ge=1e-4,
        le=100.0,
        symbol=r"\alpha",
        scale="log",
        live=(0.1, 3.0),
        help="Every weight starts at this value.",
    )
    n_train: int = param(
        40,
        ge=1,
        le=20_000,
        symbol="n",
        unit="samples",
        live=(5, 60),
        only_if=_DRAWN,
        help="Number of training samples.",
    )
    dim: int = param(
        100, ge=1, le=20_000, symbol="d", unit="coordinates", live=(20, 200), only_if=_DRAWN, help="Number of weights."
    )
    sparsity: int = param(
        5,
        ge=1,
        le=20_000,
        symbol="r",
        unit="coordinates",
        live=(1, 20),
        only_if=_DRAWN,
        help="How many coordinates of the truth are not zero.",
    )
    parametrization: Literal["square", "signed"] = param(
        "square", help="square: beta = v*v is never negative; signed: beta = u*u - w*w."
    )
    truth: Literal["ones", "alternating"] = param(
        "ones",
        only_if={"parametrization": ("signed",), **_DRAWN},
        help="Signs of the true coordinates: all +1, or +1, -1 in turn.",
    )
    covariates: Literal["gaussian", "rademacher", "planar"] = param(
        "gaussian", help="Distribution of the inputs; planar is one sample (1, a) with label 2, a model one can draw."
    )
    planar_slope: float = param(
        2.0,
        ge=0.01,
        le=100.0,
        symbol="a",
        live=(0.25, 4.0),
        scale="log",
        only_if={"covariates": ("planar",)},
        help="Second coordinate of the planar sample.",
    )
    data_seed: int = param(123, ge=0, le=2**32 - 1, only_if=_DRAWN, help="Seed of the data, apart from the noise.")
    fresh_data: bool = param(False, only_if=_DRAWN, help="Replicate r draws its own data, from data_seed + r.")

    def rules(self) -> Iterator[Problem]:
        if self.covariates != "planar" and self.sparsity > self.dim:
            allowed = f"the truth has {self.dim} coordinates (dim), so sparsity is at most {self.dim}"
            yield Problem("sparsity", self.sparsity, allowed, f"Set sparsity to {self.dim} or less, or raise dim.")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d) of the data matrix."""
        return (1, 2) if self.covariates == "planar" else (self.n_train, self.dim)

    @property
    def regression(self) -> Regression:
        """What its data sets depend on besides their numbers."""
        planar = self.covariates == "planar"
        truth = self.truth if self.is_active("truth") else "ones"
        return Regression(self.covariates, *self.shape, self.sparsity, truth, self.planar_slope if planar else 0.0)

    @property
    def signed(self) -> bool:
        return self.parametrization == "signed"

    @property
    def delta(self) -> float:
        """Standard deviation of the noise, 0 where the algorithm has none of its own."""
        return self.noise_std if self.is_active("noise_std") else 0.0

    def data_number(self, replicate: int) -> int:
        """Which data set a replicate is trained on: the entropy of its generator, 0 for the planar sample."""
        return 0 if self.covariates == "planar" else self.data_seed + (replicate if self.fresh_data else 0)


class Data(NamedTuple):
    """One regression problem; `c` is the mean square of each column, the weight of the l1 norm."""

    X: NDArray[np.float64]  # (n, d)
    y: NDArray[np.float64]  # (n,)
    c: NDArray[np.float64]  # (d,)
    beta_star: NDArray[np.float64]  # (d,)


class Regression(NamedTuple):
    """What data sets have in common: the law of the covariates, their shape, and the truth."""

    covariates: str
    n: int
    d: int
    sparsity: int
    truth: str
    slope: float


def data_numbered(params: LabelNoiseParams, number: int) -> Data:
    """The data set of that number; its arrays are shared between callers and read-only."""
    return draw(params.regression, number)


@lru_cache(maxsize=16)
def draw(regression: Regression, number: int) -> Data:
    """The data set of that number; its arrays are shared between callers and read-only."""
    import numpy as np

    covariates, n, d, sparsity, truth, slope = regression
    rng = np.random.default_rng(number)
    beta_star = np.zeros(d)
    beta_star[:sparsity] = 1.0
    if truth == "alternating":
        beta_star[1:sparsity:2] = -1.0
    if covariates == "planar":
        X, beta_star = np.array([[1.0, slope]]), np.array([2.0, 0.0])
    elif covariates == "rademacher":
        X = 2.0 * rng.integers(0, 2, (n, d)) - 1.0
    else:
        X = rng.standard_normal((n, d))
    data = Data(X, X @ beta_star, np.mean(X**2, axis=0), beta_star)
    for array in data:
        array.flags.writeable = False
    return data


def recorded_steps(params: LabelNoiseParams) -> NDArray[np.int64]:
    return spread_steps(params.steps)


def simulate(params: LabelNoiseParams, replicate: int, monitor: Monitor) -> Replicate:
    import numpy as np

    from . import kernels

    data = data_numbered(params, params.data_number(replicate))
    d = params.shape[1]
    u = np.full(d, params.init_scale)
    w = u.copy() if params.signed else np.zeros(d)
    drift = np.zeros(d)
    step = recorded_steps(params)
    frame_step = thin(step)
    frames = np.empty((len(frame_step), d))
    streams = (generator(params.seed, LAB.streams[name], replicate) for name in ("index", "sign", "normal"))
    status, stop_step, flips = kernels.simulate(
        kernels.ALGORITHMS[params.algorithm],
        params.signed,
        data.X,
        data.y,
        data.c,
        data.beta_star,
        u,
        w,
        drift,
        params.learning_rate,
        params.delta,
        kernels.SCHEDULES[params.noise_schedule],
        params.steps,
        step,
        frame_step,
        frames,
        *streams,
        *monitor,
    )
    diverged = None if status != kernels.STATUS["diverged"] else stop_step
    return ended(params, data, u, w, drift, flips, diverged, frame_step, frames)


def ended(
    params: LabelNoiseParams,
    data: Data,
    u: NDArray[np.float64],
    w: NDArray[np.float64],
    drift: NDArray[np.float64],
    flips: int,
    diverged: int | None,
    frame_step: NDArray[np.int64],
    frames: NDArray[np.float64],
) -> Replicate:
    """A replicate from the weights (d,) that it ended with; `diverged` is the step at which it did, if it did."""
    import numpy as np

    beta = u * u - w * w
    error = float(np.sum((beta - data.beta_star) ** 2))
    kept = np.argsort(-np.abs(beta), kind="stable")[: np.count_nonzero(data.beta_star)]
    finished = diverged is None
    return Replicate(
        finals={
            "beta": beta,
            "log_scale": 2.0 * _log_ratio(u, params.init_scale)
            if not params.signed
            else _log_ratio(u * w, params.init_scale**2),
            "log_asymmetry": _log_asymmetry(u, w) if params.signed else np.zeros(len(u)),
            "linear_drift": drift,
            "recovered": float(error < 0.02 * np.sum(np.abs(data.beta_star))) if finished else np.nan,
            "support_recovered": float(np.all(data.beta_star[kept] != 0)) if finished else np.nan,
            "sign_flips": float(flips),
            "diverged": float(diverged is not None),
        },
        frame_step=frame_step,
        frames={"beta": frames[:, :FRAME_COORDINATES].copy()},
        stopped=None if diverged is None else Stop(diverged, "the weights grew beyond every bound"),
    )


def _log_ratio(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """log|values/scale|; a weight that is exactly 0 gives -inf, one that is not finite NaN."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.abs(values) / scale)


def _log_asymmetry(u: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """log|u/w|; NaN where both are exactly 0 or neither is finite."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        return _log_ratio(u, 1.0) - _log_ratio(w, 1.0)


def predict(params: LabelNoiseParams) -> Prediction:
    from . import prediction

    return prediction.predict(params)


def predict_ends(points: Sequence[LabelNoiseParams]) -> list[Prediction]:
    from . import prediction

    return prediction.predict_ends(points)


def derive(params: LabelNoiseParams, trace: Trace, predicted: Prediction) -> Mapping[str, NDArray[np.float64]]:
    from . import prediction

    return prediction.derive(params, trace)


SETUP = 4e6  # what surrounds the steps of a replicate, in units of the probe `projection`


def work(params: LabelNoiseParams) -> Work:
    n, d = params.shape
    batch_one = params.algorithm in BATCH_ONE
    per_step = 2000.0 + (16.0 * d if batch_one else 2.0 * n * d + 16.0 * d)
    recorded = len(recorded_steps(params))
    problems = params.replicates if params.fresh_data else 1
    drawn = recorded if params.algorithm in ("gd_label_noise", "sgd_label_noise") and params.delta > 0 else 1
    followed = min(drawn, 100 if params.algorithm == "sgd_label_noise" else 20)  # from the start to the end, or a clock
    return Work(
        per_replicate={params.algorithm: params.steps * per_step, "projection": _projection_count(n, d, 1) + SETUP},
        once={
            "projection": _projection_count(n, d, drawn) * problems,
            "linear_program": float(n * d) * problems,
        },
        bytes=8.0
        * (
            2 * n * d * min(problems, 16)
            + params.replicates * (len(LAB.series) + 4) * max(recorded, d)
            + 2 * recorded * d
        ),
        ends={
            "projection": _projection_count(n, d, followed) * problems,
            "linear_program": float(n * d) * problems,
        },
        serial=("projection",),
    )


def _projection_count(n: int, d: int, points: int) -> float:
    """Newton steps on the n-dimensional dual, a handful a point, each n*n*d/2 products and a Cholesky factor.

    Of few samples most is what grows more slowly: functions of d numbers, and the interpreter's own.
    """
    return points * (n * n * d + n**3 / 3.0 + 50.0 * n * d + 1e5)


def probes() -> Mapping[str, Callable[[], float]]:
    """One probe for each algorithm's kernel and each solver of the theory."""

    def train(algorithm: str, parametrization: str) -> Callable[[], float]:
        params = LabelNoiseParams.make(algorithm=algorithm, steps=20_000, replicates=1, parametrization=parametrization)

        def probe() -> float:
            from ..engine import RunMonitor

            simulate(params, 0, RunMonitor.allocate(LAB, params).of(0))
            return work(params).per_replicate[algorithm]

        return probe

    def project() -> float:
        from theory.label_noise import slow_flow

        data = data_numbered(LabelNoiseParams.make(), 0)
        times = 0.1 * recorded_steps(LabelNoiseParams.make(steps=100))
        slow_flow(data.X, data.y, data.c, 1.0, times)
        return _projection_count(*data.X.shape, len(times))

    def linear_program() -> float:
        from theory.label_noise import decay_rate, min_weighted_l1

        data = data_numbered(LabelNoiseParams.make(), 0)
        decay_rate(data.X, min_weighted_l1(data.X, data.y, data.c), data.c)
        return float(data.X.size)

    algorithms = LabelNoiseParams.fields()["algorithm"].choices
    return {
        **{name: train(name, "square") for name in algorithms},
        "projection": project,
        "linear_program": linear_program,
    }


def annealed(learning_rate: float, steps: int, slow_time: float, **more: Any) -> dict[str, Any]:
    """An annealed schedule that ends at a given slow time: sum (eta*delta_k)^2 = steps*(eta*delta)^2/5."""
    noise_std = float(f"{(5 * slow_time / steps) ** 0.5 / learning_rate:.4g}")
    return {"learning_rate": learning_rate, "noise_std": noise_std, "noise_schedule": "anneal", "steps": steps, **more}


_FADING: Mapping[str, Any] = {
    "slow_flow": "outside",
    "trace_hessian": "outside",
    "shrinks_exponentially": "outside",
}
_SPHERICAL: Mapping[str, Any] = {
    "algorithm": "gaussian_noise",
    "learning_rate": 0.002,
    "noise_std": 1.0,
    "steps": 60_000,
    "data_seed": 3,
    "replicates": 8,
}

PRESETS = (
    Preset(
        id="shape_matters",
        title="Shape matters",
        notice="Four noises, one model: only label noise keeps falling, along the chalk line, to the sparse truth.",
        label="label noise",
        beside={
            "gradient descent": {"algorithm": "gd", "learning_rate": 0.01, "steps": 20_000, "replicates": 1},
            "mini-batch noise": {
                "algorithm": "minibatch_noise",
                "learning_rate": 0.003,
                "steps": 20_000,
                "replicates": 2,
            },
            "Gaussian noise": {
                "algorithm": "gaussian_noise",
                "learning_rate": 0.02,
                "noise_std": 0.5,
                "steps": 6000,
                "replicates": 2,
            },
        },
        expect={
            "norm_growth": "outside",
            "equipartition": "outside",
        },
    ),
    Preset(
        id="all_the_way",
        title="All the way",
        notice="Large steps and fading noise reach the truth within 6000 steps, but leave the slow flow: "
        "the line turns grey.",
        label="label noise, annealed",
        params=annealed(0.1, 6000, 18.0, replicates=16),
        expect=_FADING,
    ),
    Preset(
        id="edge",
        title="Over the edge",
        notice="Mini-batch noise at the authors' step size: about one seed in six diverges within sixty steps.",
        label="mini-batch noise",
        params={"algorithm": "minibatch_noise", "learning_rate": 0.01, "steps": 20_000, "replicates": 20},
    ),
    Preset(
        id="authors_run",
        title="The authors' run",
        notice="The published schedule: each tenfold drop of the learning rate lets the error fall one stair.",
        label="label noise, stairs",
        params={"noise_schedule": "stairs", "steps": 300_000, "data_seed": 0},
        expect={"slow_flow": "outside", "trace_hessian": "outside"},
    ),
    Preset(
        id="any_initialisation",
        title="From any initialisation",
        notice="Gradient descent remembers the scale it starts from (its error grows as the fourth power); "
        "label noise forgets it.",
        label="label noise from 2",
        params=annealed(0.025, 6000, 18.0, init_scale=2.0, replicates=16),
        beside={
            "label noise from 0.3": annealed(0.1, 6000, 18.0, init_scale=0.3),
            "label noise from 3": annealed(0.0111, 6000, 18.0, init_scale=3.0),
            "gradient descent from 2": {
                "algorithm": "gd",
                "learning_rate": 0.0025,
                "steps": 6000,
                "replicates": 1,
            },
        },
        expect=_FADING,
    ),
    Preset(
        id="too_few_samples",
        title="Too few samples",
        notice="Below the recovery threshold label noise still finds the least norm: sparse, but not the truth.",
        label="label noise, n = 12",
        params=annealed(0.0368, 6000, 20.0, n_train=12, data_seed=0, replicates=16),
        expect={**_FADING, "sparse_recovery": "outside"},
    ),
    Preset(
        id="many_samples",
        title="Samples enough for everyone",
        notice="With more than d/2 samples the truth is the only nonnegative solution: gradient descent finds it too, "
        "only slowly.",
        label="label noise, n = 60",
        params=annealed(0.1, 6000, 18.0, n_train=60, data_seed=1),
        beside={
            "gradient descent, n = 60": {
                "algorithm": "gd",
                "learning_rate": 0.08,
                "steps": 50_000,
                "replicates": 1,
            }
        },
        expect={
            **_FADING,
            "label_noise_clock": "outside",
            "gradient_flow_limit": "outside",
            "gradient_flow_scales": "outside",
            "alpha_fourth": "outside",
            "gradient_descent_misses": "fails",
        },
    ),
    Preset(
        id="batch_one",
        title="One sample at a time",
        notice="Batch-one training adds its own residual to the noise: the slow clock runs faster, by a known factor.",
        label="batch-one, label noise",
        params={"algorithm": "sgd_label_noise", "learning_rate": 0.003, "steps": 222_300},
        expect={"slow_flow_naive": "fails"},
    ),
    Preset(
        id="clock_stops",
        title="A step too large",
        notice="At this step size the corrected clock diverges, and the slow flow is wrong by a factor of three.",
        label="batch-one, label noise",
        params={"algorithm": "sgd_label_noise", "learning_rate": 0.01, "steps": 20_000},
        expect={
            "batch_one_clock": "outside",
            "batch_one_clock_rates": "outside",
            "slow_flow_naive": "fails",
        },
    ),
    Preset(
        id="spherical",
        title="Noise without shape",
        notice="Spherical noise shrinks no weight: their norm grows at the predicted rate, and nothing turns sparse.",
        label="Gaussian noise",
        params={**_SPHERICAL, "n_train": 20},
    ),
    Preset(
        id="spherical_dense",
        title="Where the growth formula ends",
        notice="With more than d/2 samples gradient flow ends where weights are zero, and the growth formula fails.",
        label="Gaussian noise, n = 60",
        params={**_SPHERICAL, "n_train": 60},
        expect={
            "norm_growth": "outside",
            "norm_growth_any_n": "fails",
            "equipartition": "outside",
        },
    ),
    Preset(
        id="signed",
        title="Both signs",
        notice="With weights of both signs gradient descent lands near the least l2 norm, label noise at the least l1.",
        label="label noise, signed",
        params={
            "parametrization": "signed",
            "truth": "alternating",
            "covariates": "rademacher",
            "n_train": 50,
            "data_seed": 0,
        },
        beside={"gradient descent, signed": {"algorithm": "gd", "steps": 20_000}},
    ),
    Preset(
        id="planar",
        title="A model one can draw",
        notice="One sample, two weights: the zero-loss set is a segment, and label noise slides to its sparse end.",
        label="label noise in the plane",
        params={"covariates": "planar", "steps": 30_000, "replicates": 20},
    ),
)

LAB = Lab(
    id="label_noise",
    version=2,
    title="Label noise",
    sentence="The shape of the gradient noise, not its size, decides which interpolating solution training finds.",
    theme="implicit bias",
    paper=Paper(
        title="Shape Matters: Understanding the Implicit Bias of the Noise Covariance",
        authors="Jeff Z. HaoChen, Colin Wei, Jason D. Lee, Tengyu Ma",
        venue="COLT (PMLR 134)",
        year=2021,
        arxiv="2006.08680",
        bibtex="""@inproceedings{haochen2021shape,
  title     = {Shape Matters: Understanding the Implicit Bias of the Noise Covariance},
  author    = {HaoChen, Jeff Z. and Wei, Colin and Lee, Jason D. and Ma, Tengyu},
  booktitle = {Conference on Learning Theory},
  series    = {Proceedings of Machine Learning Research},
  volume    = {134},
  year      = {2021},
}""",
    ),
    params=LabelNoiseParams,
    streams=stream_table("index", "sign", "normal"),
    series={
        "train_loss": Quantity("training loss", "L", scale="log"),
        "test_error": Quantity("test error", r"\|\beta-\beta^*\|^2", scale="log"),
        "weighted_l1": Quantity("weighted l1 norm", r"\sum_j c_j|\beta_j|"),
        "slow_time": Quantity("slow time", "T"),
        "norm_sq": Quantity("squared norm of the weights", r"\|v\|^2"),
        "mean_shrink": Quantity("mean log shrinkage", r"\overline{\mathrm{shrink}}"),
        "noise_work": Quantity("work of the noise on the norm", ""),
    },
    metrics={
        "recovered": Quantity("recovered (error below 0.02 r)"),
        "support_recovered": Quantity("support recovered"),
        "sign_flips": Quantity("sign flips"),
        "diverged": Quantity("diverged"),
        "conserved_mismatch": Quantity("mismatch of the conserved quantity", scale="log"),
        "slow_flow_recovered": Quantity("slow flow recovers by then"),
        "lp_recovered": Quantity("least norm recovers"),
        "gradient_flow_test_error": Quantity("test error of gradient flow", scale="log"),
        "slow_flow_test_error": Quantity("test error of the slow flow", scale="log"),
        "lp_test_error": Quantity("test error of the least norm", scale="log"),
        "decay_rate": Quantity("decay rate", "g^*"),
        "recovery_threshold": Quantity("recovery threshold", "n^*", "samples"),
        "noise_floor": Quantity("floor of the noise", r"\eta\delta^2\|\beta^*\|_1", scale="log"),
        "equipartition": Quantity("residual against equipartition"),
        "norm_growth": Quantity("growth of the squared norm"),
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
        Change(2, "products and sums are rounded once, and the norm is summed in lanes", dict),
    ),
)
