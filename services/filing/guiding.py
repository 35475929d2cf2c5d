"""What an area asks for, put to the contract."""

from __future__ import annotations

from collections.abc import Mapping

from infra.runtime.clock import Clock, business_day
from infra.runtime.directory import Directory
from infra.runtime.types import chinese
from services.filing.asking import person_class, rules_of
from services.filing.domain.area_rules import AreaRules, Provenance
from services.filing.domain.facts import CareType, FilingKind, InsuranceType, PersonClass
from services.filing.domain.guidance import KindGuidance, guide
from services.filing.domain.samples import granting
from services.filing.places import Places
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

_PROVENANCE = {
    Provenance.OFFICIAL: types_pb2.PROVENANCE_OFFICIAL,
    Provenance.SECONDARY: types_pb2.PROVENANCE_SECONDARY,
    Provenance.ILLUSTRATIVE: types_pb2.PROVENANCE_ILLUSTRATIVE,
}


class Guiding:
    """Tells what an area asks for."""

    def __init__(
        self,
        *,
        clock: Clock,
        directory: Directory,
        places: Places,
        rules: Mapping[str, AreaRules],
        allow_illustrative: bool,
    ) -> None:
        """Without `allow_illustrative` no exemption that is a sample is told."""
        self._clock = clock
        self._directory = directory
        self._places = places
        self._rules = granting(rules, allow_illustrative)

    def guidance(
        self,
        question: desk_pb2.GuidanceQuestion,
        person: enrollment_pb2.Participant | None = None,
        care_type: CareType = CareType.INPATIENT,
    ) -> desk_pb2.Guidance:
        """The kinds that may be filed to the place, of a person only what that one may file.

        `care_type`: of the bill. Raises `Refusal` (POLICY_NOT_FOUND, AREA_UNKNOWN).
        """
        area = self._directory.place(question.insured_area).area
        found = guide(
            self._places.find(question.care_place, area),
            InsuranceType(question.insurance),
            rules_of(self._rules, area, business_day(self._clock.now_ms())),
            _class_name,
            kind=FilingKind(question.kind) if question.kind else None,
            person_class=person_class(person.person_class) if person else None,
            care_type=care_type,
        )
        return desk_pb2.Guidance(
            area_name=found.area_name,
            kinds=map(_kind, found.kinds),
            exemption=found.exemption,
            telephone=found.telephone,
            office=found.office,
            manual_claim=found.manual_claim,
        )


def _kind(one: KindGuidance) -> desk_pb2.KindGuidance:
    return desk_pb2.KindGuidance(
        kind=types_pb2.FilingKind.ValueType(one.kind),
        eligible=one.eligible,
        channels=[types_pb2.FilingChannel.ValueType(each) for each in one.channels],
        required=[filing_pb2.Material.ValueType(each) for each in one.required],
        any_of=[filing_pb2.Material.ValueType(each) for each in one.any_of],
        promise=one.promise,
        validity=one.validity,
        late_filing=one.late_filing,
        lock_in=one.lock_in,
        handling=one.handling,
        sources=[
            desk_pb2.GuidanceSource(citation=citation, provenance=_PROVENANCE[provenance])
            for citation, provenance in one.sources
        ],
    )


def _class_name(one: PersonClass) -> str:
    return chinese(types_pb2.PersonClass.DESCRIPTOR, one)
