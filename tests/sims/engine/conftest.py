"""A lab, three sizes of run (at once, without an end in sight, and one that was made), and the command line."""

import pytest

from sims.engine import cli, execute, get_lab
from sims.engine.store import Store


@pytest.fixture(scope="session")
def lab():
    return get_lab("label_noise")


@pytest.fixture(scope="session")
def small(lab):
    """A run of milliseconds."""
    return lab.params.make(steps=60, n_train=5, dim=8, sparsity=2, replicates=3)


@pytest.fixture(scope="session")
def endless(small):
    """A run of minutes."""
    return small.replace(steps=10**9, replicates=2)


@pytest.fixture(scope="session")
def made(lab, small):
    """The small run, computed."""
    return execute(lab, small)


@pytest.fixture
def store(own_store):
    return Store(own_store)


@pytest.fixture
def call(capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
