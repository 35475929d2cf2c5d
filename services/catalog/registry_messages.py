"""Institutions and mappings between the contract and the domain."""

from __future__ import annotations

from datetime import date

from infra.runtime.days import parse_day
from services.catalog.domain.institution import (
    InstitutionGrade,
    InstitutionKind,
    OpenedDisease,
    Registration,
    Route,
    Service,
)
from services.catalog.domain.item import Level, ListType
from services.catalog.domain.mapping import MappingState, day_before
from services.catalog.domain.registering import RegistrationRefused
from services.catalog.domain.reviewing import Standing, Submitted
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2

SERVICES = {
    registry_pb2.INSTITUTION_SERVICE_INPATIENT: Service.INPATIENT,
    registry_pb2.INSTITUTION_SERVICE_OUTPATIENT: Service.OUTPATIENT,
    registry_pb2.INSTITUTION_SERVICE_CHRONIC: Service.CHRONIC,
    registry_pb2.INSTITUTION_SERVICE_PHARMACY: Service.PHARMACY,
}


def registration(record: registry_pb2.InstitutionRecord) -> Registration:
    """Raises `RegistrationRefused` for a route named twice, and `Refusal` (DAY_INVALID)."""
    networked: dict[Route, frozenset[Service]] = {}
    for one in record.networked:
        if Route(one.route) in networked:
            raise RegistrationRefused(f"{record.code} 的联网范围中有一类写了两次")
        networked[Route(one.route)] = frozenset(SERVICES[service] for service in one.services)
    return Registration(
        code=record.code,
        name=record.name,
        kind=InstitutionKind(record.kind),
        area=record.area,
        grade=InstitutionGrade(record.grade),
        deductible_level=Level(record.deductible_level),
        price_limit_level=Level(record.price_limit_level),
        settlement_level=Level(record.settlement_level),
        networked=networked,
        diseases=tuple(
            OpenedDisease(
                one.disease_code,
                parse_day(one.start_date, "diseases.start_date"),
                _last_day(one.end_date, "diseases.end_date"),
            )
            for one in record.diseases
        ),
        agreement_start=(
            parse_day(record.agreement_start_date, "agreement_start_date")
            if record.agreement_start_date
            else date.min
        ),
        agreement_end=_last_day(record.agreement_end_date, "agreement_end_date"),
        suspended=record.suspended,
        place=record.place,
        effective_from=parse_day(record.start_date, "start_date"),
    )


def institution_record(one: Registration) -> registry_pb2.InstitutionRecord:
    numbers = {service: number for number, service in SERVICES.items()}
    return registry_pb2.InstitutionRecord(
        code=one.code,
        name=one.name,
        kind=registry_pb2.InstitutionKind.ValueType(one.kind),
        area=one.area,
        grade=types_pb2.InstitutionGrade.ValueType(one.grade),
        deductible_level=_level(one.deductible_level),
        price_limit_level=_level(one.price_limit_level),
        settlement_level=_level(one.settlement_level),
        networked=[
            registry_pb2.RouteServices(
                route=types_pb2.Route.ValueType(route),
                services=sorted(numbers[service] for service in services),
            )
            for route, services in sorted(one.networked.items())
            if services
        ],
        diseases=[
            registry_pb2.OpenedDisease(
                disease_code=each.code,
                start_date=each.first_day.isoformat(),
                end_date=_end(each.last_day),
            )
            for each in one.diseases
        ],
        agreement_start_date=_start(one.agreement_start),
        agreement_end_date=_end(one.agreement_end),
        suspended=one.suspended,
        place=one.place,
        start_date=one.effective_from.isoformat(),
    )


def submitted(mapping: registry_pb2.ItemMapping) -> Submitted:
    """Raises `Refusal` (DAY_INVALID)."""
    return Submitted(
        item_code=mapping.item_code,
        item_name=mapping.item_name,
        list_type=ListType(mapping.list_type) if mapping.list_type else None,
        national_code=mapping.national_code,
        first_day=parse_day(mapping.start_date, "mappings.start_date"),
        last_day=_last_day(mapping.end_date, "mappings.end_date"),
    )


def mapping_record(one: Standing) -> registry_pb2.MappingRecord:
    """As recorded; a withdrawn mapping that counted ends on the day before it was withdrawn."""
    said, last_day = one.submitted, one.submitted.last_day
    if one.withdrawn_from is not None and one.withdrawn_from > said.first_day:
        last_day = min(last_day, day_before(one.withdrawn_from))
    record = registry_pb2.MappingRecord(
        mapping_id=one.id,
        institution=one.institution,
        mapping=registry_pb2.ItemMapping(
            item_code=said.item_code,
            item_name=said.item_name,
            list_type=types_pb2.ListType.ValueType(said.list_type or 0),
            national_code=said.national_code,
            start_date=_start(said.first_day),
            end_date=_end(last_day),
        ),
        state=registry_pb2.MappingState.ValueType(one.state),
        reason=one.reason,
    )
    if one.state is MappingState.WITHDRAWN and one.withdrawn_from is not None:
        record.reason = f"自 {one.withdrawn_from} 起撤销"
    record.state_time.FromDatetime(one.at)
    return record


def _last_day(text: str, field: str) -> date:
    return parse_day(text, field) if text else date.max


def _start(day: date) -> str:
    return "" if day == date.min else day.isoformat()


def _end(day: date) -> str:
    return "" if day == date.max else day.isoformat()


def _level(level: Level) -> types_pb2.InstitutionLevel.ValueType:
    return types_pb2.InstitutionLevel.ValueType(level)
