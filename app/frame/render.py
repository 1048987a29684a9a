"""Drawing a figure without a browser: a program of its own, which reads a spec and writes the figure.

It imports nothing of the app, so that it starts in a moment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

PNG_SCALE = 2.0


def render(spec: Mapping[str, Any], format: str, scale: float = PNG_SCALE) -> bytes:
    """A Vega-Lite spec as `svg` or `png` bytes; `scale` is of pixels."""
    import vl_convert

    if format == "svg":
        return str(vl_convert.vegalite_to_svg(dict(spec))).encode()
    return bytes(vl_convert.vegalite_to_png(dict(spec), scale=scale))


if __name__ == "__main__":
    sys.stdout.buffer.write(render(json.load(sys.stdin), sys.argv[1], float(sys.argv[2])))
