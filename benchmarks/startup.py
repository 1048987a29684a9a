"""What a fresh machine waits for: imports, and kernels that no cache holds yet.

    python -m benchmarks.startup

Each is a process of its own. *Cold* compiles into an empty cache, *cached* reads what that left behind.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from .report import Measure, Section, run_alone

ROOT = Path(__file__).resolve().parents[1]
CORE = ("label_noise", "xor_grokking", "linear_attention", "augmentation_graph")
IMPORTS = {"nothing": "pass", "sims": "import sims", "Numba": "import numba", "streamlit": "import streamlit"}
COMPILE = "from sims.engine import get_lab; [probe() for probe in get_lab({lab!r}).probes().values()]"
ROUNDS = 3


def seconds_of(code, **environment):
    """Seconds that a fresh interpreter takes for one line."""
    start = perf_counter()
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)
    return perf_counter() - start


def measure():
    """Imports, then each core lab's kernels, cold and cached."""
    section = Section("From a standing start", __doc__.split("\n\n", 2)[2].strip())
    for name, code in IMPORTS.items():
        spent = median(seconds_of(code) for _ in range(ROUNDS))
        section.measures.append(Measure(f"a process that imports {name}", 1e3 * spent, "ms"))
    for lab in CORE:
        with tempfile.TemporaryDirectory(prefix="chalkline-bench-") as cache:
            code = COMPILE.format(lab=lab)
            cold = seconds_of(code, CHALKLINE_CACHE=cache)
            cached = seconds_of(code, CHALKLINE_CACHE=cache)
        section.measures.append(Measure(f"{lab}: kernels compiled cold", cold, "s"))
        section.measures.append(Measure(f"{lab}: kernels cached", cached, "s"))
    return section


if __name__ == "__main__":
    sys.exit(run_alone(measure()))
