"""Backends: chosen by words, refused with a way out, carried by keys, provenance and reruns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sims
from sims.engine import BadInput, TooLarge, backends, execute
from sims.engine.backends import choose
from sims.engine.keys import NUMBA, Backend, run_key
from sims.engine.rerun import rerun

SMALL = {"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2, "replicates": 3}
WORDS = ["label_noise", *(w for name, value in SMALL.items() for w in (f"--{name.replace('_', '-')}", str(value)))]
TORCH = choose("torch")


def test_words_choose_a_backend():
    assert choose() == choose("numba", "cpu", "float64") == NUMBA
    assert choose("torch", "cuda:1", "float32") == Backend("torch", "cuda:1", "float32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("jax",), ["no backend 'jax'", "numba, torch"]),
        (("torch", "cpu", "float16"), ["no dtype 'float16'", "float64, float32"]),
        (("torch", "tpu"), ["device = tpu", "cpu, cuda"]),
        (("torch", "cuda:x"), ["device = cuda:x", "cpu, cuda"]),
        (("torch", 3), ["device = 3"]),
        (("numba", "cuda"), ["device = cuda", "numba computes on the cpu", "Set backend to torch"]),
        ((None, "cuda"), ["Set backend to torch"]),
        (("numba", "cpu", "float32"), ["dtype = float32", "numba computes in float64", "Set backend to torch"]),
    ],
)
def test_words_that_name_no_backend_are_refused(words, said):
    with pytest.raises(BadInput) as refusal:
        choose(*words)
    for word in said:
        assert word in str(refusal.value)


def test_a_lab_without_a_full_scale_says_so(lab, small):
    other = replace(lab, id="plain")
    with pytest.raises(BadInput, match=r"plain has no full scale.*run it with numba"):
        execute(other, small, backend=TORCH)


def test_without_a_cuda_device_there_is_a_way_out(lab, small, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"finds no CUDA device here. Set device to cpu"):
        execute(lab, small, backend=choose("torch", "cuda"))


def test_a_device_beyond_the_last_one_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    backends.require_device("cuda:1")
    with pytest.raises(BadInput, match=r"device = cuda:2 .*cuda:0 to cuda:1 are here"):
        backends.require_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="only cuda:0 is here"):
        backends.require_device("cuda:1")


def test_too_little_memory_names_what_fits(lab, small, monkeypatch):
    needed = backends.full_scale(lab).batch_bytes
    monkeypatch.setattr(backends, "free_memory", lambda device: needed(small, 2, "float64"))
    with pytest.raises(TooLarge, match=r"At most 2 replicates fit at once.*--replicates 2 --backend torch") as refusal:
        execute(lab, small, backend=TORCH)
    assert "--first-replicate" in str(refusal.value)
    execute(lab, small.replace(replicates=2), backend=TORCH)
    monkeypatch.setattr(backends, "free_memory", lambda device: 1.0)
    with pytest.raises(TooLarge, match="Not one replicate fits"):
        execute(lab, small, backend=TORCH)


def test_the_store_keeps_the_runs_of_each_backend_apart(lab, small, store, made):
    kept = execute(lab, small, store=store, backend=TORCH)
    assert not kept.cached and kept.key == run_key(lab, small, TORCH) != made.key
    again = execute(lab, small, store=store, backend=TORCH)
    assert again.cached and again.trace_sha256 == kept.trace_sha256 and again.family == kept.family != made.family
    assert not execute(lab, small, store=store).cached and len(store.keys()) == 2


def test_a_rerun_uses_the_backend_of_the_run(lab, small, store):
    kept = execute(lab, small, store=store, backend=choose("torch", "cpu", "float32"))
    outcome = rerun(kept.key, store)
    assert outcome.run.provenance["backend"] == "torch" and outcome.run.provenance["dtype"] == "float32"
    assert outcome.grade == "C" and outcome.agrees and "bit for bit the same" in outcome.sentence


@pytest.mark.parametrize(("shift", "agrees"), [(0.5, True), (20.0, False)])
def test_grade_c_compares_bands(call, lab, small, store, tmp_path, shift, agrees):
    """The stored means moved by so many of their standard errors; two to either side are allowed."""
    kept = execute(lab, small, store=store, backend=TORCH)
    (line,) = call("export", kept.key, "--format", "json", "--out", tmp_path)[1].split()
    content = json.loads(Path(line).read_text())
    for metric in content["metrics"].values():
        if metric["se"]:
            metric["mean"] += shift * metric["se"]
    content["series"]["train_loss"][0][0] += 1.0  # another trace
    Path(line).write_text(json.dumps({**content, "trace_sha256": "0" * 64}))
    code, out, _ = call("rerun", line, "--check")
    assert code == (0 if agrees else 1) and "Grade C" in out and ("do NOT overlap" in out) != agrees


def test_a_gpu_may_round_in_another_order(lab, small, store, made):
    """Two runs of one key on a GPU that differ are no alarm: the first one stays."""
    gpu = {**made.provenance, "backend": "torch", "device": "cuda", "grade": "C"}
    first = replace(made, provenance=gpu)
    moved = {name: values + 1e-9 for name, values in made.trace.series.items()}
    second = replace(first, trace=replace(made.trace, series=moved))
    store.put(first)
    store.put(second)
    assert store.load(made.key).trace.sha256 == made.trace_sha256


def test_the_command_line_takes_the_words(call, lab, small):
    code, out, err = call("run", *WORDS, "--backend", "torch", "--dtype", "float32")
    assert code == 0 and "grade C (torch, cpu, float32)" in out and "on cpu expected" in err
    code, out, _ = call("run", *WORDS, "--backend", "torch", "--dtype", "float32", "--json")
    found = json.loads(out)
    assert code == 0 and found["cached"] and found["provenance"]["dtype"] == "float32"


@pytest.mark.parametrize(
    "flags", [("--dtype", "float32"), ("--backend", "torch", "--device", "gpu"), ("--backend", "j")]
)
def test_wrong_words_on_the_command_line_are_one_sentence(call, flags):
    code, out, err = call("run", *WORDS, *flags)
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err


def test_python_takes_the_words(made):
    found = sims.run("label_noise", backend="torch", device="cpu", dtype="float64", store=False, **SMALL)
    assert found.provenance["backend"] == "torch"
    np.testing.assert_allclose(found.trace.series["test_error"], made.trace.series["test_error"], rtol=1e-9)
    with pytest.raises(BadInput, match="numba computes in float64"):
        sims.run("label_noise", dtype="float32", **SMALL)
