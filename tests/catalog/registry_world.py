"""A registry on the sample catalogue of 广东, and what its callers say."""

from __future__ import annotations

from itertools import count
from typing import Any

import protovalidate
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.errors import Refusal
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2

SITE = "440000"
AREAS = ("440100", "440800")
HOSPITAL, OTHER_HOSPITAL, SHOP = "H44080000001", "H44010000001", "P44080300004"
OPERATOR = Call(Identity(SITE, CallerType.OPERATOR, "admin"), deadline_us=1 << 62)
GATEWAY = Call(Identity(SITE, CallerType.ROLE, "gateway"), deadline_us=1 << 62)
ASPIRIN, STENT = "XB01AC06A013-SAMPLE", "C0201010010000101-SAMPLE"
INPATIENT = registry_pb2.INSTITUTION_SERVICE_INPATIENT
OUTPATIENT = registry_pb2.INSTITUTION_SERVICE_OUTPATIENT
CHRONIC = registry_pb2.INSTITUTION_SERVICE_CHRONIC
PHARMACY = registry_pb2.INSTITUTION_SERVICE_PHARMACY
CROSS = types_pb2.ROUTE_CROSS_PROVINCE
_numbers = count(1)


def new_id() -> str:
    return f"request-{next(_numbers):04}"


async def refused(awaited: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await awaited
    return caught.value


def open_for(*services: registry_pb2.InstitutionService.ValueType) -> registry_pb2.RouteServices:
    return registry_pb2.RouteServices(route=CROSS, services=services)


def hospital(code: str = "H44080099999", **fields: Any) -> registry_pb2.InstitutionRecord:
    three = types_pb2.INSTITUTION_LEVEL_THREE
    told: dict[str, Any] = {
        "name": "示例新医院",
        "kind": registry_pb2.INSTITUTION_KIND_MEDICAL,
        "area": "440800",
        "grade": types_pb2.INSTITUTION_GRADE_THREE_A,
        "deductible_level": three,
        "price_limit_level": three,
        "settlement_level": three,
        "networked": [open_for(INPATIENT, OUTPATIENT, CHRONIC)],
        "start_date": "2026-01-01",
    }
    return registry_pb2.InstitutionRecord(code=code, **told | fields)


def opened(disease: str, start: str = "2026-01-01", end: str = "") -> registry_pb2.OpenedDisease:
    return registry_pb2.OpenedDisease(disease_code=disease, start_date=start, end_date=end)


def registering(
    *records: registry_pb2.InstitutionRecord, request_id: str = ""
) -> registry_pb2.RegisterInstitutionsRequest:
    request = registry_pb2.RegisterInstitutionsRequest(
        request_id=request_id or new_id(), institutions=records, operator="张三"
    )
    protovalidate.validate(request)
    return request


def mapping(
    item_code: str, national_code: str = ASPIRIN, start: str = "2026-01-01", end: str = ""
) -> registry_pb2.ItemMapping:
    return registry_pb2.ItemMapping(
        item_code=item_code, national_code=national_code, start_date=start, end_date=end
    )


def submitting(
    *mappings: registry_pb2.ItemMapping, institution: str = HOSPITAL, request_id: str = ""
) -> registry_pb2.SubmitMappingsRequest:
    request = registry_pb2.SubmitMappingsRequest(
        request_id=request_id or new_id(),
        institution=institution,
        mappings=mappings,
        operator="李四",
    )
    protovalidate.validate(request)
    return request


def reviewing(
    *ids: int, approve: bool = True, reason: str = ""
) -> registry_pb2.ReviewMappingsRequest:
    request = registry_pb2.ReviewMappingsRequest(
        request_id=new_id(), mapping_ids=ids, approve=approve, reason=reason
    )
    protovalidate.validate(request)
    return request


def withdrawing(
    *item_codes: str, day: str, institution: str = HOSPITAL
) -> registry_pb2.WithdrawMappingsRequest:
    request = registry_pb2.WithdrawMappingsRequest(
        request_id=new_id(), institution=institution, item_codes=item_codes, day=day
    )
    protovalidate.validate(request)
    return request
