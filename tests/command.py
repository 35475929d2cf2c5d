"""The `yidi` command run inside the test's own process, on a running network."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import pytest

from infra.cli.main import main


def run_yidi(home: Path, *arguments: str, columns: int = 100) -> CompletedProcess[str]:
    """What `yidi` with these arguments prints and how it ends; `home` is its YIDI_HOME."""
    environment = {"YIDI_HOME": str(home), "COLUMNS": str(columns)}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict("os.environ", environment),
        mock.patch("sys.argv", ["yidi", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    code = stopped.value.code
    assert isinstance(code, int)
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
