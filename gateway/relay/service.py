"""The relay as a service: where an envelope goes next, the directory, the nation's day digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.relay.forwarding import Destination, Forwarder
from gateway.relay.store import NationStore
from infra.runtime.call import Call, CallerType
from infra.runtime.clock import Clock
from infra.runtime.config import NATION
from infra.runtime.days import parse_day
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2


class RelayServicer:
    """`yidi.relay.v1.RelayService` of a province.

    `outward` is the nation; `inward` is this site's own settlement.
    """

    def __init__(
        self,
        *,
        site: str,
        directory: Directory,
        outward_forwarder: Forwarder,
        inward_forwarder: Forwarder,
        outward: Callable[[str], Destination],
        inward: Destination,
    ) -> None:
        self._site = site
        self._directory = directory
        self._outward_forwarder = outward_forwarder
        self._inward_forwarder = inward_forwarder
        self._outward = outward
        self._inward = inward

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        items: Sequence[envelope_pb2.Envelope] = request.items
        if call.caller.site not in (NATION, self._site):
            # Provinces meet through the nation only.
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        if call.caller.site == NATION:
            results = await self._inward_forwarder.forward(items, lambda _: self._inward)
        else:
            results = await self._outward_forwarder.forward(items, self._beyond)
        return relay_pb2.BatchExchangeResponse(results=results)

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        return _since(self._directory.snapshot, request.known_revision)

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        # Only the nation has this journal.
        raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)

    def _beyond(self, envelope: envelope_pb2.Envelope) -> Destination:
        return self._outward(self._directory.place(envelope.insured_area).site)


class NationServicer:
    """`yidi.relay.v1.RelayService` of the nation; `sites` are the provinces by code."""

    def __init__(
        self,
        *,
        clock: Clock,
        directory: relay_pb2.GetDirectoryResponse,
        forwarder: Forwarder,
        sites: Mapping[str, Destination],
        store: NationStore,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._forwarder = forwarder
        self._sites = sites
        self._store = store
        self._site_of = {
            code: site.code
            for site in directory.sites
            for area in site.areas
            for code in (area.code, *area.aliases)
        }

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        results = await self._forwarder.forward(request.items, self._choose)
        return relay_pb2.BatchExchangeResponse(results=results)

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        self._directory.as_of_time.FromMilliseconds(self._clock.now_ms())
        return _since(self._directory, request.known_revision)

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        pair = (request.care_site, request.insured_site)
        if call.caller.type is not CallerType.OPERATOR and call.caller.site not in pair:
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        day = parse_day(request.business_day, "business_day")
        digest = await self._store.digest(day, *pair)
        return relay_pb2.GetNationJournalDigestResponse(journal=digest)

    def _choose(self, envelope: envelope_pb2.Envelope) -> Destination:
        site = self._site_of.get(envelope.insured_area)
        if site is None:
            raise Refusal(Reason.ERROR_REASON_AREA_UNKNOWN, area=envelope.insured_area)
        return self._sites[site]


def _since(
    snapshot: relay_pb2.GetDirectoryResponse, known_revision: int
) -> relay_pb2.GetDirectoryResponse:
    """The snapshot, without its sites when the asker has them already."""
    answer = relay_pb2.GetDirectoryResponse()
    answer.CopyFrom(snapshot)
    if known_revision == snapshot.revision:
        del answer.sites[:]
    return answer
