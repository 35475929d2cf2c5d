"""Small documents and cases for the policy tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from services.policy.domain.case import Case
from services.policy.domain.compiling import compile_document
from services.policy.domain.document import Document
from services.policy.loader import DOCUMENTS
from services.policy.reading import read_document

FOUNDED = {"source": "example", "clause": "一"}
"""Every value has its source."""


@cache
def own_documents() -> dict[tuple[str, str], Document]:
    """The documents that come with the suite, by area and national code of the insurance."""
    found = [read_document(path) for path in sorted(DOCUMENTS.glob("*.yaml"))]
    return {(each.area, each.insurance): each for each in found}


def row(value: str | None = None, **keys: Any) -> dict[str, Any]:
    """A row: its value and the facts for which it holds."""
    return {**({} if value is None else {"value": value}), **keys, **FOUNDED}


def only(key: str, value: str, **conditions: Any) -> dict[str, Any]:
    """An adjustment that does one thing to the visits named."""
    return {"when": conditions, "rows": [row(**{key: value})]}


def first_pay(value: str, *, barred: bool = False, **conditions: Any) -> dict[str, Any]:
    """The stage 先行自付 of one share."""
    stage: dict[str, Any] = {"rows": [row(value)], "barred": barred}
    return {"first_pay": {**stage, "when": conditions} if conditions else stage}


def deductible(*rows: Any, due: str = "each_stay", **keys: Any) -> dict[str, Any]:
    """The stage 起付线; a row may be an amount for everybody."""
    return {"deductible": {"due": due, "rows": _rows(rows), **keys}}


def fund(*rows: Any, of: str = "remaining", code: str = "hifp_pay", **keys: Any) -> dict[str, Any]:
    """The stage of one fund; a row may be a share for everybody."""
    names = {"hifp_pay": "统筹基金", "hifob_pay": "大额补助", "hifmi_pay": "大病保险"}
    stage = {"code": code, "name": names.get(code, "补助"), "of": of, "ratio": _rows(rows)}
    return {"fund": {**stage, **keys}}


def cap(*rows: Any, **keys: Any) -> dict[str, Any]:
    """A cap; a row may be an amount for everybody."""
    return {"rows": _rows(rows), **keys}


def _rows(rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [row(each) if isinstance(each, str) else each for each in rows]


def terms(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The data of a small document: employees' stays by `stages` (80 % of all, if none), changed by
    the keys of the document; `benefit` changes the benefit `inpatient`."""
    benefit = {
        "care_types": ["inpatient"],
        "counts_stays": True,
        "stages": list(stages) or [fund("80%")],
        **changes.pop("benefit", {}),
    }
    return {
        "area": "999900",
        "insurance": "employee",
        "version": "1",
        "title": "例",
        "effective": {"start": "2000-01-01"},
        "sources": {"example": {"title": "例", "provenance": "secondary"}},
        "benefits": {"inpatient": benefit},
        **changes,
    }


def document(*stages: dict[str, Any], **changes: Any) -> Document:
    """The document of `terms`."""
    return compile_document(terms(*stages, **changes))


def a_case(**changes: Any) -> Case:
    """A local inpatient stay of 10,000 yuan wholly in scope; give what differs."""
    values: dict[str, Any] = {
        "route": "local",
        "basis": "filed",
        "benefit_class": "local",
        "care_type": "inpatient",
        "person_class": "employed",
        "age": 50,
        "deductible_level": "three",
        "settlement_level": "three",
        "end_date": "2026-11-10",
        "business_day": "2026-11-10",
        "use_account": False,
        "full_self_pay_fen": 0,
        "over_limit_fen": 0,
        "first_self_pay_fen": 0,
        "in_scope_fen": 1_000_000,
        "care_area": "999900",
    }
    values.update(changes)
    values.setdefault(
        "total_fen",
        values["full_self_pay_fen"]
        + values["over_limit_fen"]
        + values["first_self_pay_fen"]
        + values["in_scope_fen"],
    )
    return Case(**values)


def with_in_scope(case: Case, fen: int) -> Case:
    """The same visit with another in-scope cost."""
    return case._replace(in_scope_fen=fen, total_fen=case.total_fen - case.in_scope_fen + fen)
