"""The policy servicer. `BatchCompute` is memory only: no statement, whatever the batch.

Bounds: 256 units of at most 256 cases; the documents of the site's own areas are held parsed.
A background task asks every `POLL_S` for the highest publication number and loads what is new.
A replica that has not heard the list for `STALE_MS` refuses, undecided, rather than compute with
an old rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date

import structlog
from google.protobuf.descriptor import EnumDescriptor
from google.rpc import status_pb2

from infra.runtime.call import Call
from infra.runtime.clock import Clock
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.money import yuan
from services.policy.domain.book import Book, Publication
from services.policy.domain.canonical import DocumentError, content_hash
from services.policy.domain.case import (
    Benefit,
    CannotCompute,
    Case,
    Counters,
    NotFound,
    NotStated,
)
from services.policy.domain.chain import compute_unit
from services.policy.domain.document import Document, Provenance, Unit
from services.policy.domain.parse import parse_content
from services.policy.store import Store
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.policy.v1 import policy_pb2

POLL_S = 5.0
STALE_MS = 30_000

_log = structlog.get_logger("yidi.policy")


class PolicyService:
    """`yidi.policy.v1.PolicyService`; call `start` before serving and `stop` after."""

    def __init__(
        self, *, database: Database, clock: Clock, allow_illustrative: bool = False
    ) -> None:
        self._store = Store(database)
        self._clock = clock
        self._allow_illustrative = allow_illustrative
        self._book = Book()
        self._heard_ms: int | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the documents and keep them fresh; raise when they cannot be loaded."""
        await self.refresh()
        self._task = asyncio.create_task(self._keep_fresh(), name="policy-refresh")

    async def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def refresh(self) -> None:
        """Hear the list once and load what has been published since."""
        # The time before asking: what is published while we ask is not yet heard.
        asked_ms = self._clock.now_ms()
        if await self._store.last_number() > self._book.last_number:
            stored = await self._store.publications_after(self._book.last_number)
            # Parsing takes some milliseconds a document; computing goes on meanwhile.
            added = [
                await asyncio.to_thread(
                    _publication, row.number, row.activated_at.timestamp(), row.content, row.hash
                )
                for row in stored
            ]
            self._book = Book((*self._book.publications, *added))
        self._heard_ms = asked_ms

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except (Refusal, DocumentError) as error:
                _log.warning("policy list not heard", error=str(error))
            except Exception:  # noqa: BLE001 - the task must outlive any fault; staleness refuses
                _log.exception("policy list not heard")

    async def BatchCompute(
        self, request: policy_pb2.BatchComputeRequest, _: Call
    ) -> policy_pb2.BatchComputeResponse:
        """Each unit computed from its openings; faults of a case stay in its result."""
        now_ms = self._clock.now_ms()
        if self._heard_ms is None or now_ms - self._heard_ms > STALE_MS:
            stale = Refusal(Reason.ERROR_REASON_POLICY_STALE).status()
            return policy_pb2.BatchComputeResponse(
                results=[
                    policy_pb2.ComputeResult(id=unit.id, error=stale) for unit in request.items
                ]
            )
        return policy_pb2.BatchComputeResponse(
            results=[self._unit(unit, now_ms) for unit in request.items]
        )

    def _unit(self, unit: policy_pb2.ComputeUnit, now_ms: int) -> policy_pb2.ComputeResult:
        answers: list[policy_pb2.CaseResult] = []
        computed: list[policy_pb2.CaseResult] = []
        cases: list[Case] = []
        for item in unit.cases:
            answer = policy_pb2.CaseResult(id=item.id)
            answers.append(answer)
            try:
                cases.append(_case(item))
            except Refusal as refusal:
                answer.error.CopyFrom(refusal.status())
            else:
                computed.append(answer)
        benefits = compute_unit(
            cases,
            {opening.period: _counters(opening) for opening in unit.openings},
            unit.account_balance_fen,
            self._finder(unit, now_ms),
            allow_illustrative=self._allow_illustrative,
        )
        for answer, case, benefit in zip(computed, cases, benefits, strict=True):
            if isinstance(benefit, CannotCompute):
                answer.error.CopyFrom(_status(benefit, unit.insured_area))
            else:
                answer.benefit.CopyFrom(_benefit(case, benefit))
        return policy_pb2.ComputeResult(id=unit.id, cases=answers)

    def _finder(self, unit: policy_pb2.ComputeUnit, now_ms: int) -> Callable[[Case], Document]:
        book, area = self._book, unit.insured_area
        insurance = _INSURANCES.get(unit.insurance, "")
        return lambda case: book.find(area, insurance, case.end_date, now_ms)


def _publication(number: int, activated_s: float, content: str, stored_hash: bytes) -> Publication:
    if content_hash(content) != stored_hash:
        raise DocumentError(f"publication {number}", "does not match its hash: restore the row")
    return Publication(number, round(activated_s * 1000), parse_content(content))


def _case(item: policy_pb2.ComputeCase) -> Case:
    facts, parts = item.facts, item.parts
    in_scope = parts.in_scope_fen
    amounts = (
        parts.full_self_pay_fen,
        parts.over_limit_fen,
        parts.first_self_pay_fen,
        in_scope,
    )
    if min(amounts) < 0:
        fault = Violation("parts", "待遇计算的各部分金额不能为负；退费按原结算取反。")
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[fault])
    if sum(amounts) != item.total_fen:
        raise Refusal(
            Reason.ERROR_REASON_TOTAL_MISMATCH,
            total=yuan(item.total_fen),
            sum=yuan(sum(amounts)),
        )
    _require_day("facts.start_date", facts.start_date)
    return Case(
        route=_ROUTES.get(facts.route, ""),
        basis=_BASES.get(facts.basis, ""),
        benefit_class=_CLASSES.get(facts.benefit_class, ""),
        care_type=_CARE_TYPES.get(facts.care_type, ""),
        person_class=_PERSONS.get(facts.person_class, ""),
        age=facts.age,
        deductible_level=_LEVELS.get(facts.deductible_level, ""),
        settlement_level=_LEVELS.get(facts.settlement_level, ""),
        end_date=_require_day("facts.end_date", facts.end_date),
        business_day=_require_day("facts.business_day", facts.business_day),
        use_account=facts.use_account,
        total_fen=item.total_fen,
        full_self_pay_fen=amounts[0],
        over_limit_fen=amounts[1],
        first_self_pay_fen=amounts[2],
        in_scope_fen=in_scope,
    )


def _require_day(field: str, value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError as error:
        raise Refusal(Reason.ERROR_REASON_DAY_INVALID, field=field, value=value) from error
    return value


def _counters(opening: policy_pb2.Accumulator) -> Counters:
    return Counters(
        opening.stay_count,
        opening.deductible_paid_fen,
        opening.pooled_used_fen,
        opening.large_amount_used_fen,
    )


def _status(refusal: CannotCompute, area: str) -> status_pb2.Status:
    if isinstance(refusal, NotStated):
        return Refusal(Reason.ERROR_REASON_POLICY_NOT_STATED, missing=refusal.missing).status()
    if isinstance(refusal, NotFound):
        return Refusal(Reason.ERROR_REASON_POLICY_NOT_FOUND, area=area, date=str(refusal)).status()
    return Refusal(Reason.ERROR_REASON_POLICY_NOT_OFFICIAL, area=area).status()


def _benefit(case: Case, benefit: Benefit) -> policy_pb2.Benefit:
    document = benefit.document
    funds = (("hifob_pay", benefit.large_amount_fen), ("hifp_pay", benefit.pooled_fen))
    return policy_pb2.Benefit(
        amounts=amounts_pb2.Amounts(
            total_fen=case.total_fen,
            full_self_pay_fen=case.full_self_pay_fen,
            over_limit_fen=case.over_limit_fen,
            first_self_pay_fen=case.first_self_pay_fen,
            in_scope_fen=case.in_scope_fen,
            remote_first_pay_fen=benefit.remote_first_pay_fen,
            deductible_fen=benefit.deductible_fen,
            ratio_self_pay_fen=benefit.ratio_self_pay_fen,
            over_cap_fen=benefit.over_cap_fen,
            fund_total_fen=benefit.fund_total_fen,
            account_fen=benefit.account_fen,
            cash_fen=benefit.cash_fen,
        ),
        funds=[amounts_pb2.FundPayment(code=code, fen=fen) for code, fen in funds if fen],
        policy=envelope_pb2.PolicyReference(
            area=document.area,
            insurance=_INSURANCE_VALUES[document.insurance],
            version=document.version,
            hash=document.hash,
            provenance=_PROVENANCES[benefit.provenance],
        ),
        deltas=[
            policy_pb2.Accumulator(
                period=period,
                stay_count=delta.stay_count,
                deductible_paid_fen=delta.deductible_paid_fen,
                pooled_used_fen=delta.pooled_used_fen,
                large_amount_used_fen=delta.large_amount_used_fen,
            )
            for period, delta in sorted(benefit.deltas.items())
        ],
        steps=[
            policy_pb2.Step(
                stage=step.stage,
                row=step.row,
                input_fen=step.input_fen,
                result_fen=step.result_fen,
                value=step.value,
                unit=_UNITS[step.unit],
                clause=step.clause,
                provenance=_PROVENANCES[step.provenance],
                text=step.text,
            )
            for step in benefit.steps
        ],
    )


_UNITS = {
    Unit.NONE: policy_pb2.STEP_UNIT_UNSPECIFIED,
    Unit.FEN: policy_pb2.STEP_UNIT_FEN,
    Unit.BASIS_POINTS: policy_pb2.STEP_UNIT_BASIS_POINTS,
}
_PROVENANCES = {
    Provenance.OFFICIAL: types_pb2.PROVENANCE_OFFICIAL,
    Provenance.SECONDARY: types_pb2.PROVENANCE_SECONDARY,
    Provenance.ILLUSTRATIVE: types_pb2.PROVENANCE_ILLUSTRATIVE,
}


def _spelt(enum: EnumDescriptor) -> dict[int, str]:
    """The wire spelling of every value but the first: lower case, without the enum's prefix."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {
        value.number: value.name.removeprefix(prefix).lower()
        for value in enum.values
        if value.number
    }


_ROUTES = _spelt(types_pb2.Route.DESCRIPTOR)
_BASES = _spelt(types_pb2.FilingBasis.DESCRIPTOR)
_CLASSES = _spelt(types_pb2.BenefitClass.DESCRIPTOR)
_CARE_TYPES = _spelt(types_pb2.CareType.DESCRIPTOR)
_PERSONS = _spelt(types_pb2.PersonClass.DESCRIPTOR)
_LEVELS = _spelt(types_pb2.InstitutionLevel.DESCRIPTOR)
_INSURANCES: dict[int, str] = {
    types_pb2.INSURANCE_TYPE_EMPLOYEE: "310",
    types_pb2.INSURANCE_TYPE_RESIDENT: "390",
}
_INSURANCE_VALUES = {
    "310": types_pb2.INSURANCE_TYPE_EMPLOYEE,
    "390": types_pb2.INSURANCE_TYPE_RESIDENT,
}
