"""The player: linked Vega-Lite pictures that play through training time inside the browser.

One message carries the specs and the whole trajectory as columns; play, pause, scrub and speed are the
browser's own affair (`player.js`), so that a hundred students watching cost the server nothing.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import streamlit as st
from streamlit.components.v2 import component

from .specs import lift

Column = Sequence[Any] | np.ndarray
Columns = Mapping[str, Column]

HERE = Path(__file__).parent
FRAME = "frame"
# The theme's colour names in a spec, as they are on paper: for figures drawn without a browser.
PAPER = {"$text": "#1c2321", "$muted": "#5f6470", "$grid": "#d5d9d6", "$background": "#ffffff"}
_RUNS = ("#0072B2", "#C44E00", "#00795A", "#A3437C", "#8A6100", "#3B3B98", "#5C5C5C")
PAPER |= {f"$run{number}": colour for number, colour in enumerate(_RUNS, 1)}
# The same on the dark page, as the player has them.
DARK = {"$text": "#eef2ef", "$muted": "#a3a8b4", "$grid": "#3a4943", "$background": "#111815"}
_DARK_RUNS = ("#56B4E9", "#F58A4B", "#2FC99B", "#E08DB9", "#E6B23C", "#A9A9F5", "#BDBDBD")
DARK |= {f"$run{number}": colour for number, colour in enumerate(_DARK_RUNS, 1)}
_SEPARATORS = (",", ":")


class Picture(TypedDict):
    """One picture of a player.

    `spec` is a Vega-Lite spec whose data are named, never inline: the rows of `data[name]` are drawn always,
    those of `frames[name]` one frame at a time, chosen by that table's integer column `frame` (0 to F-1; also
    readable in the spec). Its scales carry fixed domains, so that axes stand still. A top-level param named
    `step` follows the clock. The colours "$text", "$muted", "$grid", "$background" and "$run1" to "$run7" are
    the theme's; the last seven are told apart by every kind of colour vision. `note` stands below the picture.
    """

    id: str
    title: str
    spec: Mapping[str, Any]
    alt: str
    note: NotRequired[str]
    data: NotRequired[Mapping[str, Columns]]
    frames: NotRequired[Mapping[str, Columns] | None]


_mount = component(
    "chalkline_player",
    css=(HERE / "player.css").read_text(encoding="utf-8"),
    js=(HERE / "player.js").read_text(encoding="utf-8"),
)


def player(
    pictures: Sequence[Picture],
    *,
    steps: Sequence[int] | None,
    step_label: str,
    key: str,
    present: bool = False,
    height: int = 300,
    on_pick: Callable[[float, float], None] | None = None,
    identity: str = "",
) -> None:
    """Draw `pictures` side by side under one clock.

    `steps[f]` is the training step of frame f; None (or a single one) when nothing moves: then there is no
    control bar. `step_label` is what a step is called ("step", "epoch"). `height` is that of each plotting
    area in pixels, where its spec does not say. `present` is the projector's look: type 1.6 times as large,
    lines of 3 px, black or white ink. Position, speed and motion belong to `key` and outlast new data.

    With `on_pick`, a point may be picked in each picture that has a table `picked` (columns x and y, on the scales
    of the picture): by a click or with the arrow keys and Enter. It is drawn at once, and `on_pick` gets it.

    `identity` says what the pictures and their steps depend on, where that is known: then their message is made once
    for all who look at them.

    Raises ValueError for pictures that could not be drawn; see `pack`.
    """
    looks: dict[str, Any] = {"step_label": step_label, "key": key, "present": present, "height": height}
    looks["picks"] = on_pick is not None
    # By name: Streamlit reads a function's signature for each argument that comes by its place.
    kept = {"identity": identity, "_pictures": pictures, "_steps": steps}
    data = _remembered(**kept, **looks) if identity else pack(pictures, steps=steps, **looks)
    if on_pick is None:
        _mount(key=key, data=data)
        return

    def picked() -> None:
        point = st.session_state[key].picked
        on_pick(float(point["x"]), float(point["y"]))

    _mount(key=key, data=data, on_picked_change=picked)


@st.cache_resource(max_entries=256, show_spinner=False)
def _remembered(identity: str, _pictures: Sequence[Picture], _steps: Sequence[int] | None, **looks: Any) -> bytes:
    """`pack`, whose message is kept; it is found by its identity and its looks."""
    return pack(_pictures, steps=_steps, **looks)


def pack(
    pictures: Sequence[Picture],
    *,
    steps: Sequence[int] | None,
    step_label: str,
    key: str,
    present: bool = False,
    height: int = 300,
    picks: bool = False,
) -> bytes:
    """The browser's message: uint32 length, JSON header, padding to 8 bytes, then the columns, little-endian.

    Columns go as int32, float32 (float64 where float32 would overflow or lose a value to zero) or as codes
    into a list of words. Raises ValueError when two pictures share an id, a spec has inline data, a named
    source has no table or a table no source, columns differ in length, or a frame lies outside `steps`.
    """
    clock = [int(step) for step in steps] if steps is not None else []
    identities = [picture["id"] for picture in pictures]
    if len(set(identities)) != len(identities):
        raise ValueError(f"two pictures share an id: {identities}")
    body = _Body()
    described = []
    for picture in pictures:
        data = picture.get("data") or {}
        frames = picture.get("frames") or {}
        _check_sources(picture["id"], picture["spec"], data, frames)
        spec, values = lift(picture["spec"])
        described.append(
            {
                "id": picture["id"],
                "title": picture["title"],
                "alt": picture["alt"],
                "note": picture.get("note", ""),
                "height": round(1.25 * height) if present else height,
                "spec": json.dumps(spec, separators=_SEPARATORS, allow_nan=False),
                "values": values,
                "data": {name: body.table(table, name) for name, table in data.items()},
                "frames": {name: body.frames(table, name, len(clock)) for name, table in frames.items()},
            }
        )
    header = {"key": key, "label": step_label, "steps": clock, "present": present, "pictures": described}
    header |= {"picks": True} if picks else {}
    text = json.dumps(header, separators=_SEPARATORS, allow_nan=False)
    columns = b"".join(body.parts)
    digest = hashlib.sha256(text.encode() + columns).hexdigest()
    encoded = f'{text[:-1]},"digest":"{digest}"}}'.encode()
    padding = -(4 + len(encoded)) % 8
    return struct.pack("<I", len(encoded)) + encoded + b"\0" * padding + columns


def on_paper(spec: Any) -> Any:
    """A copy of a spec in which the theme's colour names have their values on white paper."""
    return in_colours(spec, PAPER)


def in_colours(spec: Any, colours: Mapping[str, str]) -> Any:
    """A copy of a spec in which the theme's colour names have these values."""
    if isinstance(spec, Mapping):
        return {name: in_colours(value, colours) for name, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [in_colours(value, colours) for value in spec]
    return colours.get(spec, spec) if isinstance(spec, str) else spec


class _Body:
    """The columns' bytes, each at a multiple of 8."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def table(self, columns: Columns, name: str) -> dict[str, Any]:
        return self._describe(_arrays(columns, name), None)

    def frames(self, columns: Columns, name: str, n_frames: int) -> dict[str, Any]:
        arrays = _arrays(columns, name)
        if FRAME not in arrays:
            raise ValueError(f"table {name!r} moves but has no column {FRAME!r}")
        index = arrays.pop(FRAME)
        if index.dtype.kind not in "iu":
            raise ValueError(f"column {FRAME!r} of table {name!r} is {index.dtype}, not an integer")
        if n_frames == 0 or (index.size and (index.min() < 0 or index.max() >= n_frames)):
            raise ValueError(f"column {FRAME!r} of table {name!r} leaves 0 to {n_frames - 1}")
        order = np.argsort(index, kind="stable")
        offsets = np.searchsorted(index[order], np.arange(n_frames + 1))
        return self._describe({column: array[order] for column, array in arrays.items()}, offsets.tolist())

    def _describe(self, arrays: Mapping[str, np.ndarray], offsets: list[int] | None) -> dict[str, Any]:
        rows = len(next(iter(arrays.values()))) if arrays else 0
        columns = [{"name": column, **self._column(array)} for column, array in arrays.items()]
        return {"rows": rows, "offsets": offsets, "columns": columns}

    def _column(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind in "iu":
            limits = np.iinfo(np.int32)
            fits = array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)
            return self._add(array, "i4") if fits else self._add(array, "f8")
        if array.dtype.kind == "f":
            with np.errstate(over="ignore", under="ignore"):
                short = array.astype("<f4")
            overflow = np.isinf(short) & np.isfinite(array)
            lost = (short == 0) & (array != 0)
            return self._add(array, "f8" if np.any(overflow | lost) else "f4")
        words: dict[Any, int] = {}
        for word in array.tolist():
            if not isinstance(word, str | bool | None):
                raise ValueError(f"a column holds neither numbers nor words: {word!r}")
            words.setdefault(word, len(words))
        codes = np.array([words[word] for word in array.tolist()], dtype="<i4")
        return {**self._add(codes, "i4"), "kind": "words", "words": list(words)}

    def _add(self, array: np.ndarray, kind: str) -> dict[str, Any]:
        raw = array.astype(f"<{kind}").tobytes()
        at = self.size
        raw += b"\0" * (-len(raw) % 8)
        self.parts.append(raw)
        self.size += len(raw)
        return {"kind": kind, "at": at}


def _arrays(columns: Columns, name: str) -> dict[str, np.ndarray]:
    arrays = {}
    for column, values in columns.items():
        array = values if isinstance(values, np.ndarray) else _array(values)
        if array.ndim != 1:
            raise ValueError(f"column {column!r} of table {name!r} has shape {array.shape}, not (rows,)")
        arrays[column] = array
    if len({array.size for array in arrays.values()}) > 1:
        sizes = {column: array.size for column, array in arrays.items()}
        raise ValueError(f"the columns of table {name!r} differ in length: {sizes}")
    return arrays


def _array(values: Sequence[Any]) -> np.ndarray:
    """Numbers become a numeric array (None among them a NaN); anything else stays as it is."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in present):
        if len(present) == len(values):
            return np.asarray(values)
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _check_sources(
    identity: str, spec: Mapping[str, Any], data: Mapping[str, Columns], frames: Mapping[str, Columns]
) -> None:
    if both := set(data) & set(frames):
        raise ValueError(f"picture {identity!r}: {sorted(both)} is both still and moving")
    named: set[str] = set()
    for source in _sources(spec):
        if "name" not in source or "values" in source or "url" in source:
            raise ValueError(f"picture {identity!r}: data must be named, not inline or fetched: {source!r}")
        named.add(source["name"])
    given = set(data) | set(frames)
    if named != given:
        raise ValueError(f"picture {identity!r}: its spec names {sorted(named)}, its tables {sorted(given)}")


def _sources(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every `data` object of a spec, however deep; generated ones (sequence, graticule) need no table."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "data" and isinstance(value, Mapping):
                if not {"sequence", "graticule", "sphere"} & set(value):
                    yield value
            elif name == "datasets":
                yield {"values": value}
            else:
                yield from _sources(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _sources(value)
