"""`ListingService` on a real PostgreSQL: changes of lists, and what operators see of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date
from itertools import count
from typing import Any

import asyncpg
import protovalidate
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, instant
from infra.runtime.contract import methods
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.interceptors import OwnershipInterceptor
from infra.runtime.redact import redacted
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, ListType
from services.catalog.listing_service import ListingService
from services.catalog.messages import item_message
from services.catalog.service import CatalogService
from services.catalog.snapshot import LiveSnapshot
from services.catalog.store import Publication, publish, read_snapshot
from services.catalog.store.items import copy_items
from services.catalog.store.publications import open_version, publish_open, publishing
from yidi.catalog.v1 import catalog_pb2, listing_pb2
from yidi.common.v1 import types_pb2, visit_pb2

SITE, CITY = "440000", "440800"
CALL = Call(Identity(SITE, CallerType.OPERATOR, "wang"), deadline_us=1 << 62)
ASPIRIN, CT, STENT = "XB01-SAMPLE", "CT0001-SAMPLE", "C02010-SAMPLE"
BEGIN = date(2026, 1, 1)
_numbers = count(1)


def item(code: str = ASPIRIN, name: str = "示例阿司匹林", share: int = 0, **told: Any) -> Item:
    return Item(
        **{  # type: ignore[arg-type]
            "national_code": code,
            "name": name,
            "list_type": ListType.DRUG,
            "catalog_class": CatalogClass.B,
            "fee_category": FeeCategory.WESTERN_DRUG,
            "first_self_pay_bp": dict.fromkeys(InsuranceType, share),
            "limits_micro_yuan": {},
            "limited_use": "",
            "effective_from": BEGIN,
        }
        | told
    )


LIST = (
    item(),
    item(CT, "示例CT平扫", list_type=ListType.SERVICE),
    item(STENT, "示例支架", effective_to=date(2026, 6, 29)),
)


@pytest.fixture
async def listing(database: Database, clock: ManualClock) -> ListingService:
    """A service that sees the list `2026` of the province."""
    await published(database, clock)
    return ListingService(database=database, clock=clock, site=SITE)


async def published(
    database: Database,
    clock: ManualClock,
    version: str = "2026",
    *,
    area: str = SITE,
    first: date = BEGIN,
    items: tuple[Item, ...] = LIST,
) -> None:
    publication = Publication(area, version, first, items)
    await publish(database, publication=publication, actor="test", at=instant(clock))


def change(
    *items: Item, seen: str = "2026", area: str = SITE, **told: Any
) -> listing_pb2.ChangeItemsRequest:
    request = listing_pb2.ChangeItemsRequest(
        **{
            "request_id": f"change-{next(_numbers)}",
            "area": area,
            "seen_version": seen,
            "items": map(item_message, items),
            "reason": "调价",
            "operator": "王五",
        }
        | told
    )
    protovalidate.validate(request)
    return request


async def changed(listing: ListingService, *items: Item, **told: Any) -> listing_pb2.Publication:
    return (await listing.ChangeItems(change(*items, **told), CALL)).publication


async def refused(asked: Any) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        await asked
    return caught.value.name, caught.value.message


async def found(
    listing: ListingService, code: str = ASPIRIN, **told: Any
) -> listing_pb2.GetItemResponse:
    request = listing_pb2.GetItemRequest(**{"area": SITE, "national_code": code} | told)
    protovalidate.validate(request)
    return await listing.GetItem(request, CALL)


async def search(
    listing: ListingService, text: str, **told: Any
) -> listing_pb2.SearchItemsResponse:
    asked = {"area": SITE, "text": text, "day": "2026-06-30"} | told
    request = listing_pb2.SearchItemsRequest(**asked)
    protovalidate.validate(request)
    return await listing.SearchItems(request, CALL)


def spans(revisions: Any) -> list[tuple[str, str, int]]:
    """First and last day and the employees' share of each."""
    return [
        (each.start_date, each.end_date, each.self_pay[0].basis_points if each.self_pay else 0)
        for each in revisions
    ]


async def test_a_change_is_in_force_on_every_replica_at_its_next_look(
    listing: ListingService, database: Database, clock: ManualClock
) -> None:
    """Replicas look every two seconds; a batch begun before goes on with what it has."""
    replicas = [LiveSnapshot(database, refresh_seconds=3600) for _ in range(2)]
    for each in replicas:
        await each.start()
    try:
        before = replicas[0].current
        done = await changed(listing, item(share=1_000, effective_from=date(2026, 7, 1)))
        assert (done.catalogue_version, done.change, done.codes) == ("2026+1", True, 1)
        assert [await each.refresh() for each in replicas] == [True, True]
        for each in replicas:
            [now] = each.current.catalogues[SITE]
            assert now.version == "2026+1"
            assert [revision.first_day for revision in now.codes[ASPIRIN]] == [
                BEGIN,
                date(2026, 7, 1),
            ]
            [then] = before.catalogues[SITE]
            assert now.codes[CT] is then.codes[CT] or each is not replicas[0]
        [then] = before.catalogues[SITE]
        assert (then.version, len(then.codes[ASPIRIN])) == ("2026", 1)
        assert [await each.refresh() for each in replicas] == [False, False]
    finally:
        for each in replicas:
            await each.stop()


async def test_a_bill_is_split_by_the_change_of_its_charge_day(
    listing: ListingService, database: Database
) -> None:
    """The version that a bill names is that of the list with its changes."""
    await changed(listing, item(share=1_000, effective_from=date(2026, 7, 1)))
    await changed(listing, item(CT, "示例CT平扫", share=500), seen="2026+1")
    lines = [
        catalog_pb2.FeeLine(
            line_id=day,
            national_code=ASPIRIN,
            unit_price_micro_yuan=10_000_000,
            quantity_e4=10_000,
            amount_fen=1_000,
            charged_on=day,
        )
        for day in ("2026-06-30", "2026-07-01")
    ]
    bill = catalog_pb2.SplitFeesItem(
        id="00000000-0000-4000-8000-000000000001",
        claim=catalog_pb2.ManualClaim(
            list_area=CITY, price_limit_level=types_pb2.INSTITUTION_LEVEL_TWO
        ),
        visit=visit_pb2.Visit(
            insured_area=CITY,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            care_type=types_pb2.CARE_TYPE_INPATIENT,
            start_date="2026-06-30",
            end_date="2026-07-02",
        ),
        lines=lines,
        total_fen=2_000,
    )
    async with CatalogService(database=database, site=SITE, refresh_seconds=3600) as service:
        answer = await service.BatchSplitFees(catalog_pb2.BatchSplitFeesRequest(items=[bill]), CALL)
    [result] = answer.results
    assert result.split.catalogue_version == "2026+2"
    assert [line.first_self_pay_fen for line in result.split.lines] == [0, 100]


async def test_an_item_is_told_as_every_publication_had_it(
    listing: ListingService, database: Database, clock: ManualClock
) -> None:
    july, may = date(2026, 7, 1), date(2026, 5, 1)
    first = await changed(listing, item(share=1_000, effective_from=july))
    await changed(
        listing,
        item(share=500, effective_from=may, effective_to=date(2026, 5, 31)),
        seen="2026+1",
    )
    await published(database, clock, "2027", first=date(2027, 1, 1), items=(item(share=2_000),))
    now = await found(listing)
    assert spans(now.revisions) == [
        ("2026-01-01", "2026-04-30", 0),
        ("2026-05-01", "2026-05-31", 500),
        ("2026-06-01", "2026-06-30", 0),
        ("2026-07-01", "", 1_000),
    ]
    assert [each.catalogue_version for each in now.publications] == [
        "2027",
        "2026+2",
        "2026+1",
        "2026",
    ]
    then = await found(listing, publication=first.number)
    assert spans(then.revisions) == [("2026-01-01", "2026-06-30", 0), ("2026-07-01", "", 1_000)]
    assert [each.catalogue_version for each in then.publications] == ["2026+1", "2026"]
    whole = await found(listing, publication=1)
    assert spans(whole.revisions) == [("2026-01-01", "", 0)]
    assert (whole.publications[0].change, whole.publications[0].codes) == (False, 3)
    assert spans((await found(listing, publication=4)).revisions) == [("2026-01-01", "", 2_000)]
    clock.ms += 60 * 86_400_000  # 2027-01-17: the new list knows no change of the old one
    assert spans((await found(listing)).revisions) == [("2026-01-01", "", 2_000)]


async def test_an_area_without_a_list_reads_the_provinces_and_cannot_change_it(
    listing: ListingService, database: Database, clock: ManualClock
) -> None:
    assert (await found(listing, area=CITY)).revisions[0].name == "示例阿司匹林"
    name, message = await refused(changed(listing, item(), area=CITY))
    assert (name, "没有自己发布的目录" in message) == ("CATALOGUE_CHANGE_REFUSED", True)
    own = (item(name="示例本市阿司匹林"),)
    await published(database, clock, "city", area=CITY, first=date(2026, 6, 1), items=own)
    assert (await found(listing, area=CITY)).revisions[0].name == "示例本市阿司匹林"
    assert (await search(listing, "阿司", area=CITY)).items[0].name == "示例本市阿司匹林"
    earlier = await search(listing, "阿司", area=CITY, day="2026-05-31")
    assert earlier.items[0].name == "示例阿司匹林"
    done = await changed(listing, item(effective_from=date(2026, 7, 1)), area=CITY, seen="city")
    assert (done.area, done.catalogue_version) == (CITY, "city+1")
    assert len((await found(listing)).revisions) == 1, "the province's list is another"
    name, _ = await refused(found(listing, publication=done.number))
    assert name == "CATALOGUE_ITEM_NOT_FOUND"


async def test_what_is_not_there(listing: ListingService) -> None:
    assert (await refused(found(listing, "NONE1-SAMPLE")))[0] == "CATALOGUE_ITEM_NOT_FOUND"
    assert (await refused(found(listing, publication=9)))[0] == "CATALOGUE_ITEM_NOT_FOUND"
    assert (await refused(search(listing, "阿", day="2025-12-31")))[0] == "CATALOGUE_NOT_FOUND"
    assert (await refused(search(listing, "阿", day="2026-02-30")))[0] == "DAY_INVALID"
    for text in ("\x00", "阿\x00"):
        assert (await refused(search(listing, text)))[0] == "MESSAGE_INVALID"
    assert (await search(listing, "%")).items == []


async def test_changes_that_are_refused_change_nothing(
    listing: ListingService, database: Database, clock: ManualClock
) -> None:
    """CATALOGUE_CHANGE_REFUSED says why; nothing is half written."""
    await published(database, clock, "2027", first=date(2027, 1, 1))
    before = await database.run("SELECT count(*), max(publication) FROM catalog.version")
    later = item(effective_from=date(2027, 1, 1))
    self_paid = change(item())
    self_paid.items[0].catalog_class = types_pb2.CATALOG_CLASS_A
    self_paid.items[0].self_pay.add(insurance=1, basis_points=100)
    twice = change(item())
    for share in (100, 200):
        twice.items[0].self_pay.add(insurance=1, basis_points=share)
    limits = change(item())
    for price in (1, 2):
        limits.items[0].limits.add(level=1, micro_yuan=price)
    for request, cause in (
        (change(item(effective_from=date(2025, 12, 31))), "目录尚未生效"),
        (change(item(), later), "另一版目录 2027"),
        (change(item(), item(effective_from=date(2026, 5, 1))), "日期重叠"),
        (self_paid, "只有乙类项目有先行自付比例"),
        (twice, "同一险种有两个先行自付比例"),
        (limits, "同一机构等级有两个限价"),
    ):
        name, message = await refused(listing.ChangeItems(request, CALL))
        assert (name, cause in message) == ("CATALOGUE_CHANGE_REFUSED", True), message
    no_day = change(item())
    no_day.items[0].end_date = "2026-02-30"
    name, message = await refused(listing.ChangeItems(no_day, CALL))
    assert (name, "items[0].end_date" in message) == ("DAY_INVALID", True)
    named = change(item(name="示例\x00"))
    assert (await refused(listing.ChangeItems(named, CALL)))[0] == "MESSAGE_INVALID"
    after = await database.run("SELECT count(*), max(publication) FROM catalog.version")
    assert after == before


async def test_a_repetition_gets_the_first_answer(
    listing: ListingService, admin: asyncpg.Connection
) -> None:
    request = change(item(share=1_000))
    first, again = [await listing.ChangeItems(request, CALL) for _ in range(2)]
    assert first == again
    request.operator = "赵六"
    assert await listing.ChangeItems(request, CALL) == first, "who typed it does not count"
    request.reason = "另一个原因"
    assert (await refused(listing.ChangeItems(request, CALL)))[0] == "REQUEST_ID_REUSED"
    other = Call(Identity(SITE, CallerType.OPERATOR, "zhao"), deadline_us=1 << 62)
    request.seen_version = "2026+1"
    answer = await listing.ChangeItems(request, other)
    assert answer.publication.actor == other.caller.spiffe_id
    rows = await admin.fetch("SELECT * FROM catalog.audit WHERE action = 'change_items'")
    assert [(row["subject"], row["actor"]) for row in rows] == [
        (f"{SITE}/2026+1", CALL.caller.spiffe_id),
        (f"{SITE}/2026+2", other.caller.spiffe_id),
    ]
    assert rows[0]["digest"] == first.publication.content_hash


async def test_of_two_clerks_who_saw_the_same_list_one_looks_again(
    listing: ListingService, database: Database
) -> None:
    """CATALOGUE_CHANGED_MEANWHILE names the version to look at."""
    answers = await asyncio.gather(
        *(changed(listing, item(share=share)) for share in (100, 200, 300, 400)),
        return_exceptions=True,
    )
    [done] = [each for each in answers if isinstance(each, listing_pb2.Publication)]
    assert done.catalogue_version == "2026+1"
    losers = [each for each in answers if isinstance(each, Refusal)]
    assert [each.name for each in losers] == ["CATALOGUE_CHANGED_MEANWHILE"] * 3
    assert all("2026+1" in each.message for each in losers)
    assert (await changed(listing, item(share=500), seen="2026+1")).number == done.number + 1


async def test_changes_while_an_import_is_open_and_published_late(
    listing: ListingService, database: Database, clock: ManualClock
) -> None:
    """The change takes the next number, the import the one after it, whatever its id; a replica
    that held all up to the change misses nothing."""
    async with publishing(database) as connection:
        opened = await open_version(connection, SITE, "2026.2", BEGIN)
        await copy_items(connection, opened, [item(share=900)])
    done = await changed(listing, item(share=100))
    held = await read_snapshot(database, None)
    async with publishing(database) as connection:
        late = await publish_open(connection, opened, actor="test", at=instant(clock))
    assert late.publication == done.number + 1
    after = await read_snapshot(database, held)
    assert [each.version for each in after.catalogues[SITE]] == ["2026+1", "2026.2"]
    assert after.catalogues[SITE][0] is held.catalogues[SITE][0]
    # The later of two lists that begin on one day is the one that is changed now.
    name, message = await refused(changed(listing, item(), seen="2026+1"))
    assert (name, "2026.2" in message) == ("CATALOGUE_CHANGED_MEANWHILE", True)
    assert (await changed(listing, item(), seen="2026.2")).catalogue_version == "2026.2+1"


async def test_search_by_code_and_name_goes_page_by_page(listing: ListingService) -> None:
    new = item("XB02-SAMPLE", "示例新药", effective_from=date(2026, 6, 1))
    await changed(listing, replace(item(), name="示例阿司匹林肠溶片"), new)
    first = await search(listing, "示例", page_size=2)
    assert [each.name for each in first.items] == ["示例CT平扫", "示例阿司匹林肠溶片"]
    rest = await search(listing, "示例", page_size=2, page_token=first.next_page_token)
    assert [each.name for each in rest.items] == ["示例新药"]
    assert rest.next_page_token == ""
    by_code = await search(listing, "XB0")
    assert [each.national_code for each in by_code.items] == [ASPIRIN, "XB02-SAMPLE"]
    services = await search(listing, "示例", list_type=types_pb2.LIST_TYPE_SERVICE)
    assert [each.national_code for each in services.items] == [CT]
    assert [each.name for each in (await search(listing, "支架", day="2026-06-29")).items] == [
        "示例支架"
    ]


async def test_publications_go_page_by_page_newest_first(listing: ListingService) -> None:
    await changed(listing, item(share=100), item(CT, effective_from=date(2026, 3, 1)))
    await changed(listing, item(share=200), seen="2026+1")
    request = listing_pb2.ListPublicationsRequest(area=SITE, page_size=2)
    first = await listing.ListPublications(request, CALL)
    assert [(each.catalogue_version, each.codes) for each in first.publications] == [
        ("2026+2", 1),
        ("2026+1", 2),
    ]
    assert (first.publications[1].effective_from, first.publications[1].reason) == (
        "2026-01-01",
        "调价",
    )
    request.page_token = first.next_page_token
    rest = await listing.ListPublications(request, CALL)
    assert [each.catalogue_version for each in rest.publications] == ["2026"]
    assert (rest.next_page_token, rest.publications[0].change) == ("", False)
    request.page_token = "x"
    assert (await refused(listing.ListPublications(request, CALL)))[0] == "MESSAGE_INVALID"


async def test_nobody_changes_the_list_of_another_site(listing: ListingService) -> None:
    """The area of a list belongs to the site (owned_by)."""
    service = listing_pb2.DESCRIPTOR.services_by_name["ListingService"]
    [method] = [each for each in methods(service) if each.name == "ChangeItems"]
    ownership = OwnershipInterceptor(SITE, {CITY: SITE, "110000": "110000"}.get)
    request = change(item(), area="110000")
    name, message = await refused(ownership(method, request, CALL, listing.ChangeItems))
    assert (name, "110000" in message) == ("FOREIGN_CODE", True)
    request = change(item(share=100))
    answer = await ownership(method, request, CALL, listing.ChangeItems)
    assert isinstance(answer, listing_pb2.ChangeItemsResponse)


async def test_who_acts_is_kept_with_the_publication_and_told_nowhere(
    listing: ListingService, admin: asyncpg.Connection
) -> None:
    """经办人 is personal: it is stored, and is in no answer, no kept one and no log."""
    done = await changed(listing, item(share=100), operator="王小五")
    rows = await admin.fetch(
        "SELECT operator FROM catalog.version WHERE publication = $1", done.number
    )
    assert [row["operator"] for row in rows] == ["王小五"]
    told = await listing.ListPublications(listing_pb2.ListPublicationsRequest(area=SITE), CALL)
    kept = await admin.fetch("SELECT answer FROM catalog.request")
    texts = [done.SerializeToString(), told.SerializeToString(), *(row["answer"] for row in kept)]
    assert not [text for text in texts if "王小五".encode() in text]
    assert "王小五" not in str(redacted(change(item(), operator="王小五")))
