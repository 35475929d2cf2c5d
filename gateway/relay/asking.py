"""Asking the nation about its journal, and taking detail to it, for the site's people and roles.

Both can be slow where settlements are quick, so they have a breaker of their own: whatever becomes
of them closes the way to no settlement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra.runtime.breaker import Breaker
from infra.runtime.call import Call
from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc

Answer = TypeVar("Answer")


class NationJournal:
    """The nation's journal as one province may use it: it reads the pairs that `site` is one of,
    and adds the detail of its own stays.
    """

    def __init__(
        self,
        *,
        site: str,
        nation: relay_pb2_grpc.RelayServiceStub,
        name: str,
        connected: Callable[[], Awaitable[bool]],
        breaker: Breaker,
        margin_ms: int,
    ) -> None:
        self._site = site
        self._nation = nation
        self._name = name
        self._connected = connected
        self._breaker = breaker
        self._margin_us = margin_ms * 1000

    async def digest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        """The nation's answer; SITE_UNREACHABLE when it cannot be reached."""
        own = call.caller.site == self._site
        if not own or self._site not in (request.care_site, request.insured_site):
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)

        async def ask(seconds: float) -> relay_pb2.GetNationJournalDigestResponse:
            return await self._nation.GetNationJournalDigest(request, timeout=seconds)

        return await self._reach(ask, call)

    async def upload(
        self, request: relay_pb2.BatchUploadDetailRequest, call: Call
    ) -> relay_pb2.BatchUploadDetailResponse:
        """What the nation says of each detail; SITE_UNREACHABLE when it cannot be reached."""
        if call.caller.site != self._site:
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)

        async def ask(seconds: float) -> relay_pb2.BatchUploadDetailResponse:
            return await self._nation.BatchUploadDetail(request, timeout=seconds)

        return await self._reach(ask, call)

    async def _reach(self, ask: Callable[[float], Awaitable[Answer]], call: Call) -> Answer:
        """Ask with what is left of the caller's time, in seconds."""
        self._breaker.admit(self._name)
        if not await self._connected():
            self._breaker.unreachable()
            raise self._breaker.refusal(self._name)
        seconds = (call.deadline_us - monotonic_us() - self._margin_us) / 1e6
        if seconds <= 0:
            raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
        attempt = self._breaker.begin(seconds)
        try:
            answer = await ask(seconds)
        except Refusal as refusal:
            # A refusal by the nation is an answer: only one that did not come counts.
            result = envelope_pb2.ExchangeResult(error=refusal.status())
            self._breaker.answered(attempt, 1, [result])
            raise
        self._breaker.succeeded()
        return answer
