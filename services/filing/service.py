"""The filing servicer: entitlement, and filings taken over from other systems."""

from __future__ import annotations

from collections.abc import Mapping

from infra.runtime.call import Call
from infra.runtime.clock import Clock
from infra.runtime.database import Database
from services.filing.asking import IdentifyStub
from services.filing.consulting import Consulting
from services.filing.domain.area_rules import AreaRules
from services.filing.places import Places
from services.filing.store import FilingStore
from services.filing.taking_over import TakingOver
from yidi.filing.v1 import filing_pb2


class FilingService:
    """Filings of the site's own participants."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        enrollment: IdentifyStub,
        places: Places,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
        call_seconds: float,
        allow_illustrative: bool,
    ) -> None:
        """`rules`: area → rules, of `load_area_rules`.

        `area_names`: code → name of pooling areas and provinces, for the sentences of reasons and
        refusals; a code without name is shown as it is. `call_seconds` bounds the call to
        enrollment. Without `allow_illustrative` no sample value entitles anybody to anything.
        """
        store = FilingStore(database)
        self._consulting = Consulting(
            store=store,
            rules=rules,
            area_names=area_names,
            allow_illustrative=allow_illustrative,
        )
        self._taking_over = TakingOver(
            store=store,
            clock=clock,
            enrollment=enrollment,
            places=places,
            rules=rules,
            area_names=area_names,
            call_seconds=call_seconds,
        )

    async def BatchResolveEntitlement(
        self, request: filing_pb2.BatchResolveEntitlementRequest, _call: Call
    ) -> filing_pb2.BatchResolveEntitlementResponse:
        """One SELECT for the filings of all people of the batch."""
        results = await self._consulting.resolve(request.items)
        return filing_pb2.BatchResolveEntitlementResponse(results=results)

    async def BatchCreateFilings(
        self, request: filing_pb2.BatchCreateFilingsRequest, call: Call
    ) -> filing_pb2.BatchCreateFilingsResponse:
        """One identification, one SELECT and one statement that writes, for the batch."""
        return await self._taking_over.take_over(request, call)
