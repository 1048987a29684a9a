"""The lab: what its runs measure against the closed forms, and what it says to bad input.

Sampled numbers have fixed seeds; bounds are in standard errors or in the percent that is required of the row.
"""

import numpy as np
import pytest

from sims.engine import BadInput, RunMonitor, execute, get_lab
from sims.linear_attention import prediction, training
from sims.linear_attention.lab import LinearAttentionParams
from theory import linear_attention as theory
from theory import linear_attention_flow as flow

LAB = get_lab("linear_attention")
SPREAD = {"covariate_spectrum": "custom"}  # variances 4, 2, 1, 1/2, 1/4
ADAM = {"training": "adam", "learning_rate": 0.02, "init_scale": 0.02}
FEW = {"n_test": 1000}


def run(**values):
    return execute(LAB, LAB.params.make(**values))


def end(found, name):
    return found.values[name]


def test_a_run_that_is_stopped_in_training_is_not_tested(monkeypatch):
    """A test begins with loading its kernel, which takes longer than a press on Stop may."""
    monkeypatch.delattr("sims.linear_attention.sampled.test_layer")
    params = LAB.params.make(replicates=1)
    monitor = RunMonitor.allocate(LAB, params)
    monitor.cancel[0] = 1
    assert np.isnan(LAB.simulate(params, 0, monitor.of(0)).finals["test_loss"])


# -- the population gradient -------------------------------------------------------------------------------------


def test_the_default_run_lands_on_the_prediction():
    """Four replicates of seed 0, 20 000 steps: the loss within 1e-10 of L*, the even part gone, Q a multiple of I."""
    found = run()
    assert LAB.params.make().n_test * LAB.params.make().replicates == 200_000
    assert found.prediction.prediction["optimal_loss"] == pytest.approx(1.440476190476, abs=1e-12)
    assert np.abs(end(found, "excess_loss")).max() < 1e-10
    assert end(found, "even_loss").max() < 1e-12
    np.testing.assert_allclose(end(found, "step_size"), 1 / 26.25, rtol=1e-9)
    np.testing.assert_allclose(
        found.trace.finals["preconditioner"], np.eye(5)[None] / 26.25 * np.ones((4, 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(end(found, "half_time_ratio"), 1.0, atol=0.1)
    gap = found.trace.finals["test_loss"] - 1.440476190476
    assert (np.abs(gap) < 4 * found.trace.finals["test_loss_se"]).all()
    assert 0.003 < found.trace.finals["test_loss_se"].mean() < 0.006


@pytest.mark.parametrize("model", ["full", "reduced"])
def test_every_model_of_one_layer_lands_there(model):
    found = run(model=model, replicates=1, **FEW)
    assert abs(end(found, "excess_loss")[0]) < 1e-10
    assert end(found, "preconditioner_error")[0] < 1e-6


def test_the_literal_layer_comes_there_too_but_late():
    """Its matrices multiply, so that the even part dies as a power of time: within half a percent at time 10."""
    found = run(model="literal", init_scale=0.2, steps=100_000, replicates=1, **FEW)
    assert 0 < end(found, "excess_loss")[0] < 0.005 * 1.44
    assert end(found, "even_loss")[0] > 0.9 * end(found, "excess_loss")[0]
    assert end(found, "preconditioner_error")[0] < 0.005


@pytest.mark.parametrize(("values", "loss"), [({}, 1.867474), ({"task_prior": "inverse_covariance"}, 1.440476)])
def test_the_matrix_is_the_damped_inverse(values, loss):
    """Published diagonals of Q* for the two priors, within 1 % (in the loss 1e-3)."""
    wanted = {1.867474: [0.01087, 0.02, 0.034483, 0.054054, 0.075472],
              1.440476: [0.009524, 0.019048, 0.038095, 0.07619, 0.152381]}[loss]  # fmt: skip
    found = run(**SPREAD, **values, learning_rate=2.5e-5, steps=100_000, harmful_init=0.01, replicates=1, **FEW)
    assert found.prediction.prediction["optimal_loss"] == pytest.approx(loss, abs=1e-6)
    assert end(found, "loss")[0] == pytest.approx(loss, rel=1e-3)
    np.testing.assert_allclose(np.diag(found.trace.finals["preconditioner"][0]), wanted, rtol=0.01)


def test_a_table_of_ends_draws_wishart_matrices_once_for_each_length():
    """Three lengths, four noises, in an order in which the length changes fastest."""
    prediction._isotropic_draws.cache_clear()
    prediction.bayes.cache_clear()
    lengths, noises = (5, 9, 21), (0.1, 0.3, 0.7, 1.1)
    get_lab("linear_attention").predict_ends(
        [LinearAttentionParams.make(context_length=n, noise_var=s2) for s2 in noises for n in lengths]
    )
    assert prediction._isotropic_draws.cache_info().misses == 3


def test_half_times_of_a_merged_flow():
    """Published times of q_i = q_i*/2 from a_i = 1e-3, within 2 %."""
    found = run(**SPREAD, model="reduced", init="balanced", learning_rate=1e-6, steps=320_000, replicates=1, **FEW)
    assert half_times(found) == pytest.approx([0.0062, 0.0110, 0.0284, 0.0905, 0.3087], rel=0.02)


def test_half_times_of_a_staircase():
    """Separate key and query from k_i = 0.01: published times within 2 %, and the plateaus between them."""
    found = run(**SPREAD, model="separate_key_query", init="balanced", init_scale=0.01, learning_rate=1e-5,
                steps=400_000, replicates=1, **FEW)  # fmt: skip
    assert half_times(found) == pytest.approx([0.1044, 0.1706, 0.3694, 1.0156, 3.186], rel=0.02)
    times, loss = 1e-5 * found.trace.step, found.trace.series["loss"][0]
    for time, level in ((0.01, 8.0), (0.13, 4.52174), (0.7, 2.23208), (2.0, 1.96181)):
        assert np.interp(time, times, loss) == pytest.approx(level, rel=0.12)
    assert loss[-1] == pytest.approx(1.86747, rel=1e-3)


def half_times(found):
    times, q = found.params.learning_rate * found.trace.step, found.trace.finals["diagonal"][0]
    best = np.diag(prediction.optimum(found.params).Q)
    return [float(np.interp(0.5, q[:, i] / best[i], times)) for i in range(len(best))]


def test_averaging_attention_is_summing_attention_with_another_clock():
    """With A started n times larger the two are one run, n times slower in the steps of A and c alike."""
    mean = run(attention="mean", model="reduced", init="balanced", learning_rate=2e-3, replicates=1, **FEW)
    best = mean.prediction.prediction["optimal_step_size"]
    assert end(mean, "step_size")[0] == pytest.approx(best, rel=1e-9)
    assert mean.prediction.prediction["half_time"] == pytest.approx(end(mean, "half_time")[0], rel=0.01)


@pytest.mark.parametrize("values", [
    {"model": "reduced"}, {"model": "reduced", "attention": "mean", "learning_rate": 1e-3},
    {**SPREAD, "model": "reduced", "learning_rate": 2e-6}, {**SPREAD, "model": "separate_key_query", "init_scale": 0.02,
     "learning_rate": 5e-5}, {"model": "separate_key_query", "init_scale": 0.02, "attention": "mean"},
    {**SPREAD, "model": "reduced", "attention": "mean", "learning_rate": 2e-5},
    {"model": "reduced", "task_var": 3.0, "covariate_spectrum": "custom", "spectrum": (0.5,), "learning_rate": 1e-5},
])  # fmt: skip
def test_the_chalk_line_is_the_run_in_the_limit_of_small_steps(values):
    """From a balanced start the line is followed all the way: within 1 % of the drop at small learning rates."""
    found = run(**{"init": "balanced", "learning_rate": 1e-5, "steps": 40_000, "replicates": 1, **FEW, **values})
    line, loss = found.prediction.prediction["loss"], found.trace.series["loss"][0]
    assert found.prediction.claimed("loss").all() and loss[0] - loss[-1] > 0.3 * (loss[0] - line[-1])
    assert np.abs(line - loss).max() < 0.01 * (loss[0] - line[-1])
    assert np.abs(found.prediction.prediction["step_size"] - found.trace.series["step_size"][0]).max() < 0.01 * np.max(
        found.prediction.prediction["optimal_step_size"]
    )


# -- the edge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [
    {}, {"dim": 1}, {"model": "reduced"}, {"attention": "mean"}, {"skip": True}, SPREAD,
    {**SPREAD, "task_prior": "inverse_covariance"}, {"model": "separate_key_query"}, {**SPREAD, "model": "reduced"},
    {**SPREAD, "model": "separate_key_query", "attention": "mean"}, {"skip": True, "attention": "mean"},
])  # fmt: skip
def test_the_edge_measured_on_the_gradient_is_that_of_the_theory(values):
    params = LAB.params.make(values)
    assert training.edge(params) == pytest.approx(prediction._bound_of(params), rel=1e-4)


def test_published_edges():
    edges = {0.000708: {}, 8.594e-5: {**SPREAD, "task_prior": "inverse_covariance"}, 5.239e-5: SPREAD}
    for expected, values in edges.items():
        assert training.edge(LAB.params.make(values)) == pytest.approx(expected, rel=1e-3)
    assert training.edge(LAB.params.make(model="reduced")) == pytest.approx(1 / (40 * 5**0.5), rel=1e-6)


def test_a_step_too_large_is_a_result_that_names_the_edge():
    found = run(learning_rate=2e-3, init_scale=0.1, replicates=2, **FEW)
    stop = found.trace.stopped[0]
    assert "0.002" in stop.reason and "0.000708" in stop.reason
    assert 0 < stop.step < 20_000 and np.isnan(end(found, "test_loss")).all()


def test_above_the_edge_the_reduced_model_jumps_between_two_values():
    """Published: q/q* - 1 alternates between .1905 and -.2381 at 1.05 times the edge."""
    found = run(model="reduced", init="balanced", init_scale=0.01, learning_rate=1.05 / (40 * 5**0.5), steps=3001,
                replicates=1, **FEW)  # fmt: skip
    late = found.trace.series["step_size"][0][-100:] * 26.25 - 1.0
    assert late.max() == pytest.approx(0.1905, abs=2e-4) and late.min() == pytest.approx(-0.2381, abs=2e-4)


# -- fresh prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_kind", ["sgd", "adam"])
def test_short_training_on_batches_learns(training_kind):
    """Seed 0, 300 steps: the loss falls by more than half of what is to win."""
    rate = {"sgd": 2e-4, "adam": 0.05}[training_kind]
    found = run(training=training_kind, model="reduced", learning_rate=rate, init_scale=0.1, steps=300, replicates=1,
                batch=128, **FEW)  # fmt: skip
    loss = found.trace.series["loss"][0]
    assert loss[-1] - 1.4405 < 0.5 * (loss[0] - 1.4405)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "rate", "steps"), [("full", 0.02, 3000), ("literal", 5e-3, 4000)])
def test_adam_on_fresh_prompts_lands_within_half_a_percent(model, rate, steps):
    found = run(**{**ADAM, "model": model, "learning_rate": rate, "steps": steps, "replicates": 1}, **FEW)
    assert end(found, "loss")[0] == pytest.approx(1.440476, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("values", "loss"), [({}, 1.86747), ({"task_prior": "inverse_covariance"}, 1.44048)])
def test_the_literal_layer_learns_the_preconditioner(values, loss):
    """Adam at 5e-3, 4000 batches of 512, start 0.02: within 0.5 % of the optimum, the diagonal of Q within 3 %."""
    found = run(**{**ADAM, **SPREAD, **values, "model": "literal", "learning_rate": 5e-3, "steps": 4000,
                   "replicates": 1}, **FEW)  # fmt: skip
    assert end(found, "loss")[0] == pytest.approx(loss, rel=0.005)
    best = np.diag(prediction.optimum(found.params).Q)
    np.testing.assert_allclose(np.diag(found.trace.finals["preconditioner"][0]), best, rtol=0.03)


@pytest.mark.slow
def test_adam_in_twenty_dimensions():
    found = run(**{**ADAM, "dim": 20, "context_length": 40, "steps": 1500, "replicates": 1}, **FEW)
    assert end(found, "loss")[0] == pytest.approx(7.18878, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "loss", "steps"), [
    (2, 0.672440, [0.02589, 0.06084]), (3, 0.4575, [0.0211, 0.0350, 0.0817]),
])  # fmt: skip
def test_stacked_layers_take_several_steps(layers, loss, steps):
    """Adam, 2500 batches of 512: test loss within 2 % of L_k (standard error below 0.4 %), steps within 5 %, sorted."""
    found = run(**{**ADAM, "model": "reduced", "layers": layers, "steps": 2500, "replicates": 1, "n_test": 400_000})
    assert found.prediction.prediction["optimal_loss"] == pytest.approx(loss, rel=1e-3)
    assert end(found, "test_loss_se")[0] < 0.004 * loss
    assert end(found, "test_loss")[0] == pytest.approx(loss, rel=0.02)
    np.testing.assert_allclose(found.trace.finals["layer_steps"][0], steps, rtol=0.05)


@pytest.mark.parametrize(("teacher", "eta", "loss"), [
    ("relu", 0.028571, 0.457143), ("network", 0.028571, 0.457143), ("sign", 0.036180, 0.63934),
    ("tanh", 0.037550, 0.40624),
])  # fmt: skip
def test_nonlinear_teachers_have_their_step(teacher, eta, loss):
    """n = 20, d = 5, noise 0.1: the regressed step within 4 standard errors, below 2 %, of the published one."""
    found = run(**{**ADAM, "model": "reduced", "teacher": teacher, "noise_var": 0.1, "steps": 1, "batch": 1,
                   "replicates": 1, "n_test": 150_000})  # fmt: skip
    assert found.prediction.prediction["optimal_step_size"] == pytest.approx(eta, rel=1e-4)
    assert found.prediction.prediction["optimal_loss"] == pytest.approx(loss, rel=1e-4)
    se = end(found, "regressed_step_size_se")[0]
    assert se < 0.02 * eta and abs(end(found, "regressed_step_size")[0] - eta) < 4 * se


def test_the_cubic_hermite_polynomial_teaches_nothing():
    found = run(**{**ADAM, "model": "reduced", "teacher": "hermite3", "noise_var": 0.1, "steps": 1, "batch": 1,
                   "replicates": 1, "n_test": 150_000})  # fmt: skip
    assert found.prediction.prediction["optimal_step_size"] == 0.0
    assert abs(end(found, "regressed_step_size")[0]) < 4 * end(found, "regressed_step_size_se")[0] < 2e-3


@pytest.mark.parametrize(("covariates", "eta"), [("rademacher", 0.041237), ("student_t", 0.036036)])
def test_the_kurtosis_of_the_covariates_moves_the_step(covariates, eta):
    """100 000 prompts, seed 0: within 4 standard errors of the exact step, far from the Gaussian one."""
    found = run(**{**ADAM, "model": "reduced", "covariates": covariates, "steps": 1, "batch": 1, "replicates": 1,
                   "n_test": 200_000})  # fmt: skip
    assert found.prediction.prediction["optimal_step_size"] == pytest.approx(eta, rel=1e-4)
    value, se = end(found, "regressed_step_size")[0], end(found, "regressed_step_size_se")[0]
    assert abs(value - eta) < 4 * se and abs(value - 1 / 26.25) > 6 * se


def test_uniform_covariates_of_the_construction():
    """n = d = 10 without noise, covariates uniform on (-1, 1): published step 3/19.8."""
    params = LAB.params.make({**ADAM, "model": "reduced", "covariates": "uniform", "dim": 10, "context_length": 10,
                              "noise_var": 0.0, "covariate_spectrum": "custom", "spectrum": (1 / 3,)})  # fmt: skip
    best = prediction.optimum(params)
    assert best.Q[0, 0] == pytest.approx(3 / 19.8, rel=1e-12) and best.loss == pytest.approx(1.64983, abs=1e-5)


# -- tested elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "n", "loss"), [
    ("sum", 5, 3.7534), ("sum", 80, 24.842), ("mean", 5, 4.1616), ("mean", 160, 0.64683),
])  # fmt: skip
def test_other_lengths(attention, n, loss):
    rate = 1e-4 if attention == "sum" else 2e-3
    found = run(attention=attention, learning_rate=rate, test_prompts="shifted", test_context_length=n, replicates=1)
    assert found.prediction.prediction["test_loss"] == pytest.approx(loss, rel=2e-5)
    assert abs(end(found, "test_loss")[0] - loss) < 4 * end(found, "test_loss_se")[0] < 0.06 * loss


@pytest.mark.parametrize(("spectrum", "loss"), [((0.5,), 1.3260), ((3.0,), 48.883)])
def test_other_covariances(spectrum, loss):
    found = run(test_prompts="shifted", test_context_length=20, test_spectrum=spectrum, replicates=1)
    assert found.prediction.prediction["test_loss"] == pytest.approx(loss, rel=5e-5)
    assert abs(end(found, "test_loss")[0] - loss) < 4 * end(found, "test_loss_se")[0]


def test_a_layer_with_harmful_blocks_left_is_tested_whole():
    """Stopped early the even part is there still; the test on prompts agrees with the recorded loss."""
    found = run(init_scale=0.15, steps=30, replicates=4, learning_rate=1e-5)
    assert (end(found, "even_loss") > 0.05 * end(found, "loss")).all()
    gap = end(found, "test_loss") - end(found, "loss")
    assert (np.abs(gap) < 4.5 * end(found, "test_loss_se")).all()


# -- a finite set ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_double_descent_at_as_many_prompts_as_unknowns():
    """Medians over 300 sets against published ones: 12.55(.16) at 20, 161(4.4) at 25, 5.43(.04) at 40, 2.20 at 100."""
    found = run(training="finite_prompts", n_prompts=100, replicates=300, **FEW)
    median = dict(zip(found.trace.step.tolist(), np.median(found.trace.series["loss"], axis=0), strict=True))
    for count, (loss, within) in {20: (12.55, 0.15), 25: (161, 0.35), 40: (5.43, 0.1), 100: (2.20, 0.05)}.items():
        assert median[count] == pytest.approx(loss, rel=within), count
    assert median[0] == pytest.approx(5.25) and max(median, key=median.__getitem__) == 25


def test_a_set_is_solved_at_every_recorded_size():
    found = run(training="finite_prompts", n_prompts=60, replicates=1, dim=3, **FEW)
    params = found.params
    assert found.trace.step.tolist() == list(range(61))
    assert found.trace.series["loss"][0, 0] == pytest.approx(3.25)
    assert end(found, "step_size")[0] == pytest.approx(np.trace(found.trace.finals["preconditioner"][0]) / 3)
    p = theory.Prompts.isotropic(20, 3, 0.25)
    expected = float(theory.odd_loss(p, found.trace.finals["preconditioner"][0]))
    assert end(found, "loss")[0] == pytest.approx(expected, rel=1e-12)
    longer = execute(LAB, params.replace(n_prompts=70))
    np.testing.assert_array_equal(longer.trace.series["loss"][0, :61], found.trace.series["loss"][0])


# -- tasks with a mean -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_known_mean_needs_the_direct_connection():
    """|w0| = 2: published 2.2290 for the useful blocks alone, 1.4405 with all; within 2 % after 3000 batches."""
    for values, loss in (({"model": "reduced"}, 2.2290), ({"model": "full", "skip": True}, 1.4405)):
        found = run(**{**ADAM, **values, "prior_mean": 2.0, "steps": 3000, "replicates": 1})
        assert found.prediction.prediction["optimal_loss"] == pytest.approx(loss, rel=1e-4)
        assert end(found, "test_loss")[0] == pytest.approx(loss, rel=0.02)


# -- ridge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "n", "s2", "loss"), [(5, 20, 0.25, 0.3370), (10, 10, 1.0, 3.852), (5, 10, 0.25, None)])
def test_ridge_says_how_it_was_obtained(d, n, s2, loss):
    made = LAB.predict(LAB.params.make(dim=d, context_length=n, noise_var=s2))
    value, about = made.prediction["bayes_loss"], made.about["bayes_loss"]
    assert about.kind == "sampled" and 0 < about.error < 0.01 * value and "bidiagonal" in about.source
    assert loss is None or value == pytest.approx(loss, abs=4 * about.error + 0.005)
    assert value < made.prediction["optimal_loss"]


def test_ridge_in_one_dimension_and_with_a_spectrum():
    one = LAB.predict(LAB.params.make(dim=1, context_length=5, noise_var=0.5))
    assert one.prediction["bayes_loss"] == pytest.approx(0.628803, abs=1e-5) and one.about["bayes_loss"].error == 0
    assert one.prediction["optimal_loss"] == pytest.approx(0.833333, abs=1e-6)
    spread = LAB.predict(LAB.params.make(SPREAD))
    assert "Wishart" in spread.about["bayes_loss"].source
    assert spread.prediction["bayes_loss"] < spread.prediction["optimal_loss"]
    silent = LAB.predict(LAB.params.make({**ADAM, "teacher": "relu"}))
    assert silent.prediction["bayes_loss"] is None and silent.about["bayes_loss"].reason


# -- what is refused, and what is said ---------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "words"), [
    ({"init_scale": 0.0}, "saddle"),
    ({"covariate_spectrum": "custom", "spectrum": (1.0, 2.0)}, "dim = 5 of them, not 2"),
    ({"test_prompts": "shifted", "test_spectrum": (1.0, 2.0)}, "dim = 5 of them, not 2"),
    ({"spectrum": (1.0,)}, "covariate_spectrum is custom"),
    ({"context_length": 0}, "from 1 to 2000"),
    ({"dim": 65}, "from 1 to 64"),
    ({"noise_var": -0.1}, "from 0 to 100"),
    ({"noise_var": float("nan")}, "noise_var"),
    ({"teacher": "relu"}, "training is sgd or adam"),
    ({**ADAM, "teacher": "relu", "task_var": 2.0}, "unit vectors"),
    ({**ADAM, "teacher": "relu", "task_prior": "inverse_covariance"}, "unit vectors"),
    ({**ADAM, "model": "reduced", "layers": 2, "init": "balanced"}, "stay alike"),
    ({"layers": 2}, "model is reduced"),
    ({"training": "finite_prompts", "dim": 13}, "at most 12"),
    ({"training": "finite_prompts", "learning_rate": 0.1}, "training is exact_gradient or sgd or adam"),
    ({"prior_mean": 1.0}, "training is sgd or adam"),
    ({"test_context_length": 80}, "test_prompts is shifted"),
    ({**ADAM, "covariates": "student_t", "degrees_of_freedom": 4.0}, "from 5 to 1000"),
])  # fmt: skip
def test_bad_input_is_told_what_to_do(values, words):
    with pytest.raises(BadInput) as refused:
        LAB.params.make(values)
    text = str(refused.value)
    assert words in text
    assert any(advice in text for advice in ("Set ", "List ", "Leave ", "change ")), text


def test_the_first_preset_is_the_default_and_its_law_is_isotropic():
    params = LAB.params.make()
    assert prediction.isotropic(params.law) and params.law == params.test_law
    assert LinearAttentionParams.make(SPREAD, spectrum=(2.0,)).law.spectrum == (2.0,) * 5
    power = LinearAttentionParams.make(covariate_spectrum="power_law", power_law_exponent=2.0).law.spectrum
    assert power == pytest.approx([1, 1 / 4, 1 / 9, 1 / 16, 1 / 25])
    inverse = LinearAttentionParams.make(SPREAD, task_prior="inverse_covariance", task_var=2.0).law
    assert np.multiply(inverse.task, inverse.spectrum) == pytest.approx(2.0)


def test_where_the_theory_is_silent_it_says_why():
    cases = [
        {**ADAM, "covariates": "rademacher", **SPREAD},
        {**ADAM, "teacher": "relu", **SPREAD},
        {**ADAM, "model": "reduced", "layers": 2, **SPREAD},
        {**ADAM, "model": "reduced", "layers": 2, "teacher": "relu"},
        {**ADAM, "prior_mean": 1.0},
        {"training": "finite_prompts"},
        {"model": "literal", "init_scale": 0.05},
    ]
    for values in cases:
        made = LAB.predict(LAB.params.make(values))
        for name, value in made.prediction.items():
            assert value is not None or made.about[name].reason, (values, name)
    unclaimed = LAB.predict(LAB.params.make(SPREAD, learning_rate=2e-5))
    assert not unclaimed.claimed("loss").any() and "harmful" in unclaimed.about["loss"].reason
    assert "learning rate" in LAB.predict(LAB.params.make(learning_rate=1e-3)).about["loss"].reason


def test_the_bound_of_separate_keys_is_the_curvature_of_their_loss():
    params = LAB.params.make(SPREAD, model="separate_key_query")
    assert prediction._bound_of(params) == pytest.approx(training.edge(params), rel=1e-4)
    assert flow.largest_learning_rate(prediction.prompts_of(params.law)) < prediction._bound_of(params)
