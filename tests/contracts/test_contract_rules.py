"""What the runtime counts on in the contracts: access, owners, batches, marks (DESIGN §3)."""

from __future__ import annotations

import re

import pytest
from contract_files import (
    ROOT,
    all_enums,
    all_fields,
    all_messages,
    all_methods,
    is_batch,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2
from infra.runtime.config import ROLES
from infra.runtime.contract import methods, owned_fields
from infra.runtime.interceptors import _CARE_SERVICES, _INSURED_SERVICES, _RELAY
from infra.runtime.rules_zh import _TEXTS
from yidi.common.v1 import options_pb2
from yidi.filing.v1.desk_pb2 import DeskPayload
from yidi.settlement.v1.payload_pb2 import ExchangePayload

METHODS = [pytest.param(method, id=method.full_name) for method in all_methods()]
BATCHES = [
    pytest.param(method, id=method.full_name) for method in all_methods() if is_batch(method)
]
PERSONAL = re.compile(
    r"^(id_number|card_number|.*_card|.*token|operator|phone|mobile|address|birth_date"
    r"|credential_number|diagnosis_codes?|payload|details|request)$"
)
NOT_PERSONAL = {
    # The key of a look-up (caller, method, request id) and not a request.
    "yidi.settlement.v1.GetItem.request",
}
PERSONAL_NAMES = {
    "yidi.enrollment.v1.RegisterItem.name",
    "yidi.common.v1.Credential.name",
    "yidi.common.v1.Credential.number",
}


def rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The validation rules of a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    assert options.HasExtension(options_pb2.access)
    callers = options.Extensions[options_pb2.access].callers
    assert callers
    for caller in callers:
        assert caller.kind in options_pb2.CallerKind.values()[1:]
        if caller.kind == options_pb2.CALLER_KIND_OWN_SITE:
            assert caller.roles
            assert set(caller.roles) <= set(ROLES), "unknown role"
            assert len(set(caller.roles)) == len(caller.roles)
        else:
            assert not caller.roles, "roles are for OWN_SITE"
    assert len({caller.kind for caller in callers}) == len(callers)


@pytest.mark.parametrize("method", METHODS)
def test_the_runtime_can_serve_every_method(method: MethodDescriptor) -> None:
    served = {one.name: one for one in methods(method.containing_service)}[method.name]
    assert served.path == f"/{method.containing_service.full_name}/{method.name}"
    assert (served.item is not None) == is_batch(method)


@pytest.mark.parametrize("method", METHODS)
def test_requests_and_responses_are_of_one_method(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"
    assert not method.client_streaming
    assert not method.server_streaming


@pytest.mark.parametrize("method", BATCHES)
def test_batches_have_the_one_form(method: MethodDescriptor) -> None:
    """items and results by id, an own error each; only the frame is checked as a whole (§7)."""
    [items] = method.input_type.fields
    assert (items.name, items.number, items.is_repeated) == ("items", 1, True)
    repeated = rules(items).repeated
    assert repeated.max_items == 256
    assert repeated.items.ignore == validate_pb2.IGNORE_ALWAYS
    assert items.message_type is not None
    item_id = items.message_type.fields_by_number[1]
    assert (item_id.name, item_id.type) == ("id", FieldDescriptor.TYPE_STRING)
    assert rules(item_id).string.uuid
    [results] = method.output_type.fields
    assert (results.name, results.number, results.is_repeated) == ("results", 1, True)
    assert results.message_type is not None
    result_id = results.message_type.fields_by_number[1]
    assert (result_id.name, result_id.type) == ("id", FieldDescriptor.TYPE_STRING)
    error = results.message_type.fields_by_name["error"]
    assert error.message_type is not None
    assert (error.number, error.message_type.full_name) == (15, "google.rpc.Status")


def _reachable(message: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if message.full_name not in seen:
        seen[message.full_name] = message
        for field in message.fields:
            if field.message_type is not None:
                _reachable(field.message_type, seen)
    return seen


def _asked() -> list[Descriptor]:
    """Every message that a request may hold; the payload of an envelope is one, too."""
    found = _reachable(ExchangePayload.DESCRIPTOR, {})
    _reachable(DeskPayload.DESCRIPTOR, found)
    for method in all_methods():
        _reachable(method.input_type, found)
    return list(found.values())


def test_no_owned_code_hides_in_a_repeated_message() -> None:
    """The ownership check does not walk into them (infra.runtime.contract.owned_fields)."""
    for asked in _asked():
        for field in asked.fields:
            if not field.is_repeated or field.message_type is None or field.name == "items":
                continue
            for message in _reachable(field.message_type, {}).values():
                for inner in message.fields:
                    owner = inner.GetOptions().Extensions[options_pb2.owned_by]
                    assert owner == options_pb2.OWNER_UNSPECIFIED, inner.full_name


def test_every_area_site_and_institution_that_a_caller_names_has_been_thought_of() -> None:
    """Codes in requests are owned, or listed here with the reason why they are not."""
    free = {
        # The question is about another place.
        "yidi.enrollment.v1.Qualification.granted_area",
        "yidi.enrollment.v1.Transfer.to_area",
        "yidi.filing.v1.Application.care_place",
        "yidi.filing.v1.Change.care_place",
        "yidi.filing.v1.CreateFilingItem.care_place",
        "yidi.filing.v1.GuidanceQuestion.care_place",
        "yidi.settlement.v1.GetCareJournalDigestRequest.insured_site",
        "yidi.settlement.v1.GetInsuredJournalDigestRequest.care_site",
        # The nation compares the pair with its caller.
        "yidi.relay.v1.GetNationJournalDigestRequest.care_site",
        "yidi.relay.v1.GetNationJournalDigestRequest.insured_site",
        "yidi.relay.v1.Downtime.site",
        # An institution to look for, or one of the site's own: the registry compares its area.
        "yidi.catalog.v1.GetInstitutionRequest.code",
        "yidi.catalog.v1.InstitutionRecord.area",
        "yidi.catalog.v1.InstitutionRecord.code",
        # From the directory, or from a message whose codes were checked at the front door.
        "yidi.filing.v1.ResolveEntitlementItem.care_site",
        "yidi.catalog.v1.SplitFeesItem.institution",
        "yidi.catalog.v1.SubmitMappingsRequest.institution",
        "yidi.catalog.v1.WithdrawMappingsRequest.institution",
        "yidi.common.v1.Origin.institution",
        "yidi.common.v1.Institution.area",
        "yidi.common.v1.Institution.code",
        "yidi.settlement.v1.GetItem.institution",
        "yidi.settlement.v1.CancelItem.institution",
        "yidi.settlement.v1.OpenItem.care_area",
        "yidi.settlement.v1.OpenItem.insured_area",
        "yidi.settlement.v1.OpenItem.insured_site",
    }
    unowned = {
        field.full_name
        for message in _asked()
        for field in message.fields
        if rules(field).string.pattern in ("^[0-9]{6}$", "^[A-Z0-9]{6,30}$")
        and not field.GetOptions().Extensions[options_pb2.owned_by]
    }
    assert unowned == free


def test_owned_fields_are_found_below_messages() -> None:
    quote = next(m for m in all_messages() if m.full_name == "yidi.gateway.v1.QuoteRequest")
    assert {field.path for field in owned_fields(quote)} == {
        "bill.reference.institution",
        "bill.visit.care_area",
        "bill.visit.insured_area",
    }


def test_every_service_with_areas_of_a_side_is_checked_on_that_side() -> None:
    """One that is in no set of the interceptor would let in the area of any site (PROTOCOL §5)."""
    sides = {options_pb2.OWNER_CARE_SITE, options_pb2.OWNER_INSURED_SITE}
    named = {
        served.service
        for service in {method.containing_service for method in all_methods()}
        for served in methods(service)
        for field in owned_fields((served.item or served.request).DESCRIPTOR)
        if field.owner in sides
    }
    assert named == _CARE_SERVICES | _INSURED_SERVICES | {_RELAY}
    assert not _CARE_SERVICES & _INSURED_SERVICES


def test_what_is_personal_is_marked() -> None:
    """ID numbers, names of people, credentials, and bytes that hold them (debug_redact)."""
    found = {field.full_name: field for field in all_fields()}
    assert found.keys() >= PERSONAL_NAMES
    for name, field in found.items():
        if name in NOT_PERSONAL:
            continue
        if name in PERSONAL_NAMES or PERSONAL.match(field.name):
            assert field.GetOptions().debug_redact, f"{name} holds personal data"


def test_bytes_are_marked_or_digests_or_the_outcome() -> None:
    known = re.compile(r"(digest|hash)$")
    outcome = {
        # Header and refusals hold no personal data: all three journals keep them.
        "yidi.common.v1.Outcome.header",
        "yidi.common.v1.ExchangeResult.rejected",
        "yidi.common.v1.ExchangeResult.aborted",
        "yidi.gateway.v1.SettlementResult.outcome_header",
    }
    for field in all_fields():
        if field.type == FieldDescriptor.TYPE_BYTES and not known.search(field.name):
            marked = field.GetOptions().debug_redact
            stored = field.full_name in outcome or field.name in ("rejected", "aborted", "header")
            assert marked or stored, field.full_name


def test_money_is_whole_fen_and_nothing_is_a_float() -> None:
    for field in all_fields():
        assert field.type not in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
        if field.name.endswith("_fen") or field.name == "fen":
            assert field.type == FieldDescriptor.TYPE_INT64, field.full_name


def test_marks_have_their_types() -> None:
    """Owned codes are texts, and whoever answers needs a default that means `not given`."""
    for field in all_fields():
        if field.GetOptions().Extensions[options_pb2.owned_by]:
            assert field.type == FieldDescriptor.TYPE_STRING, field.full_name
    for enum in all_enums():
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED"), enum.full_name


def test_national_codes_are_unique_within_their_table() -> None:
    for enum in all_enums():
        codes = [value.GetOptions().Extensions[options_pb2.national_code] for value in enum.values]
        given = [code for code in codes if code]
        assert len(set(given)) == len(given), enum.full_name


def _rule_ids(field: FieldDescriptor) -> set[str]:
    """The ids under which protovalidate reports the rules of a field."""
    found = rules(field)
    ids = {"required"} if found.required else set()
    kind = found.WhichOneof("type")
    if kind is None:
        return ids
    inner = getattr(found, kind)
    if kind == "repeated":
        ids |= {f"repeated.{name}" for name in ("min_items", "max_items") if inner.HasField(name)}
        item_kind = inner.items.WhichOneof("type")
        if item_kind is not None:
            ids |= _scalar_ids(item_kind, getattr(inner.items, item_kind))
        return ids
    return ids | _scalar_ids(kind, inner)


def _scalar_ids(kind: str, inner: validate_pb2.FieldRules) -> set[str]:
    given = {field.name for field, _ in inner.ListFields()}
    ids = {f"{kind}.{name}" for name in given - {"gte", "lte", "gt", "lt"}}
    bounds = "_".join(name for name in ("gt", "gte", "lt", "lte") if name in given)
    if bounds:
        ids.add(f"{kind}.{bounds}")
    if "uuid" in given:
        ids.add("string.uuid_empty")
    return ids


def test_every_rule_has_its_chinese_text() -> None:
    ids = {rule for field in all_fields() for rule in _rule_ids(field)}
    for message in all_messages():
        for rule in message.GetOptions().Extensions[validate_pb2.message].cel:
            assert rule.id, message.full_name
            ids.add(rule.id)
    assert ids - _TEXTS.keys() == set()


def test_contracts_say_their_units_in_the_comments() -> None:
    """`// …, fen` above amounts; digests say their length."""
    for path in (ROOT / "protos" / "yidi").rglob("*.proto"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            digest = re.match(r"\s*bytes \w*(digest|hash) =", line)
            if digest:
                above = " ".join(lines[max(number - 2, 0) : number])
                assert "32 bytes" in above, f"{path.name}:{number + 1}"
