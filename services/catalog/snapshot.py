"""The catalogue in memory: splitting a bill asks no database.

A background task asks every two seconds whether anything was published; if so what is new is read
in one transaction and a new snapshot put in place by one assignment, so a batch that took the old
one finishes on it. When the database cannot be reached the last snapshot stays in use: published
versions never change, and without the database no settlement gets past the care journal anyway.
"""

from __future__ import annotations

import asyncio

from infra.runtime.background import Background
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.catalog import store

REFRESH_SECONDS = 2.0


class LiveSnapshot:
    """Holds the newest snapshot; `start` reads the first one, `stop` ends the background task."""

    def __init__(self, database: Database, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._database = database
        self._snapshot: store.Snapshot | None = None
        self._reading = asyncio.Lock()
        self._background = Background(
            "catalogue", self.refresh, rest=lambda: refresh_seconds, at_once=False
        )

    @property
    def current(self) -> store.Snapshot:
        """The newest snapshot. Raises `Refusal` (SERVICE_UNAVAILABLE) before `start`."""
        if self._snapshot is None:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="catalog")
        return self._snapshot

    async def start(self) -> None:
        """Read the first snapshot, then follow. Raises `Refusal` when that cannot be read."""
        await self.refresh()
        self._background.start()

    async def stop(self) -> None:
        """End the background task; harmless when it is not running."""
        await self._background.stop()

    async def refresh(self) -> bool:
        """Take a new snapshot if something was published since; say whether there was."""
        async with self._reading:  # else the older of two snapshots could be put in place last
            known = self._snapshot
            if known is not None and await store.newest(self._database) == known.newest:
                return False
            self._snapshot = await store.read_snapshot(self._database, known)
            return True
