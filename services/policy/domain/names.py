"""The names that documents and facts use: the wire spelling of the contract's enums."""

from __future__ import annotations

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
PERSONS_OF_INSURANCE = {
    "310": ("employed", "retired", "self_employed", "bankrupt_unit"),
    "390": ("adult_resident", "elderly_resident", "minor_or_student"),
}
"""Person classes of each insurance type (national code)."""
