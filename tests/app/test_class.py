"""A class at work, on the real server: tabs that join, follow, guess, build an ensemble, and survive what happens.

The quick lesson has 4 students, the slow one 30 and networks that are gone for 5 and for 60 seconds. A tab here is a
websocket that speaks as the browser does (`tabs.py`); the browser's own side is in tests/browser/test_room.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from app.frame.limits import LIVE_SECONDS
from app.frame.state import ROOM_KEYS, PageState, encode
from app.room.ensemble import of_seat
from app.room.store import Rooms
from sims.engine import get_lab
from sims.engine.budget import estimate
from sims.engine.keys import run_key
from sims.engine.pool import Family
from sims.engine.store import Store
from tests.app.proxy import WEBSOCKET, Location, Proxy
from tests.app.tabs import Tab
from tests.house import ROOT, House

LAB = get_lab("label_noise")
FIELDS = {"steps": 60, "n_train": 5, "dim": 8, "sparsity": 2}
PARAMS = LAB.params.make(FIELDS)
STATE = f"v={LAB.version}&preset=shape_matters&" + "&".join(f"{name}={value}" for name, value in FIELDS.items())
QUESTION = "How does the error end?"


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    server = House(tmp_path_factory.mktemp("serving"), warming=False)
    server.start()
    yield server
    server.stop(signal.SIGKILL)


async def gather(awaitables):
    return await asyncio.gather(*awaitables)


async def opened_room(server):
    """The teacher's tab on the panel of a room that has just been opened, and the room's code."""
    teacher = await Tab(f"{server.url}/room").open()
    await teacher.press("Open a room")
    return teacher, re.search(r"room=([A-Z]{4})", teacher.url)[1]


async def joined(url, code, many):
    return await gather(Tab(f"{url}/room?room={code}").open() for _ in range(many))


async def led_to(teacher, address):
    """The teacher's tab at another address of the same room, as when a link is opened there."""
    kept = "&".join(part for part in teacher.query.split("&") if part.startswith(("room=", "teach=")))
    await teacher.close()
    path, _, query = address.partition("?")
    return await Tab(f"{teacher.base}/{path}?{kept}&{query}").open()


def is_at_rest(tab):
    """Whether no run of the page is under way, whose progress it would ask for."""
    return "Stop" not in tab.buttons


def number_of(tab):
    """The replicate number that the tab shows."""
    return int(re.search(r"your replicate: (\d+)", tab.text)[1])


def seed_of(server, code):
    return Rooms(server.store.with_name("rooms.sqlite")).room(code).seed


def run_alone(folder, seed, many):
    """One run of the command line: what it prints as JSON."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FIELDS.items()]
    command = [sys.executable, "-m", "sims", "run", LAB.id, *flags, f"--seed={seed}", f"--replicates={many}", "--json"]
    environment = {**os.environ, "CHALKLINE_STORE": str(folder / "alone")}
    return json.loads(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)


@contextlib.contextmanager
def network(server):
    """The network between the students' tabs and the server."""
    between = Proxy(Location("/", f"{server.url}/", WEBSOCKET), server.url)
    try:
        yield between
    finally:
        between.close()


async def gone(network, tabs, seconds, meanwhile=lambda: asyncio.sleep(0)):
    """The network is gone for so long: every connection ends, and no new one is made, until it is back."""
    before = [tab.refused for tab in tabs]
    network.cut()
    await gather(tab.lost() for tab in tabs)
    returning = [asyncio.create_task(tab.come_back()) for tab in tabs]
    await meanwhile()
    await asyncio.sleep(seconds)
    assert not any(task.done() for task in returning)
    assert all(tab.refused > tried for tab, tried in zip(tabs, before, strict=True)), "each has tried, and was refused"
    network.mend()
    await gather(returning)


async def lesson(server, network, folder, many, cuts):
    """A whole lesson with so many students, whose network is gone for so many seconds each."""
    teacher, code = await opened_room(server)
    students = await joined(network.url, code, many)
    assert sorted(map(number_of, students)) == list(range(many)), "each has a number of its own"
    assert all("Open a room" not in tab.buttons for tab in students)

    # Follow me.
    teacher = await led_to(teacher, f"{LAB.id}?{STATE}")
    await gather(tab.until(lambda tab: tab.page == LAB.id) for tab in students)
    seed = seed_of(server, code)
    for tab in students:
        key = run_key(LAB, of_seat(PARAMS, seed, number_of(tab)))
        await tab.unfold("Rerun this, take it away")
        await tab.until(lambda tab, key=key: key[:16] in tab.text)

    # Everyone's ensemble.
    await teacher.until(lambda tab: f"{many} of {many} computed" in tab.text)
    await teacher.switch("Everyone's ensemble", True)
    found = Family(Store(server.store), LAB, of_seat(PARAMS, seed, 0)).pool()
    alone = run_alone(folder, seed, many)
    assert found.numbers == tuple(range(many))
    assert found.trace.sha256 == alone["trace_sha256"], "bit for bit one run of the command line"
    await teacher.until(lambda tab: alone["trace_sha256"][:12] in tab.text)

    # Predict, then observe.
    await teacher.write("Your own question", QUESTION)
    await teacher.write("Answers, one a line; an asterisk before the right one", "higher\n* lower\nthe same")
    await teacher.press("Ask")
    await gather(tab.until(lambda tab: QUESTION in tab.text) for tab in students)
    assert all("hidden until the answer is revealed" in tab.text for tab in (teacher, *students))
    assert all("Does the theory hold here?" not in tab.text for tab in (teacher, *students)), "nothing gives it away"
    await gather(tab.choose(("higher", "lower")[at % 2]) for at, tab in enumerate(students))
    await teacher.until(lambda tab: f"{many} of {many} have guessed" in tab.text)

    # The teacher leaves and comes back.
    await teacher.close()
    teacher = await Tab(teacher.url).open()
    assert "Reveal" in teacher.buttons, (teacher.url, teacher.text, teacher.errors)

    # The server is killed and started again. Every tab comes back by its address: half of them are loaded anew, as by
    # who thinks that this will help, and the others wait for their server.
    numbers, sessions = [number_of(tab) for tab in students], {tab._session for tab in students}
    server.restart(signal.SIGKILL)
    await gather(tab.lost() for tab in (teacher, *students))
    loaded = students[: many // 2]
    teacher, *loaded = await gather(Tab(tab.url).open() for tab in (teacher, *loaded))
    students[: many // 2] = loaded
    await gather(tab.come_back() for tab in students[many // 2 :])
    assert sessions.isdisjoint(tab._session for tab in students), "the server that knew them is gone"
    assert [number_of(tab) for tab in students] == numbers
    assert all(tab.page == LAB.id and QUESTION in tab.text for tab in students)
    assert all("Your guess is in" in tab.text for tab in students)
    await teacher.press("Reveal")
    await gather(tab.until(lambda tab: "the outcome" in tab.text) for tab in (teacher, *students))
    for at, tab in enumerate(students):
        assert f"higher: {-(-many // 2)} of {many}" + (" · your guess" if at % 2 == 0 else "") in tab.text
        assert f"lower: {many // 2} of {many}" + (" · your guess" if at % 2 else "") in tab.text

    # Networks are gone for a while, and what happened meanwhile is caught up with.
    for seconds in cuts:
        sessions = [tab._session for tab in students]

        async def lead_on(seconds=seconds):
            nonlocal teacher
            teacher = await led_to(teacher, f"{LAB.id}?{STATE}&noise_std={1 + seconds:g}")

        await gone(network, students, seconds, lead_on)
        assert [tab._session for tab in students] == sessions, "the server had kept the session"
        for tab in students:
            await tab.until(lambda tab, seconds=seconds: f"noise_std={1 + seconds:g}" in tab.query)
        assert [number_of(tab) for tab in students] == numbers

    # Late comers get new numbers; nothing went wrong anywhere.
    late = await Tab(f"{server.url}/room?room={code}").open()
    assert number_of(late) == many
    everybody = (teacher, late, *students)
    for tab in everybody:
        await tab.rerun()
        await tab.until(is_at_rest)  # the timers of what was under way are gone then
    assert {error for tab in everybody for error in tab.errors} == set()
    watching = 0.5  # a progress bar, while a run of the tab is under way
    polls = {number: [one for one in tab.intervals if one != watching] for number, tab in enumerate(everybody)}
    restless = {number: found for number, found in polls.items() if min(found) < 2.0}
    assert restless == {}, "nobody asks more than once in two seconds"
    await gather(tab.close() for tab in everybody)
    assert "Traceback" not in server.log, server.log


def test_a_small_class_has_its_lesson(serving, tmp_path):
    with network(serving) as between:
        asyncio.run(lesson(serving, between, tmp_path, many=4, cuts=(0.2,)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_students_have_their_lesson(serving, tmp_path):
    with network(serving) as between:
        asyncio.run(lesson(serving, between, tmp_path, many=30, cuts=(5.0, 60.0)))


def long_run():
    """A run that is under way for longer than a network is gone for a moment: 7 to 15 seconds by its estimate."""
    steps, most = 1000, int(LAB.params.fields()["steps"].le)
    while steps * 2 <= most and estimate(LAB, LAB.params.make(steps=steps * 2)).seconds < 0.25 * LIVE_SECONDS:
        steps *= 2
    return LAB.params.make(steps=steps, seed=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [5, 60])
def test_a_network_that_is_gone_costs_a_student_nothing(serving, seconds):
    """The session, its place in the room, its guess and its page stay; after 5 seconds its run goes on, too."""
    params = long_run().replace(seed=seconds)
    key = run_key(LAB, params)
    fields = "&".join(f"{name}={values[0]}" for name, values in encode(LAB, PageState("shape_matters", params)).items())

    async def story(between):
        teacher, code = await opened_room(serving)
        teacher = await led_to(teacher, f"{LAB.id}?{STATE}")
        _, student = await joined(between.url, code, 2)
        await student.until(lambda tab: tab.page == LAB.id)
        await teacher.write("Your own question", QUESTION)
        await teacher.write("Answers, one a line; an asterisk before the right one", "higher\nlower")
        await teacher.press("Ask")
        await student.until(lambda tab: QUESTION in tab.text)
        await student.choose("lower")
        assert "Your guess is in" in student.text
        await teacher.press("Put the question away")
        shown = Rooms(serving.store.with_name("rooms.sqlite")).room(code)
        assert shown.lab == LAB.id and {name: shown.query[name] for name in FIELDS} == {
            name: [str(value)] for name, value in FIELDS.items()
        }, "the class is still shown the teacher's page"
        await student.press("Detach")
        await student.until(lambda tab: "detached=1" in tab.query)
        place = "&".join(part for part in student.query.split("&") if part.partition("=")[0] in ROOM_KEYS)
        await student.close()
        student = await Tab(f"{between.url}/{LAB.id}?{fields}&{place}").open()
        assert not is_at_rest(student)
        query, session, number = student.query, student._session, number_of(student)
        await gone(between, [student], seconds)
        assert (student._session, student.query, number_of(student)) == (session, query, number)
        await student.unfold("Rerun this, take it away")
        await student.until(lambda tab: key[:16] in tab.text)
        again = await Tab(student.url).open()
        await again.unfold("Rerun this, take it away")
        assert (again.query, number_of(again)) == (query, number) and key[:16] in again.text
        ends = [line["state"] for line in serving.runs() if line["key"] == key and not line["cached"]]
        assert ends == ["done"] if seconds == 5 else set(ends) <= {"cancelled", "done"} and ends.count("done") == 1
        room = Rooms(serving.store.with_name("rooms.sqlite"))
        assert [guess.choice for guess in room.guesses(code, 1)] == [1]
        await again.until(lambda tab: "2 of 2 computed" in tab.text)
        assert student.errors == again.errors == []
        await gather(tab.close() for tab in (teacher, student, again))

    with network(serving) as between:
        asyncio.run(story(between))
    assert "Traceback" not in serving.log, serving.log


@pytest.mark.slow
def test_who_closes_a_tab_gives_its_run_up(serving):
    """Other than a network that goes: a closed tab frees the core."""
    params = long_run().replace(seed=7)
    key = run_key(LAB, params)
    fields = "&".join(f"{name}={values[0]}" for name, values in encode(LAB, PageState("shape_matters", params)).items())

    async def story():
        tab = await Tab(f"{serving.url}/{LAB.id}?{fields}").open()
        assert not is_at_rest(tab)
        await tab.close()
        async with asyncio.timeout(120):
            while not [line for line in serving.runs() if line["key"] == key]:
                await asyncio.sleep(0.2)

    asyncio.run(story())
    assert [line["state"] for line in serving.runs() if line["key"] == key] == ["cancelled"]


def test_who_detaches_keeps_a_page_of_their_own(serving):
    async def story():
        teacher, code = await opened_room(serving)
        teacher = await led_to(teacher, f"{LAB.id}?{STATE}")
        student, other = await joined(serving.url, code, 2)
        await gather(tab.until(lambda tab: "seed=" in tab.query) for tab in (student, other))
        await student.press("Detach")
        mine = student.query
        assert "detached=1" in mine and "on your own page" in student.text
        teacher = await led_to(teacher, f"{LAB.id}?{STATE}&noise_std=2")
        await other.until(lambda tab: "noise_std=2" in tab.query)
        await student.poll()
        assert student.query == mine, "the teacher's page is not taken"
        again = await Tab(student.url).open()
        assert again.query == mine, "nor after a reload"
        await again.press("Take the teacher's page")
        assert "noise_std=2" in again.query and "detached=1" in again.query
        await student.press("Follow")
        assert "noise_std=2" in student.query and "detached" not in student.query
        await student.press("Next")  # to another preset: a page of one's own
        await student.until(lambda tab: "on your own page" in tab.text)
        assert "detached=1" in student.query and "preset=all_the_way" in student.query
        await student.until(is_at_rest)
        await student.press("Leave")
        assert "room" not in student.query and "seat" not in student.query and student.intervals == []
        await gather(tab.close() for tab in (teacher, student, other, again))

    asyncio.run(story())


def test_a_press_counts_also_while_the_teacher_changes_something(serving):
    async def story():
        teacher, code = await opened_room(serving)
        teacher = await led_to(teacher, f"{LAB.id}?{STATE}")
        rooms = Rooms(serving.store.with_name("rooms.sqlite"))
        for words, name, is_there in (("Detach", "detached", True), ("Leave", "room", False)):
            (student,) = await joined(serving.url, code, 1)
            await student.until(lambda tab: tab.page == LAB.id and is_at_rest(tab))
            rooms.set(code, controls=not rooms.room(code).controls)
            await student.press(words)
            await student.poll()
            assert (f"{name}=" in student.query) is is_there, words
            await student.close()
        await teacher.close()

    asyncio.run(story())


def test_no_room_no_questions(serving):
    """A tab in no room asks nothing; a link into a room that is not there says so and is a link like any other."""

    async def story():
        plain = await Tab(f"{serving.url}/{LAB.id}?{STATE}").open()
        await plain.until(is_at_rest)
        assert plain.intervals == [] and "Room" not in plain.text
        lost = await Tab(f"{serving.url}/{LAB.id}?{STATE}&room=KXQZ&seat=abc&teach=def").open()
        await lost.until(is_at_rest)
        assert "There is no room 'KXQZ'" in lost.text.replace("\\", "")
        assert "room" not in lost.query and lost.intervals == [] and "n_train=5" in lost.query
        await gather(tab.close() for tab in (plain, lost))

    asyncio.run(story())


def test_a_wrong_key_leads_nobody(serving):
    async def story():
        teacher, code = await opened_room(serving)
        thief = await Tab(f"{serving.url}/{LAB.id}?room={code}&teach=0123456789abcdef").open()
        assert "is not the room's" in thief.text and number_of(thief) == 0
        assert "Ask the class" not in thief.text and "teach" not in thief.query
        await gather(tab.close() for tab in (teacher, thief))

    asyncio.run(story())
