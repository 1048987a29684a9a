"""The container image: its recipe is sound, and replayed step by step it serves, warm before it is healthy.

No Docker engine is needed (see tests/image.py). The quick tests copy what the recipe copies and start it with the
packages at hand; the slow one installs the image's own, and runs it as its user on a read-only root.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sims.engine import lab_ids
from tests.image import PYTHON, ROOT, Image, can_enter, context, is_ignored, read

RECIPE = (ROOT / "Dockerfile").read_text()
LOCK = (ROOT / "requirements-image.lock").read_text()
STEPS = read(RECIPE)
LOCKED = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.M))

# Everything that a server may import, and what a page reads of its folder.
IMPORTS = """
import importlib, pkgutil, sys
import app, sims, theory
from app.frame.activities import activities
from sims.engine import all_labs

for package in (theory, sims, app):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("__main__", "full_scale", "app.main")):
            importlib.import_module(module.name)
assert all(lab.presets and activities()[lab.id] for lab in all_labs())
"""


def rest_of(word: str) -> list[str]:
    return [step.rest for step in STEPS if step.word == word]


# -- as it is written --------------------------------------------------------------------------------------------------


def test_the_linter_has_nothing_to_say_about_the_recipe():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_can_find_something(tmp_path):
    recipe = tmp_path / "Dockerfile"
    recipe.write_text("FROM python:latest\nRUN cd /tmp && sudo apt-get install curl\n")
    linter = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([linter, recipe], capture_output=True, check=False).returncode != 0


def test_what_could_not_be_replayed_is_noticed():
    with pytest.raises(ValueError, match="ADD is not replayed"):
        read("FROM x\nADD https://example.org/x /x\n")
    assert [step.word for step in read("# a\nRUN a \\\n    # no step\n    && b\nUSER 1")] == ["RUN", "USER"]


def test_the_base_and_the_packages_are_pinned():
    (base,) = rest_of("FROM")
    pinned = re.fullmatch(r"--platform=linux/amd64 python:(\d+\.\d+)\.\d+-slim-\w+", base)
    assert pinned and f"--python-version {pinned[1]} " in (ROOT / "Makefile").read_text()
    (install,) = [step for step in rest_of("RUN") if "pip install" in step]
    assert {"--require-hashes", "--only-binary"} <= set(install.split())
    assert install.endswith("-r requirements-image.lock")


def test_the_lock_pins_what_we_require_with_hashes_and_no_place():
    wanted = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert {name: LOCKED[name].removesuffix("+cpu") for name in wanted} == wanted
    assert LOCKED["torch"].endswith("+cpu")
    assert LOCK.count("--hash=sha256:") >= len(LOCKED)
    assert not re.search(r"://|file:|^-|/opt|/home", LOCK, re.M)


def test_nobody_in_particular_runs_it_and_it_writes_to_its_volumes_alone():
    image = Image(Path("/nowhere"))
    for step in STEPS:
        if step.word not in ("COPY", "RUN", "WORKDIR"):
            image.replay(step)
    assert image.user > 0 and image.volumes == ["/data", "/cache"]
    assert image.environment["CHALKLINE_STORE"] == "/data/store" and image.environment["CHALKLINE_CACHE"] == "/cache"
    assert image.environment["HOME"] == "/tmp"
    assert "/health" in " ".join(image.healthcheck)
    assert not re.search(r"(PASSWORD|SECRET|TOKEN|API_KEY)", RECIPE)


def test_the_build_is_sent_what_it_copies_and_nothing_else():
    sent = context()
    copied = [word for rest in rest_of("COPY") for word in rest.split()[:-1]]
    assert [name for name in sent if not any(name == one or name.startswith(f"{one}/") for one in copied)] == []
    assert {"app/main.py", "sims/engine/warm.py", ".streamlit/config.toml", "docs/ledger.json"} <= set(sent)
    assert is_ignored(".git/config") and is_ignored("tests/image.py") and is_ignored(".streamlit/secrets.toml")
    assert is_ignored("sims/engine/__pycache__/x.pyc") and is_ignored("app/x.pyc") and not is_ignored("app/labs/x.py")


# -- as it runs --------------------------------------------------------------------------------------------------------


def test_what_is_copied_is_whole(tmp_path):
    """Nothing of the copied folders is kept back; it compiles, and it runs from there with no variable set."""
    image = Image(tmp_path)
    for step in STEPS:
        image.replay(step, run=False)
    there = image.inside(image.folder)
    assert [path.name for path in there.iterdir() if path.name in ("tests", "benchmarks", ".git", ".venv")] == []
    for name in ("theory", "sims", "app", "docs"):
        own = {
            path.relative_to(ROOT) for path in (ROOT / name).rglob("*.*") if not is_ignored(str(path.relative_to(ROOT)))
        }
        assert {path for path in own if not (there / path).is_file() and (ROOT / path).is_file()} == set()
    (compiling,) = re.findall(r"python (-m compileall -q [\w ]+?)\s+&&", " ".join(rest_of("RUN")))
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CHALKLINE_CACHE": str(tmp_path / "cache")}
    for words in (compiling.split(), ["-m", "sims", "list", "--json"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=there, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert [lab["lab"] for lab in json.loads(done.stdout)] == list(lab_ids())


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Iterator[Image]:
    """The image with its own packages, after all steps of its recipe."""
    if not can_enter():
        pytest.skip("not run: replaying the recipe needs root on Linux")
    built = Image(tmp_path_factory.mktemp("image"))
    built.base()
    for step in STEPS:
        built.replay(step)
    yield built


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_replayed_it_serves_as_nobody_on_a_read_only_root_and_is_warm_before_it_is_healthy(image, tmp_path):
    listed = image.run(["pip", "list", "--format=freeze"])
    installed = dict(line.lower().replace("_", "-").split("==") for line in listed.split())
    assert {name: installed.get(name) for name in LOCKED} == LOCKED, "what the lock says, and no other"
    assert set(installed) - set(LOCKED) <= {"pip", "setuptools"}
    image.run(["python", "-c", IMPORTS])
    owners = {folder: image.inside(folder).stat().st_uid for folder in (*image.volumes, image.folder, PYTHON)}
    assert owners == {**dict.fromkeys(image.volumes, image.user), image.folder: 0, PYTHON: 0}

    # The port is the only thing that is not the recipe's: another one may be in use here.
    port = str(free_port())
    entry, check = ([word.replace("8501", port) for word in words] for words in (image.entrypoint, image.healthcheck))
    assert rest_of("EXPOSE") == ["8501"] and entry != image.entrypoint and check != image.healthcheck
    log = tmp_path / "log.txt"
    process = image.start(entry, log)
    try:
        colours = []
        while not colours or colours[-1] == "red":
            assert process.poll() is None, log.read_text()
            command, environment = image.command(check, read_only=True)
            done = subprocess.run(command, env=environment, capture_output=True, check=False)
            colours.append("red" if done.returncode else "green")
            said = log.read_text()
            if "Compiled kernels and rates are in /cache." not in said:
                assert colours[-1] == "red", "healthy before it was warm"
            time.sleep(0.5)
        assert colours[0] == "red"
        assert [lab for lab in lab_ids() if f"{lab}: warm in" not in said] == []
        assert "Read-only file system" not in said and "cannot be written" not in said and "Traceback" not in said
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.findall(r"^Uid:\s+(\d+)\s+(\d+)", status, re.M) == [(str(image.user), str(image.user))]
        assert re.findall(r"^(?:CapEff|CapBnd):\s+(\w+)", status, re.M) == ["0" * 16] * 2
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 200

        # Warmed for this processor: nothing is left to compile, and every default page is stored.
        def compiled() -> set[tuple[str, int]]:
            found = image.inside("cache").rglob("*.nbc")
            return {(str(path), path.stat().st_mtime_ns) for path in found}

        before = compiled()
        assert before and len(list(image.inside("data/store/runs").glob("??/*"))) >= len(lab_ids())
        image.run(["python", "-m", "sims", "warm"], read_only=True)
        assert compiled() == before
    finally:
        process.terminate()
        process.wait(60)
    written = [path for path in image.inside("srv").rglob("*") if path.stat().st_uid == image.user]
    assert written == [], "what it was made of is as it was"
