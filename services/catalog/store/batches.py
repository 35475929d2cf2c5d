"""Batches of rows on their way in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal

ROWS = 2_000
"""Rows decoded between two turns of the event loop."""


def rows_of(types: Mapping[str, str]) -> str:
    """A relation `t` of arrays that are bound as `columns` makes them."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in types.items())
    return f"unnest({arrays}) AS t({', '.join(types)})"


def columns(types: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> dict[str, Any]:
    """The rows as one array per column."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return dict(zip(types, map(list, columns), strict=True))


def unavailable(error: Exception) -> Refusal:
    """What a caller hears when the database does not answer."""
    return Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause=type(error).__name__)


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection to read with. Raises `Refusal` (DATABASE_UNAVAILABLE)."""
    try:
        async with database.engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise unavailable(error) from error
    except (OSError, TimeoutError) as error:
        raise unavailable(error) from error
