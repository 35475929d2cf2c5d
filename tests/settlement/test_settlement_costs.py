"""What settlement and filing tell each other: costs under a filing, and who the visitor is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from downgrading import downgrade
from google.protobuf.timestamp_pb2 import Timestamp
from world import (
    BEIJING,
    GUANGDONG,
    HOSPITALS,
    PEOPLE,
    ZHANJIANG,
    Patient,
    World,
    envelope,
    reason,
)

from infra.runtime.clock import SystemClock, new_id
from infra.runtime.config import Settings
from infra.runtime.directory import Directory, site_message
from infra.runtime.errors import Refusal
from infra.runtime.migrate import migrate
from services.settlement.deciding import Decider
from services.settlement.domain.balance import PersonKey
from services.settlement.store import SCHEMA
from services.settlement.store.insured import Reading
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.policy.v1 import policy_pb2
from yidi.relay.v1 import relay_pb2
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc, payload_pb2

FILED = "01920000-0000-7000-8000-00000000f11e"
_OLD_DECISION = """
INSERT INTO settlement.decision (settlement_id, state, kind, request_digest, institution, care_area,
    insured_area, insurance, decided_at, rejection, balances)
VALUES ($1::uuid, 'REJECTED', 2, '', 'H44080000001', '440800', '440800', 1, now(), '', '{}')
"""


async def costs(sites: World, filings: Iterable[str]) -> dict[str, bool]:
    """Filing → whether something stands that was paid under it, in one call."""
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "filing")
    items = {str(uuid4()): filing for filing in filings}
    request = insured_pb2.BatchHasCostsRequest(
        items=[insured_pb2.HasCostsItem(id=id_, filing_id=f) for id_, f in items.items()]
    )
    answer = await insured.BatchHasCosts(request, timeout=30)
    assert not any(result.HasField("error") for result in answer.results)
    return {items[result.id]: result.has_costs for result in answer.results}


async def exchange(
    sites: World, *items: envelope_pb2.Envelope
) -> list[envelope_pb2.ExchangeResult]:
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    request = insured_pb2.BatchExchangeRequest(items=items)
    return list((await insured.BatchExchange(request, timeout=30)).results)


async def test_a_settlement_counts_under_its_filing_until_it_is_undone(sites: World) -> None:
    """S2-12, S2-13: 济宁 locks a filing only once cost occurred under it."""
    [patient] = await sites.patients(1)
    settled = await sites.settle(sites.request(patient))
    filing = settled.result.entitlement.filing_id
    assert await costs(sites, [filing, FILED]) == {filing: True, FILED: False}
    again = await sites.settle(sites.request(patient))
    assert again.result.entitlement.filing_id == filing
    door = sites.institution(BEIJING)
    for made in (settled, again):
        assert (await costs(sites, [filing]))[filing]
        await door.Refund(
            gateway_pb2.RefundRequest(
                request_id=f"ref-{uuid4()}", settlement_id=made.settlement_id, reason="录入错误"
            ),
            timeout=30,
        )
    assert await costs(sites, [filing]) == {filing: False}


async def test_neither_a_quote_nor_a_refusal_nor_care_at_home_is_a_cost(sites: World) -> None:
    quoted, refused, local = await sites.patients(3)
    [quote] = await exchange(
        sites, envelope(quoted, sites.clock, kind=types_pb2.EXCHANGE_KIND_QUOTE)
    )
    details = payload_pb2.OutcomeDetails.FromString(quote.committed.details)
    filing = details.entitlement.filing_id
    assert filing
    dear = envelope(refused, sites.clock, change=_told_otherwise)
    [rejected] = await exchange(sites, dear)
    assert rejected.HasField("rejected")
    await sites.settle(sites.request(local, care_area=ZHANJIANG))
    admin = await sites.admin(GUANGDONG)
    rows = await admin.fetch(
        "SELECT filing_id FROM settlement.decision WHERE person_id = ANY($1::uuid[])",
        [person.person_id for person in (quoted, refused, local)],
    )
    assert [row["filing_id"] for row in rows] == [None, None]
    assert await costs(sites, [filing]) == {filing: False}


def _told_otherwise(payload: payload_pb2.ExchangePayload) -> None:
    payload.expected.amounts.total_fen = 1


async def test_only_filing_may_ask(sites: World) -> None:
    request = insured_pb2.BatchHasCostsRequest(
        items=[insured_pb2.HasCostsItem(id=new_id(sites.clock), filing_id=FILED)]
    )
    for role in ("relay", "gateway", "policy"):
        insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, role)
        with pytest.raises(Refusal, match="ACCESS_DENIED"):
            await insured.BatchHasCosts(request, timeout=30)


async def test_what_is_filed_is_not_settled(sites: World) -> None:
    """An envelope of the kind FILING leaves nothing here, whatever it holds."""
    [patient] = await sites.patients(1)
    like_a_bill = envelope(patient, sites.clock, kind=types_pb2.EXCHANGE_KIND_FILING)
    question = desk_pb2.GuidanceQuestion(insured_area=ZHANJIANG, care_place=BEIJING)
    content = desk_pb2.DeskPayload(question=question).SerializeToString()
    asked = envelope(patient, sites.clock, kind=types_pb2.EXCHANGE_KIND_FILING)
    asked.payload, asked.payload_digest = content, hashlib.sha256(content).digest()
    results = {result.id: result for result in await exchange(sites, like_a_bill, asked)}
    assert reason(results[like_a_bill.id].error) == "CONTRACT_TOO_OLD"
    assert reason(results[asked.id].error) in ("PAYLOAD_CORRUPT", "MESSAGE_INVALID")
    admin = await sites.admin(GUANGDONG)
    left = await admin.fetchval(
        "SELECT count(*) FROM settlement.decision WHERE settlement_id = ANY($1::uuid[])",
        [like_a_bill.id, asked.id],
    )
    assert left == 0


class Insured:
    """Enrollment, filing and the store of an insured place, as a decider meets them."""

    def __init__(self, sites: World, basis: types_pb2.FilingBasis.ValueType) -> None:
        self.asked: list[filing_pb2.ResolveEntitlementItem] = []
        self.computed: list[policy_pb2.ComputeUnit] = []
        self._basis = basis
        directory = Directory(sites.settings[GUANGDONG], sites.clock)
        as_of = Timestamp()
        as_of.FromMilliseconds(sites.clock.now_ms())
        beijing = site_message(BEIJING, "北京", sites.settings[BEIJING].site.areas)
        directory.update(
            relay_pb2.GetDirectoryResponse(revision=1, as_of_time=as_of, sites=[beijing])
        )
        fake: Any = self
        self.decider = Decider(
            store=fake,
            enrollment=fake,
            filing=fake,
            policy=fake,
            directory=directory,
            clock=sites.clock,
            call_seconds=1.0,
        )

    async def BatchIdentify(
        self, request: enrollment_pb2.BatchIdentifyRequest, *, timeout: float
    ) -> enrollment_pb2.BatchIdentifyResponse:
        participant = enrollment_pb2.Participant(
            person_id=FILED,
            insured_since="2024-03-01",
            contracted_institution="H44080000009",
            chosen_institutions=["H44080000007", "H44080000008"],
        )
        return enrollment_pb2.BatchIdentifyResponse(
            results=[
                enrollment_pb2.IdentifyResult(id=item.id, participant=participant)
                for item in request.items
            ]
        )

    async def BatchResolveEntitlement(
        self, request: filing_pb2.BatchResolveEntitlementRequest, *, timeout: float
    ) -> filing_pb2.BatchResolveEntitlementResponse:
        self.asked += request.items
        entitlement = filing_pb2.Entitlement(basis=self._basis)
        return filing_pb2.BatchResolveEntitlementResponse(
            results=[
                filing_pb2.ResolveEntitlementResult(id=item.id, entitlement=entitlement)
                for item in request.items
            ]
        )

    async def BatchCompute(
        self, request: policy_pb2.BatchComputeRequest, *, timeout: float
    ) -> policy_pb2.BatchComputeResponse:
        self.computed += request.items
        return policy_pb2.BatchComputeResponse()

    async def read(self, ids: object, persons: Iterable[PersonKey], accounts: object) -> Reading:
        return Reading({}, {person: {} for person in persons}, {})


@pytest.mark.parametrize(
    ("basis", "unfiled"),
    [(types_pb2.FILING_BASIS_NONE, True), (types_pb2.FILING_BASIS_FILED, False)],
)
async def test_filing_is_told_who_visits_and_policy_that_nothing_is_filed(
    sites: World, basis: types_pb2.FilingBasis.ValueType, *, unfiled: bool
) -> None:
    """S2-41, S2-42: whether it is bound to an institution; some areas pay unfiled care less."""
    insured = Insured(sites, basis)
    patient = Patient(next(PEOPLE), FILED)
    await insured.decider.exchange([envelope(patient, sites.clock)])
    [asked], [unit] = insured.asked, insured.computed
    assert asked.insured_since == "2024-03-01"
    assert asked.institution == HOSPITALS[BEIJING]
    assert asked.contracted_institution == "H44080000009"
    assert asked.chosen_institutions == ["H44080000007", "H44080000008"]
    assert unit.cases[0].facts.unfiled is unfiled


async def test_older_decisions_stay_without_a_filing(
    database_settings: Callable[..., Settings],
) -> None:
    """Both ways: a decision of before is not counted, and going back loses the column only."""
    settings, clock = database_settings(), SystemClock()
    await migrate(settings, [SCHEMA], clock)
    at = settings.database
    admin = await asyncpg.connect(
        host=at.host,
        port=at.port,
        user=at.admin_user,
        password=at.admin_password.get_secret_value(),
        database=at.name,
    )
    try:
        await downgrade(settings, SCHEMA, "settlement_0004")
        settlement_id = new_id(clock)
        await admin.execute(_OLD_DECISION, settlement_id)
        await migrate(settings, [SCHEMA], clock)
        assert await admin.fetchval("SELECT filing_id IS NULL FROM settlement.decision")
        await admin.execute("UPDATE settlement.decision SET filing_id = $1::uuid", FILED)
        await downgrade(settings, SCHEMA, "settlement_0004")
        assert str(await admin.fetchval("SELECT settlement_id FROM settlement.decision")) == (
            settlement_id
        )
    finally:
        await admin.close()
