"""Natural batching: what arrives while a batch is under way makes the next batch.

A unary call costs about half a millisecond of Python whatever it carries, and a commit a disk
flush whatever it holds. So work travels in batches that form by themselves: when nothing is under
way an item leaves at once (with whatever became ready in the same turn of the event loop), and
while `in_flight` batches are out the next ones gather. No timer, so nothing waits when it is quiet.

Bounds: `items` and `bytes` per batch, `in_flight` batches, `queue` items waiting or reserved.
Order: items leave in the order they came. One coalescer has one destination, so a batch shares one
fate: when sending fails, every item of the batch fails with that error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from infra.runtime.errors import Reason, Refusal

Item = TypeVar("Item")
Answer = TypeVar("Answer")
RETRY_MS = 500
"""What a shed caller is told to wait."""


class MissingAnswer(Exception):
    """The answer to a batch had no entry for this item: what became of it is unknown."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one coalescer."""

    items: int = 256
    bytes: int = 1 << 20
    in_flight: int = 2
    queue: int = 2_048


class Coalescer(Generic[Item, Answer]):
    """Gathers items into batches for one destination.

    `send` gets the items of one batch and returns the answers by `key(item)`;
    `size(item)` is an item's share of the byte bound.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Mapping[str, Answer]]],
        *,
        key: Callable[[Item], str],
        size: Callable[[Item], int],
        bounds: Bounds,
    ) -> None:
        self._send = send
        self._key = key
        self._size = size
        self._bounds = bounds
        self._waiting: deque[tuple[Item, int, asyncio.Future[Answer]]] = deque()
        self._reserved = 0
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def reserve(self) -> Place:
        """Take a place in the queue before there is an item; refuse with OVERLOADED when full.

        Admission comes before anything durable is written: whoever holds a place gets in.
        """
        if self._reserved + len(self._waiting) >= self._bounds.queue:
            raise Refusal(Reason.ERROR_REASON_OVERLOADED, retry_ms=RETRY_MS)
        self._reserved += 1
        return Place(self._release)

    async def submit(self, item: Item, place: Place | None = None) -> Answer:
        """Send `item` with the next batch and return its answer.

        Raises what `send` raised, or `MissingAnswer`. Without a reserved place a full queue
        refuses with OVERLOADED. A cancelled caller whose item has not left takes it back.
        """
        if place is None:
            place = self.reserve()
        place.give_back()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, self._size(item), future))
        self._schedule()
        return await future

    async def drain(self) -> None:
        """Wait until nothing is waiting and nothing is under way."""
        while self._running or self._waiting:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(0)

    def _release(self) -> None:
        self._reserved -= 1

    def _schedule(self) -> None:
        # Not at once: what else becomes ready in this turn of the loop joins the batch.
        if not self._scheduled and len(self._running) < self._bounds.in_flight:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._launch)

    def _launch(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._running) < self._bounds.in_flight:
            batch = self._take()
            if batch:
                task = asyncio.get_running_loop().create_task(self._deliver(batch))
                self._running.add(task)
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._schedule()

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        filled = 0
        while self._waiting and len(batch) < self._bounds.items:
            item, size, future = self._waiting[0]
            if batch and filled + size > self._bounds.bytes:
                break
            self._waiting.popleft()
            if not future.done():  # its caller has gone
                batch.append((item, future))
                filled += size
        return batch

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(_for_callers(error))
            if not isinstance(error, Exception):
                raise
            return
        for item, future in batch:
            if future.done():
                continue
            answer = answers.get(self._key(item))
            if answer is None:
                future.set_exception(MissingAnswer())
            else:
                future.set_result(answer)


def _for_callers(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else MissingAnswer()


class Place:
    """A reserved place in a queue; given back once, when the item enters or on leaving."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def give_back(self) -> None:
        """Free the place; a second time does nothing."""
        if self._release is not None:
            self._release()
            self._release = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.give_back()
