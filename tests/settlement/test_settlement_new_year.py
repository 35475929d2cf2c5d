"""23:59:59 on 31 December: the business day and the benefit period are those of `decided_at` in
Asia/Shanghai at the insured place (PROTOCOL §11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from peers import FakePeer, Pass, Results
from world import BEIJING, GUANGDONG, ZHANJIANG, World, world

from infra.runtime.clock import SHANGHAI, ManualClock
from infra.runtime.config import NATION, Settings
from yidi.common.v1 import envelope_pb2

MIDNIGHT_MS = int(datetime(2027, 1, 1, tzinfo=SHANGHAI).timestamp() * 1000)


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(MIDNIGHT_MS - 10_000)


@pytest.fixture(scope="module")
def peer() -> FakePeer:
    return FakePeer()


@pytest.fixture(scope="module")
async def new_year(
    database_settings: Callable[..., Settings],
    sample_pki: Path,
    peer: FakePeer,
    clock: ManualClock,
) -> AsyncIterator[World]:
    """Ten seconds before midnight."""
    async with world(
        database_settings=database_settings,
        pki=sample_pki,
        clock=clock,
        replaced={GUANGDONG: {"relay": [peer.builder()]}},
    ) as made:
        yield made


async def _accumulators(made: World, person_id: str) -> dict[str, dict[str, Any]]:
    rows = await (await made.admin(GUANGDONG)).fetch(
        "SELECT * FROM settlement.accumulator WHERE person_id = $1::uuid", person_id
    )
    return {row["period"]: dict(row) for row in rows}


async def test_the_clock_over_midnight_on_31_december(
    new_year: World, peer: FakePeer, clock: ManualClock
) -> None:
    [patient] = await new_year.patients(1)
    day = new_year.today
    assert day.isoformat() == "2026-12-31"

    clock.ms = MIDNIGHT_MS - 1
    before = await new_year.settle(new_year.request(patient, day=day))

    async def midnight_passes(envelopes: Sequence[envelope_pb2.Envelope], onward: Pass) -> Results:
        clock.ms = MIDNIGHT_MS
        return await onward(envelopes)

    peer.answer = midnight_passes
    across = await new_year.settle(new_year.request(patient, day=day))
    peer.reset()
    clock.ms = MIDNIGHT_MS + 1_000
    home = await new_year.settle(new_year.request(patient, day=day, care_area=ZHANJIANG))

    assert before.result.business_day == "2026-12-31"
    assert before.result.decided_at.ToDatetime(UTC) == datetime(
        2026, 12, 31, 15, 59, 59, 999_000, UTC
    )
    assert across.result.business_day == home.result.business_day == "2027-01-01"
    assert across.result.decided_at.ToDatetime(UTC) == datetime(2026, 12, 31, 16, tzinfo=UTC)

    # The stay that was opened last year and decided this year counts this year.
    years = await _accumulators(new_year, patient.person_id)
    assert set(years) == {"2026", "2027"}
    for period, settled in (("2026", [before]), ("2027", [across, home])):
        amounts = [one.result.amounts for one in settled]
        assert years[period]["stay_count"] == len(settled)
        assert years[period]["deductible_paid_fen"] == sum(a.deductible_fen for a in amounts)
        assert years[period]["pooled_used_fen"] == sum(a.fund_total_fen for a in amounts)

    # All three journals hold the day that the insured place wrote; its id and partition are
    # of the instant when the care place opened it.
    for site, table in (
        (BEIJING, "settlement.care_journal"),
        (NATION, "relay.outcome"),
        (GUANGDONG, "settlement.decision"),
    ):
        row = await (await new_year.admin(site)).fetchrow(
            f"""SELECT business_day, tableoid::regclass::text AS partition, outcome_digest
                FROM {table} WHERE settlement_id = $1::uuid""",
            across.settlement_id,
        )
        assert row["business_day"].isoformat() == "2027-01-01"
        assert row["partition"].endswith("_2026_12")
        assert row["outcome_digest"] == across.result.outcome_digest
    opened = await (await new_year.admin(BEIJING)).fetchval(
        "SELECT opened_at FROM settlement.care_journal WHERE settlement_id = $1::uuid",
        across.settlement_id,
    )
    assert opened < datetime(2026, 12, 31, 16, tzinfo=UTC)
    audited = await (await new_year.admin(GUANGDONG)).fetchval(
        "SELECT at FROM settlement.audit WHERE subject = $1::uuid", across.settlement_id
    )
    assert audited == across.result.decided_at.ToDatetime(UTC)
