"""Loading, freshness and the RPC on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, business_day, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from services.policy.domain.canonical import DocumentError
from services.policy.loader import DOCUMENTS, NOTICE, load_documents
from services.policy.service import POLL_S, STALE_MS, PolicyService
from yidi.common.v1 import amounts_pb2, types_pb2
from yidi.policy.v1 import policy_pb2

CALL = Call(Identity("440000", CallerType.ROLE, "settlement"), deadline_us=0)


def a_case(clock: ManualClock, **facts: Any) -> policy_pb2.ComputeCase:
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
    clock: ManualClock, *cases: policy_pb2.ComputeCase, area: str = "440800", **fields: Any
) -> policy_pb2.ComputeUnit:
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
    request = policy_pb2.BatchComputeRequest(items=units)
    response = await service.BatchCompute(request, CALL)
    return {result.id: result for result in response.results}


async def opened(database: Database, clock: ManualClock, **settings: Any) -> PolicyService:
    service = PolicyService(
        database=database, clock=clock, **({"allow_illustrative": True} | settings)
    )
    await service.refresh()
    return service


async def test_compute_answers_every_amount_with_its_clause(
    database: Database, clock: ManualClock
) -> None:
    """S0-40, S4-16: referral from 湛江, the pooled fund's 80 % less ten points."""
    assert await load_documents(database, DOCUMENTS, clock, areas=["440800", "440100"]) == 4
    service = await opened(database, clock)
    opening = policy_pb2.Accumulator(period="2026", stay_count=1)
    unit = a_unit(clock, openings=[opening], account_balance_fen=100_000)
    result = (await compute(service, unit))[unit.id]
    (case,) = result.cases
    assert case.id == unit.cases[0].id
    benefit = case.benefit
    assert benefit.amounts == amounts_pb2.Amounts(
        total_fen=1_180_000,
        full_self_pay_fen=50_000,
        first_self_pay_fen=50_000,
        in_scope_fen=1_080_000,
        deductible_fen=80_000,
        ratio_self_pay_fen=300_000,
        fund_total_fen=700_000,
        account_fen=100_000,
        cash_fen=380_000,
    )
    assert list(benefit.funds) == [amounts_pb2.FundPayment(code="hifp_pay", fen=700_000)]
    assert list(benefit.deltas) == [
        policy_pb2.Accumulator(
            period="2026", stay_count=1, deductible_paid_fen=80_000, pooled_used_fen=700_000
        )
    ]
    assert (benefit.policy.area, benefit.policy.version) == ("440800", "2023-02-03.1")
    assert len(benefit.policy.hash) == 32
    assert benefit.policy.provenance == types_pb2.PROVENANCE_ILLUSTRATIVE
    assert benefit.steps[0].provenance == types_pb2.PROVENANCE_OFFICIAL
    assert benefit.steps[0].unit == policy_pb2.STEP_UNIT_BASIS_POINTS


async def test_each_fault_stays_in_its_case(database: Database, clock: ManualClock) -> None:
    await load_documents(database, DOCUMENTS, clock)
    service = await opened(database, clock, allow_illustrative=False)
    negative = a_case(clock)
    negative.parts.in_scope_fen = -1
    unequal = a_case(clock)
    unequal.total_fen += 1
    bad_day = a_case(clock, end_date="2026-02-31")
    unrated = a_case(clock, deductible_level=types_pb2.INSTITUTION_LEVEL_UNRATED)
    too_old = a_case(clock, end_date="2023-12-31")
    good = a_case(clock)
    mixed = a_unit(clock, negative, unequal, bad_day, unrated, too_old, good, area="370800")
    sample = a_unit(clock, area="440800")
    foreign = a_unit(clock, area="999999")
    results = await compute(service, mixed, sample, foreign)
    assert [
        Refusal.from_status(case.error).name if case.HasField("error") else "benefit"
        for case in results[mixed.id].cases
    ] == [
        "MESSAGE_INVALID",
        "TOTAL_MISMATCH",
        "DAY_INVALID",
        "POLICY_NOT_STATED",
        "POLICY_NOT_FOUND",
        "benefit",
    ]
    stated = Refusal.from_status(results[mixed.id].cases[3].error)
    assert stated.decided
    assert "inpatient/deductible/unrated/employed" in stated.message
    assert results[mixed.id].cases[5].benefit.amounts.deductible_fen == 60_000
    assert Refusal.from_status(results[sample.id].cases[0].error).name == "POLICY_NOT_OFFICIAL"
    assert Refusal.from_status(results[foreign.id].cases[0].error).name == "POLICY_NOT_FOUND"


async def test_stale_replica_refuses_undecided(database: Database, clock: ManualClock) -> None:
    await load_documents(database, DOCUMENTS, clock)
    service = PolicyService(database=database, clock=clock, allow_illustrative=True)
    unit = a_unit(clock)

    async def reason() -> str | None:
        result = (await compute(service, unit))[unit.id]
        return Refusal.from_status(result.error).name if result.HasField("error") else None

    assert await reason() == "POLICY_STALE"
    await service.refresh()
    clock.ms += STALE_MS
    assert await reason() is None
    clock.ms += 1
    assert await reason() == "POLICY_STALE"
    result = (await compute(service, unit))[unit.id]
    assert not Refusal.from_status(result.error).decided
    await service.refresh()
    assert await reason() is None


async def test_computing_asks_the_database_for_nothing(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROTOCOL §8: policy is memory, whatever the batch."""
    await load_documents(database, DOCUMENTS, clock)
    service = await opened(database, clock)

    async def forbidden(*_: object) -> None:
        pytest.fail("BatchCompute ran a statement")

    monkeypatch.setattr(database, "run", forbidden)
    for size in (1, 7, 256):
        units = [a_unit(clock) for _ in range(size)]
        results = await compute(service, *units)
        assert set(results) == {unit.id for unit in units}


async def test_loading_again_changes_nothing(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    folder = tmp_path / "documents"
    shutil.copytree(DOCUMENTS, folder)
    assert await load_documents(database, folder, clock) == 9
    assert await load_documents(database, folder, clock) == 0
    audit = await database.run("SELECT action, subject, digest FROM policy.audit")
    stored = await database.run("SELECT hash FROM policy.document ORDER BY publication")
    assert {row["digest"] for row in audit} == {row["hash"] for row in stored}
    assert len(audit) == 9
    changed = folder / "440800_310.yaml"
    changed.write_text(changed.read_text().replace("80000", "80001"))
    with pytest.raises(DocumentError, match="published with other content"):
        await load_documents(database, folder, clock)


async def test_two_loaders_at_once_publish_once(database: Database, clock: ManualClock) -> None:
    added = await asyncio.gather(*(load_documents(database, DOCUMENTS, clock) for _ in range(4)))
    assert sum(added) == 9
    numbers = await database.run("SELECT publication FROM policy.document ORDER BY 1")
    assert [row["publication"] for row in numbers] == list(range(1, 10))


async def test_a_later_document_counts_after_its_notice(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """A site that computes already changes over at one instant, on all replicas."""
    await load_documents(database, DOCUMENTS, clock, areas=["440800"])
    service = await opened(database, clock)
    text = (DOCUMENTS / "440800_310.yaml").read_text()
    text = text.replace('version: "2023-02-03.1"', 'version: "2023-02-03.2"')
    (tmp_path / "corrected.yaml").write_text(text.replace("fen: 80000", "fen: 90000"))
    assert await load_documents(database, tmp_path, clock) == 1
    await service.refresh()
    unit = a_unit(clock)

    async def deductible() -> int:
        await service.refresh()
        return (await compute(service, unit))[unit.id].cases[0].benefit.amounts.deductible_fen

    clock.ms += int(NOTICE.total_seconds() * 1000) - 1
    assert await deductible() == 80_000
    clock.ms += 1
    assert await deductible() == 90_000


async def test_published_documents_are_immutable(database: Database, clock: ManualClock) -> None:
    await load_documents(database, DOCUMENTS, clock)
    for statement in (
        "UPDATE policy.document SET content = ''",
        "DELETE FROM policy.document",
        "DELETE FROM policy.audit",
        "CREATE TABLE policy.more (id int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)


async def test_background_task_keeps_the_list_fresh(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It survives a database that is away, and ends with `stop`."""
    await load_documents(database, DOCUMENTS, clock, areas=["440800"])
    service = PolicyService(database=database, clock=clock, allow_illustrative=True)
    ticks = asyncio.Queue[float]()
    go = asyncio.Semaphore(0)

    async def tick(seconds: float) -> None:
        ticks.put_nowait(seconds)
        await go.acquire()

    monkeypatch.setattr("services.policy.service.asyncio.sleep", tick)
    await service.start()
    assert await ticks.get() == POLL_S
    real = service._store.last_number

    async def away() -> int:
        raise Refusal(1)  # any refusal of the catalogue

    monkeypatch.setattr(service._store, "last_number", away)
    clock.ms += STALE_MS + 1
    go.release()
    await ticks.get()
    unit = a_unit(clock)
    assert (await compute(service, unit))[unit.id].HasField("error")
    monkeypatch.setattr(service._store, "last_number", real)
    go.release()
    await ticks.get()
    assert not (await compute(service, unit))[unit.id].HasField("error")
    await service.stop()
    assert service._task is None
