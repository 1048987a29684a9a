"""The runs that a browser tab has shown: kept in its session, to be opened, named, compared and taken away."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from sims.engine import Lab, Params, Run, get_lab
from sims.engine.describe import caption
from sims.engine.errors import DamagedRun
from sims.engine.export import export
from sims.engine.params import format_value
from sims.engine.store import Stored, as_stored

from .export import safe_text
from .runs import View, server_jobs
from .state import PageState
from .thumbnail import thumbnail

MOST = 200  # of a tab; the oldest without a name go first
_HELD = "seen"


@dataclass(frozen=True)
class Seen:
    """A run that was shown: enough to open it again, and what it was called."""

    lab: str
    label: str
    preset: str
    params: Params
    key: str
    version: int
    trace_sha256: str
    metrics: Mapping[str, float | None]
    wall_s: float
    computed: bool
    name: str = ""
    picture: str = ""  # SVG

    @property
    def title(self) -> str:
        return self.name or self.label

    @property
    def state(self) -> PageState:
        """The page with this run alone."""
        return PageState(self.preset, self.params)


def note(view: View, metric: str) -> None:
    """Keep the runs of a page that has just been drawn, each with a small picture of the series `metric`; one that is
    known stays where it is.
    """
    held: dict[str, Seen] = st.session_state.setdefault(_HELD, {})
    for label, run in view.runs.items():
        if run.key not in held:
            held[run.key] = Seen(
                lab=view.lab.id,
                label=label,
                preset=view.state.preset,
                params=run.params,
                key=run.key,
                version=run.version,
                trace_sha256=run.trace_sha256,
                metrics={name: metric.mean for name, metric in run.metrics.items()},
                wall_s=run.wall_s,
                computed=not run.cached,
                picture=_thumbnail(key=run.key, metric=metric, log_x=view.x == "log_step", _lab=view.lab, _run=run),
            )
    excess = len(held) - MOST
    for key in [key for key, one in held.items() if not one.name][: max(0, excess)]:
        del held[key]


@st.cache_resource(max_entries=MOST, show_spinner=False)
def _thumbnail(key: str, metric: str, log_x: bool, _lab: Lab, _run: Run) -> str:
    """A run's small picture, remembered by its key: a class looks at the same runs."""
    return thumbnail(_lab, _run, metric, log_x)


def seen() -> list[Seen]:
    """The tab's runs, the latest first."""
    return list(reversed(st.session_state.get(_HELD, {}).values()))


def rename(key: str, name: str) -> None:
    """Call a run by a name of its own; an empty one gives its label back."""
    held: dict[str, Seen] = st.session_state[_HELD]
    held[key] = replace(held[key], name=" ".join(name.split()))


def at_hand(one: Seen) -> Stored | None:
    """The run with its trace, from memory or from the store; none when neither has it any more."""
    jobs = server_jobs()
    run = jobs.recall(one.key)
    if run is not None:
        return as_stored(run)
    try:
        return None if jobs.store is None else jobs.store.find(one.key)
    except DamagedRun:
        return None


def table(runs: Sequence[Seen]) -> pd.DataFrame:
    """A row for each run: what it is called, where it comes from, its active params and the means of its metrics."""
    rows = []
    for one in runs:
        plain = {"name": one.title, "lab": one.lab, "version": one.version, "key": one.key, "trace": one.trace_sha256}
        given = {name: format_value(value) for name, value in one.params.active().items()}
        rows.append(plain | given | {f"mean of {name}": mean for name, mean in one.metrics.items()})
    return pd.DataFrame(rows)


def archive(runs: Sequence[Seen]) -> bytes:
    """A zip file: `runs.csv` and, of each run that is at hand, the JSON that `python -m sims rerun` reads and a CSV."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        overview = table(runs)
        for column in overview.select_dtypes(include=["object", "string"]).columns:
            overview[column] = overview[column].map(safe_text)
        file.writestr("runs.csv", overview.to_csv(index=False))
        gone = []
        for one in runs:
            stored = at_hand(one)
            if stored is None:
                gone.append(f"{one.key}  {caption(get_lab(one.lab), one.params)}")
                continue
            stem = f"{_file_name(one.title)}-{one.lab}-{one.key[:12]}"
            for format in ("json", "csv"):
                file.writestr(f"{stem}.{format}", export(stored, format))
        if gone:
            file.writestr("not-at-hand.txt", "Neither in memory nor stored any more:\n" + "\n".join(gone) + "\n")
    return sink.getvalue()


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:40] or "run"
