"""The documents are true: commands parse, quoted output is met, snippets run, links lead somewhere, numbers hold."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import sims
from app.frame.activities import Folded, Words
from app.frame.activities import read as read_activity
from app.frame.state import decode, encode, of_preset
from app.room.store import LONGEST_CHOICE, LONGEST_QUESTION, MOST_CHOICES
from sims.engine import Lab, Params, Prediction, Run, all_labs, cli, execute, get_lab, lab_ids, predict

ROOT = Path(__file__).resolve().parent.parent
README, CONTRIBUTING, CLASSROOM = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "classroom.md"
ACTIVITIES = sorted((ROOT / "app" / "activities").glob("*.md"))
PAGES = [README, CONTRIBUTING, CLASSROOM, *ACTIVITIES]
WORKED_EXAMPLE = "ou_variance"  # the lab that CONTRIBUTING builds; tests/test_contributing.py runs its commands


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def prose(text: str) -> str:
    """The text without fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.S | re.M), flags=re.S)


def spans(text: str) -> list[str]:
    """The contents of the code spans, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- command lines -------------------------------------------------------------------------------------------------


def shown_commands(text: str) -> list[str]:
    """Every command line of a document: after a dollar sign in a block, or in a code span."""
    lines = [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    return list(dict.fromkeys([*lines, *(span for span in spans(text) if span.startswith(("python -m ", "make ")))]))


COMMANDS = [(path, line) for path in (README, CONTRIBUTING, CLASSROOM) for line in shown_commands(read(path))]
OURS = [line for _, line in COMMANDS if line.startswith("python -m sims") and WORKED_EXAMPLE not in line]


def understood(arguments: Sequence[str]) -> tuple[int, list[tuple[Lab, Params]]]:
    """The exit code of a command line that is read and checked but not acted upon, and the run that it asks for."""
    asked: list[tuple[Lab, Params]] = []

    def look(*given: Any) -> None:
        if len(given) == 2 and hasattr(given[1], "preset"):
            asked.append((given[0], cli.params_of(*given)))

    with pytest.MonkeyPatch.context() as patched:
        for table in ("_PLAIN", "_ABOUT_LAB"):
            commands = getattr(cli, table)
            patched.setattr(cli, table, {name: replace(command, act=look) for name, command in commands.items()})
        return cli.main(arguments), asked


@pytest.mark.parametrize("line", OURS)
def test_a_command_line_parses(line):
    assert understood(shlex.split(line)[3:])[0] == 0


@pytest.mark.parametrize("line", ["run label_noise --n-trian 3", "run label_noise --steps 1.5", "lst", "show"])
def test_a_wrong_command_line_is_noticed(line):
    assert understood(line.split())[0] != 0


def test_there_are_commands_of_ours_in_the_documents():
    assert len(OURS) >= len(cli._ABOUT_LAB) + len(cli._PLAIN)


def test_targets_of_make_exist():
    targets = set(re.search(r"^\.PHONY: (.*)$", read(ROOT / "Makefile"), re.M).group(1).split())
    lines = [line for _, line in COMMANDS if line.startswith("make ")]
    assert lines
    for line in lines:
        assert {word for word in line.split()[1:] if "=" not in word} <= targets, line


def test_the_table_of_commands_is_complete():
    rows = re.findall(r"^\| `python -m sims (\w+)", read(README), re.M)
    assert sorted(rows) == sorted([*cli._ABOUT_LAB, *cli._PLAIN])


# -- quoted output -------------------------------------------------------------------------------------------------


def alike(quoted: str, actual: str) -> bool:
    """Word for word the same, numbers within 0.1 percent; a quoted line that ends in ... goes on in the actual one.

    Of the line with the trace hash and the seconds only the first word counts: both belong to one machine.
    """
    ours, theirs = quoted.split(), actual.split()
    if ours[:1] == ["trace"]:
        return theirs[:1] == ["trace"]
    if ours[-1:] == ["..."]:
        ours, theirs = ours[:-1], theirs[: len(ours) - 1]
    return len(ours) == len(theirs) and all(map(same_word, ours, theirs))


def same_word(quoted: str, actual: str) -> bool:
    if quoted == actual:
        return True
    try:
        return float(quoted) == pytest.approx(float(actual), rel=1e-3)
    except ValueError:
        return False


def missing_lines(quoted: str, actual: str) -> list[str]:
    """The quoted lines that do not occur in the actual output, in that order; `...` stands for any lines."""
    lines, missing = iter(actual.splitlines()), []
    for line in quoted.splitlines():
        if line.strip() in ("", "..."):
            continue
        if not any(alike(line, other) for other in lines):
            missing.append(line)
    return missing


def transcripts(text: str) -> list[list[tuple[str, str]]]:
    """For each console block with commands of ours, (command, quoted output) in order."""
    found = []
    for block in blocks(text, "console"):
        parts = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
        steps = [(line, output) for line, _, output in parts if line.startswith("python -m sims")]
        if steps:
            found.append(steps)
    return found


TRANSCRIPTS = [
    pytest.param(steps, id=steps[0][0].removeprefix("python -m sims "))
    for path in (README, CONTRIBUTING)
    for steps in transcripts(read(path))
    if not any(WORKED_EXAMPLE in line for line, _ in steps)
]


@pytest.mark.parametrize("steps", TRANSCRIPTS)
def test_quoted_output_is_what_is_printed(steps, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line, quoted in steps:
        assert cli.main(shlex.split(line)[3:]) == 0, line
        assert missing_lines(quoted, capsys.readouterr().out) == [], line


def test_output_that_differs_is_noticed():
    actual = "a  1.0  x\nb  2.0  y\n"
    assert missing_lines("a 1.0004 x\n...\nb 2 y\n", actual) == []
    assert missing_lines("a 1.0 ...\n", actual) == []
    assert missing_lines("a 1.01 x\n", actual) and missing_lines("a 1.0\n", actual) and missing_lines("b 2 x\n", actual)
    assert missing_lines("b 2 y\na 1 x\n", actual), "in order"


# -- snippets ------------------------------------------------------------------------------------------------------

SNIPPETS = blocks(read(README), "python")


def run_snippet(code: str) -> list[str]:
    """What is printed beyond, or other than, the comments after its calls of print; empty where all agree."""
    said = re.findall(r"^\s*print\(.*\)  # (.*)$", code, re.M)
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink):
        exec(compile(code, "README.md", "exec"), {})
    printed = sink.getvalue().splitlines()
    wrong = [f"{q!r} is said, {p!r} is printed" for q, p in zip(said, printed, strict=False) if not alike(q, p)]
    return wrong if len(said) == len(printed) else [*wrong, f"{len(said)} comments, {len(printed)} lines"]


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs_and_prints_what_it_says(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_snippet(code) == []


def test_there_are_snippets_and_a_wrong_one_is_noticed():
    assert SNIPPETS
    assert run_snippet("print(1)  # 2\n") and run_snippet("print(1)\n") and not run_snippet("print(1)  # 1\n")


# -- links and names -----------------------------------------------------------------------------------------------


def links(path: Path) -> list[str]:
    text = prose(read(path))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", prose(read(path)), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_relative_links_lead_to_files_and_headings(path):
    for link in links(path):
        parts = urlsplit(link)
        if parts.scheme or link.startswith("/"):
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        assert target.exists(), link
        assert not parts.fragment or parts.fragment in anchors(target), link


def test_files_named_in_the_readme_exist():
    ours = re.compile(r"(app|sims|theory|tests|docs|tools)(/[\w.]*)+")
    named = [span for span in spans(read(README)) if ours.fullmatch(span)]
    assert named
    assert [span for span in named if not (ROOT / span).exists()] == []


def test_the_citation_file_says_what_the_software_says():
    """CITATION.cff is YAML; the few lines that count are of the form `name: value`."""
    lines = dict(re.findall(r"^([a-z-]+): (.+)$", read(ROOT / "CITATION.cff"), re.M))
    assert lines["cff-version"] == "1.2.0" and lines["type"] == "software"
    assert lines["version"] == sims.__version__
    assert read(ROOT / "LICENSE").startswith(f"{lines['license']} License")
    (author,) = re.findall(r'^  - name: "(.+)"$', read(ROOT / "CITATION.cff"), re.M)
    assert author in read(ROOT / "LICENSE")


def test_the_table_of_settings_is_complete():
    code = [*(ROOT / "app").rglob("*.py"), *(ROOT / "sims").rglob("*.py")]
    used = {word for path in code for word in re.findall(r'environ(?:\.get\(|\[)"(CHALKLINE_\w+)', read(path))}
    assert set(re.findall(r"^\| `(CHALKLINE_\w+)`", read(README), re.M)) == used


def test_what_a_lab_brings_is_there_for_every_lab():
    """The README names no lab in its list, so that a new one needs no line there; what it promises of each is so."""
    taught = {(head["lab"], head.get("kind", "activity")) for head, _ in map(front_matter, ACTIVITIES)}
    for lab in all_labs():
        assert (lab.id, "activity") in taught, "an activity for a class"
        assert (lab.id, "sheet") in taught, "an exercise sheet"
        assert lab.presets and lab.claims
        assert any("outside" in preset.expect.values() for preset in lab.presets), "an assumption is broken"
        assert any("fails" in preset.expect.values() for preset in lab.presets), "a claim that fails"
        assert importlib.import_module(f"app.labs.{lab.id}").STORY.why


@pytest.mark.parametrize("lab", lab_ids())
def test_the_description_of_a_lab_ends_with_the_entry_of_its_paper(lab, capsys):
    assert cli.main(["describe", lab]) == 0
    assert capsys.readouterr().out.strip().endswith(get_lab(lab).paper.bibtex.strip())


# -- activities ----------------------------------------------------------------------------------------------------


def front_matter(path: Path) -> tuple[dict[str, str], str]:
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", read(path), re.S).groups()
    return dict(line.split(": ", 1) for line in head.splitlines()), body


def labelled(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", ACTIVITIES, ids=labelled)
def test_an_activity_says_what_it_is_and_adds_up(path):
    head, body = front_matter(path)
    assert head.keys() - {"kind"} == {"title", "lab", "minutes"} and head["lab"] in lab_ids() and head["title"]
    told = [int(n) for n in re.findall(r"^#+ .*\((\d+) minutes?\)$", body, re.M)]
    assert not told or sum(told) == int(head["minutes"])
    assert body.count("<details>") == body.count("</details>") == body.count("<summary>Answer</summary>")
    assert body.count("**Question.**") == body.count("<details>") > 0


@pytest.mark.parametrize("path", ACTIVITIES, ids=labelled)
def test_the_page_reads_an_activity_as_it_is_written(path):
    """Every question, answer, link and choice of the file is found, and nothing of its HTML is left."""
    head, body = front_matter(path)
    one = read_activity(read(path), path.stem)
    assert (one.title, one.lab, one.kind) == (head["title"], head["lab"], head.get("kind", "activity"))
    parts = [part for step in one.steps for part in step.parts]
    assert sum(isinstance(part, Folded) for part in parts) == body.count("<details>")
    assert [link.words for step in one.steps for link in step.links] == [
        " ".join(words.split()) for words in re.findall(r"\[([^\]]+)\]\(/", prose(body))
    ]
    asked = one.questions
    assert sum(len(question.answers) for question in asked) == len(re.findall(r"^- \[[ x]\]", body, re.M))
    for question in asked:
        assert question.question and question.right is not None and len(question.answers) <= MOST_CHOICES
        assert len(question.question) <= LONGEST_QUESTION
        assert all(len(answer) <= LONGEST_CHOICE for answer in question.answers)
    shown = [part.text for part in parts if isinstance(part, Words | Folded)]
    assert not [text for text in shown if re.search(r"<[a-z/!]|\]\(/", text)]


@pytest.mark.parametrize("lab", lab_ids())
def test_a_class_can_be_asked_a_question_of_each_lab(lab):
    """With answers to choose from, in the activity and in the sheet."""
    files = [(path, front_matter(path)[0]) for path in ACTIVITIES]
    ours = [read_activity(read(path), path.stem) for path, head in files if head["lab"] == lab]
    assert all(one.questions for one in ours)


@pytest.mark.parametrize("path", ACTIVITIES, ids=labelled)
def test_links_of_an_activity_lead_to_the_state_they_speak_of(path):
    """A link names a preset and nothing else, or with `v` it holds a whole state, written as the page writes it."""
    inner = [link for link in links(path) if link.startswith("/")]
    assert inner
    for link in inner:
        parts = urlsplit(link)
        lab = get_lab(parts.path.removeprefix("/"))
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        state, notices = decode(lab, query)
        assert notices == [], link
        if "v" in query:
            assert encode(lab, state) == query, link
        else:
            assert query.keys() <= {"preset"}, link
            assert state == of_preset(lab, query.get("preset", [lab.presets[0].id])[0]), link


CHECK = re.compile(
    r"check: (?P<command>(?:run|predict) [^:]+): "
    r"(?P<name>\w+)(?:\[(?P<index>\d+)\])?(?: = (?P<value>\S+) within (?P<tolerance>\S+)| is (?P<verdict>\w+))"
)


def checks(text: str) -> list[str]:
    """The contents of the comments, each on one line."""
    return [" ".join(comment.split()) for comment in re.findall(r"<!--(.*?)-->", text, re.S)]


@cache
def outcome(command: str) -> Run | Prediction:
    """The run or the prediction of a command line, through the command line's own parser."""
    code, asked = understood(shlex.split(command))
    assert code == 0, command
    ((lab, params),) = asked
    return execute(lab, params) if command.startswith("run") else predict(lab, params)


def number(found: Run | Prediction, name: str, index: str | None) -> float:
    """A mean over replicates, what a claim measured, a parameter, or where a prediction ends."""
    if isinstance(found, Prediction):
        return float(np.ravel(found.prediction[name])[-1])
    if index is not None:
        return float(np.mean(found.trace.finals[name][:, int(index)]))
    values = {claim.id: claim.measured for claim in found.claims} | dict(found.params.active())
    return float(values[name] if name in values else found.metrics[name].mean)


def disagreement(check: str) -> str:
    """What is wrong with a check; empty where it holds."""
    parts = CHECK.fullmatch(check)
    if parts is None:
        return f"not of the form 'check: run LAB ...: name = value within tolerance': {check}"
    found = outcome(parts["command"])
    if parts["verdict"]:
        verdicts = {claim.id: claim.verdict for claim in found.claims}
        return "" if verdicts[parts["name"]] == parts["verdict"] else f"it is {verdicts[parts['name']]}"
    actual = number(found, parts["name"], parts["index"])
    return "" if abs(actual - float(parts["value"])) <= float(parts["tolerance"]) else f"it is {actual:.6g}"


CHECKS = [pytest.param(c, id=f"{path.stem}: {c[7:]}") for path in ACTIVITIES for c in checks(read(path))]


@pytest.mark.parametrize("check", CHECKS)
def test_an_activity_states_true_numbers(check):
    """Runs are those of fixed seeds; tolerances are those of the words, many times the grade-B tolerance."""
    assert disagreement(check) == ""


@pytest.mark.parametrize(
    "check",
    [
        "check: run label_noise --steps 60: slow_time = 0.007 within 1e-9",
        "check: run label_noise --steps 60: conserved is fails",
        "check: predict label_noise --steps 60: slow_time = 0.007 within 1e-9",
        "check: run label_noise --steps 60: beta[0] = 0 within 1e-9",
        "check: slow_time = 0.006",
    ],
)
def test_a_wrong_number_is_noticed(check):
    assert disagreement(check)
    assert not disagreement("check: run label_noise --steps 60: slow_time = 0.006 within 1e-9")


@pytest.mark.parametrize("path", ACTIVITIES, ids=labelled)
def test_every_answer_and_every_decimal_of_an_activity_is_checked(path):
    _, body = front_matter(path)
    for answer in re.findall(r"<details>(.*?)</details>", body, re.S):
        assert checks(answer), f"an answer without a check: {answer[:80]}"
    seen = re.sub(r"^- \[ \] .*$", "", re.sub(r"\]\([^)]*\)", "]", prose(body)), flags=re.M)  # a wrong choice may lie
    stated = {parts["value"] for parts in map(CHECK.fullmatch, checks(body)) if parts and parts["value"]}
    assert set(re.findall(r"(?<![\w.])\d+\.\d+", seen)) <= stated
