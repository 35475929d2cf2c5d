"""A site's policy desk for the tests: two people, small documents, cases of the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from policy_samples import cap, deductible, fund, row, terms

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, business_day, new_id
from services.policy.publishing import PublishingServicer
from services.policy.service import PolicyService
from yidi.common.v1 import amounts_pb2, types_pb2
from yidi.policy.v1 import policy_pb2, publishing_pb2

AREA = "440800"
SETTLEMENT = Call(Identity("440000", CallerType.ROLE, "settlement"), deadline_us=0)
LI, WANG, ZHAO = (
    Call(Identity("440000", CallerType.OPERATOR, name), deadline_us=0)
    for name in ("li", "wang", "zhao")
)
PUBLISHED = publishing_pb2.PolicyKey(
    insured_area=AREA, insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE, version="1"
)
LEVELS = ("one", "two", "three", "other", "unrated")


def written(*stages: dict[str, Any], **changes: Any) -> str:
    """A document of 湛江's employees as YAML: 80 % of stays above 800 yuan, at most 300,000."""
    stages = stages or (deductible("800元"), fund("80%", caps=[cap("30万元")]))
    data = terms(*stages, **{"area": AREA, **changes})
    data["sources"]["example"]["url"] = "https://example.org"
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False)


def in_folder(folder: Path, **texts: str) -> Path:
    """A folder with these files."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def chronic(*covered: str, otherwise: str) -> dict[str, Any]:
    """Benefits for stays, for chronic care of these diseases and for ordinary outpatient care."""
    benefit = {"counts_stays": False, "stages": [fund("50%")]}
    diseases = {"covered": list(covered), "otherwise": otherwise, **row()}
    return {
        "inpatient": {"care_types": ["inpatient"], "counts_stays": True, "stages": [fund("80%")]},
        "chronic": {**benefit, "care_types": ["chronic"], "diseases": diseases},
        "outpatient": {"care_types": ["outpatient"], "stages": [fund("30%")]},
    }


def a_case(clock: ManualClock, **facts: Any) -> policy_pb2.ComputeCase:
    """A referred stay of 11,800 yuan, 10,800 of it in scope."""
    day = business_day(clock.now_ms()).isoformat()
    values: dict[str, Any] = {
        "route": types_pb2.ROUTE_CROSS_PROVINCE,
        "basis": types_pb2.FILING_BASIS_FILED,
        "benefit_class": types_pb2.BENEFIT_CLASS_REFERRAL,
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "person_class": types_pb2.PERSON_CLASS_EMPLOYED,
        "age": 40,
        "deductible_level": types_pb2.INSTITUTION_LEVEL_THREE,
        "settlement_level": types_pb2.INSTITUTION_LEVEL_THREE,
        "start_date": day,
        "end_date": day,
        "business_day": day,
        "use_account": True,
    }
    return policy_pb2.ComputeCase(
        id=new_id(clock),
        facts=policy_pb2.Facts(**(values | facts)),
        total_fen=1_180_000,
        parts=amounts_pb2.FeeParts(
            full_self_pay_fen=50_000, first_self_pay_fen=50_000, in_scope_fen=1_080_000
        ),
    )


def a_unit(
    clock: ManualClock, *cases: policy_pb2.ComputeCase, area: str = AREA, **fields: Any
) -> policy_pb2.ComputeUnit:
    """One person's cases; one case if none is given."""
    return policy_pb2.ComputeUnit(
        id=new_id(clock),
        insured_area=area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        cases=cases or (a_case(clock),),
        **fields,
    )


async def compute(
    service: PolicyService, *units: policy_pb2.ComputeUnit
) -> dict[str, policy_pb2.ComputeResult]:
    """The result of each unit."""
    request = policy_pb2.BatchComputeRequest(items=units)
    response = await service.BatchCompute(request, SETTLEMENT)
    return {result.id: result for result in response.results}


async def funds_pay(service: PolicyService, clock: ManualClock, **facts: Any) -> int:
    """What the funds pay of one case now."""
    unit = a_unit(clock, a_case(clock, **facts))
    [case] = (await compute(service, unit))[unit.id].cases
    assert case.HasField("benefit"), case.error.message
    return case.benefit.amounts.fund_total_fen


async def draft(
    desk: PublishingServicer, text: str, *, by: Call = LI, request_id: str = "draft-0001"
) -> publishing_pb2.PolicyVersion:
    """A draft of 湛江."""
    request = publishing_pb2.CreateDraftRequest(
        request_id=request_id, written=text, insured_area=AREA, comment="年度调整"
    )
    response = await desk.CreateDraft(request, by)
    assert response.HasField("policy"), response.findings
    return response.policy


async def review(
    desk: PublishingServicer,
    policy: publishing_pb2.PolicyVersion,
    *,
    by: Call = WANG,
    approve: bool = True,
    request_id: str = "review-0001",
) -> publishing_pb2.PolicyVersion:
    """A verdict on a draft."""
    request = publishing_pb2.ReviewDraftRequest(
        request_id=request_id,
        draft_id=policy.draft_id,
        hash=policy.hash,
        approve=approve,
        comment="已与原文核对",
    )
    return (await desk.ReviewDraft(request, by)).policy


async def publish(
    desk: PublishingServicer,
    policy: publishing_pb2.PolicyVersion,
    *,
    by: Call = LI,
    request_id: str = "publish-0001",
    activate_ms: int | None = None,
) -> publishing_pb2.PolicyVersion:
    """A publication."""
    request = publishing_pb2.PublishPolicyRequest(request_id=request_id, draft_id=policy.draft_id)
    if activate_ms is not None:
        request.activate_time.FromMilliseconds(activate_ms)
    return (await desk.PublishPolicy(request, by)).policy
