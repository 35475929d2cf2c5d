"""A PostgreSQL of this folder's own, with the service's schema as `yidi migrate` makes it."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from desk_world import make_directory

from infra.local.postgres import HOST, SUPERUSER, Postgres
from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.migrate import migrate
from services.filing.store import SCHEMA


class CountingDatabase:
    """Counts the statements of the hot door."""

    def __init__(self, inner: Database) -> None:
        self.statements = 0
        self._inner = inner
        self.engine = inner.engine

    async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        self.statements += 1
        return await self._inner.run(statement, *arguments)


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="yidi-filing-", dir="/tmp"))
    home.chmod(0o711)
    server = Postgres(data=home / "postgres", log=home / "log", port=port, password="admin")
    server.start()
    yield Settings.model_validate(
        {
            "site": {"code": "440000", "name": "广东省"},
            "nation": {"edge": "127.0.0.1:1"},
            "database": {
                "host": HOST,
                "port": port,
                "name": "yidi_440000",
                "admin_password": "admin",
                "password": "app",
            },
            "tls": {"directory": str(home)},
        }
    )
    server.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="session")
async def migrated(settings: Settings) -> Settings:
    await migrate(settings, [SCHEMA], ManualClock(NOW_MS))
    return settings


@pytest.fixture(scope="session")
async def database(migrated: Settings) -> AsyncIterator[Database]:
    async with Database.open(migrated, "filing") as database:
        yield database


@pytest.fixture
def counting(database: Database) -> CountingDatabase:
    return CountingDatabase(database)


@pytest.fixture(scope="session")
async def admin(migrated: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=HOST,
        port=migrated.database.port,
        user=SUPERUSER,
        password="admin",
        database=migrated.database.name,
    )
    yield connection
    await connection.close()


NOW_MS = int(datetime(2026, 11, 21, 2, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def directory(settings: Settings, clock: ManualClock) -> Directory:
    return make_directory(settings, clock)
