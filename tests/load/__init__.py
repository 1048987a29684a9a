"""A class at work, measured: `python -m tests.load`, or `make load`. See `__main__`."""
