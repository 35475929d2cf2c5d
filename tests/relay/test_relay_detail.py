"""The detail of stays at the nation (规程 第三十九条): held against its header, kept once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import asyncpg
import pytest
from relay_chain import Chain
from relay_peers import CARE_AREA, CLOCK, INSURED_AREA, FakeNation, call_of

from gateway.relay.detailing import Detailing
from gateway.relay.service import NationServicer
from gateway.relay.store import NationStore
from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.call import CallerType, Identity
from infra.runtime.clock import instant, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2, visit_pb2
from yidi.relay.v1 import relay_pb2

SITE = "440000"


def line(line_id: str = "1", *, in_scope: int = 80_00, own: int = 20_00) -> visit_pb2.LineSplit:
    return visit_pb2.LineSplit(
        line_id=line_id,
        amount_fen=in_scope + own,
        full_self_pay_fen=own,
        in_scope_fen=in_scope,
    )


def header(settlement_id: str, **facts: object) -> envelope_pb2.OutcomeHeader:
    """Of a stay that the lines 1 (100 元) and 2 (−10 元) make up."""
    values: dict[str, object] = {
        "settlement_id": settlement_id,
        "kind": types_pb2.EXCHANGE_KIND_SETTLE,
        "care_area": CARE_AREA,
        "care_site": SITE,
        "insured_area": INSURED_AREA,
        "insured_site": "110000",
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "amounts": amounts_pb2.Amounts(
            total_fen=90_00, full_self_pay_fen=20_00, in_scope_fen=70_00
        ),
        "business_day": "2026-10-09",
    }
    return envelope_pb2.OutcomeHeader(**(values | facts))  # type: ignore[arg-type]


def detail(settlement_id: str, *lines: visit_pb2.LineSplit) -> relay_pb2.StayDetail:
    given = lines or (line(), line("2", in_scope=-10_00, own=0))
    return relay_pb2.StayDetail(id=settlement_id, care_area=CARE_AREA, lines=given)


async def journaled(store: NationStore, **facts: object) -> str:
    settlement_id = new_id(CLOCK)
    raw = header(settlement_id, **facts).SerializeToString()
    outcome = envelope_pb2.Outcome(header=raw, digest=hashlib.sha256(raw).digest())
    await store.record({settlement_id: outcome}, instant(CLOCK))
    return settlement_id


def said(result: relay_pb2.UploadDetailResult) -> tuple[str, str]:
    """Reason and cause; empty when it is stored."""
    if result.stored:
        return "", ""
    refusal = Refusal.from_status(result.error)
    return refusal.name, refusal.details.get("cause", "")


@pytest.fixture
def detailing(store: NationStore) -> Detailing:
    return Detailing(store=store, clock=CLOCK)


async def test_a_detail_is_kept_once_with_its_digest(
    detailing: Detailing, store: NationStore, nation_database: Database
) -> None:
    """The same again changes nothing; other lines with the same sums are refused."""
    one, other = await journaled(store), await journaled(store)
    details = [detail(one), detail(other)]
    first = await detailing.take(details, SITE)
    assert {result.id: said(result) for result in first} == {one: ("", ""), other: ("", "")}
    kept = await nation_database.run(
        "SELECT * FROM relay.stay_detail WHERE settlement_id = $1", one
    )
    again = await detailing.take(details, SITE)
    assert [said(result) for result in again] == [("", ""), ("", "")]
    changed = detail(one, line(in_scope=70_00))
    [refused] = await detailing.take([changed], SITE)
    assert said(refused) == ("DETAIL_DIFFERS", "已上传过内容不同的明细")
    same = await nation_database.run(
        "SELECT * FROM relay.stay_detail WHERE settlement_id = $1", one
    )
    assert same == kept
    [row] = kept
    assert relay_pb2.StayDetail.FromString(row["detail"]) == details[0]
    assert row["detail_digest"] == hashlib.sha256(row["detail"]).digest()


async def test_it_waits_for_its_header_and_comes_from_its_care_place_only(
    detailing: Detailing, store: NationStore
) -> None:
    early = new_id(CLOCK)
    known = await journaled(store)
    [unknown, foreign] = [
        *await detailing.take([detail(early)], SITE),
        *await detailing.take([detail(known)], "370000"),
    ]
    assert said(unknown) == said(foreign) == ("SETTLEMENT_NOT_FOUND", "")
    [stored] = await detailing.take([detail(known)], SITE)
    assert stored.stored


PARTS = amounts_pb2.Amounts(total_fen=90_00, full_self_pay_fen=10_00, in_scope_fen=80_00)
TOTAL = amounts_pb2.Amounts(total_fen=91_00, full_self_pay_fen=20_00, in_scope_fen=71_00)


@pytest.mark.parametrize(
    ("facts", "change", "cause"),
    [
        ({"amounts": TOTAL}, None, "医疗费总额明细合计 90.00 元，结算 91.00 元"),
        ({"amounts": PARTS}, None, "全自费明细合计 20.00 元，结算 10.00 元"),
        ({"kind": types_pb2.EXCHANGE_KIND_REFUND}, None, "该笔不是住院结算"),
        ({"care_type": types_pb2.CARE_TYPE_OUTPATIENT}, None, "该笔不是住院结算"),
        ({"care_area": "440200"}, None, "明细的就医地 440100 不是结算的就医地 440200"),
        ({}, lambda d: d.lines.append(line()), "明细号 1 重复"),
        (
            {},
            lambda d: setattr(d.lines[0], "over_limit_fen", 1),
            "明细 1 的四部分之和不等于其金额",
        ),
    ],
)
async def test_a_detail_that_differs_is_refused_alone(
    detailing: Detailing,
    store: NationStore,
    nation_database: Database,
    facts: dict[str, object],
    change: Callable[[relay_pb2.StayDetail], None] | None,
    cause: str,
) -> None:
    odd, good = await journaled(store, **facts), await journaled(store)
    wrong = detail(odd)
    if change is not None:
        change(wrong)
    first, second = await detailing.take([wrong, detail(good)], SITE)
    assert said(first) == ("DETAIL_DIFFERS", cause)
    assert second.stored
    kept = await nation_database.run(
        "SELECT settlement_id::text AS id FROM relay.stay_detail "
        "WHERE settlement_id = ANY($1::uuid[])",
        [odd, good],
    )
    assert [row["id"] for row in kept] == [good]


async def test_what_is_kept_cannot_be_changed_by_the_service(nation_database: Database) -> None:
    for statement in ("UPDATE relay.stay_detail SET detail = ''", "DELETE FROM relay.stay_detail"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await nation_database.run(statement)


async def test_the_care_places_relay_passes_it_on_for_its_own_site_only() -> None:
    nation = FakeNation()
    journal = nation.journal(SITE, Breaker(BreakerLimits()))
    request = relay_pb2.BatchUploadDetailRequest(items=[detail(new_id(CLOCK))])
    settlement = Identity(SITE, CallerType.ROLE, "settlement")
    answer = await journal.upload(request, call_of(settlement))
    assert [result.stored for result in answer.results] == [True]
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await journal.upload(request, call_of(Identity("370000", CallerType.ROLE, "relay")))
    nation.up = False
    with pytest.raises(Refusal, match="SITE_UNREACHABLE"):
        await journal.upload(request, call_of(settlement))
    assert len(nation.timeouts) == 1


async def test_the_nations_relay_takes_the_peer_as_the_care_place(
    chain: Chain, store: NationStore, detailing: Detailing
) -> None:
    settlement_id = await journaled(store)
    nation = NationServicer(
        listing=chain.listing,
        forwarder=None,  # type: ignore[arg-type]
        sites={},
        store=store,
        detailing=detailing,
    )
    request = relay_pb2.BatchUploadDetailRequest(items=[detail(settlement_id)])
    for site, stored in (("110000", False), (SITE, True)):
        relay = Identity(site, CallerType.ROLE, "relay")
        [result] = (await nation.BatchUploadDetail(request, call_of(relay))).results
        assert result.stored is stored
