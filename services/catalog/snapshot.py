"""The catalogue in memory: splitting a bill asks no database.

A background task asks every two seconds whether anything was published; if so a new snapshot is
read in one transaction and put in place by one assignment, so a batch that took the old one
finishes on it. When the database cannot be reached the last snapshot stays in use: published
versions never change, and without the database no settlement gets past the care journal anyway.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.catalog import store

REFRESH_SECONDS = 2.0
_log = structlog.get_logger("yidi.catalog")


class LiveSnapshot:
    """Holds the newest snapshot; `start` reads the first one, `stop` ends the background task."""

    def __init__(self, database: Database, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._database = database
        self._refresh_seconds = refresh_seconds
        self._snapshot: store.Snapshot | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> store.Snapshot:
        """The newest snapshot. Raises `Refusal` (SERVICE_UNAVAILABLE) before `start`."""
        if self._snapshot is None:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="catalog")
        return self._snapshot

    async def start(self) -> None:
        """Read the first snapshot, then follow. Raises `Refusal` when that cannot be read."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="catalog snapshot")

    async def stop(self) -> None:
        """End the background task; harmless when it is not running."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def refresh(self) -> bool:
        """Take a new snapshot if something was published since; say whether there was."""
        known = self._snapshot
        if known is not None and await store.newest(self._database) == known.newest:
            return False
        self._snapshot = await store.read_snapshot(self._database, known)
        return True

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
            except Refusal as refusal:
                _log.warning("catalogue not refreshed", reason=refusal.name)
            except Exception:  # noqa: BLE001
                # Logged, whatever it was: a task that ended here would leave this replica on an
                # old catalogue for ever without anybody noticing.
                _log.exception("catalogue not refreshed")
