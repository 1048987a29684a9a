r"""The spectral contrastive loss over a restricted class of encoders, and what its minimisers know of the label.

Examples are uniform sign vectors of d bits, the first s of them content, the others style. A class of encoders is
``f = Theta phi(x)`` with fixed functions phi. With ``C = E[phi phi^T]`` over views and ``C_plus = E[phi(x) phi(x+)^T]``
over pairs of views the loss is ``-2 tr(T C_plus) + tr(T C T C)``, ``T = Theta^T Theta``. With the generalised
eigenpairs ``C_plus v = mu C v`` its least value is ``-sum_{i <= k} mu_i^2``, reached by ``Theta = diag(mu^1/2) V_k^T``.

Both augmentations are diagonal in the characters (products of bits), so that a class of characters has their
eigenvalues: a character with a content bits and b style bits has ``(1-2 q_content)^2a (1-2 q_style)^2b`` where views
flip bits, and ``(E tau^b)^2/E tau^2b`` where they rescale the style bits by one tau.

Sources: Saunshi, Ash, Goel, Misra, Zhang, Arora, Kakade, Krishnamurthy, "Understanding Contrastive Learning Requires
Incorporating Inductive Biases", ICML 2022, arXiv 2202.14037; HaoChen, Ma, "A Theoretical Study of Inductive Biases in
Contrastive Learning", ICLR 2023, arXiv 2211.14699. Everything here is exact unless its docstring says otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from theory.graphs import majority_truth, walsh_coefficients

TIE = 1e-12  # eigenvalues closer than this are one eigenvalue


def rescale_moment(low: float, high: float, order: int) -> float:
    """E tau^order of tau uniform on low..high; low^order where they coincide."""
    if high == low:
        return low**order
    return (high ** (order + 1) - low ** (order + 1)) / ((order + 1) * (high - low))


def rescale_factor(low: float, high: float) -> Callable[[int, int], float]:
    """Eigenvalue of a character with a content and b style bits, (E tau^b)^2/E tau^2b, as a function of a and b.

    1 where low = high. Raises ValueError unless 0 <= low <= high and high > 0: below 0 signs would flip.
    """
    if not 0.0 <= low <= high or high == 0.0:
        raise ValueError(f"scales must satisfy 0 <= low <= high and 0 < high, not {low:g} and {high:g}")

    def factor(content: int, style: int) -> float:
        return rescale_moment(low, high, style) ** 2 / rescale_moment(low, high, 2 * style)

    return factor


def flip_factor(flip_content: float, flip_style: float) -> Callable[[int, int], float]:
    """Eigenvalue of a character with a content and b style bits, as a function of a and b."""
    keep_content, keep_style = (1.0 - 2.0 * flip_content) ** 2, (1.0 - 2.0 * flip_style) ** 2

    def factor(content: int, style: int) -> float:
        return keep_content**content * keep_style**style

    return factor


@dataclass(frozen=True)
class ClassSpectrum:
    """Eigenvalues of a class of characters: distinct, decreasing, with multiplicities.

    ``of_degree[a]`` is the number, from 0, of the eigenspace that holds the products of a content bits alone, or -1
    where the class lacks them; ``of_degree[0]`` is that of the constant.
    """

    eigenvalues: Float[np.ndarray, " groups"]
    multiplicities: Int[np.ndarray, " groups"]
    of_degree: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of functions of the class."""
        return int(np.sum(self.multiplicities))

    @property
    def units(self) -> int:
        """How many eigenvalues are 1: the directions that the class can make invariant."""
        return int(np.sum(self.multiplicities[self.eigenvalues > 1.0 - TIE]))

    def top(self, k: int) -> Float[np.ndarray, " k"]:
        """The k largest eigenvalues with repeats; 0 beyond the size of the class."""
        found = np.repeat(self.eigenvalues, np.minimum(self.multiplicities, k))[:k]
        return np.concatenate([found, np.zeros(k - len(found))])

    def min_loss(self, k: int) -> float:
        """Least loss of k features, -sum of the k largest squared eigenvalues."""
        return -float(np.sum(self.top(k) ** 2))


def class_spectrum(
    dim: int, content: int, factor: Callable[[int, int], float], least_degree: int, most_degree: int
) -> ClassSpectrum:
    """The class of all characters with least_degree to most_degree bits.

    Linear maps are degrees 1 to 1, polynomials 0 to D, an unrestricted table of sign patterns 0 to d.
    """
    values: list[float] = []
    counts: list[int] = []
    alone: dict[int, int] = {}
    for a in range(content + 1):
        for b in range(dim - content + 1):
            if least_degree <= a + b <= most_degree:
                if b == 0:
                    alone[a] = len(values)
                values.append(factor(a, b))
                counts.append(math.comb(content, a) * math.comb(dim - content, b))
    order = np.argsort(-np.array(values), kind="stable")
    ranked = np.array(values)[order]
    starts = np.concatenate([[True], ranked[:-1] - ranked[1:] > TIE])
    group = np.empty(len(values), dtype=int)
    group[order] = np.cumsum(starts) - 1
    multiplicities = np.bincount(group, weights=counts).astype(np.int64)
    of_degree = tuple(int(group[alone[a]]) if a in alone else -1 for a in range(content + 1))
    return ClassSpectrum(ranked[starts], multiplicities, of_degree)


def label_energy(content: int, label: str) -> Float[np.ndarray, " degrees"]:
    """Energy of the label in the products of 0, 1, ..., s content bits: of one `bits`, or of the `majority` of all.

    Raises ValueError for a majority of an even number.
    """
    energy = np.zeros(content + 1)
    if label == "bits":
        energy[1] = 1.0
        return energy
    coefficients = walsh_coefficients(majority_truth(content))
    for code, value in enumerate(coefficients):
        energy[code.bit_count()] += value**2
    return energy


def expected_r2(
    spectrum: ClassSpectrum, energy: Float[np.ndarray, " degrees"], k: int, intercept: bool = True
) -> float:
    """R^2 of the best linear probe of a balanced label on a uniformly random minimiser of k features, its mean. Exact.

    Eigenspaces above the cut are known, of the one that the cut splits a uniform t of its n dimensions are kept: t/n
    of the energy there, or t/(n-1) where the space holds the constant and the probe brings its own. Features of
    eigenvalue 0 are 0.
    """
    before = np.concatenate([[0], np.cumsum(spectrum.multiplicities)])
    total = 0.0
    for degree, weight in enumerate(energy):
        group = spectrum.of_degree[degree]
        if weight == 0.0 or group < 0 or spectrum.eigenvalues[group] <= TIE:
            continue
        copies, taken = int(spectrum.multiplicities[group]), max(k - int(before[group]), 0)
        if intercept and spectrum.of_degree[0] == group:
            copies -= 1
        total += float(weight) * min(taken / copies, 1.0)
    return total


def separation_rate(eigenvalue: float, second_moment: float) -> float:
    """Rate 4 c (1 - mu) at which a linear encoder forgets style, near the minimiser of k = s features.

    c = E x_style^2 over views. On rescale it is 4 Var(tau) = (high - low)^2/3. Linearised gradient flow on Theta; t is
    the sum of the learning rates.
    """
    return 4.0 * second_moment * (1.0 - eigenvalue)


def learned_gram(eigenvalue: float, second_moment: float) -> float:
    """Entry of Theta^T Theta on a learned character, mu/c: 1 on clean content, (E tau)^2/(E tau^2)^2 on style."""
    return eigenvalue / second_moment


def sampling_deviation(batch: int, steps: int, learning_rate: float) -> float:
    """Standard deviation of an entry of Theta^T Theta between two content bits, after SGD with a rate falling to 0.

    The minimiser holds the sampled second moments of content, averaged over the last R = sqrt(steps/(4 eta)) batches
    with weights 2 r/R^2 exp(-r^2/R^2). Heuristic.
    """
    reach = math.sqrt(steps / (4.0 * learning_rate))
    return 1.0 / math.sqrt(1.596 * batch * reach)
