"""What a rule of the fee audit at the door (智能审核) says, as data.

A rule selects lines by what they charge and holds them against one condition. Rules are written in
files (`services.catalog.audit_rules`); the same code with other days is a later wording of the
same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from infra.runtime.id_number import Sex
from services.catalog.domain.institution import CareType, InstitutionGrade, InstitutionKind
from services.catalog.domain.item import FeeCategory, Level, ListType


class Action(IntEnum):
    """What a finding means for the bill, numbered as in the contract."""

    WARN = 1
    REFUSE = 2


@dataclass(frozen=True, slots=True)
class Selector:
    """Lines that any one of these names; a line without a national code is never selected."""

    codes: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    """Beginnings of national codes."""
    fee_categories: frozenset[FeeCategory] = frozenset()
    list_types: frozenset[ListType] = frozenset()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """重复收费: one item at one price on one day, in two lines or beyond a quantity."""

    most_e4: int | None
    """Quantity that a day may have, 1/10,000; None: a second line is one too many."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """超频次: more than `most_e4` (1/10,000) within `days` days on end, or in the bill."""

    most_e4: int
    days: int | None
    """None: in the whole bill."""
    together: bool
    """Whether all selected items count as one; else each code by itself."""


@dataclass(frozen=True, slots=True)
class OnlySex:
    """限性别: for patients of one sex."""

    sex: Sex


@dataclass(frozen=True, slots=True)
class Ages:
    """限年龄: for patients of these full years (周岁) on the day of the charge, both included."""

    youngest: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Places:
    """限机构: for institutions of these grades, levels and kinds; an empty set is any."""

    grades: frozenset[InstitutionGrade]
    levels: frozenset[Level]
    """限价医院等级."""
    kinds: frozenset[InstitutionKind]


@dataclass(frozen=True, slots=True)
class Exclusive:
    """互斥收费: not on one day with what `against` selects."""

    against: Selector


@dataclass(frozen=True, slots=True)
class CareTypes:
    """限就医方式: for these care types."""

    care_types: frozenset[CareType]


Condition = Duplicate | Frequency | OnlySex | Ages | Places | Exclusive | CareTypes
PLACEHOLDERS: dict[type[Condition], frozenset[str]] = {
    Duplicate: frozenset({"items", "day", "count"}),
    Frequency: frozenset({"items", "day", "count", "most"}),
    OnlySex: frozenset({"items"}),
    Ages: frozenset({"items"}),
    Places: frozenset({"items"}),
    Exclusive: frozenset({"items", "others", "day"}),
    CareTypes: frozenset({"items"}),
}
"""What a message may name: items (and `others`, those they exclude), day or days, quantities.
Never the patient's sex or age: findings are kept, and the patient's facts are not."""


@dataclass(frozen=True, slots=True)
class AuditRule:
    """One rule, in force for charges from `first_day` to `last_day`, both included."""

    code: str
    name: str
    action: Action
    selector: Selector
    condition: Condition
    message: str
    """Template: what is wrong and what to do, plain Chinese."""
    source: str
    """Document and clause; begins with 示例 when nothing official says so."""
    first_day: date = date.min
    last_day: date = date.max
