"""Postings from outside: opening values, manual claims, costs settled in another system.

Each is one statement: the posting with its deltas, and the rows they are added to. A repetition
finds its posting and adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.settlement.domain.balance import FIELDS, PersonKey, Values
from services.settlement.store.insured import RACE

ATTEMPTS = 5
_VALUES = ", ".join(FIELDS)
_ACCOUNT = f"${11 + len(FIELDS)}"
"""The parameter after those of the values."""
_POST_STATEMENT = f"""
WITH made AS (
    INSERT INTO settlement.external
        (posting_id, insured_area, insurance, person_id, source, posted_at, body_digest, balances)
    VALUES ($2, $3, $4, $5, $6, $1, $7, $8::text::jsonb)
    ON CONFLICT (posting_id) DO NOTHING
    RETURNING posting_id
), accumulated AS (
    INSERT INTO settlement.accumulator AS a
        (insured_area, insurance, person_id, period, version, {_VALUES})
    SELECT $3, $4, $5, t.* FROM unnest($9::text[], $10::bigint[],
        {", ".join(f"${11 + index}::bigint[]" for index in range(len(FIELDS)))}) AS t
    WHERE EXISTS (SELECT FROM made)
    ON CONFLICT (insured_area, insurance, person_id, period) DO UPDATE
        SET version = a.version + 1, {", ".join(f"{n} = a.{n} + excluded.{n}" for n in FIELDS)}
), paid AS (
    INSERT INTO settlement.account AS a (account_id, version, balance_fen)
    SELECT {_ACCOUNT}::uuid, 0, ${12 + len(FIELDS)}::bigint
    WHERE {_ACCOUNT}::uuid IS NOT NULL AND EXISTS (SELECT FROM made)
    ON CONFLICT (account_id) DO UPDATE
        SET version = a.version + 1, balance_fen = a.balance_fen + excluded.balance_fen
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject, digest)
    SELECT $1, ${13 + len(FIELDS)}, 'post external', posting_id, $7 FROM made
)
SELECT EXISTS (SELECT FROM made) AS made,
       (SELECT body_digest FROM settlement.external WHERE posting_id = $2) AS digest
"""
_SUMS = ", ".join(
    f"coalesce(sum((d->'delta'->>'{name}')::bigint), 0)::bigint AS {name}" for name in FIELDS
)
_SOURCES = """
    SELECT insured_area, insurance, person_id, balances FROM settlement.decision
    WHERE state = 'COMMITTED'
    UNION ALL
    SELECT insured_area, insurance, person_id, balances FROM settlement.external
"""
REBUILT = f"""
    SELECT s.insured_area, s.insurance, s.person_id, d->>'period' AS period, {_SUMS}
    FROM ({_SOURCES}) AS s, jsonb_array_elements(s.balances->'accumulators') AS d
    GROUP BY 1, 2, 3, 4
"""
"""Accumulators as the sum of every delta ever kept."""
_ACCUMULATOR_BREACHES = f"""
WITH rebuilt AS ({REBUILT})
SELECT coalesce(a.insured_area, r.insured_area) AS insured_area,
       coalesce(a.insurance, r.insurance) AS insurance,
       coalesce(a.person_id, r.person_id)::text AS person_id,
       coalesce(a.period, r.period) AS period,
       {", ".join(f"coalesce(a.{n}, 0) AS is_{n}" for n in FIELDS)},
       {", ".join(f"coalesce(r.{n}, 0) AS should_{n}" for n in FIELDS)}
FROM settlement.accumulator a
FULL JOIN rebuilt r ON (a.insured_area, a.insurance, a.person_id, a.period)
                     = (r.insured_area, r.insurance, r.person_id, r.period)
WHERE {" OR ".join(f"coalesce(a.{n}, 0) <> coalesce(r.{n}, 0)" for n in FIELDS)}
LIMIT 1000
"""
_ACCOUNT_BREACHES = f"""
WITH rebuilt AS (
    SELECT (s.balances->'account'->>'account_id')::uuid AS account_id,
           sum((s.balances->'account'->>'delta')::bigint)::bigint AS balance_fen
    FROM ({_SOURCES}) AS s WHERE s.balances->'account' <> 'null'::jsonb GROUP BY 1
)
SELECT coalesce(a.account_id, r.account_id)::text AS account_id,
       coalesce(a.balance_fen, 0) AS is_fen, coalesce(r.balance_fen, 0) AS should_fen
FROM settlement.account a FULL JOIN rebuilt r ON r.account_id = a.account_id
WHERE coalesce(a.balance_fen, 0) <> coalesce(r.balance_fen, 0)
LIMIT 1000
"""
_COUNTS = """
SELECT (SELECT count(*) FROM settlement.accumulator) AS accumulators,
       (SELECT count(*) FROM settlement.account) AS accounts
"""


@dataclass(frozen=True, slots=True)
class Posting:
    """A posting to make."""

    posting_id: str
    person: PersonKey
    deltas: dict[str, Values]
    account_id: str | None
    account_delta_fen: int
    source: str
    body_digest: bytes
    balances: str
    actor: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the sum of its deltas."""

    subject: str
    name: str
    stored: int
    summed: int


@dataclass(frozen=True, slots=True)
class Checked:
    """How many rows were compared with the sum of their deltas, and those that differ."""

    accumulators: int
    accounts: int
    differences: list[Difference]


class ExternalStore:
    """Statements of postings from outside, and of the check that rows are sums."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def post(self, posting: Posting, now: datetime) -> bool:
        """Make a posting; True when it stands, now or before, False when its id means another.

        Raises `Refusal` (PERSON_BUSY) when others are quicker every time.
        """
        periods = sorted(posting.deltas)
        arguments = (
            now,
            posting.posting_id,
            posting.person.insured_area,
            posting.person.insurance,
            posting.person.person_id,
            posting.source,
            posting.body_digest,
            posting.balances,
            periods,
            [0] * len(periods),
            *([posting.deltas[p][index] for p in periods] for index in range(len(FIELDS))),
            posting.account_id,
            posting.account_delta_fen,
            posting.actor,
        )
        for _ in range(ATTEMPTS):
            try:
                [row] = await self._database.run(_POST_STATEMENT, *arguments)
            except RACE:
                continue
            if row["made"]:
                return True
            if row["digest"] is not None:
                return bool(row["digest"] == posting.body_digest)
            # Somebody posted the same id meanwhile: the next look sees it.
        raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)

    async def check(self) -> Checked:
        """Compare every accumulator and account with the sum of its deltas, by separate SQL."""
        differences = []
        for row in await self._database.run(_ACCUMULATOR_BREACHES):
            key = "/".join(
                str(row[name]) for name in ("insured_area", "insurance", "person_id", "period")
            )
            differences += [
                Difference(key, name, row[f"is_{name}"], row[f"should_{name}"])
                for name in FIELDS
                if row[f"is_{name}"] != row[f"should_{name}"]
            ]
        differences += [
            Difference(row["account_id"], "balance_fen", row["is_fen"], row["should_fen"])
            for row in await self._database.run(_ACCOUNT_BREACHES)
        ]
        counts = (await self._database.run(_COUNTS))[0]
        return Checked(counts["accumulators"], counts["accounts"], differences)
