"""The body digest counts what a request is, and nothing else (PROTOCOL §6)."""

from __future__ import annotations

from typing import Any

from fake_site import quote
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.digest import body_digest
from yidi.common.v1 import options_pb2, types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2

TEXT = st.text(max_size=8)
_INTS = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32}


def full_settle() -> gateway_pb2.SettleRequest:
    """A request with every field set, down to the leaves."""
    request = gateway_pb2.SettleRequest()
    _fill(request)
    return request


def _fill(message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            child = (
                getattr(message, field.name).add()
                if field.is_repeated
                else getattr(message, field.name)
            )
            child.SetInParent()
            _fill(child)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))


def _value(field: FieldDescriptor) -> Any:
    if field.type in _INTS:
        return 7
    if field.type == FieldDescriptor.TYPE_ENUM:
        return 1
    return {
        FieldDescriptor.TYPE_STRING: "x",
        FieldDescriptor.TYPE_BYTES: b"x",
        FieldDescriptor.TYPE_BOOL: True,
    }[field.type]


def _leaves(message: Any, business: bool = True) -> list[tuple[Any, FieldDescriptor, bool]]:
    """Every scalar field: its message, itself, and whether all on the way are business fields."""
    found = []
    for field in message.DESCRIPTOR.fields:
        counts = business and field.GetOptions().Extensions[options_pb2.business]
        value = getattr(message, field.name)
        if field.message_type is None:
            found.append((message, field, counts))
        else:
            for child in value if field.is_repeated else [value]:
                found += _leaves(child, counts)
    return found


def test_exactly_the_business_fields_matter() -> None:
    before = body_digest(full_settle())
    paths = len(_leaves(full_settle()))
    counted = 0
    for index in range(paths):
        request = full_settle()
        owner, field, counts = _leaves(request)[index]
        owner.ClearField(field.name)
        assert (body_digest(request) != before) == counts, field.full_name
        counted += counts
    assert 15 < counted < paths


def test_credential_operator_request_id_and_quote_are_not_part_of_the_body() -> None:
    request = gateway_pb2.SettleRequest(request_id="request-1", bill=quote().bill)
    before = body_digest(request)
    request.request_id = "request-2"
    request.credential.name = "王小明"
    request.operator = "clerk"
    request.expected.quote_digest = bytes(32)
    assert body_digest(request) == before


def test_field_order_and_unknown_fields_do_not_matter() -> None:
    request = quote()
    message = request.bill.reference
    parts = [
        type(message)(**{field.name: value}).SerializeToString()
        for field, value in message.ListFields()
    ]
    backwards = type(message).FromString(b"".join(reversed(parts)) + b"\xfa\xff\x03\x01?")
    assert backwards.SerializeToString() != message.SerializeToString()
    assert body_digest(backwards) == body_digest(message)


@st.composite
def visits(draw: st.DrawFn) -> visit_pb2.Visit:
    return visit_pb2.Visit(
        care_area=draw(TEXT),
        insured_area=draw(TEXT),
        insurance=draw(st.sampled_from(types_pb2.InsuranceType.values())),
        care_type=draw(st.sampled_from(types_pb2.CareType.values())),
        start_date=draw(TEXT),
        disease_code=draw(TEXT),
        diagnosis_codes=draw(st.lists(TEXT, max_size=4)),
        use_account=draw(st.booleans()),
    )


@given(visits(), visits())
def test_digests_are_equal_exactly_when_the_business_content_is(
    one: visit_pb2.Visit, other: visit_pb2.Visit
) -> None:
    assert (body_digest(one) == body_digest(other)) == (one == other)


@given(visits())
def test_digest_survives_the_wire(visit: visit_pb2.Visit) -> None:
    assert body_digest(visit_pb2.Visit.FromString(visit.SerializeToString())) == body_digest(visit)


@given(st.lists(st.text(alphabet="\x1f1=2{}a", max_size=5), max_size=4), st.data())
def test_text_cannot_pass_for_several_fields(codes: list[str], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.text(alphabet="\x1f1=2{}a", max_size=5), max_size=4))
    first, second = (visit_pb2.Visit(diagnosis_codes=texts) for texts in (codes, other))
    assert (body_digest(first) == body_digest(second)) == (codes == other)


def test_a_line_moved_between_equal_bills_changes_the_digest() -> None:
    request = quote()
    request.bill.lines.add().CopyFrom(request.bill.lines[0])
    request.bill.lines[1].line_id = "2"
    swapped = gateway_pb2.QuoteRequest()
    swapped.CopyFrom(request)
    swapped.bill.lines[0].line_id, swapped.bill.lines[1].line_id = "2", "1"
    assert body_digest(swapped) != body_digest(request)


def test_length_is_that_of_sha_256() -> None:
    assert len(body_digest(visit_pb2.Visit())) == 32
