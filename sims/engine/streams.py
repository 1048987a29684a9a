"""Random streams: one for each kind of draw of a lab, the same bits wherever and in whatever order drawn."""

from __future__ import annotations

import numpy as np


def generator(seed: int, stream: int, replicate: int) -> np.random.Generator:
    """The generator of one stream of one replicate (Philox, keyed by `SeedSequence`).

    Args:
        seed: entropy of the run.
        stream: index of the kind of draw, from the lab's table of streams.
        replicate: number of the replicate, counted over all runs of the family.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(stream, replicate))))
