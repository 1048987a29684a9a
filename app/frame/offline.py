"""A page as one file: the player, its library and the runs inside, for slides and rooms without a network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from app.vega import vega
from sims.engine import Verdict
from sims.engine.budget import command_line
from sims.engine.describe import citation, figure_caption

from .formula import Formula, as_html, shown
from .labels import on_lines
from .pictures import Picture, band_words, by_clock
from .player import HERE, pack
from .runs import View
from .verdicts import MARKS, MEANING, number

_ENTRY = "export default function ("  # how the player's script ends: as a function that Streamlit calls
# No request can leave the file: neither scripts nor pictures nor fonts may come from anywhere else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"

_STYLE = """
:root {
  color-scheme: light dark;
  --st-font: system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif;
  --st-primary-color: #1f5f8b; --st-background-color: #ffffff; --st-text-color: #1c2321;
  --st-heading-color: #1c2321; --st-border-color: #d5d9d6; --link: #1f5f8b; --muted: #55605c;
  --st-base-radius: 0.25rem; --st-button-radius: 0.25rem;
}
@media (prefers-color-scheme: dark) {
  :root {
    --st-primary-color: #3a7ca8; --st-background-color: #111815; --st-text-color: #eef2ef;
    --st-heading-color: #eef2ef; --st-border-color: #3a4943; --link: #9ccbea; --muted: #b4bdb8;
  }
}
body {
  margin: 0 auto; padding: 1rem 1.25rem 3rem; max-width: 80rem; font: 1rem/1.5 var(--st-font);
  color: var(--st-text-color); background: var(--st-background-color);
}
body, pre { overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0.25rem 0; }
h2 { font-size: 1.25rem; }
a { color: var(--link); }
.note, footer { color: var(--muted); font-size: 0.875rem; }
.stage { margin-block: 1rem; }
#projector {
  float: right; font: inherit; color: inherit; background: none; border: 1px solid var(--st-border-color);
  border-radius: var(--st-button-radius); padding: 0.3rem 0.7rem; cursor: pointer;
}
:is(#projector, a):focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.75rem 0.4rem 0; border-bottom: 1px solid; }
th, td { border-color: var(--st-border-color); }
.table, pre { overflow-x: auto; }
pre { white-space: pre-wrap; font-size: 0.8rem; }
body[data-present="true"] { max-width: none; font-size: 1.25rem; }
"""

_SCRIPT = """
const stages = [...document.querySelectorAll(".stage")].map((stage) => {
  const shadow = stage.attachShadow({ mode: "open" });
  const style = document.createElement("style");
  style.textContent = document.getElementById("player-style").textContent;
  const root = document.createElement("div");
  shadow.append(style, root);
  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return { root, desk: bytes(stage.dataset.desk), room: bytes(stage.dataset.room) };
});
let present = document.body.dataset.present === "true";

function show() {
  document.body.dataset.present = String(present);
  document.getElementById("projector").setAttribute("aria-pressed", String(present));
  for (const { root, desk, room } of stages) mount({ data: present ? room : desk, parentElement: root });
}

document.getElementById("projector").addEventListener("click", () => {
  present = !present;
  show();
});
document.addEventListener("keydown", (event) => {
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && event.key.toLowerCase() === "p") document.getElementById("projector").click();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
show();
"""


def offline_page(view: View, pictures: Sequence[Picture], formulas: Sequence[Formula], link: str) -> bytes:
    """The page of a view as HTML that needs nothing else; `link` leads back to the live page.

    Each player is in it twice: with legends for a desk, and with names on its lines for a room.
    """
    lab, run = view.lab, view.focus
    preset = lab.preset(view.state.preset)
    says = html.escape
    paper = f'{says(lab.paper.authors)}: <a href="https://arxiv.org/abs/{lab.paper.arxiv}">{says(lab.paper.title)}</a>'
    stages = "".join(
        _stage(view, clock, group, index) for index, (clock, group) in enumerate(by_clock(pictures).items())
    )
    theory = "".join(map(as_html, shown(formulas, run)))
    words = "".join(f"<p><strong>{says(p.title)}.</strong> {says(p.alt)}</p>" for p in pictures)
    style, formula, player = (
        (HERE / name).read_text(encoding="utf-8") for name in ("player.css", "formula.css", "player.js")
    )
    if player.count(_ENTRY) != 1:
        raise ValueError("the player's script does not end in the function that mounts it")
    player = player.replace(_ENTRY, "function mount(")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{says(lab.title)}: {says(preset.title)}</title>
<style>{_STYLE}{_inside(formula)}</style>
<style id="player-style" media="not all">{_inside(style)}</style>
</head>
<body data-present="{str(view.present).lower()}">
<header>
<button id="projector" type="button" aria-pressed="false">Projector mode (P)</button>
<h1>{says(lab.title)}</h1>
<p><em>{says(lab.sentence)}</em><br>{paper}, {lab.paper.year}</p>
<p><strong>{says(preset.title)}.</strong> {says(preset.notice)}</p>
</header>
<main>
{stages}
<p class="note">{says(band_words(view))}</p>
{f'<h2>What the theory says, in numbers</h2><div class="formulas">{theory}</div>' if theory else ""}
<h2>Does the theory hold here?</h2>
{_verdicts(run.claims)}
<h2>The pictures in words</h2>
{words}
</main>
<footer>
<p>{says(figure_caption(lab, view.runs))} Trace {run.trace_sha256}.</p>
<p>The live page: <a href="{says(link)}">{says(link)}</a></p>
<pre>{says(command_line(lab, run.params))}

{says(lab.paper.bibtex.strip())}

{says(citation(lab, run))}</pre>
</footer>
<script type="module">{_inside(vega()[0].decode())}</script>
<script type="module">{_inside(player)}
{_SCRIPT}</script>
</body>
</html>
""".encode()


def _stage(view: View, clock: tuple[int, ...], group: Sequence[Picture], index: int) -> str:
    desk, room = (
        base64.b64encode(
            pack(
                [picture.for_player() for picture in pictures],
                steps=clock or None,
                step_label="step",
                key=f"offline/{view.lab.id}/{index}",
                present=present,
            )
        ).decode()
        for present, pictures in ((False, group), (True, list(map(on_lines, group))))
    )
    return f'<div class="stage" data-desk="{desk}" data-room="{room}"></div>\n'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "<p>No claim speaks of this kind of run.</p>"
    rows = "".join(
        f"<tr><th scope=row>{MARKS[verdict.verdict]}</th>"
        f'<td>{html.escape(verdict.statement)}<br><span class="note">{html.escape(verdict.reason)}</span></td>'
        f"<td>{number(verdict.predicted)}</td>"
        f"<td>{number(verdict.measured)}{f' ± {verdict.error:.2g}' if verdict.error else ''}</td>"
        f"<td>{number(verdict.tolerance)}</td></tr>"
        for verdict in verdicts
    )
    head = "".join(f"<th scope=col>{name}</th>" for name in ("verdict", "claim", "predicted", "measured", "tolerance"))
    meaning = html.escape(MEANING.replace("**", ""))
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="Verdicts"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="note">{meaning}</p>'
    )


def _inside(text: str) -> str:
    """A script or style as it may stand inside HTML: nothing in it ends it early."""
    return text.replace("</script", r"<\/script").replace("</style", r"<\/style").replace("<!--", r"<\!--")
