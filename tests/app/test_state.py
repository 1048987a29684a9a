"""The link: it restores a page with the same runs, and no link, however garbled, breaks one."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.frame.state import LONGEST_LABEL, MOST_BESIDE, MOST_NOTICES, PageState, decode, encode, of_preset
from sims.engine import BadInput, Lab, Params, all_labs, get_lab
from sims.engine.keys import run_key
from sims.engine.lab import Change
from sims.engine.params import Field

LABS = all_labs()
PRESETS = [pytest.param(lab, preset.id, id=f"{lab.id}-{preset.id}") for lab in LABS for preset in lab.presets]
LAB = get_lab("label_noise")
DEFAULT = of_preset(LAB, LAB.presets[0].id)


def through_the_address(lab: Lab, state: PageState) -> tuple[PageState, list[str]]:
    """What is left of a state after it was written into an address and read back."""
    pairs = [(name, value) for name, values in encode(lab, state).items() for value in values]
    return decode(lab, parse_qs(urlencode(pairs), keep_blank_values=True, strict_parsing=bool(pairs)))


def keys(lab: Lab, state: PageState) -> list[str]:
    return [run_key(lab, params) for params in (state.focus, *state.beside.values())]


def values_of(field: Field) -> st.SearchStrategy:
    if field.kind == "choice":
        return st.sampled_from(field.choices)
    if field.kind == "bool":
        return st.booleans()
    kind = int if field.kind == "int" else float
    low, high = field.ge, field.le
    assert low is not None and high is not None, f"{field.name} has no bounds"
    if kind is int:
        return st.integers(int(low), int(high))
    one = st.floats(low, high, allow_nan=False)
    return st.lists(one, min_size=1, max_size=4).map(tuple) if field.kind == "floats" else one


@st.composite
def params_of(draw: st.DrawFn, lab: Lab) -> Params:
    """Valid params, reached as a user reaches them: one change after another, impossible ones refused."""
    params = lab.params.make()
    for _ in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(list(params.active())))
        try:
            params = params.replace(**{name: draw(values_of(lab.params.fields()[name]))})
        except BadInput:
            continue
    return params


# -- there and back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_the_default_page_has_an_empty_query(lab):
    state = of_preset(lab, lab.presets[0].id)
    assert encode(lab, state) == {}
    assert decode(lab, {}) == (state, [])


@pytest.mark.parametrize(("lab", "preset"), PRESETS)
def test_a_link_to_a_preset_restores_its_runs(lab, preset):
    state = of_preset(lab, preset)
    found, notices = through_the_address(lab, state)
    assert notices == []
    assert found == state
    assert list(found.beside) == list(state.beside), "runs come back in their order, for it decides their colours"
    assert keys(lab, found) == keys(lab, state)


@given(data=st.data())
def test_any_state_comes_back_with_the_same_run_keys(data):
    lab = get_lab(data.draw(st.sampled_from([lab.id for lab in LABS])))
    state = PageState(data.draw(st.sampled_from([preset.id for preset in lab.presets])), data.draw(params_of(lab)))
    for _ in range(data.draw(st.integers(0, MOST_BESIDE))):
        label = data.draw(st.sampled_from(["label noise", "x" * 90, "a~b:c", "<b>α</b>", "", " padded ", "twice"]))
        state = state.pin(label, data.draw(params_of(lab)))
    found, notices = through_the_address(lab, state)
    assert notices == []
    assert found == state
    assert keys(lab, found) == keys(lab, state)


def test_a_link_carries_the_version_and_what_differs_from_its_defaults():
    state = DEFAULT.with_focus(DEFAULT.focus.replace(learning_rate=0.02, replicates=7))
    query = encode(LAB, state)
    assert query["v"] == [str(LAB.version)]
    assert set(query) == {"v", "preset", "learning_rate", "replicates", "beside"}
    assert (query["learning_rate"], query["replicates"]) == (["0.02"], ["7"])


def test_an_inactive_field_is_not_in_the_link():
    gd = DEFAULT.focus.replace(noise_std=2.0).replace(algorithm="gd")
    assert "noise_std" not in encode(LAB, DEFAULT.with_focus(gd))


def test_one_run_too_many_is_refused_in_a_sentence():
    state = replace(DEFAULT, beside={})
    for number in range(MOST_BESIDE):
        state = state.pin("same", DEFAULT.focus.replace(seed=number))
    assert len(state.beside) == MOST_BESIDE, "equal labels are told apart"
    with pytest.raises(BadInput, match=f"At most {MOST_BESIDE} runs"):
        state.pin("one more", DEFAULT.focus)
    assert list(state.unpin("same").beside) == list(state.beside)[1:]


# -- garbled links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"wiidth": ["3"]}, "wiidth"),
        ({"dim": ["many"]}, "dim"),
        ({"dim": ["１００"]}, "dim"),
        ({"dim": ["1_0"]}, "dim"),
        ({"dim": ["5.0"]}, "dim"),
        ({"dim": [""]}, "dim"),
        ({"dim": [" 50"]}, "dim"),
        ({"dim": ["99999"]}, "dim"),
        ({"dim": ["9" * 5000]}, "dim"),
        ({"learning_rate": ["NaN"]}, "learning_rate"),
        ({"learning_rate": ["inf"]}, "learning_rate"),
        ({"learning_rate": ["1e309"]}, "learning_rate"),
        ({"learning_rate": ["0x1p-3"]}, "learning_rate"),
        ({"learning_rate": ["\0"]}, "learning_rate"),
        ({"algorithm": ["<script>alert(1)</script>"]}, "algorithm"),
        ({"algorithm": ["javascript:alert(1)"]}, "algorithm"),
        ({"algorithm": ["x" * 100_000]}, "algorithm"),
        ({"fresh_data": ["True"]}, "fresh_data"),
        ({"planar_slope": ["1"]}, "planar_slope"),  # inactive
        ({"preset": ["edgy"]}, "edgy"),
        ({"preset": ["<img src=x onerror=alert(1)>"]}, "<img"),
        ({"v": ["0"]}, "version 0"),
        ({"v": ["99"]}, "version 99"),
        ({"v": ["abc"]}, "version abc"),
        ({"v": ["١"]}, "version"),
        ({"v": [""]}, "version"),
        ({"beside": ["a~dim"]}, "dim in the run a"),
        ({"beside": ["a~dim:x"]}, "dim"),
        ({"beside": ["a~dim:30~dim:40"]}, "dim is written twice"),
        ({"beside": ["a~nothing:1"]}, "nothing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_understood_is_named_and_the_rest_kept(query, named):
    state, notices = decode(LAB, {**query, "n_train": ["33"]})
    assert len(notices) == 1
    assert named in notices[0]
    assert len(notices[0]) < 600
    assert state.focus.n_train == 33
    changed = {"n_train": 33, **({"dim": 40} if "twice" in named else {})}
    for params in (state.focus, *(state.beside.values() if "beside" in query else ())):
        assert set(params.changed()) <= set(changed)


def test_the_last_of_a_repeated_key_counts_and_it_is_said():
    state, notices = decode(LAB, {"dim": ["30", "40"], "v": [str(LAB.version), str(LAB.version)]})
    assert state.focus.dim == 40
    assert [notice.split()[0] for notice in notices] == ["dim", "v"]


def test_too_many_runs_beside_are_cut_off_aloud():
    state, notices = decode(LAB, {"beside": [f"run {i}~seed:{i}" for i in range(1, 10)]})
    assert [params.seed for params in state.beside.values()] == list(range(1, MOST_BESIDE + 1))
    assert len(notices) == 1 and "9 runs" in notices[0]


def test_runs_beside_of_one_label_are_all_drawn():
    state, notices = decode(LAB, {"beside": ["a~seed:1", "a~seed:2", "~seed:3", "<>~seed:4"]})
    assert [params.seed for params in state.beside.values()] == [1, 2, 3, 4]
    assert notices == []


def test_fields_at_odds_with_each_other_cost_only_one_of_them():
    """dim = 3 is possible alone, and n_train = 33; dim = 3 with the default sparsity of 5 is not."""
    state, notices = decode(LAB, {"n_train": ["33"], "dim": ["3"], "seed": ["8"]})
    assert state.focus.changed() == {"n_train": 33, "seed": 8}
    assert len(notices) == 1
    assert "sparsity" in notices[0] and "dim was ignored" in notices[0]


def test_a_field_that_is_wrong_in_two_ways_is_ignored_once():
    """A negative noise_std, where gradient descent has no noise at all."""
    state, notices = decode(LAB, {"algorithm": ["gd"], "noise_std": ["-1"], "seed": ["8"]})
    assert state.focus.changed() == {"algorithm": "gd", "seed": 8}
    assert len(notices) == 1 and "noise_std was ignored" in notices[0]


def test_a_flood_of_nonsense_is_summed_up():
    state, notices = decode(LAB, {f"field_{i}": ["1"] for i in range(1000)} | {"dim": ["50"]})
    assert state.focus.dim == 50
    assert len(notices) == MOST_NOTICES + 1
    assert notices[-1].startswith(f"{1000 - MOST_NOTICES} more")


def test_a_link_of_an_older_version_is_shown_by_the_present_one_and_says_so():
    now, next_one = str(LAB.version), LAB.version + 1
    newer = replace(LAB, version=next_one, changes=(*LAB.changes, Change(next_one, "newer", dict)))
    state, notices = decode(newer, {"v": [now], "dim": ["50"]})
    assert state.focus.dim == 50
    assert len(notices) == 1 and f"version {now}" in notices[0]
    cut_off = replace(newer, changes=(*LAB.changes, Change(next_one, "newer")))
    state, notices = decode(cut_off, {"v": [now], "dim": ["50"]})
    assert state.focus == LAB.params.make()
    assert any("cannot read it" in notice for notice in notices)


def test_keys_of_the_view_are_no_part_of_the_state():
    assert decode(LAB, {"embed": ["true"], "present": ["1"]}) == (DEFAULT, [])


PIECES = ["v", "preset", "beside", "dim", "a~dim:3~x", "1e999", "-0", "\x00", "~:"]
WORDS = st.text(max_size=60) | st.sampled_from(PIECES)


@given(query=st.dictionaries(WORDS, st.lists(WORDS, min_size=1, max_size=3), max_size=6))
@example(query={"v": ["99999999999999999999"], "beside": ["~" * 1000]})
def test_no_query_raises(query):
    state, notices = decode(LAB, query)
    assert len(notices) <= MOST_NOTICES + 1
    assert len(state.beside) <= MOST_BESIDE
    assert all(len(label) <= LONGEST_LABEL for label in state.beside)
    assert through_the_address(LAB, state) == (state, [])
