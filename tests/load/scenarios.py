"""What a class does to a server, one function each: it returns figures, each beside the limit that it is held to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sims.engine import Cancelled, Lab, RunMonitor, all_labs, execute
from sims.engine.budget import estimate, lab_rates
from sims.engine.jobs import THREAD_SECONDS, Jobs
from tests import chromium
from tests.house import House

from .tab import Answer, Lost, Query, Tab

LIGHT = "runs"  # the page that computes and draws nothing


@dataclass(frozen=True)
class Figure:
    """One measured number; `limit` is the most (or with `least` the least) that was promised, None where nothing is."""

    scenario: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    least: bool = False

    @property
    def met(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass
class Class:
    """How many tabs there are, and how long they do what they do."""

    house: House
    tabs: int = 100
    think: float = 5.0
    minutes: float = 10.0
    scale: float = 1.0  # of the shorter scenarios' lengths
    rng: random.Random = field(default_factory=lambda: random.Random(2026))

    def seconds(self, full: float) -> float:
        return full * self.scale

    def seed(self) -> int:
        """A seed that nobody has asked for yet."""
        return self.rng.randrange(10**6, 10**12)


@dataclass
class Heard:
    """The answers of a scenario, and what went wrong in it."""

    answers: list[Answer] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def of(self, asking: Awaitable[Answer]) -> Answer | None:
        try:
            answer = await asking
        except Lost as loss:
            self.lost.append(str(loss))
            return None
        self.answers.append(answer)
        return answer

    @property
    def errors(self) -> int:
        return len(self.lost) + sum(bool(answer.crashes or answer.errors) for answer in self.answers)

    def first_errors(self) -> list[str]:
        said = [*self.lost, *(text for answer in self.answers for text in (*answer.crashes, *answer.errors))]
        return said[:5]

    def percentile(self, q: float, of: Callable[[Answer], float] = lambda answer: answer.seconds) -> float:
        """In milliseconds; infinite where nobody was answered."""
        values = sorted(map(of, self.answers))
        return 1000 * values[min(len(values) - 1, int(q * len(values)))] if values else float("inf")


# -- what tabs do --------------------------------------------------------------------------------------------------


def any_lab(rng: random.Random) -> Lab:
    return rng.choice(all_labs())


def preset_of(lab: Lab, rng: random.Random) -> Query:
    preset = rng.choice(lab.presets)
    return {} if preset is lab.presets[0] else {"preset": preset.id}


def new_run_of(lab: Lab, seed: int) -> Query:
    """The lab's default run with noise of its own: what a moved slider asks for."""
    return {"v": str(lab.version), "preset": lab.presets[0].id, "seed": str(seed)}


async def gathered(tabs: Iterable[Tab]) -> None:
    await asyncio.gather(*(tab.close() for tab in tabs))


async def opened(room: Class, pages: Sequence[str], over: float, heard: Heard) -> list[Tab]:
    """Tabs that are opened at even intervals, all within `over` seconds."""
    tabs = [Tab(room.house.port, page) for page in pages]

    async def one(number: int, tab: Tab) -> None:
        await asyncio.sleep(over * number / len(tabs))
        await heard.of(tab.open())

    await asyncio.gather(*(one(number, tab) for number, tab in enumerate(tabs)))
    return tabs


async def thinking(room: Class, tabs: Sequence[Tab], until: float, act: Callable[[Tab], Awaitable[None]]) -> None:
    """Each tab acts, waits as long as a person thinks, and acts again."""

    async def one(tab: Tab) -> None:
        rng = random.Random(room.rng.random())
        await asyncio.sleep(rng.uniform(0.0, room.think))
        while time.monotonic() < until:
            await act(tab)
            await asyncio.sleep(rng.uniform(0.5, 1.5) * room.think)

    await asyncio.gather(*map(one, tabs))


def mixed_pages(room: Class) -> list[str]:
    labs = all_labs()
    return [labs[number % len(labs)].id for number in range(room.tabs)]


# -- scenarios -----------------------------------------------------------------------------------------------------


async def alone(room: Class) -> list[Figure]:
    """One visitor: what a rerun costs by itself."""
    tab, found = Tab(room.house.port, LIGHT), []
    await tab.open()
    trivial = [(await tab.again()).seconds for _ in range(50)]
    found.append(
        Figure("alone", "rerun of a page that computes nothing, median", 1e3 * statistics.median(trivial), "ms", 15)
    )
    await tab.close()
    for lab in all_labs():
        tab = Tab(room.house.port, lab.id)
        await tab.open()
        again = [(await tab.again()).seconds for _ in range(10)]
        fresh = [(await tab.open(new_run_of(lab, room.seed()))).seconds for _ in range(5)]
        found.append(
            Figure("alone", f"{lab.id}: rerun of the default page, median", 1e3 * statistics.median(again), "ms")
        )
        found.append(Figure("alone", f"{lab.id}: a new default run, median", 1e3 * statistics.median(fresh), "ms"))
        await tab.close()
    return found


async def light(room: Class) -> list[Figure]:
    heard = Heard()
    tabs = await opened(room, [LIGHT] * room.tabs, 2.0, Heard())
    until = time.monotonic() + room.seconds(30)
    await thinking(room, tabs, until, lambda tab: _ignored(heard.of(tab.again())))
    await gathered(tabs)
    return [
        Figure("light", "95th percentile of a page that computes nothing", heard.percentile(0.95), "ms", 100),
        Figure("light", "errors", heard.errors, "", 0),
    ]


async def opening(room: Class) -> list[Figure]:
    heard = Heard()
    tabs = await opened(room, mixed_pages(room), 2.0, heard)
    await gathered(tabs)
    return [
        Figure("opening", "all tabs opened within 2 s: the last is painted after", heard.percentile(1.0) / 1e3, "s", 5),
        Figure("opening", "errors", heard.errors, "", 0),
    ]


async def prepared(room: Class) -> list[Figure]:
    """A teacher opens every preset once before the class: what is stored then is read by everybody."""
    heard, start = Heard(), time.monotonic()
    for lab in all_labs():
        tab = Tab(room.house.port, lab.id)
        for preset in lab.presets[1:]:
            await heard.of(tab.open({"preset": preset.id}))
        await tab.close()
    return [
        Figure("prepared", "every preset opened once, one after the other", time.monotonic() - start, "s"),
        Figure("prepared", "errors", heard.errors, "", 0),
    ]


async def lesson(room: Class) -> list[Figure]:
    """The soak: mixed labs, 70 % presets, 30 % default-sized runs that nobody has made yet."""
    presets, fresh, lost = Heard(), Heard(), Heard()
    tabs = await opened(room, mixed_pages(room), 10.0, lost)
    labs = {lab.id: lab for lab in all_labs()}
    start = time.monotonic()
    until = start + 60 * room.minutes
    resident: list[float] = []

    async def act(tab: Tab) -> None:
        lab = labs[tab.page]
        if room.rng.random() < 0.7:
            await presets.of(tab.open(preset_of(lab, room.rng)))
        else:
            await fresh.of(tab.open(new_run_of(lab, room.seed())))

    async def watch() -> None:
        while time.monotonic() < until:
            resident.append(room.house.resident())
            await asyncio.sleep(2.0)

    await asyncio.gather(thinking(room, tabs, until, act), watch())
    await gathered(tabs)
    both = Heard([*presets.answers, *fresh.answers], [*presets.lost, *fresh.lost, *lost.lost])
    settled, end = resident[len(resident) // 3 : len(resident) // 2], resident[-max(1, len(resident) // 6) :]
    growth = (statistics.median(end) - statistics.median(settled or resident)) / 1e6
    return [
        Figure(
            "lesson",
            f"{room.tabs} tabs, {room.think:g} s of thinking: 95th percentile",
            both.percentile(0.95),
            "ms",
            250,
        ),
        Figure("lesson", "median", both.percentile(0.5), "ms"),
        Figure("lesson", "95th percentile of presets", presets.percentile(0.95), "ms"),
        Figure("lesson", "95th percentile of new default-sized runs", fresh.percentile(0.95), "ms"),
        Figure("lesson", "answers", len(both.answers), ""),
        Figure("lesson", "errors and lost sessions", both.errors, "", 0),
        Figure("lesson", "growth of the server's memory after the first half", growth, "MB", 50),
        Figure("lesson", "the server's memory at the end", resident[-1] / 1e6, "MB"),
    ]


async def together(room: Class) -> list[Figure]:
    """Everybody presses run in the same instant, each with noise of its own; three times."""
    heard, labs = Heard(), {lab.id: lab for lab in all_labs()}
    tabs = await opened(room, mixed_pages(room), 2.0, Heard())
    for _ in range(3):
        asking = [heard.of(tab.open(new_run_of(labs[tab.page], room.seed()))) for tab in tabs]
        await asyncio.gather(*asking)
    await gathered(tabs)
    return [
        Figure("together", "everyone presses run at once: 95th percentile", heard.percentile(0.95) / 1e3, "s", 3),
        Figure("together", "first sign of it, 95th percentile", heard.percentile(0.95, lambda a: a.first), "ms", 500),
        Figure("together", "errors", heard.errors, "", 0),
    ]


async def link(room: Class) -> list[Figure]:
    """The professor's link, opened by everybody at once: of a run that nobody has made yet."""
    heard, lab = Heard(), all_labs()[1]
    tabs = await opened(room, [LIGHT] * room.tabs, 2.0, Heard())
    for tab in tabs:
        tab.page = lab.id
    query = new_run_of(lab, room.seed())
    before = len(_computed(room.house, lab))
    await asyncio.gather(*(heard.of(tab.open(query)) for tab in tabs))
    await gathered(tabs)
    await asyncio.sleep(1.0)  # the log is written behind the answer
    return [
        Figure("link", "everyone opens the professor's link: 95th percentile", heard.percentile(0.95) / 1e3, "s", 1),
        Figure("link", "computations of its run", len(_computed(room.house, lab)) - before, "", 1),
        Figure("link", "errors", heard.errors, "", 0),
    ]


def _computed(house: House, lab: Lab) -> list[str]:
    return [run["key"] for run in house.runs() if run["lab"] == lab.id and not run["cached"]]


async def hostile(room: Class) -> list[Figure]:
    """One tab asks 50 times a second for the dearest run there is, and never waits; the others go on with presets."""
    heard, labs = Heard(), {lab.id: lab for lab in all_labs()}
    tabs = await opened(room, mixed_pages(room), 10.0, Heard())
    await asyncio.sleep(room.seconds(5))
    threads = room.house.threads()
    lab, query = dearest()
    attacker = Tab(room.house.port, lab.id)
    await attacker.open(query)
    until = time.monotonic() + room.seconds(60)
    most = [0]

    async def attack() -> None:
        reading = asyncio.create_task(_drained(attacker))
        while time.monotonic() < until:
            attacker.query = "&".join(f"{name}={value}" for name, value in {**query, "seed": room.seed()}.items())
            with contextlib.suppress(Lost):
                await attacker.send(attacker._request())
            most[0] = max(most[0], room.house.threads())
            await asyncio.sleep(0.02)
        reading.cancel()

    act = lambda tab: _ignored(heard.of(tab.open(preset_of(labs[tab.page], room.rng))))  # noqa: E731
    await asyncio.gather(attack(), thinking(room, tabs, until, act))
    await gathered(tabs)
    await attacker.close()
    await asyncio.sleep(0.1)
    burnt = room.house.processor_seconds()
    await asyncio.sleep(10.0)
    burnt = room.house.processor_seconds() - burnt
    return [
        Figure("hostile", "95th percentile of the others", heard.percentile(0.95), "ms", 300),
        Figure("hostile", "further threads of the server", most[0] - threads, "", None),
        Figure("hostile", "processor time that it burns once its tab is closed", burnt, "s", 2),
        Figure("hostile", "errors of the others", heard.errors, "", 0),
    ]


async def _drained(tab: Tab) -> None:
    with contextlib.suppress(Lost):
        while True:
            await tab.receive()


def dearest() -> tuple[Lab, dict[str, str]]:
    """The longest run of the first lab with a field `steps` that a page may ask for."""
    from app.frame.limits import LIVE_SECONDS

    lab = next(lab for lab in all_labs() if "steps" in lab.params.fields())
    most, steps = int(lab.params.fields()["steps"].le or 10**9), 1000
    while steps * 2 <= most and estimate(lab, lab.params.make(steps=steps * 2)).seconds < 0.9 * LIVE_SECONDS:
        steps *= 2
    return lab, {"v": str(lab.version), "preset": lab.presets[0].id, "steps": str(steps)}


async def restart(room: Class) -> list[Figure]:
    """The power goes in mid-class: every tab comes back to the state in its address."""
    heard, labs, rng = Heard(), {lab.id: lab for lab in all_labs()}, room.rng
    tabs = await opened(room, mixed_pages(room), 2.0, Heard())
    for tab in tabs:
        await heard.of(tab.open(preset_of(labs[tab.page], rng)))
    before = {tab: tab.query for tab in tabs}
    stored = len(list((room.house.store / "runs").glob("??/*")))
    killed = time.monotonic()
    room.house.stop(signal.SIGKILL)
    for tab in tabs:
        tab.cut()
    starting = asyncio.create_task(asyncio.to_thread(room.house.start))
    back: list[float] = []

    async def come_back(tab: Tab) -> None:
        while True:
            try:
                answer = await tab.again()
            except Lost:
                await asyncio.sleep(0.5)
                continue
            heard.answers.append(answer)
            back.append(time.monotonic() - killed)
            return

    await asyncio.gather(starting, *map(come_back, tabs))
    restored = sum(tab.query == query for tab, query in before.items())
    kept = len(list((room.house.store / "runs").glob("??/*")))
    await gathered(tabs)
    return [
        Figure("restart", "killed and started again: the last tab is back after", max(back), "s", 15),
        Figure("restart", "tabs with the state that they had", restored, f"of {len(tabs)}", len(tabs), least=True),
        Figure("restart", "stored runs lost", stored - min(stored, kept), "", 0),
        Figure("restart", "errors", heard.errors, "", 0),
    ]


async def idle(room: Class) -> list[Figure]:
    """One tab plays through training in a real browser, the others look on: the server has nothing to do."""
    tabs = await opened(room, mixed_pages(room)[: max(1, room.tabs - 1)], 2.0, Heard())
    watching = asyncio.create_task(_messages(tabs, room.seconds(20)))
    frames, sent = await asyncio.to_thread(_play, room.house.port, room.seconds(10))
    received = await watching
    await gathered(tabs)
    return [
        Figure("idle", "messages between server and the tab that plays", sent, "", 0),
        Figure("idle", "messages to the tabs that look on", received, "", 0),
        Figure("idle", "frames a second of the tab that plays", frames, "1/s", 30, least=True),
    ]


async def _messages(tabs: Sequence[Tab], seconds: float) -> int:
    count = [0]

    async def listen(tab: Tab) -> None:
        with contextlib.suppress(Lost):
            while True:
                # That the page has come to rest is told just after its last answer, which was waited for.
                count[0] += (await tab.receive()).WhichOneof("type") != "session_status_changed"

    listening = [asyncio.create_task(listen(tab)) for tab in tabs]
    await asyncio.sleep(seconds)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    return count[0]


_COUNT_FRAMES = """
seconds => new Promise(done => {
  let frames = 0;
  const start = performance.now();
  function tick(now) {
    frames += 1;
    if (now - start < 1000 * seconds) requestAnimationFrame(tick); else done(1000 * frames / (now - start));
  }
  requestAnimationFrame(tick);
})
"""


def _play(port: int, seconds: float) -> tuple[float, int]:
    """Frames a second while a page plays, and messages over its websocket meanwhile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.program(), args=chromium.SWITCHES)
        page, messages = browser.new_page(), [0]

        def counted(_: object) -> None:
            messages[0] += 1

        def watch(channel: object) -> None:
            channel.on("framereceived", counted)  # type: ignore[attr-defined]
            channel.on("framesent", counted)  # type: ignore[attr-defined]

        page.on("websocket", watch)
        page.goto(f"http://127.0.0.1:{port}/label_noise")
        play = page.get_by_role("button", name="Play", exact=True).first
        play.wait_for(timeout=120_000)
        page.wait_for_timeout(3000)  # what comes behind the page has come
        play.click()
        before = messages[0]
        frames = float(page.evaluate(_COUNT_FRAMES, seconds))
        sent = messages[0] - before
        browser.close()
    return frames, sent


async def garbage(room: Class) -> list[Figure]:
    """What no browser sends: the server closes the channel, keeps its memory, and goes on serving the others."""
    import websockets
    from streamlit.proto.BackMsg_pb2 import BackMsg

    house, rng = room.house, random.Random(7)
    witness = Tab(house.port, LIGHT)
    await witness.open()
    before = house.resident()
    url = f"ws://127.0.0.1:{house.port}/_stcore/stream"

    async def send(content: bytes | str) -> None:
        with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
            async with websockets.connect(url, subprotocols=["streamlit"], max_size=None, compression=None) as channel:  # type: ignore[list-item]
                await channel.send(content)
                await asyncio.wait_for(channel.recv(), 1.0)

    proper = Tab(house.port, "label_noise")
    await proper.open()
    request = proper._request().SerializeToString()
    strange = BackMsg.FromString(request)
    for kind in ("string_value", "json_value", "bytes_value", "double_value", "bool_value"):
        for identity in [*list(proper.widgets.values())[:20], "$$ID-no-such-widget", "\x00" * 100]:
            widget = strange.rerun_script.widget_states.widgets.add(id=identity)
            value = {
                "string_value": "x",
                "json_value": "{",
                "bytes_value": b"\xff",
                "double_value": 1e308,
                "bool_value": True,
            }
            setattr(widget, kind, value[kind])
    await proper.close()
    contents: list[bytes | str] = [rng.randbytes(rng.randrange(1, 5000)) for _ in range(200)]
    contents += [request[: rng.randrange(len(request))] for _ in range(200)]
    contents += ["text", strange.SerializeToString(), bytes(201 * 2**20)]
    for content in contents:
        await send(content)
    rate, count = 10_000 / 60, int(room.seconds(2000))
    start, refused = time.monotonic(), 0

    async def connect(number: int) -> None:
        nonlocal refused
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        try:
            channel = await websockets.connect(url, subprotocols=["streamlit"], open_timeout=30)  # type: ignore[list-item]
            channel.transport.abort()
        except (OSError, websockets.WebSocketException, TimeoutError):
            refused += 1

    await asyncio.gather(*map(connect, range(count)))
    answer = await witness.again()
    await witness.close()
    await asyncio.sleep(room.seconds(40))
    return [
        Figure("garbage", "healthy afterwards", float(house.healthy()), "", 1, least=True),
        Figure("garbage", "another tab is answered within", 1e3 * answer.seconds, "ms"),
        Figure("garbage", f"connections at 10,000 a minute that were refused, of {count}", refused, ""),
        Figure("garbage", "growth of the server's memory", (house.resident() - before) / 1e6, "MB", 100),
    ]


# -- without a server ----------------------------------------------------------------------------------------------


async def cancelling(room: Class) -> list[Figure]:
    return await asyncio.to_thread(_cancelling)


def _cancelling() -> list[Figure]:
    """How long a stopped run goes on, and how long a beating heart waits while the dearest live run is computed."""
    found = []
    for lab in all_labs():
        params = _longest(lab, 20.0)
        for where, limit in (("thread", float("inf")), ("process", 0.0)):
            from sims.engine import jobs as jobs_module

            usual, jobs_module.THREAD_SECONDS = jobs_module.THREAD_SECONDS, limit
            try:
                job = Jobs(None).submit(lab, params)
                while not job.monitor.progress.any() and not job.finished():
                    time.sleep(0.005)
                time.sleep(0.2)
                start = time.perf_counter()
                job.cancel()
                with contextlib.suppress(Cancelled):
                    job.result(60)
                spent = 1e3 * (time.perf_counter() - start)
            finally:
                jobs_module.THREAD_SECONDS = usual
            found.append(Figure("cancelling", f"{lab.id}: stopped in a {where} after", spent, "ms", 100))
        found.append(Figure("cancelling", f"{lab.id}: longest wait of a heartbeat", _heartbeat(lab), "ms", 50))
    return found


def _heartbeat(lab: Lab) -> float:
    params = _longest(lab, 0.9 * THREAD_SECONDS)
    monitor, waits, stop = RunMonitor.allocate(lab, params), [0.0], threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            waits.append(now - last)
            last = now

    execute(lab, lab.params.make())
    beating = threading.Thread(target=beat)
    beating.start()
    execute(lab, params, monitor=monitor)
    stop.set()
    beating.join()
    return 1e3 * max(waits)


def _longest(lab: Lab, seconds: float) -> object:
    """The default run with as many replicates as an estimate of so many seconds allows, then as many steps."""
    params = lab.params.make()
    for name in ("steps", "replicates"):
        if name not in lab.params.fields() or not params.is_active(name):
            continue
        most = int(lab.params.fields()[name].le or 10**9)
        while getattr(params, name) * 2 <= most:
            larger = params.replace(**{name: getattr(params, name) * 2})
            if estimate(lab, larger).seconds > seconds:
                break
            params = larger
    return params


async def estimates(room: Class) -> list[Figure]:
    return await asyncio.to_thread(_estimates)


def _estimates() -> list[Figure]:
    """Measured seconds over estimated ones, of every lab's presets that are estimated between 20 ms and 3 s.

    A processor is not equally fast from one minute to the next: the rates are measured right before. A first run loads
    the kernels, as the server does when it starts; the one that counts has noise of its own, its theory included.
    """
    found = []
    for lab in all_labs():
        ratios = []
        for preset in lab.presets:
            params = lab.focus(preset)
            lab_rates(lab, measure_again=True)
            budget = estimate(lab, params)
            if 0.02 <= budget.seconds <= 3.0:
                execute(lab, params)
                ratios.append(execute(lab, params.replace(seed=params.seed + 1)).wall_s / budget.seconds)
        if ratios:
            found.append(Figure("estimates", f"{lab.id}: largest time over its estimate", max(ratios), "x", 3))
            found.append(Figure("estimates", f"{lab.id}: smallest", min(ratios), "x", 1 / 3, least=True))
    return found


async def store(room: Class) -> list[Figure]:
    return await asyncio.to_thread(_store, room.house.folder)


def _store(folder: Path) -> list[Figure]:
    """10,000 runs in a store: its index is made from their folders, and read."""
    from sims.engine.cli import LISTED
    from sims.engine.store import COLUMNS, Store, seal, unseal

    keep, lab, rng = Store(folder / "many"), all_labs()[0], random.Random(13)
    run = execute(lab, lab.focus(lab.presets[0]), store=keep)
    manifest = unseal((keep._folder(run.key) / "manifest.json").read_bytes())
    for _ in range(9_999):
        key = f"{rng.getrandbits(256):064x}"
        os.makedirs(keep._folder(key))
        (keep._folder(key) / "manifest.json").write_bytes(seal({**manifest, "key": key}))
    start = time.perf_counter()
    assert keep.rebuild() == 10_000
    rebuilt = time.perf_counter() - start

    def read(columns: Sequence[str]) -> float:
        """Milliseconds, the median of five."""
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            assert len(keep.rows(columns=columns)) == 10_000
            spent.append(1e3 * (time.perf_counter() - start))
        return statistics.median(spent)

    return [
        Figure("store", "10,000 runs are listed in", read(LISTED), "ms", 300),
        Figure("store", "with all their params and metrics in", read(COLUMNS), "ms"),
        Figure("store", "their index is rebuilt in", rebuilt, "s", 30),
    ]


async def _ignored(asking: Awaitable[object]) -> None:
    await asking


SCENARIOS: dict[str, Callable[[Class], Awaitable[list[Figure]]]] = {
    "alone": alone,
    "light": light,
    "opening": opening,
    "together": together,
    "link": link,
    "idle": idle,
    "prepared": prepared,
    "lesson": lesson,
    "hostile": hostile,
    "restart": restart,
    "garbage": garbage,
    "cancelling": cancelling,
    "estimates": estimates,
    "store": store,
}
