"""This tab's runs: to open again, name, draw beside others and take away."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from sims.engine import BadInput, get_lab
from sims.engine.describe import caption
from sims.engine.export import export

from .frame import look
from .frame.page import held, hold
from .frame.seen import Seen, archive, at_hand, rename, seen
from .frame.thumbnail import WIDTH
from .frame.words import escape

ROWS = 12  # of a page


def runs_page(pages: Mapping[str, object]) -> None:
    """A box for each run that this tab has shown; `pages` are those of the labs by id."""
    look.apply()
    st.title("This tab's runs")
    if look.presenting():
        look.control()
    runs = seen()
    if not runs:
        st.info("No run yet: open a lab. Whatever its page draws in this tab is listed here.")
        return
    st.markdown("What the pages of this tab have drawn, the latest first. The list goes when the tab is closed.")
    count = -(-len(runs) // ROWS)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.download_button(
            f"Take all {len(runs)} away" if len(runs) > 1 else "Take it away",
            lambda: archive(runs),
            "chalkline-runs.zip",
            "application/zip",
            key="runs/all",
            on_click="ignore",
            icon=":material/folder_zip:",
        )
        page = int(st.number_input("Page", 1, count, key="runs/page")) if count > 1 else 1
    for one in runs[(page - 1) * ROWS : page * ROWS]:
        with st.container(border=True, key=f"run-{one.key[:16]}"):
            _row(one, pages[one.lab])


def _row(one: Seen, page: object) -> None:
    lab = get_lab(one.lab)
    st.header(escape(one.title), anchor=False)
    if one.picture:
        st.image(one.picture, width=WIDTH, alt=f"{one.title}: its course in small")
    made = f"computed in {one.wall_s:.2g} s" if one.computed else "stored before"
    st.markdown(escape(caption(lab, one.params)))
    replicates = "1 replicate" if one.params.replicates == 1 else f"{one.params.replicates} replicates"
    st.caption(f"Key `{one.key[:16]}`, trace `{one.trace_sha256[:16]}`, {replicates}, {made}.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = f"runs/name/{one.key}"
        st.text_input(
            f"Name of the run {one.key[:8]}",
            value=one.name,
            key=name,
            max_chars=60,
            placeholder=one.label,
            on_change=lambda: rename(one.key, st.session_state[name]),
        )
        if st.button("Open", key=f"runs/open/{one.key}", icon=":material/open_in_browser:"):
            hold(lab, one.state)
            st.switch_page(page)
        words = "Draw this run beside the one that the lab's page shows"
        if st.button("Draw beside", key=f"runs/beside/{one.key}", icon=":material/push_pin:", help=words):
            try:
                hold(lab, held(lab).pin(one.title, one.params))
            except BadInput as error:
                st.toast(str(error), icon=":material/error:")
            else:
                st.switch_page(page)
        for format, mime in (("json", "application/json"), ("csv", "text/csv")):
            st.download_button(
                format.upper(),
                lambda format=format: _file(one, format),
                f"{one.lab}-{one.key[:12]}.{format}",
                mime,
                key=f"runs/{format}/{one.key}",
                on_click="ignore",
                icon=":material/download:",
            )


def _file(one: Seen, format: str) -> bytes:
    stored = at_hand(one)
    if stored is None:
        sentence = f"The run {one.key} is neither in memory nor stored any more: open it, and it is computed again.\n"
        return sentence.encode()
    return export(stored, format)
