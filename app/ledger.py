"""The ledger page: every claim of every lab with its last verdict, whatever that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from sims import all_labs
from sims.engine import ChalklineError, Lab, get_lab, ledger

from .frame import filters, look
from .frame.share import address
from .frame.state import PageState, encode
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
    rows = [row for lab in all_labs() for row in (*ledger.audit(lab), *_confirmed(lab))]
    _totals(rows)
    chosen = _chosen(rows)
    pages = max(1, -(-len(chosen) // ROWS))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.caption(f"{len(chosen):,} of {len(rows):,} rows")
        page = _page(pages)
    _table(chosen[(page - 1) * ROWS : page * ROWS])
    st.caption(MEANING + " **stale**: the row is older than what it speaks of; it waits to be judged again.")
    st.caption("`python -m sims ledger LAB` judges a lab's claims anew, `python -m sims confirm LAB` confirms it.")


def _confirmed(lab: Lab) -> list[dict[str, Any]]:
    """The verdicts of the lab's newest confirmations, with the columns of the others; a damaged report is named."""
    try:
        rows = ledger.confirmed(lab.id)
    except ChalklineError as error:
        st.warning(escape(str(error)), icon=":material/report:")
        return []
    found = []
    for row in rows:
        about = {"preset": "", "run": f"experiment {row['experiment']}", "about": None, "key": ""}
        found.append({**about, "expected": "holds", "stale": ledger.outdated(row, lab), **row})
    return found


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
    kinds = [verdict for verdict in MARKS if any(row["verdict"] == verdict for row in rows)]
    kinds += [STALE] if any(row["stale"] for row in rows) else []
    scales = list(dict.fromkeys(row["scale"] for row in rows))
    known: dict[str, list[str] | None] = {"lab": list(titles), "verdict": kinds, "scale": scales, "search": None}
    filters.restore("ledger", known)
    first, second, third = st.columns([2, 3, 3])
    labs = first.multiselect("Lab", list(titles), format_func=titles.__getitem__, key="ledger/lab")
    verdicts = second.pills(
        "Verdict",
        kinds,
        selection_mode="multi",
        format_func=lambda kind: MARKS.get(kind, kind),
        key="ledger/verdict",
    )
    words = third.text_input("Search", key="ledger/search", placeholder="words of a claim", icon=":material/search:")
    wanted = st.pills("Scale", scales, selection_mode="multi", key="ledger/scale") if len(scales) > 1 else []
    filters.follow("ledger", known)
    return [
        row
        for row in rows
        if (not labs or row["lab"] in labs)
        and (not verdicts or row["verdict"] in verdicts or (row["stale"] and STALE in verdicts))
        and (not wanted or row["scale"] in wanted)
        and all(word in _text(row).casefold() for word in words.casefold().split())
    ]


def _text(row: Mapping[str, Any]) -> str:
    return " ".join(
        str(row[name]) for name in ("lab", "preset", "run", "id", "statement", "source", "reason", "device", "key")
    )


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
            "judged on": _subject(row),
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


def _subject(row: Mapping[str, Any]) -> str:
    """What was judged: the lab, its preset, which run of it and its key, with a link to the pictures of that run."""
    lab = get_lab(row["lab"])
    title = {preset.id: preset.title for preset in lab.presets}.get(row["preset"], row["preset"])
    run = escape(row["run"] or "a run that no preset has any more")
    link = f"[{run}]({_address(lab, row)}#pictures)" if row["about"] is not None or not row["preset"] else run
    key = f"  \n:small[`{row['key'][:12]}`]" if row["key"] else ""
    return "  \n".join(filter(None, [escape(lab.title), escape(title), link])) + key


def _address(lab: Lab, row: Mapping[str, Any]) -> str:
    """The page that shows a row's run: the preset itself where that has it in focus."""
    if row["about"] is None:
        return lab.id
    preset = lab.preset(row["preset"])
    if row["about"] == lab.focus(preset):
        return f"{lab.id}?preset={preset.id}"
    query = encode(lab, PageState(preset.id, row["about"]), whole=True)
    return address(lab.id, query).replace("(", "%28").replace(")", "%29")


def _checked(row: Mapping[str, Any]) -> str:
    if not row["date"]:
        return escape(row["stale"])
    where = f"{row['date']}, version {row['version']}  \n:small[{escape(row['scale'])}, {escape(row['device'])}]"
    return where + (f"  \n:small[{escape(row['stale'])}]" if row["stale"] else "")
