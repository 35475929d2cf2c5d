"""The shadow run: past settlements as if a document were published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from policy_samples import deductible, fund, row
from publishing_desk import LI, PUBLISHED, a_case, a_unit, compute, draft, in_folder, written

from infra.runtime.clock import ManualClock
from infra.runtime.database import Database
from services.policy.loader import load_documents
from services.policy.publishing import PublishingServicer
from services.policy.service import PolicyService
from yidi.common.v1 import amounts_pb2, types_pb2
from yidi.policy.v1 import policy_pb2, publishing_pb2
from yidi.settlement.v1 import insured_pb2


class Past:
    """Settlement's journal: what was decided, page by page."""

    def __init__(self) -> None:
        self.cases: list[insured_pb2.PastCase] = []
        self.asked: list[insured_pb2.ListPastCasesRequest] = []

    async def __call__(
        self, request: insured_pb2.ListPastCasesRequest
    ) -> insured_pb2.ListPastCasesResponse:
        self.asked.append(request)
        start = int(request.page_token or 0)
        end = start + request.page_size
        more = str(end) if end < len(self.cases) else ""
        return insured_pb2.ListPastCasesResponse(cases=self.cases[start:end], next_page_token=more)

    async def settle(
        self,
        service: PolicyService,
        clock: ManualClock,
        openings: Sequence[policy_pb2.Accumulator] = (),
        **facts: Any,
    ) -> None:
        """A settlement of the past, decided by `service`."""
        unit = a_unit(clock, a_case(clock, **facts), openings=openings, account_balance_fen=50_000)
        [case] = (await compute(service, unit))[unit.id].cases
        self.cases.append(
            insured_pb2.PastCase(
                case=unit.cases[0],
                openings=openings,
                account_balance_fen=50_000,
                amounts=case.benefit.amounts,
                funds=case.benefit.funds,
                policy=case.benefit.policy,
            )
        )


@pytest.fixture
async def service(database: Database, clock: ManualClock, tmp_path: Path) -> PolicyService:
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    made = PolicyService(database=database, clock=clock)
    await made.refresh()
    return made


@pytest.fixture
def past() -> Past:
    return Past()


@pytest.fixture
def desk(
    database: Database, clock: ManualClock, service: PolicyService, past: Past
) -> PublishingServicer:
    return PublishingServicer(database=database, clock=clock, computing=service, past=past)


def simulating(
    policy: publishing_pb2.PolicyVersion, **fields: Any
) -> publishing_pb2.SimulatePolicyRequest:
    return publishing_pb2.SimulatePolicyRequest(
        policy=publishing_pb2.PolicySelector(draft_id=policy.draft_id),
        from_day="2026-11-01",
        to_day="2026-11-30",
        **fields,
    )


async def test_differences_are_listed_and_summed(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    """A stay of 10,800: 80 % above 800 is 8,000; 90 % above 1,800 is 8,100."""
    used = policy_pb2.Accumulator(period="2026", pooled_used_fen=29_500_000)
    await past.settle(service, clock)
    await past.settle(service, clock, [used])
    await past.settle(service, clock, use_account=False)
    policy = await draft(desk, written(deductible("1800元"), fund("90%"), version="2"))
    answer = await desk.SimulatePolicy(simulating(policy), LI)
    assert past.asked[0].insured_area == "440800"
    assert (answer.settlements, answer.affected) == (3, 3)
    assert (answer.refused, answer.not_reproduced) == (0, 0)
    assert [each.after.amounts.fund_total_fen for each in answer.differences] == [810_000] * 3
    assert [each.before.fund_total_fen for each in answer.differences] == [
        800_000,
        500_000,
        800_000,
    ]
    assert list(answer.fund_changes) == [amounts_pb2.FundPayment(code="hifp_pay", fen=330_000)]
    assert answer.account_change_fen == 0
    assert answer.cash_change_fen == -330_000
    assert all(each.reproduced for each in answer.differences)
    assert [each.settlement_id for each in answer.differences] == [
        each.case.id for each in past.cases
    ]


async def test_what_stays_the_same_is_counted_and_not_listed(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    await past.settle(service, clock)
    same = await draft(desk, written(version="2"))
    answer = await desk.SimulatePolicy(simulating(same), LI)
    assert (answer.affected, len(answer.differences)) == (1, 0)
    later = await draft(
        desk,
        written(fund("10%"), version="3", effective={"start": "2027-01-01"}),
        request_id="draft-0002",
    )
    answer = await desk.SimulatePolicy(simulating(later), LI)
    assert (answer.settlements, answer.affected, len(answer.differences)) == (1, 0, 0)


async def test_a_version_that_is_published_already_can_be_tried(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    await past.settle(service, clock)
    request = publishing_pb2.SimulatePolicyRequest(
        policy=publishing_pb2.PolicySelector(published=PUBLISHED),
        from_day="2026-11-01",
        to_day="2026-11-30",
    )
    answer = await desk.SimulatePolicy(request, LI)
    assert (answer.affected, answer.not_reproduced, len(answer.differences)) == (1, 0, 0)


async def test_a_refusal_is_a_difference_without_a_sum(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    await past.settle(service, clock)
    await past.settle(service, clock, settlement_level=types_pb2.INSTITUTION_LEVEL_ONE)
    rows = (
        row("not_stated", levels=["one"]),
        row("90%", levels=["two", "three", "other", "unrated"]),
    )
    policy = await draft(desk, written(fund(*rows), version="2"))
    answer = await desk.SimulatePolicy(simulating(policy), LI)
    assert answer.refused == 1
    paid, refused = answer.differences
    assert paid.after.amounts.fund_total_fen == 972_000
    assert "hifp_pay/ratio" in refused.error.message
    assert [each.fen for each in answer.fund_changes] == [172_000]


async def test_what_its_own_version_does_not_give_again_is_told_apart(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    await past.settle(service, clock)
    await past.settle(service, clock)
    past.cases[0].amounts.fund_total_fen -= 1
    past.cases[1].policy.hash = bytes(32)
    policy = await draft(desk, written(fund("90%"), version="2"))
    answer = await desk.SimulatePolicy(simulating(policy), LI)
    assert answer.not_reproduced == 2
    assert [each.reproduced for each in answer.differences] == [False, False]


async def test_a_run_is_taken_page_by_page(
    desk: PublishingServicer, service: PolicyService, past: Past, clock: ManualClock
) -> None:
    for _ in range(5):
        await past.settle(service, clock)
    policy = await draft(desk, written(fund("90%"), version="2"))
    request = simulating(policy, page_size=2)
    pages = []
    while True:
        answer = await desk.SimulatePolicy(request, LI)
        pages.append(answer)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert [page.settlements for page in pages] == [2, 2, 1]
    assert sum(fund.fen for page in pages for fund in page.fund_changes) == 5 * 172_000
