"""Predict, then observe, as pictures: what is hidden is not in the message at all, and guesses are measured rightly."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from app.frame.export import figure_bytes
from app.frame.player import pack
from app.frame.runs import View
from app.frame.state import PageState
from app.room import ensemble, question
from app.room.store import Guess, Question
from sims.engine import all_labs, execute, get_lab

LAB = get_lab("label_noise")
PARAMS = LAB.params.make(steps=60, n_train=5, dim=8, sparsity=2)
ASKED = Question("?", LAB.id, kind="point", number=1)


@pytest.fixture(scope="module")
def view():
    return View(LAB, PageState("shape_matters", PARAMS), {"label noise": execute(LAB, PARAMS)})


@pytest.mark.parametrize(
    ("hides", "tables"),
    [("nothing", {"lines", "theory"}), ("theory", {"lines"}), ("simulation", {"theory"}), ("both", {"axes"})],
)
def test_what_is_hidden_is_not_sent(view, hides, tables):
    """Only axes are shared with the whole picture: its range must not tell more than a class needs to guess in it."""
    picture = question.question_picture(view, replace(ASKED, hides=hides))
    assert picture.data.keys() == tables and not picture.frames
    assert {layer["data"]["name"] for layer in picture.spec["layer"]} == tables
    message = pack([picture.for_player()], steps=None, step_label="step", key="k")
    if hides in ("theory", "both"):
        assert b'"theory"' not in message
    if hides != "nothing":
        assert "hidden until the answer is revealed" in picture.alt and not any(sign.isdigit() for sign in picture.alt)
    whole = question.question_picture(view, replace(ASKED, hides="nothing"))

    def scales(spec):
        encoding = spec["layer"][0]["encoding"]
        return json.dumps([encoding[axis]["scale"] for axis in "xy"])

    assert scales(picture.spec) == scales(whole.spec)


@pytest.mark.parametrize("lab", [lab.id for lab in all_labs()])
def test_every_lab_has_a_picture_to_ask_about(lab):
    """A recorded series with a prediction that can be hidden: the one of its story, where that has one."""
    lab = get_lab(lab)
    prediction = lab.predict(lab.focus(lab.presets[0]))
    series = ensemble.told_series(lab, prediction)
    assert series in lab.series and prediction.prediction[series] is not None
    own = ensemble.lab_module(lab.id).STORY.metric
    assert series == own or prediction.prediction.get(own) is None


def test_a_guess_is_measured_against_what_came_at_its_place(view):
    run = view.focus
    came = np.median(run.trace.series["test_error"], axis=0)
    points = [(float(run.trace.step[-1]), 2.0 * came[-1]), (float(run.trace.step[0]), came[0] / 10.0)]
    asked = replace(ASKED, hides="simulation")
    np.testing.assert_allclose(question.distances(view, asked, points), [2.0, 0.1], rtol=1e-9)
    theory = run.prediction.prediction["test_error"]
    np.testing.assert_allclose(
        question.distances(view, replace(asked, hides="theory"), [(float(run.trace.step[-1]), float(theory[-1]))]),
        [1.0],
    )
    beside = [(-5.0, 1.0), (1e9, 1.0), (30.0, 0.0), (30.0, -1.0)]
    assert len(question.distances(view, asked, beside)) == 0, "not on the picture, or not on a log axis"


@pytest.mark.parametrize("log", [True, False])
def test_every_guess_is_in_one_bar_of_the_histogram(log):
    off = np.array([1e-3, 0.5, 1.0, 2.0, 40.0])
    picture = question.histogram_of(off, log)
    bars = picture.data["bars"]
    assert bars["count"].sum() == len(off) and np.all(bars["low"] < bars["high"])
    right = picture.data["right"]["x"][0]
    (middle,) = np.flatnonzero((bars["low"] < right) & (right < bars["high"]))
    assert middle == question.BARS // 2, "who is right is in the middle"
    pack([picture.for_player()], steps=None, step_label="step", key="k")


def test_the_bars_of_the_histogram_stand_on_its_axis_as_tall_as_their_counts():
    picture = question.histogram_of(np.array([1e-3, 0.5, 1.0, 1.0, 1.0, 2.0, 40.0]), True)
    bars = re.findall(
        r'guesses: (\d+);[^>]*aria-roledescription="bar" d="([^"]*)"', figure_bytes(picture, "svg", "").decode()
    )
    tall = {int(count): float(re.search(r"v([\d.]+)", path)[1]) for count, path in bars}
    assert len(bars) == question.BARS and tall.keys() == {0, 1, 3}
    np.testing.assert_allclose([tall[0], tall[3]], [0.0, 3.0 * tall[1]], rtol=1e-9)


def test_the_guesses_are_drawn_into_the_picture(view):
    picture = question.with_guesses(view, ASKED, [(10.0, 1.0), (20.0, 2.0)])
    assert picture.title.endswith("and 2 guesses") and list(picture.data["guesses"]["x"]) == [10.0, 20.0]
    assert picture.data.keys() == {"lines", "theory", "guesses"}


def test_the_interval_of_the_median_covers_it_as_often_as_it_says():
    """Seed 3, 4000 samples of 30: 0.957 by the binomial law, standard error 0.0032, bound four of these."""
    rng = np.random.Generator(np.random.Philox(3))
    values = rng.standard_exponential((30, 4000))
    low, high = ensemble.median_interval(values)
    covered = np.mean((low <= np.log(2.0)) & (np.log(2.0) <= high))
    assert abs(covered - 0.957) < 4 * 0.0032
    assert ensemble.median_interval(values[:5]) is None, "five replicates say nothing with such confidence"
    six = ensemble.median_interval(values[:6])
    np.testing.assert_array_equal(six, [values[:6].min(axis=0), values[:6].max(axis=0)])


def test_replicates_that_diverged_count_as_beyond_all_others():
    values = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [np.nan]])
    low, high = ensemble.median_interval(values)
    assert low[0] == 1.0 and np.isnan(high[0])


def test_a_guess_is_told_in_words():
    assert question._point(Guess(x=12345.678, y=0.0123456)) == "0.0123 at 12,346"
