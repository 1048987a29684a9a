"""The server: whom it answers, how many, with which settings, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner import StopException
from uvicorn.server import ServerState
from websockets.sync.client import ClientConnection, connect

from app import net, server
from app.frame import runs
from sims.engine.provenance import cores

ROOT = Path(server.__file__).resolve().parents[1]
PUBLIC = "lecture.example.org"
SETTINGS = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "type",
    "client.toolbarMode": "viewer",
    "runner.fastReruns": False,
    "runner.postScriptGC": False,
    "server.disconnectedSessionTTL": 300,
    "server.enableAgentApi": False,
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxMessageSize": 50,
    "server.maxUploadSize": 5,
}

# The page shows the settings it runs under and how often Streamlit has collected garbage after a run.
PAGE = f"""
import builtins, json
import streamlit as st
from streamlit import config
if "gc" in st.query_params:
    config.set_option("runner.postScriptGC", st.query_params["gc"] == "on")
names = {[*SETTINGS, "server.allowedHosts", "server.port", "theme.light.primaryColor"]!r}
settings = {{name: config.get_option(name) for name in names}}
st.text(json.dumps({{"settings": settings, "collections": builtins.collections}}))
"""

# Starts the server as `python -m app.server` does, with that page; the warm-up ends when a file appears.
LAUNCH = """
import builtins, gc, sys, time
from pathlib import Path
from app import server

builtins.collections = 0
collect = gc.collect

def counted(*generation):
    builtins.collections += sys._getframe(1).f_globals["__name__"].endswith("script_runner")
    return collect(*generation)

def warm_up():
    while not Path("go").exists():
        time.sleep(0.02)

gc.collect = counted
server.warm_up = warm_up
sys.exit(server.main(["--host", "0.0.0.0", "--port", "0"], script="page.py"))
"""


# What the first visitor of a warm server makes it import: of the script itself, and of the page of every lab.
FIRST = """
import ast, importlib, json, multiprocessing, sys
from streamlit.testing.v1 import AppTest
from app import server

server.warm_up()
workers = len(multiprocessing.active_children())
warm = set(sys.modules)
for node in ast.walk(ast.parse(server.SCRIPT.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module != "__future__":
        module = importlib.import_module(node.module)
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")
from sims import lab_ids
for lab_id in lab_ids():
    page = f"from app.frame.page import lab_page; lab_page({lab_id!r})"
    shown = AppTest.from_string(page, default_timeout=120).run()
    assert not shown.exception, shown.exception
ours = ("app", "sims", "theory", "altair", "pandas", "numba", "scipy")
late = sorted(name for name in set(sys.modules) - warm if name.partition(".")[0] in ours)
print(json.dumps({"late": late, "workers": workers}))
"""


@dataclass
class Served:
    port: int
    banner: str
    health_while_warming: httpx.Response

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(self.url + path, headers=names, timeout=60)

    def open(self) -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.port}{server.STREAM}",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            max_size=None,
            compression=None,
        )

    def handshake(self, origin: str | None = None, host: str | None = None) -> tuple[int, str]:
        """Asks for a websocket; the status of the answer (101: accepted) and its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest("GET", server.STREAM, skip_host=True)
        headers = {
            "Host": host or f"127.0.0.1:{self.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": "streamlit",
        } | ({"Origin": origin} if origin else {})
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = "" if answer.status == 101 else answer.read().decode()
        connection.close()
        return answer.status, text

    def until_empty(self) -> None:
        """Waits until the server has seen all earlier tabs close."""
        for _ in range(500):
            if self.get("/", Accept="text/html").status_code == 200 and self.handshake()[0] == 101:
                return
            time.sleep(0.02)
        raise AssertionError("closed sessions are still counted")


def rerun(channel: ClientConnection, query: str = "") -> dict:
    """Runs the page once and returns what it shows."""
    message = BackMsg()
    message.rerun_script.query_string = query
    channel.send(message.SerializeToString())
    shown = None
    while True:
        answer = ForwardMsg.FromString(channel.recv(timeout=20))  # type: ignore[arg-type]
        if answer.WhichOneof("type") == "script_finished":
            assert shown is not None
            return shown
        if answer.delta.new_element.WhichOneof("type") == "text":
            shown = json.loads(answer.delta.new_element.text.body)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with room for two tabs, started from a folder that is not the checkout's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "page.py").write_text(PAGE)
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "CI": "1"}
        | {"CHALKLINE_SESSIONS": "2", "CHALKLINE_HOSTS": PUBLIC},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl+C" in line:
            break
    banner = "".join(lines)
    port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", banner)[0])
    try:
        # The socket listens already; the answer comes as soon as the app has started.
        warming = httpx.get(f"http://127.0.0.1:{port}/health", timeout=30)
        (folder / "go").touch()
        served = Served(port, banner, warming)
        while served.get("/health").status_code == 503:
            time.sleep(0.02)
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def test_health_is_503_until_the_warm_up_is_over(served: Served) -> None:
    assert (served.health_while_warming.status_code, served.health_while_warming.text) == (503, "starting")
    answer = served.get("/health")
    assert (answer.status_code, answer.text) == (200, "ok")


def test_the_first_visitor_waits_for_no_import(tmp_path: Path) -> None:
    """Neither the script nor the page of any lab imports what the warm-up has not, and workers are there."""
    environment = os.environ | {"CHALKLINE_STORE": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", FIRST], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, timeout=250
    )
    assert json.loads(found.stdout.splitlines()[-1]) == {"late": [], "workers": cores()}


def test_a_failed_warm_up_never_counts_as_healthy() -> None:
    def broken() -> None:
        raise RuntimeError("no kernel")

    house, stop, called = server.House(), threading.Event(), []
    stop.set()
    server.janitor(house, broken, lambda: called.append("ready"), stop)
    gc.unfreeze()
    assert house.state != "ok"
    assert not called


def test_the_hidden_option_still_exists() -> None:
    option = config._config_options_template["runner.postScriptGC"]
    assert option.default_val is True


def test_shipped_settings_reach_the_script_from_any_folder(served: Served) -> None:
    with served.open() as channel:
        settings = rerun(channel)["settings"]
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
    assert settings["server.port"] == served.port
    assert settings["theme.light.primaryColor"] == server.settings(())["theme.light.primaryColor"]


def test_no_theme_setting_names_a_font_or_picture_elsewhere() -> None:
    assert "://" not in (ROOT / ".streamlit" / "config.toml").read_text()


def test_streamlit_collects_no_garbage_after_fifty_reruns(served: Served) -> None:
    with served.open() as channel:
        before = rerun(channel)["collections"]
        for _ in range(50):
            after = rerun(channel)["collections"]
        assert after == before
        # The counter can count: with the option on, every rerun collects once.
        rerun(channel, "gc=on")
        rerun(channel)
        assert rerun(channel, "gc=off")["collections"] > before


def test_the_names_answered_to_are_those_printed(served: Served) -> None:
    with served.open() as channel:
        allowed = rerun(channel)["settings"]["server.allowedHosts"]
    printed = set(re.findall(rf"http://([^\s:/]+):{served.port}", served.banner))
    assert {"127.0.0.1", PUBLIC} <= printed
    assert set(allowed) == printed | {"localhost"}
    assert "Anybody on this network can open it" in served.banner
    assert "▄" in served.banner, "no QR code"


def test_a_start_for_this_machine_answers_to_it_alone() -> None:
    with net.listen("127.0.0.1", 0) as sock:
        places = net.addresses(sock)
    assert places.hosts == ("127.0.0.1", "localhost")
    assert places.network == ()
    assert "Only this machine can open it" in net.banner(places)


def test_an_unknown_host_name_is_refused_with_the_way_out(served: Served) -> None:
    answer = served.get("/", Host="rebound.example.com")
    assert answer.status_code == 421
    assert "CHALKLINE_HOSTS" in answer.text
    assert served.handshake(host="rebound.example.com")[0] == 421
    assert served.get("/", Host=f"localhost:{served.port}").status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:{port}", None, 101),
        (None, None, 101),  # a script: only browsers send an Origin
        (f"https://{PUBLIC}", PUBLIC, 101),  # a proxy that keeps the host name
        (f"https://{PUBLIC}", None, 101),  # a proxy that does not
        ("https://evil.example.com", None, 403),
        ("http://127.0.0.1:1", None, 403),  # another program's page on this machine
        (f"https://{PUBLIC}.evil.example.com", None, 403),
        ("null", None, 403),
    ],
)
def test_websocket_is_for_our_own_pages(served: Served, origin: str | None, host: str | None, status: int) -> None:
    served.until_empty()
    assert served.handshake(origin and origin.format(port=served.port), host)[0] == status


def test_an_upload_without_token_is_refused(served: Served) -> None:
    answer = httpx.put(f"{served.url}/_stcore/upload_file/session/file", files={"file": b"x"})
    assert answer.status_code in (400, 403)


def test_one_tab_too_many_is_turned_away_until_another_closes(served: Served) -> None:
    served.until_empty()
    with served.open() as first, served.open() as second:
        rerun(first)
        rerun(second)
        status, text = served.handshake()
        assert (status, text) == (503, server.FULL.format(limit=2))
        page = served.get("/", Accept="text/html")
        assert page.status_code == 503
        assert text in page.text
        assert served.get("/health").status_code == 200, "full is not ill"
        rerun(first)
    served.until_empty()


def test_the_page_names_no_other_server(served: Served) -> None:
    page = served.get("/", Accept="text/html").text
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert links
    assert [link for link in links if re.match(r"(https?:)?//", link)] == []


def test_vega_is_kept_for_good_and_sent_once(served: Served) -> None:
    answer = served.get(server.VEGA_URL, Accept_Encoding="gzip")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert len(answer.content) > 500_000
    assert int(answer.headers["content-length"]) < len(answer.content) / 2
    again = served.get(server.VEGA_URL, If_None_Match=answer.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    plain = served.get("/assets/vega.js", Accept_Encoding="identity")
    assert plain.content == answer.content
    assert "content-encoding" not in plain.headers
    assert "immutable" not in plain.headers["cache-control"], "an upgrade would never arrive"


# The gate by itself, over plain ASGI.


def ask(
    gate: server.Gate,
    kind: str,
    path: str,
    client: tuple[str, int],
    headers: dict[str, str] | None = None,
    **more: object,
) -> list[dict]:
    """What the gate sends for one request from `client`."""
    sent: list[dict] = []
    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "client": client,
        "headers": [
            (name.encode(), value.encode()) for name, value in ({"host": "localhost"} | (headers or {})).items()
        ],
        **more,
    }

    async def receive() -> dict:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))  # type: ignore[arg-type]
    return sent


async def through(scope: dict, receive: object, send: object) -> None:
    await send({"type": "passed", "headers": dict(scope.get("headers", []))})  # type: ignore[operator]


@pytest.fixture
def any_host() -> Iterator[None]:
    before = config.get_option("server.allowedHosts")
    config.set_option("server.allowedHosts", [])
    yield
    config.set_option("server.allowedHosts", before)


@pytest.mark.usefixtures("any_host")
@pytest.mark.parametrize(
    ("client", "headers", "passes"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("192.168.1.23", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),  # somebody behind a proxy here
        ("127.0.0.1", {"forwarded": "for=192.0.2.60"}, False),
    ],
)
def test_metrics_are_for_this_machine(client: str, headers: dict[str, str], passes: bool) -> None:
    sent = ask(server.Gate(through, server.House()), "http", server.METRICS, (client, 1), headers)  # type: ignore[arg-type]
    assert (sent[0]["type"] == "passed") is passes
    assert passes or sent[0]["status"] == 403


@pytest.mark.usefixtures("any_host")
def test_a_server_that_cannot_deny_by_http_closes_with_1013() -> None:
    gate = server.Gate(through, server.House(limit=1, sessions=1))  # type: ignore[arg-type]
    sent = ask(gate, "websocket", server.STREAM, ("127.0.0.1", 1))
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": server.FULL.format(limit=1)}]


@pytest.mark.usefixtures("any_host")
def test_streamlit_sees_an_accepted_origin_as_our_own() -> None:
    gate = server.Gate(through, server.House(public=(PUBLIC,)))  # type: ignore[arg-type]
    sent = ask(gate, "http", "/", ("127.0.0.1", 1), {"origin": f"https://{PUBLIC}"})
    assert sent[0]["headers"][b"origin"] == b"http://localhost"


@pytest.mark.usefixtures("any_host")
def test_a_little_after_a_tab_has_gone_its_runs_are_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.0)
    gone = threading.Event()
    house = server.House(left=gone.set)  # type: ignore[arg-type]

    async def tab(path: str, kind: str) -> None:
        scope = {"type": kind, "path": path, "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost")]}

        async def nothing(*_: object) -> dict:
            return {"type": "websocket.disconnect"}

        await server.Gate(through, house)(scope, nothing, nothing)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)

    asyncio.run(tab("/", "http"))
    assert not gone.is_set()
    asyncio.run(tab(server.STREAM, "websocket"))
    assert gone.wait(10) and house.sessions == 0


@pytest.mark.usefixtures("any_host")
@pytest.mark.parametrize(
    ("code", "is_awaited"), [(1001, False), (1000, False), (1005, True), (1006, True), (None, True)]
)
def test_who_said_no_goodbye_is_expected_back(
    monkeypatch: pytest.MonkeyPatch, code: int | None, is_awaited: bool
) -> None:
    """A browser says goodbye when its tab is closed, and a network that goes says nothing."""
    clock = Clock(1e9)
    monkeypatch.setattr(server.time, "monotonic", clock.monotonic)
    house = server.House()  # type: ignore[arg-type]
    message = ForwardMsg()
    message.new_session.initialize.session_id = "anna"

    async def app(_: object, receive: Callable[[], Awaitable[dict]], send: Callable[[dict], Awaitable[None]]) -> None:
        await send({"type": "websocket.send", "bytes": message.SerializeToString()})
        await receive()

    async def tab() -> None:
        async def receive() -> dict:
            return {"type": "websocket.disconnect", "code": code}

        async def send(_: dict) -> None:
            pass

        scope = {"type": "websocket", "path": server.STREAM, "client": ("127.0.0.1", 1), "headers": []}
        await server.Gate(app, house)(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(tab())
    assert house.awaited() == ({"anna"} if is_awaited else set())
    clock.now += server.GRACE_SECONDS
    assert house.awaited() == set()


def test_only_closed_tabs_give_their_runs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those whose network is gone for a moment, nor the server's own: pictures of cards were lost to that."""
    given_up: list[str] = []
    held = {"here", "closed", "awaited", runs.WARM_UP, runs.CARDS}
    jobs = SimpleNamespace(sessions=lambda: held, release=given_up.append)
    monkeypatch.setattr(runs, "server_jobs", lambda: jobs)
    active = SimpleNamespace(is_active_session=lambda session: session == "here")
    monkeypatch.setattr(runs.runtime, "get_instance", lambda: active)
    runs.release_absent({"awaited"})
    assert given_up == ["closed"]


@pytest.mark.parametrize(
    ("session", "given_up"), [("here", []), ("awaited", []), ("closed", ["closed"])], ids=lambda value: str(value)
)
def test_what_a_script_asks_for_after_its_tab_was_closed_is_given_up(monkeypatch, session, given_up):
    """The sweep after a tab has gone may come before the last of what its script submits."""
    released: list[str] = []
    monkeypatch.setattr(runs, "server_jobs", lambda: SimpleNamespace(release=released.append))
    active = SimpleNamespace(is_active_session=lambda session: session == "here")
    monkeypatch.setattr(runs, "runtime", SimpleNamespace(exists=lambda: True, get_instance=lambda: active))
    house = server.House(lost={"awaited": time.monotonic() + 60.0})
    monkeypatch.setattr(runs, "present_house", lambda: house)
    runs._give_up_if_gone(session)
    assert released == given_up


def test_a_script_that_waits_for_a_run_stops_when_nobody_looks_any_more(monkeypatch):
    """Counted in looks: it waits for ten, and is told at the third."""
    waits: list[float] = []
    job = SimpleNamespace(ends_within=waits.append, finished=lambda: False)

    def told() -> None:
        if len(waits) == 3:
            raise StopException

    monkeypatch.setattr(runs, "get_run_yield_check", lambda: told)
    with pytest.raises(StopException):
        runs.wait_for({"run": job}, 10 * runs.LOOK_SECONDS)  # type: ignore[dict-item]
    assert len(waits) == 3 and max(waits) <= runs.LOOK_SECONDS


class Clock:
    """A clock that moves when somebody sleeps, in place of the `time` module and of an event."""

    def __init__(self, until: float) -> None:
        self.now, self.until = 0.0, until

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self.until


def test_a_hasty_tab_is_slowed_after_its_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    paced, clock, _ = hasty(monkeypatch, lambda number: b"")

    async def count(seconds: float) -> int:
        taken = 0
        while clock.now <= 1000.0 + seconds:
            await paced()
            taken += 1
        return taken

    assert asyncio.run(count(5.0)) == server.BURST + 5 * server.RERUNS_PER_SECOND + 1


def hasty(monkeypatch: pytest.MonkeyPatch, content: Callable[[int], bytes], count: int = 10**9, rate: float = 50.0):
    """A tab that sends `count` messages, `rate` a second from the time 1000, and then says goodbye."""
    clock, sent = Clock(1e9), [0]
    clock.now = 1000.0

    async def receive() -> dict:
        clock.now = max(clock.now, 1000.0 + sent[0] / rate)
        sent[0] += 1
        if sent[0] > count:
            return {"type": "websocket.disconnect", "code": 1000}
        return {"type": "websocket.receive", "bytes": content(sent[0])}

    async def wait_for(asked: Coroutine, seconds: float) -> dict:
        if 1000.0 + sent[0] / rate > clock.now + seconds:
            asked.close()
            clock.now += seconds
            raise TimeoutError
        return await asked

    monkeypatch.setattr(server.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(server.asyncio, "wait_for", wait_for)
    return server.Gate(through, server.House()).paced(receive), clock, sent  # type: ignore[arg-type]


def asking(number: int, pressed: bool = False) -> bytes:
    message = BackMsg()
    message.rerun_script.query_string = f"seed={number}"
    if pressed:
        message.rerun_script.widget_states.widgets.add(id="$$ID-0-button", trigger_value=True)
    return message.SerializeToString()


def test_the_goodbye_of_a_hasty_tab_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 moves of a slider in a minute: what is taken is the newest each time, and nothing is left at the end."""
    paced, clock, _ = hasty(monkeypatch, asking, count=3000)

    async def taken() -> list[int]:
        numbers = []
        while (message := await paced())["type"] == "websocket.receive":
            numbers.append(int(BackMsg.FromString(message["bytes"]).rerun_script.query_string.split("=")[1]))
        return numbers

    numbers = asyncio.run(taken())
    assert numbers == sorted(numbers) and numbers[-1] > 2990
    assert len(numbers) <= server.BURST + 60 * server.RERUNS_PER_SECOND and clock.now < 1060.1


def test_presses_are_not_dropped_and_who_sends_too_many_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    paced, _, sent = hasty(monkeypatch, lambda number: asking(number, pressed=True))

    async def taken() -> tuple[list[str], dict]:
        queries = []
        while (message := await paced())["type"] == "websocket.receive":
            queries.append(BackMsg.FromString(message["bytes"]).rerun_script.query_string)
        return queries, message

    queries, last = asyncio.run(taken())
    assert queries == [f"seed={number + 1}" for number in range(len(queries))]
    assert sent[0] - len(queries) == server.BEHIND + 1 and last == {"type": "websocket.disconnect", "code": 1008}


def of_widget(name: str) -> bytes:
    """A request of a page with one widget of that name."""
    request = BackMsg()
    request.rerun_script.widget_states.widgets.add(id=name, string_value="x")
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"text": "x"}, 1003),
        ({"bytes": of_widget("\x00" * 100)}, 1007),
        ({"bytes": of_widget("state/label_noise")}, 1007),
    ],
)
def test_what_no_page_sends_is_shown_out_before_streamlit_fails_on_it(sent: dict, code: int) -> None:
    async def receive() -> dict:
        return {"type": "websocket.receive", **sent}

    paced = server.Gate(through, server.House()).paced(receive)  # type: ignore[arg-type]
    assert asyncio.run(paced()) == {"type": "websocket.disconnect", "code": code}  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"\xff", of_widget("$$ID-0-key"), of_widget("$$STREAMLIT_INTERNAL"), asking(1)])
def test_what_a_page_may_send_passes_and_what_is_no_message_is_left_to_streamlit(content: bytes) -> None:
    assert server.refused({"bytes": content}) is None


@pytest.mark.parametrize("earlier", [{"text": "x"}, {"bytes": b"\xff"}, {"bytes": asking(1, pressed=True)}])
def test_what_is_no_plain_request_is_superseded_by_none(earlier: dict) -> None:
    assert server.superseded({"bytes": asking(1)}, {"bytes": asking(2)})
    assert not server.superseded(earlier, {"bytes": asking(2)})
    assert not server.superseded({"bytes": asking(1)}, {"text": "x"})


def test_the_janitor_waits_for_a_quiet_moment_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def sweeps(busy_until: float) -> list[tuple[float, int]]:
        clock, times = Clock(until=200.0), []

        class Busy(server.House):
            last_message = property(  # type: ignore[assignment]
                lambda self: clock.now if clock.now < busy_until else busy_until, lambda self, value: None
            )

        monkeypatch.setattr(server.time, "monotonic", clock.monotonic)
        monkeypatch.setattr(server.gc, "collect", lambda generation=2: times.append((clock.now, generation)))
        monkeypatch.setattr(server.gc, "freeze", lambda: None)
        server.janitor(Busy(), lambda: None, lambda: None, clock)  # type: ignore[arg-type]
        return times

    assert sweeps(0.0) == [(0.0, 2), *((20.0 * n, 2) for n in range(1, 10))]
    assert sweeps(30.0)[:2] == [(0.0, 2), (31.0, 2)]
    assert sweeps(1e9) == [(0.0, 2), (80.0, 1), (160.0, 1)], "what is old waits for a quiet moment"


# What it says when it cannot start.


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert server.main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_busy_port_is_named_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with net.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        message = refusal(capsys, "--port", str(port))
    assert f"Port {port} on 127.0.0.1 is in use" in message
    assert "make run PORT=" in message


@pytest.mark.parametrize("port", ["eighty", "-1", "65536", "", "8501.0"])
def test_a_port_that_is_none_is_named(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert f"PORT={port} is not a port" in refusal(capsys, f"--port={port}")


def test_a_host_that_is_not_ours_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--host", "198.51.100.7", "--port", "0")
    assert "HOST=198.51.100.7 is not an address of this machine" in message
    assert "0.0.0.0" in message
    assert "HOST=no..host is not a known address" in refusal(capsys, "--host", "no..host", "--port", "0")


@pytest.mark.parametrize("text", ["many", "0", "-3", "²"])
def test_a_session_limit_that_is_none_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("CHALKLINE_SESSIONS", text)
    assert f"CHALKLINE_SESSIONS={text}" in refusal(capsys, "--port", "0")


@pytest.mark.parametrize("name", ["LIVE_SECONDS", "LIVE_MB", "SESSION_SECONDS", "SESSION_MB", "FREE_MB"])
def test_a_limit_that_is_none_is_named(name: str) -> None:
    """The limits are read once, when the server starts."""
    environment = os.environ | {f"CHALKLINE_{name}": "-1"}
    command = [sys.executable, "-m", "app.server", "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"CHALKLINE_{name}=-1 is not a positive number: give one such as 60, or leave it out.\n"


def test_own_addresses_can_be_bound() -> None:
    for address in net.own_addresses():
        with socket.socket() as sock:
            sock.bind((address, 0))


def test_no_answer_waits_for_the_acknowledgement_of_the_one_before():
    """Nagle's algorithm is off on what the server accepts: with it a second message waits 40 ms."""

    async def accepted() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with net.listen("127.0.0.1", 0) as sock:
            async with await asyncio.start_server(greet, sock=sock):
                _, writer = await asyncio.open_connection(*sock.getsockname())
                writer.close()
                return await told

    assert asyncio.run(accepted()) != 0


def test_messages_are_compressed_at_the_lowest_level():
    async def silent(_scope: object, _receive: object, _send: object) -> None:
        """Says nothing."""

    async def level() -> int:
        settled = uvicorn.Config(silent, ws=server.Lightly)
        settled.load()
        (extension,) = server.Lightly(settled, ServerState(), {}).conn.available_extensions
        return int(extension.compress_settings["level"])

    assert asyncio.run(level()) == 1
