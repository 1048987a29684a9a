"""`make bench`: the kernels of each lab beside their rivals, then beside torch, then what a user waits for."""

import importlib
import sys
from pathlib import Path

from sims.engine import lab_ids

from . import full_scale, waiting


def of_labs():
    """The modules `benchmarks/<lab>.py` that there are."""
    here = Path(__file__).parent
    return [importlib.import_module(f"benchmarks.{lab}") for lab in lab_ids() if (here / f"{lab}.py").exists()]


def main() -> int:
    """Print every measurement; returns 1 if one misses its goal."""
    met = []
    for module in of_labs():
        met.append(module.main())
        print()
    met.append(full_scale.main())
    print()
    met.append(waiting.main())
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
