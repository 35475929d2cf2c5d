"""Tables of filing and every statement on them.

| statement | when | trips |
|---|---|---|
| `of_people` | an entitlement (never cached: a filing made a second ago counts) | 1 |
| `read` | before a change: versions, filings and earlier answers, of one instant | 1 |
| `change` | a batch of changes | 1 |
| `histories`, `find`, `pending` | listing, review, the queue | 1 each |

One statement per batch whatever its size. Every change of a person's filings names the version of
the person that it was decided on, so it is decided on all of them; whoever loses a race has written
nothing and reads again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncpg

from infra.runtime.database import Database, halving
from infra.runtime.schema import Schema
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingKind,
    FilingState,
    InsuranceType,
    Material,
)
from services.filing.domain.life import FilingAction

SCHEMA = Schema("filing", Path(__file__).parent / "migrations")


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose filings are read, and under which request id of `caller` something is asked."""

    person_id: str
    caller: str
    request_id: str
    """Empty for what has none."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request id was used for."""

    digest: bytes
    filing_id: str
    answer: bytes | None
    """What was answered; None: the filing as it stands (taken over)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is stored at one instant."""

    versions: Mapping[str, int]
    """Person id → version; 0 for somebody who has never filed."""
    filings: Mapping[str, Sequence[Filing]]
    """Person id → all filings of that person."""
    answers: Mapping[tuple[str, str], Answered]
    """(caller, request id) → answer."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a filing."""

    filing_id: str
    version: int
    action: FilingAction
    state: FilingState
    channel: FilingChannel | None
    actor: str
    cause: str
    at: datetime | None = None
    """None until it is written."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request id with what came of it."""

    caller: str
    request_id: str
    digest: bytes
    filing_id: str
    answer: bytes | None
    action: FilingAction


@dataclass(frozen=True, slots=True)
class PersonChange:
    """Everything that changes of one person, written together or not at all."""

    person_id: str
    seen: int
    """Version of the person that it was decided on."""
    made: Sequence[Filing]
    changed: Sequence[Filing]
    events: Sequence[Event]
    requests: Sequence[Request]


class FilingStore:
    """The store of one site's filings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_people(self, person_ids: Collection[str]) -> Mapping[str, list[Filing]]:
        """Person id → all filings of that person; a person without filings is absent."""
        found: dict[str, list[Filing]] = {}
        for row in await self._database.run(_OF_PEOPLE, list(person_ids)):
            found.setdefault(str(row["person_id"]), []).append(_filing(row, 1))
        return found

    async def read(self, asked: Sequence[Asked]) -> Reading:
        """Versions, filings and earlier answers of what is asked."""
        versions: dict[str, int] = {}
        filings: dict[str, dict[str, Filing]] = {}
        answers: dict[tuple[str, str], Answered] = {}
        rows = await self._database.run(
            _READ,
            [one.person_id for one in asked],
            [one.caller for one in asked],
            [one.request_id for one in asked],
        )
        for row in rows:
            person = str(row["asked_person"])
            versions[person] = row["person_version"]
            theirs = filings.setdefault(person, {})
            if row["filing_id"] is not None:
                theirs[str(row["filing_id"])] = _filing(row, 7)  # behind those of `_READ`
            if row["digest"] is not None:
                answers[row["asked_caller"], row["asked_request"]] = Answered(
                    row["digest"], str(row["answer_filing"]), row["answer"]
                )
        return Reading(versions, {key: list(one.values()) for key, one in filings.items()}, answers)

    async def change(
        self, changes: Sequence[PersonChange], at: datetime
    ) -> tuple[frozenset[str], list[PersonChange]]:
        """Write each person's change whole; returns the people written, and what cannot be written.

        Who is in neither was changed by somebody else meanwhile.
        """

        async def run(part: Sequence[PersonChange]) -> list[str]:
            try:
                rows = await self._database.run(_CHANGE, at, *_change_arguments(part))
            except asyncpg.UniqueViolationError:
                # Somebody wrote under the same request id meanwhile: alone, that is a lost race.
                if len(part) == 1:
                    return []
                raise
            return [str(row["person_id"]) for row in rows]

        written, spoiled = await halving(changes, run)
        return frozenset(written), spoiled

    async def histories(self, filing_ids: Collection[str]) -> Mapping[str, list[Event]]:
        """Filing id → what happened to it, oldest first."""
        found: dict[str, list[Event]] = {}
        for row in await self._database.run(_HISTORIES, list(filing_ids)):
            event = _event(row)
            found.setdefault(event.filing_id, []).append(event)
        return found

    async def find(self, filing_id: str) -> tuple[str, Filing] | None:
        """Person id and filing, or None."""
        rows = await self._database.run(_FIND, filing_id)
        return (str(rows[0]["person_id"]), _filing(rows[0], 1)) if rows else None

    async def pending(self, area: str, after: tuple[date, str], limit: int) -> list[Filing]:
        """Filings of an area that wait, the first due first, behind (due date, filing id)."""
        return [_filing(row) for row in await self._database.run(_PENDING, area, *after, limit)]


# By table: the constructors of enums are slow, and every entitlement reads filings.
_INSURANCES = {int(one): one for one in InsuranceType}
_KINDS = {int(one): one for one in FilingKind}
_CHANNELS = {int(one): one for one in FilingChannel}
_COMMITMENTS = {int(one): one for one in CommitmentState}
_STATES = {int(one): one for one in FilingState}


def _filing(row: Any, first: int = 0) -> Filing:
    """The filing in the columns `_COLUMNS` of a row, from the `first` on: by position, not by name,
    which costs twice as much."""
    (
        filing_id,
        insured_area,
        insurance,
        kind,
        channel,
        care_place,
        start_date,
        end_date,
        filed_on,
        referral_institution,
        commitment,
        state,
        version,
        disease_code,
        due_date,
        changed_on,
        materials,
        replaces,
    ) = row[first : first + _WIDTH]
    return Filing(
        filing_id=str(filing_id),
        insured_area=insured_area,
        insurance=_INSURANCES[insurance],
        kind=_KINDS[kind],
        channel=_CHANNELS[channel],
        care_place=care_place,
        start_date=start_date,
        end_date=end_date,
        filed_on=filed_on,
        referral_institution=referral_institution,
        commitment=_COMMITMENTS[commitment],
        state=_STATES[state],
        version=version,
        disease_code=disease_code,
        materials=_materials(materials),
        due_date=due_date,
        replaces="" if replaces is None else str(replaces),
        changed_on=changed_on,
    )


def _event(row: Any) -> Event:
    return Event(
        filing_id=str(row["filing_id"]),
        version=row["version"],
        action=FilingAction(row["action"]),
        state=FilingState(row["state"]),
        channel=FilingChannel(row["channel"]) if row["channel"] else None,
        actor=row["actor"],
        cause=row["cause"],
        at=row["at"],
    )


@lru_cache(256)
def _materials(mask: int) -> frozenset[Material]:
    return frozenset(one for one in Material if mask >> one & 1)


def _mask(materials: Iterable[Material]) -> int:
    return sum(1 << material for material in materials)


def _change_arguments(changes: Sequence[PersonChange]) -> Iterable[list[Any]]:
    filings = [
        (change.person_id, new, one)
        for change in changes
        for new, several in ((True, change.made), (False, change.changed))
        for one in several
    ]
    events = [(change.person_id, one) for change in changes for one in change.events]
    requests = [(change.person_id, one) for change in changes for one in change.requests]
    yield [change.person_id for change in changes]
    yield [change.seen for change in changes]
    yield [person for person, _, _ in filings]
    yield [new for _, new, _ in filings]
    for name in _FILING_FIELDS:
        yield [getattr(one, name) for _, _, one in filings]
    yield [_mask(one.materials) for _, _, one in filings]
    yield [one.replaces or None for _, _, one in filings]
    yield [person for person, _ in events]
    yield [one.filing_id for _, one in events]
    yield [one.version for _, one in events]
    yield [one.action for _, one in events]
    yield [one.state for _, one in events]
    yield [one.channel or 0 for _, one in events]
    yield [one.actor for _, one in events]
    yield [one.cause for _, one in events]
    yield [person for person, _ in requests]
    yield [one.caller for _, one in requests]
    yield [one.request_id for _, one in requests]
    yield [one.digest for _, one in requests]
    yield [one.filing_id for _, one in requests]
    yield [one.answer for _, one in requests]
    yield [f"{one.action.name.lower().replace('_', ' ')} filing" for _, one in requests]


_FILING_FIELDS = (
    "filing_id",
    "insured_area",
    "insurance",
    "kind",
    "channel",
    "care_place",
    "start_date",
    "end_date",
    "filed_on",
    "referral_institution",
    "commitment",
    "state",
    "version",
    "disease_code",
    "due_date",
    "changed_on",
)
_COLUMNS = f"{', '.join(_FILING_FIELDS)}, materials, replaces"
_WIDTH = len(_FILING_FIELDS) + 2

# LATERAL with OFFSET keeps the planner at one key look-up per person, however old its statistics.
_OF_PEOPLE = f"""
SELECT found.*
FROM unnest($1::uuid[]) AS asked (person)
CROSS JOIN LATERAL (
    SELECT person_id, {_COLUMNS}
    FROM filing.filing
    WHERE filing.person_id = asked.person
    OFFSET 0
) AS found
"""

_READ = f"""
SELECT asked.person AS asked_person, asked.caller AS asked_caller,
       asked.request AS asked_request, coalesce(person.version, 0) AS person_version,
       request.digest, request.answer, request.filing_id AS answer_filing, found.*
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS asked (person, caller, request)
LEFT JOIN filing.person ON person.person_id = asked.person
LEFT JOIN filing.request
  ON request.request_id = asked.request AND request.caller = asked.caller
LEFT JOIN LATERAL (
    SELECT {_COLUMNS}
    FROM filing.filing
    WHERE filing.person_id = asked.person
    OFFSET 0
) AS found ON true
"""

_CHANGE = f"""
WITH moved AS (
    INSERT INTO filing.person AS person (person_id, version)
    SELECT person_id, seen + 1
    FROM unnest($2::uuid[], $3::bigint[]) AS line (person_id, seen)
    ORDER BY person_id
    ON CONFLICT (person_id) DO UPDATE SET version = excluded.version
    WHERE person.version = excluded.version - 1
    RETURNING person_id
), line AS (
    SELECT line.*
    FROM unnest($4::uuid[], $5::boolean[], $6::uuid[], $7::text[], $8::smallint[],
                $9::smallint[], $10::smallint[], $11::text[], $12::date[], $13::date[],
                $14::date[], $15::text[], $16::smallint[], $17::smallint[], $18::bigint[],
                $19::text[], $20::date[], $21::date[], $22::integer[], $23::uuid[])
         AS line (person_id, is_new, {_COLUMNS})
    JOIN moved USING (person_id)
), made AS (
    INSERT INTO filing.filing (person_id, recorded_at, {_COLUMNS})
    SELECT person_id, $1, {_COLUMNS} FROM line WHERE is_new
), changed AS (
    UPDATE filing.filing AS filing
    SET state = line.state, version = line.version, end_date = line.end_date,
        commitment = line.commitment, materials = line.materials, due_date = line.due_date,
        changed_on = line.changed_on
    FROM line
    WHERE NOT line.is_new AND filing.filing_id = line.filing_id
), told AS (
    INSERT INTO filing.history
        (filing_id, version, action, state, at, channel, actor, cause)
    SELECT filing_id, version, action, state, $1, channel, actor, cause
    FROM unnest($24::uuid[], $25::uuid[], $26::bigint[], $27::smallint[], $28::smallint[],
                $29::smallint[], $30::text[], $31::text[])
         AS event (person_id, filing_id, version, action, state, channel, actor, cause)
    JOIN moved USING (person_id)
), asked AS (
    SELECT asked.*
    FROM unnest($32::uuid[], $33::text[], $34::text[], $35::bytea[], $36::uuid[], $37::bytea[],
                $38::text[])
         AS asked (person_id, caller, request_id, digest, filing_id, answer, action)
    JOIN moved USING (person_id)
), claimed AS (
    INSERT INTO filing.request (request_id, caller, digest, filing_id, answer)
    SELECT request_id, caller, digest, filing_id, answer FROM asked
), audited AS (
    INSERT INTO filing.audit (at, actor, action, subject, digest)
    SELECT $1, caller, action, filing_id::text, digest FROM asked
)
SELECT person_id FROM moved
"""

_HISTORIES = """
SELECT event.*
FROM unnest($1::uuid[]) AS asked (filing)
CROSS JOIN LATERAL (
    SELECT * FROM filing.history WHERE history.filing_id = asked.filing ORDER BY version
) AS event
"""

_FIND = f"SELECT person_id, {_COLUMNS} FROM filing.filing WHERE filing_id = $1"

_PENDING = f"""
SELECT {_COLUMNS} FROM filing.filing
WHERE insured_area = $1 AND state = 1 AND (due_date, filing_id) > ($2::date, $3::uuid)
ORDER BY due_date, filing_id LIMIT $4
"""
