"""Labs and predictions as plain data, for `--json` and for the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .lab import Lab, Prediction
from .params import Params, format_value

if TYPE_CHECKING:
    from .execute import Run


def describe(lab: Lab) -> dict[str, Any]:
    """Everything declared about a lab."""
    return {
        "lab": lab.id,
        "version": lab.version,
        "title": lab.title,
        "sentence": lab.sentence,
        "theme": lab.theme,
        "paper": asdict(lab.paper),
        "params": [
            {
                "name": field.name,
                "type": field.kind,
                "default": field.default,
                "ge": field.ge,
                "le": field.le,
                "live": field.live,
                "scale": field.scale,
                "choices": list(field.choices),
                "allowed": field.allowed,
                "symbol": field.symbol,
                "unit": field.unit,
                "help": field.help,
                "active_when": field.condition,
            }
            for field in lab.params.fields().values()
        ],
        "presets": [
            {
                "id": preset.id,
                "title": preset.title,
                "notice": preset.notice,
                "params": dict(preset.params),
                "beside": {label: dict(changes) for label, changes in preset.beside.items()},
                "expect": dict(preset.expect),
            }
            for preset in lab.presets
        ],
        "claims": [{"id": c.id, "statement": c.statement, "source": c.source} for c in lab.claims],
        "streams": dict(lab.streams),
        "changes": [{"version": c.version, "summary": c.summary} for c in lab.changes],
    }


def prediction_dict(lab: Lab, params: Params, prediction: Prediction) -> dict[str, Any]:
    """A prediction as `predict --json` prints it."""
    return {
        "lab": lab.id,
        "version": lab.version,
        "params": dict(params.active()),
        "step": prediction.step,
        "prediction": dict(prediction.prediction),
        "about": {name: asdict(about) for name, about in prediction.about.items()},
    }


def python_snippet(lab: Lab, params: Params) -> str:
    """The lines of Python that repeat a run."""
    arguments = "".join(f", {name}={value!r}" for name, value in params.changed().items())
    return f'from sims import run\n\nresult = run("{lab.id}"{arguments})\nprint(result.trace_sha256)\n'


def caption(lab: Lab, params: Params) -> str:
    """The params of a run in one line: those that differ from the lab's defaults."""
    changed = ", ".join(f"{name} = {format_value(value)}" for name, value in params.changed().items())
    return f"{lab.title}: {changed or 'default parameters'}"


def figure_caption(lab: Lab, runs: Mapping[str, Run]) -> str:
    """What a figure of these runs is made from, in one line: software, lab, and each run's params and key."""
    made = next(iter(runs.values())).provenance["software"]
    drawn = [
        f"{label}: {caption(lab, run.params).removeprefix(f'{lab.title}: ')} [{run.key[:12]}]"
        for label, run in runs.items()
    ]
    return f"{lab.title}, version {lab.version}, {made}. {'; '.join(drawn)}."


def citation(lab: Lab, run: Run) -> str:
    """A BibTeX entry for one run: software, lab, versions, key and trace hash."""
    made = run.provenance
    where = f", commit {made['commit']}" if made.get("commit") else ""
    return f"""@misc{{chalkline_{lab.id}_{run.key[:12]},
  author = {{{{The Chalkline authors}}}},
  title  = {{{{{caption(lab, run.params)}}}}},
  year   = {{{made["created"][:4]}}},
  note   = {{{made["software"]}{where}, lab {lab.id} version {run.version}, key {run.key}, trace SHA-256
            {run.trace_sha256}, grade {made["grade"]}; simulates {lab.paper.title} (arXiv {lab.paper.arxiv})}},
}}"""
