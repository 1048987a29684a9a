"""Where the server listens, and under which addresses a person reaches it."""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import socket
from dataclasses import dataclass

import segno

# Never contacted: connecting a UDP socket sends nothing and only asks the routing table which of our own
# addresses would be used. One destination outside, and one in each private range.
ROUTES = ("192.0.2.1", "10.255.255.254", "172.31.255.254", "192.168.255.254")

WAY_OUT = {
    errno.EADDRINUSE: (
        "Port {port} on {host} is in use: stop what runs there or choose another port, "
        "for example `make run PORT={other}`."
    ),
    errno.EACCES: (
        "Port {port} may be opened by an administrator only: choose one above 1023, for example `make run PORT=8501`."
    ),
    errno.EADDRNOTAVAIL: (
        "HOST={host} is not an address of this machine: use 127.0.0.1 for this machine alone, "
        "0.0.0.0 for the whole network."
    ),
}


class CannotListen(Exception):
    """The address or the port cannot be had; the message is one sentence with the way out."""


@dataclass(frozen=True)
class Addresses:
    """What is printed, and the host names that are answered to.

    `here` is the address on this machine (none when it is not bound), `network` those for others, the
    public names first.
    """

    here: str | None
    network: tuple[str, ...]
    hosts: tuple[str, ...]


def listen(host: str, port: str | int) -> socket.socket:
    """A listening socket on `host` and `port` (0: any free one).

    Raises `CannotListen` with one sentence for a port that is no port, a host that is no address of this
    machine, or a port that is taken.
    """
    try:
        number = int(str(port))
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise CannotListen(f"PORT={port} is not a port: give a whole number from 1024 to 65535.")
    try:
        family, _, _, _, where = socket.getaddrinfo(host or "?", number, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise CannotListen(
            f"HOST={host} is not a known address: use 127.0.0.1 for this machine alone, 0.0.0.0 for the whole network."
        ) from None
    # TCP by name, or asyncio takes what it accepts for something else and leaves Nagle's algorithm on, with which the
    # second of two messages waits 40 ms for the browser's acknowledgement of the first.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A server that was just stopped leaves its connections in TIME_WAIT; they must not hold the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(2048)
    except OSError as problem:
        sock.close()
        other = number + 1 if number < 65535 else 8501
        sentence = WAY_OUT.get(problem.errno or 0, "Cannot listen on {host}, port {port}: {problem}.")
        text = sentence.format(host=host, port=number, other=other, problem=problem.strerror)
        raise CannotListen(text) from None
    return sock


def own_addresses() -> list[str]:
    """This machine's addresses on its networks (IPv4), the default route's first; no packet is sent."""
    found: list[str] = []
    for destination in ROUTES:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((destination, 9))
            except OSError:
                continue  # no route there: this machine is not on that network
            found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):  # a machine may not know its own name
        found += [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    usable = [ipaddress.ip_address(text) for text in dict.fromkeys(found)]
    return [str(ip) for ip in usable if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]


def addresses(sock: socket.socket, public: tuple[str, ...] = ()) -> Addresses:
    """The addresses under which a bound socket is reached; `public` are names given by the operator."""
    bound, port = sock.getsockname()[:2]
    ip = ipaddress.ip_address(bound)

    def url(host: str) -> str:
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    if ip.is_loopback:
        here, outside = url(bound), []
        hosts = [bound, "localhost"]
    elif ip.is_unspecified:
        here, outside = url("127.0.0.1"), own_addresses()
        hosts = ["127.0.0.1", "localhost", *outside]
    else:
        here, outside = None, [bound]
        hosts = [bound]
    named = [name for name in public if "*" not in name]
    network = tuple(url(host) for host in dict.fromkeys([*named, *outside]))
    return Addresses(here, network, tuple(dict.fromkeys([*hosts, *public])))


def banner(places: Addresses) -> str:
    """What is printed at the start: the addresses, and for a network a QR code of the first."""
    lines = ["", "  Chalkline"]
    if places.here:
        lines.append(f"  on this machine   {places.here}")
    lines += [f"  on the network    {address}" for address in places.network]
    if places.network:
        code = io.StringIO()
        segno.make(places.network[0], error="m", micro=False).terminal(out=code, border=2, compact=True)
        lines += ["", code.getvalue().rstrip("\n"), f"  {places.network[0]}", ""]
        lines.append("  Anybody on this network can open it; Ctrl+C stops it.")
    else:
        lines.append("  Only this machine can open it; for a class: make run HOST=0.0.0.0. Ctrl+C stops it.")
    return "\n".join(lines) + "\n"
