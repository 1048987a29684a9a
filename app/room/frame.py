"""What stands around every page: the room's bar, the activity beside the lab, and the teacher's page to follow.

A tab in a room asks every two seconds what is new, in one fragment; a tab in no room asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from sims.engine import BadInput, Lab, Params, get_lab

from ..frame import look
from ..frame.page import fold
from ..frame.runs import View
from ..frame.state import TAB_KEYS, decode, encode
from ..frame.words import escape
from . import ensemble, guide, me, question
from .lead import lead
from .me import Part, house
from .store import NoRoom, Room

POLL_SECONDS = 2.0
Pages = Mapping[str, Any]  # the pages of the labs by id


def run(page: Any, pages: Pages, room_page: Any) -> None:
    """The page that was chosen, with what stands around it; `room_page` is the room's own."""
    lab_id = page.url_path if page.url_path in pages else ""
    if look.embedded():
        page.run()
        return
    found = me.mine()
    part, room = found if found is not None else (None, None)
    followed = part is not None and room is not None and _follow(part, room, lab_id, pages)
    for notice in me.told():
        st.warning(escape(notice), icon=":material/meeting_room:")
    hidden = room is not None and question.hides(room.question, lab_id)
    kept_from = room is not None and part is not None and not part.leads and not (room.controls or me.is_detached())
    st.session_state["hiding"] = hidden
    st.session_state["bare"] = hidden or kept_from or (part is not None and part.role == "screen")
    if part is not None and room is not None:
        _bar(part, room, lab_id, pages, room_page)
    try:
        _body(page, get_lab(lab_id) if lab_id else None, part, room)
    finally:
        if part is not None and room is not None:
            _after(part, room, lab_id, followed)


def asked_instead(view: View) -> bool:
    """While the class is asked about this lab, its page is the question's picture; says whether it is."""
    part: Part | None = st.session_state.get("room")
    if part is None or me.rooms() is None:
        return False
    try:
        asked = house().room(part.code).question
    except NoRoom:
        return False
    if asked is None or asked.lab != view.lab.id:
        return False
    if question.hides(asked, view.lab.id):
        question.drawn_instead(view, part, asked)
        return True
    if asked.kind == "point":
        question.points_outcome(view, asked, part.code)
    return False


def _body(page: Any, lab: Lab | None, part: Part | None, room: Room | None) -> None:
    """The page, with what is open beside it in a column of its own."""
    if lab is None or (part is not None and part.role == "screen"):
        page.run()
        return
    suggested = room.activity if room is not None and part is not None and not part.leads else ""
    activity = guide.chooser(lab, suggested)
    if activity is None:
        page.run()
    else:
        beside, main = st.columns([2, 5], gap="medium")
        with beside, st.container(key="guide"):
            guide.beside(lab, activity, room.step if room is not None and room.activity == activity.id else 0)
        with main:
            page.run()
    if part is None:
        _pool(lab)


def _pool(lab: Lab) -> None:
    """Outside of a room: all that is stored of the family of the run in focus."""
    state = st.session_state.get(f"state/{lab.id}")
    if state is None or look.bare():
        return
    fold("ensemble", "Everyone's ensemble", lambda: _stored(lab, state.focus))


def _stored(lab: Lab, params: Params) -> None:
    st.caption("All stored replicates of the run in focus, whoever computed them, as one.")
    st.markdown(ensemble.count_words(lab, params))
    ensemble.show(lab, params, x=_axis(lab), present=look.presenting())


def _axis(lab: Lab) -> str:
    story = ensemble.lab_module(lab.id).STORY  # type: ignore[attr-defined]
    asked = st.query_params.get("axis")
    return asked if asked in ("step", "log_step", *story.x_axes) else str(story.x)


# -- follow me ---------------------------------------------------------------------------------------------------------


def own_address() -> dict[str, list[str]]:
    """The part of the address that holds the state of the page, without this tab's own affairs."""
    return {name: st.query_params.get_all(name) for name in st.query_params if name not in TAB_KEYS}


def _follow(part: Part, room: Room, lab_id: str, pages: Pages) -> bool:
    """Take the teacher's page where it is new; says whether it was."""
    wanted = st.session_state.pop("room/take", False)
    if part.leads or room.lab not in pages or (me.is_detached() and not wanted):
        return False
    known = (st.session_state.get("room/shown"), st.session_state.get("room/ensemble")) == (room.shown, room.ensemble)
    # A request of this tab may have overtaken the change of pages, and have brought it back to the page before.
    arrived = st.session_state.get("room/arriving") is None or lab_id == room.lab
    if known and arrived and not wanted:
        return False
    st.session_state["room/shown"], st.session_state["room/ensemble"] = room.shown, room.ensemble
    tab = {name: st.query_params.get_all(name) for name in st.query_params if name in TAB_KEYS}
    address = {**tab, **address_for(part, room)}
    for kept in (f"state/{room.lab}", f"address/{room.lab}"):
        st.session_state.pop(kept, None)
    if lab_id != room.lab:
        st.session_state["room/arriving"] = room.lab
        st.switch_page(pages[room.lab], query_params=address)
    st.query_params.from_dict(address)
    return True


def address_for(part: Part, room: Room) -> dict[str, list[str]]:
    """The teacher's page as this tab shows it: with an ensemble, a student's is its own replicate."""
    query = {name: list(values) for name, values in (room.query or {}).items()}
    if part.role != "student" or not room.ensemble:
        return query
    lab = get_lab(room.lab)
    state, _ = decode(lab, query)
    try:
        own = state.with_focus(ensemble.of_seat(state.focus, room.seed, part.number))
    except BadInput:
        return query  # a run that cannot have one replicate of that seed
    options = {name: values for name, values in query.items() if name not in encode(lab, state)}
    return {**options, **encode(lab, own)}


def _after(part: Part, room: Room, lab_id: str, followed: bool) -> None:
    """After the page has brought its address in order: the class is shown the teacher's page, and a tab that has gone
    elsewhere is detached."""
    if part.leads:
        if lab_id:
            _show_class(part, lab_id)
        return
    place = (lab_id, own_address() if lab_id else {})
    arriving = st.session_state.get("room/arriving")
    if arriving == lab_id:
        del st.session_state["room/arriving"]
    if followed or arriving is not None or "room/placed" not in st.session_state:
        st.session_state["room/placed"] = place
    elif st.session_state["room/placed"] != place and room.lab and not me.is_detached():
        me.detach()
        me.take(part)
    activity = guide.opened(get_lab(lab_id)) if lab_id else None
    step = 0 if activity is None else guide.step_of(activity)
    if part.role == "student" and st.session_state.get("room/step", 0) != step:
        st.session_state["room/step"] = step
        house().reach(part.code, part.token, step)


def _show_class(part: Part, lab_id: str) -> None:
    """Show the class the teacher's page, while the teacher leads; and what is open beside it."""
    try:
        if house().room(part.code).leading:
            house().show(part.code, lab_id, own_address())
        activity = guide.opened(get_lab(lab_id))
        step = guide.step_of(activity) if activity is not None else 0
        house().set(part.code, activity="" if activity is None else activity.id, step=step)
    except NoRoom:
        return  # it has just ended; the next run says so
    except BadInput as refusal:
        me.tell(str(refusal))


# -- the bar -----------------------------------------------------------------------------------------------------------


def _bar(part: Part, room: Room, lab_id: str, pages: Pages, room_page: Any) -> None:
    """The room's own part of the page, which asks what is new."""
    drawn = _signature(room, part)
    with st.container(border=True, key="room"):
        if part.leads:
            lead(part, room, lab_id, pages, room_page)

        @st.fragment(run_every=POLL_SECONDS)
        def live() -> None:
            try:
                now = house().room(part.code)
            except NoRoom:
                st.rerun()
            if part.role == "student":
                house().seen(part.code, part.token)
            pressed = st.session_state.get("room") != part or "room/take" in st.session_state
            if pressed or _signature(now, part) != drawn:
                st.rerun()
            _told(part, now)

        live()


def _signature(room: Room, part: Part) -> tuple[Any, ...]:
    """What a tab draws outside of its bar: where it changes, the page is drawn again."""
    shown = () if part.leads or me.is_detached() else (room.shown, room.ensemble, room.activity)
    return (room.question, room.controls, *shown)


def _told(part: Part, room: Room) -> None:
    """What is written in the bar and stays up to date."""
    _status(part, room)
    asked = room.question
    if asked is not None:
        st.markdown(f"**{escape(asked.text)}**")
        if asked.revealed:
            question.outcome(room, part, asked)
        elif part.role == "student":
            question.answer(part, asked)
        elif asked.kind == "choice":
            st.markdown("\n".join(f"- {escape(choice)}" for choice in asked.choices))
        if not asked.revealed:
            guesses, here = len(house().guesses(room.code, asked.number)), house().here(room.code)
            of = f" of {here}" if guesses <= here else ""  # who has guessed may have left
            st.caption(f"{guesses}{of} have guessed.")
    taken = part.role == "screen" and asked is not None and asked.lab == room.lab  # the question has the screen
    if room.ensemble and room.lab and not (taken or question.hides(asked, room.lab)):
        _ensemble(part, room)


def _status(part: Part, room: Room) -> None:
    words = [f"**Room {room.code}**", f"{house().here(room.code)} here"]
    if part.role == "student" and room.ensemble:
        words.append(f"your replicate: {part.number}")
    with st.container(horizontal=True, vertical_alignment="center", key="status"):
        st.markdown(" · ".join(words), width="content")
        if part.role == "teacher":
            return
        if me.is_detached():
            st.markdown(":orange-badge[on your own page]", width="content")
            _button("Take the teacher's page", ":material/download:", _take_once)
            _button("Follow", ":material/sync:", lambda: me.detach(False))
        else:
            st.markdown(":green-badge[following the teacher]" if room.lab else ":gray-badge[waiting]", width="content")
            if part.role == "student" and room.lab:
                _button("Detach", ":material/sync_disabled:", me.detach)
        if part.role == "student":
            _button("Leave", ":material/logout:", me.leave)


def _take_once() -> None:
    st.session_state["room/take"] = True


def _button(words: str, icon: str, act: Any) -> None:
    """A button whose press concerns the whole page; it counts also where something else has changed meanwhile."""
    st.button(words, icon=icon, key=f"room/{words}", type="tertiary", on_click=act)


def _ensemble(part: Part, room: Room) -> None:
    lab = get_lab(room.lab)
    state, _ = decode(lab, room.query or {})
    try:
        params = ensemble.of_room(state.focus, room.seed)
    except BadInput:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="everyone"):
        wanted = st.toggle("Everyone's ensemble", value=part.role == "screen", key="room/band")
        st.markdown(ensemble.count_words(lab, params, room.seats), width="content")
    if wanted:
        ensemble.show(lab, params, x=_axis(lab), present=look.presenting())
