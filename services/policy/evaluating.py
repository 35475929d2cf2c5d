"""One case computed with one document, answered as plain data: without any server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from services.policy.cases import CaseFaults, Given, read_case
from services.policy.domain import explain
from services.policy.domain.case import Benefit, CaseFault, Counters, NotStated, Step
from services.policy.domain.chain import compute_visit
from services.policy.domain.compute import period_of
from services.policy.domain.document import Document
from services.policy.reading import opened_diseases

_ASKED = {
    "care_types": "care_type",
    "routes": "route",
    "classes": "benefit_class",
    "persons": "person.class",
    "levels": "institution.level",
    "grades": "institution.grade",
    "kinds": "institution.kind",
    "aids": "person.aid",
    "ages": "person.age",
    "civil_servant": "person.civil_servant",
    "diseases": "disease",
    "places": "care_area",
}
"""Row key → field of a case."""


def evaluate(document: Document, data: Mapping[str, Any]) -> tuple[Given, Benefit]:
    """The case as read and what it comes to; raise `CaseFaults`, or `CannotCompute` where the
    document does not decide it."""
    given = read_case(document, data)
    try:
        opened_diseases().require(given.case)
        return given, compute_visit(document, given.case, given.counters, given.balance_fen)
    except NotStated as error:
        asked = re.search(r"\((\w+)=(|-1|None)\)$", error.missing)
        if asked is None:
            raise
        text = f"is missing: {error.missing.split('(')[0]} of the document asks for it"
        field = _ASKED.get(asked[1], asked[1])
        raise CaseFaults([CaseFault("MISSING_FIELD", field, text)]) from None


def answer(document: Document, given: Given, benefit: Benefit) -> dict[str, Any]:
    """What came of a case, as plain data."""
    return {
        "deductible_fen": benefit.deductible_fen,
        "remote_first_pay_fen": benefit.remote_first_pay_fen,
        "funds": dict(sorted(benefit.funds.items())),
        "fund_total_fen": benefit.fund_total_fen,
        "account_fen": benefit.account_fen,
        "cash_fen": benefit.cash_fen,
        "ratio_self_pay_fen": benefit.ratio_self_pay_fen,
        "over_cap_fen": benefit.over_cap_fen,
        "accumulators_fen": _after(document, given, benefit),
        "trace": [_step(step) for step in benefit.steps],
        "policy": {
            "area": document.area,
            "insurance": document.written.insurance,
            "version": document.version,
            "title": document.title,
            "hash": document.hash.hex(),
            "provenance": benefit.provenance.name.lower(),
        },
    }


def _after(document: Document, given: Given, benefit: Benefit) -> dict[str, Any]:
    """The accumulators after the visit, as the next case takes them."""
    counters = dict(given.counters)
    for name, delta in benefit.deltas.items():
        counters[name] = counters.get(name, Counters()).plus(delta)
    period = period_of(document, given.case)
    told: dict[str, Any] = dict(counters.pop(period, Counters())._asdict())
    for name, counter in sorted(counters.items()):
        told[name.removeprefix(f"{period}-")] = {
            field: number for field, number in counter._asdict().items() if number
        }
    return told


def _step(step: Step) -> dict[str, Any]:
    value = step.value
    changes = [
        {
            "row": each.value.row,
            "operation": each.operation.value,
            "value": each.value.amount,
            "clause": each.value.clause,
            "provenance": each.value.provenance.name.lower(),
        }
        for each in explain.changes_of(step)
    ]
    told: dict[str, Any] = {"changes": changes} if changes else {}
    return {
        "stage": step.stage,
        "row": value.row,
        "value": value.amount,
        "unit": value.unit.value,
        "input_fen": step.input_fen,
        "result_fen": step.result_fen,
        "clause": value.clause,
        "provenance": value.provenance.name.lower(),
        "text": explain.text(step),
        **told,
    }
