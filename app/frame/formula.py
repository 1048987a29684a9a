"""Formulas with the numbers of the run in focus put in, their symbols linked to the sliders.

A lab declares its formulas as LaTeX in which `<name>` stands for a parameter or for one of the formula's own numbers,
and `<*>` for a product that numbers need a dot for. They are drawn as MathML, which a screen reader reads and a file
without a network holds.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from latex2mathml.converter import convert
from streamlit.components.v2 import component

from sims.engine import Params, Run

Numbers = Mapping[str, float]

_NAME = re.compile(r"<([A-Za-z][A-Za-z_0-9]*|\*)>")
_FIRST = 0xE000  # the first sign for private use: stands for a name while LaTeX is converted
_IDENTIFIER = re.compile("(<msup>)?<mi>([\ue000-\uf8ff])</mi>")
_INSIDE = re.compile(r"<math[^>]*>(.*)</math>", re.S)
_WIDE = 28  # signs of a formula that wants the whole width
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Formula:
    """One formula of a lab.

    Args:
        says: a sentence on what it is about.
        left: the left-hand side, LaTeX.
        right: the right-hand side, LaTeX with names (see above).
        value: the right-hand side's number, from those of its names.
        predicts: the name of the prediction that this number is (the last one of a series), or what computes it from
            a run; tests hold the two to each other. A metric of that name is shown as measured.
        relation: what stands between the sides.
        numbers: the numbers of names that are no parameters, and what else `value` needs, from the run.
        symbols: the symbols of such names, LaTeX; also of a parameter that goes by another one here.
        when: whether it speaks of a run with these params.
        tolerance: how far, relatively, the number may be from what it predicts: of an approximation.
    """

    says: str
    left: str
    right: str
    value: Callable[[Numbers], float]
    predicts: str | Callable[[Run], float]
    relation: str = "="
    numbers: Callable[[Run], Numbers] = lambda run: {}
    symbols: Mapping[str, str] = field(default_factory=dict)
    when: Callable[[Any], bool] = lambda params: True
    tolerance: float = 1e-9

    @property
    def names(self) -> tuple[str, ...]:
        """The names on its right-hand side, in order, each once."""
        return tuple(dict.fromkeys(name for name in _NAME.findall(self.right) if name != "*"))


@dataclass(frozen=True)
class Shown:
    """A formula as it is drawn: in words, in symbols and in numbers (MathML), and what a run measured."""

    says: str
    symbols: str
    numbers: str
    names: tuple[str, ...]
    measured: str


def numbers_of(formula: Formula, run: Run) -> dict[str, float]:
    """The number of each name of a formula. Raises KeyError for one that neither the params nor the formula has."""
    own, params = formula.numbers(run), run.params.active()
    return {**own, **{name: float(params[name]) for name in formula.names if name not in own}}  # type: ignore[arg-type]


def predicted(formula: Formula, run: Run) -> float | None:
    """The number that a formula's is to be, by the lab's own theory; None where that is silent."""
    if callable(formula.predicts):
        return formula.predicts(run)
    found = run.prediction.prediction[formula.predicts]
    return None if found is None else float(np.asarray(found).reshape(-1)[-1])


def shown(formulas: Sequence[Formula], run: Run, changed: str | None = None) -> list[Shown]:
    """Those of the formulas that speak of a run; the name changed last is marked."""
    return [_shown(formula, run, changed) for formula in formulas if formula.when(run.params)]


def _shown(formula: Formula, run: Run, changed: str | None) -> Shown:
    numbers = numbers_of(formula, run)
    symbols = {name: _symbol(formula, name, run.params) for name in formula.names}
    left, relation = _mathml(formula.left), _mathml(formula.relation)
    value = f"<mo>=</mo>{_number(formula.value(numbers))}"
    marks = {name: _marks(name, run.params, changed) for name in formula.names}
    inner = _put_in(formula.right, {name: f"<mrow{marks[name]}>{symbols[name]}</mrow>" for name in symbols}, False)
    values = {name: f"<mrow{marks[name]}>{_number(numbers[name])}</mrow>" for name in formula.names}
    put_in = _put_in(formula.right, values, True)
    return Shown(
        formula.says,
        f'<math display="block"><mrow>{left}{relation}{inner}</mrow></math>',
        f'<math display="block"><mrow>{relation}{put_in}{value}</mrow></math>',
        formula.names,
        _measured(formula, run),
    )


def _symbol(formula: Formula, name: str, params: Params) -> str:
    declared = params.fields().get(name)
    return _mathml(formula.symbols.get(name) or (declared.symbol if declared else "") or rf"\mathrm{{{name}}}")


def _marks(name: str, params: Params, changed: str | None) -> str:
    kinds = "symbol changed" if name == changed else "symbol"
    return f' class="{kinds}" data-name="{html.escape(name)}"' if name in params.fields() else ""


def _measured(formula: Formula, run: Run) -> str:
    metric = run.metrics.get(formula.predicts) if isinstance(formula.predicts, str) else None
    if metric is None or metric.mean is None:
        return ""
    spread = f" ± {metric.se:.2g}" if metric.se else ""
    return f"Measured: {metric.mean:.4g}{spread}.".replace("-", "−")


@lru_cache(maxsize=512)
def _mathml(latex: str) -> str:
    """LaTeX as MathML, without the element around it."""
    found = _INSIDE.fullmatch(convert(latex))
    assert found is not None, latex
    return found[1]


@lru_cache(maxsize=512)
def _template(latex: str) -> tuple[str, tuple[str, ...]]:
    """The MathML of LaTeX with names, a private sign for each, and the names in order of their signs."""
    names = tuple(dict.fromkeys(_NAME.findall(latex)))
    signs = {name: chr(_FIRST + at) for at, name in enumerate(names)}
    return _mathml(_NAME.sub(lambda found: signs[found[1]], latex)), names


def _put_in(latex: str, parts: Mapping[str, str], numeric: bool) -> str:
    """The MathML of LaTeX with a part for each name; a number with a power of its own goes into brackets."""
    template, names = _template(latex)
    product = "<mo>·</mo>" if numeric else "<mo>&#x2062;</mo>"

    def part(found: re.Match[str]) -> str:
        name = names[ord(found[2]) - _FIRST]
        base = found[1] or ""
        if name == "*":
            return base + product
        made = parts[name]
        after_minus = template[: found.start()].endswith("<mo>&#x02212;</mo>")
        bracketed = numeric and ((base and "<msup>" in made) or ((base or after_minus) and "−" in made))
        return base + (f"<mrow><mo>(</mo>{made}<mo>)</mo></mrow>" if bracketed else made)

    return _IDENTIFIER.sub(part, template)


def _number(value: float) -> str:
    """Four digits as MathML, with a power of ten where that is shorter."""
    if not np.isfinite(value):
        return "<mi>∞</mi>" if value > 0 else "<mtext>–</mtext>"
    text = f"{value:.4g}"
    mantissa, _, power = text.partition("e")
    sign = "<mo>−</mo>" if mantissa.startswith("-") else ""
    digits = f"<mn>{mantissa.lstrip('-')}</mn>"
    if not power:
        if abs(value) >= 1e4:
            digits = f"<mn>{abs(value):,.0f}</mn>"
        return f"<mrow>{sign}{digits}</mrow>"
    exponent = f"<mo>−</mo><mn>{abs(int(power))}</mn>" if int(power) < 0 else f"<mn>{int(power)}</mn>"
    ten = f"<msup><mn>10</mn><mrow>{exponent}</mrow></msup>"
    times = "" if mantissa.lstrip("-") == "1" else f"{digits}<mo>·</mo>"
    return f"<mrow>{sign}{times}{ten}</mrow>"


_mount = component(
    "chalkline_formulas",
    css=(HERE / "formula.css").read_text(encoding="utf-8"),
    js=(HERE / "formula.js").read_text(encoding="utf-8"),
)


def formulas(lab_id: str, drawn: str, present: bool = False) -> None:
    """Show formulas drawn by `as_html`; whoever points at a slider sees its symbols, and at a symbol its slider."""
    _mount(key=f"formulas/{lab_id}", data={"lab": lab_id, "present": present, "html": drawn})


def as_html(item: Shown) -> str:
    """One formula as HTML."""
    measured = f'<p class="measured">{html.escape(item.measured)}</p>' if item.measured else ""
    wide = " wide" if len(re.sub("<[^>]*>|&[^;]*;", "", item.numbers)) > _WIDE else ""
    return (
        f'<section class="formula{wide}"><p>{html.escape(item.says)}</p>'
        f'<div class="sides" tabindex="0" role="group" aria-label="{html.escape(item.says)}">'
        f"{item.symbols}{item.numbers}</div>{measured}</section>"
    )
