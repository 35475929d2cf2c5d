"""Plans: shared by visits that no table tells apart, bounded, the same answer as without."""

from __future__ import annotations

from random import Random

import pytest
from policy_random import Drawing
from policy_samples import a_case

from services.policy.domain import kinds
from services.policy.domain.case import CannotCompute, Case, Counters
from services.policy.domain.chain import compute_visit
from services.policy.domain.compiling import compile_document
from services.policy.domain.document import Document
from services.policy.domain.kinds import Kinds
from services.policy.domain.table import Table, UnknownFact


def by_age() -> Kinds[tuple[int, ...]]:
    table = Table("t", [({"ages": (0, 49)}, 0), ({"ages": (50, 59)}, 1), ({"ages": (60, None)}, 2)])
    return Kinds([table], table.matching)


def test_ages_that_no_row_tells_apart_share_a_plan() -> None:
    found = by_age()
    assert [found.of(a_case(age=age)) for age in (50, 55, 59)] == [(1,)] * 3
    assert len(found) == 1
    assert [found.of(a_case(age=age)) for age in (49, 60, 300)] == [(0,), (2,), (2,)]
    assert len(found) == 3


def test_what_no_table_asks_for_makes_no_kind() -> None:
    found = by_age()
    for level in ("one", "two", "three"):
        found.of(a_case(age=50, settlement_level=level, disease=level))
    assert len(found) == 1


def test_what_is_no_value_is_not_remembered() -> None:
    found = by_age()
    for _ in range(2):
        with pytest.raises(UnknownFact, match=r"^t\(ages=-1\)$"):
            found.of(a_case(age=-1))
    assert len(found) == 0


def test_codes_without_end_do_not_fill_the_memory() -> None:
    table = Table("t", [({"diseases": ("M00500",)}, 0), ({"diseases": ("other",)}, 1)])
    found = Kinds([table], table.matching)
    for number in range(3_000):
        assert found.of(a_case(disease=f"Q{number:05}")) == (1,)
    assert found.of(a_case(disease="M00507")) == (0,)
    assert len(found) == 2


def test_more_kinds_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MOST_KINDS", 7)
    table = Table("t", [({"ages": (age, age)}, age) for age in range(100)])
    found = Kinds([table], table.matching)
    for age in (*range(100), *range(100)):
        assert found.of(a_case(age=age)) == (age,)
        assert len(found) <= 7


def said(document: Document, case: Case, counters: dict[str, Counters]) -> object:
    try:
        benefit = compute_visit(document, case, counters, 10_000)
    except CannotCompute as refusal:
        return type(refusal), str(refusal)
    return tuple(benefit)[1:], benefit.steps


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_made_for_another_visit_gives_the_same_answer(seed: int) -> None:
    """Answers and refusals, whose facts are those of the visit and not of the one before it."""
    refused = 0
    for number in range(20):
        drawing = Drawing(Random(f"plans {seed} {number}"))
        data = drawing.document()
        document = compile_document(data)
        for _ in range(20):
            case, counters = drawing.case(), drawing.counters()
            expected = said(compile_document(data), case, counters)
            assert said(document, case, counters) == expected
            # With what the visit before has left behind, and once more.
            older = case._replace(age=min(case.age + 1, 150))
            said(document, older, counters)
            assert said(document, case, counters) == expected
            refused += isinstance(expected, tuple) and isinstance(expected[0], type)
    assert 0 < refused < 400
