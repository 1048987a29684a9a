"""Reading Parquet on the caller's own thread.

A thread of Arrow's pool may let go of Python's bytes a moment after its answer is there. Where that moment falls into
the end of the interpreter, the process aborts instead of returning its exit code.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq


def parquet_file(source: bytes | Path) -> pq.ParquetFile:
    """The file of these bytes, or at this path. Raises pyarrow.ArrowInvalid where it is none."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source, pre_buffer=False)


def read_table(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Its table, or these columns of it."""
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table for pandas."""
    return table.to_pandas(use_threads=False)
