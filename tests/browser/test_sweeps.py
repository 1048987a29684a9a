"""A sweep in a real browser: started, watched, opened cell by cell, and restored from its link."""

import re
from urllib.parse import parse_qs, urlsplit

from sims.engine import get_lab
from sims.engine.keys import run_key

LAB = get_lab("label_noise")
TINY = "lab=label_noise&v=2&preset=shape_matters&steps=40&dim=8&replicates=2&grid=n_train=4,5,6&grid=sparsity=1,2,9"
PLAYER = ".player[data-shown]"


def cells(page):
    """The cells that open runs, once the sweep has ended and is drawn."""
    page.get_by_text("3 points failed", exact=True).wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    found = page.locator(f"{PLAYER} .mark-rect.layer_1_marks path")
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')].some(host => host.shadowRoot"
        " && host.shadowRoot.querySelectorAll('.layer_1_marks path').length === 6)"
    )
    return found


def test_a_sweep_fills_in_and_a_cell_opens_its_run(visit, house):
    seen = visit(house)
    page = seen.page
    page.get_by_role("link", name="Sweeps").click()
    page.locator(PLAYER).first.wait_for()
    page.wait_for_url(re.compile(r"/sweeps\?lab=.*&grid=.*&metric="))

    page.goto(f"{house}/sweeps?{TINY}&metric=test_error")
    page.get_by_role("button", name="Start").click()
    assert cells(page).count() == 6
    words = page.locator(PLAYER).get_by_role("img").get_attribute("aria-label")
    assert "9 of 9 points computed. 3 failed." in words
    assert page.locator("body").evaluate("box => box.scrollWidth <= innerWidth")

    with page.context.expect_page() as opening:
        cells(page).nth(3).click()
    run = opening.value
    run.get_by_role("heading", name=LAB.title).wait_for()
    run.get_by_text("Rerun this, take it away").click()
    shown = run.locator('[data-testid="stCaptionContainer"]', has_text="Key ").first
    shown.wait_for(state="attached")
    query = parse_qs(urlsplit(run.url).query)
    assert {query["n_train"][0], query["sparsity"][0]} <= {"1", "2", "4", "5", "6"} and query["dim"] == ["8"]
    fields = {"steps": 40, "dim": 8, "replicates": 2, "n_train": int(query["n_train"][0])}
    key = run_key(LAB, LAB.params.make({**fields, "sparsity": int(query["sparsity"][0])}))
    assert key[:16] in shown.text_content()
    run.close()

    # The keyboard's way: the same runs as links in a table.
    section = page.locator('[data-testid="stExpander"]', has_text="every point opens its run")
    section.locator("summary").click()
    links = section.locator("table a")
    links.first.wait_for()
    assert links.count() == 6
    assert links.first.get_attribute("href").startswith("label_noise?v=2&")

    # The link alone brings it back, finished.
    page.reload()
    assert cells(page).count() == 6
    assert page.get_by_role("button", name="Start").count() == 0
    seen.assert_clean()
