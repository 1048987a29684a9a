"""Drawing a figure without a browser; runs in a process of its own, so it imports nothing of the app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PNG_SCALE = 2.0


def render(spec: Mapping[str, Any], format: str) -> bytes:
    """A Vega-Lite spec as `svg` or `png` bytes."""
    import vl_convert

    if format == "svg":
        return str(vl_convert.vegalite_to_svg(dict(spec))).encode()
    return bytes(vl_convert.vegalite_to_png(dict(spec), scale=PNG_SCALE))
