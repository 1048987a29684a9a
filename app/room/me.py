"""This tab's part in a room: read from its address, kept in its session, and written back into its address.

?room=KXQZ&seat=1a2b3c4d5e            a student's tab, with the place that it was given
?room=KXQZ&seat=1a2b3c4d5e&detached=1 the same, on a page of its own
?room=KXQZ&screen=1                   the class's screen: it follows, and has no place
?room=KXQZ&teach=0123456789abcdef     the teacher's tab, with the key of the room
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

import streamlit as st

from sims.engine import BadInput
from sims.engine.store import Store

from ..frame.state import ROOM_KEYS
from .store import NoRoom, Room, Rooms, tidy_code

_FOLLOWING = ("room/placed", "room/shown", "room/ensemble", "room/arriving", "room/step")  # of a tab that follows
OFF = "Rooms are switched off on this server."


@dataclass(frozen=True)
class Part:
    """What a tab is in a room: a student with a seat, the teacher with the key, or the class's screen."""

    code: str
    role: Literal["student", "teacher", "screen"]
    token: str = ""
    number: int = 0
    key: str = ""

    @property
    def leads(self) -> bool:
        return self.role == "teacher"


@cache
def rooms() -> Rooms | None:
    """The rooms of this server; none where `CHALKLINE_ROOMS` is `off`."""
    if os.environ.get("CHALKLINE_ROOMS", "on") == "off":
        return None
    return Rooms(Store().path.with_name("rooms.sqlite"))


def house() -> Rooms:
    """The rooms, for who knows that there are any."""
    found = rooms()
    assert found is not None
    return found


def mine() -> tuple[Part, Room] | None:
    """This tab's part and its room now, where it takes part in one; the address follows."""
    asked = st.query_params.get("room")
    if rooms() is None:
        if asked is not None:
            tell(OFF)
            _clear_address()
        return None
    part: Part | None = st.session_state.get("room")
    if asked is not None and (part is None or part.code != tidy_code(asked)):
        part = _enter(tidy_code(asked))
    if part is None:
        return None
    try:
        room = house().room(part.code)
    except NoRoom as gone:
        leave()
        tell(str(gone))
        return None
    take(part)
    return part, room


def take(part: Part) -> None:
    """Take this part; the address says so."""
    st.session_state["room"] = part
    own = {"room": part.code, "seat": part.token, "teach": part.key}
    own |= {"screen": "1" if part.role == "screen" else "", "detached": "1" if is_detached() else ""}
    for name, value in own.items():
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
        elif not value and name in st.query_params:
            del st.query_params[name]


def leave() -> None:
    """Take no part any more. A seat's number is not given again."""
    for name in ("room", "room/detached", *_FOLLOWING):
        st.session_state.pop(name, None)
    _clear_address()


def is_detached() -> bool:
    """Whether this tab shows a page of its own, and not the teacher's."""
    return bool(st.session_state.get("room/detached", False))


def detach(detached: bool = True) -> None:
    """Leave the teacher's page, or follow it again."""
    st.session_state["room/detached"] = detached
    if not detached:
        st.session_state.pop("room/shown", None)


def tell(notice: str) -> None:
    """Have a sentence shown once, above the page."""
    notices = st.session_state.setdefault("room/notices", [])
    if notice not in notices:
        notices.append(notice)


def told() -> list[str]:
    """The sentences to show; each is told once."""
    return list(st.session_state.pop("room/notices", ()))


def _enter(code: str) -> Part | None:
    """The part that the address asks for."""
    leaving = {name: st.query_params.get(name, "") for name in ROOM_KEYS}
    for name in ("room", *_FOLLOWING):
        st.session_state.pop(name, None)
    st.session_state["room/detached"] = leaving["detached"] == "1"
    try:
        house().room(code)
        if leaving["teach"]:
            if house().is_led_by(code, leaving["teach"]):
                return Part(code, "teacher", key=leaving["teach"])
            tell("The key in this link is not the room's: this tab takes part as a student's.")
        if leaving["screen"] == "1":
            return Part(code, "screen")
        seat = house().seat(code, leaving["seat"]) or house().join(code)
        return Part(code, "student", seat.token, seat.number)
    except BadInput as refusal:
        tell(str(refusal))
        _clear_address()
        return None


def _clear_address() -> None:
    for name in ROOM_KEYS:
        if name in st.query_params:
            del st.query_params[name]
