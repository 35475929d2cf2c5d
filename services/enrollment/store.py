"""Tables of enrollment and every statement on them.

One statement per batch whatever its size: `look_up` is the round trip of an identification;
`record_refusals` is added only when there are any; a registration reads (`known`), decides in
memory and writes (`add`), and does both again when another registration was quicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import asyncpg

from infra.runtime.database import Database
from infra.runtime.schema import Schema
from services.enrollment.domain.identification import CredentialType, Found, Insurance
from services.enrollment.domain.registration import Key, Known, Membership, Registration

SCHEMA = Schema("enrollment", Path(__file__).parent / "migrations")


@dataclass(frozen=True, slots=True)
class Question:
    """One identification to look up; the disease is empty when none is asked for."""

    credential: Key
    area: str
    insurance_type: int
    disease: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit: who did what to whom, and the digest of what."""

    actor: str
    action: str
    subject: str
    digest: bytes


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
    """An insurance row with its qualifications; `account_id` is empty without an account."""

    person_id: str
    area: str
    insurance_type: int
    membership: Membership
    account_id: str


class Raced(Exception):
    """Another registration wrote one of the rows first: read again and decide again."""


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
        )
        found: list[Found | None] = [None] * len(questions)
        for row in rows:
            found[row["position"] - 1] = Found(
                person_id=str(row["person_id"]),
                id_index=row["id_index"],
                name_index=row["name_index"],
                birth_date=row["birth_date"],
                in_area=row["in_area"],
                insurance=_insurance(row),
                qualified=row["qualified"],
                account_id=str(row["account_id"] or ""),
            )
        return found

    async def record_refusals(self, rows: Sequence[AuditRow], at: datetime) -> None:
        """Write one audit row per refused identification."""
        await self._database.run(_AUDIT, at, *_audit_columns(rows))

    async def known(self, registrations: Sequence[Registration]) -> list[Known]:
        """What is stored already about each registration, in their order."""
        cards = [_other(one, CredentialType.SOCIAL_SECURITY_CARD) for one in registrations]
        tokens = [_other(one, CredentialType.ELECTRONIC) for one in registrations]
        rows = await self._database.run(
            _KNOWN,
            [one.id_card.index for one in registrations],
            [one.area for one in registrations],
            [one.insurance_type for one in registrations],
            [card and card.index for card in cards],
            [token and token.index for token in tokens],
        )
        by_position = {row["position"]: row for row in rows}
        return [
            _known(by_position[position], registration.id_card, card, token)
            for position, (registration, card, token) in enumerate(
                zip(registrations, cards, tokens, strict=True), start=1
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
        """Write all rows of a batch or none; raises `Raced`.

        Rows are written in the order of their keys, so that two batches with the same people
        wait for each other rather than deadlock; where they do, PostgreSQL ends one of them.
        """
        people = sorted(people, key=lambda one: one.id_index)
        credentials = sorted(credentials, key=lambda one: (one[0].type, one[0].index))
        memberships = sorted(memberships, key=lambda one: one.person_id)
        diseases = [
            (one, disease) for one in memberships for disease in sorted(one.membership.diseases)
        ]
        accounts = [one for one in memberships if one.account_id]
        insurances = [one.membership.insurance for one in memberships]
        try:
            await self._database.run(
                _ADD,
                at,
                *_audit_columns(audit),
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
                [one.person_class for one in insurances],
                [one.active_from for one in insurances],
                [one.active_until for one in insurances],
                [one.civil_servant for one in insurances],
                [one.person_id for one, _ in diseases],
                [one.area for one, _ in diseases],
                [one.insurance_type for one, _ in diseases],
                [disease for _, disease in diseases],
                [one.person_id for one in accounts],
                [one.area for one in accounts],
                [one.insurance_type for one in accounts],
                [one.account_id for one in accounts],
            )
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError) as error:
            # Not chained: PostgreSQL's text quotes the key that was there already.
            raise Raced(type(error).__name__) from None


def _audit_columns(rows: Sequence[AuditRow]) -> tuple[list[str], list[str], list[str], list[bytes]]:
    return (
        [row.actor for row in rows],
        [row.action for row in rows],
        [row.subject for row in rows],
        [row.digest for row in rows],
    )


def _other(registration: Registration, wanted: CredentialType) -> Key | None:
    return next((key for key in registration.other_credentials if key.type is wanted), None)


def _insurance(row: Any) -> Insurance | None:
    if row["active_from"] is None:
        return None
    return Insurance(
        person_class=row["person_class"],
        active_from=row["active_from"],
        active_until=row["active_until"],
        civil_servant=row["civil_servant"],
    )


def _known(row: Any, id_card: Key, card: Key | None, token: Key | None) -> Known:
    person_id = None if row["person_id"] is None else str(row["person_id"])
    insurance = _insurance(row)
    owners = ((id_card, row["person_id"]), (card, row["card_owner"]), (token, row["token_owner"]))
    return Known(
        person_id=person_id,
        name_index=row["name_index"],
        owners=tuple(
            (key, str(owner)) for key, owner in owners if key is not None and owner is not None
        ),
        membership=(
            None if insurance is None else Membership(insurance, frozenset(row["diseases"]))
        ),
    )


# LATERAL with LIMIT keeps the planner at one key look-up per line: left to itself it has read a
# whole table once per batch where statistics were old (tried: 10,000 people, 256 lines: 420 ms).
_LOOK_UP = """
SELECT asked.position, person.person_id, person.id_index, person.name_index, person.birth_date,
       EXISTS (SELECT FROM enrollment.insurance AS any_insurance
               WHERE any_insurance.person_id = person.person_id
                 AND any_insurance.area = asked.area) AS in_area,
       insurance.person_class, insurance.active_from, insurance.active_until,
       insurance.civil_servant,
       EXISTS (SELECT FROM enrollment.chronic_qualification AS chronic
               WHERE chronic.person_id = person.person_id AND chronic.area = asked.area
                 AND chronic.insurance = asked.insurance
                 AND chronic.disease_code = asked.disease_code) AS qualified,
       (SELECT link.account_id FROM enrollment.account_link AS link
        WHERE link.person_id = person.person_id AND link.area = asked.area
          AND link.insurance = asked.insurance) AS account_id
FROM unnest($1::smallint[], $2::bytea[], $3::text[], $4::smallint[], $5::text[])
     WITH ORDINALITY AS asked (type, number_index, area, insurance, disease_code, position)
CROSS JOIN LATERAL (
    SELECT known.* FROM enrollment.credential AS known
    WHERE known.type = asked.type AND known.number_index = asked.number_index LIMIT 1
) AS credential
CROSS JOIN LATERAL (
    SELECT known.* FROM enrollment.participant AS known
    WHERE known.person_id = credential.person_id LIMIT 1
) AS person
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.insurance AS known
    WHERE known.person_id = person.person_id AND known.area = asked.area
      AND known.insurance = asked.insurance LIMIT 1
) AS insurance ON true
"""

_AUDIT = """
INSERT INTO enrollment.audit (at, actor, action, subject, digest)
SELECT $1, line.actor, line.action, line.subject, line.digest
FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[])
     AS line (actor, action, subject, digest)
"""

_KNOWN = """
SELECT asked.position, person.person_id, person.name_index,
       insurance.person_class, insurance.active_from, insurance.active_until,
       insurance.civil_servant,
       ARRAY(SELECT chronic.disease_code FROM enrollment.chronic_qualification AS chronic
             WHERE chronic.person_id = person.person_id AND chronic.area = asked.area
               AND chronic.insurance = asked.insurance) AS diseases,
       (SELECT card.person_id FROM enrollment.credential AS card
        WHERE card.type = 3 AND card.number_index = asked.card_index) AS card_owner,
       (SELECT token.person_id FROM enrollment.credential AS token
        WHERE token.type = 1 AND token.number_index = asked.token_index) AS token_owner
FROM unnest($1::bytea[], $2::text[], $3::smallint[], $4::bytea[], $5::bytea[])
     WITH ORDINALITY AS asked (id_index, area, insurance, card_index, token_index, position)
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.participant AS known
    WHERE known.id_index = asked.id_index LIMIT 1
) AS person ON true
LEFT JOIN LATERAL (
    SELECT known.* FROM enrollment.insurance AS known
    WHERE known.person_id = person.person_id AND known.area = asked.area
      AND known.insurance = asked.insurance LIMIT 1
) AS insurance ON true
"""

_ADD = f"""
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
), insurance AS (
    INSERT INTO enrollment.insurance
        (person_id, area, insurance, person_class, active_from, active_until, civil_servant)
    SELECT line.*
    FROM unnest($15::uuid[], $16::text[], $17::smallint[], $18::smallint[], $19::date[],
                $20::date[], $21::boolean[])
         AS line (person_id, area, insurance, person_class, active_from, active_until,
                  civil_servant)
), chronic AS (
    INSERT INTO enrollment.chronic_qualification (person_id, area, insurance, disease_code)
    SELECT line.*
    FROM unnest($22::uuid[], $23::text[], $24::smallint[], $25::text[])
         AS line (person_id, area, insurance, disease_code)
), link AS (
    INSERT INTO enrollment.account_link (person_id, area, insurance, account_id)
    SELECT line.*
    FROM unnest($26::uuid[], $27::text[], $28::smallint[], $29::uuid[])
         AS line (person_id, area, insurance, account_id)
)
{_AUDIT}
"""
