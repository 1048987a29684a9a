"""Files to take away: what a picture draws, as data and as a figure.

Figures are drawn in a process of their own, since the renderer holds the interpreter while it works and a
server must go on answering everybody else.
"""

from __future__ import annotations

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import streamlit as st

from .pictures import Picture
from .render import render


def drawn_table(picture: Picture) -> pd.DataFrame:
    """Every row that a picture draws, with the name of its table in front."""
    tables = []
    for name, columns in {**picture.data, **picture.frames}.items():
        table = pd.DataFrame({column: np.asarray(values) for column, values in columns.items()})
        table.insert(0, "table", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def csv_bytes(picture: Picture) -> bytes:
    """CSV of what is drawn; text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    table = drawn_table(picture)
    for column in table.select_dtypes(include=["object", "string"]).columns:
        table[column] = table[column].map(lambda v: "'" + v if isinstance(v, str) and v[:1] in tuple("=+-@") else v)
    return table.to_csv(index=False).encode()


def parquet_bytes(picture: Picture) -> bytes:
    """Parquet of what is drawn."""
    sink = io.BytesIO()
    drawn_table(picture).to_parquet(sink, index=False)
    return sink.getvalue()


def figure_bytes(picture: Picture, format: str, caption: str) -> bytes:
    """The picture as `svg` or `png`, in black on white, with its caption."""
    return _renderer().submit(render, picture.on_paper(caption), format).result(timeout=60)


@st.cache_resource
def _renderer() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
