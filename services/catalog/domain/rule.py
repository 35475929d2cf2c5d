"""How items of the same terms are paid, for one insurance type.

A rule is made once, with its Chinese reasons, so that splitting a line only compares, multiplies
and picks a text. What depends on the price limit of one item is worded by the line that is over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from infra.runtime.money import percent
from services.catalog.domain.item import (
    WHOLE_BASIS_POINTS,
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ListType,
)
from services.catalog.domain.mapping import MappingState
from services.catalog.domain.texts import yuan_of_micro

NO_LIMIT = 1 << 62
"""Above every price and quantity that the contract admits."""


class SplitRule(IntEnum):
    """What decided a part of a line, numbered as in the contract."""

    UNMAPPED = 1
    MAPPING_NOT_APPROVED = 2
    UNLISTED = 3
    OUT_OF_FORCE = 4
    SELF_PAID = 5
    NOT_APPROVED = 6
    DISAPPROVED = 7
    OVER_DAY_QUANTITY = 8
    OVER_VISIT_QUANTITY = 9
    FOREIGN_PREPARATION = 10
    OVER_PRICE = 11
    FIRST_SELF_PAY = 12
    BANDED_SELF_PAY = 13
    IN_SCOPE = 14
    REFUND = 15


@dataclass(frozen=True, slots=True)
class Terms:
    """What many items of a list have in common: all that decides their parts but price limits."""

    list_type: ListType
    catalog_class: CatalogClass
    fee_category: FeeCategory
    first_self_pay_bp: tuple[int, ...]
    """In the order of `InsuranceType`."""
    bands: tuple[tuple[int | None, tuple[int, ...]], ...]
    """Upper end of each band of the unit price, micro-yuan, and its shares."""
    limited_use: str
    day_limit_e4: int | None
    visit_limit_e4: int | None
    preparing_institution: str


def terms_of(item: Item) -> Terms:
    """The terms of `item`."""
    return Terms(
        item.list_type,
        item.catalog_class,
        item.fee_category,
        tuple(item.first_self_pay_bp[each] for each in InsuranceType),
        tuple(map(_ends_and_shares, item.bands)),
        item.limited_use,
        item.day_limit_e4,
        item.visit_limit_e4,
        item.preparing_institution,
    )


def _ends_and_shares(band: Band) -> tuple[int | None, tuple[int, ...]]:
    return band.up_to_micro_yuan, tuple(band.first_self_pay_bp[each] for each in InsuranceType)


class Verdict(NamedTuple):
    """Why a whole line is full self-pay."""

    rules: tuple[SplitRule, ...]
    reason: str


class Share(NamedTuple):
    """First self-pay of what is within the limits, for unit prices up to `up_to_micro_yuan`."""

    up_to_micro_yuan: int
    first_self_pay_bp: int
    rules: tuple[SplitRule, ...]
    reason: str
    rest: str
    """The reason of what is left when a limit takes its part."""
    over_rules: tuple[SplitRule, ...]
    """`rules` where the price limit takes its part."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What lines of these terms come to, step by step."""

    terms: Terms
    letter: str
    """甲类 or 乙类."""
    verdicts: tuple[Verdict | None, ...]
    """By hospital_approved (not given, no, yes): the verdict on the whole line, if there is one."""
    preparing_institution: str
    """The only institution that may charge it, or empty."""
    foreign: Verdict
    """Of any other institution's line."""
    limited: bool
    """Whether lines share a quantity of a day or a visit."""
    day_limit_e4: int
    visit_limit_e4: int
    share: Share | None
    """The one share; None where bands of the unit price decide."""
    bands: tuple[Share, ...]
    """Cheapest first, the last without end."""

    def share_of(self, unit_price_micro_yuan: int) -> Share:
        """The share of the band that the charged unit price falls in."""
        for band in self.bands:
            if unit_price_micro_yuan <= band.up_to_micro_yuan:
                return band
        raise AssertionError("the last band has no end")


UNMAPPED = Verdict((SplitRule.UNMAPPED,), "机构项目未对照国家医保编码，全额自费")
UNLISTED = Verdict((SplitRule.UNLISTED,), "编码不在就医地医保目录内，全额自费")
OUT_OF_FORCE = Verdict((SplitRule.OUT_OF_FORCE,), "项目在收费日期不在医保目录有效期内，全额自费")
_SELF_PAID = Verdict((SplitRule.SELF_PAID,), "自费项目，不在医保支付范围")
_MAPPING = (SplitRule.MAPPING_NOT_APPROVED,)
MAPPING_NOT_APPROVED: Mapping[MappingState | None, Verdict] = {
    None: Verdict(_MAPPING, "机构项目的目录对照在收费日期未生效，全额自费"),
    MappingState.PENDING: Verdict(_MAPPING, "机构项目的目录对照待审核，全额自费"),
    MappingState.REFUSED: Verdict(_MAPPING, "机构项目的目录对照审核不通过，全额自费"),
    MappingState.WITHDRAWN: Verdict(_MAPPING, "机构项目的目录对照已撤销，全额自费"),
}


def rule_of(terms: Terms, insurance: InsuranceType) -> Rule:
    """The rule of `terms` (DOMAIN: 乙类先行自付, 超限价, 限定支付范围, 限量)."""
    which = tuple(InsuranceType).index(insurance)
    restriction = f"限定支付范围：{terms.limited_use}；" if terms.limited_use else ""
    approved = "；限定支付范围，医院已审批" if terms.limited_use else ""
    letter = "甲类" if terms.catalog_class is CatalogClass.A else "乙类"
    bands = _bands(terms, which, letter, approved)
    if terms.catalog_class is CatalogClass.SELF_PAID:
        verdicts: tuple[Verdict | None, ...] = (_SELF_PAID,) * 3
    else:
        no = Verdict((SplitRule.DISAPPROVED,), f"{restriction}医院审批不通过，全额自费")
        not_given = Verdict((SplitRule.NOT_APPROVED,), f"{restriction}未经医院审批，全额自费")
        verdicts = (not_given if restriction else None, no, None)
    return Rule(
        terms=terms,
        letter=letter,
        verdicts=verdicts,
        preparing_institution=""
        if terms.catalog_class is CatalogClass.SELF_PAID
        else terms.preparing_institution,
        foreign=Verdict(
            (SplitRule.FOREIGN_PREPARATION,),
            f"医疗机构制剂，只在医药机构{terms.preparing_institution}使用时支付，全额自费",
        ),
        limited=terms.day_limit_e4 is not None or terms.visit_limit_e4 is not None,
        day_limit_e4=NO_LIMIT if terms.day_limit_e4 is None else terms.day_limit_e4,
        visit_limit_e4=NO_LIMIT if terms.visit_limit_e4 is None else terms.visit_limit_e4,
        share=None
        if bands
        else _share(
            NO_LIMIT,
            terms.first_self_pay_bp[which],
            SplitRule.FIRST_SELF_PAY,
            letter,
            approved,
        ),
        bands=bands,
    )


def _bands(terms: Terms, which: int, letter: str, approved: str) -> tuple[Share, ...]:
    found: list[Share] = []
    above: int | None = None
    for up_to, shares in terms.bands:
        ends = [
            "" if above is None else f"{yuan_of_micro(above)}元以上",
            "" if up_to is None else f"{yuan_of_micro(up_to)}元及以下",
        ]
        band = f"（单价{'至'.join(filter(None, ends))}）" if any(ends) else ""
        end = NO_LIMIT if up_to is None else up_to
        found.append(
            _share(end, shares[which], SplitRule.BANDED_SELF_PAY, letter, f"{band}{approved}")
        )
        above = up_to
    return tuple(found)


def _share(up_to: int, share: int, rule: SplitRule, letter: str, remark: str) -> Share:
    part = share < WHOLE_BASIS_POINTS
    rest = "纳入医保范围"
    if share:
        rest = f"先行自付{percent(share)}{f'后{rest}' if part else ''}"
    rules = (*((rule,) if share else ()), *((SplitRule.IN_SCOPE,) if part else ()))
    return Share(
        up_to_micro_yuan=up_to,
        first_self_pay_bp=share,
        rules=rules,
        reason=f"{letter}，{'' if share else '全额'}{rest}{remark}",
        rest=f"{rest}{remark}",
        over_rules=(SplitRule.OVER_PRICE, *rules),
    )
