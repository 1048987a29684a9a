"""The gallery: every lab has a card, and a picture of its own result that nobody has to wait for."""

from __future__ import annotations

import io
import struct
import sys
import threading
from dataclasses import replace

import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import home
from app.frame import activities, cards
from app.frame.pictures import PALETTE
from app.frame.player import DARK, PAPER
from app.frame.runs import server_jobs
from sims.engine import all_labs, get_lab, ledger
from tests.app.samples import pictures_of, preset_view

LABS = all_labs()


def gallery():
    from functools import partial

    import streamlit as st

    from app import home

    pages = {lab.id: st.Page(partial(st.title, lab.id), title=lab.title, url_path=lab.id) for lab in home.all_labs()}
    front = st.Page(lambda: home.home(pages), title="Chalkline", default=True)
    st.navigation([front, *pages.values()]).run()


def opened(**query):
    app = AppTest.from_function(gallery, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def titles(app):
    return [head.value for head in app.header]


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch):
    """A folder of small pictures for each test, and a drawing that only notes whom it was asked for."""
    monkeypatch.setattr(cards, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(cards, "_failed", set())
    server_jobs.cache_clear()
    yield
    if cards._thread is not None:
        cards._thread.join(60)
    server_jobs.cache_clear()
    st.cache_resource.clear()


@pytest.fixture
def asked(monkeypatch):
    asked = []
    monkeypatch.setattr(cards, "draw_missing", lambda labs: asked.extend(lab.id for lab in labs))
    return asked


@pytest.fixture
def sixty(monkeypatch):
    """Sixty labs of six themes, alike but for their names."""
    labs = tuple(replace(LABS[0], id=f"lab_{n}", title=f"Lab number {n}", theme=f"theme {n % 6}") for n in range(60))
    for lab in labs:
        lab.__dict__["claims"] = LABS[0].claims
    monkeypatch.setattr(home, "all_labs", lambda: labs)
    monkeypatch.setattr(cards, "lab_module", lambda lab_id, real=cards.lab_module: real(LABS[0].id))
    monkeypatch.setattr(cards, "_digests", {})
    return labs


def test_a_card_says_what_a_visitor_chooses_by(asked):
    app = opened()
    assert titles(app) == [lab.title for lab in LABS]
    texts = " ".join(box.value for box in [*app.markdown, *app.caption])
    for lab in LABS:
        assert lab.sentence in texts
        assert lab.theme in texts
        assert lab.paper.authors.split(",")[0] in texts
        for activity in (one for one in activities.activities()[lab.id] if one.kind == "activity"):
            assert f"{activity.minutes} minutes in class" in texts
        rows = [row for row in ledger.read() if row["lab"] == lab.id]
        assert f"{sum(row['verdict'] == 'fails' for row in rows)}\u00a0✗ fails" in texts


def test_a_missing_picture_is_a_placeholder_and_is_asked_for(asked):
    app = opened()
    assert asked == [lab.id for lab in LABS]
    assert sum("not drawn yet" in box.proto.body for box in app.get("html")) == len(LABS)
    assert not app.get("image")


def test_a_drawn_picture_is_shown_in_the_colours_of_the_page(asked, tmp_path):
    for lab in LABS:
        for theme in cards.THEMES:
            cards._keep(cards._path(lab, theme), cards.few_colours(png()))
    app = opened()
    assert asked == []
    assert len(app.get("image")) == len(LABS)
    assert not any("not drawn yet" in box.proto.body for box in app.get("html"))


def test_sixty_labs_have_sixty_cards(sixty, asked):
    app = opened()
    assert titles(app) == [lab.title for lab in sixty]
    assert any(box.value == "60 labs" for box in app.caption)


def test_themes_and_words_choose_together(sixty, asked):
    app = opened()
    app.button_group(key="gallery/theme").set_value(["theme 1", "theme 2"]).run()
    assert titles(app) == [lab.title for lab in sixty if lab.theme in ("theme 1", "theme 2")]
    app.text_input(key="gallery/search").set_value("NUMBER haochen 31").run()
    assert not app.exception
    assert titles(app) == ["Lab number 31"]
    assert any(box.value == "1 of 60 labs" for box in app.caption)
    app.text_input(key="gallery/search").set_value("number 32").run()
    assert titles(app) == ["Lab number 32"]
    app.text_input(key="gallery/search").set_value("number 33").run()
    assert titles(app) == []
    assert any("No lab has all of these words" in box.value for box in app.info)
    app.button_group(key="gallery/theme").set_value([]).run()
    assert titles(app) == ["Lab number 33"]


def test_a_gallery_on_a_projector_has_a_way_out(asked):
    app = AppTest.from_function(gallery, default_timeout=60)
    app.query_params["present"] = "1"
    app.run()
    app.button(key="projector").click().run()
    assert not app.exception
    assert "present" not in app.query_params
    assert not any(button.key == "projector" for button in app.button)


# -- the pictures ------------------------------------------------------------------------------------------------


def png(colour="red"):
    sink = io.BytesIO()
    Image.new("RGBA", (720, 340), colour).save(sink, "png")
    return sink.getvalue()


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_small_picture_is_the_labs_own_first_one_without_words(lab):
    view = preset_view(lab.id, lab.presets[0].id, cards.lab_module(lab.id).STORY.x)
    picture = pictures_of(view)[0]
    for colours in (PAPER, DARK):
        spec = cards.small(picture, colours)
        text = str({name: value for name, value in spec.items() if name != "datasets"})
        assert "$" not in text.replace("$schema", ""), "every colour of the theme has its value"
        assert "labelExpr" not in text and "'orient': 'top'" not in text, "no numbers, no legends"
        assert spec["datasets"].keys() == {*picture.data, *picture.frames}
        assert all(len(rows) for rows in spec["datasets"].values())
    assert cards.small(picture, PAPER) != cards.small(picture, DARK)


def test_the_dark_colours_are_those_of_the_player():
    script = (cards.Path(cards.__file__).with_name("player.js")).read_text(encoding="utf-8")
    for theme, colours in (("light", PAPER), ("dark", DARK)):
        assert ", ".join(f'"{colours[name]}"' for name in PALETTE) in script, theme
    assert PAPER.keys() == DARK.keys()


@pytest.mark.slow
def test_small_pictures_are_drawn_once_and_named_by_what_they_show(monkeypatch):
    lab = get_lab(LABS[0].id)
    old = cards._path(lab, "dark").with_name(f"{lab.id}-dark-{'0' * 20}.png")
    cards._keep(old, b"of an earlier version")
    assert cards.missing([lab]) == [lab]
    cards.draw_missing([lab])
    cards._thread.join(120)
    assert cards.missing([lab]) == []
    assert not old.exists()
    for theme in cards.THEMES:
        content = cards.picture_of(lab, theme).read_bytes()
        assert struct.unpack(">II", content[16:24]) == (cards.SCALE * cards.WIDTH, cards.SCALE * cards.HEIGHT)
        assert len(content) < 30_000, "a class opens the gallery at once"
        assert len(set(Image.open(io.BytesIO(content)).convert("RGBA").get_flattened_data())) > 8, "curves, not a blank"
    light, dark = (cards.picture_of(lab, theme).read_bytes() for theme in cards.THEMES)
    assert light != dark


def test_a_lab_that_cannot_be_drawn_costs_the_others_nothing(monkeypatch):
    drawn = []

    def draw(lab):
        if lab is LABS[0]:
            raise ArithmeticError("the projection did not converge")
        drawn.append(lab)

    monkeypatch.setattr(cards, "draw", draw)
    cards.draw_missing(LABS)
    cards._thread.join(10)
    assert drawn == list(LABS[1:])
    assert LABS[0] not in cards.missing(LABS), "it is not asked for again and again"


def test_pictures_are_drawn_aside_and_by_one_at_a_time(monkeypatch):
    """What a server's start and a page's visit do is to ask; the drawing itself waits here until both have asked."""
    may_draw, threads = threading.Event(), []

    def draw(lab):
        may_draw.wait(10)
        threads.append(threading.current_thread())

    monkeypatch.setattr(cards, "draw", draw)
    cards.draw_missing(LABS)
    cards.draw_missing(LABS)
    assert threads == []
    may_draw.set()
    cards._thread.join(10)
    assert len(threads) == len(LABS) and set(threads) == {cards._thread}
    assert cards._thread is not threading.main_thread()


def test_the_folder_of_pictures_is_left_without_halves(monkeypatch, tmp_path):
    class Full(OSError):
        pass

    def no_room(*_):
        raise Full("no space left on device")

    monkeypatch.setattr(sys.modules["os"], "replace", no_room)
    target = tmp_path / "cards" / "x.png"
    with pytest.raises(Full):
        cards._keep(target, png())
    assert not target.exists()


# -- activities --------------------------------------------------------------------------------------------------


def test_every_activity_is_read():
    found = activities.activities()
    assert sum(map(len, found.values())) == len(list(activities.FOLDER.glob("*.md")))
    assert found.keys() <= {lab.id for lab in LABS}


@pytest.mark.parametrize(
    "text", ["", "# A title\n", "---\ntitle: x\n---\n", "---\ntitle: x\nlab: y\nminutes: ten\n---\n", "x\n---\n---\n"]
)
def test_an_activity_without_a_head_is_refused(text):
    with pytest.raises(ValueError, match="an activity begins"):
        activities.read(text)
    assert activities.read("---\ntitle: a: b\nlab: y\nminutes: 10\n---\n# z").title == "a: b"


# -- the address -------------------------------------------------------------------------------------------------


def test_the_address_holds_the_filters_and_restores_them(asked, sixty):
    app = opened()
    app.button_group(key="gallery/theme").set_value(["theme 1", "theme 2"]).run()
    app.text_input(key="gallery/search").set_value("number 13").run()
    assert not app.exception
    address = dict(app.query_params.items())
    assert address == {"theme": ["theme 1", "theme 2"], "search": "number 13"}
    again = opened(**address)
    assert titles(again) == titles(app) == ["Lab number 13"]
    assert not again.warning
    app.text_input(key="gallery/search").set_value("").run()
    app.button_group(key="gallery/theme").set_value([]).run()
    assert not list(app.query_params)


def test_a_filter_that_is_not_there_is_named_and_the_rest_kept(asked, sixty):
    app = opened(theme=["theme 1", "<b>alchemy</b>"], search="number 13")
    assert titles(app) == ["Lab number 13"]
    (box,) = app.warning
    assert "alchemy" in box.value and "ignored" in box.value and "<b>" not in box.value.replace("\\<", "")
    assert app.query_params["theme"] == "theme 1"
