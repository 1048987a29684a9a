"""Parquet is read on the caller's own thread, whose end is the end of what it holds."""

import json
import subprocess
import sys

from sims.engine import compiled

READ = """
import json, sys, psutil, pyarrow
from sims.engine.store import Store

threads = psutil.Process().num_threads
before = threads()
series = Store(sys.argv[1]).find(sys.argv[2]).trace.series
after = threads()
from sims.engine.parquet import parquet_file, to_frame
frame = to_frame(parquet_file(open(sys.argv[3], "rb").read()).read())
print(json.dumps([before, after, threads(), len(series), len(frame)]))
"""


def test_reading_a_run_starts_no_thread(store, made):
    """A thread of Arrow's pool that still held Python's bytes at the interpreter's end would abort the process."""
    store.put(made)
    file = store.path / "runs" / made.key[:2] / made.key / "series.parquet"
    command = [sys.executable, "-c", READ, str(store.path), made.key, str(file)]
    done = subprocess.run(command, cwd=compiled.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, pooled, series, rows = json.loads(done.stdout)
    assert after == before and series == len(made.trace.series) and rows
    assert pooled > before, "the count would notice a pool"
