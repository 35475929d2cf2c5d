"""The relay as a service: where an item goes next, the directory, the nation's day digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.relay.asking import NationJournal
from gateway.relay.destinations import Destination, NextHop
from gateway.relay.detailing import Detailing
from gateway.relay.forwarding import Forwarder
from gateway.relay.listing import Listing
from gateway.relay.store import NationStore
from infra.runtime.call import Call, CallerType
from infra.runtime.config import NATION
from infra.runtime.days import parse_day
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2


class RelayServicer:
    """`yidi.relay.v1.RelayService` of a province.

    `outward` is the nation; `inward` is this site's own settlement and filing.
    """

    def __init__(
        self,
        *,
        site: str,
        directory: Directory,
        outward_forwarder: Forwarder,
        inward_forwarder: Forwarder,
        outward: Callable[[str], NextHop],
        inward: NextHop,
        nation_journal: NationJournal,
    ) -> None:
        self._site = site
        self._directory = directory
        self._outward_forwarder = outward_forwarder
        self._inward_forwarder = inward_forwarder
        self._outward = outward
        self._inward = inward
        self._nation_journal = nation_journal

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        if self._from_nation(call):
            results = await self._inward_forwarder.exchange(
                request.items, self._inward.toward, _care_area
            )
        else:
            results = await self._outward_forwarder.exchange(
                request.items, lambda item: self._beyond(item).toward(item), _institution
            )
        return relay_pb2.BatchExchangeResponse(results=results)

    async def BatchResolve(
        self, request: relay_pb2.BatchResolveRequest, call: Call
    ) -> relay_pb2.BatchResolveResponse:
        if self._from_nation(call):
            results = await self._inward_forwarder.resolve(
                request.items, lambda _: self._inward.settling, _care_area
            )
        else:
            results = await self._outward_forwarder.resolve(
                request.items, lambda item: self._beyond(item).settling, _institution
            )
        return relay_pb2.BatchResolveResponse(results=results)

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        return _since(self._directory.snapshot, request.known_revision)

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        return await self._nation_journal.digest(request, call)

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, call: Call
    ) -> relay_pb2.BatchUploadDetailResponse:
        return await self._nation_journal.upload(request, call)

    async def AnnounceDowntime(
        self, request: relay_pb2.AnnounceDowntimeRequest, call: Call
    ) -> relay_pb2.AnnounceDowntimeResponse:
        # Only the nation keeps the directory.
        raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)

    def _from_nation(self, call: Call) -> bool:
        if call.caller.site not in (NATION, self._site):
            # Provinces meet through the nation only.
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        return call.caller.site == NATION

    def _beyond(self, item: envelope_pb2.Envelope | envelope_pb2.ResolveItem) -> NextHop:
        return self._outward(self._directory.place(item.insured_area).site)


class NationServicer:
    """`yidi.relay.v1.RelayService` of the nation; `sites` are the provinces by code."""

    def __init__(
        self,
        *,
        listing: Listing,
        forwarder: Forwarder,
        sites: Mapping[str, NextHop],
        store: NationStore,
        detailing: Detailing,
    ) -> None:
        self._listing = listing
        self._forwarder = forwarder
        self._sites = sites
        self._store = store
        self._detailing = detailing

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        results = await self._forwarder.exchange(request.items, self._open_site, self._care_site)
        return relay_pb2.BatchExchangeResponse(results=results)

    async def BatchResolve(
        self, request: relay_pb2.BatchResolveRequest, call: Call
    ) -> relay_pb2.BatchResolveResponse:
        # Downtime keeps no question back: what is in doubt becomes final as soon as it can.
        results = await self._forwarder.resolve(
            request.items, lambda item: self._site(item).settling, self._care_site
        )
        return relay_pb2.BatchResolveResponse(results=results)

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        return _since(self._listing.snapshot(), request.known_revision)

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        pair = (request.care_site, request.insured_site)
        if call.caller.type is not CallerType.OPERATOR and call.caller.site not in pair:
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        day = parse_day(request.business_day, "business_day")
        digest = await self._store.digest(day, *pair, request.detail, request.hour)
        return relay_pb2.GetNationJournalDigestResponse(journal=digest)

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, call: Call
    ) -> relay_pb2.BatchUploadDetailResponse:
        return relay_pb2.BatchUploadDetailResponse(
            results=await self._detailing.take(request.items, call.caller.site)
        )

    async def AnnounceDowntime(
        self, request: relay_pb2.AnnounceDowntimeRequest, call: Call
    ) -> relay_pb2.AnnounceDowntimeResponse:
        downtime = await self._listing.announce(
            call.caller.spiffe_id, request.request_id, request.downtime
        )
        return relay_pb2.AnnounceDowntimeResponse(
            downtime=downtime, revision=self._listing.snapshot().revision
        )

    def _open_site(self, envelope: envelope_pb2.Envelope) -> Destination:
        self._listing.check_downtime(envelope.insured_area)
        return self._site(envelope).toward(envelope)

    def _site(self, item: envelope_pb2.Envelope | envelope_pb2.ResolveItem) -> NextHop:
        return self._sites[self._listing.site_of(item.insured_area)]

    def _care_site(self, origin: envelope_pb2.Origin) -> str:
        return self._listing.site_of(origin.care_area)


def _institution(origin: envelope_pb2.Origin) -> str:
    return origin.institution


def _care_area(origin: envelope_pb2.Origin) -> str:
    return origin.care_area


def _since(
    snapshot: relay_pb2.GetDirectoryResponse, known_revision: int
) -> relay_pb2.GetDirectoryResponse:
    """The snapshot, without its sites when the asker has them already."""
    answer = relay_pb2.GetDirectoryResponse()
    answer.CopyFrom(snapshot)
    if known_revision == snapshot.revision:
        del answer.sites[:]
    return answer
