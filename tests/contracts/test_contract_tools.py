"""The contracts are formatted, lint, and their generated stubs are what protoc makes of them."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

from contract_files import FILES, ROOT

BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a tool of the environment and show what it says when it fails."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_buf_lint() -> None:
    run(BIN / "buf", "lint")


def test_buf_format() -> None:
    run(BIN / "buf", "format", "-d", "--exit-code")


def test_lint_has_no_exceptions_in_the_contracts() -> None:
    for path in (ROOT / "protos" / "yidi").rglob("*.proto"):
        assert "buf:lint:ignore" not in path.read_text(encoding="utf-8"), path


def test_generating_the_stubs_again_changes_nothing(tmp_path: Path) -> None:
    run(sys.executable, ROOT / "protos" / "generate.py", tmp_path / "gen")
    committed, fresh = ROOT / "protos" / "gen", tmp_path / "gen"

    def files(folder: Path) -> list[str]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return sorted(
            str(path.relative_to(folder)) for path in found if "__pycache__" not in path.parts
        )

    assert files(fresh) == files(committed)
    _, different, unreadable = filecmp.cmpfiles(committed, fresh, files(fresh), shallow=False)
    assert (different, unreadable) == ([], []), "run `make protos`"


def test_every_contract_is_found() -> None:
    packages = {file.package for file in FILES}
    names = (
        "common",
        "enrollment",
        "filing",
        "policy",
        "catalog",
        "settlement",
        "relay",
        "gateway",
    )
    assert {f"yidi.{name}.v1" for name in names} <= packages
