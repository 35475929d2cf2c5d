"""The house rules that no linter knows, as checks on the syntax tree (issue: Checked by tests)."""

from __future__ import annotations

import ast
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("infra", "services", "gateway", "loadtests")

CLOCK = "infra/runtime/clock.py"
FORBIDDEN_CALLS = {
    "datetime.now": "the clock is injected",
    "datetime.utcnow": "the clock is injected",
    "datetime.today": "the clock is injected",
    "date.today": "the clock is injected",
    "time.time": "the clock is injected",
    "time.time_ns": "the clock is injected",
    "uuid.uuid1": "ids are made by infra.runtime.clock.new_id",
    "uuid.uuid4": "ids are made by infra.runtime.clock.new_id",
    "uuid.uuid7": "ids are made by infra.runtime.clock.new_id",
    "time.sleep": "the event loop must not wait",
}
ALLOWED_CALLS = {
    ("infra/local/processes.py", "time.sleep"): "polls processes where there is no loop",
    ("infra/local/health.py", "time.sleep"): "polls ports where there is no loop",
    ("infra/local/supervisor.py", "time.sleep"): "polls processes where there is no loop",
}
"""(file, call) → the reason why it may."""


def sources(*folders: str) -> list[Path]:
    """The Python files below the folders of the checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The path as people write it."""
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def forbidden(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Uses of the forbidden functions, under whatever name they were imported."""
    names: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute | ast.Name):
            parts = ast.unparse(node).split(".")
            full = ".".join([names.get(parts[0], parts[0]), *parts[1:]])
            short = ".".join(full.split(".")[-2:])
            if short in FORBIDDEN_CALLS and (full == short or full.startswith("datetime.")):
                yield node.lineno, short


@pytest.mark.parametrize("path", sources(*CODE), ids=name_of)
def test_only_the_clock_module_reads_the_clock_or_makes_ids(path: Path) -> None:
    found = [
        f"{name_of(path)}:{line} {call}: {FORBIDDEN_CALLS[call]}"
        for line, call in forbidden(tree(path))
        if name_of(path) != CLOCK and (name_of(path), call) not in ALLOWED_CALLS
    ]
    assert not found


def test_every_exception_is_still_needed() -> None:
    for name, call in ALLOWED_CALLS:
        assert call in {used for _, used in forbidden(tree(ROOT / name))}, (name, call)


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import time as now\nnow()", "time.time"),
        ("from datetime import datetime\ndatetime.now(UTC)", "datetime.now"),
        ("import datetime as d\nd.datetime.now()", "datetime.now"),
        ("import datetime\ndatetime.date.today()", "date.today"),
        ("from uuid import uuid4\nuuid4()", "uuid.uuid4"),
        ("from uuid import uuid4\nfield(default_factory=uuid4)", "uuid.uuid4"),
    ],
)
def test_the_check_sees_through_imports(source: str, call: str) -> None:
    assert [found for _, found in forbidden(ast.parse(source))] == [call]


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()\ntime.perf_counter()",
        "text('SELECT 1').time\nself.clock.now()",
        "from datetime import datetime\ndatetime.fromtimestamp(1, UTC)",
    ],
)
def test_the_check_leaves_the_rest_alone(source: str) -> None:
    assert not list(forbidden(ast.parse(source)))


@pytest.mark.parametrize(
    "path",
    [
        *sources("gateway"),
        *(path for path in sources("services") if "domain" in path.parts),
        ROOT / "infra/runtime/money.py",
        ROOT / "infra/runtime/digest.py",
    ],
    ids=name_of,
)
def test_no_float_comes_near_money(path: Path) -> None:
    """DESIGN §4: whole fen, basis points and fractions."""
    for node in ast.walk(tree(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            # Microseconds of a second: gRPC counts deadlines in seconds.
            assert node.value == 1e6, f"{where} float literal"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "float", f"{where} float()"


SHOWN_TO_PEOPLE = {
    "infra/cli/explain.py": "a share in per cent, rounded for the eye and used for nothing else",
}


@pytest.mark.parametrize(
    "path",
    [path for path in sources(*CODE) if name_of(path) not in SHOWN_TO_PEOPLE],
    ids=name_of,
)
def test_amounts_are_never_divided_truly_nor_rounded_elsewhere(path: Path) -> None:
    """One rounding function (infra.runtime.money), and `/` only where Fraction makes it exact."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            for side in (node.left, node.right):
                assert not _is_amount(side), f"{name_of(path)}:{node.lineno} divides an amount"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("float", "round"):
            assert not any(
                _is_amount(one) for argument in node.args for one in ast.walk(argument)
            ), f"{name_of(path)}:{node.lineno} makes a float of an amount"
        if isinstance(node, ast.AnnAssign) and _is_amount(node.target):
            assert "float" not in ast.unparse(node.annotation), f"{name_of(path)}:{node.lineno}"
        if isinstance(node, ast.arg) and node.arg.endswith("_fen") and node.annotation:
            assert "float" not in ast.unparse(node.annotation), f"{name_of(path)}:{node.lineno}"


def _is_amount(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return isinstance(name, str) and name.endswith("_fen")


@pytest.mark.parametrize("path", sources(*CODE), ids=name_of)
def test_no_error_is_swallowed_without_a_word(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            where = f"{name_of(path)}:{node.lineno}"
            assert node.type is not None, f"{where} bare except"
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(step, ast.Pass) for step in node.body)
            assert not (broad and silent), f"{where} swallows every error"


_SQL_CLOCK = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(\s*\)"
    r"|\bcurrent_(date|time|timestamp)\b|\blocal(time|timestamp)\b|\bfunc\.now\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", sources("services", "gateway"), ids=name_of)
def test_no_statement_reads_the_databases_clock(path: Path) -> None:
    """PROTOCOL §11: no SQL uses now() for a business value; instants are passed in."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            hit = _SQL_CLOCK.search(node.value)
            assert not hit, f"{name_of(path)}:{node.lineno} {hit and hit.group()}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "func.now", f"{name_of(path)}:{node.lineno}"


def _texts() -> list[Path]:
    """Every file that is, or would be, committed; in an unpacked archive every file of the code."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        return [
            path
            for folder in (*CODE, "docs", "protos", "tests")
            for path in (ROOT / folder).rglob("*.*")
        ]
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_text_leads_out_of_the_project() -> None:
    """A clone stands alone: nothing points to a neighbour folder or to one machine."""
    outside = re.compile(r"\.\./" + r"shared|/work/" + r"(main|shared)|\.lib" + r"rary\b")
    for path in _texts():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, IsADirectoryError):
            continue
        hit = outside.search(text)
        assert not hit, f"{name_of(path)} mentions {hit and hit.group()}"


@pytest.mark.parametrize("path", sources(*CODE, "tests"), ids=name_of)
def test_nothing_is_left_to_do(path: Path) -> None:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                marks = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string)
                assert not marks, f"{name_of(path)}:{token.start[0]} {token.string}"


@pytest.mark.parametrize("path", sources("tests"), ids=name_of)
def test_tests_never_sleep(path: Path) -> None:
    """`sleep(0)` lets the loop run what is ready; a poll of at most 50 ms may stand in a while."""
    module = tree(path)
    polled = {id(one) for loop in ast.walk(module) if isinstance(loop, ast.While)
              for one in ast.walk(loop)}  # fmt: skip
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep"):
            seconds = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            poll = id(node) in polled and isinstance(seconds, float) and seconds <= 0.05
            assert seconds == 0 or poll, f"{name_of(path)}:{node.lineno}"


_FILES = ("store", "service")
SERVICES = ("enrollment", "filing", "policy", "catalog", "settlement")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_files(service: str) -> None:
    """DESIGN §2: you know where the SQL is without looking."""
    folder = ROOT / "services" / service
    assert (folder / "domain").is_dir()
    assert list((folder / "migrations").glob("*.py"))
    for name in _FILES:
        assert (folder / f"{name}.py").is_file() or (folder / name).is_dir(), name


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sources("services", "gateway")
        if not {"store", "migrations"} & set(path.with_suffix("").parts)
    ],
    ids=name_of,
)
def test_statements_stand_in_the_store_only(path: Path) -> None:
    statement = re.compile(
        r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s.*\s(FROM|SET|VALUES|AS)\s", re.S
    )
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not statement.search(node.value), f"{name_of(path)}:{node.lineno}"
