"""Rerun this: the command, the snippet, the link, the citations, and the files to take away."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import pandas as pd
import segno
import streamlit as st

from sims.engine import Lab, Run
from sims.engine.budget import command_line
from sims.engine.describe import citation, figure_caption, python_snippet
from sims.engine.export import export
from sims.engine.params import format_value
from sims.engine.store import as_stored

from .export import csv_bytes, figure_bytes, parquet_bytes
from .form import label_of
from .formula import Formula
from .offline import offline_page
from .pictures import Picture
from .runs import View
from .words import escape

_MIME = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "pdf": "application/pdf",
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
_MIME |= {"json": "application/json", "npz": "application/octet-stream"}


Query = Mapping[str, Sequence[str]]


def address(
    page_url: str, query: Query, *, slides: bool = False, present: bool = False, bare: bool = False, theme: str = ""
) -> str:
    """The link to a page as somebody wants to see it; `theme` is `light_theme`, `dark_theme`, or the visitor's.

    Args:
        query: the state of the page and how it is looked at.
    """
    view = {"embed": "true"} if slides else {}
    view |= {"embed_options": theme} if slides and theme else {}
    view |= {"present": "1"} if present else {}
    view |= {"controls": "off"} if bare and not slides else {}
    pairs = [(name, value) for name, values in query.items() for value in values]
    text = urlencode([*pairs, *view.items()])
    return f"{page_url}?{text}" if text else page_url


def rerun_this(
    view: View, pictures: Sequence[Picture], formulas: Sequence[Formula], page_url: str, query: Query
) -> None:
    """The folded section at the end of a lab page; `query` is the page's state as a link holds it."""
    run, lab = view.focus, view.lab
    st.markdown(f"**{view.focus_label}**, the run in focus")
    st.caption("On the command line")
    st.code(command_line(lab, run.params), language="bash", wrap_lines=True)
    st.caption("From Python")
    st.code(python_snippet(lab, run.params), language="python", wrap_lines=True)
    st.caption("As a link to this page, with every run on it")
    link = address(page_url, query)
    st.code(link, language=None, wrap_lines=True)
    made = f"grade {run.provenance['grade']}, version {run.version} of the lab, {run.provenance['software']}"
    st.caption(f"Key `{run.key[:16]}`, trace `{run.trace_sha256[:16]}`, {made}.")
    st.caption(f"`python -m sims rerun {run.key[:12]} --check` computes it again and compares.")
    st.caption("To cite the paper, and this run")
    st.code(f"{lab.paper.bibtex.strip()}\n\n{citation(lab, run)}\n", language="latex", wrap_lines=True)
    st.caption("For slides, and for rooms without a network: this page with its player in one file")
    name = f"{lab.id}-{run.key[:12]}.html"
    _button("Page as one file", name, "html", lambda: offline_page(view, pictures, formulas, link))
    _downloads(view, run, pictures)


def _downloads(view: View, run: Run, pictures: Sequence[Picture]) -> None:
    words = figure_caption(view.lab, view.runs)
    for picture in pictures:
        name = f"{view.lab.id}-{picture.id}-{run.key[:8]}"
        st.caption(f"{picture.title}: exactly what is drawn")
        with st.container(horizontal=True):
            for format in ("svg", "pdf", "png"):
                _button(
                    f"{format.upper()}",
                    f"{name}.{format}",
                    format,
                    lambda p=picture, f=format: figure_bytes(p, f, words),
                )
            _button("CSV", f"{name}.csv", "csv", lambda p=picture: csv_bytes(p))
            _button("Parquet", f"{name}.parquet", "parquet", lambda p=picture: parquet_bytes(p))
    st.caption("The whole trace of the run in focus")
    stored = as_stored(run)
    with st.container(horizontal=True):
        for format in ("csv", "parquet", "json", "npz"):
            file = f"{view.lab.id}-{run.key[:12]}.{format}"
            _button(f"{format.upper()} trace", file, format, lambda f=format: export(stored, f))


def _button(label: str, file_name: str, format: str, content: object) -> None:
    st.download_button(
        label,
        content,
        file_name,
        _MIME[format],
        key=f"download/{file_name}",
        on_click="ignore",
        icon=":material/download:",
    )


@st.dialog("A link to this page", icon=":material/link:")
def link_dialog(lab: Lab, page_url: str, query: Query) -> None:
    """The address of the page as it stands, as text to copy and as a code to scan; every option is a control."""
    slides = st.toggle("For slides: the pictures and their player alone", key="link/embed")
    present = st.toggle("Projector mode: large type, thick lines", key="link/present")
    bare = st.toggle("Without controls: no parameters, no presets", key="link/bare", disabled=slides)
    themes = {"": "the visitor's own", "light_theme": "light", "dark_theme": "dark"}
    theme = ""
    if slides:
        theme = st.segmented_control(
            "Colours", list(themes), format_func=themes.__getitem__, default="", required=True, key="link/theme"
        )
    link = address(page_url, query, slides=slides, present=present, bare=bare, theme=theme)
    st.code(link, language=None, wrap_lines=True)
    if slides:
        st.caption("In a slide written in HTML")
        words = html.escape(lab.title)
        frame = f'<iframe src="{html.escape(link)}" title="{words}" width="100%" height="600"></iframe>'
        st.code(frame, language="html", wrap_lines=True)
    code = qr_code(link)
    if code is None:
        st.caption("This link is too long for a code that a phone could scan.")
    else:
        st.image(code, width=240, alt="The link as a QR code")
    if urlsplit(page_url).hostname in ("127.0.0.1", "localhost", "::1"):
        st.info("Only this machine can open it. For a class, serve with: make run HOST=0.0.0.0")


def qr_code(text: str) -> str | None:
    """The text as an SVG picture to scan, black on white; none where it is too long."""
    try:
        code = segno.make(text, error="l", micro=False)
    except segno.DataOverflowError:
        return None
    sink = io.BytesIO()
    code.save(sink, kind="svg", xmldecl=False, border=4, scale=8, dark="#000", light="#fff")
    return sink.getvalue().decode()


def differences(view: View) -> dict[str, dict[str, str]]:
    """For each run the fields in which the runs differ, as text; a dash where a field has no meaning."""
    texts = {
        label: {name: format_value(value) for name, value in run.params.active().items()}
        for label, run in view.runs.items()
    }
    fields = [name for name in view.lab.params.fields() if len({own.get(name) for own in texts.values()}) > 1]
    return {label: {name: own.get(name, "–") for name in fields} for label, own in texts.items()} if fields else {}


def differences_table(view: View) -> None:
    """The params in which the runs of the page differ; nothing where there is one run."""
    if len(view.runs) < 2:
        return
    found = differences(view)
    if not found:
        st.caption("The runs have the same parameters.")
        return
    st.caption("Parameters that differ")
    names = {name: label_of(view.lab.params.fields()[name]) for name in next(iter(found.values()))}
    table = pd.DataFrame({escape(label): own for label, own in found.items()}).rename(index=names)
    table.index.name = "parameter"
    st.table(table, border="horizontal", alt="Parameters in which the runs differ")
    st.caption("End values: mean over replicates, with its standard error")


def metrics_table(view: View) -> None:
    """End values of every run on the page: mean and standard error over replicates."""
    columns = {}
    for label, run in view.runs.items():
        columns[label] = {
            view.lab.quantity(name).label: _shown(metric.mean, metric.se) for name, metric in run.metrics.items()
        }
    table = pd.DataFrame(columns).fillna("–")
    table.index.name = "quantity"
    st.table(table, border="horizontal", alt="End values of every run")


def _shown(mean: float | None, se: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.4g}" + (f" ± {se:.2g}" if se else "")
