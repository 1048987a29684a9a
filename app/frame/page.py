"""A lab page, top to bottom, the same for every lab; a lab brings its story and its pictures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from urllib.parse import urlencode, urlsplit

import streamlit as st

from sims.engine import BadInput, Lab, Params, Run, TooLarge, get_lab
from sims.engine.budget import describe_seconds
from sims.engine.jobs import Job
from sims.engine.params import Value, canonical_json

from . import confirmed, look
from .axes import ranges_of
from .form import form
from .formula import Formula, as_html, formulas, shown
from .labels import on_lines
from .options import DIFFERENCE, REPLICATES, SHOWN, Options, decode_options, encode_options
from .pictures import X_AXES, Picture, band_words, by_clock, overlay_preview
from .player import player
from .runs import View, cost, fetch, given_up, is_given_up, results, submit, wait_for, watch
from .seen import note
from .share import differences_table, link_dialog, metrics_table, rerun_this
from .state import TAB_KEYS, PageState, decode, encode, of_preset
from .verdicts import verdict_table
from .views import looked_at, unmet
from .words import escape

DRAWN = 256  # pages whose pictures are remembered, of about half a megabyte each: what a class looks at
AT_ONCE_SECONDS = 0.15  # runs that a picture lacks are computed unasked up to this estimate: a slider waits for them


@dataclass(frozen=True)
class Story:
    """A lab's words on its page.

    Args:
        why: the derivation, in Markdown with LaTeX; shown folded.
        label: how to call a run with these params in a legend.
        metric: the recorded series to show while a run is still under way.
        x_axes: names of the series that pictures may be drawn against, besides the step.
        x: the horizontal axis that the page opens with.
        formulas: the theory in formulas; the page shows those that speak of the run in focus, with its numbers.
        experiment: draws what a visitor can try below the pictures.
        details: what pictures may show on demand, {name: words of its switch}; a view lists those switched on.
    """

    why: str
    label: Callable[[Params], str]
    metric: str
    x_axes: Sequence[str] = ()
    x: str = "step"
    formulas: Sequence[Formula] = ()
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
    state, options, notices = _state(lab, story)

    if look.embedded() or not look.presenting():
        st.title(lab.title)
    if not look.presenting() and not look.embedded():
        paper = f"[{lab.paper.title}](https://arxiv.org/abs/{lab.paper.arxiv})"
        st.markdown(f"*{lab.sentence}*  \n{lab.paper.authors}, {paper}, {lab.paper.year}")
    for notice in notices:
        st.warning(escape(notice), icon=":material/link_off:")
    bare = look.embedded() or look.bare()
    runs = {_focus_label(lab, story, state): state.focus, **state.beside}
    jobs, refusal = {}, None
    if not is_given_up(lab, list(runs.values())):
        try:
            jobs = submit(lab, runs)  # first of all: they compute while the page is written
        except TooLarge as reason:
            refusal = reason
    if not bare:
        _controls(lab, state, options, story)
    elif not (look.hiding() or look.embedded()):
        _notice(lab, state)
    if refusal is not None:
        st.error(escape(str(refusal)))
    elif not jobs:
        given_up(lab, list(runs.values()))
    if not jobs:
        return
    if not wait_for(jobs):
        watch(jobs, lambda current: None if look.hiding() else _preview(lab, story, current))
        return
    finished = results(jobs)
    if not finished:
        return
    view = View(
        lab,
        state,
        finished,
        x=options.axis,
        details=options.shown - SHOWN.keys(),
        spaghetti=REPLICATES in options.shown,
        present=look.presenting(),
    )
    note(view, story.metric)
    if instead(view):
        return
    pictures = _pictures(module, view, options)
    report = None if look.embedded() else confirmed.newest(lab)
    if report is not None:
        pictures = confirmed.lay_over(module, view, pictures, report)
    st.session_state[f"ranges/{lab.id}"] = {one.id: ranges for one in pictures if (ranges := ranges_of(one.spec))}
    identity = _identity(view, options) + (report["created"] if report is not None else "")
    _draw(view, _named(identity=identity, _pictures=pictures) if view.present else pictures, identity)
    if look.embedded():
        return
    for sentence in unmet(pictures, options):
        st.caption(escape(sentence))
    _formulas(view, story)
    if story.experiment is not None:
        story.experiment(view)

    st.header("Does the theory hold here?")
    verdict_table(view.focus.claims)
    if report is not None:
        figures = confirmed.figures(lab_id=lab.id, created=report["created"], _report=report)
        confirmed.show(view, report, figures)
        pictures = [*pictures, *figures]
    many = len(view.runs) > 1
    fold("runs", "The runs side by side" if many else "End values of the run", lambda: _side_by_side(view))
    fold("why", "Why", lambda: st.markdown(story.why))
    fold(
        "rerun",
        "Rerun this, take it away",
        lambda: rerun_this(view, pictures, story.formulas, _page_url(), _query(lab, story)),
    )


def fold(name: str, words: str, content: Callable[[], object]) -> None:
    """A section that is written when it is opened: a slider's answer does not wait for what nobody sees."""
    widget, kept = f"fold/{name}", f"open/{name}"

    def turned() -> None:
        st.session_state[kept] = st.session_state[widget]

    # Kept beside the widget, which is forgotten while a progress bar stands in its place.
    st.session_state.setdefault(widget, st.session_state.get(kept, False))
    section = st.expander(words, key=widget, on_change=turned)
    if section.open:
        with section:
            content()


def _side_by_side(view: View) -> None:
    differences_table(view)
    metrics_table(view)


# -- state ---------------------------------------------------------------------------------------------------


def _state(lab: Lab, story: Story) -> tuple[PageState, Options, list[str]]:
    """The page's state: from the address when somebody changed it, else from this session; the address follows."""
    kept_at, written = f"state/{lab.id}", f"address/{lab.id}"
    query = {name: st.query_params.get_all(name) for name in st.query_params}
    own = {name: values for name, values in query.items() if name not in TAB_KEYS}
    fresh = kept_at not in st.session_state or (own and own != st.session_state.get(written))
    notices = []
    if fresh:
        st.session_state[kept_at], notices = decode(lab, own)
        st.session_state[f"options/{lab.id}"], more = decode_options(own, story.x, axes(story), _shown(story))
        notices += more
    state, options = held(lab), held_options(lab)
    link = {**encode(lab, state), **encode_options(options, story.x)}
    if own != link:
        kept = {name: values for name, values in query.items() if name not in own}
        st.query_params.from_dict({**kept, **link})
    st.session_state[written] = link
    return state, options, notices


def axes(story: Story) -> list[str]:
    """The horizontal axes of a lab's page."""
    return [*X_AXES, *story.x_axes]


def _shown(story: Story) -> dict[str, str]:
    """What can be shown on demand, with the words of each switch."""
    return {**story.details, **SHOWN}


def _query(lab: Lab, story: Story) -> dict[str, list[str]]:
    """The whole state as a link holds it: it says the version and every field, also where the page's own does not."""
    return {**encode(lab, held(lab), whole=True), **encode_options(held_options(lab), story.x)}


def held_options(lab: Lab) -> Options:
    options: Options = st.session_state[f"options/{lab.id}"]
    return options


def hold_options(lab: Lab, options: Options) -> None:
    """Keep options changed by a widget, as `hold` keeps a state."""
    st.session_state[f"options/{lab.id}"] = options
    _follow(lab)


def held(lab: Lab) -> PageState:
    """The state as it is now: a widget's callback may come before the page has followed an earlier one."""
    state: PageState = st.session_state[f"state/{lab.id}"]
    return state


def hold(lab: Lab, state: PageState) -> None:
    """Keep a state changed by a widget, and let the address follow on the rerun that comes."""
    st.session_state[f"state/{lab.id}"] = state
    _follow(lab)


def _follow(lab: Lab) -> None:
    """Take the address as it stands for the page's own, which it will be made."""
    st.session_state[f"address/{lab.id}"] = {
        name: st.query_params.get_all(name) for name in st.query_params if name not in TAB_KEYS
    }


def _controls(lab: Lab, state: PageState, options: Options, story: Story) -> None:
    """What a visitor chooses with, in the page and in the sidebar; on a projector in one line, beside the title."""
    if look.presenting():
        with st.container(horizontal=True, vertical_alignment="center", key="stage"):
            st.title(lab.title, width="content")
            _presets(lab, state)
            _tour(lab, state)
            with st.popover("Show", icon=":material/tune:"):
                _x_axis(lab, story, options)
                _details(lab, story, state, options)
            look.control()
            _link_button()
        _notice(lab, state)
    else:
        _presets(lab, state)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            _x_axis(lab, story, options)
            _details(lab, story, state, options)
        with st.container(horizontal=True, vertical_alignment="center", key="tour"):
            _tour(lab, state)
            _notice(lab, state)
    _sidebar(lab, state, story)
    if st.session_state.pop("link-wanted", False):
        link_dialog(lab, _page_url(), _query(lab, story))


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
    told = {"format_func": titles.__getitem__, "key": widget, "on_change": chosen}
    if look.presenting():
        st.selectbox("Preset", list(titles), label_visibility="collapsed", width=280, **told)
    else:
        st.pills("Preset", list(titles), **told)


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
    st.session_state[f"changed/{lab.id}"] = name


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


def _x_axis(lab: Lab, story: Story, options: Options) -> None:
    words = {name: words for name, (words, _) in X_AXES.items()}
    words |= {name: lab.series[name].label for name in story.x_axes}
    widget = f"x/{lab.id}"
    st.session_state[widget] = options.axis
    st.segmented_control(
        "Horizontal axis",
        list(words),
        format_func=words.__getitem__,
        key=widget,
        required=True,
        on_change=lambda: hold_options(lab, replace(held_options(lab), axis=st.session_state[widget], ranges={})),
    )


def _details(lab: Lab, story: Story, state: PageState, options: Options) -> None:
    """The switches of what is shown on demand, and the one that makes the axes stand still."""
    with st.container(horizontal=True):
        for name, words in _shown(story).items():
            if name != DIFFERENCE or state.beside:
                _switch(
                    words,
                    f"detail/{lab.id}/{name}",
                    name in options.shown,
                    lambda on, name=name: hold_options(lab, held_options(lab).switched(name, on)),
                )
        _switch("Keep the axes", f"ranges/{lab.id}/kept", bool(options.ranges), lambda on: _keep_axes(lab, on))


def _switch(words: str, key: str, on: bool, change: Callable[[bool], object]) -> None:
    st.session_state[key] = on
    st.toggle(words, key=key, on_change=lambda: change(st.session_state[key]))


def _keep_axes(lab: Lab, on: bool) -> None:
    """Hold every axis at its present range, whatever is drawn next, or let it follow the numbers again."""
    hold_options(lab, replace(held_options(lab), ranges=st.session_state.get(f"ranges/{lab.id}", {}) if on else {}))


def _page_url() -> str:
    url = urlsplit(st.context.url or "")
    return f"{url.scheme}://{url.netloc}{url.path}" if url.netloc else ""


# -- pictures ------------------------------------------------------------------------------------------------


def _pictures(module: object, view: View, options: Options) -> list[Picture]:
    """The lab's pictures, with the runs at hand that they need besides the page's own."""
    remembered = f"needs/{view.lab.id}"
    found, _ = fetch(view.lab, st.session_state.get(remembered, ()))
    view = replace(view, fetched=found)
    # By name: Streamlit reads a function's signature for each argument that comes by its place.
    pictures = _declared(identity=_identity(view, options), _module=module, _view=view, _options=options)
    needs = {picture.id: picture.needs for picture in pictures}
    st.session_state[remembered] = [params for wanted in needs.values() for params in wanted]
    found = {}
    for wanted in needs.values():
        at_hand, missing = fetch(view.lab, wanted)
        if missing and cost(view.lab, missing) < AT_ONCE_SECONDS:
            at_hand, _ = fetch(view.lab, wanted, compute=True)
        found |= at_hand
    view = replace(view, fetched=found)
    return _declared(identity=_identity(view, options), _module=module, _view=view, _options=options)


def _identity(view: View, options: Options) -> str:
    """What the pictures of a view depend on, as one text: runs by key, not by their arrays."""
    runs = [(label, run.key) for label, run in view.runs.items()]
    looked = [options.axis, sorted(options.shown), options.ranges]
    return canonical_json([view.lab.id, view.state.preset, runs, looked, sorted(view.fetched)])


@st.cache_resource(max_entries=DRAWN, show_spinner=False)
def _declared(identity: str, _module: object, _view: View, _options: Options) -> list[Picture]:
    """The lab's pictures as they are looked at, remembered: a class looks at the same runs."""
    return looked_at(_module.pictures(_view), _view, _options)  # type: ignore[attr-defined]


@st.cache_resource(max_entries=DRAWN, show_spinner=False)
def _named(identity: str, _pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures with names on their lines, for a room."""
    return [on_lines(picture) for picture in _pictures]


def _draw(view: View, pictures: Sequence[Picture], identity: str) -> None:
    """One player for the pictures that share a clock; `identity` says what they depend on."""
    with st.container(key="pictures-head"):
        st.header("Pictures", anchor="pictures")  # for those who cannot see them, and for links from the ledger
    for index, (clock, group) in enumerate(by_clock(pictures).items()):
        drawn = [picture.for_player(notes=not look.embedded()) for picture in group]
        key, seen = f"player/{view.lab.id}/{index}", f"{identity} {look.embedded()}"
        player(drawn, steps=clock or None, step_label="step", key=key, present=view.present, identity=seen)
    if not look.embedded():
        st.caption(band_words(view))
    for picture in () if look.embedded() else pictures:
        _, missing = fetch(view.lab, picture.needs)
        if missing:
            _offer(view.lab, picture, missing)


def _formulas(view: View, story: Story) -> None:
    """The lab's formulas with the numbers of the run in focus, the parameter changed last in colour."""
    run, changed = view.focus, st.session_state.get(f"changed/{view.lab.id}")
    if speaking := _speaking(key=run.key, changed=changed, _formulas=story.formulas, _run=run):
        st.header("What the theory says, in numbers")
        formulas(view.lab.id, speaking, view.present)


@st.cache_resource(max_entries=DRAWN, show_spinner=False)
def _speaking(key: str, changed: str | None, _formulas: Sequence[Formula], _run: Run) -> str:
    """The formulas that speak of a run, as HTML, remembered by the run's key: a class looks at the same runs."""
    return "".join(map(as_html, shown(_formulas, _run, changed)))


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
    if len(table["value"]):
        st.vega_lite_chart(table, spec, width="stretch", alt=f"{story.metric} recorded so far")
