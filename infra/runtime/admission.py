"""Work that holds much memory: some at a time, some more waits, the rest is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.runtime.errors import Reason, Refusal

RETRY_MS = 1_000


class Admission:
    """Admits `at_once` pieces of work, in the order they came; `waiting` more wait for that."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._held = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A piece's turn to be worked on; raises `Refusal` (OVERLOADED)."""
        if self._held >= self._most:
            raise Refusal(Reason.ERROR_REASON_OVERLOADED, retry_ms=RETRY_MS)
        self._held += 1
        try:
            async with self._free:
                yield
        finally:
            self._held -= 1
