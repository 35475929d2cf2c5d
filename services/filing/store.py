"""Tables of filing and every statement on them.

One statement per batch whatever its size: `of_people` is the round trip of an entitlement (never
cached: a filing made a second ago counts), `create` writes filings with their audit rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.runtime.database import Database
from infra.runtime.schema import Schema
from services.filing.domain.facts import CommitmentState, Filing, FilingKind, InsuranceType

SCHEMA = Schema("filing", Path(__file__).parent / "migrations")


@dataclass(frozen=True, slots=True)
class NewFiling:
    """A filing to write under the caller's request id.

    `wanted` is False for a request that the rules refuse today: it is only looked for, because a
    repetition gets its filing whatever the rules have become.
    """

    request_id: str
    person_id: str
    digest: bytes
    filing: Filing
    wanted: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """The filing that a request id stands for, with the digest of its request."""

    digest: bytes
    filing: Filing


class FilingStore:
    """The store of one site's filings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_people(self, person_ids: Collection[str]) -> Mapping[str, list[Filing]]:
        """Person id → all filings of that person; a person without filings is absent."""
        found: dict[str, list[Filing]] = {}
        for row in await self._database.run(_OF_PEOPLE, list(person_ids)):
            found.setdefault(str(row["person_id"]), []).append(_filing(row))
        return found

    async def create(
        self, new: Sequence[NewFiling], *, caller: str, at: datetime
    ) -> Mapping[str, Stored]:
        """Write what is wanted and not there yet; request id → what is stored now.

        A wanted request that is absent from the answer was written by somebody else while this
        statement ran: asking again finds it.
        """
        filings = [one.filing for one in new]
        rows = await self._database.run(
            _CREATE,
            at,
            caller,
            [one.wanted for one in new],
            [one.request_id for one in new],
            [one.digest for one in new],
            [one.person_id for one in new],
            [one.filing_id for one in filings],
            [one.insured_area for one in filings],
            [one.insurance for one in filings],
            [one.kind for one in filings],
            [one.channel for one in filings],
            [one.care_place for one in filings],
            [one.start_date for one in filings],
            [one.end_date for one in filings],
            [one.filed_on for one in filings],
            [one.referral_institution for one in filings],
            [one.commitment for one in filings],
        )
        return {str(row["request_id"]): Stored(row["body_digest"], _filing(row)) for row in rows}


def _filing(row: Any) -> Filing:
    return Filing(
        filing_id=str(row["filing_id"]),
        insured_area=row["insured_area"],
        insurance=InsuranceType(row["insurance"]),
        kind=FilingKind(row["kind"]),
        channel=row["channel"],
        care_place=row["care_place"],
        start_date=row["start_date"],
        end_date=row["end_date"],
        filed_on=row["filed_on"],
        referral_institution=row["referral_institution"],
        commitment=CommitmentState(row["commitment"]),
    )


_COLUMNS = """filing_id, person_id, insured_area, insurance, kind, channel, care_place, start_date,
       end_date, filed_on, referral_institution, commitment"""

# LATERAL with OFFSET keeps the planner at one key look-up per person, however old its statistics.
_OF_PEOPLE = f"""
SELECT found.*
FROM unnest($1::uuid[]) AS asked (person)
CROSS JOIN LATERAL (
    SELECT {_COLUMNS}
    FROM filing.filing
    WHERE filing.person_id = asked.person
    OFFSET 0
) AS found
"""

_CREATE = f"""
WITH line AS (
    SELECT *
    FROM unnest($3::boolean[], $4::uuid[], $5::bytea[], $6::uuid[], $7::uuid[], $8::text[],
                $9::smallint[], $10::smallint[], $11::smallint[], $12::text[], $13::date[],
                $14::date[], $15::date[], $16::text[], $17::smallint[])
         AS line (wanted, request_id, body_digest, person_id, filing_id, insured_area, insurance,
                  kind, channel, care_place, start_date, end_date, filed_on,
                  referral_institution, commitment)
), made AS (
    INSERT INTO filing.filing
        (caller, recorded_at, request_id, body_digest, {_COLUMNS})
    SELECT $2, $1, request_id, body_digest, {_COLUMNS}
    FROM line
    WHERE wanted
    ORDER BY request_id
    ON CONFLICT (request_id, caller) DO NOTHING
    RETURNING request_id, body_digest, {_COLUMNS}
), audited AS (
    INSERT INTO filing.audit (at, actor, action, subject, digest)
    SELECT $1, $2, 'create filing', filing_id::text, body_digest
    FROM made
)
SELECT * FROM made
UNION ALL
SELECT stored.request_id, stored.body_digest, stored.filing_id, stored.person_id,
       stored.insured_area, stored.insurance, stored.kind, stored.channel, stored.care_place,
       stored.start_date, stored.end_date, stored.filed_on, stored.referral_institution,
       stored.commitment
FROM line
JOIN filing.filing AS stored
  ON stored.request_id = line.request_id AND stored.caller = $2
"""
