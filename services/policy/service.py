"""The policy servicer. `BatchCompute` is memory only: no statement, whatever the batch.

Bounds: 256 units of at most 256 cases; the documents of the site's own areas are held parsed.
A background task asks every `POLL_S` for the highest numbers and loads what is new. A replica that
has not heard the list for `STALE_MS` refuses, undecided, rather than compute with an old rule.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import structlog

from infra.runtime.background import Background
from infra.runtime.call import Call
from infra.runtime.clock import Clock
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.policy import messages
from services.policy.domain.book import Book, Publication, Retirement
from services.policy.domain.canonical import DocumentError, content_hash
from services.policy.domain.case import Ambiguous, Case
from services.policy.domain.chain import compute_unit
from services.policy.domain.compiling import compile_document
from services.policy.domain.document import OPEN_END, Document, Provenance
from services.policy.reading import opened_diseases
from services.policy.store import Store, StoredDocument, StoredRetirement
from yidi.common.v1 import types_pb2
from yidi.policy.v1 import policy_pb2

POLL_S = 5.0
STALE_MS = 30_000

_log = structlog.get_logger("yidi.policy")


class _Unit(Protocol):
    """What units and calculations have in common."""

    @property
    def id(self) -> str: ...
    @property
    def insured_area(self) -> str: ...
    @property
    def insurance(self) -> types_pb2.InsuranceType.ValueType: ...
    @property
    def openings(self) -> Iterable[policy_pb2.Accumulator]: ...
    @property
    def account_balance_fen(self) -> int: ...
    @property
    def cases(self) -> Iterable[policy_pb2.ComputeCase]: ...


class PolicyService:
    """`yidi.policy.v1.PolicyService`; call `start` before serving and `stop` after."""

    def __init__(
        self, *, database: Database, clock: Clock, allow_illustrative: bool = False
    ) -> None:
        self._store = Store(database)
        self._clock = clock
        self._allow_illustrative = allow_illustrative
        self._opened = opened_diseases()
        self._book = Book()
        self._number = 0
        """The greatest publication number seen, readable or not."""
        self._retirements = 0
        self._heard_ms: int | None = None
        self._background = Background(
            "policy list", self.refresh, rest=lambda: POLL_S, at_once=False
        )

    @property
    def book(self) -> Book:
        """The published documents as last heard."""
        return self._book

    async def start(self) -> None:
        """Load the documents and keep them fresh; raise when they cannot be loaded."""
        await self.refresh()
        self._background.start()

    async def stop(self) -> None:
        """End the background task."""
        await self._background.stop()

    async def refresh(self) -> None:
        """Hear the list once and load what has been published or retired since."""
        # The time before asking: what is published while we ask is not yet heard.
        asked_ms = self._clock.now_ms()
        last = await self._store.last_numbers()
        if (last.publication, last.retirement) != (self._number, self._retirements):
            stored = await self._store.publications_after(self._number)
            retired = await self._store.retirements_after(self._retirements)
            # Compiling takes some milliseconds a document; computing goes on meanwhile.
            added = [await asyncio.to_thread(_publication, row) for row in stored]
            known = [*self._book.publications, *(each for each in added if each is not None)]
            self._book = Book(_with_retirements(known, retired))
            self._number = max((row.number for row in stored), default=self._number)
            self._retirements = max((row.number for row in retired), default=self._retirements)
        self._heard_ms = asked_ms

    async def BatchCompute(
        self, request: policy_pb2.BatchComputeRequest, _: Call
    ) -> policy_pb2.BatchComputeResponse:
        """Each unit computed from its openings; faults of a case stay in its result."""
        now_ms = self._clock.now_ms()
        if self._is_stale(now_ms):
            stale = Refusal(Reason.ERROR_REASON_POLICY_STALE).status()
            return policy_pb2.BatchComputeResponse(
                results=[
                    policy_pb2.ComputeResult(id=unit.id, error=stale) for unit in request.items
                ]
            )
        return policy_pb2.BatchComputeResponse(
            results=[
                self._compute(
                    unit,
                    self._finder(unit.insured_area, unit.insurance, now_ms),
                    allow_illustrative=self._allow_illustrative,
                )
                for unit in request.items
            ]
        )

    async def BatchCalculate(
        self, request: policy_pb2.BatchCalculateRequest, _: Call
    ) -> policy_pb2.BatchCalculateResponse:
        """Anonymous cases against a named version or the one in force; sample values allowed."""
        now_ms = self._clock.now_ms()
        if self._is_stale(now_ms):
            raise Refusal(Reason.ERROR_REASON_POLICY_STALE)
        results = []
        for item in request.items:
            try:
                find = (
                    self._named(item)
                    if item.version
                    else self._finder(item.insured_area, item.insurance, now_ms)
                )
            except Refusal as refusal:
                results.append(policy_pb2.ComputeResult(id=item.id, error=refusal.status()))
                continue
            results.append(self._compute(item, find, allow_illustrative=True))
        return policy_pb2.BatchCalculateResponse(results=results)

    async def GetCoverage(
        self, request: policy_pb2.GetCoverageRequest, _: Call
    ) -> policy_pb2.GetCoverageResponse:
        """What the published documents cover, of one area or all."""
        if self._is_stale(self._clock.now_ms()):
            raise Refusal(Reason.ERROR_REASON_POLICY_STALE)
        listed = [
            each
            for each in self._book.publications
            if request.insured_area in ("", each.document.area)
        ]
        listed.sort(
            key=lambda each: (
                each.document.area,
                each.document.insurance,
                each.document.effective_from,
                each.number,
            )
        )
        return policy_pb2.GetCoverageResponse(policies=[_covered(each) for each in listed])

    def _is_stale(self, now_ms: int) -> bool:
        return self._heard_ms is None or now_ms - self._heard_ms > STALE_MS

    def _compute(
        self, unit: _Unit, find: Callable[[Case], Document], *, allow_illustrative: bool
    ) -> policy_pb2.ComputeResult:
        items, insurance = list(unit.cases), messages.INSURANCES.get(unit.insurance, "")
        faults: list[Refusal | None] = []
        cases: list[Case] = []
        for item in items:
            try:
                cases.append(messages.read_case(item, insurance))
                faults.append(None)
            except Refusal as refusal:
                faults.append(refusal)
        computed = iter(
            compute_unit(
                cases,
                {opening.period: messages.read_counters(opening) for opening in unit.openings},
                unit.account_balance_fen,
                find,
                allow_illustrative=allow_illustrative,
            )
        )
        answers = []
        for item, fault in zip(items, faults, strict=True):
            outcome = next(computed) if fault is None else fault
            if isinstance(outcome, Ambiguous):
                # Published documents are checked, so this is a fault of ours.
                _log.error("alarm: two rules apply", area=unit.insured_area, rows=outcome.rows)
            answers.append(messages.case_result(item, outcome, unit.insured_area))
        return policy_pb2.ComputeResult(id=unit.id, cases=answers)

    def _finder(self, area: str, insurance: int, now_ms: int) -> Callable[[Case], Document]:
        book, opened = self._book, self._opened
        code = messages.INSURANCES.get(insurance, "")

        def find(case: Case) -> Document:
            opened.require(case)
            return book.find(area, code, case, now_ms)

        return find

    def _named(self, item: policy_pb2.CalculateItem) -> Callable[[Case], Document]:
        code = messages.INSURANCES.get(item.insurance, "")
        document = self._book.version(item.insured_area, code, item.version)
        if document is None:
            name = f"{item.insured_area}/{code}/{item.version}"
            raise Refusal(Reason.ERROR_REASON_POLICY_VERSION_NOT_FOUND, version=name)
        opened = self._opened

        def find(case: Case) -> Document:
            opened.require(case)
            return document

        return find


def stored_document(content: str, stored_hash: bytes) -> Document:
    """A stored canonical form, compiled; raise `DocumentError`."""
    if content_hash(content) != stored_hash:
        raise DocumentError("content", "does not match its hash: restore the row")
    return compile_document(json.loads(content))


def _publication(row: StoredDocument) -> Publication | None:
    try:
        document = stored_document(row.content, row.hash)
    except DocumentError as error:
        # Another version of the program wrote it; the other documents must go on paying.
        _log.error(
            "alarm: a published policy cannot be read and is left out",
            publication=row.number,
            error=str(error),
        )
        return None
    return Publication(row.number, round(row.activated_at.timestamp() * 1000), document)


def _with_retirements(
    publications: Sequence[Publication], retired: Iterable[StoredRetirement]
) -> list[Publication]:
    found = {
        row.publication: Retirement(
            row.from_day.isoformat(), round(row.activated_at.timestamp() * 1000)
        )
        for row in retired
    }
    return [
        each._replace(retirement=found[each.number]) if each.number in found else each
        for each in publications
    ]


def _covered(publication: Publication) -> policy_pb2.CoveredPolicy:
    document, retirement = publication.document, publication.retirement
    weakest = max(
        Provenance[source.provenance.upper()] for source in document.written.sources.values()
    )
    covered = policy_pb2.CoveredPolicy(
        policy=messages.reference(document, weakest),
        title=document.title,
        effective_from=document.effective_from,
        effective_to="" if document.effective_to == OPEN_END else document.effective_to,
        retired_from="" if retirement is None else retirement.from_day,
    )
    covered.activate_time.FromMilliseconds(publication.activated_ms)
    numbers = {name: number for number, name in messages.CARE_TYPES.items()}
    for benefit in {benefit.name: benefit for benefit in document.benefits.values()}.values():
        diseases = sorted(benefit.diseases.covered) if benefit.diseases is not None else []
        # Numbers of the contract's enum, known only at run time.
        care_types: Any = [numbers[name] for name in benefit.care_types]
        covered.benefits.add(
            name=benefit.name,
            care_types=care_types,
            funds_pay=benefit.no_funds is None,
            diseases=diseases,
        )
    return covered
