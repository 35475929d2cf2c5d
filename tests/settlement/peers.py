"""A neighbour that misbehaves: the relay of 广东, played by the test."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from infra.runtime.call import Call
from infra.runtime.links import stub
from infra.runtime.server import Builder, Runtime, Service
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

Questions = Sequence[envelope_pb2.ResolveItem]
Results = list[envelope_pb2.ExchangeResult]
Pass = Callable[[Sequence[envelope_pb2.Envelope]], Awaitable[Results]]
Ask = Callable[[Questions], Awaitable[Results]]


class FakePeer:
    """Shuffles every answer; what else it does, the test sets."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._pass: Pass | None = None
        self._ask: Ask | None = None
        self.received: list[envelope_pb2.Envelope] = []
        self.asked: list[envelope_pb2.ResolveItem] = []
        self.reset()

    def reset(self) -> None:
        """Behave, apart from shuffling."""

        async def forward(envelopes: Sequence[envelope_pb2.Envelope], onward: Pass) -> Results:
            return await onward(envelopes)

        self.answer: Callable[[Sequence[envelope_pb2.Envelope], Pass], Awaitable[Results]] = forward

        async def ask(items: Questions, onward: Ask) -> Results:
            return await onward(items)

        self.resolve: Callable[[Questions, Ask], Awaitable[Results]] = ask
        self.received.clear()
        self.asked.clear()

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        """Pass on as told and shuffle the answers."""
        assert self._pass is not None
        self.received += request.items
        results = await self.answer(request.items, self._pass)
        self._random.shuffle(results)
        return relay_pb2.BatchExchangeResponse(results=results)

    async def BatchResolve(
        self, request: relay_pb2.BatchResolveRequest, call: Call
    ) -> relay_pb2.BatchResolveResponse:
        """Pass questions on as told and shuffle the answers."""
        assert self._ask is not None
        self.asked += request.items
        results = await self.resolve(request.items, self._ask)
        self._random.shuffle(results)
        return relay_pb2.BatchResolveResponse(results=results)

    async def AnnounceDowntime(
        self, request: relay_pb2.AnnounceDowntimeRequest, call: Call
    ) -> relay_pb2.AnnounceDowntimeResponse:
        """Nothing."""
        return relay_pb2.AnnounceDowntimeResponse()

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        """Some directory: nobody here reads it."""
        return relay_pb2.GetDirectoryResponse(sites=[relay_pb2.DirectorySite(code="440000")])

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        """Nothing."""
        return relay_pb2.GetNationJournalDigestResponse()

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, call: Call
    ) -> relay_pb2.BatchUploadDetailResponse:
        """Nothing."""
        return relay_pb2.BatchUploadDetailResponse()

    def builder(self) -> Builder:
        """What plays the role `relay`, in front of the site's real settlement."""

        async def build(runtime: Runtime) -> Service:
            insured = stub(
                insured_pb2_grpc.InsuredServiceStub, runtime.channel("relay", "settlement")
            )

            async def onward(envelopes: Sequence[envelope_pb2.Envelope]) -> Results:
                request = insured_pb2.BatchExchangeRequest(items=envelopes)
                return list((await insured.BatchExchange(request, timeout=30)).results)

            async def ask(items: Questions) -> Results:
                request = insured_pb2.BatchResolveRequest(items=items)
                return list((await insured.BatchResolve(request, timeout=30)).results)

            self._pass, self._ask = onward, ask
            return Service(relay_pb2.DESCRIPTOR.services_by_name["RelayService"], self)

        return build
