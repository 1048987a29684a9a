r"""A head trained on one domain and used on another: averaged features, and when sampled links show it.

Model and features as in :mod:`theory.domains`. The algorithm of averaged features, with a power t >= 1: with the
second moment ``Sigma = sum_x w f f^T`` a class's vector is ``b_i = Sigma^(t-1) (mean of f over the source nodes of
class i)``, and a node goes to the class with the largest f.b_i. As Sigma is diag(lam), scores are those of
``V_k Lam^t V_k^T``: labels that spread over t steps of a random walk.

Source: HaoChen, Wei, Kumar, Ma, "Beyond Separability: Analyzing the Linear Transferability of Contrastive
Representations to Related Subpopulations", NeurIPS 2022, arXiv 2204.02683. Its theorem bounds the error of averaged
features where examples of one class in two clusters are more strongly linked than those of two classes; what stands
here are exact formulas for the block model, derived here.
"""

import math

from theory.domains import Answer, BlockModel, kept, mean_gain


def averaging_gain(model: BlockModel, k: int, walk_steps: int) -> Answer:
    """Target over source class contrast of averaged features, each a mean over contrasts.

    (lc^t - li^t)/(lc^t + (m-1) li^t) for a contrast with kept eigenvalues lc and li, 0 for one that is dropped.
    Exact. Raises ValueError unless walk_steps >= 1.
    """
    if walk_steps < 1:
        raise ValueError(f"walk_steps must be 1 or more, not {walk_steps}")
    m, t = model.domains, walk_steps

    def outputs(lc: float, li: float) -> tuple[float, float]:
        return lc**t - li**t, lc**t + (m - 1) * li**t

    return mean_gain(kept(model, k), outputs)


def full_gain(model: BlockModel) -> float:
    """Gain of the least-norm head on all r m features, (al-ga)/(rho-be): right in sign, small. Exact.

    For eigenvalues that are not negative. NaN where rho = be, when classes cannot be told apart in the source.
    """
    down = model.within - model.across_classes
    return (model.across_domains - model.across_both) / down if down != 0.0 else math.nan


def visibility(model: BlockModel, nodes_per_block: int) -> float:
    """How far al-ga stands out of the noise of sampled links: n m |al-ga| over the edge of the bulk. Heuristic.

    Links are drawn with the weights as probabilities; with p their mean in a row, the eigenvalues of the noise reach
    to about 2 sqrt(n r m p (1-p)). A marker of scale, no threshold: for five classes in two domains and 10 to 80 nodes
    the target's accuracy was seen to pass one half where it is between 0.1 and 0.3.
    """
    r, m, n = model.classes, model.domains, nodes_per_block
    p = model.total / (r * m)
    noise = 2.0 * math.sqrt(n * r * m * p * (1.0 - p))
    signal = n * m * abs(model.across_domains - model.across_both)
    return signal / noise if noise > 0.0 else math.inf


def enough_nodes(model: BlockModel) -> float:
    """Nodes a block from which on :func:`visibility` is 1: 4 r p (1-p)/(m (al-ga)^2). Heuristic; inf at al = ga."""
    once = visibility(model, 1)
    return once**-2 if once > 0.0 else math.inf
