"""Rerun this: the command, the snippet, the link, the citations, and the files to take away."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from sims.engine import Lab, Run
from sims.engine.budget import command_line
from sims.engine.describe import citation, figure_caption, python_snippet
from sims.engine.export import export
from sims.engine.store import as_stored

from .export import csv_bytes, drawn_table, figure_bytes, parquet_bytes
from .offline import offline_page
from .pictures import Picture
from .runs import View
from .state import PageState, encode

_MIME = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "pdf": "application/pdf",
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
_MIME |= {"json": "application/json", "npz": "application/octet-stream"}


def query_of(lab: Lab, state: PageState) -> str:
    """The query string of the link to a state; empty for the default page."""
    return urlencode([(name, value) for name, values in encode(lab, state).items() for value in values])


def link_to(view: View, page_url: str) -> str:
    """The address of the page as it stands."""
    query = query_of(view.lab, view.state)
    return f"{page_url}?{query}" if query else page_url


def rerun_this(view: View, pictures: Sequence[Picture], page_url: str) -> None:
    """The folded section at the end of a lab page."""
    run, lab = view.focus, view.lab
    st.markdown(f"**{view.focus_label}**, the run in focus")
    st.caption("On the command line")
    st.code(command_line(lab, run.params), language="bash", wrap_lines=True)
    st.caption("From Python")
    st.code(python_snippet(lab, run.params), language="python", wrap_lines=True)
    st.caption("As a link to this page, with every run on it")
    link = link_to(view, page_url)
    st.code(link, language=None, wrap_lines=True)
    made = f"grade {run.provenance['grade']}, version {run.version} of the lab, {run.provenance['software']}"
    st.caption(f"Key `{run.key[:16]}`, trace `{run.trace_sha256[:16]}`, {made}.")
    st.caption(f"`python -m sims rerun {run.key[:12]} --check` computes it again and compares.")
    st.caption("To cite the paper, and this run")
    st.code(f"{lab.paper.bibtex.strip()}\n\n{citation(lab, run)}\n", language="latex", wrap_lines=True)
    st.caption("For slides, and for rooms without a network: this page with its player in one file")
    name = f"{lab.id}-{run.key[:12]}.html"
    _button("Page as one file", name, "html", lambda: offline_page(view, pictures, link))
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


def data_tables(pictures: Sequence[Picture]) -> None:
    """What the pictures show, in words and as tables."""
    for picture in pictures:
        st.markdown(f"**{picture.title}.** {picture.alt}")
        st.dataframe(drawn_table(picture), height=220, hide_index=True)


def metrics_table(view: View) -> None:
    """End values of every run on the page: mean and standard error over replicates."""
    columns = {}
    for label, run in view.runs.items():
        columns[label] = {
            view.lab.quantity(name).label: _shown(metric.mean, metric.se) for name, metric in run.metrics.items()
        }
    st.table(pd.DataFrame(columns).fillna("–"), border="horizontal")


def _shown(mean: float | None, se: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.4g}" + (f" ± {se:.2g}" if se else "")
