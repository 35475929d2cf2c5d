"""Whether a filing may be made, and on which terms.

What an application says is checked in the order in which it can be mended: the kind and the place,
who files, the first day, the referral, then the channel and the material. That the person was
admitted at home first is never asked (医保发〔2022〕22号 三（二）).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.diseases import category
from services.filing.domain.evidence import MaterialMissing, given_by, judge
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingKind,
    FilingState,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)
from services.filing.domain.places import Place, inside
from services.filing.domain.validity import last_day

CLASSES = {
    InsuranceType.EMPLOYEE: frozenset(
        {
            PersonClass.EMPLOYED,
            PersonClass.RETIRED,
            PersonClass.SELF_EMPLOYED,
            PersonClass.BANKRUPT_UNIT,
        }
    ),
    InsuranceType.RESIDENT: frozenset(
        {
            PersonClass.ADULT_RESIDENT,
            PersonClass.ELDERLY_RESIDENT,
            PersonClass.MINOR_OR_STUDENT,
        }
    ),
}
"""The person classes of each insurance."""
MONTHS_AHEAD = 12
"""How long before its first day a filing may be made: later nobody knows what he applied for."""
_HOSPITAL = re.compile(r"H\d{11}")
"""National code of a 定点医疗机构: its county and a number (药店 begin with P)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The facts of a filing that somebody applies for; the channel and material stand beside it."""

    kind: FilingKind
    insurance: InsuranceType
    person_class: PersonClass | None
    """None for a class that this version does not know."""
    place: Place
    start: date
    day: date
    """The day of filing."""
    referral_institution: str = ""
    disease_code: str = ""
    earlier: Filing | None = None
    """Of a referral for the same disease or a second transfer: the referral before, of the same
    person."""


@dataclass(frozen=True, slots=True)
class NotEligible:
    """The rules refuse it; `cause` is plain Chinese without a full stop."""

    cause: str


@dataclass(frozen=True, slots=True)
class PlaceUnknown:
    """The directory lists no such place."""

    place: str


@dataclass(frozen=True, slots=True)
class ChannelNotAllowed:
    """The kind is not taken through this channel."""

    channel: FilingChannel
    allowed: frozenset[FilingChannel]


Denied = NotEligible | PlaceUnknown
"""Why the rules have no such filing, however it is applied for."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How the filing is made."""

    end_date: date | None
    """Its last day; None is without end."""
    commitment: CommitmentState
    state: FilingState
    """ACCEPTED at once, or PENDING for a review."""
    handling_days: int
    """Working days for the review; 0 when there is none."""
    referral_institution: str
    """Who referred: of a renewed referral the institution that referred first."""
    disease_code: str


def place_denied(place: Place, rules: AreaRules) -> Denied | None:
    """Why nobody of the area files to this place, or None."""
    if inside(place.code, rules.area):
        return NotEligible("备案地在参保统筹区内，统筹区内就医无需备案")
    if not place.known:
        return PlaceUnknown(place.code)
    if place.whole_province and place.code not in rules.province_places[()].value:
        return NotEligible("应备案到就医的地市，此地不能只备案到省")
    return None


def denied(wanted: Wanted, rules: AreaRules) -> Denied | None:
    """Why there can be no such filing, or None: all that does not depend on how it is applied for,
    so it holds for one taken over from another system too."""
    if wanted.kind is FilingKind.EMERGENCY:
        return NotEligible("异地急诊抢救视同已备案，无需办理备案")
    found = place_denied(wanted.place, rules)
    if found is not None:
        return found
    cause = (
        _person(wanted, rules)
        or _days(wanted, rules)
        or (_referral(wanted, rules) if wanted.kind is FilingKind.REFERRAL else None)
    )
    return NotEligible(cause) if cause else None


def permit(
    wanted: Wanted, channel: FilingChannel, materials: frozenset[Material], rules: AreaRules
) -> Terms | Denied | ChannelNotAllowed | MaterialMissing:
    """The terms of a filing applied for, or why it is not made."""
    found = denied(wanted, rules)
    if found is not None:
        return found
    key = (wanted.kind, wanted.place.route)
    allowed = rules.channels[key].value
    if channel not in allowed:
        return ChannelNotAllowed(channel, allowed)
    given = given_by(channel, materials)
    if wanted.earlier is not None:
        # 同种疾病继续治疗或再次转外就医: the certificate of the first referral still serves.
        given |= {Material.REFERRAL_CERTIFICATE}
    commitment = judge(rules.evidence[key].value, given)
    if isinstance(commitment, MaterialMissing):
        return commitment
    days = rules.handling_days[wanted.kind, channel].value
    first = wanted.earlier or wanted
    return Terms(
        end_date=last_day(wanted.start, rules.validity_months[key].value),
        commitment=commitment,
        state=FilingState.PENDING if days else FilingState.ACCEPTED,
        handling_days=days,
        referral_institution=first.referral_institution,
        disease_code=wanted.disease_code or first.disease_code,
    )


def _person(wanted: Wanted, rules: AreaRules) -> str | None:
    stated = rules.person_classes[wanted.kind, wanted.insurance]
    anybody = stated.value >= CLASSES[wanted.insurance]
    if anybody or wanted.person_class in stated.value:
        return None
    return f"该人员类别不符合条件（{stated.citation}）"


def _days(wanted: Wanted, rules: AreaRules) -> str | None:
    latest = last_day(wanted.day, MONTHS_AHEAD)
    assert latest is not None
    if wanted.start > latest:
        return f"开始日期最多晚于备案日期{MONTHS_AHEAD}个月"
    limit = rules.back_dating_days[wanted.kind, wanted.place.route]
    if limit.value is not None and wanted.start < wanted.day - timedelta(days=limit.value):
        return f"开始日期最多早于备案日期{limit.value}天（{limit.citation}）"
    return None


def _referral(wanted: Wanted, rules: AreaRules) -> str | None:
    if wanted.earlier is not None:
        return _renewal(wanted, wanted.earlier, rules)
    if not wanted.referral_institution:
        return "异地转诊备案须填写转出医疗机构"
    stated = rules.referrals[(wanted.place.route,)]
    if accepts_referral(rules, wanted.place.route, wanted.referral_institution):
        return None
    return f"转出机构{wanted.referral_institution}不是参保地规定的转诊机构（{stated.citation}）"


def accepts_referral(rules: AreaRules, route: Route, institution: str) -> bool:
    """Whether the area takes a referral by this institution: one that it names, or any other
    hospital of the area where it says so."""
    referrals = rules.referrals[(route,)].value
    if institution in referrals.named:
        return True
    local = _HOSPITAL.fullmatch(institution) is not None and inside(institution[1:7], rules.area)
    return referrals.others_accepted and local


def _renewal(wanted: Wanted, earlier: Filing, rules: AreaRules) -> str | None:
    """Why `earlier` is no referral that this one continues (医保发〔2022〕22号 三（二））."""
    if earlier.kind is not FilingKind.REFERRAL or not earlier.counts:
        return "原备案不是有效的转诊备案"
    if (earlier.insured_area, earlier.insurance) != (rules.area, wanted.insurance):
        return "原转诊备案不属于现在的参保关系"
    if wanted.start < earlier.start_date:
        return "开始日期早于原转诊备案"
    if (
        wanted.disease_code
        and earlier.disease_code
        and category(wanted.disease_code) != category(earlier.disease_code)
    ):
        return "与原转诊备案不是同一种疾病，须重新转诊"
    return None
