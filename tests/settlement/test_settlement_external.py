"""Postings from outside, and what should be impossible (PROTOCOL §3, §4)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

from healing import Healing, opening
from world import BEIJING, GUANGDONG, ZHANJIANG, Patient, reason

from infra.runtime.clock import instant
from infra.runtime.database import Database
from yidi.common.v1 import types_pb2
from yidi.policy.v1 import policy_pb2
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc


def _item(patient: Patient, **facts: object) -> insured_pb2.ExternalItem:
    values: dict[str, object] = {
        "id": str(uuid4()),
        "insured_area": ZHANJIANG,
        "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
        "person_id": patient.person_id,
        "deltas": [policy_pb2.Accumulator(period="2026", deductible_paid_fen=50_000)],
        "source": "手工报销",
    }
    return insured_pb2.ExternalItem(**(values | facts))  # type: ignore[arg-type]


async def _post(healing: Healing, *items: insured_pb2.ExternalItem) -> list[str]:
    """`posted` or the reason, in the order of the items."""
    insured = healing.world.operator(insured_pb2_grpc.InsuredServiceStub, GUANGDONG)
    request = insured_pb2.BatchPostExternalRequest(items=items)
    answer = await insured.BatchPostExternal(request, timeout=30)
    found = {r.id: "posted" if r.posted else reason(r.error) for r in answer.results}
    return [found[item.id] for item in items]


async def _paid(healing: Healing, patient: Patient) -> list[tuple[str, str, int]]:
    rows = await (await healing.world.admin(GUANGDONG)).fetch(
        "SELECT insured_area, period, deductible_paid_fen FROM settlement.accumulator "
        "WHERE person_id = $1::uuid ORDER BY 1, 2",
        patient.person_id,
    )
    return [tuple(row) for row in rows]


async def _breaches(healing: Healing) -> list[insured_pb2.Breach]:
    insured = healing.world.operator(insured_pb2_grpc.InsuredServiceStub, GUANGDONG)
    answer = await insured.CheckInsuredInvariants(
        insured_pb2.CheckInsuredInvariantsRequest(), timeout=30
    )
    assert answer.accumulators > 0
    return list(answer.breaches)


async def test_a_posting_counts_once_and_means_one_thing(healing: Healing) -> None:
    """Its id is the request id; another content under it is EXTERNAL_CONFLICT."""
    [patient] = await healing.world.patients(1)
    item = _item(patient)
    assert await asyncio.gather(*(_post(healing, item) for _ in range(6))) == [["posted"]] * 6
    other = _item(patient, id=item.id, source="另一处")
    assert await _post(healing, other) == ["EXTERNAL_CONFLICT"]
    assert await _paid(healing, patient) == [(ZHANJIANG, "2026", 50_000)]


async def test_county_codes_and_periods_named_twice_are_one_row(healing: Healing) -> None:
    """Accumulators belong to the pooling area; no delta is lost."""
    [patient] = await healing.world.patients(1)
    twice = [policy_pb2.Accumulator(period="2026", deductible_paid_fen=fen) for fen in (100, 23)]
    assert await _post(healing, _item(patient, insured_area="440802", deltas=twice)) == ["posted"]
    assert await _paid(healing, patient) == [(ZHANJIANG, "2026", 123)]
    assert not [b for b in await _breaches(healing) if patient.person_id in b.subject]


async def test_what_was_paid_elsewhere_counts_in_the_next_settlement(healing: Healing) -> None:
    """A pooling fund used up by a manual claim pays no more (PROTOCOL §3)."""
    first, second = await healing.world.patients(2)
    plain = await healing.world.settle(healing.world.request(first))
    used = policy_pb2.Accumulator(
        period=str(healing.world.today.year), pooled_used_fen=100_000_000_00
    )
    assert await _post(healing, _item(second, deltas=[used])) == ["posted"]
    settled = await healing.world.settle(healing.world.request(second))
    assert "hifp_pay" in {fund.code for fund in plain.result.funds if fund.fen}
    assert "hifp_pay" not in {fund.code for fund in settled.result.funds if fund.fen}
    assert not [b for b in await _breaches(healing) if second.person_id in b.subject]


async def test_postings_and_settlements_at_once_add_up(healing: Healing) -> None:
    """Whoever loses a row's version reads again: accumulators stay sums of deltas."""
    [patient] = await healing.world.patients(1)
    await asyncio.gather(
        *(_post(healing, _item(patient)) for _ in range(10)),
        *(healing.world.settle(healing.world.request(patient)) for _ in range(10)),
    )
    assert not [b for b in await _breaches(healing) if patient.person_id in b.subject]


async def test_an_account_never_becomes_negative_by_a_posting(healing: Healing) -> None:
    [patient] = await healing.world.patients(1)
    account = {"account_id": str(uuid4()), "deltas": []}
    taken = _item(patient, account_delta_fen=-1, **account)
    given = _item(patient, account_delta_fen=100, **account)
    assert await _post(healing, taken) == ["EXTERNAL_CONFLICT"]
    assert await _post(healing, given) == ["posted"]


async def test_an_altered_accumulator_is_found(healing: Healing) -> None:
    """CheckInsuredInvariants recomputes every row from its deltas."""
    [patient] = await healing.world.patients(1)
    await _post(healing, _item(patient))
    admin = await healing.world.admin(GUANGDONG)
    change = """UPDATE settlement.accumulator SET pooled_used_fen = pooled_used_fen + $2
                WHERE person_id = $1::uuid"""
    assert await _breaches(healing) == []
    await admin.execute(change, patient.person_id, 7)
    [breach] = await _breaches(healing)
    assert breach.invariant == "sum_of_deltas"
    assert patient.person_id in breach.subject
    assert breach.text == "pooled_used_fen 为 7，各笔合计应为 0"
    await admin.execute(change, patient.person_id, -7)
    assert await _breaches(healing) == []


async def test_old_open_rows_and_contradicting_claims_are_found(healing: Healing) -> None:
    """CheckCareInvariants; a healthy journal has none."""
    care = healing.world.operator(care_pb2_grpc.CareServiceStub, BEIJING)
    await healing.heal()

    async def breaches() -> dict[str, str]:
        answer = await care.CheckCareInvariants(care_pb2.CheckCareInvariantsRequest(), timeout=30)
        return {breach.invariant: breach.subject for breach in answer.breaches}

    assert await breaches() == {}
    old = opening(healing, deadline_at=instant(healing.clock))
    await healing.care.open([old], instant(healing.clock) - timedelta(seconds=61))
    assert await breaches() == {"open_too_long": old.settlement_id}
    admin = await healing.world.admin(BEIJING)
    for table in ("request_key", "bill"):
        await admin.execute(
            f"UPDATE settlement.{table} SET state = 'COMPLETED' WHERE settlement_id = $1::uuid",
            old.settlement_id,
        )
    assert set(await breaches()) == {"open_too_long", "request_key", "bill"}
    for table in ("request_key", "bill"):
        await admin.execute(
            f"UPDATE settlement.{table} SET state = 'PENDING' WHERE settlement_id = $1::uuid",
            old.settlement_id,
        )
    healing.clock.ms += 11_000
    await healing.heal()
    assert await breaches() == {}


async def test_cancelled_calls_leave_no_idle_transaction(healing: Healing) -> None:
    """A hundred of them on a pool of two; the pool works afterwards (issue 3)."""
    settings = healing.world.settings[BEIJING]
    at = settings.database.model_copy(update={"connections": 2})
    settings = settings.model_copy(update={"database": at})
    async with Database.open(settings, "settlement") as database:
        calls = [
            asyncio.ensure_future(database.run("SELECT pg_sleep($1::float)", 0.02))
            for _ in range(100)
        ]
        for number, call in enumerate(calls):
            if number % 10 == 0:
                await database.run("SELECT 1") if number == 0 else await asyncio.sleep(0)
            call.cancel()
        await asyncio.wait(calls)
        admin = await healing.world.admin(BEIJING)
        idle = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        )
        assert idle == 0
        answers = await asyncio.gather(*(database.run("SELECT 1 AS one") for _ in range(20)))
        assert [rows[0]["one"] for rows in answers] == [1] * 20
