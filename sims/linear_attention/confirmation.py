"""Independent experiments on linear attention: the layer as it is written down, and layers on each other.

Nothing of the lab's identities is used in training: prompts are drawn example by example on the device, attention is
computed as it is written, and its gradient is that of automatic differentiation. Only the order of products is chosen.
Scores are tokens times (W_K' W_Q query), so that no token is ever projected: of n tokens of d numbers each product
reads all once, and no d x d product is taken for any of them. Several tasks share the covariates of a prompt, each
with a query of its own: then what is drawn and read serves all of them. The losses recorded are exact ones, of the
effective blocks in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import Measured, spread_steps
from ..engine.claims import Verdict
from ..engine.confirmations import Confirmation, Numbers, Place, Result, Settings, judged, observed, verdict
from ..engine.figure import Figure, Line
from ..engine.judges import mean_se
from ..engine.on_device import DTYPES, array, device_generator
from .lab import LAB, LinearAttentionParams
from .torch_landscape import Chart, Landscape

Array = NDArray[np.float64]

SIZES = {"float64": 8.0, "float32": 4.0}
MOST_DIM = int(LinearAttentionParams.fields()["dim"].le)
RECORDED = 60  # steps at which the exact loss is taken
BAYES_DRAWS = 2000


class Contexts:
    """Prompts drawn on the device: contexts of examples, each asked about by several tasks with a query each.

    All is on covariates of unit variance; `root` (d,) takes them to their own.
    """

    def __init__(self, params: LinearAttentionParams, tasks: int, drawn: torch.Generator, device: str, dtype: str):
        law = params.law
        self.n, self.d, self.tasks = law.n, params.dim, tasks
        self.noise_std, self.drawn = math.sqrt(law.noise_var), drawn
        self.real, self.device = DTYPES[dtype], device
        self.root = torch.tensor(law.spectrum, device=device, dtype=self.real).sqrt()
        self.task_root = self.root * torch.tensor(law.task, device=device, dtype=self.real).sqrt()

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normals."""
        return torch.randn(shape, generator=self.drawn, device=self.device, dtype=self.real)

    def draw(self, contexts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Examples (C, n, d), task vectors (C, d, tasks), queries (C, tasks, d), and their noisy labels (C, tasks)."""
        w = self.task_root[:, None] * self.normal(contexts, self.d, self.tasks)
        queries = self.normal(contexts, self.tasks, self.d)
        target = torch.sum(queries.transpose(1, 2) * w, dim=1) + self.noise_std * self.normal(contexts, self.tasks)
        return self.normal(contexts, self.n, self.d), w, queries, target


def set_cosine(optimizer: torch.optim.Optimizer, learning_rate: float, step: int, steps: int) -> None:
    """The learning rate of a step, which falls to zero as a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))


# -- the layer as it is written down ---------------------------------------------------------------------------


class LiteralLayer(torch.nn.Module):
    """One layer of linear attention: key, query and value (d+1, d+1), and output (d+1,)."""

    def __init__(self, d: int, scale: float, drawn: torch.Generator, device: str, dtype: torch.dtype):
        super().__init__()
        e = d + 1

        def weights(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(scale * torch.randn(shape, generator=drawn, device=device, dtype=dtype))

        self.key, self.query, self.value = weights(e, e), weights(e, e), weights(e, e)
        self.output = weights(e)

    def forward(
        self, contexts: Contexts, Z: torch.Tensor, w: torch.Tensor, queries: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """(C, tasks) answers. Tokens are (root z_i, y_i) with y = Z w + noise (C, n, tasks), of which y is not kept."""
        d, root = contexts.d, contexts.root
        x = root * queries
        asked = (x @ self.query[:, :d].T) @ self.key  # W_K' W_Q (x, 0), for each query
        along = (root * asked[..., :d]).transpose(1, 2)
        both = Z @ torch.cat([w, along], dim=2)  # one pass over the examples for the labels and the scores
        y = both[..., : contexts.tasks].detach() + noise
        scores = both[..., contexts.tasks :] + y * asked[..., d][:, None]
        gathered_x = root * (Z.transpose(1, 2) @ scores).transpose(1, 2)
        gathered = torch.cat([gathered_x, torch.sum(y * scores, dim=1)[..., None]], dim=2)
        return x @ self.output[:d] + gathered @ (self.output @ self.value)


def literal_params(settings: Settings, replicates: int) -> LinearAttentionParams:
    """The run of the lab that has the law of the experiment; beyond its largest dimension by the derived law alone."""
    names = ("context_length", "batch", "steps", "learning_rate", "init_scale", "noise_var", "power_law_exponent")
    made = LinearAttentionParams.make(
        {name: settings[name] for name in names},
        training="adam",
        model="literal",
        covariate_spectrum="power_law",
        dim=min(settings["dim"], MOST_DIM),
        replicates=replicates,
    )
    return made if made.dim == settings["dim"] else made.model_copy(update={"dim": settings["dim"]})


def literal_steps(settings: Settings) -> NDArray[np.int64]:
    """The steps at which the exact loss is taken."""
    return spread_steps(settings["steps"], RECORDED // 2, RECORDED // 2)


def run_literal(settings: Settings, part: str, place: Place) -> Result:
    """One layer trained by Adam, on fresh prompts at every step."""
    params, device = literal_params(settings, 1), place.device
    number, steps, batch = int(part.removeprefix("run ")), settings["steps"], settings["batch"]
    drawn = device_generator(device, settings["seed"], number)
    contexts = Contexts(params, settings["tasks"], drawn, device, settings["dtype"])
    layer = LiteralLayer(params.dim, params.init_scale, drawn, device, contexts.real)
    optimizer = torch.optim.Adam(layer.parameters(), lr=params.learning_rate)
    landscape = Landscape(params.law, 1.0, device, "float64")
    chart = Chart("literal", landscape, skip=True)
    recorded = set(literal_steps(settings).tolist())
    losses = torch.zeros((0, 2), device=device, dtype=torch.float64)
    first, count = 0, batch // settings["tasks"]
    begun = place.begun()
    if begun is not None:
        layer.load_state_dict(begun["layer"])
        optimizer.load_state_dict(begun["optimizer"])
        drawn.set_state(begun["noise"].cpu())
        losses, first = begun["losses"], int(begun["step"])

    def state() -> dict[str, Any]:
        return {
            "layer": layer.state_dict(), "optimizer": optimizer.state_dict(), "noise": drawn.get_state(),
            "losses": losses, "step": k,
        }  # fmt: skip

    for k in range(first, steps + 1):
        place.keep(state)
        if k in recorded:
            flat = torch.cat([weights.detach().flatten() for weights in layer.parameters()])
            at = chart.unpack(flat.to(torch.float64)[None])
            losses = torch.cat([losses, torch.stack(landscape.losses(at), dim=1)])
        if k == steps:
            break
        set_cosine(optimizer, params.learning_rate, k, steps)
        Z, w, queries, target = contexts.draw(count)
        noise = contexts.noise_std * contexts.normal(count, contexts.n, contexts.tasks)
        torch.mean((layer(contexts, Z, w, queries, noise) - target) ** 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    odd, even = array(losses).T
    return Result(
        {"loss": (odd + even).tolist(), "even_loss": even.tolist(), **_matrix(params, landscape.as_they_are(at)[0])},
        samples=steps * count * settings["tasks"],
        dtype=settings["dtype"],
        **_literal_work(settings),
    )


def _matrix(params: LinearAttentionParams, blocks: Array) -> dict[str, Any]:
    """How far the effective matrix is from the optimal one, in the norm that the loss sees and in all, and both
    diagonals."""
    from theory.linear_attention import optimal_preconditioner

    from .prediction import prompts_of
    from .training import trained

    prompts, Q = prompts_of(params.law), trained(params, blocks, np.zeros_like(blocks), -1).Q
    best = optimal_preconditioner(prompts)

    def seen(M: Array) -> float:
        return float(np.sum((prompts.Sig @ M @ prompts.R) * M))

    return {
        "matrix_error": math.sqrt(seen(Q - best) / seen(best)),
        "plain_matrix_error": float(np.linalg.norm(Q - best) / np.linalg.norm(best)),
        "diagonal": np.diag(Q).tolist(),
    }


def _literal_work(settings: Settings) -> dict[str, float]:
    """Products with the examples: labels, scores and what they gather, then two of the gradient; and of the weights."""
    size, steps, e = SIZES[settings["dtype"]], float(settings["steps"]), settings["dim"] + 1.0
    batch, n = float(settings["batch"]), settings["context_length"]
    examples = batch / settings["tasks"] * n * settings["dim"]
    return {
        "flops": steps * batch * (10.0 * n * settings["dim"] + 18.0 * e * e),
        "bytes": steps * size * (5.0 * examples + 8.0 * batch * n),  # drawn once, read four times
        "working_set": size * examples,
    }


def literal_bytes(settings: Settings) -> float:
    """Examples, a dozen numbers for each example and task, and the weights with their gradients and moments."""
    size, batch, d, n = (SIZES[settings["dtype"]], settings["batch"], settings["dim"], settings["context_length"])
    contexts = max(1.0, batch / settings["tasks"])
    weights = 3.0 * (d + 1.0) ** 2
    one = contexts * n * d + 12.0 * batch * n + 12.0 * batch * d + 8.0 * weights
    return size * one + 8.0 * 12.0 * weights


def _parts_of_runs(settings: Settings) -> list[str]:
    return [f"run {number}" for number in range(settings["runs"])]


def judge_literal(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """Where training ends, against the theorem; and the lab's own claims on it."""
    from theory.linear_attention import optimal_loss

    from .prediction import prompts_of

    parts = _parts_of_runs(settings)
    params = literal_params(settings, len(parts))
    best = optimal_loss(prompts_of(params.law))
    series = {name: np.array([numbers[part][name] for part in parts]) for name in ("loss", "even_loss")}
    errors = np.array([numbers[part]["matrix_error"] for part in parts])
    plain = np.array([numbers[part]["plain_matrix_error"] for part in parts])
    ratio, ratio_se = mean_se(series["loss"][:, -1] / best)
    error, error_se = mean_se(errors)
    run = observed(LAB, params, literal_steps(settings), series, {}, {"optimal_loss": best})
    source = "Mahankali, Hashimoto & Ma 2024"
    note = f"Entry by entry it is {np.mean(plain):.2g} away, most of it where the loss does not look."
    return [
        verdict(
            "lands",
            f"Keys, queries, values and output trained as four matrices in {settings['dim']} dimensions end at the "
            "least loss of one preconditioned gradient step (within 2 %).",
            source,
            Measured(1.0, ratio, ratio_se, 0.02),
            len(parts),
        ),
        verdict(
            "matrix",
            "They multiply to the preconditioner (within 5 % in the norm that the loss sees).",
            source,
            Measured(0.0, error, error_se, 0.05, note),
            len(parts),
        ),
        *(judged(LAB, name, [run]) for name in settings["claims"]),
    ]


def draw_literal(settings: Settings, numbers: Numbers) -> Figure:
    """The exact loss through training, and what one layer and ridge regression can reach at best."""
    from theory.linear_attention import optimal_loss, task_spectrum
    from theory.ridge import bayes_equivalent

    from .prediction import prompts_of

    params = literal_params(settings, 1)
    prompts, step = prompts_of(params.law), literal_steps(settings)
    at = step >= 1
    lines = [
        Line(part, step[at].tolist(), np.array(numbers[part]["loss"])[at].tolist(), colour)
        for colour, part in enumerate(_parts_of_runs(settings))
    ]
    ends = [1.0, float(settings["steps"])]
    best, ridge = optimal_loss(prompts), bayes_equivalent(task_spectrum(prompts), prompts.n, prompts.s2)
    lines.append(Line("one layer at its best", ends, [best, best], 6, dashed=True))
    lines.append(Line("ridge regression", ends, [ridge, ridge], 6, dashed=True))
    title = f"The literal layer, {settings['dim']} dimensions, {settings['context_length']} examples"
    return Figure(title, "step of Adam", "loss", lines, log_x=True)


# -- layers on each other --------------------------------------------------------------------------------------


def stack_params(settings: Settings, layers: int, replicates: int) -> LinearAttentionParams:
    """The run of the lab that has the law of so many layers."""
    names = ("dim", "context_length", "batch", "steps", "learning_rate", "init_scale", "noise_var")
    given = {name: settings[name] for name in names}
    return LinearAttentionParams.make(given, training="adam", model="reduced", layers=layers, replicates=replicates)


def stack_answers(A: torch.Tensor, Z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(R, C, d, tasks) the answers of layers A (R, k, d, d) to examples Z (R, C, n, d) and y (R, C, n, tasks).

    Each layer gathers g = sum_i y_i z_i, adds A_j g to the answer, and takes <z_i, A_j g> off every label.
    """
    answer: torch.Tensor | None = None
    for j in range(A.shape[1]):
        step = torch.einsum("rij,rcjt->rcit", A[:, j], Z.transpose(2, 3) @ y)
        answer = step if answer is None else answer + step
        if j + 1 < A.shape[1]:
            y = y - Z @ step
    assert answer is not None, "there is a layer"
    return answer


def run_stack(settings: Settings, part: str, place: Place) -> Result:
    """So many layers trained by Adam on fresh prompts, all runs at once, then tested on fresh ones beside ridge."""
    layers, runs = int(part.split(" ")[0]), settings["runs"]
    params, device = stack_params(settings, layers, runs), place.device
    drawn = device_generator(device, settings["seed"], layers)
    contexts = Contexts(params, settings["tasks"], drawn, device, settings["dtype"])
    A = torch.nn.Parameter(params.init_scale * contexts.normal(runs, layers, params.dim, params.dim))
    optimizer = torch.optim.Adam([A], lr=params.learning_rate)
    steps, count, first = params.steps, params.batch // settings["tasks"], 0
    begun = place.begun()
    if begun is not None:
        A.data.copy_(begun["A"])
        optimizer.load_state_dict(begun["optimizer"])
        drawn.set_state(begun["noise"].cpu())
        first = int(begun["step"])

    def state() -> dict[str, Any]:
        return {"A": A.detach(), "optimizer": optimizer.state_dict(), "noise": drawn.get_state(), "step": k}

    for k in range(first, steps):
        place.keep(state)
        set_cosine(optimizer, params.learning_rate, k, steps)
        Z, w, queries, target = (values.unflatten(0, (runs, count)) for values in contexts.draw(runs * count))
        y = Z @ w + contexts.noise_std * contexts.normal(runs, count, contexts.n, contexts.tasks)
        answer = torch.sum(queries.transpose(2, 3) * stack_answers(A, Z, y), dim=2)
        torch.sum(torch.mean((answer - target) ** 2, dim=(1, 2))).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        tested = _tested(settings, contexts, A)
    taken = np.sort(array(A.diagonal(dim1=2, dim2=3).mean(dim=2)), axis=1)
    size, n, d = SIZES[settings["dtype"]], params.context_length, params.dim
    passes = 2.0 * layers + 2.0 * (2 * layers - 1)  # over the examples: forwards, and back without those to the labels
    examples = float(runs * count * n * d)
    return Result(
        {**tested, "layer_steps": taken.tolist()},
        samples=runs * (steps * count * settings["tasks"] + settings["n_test"]),
        flops=steps * examples * settings["tasks"] * 2.0 * passes,
        bytes=steps * size * examples * (1.0 + passes),
        working_set=size * examples,
        dtype=settings["dtype"],
    )


def _tested(settings: Settings, contexts: Contexts, A: torch.Tensor) -> dict[str, list[float]]:
    """Mean loss on fresh prompts and its standard error, of the layers of every run and of ridge regression.

    All on the same prompts, a task each, and the error averaged over the query.
    """
    alone = Contexts(stack_params(settings, 1, 1), 1, contexts.drawn, contexts.device, settings["dtype"])
    risks: dict[str, list[torch.Tensor]] = {"test_loss": [], "ridge_loss": []}
    eye = torch.eye(alone.d, device=alone.device, dtype=alone.real)
    for begin in range(0, settings["n_test"], settings["batch"]):
        count = min(settings["batch"], settings["n_test"] - begin)
        Z, w, _, _ = (values[None] for values in alone.draw(count))
        y = Z @ w + alone.noise_std * alone.normal(1, count, alone.n, 1)
        ridge = torch.linalg.solve(Z.transpose(2, 3) @ Z + alone.noise_std**2 * eye, Z.transpose(2, 3) @ y)
        layers = torch.cat([stack_answers(one[None], Z, y) for one in A])
        for name, answer in (("test_loss", layers), ("ridge_loss", ridge)):
            risks[name].append(torch.sum((answer - w) ** 2, dim=(2, 3)).to(torch.float64) + alone.noise_std**2)
    found = {}
    for name, parts in risks.items():
        means = [mean_se(one) for one in array(torch.cat(parts, dim=1))]
        found[name] = [mean for mean, _ in means]
        found[f"{name}_se"] = [error or 0.0 for _, error in means]
    return found


def stack_bytes(settings: Settings) -> float:
    """Examples of the largest stack with what its layers keep of each for the gradient, and those of the test."""
    size, d, n = SIZES[settings["dtype"]], settings["dim"], settings["context_length"]
    contexts, layers = settings["batch"] / settings["tasks"], max(settings["layers"])
    training = settings["runs"] * (contexts * n * d + settings["batch"] * (n + 2.0 * d) * (3.0 * layers + 4.0))
    test = settings["batch"] * (n * d + 4.0 * d * d + (4.0 + settings["runs"]) * (n + d))
    return size * max(training, test)


def _stack_parts(settings: Settings) -> list[str]:
    return [f"{k} layer" if k == 1 else f"{k} layers" for k in settings["layers"]]


def _over_runs(settings: Settings, numbers: Numbers, layers: int, name: str) -> Array:
    """(runs, ...) a number of every run of so many layers."""
    part = dict(zip(settings["layers"], _stack_parts(settings), strict=True))[layers]
    return np.array(numbers[part][name])


def _limits(settings: Settings) -> tuple[dict[int, float], float]:
    """The least loss of so many layers, and that of ridge regression."""
    from theory.linear_attention import stacked_layers
    from theory.ridge import bayes_isotropic

    law = stack_params(settings, 1, 1).law
    rng = np.random.Generator(np.random.Philox(settings["seed"]))
    bayes = bayes_isotropic(settings["dim"], law.n, law.noise_var, BAYES_DRAWS, rng).mean
    return {k: stacked_layers(k, law.n, settings["dim"], law.noise_var).loss for k in settings["layers"]}, bayes


def judge_stack(settings: Settings, numbers: Numbers) -> list[Verdict]:
    """One layer against its optimum, more against theirs by the lab's own claims, and all in order before ridge."""
    limits, bayes = _limits(settings)
    runs = []
    for k in settings["layers"]:
        if k > 1:
            params = stack_params(settings, k, settings["runs"])
            values = {name: _over_runs(settings, numbers, k, name) for name in ("test_loss", "test_loss_se")}
            steps = {"layer_steps": _over_runs(settings, numbers, k, "layer_steps")}
            runs.append(observed(LAB, params, [0], {}, values, {"test_loss": limits[k]}, steps))
    one = _over_runs(settings, numbers, 1, "test_loss") / limits[1]
    one_se = float(np.sqrt(np.mean(_over_runs(settings, numbers, 1, "test_loss_se") ** 2) / len(one))) / limits[1]
    found = [(*mean_se(_over_runs(settings, numbers, k, "test_loss")), limits[k]) for k in settings["layers"]]
    ridge = np.concatenate([_over_runs(settings, numbers, k, "ridge_loss") for k in settings["layers"]])
    found.append((*mean_se(ridge), bayes))
    ratios = [
        (low / high, low / high * math.hypot((low_se or 0.0) / low, (high_se or 0.0) / high), best / before)
        for (high, high_se, before), (low, low_se, best) in pairwise(found)
    ]
    closest = max(ratios)
    many = settings["runs"]
    return [
        verdict(
            "one_layer",
            f"One layer in {settings['dim']} dimensions ends at the least loss of one step, not below (within 1 %).",
            "Mahankali, Hashimoto & Ma 2024",
            Measured(1.0, float(np.mean(one)), one_se, 0.01),
            many,
        ),
        judged(LAB, "layers_loss", runs),
        judged(LAB, "layer_steps", runs),
        verdict(
            "order",
            "Each further layer is better, and ridge regression better than all: the largest ratio of a loss to the "
            "one before it is what theory says, below 1 (within 0.03).",
            "least squares over polynomials in a Wishart matrix; Bayes risk",
            Measured(closest[2], closest[0], closest[1], 0.03),
            many,
        ),
    ]


def draw_stack(settings: Settings, numbers: Numbers) -> Figure:
    """The loss on fresh prompts against the number of layers, theory dashed, and ridge regression below."""
    limits, bayes = _limits(settings)
    layers = [float(k) for k in settings["layers"]]
    means = [float(np.mean(_over_runs(settings, numbers, k, "test_loss"))) for k in settings["layers"]]
    lines = [
        Line("layers trained", layers, means, 0),
        Line("plain steps at their best", layers, [limits[k] for k in settings["layers"]], 6, dashed=True),
        Line("ridge regression", [layers[0], layers[-1]], [bayes, bayes], 1, dashed=True),
    ]
    title = f"Layers on each other, {settings['dim']} dimensions, {settings['context_length']} examples"
    return Figure(title, "layers", "loss on fresh prompts", lines, log_y=True)


# -- the sizes -------------------------------------------------------------------------------------------------

_LITERAL: Mapping[str, Any] = {
    "noise_var": 0.25, "power_law_exponent": 1.0, "learning_rate": 5e-3, "init_scale": 0.02, "tasks": 4, "seed": 1,
    "dtype": "float32", "claims": ["never_below_the_optimum", "even_part_dies"],
}  # fmt: skip
_SMALL_LITERAL = {"dim": 16, "context_length": 64, "batch": 512, "steps": 3000, "runs": 3}
_FULL_LITERAL = {"dim": 256, "context_length": 1024, "batch": 4096, "steps": 20_000, "runs": 2}

_STACK: Mapping[str, Any] = {
    "layers": [1, 2, 3], "noise_var": 0.25, "learning_rate": 0.01, "init_scale": 0.01, "seed": 2,
    "dtype": "float32",
}  # fmt: skip
_SMALL_STACK = {"dim": 5, "context_length": 20, "batch": 512, "tasks": 2, "steps": 1500, "runs": 5, "n_test": 50_000}
_FULL_STACK = {"dim": 64, "context_length": 256, "batch": 4096, "tasks": 4, "steps": 6000, "runs": 2, "n_test": 200_000}

CONFIRMATIONS = tuple(
    Confirmation(
        id="literal_layer",
        title="The attention layer as it is written down, trained by automatic differentiation on prompts drawn on the "
        "device, and its exact loss.",
        scale=scale,
        settings={**_LITERAL, **sizes},
        parts=_parts_of_runs,
        run=run_literal,
        bytes=literal_bytes,
        resize="batch",
        judge=judge_literal,
        figure=draw_literal,
    )
    for scale, sizes in (("small", _SMALL_LITERAL), ("full", _FULL_LITERAL))
) + tuple(
    Confirmation(
        id="stacked_layers",
        title="One, two and three layers on each other, trained on whole prompts, beside ridge regression on the same "
        "fresh ones.",
        scale=scale,
        settings={**_STACK, **sizes},
        parts=_stack_parts,
        run=run_stack,
        bytes=stack_bytes,
        resize="batch",
        judge=judge_stack,
        figure=draw_stack,
    )
    for scale, sizes in (("small", _SMALL_STACK), ("full", _FULL_STACK))
)
