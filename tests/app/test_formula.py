"""Formulas: each lab has some, their numbers are those of its theory, and their symbols lead to the sliders."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest

from app.frame.formula import Formula, as_html, numbers_of, predicted, shown
from app.frame.page import lab_module
from sims.engine import ChalklineError, all_labs, get_lab
from tests.app.samples import PRESETS, preset_view, run_of
from tests.test_contracts import draw_params

LABS = all_labs()
QUICK_THEORY = 3e5  # units of a lab's probes


def formulas_of(lab_id):
    return lab_module(lab_id).STORY.formulas


def text_of(mathml):
    return "".join(ET.fromstring(mathml).itertext())


@pytest.mark.parametrize(("lab_id", "preset"), PRESETS)
def test_the_number_of_a_formula_is_that_of_the_theory(lab_id, preset):
    run = preset_view(lab_id, preset).focus
    for formula in formulas_of(lab_id):
        if not formula.when(run.params):
            continue
        expected = predicted(formula, run)
        assert expected is not None, f"{formula.says}: shown where the theory is silent"
        found = formula.value(numbers_of(formula, run))
        assert found == pytest.approx(expected, rel=formula.tolerance, abs=1e-12), formula.says


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_the_default_page_of_every_lab_has_a_formula_that_its_sliders_change(lab):
    run = preset_view(lab.id, lab.presets[0].id).focus
    items = shown(formulas_of(lab.id), run)
    assert items
    linked = {name for item in items for name in item.names if name in lab.params.fields()}
    assert linked
    for name in linked:
        drawn = [as_html(item) for item in shown(formulas_of(lab.id), run, name) if name in item.names]
        assert drawn and all(f'class="symbol changed" data-name="{name}"' in one for one in drawn)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_every_formula_is_complete_mathml(lab):
    """All of its LaTeX is understood, every name has a symbol, and no sign of our own is left in it."""
    for formula in formulas_of(lab.id):
        preset = next((p.id for p in lab.presets if formula.when(lab.focus(p))), None)
        if preset is None:
            continue
        run = run_of(lab.id, lab.focus(lab.preset(preset)))
        (item,) = shown([formula], run)
        for mathml in (item.symbols, item.numbers):
            text = text_of(mathml)
            assert "\\" not in text and not re.search("[\ue000-\uf8ff]", text), text
            assert "<" not in text and text.strip()
        assert "=" in text_of(item.numbers)
        for name in item.names:
            field = lab.params.fields().get(name)
            assert name in formula.symbols or (field is not None and field.symbol), f"{name} has no symbol"


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_wherever_the_sliders_stand_a_formula_is_a_number_or_not_there(lab):
    """Of params drawn from all that is allowed: a formula that speaks of them has its numbers."""
    rng = random.Random(5)
    for params in [draw_params(lab, rng) for _ in range(25)]:
        if sum(lab.work(params).once.values()) > QUICK_THEORY:
            continue
        speaking = [formula for formula in formulas_of(lab.id) if formula.when(params)]
        try:
            run = SimpleNamespace(params=params, prediction=lab.predict(params), metrics={})
        except ChalklineError:
            continue
        for formula in speaking:
            assert isinstance(float(formula.value(numbers_of(formula, run))), float), (formula.says, params.changed())


# -- numbers in their places -----------------------------------------------------------------------------------------

LAB = get_lab("label_noise")


def drawn(right, changed=None, **params):
    formula = Formula("says", "T", right, lambda n: 2.0, lambda run: 2.0, symbols={"steps": "K"})
    run = run_of("label_noise", LAB.params.make({"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2, **params}))
    return shown([formula], run, changed)[0]


def test_a_product_has_a_dot_between_numbers_and_none_between_symbols():
    item = drawn(r"<steps> <*> <learning_rate>", learning_rate=0.02)
    assert text_of(item.symbols).replace("\u2062", "") == "T=Kη"
    assert text_of(item.numbers) == "=60·0.02=2"


def test_a_power_of_a_number_with_a_power_of_ten_is_in_brackets():
    assert text_of(drawn("<learning_rate>^2", learning_rate=1e-5).numbers) == "=(10−5)2=2"
    assert text_of(drawn("<learning_rate>^2", learning_rate=0.5).numbers) == "=0.52=2"
    assert "<msup><mrow><mo>(</mo>" in drawn("<learning_rate>^2", learning_rate=2e-6).numbers


def test_only_what_was_changed_last_is_in_colour_and_only_parameters_are_linked():
    item = drawn("<steps> + <learning_rate>", "learning_rate")
    for mathml in (item.symbols, item.numbers):
        assert re.findall(r'class="([^"]+)" data-name="(\w+)"', mathml) == [
            ("symbol", "steps"),
            ("symbol changed", "learning_rate"),
        ]


def test_a_measured_value_stands_beside_the_formula_with_its_error():
    run = preset_view("label_noise", "shape_matters").focus
    item = next(item for item in shown(formulas_of("label_noise"), run) if "slow clock" in item.says)
    assert f"Measured: {run.metrics['slow_time'].mean:.4g}" in item.measured
    assert np.isfinite(run.metrics["slow_time"].mean)


def test_words_cannot_become_markup():
    formula = Formula("<script>alert(1)</script>", "T", "<steps>", lambda n: 1.0, lambda run: 1.0)
    run = run_of("label_noise", LAB.params.make({"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2}))
    assert "<script" not in as_html(shown([formula], run)[0])
