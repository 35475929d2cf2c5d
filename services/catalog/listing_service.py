"""The servicer of `yidi.catalog.v1.ListingService`: lists as operators see and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from infra.runtime.call import Call
from infra.runtime.clock import Clock, business_day, instant
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import NUMBER, page_token
from services.catalog.domain.changing import (
    ChangeRefused,
    PublishedList,
    list_on,
    list_to_change,
    new_timelines,
)
from services.catalog.domain.item import Item, ItemInvalid
from services.catalog.importing import Importing
from services.catalog.messages import item_message, item_of, publication_message
from services.catalog.requesting import check_texts, request_of
from services.catalog.store.items import copy_items
from services.catalog.store.lists import NEWEST, ListStore, lists_of, revisions_of
from services.catalog.store.publications import open_version, publish_open, publishing
from services.catalog.store.requests import answered, keep_answer
from yidi.catalog.v1 import listing_pb2

PAGE = 100
_SAID = 100
"""Publications told with an item."""


class ListingService:
    """The lists of `site`, the province of this deployment, and of its pooling areas."""

    def __init__(self, *, database: Database, clock: Clock, site: str) -> None:
        """`site` is the province's code: its list holds where an area has none of its own."""
        self._database = database
        self._store = ListStore(database)
        self._importing = Importing(database=database, clock=clock)
        self._clock = clock
        self._site = site

    async def StartListImport(
        self, request: listing_pb2.StartListImportRequest, call: Call
    ) -> listing_pb2.StartListImportResponse:
        return await self._importing.start(request, call)

    async def ListImportPart(
        self, request: listing_pb2.ListImportPartRequest, call: Call
    ) -> listing_pb2.ListImportPartResponse:
        return await self._importing.part(request, call)

    async def FinishListImport(
        self, request: listing_pb2.FinishListImportRequest, call: Call
    ) -> listing_pb2.FinishListImportResponse:
        return await self._importing.finish(request, call)

    async def GetListImport(
        self, request: listing_pb2.GetListImportRequest, call: Call
    ) -> listing_pb2.GetListImportResponse:
        return await self._importing.get(request, call)

    async def ListRejectedItemRows(
        self, request: listing_pb2.ListRejectedItemRowsRequest, call: Call
    ) -> listing_pb2.ListRejectedItemRowsResponse:
        return await self._importing.rejected(request, call)

    async def ChangeItems(
        self, request: listing_pb2.ChangeItemsRequest, call: Call
    ) -> listing_pb2.ChangeItemsResponse:
        """One transaction of six statements and a COPY, alone with other publications; a
        repetition reads the first answer.

        CATALOGUE_CHANGE_REFUSED, CATALOGUE_CHANGED_MEANWHILE, DAY_INVALID, REQUEST_ID_REUSED.
        """
        check_texts(request)
        items = _items(request)
        asked = request_of(call.caller.spiffe_id, request)
        try:
            async with publishing(self._database) as connection:
                known = await answered(connection, asked)
                if known is not None:
                    return listing_pb2.ChangeItemsResponse.FromString(known)
                found = list_to_change(await lists_of(connection, request.area), items)
                if found.catalogue_version != request.seen_version:
                    raise Refusal(
                        Reason.ERROR_REASON_CATALOGUE_CHANGED_MEANWHILE,
                        version=found.catalogue_version,
                    )
                codes = list({item.national_code for item in items})
                former = await revisions_of(connection, found.id, codes)
                timelines = new_timelines(former, items)
                version_id = await open_version(
                    connection,
                    found.area,
                    found.next_version,
                    min(item.effective_from for item in items),
                    base_id=found.id,
                    reason=request.reason,
                    operator=request.operator,
                )
                await copy_items(
                    connection, version_id, [item for its in timelines.values() for item in its]
                )
                at = instant(self._clock)
                done = await publish_open(
                    connection, version_id, actor=call.caller.spiffe_id, at=at
                )
                answer = listing_pb2.ChangeItemsResponse(publication=publication_message(done))
                await keep_answer(connection, asked, answer.SerializeToString(), at)
                return answer
        except ChangeRefused as refused:
            raise _refused(refused.cause) from refused

    async def GetItem(
        self, request: listing_pb2.GetItemRequest, call: Call
    ) -> listing_pb2.GetItemResponse:
        """Of the list in force today, or of the one that the publication asked for belongs to.

        CATALOGUE_NOT_FOUND, CATALOGUE_ITEM_NOT_FOUND, MESSAGE_INVALID.
        """
        check_texts(request)
        if request.publication:
            at = await self._store.publication(request.publication)
            if at is None or at.area not in (request.area, self._site):
                raise _not_found(request)
            area, list_id, until = at.area, at.base_id or at.id, at.publication
        else:
            found = await self._list(request.area, business_day(self._clock.now_ms()))
            area, list_id, until = found.area, found.id, NEWEST
        revisions = await self._store.revisions(list_id, until, request.national_code)
        if not revisions:
            raise _not_found(request)
        publications = await self._store.said_of(area, request.national_code, until, _SAID)
        return listing_pb2.GetItemResponse(
            revisions=map(item_message, revisions),
            publications=map(publication_message, publications),
        )

    async def SearchItems(
        self, request: listing_pb2.SearchItemsRequest, call: Call
    ) -> listing_pb2.SearchItemsResponse:
        """One page of the list in force on the day.

        CATALOGUE_NOT_FOUND, DAY_INVALID, MESSAGE_INVALID.
        """
        check_texts(request)
        day = parse_day(request.day, "day")
        size = request.page_size or PAGE
        found = await self._store.search(
            (await self._list(request.area, day)).id,
            request.text,
            request.list_type,
            day,
            request.page_token,
            size + 1,
        )
        return listing_pb2.SearchItemsResponse(
            items=map(item_message, found[:size]),
            next_page_token=found[size - 1].national_code if len(found) > size else "",
        )

    async def ListPublications(
        self, request: listing_pb2.ListPublicationsRequest, call: Call
    ) -> listing_pb2.ListPublicationsResponse:
        """One page. MESSAGE_INVALID for a token that is none."""
        token = page_token(request.page_token, NUMBER)
        size = request.page_size or PAGE
        before = int(token) if token else NEWEST
        found = await self._store.publications(request.area, before, size + 1)
        return listing_pb2.ListPublicationsResponse(
            publications=map(publication_message, found[:size]),
            next_page_token=str(found[size - 1].publication) if len(found) > size else "",
        )

    async def _list(self, area: str, day: date) -> PublishedList:
        """The list that a bill of `area` sees whose last day is `day`."""
        lists = await self._store.lists([area, self._site])
        for publisher in (area, self._site):
            found = list_on([each for each in lists if each.area == publisher], day)
            if found is not None:
                return found
        raise Refusal(Reason.ERROR_REASON_CATALOGUE_NOT_FOUND, area=area, date=day)


def _items(request: listing_pb2.ChangeItemsRequest) -> Sequence[Item]:
    items = []
    for index, message in enumerate(request.items):
        try:
            items.append(item_of(message, f"items[{index}]"))
        except ItemInvalid as fault:
            raise _refused(f"项目 {message.national_code}：{fault.cause}") from fault
    return items


def _refused(cause: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_CATALOGUE_CHANGE_REFUSED, cause=cause)


def _not_found(request: listing_pb2.GetItemRequest) -> Refusal:
    return Refusal(
        Reason.ERROR_REASON_CATALOGUE_ITEM_NOT_FOUND,
        area=request.area,
        value=request.national_code,
    )
