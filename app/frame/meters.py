"""End values of runs as bars, with what theory says of each as a tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np

from .overlays import columns
from .pictures import PALETTE, Picture, layered
from .runs import View


def meters(
    view: View, metrics: Mapping[str, str], *, id: str, title: str, note: str, domain: tuple[float, float] = (0.0, 1.0)
) -> Picture:
    """A bar for each of `metrics`, {name: words}, of each run: the mean over replicates with its standard error.

    A tick is drawn where theory claims a number at the end of the run. What is not defined has no bar, and says so;
    so does what is 0.
    """
    bars: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    silent: list[dict[str, Any]] = []
    sentences = []
    for label, run in view.runs.items():
        said = []
        for name, words in metrics.items():
            found = run.metrics[name]
            place = {"run": label, "metric": words}
            if found.mean is None:
                silent.append({**place, "value": domain[0], "words": "undefined"})
                said.append(f"{words} undefined")
            else:
                low, high = (found.mean + sign * (found.se or 0.0) for sign in (-1.0, 1.0))
                bars.append({**place, "value": found.mean, "low": low, "high": high})
                if abs(found.mean) < 0.005 * (domain[1] - domain[0]):
                    silent.append({**place, "value": 0.0, "words": f"{found.mean:.1g}"})  # a bar too short to be seen
                said.append(f"{words} {found.mean:.3g}")
            predicted = run.prediction.prediction.get(name)
            if predicted is not None and run.prediction.claimed(name)[-1]:
                ticks.append({**place, "value": float(np.asarray(predicted).reshape(-1)[-1])})
        sentences.append(f"{label}: {', '.join(said)}.")
    labels = list(view.runs)
    order = list(metrics.values())
    scale = alt.Scale(domain=list(domain), nice=False)
    x = alt.X("value:Q", title=None, scale=scale, axis=alt.Axis(tickCount=5, format="~g"))
    y = alt.Y(
        "metric:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labelLimit=190, ticks=False, domain=False),
    )
    offset = alt.YOffset("run:N", sort=labels, scale=alt.Scale(domain=labels, paddingInner=0.12))
    hues = alt.Scale(domain=labels, range=[PALETTE[i % len(PALETTE)] for i in range(len(labels))])
    legend = (
        alt.Legend(title=None, orient="top", columns=columns(labels), labelLimit=300, symbolSize=110)
        if len(labels) > 1
        else None
    )
    colour = alt.Color("run:N", sort=labels, scale=hues, legend=legend)
    low = alt.X("low:Q", title=None, scale=scale)
    drawn = {
        "bars": [
            alt.Chart(alt.NamedData("bars")).mark_bar(clip=True).encode(x, y, offset, colour),
            alt.Chart(alt.NamedData("bars"))
            .mark_rule(strokeWidth=1.6, color="$text", clip=True)
            .encode(low, y, offset, alt.X2("high:Q")),
        ],
        "ticks": [
            alt.Chart(alt.NamedData("ticks"))
            .mark_tick(color="$text", thickness=3, orient="vertical", bandSize=26, clip=False)
            .encode(x, y, offset)
        ],
        "silent": [
            alt.Chart(alt.NamedData("silent"))
            .mark_text(align="left", dx=6, fontSize=13, color="$text")
            .encode(x, y, offset, text=alt.Text("words:N"))
        ],
    }
    tables = {"bars": bars, "ticks": ticks, "silent": silent}
    data = {
        name: {column: [row[column] for row in rows] for column in rows[0]} for name, rows in tables.items() if rows
    }
    layers: list[Any] = [layer for name in data for layer in drawn[name]]
    return Picture(
        id=id,
        title=title,
        spec=layered(*layers),
        alt=" ".join(sentences),
        data=data,
        note=note,
    )
