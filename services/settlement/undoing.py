"""How the insured place decides reversals and refunds (PROTOCOL: undo is a new settlement).

| step      | trips | what                                                                   |
|-----------|-------|------------------------------------------------------------------------|
| receive   | 0     | payload digest, codes held against the origin, commit window           |
| originals | 1     | what is to be undone, and whether it has been                          |
| read      | 1     | ids already decided, accumulators, accounts                            |
| decide    | 1     | the same statement as for settlements, with the undo claimed           |

No policy is run and nobody is identified: amounts and deltas are the exact negation of the stored
original. The primary key of `undo` makes the second undo of an original fail.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import msgspec
import protovalidate

from infra.runtime import journal
from infra.runtime.clock import Clock, business_day, id_milliseconds, monotonic_us
from infra.runtime.contract import REVISION
from infra.runtime.errors import Reason, Refusal
from infra.runtime.payload import opened
from infra.runtime.rules_zh import describe
from infra.runtime.telemetry import Stopwatch
from services.settlement.answers import stored_answer, undecided
from services.settlement.domain.balance import ABSENT, FIELDS, ZERO, Chain, PersonKey, Row
from services.settlement.domain.states import Decision
from services.settlement.domain.undo import (
    Refused,
    may_undo,
    negated,
    negated_account,
    negated_deltas,
)
from services.settlement.domain.window import inside_window
from services.settlement.store.insured import RACE, InsuredStore, NewDecision, Reading, UnitWrite
from services.settlement.store.resolution import ResolutionStore, StoredOriginal
from services.settlement.turns import Turns
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.settlement.v1 import payload_pb2

ATTEMPTS = 5
_REVERSAL = types_pb2.EXCHANGE_KIND_REVERSAL
KINDS = frozenset({_REVERSAL, types_pb2.EXCHANGE_KIND_REFUND})
"""The kinds of an undo."""


@dataclass(slots=True)
class _Undo:
    """One undo on its way to a decision."""

    envelope: envelope_pb2.Envelope
    payload: payload_pb2.UndoPayload
    deadline_us: int

    @property
    def id(self) -> str:
        return self.envelope.id


class Undoer:
    """Decides batches of undos; holds no state between them but whose turn it is."""

    def __init__(self, *, store: InsuredStore, resolution: ResolutionStore, clock: Clock) -> None:
        self._store = store
        self._resolution = resolution
        self._clock = clock
        self._validator = protovalidate.Validator()
        self._turns = Turns()

    async def exchange(
        self, envelopes: Sequence[envelope_pb2.Envelope]
    ) -> list[envelope_pb2.ExchangeResult]:
        """One result per envelope, in any order."""
        watch = Stopwatch()
        results: dict[str, envelope_pb2.ExchangeResult] = {}
        waiting: list[_Undo] = []
        for envelope in envelopes:
            try:
                waiting.append(self._receive(envelope))
            except Refusal as refusal:
                results[envelope.id] = undecided(envelope.id, refusal.status())
        watch.lap(types_pb2.HOP_INSURED)
        lost: Counter[str] = Counter()
        while waiting:
            originals = await self._resolution.originals(
                list({undo.payload.undoes: None for undo in waiting})
            )
            async with self._turns.take(waiting, partial(_person, originals)) as (turn, others):
                raced, later = await self._attempt(turn, originals, results)
            waiting = [*later, *others]
            lost.update(undo.id for undo in raced)
            for undo in raced:
                if lost[undo.id] < ATTEMPTS:
                    waiting.append(undo)
                else:
                    busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY)
                    results[undo.id] = undecided(undo.id, busy.status())
        watch.lap(types_pb2.HOP_DECIDE)
        for result in results.values():
            result.hops.extend(watch.hops())
        return list(results.values())

    def _receive(self, envelope: envelope_pb2.Envelope) -> _Undo:
        payload = opened(envelope, payload_pb2.UndoPayload)
        faults = [describe(fault) for fault in self._validator.collect_violations(payload)]
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        if envelope.contract_revision > REVISION:
            raise Refusal(Reason.ERROR_REASON_CONTRACT_TOO_OLD)
        if not inside_window(id_milliseconds(envelope.id), self._clock.now_ms()):
            raise Refusal(Reason.ERROR_REASON_CLOCK_SKEW)
        institution = envelope.origin.institution
        if payload.bill.institution != institution:
            raise Refusal(
                Reason.ERROR_REASON_FOREIGN_CODE,
                field="bill.institution",
                value=payload.bill.institution,
            )
        return _Undo(envelope, payload, monotonic_us() + envelope.remaining_ms * 1000)

    async def _attempt(
        self,
        undos: list[_Undo],
        originals: Mapping[str, StoredOriginal],
        results: dict[str, envelope_pb2.ExchangeResult],
    ) -> tuple[list[_Undo], list[_Undo]]:
        """Read and decide; return the undos that lost a race, and those whose turn comes next."""
        persons = {o.person: None for o in originals.values() if o.person is not None}
        accounts = {
            account[0]: None
            for original in originals.values()
            if (account := negated_account(original.balances)) is not None
        }
        reading = await self._store.read([undo.id for undo in undos], list(persons), list(accounts))
        now_ms = self._clock.now_ms()
        batch = _Batch(reading, originals, now_ms)
        later: list[_Undo] = []
        for undo in undos:
            row = reading.decided.get(undo.id)
            if row is not None:
                results[undo.id] = stored_answer(undo.id, undo.envelope.payload_digest, row)
            elif undo.deadline_us <= monotonic_us():
                late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
                results[undo.id] = undecided(undo.id, late.status())
            elif not batch.add(undo):
                later.append(undo)
        if not batch.decisions:
            return [], later
        try:
            written = await self._store.decide(
                batch.decisions, batch.writes, datetime.fromtimestamp(now_ms / 1000, UTC)
            )
        except RACE:
            written = set()
        except Refusal as refusal:
            for undo in batch.undos:
                results[undo.id] = undecided(undo.id, refusal.status())
            return [], later
        raced = [undo for undo in batch.undos if undo.id not in written]
        for undo in batch.undos:
            if undo.id in written:
                results[undo.id] = batch.answers[undo.id]
        return raced, later


def _person(originals: Mapping[str, StoredOriginal], undo: _Undo) -> PersonKey | None:
    original = originals.get(undo.payload.undoes)
    return original.person if original is not None else None


class _Batch:
    """The decisions of one attempt: each undo a unit of its own, each person and original once."""

    def __init__(
        self, reading: Reading, originals: Mapping[str, StoredOriginal], now_ms: int
    ) -> None:
        self._reading = reading
        self._originals = originals
        self._now_ms = now_ms
        self._today = business_day(now_ms)
        self._taken: set[object] = set()
        self.undos: list[_Undo] = []
        self.decisions: list[NewDecision] = []
        self.writes: list[UnitWrite] = []
        self.answers: dict[str, envelope_pb2.ExchangeResult] = {}

    def add(self, undo: _Undo) -> bool:
        """Decide one undo; False when its person or original is taken and it must wait."""
        original = self._originals.get(undo.payload.undoes)
        against = may_undo(
            original.facts if original else None,
            institution=undo.envelope.origin.institution,
            reversal=undo.envelope.kind == _REVERSAL,
            today=self._today,
        )
        if original is None or original.header is None or against is not None:
            self._refuse(undo, original, against or Refused.NOT_FOUND)
            return True
        account = negated_account(original.balances)
        rivals: set[object] = {original.person, undo.payload.undoes}
        if account is not None:
            rivals.add(account[0])
        if self._taken & rivals:
            return False
        self._taken |= rivals
        self._commit(undo, original, original.header, account)
        return True

    def _commit(
        self,
        undo: _Undo,
        original: StoredOriginal,
        first: envelope_pb2.OutcomeHeader,
        account: tuple[str, int] | None,
    ) -> None:
        write, balances, balance = self._balances(original, account)
        details = payload_pb2.OutcomeDetails.FromString(original.details)
        del details.steps[:]
        for delta in details.deltas:
            for name in FIELDS:
                setattr(delta, name, -getattr(delta, name))
        details.quote_digest = b""
        details.account_balance_fen = balance
        raw_details = details.SerializeToString()
        amounts = {name: getattr(first.amounts, name) for name in journal.AMOUNTS}
        header = envelope_pb2.OutcomeHeader()
        header.CopyFrom(first)
        header.settlement_id = undo.id
        header.kind = undo.envelope.kind
        header.undoes = undo.payload.undoes
        header.amounts.CopyFrom(amounts_pb2.Amounts(**negated(amounts)))
        for fund in header.funds:
            fund.fen = -fund.fen
        header.request_digest = undo.envelope.payload_digest
        header.decided_at.FromMilliseconds(self._now_ms)
        header.business_day = self._today.isoformat()
        header.details_digest = hashlib.sha256(raw_details).digest()
        header.contract_revision = REVISION
        raw = header.SerializeToString()
        outcome = envelope_pb2.Outcome(
            header=raw, details=raw_details, digest=hashlib.sha256(raw).digest()
        )
        self._put(
            undo,
            NewDecision(
                settlement_id=undo.id,
                unit=len(self.writes),
                state=Decision.COMMITTED,
                kind=undo.envelope.kind,
                request_digest=undo.envelope.payload_digest,
                institution=undo.envelope.origin.institution,
                care_area=first.care_area,
                insured_area=first.insured_area,
                insurance=first.insurance,
                person_id=original.person.person_id if original.person else None,
                header=header,
                outcome=outcome,
                rejection=None,
                balances=msgspec.json.encode(balances).decode(),
                policy_case=None,
                undoes=undo.payload.undoes,
            ),
            write,
            envelope_pb2.ExchangeResult(id=undo.id, committed=outcome),
        )

    def _balances(
        self, original: StoredOriginal, account: tuple[str, int] | None
    ) -> tuple[UnitWrite, dict[str, object], int]:
        """The rows to write, what the decision keeps of them, the account's balance after it."""
        person = original.person
        rows: Mapping[str, Row] = self._reading.accumulators.get(person, {}) if person else {}
        chain = Chain(rows)
        kept = chain.apply(negated_deltas(original.balances))
        write = UnitWrite(person=person)
        write.accumulators = {
            period: (rows[period].version if period in rows else ABSENT, values)
            for period, values in chain.values.items()
        }
        balances: dict[str, object] = {"accumulators": kept, "account": None}
        balance = 0
        if account is not None:
            account_id, back = account
            row = self._reading.accounts.get(account_id, Row(0, ZERO[:1]))
            balance = row.values[0] + back
            write.account = (account_id, row.version, balance)
            balances["account"] = {
                "account_id": account_id,
                "version": row.version,
                "before": row.values[0],
                "delta": back,
            }
        return write, balances, balance

    def _refuse(self, undo: _Undo, original: StoredOriginal | None, against: str) -> None:
        refusal = Refusal(
            Reason.Value(f"ERROR_REASON_{against}"),
            original_id=undo.payload.undoes,
            undo_id=(original.facts.undone_by or "") if original else "",
        )
        rejection = envelope_pb2.Rejection(
            settlement_id=undo.id,
            state=types_pb2.DECISION_STATE_REJECTED,
            request_digest=undo.envelope.payload_digest,
            business_day=self._today.isoformat(),
            status=refusal.status(),
        )
        rejection.decided_at.FromMilliseconds(self._now_ms)
        raw = rejection.SerializeToString()
        self._put(
            undo,
            NewDecision(
                settlement_id=undo.id,
                unit=len(self.writes),
                state=Decision.REJECTED,
                kind=undo.envelope.kind,
                request_digest=undo.envelope.payload_digest,
                institution=undo.envelope.origin.institution,
                care_area=undo.envelope.origin.care_area,
                insured_area=undo.envelope.insured_area,
                insurance=0,
                person_id=None,
                header=None,
                outcome=None,
                rejection=raw,
                balances="{}",
                policy_case=None,
                undoes=undo.payload.undoes,
            ),
            UnitWrite(),
            envelope_pb2.ExchangeResult(id=undo.id, rejected=raw),
        )

    def _put(
        self,
        undo: _Undo,
        decision: NewDecision,
        write: UnitWrite,
        answer: envelope_pb2.ExchangeResult,
    ) -> None:
        self.undos.append(undo)
        self.decisions.append(decision)
        self.writes.append(write)
        self.answers[undo.id] = answer
