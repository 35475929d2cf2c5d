"""The facts that rules may depend on: one definition for rows, cases and the completeness check.

Names are the wire spelling of the contract's enums. A row names the values for which it holds
(`levels: [three]`, `ages: "50-59"`); what it does not name does not matter to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

ROUTES = {"local": "统筹区内", "in_province": "省内异地", "cross_province": "跨省异地"}
BENEFIT_CLASSES = {
    "local": "本地待遇",
    "long_term_at_place": "长期备案地",
    "long_term_back_home": "长期备案人员回参保地",
    "referral": "转诊",
    "referral_named": "指定机构转诊",
    "emergency": "急诊抢救",
    "other_temporary": "其他临时外出",
}
CARE_TYPES = {
    "outpatient": "普通门诊",
    "emergency": "急诊",
    "chronic": "门诊慢特病",
    "inpatient": "普通住院",
    "injury_inpatient": "外伤住院",
    "pharmacy": "药店购药",
}
PERSON_CLASSES = {
    "employed": "在职",
    "retired": "退休",
    "adult_resident": "居民（成年）",
    "elderly_resident": "居民（老年）",
    "minor_or_student": "学生儿童",
    "self_employed": "灵活就业",
    "bankrupt_unit": "破产企业职工",
}
LEVELS = {
    "one": "一级及以下",
    "two": "二级",
    "three": "三级",
    "other": "其他",
    "unrated": "未定级",
}
GRADES = {
    "three_special": "三级特等",
    "three_a": "三级甲等",
    "three_b": "三级乙等",
    "three_c": "三级丙等",
    "two_a": "二级甲等",
    "two_b": "二级乙等",
    "two_c": "二级丙等",
    "one_a": "一级甲等",
    "one_b": "一级乙等",
    "one_c": "一级丙等",
    "none": "无等级",
    "three": "三级",
    "two": "二级",
    "one": "一级",
}
KINDS = {"general": "综合及其他", "tcm": "中医医疗机构", "community": "社区卫生服务机构"}
AIDS = {
    "none": "非救助对象",
    "subsistence": "低保对象",
    "destitute": "特困人员",
    "returning_poor": "返贫致贫人口",
    "marginal": "低保边缘家庭成员",
}
BASES = {
    "filed": "已备案",
    "deemed_emergency": "急诊视同备案",
    "exempt": "免备案",
    "account_only": "仅个人账户",
    "local": "统筹区内",
}
INSURANCES = {"employee": "职工基本医疗保险", "resident": "城乡居民基本医疗保险"}
INSURANCE_CODES = {"employee": "310", "resident": "390"}
PERSONS_OF_INSURANCE = {
    "employee": ("employed", "retired", "self_employed", "bankrupt_unit"),
    "resident": ("adult_resident", "elderly_resident", "minor_or_student"),
}
MAX_AGE, MAX_COUNT = 150, 100
OTHER = "other"
"""In `diseases` and `places`: whatever no row of the same table names."""


class Kind(Enum):
    """How the values of a dimension are written and compared."""

    CHOICE = "choice"
    FLAG = "flag"
    SPAN = "span"
    DISEASE = "disease"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One fact: its key in rows, where a case holds it, its values."""

    key: str
    fact: str
    kind: Kind
    title: str
    values: Mapping[str, str] | None = None
    first: int = 0
    last: int = 0
    """Of a SPAN."""


DIMENSIONS = {
    each.key: each
    for each in (
        Dimension("care_types", "care_type", Kind.CHOICE, "医疗类别", CARE_TYPES),
        Dimension("routes", "route", Kind.CHOICE, "就医路径", ROUTES),
        Dimension("classes", "benefit_class", Kind.CHOICE, "待遇类别", BENEFIT_CLASSES),
        Dimension("persons", "person_class", Kind.CHOICE, "人员类别", PERSON_CLASSES),
        Dimension("levels", "settlement_level", Kind.CHOICE, "机构级别", LEVELS),
        Dimension("grades", "grade", Kind.CHOICE, "医院等级", GRADES),
        Dimension("kinds", "institution_kind", Kind.CHOICE, "机构类别", KINDS),
        Dimension("aids", "aid", Kind.CHOICE, "救助类别", AIDS),
        Dimension("ages", "age", Kind.SPAN, "年龄", first=0, last=MAX_AGE),
        Dimension("stays", "stay", Kind.SPAN, "年度内第几次住院", first=1, last=MAX_COUNT),
        Dimension(
            "temporaries", "temporary", Kind.SPAN, "年度内第几次临时外出", first=1, last=MAX_COUNT
        ),
        Dimension("civil_servant", "civil_servant", Kind.FLAG, "公务员"),
        Dimension("settled_directly", "settled_directly", Kind.FLAG, "直接结算"),
        Dimension("late_filing", "late_filing", Kind.FLAG, "补办备案"),
        Dimension("unfiled", "unfiled", Kind.FLAG, "未备案"),
        Dimension("diseases", "disease", Kind.DISEASE, "病种"),
        Dimension("places", "care_area", Kind.PLACE, "就医地"),
    )
}
"""By the key that rows use. `levels` means the deductible level in a deductible, else the
settlement level."""


def reachable(route: str, benefit_class: str) -> bool:
    """Whether a visit can come by this route with this class: the others need no row."""
    if benefit_class == "local":
        # A visit in another area may be exempt from filing and then counts as local.
        return True
    if benefit_class == "long_term_back_home":
        return route == "local"
    return route != "local"


def possible(route: str, benefit_class: str) -> bool:
    """Whether a visit may be asked about: beside the reachable ones, that of a long-term resident
    who has only promised the material and comes back home too soon, whom some areas treat as one
    who is elsewhere (filing decides it). A document without a row for it answers NOT_STATED."""
    return reachable(route, benefit_class) or (route, benefit_class) == ("local", "other_temporary")


def class_code(disease: str) -> str:
    """The class that a disease code belongs to: M00503 → M00500 (国家医保门诊慢特病编码)."""
    return f"{disease[:4]}00"


def titles(key: str, values: Iterable[str]) -> str:
    """Values of a dimension in Chinese, for sentences."""
    known = DIMENSIONS[key].values or {}
    return "、".join(known.get(value, value) for value in values)
