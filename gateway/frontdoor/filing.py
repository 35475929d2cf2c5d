"""The way from the institutions of one site to the filing desk of every insured place.

Nothing is kept here: a call becomes one envelope of the kind FILING, and the desk's answer is the
call's. Once it has left, no answer means that something may have been filed: the institution is
told FILING_OUTCOME_UNKNOWN, and the same request id gives the one answer.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from google.protobuf.message import DecodeError

from gateway.frontdoor.answering import POLL_MS
from gateway.frontdoor.queues import ExchangeQueues, Leaving
from infra.runtime.call import Call
from infra.runtime.clock import Clock, monotonic_us, new_id
from infra.runtime.coalesce import MissingAnswer
from infra.runtime.config import Limits
from infra.runtime.contract import REVISION
from infra.runtime.directory import Directory, Place
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, options_pb2, types_pb2
from yidi.filing.v1 import desk_pb2

Wanted = Literal["check", "filing", "listing", "guidance"]


class FilingDesks:
    """The filing desks as the institutions of this site reach them.

    `area` is a pooling area of the site, and every envelope comes from there: for a desk only the
    site counts, and an institution that files need not be in this site's catalogue yet.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        directory: Directory,
        area: str,
        limits: Limits,
        exchanges: ExchangeQueues,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._area = area
        self._limits = limits
        self._exchanges = exchanges

    def area_of(self, code: str) -> str:
        """The pooling area of an area or county code; AREA_UNKNOWN or DIRECTORY_STALE."""
        return self._directory.place(code).area

    async def ask(
        self,
        payload: desk_pb2.DeskPayload,
        wanted: Wanted,
        insured_area: str,
        call: Call,
        *,
        operator: str = "",
    ) -> desk_pb2.DeskAnswer:
        """The answer of the desk of `insured_area`, which must be what is `wanted`.

        Raises what the desk refuses and what stands in the way; FILING_OUTCOME_UNKNOWN where a
        filing is wanted that may have been made.
        """
        insured = self._directory.place(insured_area)
        self._directory.check_downtime(insured)
        result = await self._send(payload, insured, call, operator)
        answer = desk_pb2.DeskAnswer()
        if result.WhichOneof("outcome") == "filed":
            try:
                answer.ParseFromString(result.filed)
            except DecodeError:
                answer.Clear()
        kind = answer.WhichOneof("answer")
        if kind == wanted:
            return answer
        if kind == "error":
            raise Refusal.from_status(answer.error)
        refusal = Refusal(Reason.ERROR_REASON_SITE_UNREACHABLE, site=insured.name)
        if result.HasField("error"):
            refusal = Refusal.from_status(result.error)
            if result.not_forwarded or not _of_the_way(refusal):
                raise refusal
        if wanted == "filing":
            raise Refusal(Reason.ERROR_REASON_FILING_OUTCOME_UNKNOWN, retry_ms=POLL_MS)
        raise refusal

    async def _send(
        self, payload: desk_pb2.DeskPayload, insured: Place, call: Call, operator: str
    ) -> envelope_pb2.ExchangeResult:
        """What came back; nothing set when nothing did."""
        institution = call.caller.name
        care = self._directory.place(self._area)
        content = payload.SerializeToString()
        envelope = envelope_pb2.Envelope(
            id=new_id(self._clock),
            kind=types_pb2.EXCHANGE_KIND_FILING,
            origin=envelope_pb2.Origin(
                care_area=care.area, institution=institution, operator=operator
            ),
            insured_area=insured.area,
            contract_revision=REVISION,
            traceparent=call.traceparent,
            payload_digest=hashlib.sha256(content).digest(),
            payload=content,
        )
        queue, place = self._exchanges.admit(
            insured.site,
            self._directory.route(care, insured),
            institution,
            quote=False,
            site_name=insured.name,
        )
        own_us = monotonic_us() + self._limits.settle_ms * 1000
        deadline_us = min(call.deadline_us, own_us) - self._limits.hop_margin_ms * 1000
        try:
            return await queue.submit(Leaving(envelope, deadline_us), place)
        except MissingAnswer:
            return envelope_pb2.ExchangeResult()
        except Refusal as refusal:  # the call itself failed: it had left
            return envelope_pb2.ExchangeResult(error=refusal.status())


def _of_the_way(refusal: Refusal) -> bool:
    """Whether it speaks of networks and processes: then the desk may have acted all the same."""
    return bool(getattr(refusal.spec, "class") == options_pb2.ERROR_CLASS_NETWORK)
