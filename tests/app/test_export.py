"""Files to take away: they hold what is drawn, no more and no less, the same each time."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
import psutil
import pytest
import vl_convert

from app.frame import export
from app.frame import render as renderer
from app.frame.pictures import Picture, finish, is_composed
from app.frame.render import render
from sims.engine.describe import citation, figure_caption
from tests.app.samples import pictures_of, preset_view


@pytest.fixture(scope="module")
def view():
    return preset_view("label_noise", "too_few_samples")


@pytest.fixture(scope="module")
def pictures(view):
    return {picture.id: picture for picture in pictures_of(view)}


def assert_is_what_is_drawn(table, picture):
    drawn = {**picture.data, **picture.frames}
    assert list(dict.fromkeys(table["table"])) == [name for name, columns in drawn.items() if len(first(columns))]
    for name, columns in drawn.items():
        mine = table[table["table"] == name]
        for column, values in columns.items():
            values = np.asarray(values)
            if values.dtype.kind in "OU":
                assert mine[column].tolist() == values.tolist()
            else:
                np.testing.assert_array_equal(mine[column].to_numpy(dtype=float), values.astype(float))


def first(columns):
    return np.asarray(next(iter(columns.values())))


@pytest.mark.parametrize("name", ["error", "weights", "plane", "recovery"])
def test_csv_and_parquet_are_what_is_drawn_to_the_last_bit(pictures, name):
    picture = pictures[name]
    text = io.BytesIO(export.csv_bytes(picture))
    assert_is_what_is_drawn(pd.read_csv(text), picture)
    assert_is_what_is_drawn(pd.read_parquet(io.BytesIO(export.parquet_bytes(picture))), picture)


def test_text_that_a_spreadsheet_would_run_is_quoted():
    label = '=HYPERLINK("http://x";"y")'
    columns = {"run": np.array([label, "+1", "-1", "@a", "plain"], dtype=object), "x": np.array([-1.0, 2, 3, 4, 5])}
    spec = finish(alt.Chart(alt.NamedData("t")).mark_point().encode(alt.X("x:Q")))
    picture = Picture("p", "t", spec, "1", {"t": columns})
    table = pd.read_csv(io.BytesIO(export.csv_bytes(picture)))
    assert table["run"].tolist() == [f"'{label}", "'+1", "'-1", "'@a", "plain"]
    assert table["x"].tolist() == [-1, 2, 3, 4, 5], "numbers stay numbers"


def test_figures_hold_their_caption_with_the_key_and_come_out_the_same_twice(view, pictures):
    words = figure_caption(view.lab, view.runs)
    svg = export.figure_bytes(pictures["error"], "svg", words)
    assert svg.startswith(b"<svg")
    assert all(run.key[:12].encode() in svg for run in view.runs.values()), "every run that is drawn"
    assert svg == export.figure_bytes(pictures["error"], "svg", words)
    png = export.figure_bytes(pictures["error"], "png", words)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 1000 and height > 600
    assert png == export.figure_bytes(pictures["error"], "png", words)


@pytest.mark.parametrize("name", ["error", "weights", "plane", "recovery"])
def test_figures_have_the_width_of_a_papers_text(view, pictures, name):
    svg, pdf, png = (export.figure_bytes(pictures[name], format, "words") for format in ("svg", "pdf", "png"))
    assert re.search(rb'<svg[^>]* width="5.5in"', svg)
    assert pdf.startswith(b"%PDF-")
    width, height = map(float, re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups())
    assert width == pytest.approx(5.5 * 72)
    assert struct.unpack(">II", png[16:24]) == pytest.approx((5.5 * 300, height / 72 * 300), abs=1)


def test_a_figure_of_several_views_keeps_its_shape():
    view = {"data": {"name": "t"}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    for spec in ({"hconcat": [view, view]}, {**view, "encoding": {**view["encoding"], "row": {"field": "x"}}}):
        assert is_composed(spec)
        paper = Picture("p", "t", spec, "1", {"t": {"x": np.array([1.0])}}).on_paper("words")
        assert "width" not in paper and "autosize" not in paper
        assert render(paper, "svg").startswith(b"<svg")
    assert not is_composed(view)


def test_long_captions_are_wrapped_and_keys_are_not_broken(view, pictures):
    words = figure_caption(view.lab, {f"run number {n}": view.focus for n in range(6)})
    told, *lines = pictures["error"].on_paper(words)["title"]["subtitle"]
    assert told == " ".join(pictures["error"].spec["title"]["text"])
    assert len(lines) > 2 and " ".join(lines) == words
    assert sum(line.count(f"[{view.focus.key[:12]}]") for line in lines) == 6


def test_a_citation_says_which_run_of_which_software(view):
    entry = citation(view.lab, view.focus)
    for part in (view.focus.key, view.focus.trace_sha256, view.focus.provenance["software"], view.lab.paper.arxiv):
        assert part in entry
    assert entry.count("{") == entry.count("}")
    assert f"lab {view.lab.id} version {view.lab.version}" in entry


def test_a_figure_shows_the_last_frame_alone(pictures):
    paper = pictures["weights"].on_paper("")
    last = len(pictures["weights"].steps) - 1
    assert {row["frame"] for row in paper["datasets"]["weights"]} == {last}
    assert json.dumps(paper, allow_nan=False)


def test_figures_are_drawn_in_another_process(pictures, monkeypatch):
    """The renderer holds its interpreter for as long as it works: ours must not be the one."""

    def refuse(*_):
        raise AssertionError("drawn in the server's own process")

    for name in ("vegalite_to_svg", "vegalite_to_png", "svg_to_png", "svg_to_pdf"):
        monkeypatch.setattr(vl_convert, name, refuse)
    assert export.figure_bytes(pictures["plane"], "svg", "words").startswith(b"<svg")


def test_the_renderer_steps_back_behind_pages():
    command = [sys.executable, "-P", renderer.__file__, "svg", "5.5", "300"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as waiting:
        of, own = psutil.Process(waiting.pid), psutil.Process().nice()
        deadline = time.monotonic() + 30
        while of.nice() == own and time.monotonic() < deadline:  # until its interpreter is there
            time.sleep(0.01)
        found = of.nice()
        waiting.kill()
    assert found == min(19, own + renderer.NICENESS)


def test_a_figure_can_be_drawn_after_another_failed(pictures):
    broken = replace(pictures["plane"], spec={"mark": {}, "layer": "none"})
    with pytest.raises(subprocess.CalledProcessError):
        export.figure_bytes(broken, "svg", "words")
    assert export.figure_bytes(pictures["plane"], "svg", "words").startswith(b"<svg")


def test_the_renderer_draws_what_is_asked_for():
    spec = {"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    assert render(spec, "svg").startswith(b"<svg")
    assert render(spec, "png").startswith(b"\x89PNG")
