"""The fee audit of one bill: from the contract to the rules and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from infra.runtime.errors import Reason, Refusal
from infra.runtime.id_number import Sex
from services.catalog.domain.audit import LONGEST_MESSAGE, Auditor, Finding, refused
from services.catalog.domain.audit_bill import Facts
from services.catalog.domain.bill import BillSplit
from services.catalog.domain.catalogue import Catalogue
from services.catalog.domain.institution import CareType, Registration
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2

LINES_NAMED = 20
"""Of a finding, as the contract bounds them."""
_LINES_TOLD = 3
_LONGEST_CAUSE = 300
"""Characters that a refusal tells before it counts the rest: it travels in a trailer of 8 KiB,
three bytes a character, several times."""


def audit(
    auditor: Auditor,
    item: catalog_pb2.SplitFeesItem,
    *,
    days: tuple[date, date],
    registration: Registration,
    catalogue: Catalogue,
    split: BillSplit,
) -> tuple[Finding, ...]:
    """What the rules find in a split bill; `days` are the first and the last of its visit.

    Raises `Refusal`: FEE_AUDIT_REFUSED when a rule refuses the bill, DAY_INVALID for a birth date
    that is no day, without saying it.
    """
    patient = item.patient
    facts = Facts(
        *days,
        CareType(item.visit.care_type),
        registration,
        Sex(patient.sex) if patient.sex else None,
        _birth_date(patient.birth_date),
    )
    found = auditor.findings(item.lines, split.lines, facts, catalogue.codes)
    if refusing := refused(found):
        raise Refusal(Reason.ERROR_REASON_FEE_AUDIT_REFUSED, cause=_cause(refusing))
    return found


def fill(answer: catalog_pb2.FeeSplit, findings: Sequence[Finding]) -> None:
    """Write the findings into the answer."""
    for found in findings:
        answer.findings.add(
            rule=found.rule.code,
            action=types_pb2.AuditAction.ValueType(found.rule.action),
            line_ids=found.line_ids[:LINES_NAMED],
            message=_message(found),
        )


def _message(found: Finding) -> str:
    """The message, which counts the lines where not all of them are named."""
    if len(found.line_ids) <= LINES_NAMED:
        return found.message
    count = f"（所列明细等{len(found.line_ids)}行）"
    return found.message[: LONGEST_MESSAGE - len(count)] + count


def _birth_date(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refusal(
            Reason.ERROR_REASON_DAY_INVALID, field="bill.patient.birth_date", value="****"
        ) from None


def _cause(refusing: Sequence[Finding]) -> str:
    """The rules, their lines and what to do; at least the first of them."""
    told = ""
    for number, found in enumerate(refusing):
        message = found.message.rstrip("。")
        one = f"{message}（规则 {found.rule.code}，明细 {_lines(found)}）"
        if told and len(told) + len(one) > _LONGEST_CAUSE:
            return f"{told}；另有{len(refusing) - number}处"
        told = f"{told}；{one}" if told else one
    return told


def _lines(found: Finding) -> str:
    told = "、".join(found.line_ids[:_LINES_TOLD])
    return told if len(found.line_ids) <= _LINES_TOLD else f"{told}等{len(found.line_ids)}行"
