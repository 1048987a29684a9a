"""The worked example of CONTRIBUTING, put together in a copy of the tree: found, run, judged, shown and linted."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("app", "benchmarks", "docs", "sims", "tests", "theory")
FILES = ("CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml")
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LAB = "ou_variance"


def example() -> dict[str, str]:
    """The files of the example: a path in a code span on a line of its own, then a fenced block."""
    found = re.findall(r"^`([\w./-]+)`\n\n(`{3,})\w+\n(.*?)^\2$", TEXT, re.S | re.M)
    return {name: content for name, _, content in found}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the example in it; returns a function that runs Python there."""
    home = tmp_path_factory.mktemp("contributing")
    copy = home / "tree"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, *REQUIREMENTS):
        shutil.copy(ROOT / name, copy)
    for name, content in example().items():
        path = copy / name
        assert not path.exists(), f"{name} is already there"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    environment = {
        **os.environ,
        "CHALKLINE_STORE": str(home / "store"),
        "CHALKLINE_CACHE": str(home / "cache"),
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    python("-m", "tests.golden", LAB)
    return python


def passed(python, *arguments: str) -> int:
    """Run tests of the copy; returns how many passed."""
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    return int(re.search(r"(\d+) passed", said).group(1))


def test_the_example_is_whole():
    assert {name.split("/")[0] for name in example()} == {"app", "sims", "tests", "theory"}
    fenced = re.findall(r"^(`{3,})\w+\n.*?^\1$", TEXT, re.S | re.M)
    assert len(example()) == len(fenced), "each block has the name of its file above it"


def test_the_lab_is_found_run_and_judged(tree):
    assert LAB in [row["lab"] for row in json.loads(tree("-m", "sims", "list", "--json"))]
    run = json.loads(tree("-m", "sims", "run", LAB, "--json"))
    assert {claim["id"]: claim["verdict"] for claim in run["claims"]} == {
        "stationary_variance": "holds",
        "small_step_limit": "holds",
    }
    assert run["metrics"]["mean_square"]["mean"] == pytest.approx(0.05 / 1.95, rel=0.05)


@pytest.mark.slow
def test_the_commands_of_the_text_work(tree):
    spans = re.findall(r"`(python -m [^`]+)`", TEXT)
    lines = [" ".join(span.split()) for span in spans if LAB in span]
    assert len(lines) >= 3
    for line in lines:
        tree(*shlex.split(line)[1:])


PAGE = """
from streamlit.testing.v1 import AppTest

page = AppTest.from_string("from app.frame.page import lab_page; lab_page('{lab}')", default_timeout=60).run()
assert not page.exception and not page.error and not page.warning, (page.exception, page.error, page.warning)
assert page.title[0].value == "Noise and step size"
home = AppTest.from_file("app/main.py", default_timeout=60).run()
assert not home.exception and "Noise and step size" in [one.value for one in home.header]
"""


def test_its_page_opens_and_the_home_page_shows_it(tree):
    tree("-c", PAGE.format(lab=LAB))


def test_the_lints_its_own_tests_its_activity_and_its_golden_numbers_pass(tree):
    files = [name for name in example() if name.endswith(".py")]
    own = [name for name in files if name.startswith("tests/")]
    shared = [f"tests/test_{name}.py" for name in ("house", "golden", "docs")]
    lints = len(re.findall(r"^def test_", (ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"), re.M))
    assert passed(tree, *own, *shared, "-k", f"test_house or {LAB}") >= lints + 8 + 6
    tree("-m", "ruff", "check", "--no-cache", *files)


@pytest.mark.slow
def test_it_keeps_the_contracts_of_all_labs_and_its_theory_is_typed(tree):
    assert passed(tree, "tests/test_contracts.py", "-k", LAB) > 20
    assert passed(tree, "tests/app/test_formula.py", "-k", LAB) >= 4
    tree("-m", "mypy", "--cache-dir", os.devnull, f"theory/{LAB}.py")


@pytest.mark.slow
def test_its_full_scale_repeats_the_kernel_and_holds(tree):
    assert passed(tree, "tests/test_full_scale.py", "-k", LAB) >= 10
