"""Accumulators are sums of signed deltas, whatever comes at once (PROTOCOL §3, §7)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from world import (
    BEIJING,
    GUANGDONG,
    GUANGZHOU,
    ZHANJIANG,
    Patient,
    World,
    envelope,
    outcomes,
    reason,
)

from infra.runtime.config import NATION
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.errors import Refusal
from infra.runtime.links import stub
from services.settlement.deciding import ATTEMPTS, Decider
from services.settlement.store.insured import InsuredStore, NewDecision, UnitWrite
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2_grpc
from yidi.policy.v1 import policy_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc, payload_pb2

DIFFERENCES = """
WITH delta AS (
    SELECT d.person_id, b ->> 'period' AS period, e.key AS name, sum(e.value::bigint) AS total,
           count(DISTINCT (b ->> 'version')) AS writes
    FROM settlement.decision d, jsonb_array_elements(d.balances -> 'accumulators') b,
         jsonb_each_text(b -> 'delta') e
    WHERE d.state = 'COMMITTED' AND d.person_id = ANY($1::uuid[])
    GROUP BY 1, 2, 3
), stored AS (
    SELECT a.person_id, a.period, a.version, e.key AS name, e.value::bigint AS total
    FROM settlement.accumulator a, jsonb_each_text(to_jsonb(a) - 'person_id' - 'period'
         - 'insured_area' - 'insurance' - 'version') e
    WHERE a.person_id = ANY($1::uuid[])
)
SELECT coalesce(s.person_id, d.person_id) AS person_id, name, s.total AS stored, d.total AS summed,
       s.version, d.writes
FROM stored s FULL JOIN delta d USING (person_id, period, name)
WHERE s.total IS DISTINCT FROM d.total OR s.version + 1 IS DISTINCT FROM d.writes
"""
"""Rows where an accumulator is not the sum of the deltas of the decisions, or where a version was
used by two writers or by none."""


async def _differences(sites: World, patients: Sequence[Patient]) -> list[object]:
    rows: list[object] = await (await sites.admin(GUANGDONG)).fetch(
        DIFFERENCES, [patient.person_id for patient in patients]
    )
    return rows


async def test_few_people_settled_from_many_places_at_once(sites: World) -> None:
    """120 stays of five people over all three routes; nobody is told PERSON_BUSY."""
    patients = await sites.patients(5)
    requests = [
        sites.request(patients[n % 5], care_area=(BEIJING, GUANGZHOU, ZHANJIANG)[n % 3])
        for n in range(120)
    ]
    answers = await outcomes(sites.settle(request) for request in requests)
    assert [answer.name for answer in answers if isinstance(answer, Refusal)] == []
    assert await _differences(sites, patients) == []
    stays = await (await sites.admin(GUANGDONG)).fetch(
        "SELECT stay_count FROM settlement.accumulator WHERE person_id = ANY($1::uuid[])",
        [patient.person_id for patient in patients],
    )
    assert [row["stay_count"] for row in stays] == [24] * 5


async def test_the_journals_of_a_day_are_equal(sites: World) -> None:
    """Care, nation and insured place hold the same bytes (PROTOCOL §4)."""
    [patient] = await sites.patients(1)
    await sites.settle(sites.request(patient))
    day = sites.today.isoformat()
    pair = {"business_day": day, "care_site": BEIJING, "insured_site": GUANGDONG}
    care = await sites.operator(care_pb2_grpc.CareServiceStub, BEIJING).GetCareJournalDigest(
        care_pb2.GetCareJournalDigestRequest(**pair), timeout=30
    )
    insured = await sites.operator(
        insured_pb2_grpc.InsuredServiceStub, GUANGDONG
    ).GetInsuredJournalDigest(insured_pb2.GetInsuredJournalDigestRequest(**pair), timeout=30)
    # Batches sent straight to the nation or to the insured place have no row at the care place.
    nation_sites = {}
    for caller in (BEIJING, GUANGDONG):
        nation_sites[caller] = await sites.relay(
            relay_pb2_grpc.RelayServiceStub, NATION, caller=caller
        ).GetNationJournalDigest(relay_pb2.GetNationJournalDigestRequest(**pair), timeout=30)
    assert nation_sites[BEIJING] == nation_sites[GUANGDONG]
    completed = await (await sites.admin(BEIJING)).fetch(
        """SELECT settlement_id, outcome_header, outcome_digest FROM settlement.care_journal
           WHERE state = 'COMPLETED' AND insured_site = $1 AND outcome_header <> ''
             AND octet_length(outcome_header) > 100 AND business_day = $2""",
        GUANGDONG,
        sites.today,
    )
    assert completed
    for site, table in ((NATION, "relay.outcome"), (GUANGDONG, "settlement.decision")):
        rows = await (await sites.admin(site)).fetch(
            f"""SELECT settlement_id, outcome_header, outcome_digest FROM {table}
                WHERE settlement_id = ANY($1)""",
            [row["settlement_id"] for row in completed],
        )
        key = "settlement_id"
        assert sorted(rows, key=lambda r: r[key]) == sorted(completed, key=lambda r: r[key])
    assert insured.journal.count >= nation_sites[BEIJING].journal.count >= len(completed)
    assert care.journal.sums.total_fen > 0
    empty = await sites.operator(care_pb2_grpc.CareServiceStub, BEIJING).GetCareJournalDigest(
        care_pb2.GetCareJournalDigestRequest(**(pair | {"business_day": "2020-01-01"})), timeout=30
    )
    assert empty.journal.digest.hex().startswith("e3b0c44298fc1c149afbf4c8996fb924")


async def test_a_digest_is_not_for_strangers(sites: World) -> None:
    pair = {"business_day": "2026-11-21", "care_site": "370000", "insured_site": GUANGDONG}
    nation = sites.relay(relay_pb2_grpc.RelayServiceStub, NATION, caller=BEIJING)
    with pytest.raises(Refusal) as caught:
        await nation.GetNationJournalDigest(
            relay_pb2.GetNationJournalDigestRequest(**pair), timeout=30
        )
    assert caught.value.name == "ACCESS_DENIED"
    with pytest.raises(Refusal) as caught:
        await sites.operator(care_pb2_grpc.CareServiceStub, BEIJING).GetCareJournalDigest(
            care_pb2.GetCareJournalDigestRequest(**pair), timeout=30
        )
    assert caught.value.name == "FOREIGN_CODE"


async def _account(sites: World, patient: Patient, fen: int) -> str:
    """The person's account, with money in it (paying in comes with manual claims)."""
    enrollment = sites.role(enrollment_pb2_grpc.EnrollmentServiceStub, GUANGDONG, "settlement")
    item = enrollment_pb2.IdentifyItem(
        id="019a0000-0000-7000-8000-000000000001",
        credential=patient.credential,
        insured_area=patient.area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        day=sites.today.isoformat(),
    )
    [result] = (
        await enrollment.BatchIdentify(
            enrollment_pb2.BatchIdentifyRequest(items=[item]), timeout=30
        )
    ).results
    account_id = result.participant.account_id
    await (await sites.admin(GUANGDONG)).execute(
        "INSERT INTO settlement.account VALUES ($1::uuid, 0, $2)", account_id, fen
    )
    return account_id


async def test_an_account_pays_once_whatever_stands_beside_it(sites: World) -> None:
    """One unit: a stay without the account, then two that use it up (PROTOCOL §7)."""
    [patient] = await sites.patients(1)
    account_id = await _account(sites, patient, 200_000)
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    items = [
        envelope(patient, sites.clock, use_account=use_account)
        for use_account in (False, True, True)
    ]
    answer = await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=items), timeout=30)
    found = {result.id: result.committed for result in answer.results}
    headers = [envelope_pb2.OutcomeHeader.FromString(found[item.id].header) for item in items]
    paid = [header.amounts.account_fen for header in headers]
    assert paid[0] == 0
    assert paid[1] > 0
    assert sum(paid) == 200_000
    row = await (await sites.admin(GUANGDONG)).fetchrow(
        "SELECT version, balance_fen FROM settlement.account WHERE account_id = $1::uuid",
        account_id,
    )
    assert tuple(row) == (1, 0)
    kept = await (await sites.admin(GUANGDONG)).fetch(
        """SELECT (balances -> 'account' ->> 'before')::bigint AS before,
                  (balances -> 'account' ->> 'delta')::bigint AS delta
           FROM settlement.decision WHERE settlement_id = ANY($1::uuid[])
           ORDER BY array_position($1::uuid[], settlement_id)""",
        [item.id for item in items],
    )
    assert [tuple(row) for row in kept] == [
        (None, None),
        (200_000, -paid[1]),
        (200_000 - paid[1], -paid[2]),
    ]
    details = payload_pb2.OutcomeDetails.FromString(found[items[1].id].details)
    assert details.account_balance_fen == 200_000 - paid[1]


async def test_an_account_is_never_overdrawn_by_settlements_at_once(sites: World) -> None:
    [patient] = await sites.patients(1)
    account_id = await _account(sites, patient, 500_000)
    requests = [
        sites.request(patient, care_area=area, use_account=True)
        for area in (BEIJING, GUANGZHOU, ZHANJIANG) * 4
    ]
    answers = await outcomes(sites.settle(request) for request in requests)
    assert not [answer for answer in answers if isinstance(answer, Refusal)]
    paid = sum(answer.result.amounts.account_fen for answer in answers)
    balance = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT balance_fen FROM settlement.account WHERE account_id = $1::uuid", account_id
    )
    assert (paid, balance) == (500_000, 0)
    assert await _differences(sites, [patient]) == []


class _AlwaysLate(InsuredStore):
    """Somebody else is quicker, every time."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.tried = 0

    async def decide(
        self, decisions: Sequence[NewDecision], units: Sequence[UnitWrite], now: object
    ) -> set[str]:
        self.tried += 1
        await self._database.run(
            "UPDATE settlement.accumulator SET version = version + 1 WHERE person_id = $1::uuid",
            decisions[0].person_id,
        )
        return await super().decide(decisions, units, now)  # type: ignore[arg-type]


async def test_a_person_who_is_always_busy_is_left_undecided(sites: World) -> None:
    """Five times, then PERSON_BUSY; a stranger in the same batch is decided (PROTOCOL §7)."""
    busy, stranger = await sites.patients(2)
    await sites.settle(sites.request(busy, care_area=ZHANJIANG))
    settings = sites.settings[GUANGDONG]
    async with Database.open(settings, "settlement") as database:
        store = _AlwaysLate(database)
        decider = Decider(
            store=store,
            enrollment=sites.role(
                enrollment_pb2_grpc.EnrollmentServiceStub, GUANGDONG, "settlement"
            ),
            filing=sites.role(filing_pb2_grpc.FilingServiceStub, GUANGDONG, "settlement"),
            policy=stub(policy_pb2_grpc.PolicyServiceStub, sites.channel(GUANGDONG, "settlement")),
            directory=Directory(settings, sites.clock),
            clock=sites.clock,
            call_seconds=5,
        )
        items = [
            envelope(patient, sites.clock, care_area=ZHANJIANG) for patient in (busy, stranger)
        ]
        results = {result.id: result for result in await decider.exchange(items)}
    assert store.tried == ATTEMPTS
    assert reason(results[items[0].id].error) == "PERSON_BUSY"
    assert results[items[1].id].HasField("committed")
    left = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT count(*) FROM settlement.decision WHERE settlement_id = $1::uuid", items[0].id
    )
    assert left == 0


async def test_one_id_sent_many_times_at_once_is_decided_once(sites: World) -> None:
    """Batches that overlap: the unique id decides, whoever loses reads (PROTOCOL §1)."""
    patients = await sites.patients(8)
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    items = [envelope(patient, sites.clock) for patient in patients]
    answers = await asyncio.gather(
        *(
            insured.BatchExchange(
                insured_pb2.BatchExchangeRequest(items=items[n % 4 : n % 4 + 5]), timeout=30
            )
            for n in range(12)
        )
    )
    digests: dict[str, set[bytes]] = {}
    for answer in answers:
        for result in answer.results:
            assert result.HasField("committed"), reason(result.error)
            digests.setdefault(result.id, set()).add(result.committed.digest)
    assert len(digests) == 8
    assert all(len(found) == 1 for found in digests.values())
    assert await _differences(sites, patients) == []
