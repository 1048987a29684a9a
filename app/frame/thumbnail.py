"""A run at the size of a thumb: one series and its chalk line, without axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sims.engine import Lab, Run

from .curves import quantile

WIDTH, HEIGHT = 160, 60  # pixels
POINTS = 60
_INK, _CHALK = "#3a87c0", "#8a8f98"  # seen on white and on black


def thumbnail(lab: Lab, run: Run, metric: str, log_x: bool) -> str:
    """The median of a recorded series and what is predicted of it, as SVG."""
    step = run.trace.step.astype(np.float64)
    x = np.log(np.maximum(step, 0.5)) if log_x else step
    lines = {"chalk": run.prediction.prediction.get(metric), "run": quantile(run.trace.series[metric], 0.5)}
    log_y = lab.quantity(metric).scale == "log"
    values = {name: _scaled(line, len(x), log_y) for name, line in lines.items() if line is not None}
    finite = np.concatenate([one[np.isfinite(one)] for one in values.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = (high - low) or 1.0
    drawn = []
    for name, line in values.items():
        at = np.unique(np.linspace(0, len(x) - 1, POINTS).astype(int))
        at = at[np.isfinite(line[at])]
        across = 3 + (WIDTH - 6) * (x[at] - x[0]) / max(x[-1] - x[0], 1e-12)
        up = HEIGHT - 4 - (HEIGHT - 8) * (line[at] - low) / span
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
        look = f'stroke="{_CHALK}" stroke-dasharray="4 3"' if name == "chalk" else f'stroke="{_INK}"'
        drawn.append(f'<polyline points="{points}" fill="none" stroke-width="1.8" {look}/>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(drawn)}</svg>'


def _scaled(line: object, length: int, log: bool) -> NDArray[np.float64]:
    values = np.broadcast_to(np.asarray(line, dtype=np.float64), (length,))
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(values), np.nan)
