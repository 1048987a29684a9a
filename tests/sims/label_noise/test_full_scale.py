"""Label noise with torch against the kernel: every algorithm, parametrisation and schedule, and the edges."""

import numpy as np
import pytest
import torch

from sims.engine import execute, get_lab
from sims.engine.backends import choose
from sims.engine.confirmations import Place
from sims.label_noise import full_scale
from sims.label_noise.full_scale import crossing, curve_params, draw_problems, run_size, train_instances
from theory.mirror import projection

LAB = get_lab("label_noise")
ALGORITHMS = LAB.params.fields()["algorithm"].choices
SCHEDULES = LAB.params.fields()["noise_schedule"].choices
CASES = [
    {"algorithm": algorithm, "parametrization": parametrization, "noise_schedule": schedule}
    for algorithm in ALGORITHMS
    for parametrization in ("square", "signed")
    for schedule in (SCHEDULES if algorithm not in ("gd", "sgd") else ("constant",))
]
SETTINGS = {"dim": 60, "sparsity": 2, "sizes": [20], "instances": 4, "most_rate": 0.05, "steps": 600, "slow_time": 6.0}
SETTINGS |= {"seed": 3, "dtype": "float64"}


def both(params, dtype="float64"):
    kernel = execute(LAB, params, fresh=True)
    batch = execute(LAB, params, fresh=True, backend=choose("torch", "cpu", dtype))
    assert (kernel.provenance["backend"], batch.provenance["backend"]) == ("numba", "torch")
    return kernel.trace, batch.trace


def agree(kernel, batch, rtol, atol):
    assert batch.stopped == kernel.stopped
    for ours, theirs in ((batch.series, kernel.series), (batch.finals, kernel.finals), (batch.frames, kernel.frames)):
        for name, values in ours.items():
            # A logarithm of something near one has the rounding of one.
            least = 1e-12 if name == "log_scale" else atol
            np.testing.assert_allclose(values, theirs[name], rtol=rtol, atol=least, err_msg=name)


def small(**case):
    case = {k: v for k, v in case.items() if k != "noise_schedule" or v != "constant"}
    sizes = {"n_train": 12, "dim": 30, "sparsity": 3, "steps": 700, "replicates": 2, "learning_rate": 0.004}
    return LAB.params.make({**sizes, **case})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.values()))
def test_float64_repeats_the_kernel(case):
    """The whole trace within 1e-9; the loss of a converged run, squared rounding, within 1e-24."""
    agree(*both(small(**case)), rtol=1e-9, atol=1e-24 if case["algorithm"] == "gd" else 1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_float32_follows_until_rounding_tells(algorithm):
    """The recorded error, norm and slow time within 1e-3 of what they are, over 700 steps."""
    kernel, batch = both(small(algorithm=algorithm), "float32")
    for name in ("test_error", "weighted_l1", "norm_sq", "slow_time"):
        np.testing.assert_allclose(batch.series[name], kernel.series[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_fresh_data_and_the_plane():
    agree(*both(small(fresh_data=True, replicates=3)), rtol=1e-9, atol=1e-12)
    agree(*both(LAB.params.make(covariates="planar", steps=2000, replicates=3)), rtol=1e-9, atol=1e-12)


def test_noise_in_several_blocks_is_the_same_noise(monkeypatch):
    monkeypatch.setattr(full_scale, "BLOCK_NUMBERS", 1000)
    for algorithm in ("gaussian_noise", "minibatch_noise", "sgd_label_noise"):
        agree(*both(small(algorithm=algorithm, parametrization="signed")), rtol=1e-9, atol=1e-12)


def test_replicates_that_diverge_stop_at_the_same_step():
    """At this rate two of four do within 300 steps; the others go on."""
    params = LAB.params.make(algorithm="minibatch_noise", learning_rate=0.015, steps=300, replicates=4, seed=1)
    kernel, batch = both(params)
    assert 0 < sum(stop is not None for stop in kernel.stopped) < 4
    assert batch.stopped == kernel.stopped
    for name, values in batch.series.items():
        np.testing.assert_array_equal(np.isnan(values), np.isnan(kernel.series[name]))
        np.testing.assert_allclose(values[:, :20], kernel.series[name][:, :20], rtol=1e-9, atol=1e-12)


# -- confirmations -------------------------------------------------------------------------------------------------


def test_an_instance_is_trained_as_the_kernel_would():
    """Device noise put into NumPy: the loop of the confirmation is gradient descent with label noise, step by step."""
    params = curve_params(SETTINGS, 20, 2).replace(steps=40, replicates=2)
    settings = {**SETTINGS, "steps": 40, "instances": 2}
    state = train_instances(params, settings, Place("cpu"), [20])
    problems = draw_problems(params, settings, "cpu", [20])
    noise = full_scale.device_generator("cpu", settings["seed"], 20, 1)
    index = torch.randint(20, (40, 2), generator=noise).numpy()
    normal = torch.randn((40, 2), generator=noise, dtype=torch.float64).numpy()
    for r in range(2):
        X, v = problems.X[r].numpy(), np.ones(60)
        truth = (np.arange(60) < 2).astype(float)
        for k in range(40):
            G = X.T @ (X @ (v * v - truth)) / 20
            G -= params.noise_std * (1 - k / 40) ** 2 * normal[k, r] * X[index[k, r]]
            v *= 1 - params.learning_rate * G
        np.testing.assert_allclose(state.u[r].numpy(), v, rtol=1e-9)


def test_what_the_slow_flow_says_is_the_theory_on_the_same_data():
    found = run_size(SETTINGS, "n=20", Place("cpu")).numbers
    params = curve_params(SETTINGS, 20, 2)
    problems = draw_problems(params, SETTINGS, "cpu", [20])
    for r, error in enumerate(found["slow_flow_errors"]):
        X = problems.X[r].numpy()
        truth = (np.arange(60) < 2).astype(float)
        beta = projection(X, X @ truth, -6.0 * np.mean(X**2, axis=0)).beta
        assert error == pytest.approx(np.sum((beta - truth) ** 2), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "where"),
    [
        ([0, 0, 1, 1], 25.0),
        ([0, 0.5, 1, 1], 20.0),
        ([0, 0.4, 0.3, 0.8], 32.5),
        ([0.6, 1, 1, 1], 10),
        ([0, 0, 0, 0.4], 40),
    ],
)
def test_a_curve_crosses_one_half(rates, where):
    assert crossing([10, 20, 30, 40], np.array(rates)) == where
