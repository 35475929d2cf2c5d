"""A PostgreSQL for these tests, and a fresh, migrated, empty catalogue in it for each test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from list_files import ImportDesk
from registry_world import AREAS, SITE

from infra.local.postgres import HOST, Postgres
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from services.catalog.importing import Importing
from services.catalog.load import load_catalogue
from services.catalog.registry_service import RegistryService
from services.catalog.samples.generate import FOLDER
from services.catalog.store import SCHEMA

PASSWORD = "catalog tests"
NOW_MS = 1_795_000_000_000
"""2026-11-18."""
_numbers = count(1)


@pytest.fixture(scope="session")
def catalog_server() -> Iterator[Postgres]:
    home = Path(tempfile.mkdtemp(prefix="yidi-test-", dir="/tmp"))
    home.chmod(0o711)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    server = Postgres(data=home / "postgres", log=home / "log", port=port, password=PASSWORD)
    server.start()
    yield server
    if server.pid is not None:  # at once: a clean stop writes dozens of databases out
        os.kill(server.pid, signal.SIGQUIT)
    server.stop()
    shutil.rmtree(home)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


def _settings(server: Postgres, name: str) -> Settings:
    return Settings.model_validate(
        {
            "site": {"code": "440000", "name": "广东"},
            "nation": {"edge": "127.0.0.1:1"},
            "database": {
                "host": HOST,
                "port": server.port,
                "name": name,
                "admin_password": PASSWORD,
                "password": "app",
            },
            "tls": {"directory": "."},
        }
    )


@pytest.fixture(scope="session")
async def catalog_template(catalog_server: Postgres) -> Settings:
    """A migrated site whose database is copied for each test: that costs a tenth of migrating."""
    settings = _settings(catalog_server, "catalog_template")
    await migrate(settings, [SCHEMA], ManualClock(NOW_MS))
    return settings


@pytest.fixture
async def settings(catalog_template: Settings, catalog_server: Postgres) -> Settings:
    settings = _settings(catalog_server, f"catalog_{next(_numbers)}")
    connection = await asyncpg.connect(**settings.database.admin_login() | {"database": "postgres"})
    template = catalog_template.database.name
    await connection.execute(f'CREATE DATABASE "{settings.database.name}" TEMPLATE "{template}"')
    await connection.close()
    return settings


@pytest.fixture
def unmade(catalog_server: Postgres) -> Settings:
    """A site whose database is not made yet."""
    return _settings(catalog_server, f"catalog_{next(_numbers)}")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with Database.open(settings, "catalog") as database:
        yield database


@pytest.fixture
async def admin(settings: Settings, database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The administrator, to see what the service's role may not."""
    connection = await asyncpg.connect(**settings.database.admin_login())
    yield connection
    await connection.close()


@pytest.fixture
def desk(database: Database, clock: ManualClock) -> ImportDesk:
    """Imports as an operator of the site makes them."""
    call = Call(Identity("440000", CallerType.OPERATOR, "经办示例"), deadline_us=1 << 62)
    return ImportDesk(Importing(database=database, clock=clock), call)


@pytest.fixture
async def registry(database: Database, clock: ManualClock) -> RegistryService:
    """The registry of 广东 with its samples."""
    await load_catalogue(database, FOLDER / SITE, clock)
    return RegistryService(database=database, clock=clock, site=SITE, areas=AREAS)
