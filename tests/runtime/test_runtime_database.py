"""The hot door to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.runtime.clock import SystemClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.migrate import migrate
from services.settlement.store import SCHEMA

_FATAL = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection\0\0"


async def test_a_server_that_ends_while_nobody_asks_is_a_lost_connection(
    database_settings: Callable[..., Settings],
) -> None:
    """Found by `yidi faults`: between its last word and the end of the stream it was INTERNAL."""
    settings = database_settings("440000", limits={})
    settings = settings.model_copy(
        update={"database": settings.database.model_copy(update={"connections": 1})}
    )
    await migrate(settings, [SCHEMA], SystemClock())
    async with Database.open(settings, "settlement") as database:
        assert (await database.run("SELECT 1 AS one"))[0]["one"] == 1
        async with database._pool.acquire() as connection:  # what a dying server sends
            message = b"E" + (len(_FATAL) + 4).to_bytes(4, "big") + _FATAL
            connection._con._protocol.data_received(message)
        with pytest.raises(Refusal) as refused:
            await database.run("SELECT 1 AS one")
        assert refused.value.reason == Reason.ERROR_REASON_DATABASE_UNAVAILABLE
        assert (await database.run("SELECT 1 AS one"))[0]["one"] == 1
