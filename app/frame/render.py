"""Drawing a figure without a browser: a program of its own, which reads a spec and writes the figure.

It imports nothing of the app, so that it starts in a moment.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

INCHES = 5.5  # the width of text on a page of a paper
PPI = 300.0
NICENESS = 10  # a figure waits for pages, as a long run does
_POINTS = 72.0
_SIZE = re.compile(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"')


def render(spec: Mapping[str, Any], format: str, inches: float = INCHES, ppi: float = PPI) -> bytes:
    """A Vega-Lite spec as `svg`, `pdf` or `png` bytes, `inches` wide; `ppi` is that of a png."""
    import vl_convert

    svg = str(vl_convert.vegalite_to_svg(dict(spec)))
    found = _SIZE.search(svg)
    if found is None:
        raise ValueError("the renderer wrote a figure without a size")
    width, height = float(found[2]), float(found[3])

    def sized(side: float, unit: str) -> str:
        """The figure this wide, in this unit; what it draws stays as it is."""
        head = f'{found[1]} width="{side:.6g}{unit}" height="{side * height / width:.6g}{unit}"'
        return svg[: found.start()] + head + svg[found.end() :]

    if format == "svg":
        return sized(inches, "in").encode()
    if format == "pdf":
        return bytes(vl_convert.svg_to_pdf(sized(inches * _POINTS, "")))  # a pixel of it is a point
    return bytes(vl_convert.svg_to_png(svg, scale=inches * _POINTS / width, ppi=ppi))


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    sys.stdout.buffer.write(render(json.load(sys.stdin), sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
