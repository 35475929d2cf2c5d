"""A fresh, migrated, empty policy schema for each of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from services.policy.store import SCHEMA


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_795_000_000_000)  # 2026-11-18


@pytest.fixture
async def database(
    database_settings: Callable[..., Settings], clock: ManualClock
) -> AsyncIterator[Database]:
    settings = database_settings("440000")
    await migrate(settings, [SCHEMA], clock)
    async with Database.open(settings, "policy") as opened:
        yield opened
