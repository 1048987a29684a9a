"""The compiled cache: one folder for each version of a jitted module and of what it imports.

Numba stamps a cached kernel with its own source file, so that a kernel goes stale when a jitted helper in
another module changes. Here the folder is named by the hash of the file, of every project module it imports,
directly or not, and of the compiler's versions. Numba finds it through `NUMBA_CACHE_LOCATOR_CLASSES`.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCATOR = "sims.engine.numba_locator.ContentLocator,IPythonCacheLocator"  # the latter for a notebook's own
# The imports at the top of a file, found as text: CPython 3.11 counts the depth of a syntax tree for all threads
# together, so that two threads that parse at the same time may fail.
_COMMENT = re.compile(r"#.*")
_IMPORT = re.compile(r"^import +(.+)$", re.MULTILINE)
_FROM = re.compile(r"^from +(\.*)([\w.]*) +import +(\([^)]*\)|.+)$", re.MULTILINE)


@cache
def cache_root() -> Path:
    """The folder of compiled kernels and measured rates: `CHALKLINE_CACHE`, else the user's cache directory.

    A folder that cannot be written is replaced by a private temporary one, with a warning; it is shared with the
    processes that this one starts, and goes when it ends.
    """
    import atexit
    import shutil
    import tempfile
    import warnings

    import platformdirs

    wanted = Path(os.environ.get("CHALKLINE_CACHE") or platformdirs.user_cache_dir("chalkline"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        private = Path(tempfile.mkdtemp(prefix="chalkline-cache-"))
        os.environ["CHALKLINE_CACHE"] = str(private)
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        message = (
            f"The cache folder {wanted} cannot be written ({error.strerror}); kernels are compiled into "
            f"{private}. Set CHALKLINE_CACHE to a writable folder to keep them."
        )
        warnings.warn(message, stacklevel=2)
        return private


def install() -> None:
    """Tell Numba, imported or not yet, where compiled kernels live."""
    os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = LOCATOR
    numba_config = sys.modules.get("numba.core.config")
    if numba_config is not None:
        numba_config.CACHE_LOCATOR_CLASSES = LOCATOR  # type: ignore[attr-defined]


def folder_of(source: Path) -> Path:
    """The cache folder of the kernels in `source`, a file of this project."""
    relative = source.resolve().relative_to(ROOT).with_suffix("")
    return cache_root() / "compiled" / ".".join(relative.parts) / digest(source)


@cache
def digest(source: Path) -> str:
    """Hash of a module, of every project module it imports, and of the compiler's versions."""
    from importlib.metadata import version

    total = hashlib.sha256()
    for path in sorted(closure(source)):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    for library in ("numba", "llvmlite", "numpy"):
        total.update(f"{library}={version(library)};".encode())
    total.update(sys.version.encode())
    return total.hexdigest()[:24]


def closure(source: Path) -> set[Path]:
    """The file and the project files that it imports at its top, directly or not; no package's `__init__`."""
    found: set[Path] = set()
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [imported for imported in _imports(path) if imported not in found]
    return found


def _imports(path: Path) -> set[Path]:
    package = path.relative_to(ROOT).parent.parts
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    modules = [tuple(name.split(".")) for names in _IMPORT.findall(text) for name in _words(names)]
    for dots, module, names in _FROM.findall(text):
        base = package[: len(package) - len(dots) + 1] if dots else ()
        stem = (*base, *(module.split(".") if module else ()))
        modules += [stem, *((*stem, name) for name in _words(names))]
    candidates = (
        ROOT.joinpath(*parts).with_suffix(".py") for parts in modules if parts and parts[0] in ("sims", "theory")
    )
    return {candidate for candidate in candidates if candidate.is_file()}


def _words(names: str) -> list[str]:
    """What is imported, without the names that it is given."""
    return [name.split()[0] for name in names.strip("() \n").split(",") if name.strip()]


def sweep_stale() -> list[Path]:
    """Remove the folders of earlier versions of the present modules, and those of modules that are gone."""
    import shutil

    removed = []
    for folder in (cache_root() / "compiled").glob("*/*"):
        source = ROOT.joinpath(*folder.parent.name.split(".")).with_suffix(".py")
        if not source.is_file() or folder.name != digest(source):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed
