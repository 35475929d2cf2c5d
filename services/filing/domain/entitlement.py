"""On what basis a visit is entitled and at which level the insured area pays.

In order: somebody else is liable → refused; inside the pooling area → local; a filing covers the
visit; emergency → deemed filed; the area asks for no filing; only the account pays; otherwise
refused, with the reason that helps the patient most. 规程 is the annex of 医保发〔2022〕22号,
基本医疗保险跨省异地就医直接结算经办规程.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.facts import (
    BenefitClass,
    CommitmentState,
    Filing,
    FilingBasis,
    FilingKind,
    InsuranceType,
    Route,
    Visit,
)
from services.filing.domain.validity import last_day

NOTICE = "医保发〔2022〕22号"
PROCEDURE = "基本医疗保险跨省异地就医直接结算经办规程（医保发〔2022〕22号附件）"


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The visit is entitled; `filing` is the one that says so, if any."""

    basis: FilingBasis
    benefit_class: BenefitClass
    reason: str
    clause: str
    filing: Filing | None = None
    late_filing: bool = False


@dataclass(frozen=True, slots=True)
class ThirdPartyLiable:
    """An injury that somebody else has to pay for."""


@dataclass(frozen=True, slots=True)
class FilingRequired:
    """Nothing entitles the visit."""


@dataclass(frozen=True, slots=True)
class FilingExpired:
    """The filing to this place ended before the visit began."""

    expired: date


@dataclass(frozen=True, slots=True)
class FilingPlaceMismatch:
    """The person has filed, to other places."""

    filed: tuple[str, ...]


Refused = ThirdPartyLiable | FilingRequired | FilingExpired | FilingPlaceMismatch


def resolve(
    visit: Visit, filings: Iterable[Filing], rules: AreaRules, day: date
) -> Entitlement | Refused:
    """Decide one visit as of `day`, the business day of the decision.

    `filings` are all of the person; those of another area or insurance, or made after `day`, say
    nothing here.
    """
    if visit.third_party_liable:
        return ThirdPartyLiable()
    known = [
        filing
        for filing in filings
        if filing.insured_area == visit.insured_area
        and filing.insurance is visit.insurance
        and filing.filed_on <= day
    ]
    if visit.route is Route.LOCAL:
        return _at_home(visit, known, rules)
    here = [filing for filing in known if _covers_place(filing, visit, rules)]
    covering = [filing for filing in here if _covers_time(filing, visit)]
    best = min(covering, key=lambda filing: _preference(filing, visit, rules), default=None)
    if best is not None and (best.kind is not FilingKind.OTHER_TEMPORARY or not visit.emergency):
        return _filed(best, visit, rules)
    if visit.emergency:
        return Entitlement(
            FilingBasis.DEEMED_EMERGENCY,
            BenefitClass.EMERGENCY,
            "就医地上传急诊标志，视同已备案",
            f"{PROCEDURE} 第三十四条",
        )
    return _without_filing(visit, rules) or _refused(visit, known, here)


def _at_home(visit: Visit, known: list[Filing], rules: AreaRules) -> Entitlement:
    """Local level, or that of a long-term resident who comes back (两地双向享受待遇)."""
    away = [
        filing
        for filing in known
        if filing.kind.long_term
        and filing.start_date <= visit.start
        and (filing.end_date is None or visit.start <= filing.end_date)
    ]
    if not away:
        return Entitlement(
            FilingBasis.LOCAL,
            BenefitClass.LOCAL,
            "在参保统筹区内就医，无需备案",
            f"{NOTICE} 二",
        )
    latest = max(away, key=lambda filing: (filing.start_date, filing.filing_id))
    months = rules.promised_back_home_months
    if latest.commitment is CommitmentState.PROMISED and months.value is not None:
        until = last_day(latest.start_date, months.value)
        if until is not None and visit.start < until:
            return Entitlement(
                FilingBasis.LOCAL,
                BenefitClass.OTHER_TEMPORARY,
                f"长期备案不满{months.value}个月且仅有个人承诺，回参保地按临时外出待遇",
                months.citation,
                latest,
                latest.filed_on > visit.start,
            )
    return Entitlement(
        FilingBasis.LOCAL,
        BenefitClass.LONG_TERM_BACK_HOME,
        "异地长期备案人员备案有效期内回参保地就医",
        f"{NOTICE} 二（五）",
        latest,
        latest.filed_on > visit.start,
    )


def _covers_place(filing: Filing, visit: Visit, rules: AreaRules) -> bool:
    """Filed to the care area, or to its whole province where that is done (规程 第十一条)."""
    return filing.care_place == visit.care_area or (
        filing.care_place == visit.care_site and filing.care_place in rules.province_places.value
    )


def _covers_time(filing: Filing, visit: Visit) -> bool:
    """Begun by discharge, not ended at admission.

    Who is admitted within the validity is settled after it too (规程 第十二条); who files between
    admission and settlement as well (补办备案, 规程 第十六条).
    """
    return filing.start_date <= visit.end and (
        filing.end_date is None or visit.start <= filing.end_date
    )


def _preference(
    filing: Filing, visit: Visit, rules: AreaRules
) -> tuple[int, bool, bool, bool, int, str]:
    """The filing best for the patient first; then the surer, then the newer one."""
    order = (FilingKind.REFERRAL, FilingKind.EMERGENCY, FilingKind.OTHER_TEMPORARY)
    return (
        0 if filing.kind.long_term else 1 + order.index(filing.kind),
        filing.referral_institution not in rules.named_institutions.value,
        filing.commitment is CommitmentState.PROMISED,
        filing.filed_on > visit.start,
        -filing.start_date.toordinal(),
        filing.filing_id,
    )


def _filed(filing: Filing, visit: Visit, rules: AreaRules) -> Entitlement:
    benefit_class, reason, clause = _level(filing, rules)
    late = filing.filed_on > visit.start
    if late:
        reason += "；入院后、结算前补办备案"
        clause += f"；{PROCEDURE} 第十六条"
    if filing.end_date is not None and filing.end_date < visit.end:
        reason += "；备案有效期内入院，有效期满后出院照常结算"
        clause += f"；{PROCEDURE} 第十二条"
    return Entitlement(FilingBasis.FILED, benefit_class, reason, clause, filing, late)


def _level(filing: Filing, rules: AreaRules) -> tuple[BenefitClass, str, str]:
    if filing.kind.long_term:
        return BenefitClass.LONG_TERM_AT_PLACE, "异地长期备案，在备案地就医", f"{NOTICE} 二（五）"
    if filing.kind is FilingKind.REFERRAL:
        named = rules.named_institutions
        if filing.referral_institution in named.value:
            return BenefitClass.REFERRAL_NAMED, "经参保地指定医疗机构转诊", named.citation
        return BenefitClass.REFERRAL, "异地转诊备案", f"{NOTICE} 二"
    if filing.kind is FilingKind.EMERGENCY:
        return BenefitClass.EMERGENCY, "异地急诊抢救备案", f"{PROCEDURE} 第三十四条"
    return BenefitClass.OTHER_TEMPORARY, "其他临时外出就医备案", f"{NOTICE} 二"


def _without_filing(visit: Visit, rules: AreaRules) -> Entitlement | None:
    if visit.route in rules.exempt_routes.value:
        return Entitlement(
            FilingBasis.EXEMPT,
            BenefitClass.OTHER_TEMPORARY,
            "参保地规定此类临时外出就医无需备案",
            rules.exempt_routes.citation,
        )
    if (
        visit.use_account
        and visit.insurance is InsuranceType.EMPLOYEE
        and visit.care_type in rules.account_without_filing.value
    ):
        return Entitlement(
            FilingBasis.ACCOUNT_ONLY,
            BenefitClass.OTHER_TEMPORARY,
            "未备案，只可使用个人账户支付",
            rules.account_without_filing.citation,
        )
    return None


def _refused(visit: Visit, known: list[Filing], here: list[Filing]) -> Refused:
    ended = [
        filing.end_date
        for filing in here
        if filing.end_date is not None and filing.end_date < visit.start
    ]
    if ended:
        return FilingExpired(max(ended))
    # Those that cover the time cannot be `here`: the visit would be entitled.
    elsewhere = {filing.care_place for filing in known if _covers_time(filing, visit)}
    return FilingPlaceMismatch(tuple(sorted(elsewhere))) if elsewhere else FilingRequired()
