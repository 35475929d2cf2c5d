"""Qualifications and participants as the contracts show them."""

from __future__ import annotations

from datetime import date

from infra.runtime.days import parse_day
from services.enrollment.domain.changing import Person, Relation
from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.masking import masked_id_number, masked_name
from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.status import runs
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2, participant_pb2


def qualification(message: enrollment_pb2.Qualification, field: str) -> Qualification:
    """The qualification of a message at `field`; raises `Refusal` (DAY_INVALID)."""
    return Qualification(
        disease=message.disease_code,
        start=parse_day(message.start_date, f"{field}.start_date"),
        end=parse_day(message.end_date, f"{field}.end_date") if message.end_date else None,
        granted_area=message.granted_area,
        chosen_institutions=tuple(message.chosen_institutions),
    )


def record(person: Person, *, name: str, id_number: str) -> participant_pb2.ParticipantRecord:
    """A person as the agency sees it on a screen: name and number masked, days inclusive."""
    relations = sorted(person.relations, key=lambda one: (one.statuses[0].start, one.area))
    credentials = sorted(
        person.credentials, key=lambda one: (one.key.type, one.replaced_on or date.max)
    )
    return participant_pb2.ParticipantRecord(
        person_id=person.person_id,
        version=person.version,
        masked_name=masked_name(name),
        masked_id_number=masked_id_number(id_number),
        relations=[_relation(one) for one in relations],
        credentials=[
            participant_pb2.CredentialRecord(
                type=types_pb2.CredentialType.ValueType(
                    0 if one.key.type is CredentialType.PERSONAL_NUMBER else one.key.type
                ),
                replaced_on=_text(one.replaced_on),
            )
            for one in credentials
        ],
        sharings=[
            participant_pb2.Sharing(
                owner_person_id=one.owner_id,
                user_person_id=one.user_id,
                start_date=one.start.isoformat(),
                end_date=_text(one.end),
            )
            for one in person.sharings
            if one.reaches(one.start)
        ],
    )


def _relation(relation: Relation) -> participant_pb2.Relation:
    return participant_pb2.Relation(
        area=relation.area,
        insurance=types_pb2.InsuranceType.ValueType(relation.insurance_type),
        person_class=types_pb2.PersonClass.ValueType(relation.person_class),
        civil_servant=relation.civil_servant,
        contracted_institution=relation.contracted_institution,
        statuses=[
            participant_pb2.StatusSpell(
                status=participant_pb2.InsuredStatus.ValueType(spell.status),
                start_date=spell.start.isoformat(),
                end_date=_text(last),
                to_area=spell.to_area,
            )
            for spell, last in runs(relation.statuses)
        ],
        qualifications=[
            enrollment_pb2.Qualification(
                disease_code=one.disease,
                start_date=one.start.isoformat(),
                end_date=_text(one.end),
                granted_area=one.granted_area,
                chosen_institutions=one.chosen_institutions,
            )
            for one in sorted(relation.qualifications, key=lambda one: (one.disease, one.start))
            if not one.void
        ],
    )


def _text(day: date | None) -> str:
    return "" if day is None else day.isoformat()
