"""What the tests of the pages share: every lab's every preset, its finished runs, and the pictures drawn of them."""

from __future__ import annotations

from functools import cache

import pytest

from app.frame.page import AT_ONCE_SECONDS, lab_module
from app.frame.pictures import Picture
from app.frame.runs import View, cost
from app.frame.state import PageState, of_preset
from sims.engine import Params, Run, all_labs, execute, get_lab
from sims.engine.keys import run_key

QUICK_WORK = 1e9  # units of a lab's probes, a fraction of a second


def _work(lab_id: str, preset_id: str) -> float:
    lab = get_lab(lab_id)
    works = [(lab.work(params), params.replicates) for params in lab.runs(lab.preset(preset_id)).values()]
    return sum(replicates * sum(w.per_replicate.values()) + sum(w.once.values()) for w, replicates in works)


PRESETS = [
    pytest.param(
        lab.id,
        preset.id,
        id=f"{lab.id}-{preset.id}",
        marks=[pytest.mark.slow] if preset != lab.presets[0] and _work(lab.id, preset.id) > QUICK_WORK else [],
    )
    for lab in all_labs()
    for preset in lab.presets
]
# Where one preset of a lab says what there is to say, and the others are for the slow tests.
FIRST_PRESETS = [
    pytest.param(*preset.values, id=preset.id, marks=[] if preset.values[1] == first else [pytest.mark.slow])
    for lab in all_labs()
    for first in [lab.presets[0].id]
    for preset in PRESETS
    if preset.values[0] == lab.id
]


@cache
def _computed(lab_id: str, key: str, params: Params) -> Run:
    return execute(get_lab(lab_id), params)


def run_of(lab_id: str, params: Params) -> Run:
    return _computed(lab_id, run_key(get_lab(lab_id), params), params)


def view_of(lab_id: str, state: PageState, x: str = "step", label: str = "in focus") -> View:
    """The finished runs of a page, and those that its pictures need besides and a page computes unasked."""
    lab = get_lab(lab_id)
    runs = {name: run_of(lab_id, params) for name, params in {label: state.focus, **state.beside}.items()}
    view = View(lab, state, runs, x)
    needs = [p.needs for p in pictures_of(view) if cost(lab, p.needs) < AT_ONCE_SECONDS]
    fetched = {run_key(lab, params): run_of(lab_id, params) for group in needs for params in group}
    return View(lab, state, runs, x, False, fetched)


@cache
def preset_view(lab_id: str, preset_id: str, x: str = "step") -> View:
    lab = get_lab(lab_id)
    return view_of(lab_id, of_preset(lab, preset_id), x, lab.preset(preset_id).label)


def pictures_of(view: View) -> list[Picture]:
    return lab_module(view.lab.id).pictures(view)
