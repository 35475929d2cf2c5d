"""One item of a care place's list: a drug, a service or a consumable, for a range of days.

The enumerations are numbered as in the contract (`yidi.common.v1`); a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from itertools import pairwise

WHOLE_BASIS_POINTS = 10_000
LONGEST_NAME = 200
"""Characters of a name or a restriction: both travel in fields that the contract bounds."""
MOST_BANDS = 10


class ListType(IntEnum):
    """目录类别 (list_type)."""

    DRUG = 1
    HERBAL_PIECES = 2
    PREPARATION = 3
    ETHNIC_DRUG = 4
    OTHER = 5
    GRANULES = 6
    SERVICE = 7
    CONSUMABLE = 8


class CatalogClass(IntEnum):
    """收费项目等级 (chrgitm_lv)."""

    A = 1
    B = 2
    SELF_PAID = 3


class FeeCategory(IntEnum):
    """医疗收费项目类别 (med_chrgitm_type), the national 大类费用."""

    BED = 1
    CONSULTATION = 2
    EXAMINATION = 3
    LABORATORY = 4
    TREATMENT = 5
    SURGERY = 6
    NURSING = 7
    MATERIAL = 8
    WESTERN_DRUG = 9
    HERBAL_PIECES = 10
    CHINESE_PATENT_DRUG = 11
    GENERAL_TREATMENT = 12
    REGISTRATION = 13
    OTHER = 14


class InsuranceType(IntEnum):
    """险种类型 (insutype): 310 employees, 390 residents."""

    EMPLOYEE = 1
    RESIDENT = 2


class Level(IntEnum):
    """Level of an institution for one purpose (lmtpric_hosp_lv and its like)."""

    ONE = 1
    TWO = 2
    THREE = 3
    OTHER = 4
    UNRATED = 5


class ItemInvalid(ValueError):
    """The item contradicts itself; the text says how, in plain Chinese, `column` where."""

    def __init__(self, column: str, cause: str) -> None:
        self.column = column
        self.cause = cause
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class Band:
    """First self-pay of unit prices up to `up_to_micro_yuan` (included; None: without end),
    basis points by insurance type (selfpay_prop_type 30)."""

    up_to_micro_yuan: int | None
    first_self_pay_bp: Mapping[InsuranceType, int]


@dataclass(frozen=True, slots=True)
class Item:
    """What a list says of one national code from `effective_from` to `effective_to`.

    Both days are included. Price limits (医保支付标准/限价) are micro-yuan by the institution's
    price-limit level; a level without an entry has no limit. `limited_use` is the text of the
    restriction (限定支付范围), empty for an unrestricted item. `bands`, cheapest first, replace
    `first_self_pay_bp`: the band that the charged unit price falls in gives the share of the whole
    line. Quantity limits are 1/10,000, None for none. `preparing_institution` is the only one that
    may charge a preparation. Raises `ItemInvalid`.
    """

    national_code: str
    name: str
    list_type: ListType
    catalog_class: CatalogClass
    fee_category: FeeCategory
    first_self_pay_bp: Mapping[InsuranceType, int]
    limits_micro_yuan: Mapping[Level, int]
    limited_use: str
    effective_from: date
    effective_to: date = date.max
    bands: tuple[Band, ...] = ()
    day_limit_e4: int | None = None
    visit_limit_e4: int | None = None
    dosage_form: str = ""
    specification: str = ""
    unit: str = ""
    negotiated: bool = False
    centrally_purchased: bool = False
    preparing_institution: str = ""

    def __post_init__(self) -> None:
        shares = [self.first_self_pay_bp.get(insurance) for insurance in InsuranceType]
        banded = [
            band.first_self_pay_bp.get(insurance)
            for band in self.bands
            for insurance in InsuranceType
        ]
        if not self.national_code:
            raise ItemInvalid("national_code", "缺少国家医保编码")
        if not self.name:
            raise ItemInvalid("name", "缺少名称")
        if len(self.name) > LONGEST_NAME:
            raise ItemInvalid("name", f"名称超过 {LONGEST_NAME} 个字")
        if len(self.limited_use) > LONGEST_NAME:
            raise ItemInvalid("limited_use", f"限定支付范围超过 {LONGEST_NAME} 个字")
        if any(
            share is None or not 0 <= share <= WHOLE_BASIS_POINTS for share in (*shares, *banded)
        ):
            raise ItemInvalid("first_self_pay", "先行自付比例应为 0% 至 100%，每个险种各一")
        if self.catalog_class is not CatalogClass.B and any((*shares, *banded)):
            raise ItemInvalid("first_self_pay", "只有乙类项目有先行自付比例")
        if self.bands:
            self._check_bands(any(shares))
        if any(limit < 0 for limit in self.limits_micro_yuan.values()):
            raise ItemInvalid("limit", "限价不得为负数")
        if any(limit is not None and limit <= 0 for limit in self._quantity_limits):
            raise ItemInvalid("quantity_limit", "限量应大于零")
        if self.preparing_institution and self.list_type is not ListType.PREPARATION:
            raise ItemInvalid("preparing_institution", "只有医疗机构制剂限于一家机构")
        if self.effective_to < self.effective_from:
            raise ItemInvalid("effective_to", "结束日期早于开始日期")

    @property
    def _quantity_limits(self) -> tuple[int | None, int | None]:
        return (self.day_limit_e4, self.visit_limit_e4)

    def _check_bands(self, shared: bool) -> None:
        ends = [band.up_to_micro_yuan for band in self.bands]
        if len(ends) > MOST_BANDS:
            raise ItemInvalid("bands", f"价格分段超过 {MOST_BANDS} 段")
        if shared:
            raise ItemInvalid("bands", "有价格分段的项目不另设先行自付比例")
        if ends[-1] is not None:
            raise ItemInvalid("bands", "最后一段不设价格上限")
        for lower, upper in pairwise(ends[:-1]):
            if lower is None or upper is None or upper <= lower:
                raise ItemInvalid("bands", "价格分段应由低到高，且只有最后一段不设上限")
        if any(end is None for end in ends[:-1]):
            raise ItemInvalid("bands", "价格分段应由低到高，且只有最后一段不设上限")
