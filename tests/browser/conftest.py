"""A real Chromium and real servers: `browser`, `serve` and `visit`."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import chromium
from tests.house import House

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
# Streamlit looks for its server below the page's own address first, and finds nothing there.
PROBE = re.compile(r"/\w+/_stcore/(health|host-config)")


def _no_browser(detail: str) -> None:
    if os.environ.get("CHALKLINE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"a browser is required: {detail}")
    pytest.skip("not run: no browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium, without a window (CHALKLINE_BROWSER names another one)."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _no_browser("playwright is not installed")
    program = chromium.program()
    if program is None:
        _no_browser(f"none of {', '.join(chromium.NAMES)} on the path")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=chromium.SWITCHES)
        yield running
        running.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """serve(script, base_path="", env=None) -> the URL of a Streamlit server, healthy, for this script.

    The script is a page or a module with an `app = st.App(...)`. The server listens on a free loopback port,
    in a process of its own that ends with the tests.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(script: Path, *, base_path: str = "", env: Mapping[str, str] | None = None) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log.txt"
        settings = {
            "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
            "STREAMLIT_SERVER_PORT": str(port),
            "STREAMLIT_SERVER_HEADLESS": "true",
            "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
            "STREAMLIT_SERVER_BASE_URL_PATH": base_path,
            "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
            "PYTHONPATH": str(ROOT),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", str(script)],
                cwd=ROOT,
                env={**os.environ, **settings, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        url = "/".join(filter(None, [f"http://127.0.0.1:{port}", base_path.strip("/")]))
        deadline = time.monotonic() + START_SECONDS
        while not _healthy(f"{url}/_stcore/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server for {script.name} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        return url

    yield start
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Chalkline's own server, started as `make run` does: warmed up, with a run store of its own."""
    running = House(tmp_path_factory.mktemp("house"))
    running.warm()
    try:
        running.start()
        yield running.url
    finally:
        running.stop()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Visit:
    """A page and what it was seen to do."""

    page: Any
    received: list[bytes | str] = field(default_factory=list)
    sent: list[bytes | str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def assert_accessible(self) -> None:
        """axe-core finds nothing of ours: what Streamlit's own navigation does is left out.

        So is the paleness of what waits for a rerun, which comes and goes with every poll.
        """
        try:
            from axe_playwright_python.sync_playwright import Axe
        except ImportError:
            _no_browser("axe-playwright-python is not installed")
        self.page.add_style_tag(content='[data-stale="true"] { opacity: 1 !important; transition: none !important; }')
        found = Axe().run(self.page, context={"exclude": [['[data-testid="stSidebarNav"]']]}).response["violations"]
        assert {one["id"]: [node["html"][:200] for node in one["nodes"]] for one in found} == {}

    def assert_clean(self) -> None:
        """No error on the console, no uncaught exception, no request to another host."""
        assert self.errors == []
        assert self.foreign == []


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """visit(url, **context options) -> a Visit in a browser profile of its own."""
    contexts = []

    def open_page(url: str, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        seen = Visit(context.new_page())
        home = urlsplit(url).netloc

        def watch_socket(connection: Any) -> None:
            connection.on("framereceived", lambda frame: seen.received.append(frame))
            connection.on("framesent", lambda frame: seen.sent.append(frame))

        def watch_request(request: Any) -> None:
            address = urlsplit(request.url)
            if address.scheme in ("http", "https", "ws", "wss") and address.netloc != home:
                seen.foreign.append(request.url)

        def watch_console(text: Any) -> None:
            if text.type == "error" and not PROBE.fullmatch(urlsplit(text.location["url"]).path):
                seen.errors.append(text.text)

        seen.page.on("websocket", watch_socket)
        seen.page.on("request", watch_request)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("console", watch_console)
        seen.page.goto(url)
        return seen

    yield open_page
    for context in contexts:
        context.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder carries the mark `browser`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
