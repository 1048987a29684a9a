"""Filters of a page that its address holds, so that a link shows what its sender saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from sims.engine.errors import shorten

from .words import escape

LONGEST = 200  # signs of a search
Known = Mapping[str, Sequence[str] | None]  # the values that each filter has, None for words that are typed


def restore(page: str, known: Known) -> None:
    """Set the filters (widgets `page/name`) from the address, once it is opened; what they do not have is named."""
    query = {name: st.query_params.get_all(name) for name in st.query_params if name in known}
    if not query or query == st.session_state.get(f"{page}/address"):
        return
    for name, values in query.items():
        options = known[name]
        if options is None:
            st.session_state[f"{page}/{name}"] = values[-1][:LONGEST]
            continue
        st.session_state[f"{page}/{name}"] = [value for value in dict.fromkeys(values) if value in options]
        for value in dict.fromkeys(values):
            if value not in options:
                words = f"The link filters by the {name} {shorten(value)}, which there is not; there are "
                st.warning(escape(f"{words}{', '.join(options)}. It was ignored."), icon=":material/link_off:")


def follow(page: str, known: Known) -> None:
    """Let the address follow the filters."""
    link: dict[str, list[str]] = {}
    for name, options in known.items():
        value = st.session_state.get(f"{page}/{name}")
        if value:
            link[name] = [value] if options is None else list(value)
    others = {name: st.query_params.get_all(name) for name in st.query_params if name not in known}
    if {name: st.query_params.get_all(name) for name in st.query_params} != {**others, **link}:
        st.query_params.from_dict({**others, **link})
    st.session_state[f"{page}/address"] = link
