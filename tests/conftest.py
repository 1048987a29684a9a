"""What all tests share: a run store of their own, kernels compiled once, and fuzzing that repeats itself."""

import pytest
from hypothesis import settings

import sims.engine  # noqa: F401  (points Numba at the compiled cache before a theory's kernels are decorated)

settings.register_profile("chalkline", deadline=None, derandomize=True)
settings.load_profile("chalkline")


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Each test has its own run store; compiled kernels and rates stay in the user's cache folder."""
    path = tmp_path / "store"
    monkeypatch.setenv("CHALKLINE_STORE", str(path))
    return path
