"""A lab page, top to bottom, the same for every lab; a lab brings its story and its pictures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from urllib.parse import urlencode, urlsplit

import streamlit as st

from sims.engine import BadInput, Lab, Params, TooLarge, get_lab
from sims.engine.budget import describe_seconds
from sims.engine.jobs import Job
from sims.engine.params import Value, canonical_json

from . import confirmed, look
from .form import form
from .pictures import X_AXES, Picture, band_words, by_clock, overlay_preview
from .player import player
from .runs import View, cost, fetch, given_up, results, submit, wait_for, watch
from .seen import note
from .share import data_tables, differences_table, link_dialog, metrics_table, rerun_this
from .state import VIEW_KEYS, PageState, decode, encode, of_preset
from .verdicts import verdict_table
from .words import escape

AT_ONCE_SECONDS = 0.3  # runs that a picture lacks are computed unasked up to this estimate


@dataclass(frozen=True)
class Story:
    """A lab's words on its page.

    Args:
        why: the derivation, in Markdown with LaTeX; shown folded.
        label: how to call a run with these params in a legend.
        metric: the recorded series to show while a run is still under way.
        x_axes: names of the series that pictures may be drawn against, besides the step.
        x: the horizontal axis that the page opens with.
        experiment: draws what a visitor can try below the pictures.
        details: what pictures may show on demand, {name: words of its switch}; a view lists those switched on.
    """

    why: str
    label: Callable[[Params], str]
    metric: str
    x_axes: Sequence[str] = ()
    x: str = "step"
    experiment: Callable[[View], None] | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@cache
def lab_module(lab_id: str) -> object:
    """`app/labs/<lab>.py`, which holds STORY and pictures(view)."""
    return importlib.import_module(f"app.labs.{lab_id}")


def lab_page(lab_id: str, instead: Callable[[View], bool] = lambda view: False) -> None:
    """The page of one lab; `instead` may draw its finished runs in the page's stead, and says whether it has."""
    lab = get_lab(lab_id)
    module = lab_module(lab_id)
    story: Story = module.STORY  # type: ignore[attr-defined]
    look.apply()
    state, notices = _state(lab)

    st.title(lab.title)
    if not look.presenting() and not look.embedded():
        paper = f"[{lab.paper.title}](https://arxiv.org/abs/{lab.paper.arxiv})"
        st.markdown(f"*{lab.sentence}*  \n{lab.paper.authors}, {paper}, {lab.paper.year}")
    for notice in notices:
        st.warning(escape(notice), icon=":material/link_off:")
    bare = look.embedded() or look.bare()
    x, details = (_axis_asked_for(lab, story), frozenset()) if bare else _controls(lab, state, story)
    if look.bare() and not (look.hiding() or look.embedded()):
        _notice(lab, state)

    runs = {_focus_label(lab, story, state): state.focus, **state.beside}
    if given_up(lab, list(runs.values())):
        return
    try:
        jobs = submit(lab, runs)
    except TooLarge as refusal:
        st.error(escape(str(refusal)))
        return
    if not wait_for(jobs):
        watch(jobs, lambda current: None if look.hiding() else _preview(lab, story, current))
        return
    finished = results(jobs)
    if not finished:
        return
    view = View(lab, state, finished, x=x, details=details, present=look.presenting())
    note(view)
    if instead(view):
        return
    pictures = _pictures(module, view)
    report = None if look.embedded() else confirmed.newest(lab)
    if report is not None:
        pictures = confirmed.lay_over(module, view, pictures, report)
    _draw(view, pictures)
    if look.embedded():
        return
    if report is not None:
        figures = confirmed.figures(lab.id, report["created"], report)
        confirmed.show(view, report, figures)
        pictures = [*pictures, *figures]
    if story.experiment is not None:
        story.experiment(view)

    st.header("Does the theory hold here?")
    verdict_table(view.focus.claims)
    with st.expander("The runs side by side" if len(view.runs) > 1 else "End values of the run"):
        differences_table(view)
        metrics_table(view)
    with st.expander("Why"):
        st.markdown(story.why)
    with st.expander("The pictures in words and as tables"):
        data_tables(pictures)
    with st.expander("Rerun this, take it away"):
        rerun_this(view, pictures, _page_url())


# -- state ---------------------------------------------------------------------------------------------------


def _state(lab: Lab) -> tuple[PageState, list[str]]:
    """The page's state: from the address when somebody changed it, else from this session; the address follows."""
    kept_at, written = f"state/{lab.id}", f"address/{lab.id}"
    query = {name: st.query_params.get_all(name) for name in st.query_params}
    own = {name: values for name, values in query.items() if name not in VIEW_KEYS}
    fresh = kept_at not in st.session_state or (own and own != st.session_state.get(written))
    notices = []
    if fresh:
        st.session_state[kept_at], notices = decode(lab, own)
    state: PageState = st.session_state[kept_at]
    link = encode(lab, state)
    if own != link:
        kept = {name: values for name, values in query.items() if name not in own}
        st.query_params.from_dict({**kept, **link})
    st.session_state[written] = link
    return state, notices


def held(lab: Lab) -> PageState:
    """The state as it is now: a widget's callback may come before the page has followed an earlier one."""
    state: PageState = st.session_state[f"state/{lab.id}"]
    return state


def hold(lab: Lab, state: PageState) -> None:
    """Keep a state changed by a widget, and let the address follow on the rerun that comes."""
    st.session_state[f"state/{lab.id}"] = state
    st.session_state[f"address/{lab.id}"] = {
        name: st.query_params.get_all(name) for name in st.query_params if name not in VIEW_KEYS
    }


def _controls(lab: Lab, state: PageState, story: Story) -> tuple[str, frozenset[str]]:
    """What a visitor chooses with, in the page and in the sidebar; returns the axis and the details chosen."""
    with st.container(horizontal=look.presenting(), vertical_alignment="bottom"):
        _presets(lab, state)
        x = _x_axis(lab, story)
        details = _details(lab, story)
        _tour(lab, state)
        if look.presenting():
            look.control()
            _link_button()
    _notice(lab, state)
    _sidebar(lab, state, story)
    if st.session_state.pop("link-wanted", False):
        link_dialog(lab, state, _page_url(), x if x != story.x else None)
    return x, details


def _notice(lab: Lab, state: PageState) -> None:
    st.markdown(f"**Look:** {lab.preset(state.preset).notice}")


def _link_button() -> None:
    def wanted() -> None:
        st.session_state["link-wanted"] = True

    st.button("Make a link", key="link", icon=":material/link:", shortcut="L", on_click=wanted)


def _tour(lab: Lab, state: PageState) -> None:
    """Buttons to the preset before and the one after, with the keys of a keyboard or of a presenter's clicker."""
    ids = [preset.id for preset in lab.presets]
    at = ids.index(state.preset)
    keys = ("PageUp", "PageDown") if look.presenting() else ("B", "N")
    steps = (("Previous", at - 1, ":material/chevron_left:"), ("Next", at + 1, ":material/chevron_right:"))
    with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
        for (words, to, icon), shortcut in zip(steps, keys, strict=True):
            there = 0 <= to < len(ids)
            st.button(
                words,
                key=f"tour/{words}",
                icon=icon,
                shortcut=shortcut,
                disabled=not there,
                help=f"Preset {to + 1} of {len(ids)}: {lab.presets[to].title}" if there else None,
                on_click=lambda to=to: hold(lab, of_preset(lab, ids[to])),
            )


def _presets(lab: Lab, state: PageState) -> None:
    titles = {preset.id: preset.title for preset in lab.presets}
    widget = f"preset/{lab.id}"

    def chosen() -> None:
        if st.session_state[widget] is not None:
            hold(lab, of_preset(lab, st.session_state[widget]))

    st.session_state[widget] = state.preset
    choose = st.selectbox if look.presenting() else st.pills
    choose("Preset", list(titles), format_func=titles.__getitem__, key=widget, on_change=chosen)


def _sidebar(lab: Lab, state: PageState, story: Story) -> None:
    with st.sidebar:
        if not look.presenting():
            look.control()
            _link_button()
        st.subheader("Parameters")
        form(state.focus, f"form/{lab.id}", lambda name, value: _change(lab, name, value))
        st.subheader("Beside it")
        for label in state.beside:
            st.button(
                f"Remove {label}",
                key=f"unpin/{label}",
                icon=":material/close:",
                width="stretch",
                on_click=lambda label=label: hold(lab, held(lab).unpin(label)),
            )
        st.button(
            "Keep this run for comparison",
            key="pin",
            icon=":material/push_pin:",
            width="stretch",
            on_click=lambda: _pin(lab, story),
        )
        st.link_button(
            "Sweep around this run",
            _sweep_address(lab, state),
            help="This lab over one or two of its parameters, the others as they are, in a tab of its own.",
            icon=":material/grid_on:",
            width="stretch",
        )


def _change(lab: Lab, name: str, value: Value) -> None:
    state = held(lab)
    hold(lab, state.with_focus(state.focus.replace(**{name: value})))


def _pin(lab: Lab, story: Story) -> None:
    state = held(lab)
    try:
        hold(lab, state.pin(_focus_label(lab, story, state), state.focus))
    except BadInput as error:
        st.toast(str(error), icon=":material/error:")


def _sweep_address(lab: Lab, state: PageState) -> str:
    """The page of sweeps around the run in focus, relative to this page; a presentation goes on there."""
    from .sweep_state import sweep_link  # which builds on this module

    shown = {"present": ["1"]} if look.presenting() else {}
    return "sweeps?" + urlencode({**sweep_link(lab, state.preset, state.focus), **shown}, doseq=True)


def _focus_label(lab: Lab, story: Story, state: PageState) -> str:
    """What to call the run in focus: the preset's word while it is the preset's run, else the lab's."""
    preset = lab.preset(state.preset)
    label = preset.label if state.focus == lab.focus(preset) else story.label(state.focus)
    return label if label not in state.beside else f"{label} (in focus)"


def _x_axis(lab: Lab, story: Story) -> str:
    words = {name: words for name, (words, _) in X_AXES.items()}
    words |= {name: lab.series[name].label for name in story.x_axes}
    chosen = st.segmented_control(
        "Horizontal axis",
        list(words),
        format_func=words.__getitem__,
        default=_axis_asked_for(lab, story),
        key=f"x/{lab.id}",
        required=True,
    )
    return chosen or story.x


def _axis_asked_for(lab: Lab, story: Story) -> str:
    """The horizontal axis that the address names, else the lab's own."""
    asked = st.query_params.get("axis")
    return asked if asked in (*X_AXES, *story.x_axes) else story.x


def _details(lab: Lab, story: Story) -> frozenset[str]:
    """The names of the details that are switched on."""
    return frozenset(name for name, words in story.details.items() if st.toggle(words, key=f"detail/{lab.id}/{name}"))


def _page_url() -> str:
    url = urlsplit(st.context.url or "")
    return f"{url.scheme}://{url.netloc}{url.path}" if url.netloc else ""


# -- pictures ------------------------------------------------------------------------------------------------


def _pictures(module: object, view: View) -> list[Picture]:
    """The lab's pictures, with the runs at hand that they need besides the page's own."""
    remembered = f"needs/{view.lab.id}"
    found, _ = fetch(view.lab, st.session_state.get(remembered, ()))
    view = replace(view, fetched=found)
    pictures = _declared(_identity(view), module, view)
    needs = {picture.id: picture.needs for picture in pictures}
    st.session_state[remembered] = [params for wanted in needs.values() for params in wanted]
    found = {}
    for wanted in needs.values():
        at_hand, missing = fetch(view.lab, wanted)
        if missing and cost(view.lab, missing) < AT_ONCE_SECONDS:
            at_hand, _ = fetch(view.lab, wanted, compute=True)
        found |= at_hand
    view = replace(view, fetched=found)
    return _declared(_identity(view), module, view)


def _identity(view: View) -> str:
    """What the pictures of a view depend on, as one text: runs by key, not by their arrays."""
    runs = [(label, run.key) for label, run in view.runs.items()]
    return canonical_json(
        [view.lab.id, view.state.preset, runs, view.x, sorted(view.details), view.present, sorted(view.fetched)]
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _declared(identity: str, _module: object, _view: View) -> list[Picture]:
    """The lab's pictures, remembered: a class looks at the same runs, and a spec takes a while to build."""
    return list(_module.pictures(_view))  # type: ignore[attr-defined]


def _draw(view: View, pictures: Sequence[Picture]) -> None:
    """One player for the pictures that share a clock."""
    st.html('<h2 class="unseen">Pictures</h2>')
    for index, (clock, group) in enumerate(by_clock(pictures).items()):
        drawn = [picture.for_player() for picture in group]
        key = f"player/{view.lab.id}/{index}"
        player(drawn, steps=clock or None, step_label="step", key=key, present=view.present)
        if look.embedded():
            continue
        notes = [band_words(view)] if index == 0 else []
        for words in dict.fromkeys([*notes, *(picture.note for picture in group if picture.note)]):
            st.caption(words)
    for picture in () if look.embedded() else pictures:
        _, missing = fetch(view.lab, picture.needs)
        if missing:
            _offer(view.lab, picture, missing)


def _offer(lab: Lab, picture: Picture, missing: list[Params]) -> None:
    """A button that computes what a picture still lacks."""
    waiting = f"computing/{lab.id}/{picture.id}"

    def start() -> None:
        st.session_state[waiting] = True

    expected = describe_seconds(cost(lab, missing))
    named = picture.title if picture.title[-1] in "?!." else f"{picture.title}:"
    words = f"{named} compute its {len(missing)} runs (about {expected})"
    st.button(words, key=f"offer/{picture.id}", on_click=start, icon=":material/play_arrow:")
    if st.session_state.pop(waiting, False):
        bar = st.progress(0.0, text="Computing")
        fetch(lab, missing, compute=True, on_progress=bar.progress)
        st.rerun()


def _preview(lab: Lab, story: Story, jobs: Mapping[str, Job]) -> None:
    """What is recorded so far, while runs are under way."""
    spec, table = overlay_preview(lab, story.metric, {label: job.partial() for label, job in jobs.items()})
    st.vega_lite_chart(table, spec, width="stretch", alt=f"{story.metric} recorded so far")
