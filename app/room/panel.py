"""The room's page: open a room or join one; for its teacher the panel, with the way in for the class."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import streamlit as st

from sims.engine import BadInput, get_lab
from sims.engine.budget import available_memory, describe_bytes, describe_seconds
from sims.engine.provenance import cores

from ..frame import look
from ..frame.activities import activities, teachers
from ..frame.runs import server_jobs
from ..frame.share import qr_code
from ..frame.sweep_jobs import server_sweeps
from ..frame.words import escape
from ..house import present_house
from . import me
from .me import Part, house
from .store import CODE_LENGTH, NoRoom, Room, tidy_code

LOCAL = ("127.0.0.1", "localhost", "::1")


def room_page(pages: Mapping[str, Any], url_path: str) -> None:
    """The page of the room; `pages` are those of the labs by id, `url_path` its own place below the app's address."""
    look.apply()
    found = me.mine()
    if found is None:
        st.title("A room for your class")
        _trouble()
        _open_or_join()
        return
    part, room = found
    st.title(f"Room {room.code}", anchor=False)
    if part.role == "screen":
        st.markdown("Scan this, or type the address. As soon as the teacher opens a lab, it is shown here.")
        _way_in(room, base_url(url_path), width=420)
        return
    if not part.leads:
        st.markdown("You are in. As soon as the teacher opens a lab, it is shown here.")
        return
    _trouble()
    for problem in teachers()[1]:
        st.warning(escape(problem))
    left, right = st.columns([2, 3], gap="large")
    with left:
        _way_in(room, base_url(url_path))
        _warn_of_a_local_address(base_url(url_path))
    with right:
        _start(room, pages)
        _live(part)
    _links(part, room, base_url(url_path), pages)


def base_url(url_path: str) -> str:
    """The app's address as this browser has it, without the page's own part."""
    url = urlsplit(st.context.url or "")
    path = url.path.rstrip("/").removesuffix(f"/{url_path}")
    return f"{url.scheme}://{url.netloc}{path}" if url.netloc else ""


# -- the way in --------------------------------------------------------------------------------------------------------


def _open_or_join() -> None:
    st.markdown(
        "A teacher opens a room; students join it with its code, without a login. Their tabs follow the teacher's page "
        "and may leave it at any time. The class predicts before it observes, and builds one ensemble together."
    )
    join, start = st.columns(2, gap="large")
    with join, st.container(border=True):
        st.header("Join", anchor=False)
        code = st.text_input("The room's code", key="room/code", max_chars=12, placeholder="four letters")
        if st.button("Join", type="primary", icon=":material/login:") or (
            code and st.session_state.get("room/typed") != code
        ):
            st.session_state["room/typed"] = code
            _join(code)
    with start, st.container(border=True):
        st.header("Open", anchor=False)
        st.markdown("For the teacher. The room ends 12 hours later, and nothing of it is kept.")
        if st.button("Open a room", icon=":material/add_home:"):
            try:
                room, key = house().open()
            except BadInput as refusal:
                st.error(escape(str(refusal)))
                return
            me.leave()
            me.take(Part(room.code, "teacher", key=key))
            st.rerun()


def _join(code: str) -> None:
    tidy = tidy_code(code)
    if len(tidy) < CODE_LENGTH:
        st.error(f"A code has {CODE_LENGTH} letters.")
        return
    try:
        seat = house().join(tidy)
    except BadInput as refusal:
        st.error(escape(str(refusal)))
        return
    me.leave()
    me.take(Part(tidy, "student", seat.token, seat.number))
    st.rerun()


def _way_in(room: Room, base: str, width: int = 280) -> None:
    """The code, and the address in the form in which this browser reached the server, to type and to scan."""
    link = join_link(base, room.code)
    code = qr_code(link)
    if code is not None:
        st.image(code, width=width, alt=f"The way into room {room.code} as a QR code")
    st.code(link, language=None, wrap_lines=True)


def _warn_of_a_local_address(base: str) -> None:
    if urlsplit(base).hostname in LOCAL:
        st.warning(
            "Only this machine can open this address. Serve with `make run HOST=0.0.0.0`, and open the panel under "
            "the address that is printed for the network."
        )


def join_link(base: str, code: str) -> str:
    """Where a student comes in."""
    return f"{base}/room?{urlencode({'room': code})}"


def _links(part: Part, room: Room, base: str, pages: Mapping[str, Any]) -> None:
    with st.expander("The class's screen, your own link, and the end"):
        st.markdown(
            "**The class's screen** follows your page in projector mode and has no controls: open it on the machine "
            "at the projector, or in a second window."
        )
        screen = f"{base}/room?{urlencode({'room': room.code, 'screen': '1', 'present': '1'})}"
        st.code(screen, language=None, wrap_lines=True)
        st.markdown(
            "**Your own link** holds the key of the room: with it you come back, from any machine. The address of this "
            "tab holds it, too, so show the class the screen rather than this tab."
        )
        mine = f"{base}/room?{urlencode({'room': room.code, 'teach': part.key})}"
        st.code(mine, language=None, wrap_lines=True)
        st.button("End the room", icon=":material/delete:", on_click=lambda: _end(part))


def _end(part: Part) -> None:
    house().end(part.code)
    me.leave()


def _start(room: Room, pages: Mapping[str, Any]) -> None:
    if room.lab in pages:
        st.page_link(pages[room.lab], label=f"Back to {get_lab(room.lab).title}", icon=":material/arrow_forward:")
        return
    st.markdown("Open a lab: the class comes with you.")
    with st.container(horizontal=True):
        for lab_id, page in pages.items():
            st.page_link(page, label=get_lab(lab_id).title, icon=":material/arrow_forward:")


def _trouble() -> None:
    if house().trouble:
        st.warning(escape(house().trouble), icon=":material/database_off:")


# -- the panel ---------------------------------------------------------------------------------------------------------


def _live(part: Part) -> None:
    """What is up to date by itself: the class, its way through the activity, the server."""

    @st.fragment(run_every=2.0)
    def live() -> None:
        try:
            room = house().room(part.code)
        except NoRoom:
            st.rerun()
        st.header("The class", anchor=False)
        _numbers(
            {
                "here": house().here(room.code),
                "places given": room.seats,
                "seed": room.seed,
                "ends in": describe_seconds(max(0.0, room.ends - time.time())),
            }
        )
        _progress(room)
        st.header("The server", anchor=False)
        _numbers(server_numbers())

    live()


def _numbers(values: Mapping[str, object]) -> None:
    st.html(
        '<div class="numbers">'
        + "".join(
            f"<div><span>{html.escape(words)}</span>{html.escape(str(value))}</div>" for words, value in values.items()
        )
        + "</div>"
    )


def server_numbers() -> dict[str, object]:
    """Tabs, the queue, cores and memory."""
    running, waiting = _queue()
    found: dict[str, object] = {}
    server = present_house()
    if server is not None:
        found["tabs"] = f"{server.sessions} of {server.limit}"
    found["runs computing"] = running
    found["runs waiting"] = waiting
    found["sweeps"] = server_sweeps().length()
    found["cores"] = cores()
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.1f}"
    found["memory free"] = describe_bytes(available_memory() / 0.8)
    return found


def _queue() -> tuple[int, int]:
    lines = server_jobs().lines().values()
    return sum(line[0] for line in lines), sum(line[1] for line in lines)


def _progress(room: Room) -> None:
    """How many tabs are at each step of the activity that the teacher has open."""
    offered = {one.id: one for one in activities().get(room.lab, ())}
    activity = offered.get(room.activity)
    if activity is None or activity.kind == "sheet":
        return
    counts = house().steps(room.code)
    total = max(1, sum(counts.values()))
    st.caption(f"Where they are in “{escape(activity.title)}”")
    for number, step in enumerate(activity.steps, 1):
        here = " · you" if number == room.step else ""
        words = escape(step.title or "Introduction")
        st.progress(counts[number] / total, text=f"{words}: {counts[number]} of {sum(counts.values())}{here}")
