"""Whether a filing may be made."""

from __future__ import annotations

from datetime import date, timedelta

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.facts import FilingKind, PersonClass


def obstacle(
    rules: AreaRules,
    *,
    kind: FilingKind,
    person_class: PersonClass | None,
    care_place: str,
    start: date,
    filed_on: date,
    referral_institution: str,
) -> str | None:
    """Why the filing may not be made, a Chinese clause for FILING_NOT_ELIGIBLE, or None.

    `person_class` is None when it is one that this version does not know.
    """
    if kind is FilingKind.EMERGENCY:
        return "异地急诊抢救视同已备案，无需办理备案"
    if inside(care_place, rules.area):
        return "备案地在参保统筹区内，统筹区内就医无需备案"
    if care_place.endswith("0000") and care_place not in rules.province_places.value:
        return "应备案到就医的地市，此地不能只备案到省"
    if kind is FilingKind.REFERRAL and not referral_institution:
        return "异地转诊备案须填写转出医疗机构"
    allowed = rules.person_classes.get(kind)
    if allowed is not None and person_class not in allowed.value:
        return f"该人员类别不符合条件（{allowed.citation}）"
    limit = rules.back_dating_days[kind]
    if limit.value is not None and start < filed_on - timedelta(days=limit.value):
        return f"开始日期最多早于备案日期{limit.value}天（{limit.citation}）"
    return None


def inside(place: str, area: str) -> bool:
    """Whether `place` is the pooling area itself or a county of it.

    County codes extend their area's (GB/T 2260). Used only to refuse a needless filing.
    """
    prefix = area[:2] if area.endswith("0000") else area[:4] if area.endswith("00") else area
    return place.startswith(prefix)
