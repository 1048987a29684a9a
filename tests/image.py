"""The Dockerfile, read and replayed without a Docker engine.

A folder stands in for the image's root: COPY fills it, and RUN, HEALTHCHECK and ENTRYPOINT run inside it, by `chroot`
in a mount namespace of their own. The base image is this machine's system and a new environment of this Python, both
read-only. That needs root on Linux; `read` and `Image.copy` need nothing.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT")
# How this machine reaches its package registry; nothing else comes from outside.
REGISTRY = re.compile(r"PIP_\w+|\w+_PROXY|\w+_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt")
PYTHON = "/python"  # the environment that stands in for the base image's Python

# root, read-only or not, the folders that stay writable; then what is run there.
ENTER = """
set -eu
root=$1 mode=$2 base=$3 writable=$4; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
for name in usr bin sbin lib lib32 lib64 libx32 opt; do
    if [ -d "$root/$name" ] && [ ! -L "$root/$name" ]; then mount --bind -o ro "/$name" "$root/$name"; fi
done
mount --bind -o ro "$base" "$root$base"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
if [ "$mode" = ro ]; then
    for folder in $writable; do mount --bind "$root$folder" "$root$folder"; done
    mount -o remount,bind,ro "$root"
fi
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    def parts(self) -> list[str]:
        """The words of an instruction in its JSON form."""
        found: list[str] = json.loads(self.rest)
        return found


def read(text: str) -> list[Instruction]:
    """The instructions of a recipe. Raises ValueError for one that is not replayed here."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word not in WORDS:
                raise ValueError(f"{word} is not replayed by the tests: {line.strip()}")
            found.append(Instruction(word, rest.strip()))
    return found


def context() -> list[str]:
    """What a build is sent: the files that git knows or would, without what .dockerignore keeps back."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in files if name and (ROOT / name).is_file() and not is_ignored(name)]


def is_ignored(name: str) -> bool:
    """Whether .dockerignore keeps this file back: the last pattern that matches it or a folder above decides."""
    ignored = False
    parts = name.split("/")
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            wanted = re.compile(_expression(pattern.removeprefix("!").strip("/")))
            if any(wanted.fullmatch("/".join(parts[:count])) for count in range(1, len(parts) + 1)):
                ignored = not pattern.startswith("!")
    return ignored


def _expression(pattern: str) -> str:
    """As `fnmatch`, but `*` ends at a slash and `**/` is any folders or none."""
    pieces = [fnmatch.translate(piece).removeprefix("(?s:").removesuffix(r")\Z") for piece in pattern.split("**/")]
    return "(?:.*/)?".join(piece.replace(".*", "[^/]*") for piece in pieces)


def patience(words: list[str]) -> dict[str, str]:
    """Let pip ask once where a package index of the command has no address here, not six times for each package."""
    for index in re.findall(r"--(?:extra-)?index-url[ =](\S+)", " ".join(words)):
        try:
            socket.getaddrinfo(urlsplit(index).hostname, 443)
        except socket.gaierror:
            return {"PIP_RETRIES": "0"}
    return {}


def can_enter() -> bool:
    """Whether this is root on a Linux that allows mounts, as the replay needs."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@dataclass
class Image:
    """What the instructions so far have made of the folder `root`."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: int = 0
    volumes: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def replay(self, instruction: Instruction, run: bool = True) -> None:
        """Do what an instruction says; without `run`, all but RUN."""
        word, rest = instruction.word, instruction.rest
        if word == "ENV":
            self.environment |= dict(piece.split("=", 1) for piece in shlex.split(rest))
        elif word == "WORKDIR":
            self.folder = rest
            self.inside(rest).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self.copy(rest.split())
        elif word == "RUN" and run:
            self.run(["sh", "-c", rest])
        elif word == "USER":
            self.user = int(rest)
        elif word == "VOLUME":
            self.volumes = instruction.parts()
        elif word == "HEALTHCHECK":
            self.healthcheck = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "ENTRYPOINT":
            self.entrypoint = instruction.parts()

    def inside(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / path.lstrip("/")

    def copy(self, words: list[str]) -> None:
        """COPY of files and folders of the context. Raises ValueError where there is none, or for an option."""
        *sources, target = words
        place = self.inside(os.path.normpath(os.path.join(self.folder, target)))
        for source in sources:
            files = [name for name in context() if name == source or name.startswith(f"{source}/")]
            if not files:
                raise ValueError(f"COPY {source}: the build is sent nothing of that name")
            for name in files:
                whole = (ROOT / source).is_file()
                to = place / source if whole else place / name.removeprefix(f"{source}/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, to)

    # -- in the folder as root ---------------------------------------------------------------------------------------

    def base(self) -> None:
        """The base image: this system's programs, a copy of its settings, and a new environment of this Python."""
        self.root.chmod(0o755)
        for name in SYSTEM:
            if Path("/", name).is_symlink():
                self.inside(name).symlink_to(os.readlink(f"/{name}"))
            elif Path("/", name).is_dir():
                self.inside(name).mkdir()
        for name in ("dev", "proc", sys.base_prefix):
            self.inside(name).mkdir(parents=True)
        self.inside("tmp").mkdir()
        self.inside("tmp").chmod(0o1777)
        shutil.copytree("/etc", self.inside("etc"), symlinks=True)
        search = f"{PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.environment = {"PATH": search, "LANG": "C.UTF-8", "HOME": "/root"}
        interpreter = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
        self.run([interpreter, "-m", "venv", PYTHON])

    def command(self, words: list[str], read_only: bool = False) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment with which these words run in the image."""
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *words]
        if self.user:
            group = next(
                line.split(":")[3]
                for line in self.inside("etc/passwd").read_text().splitlines()
                if line.split(":")[2] == str(self.user)
            )
            drop = ["setpriv", "--reuid", str(self.user), "--regid", group, "--clear-groups"]
            there = [*drop, "--no-new-privs", "--bounding-set", "-all", *there]
        mode, writable = ("ro", " ".join([*self.volumes, "/tmp"])) if read_only else ("rw", "")
        enter = ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(self.root), mode, sys.base_prefix, writable]
        registry = {name: value for name, value in os.environ.items() if REGISTRY.fullmatch(name)}
        return [*enter, *there], {"PATH": os.environ["PATH"], **registry, **patience(words), **self.environment}

    def run(self, words: list[str], read_only: bool = False) -> str:
        """What these words print. Raises AssertionError with all of it where they fail."""
        command, environment = self.command(words, read_only)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, words: list[str], log: Path) -> subprocess.Popen[bytes]:
        """These words as the container's own process, on a read-only root."""
        command, environment = self.command(words, read_only=True)
        with log.open("wb") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
