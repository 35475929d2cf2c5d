"""Entitlement for callers: visits parsed, filings read in one statement, decisions worded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infra.runtime.coalesce import Bounds, Coalescer
from infra.runtime.errors import Refusal
from services.filing import wording
from services.filing.asking import day_of, rules_of
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.entitlement import Entitlement, resolve
from services.filing.domain.facts import (
    Answer,
    CareType,
    EmergencyReferral,
    Filing,
    InpatientType,
    InsuranceType,
    Route,
    Visit,
)
from services.filing.domain.samples import granting
from services.filing.store import FilingStore
from yidi.filing.v1 import filing_pb2

# By table: the constructors of enums are slow, and this is the hottest path of the service.
_ROUTES = {int(one): one for one in Route}
_INSURANCES = {int(one): one for one in InsuranceType}
_CARE_TYPES = {int(one): one for one in CareType}
_INPATIENT_TYPES = {int(one): one for one in InpatientType}
_FLAGS = {int(one): one for one in EmergencyReferral}
_ANSWERS = {int(one): one for one in Answer}

_SHARED = Bounds(in_flight=1, turns=8)
"""A look-up is over before the next call is read: without waiting for more none would share it."""


class Consulting:
    """Decides on visits of the site's own participants; nothing is remembered between calls."""

    def __init__(
        self,
        *,
        store: FilingStore,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
        allow_illustrative: bool,
    ) -> None:
        """`rules`: area → rules; `area_names`: code → name, for sentences.

        Without `allow_illustrative` no sample value entitles anybody to anything.
        """
        self._store = store
        self._look_ups = Coalescer[str, Sequence[Filing]](
            self._look_up, key=str, size=lambda _: 1, bounds=_SHARED
        )
        self._rules = granting(rules, allow_illustrative)
        self._area_names = area_names

    async def resolve(
        self, items: Sequence[filing_pb2.ResolveEntitlementItem]
    ) -> list[filing_pb2.ResolveEntitlementResult]:
        """One result per item, in order, from one SELECT for all people; calls about one person
        that come at the same time share theirs."""
        people = {item.person_id for item in items}
        if len(people) == 1:
            (person,) = people
            filings: Mapping[str, Sequence[Filing]] = {person: await self._look_ups.submit(person)}
        else:
            filings = await self._store.of_people(people) if people else {}
        return [self._result(item, filings.get(item.person_id, ())) for item in items]

    async def _look_up(self, people: list[str]) -> Mapping[str, Sequence[Filing]]:
        filings = await self._store.of_people(set(people))
        return {person: filings.get(person, ()) for person in people}

    def _result(
        self, item: filing_pb2.ResolveEntitlementItem, filings: Sequence[Filing]
    ) -> filing_pb2.ResolveEntitlementResult:
        try:
            visit = _visit(item)
            rules = rules_of(self._rules, visit.insured_area, visit.end)
            outcome = resolve(visit, filings, rules, day_of(item.day, "day"))
            if not isinstance(outcome, Entitlement):
                raise wording.refusal(outcome, visit, self._area_names)
        except Refusal as refusal:
            return filing_pb2.ResolveEntitlementResult(id=item.id, error=refusal.status())
        answer = wording.entitlement(outcome, self._area_names)
        return filing_pb2.ResolveEntitlementResult(id=item.id, entitlement=answer)


def _visit(item: filing_pb2.ResolveEntitlementItem) -> Visit:
    visit = item.visit
    return Visit(
        route=_ROUTES[item.route],
        care_area=visit.care_area,
        care_site=item.care_site,
        insured_area=visit.insured_area,
        insurance=_INSURANCES[visit.insurance],
        care_type=_CARE_TYPES[visit.care_type],
        start=day_of(visit.start_date, "visit.start_date"),
        end=day_of(visit.end_date, "visit.end_date"),
        inpatient_type=_INPATIENT_TYPES[visit.inpatient_type],
        emergency_referral=_FLAGS[visit.emergency_referral],
        injury=_ANSWERS[visit.injury],
        third_party=_ANSWERS[visit.third_party],
        use_account=visit.use_account,
        disease_code=visit.disease_code,
        diagnosis_codes=tuple(visit.diagnosis_codes),
        institution=item.institution,
        insured_since=day_of(item.insured_since, "insured_since") if item.insured_since else None,
        contracted_institution=item.contracted_institution,
        chosen_institutions=frozenset(item.chosen_institutions),
    )
