"""How the insured place decides a batch of envelopes (PROTOCOL: one id, one decision).

| step     | trips | what                                                                    |
|----------|-------|-------------------------------------------------------------------------|
| receive  | 0     | payload digest, contract, codes held against the origin, commit window  |
| identify | 1     | enrollment: who, insured how                                            |
| entitle  | 1     | filing: on what basis                                                   |
| read     | 1     | ids already decided, accumulators, accounts                             |
| compute  | 0     | policy, from memory: each person's cases in order                       |
| decide   | 1     | one statement: decisions, accumulators, accounts, audit                 |

Whatever the size of the batch. No lock is held before the last step, so units whose rows changed
meanwhile are read, computed and decided again, a few times. A quote runs the same steps up to the
last. A decided refusal is a decision like any other; an undecided one leaves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import protovalidate

from infra.runtime.clock import Clock, business_day, id_milliseconds, monotonic_us
from infra.runtime.contract import REVISION
from infra.runtime.database import halving
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from infra.runtime.payload import opened
from infra.runtime.rules_zh import describe
from infra.runtime.telemetry import Stopwatch
from services.settlement.answers import stored_answer, undecided
from services.settlement.deciding.case import QUOTE, SETTLE, Case, Unit, group, reset
from services.settlement.deciding.computing import compute_unit, quote_changed, visit_of
from services.settlement.deciding.writing import decide_unit
from services.settlement.domain.balance import PersonKey
from services.settlement.domain.window import inside_window
from services.settlement.store.insured import (
    RACE,
    InsuredStore,
    NewDecision,
    Reading,
    UnitWrite,
)
from services.settlement.turns import Turns
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc
from yidi.settlement.v1 import payload_pb2

ATTEMPTS = 5
"""How often a unit is read and decided again before it is PERSON_BUSY."""


class Decider:
    """Decides batches; holds no state between them but whose turn it is."""

    def __init__(
        self,
        *,
        store: InsuredStore,
        enrollment: enrollment_pb2_grpc.EnrollmentServiceStub,
        filing: filing_pb2_grpc.FilingServiceStub,
        policy: policy_pb2_grpc.PolicyServiceStub,
        directory: Directory,
        clock: Clock,
        call_seconds: float,
    ) -> None:
        self._store = store
        self._enrollment = enrollment
        self._filing = filing
        self._policy = policy
        self._directory = directory
        self._clock = clock
        self._seconds = call_seconds
        self._validator = protovalidate.Validator()
        self._turns = Turns()

    async def exchange(
        self, envelopes: Iterable[envelope_pb2.Envelope]
    ) -> list[envelope_pb2.ExchangeResult]:
        """One result per envelope, in any order."""
        watch = Stopwatch()
        results: dict[str, envelope_pb2.ExchangeResult] = {}
        cases: list[Case] = []
        for envelope in envelopes:
            try:
                cases.append(self._receive(envelope))
            except Refusal as refusal:
                results[envelope.id] = undecided(envelope.id, refusal.status())
        watch.lap(types_pb2.HOP_INSURED)
        cases = await self._identify(cases, results)
        watch.lap(types_pb2.HOP_ENROLLMENT)
        cases = await self._entitle(cases, results)
        watch.lap(types_pb2.HOP_FILING)
        tried: Counter[str] = Counter()
        while cases:
            async with self._turns.take(cases, _in_turn) as (turn, cases):
                tried.update(case.id for case in turn)
                again = await self._attempt(turn, results, watch)
            for case in again:
                if tried[case.id] < ATTEMPTS:
                    cases.append(case)
                else:
                    busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY)
                    results[case.id] = undecided(case.id, busy.status())
        hops = watch.hops()
        for result in results.values():
            result.hops.extend(hops)
        return list(results.values())

    def _receive(self, envelope: envelope_pb2.Envelope) -> Case:
        """Open the payload and hold it against its envelope; raises undecided refusals."""
        payload = opened(envelope, payload_pb2.ExchangePayload)
        faults = [describe(fault) for fault in self._validator.collect_violations(payload)]
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        if envelope.kind not in (QUOTE, SETTLE) or envelope.contract_revision > REVISION:
            raise Refusal(Reason.ERROR_REASON_CONTRACT_TOO_OLD)
        now_ms = self._clock.now_ms()
        if envelope.kind == SETTLE and not inside_window(id_milliseconds(envelope.id), now_ms):
            raise Refusal(Reason.ERROR_REASON_CLOCK_SKEW)
        care = self._directory.place(payload.visit.care_area)
        insured = self._directory.place(payload.visit.insured_area)
        for name, value, expected in (
            ("visit.care_area", care.area, self._directory.place(envelope.origin.care_area).area),
            ("visit.insured_area", insured.area, self._directory.place(envelope.insured_area).area),
            ("bill.institution", payload.bill.institution, envelope.origin.institution),
            ("institution.code", payload.institution.code, envelope.origin.institution),
        ):
            if value != expected:
                raise Refusal(Reason.ERROR_REASON_FOREIGN_CODE, field=name, value=value)
        return Case(
            envelope=envelope,
            payload=payload,
            care=care,
            insured=insured,
            route=self._directory.route(care, insured),
            deadline_us=monotonic_us() + envelope.remaining_ms * 1000,
        )

    async def _identify(
        self, cases: list[Case], results: dict[str, envelope_pb2.ExchangeResult]
    ) -> list[Case]:
        if not cases:
            return []
        request = enrollment_pb2.BatchIdentifyRequest(
            items=[
                enrollment_pb2.IdentifyItem(
                    id=case.id,
                    credential=case.payload.credential,
                    insured_area=case.insured.area,
                    insurance=case.payload.visit.insurance,
                    day=case.payload.visit.start_date,
                    disease_code=case.payload.visit.disease_code,
                    institution=case.envelope.origin.institution,
                )
                for case in cases
            ]
        )
        try:
            answer = await self._enrollment.BatchIdentify(request, timeout=self._seconds)
        except Refusal as refusal:
            return _all_undecided(cases, results, refusal)
        found = {result.id: result for result in answer.results}

        def take(case: Case, result: Any) -> None:
            case.participant = result.participant

        return _spread(cases, found, "participant", take, results)

    async def _entitle(
        self, cases: list[Case], results: dict[str, envelope_pb2.ExchangeResult]
    ) -> list[Case]:
        asked = [case for case in cases if case.participant is not None]
        if not asked:
            return cases
        day = business_day(self._clock.now_ms()).isoformat()
        request = filing_pb2.BatchResolveEntitlementRequest(
            items=[
                filing_pb2.ResolveEntitlementItem(
                    id=case.id,
                    person_id=case.participant.person_id,
                    person_class=case.participant.person_class,
                    visit=visit_of(case),
                    care_site=case.care.site,
                    route=case.route,
                    day=day,
                    insured_since=case.participant.insured_since,
                    institution=case.envelope.origin.institution,
                    contracted_institution=case.participant.contracted_institution,
                    chosen_institutions=case.participant.chosen_institutions,
                )
                for case in asked
                if case.participant is not None
            ]
        )
        try:
            answer = await self._filing.BatchResolveEntitlement(request, timeout=self._seconds)
        except Refusal as refusal:
            refused = [case for case in cases if case.participant is None]
            return refused + _all_undecided(asked, results, refusal)
        found = {result.id: result for result in answer.results}

        def take(case: Case, result: Any) -> None:
            case.entitlement = result.entitlement

        kept = _spread(asked, found, "entitlement", take, results)
        return [case for case in cases if case.participant is None] + kept

    async def _attempt(
        self,
        cases: list[Case],
        results: dict[str, envelope_pb2.ExchangeResult],
        watch: Stopwatch,
    ) -> list[Case]:
        """Read, compute, decide; return the cases that must be tried again."""
        reading = await self._store.read(
            [case.id for case in cases if not case.is_quote],
            list({case.person: None for case in cases if case.refusal is None}),
            list({case.account: None for case in cases if case.refusal is None and case.account}),
        )
        fresh: list[Case] = []
        for case in cases:
            stored = reading.decided.get(case.id)
            if stored is not None:
                results[case.id] = stored_answer(case.id, case.envelope.payload_digest, stored)
            elif case.deadline_us <= monotonic_us():
                late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
                results[case.id] = undecided(case.id, late.status())
            else:
                fresh.append(case)
        units, later = group(fresh)
        watch.lap(types_pb2.HOP_DECIDE)
        now_ms = self._clock.now_ms()
        try:
            units = await self._compute(units, reading, now_ms, results)
        except Refusal as refusal:
            _all_undecided((case for unit in units for case in unit.cases), results, refusal)
            return later
        watch.lap(types_pb2.HOP_POLICY)
        again = await self._write(units, reading, now_ms, results)
        watch.lap(types_pb2.HOP_DECIDE)
        return [*again, *later]

    async def _compute(
        self,
        units: list[Unit],
        reading: Reading,
        now_ms: int,
        results: dict[str, envelope_pb2.ExchangeResult],
    ) -> list[Unit]:
        """Ask policy for every unit; a case that it refuses, or whose quote no longer holds,
        becomes a decided refusal, and what came after it in the unit is computed without it.
        A case that cannot be computed stays undecided, alone. Returns what can be decided.
        """
        waiting = units
        while waiting:
            asked = [unit for unit in waiting if any(c.refusal is None for c in unit.cases)]
            if not asked:
                break
            day = business_day(now_ms).isoformat()
            request = policy_pb2.BatchComputeRequest(
                items=[compute_unit(unit, reading, day) for unit in asked]
            )
            answer = await self._policy.BatchCompute(request, timeout=self._seconds)
            found = {result.id: result for result in answer.results}
            waiting = [unit for unit in asked if self._take_benefits(unit, found, results)]
        return [unit for unit in units if unit.cases]

    def _take_benefits(
        self,
        unit: Unit,
        found: Mapping[str, policy_pb2.ComputeResult],
        results: dict[str, envelope_pb2.ExchangeResult],
    ) -> bool:
        """Take in the benefits of a unit; True when it must be computed again without a case."""
        open_cases = [case for case in unit.cases if case.refusal is None]
        missing = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="policy").status()
        result = found.get(open_cases[0].id, policy_pb2.ComputeResult(error=missing))
        computed = {case_result.id: case_result for case_result in result.cases}
        for case in open_cases:
            error = result.error if result.HasField("error") else missing
            case_result = computed.get(case.id, policy_pb2.CaseResult(error=error))
            if case_result.HasField("error"):
                if Refusal.from_status(case_result.error).decided:
                    case.refusal = case_result.error
                else:
                    results[case.id] = undecided(case.id, case_result.error)
                    unit.cases.remove(case)
                continue
            case.benefit = case_result.benefit
            changed = quote_changed(case)
            if changed is not None:
                case.refusal = changed.status()
                case.benefit = None
                return len(open_cases) > 1
        return False

    async def _write(
        self,
        units: list[Unit],
        reading: Reading,
        now_ms: int,
        results: dict[str, envelope_pb2.ExchangeResult],
    ) -> list[Case]:
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        decisions: list[NewDecision] = []
        answers: dict[str, envelope_pb2.ExchangeResult] = {}
        writes: list[UnitWrite] = []
        for unit in units:
            answered = decide_unit(unit, reading, now, len(writes))
            if unit.cases[0].is_quote:
                results.update({case.id: answer for case, _, answer in answered})
                continue
            writes.append(unit.write)
            for case, decision, answer in answered:
                decisions.append(decision)
                answers[case.id] = answer
        if not decisions:
            return []

        async def run(numbers: Sequence[int]) -> list[str]:
            wanted = set(numbers)
            part = [decision for decision in decisions if decision.unit in wanted]
            try:
                return list(await self._store.decide(part, writes, now))
            except RACE:
                return []

        try:
            ids, spoiled = await halving(range(len(writes)), run)
            written = set(ids)
        except Refusal as refusal:
            # The connection was lost: what was written is unknown, so nothing may be said.
            for unit in units:
                for case in unit.cases:
                    results[case.id] = undecided(case.id, refusal.status())
            return []
        for decision in decisions:
            if decision.unit in spoiled:
                broken = Refusal(Reason.ERROR_REASON_INTERNAL, incident=decision.settlement_id)
                answers[decision.settlement_id] = undecided(decision.settlement_id, broken.status())
                written.add(decision.settlement_id)
        results.update({key: answer for key, answer in answers.items() if key in written})
        return [
            reset(case)
            for unit in units
            for case in unit.cases
            if not case.is_quote and case.id not in written
        ]


def _in_turn(case: Case) -> PersonKey | None:
    """Whose rows the case changes: a quote and a refusal change none."""
    return None if case.refusal is not None or case.is_quote else case.person


def _spread(
    cases: list[Case],
    found: Mapping[str, Any],
    field_name: str,
    take: Any,
    results: dict[str, envelope_pb2.ExchangeResult],
) -> list[Case]:
    """Give each case its answer; return those that go on, decided refusals included."""
    kept: list[Case] = []
    for case in cases:
        result = found.get(case.id)
        if result is None:
            missing = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service=field_name)
            results[case.id] = undecided(case.id, missing.status())
            continue
        if result.HasField(field_name):
            take(case, result)
        elif Refusal.from_status(result.error).decided:
            case.refusal = result.error
        else:
            results[case.id] = undecided(case.id, result.error)
            continue
        kept.append(case)
    return kept


def _all_undecided(
    cases: Iterable[Case], results: dict[str, envelope_pb2.ExchangeResult], refusal: Refusal
) -> list[Case]:
    for case in cases:
        results[case.id] = undecided(case.id, refusal.status())
    return []
