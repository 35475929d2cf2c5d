"""One item of a care place's catalogue: a drug, a service or a consumable, for a range of days.

The enumerations are numbered as in the contract (`yidi.common.v1`); a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

WHOLE_BASIS_POINTS = 10_000
LONGEST_NAME = 200
"""Characters of a name or a restriction: both travel in fields that the contract bounds."""


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
    """The item contradicts itself; the text says how."""


@dataclass(frozen=True, slots=True)
class Item:
    """What the catalogue says of one national code from `effective_from` to `effective_to`.

    Both days are included. Price limits (医保支付标准/限价) are micro-yuan by the institution's
    price-limit level; a level without an entry has no limit. `limited_use` is the text of the
    restriction (限定支付范围), empty for an unrestricted item. Raises `ItemInvalid`.
    """

    national_code: str
    name: str
    catalog_class: CatalogClass
    fee_category: FeeCategory
    first_self_pay_bp: Mapping[InsuranceType, int]
    limits_micro_yuan: Mapping[Level, int]
    limited_use: str
    effective_from: date
    effective_to: date = date.max

    def __post_init__(self) -> None:
        shares = [self.first_self_pay_bp.get(insurance) for insurance in InsuranceType]
        if not self.national_code or not self.name:
            raise ItemInvalid("an item needs a national code and a name")
        if len(self.name) > LONGEST_NAME or len(self.limited_use) > LONGEST_NAME:
            raise ItemInvalid(f"a name or a restriction has at most {LONGEST_NAME} characters")
        if any(share is None or not 0 <= share <= WHOLE_BASIS_POINTS for share in shares):
            raise ItemInvalid("first self-pay is 0 to 100 % and given for every insurance type")
        if self.catalog_class is not CatalogClass.B and any(shares):
            raise ItemInvalid("only a 乙类 item has a first self-pay share")
        if any(limit < 0 for limit in self.limits_micro_yuan.values()):
            raise ItemInvalid("a price limit is not negative")
        if self.effective_to < self.effective_from:
            raise ItemInvalid("an item does not end before it begins")
