"""A quote is what would be settled now; a settlement that differs is refused (PROTOCOL §6)."""

from __future__ import annotations

import pytest
from world import BEIJING, GUANGZHOU, ZHANJIANG, Patient, World

from infra.runtime.errors import Refusal
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import payload_pb2

PLACES = [BEIJING, GUANGZHOU, ZHANJIANG]


async def _quoted(
    sites: World, patient: Patient, care_area: str
) -> tuple[gateway_pb2.SettleRequest, gateway_pb2.SettlementResult]:
    """A request that carries what a quote for its bill has just said."""
    request = sites.request(patient, care_area=care_area)
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    result = (await sites.institution(care_area).Quote(quote, timeout=30)).result
    request.expected.CopyFrom(
        payload_pb2.Expected(
            quote_digest=result.quote_digest,
            amounts=result.amounts,
            policy_hash=result.policy.hash,
            catalogue_version=result.catalogue_version,
        )
    )
    return request, result


@pytest.mark.parametrize("care_area", PLACES)
async def test_a_settlement_is_what_its_quote_said(sites: World, care_area: str) -> None:
    [patient] = await sites.patients(1)
    request, quoted = await _quoted(sites, patient, care_area)
    settled = (await sites.settle(request)).result
    assert settled.amounts == quoted.amounts
    assert (settled.funds, settled.steps) == (quoted.funds, quoted.steps)
    assert settled.quote_digest == quoted.quote_digest
    assert quoted.business_day == ""
    assert settled.business_day == sites.today.isoformat()


@pytest.mark.parametrize("care_area", PLACES)
async def test_a_quote_that_no_longer_holds_is_a_decided_refusal(
    sites: World, care_area: str
) -> None:
    """Outpatient ceilings: another settlement used the year's limit up in between."""
    [patient] = await sites.patients(1)
    visit = {
        "care_type": types_pb2.CARE_TYPE_OUTPATIENT,
        "inpatient_type": types_pb2.INPATIENT_TYPE_UNSPECIFIED,
        "days": 0,
    }
    request = sites.request(patient, care_area=care_area, **visit)
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    quoted = (await sites.institution(care_area).Quote(quote, timeout=30)).result
    request.expected.quote_digest = quoted.quote_digest
    request.expected.amounts.CopyFrom(quoted.amounts)
    await sites.settle(sites.request(patient, care_area=ZHANJIANG, **visit))
    with pytest.raises(Refusal) as caught:
        await sites.settle(request)
    refusal = caught.value
    assert refusal.name == "QUOTE_CHANGED"
    assert refusal.decided
    assert "年度累计" in refusal.message
    assert "基金支付由" in refusal.message
    fund = quoted.amounts.fund_total_fen
    assert refusal.details["quoted_fund_total_fen"] == str(fund)
    assert 0 <= int(refusal.details["computed_fund_total_fen"]) < fund
    row = await (await sites.admin("440000")).fetchrow(
        """SELECT state, rejection, balances::text FROM settlement.decision
           WHERE settlement_id = $1::uuid""",
        refusal.details["settlement_id"],
    )
    assert row["state"] == "REJECTED"
    stored = Refusal.from_status(envelope_pb2.Rejection.FromString(row["rejection"]).status)
    assert (stored.name, stored.details["cause"]) == ("QUOTE_CHANGED", refusal.details["cause"])
    # Quoted anew and settled under a new request id.
    request, quoted = await _quoted_again(sites, request)
    assert (await sites.settle(request)).result.amounts == quoted.amounts


async def _quoted_again(
    sites: World, request: gateway_pb2.SettleRequest
) -> tuple[gateway_pb2.SettleRequest, gateway_pb2.SettlementResult]:
    again = gateway_pb2.SettleRequest()
    again.CopyFrom(request)
    again.request_id += "-2"
    quote = gateway_pb2.QuoteRequest(credential=again.credential, bill=again.bill)
    door = sites.institution(again.bill.visit.care_area)
    result = (await door.Quote(quote, timeout=30)).result
    again.expected.Clear()
    again.expected.quote_digest = result.quote_digest
    return again, result


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        (payload_pb2.Expected(policy_hash=bytes(32)), "参保地政策已更新"),
        (payload_pb2.Expected(catalogue_version="older"), "就医地目录已更新"),
        (payload_pb2.Expected(quote_digest=bytes(32)), "年度累计或单据内容已变化"),
        (
            payload_pb2.Expected(amounts=amounts_pb2.Amounts(total_fen=1)),
            "年度累计或单据内容已变化，基金支付由 0.00 元变为",
        ),
    ],
)
async def test_the_cause_of_the_difference_is_told(
    sites: World, told: payload_pb2.Expected, cause: str
) -> None:
    """Whatever part of the quote the caller hands in is held against the result."""
    [patient] = await sites.patients(1)
    request = sites.request(patient)
    request.expected.CopyFrom(told)
    with pytest.raises(Refusal) as caught:
        await sites.settle(request)
    assert caught.value.name == "QUOTE_CHANGED"
    assert caught.value.details["cause"].startswith(cause)
    assert ("由" in caught.value.details["cause"]) == told.HasField("amounts")


async def test_a_quote_is_refused_as_a_settlement_would_be(sites: World) -> None:
    [patient] = await sites.patients(1, places=())
    request = sites.request(patient)
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    with pytest.raises(Refusal) as caught:
        await sites.institution(BEIJING).Quote(quote, timeout=30)
    assert caught.value.name == "FILING_REQUIRED"
    assert "备案" in caught.value.next_step
