"""Browser tabs without a browser: websocket clients that keep what a page shows, press its buttons, and poll.

A tab does by hand what Streamlit's frontend does by itself: it sends the states of its widgets with every request,
keeps the address that the server writes, and asks again for the fragments that want to be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

STREAM = "/_stcore/stream"
PATIENCE_SECONDS = 180.0  # a hung server fails its test, however slow the machine
# Of a timer's request: nobody waits for its answer in a browser, and Streamlit drops one that meets the end of a run.
TIMER_SECONDS = 10.0


class Tab:
    """A tab at an address. `await tab.open()` loads it; `tab.url` is the address as the server has written it.

    `below` is the path below which a proxy shows the app, `trust` whom a secure connection believes.
    """

    def __init__(self, url: str, below: str = "", trust: ssl.SSLContext | None = None):
        parts = urlsplit(url)
        self.base = f"{parts.scheme}://{parts.netloc}{below}"
        self.page, self.query = parts.path.removeprefix(below).strip("/"), parts.query
        self._trust = trust
        self.polls = 0  # messages sent by the timers of fragments
        self.refused = 0  # attempts to come back while there was no network
        self.errors: list[str] = []
        self._channel: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._elements: dict[tuple[int, ...], tuple[str, Delta]] = {}  # by place: the fragment, what stands there
        self._folds: dict[str, str] = {}  # sections that are written when they are opened: label by id
        self._states: dict[str, WidgetState] = {}
        self._fragments: dict[str, float] = {}
        self._pages: dict[str, str] = {}
        self._session = ""
        self._page_hash = ""
        self._finished = asyncio.Condition()
        self._runs = 0
        self._seen: set[tuple[int, ...]] = set()  # places written since the run began

    @property
    def url(self) -> str:
        return f"{self.base}/{self.page}" + (f"?{self.query}" if self.query else "")

    # -- the connection --------------------------------------------------------------------------------------------

    async def open(self) -> Tab:
        """Connect, and load the page of the address."""
        await self.connect()
        await self._send(page_name=self.page)
        await self.settled(0)
        return self

    async def connect(self) -> None:
        """Open the websocket; a tab that had one before asks for its session back."""
        protocols = ["streamlit", "xsrf", self._session] if self._session else ["streamlit"]
        parts = urlsplit(self.base)
        self._channel = await connect(
            f"{parts.scheme.replace('http', 'ws')}://{parts.netloc}{parts.path}{STREAM}",
            subprotocols=protocols,
            origin=f"{parts.scheme}://{parts.netloc}",
            ssl=self._trust,
            max_size=None,
            compression=None,
            ping_interval=None,
        )
        self._reader = asyncio.create_task(self._read())

    async def cut(self) -> None:
        """The network is gone: the connection ends, and nobody says goodbye."""
        assert self._channel is not None and self._reader is not None
        self._channel.transport.abort()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def lost(self) -> None:
        """Wait until the connection has ended, whoever ended it."""
        assert self._reader is not None
        await asyncio.gather(self._reader, return_exceptions=True)

    async def reconnect(self) -> None:
        """What the frontend does when the network is back: the same session if there is one, and one rerun."""
        await self.connect()
        await self.rerun()

    async def come_back(self) -> None:
        """What the frontend does when the network has gone: try until it is back."""
        while True:
            try:
                await self.connect()
            except (OSError, InvalidHandshake, TimeoutError):
                self.refused += 1
                await asyncio.sleep(1.0)
            else:
                return await self.rerun()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    # -- what a user does ------------------------------------------------------------------------------------------

    async def rerun(self, **more: Any) -> None:
        """Have the page, or one fragment of it, run again, and wait until it has."""
        before = self._runs
        await self._send(**more)
        await self.settled(before)

    async def press(self, words: str) -> None:
        """Press the button with these words."""
        fragment, delta = self._find(lambda kind, one: kind == "button" and one.label == words, f"button {words!r}")
        state = WidgetState(id=delta.new_element.button.id, trigger_value=True)
        await self.rerun(fragment_id=fragment, _pressed=state)

    async def choose(self, words: str) -> None:
        """Take the answer with these words, of whichever group of answers has it."""

        def has(kind: str, one: Any) -> bool:
            return kind == "radio" and words in one.options

        fragment, delta = self._find(has, f"answer {words!r}")
        identity = delta.new_element.radio.id
        self._states[identity] = WidgetState(id=identity, string_value=words)
        await self.rerun(fragment_id=fragment)

    async def write(self, label: str, text: str) -> None:
        """Write into the text field of that label, and leave it."""
        fragment, delta = self._find(
            lambda kind, one: kind in ("text_input", "text_area") and one.label == label, f"field {label!r}"
        )
        one = getattr(delta.new_element, delta.new_element.WhichOneof("type"))
        self._states[one.id] = WidgetState(id=one.id, string_value=text)
        await self.rerun(fragment_id=fragment)

    async def switch(self, label: str, on: bool) -> None:
        """Turn the switch of that label."""
        fragment, delta = self._find(lambda kind, one: kind == "checkbox" and one.label == label, f"switch {label!r}")
        one = delta.new_element.checkbox
        self._states[one.id] = WidgetState(id=one.id, bool_value=on)
        await self.rerun(fragment_id=fragment)

    async def unfold(self, label: str) -> None:
        """Open the section of that label, as soon as it is there; what it holds is written then."""
        await self.until(lambda tab: label in tab._folds.values())
        identity = next(identity for identity, words in self._folds.items() if words == label)
        self._states[identity] = WidgetState(id=identity, bool_value=True)
        await self.rerun()

    async def visit(self, page: str) -> None:
        """Go to another page of the app by its menu."""
        self.query = ""
        (self._page_hash,) = [key for key, name in self._pages.items() if name == page]
        await self.rerun()

    async def poll(self) -> None:
        """What the timers of the page's fragments send, once."""
        for fragment in list(self._fragments):
            if fragment not in self._fragments:
                continue  # it went with the answer to the one before
            self.polls += 1
            before = self._runs
            await self._send(fragment_id=fragment, is_auto_rerun=True)
            with contextlib.suppress(TimeoutError):
                await self.settled(before, TIMER_SECONDS)

    async def until(self, condition: Callable[[Tab], bool]) -> None:
        """Poll until the page shows it; the patience of one poll is the bound of each."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not condition(self):
            assert asyncio.get_running_loop().time() < deadline, f"it never came; the page shows: {self.text[:2000]}"
            await self.poll()
            if not condition(self):
                await asyncio.sleep(0.1)

    # -- what the page shows ---------------------------------------------------------------------------------------

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Kind and content of each element, in order."""
        for place in sorted(self._elements):
            element = self._elements[place][1].new_element
            kind = element.WhichOneof("type")
            if kind is not None:
                yield kind, getattr(element, kind)

    @property
    def text(self) -> str:
        """All that can be read."""
        found = []
        for kind, one in self.elements():
            found += [getattr(one, name) for name in ("body", "label", "text") if hasattr(one, name)]
            found += list(one.options) if kind == "radio" else []
            found += [one.code_text] if kind == "code" else []
        return "\n".join(text for text in found if isinstance(text, str))

    @property
    def buttons(self) -> list[str]:
        return [one.label for kind, one in self.elements() if kind == "button"]

    @property
    def intervals(self) -> list[float]:
        """Seconds between the requests of each timer of the page."""
        return list(self._fragments.values())

    # -- inside ----------------------------------------------------------------------------------------------------

    def _find(self, wanted: Callable[[str, Any], bool], words: str) -> tuple[str, Delta]:
        for place in sorted(self._elements):
            fragment, delta = self._elements[place]
            kind = delta.new_element.WhichOneof("type")
            if kind is not None and wanted(kind, getattr(delta.new_element, kind)):
                return fragment, delta
        raise AssertionError(f"there is no {words}; the page shows: {self.text[:2000]}")

    async def _send(
        self, *, page_name: str = "", fragment_id: str = "", is_auto_rerun: bool = False, _pressed: Any = None
    ) -> None:
        assert self._channel is not None
        message = BackMsg()
        request = message.rerun_script
        request.query_string, request.page_script_hash, request.page_name = self.query, self._page_hash, page_name
        request.fragment_id, request.is_auto_rerun = fragment_id, is_auto_rerun
        request.widget_states.widgets.extend([*self._states.values(), *([_pressed] if _pressed else [])])
        request.context_info.url = f"{self.base}/{self.page}"
        await self._channel.send(message.SerializeToString())

    async def settled(self, before: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a run to end that was not over before; one that ends for another to begin does not count."""
        async with asyncio.timeout(seconds), self._finished:
            await self._finished.wait_for(lambda: self._runs > before)

    async def _read(self) -> None:
        assert self._channel is not None
        try:
            async for data in self._channel:
                assert isinstance(data, bytes)
                await self._take(ForwardMsg.FromString(data))
        except ConnectionClosed:
            return

    async def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._session = message.new_session.initialize.session_id or self._session
            self._page_hash = message.new_session.page_script_hash
            self.page = self._pages.get(self._page_hash, self.page)
            self._seen = set()
        elif kind == "navigation":
            self._page_hash = message.navigation.page_script_hash
            self._pages = {page.page_script_hash: page.url_pathname for page in message.navigation.app_pages}
            self.page = self._pages[self._page_hash]
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "auto_rerun":
            self._fragments[message.auto_rerun.fragment_id] = message.auto_rerun.interval
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self._fragments.pop(fragment, None)
        elif kind == "delta":
            self._put(tuple(message.metadata.delta_path), message.delta)
        elif kind == "script_finished":
            await self._end(message.script_finished)

    def _put(self, place: tuple[int, ...], delta: Delta) -> None:
        self._seen.add(place)
        if delta.WhichOneof("type") == "add_block":
            self._elements.pop(place, None)  # where an element was
            section = delta.add_block.expandable
            if section.id:
                self._folds[section.id] = section.label
        elif delta.WhichOneof("type") == "new_element":
            self._elements = {at: one for at, one in self._elements.items() if at[: len(place)] != place}
            self._elements[place] = delta.fragment_id, delta
            element = delta.new_element
            one = getattr(element, element.WhichOneof("type") or "empty")
            if element.WhichOneof("type") == "exception":
                self.errors.append(f"{one.type}: {one.message}")
            if getattr(one, "set_value", False):  # the server says what the widget holds
                self._hold(element.WhichOneof("type"), one)

    def _hold(self, kind: str, one: Any) -> None:
        state = WidgetState(id=one.id)
        if kind == "checkbox":
            state.bool_value = one.value
        elif kind in ("radio", "selectbox"):
            state.string_value = one.raw_value
        elif kind == "button_group":
            state.string_array_value.data.extend(one.raw_values)
        elif kind in ("text_input", "text_area"):
            state.string_value = one.value
        else:
            return
        self._states[one.id] = state

    async def _end(self, status: int) -> None:
        early, fragment = ForwardMsg.FINISHED_EARLY_FOR_RERUN, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
        if status == early:
            return
        # What a run has not written again is gone: of the whole page, or of the fragment that ran.
        ran = {self._elements[place][0] for place in self._seen if place in self._elements} - {""}
        self._elements = {
            place: one
            for place, one in self._elements.items()
            if place in self._seen or (status == fragment and one[0] not in ran)
        }
        if status != fragment:
            shown = {fragment for fragment, _ in self._elements.values()}
            self._fragments = {key: every for key, every in self._fragments.items() if key in shown}
            # A widget that is gone is forgotten, as the frontend does: it would count as changed when it comes back.
            here = {getattr(one, "id", "") for _, one in self.elements()} | self._folds.keys()
            self._states = {identity: state for identity, state in self._states.items() if identity in here}
        async with self._finished:
            self._runs += 1
            self._finished.notify_all()
