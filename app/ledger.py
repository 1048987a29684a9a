"""The ledger page: every claim of every lab with its last verdict, whatever that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from sims import all_labs
from sims.engine import ChalklineError, ledger

from .frame import look
from .frame.verdicts import BADGES, MARKS, MEANING, number
from .frame.words import escape

ROWS = 50  # of a page of the table
STALE = "stale"


def ledger_page() -> None:
    """The claims of all labs, filtered, a page of rows at a time."""
    look.apply()
    st.title("The ledger")
    if look.presenting():
        look.control()
    st.markdown(
        "Every claim of every lab, with the verdict it had when it was last checked. Claims that fail, and runs in "
        "which an assumption is broken, belong to the labs as much as the others do: some are false on purpose."
    )
    rows = [row for lab in all_labs() for row in ledger.audit(lab)]
    _totals(rows)
    chosen = _chosen(rows)
    pages = max(1, -(-len(chosen) // ROWS))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.caption(f"{len(chosen):,} of {len(rows):,} rows")
        page = _page(pages)
    _table(chosen[(page - 1) * ROWS : page * ROWS])
    st.caption(MEANING + " **stale**: the row is older than what it speaks of; it waits to be judged again.")
    st.caption("`python -m sims ledger LAB` judges a lab's claims anew.")
    _confirmations()


def _confirmations() -> None:
    """The verdicts of the newest confirmations, by lab, scale and device."""
    try:
        rows = ledger.confirmed()
    except ChalklineError as error:
        st.warning(escape(str(error)), icon=":material/report:")
        return
    if not rows:
        return
    titles = {lab.id: lab.title for lab in all_labs()}
    st.header("Newest confirmations")
    st.markdown("The same theorems, asked of independent experiments: no shortcut and no random number of the labs.")
    shown = [
        {
            "verdict": BADGES[row["verdict"]],
            "claim": f"{escape(row['statement'])}  \n:small[{escape(row['reason'])}]",
            "lab and experiment": f"[{escape(titles.get(row['lab'], row['lab']))}]({row['lab']})  \n"
            f":small[{escape(row['experiment'])}]",
            "predicted": number(row["predicted"]),
            "measured": number(row["measured"]) + (f" ± {row['error']:.2g}" if row["error"] else ""),
            "tolerance": number(row["tolerance"]),
            "made": _made(row),
        }
        for row in rows
    ]
    with st.container(key="ledger-confirmed"):
        st.table(pd.DataFrame(shown).set_index("verdict"), border="horizontal", alt="Verdicts of the confirmations")
    st.caption("`python -m sims confirm LAB` asks again; the reports lie in `docs/confirmations`.")


def _totals(rows: Sequence[Mapping[str, Any]]) -> None:
    counts = Counter(row["verdict"] for row in rows)
    badges = [f"{BADGES[verdict]} {counts[verdict]:,}" for verdict in MARKS if counts[verdict]]
    old = sum(bool(row["stale"]) for row in rows)
    surprising = sum(row["verdict"] != row["expected"] for row in rows)
    badges += [f":gray-badge[stale] {old:,}"] if old else []
    badges += [f":red-badge[other than expected] {surprising:,}"] if surprising else []
    st.markdown("\u2003".join(badges))


def _chosen(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that the filters let through."""
    titles = {lab.id: lab.title for lab in all_labs()}
    first, second, third = st.columns([2, 3, 3])
    labs = first.multiselect("Lab", list(titles), format_func=titles.__getitem__, key="ledger/labs")
    kinds = [verdict for verdict in MARKS if any(row["verdict"] == verdict for row in rows)]
    kinds += [STALE] if any(row["stale"] for row in rows) else []
    verdicts = second.pills(
        "Verdict",
        kinds,
        selection_mode="multi",
        format_func=lambda kind: MARKS.get(kind, kind),
        key="ledger/verdicts",
    )
    words = third.text_input("Search", key="ledger/search", placeholder="words of a claim", icon=":material/search:")
    return [
        row
        for row in rows
        if (not labs or row["lab"] in labs)
        and (not verdicts or row["verdict"] in verdicts or (row["stale"] and STALE in verdicts))
        and all(word in _text(row).casefold() for word in words.casefold().split())
    ]


def _text(row: Mapping[str, Any]) -> str:
    return " ".join(str(row[name]) for name in ("lab", "preset", "id", "statement", "source", "reason", "device"))


def _page(pages: int) -> int:
    """The page of the table that is asked for: the last one where there are not so many any more."""
    held = min(int(st.session_state.get("ledger/page", 1)), pages)
    if pages == 1:
        return 1
    st.session_state["ledger/page"] = held
    return int(st.number_input("Page", 1, pages, key="ledger/page"))


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        st.info("No row of the ledger is of this kind.")
        return
    shown = [
        {
            "verdict": _verdict(row),
            "claim": f"{escape(row['statement'])}  \n:small[{escape(row['reason'])}]",
            "preset": _preset(row),
            "predicted": number(row["predicted"]),
            "measured": number(row["measured"]) + (f" ± {row['error']:.2g}" if row["error"] else ""),
            "tolerance": number(row["tolerance"]),
            "last checked": _checked(row),
        }
        for row in rows
    ]
    with st.container(key="ledger"):
        st.table(pd.DataFrame(shown).set_index("verdict"), border="horizontal", alt="Claims and their verdicts")


def _verdict(row: Mapping[str, Any]) -> str:
    marks = [BADGES[row["verdict"]]]
    if row["verdict"] != row["expected"]:
        marks.append(f":red-badge[{row['expected']} expected]")
    if row["stale"]:
        marks.append(":gray-badge[stale]")
    return "  \n".join(marks)


def _preset(row: Mapping[str, Any]) -> str:
    """The lab, and the preset with a link to its page, which opens beside this one."""
    lab = next(lab for lab in all_labs() if lab.id == row["lab"])
    title = {preset.id: preset.title for preset in lab.presets}.get(row["preset"])
    link = f"[{escape(title)}]({lab.id}?preset={row['preset']})" if title else escape(row["preset"])
    return f"{escape(lab.title)}  \n{link}"


def _checked(row: Mapping[str, Any]) -> str:
    if not row["date"]:
        return escape(row["stale"])
    return _made(row) + (f"  \n:small[{escape(row['stale'])}]" if row["stale"] else "")


def _made(row: Mapping[str, Any]) -> str:
    return f"{row['date']}, version {row['version']}  \n:small[{escape(row['scale'])}, {escape(row['device'])}]"
