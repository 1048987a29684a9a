"""`make bench`: kernels beside their rivals, then what a user waits for, each against its goal."""

import sys

from . import label_noise, waiting


def main() -> int:
    """Print every measurement; returns 1 if one misses its goal."""
    kernels = label_noise.main()
    print()
    waits = waiting.main()
    return int(not (kernels and waits))


if __name__ == "__main__":
    sys.exit(main())
