"""A task beside the calls: rounds, failures, the end."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from infra.runtime.background import Background
from infra.runtime.errors import Reason, Refusal


class Rounds:
    """Notes what happens; no rest takes time."""

    def __init__(self) -> None:
        self.happened = asyncio.Queue[str]()
        self.failures: list[Exception] = []

    async def work(self) -> None:
        self.happened.put_nowait("work")
        if self.failures:
            raise self.failures.pop(0)

    def rest(self) -> float:
        self.happened.put_nowait("rest")
        return 0.0

    async def seen(self, background: Background) -> list[str]:
        """The first five things that happen from start to stop."""
        background.start()
        seen = [await self.happened.get() for _ in range(5)]
        await background.stop()
        return seen


@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (True, ["work", "rest", "work", "rest", "work"]),
        (False, ["rest", "work", "rest", "work", "rest"]),
    ],
)
async def test_rounds_follow_each_other_and_each_rest_is_asked_anew(
    at_once: bool, expected: list[str]
) -> None:
    rounds = Rounds()
    background = Background("test", rounds.work, rest=rounds.rest, at_once=at_once)
    assert await rounds.seen(background) == expected


async def test_a_failure_is_logged_with_its_place_and_ends_nothing() -> None:
    """A refusal by its reason, anything else without its text, which may quote data."""
    rounds = Rounds()
    rounds.failures = [
        Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE),
        ValueError("李明 440811196003073322"),
    ]
    with structlog.testing.capture_logs() as log:
        seen = await rounds.seen(Background("test", rounds.work, rest=rounds.rest))
    assert seen == ["work", "rest", "work", "rest", "work"]
    refused, failed = (entry for entry in log if entry.get("work") == "test")
    assert (refused["event"], refused["reason"]) == ("background waits", "DATABASE_UNAVAILABLE")
    assert failed["event"] == "background failed"
    assert failed["at"][0] == "ValueError"
    assert failed["at"][-1].endswith(" work")
    assert "李明" not in str(log)


async def test_stop_ends_a_round_in_its_middle_and_returns_when_it_has_ended() -> None:
    begun, never = asyncio.Event(), asyncio.Event()
    ended = []

    async def work() -> None:
        begun.set()
        try:
            await never.wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    background = Background("test", work, rest=lambda: 0.0)
    background.start()
    await begun.wait()
    await background.stop()
    assert ended == [True]
    await background.stop()


async def test_stop_without_start_does_nothing() -> None:
    rounds = Rounds()
    await Background("test", rounds.work, rest=rounds.rest).stop()
    assert rounds.happened.empty()
