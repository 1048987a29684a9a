"""Activities as the page reads them: steps, questions and folded answers; of a stranger's file nothing but words."""

from __future__ import annotations

import os

import pytest

from app.frame import activities
from app.frame.activities import Choices, Folded, Link, Words, plain, read

HEAD = "---\ntitle: Mine\nlab: label_noise\nminutes: 5\n---\n"
BODY = """
Before the steps.

## 1. First (2 minutes)

Open [the lab
as it starts](/label_noise) or [the web](https://example.org/a?b=c).

**Question.** Up or down,
do you think?

- [ ] up, *surely*
- [x] down, a line that
  goes on
- [ ] neither

<details>
<summary>Answer</summary>

Down: [see](/label_noise?preset=planar). <!-- check: run label_noise: seed = 0 within 0 -->

</details>

## Second

No question.
"""


def test_a_file_is_read_into_steps_with_questions_answers_and_links():
    one = read(HEAD + BODY, "mine")
    assert (one.id, one.kind, one.minutes, len(one.steps)) == ("mine", "activity", 5, 3)
    intro, first, second = one.steps
    assert intro.title == "" and intro.parts == (Words("Before the steps."),)
    assert (first.title, first.minutes) == ("1. First", 2) and (second.title, second.minutes) == ("Second", None)
    words, link, choices, answer = first.parts
    assert "**the lab as it starts** or [the web](https://example.org/a?b=c)" in words.text
    assert link == Link("the lab as it starts", "label_noise", "")
    assert choices == Choices("Up or down,\ndo you think?", ("up, *surely*", "down, a line that goes on", "neither"), 1)
    assert answer == Folded("Answer", "Down: **see**.", (Link("see", "label_noise", "preset=planar"),))
    assert one.questions == (choices,) and [found.words for found in first.links] == ["the lab as it starts", "see"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![a cat](https://example.org/cat.png)", "[a cat](https://example.org/cat.png)"),
        ("[press](javascript:alert(1))", "press)"),
        ("[press](data:text/html,<b>x</b>)", "press"),
        ("[press](//example.org/x)", "press"),
        ("[press](file:///etc/passwd)", "press"),
        ("[press](../../etc/passwd)", "press"),
        ("[press](/label_noise/../ledger)", "press"),
        ("[press][1]\n\n[1]: javascript:alert(1)", "[press][1]"),
        ("a <!-- hidden --> b <!-- never closed", "a  b "),
    ],
)
def test_links_and_pictures_lead_nowhere_unseen(text, shown):
    body = read(HEAD + text).steps[0].parts[0].text if "<!--" in text else plain(text)[0]
    assert body.strip() == shown.strip()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A teacher's folder."""
    path = tmp_path / "mine"
    path.mkdir()
    monkeypatch.setenv("CHALKLINE_ACTIVITIES", str(path))
    return path


def of_label_noise():
    return [one.id for one in activities.activities()["label_noise"]]


def test_a_teachers_file_is_there_as_soon_as_it_is_written(folder):
    ours = of_label_noise()
    assert ours == ["label_noise", "label_noise-sheet"]
    (folder / "week3.md").write_text(HEAD + BODY)
    (folder / "notes.txt").write_text("not an activity")
    assert of_label_noise() == [*ours, "week3"] and activities.teachers()[1] == ()
    (folder / "week3.md").write_text((HEAD + BODY).replace("title: Mine", "title: Changed"))
    os.utime(folder / "week3.md", (1, 1))
    assert activities.activities()["label_noise"][-1].title == "Changed"
    (folder / "week3.md").unlink()
    assert of_label_noise() == ours


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bare.md", b"# no head", "bare.md is not shown: an activity begins with"),
        ("lab.md", HEAD.replace("label_noise", "nothing").encode(), "there is no lab 'nothing'"),
        ("kind.md", HEAD.replace("minutes: 5", "minutes: 5\nkind: poem").encode(), "its kind is 'poem'"),
        ("bytes.md", b"\xff\xfe" + HEAD.encode(), "bytes.md is not shown"),
        ("label_noise.md", HEAD.encode(), "there is an activity of that name already"),
        ("long.md", HEAD.encode() + b"x" * activities.LONGEST_FILE, "bytes, and at most"),
        ("link.md", (HEAD + "[here](/label_noise?preset=plana)").encode(), "link.md: the link “here”"),
        ("nolab.md", (HEAD + "[here](/nolab)").encode(), "nolab.md: the link “here”"),
    ],
)
def test_what_is_wrong_with_a_teachers_file_is_said_and_the_others_are_shown(folder, name, content, said):
    (folder / "good.md").write_text(HEAD + BODY)
    (folder / name).write_bytes(content)
    (problem,) = activities.teachers()[1]
    assert said in problem
    assert "good" in of_label_noise()


def test_a_folder_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CHALKLINE_ACTIVITIES", str(tmp_path / "nowhere"))
    said = "The folder of CHALKLINE_ACTIVITIES cannot be read (No such file or directory)."
    assert activities.teachers() == ((), (said,))
    assert of_label_noise() == ["label_noise", "label_noise-sheet"]
