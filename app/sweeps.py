"""The page of sweeps: a lab over a grid of parameters, filling in live, with the theory's lines drawn on it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pandas as pd
import streamlit as st

from sims.engine import BadInput, ChalklineError, Lab, all_labs, get_lab
from sims.engine.budget import describe_seconds
from sims.engine.describe import caption
from sims.engine.params import Field, Value, canonical_json, format_value
from sims.engine.parquet import to_frame
from sims.engine.sweep import Plan, open_sweep

from .frame import look
from .frame.export import figure_bytes
from .frame.form import ENSEMBLE, form
from .frame.pictures import Picture
from .frame.player import player
from .frame.runs import session_id
from .frame.state import TAB_KEYS
from .frame.sweep_jobs import (
    Outcome,
    SweepJob,
    has_cluster,
    require_few,
    require_live,
    server_sweeps,
    wait_seconds,
)
from .frame.sweep_pictures import Points, draws_theory, points_of, sweep_picture
from .frame.sweep_state import (
    MOST_CELLS,
    MOST_VALUES,
    VIEWS,
    SweepState,
    axes_of,
    axis_fields,
    axis_text,
    decode_sweep,
    default_state,
    design_of,
    encode_sweep,
    metric_options,
    plan_of,
    sweep_command,
    sweep_snippet,
    sweep_story,
)
from .frame.sweep_story import Axis
from .frame.words import escape

POLL_SECONDS = 1.0
MOST_LINKED = 400  # points that are laid out as a table of links
_HELD, _ADDRESS, _PAUSED = "state/sweeps", "address/sweeps", "sweep/paused"
_NONE = "(none)"
# Three short numbers in one row, on a phone too.
_STYLE = """
<style>
[class*="st-key-sweep-range"] { flex-wrap: nowrap !important; gap: 0.5rem; }
[class*="st-key-sweep-range"] > div { min-width: 0 !important; flex: 1 1 0 !important; }
</style>
"""


def sweeps() -> None:
    """The page."""
    look.apply()
    st.html(_STYLE)
    state, notices = _state()
    lab = get_lab(state.lab)
    st.title("Sweeps")
    if not look.presenting():
        st.markdown("A lab over one or two of its parameters, beside what its theory says of them.")
    for notice in notices:
        st.warning(escape(notice), icon=":material/link_off:")
    _choices(lab, state)
    settings = st.expander("Axes and replicates") if look.presenting() else st.container()
    with settings:
        _axis_boxes(lab, state)
        _switches(state)
    _sidebar(lab, state)
    story = sweep_story(lab)
    if story.notice and replace(state, show="measured") == default_state(lab):
        st.markdown(f"**Look:** {story.notice}")
    try:
        design = design_of(state)
        require_few(design, state.claims, state.theory_only, MOST_CELLS, sweep_command(state))
        plan = plan_of(state)
    except ChalklineError as problem:
        server_sweeps().release(session_id())
        st.error(escape(str(problem)))
        return
    _follow(lab, state, plan)


# -- state ---------------------------------------------------------------------------------------------------------


def _state() -> tuple[SweepState, list[str]]:
    """The page's state: from the address when somebody changed it, else from this session; the address follows."""
    query = {name: st.query_params.get_all(name) for name in st.query_params}
    own = {name: values for name, values in query.items() if name not in TAB_KEYS}
    notices: list[str] = []
    if _HELD not in st.session_state or (own and own != st.session_state.get(_ADDRESS)):
        st.session_state[_HELD], notices = decode_sweep(own)
    state: SweepState = st.session_state[_HELD]
    link = encode_sweep(state)
    if own != link:
        st.query_params.from_dict({**{name: query[name] for name in query if name not in own}, **link})
    st.session_state[_ADDRESS] = link
    return state, notices


def _held() -> SweepState:
    held: SweepState = st.session_state[_HELD]
    return held


def _hold(state: SweepState) -> None:
    """Keep a state changed by a widget, and let the address follow on the rerun that comes."""
    st.session_state[_HELD] = state
    st.session_state[_ADDRESS] = {
        name: st.query_params.get_all(name) for name in st.query_params if name not in TAB_KEYS
    }


# -- what to sweep -------------------------------------------------------------------------------------------------


def _choices(lab: Lab, state: SweepState) -> None:
    """The lab, the preset that is the base, and what is shown of each run."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {one.id: one.title for one in all_labs()}
        _select("Lab", "sweep/lab", titles, state.lab, lambda chosen: _hold(default_state(get_lab(chosen))))
        presets = {one.id: one.title for one in lab.presets}
        _select("Base", "sweep/preset", presets, state.preset, lambda chosen: _rebase(lab, chosen))
        options = metric_options(lab, state.base)
        if state.theory_only:
            options = {name: words for name, words in options.items() if name in {**lab.series, **lab.metrics}}
        options.setdefault(state.metric, state.metric)
        _select(
            "Shown of each run",
            "sweep/metric",
            options,
            state.metric,
            lambda chosen: _hold(replace(_held(), metric=chosen)),
        )
        if look.presenting():
            look.control()


def _select(words: str, key: str, options: Mapping[str, str], value: str, chosen: Callable[[str], None]) -> None:
    st.session_state[key] = value
    st.selectbox(
        words, list(options), format_func=options.__getitem__, key=key, on_change=lambda: chosen(st.session_state[key])
    )


def _rebase(lab: Lab, preset: str) -> None:
    """Another preset as the base; the axes stay, where it has them."""
    state = _held()
    base = lab.focus(lab.preset(preset))
    grid = tuple(text for text, name in zip(state.grid, state.names, strict=True) if base.is_active(name))
    changed = replace(state, preset=preset, base=base, grid=grid)
    _hold(changed if grid else replace(default_state(lab), preset=preset, base=base))


def _axis_boxes(lab: Lab, state: SweepState) -> None:
    for number, (column, words) in enumerate(zip(st.columns(2), ("Across", "Upwards"), strict=True)):
        with column.container(border=True):
            _axis_box(lab, state, number, words)


def _axis_box(lab: Lab, state: SweepState, number: int, words: str) -> None:
    """The field of an axis and its values; the second axis may be absent."""
    base, names = state.base, state.names
    own = names[number] if number < len(names) else _NONE
    other = names[1 - number] if 1 - number < len(names) else ""
    fields = [*([_NONE] if number else []), *axis_fields(base, other)]
    fields += [own] if own not in fields else []
    key = f"sweep/axis/{number}"
    _select(words, key, {name: name.replace("_", " ") for name in fields}, own, lambda chosen: _swap(number, chosen))
    if own == _NONE:
        st.caption("A second axis makes a heat map; without one there is a curve with standard errors.")
        return
    field = base.fields()[own]
    problem = f"{key}/problem"
    if problem in st.session_state:
        st.error(escape(st.session_state.pop(problem)))
    try:
        axis = axes_of(state)[number]
    except BadInput as error:
        st.error(escape(str(error)))
        return
    exact = st.session_state.get("sweep/exact", False)
    if exact or not axis.numeric or field.live is None:
        _typed_values(state, number, field, key, problem)
    else:
        _ranged_values(state, number, axis, key)
    st.caption(f"{len(axis.values)} values: {escape(_few(axis))}")


def _few(axis: Axis) -> str:
    texts = [f"{value:.4g}" if isinstance(value, float) else format_value(value) for value in axis.values]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:6], "…", *texts[-2:]])


def _swap(number: int, chosen: str) -> None:
    """Another field on an axis, with the values of its slider."""
    state = _held()
    texts = list(state.grid)
    new = [] if chosen == _NONE else [axis_text(state.base, chosen, 6 if number else 8)]
    _hold(replace(state, grid=(*texts[:number], *new, *texts[number + 1 :])))


def _set_axis(number: int, text: str) -> None:
    state = _held()
    _hold(replace(state, grid=(*state.grid[:number], text, *state.grid[number + 1 :])))


def _typed_values(state: SweepState, number: int, field: Field, key: str, problem: str) -> None:
    widget = f"{key}/text"

    def changed() -> None:
        text = f"{field.name}={st.session_state[widget].strip()}"
        try:
            axes_of(replace(_held(), grid=(text,)))
        except BadInput as error:
            st.session_state[problem] = str(error)
            return
        _set_axis(number, text)

    st.session_state[widget] = state.grid[number].partition("=")[2]
    ways = "Values with commas between, or a range LOW:HIGH:NUMBER, evenly spread, or LOW:HIGH:NUMBER:log."
    ways = ways if field.kind in ("int", "float") else "Values with commas between."
    ways = "Lists with semicolons between." if field.kind == "floats" else ways
    st.text_input("Values", key=widget, help=f"{ways} Allowed: {field.allowed}.", on_change=changed, max_chars=2000)


def _ranged_values(state: SweepState, number: int, axis: Axis, key: str) -> None:
    """From, to, and how many."""
    field, numbers = axis.field, axis.numbers
    kind = int if field.kind == "int" else float
    now = {"from": kind(numbers.min()), "to": kind(numbers.max()), "points": len(numbers)}
    keys = {part: f"{key}/{part}/{axis.name}" for part in now}

    def changed() -> None:
        given = {part: st.session_state[keys[part]] for part in now}
        low, high = min(given["from"], given["to"]), max(given["from"], given["to"])
        _set_axis(number, axis_text(_held().base, axis.name, given["points"], low, high, axis.log))

    for part, value in now.items():
        st.session_state[keys[part]] = value
    step: dict[str, Any] = {"step": 1} if field.kind == "int" else {"step": nice_step(now), "format": "%.6g"}
    bounds = {
        "min_value": None if field.ge is None else kind(field.ge),
        "max_value": None if field.le is None else kind(field.le),
    }
    help_text = f"{field.help} Allowed: {field.allowed}."
    with st.container(horizontal=True, key=f"sweep-range-{number}"):
        st.number_input("From", key=keys["from"], help=help_text, on_change=changed, **bounds, **step)
        st.number_input("To", key=keys["to"], on_change=changed, **bounds, **step)
        st.number_input("Points", 1, MOST_VALUES, key=keys["points"], on_change=changed)


def nice_step(now: Mapping[str, float]) -> float:
    """A step of the buttons beside a number: a power of ten, a hundredth to a tenth of the range."""
    span = max(abs(now["to"] - now["from"]), abs(now["to"]) / 10, 1e-9)
    return float(10.0 ** math.floor(math.log10(span / 10)))


def _switches(state: SweepState) -> None:
    """Replicates, the theory alone, the view, and how values are given."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.session_state["sweep/replicates"] = state.base.replicates
        st.number_input(
            "Replicates",
            1,
            max(64, state.base.replicates),
            key="sweep/replicates",
            on_change=lambda: _set_base("replicates", int(st.session_state["sweep/replicates"])),
            disabled=state.theory_only,
            width=140,
        )
        if not state.theory_only and not state.claims:
            st.session_state["sweep/show"] = state.show
            st.segmented_control(
                "Drawn",
                list(VIEWS),
                format_func=VIEWS.__getitem__,
                key="sweep/show",
                required=True,
                on_change=lambda: _hold(replace(_held(), show=st.session_state["sweep/show"] or "measured")),
            )
        st.session_state["sweep/theory"] = state.theory_only
        st.toggle(
            "Theory only",
            key="sweep/theory",
            help="Predictions alone, in a moment; nothing is simulated.",
            disabled=state.claims,
            on_change=lambda: _hold(replace(_held(), theory_only=st.session_state["sweep/theory"], show="measured")),
        )
        st.toggle("Type exact values", key="sweep/exact", help="Text instead of sliders, as on the command line.")


def _set_base(name: str, value: Value) -> None:
    state = _held()
    _hold(replace(state, base=state.base.replace(**{name: value})))


def _sidebar(lab: Lab, state: SweepState) -> None:
    with st.sidebar:
        if not look.presenting():
            look.control()
        st.subheader("Parameters of every point")
        without = (*state.names, *(name for name in ENSEMBLE if name != "seed"))
        form(state.base, f"sweep/form/{lab.id}", _set_base, without=without)


# -- the sweep -----------------------------------------------------------------------------------------------------


def _follow(lab: Lab, state: SweepState, plan: Plan) -> None:
    """What there is of the sweep: on its way, whole, or still to be started."""
    sweeps, session = server_sweeps(), session_id()
    mine = sweeps.of(session)
    if mine is not None and mine.key != plan.key:
        sweeps.release(session)  # the visitor looks at another one now; its parts are kept
        mine = None
    if mine is None and sweeps.on_its_way(plan.key) and st.session_state.get(_PAUSED) != plan.key:
        mine = sweeps.submit(plan, session)  # somebody else has started it: watch it too
    if mine is not None and mine.alive:
        _watch(lab, state, plan, mine)
        return
    if mine is not None and not mine.ended.is_set():
        _stopping(mine)
        return
    try:
        outcome = sweeps.stored(plan.key)
    except ChalklineError as problem:
        st.error(escape(str(problem)))
        return
    if mine is not None and mine.state == "failed":
        st.error(escape(mine.error))
    if outcome is not None:
        for notice in outcome.notices:
            st.warning(escape(notice))
    if outcome is None or not outcome.complete:
        _offer(state, plan, outcome)
    _result(lab, state, plan, outcome)


def _offer(state: SweepState, plan: Plan, outcome: Outcome | None) -> None:
    """The estimate, and the button that starts the sweep; or why it is refused, and where to run it."""
    points = f"{len(plan.design)} points"
    if not state.theory_only:
        points += f" of {state.base.replicates} replicate{'s' if state.base.replicates > 1 else ''}"
    done = outcome.points if outcome is not None else 0
    try:
        require_live(plan, sweep_command(state))
    except ChalklineError as refusal:
        st.error(escape(str(refusal)))
        return
    where = "of work for the cluster" if has_cluster() else "on this machine"
    words = f"{points}: about {describe_seconds(wait_seconds(plan))} {where}."
    if outcome is not None:
        words = f"{done} of {len(plan.design)} points are kept from before. All of it: {words}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Go on" if done else "Start",
            key="sweep/start",
            type="primary",
            icon=":material/play_arrow:",
            on_click=_start,
            args=(plan,),
        )
        st.markdown(words)


def _start(plan: Plan) -> None:
    st.session_state.pop(_PAUSED, None)
    server_sweeps().submit(plan, session_id())


def _pause(key: str) -> None:
    st.session_state[_PAUSED] = key
    server_sweeps().release(session_id())


@st.fragment(run_every=POLL_SECONDS)
def _watch(lab: Lab, state: SweepState, plan: Plan, job: SweepJob) -> None:
    """The bar, the place in the line, a button to pause, and the picture as it fills."""
    if job.ended.is_set():
        st.rerun()
    place = server_sweeps().place(job)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Pause", key="sweep/pause", icon=":material/pause_circle:", on_click=_pause, args=(plan.key,))
        if place:
            others = "another sweep" if place == 1 else f"{place} other sweeps"
            st.progress(0.0, text=f"Waiting for {others} on this server")
        elif job.progress is None:
            st.progress(0.0, text="Starting the workers")
        else:
            progress = job.progress
            left = "" if progress.seconds_left is None else f", {describe_seconds(progress.seconds_left)} left"
            words = f"{progress.done} of {progress.points} points{left}"
            st.progress(min(1.0, progress.fraction), text=words)
    _draw(lab, state, plan, job.outcome)


@st.fragment(run_every=POLL_SECONDS)
def _stopping(job: SweepJob) -> None:
    if job.ended.is_set():
        st.rerun()
    st.info("Pausing: what is nearly done is kept.")


@st.cache_resource(max_entries=64, show_spinner=False)
def _pictured(
    identity: str, _lab: Lab, _state: SweepState, _plan: Plan, _outcome: Outcome | None, _present: bool
) -> Picture:
    return sweep_picture(_lab, _state, _plan, _outcome, metric_options(_lab, _state.base), _present)


def _draw(lab: Lab, state: SweepState, plan: Plan, outcome: Outcome | None) -> Picture:
    present = look.presenting()
    if outcome is None or outcome.complete:  # as every visitor sees it, and again on each rerun
        identity = canonical_json([encode_sweep(state), plan.key, outcome is None, present])
        picture = _pictured(identity, lab, state, plan, outcome, present)
    else:
        picture = sweep_picture(lab, state, plan, outcome, metric_options(lab, state.base), present)
    player([picture.for_player()], steps=None, step_label="step", key="player/sweep", present=present, height=380)
    return picture


def _result(lab: Lab, state: SweepState, plan: Plan, outcome: Outcome | None) -> None:
    picture = _draw(lab, state, plan, outcome)
    if outcome is not None:
        if outcome.failures:
            with st.expander(f"{len(outcome.failures)} points failed"):
                rows = [
                    {**{n: format_value(v) for n, v in one.values.items()}, "reason": escape(one.reason)}
                    for one in outcome.failures
                ]
                st.table(pd.DataFrame(rows[:MOST_VALUES]), border="horizontal")
        with st.expander("The picture in words and as a table; every point opens its run"):
            st.markdown(escape(picture.alt))
            _tables(state, plan, outcome)
    with st.expander("Rerun this, take it away"):
        _rerun_this(lab, state, plan, outcome, picture)


# -- tables --------------------------------------------------------------------------------------------------------


def _tables(state: SweepState, plan: Plan, outcome: Outcome) -> None:
    points = points_of(state, plan, outcome, look.presenting())
    if len(points) <= MOST_LINKED:
        st.table(layout(state, points), border="horizontal")
        if draws_theory(state) and "no" in points.claimed:
            st.caption("In brackets: theory that is not claimed there.")
    table = to_frame(outcome.table)
    links = [urljoin(_page_url(), points.links[point]) if points.links[point] else None for point in table["point"]]
    table.insert(0, "run", links)
    st.dataframe(
        table,
        height=260,
        hide_index=True,
        column_config={"run": st.column_config.LinkColumn("run", display_text="open")},
    )


def layout(state: SweepState, points: Points) -> pd.DataFrame:
    """The points as the picture lays them out, each cell a link to its run: rows from the top downwards."""
    axes = axes_of(state)
    cells = [_cell(points, point, draws_theory(state)) for point in range(len(points))]
    across = axes[0]
    if len(axes) == 1:
        return pd.DataFrame([cells], columns=across.texts, index=pd.Index(["run"], name=across.title))
    rows = len(axes[1].values)
    columns = {text: cells[i * rows : (i + 1) * rows] for i, text in enumerate(across.texts)}
    frame = pd.DataFrame(columns, index=pd.Index(axes[1].texts, name=f"{axes[1].title} \\ {across.title}"))
    return frame.iloc[::-1] if axes[1].numeric and list(axes[1].numbers) == sorted(axes[1].numbers) else frame


def _cell(points: Points, point: int, of_theory: bool) -> str:
    words = points.state[point] or points.verdict[point] or f"{points.value[point]:.3g}"
    if of_theory and points.claimed[point] == "no" and not points.state[point]:
        words = f"({words})"
    words = f"✕ {words}" if points.reason[point] else words
    if not points.state[point] and points.value[point] == points.mean[point] and points.error[point] > 0:
        words += f" ± {points.error[point]:.1g}"
    words = escape(words)
    return f"[{words}]({points.links[point]})" if points.links[point] else words


# -- taking it away ------------------------------------------------------------------------------------------------


def _rerun_this(lab: Lab, state: SweepState, plan: Plan, outcome: Outcome | None, picture: Picture) -> None:
    st.caption("On the command line; it goes on with what this page has computed, and this page with what it computes")
    st.code(sweep_command(state), language="bash", wrap_lines=True)
    st.caption("From Python")
    st.code(sweep_snippet(state), language="python", wrap_lines=True)
    st.caption("As a link to this page")
    query = urlencode([(name, value) for name, values in encode_sweep(state).items() for value in values])
    st.code(f"{_page_url()}?{query}", language=None, wrap_lines=True)
    st.caption(f"Sweep `{plan.key[:16]}`, version {lab.version} of the lab.")
    if outcome is None:
        return
    name = f"{lab.id}-sweep-{plan.key[:12]}"
    table = outcome.table
    st.caption("A row for each point: means, standard errors, predictions")
    with st.container(horizontal=True):
        _button("CSV", f"{name}-summary.csv", "text/csv", lambda: csv_of(to_frame(table)))
        _button("Parquet", f"{name}-summary.parquet", _PARQUET, lambda: parquet_of(to_frame(table)))
    st.caption("A row for each point and replicate, with hashes")
    with st.container(horizontal=True):
        _button("CSV of all replicates", f"{name}.csv", "text/csv", lambda: csv_of(_whole(plan.key)))
        _button("Parquet of all replicates", f"{name}.parquet", _PARQUET, lambda: parquet_of(_whole(plan.key)))
    st.caption("The picture")
    words = f"{caption(lab, state.base)}; sweep {plan.key[:12]}"
    with st.container(horizontal=True):
        for format, kind in (("svg", "image/svg+xml"), ("png", "image/png")):
            _button(format.upper(), f"{name}.{format}", kind, lambda f=format: figure_bytes(picture, f, words))


_PARQUET = "application/vnd.apache.parquet"


def _whole(key: str) -> pd.DataFrame:
    return open_sweep(key, server_sweeps().store).table


def _button(words: str, file_name: str, kind: str, content: Callable[[], bytes]) -> None:
    st.download_button(
        words,
        content,
        file_name,
        kind,
        key=f"sweep/download/{file_name}",
        on_click="ignore",
        icon=":material/download:",
    )


def csv_of(table: pd.DataFrame) -> bytes:
    """CSV; text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    table = table.copy()
    for column in table.select_dtypes(include=["object", "string"]).columns:
        table[column] = table[column].map(lambda v: "'" + v if isinstance(v, str) and v[:1] in tuple("=+-@") else v)
    return table.to_csv(index=False).encode()


def parquet_of(table: pd.DataFrame) -> bytes:
    """Parquet of the table."""
    sink = io.BytesIO()
    table.to_parquet(sink, index=False)
    return sink.getvalue()


def _page_url() -> str:
    url = urlsplit(st.context.url or "")
    return f"{url.scheme}://{url.netloc}{url.path}" if url.netloc else ""
