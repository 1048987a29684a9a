"""The command line: exit codes, one sentence for each mistake, and nothing but JSON where JSON is asked for."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sims.engine import cli, compiled
from sims.engine import store as store_module
from sims.engine.params import canonical_json

SMALL = ["label_noise", "--steps", "60", "--n-train", "5", "--dim", "8", "--sparsity", "2", "--replicates", "3"]


@pytest.fixture
def stored(store, made):
    store.put(made)
    return store


def manifest_path(store, key):
    return store.path / "runs" / key[:2] / key / "manifest.json"


def write_sealed(path, manifest):
    """A manifest as the store writes it, its own hash included."""
    import hashlib

    manifest = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    seal = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
    path.write_text(canonical_json({**manifest, "manifest_sha256": seal}))


# -- JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("describe", "label_noise"),
        ("predict", *SMALL),
        ("run", *SMALL),
        ("run", *SMALL, "--no-store"),
        ("runs",),
        ("runs", "--lab", "label_noise"),
        ("verify",),
    ],
)
def test_stdout_is_one_json_value_and_nothing_else(call, stored, arguments):
    code, out, _ = call(*arguments, "--json")
    assert code == 0 and out.count("\n") == 1
    json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_show_and_rerun_print_json_too(call, stored, made):
    code, out, err = call("show", made.key, "--json")
    assert code == 0 and json.loads(out)["trace_sha256"] == made.trace_sha256 and err == ""
    code, out, err = call("rerun", made.key[:12], "--json")
    assert code == 0 and json.loads(out)["comparison"]["grade"] == "A" and err == ""


def test_a_run_is_the_same_from_here_and_from_python(call, made, store):
    code, out, _ = call("run", *SMALL, "--json")
    found = json.loads(out)
    assert code == 0 and found["key"] == made.key and found["trace_sha256"] == made.trace_sha256
    assert found["cached"] is False and store.keys() == [made.key]
    assert json.loads(call("run", *SMALL, "--json")[1])["cached"] is True
    assert json.loads(call("run", *SMALL, "--json", "--fresh")[1])["cached"] is False
    assert json.loads(call("run", *SMALL, "--json", "--no-store")[1])["cached"] is False


def test_without_json_results_are_on_stdout_and_the_rest_on_stderr(call):
    code, out, err = call("run", *SMALL)
    assert code == 0 and "train_loss" in out and "expected" in err and "expected" not in out
    assert "(stored)" in call("run", *SMALL)[1]


def test_a_diverging_run_is_a_result_that_says_when(call, store):
    diverging = ("label_noise", "--algorithm", "minibatch_noise", "--learning-rate", "0.1", "--steps", "500",
                 "--replicates", "2")  # fmt: skip
    code, out, _ = call("run", *diverging)
    assert code == 0 and re.search(r"2 of 2 replicates diverged, the first at step \d+\.", out)
    stops = json.loads(call("run", *diverging, "--json")[1])["stopped"]
    assert all(0 < stop["step"] < 500 and "grew" in stop["reason"] for stop in stops)
    assert len(store.keys()) == 1


def test_beside_runs_every_run_of_the_preset(call, lab):
    preset = next(preset for preset in lab.presets if preset.beside)
    code, out, _ = call("run", lab.id, "--preset", preset.id, "--beside", "--steps", "40", "--json")
    assert code == 0 and list(json.loads(out)) == [preset.label, *preset.beside]


def test_tables_without_json(call, stored, made):
    assert "label_noise" in call("list")[1]
    described = call("describe", "label_noise")[1]
    assert "learning_rate" in described and "Presets" in described and "Claims" in described
    assert "slow_time" in call("predict", *SMALL)[1]
    assert made.key[:12] in call("runs")[1]
    shown = call("show", made.key)[1]
    assert made.trace_sha256 in shown and "n_train=5" in shown


def test_an_empty_store_lists_nothing(call):
    assert call("runs")[:2] == (0, "") and json.loads(call("runs", "--json")[1]) == []
    assert call("verify")[0] == 0


# -- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "label_nois"), ["There is no lab 'label_nois'", "Did you mean 'label_noise'", "Known: "]),
        (("run", "label_noise", "--preset", "nope"), ["no preset of label_noise 'nope'", "shape_matters"]),
        (("run", "label_noise", "--preset", "None"), ["no preset of label_noise 'None'"]),
        (("run", "label_noise", "--n-trian", "3"), ["'--n-trian'", "Did you mean '--n-train'"]),
        (("run", "label_noise", "stray"), ["'stray'", "--learning-rate"]),
        (("predict", "label_noise", "--fresh"), ["'--fresh'"]),
        (("frobnicate",), ["no command 'frobnicate'", "describe, predict, run"]),
        (("show", "abcdef"), ["no stored run 'abcdef'"]),
        (("show", "zz"), ["no stored run 'zz'"]),
        (("rerun", "abcdef"), ["no stored run 'abcdef'"]),
        (("rerun", "a" * 5000), ["no stored run"]),
        (("rerun", "nul\x00byte"), ["no stored run"]),
        (("export", "abcdef", "--format", "csv"), ["no stored run 'abcdef'"]),
        (("verify", "abcdef"), ["no stored run 'abcdef'"]),
        (("runs", "--lab", "nope"), ["no lab 'nope'"]),
        (("ledger", "nope"), ["no lab 'nope'"]),
        (("run", "label_noise", "--sparsity", "200"),
         ["sparsity = 200", "the truth has 100 coordinates (dim)", "Set sparsity to 100 or less, or raise dim"]),
        (("run", "label_noise", "--n-train", "0"), ["n_train = 0", "from 1 to 20000", "the default, 40"]),
        (("run", "label_noise", "--init-scale", "0"), ["init_scale = 0", "from 0.0001 to 100", "the default, 1"]),
        (("run", "label_noise", "--learning-rate", "nan"), ["learning_rate = nan", "from 1e-07 to 10"]),
        (("run", "label_noise", "--learning-rate", "-0.1"), ["learning_rate = -0.1", "from 1e-07 to 10"]),
        (("run", "label_noise", "--learning-rate=-inf"), ["learning_rate = -inf", "from 1e-07 to 10"]),
        (("run", "label_noise", "--seed", "None"), ["seed = None", "a whole number from 0"]),
        (("run", "label_noise", "--seed", ""), ["seed = ", "a whole number from 0"]),
        (("run", "label_noise", "--algorithm", "adam"), ["algorithm = adam", "one of gd, gd_label_noise"]),
        (("run", "label_noise", "--planar-slope", "2"),
         ["planar_slope = 2", "only when covariates is planar", "Leave planar_slope out, or change covariates"]),
        (("run", "label_noise", "--algorithm", "gd", "--noise-std", "1"), ["noise_std = 1", "only when algorithm is"]),
        (("run", "label_noise", "--beside"), ["beside", "--preset"]),
        (("run", "label_noise", "--n-train", "20000", "--dim", "20000", "--fresh-data", "true",
          "--replicates", "10000", "--steps", "1000000000"),
         ["would take about", "days", "GB", "of memory", "run it elsewhere: python -m sims run label_noise"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_it_and_the_way_out(call, store, arguments, words):
    code, out, err = call(*arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err
    assert store.keys() == []


@pytest.mark.parametrize("arguments", [("show",), ("export", "abcdef"), ("run", "label_noise", "--steps")])
def test_what_is_missing_is_named(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    assert {"show": "KEY", "export": "--format", "run": "--steps"}[arguments[0]] in err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run",), ("run", "--help"), ("run", "label_noise", "--help"),
                                       ("show", "--help"), ("ledger", "--help")])  # fmt: skip
def test_help(call, arguments):
    code, out, err = call(*arguments)
    assert code == (2 if arguments == ("run",) else 0) and "usage" in out and err == ""


def test_help_tells_range_default_and_condition_of_every_parameter(call, lab):
    out = " ".join(re.sub(r"[│╭╮╰╯─]", " ", call("run", lab.id, "--help")[1]).split())
    for field in lab.params.fields().values():
        assert "--" + field.name.replace("_", "-") in out
    assert "a number from 1e-07 to 10" in out and "default 0.01" in out and "Only when covariates is planar" in out


FLAGS = ["--steps", "--seed", "--learning-rate", "--dim", "--json", "--preset", "--algorithm", "--no-such"]
VALUES = ["nan", "-1", "1e309", "None", "true", "gd", "--", "-", "1_0"]
WORDS = st.one_of(st.sampled_from(FLAGS), st.text(max_size=8), st.sampled_from(VALUES))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["run", "predict", "describe", "show", "verify", "runs", "x"]), st.lists(WORDS, max_size=5))
def test_no_arguments_end_in_a_traceback(call, monkeypatch, command, words):
    read_only = {name: replace(cli._ABOUT_LAB[name], act=cli.params_of) for name in ("run", "predict")}
    monkeypatch.setattr(cli, "_ABOUT_LAB", {**cli._ABOUT_LAB, **read_only})
    named = ["label_noise"] if command in ("run", "predict", "describe") else []
    code, _, err = call(command, *named, *words)
    assert code in (0, 2) and "Traceback" not in err


# -- the store -------------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_is_one_sentence(call, monkeypatch):
    monkeypatch.setenv("CHALKLINE_STORE", "/proc/chalkline/store")
    code, out, err = call("run", *SMALL, "--json")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "/proc/chalkline/store cannot be written" in err and "--no-store" in err
    assert call("run", *SMALL, "--json", "--no-store")[0] == 0
    assert call("runs")[0] == 0


def test_a_full_disk_is_one_sentence(call, monkeypatch, store):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_synced", full)
        code, out, err = call("run", *SMALL, "--json")
    assert code == 2 and out == "" and "the disk is full" in err and "Traceback" not in err
    assert store.keys() == [] and call("run", *SMALL, "--json")[0] == 0


@pytest.mark.parametrize("command", [("show",), ("export",), ("rerun",), ("run",)])
def test_a_damaged_run_is_reported_and_not_used(call, stored, made, command):
    manifest_path(stored, made.key).with_name("series.parquet").write_bytes(b"broken")
    arguments = {"show": [made.key], "export": [made.key, "--format", "csv"], "rerun": [made.key], "run": SMALL}
    code, out, err = call(*command, *arguments[command[0]])
    assert code == 1 and out == "" and "series.parquet does not match its SHA-256" in err and "verify" in err


def test_verify_fails_on_damage_and_passes_afterwards(call, stored, made):
    assert call("verify")[0] == 0
    manifest_path(stored, made.key).with_name("arrays.npz").write_bytes(b"broken")
    code, out, err = call("verify", made.key[:8])
    assert code == 1 and "1 damaged" in out and "arrays.npz" in err
    assert call("verify")[0] == 0 and call("run", *SMALL)[0] == 0


def test_verify_prints_json_although_it_fails(call, stored, made):
    manifest_path(stored, made.key).unlink()
    code, out, _ = call("verify", "--json")
    assert code == 1 and "manifest" in json.loads(out)[made.key]


# -- export ----------------------------------------------------------------------------------------------------


def test_exports_open_with_their_own_programs(call, stored, made, tmp_path):
    code, out, _ = call("export", made.key, "--format", "parquet,csv,json,npz", "--out", tmp_path / "out")
    paths = {line.rsplit(".", 1)[1]: line for line in out.split()}
    assert code == 0 and list(paths) == ["parquet", "csv", "json", "npz"]
    steps, replicates = len(made.trace.step), made.trace.replicates

    table = pq.read_table(paths["parquet"])
    assert table.column_names == ["replicate", "step", *made.trace.series] and len(table) == steps * replicates
    with open(paths["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == steps * replicates
    content = json.loads(Path(paths["json"]).read_text())
    with np.load(paths["npz"], allow_pickle=False) as arrays:
        arrays = dict(arrays)
    for name, values in made.trace.series.items():
        flat = values.reshape(-1)
        np.testing.assert_array_equal(table[name].to_numpy(), flat)
        np.testing.assert_array_equal([float(row[name] or "nan") for row in rows], flat)
        np.testing.assert_array_equal(np.array(content["series"][name], dtype=float), values)
        np.testing.assert_array_equal(arrays[f"series/{name}"], values)
    np.testing.assert_array_equal(arrays["step"], made.trace.step)
    np.testing.assert_array_equal(arrays["finals/beta"], made.trace.finals["beta"])
    np.testing.assert_array_equal(arrays["frames/beta"], made.trace.frames["beta"])
    assert content["trace_sha256"] == made.trace_sha256


def test_what_cannot_be_exported_is_refused(call, stored, made, tmp_path):
    code, out, err = call("export", made.key, "--format", "csv,xls", "--out", tmp_path)
    assert code == 2 and out == "" and "no export format 'xls'" in err and not list(tmp_path.glob("*.csv"))
    code, _, err = call("export", made.key, "--format", "csv", "--out", "/proc/chalkline")
    assert code == 2 and "out = /proc/chalkline" in err and err.count("\n") == 1


# -- reruns ----------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(call, stored, made, tmp_path):
    path = call("export", made.key, "--format", "json", "--out", tmp_path / "out")[1].strip()
    content = json.loads(Path(path).read_text())

    def write(**changes):
        with open(path, "w") as file:
            json.dump({**content, **changes}, file)
        return path

    return content, write


def other_machine(provenance):
    return {**provenance, "fingerprint": {**provenance["fingerprint"], "cpu": "another one"}}


def test_a_rerun_on_the_same_machine_is_grade_a(call, stored, made, exported):
    _, write = exported
    for source in (made.key, made.key[:10], manifest_path(stored, made.key), write()):
        code, out, _ = call("rerun", source, "--check")
        assert code == 0 and "Grade A: bit for bit the same." in out


def test_a_rerun_on_another_machine_is_grade_b(call, stored, made):
    path = manifest_path(stored, made.key)
    manifest = json.loads(path.read_text())
    write_sealed(path, {**manifest, "provenance": other_machine(manifest["provenance"])})
    code, out, _ = call("rerun", made.key, "--check")
    assert code == 0 and "Grade B" in out and "yet the same bits" in out


@pytest.mark.parametrize(("factor", "code"), [(1 + 1e-8, 0), (1 + 1e-4, 1)])
def test_grade_b_allows_the_tolerance_of_the_lab_and_no_more(call, exported, factor, code):
    content, write = exported
    series = {name: (np.array(values) * factor).tolist() for name, values in content["series"].items()}
    path = write(series=series, trace_sha256="0" * 64, provenance=other_machine(content["provenance"]))
    found, out, err = call("rerun", path, "--check")
    assert found == code and "Grade B" in out and ("differs" in err) == bool(code)


def test_a_missing_number_is_a_difference(call, exported):
    content, write = exported
    content["series"]["train_loss"][0][3] = None
    path = write(trace_sha256="0" * 64, provenance=other_machine(content["provenance"]))
    assert call("rerun", path, "--check")[0] == 1


def test_an_altered_trace_fails_the_check(call, exported, stored, made):
    content, write = exported
    code, out, err = call("rerun", write(trace_sha256="0" * 64), "--check")
    assert code == 1 and "NOT the same bits" in out and "differs" in err
    assert call("rerun", write(trace_sha256="0" * 64))[0] == 0, "without --check it is only said"
    content["series"]["train_loss"][0][3] += 1.0
    code, out, _ = call("rerun", write(), "--check")
    assert code == 1 and "NOT those of the stored hash" in out


def test_a_run_of_another_version_is_not_repeated_but_shown(call, exported, stored, made, lab):
    _, write = exported
    code, out, err = call("rerun", write(version=lab.version + 1), "--check")
    assert code == 2 and out == "" and f"version = {lab.version + 1}" in err and "numbers differ" in err
    path = manifest_path(stored, made.key)
    write_sealed(path, {**json.loads(path.read_text()), "version": lab.version + 1})
    code, out, _ = call("show", made.key)
    assert code == 0 and f"This run is of version {lab.version + 1}" in out


MANIFEST = {"lab": "label_noise", "version": 1, "params": {}, "provenance": {"fingerprint": {}}, "trace_sha256": ""}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"trace_sha256 series"',
        '{"trace_sha256": "", "series": {}}',
        '{"trace_sha256": "", "key": "../x"}',
        *(
            json.dumps({**MANIFEST, "series": {}, **change})
            for change in (
                {},
                {"lab": 1},
                {"params": []},
                {"params": {"steps": 0}},
                {"provenance": 1},
                {"provenance": {"fingerprint": 1}},
                {"series": {"a": [[1]]}},
                {"series": {"train_loss": [["x"]]}},
                {"series": 3},
            )
        ),
    ],
)
def test_a_file_that_describes_no_run_is_refused(call, tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    code, out, err = call("rerun", path)
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err


# -- interruptions ---------------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_nothing(call, monkeypatch, store):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sims.engine.execute"], "_gather", interrupted)
    code, out, err = call("run", *SMALL, "--json")
    assert code == 130 and out == "" and "nothing half-written" in err
    assert store.keys() == [] and not list((store.path / "aside").iterdir())


def test_control_c_ends_a_real_run_at_once(own_store):
    command = [sys.executable, "-m", "sims", "run", "label_noise", "--steps", "1000000000", "--replicates", "2"]
    process = subprocess.Popen(
        command, cwd=compiled.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    for line in process.stderr:
        if "%" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and out == "" and "Traceback" not in err and "Interrupted" in err
    assert not list((own_store / "runs").glob("*/*")) and not list((own_store / "aside").iterdir())


def test_a_reader_that_leaves_early_is_no_failure():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sims", "describe", "label_noise", "--json"],
        cwd=compiled.ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 0 and done.stderr == ""


def test_an_alarm_is_a_failed_check(call, store, made, monkeypatch):
    series = {name: values + 1.0 for name, values in made.trace.series.items()}
    store.put(dataclasses.replace(made, trace=dataclasses.replace(made.trace, series=series)))
    code, _, err = call("run", *SMALL, "--json", "--fresh")
    assert code == 1 and "gave another trace" in err
