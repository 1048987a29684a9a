"""The page as one file: everything is in it, and nothing in it can end a script early or call for more."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import pytest

from app.frame.formula import shown
from app.frame.labels import on_lines
from app.frame.offline import _inside, offline_page
from app.frame.page import lab_module
from app.frame.pictures import by_clock
from app.frame.player import pack
from sims.engine import all_labs
from tests.app.samples import pictures_of, preset_view

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(1)">'


def page_of(lab, **changes):
    view = preset_view(lab.id, lab.presets[0].id)
    pictures = [replace(picture, **changes) for picture in pictures_of(view)]
    formulas = lab_module(lab.id).STORY.formulas
    return view, pictures, offline_page(view, pictures, formulas, "http://127.0.0.1:8501/lab?a=1&b=2").decode()


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.id)
def test_the_file_holds_what_the_page_draws_and_says(lab):
    view, pictures, text = page_of(lab)
    for place, named in (("desk", lambda picture: picture), ("room", on_lines)):
        messages = [base64.b64decode(found) for found in re.findall(rf'data-{place}="([^"]+)"', text)]
        drawn = [
            pack(
                [named(picture).for_player() for picture in group],
                steps=clock or None,
                step_label="step",
                key=f"offline/{lab.id}/{index}",
                present=place == "room",
            )
            for index, (clock, group) in enumerate(by_clock(pictures).items())
        ]
        assert messages == drawn
    assert text.count('class="formula') == len(shown(lab_module(lab.id).STORY.formulas, view.focus)) + 1
    count = f"{view.focus.trace.replicates} replicates" if view.focus.trace.replicates > 1 else "one replicate"
    for picture in pictures:
        if picture.curves and {curve.run.key for curve in picture.curves} == {view.focus.key}:
            assert count in " ".join(picture.spec["title"]["text"])
            told = json.dumps(picture.spec["title"]["text"], separators=(",", ":")).encode()
            assert any(told in message for message in messages)
    assert text.count("<th scope=row>") == len(view.focus.claims)
    for words in (view.focus.key, view.focus.trace_sha256, f"python -m sims run {lab.id}", 'lang="en"'):
        assert words in text
    assert "lab?a=1&amp;b=2" in text


def markup(text):
    """The page without what its two scripts hold."""
    rest, scripts = re.subn(r"(<script[^>]*>).*?(</script>)", r"\1\2", text, flags=re.S)
    assert scripts == 2
    return rest


def test_the_file_fetches_nothing():
    rest = markup(page_of(all_labs()[0])[-1])
    assert "default-src 'none'" in rest
    assert not re.findall(r"\ssrc=|@import|url\(|<link|<iframe|<object|<embed", rest)


def test_words_cannot_become_markup():
    rest = markup(page_of(all_labs()[0], title=HOSTILE, alt=HOSTILE, note=HOSTILE)[-1])
    assert HOSTILE not in rest
    assert "<img" not in rest and rest.count("<script") == 2


def test_a_script_is_put_inside_without_ending_early():
    assert _inside("'</script><!--'") == r"'<\/script><\!--'"
    assert "</style" not in _inside("</style>")
