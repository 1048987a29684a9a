"""What eight numbers side by side come to, by exact fractions."""

from fractions import Fraction

import numpy as np

from sims.engine.simd import WIDTH


@np.vectorize
def rounded_once(a, b, c):
    """a*b + c by exact fractions; a fraction becomes the nearest float."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def lane_total(row, beta):
    """<row, beta> in the order that `sims.engine.simd` promises."""
    lanes = np.zeros(WIDTH)
    for first in range(0, row.size, WIDTH):
        lanes = rounded_once(row[first : first + WIDTH], beta[first : first + WIDTH], lanes)
    s = lanes[:4] + lanes[4:]
    return (s[0] + s[1]) + (s[2] + s[3])
