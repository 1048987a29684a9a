"""Parameters: one declaration, one set of rules, through every door."""

import json
from typing import Literal

import numpy as np
import pytest

from sims.engine import BadInput, Params, Problem, UnknownName, param
from sims.engine.params import canonical_json, format_value


class Toy(Params):
    graph: Literal["ring", "blocks"] = param("ring", help="Which graph.")
    blocks: int = param(2, ge=1, le=8, only_if={"graph": ("blocks",)})
    mix: float = param(0.5, ge=0.0, le=1.0, only_if={"blocks": (2,)})
    rate: float = param(0.1, ge=1e-6, le=10.0, symbol=r"\eta", unit="per step", scale="log", live=(1e-3, 1.0))
    levels: tuple[float, ...] = param((4.0, 2.0), ge=0.1, le=8.0)
    loud: bool = param(False)

    def rules(self):
        if self.loud and self.rate > 1:
            yield Problem("rate", self.rate, "a loud run is slow", "Set rate to 1 or less.")


def problem_of(**values):
    with pytest.raises(BadInput) as caught:
        Toy.make(values)
    return str(caught.value)


def test_own_fields_come_first_and_the_base_last():
    assert list(Toy.fields()) == [
        "graph", "blocks", "mix", "rate", "levels", "loud", "seed", "first_replicate", "replicates",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"rate": 1}, 1.0),
        ({"rate": np.float32(0.5)}, 0.5),
        ({"seed": np.int64(7)}, 7),
        ({"loud": np.bool_(True)}, True),
        ({"levels": [1, 2.5]}, (1.0, 2.5)),
        ({"levels": np.array([1.0, 2.0])}, (1.0, 2.0)),
        ({"graph": np.str_("blocks")}, "blocks"),
    ],
)
def test_values_become_plain(given, plain):
    (name,) = given
    value = getattr(Toy.make(given), name)
    assert value == plain and type(value) is type(plain)


def test_negative_zero_is_zero():
    assert canonical_json(Toy.make(graph="blocks", mix=-0.0).mix) == "0.0"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": 0.0}, "rate = 0 is not possible: it must be a number from 1e-06 to 10 (per step)"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"rate": float("inf")}, "rate = inf"),
        ({"rate": True}, "rate = True"),
        ({"rate": "0.1"}, "rate = 0.1"),
        ({"rate": None}, "rate = None"),
        ({"rate": 10**400}, "rate = 1000000"),
        ({"seed": 1.0}, "seed = 1.0 is not possible: it must be a whole number from 0 to"),
        ({"seed": 10**5000}, "seed = a number of very many digits"),
        ({"seed": -1}, "seed = -1"),
        ({"graph": "tree"}, "it must be one of ring, blocks"),
        ({"graph": np.array(["ring", "ring"])}, "it must be one of ring, blocks"),
        ({"levels": (1.0, 9.0)}, "levels = 1,9 is not possible: it must be numbers separated by commas, each from 0.1"),
        ({"levels": [1.0, float("nan")]}, "levels = "),
        ({"loud": 1}, "it must be true or false"),
        ({"loud": True, "rate": 2.0}, "rate = 2.0 is not possible: a loud run is slow. Set rate to 1 or less."),
    ],
)  # fmt: skip
def test_a_problem_names_the_parameter_the_value_and_what_is_allowed(values, words):
    assert words in problem_of(**values)


def test_every_problem_is_reported():
    text = problem_of(rate=0.0, seed=-1)
    assert "rate = 0" in text and "seed = -1" in text


def test_a_list_that_contains_itself_is_refused():
    endless: list = []
    endless.append(endless)
    assert "levels" in problem_of(levels=endless)


def test_unknown_names_are_refused_with_the_nearest_known_one():
    with pytest.raises(UnknownName, match="Did you mean 'rate'"):
        Toy.make(rat=1.0)
    with pytest.raises(UnknownName):
        Toy.parse({"rat": "1"})
    with pytest.raises(UnknownName):
        Toy.make({1: 2})


def test_an_inactive_field_is_absent_and_refused_when_set():
    assert "blocks" not in Toy.make().active()
    assert "has a meaning only when graph is blocks" in problem_of(blocks=2)
    assert Toy.make(graph="blocks").active()["mix"] == 0.5
    assert "mix" not in Toy.make(graph="blocks", blocks=3).active()
    assert "mix" not in Toy.make().active(), "a field is inactive when the field it hangs on is"
    assert "mix" in problem_of(mix=0.5)
    many_digits = problem_of(blocks=10**5000)
    assert "blocks = a number of very many digits" in many_digits and "only when graph is blocks" in many_digits


def test_replace_lets_what_becomes_inactive_fall_back():
    blocks = Toy.make(graph="blocks", blocks=2, mix=0.25, rate=0.5)
    ring = blocks.replace(graph="ring")
    assert ring == Toy.make(rate=0.5)
    assert blocks.replace(blocks=3) == Toy.make(graph="blocks", blocks=3, rate=0.5)
    with pytest.raises(BadInput):
        blocks.replace(graph="ring", blocks=3)
    with pytest.raises(BadInput):
        blocks.replace(graph=np.array(["ring", "blocks"]))


def test_setting_a_default_changes_nothing():
    assert Toy.make(rate=0.1) == Toy.make() and hash(Toy.make(rate=0.1)) == hash(Toy.make())
    assert Toy.make(rate=0.1).changed() == {}


def test_canonical_json_and_texts_lead_back():
    params = Toy.make(graph="blocks", mix=0.1, rate=1e-5, levels=(0.1, 8.0), loud=True, seed=2**63 - 1)
    assert Toy.make(json.loads(canonical_json(params.active()))) == params
    assert Toy.parse(params.texts()) == params
    assert params.texts()["levels"] == "0.1,8" and params.texts()["loud"] == "true"


def test_canonical_json_does_not_depend_on_order_or_spelling():
    assert canonical_json({"b": 1.0, "a": 2}) == canonical_json({"a": 2, "b": 1.0}) == '{"a":2,"b":1.0}'
    assert canonical_json(Toy.make(rate=1).active()) == canonical_json(Toy.make(rate=1.0).active())
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "12", 12),
        ("seed", "+5", 5),
        ("rate", ".5", 0.5),
        ("rate", "5.", 5.0),
        ("rate", "1e-3", 0.001),
        ("levels", "4,2,1,.5", (4.0, 2.0, 1.0, 0.5)),
        ("loud", "true", True),
        ("graph", "ring", "ring"),
    ],
)
def test_texts_are_read(name, text, value):
    assert getattr(Toy.parse({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "1_0"),
        ("seed", "１２"),
        ("seed", "1.0"),
        ("seed", ""),
        ("seed", " 1"),
        ("seed", "0x10"),
        ("seed", "9" * 40),
        ("rate", "nan"),
        ("rate", "inf"),
        ("rate", "1e309"),
        ("rate", "1,5"),
        ("rate", "\x00"),
        ("rate", "1" * 100_000),
        ("rate", "-0.1"),
        ("levels", "1,,2"),
        ("levels", "1,2,"),
        ("loud", "True"),
        ("loud", "1"),
        ("graph", "<script>"),
    ],
)
def test_bad_texts_are_refused_in_a_short_sentence(name, text):
    with pytest.raises(BadInput, match=f"{name} = ") as caught:
        Toy.parse({name: text})
    sentence = str(caught.value)
    assert len(sentence) < 300 and sentence.isprintable()


def test_format_value():
    assert [format_value(v) for v in (True, 3, 0.5, 2.0, 1e-7, (1.0, 0.5), "ring")] == [
        "true", "3", "0.5", "2", "1e-07", "1,0.5", "ring",
    ]  # fmt: skip
