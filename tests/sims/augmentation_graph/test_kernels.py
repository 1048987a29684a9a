"""Training against loops over the definition, and what is recorded of it against dense algebra."""

import math
from itertools import pairwise

import numpy as np
import pytest

from sims.augmentation_graph import kernels, prediction, training
from sims.augmentation_graph.lab import LAB, LEVELS, STREAMS, recorded_steps
from sims.engine import RunMonitor, execute, generator
from sims.engine.provenance import single_threaded_blas
from sims.graphs import network

make = LAB.params.make
SMALL = {"nodes_per_block": 3, "n_features": 3, "batch": 5, "steps": 40, "replicates": 1}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    single_threaded_blas()


def dense(params):
    graph = training.graph_of(params)
    W, Abar = graph.dense()
    return graph, W, Abar


def naive_loss(F, graph, W):
    """The population loss from its two expectations."""
    f = F / np.sqrt(graph.w)[:, None]
    products = f @ f.T
    return float(-2 * np.sum(W * products) + np.sum(np.outer(graph.w, graph.w) * products**2))


def naive_batches(params, graph):
    """The pairs of nodes of every step, drawn one kind of draw at a time."""
    drawn = {}
    for name in ("natural", "first_view", "second_view"):
        drawn[name] = generator(params.seed, STREAMS[name], 0).random((params.steps, params.batch))
    sums, rows = np.cumsum(graph.p_nat), np.cumsum(graph.kernel.toarray(), axis=1)
    nat = np.searchsorted(sums, drawn["natural"], side="right").clip(max=len(sums) - 1)

    def views(u):
        found = (rows[nat] <= u[..., None]).sum(axis=-1)
        return found.clip(max=graph.nodes - 1)

    return views(drawn["first_view"]), views(drawn["second_view"])


def naive_gradients(z1, z2):
    B = len(z1)
    G = z1 @ z2.T * (1 - np.eye(B))
    return 2 / (B * (B - 1)) * G @ z2 - 2 / B * z2, 2 / (B * (B - 1)) * G.T @ z1 - 2 / B * z1


@pytest.mark.parametrize(
    "changes", [{}, {"graph": "glyphs", "glyph_set": "one_symmetric", "rotations": 2, "shifts": 1}]
)
def test_sgd_is_the_batch_loss_followed_pair_by_pair(changes):
    """The second graph has nodes of two weights: each node's gradient is divided by N w."""
    params = make({"batch": 5, "steps": 40, "replicates": 1, "n_features": 3, "learning_rate": 0.7, **changes})
    graph, W, _ = dense(params)
    assert (np.ptp(graph.w) > 1e-6) == bool(changes)
    f = params.init_scale * generator(0, STREAMS["init"], 0).standard_normal((graph.nodes, 3))
    first, second = naive_batches(params, graph)
    losses = [naive_loss(f * np.sqrt(graph.w)[:, None], graph, W)]
    for a, b in zip(first, second, strict=True):
        g1, g2 = naive_gradients(f[a], f[b])
        for x, g in zip([*a, *b], [*g1, *g2], strict=True):
            f[x] -= params.learning_rate / (graph.nodes * graph.w[x]) * g
        losses.append(naive_loss(f * np.sqrt(graph.w)[:, None], graph, W))
    run = execute(LAB, params)
    np.testing.assert_allclose(run.trace.series["loss"][0], np.array(losses)[run.trace.step], rtol=1e-10)


@pytest.mark.parametrize("integrator", ["rk4", "euler"])
@pytest.mark.parametrize("graph_name", ["blocks", "hypercube"])
def test_gradient_flow_is_integrated_step_by_step(graph_name, integrator):
    more = {"cube_dim": 4, "flip_probs": (0.1, 0.2)} if graph_name == "hypercube" else {"nodes_per_block": 2}
    params = make(
        graph=graph_name, training="gradient_flow", n_features=3, steps=30, replicates=1, integrator=integrator, **more
    )
    graph, W, Abar = dense(params)
    F, dt = params.init_scale * generator(0, STREAMS["init"], 0).standard_normal((graph.nodes, 3)), 1 / graph.nodes

    def slope(X):
        return 4 * (Abar @ X - X @ X.T @ X)

    losses = [naive_loss(F, graph, W)]
    for _ in range(params.steps):
        s1 = slope(F)
        if integrator == "euler":
            F = F + dt * s1
        else:
            s2 = slope(F + dt / 2 * s1)
            s3 = slope(F + dt / 2 * s2)
            F = F + dt / 6 * (s1 + 2 * s2 + 2 * s3 + slope(F + dt * s3))
        losses.append(naive_loss(F, graph, W))
    run = execute(LAB, params)
    np.testing.assert_allclose(run.trace.series["loss"][0], np.array(losses)[run.trace.step], rtol=1e-11)
    np.testing.assert_allclose(run.trace.series["time"][0], run.trace.step * dt, rtol=1e-13)


def naive_forward(layers, theta, x):
    offset, current, kept = 0, x, []
    for layer, (a, b) in enumerate(pairwise(layers)):
        weight, bias = theta[offset : offset + a * b].reshape(b, a), theta[offset + a * b : offset + (a + 1) * b]
        offset += (a + 1) * b
        kept.append((weight, current))
        current = current @ weight.T + bias
        if layer < len(layers) - 2:
            current = np.maximum(current, 0)
    return current, kept


def test_the_network_sees_every_pair_of_the_batch():
    """Adam on gradients added up over pairs, each view passed on its own, against one pass for each node."""
    params = make(
        graph="hypercube", cube_dim=3, flip_probs=(0.1,), training="network", width=6, n_features=2, batch=7, steps=12,
        learning_rate=0.01, replicates=1,
    )  # fmt: skip
    graph, W, _ = dense(params)
    layers = training.layers_of(params, graph)
    theta = network.start(layers, generator(0, STREAMS["weights"], 0))
    first, second = naive_batches(params, graph)
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    root = np.sqrt(graph.w)[:, None]
    losses = [naive_loss(naive_forward(layers, theta, graph.inputs)[0] * root, graph, W)]
    for t, (a, b) in enumerate(zip(first, second, strict=True)):
        nodes = np.concatenate([a, b])
        out, kept = naive_forward(layers, theta, graph.inputs[nodes])
        pull = np.concatenate(naive_gradients(out[:7], out[7:]))
        parts = []
        for weight, below in reversed(kept):
            parts.append(np.concatenate([(pull.T @ below).reshape(-1), pull.sum(axis=0)]))
            pull = (pull @ weight) * (below > 0)
        gradient = np.concatenate(parts[::-1])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        rate = 0.5 * 0.01 * (1 + math.cos(math.pi * t / params.steps))
        theta = theta - rate * (mean / (1 - 0.9 ** (t + 1))) / (np.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-8)
        losses.append(naive_loss(naive_forward(layers, theta, graph.inputs)[0] * root, graph, W))
    run = execute(LAB, params)
    np.testing.assert_allclose(run.trace.series["loss"][0], np.array(losses)[run.trace.step], rtol=1e-9)


@pytest.mark.slow
def test_the_network_is_the_one_that_torch_trains():
    """Same start, same batches, 60 steps of Adam with a cosine schedule: losses within 1e-8 of torch in float64."""
    torch = pytest.importorskip("torch")
    params = make(
        graph="hypercube", cube_dim=5, flip_probs=(0.1, 0.2), training="network", width=16, n_features=3, batch=20,
        steps=60, learning_rate=0.005, replicates=1,
    )  # fmt: skip
    graph, W, _ = dense(params)
    layers = training.layers_of(params, graph)
    theta = network.start(layers, generator(0, STREAMS["weights"], 0))
    modules, offset = [], 0
    for a, b in pairwise(layers):
        linear = torch.nn.Linear(int(a), int(b), dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(theta[offset : offset + a * b].reshape(b, a)))
            linear.bias.copy_(torch.tensor(theta[offset + a * b : offset + (a + 1) * b]))
        offset += (a + 1) * b
        modules += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    optimiser = torch.optim.Adam(net.parameters(), lr=params.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, params.steps)
    inputs, root = torch.tensor(graph.inputs), np.sqrt(graph.w)[:, None]

    def population():
        return naive_loss(net(inputs).detach().numpy() * root, graph, W)

    losses = [population()]
    for a, b in zip(*naive_batches(params, graph), strict=True):
        z1, z2 = net(inputs[a]), net(inputs[b])
        B = params.batch
        G = (z1 @ z2.T) * (1 - torch.eye(B, dtype=torch.float64))
        loss = -2 / B * (z1 * z2).sum() + (G**2).sum() / (B * (B - 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(population())
    run = execute(LAB, params)
    np.testing.assert_allclose(run.trace.series["loss"][0], np.array(losses)[run.trace.step], rtol=1e-8)


def test_what_is_recorded_is_what_dense_algebra_says():
    params = make({**SMALL, "n_features": 4, "steps": 300, "leak_within": 0.2})
    graph, W, Abar = dense(params)
    here = training.setting(params)
    advance, look = training._TRAINING["sgd"](
        params, here, here.pairs, 0, RunMonitor.allocate(LAB, params).of(0)
    )  # fmt: skip
    advance(0, 300)
    F = look()
    row = dict(zip(LAB.series, training.measured(here, F, 1.5), strict=True))
    V = np.linalg.eigh(Abar)[1][:, ::-1]
    assert row["loss"] == pytest.approx(naive_loss(F, graph, W), rel=1e-12)
    assert row["loss"] == pytest.approx(((Abar - F @ F.T) ** 2).sum() - (Abar**2).sum(), rel=1e-11)
    y, root = (graph.label[:, None] == np.arange(4)).astype(float), np.sqrt(graph.w)[:, None]
    out = F @ np.linalg.lstsq(F, root * y, rcond=None)[0] / root
    assert row["probe_mse"] == pytest.approx(float(graph.w @ ((y - out) ** 2).sum(axis=1)), abs=1e-12)
    assert row["probe_error"] == pytest.approx(float(graph.w @ (out.argmax(axis=1) != graph.label)), abs=1e-12)
    Q = np.linalg.qr(F)[0]
    sines = np.sqrt(1 - np.linalg.svd(V[:, :4].T @ Q)[1][-1] ** 2)
    assert row["subspace_tan"] == pytest.approx(math.tan(math.asin(sines)), rel=1e-6)
    mass = ((V.T @ F) ** 2).sum(axis=1)
    expected = [mass[0], mass[1:4].mean(), mass[4:12].mean(), mass[12:36].sum() / 24]
    found = [row[f"mode_mass_{i}"] for i in range(1, 5)]
    np.testing.assert_allclose(found[:3], expected[:3], atol=1e-12)
    assert here.level.max() == 3 and np.isnan(row["mode_mass_5"]) and row["time"] == 1.5
    finals = training.finals(here, here.pairs, F)
    np.testing.assert_allclose(finals["feature_eigenvalues"], np.linalg.eigvalsh(F @ F.T)[::-1][:4], atol=1e-12)
    np.testing.assert_allclose(finals["mode_r2"][0], (V[:, 0] @ Q @ Q.T @ V[:, 0]), atol=1e-12)
    crossing = float(W[graph.label[:, None] != graph.label].sum())
    assert finals["phi"] == pytest.approx(crossing, abs=1e-12) and finals["alpha"] == pytest.approx(0.04, abs=1e-12)


def test_a_run_may_be_cut_into_pieces():
    """Two advances in a row are one: what is measured in between changes nothing."""
    for name in ("sgd", "gradient_flow", "network"):
        params = make(nodes_per_block=3, n_features=3, steps=40, replicates=1, training=name, learning_rate=0.01)
        here = training.setting(params)
        ends = []
        for cuts in ((40,), (1, 7, 40)):
            monitor = RunMonitor.allocate(LAB, params).of(0)
            advance, look = training._TRAINING[name](params, here, here.pairs, 0, monitor)
            at = 0
            for cut in cuts:
                status, at = advance(at, cut)
                assert status == kernels.DONE and at == cut
                look()
            assert monitor.progress[0] == 40
            ends.append(look())
        np.testing.assert_array_equal(*ends)


def test_divergence_is_told_with_its_step_and_a_way_out():
    """N = 36: the noiseless limit is 9; at 40 the table leaves every bound."""
    run = execute(LAB, make({**SMALL, "learning_rate": 40.0, "steps": 2000}))
    (stop,) = run.trace.stopped
    assert stop is not None and 0 < stop.step <= 2000
    assert "quarter of the number of nodes, 9" in stop.reason
    late = run.trace.step >= stop.step
    assert all(np.isnan(series[0, late]).all() for series in run.trace.series.values())
    assert np.isfinite(run.trace.series["loss"][0, ~late]).all()


def test_the_noiseless_limit_of_the_step_size():
    """N = 60: Euler in units of the table converges at a rate of 14 and not at 16, around N/4 = 15."""
    base = {"nodes_per_block": 5, "training": "gradient_flow", "integrator": "euler", "steps": 400, "replicates": 1}
    below, above = (execute(LAB, make({**base, "learning_rate": rate})) for rate in (14.0, 16.0))
    assert abs(below.values["excess_loss"][0]) < 1e-6
    assert above.diverged == 1 or above.values["excess_loss"][0] > 1e-2


def test_the_frames_are_the_first_replicates_embedding_next_to_the_minimiser():
    params = make({**SMALL, "n_features": 4, "steps": 3000, "replicates": 2, "batch": 64})
    run = execute(LAB, params)
    shown = run.trace.frames["embedding"]
    graph = training.graph_of(params)
    assert shown.shape == (len(run.trace.frame_step), graph.nodes, 4)
    constant = shown[-1][:, 0]
    np.testing.assert_allclose(constant, 1.0, atol=0.3)
    centres = np.stack([shown[-1][graph.label == c].mean(axis=0) for c in range(4)])
    spread = np.stack([shown[-1][graph.label == c].std(axis=0) for c in range(4)])
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * np.linalg.norm(spread[0]), "classes are apart"


def test_many_nodes_show_a_selection():
    params = make(graph="glyphs", training="eigen", replicates=1, n_features=6)
    run = execute(LAB, params)
    nodes = training.shown_nodes(training.graph_of(params))
    np.testing.assert_array_equal(nodes, [x for x in range(720) if x // 3 % 5 == 0])
    assert run.trace.frames["embedding"].shape == (1, 144, 6)
    ring = training.shown_nodes(training.graph_of(make(graph="ring", ring_nodes=1200, training="eigen")))
    assert len(ring) == 400 and ring[0] == 0 and ring[-1] == 1199


def test_half_times_are_read_off_the_recorded_masses():
    time, limit = np.linspace(0, 4, 81), 0.8
    mass = limit / (1 + (limit / 1e-6 - 1) * np.exp(-8 * limit * time))
    assert prediction.crossing(time, mass, limit / 2) == pytest.approx(
        math.log(limit / 1e-6 - 1) / (8 * limit), abs=1e-9
    )
    assert math.isnan(prediction.crossing(time, 0.1 * mass, limit / 2)), "never reached"
    assert math.isnan(prediction.crossing(time, mass + 1, limit / 2)), "above from the start"


def test_recorded_steps_are_few_and_hold_both_ends():
    for steps in (1, 10, 4000, 10**8):
        step = recorded_steps(make(steps=steps))
        assert step[0] == 0 and step[-1] == steps and len(step) <= 111
    assert LEVELS == 8
