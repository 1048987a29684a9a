"""Rooms: codes, replicate numbers, what the teacher shows, questions and guesses. Knows no screen.

A room is a few rows in `rooms.sqlite`, a file of its own beside the run store, so that it outlives the process.
It ends 12 hours after it was opened, and nothing of it is left then. What is kept is named in `SCHEMA` below:
random signs and numbers, nothing about persons. Who is here at this moment is remembered by the process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import math
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from sims.engine import BadInput
from sims.engine.params import canonical_json
from sims.engine.store import why_not

EXPIRES_SECONDS = 12 * 3600.0
HERE_SECONDS = 10.0  # a tab that has not polled for so long is not counted as here
LOCKED_SECONDS = 2.0  # for so long a page waits for another program that holds the file
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # a code has no vowels, and so makes no words
CODE_LENGTH = 4
MOST_ROOMS = 100
MOST_SEATS = 1000  # of one room
LONGEST_QUESTION = 300
LONGEST_CHOICE = 120
MOST_CHOICES = 6
LONGEST_QUERY = 20_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS rooms (
    code TEXT PRIMARY KEY, opened REAL NOT NULL, key_sha256 TEXT NOT NULL, seed INTEGER NOT NULL,
    seats INTEGER NOT NULL, content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS seats (
    code TEXT NOT NULL, token TEXT NOT NULL, number INTEGER NOT NULL, step INTEGER NOT NULL,
    PRIMARY KEY (code, token), UNIQUE (code, number)
);
CREATE TABLE IF NOT EXISTS guesses (
    code TEXT NOT NULL, question INTEGER NOT NULL, token TEXT NOT NULL, choice INTEGER, x REAL, y REAL,
    PRIMARY KEY (code, question, token)
);
"""
TABLES = ("rooms", "seats", "guesses")

T = TypeVar("T")
Hidden = Literal["nothing", "theory", "simulation", "both"]

logger = logging.getLogger("chalkline.rooms")


class NoRoom(BadInput):
    """There is no such room, or not any more."""


@dataclass(frozen=True)
class Question:
    """What the class is asked to predict, before it observes: one of `choices`, or a point of a picture.

    `hides` says what no tab shows until the answer is revealed; `right` is the right one of the choices, if known.
    `metric` names the recorded series whose picture is shown; empty for the lab's own.
    """

    text: str
    lab: str
    kind: Literal["choice", "point"] = "choice"
    choices: tuple[str, ...] = ()
    right: int | None = None
    hides: Hidden = "theory"
    metric: str = ""
    number: int = 0
    revealed: bool = False

    def problem(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if not 0 < len(self.text) <= LONGEST_QUESTION:
            return f"A question has 1 to {LONGEST_QUESTION} signs; this one has {len(self.text)}."
        if self.kind == "point":
            return ""
        if not 2 <= len(self.choices) <= MOST_CHOICES:
            return f"A question has 2 to {MOST_CHOICES} answers to choose from; this one has {len(self.choices)}."
        if not all(0 < len(choice) <= LONGEST_CHOICE for choice in self.choices):
            return f"An answer to choose has 1 to {LONGEST_CHOICE} signs."
        if len(set(self.choices)) < len(self.choices):
            return "Two of the answers to choose from are the same."
        if self.right is not None and not 0 <= self.right < len(self.choices):
            return f"The right answer is number {self.right}, and there are {len(self.choices)}."
        return ""


@dataclass(frozen=True)
class Room:
    """A room as it is now.

    `lab` and `query` are the teacher's page, counted by `shown`; the class follows it while `leading`. With
    `ensemble`, whoever follows runs a replicate of the room's seed. `controls` says whether students have them.
    `revision` grows with every change that a tab must draw.
    """

    code: str
    seed: int
    opened: float
    seats: int
    lab: str = ""
    query: Mapping[str, Sequence[str]] | None = None
    shown: int = 0
    leading: bool = True
    ensemble: bool = True
    controls: bool = True
    question: Question | None = None
    asked: int = 0
    activity: str = ""
    step: int = 0
    revision: int = 0

    @property
    def ends(self) -> float:
        return self.opened + EXPIRES_SECONDS


@dataclass(frozen=True)
class Seat:
    """A tab's place in a room: the token that its address holds, and its replicate number, counted from 0."""

    token: str
    number: int
    step: int = 0


@dataclass(frozen=True)
class Guess:
    """A student's answer: the number of a choice, or a point."""

    choice: int | None = None
    x: float | None = None
    y: float | None = None


_KEPT_APART = ("code", "seed", "opened", "seats")  # columns of their own


class Rooms:
    """The rooms of one server. Every method may be called from any thread.

    Args:
        path: the database file; None keeps rooms in memory.
        now: the time in seconds; expiry is judged by it.
    """

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time):
        self.path = path
        self.trouble = ""  # what a teacher must know of the file: damaged, or not to be written; else empty
        self._now = now
        self._lock = threading.RLock()
        self._seen: dict[tuple[str, str], float] = {}
        self._is_kept = path is not None  # whether rooms outlive this process
        self._connection = self._open()

    # -- a room's life ---------------------------------------------------------------------------------------------

    def open(self, seed: int | None = None) -> tuple[Room, str]:
        """A new room, and the key with which its teacher leads it.

        Raises:
            BadInput: there are too many rooms.
        """
        key = secrets.token_hex(8)

        def opened(database: sqlite3.Connection) -> Room:
            self._forget_ended(database)
            taken = {code for (code,) in database.execute("SELECT code FROM rooms")}
            if len(taken) >= MOST_ROOMS:
                raise BadInput(f"There are {len(taken)} open rooms, and no more fit: end one, or wait until one ends.")
            code = next(code for code in iter(_new_code, None) if code not in taken)
            room = Room(code, secrets.randbelow(10**6) if seed is None else seed, self._now(), 0)
            row = (code, room.opened, _hash(key), room.seed, room.seats, _content(room))
            database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?)", row)
            return room

        return self._write(opened), key

    def room(self, code: str) -> Room:
        """The room of that code. Raises NoRoom."""
        return self._use(lambda database: self._read(database, code))

    def is_led_by(self, code: str, key: str) -> bool:
        """Whether that is the key of the room's teacher."""
        rows = self._select("SELECT key_sha256 FROM rooms WHERE code = ?", code)
        return bool(rows) and hmac.compare_digest(rows[0][0], _hash(key))

    def end(self, code: str) -> None:
        """Forget the room and all that belongs to it."""
        self._write(lambda database: self._forget(database, code))

    def sweep(self) -> None:
        """Forget the rooms that have ended."""
        self._write(self._forget_ended)

    # -- seats -----------------------------------------------------------------------------------------------------

    def join(self, code: str) -> Seat:
        """A new seat, with the next replicate number: a number is given once, also when its tab leaves.

        Raises:
            NoRoom: there is no such room.
            BadInput: it is full.
        """

        def joined(database: sqlite3.Connection) -> Seat:
            room = self._read(database, code)
            if room.seats >= MOST_SEATS:
                raise BadInput(f"The room {code} is full: it has given {room.seats} places.")
            seat = Seat(secrets.token_hex(5), room.seats)
            database.execute("UPDATE rooms SET seats = seats + 1 WHERE code = ?", (code,))
            database.execute("INSERT INTO seats VALUES (?, ?, ?, 0)", (code, seat.token, seat.number))
            return seat

        return self._write(joined)

    def seat(self, code: str, token: str) -> Seat | None:
        """The seat of that token, if the room has given it."""
        return self._use(lambda database: _seat(database, code, token))

    def reach(self, code: str, token: str, step: int) -> None:
        """Note the step of the activity, counted from 1, that a seat works at."""
        sql = "UPDATE seats SET step = ? WHERE code = ? AND token = ?"
        self._write(lambda database: database.execute(sql, (step, code, token)))

    def steps(self, code: str) -> Counter[int]:
        """How many of the seats that are here work at each step; 0 for those who have not begun."""
        rows = self._select("SELECT token, step FROM seats WHERE code = ?", code)
        with self._lock:
            return Counter(step for token, step in rows if self._is_here(code, token))

    def seen(self, code: str, token: str) -> None:
        """The tab of that seat has just polled."""
        with self._lock:
            self._seen[code, token] = self._now()

    def here(self, code: str) -> int:
        """How many seats are here now."""
        with self._lock:
            return sum(self._is_here(where, token) for where, token in self._seen if where == code)

    # -- what the teacher does -------------------------------------------------------------------------------------

    def show(self, code: str, lab: str, query: Mapping[str, Sequence[str]]) -> Room:
        """The teacher's page is now this one, for the class to follow."""
        plain = {str(name): [str(value) for value in values] for name, values in query.items()}
        if len(json.dumps(plain)) > LONGEST_QUERY:
            raise BadInput("The link to this page is too long to be followed: draw fewer runs beside.")

        def shown(room: Room) -> Room:
            same = room.lab == lab and room.query == plain
            return room if same else replace(room, lab=lab, query=plain, shown=room.shown + 1)

        return self._change(code, shown)

    def set(self, code: str, **fields: Any) -> Room:
        """Change `leading`, `ensemble`, `controls`, `activity` or `step`."""
        allowed = {"leading", "ensemble", "controls", "activity", "step"}
        if not fields.keys() <= allowed:
            raise ValueError(f"{sorted(fields.keys() - allowed)} is not for the teacher to set")
        return self._change(code, lambda room: replace(room, **fields))

    def ask(self, code: str, question: Question) -> Room:
        """Ask the class. Raises BadInput for a question that could not be answered."""
        problem = question.problem()
        if problem:
            raise BadInput(problem)

        def asked(room: Room) -> Room:
            number = room.asked + 1
            return replace(room, asked=number, question=replace(question, number=number, revealed=False))

        return self._change(code, asked)

    def reveal(self, code: str) -> Room:
        """End the guessing; every tab shows what was hidden, and the guesses."""

        def revealed(room: Room) -> Room:
            return room if room.question is None else replace(room, question=replace(room.question, revealed=True))

        return self._change(code, revealed)

    def put_away(self, code: str) -> Room:
        """Back to the lab without a question."""
        return self._change(code, lambda room: replace(room, question=None))

    # -- guesses ---------------------------------------------------------------------------------------------------

    def guess(self, code: str, token: str, number: int, guess: Guess) -> None:
        """Commit to a guess, or change it while the question is open.

        Raises:
            BadInput: the question of that number is not open, or the guess is none of its answers.
        """

        def guessed(database: sqlite3.Connection) -> None:
            question = self._read(database, code).question
            if question is None or question.number != number or question.revealed:
                raise BadInput("This question is not open any more: your guess came too late.")
            if _seat(database, code, token) is None:
                raise BadInput("This tab has no place in the room: open the room's link again.")
            if not _answers(question, guess):
                raise BadInput("That is none of the answers to this question.")
            row = (code, number, token, guess.choice, guess.x, guess.y)
            database.execute("INSERT OR REPLACE INTO guesses VALUES (?, ?, ?, ?, ?, ?)", row)

        self._write(guessed)

    def guess_of(self, code: str, token: str, number: int) -> Guess | None:
        sql = "SELECT choice, x, y FROM guesses WHERE code = ? AND question = ? AND token = ?"
        rows = self._select(sql, code, number, token)
        return Guess(*rows[0]) if rows else None

    def guesses(self, code: str, number: int) -> list[Guess]:
        """All guesses at a question, in no order that would tell whose they are."""
        sql = "SELECT choice, x, y FROM guesses WHERE code = ? AND question = ? ORDER BY choice, x, y"
        return [Guess(*row) for row in self._select(sql, code, number)]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _change(self, code: str, change: Callable[[Room], Room]) -> Room:
        def changed(database: sqlite3.Connection) -> Room:
            before = self._read(database, code)
            after = change(before)
            if after != before:
                after = replace(after, revision=before.revision + 1)
                database.execute("UPDATE rooms SET content = ? WHERE code = ?", (_content(after), code))
            return after

        return self._write(changed)

    def _read(self, database: sqlite3.Connection, code: str) -> Room:
        row = database.execute(
            "SELECT code, seed, opened, seats, content FROM rooms WHERE code = ?", (code,)
        ).fetchone()
        if row is None or row[2] + EXPIRES_SECONDS <= self._now():
            raise NoRoom(f"There is no room {code[:12]!r}: it was never opened, or it has ended.")
        content = {name: value for name, value in json.loads(row[4]).items() if name in Room.__dataclass_fields__}
        if content.get("question") is not None:
            asked = content["question"]
            content["question"] = Question(**{**asked, "choices": tuple(asked["choices"])})
        return Room(*row[:4], **content)

    def _is_here(self, code: str, token: str) -> bool:
        return self._now() - self._seen.get((code, token), -math.inf) <= HERE_SECONDS

    def _forget_ended(self, database: sqlite3.Connection) -> None:
        limit = self._now() - EXPIRES_SECONDS
        for (code,) in database.execute("SELECT code FROM rooms WHERE opened <= ?", (limit,)).fetchall():
            self._forget(database, code)

    def _forget(self, database: sqlite3.Connection, code: str) -> None:
        for table in TABLES:
            database.execute(f"DELETE FROM {table} WHERE code = ?", (code,))
        self._seen = {where: when for where, when in self._seen.items() if where[0] != code}

    def _write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """`act` in a transaction."""

        def transact(database: sqlite3.Connection) -> T:
            database.execute("BEGIN IMMEDIATE")
            try:
                result = act(database)
                database.execute("COMMIT")
                return result
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

        return self._use(transact)

    def _select(self, sql: str, *values: object) -> list[Any]:
        return self._use(lambda database: database.execute(sql, values).fetchall())

    def _use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """`act` on the database. Where the file can no longer be used, rooms go on in memory, and `trouble` says so."""
        with self._lock:
            if self._is_kept and self.path is not None and not self.path.exists():
                logger.warning("%s was removed; it is written again.", self.path)
                self._copy_into(self._open)
            try:
                return act(self._connection)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # a mistake of ours, and not of the file
            except sqlite3.DatabaseError as error:
                if not self._is_kept:
                    raise
                self._note_trouble(str(error))
                self._copy_into(_in_memory)
                return act(self._connection)

    def _copy_into(self, another: Callable[[], sqlite3.Connection]) -> None:
        """Go on in another database, with all rooms of this one, if they can be read."""
        copy = _in_memory()
        try:
            self._connection.backup(copy)
            readable = _has_no_damage(copy)
        except sqlite3.DatabaseError:
            readable = False
        if not readable:
            self._note_loss("")
            copy = _in_memory()
        self._connection.close()  # before the other is opened: it removes its log by name
        self._connection = another()
        copy.backup(self._connection)

    def _note_trouble(self, reason: str) -> None:
        assert self.path is not None
        self._is_kept = False
        self.trouble = f"{self.path.name} cannot be used ({reason}): rooms end when the server stops."
        logger.warning("%s", self.trouble)

    def _note_loss(self, where: str) -> None:
        assert self.path is not None
        lost = f"{self.path.name} is damaged{where}: the rooms that were open are lost, and can be opened anew."
        self.trouble = f"{self.trouble} {lost}".strip()
        logger.warning("%s", lost)

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            return _in_memory()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._remove_logs()
            elif not _is_sound(self.path):
                self._set_aside()
            return _connect(str(self.path))
        except (OSError, sqlite3.OperationalError) as error:
            self._note_trouble(why_not(error) if isinstance(error, OSError) else str(error))
            return _in_memory()

    def _set_aside(self) -> None:
        assert self.path is not None
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.rename(aside)
        self._remove_logs()
        self._note_loss(f", and was set aside as {aside.name}")

    def _remove_logs(self) -> None:
        """What a file of the same name has left must not be read as part of a new one."""
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _is_sound(path: Path) -> bool:
    """Whether the file is a database without damage, or can become one."""
    try:
        with contextlib.closing(_connect(str(path))) as connection:
            return _has_no_damage(connection)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def _has_no_damage(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")


def _in_memory() -> sqlite3.Connection:
    return _connect(":memory:")


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(SCHEMA)
    return connection


def _seat(database: sqlite3.Connection, code: str, token: str) -> Seat | None:
    sql = "SELECT token, number, step FROM seats WHERE code = ? AND token = ?"
    row = database.execute(sql, (code, token)).fetchone()
    return None if row is None else Seat(*row)


def _content(room: Room) -> str:
    return canonical_json({name: value for name, value in asdict(room).items() if name not in _KEPT_APART})


def _new_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _answers(question: Question, guess: Guess) -> bool:
    if question.kind == "choice":
        return guess.choice is not None and 0 <= guess.choice < len(question.choices) and guess.x is None
    return guess.choice is None and all(value is not None and math.isfinite(value) for value in (guess.x, guess.y))


def tidy_code(text: str) -> str:
    """A code as it was typed: capitals, without what is no letter."""
    return "".join(sign for sign in text.upper() if sign.isascii() and sign.isalpha())[:CODE_LENGTH]
