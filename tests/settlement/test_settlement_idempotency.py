"""A request id is claimed once and for ever, a bill has one live settlement (PROTOCOL §6)."""

from __future__ import annotations

import pytest
from world import BEIJING, GUANGZHOU, ZHANJIANG, World, outcomes

from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2

PLACES = [BEIJING, GUANGZHOU, ZHANJIANG]


def _again(request: gateway_pb2.SettleRequest, suffix: str) -> gateway_pb2.SettleRequest:
    copy = gateway_pb2.SettleRequest()
    copy.CopyFrom(request)
    copy.request_id += suffix
    return copy


async def _rows(sites: World, request: gateway_pb2.SettleRequest) -> dict[str, int]:
    """Rows of a bill in every table of the care place."""
    site = BEIJING if request.bill.visit.care_area == BEIJING else "440000"
    admin = await sites.admin(site)
    reference = request.bill.reference
    key = (reference.institution, reference.visit_id)
    journal = await admin.fetch(
        """SELECT settlement_id, request_id FROM settlement.care_journal
           WHERE (institution, visit_id) = ($1, $2)""",
        *key,
    )
    return {
        "journal": len(journal),
        "bill": await admin.fetchval(
            "SELECT count(*) FROM settlement.bill WHERE (institution, visit_id) = ($1, $2)", *key
        ),
        "request_key": await admin.fetchval(
            "SELECT count(*) FROM settlement.request_key WHERE settlement_id = ANY($1)",
            [row["settlement_id"] for row in journal],
        ),
    }


@pytest.mark.parametrize("care_area", PLACES)
async def test_the_same_request_gets_the_first_answer(sites: World, care_area: str) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient, care_area=care_area)
    first = await sites.settle(request)
    later = _again(request, "")
    later.operator, later.credential.number = "另一位收费员", "f" * 32
    again = await sites.settle(later)
    assert again.result.outcome_header == first.result.outcome_header
    assert again.result.lines == first.result.lines
    assert (again.settlement_id, again.result.steps) == (first.settlement_id, first.result.steps)
    assert await _rows(sites, request) == {"journal": 1, "bill": 1, "request_key": 1}


async def test_the_same_request_id_with_another_body_is_refused(sites: World) -> None:
    """Every business field counts: here the day of discharge, after the first and beside it."""
    [patient] = await sites.patients(1)
    request = sites.request(patient)
    other = sites.request(patient, days=4)
    other.request_id = request.request_id
    answers = await outcomes([sites.settle(request), sites.settle(other)])
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert [refusal.name for refusal in refused] == ["REQUEST_ID_REUSED"]
    loser = other if isinstance(answers[1], Refusal) else request
    with pytest.raises(Refusal) as caught:
        await sites.settle(loser)
    assert caught.value.name == "REQUEST_ID_REUSED"
    assert caught.value.details["request_id"] == request.request_id
    assert await _rows(sites, loser) == {"journal": 0, "bill": 0, "request_key": 0}


async def test_one_bill_under_two_request_ids_is_settled_once(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient)
    answers = await outcomes(sites.settle(_again(request, f"-{n}")) for n in range(8))
    done = [answer for answer in answers if not isinstance(answer, Refusal)]
    assert len(done) == 1
    names = {answer.name for answer in answers if isinstance(answer, Refusal)}
    assert names <= {"BILL_ALREADY_SETTLING", "BILL_ALREADY_SETTLED"}
    with pytest.raises(Refusal) as caught:
        await sites.settle(_again(request, "-late"))
    assert caught.value.name == "BILL_ALREADY_SETTLED"
    winner = f"{request.request_id}-{next(n for n, a in enumerate(answers) if a in done)}"
    assert caught.value.details["settlement_id"] == done[0].settlement_id
    assert caught.value.details["request_id"] == winner
    assert winner in caught.value.next_step
    assert await _rows(sites, request) == {"journal": 1, "bill": 1, "request_key": 1}


@pytest.mark.parametrize("care_area", [BEIJING, GUANGZHOU])
async def test_a_decided_refusal_frees_the_bill_and_is_final_for_its_request(
    sites: World, care_area: str
) -> None:
    """Refused for want of a filing, filed before discharge, settled under a new request id
    (R1, 规程 第十六条)."""
    [patient] = await sites.patients(1, places=())
    request = sites.request(patient, care_area=care_area)
    with pytest.raises(Refusal) as caught:
        await sites.settle(request)
    assert caught.value.name == "FILING_REQUIRED"
    assert caught.value.decided
    await sites.file([patient], care_area)
    with pytest.raises(Refusal) as caught:
        await sites.settle(request)
    assert caught.value.name == "FILING_REQUIRED"
    found = await sites.institution(care_area).GetSettlement(
        gateway_pb2.GetSettlementRequest(request_id=request.request_id), timeout=30
    )
    assert found.state == types_pb2.SETTLEMENT_STATE_REJECTED
    assert Refusal.from_status(found.reason).name == "FILING_REQUIRED"
    settled = await sites.settle(_again(request, "-2"))
    assert settled.state == types_pb2.SETTLEMENT_STATE_COMPLETED
    by_bill = await sites.institution(care_area).GetSettlement(
        gateway_pb2.GetSettlementRequest(bill=request.bill.reference), timeout=30
    )
    assert by_bill.settlement_id == settled.settlement_id
    assert by_bill.result.outcome_digest == settled.result.outcome_digest
    assert await _rows(sites, request) == {"journal": 2, "bill": 1, "request_key": 2}


async def test_an_institution_sees_its_own_settlements_only(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient, care_area=GUANGZHOU)
    settled = await sites.settle(request)
    for asked in (
        gateway_pb2.GetSettlementRequest(settlement_id=settled.settlement_id),
        gateway_pb2.GetSettlementRequest(request_id=request.request_id),
    ):
        with pytest.raises(Refusal) as caught:
            await sites.institution(ZHANJIANG).GetSettlement(asked, timeout=30)
        assert caught.value.name == "SETTLEMENT_NOT_FOUND"
    with pytest.raises(Refusal) as caught:
        await sites.institution(ZHANJIANG).GetSettlement(
            gateway_pb2.GetSettlementRequest(bill=request.bill.reference), timeout=30
        )
    assert caught.value.name == "FOREIGN_CODE"


async def test_two_institutions_may_use_the_same_request_id(sites: World) -> None:
    """It is unique per caller."""
    [patient] = await sites.patients(1)
    here, there = (sites.request(patient, care_area=area) for area in (BEIJING, GUANGZHOU))
    there.request_id = here.request_id
    first, second = await sites.settle(here), await sites.settle(there)
    assert first.settlement_id != second.settlement_id
