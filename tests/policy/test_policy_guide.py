"""Every example of docs/policy.md is a document or a case that works as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.policy.domain import facts
from services.policy.domain.schema import schema_text
from services.policy.evaluating import answer, evaluate
from services.policy.reading import Examined, examine, read

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "policy.md").read_text(encoding="utf-8")
BLOCKS = [
    (match[1], match[2], match[3])
    for match in re.finditer(r"^```(\w+) (\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
]
HEAD = """
area: "999900"
insurance: employee
version: "1"
title: 示例
effective: {start: "2024-01-01"}
sources: {text: {title: 示例, provenance: illustrative}}
"""
FUND = (
    "- fund: {code: hifp_pay, name: 统筹基金, of: remaining, "
    "ratio: [{value: 80%, source: text, clause: 80%}]}\n"
)


def of(kind: str) -> list[str]:
    return [text for _, what, text in BLOCKS if what == kind]


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


def whole(kind: str, text: str) -> str:
    """The document around a snippet."""
    if kind == "document":
        return text
    if kind == "keys":
        return HEAD + text
    benefit = text
    if kind == "stages":
        stages = text if "of: remaining" in text else text + FUND
        benefit = f"care_types: [inpatient]\ncounts_stays: true\nstages:\n{indented(stages, 2)}"
    return HEAD + f"benefits:\n  some:\n{indented(benefit, 4)}"


SNIPPETS = [(kind, text) for _, kind, text in BLOCKS if kind != "case"]


@pytest.mark.parametrize(("kind", "text"), SNIPPETS)
def test_snippet_is_a_document_without_errors(kind: str, text: str) -> None:
    examined = examine(whole(kind, text))
    assert examined.document is not None, examined.problems
    assert examined.errors == ()


def test_guide_shows_every_variety() -> None:
    assert len(SNIPPETS) >= 15
    shown = "\n".join(text for _, text in SNIPPETS)
    for key in (
        *("topped_up", "year_cap", "share: 20%", "own_times", "times", "at_least", "at_most"),
        *("set:", "floor", "barred", "over: year", "limit: fee", "of: over_cap", "of: own"),
        *("adjust_deductible", "unlimited", "not_stated", "split_by_days", "no_funds"),
        *("temporaries", "places", "otherwise: refused"),
    ):
        assert key in shown, key


def first() -> Examined:
    examined = examine(of("document")[0])
    assert examined.problems == ()  # the document to begin with has not even a warning
    return examined


def cases() -> list[dict[str, Any]]:
    read_as: dict[str, Callable[[str], Any]] = {
        "json": json.loads,
        "yaml": lambda text: read(text).data,
    }
    return [read_as[language](text) for language, kind, text in BLOCKS if kind == "case"]


def test_cases_of_the_guide_come_to_what_it_says() -> None:
    document = first().document
    assert document is not None
    told = [answer(document, *evaluate(document, case)) for case in cases()]
    assert (told[0]["fund_total_fen"], told[0]["cash_fen"]) == (1_920_000, 680_000)
    assert told[0]["accumulators_fen"]["stay_count"] == 1
    assert told[1]["accumulators_fen"]["stay_count"] == 2
    assert told[1]["accumulators_fen"]["pooled_used_fen"] == 1_920_000 + 799_000
    for key in told[0]:
        assert f"`{key}`" in GUIDE


def test_guide_names_every_fact() -> None:
    for key in facts.DIMENSIONS:
        assert f"`{key}`" in GUIDE


def test_schema_for_editors_is_up_to_date() -> None:
    published = (DOCS / "policy.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "yidi policy schema > docs/policy.schema.json"
