"""Identification and registration.

One statement per batch whatever its size: `look_up` is the round trip of an identification;
`record_refusals` is added only when there are any; a registration reads (`known`), decides in
memory and writes (`add`), and does both again when another registration was quicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg

from infra.runtime.database import Database
from services.enrollment.domain.identification import CredentialType, Found, Insured
from services.enrollment.domain.registration import Key, Known, Membership, Registration
from services.enrollment.domain.status import InsuredStatus, Spell
from services.enrollment.store import reading
from services.enrollment.store.audit import AUDIT, AuditRow, columns
from services.enrollment.store.reading import QUALIFICATION, QUALIFICATIONS, SPELLS


@dataclass(frozen=True, slots=True)
class Question:
    """One identification to look up; the disease is empty when none is asked for."""

    credential: Key
    area: str
    insurance_type: int
    disease: str
    day: date


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A participant row: name and ID number encrypted."""

    person_id: str
    id_index: bytes
    name_index: bytes
    name: bytes
    id_number: bytes
    birth_date: date


@dataclass(frozen=True, slots=True)
class NewMembership:
    """A relation with its statuses and qualifications; `account_id` is empty without an account."""

    person_id: str
    area: str
    insurance_type: int
    membership: Membership
    account_id: str


class Raced(Exception):
    """Somebody else wrote one of the rows first: read again and decide again."""


class EnrollmentStore:
    """The store of one site's participants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look_up(self, questions: Sequence[Question]) -> list[Found | None]:
        """What is known of the owner of each credential, in the order asked."""
        rows = await self._database.run(
            _LOOK_UP,
            [one.credential.type for one in questions],
            [one.credential.index for one in questions],
            [one.area for one in questions],
            [one.insurance_type for one in questions],
            [one.disease for one in questions],
            [one.day for one in questions],
        )
        by_position: dict[int, list[Any]] = {}
        for row in rows:
            by_position.setdefault(row["position"], []).append(row)
        return [
            _found(by_position[position]) if position in by_position else None
            for position in range(1, len(questions) + 1)
        ]

    async def record_refusals(self, rows: Sequence[AuditRow], at: datetime) -> None:
        """Write one audit row per refused identification."""
        await self._database.run(AUDIT, at, *columns(rows))

    async def known(self, registrations: Sequence[Registration]) -> list[Known]:
        """What is stored already about each registration, in their order."""
        others = [{key.type: key for key in one.other_credentials} for one in registrations]
        rows = await self._database.run(
            _KNOWN,
            [one.id_card.index for one in registrations],
            [one.area for one in registrations],
            [one.insurance_type for one in registrations],
            *(
                [keys[type_].index if type_ in keys else None for keys in others]
                for type_ in _OTHER_OWNERS
            ),
        )
        by_position = {row["position"]: row for row in rows}
        return [
            _known(by_position[position], registration.id_card, keys)
            for position, (registration, keys) in enumerate(
                zip(registrations, others, strict=True), start=1
            )
        ]

    async def add(
        self,
        *,
        people: Sequence[NewPerson],
        credentials: Sequence[tuple[Key, str]],
        memberships: Sequence[NewMembership],
        audit: Sequence[AuditRow],
        at: datetime,
    ) -> None:
        """Write all rows of a batch or none; raises `Raced`."""
        try:
            await self._database.run(
                _ADD, at, *columns(audit), *adding_columns(people, credentials, memberships)
            )
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError) as error:
            # Not chained: PostgreSQL's text quotes the key that was there already.
            raise Raced(type(error).__name__) from None


def adding_columns(
    people: Sequence[NewPerson],
    credentials: Sequence[tuple[Key, str]],
    memberships: Sequence[NewMembership],
) -> tuple[list[Any], ...]:
    """The arguments $6 to $39 of `ADDING`.

    Rows are written in the order of their keys, so that two batches with the same people wait for
    each other rather than deadlock; where they do, PostgreSQL ends one of them.
    """
    people = sorted(people, key=lambda one: one.id_index)
    credentials = sorted(credentials, key=lambda one: (one[0].type, one[0].index))
    memberships = sorted(memberships, key=lambda one: one.person_id)
    new = {one.person_id for one in people}
    spells = [(one, spell) for one in memberships for spell in one.membership.statuses]
    granted = [
        (one, grant)
        for one in memberships
        for grant in sorted(one.membership.qualifications, key=lambda g: (g.disease, g.start))
    ]
    accounts = [one for one in memberships if one.account_id]
    return (
        [one.person_id for one in people],
        [one.id_index for one in people],
        [one.name_index for one in people],
        [one.name for one in people],
        [one.id_number for one in people],
        [one.birth_date for one in people],
        [key.type for key, _ in credentials],
        [key.index for key, _ in credentials],
        [person_id for _, person_id in credentials],
        [one.person_id for one in memberships],
        [one.area for one in memberships],
        [one.insurance_type for one in memberships],
        [one.membership.person_class for one in memberships],
        [one.membership.civil_servant for one in memberships],
        [one.membership.contracted_institution for one in memberships],
        [one.person_id for one, _ in spells],
        [one.area for one, _ in spells],
        [one.insurance_type for one, _ in spells],
        [spell.start for _, spell in spells],
        [spell.status for _, spell in spells],
        [spell.to_area for _, spell in spells],
        [one.person_id for one, _ in granted],
        [one.area for one, _ in granted],
        [one.insurance_type for one, _ in granted],
        [grant.disease for _, grant in granted],
        [grant.start for _, grant in granted],
        [grant.end for _, grant in granted],
        [grant.granted_area for _, grant in granted],
        [" ".join(grant.chosen_institutions) for _, grant in granted],
        [one.person_id for one in accounts],
        [one.area for one in accounts],
        [one.insurance_type for one in accounts],
        [one.account_id for one in accounts],
        sorted({one.person_id for one in memberships} - new),
    )


_OTHER_OWNERS = {
    CredentialType.SOCIAL_SECURITY_CARD: "card_owner",
    CredentialType.ELECTRONIC: "token_owner",
    CredentialType.PERSONAL_NUMBER: "number_owner",
}
"""Types of further credentials, in the order of `_KNOWN`'s arguments, with its columns."""


def _found(rows: Sequence[Any]) -> Found:
    """What the rows of one question say: one row per status."""
    statuses: dict[tuple[str, int], tuple[Spell, ...]] = {}
    for row in sorted(rows, key=lambda one: one["start_date"]) if len(rows) > 1 else rows:
        spell = Spell(row["start_date"], InsuredStatus(row["status"]), row["to_area"])
        relation = (row["area"], row["insurance"])
        statuses[relation] = (*statuses.get(relation, ()), spell)
    row = rows[0]
    return Found(
        person_id=str(row["person_id"]),
        id_index=row["id_index"],
        name_index=row["name_index"],
        birth_date=row["birth_date"],
        replaced_on=row["replaced_on"],
        statuses=statuses,
        insured=(
            None
            if row["person_class"] is None
            else Insured(row["person_class"], row["civil_servant"], row["contracted_institution"])
        ),
        qualifications=(
            () if row["chronic"] is None else reading.located_qualifications(row["chronic"])
        ),
        account_id=str(row["account_id"] or ""),
    )


def _known(row: Any, id_card: Key, others: dict[CredentialType, Key]) -> Known:
    owners = [(id_card, row["person_id"])]
    owners += [(key, row[_OTHER_OWNERS[type_]]) for type_, key in others.items()]
    membership = None
    if row["person_class"] is not None:
        membership = Membership(
            person_class=row["person_class"],
            civil_servant=row["civil_servant"],
            contracted_institution=row["contracted_institution"],
            statuses=reading.spells(row["statuses"]),
            qualifications=frozenset(reading.qualifications(row["qualifications"])),
        )
    return Known(
        person_id=None if row["person_id"] is None else str(row["person_id"]),
        name_index=row["name_index"],
        owners=tuple((key, str(owner)) for key, owner in owners if owner is not None),
        membership=membership,
        account_id=str(row["account_id"] or ""),
    )


# LATERAL with LIMIT keeps the planner at one key look-up per line: left to itself it has read a
# whole table once per batch where statistics were old (tried: 10,000 people, 256 lines: 420 ms).
_LOOK_UP = f"""
SELECT asked.position, credential.replaced_on, person.person_id, person.id_index,
       person.name_index, person.birth_date,
       relation.person_class, relation.civil_servant, relation.contracted_institution,
       spell.area, spell.insurance, spell.start_date, spell.status, spell.to_area,
       CASE WHEN asked.disease_code <> '' THEN (
           SELECT json_agg(json_build_array(
               json_build_array(chronic.area, chronic.insurance), {QUALIFICATION}))
           FROM enrollment.chronic_qualification AS chronic
           WHERE chronic.person_id = person.person_id
             AND chronic.disease_code = asked.disease_code) END AS chronic,
       COALESCE(
           (SELECT link.account_id FROM enrollment.account_link AS link
            WHERE link.person_id = person.person_id AND link.area = asked.area
              AND link.insurance = asked.insurance),
           (SELECT shared.account_id FROM enrollment.sharing AS shared
            WHERE shared.user_person_id = person.person_id AND shared.start_date <= asked.day
              AND (shared.end_date IS NULL OR asked.day <= shared.end_date)
            ORDER BY shared.start_date, shared.owner_person_id LIMIT 1)) AS account_id
FROM unnest($1::smallint[], $2::bytea[], $3::text[], $4::smallint[], $5::text[], $6::date[])
     WITH ORDINALITY AS asked (type, number_index, area, insurance, disease_code, day, position)
CROSS JOIN LATERAL (
    SELECT known.* FROM enrollment.credential AS known
    WHERE known.type = asked.type AND known.number_index = asked.number_index LIMIT 1
) AS credential
CROSS JOIN LATERAL (
    SELECT known.* FROM enrollment.participant AS known
    WHERE known.person_id = credential.person_id LIMIT 1
) AS person
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.relation AS known
    WHERE known.person_id = person.person_id AND known.area = asked.area
      AND known.insurance = asked.insurance LIMIT 1
) AS relation ON true
CROSS JOIN LATERAL (
    SELECT known.* FROM enrollment.status AS known WHERE known.person_id = person.person_id
) AS spell
"""

_KNOWN = f"""
SELECT asked.position, person.person_id, person.name_index,
       relation.person_class, relation.civil_servant, relation.contracted_institution,
       CASE WHEN relation.person_id IS NOT NULL THEN {SPELLS} END AS statuses,
       CASE WHEN relation.person_id IS NOT NULL THEN {QUALIFICATIONS} END AS qualifications,
       (SELECT link.account_id FROM enrollment.account_link AS link
        WHERE link.person_id = person.person_id ORDER BY link.account_id LIMIT 1) AS account_id,
       (SELECT card.person_id FROM enrollment.credential AS card
        WHERE card.type = 3 AND card.number_index = asked.card_index) AS card_owner,
       (SELECT token.person_id FROM enrollment.credential AS token
        WHERE token.type = 1 AND token.number_index = asked.token_index) AS token_owner,
       (SELECT number.person_id FROM enrollment.credential AS number
        WHERE number.type = 9 AND number.number_index = asked.personal_index) AS number_owner
FROM unnest($1::bytea[], $2::text[], $3::smallint[], $4::bytea[], $5::bytea[], $6::bytea[])
     WITH ORDINALITY
     AS asked (id_index, area, insurance, card_index, token_index, personal_index, position)
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.participant AS known
    WHERE known.id_index = asked.id_index LIMIT 1
) AS person ON true
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.relation AS known
    WHERE known.person_id = person.person_id AND known.area = asked.area
      AND known.insurance = asked.insurance LIMIT 1
) AS relation ON true
"""

ADDING = """
WITH person AS (
    INSERT INTO enrollment.participant
        (person_id, id_index, name_index, name, id_number, birth_date, registered_at)
    SELECT line.*, $1
    FROM unnest($6::uuid[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[], $11::date[])
         AS line (person_id, id_index, name_index, name, id_number, birth_date)
), credential AS (
    INSERT INTO enrollment.credential (type, number_index, person_id, registered_at)
    SELECT line.*, $1
    FROM unnest($12::smallint[], $13::bytea[], $14::uuid[])
         AS line (type, number_index, person_id)
), relation AS (
    INSERT INTO enrollment.relation
        (person_id, area, insurance, person_class, civil_servant, contracted_institution)
    SELECT line.*
    FROM unnest($15::uuid[], $16::text[], $17::smallint[], $18::smallint[], $19::boolean[],
                $20::text[])
         AS line (person_id, area, insurance, person_class, civil_servant, contracted_institution)
), spell AS (
    INSERT INTO enrollment.status (person_id, area, insurance, start_date, status, to_area)
    SELECT line.*
    FROM unnest($21::uuid[], $22::text[], $23::smallint[], $24::date[], $25::smallint[],
                $26::text[])
         AS line (person_id, area, insurance, start_date, status, to_area)
), chronic AS (
    INSERT INTO enrollment.chronic_qualification
        (person_id, area, insurance, disease_code, start_date, end_date, granted_area,
         chosen_institutions)
    SELECT line.person_id, line.area, line.insurance, line.disease_code, line.start_date,
           line.end_date, line.granted_area, string_to_array(line.chosen, ' ')
    FROM unnest($27::uuid[], $28::text[], $29::smallint[], $30::text[], $31::date[],
                $32::date[], $33::text[], $34::text[])
         AS line (person_id, area, insurance, disease_code, start_date, end_date, granted_area,
                  chosen)
), link AS (
    INSERT INTO enrollment.account_link (person_id, area, insurance, account_id)
    SELECT line.*
    FROM unnest($35::uuid[], $36::text[], $37::smallint[], $38::uuid[])
         AS line (person_id, area, insurance, account_id)
), changed AS (
    UPDATE enrollment.participant AS known SET version = known.version + 1
    FROM unnest($39::uuid[]) AS line (person_id)
    WHERE known.person_id = line.person_id
)
"""
"""$1 the instant, $6 to $39 the columns; what follows is free to use $2 to $5."""
_ADD = ADDING + AUDIT
