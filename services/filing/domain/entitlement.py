"""On what basis a visit is entitled and at which level the insured area pays.

In order: somebody else is liable → refused; not at the chosen institution where that is asked →
refused; inside the pooling area → local; a filing covers the visit; emergency → deemed filed; the
area asks for no filing; only the account pays; the area pays unfiled care; otherwise refused, with
the near miss that helps the patient most. At one place the filings go long-term, referral,
emergency, other temporary, and the last yields to an emergency of the visit. 规程 is the annex of
医保发〔2022〕22号, 基本医疗保险跨省异地就医直接结算经办规程.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from services.filing.domain.area_rules import AreaRules, Provenance, Stated
from services.filing.domain.covering import Match, during, lacking, match
from services.filing.domain.facts import (
    BenefitClass,
    CareType,
    CommitmentState,
    Filing,
    FilingBasis,
    FilingKind,
    FilingState,
    Route,
    Visit,
)
from services.filing.domain.near_misses import NearMiss, near_miss
from services.filing.domain.reasons import EntitlementReason, Given
from services.filing.domain.validity import last_day


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The visit is entitled; `filing` is the one that says so, if any."""

    basis: FilingBasis
    benefit_class: BenefitClass
    reasons: tuple[Given, ...]
    """The deciding one first."""
    filing: Filing | None = None

    @property
    def late_filing(self) -> bool:
        """Whether the filing was made after the visit began (补办备案)."""
        return any(reason.code is EntitlementReason.LATE_FILING for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class ThirdPartyLiable:
    """An injury that somebody else has to pay for (规程 第三十五条)."""


@dataclass(frozen=True, slots=True)
class InstitutionNotChosen:
    """The visit must be at one of these institutions (codes in order)."""

    chosen: tuple[str, ...]


Refused = ThirdPartyLiable | InstitutionNotChosen | NearMiss


def resolve(
    visit: Visit, filings: Iterable[Filing], rules: AreaRules, day: date
) -> Entitlement | Refused:
    """Decide one visit as of `day`, the business day of the decision.

    `filings` are all of the person, in any order, those of a former area or another insurance
    included; what was filed after `day` or refused says nothing. Where sample values may not grant
    anything, `rules` come from `services.filing.domain.samples.without_samples`.
    """
    if visit.third_party_liable:
        return ThirdPartyLiable()
    binding = _binding(visit, rules)
    if isinstance(binding, InstitutionNotChosen):
        return binding
    known = [one for one in filings if one.filed_on <= day and one.state is not FilingState.REFUSED]
    if visit.route is Route.LOCAL:
        return _at_home(visit, known, rules)
    outcome = _elsewhere(visit, known, rules)
    if binding is not None and isinstance(outcome, Entitlement):
        return replace(outcome, reasons=(*outcome.reasons, binding))
    return outcome


def _binding(visit: Visit, rules: AreaRules) -> InstitutionNotChosen | Given | None:
    """Whether the patient is held to an institution, or is elsewhere because nobody is.

    Only where the person has one and the visit's is known; never in an emergency.
    """
    match visit.care_type:
        case CareType.OUTPATIENT:
            chosen = frozenset({visit.contracted_institution} - {""})
            free = EntitlementReason.NOT_BOUND_OUTPATIENT
        case CareType.CHRONIC:
            chosen = visit.chosen_institutions
            free = EntitlementReason.NOT_BOUND_CHRONIC
        case _:
            return None
    if not chosen or visit.institution in chosen | {""} or visit.emergency:
        return None
    bound = rules.bound_to_institution[visit.care_type, visit.route]
    if bound.value:
        return InstitutionNotChosen(tuple(sorted(chosen)))
    return Given(free, bound.citation)


def _at_home(visit: Visit, known: list[Filing], rules: AreaRules) -> Entitlement:
    """Local level, or that of a long-term resident who comes back (两地双向享受待遇)."""
    away = [one for one in known if one.kind.long_term and not during(one, visit)]
    if not away:
        return Entitlement(FilingBasis.LOCAL, BenefitClass.LOCAL, (Given(EntitlementReason.LOCAL),))
    filing = min(away, key=lambda one: _preference(one, visit, rules))
    stated = rules.back_home[visit.insurance,]
    months = stated.value.promised_months
    if filing.commitment is CommitmentState.PROMISED and months is not None:
        until = last_day(filing.start_date, months) if months else None
        if until is None or visit.start < until:
            reason = Given(
                EntitlementReason.BACK_HOME_PROMISED, stated.citation, filing.care_place, until
            )
            level = stated.value.promised_class
            return Entitlement(FilingBasis.LOCAL, level, _told([reason], filing, visit), filing)
    reason = Given(EntitlementReason.BACK_HOME, _own(stated), filing.care_place)
    level = BenefitClass.LONG_TERM_BACK_HOME
    return Entitlement(FilingBasis.LOCAL, level, _told([reason], filing, visit), filing)


def _elsewhere(visit: Visit, known: list[Filing], rules: AreaRules) -> Entitlement | Refused:
    lacks = [(one, lacking(one, visit, rules)) for one in known]
    best = min(
        (one for one, lack in lacks if not lack),
        key=lambda one: _preference(one, visit, rules),
        default=None,
    )
    if best is not None and (best.kind is not FilingKind.OTHER_TEMPORARY or not visit.emergency):
        return _filed(best, visit, known, rules)
    if visit.emergency:
        code = (
            EntitlementReason.DEEMED_EMERGENCY
            if best is None
            else EntitlementReason.EMERGENCY_OVER_TEMPORARY
        )
        return Entitlement(FilingBasis.DEEMED_EMERGENCY, BenefitClass.EMERGENCY, (Given(code),))
    return _without_filing(visit, rules) or near_miss(visit, lacks)


def _preference(
    filing: Filing, visit: Visit, rules: AreaRules
) -> tuple[int, bool, bool, bool, int, str]:
    """The filing best for the patient first; then the surer, then the newer one."""
    order = (FilingKind.REFERRAL, FilingKind.EMERGENCY, FilingKind.OTHER_TEMPORARY)
    return (
        0 if filing.kind.long_term else 1 + order.index(filing.kind),
        not _is_named(filing, visit, rules),
        filing.commitment is CommitmentState.PROMISED,
        filing.filed_on > visit.start,
        -filing.start_date.toordinal(),
        filing.filing_id,
    )


def _is_named(filing: Filing, visit: Visit, rules: AreaRules) -> bool:
    """Whether it is a referral by an institution that the area names; there is none at home."""
    return (
        filing.kind is FilingKind.REFERRAL
        and filing.referral_institution in rules.referrals[visit.route,].value.named
    )


def _filed(filing: Filing, visit: Visit, known: list[Filing], rules: AreaRules) -> Entitlement:
    reasons: list[Given] = []
    if filing.kind.long_term:
        level = BenefitClass.LONG_TERM_AT_PLACE
        reasons.append(Given(EntitlementReason.LONG_TERM_AT_PLACE, place=filing.care_place))
    elif filing.kind is FilingKind.REFERRAL:
        stated = rules.referrals[visit.route,]
        if _is_named(filing, visit, rules):
            level = BenefitClass.REFERRAL_NAMED
            code, citation = EntitlementReason.REFERRAL_NAMED, stated.citation
        else:
            level = BenefitClass.REFERRAL
            code, citation = EntitlementReason.REFERRAL, _own(stated)
        reasons.append(Given(code, citation, filing.care_place))
        homes = [one.care_place for one in known if one.kind.long_term and not during(one, visit)]
        if homes:
            reasons.append(Given(EntitlementReason.LONG_TERM_REFERRED, place=min(homes)))
    elif filing.kind is FilingKind.EMERGENCY:
        level = BenefitClass.EMERGENCY
        reasons.append(Given(EntitlementReason.EMERGENCY_FILED, place=filing.care_place))
    else:
        level = BenefitClass.OTHER_TEMPORARY
        reasons.append(Given(EntitlementReason.OTHER_TEMPORARY, place=filing.care_place))
    how = match(filing, visit, rules)
    if how is Match.PROVINCE:
        reasons.append(Given(EntitlementReason.FILED_TO_PROVINCE, place=visit.care_area))
    elif how is Match.LINKED:
        citation = rules.linked_places[()].citation
        reasons.append(Given(EntitlementReason.LINKED_PLACE, citation, visit.care_area))
    return Entitlement(FilingBasis.FILED, level, _told(reasons, filing, visit), filing)


def _told(reasons: list[Given], filing: Filing, visit: Visit) -> tuple[Given, ...]:
    """The reasons, and what else a clerk must know of the filing that decided."""
    told = list(reasons)
    if filing.filed_on > visit.start:
        told.append(Given(EntitlementReason.LATE_FILING, day=filing.filed_on))
    if filing.end_date is not None and filing.end_date < visit.end:
        code = (
            EntitlementReason.FILING_ENDED_SINCE
            if filing.state is FilingState.ENDED
            else EntitlementReason.ADMITTED_WITHIN_VALIDITY
        )
        told.append(Given(code, day=filing.end_date))
    if (
        filing.commitment is CommitmentState.PROMISED
        and told[0].code is not EntitlementReason.BACK_HOME_PROMISED
    ):
        told.append(Given(EntitlementReason.PROMISE_OPEN))
    return tuple(told)


def _without_filing(visit: Visit, rules: AreaRules) -> Entitlement | None:
    exemption = rules.exemption[visit.insurance,]
    if visit.route in exemption.value.routes:
        code = (
            EntitlementReason.EXEMPT_IN_PROVINCE
            if visit.route is Route.IN_PROVINCE
            else EntitlementReason.EXEMPT_PAIR
        )
    elif not exemption.value.places.isdisjoint({visit.care_area, visit.care_site}):
        code = EntitlementReason.EXEMPT_PAIR
    else:
        return _unfiled(visit, rules)
    return Entitlement(
        FilingBasis.EXEMPT,
        exemption.value.benefit_class,
        (Given(code, exemption.citation, visit.care_area),),
    )


def _unfiled(visit: Visit, rules: AreaRules) -> Entitlement | None:
    account = rules.account_without_filing[visit.insurance, visit.care_type]
    if visit.use_account and account.value:
        return Entitlement(
            FilingBasis.ACCOUNT_ONLY,
            BenefitClass.OTHER_TEMPORARY,
            (Given(EntitlementReason.ACCOUNT_ONLY, account.citation),),
        )
    unfiled = rules.unfiled_class[visit.route, visit.insurance, visit.care_type]
    if unfiled.value is not None:
        return Entitlement(
            FilingBasis.NONE,
            unfiled.value,
            (Given(EntitlementReason.UNFILED_LEVEL, unfiled.citation),),
        )
    return None


def _own(stated: Stated[Any]) -> str:
    """The area's rule where it speaks for itself; else the national clause of the contract."""
    return "" if stated.provenance is Provenance.ILLUSTRATIVE else stated.citation
