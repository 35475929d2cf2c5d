"""A whole network for the end-to-end tests: the nation and three provinces, one for the session."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from unittest import mock

import pytest

from infra.cli.main import main
from infra.cli.starting import finish_start, prepare
from infra.local.supervisor import Network, temporary_network

Yidi = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A running network with the sample data; `network.home` is its YIDI_HOME."""
    with temporary_network(prepare=prepare, on_healthy=finish_start) as running:
        yield running


@pytest.fixture(scope="session")
def yidi(network: Network) -> Yidi:
    """Runs the `yidi` command on the network, in this process: `yidi("demo", "--json")`."""

    def run(*arguments: str, columns: int = 100) -> CompletedProcess[str]:
        environment = {"YIDI_HOME": str(network.home), "COLUMNS": str(columns)}
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

    return run
