"""Disks that are full, read-only, or wrong: one sentence, no traceback, and what was stored stays as it was."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from sims.engine import compiled, execute
from sims.engine.store import Store, seal, unseal

FILES = ("manifest.json", "series.parquet", "arrays.npz")


def folder_of(store, run):
    return store.path / "runs" / run.key[:2] / run.key


def is_one_sentence(said):
    return said.endswith(".\n") and said.count("\n") == 1 and "Traceback" not in said


# -- full ----------------------------------------------------------------------------------------------------------

# Bytes that a file may have: within each file of a run, and of a sweep.
LIMITS = (0, 2000, 8000)
MORE = (1, 500, 1000, 3000, 4000, 5000, 6000, 7000, 9000, 10_000, 12_000, 16_000, 20_000, 24_000)


@pytest.mark.parametrize("limits", [LIMITS, pytest.param(MORE, marks=pytest.mark.slow)])
def test_a_full_disk_refuses_runs_and_sweeps_in_a_sentence_and_takes_them_when_there_is_room(store, lab, small, limits):
    command = [sys.executable, "-m", "tests.faults.full_disk", *map(str, limits)]
    done = subprocess.run(command, cwd=compiled.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    refused = [[answer["code"] for answer in one["full"]] for one in told]
    assert refused[0] == [2, 2] and sum(run == 2 for run, _ in refused) >= 3, "the limits fall into a run's files"
    for one in told:
        assert one["damaged"] == []
        for answer in one["full"]:
            assert answer["code"] in (0, 2)
            assert answer["code"] == 0 or (is_one_sentence(answer["err"]) and "the disk is full" in answer["err"])
        assert [answer["code"] for answer in one["room"]] == [0, 0]
    for seed in range(len(limits)):
        assert store.find(execute(lab, small.replace(seed=seed)).key) is not None
    assert len(store.rows()) == len(limits) and not list(store.aside.iterdir())


ON_SMALL_DISK = """
set -e
mkdir -p "$1" && mount -t tmpfs -o size=1m tmpfs "$1"
export CHALKLINE_STORE="$1/store"
run() { "$2" -m sims run label_noise --steps 60 --n-train 5 --dim 8 --sparsity 2 --replicates 2 --seed "$1" --json; }
run 1 "$2" > /dev/null
head -c 2m /dev/zero > "$1/filler" 2> /dev/null || true
df "$1" | tail -1 >&2
if run 2 "$2" > /dev/null; then exit 3; else test $? = 2; fi
"$2" -m sims verify
rm "$1/filler"
run 2 "$2" > /dev/null
"$2" -m sims verify
"""


@pytest.mark.slow
def test_a_disk_of_one_megabyte_that_is_full_to_the_last_byte(tmp_path):
    """A file system of its own, where this user may mount one; the limit of a file's size stands for it elsewhere."""
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mounting = [*private, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    command = [*private, "sh", "-c", ON_SMALL_DISK, "sh", str(tmp_path / "disk"), sys.executable]
    done = subprocess.run(command, cwd=compiled.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr and done.stderr.count("the disk is full") == 1 and "Traceback" not in done.stderr
    assert [line.split(" runs sound")[0] for line in done.stdout.splitlines()] == ["1", "2"]


# -- read-only -----------------------------------------------------------------------------------------------------

LOOK = """
import contextlib, io, json, sys
from sims.engine import cli
told = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def test_a_read_only_store_serves_what_it_holds_and_says_why_it_takes_no_more(store, made, as_anybody, tmp_path):
    for run in made[:3]:
        store.put(run)
    damaged = folder_of(store, made[2]) / "arrays.npz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    tiny = ["label_noise", "--steps", "60", "--n-train", "5", "--dim", "8", "--sparsity", "2", "--replicates", "2"]
    commands = [
        ["runs", "--json"],
        ["show", made[0].key[:12]],
        ["run", *tiny, "--seed", "0", "--json"],
        ["export", made[1].key[:12], "--format", "csv", "--out", str(tmp_path / "out")],
        ["verify"],
        ["run", *tiny, "--seed", "7"],
        ["sweep", *tiny, "--grid", "noise_std=1,2"],
        ["run", *tiny, "--seed", "7", "--no-store"],
    ]
    for path in [store.path, *store.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = subprocess.run(
            as_anybody([sys.executable, "-c", LOOK, json.dumps(commands)]),
            cwd=compiled.ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        for path in [store.path, *store.path.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    listed, shown, cached, exported, verified, run, sweep, unkept = json.loads(done.stdout)
    assert [answer[0] for answer in (listed, shown, cached, exported, unkept)] == [0] * 5
    assert len(json.loads(listed[1])) == 3 and json.loads(cached[1])["cached"]
    assert verified[0] == 1 and "could not be moved" in verified[2] and "Traceback" not in verified[2]
    for answer in (run, sweep):
        assert answer[0] == 2 and "Permission denied" in answer[2] and "CHALKLINE_STORE" in answer[2]
        assert "Traceback" not in answer[2]
    assert store.keys() == sorted(run.key for run in made[:3])


# -- damage --------------------------------------------------------------------------------------------------------


def flipped(content, rng):
    position = rng.randrange(8 * len(content))
    damaged = bytearray(content)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


HARMS = {
    "flipped": (500, flipped),
    "truncated": (100, lambda content, rng: content[: rng.randrange(len(content))]),
    "deleted": (100, lambda content, rng: None),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_each_of_many_harms_is_found_by_verify_set_aside_and_never_served(store, made, harm):
    """One file of one run at a time, seed 11: 500 flipped bits, 100 truncations, 100 deletions."""
    count, harmed = HARMS[harm]
    rng = random.Random(11)
    for run in made:
        store.put(run)
    for _ in range(count):
        run = rng.choice(made)
        path = folder_of(store, run) / rng.choice(FILES)
        content = harmed(path.read_bytes(), rng)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        report = store.verify()
        assert [key for key, why in report.items() if why is not None] == [run.key]
        assert store.find(run.key) is None and run.key not in {row["key"] for row in store.rows()}
        store.put(run)
    assert len(list((store.path / "quarantine").iterdir())) == count
    assert set(store.verify().values()) == {None} and len(store.keys()) == len(made)


def test_swapped_manifests_and_files_are_found_and_never_served(store, made):
    for run in made[:2]:
        store.put(run)
    for name in FILES:
        ours, theirs = (folder_of(store, run) / name for run in made[:2])
        first, second = ours.read_bytes(), theirs.read_bytes()
        ours.write_bytes(second)
        theirs.write_bytes(first)
        report = store.verify()
        assert all(report[run.key] for run in made[:2]) and store.keys() == []
        for run in made[:2]:
            store.put(run)


# -- the index -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_index_of_ten_thousand_runs_is_rebuilt_from_their_folders_and_read_without_them(store, made, monkeypatch):
    """What a listing costs is counted in manifests read; `make load` measures the seconds."""
    folder = store.put(made[0])
    manifest = unseal((folder / "manifest.json").read_bytes())
    rng = random.Random(13)
    for number in range(9_999):
        key = f"{rng.getrandbits(256):064x}"
        copy = store.path / "runs" / key[:2] / key
        copy.mkdir(parents=True)
        created = f"2030-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}"
        (copy / "manifest.json").write_bytes(seal({**manifest, "key": key, "created": created}))
    read = []
    real = Store._manifest
    monkeypatch.setattr(Store, "_manifest", lambda self, folder: read.append(folder) or real(self, folder))
    rows = store.rows("label_noise")
    assert len(rows) == 10_000 and len(read) == 9_999
    assert store.rows("label_noise") == rows and len(read) == 9_999, "nothing is read again"
    for suffix in ("", "-wal", "-shm"):
        (store.path / f"index.sqlite{suffix}").unlink(missing_ok=True)
    assert store.rows("label_noise") == rows and len(read) == 9_999 + 10_000
    shutil.rmtree(store.path / "runs")
    assert store.rows("label_noise") == []
