"""The insured place's decisions, accumulators and accounts. Per batch, whatever its size:

| call   | trips | flush | what it does                                                      |
|--------|-------|-------|-------------------------------------------------------------------|
| read   | 1     | 0     | ids already decided, accumulators of the persons, accounts        |
| decide | 1     | 1     | locks, decisions, accumulators, accounts, audit: autocommit       |

`decide` is one statement. It locks, in key order, the rows whose version is still the one read;
inserts decisions only of units all of whose rows it locked; updates those rows; and inserts with
their final values the rows that were absent when read. A zero row inserted in the same statement
would be invisible to its own lock, so an absent row is made by insertion, and a unique violation
means that somebody else made it: the batch is read and decided again. A decision is never updated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import asyncpg

from infra.runtime import journal
from infra.runtime.database import Database
from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from services.settlement.domain.balance import ABSENT, FIELDS, PersonKey, Row, Values
from services.settlement.domain.states import Decision
from services.settlement.store.past import PastDecision, past_decisions
from yidi.common.v1 import envelope_pb2

_VALUES = ", ".join(FIELDS)
STORED_COLUMNS = """d.state, d.request_digest, d.outcome_header, d.outcome_details,
       d.outcome_digest, d.rejection"""
"""Columns of a decision, aliased `d`, that `stored` reads."""
_READ_STATEMENT = f"""
SELECT 1 AS kind, d.settlement_id::text AS key, NULL AS period, NULL::bigint AS version,
       NULL::bigint[] AS vals, {STORED_COLUMNS}
FROM unnest($1::uuid[]) AS i(id)
JOIN settlement.decision d ON d.settlement_id = i.id
UNION ALL
SELECT 2, i.ordinality::text, a.period, a.version, ARRAY[{", ".join(f"a.{n}" for n in FIELDS)}],
       NULL, NULL, NULL, NULL, NULL, NULL
FROM unnest($2::text[], $3::smallint[], $4::uuid[]) WITH ORDINALITY
     AS i(insured_area, insurance, person_id, ordinality)
JOIN settlement.accumulator a
  ON (a.insured_area, a.insurance, a.person_id) = (i.insured_area, i.insurance, i.person_id)
UNION ALL
SELECT 3, a.account_id::text, NULL, a.version, ARRAY[a.balance_fen],
       NULL, NULL, NULL, NULL, NULL, NULL
FROM unnest($5::uuid[]) AS i(account_id)
JOIN settlement.account a ON a.account_id = i.account_id
"""

_AFTER = 45 + len(FIELDS)
_ACCOUNT_ARRAYS = [
    f"${_AFTER + index}::{kind}[]" for index, kind in enumerate(("int", "uuid", "bigint", "bigint"))
]
_SAME_PERSON = """(a.insured_area, a.insurance, a.person_id, a.period)
        = (c.insured_area, c.insurance, c.person_id, c.period)"""
_DECIDE_STATEMENT = f"""
WITH item AS (
    SELECT * FROM unnest(
        $2::uuid[], $3::int[], $4::int[], $5::text[], $6::smallint[], $7::bytea[], $8::text[],
        $9::text[], $10::text[], $11::smallint[], $12::uuid[], $13::bytea[], $14::bytea[],
        $15::bytea[], $16::bytea[], $17::text[], $18::bytea[], $19::uuid[], $20::uuid[],
        {journal.parameters(21)}
    ) AS t(settlement_id, unit, locks, state, kind, request_digest, institution, care_area,
           insured_area, insurance, person_id, outcome_header, outcome_details, outcome_digest,
           rejection, balances, policy_case, undoes, filing_id, {journal.COLUMN_LIST})
), c AS (
    SELECT * FROM unnest($39::int[], $40::text[], $41::smallint[], $42::uuid[], $43::text[],
        $44::bigint[], {", ".join(f"${45 + i}::bigint[]" for i in range(len(FIELDS)))}
    ) AS t(unit, insured_area, insurance, person_id, period, version, {_VALUES})
), m AS (
    SELECT * FROM unnest({", ".join(_ACCOUNT_ARRAYS)})
        AS t(unit, account_id, version, balance_fen)
), locked AS (
    SELECT c.unit FROM c JOIN settlement.accumulator a ON {_SAME_PERSON} AND a.version = c.version
    ORDER BY a.insured_area, a.insurance, a.person_id, a.period FOR UPDATE OF a
), locked_account AS (
    SELECT m.unit FROM m JOIN settlement.account a
        ON a.account_id = m.account_id AND a.version = m.version
    ORDER BY a.account_id FOR UPDATE OF a
), got AS (
    SELECT unit, count(*) AS locks
    FROM (SELECT unit FROM locked UNION ALL SELECT unit FROM locked_account) AS l GROUP BY unit
), ready AS (
    SELECT item.unit FROM item LEFT JOIN got USING (unit)
    WHERE item.locks = coalesce(got.locks, 0) GROUP BY item.unit
), decided AS (
    INSERT INTO settlement.decision
        (settlement_id, state, kind, request_digest, institution, care_area, insured_area,
         insurance, person_id, decided_at, outcome_header, outcome_details, outcome_digest,
         rejection, balances, policy_case, undoes, filing_id, {journal.COLUMN_LIST})
    SELECT settlement_id, state, kind, request_digest, institution, care_area, insured_area,
           insurance, person_id, $1, outcome_header, outcome_details, outcome_digest, rejection,
           balances::jsonb, policy_case, undoes, filing_id, {journal.selected("item")}
    FROM item JOIN ready USING (unit)
    RETURNING settlement_id, institution, state, outcome_digest, undoes
), undone AS (
    INSERT INTO settlement.undo (original_id, undo_id)
    SELECT undoes, settlement_id FROM decided
    WHERE undoes IS NOT NULL AND state = '{Decision.COMMITTED}' ORDER BY undoes
), changed AS (
    UPDATE settlement.accumulator a
    SET version = a.version + 1, {", ".join(f"{name} = c.{name}" for name in FIELDS)}
    FROM c JOIN ready USING (unit)
    WHERE {_SAME_PERSON} AND c.version <> {ABSENT}
), made AS (
    INSERT INTO settlement.accumulator
        (insured_area, insurance, person_id, period, version, {_VALUES})
    SELECT insured_area, insurance, person_id, period, 0, {_VALUES}
    FROM c JOIN ready USING (unit) WHERE c.version = {ABSENT}
    ORDER BY insured_area, insurance, person_id, period
), account_changed AS (
    UPDATE settlement.account a SET version = a.version + 1, balance_fen = m.balance_fen
    FROM m JOIN ready USING (unit) WHERE a.account_id = m.account_id
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject, digest)
    SELECT $1, institution, state, settlement_id, outcome_digest FROM decided
)
SELECT settlement_id::text AS settlement_id FROM decided
"""
RACE = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
"""Errors that mean: somebody was quicker, read again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A decision as it stands, for ever."""

    state: Decision
    request_digest: bytes
    outcome: envelope_pb2.Outcome | None
    rejection: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a batch needs to be decided."""

    decided: dict[str, Stored]
    accumulators: dict[PersonKey, dict[str, Row]]
    accounts: dict[str, Row]


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision to write."""

    settlement_id: str
    unit: int
    state: Decision
    kind: int
    request_digest: bytes
    institution: str
    care_area: str
    insured_area: str
    insurance: int
    person_id: str | None
    header: envelope_pb2.OutcomeHeader | None
    outcome: envelope_pb2.Outcome | None
    rejection: bytes | None
    balances: str
    policy_case: bytes | None
    undoes: str | None = None
    filing_id: str | None = None
    """The filing that a committed settlement away from home was paid under."""


@dataclass(slots=True)
class UnitWrite:
    """Accumulator and account rows of one unit with their final values."""

    person: PersonKey | None = None
    accumulators: dict[str, tuple[int, Values]] = field(default_factory=dict)
    """Benefit period → version read (−1 absent), final values."""
    account: tuple[str, int, int] | None = None
    """Account id, version read, final balance in fen."""

    @property
    def locks(self) -> int:
        """How many rows must be locked before the unit may be written."""
        existing = sum(version != ABSENT for version, _ in self.accumulators.values())
        return existing + (self.account is not None)


class InsuredStore:
    """Statements of the insured place."""

    def __init__(self, database: Database, failpoints: Failpoints | None = None) -> None:
        self._database = database
        self._failpoints = failpoints or NullFailpoints()

    async def read(
        self, ids: Sequence[str], persons: Sequence[PersonKey], accounts: Sequence[str]
    ) -> Reading:
        """The decisions that exist for `ids`, and the rows of the persons and accounts."""
        rows = await self._database.run(
            _READ_STATEMENT,
            ids,
            [person.insured_area for person in persons],
            [person.insurance for person in persons],
            [person.person_id for person in persons],
            accounts,
        )
        reading = Reading({}, {person: {} for person in persons}, {})
        for row in rows:
            if row["kind"] == 1:
                reading.decided[row["key"]] = stored(row)
            elif row["kind"] == 2:
                person = persons[int(row["key"]) - 1]
                values = Row(row["version"], tuple(row["vals"]))
                reading.accumulators[person][row["period"]] = values
            else:
                reading.accounts[row["key"]] = Row(row["version"], tuple(row["vals"]))
        return reading

    async def decide(
        self, decisions: Sequence[NewDecision], units: Sequence[UnitWrite], now: datetime
    ) -> set[str]:
        """Write the decisions of every unit whose rows are still as read; return their ids.

        A decision names its unit by its place in `units`; units without a decision are left out.

        Units are written all or nothing and fail alone. Raises one of `RACE` when another writer
        made a row meanwhile: nothing of the batch is written then.
        """
        ids = [decision.settlement_id for decision in decisions]
        await self._failpoints.at(Place.INSURED_DECIDE_BEFORE, ids)
        rows = await self._database.run(
            _DECIDE_STATEMENT,
            now,
            *_decision_arrays(decisions, units),
            *_unit_arrays(units, {decision.unit for decision in decisions}),
        )
        await self._failpoints.at(Place.INSURED_DECIDE_AFTER, ids)
        return {row["settlement_id"] for row in rows}

    async def digest(
        self,
        day: date,
        care_site: str,
        insured_site: str,
        detail: envelope_pb2.JournalDetail.ValueType,
        hour: int,
    ) -> envelope_pb2.JournalDigest:
        """One day of one pair of sites, as deep as `detail` says."""
        return await journal.digest(
            self._database, "settlement.decision", day, care_site, insured_site, detail, hour
        )

    async def past(
        self, insured_area: str, insurance: int, first: date, last: date, after: str, limit: int
    ) -> list[PastDecision]:
        """A page of past settlements; see `past`."""
        return await past_decisions(
            self._database,
            insured_area=insured_area,
            insurance=insurance,
            first=first,
            last=last,
            after=after,
            limit=limit,
        )


def stored(row: asyncpg.Record) -> Stored:
    """A decision from a row with STORED_COLUMNS."""
    outcome = None
    if row["outcome_digest"] is not None:
        outcome = envelope_pb2.Outcome(
            header=row["outcome_header"],
            details=row["outcome_details"],
            digest=row["outcome_digest"],
        )
    return Stored(Decision(row["state"]), row["request_digest"], outcome, row["rejection"])


def _decision_arrays(
    decisions: Sequence[NewDecision], units: Sequence[UnitWrite]
) -> list[list[Any]]:
    return [
        [d.settlement_id for d in decisions],
        [d.unit for d in decisions],
        [units[d.unit].locks for d in decisions],
        [d.state.value for d in decisions],
        [d.kind for d in decisions],
        [d.request_digest for d in decisions],
        [d.institution for d in decisions],
        [d.care_area for d in decisions],
        [d.insured_area for d in decisions],
        [d.insurance for d in decisions],
        [d.person_id for d in decisions],
        [d.outcome.header if d.outcome else None for d in decisions],
        [d.outcome.details if d.outcome else None for d in decisions],
        [d.outcome.digest if d.outcome else None for d in decisions],
        [d.rejection for d in decisions],
        [d.balances for d in decisions],
        [d.policy_case for d in decisions],
        [d.undoes for d in decisions],
        [d.filing_id for d in decisions],
        *journal.arrays([d.header for d in decisions]),
    ]


def _unit_arrays(units: Sequence[UnitWrite], wanted: set[int]) -> list[list[Any]]:
    accumulators = [
        (number, unit.person, period, version, values)
        for number, unit in enumerate(units)
        if unit.person is not None and number in wanted
        for period, (version, values) in unit.accumulators.items()
    ]
    accounts = [
        (number, *unit.account)
        for number, unit in enumerate(units)
        if unit.account is not None and number in wanted
    ]
    return [
        [number for number, *_ in accumulators],
        [person.insured_area for _, person, *_ in accumulators],
        [person.insurance for _, person, *_ in accumulators],
        [person.person_id for _, person, *_ in accumulators],
        [period for _, _, period, _, _ in accumulators],
        [version for *_, version, _ in accumulators],
        *([row[4][index] for row in accumulators] for index in range(len(FIELDS))),
        *([row[index] for row in accounts] for index in range(4)),
    ]
