"""Refusals travel as google.rpc.Status and come back whole (S4-50; DESIGN §3)."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.errors import MAX_VIOLATIONS, Reason, Refusal, Violation, grpc_code
from yidi.common.v1 import errors_pb2

REASONS = [value for value in Reason.values() if value != Reason.ERROR_REASON_UNSPECIFIED]
NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=10).filter(
    lambda name: name not in ("stage", "class", "decided", "next_step", "count")
)


def status_of(reason: str, code: int, **metadata: str) -> status_pb2.Status:
    """A status as a neighbour would make it."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="yidi", metadata=metadata))
    return status_pb2.Status(code=code, details=[packed])


@pytest.mark.parametrize("reason", REASONS, ids=Reason.Name)
def test_every_reason_makes_the_round_trip(reason: errors_pb2.ErrorReason.ValueType) -> None:
    sent = Refusal(
        reason,
        violations=[Violation("bill.lines[3].quantity_e4", "不得为零")],
        retry_ms=1_500,
        area="440800",
    )
    status = status_pb2.Status.FromString(sent.status().SerializeToString())
    back = Refusal.from_status(status)
    assert (back.reason, back.details, back.violations, back.retry_ms) == (
        sent.reason,
        sent.details,
        sent.violations,
        sent.retry_ms,
    )
    assert (back.message, back.next_step, back.decided) == (
        sent.message,
        sent.next_step,
        sent.decided,
    )
    assert status.code == grpc_code(status).value[0] != code_pb2.OK


def test_the_status_says_reason_stage_class_decision_and_next_step() -> None:
    status = Refusal(Reason.ERROR_REASON_FILING_REQUIRED, place="北京市").status()
    info = error_details_pb2.ErrorInfo()
    text = error_details_pb2.LocalizedMessage()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(text)
    assert (info.reason, info.domain) == ("FILING_REQUIRED", "yidi")
    assert info.metadata["stage"] == "insured_area"
    assert info.metadata["class"] == "filing"
    assert info.metadata["decided"] == "true"
    assert info.metadata["next_step"].startswith("出院结算前")
    assert (text.locale, text.message) == ("zh-CN", "参保人没有到 北京市 就医的有效备案。")


@given(st.dictionaries(NAMES, st.text(max_size=10), max_size=4), st.sampled_from(REASONS))
def test_any_metadata_of_a_neighbour_is_taken_in(
    metadata: dict[str, str], reason: errors_pb2.ErrorReason.ValueType
) -> None:
    name = Reason.Name(reason).removeprefix("ERROR_REASON_")
    back = Refusal.from_status(status_of(name, code_pb2.FAILED_PRECONDITION, **metadata))
    assert (back.reason, back.details) == (reason, metadata)
    assert str(back) == f"{name}: {back.message}"


@pytest.mark.parametrize("name", ["reason", "self", "violations", "retry_ms", "status"])
def test_metadata_named_like_our_own_parameters_does_no_harm(name: str) -> None:
    status = status_of("AREA_UNKNOWN", code_pb2.NOT_FOUND)
    info = error_details_pb2.ErrorInfo(reason="AREA_UNKNOWN", metadata={name: "1", "area": "9"})
    status.details[0].Pack(info)
    back = Refusal.from_status(status)
    assert back.reason == Reason.ERROR_REASON_AREA_UNKNOWN
    assert back.details == {name: "1", "area": "9"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (code_pb2.FAILED_PRECONDITION, Reason.ERROR_REASON_INTERNAL),
        (code_pb2.UNAVAILABLE, Reason.ERROR_REASON_SERVICE_UNAVAILABLE),
        (code_pb2.CANCELLED, Reason.ERROR_REASON_SERVICE_UNAVAILABLE),
        (code_pb2.DEADLINE_EXCEEDED, Reason.ERROR_REASON_DEADLINE_TOO_SHORT),
        (code_pb2.RESOURCE_EXHAUSTED, Reason.ERROR_REASON_OVERLOADED),
        (code_pb2.PERMISSION_DENIED, Reason.ERROR_REASON_ACCESS_DENIED),
        (code_pb2.UNKNOWN, Reason.ERROR_REASON_INTERNAL),
    ],
)
def test_a_reason_of_a_newer_neighbour_is_known_by_its_code_and_never_decided(
    code: int, reason: errors_pb2.ErrorReason.ValueType
) -> None:
    """PROTOCOL §5: unknown values on answers are carried, never raised."""
    back = Refusal.from_status(status_of("MOON_PHASE_WRONG", code, decided="true", moon="full"))
    assert back.reason == reason
    assert not back.decided
    assert back.details["moon"] == "full"
    assert "{" not in back.message


def test_a_status_without_details_is_understood() -> None:
    back = Refusal.from_status(status_pb2.Status(code=code_pb2.UNAVAILABLE, message="gone"))
    assert back.reason == Reason.ERROR_REASON_SERVICE_UNAVAILABLE


def test_a_value_that_was_not_sent_shows_as_its_name() -> None:
    assert (
        Refusal(Reason.ERROR_REASON_AREA_UNKNOWN).message == "参保地区划 （area） 不在全国目录中。"
    )


def test_values_are_not_formatted_themselves() -> None:
    refusal = Refusal(Reason.ERROR_REASON_AREA_UNKNOWN, area="{area}{next_step.__class__}")
    assert refusal.message == "参保地区划 {area}{next_step.__class__} 不在全国目录中。"


def test_a_flood_of_faults_is_counted_whole_and_listed_in_part() -> None:
    """The list travels in a trailer, and gRPC clients take 8 KiB of those."""
    faults = [
        Violation(f"bill.lines[{n}].unit_price_micro_yuan", "超出允许的范围") for n in range(9_999)
    ]
    refusal = Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
    assert refusal.message == "报文有 9999 处不符合接口要求。"
    assert refusal.violations == tuple(faults[:MAX_VIOLATIONS])
    assert len(refusal.status().SerializeToString()) < 6_000
    assert Refusal.from_status(refusal.status()).message == refusal.message
