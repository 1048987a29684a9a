"""How a page looks: the projector's large type, chosen by a visible control or by the address."""

from __future__ import annotations

import streamlit as st

_PROJECTOR = """
<style>
html { font-size: 125%; }
section[data-testid="stSidebar"] { display: none; }
.block-container { max-width: 100%; padding-top: 2rem; }
</style>
"""
_ALWAYS = """
<style>
.block-container { padding-top: 3rem; }
[data-testid="stTable"] table { font-variant-numeric: tabular-nums; }
</style>
"""


def presenting() -> bool:
    """Whether the page is shown on a projector (`?present=1`)."""
    return bool(st.session_state.get("present", st.query_params.get("present") == "1"))


def apply() -> None:
    """The page's own style; with `present`, the projector's."""
    if "present" not in st.session_state:
        st.session_state["present"] = st.query_params.get("present") == "1"
    st.html(_PROJECTOR if presenting() else _ALWAYS)
    if presenting():
        st.button(
            "Leave projector mode",
            key="leave",
            icon=":material/fullscreen_exit:",
            on_click=_leave,
            shortcut="Escape",
        )


def controls() -> None:
    """The visible control of the projector mode."""
    st.button(
        "Projector mode",
        key="enter",
        icon=":material/present_to_all:",
        on_click=_enter,
        width="stretch",
        shortcut="P",
    )


def _enter() -> None:
    st.session_state["present"] = True
    st.query_params["present"] = "1"


def _leave() -> None:
    st.session_state["present"] = False
    if "present" in st.query_params:
        del st.query_params["present"]
