"""A small reverse proxy that does what a `location` block of nginx says, in front of a server, with TLS or without.

It knows the directives that docs/classroom.md uses and refuses any other, so that what is tested is what is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_BYTES = 64 * 1024
WEBSOCKET = {"host": "$http_host", "upgrade": "$http_upgrade", "connection": "upgrade"}  # the least that works
SILENT = ("proxy_http_version", "proxy_read_timeout", "proxy_buffering")  # of no account here


@dataclass
class Location:
    """What a block says: below which path, to where, and with which headers."""

    path: str
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def location_of(block: str) -> Location:
    """The location of an nginx block. Raises ValueError for what this proxy does not know."""
    whole = re.fullmatch(r"\s*location (\S+) \{(.*)\}\s*", block, re.S)
    if whole is None:
        raise ValueError(f"this is no location block: {block}")
    found = Location(whole[1])
    for directive in filter(None, (line.strip().rstrip(";") for line in whole[2].splitlines())):
        name, _, rest = directive.partition(" ")
        if name == "proxy_pass":
            found.target = rest
        elif name == "proxy_set_header":
            header, value = rest.split(" ", 1)
            found.headers[header.lower()] = value.strip('"')
        elif name not in SILENT:
            raise ValueError(f"this proxy does not know {directive!r}")
    return found


class Proxy:
    """The proxy, in a thread of its own; `cut` ends every connection and refuses new ones until `mend`."""

    def __init__(self, location: Location, upstream: str, certificate: ssl.SSLContext | None = None):
        self.location, self._upstream = location, urlsplit(upstream)
        self._certificate = certificate
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def url(self) -> str:
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://localhost:{self._port}{self.location.path.rstrip('/')}"

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        """End what is under way, and wait until it has ended."""
        self._cut()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = asyncio.start_server(self._one, "127.0.0.1", 0, ssl=self._certificate)
        server = self._loop.run_until_complete(listening)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection carries one request, or one websocket for as long as it lives."""
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if self._is_cut:
                writer.transport.abort()
                return
            head = await reader.readuntil(b"\r\n\r\n")
            sent = self._rewritten(head.decode("latin-1"))
            if sent is None:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                there, back = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
                self._open.add(back)
                back.write(sent.encode("latin-1"))
                await asyncio.gather(_pour(reader, back), _pour(there, writer))
                self._open.discard(back)
            await writer.drain()
        self._open.discard(writer)
        writer.close()

    def _rewritten(self, head: str) -> str | None:
        """The head as the upstream gets it; none for a path outside of the location."""
        request, *lines = head.rstrip().split("\r\n")
        method, path, version = request.split(" ")
        if not path.startswith(self.location.path):
            return None
        given = dict(line.split(": ", 1) for line in lines)
        own = {name.lower(): (name, value) for name, value in given.items()}
        upgrade = own.get("upgrade", ("", ""))[1]
        # As nginx: these two are not passed on unless a directive says so, and an empty value sends no header.
        for name in ("connection", "upgrade"):
            own.pop(name, None)
        meanings = {"$http_host": own["host"][1], "$http_upgrade": upgrade, "$remote_addr": "192.0.2.7"}
        own["host"] = ("Host", self._upstream.netloc)  # what nginx sends where nothing is said
        for name, value in self.location.headers.items():
            own[name] = (name, meanings.get(value, value))
        if not upgrade:
            own["connection"] = ("Connection", "close")
        path = urlsplit(self.location.target).path + path.removeprefix(self.location.path)
        kept = "".join(f"{name}: {value}\r\n" for name, value in own.values() if value)
        return f"{method} {path} {version}\r\n{kept}\r\n"


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(HEAD_BYTES):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        else:
            sink.close()
