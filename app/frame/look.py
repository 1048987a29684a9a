"""How a page looks: the projector's large type, chosen by a visible control or by the address."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import streamlit as st

# In the address itself: a file would be read, and kept among the pages' media, each time that a page is drawn.
ICON = "data:image/png;base64," + b64encode((Path(__file__).parents[1] / "icon.png").read_bytes()).decode()

_PROJECTOR = """
<style>
html { font-size: 125%; }
section[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"] { display: none; }
.block-container { max-width: 100%; padding: 4.2rem 2rem 2rem; }
.stMain [data-testid="stVerticalBlock"] { gap: 0.6rem; }
.st-key-stage { gap: 0.75rem; }
h1 { font-size: 1.6rem !important; padding-block: 0 !important; }
</style>
"""
# On a phone each verdict becomes a block of its own: the words in full width, the numbers below them.
_ALWAYS = """
<style>
[data-testid="stCode"] .token.parameter { color: inherit !important; } /* too pale on white */
.linked-field { outline: 2px solid currentColor; outline-offset: 4px; border-radius: 0.25rem; }
[data-testid="stCode"] > pre + div, [data-testid="stCode"] > pre + div * {
  opacity: 1; transform: none; visibility: visible;
}
:has(> .st-key-pictures-head) { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.8; }
.stMain h2 { font-size: 1.35rem; padding-block: 0.4rem; }
.card-placeholder {
  aspect-ratio: 36 / 17; display: grid; place-items: center; font-size: 0.875rem;
  border: 1px dashed currentColor; border-radius: 0.25rem; opacity: 0.75;
}
.st-key-room { margin-top: 1.25rem; }
:is(.st-key-status, .st-key-everyone, .st-key-lead) { gap: 0.25rem 1rem; }
.st-key-room [data-testid="stProgress"] p { font-size: 1rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.numbers span { display: block; font-size: 0.875rem; opacity: 0.8; }
[data-testid="stTable"] table { font-variant-numeric: tabular-nums; }
.st-key-verdicts td:nth-of-type(1) { width: 60%; }
.st-key-verdicts td:nth-of-type(1) > div { max-width: none; }
[class*="st-key-ledger"] td:nth-of-type(1) { min-width: 22rem; }
@media (max-width: 640px) {
  [class*="st-key-ledger"] thead { display: none; }
  [class*="st-key-ledger"] tr { display: grid; grid-template-columns: repeat(3, 1fr); padding-block: 0.4rem; }
  [class*="st-key-ledger"] :is(th, td) { border: none !important; padding: 0.2rem 0; min-width: 0 !important; }
  [class*="st-key-ledger"] :is(th, td:nth-of-type(1), td:nth-of-type(2), td:nth-of-type(6)) { grid-column: 1 / -1; }
  [class*="st-key-ledger"] td:nth-of-type(n + 3)::before { display: block; font-size: 0.75rem; opacity: 0.8; }
  [class*="st-key-ledger"] td:nth-of-type(3)::before { content: "predicted"; }
  [class*="st-key-ledger"] td:nth-of-type(4)::before { content: "measured"; }
  [class*="st-key-ledger"] td:nth-of-type(5)::before { content: "tolerance"; }
  .st-key-verdicts thead { display: none; }
  .st-key-verdicts tr { display: grid; grid-template-columns: repeat(3, 1fr); padding-block: 0.4rem; }
  .st-key-verdicts :is(th, td) { border: none !important; padding: 0.2rem 0; }
  .st-key-verdicts :is(th, td:nth-of-type(1)) { grid-column: 1 / -1; width: auto; }
  .st-key-verdicts td:nth-of-type(n + 2)::before { display: block; font-size: 0.75rem; opacity: 0.7; }
  .st-key-verdicts td:nth-of-type(2)::before { content: "predicted"; }
  .st-key-verdicts td:nth-of-type(3)::before { content: "measured"; }
  .st-key-verdicts td:nth-of-type(4)::before { content: "tolerance"; }
}
</style>
"""
# The bar of the pages lies over the first 3.75rem.
_DESK = """
<style>
.block-container { padding-top: 4.25rem; }
h1 { padding-block: 0 0.5rem !important; }
@media (min-width: 641px) {
  .st-key-tour { flex-wrap: nowrap; }
}
</style>
"""
_EMBEDDED = """
<style>
header[data-testid="stHeader"], section[data-testid="stSidebar"] { display: none; }
.block-container { max-width: 100%; padding: 0.5rem 1rem 1rem; }
h1 { font-size: 1.5rem !important; padding-block: 0.25rem !important; }
</style>
"""
# On a phone the pages of the app are in the sidebar: it stays there.
_BARE = """
<style>
@media (min-width: 641px) {
  section[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"] { display: none; }
}
</style>
"""
# What is chosen is written in the primary colour, which a dark page needs lighter than a button's ground does.
_DARK = '<style>:is([data-selected="true"], [data-testid="stSliderThumbValue"]) p { color: #9ccbea; }</style>'


def presenting() -> bool:
    """Whether the page is shown on a projector (`?present=1`)."""
    return bool(st.session_state.get("present", st.query_params.get("present") == "1"))


def embedded() -> bool:
    """Whether the page is part of another one, a slide for example (`?embed=true`): then it shows pictures alone."""
    return bool(st.context.is_embedded)


def bare() -> bool:
    """Whether the page shows no controls (`?controls=off`, or as the teacher of a room has it)."""
    return st.query_params.get("controls") == "off" or bool(st.session_state.get("bare", False))


def hiding() -> bool:
    """Whether the page keeps something from a class that is to guess it."""
    return bool(st.session_state.get("hiding", False))


def apply() -> None:
    """The page's own style; with `present`, the projector's."""
    if "present" not in st.session_state:
        st.session_state["present"] = st.query_params.get("present") == "1"
    style = _ALWAYS + (_PROJECTOR if presenting() else _DESK) + (_EMBEDDED if embedded() else "")
    style += _BARE if bare() else ""
    st.html(style + (_DARK if st.context.theme.type == "dark" else ""))


def control() -> None:
    """The visible control of the projector mode: the way in, or in it the way out."""
    words, icon, turn = (
        ("Leave projector mode", ":material/fullscreen_exit:", _leave)
        if presenting()
        else ("Projector mode", ":material/present_to_all:", _enter)
    )
    st.button(words, key="projector", icon=icon, on_click=turn, shortcut="P")


def _enter() -> None:
    st.session_state["present"] = True
    st.query_params["present"] = "1"


def _leave() -> None:
    st.session_state["present"] = False
    if "present" in st.query_params:
        del st.query_params["present"]
