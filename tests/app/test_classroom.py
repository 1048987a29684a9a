"""docs/classroom.md is true: its nginx block serves a class below a path with TLS, and its example is an activity."""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.exceptions import InvalidHandshake, InvalidStatus

from app.frame.activities import misunderstood, read
from sims.engine import lab_ids
from tests.app.proxy import Location, Proxy, location_of
from tests.app.tabs import Tab
from tests.house import House

PAGE = Path(__file__).resolve().parents[2] / "docs" / "classroom.md"
TEXT = PAGE.read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.S | re.M)
    return found


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority):
    """Whom the tabs of the tests believe."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    server = House(tmp_path_factory.mktemp("serving"), warming=False)
    server.start()
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def proxied(serving, authority):
    """Start a proxy with TLS for a location in front of the server."""
    started = []

    def start(location: Location) -> Proxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        started.append(Proxy(location, serving.url, context))
        return started[-1]

    yield start
    for proxy in started:
        proxy.close()


def test_the_documented_block_serves_a_class_below_a_path_with_tls(proxied, trust):
    location = location_of(block("nginx"))
    proxy = proxied(location)
    below = location.path.rstrip("/")

    async def story():
        teacher = await Tab(f"{proxy.url}/room", below, trust).open()
        await teacher.press("Open a room")
        code = re.search(r"room=([A-Z]{4})", teacher.url)[1]
        way_in = f"{proxy.url}/room?room={code}"
        assert way_in in teacher.text, "the code holds the address that the teacher's own browser used"
        student = await Tab(way_in, below, trust).open()
        assert f"Room {code}" in student.text and "your replicate: 0" in student.text
        await teacher.until(lambda tab: "1 here" in tab.text)

        # The network is gone for a moment, for everybody.
        proxy.cut()
        await student.cut()
        with pytest.raises((OSError, InvalidHandshake)):
            await student.connect()
        proxy.mend()
        session = student._session
        await student.reconnect()
        assert student._session == session and "your replicate: 0" in student.text
        await asyncio.gather(*(tab.close() for tab in (teacher, student)))

    asyncio.run(story())
    with httpx.Client(verify=trust) as client:
        assert client.get(f"{proxy.url}/health").text == "ok"
        assert client.get(f"{proxy.url}/").status_code == 200
        assert client.get(f"{proxy.url}/_stcore/metrics").status_code == 403, "not for strangers"


@pytest.mark.parametrize("lost", ["upgrade", "connection"])
def test_without_its_upgrade_the_websocket_does_not_open(proxied, trust, lost):
    """The proxy of the tests heeds the block: a line less, and nothing works."""
    location = location_of(block("nginx"))
    del location.headers[lost]
    proxy = proxied(location)

    async def story():
        with pytest.raises(InvalidStatus):
            await Tab(f"{proxy.url}/room", location.path.rstrip("/"), trust).open()

    asyncio.run(story())


def test_a_directive_that_is_not_tested_is_noticed():
    with pytest.raises(ValueError, match="does not know 'proxy_cache on'"):
        location_of("location / {\n    proxy_cache on;\n}")


def test_the_example_of_an_activity_is_one():
    one = read(block("markdown"))
    assert one.lab in lab_ids() and one.kind == "sheet" and list(misunderstood(one)) == []
    assert one.questions[0].right == 0 and len(one.steps) == 1


def test_it_is_one_page():
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.S | re.M)
    assert len(prose.split()) < 750
