"""Linear attention with torch against the kernels: every way to train, every model, every kind of prompt, the edges."""

import numpy as np
import pytest
import torch

from sims.engine import execute, get_lab
from sims.engine.backends import choose
from sims.linear_attention import confirmation, torch_landscape
from sims.linear_attention.confirmation import Contexts, LiteralLayer, literal_params, stack_answers
from sims.linear_attention.population import gradient
from sims.linear_attention.torch_landscape import Blocks, Landscape

LAB = get_lab("linear_attention")
SPREAD = {"covariate_spectrum": "custom"}
RATES = {"exact_gradient": 3e-5, "sgd": 1e-4, "adam": 0.02}
MODELS = LAB.params.fields()["model"].choices
TEACHERS = LAB.params.fields()["teacher"].choices
COVARIATES = LAB.params.fields()["covariates"].choices


def small(**case):
    sizes = {"steps": 40, "replicates": 2, "n_test": 300, "init_scale": 0.05}
    if case.get("training", "exact_gradient") in ("sgd", "adam"):
        sizes |= {"batch": 30}
    if case.get("training") == "finite_prompts":
        sizes = {"replicates": 2, "n_test": 300}
    else:
        sizes |= {"learning_rate": RATES[case.get("training", "exact_gradient")]}
    return LAB.params.make(**{**sizes, **case})


def both(params, dtype="float64"):
    kernel = execute(LAB, params, fresh=True)
    batch = execute(LAB, params, fresh=True, backend=choose("torch", "cpu", dtype))
    assert (kernel.provenance["backend"], batch.provenance["backend"]) == ("numba", "torch")
    return kernel.trace, batch.trace


def agree(kernel, batch, rtol=1e-9, atol=1e-12):
    assert batch.stopped == kernel.stopped
    for ours, theirs in ((batch.series, kernel.series), (batch.finals, kernel.finals), (batch.frames, kernel.frames)):
        assert list(ours) == list(theirs)
        for name, values in ours.items():
            np.testing.assert_allclose(values, theirs[name], rtol=rtol, atol=atol, err_msg=name)


CASES = [
    *({"training": training, "model": model} for training in RATES for model in MODELS),
    *({"training": training, "model": model, "attention": "mean", "task_prior": "inverse_covariance", **SPREAD}
      for training in RATES for model in MODELS),
    *({"training": training, "skip": True, **SPREAD} for training in RATES),
    *({"model": model, "init": "balanced", **SPREAD} for model in MODELS),
    *({"dim": d, "context_length": n, "noise_var": 0.0, "training": training}
      for d, n in ((1, 2), (2, 1)) for training in RATES),
    *({"dim": 14, "learning_rate": 1e-5, "model": model} for model in MODELS),
    {"dim": 14, "learning_rate": 1e-5, "skip": True, "covariate_spectrum": "power_law"},
    *({"training": "adam", "model": "reduced", "teacher": one} for one in TEACHERS if one != "linear"),
    *({"training": "adam", "covariates": one} for one in COVARIATES if one != "gaussian"),
    {"training": "adam", "model": "literal", "covariates": "student_t", "teacher": "network"},
    *({"training": "adam", "model": "reduced", "layers": k, **SPREAD} for k in (2, 3, 4)),
    *({"training": training, "model": "reduced", "layers": 2, "covariates": "student_t", "learning_rate": 1e-4}
      for training in ("adam", "sgd")),
    {"training": "adam", "model": "reduced", "layers": 2, "dim": 4, "context_length": 3},
    {"training": "adam", "prior_mean": 2.0, "skip": True},
    {"training": "adam", "model": "reduced", "prior_mean": 2.0, "layers": 2},
    {"training": "finite_prompts", "n_prompts": 60, "dim": 3},
    {"training": "finite_prompts", "n_prompts": 40, "dim": 3, "covariate_spectrum": "power_law"},
    {"test_prompts": "shifted", "test_context_length": 80, "attention": "mean"},
    {"test_prompts": "shifted", "test_spectrum": (2.0,), "model": "literal"},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_float64_repeats_the_kernel(case):
    """The whole trace within 1e-9: series, what the layer ended with, its test, and frames."""
    agree(*both(small(**case)))


DIVERGING = [
    {"learning_rate": 8e-4, "init_scale": 0.4},
    {"learning_rate": 0.02, "init_scale": 0.4, "model": "literal"},
    {"learning_rate": 0.02, "init_scale": 0.5, "model": "separate_key_query"},
    {"learning_rate": 0.02, "init_scale": 0.5, "model": "reduced", "init": "balanced"},
    {"learning_rate": 0.003, "init_scale": 0.2, "training": "sgd", "batch": 20},
    {"learning_rate": 0.05, "init_scale": 0.2, "training": "sgd", "model": "reduced", "layers": 2, "batch": 20},
]


@pytest.mark.parametrize("case", DIVERGING, ids=lambda case: "-".join(map(str, case.values())))
def test_replicates_that_diverge_stop_at_the_same_step(case):
    kernel, batch = both(small(steps=200, replicates=4, **case))
    assert any(stop is not None for stop in kernel.stopped)
    agree(kernel, batch, rtol=1e-6)


@pytest.mark.parametrize("case", [{}, {"training": "adam"}, {"training": "adam", "model": "literal"}], ids=str)
def test_float32_follows_to_the_end_of_the_claims(case):
    """Loss and step size within 1e-3 of what they are, over a run that lands."""
    sizes = {"replicates": 2, "n_test": 300, "init_scale": 0.02, "steps": 3000}
    sizes |= {"learning_rate": 0.005, "steps": 400, "batch": 64} if case else {}
    kernel, batch = both(LAB.params.make(**sizes, **case), "float32")
    for name in ("loss", "step_size"):
        largest = np.max(np.abs(kernel.series[name]))
        np.testing.assert_allclose(batch.series[name], kernel.series[name], rtol=0, atol=1e-3 * largest, err_msg=name)


def test_steps_in_several_chunks_are_the_same_steps(monkeypatch):
    monkeypatch.setattr(torch_landscape, "MOST_STEPS", 7)
    for model in MODELS:
        agree(*both(small(model=model)))


def test_the_map_written_out_is_the_map_as_one_matrix(monkeypatch):
    first = both(small(skip=True, **SPREAD))[1]
    monkeypatch.setattr(torch_landscape, "DENSE_NUMBERS", 0)
    agree(first, both(small(skip=True, **SPREAD))[1])


@pytest.mark.parametrize("case", [{}, SPREAD, {"dim": 1}, {"context_length": 1, **SPREAD}], ids=str)
def test_the_bound_of_the_loss_is_above_it(case):
    """Random blocks of all sizes; where there is one covariate, most are within a factor of ten."""
    params = small(**case)
    landscape = Landscape(params.law, 1.0, "cpu", "float64")
    rng, d = np.random.default_rng(5), params.dim
    at = landscape.whitened(rng.standard_normal((200, d * d + 3 * d + 1)) * 10.0 ** rng.uniform(-4, 3, (200, 1)))
    odd, even = landscape.losses(at)
    bound = landscape.at_most(at)
    assert torch.all(bound >= odd + even)
    if d == 1:
        assert torch.median(bound / (odd + even)) < 10.0


def test_losses_of_a_run_that_lands_are_computed_where_they_are_recorded(monkeypatch):
    seen, losses = [], Landscape.losses
    monkeypatch.setattr(Landscape, "losses", lambda self, at, whole: seen.append(len(at.c)) or losses(self, at, whole))
    params = LAB.params.make(replicates=2, n_test=300)
    execute(LAB, params, fresh=True, backend=choose("torch", "cpu", "float64"))
    assert sum(seen) == 2 * (len(LAB.recorded_steps(params)) + 1)  # and before the first step, for the limit


def test_the_gradient_is_that_of_products_of_matrices():
    """Random blocks, the skip vector among them: losses and gradient of `population.gradient`."""
    params = small(**SPREAD)
    landscape = Landscape(params.law, 1.0, "cpu", "float64")
    d, rng = params.dim, np.random.default_rng(3)
    blocks = rng.standard_normal(d * d + 3 * d + 1)
    at = landscape.whitened(blocks[None])
    out = np.empty_like(blocks)
    losses = gradient(np.diag(params.law.spectrum), np.diag(params.law.task), params.law.n, 0.25, blocks, out)
    np.testing.assert_allclose([float(part[0]) for part in landscape.losses(at)], losses, rtol=1e-12)
    slope = landscape.gradient(at)
    root = landscape.root
    ours = Blocks(root * slope.u, slope.c, root[:, None] * slope.A * root, root * slope.b, root * slope.h)
    flat = torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in ours], dim=1)
    np.testing.assert_allclose(flat[0].numpy(), out, rtol=1e-11)


# -- confirmations -------------------------------------------------------------------------------------------------

SETTINGS = {"dim": 4, "context_length": 7, "batch": 6, "tasks": 2, "steps": 1, "noise_var": 0.25, "init_scale": 0.3}
SETTINGS |= {"power_law_exponent": 1.0, "learning_rate": 5e-3, "seed": 3, "dtype": "float64"}


def test_the_layer_in_few_products_is_attention_as_it_is_written():
    """Token by token, h.(v_q + sum_i W_V v_i <W_K v_i, W_Q v_q>); the gradient by differences."""
    params = literal_params(SETTINGS, 1)
    drawn = torch.Generator().manual_seed(1)
    contexts = Contexts(params, 2, drawn, "cpu", "float64")
    layer = LiteralLayer(4, 0.3, drawn, "cpu", torch.float64)
    Z, w, queries, _ = contexts.draw(3)
    noise = 0.5 * contexts.normal(3, 7, 2)

    def written(context, task):
        X, x = contexts.root * Z[context], contexts.root * queries[context, task]
        y = Z[context] @ w[context, :, task] + noise[context, :, task]
        query = torch.cat([x, torch.zeros(1, dtype=torch.float64)])
        total = query.clone()
        for token in torch.cat([X, y[:, None]], dim=1):
            total = total + (layer.value @ token) * torch.dot(layer.key @ token, layer.query @ query)
        return torch.dot(layer.output, total)

    expected = torch.stack([torch.stack([written(c, t) for t in range(2)]) for c in range(3)])
    answers = layer(contexts, Z, w, queries, noise)
    torch.testing.assert_close(answers, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(torch.sum(answers**2), list(layer.parameters()))
    theirs = torch.autograd.grad(torch.sum(expected**2), list(layer.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_task_vector_labels_its_queries_as_its_examples():
    """Queries and examples have one law: mean squares of 4000 labels, seed 2, s.e. 2.2 %, within 8 %."""
    contexts = Contexts(literal_params(SETTINGS, 1), 2, torch.Generator().manual_seed(2), "cpu", "float64")
    Z, w, _, target = contexts.draw(2000)
    labels = Z[:, 0, :, None].transpose(1, 2) @ w
    expected = float(torch.sum(contexts.task_root**2))
    assert float(torch.mean(labels**2)) == pytest.approx(expected, rel=0.08)
    assert float(torch.mean(target**2)) == pytest.approx(expected + 0.25, rel=0.08)


def test_layers_on_each_other_are_steps_of_gradient_descent():
    """Plain steps a_j: w_1 = a_1 X'y, then the residual's gradient."""
    drawn = torch.Generator().manual_seed(4)
    Z = torch.randn((1, 3, 7, 4), generator=drawn, dtype=torch.float64)
    y = torch.randn((1, 3, 7, 2), generator=drawn, dtype=torch.float64)
    steps = (0.03, 0.05, 0.01)
    answer = torch.zeros((1, 3, 4, 2), dtype=torch.float64)
    for step in steps:
        answer = answer + step * Z.transpose(2, 3) @ (y - Z @ answer)
    A = torch.stack([step * torch.eye(4, dtype=torch.float64) for step in steps])[None]
    torch.testing.assert_close(stack_answers(A, Z, y), answer, rtol=1e-12, atol=1e-14)


def test_an_interrupted_layer_goes_on_where_it_was(tmp_path):
    """Stopped after 25 of 60 steps: the numbers are those of an undisturbed run."""
    from sims.engine.confirmations import Place

    settings = {**SETTINGS, "steps": 60, "runs": 1, "claims": []}

    class Stopped(Exception):
        pass

    class Interrupted(Place):
        def keep(self, state):
            super().keep(state)
            if state()["step"] == 25:
                raise Stopped

    whole = confirmation.run_literal(settings, "run 0", Place("cpu")).numbers
    with pytest.raises(Stopped):
        confirmation.run_literal(settings, "run 0", Interrupted("cpu", tmp_path / "s.pt", "i", keep_seconds=0.0))
    resumed = confirmation.run_literal(settings, "run 0", Place("cpu", tmp_path / "s.pt", "i")).numbers
    assert resumed == whole
