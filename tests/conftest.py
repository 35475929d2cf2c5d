"""What every test may use: one PostgreSQL per test session, and settings for databases on it.

Tests fall into three parts, marked here so that `make test-unit` and the others can pick them:
`contract` (folders contracts and house), `integration` (whatever needs a database or a running
network) and `unit` (the rest).
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from infra.local.postgres import HOST, Postgres
from infra.runtime.config import Settings

_INTEGRATION_FIXTURES = frozenset({"postgres", "database", "settings", "network"})
_INTEGRATION_FOLDERS = frozenset({"infra_local", "integration", "faults", "e2e"})
_SHARING_FOLDERS = frozenset({"cli", "e2e", "faults", "path", "settlement", "relay", "runtime"})
"""Folders whose tests share something that is dear to start: one worker runs each of them."""
_CONTRACT_FOLDERS = frozenset({"contracts", "house"})
_numbers = count(1)

DatabaseSettings = Callable[..., Settings]


# Earlier than xdist's own hook reads the groups, which is one of the collection as a whole.
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test with the group whose worker runs it."""
    place = item.path.relative_to(Path(__file__).parent)
    shared = place.parts[0] if place.parts[0] in _SHARING_FOLDERS else str(place)
    item.add_marker(pytest.mark.xdist_group(shared))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its part."""
    here = Path(__file__).parent
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
        yield server
    finally:
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
