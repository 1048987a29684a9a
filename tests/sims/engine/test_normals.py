"""Normals drawn by a compiled loop are those that NumPy draws."""

import numpy as np
import pytest

from sims.engine import generator
from sims.engine.normals import FEW, normals


@pytest.mark.parametrize("shape", [0, 1, FEW, FEW + 1, (300, 700), (4, 50_000, 5)])
def test_the_bits_and_the_generator_after_them_are_numpys(shape):
    """Shapes on both sides of where the loop takes over; in a million draws the tails are met too."""
    ours, numpys = generator(3, 1, 0), generator(3, 1, 0)
    drawn = normals(ours, shape)
    assert np.array_equal(drawn, numpys.standard_normal(shape)) and drawn.flags.c_contiguous
    assert ours.random() == numpys.random()


def test_the_tails_are_met():
    assert np.abs(normals(generator(3, 1, 0), 1_000_000)).max() > 4.5
