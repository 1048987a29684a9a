"""Imported by the process that workers are forked from: every lab, its kernels and the libraries, ready to compute."""

import gc

from .confine import load
from .registry import all_labs

for _lab in all_labs():
    load(_lab)
gc.collect()
gc.freeze()  # what is loaded is shared with all workers as long as nobody writes to it
