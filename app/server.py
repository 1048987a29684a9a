"""The server: one process, the Streamlit app inside an ASGI app of our own.

What is added around Streamlit: a gate (whom and how many we answer), a janitor (memory), `/health`, and
Vega's scripts for the players. `python -m app.server` starts it from any working directory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import ipaddress
import logging
import os
import socket
import sys
import threading
import time
import tomllib
import webbrowser
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app import net
from app.house import SESSIONS, House, built, present_house
from app.vega import VEGA_VERSION, vega

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "app" / "main.py"
# What the script imports, and what its first table would.
LOADED = (
    "app.home",
    "app.ledger",
    "app.room.frame",
    "app.room.panel",
    "app.runs",
    "app.sweeps",
    "pandas",
    "pyarrow.pandas_compat",
)
STREAM = "/_stcore/stream"
METRICS = "/_stcore/metrics"
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")

RERUNS_PER_SECOND = 8.0  # of one tab; a faster sender waits, and so slows only itself
BURST = 60  # messages that a tab may send at once before it is slowed
BEHIND = 200  # messages that may wait for that
INCOMING_BYTES = 8 * 2**20  # one message from a browser; widgets' states are a few kB
LINGER_SECONDS = 0.5  # so long after a tab was closed its runs are given up; one that comes back asks again
GRACE_SECONDS = 15.0  # so long after its network was lost; the browser tries again after 0.5, 1, 2, 4 and 8 seconds
TOO_FAST = 1008  # how one that is `BEHIND` is shown out
NO_TEXT = 1003  # and one that sends text, which no page of ours does
FORGED = 1007  # and one that speaks of a widget that no page can have
WIDGET = "$$"  # how the names of Streamlit's widgets begin, its own among them
GOODBYES = (
    1000,
    1001,
    TOO_FAST,
    NO_TEXT,
    FORGED,
)  # how a browser closes a tab's websocket, or leaves the page; and how we do
PRESSES = ("trigger_value", "string_trigger_value", "json_trigger_value", "chat_input_value")  # each counts
JANITOR_SECONDS = 20.0
QUIET_SECONDS = 1.0  # no message for so long counts as idle
PATIENCE_SECONDS = 60.0  # a server that is never idle is swept all the same, of what is young

FULL = "This Chalkline server is full ({limit} open pages): try again in a minute."

VEGA_URL = f"/assets/vega.js?v={VEGA_VERSION}"

logger = logging.getLogger("chalkline.server")


class Gate:
    """ASGI middleware: whom we answer, how many, and how fast one of them may ask.

    Streamlit checks the host name for its websocket only, and judges a foreign Origin by asking a server on
    the internet for our own address, for up to two seconds during which nobody is served: hence both checks
    are made here, first.
    """

    def __init__(self, app: ASGIApp, house: House) -> None:
        self.app = app
        self.house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
        elif scope["type"] == "websocket" and scope["path"] == STREAM:
            self.house.sessions += 1
            line = Line(self.house)
            try:
                await self.app(same_origin(scope), line.heard(self.paced(receive)), line.said(self.noted(send)))
            finally:
                self.house.sessions -= 1
                line.gone()
                wait = LINGER_SECONDS + (GRACE_SECONDS if line.session in self.house.lost else 0.0)
                asyncio.get_running_loop().call_later(wait, self._left)
        else:
            await self.app(same_origin(scope), receive, send)

    def _left(self) -> None:
        threading.Thread(target=self.house.left, name="chalkline-left", daemon=True).start()

    def refusal(self, scope: Scope) -> Response | None:
        """The response that turns a request away, or none."""
        headers = Headers(scope=scope)
        host, origin, path = headers.get("host"), headers.get("origin"), scope["path"]
        if path == "/health":
            return None  # says one word, and load balancers ask by number
        if not is_host_allowed(host):
            return PlainTextResponse(
                f"This server does not answer to the name {host!r}: start it with CHALKLINE_HOSTS set to the "
                "names under which it is reached, separated by commas.",
                421,
            )
        if origin is not None and origin.partition("://")[2] not in (host, *self.house.public):
            return PlainTextResponse("Another site's pages may not use this server.", 403)
        if path == METRICS and not (
            on_this_machine(scope["client"]) and not any(name in headers for name in FORWARDED)
        ):
            return PlainTextResponse("The metrics are for this machine only.", 403)
        if self.house.sessions >= self.house.limit:
            sentence, again = FULL.format(limit=self.house.limit), {"Retry-After": "20"}
            if path == STREAM:
                return PlainTextResponse(sentence, 503, again)
            if "text/html" in headers.get("accept", ""):
                page = f'<meta http-equiv="refresh" content="20"><title>Chalkline</title><p>{sentence}</p>'
                return HTMLResponse(page, 503, again)
        return None

    def paced(self, receive: Receive) -> Receive:
        """`receive`, at most `RERUNS_PER_SECOND` messages a second after a first `BURST`.

        What comes while a message is held back is taken at once, so that a goodbye is not heard behind a minute of
        requests. A request that a later one supersedes is dropped; who is `BEHIND` all the same is shown out.
        """
        due, waiting = 0.0, deque[Message]()

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and (code := refused(message)) is not None:
                return {"type": "websocket.disconnect", "code": code}
            return message

        async def paced() -> Message:
            nonlocal due
            if not waiting:
                waiting.append(await heard())
            now = time.monotonic()
            if waiting[0]["type"] != "websocket.receive":
                return waiting.popleft()
            self.house.last_message = now
            due = max(due, now - BURST / RERUNS_PER_SECOND) + 1 / RERUNS_PER_SECOND
            while due > now:
                try:
                    later = await asyncio.wait_for(heard(), due - now)
                except TimeoutError:
                    break
                if later["type"] != "websocket.receive":
                    return later
                if superseded(waiting[-1], later):
                    waiting.pop()
                waiting.append(later)
                if len(waiting) > BEHIND:
                    return {"type": "websocket.disconnect", "code": TOO_FAST}
                now = time.monotonic()
            return waiting.popleft()

        return paced

    def noted(self, send: Send) -> Send:
        async def noted(message: Message) -> None:
            self.house.last_message = time.monotonic()
            await send(message)

        return noted


def refused(message: Message) -> int | None:
    """The code with which a message is answered on which Streamlit would fail; none where it may pass."""
    if message.get("bytes") is None:
        return NO_TEXT
    try:
        request = BackMsg.FromString(message["bytes"])
    except DecodeError:
        return None  # which Streamlit answers itself
    widgets = request.rerun_script.widget_states.widgets if request.WhichOneof("type") == "rerun_script" else ()
    return None if all(widget.id.startswith(WIDGET) for widget in widgets) else FORGED


def superseded(earlier: Message, later: Message) -> bool:
    """Whether the page that `earlier` asks for is drawn anew by `later`, and nothing was pressed for it."""
    try:
        first, second = (BackMsg.FromString(message["bytes"]) for message in (earlier, later))
    except (KeyError, TypeError, DecodeError):
        return False
    if not all(
        one.WhichOneof("type") == "rerun_script" and not one.rerun_script.fragment_id for one in (first, second)
    ):
        return False
    return not any(widget.WhichOneof("value") in PRESSES for widget in first.rerun_script.widget_states.widgets)


class Line:
    """One websocket of a tab: whose session it carries, and how it ended."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.session = ""
        self.code: int | None = None

    def gone(self) -> None:
        """Note whether its tab is expected back: before Streamlit hears of it, which takes the session for closed."""
        self.house.lost.pop(self.session, None)
        if self.session and self.code not in GOODBYES:
            self.house.lost[self.session] = time.monotonic() + GRACE_SECONDS

    def heard(self, receive: Receive) -> Receive:
        async def heard() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.code = message.get("code")
                self.gone()
            return message

        return heard

    def said(self, send: Send) -> Send:
        """`send`, which reads the session's name in the first message that has it."""

        async def said(message: Message) -> None:
            if not self.session and message.get("bytes"):
                self.session = ForwardMsg.FromString(message["bytes"]).new_session.initialize.session_id
            await send(message)

        return said


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or denies a websocket with the same status and sentence."""
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    channel = WebSocket(scope, receive, send)
    await channel.receive()  # the handshake, which must be taken before it can be answered
    if "websocket.http.response" in scope.get("extensions", {}):
        await channel.send_denial_response(response)
    else:
        await channel.close(1013 if response.status_code == 503 else 1008, bytes(response.body).decode())


def same_origin(scope: Scope) -> Scope:
    """The scope with an accepted Origin written as our own.

    Behind a proxy the page's origin and our host name differ; Streamlit would look for its own address on
    the internet before it accepts that, and the gate has judged it already.
    """
    headers = Headers(scope=scope)
    if "origin" not in headers:
        return scope
    own = b"http://" + headers["host"].encode("latin-1")
    pairs = [(name, own if name == b"origin" else value) for name, value in scope["headers"]]
    return {**scope, "headers": pairs}


def on_this_machine(client: tuple[str, int] | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def settings(hosts: tuple[str, ...], public: tuple[str, ...] = (), port: int | None = None) -> dict[str, Any]:
    """Streamlit's options: those of `.streamlit/config.toml`, by dotted name, and those of the moment."""

    def flat(prefix: str, table: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for name, value in table.items():
            dotted = f"{prefix}.{name}" if prefix else name
            options |= flat(dotted, value) if isinstance(value, dict) else {dotted: value}
        return options

    with open(ROOT / ".streamlit" / "config.toml", "rb") as file:
        options = flat("", tomllib.load(file))
    options["server.allowedHosts"] = list(hosts)
    if port is not None:
        options["server.port"] = port
    return options


def vega_script(request: Request) -> Response:
    """`GET /assets/vega.js`: kept by the browser for good when asked for by version, as `VEGA_URL` does.

    Without the version it is kept for an hour: an upgrade must not meet a script of the year before.
    """
    plain, packed, tag = vega()
    by_version = request.query_params.get("v") == VEGA_VERSION
    keep = "public, max-age=31536000, immutable" if by_version else "public, max-age=3600"
    headers = {"Cache-Control": keep, "ETag": tag, "Vary": "Accept-Encoding"}
    known = [item.strip().removeprefix("W/") for item in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    body = plain
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = packed, "gzip"
    return Response(body, media_type="text/javascript", headers=headers)


def warm_up() -> None:
    """Makes what the first page needs and loads every lab's kernels, theory and pictures, so that no user waits.

    `python -m sims warm` compiles them beforehand; here they are read from its cache.
    """
    from altair.utils import schemapi

    from app.frame.cards import first_picture
    from app.frame.runs import WARM_UP, server_jobs
    from sims import engine
    from sims.engine.budget import lab_rates
    from sims.engine.spawned import forking
    from sims.engine.workers import Workers

    forking()  # it loads the labs while this process loads the pages
    for module in LOADED:
        importlib.import_module(module)
    schemapi.disable_debug_mode()  # the tests validate what is drawn, word by word; here nobody waits for that
    for lab in engine.all_labs():
        lab_rates(lab)
    server_jobs().hire(Workers())
    for lab in engine.all_labs():
        for params in lab.runs(lab.presets[0]).values():
            _ = server_jobs().submit(lab, params, WARM_UP).result().claims
        first_picture(lab)
    server_jobs().release(WARM_UP)
    vega()


def release_absent() -> None:
    """Cancels what closed tabs were waiting for, and forgets rooms that have ended."""
    from app.frame import runs, sweep_jobs
    from app.room import me

    house = present_house()
    awaited = set() if house is None else house.awaited()
    runs.release_absent(awaited)
    sweep_jobs.release_absent(awaited)
    rooms = me.rooms()
    if rooms is not None:
        rooms.sweep()


def janitor(
    house: House,
    warm: Callable[[], None],
    ready: Callable[[], None],
    stop: threading.Event,
    tidy: Callable[[], None] = release_absent,
) -> None:
    """Warms the server up, then collects garbage while nobody waits.

    Streamlit's own collection after every rerun (`runner.postScriptGC`) holds the interpreter and with it
    every session; once in a while and in quiet moments is enough. What is alive after the warm-up stays:
    freezing keeps the collector from walking through it again.
    """
    try:
        warm()
        state = "ok"
    except Exception:
        logger.exception("The warm-up failed; /health will say so and the pages may not work.")
        state = "the warm-up failed; see the server's log"
    gc.collect()  # which holds the interpreter: before anybody comes
    gc.freeze()
    house.state = state
    if state == "ok":
        ready()
    while not stop.wait(JANITOR_SECONDS):
        patience = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() - house.last_message < QUIET_SECONDS and time.monotonic() < patience:
            if stop.wait(QUIET_SECONDS):
                return
        quiet = time.monotonic() - house.last_message >= QUIET_SECONDS
        gc.collect(2 if quiet else 1)  # walking through everything that is old holds every tab for a second
        tidy()


def build(
    script: str | Path = SCRIPT,
    *,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    public: tuple[str, ...] = (),
    sessions: int = SESSIONS,
    port: int | None = None,
    warm: Callable[[], None] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """The ASGI app over one Streamlit script. One a process: Streamlit's configuration is the process's.

    Args:
        hosts: host names that are answered to; `public`, those of them that a proxy shows to the world.
        sessions: how many tabs may be open at once.
        warm: run in a thread at the start (`warm_up` by default); until it returns `/health` says 503.
            `ready` runs after it.
    """
    config.get_config_options(force_reparse=True)
    for name, value in settings(hosts, public, port).items():
        config.set_option(name, value)
    house = built(House(public=public, limit=sessions, left=release_absent))

    def health(_: Request) -> Response:
        return PlainTextResponse(house.state, 200 if house.state == "ok" else 503)

    @contextlib.asynccontextmanager
    async def lifespan(_: st.App) -> AsyncIterator[None]:
        stop = threading.Event()
        keeper = threading.Thread(
            target=janitor, args=(house, warm or warm_up, ready, stop), name="chalkline-janitor", daemon=True
        )
        keeper.start()
        try:
            yield
        finally:
            stop.set()

    return st.App(
        Path(script).resolve(),
        routes=[Route("/health", health), Route("/assets/vega.js", vega_script)],
        middleware=[Middleware(Gate, house=house)],
        lifespan=lifespan,
    )


def has_display() -> bool:
    """Whether a person sits before this machine: a terminal and a screen, and no build service."""
    screen = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return screen and sys.stdout.isatty() and not os.environ.get("CI")


def session_limit() -> int:
    """`CHALKLINE_SESSIONS`, else `SESSIONS`. Raises `net.CannotListen` when it is not a positive number."""
    text = os.environ.get("CHALKLINE_SESSIONS", str(SESSIONS))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise net.CannotListen(f"CHALKLINE_SESSIONS={text} is not a number of sessions: give 1 or more.")
    return int(text)


def log_runs() -> None:
    """One line of JSON on standard error for every run that is computed or read, nothing in it on who asked."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    runs = logging.getLogger("chalkline.runs")
    runs.setLevel(logging.INFO)
    runs.propagate = False
    runs.handlers = [handler]


class Lightly(WebSocketsSansIOProtocol):
    """Websockets whose messages are compressed at the lowest level: a third of the time for a tenth more bytes."""

    def __init__(self, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        for extension in self.conn.available_extensions:
            extension.compress_settings["level"] = 1


def serve(app: ASGIApp, sock: socket.socket) -> None:
    """Runs the app on a listening socket until it is interrupted."""
    settled = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # the gate wants the peer that is really there
        server_header=False,
        ws=Lightly,
        ws_max_size=INCOMING_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        timeout_graceful_shutdown=3,
    )
    log_runs()
    with contextlib.suppress(KeyboardInterrupt), sock:
        uvicorn.Server(settled).run(sockets=[sock])


def main(argv: list[str] | None = None, script: str | Path = SCRIPT) -> int:
    """Serves until interrupted. Returns 0, or 2 after one sentence on what cannot be."""
    parser = argparse.ArgumentParser(prog="python -m app.server", description="Serves Chalkline.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; 0.0.0.0 for the whole network")
    parser.add_argument("--port", default="8501", help="port to bind; 0 for any free one")
    arguments = parser.parse_args(argv)
    public = tuple(filter(None, (name.strip() for name in os.environ.get("CHALKLINE_HOSTS", "").split(","))))
    try:
        importlib.import_module("app.frame.limits")  # reads its settings
        limit = session_limit()
        sock = net.listen(arguments.host, arguments.port)
    except (net.CannotListen, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    places = net.addresses(sock, public)

    def ready() -> None:
        from app.frame import cards
        from sims.engine import all_labs

        cards.draw_missing(all_labs())
        if has_display():
            webbrowser.open(places.here or places.network[0])

    number = sock.getsockname()[1]
    app = build(script, hosts=places.hosts, public=public, sessions=limit, port=number, ready=ready)
    print(net.banner(places), flush=True)
    serve(app, sock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
