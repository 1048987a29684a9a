"""The player in a real browser: it moves without the server, obeys the keyboard and keeps its place."""

import json
import struct
import textwrap

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.frame.player import on_paper, pack

PAGE = textwrap.dedent(
    '''
    """Gradient descent on a quadratic: the loss against its closed form, and the iterates in the plane."""

    import numpy as np
    import streamlit as st

    from app.frame.player import player

    FRAMES = 60
    rate = st.slider("Learning rate", 0.01, 0.09, 0.03, 0.01)
    present = st.toggle("Projector")

    step = np.arange(FRAMES) * 100
    decay = np.array([1.0, 0.2])
    start = np.random.default_rng(1).normal(size=(200, 2)) * 0.35 + np.array([1.0, 0.8])
    path = start * np.exp(-rate * 0.02 * np.outer(step, decay))[:, None, :]
    loss = 0.5 * (path**2 * decay).sum(-1).mean(-1)
    noise = 1 + 0.03 * np.random.default_rng(2).normal(size=FRAMES)

    x = {"field": "step", "type": "quantitative", "title": "step", "scale": {"domain": [0, 6000]}}
    y = {"field": "loss", "type": "quantitative", "title": "loss",
         "scale": {"type": "log", "domain": [0.0005, 1]}}
    curves = {
        "params": [{"name": "step", "value": 0}],
        "layer": [
            {"data": {"name": "simulation"}, "mark": {"type": "line"},
             "encoding": {"x": x, "y": y, "color": {"datum": "simulation", "type": "nominal",
                                                      "title": None}}},
            {"data": {"name": "theory"}, "mark": {"type": "line", "strokeDash": [6, 4], "color": "$text"},
             "encoding": {"x": x, "y": y}},
            {"data": {"name": "simulation"}, "mark": {"type": "rule"},
             "transform": [{"aggregate": [{"op": "count", "as": "n"}]}],
             "encoding": {"x": {"datum": {"expr": "step"}, "type": "quantitative"}}},
        ],
    }
    axis = {"type": "quantitative", "scale": {"domain": [-1, 2.5]}}
    cloud = {
        "data": {"name": "cloud"},
        "mark": {"type": "circle", "opacity": 0.7},
        "encoding": {"x": {"field": "w1", "title": "w\\u2081", **axis},
                     "y": {"field": "w2", "title": "w\\u2082", **axis}},
    }
    if not st.toggle("Shown", value=True):
        st.stop()
    player(
        [
            {"id": "loss", "title": "Loss <b>and</b> its closed form", "alt": "The loss falls.",
             "spec": curves,
             "data": {"simulation": {"step": step, "loss": loss * noise},
                      "theory": {"step": step, "loss": loss}}},
            {"id": "plane", "title": "The iterates", "alt": "A cloud shrinks to the origin.", "spec": cloud,
             "frames": {"cloud": {"frame": np.repeat(np.arange(FRAMES), 200),
                                  "w1": path[..., 0].ravel(), "w2": path[..., 1].ravel()}}},
        ],
        steps=step, step_label="step", key="quadratic", present=present,
    )
    '''
)

SERVER = textwrap.dedent(
    """
    import os
    from pathlib import Path

    import streamlit as st
    import vl_convert
    from starlette.responses import Response
    from starlette.routing import Route

    VEGA = vl_convert.javascript_bundle()
    BASE = os.environ["STREAMLIT_SERVER_BASE_URL_PATH"]


    async def vega(request):
        return Response(VEGA, media_type="text/javascript")


    app = st.App(Path(__file__).with_name("page.py"), routes=[Route(BASE + "/assets/vega.js", vega)])
    """
)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("player")
    (folder / "page.py").write_text(PAGE, encoding="utf-8")
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    return folder / "server.py"


@pytest.fixture(scope="module")
def url(serve, script):
    return serve(script)


def shown(seen, digest_before=None):
    """The player's root, once its pictures are drawn (and are not those of an earlier message)."""
    root = seen.page.locator(".player[data-shown]")
    root.wait_for()
    if digest_before is not None:
        seen.page.wait_for_function(
            """before => {
                const host = document.querySelector('[data-testid="stBidiComponentIsolated"]');
                return host.shadowRoot.querySelector(".player").dataset.shown !== before;
            }""",
            arg=digest_before,
        )
    return root


def wait_until(page, root, condition, argument=None):
    """Until `condition(root, argument)`, a JavaScript expression, holds."""
    page.wait_for_function(f"([root, argument]) => {condition}", arg=[root.element_handle(), argument])


def readout(root):
    return root.locator(".readout").inner_text()


def cloud(root):
    """The picture of the moving points, as it is drawn."""
    picture = root.get_by_role("img", name="A cloud shrinks to the origin.")
    return picture.locator("canvas").evaluate("canvas => canvas.toDataURL()")


def label_colour(root):
    return root.locator(".role-axis-label text").first.evaluate("text => getComputedStyle(text).fill")


def label_size(root):
    label = root.locator(".role-axis-label text").first
    return label.evaluate("text => parseFloat(getComputedStyle(text).fontSize)")


def test_it_plays_without_the_server_and_obeys_the_keyboard(visit, url):
    seen = visit(url)
    page, root = seen.page, shown(seen)
    assert readout(root) == "step 5900 of 5900"
    assert root.locator("figcaption").first.inner_text() == "Loss <b>and</b> its closed form"
    assert root.get_by_role("img").count() == 2
    final = cloud(root)
    rule = root.locator(".role-mark.mark-rule line")
    final_rule = rule.get_attribute("transform")
    page.wait_for_function("() => !document.querySelector('[data-testid=\"stStatusWidget\"]')")

    messages = len(seen.received), len(seen.sent)
    root.get_by_label("Playback speed").select_option("4")
    root.get_by_role("button", name="Play").click()
    wait_until(page, root, "Number(root.dataset.drawn) >= 15 && root.dataset.playing === 'true'")
    root.get_by_role("button", name="Pause").click()
    wait_until(page, root, "root.dataset.playing === 'false' && Number(root.dataset.frame) > 0")
    assert cloud(root) != final
    # A frame drawn by the server would be a message each.
    assert (len(seen.received), len(seen.sent)) == messages

    slider = root.get_by_label("Position in training")
    slider.focus()
    page.keyboard.press("Home")
    wait_until(page, root, "root.dataset.frame === '0'")
    assert readout(root) == "step 0 of 5900"
    assert slider.get_attribute("aria-valuetext") == "step 0 of 5900"
    beginning = cloud(root)
    assert rule.get_attribute("transform") != final_rule
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    wait_until(page, root, "root.dataset.frame === '2'")
    assert readout(root) == "step 200 of 5900"
    assert cloud(root) != beginning
    page.keyboard.press("ArrowLeft")
    wait_until(page, root, "root.dataset.frame === '1'")
    page.keyboard.press("End")
    wait_until(page, root, "root.dataset.frame === '59'")
    assert cloud(root) == final
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    wait_until(page, root, "root.dataset.playing === 'true'")
    page.keyboard.press("Space")
    wait_until(page, root, "root.dataset.playing === 'false'")
    assert (len(seen.received), len(seen.sent)) == messages
    seen.assert_clean()


def test_new_data_keeps_position_speed_and_motion_and_does_not_flash(visit, url):
    seen = visit(url)
    page, root = seen.page, shown(seen)
    root.get_by_label("Playback speed").select_option("0.25")
    root.get_by_label("Position in training").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    wait_until(page, root, "root.dataset.frame === '1'")
    before, digest = cloud(root), root.get_attribute("data-shown")
    drawing = root.locator(".drawing").last.element_handle()

    page.get_by_role("slider", name="Learning rate").focus()
    page.keyboard.press("ArrowRight")
    shown(seen, digest)
    assert readout(root) == "step 100 of 5900"
    assert cloud(root) != before
    assert drawing.evaluate("element => element.isConnected"), "the drawing was replaced, not updated"
    assert root.get_by_label("Playback speed").input_value() == "0.25"

    root.get_by_role("button", name="Play").click()
    digest = root.get_attribute("data-shown")
    page.get_by_role("slider", name="Learning rate").focus()
    page.keyboard.press("ArrowLeft")
    shown(seen, digest)
    assert root.get_attribute("data-playing") == "true"
    assert drawing.evaluate("element => element.isConnected")
    seen.assert_clean()


def test_it_follows_the_theme_and_the_projector(visit, url):
    seen = visit(url, color_scheme="light")
    page, root = seen.page, shown(seen)
    light = label_colour(root)
    size = label_size(root)
    page.emulate_media(color_scheme="dark")
    label = "root.querySelector('.role-axis-label text')"
    wait_until(page, root, f"getComputedStyle({label}).fill !== argument", light)
    dark = label_colour(root)
    assert luminance(light) < 0.3 < 0.7 < luminance(dark)

    digest = root.get_attribute("data-shown")
    page.get_by_text("Projector").click()
    shown(seen, digest)
    assert label_colour(root) == "rgb(255, 255, 255)"
    assert label_size(root) == pytest.approx(1.6 * size)
    lines = root.locator(".mark-line path")
    widths = lines.evaluate_all("paths => paths.map(path => path.getAttribute('stroke-width'))")
    assert min(map(float, widths)) >= 3
    seen.assert_clean()


def test_below_a_sub_path_on_a_phone_it_fits_and_remembers_where_it_stood(visit, serve, script):
    seen = visit(serve(script, base_path="/class"), viewport={"width": 375, "height": 800})
    page, root = seen.page, shown(seen)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert root.evaluate("root => root.scrollWidth <= root.clientWidth")
    root.get_by_role("button", name="Step back").click()
    root.get_by_role("button", name="Play").click()
    wait_until(page, root, "root.dataset.frame === '59'")
    wait_until(page, root, "root.dataset.playing === 'false'")
    root.get_by_role("button", name="Step back").click()
    wait_until(page, root, "root.dataset.frame === '58'")
    page.get_by_text("Shown").click()
    root.wait_for(state="detached")
    page.get_by_text("Shown").click()
    assert readout(shown(seen)) == "step 5800 of 5900"
    seen.assert_clean()


def test_a_page_without_the_library_says_so(visit, url):
    seen = visit("about:blank")
    seen.page.route("**/assets/vega.js", lambda route: route.abort())
    seen.page.goto(url)
    alert = seen.page.locator(".player").get_by_role("alert").first
    alert.wait_for()
    assert "the drawing library" in alert.inner_text()


def test_reduced_motion_plays_in_strides(visit, url):
    seen = visit(url, reduced_motion="reduce")
    page, root = seen.page, shown(seen)
    root.get_by_label("Playback speed").select_option("4")
    root.get_by_role("button", name="Play").click()
    wait_until(page, root, "Number(root.dataset.drawn) >= 3")
    root.get_by_role("button", name="Pause").click()
    wait_until(page, root, "root.dataset.playing === 'false'")
    assert int(root.get_attribute("data-frame")) % 3 == 0, "strides of 60 / 20 frames"
    seen.assert_clean()


def luminance(colour):
    red, green, blue = (float(part) / 255 for part in colour[4:-1].split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


SPEC = {"data": {"name": "cloud"}, "mark": {"type": "point", "color": "$text"}, "encoding": {}}


def message(frames=None, data=None, spec=SPEC, steps=(0, 10)):
    picture = {"id": "a", "title": "", "alt": "", "spec": spec, "data": data or {}, "frames": frames}
    return pack([picture], steps=steps, step_label="step", key="k")


def unpacked(raw):
    (length,) = struct.unpack("<I", raw[:4])
    return json.loads(raw[4 : 4 + length]), raw[(4 + length + 7) // 8 * 8 :]


def test_the_message_holds_each_column_in_its_smallest_faithful_form():
    columns = {
        "frame": [1, 0, 1],
        "count": np.array([3, 1, 2]),
        "wide": [2**40, 0, 1],
        "loss": [0.5, np.nan, 0.25],
        "tiny": [1e-300, 1.0, 1.0],
        "name": ["b", "a", "b"],
    }
    header, body = unpacked(message({"cloud": columns}))
    table = header["pictures"][0]["frames"]["cloud"]
    assert (table["rows"], table["offsets"]) == (3, [0, 1, 3])
    read = {}
    for column in table["columns"]:
        dtype = {"words": "<i4"}.get(column["kind"], "<" + column["kind"])
        assert column["at"] % 8 == 0
        read[column["name"]] = np.frombuffer(body, dtype, 3, column["at"])
    assert {column["name"]: column["kind"] for column in table["columns"]} == {
        "count": "i4",
        "wide": "f8",
        "loss": "f4",
        "tiny": "f8",
        "name": "words",
    }
    # Rows go frame by frame and keep their order within one.
    np.testing.assert_array_equal(read["count"], [1, 3, 2])
    np.testing.assert_array_equal(read["wide"], [0, 2**40, 1])
    np.testing.assert_array_equal(read["loss"], [np.nan, 0.5, 0.25])
    words = next(column["words"] for column in table["columns"] if column["name"] == "name")
    assert [words[code] for code in read["name"]] == ["a", "b", "b"]


def test_equal_pictures_have_equal_digests_and_others_do_not():
    digests = [unpacked(message({"cloud": {"frame": [0], "x": [x]}}))[0]["digest"] for x in (1.5, 1.5, 2.5)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"frames": {"cloud": {"frame": [2]}}}, "leaves 0 to 1"),
        ({"frames": {"cloud": {"frame": [0]}}, "steps": None}, "leaves 0 to -1"),
        ({"frames": {"cloud": {"frame": [0.5]}}}, "not an integer"),
        ({"frames": {"cloud": {"x": [1]}}}, "no column 'frame'"),
        ({"frames": {"cloud": {"frame": [0, 1], "x": [1]}}}, "differ in length"),
        ({"data": {"cloud": {"x": np.zeros((1, 2))}}}, "shape"),
        ({"data": {"cloud": {"x": [[1, 2]]}}}, "neither numbers nor words"),
        ({"data": {"clout": {"x": [1]}}}, "its spec names"),
        ({"frames": {"cloud": {"frame": [0]}}, "data": {"cloud": {"x": [1]}}}, "still and moving"),
        ({"spec": {"data": {"values": []}, "mark": "point"}}, "must be named"),
    ],
)
def test_what_could_not_be_drawn_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        message(**options)


def test_two_pictures_may_not_share_an_id():
    picture = {"id": "a", "title": "", "alt": "", "spec": SPEC, "data": {"cloud": {"x": [1]}}}
    with pytest.raises(ValueError, match="share an id"):
        pack([picture, picture], steps=None, step_label="step", key="k")


def test_colour_names_have_a_value_on_paper():
    assert on_paper(SPEC)["mark"] == {"type": "point", "color": "#1c2321"}
    assert SPEC["mark"]["color"] == "$text"


def test_a_page_with_a_player_runs_without_a_browser():
    app = AppTest.from_string(PAGE).run(timeout=30)
    assert not app.exception
    app.slider[0].set_value(0.05).run()
    assert not app.exception
