"""What all tests share: a run store of their own, kernels compiled once, and fuzzing that repeats itself."""

from pathlib import Path

import pytest
from hypothesis import settings

import sims.engine  # noqa: F401  (points Numba at the compiled cache before a theory's kernels are decorated)

settings.register_profile("chalkline", deadline=None, derandomize=True)
settings.load_profile("chalkline")


HERE = Path(__file__).parent
BROWSER = HERE / "browser"
SPREAD = {"test_contracts.py", "test_fuzz.py"}  # tests that share nothing but what is compiled
SAMPLES = "app/samples.py"  # whose runs of every preset are computed once in the worker of all tests that draw them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers of pytest-xdist take a file at a time; one takes all that drive the one server and its Chromium."""
    for item in items:
        if BROWSER in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif item.path.name not in SPREAD:
            shares = hasattr(getattr(item, "module", None), "preset_view")
            item.add_marker(pytest.mark.xdist_group(SAMPLES if shares else str(item.path.relative_to(HERE))))


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Each test has its own run store; compiled kernels and rates stay in the user's cache folder."""
    path = tmp_path / "store"
    monkeypatch.setenv("CHALKLINE_STORE", str(path))
    return path
