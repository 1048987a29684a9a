"""Lints over the whole tree. Each rule is also shown a sample that it must flag."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sims.engine import lab_ids

ROOT = Path(__file__).resolve().parent.parent
CODE = ("app", "benchmarks", "sims", "tests", "theory")
TEXT = (".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml")
LABS = lab_ids()


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    inside = [path for folder in (*CODE, "docs", "tools", ".ci", ".streamlit") for path in (ROOT / folder).rglob("*")]
    found = [path for path in [*inside, *ROOT.iterdir()] if path.is_file() and "__pycache__" not in path.parts]
    text = [path for path in found if path.suffix in TEXT or path.name in ("Makefile", "Dockerfile")]
    return sorted(path for path in text if path != Path(__file__))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


Rule = Callable[[str, str], Iterator[str]]


def over_the_tree(rule: Rule, files: list[Path]) -> list[str]:
    assert files
    read = [(path.read_text(encoding="utf-8"), name_of(path)) for path in files]
    return [f"{name}: {bad}" for source, name in read for bad in rule(source, name)]


def flags(rule: Rule, source: str, name: str = "sims/label_noise/kernels.py") -> bool:
    return bool(list(rule(source, name)))


# -- who may import whom -------------------------------------------------------------------------------------------


def imports(source: str, name: str, top_only: bool = False) -> Iterator[str]:
    """Full names of the imported modules; type-checking blocks count, but not as top-level code."""
    package = name.split("/")[:-1]
    tree = ast.parse(source)
    nodes = tree.body if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def import_law(source: str, name: str) -> Iterator[str]:
    parts = name.split("/")
    forbidden: set[str] = set()
    if parts[0] == "theory":
        forbidden = {"sims", "app", "streamlit", "altair"}
    elif parts[0] == "sims":
        forbidden = {"app", "streamlit", "altair"} | {f"sims.{lab}" for lab in LABS if lab != parts[1]}
    if parts[-1] == "kernels.py":
        forbidden |= {"theory", "torch", "scipy"}
    for module in imports(source, name):
        for word in forbidden:
            if module == word or module.startswith(word + "."):
                yield f"imports {module}"


def light_front_door(source: str, name: str) -> Iterator[str]:
    """What `lab.py` imports at its top: the standard library, pydantic, and the engine."""
    for module in imports(source, name, top_only=True):
        if module.split(".")[0] not in {*sys.stdlib_module_names, "pydantic"} and not module.startswith("sims.engine"):
            yield f"imports {module} at its top"


def test_imports_run_one_way():
    assert over_the_tree(import_law, python_files("sims", "theory")) == []


def test_the_front_door_of_a_lab_is_light():
    assert over_the_tree(light_front_door, [ROOT / "sims" / lab / "lab.py" for lab in LABS]) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import sims", "theory/mirror.py"),
        ("from sims.engine import Lab", "theory/mirror.py"),
        ("def f():\n    import app.main", "theory/mirror.py"),
        ("def f():\n    from app import main", "sims/engine/execute.py"),
        ("import streamlit as st", "sims/engine/jobs.py"),
        ("if TYPE_CHECKING:\n    import altair", "sims/label_noise/lab.py"),
        ("import importlib\nimportlib.import_module('streamlit')", "sims/engine/jobs.py"),
        ("from ..label_noise import kernels", "sims/another/lab.py"),
        ("from .. import label_noise", "sims/another/lab.py"),
        ("def f():\n    import sims.label_noise.lab", "sims/engine/execute.py"),
        ("from theory.mirror import projection", "sims/label_noise/kernels.py"),
        ("def f():\n    import theory", "sims/label_noise/kernels.py"),
    ],
)
def test_a_forbidden_import_is_flagged(source, name):
    assert flags(import_law, source, name)


@pytest.mark.parametrize("source", ["import numpy", "from . import kernels", "from theory import x", "import scipy"])
def test_a_heavy_front_door_is_flagged(source):
    assert flags(light_front_door, source, "sims/label_noise/lab.py")


def test_allowed_imports_pass():
    inside = "import json\nimport pydantic\nfrom ..engine import Lab\ndef f():\n    from . import kernels, numpy"
    assert not flags(light_front_door, inside, "sims/label_noise/lab.py")
    assert not flags(import_law, inside + "\nfrom theory import label_noise", "sims/label_noise/lab.py")


# -- kernels -------------------------------------------------------------------------------------------------------

DECORATION = {"nogil": True, "cache": True, "error_model": "numpy"}
INLINED = {**DECORATION, "inline": "always"}  # what a step calls that takes no longer than a call
OTHER_DECORATORS = {"jit", "vectorize", "guvectorize", "stencil", "cfunc", "generated_jit", "prange"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def jitted(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if dotted(called).split(".")[-1] == "njit":
                    yield node, decorator


def kernel_law(source: str, name: str) -> Iterator[str]:
    """Every kernel is decorated in the one allowed way, at module level, and draws from passed generators only."""
    tree = ast.parse(source)
    decorators = set()
    for function, decorator in jitted(tree):
        decorators.add(decorator.func if isinstance(decorator, ast.Call) else decorator)
        keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
        given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else None for k in keywords}
        if given not in (DECORATION, INLINED) or (isinstance(decorator, ast.Call) and decorator.args):
            yield f"{function.name} must be decorated with exactly {DECORATION}, not {given}"
        if function not in tree.body:
            yield f"{function.name} is not at module level"
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and re.match(r"(np\.|numpy\.)?random\.", dotted(node)):
                yield f"{function.name} draws from a global generator: {dotted(node)}"
    for node in ast.walk(tree):
        called = dotted(node).split(".")[-1] if isinstance(node, ast.Name | ast.Attribute) else ""
        if called == "njit" and node not in decorators:
            yield "njit is used other than as a decorator"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            yield from (f"uses numba.{alias.name}" for alias in node.names if alias.name in OTHER_DECORATORS)
        if isinstance(node, ast.Attribute) and dotted(node.value) in ("numba", "nb") and node.attr in OTHER_DECORATORS:
            yield f"uses numba.{node.attr}"


# Kernels of which no run consists, and why they end soon whatever they are called with.
NO_RUN = {"log_walk": "the walk of a single weight, a nanosecond a step, drawn beside the lab and never by a run"}


def cancel_law(source: str, name: str) -> Iterator[str]:
    """A loop whose length follows from a parameter `steps` looks at `cancel`, itself or through what it calls."""
    for function, _ in jitted(ast.parse(source)):
        if function.name not in NO_RUN and any(argument.arg == "steps" for argument in function.args.args):
            for loop in step_loops(function):
                if not mentions(loop, {"cancel"}):
                    yield f"{function.name} loops over steps at line {loop.lineno} and does not look at cancel"


def mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id in names for inner in ast.walk(node))


def step_loops(function: ast.FunctionDef) -> list[ast.For | ast.While]:
    """The outermost loops bounded by `steps`, or by a variable computed from it."""
    bounds = {"steps"}
    while True:
        assignments = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        targets = [target for node in assignments if mentions(node.value, bounds) for target in node.targets]
        names = {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        if names <= bounds:
            break
        bounds |= names
    found: list[ast.For | ast.While] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            bound = child.iter if isinstance(child, ast.For) else child.test if isinstance(child, ast.While) else None
            if isinstance(child, ast.For | ast.While) and bound is not None and mentions(bound, bounds):
                found.append(child)
            else:
                visit(child)

    visit(function)
    return found


def test_kernels_keep_the_law():
    files = python_files("sims", "theory")
    assert over_the_tree(kernel_law, files) == []
    assert any(True for path in files for _ in jitted(ast.parse(path.read_text()))), "the lint finds no kernel at all"


def test_loops_over_steps_can_be_cancelled():
    files = python_files("sims", "theory")
    assert over_the_tree(cancel_law, files) == []
    looping = {f.name for path in files for f, _ in jitted(ast.parse(path.read_text())) if step_loops(f)}
    assert looping - NO_RUN.keys(), "the lint finds no loop over steps at all"
    assert NO_RUN.keys() <= looping, "an exception that is no longer needed"
    runs = [ROOT / "sims" / lab / "lab.py" for lab in LABS]
    assert not [path for path in runs for kernel in NO_RUN if kernel in path.read_text()], "a run consists of it"


GOOD = '@njit(nogil=True, cache=True, error_model="numpy")\ndef f(x, rng):\n    return rng.standard_normal()\n'


@pytest.mark.parametrize(
    "source",
    [
        GOOD.replace("nogil=True, ", ""),
        GOOD.replace("cache=True, ", ""),
        GOOD.replace(', error_model="numpy"', ""),
        GOOD.replace("nogil=True", "nogil=False"),
        GOOD.replace("nogil=True", "nogil=True, parallel=True"),
        GOOD.replace("nogil=True", "nogil=True, fastmath=True"),
        GOOD.replace("nogil=True", "nogil=True, fastmath={'nnan'}"),
        GOOD.replace("nogil=True", "nogil=True, inline='never'"),
        GOOD.replace('@njit(nogil=True, cache=True, error_model="numpy")', "@njit"),
        GOOD.replace("@njit", "@numba.jit") + "import numba\n",
        GOOD.replace("rng.standard_normal()", "np.random.standard_normal()"),
        GOOD.replace("rng.standard_normal()", "np.random.default_rng(0).normal()"),
        "g = njit(nogil=True)(f)\n",
        "from numba import prange\n",
        "from numba import vectorize\n",
        "def outer():\n" + "".join(f"    {line}\n" for line in GOOD.splitlines()),
    ],
)
def test_a_bad_kernel_is_flagged(source):
    assert not flags(kernel_law, GOOD)
    assert not flags(kernel_law, GOOD.replace("nogil=True", "nogil=True, inline='always'"))
    assert flags(kernel_law, source)


POLL = "        if cancel[0]:\n            return\n"
LOOP = f"@njit\ndef f(x, steps, cancel):\n    for k in range(steps + 1):\n{POLL}        x += 1\n"


@pytest.mark.parametrize(
    "source",
    [
        LOOP.replace(POLL, ""),
        LOOP.replace(POLL, "").replace("for k", "if cancel[0]:\n        return\n    for k"),
        "@njit\ndef f(steps, cancel):\n    last = steps - 1\n    for k in range(last):\n        g(k)\n",
        "@njit\ndef f(steps):\n    k = 0\n    while k < steps:\n        k += 1\n",
        "@njit\ndef f(steps, n):\n    for i in range(n):\n        for k in range(steps):\n            g(k)\n",
    ],
)
def test_a_loop_that_cannot_be_cancelled_is_flagged(source):
    assert flags(cancel_law, source)


@pytest.mark.parametrize(
    "source",
    [
        LOOP,
        "@njit\ndef f(steps, n, rng):\n    for i in range(n):\n        x = rng.integers(0, 2, steps).sum()\n",
        "@njit\ndef f(steps, cancel):\n    for k in range(steps):\n        advance(k, cancel)\n",
        "def f(steps):\n    for k in range(steps):\n        pass\n",
    ],
)
def test_a_loop_that_can_be_cancelled_passes(source):
    assert not flags(cancel_law, source)


# -- Python --------------------------------------------------------------------------------------------------------

HASHABLE = {"str", "int", "float", "bool", "bytes", "None", "tuple", "frozenset", "Literal"}


def cache_law(source: str, name: str) -> Iterator[str]:
    """`st.cache_data` only over names, numbers and keys: hashing arrays and frames costs more than it saves."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        called = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
        if not any(dotted(one).split(".")[-1] == "cache_data" for one in called):
            continue
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            if argument.arg.startswith("_"):
                continue  # Streamlit leaves it out of the key
            annotation = ast.unparse(argument.annotation) if argument.annotation else "anything"
            if not set(re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'", "", annotation))) <= HASHABLE:
                yield f"{node.name} is cached under {argument.arg}: {annotation}"


def except_law(source: str, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield f"bare except at line {node.lineno}"
            elif isinstance(node.body[0], ast.Pass) and dotted(node.type) in ("Exception", "BaseException"):
                yield f"every exception is swallowed at line {node.lineno}"


ARROW_POOL = {"ParquetFile", "read_parquet", "to_pandas"}


def arrow_law(source: str, name: str) -> Iterator[str]:
    """Arrow's tables are read by `sims.engine.parquet` alone, on the caller's own thread."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in ARROW_POOL:
            yield f"{dotted(node.func)} at line {node.lineno}"


def test_parquet_is_read_in_one_place():
    files = [path for path in python_files("app", "sims") if name_of(path) != "sims/engine/parquet.py"]
    assert over_the_tree(arrow_law, files) == []


@pytest.mark.parametrize("call", ["pq.ParquetFile(x)", "table.column('a').to_pandas()", "pd.read_parquet(path)"])
def test_reading_parquet_elsewhere_is_flagged(call):
    assert flags(arrow_law, call) and not flags(arrow_law, "pq.write_table(read_table(parquet_file(x)), sink)")


def test_only_keys_and_numbers_are_cached_by_the_pages():
    assert over_the_tree(cache_law, python_files("app")) == []


def test_no_exception_is_caught_unnamed():
    assert over_the_tree(except_law, python_files(*CODE)) == []


@pytest.mark.parametrize("argument", ["x: np.ndarray", "x: NDArray[np.float64]", "x: pd.DataFrame", "x", "*, x: Trace"])
def test_caching_under_arrays_is_flagged(argument):
    assert flags(cache_law, f"@st.cache_data(ttl=5)\ndef f({argument}):\n    return 1\n")
    assert not flags(cache_law, "@st.cache_data\ndef f(key: str, n: int | None, t: tuple[str, ...], _x):\n    g()\n")
    assert not flags(cache_law, f"@cache\ndef f({argument}):\n    return 1\n")


@pytest.mark.parametrize(
    "clause", ["except:\n    x = 1", "except Exception:\n    pass", "except BaseException:\n    pass"]
)
def test_a_swallowed_exception_is_flagged(clause):
    assert flags(except_law, f"try:\n    f()\n{clause}\n")
    assert not flags(except_law, "try:\n    f()\nexcept OSError:\n    pass\nexcept Exception as e:\n    g(e)\n")


# -- words ---------------------------------------------------------------------------------------------------------

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP|NotImplementedError)\b")
CARDS = re.compile(r"\b(lab|theory|project)('s)? cards?\b|\bthe card (says|gives|states)\b", re.IGNORECASE)
PLACES = re.compile(r"(?<![\w.:}-])/(work|root|Users)/|/home/[a-z]|[A-Z]:\\\\Users")


def words_law(source: str, name: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        for pattern in (UNFINISHED, CARDS):
            found = pattern.search(line)
            if found:
                yield f"line {number} says {found.group()!r}"


def places_law(source: str, name: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        found = PLACES.search(line)
        if found:
            yield f"line {number} names a place on one machine: {found.group()!r}"


def test_nothing_is_left_unfinished():
    assert over_the_tree(words_law, text_files()) == []


def test_no_file_names_a_place_on_one_machine():
    assert over_the_tree(places_law, [path for path in text_files() if path.name != "Dockerfile"]) == []


@pytest.mark.parametrize("line", ["# TODO: later", "x = 1  # FIXME", "raise NotImplementedError", "see the lab card"])
def test_unfinished_words_are_flagged(line):
    assert flags(words_law, line) and not flags(words_law, "A method, a hackneyed todos list, a wildcard.")


@pytest.mark.parametrize("line", ["open('/work/main/x')", "# in /root/.cache", "/home/anna/chalkline", "'/Users/anna'"])
def test_machine_paths_are_flagged(line):
    assert flags(places_law, line)
    assert not flags(places_law, "https://example.org/work/ /proc/meminfo /dev/shm app/home.py")


# -- dependencies --------------------------------------------------------------------------------------------------

PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,_-]+\])?==[0-9][A-Za-z0-9.+!]*( *;.*)?")


def pinned_law(source: str, name: str) -> Iterator[str]:
    for line in source.splitlines():
        plain = line.split("#")[0].strip()
        if plain and not plain.startswith("-r ") and not PIN.fullmatch(plain):
            yield f"{plain!r} is not pinned to one version"


def single_list_law(source: str, name: str) -> Iterator[str]:
    content = tomllib.loads(source)
    lists = [key for key in ("dependencies", "optional-dependencies") if key in content.get("project", {})]
    lists += [key for key in ("dependency-groups", "build-system") if key in content]
    tools = content.get("tool", {})
    lists += [key for key in ("poetry", "pdm", "uv", "hatch", "setuptools") if "depend" in str(tools.get(key, ""))]
    yield from (f"{key} is a second list of dependencies" for key in lists)


def test_every_requirement_is_exact():
    assert over_the_tree(pinned_law, sorted(ROOT.glob("requirements*.txt"))) == []


def test_there_is_one_list_of_dependencies():
    assert over_the_tree(single_list_law, [ROOT / "pyproject.toml"]) == []


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy~=2.1", "git+https://example.org/x", "-e ."])
def test_an_open_requirement_is_flagged(line):
    assert flags(pinned_law, line)
    assert not flags(pinned_law, "# why\n-r requirements.txt\nnumpy==2.4.6  # exact\nvl-convert-python==1.9.0.post1\n")


@pytest.mark.parametrize(
    "text",
    [
        "[project]\nname = 'x'\ndependencies = ['numpy']",
        "[project.optional-dependencies]\ndev = []",
        "[dependency-groups]\ndev = ['x']",
        "[tool.poetry.dependencies]\nnumpy = '2'",
    ],
)
def test_a_second_list_is_flagged(text):
    assert flags(single_list_law, text) and not flags(single_list_law, "[tool.ruff]\nline-length = 110")


# -- shape of the tree ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_is_whole(lab):
    for needed in (f"theory/{lab}.py", f"sims/{lab}/claims.py", f"sims/{lab}/kernels.py", f"app/labs/{lab}.py",
                   f"tests/golden/{lab}.json", f"tests/theory/test_{lab}.py"):  # fmt: skip
        assert (ROOT / needed).is_file(), needed
    assert list((ROOT / "app" / "activities").glob(f"{lab}*.md")), "an activity"


def names_a_lab(source: str, name: str) -> Iterator[str]:
    """A shared module that knows a lab by its name; what docstrings tell as an example is no knowledge."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in told else getattr(node, "id", None)
        yield from (f"names {lab}" for lab in LABS if isinstance(text, str) and re.search(rf"\b{lab}\b", text))


def test_no_shared_module_knows_a_lab():
    """A new lab is a few new files and not one line elsewhere."""
    assert over_the_tree(names_a_lab, [*python_files("sims/engine", "app/frame"), *(ROOT / "app").glob("*.py")]) == []
    assert flags(names_a_lab, f"x = 'sims.{LABS[0]}'") and not flags(names_a_lab, f"'As in {LABS[0]}.'")
