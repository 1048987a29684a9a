"""The budget: measured once, in proportion to the work, with a way out where it is too much."""

import dataclasses
import json
import shlex

import pytest

from sims.engine import TooLarge, Work, budget, cli
from sims.engine.keys import run_key


@pytest.fixture
def toy(lab, tmp_path, monkeypatch):
    """A lab whose one probe counts its calls, and a cache of its own."""
    calls = []

    def probe():
        calls.append(1)
        return 1000.0

    monkeypatch.setattr(budget, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(budget, "PROBE_SECONDS", 1e-6)
    work = Work({"step": 100.0}, {"step": 50.0}, 2e9)
    made = dataclasses.replace(lab, id="toy", probes=lambda: {"step": probe}, work=lambda params: work)
    yield made, calls
    budget._rates.clear()


def test_rates_are_measured_once_and_kept(toy):
    lab, calls = toy
    rates = budget.lab_rates(lab)
    measured = len(calls)
    assert measured >= 2 and rates["step"] > 0
    assert [file.name for file in budget._path(lab).parent.iterdir()] == [budget._path(lab).name]
    assert budget.lab_rates(lab) == rates and len(calls) == measured
    budget._rates.clear()
    assert budget.lab_rates(lab) == rates and len(calls) == measured, "read from the file"
    budget.lab_rates(lab, measure_again=True)
    assert len(calls) > measured


def test_processes_that_measure_at_the_same_time_agree_on_the_rates_of_the_first(toy, monkeypatch):
    lab, _ = toy
    path = budget._path(lab)

    def measured_meanwhile(probe):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"step": 42.0}')
        return 1.0

    monkeypatch.setattr(budget, "_measure", measured_meanwhile)
    assert budget.lab_rates(lab) == {"step": 42.0} == json.loads(path.read_text())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert budget.lab_rates(lab, measure_again=True) == {"step": 1.0} == json.loads(path.read_text())


@pytest.mark.parametrize("content", ["", "[]", '{"step": "fast"}', "{"])
def test_damaged_rates_are_measured_again(toy, content):
    lab, calls = toy
    budget.lab_rates(lab)
    budget._path(lab).write_text(content)
    budget._rates.clear()
    calls.clear()
    assert budget.lab_rates(lab)["step"] > 0 and calls
    assert json.loads(budget._path(lab).read_text())["step"] > 0


def test_rates_of_an_earlier_version_are_removed(toy):
    lab, _ = toy
    path = budget._path(lab)
    path.parent.mkdir(parents=True)
    machine = path.stem.rsplit("-", 1)[-1]
    older, other = path.parent / f"toy-000000000000-{machine}.json", path.parent / "toys-0-x.json"
    for file in (older, other):
        file.write_text("{}")
    budget.lab_rates(lab)
    assert path.exists() and other.exists() and not older.exists()


@pytest.mark.parametrize(("replicates", "workers", "rounds"), [(1, 2, 1), (2, 2, 1), (3, 2, 2), (4, 1, 4)])
def test_replicates_are_counted_in_rounds_of_the_workers(toy, replicates, workers, rounds):
    lab, _ = toy
    rate = budget.lab_rates(lab)["step"]
    found = budget.estimate(lab, lab.params.make(replicates=replicates), workers=workers)
    assert found.seconds == pytest.approx((100 * rounds + 50) * rate)
    assert found.cpu_seconds == pytest.approx((100 * replicates + 50) * rate)
    assert found.bytes == 2e9


def test_what_the_interpreter_does_is_not_shared_between_the_workers(toy):
    lab, _ = toy
    rates, params = {"step": 1.0, "look": 0.01}, lab.params.make(replicates=6)
    work = Work({"step": 1.0, "look": 50.0}, {"step": 2.0}, 0.0, serial=("look",))
    found = budget.estimate(dataclasses.replace(lab, work=lambda params: work), params, workers=3, rates=rates)
    assert found.seconds == pytest.approx(2 * 1.0 + 6 * 0.5 + 2.0)
    assert found.cpu_seconds == pytest.approx(6 * 1.5 + 2.0)


def test_more_work_is_never_estimated_cheaper(lab, small):
    base = budget.estimate(lab, small)
    for change in ({"steps": 6000}, {"dim": 80}, {"n_train": 50}, {"replicates": 30}):
        assert budget.estimate(lab, small.replace(**change)).cpu_seconds > base.cpu_seconds, change


def test_too_large_says_how_large_and_how_to_run_it_elsewhere(lab, endless):
    assert budget.require(lab, endless).seconds > 1
    with pytest.raises(TooLarge, match="the limit here is 2 s of computing and 1 kB of memory") as error:
        budget.require(lab, endless, seconds=2.0, bytes=1000.0)
    command = str(error.value).split("elsewhere: ")[1]
    words = shlex.split(command)
    assert words[:5] == ["python", "-m", "sims", "run", lab.id]
    assert run_key(lab, cli.params_of(*cli.about_lab("run", words[4:]))) == run_key(lab, endless)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1 ms"), (0.0312, "31 ms"), (1.5, "1.5 s"), (42.4, "42 s"), (600, "10 minutes"), (9000, "2.5 hours"),
     (1e7, "116 days")],
)  # fmt: skip
def test_seconds_in_words(seconds, text):
    assert budget.describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(12, "0.012 kB"), (1500, "1.5 kB"), (2e6, "2 MB"), (3.25e9, "3.25 GB"), (5e12, "5 TB")]
)
def test_bytes_in_words(size, text):
    assert budget.describe_bytes(size) == text
