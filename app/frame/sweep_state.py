"""The sweep page's state, and the link that holds it.

Axes are written as the command line writes them, so that a link can be read and written by hand:

    /sweeps?lab=label_noise&v=2&preset=shape_matters&n_train=40&grid=sparsity=1:20:8&metric=recovered
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlencode

import numpy as np

from sims.engine import BadInput, Lab, Params, all_labs, get_lab
from sims.engine.design import NOT_AXES, Design, grid_design, parse_axis
from sims.engine.errors import Problem, shorten
from sims.engine.params import Value, format_value
from sims.engine.sweep import Plan, plan_sweep

from .form import ENSEMBLE
from .page import lab_module
from .state import TAB_KEYS, PageState, decode, encode
from .sweep_story import Axis, SweepStory

CLAIM = "claim:"
VIEWS = {"measured": "simulation", "theory": "theory", "difference": "simulation − theory"}
OWN_KEYS = ("lab", "v", "preset", "grid", "metric", "theory_only", "show")
MOST_AXES = 2
MOST_VALUES = 40  # of an axis on a page
MOST_CELLS = 1600
DEFAULT_SECONDS = 30.0  # on one core, of the sweep that a lab without a story opens with
_DEFAULT_SIZES = ((8, 6), (6, 5), (5, 4), (4, 3), (6, 0), (4, 0), (3, 0))


@dataclass(frozen=True)
class SweepState:
    """What the sweep page shows: the points and what is drawn of them.

    `grid` holds one or two axes as texts, `metric` a series or metric of the lab or `claim:` with a claim's id,
    `show` one of VIEWS.
    """

    lab: str
    preset: str
    base: Params
    grid: tuple[str, ...]
    metric: str
    theory_only: bool = False
    show: str = "measured"

    @property
    def claims(self) -> bool:
        """Whether the claims of each point are judged: where one of them is what is shown."""
        return self.metric.startswith(CLAIM)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields swept."""
        return tuple(text.partition("=")[0] for text in self.grid)


def sweep_story(lab: Lab) -> SweepStory:
    """What the lab's page module declares as SWEEP; else an empty story."""
    found = getattr(lab_module(lab.id), "SWEEP", None)
    return found if isinstance(found, SweepStory) else SweepStory()


def axes_of(state: SweepState) -> tuple[Axis, ...]:
    """The axes with their values. Raises BadInput."""
    lab = get_lab(state.lab)
    parsed = [parse_axis(lab, text) for text in state.grid]
    return tuple(Axis(lab.params.fields()[name], values) for name, values in parsed)


def design_of(state: SweepState) -> Design:
    """The design of the sweep, as the command line makes it: its base says nothing of what is swept.

    Raises BadInput.
    """
    axes = axes_of(state)
    base = state.base
    with contextlib.suppress(BadInput):  # the rest of the base may need its own value of a swept field
        base = base.make({name: value for name, value in base.changed().items() if name not in state.names})
    return grid_design(get_lab(state.lab), base, {axis.name: axis.values for axis in axes})


@lru_cache(maxsize=256)
def _planned(lab: str, base: Params, grid: tuple[str, ...], claims: bool, theory_only: bool) -> Plan:
    state = SweepState(lab, "", base, grid, "", theory_only)
    return plan_sweep(design_of(state), claims=claims, theory_only=theory_only)


def plan_of(state: SweepState) -> Plan:
    """The sweep's plan. Raises BadInput, and TooLarge for more points than any sweep may have."""
    return _planned(state.lab, state.base, state.grid, state.claims, state.theory_only)


def metric_options(lab: Lab, base: Params) -> dict[str, str]:
    """What can be shown of each point, with its words: series and metrics, then claims about such a run alone."""
    numbers = {name: quantity.label for name, quantity in {**lab.series, **lab.metrics}.items()}
    own = [claim for claim in lab.claims if claim.over is None and claim.about(base)]
    return {**numbers, **{f"{CLAIM}{claim.id}": f"verdict: {shorten(claim.statement, 70)}" for claim in own}}


# -- defaults ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _default(lab_id: str) -> SweepState:
    lab = get_lab(lab_id)
    story = sweep_story(lab)
    preset = lab.preset(story.preset) if story.preset else lab.presets[0]
    return _of_base(lab, preset.id, lab.focus(preset).replace(**story.base))


def _of_base(lab: Lab, preset: str, base: Params) -> SweepState:
    """The lab's own axes and metric, those that such a run has; else axes made from the sliders' ranges."""
    story = sweep_story(lab)
    metric = story.metric or lab_module(lab.id).STORY.metric  # type: ignore[attr-defined]
    wanted = [(name, text) for name, text in ((story.x, story.x_range), (story.y, story.y_range)) if name]
    grid = [f"{name}={text}" if text else axis_text(base, name) for name, text in wanted if base.is_active(name)]
    state = SweepState(lab.id, preset, base, tuple(grid), metric)
    return state if grid else _affordable(lab, state)


def default_state(lab: Lab) -> SweepState:
    """The sweep that a lab's page of sweeps opens with: the lab's own, or one made from the sliders' ranges."""
    return _default(lab.id)


def _affordable(lab: Lab, state: SweepState) -> SweepState:
    """The state with axes over its first two sliders, as many points as take no longer than DEFAULT_SECONDS."""
    x, y = (*_sliders(state.base), "", "")[:2]
    if not x:
        raise BadInput(f"{lab.id} has no parameter to sweep over.")
    for columns, rows in _DEFAULT_SIZES:
        grid = (axis_text(state.base, x, columns), *([axis_text(state.base, y, rows)] if rows and y else []))
        found = replace(state, grid=grid)
        if plan_of(found).seconds <= DEFAULT_SECONDS:
            break
    return found


def _sliders(base: Params) -> list[str]:
    """The active numeric fields that have a range, without those of time and of chance."""
    fields = base.fields()
    numeric = [name for name in base.active() if fields[name].live is not None and name not in (*ENSEMBLE, "steps")]
    return [name for name in numeric if fields[name].kind in ("int", "float")]


def axis_fields(base: Params, other: str = "") -> list[str]:
    """The fields that can be swept beside the axis `other`: active, or a swept choice away from it."""
    return [name for name in base.active() if name not in NOT_AXES and name != other]


def axis_text(
    base: Params,
    name: str,
    count: int = 8,
    low: float | None = None,
    high: float | None = None,
    log: bool | None = None,
) -> str:
    """An axis of about `count` values from low to high (by default the slider's range), spread as its slider is.

    Of whole numbers those that are possible beside the base's other values; of a choice all of it.
    """
    field = base.fields()[name]
    if field.kind == "bool":
        return f"{name}=false,true"
    if field.kind == "choice":
        return f"{name}=" + ",".join(field.choices)
    value = getattr(base, name)
    if field.kind == "floats" or (field.live is None and low is None):
        return f"{name}={format_value(value)}"
    start, end = field.live or (value, value)
    start, end = (start if low is None else low), (end if high is None else high)
    if not start < end:
        return f"{name}={_shown(field.kind, start)}"
    spread = ":log" if (field.scale == "log" if log is None else log) and start > 0 else ""
    count = max(2, min(count, MOST_VALUES))
    ideal = np.geomspace(start, end, count) if spread else np.linspace(start, end, count)
    if field.kind == "float":
        return f"{name}={_shown('float', start)}:{_shown('float', end)}:{count}{spread}"
    whole = list(dict.fromkeys(round(one) for one in ideal.tolist()))
    near = list(dict.fromkeys(_possible(base, name, one) for one in whole))
    if len(whole) == count and near == whole:
        return f"{name}={whole[0]}:{whole[-1]}:{count}{spread}"
    return f"{name}=" + ",".join(map(str, near))


def _possible(base: Params, name: str, value: int, reach: int = 8) -> int:
    """The nearest whole number that these params allow; `value` itself where none is near."""
    for distance in range(reach + 1):
        for candidate in (value - distance, value + distance):
            try:
                base.replace(**{name: candidate})
            except BadInput:
                continue
            return candidate
    return value


def _shown(kind: str, value: float) -> str:
    return format_value(int(value) if kind == "int" else float(value))


# -- the link ------------------------------------------------------------------------------------------------------


def encode_sweep(state: SweepState) -> dict[str, list[str]]:
    """The query of the link to this state: the lab's version and every field of the base that is not its default."""
    lab = get_lab(state.lab)
    query = {"lab": [state.lab], "v": [str(lab.version)], "preset": [state.preset]}
    query |= {name: [text] for name, text in state.base.texts().items()}
    query |= {"grid": list(state.grid), "metric": [state.metric]}
    if state.theory_only:
        query["theory_only"] = ["true"]
    if state.show != "measured":
        query["show"] = [state.show]
    return query


def decode_sweep(query: Mapping[str, Sequence[str]]) -> tuple[SweepState, list[str]]:
    """The state that a link describes, and a sentence for each part of it that was not understood."""
    notices: list[str] = []
    query = {name: list(values) for name, values in query.items() if name not in TAB_KEYS and values}
    lab = all_labs()[0]
    if "lab" in query:
        try:
            lab = get_lab(query["lab"][-1])
        except BadInput as error:
            notices.append(str(error))
    default = default_state(lab)
    state = default
    mine = {name: values for name, values in query.items() if name not in OWN_KEYS or name in ("v", "preset")}
    if mine:
        whole = {"beside": [""]} if "v" in mine else {}
        page, found = decode(lab, {**mine, **whole})
        notices += found
        state = replace(state, preset=page.preset, base=page.focus)
        if "grid" not in query:
            state = replace(state, grid=_of_base(lab, page.preset, page.focus).grid)
    if "grid" in query:
        grid = _grid(lab, query["grid"], notices)
        state = replace(state, grid=grid or default.grid)
    metric = query.get("metric", [state.metric])[-1]
    known = {*lab.series, *lab.metrics, *(CLAIM + claim.id for claim in lab.claims if claim.over is None)}
    if metric in known:
        state = replace(state, metric=metric)
    else:
        notices.append(f"{lab.id} has no metric {shorten(metric)}; {state.metric} is shown.")
    return _view(state, query, notices), notices


def _view(state: SweepState, query: Mapping[str, Sequence[str]], notices: list[str]) -> SweepState:
    """The state with the link's switch and view."""
    theory = query.get("theory_only", ["false"])[-1]
    if theory not in ("true", "false"):
        notices.append(f"theory_only is true or false, not {shorten(theory)}; it was ignored.")
    show = query.get("show", ["measured"])[-1]
    if show not in VIEWS:
        notices.append(f"show is one of {', '.join(VIEWS)}, not {shorten(show)}; it was ignored.")
        show = "measured"
    if theory == "true" and state.claims:
        notices.append("Claims are judged on simulations, not on the theory alone; theory_only was ignored.")
        theory = "false"
    return replace(state, theory_only=theory == "true", show=show)


def _grid(lab: Lab, texts: Sequence[str], notices: list[str]) -> tuple[str, ...]:
    """The axes of a link that are understood."""
    found: dict[str, str] = {}
    for text in texts:
        try:
            name, values = parse_axis(lab, text)
            if name in found:
                raise BadInput(Problem("grid", text, f"{name} is an axis already", "Give each axis once."))
            if len(found) == MOST_AXES:
                raise BadInput(
                    Problem("grid", text, "a page shows one or two axes", "Sweep over more of them by command.")
                )
            if len(set(values)) < len(values):
                raise BadInput(Problem("grid", text, "an axis holds each value once", "Leave the second one out."))
        except BadInput as error:
            notices.append(f"{error} It was ignored.")
            continue
        found[name] = text
    return tuple(found.values())


def point_query(state: SweepState, params: Params) -> dict[str, list[str]]:
    """The query of the lab's page for the run of one point."""
    return encode(get_lab(state.lab), PageState(state.preset, params))


def point_link(state: SweepState, params: Params, present: bool = False) -> str:
    """The lab's page for the run of one point, relative to the page of sweeps."""
    pairs = [(name, value) for name, values in point_query(state, params).items() for value in values]
    return f"{state.lab}?{urlencode([*pairs, *([('present', '1')] if present else [])])}"


def sweep_link(lab: Lab, preset: str, base: Params) -> dict[str, list[str]]:
    """The query that opens the page of sweeps around a run, with the lab's own axes where such a run has them."""
    return {"lab": [lab.id], "v": [str(lab.version)], "preset": [preset], **{n: [t] for n, t in base.texts().items()}}


# -- the same elsewhere --------------------------------------------------------------------------------------------


def _shared(state: SweepState) -> dict[str, Value]:
    """The base's fields that a command must set: an axis sets its own."""
    return {name: value for name, value in state.base.changed().items() if name not in state.names}


def sweep_command(state: SweepState) -> str:
    """The command line of the sweep."""
    words = ["python -m sims sweep", state.lab]
    words += [f"--{name.replace('_', '-')} {format_value(value)}" for name, value in _shared(state).items()]
    words += [f"--grid {_quoted(text)}" for text in state.grid]
    words += ["--claims"] if state.claims else []
    words += ["--theory-only"] if state.theory_only else []
    return " ".join(words)


def _quoted(text: str) -> str:
    return f"'{text}'" if ";" in text else text


def sweep_snippet(state: SweepState) -> str:
    """The lines of Python that repeat the sweep."""
    grid = "{" + ", ".join(f'"{axis.name}": {list(axis.values)!r}' for axis in axes_of(state)) + "}"
    more = "".join(f", {name}={value!r}" for name, value in _shared(state).items())
    more += ", claims=True" if state.claims else ""
    more += ", theory_only=True" if state.theory_only else ""
    return f'from sims import sweep\n\nfound = sweep("{state.lab}", {grid}{more})\nprint(found.summary)\n'
