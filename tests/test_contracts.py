"""What every lab promises, whatever its model: one list of contracts, run over all that are found."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import run as run_from_python
from sims.engine import (
    BadInput,
    Cancelled,
    ChalklineError,
    Lab,
    Params,
    RunMonitor,
    cli,
    compiled,
    execute,
    get_lab,
    predict,
)
from sims.engine import lab_ids as found_labs
from sims.engine.budget import estimate, lab_rates
from sims.engine.execute import predict_ends
from sims.engine.jobs import Jobs
from sims.engine.keys import run_key
from sims.engine.params import canonical_json
from sims.engine.store import Store
from sims.engine.workers import Workers

LAB_IDS = found_labs()
SHORT_STEPS = 200

pytestmark = pytest.mark.parametrize("lab", [get_lab(lab_id) for lab_id in LAB_IDS], ids=LAB_IDS)


def short(lab: Lab, **changes: Any) -> Params:
    """The default run cut to a few steps, where the lab counts steps and `changes` leave it something to count."""
    base = {"steps": SHORT_STEPS} if "steps" in lab.params.fields() else {}
    return lab.params.make().replace(**base).replace(**{"replicates": 4, **changes})


def variants(lab: Lab) -> list[Params]:
    """The short run with each choice that its fields offer, one at a time: every kernel and every branch to it."""
    found = []
    for field in lab.params.fields().values():
        for value in field.choices or ((False, True) if field.kind == "bool" else ()):
            if short(lab).is_active(field.name):
                found.append(short(lab, replicates=1, **{field.name: value}))
    return list(dict.fromkeys([short(lab), *found]))


def lasting(lab: Lab, seconds: float, replicates: int = 1) -> Params:
    """A run estimated to simulate for so many seconds, as long as its steps allow."""
    if "steps" not in lab.params.fields():
        pytest.fail(f"say here how a long run of {lab.id} is made: it has no field `steps`")
    most = int(lab.params.fields()["steps"].le)
    longest = short(lab, replicates=replicates)
    for params in variants(lab):  # of a kernel that stops of itself no number of steps makes a long run
        few, many = (params.replace(steps=steps, replicates=replicates) for steps in (1000, min(101_000, most)))
        a_step = (estimate(lab, many).seconds - estimate(lab, few).seconds) / (many.steps - few.steps)
        steps = min(int(seconds / a_step), most) if a_step > 0.0 else most
        longest = max(longest, many.replace(steps=steps), key=lambda one: estimate(lab, one).seconds)
        if estimate(lab, longest).seconds > 0.5 * seconds:
            break
    return longest


# -- parameters ----------------------------------------------------------------------------------------------------


def draw_value(rng: random.Random, field: Any) -> Any:
    """An allowed value, log-uniform where the range is wide; its ends more often than not."""
    if field.choices:
        return rng.choice(field.choices)
    if field.kind == "bool":
        return rng.random() < 0.5
    low, high = field.ge, field.le
    if field.kind == "floats":
        return tuple(rng.uniform(low, high) for _ in range(rng.randint(1, 6)))
    if rng.random() < 0.25:
        return rng.choice([low, high, field.default])
    if high > 100 * max(low, 1e-12):
        least = max(low, 0.5 if field.kind == "int" else 1e-6)
        value = math.exp(rng.uniform(math.log(least), math.log(high)))
    else:
        value = rng.uniform(low, high)
    return min(high, max(low, round(value) if field.kind == "int" else value))


def draw_params(lab: Lab, rng: random.Random) -> Params:
    """Valid params: each field changed with even odds; what the rules refuse is left as it was."""
    params = lab.params.make()
    for field in lab.params.fields().values():
        if rng.random() < 0.5 and params.is_active(field.name):
            try:
                params = params.replace(**{field.name: draw_value(rng, field)})
            except BadInput:
                continue
    return params


def test_params_survive_every_spelling(lab):
    for seed in range(200):
        params = draw_params(lab, random.Random(seed))
        text = canonical_json(params.active())
        again = lab.params.make(json.loads(text))
        parsed = lab.params.parse(params.texts())
        assert params == again == parsed
        assert canonical_json(again.active()) == text and run_key(lab, parsed) == run_key(lab, params)
        shuffled = dict(random.Random(seed).sample(sorted(params.active().items()), len(params.active())))
        assert run_key(lab, lab.params.make(shuffled)) == run_key(lab, params)


def anything(lab: Lab) -> st.SearchStrategy[dict[str, Any]]:
    fields = lab.params.fields()
    near = [
        value
        for f in fields.values()
        for value in (f.default, *f.choices, *((f.ge, f.le, f.le + 1, f.ge - 1) if f.le is not None else ()))
    ]
    scalar = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=10),
        st.binary(max_size=4),
        st.sampled_from(near),
        st.sampled_from([10**400, 10**5000, -(10**5000), np.float64("nan"), np.int64(3), np.zeros(3), object()]),
    )
    value = st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(st.text(max_size=3), scalar, max_size=2))
    names = st.one_of(st.sampled_from(list(fields)), st.sampled_from(list(fields)), st.text(max_size=8))
    close = st.fixed_dictionaries({}, optional={n: st.sampled_from([f.default, *near]) for n, f in fields.items()})
    return st.one_of(st.dictionaries(names, value, max_size=6), close)


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_anything_is_params_or_one_clear_refusal(lab, examples):
    @settings(max_examples=examples)
    @given(anything(lab))
    def check(values):
        for make in (lambda: lab.params.make(values), lambda: lab.params.make().replace(**values)):
            try:
                params = make()
            except BadInput as refusal:
                assert str(refusal).isprintable()
            else:
                assert lab.params.make(json.loads(canonical_json(params.active()))) == params

    check()


def test_an_inactive_field_is_nowhere_and_refused_when_set(lab):
    default = lab.params.make()
    for name, field in lab.params.fields().items():
        if not default.is_active(name):
            assert name not in default.active() and f'"{name}"' not in canonical_json(default.active())
            assert name not in execute(lab, short(lab, replicates=1)).as_dict()["params"]
            with pytest.raises(BadInput, match=name):
                lab.params.make({name: field.default})
    assert all(field.help and field.kind for field in lab.params.fields().values()), "every field is explained"


def test_no_rule_looks_at_the_seed(lab, monkeypatch):
    """So a page offers the same values for every seed, and finds them once."""
    read, look = set(), lab.params.__getattribute__
    cases = variants(lab)

    def noted(self, name):
        read.add(name)
        return look(self, name)

    monkeypatch.setattr(lab.params, "__getattribute__", noted)
    assert not [problem for params in cases for problem in params.rules()]
    assert "rules" in read and "seed" not in read


def test_every_field_can_be_activated_and_moves_the_key(lab):
    """Over 300 draws of the other fields; a field that never becomes active is declared in vain."""
    moved = set()
    for seed in range(300):
        params = draw_params(lab, random.Random(seed))
        for name in params.active().keys() - moved:
            field = lab.params.fields()[name]
            for value in (field.le, field.ge, *field.choices, True, False):
                if value is None or value == getattr(params, name):
                    continue
                try:
                    other = params.replace(**{name: value})
                except BadInput:
                    continue
                assert run_key(lab, other) != run_key(lab, params)
                moved.add(name)
    floats = {name for name, field in lab.params.fields().items() if field.kind == "floats"}
    assert moved | floats == set(lab.params.fields())


# -- runs ----------------------------------------------------------------------------------------------------------


def check_shapes(lab: Lab, run: Any) -> None:
    trace, params = run.trace, run.params
    steps = trace.step
    assert steps[0] == 0 and len(steps) <= 400 and np.all(np.diff(steps) > 0)
    np.testing.assert_array_equal(steps, lab.recorded_steps(params))
    assert list(trace.series) == list(lab.series)
    for values in trace.series.values():
        assert values.shape == (params.replicates, len(steps)) and values.dtype == np.float64
    assert len(trace.frame_step) <= 120 and set(trace.frame_step) <= set(steps)
    assert all(len(values) == len(trace.frame_step) for values in trace.frames.values())
    for r, stop in enumerate(trace.stopped):
        late = steps >= steps[-1] + 1 if stop is None else steps >= stop.step
        assert all(np.all(np.isnan(values[r, late])) for values in trace.series.values()), "NaN from the stop on"
        assert stop is None or stop.reason
    prediction = run.prediction
    assert prediction.prediction.keys() == prediction.about.keys()
    for name, value in prediction.prediction.items():
        assert prediction.about[name].source and lab.quantity(name)
        assert value is not None or prediction.about[name].reason, f"{name} is silent without a reason"
        assert value is None or np.ndim(value) == 0 or np.shape(value) == (len(steps),)
        assert prediction.claimed(name).shape == (len(steps),)
    assert all(np.shape(values) == (params.replicates,) for values in run.derived.values())
    assert all(lab.quantity(name) for name in run.values)
    json.loads(json.dumps(run.as_dict(), allow_nan=False))


def test_the_default_run_has_the_shapes_that_the_lab_declares(lab):
    check_shapes(lab, execute(lab, short(lab)))


def test_the_last_recorded_step_is_the_end(lab):
    for params in variants(lab):
        assert lab.recorded_steps(params)[-1] == params.active().get("steps", lab.recorded_steps(params)[-1])


def test_random_short_runs_end_in_a_result_or_a_refusal(lab):
    """20 draws over the whole of the allowed ranges, those estimated beyond 50 ms or 200 MB drawn again."""
    rng, done = random.Random(5), 0
    while done < 20:
        params = draw_params(lab, rng)
        budget = estimate(lab, params, workers=1)
        if budget.seconds > 0.05 or budget.bytes > 2e8:
            continue
        done += 1
        try:
            run = execute(lab, params)
        except ChalklineError as refusal:
            assert str(refusal)
        else:
            check_shapes(lab, run)


def predictable(lab: Lab, count: int, seconds: float) -> list[Params]:
    """Draws over the whole of the allowed ranges whose theory is estimated to take no longer than that."""
    rng, rates, found = random.Random(11), lab_rates(lab), list[Params]()
    while len(found) < count:
        params = draw_params(lab, rng)
        work = lab.work(params)
        if sum(units * rates[name] for name, units in work.once.items()) < seconds and work.bytes < 2e8:
            found.append(params)
    return found


@pytest.mark.parametrize(("count", "seconds"), [(30, 0.03), pytest.param(400, 0.2, marks=pytest.mark.slow)])
def test_ends_predicted_together_are_those_of_each_run(lab, count, seconds):
    """Within 1e-6, or 1e-9 absolute, and claimed alike; a run whose theory raises does so in any company."""
    runs, expected, own = [], [], lab.predict_ends is not None
    for params in [*variants(lab), *predictable(lab, count, seconds)] if own else [short(lab)]:
        try:
            expected.append(predict(lab, params).ends())
        except ChalklineError:
            with pytest.raises(ChalklineError):
                predict_ends(lab, [params])
        else:
            runs.append(params)
    together = predict_ends(lab, runs)
    backwards = predict_ends(lab, runs[::-1])[::-1]
    for found in (together, backwards):
        for params, prediction, ends in zip(runs, found, expected, strict=True):
            assert prediction.step[-1] == lab.recorded_steps(params)[-1]
            told = prediction.ends()
            assert told.keys() == ends.keys()
            for name, (value, claimed) in ends.items():
                np.testing.assert_allclose(told[name].value, value, rtol=1e-6, atol=1e-9, err_msg=name)
                assert told[name].claimed == claimed, (name, params.changed())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_params_give_the_same_bits(lab, seed):
    for params in variants(lab):
        params = params.replace(seed=seed)
        first, again = execute(lab, params), execute(lab, params)
        assert first.trace_sha256 == again.trace_sha256
        assert first.metrics == again.metrics


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "whole"])
def test_replicates_do_not_depend_on_who_computes_them_or_in_which_company(lab, whole):
    """Of every kernel; the quick test asks for other numbers of workers of the default's alone, and for fewer alone."""
    for params in variants(lab):
        thorough = whole or params == short(lab)
        params = params.replace(replicates=4 if thorough else 3)
        together = execute(lab, params)
        hashes = together.trace.replicate_sha256
        for workers in (1, 2, 4) if thorough else ():
            spread = execute(lab, params, workers=workers)
            assert spread.trace_sha256 == together.trace_sha256, workers
        for r in (2, 0, 3, 1) if thorough else (2, 0):
            alone = execute(lab, params.replace(replicates=1, first_replicate=r))
            assert alone.trace.replicate_sha256 == (hashes[r],)


def test_seeds_and_replicates_matter_where_anything_is_drawn(lab):
    run, other = (execute(lab, short(lab, seed=seed)) for seed in (0, 1))
    assert len(set(run.trace.replicate_sha256)) == run.trace.replicates
    assert set(run.trace.replicate_sha256).isdisjoint(other.trace.replicate_sha256)


@pytest.fixture(scope="module")
def workers():
    hired = Workers(1)
    yield hired
    hired.close()


def test_page_command_line_and_python_give_one_hash(lab, own_store, capsys, workers):
    params = short(lab)
    texts = [word for name, text in params.texts().items() for word in (f"--{name.replace('_', '-')}", text)]
    command = ["run", lab.id, *texts, "--json", "--no-store"]
    assert cli.main(command) == 0
    from_command_line = json.loads(capsys.readouterr().out)
    real = subprocess.run(
        [sys.executable, "-m", "sims", *command], cwd=compiled.ROOT, capture_output=True, text=True, check=True
    )
    from_page = Jobs(Store(own_store)).submit(lab, params).result(120)
    from_workers = execute(lab, params, compute=workers.compute)
    from_script = run_from_python(lab.id, store=False, **params.changed())
    hashes = {from_command_line["trace_sha256"], json.loads(real.stdout)["trace_sha256"], from_page.trace_sha256}
    assert hashes == {from_script.trace_sha256} == {from_workers.trace_sha256}


# -- kernels while they run ----------------------------------------------------------------------------------------


def test_a_cancelled_kernel_stops_at_its_next_look(lab):
    """Counted in steps after the flag, not in seconds: less than a hundredth of the run."""
    params = lasting(lab, 60.0, replicates=2)
    monitor = RunMonitor.allocate(lab, params)
    outcome: list[Any] = []

    def work():
        try:
            outcome.append(execute(lab, params, monitor=monitor))
        except Cancelled as stopped:
            outcome.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    while not np.any(monitor.progress):
        time.sleep(0.001)
    monitor.cancel[0] = 1
    at_the_flag = monitor.progress.copy()
    thread.join()
    assert isinstance(outcome[0], Cancelled)
    assert np.all(monitor.progress - at_the_flag < params.steps / 100)


def test_other_threads_go_on_while_a_kernel_runs(lab):
    """A heartbeat is counted until the kernel ends. A kernel that held the lock would end before the first beat."""
    params = lasting(lab, 4.0)
    monitor = RunMonitor.allocate(lab, params)
    execute(lab, short(lab, replicates=1))  # loaded, so that no compiler competes

    def work():
        with pytest.raises(Cancelled):
            execute(lab, params, monitor=monitor)

    thread = threading.Thread(target=work)
    thread.start()
    beats = 0
    while beats < 50 and monitor.progress[0] < params.steps:
        if monitor.progress[0] > 0:
            beats += 1
        time.sleep(0.002)
    still_running = monitor.progress[0] < params.steps
    monitor.cancel[0] = 1
    thread.join()
    assert beats == 50 and still_running


WARM = """
import json, sys
from sims.engine import cli, execute, get_lab
lab = get_lab(sys.argv[1])
cli.main(["run", lab.id, "--json", *json.loads(sys.argv[2])])
loaded = sorted(name for name in ("pandas", "torch", "altair", "streamlit", "matplotlib") if name in sys.modules)
for values in json.loads(sys.argv[3]):
    execute(lab, lab.params.make(values))
from numba.core.registry import CPUDispatcher
kernels = {
    f"{name}.{attribute}": dict(value.stats.cache_misses)
    for name, module in list(sys.modules.items()) if name.startswith(("sims.", "theory."))
    for attribute, value in vars(module).items() if isinstance(value, CPUDispatcher)
}
used = sum(bool(value.signatures) for module in list(sys.modules.values())
           for value in vars(module).values() if isinstance(value, CPUDispatcher))
print(json.dumps({"loaded": loaded, "missed": [name for name, misses in kernels.items() if misses], "used": used}))
"""


def test_a_second_process_compiles_nothing_and_loads_no_page(lab):
    texts = [w for name, text in short(lab).texts().items() for w in (f"--{name.replace('_', '-')}", text)]
    values = json.dumps([dict(params.changed()) for params in variants(lab)])
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WARM, lab.id, json.dumps(texts), values],
            cwd=compiled.ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded"] == [] and found["missed"] == [] and found["used"] >= 1


LIGHT = """
import sys
from sims.engine import cli
looks = (["list", "--json"], ["--help"], ["run", "--help"], ["run", sys.argv[1], "--help"], ["confirm", "--help"])
for command in looks:
    if cli.main(command) != 0:
        sys.exit(1)
heavy = ("numba", "scipy", "pandas", "pyarrow", "torch", "altair", "streamlit", "matplotlib")
print(sorted(n for n in sys.modules if n.split(".")[0] in heavy or n.endswith(".kernels") or n.startswith("theory")))
"""


def test_looking_around_loads_nothing_heavy(lab):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, lab.id], cwd=compiled.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# -- words ---------------------------------------------------------------------------------------------------------


def test_presets_resolve_and_expect_known_claims(lab):
    claims = {claim.id for claim in lab.claims}
    assert len(claims) == len(lab.claims) and len({preset.id for preset in lab.presets}) == len(lab.presets)
    for preset in lab.presets:
        runs = lab.runs(preset)
        assert len({run_key(lab, params) for params in runs.values()}) == 1 + len(preset.beside)
        assert preset.notice.endswith((".", "!")) and preset.label not in preset.beside
        assert preset.expect.keys() <= claims, preset.id
        spoken_of = {claim.id for claim in lab.claims for params in runs.values() if claim.about(params)}
        assert preset.expect.keys() <= spoken_of, f"{preset.id} expects a verdict on what is not said about it"
    assert lab.focus(lab.presets[0]) == lab.params.make()


def test_some_preset_shows_where_the_theorem_ends(lab):
    assert any({"outside", "fails"} & set(preset.expect.values()) for preset in lab.presets)


def test_claims_are_whole_sentences_with_a_source(lab):
    assert lab.claims
    for claim in lab.claims:
        assert claim.statement.endswith(".") and claim.source and claim.id.isidentifier()
    assert any(claim.about(params) for claim in lab.claims for params in lab.runs(lab.presets[0]).values())


def test_a_claim_about_a_run_is_judged_or_says_why_not(lab):
    run = execute(lab, short(lab))
    for verdict in run.claims:
        assert verdict.verdict in ("holds", "fails", "outside", "undecided") and verdict.reason


def test_versions_are_told_and_lead_to_the_present_one(lab):
    versions = [change.version for change in lab.changes]
    assert versions == list(range(1, lab.version + 1)) and all(change.summary for change in lab.changes)
    for bad in (0, lab.version + 1):
        with pytest.raises(BadInput, match="version"):
            lab.migrate({}, bad)
    assert lab.migrate({"seed": "3"}, lab.version) == {"seed": "3"}


def test_streams_are_numbered_from_zero(lab):
    assert sorted(lab.streams.values()) == list(range(len(lab.streams)))


def test_names_of_series_and_metrics_do_not_collide(lab):
    assert not lab.series.keys() & lab.metrics.keys()


def test_the_budget_knows_every_probe_that_the_work_names(lab):
    for params in variants(lab):
        work, probes = lab.work(params), lab.probes()
        assert {*work.per_replicate, *work.once} <= probes.keys() and work.bytes > 0
        assert all(count >= 0 for count in (*work.per_replicate.values(), *work.once.values()))
