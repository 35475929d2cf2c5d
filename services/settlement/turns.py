"""Whose turn it is: the batches of one process decide a person one after the other.

The version of a row would find them out, but only after all the work, and only a few times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from services.settlement.domain.balance import PersonKey

Item = TypeVar("Item")


class Turns:
    """The persons who are being decided."""

    def __init__(self) -> None:
        self._taken: dict[PersonKey | None, asyncio.Event] = {}
        """Persons, and what their waiters wait for; never None."""

    @asynccontextmanager
    async def take(
        self, items: Sequence[Item], person: Callable[[Item], PersonKey | None]
    ) -> AsyncIterator[tuple[list[Item], list[Item]]]:
        """The items whose turn it is while entered, and the others; without a person it always is.

        A batch goes on without the others, and only when nothing else is left does it wait.
        """
        while items and all(person(item) in self._taken for item in items):
            await self._taken[person(items[0])].wait()
        turn = [item for item in items if person(item) not in self._taken]
        others = [item for item in items if person(item) in self._taken]
        mine = {who for item in turn if (who := person(item)) is not None}
        self._taken.update((who, asyncio.Event()) for who in mine)
        try:
            yield turn, others
        finally:
            for who in mine:
                self._taken.pop(who).set()
