"""`python -m tests.faults.full_disk LIMIT...`: runs and sweeps on a disk that takes files up to so many bytes.

The limit is the system's own (RLIMIT_FSIZE), in a process that has everything loaded. Prints one JSON value: for each
limit exit code and messages of a run, of a sweep, and of both again when there is room.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys

from sims.engine import cli
from sims.engine.store import Store

TINY = ["label_noise", "--steps", "60", "--n-train", "5", "--dim", "8", "--sparsity", "2", "--replicates", "2"]


def call(*arguments: str) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*arguments, "--json"])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def main(limits: list[int]) -> None:
    call("run", *TINY, "--no-store")  # loaded
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = []
    for seed, limit in enumerate(limits):
        run = ["run", *TINY, "--seed", str(seed)]
        sweep = ["sweep", *TINY, "--seed", str(seed), "--grid", "noise_std=1,2", "--workers", "1"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        full = [call(*run), call(*sweep)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        report = Store().verify()
        told.append({"limit": limit, "full": full, "damaged": [key for key, why in report.items() if why]})
        told[-1]["room"] = [call(*run), call(*sweep)]
    print(json.dumps(told))


if __name__ == "__main__":
    main([int(limit) for limit in sys.argv[1:]])
