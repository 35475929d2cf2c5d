"""The front door admits before anything is written (PROTOCOL §7)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from relay_peers import Peer, envelope, failing, reason_of

from gateway.frontdoor.queues import ExchangeQueues, Leaving
from infra.runtime.breaker import BreakerLimits
from infra.runtime.clock import monotonic_us
from infra.runtime.coalesce import Bounds, MissingAnswer
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2

ACROSS = types_pb2.ROUTE_CROSS_PROVINCE
HOSPITAL = "H44010000001"
LOST = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="peer")


class Door:
    """A front door towards one fake peer, its clock moved by hand on top of the real one."""

    def __init__(self, peer: Peer, bounds: Bounds | None = None) -> None:
        async def exchange(
            route: types_pb2.Route.ValueType,
            envelopes: Sequence[envelope_pb2.Envelope],
            seconds: float,
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            return await peer.exchange(envelopes, seconds)

        self.later_us = 0
        self.queues = ExchangeQueues(
            exchange=exchange,
            bounds=bounds or Bounds(),
            margin_ms=50,
            breaker=BreakerLimits(failures=2, open_ms=600_000),
            now_us=lambda: monotonic_us() + self.later_us,
        )

    async def settle(
        self, site: str = "110000", *, quote: bool = False
    ) -> envelope_pb2.ExchangeResult:
        queue, place = self.queues.admit(site, ACROSS, HOSPITAL, quote=quote, site_name="北京")
        leaving = Leaving(envelope(), monotonic_us() + self.later_us + 6_000_000)
        return await queue.submit(leaving, place)


def silent(_: object) -> None:
    return None


@pytest.mark.parametrize(
    "peer",
    [
        Peer(broken=LOST),
        Peer(answer=silent),
        Peer(answer=failing(Reason.ERROR_REASON_SITE_UNREACHABLE, not_forwarded=True)),
        Peer(answer=failing(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, not_forwarded=True)),
        Peer(answer=failing(Reason.ERROR_REASON_SERVICE_UNAVAILABLE)),
    ],
    ids=["rpc", "missing", "unreachable", "unavailable", "undecided"],
)
async def test_an_unreachable_site_is_refused_before_anything_is_claimed(peer: Peer) -> None:
    door = Door(peer)
    for _ in range(2):
        try:
            await door.settle()
        except (Refusal, MissingAnswer):
            continue
    sent = len(peer.exchanged)
    for quote in (False, True):
        with pytest.raises(Refusal, match="SITE_UNREACHABLE") as refused:
            await door.settle(quote=quote)
        assert refused.value.retry_ms
    assert len(peer.exchanged) == sent == 2
    # Others go on, and after a while one trial is let through and closes it.
    peer.broken, peer.answer = (
        None,
        lambda item: envelope_pb2.ExchangeResult(id=item.id, rejected=b"decided"),
    )
    assert (await door.settle("370000")).rejected
    door.later_us = 600_000_000
    assert (await door.settle()).rejected
    assert (await door.settle(quote=True)).rejected


async def test_a_refused_caller_holds_no_place() -> None:
    peer = Peer(broken=LOST)
    door = Door(peer, Bounds(queue=1))
    for _ in range(5):
        with pytest.raises(Refusal, match=r"SERVICE_UNAVAILABLE|SITE_UNREACHABLE"):
            await door.settle()


async def test_an_institution_with_its_share_full_is_refused_and_another_gets_in() -> None:
    door = Door(Peer(), Bounds(per_caller=1))
    _, place = door.queues.admit("110000", ACROSS, HOSPITAL, quote=False, site_name="北京")
    with pytest.raises(Refusal, match="OVERLOADED"):
        door.queues.admit("110000", ACROSS, HOSPITAL, quote=False, site_name="北京")
    _, other = door.queues.admit("110000", ACROSS, "H44010000002", quote=False, site_name="北京")
    place.give_back()
    other.give_back()
    assert (await door.settle()).HasField("committed")


async def test_what_waits_behind_the_failure_is_closed_as_not_sent() -> None:
    peer = Peer(gate=asyncio.Event(), broken=LOST)
    door = Door(peer, Bounds(items=1, in_flight=1))
    tasks = [asyncio.create_task(door.settle()) for _ in range(3)]
    assert peer.gate is not None
    peer.gate.set()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in (first, second)] == [Refusal, Refusal]
    assert isinstance(third, envelope_pb2.ExchangeResult)
    assert (reason_of(third), third.not_forwarded) == ("SITE_UNREACHABLE", True)
