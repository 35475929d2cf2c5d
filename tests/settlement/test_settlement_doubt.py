"""What the care place concludes from answers, and from none (PROTOCOL §1, §7, §10 lines 3–7)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from healing import told
from peers import FakePeer, Pass, Results
from world import BEIJING, GUANGDONG, World, outcomes, world

from infra.runtime.clock import SystemClock
from infra.runtime.config import NATION, Settings
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2

Envelopes = Sequence[envelope_pb2.Envelope]


@pytest.fixture(scope="module")
def peer() -> FakePeer:
    return FakePeer()


@pytest.fixture(scope="module")
async def doubtful(
    database_settings: Callable[..., Settings], sample_pki: Path, peer: FakePeer
) -> AsyncIterator[World]:
    """北京 and the nation as they are, 广东 behind the fake relay."""
    async with world(
        database_settings=database_settings,
        pki=sample_pki,
        clock=SystemClock(),
        replaced={GUANGDONG: {"relay": [peer.builder()]}},
        limits={"recover": False},
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def _behave(peer: FakePeer) -> None:
    peer.reset()


async def _state(made: World, request: gateway_pb2.SettleRequest) -> tuple[str, str, str]:
    """Settlement id, state of the journal row, state of the bill."""
    row = await (await made.admin(BEIJING)).fetchrow(
        """SELECT j.settlement_id::text AS id, j.state, b.state AS bill
           FROM settlement.care_journal j
           JOIN settlement.bill b USING (institution, visit_id, bill_id)
           WHERE j.request_id = $1""",
        request.request_id,
    )
    return row["id"], row["state"], row["bill"]


async def _nation_has(made: World, settlement_id: str) -> bool:
    return bool(
        await (await made.admin(NATION)).fetchval(
            "SELECT EXISTS (SELECT FROM relay.outcome WHERE settlement_id = $1::uuid)",
            settlement_id,
        )
    )


async def _decided(made: World, settlement_id: str) -> str | None:
    state: str | None = await (await made.admin(GUANGDONG)).fetchval(
        "SELECT state FROM settlement.decision WHERE settlement_id = $1::uuid", settlement_id
    )
    return state


async def test_shuffled_answers_match_and_a_missing_one_is_in_doubt(
    doubtful: World, peer: FakePeer
) -> None:
    """64 at once, every total another; every ninth answer is lost on the way back."""
    patients = await doubtful.patients(64)
    requests = [
        doubtful.request(patient, units=number) for number, patient in enumerate(patients, 1)
    ]
    lost: set[str] = set()
    numbers = count()

    async def drop(envelopes: Envelopes, onward: Pass) -> Results:
        results = await onward(envelopes)
        dropped = {result.id for result in results if next(numbers) % 9 == 0}
        lost.update(dropped)
        return [result for result in results if result.id not in dropped]

    peer.answer = drop
    answers = await outcomes(doubtful.settle(request) for request in requests)
    pending = 0
    for request, answer in zip(requests, answers, strict=True):
        settlement_id, state, bill = await _state(doubtful, request)
        if isinstance(answer, Refusal):
            pending += 1
            assert (answer.name, state, bill) == ("OUTCOME_PENDING", "IN_DOUBT", "IN_DOUBT")
            assert answer.details["settlement_id"] == settlement_id
            assert settlement_id in lost
            # It was decided, and neither the nation nor the care place may guess so.
            assert await _decided(doubtful, settlement_id) == "COMMITTED"
            assert not await _nation_has(doubtful, settlement_id)
        else:
            header = envelope_pb2.OutcomeHeader.FromString(answer.result.outcome_header)
            assert header.settlement_id == answer.settlement_id == settlement_id
            assert answer.result.amounts.total_fen == request.bill.total_fen
            assert (state, bill) == ("COMPLETED", "COMPLETED")
            assert await _nation_has(doubtful, settlement_id)
    assert pending == len(lost) > 0
    assert len(peer.received) == 64, "each hop sends a commit once"


async def test_whoever_asks_for_a_doubtful_one_is_told_to_wait(
    doubtful: World, peer: FakePeer
) -> None:
    """GetSettlement and the same Settle say OUTCOME_PENDING; another request id gets nowhere."""
    [patient] = await doubtful.patients(1)

    async def lose(envelopes: Envelopes, onward: Pass) -> Results:
        await onward(envelopes)
        return []

    peer.answer = lose
    request = doubtful.request(patient)
    door = doubtful.institution(BEIJING)
    with pytest.raises(Refusal) as caught:
        await door.Settle(request, timeout=30)
    joined = await told(lambda: door.Settle(request, timeout=1))
    for refusal in (caught.value, joined):
        assert refusal.name == "OUTCOME_PENDING"
        assert refusal.details["state"] == "IN_DOUBT"
        assert "请勿重复收费" in refusal.next_step
        assert refusal.retry_ms
    for asked in (
        gateway_pb2.GetSettlementRequest(request_id=request.request_id),
        gateway_pb2.GetSettlementRequest(bill=request.bill.reference),
        gateway_pb2.GetSettlementRequest(settlement_id=caught.value.details["settlement_id"]),
    ):
        found = await door.GetSettlement(asked, timeout=30)
        assert found.state == types_pb2.SETTLEMENT_STATE_IN_DOUBT
        assert Refusal.from_status(found.reason).name == "OUTCOME_PENDING"
        assert not found.HasField("result")
    again = gateway_pb2.SettleRequest()
    again.CopyFrom(request)
    again.request_id += "-2"
    with pytest.raises(Refusal) as caught:
        await door.Settle(again, timeout=30)
    assert caught.value.name == "BILL_ALREADY_SETTLING"
    assert caught.value.details["request_id"] == request.request_id
    assert len(peer.received) == 1


async def test_an_undecided_refusal_from_beyond_is_in_doubt(
    doubtful: World, peer: FakePeer
) -> None:
    """Only who says that it sent nothing on may be believed (not_forwarded)."""

    async def refuse(envelopes: Envelopes, onward: Pass) -> Results:
        busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY).status()
        return [envelope_pb2.ExchangeResult(id=one.id, error=busy) for one in envelopes]

    async def break_down(envelopes: Envelopes, onward: Pass) -> Results:
        raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE)

    for answer in (refuse, break_down):
        [patient] = await doubtful.patients(1)
        peer.answer = answer
        request = doubtful.request(patient)
        with pytest.raises(Refusal) as caught:
            await doubtful.settle(request)
        assert caught.value.name == "OUTCOME_PENDING"
        _, state, bill = await _state(doubtful, request)
        assert (state, bill) == ("IN_DOUBT", "IN_DOUBT")


async def test_a_hop_that_sent_nothing_on_frees_the_bill(doubtful: World, peer: FakePeer) -> None:
    [patient] = await doubtful.patients(1)

    async def refuse(envelopes: Envelopes, onward: Pass) -> Results:
        full = Refusal(Reason.ERROR_REASON_OVERLOADED).status()
        return [
            envelope_pb2.ExchangeResult(id=one.id, error=full, not_forwarded=True)
            for one in envelopes
        ]

    peer.answer = refuse
    request = doubtful.request(patient)
    with pytest.raises(Refusal) as caught:
        await doubtful.settle(request)
    assert caught.value.name == "OVERLOADED"
    settlement_id, state, bill = await _state(doubtful, request)
    assert (state, bill) == ("REJECTED", "REJECTED")
    assert await _decided(doubtful, settlement_id) is None
    peer.reset()
    with pytest.raises(Refusal) as caught:  # final for its request id
        await doubtful.settle(request)
    assert caught.value.name == "OVERLOADED"
    request.request_id += "-2"
    assert (await doubtful.settle(request)).state == types_pb2.SETTLEMENT_STATE_COMPLETED


@pytest.mark.parametrize("broken", ["digest", "id", "garbage"])
async def test_the_nation_does_not_journal_what_is_not_the_outcome(
    doubtful: World, peer: FakePeer, broken: str
) -> None:
    """A spoiled outcome is an alarm and stays in doubt; its neighbour in the batch completes."""
    first, second = [doubtful.request(p) for p in await doubtful.patients(2)]
    spoiled: list[str] = []

    async def spoil(envelopes: Envelopes, onward: Pass) -> Results:
        results = await onward(envelopes)
        for result in results:
            if spoiled:
                break
            spoiled.append(result.id)
            outcome = result.committed
            if broken == "digest":
                outcome.digest = bytes(32)
            else:
                header = envelope_pb2.OutcomeHeader.FromString(outcome.header)
                header.settlement_id = "019a0000-0000-7000-8000-000000000000"
                outcome.header = b"\xff" if broken == "garbage" else header.SerializeToString()
                outcome.digest = hashlib.sha256(outcome.header).digest()
        return results

    peer.answer = spoil
    answers = await outcomes(doubtful.settle(request) for request in (first, second))
    found = dict([(await _state(doubtful, request))[:2] for request in (first, second)])
    assert sorted(found.values()) == ["COMPLETED", "IN_DOUBT"]
    assert found[spoiled[0]] == "IN_DOUBT"
    assert sorted(isinstance(answer, Refusal) for answer in answers) == [False, True]
    assert not await _nation_has(doubtful, spoiled[0])


async def test_another_outcome_under_a_known_id_is_an_alarm_at_the_nation(
    doubtful: World, peer: FakePeer
) -> None:
    """Insert-or-compare by id: the first bytes stand (PROTOCOL §4)."""
    [patient] = await doubtful.patients(1)
    admin = await doubtful.admin(NATION)

    async def forestall(envelopes: Envelopes, onward: Pass) -> Results:
        results = await onward(envelopes)
        [result] = results
        await admin.execute(
            """INSERT INTO relay.outcome
               SELECT ($1::uuid), kind, recorded_at, outcome_header, '\\x00'::bytea, business_day,
                      care_site, insured_site, total_fen, full_self_pay_fen, over_limit_fen,
                      first_self_pay_fen, in_scope_fen, remote_first_pay_fen, deductible_fen,
                      ratio_self_pay_fen, over_cap_fen, fund_total_fen, account_fen, cash_fen,
                      hospital_fen, fund_codes, fund_fen
               FROM relay.outcome LIMIT 1""",
            result.id,
        )
        return results

    [earlier] = await doubtful.patients(1)
    await doubtful.settle(doubtful.request(earlier))
    peer.answer = forestall
    request = doubtful.request(patient)
    with pytest.raises(Refusal) as caught:
        await doubtful.settle(request)
    assert caught.value.name == "OUTCOME_PENDING"
    settlement_id, state, _ = await _state(doubtful, request)
    assert state == "IN_DOUBT"
    reason = await (await doubtful.admin(BEIJING)).fetchval(
        "SELECT reason FROM settlement.care_journal WHERE settlement_id = $1::uuid", settlement_id
    )
    assert b"SETTLEMENT_ID_REUSED" in reason


async def test_a_caller_that_leaves_changes_nothing(doubtful: World, peer: FakePeer) -> None:
    """Cancelled after PENDING was durable: the settlement completes (PROTOCOL §7)."""
    [patient] = await doubtful.patients(1)
    on_its_way, go_on = asyncio.Event(), asyncio.Event()

    async def hold(envelopes: Envelopes, onward: Pass) -> Results:
        on_its_way.set()
        await go_on.wait()
        return await onward(envelopes)

    peer.answer = hold
    request = doubtful.request(patient)
    caller = asyncio.ensure_future(doubtful.settle(request))
    await on_its_way.wait()
    assert (await _state(doubtful, request))[1] == "PENDING"
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    go_on.set()
    # Who asks again joins the one under way.
    answer = await doubtful.settle(request)
    assert answer.state == types_pb2.SETTLEMENT_STATE_COMPLETED
    assert len(peer.received) == 1


async def test_a_caller_whose_time_runs_out_is_told_the_id(doubtful: World, peer: FakePeer) -> None:
    [patient] = await doubtful.patients(1)
    go_on = asyncio.Event()

    async def hold(envelopes: Envelopes, onward: Pass) -> Results:
        await go_on.wait()
        return await onward(envelopes)

    peer.answer = hold
    request = doubtful.request(patient)
    door = doubtful.institution(BEIJING)
    refusal = await told(lambda: door.Settle(request, timeout=2))
    go_on.set()
    assert refusal.name == "OUTCOME_PENDING"
    assert refusal.details["settlement_id"] == (await _state(doubtful, request))[0]


async def test_an_outcome_that_cannot_be_stored_is_never_called_undone(
    doubtful: World, peer: FakePeer
) -> None:
    """Committed beyond, and the care place's own row is gone: the caller is told to ask again,
    never that nothing was paid."""
    [patient] = await doubtful.patients(1)
    admin = await doubtful.admin(BEIJING)

    async def lose_the_row(envelopes: Envelopes, onward: Pass) -> Results:
        results = await onward(envelopes)
        await admin.execute(
            "DELETE FROM settlement.care_journal WHERE settlement_id = ANY($1::uuid[])",
            [one.id for one in envelopes],
        )
        return results

    peer.answer = lose_the_row
    request = doubtful.request(patient)
    with pytest.raises(Refusal) as caught:
        await doubtful.settle(request)
    assert caught.value.name == "OUTCOME_PENDING"
    assert await _decided(doubtful, caught.value.details["settlement_id"]) == "COMMITTED"


async def test_an_answer_with_too_many_hop_times_is_still_an_outcome(
    doubtful: World, peer: FakePeer
) -> None:
    """The care place never refuses a committed outcome (PROTOCOL §4)."""
    [patient] = await doubtful.patients(1)

    async def chatter(envelopes: Envelopes, onward: Pass) -> Results:
        results = await onward(envelopes)
        for result in results:
            result.hops.extend([envelope_pb2.HopTime(hop=types_pb2.HOP_DECIDE)] * 40)
        return results

    peer.answer = chatter
    answer = await doubtful.settle(doubtful.request(patient))
    assert answer.state == types_pb2.SETTLEMENT_STATE_COMPLETED
