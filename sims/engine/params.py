"""Parameters: declared once, in a lab's frozen model, and read from there by every front door.

The command line, the widgets, the URL, the validation messages, the keys and the documentation all come from
the fields declared with :func:`param`.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar, Literal, Self

import pydantic
from pydantic_core import PydanticCustomError

from .errors import BadInput, Problem, UnknownName, shorten

Scalar = int | float | bool | str
Value = Scalar | tuple[float, ...]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_TEXT = 2000


def param(
    default: Value,
    ge: float | None = None,
    le: float | None = None,
    symbol: str = "",
    unit: str = "",
    help: str = "",
    scale: Literal["linear", "log"] = "linear",
    live: tuple[float, float] | None = None,
    only_if: Mapping[str, tuple[Value, ...]] | None = None,
) -> Any:
    """Declare one parameter of a lab.

    Args:
        default: value when nothing is said.
        ge, le: bounds that hold through every door (for a list: of each entry).
        symbol: the paper's symbol, in LaTeX.
        unit: what the number counts or measures.
        help: one sentence for the command line, the widget's tooltip and the docs.
        scale: how a slider moves through the range.
        live: the slider's range, where it is narrower than what is valid.
        only_if: the field is active only while each named field has one of the given values.
    """
    extra: dict[str, Any] = {
        "symbol": symbol,
        "unit": unit,
        "scale": scale,
        "live": live,
        "only_if": dict(only_if or {}),
    }
    return pydantic.Field(default, ge=None, le=None, description=help, json_schema_extra={**extra, "ge": ge, "le": le})


@dataclass(frozen=True)
class Field:
    """One declared parameter, as the front doors see it."""

    name: str
    kind: Literal["int", "float", "bool", "choice", "floats"]
    default: Value
    ge: float | None
    le: float | None
    live: tuple[float, float] | None
    scale: Literal["linear", "log"]
    symbol: str
    unit: str
    help: str
    only_if: Mapping[str, tuple[Value, ...]]
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "bool":
            return "true or false"
        noun = {"int": "a whole number", "float": "a number", "floats": "numbers separated by commas, each"}[self.kind]
        unit = f" ({self.unit})" if self.unit else ""
        if self.ge is not None and self.le is not None:
            return f"{noun} from {_number(self.ge)} to {_number(self.le)}{unit}"
        if self.ge is not None:
            return f"{noun} of at least {_number(self.ge)}{unit}"
        if self.le is not None:
            return f"{noun} of at most {_number(self.le)}{unit}"
        return noun + unit

    @property
    def condition(self) -> str:
        """When the field is active, in words; empty when always."""
        return " and ".join(
            f"{name} is {' or '.join(format_value(v) for v in values)}" for name, values in self.only_if.items()
        )

    def parse(self, text: str) -> Value:
        """The value written as `text` on a command line or in a URL.

        Raises:
            BadInput: the text is not a value of this kind (bounds are checked by the model).
        """
        if len(text) <= _LONGEST_TEXT:
            if self.kind == "int" and _INTEGER.fullmatch(text) and len(text) < 30:
                return int(text)
            if self.kind == "float" and _FLOAT.fullmatch(text):
                return float(text)
            if self.kind == "bool" and text in ("true", "false"):
                return text == "true"
            if self.kind == "choice" and text in self.choices:
                return text
            if self.kind == "floats" and all(_FLOAT.fullmatch(part) for part in text.split(",")):
                return tuple(float(part) for part in text.split(","))
        raise BadInput(Problem(self.name, text, f"it must be {self.allowed}", self.advice))

    def contains(self, value: Any) -> bool:
        """Whether a value of this kind lies within the bounds."""
        if self.kind in ("int", "float"):
            return self._within(value)
        return self.kind != "floats" or all(map(self._within, value))

    def _within(self, number: float) -> bool:
        return (self.ge is None or number >= self.ge) and (self.le is None or number <= self.le)

    def shown(self, value: Value) -> str:
        """A value of this kind, whatever its size, as a message tells it."""
        return shorten(value) if self.kind == "int" else format_value(value)

    @property
    def advice(self) -> str:
        return f"Leave it out for the default, {format_value(self.default)}."


class Params(pydantic.BaseModel):
    """Base of every lab's parameters: flat, frozen, strict, and free of NaN.

    Subclasses declare fields with :func:`param` and may override :meth:`rules` for what spans several fields.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    lab_id: ClassVar[str] = ""

    seed: int = param(0, ge=0, le=2**63 - 1, help="Entropy of every random stream of the run.")
    first_replicate: int = param(0, ge=0, le=10**9, help="Number of the first replicate.")
    replicates: int = param(4, ge=1, le=10_000, live=(1, 64), scale="log", help="Independent repetitions of the run.")

    def rules(self) -> Iterator[Problem]:
        """What is wrong with the fields together; nothing by default."""
        return iter(())

    @pydantic.model_validator(mode="before")
    @classmethod
    def _plain_values(cls, values: Any) -> Any:
        """NumPy scalars, lists and negative zeros become the plain values that the canonical form holds."""
        return {name: _plain(value) for name, value in values.items()} if isinstance(values, dict) else values

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._out_of_range(), *self._inactive_but_set()]
        problems = problems or list(self.rules())
        if problems:
            raise PydanticCustomError("problems", "{text}", {"text": " ".join(map(str, problems)), "all": problems})
        return self

    def _out_of_range(self) -> Iterator[Problem]:
        for field in self.fields().values():
            value = getattr(self, field.name)
            if not field.contains(value):
                yield Problem(field.name, field.shown(value), f"it must be {field.allowed}", field.advice)

    def _inactive_but_set(self) -> Iterator[Problem]:
        for name in sorted(self.model_fields_set):
            field = self.fields()[name]
            if not self.is_active(name):
                advice = f"Leave {name} out, or change " + " and ".join(field.only_if) + "."
                value = field.shown(getattr(self, name))
                yield Problem(name, value, f"it has a meaning only when {field.condition}", advice)

    @classmethod
    @cache
    def fields(cls) -> Mapping[str, Field]:
        """The declared fields by name: the lab's own first, then those of the base."""
        base = [name for name in cls.model_fields if name in Params.model_fields]
        own = [name for name in cls.model_fields if name not in Params.model_fields]
        return types.MappingProxyType({name: _field(name, cls.model_fields[name]) for name in own + base})

    @classmethod
    def make(cls, values: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Validated params from field values.

        Raises:
            BadInput: with one :class:`Problem` for each thing that is wrong.
        """
        given = {**(values or {}), **more}
        unknown = [name for name in given if name not in cls.fields()]
        if unknown:
            raise UnknownName(
                f"parameter of {cls.lab_id}" if cls.lab_id else "parameter", unknown[0], list(cls.fields())
            )
        try:
            return cls(**given)
        except pydantic.ValidationError as error:
            raise BadInput(*cls._problems(error)) from None

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> Self:
        """Validated params from the texts of a command line or a URL. Raises BadInput."""
        unknown = [name for name in texts if name not in cls.fields()]
        if unknown:
            raise UnknownName(
                f"parameter of {cls.lab_id}" if cls.lab_id else "parameter", unknown[0], list(cls.fields())
            )
        return cls.make({name: cls.fields()[name].parse(text) for name, text in texts.items()})

    @classmethod
    def _problems(cls, error: pydantic.ValidationError) -> Iterator[Problem]:
        for detail in error.errors():
            if detail["type"] == "problems":
                yield from detail["ctx"]["all"]
                continue
            field = cls.fields()[str(detail["loc"][0])]
            yield Problem(field.name, detail["input"], f"it must be {field.allowed}", field.advice)

    def is_active(self, name: str) -> bool:
        """Whether the field means anything for the values of the others."""
        return name in self._active_names(tuple(getattr(self, other) for other in self._deciding()))

    def active(self) -> dict[str, Value]:
        """The active fields and their values, in declared order."""
        names = self._active_names(tuple(getattr(self, other) for other in self._deciding()))
        return {name: getattr(self, name) for name in self.fields() if name in names}

    @classmethod
    @cache
    def _deciding(cls) -> tuple[str, ...]:
        """The fields whose values decide which others are active."""
        return tuple(dict.fromkeys(other for field in cls.fields().values() for other in field.only_if))

    @classmethod
    @lru_cache(maxsize=4096)
    def _active_names(cls, deciding: tuple[Value, ...]) -> frozenset[str]:
        """The fields that are active where the deciding ones have these values."""
        values, fields = dict(zip(cls._deciding(), deciding, strict=True)), cls.fields()

        def active(name: str) -> bool:
            return all(active(other) and values[other] in allowed for other, allowed in fields[name].only_if.items())

        return frozenset(filter(active, cls.fields()))

    def changed(self) -> dict[str, Value]:
        """The active fields whose value is not the default."""
        return {name: value for name, value in self.active().items() if value != self.fields()[name].default}

    def replace(self, **changes: Any) -> Self:
        """These params with some fields changed; what a change makes inactive falls back to its default.

        Raises:
            BadInput: a changed field is unknown, out of range, or inactive in the result.
        """
        changes = {name: _plain(value) for name, value in changes.items()}
        kept = {name: value for name, value in self.changed().items() if name not in changes}
        while True:
            inactive = self._inactive_in({**kept, **changes})
            dropped = [name for name in kept if name in inactive]
            if not dropped:
                return self.make({**kept, **changes})
            for name in dropped:
                del kept[name]

    def admits(self, name: str, value: Value) -> bool:
        """Whether `replace` would take this value of an active field; without building the params where it can."""
        field = self.fields()[name]
        if name in self._deciding():
            try:
                self.replace(**{name: value})
            except BadInput:
                return False
            return True
        return field.contains(value) and next(self.model_copy(update={name: value}).rules(), None) is None

    @classmethod
    def _inactive_in(cls, values: Mapping[str, Any]) -> set[str]:
        fields = cls.fields()
        deciding = (values.get(name, fields[name].default) for name in cls._deciding())
        active = cls._active_names(tuple(one if _is_value(one) else "" for one in deciding))
        return {name for name in fields if name not in active}

    def texts(self) -> dict[str, str]:
        """Active fields that differ from their defaults, as a command line or a URL writes them."""
        return {name: format_value(value) for name, value in self.changed().items()}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no blanks and shortest round-trip floats: equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def format_value(value: Any) -> str:
    """A value as the command line and the URL write it; `Field.parse` reads it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(format_value(entry) for entry in value)
    if isinstance(value, float):
        return _number(value)
    return shorten(value, _LONGEST_TEXT) if isinstance(value, str) else str(value)


def _number(value: float) -> str:
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text


def _plain(value: Any) -> Any:
    value = _unwrapped(value)
    return tuple(map(_unwrapped, value)) if isinstance(value, list | tuple) else value


def _unwrapped(value: Any) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) is not None:
        value = value.tolist()
    return 0.0 if isinstance(value, float) and value == 0.0 else value


def _is_value(value: Any) -> bool:
    return isinstance(value, Scalar) or (isinstance(value, tuple) and all(isinstance(one, Scalar) for one in value))


def _field(name: str, info: pydantic.fields.FieldInfo) -> Field:
    extra = typing.cast(dict[str, Any], info.json_schema_extra)
    kinds: dict[Any, Any] = {int: "int", float: "float", bool: "bool", tuple[float, ...]: "floats"}
    choices = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is Literal else ()
    kind: Any = "choice" if choices else kinds[info.annotation]
    return Field(name=name, kind=kind, default=info.default, help=info.description or "", choices=choices, **extra)
