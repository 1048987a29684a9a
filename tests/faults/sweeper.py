"""`python -m tests.faults.sweeper SEED POINTS`: one sweep, interrupted again and again until it is whole.

Children of one program that has everything loaded go on with the same sweep through the command line, and are killed
or asked to end (SIGKILL and SIGTERM in turn): while they start, or at a random moment after they have written some
parts, so that a fast machine is interrupted as often as a slow one. Prints one JSON value: for each child the signal,
its exit status, what it said, and the parts that lay there when it was gone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from sims.engine import cli, get_lab, predict, sweep
from sims.engine.cli_sweep import _grid
from sims.engine.design import choose_design
from sims.engine.keys import NUMBA
from sims.engine.provenance import provenance, source_digest
from sims.engine.store import Store

NAME = "interrupted"
BASE = ["label_noise", "--steps", "400", "--n-train", "5", "--dim", "8", "--sparsity", "2", "--replicates", "2"]
CHUNKS = 100  # of the whole sweep, whatever the rates of this machine
STARTING_SECONDS = 0.5
MOST_PARTS = 2  # written before the signal
INTERRUPTED = 40  # then it may end in peace


def arguments(points: int) -> list[str]:
    return [*BASE, "--grid", f"noise_std=0.1:2:{points}", "--workers", "1", "--name", NAME]


def parts() -> dict[str, int]:
    """The parts that lie in the store, each with the time at which it was written."""
    return {path.name: path.stat().st_mtime_ns for path in Store().path.glob("sweeps/*/parts/*.parquet")}


def child(points: int, out: Path) -> int:
    sys.stdout = sys.stderr = out.open("w")
    code = cli.main(["sweep", *arguments(points)])
    sys.stdout.flush()
    return code


def main(seed: int, points: int) -> None:
    import pyarrow.parquet  # noqa: F401

    lab, rng = get_lab("label_noise"), random.Random(seed)
    for probe in lab.probes().values():
        probe()
    predict(lab, lab.params.make())
    provenance(lab, lab.params.make(), NUMBA)
    source_digest()
    _, options = cli.about_lab("sweep", arguments(points))
    design = choose_design(lab, cli.params_of(lab, options), _grid(lab, options.grid), None)
    sweep.CHUNK_SECONDS = sweep.plan_sweep(design).seconds / CHUNKS
    told = []
    for turn in range(INTERRUPTED + 1):
        out = Path(os.environ["CHALKLINE_STORE"]).with_name("out.txt")
        before = parts()
        pid = os.fork()
        if pid == 0:
            os._exit(child(points, out))
        number = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
        wanted = rng.randint(0, MOST_PARTS) if turn < INTERRUPTED else points
        pause = rng.uniform(0.0, sweep.CHUNK_SECONDS if wanted else STARTING_SECONDS)
        done = (0, 0)
        while len(parts()) - len(before) < wanted and not done[0]:
            time.sleep(0.002)
            done = os.waitpid(pid, os.WNOHANG)
        if not done[0]:
            time.sleep(pause)
            os.kill(pid, number)
            done = os.waitpid(pid, 0)
        said, code = out.read_text(), os.waitstatus_to_exitcode(done[1])
        told.append({"signal": int(number), "code": code, "said": said, "before": before, "after": parts()})
        if code == 0:
            break
    print(json.dumps(told))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
