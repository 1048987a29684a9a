"""Training on minibatches of fresh prompts, by SGD or Adam, and testing on fresh prompts.

Everything happens in coordinates in which covariates have unit variance; `root` (d,) holds their standard deviations.
Per prompt the layer's error e needs the products of `prompts.py` alone, and the gradient of the batch in A is one
matrix product, sum_p 2 e_p (c g_p + S_p u) x_p^T.
Adam: Kingma & Ba 2015, with betas 0.9 and 0.999 and a learning rate that falls to zero as a cosine.
"""

import math

import numpy as np
from numba import njit

from .kernels import FULL, LITERAL, LOSS_LIMIT, blank, gradient_diagonal, pull, record, unpack
from .prompts import (
    all_moments,
    covariate,
    draw_teacher,
    explicit_gram,
    explicit_moments,
    gram_moments,
    label,
    useful_moments,
    whiten_diagonal,
)

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
STATUS = {"done": 0, "cancelled": 1, "diverged": 2}
SETTLING = 64  # prompts among whose batches the loss is largest with which later ones are compared for divergence
SUMS = 7  # of a test: see `test_layer`

DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]


@njit(nogil=True, cache=True, error_model="numpy")
def normals(rng, out, cancel):
    """Fill out (rows, d) with standard normals, row by row, until the cancel flag is seen."""
    for p in range(out.shape[0]):
        if cancel[0] != 0:
            return
        for i in range(out.shape[1]):
            out[p, i] = rng.standard_normal()


@njit(nogil=True, cache=True, error_model="numpy")
def useful_gradient(
    task_root, mean, n, s2, batch, c, A, task_rng, chi_square_rng, noise_rng, query_rng, label_noise_rng, cancel,
    dA, X, D,
):  # fmt: skip
    """(loss, gradient in c) of one batch of Gaussian prompts with linear labels where u = b = h = 0; that in A to dA.

    `batch_gradient` for the useful blocks alone, with `prompts.useful_moments` written out: the draws are most of it.
    """
    d, noise_std, share = task_root.size, math.sqrt(s2), 2.0 / batch
    W, target, chi = np.empty((batch, d)), np.empty(batch), np.empty(batch)
    # Stream by stream: a generator that stays in the registers draws a third faster than seven in turn.
    normals(query_rng, X, cancel)
    normals(task_rng, W, cancel)
    normals(noise_rng, D, cancel)
    for p in range(batch):
        target[p] = noise_std * label_noise_rng.standard_normal()
    for p in range(batch):
        chi[p] = chi_square_rng.chisquare(n)
    if cancel[0] != 0:
        return np.nan, 0.0
    AX = np.dot(X, A.T)
    loss, dc = 0.0, 0.0
    for p in range(batch):
        r2, along, wanted = 0.0, 0.0, target[p]
        for i in range(d):
            W[p, i] *= task_root[i]
        W[p, 0] += mean
        for i in range(d):
            r2 += W[p, i] * W[p, i]
            along += W[p, i] * D[p, i]
            wanted += W[p, i] * X[p, i]
        length = math.sqrt((r2 + s2) * chi[p])
        shift = chi[p] + (math.sqrt(s2 * chi[p]) - length) * along / r2 if r2 > 0.0 else 0.0
        met = 0.0
        for i in range(d):
            D[p, i] = length * D[p, i] + shift * W[p, i]
            met += D[p, i] * AX[p, i]
        error = c * met - wanted
        e = share * error
        for i in range(d):
            D[p, i] *= e * c
        dc += e * met
        loss += error * error
    dA[:, :] = np.dot(D.T, X)
    return loss / batch, dc


@njit(nogil=True, cache=True, error_model="numpy")
def batch_gradient(
    even, explicit, teacher, width, kind, degrees, root, task_root, mean, n, s2, batch, blocks,
    task_rng, chi_square_rng, noise_rng, covariate_rng, query_rng, label_noise_rng, sign_rng, cancel, gradient, X, D,
):  # fmt: skip
    """Mean squared error of one batch of fresh prompts, and its gradient in the whitened blocks, out.

    even               whether u, b and h are there; explicit: whether prompts are drawn example by example
    teacher, width, kind, degrees   what labels, and the covariates; used where explicit
    root, task_root (d,), mean      see `draw_teacher`
    X, D (batch, d)    scratch: the queries, and what meets them in the gradient of A
    Returns NaN where the cancel flag was seen.
    """
    d = root.size
    b_at = d + 1 + d * d
    u, c, b, h = blocks[:d], blocks[d], blocks[b_at : b_at + d], blocks[b_at + d :]
    A = blocks[d + 1 : b_at].reshape(d, d)
    gradient[:] = 0.0
    if not even and not explicit:
        loss, gradient[d] = useful_gradient(
            task_root, mean, n, s2, batch, c, A, task_rng, chi_square_rng, noise_rng, query_rng, label_noise_rng,
            cancel, gradient[d + 1 : b_at].reshape(d, d), X, D,
        )  # fmt: skip
        return loss
    for p in range(batch):
        if explicit:
            covariate(kind, degrees, covariate_rng, chi_square_rng, X[p])
        else:
            for i in range(d):
                X[p, i] = query_rng.standard_normal()
    AX = np.dot(X, A.T)
    out, E, x, scratch = np.empty((3, d)), np.empty((3, d)), np.empty(d), np.empty((15, 4))
    W, signs, zero = np.empty((width, d)), np.empty(width), np.zeros(d)
    loss, dc, noise_std = 0.0, 0.0, math.sqrt(s2)
    for p in range(batch):
        if cancel[0] != 0:
            return np.nan
        draw_teacher(teacher, root, task_root, mean, task_rng, sign_rng, W, signs)
        target = label(teacher, W, signs, X[p]) + noise_std * label_noise_rng.standard_normal()
        s = 0.0
        if explicit:
            s = explicit_moments(
                teacher, W, signs, kind, degrees, u if even else zero, AX[p] if even else zero, n, s2,
                covariate_rng, chi_square_rng, label_noise_rng, x, out,
            )  # fmt: skip
        else:
            s = all_moments(W[0], u, AX[p], n, s2, chi_square_rng, noise_rng, scratch, E, out)
        g, a = out[0], AX[p]
        along = 0.0
        for i in range(d):
            along += a[i] * g[i]
        prediction = c * along
        if even:
            Su, Sa = out[1], out[2]
            beta, ug = 0.0, 0.0
            for i in range(d):
                beta += b[i] * X[p, i]
                ug += u[i] * g[i]
                prediction += a[i] * Su[i] + h[i] * X[p, i]
            prediction += beta * (ug + c * s)
            e = 2.0 * (prediction - target) / batch
            dc += e * (along + s * beta)
            for i in range(d):
                D[p, i] = e * (c * g[i] + Su[i])
                gradient[i] += e * (beta * g[i] + Sa[i])
                gradient[b_at + i] += e * (ug + c * s) * X[p, i]
                gradient[b_at + d + i] += e * X[p, i]
        else:
            e = 2.0 * (prediction - target) / batch
            dc += e * along
            for i in range(d):
                D[p, i] = e * c * g[i]
        loss += (prediction - target) ** 2
    gradient[d] = dc
    gradient[d + 1 : b_at] = np.dot(D.T, X).reshape(d * d)
    return loss / batch


@njit(nogil=True, cache=True, error_model="numpy")
def stack_gradient(
    explicit, teacher, width, kind, degrees, root, task_root, mean, n, s2, batch, A,
    task_rng, chi_square_rng, noise_rng, covariate_rng, query_rng, label_noise_rng, sign_rng, cancel, gradient,
):  # fmt: skip
    """Mean squared error of a batch, and its gradient, of stacked layers A (k, d, d) on covariates of unit variance.

    Layer j moves the prediction's weight vector by A_j g and the residual product g by -S A_j g, so that a prompt is
    seen through S and g only. The other arguments are those of `batch_gradient`. Returns NaN where the cancel flag
    was seen.
    """
    layers, d = A.shape[0], A.shape[1]
    L, S, x, example = np.empty((d, d)), np.empty((d, d)), np.empty(d), np.empty(d)
    W, signs = np.empty((width, d)), np.empty(width)
    g, step = np.empty((layers + 1, d)), np.empty((layers, d))
    back, pulled, moved = np.empty(d), np.empty(d), np.empty(d)
    gradient[:, :, :] = 0.0
    loss, noise_std = 0.0, math.sqrt(s2)
    for _ in range(batch):
        if cancel[0] != 0:
            return np.nan
        draw_teacher(teacher, root, task_root, mean, task_rng, sign_rng, W, signs)
        if explicit:
            covariate(kind, degrees, covariate_rng, chi_square_rng, x)
            explicit_gram(
                teacher, W, signs, kind, degrees, n, s2, covariate_rng, chi_square_rng, label_noise_rng, example, S,
                g[0],
            )  # fmt: skip
        else:
            for i in range(d):
                x[i] = query_rng.standard_normal()
            gram_moments(W[0], n, s2, chi_square_rng, noise_rng, L, S, g[0])
        target = label(teacher, W, signs, x) + noise_std * label_noise_rng.standard_normal()
        prediction = 0.0
        for j in range(layers):
            times(A[j], g[j], step[j])
            times(S, step[j], moved)
            for i in range(d):
                prediction += x[i] * step[j, i]
                g[j + 1, i] = g[j, i] - moved[i]
        e = 2.0 * (prediction - target) / batch
        for i in range(d):
            back[i] = 0.0
        for j in range(layers - 1, -1, -1):
            times(S, back, moved)
            for i in range(d):
                pulled[i] = e * x[i] - moved[i]
            for i in range(d):
                for m in range(d):
                    gradient[j, i, m] += pulled[i] * g[j, m]
                    back[m] += A[j, i, m] * pulled[i]
        loss += (prediction - target) ** 2
    return loss / batch


@njit(nogil=True, cache=True, error_model="numpy")
def times(M, x, out):
    """out = M x of small matrices."""
    for i in range(M.shape[0]):
        total = 0.0
        for j in range(M.shape[1]):
            total += M[i, j] * x[j]
        out[i] = total


@njit(nogil=True, cache=True, error_model="numpy")
def update(adam, learning_rate, k, steps, gradient, first, second, theta):
    """Move theta by one step of SGD, or of Adam with its moments `first` and `second`; k counts from 0."""
    if not adam:
        for i in range(theta.size):
            theta[i] -= learning_rate * gradient[i]
        return
    rate = learning_rate * 0.5 * (1.0 + math.cos(math.pi * k / steps))
    grown_1, grown_2 = 1.0 - BETA_1 ** (k + 1), 1.0 - BETA_2 ** (k + 1)
    for i in range(theta.size):
        first[i] = BETA_1 * first[i] + (1.0 - BETA_1) * gradient[i]
        second[i] = BETA_2 * second[i] + (1.0 - BETA_2) * gradient[i] * gradient[i]
        theta[i] -= rate * (first[i] / grown_1) / (math.sqrt(second[i] / grown_2) + EPSILON)


@njit(nogil=True, cache=True, error_model="numpy")
def train_on_batches(
    chart, skip, layers, adam, explicit, teacher, width, kind, degrees, population, lam, t, mean, n, s2, scale, theta,
    learning_rate, steps, batch, record_at, frame_at, diagonal, frames,
    task_rng, chi_square_rng, noise_rng, covariate_rng, query_rng, label_noise_rng, sign_rng, cancel, progress, records,
):  # fmt: skip
    """Train on fresh batches; theta is overwritten. Returns (status, step it stopped at).

    chart, skip, lam, t, n, s2, scale, record_at, ..., records: as in `kernels.descend`
    layers               1, or the number of stacked matrices that theta then holds
    adam                 Adam with a cosine, else SGD at a constant rate
    explicit, teacher, width, kind, degrees, mean: as in `batch_gradient`; mean is that of the task vector itself
    population           whether the recorded loss is the closed form; else it is the mean over the batches since the
                         last record, the one drawn next included, and its even part is not known
    """
    d = lam.size
    even = chart in (FULL, LITERAL)
    root, task_root = np.sqrt(lam), np.sqrt(lam * t)
    white_mean = mean * root[0]
    blocks, gradient = np.zeros(d * d + 3 * d + 1), np.empty(d * d + 3 * d + 1)
    white, work, Q = np.empty(blocks.size), np.empty((8, d)), np.empty((d, d))
    move, first, second = np.zeros(theta.size), np.zeros(theta.size), np.zeros(theta.size)
    X, D = np.empty((batch, d)), np.empty((batch, d))
    A, dA = np.empty((layers, d, d)), np.empty((layers, d, d))
    recorded, framed, limit, largest, seen, since = 0, 0, np.inf, 0.0, 0.0, 0
    blank(records, diagonal, frames)
    for k in range(steps + 1):
        progress[0] = k
        if layers == 1:
            unpack(chart, theta, scale, blocks)
        else:
            stacked = theta.reshape(layers, d, d)
            for i in range(d):
                for m in range(d):
                    total = 0.0
                    for j in range(layers):
                        A[j, i, m] = root[i] * scale * stacked[j, i, m] * root[m]
                        total += scale * stacked[j, i, m]
                    blocks[d + 1 + m * d + i] = total
            blocks[d] = 1.0
        if k < steps or not population:
            if layers == 1:
                whiten_diagonal(root, blocks, white)
                loss = batch_gradient(
                    even, explicit, teacher, width, kind, degrees, root, task_root, white_mean, n, s2, batch, white,
                    task_rng, chi_square_rng, noise_rng, covariate_rng, query_rng, label_noise_rng, sign_rng, cancel,
                    gradient, X, D,
                )  # fmt: skip
                whiten_diagonal(root, gradient, gradient)
                pull(chart, skip, theta, scale, gradient, move)
            else:
                loss = stack_gradient(
                    explicit, teacher, width, kind, degrees, root, task_root, white_mean, n, s2, batch, A,
                    task_rng, chi_square_rng, noise_rng, covariate_rng, query_rng, label_noise_rng, sign_rng, cancel,
                    dA,
                )  # fmt: skip
                at = 0
                for j in range(layers):
                    for i in range(d):
                        for m in range(d):
                            move[at] = root[i] * scale * dA[j, i, m] * root[m]
                            at += 1
            if cancel[0] != 0:
                return CANCELLED, k
            if k * batch < SETTLING:
                largest = max(largest, loss)
                limit = LOSS_LIMIT * largest
            if not loss <= limit:
                return DIVERGED, k
            seen += loss
            since += 1
        if recorded < record_at.size and record_at[recorded] == k:
            frame = framed < frame_at.size and frame_at[framed] == k
            losses = (seen / max(since, 1), np.nan)
            if population:
                losses = gradient_diagonal(lam, t, n, s2, even, blocks, gradient, work)
            record(blocks, Q, losses, recorded, framed if frame else -1, records, diagonal, frames)
            if not population:
                records[0, recorded] = seen / since
                seen, since = 0.0, 0
            recorded += 1
            framed += frame
        if k < steps:
            update(adam, learning_rate, k, steps, move, first, second, theta)
    return DONE, steps


# -- on fresh prompts ------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, error_model="numpy")
def test_layer(
    even, explicit, teacher, width, kind, degrees, lam, t, mean, n, s2, count, blocks, A,
    task_rng, chi_square_rng, noise_rng, covariate_rng, label_noise_rng, sign_rng, cancel, sums,
):  # fmt: skip
    """Test on `count` fresh prompts; blocks and A are on covariates as they are, A (0, d, d) where layers = 1.

    The error on a prompt is averaged over its query where labels are linear and covariates Gaussian,
    |w - what|^2 in the norm of Sig plus s2, and else taken on one query. sums (7,), out: sums of the error e and of
    e^2; of p = y_q <x_q, g>, of q = <x_q, g>^2, of p^2, q^2 and p q, from which the best plain step is regressed.
    Returns False where the cancel flag was seen.
    """
    d, layers = lam.size, A.shape[0]
    b_at = d + 1 + d * d
    root, task_root, white_mean = np.sqrt(lam), np.sqrt(lam * t), mean * np.sqrt(lam[0])
    white = np.empty(blocks.size)
    whiten_diagonal(root, blocks, white)
    u, c, b, h = white[:d], white[d], white[b_at : b_at + d], white[b_at + d :]
    M = white[d + 1 : b_at].reshape(d, d)
    out, E, scratch = np.empty((3, d)), np.empty((3, d)), np.empty((15, 4))
    x, query = np.empty(d), np.empty(d)
    W, signs, zero, what = np.empty((width, d)), np.empty(width), np.zeros(d), np.empty(d)
    L, S, step, moved = np.empty((d, d)), np.empty((d, d)), np.empty(d), np.empty(d)
    B = np.empty((layers, d, d))
    for j in range(layers):
        for i in range(d):
            for m in range(d):
                B[j, i, m] = root[i] * A[j, i, m] * root[m]
    sums[:] = 0.0
    for _ in range(count):
        if cancel[0] != 0:
            return False
        draw_teacher(teacher, root, task_root, white_mean, task_rng, sign_rng, W, signs)
        w, g, s = W[0], out[0], 0.0
        if explicit and layers > 0:
            explicit_gram(
                teacher, W, signs, kind, degrees, n, s2, covariate_rng, chi_square_rng, label_noise_rng, x, S, g
            )
        elif explicit:
            s = explicit_moments(
                teacher, W, signs, kind, degrees, u, zero, n, s2, covariate_rng, chi_square_rng, label_noise_rng, x, out
            )
        elif layers > 0:
            gram_moments(w, n, s2, chi_square_rng, noise_rng, L, S, g)
        elif even:
            s = all_moments(w, u, zero, n, s2, chi_square_rng, noise_rng, scratch, E, out)
        else:
            useful_moments(w, n, s2, chi_square_rng, noise_rng, g)
        along, size = 0.0, 0.0
        if explicit:
            covariate(kind, degrees, covariate_rng, chi_square_rng, query)
            for i in range(d):
                size += lam[i] * g[i] * query[i]
        else:
            for i in range(d):
                along += lam[i] * g[i] * w[i]
                size += (lam[i] * g[i]) ** 2
        ug = 0.0
        for i in range(d):
            what[i] = 0.0
            ug += u[i] * g[i]
        if layers > 0:
            for j in range(layers):
                times(B[j], g, step)
                times(S, step, moved)
                for i in range(d):
                    what[i] += step[i]
                    g[i] -= moved[i]
        else:
            for j in range(d):
                felt = c * g[j] + (out[1, j] if even else 0.0)
                for i in range(d):
                    what[i] += M[j, i] * felt
            if even:
                for i in range(d):
                    what[i] += b[i] * (ug + c * s) + h[i]
        error = 0.0
        if explicit:
            target = label(teacher, W, signs, query) + math.sqrt(s2) * label_noise_rng.standard_normal()
            for i in range(d):
                error -= what[i] * query[i]
            error = (error + target) ** 2
            along, size = size * target, size * size
        else:
            for i in range(d):
                error += (w[i] - what[i]) ** 2
            error += s2
        sums[0] += error
        sums[1] += error * error
        sums[2] += along
        sums[3] += size
        sums[4] += along * along
        sums[5] += size * size
        sums[6] += along * size
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def draw_training_set(lam, t, n, s2, count, task_rng, chi_square_rng, noise_rng, query_rng, label_noise_rng, G, X, y):
    """`count` Gaussian prompts with linear labels: X^T y into G, queries into X (count, d), noisy targets into y."""
    d = lam.size
    w = np.empty(d)
    for p in range(count):
        for i in range(d):
            w[i] = math.sqrt(lam[i] * t[i]) * task_rng.standard_normal()
        useful_moments(w, n, s2, chi_square_rng, noise_rng, G[p])
        y[p] = math.sqrt(s2) * label_noise_rng.standard_normal()
        for i in range(d):
            x = query_rng.standard_normal()
            y[p] += w[i] * x
            X[p, i] = math.sqrt(lam[i]) * x
            G[p, i] *= math.sqrt(lam[i])
