"""Prompts of many replicates at once with torch: drawn from the lab's streams as the kernels draw them, and reduced.

Each kind of draw is a block of its own, (replicate, prompt, number), in the order in which `prompts.py` and
`sampled.py` draw one by one; `Draws` says how many numbers of each kind a prompt takes. All is on covariates of unit
variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import generator
from ..engine.normals import normals
from ..engine.on_device import DTYPES, tensor
from .lab import STREAMS, Law, LinearAttentionParams
from .prompts import TANH_GAIN
from .training import TESTING, TRAINING, width

Array = NDArray[np.float64]

BLOCK_NUMBERS = {"cpu": 2**18, "cuda": 2**22}  # drawn at once, of all replicates: what a cache, or a device, likes
DEPENDENT = {"float64": 1e-26, "float32": 1e-12}  # of a squared length, below which it is rounding


class Drawn(NamedTuple):
    """The numbers of some prompts, each (R, prompts, numbers of its kind); what is not drawn is empty."""

    task: torch.Tensor
    chi_square: torch.Tensor
    noise: torch.Tensor
    covariate: torch.Tensor  # whole covariates, (R, prompts, d) or (R, prompts, examples, d)
    query: torch.Tensor  # (R, prompts, d)
    label_noise: torch.Tensor
    sign: torch.Tensor  # +-1


def counted(params: LinearAttentionParams, law: Law, even: bool, test: bool) -> tuple[dict[str, int], Array]:
    """How many numbers of each kind one prompt takes, and the degrees of freedom of its chi-squares."""
    d, n, hidden = params.dim, law.n, width(params)
    counts = {"task": hidden * d, "sign": hidden if params.teacher != "linear" else 0}
    degrees = np.zeros(0)
    if not params.moments_known:
        counts |= {"covariate": (n + 1) * d, "label_noise": n + 1}
        if params.covariates == "student_t":
            degrees = np.full((n + 1) * d, params.degrees_of_freedom)
    else:
        size = d if params.stacked else 4 if even else 1
        degrees = n - np.arange(float(min(size, n)))
        after = min(d, n) if params.stacked else 4 * d if even else d
        counts |= {"noise": triangle(size, n) + after}
        if not test:
            counts |= {"query": d, "label_noise": 1}
    return {name: count for name, count in counts.items() if count}, degrees


def numbers_held(
    params: LinearAttentionParams, law: Law, replicates: int, even: bool, test: bool, prompts: int
) -> float:
    """About how many numbers the prompts take that are there at once, with what is computed of them."""
    counts, degrees = counted(params, law, even, test)
    one = float(replicates * (sum(counts.values()) + len(degrees) + _within(params, law)))
    block = float(max(BLOCK_NUMBERS.values()))
    return 4.0 * max(one, min(block, one * prompts) if test else max(min(block, one * prompts), one * prompts))


def _within(params: LinearAttentionParams, law: Law) -> int:
    """Numbers on the way from a prompt to its labels."""
    return 0 if params.moments_known or params.teacher == "linear" else law.n * width(params)


class Draws:
    """What prompts are made of, from the streams of some replicates.

    Args:
        params, law: the prompts, those of training or of the test.
        even: whether the blocks u, b and h are there, which takes more numbers.
        test: the streams of the test, and its order of draws; else those of training.
    """

    def __init__(
        self, params: LinearAttentionParams, law: Law, replicates: Sequence[int], even: bool, test: bool,
        device: str, dtype: str,
    ):  # fmt: skip
        self.params, self.law, self.device, self.dtype = params, law, device, dtype
        self.explicit, self.test = not params.moments_known, test
        names = TESTING if test else TRAINING
        self.streams = {
            name.removeprefix("test_"): [generator(params.seed, STREAMS[name], r) for r in replicates] for name in names
        }
        self.counts, self.degrees = counted(params, law, even, test)
        # Of one layer in training all queries of a batch are drawn before all examples.
        self.first = not test and not params.stacked
        self.block = BLOCK_NUMBERS[device.split(":")[0]]
        each = sum(self.counts.values()) + len(self.degrees) + _within(params, law)
        self.numbers = len(replicates) * each

    def batches(self, prompts: int) -> Iterator[Drawn]:
        """Batch after batch of so many prompts, for ever; several are drawn at once while they are small."""
        together = max(1, self.block // (prompts * self.numbers))
        while True:
            blocks = {name: self._block(name, together, prompts, count) for name, count in self.counts.items()}
            chi = self._chi(together, prompts)
            for k in range(together):
                yield self._shaped({name: block[k] for name, block in blocks.items()}, chi[k], prompts)

    def parts(self, prompts: int) -> Iterator[Drawn]:
        """So many prompts in all, as many at once as a block holds."""
        most = max(1, self.block // self.numbers)
        for begin in range(0, prompts, most):
            count = min(most, prompts - begin)
            blocks = {name: self._block(name, 1, count, numbers)[0] for name, numbers in self.counts.items()}
            yield self._shaped(blocks, self._chi(1, count)[0], count)

    def _block(self, name: str, together: int, prompts: int, count: int) -> torch.Tensor:
        """(together, R, prompts * count) numbers of one stream; signs and covariates as they are meant."""
        size, params = (together, prompts * count), self.params
        drawn: list[NDArray[Any]] = []
        for rng in self.streams["teacher_sign" if name == "sign" else name]:
            if name == "sign":
                drawn.append(np.where(rng.random(size) < 0.5, -1.0, 1.0))
            elif name == "covariate" and params.covariates == "rademacher":
                drawn.append(np.where(rng.random(size) < 0.5, 1.0, -1.0))
            elif name == "covariate" and params.covariates == "uniform":
                drawn.append(math.sqrt(3.0) * (2.0 * rng.random(size) - 1.0))
            else:
                drawn.append(normals(rng, size))
        return tensor(np.stack(drawn, axis=1), self.device, self.dtype)

    def _chi(self, together: int, prompts: int) -> torch.Tensor:
        """(together, R, prompts * degrees) chi-square draws."""
        if not len(self.degrees):
            return torch.empty((together, 1, 0), device=self.device, dtype=DTYPES[self.dtype])
        size, same = (together, prompts, len(self.degrees)), bool(np.all(self.degrees == self.degrees[0]))
        degrees = float(self.degrees[0]) if same else self.degrees
        drawn = [rng.chisquare(degrees, size).reshape(together, -1) for rng in self.streams["chi_square"]]
        return tensor(np.stack(drawn, axis=1), self.device, self.dtype)

    def _shaped(self, blocks: dict[str, torch.Tensor], chi: torch.Tensor, prompts: int) -> Drawn:
        d, n, R = self.params.dim, self.law.n, len(self.streams["task"])
        nothing = chi.new_empty((R, prompts, 0))

        def rows(name: str) -> torch.Tensor:
            return blocks[name].view(R, prompts, -1) if name in blocks else nothing

        covariate, query, label_noise = nothing, rows("query"), rows("label_noise")
        if self.explicit:
            flat = blocks["covariate"]
            if len(self.degrees):
                flat = flat * torch.sqrt((self.params.degrees_of_freedom - 2.0) / chi)
                chi = chi[:, :0]
            if self.first:
                query, covariate = flat[:, : prompts * d].view(R, prompts, d), flat[:, prompts * d :]
                covariate = covariate.view(R, prompts, n, d)
            else:
                whole = flat.view(R, prompts, n + 1, d)
                at = n if self.test else 0
                query = whole[:, :, at]
                covariate = whole[:, :, :n] if self.test else whole[:, :, 1:]
            # The target's noise comes first where the query does.
            if self.first:
                label_noise = torch.roll(label_noise, -1, dims=2)
        chi = chi.view(R, prompts, -1) if chi.numel() else nothing
        return Drawn(rows("task"), chi, rows("noise"), covariate, query, label_noise, rows("sign"))


def triangle(size: int, n: int) -> int:
    """Numbers below the diagonal of the triangular factor of a Wishart matrix of that size from n normals."""
    return sum(min(i, n) for i in range(size))


def factor(drawn: Drawn, size: int, n: int) -> torch.Tensor:
    """(R, prompts, size, size) lower triangular factor of a Wishart matrix, of the first noise and the chi-squares."""
    R, prompts = drawn.noise.shape[:2]
    L = drawn.noise.new_zeros((R, prompts, size, size))
    rows, columns = zip(*((i, j) for i in range(size) for j in range(min(i, n))), strict=True) if size > 1 else ((), ())
    L[:, :, list(rows), list(columns)] = drawn.noise[:, :, : len(rows)]
    own = list(range(min(size, n)))
    L[:, :, own, own] = torch.sqrt(drawn.chi_square)
    return L


# -- who labels ------------------------------------------------------------------------------------------------


class Teachers:
    """What labels prompts: one task vector each, or the hidden weights of a teacher; see `prompts.draw_teacher`."""

    def __init__(self, params: LinearAttentionParams, law: Law, device: str, dtype: str):
        self.kind, self.hidden, self.d = params.teacher, width(params), params.dim
        self.root = tensor(np.sqrt(law.spectrum), device, dtype)
        self.task_root = tensor(np.sqrt(np.array(law.spectrum) * np.array(law.task)), device, dtype)
        self.mean = params.prior_mean * math.sqrt(law.spectrum[0])
        self.noise_std = math.sqrt(law.noise_var)

    def weights(self, drawn: Drawn) -> torch.Tensor:
        """(R, prompts, hidden, d) on covariates of unit variance."""
        W = drawn.task.view(*drawn.task.shape[:2], self.hidden, self.d)
        if self.kind != "linear":
            return W * self.root / torch.linalg.norm(W, dim=3, keepdim=True)
        W = W * self.task_root
        if self.mean:
            W[..., 0, 0] += self.mean
        return W

    def labels(self, W: torch.Tensor, signs: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """(R, prompts, examples) f of X (R, prompts, examples, d), without noise."""
        if self.kind == "linear":
            return (X @ W[..., 0, :, None])[..., 0]
        z = X @ W.transpose(2, 3)
        if self.kind == "cubic":
            z = z * z * z
        elif self.kind in ("relu", "network"):
            z = torch.clamp_min(z, 0.0)
        elif self.kind == "sign":
            z = torch.where(z > 0.0, 1.0, -1.0).to(z.dtype)
        elif self.kind == "tanh":
            z = torch.tanh(TANH_GAIN * z)
        else:
            z = (z * z * z - 3.0 * z) / math.sqrt(6.0)
        return (z @ signs[..., None])[..., 0] / math.sqrt(self.hidden)


# -- what a layer sees of them ---------------------------------------------------------------------------------


def useful_moments(w: torch.Tensor, s2: float, drawn: Drawn) -> torch.Tensor:
    """(R, prompts, d) g = X'y for task vectors w (R, prompts, d); see `prompts.useful_moments`."""
    z, chi = drawn.noise, drawn.chi_square[..., 0]
    r2 = torch.sum(w * w, dim=2)
    length, along = torch.sqrt((r2 + s2) * chi), torch.sum(w * z, dim=2)
    shift = chi + (torch.sqrt(s2 * chi) - length) * along / torch.where(r2 > 0.0, r2, 1.0)
    return length[..., None] * z + torch.where(r2 > 0.0, shift, 0.0)[..., None] * w


def all_moments(
    w: torch.Tensor, u: torch.Tensor, a: torch.Tensor, n: int, s2: float, drawn: Drawn, dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, prompts, 3, d) g, S u and S a, and (R, prompts) |y|^2, jointly; see `prompts.all_moments`."""
    d = w.shape[2]
    C = w.new_zeros((*w.shape[:2], 4, 3))
    basis: list[torch.Tensor] = []
    for k, source in enumerate((w, u.expand_as(w), a)):
        size, e = torch.sum(source * source, dim=2), source
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for r, one in enumerate(basis):
                dot = torch.sum(one * e, dim=2)
                C[..., r, k] += dot
                e = e - dot[..., None] * one
        left = torch.sum(e * e, dim=2)
        there = (left > DEPENDENT[dtype] * size) & (k < d)
        length = torch.where(there, torch.sqrt(left), 0.0)
        C[..., k, k] = length
        basis.append(torch.where(there[..., None], e / torch.where(there, length, 1.0)[..., None], 0.0))
    C[..., 3, 0] = math.sqrt(s2)
    E, L = torch.stack(basis, dim=2), factor(drawn, 4, n)
    LC = L.transpose(2, 3) @ C
    spread = drawn.noise[..., triangle(4, n) :].reshape(*w.shape[:2], d, 4)
    out = LC.transpose(2, 3) @ spread.transpose(2, 3)
    shift = L[..., :3, :] @ LC - E @ out.transpose(2, 3)
    return out + shift.transpose(2, 3) @ E, torch.sum(LC[..., 0] ** 2, dim=2)


def gram_moments(w: torch.Tensor, n: int, s2: float, drawn: Drawn) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, prompts, d, d) S = X'X and (R, prompts, d) g = X'y, jointly; see `prompts.gram_moments`."""
    d = w.shape[2]
    L = factor(drawn, d, n)[..., : min(d, n)]
    y = (w[:, :, None] @ L)[:, :, 0] + math.sqrt(s2) * drawn.noise[..., triangle(d, n) :]
    return L @ L.transpose(2, 3), (L @ y[..., None])[..., 0]


def examples(teachers: Teachers, W: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(R, prompts, d) g = X'y of the examples, (R, prompts) |y|^2, and the targets (R, prompts)."""
    X, noise = drawn.covariate, teachers.noise_std * drawn.label_noise
    y = teachers.labels(W, drawn.sign, X) + noise[..., :-1]
    target = teachers.labels(W, drawn.sign, drawn.query[:, :, None])[..., 0] + noise[..., -1]
    return (y[:, :, None] @ X)[:, :, 0], torch.sum(y * y, dim=2), target
