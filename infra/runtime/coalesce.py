"""Natural batching: what arrives while a batch is under way makes the next batch.

A unary call costs about half a millisecond of Python whatever it carries, and a commit a disk
flush whatever it holds. So work travels in batches that form by themselves: when nothing is under
way an item leaves at once (with whatever became ready in the same turn of the event loop), and
while `in_flight` batches are out the next ones gather. No timer, so nothing waits when it is quiet.

Bounds: `items` and `bytes` per batch, `in_flight` batches, `queue` items waiting or reserved; one
caller has at most `per_caller` items reserved, waiting or under way. Order: callers take turns, an
item each, and one caller's items leave in the order they came; so a caller with many items delays
the others by one batch at most. One coalescer has one destination, so a batch shares one fate: when
sending fails, every item of the batch fails with that error.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
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
    per_caller: int | None = None
    """None where all items come from one caller."""
    turns: int = 0
    """Turns of the event loop that a batch waits for more, where sending is quicker than items come
    in; a turn of a quiet loop takes microseconds."""


class Coalescer(Generic[Item, Answer]):
    """Gathers items into batches for one destination.

    `send` gets the items of one batch and returns the answers by `key(item)`;
    `size(item)` is an item's share of the byte bound, `caller(item)` whose turn it takes.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Mapping[str, Answer]]],
        *,
        key: Callable[[Item], str],
        size: Callable[[Item], int],
        bounds: Bounds,
        caller: Callable[[Item], str] = lambda _: "",
    ) -> None:
        self._send = send
        self._key = key
        self._size = size
        self._caller = caller
        self._bounds = bounds
        self._lanes: dict[str, deque[tuple[Item, int, asyncio.Future[Answer]]]] = {}
        self._turns: deque[str] = deque()
        """Callers that have items waiting, the next one first."""
        self._waiting = 0
        self._queued = 0
        """Places reserved and items waiting."""
        self._held: Counter[str] = Counter()
        """Places reserved, items waiting and items under way, by caller."""
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def reserve(self, caller: str = "") -> Place:
        """Take a place in the queue before there is an item; refuse with OVERLOADED when full.

        Admission comes before anything durable is written: whoever holds a place gets in.
        """
        most = self._bounds.per_caller
        if self._queued >= self._bounds.queue or (most is not None and self._held[caller] >= most):
            raise Refusal(Reason.ERROR_REASON_OVERLOADED, retry_ms=RETRY_MS)
        self._enter(caller)
        return Place(lambda: self._leave(caller))

    async def submit(self, item: Item, place: Place | None = None) -> Answer:
        """Send `item` with the next batch and return its answer.

        Raises what `send` raised, or `MissingAnswer`. Without a reserved place a full queue
        refuses with OVERLOADED. A cancelled caller whose item has not left takes it back.
        """
        caller = self._caller(item)
        if place is None:
            place = self.reserve(caller)
        place.give_back()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get(caller)
        if lane is None:
            lane = self._lanes[caller] = deque()
            self._turns.append(caller)
        lane.append((item, self._size(item), future))
        self._waiting += 1
        self._enter(caller)
        self._schedule()
        return await future

    async def drain(self) -> None:
        """Wait until nothing is waiting and nothing is under way."""
        while self._running or self._waiting:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(0)

    def _enter(self, caller: str) -> None:
        self._queued += 1
        self._held[caller] += 1

    def _leave(self, caller: str) -> None:
        self._queued -= 1
        self._free(caller)

    def _free(self, caller: str) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]

    def _schedule(self) -> None:
        # Not at once: what else becomes ready in this turn of the loop joins the batch.
        if not self._scheduled and len(self._running) < self._bounds.in_flight:
            self._scheduled = True
            self._wait(self._bounds.turns)

    def _wait(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._wait, turns - 1)
        else:
            loop.call_soon(self._launch)

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
        while self._turns and len(batch) < self._bounds.items:
            caller = self._turns[0]
            lane = self._lanes[caller]
            item, size, future = lane[0]
            if batch and filled + size > self._bounds.bytes:
                break
            lane.popleft()
            self._waiting -= 1
            self._queued -= 1
            self._turns.popleft()
            if lane:
                self._turns.append(caller)
            else:
                del self._lanes[caller]
            if future.done():  # its caller has gone
                self._free(caller)
            else:
                batch.append((item, future))
                filled += size
        return batch

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            try:
                answers = await self._send([item for item, _ in batch])
            finally:
                for item, _ in batch:
                    self._free(self._caller(item))
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
