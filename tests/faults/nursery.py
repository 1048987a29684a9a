"""`python -m tests.faults.nursery SEED KILLS WRITERS`: children that compute and store runs, killed in the middle.

A separate program, so that it may fork: children start with everything loaded, and are killed within their work, not
within their imports. In each round some writers run the same few params in orders of their own, and each tells the
key and the trace of what it was told is stored; then all are killed at a random moment. Prints one JSON value: what
was told, how many were killed, and how many folders they left half-written at that moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from sims.engine import execute, get_lab, predict
from sims.engine.keys import NUMBA
from sims.engine.provenance import provenance
from sims.engine.store import Store

ROUND_SECONDS = 0.4


def child(seed: int, tell: int) -> None:
    """Compute and store runs until killed; each key that was stored is told, once it is."""
    lab, store, rng = get_lab("label_noise"), Store(), random.Random(seed)
    base = lab.params.make(steps=60, n_train=5, dim=8, sparsity=2, replicates=2)
    while True:
        params = base.replace(seed=rng.randrange(300))
        run = execute(lab, params, store=store, fresh=rng.random() < 0.3)
        os.write(tell, f"{run.key} {run.trace_sha256}\n".encode())


def main(seed: int, kills: int, writers: int) -> None:
    import pyarrow.parquet  # noqa: F401

    lab, rng = get_lab("label_noise"), random.Random(seed)
    for probe in lab.probes().values():  # in this thread: a pool of threads would not outlive a fork
        probe()
    predict(lab, lab.params.make(steps=60, n_train=5, dim=8, sparsity=2))
    provenance(lab, lab.params.make(), NUMBA)
    store = Store()
    told: dict[str, str] = {}
    killed = left = 0
    while killed < kills:
        hear, tell = os.pipe()
        children = []
        for number in range(writers):
            pid = os.fork()
            if pid == 0:
                os.close(hear)
                child(1000 * killed + number, tell)
            children.append(pid)
        os.close(tell)
        heard = os.read(hear, 1 << 16)  # the first run is stored: from now on any moment will do
        time.sleep(rng.uniform(0.0, ROUND_SECONDS))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
        killed += len(children)
        while more := os.read(hear, 1 << 16):
            heard += more
        os.close(hear)
        told |= dict(line.split() for line in heard.decode().splitlines() if len(line) == 129)
        left = len(list(store.aside.glob("*")))
    print(json.dumps({"told": told, "killed": killed, "left": left}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
