"""Anything at all through the command line and the address: a run, or one clear message; never a traceback or a hang.

What comes in through Python is in test_contracts.py, what a page shows of a garbled address in app/test_page.py too.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import shlex
import subprocess
import sys
import time
from functools import cache
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from app.frame import runs as page_runs
from app.frame.state import MOST_BESIDE, MOST_NOTICES, decode, encode
from sims.engine import BadInput, ChalklineError, Lab, Params, TooLarge, cli, compiled, execute, get_lab, lab_ids
from sims.engine.budget import Budget, estimate, require
from sims.engine.execute import Run, RunMonitor
from sims.engine.jobs import run_in_thread
from sims.engine.keys import run_key
from tests.test_contracts import check_shapes, draw_params

LAB_IDS = lab_ids()
SHORT_SECONDS = 0.05  # a run of a quick test is estimated at most so long
SHORT_BYTES = 2e8
LONG_SECONDS = 2.0  # an extreme that is estimated to take longer is to be refused

pytestmark = pytest.mark.parametrize("lab", [get_lab(lab_id) for lab_id in LAB_IDS], ids=LAB_IDS)

NASTY = [
    "NaN", "nan", "inf", "-inf", "Infinity", "1e309", "-1e309", "-0", "-0.0", "1_0", "０１２", "٣", "1,2", "1;2",
    "0x10", "1e3", "+5", " 7 ", "", " ", "\x00", "7\x00", "\r\n", "\x1b[31m", "x" * 100_000, "9" * 400, "true", "True",
    "None", "null", "[]", "{}", "<script>alert(1)</script>", "javascript:alert(1)", "![i](http://x.example/y.png)",
    "$x^2$",
    "'; DROP TABLE runs; --", "$(touch /tmp/x)", "`id`", "; rm -rf /", "| cat", "../../etc/passwd", "/etc/passwd",
    "file:///etc/passwd", "%00", "%2e%2e%2f", "\ud800", "=1+1", "@SUM(A1)", "~", ":", "a~b:c", "--", "-h", "--help",
]  # fmt: skip


def is_short(budget: Budget) -> bool:
    return budget.seconds <= SHORT_SECONDS and budget.bytes <= SHORT_BYTES


def texts_of(lab: Lab) -> st.SearchStrategy[str]:
    """Texts of values: of those that are allowed, of their bounds and beyond, and of anything."""
    near = []
    for field in lab.params.fields().values():
        near += [*field.choices]
        for bound in (field.ge, field.le):
            near += [str(value) for value in (bound, bound and 2 * bound, bound and -bound) if value is not None]
    return st.one_of(st.sampled_from(near), st.sampled_from(near), st.sampled_from(NASTY), st.text(max_size=12))


# -- the command line ----------------------------------------------------------------------------------------------


def called(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def command_lines(lab: Lab) -> st.SearchStrategy[list[str]]:
    known = [f"--{name.replace('_', '-')}" for name in lab.params.fields()]
    flags = st.one_of(st.sampled_from(known), st.sampled_from(known), st.sampled_from(["--preset", "--backend", "--x"]))
    pair = st.tuples(flags, texts_of(lab)).map(list)
    loose = st.one_of(flags, texts_of(lab)).map(lambda word: [word])
    return st.lists(st.one_of(pair, pair, pair, loose), max_size=5).map(lambda parts: [*chain.from_iterable(parts)])


def is_clear(err: str) -> bool:
    """One line of ours, or tyro's box about what it could not parse, which ends with where help is."""
    return "Traceback" not in err and ((err.count("\n") == 1 and err.strip() != "") or "--help" in err)


@pytest.mark.parametrize(
    ("examples", "runs"),
    [(25, 0), pytest.param(2000, 100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_any_command_line_is_a_run_or_one_message(lab, examples, runs, monkeypatch):
    """What is valid reaches `execute`; the first few short ones are computed, of the others their estimate is told."""
    left = [runs]

    def some(lab: Lab, params: Params, **named: Any) -> Run:
        if not is_short(estimate(lab, params)) or left[0] == 0:
            raise TooLarge(f"This run would take {estimate(lab, params)}.")
        left[0] -= 1
        return execute(lab, params)

    monkeypatch.setattr(sys.modules["sims.engine.execute"], "execute", some)

    @settings(max_examples=examples)
    @given(command_lines(lab))
    def check(words):
        code, out, err = called("run", lab.id, *words, "--no-store", "--json")
        assert code in (0, 2)
        if code == 2:
            assert is_clear(err), (words, err)
            assert "\x1b[31m" not in err, "nothing given steers a terminal"
        else:
            assert "NaN" not in out and "Infinity" not in out

    check()


@pytest.mark.slow
def test_twenty_real_command_lines(lab, tmp_path):
    """In processes of their own, with a seed of their own: exit code, one message, nothing left behind."""
    rng = random.Random(f"{lab.id} 20")
    names = list(lab.params.fields())
    for _ in range(20):
        words = [w for name in rng.sample(names, 2) for w in (f"--{name.replace('_', '-')}", rng.choice(NASTY))]
        words = [word for word in words if "\x00" not in word and "\ud800" not in word]  # no process can be given these
        done = subprocess.run(
            [sys.executable, "-m", "sims", "run", lab.id, *words, "--no-store", "--json"],
            cwd=compiled.ROOT, capture_output=True, text=True, check=False, timeout=250,
        )  # fmt: skip
        assert done.returncode in (0, 2), (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or is_clear(done.stderr), (words, done.stderr)
    assert not list(tmp_path.iterdir())


# -- the address ---------------------------------------------------------------------------------------------------


def queries(lab: Lab) -> st.SearchStrategy[dict[str, list[str]]]:
    names = st.one_of(
        st.sampled_from([*lab.params.fields()]),
        st.sampled_from(["v", "preset", "beside", "axis", "present", "embed"]),
        st.sampled_from(NASTY),
    )
    presets = st.sampled_from([preset.id for preset in lab.presets])
    entry = st.builds(
        lambda label, name, text: f"{label}~{name}:{text}",
        st.sampled_from(NASTY), st.sampled_from([*lab.params.fields()]), texts_of(lab),
    )  # fmt: skip
    values = st.lists(st.one_of(texts_of(lab), presets, entry), min_size=1, max_size=2)
    return st.dictionaries(names, values, max_size=6)


@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_any_address_is_a_state_and_says_what_it_ignored(lab, examples):
    @settings(max_examples=examples)
    @given(queries(lab))
    @example({"beside": ["~" * 1000], "v": ["9" * 400]})
    def check(query):
        state, notices = decode(lab, query)
        assert len(notices) <= MOST_NOTICES + 1 and len(state.beside) <= MOST_BESIDE
        assert all(notice.isprintable() and len(notice) < 3000 for notice in notices)
        assert decode(lab, encode(lab, state)) == (state, []), "the address is set right"
        unknown = [name for name in query if name and name not in lab.params.fields()]
        if [name for name in unknown if name not in ("v", "preset", "beside", "axis", "present", "embed")]:
            assert notices, "nothing is dropped in silence"

    check()


def lab_script(lab_id):
    from app.frame.page import lab_page

    lab_page(lab_id)


@pytest.fixture
def own_server():
    page_runs.server_jobs.cache_clear()
    yield
    page_runs.server_jobs.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("own_server")
def test_a_page_survives_any_address(lab, monkeypatch):
    """125 addresses, seed 23: no exception, no traceback, and what is red is a refusal with its estimate.

    The limits leave room for the default page and for little more.
    """
    seconds = [estimate(lab, params).seconds for params in lab.runs(lab.presets[0]).values()]
    monkeypatch.setattr(page_runs, "LIVE_SECONDS", 1.2 * max(seconds))
    monkeypatch.setattr(page_runs, "SESSION_SECONDS", 1.2 * sum(seconds))
    rng, drawn = random.Random(23), 0
    names = [*lab.params.fields(), "v", "preset", "beside", "axis", "colour", "embed", "present"]
    app = AppTest.from_function(lab_script, kwargs={"lab_id": lab.id}, default_timeout=120)
    for _ in range(125):
        app.query_params.clear()
        for name in rng.sample(names, rng.randint(1, 4)):
            value = rng.choice([*NASTY, *map(str, range(1, 9))]).replace("\ud800", "?").replace("\x00", "%00")
            app.query_params[name] = value[:5000] if rng.random() < 0.9 else [value[:100], "2"]
        app.run()
        while any(button.label == "Stop" for button in app.button):
            time.sleep(0.1)
            app.run()
        assert not app.exception
        drawn += not app.error
        for box in app.error:
            words = box.value.replace("\\", "")
            assert "would take about" in words or "did not converge" in words or "is not possible" in words, words
        for box in app.warning:
            assert "![i](" not in box.value and "<script" not in box.value.replace("\\<", "")
    assert drawn >= 60, "most of what is typed is ignored, and leaves the default page"


# -- extremes ------------------------------------------------------------------------------------------------------


def ends(field: Any) -> list[Any]:
    bounds = [bound for bound in (field.ge, field.le) if bound is not None]
    kinds = {"int": int, "float": float, "floats": lambda end: (end,)}
    return [kinds[field.kind](bound) for bound in bounds]


@cache
def extremes(lab_id: str) -> tuple[dict[tuple[str, Any], Params], dict[tuple[str, Any], str]]:
    """Each bound of each field by itself: where it is possible, and of those that never are the refusal.

    Tried on the default, on 300 random params, and on these with one other field at a bound or a choice of its own.
    """
    lab = get_lab(lab_id)
    fields = lab.params.fields()
    drawn = [lab.params.make(), *(draw_params(lab, random.Random(seed)) for seed in range(300))]
    possible, refused = {}, {}
    for name, field in fields.items():
        bases = [base for base in drawn if base.is_active(name)]
        others = [
            {other: v} for other in fields if other != name for v in (*ends(fields[other]), *fields[other].choices)
        ]
        for end in ends(field):
            for other, base in product([{}, *others], bases):
                try:
                    possible[name, end] = base.replace(**other, **{name: end})
                    break
                except BadInput as refusal:
                    if not other:
                        refused[name, end] = str(refusal)
    return possible, {what: message for what, message in refused.items() if what not in possible}


def finishes_or_is_refused(lab: Lab, what: Any, params: Params, seconds: float) -> bool:
    """Whether it was run; a refusal tells the estimate and a command that means the same run."""
    budget = estimate(lab, params)
    if budget.seconds <= seconds and budget.bytes <= SHORT_BYTES:
        try:
            run = run_in_thread(lab, params, RunMonitor.allocate(lab, params), budget)
        except TooLarge as stopped:
            pytest.fail(f"{what}: {stopped}")  # it outlived its estimate five times
        except (ChalklineError, ArithmeticError) as refusal:
            assert str(refusal) and str(refusal).isprintable()
        else:
            check_shapes(lab, run)
        return True
    with pytest.raises(TooLarge, match=r"would take about .* and .*; the limit here is") as refusal:
        require(lab, params, seconds=seconds, bytes=SHORT_BYTES)
    words = shlex.split(str(refusal.value).split("elsewhere: ")[1])
    assert run_key(lab, cli.params_of(*cli.about_lab("run", words[4:]))) == run_key(lab, params), what
    return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_extreme_of_every_bound_finishes_or_is_refused(lab):
    possible, refused = extremes(lab.id)
    bounds = {(name, end) for name, field in lab.params.fields().items() for end in ends(field)}
    assert possible.keys() | refused.keys() == bounds and len(possible) > 0.8 * len(bounds)
    assert all(name in message and message.isprintable() for (name, _), message in refused.items())
    assert any([finishes_or_is_refused(lab, what, params, LONG_SECONDS) for what, params in possible.items()])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_random_pairs_of_extremes_finish_or_are_refused(lab):
    """Seed 30; a pair that no other fields make possible is drawn again."""
    rng, pairs = random.Random(30), {}
    singles, _ = extremes(lab.id)
    while len(pairs) < 30:
        first, (name, end) = rng.sample([*singles], 2)
        if first[0] == name:
            continue
        with contextlib.suppress(BadInput):
            pairs[first, (name, end)] = singles[first].replace(**{name: end})
    for what, params in pairs.items():
        finishes_or_is_refused(lab, what, params, LONG_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_random_short_runs_end_in_a_result_or_a_refusal(lab):
    """As in the contracts, ten times as many, seed 6: no number that is NaN without a stop that says so."""
    rng, done = random.Random(6), 0
    while done < 200:
        params = draw_params(lab, rng)
        budget = estimate(lab, params, workers=1)
        if not is_short(budget):
            continue
        done += 1
        try:
            run = execute(lab, params)
        except ChalklineError as refusal:
            assert str(refusal)
            continue
        check_shapes(lab, run)
        for r, stop in enumerate(run.trace.stopped):
            for name, values in run.trace.series.items():
                turned = np.flatnonzero(np.diff(np.isnan(values[r]).astype(int)) == 1)
                assert stop is not None or not len(turned) or not np.isnan(values[r, -1]), (name, params)


def test_what_is_typed_is_told_back_in_a_short_line(lab):
    """A value of 100 kB is not repeated whole, and what would steer a terminal is made visible."""
    name = next(name for name, field in lab.params.fields().items() if field.kind in ("int", "float"))
    for text in ("x" * 100_000, "\x1b[31mred", "a\nb"):
        code, _, err = called("run", lab.id, f"--{name.replace('_', '-')}", text, "--no-store")
        assert code == 2 and err.count("\n") == 1 and len(err) < 1000 and re.fullmatch(r"[^\x00-\x09\x0b-\x1f]*", err)
