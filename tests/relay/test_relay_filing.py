"""Filing travels the way of settlements, beside them: neither holds the other up (PROTOCOL §5)."""

from __future__ import annotations

import asyncio

import protovalidate
import pytest
from relay_chain import Chain, exchange, forwarder
from relay_peers import (
    FILING,
    NOW_MS,
    OTHER_AREA,
    MemoryStore,
    Peer,
    committed,
    envelope,
    filed,
    question,
    reason_of,
)

from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.coalesce import Bounds
from infra.runtime.errors import Reason, Refusal
from infra.runtime.rules_zh import describe
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2

LOST = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="peer")


async def test_filing_waits_behind_no_commit_nor_a_commit_behind_filing() -> None:
    """S0-19: whoever files before discharge is not held up by everybody's settlements."""
    for held, other in ((envelope(), FILING), (envelope(kind=FILING), envelope().kind)):
        peer, forwarding = (
            Peer(answer=filed, gate=asyncio.Event()),
            forwarder(bounds=Bounds(items=1, in_flight=1)),
        )
        destination = peer.destination("110000")
        waiting = asyncio.create_task(exchange(forwarding, destination, held))
        await peer.reached.wait()
        peer.reached.clear()
        second = asyncio.create_task(exchange(forwarding, destination, envelope(kind=other)))
        async with asyncio.timeout(30):
            await peer.reached.wait()
        assert peer.gate is not None
        peer.gate.set()
        await asyncio.gather(waiting, second)
        assert [len(batch) for batch in peer.exchanged] == [1, 1]


async def test_filing_goes_to_the_desk_over_three_relays_and_settling_to_settlement(
    chain: Chain,
) -> None:
    asked, settled = envelope(kind=FILING), envelope()
    answers = {answer.id: answer for answer in await chain.exchange(asked, settled)}
    assert answers[asked.id].filed == filed(asked).filed  # the very bytes
    assert answers[settled.id].HasField("committed")
    assert chain.desk.exchanged == [[asked.id]]
    assert chain.settlement.exchanged == [[settled.id]]


async def test_the_nation_journals_nothing_of_filing_whatever_the_desk_answers(
    chain: Chain,
) -> None:
    """A desk that answered like a settlement would not get into the nation's journal."""
    for answer in (filed, committed):
        chain.desk.answer = answer
        [passed] = await chain.exchange(envelope(kind=FILING))
        assert passed.WhichOneof("outcome") in ("filed", "committed")
    assert chain.store.rows == {}


async def test_what_is_filed_to_a_settlement_is_not_taken_as_committed() -> None:
    """A settlement answered with `filed` stays open: nobody may conclude anything from it."""
    store, peer = MemoryStore(), Peer(answer=filed)
    [answer] = await exchange(forwarder(store), peer.destination("110000"), envelope())
    assert not answer.HasField("committed")
    assert store.rows == {}


@pytest.mark.parametrize("broken", ["desk", "settlement"])
async def test_the_breaker_of_one_closes_the_way_to_neither(chain: Chain, broken: str) -> None:
    kinds = {"desk": FILING, "settlement": envelope().kind}
    other = "settlement" if broken == "desk" else "desk"
    getattr(chain, broken).broken = LOST
    for _ in range(BreakerLimits().failures):
        await chain.exchange(envelope(kind=kinds[broken]))
    [closed] = await chain.exchange(envelope(kind=kinds[broken]))
    assert (reason_of(closed), closed.not_forwarded) == ("SITE_UNREACHABLE", True)
    sent = len(getattr(chain, broken).exchanged)
    assert sent == BreakerLimits().failures
    [answer] = await chain.exchange(envelope(kind=kinds[other]))
    assert not answer.HasField("error")


def test_what_the_desk_answers_closes_a_breaker() -> None:
    breaker = Breaker(BreakerLimits(failures=1))
    breaker.unreachable()
    item = envelope(kind=FILING)
    breaker.answered(breaker.begin(1.0), 1, [filed(item)])
    assert breaker.passes


async def test_downtime_and_unknown_areas_refuse_filing_before_it_leaves(chain: Chain) -> None:
    downtime = relay_pb2.Downtime(site="110000", notice="系统升级。")
    downtime.start_time.FromMilliseconds(NOW_MS - 1_000)
    downtime.end_time.FromMilliseconds(NOW_MS + 3_600_000)
    await chain.listing.announce("operator", "notice-01", downtime)
    for area, reason in (
        ("110000", "SITE_DOWNTIME"),
        ("999900", "AREA_UNKNOWN"),
        (OTHER_AREA, "SITE_UNREACHABLE"),
    ):
        [answer] = await chain.exchange(envelope(area, kind=FILING))
        assert (reason_of(answer), answer.not_forwarded) == (reason, True)
    assert chain.desk.exchanged == []


def test_a_question_about_filing_breaks_the_contract() -> None:
    """Filing has request ids: a question could only leave a tombstone in settlement."""
    asked = question()
    assert not _faulty(asked)
    asked.kind = FILING
    assert _faulty(asked)


def _faulty(item: envelope_pb2.ResolveItem) -> bool:
    faults = protovalidate.Validator().collect_violations(item)
    return "kind" in [describe(fault).field for fault in faults]
