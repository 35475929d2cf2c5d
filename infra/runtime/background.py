"""A task that runs beside the calls: keeps something fresh, recovers, compares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from infra.runtime.errors import Refusal
from infra.runtime.redact import where

_log = structlog.get_logger("yidi.background")


class Background:
    """Does `work` in rounds, from `start` to `stop`.

    `name` tells it apart in the log, `rest` how many seconds there are until the next round (asked
    after each), `at_once` whether the first round comes before the first rest. A round that fails
    is logged, a refusal by its reason and anything else by its place, and the next one comes.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        rest: Callable[[], float],
        at_once: bool = True,
    ) -> None:
        self._name = name
        self._work = work
        self._rest = rest
        self._at_once = at_once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; once, before `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End it, also in the middle of a round; return when it has ended. May be repeated."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        if not self._at_once:
            await asyncio.sleep(self._rest())
        while True:
            try:
                await self._work()
            except Refusal as refusal:
                _log.warning("background waits", work=self._name, reason=refusal.name)
            except Exception as error:  # noqa: BLE001 - the next round may do better
                _log.error("background failed", work=self._name, at=where(error))
            await asyncio.sleep(self._rest())
