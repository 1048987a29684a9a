"""Linear programs against scipy's own, and the ends of the slow flow that are formed from them."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar
from scipy.special import ndtr

from theory import label_noise as theory
from theory.linear_program import linear_program


def problem(seed, n=20, d=60, r=3):
    X = np.random.default_rng(seed).standard_normal((n, d))
    beta_star = np.zeros(d)
    beta_star[:r] = 1.0
    return X, X @ beta_star, (X**2).mean(0)


@pytest.mark.parametrize("seed", range(5))
def test_a_program_with_every_kind_of_bound_has_the_value_that_scipy_finds(seed):
    rng = np.random.default_rng(seed)
    rows, cost = rng.standard_normal((8, 15)), rng.standard_normal(15)
    rows[rng.random(rows.shape) < 0.3] = 0.0
    inside = rng.uniform(-1, 1, 15)
    middle = rows @ inside
    row_lower, row_upper = middle - rng.random(8), middle + rng.random(8)
    row_lower[:3] = row_upper[:3] = middle[:3]
    status, x = linear_program(cost, rows, row_lower, row_upper, -2.0, np.linspace(1, 3, 15))
    reference = linprog(
        cost, A_eq=rows[:3], b_eq=middle[:3],
        A_ub=np.vstack([rows[3:], -rows[3:]]), b_ub=np.append(row_upper[3:], -row_lower[3:]),
        bounds=[(-2.0, upper) for upper in np.linspace(1, 3, 15)],
    )  # fmt: skip
    assert status == "optimal"
    assert cost @ x == pytest.approx(reference.fun, abs=1e-9)
    assert np.abs(rows[:3] @ x - middle[:3]).max() < 1e-9


def test_programs_without_an_optimum_are_told_apart():
    one = np.ones((1, 2))
    assert linear_program(np.ones(2), one, -np.ones(1), -np.ones(1)).status == "infeasible"
    assert linear_program(-np.ones(2), one, np.ones(1), np.full(1, math.inf)).status == "unbounded"
    with pytest.raises(ValueError, match="c must be nonnegative"):
        theory.min_weighted_l1(np.array([[1.0, -1.0]]), np.ones(1), -np.ones(2))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("seed", range(4))
def test_the_end_point_and_its_rate_are_those_of_scipy(seed, n, signed):
    X, y, c = problem(seed, n)
    columns, cost = (np.hstack([X, -X]), np.tile(c, 2)) if signed else (X, c)
    reference = linprog(cost, A_eq=columns, b_eq=y)
    end = theory.min_weighted_l1(X, y, c, signed=signed)
    expected = reference.x[:60] - reference.x[60:] if signed else reference.x
    np.testing.assert_allclose(end, expected, atol=1e-9)
    on = np.abs(end) > 1e-7
    off = np.vstack([X[:, ~on].T, -X[:, ~on].T]) if signed else X[:, ~on].T
    slack = linprog(
        np.append(np.zeros(n), -1.0), A_ub=np.hstack([off, np.ones((len(off), 1))]), b_ub=np.resize(c[~on], len(off)),
        A_eq=np.hstack([X[:, on].T, np.zeros((on.sum(), 1))]), b_eq=c[on] * np.sign(end[on]), bounds=(None, None),
    )  # fmt: skip
    assert theory.decay_rate(X, end, c, signed=signed) == pytest.approx(slack.x[-1], abs=1e-8)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("dim", "sparsity"), [(1, 1), (7, 1), (100, 5), (100, 99), (20_000, 1), (20_000, 20_000)])
def test_the_recovery_threshold_is_the_minimum_that_scipy_finds(dim, sparsity, signed):
    rho, sides = sparsity / dim, 2 if signed else 1

    def dimension(t):
        density = math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return rho * (1 + t * t) + (1 - rho) * sides * ((1 + t * t) * ndtr(-t) - t * density)

    best = minimize_scalar(dimension, bounds=(0.0, 30.0), method="bounded", options={"xatol": 1e-10})
    expected = dim * min(best.fun, dimension(0.0))
    assert theory.recovery_threshold(dim, sparsity, signed=signed) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("call", ["predict('label_noise')", "run('label_noise', steps=50, replicates=1, store=False)"])
def test_the_slow_half_of_scipy_is_not_imported(call):
    names = {"scipy.optimize", "scipy.special", "scipy.interpolate"}
    code = f"import sims, sys; sims.{call}; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
