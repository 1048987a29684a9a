"""The home page: every lab with its sentence, its paper and its verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import streamlit as st

from sims import all_labs
from sims.engine import ledger

from .frame import look
from .frame.verdicts import MARKS


def home(pages: Mapping[str, object]) -> None:
    """A box for each lab."""
    look.apply()
    st.title("Chalkline")
    st.markdown(
        "Theorems of deep learning, seen. Each lab is one paper's toy model: the **chalk line** is its closed-form "
        "prediction, the solid line is training, and every claim of the theory gets a verdict."
    )
    columns = st.columns(2)
    for index, lab in enumerate(all_labs()):
        with columns[index % 2].container(border=True):
            st.subheader(lab.title)
            st.markdown(lab.sentence)
            st.caption(f"{lab.paper.authors} ({lab.paper.venue} {lab.paper.year}) · {lab.theme}")
            verdicts = Counter(row["verdict"] for row in ledger.read() if row["lab"] == lab.id)
            st.caption(
                f"{len(lab.presets)} presets, {len(lab.claims)} claims. "
                + ", ".join(f"{MARKS[v]} {n}" for v, n in verdicts.items())
            )
            st.page_link(pages[lab.id], label=f"Open {lab.title}", icon=":material/arrow_forward:")
