"""Visits to the real server: of every lab, from its address to the files taken away, by mouse and by keyboard alone."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from app.frame.state import of_preset
from sims.engine import all_labs
from sims.engine.keys import run_key
from sims.engine.rerun import rerun
from tests.chromium import PLAYER, SHOWN, a_slider

LABS = all_labs()
FULL = "label_noise"  # the lab whose whole journey is quick
EVERY = [pytest.param(lab, id=lab.id, marks=[] if lab.id == FULL else [pytest.mark.slow]) for lab in LABS]
LEAST_OPACITY = """one => {
    let least = 1;
    for (; one; one = one.parentElement) least = Math.min(least, Number(getComputedStyle(one).opacity));
    return least;
}"""
MOST_BYTES = 1_000_000  # of a page's result on the wire


def settled(page):
    """The first player, drawn, once the server has nothing more to say and no run is under way."""
    root = page.locator(PLAYER).first
    root.wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    assert page.locator('[data-testid="stException"]').count() == 0
    return root


def unfold(page, words):
    """A folded section, open."""
    section = page.locator('[data-testid="stExpander"]', has_text=words)
    if section.locator("details[open]").count() == 0:
        section.locator("summary").click()
    return section


def key_shown(page):
    """The key of the run in focus, from the open section at the end."""
    unfold(page, "Rerun this, take it away")
    shown = page.locator('[data-testid="stCaptionContainer"]', has_text=re.compile("^Key [0-9a-f]{16}"))
    shown.wait_for()
    return re.search(r"Key ([0-9a-f]{16})", shown.text_content()).group(1)


def wait_for_key(page, key):
    page.wait_for_function(
        "key => [...document.querySelectorAll('[data-testid=stCaptionContainer]')]"
        ".some(box => box.textContent.startsWith('Key ' + key))",
        arg=key,
        timeout=60_000,
    )


def downloaded(page, section, label):
    with page.expect_download() as waiting:
        section.get_by_role("button", name=label, exact=True).first.click()
    return waiting.value.path()


def bytes_since(seen, before):
    return sum(len(frame) for frame in seen.received[before:])


@pytest.mark.parametrize("lab", EVERY)
def test_the_whole_journey(visit, house, browser, lab, tmp_path):
    """Open, change, play, compare, take away, share: each by what a visitor sees."""
    seen = visit(f"{house}/{lab.id}")
    page = seen.page
    settled(page)
    assert page.url == f"{house}/{lab.id}", "the default page has a bare address"
    pictures = page.locator(PLAYER).get_by_role("img")
    assert pictures.count() >= 2
    for index in range(pictures.count()):
        assert pictures.nth(index).locator("canvas, svg").count() == 1
        assert re.search(r"\d", pictures.nth(index).get_attribute("aria-label"))
    assert page.locator(".formulas .symbol").count() >= 1
    page.locator(".st-key-verdicts tbody tr").nth(2).wait_for()  # drawn a little after the browser has the message
    assert key_shown(page) == run_key(lab, lab.focus(lab.presets[0]))[:16]

    # A slider, by the keyboard: another run, another address, and its symbol in colour; the drawing is not replaced.
    before, shown = len(seen.received), page.evaluate(SHOWN)
    slider, name = a_slider(page, lab)
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(rf"[?&]{name}="))
    page.wait_for_function(f"before => ({SHOWN})() !== before", arg=shown, timeout=60_000)
    settled(page)
    value = re.search(rf"[?&]{name}=([^&]+)", page.url).group(1)
    changed = lab.focus(lab.presets[0]).replace(**{name: lab.params.fields()[name].parse(value)})
    wait_for_key(page, run_key(lab, changed)[:16])
    assert bytes_since(seen, before) < MOST_BYTES
    if page.locator(f'.formulas .symbol[data-name="{name}"]').count():
        assert page.locator(f'.formulas .symbol.changed[data-name="{name}"]').count() >= 1

    play(seen, page, lab)
    share(seen, page, house, visit, lab, changed)
    compare(seen, page, lab, changed)
    take_away(page, browser, lab, tmp_path)
    seen.assert_clean()


def play(seen, page, lab):
    """Playing is the browser's own affair: it moves, and not one message is sent for it."""
    root = next(one for one in page.locator(PLAYER).all() if one.get_by_role("button", name="Play").is_visible())
    messages = len(seen.received), len(seen.sent)
    root.get_by_label("Playback speed").select_option("4")
    root.get_by_role("button", name="Play").click()
    page.wait_for_function("root => Number(root.dataset.drawn) >= 10", arg=root.element_handle())
    pause = root.get_by_role("button", name="Pause")
    if pause.is_visible():
        pause.click()
    step, last = (int(found) for found in re.findall(r"\d+", root.locator(".readout").inner_text()))
    assert 0 < step <= last
    numbers = root.locator("details.numbers").first
    numbers.locator("summary").click()
    numbers.locator("tbody tr").first.wait_for()
    assert re.search(r"\d", numbers.locator("p").inner_text())
    numbers.locator("summary").click()
    assert (len(seen.received), len(seen.sent)) == messages


def compare(seen, page, lab, changed):
    """A run is kept, another drawn over it on the same axes, with the difference between the two."""
    beside = page.locator('[data-testid="stSidebar"]').get_by_role("button", name=re.compile("^Remove"))
    while beside.count():
        count = beside.count()
        beside.first.click()
        page.wait_for_function(
            "count => [...document.querySelectorAll('[data-testid=stSidebar] button')]"
            ".filter(one => one.textContent.includes('Remove')).length < count",
            arg=count,
        )
        settled(page)
    page.get_by_role("button", name="Keep this run for comparison").click()
    page.wait_for_url(re.compile("beside="))
    settled(page)
    page.get_by_text("Keep the axes", exact=True).click()
    page.wait_for_url(re.compile("range="))
    settled(page)
    page.get_by_text("Difference between runs", exact=True).click()
    page.wait_for_url(re.compile("show=difference"))
    settled(page)
    shown = page.evaluate(SHOWN)
    before = len(seen.received)
    slider, name = a_slider(page, lab)
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({SHOWN})() !== before", arg=shown, timeout=60_000)
    settled(page)
    assert bytes_since(seen, before) < MOST_BYTES
    table = unfold(page, "The runs side by side").locator("table").first
    table.wait_for()
    label = lab.params.fields()[name].name.replace("_", " ")
    assert label in table.inner_text()
    curves = [one.get_attribute("aria-label") for one in page.locator(PLAYER).get_by_role("img").all()]
    compared = any(re.search(r"(times|differs by .* from) .*that of|not comparable", words) for words in curves)
    assert compared or (lab.id != FULL and page.get_by_text("whose difference could be drawn").is_visible())


def share(seen, page, house, visit, lab, changed):
    """The link, opened by somebody else, shows the same runs; its code is a picture to scan."""
    page.evaluate("() => document.activeElement?.blur()")
    page.keyboard.press("l")
    dialog = page.get_by_role("dialog")
    link = dialog.locator("code").first
    link.wait_for()
    dialog.get_by_alt_text("The link as a QR code").wait_for()
    copy = dialog.get_by_role("button", name="Copy to clipboard").first
    assert copy.evaluate(LEAST_OPACITY) == 1, "seen by who does not hover"
    address = link.inner_text()
    assert f"v={lab.version}" in address
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    other = visit(address)
    settled(other.page)
    assert key_shown(other.page) == run_key(lab, changed)[:16]
    beside = of_preset(lab, lab.presets[0].id).beside
    removable = other.page.locator('[data-testid="stSidebar"]').get_by_role("button", name=re.compile("^Remove"))
    assert removable.count() == len(beside)
    other.assert_clean()


def take_away(page, browser, lab, tmp_path):
    """The files hold what is drawn, say of which run and of how many replicates, and each can be opened."""
    key = key_shown(page)
    section = unfold(page, "Rerun this, take it away")
    svg = downloaded(page, section, "SVG").read_bytes()
    assert svg.startswith(b"<svg") and key[:12].encode() in svg
    told = "replicate" in page.locator(PLAYER).get_by_role("img").first.text_content()
    assert told or lab.id != FULL, "a band says of how many"
    assert "replicate" in svg.decode() or not told
    assert downloaded(page, section, "PDF").read_bytes().startswith(b"%PDF-")
    with Image.open(io.BytesIO(downloaded(page, section, "PNG").read_bytes())) as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 10, "something is drawn"
    table = pd.read_csv(io.BytesIO(downloaded(page, section, "CSV").read_bytes()))
    parquet = pd.read_parquet(io.BytesIO(downloaded(page, section, "Parquet").read_bytes()))
    assert len(parquet) == len(table) > 0
    assert set(parquet["table"]) == set(table["table"])
    (tmp_path / "run.json").write_bytes(downloaded(page, section, "JSON trace").read_bytes())
    assert rerun(str(tmp_path / "run.json")).agrees
    trace = pd.read_csv(io.BytesIO(downloaded(page, section, "CSV trace").read_bytes()))
    assert len(trace) > 1
    path = tmp_path / "page.html"
    path.write_bytes(downloaded(page, section, "Page as one file").read_bytes())
    context = browser.new_context(offline=True)
    opened, requests = context.new_page(), []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(path.as_uri())
    opened.locator(PLAYER).first.wait_for()
    assert key[:12] in opened.content() and opened.locator(".formula").count() >= 1
    assert requests == [path.as_uri()]
    context.close()


def active(page):
    """What has the focus, also inside a component: its role or tag, and its name."""
    return page.evaluate(
        """() => {
            let one = document.activeElement;
            while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
            const name = one.getAttribute("aria-label") || one.textContent || "";
            return [one.getAttribute("role") || one.tagName.toLowerCase(), name.trim().slice(0, 60), one.type || ""];
        }"""
    )


def tab_to(page, name, most=120, key="Tab"):
    """Press Tab until something of that name has the focus."""
    for _ in range(most):
        page.keyboard.press(key)
        role, words, kind = active(page)
        if re.search(name, words):
            return role, words, kind
    raise AssertionError(f"{name} is not reached by {most} times {key}")


@pytest.mark.parametrize("lab", EVERY)
def test_the_keyboard_alone_is_enough(visit, house, lab):
    """No mouse: the next preset, playing, the numbers of a picture, a slider, a switch, a file, and back home."""
    seen = visit(f"{house}/{lab.id}")
    page = seen.page
    settled(page)
    tab_to(page, "Next")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"preset={lab.presets[1].id}"))
    settled(page)
    if any(one.get_by_role("button", name="Play").is_visible() for one in page.locator(PLAYER).all()):
        tab_to(page, "^Play$")
        page.keyboard.press("Space")
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')]"
            ".some(box => Number(box.shadowRoot?.querySelector('.player')?.dataset.drawn) >= 2)"
        )
        tab_to(page, "^Position in training")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert int(active_frame(page)) == 1
    tab_to(page, "^In words and numbers")
    page.keyboard.press("Enter")
    page.locator(PLAYER).locator("details.numbers[open] tbody tr").first.wait_for()
    tab_to(page, "Rerun this, take it away")
    page.keyboard.press("Enter")
    tab_to(page, "SVG$")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.path().read_bytes().startswith(b"<svg")
    seen.assert_clean()


def active_frame(page):
    return page.evaluate(
        """() => {
            let one = document.activeElement;
            while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
            return one.value;
        }"""
    )


def test_home_leads_to_a_lab_and_back(visit, house):
    seen = visit(house)
    page = seen.page
    page.get_by_role("link", name="Open Label noise").click()
    settled(page)
    assert page.url == f"{house}/label_noise"
    page.get_by_role("link", name="Chalkline").first.click()
    page.get_by_role("link", name="Open Label noise").wait_for()
    page.get_by_role("textbox", name="Search").fill("attention")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\?search=attention"))
    seen.assert_clean()


@pytest.mark.parametrize(
    ("look", "lab"),
    [pytest.param("phone", lab, id=f"phone-{lab.id}") for lab in LABS]
    + [pytest.param("projector", *one.values, id=f"projector-{one.id}", marks=one.marks) for one in EVERY],
)
def test_every_lab_opens_on_a_phone_and_on_a_projector(visit, house, lab, look):
    phone = look == "phone"
    size = {"width": 375, "height": 800} if phone else {"width": 1280, "height": 720}
    seen = visit(f"{house}/{lab.id}" + ("" if phone else "?present=1"), viewport=size, color_scheme="dark")
    page, root = seen.page, settled(seen.page)
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
        assert_read_from_the_last_row(page)
    seen.assert_clean()


def assert_read_from_the_last_row(page):
    """Lines are thick, named where they are, and the keys that nobody asked for are the player's."""
    players = page.locator(PLAYER)
    assert not players.locator(".role-legend").filter(has_text="theory").count(), (
        "the chalk line has its name beside it"
    )
    widths = players.locator(".mark-line path").evaluate_all("all => all.map(one => +one.getAttribute('stroke-width'))")
    assert widths and min(widths) >= 3
    moving = [one for one in players.all() if one.get_by_role("button", name="Play").is_visible()]
    page.evaluate("() => document.activeElement?.blur()")
    for key, frame in (("Home", "0"), ("ArrowRight", "1"), ("ArrowRight", "2")):
        page.keyboard.press(key)
        page.wait_for_function(
            "([root, frame]) => root.dataset.frame === frame", arg=[moving[0].element_handle(), frame]
        )


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_lecture_with_every_lab(visit, house, lab):
    """The keys of the tour, a link for a slide, the slide itself, and the tab's runs in the end."""
    seen = visit(f"{house}/{lab.id}", color_scheme="dark")
    page = seen.page
    settled(page)
    first = key_shown(page)
    page.keyboard.press("n")
    assert first == run_key(lab, lab.focus(lab.presets[0]))[:16]
    wait_for_key(page, run_key(lab, lab.focus(lab.presets[1]))[:16])
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
    dialog.get_by_alt_text("The link as a QR code").wait_for()
    seen.assert_accessible()
    address = link.inner_text()
    page.keyboard.press("Escape")

    page.get_by_role("link", name="This tab's runs").click()
    page.get_by_role("heading", name=lab.presets[0].label, exact=True).first.wait_for()
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
            arg=len(LABS),
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
