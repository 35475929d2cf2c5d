"""A PostgreSQL for these tests, and a fresh, migrated, empty catalogue in it for each test."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from infra.local.postgres import HOST, Postgres
from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from services.catalog.store import SCHEMA

PASSWORD = "catalog tests"
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
    server.stop()
    shutil.rmtree(home)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_795_000_000_000)  # 2026-11-18


@pytest.fixture
async def settings(catalog_server: Postgres, clock: ManualClock) -> Settings:
    settings = Settings.model_validate(
        {
            "site": {"code": "440000", "name": "广东"},
            "nation": {"edge": "127.0.0.1:1"},
            "database": {
                "host": HOST,
                "port": catalog_server.port,
                "name": f"catalog_{next(_numbers)}",
                "admin_password": PASSWORD,
                "password": "app",
            },
            "tls": {"directory": "."},
        }
    )
    await migrate(settings, [SCHEMA], clock)
    return settings


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with Database.open(settings, "catalog") as database:
        yield database


@pytest.fixture
async def admin(settings: Settings, database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The administrator, to see what the service's role may not."""
    at = settings.database
    connection = await asyncpg.connect(
        host=at.host,
        port=at.port,
        database=at.name,
        user=at.admin_user,
        password=at.admin_password.get_secret_value(),
    )
    yield connection
    await connection.close()
