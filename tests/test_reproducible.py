"""The same number tomorrow: known answers of the generators, other libraries' settings, and reruns of stored runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from sims.engine import ChalklineError, cli, compiled, execute, get_lab, lab_ids
from sims.engine.budget import estimate
from sims.engine.store import Store
from tests import golden
from tests.test_contracts import draw_params

# Philox 4x64-10 of counter 0 and key 0, as published with Random123; NumPy counts before it draws.
KNOWN = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)


def test_philox_gives_its_known_answers():
    assert tuple(np.random.Philox(counter=2**256 - 1, key=0).random_raw(4)) == KNOWN


@njit(nogil=True, error_model="numpy")
def drawn(kind, rng, out):
    for i in range(out.size):
        if kind == 0:
            out[i] = rng.standard_normal()
        elif kind == 1:
            out[i] = rng.random()
        elif kind == 2:
            out[i] = rng.integers(0, 1000)
        elif kind == 3:
            out[i] = rng.chisquare(3.0)
        else:
            out[i] = rng.standard_exponential()


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [(0, "standard_normal", ()), (1, "random", ()), (2, "integers", (0, 1000)), (3, "chisquare", (3.0,)),
     (4, "standard_exponential", ())],
)  # fmt: skip
def test_a_kernel_draws_what_numpy_draws_one_by_one_or_in_a_block(kind, name, arguments):
    """100,000 draws of each kind that a lab uses: no mismatch."""

    def fresh():
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(5, spawn_key=(kind, 0))))

    out, alone = np.empty(100_000), fresh()
    drawn(kind, fresh(), out)
    np.testing.assert_array_equal(out, getattr(fresh(), name)(*arguments, size=out.size))
    np.testing.assert_array_equal(out[:1000], [getattr(alone, name)(*arguments) for _ in range(1000)])


ELSEWHERE = """
import json, sys
from sims.engine import execute, get_lab
from tests import golden
found = {}
for lab_id in sys.argv[1:]:
    lab = get_lab(lab_id)
    found[lab_id] = [golden.compute(lab, run["params"]) for run in golden.read(lab)["runs"]]
print(json.dumps(found))
"""


def golden_elsewhere(labs, **environment):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *labs], cwd=compiled.ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def agree(found):
    """Each lab's golden runs: bit for bit, or within its grade-B tolerance, and which."""
    for lab_id, runs in found.items():
        lab = get_lab(lab_id)
        recorded = [golden.compute(lab, run["params"]) for run in golden.read(lab)["runs"]]
        for ours, theirs in zip(recorded, runs, strict=True):
            if ours["trace_sha256"] != theirs["trace_sha256"]:
                print(f"{lab_id}: numbers compared")
                assert golden._worst(lab, ours, theirs) == "", (lab_id, ours["params"])


@pytest.mark.slow
def test_threads_of_the_linear_algebra_move_no_bit():
    """Held at one thread whatever the environment asks for."""
    found = golden_elsewhere(lab_ids(), OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2")
    for lab_id, runs in found.items():
        lab = get_lab(lab_id)
        ours = [golden.compute(lab, run["params"])["trace_sha256"] for run in golden.read(lab)["runs"]]
        assert [run["trace_sha256"] for run in runs] == ours, lab_id


@pytest.mark.slow
@pytest.mark.parametrize("features", ["X86_V4 AVX512_ICL AVX512_SPR", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"])
def test_numpy_without_its_vector_extensions_agrees(features):
    """As on a processor without AVX512, and without AVX2. Names are those of this NumPy's dispatch."""
    from numpy._core._multiarray_umath import __cpu_dispatch__

    known = " ".join(name for name in features.split() if name in __cpu_dispatch__)
    assert known, "NumPy has renamed its features"
    agree(golden_elsewhere(lab_ids(), NPY_DISABLE_CPU_FEATURES=known))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_for_a_generic_processor_agree(tmp_path):
    """Everything is compiled anew, into a cache of its own."""
    environment = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "CHALKLINE_CACHE": str(tmp_path / "cache")}
    agree(golden_elsewhere(lab_ids(), **environment))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_stored_runs_drawn_at_random_are_rerun_to_the_same_bits(own_store, capsys):
    """`rerun --check` over labs, params and seeds, seed 50: 50 of 50."""
    rng, store = random.Random(50), Store(own_store)
    while len(store.keys()) < 50:
        lab = get_lab(rng.choice(lab_ids()))
        params = draw_params(lab, rng)
        budget = estimate(lab, params)
        if budget.seconds > 0.05 or budget.bytes > 2e8:
            continue
        try:
            execute(lab, params, store=store)
        except ChalklineError:
            continue
    for key in tuple(store.keys()):
        assert cli.main(["rerun", key, "--check"]) == 0
        assert "Grade A: bit for bit the same." in capsys.readouterr().out
