"""What a stranger may reach: no file, shell, pickle or HTML from an address, a message, a name or a stored run.

The gate, the metrics and foreign origins are in app/test_server.py, sealed manifests in sims/engine/test_store.py,
the container image in test_image.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pandas as pd
import pytest

from app.frame.export import safe_text
from app.sweeps import csv_of
from sims.engine import BadInput, UnknownName, get_lab
from sims.engine.store import Store
from sims.engine.sweep_store import sweep_path
from tests.test_house import ROOT, dotted, flags, over_the_tree, python_files

# Calls that run what they are given, or read a format that does.
PROGRAMS = re.compile(
    r"(eval|exec|compile|os\.system|os\.popen|pickle\.loads?|marshal\.loads?|shelve\.open|yaml\.load|joblib\.load|"
    r"(pd|pandas)\.read_pickle|__import__)"
)


def no_program_law(source: str, name: str) -> Iterator[str]:
    """Nothing that is read becomes a program: no eval, shell, pickle; torch and NumPy load plain arrays alone."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        named = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else None for k in node.keywords}
        if PROGRAMS.fullmatch(called):
            yield f"calls {called}"
        if named.get("shell") is not None or "shell" in named:
            yield f"{called} may use a shell"
        if called == "torch.load" and named.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if called in ("np.load", "numpy.load") and named.get("allow_pickle") is not False:
            yield "np.load without allow_pickle=False"
        if "unsafe_allow_html" in named or "unsafe_allow_javascript" in named:
            yield f"{called} may pass HTML"


def html_law(source: str, name: str) -> Iterator[str]:
    """`st.html` is given words of the source alone, or names that this file's constants and look.py's style have."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func) == "st.html" and node.args:
            for inner in ast.walk(node.args[0]):
                if isinstance(inner, ast.Attribute) and dotted(inner).startswith(
                    ("st.query_params", "st.session_state")
                ):
                    yield f"line {node.lineno} passes {dotted(inner)} as HTML"


def test_nothing_that_is_read_becomes_a_program_or_html():
    files = python_files("app", "sims", "theory")
    assert over_the_tree(no_program_law, files) == [] and over_the_tree(html_law, files) == []


@pytest.mark.parametrize(
    "source",
    ["eval(x)", "exec(x)", "os.system(x)", "subprocess.run(x, shell=True)", "pickle.loads(x)", "np.load(x)",
     "np.load(x, allow_pickle=True)", "torch.load(x)", "st.markdown(x, unsafe_allow_html=True)"],
)  # fmt: skip
def test_what_would_is_flagged(source):
    assert flags(no_program_law, source)
    assert not flags(no_program_law, "np.load(x, allow_pickle=False)\ntorch.load(x, weights_only=True)\nf(x)")
    assert flags(html_law, "st.html(st.query_params['x'])") and not flags(html_law, "st.html(STYLE)")


PATHS = [
    "../../etc/passwd", "..", "/etc/passwd", "a/../../b", "..%2f..%2fetc%2fpasswd", "....//etc", "\x00", "~root", "-rf",
    "$(id)", "`id`", "a;id", "a|id", "C:\\windows", "\\\\host\\share", "a\nb", "é" * 70,
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_no_name_leads_out_of_the_store(name, own_store):
    store = Store(own_store)
    with pytest.raises(UnknownName):
        get_lab(name)
    for find in (store.find, store.load, store.holds, store.resolve):
        with pytest.raises(BadInput):
            find(name)
    with pytest.raises(BadInput):
        sweep_path(store, name)
    assert not own_store.exists()


@pytest.mark.parametrize("sign", "=+-@")
def test_text_that_a_spreadsheet_would_run_is_quoted_in_every_table(sign):
    formula = f"{sign}HYPERLINK(1)"
    assert safe_text(formula) == "'" + formula
    table = pd.DataFrame({"noise": [formula, "plain"], "x": [-1.5, 2.0]})
    lines = csv_of(table).decode().splitlines()
    assert lines[1].startswith(f"'{sign}") or lines[1].startswith(f"\"'{sign}")
    assert lines[1].endswith("-1.5"), "a number is none"


def test_the_tree_holds_no_secret():
    found = [
        path for name in ("secrets.toml", ".env", "id_rsa") for path in ROOT.rglob(name) if ".venv" not in path.parts
    ]
    assert found == []
    assert "secrets" not in (ROOT / ".streamlit" / "config.toml").read_text()
