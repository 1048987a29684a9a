"""Prompts: what a layer sees of them, drawn exactly in law without drawing the examples, and drawn the long way.

A layer of linear attention sees n examples (x_i, y_i) through a few products only: g = X^T y, S u and S a with
S = X^T X, and s = |y|^2. For Gaussian examples with linear labels these have a law that is cheap to draw.

*Useful part alone.* Given w, the labels are n normals of variance v = |w|^2 + s2, and X^T y splits into its part along
w and a normal vector of length |y| across it: d normals and one chi-square for any n.
*All blocks.* X meets w, u and a in three directions, so that a Wishart matrix of size 4 (with the noise) and normals
across the three carry everything; its triangular factor (Bartlett) is used as it is, which needs no second Cholesky
factor and so no regularity: u = 0, d < 3 and n < 4 are no exceptions.
*Stacked layers.* S itself is drawn, by its triangular factor, and g = S w + L z.

All is for covariates of unit covariance: others are reached by `whiten`. Nonlinear teachers and covariates that are
not Gaussian are drawn example by example. `literal_layer` is the attention layer as it is written down.
Sources: Bartlett 1933 for the triangular factor; the three laws follow from the rotation invariance of the normal.
"""

import math

import numpy as np
from numba import njit

COVARIATES = {"gaussian": 0, "rademacher": 1, "uniform": 2, "student_t": 3}
TEACHERS = {"linear": 0, "cubic": 1, "relu": 2, "sign": 3, "tanh": 4, "hermite3": 5, "network": 6}
TANH_GAIN = 3.0

RADEMACHER = COVARIATES["rademacher"]
UNIFORM = COVARIATES["uniform"]
STUDENT = COVARIATES["student_t"]
LINEAR = TEACHERS["linear"]
CUBIC = TEACHERS["cubic"]
RELU = TEACHERS["relu"]
SIGN = TEACHERS["sign"]
TANH = TEACHERS["tanh"]
HERMITE3 = TEACHERS["hermite3"]
NETWORK = TEACHERS["network"]


def whiten(root, blocks):
    """The blocks [u, c, A, b, h] that do on root^-1 x what `blocks` do on x.

    root (d, d) is symmetric, or (d,), its diagonal. The map is linear and symmetric, so that it also takes a gradient
    in the new blocks to that in the old ones.
    """
    root = np.asarray(root, dtype=float)
    root = np.diag(root) if root.ndim == 1 else root
    d = len(root)
    u, c, A, b, h = np.split(np.asarray(blocks, dtype=float), [d, d + 1, d + 1 + d * d, d * d + 2 * d + 1])
    return np.concatenate([root @ u, c, (root @ A.reshape(d, d) @ root).ravel(), root @ b, root @ h])


@njit(nogil=True, cache=True, error_model="numpy")
def whiten_diagonal(root, blocks, out):
    """out = whiten(root, blocks) for a diagonal root (d,); out may be blocks."""
    d = root.size
    out[d] = blocks[d]
    for i in range(d):
        out[i] = root[i] * blocks[i]
        for j in range(d):
            at = d + 1 + i * d + j
            out[at] = root[i] * root[j] * blocks[at]
        at = d + 1 + d * d + i
        out[at] = root[i] * blocks[at]
        out[at + d] = root[i] * blocks[at + d]


@njit(nogil=True, cache=True, error_model="numpy")
def useful_moments(w, n, s2, chi_square_rng, noise_rng, g):
    """Draw g = X^T y into g (d,), given w (d,), for x ~ N(0, I): d normals and one chi-square."""
    d = w.size
    r2 = 0.0
    for i in range(d):
        r2 += w[i] * w[i]
    chi = chi_square_rng.chisquare(n)  # |y|^2 over its variance
    length, along = math.sqrt((r2 + s2) * chi), 0.0
    for i in range(d):
        g[i] = noise_rng.standard_normal()
        along += w[i] * g[i]
    # Across w a normal vector of the length of y; along it X w meets itself, and the noise the same normal.
    shift = chi + (math.sqrt(s2 * chi) - length) * along / r2 if r2 > 0.0 else 0.0
    for i in range(d):
        g[i] = length * g[i] + shift * w[i]


@njit(nogil=True, cache=True, error_model="numpy")
def all_moments(w, u, a, n, s2, chi_square_rng, noise_rng, scratch, E, out):
    """Draw g, S u and S a into out (3, d), jointly with s = |y|^2, which is returned; x ~ N(0, I).

    scratch (15, 4) and E (3, d) are overwritten, E by an orthonormal basis of w, u and a, with zeros where they are
    dependent.
    """
    d = w.size
    scratch[:, :] = 0.0
    C, L, LC, W = scratch[:4], scratch[4:8], scratch[8:12], scratch[12:]
    for k in range(3):
        source = w if k == 0 else (u if k == 1 else a)
        size = 0.0
        for i in range(d):
            E[k, i] = source[i]
            size += source[i] * source[i]
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for r in range(k):
                dot = 0.0
                for i in range(d):
                    dot += E[r, i] * E[k, i]
                C[r, k] += dot
                for i in range(d):
                    E[k, i] -= dot * E[r, i]
        left = 0.0
        for i in range(d):
            left += E[k, i] * E[k, i]
        if left > 1e-26 * size and k < d:
            C[k, k] = math.sqrt(left)
            for i in range(d):
                E[k, i] /= C[k, k]
        else:
            for i in range(d):
                E[k, i] = 0.0
    C[3, 0] = math.sqrt(s2)
    for i in range(4):
        for j in range(min(i, n)):
            L[i, j] = noise_rng.standard_normal()
        if i < n:
            L[i, i] = math.sqrt(chi_square_rng.chisquare(n - i))
    for m in range(4):
        for k in range(3):
            for i in range(m, 4):
                LC[m, k] += L[i, m] * C[i, k]
    for r in range(3):
        for k in range(3):
            for m in range(r + 1):
                W[r, k] += L[r, m] * LC[m, k]
    for i in range(d):
        out[0, i] = 0.0
        out[1, i] = 0.0
        out[2, i] = 0.0
        for m in range(4):
            z = noise_rng.standard_normal()
            out[0, i] += z * LC[m, 0]
            out[1, i] += z * LC[m, 1]
            out[2, i] += z * LC[m, 2]
    for r in range(3):
        for k in range(3):
            dot = 0.0
            for i in range(d):
                dot += E[r, i] * out[k, i]
            shift = W[r, k] - dot
            for i in range(d):
                out[k, i] += shift * E[r, i]
    s = 0.0
    for m in range(4):
        s += LC[m, 0] * LC[m, 0]
    return s


@njit(nogil=True, cache=True, error_model="numpy")
def gram_moments(w, n, s2, chi_square_rng, noise_rng, L, S, g):
    """Draw S = X^T X (d, d) and g = X^T y (d,) jointly, x ~ N(0, I); L (d, d) is scratch, the triangular factor."""
    d = w.size
    for i in range(d):
        for j in range(d):
            L[i, j] = 0.0
        for j in range(min(i, n)):
            L[i, j] = noise_rng.standard_normal()
        if i < n:
            L[i, i] = math.sqrt(chi_square_rng.chisquare(n - i))
    for i in range(d):
        g[i] = 0.0
    for m in range(min(n, d)):
        # y = X w + noise, in the coordinates in which X is the triangle.
        y = math.sqrt(s2) * noise_rng.standard_normal()
        for i in range(m, d):
            y += L[i, m] * w[i]
        for i in range(m, d):
            g[i] += L[i, m] * y
    for i in range(d):
        for j in range(i + 1):
            total = 0.0
            for m in range(j + 1):
                total += L[i, m] * L[j, m]
            S[i, j] = total
            S[j, i] = total


# -- example by example ----------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, error_model="numpy")
def covariate(kind, degrees, covariate_rng, chi_square_rng, x):
    """Draw x (d,) with independent coordinates of mean 0 and variance 1."""
    for i in range(x.size):
        if kind == RADEMACHER:
            x[i] = 1.0 if covariate_rng.random() < 0.5 else -1.0
        elif kind == UNIFORM:
            x[i] = math.sqrt(3.0) * (2.0 * covariate_rng.random() - 1.0)
        elif kind == STUDENT:
            x[i] = covariate_rng.standard_normal() * math.sqrt((degrees - 2.0) / chi_square_rng.chisquare(degrees))
        else:
            x[i] = covariate_rng.standard_normal()


@njit(nogil=True, cache=True, error_model="numpy")
def draw_teacher(teacher, root, task_root, mean, task_rng, sign_rng, W, signs):
    """Draw what labels a prompt: W (m, d) and signs (m,), of covariates of unit variance.

    root, task_root (d,): standard deviations of the covariates, and of the task vector on covariates of unit variance;
    mean: of its first coordinate. A nonlinear teacher has rows on the unit sphere before they are scaled by root.
    """
    m, d = W.shape
    for k in range(m):
        size = 0.0
        for i in range(d):
            W[k, i] = task_rng.standard_normal()
            size += W[k, i] * W[k, i]
        for i in range(d):
            W[k, i] *= task_root[i] if teacher == LINEAR else root[i] / math.sqrt(size)
        signs[k] = 1.0
        if teacher != LINEAR and sign_rng.random() < 0.5:
            signs[k] = -1.0
    if teacher == LINEAR:
        W[0, 0] += mean


@njit(nogil=True, cache=True, error_model="numpy")
def label(teacher, W, signs, x):
    """f(x) without noise."""
    m, d = W.shape
    total = 0.0
    for k in range(m):
        z = 0.0
        for i in range(d):
            z += W[k, i] * x[i]
        if teacher == CUBIC:
            z = z * z * z
        elif teacher in (RELU, NETWORK):
            z = max(z, 0.0)
        elif teacher == SIGN:
            z = 1.0 if z > 0.0 else -1.0
        elif teacher == TANH:
            z = math.tanh(TANH_GAIN * z)
        elif teacher == HERMITE3:
            z = (z * z * z - 3.0 * z) / math.sqrt(6.0)
        total += signs[k] * z
    return total / math.sqrt(m)


@njit(nogil=True, cache=True, error_model="numpy")
def explicit_moments(
    teacher, W, signs, kind, degrees, u, a, n, s2, covariate_rng, chi_square_rng, label_noise_rng, x, out
):  # fmt: skip
    """g, S u and S a into out (3, d) from n examples drawn one by one; returns s = |y|^2. x (d,) is scratch."""
    d = x.size
    for i in range(d):
        out[0, i] = 0.0
        out[1, i] = 0.0
        out[2, i] = 0.0
    s, noise_std = 0.0, math.sqrt(s2)
    for _ in range(n):
        covariate(kind, degrees, covariate_rng, chi_square_rng, x)
        y = label(teacher, W, signs, x) + noise_std * label_noise_rng.standard_normal()
        along_u, along_a = 0.0, 0.0
        for i in range(d):
            along_u += x[i] * u[i]
            along_a += x[i] * a[i]
        s += y * y
        for i in range(d):
            out[0, i] += y * x[i]
            out[1, i] += along_u * x[i]
            out[2, i] += along_a * x[i]
    return s


@njit(nogil=True, cache=True, error_model="numpy")
def explicit_gram(
    teacher, W, signs, kind, degrees, n, s2, covariate_rng, chi_square_rng, label_noise_rng, x, S, g
):  # fmt: skip
    """S = X^T X and g = X^T y from n examples drawn one by one. x (d,) is scratch."""
    d, noise_std = x.size, math.sqrt(s2)
    for i in range(d):
        g[i] = 0.0
        for j in range(d):
            S[i, j] = 0.0
    for _ in range(n):
        covariate(kind, degrees, covariate_rng, chi_square_rng, x)
        y = label(teacher, W, signs, x) + noise_std * label_noise_rng.standard_normal()
        for i in range(d):
            g[i] += y * x[i]
            for j in range(d):
                S[i, j] += x[i] * x[j]


# -- the layer as it is written down ---------------------------------------------------------------------------


@njit(nogil=True, cache=True, error_model="numpy")
def literal_layer(K, Q, V, h, X, y, x, target, dK, dQ, dV, dh):
    """Predict the query's label by literal linear attention, and add the gradient of the squared error.

    K, Q, V (d+1, d+1), h (d+1,): the layer's matrices; X (n, d), y (n,), x (d,): one prompt. The scores are taken as
    tokens (K^T (Q query)), so that no token is projected: n d + d^2 operations instead of n d^2. The gradient of
    (prediction - target)^2 is added to dK, dQ, dV and dh. Returns the prediction.
    """
    n, d = X.shape
    tokens = np.empty((n, d + 1))
    tokens[:, :d] = X
    tokens[:, d] = y
    query = np.zeros(d + 1)
    query[:d] = x
    asked = Q @ query
    scores = tokens @ (K.T @ asked)
    gathered = tokens.T @ scores
    prediction = np.dot(h, query + V @ gathered)
    pull = 2.0 * (prediction - target)
    value = V.T @ h
    back = tokens.T @ (tokens @ value)
    for i in range(d + 1):
        dh[i] += pull * query[i]
        for j in range(d + 1):
            dV[i, j] += pull * h[i] * gathered[j]
            dh[i] += pull * V[i, j] * gathered[j]
            dK[i, j] += pull * asked[i] * back[j]
    along = K @ back
    for i in range(d + 1):
        for j in range(d + 1):
            dQ[i, j] += pull * along[i] * query[j]
    return prediction


def draw_prompts(Sig, T, n, s2, count, rng):
    """(w, X, y, x, target) of `count` Gaussian prompts with linear labels, drawn whole by NumPy, any covariances.

    Shapes (count, d), (count, n, d), (count, n), (count, d), (count,). The reference that the samplers replace.
    """
    d = len(Sig)
    w = rng.standard_normal((count, d)) @ _root(T)
    X = rng.standard_normal((count, n + 1, d)) @ _root(Sig)
    y = np.einsum("pnd,pd->pn", X, w) + math.sqrt(s2) * rng.standard_normal((count, n + 1))
    return w, X[:, :n], y[:, :n], X[:, n], y[:, n]


def _root(covariance):
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=float))
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
