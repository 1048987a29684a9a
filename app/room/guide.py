"""Activities and exercise sheets beside the lab: step by step or all at once, with folded answers and progress.

Which one is open, and at which step, stands in the address, so that a reload goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

import streamlit as st

from sims.engine import BadInput, Lab, get_lab

from ..frame.activities import Activity, Choices, Link, Step, Words, activities
from ..frame.page import hold
from ..frame.state import decode
from ..frame.words import escape

WORDS = {"activity": "Activity", "sheet": "Exercises"}
ICONS = {"activity": ":material/route:", "sheet": ":material/checklist:"}


def chooser(lab: Lab, suggested: str = "") -> Activity | None:
    """Buttons for what there is to work through beside the lab; returns what is open.

    `suggested` is what the teacher has open: it is opened here too, until this tab chooses for itself.
    """
    offered = {one.id: one for one in activities().get(lab.id, ())}
    if not offered:
        return None
    widget, follows = f"guide/{lab.id}", f"guide-suggested/{lab.id}"
    if suggested in offered and st.session_state.get(follows) != suggested:
        st.session_state[follows] = suggested
        st.query_params["guide"] = suggested
    current = st.query_params.get("guide", "")
    current = current if current in offered else ""

    def chosen() -> None:
        _open(st.session_state[widget] or "")

    st.session_state[widget] = current or None
    st.pills(
        "Beside the lab",
        list(offered),
        format_func=lambda key: _button_words(offered[key], list(offered.values())),
        key=widget,
        on_change=chosen,
        label_visibility="collapsed",
    )
    return offered.get(current)


def opened(lab: Lab) -> Activity | None:
    """What the address says is open beside the lab."""
    return next((one for one in activities().get(lab.id, ()) if one.id == st.query_params.get("guide")), None)


def step_of(activity: Activity) -> int:
    """The step that the address names, from 1 on."""
    text = st.query_params.get("at", "1")
    number = int(text[:4]) if text.isascii() and text.isdigit() else 1
    return max(1, min(number, len(activity.steps)))


def beside(lab: Lab, activity: Activity, teacher_at: int = 0) -> None:
    """The activity at its step, or the whole sheet."""
    st.markdown(f"**{escape(activity.title)}**")
    if activity.kind == "sheet":
        for step in activity.steps:
            _step(lab, activity, step)
        return
    at = step_of(activity)
    step = activity.steps[at - 1]
    count = len(activity.steps)
    here = f" · the teacher is at step {teacher_at}" if teacher_at and teacher_at != at else ""
    st.progress(at / count, text=f"Step {at} of {count}{here}")
    _step(lab, activity, step)
    with st.container(horizontal=True):
        _turn("Back", ":material/arrow_back:", at - 1, disabled=at == 1)
        _turn("Next step", ":material/arrow_forward:", at + 1, disabled=at == count)


def _turn(words: str, icon: str, to: int, disabled: bool) -> None:
    st.button(words, icon=icon, key=f"guide/{words}", disabled=disabled, on_click=lambda: _go(to))


def _go(step: int) -> None:
    st.query_params["at"] = str(step)


def _open(activity: str) -> None:
    for name in ("guide", "at"):
        if name in st.query_params:
            del st.query_params[name]
    if activity:
        st.query_params["guide"] = activity


def _step(lab: Lab, activity: Activity, step: Step) -> None:
    if step.title:
        minutes = f" :small[:gray[{step.minutes} min]]" if step.minutes else ""
        st.markdown(f"##### {escape(step.title)}{minutes}")
    where = f"{activity.id}/{activity.steps.index(step)}"
    for number, part in enumerate(step.parts):
        if isinstance(part, Words):
            st.markdown(part.text)
        elif isinstance(part, Choices):
            _choices(part, f"guess/{where}/{number}")
        elif isinstance(part, Link):
            _link(lab, part, f"show/{where}/{number}")
        else:
            with st.expander(escape(part.title)):
                st.markdown(part.text)
                for inner, link in enumerate(part.links):
                    _link(lab, link, f"show/{where}/{number}/{inner}")


def _choices(part: Choices, key: str) -> None:
    """Answers to choose from; where the right one is known, whether the chosen one is it."""
    chosen = st.radio(
        part.question or "Your answer",
        range(len(part.answers)),
        index=None,
        format_func=part.answers.__getitem__,
        key=key,
        label_visibility="collapsed",
    )
    if chosen is not None and part.right is not None:
        st.caption("✓ Yes." if chosen == part.right else "✗ Not that one: look again, or unfold the answer.")


def _link(lab: Lab, link: Link, key: str) -> None:
    """A button that brings the page to the state of a link."""
    words = link.words[:1].upper() + link.words[1:]
    if link.lab != lab.id:
        st.caption(f"{escape(words)}: the lab {escape(link.lab)}.")
        return

    def show() -> None:
        try:
            state, _ = decode(get_lab(link.lab), parse_qs(link.query, keep_blank_values=True))
            hold(lab, state)
        except BadInput as error:
            st.toast(str(error))

    st.button(f"Show: {words}", key=key, icon=":material/visibility:", on_click=show)


def _button_words(one: Activity, all_of_them: Sequence[Activity]) -> str:
    """What to call it: its kind, and its title where there are several of a kind."""
    alone = sum(other.kind == one.kind for other in all_of_them) == 1
    words = f"{ICONS[one.kind]} {WORDS[one.kind]}, {one.minutes} minutes"
    return words if alone else f"{words}: {escape(one.title)}"
