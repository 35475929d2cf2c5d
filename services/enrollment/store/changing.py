"""A person with everything that can change: one statement reads, one writes what differs.

The write is guarded by the person's version, so a change is only written on what it was decided
on; a repetition of its request finds the answer in the same read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from infra.runtime.database import Database
from services.enrollment.domain.changing import Credential, Person, Relation, Sharing
from services.enrollment.domain.registration import Key
from services.enrollment.store.audit import AUDIT, AuditRow, columns
from services.enrollment.store.participants import Raced
from services.enrollment.store.reading import QUALIFICATIONS, SPELLS


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to read, by id or key, and what else a change has to know; the rest is None."""

    person_id: str | None = None
    key: Key | None = None
    caller: str | None = None
    request_id: str | None = None
    new_number: Key | None = None
    """A number to be given to the person: whose is it?"""
    user_id: str | None = None
    """Another person: is that one known?"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A person as stored: the name and the ID number encrypted, the rest in `person`."""

    person: Person
    id_index: bytes
    name_index: bytes
    name: bytes
    id_number: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """What the same request id was used for before; the answer is encrypted for its person."""

    digest: bytes
    person_id: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Everything around a change at one moment."""

    stored: Stored | None
    answered: Answered | None
    owner_id: str | None
    """Who owns the new number."""
    user_known: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A request that changes a person, with the answer to give again."""

    caller: str
    request_id: str
    digest: bytes
    answer: bytes


class ChangingStore:
    """The changes of one site's participants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, asked: Asked) -> Read:
        """What `asked` names, all of one moment."""
        (row,) = await self._database.run(
            _READ,
            asked.person_id,
            asked.key and asked.key.type,
            asked.key and asked.key.index,
            asked.caller,
            asked.request_id,
            asked.new_number and asked.new_number.type,
            asked.new_number and asked.new_number.index,
            asked.user_id,
        )
        answered = None
        if row["digest"] is not None:
            answered = Answered(row["digest"], str(row["answered_id"]), row["answer"])
        return Read(
            stored=None if row["person_id"] is None else _stored(row),
            answered=answered,
            owner_id=None if row["owner_id"] is None else str(row["owner_id"]),
            user_known=row["user_known"],
        )

    async def write(
        self, before: Person, after: Person, request: Request, audit: AuditRow, at: datetime
    ) -> bool:
        """Write what differs, with the request and the audit row; False when `before` is no longer
        what is stored. Raises `Raced` when the request or a number was quicker elsewhere."""
        relations = _new(after.relations, before.relations)
        spells = _of_relations(after, before, "statuses")
        granted = _of_relations(after, before, "qualifications")
        accounts = [one for one in relations if one.account_id]
        former = {one.key for one in before.credentials}
        credentials = _new(after.credentials, before.credentials)
        added = [one for one in credentials if one.key not in former]
        replaced = [one for one in credentials if one.key in former]
        sharings = _new(after.sharings, before.sharings)
        try:
            rows = await self._database.run(
                _WRITE,
                at,
                *columns([audit]),
                before.person_id,
                before.version,
                [one.area for one in relations],
                [one.insurance_type for one in relations],
                [one.person_class for one in relations],
                [one.civil_servant for one in relations],
                [one.contracted_institution for one in relations],
                [one.area for one, _ in spells],
                [one.insurance_type for one, _ in spells],
                [spell.start for _, spell in spells],
                [spell.status for _, spell in spells],
                [spell.to_area for _, spell in spells],
                [one.area for one, _ in granted],
                [one.insurance_type for one, _ in granted],
                [grant.disease for _, grant in granted],
                [grant.start for _, grant in granted],
                [grant.end for _, grant in granted],
                [grant.granted_area for _, grant in granted],
                [" ".join(grant.chosen_institutions) for _, grant in granted],
                [one.area for one in accounts],
                [one.insurance_type for one in accounts],
                [one.account_id for one in accounts],
                [one.key.type for one in added],
                [one.key.index for one in added],
                [one.key.type for one in replaced],
                [one.key.index for one in replaced],
                [one.replaced_on for one in replaced],
                [one.user_id for one in sharings],
                [one.account_id for one in sharings],
                [one.start for one in sharings],
                [one.end for one in sharings],
                request.caller,
                request.request_id,
                request.digest,
                request.answer,
            )
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError) as error:
            # Not chained: PostgreSQL's text quotes the key that was there already.
            raise Raced(type(error).__name__) from None
        return bool(rows)

    async def fill_form(
        self, person_id: str, area: str, audit: AuditRow, at: datetime
    ) -> tuple[bytes, bytes] | None:
        """Name and ID number, encrypted, of a person of `area`; the audit row is written anyhow."""
        rows = await self._database.run(_FILL_FORM, at, *columns([audit]), person_id, area)
        return (rows[0]["name"], rows[0]["id_number"]) if rows else None


def _new(after: Iterable[Any], before: Iterable[Any]) -> list[Any]:
    known = set(before)
    return [one for one in after if one not in known]


def _of_relations(after: Person, before: Person, what: str) -> list[tuple[Relation, Any]]:
    """The statuses or qualifications that differ, each with its relation."""
    known = {(one.area, one.insurance_type): getattr(one, what) for one in before.relations}
    return [
        (one, row)
        for one in after.relations
        for row in _new(getattr(one, what), known.get((one.area, one.insurance_type), ()))
    ]


def _stored(row: Any) -> Stored:
    return Stored(
        person=Person(
            person_id=str(row["person_id"]),
            version=row["version"],
            relations=msgspec.json.decode(row["relations"], type=tuple[Relation, ...]),
            credentials=msgspec.json.decode(row["credentials"], type=tuple[Credential, ...]),
            sharings=msgspec.json.decode(row["sharings"], type=tuple[Sharing, ...]),
        ),
        id_index=row["id_index"],
        name_index=row["name_index"],
        name=row["name"],
        id_number=row["id_number"],
    )


_READ = f"""
SELECT person.person_id, person.version, person.id_index, person.name_index, person.name,
       person.id_number, request.digest, request.answer, request.person_id AS answered_id,
       (SELECT number.person_id FROM enrollment.credential AS number
        WHERE number.type = $6 AND number.number_index = $7) AS owner_id,
       EXISTS (SELECT FROM enrollment.participant AS other WHERE other.person_id = $8)
       AS user_known,
       (SELECT COALESCE(json_agg(json_build_object(
            'area', relation.area,
            'insurance_type', relation.insurance,
            'person_class', relation.person_class,
            'civil_servant', relation.civil_servant,
            'contracted_institution', relation.contracted_institution,
            'account_id', COALESCE(link.account_id::text, ''),
            'statuses', {SPELLS},
            'qualifications', {QUALIFICATIONS})), '[]')
        FROM enrollment.relation
        LEFT JOIN enrollment.account_link AS link
               ON link.person_id = relation.person_id AND link.area = relation.area
              AND link.insurance = relation.insurance
        WHERE relation.person_id = person.person_id) AS relations,
       (SELECT COALESCE(json_agg(json_build_object(
            'key', json_build_object('type', credential.type,
                                     'index', encode(credential.number_index, 'base64')),
            'replaced_on', credential.replaced_on)), '[]')
        FROM enrollment.credential
        WHERE credential.person_id = person.person_id) AS credentials,
       (SELECT COALESCE(json_agg(json_build_object(
            'owner_id', sharing.owner_person_id, 'user_id', sharing.user_person_id,
            'account_id', sharing.account_id, 'start', sharing.start_date,
            'end', sharing.end_date
        ) ORDER BY sharing.start_date, sharing.owner_person_id, sharing.user_person_id), '[]')
        FROM enrollment.sharing
        WHERE person.person_id IN (sharing.owner_person_id, sharing.user_person_id)) AS sharings
FROM (SELECT) AS nothing
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.participant AS known
    WHERE known.person_id = COALESCE($1::uuid, (
        SELECT credential.person_id FROM enrollment.credential
        WHERE credential.type = $2 AND credential.number_index = $3)) LIMIT 1
) AS person ON true
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.change_request AS known
    WHERE known.caller = $4 AND known.request_id = $5 LIMIT 1
) AS request ON true
"""

_WRITE = f"""
WITH person AS (
    UPDATE enrollment.participant SET version = version + 1
    WHERE person_id = $6 AND version = $7 RETURNING person_id
), relation AS (
    INSERT INTO enrollment.relation
        (person_id, area, insurance, person_class, civil_servant, contracted_institution)
    SELECT person.person_id, line.*
    FROM person CROSS JOIN
         unnest($8::text[], $9::smallint[], $10::smallint[], $11::boolean[], $12::text[]) AS line
    ON CONFLICT (person_id, area, insurance) DO UPDATE
    SET person_class = EXCLUDED.person_class, civil_servant = EXCLUDED.civil_servant,
        contracted_institution = EXCLUDED.contracted_institution
), spell AS (
    INSERT INTO enrollment.status (person_id, area, insurance, start_date, status, to_area)
    SELECT person.person_id, line.*
    FROM person CROSS JOIN
         unnest($13::text[], $14::smallint[], $15::date[], $16::smallint[], $17::text[]) AS line
    ON CONFLICT (person_id, area, insurance, start_date) DO UPDATE
    SET status = EXCLUDED.status, to_area = EXCLUDED.to_area
), chronic AS (
    INSERT INTO enrollment.chronic_qualification
        (person_id, area, insurance, disease_code, start_date, end_date, granted_area,
         chosen_institutions)
    SELECT person.person_id, line.area, line.insurance, line.disease_code, line.start_date,
           line.end_date, line.granted_area, string_to_array(line.chosen, ' ')
    FROM person CROSS JOIN
         unnest($18::text[], $19::smallint[], $20::text[], $21::date[], $22::date[], $23::text[],
                $24::text[])
         AS line (area, insurance, disease_code, start_date, end_date, granted_area, chosen)
    ON CONFLICT (person_id, area, insurance, disease_code, start_date) DO UPDATE
    SET end_date = EXCLUDED.end_date, granted_area = EXCLUDED.granted_area,
        chosen_institutions = EXCLUDED.chosen_institutions
), link AS (
    INSERT INTO enrollment.account_link (person_id, area, insurance, account_id)
    SELECT person.person_id, line.*
    FROM person CROSS JOIN unnest($25::text[], $26::smallint[], $27::uuid[]) AS line
    ON CONFLICT (person_id, area, insurance) DO NOTHING
), added AS (
    INSERT INTO enrollment.credential (type, number_index, person_id, registered_at)
    SELECT line.type, line.number_index, person.person_id, $1
    FROM person CROSS JOIN unnest($28::smallint[], $29::bytea[]) AS line (type, number_index)
), replaced AS (
    UPDATE enrollment.credential AS known SET replaced_on = line.replaced_on
    FROM person CROSS JOIN
         unnest($30::smallint[], $31::bytea[], $32::date[])
         AS line (type, number_index, replaced_on)
    WHERE known.type = line.type AND known.number_index = line.number_index
), shared AS (
    INSERT INTO enrollment.sharing
        (owner_person_id, user_person_id, account_id, start_date, end_date)
    SELECT person.person_id, line.*
    FROM person CROSS JOIN unnest($33::uuid[], $34::uuid[], $35::date[], $36::date[]) AS line
    ON CONFLICT (owner_person_id, user_person_id, start_date) DO UPDATE
    SET end_date = EXCLUDED.end_date
), request AS (
    INSERT INTO enrollment.change_request
        (caller, request_id, digest, person_id, answer, changed_at)
    SELECT $37, $38, $39, person.person_id, $40, $1 FROM person
)
{AUDIT}
WHERE EXISTS (SELECT FROM person)
RETURNING audit.audit_id
"""

_FILL_FORM = f"""
WITH audit AS ({AUDIT})
SELECT person.name, person.id_number FROM enrollment.participant AS person
WHERE person.person_id = $6
  AND EXISTS (SELECT FROM enrollment.relation
              WHERE relation.person_id = person.person_id AND relation.area = $7)
"""
