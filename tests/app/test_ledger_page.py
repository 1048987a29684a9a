"""The ledger page: nothing that was judged is hidden, and what is out of date says so."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from app import ledger as page
from app.frame.state import decode
from sims.engine import ChalklineError, all_labs, get_lab, ledger
from sims.engine.keys import run_key

LABS = all_labs()


def script():
    from app.ledger import ledger_page

    ledger_page()


def opened(**query):
    app = AppTest.from_function(script, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def table(app):
    (found,) = [element.value for element in app.table]
    return found.reset_index()


def all_rows(app):
    """The rows of every page of the table."""
    rows = [table(app)]
    for number in range(2, int(app.number_input[0].max) + 1 if app.number_input else 1):
        app.number_input(key="ledger/page").set_value(number).run()
        assert not app.exception
        rows.append(table(app))
    return [row for part in rows for row in part.to_dict("records")]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """recorded(rows): the page reads these rows instead of the last ledger's."""

    def use(rows):
        path = tmp_path / "ledger.json"
        path.write_text(json.dumps(rows))
        monkeypatch.setattr(page.ledger, "audit", lambda lab, real=ledger.audit: real(lab, path))
        monkeypatch.setattr(page.ledger, "confirmed", lambda lab_id=None: [])

    return use


def linked(row):
    """The lab, the state and the words of a row's link."""
    words, lab_id, query = re.search(r"\[((?:\\.|[^\]])+)\]\((\w+)\??([^#)]*)#pictures\)", row["judged on"]).groups()
    state, notices = decode(get_lab(lab_id), parse_qs(query, keep_blank_values=True))
    assert notices == []
    return lab_id, state, words.replace("\\", "")


def test_every_row_of_the_ledger_says_which_run_it_judges_and_leads_to_its_pictures():
    rows = all_rows(opened())
    recorded = ledger.read()
    assert len(rows) >= len(recorded)
    for verdict, badge in page.BADGES.items():
        shown = sum(row["verdict"].startswith(badge) for row in rows)
        assert shown >= sum(row["verdict"] == verdict for row in recorded), verdict
    titles = {lab.title: lab for lab in LABS}
    entries = {}
    for lab in LABS:
        for entry in ledger.entries(lab):
            entries.setdefault((lab.id, entry.preset.title, entry.run), set()).add(run_key(lab, entry.about))
    for row in rows:
        lab_id, state, words = linked(row)
        lab_title, title = row["judged on"].replace("\\", "").split("  \n")[:2]
        assert titles[lab_title].id == lab_id
        if (lab_id, title, words) in entries:
            assert run_key(get_lab(lab_id), state.focus) in entries[lab_id, title, words]
        else:
            assert words.startswith("experiment ")
        assert re.match(r"\d{4}-\d\d-\d\d, version \d+  \n:small\[", row["last checked"]) or "Not judged" in str(row)


def test_rows_of_one_claim_and_preset_are_told_apart():
    """A preset with several runs has a row of a claim for each: never two that read the same."""
    rows = all_rows(opened())
    told = [(row["claim"].split("  \n")[0], row["judged on"]) for row in rows]
    assert len(told) == len(set(told))


def test_confirmations_are_listed_with_their_scale_and_device():
    app = opened()
    app.button_group(key="ledger/scale").set_value(["small"]).run()
    rows = all_rows(app)
    confirmed = [row for row in ledger.confirmed() if row["scale"] == "small"]
    assert len(rows) == len(confirmed) > 0
    assert all("small, cpu: " in row["last checked"].replace("\\", "") for row in rows)


def test_the_address_holds_the_filters_and_names_what_is_not_there():
    app = opened(verdict=["fails", "maybe"], lab=LABS[0].id)
    assert app.button_group(key="ledger/verdict").value == ["fails"]
    assert app.multiselect(key="ledger/lab").value == [LABS[0].id]
    assert ["maybe" in box.value for box in app.warning] == [True]
    assert dict(app.query_params.items()) == {"verdict": "fails", "lab": LABS[0].id}


def test_the_filters_choose_together():
    app = opened()
    lab = LABS[0]
    app.multiselect(key="ledger/lab").set_value([lab.id]).run()
    app.button_group(key="ledger/verdict").set_value(["fails"]).run()
    rows = all_rows(app)
    expected = [row for row in ledger.read() if row["lab"] == lab.id and row["verdict"] == "fails"]
    assert len(rows) == len(expected) > 0
    assert all(row["verdict"].startswith(page.BADGES["fails"]) for row in rows)
    app.button_group(key="ledger/verdict").set_value([]).run()
    same = [row for row in ledger.read() if row["lab"] == lab.id and row["statement"] == expected[0]["statement"]]
    app.text_input(key="ledger/search").set_value(expected[0]["statement"].upper()).run()
    assert len(all_rows(app)) == len(same)
    app.text_input(key="ledger/search").set_value("no such words anywhere").run()
    assert not [found for found in app.table if "preset" in found.value.columns]
    assert any("No row" in box.value for box in app.info)


def test_a_page_that_a_filter_leaves_no_rows_for_gives_way_to_the_last_one():
    app = opened()
    app.number_input(key="ledger/page").set_value(int(app.number_input[0].max)).run()
    app.button_group(key="ledger/verdict").set_value(["outside"]).run()
    assert not app.exception
    assert len(table(app))


def test_what_is_out_of_date_says_why(recorded):
    rows = [row for row in ledger.read() if row["lab"] == LABS[0].id]
    old, gone, reworded, *fresh = rows
    recorded(
        [
            {**old, "version": LABS[0].version + 1},
            {**gone, "runs_sha256": "0" * 16},
            {**reworded, "statement": "It says something else."},
            *fresh,
        ]
    )
    app = opened()
    app.multiselect(key="ledger/lab").set_value([LABS[0].id]).run()
    app.button_group(key="ledger/verdict").set_value(["stale"]).run()
    found = [row["last checked"] for row in all_rows(app)]
    assert len(found) == 4
    for words in ("which is now at version", "No preset asks", "worded differently", "Not judged yet"):
        assert sum(words in one for one in found) == 1, words


def test_a_row_of_another_scale_is_stale_by_its_version_alone(tmp_path):
    lab, row = LABS[0], ledger.read()[0]
    path = tmp_path / "ledger.json"
    full = {**row, "lab": lab.id, "scale": "full", "runs_sha256": "0" * 16, "version": lab.version}
    path.write_text(json.dumps([full, {**full, "version": lab.version + 1}]))
    assert [bool(one["stale"]) for one in ledger.audit(lab, path)[:2]] == [False, True]


def test_without_a_ledger_every_claim_is_listed_as_not_judged(recorded):
    recorded([])
    app = opened()
    rows = all_rows(app)
    assert len(rows) == sum(len(ledger.entries(lab)) for lab in LABS)
    assert all(row["verdict"].startswith(page.BADGES["undecided"]) for row in rows)


def test_a_surprise_stands_out(recorded):
    row = next(row for row in ledger.read() if row["verdict"] == "holds")
    recorded([{**row, "verdict": "fails"}])
    app = opened()
    app.button_group(key="ledger/verdict").set_value(["fails"]).run()
    (shown,) = all_rows(app)
    assert "holds expected" in shown["verdict"]
    assert any("other than expected" in text.value for text in app.markdown)


def test_without_a_confirmation_or_with_a_damaged_one_the_ledger_is_still_there(monkeypatch):
    monkeypatch.setattr(page.ledger, "confirmed", lambda lab_id=None: [])
    assert len(all_rows(opened())) == sum(len(ledger.audit(lab)) for lab in LABS)

    def damaged(lab_id=None):
        raise ChalklineError("The report x is damaged.")

    monkeypatch.setattr(page.ledger, "confirmed", damaged)
    app = opened()
    assert "is damaged" in app.warning[0].value and len(table(app))
