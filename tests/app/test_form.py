"""The form: every active field has a widget that can show its value, and a refused value says why."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from app.frame.form import label_of, log_grid, offered, slider_range
from sims.engine import BadInput, all_labs, get_lab

LABS = all_labs()
NUMBERS = [
    pytest.param(field, id=f"{lab.id}-{name}")
    for lab in LABS
    for name, field in lab.params.fields().items()
    if field.kind in ("int", "float") and field.live is not None
]
GRIDS = [case for case in NUMBERS if case.values[0].scale == "log"]


def page(lab_id, preset):
    """A page that is a form and nothing else, and says what it holds."""
    import streamlit as st

    from app.frame.form import form
    from sims.engine import get_lab

    lab = get_lab(lab_id)
    held = st.session_state.setdefault("held", lab.focus(lab.preset(preset)))

    def change(name, value):
        st.session_state.held = held.replace(**{name: value})

    form(held, "f", change)
    st.json(held.texts())


def opened(preset="shape_matters", lab="label_noise"):
    app = AppTest.from_function(page, kwargs={"lab_id": lab, "preset": preset}).run(timeout=20)
    assert not app.exception
    return app


def widget_names(app):
    found = [*app.slider, *app.select_slider, *app.selectbox, *app.text_input, *app.toggle]
    return {widget.key.split("/")[1] for widget in found} - {"exact"}


@pytest.mark.parametrize("exact", [False, True], ids=["sliders", "exact"])
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_every_active_field_of_every_preset_has_a_widget_with_its_value(lab, exact):
    for preset in lab.presets:
        params = lab.focus(preset)
        app = opened(preset.id, lab.id)
        if exact:
            app.toggle(key="f/exact").set_value(True).run()
        assert not app.exception
        hidden = set() if exact else {"first_replicate"}
        assert widget_names(app) == set(params.active()) - hidden
        for widget in [*app.slider, *app.select_slider]:
            assert widget.value == getattr(params, widget.key.split("/")[1])
        for text in app.text_input:
            field = params.fields()[text.key.split("/")[1]]
            assert field.parse(text.value) == getattr(params, field.name)


@pytest.mark.parametrize("field", GRIDS)
def test_a_logarithmic_grid_is_sorted_and_holds_its_ends_and_any_value(field):
    low, high = field.live
    for value in (low, high, field.default, field.ge or low, field.le):
        grid = log_grid(field, value)
        assert grid == sorted(set(grid))
        assert value in grid
        assert (grid[0], grid[-1]) == (min(low, value), max(high, value))
        assert all(isinstance(v, int) for v in grid) == (field.kind == "int")
        assert len(grid) <= 6 + 23 * math.ceil(math.log10(grid[-1] / grid[0]))
        for v in grid:
            assert field.ge is None or field.ge <= v
            assert v <= field.le


def active_fields(lab):
    """(params, field) for every active field of each preset."""
    for preset in lab.presets:
        params = lab.focus(preset)
        for name in params.active():
            yield params, params.fields()[name]


def taken(params, name, value):
    try:
        return getattr(params.replace(**{name: value}), name) == value
    except BadInput:
        return False


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_logarithmic_slider_of_whole_numbers_offers_what_is_accepted(lab):
    for params, field in active_fields(lab):
        if field.kind == "int" and field.scale == "log" and field.live is not None:
            values, own = offered(params, field.name), getattr(params, field.name)
            assert own in values
            assert values == [v for v in log_grid(field, own) if taken(params, field.name, v)]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_value_is_admitted_where_params_with_it_can_be_made(lab):
    for params, field in active_fields(lab):
        bounds = [v for v in (field.ge, field.le) if v is not None] if field.kind in ("int", "float") else []
        beyond = [bounds[0] - 1, bounds[-1] + 1] if bounds else []
        kind = int if field.kind == "int" else float
        values = [kind(v) for v in (*bounds, *beyond)] or [*field.choices] or [getattr(params, field.name)]
        for value in values:
            assert params.admits(field.name, value) == taken(params, field.name, value), (params, field.name, value)


@pytest.mark.parametrize("field", NUMBERS)
@given(data=st.data())
def test_a_slider_reaches_every_value_it_is_given(field, data):
    kind = st.integers if field.kind == "int" else st.floats
    value = data.draw(kind(field.ge, field.le))
    low, high = slider_range(field, value)
    assert low <= value <= high
    assert low <= field.live[0] and field.live[1] <= high
    assert type(low) is type(high) is (int if field.kind == "int" else float)


def test_where_one_value_is_possible_it_is_typed_and_another_one_is_refused_with_the_reason():
    app = opened("matrices_matter", "linear_attention")
    name = "f/dim/text"
    assert app.text_input(key=name).value == "5"
    app.text_input(key=name).set_value("6").run()
    assert app.text_input(key=name).value == "5"
    assert len(app.error) == 1 and "spectrum" in app.error[0].value


def test_a_label_carries_the_symbol_in_front():
    fields = get_lab("label_noise").params.fields()
    assert label_of(fields["learning_rate"]) == "$\\eta$  learning rate"
    assert label_of(fields["algorithm"]) == "algorithm"


def test_a_slider_changes_its_own_field_alone():
    app = opened()
    app.slider(key="f/n_train/widget").set_value(33).run()
    app.select_slider(key="f/learning_rate/widget").set_value(0.02).run()
    assert not app.exception
    assert app.session_state.held.changed() == {"n_train": 33, "learning_rate": 0.02}


def test_widgets_come_and_go_with_the_algorithm():
    app = opened()
    assert "noise_std" in widget_names(app)
    app.selectbox(key="f/algorithm/widget").set_value("gd").run()
    assert {"noise_std", "noise_schedule"}.isdisjoint(widget_names(app))
    app.selectbox(key="f/covariates/widget").set_value("planar").run()
    assert "planar_slope" in widget_names(app)
    assert {"n_train", "dim", "sparsity", "data_seed"}.isdisjoint(widget_names(app))
    assert not app.exception


def test_a_seed_is_typed_and_not_slid():
    app = opened()
    assert {text.key.split("/")[1] for text in app.text_input} == {"data_seed", "seed"}


@pytest.mark.parametrize("text", ["500", "five", "1_0", "5.5", "", "-1", "９", "1e999", "<b>", "9" * 1500])
def test_a_refused_value_is_one_sentence_and_changes_nothing(text):
    app = opened()
    app.toggle(key="f/exact").set_value(True).run()
    app.text_input(key="f/sparsity/text").set_value(text).run()
    assert not app.exception
    assert len(app.error) == 1
    assert "sparsity" in app.error[0].value and len(app.error[0].value) < 400
    assert app.session_state.held.changed() == {}
    assert app.text_input(key="f/sparsity/text").value == "5"
    app.run()
    assert not app.error, "the message is about the change, and goes with the next one"


def test_an_exact_value_beyond_the_slider_stays_when_the_sliders_return():
    app = opened()
    app.toggle(key="f/exact").set_value(True).run()
    app.text_input(key="f/learning_rate/text").set_value("0.54321").run()
    app.text_input(key="f/dim/text").set_value(" 300 ").run()
    app.toggle(key="f/exact").set_value(False).run()
    assert not app.exception
    assert app.select_slider(key="f/learning_rate/widget").value == 0.54321
    assert app.slider(key="f/dim/widget").value == 300
    assert app.session_state.held.changed() == {"learning_rate": 0.54321, "dim": 300}


def test_a_refusal_comes_from_the_model():
    with pytest.raises(BadInput, match="sparsity"):
        get_lab("label_noise").params.make().replace(sparsity=500)
