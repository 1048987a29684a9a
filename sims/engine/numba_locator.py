"""Numba's side of the compiled cache; imported by Numba itself, when the first kernel is decorated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numba.core.caching import UserProvidedCacheLocator

from .compiled import ROOT, cache_root, digest, folder_of


class ContentLocator(UserProvidedCacheLocator):
    """Finds the folder of a kernel by the content of its module and of what that imports."""

    def __init__(self, py_func: Any, py_file: str):
        self._source = Path(py_file)
        self._inside = ROOT in self._source.resolve().parents
        self._lineno = py_func.__code__.co_firstlineno
        self._py_file = py_file
        own = cache_root() / "compiled-elsewhere" / self.get_suitable_cache_subpath(py_file)
        self._cache_path = str(folder_of(self._source) if self._inside else own)

    def get_source_stamp(self) -> Any:
        return digest(self._source) if self._inside else super().get_source_stamp()

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ContentLocator | None:
        if not Path(py_file).is_file():
            return None
        locator = cls(py_func, py_file)
        locator.ensure_cache_path()
        return locator
