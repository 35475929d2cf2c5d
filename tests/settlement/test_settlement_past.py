"""Past settlements with all they were computed from, and a shadow run over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from world import BEIJING, GUANGDONG, ZHANJIANG, World

from infra.runtime.errors import Refusal
from services.settlement.domain.undo import negated_deltas
from services.settlement.store.past import openings
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc, publishing_pb2, publishing_pb2_grpc
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

DOCUMENT = Path(__file__).parents[2] / "services" / "policy" / "documents" / "440800_310.yaml"


def asking(sites: World, **fields: Any) -> insured_pb2.ListPastCasesRequest:
    day = sites.today.isoformat()
    return insured_pb2.ListPastCasesRequest(
        insured_area=ZHANJIANG,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        **({"from_day": day, "to_day": day} | fields),
    )


async def every_case(sites: World, **fields: Any) -> dict[str, insured_pb2.PastCase]:
    """All pages of today's settlements, by id."""
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "policy")
    found: dict[str, insured_pb2.PastCase] = {}
    request = asking(sites, **fields)
    while True:
        answer = await insured.ListPastCases(request, timeout=30)
        found |= {case.case.id: case for case in answer.cases}
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def test_what_is_kept_computes_again(sites: World) -> None:
    """Also where a settlement does not add to an accumulator that it was computed from."""
    [patient] = await sites.patients(1)
    stay = await sites.settle(sites.request(patient))
    visit = {"care_type": types_pb2.CARE_TYPE_OUTPATIENT, "days": 0}
    outpatient = await sites.settle(sites.request(patient, **visit))
    again = await sites.settle(sites.request(patient))
    ids = [each.settlement_id for each in (stay, outpatient, again)]
    past = await every_case(sites, page_size=3)
    assert past.keys() >= set(ids)
    [first] = past[ids[0]].openings
    assert (first.stay_count, first.pooled_used_fen) == (0, 0)
    assert [each.period[5:] for each in past[ids[2]].openings] == ["", "outpatient"]
    service = sites.role(policy_pb2_grpc.PolicyServiceStub, GUANGDONG, "settlement")
    for settlement_id in ids:
        kept = past[settlement_id]
        unit = policy_pb2.ComputeUnit(
            id=settlement_id,
            insured_area=ZHANJIANG,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            openings=kept.openings,
            account_balance_fen=kept.account_balance_fen,
            cases=[kept.case],
        )
        answer = await service.BatchCompute(
            policy_pb2.BatchComputeRequest(items=[unit]), timeout=30
        )
        benefit = answer.results[0].cases[0].benefit
        assert benefit.amounts == kept.amounts
        assert list(benefit.funds) == list(kept.funds)
        assert benefit.policy == kept.policy
    facts = past[ids[0]].case.facts
    assert facts.care_area == BEIJING
    assert not facts.late_filing


async def test_neither_undos_nor_what_was_undone_is_listed(sites: World) -> None:
    first, second = await sites.patients(2)
    settled = [
        await sites.settle(sites.request(patient, care_area=ZHANJIANG))
        for patient in (first, second)
    ]
    door = sites.institution(ZHANJIANG)
    undone = settled[0].settlement_id
    refund = gateway_pb2.RefundRequest(
        request_id=f"refund-{undone}", settlement_id=undone, reason="录入错误"
    )
    await door.Refund(refund, timeout=30)
    past = await every_case(sites)
    assert undone not in past
    assert settled[1].settlement_id in past
    assert all(case.amounts.total_fen >= 0 for case in past.values())
    assert not await every_case(sites, from_day="2020-01-01", to_day="2020-12-31")
    with pytest.raises(Refusal, match="MESSAGE_INVALID"):
        await every_case(sites, page_token="'; --")


async def test_only_policy_may_ask(sites: World) -> None:
    for role in ("relay", "gateway"):
        insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, role)
        with pytest.raises(Refusal, match="ACCESS_DENIED"):
            await insured.ListPastCases(asking(sites), timeout=30)
    operator = sites.operator(insured_pb2_grpc.InsuredServiceStub, GUANGDONG)
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await operator.ListPastCases(asking(sites), timeout=30)


async def test_an_operator_runs_a_draft_over_past_settlements(sites: World) -> None:
    """Over every door: operator → policy → settlement; one deductible more, all else equal."""
    [patient] = await sites.patients(1)
    settled = await sites.settle(sites.request(patient, care_area=ZHANJIANG))
    desk = sites.operator(publishing_pb2_grpc.PublishingServiceStub, GUANGDONG)
    text = DOCUMENT.read_text(encoding="utf-8").replace("800元", "900元")
    request = publishing_pb2.CreateDraftRequest(
        request_id="shadow-run-1",
        written=text.replace('version: "2023-', 'version: "2123-'),
        insured_area=ZHANJIANG,
    )
    drafted = await desk.CreateDraft(request, timeout=30)
    assert drafted.HasField("policy"), drafted.findings
    day = sites.today.isoformat()
    run = publishing_pb2.SimulatePolicyRequest(
        policy=publishing_pb2.PolicySelector(draft_id=drafted.policy.draft_id),
        from_day=day,
        to_day=day,
        page_size=1000,
    )
    answer = await desk.SimulatePolicy(run, timeout=30)
    assert answer.not_reproduced == 0
    assert answer.settlements == answer.affected
    found = {each.settlement_id: each for each in answer.differences}
    difference = found[settled.settlement_id]
    after, before = difference.after.amounts, difference.before
    assert after.deductible_fen - before.deductible_fen == 10_000
    foreign = sites.operator(publishing_pb2_grpc.PublishingServiceStub, BEIJING)
    with pytest.raises(Refusal, match="FOREIGN_CODE"):
        await foreign.CreateDraft(request, timeout=30)


def test_a_decision_that_is_older_than_a_field_counts_it_as_zero() -> None:
    """The yearly fee came later: undo and shadow run read older decisions as they are."""
    kept = {
        "accumulators": [
            {"period": "2026", "before": {"stay_count": 1}, "delta": {"stay_count": 1}}
        ]
    }
    assert negated_deltas(kept) == {"2026": (-1, 0, 0, 0, 0, 0, 0, 0)}
    assert openings(kept) == {"2026": {"stay_count": 1}}
