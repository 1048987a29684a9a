"""A finite training set: least squares for the effective matrix Q, as the set grows prompt by prompt.

The prediction <x, Q g> is linear in the d^2 entries of Q, with features vec(x g^T), so that training to the end is
least squares, of least norm where fewer prompts than unknowns are there. The set is kept as the triangular factor of
its features, which grows by QR; the normal equations, with the square of its condition number, are never formed.
"""

import numpy as np


class GrowingSet:
    """Least squares on the prompts seen so far."""

    def __init__(self, d):
        self.d = d
        self.rows = np.zeros((0, d * d + 1))  # features beside targets, later their triangular factor

    def add(self, G, X, y):
        """Add prompts: G (count, d) of X^T y, queries X (count, d), targets y (count,)."""
        features = (X[:, :, None] * G[:, None, :]).reshape(len(y), self.d * self.d)
        self.rows = np.concatenate([self.rows, np.column_stack([features, y])])
        if len(self.rows) > self.d * self.d + 1:
            self.rows = np.linalg.qr(self.rows, mode="r")

    def solve(self):
        """Q (d, d), the least-squares solution of least Frobenius norm."""
        if not len(self.rows):
            return np.zeros((self.d, self.d))
        return np.linalg.lstsq(self.rows[:, :-1], self.rows[:, -1], rcond=None)[0].reshape(self.d, self.d)
