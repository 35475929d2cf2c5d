"""Documents and cases for the policy tests."""

from __future__ import annotations

from typing import Any

from services.policy.domain.case import Case
from services.policy.domain.document import Document
from services.policy.domain.parse import parse
from services.policy.loader import DOCUMENTS, read_folder

OWN = {(each.area, each.insurance): each for each, _ in read_folder(DOCUMENTS)}
"""The documents that come with the suite."""


def terms(
    *,
    deductible: list[int] | None = None,
    segments: list[list[int | None]] | None = None,
    cap: int = 10**12,
    **changes: Any,
) -> dict[str, Any]:
    """The data of a small document; stay n pays `deductible[n-1]`."""
    founded = {"source": "example", "clause": "一"}
    data: dict[str, Any] = {
        "area": "999900",
        "insurance": "310",
        "version": "1",
        "title": "example",
        "effective_from": "2000-01-01",
        "period": "business_day_year",
        "sources": {"example": {"title": "例", "provenance": "secondary"}},
        "account": founded,
        "period_cap": [{"fen": cap, **founded}],
        "plans": {
            "inpatient": {
                "care_types": ["inpatient"],
                "counts_stays": True,
                "deductible": {
                    "kind": "per_stay",
                    "rows": [
                        {"from_stay": number, "fen": fen, **founded}
                        for number, fen in enumerate(deductible or [0], 1)
                    ],
                },
                "ratio": {
                    "segments_count": "in_scope",
                    "rows": [
                        {
                            **({"up_to_fen": bound} if bound else {}),
                            "basis_points": ratio,
                            **founded,
                        }
                        for bound, ratio in segments or [[None, 8000]]
                    ],
                },
            }
        },
    }
    data.update(changes)
    return data


def document(**arguments: Any) -> Document:
    """The document of `terms`."""
    return parse(terms(**arguments))


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
