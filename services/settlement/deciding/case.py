"""One envelope on its way to a decision, and the cases that must be decided together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.rpc import status_pb2

from infra.runtime.directory import Place
from services.settlement.domain.balance import PersonKey
from services.settlement.store.insured import (
    UnitWrite,
)
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import filing_pb2
from yidi.policy.v1 import policy_pb2
from yidi.settlement.v1 import payload_pb2

QUOTE = types_pb2.EXCHANGE_KIND_QUOTE
SETTLE = types_pb2.EXCHANGE_KIND_SETTLE


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
        return self.envelope.kind == QUOTE

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


def group(cases: Sequence[Case]) -> tuple[list[Unit], list[Case]]:
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


def reset(case: Case) -> Case:
    """Forget what was computed from rows that have changed. Refusals by enrollment and filing
    stay; those that came from the computation are found again.
    """
    case.benefit = None
    if case.policy_case is not None:
        case.refusal = None
        case.policy_case = None
    return case
