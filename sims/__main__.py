"""`python -m sims`."""

import gc
import sys

if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 50)  # imports make objects that stay: collecting among them costs a tenth
    from .engine.cli import main

    sys.exit(main())
