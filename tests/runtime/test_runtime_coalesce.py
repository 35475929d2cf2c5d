"""Natural batching: every item answered once, in bounds, in order (DESIGN §6, PROTOCOL §7)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.runtime.coalesce import RETRY_MS, Bounds, Coalescer, MissingAnswer
from infra.runtime.errors import Reason, Refusal

Item = tuple[str, int]


class Destination:
    """Collects batches and answers each when told to."""

    def __init__(self, *, shuffle: random.Random | None = None) -> None:
        self.batches: list[list[Item]] = []
        self.open: list[asyncio.Future[None]] = []
        self.most_in_flight = 0
        self.in_flight = 0
        self.missing: set[str] = set()
        self._shuffle = shuffle

    async def send(self, items: list[Item]) -> Mapping[str, str]:
        self.batches.append(items)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open.append(gate)
        try:
            await gate
        finally:
            self.in_flight -= 1
        answered = [item for item in items if item[0] not in self.missing]
        if self._shuffle is not None:
            self._shuffle.shuffle(answered)
        return {name: f"answer to {name}" for name, _ in answered}

    def answer(self, index: int = 0, error: BaseException | None = None) -> None:
        gate = self.open.pop(index)
        if error is not None:
            gate.set_exception(error)
        else:
            gate.set_result(None)


def coalescer(destination: Destination, bounds: Bounds) -> Coalescer[Item, str]:
    return Coalescer(
        destination.send, key=lambda item: item[0], size=lambda item: item[1], bounds=bounds
    )


async def turns(count: int = 5) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    arrivals=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    items=st.integers(1, 8),
    in_flight=st.integers(1, 3),
    seed=st.integers(0, 1 << 16),
)
def test_every_item_is_answered_once_in_order_and_in_bounds(
    sizes: list[int], arrivals: list[int], items: int, in_flight: int, seed: int
) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        bounds = Bounds(items=items, bytes=60, in_flight=in_flight, queue=1_000)
        destination = Destination(shuffle=rng)
        gathering = coalescer(destination, bounds)
        waiting = [(f"i{number}", size) for number, size in enumerate(sizes)]
        sent = list(waiting)
        tasks: list[asyncio.Task[str]] = []
        while waiting or destination.open or not all(task.done() for task in tasks):
            for _ in range(arrivals[len(tasks) % len(arrivals)] or 1):
                if waiting:
                    tasks.append(asyncio.create_task(gathering.submit(waiting.pop(0))))
            await turns(rng.randint(0, 4))
            if destination.open and rng.random() < 0.6:
                destination.answer(rng.randrange(len(destination.open)))
        assert [await task for task in tasks] == [f"answer to {name}" for name, _ in sent]
        assert [item for batch in destination.batches for item in batch] == sent
        assert destination.most_in_flight <= in_flight
        for batch in destination.batches:
            assert 1 <= len(batch) <= items
            assert len(batch) == 1 or sum(size for _, size in batch) <= 60

    asyncio.run(run())


async def test_alone_an_item_leaves_at_once_and_what_comes_meanwhile_makes_the_next_batch() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(in_flight=1))
    first = asyncio.create_task(gathering.submit(("a", 1)))
    await turns()
    others = [asyncio.create_task(gathering.submit((name, 1))) for name in "bcd"]
    await turns()
    assert destination.batches == [[("a", 1)]]
    destination.answer()
    await turns()
    assert destination.batches[1:] == [[("b", 1), ("c", 1), ("d", 1)]]
    destination.answer()
    assert await asyncio.gather(first, *others) == [f"answer to {name}" for name in "abcd"]


async def test_what_is_ready_in_the_same_turn_shares_the_first_batch() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds())
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in "abc"]
    await turns()
    assert [len(batch) for batch in destination.batches] == [3]
    destination.answer()
    await asyncio.gather(*tasks)


async def test_full_queue_refuses_before_anything_is_written_and_places_count() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(items=1, in_flight=1, queue=2))
    running = asyncio.create_task(gathering.submit(("running", 1)))
    await turns()
    place = gathering.reserve()
    waiting = asyncio.create_task(gathering.submit(("waiting", 1)))
    await turns()
    with pytest.raises(Refusal) as refused:
        gathering.reserve()
    assert refused.value.reason == Reason.ERROR_REASON_OVERLOADED
    assert refused.value.retry_ms == RETRY_MS
    with pytest.raises(Refusal):
        await gathering.submit(("shed", 1))
    admitted = asyncio.create_task(gathering.submit(("admitted", 1), place))
    for _ in range(3):
        await turns()
        destination.answer()
    assert await asyncio.gather(running, waiting, admitted)
    assert ("shed", 1) not in [item for batch in destination.batches for item in batch]


async def test_place_given_back_unused_is_free_again() -> None:
    gathering = coalescer(Destination(), Bounds(queue=1))
    with gathering.reserve() as place:
        with pytest.raises(Refusal):
            gathering.reserve()
        place.give_back()
        gathering.reserve().give_back()
    gathering.reserve().give_back()


async def test_cancelled_item_that_has_not_left_is_not_sent() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(in_flight=1))
    running = asyncio.create_task(gathering.submit(("running", 1)))
    await turns()
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in ("gone", "stays")]
    await turns()
    tasks[0].cancel()
    await turns()
    destination.answer()
    await turns()
    assert destination.batches[1] == [("stays", 1)]
    destination.answer()
    assert await running
    assert await tasks[1] == "answer to stays"


async def test_caller_that_leaves_after_sending_does_not_disturb_its_batch() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds())
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in ("leaves", "stays")]
    await turns()
    tasks[0].cancel()
    await turns()
    destination.answer()
    assert await tasks[1] == "answer to stays"


async def test_failing_send_fails_its_own_batch_only() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(items=2, in_flight=2))
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in "abcd"]
    await turns()
    destination.answer(0, Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="x"))
    destination.answer(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Refusal, Refusal, str, str]
    assert answers[2:] == ["answer to c", "answer to d"]


async def test_missing_id_is_unknown_and_the_others_are_answered() -> None:
    destination = Destination()
    destination.missing = {"b"}
    gathering = coalescer(destination, Bounds())
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in "abc"]
    await turns()
    destination.answer()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], MissingAnswer)
    assert [answers[0], answers[2]] == ["answer to a", "answer to c"]


async def test_drain_waits_for_what_is_waiting_and_under_way() -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(items=1, in_flight=1))
    tasks = [asyncio.create_task(gathering.submit((name, 1))) for name in "abc"]
    await turns()
    draining = asyncio.create_task(gathering.drain())
    for _ in "abc":
        await turns()
        assert not draining.done()
        destination.answer()
    await asyncio.gather(*tasks)
    await draining


@pytest.mark.parametrize(("waits", "batches"), [(0, [["a"], ["b"]]), (3, [["a", "b"]])])
async def test_a_batch_waits_some_turns_for_more(waits: int, batches: list[list[str]]) -> None:
    destination = Destination()
    gathering = coalescer(destination, Bounds(turns=waits))
    first = asyncio.create_task(gathering.submit(("a", 1)))
    await turns(3)
    second = asyncio.create_task(gathering.submit(("b", 1)))
    await turns(8)
    assert [[name for name, _ in batch] for batch in destination.batches] == batches
    while destination.open:
        destination.answer()
    assert await asyncio.gather(first, second) == ["answer to a", "answer to b"]
