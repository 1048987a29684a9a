"""The training loop of quadratically parametrised regression, one loop for six kinds of gradient noise.

The model is ``f(x) = <beta, x>`` with ``beta = v*v`` or, signed, ``beta = u*u - w*w``; the loss is
``L = sum_i res_i^2 / 4n`` with ``res = X beta - y``. Every noise but the spherical one enters through the
samples, so that an algorithm is a choice of one number a sample, the *pull* p_i, and a multiplicative step

    G = X^T p,    u *= 1 - eta*G,    w *= 1 + eta*G,

in which p = res/n is gradient descent, label noise takes xi from one entry, mini-batch noise adds delta*res_I
to one and takes delta*res_J from another, and the batch-one rules keep a single entry. Source of the
algorithms: HaoChen, Wei, Lee & Ma 2021, "Shape Matters", and the code published with it.

Vectors are padded with zeros to whole `Lanes`, and begin at a cache line. Both products go through the rows of X: the
residual is a dot product a row, the gradient a sum of scaled rows. Each output element has one fixed order of
summation, whatever the machine. Nearly all of a full-batch step is reading X, so it is kept once and read to and fro.
"""

import math

import numpy as np
from numba import njit

from ..engine.simd import WIDTH, aligned, any_sign, fused, load, signs, spread, squared, store, store_totals, total

ALGORITHMS = {
    "gd": 0,
    "gd_label_noise": 1,
    "sgd_label_noise": 2,
    "minibatch_noise": 3,
    "sgd": 4,
    "gaussian_noise": 5,
}
SCHEDULES = {"constant": 0, "anneal": 1, "stairs": 2}
SERIES = ("train_loss", "test_error", "weighted_l1", "slow_time", "norm_sq", "mean_shrink", "noise_work")
STATUS = {"done": 0, "cancelled": 1, "diverged": 2}

NORM_SQ_LIMIT = 1e6
# Rows of X in one pass of a product.
ROWS = 4
# Integers are drawn for this many steps at once: one by one, each costs an array of length one.
BLOCK = 512

GD = ALGORITHMS["gd"]
GD_LABEL_NOISE = ALGORITHMS["gd_label_noise"]
SGD_LABEL_NOISE = ALGORITHMS["sgd_label_noise"]
MINIBATCH_NOISE = ALGORITHMS["minibatch_noise"]
SGD = ALGORITHMS["sgd"]
GAUSSIAN_NOISE = ALGORITHMS["gaussian_noise"]
ANNEAL = SCHEDULES["anneal"]
STAIRS = SCHEDULES["stairs"]
DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]


@njit(nogil=True, cache=True, error_model="numpy")
def poll_interval(algorithm, n, d):
    """Steps between two looks at the cancel flag: about two million multiplications, a few milliseconds."""
    batch_one = algorithm in (SGD, SGD_LABEL_NOISE)
    work = 16 * d if batch_one else n * d + 16 * d
    return max(1, 2**21 // work)


@njit(nogil=True, cache=True, error_model="numpy")
def rate_at(schedule, learning_rate, k, steps):
    """eta of the zero-based step k: ``stairs`` divides it by ten after each integer third of the run."""
    if schedule == STAIRS:
        if k >= 2 * steps // 3:
            return learning_rate / 100.0
        if k >= steps // 3:
            return learning_rate / 10.0
    return learning_rate


@njit(nogil=True, cache=True, error_model="numpy")
def noise_at(schedule, noise_std, k, steps):
    """delta of the zero-based step k: ``anneal`` is noise_std*(1 - k/steps)^2, the others keep it."""
    if schedule == ANNEAL:
        left = 1.0 - k / steps
        return noise_std * left * left
    return noise_std


@njit(nogil=True, cache=True, error_model="numpy")
def predictor(signed, u, w, beta):
    """Write beta = u*u, signed u*u - w*w, of subnormal squares 0.

    Return whether |u|^2 + |w|^2 is above the limit or not a number.
    """
    size = spread(0.0)
    for j in range(0, u.size, WIDTH):
        a = squared(load(u, j))
        if signed:
            b = squared(load(w, j))
            store(beta, j, a - b)
            size += a + b
        else:
            store(beta, j, a)
            size += a
    return not (total(size) <= NORM_SQ_LIMIT)


@njit(nogil=True, cache=True, error_model="numpy")
def norm_sq(u, w):
    """|u|^2 + |w|^2, summed in order."""
    total = 0.0
    for j in range(u.size):
        total += u[j] * u[j] + w[j] * w[j]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def padded(v):
    """v (d,) with zeros up to whole lanes."""
    wide = aligned(-(-v.size // WIDTH) * WIDTH)
    wide[: v.size] = v
    return wide


@njit(nogil=True, cache=True, error_model="numpy")
def padded_data(X, y):
    """X and y with rows and columns of zeros up to whole passes of both products: no pass has a tail."""
    n, d = X.shape
    rows, columns = -(-n // ROWS) * ROWS, -(-d // WIDTH) * WIDTH
    wide, long = aligned(rows * columns).reshape(rows, columns), aligned(rows)
    wide[:n, :d] = X
    long[:n] = y
    return wide, long


@njit(nogil=True, cache=True, error_model="numpy")
def residual(X, y, beta, res):
    """res = X beta - y of padded arrays, four rows of X in one pass, from the first to the last."""
    n, d = X.shape
    for i in range(0, n, ROWS):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        sum0 = sum1 = sum2 = sum3 = spread(0.0)
        for j in range(0, d, WIDTH):
            b = load(beta, j)
            sum0 = fused(load(x0, j), b, sum0)
            sum1 = fused(load(x1, j), b, sum1)
            sum2 = fused(load(x2, j), b, sum2)
            sum3 = fused(load(x3, j), b, sum3)
        store_totals(res, i, sum0, sum1, sum2, sum3)
    for i in range(n):
        res[i] -= y[i]


@njit(nogil=True, cache=True, error_model="numpy")
def pull_back(X, pull, G):
    """G = X^T pull of padded arrays, four rows of X in one pass, from the last to the first.

    The residual read the last rows last, so those are still in the cache, and here the first rows stay for it.
    """
    n, d = X.shape
    for j in range(d):
        G[j] = 0.0
    for i in range(n - ROWS, -1, -ROWS):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        p0, p1, p2, p3 = spread(pull[i]), spread(pull[i + 1]), spread(pull[i + 2]), spread(pull[i + 3])
        for j in range(0, d, WIDTH):
            part = fused(p0, load(x0, j), load(G, j))
            part = fused(p1, load(x1, j), part)
            part = fused(p2, load(x2, j), part)
            store(G, j, fused(p3, load(x3, j), part))


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def dot(x, b):
    """<x, b> of padded vectors, in four sums of lanes, so that no product waits for the last one's sum."""
    sum0 = sum1 = sum2 = sum3 = spread(0.0)
    whole = x.size // (4 * WIDTH) * (4 * WIDTH)
    for j in range(0, whole, 4 * WIDTH):
        sum0 = fused(load(x, j), load(b, j), sum0)
        sum1 = fused(load(x, j + WIDTH), load(b, j + WIDTH), sum1)
        sum2 = fused(load(x, j + 2 * WIDTH), load(b, j + 2 * WIDTH), sum2)
        sum3 = fused(load(x, j + 3 * WIDTH), load(b, j + 3 * WIDTH), sum3)
    for j in range(whole, x.size, WIDTH):
        sum0 = fused(load(x, j), load(b, j), sum0)
    return total((sum0 + sum1) + (sum2 + sum3))


@njit(nogil=True, cache=True, error_model="numpy")
def sign_flips(signed, G, rate):
    """How many factors 1 - rate*G, signed also 1 + rate*G, are negative."""
    flips = 0
    for j in range(G.size):
        flips += 1.0 - rate * G[j] < 0.0
        flips += signed and 1.0 + rate * G[j] < 0.0
    return flips


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def multiply(signed, u, w, beta, linear_drift, G, rate):
    """u *= 1 - rate*G, signed w *= 1 + rate*G, linear_drift += rate*G, and what `predictor` does, in one pass.

    Vectors are padded. Return the count of sign flips, and whether the squares are above the limit. Flips are counted
    only where a factor's sign bit says that there may be one, which is rare, and so in a function of its own.
    """
    step, one = spread(rate), spread(1.0)
    size = negative = spread(0.0)
    for j in range(0, u.size, WIDTH):
        move = step * load(G, j)
        store(linear_drift, j, load(linear_drift, j) + move)
        shrink = one - move
        negative = signs(negative, shrink)
        a = load(u, j) * shrink
        store(u, j, a)
        a = squared(a)
        if signed:
            grow = one + move
            negative = signs(negative, grow)
            b = load(w, j) * grow
            store(w, j, b)
            b = squared(b)
            store(beta, j, a - b)
            size += a + b
        else:
            store(beta, j, a)
            size += a
    flips = sign_flips(signed, G, rate) if any_sign(negative) else 0
    return flips, not (total(size) <= NORM_SQ_LIMIT)


@njit(nogil=True, cache=True, error_model="numpy")
def diffuse(signed, d, u, w, linear_drift, G, rate, noise, normal_rng, normals):
    """u -= rate*(G*u + noise*N), signed w -= rate*(noise*N' - G*w); return -2*rate*noise*(<u, N> + <w, N'>).

    Vectors are padded, of d entries; normals (2, padded). The d numbers N are drawn first, then the d numbers N';
    linear_drift += rate*G as in the other rules.
    """
    for part in range(2 if signed else 1):
        for j in range(d):
            normals[part, j] = normal_rng.standard_normal()
    kick = rate * noise
    work = dot(u, normals[0])
    for j in range(d):
        move = rate * G[j]
        linear_drift[j] += move
        u[j] -= move * u[j] + kick * normals[0, j]
    if signed:
        work += dot(w, normals[1])
        for j in range(d):
            w[j] += rate * G[j] * w[j] - kick * normals[1, j]
    return -2.0 * kick * work


@njit(nogil=True, cache=True, error_model="numpy")
def mean_shrink(signed, u, w, u_start, w_start, drift):
    """mean_j of 2 log|u_j/u_j(0)| + 2*drift_j; signed, of log|u_j w_j / u_j(0) w_j(0)|: the drift cancels."""
    total = 0.0
    for j in range(u.size):
        if signed:
            total += math.log(abs(u[j] / u_start[j])) + math.log(abs(w[j] / w_start[j]))
        else:
            total += 2.0 * math.log(abs(u[j] / u_start[j])) + 2.0 * drift[j]
    return total / u.size


@njit(nogil=True, cache=True, error_model="numpy")
def steps_of_one_sample(
    signed, X, y, u, w, beta, linear_drift, learning_rate, noise_std, schedule, steps, first, until, chosen, ups,
    slow_time,
):  # fmt: skip
    """The steps first, ..., until - 1 of a batch-one rule, of one block; all vectors padded, beta that of u and w.

    chosen, ups (BLOCK,) are the samples and 0/1 of the block; ups is empty where labels have no noise. Returns the
    step that it stands at, which is not `until` where the norm is too large there, the flips, whether it is, and the
    slow time.
    """
    flips, labelled = 0, ups.size > 0
    for k in range(first, until):
        rate = rate_at(schedule, learning_rate, k, steps)
        i = chosen[k % BLOCK]
        row = X[i]
        pull = dot(row, beta) - y[i]
        if labelled:
            noise = noise_at(schedule, noise_std, k, steps)
            slow_time += (rate * noise) ** 2
            pull -= noise * (2 * ups[k % BLOCK] - 1)
        flipped, outside = multiply(signed, u, w, beta, linear_drift, row, rate * pull)
        flips += flipped
        if outside:
            return k + 1, flips, True, slow_time
    return until, flips, False, slow_time


@njit(nogil=True, cache=True, error_model="numpy")
def steps_of_all_samples(
    algorithm, signed, X, y, n, d, u, w, beta, linear_drift, G, res, pull, normals, learning_rate, noise_std, schedule,
    steps, first, until, chosen, normal_rng, slow_time, noise_work,
):  # fmt: skip
    """As `steps_of_one_sample`, of a full-batch rule; G, res, pull and normals are scratch, n and d the true sizes.

    chosen (BLOCK,), of mini-batch noise (2*BLOCK,), holds the samples of the block. The work of additive noise so far
    is returned last.
    """
    flips, per_sample = 0, 1.0 / n
    for k in range(first, until):
        rate, noise, b = rate_at(schedule, learning_rate, k, steps), 0.0, k % BLOCK
        if algorithm != GD:
            noise = noise_at(schedule, noise_std, k, steps)
            slow_time += (rate * noise) ** 2
        residual(X, y, beta, res)
        for i in range(pull.size):
            pull[i] = res[i] * per_sample
        if algorithm == GD_LABEL_NOISE:
            pull[chosen[b]] -= noise * normal_rng.standard_normal()
        elif algorithm == MINIBATCH_NOISE:
            plus, minus = chosen[2 * b], chosen[2 * b + 1]
            pull[plus] += noise * res[plus]
            pull[minus] -= noise * res[minus]
        pull_back(X, pull, G)
        if algorithm == GAUSSIAN_NOISE:
            noise_work += diffuse(signed, d, u, w, linear_drift, G, rate, noise, normal_rng, normals)
            outside = predictor(signed, u, w, beta)
        else:
            flipped, outside = multiply(signed, u, w, beta, linear_drift, G, rate)
            flips += flipped
        if outside:
            return k + 1, flips, True, slow_time, noise_work
    return until, flips, False, slow_time, noise_work


@njit(nogil=True, cache=True, error_model="numpy")
def simulate(
    algorithm, signed, X, y, c, beta_star, u, w, linear_drift, learning_rate, noise_std, schedule, steps,
    record_at, frame_at, frames, index_rng, sign_rng, normal_rng, cancel, progress, records,
):  # fmt: skip
    """Train for ``steps`` steps; return (status, stop_step, flips).

    algorithm, schedule  integer codes of ALGORITHMS and SCHEDULES; signed: bool
    X (n, d), y (n,)     inputs, C-contiguous, and labels
    c, beta_star (d,)    weights of the recorded l1 norm; the truth of the recorded test error
    u, w (d,)            start in, last iterate out; w is zeros unless signed
    linear_drift (d,)    zeros in (or what an earlier run left), plus sum_k eta_k*G_k out
    learning_rate eta, noise_std delta: at step 0, the schedule does the rest
    record_at (T,)       increasing steps, first 0, last ``steps``; frame_at (F,) any increasing steps
    frames (F, d)        beta at the steps frame_at, out; records (7, T): the rows are SERIES, out
    cancel, progress     uint8[1] in, int64[1] out

    What is recorded at step k is measured on the iterate before update k. ``stop_step`` is ``steps`` when
    done, else the first k whose iterate has |u|^2 + |w|^2 not within NORM_SQ_LIMIT (diverged) or at which the
    flag was seen (cancelled); u, w are that iterate, records and frames from that step on are NaN. ``flips``
    counts the negative factors 1 - eta*G (signed: and 1 + eta*G) of all steps; additive noise has none.

    Draws of a step, whatever the state: index_rng one integer below n (mini-batch noise two, I then J; gd and
    gaussian_noise none); sign_rng one 0/1 for sgd_label_noise; normal_rng one number for gd_label_noise, d
    for gaussian_noise (signed 2d: u, then w). After an early stop index_rng and sign_rng may be up to BLOCK
    steps ahead. gd and sgd ignore noise_std, and their slow time is 0.
    """
    n, d = X.shape
    X, y = padded_data(X, y)
    u_out, w_out, drift_out = u, w, linear_drift
    u, w, linear_drift = padded(u), padded(w), padded(linear_drift)
    batch_one = algorithm in (SGD, SGD_LABEL_NOISE)
    beta, G, res, pull = aligned(u.size), aligned(u.size), aligned(y.size), aligned(y.size)
    normals = aligned(2 * u.size).reshape(2, u.size)
    u_start, w_start, drift_start = u_out.copy(), w_out.copy(), drift_out.copy()
    slow_time, noise_work = 0.0, 0.0
    k, flips, recorded, framed, next_poll = 0, 0, 0, 0, 0
    chosen, ups = np.zeros(0, np.int64), np.zeros(0, np.int64)
    status = DONE
    interval = poll_interval(algorithm, n, d)
    records[:, :] = np.nan
    frames[:, :] = np.nan

    outside = predictor(signed, u, w, beta)
    while k <= steps:
        if outside:
            status = DIVERGED
            break
        if k == next_poll and k < steps:
            progress[0] = k
            next_poll += interval
            if cancel[0] != 0:
                status = CANCELLED
                break

        if framed < frame_at.size and frame_at[framed] == k:
            for j in range(d):
                frames[framed, j] = u[j] * u[j] - w[j] * w[j]
            framed += 1
        if recorded < record_at.size and record_at[recorded] == k:
            residual(X, y, beta, res)
            loss, error, weighted = 0.0, 0.0, 0.0
            for i in range(n):
                loss += res[i] * res[i]
            for j in range(d):
                beta_j = u[j] * u[j] - w[j] * w[j]
                error += (beta_j - beta_star[j]) ** 2
                weighted += c[j] * abs(beta_j)
            records[0, recorded] = loss / (4 * n)
            records[1, recorded] = error
            records[2, recorded] = weighted
            records[3, recorded] = slow_time
            records[4, recorded] = norm_sq(u, w)
            moved = linear_drift[:d] - drift_start
            records[5, recorded] = mean_shrink(signed, u[:d], w[:d], u_start, w_start, moved)
            records[6, recorded] = noise_work
            recorded += 1
        if k == steps:
            break

        if k % BLOCK == 0:
            block = min(BLOCK, steps - k)
            if algorithm == MINIBATCH_NOISE:
                chosen = index_rng.integers(0, n, 2 * block)
            elif algorithm in (SGD, GD_LABEL_NOISE, SGD_LABEL_NOISE):
                chosen = index_rng.integers(0, n, block)
            if algorithm == SGD_LABEL_NOISE:
                ups = sign_rng.integers(0, 2, block)

        # Until something is to be drawn, recorded or looked at.
        until = min(steps, next_poll, k - k % BLOCK + BLOCK)
        if recorded < record_at.size:
            until = min(until, record_at[recorded])
        if framed < frame_at.size:
            until = min(until, frame_at[framed])
        if batch_one:
            k, flipped, outside, slow_time = steps_of_one_sample(
                signed, X, y, u, w, beta, linear_drift, learning_rate, noise_std, schedule, steps, k, until,
                chosen, ups, slow_time,
            )  # fmt: skip
        else:
            k, flipped, outside, slow_time, noise_work = steps_of_all_samples(
                algorithm, signed, X, y, n, d, u, w, beta, linear_drift, G, res, pull, normals, learning_rate,
                noise_std, schedule, steps, k, until, chosen, normal_rng, slow_time, noise_work,
            )  # fmt: skip
        flips += flipped

    u_out[:], w_out[:], drift_out[:] = u[:d], w[:d], linear_drift[:d]
    if status == DONE:
        progress[0] = steps
    return status, k, flips


@njit(nogil=True, cache=True, error_model="numpy")
def log_walk(x, steps, walks, sign_rng, out):
    """The one-weight cartoon v <- v*(1 + x*z), z = +-1: out[i] = log|v_steps/v_0| / steps of walk i.

    x = eta*delta, out (walks,). Signs are drawn walk after walk. Only the number of steps up matters, so the
    logarithm is taken twice and not at every step. The expectation is log(1 - x^2)/2.
    """
    up, down = math.log(abs(1.0 + x)), math.log(abs(1.0 - x))
    for i in range(walks):
        ups = 0
        for step_up in sign_rng.integers(0, 2, steps):
            ups += step_up
        out[i] = (ups * up + (steps - ups) * down) / steps
