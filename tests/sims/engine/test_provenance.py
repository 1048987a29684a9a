"""What a number rests on, and that BLAS runs at one thread from the first prediction on."""

import json
import subprocess
import sys

from sims.engine import compiled, provenance
from sims.engine.keys import NUMBA, Backend

THREADS = """
import threadpoolctl
import sims.engine.execute
from sims.engine import get_lab, predict

lab = get_lab("label_noise")
seen = []

def watched(params):
    import scipy.linalg
    seen.extend(library["num_threads"] for library in threadpoolctl.threadpool_info())
    return None

import dataclasses
predict(dataclasses.replace(lab, predict=watched), lab.params.make())
print(len(seen), set(seen))
"""


def test_blas_has_one_thread_in_the_first_theory_of_a_process():
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=compiled.ROOT, capture_output=True, text=True, check=True
    )
    count, threads = done.stdout.split(maxsplit=1)
    assert int(count) >= 2 and threads.strip() == "{1}", "NumPy's and SciPy's"


def test_the_fingerprint_says_what_bits_depend_on():
    found = provenance.fingerprint()
    assert found.keys() == {"machine", "cpu", "cpu_features", "numpy", "numba", "llvmlite", "blas"}
    assert all(isinstance(value, str) and value for value in found.values())


def test_the_record_of_a_run_is_plain_and_says_how_to_repeat_it(lab, small):
    record = provenance.provenance(lab, small, NUMBA)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert lab.params.make(record["params"]) == small
    assert (record["lab"], record["version"], record["grade"]) == (lab.id, lab.version, "A")
    assert record["streams"] == dict(lab.streams) and record["blas_threads"] == 1
    assert provenance.provenance(lab, small, Backend("torch", "cpu", "float32"))["grade"] == "C"


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit.__wrapped__() is None


def test_the_commit_is_whole_and_says_when_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        settings = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *settings, "-C", tmp_path, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "file").write_text("one")
    git("init", "-q")
    git("add", "file")
    git("commit", "-q", "-m", "first", "--no-verify")
    assert provenance.commit.__wrapped__() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert provenance.commit.__wrapped__() == git("rev-parse", "HEAD") + "-dirty"


def test_there_is_at_least_one_core():
    assert provenance.cores() >= 1
