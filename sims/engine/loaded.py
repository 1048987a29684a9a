"""Imported by the process that workers are forked from: every lab, its kernels and the libraries, ready to compute."""

import gc

from .provenance import fingerprint, single_threaded_blas
from .registry import all_labs

single_threaded_blas()
fingerprint()
for _lab in all_labs():
    for _probe in _lab.probes().values():
        _probe()
gc.collect()
gc.freeze()  # what is loaded is shared with all workers as long as nobody writes to it
