"""The population loss of one linear-attention layer and its gradient, for any two covariances.

Sums over Gaussian prompts done once and for all: products of d x d matrices, no sampling. The kernels for diagonal
covariances are tested against it.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def gradient(Sig, T, n, s2, blocks, out):
    """(odd part, even part) of the loss, and its gradient in the blocks [u, c, A, b, h], into `out`.

    Sig, T (d, d): symmetric covariances of the covariates and of the task vector, that need not commute; n pairs in
    a prompt, s2 the variance of the noise on every label, the target's included.
    """
    d = Sig.shape[0]
    b_at = d + 1 + d * d
    u, c = blocks[:d].copy(), blocks[d]
    A = blocks[d + 1 : b_at].copy().reshape(d, d)
    b, h = blocks[b_at : b_at + d].copy(), blocks[b_at + d :].copy()
    TS = T @ Sig
    STS = Sig @ TS
    v1 = np.trace(TS) + s2
    kurtosis = n * (n + 2.0) * (v1 * v1 + 2.0 * np.sum(TS * TS.T))
    R = (n + 1.0) * STS + v1 * Sig
    Q = c * A.T + np.outer(b, u)
    SQ = Sig @ Q
    G = 2.0 * n * (SQ @ R - STS)
    odd = v1 - 2.0 * n * np.sum(STS * Q) + n * np.sum((SQ @ R) * Q)

    C = n * n * v1 * Sig + 2.0 * n * STS
    Su, Sb, Sh = Sig @ u, Sig @ b, Sig @ h
    AS = A @ Sig
    H = AS @ A.T
    trace_H, size_u = np.sum(H * Sig), np.dot(u, Su)
    HSu, ASb, ASh, Cu = H @ Su, A @ Sb, A @ Sh, C @ u
    ATSu = A.T @ Su
    even = n * (n + 1.0) * np.dot(Su, HSu) + n * trace_H * size_u + 2.0 * c * np.dot(ASb, Cu)
    even += c * c * kurtosis * np.dot(b, Sb) + np.dot(h, Sh) + 2.0 * n * np.dot(Sh, ATSu + c * v1 * b)

    dA = c * G.T + 2.0 * n * (n + 1.0) * np.outer(Su, Sig @ ATSu) + 2.0 * n * size_u * (Sig @ AS)
    dA += 2.0 * c * np.outer(Cu, Sb) + 2.0 * n * np.outer(Su, Sh)
    out[:d] = G.T @ b + 2.0 * n * (n + 1.0) * (Sig @ HSu) + 2.0 * n * trace_H * Su + 2.0 * c * (C @ ASb)
    out[:d] += 2.0 * n * (Sig @ ASh)
    out[d] = np.sum(G * A.T) + 2.0 * np.dot(ASb, Cu) + 2.0 * c * kurtosis * np.dot(b, Sb) + 2.0 * n * v1 * np.dot(b, Sh)
    out[d + 1 : b_at] = dA.reshape(d * d)
    out[b_at : b_at + d] = G @ u + 2.0 * c * (Sig @ (A.T @ Cu)) + 2.0 * c * c * kurtosis * Sb + 2.0 * c * n * v1 * Sh
    out[b_at + d :] = 2.0 * (Sh + n * (Sig @ ATSu) + c * n * v1 * Sb)
    return odd, even
