"""A batch costs a fixed number of statements, whatever its size (PROTOCOL §8).

PostgreSQL itself counts, by login role and with utility statements, so that a BEGIN would show.
"""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, Patient, World, envelope

from infra.runtime.clock import new_id
from infra.runtime.config import NATION
from yidi.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

SIZES = (1, 7, 256)
_COUNT = r"""
SELECT r.rolname, sum(s.calls)::int AS calls
FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
WHERE r.rolname LIKE 'y%_app'
  AND s.query !~ 'typeinfo_tree|set_config|FROM relay.downtime|max\(publication\)|max\(id\)'
GROUP BY r.rolname
"""
"""Without what asyncpg asks once per connection about the types of arrays, and without looking for
news (downtimes, policies, catalogues) every few seconds, whatever is asked."""


async def _calls(sites: World) -> Counter[str]:
    """`site service` → statements run so far."""
    counted: Counter[str] = Counter()
    for code in sites.settings:
        for row in await (await sites.admin(code)).fetch(_COUNT):
            site, service = row["rolname"].removeprefix("y").removesuffix("_app").split("_")
            counted[f"{site} {service}"] = row["calls"]
    return counted


@pytest.fixture(scope="module")
async def crowd(sites: World) -> list[Patient]:
    """As many people as a batch holds."""
    return await sites.patients(256)


def _open_item(sites: World, **fields: object) -> care_pb2.OpenItem:
    return care_pb2.OpenItem(
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


@pytest.mark.parametrize("size", SIZES)
async def test_open_and_close_are_one_statement_each(sites: World, size: int) -> None:
    care = sites.role(care_pb2_grpc.CareServiceStub, BEIJING, "gateway")
    items = [_open_item(sites) for _ in range(size)]
    before = await _calls(sites)
    opened = await care.BatchOpen(care_pb2.BatchOpenRequest(items=items), timeout=30)
    between = await _calls(sites)
    assert [result.opened for result in opened.results] == [True] * size
    assert between - before == Counter({"110000 settlement": 1})
    closings = [care_pb2.CloseItem(id=item.id) for item in items]
    closed = await care.BatchClose(care_pb2.BatchCloseRequest(items=closings), timeout=30)
    assert await _calls(sites) - between == Counter({"110000 settlement": 1})
    assert {result.row.state for result in closed.results} == {types_pb2.SETTLEMENT_STATE_IN_DOUBT}


@pytest.mark.parametrize("size", SIZES)
async def test_the_insured_place_makes_four_trips(
    sites: World, crowd: list[Patient], size: int
) -> None:
    """Enrollment 1, filing 1, read 1, decide 1; for new people and for known ones."""
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "relay")
    for _ in range(2):
        items = [envelope(patient, sites.clock) for patient in crowd[:size]]
        before = await _calls(sites)
        answer = await insured.BatchExchange(
            insured_pb2.BatchExchangeRequest(items=items), timeout=30
        )
        assert await _calls(sites) - before == Counter(
            {"440000 enrollment": 1, "440000 filing": 1, "440000 settlement": 2}
        )
        assert {r.WhichOneof("outcome") for r in answer.results} == {"committed"}
        assert {r.id for r in answer.results} == {item.id for item in items}


@pytest.mark.parametrize("size", SIZES)
async def test_the_nation_writes_once_on_the_way_back(
    sites: World, crowd: list[Patient], size: int
) -> None:
    nation = sites.relay(relay_pb2_grpc.RelayServiceStub, NATION, caller=BEIJING)
    items = [envelope(patient, sites.clock) for patient in crowd[:size]]
    before = await _calls(sites)
    answer = await nation.BatchExchange(relay_pb2.BatchExchangeRequest(items=items), timeout=30)
    assert (await _calls(sites) - before)["100000 relay"] == 1
    assert {r.WhichOneof("outcome") for r in answer.results} == {"committed"}
    stored = await (await sites.admin(NATION)).fetchval(
        "SELECT count(*) FROM relay.outcome WHERE settlement_id = ANY($1::uuid[])",
        [item.id for item in items],
    )
    assert stored == size


@pytest.mark.parametrize("size", [1, 7])
async def test_splitting_and_computing_take_no_statement(
    sites: World, crowd: list[Patient], size: int
) -> None:
    """They are asked from memory."""
    catalog = sites.role(catalog_pb2_grpc.CatalogServiceStub, GUANGDONG, "gateway")
    insured = sites.role(insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "gateway")
    before = await _calls(sites)
    for _ in range(3):
        request = catalog_pb2.BatchSplitFeesRequest()
        for patient in crowd[:size]:
            bill = sites.request(patient, care_area=GUANGZHOU).bill
            request.items.add(
                id=new_id(sites.clock),
                institution=bill.reference.institution,
                visit=bill.visit,
                route=types_pb2.ROUTE_IN_PROVINCE,
                lines=bill.lines,
                total_fen=bill.total_fen,
            )
        assert all(
            result.HasField("split")
            for result in (await catalog.BatchSplitFees(request, timeout=30)).results
        )
        quotes = [
            envelope(patient, sites.clock, care_area=GUANGZHOU, kind=types_pb2.EXCHANGE_KIND_QUOTE)
            for patient in crowd[:size]
        ]
        await insured.BatchExchange(insured_pb2.BatchExchangeRequest(items=quotes), timeout=30)
    asked = await _calls(sites) - before
    assert asked["440000 catalog"] == asked["440000 policy"] == 0


async def test_one_settlement_is_seven_trips(sites: World) -> None:
    [patient] = await sites.patients(1)
    before = await _calls(sites)
    await sites.settle(sites.request(patient))
    assert await _calls(sites) - before == Counter(
        {
            "110000 settlement": 2,
            "100000 relay": 1,
            "440000 enrollment": 1,
            "440000 filing": 1,
            "440000 settlement": 2,
        }
    )


@pytest.mark.parametrize("care_area", [GUANGZHOU, ZHANJIANG])
async def test_inside_the_province_the_nation_hears_nothing(sites: World, care_area: str) -> None:
    [patient] = await sites.patients(1)
    before = await _calls(sites)
    answer = await sites.settle(sites.request(patient, care_area=care_area))
    assert await _calls(sites) - before == Counter(
        {"440000 enrollment": 1, "440000 filing": 1, "440000 settlement": 4}
    )
    hops = {hop.hop for hop in answer.result.hops}
    assert types_pb2.HOP_NATION not in hops
    assert types_pb2.HOP_DECIDE in hops


async def test_a_quote_writes_nothing(sites: World) -> None:
    """Reserves nothing and is journaled nowhere (PROTOCOL §6)."""
    [patient] = await sites.patients(1)
    tables = ("care_journal", "request_key", "bill", "decision", "accumulator", "audit")

    async def rows() -> list[int]:
        found = []
        for site in (BEIJING, GUANGDONG):
            admin = await sites.admin(site)
            found += [await admin.fetchval(f"SELECT count(*) FROM settlement.{t}") for t in tables]
        nation = await sites.admin(NATION)
        return [*found, await nation.fetchval("SELECT count(*) FROM relay.outcome")]

    before = await rows()
    request = sites.request(patient)
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    answer = await sites.institution(BEIJING).Quote(quote, timeout=30)
    assert answer.result.amounts.fund_total_fen > 0
    assert not answer.result.outcome_header
    assert await rows() == before
