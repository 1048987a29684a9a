"""The home page: a gallery of the labs, each with a picture of its own result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import streamlit as st

from sims import all_labs
from sims.engine import Lab, ledger

from .frame import cards, filters, look
from .frame.activities import activities
from .frame.verdicts import MARKS
from .frame.words import escape

COLUMNS = 3
LOOK_AGAIN_SECONDS = 3.0  # while pictures are being drawn
PLACEHOLDER = '<div class="card-placeholder" role="img" aria-label="{words}">{words}</div>'


def home(pages: Mapping[str, object]) -> None:
    """A card for each lab that is looked for; `pages` are those of the labs by id."""
    look.apply()
    st.title("Chalkline")
    if look.presenting():
        look.control()
    st.markdown(
        "Theorems of deep learning, seen. Each lab is one paper's toy model: the **chalk line** is its closed-form "
        "prediction, the solid line is training, and every claim of the theory gets a verdict."
    )
    labs = all_labs()
    chosen = found(labs, *_filters(labs))
    st.caption(f"{len(chosen)} of {len(labs)} labs" if len(chosen) < len(labs) else f"{len(labs)} labs")
    counts = verdicts()
    for start in range(0, len(chosen), COLUMNS):
        row = chosen[start : start + COLUMNS]
        for column, lab in zip(st.columns(COLUMNS), row, strict=False):
            with column.container(border=True, height="stretch", key=f"card-{lab.id}"):
                _card(lab, pages[lab.id], counts.get(lab.id, Counter()))
    if not chosen:
        st.info("No lab has all of these words. Try fewer of them, or another theme.")
    _wait_for_pictures(chosen)


def found(labs: Iterable[Lab], words: str, themes: Sequence[str]) -> list[Lab]:
    """The labs of these themes (of all where none is named) whose card or paper has every word."""
    wanted = words.casefold().split()
    return [
        lab
        for lab in labs
        if (not themes or lab.theme in themes) and all(word in _text(lab).casefold() for word in wanted)
    ]


def verdicts() -> dict[str, Counter[str]]:
    """How often each verdict stands in the last ledger, for each lab."""
    counts: dict[str, Counter[str]] = {}
    for row in ledger.read():
        counts.setdefault(row["lab"], Counter())[row["verdict"]] += 1
    return counts


def _text(lab: Lab) -> str:
    paper = lab.paper
    return f"{lab.id} {lab.title} {lab.sentence} {lab.theme} {paper.title} {paper.authors} {paper.year} {paper.arxiv}"


def _filters(labs: Sequence[Lab]) -> tuple[str, Sequence[str]]:
    themes = Counter(lab.theme for lab in labs)
    known: dict[str, list[str] | None] = {"search": None, "theme": sorted(themes)}
    filters.restore("gallery", known)
    words = st.text_input(
        "Search", key="gallery/search", placeholder="words of a title, paper or author", icon=":material/search:"
    )
    chosen = st.pills(
        "Theme",
        sorted(themes),
        selection_mode="multi",
        format_func=lambda theme: f"{theme} ({themes[theme]})",
        key="gallery/theme",
    )
    filters.follow("gallery", known)
    return words, chosen


def _card(lab: Lab, page: object, counts: Counter[str]) -> None:
    path = cards.picture_of(lab, "dark" if st.context.theme.type == "dark" else "light")
    words = f"What the page of {lab.title} draws first."
    if path is None:
        st.html(PLACEHOLDER.format(words="Its picture is not drawn yet."))
    else:
        st.image(str(path), width="stretch", alt=words)
    st.header(lab.title, anchor=False)
    st.markdown(lab.sentence)
    teaching = [f"{one.minutes} minutes in class" for one in activities().get(lab.id, ()) if one.kind == "activity"]
    paper = f"{_authors(lab.paper.authors)} ({lab.paper.venue} {lab.paper.year})"
    st.caption(escape(" · ".join([paper, lab.theme, *teaching])))
    judged = ", ".join(f"{counts[verdict]}\u00a0{MARKS[verdict]}" for verdict in MARKS if counts[verdict])
    st.caption(f"{len(lab.presets)} presets, {len(lab.claims)} claims" + (f": {judged}" if judged else ""))
    st.page_link(page, label=f"Open {lab.title}", icon=":material/arrow_forward:")


def _authors(names: str) -> str:
    first, *others = names.split(", ")
    return names if len(others) < 3 else f"{first} and {len(others)} others"


def _wait_for_pictures(labs: Sequence[Lab]) -> None:
    """Have missing pictures drawn, and show them when they are there."""
    waiting = len(cards.missing(labs))
    if not waiting:
        return

    @st.fragment(run_every=LOOK_AGAIN_SECONDS)
    def look_again() -> None:
        cards.draw_missing(labs)
        if len(cards.missing(labs)) < waiting:
            st.rerun()

    look_again()
