"""A lab, a run of milliseconds, and ways to lose rights that root has."""

import os
import shutil

import pytest

from sims.engine import execute, get_lab
from sims.engine.store import Store


@pytest.fixture(scope="session")
def lab():
    return get_lab("label_noise")


@pytest.fixture(scope="session")
def small(lab):
    return lab.params.make(steps=60, n_train=5, dim=8, sparsity=2, replicates=2)


@pytest.fixture(scope="session")
def made(lab, small):
    return [execute(lab, small.replace(seed=seed)) for seed in range(5)]


@pytest.fixture
def store(own_store):
    return Store(own_store)


@pytest.fixture
def as_anybody():
    """(command) -> the command without root's right to write where it is forbidden; as it is for everybody else."""

    def without(command):
        if os.geteuid() != 0:
            return command
        assert shutil.which("setpriv"), "run as root, this test needs setpriv (util-linux), or start it as a user"
        return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--", *command]

    return without
