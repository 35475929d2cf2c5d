"""The direction of imports, by import-linter; and that its contracts do bite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the project in `folder`."""
    path = os.pathsep.join([str(folder), str(folder / "protos" / "gen")])
    return subprocess.run(
        [LINTER, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        (
            "services/filing/service.py",
            "import services.enrollment.store",
            "no service imports another service",
        ),
        (
            "services/policy/service.py",
            "import gateway.relay.store",
            "services and gateway do not import each other",
        ),
        (
            "infra/runtime/call.py",
            "import infra.local.files",
            "what serves does not import the command and the local network",
        ),
        (
            "services/policy/domain/case.py",
            "import infra.runtime.clock",
            "rules import no framework, no contract and no I/O",
        ),
        (
            "services/policy/domain/case.py",
            "from yidi.common.v1 import types_pb2",
            "rules import no framework, no contract and no I/O",
        ),
        (
            "gateway/relay/forwarding.py",
            "from yidi.settlement.v1 import payload_pb2",
            "the relay imports no payload stubs",
        ),
    ],
)
def test_contracts_bite(tmp_path: Path, file: str, line: str, contract: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("infra", "services", "gateway", "loadtests", "protos"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"{contract} BROKEN" in done.stdout
