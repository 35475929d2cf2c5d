"""Every reason of the error catalogue is provoked by some test (DESIGN §3)."""

from __future__ import annotations

import ast
from pathlib import Path

from yidi.common.v1 import errors_pb2

TESTS = Path(__file__).parent.parent
_PREFIX = "ERROR_REASON_"


def _named(path: Path) -> set[str]:
    """The reasons that a test file names: as the wire spells them, or by the enum."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr.removeprefix(_PREFIX))
    return found


def test_every_reason_is_provoked() -> None:
    named = set().union(*(_named(path) for path in TESTS.rglob("test_*.py")))
    reasons = {name.removeprefix(_PREFIX) for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert sorted(reasons - {"UNSPECIFIED"} - named) == []
