"""What the teacher of a room has above the page: what the class sees, and the questions to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import streamlit as st

from sims.engine import BadInput, get_lab

from ..frame.activities import Choices, activities
from ..frame.words import escape
from .me import Part, house
from .store import LONGEST_CHOICE, LONGEST_QUESTION, MOST_CHOICES, Hidden, Question, Room

HIDES = {"both": "Both", "theory": "Theory", "simulation": "Simulation", "nothing": "Nothing"}
KINDS = {"choice": "Answers to choose from", "point": "A point of the picture"}
SWITCHES = {
    "leading": ("The class follows this page", "Students' tabs take every page that you go to, until they detach."),
    "ensemble": ("A replicate for each tab", "Each tab that follows runs a replicate of its own of the room's seed."),
    "controls": ("Students have controls", "Without them a tab that follows shows no parameters and presets."),
}
assert set(HIDES) == set(get_args(Hidden))


def lead(part: Part, room: Room, lab_id: str, pages: Mapping[str, Any], room_page: Any) -> None:
    """The teacher's controls; on a lab's page those of questions too."""
    with st.container(horizontal=True, vertical_alignment="center", key="lead"):
        if lab_id:
            _questions(part, room, lab_id)
        with st.popover("The class sees", icon=":material/groups:", key="switches"):
            for name, (words, help_text) in SWITCHES.items():
                _switch(part, room, name, words, help_text)
        if lab_id:
            st.page_link(room_page, label="Panel", icon=":material/space_dashboard:")
        elif room.lab in pages:
            st.page_link(pages[room.lab], label=f"To {get_lab(room.lab).title}", icon=":material/arrow_back:")


def _switch(part: Part, room: Room, name: str, words: str, help_text: str) -> None:
    widget = f"lead/{name}"
    st.session_state[widget] = getattr(room, name)
    st.toggle(
        words,
        key=widget,
        help=help_text,
        on_change=lambda: house().set(part.code, **{name: st.session_state[widget]}),
    )


def _questions(part: Part, room: Room, lab_id: str) -> None:
    asked = room.question
    if asked is not None and not asked.revealed:
        st.button("Reveal", type="primary", icon=":material/visibility:", on_click=lambda: house().reveal(part.code))
    if asked is not None:
        st.button("Put the question away", icon=":material/close:", on_click=lambda: house().put_away(part.code))
        return
    with st.popover("Ask the class", icon=":material/quiz:", key="ask"):
        offered = [question for one in activities().get(lab_id, ()) for question in one.questions if question.question]
        if not offered:
            _own(part, lab_id)
            return
        prepared, own = st.tabs(["Of the activities", "Your own"])
        with prepared:
            _prepared(part, lab_id, offered)
        with own:
            _own(part, lab_id)


def _prepared(part: Part, lab_id: str, offered: Sequence[Choices]) -> None:
    """A question of an activity, with its answers to choose from."""
    st.selectbox(
        "A question of the activities", offered, format_func=lambda one: _short(one.question), key="ask/prepared"
    )
    _hide("ask/prepared-hides")

    def ask() -> None:
        chosen = st.session_state["ask/prepared"]
        choices = tuple(_short(answer, LONGEST_CHOICE) for answer in chosen.answers[:MOST_CHOICES])
        hides = st.session_state["ask/prepared-hides"]
        _ask(part, Question(_short(chosen.question, LONGEST_QUESTION), lab_id, "choice", choices, chosen.right, hides))

    st.button("Ask this", key="ask/this", icon=":material/send:", type="primary", on_click=ask)


def _own(part: Part, lab_id: str) -> None:
    """A question of the teacher's own."""
    lab = get_lab(lab_id)
    st.text_input("Your own question", key="ask/text", max_chars=LONGEST_QUESTION)
    st.segmented_control(
        "They answer with", list(KINDS), format_func=KINDS.__getitem__, default="choice", required=True, key="ask/kind"
    )
    if st.session_state["ask/kind"] == "choice":
        st.text_area(
            "Answers, one a line; an asterisk before the right one",
            key="ask/choices",
            placeholder="it rises\n* it falls",
        )
    words, widget = (
        {"": "the lab's own", **{name: one.label for name, one in lab.series.items()}},
        f"ask/metric/{lab_id}",
    )
    st.selectbox("The picture", list(words), format_func=words.__getitem__, key=widget)
    _hide("ask/hides")

    def ask() -> None:
        """What the widgets hold at the press: what was typed last comes with it."""
        given = {name: st.session_state[f"ask/{name}"] for name in ("text", "kind", "hides")}
        lines = st.session_state.get("ask/choices", "") if given["kind"] == "choice" else ""
        answers = [line.strip() for line in lines.splitlines() if line.strip()]
        right = [number for number, line in enumerate(answers) if line.startswith("*")]
        choices = tuple(line.removeprefix("*").strip() for line in answers)
        only = right[0] if len(right) == 1 else None
        metric = st.session_state[widget]
        _ask(part, Question(given["text"].strip(), lab_id, given["kind"], choices, only, given["hides"], metric))

    st.button("Ask", key="ask/own", icon=":material/send:", type="primary", on_click=ask)


def _hide(key: str) -> None:
    st.segmented_control(
        "Hide until the reveal", list(HIDES), format_func=HIDES.__getitem__, default="both", required=True, key=key
    )


def _ask(part: Part, question: Question) -> None:
    try:
        house().ask(part.code, question)
    except BadInput as refusal:
        st.toast(escape(str(refusal)), icon=":material/error:")


def _short(text: str, most: int = 100) -> str:
    plain = " ".join(text.replace("**", "").split())
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"
