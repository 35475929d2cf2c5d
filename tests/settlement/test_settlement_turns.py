"""One person's cases are decided by one batch of a process at a time."""

from __future__ import annotations

import asyncio

import pytest

from services.settlement.domain.balance import PersonKey
from services.settlement.turns import Turns

PERSONS = {name: PersonKey("440800", 310, name) for name in "ABC"}


def person(item: str) -> PersonKey | None:
    """`A1` is a case of A, `-1` one that needs no turn."""
    return PERSONS.get(item[0])


async def test_a_batch_goes_on_without_the_persons_of_another() -> None:
    turns = Turns()
    async with turns.take(["A1", "B1", "A2", "-1"], person) as (first, left):
        assert (first, left) == (["A1", "B1", "A2", "-1"], [])
        async with turns.take(["A3", "C1", "-2"], person) as (second, later):
            assert (second, later) == (["C1", "-2"], ["A3"])
            async with turns.take(["C2", "-3"], person) as (third, _):
                assert third == ["-3"]
    async with turns.take(later, person) as (second, later):
        assert (second, later) == (["A3"], [])


async def test_it_waits_when_nothing_else_is_left_and_then_for_one_of_them() -> None:
    turns = Turns()
    begun, go_on = asyncio.Event(), asyncio.Event()
    seen: list[tuple[list[str], list[str]]] = []

    async def hold() -> None:
        async with turns.take(["B1"], person):
            begun.set()
            await go_on.wait()

    async def wait() -> None:
        async with turns.take(["A2", "B2"], person) as taken:
            seen.append(taken)

    holding = asyncio.ensure_future(hold())
    await begun.wait()
    async with turns.take(["A1"], person):
        waiting = asyncio.ensure_future(wait())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not seen
    await waiting
    assert seen == [(["A2"], ["B2"])]
    go_on.set()
    await holding


async def test_a_turn_ends_with_a_failure_too() -> None:
    turns = Turns()
    with pytest.raises(KeyError):
        async with turns.take(["A1"], person):
            raise KeyError
    async with turns.take(["A2"], person) as (turn, _):
        assert turn == ["A2"]
    no_items: list[str] = []
    async with turns.take(no_items, person) as (turn, others):
        assert turn == others == []
