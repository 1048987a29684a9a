"""Files to take away: what a picture draws, as data and as a figure.

Figures are drawn in a process of their own, since the renderer holds the interpreter while it works and a
server must go on answering everybody else.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from . import render
from .pictures import Picture
from .stage import STAGE

_one_at_a_time = threading.Lock()


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
        table[column] = table[column].map(safe_text)
    return table.to_csv(index=False).encode()


def safe_text(value: object) -> object:
    """The value, or of text that a spreadsheet would take for a formula the text with an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def parquet_bytes(picture: Picture) -> bytes:
    """Parquet of what is drawn."""
    sink = io.BytesIO()
    drawn_table(picture).to_parquet(sink, index=False)
    return sink.getvalue()


def figure_bytes(picture: Picture, format: str, caption: str) -> bytes:
    """The picture as `svg`, `pdf` or `png`, in black on white, as wide as a paper's text, with its caption."""
    return drawn(picture.on_paper(caption), format)


def drawn(spec: Mapping[str, Any], format: str, inches: float = render.INCHES, ppi: float = render.PPI) -> bytes:
    """A self-contained Vega-Lite spec as `svg`, `pdf` or `png`. Raises subprocess.CalledProcessError."""
    text = json.dumps(spec, allow_nan=False)
    # Not a pool: its workers would first run the script of the page, and one that died would end it for good.
    command = [sys.executable, "-P", render.__file__, format, str(inches), str(ppi)]
    with STAGE.aside(), _one_at_a_time:
        return subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True, timeout=60).stdout
