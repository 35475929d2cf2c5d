"""What every test may use: one PostgreSQL per test session, and settings for databases on it.

Tests fall into three parts, marked here so that `make test-unit` and the others can pick them:
`contract` (folders contracts and house), `integration` (whatever needs a database or a running
network) and `unit` (the rest).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from disk import never_wait
from ports import free_port
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from infra.local.postgres import HOST, Postgres
from infra.runtime.config import Settings

_INTEGRATION_FIXTURES = frozenset({"postgres", "database", "settings", "network"})
_INTEGRATION_FOLDERS = frozenset({"infra_local", "integration", "faults", "e2e"})
_UNITS = (
    "faults/test_faults_run",
    "faults/",
    "infra_local/",
    "settlement/",
    "path/",
    "e2e/",
    "cli/",
    "runtime/",
    "relay/",
)
"""Files that one worker runs, by how their names begin: they share something dear to start, a whole
network mostly. The longest come first, lest they end last; any other file is a unit of its own."""
_CONTRACT_FOLDERS = frozenset({"contracts", "house"})
_numbers = count(1)

DatabaseSettings = Callable[..., Settings]


def _unit(file: str) -> tuple[int, str]:
    """Order and name of the unit of a file, whose path is relative to this folder."""
    shared = ((n, start) for n, start in enumerate(_UNITS) if file.startswith(start))
    return next(shared, (len(_UNITS), file))


class _ByUnit(LoadScopeScheduling):
    """Gives each worker whole units.

    The marks of xdist's own groups travel in node ids, which pytest 9.2 lets nobody change: each
    test would run anywhere, and each worker would start every network.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _unit(nodeid.split("::", 1)[0].removeprefix("tests/"))[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """What `--numprocesses` distributes the tests with."""
    config.option.loadscopereorder = False  # the order of the units is made here
    return _ByUnit(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its part, and put the longest units first."""
    here = Path(__file__).parent
    items.sort(key=lambda item: _unit(item.path.relative_to(here).as_posix())[0])
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in _CONTRACT_FOLDERS:
            item.add_marker("contract")
        elif folder in _INTEGRATION_FOLDERS or not _INTEGRATION_FIXTURES.isdisjoint(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker("integration")
        else:
            item.add_marker("unit")


@pytest.fixture(scope="session")
def postgres_password() -> str:
    """The superuser's password of `postgres`."""
    return secrets.token_hex(8)


@pytest.fixture(scope="session")
def postgres(postgres_password: str) -> Iterator[Postgres]:
    """A running PostgreSQL of this session; under xdist each worker has its own."""
    # Not pytest's folder: run as root without namespaces, the server is the user `nobody`.
    home = Path(tempfile.mkdtemp(prefix="yidi-test-", dir="/tmp"))
    home.chmod(0o711)
    server = Postgres(
        data=home / "postgres", log=home / "log", port=free_port(), password=postgres_password
    )
    server.start()
    try:
        asyncio.run(never_wait(HOST, server.port, postgres_password))
        yield server
    finally:
        if server.pid is not None:
            os.kill(server.pid, signal.SIGQUIT)  # no checkpoint: nobody reads it again
        server.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def database_settings(postgres: Postgres, postgres_password: str) -> DatabaseSettings:
    """Makes settings of a site with a database name of its own on `postgres`.

    `database_settings("440000", limits={...})`: further sections go in as keywords. The database
    itself is made by `infra.runtime.migrate.migrate(settings, [SCHEMA], clock)`.
    """

    def make(site: str = "440000", **sections: Any) -> Settings:
        base: dict[str, Any] = {
            "site": {"code": site, "name": f"测试{site}"},
            "nation": {"edge": f"{HOST}:1"},
            "database": {
                "host": HOST,
                "port": postgres.port,
                "name": f"test_{site}_{next(_numbers)}",
                "admin_password": postgres_password,
                "password": "app",
            },
            "tls": {"directory": str(postgres.data.parent)},
        }
        return Settings.model_validate(base | sections)

    return make
