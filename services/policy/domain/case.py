"""What a computation is given and what it answers; all amounts are fen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.policy.domain.document import Document, Provenance, Unit


class CannotCompute(Exception):
    """A case that the policy does not decide; the accumulators stay as they were."""


class NotStated(CannotCompute):
    """The document states no value for `missing`, e.g. `inpatient/ratio/three/retired`."""

    def __init__(self, missing: str) -> None:
        super().__init__(missing)
        self.missing = missing


class NotFound(CannotCompute):
    """No document is in force for the area, the insurance and the day."""


class NotOfficial(CannotCompute):
    """The benefit rests on an illustrative value, and such values may not pay here."""


@dataclass(frozen=True, slots=True)
class Case:
    """One settlement; names are those of `names`, days are valid ISO dates."""

    route: str
    basis: str
    benefit_class: str
    care_type: str
    person_class: str
    age: int
    deductible_level: str
    settlement_level: str
    end_date: str
    """Picks the document's version."""
    business_day: str
    """Picks the benefit period."""
    use_account: bool
    total_fen: int
    full_self_pay_fen: int
    over_limit_fen: int
    first_self_pay_fen: int
    in_scope_fen: int


class Counters(NamedTuple):
    """What has been used in one benefit period; a delta has the same shape."""

    stay_count: int = 0
    deductible_paid_fen: int = 0
    pooled_used_fen: int = 0
    large_amount_used_fen: int = 0

    def plus(self, delta: Counters) -> Counters:
        """The counters after `delta`."""
        return Counters(*(mine + added for mine, added in zip(self, delta, strict=True)))


class Step(NamedTuple):
    """One step of the explanation."""

    stage: str
    row: str
    input_fen: int
    result_fen: int
    value: int
    unit: Unit
    clause: str
    provenance: Provenance
    text: str


class Benefit(NamedTuple):
    """Who pays what. in_scope = remote_first_pay + deductible + funds + ratio_self_pay +
    over_cap; total = funds + account + cash."""

    document: Document
    remote_first_pay_fen: int
    deductible_fen: int
    ratio_self_pay_fen: int
    over_cap_fen: int
    pooled_fen: int
    """统筹基金 (hifp_pay)."""
    large_amount_fen: int
    """职工大额 (hifob_pay)."""
    account_fen: int
    cash_fen: int
    deltas: dict[str, Counters]
    """By benefit period; periods that nothing is added to are absent."""
    provenance: Provenance
    """The weakest among the values used."""
    steps: list[Step]

    @property
    def fund_total_fen(self) -> int:
        """What the funds pay together."""
        return self.pooled_fen + self.large_amount_fen
