"""One bad item fails alone; answers are matched by id; what is missing is unknown (PROTOCOL §7)."""

from __future__ import annotations

from uuid import uuid4

import pytest
from world import BEIJING, GUANGDONG, ZHANJIANG, Patient, World, envelope, reason

from infra.runtime.clock import ManualClock, new_id
from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc, payload_pb2


@pytest.fixture(scope="module")
async def people(sites: World) -> list[Patient]:
    return await sites.patients(64)


def _negative(payload: payload_pb2.ExchangePayload) -> None:
    payload.parts.over_limit_fen = -100
    payload.parts.in_scope_fen += 100


def _another_hospital(payload: payload_pb2.ExchangePayload) -> None:
    payload.bill.institution = "H11010500002"


def _total_off(payload: payload_pb2.ExchangePayload) -> None:
    payload.total_fen += 1


def _impossible_day(payload: payload_pb2.ExchangePayload) -> None:
    payload.visit.start_date, payload.visit.end_date = "2026-02-31", "2026-03-02"


async def test_bad_items_fail_alone_at_the_insured_place(
    sites: World, people: list[Patient]
) -> None:
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    items = [envelope(patient, sites.clock) for patient in people]
    for place, change in (
        (3, _negative),
        (9, _another_hospital),
        (15, _total_off),
        (20, _impossible_day),
    ):
        items[place].CopyFrom(envelope(people[place], sites.clock, change=change))
    items[27].payload_digest = bytes(31)
    items[33].payload_digest = bytes(32)
    items[40].insured_area = BEIJING
    items[46].payload = b"\xff\xff"
    items[51].contract_revision = 99
    items[57].remaining_ms = 0
    expected = {
        3: "MESSAGE_INVALID",
        9: "FOREIGN_CODE",
        15: "MESSAGE_INVALID",
        20: "DAY_INVALID",
        27: "MESSAGE_INVALID",
        33: "PAYLOAD_CORRUPT",
        40: "FOREIGN_CODE",
        46: "PAYLOAD_CORRUPT",
        51: "CONTRACT_TOO_OLD",
        57: "DEADLINE_TOO_SHORT",
    }
    answer = await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=items), timeout=30)
    found = {result.id: result for result in answer.results}
    assert len(found) == len(items)
    for place, item in enumerate(items):
        result = found[item.id]
        if place in expected:
            assert reason(result.error) == expected[place], place
            assert not result.not_forwarded
        else:
            assert result.WhichOneof("outcome") == "committed", (place, result.error)
    stored = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT count(*) FROM settlement.decision WHERE settlement_id = ANY($1::uuid[])",
        [item.id for item in items],
    )
    assert stored == len(items) - len(expected)


async def test_one_invalid_and_one_foreign_item_fail_alone_at_the_nation(
    sites: World, people: list[Patient]
) -> None:
    """北京's relay speaks for 湛江 in one item: that one is refused, and was not sent on."""
    nation = sites.relay(relay_pb2_grpc.RelayServiceStub, NATION, caller=BEIJING)
    items = [envelope(patient, sites.clock) for patient in people]
    items[5].origin.care_area = ZHANJIANG
    items[6].payload_digest = b"short"
    items[7].insured_area = "999999"
    answer = await nation.BatchExchange(relay_pb2.BatchExchangeRequest(items=items), timeout=30)
    found = {result.id: result for result in answer.results}
    refused = {5: "FOREIGN_CODE", 6: "MESSAGE_INVALID", 7: "AREA_UNKNOWN"}
    for place, item in enumerate(items):
        result = found[item.id]
        if place in refused:
            assert (reason(result.error), result.not_forwarded) == (refused[place], True)
        else:
            assert result.WhichOneof("outcome") == "committed"


async def test_one_invalid_and_one_foreign_item_fail_alone_at_the_care_place(sites: World) -> None:
    care = sites.role(care_pb2_grpc.CareServiceStub, BEIJING, "gateway")
    items = [
        care_pb2.OpenItem(
            id=new_id(sites.clock),
            caller="spiffe://yidi/site/110000/institution/H11010100001",
            method="Settle",
            request_id=f"req-{uuid4()}",
            body_digest=bytes(32),
            payload_digest=bytes(32),
            bill=visit_pb2.BillReference(
                institution="H11010100001", visit_id=uuid4().hex, bill_id="B1"
            ),
            care_area=BEIJING,
            insured_area=ZHANJIANG,
            insured_site=GUANGDONG,
            route=types_pb2.ROUTE_CROSS_PROVINCE,
            kind=types_pb2.EXCHANGE_KIND_SETTLE,
            request=b"kept",
            remaining_ms=5_000,
        )
        for _ in range(64)
    ]
    items[10].body_digest = b""
    items[20].method = "Set\x00tle"
    answer = await care.BatchOpen(care_pb2.BatchOpenRequest(items=items), timeout=30)
    found = {result.id: result for result in answer.results}
    assert reason(found[items[10].id].error) == "MESSAGE_INVALID"
    # What the database cannot hold leaves nothing and takes nobody along.
    assert items[20].id not in found
    opened = [item.id for item in items if item.id in found and found[item.id].opened]
    assert len(opened) == 62


async def test_the_frame_of_a_batch_can_fail_the_call(sites: World, people: list[Patient]) -> None:
    """More than 256 items, or the same id twice: the batch itself is wrong."""
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    item = envelope(people[0], sites.clock)
    for items in ([item, item], [item] * 257):
        with pytest.raises(Refusal) as caught:
            await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=items), timeout=30)
        assert caught.value.name == "MESSAGE_INVALID"


async def test_cases_of_one_person_are_one_unit_in_order(sites: World) -> None:
    """Three stays of one person in one batch: each computed from what the one before left."""
    [patient, other] = await sites.patients(2)
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    items = [envelope(patient, sites.clock) for _ in range(3)]
    items.insert(1, envelope(other, sites.clock))
    answer = await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=items), timeout=30)
    details = {
        result.id: payload_pb2.OutcomeDetails.FromString(result.committed.details)
        for result in answer.results
    }
    rows = await (await sites.admin(GUANGDONG)).fetch(
        """SELECT d.settlement_id::text, b ->> 'period' AS period,
                  (b ->> 'version')::int AS version,
                  (b -> 'before' ->> 'stay_count')::int AS before
           FROM settlement.decision d, jsonb_array_elements(d.balances::jsonb -> 'accumulators') b
           WHERE d.person_id = $1::uuid ORDER BY d.settlement_id""",
        patient.person_id,
    )
    by_id = {row["settlement_id"]: row for row in rows}
    mine = [item.id for place, item in enumerate(items) if place != 1]
    assert [by_id[one]["before"] for one in mine] == [0, 1, 2]
    assert {row["version"] for row in rows} == {-1}
    assert len(details) == 4
    version = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT version FROM settlement.accumulator WHERE person_id = $1::uuid", patient.person_id
    )
    assert version == 0


async def test_a_commit_once_decided_is_answered_from_its_row(sites: World) -> None:
    """One id, one decision, for ever; another request under the id is an alarm (PROTOCOL §1)."""
    [patient] = await sites.patients(1)
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")

    async def send(item: envelope_pb2.Envelope) -> envelope_pb2.ExchangeResult:
        request = insured_pb2.BatchExchangeRequest(items=[item])
        [result] = (await insured.BatchExchange(request, timeout=30)).results
        return result

    item = envelope(patient, sites.clock)
    first, again = await send(item), await send(item)
    assert first.committed == again.committed
    another = envelope(patient, sites.clock, in_scope_fen=600_000)
    another.id = item.id
    assert reason((await send(another)).error) == "SETTLEMENT_ID_REUSED"
    assert (await send(item)).committed == first.committed


@pytest.mark.parametrize(
    ("offset_ms", "accepted"),
    [(-119_000, True), (-121_000, False), (4_000, True), (7_000, False)],
)
async def test_a_commit_outside_its_window_is_not_decided(
    sites: World, offset_ms: int, accepted: bool
) -> None:
    """−120 s/+5 s of the receiver's clock (PROTOCOL §1)."""
    [patient] = await sites.patients(1)
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    item = envelope(patient, sites.clock)
    item.id = new_id(ManualClock(sites.clock.now_ms() + offset_ms))
    [result] = (
        await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=[item]), timeout=30)
    ).results
    if accepted:
        assert result.HasField("committed")
    else:
        assert reason(result.error) == "CLOCK_SKEW"
        # A quote has no cut-off to cross.
        item.kind = types_pb2.EXCHANGE_KIND_QUOTE
        [quote] = (
            await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=[item]), timeout=30)
        ).results
        assert quote.HasField("committed")
