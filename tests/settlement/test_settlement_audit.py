"""Audit cases after the settlement, decided once, and deduction rates by route (N24-21)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from afterwards import FINDING, OPERATOR, SITE, Afterwards, afterwards
from downgrading import downgrade
from hypothesis import given
from hypothesis import strategies as st
from world import BEIJING, World

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import SystemClock, business_day, instant, new_id
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.migrate import migrate
from services.settlement.domain.audit_case import CaseState, Decision, Duty, Standing, why_not
from services.settlement.domain.states import State
from services.settlement.store import SCHEMA
from services.settlement.store.details import DetailStore
from services.settlement.store.operating import OperatingStore
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import audit_pb2, audit_pb2_grpc, care_pb2, care_pb2_grpc

INJURY = audit_pb2.AUDIT_CASE_KIND_INJURY_DECLARATION
WARNED = audit_pb2.AUDIT_CASE_KIND_FINDING
PICKED = audit_pb2.AUDIT_CASE_KIND_PICKED
OPEN = audit_pb2.AUDIT_CASE_STATE_OPEN
CONFIRMED = audit_pb2.AUDIT_CASE_STATE_CONFIRMED
DEDUCTED = audit_pb2.AUDIT_CASE_STATE_DEDUCTED
BOTH = Duty.INJURY_DECLARED | Duty.AUDIT_FOUND
LOCAL, IN_PROVINCE, CROSS = (
    types_pb2.ROUTE_LOCAL,
    types_pb2.ROUTE_IN_PROVINCE,
    types_pb2.ROUTE_CROSS_PROVINCE,
)


@pytest.fixture
async def after(database_settings: Callable[..., Settings]) -> AsyncIterator[Afterwards]:
    async with afterwards(database_settings) as made:
        yield made


async def queue(after: Afterwards, **asked: object) -> audit_pb2.ListAuditCasesResponse:
    await after.details.take(1_000)
    request = audit_pb2.ListAuditCasesRequest(**asked)  # type: ignore[arg-type]
    return await after.service.ListAuditCases(request, OPERATOR)


async def pick(
    after: Afterwards, settlement_id: str, request_id: str = "", call: Call = OPERATOR
) -> audit_pb2.AuditCase:
    request = audit_pb2.OpenAuditCaseRequest(
        request_id=request_id or f"pick-{uuid4()}", settlement_id=settlement_id, operator="示例"
    )
    return (await after.service.OpenAuditCase(request, call)).case


async def decide(
    after: Afterwards, case_id: str, fen: int = 0, reason: str = "", request_id: str = ""
) -> audit_pb2.AuditCase:
    request = audit_pb2.DecideAuditCaseRequest(
        request_id=request_id or f"decide-{uuid4()}",
        case_id=case_id,
        deducted_fen=fen,
        reason=reason,
        operator="示例",
    )
    return (await after.service.DecideAuditCase(request, OPERATOR)).case


async def refused(made: object) -> tuple[str, str]:
    with pytest.raises(Refusal) as refusal:
        await made  # type: ignore[misc]
    return refusal.value.name, refusal.value.details.get("cause", "")


async def test_what_the_door_saw_opens_cases_when_the_settlement_is_completed(
    after: Afterwards,
) -> None:
    """外伤承诺 and 智能审核提示, once per settlement and kind (规程 第三十五条)."""
    both = await after.completed(BOTH, findings=[FINDING])
    injured = await after.completed(Duty.INJURY_DECLARED)
    await after.completed()
    await after.closed(await after.opened(BOTH), State.REJECTED)
    cases = (await queue(after)).cases
    assert [(case.settlement_id, case.kind) for case in cases] == [
        (both, WARNED),
        (both, INJURY),
        (injured, INJURY),
    ]
    [first, *_] = cases
    assert (first.state, first.route, first.insured_area) == (OPEN, CROSS, "440800")
    assert (first.total_fen, first.fund_total_fen, first.deducted_fen) == (100_00, 60_00, 0)
    assert first.bill.bill_id == "B1"
    assert not first.HasField("decide_time")
    assert (await queue(after)).cases == cases
    only = await queue(after, kind=INJURY, page_size=1)
    rest = await queue(after, kind=INJURY, page_size=1, page_token=only.next_page_token)
    assert [only.cases[0].settlement_id, rest.cases[0].settlement_id] == [both, injured]
    assert not rest.next_page_token
    assert await refused(queue(after, page_token="nonsense")) == ("MESSAGE_INVALID", "")


async def test_a_case_shows_the_lines_and_what_the_door_found(after: Afterwards) -> None:
    await after.completed(Duty.AUDIT_FOUND, findings=[FINDING])
    [case] = (await queue(after)).cases
    shown = await after.service.GetAuditCase(
        audit_pb2.GetAuditCaseRequest(case_id=case.case_id), OPERATOR
    )
    assert shown.case == case
    assert [line.amount_fen for line in shown.lines] == [100_00]
    assert list(shown.findings) == [FINDING]
    unknown = audit_pb2.GetAuditCaseRequest(case_id=str(uuid4()))
    assert await refused(after.service.GetAuditCase(unknown, OPERATOR)) == (
        "AUDIT_CASE_NOT_FOUND",
        "",
    )


async def test_an_auditor_picks_a_completed_settlement_once(after: Afterwards) -> None:
    settlement_id, other = await after.completed(), await after.completed()
    first = await pick(after, settlement_id, "pick-0001")
    assert (first.kind, first.state, first.settlement_id) == (PICKED, OPEN, settlement_id)
    assert await pick(after, settlement_id, "pick-0001") == first
    assert await pick(after, settlement_id, "pick-0002") == first
    assert (await refused(pick(after, other, "pick-0002")))[0] == "REQUEST_ID_REUSED"
    assert [case.case_id for case in (await queue(after)).cases] == [first.case_id]
    # Another operator's numbers are his own.
    colleague = Call(Identity(SITE, CallerType.OPERATOR, "auditor"), OPERATOR.deadline_us)
    assert (await pick(after, other, "pick-0001", colleague)).settlement_id == other
    pending = await after.opened()
    undo = await after.completed(kind=types_pb2.EXCHANGE_KIND_REFUND, undoes=other)
    for unfit in (pending.settlement_id, undo, new_id(SystemClock())):
        assert await refused(pick(after, unfit, "pick-0003")) == ("SETTLEMENT_NOT_FOUND", "")
    assert (await pick(after, settlement_id, "pick-0003")) == first  # nothing was claimed
    trail = await after.database.run(
        "SELECT action FROM settlement.audit WHERE subject = $1 ORDER BY audit_id", settlement_id
    )
    assert [row["action"] for row in trail] == ["open", "COMPLETED", "audit pick"]


async def test_a_case_is_decided_once(after: Afterwards) -> None:
    case = await pick(after, await after.completed())
    decided = await decide(after, case.case_id, 12_34, "重复收费", "decide-0001")
    assert (decided.state, decided.deducted_fen, decided.reason) == (DEDUCTED, 12_34, "重复收费")
    assert decided.decided_by == "clerk"
    assert decided.decide_time.ToMilliseconds() == after.clock.ms
    assert await decide(after, case.case_id, 12_34, "重复收费", "decide-0001") == decided
    assert await decide(after, case.case_id, 12_34, "重复收费", "decide-0002") == decided
    assert (await refused(decide(after, case.case_id, 1, "重复收费", "decide-0001")))[
        0
    ] == "REQUEST_ID_REUSED"
    for fen, reason in ((12_35, "重复收费"), (12_34, "别的"), (0, "")):
        assert await refused(decide(after, case.case_id, fen, reason)) == (
            "AUDIT_DECISION_REFUSED",
            "该事项已作出不同的处理，不能更改",
        )
    assert await refused(decide(after, str(uuid4()))) == ("AUDIT_CASE_NOT_FOUND", "")
    assert not (await queue(after)).cases
    assert list((await queue(after, state=DEDUCTED)).cases) == [decided]
    trail = await after.database.run(
        "SELECT action, actor FROM settlement.audit WHERE subject = $1 ORDER BY audit_id",
        case.settlement_id,
    )
    assert [row["action"] for row in trail][2:] == ["audit pick", "audit deducted"]
    assert trail[-1]["actor"] == OPERATOR.caller.spiffe_id


async def test_what_is_deducted_stays_within_what_the_funds_paid(after: Afterwards) -> None:
    """Over all cases of the settlement; a refused decision leaves nothing."""
    await after.completed(BOTH)
    first, second = (await queue(after)).cases
    assert await refused(decide(after, first.case_id, 1)) == (
        "AUDIT_DECISION_REFUSED",
        "扣款须说明理由",
    )
    await decide(after, first.case_id, 59_99, "超范围用药")
    assert await refused(decide(after, second.case_id, 2, "超范围用药", "decide-0001")) == (
        "AUDIT_DECISION_REFUSED",
        "扣款合计 60.01 元，超过基金支付的 60.00 元",
    )
    assert (await decide(after, second.case_id, 1, "超范围用药", "decide-0001")).state == DEDUCTED
    assert not await OperatingStore(after.database).oddities(instant(after.clock))


async def test_nothing_is_deducted_of_an_undone_settlement(after: Afterwards) -> None:
    """Its case can be confirmed, so that it leaves the queue."""
    settlement_id = await after.completed(Duty.AUDIT_FOUND)
    [case] = (await queue(after)).cases
    assert not case.undone
    await after.undone(settlement_id)
    [case] = (await queue(after)).cases
    assert case.undone
    assert await refused(decide(after, case.case_id, 1, "重复收费")) == (
        "AUDIT_DECISION_REFUSED",
        "该笔结算已冲正或退费，没有可扣款项",
    )
    assert (await decide(after, case.case_id)).state == CONFIRMED


async def test_racing_decisions_of_one_settlement_stay_within_the_funds(after: Afterwards) -> None:
    await after.completed(BOTH)
    first, second = (await queue(after)).cases
    results = await asyncio.gather(
        *(
            decide(after, case.case_id, fen, "超范围用药")
            for case in (first, second)
            for fen in (40_00, 41_00)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, audit_pb2.AuditCase) for result in results) == 1
    deducted = (await queue(after, state=DEDUCTED)).cases
    assert [case.deducted_fen for case in deducted] in ([40_00], [41_00])
    [left] = (await queue(after)).cases
    same = await asyncio.gather(
        *(decide(after, left.case_id, 1, "超范围用药", "decide-race") for _ in range(4))
    )
    assert len({case.SerializeToString() for case in same}) == 1


FUNDS = st.integers(0, 1_000)


@given(st.lists(st.integers(0, 1_000), max_size=6), FUNDS)
def test_no_order_of_decisions_deducts_more_than_the_funds_paid(
    asked: list[int], fund_fen: int
) -> None:
    deducted = 0
    for fen in asked:
        standing = Standing(None, deducted, fund_fen, undone=False)
        if not why_not(Decision(fen, "理由"), standing):
            deducted += fen
            assert Decision(fen, "理由").state is (
                CaseState.DEDUCTED if fen else CaseState.CONFIRMED
            )
    assert deducted <= fund_fen


async def test_rates_by_route_of_the_settlements_that_stand(after: Afterwards) -> None:
    """N24-21: the deduction rate of remote bills beside that of local ones."""
    local = [await after.completed(BOTH, route=LOCAL) for _ in range(2)]
    await after.completed(route=IN_PROVINCE, fund_fen=10_00)
    remote = await after.completed()
    gone = await after.completed(Duty.AUDIT_FOUND)
    await after.opened()
    for case in (await queue(after)).cases:
        if case.settlement_id in (local[0], gone):
            await decide(after, case.case_id, 6_00, "重复收费")
    await after.undone(gone)
    day = business_day(after.clock.now_ms())
    after.clock.ms += 24 * 3_600_000
    await after.completed(route=LOCAL)  # the next day's

    async def rates(start: object, end: object) -> list[tuple[int, ...]]:
        request = audit_pb2.GetDeductionRatesRequest(start_date=str(start), end_date=str(end))
        answer = await after.service.GetDeductionRates(request, OPERATOR)
        return [
            (r.route, r.settlements, r.fund_total_fen, r.deducted_settlements, r.deducted_fen)
            for r in answer.rates
        ]

    assert await rates(day, day) == [
        (LOCAL, 2, 120_00, 1, 12_00),
        (IN_PROVINCE, 1, 10_00, 0, 0),
        (CROSS, 1, 60_00, 0, 0),
    ]
    assert (await rates(day, day + timedelta(days=1)))[0] == (LOCAL, 3, 180_00, 1, 12_00)
    assert await rates(day - timedelta(days=9), day - timedelta(days=1)) == []
    assert (await refused(rates(day, day - timedelta(days=1))))[0] == "MESSAGE_INVALID"
    assert (await refused(rates("2026-02-30", day)))[0] == "DAY_INVALID"
    await decide(after, (await pick(after, remote)).case_id, 1, "重复收费")
    assert (await rates(day, day))[-1] == (CROSS, 1, 60_00, 1, 1)


async def test_a_deduction_above_the_funds_is_an_invariant_broken(after: Afterwards) -> None:
    case = await pick(after, await after.completed())
    await decide(after, case.case_id, 60_00, "重复收费")
    await after.database.run(
        "UPDATE settlement.audit_case SET deducted_fen = 6001 WHERE case_id = $1", case.case_id
    )
    [odd] = await OperatingStore(after.database).oddities(instant(after.clock))
    assert (odd.invariant, odd.subject) == ("audit_case", case.settlement_id)
    assert odd.text == "扣款 60.01 元，基金支付 60.00 元"


async def test_the_door_sees_a_declared_injury_over_the_whole_path(sites: World) -> None:
    """A case opens for the declaration; it never shows what the patient showed."""
    [declared, well] = await sites.patients(2)
    injury = {"injury": types_pb2.ANSWER_YES, "third_party": types_pb2.ANSWER_NO}
    settled = await sites.settle(sites.request(declared, **injury))
    plain = await sites.settle(sites.request(well))
    async with Database.open(sites.settings[BEIJING], "settlement") as database:
        while await DetailStore(database).take(256):
            pass
    audit = sites.operator(audit_pb2_grpc.AuditServiceStub, BEIJING)
    request = audit_pb2.ListAuditCasesRequest(kind=INJURY, page_size=1_000)
    found = (await audit.ListAuditCases(request, timeout=5)).cases
    [case] = [case for case in found if case.settlement_id == settled.settlement_id]
    assert plain.settlement_id not in {case.settlement_id for case in found}
    shown = await audit.GetAuditCase(audit_pb2.GetAuditCaseRequest(case_id=case.case_id), timeout=5)
    assert list(shown.lines) == list(settled.result.lines)
    assert declared.credential.number.encode() not in shown.SerializeToString()
    care = sites.operator(care_pb2_grpc.CareServiceStub, BEIJING)
    checked = await care.CheckCareInvariants(care_pb2.CheckCareInvariantsRequest(), timeout=5)
    assert "audit_case" not in {breach.invariant for breach in checked.breaches}
    gateway = sites.role(audit_pb2_grpc.AuditServiceStub, BEIJING, "gateway")
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await gateway.ListAuditCases(request, timeout=5)


async def test_the_tables_come_and_go(database_settings: Callable[..., Settings]) -> None:
    settings = database_settings(SITE)
    await migrate(settings, [SCHEMA], SystemClock())
    await downgrade(settings, SCHEMA, "settlement_0005")
    await migrate(settings, [SCHEMA], SystemClock())
    async with Database.open(settings, "settlement") as database:
        assert await DetailStore(database).take(1) == 0
