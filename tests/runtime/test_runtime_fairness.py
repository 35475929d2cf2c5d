"""Callers take turns, and none holds more than its share (PROTOCOL §7)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.runtime.coalesce import Bounds, Coalescer, Place
from infra.runtime.errors import Refusal

Item = tuple[str, int, int]
"""Caller, number among the caller's items, size."""


class Gated:
    """Answers a batch when told to; `left` is every item in the order in which it left."""

    def __init__(self) -> None:
        self.left: list[Item] = []
        self.gates: list[asyncio.Future[None]] = []
        self.under_way: Counter[str] = Counter()

    async def send(self, items: list[Item]) -> Mapping[str, str]:
        self.left += items
        self.under_way.update(caller for caller, _, _ in items)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        try:
            await gate
        finally:
            self.under_way.subtract(caller for caller, _, _ in items)
        return {f"{caller}{number}": "done" for caller, number, _ in items}

    def coalescer(self, bounds: Bounds) -> Coalescer[Item, str]:
        return Coalescer(
            self.send,
            key=lambda item: f"{item[0]}{item[1]}",
            size=lambda item: item[2],
            bounds=bounds,
            caller=lambda item: item[0],
        )


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def finish(gated: Gated, tasks: list[asyncio.Task[str]]) -> None:
    while not all(task.done() for task in tasks):
        while gated.gates:
            gated.gates.pop().set_result(None)
        await turns()


@settings(max_examples=100, deadline=None)
@given(
    queue=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 30)), max_size=80),
    items=st.integers(1, 9),
    in_flight=st.integers(1, 3),
)
def test_no_caller_is_passed_twice_and_each_keeps_its_order(
    queue: list[tuple[str, int]], items: int, in_flight: int
) -> None:
    async def run() -> None:
        gated = Gated()
        gathering = gated.coalescer(Bounds(items=items, bytes=60, in_flight=in_flight))
        numbers: Counter[str] = Counter()
        tasks = []
        for caller, size in queue:
            item = (caller, numbers[caller], size)
            numbers[caller] += 1
            tasks.append(asyncio.create_task(gathering.submit(item)))
        await finish(gated, tasks)
        left: Counter[str] = Counter()
        for caller, number, _ in gated.left:
            assert number == left[caller]
            left[caller] += 1
            for other in numbers:  # whoever still waits is at most one turn behind
                assert left[other] == numbers[other] or left[caller] - left[other] <= 1
        assert left == numbers

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    share=st.integers(1, 6),
    items=st.integers(1, 5),
    in_flight=st.integers(1, 2),
)
def test_reserved_waiting_and_under_way_never_exceed_a_callers_share(
    seed: int, share: int, items: int, in_flight: int
) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        gated = Gated()
        bounds = Bounds(items=items, in_flight=in_flight, queue=1_000, per_caller=share)
        gathering = gated.coalescer(bounds)
        held: Counter[str] = Counter()
        places: list[tuple[str, Place]] = []
        tasks: list[asyncio.Task[str]] = []
        number = 0

        async def submit(caller: str, number: int, place: Place) -> str:
            try:
                return await gathering.submit((caller, number, 1), place)
            finally:
                held[caller] -= 1

        for _ in range(60):
            caller = rng.choice("ab")
            step = rng.random()
            if step < 0.5:
                if held[caller] == share:
                    with pytest.raises(Refusal, match="OVERLOADED"):
                        gathering.reserve(caller)
                else:
                    places.append((caller, gathering.reserve(caller)))
                    held[caller] += 1
            elif step < 0.8 and places:
                caller, place = places.pop(rng.randrange(len(places)))
                if rng.random() < 0.2:
                    place.give_back()
                    held[caller] -= 1
                    continue
                number += 1
                tasks.append(asyncio.create_task(submit(caller, number, place)))
                await turns()
            elif gated.gates:
                gate = gated.gates.pop(rng.randrange(len(gated.gates)))
                if rng.random() < 0.3:
                    gate.set_exception(RuntimeError("lost"))
                else:
                    gate.set_result(None)
                await turns()
        for _, place in places:
            place.give_back()
        while not all(task.done() for task in tasks):
            for gate in gated.gates:
                gate.set_result(None)
            gated.gates.clear()
            await turns()
        await asyncio.gather(*tasks, return_exceptions=True)
        for caller in "ab":  # everything was given back
            free = [gathering.reserve(caller) for _ in range(share)]
            with pytest.raises(Refusal):
                gathering.reserve(caller)
            assert len(free) == share

    asyncio.run(run())


async def test_a_flood_of_one_caller_delays_another_by_one_batch_at_most() -> None:
    gated = Gated()
    gathering = gated.coalescer(Bounds(items=10, in_flight=1))
    flood = [asyncio.create_task(gathering.submit(("flood", n, 1))) for n in range(500)]
    await turns()
    late = asyncio.create_task(gathering.submit(("late", 0, 1)))
    await turns()
    gated.gates.pop().set_result(None)
    await turns()
    assert ("late", 0, 1) in gated.left[10:20]
    await finish(gated, [*flood, late])


async def test_a_cancelled_callers_item_frees_its_share() -> None:
    gated = Gated()
    gathering = gated.coalescer(Bounds(items=1, in_flight=1, per_caller=2))
    first = asyncio.create_task(gathering.submit(("a", 0, 1)))
    await turns()
    second = asyncio.create_task(gathering.submit(("a", 1, 1)))
    await turns()
    second.cancel()
    await finish(gated, [first])
    await turns()
    with gathering.reserve("a"), gathering.reserve("a"):
        pass
    assert gated.left == [("a", 0, 1)]
