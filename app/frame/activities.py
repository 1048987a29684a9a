"""Activities and exercise sheets for a class: plain Markdown, ours and a teacher's own, read into steps.

A file is trusted with words alone. Its comments are dropped, its folded answers and its links into labs are taken
out, and what is left is Markdown without HTML: nothing of it reaches a page but text, formulas and links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from sims.engine import BadInput, get_lab, lab_ids

from .state import decode

FOLDER = Path(__file__).resolve().parents[1] / "activities"
LONGEST_FILE = 64_000  # bytes
MOST_FILES = 200  # of a teacher's folder
KINDS = ("activity", "sheet")
_FENCE = "---\n"
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_FOLDED = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)(?:</details>|\Z)", re.S)
_STEP = re.compile(r"^## +(.+)$", re.M)
_MINUTES = re.compile(r"\s*\((\d+) minutes?\)\s*$")
_QUESTION = re.compile(r"\*\*Question\.\*\*\s*(.*?)(?=\n\s*\n|\Z)", re.S)
_CHOICE = re.compile(r"^[-*] \[([ xX])\] (.+(?:\n {2,}.+)*)$", re.M)
_LINK = re.compile(r"\[([^\]\n]*(?:\n[^\]\n]+)*)\]\(\s*<?([^)\s>]*)>?[^)]*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:.*$", re.M)


@dataclass(frozen=True)
class Words:
    """A piece of Markdown without HTML."""

    text: str


@dataclass(frozen=True)
class Choices:
    """The answers to choose from of the question above; `right` is the number of the right one, if it is marked."""

    question: str
    answers: tuple[str, ...]
    right: int | None


@dataclass(frozen=True)
class Link:
    """A link into a lab: its words, the lab and the query that holds the state."""

    words: str
    lab: str
    query: str


@dataclass(frozen=True)
class Folded:
    """An answer, to be opened, with the links in it."""

    title: str
    text: str
    links: tuple[Link, ...] = ()


Part = Words | Choices | Folded | Link


@dataclass(frozen=True)
class Step:
    """One part of an activity, or one group of exercises of a sheet. A link stands behind the words that it is in."""

    title: str
    minutes: int | None
    parts: tuple[Part, ...]

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(
            link
            for part in self.parts
            for link in ([part] if isinstance(part, Link) else part.links if isinstance(part, Folded) else [])
        )


@dataclass(frozen=True)
class Activity:
    """What a file holds. `id` is its name without the ending; the first step may be an introduction without title."""

    title: str
    lab: str
    minutes: int
    kind: Literal["activity", "sheet"] = "activity"
    id: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def questions(self) -> tuple[Choices, ...]:
        """The questions with answers to choose from, which a class can be asked."""
        return tuple(part for step in self.steps for part in step.parts if isinstance(part, Choices))


def activities() -> Mapping[str, tuple[Activity, ...]]:
    """The activities of each lab, in order of their file names: ours, then those of `CHALKLINE_ACTIVITIES`."""
    found = dict(_ours())
    for one in teachers()[0]:
        found[one.lab] = (*found.get(one.lab, ()), one)
    return MappingProxyType(found)


def teachers() -> tuple[tuple[Activity, ...], tuple[str, ...]]:
    """The activities of the folder that `CHALKLINE_ACTIVITIES` names, and a sentence on each file that is none."""
    folder = os.environ.get("CHALKLINE_ACTIVITIES", "")
    if not folder:
        return (), ()
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix == ".md" and path.is_file())
        seen = tuple((str(path), path.stat().st_mtime_ns) for path in files[:MOST_FILES])
    except OSError as error:
        return (), (f"The folder of CHALKLINE_ACTIVITIES cannot be read ({error.strerror}).",)
    return _of_teacher(seen)


@cache
def _ours() -> Mapping[str, tuple[Activity, ...]]:
    found: dict[str, tuple[Activity, ...]] = {}
    for path in sorted(FOLDER.glob("*.md"), key=lambda path: path.stem):
        one = read(path.read_text(encoding="utf-8"), path.stem)
        found[one.lab] = (*found.get(one.lab, ()), one)
    return MappingProxyType(found)


@lru_cache(maxsize=4)
def _of_teacher(files: tuple[tuple[str, int], ...]) -> tuple[tuple[Activity, ...], tuple[str, ...]]:
    """The files by path and time of their last change: a new or changed one is read when it is there."""
    taken = {one.id for several in _ours().values() for one in several}
    found, problems = [], []
    for path, _ in files:
        name = Path(path).name
        try:
            content = Path(path).read_bytes()
            if len(content) > LONGEST_FILE:
                raise ValueError(f"it has {len(content):,} bytes, and at most {LONGEST_FILE:,} are read")
            one = read(content.decode("utf-8").replace("\r\n", "\n"), Path(path).stem)
            if one.id in taken:
                raise ValueError("there is an activity of that name already")
            if one.lab not in lab_ids():
                raise ValueError(f"there is no lab {one.lab!r}; labs are {', '.join(lab_ids())}")
        except (OSError, ValueError) as error:
            problems.append(f"{name} is not shown: {error}.")
            continue
        found.append(one)
        problems += [f"{name}: {notice}" for notice in misunderstood(one)]
    return tuple(found), tuple(problems)


def misunderstood(one: Activity) -> Iterator[str]:
    """A sentence on each link into a lab of which something is not understood."""
    for link in (link for step in one.steps for link in step.links):
        try:
            _, notices = decode(get_lab(link.lab), parse_qs(link.query, keep_blank_values=True))
        except BadInput as error:
            notices = [str(error)]
        for notice in notices:
            yield f"the link “{link.words}”: {notice}"


def read(text: str, name: str = "") -> Activity:
    """The activity of a file. Raises ValueError for one without title, lab and minutes."""
    start, head, body = text.partition(_FENCE)
    head, end, body = body.partition(_FENCE) if not start and head else ("", "", "")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not end or not {"title", "lab", "minutes"} <= fields.keys() or not fields["minutes"].isdecimal():
        raise ValueError("an activity begins with title, lab and minutes between two lines of three dashes")
    kind = fields.get("kind", "activity")
    if kind not in KINDS:
        raise ValueError(f"its kind is {kind!r}; kinds are {', '.join(KINDS)}")
    return Activity(
        fields["title"],
        fields["lab"],
        int(fields["minutes"][:6]),
        "sheet" if kind == "sheet" else "activity",
        name,
        tuple(_steps(body)),
    )


def _steps(body: str) -> Iterator[Step]:
    pieces = _STEP.split(_COMMENT.sub("", body))
    for title, text in [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]:
        if not title and not text.strip():
            continue
        told = _MINUTES.search(title)
        yield Step(_MINUTES.sub("", title).strip(), int(told[1]) if told else None, tuple(_parts(text)))


def _parts(text: str) -> Iterator[Part]:
    pieces = _FOLDED.split(text)
    for words, title, answer in zip(pieces[::3], [*pieces[1::3], ""], [*pieces[2::3], ""], strict=True):
        yield from _words(words)
        if title:
            yield Folded(" ".join(title.split()), *plain(answer))


def _words(text: str) -> Iterator[Part]:
    """Words, and after each question its choices."""
    found = list(_CHOICE.finditer(text))
    while found:
        group = [found.pop(0)]
        while found and not text[group[-1].end() : found[0].start()].strip():
            group.append(found.pop(0))
        before = text[: group[0].start()]
        yield from _with_links(before)
        asked = _QUESTION.findall(before)
        right = [number for number, choice in enumerate(group) if choice[1] != " "]
        answers = tuple(plain(" ".join(choice[2].split()))[0] for choice in group)
        yield Choices(plain(asked[-1])[0] if asked else "", answers, right[0] if len(right) == 1 else None)
        text = text[group[-1].end() :]
        found = list(_CHOICE.finditer(text))
    if text.strip():
        yield from _with_links(text)


def _with_links(text: str) -> Iterator[Part]:
    words, links = plain(text)
    yield Words(words)
    yield from links


def plain(text: str) -> tuple[str, tuple[Link, ...]]:
    """Markdown that fetches nothing, and the links into labs in it; those to the web stay, pictures become links."""
    links = []

    def shown(match: re.Match[str]) -> str:
        words, target = " ".join(match[1].split()), match[2]
        parts = urlsplit(target)
        if parts.scheme in ("http", "https") and parts.netloc:
            return f"[{words}]({target})"
        if target.startswith("/") and not parts.netloc and parts.path.count("/") == 1:
            links.append(Link(words, parts.path[1:], parts.query))
            return f"**{words}**"
        return words

    return _LINK.sub(shown, _REFERENCE.sub("", text.replace("![", "["))).strip(), tuple(links)
