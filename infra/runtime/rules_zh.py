"""Validation faults in plain Chinese: rule ids of protovalidate and of the contracts."""

from __future__ import annotations

from protovalidate import Violation as Fault

from infra.runtime.errors import Violation

_TEXTS = {
    "required": "必须填写",
    "string.pattern": "格式不符合要求",
    "string.min_len": "不得少于 {value} 个字符",
    "string.max_len": "不得超过 {value} 个字符",
    "string.uuid": "必须是 UUID",
    "string.uuid_empty": "必须是 UUID",
    "bytes.len": "长度必须是 {value} 字节",
    "bytes.min_len": "不得少于 {value} 字节",
    "bytes.max_len": "不得超过 {value} 字节",
    "enum.defined_only": "不是接口规定的代码",
    "enum.not_in": "必须填写接口规定的代码",
    "int32.gte": "不得小于 {value}",
    "int64.gte": "不得小于 {value}",
    "int32.gte_lte": "超出允许的范围",
    "int64.gte_lte": "超出允许的范围",
    "int64.not_in": "不得为零",
    "repeated.min_items": "至少需要 {value} 项",
    "repeated.max_items": "最多允许 {value} 项",
    "repeated.unique": "不得重复",
    "bool.const": "只能填写 true",
    "visit.third_party": "外伤就医必须说明是否涉及第三方",
    "visit.emergency_flag": "急诊必须填写急诊住院类型或门诊急诊标志",
    "visit.disease": "门诊慢特病必须填写病种编码",
    "visit.dates": "结束日期不得早于开始日期",
    "review.cause": "审核不通过必须说明原因",
    "payload.total": "费用总额必须等于四个分项之和",
}


def describe(fault: Fault) -> Violation:
    """The path of the field, with indexes, and what is wrong with it."""
    proto = fault.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += ("." if path else "") + element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    text = _TEXTS.get(proto.rule_id)
    if text is None:
        return Violation(path, f"不符合规则 {proto.rule_id}")
    return Violation(path, text.format(value=fault.rule_value))
