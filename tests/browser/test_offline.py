"""The page as one file in a browser without a network: it plays, asks for nothing, and can be shown to a room."""

import pytest

from app.frame.offline import offline_page
from app.frame.page import lab_module
from sims.engine import all_labs
from tests.app.samples import pictures_of, preset_view


@pytest.fixture
def without_network(browser):
    """without_network(path, **options) -> (page, requests, errors)."""
    contexts = []

    def open_file(path, **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page, requests, errors = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda text: errors.append(text.text) if text.type in ("error", "warning") else None)
        page.goto(path.as_uri())
        page.locator(".player[data-shown]").first.wait_for()
        return page, requests, errors

    yield open_file
    for context in contexts:
        context.close()


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
def test_the_file_plays_without_a_network(without_network, tmp_path, lab):
    view = preset_view(lab.id, lab.presets[0].id)
    path = tmp_path / "page.html"
    formulas = lab_module(lab.id).STORY.formulas
    path.write_bytes(offline_page(view, pictures_of(view), formulas, "http://127.0.0.1:8501/"))
    page, requests, errors = without_network(path, viewport={"width": 375, "height": 800}, color_scheme="dark")
    pictures = page.get_by_role("img")
    assert pictures.count() == len(pictures_of(view))
    for index in range(pictures.count()):
        pictures.nth(index).locator("canvas, svg").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")

    root = page.locator(".player").first
    if root.get_by_role("button", name="Play").is_visible():
        root.get_by_role("button", name="Play").click()
        page.wait_for_function(
            "() => Number(document.querySelector('.stage').shadowRoot.querySelector('.player').dataset.drawn) >= 3"
        )
        root.locator(".readout").wait_for()

    title = root.locator(".role-axis-title text").first
    size = "one => parseFloat(getComputedStyle(one).fontSize)"
    before = title.evaluate(size) if title.count() else None
    page.get_by_role("button", name="Projector mode").focus()
    page.keyboard.press("p")
    page.locator(".player[data-present=true]").first.wait_for()
    if before is not None:
        page.wait_for_function(
            "least => { const root = document.querySelector('.stage').shadowRoot;"
            " const one = root.querySelector('.role-axis-title text');"
            " return one && parseFloat(getComputedStyle(one).fontSize) > least; }",
            arg=1.5 * before,
        )
    assert errors == []
    assert requests == [path.as_uri()], "nothing but the file itself"
