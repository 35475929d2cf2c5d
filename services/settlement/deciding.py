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

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import protovalidate
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from infra.runtime import journal
from infra.runtime.clock import Clock, business_day, id_milliseconds, monotonic_us
from infra.runtime.contract import REVISION
from infra.runtime.database import halving
from infra.runtime.directory import Directory, Place
from infra.runtime.errors import Reason, Refusal
from infra.runtime.rules_zh import describe
from infra.runtime.telemetry import Stopwatch
from services.settlement.domain.balance import FIELDS, Chain, PersonKey, Row, Values
from services.settlement.domain.quote import change_cause, quote_digest
from services.settlement.domain.states import Decision
from services.settlement.domain.window import inside_window
from services.settlement.store.insured import (
    RACE,
    InsuredStore,
    NewDecision,
    Reading,
    Stored,
    UnitWrite,
)
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc
from yidi.settlement.v1 import payload_pb2

ATTEMPTS = 5
"""How often a unit is read and decided again before it is PERSON_BUSY."""
_log = structlog.get_logger("yidi.settlement")
_QUOTE = types_pb2.EXCHANGE_KIND_QUOTE
_SETTLE = types_pb2.EXCHANGE_KIND_SETTLE
_FACTS = ("deductible_level", "settlement_level", "price_limit_level", "grade")


@dataclass(slots=True)
class Case:
    """One envelope on its way to a decision."""

    envelope: envelope_pb2.Envelope
    payload: payload_pb2.ExchangePayload
    care: Place
    insured: Place
    route: types_pb2.Route.ValueType
    deadline_us: int
    participant: enrollment_pb2.Participant | None = None
    entitlement: filing_pb2.Entitlement | None = None
    refusal: status_pb2.Status | None = None
    """A decided refusal, to be stored."""
    benefit: policy_pb2.Benefit | None = None
    policy_case: policy_pb2.ComputeCase | None = None

    @property
    def id(self) -> str:
        """The settlement id."""
        return self.envelope.id

    @property
    def is_quote(self) -> bool:
        """Whether nothing may be written."""
        return self.envelope.kind == _QUOTE

    @property
    def person(self) -> PersonKey:
        """Whose accumulators the case touches."""
        assert self.participant is not None
        return PersonKey(
            self.insured.area, self.payload.visit.insurance, self.participant.person_id
        )

    @property
    def account(self) -> str:
        """The account that may pay, or empty."""
        assert self.participant is not None
        return self.participant.account_id if self.payload.visit.use_account else ""


@dataclass(slots=True)
class Unit:
    """The cases of one person, in order: they share accumulators and are written all or none."""

    cases: list[Case]
    write: UnitWrite = field(default_factory=UnitWrite)


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
        self._turns: dict[PersonKey, asyncio.Event] = {}
        """Persons who are being decided, and what their waiters wait for."""

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
                results[envelope.id] = _undecided(envelope.id, refusal.status())
        watch.lap(types_pb2.HOP_INSURED)
        cases = await self._identify(cases, results)
        watch.lap(types_pb2.HOP_ENROLLMENT)
        cases = await self._entitle(cases, results)
        watch.lap(types_pb2.HOP_FILING)
        tried: Counter[str] = Counter()
        while cases:
            turn, cases = await self._take_turns(cases)
            tried.update(case.id for case in turn)
            persons = {case.person for case in turn if _in_turn(case)}
            try:
                again = await self._attempt(turn, results, watch)
            finally:
                for person in persons:
                    self._turns.pop(person).set()
            for case in again:
                if tried[case.id] < ATTEMPTS:
                    cases.append(case)
                else:
                    busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY)
                    results[case.id] = _undecided(case.id, busy.status())
        hops = watch.hops()
        for result in results.values():
            result.hops.extend(hops)
        return list(results.values())

    async def _take_turns(self, cases: list[Case]) -> tuple[list[Case], list[Case]]:
        """The cases whose persons no other batch of this process is deciding, and the others.

        The version of a row would find them out, but only after all the work; the batch goes on
        without them, and only when nothing else is left does it wait.
        """
        while all(_in_turn(case) and case.person in self._turns for case in cases):
            await self._turns[cases[0].person].wait()
        turn = [case for case in cases if not _in_turn(case) or case.person not in self._turns]
        later = [case for case in cases if _in_turn(case) and case.person in self._turns]
        for case in turn:
            if _in_turn(case):
                self._turns[case.person] = asyncio.Event()
        return turn, later

    def _receive(self, envelope: envelope_pb2.Envelope) -> Case:
        """Open the payload and hold it against its envelope; raises undecided refusals."""
        if hashlib.sha256(envelope.payload).digest() != envelope.payload_digest:
            raise Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT)
        try:
            payload = payload_pb2.ExchangePayload.FromString(envelope.payload)
        except DecodeError as error:
            raise Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT) from error
        faults = [describe(fault) for fault in self._validator.collect_violations(payload)]
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        if envelope.kind not in (_QUOTE, _SETTLE) or envelope.contract_revision > REVISION:
            raise Refusal(Reason.ERROR_REASON_CONTRACT_TOO_OLD)
        now_ms = self._clock.now_ms()
        if envelope.kind == _SETTLE and not inside_window(id_milliseconds(envelope.id), now_ms):
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
                    visit=_visit(case),
                    care_site=case.care.site,
                    route=case.route,
                    day=day,
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
                results[case.id] = _stored_answer(case, stored)
            elif case.deadline_us <= monotonic_us():
                late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
                results[case.id] = _undecided(case.id, late.status())
            else:
                fresh.append(case)
        units, later = _units(fresh)
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
                items=[_compute_unit(unit, reading, day) for unit in asked]
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
                    results[case.id] = _undecided(case.id, case_result.error)
                    unit.cases.remove(case)
                continue
            case.benefit = case_result.benefit
            changed = _quote_changed(case)
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
            answered = self._decide_unit(unit, reading, now, len(writes))
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
                    results[case.id] = _undecided(case.id, refusal.status())
            return []
        for decision in decisions:
            if decision.unit in spoiled:
                broken = Refusal(Reason.ERROR_REASON_INTERNAL, incident=decision.settlement_id)
                answers[decision.settlement_id] = _undecided(
                    decision.settlement_id, broken.status()
                )
                written.add(decision.settlement_id)
        results.update({key: answer for key, answer in answers.items() if key in written})
        return [
            _reset(case)
            for unit in units
            for case in unit.cases
            if not case.is_quote and case.id not in written
        ]

    def _decide_unit(
        self, unit: Unit, reading: Reading, now: datetime, number: int
    ) -> list[tuple[Case, NewDecision, envelope_pb2.ExchangeResult]]:
        rows: Mapping[str, Row] = {}
        open_case = next((case for case in unit.cases if case.benefit is not None), None)
        if open_case is not None:
            rows = reading.accumulators.get(open_case.person, {})
        account_id, account = _account(unit.cases, reading)
        chain = Chain(rows)
        balance = account.values[0] if account else 0
        answered = []
        for case in unit.cases:
            if case.refusal is not None or case.benefit is None:
                answered.append(self._rejection(case, now, number))
                continue
            kept = chain.apply({delta.period: _values(delta) for delta in case.benefit.deltas})
            kept_account = None
            paid = case.benefit.amounts.account_fen
            if account is not None and paid:
                kept_account = {
                    "account_id": account_id,
                    "version": account.version,
                    "before": balance,
                    "delta": -paid,
                }
                balance -= paid
            balances = {"accumulators": kept, "account": kept_account}
            answered.append(self._commitment(case, now, number, balances, balance))
        if open_case is not None:
            unit.write.person = open_case.person
            unit.write.accumulators = {
                period: (rows[period].version if period in rows else -1, values)
                for period, values in chain.values.items()
            }
            if account is not None and balance != account.values[0]:
                unit.write.account = (account_id, account.version, balance)
        return answered

    def _commitment(
        self,
        case: Case,
        now: datetime,
        unit: int,
        balances: Mapping[str, object],
        account_balance: int,
    ) -> tuple[Case, NewDecision, envelope_pb2.ExchangeResult]:
        assert case.benefit is not None
        assert case.participant is not None
        benefit, payload = case.benefit, case.payload
        details = payload_pb2.OutcomeDetails(
            entitlement=case.entitlement,
            steps=benefit.steps,
            quote_digest=_quote_digest(case),
            catalogue_version=payload.catalogue_version,
            person_class=case.participant.person_class,
            deltas=benefit.deltas,
            account_balance_fen=account_balance,
        ).SerializeToString()
        header = envelope_pb2.OutcomeHeader(
            settlement_id=case.id,
            kind=case.envelope.kind,
            undoes=payload.undoes,
            care_area=case.care.area,
            care_site=case.care.site,
            insured_area=case.insured.area,
            insured_site=case.insured.site,
            route=case.route,
            institution=payload.bill.institution,
            insurance=payload.visit.insurance,
            care_type=payload.visit.care_type,
            amounts=benefit.amounts,
            funds=benefit.funds,
            policy=benefit.policy,
            request_digest=case.envelope.payload_digest,
            business_day=business_day(int(now.timestamp() * 1000)).isoformat(),
            details_digest=hashlib.sha256(details).digest(),
            contract_revision=REVISION,
        )
        header.decided_at.FromDatetime(now)
        raw = header.SerializeToString()
        outcome = envelope_pb2.Outcome(
            header=raw, details=details, digest=hashlib.sha256(raw).digest()
        )
        decision = _decision(
            case, Decision.COMMITTED, unit, header=header, outcome=outcome, balances=balances
        )
        return case, decision, envelope_pb2.ExchangeResult(id=case.id, committed=outcome)

    def _rejection(
        self, case: Case, now: datetime, unit: int
    ) -> tuple[Case, NewDecision, envelope_pb2.ExchangeResult]:
        rejection = envelope_pb2.Rejection(
            settlement_id=case.id,
            state=types_pb2.DECISION_STATE_REJECTED,
            request_digest=case.envelope.payload_digest,
            business_day=business_day(int(now.timestamp() * 1000)).isoformat(),
            status=case.refusal,
        )
        rejection.decided_at.FromDatetime(now)
        raw = rejection.SerializeToString()
        decision = _decision(case, Decision.REJECTED, unit, rejection=raw)
        return case, decision, envelope_pb2.ExchangeResult(id=case.id, rejected=raw)


def _decision(
    case: Case,
    state: Decision,
    unit: int,
    *,
    header: envelope_pb2.OutcomeHeader | None = None,
    outcome: envelope_pb2.Outcome | None = None,
    rejection: bytes | None = None,
    balances: Mapping[str, object] | None = None,
) -> NewDecision:
    return NewDecision(
        settlement_id=case.id,
        unit=unit,
        state=state,
        kind=case.envelope.kind,
        request_digest=case.envelope.payload_digest,
        institution=case.payload.bill.institution,
        care_area=case.care.area,
        insured_area=case.insured.area,
        insurance=case.payload.visit.insurance,
        person_id=case.participant.person_id if case.participant else None,
        header=header,
        outcome=outcome,
        rejection=rejection,
        balances=msgspec.json.encode(balances or {}).decode(),
        policy_case=case.policy_case.SerializeToString() if case.policy_case else None,
    )


def _units(cases: Sequence[Case]) -> tuple[list[Unit], list[Case]]:
    """Group the cases by person; a case whose account another person's unit uses waits its turn."""
    by_person: dict[PersonKey, Unit] = {}
    account_owner: dict[str, PersonKey] = {}
    units: list[Unit] = []
    later: list[Case] = []
    for case in cases:
        if case.refusal is not None or case.is_quote:
            units.append(Unit([case]))
            continue
        person = case.person
        if case.account and account_owner.setdefault(case.account, person) != person:
            later.append(case)
        elif person in by_person:
            by_person[person].cases.append(case)
        else:
            by_person[person] = unit = Unit([case])
            units.append(unit)
    return units, later


def _visit(case: Case) -> visit_pb2.Visit:
    """The visit with pooling areas, whatever county codes it came with."""
    visit = visit_pb2.Visit()
    visit.CopyFrom(case.payload.visit)
    visit.care_area, visit.insured_area = case.care.area, case.insured.area
    return visit


def _in_turn(case: Case) -> bool:
    """Whether the case changes rows of its person: a quote and a refusal change none."""
    return case.refusal is None and not case.is_quote


def _account(cases: Iterable[Case], reading: Reading) -> tuple[str, Row | None]:
    """The account that may pay for a unit: its cases are one person's, but not each names it."""
    named = (case.account for case in cases if case.participant is not None)
    found = next((account for account in named if account in reading.accounts), "")
    return found, reading.accounts.get(found)


def _compute_unit(unit: Unit, reading: Reading, day: str) -> policy_pb2.ComputeUnit:
    cases = [case for case in unit.cases if case.refusal is None]
    first = cases[0]
    _, account = _account(cases, reading)
    # Periods are named by the year they begin in; the one before the admission may still run.
    oldest = f"{int(min(case.payload.visit.start_date for case in cases)[:4]) - 1:04d}"
    for case in cases:
        case.policy_case = _policy_case(case, day)
    return policy_pb2.ComputeUnit(
        id=first.id,
        insured_area=first.insured.area,
        insurance=first.payload.visit.insurance,
        openings=[
            policy_pb2.Accumulator(period=period, **dict(zip(FIELDS, row.values, strict=True)))
            for period, row in reading.accumulators[first.person].items()
            if period >= oldest
        ],
        account_balance_fen=account.values[0] if account else 0,
        cases=[case.policy_case for case in cases if case.policy_case is not None],
    )


def _policy_case(case: Case, day: str) -> policy_pb2.ComputeCase:
    assert case.participant is not None
    assert case.entitlement is not None
    visit, institution = case.payload.visit, case.payload.institution
    return policy_pb2.ComputeCase(
        id=case.id,
        total_fen=case.payload.total_fen,
        parts=case.payload.parts,
        facts=policy_pb2.Facts(
            route=case.route,
            basis=case.entitlement.basis,
            benefit_class=case.entitlement.benefit_class,
            care_type=visit.care_type,
            person_class=case.participant.person_class,
            age=case.participant.age,
            civil_servant=case.participant.civil_servant,
            start_date=visit.start_date,
            end_date=visit.end_date,
            business_day=day,
            disease_code=visit.disease_code,
            use_account=visit.use_account,
            **{name: getattr(institution, name) for name in _FACTS},
        ),
    )


def _values(accumulator: policy_pb2.Accumulator) -> Values:
    return tuple(getattr(accumulator, name) for name in FIELDS)


def _amounts(amounts: amounts_pb2.Amounts) -> dict[str, int]:
    return {name: getattr(amounts, name) for name in journal.AMOUNTS}


def _quote_digest(case: Case) -> bytes:
    assert case.benefit is not None
    return quote_digest(
        case.payload.body_digest,
        case.payload.catalogue_version,
        case.benefit.policy.hash,
        _amounts(case.benefit.amounts),
    )


def _quote_changed(case: Case) -> Refusal | None:
    """QUOTE_CHANGED when the patient was told other amounts than the computed ones."""
    payload = case.payload
    if case.is_quote or not payload.HasField("expected"):
        return None
    assert case.benefit is not None
    expected = payload.expected
    quoted = _amounts(expected.amounts) if expected.HasField("amounts") else {}
    computed = _amounts(case.benefit.amounts)
    differs = (
        (expected.quote_digest and expected.quote_digest != _quote_digest(case))
        or (quoted and quoted != computed)
        or (expected.policy_hash and expected.policy_hash != case.benefit.policy.hash)
        or (expected.catalogue_version and expected.catalogue_version != payload.catalogue_version)
    )
    if not differs:
        return None
    cause = change_cause(
        quoted_catalogue=expected.catalogue_version,
        catalogue=payload.catalogue_version,
        quoted_policy=expected.policy_hash,
        policy=case.benefit.policy.hash,
        quoted=quoted,
        computed=computed,
    )
    refusal = Refusal(Reason.ERROR_REASON_QUOTE_CHANGED, cause=cause)
    refusal.details |= {f"quoted_{name}": str(fen) for name, fen in quoted.items()}
    refusal.details |= {f"computed_{name}": str(fen) for name, fen in computed.items()}
    return refusal


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
            results[case.id] = _undecided(case.id, missing.status())
            continue
        if result.HasField(field_name):
            take(case, result)
        elif Refusal.from_status(result.error).decided:
            case.refusal = result.error
        else:
            results[case.id] = _undecided(case.id, result.error)
            continue
        kept.append(case)
    return kept


def _all_undecided(
    cases: Iterable[Case], results: dict[str, envelope_pb2.ExchangeResult], refusal: Refusal
) -> list[Case]:
    for case in cases:
        results[case.id] = _undecided(case.id, refusal.status())
    return []


def _undecided(settlement_id: str, status: status_pb2.Status) -> envelope_pb2.ExchangeResult:
    return envelope_pb2.ExchangeResult(id=settlement_id, error=status)


def _stored_answer(case: Case, stored: Stored) -> envelope_pb2.ExchangeResult:
    if stored.request_digest != case.envelope.payload_digest and (
        stored.state is not Decision.ABORTED
    ):
        _log.error("alarm: settlement id reused", settlement_id=case.id)
        reused = Refusal(Reason.ERROR_REASON_SETTLEMENT_ID_REUSED, settlement_id=case.id)
        return _undecided(case.id, reused.status())
    if stored.state is Decision.COMMITTED:
        return envelope_pb2.ExchangeResult(id=case.id, committed=stored.outcome)
    if stored.state is Decision.REJECTED:
        return envelope_pb2.ExchangeResult(id=case.id, rejected=stored.rejection or b"")
    return envelope_pb2.ExchangeResult(id=case.id, aborted=stored.rejection or b"")


def _reset(case: Case) -> Case:
    """Forget what was computed from rows that have changed. Refusals by enrollment and filing
    stay; those that came from the computation are found again.
    """
    case.benefit = None
    if case.policy_case is not None:
        case.refusal = None
        case.policy_case = None
    return case
