"""What a change asked for makes of a person's filings: the rules of `domain`, read and worded.

Everything here is decided from memory, on all filings of the person and the day of the clock; each
method returns the steps to write, or raises the `Refusal` that says why nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from infra.runtime.clock import Clock, business_day, new_id
from infra.runtime.days import add_working_days
from infra.runtime.errors import Reason, Refusal
from services.filing import messages
from services.filing.asking import day_of, person_class, rules_of
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.changing import Asking, beside, given_up, left, seen
from services.filing.domain.channels import Family, family
from services.filing.domain.evidence import given_by
from services.filing.domain.facts import (
    Filing,
    FilingChannel,
    FilingKind,
    FilingState,
    InsuranceType,
    Material,
)
from services.filing.domain.life import FilingAction, Step
from services.filing.domain.permitted import ChannelNotAllowed, Terms, Wanted, permit
from services.filing.domain.reviewing import reviewed, supplemented
from services.filing.domain.standing import of_relation
from services.filing.places import Places
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import desk_pb2

_FOR_PATIENTS = Family.NATIONAL.channels
"""Channels through which an institution files on behalf of a patient."""


@dataclass(frozen=True, slots=True)
class Case:
    """Who asks for whom."""

    person: enrollment_pb2.Participant
    institution: str
    """The institution that asks; empty for the agency."""


@dataclass(frozen=True, slots=True)
class _Relation:
    """The insured relation that a filing belongs to, on the day of the clock."""

    area: str
    insurance: InsuranceType
    rules: AreaRules
    day: date
    filings: Sequence[Filing]


class Deciding:
    """Decides one change at a time."""

    def __init__(
        self,
        *,
        clock: Clock,
        places: Places,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
    ) -> None:
        """`rules`: area → rules; `area_names`: code → name, for sentences."""
        self._clock = clock
        self._places = places
        self._rules = rules
        self._names = area_names

    def application(
        self,
        case: Case,
        asked: desk_pb2.Application,
        filings: Sequence[Filing],
        _costs: bool,
    ) -> list[Step]:
        """备案申请: a filing accepted at once, or waiting for review."""
        relation = self._relation(case, filings)
        channel = FilingChannel(asked.channel)
        uploads = asked.referral_institution == case.institution
        self._check_institution(case, channel, own_referral=uploads)
        if case.institution and asked.referral_institution and not uploads:
            # A referral is its hospital's: nobody else may say that there was one.
            raise Refusal(
                Reason.ERROR_REASON_FOREIGN_CODE,
                field="application.referral_institution",
                value=asked.referral_institution,
            )
        earlier = None
        if asked.earlier_filing:
            found = next(
                (one for one in relation.filings if one.filing_id == asked.earlier_filing), None
            )
            if found is None:
                raise Refusal(Reason.ERROR_REASON_FILING_NOT_FOUND, filing=asked.earlier_filing)
            earlier = found
        wanted = Wanted(
            kind=FilingKind(asked.kind),
            insurance=relation.insurance,
            person_class=person_class(case.person.person_class),
            place=self._places.find(asked.care_place, relation.area),
            start=_day_or(asked.start_date, relation.day),
            day=relation.day,
            referral_institution=asked.referral_institution,
            disease_code=asked.disease_code,
            earlier=earlier,
        )
        filing = self._new(relation, wanted, channel, _materials(asked.materials))
        self._check_beside(filing, relation)
        return [Step(filing, FilingAction.APPLY, channel)]

    def supplement(
        self,
        case: Case,
        asked: desk_pb2.Supplement,
        filings: Sequence[Filing],
        _costs: bool,
    ) -> list[Step]:
        """补充材料: a promise is made good once the material suffices."""
        relation = self._relation(case, filings)
        filing = self._seen(relation, case, asked)
        asking = self._asking(filing, relation, asked.channel, costs=False)
        evidence = relation.rules.evidence[filing.kind, asking.route].value
        step = supplemented(filing, _materials(asked.materials), evidence, asking)
        return [self._step(step)]

    def change(
        self, case: Case, asked: desk_pb2.Change, filings: Sequence[Filing], costs: bool
    ) -> list[Step]:
        """变更: the filing ends and another replaces it, accepted at once; or it goes home."""
        relation = self._relation(case, filings)
        filing = self._seen(relation, case, asked)
        asking = self._asking(filing, relation, asked.channel, costs=costs)
        first = _day_or(asked.start_date, relation.day)
        place = self._places.find(asked.care_place, relation.area)
        home = place.code == relation.area
        action = FilingAction.GO_HOME if home else FilingAction.CHANGE
        ended = self._step(left(filing, action, first, relation.rules, asking))
        if home:
            return [ended]
        wanted = Wanted(
            kind=filing.kind,
            insurance=filing.insurance,
            person_class=person_class(case.person.person_class),
            place=place,
            start=first,
            day=relation.day,
            referral_institution=filing.referral_institution,
            disease_code=filing.disease_code,
            earlier=filing if filing.kind is FilingKind.REFERRAL else None,
        )
        new = replace(
            self._new(relation, wanted, asking.channel, _materials(asked.materials)),
            state=FilingState.ACCEPTED,
            due_date=None,
            replaces=filing.filing_id,
        )
        self._check_beside(new, relation)
        return [ended, Step(new, FilingAction.APPLY, asking.channel)]

    def cancellation(
        self, case: Case, asked: desk_pb2.Cancellation, filings: Sequence[Filing], costs: bool
    ) -> list[Step]:
        """取消 without a last day, 终止 with one."""
        relation = self._relation(case, filings)
        filing = self._seen(relation, case, asked)
        asking = self._asking(filing, relation, asked.channel, costs=costs)
        last = day_of(asked.last_day, "last_day") if asked.last_day else None
        return [self._step(given_up(filing, last, asked.cause, relation.rules, asking))]

    def review(
        self, asked: desk_pb2.ReviewFilingRequest, filings: Sequence[Filing], _costs: bool
    ) -> list[Step]:
        """审核: what waits is accepted or refused."""
        filing = seen(filings, asked.filing_id, asked.version)
        if not isinstance(filing, Filing):
            raise messages.refusal(filing, self._names)
        return [self._step(reviewed(filing, asked.accepted, asked.cause, self._today()))]

    def _relation(self, case: Case, filings: Sequence[Filing]) -> _Relation:
        """What was filed under a former relation is out of reach: it covers nothing any more."""
        person, day = case.person, self._today()
        insurance = InsuranceType(person.insurance)
        since = day_of(person.insured_since, "insured_since") if person.insured_since else None
        return _Relation(
            area=person.insured_area,
            insurance=insurance,
            rules=rules_of(self._rules, person.insured_area, day),
            day=day,
            filings=of_relation(filings, person.insured_area, insurance, since),
        )

    def _seen(
        self,
        relation: _Relation,
        case: Case,
        asked: desk_pb2.Supplement | desk_pb2.Change | desk_pb2.Cancellation,
    ) -> Filing:
        found = seen(relation.filings, asked.filing_id, asked.version)
        if not isinstance(found, Filing):
            raise messages.refusal(found, self._names)
        uploads = found.referral_institution == case.institution
        self._check_institution(case, FilingChannel(asked.channel), own_referral=uploads)
        return found

    def _asking(self, filing: Filing, relation: _Relation, channel: int, *, costs: bool) -> Asking:
        return Asking(
            channel=FilingChannel(channel),
            day=relation.day,
            route=self._places.route(filing.care_place, relation.area),
            costs=costs,
        )

    def _new(
        self,
        relation: _Relation,
        wanted: Wanted,
        channel: FilingChannel,
        materials: frozenset[Material],
    ) -> Filing:
        terms = permit(wanted, channel, materials, relation.rules)
        if not isinstance(terms, Terms):
            raise messages.refusal(terms, self._names)
        waits = terms.state is FilingState.PENDING
        return Filing(
            filing_id=new_id(self._clock),
            insured_area=relation.area,
            insurance=wanted.insurance,
            kind=wanted.kind,
            channel=channel,
            care_place=wanted.place.code,
            start_date=wanted.start,
            end_date=terms.end_date,
            filed_on=wanted.day,
            referral_institution=terms.referral_institution,
            commitment=terms.commitment,
            state=terms.state,
            disease_code=terms.disease_code,
            materials=given_by(channel, materials),
            due_date=add_working_days(wanted.day, terms.handling_days) if waits else None,
        )

    def _check_beside(self, filing: Filing, relation: _Relation) -> None:
        overlapping = beside(filing, relation.filings, relation.day)
        if overlapping is not None:
            raise messages.refusal(overlapping, self._names)

    def _check_institution(self, case: Case, channel: FilingChannel, *, own_referral: bool) -> None:
        """An institution speaks for a patient nationally, and uploads only its own referrals."""
        if not case.institution or channel in _FOR_PATIENTS:
            return
        if family(channel) is Family.HOSPITAL and own_referral:
            return
        uploads = Family.HOSPITAL.channels if own_referral else frozenset[FilingChannel]()
        denied = ChannelNotAllowed(channel, _FOR_PATIENTS | uploads)
        raise messages.refusal(denied, self._names)

    def _step(self, step: Step | messages.Denied) -> Step:
        if not isinstance(step, Step):
            raise messages.refusal(step, self._names)
        return step

    def _today(self) -> date:
        return business_day(self._clock.now_ms())


def _day_or(text: str, day: date) -> date:
    return day_of(text, "start_date") if text else day


def _materials(numbers: Sequence[int]) -> frozenset[Material]:
    return frozenset(map(Material, numbers))
