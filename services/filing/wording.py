"""Decisions in plain Chinese: sentences of the contract, filled with names and days."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import assert_never

from infra.runtime.errors import Reason, Refusal
from infra.runtime.types import chinese
from services.filing.domain.entitlement import (
    Entitlement,
    InstitutionNotChosen,
    Refused,
    ThirdPartyLiable,
)
from services.filing.domain.facts import Visit
from services.filing.domain.near_misses import (
    FilingCancelled,
    FilingExpired,
    FilingFormerArea,
    FilingNotStarted,
    FilingOtherInsurance,
    FilingPending,
    FilingPlaceMismatch,
    FilingReferralDisease,
    FilingRequired,
)
from services.filing.domain.reasons import EntitlementReason, Given
from yidi.common.v1 import options_pb2, types_pb2
from yidi.filing.v1 import filing_pb2

_CODES = filing_pb2.EntitlementReason
_PLACES = {
    EntitlementReason.LONG_TERM_REFERRED: "长期备案地{}",
    EntitlementReason.EXEMPT_IN_PROVINCE: "就医地{}",
    EntitlementReason.EXEMPT_PAIR: "就医地{}",
    EntitlementReason.FILED_TO_PROVINCE: "就医地{}",
    EntitlementReason.LINKED_PLACE: "就医地{}",
}
"""How a sentence names its place; all others name the place filed to."""
_DAYS = {
    EntitlementReason.BACK_HOME_PROMISED: "{}前",
    EntitlementReason.LATE_FILING: "{}备案",
    EntitlementReason.ADMITTED_WITHIN_VALIDITY: "有效期至{}",
    EntitlementReason.FILING_ENDED_SINCE: "有效至{}",
}


def entitlement(outcome: Entitlement, names: Mapping[str, str]) -> filing_pb2.Entitlement:
    """The answer; `names`: area code → name, a code without name is shown as it is."""
    places = tuple([names.get(given.place, given.place) for given in outcome.reasons])
    answer = filing_pb2.Entitlement()
    answer.CopyFrom(_reasons(outcome.reasons, places))
    answer.basis = types_pb2.FilingBasis.ValueType(outcome.basis)
    answer.benefit_class = types_pb2.BenefitClass.ValueType(outcome.benefit_class)
    answer.late_filing = outcome.late_filing
    if (filing := outcome.filing) is not None:
        answer.filing_id = filing.filing_id
        answer.filing_kind = types_pb2.FilingKind.ValueType(filing.kind)
        answer.channel = types_pb2.FilingChannel.ValueType(filing.channel)
        answer.referral_institution = filing.referral_institution
        answer.commitment = types_pb2.CommitmentState.ValueType(filing.commitment)
    return answer


def refusal(refused: Refused, visit: Visit, names: Mapping[str, str]) -> Refusal:
    """The refusal of the catalogue, with the near miss of this visit; `names` as above."""
    place = names.get(visit.care_area, visit.care_area)
    match refused:
        case ThirdPartyLiable():
            return Refusal(Reason.ERROR_REASON_THIRD_PARTY_LIABLE)
        case InstitutionNotChosen(chosen):
            return Refusal(Reason.ERROR_REASON_INSTITUTION_NOT_CHOSEN, chosen="、".join(chosen))
        case FilingRequired():
            return Refusal(Reason.ERROR_REASON_FILING_REQUIRED, place=place)
        case FilingNotStarted(start):
            return Refusal(Reason.ERROR_REASON_FILING_NOT_STARTED, place=place, start=start)
        case FilingPending(due):
            limit = due or "规定期限"
            return Refusal(Reason.ERROR_REASON_FILING_PENDING, place=place, due=limit)
        case FilingExpired(expired):
            return Refusal(Reason.ERROR_REASON_FILING_EXPIRED, place=place, expired=expired)
        case FilingCancelled(since):
            return Refusal(Reason.ERROR_REASON_FILING_CANCELLED, place=place, since=since)
        case FilingFormerArea(since):
            return Refusal(Reason.ERROR_REASON_FILING_FORMER_AREA, place=place, since=since)
        case FilingOtherInsurance(filed):
            return Refusal(
                Reason.ERROR_REASON_FILING_OTHER_INSURANCE,
                place=place,
                filed=_insurance(filed),
                insurance=_insurance(visit.insurance),
            )
        case FilingReferralDisease(disease):
            return Refusal(Reason.ERROR_REASON_FILING_REFERRAL_DISEASE, place=place, filed=disease)
        case FilingPlaceMismatch(places):
            filed_to = "、".join(names.get(code, code) for code in places)
            return Refusal(Reason.ERROR_REASON_FILING_PLACE_MISMATCH, place=place, filed=filed_to)
        case _:
            assert_never(refused)


@lru_cache(maxsize=4096)
def _reasons(given: tuple[Given, ...], places: tuple[str, ...]) -> filing_pb2.Entitlement:
    """What an entitlement says of its reasons, `places` being the names of theirs: the same for
    many visits, so it is made once and copied."""
    reasons = [_reason(one, place) for one, place in zip(given, places, strict=True)]
    return filing_pb2.Entitlement(
        reason="；".join(reason.text for reason in reasons),
        clause="；".join({reason.clause: None for reason in reasons if reason.clause}),
        reasons=reasons,
    )


def _reason(given: Given, place: str) -> filing_pb2.Reason:
    """The reason in words; `place` is the name of its place."""
    details = []
    if given.place:
        details.append(_PLACES.get(given.code, "备案地{}").format(place))
    if given.day is not None:
        details.append(_DAYS[given.code].format(given.day))
    text = chinese(_CODES.DESCRIPTOR, given.code)
    value = _CODES.DESCRIPTOR.values_by_number[given.code]
    spec = value.GetOptions().Extensions[options_pb2.reason]
    return filing_pb2.Reason(
        code=_CODES.ValueType(given.code),
        text=f"{text}（{'，'.join(details)}）" if details else text,
        clause=given.citation or spec.clause,
        next_step=spec.next_step,
    )


def _insurance(number: int) -> str:
    return chinese(types_pb2.InsuranceType.DESCRIPTOR, number)
