"""The compiled cache: found again when nothing changed, never stale when a helper did."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sims.engine import compiled

KERNEL = """
from numba import njit
from .helper import double

@njit(nogil=True, cache=True, error_model="numpy")
def six():
    return double(3)
"""
HELPER = """
from numba import njit

@njit(nogil=True, cache=True, error_model="numpy")
def double(x):
    return {factor} * x
"""
ASK = """
import sims.engine
from sims.toy.kernels import six
print(six(), sum(six.stats.cache_misses.values()), sum(six.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the engine with two jitted modules, one of which uses the other."""
    root = tmp_path / "project"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(compiled.ROOT / "sims" / "engine", root / "sims" / "engine", ignore=without)
    shutil.copy(compiled.ROOT / "sims" / "__init__.py", root / "sims")
    (root / "sims" / "toy").mkdir()
    (root / "sims" / "toy" / "kernels.py").write_text(KERNEL)
    (root / "sims" / "toy" / "helper.py").write_text(HELPER.format(factor=2))
    return root


def test_a_changed_helper_is_compiled_anew_and_an_unchanged_one_is_found(project, tmp_path):
    def ask():
        environment = {**os.environ, "CHALKLINE_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", ASK], cwd=project, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert ask() == ["6", "1", "0"]
    assert ask() == ["6", "0", "1"]
    (project / "sims" / "toy" / "helper.py").write_text(HELPER.format(factor=5))
    assert ask() == ["15", "1", "0"]
    assert not list(project.rglob("*.nbi")), "nothing compiled lies among the sources"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A few modules in which imports of every kind occur; returns a function path -> set of found modules."""
    contents = {
        "sims/a/kernels.py": "from ..shared.maths import f\nimport numpy as np\nfrom theory.t import g\n",
        "sims/shared/maths.py": "from . import deep\nfrom .deep import h\n",
        "sims/shared/deep.py": "import sims.a.kernels\n",
        "sims/a/lazy.py": "def late():\n    from . import kernels\n",
        "sims/b.py": "from os import path\nimport json\n",
        "theory/t.py": "g = 1\n",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "cache_root", lambda: tmp_path / "cache")
    compiled.digest.cache_clear()
    yield tmp_path
    compiled.digest.cache_clear()


def test_the_closure_follows_imports_and_ends_in_cycles(tree):
    def closure(name):
        return {path.relative_to(tree).as_posix() for path in compiled.closure(tree / name)}

    whole = {"sims/a/kernels.py", "sims/shared/maths.py", "sims/shared/deep.py", "theory/t.py"}
    assert closure("sims/a/kernels.py") == whole
    assert closure("sims/a/lazy.py") == {"sims/a/lazy.py"}
    assert closure("sims/b.py") == {"sims/b.py"}


@pytest.mark.parametrize(
    ("edited", "changes"), [("theory/t.py", True), ("sims/shared/deep.py", True), ("sims/b.py", False)]
)
def test_the_digest_changes_with_what_is_imported_only(tree, edited, changes):
    kernels = tree / "sims/a/kernels.py"
    before = compiled.digest(kernels)
    (tree / edited).write_text((tree / edited).read_text() + "x = 2\n")
    compiled.digest.cache_clear()
    assert (compiled.digest(kernels) != before) == changes


def test_stale_folders_are_swept_and_present_ones_stay(tree):
    present = compiled.folder_of(tree / "sims/a/kernels.py")
    stale, gone = present.with_name("0" * 24), present.parent.parent / "sims.gone.kernels" / ("0" * 24)
    for folder in (present, stale, gone):
        folder.mkdir(parents=True)
        (folder / "kernels.nbi").write_bytes(b"x")
    assert set(compiled.sweep_stale()) == {stale, gone}
    assert present.exists() and not stale.exists() and not gone.exists()


def test_a_cache_that_cannot_be_written_is_replaced_with_a_warning(monkeypatch):
    monkeypatch.setenv("CHALKLINE_CACHE", "/proc/chalkline")
    with pytest.warns(UserWarning, match="cannot be written.*CHALKLINE_CACHE"):
        private = compiled.cache_root.__wrapped__()
    assert private.is_dir() and private != Path("/proc/chalkline")
    assert private.stat().st_mode & 0o077 == 0, "nobody else may put kernels there"
    shutil.rmtree(private)


KERNEL_LOADED_FIRST = """
import os, subprocess, sys
from sims.toy.kernels import six
print(six(), os.environ["CHALKLINE_CACHE"], flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", CODE, "child"], check=True)
"""


def test_it_is_replaced_before_a_kernel_is_decorated_and_shared_with_children(project, tmp_path):
    """With cache and sources both unwritable Numba refuses to import a cached kernel at all."""
    code = f"CODE = {KERNEL_LOADED_FIRST!r}\n{KERNEL_LOADED_FIRST}"
    environment = {**os.environ, "CHALKLINE_CACHE": "/proc/chalkline", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    (number, private), (again, shared) = (line.split() for line in done.stdout.splitlines())
    assert number == again == "6" and private == shared and Path(private).parent == tmp_path
    assert done.stderr.count("cannot be written") == 1, "the child has nothing to warn of"
    assert list(tmp_path.glob("chalkline-cache-*")) == [], "it goes with the process"
