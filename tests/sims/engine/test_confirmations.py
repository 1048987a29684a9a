"""Confirmations: kept while they run, refused where they do not fit, reported, and read again."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from sims.engine import BadInput, ChalklineError, TooLarge, cli, compiled, confirmations, get_lab, ledger
from sims.engine.backends import full_scale
from sims.engine.confirmations import confirm
from sims.engine.figure import Figure, Line

TINY = {"dim": 60, "sparsity": 2, "sizes": [8, 14, 20], "instances": 3, "most_rate": 0.05, "steps": 600}


def shrunk(lab, **changes):
    """The recovery curve at a size of a second or two."""
    one = full_scale(lab).CONFIRMATIONS[0]
    return replace(one, settings={**one.settings, **TINY, **changes})


@pytest.fixture
def tiny(lab, monkeypatch):
    one = shrunk(lab)
    monkeypatch.setattr(full_scale(lab), "CONFIRMATIONS", (one,))
    return one


@pytest.fixture
def reported(lab, tiny, tmp_path):
    return confirm(lab, "small", "cpu", tmp_path)


# -- reports -------------------------------------------------------------------------------------------------------


def test_a_report_says_what_it_rests_on(lab, tiny, reported, tmp_path):
    assert json.loads((tmp_path / "label_noise-small-cpu.json").read_text()) == json.loads(json.dumps(reported))
    assert reported["lab"] == lab.id and reported["scale"] == "small" and reported["device"] == "cpu"
    assert reported["grade"] == "C" and reported["software"]["torch"] and reported["device_name"]
    (row,) = reported["experiments"]
    assert row["settings"] == dict(tiny.settings) and row["samples"] == 3 * (8 + 14 + 20)
    assert row["seconds"] > 0 and reported["peak_bytes"] > row["needed_bytes"] > 0
    assert row["limits"]["bandwidth"] > 1e8 and row["limits"]["matmul_rate"]["float32"] > 1e8
    assert 0 < row["limits"]["fraction"] < 1.5
    assert {"crossing", "threshold"} == {found["id"] for found in row["verdicts"]}
    assert len(row["parts"]["n=8"]["errors"]) == 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "the checkpoint is gone"


def test_a_report_can_be_read_by_people(reported, tmp_path):
    page = (tmp_path / "label_noise-small-cpu.md").read_text()
    for words in (
        "# label_noise",
        "| claim |",
        "Settings:",
        "seed = 1",
        "of memory",
        "training samples",
        "% was reached",
    ):
        assert words in page
    figure = tmp_path / "label_noise-small-cpu-recovery_curve.svg"
    assert f"({figure.name})" in page
    root = ET.parse(figure).getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "training samples n" in texts and "slow flow" in texts


def test_the_newest_report_is_found(lab, reported, tmp_path):
    older = {**reported, "scale": "full", "created": "2020-01-01T00:00:00+00:00"}
    (tmp_path / "label_noise-full-cuda.json").write_text(json.dumps(older))
    (tmp_path / "other-full-cuda.json").write_text(json.dumps({**reported, "lab": "other"}))
    assert confirmations.newest(lab.id, tmp_path)["created"] == reported["created"]
    assert [found["scale"] for found in confirmations.reports(lab.id, tmp_path)] == ["small", "full"]
    assert confirmations.newest("nothing", tmp_path) is None and confirmations.newest(lab.id, tmp_path / "no") is None
    sentence = confirmations.sentence(reported)
    assert "small scale" in sentence and "seed 1" in sentence and "claims hold" in sentence


def test_a_damaged_report_is_told(reported, tmp_path):
    (tmp_path / "label_noise-small-cpu.json").write_text("{")
    with pytest.raises(ChalklineError, match=r"damaged.*sims confirm"):
        confirmations.reports(folder=tmp_path)


def test_the_ledger_reads_the_newest(lab, reported, tmp_path, monkeypatch):
    monkeypatch.setattr(confirmations, "FOLDER", tmp_path)
    monkeypatch.setattr(confirmations.reports, "__defaults__", (None, tmp_path))
    rows = ledger.confirmed(lab.id)
    assert [row["id"] for row in rows] == ["crossing", "threshold"]
    assert all(row["scale"] == "small" and row["device"].startswith("cpu: ") and row["date"] for row in rows)
    assert {"predicted", "measured", "verdict", "reason"} <= rows[0].keys()


def test_stored_reports_are_of_the_present_version():
    for report in confirmations.reports():
        assert report["version"] == get_lab(report["lab"]).version


# -- interruptions -------------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
from sims.engine import confirmations, get_lab
from sims.engine.backends import full_scale
from tests.sims.engine.test_confirmations import shrunk
lab = get_lab("label_noise")
full_scale(lab).CONFIRMATIONS = (shrunk(lab, steps=4000),)
confirmations.KEEP_SECONDS = 0.0
confirmations.confirm(lab, "small", "cpu", Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_confirmation_goes_on_where_it_was(lab, tmp_path, monkeypatch):
    """Killed within its second part: the first is kept, the second resumed, and every number is as if undisturbed."""
    one = shrunk(lab, steps=4000)
    monkeypatch.setattr(full_scale(lab), "CONFIRMATIONS", (one,))
    partial = tmp_path / "killed" / ".label_noise-small-cpu.partial" / one.id
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "killed"], cwd=compiled.ROOT)
    while process.poll() is None and not ((partial / "parts.json").exists() and (partial / "state.pt").exists()):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (partial / "state.pt").exists(), "it was killed within a part"
    said = []
    resumed = confirm(lab, "small", "cpu", tmp_path / "killed", said.append)["experiments"][0]
    whole = confirm(lab, "small", "cpu", tmp_path / "whole")["experiments"][0]
    assert "1 parts were done" in said[0] and said[1:] == [f"label_noise / {one.id}: n={n}" for n in (14, 20)]
    assert resumed["resumed"] == 1 and whole["resumed"] == 0
    for part, numbers in whole["parts"].items():
        ours = resumed["parts"][part]
        assert {k: v for k, v in ours.items() if k != "seconds"} == {k: v for k, v in numbers.items() if k != "seconds"}


def test_control_c_says_that_it_goes_on(lab, tiny, tmp_path, capsys, monkeypatch):
    def interrupted(settings, part, place):
        if part == "n=14":
            raise KeyboardInterrupt
        return tiny.run(settings, part, place)

    monkeypatch.setattr(full_scale(lab), "CONFIRMATIONS", (replace(tiny, run=interrupted),))
    command = ["confirm", lab.id, "--out", str(tmp_path)]
    assert cli.main(command) == 130
    assert f"What is done lies in {tmp_path}: the same command goes on" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.setattr(full_scale(lab), "CONFIRMATIONS", (tiny,))
    cli.main([*command, "--json"])
    captured = capsys.readouterr()
    assert "1 parts were done" in captured.err and "n=8" not in captured.err and "n=20" in captured.err
    json.loads(captured.out)


def test_what_another_experiment_kept_is_not_taken_up(lab, tiny, tmp_path):
    folder = tmp_path / ".label_noise-small-cpu.partial" / tiny.id
    folder.mkdir(parents=True)
    (folder / "parts.json").write_text(json.dumps({"identity": "another", "parts": {"n=8": {}}}))
    said = []
    confirm(lab, "small", "cpu", tmp_path, said.append)
    assert [words.split(": ")[1] for words in said] == ["n=8", "n=14", "n=20"]


# -- mistakes ------------------------------------------------------------------------------------------------------


def test_too_little_memory_names_the_largest_size(lab, tiny, tmp_path, monkeypatch):
    needed = tiny.bytes({**tiny.settings, "instances": 2})
    monkeypatch.setattr(confirmations, "free_memory", lambda device: needed)
    with pytest.raises(TooLarge, match=r"takes .* on cpu, where .* may be used. The largest instances that fits is 2."):
        confirm(lab, "small", "cpu", tmp_path)
    assert not list(tmp_path.iterdir()), "nothing was begun"
    monkeypatch.setattr(confirmations, "free_memory", lambda device: 1.0)
    with pytest.raises(TooLarge, match="No instances fits"):
        confirm(lab, "small", "cpu", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "no lab 'nope'"),
        (("label_noise", "--scale", "medium"), "no scale 'medium'"),
        (("label_noise", "--device", "tpu"), "device = tpu"),
        (("label_noise", "--out", "/proc/chalkline"), "out = /proc/chalkline"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, capsys):
    assert cli.main(["confirm", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1


def test_without_a_gpu_a_confirmation_on_one_is_refused(lab, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="finds no CUDA device"):
        confirm(lab, "full", "cuda", tmp_path)


def test_a_lab_without_a_full_scale_is_refused_by_name(monkeypatch, capsys):
    monkeypatch.setattr("sims.engine.cli_confirm.has_full_scale", lambda lab: False)
    assert cli.main(["confirm", "label_noise"]) == 2
    assert "label_noise has no full scale" in capsys.readouterr().err
    assert cli.main(["confirm"]) == 0
    assert "label_noise: no full scale" in capsys.readouterr().err


def test_a_claim_that_does_not_hold_fails_the_command(lab, tiny, tmp_path, capsys):
    """Three instances are too few to decide."""
    code = cli.main(["confirm", lab.id, "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert code == 1 and "label_noise/recovery_curve/crossing: " in captured.err and "crossing" in captured.out


# -- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
def test_a_figure_leaves_out_what_cannot_be_drawn(log):
    line = Line("a < b", [0.0, 1.0, 10.0, 100.0, float("nan")], [1.0, 2.0, float("inf"), 0.5, 1.0])
    text = Figure("T & t", "x", "y", [line], log_x=log, log_y=log).svg()
    root = ET.fromstring(text)
    dots = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(dots) == (2 if log else 3) and "a &lt; b" in text and "nan" not in text and "inf" not in text
    assert text == Figure("T & t", "x", "y", [line], log_x=log, log_y=log).svg()


def test_a_figure_of_one_point_or_none_is_a_figure():
    for x in ([], [3.0]):
        ET.fromstring(Figure("t", "x", "y", [Line("a", x, x)]).svg())
