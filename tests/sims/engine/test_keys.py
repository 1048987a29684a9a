"""Keys: equal runs have equal keys, different runs do not."""

import hashlib
import json
from dataclasses import replace

from sims.engine import get_lab
from sims.engine.keys import Backend, family_key, run_key

LAB = get_lab("label_noise")
SMALL = LAB.params.make(steps=50)


def test_the_key_is_the_hash_of_canonical_json():
    identity = {
        "lab": "label_noise",
        "version": LAB.version,
        "backend": "numba",
        "device": "cpu",
        "dtype": "float64",
        "params": SMALL.active(),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    assert run_key(LAB, SMALL) == hashlib.sha256(text.encode()).hexdigest()


def test_what_makes_two_runs_different():
    others = [
        run_key(LAB, SMALL.replace(learning_rate=0.011)),
        run_key(LAB, SMALL.replace(seed=1)),
        run_key(LAB, SMALL.replace(replicates=5)),
        run_key(LAB, SMALL.replace(first_replicate=1)),
        run_key(LAB, SMALL, Backend(name="torch")),
        run_key(LAB, SMALL, Backend(device="cuda")),
        run_key(LAB, SMALL, Backend(dtype="float32")),
        run_key(replace(LAB, version=LAB.version + 1), SMALL),
        run_key(LAB, SMALL, version=LAB.version + 1),
    ]
    assert len({run_key(LAB, SMALL), *others}) == 1 + len(others) - 1, "the last two are the same run"


def test_spelling_does_not_matter():
    assert run_key(LAB, LAB.params.make(learning_rate=1)) == run_key(LAB, LAB.params.parse({"learning_rate": "1.0"}))


def test_a_family_shares_everything_but_the_count_of_replicates():
    family = family_key(LAB, SMALL)
    assert family == family_key(LAB, SMALL.replace(replicates=9, first_replicate=3)) != run_key(LAB, SMALL)
    assert family != family_key(LAB, SMALL.replace(seed=1))
    assert family_key(LAB, SMALL, Backend(dtype="float32")) != family


def test_which_of_several_equal_devices_is_no_part_of_the_key():
    keys = {run_key(LAB, SMALL, Backend("torch", device)) for device in ("cuda", "cuda:0", "cuda:1")}
    assert len(keys) == 1 and run_key(LAB, SMALL, Backend("torch", "cpu")) not in keys
