"""Predict, then observe: a page that hides what the class is to guess, the guesses, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from sims.engine import BadInput
from sims.engine.params import format_value

from ..frame import look
from ..frame.pictures import Picture, every_run, overlay, x_axis, x_of
from ..frame.player import player
from ..frame.runs import View
from ..frame.words import escape
from . import ensemble
from .me import Part, house
from .store import Guess, Question, Room

SHOWN = {  # the tables of an overlay that stay, by what is hidden
    "nothing": ("lines", "theory"),
    "theory": ("lines",),
    "simulation": ("theory",),
    "both": (),
}
HIDDEN_WORDS = {
    "nothing": "",
    "theory": "The theory is hidden until the answer is revealed.",
    "simulation": "The simulation is hidden until the answer is revealed.",
    "both": "Theory and simulation are hidden until the answer is revealed.",
}
BARS = 15
_AXES = ("x", "y")


def hides(question: Question | None, lab_id: str) -> bool:
    """Whether a page of this lab is now drawn by `drawn_instead`."""
    if question is None or question.revealed or question.lab != lab_id:
        return False
    return question.hides != "nothing" or question.kind == "point"


# -- the page while the class guesses ----------------------------------------------------------------------------------


def drawn_instead(view: View, part: Part, question: Question) -> None:
    """The one picture of the question, without what is hidden; students may pick a point of it, if that is asked."""
    st.info(HIDDEN_WORDS[question.hides] or "Pick a point of the picture.", icon=":material/visibility_off:")
    picture = question_picture(view, question)
    if question.kind == "point" and part.role == "student":
        _pad(picture, part, question)
    else:
        key = f"question/{question.number}"
        player([picture.for_player()], steps=None, step_label="step", key=key, present=look.presenting(), height=380)


@st.fragment
def _pad(picture: Picture, part: Part, question: Question) -> None:
    """The picture, to pick a point of."""
    mine = house().guess_of(part.code, part.token, question.number)
    points = [] if mine is None or mine.x is None or mine.y is None else [(mine.x, mine.y)]
    table = {axis: np.array([point[at] for point in points], dtype=float) for at, axis in enumerate(_AXES)}
    drawn = replace(picture, data={**picture.data, "picked": table}, spec=_with_points(picture.spec, "picked", "own"))
    player(
        [drawn.for_player()],
        steps=None,
        step_label="step",
        key=f"pad/{question.number}",
        present=look.presenting(),
        height=380,
        on_pick=lambda x, y: commit(part, question, Guess(x=x, y=y)),
    )


def commit(part: Part, question: Question, guess: Guess) -> None:
    """Hand in a guess; where it comes too late, that is said."""
    try:
        house().guess(part.code, part.token, question.number, guess)
    except BadInput as refusal:
        st.toast(str(refusal), icon=":material/error:")


def metric_of(question: Question, view: View) -> str:
    """The series whose picture is shown: the one that was asked for, else one that has a chalk line."""
    asked = question.metric in view.lab.series
    return question.metric if asked else ensemble.told_series(view.lab, view.focus.prediction)


def question_picture(view: View, question: Question) -> Picture:
    """The overlay of the question's series, without what is hidden; its axes are those of the whole."""
    metric = metric_of(question, view)
    title = view.lab.quantity(metric).label
    whole = overlay(view, every_run(view, metric), id="question", title=title)
    kept = [name for name in SHOWN[question.hides] if name in whole.data]
    layers = [layer for layer in whole.spec["layer"] if layer["data"]["name"] in kept]
    spec = {**whole.spec, "layer": layers}
    if not layers:  # the bare axes, to draw into
        spec = _with_points(whole.spec, "axes", "none")
        spec["layer"] = spec["layer"][-1:]
        kept, whole = ["axes"], replace(whole, data={"axes": {axis: np.zeros(0) for axis in _AXES}})
    alt = HIDDEN_WORDS[question.hides] or whole.alt
    data = {name: whole.data[name] for name in kept}
    return replace(whole, spec=spec, data=data, frames={}, steps=None, alt=f"{title}. {alt}", note="")


def _with_points(spec: Mapping[str, Any], table: str, kind: str) -> dict[str, Any]:
    """One more layer: the points of a table on the scales of the picture."""
    line = next(layer for layer in spec["layer"] if layer["data"]["name"] in ("lines", "theory", "axes"))
    places = {axis: {**line["encoding"][axis], "field": axis} for axis in _AXES}
    mark = {
        "own": {"type": "point", "shape": "cross", "filled": True, "size": 260, "color": "$run2", "opacity": 1},
        "all": {"type": "point", "filled": True, "size": 90, "color": "$run4", "opacity": 0.55},
        "none": {"type": "point", "opacity": 0},
    }[kind]
    layer = {"data": {"name": table}, "mark": {**mark, "clip": True}, "encoding": places}
    return {**spec, "layer": [*spec["layer"], layer]}


# -- the answers, and what came of them --------------------------------------------------------------------------------


def answer(part: Part, question: Question) -> None:
    """Where a student answers: choices to take one of, or words that say where to pick a point."""
    mine = house().guess_of(part.code, part.token, question.number)
    if question.kind == "point":
        st.caption("Pick a point of the picture below." if mine is None else f"Your guess: {_point(mine)}.")
        return
    held = None if mine is None else mine.choice
    chosen = st.radio(
        question.text,
        range(len(question.choices)),
        index=held,
        format_func=lambda number: escape(question.choices[number]),
        key=f"answer/{part.code}/{question.number}",
        label_visibility="collapsed",
    )
    if chosen is not None and chosen != held:
        commit(part, question, Guess(choice=chosen))
    said = "Commit to an answer." if chosen is None else "Your guess is in; it may be changed until the reveal."
    st.caption(said)


def outcome(room: Room, part: Part, question: Question) -> None:
    """The guesses of the class at the answers to choose from, and which was right."""
    guesses = house().guesses(room.code, question.number)
    if question.kind == "point":
        return
    mine = house().guess_of(part.code, part.token, question.number) if part.role == "student" else None
    counts = Counter(guess.choice for guess in guesses)
    for number, choice in enumerate(question.choices):
        right = " **✓ the outcome**" if number == question.right else ""
        own = " · your guess" if mine is not None and mine.choice == number else ""
        share = counts[number] / max(1, len(guesses))
        st.progress(share, text=f"{escape(choice)}: {counts[number]} of {len(guesses)}{own}{right}")


def points_outcome(view: View, question: Question, code: str) -> None:
    """The points that the class picked, in the picture of what came, and how far they were off."""
    guesses = house().guesses(code, question.number)
    points = [(guess.x, guess.y) for guess in guesses if guess.x is not None and guess.y is not None]
    if not points:
        st.caption("Nobody has picked a point.")
        return
    pictures = [with_guesses(view, question, points)]
    off = distances(view, question, points)
    pictures += [histogram_of(off, is_log(view, question))] if len(off) else []
    drawn = [picture.for_player() for picture in pictures]
    key = f"guesses/{question.number}"
    player(drawn, steps=None, step_label="step", key=key, present=look.presenting())


def is_log(view: View, question: Question) -> bool:
    return view.lab.quantity(metric_of(question, view)).scale == "log"


def with_guesses(view: View, question: Question, points: Sequence[tuple[float, float]]) -> Picture:
    """The whole picture with everybody's points in it."""
    shown = question_picture(view, replace(question, hides="nothing"))
    table = {axis: np.array([point[at] for point in points]) for at, axis in enumerate(_AXES)}
    return replace(
        shown,
        title=f"{shown.title}, and {len(points)} guess{'es' if len(points) > 1 else ''}",
        data={**shown.data, "guesses": table},
        spec=_with_points(shown.spec, "guesses", "all"),
    )


def distances(view: View, question: Question, points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """How far each guess is above what came at its place: a quotient on a log scale, else a difference.

    What came is the theory where that was hidden, else the median of the run in focus. A guess beside the recorded
    steps, or where nothing was predicted, is left out.
    """
    metric, run = metric_of(question, view), view.focus
    x = x_of(view, run)
    predicted = run.prediction.prediction.get(metric) if question.hides == "theory" else None
    median = np.median(run.trace.series[metric], axis=0)
    came = median if predicted is None else np.broadcast_to(np.asarray(predicted, dtype=float), x.shape)
    log_x, log_y = x_axis(view)[1], is_log(view, question)
    known = np.isfinite(came) & np.isfinite(x) & ((x > 0) if log_x else True) & ((came > 0) if log_y else True)
    if not np.any(known):
        return np.zeros(0)
    order = np.argsort(x[known])
    at, values = x[known][order], came[known][order]
    along, up = (np.log if log_x else np.asarray), (np.log if log_y else np.asarray)
    found = []
    for px, py in points:
        if at[0] <= px <= at[-1] and (py > 0 or not log_y):
            here = np.interp(along(px), along(at), up(values))
            found.append(float(np.exp(np.log(py) - here) if log_y else py - here))
    return np.array(found)


def histogram_of(off: NDArray[np.float64], log: bool) -> Picture:
    """How far the guesses were off, in bars; a line where they would be right."""
    values = np.log10(off) if log else off
    most = max(float(np.max(np.abs(values))), 0.1 if log else 1e-9) * 1.05
    counts, edges = np.histogram(values, bins=BARS, range=(-most, most))
    shown = 10.0**edges if log else edges
    scale = {"type": "log" if log else "linear", "domain": [shown[0], shown[-1]], "nice": False}
    title = "guess, as a multiple of what came" if log else "guess minus what came"
    place = {"type": "quantitative", "scale": scale, "title": title, "axis": {"format": "~g", "tickCount": 5}}
    tall = {"type": "quantitative", "title": "guesses", "scale": {"domain": [0, max(1, int(counts.max()))]}}
    bars = {
        "data": {"name": "bars"},
        "mark": {"type": "bar", "color": "$run4", "binSpacing": 1, "orient": "vertical"},
        "encoding": {
            "x": {**place, "field": "low"},
            "x2": {"field": "high"},
            "y": {**tall, "field": "count"},
            "y2": {"datum": 0},
        },
    }
    bars["encoding"]["y"]["axis"] = {"tickMinStep": 1}
    rule = {
        "data": {"name": "right"},
        "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [7, 4], "color": "$text"},
        "encoding": {"x": {**place, "field": "x"}},
    }
    right = 1.0 if log else 0.0
    middle = float(np.median(off))
    said = f"{len(off)} guesses; the middle one is {format_value(float(f'{middle:.3g}'))} "
    return Picture(
        id="histogram",
        title="How far off",
        spec={"layer": [bars, rule]},
        alt=said + ("times what came." if log else "above what came."),
        data={
            "bars": {"low": shown[:-1], "high": shown[1:], "count": counts.astype(np.int64)},
            "right": {"x": np.array([right])},
        },
    )


def _point(guess: Guess) -> str:
    assert guess.x is not None and guess.y is not None
    x = f"{guess.x:,.0f}" if abs(guess.x) >= 1000 else f"{guess.x:.3g}"
    return f"{guess.y:.3g} at {x}"
