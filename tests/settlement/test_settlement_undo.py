"""Undo is a new settlement: the exact negation of a stored original (PROTOCOL §2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from healing import MIDNIGHT_MS, Healing, told
from peers import Pass, Results
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, Patient, envelope, outcomes

from infra.runtime.errors import Reason, Refusal
from infra.runtime.journal import AMOUNTS
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import (
    care_pb2,
    care_pb2_grpc,
    insured_pb2,
    insured_pb2_grpc,
    payload_pb2,
)

COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
Envelopes = Sequence[envelope_pb2.Envelope]


@pytest.fixture
async def patient(healing: Healing) -> Patient:
    [made] = await healing.world.patients(1)
    return made


def _refund(settlement_id: str) -> gateway_pb2.RefundRequest:
    return gateway_pb2.RefundRequest(
        request_id=f"ref-{uuid4()}", settlement_id=settlement_id, reason="费用有误"
    )


def _reverse(settlement_id: str) -> gateway_pb2.ReverseRequest:
    return gateway_pb2.ReverseRequest(
        request_id=f"rev-{uuid4()}", settlement_id=settlement_id, reason="结果未收到"
    )


async def _accumulators(healing: Healing, patient: Patient) -> dict[str, list[int]]:
    """Period → values, without the version."""
    rows = await (await healing.world.admin(GUANGDONG)).fetch(
        "SELECT * FROM settlement.accumulator WHERE person_id = $1::uuid", patient.person_id
    )
    return {row["period"]: list(row.values())[5:] for row in rows}


async def _account(healing: Healing, patient: Patient, fen: int) -> str:
    """The person's account, paid into by a posting from outside."""
    kind = enrollment_pb2_grpc.EnrollmentServiceStub
    item = enrollment_pb2.IdentifyItem(
        id=str(uuid4()),
        credential=patient.credential,
        insured_area=patient.area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        day=healing.world.today.isoformat(),
    )
    request = enrollment_pb2.BatchIdentifyRequest(items=[item])
    enrollment = healing.world.role(kind, GUANGDONG, "settlement")
    [result] = (await enrollment.BatchIdentify(request, timeout=30)).results
    account_id = result.participant.account_id
    posting = insured_pb2.ExternalItem(
        id=str(uuid4()),
        insured_area=ZHANJIANG,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        person_id=patient.person_id,
        account_id=account_id,
        account_delta_fen=fen,
        source="期初余额",
    )
    insured = healing.world.operator(insured_pb2_grpc.InsuredServiceStub, GUANGDONG)
    answer = await insured.BatchPostExternal(
        insured_pb2.BatchPostExternalRequest(items=[posting]), timeout=30
    )
    assert answer.results[0].posted, answer
    return account_id


async def _balance(healing: Healing, account_id: str) -> int:
    fen: int = await (await healing.world.admin(GUANGDONG)).fetchval(
        "SELECT balance_fen FROM settlement.account WHERE account_id = $1::uuid", account_id
    )
    return fen


def _is_negation(original: bytes, undo: bytes) -> None:
    first = envelope_pb2.OutcomeHeader.FromString(original)
    second = envelope_pb2.OutcomeHeader.FromString(undo)
    for name in AMOUNTS:
        assert getattr(second.amounts, name) == -getattr(first.amounts, name), name
    assert [(f.code, f.fen) for f in second.funds] == [(f.code, -f.fen) for f in first.funds]
    assert second.undoes == first.settlement_id
    for name in ("care_area", "insured_area", "institution", "insurance", "route", "care_type"):
        assert getattr(second, name) == getattr(first, name), name
    assert second.policy == first.policy, "no policy is run"


@pytest.mark.parametrize("kind", ["Reverse", "Refund"])
@pytest.mark.parametrize("care_area", [BEIJING, GUANGZHOU, ZHANJIANG])
async def test_an_undo_negates_everything_and_frees_the_bill(
    healing: Healing, patient: Patient, kind: str, care_area: str
) -> None:
    """Every amount, fund and delta; the account is paid back; the bill can be settled again."""
    account_id = await _account(healing, patient, 300_000)
    earlier = await healing.world.settle(healing.world.request(patient, care_area=care_area))
    before = await _accumulators(healing, patient)
    request = healing.world.request(patient, care_area=care_area, use_account=True)
    settled = await healing.world.settle(request)
    assert settled.result.amounts.account_fen > 0
    door = healing.world.institution(care_area)
    wanted = {"Reverse": _reverse, "Refund": _refund}[kind](settled.settlement_id)
    undone = await getattr(door, kind)(wanted, timeout=30)
    assert (undone.state, undone.undoes) == (COMPLETED, settled.settlement_id)
    assert undone.settlement_id not in (settled.settlement_id, earlier.settlement_id)
    _is_negation(settled.result.outcome_header, undone.result.outcome_header)
    decisions = [await healing.decision(one.settlement_id) for one in (settled, undone)]
    kept = [json.loads(row["kept"]) for row in decisions if row is not None]
    assert [
        (one["period"], {name: -value for name, value in one["delta"].items()})
        for one in kept[0]["accumulators"]
    ] == [(one["period"], one["delta"]) for one in kept[1]["accumulators"]]
    assert kept[1]["account"]["delta"] == -kept[0]["account"]["delta"]
    details = [
        payload_pb2.OutcomeDetails.FromString(row["outcome_details"])
        for row in decisions
        if row is not None
    ]
    assert [d.pooled_used_fen for d in details[1].deltas] == [
        -d.pooled_used_fen for d in details[0].deltas
    ]
    assert await _accumulators(healing, patient) == before
    assert await _balance(healing, account_id) == 300_000 == details[1].account_balance_fen
    # The same request again gives the same answer; another says whose undo it was.
    again = await getattr(door, kind)(wanted, timeout=30)
    assert again.result.outcome_header == undone.result.outcome_header
    with pytest.raises(Refusal) as caught:
        await door.Refund(_refund(settled.settlement_id), timeout=30)
    assert caught.value.name == "ALREADY_UNDONE"
    assert caught.value.details["undo_id"] == undone.settlement_id
    # An undo is never undone.
    with pytest.raises(Refusal) as caught:
        await door.Refund(_refund(undone.settlement_id), timeout=30)
    assert caught.value.name == "ORIGINAL_NOT_FOUND"
    request.request_id += "-2"
    anew = await healing.world.settle(request)
    assert anew.state == COMPLETED
    assert anew.result.amounts == settled.result.amounts
    await healing.journals_agree()


async def test_of_two_refunds_at_once_one_is_made(healing: Healing, patient: Patient) -> None:
    """Over two doors, so in two batches and in one: the primary key decides."""
    settled = await healing.world.settle(healing.world.request(patient))
    door = healing.world.institution(BEIJING)
    answers = await outcomes(
        door.Refund(_refund(settled.settlement_id), timeout=30) for _ in range(8)
    )
    made = [one for one in answers if not isinstance(one, Refusal)]
    refused = [one for one in answers if isinstance(one, Refusal)]
    assert len(made) == 1
    assert {one.name for one in refused} == {"ALREADY_UNDONE"}
    assert {one.details["undo_id"] for one in refused} == {made[0].settlement_id}
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}


async def test_many_settlements_of_one_person_are_undone_at_once(
    healing: Healing, patient: Patient
) -> None:
    """They share the person's rows and go one after the other, in however many batches they come:
    none loses to the others until it is PERSON_BUSY."""
    settled = [await healing.world.settle(healing.world.request(patient)) for _ in range(8)]
    door = healing.world.institution(BEIJING)
    answers = await outcomes(door.Refund(_refund(one.settlement_id), timeout=30) for one in settled)
    assert [one.name for one in answers if isinstance(one, Refusal)] == []
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}


async def test_another_institution_finds_no_original(healing: Healing, patient: Patient) -> None:
    """At the front door, and at the insured place when a front door would not look."""
    settled = await healing.world.settle(healing.world.request(patient))
    stranger = healing.world.institution(BEIJING, "H11010100002")
    with pytest.raises(Refusal) as caught:
        await stranger.Refund(_refund(settled.settlement_id), timeout=30)
    assert caught.value.name == "SETTLEMENT_NOT_FOUND"
    sent = _undo_envelope(healing, patient, settled.settlement_id, "H11010100002")
    result = await healing.exchange_one(sent)
    refused = envelope_pb2.Rejection.FromString(result.rejected)
    assert Refusal.from_status(refused.status).name == "ORIGINAL_NOT_FOUND"
    # Decided once: the same undo is given the same answer.
    assert (await healing.exchange_one(sent)).rejected == result.rejected


def _undo_envelope(
    healing: Healing, patient: Patient, original: str, institution: str
) -> envelope_pb2.Envelope:
    sent = envelope(patient, healing.clock)
    payload = payload_pb2.UndoPayload(undoes=original)
    payload.bill.institution = institution
    payload.bill.visit_id, payload.bill.bill_id = "V1", "B1"
    sent.kind = types_pb2.EXCHANGE_KIND_REFUND
    sent.origin.institution = institution
    sent.payload = payload.SerializeToString()
    sent.payload_digest = hashlib.sha256(sent.payload).digest()
    return sent


async def test_an_undo_in_doubt_is_recovered_like_any_other(
    healing: Healing, patient: Patient
) -> None:
    """§10 line 11: decided and lost → COMPLETED; lost before → ABORTED, and another may come."""
    door = healing.world.institution(BEIJING)
    for decided in (True, False):
        settled = await healing.world.settle(healing.world.request(patient))

        async def lose(envelopes: Envelopes, onward: Pass, decided: bool = decided) -> Results:
            if decided:
                await onward(envelopes)
            return []

        healing.peer.answer = lose
        with pytest.raises(Refusal) as caught:
            await door.Refund(_refund(settled.settlement_id), timeout=30)
        assert caught.value.name == "OUTCOME_PENDING"
        undo_id = caught.value.details["settlement_id"]
        healing.peer.reset()
        await healing.heal()
        assert await healing.state(undo_id) == ("COMPLETED" if decided else "ABORTED")
        bill = (await healing.row(settled.settlement_id))["bill"]
        assert bill == ("UNDONE" if decided else "COMPLETED")
        if not decided:
            undone = await door.Refund(_refund(settled.settlement_id), timeout=30)
            assert undone.state == COMPLETED
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}
    await healing.journals_agree()


async def _cancel(healing: Healing, settlement_id: str) -> Any:
    """Ask for the reversal of a settlement in doubt; the answer or refusal."""
    door, request = healing.world.institution(BEIJING), _reverse(settlement_id)
    return await told(lambda: door.Reverse(request, timeout=0.5))


async def test_a_cancelled_settlement_that_was_never_decided_pays_nothing(
    healing: Healing, patient: Patient
) -> None:
    settlement_id = await healing.doubtful(healing.world.request(patient), decided=False)
    asked = await _cancel(healing, settlement_id)
    assert asked.name == "OUTCOME_PENDING"
    row = await healing.row(settlement_id)
    assert (row["state"], row["cancel_requested"]) == ("IN_DOUBT", True)
    await healing.heal()
    row = await healing.row(settlement_id)
    assert (row["state"], row["bill"], row["undone_by"]) == ("ABORTED", "ABORTED", None)
    told = await _cancel(healing, settlement_id)
    assert told.state == types_pb2.SETTLEMENT_STATE_ABORTED
    assert not told.HasField("result")
    assert await _accumulators(healing, patient) == {}


async def test_a_cancelled_settlement_that_stands_is_undone_by_recovery(
    healing: Healing, patient: Patient
) -> None:
    """The undo's id is on the row before it leaves; one that came to nothing is replaced."""
    settlement_id = await healing.doubtful(healing.world.request(patient))
    assert (await _cancel(healing, settlement_id)).name == "OUTCOME_PENDING"
    linked: list[tuple[str, str]] = []

    async def swallow(envelopes: Envelopes, onward: Pass) -> Results:
        for one in envelopes:
            row = await healing.row(settlement_id)
            linked.append((one.id, str(row["undone_by"])))
            assert one.kind == types_pb2.EXCHANGE_KIND_REVERSAL
        return []

    healing.peer.answer = swallow
    await healing.heal(rounds=3)
    [(first, on_row)] = linked
    assert first == on_row
    assert (await healing.row(settlement_id))["bill"] == "COMPLETED"
    assert await healing.state(first) == "ABORTED"
    assert (await _cancel(healing, settlement_id)).name == "OUTCOME_PENDING"
    healing.peer.reset()
    healing.clock.ms += 11_000
    recoverers = [healing.recovery() for _ in range(2)]
    await healing.heal(*recoverers, rounds=3)
    row = await healing.row(settlement_id)
    assert row["bill"] == "UNDONE"
    assert str(row["undone_by"]) != first
    assert row["next_attempt_at"] is None, "and nobody looks at it any more"
    told = await _cancel(healing, settlement_id)
    assert told.settlement_id == str(row["undone_by"])
    assert told.state == COMPLETED
    _is_negation(row["outcome_header"], told.result.outcome_header)
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}
    await healing.journals_agree()


@pytest.mark.parametrize("failure", ["not sent on", "decided", "aborted"])
async def test_an_automatic_undo_that_came_to_nothing_is_replaced(
    healing: Healing, patient: Patient, failure: str
) -> None:
    """REJECTED (by a hop that sent nothing on, or decided) or ABORTED: a new id, and it stands."""
    settlement_id = await healing.doubtful(healing.world.request(patient))
    assert (await _cancel(healing, settlement_id)).name == "OUTCOME_PENDING"
    former: list[str] = []

    async def fail(envelopes: Envelopes, onward: Pass) -> Results:
        results = []
        for one in envelopes:
            former.append(one.id)
            result = envelope_pb2.ExchangeResult(id=one.id)
            if failure == "not sent on":
                full = Refusal(Reason.ERROR_REASON_OVERLOADED)
                result.error.CopyFrom(full.status())
                result.not_forwarded = True
            elif failure == "decided":
                late = Refusal(Reason.ERROR_REASON_REFUND_INSTEAD)
                rejection = envelope_pb2.Rejection(settlement_id=one.id, status=late.status())
                result.rejected = rejection.SerializeToString()
            results.append(result)
        return results

    healing.peer.answer = fail
    await healing.heal(rounds=3)
    assert len(former) == 1, "one at a time, also while it is not known what becomes of it"
    first = await healing.row(former[0])
    assert first["state"] == ("ABORTED" if failure == "aborted" else "REJECTED")
    original = await healing.row(settlement_id)
    assert (str(original["undone_by"]), original["bill"]) == (former[0], "COMPLETED")
    assert (await _cancel(healing, settlement_id)).name == "OUTCOME_PENDING", "not yet undone"
    healing.peer.reset()
    healing.clock.ms += 11_000
    await healing.heal(*(healing.recovery() for _ in range(2)))
    original = await healing.row(settlement_id)
    second = str(original["undone_by"])
    assert second != former[0]
    assert (await healing.state(second), original["bill"]) == ("COMPLETED", "UNDONE")
    assert await healing.state(former[0]) == first["state"]
    assert [one.id for one in healing.peer.received] == [second]
    assert (await _cancel(healing, settlement_id)).settlement_id == second
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}
    await healing.journals_agree()


async def test_a_refund_that_comes_before_the_automatic_undo_ends_it(
    healing: Healing, patient: Patient
) -> None:
    """Recovery does not send undo after undo of what somebody else has undone."""
    settlement_id = await healing.doubtful(healing.world.request(patient))
    await _cancel(healing, settlement_id)
    recovery = healing.recovery()
    await recovery.tick()
    await healing.completed(settlement_id)
    await healing.world.institution(BEIJING).Refund(_refund(settlement_id), timeout=30)
    await recovery.settle_all()
    await healing.heal()
    healing.clock.ms += 11_000
    await healing.heal()
    assert (await healing.row(settlement_id))["next_attempt_at"] is None
    undos = await (await healing.world.admin(BEIJING)).fetchval(
        "SELECT count(*) FROM settlement.care_journal WHERE undoes = $1::uuid", settlement_id
    )
    assert undos <= 2
    care = healing.world.operator(care_pb2_grpc.CareServiceStub, BEIJING)
    asked = care_pb2.ShowSettlementRequest(settlement_id=settlement_id)
    undone_by = (await care.ShowSettlement(asked, timeout=30)).row.undone_by
    assert await healing.state(undone_by) == "COMPLETED", "the one that stands is shown"
    assert set(map(sum, (await _accumulators(healing, patient)).values())) == {0}


async def test_over_midnight_and_over_the_year(healing: Healing, patient: Patient) -> None:
    """After midnight a reversal is REFUND_INSTEAD; a refund goes to the original's period, with
    its own day; an automatic undo becomes a refund."""
    await healing.jump(max(MIDNIGHT_MS - 60_000 - healing.clock.ms, 0))
    assert healing.clock.ms < MIDNIGHT_MS
    settled = await healing.world.settle(healing.world.request(patient))
    cancelled = await healing.doubtful(healing.world.request(patient))
    assert (await _cancel(healing, cancelled)).name == "OUTCOME_PENDING"
    assert set(await _accumulators(healing, patient)) == {"2026"}
    await healing.midnight()
    door = healing.world.institution(BEIJING)
    with pytest.raises(Refusal) as caught:
        await door.Reverse(_reverse(settled.settlement_id), timeout=30)
    assert caught.value.name == "REFUND_INSTEAD"
    undone = await door.Refund(_refund(settled.settlement_id), timeout=30)
    assert (settled.result.business_day, undone.result.business_day) == ("2026-12-31", "2027-01-01")
    await healing.heal()
    row = await healing.row(cancelled)
    assert row["bill"] == "UNDONE"
    undo = await healing.row(str(row["undone_by"]))
    assert undo["kind"] == types_pb2.EXCHANGE_KIND_REFUND
    assert undo["business_day"].isoformat() == "2027-01-01"
    # Nothing is booked to the new year.
    assert {p: sum(v) for p, v in (await _accumulators(healing, patient)).items()} == {"2026": 0}
    await healing.journals_agree()
