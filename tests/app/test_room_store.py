"""Rooms without a screen: numbers are given once, guesses end with the reveal, and after 12 hours nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import threading

import pytest

from app.room import me, store
from app.room.store import EXPIRES_SECONDS, HERE_SECONDS, Guess, NoRoom, Question, Rooms, tidy_code
from sims.engine import BadInput
from tests.house import ROOT

CHOICE = Question("Up or down?", "label_noise", choices=("up", "down"), right=1)
POINT = Question("Where?", "label_noise", kind="point")


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "beside" / "rooms.sqlite"


@pytest.fixture
def rooms(path, clock):
    return Rooms(path, clock)


@pytest.fixture
def room(rooms):
    return rooms.open()[0]


def joined(rooms, room, many):
    return [rooms.join(room.code) for _ in range(many)]


# -- a room's life -----------------------------------------------------------------------------------------------------


def test_a_room_has_a_short_code_without_vowels_and_a_key_that_nobody_guesses(rooms):
    opened = [rooms.open() for _ in range(50)]
    assert len({room.code for room, _ in opened}) == 50
    assert all(re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}", room.code) for room, _ in opened)
    assert all(len(key) == 16 for _, key in opened)
    (one, key), (other, _) = opened[:2]
    assert rooms.is_led_by(one.code, key) and not rooms.is_led_by(other.code, key)
    assert not rooms.is_led_by("NONE", key) and not rooms.is_led_by(one.code, "")


def test_a_room_ends_twelve_hours_after_it_was_opened_and_nothing_of_it_is_left(rooms, room, clock, path):
    seat = rooms.join(room.code)
    rooms.ask(room.code, CHOICE)
    rooms.guess(room.code, seat.token, 1, Guess(choice=0))
    clock.time += EXPIRES_SECONDS - 1
    assert rooms.room(room.code).code == room.code
    clock.time += 1
    with pytest.raises(NoRoom, match="it has ended"):
        rooms.room(room.code)
    with pytest.raises(NoRoom):
        rooms.join(room.code)
    rooms.sweep()
    with sqlite3.connect(path) as database:
        for table in store.TABLES:
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_a_teacher_may_end_a_room_before(rooms, room):
    other, _ = rooms.open()
    joined(rooms, room, 2)
    rooms.end(room.code)
    with pytest.raises(NoRoom):
        rooms.room(room.code)
    assert rooms.room(other.code) == other


def test_there_are_at_most_so_many_rooms(rooms, clock, monkeypatch):
    monkeypatch.setattr(store, "MOST_ROOMS", 2)
    for _ in range(2):
        rooms.open()
    with pytest.raises(BadInput, match="There are 2 open rooms"):
        rooms.open()
    clock.time += EXPIRES_SECONDS
    rooms.open()


def test_a_typed_code_is_read_as_it_was_meant():
    assert tidy_code(" kx-qz ") == "KXQZ" and tidy_code("KXQZW") == "KXQZ"
    assert tidy_code("<script>") == "SCRI" and tidy_code("Ⅻ'; DROP") == "DROP" and tidy_code("") == ""


# -- seats -------------------------------------------------------------------------------------------------------------


def test_each_seat_has_the_next_number_and_none_comes_back(rooms, room, clock):
    seats = joined(rooms, room, 3)
    assert [seat.number for seat in seats] == [0, 1, 2]
    clock.time += 3600  # all of them have long gone
    assert rooms.join(room.code).number == 3
    assert rooms.room(room.code).seats == 4
    assert rooms.seat(room.code, seats[1].token) == seats[1], "who comes back has the number of before"
    assert rooms.seat(room.code, "unknown") is None


def test_sixty_who_join_at_once_have_sixty_numbers(rooms, room):
    together, found = threading.Barrier(12), []

    def join():
        together.wait()
        found.extend(joined(rooms, room, 5))

    threads = [threading.Thread(target=join) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seat.number for seat in found) == list(range(60))
    assert len({seat.token for seat in found}) == 60


JOINING = """
import sys
from pathlib import Path
from app.room.store import Rooms

rooms = Rooms(Path(sys.argv[1]), lambda: 1_000_000.0)
for _ in range(int(sys.argv[3])):
    seat = rooms.join(sys.argv[2])
    print(seat.token, seat.number, flush=True)
"""


@contextlib.contextmanager
def another_program(path, room, many):
    """A program that joins so many times and says each of its seats."""
    command = [sys.executable, "-c", JOINING, str(path), room.code, str(many)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        yield program


def test_two_programs_that_write_at_once_give_no_number_twice(rooms, room, path):
    with another_program(path, room, 100) as one, another_program(path, room, 100) as other:
        said = [line.split() for program in (one, other) for line in program.stdout]
    assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(int(number) for _, number in said) == list(range(200)) and len({token for token, _ in said}) == 200
    assert rooms.join(room.code).number == 200


def test_a_killed_program_loses_no_seat_that_it_has_given(rooms, room, path):
    with another_program(path, room, 10**6) as program:
        said = [next(program.stdout).split() for _ in range(30)]
        program.kill()
        said += [line.split() for line in program.stdout if line.endswith("\n")]
    assert all(rooms.seat(room.code, token).number == int(number) for token, number in said)
    assert rooms.join(room.code).number >= len(said)


def test_a_full_room_says_so(rooms, room, monkeypatch):
    monkeypatch.setattr(store, "MOST_SEATS", 2)
    joined(rooms, room, 2)
    with pytest.raises(BadInput, match="is full"):
        rooms.join(room.code)


def test_who_has_just_polled_is_here(rooms, room, clock):
    first, second, third = joined(rooms, room, 3)
    for seat in (first, second):
        rooms.seen(room.code, seat.token)
    assert rooms.here(room.code) == 2
    clock.time += HERE_SECONDS / 2
    rooms.seen(room.code, third.token)
    clock.time += HERE_SECONDS / 2 + 1
    assert rooms.here(room.code) == 1


def test_progress_counts_those_who_are_here(rooms, room):
    first, second, third = joined(rooms, room, 3)
    for seat in (first, second, third):
        rooms.reach(room.code, seat.token, 2)
    rooms.reach(room.code, first.token, 4)
    for seat in (first, second):
        rooms.seen(room.code, seat.token)
    assert rooms.steps(room.code) == {4: 1, 2: 1}


# -- what the teacher shows --------------------------------------------------------------------------------------------


def test_what_the_teacher_shows_counts_only_where_it_is_new(rooms, room):
    shown = rooms.show(room.code, "label_noise", {"preset": ["planar"], "v": ["1"]})
    assert (shown.lab, shown.query, shown.shown) == ("label_noise", {"preset": ["planar"], "v": ["1"]}, 1)
    again = rooms.show(room.code, "label_noise", {"v": ("1",), "preset": ("planar",)})
    assert again == shown == rooms.room(room.code)
    assert rooms.show(room.code, "label_noise", {}).shown == 2
    with pytest.raises(BadInput, match="too long"):
        rooms.show(room.code, "label_noise", {"beside": ["x" * 30_000]})


def test_every_change_that_a_tab_must_draw_counts(rooms, room):
    before = room.revision
    for change in (
        lambda: rooms.set(room.code, controls=False),
        lambda: rooms.ask(room.code, CHOICE),
        lambda: rooms.reveal(room.code),
        lambda: rooms.put_away(room.code),
    ):
        after = change().revision
        assert after > before
        before = after
    assert rooms.set(room.code, controls=False).revision == before
    with pytest.raises(ValueError, match="not for the teacher to set"):
        rooms.set(room.code, seed=3)


# -- questions and guesses ---------------------------------------------------------------------------------------------


def test_guesses_are_committed_and_changed_until_the_reveal(rooms, room):
    anna, bert = joined(rooms, room, 2)
    assert rooms.ask(room.code, CHOICE).question.number == 1
    rooms.guess(room.code, anna.token, 1, Guess(choice=0))
    rooms.guess(room.code, anna.token, 1, Guess(choice=1))
    rooms.guess(room.code, bert.token, 1, Guess(choice=0))
    assert rooms.guess_of(room.code, anna.token, 1) == Guess(choice=1)
    assert [guess.choice for guess in rooms.guesses(room.code, 1)] == [0, 1]
    assert rooms.reveal(room.code).question.revealed
    with pytest.raises(BadInput, match="too late"):
        rooms.guess(room.code, bert.token, 1, Guess(choice=1))
    assert rooms.ask(room.code, POINT).question.number == 2
    with pytest.raises(BadInput, match="too late"):
        rooms.guess(room.code, bert.token, 1, Guess(choice=1))
    rooms.guess(room.code, bert.token, 2, Guess(x=1.0, y=-2.5))
    assert rooms.guesses(room.code, 2) == [Guess(x=1.0, y=-2.5)] and len(rooms.guesses(room.code, 1)) == 2


@pytest.mark.parametrize(
    ("question", "guess"),
    [
        (CHOICE, Guess(choice=2)),
        (CHOICE, Guess(choice=-1)),
        (CHOICE, Guess(x=0.0, y=0.0)),
        (CHOICE, Guess()),
        (POINT, Guess(choice=0)),
        (POINT, Guess(x=1.0)),
        (POINT, Guess(x=float("nan"), y=1.0)),
        (POINT, Guess(x=float("inf"), y=1.0)),
    ],
)
def test_a_guess_that_is_no_answer_is_refused(rooms, room, question, guess):
    seat = rooms.join(room.code)
    number = rooms.ask(room.code, question).question.number
    with pytest.raises(BadInput, match="none of the answers"):
        rooms.guess(room.code, seat.token, number, guess)
    assert rooms.guesses(room.code, number) == []


def test_only_who_has_a_seat_may_guess(rooms, room):
    rooms.ask(room.code, CHOICE)
    with pytest.raises(BadInput, match="no place in the room"):
        rooms.guess(room.code, "made up", 1, Guess(choice=0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": ""},
        {"text": "x" * 301},
        {"choices": ("one",)},
        {"choices": tuple("abcdefg")},
        {"choices": ("a", "a")},
        {"choices": ("a", "x" * 121)},
        {"choices": ("a", "")},
        {"right": 2},
    ],
)
def test_a_question_that_cannot_be_answered_is_not_asked(rooms, room, wrong):
    with pytest.raises(BadInput):
        rooms.ask(room.code, Question(**{"text": "?", "lab": "label_noise", "choices": ("a", "b"), **wrong}))
    assert rooms.room(room.code).question is None


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_room_outlives_the_process_with_all_that_belongs_to_it(rooms, room, path, clock):
    seat = rooms.join(room.code)
    rooms.show(room.code, "label_noise", {"preset": ["planar"]})
    rooms.set(room.code, controls=False, activity="label_noise", step=3)
    rooms.ask(room.code, CHOICE)
    rooms.guess(room.code, seat.token, 1, Guess(choice=1))
    before = rooms.room(room.code)
    again = Rooms(path, clock)
    assert again.room(room.code) == before
    assert again.seat(room.code, seat.token) == seat
    assert again.guess_of(room.code, seat.token, 1) == Guess(choice=1)
    assert again.join(room.code).number == 1


def test_what_is_kept_is_signs_and_numbers_and_nothing_about_a_person(rooms, room, path):
    """Every column is named here: whoever adds one has to say what it holds."""
    rooms.join(room.code)
    with sqlite3.connect(path) as database:
        columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    assert columns == {
        "rooms": ["code", "opened", "key_sha256", "seed", "seats", "content"],
        "seats": ["code", "token", "number", "step"],
        "guesses": ["code", "question", "token", "choice", "x", "y"],
    }


def damage(path):
    """Garbage over every page but the first, as of a dying disk; the log is not there to mend it."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))


def test_a_damaged_file_is_set_aside_and_rooms_are_opened_anew(rooms, room, path, clock, caplog):
    del rooms
    damage(path)
    found = Rooms(path, clock)
    assert "rooms.sqlite is damaged, and was set aside as" in found.trouble and found.trouble in caplog.text
    assert len(list(path.parent.glob("rooms.sqlite.damaged-*"))) == 1, "nothing is thrown away"
    with pytest.raises(NoRoom):
        found.room(room.code)
    another, _ = found.open()
    again = Rooms(path, clock)
    assert again.room(another.code) == another and again.trouble == ""


def test_what_is_no_database_is_set_aside(path, clock):
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    assert "was set aside" in Rooms(path, clock).trouble


def test_damage_in_mid_class_is_one_message_and_no_traceback(rooms, room, path):
    damage(path)
    with pytest.raises(NoRoom):  # the pages that SQLite had in its memory are not read again
        rooms._connection.execute("PRAGMA shrink_memory")
        rooms.join(room.code)
    assert rooms.trouble.count("damaged") == 1 and "can be opened anew" in rooms.trouble
    another, _ = rooms.open()
    assert rooms.join(another.code).number == 0


def test_a_file_that_was_removed_in_mid_class_is_written_again(rooms, room, path, clock):
    seat = rooms.join(room.code)
    path.unlink()
    assert rooms.join(room.code).number == 1
    again = Rooms(path, clock)
    assert again.seat(room.code, seat.token) == seat and again.join(room.code).number == 2
    assert rooms.room(room.code).seats == 3, "both use the new file"
    assert (rooms.trouble, again.trouble) == ("", "")


def test_a_file_that_another_program_holds_is_one_message_and_the_class_goes_on(rooms, room, path, monkeypatch):
    rooms._connection.execute("PRAGMA busy_timeout = 10")
    monkeypatch.setattr(store, "LOCKED_SECONDS", 0.01)
    seat = rooms.join(room.code)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert rooms.join(room.code).number == 1
        assert rooms.seat(room.code, seat.token) == seat
        assert rooms.trouble == "rooms.sqlite cannot be used (database is locked): rooms end when the server stops."
        late = Rooms(path)
        late.open()
        assert "(database is locked)" in late.trouble


def test_where_nothing_can_be_written_rooms_live_in_memory_and_say_so(tmp_path):
    (tmp_path / "file").write_text("no folder")  # root may write anywhere, but not through this
    rooms = Rooms(tmp_path / "file" / "rooms.sqlite")
    room, _ = rooms.open()
    assert rooms.join(room.code).number == 0 and "rooms end when the server stops" in rooms.trouble
    assert rooms.room(room.code).seats == 1


def test_a_disk_that_fills_up_in_mid_class_loses_nothing(rooms, room, path):
    seat = rooms.join(room.code)
    with sqlite3.connect(path) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    rooms._connection.execute(f"PRAGMA max_page_count = {pages}")  # as a full disk: no page more
    for _ in range(300):
        rooms.join(room.code)
    assert "rooms end when the server stops" in rooms.trouble
    assert rooms.room(room.code).seats == 301 and rooms.seat(room.code, seat.token) == seat


def test_the_file_lies_beside_the_store_and_not_in_it(own_store, monkeypatch):
    me.rooms.cache_clear()
    assert me.rooms().path == own_store.with_name("rooms.sqlite") and os.path.exists(me.rooms().path)
    me.rooms.cache_clear()
    monkeypatch.setenv("CHALKLINE_ROOMS", "off")
    assert me.rooms() is None
    me.rooms.cache_clear()
