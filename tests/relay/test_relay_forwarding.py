"""What a relay passes on, what it refuses to send, what the nation journals (PROTOCOL §5)."""

from __future__ import annotations

import asyncio

import pytest
from relay_chain import Chain, exchange, forwarder, resolve
from relay_peers import (
    CARE_AREA,
    INSURED_AREA,
    NOW_MS,
    OTHER_AREA,
    QUOTE,
    MemoryStore,
    Peer,
    call_of,
    committed,
    envelope,
    failing,
    outcome,
    question,
    reason_of,
)

from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.call import CallerType, Identity
from infra.runtime.coalesce import Bounds
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2

OPEN_LONG = BreakerLimits(failures=2, open_ms=600_000)
GATEWAY = Identity("440000", CallerType.ROLE, "gateway")
LOST = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="peer")


async def test_questions_never_wait_behind_commits_nor_quotes() -> None:
    peer, forwarding = Peer(gate=asyncio.Event()), forwarder(bounds=Bounds(items=1, in_flight=1))
    destination = peer.destination("110000")
    commits = asyncio.create_task(exchange(forwarding, destination, envelope(), envelope()))
    quotes = asyncio.create_task(exchange(forwarding, destination, envelope(kind=QUOTE)))
    async with asyncio.timeout(30):
        [answer] = await resolve(forwarding, destination, question())
    assert answer.HasField("committed")
    assert [len(batch) for batch in peer.exchanged] == [1, 1]  # the quote did not wait either
    assert peer.gate is not None
    peer.gate.set()
    await asyncio.gather(commits, quotes)


async def test_the_nation_journals_what_a_question_brings_up_and_no_quote() -> None:
    store, peer = MemoryStore(), Peer()
    forwarding, destination = forwarder(store), peer.destination("110000")
    asked, settled, quoted = question(), envelope(), envelope(kind=QUOTE)
    [answer] = await resolve(forwarding, destination, asked)
    await exchange(forwarding, destination, settled, quoted)
    assert answer.committed.digest == store.rows[asked.id]
    assert set(store.rows) == {asked.id, settled.id}


@pytest.mark.parametrize("way", ["exchange", "resolve"])
async def test_what_cannot_be_journaled_is_not_passed_on_as_committed(way: str) -> None:
    store, peer = MemoryStore(), Peer()
    store.fails = Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE)
    forwarding, destination = forwarder(store), peer.destination("110000")
    if way == "exchange":
        [answer] = await exchange(forwarding, destination, envelope())
    else:
        [answer] = await resolve(forwarding, destination, question())
    assert (reason_of(answer), answer.not_forwarded) == ("DATABASE_UNAVAILABLE", False)


async def test_another_outcome_under_the_same_id_or_for_another_item_is_an_alarm() -> None:
    store, peer = MemoryStore(), Peer()
    forwarding, destination = forwarder(store), peer.destination("110000")
    first, stranger = question(), question()
    await resolve(forwarding, destination, first)
    peer.answer = lambda item: envelope_pb2.ExchangeResult(id=item.id, committed=outcome(item, 1))
    [again] = await resolve(forwarding, destination, first)
    assert reason_of(again) == "SETTLEMENT_ID_REUSED"
    peer.answer = lambda item: envelope_pb2.ExchangeResult(id=item.id, committed=outcome(first))
    [foreign] = await resolve(forwarding, destination, stranger)
    assert reason_of(foreign) == "PAYLOAD_CORRUPT"
    assert set(store.rows) == {first.id}


async def test_tombstones_rejections_and_unknown_pass_through_unjournaled() -> None:
    store = MemoryStore()
    answers = {"aborted": b"a", "rejected": b"r", "unknown": True}
    for name, value in answers.items():
        peer = Peer(answer=lambda item, n=name, v=value: _result(item.id, n, v))  # type: ignore[misc]
        [answer] = await resolve(forwarder(store), peer.destination("110000"), question())
        assert answer.WhichOneof("outcome") == name
    assert store.rows == {}


def _result(settlement_id: str, name: str, value: object) -> envelope_pb2.ExchangeResult:
    return envelope_pb2.ExchangeResult(id=settlement_id, **{name: value})  # type: ignore[arg-type]


async def test_remaining_time_loses_a_margin_and_what_is_too_late_is_not_sent() -> None:
    peer = Peer()
    asked, late = question(remaining_ms=5_000), question(remaining_ms=40)
    answers = await resolve(forwarder(), peer.destination("110000"), asked, late)
    assert 4_000 < asked.remaining_ms <= 4_950
    assert peer.resolved == [[asked.id]]
    assert (reason_of(answers[1]), answers[1].not_forwarded) == ("DEADLINE_TOO_SHORT", True)


async def test_a_failed_call_leaves_every_item_unknown_and_a_missing_answer_too() -> None:
    peer = Peer(broken=LOST)
    answers = await exchange(forwarder(), peer.destination("110000"), envelope(), envelope())
    assert all(answer.HasField("error") and not answer.not_forwarded for answer in answers)
    silent = Peer(answer=lambda _: None)
    [answer] = await exchange(forwarder(), silent.destination("110000"), envelope())
    assert answer.WhichOneof("outcome") is None


async def test_no_connection_is_attempted_while_the_breaker_is_open() -> None:
    peer, forwarding = Peer(up=False), forwarder()
    destination = peer.destination("110000", Breaker(OPEN_LONG))
    for _ in range(6):
        [answer] = await exchange(forwarding, destination, envelope())
        assert (reason_of(answer), answer.not_forwarded) == ("SITE_UNREACHABLE", True)
    [quoted] = await exchange(forwarding, destination, envelope(kind=QUOTE))
    [asked] = await resolve(forwarding, destination, question())
    assert {reason_of(quoted), reason_of(asked)} == {"SITE_UNREACHABLE"}
    assert peer.connections == 2
    assert peer.exchanged == peer.resolved == []


async def test_what_waits_when_the_breaker_opens_is_refused_as_not_sent() -> None:
    peer = Peer(gate=asyncio.Event(), broken=LOST)
    limits = BreakerLimits(failures=1, open_ms=600_000)
    destination = peer.destination("110000", Breaker(limits))
    forwarding = forwarder(bounds=Bounds(items=1, in_flight=1))
    waiting = asyncio.create_task(exchange(forwarding, destination, envelope(), envelope()))
    await peer.reached.wait()
    assert peer.gate is not None
    peer.gate.set()
    sent, unsent = await waiting
    assert (reason_of(sent), sent.not_forwarded) == ("SERVICE_UNAVAILABLE", False)
    assert (reason_of(unsent), unsent.not_forwarded) == ("SITE_UNREACHABLE", True)
    assert len(peer.exchanged) == 1


async def test_a_question_may_be_the_trial_that_closes_the_breaker() -> None:
    now_us = 0
    breaker = Breaker(OPEN_LONG, lambda: now_us)
    peer, forwarding = Peer(broken=LOST), forwarder()
    destination = peer.destination("110000", breaker)
    for _ in range(2):
        await exchange(forwarding, destination, envelope())
    peer.broken, now_us = None, 600_000_000
    [asked] = await resolve(forwarding, destination, question())
    [settled] = await exchange(forwarding, destination, envelope())
    assert asked.HasField("committed")
    assert settled.HasField("committed")


async def test_a_site_that_is_down_does_not_open_the_breaker_of_the_nation() -> None:
    unreachable = failing(Reason.ERROR_REASON_SITE_UNREACHABLE, not_forwarded=True)
    breaker, forwarding = Breaker(OPEN_LONG), forwarder()
    down, up = Peer(answer=unreachable), Peer()
    for _ in range(5):
        await exchange(
            forwarding, down.destination("370000", breaker, passes_on=True), envelope(OTHER_AREA)
        )
    [answer] = await exchange(
        forwarding, up.destination("110000", breaker, passes_on=True), envelope()
    )
    assert answer.HasField("committed")


async def test_one_callers_share_of_a_queue_is_bounded_and_others_get_in() -> None:
    peer = Peer(gate=asyncio.Event())
    forwarding = forwarder(bounds=Bounds(per_caller=3))
    destination = peer.destination("110000")
    flood = [envelope(institution="H44010000001") for _ in range(5)]
    other = envelope(institution="H44010000002")
    task = asyncio.create_task(exchange(forwarding, destination, *flood, other))
    await peer.reached.wait()
    assert peer.gate is not None
    peer.gate.set()
    answers = {answer.id: answer for answer in await task}
    shed = [item.id for item in flood if reason_of(answers[item.id]) == "OVERLOADED"]
    assert len(shed) == 2
    assert all(answers[settlement_id].not_forwarded for settlement_id in shed)
    assert answers[other.id].HasField("committed")


async def test_commits_and_questions_travel_over_three_relays_and_are_journaled_once(
    chain: Chain,
) -> None:
    settled, asked = envelope(), question()
    [first], [second] = await chain.exchange(settled), await chain.resolve(asked)
    assert first.committed == outcome(settled)  # the very bytes
    assert second.committed == outcome(asked)
    assert set(chain.store.rows) == {settled.id, asked.id}
    # Three margins on the way.
    assert chain.settlement.exchanged == [[settled.id]]
    assert {hop.hop for hop in first.hops} == {types_pb2.HOP_NATION, types_pb2.HOP_INSURED}


async def test_provinces_enter_each_other_through_the_nation_only(chain: Chain) -> None:
    shandong = Identity("370000", CallerType.ROLE, "relay")
    exchanged = relay_pb2.BatchExchangeRequest(items=[envelope()])
    resolved = relay_pb2.BatchResolveRequest(items=[question()])
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await chain.care.BatchExchange(exchanged, call_of(shandong))
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await chain.care.BatchResolve(resolved, call_of(shandong))


async def test_a_site_in_downtime_gets_questions_and_no_envelopes(chain: Chain) -> None:
    downtime = relay_pb2.Downtime(site="110000", notice="系统升级。")
    downtime.start_time.FromMilliseconds(NOW_MS - 1_000)
    downtime.end_time.FromMilliseconds(NOW_MS + 3_600_000)
    await chain.listing.announce("operator", "notice-01", downtime)
    for item in (envelope(), envelope(kind=QUOTE)):
        [refused] = await chain.exchange(item)
        assert (reason_of(refused), refused.not_forwarded) == ("SITE_DOWNTIME", True)
    assert Refusal.from_status(refused.error).message.startswith("北京市 正在停机维护")
    assert chain.settlement.exchanged == []
    [answer] = await chain.resolve(question())
    assert answer.HasField("committed")
    [elsewhere] = await chain.exchange(envelope(OTHER_AREA))
    assert reason_of(elsewhere) == "SITE_UNREACHABLE"


async def test_only_the_nation_announces_and_keeps_a_journal(chain: Chain) -> None:
    clerk = call_of(Identity("440000", CallerType.OPERATOR, "clerk"))
    with pytest.raises(Refusal) as refused:
        await chain.care.AnnounceDowntime(relay_pb2.AnnounceDowntimeRequest(), clerk)
    assert refused.value.name == "ACCESS_DENIED"


async def test_an_unknown_area_is_refused_before_anything_is_sent(chain: Chain) -> None:
    [answer] = await chain.exchange(envelope("999900"))
    assert (reason_of(answer), answer.not_forwarded) == ("AREA_UNKNOWN", True)


def test_the_sample_items_are_answered_as_asked() -> None:
    """The fake peers speak the contract: an answer shows its own item."""
    item = envelope(INSURED_AREA)
    header = envelope_pb2.OutcomeHeader.FromString(committed(item).committed.header)
    assert (header.settlement_id, header.care_area) == (item.id, CARE_AREA)
