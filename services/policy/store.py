"""The policy service's tables and every statement on them.

| statement | when | trips |
|---|---|---|
| `last_numbers` | every 5 s per replica | 1 |
| `publications_after`, `retirements_after` | start, and when a last number has changed | 1 each |
| `versions`, `load` | loading documents | 1 each |
| `draft`, `review`, `publish`, `retire` | a change, with its claim and audit row | 1 |
| `claimed`, `show`, `content`, `list` | around it | 1 each |

Computing asks the database for nothing. Every table is append-only: the app role has neither
UPDATE nor DELETE. Publication numbers are the greatest so far plus one and unique, so two
publishers cannot commit out of order and a reader that asks for numbers above the last one it
saw misses none; retirements are numbered likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from infra.runtime.database import Database
from infra.runtime.schema import Schema

SCHEMA = Schema("policy", Path(__file__).parent / "migrations")


class StoredDocument(NamedTuple):
    """A row of `policy.document` as it is published."""

    number: int
    activated_at: datetime
    content: str
    hash: bytes


class StoredRetirement(NamedTuple):
    """A row of `policy.retirement`."""

    number: int
    publication: int
    from_day: date
    activated_at: datetime


class LastNumbers(NamedTuple):
    """The greatest numbers so far; 0 when there is none."""

    publication: int
    retirement: int


class NewDocument(NamedTuple):
    """A document to publish or to draft."""

    area: str
    insurance: str
    version: str
    title: str
    effective_from: date
    effective_to: date
    written: str
    content: str
    hash: bytes


class Claim(NamedTuple):
    """A caller's request id, claimed by the statement that makes the change."""

    caller: str
    method: str
    request_id: str
    body_digest: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A draft or published version with all that has happened to it, without its content."""

    draft_id: str | None
    publication: int | None
    area: str
    insurance: str
    version: str
    title: str
    effective_from: date
    effective_to: date
    hash: bytes
    warnings: str | None
    author: str | None
    drafted_at: datetime | None
    draft_comment: str | None
    approved: bool | None
    reviewer: str | None
    reviewed_at: datetime | None
    review_comment: str | None
    published_by: str | None
    published_at: datetime | None
    activated_at: datetime | None
    publish_comment: str | None
    retired_by: str | None
    retired_at: datetime | None
    retired_from: date | None
    retire_comment: str | None

    @property
    def state(self) -> str:
        """`draft`, `reviewed`, `refused`, `published` or `retired`."""
        if self.retired_at is not None:
            return "retired"
        if self.published_at is not None:
            return "published"
        if self.approved is None:
            return "draft"
        return "reviewed" if self.approved else "refused"

    @property
    def name(self) -> str:
        """`area/insurance/version`, by which people know it."""
        return f"{self.area}/{self.insurance}/{self.version}"


class ChangedMeanwhile(Exception):
    """Someone else made a change that this one cannot stand beside: look again."""


_LAST_NUMBERS = """
SELECT (SELECT coalesce(max(publication), 0) FROM policy.document) AS publication,
       (SELECT coalesce(max(number), 0) FROM policy.retirement) AS retirement
"""
_PUBLICATIONS_AFTER = """
SELECT publication, activated_at, content, hash FROM policy.document
WHERE publication > $1 ORDER BY publication
"""
_RETIREMENTS_AFTER = """
SELECT number, publication, from_day, activated_at FROM policy.retirement
WHERE number > $1 ORDER BY number
"""
_VERSIONS = "SELECT area, insurance, version, hash FROM policy.document"
_LOAD = """
WITH added AS (
    INSERT INTO policy.document (publication, area, insurance, version, title, effective_from,
                                 effective_to, written, content, hash, published_at, activated_at)
    SELECT (SELECT coalesce(max(publication), 0) FROM policy.document) + place, area, insurance,
           version, title, effective_from, effective_to, written, content, hash, $10, $11
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::date[],
                $7::text[], $8::text[], $9::bytea[]) WITH ORDINALITY
         AS new (area, insurance, version, title, effective_from, effective_to, written, content,
                 hash, place)
    RETURNING area, insurance, version, hash
)
INSERT INTO policy.audit (at, actor, action, subject, digest)
SELECT $10, 'loader', 'publish', area || '/' || insurance || '/' || version, hash FROM added
"""
_CLAIM = """
    INSERT INTO policy.request_key (caller, method, request_id, body_digest, at, {column})
    VALUES ($1, $2, $3, $4, $5, $6)
"""
_AUDIT = """
INSERT INTO policy.audit (at, actor, action, subject, digest)
SELECT $5::timestamptz, $1, '{action}', area || '/' || insurance || '/' || version, hash
FROM {source}
"""
_DRAFT = f"""
WITH claimed AS ({_CLAIM.format(column="draft_id")}), made AS (
    INSERT INTO policy.draft (draft_id, author, drafted_at, comment, warnings, area, insurance,
                              version, title, effective_from, effective_to, written, content, hash)
    VALUES ($6, $1, $5, $7, $8::text::jsonb, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    RETURNING area, insurance, version, hash
)
{_AUDIT.format(action="draft", source="made")}
"""
_REVIEW = f"""
WITH claimed AS ({_CLAIM.format(column="draft_id")}), made AS (
    INSERT INTO policy.review (draft_id, author, reviewer, approved, comment, reviewed_at)
    SELECT draft_id, author, $1, $7::boolean, $8::text, $5::timestamptz
    FROM policy.draft WHERE draft_id = $6
    RETURNING draft_id
)
{_AUDIT.format(action="review", source="policy.draft JOIN made USING (draft_id)")}
"""
_PUBLISH = f"""
WITH claimed AS ({_CLAIM.format(column="draft_id")}), made AS (
    INSERT INTO policy.document (publication, area, insurance, version, title, effective_from,
                                 effective_to, written, content, hash, published_at, activated_at,
                                 published_by, comment, draft_id, approved)
    SELECT (SELECT coalesce(max(publication), 0) FROM policy.document) + 1, area, insurance,
           version, title, effective_from, effective_to, written, content, hash, $5::timestamptz,
           $7::timestamptz, $1, $8::text, draft_id, true
    FROM policy.draft WHERE draft_id = $6
    RETURNING area, insurance, version, hash
)
{_AUDIT.format(action="publish", source="made")}
"""
_RETIRE = f"""
WITH claimed AS ({_CLAIM.format(column="publication")}), made AS (
    INSERT INTO policy.retirement (number, publication, publisher, retired_by, from_day, comment,
                                   retired_at, activated_at)
    SELECT (SELECT coalesce(max(number), 0) FROM policy.retirement) + 1, publication, published_by,
           $1, $7::date, $8::text, $5::timestamptz, $9::timestamptz
    FROM policy.document WHERE publication = $6
    RETURNING publication
)
{_AUDIT.format(action="retire", source="policy.document JOIN made USING (publication)")}
"""
_CLAIMED = """
SELECT body_digest, draft_id::text AS draft_id, publication FROM policy.request_key
WHERE caller = $1 AND method = $2 AND request_id = $3
"""
_STORED = """
SELECT d.draft_id::text AS draft_id, p.publication,
       coalesce(d.area, p.area) AS area, coalesce(d.insurance, p.insurance) AS insurance,
       coalesce(d.version, p.version) AS version, coalesce(d.title, p.title) AS title,
       coalesce(d.effective_from, p.effective_from) AS effective_from,
       coalesce(d.effective_to, p.effective_to) AS effective_to,
       coalesce(d.hash, p.hash) AS hash, d.warnings::text AS warnings,
       d.author, d.drafted_at, d.comment AS draft_comment,
       r.approved, r.reviewer, r.reviewed_at, r.comment AS review_comment,
       p.published_by, p.published_at, p.activated_at, p.comment AS publish_comment,
       t.retired_by, t.retired_at, t.from_day AS retired_from, t.comment AS retire_comment
"""
_TABLES = """
FROM policy.draft d FULL JOIN policy.document p ON p.draft_id = d.draft_id
LEFT JOIN policy.review r ON r.draft_id = d.draft_id
LEFT JOIN policy.retirement t ON t.publication = p.publication
"""
_SHOW_DRAFT = f"{_STORED} {_TABLES} WHERE d.draft_id = $1::uuid"
_SHOW_PUBLICATION = f"{_STORED} {_TABLES} WHERE p.publication = $1"
_SHOW_PUBLISHED = f"""
{_STORED} {_TABLES} WHERE (p.area, p.insurance, p.version) = ($1, $2, $3)
"""
_LIST = f"""
SELECT * FROM (
    SELECT listed.*, concat_ws('/', area, insurance, version, draft_id) COLLATE "C" AS place,
           CASE WHEN retired_at IS NOT NULL THEN 'retired'
                WHEN published_at IS NOT NULL THEN 'published'
                WHEN approved THEN 'reviewed' WHEN approved = false THEN 'refused'
                ELSE 'draft' END AS state
    FROM ({_STORED} {_TABLES}) AS listed
    WHERE $1 IN ('', area)
) AS placed
WHERE place > $2 AND (cardinality($3::text[]) = 0 OR state = ANY ($3)) ORDER BY place LIMIT $4
"""
_CONTENT = """
SELECT written, content, hash FROM policy.draft WHERE draft_id = $1::uuid
UNION ALL
SELECT written, content, hash FROM policy.document WHERE publication = $2 AND $1 IS NULL
"""


class Store:
    """Every query of the policy service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_numbers(self) -> LastNumbers:
        """The greatest publication and retirement numbers."""
        [row] = await self._database.run(_LAST_NUMBERS)
        return LastNumbers(row["publication"], row["retirement"])

    async def publications_after(self, number: int) -> list[StoredDocument]:
        """The documents published after `number`, in order."""
        rows = await self._database.run(_PUBLICATIONS_AFTER, number)
        return [
            StoredDocument(row["publication"], row["activated_at"], row["content"], row["hash"])
            for row in rows
        ]

    async def retirements_after(self, number: int) -> list[StoredRetirement]:
        """The retirements after `number`, in order."""
        rows = await self._database.run(_RETIREMENTS_AFTER, number)
        return [StoredRetirement(*row) for row in rows]

    async def versions(self) -> dict[tuple[str, str, str], bytes]:
        """The content hash of every published (area, insurance, version)."""
        rows = await self._database.run(_VERSIONS)
        return {(row["area"], row["insurance"], row["version"]): row["hash"] for row in rows}

    async def load(
        self, documents: Sequence[NewDocument], *, published_at: datetime, activated_at: datetime
    ) -> None:
        """Publish what an operator's folder holds, all or none; raise `ChangedMeanwhile`."""
        columns = [list(column) for column in zip(*documents, strict=True)]
        await self._change(_LOAD, *columns, published_at, activated_at)

    async def draft(
        self,
        claim: Claim,
        now: datetime,
        draft_id: str,
        document: NewDocument,
        *,
        warnings: str,
        comment: str,
    ) -> None:
        """Store a draft; raise `ChangedMeanwhile`."""
        await self._change(_DRAFT, *claim, now, draft_id, comment, warnings, *document)

    async def review(
        self, claim: Claim, now: datetime, draft_id: str, *, approved: bool, comment: str
    ) -> None:
        """Store the one verdict on a draft; raise `ChangedMeanwhile`."""
        await self._change(_REVIEW, *claim, now, draft_id, approved, comment)

    async def publish(
        self, claim: Claim, now: datetime, draft_id: str, *, activated_at: datetime, comment: str
    ) -> None:
        """Publish an approved draft; raise `ChangedMeanwhile`."""
        await self._change(_PUBLISH, *claim, now, draft_id, activated_at, comment)

    async def retire(
        self,
        claim: Claim,
        now: datetime,
        publication: int,
        *,
        from_day: date,
        activated_at: datetime,
        comment: str,
    ) -> None:
        """Retire a published version; raise `ChangedMeanwhile`."""
        await self._change(_RETIRE, *claim, now, publication, from_day, comment, activated_at)

    async def claimed(
        self, caller: str, method: str, request_id: str
    ) -> tuple[bytes, str | None, int | None] | None:
        """What a request id was used for: body digest, and the draft or the publication."""
        rows = await self._database.run(_CLAIMED, caller, method, request_id)
        return (
            (rows[0]["body_digest"], rows[0]["draft_id"], rows[0]["publication"]) if rows else None
        )

    async def show_draft(self, draft_id: str) -> Stored | None:
        """A draft, whatever has become of it."""
        return _first(await self._database.run(_SHOW_DRAFT, draft_id))

    async def show_publication(self, number: int) -> Stored | None:
        """A published version by its number."""
        return _first(await self._database.run(_SHOW_PUBLICATION, number))

    async def show_published(self, area: str, insurance: str, version: str) -> Stored | None:
        """A published version by its name."""
        return _first(await self._database.run(_SHOW_PUBLISHED, area, insurance, version))

    async def content(self, stored: Stored) -> tuple[str, str, bytes]:
        """The text as written (empty if it was not kept), the canonical form and its hash."""
        [row] = await self._database.run(_CONTENT, stored.draft_id, stored.publication)
        return row["written"], row["content"], row["hash"]

    async def list(
        self, area: str, states: Sequence[str], after: str, limit: int
    ) -> list[tuple[str, Stored]]:
        """Documents of an area (empty: all) in these states (none: all), each with its place."""
        rows = await self._database.run(_LIST, area, after, states, limit)
        return [(row["place"], _stored(row)) for row in rows]

    async def _change(self, statement: str, *arguments: Any) -> None:
        try:
            await self._database.run(statement, *arguments)
        except asyncpg.UniqueViolationError as error:
            raise ChangedMeanwhile from error


def _first(rows: Sequence[asyncpg.Record]) -> Stored | None:
    return _stored(rows[0]) if rows else None


def _stored(row: asyncpg.Record) -> Stored:
    return Stored(**{name: row[name] for name in Stored.__dataclass_fields__})
