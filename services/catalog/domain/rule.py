"""How one item is paid, for one insurance type at one price-limit level.

A rule is made once per catalogue version, with its Chinese reasons, so that splitting a line only
compares, multiplies and picks a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from infra.runtime.money import percent
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, Level
from services.catalog.domain.texts import yuan_of_micro

NO_LIMIT = 1 << 62
"""Above every price that the contract admits (10^15 micro-yuan)."""

_LEVELS = {
    Level.ONE: "一级及以下机构",
    Level.TWO: "二级机构",
    Level.THREE: "三级机构",
    Level.OTHER: "其他机构",
    Level.UNRATED: "未定级机构",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a line of one national code comes to on the days `first_day` to `last_day`."""

    national_code: str
    name: str
    catalog_class: CatalogClass
    fee_category: FeeCategory
    covered: bool
    """False: the whole line is full self-pay."""
    restricted: bool
    """Covered only when the hospital approved the use."""
    limit_micro_yuan: int
    first_self_pay_bp: int
    reason: str
    reason_over_limit: str
    reason_not_approved: str
    first_day: date = date.min
    last_day: date = date.max


def _self_paid(
    reason: str,
    *,
    national_code: str = "",
    name: str = "",
    catalog_class: CatalogClass = CatalogClass.SELF_PAID,
    fee_category: FeeCategory = FeeCategory.OTHER,
    first_day: date = date.min,
    last_day: date = date.max,
) -> Rule:
    return Rule(
        national_code=national_code,
        name=name,
        catalog_class=catalog_class,
        fee_category=fee_category,
        covered=False,
        restricted=False,
        limit_micro_yuan=NO_LIMIT,
        first_self_pay_bp=0,
        reason=reason,
        reason_over_limit=reason,
        reason_not_approved=reason,
        first_day=first_day,
        last_day=last_day,
    )


UNMAPPED = _self_paid("机构项目未对照国家医保编码，全额自费")
UNLISTED = _self_paid("编码不在就医地医保目录内，全额自费")


def rule_of(item: Item, insurance: InsuranceType, level: Level) -> Rule:
    """The rule of `item` while it is in force (DOMAIN: 乙类先行自付, 超限价, 限定支付范围)."""
    if item.catalog_class is CatalogClass.SELF_PAID:
        return _self_paid(
            "自费项目，不在医保支付范围",
            national_code=item.national_code,
            name=item.name,
            fee_category=item.fee_category,
            first_day=item.effective_from,
            last_day=item.effective_to,
        )
    limit = item.limits_micro_yuan.get(level)
    share = item.first_self_pay_bp[insurance]
    letter = "甲类" if item.catalog_class is CatalogClass.A else "乙类"
    approved = "；限定支付范围，医院已审批" if item.limited_use else ""
    rest = f"先行自付{percent(share)}后纳入医保范围" if share else "纳入医保范围"
    limit_text = "" if limit is None else f"{_LEVELS[level]}限价{yuan_of_micro(limit)}元"
    return Rule(
        national_code=item.national_code,
        name=item.name,
        catalog_class=item.catalog_class,
        fee_category=item.fee_category,
        covered=True,
        restricted=bool(item.limited_use),
        limit_micro_yuan=NO_LIMIT if limit is None else limit,
        first_self_pay_bp=share,
        reason=f"{letter}，{rest if share else '全额纳入医保范围'}{approved}",
        reason_over_limit=f"{letter}，超过{limit_text}的部分自付，其余{rest}{approved}",
        reason_not_approved=f"限定支付范围：{item.limited_use}；未经医院审批，全额自费",
        first_day=item.effective_from,
        last_day=item.effective_to,
    )


def rule_out_of_force(item: Item) -> Rule:
    """The rule on the days on which no revision of the item is in force."""
    return _self_paid(
        "项目在收费日期不在医保目录有效期内，全额自费",
        national_code=item.national_code,
        name=item.name,
        catalog_class=item.catalog_class,
        fee_category=item.fee_category,
    )
