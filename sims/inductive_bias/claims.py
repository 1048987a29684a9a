"""Sentences about encoders of one loss, executable: their spectra, their minimisers, and what these know.

What is deterministic has no standard error; what is not, one over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Claim, Measured
from ..engine.judges import farthest, mean_se, predicted
from .lab import CLASSES

if TYPE_CHECKING:
    from ..engine import Run
    from .lab import InductiveBiasParams

Array = NDArray[np.float64]
Runs = Callable[["InductiveBiasParams"], "list[InductiveBiasParams]"]

_MEASURED = "found in simulations, no theorem"
_EIGEN = "generalised eigenproblem C_plus v = mu C v"
_RANDOM = "mean projection onto a uniformly random subspace"
SHOWN_K = (3, 8, 32, 128, 256)  # of random minimisers over 256 patterns
SEEDS, DRAWS = 20, 2000


def _exact(measured: float, tolerance: float, predicted: float = 0.0) -> Measured:
    return Measured(predicted, measured, 0.0, tolerance)


def _trained(p: InductiveBiasParams) -> bool:
    return p.training != "minimiser" and p.encoder != "mlp"


def _known(p: InductiveBiasParams) -> bool:
    return p.encoder in ("linear", "polynomial", "table")


def _as_many_as_content(p: InductiveBiasParams) -> bool:
    return p.encoder == "linear" and p.n_features == p.content and p.label == "bits"


def _clean_flips(p: InductiveBiasParams) -> bool:
    """Whether content alone is invariant, so that the table has 2^s pieces."""
    return p.augmentation == "flip" and p.flip_content == 0.0 and p.flip_style > 0.0 and p.training == "minimiser"


def _separated(p: InductiveBiasParams) -> str | None:
    from .prediction import not_separated

    return not_separated(p)


# -- judges ----------------------------------------------------------------------------------------------------------


def _worst(found: Sequence[tuple[float, Array]], tolerance: float) -> Measured:
    """Of pairs of a prediction and (R,) values the one whose mean is farthest off."""
    pairs = [(expected, *mean_se(values)) for expected, values in found]
    return Measured(*max(pairs, key=lambda one: abs(one[1] - one[0]) if math.isfinite(one[1]) else math.inf), tolerance)


def _spectrum_top(params: InductiveBiasParams, count: int) -> Array:
    from .prediction import spectrum_of

    known = spectrum_of(params)
    assert known is not None
    return known.top(count)


def _judge_spectrum(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    found = run.trace.finals["eigenvalues"]
    return _exact(float(np.max(np.abs(found - _spectrum_top(run.params, found.shape[1])))), 1e-9)


def _judge_sampled(tolerance: float) -> Callable[[Sequence[Run]], Measured]:
    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        found = run.trace.finals["eigenvalues"]
        expected = _spectrum_top(run.params, found.shape[1])
        return _worst([(float(mu), found[:, i]) for i, mu in enumerate(expected)], tolerance)

    return judge


def _judge_units(runs: Sequence[Run]) -> Measured:
    """Largest gap of the numbers of invariant directions, and of the eigenvalue that follows, over the classes."""
    gaps = []
    for run in runs:
        expected = float(run.prediction.prediction["units"])
        values = run.trace.finals["eigenvalues"][0]
        gaps.append(float(np.max(np.abs(run.values["units"] - expected))))
        if expected < len(values):
            after = _spectrum_top(run.params, int(expected) + 1)[-1]
            gaps.append(abs(float(values[int(expected)]) - float(after)))
    return _exact(max(gaps), 1e-9)


def _judge_interlacing(runs: Sequence[Run]) -> Measured:
    """Largest excess of an eigenvalue of the class over that of the table with the same number."""
    (run,) = runs
    found = run.trace.finals["eigenvalues"]
    free = _spectrum_top(run.params.replace(encoder="table"), found.shape[1])
    return _exact(float(np.max(np.maximum(found - free, 0.0))), 1e-9)


def _judge_least_loss(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    least = float(run.prediction.prediction["min_loss"])
    if run.params.training != "minimiser":
        return Measured(least, *mean_se(run.values["loss"]), 0.005)
    return _exact(farthest([(float(value), 0.0) for value in run.values["loss"]], least)[0], 1e-8, least)


def _judge_never_below(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    below = run.values["min_loss"][:, None] - run.trace.series["loss"]
    return _exact(float(np.nanmax(np.maximum(below, 0.0), initial=0.0)), 1e-9)


def _judge_random(runs: Sequence[Run]) -> Measured:
    """Mean R^2 of the first k features of a random minimiser, k at which it is farthest from its expectation."""
    from theory.inductive_bias import expected_r2, label_energy

    from .prediction import spectrum_of

    found = []
    for run in runs:
        p = run.params
        known = spectrum_of(p)
        assert known is not None
        energy, r2 = label_energy(p.content, p.label), run.trace.finals["r2_by_k"]
        ks = range(1, p.n_features + 1) if p.n_features <= 16 else SHOWN_K
        found += [(expected_r2(known, energy, k, p.intercept), r2[:, k - 1]) for k in ks]
    return _worst(found, 0.01 if runs[0].params.n_features > 16 else 0.015)


def _judge_ramp(runs: Sequence[Run]) -> Measured:
    """Mean R^2 over the content bits of k <= s features against k/s, in every replicate."""
    (run,) = runs
    p, r2 = run.params, run.trace.finals["r2_by_k"]
    ks = np.arange(1, min(p.n_features, p.content) + 1)
    return _exact(float(np.max(np.abs(r2[:, : len(ks)] - ks / p.content))), 1e-9)


def _judge_useless(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    expected = run.prediction.prediction["probe_r2"]
    assert expected is not None
    return Measured(float(expected), *mean_se(run.values["probe_r2"]), 0.01)


def _judge_frozen(runs: Sequence[Run]) -> Measured:
    small, large = (run.values["probe_r2"] for run in runs)
    return _exact(float(np.max(np.abs(small - large))), 1e-9)


def _judge_content(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return Measured(1.0, *mean_se(run.values["probe_r2"]), 0.05)


def _judge_style(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    return Measured(0.0, *mean_se(run.values["probe_r2"]), 0.01)


def _judge_same_use(runs: Sequence[Run]) -> Measured:
    """Accuracy of the probe on the encoder at hand against that on a linear one of the same loss."""
    own, linear = (mean_se(run.values["probe_accuracy"]) for run in runs)
    return Measured(linear[0], *own, 0.02)


def _gram_gaps(run: Run, off_diagonal: bool) -> Measured:
    """Mean entries of U^T U against mu_content on content bits and 0 elsewhere, the one farthest off."""
    from .prediction import eigenvalues_of_bits

    p, gram = run.params, run.trace.finals["gram"]
    expected = np.diag(np.where(np.arange(p.dim) < p.content, eigenvalues_of_bits(p)[0], 0.0))
    rows, columns = np.triu_indices(p.dim, 1) if off_diagonal else (np.arange(p.dim),) * 2
    return _worst([(float(expected[i, j]), gram[:, i, j]) for i, j in zip(rows, columns, strict=True)], 0.005)


def _judge_gram(runs: Sequence[Run]) -> Measured:
    (run,) = runs
    found = _gram_gaps(run, False)
    return Measured(found.predicted, found.measured, found.error, 0.05)


def _judge_sampled_gram(off_diagonal: bool) -> Callable[[Sequence[Run]], Measured]:
    def judge(runs: Sequence[Run]) -> Measured:
        (run,) = runs
        return _gram_gaps(run, off_diagonal)

    return judge


def _judge_style_block(runs: Sequence[Run]) -> Measured:
    """Eigenvalues of the style block of U^T U against mu/c, twice, and 0: the one farthest off, relative to mu/c."""
    from theory.inductive_bias import learned_gram

    from .prediction import eigenvalues_of_bits, style_moment

    (run,) = runs
    p, spare = run.params, run.params.n_features - run.params.content
    size = learned_gram(eigenvalues_of_bits(p)[1], style_moment(p))
    block = np.linalg.eigvalsh(run.trace.finals["gram"][:, p.content :, p.content :])[:, ::-1] / size
    return _worst([(float(i < spare), block[:, i]) for i in range(block.shape[1])], 0.05)


def _judge_rate(runs: Sequence[Run]) -> Measured:
    """Fitted over predicted rate at which style is forgotten, where they are farthest apart."""
    found = []
    for run in runs:
        expected = run.prediction.prediction["separation_rate"]
        assert expected is not None
        found.append((1.0, run.values["separation_rate"] / float(expected)))
    return _worst(found, 0.01)


def _judge_network_loss(runs: Sequence[Run]) -> Measured:
    """Loss on fresh pairs of the network and of the linear encoder, the one farther from minus the features."""
    return _worst([(-float(run.params.n_features), run.values["loss"]) for run in runs], 0.003)


def _judge_network_worse(runs: Sequence[Run]) -> Measured:
    """By how much the network's mean accuracy exceeds 0.97, or that of the linear encoder."""
    network, linear = (float(np.mean(run.values["probe_accuracy"])) for run in runs)
    return _exact(max(0.0, network - 0.97, network - linear), 1e-9)


# -- over which runs -------------------------------------------------------------------------------------------------


def _changed(*changes: dict[str, Any]) -> Runs:
    """The run at hand with other changes each."""
    return lambda params: [params.replace(**one) for one in changes]


def _fresh(*changes: dict[str, Any]) -> Runs:
    """Runs of these fields alone, with the seed at hand."""
    return lambda params: [params.make(one, seed=params.seed) for one in changes]


_TEN = {"dim": 10, "batch": 256, "steps": 3000}
_SOLVED = {"training": "minimiser", "steps": 1}
_FLIPPED = {**_SOLVED, "augmentation": "flip", "replicates": 2, "n_features": 8}
_SMALL_TABLE = {**_SOLVED, "augmentation": "flip", "encoder": "table", "dim": 3, "n_features": 8, "replicates": DRAWS}
_TABLE = {"encoder": "table", "training": "descent", "steps": 1000, "learning_rate": 0.05}
_SLOW = {"training": "descent", "dim": 10, "learning_rate": 0.01, "replicates": 4}
_ADAM = {"dim": 10, "training": "adam", "batch": 256, "steps": 1500, "replicates": 4}
_NETWORK = {**_ADAM, "encoder": "mlp", "width": 256, "learning_rate": 0.002, "n_test": 8000}
_LINEAR_ADAM = {**_ADAM, "learning_rate": 0.01}


CLAIMS = (
    Claim(
        "spectrum",
        "The eigenvalues of the class are products of those of single bits, every copy (to 1e-9).",
        "characters diagonalise both augmentations",
        about=lambda p: _known(p) and p.active().get("n_pairs", 0) == 0,
        judge=_judge_spectrum,
    ),
    Claim(
        "sampled_spectrum",
        "From 200,000 pairs of ten bits, scales 0 to 1, the linear class has 1 three times and 0.75 (within 0.01).",
        _EIGEN,
        about=lambda p: p.encoder == "linear" and p.augmentation == "rescale",
        over=_fresh({**_SOLVED, "dim": 10, "n_pairs": 200_000}),
        judge=_judge_sampled(0.01),
    ),
    Claim(
        "sampled_spectrum_close",
        "With scales from 0.5 to 1 the style eigenvalue is 0.964286 (within 0.004).",
        _EIGEN,
        about=lambda p: p.encoder == "linear" and p.augmentation == "rescale",
        over=_fresh({**_SOLVED, "dim": 10, "n_pairs": 200_000, "scale_low": 0.5}),
        judge=_judge_sampled(0.004),
    ),
    Claim(
        "invariant_directions",
        "With flipped style s, s + 1, s + 1 + s(s-1)/2 and 2^s directions are invariant: linear, degrees 1, 2 and all.",
        "products of content bits alone",
        about=_clean_flips,
        over=_fresh(
            {**_FLIPPED},
            *({**_FLIPPED, "encoder": "polynomial", "degree": degree} for degree in (1, 2, 8)),
        ),
        judge=_judge_units,
    ),
    Claim(
        "interlacing",
        "No eigenvalue of a restricted class exceeds that of the unrestricted one with the same number.",
        "Courant-Fischer",
        about=lambda p: p.encoder in CLASSES and p.active().get("n_pairs", 0) == 0,
        judge=_judge_interlacing,
    ),
    Claim(
        "relu_interlacing",
        "Nor do the twenty of random ReLU features, for which there is no closed form.",
        "Courant-Fischer",
        about=_clean_flips,
        over=_fresh({**_FLIPPED, "encoder": "relu", "replicates": 4}),
        judge=_judge_interlacing,
    ),
    Claim(
        "least_loss",
        "The loss ends at minus the sum of the k largest squared eigenvalues (within 0.005; solved for: 1e-8).",
        "low-rank factorisation in the metric of the class",
        about=lambda p: (
            _known(p)
            and p.active().get("n_pairs", 0) == 0
            and not (p.encoder == "table" and p.training in ("sgd", "adam"))
        ),
        judge=_judge_least_loss,
    ),
    Claim(
        "never_below",
        "No encoder of the class ever has a smaller loss.",
        "low-rank factorisation in the metric of the class",
        about=lambda p: _trained(p),
        judge=_judge_never_below,
    ),
    Claim(
        "linear_ramp",
        "Every linear minimiser of k features knows k/s of the content bits: R^2 is k/s up to k = s, exactly.",
        "the k-space lies in the span of the s content bits",
        about=lambda p: p.encoder == "linear" and p.training == "minimiser" and p.n_pairs == 0 and p.label == "bits",
        assumes=_separated,
        judge=_judge_ramp,
    ),
    Claim(
        "random_minimiser",
        "A random minimiser over three clean bits has R^2 k/7 for k = 1 to 7 (its probe has an intercept, +-0.015).",
        _RANDOM,
        about=_clean_flips,
        over=_fresh(_SMALL_TABLE),
        judge=_judge_random,
    ),
    Claim(
        "random_no_intercept",
        "Without an intercept it is k/8 (+-0.015).",
        _RANDOM,
        about=_clean_flips,
        over=_fresh({**_SMALL_TABLE, "intercept": False}),
        judge=_judge_random,
    ),
    Claim(
        "random_polynomial",
        "Polynomials of degree 2 have seven invariant functions: R^2 is k/6 with an intercept, k/7 without (+-0.015).",
        _RANDOM,
        about=_clean_flips,
        over=_fresh(
            *(
                {**_SMALL_TABLE, "encoder": "polynomial", "n_features": 7, "intercept": own, "replicates": 1000}
                for own in (True, False)
            )
        ),
        judge=_judge_random,
    ),
    Claim(
        "random_pieces",
        "Where views of 256 patterns never meet, a random minimiser of k features has R^2 k/255 (within 0.01).",
        _RANDOM,
        about=lambda p: p.encoder == "table" and p.augmentation == "rescale",
        over=_fresh({**_SOLVED, "encoder": "table", "n_features": 256, "replicates": 64}),
        judge=_judge_random,
    ),
    Claim(
        "useless_table",
        "A table of 256 patterns trained to the least loss of three features knows 3/255 of a content bit (+-0.01).",
        f"{_RANDOM}: that of the start",
        about=lambda p: p.encoder == "table" and p.augmentation == "rescale",
        over=_fresh({**_TABLE, "replicates": 50}),
        judge=_judge_useless,
    ),
    Claim(
        "frozen_span",
        "Descent never moves the span of that table: from starts a hundred times as large the probe ends the same.",
        "its operator is the identity",
        about=lambda p: p.encoder == "table" and p.augmentation == "rescale",
        over=_fresh(*({**_TABLE, "init_scale": scale, "replicates": 10} for scale in (0.001, 0.1))),
        judge=_judge_frozen,
    ),
    Claim(
        "same_loss_same_use",
        "Encoders of one loss are equally useful: the probe is as accurate as on a linear encoder (within 0.02).",
        "false on purpose: the loss does not know the class",
        about=lambda p: (
            p.encoder == "table" and p.training == "descent" and p.augmentation == "rescale" and p.label == "bits"
        ),
        over=_changed({}, {"encoder": "linear"}),
        judge=_judge_same_use,
    ),
    Claim(
        "content_learned",
        "As many linear features as content bits hold the content bits and nothing else: R^2 = 1 (within 0.05).",
        "content has the largest eigenvalues",
        about=_as_many_as_content,
        assumes=_separated,
        judge=_judge_content,
    ),
    Claim(
        "learned_gram",
        "U^T U is the content eigenvalue on content bits and 0 on style bits, diagonal entries within 0.05.",
        "the minimiser, whose rotation cancels",
        about=lambda p: _as_many_as_content(p) and _trained(p),
        assumes=_separated,
        judge=_judge_gram,
    ),
    Claim(
        "style_instead",
        "Where content is flipped more than style, linear features are style: R^2 = 0 (within 0.01).",
        "style has the largest eigenvalues",
        about=lambda p: (
            p.encoder == "linear"
            and p.augmentation == "flip"
            and p.flip_content > p.flip_style + 0.1
            and p.n_features <= p.dim - p.content
        ),
        judge=_judge_style,
    ),
    Claim(
        "separation_rate",
        "Descent forgets style at the rate 4 Var(tau): 1/3 for scales from 0 to 1, 1/12 from 0.5 to 1 (within 1 %).",
        "linearised gradient flow at the minimiser",
        about=lambda p: _as_many_as_content(p) and _trained(p) and p.augmentation == "rescale",
        over=_fresh({**_SLOW, "steps": 4000}, {**_SLOW, "scale_low": 0.5, "steps": 12_000}),
        judge=_judge_rate,
    ),
    Claim(
        "sgd_diagonal",
        "SGD with 256 pairs of ten bits ends with U^T U = 1 on content, 0 on style: diagonal means within 0.005.",
        "the minimiser, whose rotation cancels",
        about=lambda p: _as_many_as_content(p) and p.training == "sgd" and p.augmentation == "rescale",
        over=_fresh({**_TEN, "replicates": SEEDS}),
        judge=_judge_sampled_gram(False),
    ),
    Claim(
        "sgd_off_diagonal",
        "Its other entries are 0 on average over 20 seeds (within 0.005).",
        "the minimiser, whose rotation cancels",
        about=lambda p: _as_many_as_content(p) and p.training == "sgd" and p.augmentation == "rescale",
        over=_fresh({**_TEN, "replicates": SEEDS}),
        judge=_judge_sampled_gram(True),
    ),
    Claim(
        "spare_features",
        "Five features reach -(3 + 2 * 0.75^2) = -4.125 (within 0.005).",
        "low-rank factorisation in the metric of the class",
        about=lambda p: _as_many_as_content(p) and p.training == "sgd" and p.augmentation == "rescale",
        over=_fresh({**_TEN, "n_features": 5}),
        judge=predicted("loss", 0.005),
    ),
    Claim(
        "spare_style",
        "The two to spare mix style at random: the style block of U^T U is 2.25 times a rank-2 projector (within 5 %).",
        "a random rotation inside the eigenspace of style",
        about=lambda p: _as_many_as_content(p) and p.training == "sgd" and p.augmentation == "rescale",
        over=_fresh({**_TEN, "n_features": 5}),
        judge=_judge_style_block,
    ),
    Claim(
        "network_loss",
        "A ReLU network and a linear encoder of ten bits both reach a loss of -3 on fresh pairs (within 0.003).",
        _MEASURED,
        about=lambda p: p.encoder == "mlp",
        over=_fresh(_NETWORK, _LINEAR_ADAM),
        judge=_judge_network_loss,
    ),
    Claim(
        "network_worse",
        "The probe on that network has an accuracy below 0.97, and below that on the linear encoder.",
        f"{_MEASURED}: the loss does not rank encoders",
        about=lambda p: p.encoder == "mlp",
        over=_fresh(_NETWORK, _LINEAR_ADAM),
        judge=_judge_network_worse,
    ),
)
