"""What every lab with a full scale promises: torch repeats the kernels, and the confirmations hold."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from sims.engine import Cancelled, RunMonitor, all_labs, compiled, confirmations, execute
from sims.engine.backends import choose, full_scale, has_full_scale
from tests.test_contracts import check_shapes, short, variants

LABS = [lab for lab in all_labs() if has_full_scale(lab)]
TORCH, SINGLE = choose("torch", "cpu", "float64"), choose("torch", "cpu", "float32")

of_lab = pytest.mark.parametrize("lab", LABS, ids=[lab.id for lab in LABS])


def test_there_are_labs_with_a_full_scale():
    assert {"label_noise", "xor_grokking", "augmentation_graph"} <= {lab.id for lab in LABS}


# -- the backend ---------------------------------------------------------------------------------------------------


@of_lab
def test_float64_on_the_processor_is_the_kernel_to_rounding(lab):
    """Every choice of every field, both runs fresh: the whole trace within 1e-9."""
    for params in variants(lab):
        params = params.replace(replicates=2)
        kernel, torch = execute(lab, params, fresh=True), execute(lab, params, fresh=True, backend=TORCH)
        assert (kernel.provenance["backend"], torch.provenance["backend"]) == ("numba", "torch")
        assert (kernel.provenance["grade"], torch.provenance["grade"]) == ("A", "C") and kernel.key != torch.key
        assert torch.provenance["fingerprint"]["torch"] and torch.provenance["device"] == "cpu"
        check_shapes(lab, torch)
        assert torch.trace.stopped == kernel.trace.stopped
        for group in ("series", "finals", "frames"):
            ours, theirs = getattr(torch.trace, group), getattr(kernel.trace, group)
            assert list(ours) == list(theirs)
            for name, values in ours.items():
                message = f"{name} of {dict(params.changed())}"
                np.testing.assert_allclose(values, theirs[name], rtol=1e-9, atol=1e-12, err_msg=message)
                assert values.dtype == theirs[name].dtype


@of_lab
def test_float32_is_something_else_and_near(lab):
    kernel, torch = execute(lab, short(lab)), execute(lab, short(lab), backend=SINGLE)
    assert kernel.trace_sha256 != torch.trace_sha256 and torch.provenance["dtype"] == "float32"
    for name, values in torch.trace.series.items():
        largest = np.nanmax(np.abs(kernel.trace.series[name]), initial=1e-6)
        np.testing.assert_allclose(values, kernel.trace.series[name], rtol=0, atol=1e-3 * largest)


@of_lab
def test_a_replicate_draws_the_same_in_any_company(lab):
    together = execute(lab, short(lab), backend=TORCH)
    alone = execute(lab, short(lab, replicates=1, first_replicate=2), backend=TORCH)
    for name, values in alone.trace.series.items():
        np.testing.assert_allclose(values[0], together.trace.series[name][2], rtol=1e-9, atol=1e-12)


@of_lab
def test_the_same_bits_again(lab):
    assert len({execute(lab, short(lab), backend=TORCH).trace_sha256 for _ in range(2)}) == 1


@of_lab
def test_a_batch_can_be_watched_and_cancelled(lab):
    params = short(lab, steps=int(min(lab.params.fields()["steps"].le, 10**6)), replicates=2)
    monitor, outcome = RunMonitor.allocate(lab, params), []

    def work():
        try:
            outcome.append(execute(lab, params, monitor=monitor, backend=TORCH))
        except Cancelled as stopped:
            outcome.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    while not np.all(monitor.progress):
        time.sleep(0.001)
    monitor.cancel[0] = 1
    thread.join()
    assert isinstance(outcome[0], Cancelled) and np.all(monitor.progress < params.steps / 100)
    assert np.all(np.any(np.isfinite(monitor.records[:, :, 0]), axis=1)), "what was recorded can be seen"


ASKED = """
import sys
from sims.engine import cli
assert cli.main(["run", sys.argv[1], *sys.argv[2:], "--no-store", "--json"]) == 0
print("torch" in sys.modules)
"""


@of_lab
@pytest.mark.parametrize(("flags", "loaded"), [((), "False"), (("--backend", "torch"), "True")])
def test_torch_is_loaded_when_it_is_asked_for_and_not_before(lab, flags, loaded):
    texts = [
        w for name, text in short(lab, replicates=1).texts().items() for w in (f"--{name.replace('_', '-')}", text)
    ]
    done = subprocess.run(
        [sys.executable, "-c", ASKED, lab.id, *texts, *flags],
        cwd=compiled.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == loaded


@of_lab
def test_the_memory_that_a_batch_needs_grows_with_it(lab):
    needed = full_scale(lab).batch_bytes
    sizes = [needed(short(lab), replicates, "float64") for replicates in (1, 2, 8)]
    assert 0 < sizes[0] < sizes[1] < sizes[2] and needed(short(lab), 8, "float32") < sizes[2]


# -- confirmations -------------------------------------------------------------------------------------------------


@of_lab
def test_every_experiment_is_there_at_both_scales(lab):
    found = full_scale(lab).CONFIRMATIONS
    assert len({(one.id, one.scale) for one in found}) == len(found)
    small, full = ({one.id: one for one in found if one.scale == scale} for scale in confirmations.SCALES)
    assert small and small.keys() == full.keys()
    for one in found:
        assert one.title.endswith(".") and one.id.isidentifier() and isinstance(one.settings["seed"], int)
        assert json.loads(json.dumps(dict(one.settings))) == dict(one.settings), "settings are JSON"
        parts = list(one.parts(one.settings))
        assert len(set(parts)) == len(parts) > 1
        size = one.settings[one.resize]
        assert one.bytes({**one.settings, one.resize: size // 2}) < one.bytes(one.settings) < math.inf
    for name in small:
        needed = small[name].bytes(small[name].settings)
        assert needed < 1e9 and 10 * needed < full[name].bytes(full[name].settings)


SMALL = [(lab, one) for lab in LABS for one in full_scale(lab).CONFIRMATIONS if one.scale == "small"]


@pytest.mark.slow
@pytest.mark.parametrize(("lab", "one"), SMALL, ids=[f"{lab.id}-{one.id}" for lab, one in SMALL])
def test_a_confirmation_shrunk_to_a_processor_holds(lab, one, tmp_path, monkeypatch):
    """As `make test-all` runs it; seeds are in the settings, standard errors and bounds in the verdicts."""
    monkeypatch.setattr(full_scale(lab), "CONFIRMATIONS", (one,))
    report = confirmations.confirm(lab, "small", "cpu", tmp_path)
    (row,) = report["experiments"]
    assert {found["id"]: found["verdict"] for found in row["verdicts"]} == {f["id"]: "holds" for f in row["verdicts"]}
    assert row["samples"] > 0 and (tmp_path / f"{lab.id}-small-cpu-{one.id}.svg").is_file()


def test_a_claim_that_is_false_does_not_hold():
    """The judges can fail: curves, identities and rates that are off are told apart from those that are not."""
    looked_at = 0
    for lab in LABS:
        report = confirmations.newest(lab.id) or {"experiments": []}
        rows = {row["id"]: row for row in report["experiments"]}
        for one in full_scale(lab).CONFIRMATIONS:
            if one.id not in rows or rows[one.id]["settings"] != dict(one.settings):
                continue
            looked_at += 1
            parts = rows[one.id]["parts"]
            assert all(found.verdict == "holds" for found in one.judge(one.settings, parts))
            wrong = one.judge(one.settings, {part: spoilt(content) for part, content in parts.items()})
            assert any(found.verdict != "holds" for found in wrong), one.id
    assert looked_at >= 4, "the stored reports are of the present settings"


def spoilt(content):
    """The numbers of a part with every rate and error turned over."""
    return {
        name: [spoilt({"x": v})["x"] for v in value]
        if isinstance(value, list)
        else spoilt(value)
        if isinstance(value, dict)
        else 1.0 - value
        for name, value in content.items()
    }


def test_a_confirmation_of_another_seed_is_another_experiment():
    one = full_scale(LABS[0]).CONFIRMATIONS[0]
    other = replace(one, settings={**one.settings, "seed": one.settings["seed"] + 1})
    device = "cpu"
    assert confirmations._identity(LABS[0], one, device) != confirmations._identity(LABS[0], other, device)
