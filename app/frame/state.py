"""A page's state, and the link that holds it: the run in focus and the runs drawn beside it.

A link carries the lab's version and every active field that differs from that version's defaults, by name, so
that it can be read and written by hand:

    /label_noise?v=2&preset=shape_matters&n_train=60&beside=gradient+descent~algorithm:gd~steps:20000
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sims.engine import BadInput, Lab, Params
from sims.engine.errors import shorten
from sims.engine.params import Value

from .options import OPTION_KEYS

MOST_BESIDE = 6
MOST_NOTICES = 8
LONGEST_LABEL = 60
ROOM_KEYS = ("room", "seat", "teach", "screen", "detached")  # a tab's part in a room
# Of an address, but no part of what its link restores: how one tab looks at it, and what stands beside it.
TAB_KEYS = ("embed", "embed_options", "present", "controls", "guide", "at", *ROOM_KEYS)
VIEW_KEYS = (*TAB_KEYS, *OPTION_KEYS)  # what else a page's address may hold besides the runs


@dataclass(frozen=True)
class PageState:
    """What a lab page shows: `focus` in the form, `beside` = {label: params} drawn with it."""

    preset: str
    focus: Params
    beside: Mapping[str, Params] = field(default_factory=dict)

    def with_focus(self, focus: Params) -> PageState:
        return replace(self, focus=focus)

    def pin(self, label: str, params: Params) -> PageState:
        """The state with one more run beside the focus, under a label not taken yet. Raises BadInput."""
        if len(self.beside) >= MOST_BESIDE:
            raise BadInput(f"At most {MOST_BESIDE} runs are drawn beside the one in focus: remove one first.")
        return replace(self, beside={**self.beside, _unused(_clean(label), self.beside): params})

    def unpin(self, label: str) -> PageState:
        return replace(self, beside={other: params for other, params in self.beside.items() if other != label})


def of_preset(lab: Lab, preset_id: str) -> PageState:
    """The state that a preset describes. Raises UnknownName."""
    preset = lab.preset(preset_id)
    runs = lab.runs(preset)
    return PageState(preset.id, runs.pop(preset.label), runs)


def encode(lab: Lab, state: PageState, whole: bool = False) -> dict[str, list[str]]:
    """The query of the link to this state; the default page's is empty, unless it is to be `whole`.

    Fields and runs beside are written out whole, so that a link means the same when a default or a preset changes.
    A preset alone means all of the preset, so that where nothing else would be written an empty `beside` says that
    nothing is meant.
    """
    if not whole and state == of_preset(lab, lab.presets[0].id):
        return {}
    query = {"v": [str(lab.version)], "preset": [state.preset]}
    query |= {name: [text] for name, text in state.focus.texts().items()}
    beside = [
        "~".join([label, *(f"{n}:{t}" for n, t in params.texts().items())]) for label, params in state.beside.items()
    ]
    if len(query) == 2 and not beside:
        beside = [""]
    return {**query, "beside": beside} if beside else query


def decode(lab: Lab, query: Mapping[str, Sequence[str]]) -> tuple[PageState, list[str]]:
    """The state that a link describes, and a sentence for each part of it that was not understood.

    A link with a version holds the whole state. One written by hand, without a version, changes what it names
    of its preset (or of the default page). What is understood is kept; nothing is dropped in silence.
    """
    notices: list[str] = []
    query = {name: values for name, values in query.items() if name not in VIEW_KEYS}
    default = of_preset(lab, lab.presets[0].id)
    if not query:
        return default, notices
    version = _version(lab, query, notices)
    state = default
    if "preset" in query:
        try:
            state = of_preset(lab, query["preset"][-1])
        except BadInput as error:
            notices.append(str(error))
    texts = {name: values[-1] for name, values in query.items() if name not in ("v", "preset", "beside")}
    notices += [
        f"{shorten(name)} is written {len(values)} times; the last one counts."
        for name, values in query.items()
        if len(values) > 1 and name != "beside"
    ]
    whole = "v" in query and (texts or "beside" in query)  # a link that was copied: what it omits is a default
    base = lab.params.make() if whole else state.focus
    if texts or whole:
        state = replace(state, focus=_params(base, lab, texts, version, notices))
    if whole or "beside" in query:
        beside = [entry for entry in query.get("beside", ()) if entry]
        state = replace(state, beside=_beside(lab, beside, version, notices))
    if len(notices) > MOST_NOTICES:
        notices[MOST_NOTICES:] = [f"{len(notices) - MOST_NOTICES} more parts of the link were not understood."]
    return state, notices


def _version(lab: Lab, query: Mapping[str, Sequence[str]], notices: list[str]) -> int:
    if "v" not in query:
        return lab.version
    text = query["v"][-1]
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= lab.version:
        version = int(text[:9])
        if version != lab.version:
            notices.append(
                f"This link was made for version {version} of the lab; it is shown by version {lab.version}."
            )
        return version
    notices.append(
        f"The link says version {shorten(text)}; this lab has versions 1 to {lab.version}. The present one is shown."
    )
    return lab.version


def _params(base: Params, lab: Lab, texts: Mapping[str, str], version: int, notices: list[str]) -> Params:
    """`base` with fields set from texts: one that is not understood is named and left as it is."""
    try:
        texts = lab.migrate(texts, version)
    except BadInput as error:
        notices.append(str(error))
        return base
    values = {}
    for name, text in texts.items():
        declared = lab.params.fields().get(name)
        if declared is None:
            notices.append(f"The link sets {shorten(name)}, which {lab.id} does not have; it was ignored.")
            continue
        try:
            values[name] = declared.parse(text)
        except BadInput as error:
            notices.append(f"{error} It was ignored.")
    while True:
        try:
            return base.replace(**values)
        except BadInput as error:
            named = dict.fromkeys(problem.parameter for problem in error.problems if not isinstance(problem, str))
            wrong = [name for name in named if name in values] or _at_odds(base, values)
            notices.append(f"{error} The link's {', '.join(wrong)} was ignored.")
            for name in wrong:
                del values[name]


def _at_odds(base: Params, values: Mapping[str, Value]) -> list[str]:
    """One field without which the others are possible, if there is one; else all of them."""
    for name in values:
        try:
            base.replace(**{other: value for other, value in values.items() if other != name})
        except BadInput:
            continue
        return [name]
    return list(values)


def _beside(lab: Lab, entries: Sequence[str], version: int, notices: list[str]) -> dict[str, Params]:
    if len(entries) > MOST_BESIDE:
        notices.append(
            f"The link names {len(entries)} runs beside the one in focus; the first {MOST_BESIDE} are drawn."
        )
    found: dict[str, Params] = {}
    for entry in entries[:MOST_BESIDE]:
        label, *pairs = entry.split("~")
        texts: dict[str, str] = {}
        for pair in pairs:
            name, colon, text = pair.partition(":")
            if not colon:
                notices.append(
                    f"{shorten(pair)} in the run {shorten(label)} is not of the form name:value; it was ignored."
                )
                continue
            if name in texts:
                notices.append(f"{shorten(name)} is written twice in the run {shorten(label)}; the last one counts.")
            texts[name] = text
        found[_unused(_clean(label), found)] = _params(lab.params.make(), lab, texts, version, notices)
    return found


def _unused(label: str, taken: Container[str]) -> str:
    """The label, numbered if there is one like it already."""
    chosen, number = label, 2
    while chosen in taken:
        suffix = f", no. {number}"
        chosen, number = label[: LONGEST_LABEL - len(suffix)].strip() + suffix, number + 1
    return chosen


def _clean(label: str) -> str:
    """A label as a link may hold it: printable, short, without the signs that separate."""
    kept = "".join(c for c in label if c.isprintable() and c not in "~<>[]()$`*_\\")
    return kept.strip()[:LONGEST_LABEL].strip() or "run"
