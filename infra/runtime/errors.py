"""The error catalogue at run time: one exception that knows how to travel.

A `Refusal` carries a reason of the catalogue (`yidi.common.v1.ErrorReason`) and the values that
its Chinese sentence needs. Servicers raise it for the whole call or put `refusal.status()` into
the result of one item; callers get the same `Refusal` back, over a socket or in process.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from yidi.common.v1 import errors_pb2, options_pb2

DOMAIN = "yidi"
MAX_VIOLATIONS = 50
"""Faults listed at most; their number is always told. They travel in a trailer: 8 KiB is usual."""
_PREFIX = "ERROR_REASON_"
Reason = errors_pb2.ErrorReason


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a message: the path of the field and what is wrong, in plain Chinese."""

    field: str
    description: str


class Refusal(Exception):
    """A refusal from the catalogue.

    `details` fill the placeholders of the catalogue's sentence and travel as metadata;
    `retry_ms` travels as RetryInfo. No personal data belongs in either.
    """

    def __init__(
        self,
        reason: Reason.ValueType,
        /,
        *,
        violations: Iterable[Violation] = (),
        retry_ms: int | None = None,
        **details: object,
    ) -> None:
        self.reason = reason
        self.details = {name: str(value) for name, value in details.items()}
        faults = tuple(violations)
        self.violations = faults[:MAX_VIOLATIONS]
        if faults:
            self.details.setdefault("count", str(len(faults)))
        self.retry_ms = retry_ms
        super().__init__(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    @property
    def name(self) -> str:
        """The reason as it is spelt on the wire, e.g. `FILING_REQUIRED`."""
        return Reason.Name(self.reason).removeprefix(_PREFIX)

    @property
    def spec(self) -> options_pb2.ErrorSpec:
        """What the catalogue says of the reason."""
        return spec(self.reason)

    @property
    def decided(self) -> bool:
        """Whether the insured place has decided, for ever."""
        return self.spec.decided

    @property
    def message(self) -> str:
        """What is wrong, one plain Chinese sentence."""
        return _fill(self.spec.message, self.details)

    @property
    def next_step(self) -> str:
        """What to do next, in plain Chinese."""
        return _fill(self.spec.next_step, self.details)

    def status(self) -> status_pb2.Status:
        """The refusal as `google.rpc.Status`."""
        known = self.spec
        metadata = {
            **self.details,
            "stage": options_pb2.ErrorStage.Name(known.stage).removeprefix("ERROR_STAGE_").lower(),
            "class": _class_name(self.reason),
            "decided": "true" if known.decided else "false",
            "next_step": self.next_step,
        }
        parts: list[any_pb2.Any] = [
            _pack(error_details_pb2.ErrorInfo(reason=self.name, domain=DOMAIN, metadata=metadata)),
            _pack(error_details_pb2.LocalizedMessage(locale="zh-CN", message=self.message)),
        ]
        if self.violations:
            faults = [
                error_details_pb2.BadRequest.FieldViolation(
                    field=violation.field, description=violation.description
                )
                for violation in self.violations
            ]
            parts.append(_pack(error_details_pb2.BadRequest(field_violations=faults)))
        if self.retry_ms is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(self.retry_ms)
            parts.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=known.code, message=self.message, details=parts)

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> Refusal:
        """The refusal that `status` carries; INTERNAL when it names no reason of the catalogue."""
        reason = Reason.ERROR_REASON_UNSPECIFIED
        details: dict[str, str] = {}
        violations: list[Violation] = []
        retry_ms = None
        for part in status.details:
            info = error_details_pb2.ErrorInfo()
            bad = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if part.Unpack(info):
                details = {
                    name: value
                    for name, value in info.metadata.items()
                    if name not in ("stage", "class", "decided", "next_step")
                }
                reason = _reason(info.reason)
            elif part.Unpack(bad):
                violations = [Violation(v.field, v.description) for v in bad.field_violations]
            elif part.Unpack(retry):
                retry_ms = retry.retry_delay.ToMilliseconds()
        if reason == Reason.ERROR_REASON_UNSPECIFIED:
            reason = _reason_of_code(status.code)
            details.setdefault("service", "peer")
            details.setdefault("site", "peer")
            details.setdefault("incident", code_pb2.Code.Name(status.code))
        refusal = cls(reason, violations=violations, retry_ms=retry_ms)
        refusal.details |= details  # not as keywords: a neighbour may use any name
        return refusal


@cache
def spec(reason: Reason.ValueType) -> options_pb2.ErrorSpec:
    """What the catalogue says of `reason`."""
    value = Reason.DESCRIPTOR.values_by_number[reason]
    return value.GetOptions().Extensions[options_pb2.error]


def grpc_code(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC status code of a `google.rpc.Status`."""
    return _CODES[status.code]


_CODES = {code.value[0]: code for code in grpc.StatusCode}


@cache
def _class_name(reason: Reason.ValueType) -> str:
    value = getattr(spec(reason), "class")  # `class` is a keyword in Python only
    return options_pb2.ErrorClass.Name(value).removeprefix("ERROR_CLASS_").lower()


def _reason(name: str) -> Reason.ValueType:
    try:
        return Reason.Value(_PREFIX + name)
    except ValueError:  # a newer neighbour knows more reasons than we do
        return Reason.ERROR_REASON_UNSPECIFIED


def _reason_of_code(code: int) -> Reason.ValueType:
    """The reason for a status that gRPC itself made: it names no reason of ours."""
    if code == code_pb2.DEADLINE_EXCEEDED:
        return Reason.ERROR_REASON_DEADLINE_TOO_SHORT
    if code in (code_pb2.UNAVAILABLE, code_pb2.CANCELLED):
        return Reason.ERROR_REASON_SERVICE_UNAVAILABLE
    if code == code_pb2.RESOURCE_EXHAUSTED:
        return Reason.ERROR_REASON_OVERLOADED
    if code in (code_pb2.UNAUTHENTICATED, code_pb2.PERMISSION_DENIED):
        return Reason.ERROR_REASON_ACCESS_DENIED
    return Reason.ERROR_REASON_INTERNAL


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


class _Forgiving(dict[str, str]):
    """A value that a neighbour did not send shows as its name, rather than failing the answer."""

    def __missing__(self, key: str) -> str:
        return f"（{key}）"


def _fill(template: str, details: dict[str, str]) -> str:
    return string.Formatter().vformat(template, (), _Forgiving(details))
