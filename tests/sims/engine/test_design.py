"""Designs: grids and lists of points, as the command line, a file and Python write them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sims.engine import BadInput, Params, param
from sims.engine.design import MOST_POINTS, Design, choose_design, grid_design, parse_axis, points_design, read_points
from sims.engine.params import canonical_json


class Lists(Params):
    """Params with a list."""

    decay: tuple[float, ...] = param((4.0, 2.0, 1.0), ge=0.0, le=10.0, help="A list.")


@pytest.fixture
def lists_lab(lab):
    return replace(lab, params=Lists)


def sentence(error):
    return str(error.value)


# -- grids -----------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_its_axes_and_the_last_runs_fastest(lab, small):
    design = grid_design(lab, small, {"n_train": [4, 5], "noise_std": [0.5, 1.0, 2.0]})
    assert len(design) == 6 and design.axes == ("n_train", "noise_std")
    assert [tuple(design.values(i).values()) for i in range(6)] == [(n, s) for n in (4, 5) for s in (0.5, 1.0, 2.0)]
    assert list(design.values(4)) == ["n_train", "noise_std"]
    for point in range(6):
        assert design.params(point) == small.replace(**design.values(point))


def test_values_become_those_of_their_field(lab, small):
    design = grid_design(lab, small, {"learning_rate": [1, np.float64(0.02)], "fresh_data": [True, np.False_]})
    assert design.levels == {"learning_rate": (1.0, 0.02), "fresh_data": (True, False)}
    assert all(type(value) is float for value in design.levels["learning_rate"])
    assert grid_design(lab, small, {"n_train": np.arange(3, 6)}).levels == {"n_train": (3, 4, 5)}


def test_a_point_may_make_a_field_of_the_base_meaningless(lab, small):
    """The noise of the base means nothing for gradient descent, which then runs without it."""
    design = grid_design(lab, small.replace(noise_std=0.5), {"algorithm": ["gd", "gd_label_noise"]})
    assert design.params(0) == small.replace(algorithm="gd") and design.params(1).noise_std == 0.5


def test_a_combination_that_is_not_possible_is_the_point_s_own_affair(lab, small):
    design = grid_design(lab, small, {"sparsity": [2, 9], "dim": [8, 10]})
    possible = [True, True, False, True]
    for point, fine in enumerate(possible):
        if fine:
            design.params(point)
        else:
            with pytest.raises(BadInput, match="so sparsity is at most 8"):
                design.params(point)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "needs an axis"),
        ({"n_trian": [3]}, "There is no parameter of label_noise 'n_trian'. Did you mean 'n_train'?"),
        ({"n_train": []}, "an axis needs values"),
        ({"n_train": "345"}, "an axis needs values"),
        ({"n_train": [3, 4, 3]}, "n_train = 3 is not possible: an axis holds each value once"),
        ({"n_train": [3, 0]}, "n_train = 0 is not possible: it must be a whole number from 1 to 20000"),
        ({"n_train": [3.5]}, "n_train = 3.5 is not possible"),
        ({"learning_rate": [0.1, float("nan")]}, "learning_rate = nan is not possible"),
        ({"algorithm": ["adam"]}, "it must be one of gd, "),
        ({"replicates": [2, 3]}, "the same for all points of a sweep. Set it once, with --replicates"),
        ({"first_replicate": [0]}, "with --first-replicate"),
    ],
)
def test_a_wrong_grid_is_one_sentence(lab, small, grid, words):
    with pytest.raises(BadInput) as error:
        grid_design(lab, small, grid)
    assert words in sentence(error)


# -- axes as text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n_train=5,10,20", (5, 10, 20)),
        ("n_train=10:20:3", (10, 15, 20)),
        ("n_train=1:1000:4:log", (1, 10, 100, 1000)),
        ("learning_rate=0.1", (0.1,)),
        ("learning_rate=0:1:5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("learning_rate=1e-3:1e-1:3:log", (0.001, 0.01, 0.1)),
        ("learning_rate=0.1:0.7:7", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        ("algorithm=gd,sgd", ("gd", "sgd")),
        ("fresh_data=true,false", (True, False)),
    ],
)
def test_an_axis_as_text(lab, text, expected):
    name, values = parse_axis(lab, text)
    assert name == text.split("=")[0] and values == expected and [*map(type, values)] == [*map(type, expected)]


def test_an_axis_of_lists_is_separated_by_semicolons(lists_lab):
    assert parse_axis(lists_lab, "decay=2,1;3,1,0.5") == ("decay", ((2.0, 1.0), (3.0, 1.0, 0.5)))
    with pytest.raises(BadInput, match="it must be numbers separated by commas, each from 0 to 10"):
        grid_design(lists_lab, Lists(), {"decay": [(2.0, 11.0)]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n_train", "it must be FIELD=VALUES"),
        ("n_train=", "an axis needs values"),
        ("n_train=3,,4", "n_train =  is not possible"),
        ("=3", "There is no parameter"),
        ("trian=3", "There is no parameter"),
        ("replicates=1,2", "the same for all points"),
        ("n_train=3:5", "a range is LOW:HIGH:NUMBER"),
        ("n_train=3:5:2:lin", "a range is LOW:HIGH:NUMBER"),
        ("n_train=3:5:2:log:x", "a range is LOW:HIGH:NUMBER"),
        ("n_train=3:5:-2", "a range is LOW:HIGH:NUMBER"),
        ("n_train=3:5:1", "a range rises, in 2 steps or more"),
        ("n_train=5:3:2", "a range rises"),
        ("n_train=3:5:9", "only 3 different whole numbers result"),
        ("n_train=3:x:2", "n_train = x is not possible"),
        ("learning_rate=0:1:5:log", "a logarithmic range begins above 0"),
        ("learning_rate=0:1:999999999999999999999", f"an axis has at most {MOST_POINTS:,} values"),
        ("algorithm=gd:sgd:2", "only numbers have ranges"),
    ],
)
def test_a_wrong_axis_is_one_sentence(lab, text, words):
    with pytest.raises(BadInput) as error:
        parse_axis(lab, text)
    assert words in sentence(error)


# -- lists of points -------------------------------------------------------------------------------------------


def test_a_file_of_points(lab, small, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("\ufeffn_train, learning_rate ,algorithm\n5,0.01,gd\n\n6,,sgd\n7,2e-2,\n", encoding="utf-8")
    rows = [{"n_train": 5, "learning_rate": 0.01, "algorithm": "gd"}, {"n_train": 6, "algorithm": "sgd"},
            {"n_train": 7, "learning_rate": 0.02}]  # fmt: skip
    assert read_points(lab, str(path)) == rows
    design = choose_design(lab, small, None, path)
    assert design.rows == tuple(rows) and design.axes == ("n_train", "learning_rate", "algorithm")
    assert design.params(1) == small.replace(n_train=6, algorithm="sgd")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "it cannot be read (No such file or directory)"),
        ("", "it is empty"),
        ("n_train\n", "it has a header and no points"),
        ("n_trian\n3\n", "Did you mean 'n_train'"),
        ("n_train,n_train\n3,4\n", "the column n_train occurs twice"),
        ("n_train,dim\n3\n", "line 2 has 1 cells for 2 columns"),
        ("n_train\n3.5\n", "n_train = 3.5 is not possible"),
        ("n_train\n0\n", "it must be a whole number from 1"),
        ("n_train\n3\n4\n3\n", "Points 1 and 3 of the design are the same"),
        ("replicates\n3\n", "the same for all points"),
        (b"\xff\xfe\x00n", "it cannot be read"),
    ],
)
def test_a_wrong_file_is_one_sentence(lab, small, tmp_path, content, words):
    path = tmp_path / "points.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput) as error:
        choose_design(lab, small, None, str(path))
    assert words in sentence(error)


def test_points_from_python_are_mappings_or_a_frame(lab, small):
    points = [{"n_train": 5, "noise_std": 0.5}, {"n_train": 6}]
    design = choose_design(lab, small, None, points)
    assert choose_design(lab, small, None, pd.DataFrame(points)).rows == design.rows == tuple(points)
    with pytest.raises(BadInput, match="at least one point"):
        choose_design(lab, small, None, [])
    with pytest.raises(BadInput, match="the points set no field"):
        points_design(lab, small, [{}])


def test_what_is_set_for_all_points_is_no_axis(lab, small):
    with pytest.raises(BadInput, match="n_train = 5 is not possible: it is an axis and set for all points"):
        choose_design(lab, small, {"n_train": [3, 4]}, None, given=["n_train"])
    with pytest.raises(BadInput, match="a grid or points, not both"):
        choose_design(lab, small, {"n_train": [3, 4]}, [{"n_train": 3}])


def test_a_manifest_restores_a_design(lab, small):
    grid = grid_design(lab, small, {"n_train": [4, 5], "algorithm": ["gd", "sgd"], "fresh_data": [True]})
    listed = points_design(lab, small, [{"n_train": 4}, {"learning_rate": 0.1}])
    for design in (grid, listed):
        restored = Design.restore(lab, json.loads(canonical_json(design.as_dict())))
        assert restored.axes == design.axes and len(restored) == len(design)
        assert [restored.params(i) for i in range(len(design))] == [design.params(i) for i in range(len(design))]
        assert canonical_json(restored.as_dict()) == canonical_json(design.as_dict())


def test_a_manifest_restores_a_design_of_lists(lists_lab):
    design = grid_design(lists_lab, Lists(decay=(1.0,)), {"decay": [[3, 1], (2.0, 0.5)]})
    restored = Design.restore(lists_lab, json.loads(canonical_json(design.as_dict())))
    assert restored.levels == design.levels == {"decay": ((3.0, 1.0), (2.0, 0.5))}
    assert restored.params(1) == Lists(decay=(2.0, 0.5))


def test_a_manifest_restores_a_base_whose_fields_hang_on_an_axis(lab, small):
    """The slope of the base means something for the value of the axis that the base has, and for no other."""
    base = small.replace(covariates="planar", planar_slope=3.0)
    design = grid_design(lab, base, {"covariates": ["gaussian", "planar"]})
    restored = Design.restore(lab, json.loads(canonical_json(design.as_dict())))
    assert restored.params(1) == design.params(1) == base and restored.params(0) == design.params(0)
