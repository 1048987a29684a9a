"""The run store under damage, crowding, and disks that are full or read-only."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.engine import UnknownName, cli, execute
from sims.engine import store as store_module
from sims.engine.errors import BadInput, DamagedRun, ReproducibilityAlarm, StoreError
from sims.engine.store import STALE_SECONDS, Store, _insert, seal, unseal

FILES = ("manifest.json", "series.parquet", "arrays.npz")


def folder_of(store, run):
    return store.path / "runs" / run.key[:2] / run.key


def altered(run):
    """The same key with another trace."""
    series = {name: values + 1e-9 for name, values in run.trace.series.items()}
    return dataclasses.replace(run, trace=dataclasses.replace(run.trace, series=series))


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and text.endswith(".")
    return text


@pytest.fixture
def others(lab, small):
    return [execute(lab, small.replace(seed=seed)) for seed in (1, 2)]


# -- keeping and finding ---------------------------------------------------------------------------------------


def test_what_is_put_is_found_bit_for_bit(store, made):
    assert store.find(made.key) is None and not store.holds(made.key) and store.keys() == []
    store.put(made)
    found = store.find(made.key)
    assert found.trace.sha256 == made.trace_sha256
    assert found.trace.replicate_sha256 == made.trace.replicate_sha256
    for name, values in made.trace.series.items():
        np.testing.assert_array_equal(found.trace.series[name], values)
    for name, values in made.trace.finals.items():
        np.testing.assert_array_equal(found.trace.finals[name], values)
    np.testing.assert_array_equal(found.trace.frames["beta"], made.trace.frames["beta"])
    assert found.provenance == made.provenance and found.wall_s == made.wall_s
    assert not list((store.path / "aside").iterdir())


def test_a_diverged_run_is_kept_with_its_step_and_its_nan(lab, store):
    params = lab.params.make(algorithm="minibatch_noise", learning_rate=0.1, steps=500, replicates=2)
    run = execute(lab, params, store=store)
    assert run.diverged == 2 and 0 < run.trace.stopped[0].step < 500
    found = store.find(run.key).trace
    assert found.stopped == run.trace.stopped and found.sha256 == run.trace_sha256
    assert np.isnan(found.series["train_loss"][:, -1]).all()


def test_opening_a_store_creates_nothing(store, made):
    assert store.find(made.key) is None and store.keys() == []
    assert not store.path.exists()


def test_keys_are_resolved_from_their_beginning(store, made, others):
    for run in (made, *others):
        store.put(run)
    assert store.resolve(made.key[:6]) == store.load(made.key[:12]).manifest["key"] == made.key
    for bad in (made.key[:5], "zzzzzz", "", "../../etc/passwd", made.key.upper(), "0" * 64):
        with pytest.raises(UnknownName, match="There is no stored run"):
            store.resolve(bad)
    twin = made.key[:10] + ("0" if made.key[10] != "0" else "1") * 54
    (store.path / "runs" / twin[:2] / twin).mkdir()
    with pytest.raises(BadInput, match="fits 2 stored runs"):
        store.resolve(made.key[:8])
    with pytest.raises(UnknownName):
        store.find("../../etc/passwd")


def test_rows_list_the_runs_newest_first(store, made, others):
    for created, run in zip(("2030-01-01", "2030-01-03", "2030-01-02"), (made, *others), strict=True):
        store.put(dataclasses.replace(run, provenance={**run.provenance, "created": created}))
    rows = store.rows()
    assert [row["key"] for row in rows] == [others[0].key, others[1].key, made.key]
    assert rows[2]["params"] == made.params.active() and store.rows("another_lab") == []
    assert rows[2]["metrics"]["train_loss"]["mean"] == made.metrics["train_loss"].mean
    assert store.rows("label_noise") == rows


def test_a_listing_of_keys_and_dates_decodes_no_metrics(store, made, others, monkeypatch, capsys):
    for run in (made, *others):
        store.put(run)
    whole, decoded = store.rows(), []
    loads = json.loads
    monkeypatch.setattr(store_module.json, "loads", lambda text: decoded.append(text) or loads(text))
    assert store.rows(columns=("key", "created")) == [{n: row[n] for n in ("key", "created")} for row in whole]
    monkeypatch.setenv("CHALKLINE_STORE", str(store.path))
    assert cli.main(["runs"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [row["key"][:12] for row in whole]
    assert decoded == []
    assert store.rows() == whole and len(decoded) == 2 * len(whole)


# -- writers of one key ----------------------------------------------------------------------------------------


def test_equal_writers_of_one_key_leave_one_run(store, made):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(store.put, [made] * 16))
    assert set(folders) == {folder_of(store, made)} and store.keys() == [made.key]
    assert store.verify() == {made.key: None} and len(store.rows()) == 1
    assert not list((store.path / "aside").iterdir())


def test_unequal_writers_of_one_key_raise_an_alarm_and_the_first_is_kept(store, made):
    store.put(made)
    with pytest.raises(ReproducibilityAlarm, match="gave another trace") as error:
        store.put(altered(made))
    sentence(error)
    assert store.find(made.key).trace.sha256 == made.trace_sha256
    assert not list((store.path / "aside").iterdir())


def test_times_and_hosts_of_equal_runs_may_differ(store, made):
    store.put(made)
    later = dataclasses.replace(made, wall_s=99.0, provenance={**made.provenance, "created": "2099-01-01"})
    store.put(later)
    assert store.find(made.key).wall_s == made.wall_s


def test_another_machine_may_have_other_bits(store, made):
    store.put(made)
    provenance = {**made.provenance, "fingerprint": {**made.provenance["fingerprint"], "cpu": "another"}}
    store.put(dataclasses.replace(altered(made), provenance=provenance))
    assert store.find(made.key).trace.sha256 == made.trace_sha256


# -- the index -------------------------------------------------------------------------------------------------


def damage_index(path, how):
    if how == "deleted":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other columns":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE runs (key TEXT PRIMARY KEY, lab TEXT)")
    elif how == "other text":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE runs SET params = '{'")


@pytest.mark.parametrize("how", ["deleted", "garbage", "truncated", "empty", "other columns", "other text"])
def test_a_lost_or_damaged_index_is_made_anew(store, made, others, how):
    for run in (made, *others):
        store.put(run)
    before = store.rows()
    for suffix in ("-wal", "-shm"):
        (store.path / f"index.sqlite{suffix}").unlink(missing_ok=True)
    damage_index(store.path / "index.sqlite", how)
    assert store.rows() == before
    assert store.rebuild() == 3 and store.rows() == before


def test_the_index_follows_the_directories(store, made, others):
    store.put(made)
    store.put(others[0])
    shutil.rmtree(folder_of(store, made))
    assert [row["key"] for row in store.rows()] == [others[0].key]
    elsewhere = Store(store.path.with_name("elsewhere"))
    elsewhere.put(made)
    shutil.copytree(folder_of(elsewhere, made), folder_of(store, made))
    assert {row["key"] for row in store.rows()} == {made.key, others[0].key}


def test_strange_files_among_the_runs_do_no_harm(store, made):
    store.put(made)
    (store.path / "runs" / "notes.txt").write_text("mine")
    (store.path / "runs" / made.key[:2] / ("x" * 64)).mkdir()
    assert store.keys() == [made.key] and len(store.rows()) == 1 and store.verify() == {made.key: None}


def test_a_run_that_the_index_cannot_take_is_kept_all_the_same(store, made, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(store_module, "_insert", raising(sqlite3.OperationalError("database or disk is full")))
        store.put(made)
    assert [row["key"] for row in store.rows()] == [made.key]


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


# -- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_detected(store, made, name):
    """100 random bits of each file; the run is served only while no bit differs."""
    store.put(made)
    path = folder_of(store, made) / name
    sound = path.read_bytes()
    rng = random.Random(17)
    for _ in range(100):
        position = rng.randrange(8 * len(sound))
        damaged = bytearray(sound)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedRun, match="is damaged"):
            store.find(made.key)
    path.write_bytes(sound)
    assert store.find(made.key) is not None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"3", b'"text"', b"null", b"\xff\xfe", b'{"manifest_sha256": 1}']
)
def test_a_manifest_that_is_something_else_is_damage(store, made, content):
    store.put(made)
    (folder_of(store, made) / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedRun) as error:
        store.find(made.key)
    sentence(error)
    assert store.rebuild() == 0


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def test_whoever_seals_a_manifest_a_reader_finds_a_sound_run_or_damage(store, made):
    """The seal is a hash that anybody can compute: it does not say that a stranger's manifest can be read."""
    path = store.put(made) / "manifest.json"
    manifest = unseal(path.read_bytes())

    @given(st.sampled_from([*manifest, "manifest_sha256", "another"]), ANY_JSON)
    @example("version", 10**30)
    @example("wall_s", 10**400)
    def check(name, value):
        path.write_bytes(seal({**{k: v for k, v in manifest.items() if k != "manifest_sha256"}, name: value}))
        try:
            found = store.find(made.key)
        except StoreError as refusal:  # damage, or the form of another version
            assert str(refusal).isprintable() and "Traceback" not in str(refusal)
        else:
            assert found.trace.sha256 == made.trace_sha256
            _insert(index, found.manifest)

    with store._index() as index:
        check()


def test_a_manifest_cannot_name_files_elsewhere(store, made, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    folder = store.put(made)
    manifest = unseal((folder / "manifest.json").read_bytes())
    for name in ("../../../../secret", str(tmp_path / "secret")):
        files = {**manifest["files"], name: hashlib.sha256(b"secret").hexdigest()}
        (folder / "manifest.json").write_bytes(seal({**manifest, "files": files}))
        with pytest.raises(DamagedRun, match="no sound files"):
            store.find(made.key)


@pytest.mark.parametrize("content", [b"", b"PK", b"PAR1" * 4, b"[]"])
def test_files_that_are_no_trace_are_damage_though_their_hash_is_right(store, made, content):
    folder = store.put(made)
    manifest = unseal((folder / "manifest.json").read_bytes())
    for name in ("series.parquet", "arrays.npz"):
        sound = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        files = {**manifest["files"], name: hashlib.sha256(content).hexdigest()}
        (folder / "manifest.json").write_bytes(seal({**manifest, "files": files}))
        with pytest.raises(DamagedRun, match="its files are not a trace"):
            store.find(made.key)
        (folder / name).write_bytes(sound)


def test_pickled_arrays_are_never_loaded(store, made):
    """A pickle is a program: what would run one is damage."""
    sink = io.BytesIO()
    np.savez(sink, frame_step=np.array([print], dtype=object))
    folder = store.put(made)
    (folder / "arrays.npz").write_bytes(sink.getvalue())
    manifest = unseal((folder / "manifest.json").read_bytes())
    files = {**manifest["files"], "arrays.npz": hashlib.sha256(sink.getvalue()).hexdigest()}
    (folder / "manifest.json").write_bytes(seal({**manifest, "files": files}))
    with pytest.raises(DamagedRun, match=r"not a trace \(ValueError\)"):
        store.find(made.key)


def test_a_manifest_that_only_reads_the_same_is_damage(store, made):
    """A flipped bit can turn 1e-05 into 1E-05, the same number in another text."""
    store.put(dataclasses.replace(made, wall_s=1e-05))
    path = folder_of(store, made) / "manifest.json"
    sound = path.read_text()
    for other in (sound.replace('":', '": '), sound.replace("1e-05", "1E-05"), sound + "\n"):
        assert other != sound and json.loads(other) == json.loads(sound)
        path.write_text(other)
        with pytest.raises(DamagedRun, match="not as it was written"):
            store.find(made.key)


@pytest.mark.parametrize("how", ["truncated", "deleted", "emptied"])
@pytest.mark.parametrize("name", FILES)
def test_verify_reports_and_sets_aside(store, made, others, name, how):
    for run in (made, others[0]):
        store.put(run)
    path = folder_of(store, made) / name
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if how == "truncated" else b"")
    report = store.verify()
    assert report[others[0].key] is None and name.split(".")[0] in report[made.key]
    assert store.find(made.key) is None and [row["key"] for row in store.rows()] == [others[0].key]
    (quarantined,) = (store.path / "quarantine").iterdir()
    assert quarantined.name.startswith(made.key)
    assert store.verify() == {others[0].key: None}
    store.put(made)
    assert store.find(made.key).trace.sha256 == made.trace_sha256


def test_swapped_manifests_are_detected(store, made, others):
    runs = (made, others[0])
    paths = [folder_of(store, run) / "manifest.json" for run in runs]
    for run in runs:
        store.put(run)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    report = store.verify()
    assert all("belongs to another run" in report[run.key] for run in runs)
    assert store.keys() == []


def test_swapped_directories_are_detected(store, made, others):
    store.put(made)
    store.put(others[0])
    target = folder_of(store, others[0])
    shutil.rmtree(target)
    shutil.copytree(folder_of(store, made), target)
    with pytest.raises(DamagedRun, match="belongs to another run"):
        store.find(others[0].key)


def test_a_damaged_run_computed_again_is_replaced_and_set_aside(store, made):
    store.put(made)
    (folder_of(store, made) / "arrays.npz").write_bytes(b"broken")
    store.put(made)
    assert store.find(made.key).trace.sha256 == made.trace_sha256
    assert len(list((store.path / "quarantine").iterdir())) == 1


# -- crashes, full and read-only disks -------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_swept_after_an_hour(store, made):
    aside = store.path / "aside"
    old, young = aside / "old", aside / "young"
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "series.parquet").write_bytes(b"half")
    part = aside / "part of a sweep"
    part.write_bytes(b"half")
    long_ago = time.time() - STALE_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    os.utime(part, (long_ago, long_ago))
    store.put(made)
    assert list(aside.iterdir()) == [young] and store.keys() == [made.key]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_loses_nothing(store, made, others, monkeypatch, name, code):
    store.put(others[0])
    real = store_module.write_synced

    def full(path, content):
        if path.name == name:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(code, os.strerror(code))
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_synced", full)
        with pytest.raises(StoreError, match=r"\(the disk is full\); nothing stored was changed") as error:
            store.put(made)
    assert "CHALKLINE_STORE" in sentence(error)
    assert store.keys() == [others[0].key] and store.verify() == {others[0].key: None}
    assert not list((store.path / "aside").iterdir())
    store.put(made)
    assert store.find(made.key).trace.sha256 == made.trace_sha256


@pytest.fixture
def read_only(monkeypatch):
    """Everything that would write to the disk fails, as on a file system mounted read-only."""

    def mount():
        refuse = raising(OSError(errno.EROFS, os.strerror(errno.EROFS)))
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(store_module.tempfile, "mkdtemp", refuse)
        monkeypatch.setattr(store_module.tempfile, "TemporaryFile", refuse)
        real = sqlite3.connect

        def connect(target, *args, **kwargs):
            if target == ":memory:":
                return real(target, *args, **kwargs)
            raise sqlite3.OperationalError("unable to open database file")

        monkeypatch.setattr(sqlite3, "connect", connect)

    return mount


def test_a_read_only_store_is_read_and_refuses_writing(lab, small, store, made, others, read_only):
    store.put(made)
    rows = store.rows()
    read_only()
    assert store.find(made.key).trace.sha256 == made.trace_sha256
    assert store.rows() == rows and store.verify() == {made.key: None}
    assert execute(lab, small, store=store).cached
    for write in (store.require_writable, lambda: store.put(others[0])):
        with pytest.raises(StoreError, match="Read-only file system") as error:
            write()
        assert "--no-store" in sentence(error)
    assert store.keys() == [made.key]


def test_damage_on_a_read_only_store_is_reported_though_it_cannot_be_moved(store, made, read_only):
    store.put(made)
    (folder_of(store, made) / "arrays.npz").write_bytes(b"broken")
    read_only()
    assert "could not be moved" in store.verify()[made.key]


def test_nothing_is_computed_that_could_not_be_kept(lab, endless):
    with pytest.raises(StoreError, match="cannot be written") as error:
        execute(lab, endless, store=Store("/proc/chalkline/store"))
    sentence(error)


def test_a_store_that_cannot_exist_is_empty(made):
    nowhere = Store("/proc/chalkline/store")
    assert nowhere.find(made.key) is None and nowhere.rows() == [] and nowhere.verify() == {}
