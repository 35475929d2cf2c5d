"""The care place's catalogue as institutions see it: each asks for itself, at its own site."""

from __future__ import annotations

from infra.runtime.call import Call
from yidi.catalog.v1 import listing_pb2, listing_pb2_grpc, registry_pb2, registry_pb2_grpc
from yidi.gateway.v1 import catalog_desk_pb2


class CatalogDeskServicer:
    """`yidi.gateway.v1.CatalogDeskService`; refusals are those of the catalogue."""

    def __init__(
        self,
        *,
        registry: registry_pb2_grpc.RegistryServiceStub,
        listing: listing_pb2_grpc.ListingServiceStub,
        call_seconds: float,
    ) -> None:
        """`call_seconds` bounds each call to the catalogue."""
        self._registry = registry
        self._listing = listing
        self._seconds = call_seconds

    async def SubmitItemMappings(
        self, request: catalog_desk_pb2.SubmitItemMappingsRequest, call: Call
    ) -> catalog_desk_pb2.SubmitItemMappingsResponse:
        answer = await self._registry.SubmitMappings(
            registry_pb2.SubmitMappingsRequest(
                request_id=request.request_id,
                institution=call.caller.name,
                mappings=request.mappings,
                operator=request.operator,
            ),
            timeout=self._seconds,
        )
        return catalog_desk_pb2.SubmitItemMappingsResponse(mappings=answer.mappings)

    async def WithdrawItemMappings(
        self, request: catalog_desk_pb2.WithdrawItemMappingsRequest, call: Call
    ) -> catalog_desk_pb2.WithdrawItemMappingsResponse:
        answer = await self._registry.WithdrawMappings(
            registry_pb2.WithdrawMappingsRequest(
                request_id=request.request_id,
                institution=call.caller.name,
                item_codes=request.item_codes,
                day=request.day,
                operator=request.operator,
            ),
            timeout=self._seconds,
        )
        return catalog_desk_pb2.WithdrawItemMappingsResponse(mappings=answer.mappings)

    async def ListItemMappings(
        self, request: catalog_desk_pb2.ListItemMappingsRequest, call: Call
    ) -> catalog_desk_pb2.ListItemMappingsResponse:
        answer = await self._registry.ListMappings(
            registry_pb2.ListMappingsRequest(
                institution=call.caller.name,
                state=request.state,
                item_code=request.item_code,
                page_size=request.page_size,
                page_token=request.page_token,
            ),
            timeout=self._seconds,
        )
        return catalog_desk_pb2.ListItemMappingsResponse(
            mappings=answer.mappings, next_page_token=answer.next_page_token
        )

    async def SearchCatalogItems(
        self, request: catalog_desk_pb2.SearchCatalogItemsRequest, _: Call
    ) -> catalog_desk_pb2.SearchCatalogItemsResponse:
        answer = await self._listing.SearchItems(
            listing_pb2.SearchItemsRequest(
                area=request.area,
                text=request.text,
                list_type=request.list_type,
                day=request.day,
                page_size=request.page_size,
                page_token=request.page_token,
            ),
            timeout=self._seconds,
        )
        return catalog_desk_pb2.SearchCatalogItemsResponse(
            items=answer.items, next_page_token=answer.next_page_token
        )

    async def FindInstitutions(
        self, request: catalog_desk_pb2.FindInstitutionsRequest, _: Call
    ) -> catalog_desk_pb2.FindInstitutionsResponse:
        answer = await self._registry.SearchInstitutions(request.search, timeout=self._seconds)
        return catalog_desk_pb2.FindInstitutionsResponse(
            institutions=answer.institutions, next_page_token=answer.next_page_token
        )
