"""A room in real browsers: how often they ask, a point picked by mouse and by keys, a network that is gone."""

import re
import signal

import pytest

from app.room.store import Question, Rooms
from sims.engine import get_lab
from tests.app.proxy import WEBSOCKET, Location, Proxy
from tests.house import House

LAB = get_lab("label_noise")
PATIENCE = 180_000  # milliseconds in which a tab comes back, on however slow a machine
STATE = {
    name: [str(value)]
    for name, value in {
        "v": LAB.version,
        "preset": "shape_matters",
        "steps": 60,
        "n_train": 5,
        "dim": 8,
        "sparsity": 2,
    }.items()
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    server = House(tmp_path_factory.mktemp("serving"), warming=False)
    server.start()
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def rooms(serving):
    return Rooms(serving.store.with_name("rooms.sqlite"))


@pytest.fixture
def room(rooms):
    """A room whose teacher shows a small page."""
    return rooms.show(rooms.open()[0].code, LAB.id, STATE)


def bar(page):
    return page.locator(".st-key-room")


def joined(visit, url, room):
    seen = visit(f"{url}/room?room={room.code}")
    bar(seen.page).get_by_text("your replicate: 0").wait_for()
    seen.page.locator(".player[data-shown]").first.wait_for()
    return seen


@pytest.mark.slow
def test_a_student_asks_at_most_once_in_two_seconds_and_only_in_the_room(visit, serving, room):
    seen = joined(visit, serving.url, room)
    page = seen.page
    page.wait_for_timeout(3000)
    before = len(seen.sent)
    page.wait_for_timeout(10_000)
    assert 1 <= len(seen.sent) - before <= 5
    bar(page).get_by_role("button", name="Leave").click()
    bar(page).wait_for(state="detached")
    page.wait_for_timeout(3000)
    before = len(seen.sent)
    page.wait_for_timeout(6000)
    assert len(seen.sent) == before
    seen.assert_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_bar_and_what_stands_beside_are_accessible_also_on_a_phone(visit, serving, rooms, room, scheme):
    rooms.ask(room.code, Question("Up or down?", LAB.id, choices=("up", "down"), right=1))
    size = {"viewport": {"width": 375, "height": 800}, "color_scheme": scheme}
    seen = visit(f"{serving.url}/{LAB.id}?room={room.code}&guide=label_noise", **size)
    page = seen.page
    bar(page).get_by_text("Up or down?").first.wait_for()
    page.get_by_text("is hidden until the answer is revealed").wait_for()
    seen.assert_accessible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.get_by_text("down", exact=True).click()
    bar(page).get_by_text("Your guess is in").wait_for()
    rooms.reveal(room.code)
    bar(page).get_by_text("the outcome").wait_for()
    seen.assert_clean()


def test_a_point_is_picked_with_the_mouse_and_moved_with_the_keys(visit, serving, rooms, room):
    rooms.ask(room.code, Question("Where?", LAB.id, kind="point", hides="simulation"))
    seen = visit(f"{serving.url}/{LAB.id}?room={room.code}")
    page = seen.page
    canvas = page.locator(".canvas.pickable")
    canvas.locator("svg, canvas").first.wait_for()
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    bar(page).get_by_text("Your guess:").wait_for()
    (first,) = rooms.guesses(room.code, 1)
    assert 0 < first.x < 60 and first.y > 0
    canvas.press("ArrowRight")
    canvas.press("ArrowUp")
    canvas.press("Enter")
    for _ in range(100):
        (second,) = rooms.guesses(room.code, 1)
        if second != first:
            break
        page.wait_for_timeout(100)
    assert second.x > first.x and second.y > first.y
    rooms.reveal(room.code)
    page.get_by_text(re.compile("and 1 guess")).first.wait_for()
    seen.assert_clean()


@pytest.mark.slow
def test_a_tab_waits_for_a_server_that_is_killed_and_started_again(visit, serving, rooms, room):
    rooms.ask(room.code, Question("Up or down?", LAB.id, choices=("up", "down")))
    seen = visit(f"{serving.url}/room?room={room.code}")
    page = seen.page
    bar(page).get_by_text("down", exact=True).click()
    bar(page).get_by_text("Your guess is in").wait_for()
    serving.restart(signal.SIGKILL)
    rooms.show(room.code, LAB.id, {**STATE, "noise_std": ["2"]})
    page.wait_for_url(re.compile("noise_std=2"), timeout=PATIENCE)
    bar(page).get_by_text("your replicate: 0").wait_for()
    bar(page).get_by_text("Your guess is in").wait_for()
    assert rooms.room(room.code).seats == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, 60])
def test_a_tab_whose_network_was_gone_follows_again(visit, serving, rooms, room, seconds):
    proxy = Proxy(Location("/class/", f"{serving.url}/", WEBSOCKET), serving.url)
    try:
        seen = joined(visit, proxy.url, room)
        proxy.cut()
        seen.page.wait_for_timeout(1000 * seconds)
        rooms.show(room.code, LAB.id, {**STATE, "noise_std": ["2"]})
        proxy.mend()
        seen.page.wait_for_url(re.compile("noise_std=2"), timeout=PATIENCE)
        bar(seen.page).get_by_text("your replicate: 0").wait_for()
    finally:
        proxy.close()
