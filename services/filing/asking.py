"""What callers ask of filing, read: who somebody is, days, whose rules, digests of requests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from google.protobuf.message import Message

from infra.runtime.call import Call
from infra.runtime.clock import monotonic_us
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.facts import PersonClass
from yidi.enrollment.v1 import enrollment_pb2

_YEARS = range(1900, 2200)
"""Years that a day may lie in: far from the ends of the calendar, where adding months fails."""
_OF_THE_CALL = ("id", "request_id", "operator")
"""Fields of a request that are not its content."""


class IdentifyStub(Protocol):
    """What filing asks of enrollment."""

    @property
    def BatchIdentify(self) -> Callable[..., Awaitable[enrollment_pb2.BatchIdentifyResponse]]:
        """Awaited with the request, `timeout` and `traceparent`; a failure raises `Refusal`."""
        ...


class Identifying:
    """Asks enrollment who people are."""

    def __init__(self, enrollment: IdentifyStub, call_seconds: float) -> None:
        """`call_seconds` bounds each call."""
        self._enrollment = enrollment
        self._seconds = call_seconds

    async def identify(
        self, items: Sequence[enrollment_pb2.IdentifyItem], call: Call
    ) -> dict[str, enrollment_pb2.Participant | Refusal]:
        """Item id → the person, or why there is none; one call for all, none for nobody."""
        if not items:
            return {}
        request = enrollment_pb2.BatchIdentifyRequest(items=items)
        response = await self._enrollment.BatchIdentify(
            request, timeout=seconds_left(self._seconds, call), traceparent=call.traceparent
        )
        missing = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="enrollment")
        found: dict[str, enrollment_pb2.Participant | Refusal] = {}
        for result in response.results:
            found[result.id] = (
                result.participant
                if result.HasField("participant")
                else Refusal.from_status(result.error)
            )
        return {item.id: found.get(item.id, missing) for item in items}


def seconds_left(at_most: float, call: Call) -> float:
    """How long a call outward may take: its own bound, and never longer than the caller waits."""
    return max(min(at_most, (call.deadline_us - monotonic_us()) / 1_000_000), 0.0)


def day_of(text: str, field: str) -> date:
    """The day that `text` names; refuses with DAY_INVALID, far from our time as well."""
    day = parse_day(text, field)
    if day.year not in _YEARS:
        raise Refusal(Reason.ERROR_REASON_DAY_INVALID, field=field, value=text)
    return day


def person_class(number: int) -> PersonClass | None:
    """None for a class that only a newer enrollment knows."""
    try:
        return PersonClass(number)
    except ValueError:
        return None


def rules_of(rules: Mapping[str, AreaRules], area: str, day: date) -> AreaRules:
    """The rules of an area; refuses with POLICY_NOT_FOUND."""
    found = rules.get(area)
    if found is None:
        raise Refusal(Reason.ERROR_REASON_POLICY_NOT_FOUND, area=area, date=day)
    return found


def digest_of(asked: Message, person_id: str) -> bytes:
    """SHA-256 of what is asked for this person, 32 bytes.

    Not of the credential, the operator or the request id. A field that a later contract adds
    changes no old digest.
    """
    content: Any = type(asked)()
    content.CopyFrom(asked)
    for name in _OF_THE_CALL:
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    holder = content.applicant if "applicant" in content.DESCRIPTOR.fields_by_name else content
    if "credential" in holder.DESCRIPTOR.fields_by_name:
        holder.ClearField("credential")
    content.DiscardUnknownFields()
    if "materials" in content.DESCRIPTOR.fields_by_name:
        content.materials.sort()
    kind = content.DESCRIPTOR.full_name.encode()
    body = content.SerializeToString(deterministic=True)
    return hashlib.sha256(b"\x1f".join((kind, person_id.encode(), body))).digest()
