"""Options of a command: a table, turned into a parser by tyro when there is something to parse.

Values stay texts: what they may be is said once, by the params models, and read by their own strict parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from .errors import UnknownName

_DEFAULTS: dict[str, Any] = {"flag": False, "text": None, "texts": (), "words": ()}


@dataclass(frozen=True)
class Option:
    """One option: a `flag`, a `text` (`--name VALUE`), `texts` (the same, any number of times), or `word` and `words`,
    which stand without a name.

    A text may be `required`; a word always is.
    """

    name: str
    help: str
    kind: Literal["flag", "text", "texts", "word", "words"] = "flag"
    metavar: str = ""
    required: bool = False

    @property
    def written(self) -> str:
        return "--" + self.name.replace("_", "-")


def parse(prog: str, summary: str, options: Sequence[Option], arguments: Sequence[str]) -> Any:
    """The options' values as attributes.

    Raises:
        UnknownName: an option that the command does not have.
        SystemExit: help was asked for (0), or an option cannot be parsed (2); tyro has printed why.
    """
    flags = {option.written: option.name for option in options if option.kind == "flag"}
    if set(arguments) <= set(flags) and not any(option.required or option.kind == "word" for option in options):
        given = {flags[argument]: True for argument in arguments}  # nothing to parse: tyro's import is saved
        return SimpleNamespace(**{option.name: _DEFAULTS[option.kind] for option in options} | given)
    import tyro

    shape = _shape(options)
    config = (tyro.conf.FlagCreatePairsOff,)
    found: Any
    found, unknown = tyro.cli(
        shape, prog=prog, description=summary, args=list(arguments), config=config, return_unknown_args=True
    )
    if unknown:
        raise UnknownName(f"option of {prog}", unknown[0], [option.written for option in options])
    return found


def _shape(options: Sequence[Option]) -> type:
    from dataclasses import field, make_dataclass

    return make_dataclass(
        "Options",
        [
            (option.name, _type(option))
            if option.required or option.kind == "word"
            else (option.name, _type(option), field(default=_DEFAULTS[option.kind]))
            for option in sorted(options, key=lambda option: not (option.required or option.kind == "word"))
        ],
    )


def _type(option: Option) -> Any:
    from typing import Annotated

    import tyro

    described = tyro.conf.arg(help=option.help, help_behavior_hint="")
    if option.kind == "flag":
        return Annotated[bool, described]
    if option.kind == "words":
        return Annotated[tuple[str, ...], tyro.conf.Positional, described]
    if option.kind == "texts":
        named = tyro.conf.arg(help=option.help, help_behavior_hint="(any number of times)", metavar=option.metavar)
        return Annotated[tuple[str, ...], tyro.conf.UseAppendAction, named]
    # tyro would read the word None as no value
    as_written = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=option.metavar or option.name.upper(),
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    )
    if option.kind == "word":
        return Annotated[str, as_written, tyro.conf.Positional, described]
    return Annotated[str if option.required else str | None, as_written, described]
