"""A browser tab as the server sees it: a websocket that speaks Streamlit's protobuf and follows its rules.

No maintained tool speaks it; real browsers would need more of the machine than the server that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import websockets
from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

PATIENCE_SECONDS = 120.0  # an answer that takes longer is an error
KEPT = 100  # messages that a browser keeps, about
PROTOCOL = "streamlit"
NO_TOKEN = "PLACEHOLDER_AUTH_TOKEN"  # what a browser sends in the place of one when it names its session

Query = Mapping[str, str | Sequence[str]]


class Lost(Exception):
    """The connection ended, or no answer came."""


@dataclass
class Answer:
    """What one request came to: seconds to the first word and to the page at rest, and what the page says."""

    first: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    messages: int = 0
    crashes: list[str] = field(default_factory=list)  # exceptions shown in the page
    errors: list[str] = field(default_factory=list)  # what it says in red
    texts: list[str] = field(default_factory=list)

    def says(self, words: str) -> bool:
        return any(words in text for text in (*self.texts, *self.errors))


class Tab:
    """One tab. Not to be shared: requests of a tab come one after the other.

    Args:
        port: where the server listens on this machine.
        page: the page's path, such as `label_noise`; empty for the gallery.
    """

    def __init__(self, port: int, page: str = "") -> None:
        self.port, self.page = port, page
        self.session = ""
        self.query = ""
        self.widgets: dict[str, str] = {}  # the id of each widget on the page by its key
        self.states: dict[str, WidgetState] = {}  # what has been set so far, by id
        self._kept: dict[str, ForwardMsg] = {}  # large messages that the server need not send again, by hash
        self._socket: websockets.ClientConnection | None = None

    # -- the connection ------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, or come back with the session that it had. Raises Lost."""
        protocols = [PROTOCOL, *([NO_TOKEN, self.session] if self.session else [])]
        try:
            self._socket = await websockets.connect(
                f"ws://127.0.0.1:{self.port}/_stcore/stream",
                subprotocols=protocols,  # type: ignore[arg-type]
                max_size=None,
                ping_interval=None,
                compression=None,
                open_timeout=30,
            )
        except (OSError, websockets.WebSocketException, TimeoutError) as error:
            raise Lost(f"no connection: {error}") from error

    async def close(self) -> None:
        """Say goodbye, as a tab that is closed."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """Vanish without a word, as a laptop that leaves the network."""
        if self._socket is not None:
            self._socket.transport.abort()
            self._socket = None

    # -- requests ------------------------------------------------------------------------------------------------

    async def open(self, query: Query | None = None) -> Answer:
        """The page at an address: of the first visit, or of a link that is followed in the same tab."""
        if self._socket is None:
            await self.connect()
        self.query = urlencode(dict(query or {}), doseq=True)
        self.states.clear()
        return await self._ask()

    async def again(self) -> Answer:
        """The same once more, as after a reconnection."""
        if self._socket is None:
            await self.connect()
        return await self._ask()

    async def set(self, key: str, *numbers: float) -> Answer:
        """Move the slider of that key. Raises KeyError where the page has none."""
        await self.send(self.moved(key, *numbers))
        return await self.rest()

    def moved(self, key: str, *numbers: float) -> BackMsg:
        """The message of a slider that was moved."""
        identity = self.widgets[key]
        self.states[identity] = WidgetState(id=identity)
        self.states[identity].double_array_value.data.extend(numbers)
        return self._request()

    async def press(self, key: str) -> Answer:
        """Press the button of that key."""
        identity = self.widgets[key]
        message = self._request()
        message.rerun_script.widget_states.widgets.append(WidgetState(id=identity, trigger_value=True))
        await self.send(message)
        return await self.rest()

    async def _ask(self) -> Answer:
        await self.send(self._request())
        return await self.rest()

    def _request(self, fragment: str = "") -> BackMsg:
        while len(self._kept) > KEPT:  # only now: what a request names may be referred to until it is answered
            del self._kept[next(iter(self._kept))]
        message = BackMsg()
        request = message.rerun_script
        request.query_string, request.page_name = self.query, self.page
        request.widget_states.widgets.extend(self.states.values())
        request.cached_message_hashes.extend(self._kept)
        if fragment:
            request.fragment_id, request.is_auto_rerun = fragment, True
        return message

    async def send(self, message: BackMsg) -> None:
        if self._socket is None:
            raise Lost("not connected")
        try:
            self.asked = time.perf_counter()
            await self._socket.send(message.SerializeToString())
        except websockets.WebSocketException as error:
            raise Lost(str(error)) from error

    async def receive(self) -> ForwardMsg:
        if self._socket is None:
            raise Lost("not connected")
        try:
            self.received = await asyncio.wait_for(self._socket.recv(), PATIENCE_SECONDS)
        except (websockets.WebSocketException, TimeoutError) as error:
            raise Lost(f"no answer: {type(error).__name__} {error}") from error
        message: ForwardMsg = ForwardMsg.FromString(self.received)  # type: ignore[arg-type]
        if message.WhichOneof("type") == "ref_hash":
            known = ForwardMsg()
            known.CopyFrom(self._kept[message.ref_hash])
            known.metadata.CopyFrom(message.metadata)
            return known
        if message.metadata.cacheable and message.hash:
            self._kept[message.hash] = message
        return message

    async def rest(self) -> Answer:
        """Follow the answers until the page is at rest; a progress bar is asked for as often as a browser would."""
        start, answer, polled = self.asked, Answer(), None
        while True:
            message = await self.receive()
            kind = message.WhichOneof("type")
            answer.messages += 1
            answer.bytes += len(self.received)
            if not answer.first:
                answer.first = time.perf_counter() - start
            if kind == "new_session":
                self.session = message.new_session.initialize.session_id or self.session
                if not message.metadata.run.fragment_ids:
                    polled, answer.texts, answer.errors = None, [], []
                    self.widgets.clear()
            elif kind == "auto_rerun":
                polled = message.auto_rerun
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                self._see(message.delta.new_element, answer)
            elif kind == "script_finished":
                if message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                    answer.crashes.append("the script does not compile")
                elif message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    continue
                if polled is None:
                    answer.seconds = time.perf_counter() - start
                    return answer
                await asyncio.sleep(polled.interval)
                await self._socket.send(self._request(polled.fragment_id).SerializeToString())  # type: ignore[union-attr]

    def _see(self, element: object, answer: Answer) -> None:
        kind = element.WhichOneof("type")  # type: ignore[attr-defined]
        body = getattr(element, kind)
        identity = getattr(body, "id", "")
        if identity.startswith("$$ID-"):
            self.widgets[identity.split("-", 2)[2]] = identity
        if kind == "exception":
            answer.crashes.append(f"{body.type}: {body.message}")
        elif kind == "alert":
            (answer.errors if body.format == Alert.ERROR else answer.texts).append(body.body)
        elif kind in ("markdown", "heading"):
            answer.texts.append(body.body)
