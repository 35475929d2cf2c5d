"""What every call passes through on its way to a handler, over a socket or in process.

Order: trace, errors, deadline, access, validation, ownership. Each checks a batch item by item:
a bad item is taken out and answered with its own status, the others go on; only the frame of a
batch (count, distinct ids, bytes by the transport) can fail the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import protovalidate
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import Clock, monotonic_us, new_id
from infra.runtime.config import NATION
from infra.runtime.contract import AcceptedCaller, Method, owned_fields
from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.redact import where
from infra.runtime.rules_zh import describe
from infra.runtime.telemetry import Telemetry
from yidi.common.v1 import options_pb2

Handler: TypeAlias = Callable[[Any, Call], Awaitable[Message]]
Interceptor: TypeAlias = Callable[[Method, Any, Call, Handler], Awaitable[Message]]

_RELAY = "yidi.relay.v1.RelayService"
_CATALOG = "yidi.catalog.v1.CatalogService"
_INSURED_SERVICES = frozenset(
    {
        "yidi.enrollment.v1.EnrollmentService",
        "yidi.enrollment.v1.ParticipantService",
        "yidi.filing.v1.DeskService",
        "yidi.filing.v1.FilingService",
        "yidi.policy.v1.PolicyService",
        "yidi.policy.v1.PublishingService",
        "yidi.settlement.v1.InsuredService",
    }
)
_CARE_SERVICES = frozenset(
    {
        "yidi.gateway.v1.CatalogDeskService",
        "yidi.gateway.v1.FilingDeskService",
        "yidi.gateway.v1.InstitutionService",
        _CATALOG,
        "yidi.catalog.v1.ListingService",
        "yidi.settlement.v1.CareService",
    }
)
_log = structlog.get_logger("yidi.call")


def chain(method: Method, handler: Handler, interceptors: Iterable[Interceptor]) -> Handler:
    """`handler` behind the interceptors, the first outermost."""
    for interceptor in reversed(list(interceptors)):
        handler = _wrap(method, interceptor, handler)
    return handler


def _wrap(method: Method, interceptor: Interceptor, inner: Handler) -> Handler:
    async def call_through(request: Any, call: Call) -> Message:
        return await interceptor(method, request, call, inner)

    return call_through


class TraceInterceptor:
    """Makes the span of the call."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        if not self._telemetry.enabled:
            return await inner(request, call)
        items: list[str] = []
        if method.item is not None and "traceparent" in method.item.DESCRIPTOR.fields_by_name:
            items = [item.traceparent for item in request.items]
        with self._telemetry.server_span(method.path, call.traceparent, items) as traceparent:
            return await inner(request, Call(call.caller, call.deadline_us, traceparent))


class ErrorInterceptor:
    """Turns what nobody expected into INTERNAL with a number; the log has the place, no data."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        try:
            return await inner(request, call)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            incident = new_id(self._clock)
            _log.error("internal", method=method.path, incident=incident, at=where(error))
            raise Refusal(Reason.ERROR_REASON_INTERNAL, incident=incident) from error


class DeadlineInterceptor:
    """Refuses what nobody waits for any more, and items whose `remaining_ms` is used up."""

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        if call.deadline_us <= monotonic_us():
            raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
        item = method.item
        if item is None or "remaining_ms" not in item.DESCRIPTOR.fields_by_name:
            return await inner(request, call)
        refused = {
            index: Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
            for index, one in enumerate(request.items)
            if one.remaining_ms <= 0
        }
        return await without(method, request, call, inner, refused)


class AccessInterceptor:
    """Lets in the callers that the method's access option names."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        if not any(self._accepts(accepted, call.caller) for accepted in method.callers):
            _log.warning("access denied", method=method.path, caller=call.caller.spiffe_id)
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        return await inner(request, call)

    def _accepts(self, accepted: AcceptedCaller, caller: Identity) -> bool:
        own = caller.site == self._site
        if accepted.kind == options_pb2.CALLER_KIND_OWN_SITE:
            return own and caller.type is CallerType.ROLE and caller.name in accepted.roles
        if accepted.kind == options_pb2.CALLER_KIND_INSTITUTION:
            return own and caller.type is CallerType.INSTITUTION
        if accepted.kind == options_pb2.CALLER_KIND_OPERATOR:
            return own and caller.type is CallerType.OPERATOR
        foreign_relay = not own and caller.type is CallerType.ROLE and caller.name == "relay"
        if accepted.kind == options_pb2.CALLER_KIND_NATION:
            return foreign_relay and caller.site == NATION
        if accepted.kind == options_pb2.CALLER_KIND_PROVINCE:
            # Provinces meet at the nation only: none may enter another past its checks (§5).
            return foreign_relay and self._site == NATION
        return False


class ValidationInterceptor:
    """Holds every message against the rules in its contract; all faults are listed at once."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        faults = self._faults(request)
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        if method.item is None:
            return await inner(request, call)
        if len({item.id for item in request.items}) != len(request.items):
            repeated = Violation("items.id", "同一批次内编号不得重复")
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[repeated])
        refused = {}
        for index, item in enumerate(request.items):
            faults = self._faults(item)
            if faults:
                refused[index] = Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        return await without(method, request, call, inner, refused)

    def _faults(self, message: Message) -> list[Violation]:
        return [describe(violation) for violation in self._validator.collect_violations(message)]


class OwnershipInterceptor:
    """Holds codes against the caller: a site, an area, an institution can speak only for itself.

    `site_of(area)` is the site of a pooling area as far as this site knows, or None.
    """

    def __init__(self, site: str, site_of: Callable[[str], str | None]) -> None:
        self._site = site
        self._site_of = site_of

    async def __call__(self, method: Method, request: Any, call: Call, inner: Handler) -> Message:
        if method.item is None:
            refusal = self._check(method, request, call.caller)
            if refusal is not None:
                raise refusal
            return await inner(request, call)
        refused = {}
        for index, item in enumerate(request.items):
            refusal = self._check(method, item, call.caller)
            if refusal is not None:
                refused[index] = refusal
        return await without(method, request, call, inner, refused)

    def _check(self, method: Method, message: Message, caller: Identity) -> Refusal | None:
        for field in owned_fields(message.DESCRIPTOR):
            owner = self._owner(field.owner, method, caller)
            if owner is None or (field.path == "visit.care_area" and _is_claim(method, message)):
                continue
            value = field.read(message)
            if not value:
                continue
            if owner not in (value, self._site_of(value)):
                return Refusal(Reason.ERROR_REASON_FOREIGN_CODE, field=field.path, value=value)
        return None

    def _owner(
        self, owner: options_pb2.Owner.ValueType, method: Method, caller: Identity
    ) -> str | None:
        """The site or institution that the code must belong to; None where others have checked.

        The care side is checked where it enters (front door, own roles) and by the nation against
        its peer; the insured side by the insured site itself.
        """
        if owner == options_pb2.OWNER_INSTITUTION:
            return caller.name if caller.type is CallerType.INSTITUTION else None
        if owner == options_pb2.OWNER_CARE_SITE:
            if method.service in _CARE_SERVICES:
                return self._site
            if method.service == _RELAY or caller.name == "gateway":
                return None if caller.site == NATION else caller.site
            return None
        if method.service in _INSURED_SERVICES or caller.site == NATION:
            return self._site
        return None


def _is_claim(method: Method, message: Any) -> bool:
    """Whether a bill to split is a manual claim: its care place may be anywhere in the country."""
    return method.service == _CATALOG and bool(message.HasField("claim"))


async def without(
    method: Method, request: Any, call: Call, inner: Handler, refused: Mapping[int, Refusal]
) -> Message:
    """Call `inner` with the items that are not refused and answer the others with their refusal."""
    if not refused:
        return await inner(request, call)
    errors = [(request.items[index].id, refusal) for index, refusal in refused.items()]
    for index in sorted(refused, reverse=True):
        del request.items[index]
    response = await inner(request, call) if request.items else method.response()
    results: Any = response.results  # type: ignore[attr-defined]
    results.extend(refused_result(method, item_id, refusal.status()) for item_id, refusal in errors)
    return response


def refused_result(method: Method, item_id: str, status: status_pb2.Status) -> Any:
    """The result of an item that was refused before its handler saw it."""
    if method.result is None:
        raise ValueError(f"{method.path} is not a batch")
    result: Any = method.result(id=item_id, error=status)
    if method.service == _RELAY and "not_forwarded" in result.DESCRIPTOR.fields_by_name:
        # A relay that refuses here has sent nothing on, so the item can never be decided.
        result.not_forwarded = True
    return result
