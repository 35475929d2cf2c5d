"""The load of `yidi bench policy`: the documents of many areas, mixed cases, one core computing.

`python -m loadtests.policy FILE` is the process that is measured: it compiles the documents of FILE
(a canonical form a line) as the policy service does and prints its figures as JSON. A rate is of
a second of processor time, so that other work on the machine counts as little as it can.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random
from statistics import median
from time import process_time
from typing import Any, NamedTuple

import services.policy
from services.policy.domain import explain, facts
from services.policy.domain.book import Book, Publication
from services.policy.domain.case import Benefit, CannotCompute, Case, Counters
from services.policy.domain.chain import compute_visit
from services.policy.domain.compiling import compile_document
from services.policy.domain.document import Document
from services.policy.domain.opened import Opened
from services.policy.reading import opened_diseases, read, read_text

LIBRARY = Path(services.policy.__file__).parent / "documents"
FIRST_AREA = 440_001
CASES_PER_DOCUMENT = 10
_SEED = 20_260_101
_TRIES = 10_000
_NOW_MS = 1
_DAYS = "2025-01-01", "2026-11-10"
"""Visits end between these days, or while the document was in force."""
_DISEASES = ("M03900", "M01600", "M00500", "M07800", "M08300")
_YEAR_END_PERCENT = 3


class Drawn(NamedTuple):
    """One evaluation."""

    number: int
    """Of the document."""
    area: str
    insurance: str
    case: Case
    counters: dict[str, Counters]
    balance_fen: int


def varied(number: int) -> list[dict[str, Any]]:
    """The data of `number` documents: those of the library by turns, each time with another area
    and version."""
    library = [read(read_text(path)).data for path in sorted(LIBRARY.glob("*.yaml"))]
    return [
        {
            **library[each % len(library)],
            "area": f"{FIRST_AREA + each}",
            "version": f"{library[each % len(library)]['version']}-{each // len(library)}",
        }
        for each in range(number)
    ]


def book_of(documents: Iterable[Document]) -> Book:
    """All of them published and active."""
    return Book(Publication(number, 0, each) for number, each in enumerate(documents, 1))


def mixed_cases(documents: Sequence[Document]) -> list[Drawn]:
    """Cases over routes, classes, levels, grades, persons, ages and care types, with what the year
    has used before: `CASES_PER_DOCUMENT` that each document decides, one document after another.
    The same documents give the same cases."""
    random, book, opened = Random(_SEED), book_of(documents), opened_diseases()
    return [
        _decided(random, book, opened, number, document)
        for _ in range(CASES_PER_DOCUMENT)
        for number, document in enumerate(documents)
    ]


def _decided(random: Random, book: Book, opened: Opened, number: int, document: Document) -> Drawn:
    for _ in range(_TRIES):
        case, counters = _drawn(random, document)
        balance = random.choice((0, random.randrange(500_000)))
        drawn = Drawn(number, document.area, document.insurance, case, counters, balance)
        try:
            evaluate(book, opened, drawn)
        except CannotCompute:
            continue
        return drawn
    raise RuntimeError(f"{document.title}: none of {_TRIES} cases is decided")


def _drawn(random: Random, document: Document) -> tuple[Case, dict[str, Counters]]:
    pick = random.choice
    route = pick(tuple(facts.ROUTES))
    benefit_class = pick([each for each in facts.BENEFIT_CLASSES if facts.reachable(route, each)])
    care_type = pick(sorted(document.benefits))
    person = pick(facts.PERSONS_OF_INSURANCE[document.written.insurance])
    level = pick(("one", "two", "three"))
    diseases = document.benefits[care_type].diseases
    end, nights = _day(random, document), random.randrange(1, 30)
    stays = care_type in ("inpatient", "injury_inpatient")
    if stays and random.randrange(100) < _YEAR_END_PERCENT:
        end = date(end.year, 1, 1) + timedelta(random.randrange(nights))
    start, in_scope = end - timedelta(nights), random.randrange(100_000, 20_000_000)
    if not stays:
        start, in_scope = end, in_scope // 100
    parts = [random.randrange(in_scope // 10) for _ in range(3)]
    case = Case(
        route=route,
        basis=_basis(route, benefit_class),
        benefit_class=benefit_class,
        care_type=care_type,
        person_class=person,
        age=random.randrange(18) if person == "minor_or_student" else random.randrange(18, 95),
        deductible_level=level,
        settlement_level=level,
        end_date=end.isoformat(),
        business_day=end.isoformat(),
        use_account=random.randrange(2) == 0,
        total_fen=in_scope + sum(parts),
        full_self_pay_fen=parts[0],
        over_limit_fen=parts[1],
        first_self_pay_fen=parts[2],
        in_scope_fen=in_scope,
        start_date=start.isoformat(),
        grade=pick([each for each in facts.GRADES if each.startswith(level)]),
        care_area=document.area if route == "local" else pick(("110000", "310000", "510100")),
        disease=pick(sorted(diseases.covered) if diseases else _DISEASES)
        if care_type == "chronic"
        else "",
        civil_servant=random.randrange(10) == 0,
    )
    used = Counters(
        stay_count=random.randrange(3),
        deductible_paid_fen=pick((0, 40_000, 120_000)),
        pooled_used_fen=random.randrange(10_000_000),
        major_illness_base_fen=random.randrange(2_000_000),
        fee_used_fen=random.randrange(10_000_000),
    )
    return case, {case.end_date[:4]: used} if used.stay_count else {}


def _day(random: Random, document: Document) -> date:
    first = date.fromisoformat(max(document.effective_from, _DAYS[0]))
    last = date.fromisoformat(min(document.effective_to, _DAYS[1]))
    if last < first:
        first = date.fromisoformat(document.effective_from)
    return first + timedelta(random.randrange((last - first).days + 1))


def _basis(route: str, benefit_class: str) -> str:
    if route == "local":
        return "local"
    return {"local": "exempt", "emergency": "deemed_emergency"}.get(benefit_class, "filed")


def evaluate(book: Book, opened: Opened, drawn: Drawn) -> Benefit:
    """What the service does for a case: find the document, compute; raise `CannotCompute`."""
    _, area, insurance, case, counters, balance_fen = drawn
    opened.require(case)
    return compute_visit(book.find(area, insurance, case, _NOW_MS), case, counters, balance_fen)


def rate(work: Callable[[], int], seconds: float) -> float:
    """How much `work` says it does in a second of processor time, from `seconds` of it."""
    done, begun = 0, process_time()
    while (took := process_time() - begun) < seconds or not done:
        done += work()
    return done / took


def rss_mib(pid: int | str = "self") -> float:
    """The resident memory of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return round(int(kib) / 1024, 1)


class Load:
    """The work of the rounds, on documents that are held compiled."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._opened = opened_diseases()
        self._cases = mixed_cases(documents)
        self._book = book_of(documents)
        # A document and its variations hold the same rules: the first can do the work of them all.
        kinds = len(list(LIBRARY.glob("*.yaml")))
        self._of_one = [
            (
                book_of([document]),
                [
                    each._replace(area=document.area)
                    for each in self._cases
                    if each.number % kinds == number
                ],
            )
            for number, document in enumerate(documents[:kinds])
        ]

    def evaluated(self) -> int:
        """Every case once, going round all documents."""
        return self._evaluate(self._book, self._cases)

    def one_among_all(self) -> int:
        """Every case once, one document after another, all of them there."""
        return sum(self._evaluate(self._book, cases) for _, cases in self._of_one)

    def one_alone(self) -> int:
        """The same where each document is the only one."""
        return sum(self._evaluate(book, cases) for book, cases in self._of_one)

    def _evaluate(self, book: Book, cases: Sequence[Drawn]) -> int:
        opened = self._opened
        for each in cases:
            evaluate(book, opened, each)
        return len(cases)

    def explained(self) -> int:
        """Every case once, going round all documents, with the sentence of every step."""
        book, opened = self._book, self._opened
        for each in self._cases:
            for step in evaluate(book, opened, each).steps:
                explain.text(step)
        return len(self._cases)


def measure(contents: Iterable[str], *, seconds: float, rounds: int) -> dict[str, float]:
    """Compile and hold documents, and compute with them: medians of `rounds` of `seconds` each."""
    documents = [compile_document(json.loads(line)) for line in contents]
    load = Load(documents)
    # As a process that serves does: what stays is not walked again and again.
    gc.collect()
    gc.freeze()
    works = {
        "evaluations_per_s": load.evaluated,
        "explained_per_s": load.explained,
        "one_document_per_s": load.one_alone,
        "one_document_among_all_per_s": load.one_among_all,
    }
    for work in works.values():
        work()
    rates = [{name: rate(work, seconds) for name, work in works.items()} for _ in range(rounds)]
    return {
        "documents": len(documents),
        **{name: round(median(each[name] for each in rates), 1) for name in works},
        "rss_mib": rss_mib(),
    }


def main() -> None:
    """Measure with the documents of a file; its name, seconds and rounds are the arguments."""
    file, seconds, rounds = sys.argv[1:]
    with Path(file).open(encoding="utf-8") as contents:
        print(json.dumps(measure(contents, seconds=float(seconds), rounds=int(rounds))))


if __name__ == "__main__":
    main()
