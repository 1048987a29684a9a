"""Nodes in a plane, and end values as bars: what they show is what the run holds."""

from __future__ import annotations

import numpy as np
import pytest
import vl_convert

from app.frame.domains import KINDS, chosen_axes, links_of
from app.frame.meters import meters
from app.frame.pictures import Picture
from app.frame.plane import OTHERS, Link, Plane, plane
from app.frame.state import PageState
from tests.app.samples import view_of

LAB = "linear_transfer"
STEPS = np.array([0, 5])


def drawn(**changes) -> Picture:
    nodes = np.array([[[1.0, 0.0], [-1.0, 0.5]], [[2.0, 0.0], [np.nan, 0.5]]])
    given = {
        "nodes": nodes,
        "label": np.array([0, 1]),
        "domain": np.array([0, 1]),
        "domain_names": ["source", "target"],
        "axes": ("right", "up"),
    }
    return plane(Plane(**{**given, **changes}), id="p", title="t", said="1", note="", steps=STEPS)


def params(**changes):
    from sims.engine import get_lab

    return get_lab(LAB).params.make(changes)


def test_nodes_move_and_those_that_are_nowhere_are_left_out():
    picture = drawn()
    table = picture.frames["nodes"]
    assert picture.steps is STEPS and not picture.data
    np.testing.assert_array_equal(table["frame"], [0, 0, 1])
    np.testing.assert_array_equal(table["x"], [1.0, -1.0, 2.0])
    assert table["class"].tolist() == ["class 1", "class 2", "class 1"]
    assert table["domain"].tolist() == ["source", "target", "source"]


def test_a_single_frame_stands_still():
    picture = drawn(nodes=np.zeros((1, 2, 2)))
    assert picture.steps is None and not picture.frames and "frame" not in picture.data["nodes"]


def test_the_border_is_where_the_classifier_is_undecided():
    """a + b x + c y = 0 at both ends of the piece that is drawn; no piece where there is no border."""
    border = np.array([[0.5, 1.0, -2.0], [0.3, 0.0, 0.0]])
    table = drawn(border=border).frames["border"]
    np.testing.assert_array_equal(table["frame"], [0])
    a, b, c = border[0]
    for x, y in ((table["x"], table["y"]), (table["x2"], table["y2"])):
        np.testing.assert_allclose(a + b * x + c * y, 0.0, atol=1e-12)


def test_links_join_their_nodes_and_are_as_wide_as_they_are_heavy():
    picture = drawn(nodes=np.array([[[1.0, 0.0], [-1.0, 0.5]]]), links=[Link(0, 1, 0.15, "kind")])
    table = picture.data["links"]
    assert [table[name][0] for name in ("x", "y", "x2", "y2", "weight")] == [1.0, 0.0, -1.0, 0.5, 0.15]
    svg = vl_convert.vegalite_to_svg(picture.on_paper(""))
    assert 'stroke-width="7.25"' in svg, "halfway between the thinnest and the widest"


def test_classes_beyond_the_palette_are_drawn_together():
    many = drawn(nodes=np.zeros((1, 7, 2)), label=np.arange(7), domain=np.zeros(7, int))
    assert many.data["nodes"]["class"].tolist()[4:] == ["class 5", OTHERS, OTHERS]


def test_links_of_four_nodes_are_of_three_kinds():
    label, domain = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = {(link.first, link.second): (link.weight, link.kind) for link in links_of(label, domain, (9, 1, 2, 3))}
    assert found == {
        (0, 1): (1, KINDS[0]), (2, 3): (1, KINDS[0]), (0, 2): (2, KINDS[1]), (1, 3): (2, KINDS[1]),
        (0, 3): (3, KINDS[2]), (1, 2): (3, KINDS[2]),
    }  # fmt: skip
    assert len(links_of(label, domain, (9, 1, 2, 0))) == 4, "what weighs nothing is no link"


@pytest.mark.parametrize(
    ("changes", "axes"),
    [
        ({}, ("class", "domain")),
        ({"across_classes": 0.01}, ("class", "interaction")),
        ({"across_domains": 0.01}, ("interaction", "domain")),
        ({"n_features": 4}, ("class", "interaction")),
        ({"across_domains": 0.02}, ("class", "domain")),
    ],
)
def test_the_axes_are_those_that_the_features_hold(changes, axes):
    run = view_of(LAB, PageState("four_nodes", params(training="eigen", **changes))).focus
    assert chosen_axes(run, run.params.n_features, 4) == axes


def test_bars_are_means_and_ticks_are_claims():
    view = view_of(LAB, PageState("four_nodes", params(training="eigen", across_domains=0.01)))
    picture = meters(view, {"target_accuracy": "target", "domain_accuracy": "domain"}, id="m", title="t", note="")
    assert picture.data["bars"]["value"] == [0.0, 1.0] == picture.data["ticks"]["value"]
    assert picture.alt == "in focus: target 0, domain 1."
    early = view_of(LAB, PageState("four_nodes", params(steps=5)))
    early = meters(early, {"target_accuracy": "target"}, id="m", title="t", note="")
    assert early.data["ticks"]["value"] == [1.0], "the end is claimed"


def test_what_is_undefined_has_no_bar_and_says_so():
    view = view_of(LAB, PageState("four_nodes", params(training="eigen", across_domains=0.05, across_both=0.05)))
    picture = meters(view, {"target_accuracy": "target", "domain_accuracy": "domain"}, id="m", title="t", note="")
    assert picture.data["silent"]["metric"] == ["target"] and picture.data["bars"]["metric"] == ["domain"]
    assert "target undefined" in picture.alt
    assert ">undefined<" in vl_convert.vegalite_to_svg(picture.on_paper(""))
