"""Vega, Vega-Lite and Vega-Embed as one script: for the players of the pages, and for files without a network."""

from __future__ import annotations

import functools
import gzip
import hashlib
import subprocess
import sys
import threading
from importlib.metadata import version

VEGA_VERSION = version("vl-convert-python")

_lock = threading.Lock()


def vega() -> tuple[bytes, bytes, str]:
    """The script, made once a process: plain, gzipped, and its tag."""
    with _lock:
        return _vega()


@functools.cache
def _vega() -> tuple[bytes, bytes, str]:
    # In a process of its own: the bundler holds the interpreter for seconds, and with it every session.
    command = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"
    plain = subprocess.run([sys.executable, "-c", command], stdout=subprocess.PIPE, check=True).stdout
    return plain, gzip.compress(plain, 9, mtime=0), f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
