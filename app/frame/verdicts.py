"""Verdicts on a page: each claim about the run in focus, what was predicted, what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pandas as pd
import pyarrow as pa
import streamlit as st

from sims.engine import Verdict

from .words import escape

MARKS = {"holds": "✓ holds", "fails": "✗ fails", "outside": "○ outside", "undecided": "? undecided"}
_COLOURS = {"holds": "green", "fails": "red", "outside": "orange", "undecided": "gray"}
BADGES = {verdict: f":{_COLOURS[verdict]}-badge[{mark}]" for verdict, mark in MARKS.items()}
MEANING = (
    "**holds**: measured and predicted agree within the tolerance. **fails**: they do not. **outside**: an "
    "assumption of the theorem is broken here, so that it promises nothing. **undecided**: too few replicates "
    "to tell, or not judged yet."
)


def verdict_table(verdicts: Sequence[Verdict]) -> None:
    """A table of verdicts, failing and outside ones as visible as the others."""
    if not verdicts:
        st.info("No claim speaks of this kind of run.")
        return
    with st.container(key="verdicts"):
        st.table(_rows(tuple(verdicts)), border="horizontal", hide_index=False)
    st.caption(MEANING)


@lru_cache(maxsize=256)  # of many tabs that look at one run
def _rows(verdicts: tuple[Verdict, ...]) -> pa.Table:
    """As Arrow has it, which is what a browser is sent."""
    rows = [
        {
            "verdict": BADGES[verdict.verdict],
            "claim": f"{escape(verdict.statement)}  \n:small[:gray[{escape(f'{verdict.reason} {verdict.source}.')}]]",
            "predicted": number(verdict.predicted),
            "measured": number(verdict.measured) + (f" ± {verdict.error:.2g}" if verdict.error else ""),
            "tolerance": number(verdict.tolerance),
        }
        for verdict in verdicts
    ]
    return pa.Table.from_pandas(pd.DataFrame(rows).set_index("verdict"), nthreads=1)


def number(value: float | None) -> str:
    """Four digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"
