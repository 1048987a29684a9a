"""Specs that outlast their numbers: what differs from run to run is taken out of a spec and named.

Two runs of one kind then share one spec, word for word. The browser keeps its drawing and is sent numbers alone, and
the server may build the spec once (`fill`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Spec = dict[str, Any]

_DISCRETE = ("color", "fill", "stroke", "shape", "strokeDash", "strokeWidth", "opacity", "size")
_SIZED = ("strokeWidth", "opacity", "size")
_PLACES = ("x", "y")
COMPOSED = ("hconcat", "vconcat", "concat", "facet", "repeat")


def lift(spec: Mapping[str, Any]) -> tuple[Spec, dict[str, Any]]:
    """The spec with its domains, tick values and notes as expressions, and the values of those by name.

    Equal values share a name, so that layers go on sharing their scales and channels their legend.
    """
    names: dict[tuple[str, str], str] = {}
    values: dict[str, Any] = {}

    def named(kind: str, value: Any) -> Spec:
        identity = (kind, json.dumps(value))
        if identity not in names:
            names[identity] = f"{kind}_{sum(one.startswith(f'{kind}_') for one in values)}"
            values[names[identity]] = value
        return {"expr": names[identity]}

    def channel(name: str, definition: Any) -> Any:
        if not isinstance(definition, Mapping):
            return definition
        changed = dict(definition)
        scale = definition.get("scale")
        domain = scale.get("domain") if isinstance(scale, Mapping) else None
        if isinstance(domain, list) and (name in _DISCRETE or (name in _PLACES and _numbers(domain))):
            # Of all channels that tell the same things apart Vega-Lite makes one legend, if they share the name.
            kind = f"domain_{name}" if name in _PLACES else "names"
            changed["scale"] = {**scale, "domain": named(kind, domain)}
            if changed.get("sort") == domain:
                del changed["sort"]  # says the same as the domain
                if name in _SIZED:
                    changed["type"] = "ordinal"  # which has an order all the same: Vega-Lite warns of sizes without one
        for guide in ("axis", "legend"):
            told = definition.get(guide)
            if isinstance(told, Mapping) and isinstance(told.get("values"), list) and _numbers(told["values"]):
                changed[guide] = {**told, "values": named(f"ticks_{name}", told["values"])}
        return changed

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        return {
            key: {name: channel(name, definition) for name, definition in value.items()}
            if key == "encoding"
            else walk(value)
            for key, value in node.items()
        }

    lifted = walk(spec)
    if isinstance(lifted.get("title"), Mapping):
        lifted["title"] = {**lifted["title"], "text": named("note", lifted["title"]["text"])}
    return lifted, values


def fill(spec: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a spec in which each expression that is one of these names alone has its value in its place."""
    if isinstance(spec, Mapping):
        if len(spec) == 1 and spec.get("expr") in values:
            return values[spec["expr"]]
        return {name: fill(value, values) for name, value in spec.items()}
    return [fill(item, values) for item in spec] if isinstance(spec, list) else spec


def is_composed(spec: Mapping[str, Any]) -> bool:
    """Whether a spec is of several views side by side, whose sizes are its own affair."""
    return any(name in spec for name in COMPOSED) or any(
        name in spec.get("encoding", {}) for name in ("row", "column", "facet")
    )


def units(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The layers of a spec, of layers within layers too; of a spec without layers itself."""
    if "layer" not in spec:
        yield spec
    for layer in spec.get("layer", ()):
        yield from units(layer)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
