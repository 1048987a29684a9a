"""The small pictures of the home page: each lab's own first picture of its default page, drawn once and kept.

They are drawn aside, one at a time, after the server is up: a card without its picture shows a placeholder.
A file is named by what it depends on (the runs, the code of the pictures, the renderer), so that it is never stale.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from sims.engine import Lab
from sims.engine.compiled import cache_root
from sims.engine.keys import run_key

from .export import drawn
from .page import Story, lab_module
from .pictures import FIT, Picture, is_composed
from .player import DARK, PAPER, in_colours
from .runs import CARDS, View, server_jobs
from .state import of_preset

WIDTH, HEIGHT = 360, 170  # pixels of the whole picture; it is drawn at twice that
SCALE = 2
COLOURS = 64
THEMES: Mapping[str, Mapping[str, str]] = {"light": PAPER, "dark": DARK}
_CODE = ("cards.py", "pictures.py", "player.py")

logger = logging.getLogger("chalkline.cards")
_lock = threading.Lock()
_thread: threading.Thread | None = None
_failed: set[str] = set()
_digests: dict[str, str] = {}


def picture_of(lab: Lab, theme: str) -> Path | None:
    """The file of a lab's small picture on a `light` or `dark` page; none while it is not drawn."""
    path = _path(lab, theme)
    return path if path.is_file() else None


def missing(labs: Iterable[Lab]) -> list[Lab]:
    """The labs whose small pictures are still to be drawn; those that could not be drawn are not asked for again."""
    return [lab for lab in labs if lab.id not in _failed and not all(_path(lab, theme).is_file() for theme in THEMES)]


def draw_missing(labs: Iterable[Lab]) -> None:
    """Start to draw what is missing, in a thread of its own that may already be at work."""
    global _thread
    wanted = missing(labs)
    with _lock:
        if wanted and (_thread is None or not _thread.is_alive()):
            _thread = threading.Thread(target=_draw_all, args=(wanted,), name="chalkline-cards", daemon=True)
            _thread.start()


def _draw_all(labs: Iterable[Lab]) -> None:
    for lab in labs:
        try:
            draw(lab)
        except Exception:  # one lab's trouble must not cost the others their pictures
            logger.exception("The small picture of %s could not be drawn; its card goes without.", lab.id)
            _failed.add(lab.id)


def draw(lab: Lab) -> None:
    """Draw and keep a lab's small pictures, from the stored runs of its default page (computed where there are none).

    Raises:
        ChalklineError: a run failed.
        subprocess.CalledProcessError: the picture could not be rendered.
    """
    picture = first_picture(lab)
    if picture is None:
        _failed.add(lab.id)
        return
    for theme, colours in THEMES.items():
        path = _path(lab, theme)
        _keep(path, few_colours(drawn(small(picture, colours), "png", inches=5.0, ppi=SCALE * WIDTH / 5.0)))
        for old in path.parent.glob(f"{lab.id}-{theme}-*.png"):
            if old != path:
                old.unlink(missing_ok=True)


def first_picture(lab: Lab) -> Picture | None:
    """What the lab's default page draws first."""
    module: Any = lab_module(lab.id)
    story: Story = module.STORY
    state = of_preset(lab, lab.presets[0].id)
    jobs = server_jobs()
    try:
        runs = {
            label: jobs.submit(lab, params, CARDS, f"{lab.id}/{label}").result()
            for label, params in lab.runs(lab.presets[0]).items()
        }
    finally:
        jobs.release(CARDS)
    found = module.pictures(View(lab, state, runs, x=story.x))
    return found[0] if found else None


def small(picture: Picture, colours: Mapping[str, str]) -> dict[str, Any]:
    """A spec of the picture at the size of a card: marks and axis titles, without legends and numbers."""
    spec = _bare(picture.spec)
    spec.pop("title", None)
    if not is_composed(spec):
        spec |= {"width": WIDTH, "height": HEIGHT, "autosize": FIT}
    title = {"titleColor": "$muted", "titleFontSize": 11, "titleFontWeight": 400, "titleLimit": 260}
    axis = {**title, "labels": False, "ticks": False, "grid": False, "domainColor": "$grid", "domainWidth": 1.5}
    spec["config"] = {"axis": axis, "view": {"stroke": None}, "text": {"color": "$text"}, "header": {"labels": False}}
    spec["background"] = "$background"  # on a transparent one the renderer darkens whatever is half transparent
    spec["padding"] = 4
    return dict(in_colours(spec, colours)) | {"datasets": picture.tables()}


def few_colours(png: bytes) -> bytes:
    """The same picture with a palette: an eighth of the bytes, for a class that opens the gallery at once."""
    sink = io.BytesIO()
    Image.open(io.BytesIO(png)).quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(sink, "png", optimize=True)
    return sink.getvalue()


def _bare(node: Any) -> Any:
    """A copy of a spec without legends, and with nothing said of axes but their titles."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    bare = {name: _bare(value) for name, value in node.items()}
    if "legend" in bare or ("scale" in bare and "field" in bare):
        bare["legend"] = None
    if "axis" in bare and bare["axis"] is not None:
        bare["axis"] = {}
    return bare


def _path(lab: Lab, theme: str) -> Path:
    return cache_root() / "cards" / f"{lab.id}-{theme}-{_digest(lab)}.png"


@cache
def _code() -> str:
    here = Path(__file__).parent
    total = hashlib.sha256(version("vl-convert-python").encode())
    for name in _CODE:
        total.update((here / name).read_bytes())
    return total.hexdigest()


def _digest(lab: Lab) -> str:
    if lab.id not in _digests:
        keys = [run_key(lab, params) for params in lab.runs(lab.presets[0]).values()]
        source = getattr(lab_module(lab.id), "__file__", None)
        code = Path(source).read_text(encoding="utf-8") if source else ""
        _digests[lab.id] = hashlib.sha256(json.dumps([keys, code, _code()]).encode()).hexdigest()[:20]
    return _digests[lab.id]


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".card-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(aside, 0o644)
    os.replace(aside, path)
