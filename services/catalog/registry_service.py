"""The servicer of `yidi.catalog.v1.RegistryService`: institutions, and what they map (目录对照)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database, reading
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import NUMBER, page_token
from services.catalog import registry_messages as messages
from services.catalog.domain.institution import Registration, Route
from services.catalog.domain.mapping import MappingState
from services.catalog.domain.registering import RegistrationRefused, check_registrations
from services.catalog.domain.reviewing import (
    MappingRefused,
    check_review,
    check_submitted,
    withdrawals,
)
from services.catalog.requesting import check_texts, request_of
from services.catalog.store import institutions, mappings
from services.catalog.store.publications import publishing
from services.catalog.store.requests import answered, keep_answer
from yidi.catalog.v1 import registry_pb2

_PAGE = 100
_CODE = re.compile(r"[A-Z0-9]{6,30}")
_A = TypeVar("_A", bound=Message)
_Who = dict[str, Any]
"""`actor`, `operator` and `at` of a change."""
_Change = Callable[[AsyncConnection, _Who], Awaitable[_A]]


class RegistryService:
    """Institutions of the pooling `areas` of `site`, and their mappings.

    Every change is written with its audit row and, where it has a request id, its answer, in one
    transaction under the lock of publications: replicas take it over within two seconds.
    """

    def __init__(
        self, *, database: Database, clock: Clock, site: str, areas: Collection[str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._site = site
        self._areas = frozenset(areas)

    async def RegisterInstitutions(
        self, request: registry_pb2.RegisterInstitutionsRequest, call: Call
    ) -> registry_pb2.RegisterInstitutionsResponse:
        """All or none; raises `Refusal` (INSTITUTION_CHANGE_REFUSED, DAY_INVALID)."""

        async def register(
            connection: AsyncConnection, who: _Who
        ) -> registry_pb2.RegisterInstitutionsResponse:
            told = [messages.registration(record) for record in request.institutions]
            known = await institutions.read_kinds(connection, [one.code for one in told])
            check_registrations(told, areas=self._areas, known=known)
            added = await institutions.add_registrations(connection, told, who, loaded=False)
            return registry_pb2.RegisterInstitutionsResponse(
                registered=added, unchanged=len(told) - added
            )

        return await self._once(
            request, call.caller, registry_pb2.RegisterInstitutionsResponse(), register
        )

    async def GetInstitution(
        self, request: registry_pb2.GetInstitutionRequest, call: Call
    ) -> registry_pb2.GetInstitutionResponse:
        """Of two registrations from the same day on the later corrects the earlier. Raises
        `Refusal` (INSTITUTION_UNKNOWN)."""
        async with reading(self._database) as connection:
            found = await _registered(connection, request.code)
        return registry_pb2.GetInstitutionResponse(
            registrations=map(messages.institution_record, found)
        )

    async def SearchInstitutions(
        self, request: registry_pb2.SearchInstitutionsRequest, call: Call
    ) -> registry_pb2.SearchInstitutionsResponse:
        """Raises `Refusal` (DAY_INVALID, MESSAGE_INVALID)."""
        check_texts(request)
        size = request.page_size or _PAGE
        found = await institutions.search_institutions(
            self._database,
            words=request.text.strip(),
            area=request.area,
            route=Route(request.route) if request.route else None,
            service=messages.SERVICES.get(request.service),
            disease=request.disease_code,
            day=parse_day(request.day, "day"),
            every=request.all,
            after=page_token(request.page_token, _CODE),
            size=size + 1,
        )
        return registry_pb2.SearchInstitutionsResponse(
            institutions=map(messages.institution_record, found[:size]),
            next_page_token=found[size - 1].code if len(found) > size else "",
        )

    async def SubmitMappings(
        self, request: registry_pb2.SubmitMappingsRequest, call: Call
    ) -> registry_pb2.SubmitMappingsResponse:
        """All or none; raises `Refusal` (INSTITUTION_UNKNOWN, MAPPING_CHANGE_REFUSED,
        DAY_INVALID)."""

        async def submit(
            connection: AsyncConnection, who: _Who
        ) -> registry_pb2.SubmitMappingsResponse:
            told = [messages.submitted(mapping) for mapping in request.mappings]
            area = (await _registered(connection, request.institution))[-1].area
            listed = await mappings.listed_codes(
                connection, [one.national_code for one in told], area=area, province=self._site
            )
            check_submitted(told, area=area, listed=listed)
            added = await mappings.submit_mappings(connection, request.institution, told, who)
            return registry_pb2.SubmitMappingsResponse(mappings=map(messages.mapping_record, added))

        caller = _of_institution(call, request.institution)
        return await self._once(request, caller, registry_pb2.SubmitMappingsResponse(), submit)

    async def WithdrawMappings(
        self, request: registry_pb2.WithdrawMappingsRequest, call: Call
    ) -> registry_pb2.WithdrawMappingsResponse:
        """All or none; raises `Refusal` (INSTITUTION_UNKNOWN, MAPPING_CHANGE_REFUSED,
        DAY_INVALID)."""
        day = parse_day(request.day, "day")

        async def withdraw(
            connection: AsyncConnection, who: _Who
        ) -> registry_pb2.WithdrawMappingsResponse:
            await _registered(connection, request.institution)
            standing = await mappings.read_items_standing(
                connection, request.institution, request.item_codes
            )
            taken = withdrawals(request.item_codes, standing, day)
            withdrawn = MappingState.WITHDRAWN
            after = await mappings.move_mappings(connection, taken, withdrawn, who)
            return registry_pb2.WithdrawMappingsResponse(
                mappings=map(messages.mapping_record, after)
            )

        caller = _of_institution(call, request.institution)
        return await self._once(request, caller, registry_pb2.WithdrawMappingsResponse(), withdraw)

    async def ReviewMappings(
        self, request: registry_pb2.ReviewMappingsRequest, call: Call
    ) -> registry_pb2.ReviewMappingsResponse:
        """All or none; raises `Refusal` (MAPPING_CHANGE_REFUSED)."""
        ids = list(request.mapping_ids)
        state = MappingState.APPROVED if request.approve else MappingState.REFUSED

        async def review(
            connection: AsyncConnection, who: _Who
        ) -> registry_pb2.ReviewMappingsResponse:
            found = {one.id: one for one in await mappings.read_standing(connection, ids)}
            check_review(ids, found, approve=request.approve, reason=request.reason)
            reason = "" if request.approve else request.reason.strip()
            after = await mappings.move_mappings(
                connection, dict.fromkeys(ids), state, who, reason=reason
            )
            return registry_pb2.ReviewMappingsResponse(mappings=map(messages.mapping_record, after))

        return await self._once(request, call.caller, registry_pb2.ReviewMappingsResponse(), review)

    async def ListMappings(
        self, request: registry_pb2.ListMappingsRequest, call: Call
    ) -> registry_pb2.ListMappingsResponse:
        """Raises `Refusal` (MESSAGE_INVALID)."""
        check_texts(request)
        size = request.page_size or _PAGE
        after = int(page_token(request.page_token, NUMBER) or 0)
        async with reading(self._database) as connection:
            found = await mappings.list_mappings(
                connection,
                institution=request.institution,
                item_code=request.item_code,
                state=request.state,
                after=after,
                size=size + 1,
            )
        return registry_pb2.ListMappingsResponse(
            mappings=map(messages.mapping_record, found[:size]),
            next_page_token=str(found[size - 1].id) if len(found) > size else "",
        )

    async def _once(
        self,
        request: Any,
        caller: Identity,
        answer: _A,
        change: _Change[_A],
    ) -> _A:
        """Make a change, or fill `answer` with what the same request was answered before."""
        check_texts(request)
        asked = request_of(caller.spiffe_id, request)
        who = {
            "actor": caller.spiffe_id,
            "operator": request.operator,
            "at": instant(self._clock),
        }
        async with publishing(self._database) as connection:
            try:
                before = await answered(connection, asked)
                if before is not None:
                    answer.ParseFromString(before)
                    return answer
                made = await change(connection, who)
            except RegistrationRefused as fault:
                raise Refusal(
                    Reason.ERROR_REASON_INSTITUTION_CHANGE_REFUSED, cause=fault.cause
                ) from fault
            except MappingRefused as fault:
                raise Refusal(
                    Reason.ERROR_REASON_MAPPING_CHANGE_REFUSED, cause=fault.cause
                ) from fault
            await keep_answer(connection, asked, made.SerializeToString(), who["at"])
        return made


async def _registered(connection: AsyncConnection, code: str) -> tuple[Registration, ...]:
    found = await institutions.read_institution(connection, code)
    if not found:
        raise Refusal(Reason.ERROR_REASON_INSTITUTION_UNKNOWN, institution=code)
    return found


def _of_institution(call: Call, institution: str) -> Identity:
    """Who asks: the gateway has held the institution against its certificate and speaks for it."""
    if call.caller.type is CallerType.ROLE:
        return Identity(call.caller.site, CallerType.INSTITUTION, institution)
    return call.caller
