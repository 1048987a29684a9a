"""Everyone's ensemble: all stored replicates of a family as one band, drawn live, with their count."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from sims.engine import Lab, Params, Prediction, Run, predict
from sims.engine.budget import command_line
from sims.engine.errors import ReproducibilityAlarm
from sims.engine.keys import family_key
from sims.engine.pool import Family, Pool
from sims.engine.store import Store, Stored, as_stored

from ..frame.page import lab_module
from ..frame.pictures import Picture, every_run, overlay, x_axis, x_of
from ..frame.player import player
from ..frame.runs import View, server_jobs
from ..frame.state import PageState
from ..frame.words import escape

FRESH_SECONDS = 1.0  # for so long everybody is shown what was found last
SEARCH_SECONDS = 30.0  # so often runs are looked for that other programs have stored
MOST_FAMILIES = 64
CONFIDENCE = 0.95
_REPLICATES = ("first_replicate", "replicates")


@dataclass
class _Watched:
    family: Family
    looked: float = -math.inf
    searched: float = -math.inf
    pool: Pool | None = None
    alarm: str = ""


class Pools:
    """The families that somebody looks at, each read at most once a second, however many look."""

    def __init__(self, store: Store):
        self.store = store
        self._lock = threading.Lock()
        self._watched: OrderedDict[str, _Watched] = OrderedDict()

    def look(self, lab: Lab, params: Params) -> tuple[Pool | None, str]:
        """The family's pool, and the alarm where its runs are at odds."""
        key = family_key(lab, params)
        with self._lock:
            watched = self._watched.setdefault(key, _Watched(Family(self.store, lab, params, _remembered)))
            self._watched.move_to_end(key)
            while len(self._watched) > MOST_FAMILIES:
                self._watched.popitem(last=False)
            now = time.monotonic()
            if now - watched.looked < FRESH_SECONDS:
                return watched.pool, watched.alarm
            watched.looked = now
            search = now - watched.searched >= SEARCH_SECONDS
            watched.searched = now if search else watched.searched
        try:
            watched.pool, watched.alarm = watched.family.pool(catch_up=search), ""
        except ReproducibilityAlarm as alarm:
            watched.pool, watched.alarm = None, str(alarm)
        return watched.pool, watched.alarm


@cache
def server_pools() -> Pools:
    """The pools of this server process."""
    return Pools(Store())


def _remembered(key: str) -> Stored | None:
    run = server_jobs().recall(key)
    return None if run is None else as_stored(run)


def of_room(params: Params, seed: int) -> Params:
    """The params whose family the class builds: those of the teacher's page with the room's seed."""
    return params.replace(seed=seed, first_replicate=0, replicates=1)


def of_seat(params: Params, seed: int, number: int) -> Params:
    """The run of one seat: one replicate of the room's seed."""
    return params.replace(seed=seed, first_replicate=number, replicates=1)


def count_words(lab: Lab, params: Params, seats: int = 0) -> str:
    """How many replicates of this family are stored, of those that a room has given the numbers of."""
    pool, _ = server_pools().look(lab, params)
    count = 0 if pool is None else len(pool.numbers)
    return f"{count} of {seats} computed" if seats else f"{count} computed"


def show(lab: Lab, params: Params, *, x: str, present: bool) -> None:
    """The band of all stored replicates of this family; or the alarm, where two of them are at odds."""
    pool, alarm = server_pools().look(lab, params)
    if alarm:
        st.error(escape(alarm), icon=":material/notification_important:")
    if pool is not None:
        metric = told_series(lab, _prediction(family_key(lab, params), lab, params))
        drawn = _drawn(f"{family_key(lab, params)} {pool.trace.sha256} {x} {metric}", pool, x, metric)
        player([drawn.for_player()], steps=None, step_label="step", key=f"ensemble/{lab.id}", present=present)
        st.caption(bits(pool))


def told_series(lab: Lab, prediction: Prediction) -> str:
    """The recorded series that has a chalk line here: the lab's own, else the first one; without any, the lab's own."""
    own: str = lab_module(lab.id).STORY.metric  # type: ignore[attr-defined]
    return next((name for name in (own, *lab.series) if prediction.prediction.get(name) is not None), own)


def bits(pool: Pool) -> str:
    """Which one run has the same bits, where there is one."""
    if not pool.is_gapless:
        last = pool.numbers[-1]
        missing = last - pool.numbers[0] + 1 - len(pool.numbers)
        return f"Of the replicates {pool.numbers[0]} to {last}, {missing} are not computed yet."
    return f"The same bits (trace `{pool.trace.sha256[:12]}`) as one run: `{command_line(pool.lab, pool.as_one)}`"


@st.cache_resource(max_entries=MOST_FAMILIES, show_spinner=False)
def _drawn(identity: str, _pool: Pool, x: str, metric: str) -> Picture:
    """The picture, remembered under what it shows: a class looks at the same one."""
    return picture_of(_pool, x, metric)


def picture_of(pool: Pool, x: str, metric: str) -> Picture:
    """The band of a pool with its chalk line: the 10 to 90 percent of the replicates, and where their median lies."""
    lab, count = pool.lab, len(pool.numbers)
    label = f"{count} replicate{'s' if count > 1 else ''}"
    run = _as_run(pool, _prediction(family_key(lab, pool.params), lab, pool.params))
    view = View(lab, PageState(lab.presets[0].id, pool.params), {label: run}, x=x)
    chalk = metric if run.prediction.prediction.get(metric) is not None else None
    curves = every_run(view, metric, chalk)
    title = f"Everyone's {lab.quantity(metric).label}"
    drawn = overlay(view, curves, id="ensemble", title=title)
    within = median_interval(run.trace.series[metric])
    note = f"Solid: median of {label}, band from 10 to 90 percent. Dashed: theory."
    if within is None:
        return replace(drawn, note=note, frames={}, steps=None, spec=_still(drawn.spec))
    x_values = x_of(view, run)
    kept = np.isfinite(within).all(axis=0) & ((x_values > 0) if x_axis(view)[1] else np.isfinite(x_values))
    log = lab.quantity(metric).scale == "log"
    kept &= (within[0] > 0) if log else kept
    table = {"run": np.full(kept.sum(), label, dtype=object), "x": x_values[kept]}
    table |= {"least": within[0][kept], "most": within[1][kept]}
    return replace(
        drawn,
        spec=_with_interval(_still(drawn.spec)),
        data={**drawn.data, "within": table},
        frames={},
        steps=None,
        note=f"{note} Darker: where the median of endlessly many replicates lies, with 95 percent confidence.",
    )


def median_interval(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(2, T) order statistics of (R, T) between which the median of the law lies with 95 percent confidence.

    From the binomial law, whatever the law of the values; None below six replicates, where there is no such pair.
    Values that are not finite, of replicates that diverged, count as beyond all others.
    """
    count = len(values)
    below = [math.comb(count, k) / 2.0**count for k in range(count // 2)]
    rank = int(np.searchsorted(np.cumsum(below), (1.0 - CONFIDENCE) / 2.0, side="right"))
    if rank == 0:
        return None
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=0)
    within = np.stack([ordered[rank - 1], ordered[count - rank]])
    return np.where(np.isfinite(within), within, np.nan)


@st.cache_resource(max_entries=MOST_FAMILIES, show_spinner=False)
def _prediction(key: str, _lab: Lab, _params: Params) -> Prediction:
    return predict(_lab, _params)


def _as_run(pool: Pool, prediction: Prediction) -> Run:
    """What an overlay needs of a run; the numbers may have gaps."""
    return Run(
        lab=pool.lab.id,
        version=pool.lab.version,
        params=pool.params,
        key="",
        family=family_key(pool.lab, pool.params),
        cached=True,
        trace=pool.trace,
        prediction=prediction,
        derived={},
        provenance={},
        wall_s=pool.wall_s,
    )


def _still(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec without the layer that follows the clock."""
    return {**spec, "layer": [layer for layer in spec["layer"] if layer["data"]["name"] != "now"]}


def _with_interval(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A second, darker band over the first."""
    band = spec["layer"][0]
    encoding = dict(band["encoding"])
    encoding["y"] = {**encoding["y"], "field": "least"}
    encoding["y2"] = {**encoding["y2"], "field": "most"}
    inner = {**band, "data": {"name": "within"}, "encoding": encoding}
    inner["mark"] = {**band["mark"], "opacity": 0.4}
    return {**spec, "layer": [band, inner, *spec["layer"][1:]]}
