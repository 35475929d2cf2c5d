"""The insured place's decisions as a service."""

from __future__ import annotations

from infra.runtime.call import Call
from infra.runtime.days import parse_day
from services.settlement.deciding import Decider
from services.settlement.store.insured import InsuredStore
from yidi.settlement.v1 import insured_pb2


class InsuredServicer:
    """`yidi.settlement.v1.InsuredService`."""

    def __init__(self, *, store: InsuredStore, decider: Decider) -> None:
        self._store = store
        self._decider = decider

    async def BatchExchange(
        self, request: insured_pb2.BatchExchangeRequest, call: Call
    ) -> insured_pb2.BatchExchangeResponse:
        results = await self._decider.exchange(request.items)
        return insured_pb2.BatchExchangeResponse(results=results)

    async def GetInsuredJournalDigest(
        self, request: insured_pb2.GetInsuredJournalDigestRequest, call: Call
    ) -> insured_pb2.GetInsuredJournalDigestResponse:
        day = parse_day(request.business_day, "business_day")
        digest = await self._store.digest(day, request.care_site, request.insured_site)
        return insured_pb2.GetInsuredJournalDigestResponse(journal=digest)
