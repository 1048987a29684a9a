"""Which graphs of classes in domains are too large, or too small for their features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..engine import Problem

MOST_NODES = 4000  # of a sampled graph


def sizes(params: Any) -> Iterator[Problem]:
    """What is wrong with the number of nodes of a block or of features, with a way out."""
    if params.graph == "random" and params.nodes > MOST_NODES:
        blocks = params.classes * params.domains
        allowed = f"{blocks} blocks of so many are {params.nodes} nodes, more than {MOST_NODES}"
        advice = f"Set nodes_per_block to {MOST_NODES // blocks} or less."
        yield Problem("nodes_per_block", params.nodes_per_block, allowed, advice)
    if params.n_features > params.nodes:
        allowed = f"the graph has {params.nodes} nodes"
        yield Problem("n_features", params.n_features, allowed, f"Set n_features to {params.nodes} or less.")
