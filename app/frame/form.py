"""The parameter form: one widget for each active field, made from its declaration."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any

import streamlit as st

from sims.engine import BadInput, Params
from sims.engine.params import Field, Value, format_value

from .words import escape

OnChange = Callable[[str, Value], None]
ENSEMBLE = ("seed", "first_replicate", "replicates")
_GRID_PER_DECADE = 20


def form(params: Params, key: str, on_change: OnChange, without: Container[str] = ()) -> None:
    """Widgets for the active fields of `params`, but for those of `without`.

    A change calls `on_change` with the field's name and new value. One that it refuses with BadInput leaves the params
    as they are, and the reason stands above the widget.
    """
    exact = st.toggle(
        "Type exact values", key=f"{key}/exact", help="Text instead of sliders: any value that is allowed."
    )
    own = [name for name in params.active() if name not in ENSEMBLE and name not in without]
    for name in own:
        _widget(params, name, key, exact, on_change)
    st.caption("Ensemble")
    for name in ENSEMBLE:
        if name not in without and (name != "first_replicate" or exact):
            _widget(params, name, key, exact, on_change)


def label_of(field: Field) -> str:
    """The field's name in words, its symbol in front."""
    words = field.name.replace("_", " ")
    return f"${field.symbol}$  {words}" if field.symbol else words


def _widget(params: Params, name: str, key: str, exact: bool, on_change: OnChange) -> None:
    field = params.fields()[name]
    value: Any = getattr(params, name)
    values = offered(params, name) if field.scale == "log" and field.live is not None else []
    typed = exact or field.live is None or len(values) == 1  # with one value there is nothing to slide to
    as_text = field.kind == "floats" or (field.kind in ("int", "float") and typed)
    widget = f"{key}/{name}/{'text' if as_text else 'widget'}"
    problem = f"{key}/{name}/problem"

    def changed() -> None:
        try:
            given: Value = field.parse(st.session_state[widget].strip()) if as_text else st.session_state[widget]
            on_change(name, given)
            st.session_state.pop(problem, None)
        except BadInput as error:
            st.session_state[problem] = str(error)

    if problem in st.session_state:
        st.error(escape(st.session_state.pop(problem)))
    st.session_state[widget] = format_value(value) if as_text else value
    label, help_text = label_of(field), f"{field.help} Allowed: {field.allowed}."
    if as_text:
        st.text_input(label, key=widget, help=help_text, on_change=changed, max_chars=2000)
    elif field.kind == "choice":
        st.selectbox(label, field.choices, key=widget, help=help_text, on_change=changed, format_func=_words)
    elif field.kind == "bool":
        st.toggle(label, key=widget, help=help_text, on_change=changed)
    elif field.scale == "log":
        st.select_slider(label, values, key=widget, help=help_text, on_change=changed, format_func=_shown)
    else:
        low, high = slider_range(field, value)
        step = 1 if field.kind == "int" else _nice_step(high - low)
        st.slider(label, low, high, step=step, key=widget, help=help_text, on_change=changed)


def slider_range(field: Field, value: float) -> tuple[Any, Any]:
    """The live range, widened to hold the present value. A field without one is typed."""
    assert field.live is not None, f"{field.name} has no range to slide over"
    low, high = field.live
    kind = int if field.kind == "int" else float
    return kind(min(low, value)), kind(max(high, value))


def log_grid(field: Field, value: float) -> list[float]:
    """Values for a slider on a log axis: two digits, evenly spread, with the round ones and the present one."""
    low, high = slider_range(field, value)
    count = max(2, math.ceil(_GRID_PER_DECADE * math.log10(high / low)))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = {float(f"{low * (high / low) ** (i / count):.2g}") for i in range(count + 1)}
    values |= {float(f"{digit}e{decade}") for digit in (1, 2, 5) for decade in decades} | {low, high, value}
    if field.kind == "int":
        values = {round(v) for v in values}
    return sorted(v for v in values if low <= v <= high)


def offered(params: Params, name: str) -> list[float]:
    """The grid of a field's slider; of whole numbers, those that these params allow beside their other values."""
    return _offered(params.model_copy(update={"seed": 0}), name)


@lru_cache(maxsize=512)  # for all seeds at once: no rule speaks of them, and each student has one
def _offered(params: Params, name: str) -> list[float]:
    field, value = params.fields()[name], getattr(params, name)
    grid = log_grid(field, value)
    if field.kind != "int":
        return grid
    return [v for v in grid if v == value or params.admits(name, v)]


def _nice_step(span: float) -> float:
    return float(10.0 ** math.floor(math.log10(span / 50.0)))


def _words(choice: str) -> str:
    return choice.replace("_", " ")


@lru_cache(maxsize=4096, typed=True)  # Streamlit asks for every value of a slider, several times over
def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else format_value(value)
