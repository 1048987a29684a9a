"""A visit to the real server, from the home page to the files taken away."""

import io
import re

import pandas as pd
import pytest

from sims.engine import all_labs, get_lab
from sims.engine.keys import run_key

LAB = get_lab("label_noise")
PLAYER = ".player[data-shown]"


def settled(page):
    """The first player, drawn, once the server has nothing more to say."""
    root = page.locator(PLAYER).first
    root.wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    assert page.locator('[data-testid="stException"]').count() == 0
    return root


def run_key_shown(page):
    shown = page.locator('[data-testid="stCaptionContainer"]', has_text="Key ").first.text_content()
    return re.search(r"Key ([0-9a-f]{16})", shown).group(1)


def wait_for_another_key(page, before):
    page.wait_for_function(
        "before => [...document.querySelectorAll('[data-testid=stCaptionContainer]')]"
        ".some(box => /^Key [0-9a-f]{16}/.test(box.textContent) && !box.textContent.includes(before))",
        arg=before,
    )
    return run_key_shown(page)


def alt_text(root):
    return root.get_by_role("img").first.get_attribute("aria-label")


def field(page, name):
    return page.locator(f".st-key-form-label_noise-{name}-widget")


def downloaded(page, section, label):
    with page.expect_download() as waiting:
        section.get_by_role("button", name=label, exact=True).first.click()
    return waiting.value.path().read_bytes()


def test_from_the_home_page_through_a_lab_and_back(visit, house):
    seen = visit(house)
    page = seen.page
    page.get_by_role("link", name="Open Label noise").click()
    root = settled(page)
    assert page.url == f"{house}/label_noise", "the default page has a bare address"
    default = run_key_shown(page)
    assert default == run_key(LAB, LAB.params.make())[:16]

    # The curves are drawn, and say in words what they show.
    pictures = root.get_by_role("img")
    assert pictures.count() >= 2
    for index in range(pictures.count()):
        assert pictures.nth(index).locator("canvas, svg").count() == 1
        assert re.search(r"\d", pictures.nth(index).get_attribute("aria-label"))
    words = alt_text(root)
    assert all(f"{label}:" in words for label in LAB.runs(LAB.presets[0]))
    verdicts = page.locator(".st-key-verdicts tbody tr")
    verdicts.nth(4).wait_for()  # the browser draws a table a little after it has the message
    assert "holds" in verdicts.first.inner_text()

    # Playing is the browser's own affair.
    messages = len(seen.received), len(seen.sent)
    root.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('[data-testid=stBidiComponentIsolated]') !== null")
    root.locator("xpath=self::*[@data-playing='true']").wait_for()
    readout = root.locator(".readout")
    page.wait_for_timeout(600)
    root.get_by_role("button", name="Pause").click()
    step, last = re.findall(r"\d+", readout.inner_text())
    assert 0 < int(step) < int(last) == 100_000
    assert (len(seen.received), len(seen.sent)) == messages

    # A slider, by the keyboard: address, key and words follow.
    slider = field(page, "learning_rate").get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    changed = wait_for_another_key(page, default)
    root = settled(page)
    assert f"v={LAB.version}" in page.url and "learning_rate=" in page.url
    rate = float(re.search(r"learning_rate=([0-9.e-]+)", page.url).group(1))
    assert rate < 0.01
    assert changed == run_key(LAB, LAB.params.make(learning_rate=rate))[:16]
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot"
        ".querySelector('[role=img]').getAttribute('aria-label') !== before",
        arg=words,
    )

    # A reload brings the same runs back.
    link = page.url
    page.reload()
    settled(page)
    assert page.url == link
    assert run_key_shown(page) == changed

    # A preset replaces everything, and its link restores it.
    page.get_by_role("radio", name="Too few samples").or_(page.get_by_role("button", name="Too few samples")).click()
    few = wait_for_another_key(page, changed)
    assert few == run_key(LAB, LAB.focus(LAB.preset("too_few_samples")))[:16]
    settled(page)
    assert "preset=too_few_samples" in page.url

    take_away(page, few)

    page.get_by_role("link", name="Chalkline").first.click()
    page.get_by_role("link", name="Open Label noise").wait_for()
    seen.assert_clean()


def take_away(page, key):
    """The files hold what is drawn, and the figures say of which run."""
    section = page.locator('[data-testid="stExpander"]', has_text="Rerun this, take it away")
    section.locator("summary").click()
    svg = downloaded(page, section, "SVG")
    assert svg.startswith(b"<svg") and key[:12].encode() in svg
    assert downloaded(page, section, "PDF").startswith(b"%PDF-")
    assert downloaded(page, section, "PNG").startswith(b"\x89PNG\r\n")
    whole = downloaded(page, section, "Page as one file")
    assert whole.startswith(b"<!doctype html>") and key[:12].encode() in whole
    table = pd.read_csv(io.BytesIO(downloaded(page, section, "CSV")))
    assert set(table["table"]) == {"lines", "theory", "now"}
    parquet = pd.read_parquet(io.BytesIO(downloaded(page, section, "Parquet")))
    assert len(parquet) == len(table)
    lines = parquet[parquet["table"] == "lines"]
    assert (lines["low"] <= lines["median"]).all() and (lines["median"] <= lines["high"]).all()


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
@pytest.mark.parametrize("look", ["phone", "projector"])
def test_every_lab_opens_on_a_phone_and_on_a_projector(visit, house, lab, look):
    phone = look == "phone"
    size = {"width": 375, "height": 800} if phone else {"width": 1280, "height": 720}
    seen = visit(f"{house}/{lab.id}" + ("" if phone else "?present=1"), viewport=size, color_scheme="dark")
    page, root = seen.page, None
    root = settled(page)
    assert page.get_by_role("heading", name=lab.title).is_visible()
    main = page.locator('[data-testid="stMain"]')
    assert main.evaluate("box => box.scrollWidth <= box.clientWidth"), "nothing sticks out sideways"
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    seen.assert_accessible()
    assert root.evaluate("box => box.scrollWidth <= box.clientWidth")
    labels = root.locator(".role-axis-label text")
    sizes = labels.evaluate_all("all => all.map(one => parseFloat(getComputedStyle(one).fontSize))")
    assert sizes and min(sizes) >= (11 if phone else 18)
    if not phone:
        assert not page.locator('[data-testid="stSidebar"]').is_visible()
        assert page.get_by_role("button", name="Leave projector mode").is_visible()
    seen.assert_clean()


@pytest.mark.slow
@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
def test_a_lecture_with_every_lab(visit, house, lab):
    """The keys of the tour, a link for a slide, the slide itself, and the tab's runs in the end."""
    seen = visit(f"{house}/{lab.id}", color_scheme="dark")
    page = seen.page
    settled(page)
    first = run_key_shown(page)
    page.keyboard.press("n")
    second = wait_for_another_key(page, first)
    assert second == run_key(lab, lab.focus(lab.presets[1]))[:16]
    settled(page)
    assert f"preset={lab.presets[1].id}" in page.url
    page.keyboard.press("b")
    page.wait_for_url(f"{house}/{lab.id}")
    settled(page)

    for expander in page.locator('[data-testid="stExpander"] summary').all():
        expander.click()
    seen.assert_accessible()
    page.keyboard.press("l")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("For slides: the pictures").click()
    link = dialog.locator("code", has_text="embed=true").first
    link.wait_for()
    assert dialog.get_by_alt_text("The link as a QR code").is_visible()
    seen.assert_accessible()
    address = link.inner_text()
    page.keyboard.press("Escape")

    page.get_by_role("link", name="This tab's runs").click()
    page.get_by_role("heading", name=lab.presets[0].label, exact=True).wait_for()
    seen.assert_accessible()
    seen.assert_clean()

    slide = visit(address, viewport={"width": 900, "height": 600})
    settled(slide.page)
    assert slide.page.get_by_role("heading", name=lab.title).is_visible()
    assert not slide.page.locator('[data-testid="stHeader"]').is_visible()
    assert slide.page.get_by_role("button").count() <= 3 * slide.page.locator(PLAYER).count(), "the player's alone"
    slide.assert_accessible()
    slide.assert_clean()


@pytest.mark.parametrize("path", ["", "ledger", "runs"])
@pytest.mark.parametrize("look", ["phone", "dark"])
def test_the_pages_of_all_labs_are_accessible_and_fit(visit, house, path, look):
    options = {"color_scheme": "dark"} if look == "dark" else {"viewport": {"width": 375, "height": 800}}
    seen = visit(f"{house}/{path}", **options)
    page = seen.page
    page.get_by_role("heading", level=1).wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    if path == "":
        pictures = page.locator('[data-testid="stImage"] img')
        page.wait_for_function(
            "count => document.querySelectorAll('[data-testid=stImage] img').length === count",
            arg=len(all_labs()),
            timeout=120_000,
        )
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-testid=stImage] img')].every(one => one.naturalWidth > 0)"
        )
        assert all(one.get_attribute("alt") for one in pictures.all())
    if path == "ledger":
        page.locator(".st-key-ledger tbody tr").first.wait_for()
        assert page.locator(".st-key-ledger tbody tr a").count() > 0
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    seen.assert_accessible()
    seen.assert_clean()
